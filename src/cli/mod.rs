//! CLI: one file per subcommand. What was typed becomes a call of the room that does it, and an exit code.
//!
//! Knows words, standard output and exit codes; not how anything is done.

pub mod admin;
pub mod budget;
pub mod cache;
pub mod check;
pub mod completions;
pub mod config;
pub mod demo;
#[cfg(feature = "ledger")]
pub mod export;
pub mod health;
#[cfg(feature = "inject")]
pub mod inject;
#[cfg(feature = "ledger")]
mod ledger;
pub mod limits;
pub mod price;
pub mod prices;
pub mod reload;
#[cfg(feature = "ledger")]
pub mod report;
pub mod run;
pub mod simulate;
mod table;
pub mod top;
pub mod version;
pub mod warm;
#[cfg(feature = "ledger")]
pub mod what_if;
mod wording;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Flag, Presence, Sources};

/// The exit code of wrong usage and of a wrong configuration; clap's own for the former.
pub const WRONG_USAGE: u8 = 2;

const EXIT_CODES: &str = "Exit codes: 0 it worked, 1 it failed, 2 wrong usage or configuration.";

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version = version::short(),
    about = "Stands beside an app: its LLM calls go through, cached, priced and measured",
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a subcommand, weir runs.
    #[command(flatten)]
    run: run::Arguments,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run weir (also without a subcommand)
    Run(run::Arguments),
    /// Try weir: a simulated provider, some traffic, and what weir makes of it
    Demo(demo::Arguments),
    /// Check the configuration and say what it means
    Check(check::Arguments),
    /// Print the default configuration or its schema
    #[command(subcommand)]
    Config(config::Command),
    /// Say what a call would cost
    Price(price::Arguments),
    /// Show what is known of prices, or check a file of your own
    #[command(subcommand)]
    Prices(prices::Command),
    /// Send requests from a file through a running weir, so that their answers are stored
    Warm(warm::Arguments),
    /// Ask a running weir whether it is well
    Health(health::Arguments),
    /// Show how the cache of a running weir does, or remove entries from it
    #[command(subcommand)]
    Cache(cache::Command),
    /// Show how the budgets of a running weir stand, give the month another limit, or let calls pass for a while
    Budget(budget::Arguments),
    /// Show how the limits of rate of a running weir stand
    Limits(limits::Arguments),
    /// Have a running weir read its configuration again
    Reload(admin::Asking),
    /// Write down the calls that the ledger has: CSV, JSON, lines of JSON or Parquet
    #[cfg(feature = "ledger")]
    Export(export::Arguments),
    /// Say what a month has come to
    #[cfg(feature = "ledger")]
    Report(report::Arguments),
    /// Say what past calls would have cost at another model, on another tier, with prompts cached
    #[cfg(feature = "ledger")]
    WhatIf(what_if::Arguments),
    /// Show what goes on in a running weir as it goes on: calls, spending, budgets
    Top(top::Arguments),
    /// Put weir beside the apps of a Kubernetes cluster as their pods are made, or into a manifest
    #[cfg(feature = "inject")]
    Inject(inject::Arguments),
    /// Print the version
    Version(version::Arguments),
    /// Run a simulated provider
    Simulate(simulate::Arguments),
    /// Print a shell's completions
    Completions(completions::Arguments),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct SourceArguments {
    /// The configuration, a YAML file. Without it, no file is read: the defaults are complete
    #[arg(short, long, value_name = "FILE", env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
    /// The same, where somebody else brings the file: until it is there, the defaults hold; names in it that this weir does
    /// not know are warned of, not refused
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG_IF_PRESENT", conflicts_with = "config")]
    config_if_present: Option<PathBuf>,
    /// Where the app's calls come in: `listen`
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Where metrics and health are served: `admin.listen`
    #[arg(long, value_name = "IP:PORT")]
    admin_listen: Option<String>,
    /// What is logged, such as `debug`: `telemetry.log.level`, also `WEIR_LOG`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Any knob, such as `cache.mode=off`; may be repeated
    #[arg(long, value_name = "KNOB=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl SourceArguments {
    /// These, and the environment.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let named = [
            ("--listen", "listen", &self.listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--log", "telemetry.log.level", &self.log),
        ];
        let named = named.into_iter().filter_map(|(name, path, value)| {
            value.as_ref().map(|value| Flag { name, path: path.to_owned(), value: value.clone() })
        });
        let set = self.set.iter().cloned().map(|(path, value)| Flag { name: "--set", path, value });
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment: BTreeMap<_, _> = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let (file, presence) = match (&self.config, &self.config_if_present) {
            (None, Some(file)) => (Some(file), Presence::IfPresent),
            (file, _) => (file.as_ref(), Presence::Required),
        };
        Sources { file: file.cloned(), presence, environment, flags: set.chain(named).collect() }
    }
}

/// Does what was typed.
///
/// # Errors
/// With what failed, for the operator to read.
pub fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(arguments) => {
            let config = Config::load(&arguments.sources.sources())?;
            run::run(arguments, config)
        }
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Price(arguments) => price::run(&arguments),
        Command::Prices(command) => prices::run(&command),
        Command::Warm(arguments) => warm::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Cache(command) => cache::run(&command),
        Command::Budget(arguments) => budget::run(&arguments),
        Command::Limits(arguments) => limits::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        #[cfg(feature = "ledger")]
        Command::Export(arguments) => export::run(&arguments),
        #[cfg(feature = "ledger")]
        Command::Report(arguments) => report::run(&arguments),
        #[cfg(feature = "ledger")]
        Command::WhatIf(arguments) => what_if::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        #[cfg(feature = "inject")]
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Version(arguments) => version::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

/// Prints `text` to standard output, for a command whose result it is.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever reads it has seen enough: `weir config default | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => Ok((path.to_owned(), value.to_owned())),
        _ => Err("write a knob and its value, such as cache.mode=off"),
    }
}
