//! `weir inject --manifest`: weir put into the pods of a manifest, by the same code as the webhook's, for those who keep in
//! files what runs.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::{SourceArguments, print};
use crate::config::Config;
use crate::inject::manifest::{self, Manifest};

/// What may follow `weir inject`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the configuration comes from: the section `inject`.
    #[command(flatten)]
    sources: SourceArguments,
    /// Print this file, `-` for standard input, with weir in its pods: YAML, one document or many
    #[arg(short, long, value_name = "FILE")]
    manifest: PathBuf,
}

/// Prints the manifest with weir in it.
///
/// # Errors
/// With every mistake in it; then nothing is printed.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = Config::load(&arguments.sources.sources())?.inject;
    if settings.image.is_none() {
        bail!(
            "there is no image to put into pods: write `inject.image`, or --set inject.image=ghcr.io/weir-dev/weir:0.1.0"
        );
    }
    let text = read(&arguments.manifest)?;
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
