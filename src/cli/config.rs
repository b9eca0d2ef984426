//! `weir config`: what may be configured, for people (`default`) and for editors (`schema`).

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::print;
use crate::config::default_file::default_file;
use crate::config::knob::schema;

/// What may follow `weir config`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a commented YAML file of every knob and its default
    Default,
    /// Print the JSON Schema of the configuration
    Schema,
}

/// Prints it.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Default => print(&default_file()),
        Command::Schema => print(&schema()),
    }
}
