//! `weir simulate`: the simulated provider alone, for trying things without a key.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::cli::print;
use crate::cli::run::told_to_stop;
use crate::simulator::pace::Pace;
use crate::simulator::{self, Simulator};

/// What may follow `weir simulate`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9349")]
    listen: SocketAddr,
    /// Answer as fast as a real model, not at once
    #[arg(long)]
    lifelike: bool,
    /// The share of calls that fail unasked, such as 0.02
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    mishaps: f64,
}

/// Runs the simulated provider until it is told to stop.
///
/// # Errors
/// If it cannot listen.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pace = if arguments.lifelike { Pace::lifelike() } else { Pace::instant() };
    let simulator = Simulator::new(pace).with_mishaps(arguments.mishaps);
    Runtime::new().context("cannot start the runtime")?.block_on(async {
        let told = told_to_stop().context("cannot listen for signals")?;
        let listener = TcpListener::bind(arguments.listen)
            .await
            .with_context(|| format!("cannot listen on {}: choose another address by --listen", arguments.listen))?;
        print(&format!("simulator listening on http://{}\n", listener.local_addr()?))?;
        simulator::run(listener, simulator, told).await;
        Ok(ExitCode::SUCCESS)
    })
}
