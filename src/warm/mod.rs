//! Warm: sends requests from a file through weir, so that their answers are stored before an app asks. By hand
//! (`weir warm`), or on a schedule.
//!
//! Sends as an app would, over HTTP to weir's own address: what is cached, for how long and for whom is weir's business,
//! not decided here. Keeps to a rate and to a limit of cost.

pub mod journal;
pub mod lines;

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use crate::exchange::Rooms;
use crate::exchange::house::House;
use crate::exchange::quote::Quote;
use crate::provider::reader::Reader;
use crate::provider::{Ending, Said};
use crate::record::usage::Cost;
use crate::units::{PicoUsd, Span};
use crate::warm::lines::{Line, Lines};

/// After so many calls that got no answer at all, one after the other, nobody is there.
const NOBODY_THERE: usize = 10;

/// What the operator writes of one file to be sent on a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The requests: one JSON object a line, as in OpenAI's batch files:
    /// `{"url": "/openai/v1/chat/completions", "body": {…}}`, and `headers` if need be.
    pub file: PathBuf,
    /// How often they are sent; the first time at the start. What is stored and stays fresh until the next time is not
    /// asked for again.
    pub every: Span,
    /// Most calls that begin in a second.
    pub rate: NonZeroU32,
    /// Most US dollars spent each time: no call begins once that much is spent.
    pub max_usd: PicoUsd,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            every: Span::from_secs(3600),
            rate: NonZeroU32::MIN,
            max_usd: PicoUsd::new(PicoUsd::PER_USD),
        }
    }
}

/// How a file is sent.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where weir takes calls.
    pub weir: SocketAddr,
    /// Headers of every request, beneath the line's own.
    pub headers: HeaderMap,
    /// Most calls that begin in a second.
    pub rate: NonZeroU32,
    /// Most calls at once.
    pub at_once: usize,
    /// No call begins once so much is spent; those that have begun end.
    pub max_cost: PicoUsd,
}

/// What became of one request.
#[derive(Debug)]
pub struct Answered {
    /// The request.
    pub line: Line,
    /// How it went.
    pub result: Result<Stored, Failure>,
    /// What it cost. Nothing where the answer was there already.
    pub cost: Cost,
}

/// What weir says of an answer (`X-Cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The provider was asked, and the answer may be stored now.
    New,
    /// It was stored already.
    Already,
    /// It is not for storing.
    Never,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// weir was not reached, or broke off.
    #[error("no answer from weir: {0}")]
    NoAnswer(#[source] Box<dyn Error + Send + Sync>),
    /// The answer is an error.
    #[error("status {0}")]
    Status(u16),
    /// The answer broke off, or carries an error.
    #[error("the answer is not complete")]
    Incomplete,
}

/// What came of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Answers that may be stored now.
    pub new: usize,
    /// Answers that were stored already.
    pub already: usize,
    /// Answers that are not for storing.
    pub never: usize,
    /// Requests without an answer.
    pub failed: usize,
    /// Requests that were not sent any more.
    pub unsent: usize,
    /// What was spent, as far as it is known.
    pub spent: PicoUsd,
    /// Calls whose cost is not known.
    pub unpriced: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} new, {} stored already", self.new, self.already)?;
        for (count, what) in [
            (self.never, "not for storing"),
            (self.failed, "failed"),
            (self.unsent, "not sent"),
            (self.unpriced, "of unknown cost"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        write!(f, "; spent {} USD", self.spent)
    }
}

impl Summary {
    fn note(&mut self, answered: &Answered) {
        match &answered.result {
            Ok(Stored::New) => self.new += 1,
            Ok(Stored::Already) => self.already += 1,
            Ok(Stored::Never) => self.never += 1,
            Err(_) => self.failed += 1,
        }
        match answered.cost.amount() {
            Some(amount) => self.spent += amount,
            None => self.unpriced += 1,
        }
    }
}

/// Sends requests, at the plan's rate, until there are none or the cost is reached; tells each answer. Dropping the
/// future ends the calls in progress.
pub async fn send(
    rooms: &Arc<Rooms>,
    plan: &Plan,
    lines: impl Iterator<Item = Line>,
    on_answered: &mut (dyn FnMut(&Answered) + Send),
) -> Summary {
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut turns = interval(Duration::from_secs(1) / plan.rate.get());
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut calls, mut summary, mut silent) = (JoinSet::new(), Summary::default(), 0);
    let mut note = |answered: Answered, summary: &mut Summary| {
        silent = if matches!(answered.result, Err(Failure::NoAnswer(_))) { silent + 1 } else { 0 };
        summary.note(&answered);
        on_answered(&answered);
        silent < NOBODY_THERE
    };
    let mut lines = lines.peekable();
    let mut goes_on = true;
    while goes_on && lines.peek().is_some() && summary.spent < plan.max_cost {
        tokio::select! {
            Some(answered) = calls.join_next() => goes_on = note(whole(answered), &mut summary),
            _ = turns.tick(), if calls.len() < plan.at_once => {
                calls.extend(lines.next().map(|line| call(Arc::clone(rooms), client.clone(), plan.clone(), line)));
            }
        }
    }
    while let Some(answered) = calls.join_next().await {
        note(whole(answered), &mut summary);
    }
    summary.unsent = lines.count();
    summary
}

