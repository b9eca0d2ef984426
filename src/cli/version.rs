//! `weir version`: which weir this is.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::print;

/// The release, such as `0.1.0`.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The compiler, such as `rustc 1.95.0 (59807616e 2026-04-14)`; see `build.rs`.
const RUSTC: &str = env!("BUILD_RUSTC");
/// The commit, as whoever built this said in `BUILD_REVISION`.
const REVISION: &str = match option_env!("BUILD_REVISION") {
    Some(revision) => revision,
    None => "unknown revision",
};

/// What may follow `weir version`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Prints it.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.json {
        let revision = option_env!("BUILD_REVISION");
        return print(&format!("{}\n", json!({ "version": VERSION, "revision": revision, "rustc": RUSTC })));
    }
    print(&format!("weir {}\n", short()))
}

/// The version on one line, without weir's name.
#[must_use]
pub fn short() -> String {
    format!("{VERSION} ({REVISION}, {RUSTC})")
}
