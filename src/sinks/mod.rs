//! Sinks: where a finished record goes. Never slows a call.

pub mod custom;
pub mod denials;
mod exemplars;
pub mod exposition;
mod families;
mod family;
mod host;
#[cfg(feature = "inject")]
pub mod injector;
pub mod live;
pub mod log;
pub mod loops;
pub mod metrics;
mod money;
pub mod now;
mod quotas;
pub mod reloads;
mod rules;
pub mod samples;
pub mod series;
pub mod sides;
pub mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ledger::entry::Entry;
use crate::ledger::writer::Ledger;
use crate::record::outcome::{NoVector, SimilarResult, Trouble, Verdict};
use crate::record::trace::Trace;
use crate::record::{Attempt, Record};
use crate::sinks::live::Live;
use crate::sinks::log::CallLog;
use crate::sinks::metrics::Metrics;
use crate::sinks::traces::queue::Traces;

/// What the operator writes of telemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which names the `gen_ai_*` metrics have: `"1.41"` (in quotes, for it is no number), those of the OpenTelemetry
    /// semantic conventions 1.41; `next`, those that the conventions are moving to, which may still change with any
    /// release of weir; or `both`, to move from one to the other.
    pub semconv: Conventions,
    /// Metrics.
    pub metrics: metrics::Settings,
    /// Traces, sent in the OpenTelemetry protocol (docs/traces.md).
    pub traces: traces::Settings,
    /// Log lines, on standard error.
    pub log: log::Settings,
}

/// A version of the semantic conventions for `GenAI`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conventions {
    /// Version 1.41.
    #[default]
    #[serde(rename = "1.41")]
    V1_41,
    /// What is to come after it.
    Next,
    /// These and those.
    Both,
}

/// All sinks. Every exchange is opened once and closed once.
#[derive(Debug)]
pub struct Sinks {
    metrics: Arc<Metrics>,
    log: CallLog,
    traces: Option<Traces>,
    live: Arc<Live>,
    ledger: Option<Arc<Ledger>>,
    opened: Arc<AtomicU64>,
    closed: Arc<AtomicU64>,
}

impl Sinks {
    /// Sends records to `metrics`, then to `log`, then to `traces`, where any are kept, then to whoever watches.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, log: CallLog, traces: Option<Traces>) -> Self {
        let live = Arc::new(Live::new());
        Self { metrics, log, traces, ledger: None, live, opened: Arc::default(), closed: Arc::default() }
    }

    /// The same, with other lines for calls.
    #[must_use]
    pub fn logging(&self, log: CallLog) -> Self {
        let Self { metrics, log: _, traces, live, ledger, opened, closed } = self;
        Self {
            metrics: Arc::clone(metrics),
            log,
            traces: traces.clone(),
            live: Arc::clone(live),
            ledger: ledger.clone(),
            opened: Arc::clone(opened),
            closed: Arc::clone(closed),
        }
    }

    /// What is going on, for those who watch.
    #[must_use]
    pub const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The same, with every record written down in `ledger`, if there is one.
    #[must_use]
    pub fn with_ledger(self, ledger: Option<Arc<Ledger>>) -> Self {
        Self { ledger, ..self }
    }

    /// Where records are written down, if they are.
    #[must_use]
    pub const fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.as_ref()
    }

    /// The place in traces of a request with these headers; `None` where none are kept.
    #[must_use]
    pub fn begin_trace(&self, headers: &HeaderMap) -> Option<Trace> {
        self.traces.as_ref().map(|traces| traces.begin(headers))
    }

    /// The place of a response within the session whose own place this is.
    #[must_use]
    pub fn trace_turn(&self, session: &Trace) -> Option<Trace> {
        self.traces.as_ref().map(|traces| traces.turn(session))
    }

    /// An exchange with `provider` (the value of the label) has begun.
    pub fn opened(&self, provider: &str) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.metrics.opened(provider);
    }

    /// An exchange is over. Its provider is the one it was opened with.
    pub fn closed(&self, record: &Record) {
        self.metrics.closed(record);
        self.log.closed(record);
        if let Some(traces) = &self.traces {
            traces.closed(record);
        }
        self.tell(record);
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Those who want a call as an entry get one and the same.
    fn tell(&self, record: &Record) {
        let is_watched = self.live.is_watched();
        if self.ledger.is_none() && !is_watched {
            return;
        }
        let entry = Arc::new(Entry::of(record, SystemTime::now()));
        if is_watched {
            self.live.offer(Arc::clone(&entry));
        }
        if let Some(ledger) = &self.ledger {
            ledger.offer(entry, record.content.clone());
        }
    }

    /// An attempt to ask `provider` (the value of the label) has ended, and another one follows.
    pub fn attempted(&self, provider: &str, attempt: Attempt) {
        self.metrics.attempted(provider, attempt);
    }

    /// A call to `provider` is made again, because of this.
    pub fn retried(&self, provider: &str, trouble: Trouble) {
        self.metrics.retried(provider, trouble);
    }

    /// A call to `provider` is made a second time, beside a slow first one.
    pub fn hedged(&self, provider: &str) {
        self.metrics.hedged(provider);
    }

    /// A call to `provider` has moved `to` another way.
    pub fn fell_back(&self, provider: &str, to: &str) {
        self.metrics.fell_back(provider, to);
    }

    /// A similar request was looked for, which took `took`.
    pub fn searched(&self, result: SimilarResult, took: Duration) {
        self.metrics.searched(result, took);
    }

    /// A vector was wanted of a text; `failure` says why there is none.
    pub fn embedded(&self, failure: Option<NoVector>) {
        self.metrics.embedded(failure);
    }

    /// An answer to a similar request was checked.
    pub fn verified(&self, verdict: Verdict) {
        self.metrics.verified(verdict);
    }

    /// Exchanges begun since the start.
    #[must_use]
    pub fn exchanges_opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Exchanges over since the start. Equal to [`Sinks::exchanges_opened`] when none is in progress.
    #[must_use]
    pub fn records_closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }
}
