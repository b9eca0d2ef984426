//! Usage: how many calls, whose, and when.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::analytics::asked::{Asked, Granularity, Limit, Question, limit, step, word_of};
use crate::admin::analytics::shown::{At, Group, Times, Tokens, Usd, change};
use crate::admin::asker::Asker;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::entry::Micros;
use crate::ledger::people::Users;
use crate::ledger::questions::{Dimension, Groups, Order};
use crate::ledger::reader::{Answer, Error, Reader};
use crate::ledger::totals::{OfUser, Totals, share};
use crate::ledger::window::Step;

/// Lists without a `limit` have so many.
const USUAL: usize = 20;
/// What a list may be ordered by.
pub(super) const ORDERS: [(&str, Order); 2] = [("cost", Order::Cost), ("calls", Order::Calls)];

/// How many calls, of how many users and agents.
#[utoipa::path(
    get,
    path = "/api/v1/usage/overview",
    tag = "usage",
    operation_id = "usage_overview",
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

/// Usage at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageOverview)]
struct Overview {
    #[serde(flatten)]
    times: Times,
    /// How many calls there were, refused ones included.
    total_calls: u64,
    /// How many users they were made for. Calls that name nobody are of none.
    unique_users: u64,
    /// How many agents made some. Calls that name no agent are of none.
    active_agents: u64,
    /// Calls by user; `null` without users.
    avg_calls_per_user: Option<f64>,
    #[serde(flatten)]
    tokens: Tokens,
    /// Hits and shared answers among the calls that asked the cache, from 0 to 1; `null` where none did.
    hit_rate: Option<f64>,
    /// Calls in as much time just before; `null` where the ledger does not know that time whole.
    previous_total_calls: Option<u64>,
    /// How many more than that, as a fraction of it (0.25: a quarter more); `null` where there were none.
    change_from_previous: Option<f64>,
}

impl Overview {
    fn of(asked: &Asked, ledger: &Reader) -> Result<Self, Error> {
        let Asked { window, filter, .. } = asked;
        let answer = ledger.totals(*window, filter)?;
        let previous = previous(asked, ledger)?.map(|totals| totals.calls);
        let Answer { found: totals, .. } = answer;
        let unique_users = ledger.unique_users(*window, filter)?.found;
        Ok(Self {
            times: Times::of(*window, &answer),
            total_calls: totals.calls,
            unique_users,
            active_agents: ledger.active_agents(*window, filter)?.found,
            avg_calls_per_user: share(totals.calls, unique_users),
            tokens: Tokens::of(&totals),
            hit_rate: totals.hit_rate(),
            previous_total_calls: previous,
            change_from_previous: previous.and_then(|before| change(as_f64(totals.calls), as_f64(before))),
        })
    }
}

/// What calls came to in as much time just before; `None` where the ledger does not know that time whole.
pub(super) fn previous(asked: &Asked, ledger: &Reader) -> Result<Option<Totals>, Error> {
    let before = asked.before();
    let answer = ledger.totals(before, &asked.filter)?;
    Ok((answer.covers == before).then_some(answer.found))
}

#[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

/// How many calls, over time.
#[utoipa::path(
    get,
    path = "/api/v1/usage/calls-over-time",
    tag = "usage",
    operation_id = "usage_calls_over_time",
    params(Question, Granularity),
    responses((status = 200, body = OverTime), ToAsk)
)]
pub(super) async fn over_time(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (asked, step) = Asked::with(parameters, &caller, step)?;
    admin.ledger.answer(move |ledger| OverTime::of(&asked, step, ledger)).await
}

/// Calls over time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CallsOverTime)]
struct OverTime {
    #[serde(flatten)]
    times: Times,
    /// How long the points are apart: `minute`, `5m`, `15m`, `hourly` or `daily`.
    granularity: &'static str,
    /// One for each such period that is in the time asked about, be it in part.
    points: Vec<CallsThen>,
}

/// Calls of one period.
#[derive(Debug, Serialize, ToSchema)]
struct CallsThen {
    /// When it begins, in UTC.
    timestamp: At,
    /// How many calls were over in it.
    calls: u64,
    /// Those that failed: the provider's fault, a deadline's, or weir's own.
    failures: u64,
    /// Those that weir refused, for a limit or a budget.
    refusals: u64,
    /// Those that were answered by what was there already.
    reused: u64,
    /// Tokens bought, in and out.
    total_tokens: u64,
    /// Their cost, as far as it is known.
    spend_usd: Usd,
    /// Calls whose cost is not known.
    unpriced_calls: u64,
}

impl OverTime {
    fn of(asked: &Asked, step: Step, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.over_time(asked.window, &asked.filter, step)?;
        let times = Times::of(asked.window, &answer);
        Ok(Self { times, granularity: word_of(step), points: answer.found.into_iter().map(CallsThen::of).collect() })
    }
}

