//! Log: one line for each call at most, for people and for log stores.
//!
//! The message reads alone; the rest is in typed fields with dotted names. A line never holds a prompt, a completion, a
//! key or the end user's id.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::labels::tidy;
use crate::record::Record;
use crate::record::outcome::{CacheStatus, ErrorType, Outcome, Reuse, Role};
use crate::record::provenance::Provenance;
use crate::record::usage::{Cost, Counter, Unpriced, Usage};
use crate::redact::Redactor;
use crate::semconv::attribute;
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
}

/// Lines that wait for a slow reader of standard error. When it is full, lines are lost; calls never wait for it.
const MOST_WAITING_LINES: usize = 8192;

/// What the process logs. It ends, with what is waiting, when this is dropped.
#[derive(Debug)]
pub struct Log {
    _writer: WorkerGuard,
    lost: ErrorCounter,
}

impl Log {
    /// Says how full the queue of lines is, as far as that can be told.
    #[must_use = "it only says so when it is asked"]
    pub fn backlog(&self) -> impl Fn() -> Backlog + Send + Sync + use<> {
        let lost = self.lost.clone();
        move || Backlog {
            length: None,
            capacity: MOST_WAITING_LINES,
            dropped: u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX),
        }
    }
}

/// Sends what the process logs to standard error, by a thread of its own, where `redactor` takes out what must not be
/// told. Once for each process.
///
/// # Errors
///
/// [`Error::Filter`] if `settings.level` cannot be read, [`Error::AlreadySetUp`] the second time.
pub fn init(settings: &Settings, redactor: Arc<Redactor>) -> Result<Log, Error> {
    let unclear = |source| Error::Filter { filter: settings.level.clone(), source };
    let filter = EnvFilter::builder().parse(&settings.level).map_err(unclear)?;
    let filter = filter.add_directive(format!("{AUDIT}=info").parse().map_err(unclear)?);
    let terminal = io::stderr().is_terminal();
    let is_json = match settings.format {
        Format::Auto => !terminal,
        Format::Json => true,
        Format::Text => false,
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MOST_WAITING_LINES)
        .lossy(true)
        .thread_name("weir-log")
        .finish(Tidy { to: io::stderr(), redactor, is_json });
    let lost = writer.error_counter();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(terminal);
    let set_up = if is_json { lines.json().flatten_event(true).finish().try_init() } else { lines.finish().try_init() };
    set_up.map_err(Error::AlreadySetUp)?;
    Ok(Log { _writer: guard, lost })
}

/// Writes lines without keys and personal data, whoever said them. One line comes at a time.
struct Tidy<W> {
    to: W,
    redactor: Arc<Redactor>,
    is_json: bool,
}

impl<W: io::Write> io::Write for Tidy<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = if self.is_json { self.redactor.redact_json(&text) } else { self.redactor.redact(&text) };
        self.to.write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes the lines of calls.
#[derive(Clone, Copy, Debug)]
pub struct CallLog {
    calls: Calls,
}

