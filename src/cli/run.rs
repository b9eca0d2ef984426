//! `weir run`: weir itself, until it is told to stop.

use std::process::ExitCode;

use clap::Args;

use crate::cli::SourceArguments;
use crate::config::Config;

/// What may follow `weir run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub sources: SourceArguments,
}

/// Runs weir.
///
/// # Errors
/// If it cannot start, or does not end well.
pub fn run(_arguments: Arguments, _config: Config) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
