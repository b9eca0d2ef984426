//! Stats: what calls come to in all, and what the cache makes of that.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::analytics::asked::{Asked, Question, bind, seconds, window};
use crate::admin::analytics::shown::{Spent, Times, Tokens, Usd};
use crate::admin::asker::Asker;
use crate::admin::budgets::used_percentage;
use crate::admin::limits::looked_at;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::entry::{micros, milliseconds};
use crate::ledger::filter::Filter;
use crate::ledger::reader::{Answer, Error, Reader};
use crate::ledger::totals::{Totals, share};
use crate::limits::Limits;
use crate::limits::budget::Allowance;
use crate::limits::matching::Matching;
use crate::limits::standing::BudgetNow;

/// Everything that is added up of calls.
#[utoipa::path(
    get,
    path = "/api/v1/analytics/stats",
    tag = "analytics",
    operation_id = "analytics_stats",
    params(Question),
    responses((status = 200, body = Sums), ToAsk)
)]
pub(super) async fn calls(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let asked = Asked::of(parameters, &caller)?;
    admin.ledger.answer(move |ledger| Ok(Sums::of(&asked, &ledger.totals(asked.window, &asked.filter)?))).await
}

/// What calls come to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnalyticsStats)]
struct Sums {
    #[serde(flatten)]
    times: Times,
    /// How many calls there were.
    total_calls: u64,
    /// How they ended.
    outcomes: Outcomes,
    /// Those whose answer was streamed.
    streamed_calls: u64,
    /// What the cache made of them.
    cache: Cache,
    #[serde(flatten)]
    tokens: Tokens,
    #[serde(flatten)]
    spent: Spent,
    /// How long one took on the average; `null` without calls.
    avg_latency_ms: Option<f64>,
    /// Failures among failures and successes, from 0 to 1; `null` without either.
    error_rate: Option<f64>,
    /// Bytes of body read from the app.
    bytes_in: u64,
    /// Bytes of body handed to the app.
    bytes_out: u64,
}

/// How calls ended.
#[derive(Debug, Serialize, ToSchema)]
struct Outcomes {
    /// Well.
    success: u64,
    /// By a fault of the app's.
    client_error: u64,
    /// By one of the provider's.
    upstream_error: u64,
    /// By a deadline.
    timeout: u64,
    /// By a fault of weir's.
    internal_error: u64,
    /// Refused, for a limit.
    rate_limited: u64,
    /// Refused, for a budget.
    budget_blocked: u64,
    /// Given up by the app.
    cancelled: u64,
}

/// What the cache made of calls.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheSums)]
struct Cache {
    /// Calls that asked it.
    looked_up: u64,
    /// Calls answered from what was stored.
    hits: u64,
    /// Calls answered by an equal call in flight.
    coalesced: u64,
    /// Both among the calls that asked, from 0 to 1; `null` where none did.
    hit_rate: Option<f64>,
}

impl Sums {
    fn of(asked: &Asked, answer: &Answer<Totals>) -> Self {
        let totals = &answer.found;
        Self {
            times: Times::of(asked.window, answer),
            total_calls: totals.calls,
            outcomes: Outcomes {
                success: totals.successes,
                client_error: totals.client_errors,
                upstream_error: totals.upstream_errors,
                timeout: totals.timeouts,
                internal_error: totals.internal_errors,
                rate_limited: totals.rate_limited,
                budget_blocked: totals.budget_blocked,
                cancelled: totals.cancelled,
            },
            streamed_calls: totals.streamed,
            cache: Cache {
                looked_up: totals.looked_up,
                hits: totals.hits,
                coalesced: totals.coalesced,
                hit_rate: totals.hit_rate(),
            },
            tokens: Tokens::of(totals),
            spent: Spent::of(totals),
            avg_latency_ms: totals.mean_latency().map(milliseconds),
            error_rate: totals.error_rate(),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
        }
    }
}

/// What reuse saves, and how much of a budget is left.
#[utoipa::path(
    get,
    path = "/api/v1/stats",
    tag = "stats",
    operation_id = "stats",
    params(
        ("period" = Option<String>, Query, pattern = "^[0-9]{1,7}[mhdw]$",
            description = "How long back from now: `1h`, `24h`, `7d`, `30d`, or any number of `m`, `h`, `d` or `w` up to \
                           three years. A day without this. Not together with `from`."),
        ("from" = Option<String>, Query, description = "From when on: RFC 3339, or a date."),
        ("to" = Option<String>, Query, description = "Until just before when; now without this."),
        ("namespace" = Option<String>, Query, description = "Only calls in this namespace.")
    ),
    responses((status = 200, body = Stats), ToAsk)
)]
pub(super) async fn stats(
    caller: Asker,
    mut parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let now = micros(std::time::SystemTime::now());
    let window = window(&mut parameters, "period", now);
    let mut filter = Filter { namespace: parameters.text("namespace"), ..Filter::default() };
    parameters.end()?;
    bind(&mut filter, &caller)?;
    let asked = Asked { window: window.expect("what could not be read is a fault"), filter, now };
    let (limits, of) = (Arc::clone(&admin.limits), asked.filter.clone());
    let quota = looked_at(move || Quota::of(&limits, &of)).await?;
    admin.ledger.answer(move |ledger| Stats::of(&asked, quota, ledger)).await
}