/// One line, at a level that is known where it is written, as `tracing` needs it.
macro_rules! line {
    ($level:expr, $line:expr, $record:expr) => {{
        let Line { message, cost, saved, list, unpriced } = $line;
        let Record { call, reply, head, usage, provenance, cache, downgrade, outcome, error_type, error_detail, status, timing, .. } = $record;
        let tokens = |counter| usage.as_ref().and_then(|usage| usage.get(counter));
        let trace = $record.trace.as_deref().filter(|trace| trace.is_sampled);
        tracing::event!(
            target: "weir::calls",
            $level,
            { attribute::TRACE_ID } = trace.map(|trace| tracing::field::display(trace.id)),
            { attribute::SPAN_ID } = trace.map(|trace| tracing::field::display(trace.server)),
            { attribute::WEIR_REQUEST_ID } = %$record.id,
            { attribute::GEN_AI_PROVIDER_NAME } = &*call.provider,
            { attribute::GEN_AI_OPERATION_NAME } = call.operation.as_str(),
            { attribute::GEN_AI_REQUEST_MODEL } = shown(call.model.as_deref()).as_deref(),
            { attribute::GEN_AI_RESPONSE_MODEL } = shown(reply.model.as_deref()).as_deref(),
            { attribute::GEN_AI_RESPONSE_ID } = shown(reply.id.as_deref()).as_deref(),
            { attribute::GEN_AI_USAGE_INPUT_TOKENS } = tokens(Counter::InputTokens),
            { attribute::GEN_AI_USAGE_OUTPUT_TOKENS } = tokens(Counter::OutputTokens),
            { attribute::WEIR_USAGE_ESTIMATED } = usage.as_ref().and_then(estimated),
            { attribute::WEIR_COST_USD } = cost,
            { attribute::WEIR_COST_LIST_USD } = list,
            { attribute::WEIR_COST_PROVENANCE } = provenance.map(Provenance::as_str),
            { attribute::WEIR_COST_SAVED_USD } = saved,
            { attribute::WEIR_COST_UNPRICED } = unpriced.map(Unpriced::as_str),
            { attribute::WEIR_CACHE } = cache.status.as_str(),
            { attribute::WEIR_CACHE_BYPASS } = bypass(cache.status),
            { attribute::WEIR_CACHE_SIMILARITY } = cache.similarity,
            { attribute::WEIR_SINGLEFLIGHT_ROLE } = cache.role.map(Role::as_str),
            { attribute::WEIR_DOWNGRADED_FROM } = shown(downgrade.as_ref().map(|it| &*it.from)).as_deref(),
            { attribute::WEIR_DOWNGRADED_BUDGET } = downgrade.as_ref().map(|it| &*it.budget),
            { attribute::WEIR_OUTCOME } = outcome.as_str(),
            { attribute::ERROR_TYPE } = error_type.map(ErrorType::as_str),
            { attribute::ERROR_MESSAGE } = error_detail.as_deref(),
            { attribute::HTTP_RESPONSE_STATUS_CODE } = *status,
            { attribute::WEIR_DURATION } = timing.total.as_secs_f64(),
            { attribute::WEIR_UPSTREAM_DURATION } = timing.upstream.map(|took| took.as_secs_f64()),
            { attribute::WEIR_UPSTREAM_REQUEST_ID } = head.request_id.as_deref(),
            { attribute::WEIR_UPSTREAM_PROCESSING } = head.processing.map(|took| took.as_secs_f64()),
            { attribute::WEIR_UPSTREAM_RETRY_AFTER } = head.retry_after.map(|wait| wait.as_secs_f64()),
            { attribute::WEIR_TIME_TO_FIRST_TOKEN } = timing.first_token.map(|took| took.as_secs_f64()),
            { attribute::WEIR_AGENT } = shown(call.caller.agent.as_deref()).as_deref(),
            { attribute::WEIR_LOOP_TYPE } = shown(call.caller.loop_type.as_deref()).as_deref(),
            { attribute::WEIR_RUN } = shown(call.caller.run.as_deref()).as_deref(),
            { attribute::WEIR_NAMESPACE } = shown(call.caller.namespace.as_deref()).as_deref(),
            { attribute::WEIR_WORKSPACE } = shown(call.caller.workspace.as_deref()).as_deref(),
            "{message}"
        );
    }};
}

impl CallLog {
    /// Writes lines for these calls.
    #[must_use]
    pub const fn new(calls: Calls) -> Self {
        Self { calls }
    }

    /// Writes the line of a call that is over, if it gets one.
    pub fn closed(self, record: &Record) {
        match self.calls {
            Calls::All => {}
            Calls::Failed if record.outcome != Outcome::Success => {}
            Calls::Failed | Calls::None => return,
        }
        match level(record.outcome) {
            Level::ERROR => line!(Level::ERROR, Line::of(record), record),
            Level::WARN => line!(Level::WARN, Line::of(record), record),
            _ => line!(Level::INFO, Line::of(record), record),
        }
    }
}

/// What of a line is not a fact of the record as it stands.
struct Line {
    message: &'static str,
    cost: Option<String>,
    saved: Option<String>,
    list: Option<String>,
    unpriced: Option<Unpriced>,
}

