//! `weir run`: weir itself, until it is told to stop.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use crate::admin::reload::Bell;
use crate::app::App;
use crate::cli::SourceArguments;
use crate::config::Config;
use crate::sinks::log;
use crate::sinks::now::Queue;

/// What may follow `weir run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub sources: SourceArguments,
}

/// Runs weir until it is told to stop (SIGTERM, or Ctrl-C), and until calls in progress have ended.
///
/// # Errors
/// If it cannot start.
pub fn run(_: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let log = log::init(&config.telemetry.log, Arc::clone(&config.redactor))?;
    let runtime = runtime(config.worker_threads).context("cannot start the runtime")?;
    for left_out in &config.left_out {
        tracing::warn!("left out of the configuration: {left_out}");
    }
    let ended = runtime.block_on(async {
        let told = told_to_stop().context("cannot listen for signals")?;
        let app = App::bind(config).await?;
        let lines = log.backlog();
        app.metrics().watch_queue(Queue::LogLines, Box::new(move || Some(lines())));
        for (side, address) in [("app", app.app_address()?), ("admin", app.admin_address()?)] {
            tracing::info!(weir.side = side, server.address = %address, "listening");
        }
        let hang_ups = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        let _reloads = AbortOnDropHandle::new(tokio::spawn(reload_at(hang_ups, app.bell())));
        Box::pin(app.run(told)).await;
        Ok(ExitCode::SUCCESS)
    });
    // What still waits for a disk that hangs has had its time.
    runtime.shutdown_background();
    ended
}

/// Most threads that work on calls where the operator does not say how many: a machine may have a hundred processors, and
/// an app beside it.
const MOST_WORKERS: usize = 4;

/// What calls are worked on with. The processors that are counted are those that weir may use, by the quota of its
/// container too.
pub(super) fn runtime(workers: Option<usize>) -> std::io::Result<Runtime> {
    let processors = || thread::available_parallelism().map_or(1, NonZero::get);
    let workers = workers.unwrap_or_else(|| processors().min(MOST_WORKERS));
    Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

/// Has the configuration read again at each SIGHUP. Runs until it is dropped.
async fn reload_at(mut hang_ups: Signal, bell: Bell) {
    while hang_ups.recv().await.is_some() {
        bell.ring().await;
    }
}

/// Resolves at SIGTERM or SIGINT.
///
/// # Errors
/// If the system does not let weir hear them.
pub(super) fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
