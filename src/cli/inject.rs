//! `weir inject`: answers the API server, which has weir put beside apps as their pods are made. With `--manifest`: weir put
//! into the pods of a manifest, by the same code, for those who keep in files what runs.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::run::{runtime, told_to_stop};
use crate::cli::{SourceArguments, print};
use crate::config::Config;
use crate::inject::CertificateSource;
use crate::inject::cluster::Cluster;
use crate::inject::manifest::{self, Manifest};
use crate::injector::{Injector, Surroundings};
use crate::sinks::log;

/// What may follow `weir inject`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the configuration comes from: the section `inject`.
    #[command(flatten)]
    sources: SourceArguments,
    /// Serve nothing, but print this file, `-` for standard input, with weir in its pods: YAML, one document or many
    #[arg(short, long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// Answers the API server until it is told to stop (SIGTERM, or Ctrl-C); or prints a manifest with weir in it.
///
/// # Errors
/// If it cannot start; or with every mistake in the manifest, of which then nothing is printed.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.manifest {
        Some(manifest) => put_into(manifest, arguments),
        None => serve(Config::load_injector(&arguments.sources.sources())?),
    }
}

fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let _log = log::init(&config.telemetry.log, Arc::clone(&config.redactor))?;
    let cluster = match config.inject.tls.source {
        CertificateSource::SelfManaged => {
            let found = Cluster::found(|name| std::env::var(name).ok());
            Some(found.context("inject.tls.source: self_managed needs the Kubernetes API")?)
        }
        CertificateSource::Files => None,
    };
    runtime(config.worker_threads).context("cannot start the runtime")?.block_on(async {
        let told = told_to_stop().context("cannot listen for signals")?;
        let surroundings = Surroundings { cluster, ..Surroundings::default() };
        let injector = Injector::bind(config.inject, config.admin.listen, surroundings).await?;
        for (side, address) in [("webhook", injector.webhook_address()?), ("admin", injector.admin_address()?)] {
            tracing::info!(weir.side = side, server.address = %address, "listening");
        }
        Box::pin(injector.run(told)).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn put_into(file: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = Config::load(&arguments.sources.sources())?.inject;
    if settings.image.is_none() {
        bail!(
            "there is no image to put into pods: write `inject.image`, or --set inject.image=ghcr.io/weir-dev/weir:0.1.0"
        );
    }
    let text = read(file)?;
    match manifest::inject(&text, &settings) {
        Ok(Manifest { text, warnings }) => {
            let mut output = io::stderr().lock();
            for warning in warnings {
                writeln!(output, "warning: {warning}").context("standard error cannot be written")?;
            }
            print(&text)
        }
        Err(faults) => bail!("nothing is printed, for there are mistakes in the manifest:\n{}", faults.join("\n")),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).context("standard input cannot be read")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
