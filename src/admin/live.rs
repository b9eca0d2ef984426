//! Live: what is going on, as server-sent events: each call as it ends, and how weir does, every second.
//!
//! A stream goes on until whoever reads it hangs up, or weir stops. One that reads too slowly loses calls, is told how many,
//! and slows nobody. There are no ids and nothing is sent again: who comes back begins anew.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::admin::Admin;
use crate::admin::access::Reader;
use crate::admin::budgets::{state, used_percentage};
use crate::admin::limits::{looked_at, whose};
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::entry::{Entry, exact};
use crate::limits::standing::BudgetNow;
use crate::limits::window::Window;
use crate::limits::{Limits, Now};
use crate::record::outcome::Outcome;
use crate::sinks::live::{MOST_WATCHERS, Seen, Summary, Sums, Watcher};
use crate::units::PicoUsd;

/// How often gauges are sent.
const GAUGES_EVERY: Duration = Duration::from_secs(1);
/// When a browser that lost its stream is to come back.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// When somebody who found no place is to come back.
const COME_BACK_AFTER: Duration = Duration::from_secs(10);

/// What is going on, as server-sent events.
///
/// `call` is a call that is over, in the words of `/api/v1/analytics/logs`; `gauges` is how weir does, each second; `lost` is
/// how many calls this stream lost because it was read too slowly. It goes on until whoever reads it hangs up.
#[utoipa::path(
    get,
    path = "/api/v1/live",
    tag = "live",
    operation_id = "live",
    params(
        ("provider" = Option<String>, Query, description = "Only calls of this provider."),
        ("model" = Option<String>, Query, description = "Only calls that asked for this model, or were answered by it."),
        ("agent_id" = Option<String>, Query, description = "Only calls of this agent."),
        ("namespace" = Option<String>, Query, description = "Only calls of this namespace."),
        ("workspace_id" = Option<String>, Query, description = "Only calls of this workspace."),
        ("outcome" = Option<String>, Query,
            description = "Only calls that ended so: `success`, `client_error`, `upstream_error`, `timeout`, \
                           `internal_error`, `rate_limited`, `budget_blocked` or `cancelled`.")),
    responses((status = 200, content_type = "text/event-stream", body = String, description = "Events, as they come."),
        ToAsk)
)]
pub(super) async fn watch(_: Reader, parameters: Parameters, State(admin): State<Admin>) -> Result<Response, Problem> {
    let wanted = Wanted::read(parameters)?;
    let Some(watcher) = admin.live.watch() else {
        let detail = format!("{MOST_WATCHERS} watch already, or weir is about to end: come back later");
        return Err(Problem::later(COME_BACK_AFTER, detail));
    };
    let events = stream::unfold(Watching::begin(admin, watcher, wanted), Watching::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Whether a call is one that a filter's value names.
type Names = fn(&Entry, &str) -> bool;

/// What calls can be told apart by.
const FILTERS: [(&str, Names); 6] = [
    ("provider", |call, value| &*call.provider == value),
    ("model", |call, value| {
        let known_as = [&call.model, &call.response_model, &call.priced_model];
        known_as.into_iter().any(|model| model.as_deref() == Some(value))
    }),
    ("agent_id", |call, value| call.agent_id.as_deref() == Some(value)),
    ("namespace", |call, value| call.namespace.as_deref() == Some(value)),
    ("workspace_id", |call, value| call.workspace_id.as_deref() == Some(value)),
    ("outcome", |call, value| call.outcome == value),
];

/// Which calls are asked for: those that every filter names.
#[derive(Debug)]
struct Wanted(Vec<(Names, Box<str>)>);

impl Wanted {
    fn read(mut parameters: Parameters) -> Result<Self, Problem> {
        let outcomes = Outcome::ALL.map(|outcome| (outcome.as_str(), outcome.as_str()));
        let mut wanted = Vec::new();
        for (name, names) in FILTERS {
            let value = match name {
                "outcome" => parameters.choice(name, &outcomes).map(Into::into),
                _ => parameters.text(name),
            };
            wanted.extend(value.map(|value| (names, value)));
        }
        parameters.end()?;
        Ok(Self(wanted))
    }

    fn is_for(&self, entry: &Entry) -> bool {
        self.0.iter().all(|(names, value)| names(entry, value))
    }
}

/// One stream.
struct Watching {
    admin: Admin,
    watcher: Watcher,
    wanted: Wanted,
    every: Interval,
    has_begun: bool,
    /// The processor time that was used when the last gauges were made, and when that was.
    used: Option<(Instant, f64)>,
}

impl Watching {
    fn begin(admin: Admin, watcher: Watcher, wanted: Wanted) -> Self {
        let mut every = interval(GAUGES_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { admin, watcher, wanted, every, has_begun: false, used: None }
    }

    /// The next event; `None` once weir stops.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let event = if self.has_begun {
            self.event().await?
        } else {
            self.has_begun = true;
            Event::default().retry(RETRY_AFTER).comment("nothing is sent again: who comes back begins anew")
        };
        Some((Ok(event), self))
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                // However many calls there are, gauges come first: once a second at most.
                biased;
                _ = self.every.tick() => {
                    // Without gauges for once, calls go on.
                    if let Ok(gauges) = self.gauges().await {
                        return Some(told("gauges", &gauges));
                    }
                }
                seen = self.watcher.next() => match seen? {
                    Seen::Call(entry) if self.wanted.is_for(&entry) => return Some(told("call", &*entry)),
                    Seen::Call(_) => {}
                    Seen::Lost(calls) => return Some(told("lost", &Lost { calls })),
                },
            }
        }
    }

    async fn gauges(&mut self) -> Result<Gauges, Problem> {
        let (admin, lately) = (self.admin.clone(), self.watcher.lately());
        let (mut gauges, cpu_seconds) = looked_at(move || look(&admin, &lately)).await?;
        let now = Instant::now();
        if let Some((since, before)) = self.used {
            let passed = now.duration_since(since).as_secs_f64();
            gauges.process.cpu_cores =
                cpu_seconds.filter(|_| passed > 0.0).map(|used| thousandths((used - before) / passed));
        }
        self.used = cpu_seconds.map(|used| (now, used));
        Ok(gauges)
    }
}