/// What reuse saves.
#[derive(Debug, Serialize, ToSchema)]
struct Stats {
    #[serde(flatten)]
    times: Times,
    /// The namespace asked about; `null` of all.
    namespace: Option<Box<str>>,
    /// How many calls there were.
    requests: u64,
    /// How many of them in a day, on the average of the time that is covered; `null` of no time.
    requests_per_day: Option<f64>,
    /// Calls answered by what was there already.
    hits: u64,
    /// Those among the calls that asked the cache, from 0 to 1; `null` where none did.
    hit_rate: Option<f64>,
    /// Tokens that were not bought because of that.
    tokens_saved: u64,
    /// Money that was not spent because of that.
    cost_saved_usd: Usd,
    #[serde(flatten)]
    spent: Spent,
    /// Tokens saved among those saved and those bought, from 0 to 1; `null` of none.
    efficiency: Option<f64>,
    /// Money saved among that saved and that spent, from 0 to 1; `null` of none.
    cost_reduction: Option<f64>,
    /// How long a call took on the average; `null` without calls.
    average_latency_ms: Option<f64>,
    /// The budget that is of just these calls; `null` where there is none.
    quota: Option<Quota>,
}

/// How a budget stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Quota {
    /// Its name.
    budget: String,
    /// What it allows in its window.
    limit_usd: Usd,
    /// What is spent of that.
    used_usd: Usd,
    /// What is left.
    remaining_usd: Usd,
    /// How much is spent, in percent.
    used_percentage: f64,
}

impl Quota {
    /// The first budget of money that all these calls share, and no others. Names are compared, not patterns.
    fn of(limits: &Limits, filter: &Filter) -> Option<Self> {
        let is_of = |matching: &Matching| {
            let named = |pattern: &Option<crate::pattern::Pattern>| pattern.as_ref().map(ToString::to_string);
            let Matching { provider, model, namespace, workspace, user, agent, credential } = matching;
            let only = [model, agent, credential].iter().all(|pattern| pattern.is_none()) && provider.is_none();
            only && named(namespace).as_deref() == filter.namespace.as_deref()
                && named(workspace).as_deref() == filter.workspace.as_deref()
                && named(user).as_deref() == filter.user.as_deref()
        };
        let mut budgets = limits.budgets().filter(|budget| budget.per.is_everybody() && is_of(&budget.matching));
        budgets.find_map(|budget| Self::of_budget(&BudgetNow::of(budget, limits.now())))
    }

    fn of_budget(now: &BudgetNow) -> Option<Self> {
        let limit = now.terms.allowance.usd?;
        let spent = now.foremost.spent;
        let money = Allowance { usd: Some(limit), tokens: None };
        Some(Self {
            budget: now.name.to_string(),
            limit_usd: Usd(limit),
            used_usd: Usd(spent.usd),
            remaining_usd: Usd(limit.less(spent.usd)),
            used_percentage: used_percentage(money, &now.foremost),
        })
    }
}

impl Stats {
    fn of(asked: &Asked, quota: Option<Quota>, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.totals(asked.window, &asked.filter)?;
        let totals = &answer.found;
        let all_money = totals.saved + totals.cost;
        Ok(Self {
            times: Times::of(asked.window, &answer),
            namespace: asked.filter.namespace.clone(),
            requests: totals.calls,
            requests_per_day: per_day(totals.calls, seconds(answer.covers)),
            hits: totals.hits.saturating_add(totals.coalesced),
            hit_rate: totals.hit_rate(),
            tokens_saved: totals.saved_tokens,
            cost_saved_usd: Usd(totals.saved),
            spent: Spent::of(totals),
            efficiency: share(totals.saved_tokens, totals.saved_tokens.saturating_add(totals.tokens())),
            cost_reduction: (all_money.pico() > 0).then(|| totals.saved.to_usd_f64() / all_money.to_usd_f64()),
            average_latency_ms: totals.mean_latency().map(milliseconds),
            quota,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
fn per_day(calls: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| calls as f64 / seconds * 86_400.0)
}
