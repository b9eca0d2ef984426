//! `weir warm`: sends the requests of a file through a running weir, so that their answers are stored; or says what that
//! would cost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use http::{HeaderName, HeaderValue};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;

use crate::app;
use crate::cli::run::told_to_stop;
use crate::cli::{SourceArguments, print};
use crate::config::Config;
use crate::exchange::Rooms;
use crate::exchange::quote::Quote;
use crate::listener::reachable;
use crate::record::usage::Cost;
use crate::units::PicoUsd;
use crate::warm::journal::Journal;
use crate::warm::lines::{Line, Lines, header};
use crate::warm::{self, Answered, Plan};

/// What may follow `weir warm`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The requests, one JSON object a line, as in OpenAI's batch files:
    /// `{"url": "/openai/v1/chat/completions", "body": {…}}`, and `headers` if need be
    file: PathBuf,
    /// Send nothing; say what it would cost
    #[arg(long)]
    dry_run: bool,
    /// Most calls that begin in a second
    #[arg(long, value_name = "N", default_value = "5")]
    rate: NonZeroU32,
    /// Most calls at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Most US dollars to spend: no call begins once so much is spent
    #[arg(long, value_name = "USD", default_value = "1")]
    max_usd: PicoUsd,
    /// A header of every request, such as `X-Cache-Namespace: team`; may be repeated. `$NAME` stands for the value of an
    /// environment variable: `Authorization: Bearer $OPENAI_API_KEY`
    #[arg(long, value_name = "NAME: VALUE", value_parser = written_header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Send all of them again, also those that an earlier run has
    #[arg(long)]
    again: bool,
    /// Where weir takes calls [default: where the configuration says]
    #[arg(long, value_name = "IP:PORT")]
    to: Option<SocketAddr>,
    /// Where the configuration comes from: it says which providers there are, and what they charge.
    #[command(flatten)]
    sources: SourceArguments,
}

/// Sends, or says what that would cost.
///
/// # Errors
/// If the file or the configuration has mistakes, or weir cannot be reached.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.sources.sources())?;
    let weir = reachable(arguments.to.unwrap_or(config.listen));
    let rooms = app::rooms(&config)?;
    let total = Lines::check(&arguments.file)?;
    if arguments.dry_run {
        return print(&estimate(&rooms, &arguments.file)?);
    }
    if arguments.again {
        Journal::remove(&arguments.file).context("cannot remove the journal")?;
    }
    Runtime::new().context("cannot start the runtime")?.block_on(send(arguments, &rooms, weir, total))
}

async fn send(arguments: &Arguments, rooms: &Arc<Rooms>, weir: SocketAddr, total: usize) -> anyhow::Result<ExitCode> {
    let plan = Plan {
        weir,
        headers: arguments.header.iter().cloned().collect(),
        rate: arguments.rate,
        at_once: arguments.concurrency.into(),
        max_cost: arguments.max_usd,
    };
    let path = Journal::path(&arguments.file);
    let mut journal = Journal::open(&arguments.file).with_context(|| format!("cannot write {}", path.display()))?;
    let answered = journal.answered().clone();
    let is_left = |line: &Line| !answered.contains(&line.digest);
    let left = || anyhow::Ok(Lines::open(&arguments.file)?.filter_map(Result::ok).filter(is_left));
    let earlier = total.saturating_sub(left()?.count());
    let bar = ProgressBar::new(total as u64).with_style(style()).with_position(earlier as u64);
    let (mut failures, mut unwritten) = (Vec::new(), None);
    let mut note = |answered: &Answered| {
        bar.inc(1);
        match &answered.result {
            Ok(_) => unwritten = unwritten.take().or(journal.add(answered.line.digest).err()),
            Err(failure) => failures.push(format!("line {}: {failure}\n", answered.line.number)),
        }
    };
    let summary = tokio::select! {
        summary = warm::send(rooms, &plan, left()?, &mut note) => summary,
        () = told_to_stop()? => bail!("stopped; the same command goes on from here"),
    };
    bar.finish_and_clear();
    let earlier = match earlier {
        0 => String::new(),
        _ => format!("{earlier} were answered in an earlier run: `--again` sends them again\n"),
    };
    print(&format!("{}{summary}\n{earlier}", failures.concat()))?;
    if let Some(error) = unwritten {
        bail!(anyhow::Error::new(error).context(format!("cannot write {}: the next run begins anew", path.display())));
    }
    if summary.unsent > 0 && summary.spent >= plan.max_cost {
        bail!("the limit of {} USD is reached: `--max-usd` sets another, and the same command goes on", plan.max_cost);
    }
    if summary.failed > 0 {
        bail!("{} of {total} have no answer; the same command tries them again", summary.failed + summary.unsent);
    }
    Ok(ExitCode::SUCCESS)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}").expect("a fixed template")
}

/// What the requests of one model would cost.
#[derive(Default)]
struct Group {
    requests: usize,
    reusable: usize,
    least: PicoUsd,
    most: PicoUsd,
    without_limit: usize,
    unpriced: usize,
}

impl Group {
    fn add(&mut self, quote: &Quote, rooms: &Rooms, body: &[u8]) {
        self.requests += 1;
        self.reusable += usize::from(quote.is_reusable());
        let range = quote.range(rooms, body);
        match (range.least.amount(), range.most.as_ref().map(Cost::amount)) {
            (None, _) | (_, Some(None)) => self.unpriced += 1,
            (Some(least), Some(Some(most))) => {
                self.least += least;
                self.most += most;
            }
            (Some(least), None) => {
                self.least += least;
                self.most += least;
                self.without_limit += 1;
            }
        }
    }
}

/// What sending the file would cost, in words.
fn estimate(rooms: &Rooms, file: &Path) -> anyhow::Result<String> {
    let mut groups = BTreeMap::<String, Group>::new();
    for line in Lines::open(file)?.filter_map(Result::ok) {
        let Some(quote) = Quote::of(rooms, &line.uri, &line.body) else {
            bail!("line {}: url: weir has no provider for `{}`", line.number, line.uri);
        };
        let name = format!("{} {}", quote.provider(), quote.model().unwrap_or("without a model"));
        groups.entry(name).or_default().add(&quote, rooms, &line.body);
    }
    let mut text = String::new();
    let mut total = Group::default();
    for (name, group) in &groups {
        writeln!(text, "{name}: {} requests, {}", group.requests, cost(group))?;
        for (count, what) in [
            (group.without_limit, "set no limit on their output, of which nothing is counted here"),
            (group.unpriced, "have no price, and are not in these figures"),
            (group.requests - group.reusable, "have answers that are never stored: warming does nothing for them"),
        ] {
            if count > 0 {
                writeln!(text, "  {count} {what}")?;
            }
        }
        total.requests += group.requests;
        total.least += group.least;
        total.most += group.most;
    }
    writeln!(text, "in all: {} requests, {}; nothing was sent", total.requests, cost(&total))?;
    Ok(text)
}

fn cost(group: &Group) -> String {
    format!("{} to {} USD", group.least, group.most)
}

/// A header, with `$NAME` in its value replaced by the environment's: so that no secret stands in a command.
fn written_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write a name and a value, such as `X-Cache-Namespace: team`")?;
    let mut filled = String::new();
    for (position, word) in value.trim().split(' ').enumerate() {
        if position > 0 {
            filled.push(' ');
        }
        match word.strip_prefix('$') {
            Some(variable) => {
                let set = std::env::var(variable);
                filled += &set.map_err(|_| format!("the environment variable `{variable}` is not set"))?;
            }
            None => filled += word,
        }
    }
    header(name.trim(), &filled)
}
