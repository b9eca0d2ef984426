//! `weir health`: is the weir that runs here well? For probes in images that hold no other program.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::cli::{SourceArguments, admin, print};
use crate::units::Span;

/// The longest status line read, in bytes. weir's own are far shorter.
const LONGEST_LINE: u64 = 256;

/// What may follow `weir health`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Ask whether it is alive (`/livez`) rather than ready for calls (`/readyz`)
    #[arg(long)]
    live: bool,
    /// Ask this one, such as `weir-injector.weir-system.svc:9348`, instead of the weir that the configuration is of
    #[arg(long, value_name = "HOST:PORT", value_parser = place)]
    at: Option<String>,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value_t = Span::from_secs(1))]
    timeout: Span,
    /// Where the configuration comes from: it says where the admin side listens.
    #[command(flatten)]
    sources: SourceArguments,
}

/// Asks.
///
/// # Errors
/// If weir is not well, or does not answer in time.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let address = match &arguments.at {
        Some(place) => place.clone(),
        None => admin::address(&arguments.sources.sources())?.to_string(),
    };
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { tokio::time::timeout(arguments.timeout.get(), ask(&address, path)).await });
    let status = answer
        .with_context(|| format!("no answer from http://{address}{path} within {}", arguments.timeout))?
        .with_context(|| format!("no answer from http://{address}{path}"))?;
    // `HTTP/1.1 200 OK`
    match status.split_once(' ') {
        Some((_, code)) if code.starts_with("200") => print("ok\n"),
        Some((_, code)) => bail!("http://{address}{path} says {}", code.trim()),
        None => bail!("http://{address}{path} does not speak HTTP"),
    }
}

/// The status line of the answer.
async fn ask(address: &str, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(connection.take(LONGEST_LINE)).read_line(&mut line).await?;
    Ok(line)
}

/// A host and a port, for clap.
fn place(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("write a host and a port, such as weir-injector.weir-system.svc:9348"),
    }
}