/// One event, as JSON.
///
/// # Panics
/// Never: what is shown can be written as JSON.
fn told(name: &str, what: &impl Serialize) -> Event {
    let json = serde_json::to_string(what).expect("what is shown can be written as JSON");
    Event::default().event(name).data(json)
}

/// That calls were lost.
#[derive(Debug, Serialize)]
struct Lost {
    calls: u64,
}

/// How weir does. Of all calls, whatever the filters.
#[derive(Debug, Serialize)]
struct Gauges {
    timestamp: String,
    calls_in_progress: u64,
    last_second: Second,
    last_minute: Minute,
    since_start: SinceStart,
    process: ProcessNow,
    budgets: Vec<Budget>,
}

/// The last whole second.
#[derive(Debug, Serialize)]
struct Second {
    calls: u64,
    tokens: u64,
    cost_usd: Box<RawValue>,
    unpriced_calls: u64,
}

/// The last minute, or what was watched of it.
#[derive(Debug, Serialize)]
struct Minute {
    seconds: f64,
    calls: u64,
    tokens: u64,
    cost_usd: Box<RawValue>,
    unpriced_calls: u64,
    outcomes: serde_json::Map<String, serde_json::Value>,
    calls_per_second: Option<f64>,
    tokens_per_second: Option<f64>,
    cost_usd_per_second: Option<Box<RawValue>>,
    error_rate: Option<f64>,
    cache_hit_rate: Option<f64>,
    latency_p50_ms: Option<f64>,
    latency_p95_ms: Option<f64>,
}

/// Since weir started.
#[derive(Debug, Serialize)]
struct SinceStart {
    cost_usd: Box<RawValue>,
}

/// What weir uses of the machine.
#[derive(Debug, Serialize)]
struct ProcessNow {
    cpu_cores: Option<f64>,
    resident_memory_bytes: Option<u64>,
}

/// How a budget stands: of whom has spent most, where there are several.
#[derive(Debug, Serialize)]
struct Budget {
    name: String,
    window: Window,
    subject: Option<Box<str>>,
    state: &'static str,
    limit_usd: Option<Box<RawValue>>,
    spent_usd: Box<RawValue>,
    limit_tokens: Option<u64>,
    spent_tokens: u64,
    used_percentage: f64,
}