impl CallsThen {
    fn of((start, totals): (Micros, Totals)) -> Self {
        Self {
            timestamp: At(start),
            calls: totals.calls,
            failures: totals.failures(),
            refusals: totals.rate_limited.saturating_add(totals.budget_blocked),
            reused: totals.hits.saturating_add(totals.coalesced),
            total_tokens: totals.tokens(),
            spend_usd: Usd(totals.cost),
            unpriced_calls: totals.unpriced,
        }
    }
}

/// Which agents made the calls.
#[utoipa::path(
    get,
    path = "/api/v1/usage/agent-distribution",
    tag = "usage",
    operation_id = "usage_agent_distribution",
    params(Question, Limit),
    responses((status = 200, body = Distribution), ToAsk)
)]
pub(super) async fn agents(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (asked, most) = Asked::with(parameters, &caller, |parameters, _| limit(parameters, USUAL).get())?;
    admin.ledger.answer(move |ledger| Distribution::of(&asked, most, ledger)).await
}

/// Calls by agent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgentDistribution)]
struct Distribution {
    #[serde(flatten)]
    times: Times,
    /// Calls of all of them together.
    total_calls: u64,
    /// Those with the most calls first.
    agents: Vec<Agent>,
    /// How many more there are.
    other_agents: usize,
    /// What those come to together.
    others: Group,
}

/// What an agent's calls come to.
#[derive(Debug, Serialize, ToSchema)]
struct Agent {
    /// Its name; `null` of all calls that name none.
    agent_id: Option<Box<str>>,
    #[serde(flatten)]
    group: Group,
}

impl Distribution {
    fn of(asked: &Asked, most: usize, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.by(Dimension::Agent, asked.window, &asked.filter, (Order::Calls, most))?;
        let times = Times::of(asked.window, &answer);
        let all = all_of(&answer.found);
        let Groups { first, others, rest } = answer.found;
        let agent = |(agent_id, totals): (_, Totals)| Agent { agent_id, group: Group::of(&totals, &all) };
        Ok(Self {
            times,
            total_calls: all.calls,
            agents: first.into_iter().map(agent).collect(),
            other_agents: others,
            others: Group::of(&rest, &all),
        })
    }
}

/// What all groups come to together.
pub(super) fn all_of(groups: &Groups) -> Totals {
    let mut all = groups.rest;
    groups.first.iter().for_each(|(_, totals)| all.add(totals));
    all
}

/// Which users calls were made for most, or cost most.
#[utoipa::path(
    get,
    path = "/api/v1/usage/top-users",
    tag = "usage",
    operation_id = "usage_top_users",
    params(Question, Limit, ("sort" = Option<String>, Query, pattern = "^(cost|calls)$",
        description = "What comes first: `calls` (without this), or `cost`.")),
    responses((status = 200, body = TopUsers), ToAsk)
)]
pub(super) async fn users(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (asked, wanted) = Asked::with(parameters, &caller, |parameters, _| {
        (parameters.choice("sort", &ORDERS).unwrap_or(Order::Calls), limit(parameters, USUAL).get())
    })?;
    admin.ledger.answer(move |ledger| TopUsers::of(&asked, wanted, ledger)).await
}

/// Calls by user.
#[derive(Debug, Serialize, ToSchema)]
struct TopUsers {
    #[serde(flatten)]
    times: Times,
    /// How many users there are in all.
    unique_users: u64,
    /// The first of them.
    users: Vec<Spender>,
}

/// What a user's calls come to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
struct Spender {
    /// Who, as the ledger keeps it.
    user_id: Box<str>,
    /// How many calls.
    total_calls: u64,
    /// Those that neither ended well nor were given up by the app.
    errors: u64,
    /// Tokens bought, in and out.
    total_tokens: u64,
    /// What was spent, as far as it is known.
    total_spend_usd: Usd,
    /// What was not spent because the answer was there already.
    saved_usd: Usd,
    /// When the last call was over.
    last_call: At,
}

impl TopUsers {
    fn of(asked: &Asked, wanted: (Order, usize), ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.users(asked.window, &asked.filter, wanted)?;
        let times = Times::of(asked.window, &answer);
        let Users { first, all } = answer.found;
        Ok(Self { times, unique_users: all, users: first.into_iter().map(Spender::of).collect() })
    }
}

impl Spender {
    fn of((user_id, of_user): (Box<str>, OfUser)) -> Self {
        let OfUser { calls, errors, tokens, cost, saved, latest } = of_user;
        Self {
            user_id,
            total_calls: calls,
            errors,
            total_tokens: tokens,
            total_spend_usd: Usd(cost),
            saved_usd: Usd(saved),
            last_call: At(latest),
        }
    }
}
