//! Performance: how long calls take, how many there are at a time, and how they fail.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::analytics::asked::{Asked, Granularity, Question, seconds, step, word_of};
use crate::admin::analytics::shown::{At, Times};
use crate::admin::asker::Asker;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::entry::milliseconds;
use crate::ledger::percentiles::{Rank, Timing};
use crate::ledger::questions::Failures;
use crate::ledger::reader::{Error, Reader};
use crate::ledger::totals::share;
use crate::ledger::window::{Step, Window};

/// How fast and how well.
#[utoipa::path(
    get,
    path = "/api/v1/performance/overview",
    tag = "performance",
    operation_id = "performance_overview",
    params(Question),
    responses((status = 200, body = Overview), ToAsk)
)]
pub(super) async fn overview(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let asked = Asked::of(parameters, &caller)?;
    admin.ledger.answer(move |ledger| Overview::of(&asked, ledger)).await
}

/// Performance at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PerformanceOverview)]
struct Overview {
    #[serde(flatten)]
    times: Times,
    /// How many calls there were, refused ones included.
    total_requests: u64,
    /// Of the time that is covered.
    requests_per_second: f64,
    /// How long a call took on the average; `null` without calls.
    avg_latency_ms: Option<f64>,
    #[serde(flatten)]
    percentiles: Percentiles,
    /// How long it took on the average until the first token of a stream had come; `null` without any.
    avg_first_token_ms: Option<f64>,
    /// Failures (the provider's, a deadline's, weir's own) among failures and successes, from 0 to 1; `null` without
    /// either. Refusals, mistakes of the app's and calls it gave up are neither.
    error_rate: Option<f64>,
    /// Successes among the same.
    success_rate: Option<f64>,
}

impl Overview {
    fn of(asked: &Asked, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.totals(asked.window, &asked.filter)?;
        let totals = answer.found;
        Ok(Self {
            times: Times::of(asked.window, &answer),
            total_requests: totals.calls,
            requests_per_second: rate(totals.calls, answer.covers),
            avg_latency_ms: totals.mean_latency().map(milliseconds),
            percentiles: Percentiles::of(asked, Timing::Latency, ledger)?,
            avg_first_token_ms: totals.mean_first_token().map(milliseconds),
            error_rate: totals.error_rate(),
            success_rate: share(totals.successes, totals.failures().saturating_add(totals.successes)),
        })
    }
}

/// How long calls took: exact, each the time of one of the calls. `null` without calls.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "what the API calls them")]
struct Percentiles {
    /// Half of them took no longer.
    p50_latency_ms: Option<f64>,
    /// Nine in ten took no longer.
    p90_latency_ms: Option<f64>,
    /// Nineteen in twenty took no longer.
    p95_latency_ms: Option<f64>,
    /// All but one in a hundred took no longer.
    p99_latency_ms: Option<f64>,
}

impl Percentiles {
    fn of(asked: &Asked, timing: Timing, ledger: &Reader) -> Result<Self, Error> {
        let ranks = [Rank::P50, Rank::P90, Rank::P95, Rank::P99];
        let found = ledger.percentiles(asked.window, &asked.filter, timing, &ranks)?.found;
        let each: Option<[Duration; 4]> = found.and_then(|each| each.try_into().ok());
        let [p50, p90, p95, p99] = match each {
            Some(each) => each.map(|took| Some(milliseconds(took))),
            None => [None; 4],
        };
        Ok(Self { p50_latency_ms: p50, p90_latency_ms: p90, p95_latency_ms: p95, p99_latency_ms: p99 })
    }
}

/// How long calls take, and how long until the first token of a stream has come.
#[utoipa::path(
    get,
    path = "/api/v1/performance/latency",
    tag = "performance",
    operation_id = "performance_latency",
    params(Question),
    responses((status = 200, body = Latency), ToAsk)
)]
pub(super) async fn latency(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let asked = Asked::of(parameters, &caller)?;
    admin.ledger.answer(move |ledger| Latency::of(&asked, ledger)).await
}

/// How long calls take.
#[derive(Debug, Serialize, ToSchema)]
struct Latency {
    #[serde(flatten)]
    times: Times,
    /// How many calls that is of.
    total_requests: u64,
    /// On the average; `null` without calls.
    avg_latency_ms: Option<f64>,
    #[serde(flatten)]
    percentiles: Percentiles,
    /// From handing the request to the provider until the first token of a stream had come.
    first_token: FirstToken,
}

/// How long it took until the first token of a stream had come.
#[derive(Debug, Serialize, ToSchema)]
struct FirstToken {
    /// How many calls have one.
    streams: u64,
    /// On the average; `null` without any.
    avg_latency_ms: Option<f64>,
    #[serde(flatten)]
    percentiles: Percentiles,
}

