//! `weir top`: what goes on in a running weir, as it goes on; on a screen, or as one line for each call.

#[cfg(feature = "top")]
mod board;
#[cfg(feature = "top")]
mod draw;
mod feed;
mod lines;
mod news;
#[cfg(feature = "top")]
mod screen;
#[cfg(feature = "top")]
mod view;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Uri};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Runtime;

use crate::cli::admin::AdminArguments;
use crate::cli::run::told_to_stop;
use feed::follow;
use lines::COLUMNS;
use news::News;

const LIVE: &str = "/api/v1/live";

/// What may follow `weir top`.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct Arguments {
    /// The admin side of another weir, such as `http://10.1.2.3:9348`, instead of the one that is configured here. It is
    /// shown a token only if `--token-file` or `WEIR_ADMIN_TOKEN` gives one
    #[arg(long, value_name = "URL", value_parser = admin_side)]
    url: Option<String>,
    /// Print one line for each call, also on a terminal
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// Print each call as a JSON object on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    admin: AdminArguments,
}

/// Which calls to show. The figures on top are of all calls.
#[derive(Debug, Args)]
struct Filters {
    /// Only calls to this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only calls of this model: asked for, answered, or priced
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only calls of this agent
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Only calls in this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only calls of this workspace
    #[arg(long, value_name = "ID")]
    workspace: Option<String>,
    /// Only calls that ended so, such as `timeout`
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
}

fn after_help() -> String {
    format!(
        "Without a terminal on standard output, or with --plain, each call is a line of words:\n  {COLUMNS}\n\
         A dash stands for what is not known or not there. While weir cannot be reached, standard error says so."
    )
}

impl Filters {
    fn path(&self) -> String {
        let given = [
            ("provider", &self.provider),
            ("model", &self.model),
            ("agent_id", &self.agent),
            ("namespace", &self.namespace),
            ("workspace_id", &self.workspace),
            ("outcome", &self.outcome),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let pairs: Vec<_> =
            given.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
        if pairs.is_empty() { LIVE.to_owned() } else { format!("{LIVE}?{}", pairs.join("&")) }
    }
}

impl Arguments {
    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let path = self.filters.path();
        match &self.url {
            Some(base) => self.admin.request_to(base, &path),
            None => self.admin.request(&Method::GET, &path, Bytes::new()),
        }
    }
}

fn admin_side(text: &str) -> Result<String, String> {
    let fix = "write where an admin side is, such as http://127.0.0.1:9348";
    let uri: Uri = text.parse().map_err(|error| format!("{error}: {fix}"))?;
    let is_one = uri.scheme_str() == Some("http") && uri.authority().is_some() && uri.query().is_none();
    if is_one { Ok(text.to_owned()) } else { Err(fix.to_owned()) }
}

/// Shows it until the user has seen enough, or weir top is told to stop.
///
/// # Errors
/// If weir does not want to answer, or what comes cannot be shown.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // What cannot be asked is said at once, not on a screen.
    let first = arguments.request()?;
    if arguments.plain || arguments.json || !io::stdout().is_terminal() {
        return print_lines(arguments);
    }
    draw(arguments, first.uri())
}

#[cfg(not(feature = "top"))]
fn draw(_: &Arguments, _: &Uri) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "this weir was built without the feature `top`, which draws; `weir top --plain` prints a line for each call"
    )
}

/// Draws on the terminal; on a thread beside it, news is read.
#[cfg(feature = "top")]
fn draw(arguments: &Arguments, url: &Uri) -> anyhow::Result<ExitCode> {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use tokio_util::sync::CancellationToken;

    /// How much news may wait for the next picture; then the reading waits, and weir says what was lost.
    const WAITING_NEWS: usize = 1024;

    let source = format!("http://{}", url.authority().map_or("", |authority| authority.as_str()));
    let (tell, news) = sync_channel(WAITING_NEWS);
    let enough = CancellationToken::new();
    thread::scope(|threads| {
        let has_enough = enough.clone().cancelled_owned();
        // With the reading the sender ends, and so does the drawing.
        let tell = move |news| match tell.send(news) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let reading = threads.spawn(move || read(arguments, has_enough, tell));
        // A panic ends the reading, too.
        let enough = enough.drop_guard();
        let shown = screen::show(&source, &news);
        drop((news, enough));
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        shown.context("cannot draw on this terminal")?;
        read.map(|()| ExitCode::SUCCESS)
    })
}

/// Prints a line for each call.
fn print_lines(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut failed = None;
    let tell = |news| match told(&news, arguments.json) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    };
    read(arguments, std::future::pending(), tell)?;
    match failed {
        // Whoever reads it has seen enough: `weir top | head`.
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Calls to standard output, what stands in the way to standard error.
fn told(news: &News, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match news {
        News::Call(whole, _) if as_json => writeln!(out, "{whole}")?,
        News::Call(_, call) => writeln!(out, "{}", lines::line(call))?,
        News::Lost(calls) => {
            writeln!(io::stderr(), "weir top: {calls} calls were lost: they came faster than they were read")?;
        }
        News::Away(why) => writeln!(io::stderr(), "weir top: weir cannot be reached, trying again every 2 s: {why}")?,
        News::Connected | News::Gauges(_) => return Ok(()),
    }
    out.flush()
}

/// Tells `tell` what comes, until it has `enough`, or a signal comes.
fn read(
    arguments: &Arguments,
    enough: impl Future<Output = ()>,
    tell: impl FnMut(News) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = told_to_stop().context("cannot listen for signals")?;
        tokio::select! {
            read = follow(|| arguments.request(), tell) => read,
            () = stop => Ok(()),
            () = enough => Ok(()),
        }
    })
}