impl Line {
    fn of(record: &Record) -> Self {
        let reused = record.cache.reuse().is_some();
        let (amount, unpriced) = match record.cost {
            Cost::Known(charge) => (Some(charge.total().to_string()), None),
            Cost::Unpriced(reason) => (None, Some(reason)),
            Cost::Nothing => (None, None),
        };
        let (cost, saved) = if reused { (None, amount) } else { (amount, None) };
        let list = record.list_cost.map(|charge| charge.total().to_string());
        Self { message: message(record), cost, saved, list, unpriced: unpriced.filter(|_| !reused) }
    }
}

/// What happened, for whoever reads nothing else.
const fn message(record: &Record) -> &'static str {
    match record.outcome {
        Outcome::Success => match record.cache.reuse() {
            Some(Reuse::Stored) => "call answered from the cache",
            Some(Reuse::Similar) => "call answered from the cache, as a similar one was",
            Some(Reuse::Coalesced) => "call answered with an equal one",
            None => "call answered",
        },
        Outcome::ClientError if record.attempt.is_none() => "call refused by weir",
        Outcome::ClientError => "call refused by the provider",
        Outcome::UpstreamError => "call failed at the provider",
        Outcome::Timeout => "call timed out",
        Outcome::InternalError => "call failed inside weir",
        Outcome::RateLimited => "call refused by a rate limit",
        Outcome::BudgetBlocked => "call refused by a budget",
        Outcome::Cancelled => "call given up by the app",
    }
}

/// How loud: what the operator should look at is a warning, what is weir's own fault an error.
const fn level(outcome: Outcome) -> Level {
    match outcome {
        Outcome::UpstreamError | Outcome::Timeout => Level::WARN,
        Outcome::InternalError => Level::ERROR,
        Outcome::Success
        | Outcome::ClientError
        | Outcome::RateLimited
        | Outcome::BudgetBlocked
        | Outcome::Cancelled => Level::INFO,
    }
}

/// A name from outside, kept short: an app may call a model anything.
fn shown(name: Option<&str>) -> Option<Cow<'_, str>> {
    name.map(tidy)
}

/// Said only where it is so.
fn estimated(usage: &Usage) -> Option<bool> {
    usage.is_estimated().then_some(true)
}

fn bypass(status: CacheStatus) -> Option<&'static str> {
    match status {
        CacheStatus::Bypass(reason) => Some(reason.as_str()),
        CacheStatus::Hit | CacheStatus::Miss | CacheStatus::Expired => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, SystemTime};

    use serde_json::{Value, json};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::record::call::{Call, Caller, Delivery, Operation, RequestId};
    use crate::record::head::HeadFacts;
    use crate::record::outcome::BypassReason;
    use crate::record::trace::{Part, SpanId, Told, Trace, TraceId};
    use crate::record::usage::{Charge, TokenClass};
    use crate::record::{Attempt, CacheFacts, Downgrade, ReplyFacts, Timing};
    use crate::units::PicoUsd;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines these records get, parsed.
    fn lines(calls: Calls, records: &[Record]) -> Vec<Value> {
        let written = Lines::default();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(written.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            for record in records {
                CallLog::new(calls).closed(record);
            }
        });
        let bytes = written.0.lock().expect("one thread").clone();
        let text = String::from_utf8(bytes).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
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

    fn redactor() -> Arc<Redactor> {
        Arc::new(Redactor::new(&[]).expect("what weir knows"))
    }

    #[test]
    fn no_line_holds_what_must_not_be_told_and_json_stays_json() {
        let key = format!("sk-{}", "a1B2c3D4".repeat(6));
        for (is_json, line, expected) in [
            (
                true,
                format!("{{\"message\":\"no \\\"{key}\\\"\"}}\n"),
                "{\"message\":\"no \\\"[redacted:api_key]\\\"\"}\n",
            ),
            (false, format!("WARN weir: no {key} user=x\n"), "WARN weir: no [redacted:api_key] user=x\n"),
        ] {
            let mut written = Tidy { to: Vec::new(), redactor: redactor(), is_json };
            io::Write::write_all(&mut written, line.as_bytes()).expect("to memory");
            assert_eq!(String::from_utf8(written.to).expect("text"), expected);
        }
    }

    #[test]
    fn what_is_no_level_is_refused_with_an_example() {
        let settings = Settings { level: "weir=loud".to_owned(), ..Settings::default() };
        let error = init(&settings, redactor()).expect_err("no level");
        assert!(error.to_string().contains("write error, warn, info"), "{error}");
    }
}
