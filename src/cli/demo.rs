//! `weir demo`: weir, a simulated provider and some traffic, to see what weir is for.

use std::process::ExitCode;

use clap::Args;

/// What may follow `weir demo`.
#[derive(Debug, Args)]
pub struct Arguments {}

/// Runs it.
///
/// # Errors
/// If it cannot start, or does not end well.
pub fn run(_arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