fn whole(answered: Result<Answered, JoinError>) -> Answered {
    answered.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn call(rooms: Arc<Rooms>, client: Client<HttpConnector, Full<Bytes>>, plan: Plan, line: Line) -> Answered {
    let mut request = Request::new(Full::from(line.body.clone()));
    *request.method_mut() = Method::POST;
    match format!("http://{}{}", plan.weir, line.uri).parse() {
        Ok(url) => *request.uri_mut() = url,
        Err(error) => return failed(line, Box::new(error)),
    }
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // What the codings are that apps take is part of the key: these are those of OpenAI's and Anthropic's SDKs.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    // An answer to a question that is only similar would leave this one unanswered.
    headers.insert("x-cache-similar", HeaderValue::from_static("off"));
    for (name, value) in plan.headers.iter().chain(&line.headers) {
        headers.insert(name, value.clone());
    }
    match client.request(request).await {
        Ok(answer) => read(&rooms, answer, line).await,
        Err(error) => failed(line, error.into()),
    }
}

fn failed(line: Line, error: Box<dyn Error + Send + Sync>) -> Answered {
    Answered { line, result: Err(Failure::NoAnswer(error)), cost: Cost::Nothing }
}

/// Takes the whole answer, as an app would.
async fn read(rooms: &Rooms, answer: Response<Incoming>, line: Line) -> Answered {
    let (head, mut body) = answer.into_parts();
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (x_cache, cache_status) = (text("x-cache"), text("cache-status"));
    let is_bought = matches!(x_cache, "MISS" | "BYPASS" | "");
    let quote = Quote::of(rooms, &line.uri, &line.body);
    let mut reader = quote.as_ref().map(|quote| quote.reader(rooms, head.status, &head.headers));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let (Some(reader), Some(chunk)) = (reader.as_mut(), frame.data_ref()) {
                    reader.push(chunk, &mut |_, _| {});
                }
            }
            Err(error) => return failed(line, error.into()),
        }
    }
    let unread = || Said { ending: Ending::Unknown, ..Said::default() };
    let said = reader.map_or_else(unread, Reader::finish);
    let refused = !head.status.is_success() && said.usage.is_none();
    let cost = match quote {
        Some(quote) if is_bought && !refused => quote.bill(rooms, &said),
        _ => Cost::Nothing,
    };
    let result = match (head.status.is_success(), x_cache) {
        (false, _) => Err(Failure::Status(head.status.as_u16())),
        (true, _) if !said.ending.is_success() => Err(Failure::Incomplete),
        // What is stored does not stay fresh for as long as was asked.
        (true, "BYPASS") if cache_status.contains("fwd=request") => Ok(Stored::New),
        (true, "BYPASS") => Ok(Stored::Never),
        (true, "MISS") => Ok(Stored::New),
        (true, _) => Ok(Stored::Already),
    };
    Answered { line, result, cost }
}

/// Sends one file every so often, until dropped. A file that cannot be sent is named in the log each time, and tried
/// again the next.
pub async fn on_schedule(house: Arc<House>, weir: SocketAddr, settings: Settings) {
    /// Calls at once: enough to keep to most rates, too few to crowd out the app's own.
    const AT_ONCE: usize = 4;
    let Settings { file, every, rate, max_usd } = settings;
    let mut headers = HeaderMap::new();
    // An answer that would not stay fresh until the next time is asked for anew (RFC 9111, section 5.2.1.3).
    let stays_fresh = format!("min-fresh={}", every.get().as_secs());
    headers.extend(HeaderValue::try_from(stays_fresh).map(|value| (CACHE_CONTROL, value)));
    let plan = Plan { weir, headers, rate, at_once: AT_ONCE, max_cost: max_usd };
    let mut times = interval(every.get());
    times.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        times.tick().await;
        let mut note = |answered: &Answered| {
            if let Err(failure) = &answered.result {
                let line = answered.line.number;
                tracing::warn!(file.path = %file.display(), weir.line = line, error.message = %failure, "not warmed");
            }
        };
        match checked(&file).await {
            Ok(lines) => {
                let summary = send(&house.rooms(), &plan, lines, &mut note).await;
                tracing::info!(file.path = %file.display(), "warmed: {summary}");
            }
            Err(error) => {
                tracing::warn!(file.path = %file.display(), error.message = %format!("{error:#}"), "nothing was warmed");
            }
        }
    }
}

/// The lines of a file, all of which are right.
async fn checked(file: &Path) -> anyhow::Result<impl Iterator<Item = Line> + use<>> {
    let path = file.to_owned();
    let lines = spawn_blocking(move || Lines::check(&path).and_then(|_| Lines::open(&path))).await??;
    // A line that turned wrong since is left out: the next time says so.
    Ok(lines.filter_map(Result::ok))
}
