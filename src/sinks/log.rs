//! Log: one line for each call at most, for people and for log stores.
//!
//! The message reads alone; the rest is in typed fields with dotted names. A line never holds a prompt, a completion, a
//! key or the end user's id.

mod call;
mod lines;

use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::record::Record;
use crate::record::outcome::Outcome;
use crate::redact::Redactor;
use crate::sinks::log::call::{CallLine, TARGET, level};
use crate::sinks::log::lines::{Lines, Tidy, Writing};
use crate::units::Backlog;

/// The target of lines that say who changed what. They are written at `info`, whatever `level` says.
pub const AUDIT: &str = "weir::audit";

/// What the operator writes of log lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How lines look: `json`, `text`, or `auto` (text on a terminal, JSON elsewhere).
    pub format: Format,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a `tracing` filter such as `weir=debug,hyper=warn`.
    pub level: String,
    /// Which calls get a line of their own: `all`, `failed` or `none`.
    pub calls: Calls,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".to_owned(), calls: Calls::All }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Which calls get a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Calls {
    /// Every call.
    All,
    /// Those that did not end well.
    Failed,
    /// None.
    None,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum Error {
    /// `level` is neither a level nor a filter.
    #[error("`{filter}` is not a log level: write error, warn, info, debug, trace, or a filter such as weir=debug")]
    Filter {
        /// What was written.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something in this process set up logging before.
    #[error("logging is already set up")]
    AlreadySetUp(#[source] TryInitError),
    /// There is no thread to write lines with.
    #[error("cannot start the thread that writes log lines")]
    NoThread(#[source] io::Error),
}

/// What the process logs. It ends, with what is waiting, when this is dropped.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
    _writing: Writing,
}

impl Log {
    /// Says how full the queue of lines is.
    #[must_use = "it only says so when it is asked"]
    pub fn backlog(&self) -> impl Fn() -> Backlog + Send + Sync + use<> {
        let lines = self.lines.clone();
        move || lines.backlog()
    }
}

/// Where the lines of calls go, and how they look. One for the process, as what `tracing` logs to is.
static OF_CALLS: OnceLock<Paper> = OnceLock::new();

/// Sends what the process logs to standard error, by a thread of its own, where `redactor` takes out what must not be
/// told. Once for each process.
///
/// # Errors
///
/// [`Error::Filter`] if `settings.level` cannot be read, [`Error::AlreadySetUp`] the second time, [`Error::NoThread`] if
/// the system has none.
pub fn init(settings: &Settings, redactor: Arc<Redactor>) -> Result<Log, Error> {
    let unclear = |source| Error::Filter { filter: settings.level.clone(), source };
    let filter = EnvFilter::builder().parse(&settings.level).map_err(unclear)?;
    let filter = filter.add_directive(format!("{AUDIT}=info").parse().map_err(unclear)?);
    let is_terminal = io::stderr().is_terminal();
    let is_json = match settings.format {
        Format::Auto => !is_terminal,
        Format::Json => true,
        Format::Text => false,
    };
    let lines = Lines::default();
    let said = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone()).with_ansi(is_terminal);
    let set_up = if is_json { said.json().flatten_event(true).finish().try_init() } else { said.finish().try_init() };
    set_up.map_err(Error::AlreadySetUp)?;
    let writing = lines.write_to(io::stderr(), Tidy { redactor, is_json }).map_err(Error::NoThread)?;
    // Nobody else was before, or it would be set up already.
    let _ = OF_CALLS.set(Paper { lines: lines.clone(), is_json, is_terminal });
    Ok(Log { lines, _writing: writing })
}

/// Where lines are written.
#[derive(Debug)]
struct Paper {
    lines: Lines,
    is_json: bool,
    is_terminal: bool,
}

impl Paper {
    /// A record is tidied before any sink gets it, so its line is.
    fn write(&self, line: &CallLine<'_>) {
        let mut text = Vec::with_capacity(1024);
        let written =
            if self.is_json { line.write_json(&mut text) } else { line.write_text(&mut text, self.is_terminal) };
        if written.is_ok() {
            self.lines.say_tidy(&text);
        }
    }
}

/// Writes the lines of calls.
#[derive(Clone, Copy, Debug)]
pub struct CallLog {
    calls: Calls,
}

impl CallLog {
    /// Writes lines for these calls.
    #[must_use]
    pub const fn new(calls: Calls) -> Self {
        Self { calls }
    }

    /// Writes the line of a call that is over, if it gets one.
    pub fn closed(self, record: &Record) {
        let Some(paper) = OF_CALLS.get().filter(|_| self.wants(record) && is_heard(record)) else { return };
        paper.write(&CallLine { record, at: SystemTime::now() });
    }

    fn wants(self, record: &Record) -> bool {
        match self.calls {
            Calls::All => true,
            Calls::Failed => record.outcome != Outcome::Success,
            Calls::None => false,
        }
    }
}

/// Whether lines as loud as this one are written.
fn is_heard(record: &Record) -> bool {
    match level(record.outcome) {
        Level::ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
        Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
        _ => tracing::enabled!(target: TARGET, Level::INFO),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::record::call::{Call, Caller, Delivery, Operation, RequestId};
    use crate::record::head::HeadFacts;
    use crate::record::outcome::{BypassReason, CacheStatus};
    use crate::record::provenance::Provenance;
    use crate::record::trace::{Part, SpanId, Told, Trace, TraceId};
    use crate::record::usage::{Charge, Cost, TokenClass, Unpriced, Usage};
    use crate::record::{Attempt, CacheFacts, Downgrade, ReplyFacts, Timing};
    use crate::units::PicoUsd;

    /// The lines these records get, parsed.
    fn lines(calls: Calls, records: &[Record]) -> Vec<Value> {
        let said = records.iter().filter(|record| CallLog::new(calls).wants(record)).map(|record| {
            let mut line = Vec::new();
            CallLine { record, at: SystemTime::UNIX_EPOCH }.write_json(&mut line).expect("to memory");
            assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line");
            serde_json::from_slice(&line).expect("one JSON object a line")
        });
        said.collect()
    }

    pub(in crate::sinks) fn record(outcome: Outcome) -> Record {
        let mut charge = Charge::default();
        charge.add(TokenClass::Input, PicoUsd::new(25_040_000_000));
        let caller =
            Caller { user: Some("alice@example.com".into()), agent: Some("planner".into()), ..Caller::default() };
        Record {
            id: RequestId::next(),
            trace: None,
            call: Call {
                provider: "openai".into(),
                operation: Operation::Chat,
                model: Some("gpt-5".into()),
                delivery: Delivery::Whole,
                caller,
            },
            reply: ReplyFacts::default(),
            usage: Some(Usage::cache_inside(Some(100), Some(20), &[])),
            head: HeadFacts {
                request_id: Some("req_1".into()),
                processing: Some(Duration::from_millis(412)),
                ..HeadFacts::default()
            },
            cost: Cost::Known(charge),
            provenance: Some(Provenance::Priced),
            list_cost: None,
            priced_model: None,
            cache: CacheFacts::new(CacheStatus::Bypass(BypassReason::Off)),
            downgrade: None,
            outcome,
            error_type: None,
            error_detail: None,
            content: None,
            prefixes: None,
            status: Some(200),
            attempt: Some(Attempt::Answered(200)),
            tries: None,
            arrived_at: SystemTime::UNIX_EPOCH,
            timing: Timing { total: Duration::from_millis(1500), ..Timing::default() },
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    #[test]
    fn a_line_leads_to_the_spans_that_are_kept() {
        let traced = |is_sampled| {
            let (id, span) = (TraceId::new(0xabc), SpanId::new(0xde));
            let span = span.expect("an id");
            let trace = Trace {
                id: id.expect("an id"),
                parent: None,
                state: None,
                is_sampled,
                is_handed_on: false,
                server: span,
                model_call: span,
                attempt: span,
                lookup: span,
                part: Part::Whole,
                origin: None,
                told: Told::default(),
            };
            Record { trace: Some(Box::new(trace)), ..record(Outcome::Success) }
        };
        let written = lines(Calls::All, &[traced(true), traced(false)]);
        assert_eq!(written[0]["trace_id"], "00000000000000000000000000000abc");
        assert_eq!(written[0]["span_id"], "00000000000000de");
        assert_eq!((&written[1]["trace_id"], &written[1]["span_id"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn a_line_holds_the_facts_typed_and_nobody_s_name() {
        let record = record(Outcome::Success);
        let mut written = lines(Calls::All, std::slice::from_ref(&record));
        let mut line = written.pop().expect("a line");
        assert!(line["timestamp"].take().is_string());
        let expected = json!({
            "timestamp": null,
            "level": "INFO",
            "target": "weir::calls",
            "message": "call answered",
            "weir.request_id": record.id.to_string(),
            "gen_ai.provider.name": "openai",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-5",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "weir.cost.usd": "0.02504",
            "weir.cost.provenance": "priced",
            "weir.upstream.request_id": "req_1",
            "weir.upstream.processing_s": 0.412,
            "weir.cache": "bypass",
            "weir.cache.bypass": "off",
            "weir.outcome": "success",
            "http.response.status_code": 200,
            "weir.duration_s": 1.5,
            "weir.agent": "planner",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn money_of_a_hit_is_saved_and_unknown_money_is_no_money() {
        let hit = Record { cache: CacheFacts::new(CacheStatus::Hit), ..record(Outcome::Success) };
        let unpriced = Record { cost: Cost::Unpriced(Unpriced::NoUsage), ..record(Outcome::Success) };
        let downgrade = Downgrade { from: "gpt-5-large".into(), budget: "app".into() };
        let downgraded = Record { downgrade: Some(downgrade), ..record(Outcome::Success) };
        let lines = lines(Calls::All, &[hit, unpriced, downgraded]);
        assert_eq!(
            (&lines[2]["weir.downgraded.from"], &lines[2]["weir.downgraded.budget"]),
            (&json!("gpt-5-large"), &json!("app"))
        );
        assert_eq!(lines[0]["weir.downgraded.from"], Value::Null);
        assert_eq!((&lines[0]["weir.cost.saved_usd"], &lines[0]["weir.cost.usd"]), (&json!("0.02504"), &Value::Null));
        assert_eq!(lines[0]["message"], "call answered from the cache");
        assert_eq!((&lines[1]["weir.cost.unpriced"], &lines[1]["weir.cost.usd"]), (&json!("no_usage"), &Value::Null));
    }

    #[test]
    fn what_is_estimated_or_stated_by_the_provider_says_so() {
        let estimated = Record {
            usage: Some(Usage::default().with_estimates(Some(100), None)),
            provenance: Some(Provenance::Estimated),
            ..record(Outcome::Cancelled)
        };
        let mut list = Charge::default();
        list.add(TokenClass::Input, PicoUsd::new(24_000_000_000));
        let stated = Record {
            provenance: Some(Provenance::Reported),
            list_cost: Some(list),
            head: HeadFacts { retry_after: Some(Duration::from_secs(20)), ..HeadFacts::default() },
            ..record(Outcome::Success)
        };
        let lines = lines(Calls::All, &[estimated, stated]);
        assert_eq!(lines[0]["weir.usage.estimated"], true);
        assert_eq!(lines[0]["weir.cost.provenance"], "estimated");
        assert_eq!(lines[1]["weir.usage.estimated"], Value::Null);
        assert_eq!(lines[1]["weir.cost.provenance"], "reported");
        assert_eq!((&lines[1]["weir.cost.usd"], &lines[1]["weir.cost.list_usd"]), (&json!("0.02504"), &json!("0.024")));
        assert_eq!(lines[1]["weir.upstream.retry_after_s"], 20.0);
    }

    #[test]
    fn only_the_calls_asked_for_get_a_line_as_loud_as_they_deserve() {
        let records = Outcome::ALL.map(record);
        assert_eq!(lines(Calls::None, &records).len(), 0);
        assert_eq!(lines(Calls::Failed, &records).len(), Outcome::ALL.len() - 1);
        for line in lines(Calls::All, &records) {
            let level = match line["weir.outcome"].as_str().expect("an outcome") {
                "upstream_error" | "timeout" => "WARN",
                "internal_error" => "ERROR",
                _ => "INFO",
            };
            assert_eq!(line["level"], level, "{line}");
        }
    }

    #[test]
    fn a_name_from_outside_cannot_flood_a_line() {
        let mut record = record(Outcome::Success);
        record.call.model = Some("m".repeat(1 << 20).into());
        assert_eq!(lines(Calls::All, &[record])[0]["gen_ai.request.model"], "m".repeat(64));
    }

    #[test]
    fn the_line_of_a_call_looks_as_those_beside_it_do() {
        let record = Record { error_detail: Some("it said \"no\"".into()), ..record(Outcome::Timeout) };
        let mut line = Vec::new();
        let call = CallLine { record: &record, at: SystemTime::UNIX_EPOCH };
        call.write_text(&mut line, false).expect("to memory");
        let line = String::from_utf8(line).expect("text");
        let id = record.id;
        assert_eq!(
            line,
            format!(
                "1970-01-01T00:00:00.000000Z  WARN weir::calls: call timed out weir.request_id=\"{id}\" \
                 gen_ai.provider.name=\"openai\" gen_ai.operation.name=\"chat\" gen_ai.request.model=\"gpt-5\" \
                 gen_ai.usage.input_tokens=100 gen_ai.usage.output_tokens=20 weir.cost.usd=\"0.02504\" \
                 weir.cost.provenance=\"priced\" weir.cache=\"bypass\" weir.cache.bypass=\"off\" \
                 weir.outcome=\"timeout\" error.message=\"it said \\\"no\\\"\" http.response.status_code=200 \
                 weir.duration_s=1.5 weir.upstream.request_id=\"req_1\" weir.upstream.processing_s=0.412 \
                 weir.agent=\"planner\"\n"
            )
        );
    }

    fn redactor() -> Arc<Redactor> {
        Arc::new(Redactor::new(&[]).expect("what weir knows"))
    }

    #[test]
    fn what_is_no_level_is_refused_with_an_example() {
        let settings = Settings { level: "weir=loud".to_owned(), ..Settings::default() };
        let error = init(&settings, redactor()).expect_err("no level");
        assert!(error.to_string().contains("write error, warn, info"), "{error}");
    }
}