impl Latency {
    fn of(asked: &Asked, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.totals(asked.window, &asked.filter)?;
        let totals = answer.found;
        Ok(Self {
            times: Times::of(asked.window, &answer),
            total_requests: totals.calls,
            avg_latency_ms: totals.mean_latency().map(milliseconds),
            percentiles: Percentiles::of(asked, Timing::Latency, ledger)?,
            first_token: FirstToken {
                streams: totals.first_tokens,
                avg_latency_ms: totals.mean_first_token().map(milliseconds),
                percentiles: Percentiles::of(asked, Timing::FirstToken, ledger)?,
            },
        })
    }
}

/// How much is done at a time.
#[utoipa::path(
    get,
    path = "/api/v1/performance/throughput",
    tag = "performance",
    operation_id = "performance_throughput",
    params(Question, Granularity),
    responses((status = 200, body = Throughput), ToAsk)
)]
pub(super) async fn throughput(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (asked, step) = Asked::with(parameters, &caller, step)?;
    admin.ledger.answer(move |ledger| Throughput::of(&asked, step, ledger)).await
}

/// How much is done at a time.
#[derive(Debug, Serialize, ToSchema)]
struct Throughput {
    #[serde(flatten)]
    times: Times,
    /// How many calls there were.
    total_requests: u64,
    /// Of the time that is covered.
    requests_per_second: f64,
    /// Those of the busiest point.
    peak_requests_per_second: f64,
    /// How long the points are apart: `minute`, `5m`, `15m`, `hourly` or `daily`.
    granularity: &'static str,
    /// One for each such period that is in the time asked about, be it in part.
    points: Vec<DoneThen>,
}

/// What was done in one period.
#[derive(Debug, Serialize, ToSchema)]
struct DoneThen {
    /// When it begins, in UTC.
    timestamp: At,
    /// How many calls were over in it.
    requests: u64,
    /// Of that part of the period that is asked about.
    requests_per_second: f64,
    /// Tokens bought, in and out, likewise.
    tokens_per_second: f64,
    /// Bytes of body read from the app.
    bytes_in: u64,
    /// Bytes of body handed to the app.
    bytes_out: u64,
}

impl Throughput {
    fn of(asked: &Asked, step: Step, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.over_time(asked.window, &asked.filter, step)?;
        let points: Vec<DoneThen> = answer
            .found
            .iter()
            .map(|(start, totals)| {
                let part = Window { from: *start, to: start.saturating_add(step.length()) }.within(asked.window);
                DoneThen {
                    timestamp: At(*start),
                    requests: totals.calls,
                    requests_per_second: rate(totals.calls, part),
                    tokens_per_second: rate(totals.tokens(), part),
                    bytes_in: totals.bytes_in,
                    bytes_out: totals.bytes_out,
                }
            })
            .collect();
        let total_requests = points.iter().map(|point| point.requests).sum();
        Ok(Self {
            times: Times::of(asked.window, &answer),
            total_requests,
            requests_per_second: rate(total_requests, answer.covers),
            peak_requests_per_second: points.iter().map(|point| point.requests_per_second).fold(0.0, f64::max),
            granularity: word_of(step),
            points,
        })
    }
}

/// So many in a second. Of no time, none.
#[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
fn rate(count: u64, window: Window) -> f64 {
    let seconds = seconds(window);
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// How calls failed, and why.
#[utoipa::path(
    get,
    path = "/api/v1/performance/errors",
    tag = "performance",
    operation_id = "performance_errors",
    params(Question),
    responses((status = 200, body = Failing), ToAsk)
)]
pub(super) async fn errors(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let asked = Asked::of(parameters, &caller)?;
    admin.ledger.answer(move |ledger| Failing::of(&asked, ledger)).await
}

/// How calls failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Errors)]
struct Failing {
    #[serde(flatten)]
    times: Times,
    /// How many calls there were.
    total_requests: u64,
    /// Those that did not end well, whosever fault it was.
    total_errors: u64,
    /// Failures (the provider's, a deadline's, weir's own) among failures and successes, from 0 to 1; `null` without
    /// either.
    error_rate: Option<f64>,
    /// The most frequent first.
    errors: Vec<Kind>,
}

/// Calls that did not end well in one way.
#[derive(Debug, Serialize, ToSchema)]
struct Kind {
    /// How they ended: `client_error`, `upstream_error`, `timeout`, `internal_error`, `rate_limited`, `budget_blocked` or
    /// `cancelled`.
    outcome: Box<str>,
    /// Why; `null` where that is not known.
    error_type: Option<Box<str>>,
    /// How many.
    calls: u64,
    /// Among all calls, from 0 to 1; `null` of none.
    calls_share: Option<f64>,
}

impl Failing {
    fn of(asked: &Asked, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.totals(asked.window, &asked.filter)?;
        let failures = ledger.failures(asked.window, &asked.filter)?.found;
        let totals = answer.found;
        let kind = |Failures { outcome, error_type, calls }| Kind {
            outcome,
            error_type,
            calls,
            calls_share: share(calls, totals.calls),
        };
        Ok(Self {
            times: Times::of(asked.window, &answer),
            total_requests: totals.calls,
            total_errors: totals.calls.saturating_sub(totals.successes),
            error_rate: totals.error_rate(),
            errors: failures.into_iter().map(kind).collect(),
        })
    }
}
