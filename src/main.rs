//! weir: arguments → command → exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use weir::app::Unusable;
use weir::cli::{self, Cli, WRONG_USAGE};
use weir::config::mistake::Mistakes;
use weir::price::PriceError;

/// Statically linked weir brings its allocator along: musl's own serves one thread at a time.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help asked for is no error. If the message cannot be written, the exit code still says it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    cli::execute(cli).unwrap_or_else(|error| {
        let (message, code) = match error.downcast_ref::<Mistakes>() {
            Some(mistakes) => (mistakes.to_string(), ExitCode::from(WRONG_USAGE)),
            None if error.is::<Unusable>() || error.is::<PriceError>() => {
                (format!("weir: {error:#}"), ExitCode::from(WRONG_USAGE))
            }
            None => (format!("weir: {error:#}"), ExitCode::FAILURE),
        };
        // The exit code says it too.
        let _ = writeln!(io::stderr(), "{message}");
        code
    })
}