/// Everything but what takes two looks; and the processor time used so far, in seconds.
fn look(admin: &Admin, lately: &Summary) -> (Gauges, Option<f64>) {
    let (glance, process) = (admin.metrics.glance(), admin.metrics.process());
    let gauges = Gauges {
        timestamp: format!("{:.6}", Timestamp::now()),
        calls_in_progress: glance.in_progress,
        last_second: Second::of(&lately.last_second),
        last_minute: Minute::of(lately),
        since_start: SinceStart { cost_usd: exact(counted(glance.spent_usd)) },
        process: ProcessNow { cpu_cores: None, resident_memory_bytes: process.resident_memory },
        budgets: budgets(&admin.limits, admin.limits.now()),
    };
    (gauges, process.cpu_seconds)
}

fn budgets(limits: &Limits, now: Now) -> Vec<Budget> {
    limits.budgets_now().into_iter().map(|budget| Budget::of(budget, now)).collect()
}

/// What a counter of dollars says, to the billionth: the digits after those are not to be trusted.
fn counted(usd: f64) -> PicoUsd {
    PicoUsd::of_usd(&format!("{usd:.9}")).unwrap_or_default()
}

impl Second {
    fn of(sums: &Sums) -> Self {
        let Sums { calls, tokens, spent, unpriced, .. } = *sums;
        Self { calls, tokens, cost_usd: exact(spent), unpriced_calls: unpriced }
    }
}

impl Minute {
    fn of(Summary { over, sums, p50, p95, .. }: &Summary) -> Self {
        let seconds = over.as_secs_f64();
        let a_second = |amount: f64| (seconds > 0.0).then(|| amount / seconds);
        let outcomes = Outcome::ALL.map(|outcome| (outcome.as_str().to_owned(), sums.ended(outcome).into()));
        Self {
            seconds: thousandths(seconds),
            calls: sums.calls,
            tokens: sums.tokens,
            cost_usd: exact(sums.spent),
            unpriced_calls: sums.unpriced,
            outcomes: outcomes.into_iter().collect(),
            calls_per_second: a_second(as_f64(sums.calls)).map(thousandths),
            tokens_per_second: a_second(as_f64(sums.tokens)).map(thousandths),
            cost_usd_per_second: a_second_of(sums.spent, *over).map(exact),
            error_rate: sums.error_rate(),
            cache_hit_rate: sums.hit_rate(),
            latency_p50_ms: p50.map(milliseconds),
            latency_p95_ms: p95.map(milliseconds),
        }
    }
}

impl Budget {
    fn of(BudgetNow { name, window, terms, foremost, .. }: BudgetNow, now: Now) -> Self {
        let allowance = terms.allowance;
        Self {
            name: name.to_string(),
            window,
            state: state(&terms, &foremost, now),
            limit_usd: allowance.usd.map(exact),
            spent_usd: exact(foremost.spent.usd),
            limit_tokens: allowance.tokens,
            spent_tokens: foremost.spent.tokens,
            used_percentage: used_percentage(allowance, &foremost),
            subject: whose(foremost.subject),
        }
    }
}

/// An amount for each second of such a time, to the pico-dollar.
fn a_second_of(amount: PicoUsd, over: Duration) -> Option<PicoUsd> {
    amount.pico().saturating_mul(1_000_000).checked_div(over.as_micros()).map(PicoUsd::new)
}

fn milliseconds(took: Duration) -> f64 {
    thousandths(took.as_secs_f64() * 1_000.0)
}

fn thousandths(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_filter_is_told() {
        for (query, expected) in [
            ("provider=openai&outcome=success", None),
            ("", None),
            ("model=gpt%2d5", None),
            ("outcome=succes", Some("is `succes`: did you mean `success`?")),
            ("agentid=x&outcome=", Some("is empty: write something after its `=`")),
            ("agentid=x&outcome=", Some("is unknown: did you mean `agent_id`?")),
        ] {
            let read = Wanted::read(Parameters::of(query));
            match expected {
                None => assert!(read.is_ok(), "{query}"),
                Some(expected) => {
                    let problem = format!("{:?}", read.expect_err("a fault"));
                    assert!(problem.contains(expected), "{query}: {problem}");
                }
            }
        }
    }

    #[test]
    fn a_rate_of_money_is_exact_and_of_no_time_there_is_none() {
        let spent = PicoUsd::new(3_000_000);
        assert_eq!(a_second_of(spent, Duration::from_millis(1_500)), Some(PicoUsd::new(2_000_000)));
        assert_eq!(a_second_of(spent, Duration::ZERO), None);
        assert_eq!(counted(0.1 + 0.2).to_string(), "0.3");
    }
}
