//! Cost: what calls cost, on what, over time, and where that leads.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::analytics::asked::{Asked, Granularity, Limit, Question, limit, step, word_of};
use crate::admin::analytics::shown::{At, Group, Spent, Times, Usd, change};
use crate::admin::analytics::usage::{ORDERS, all_of, previous};
use crate::admin::asker::Asker;
use crate::admin::budgets::used_percentage;
use crate::admin::cache::answer;
use crate::admin::limits::looked_at;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::DAY;
use crate::ledger::entry::Micros;
use crate::ledger::questions::{Dimension, Groups, Order};
use crate::ledger::reader::{Error, Reader};
use crate::ledger::totals::Totals;
use crate::ledger::window::{Step, Window};
use crate::limits::budget::Allowance;
use crate::limits::standing::BudgetNow;
use crate::limits::window::{Period, UnixTime};
use crate::units::PicoUsd;

/// Lists without a `limit` have so many.
const USUAL: usize = 20;
/// So much of a month has to be over before anybody can tell where it leads.
const FORESIGHT: Micros = DAY;

/// What calls may be told apart by.
const DIMENSIONS: [(&str, Dimension); 6] = [
    ("model", Dimension::Model),
    ("provider", Dimension::Provider),
    ("agent", Dimension::Agent),
    ("namespace", Dimension::Namespace),
    ("workspace", Dimension::Workspace),
    ("operation", Dimension::Operation),
];

/// What was spent, what the month's budget allows, and where the month leads.
#[utoipa::path(
    get,
    path = "/api/v1/cost/overview",
    tag = "cost",
    operation_id = "cost_overview",
    params(Question),
    responses((status = 200, body = Overview), ToAsk)
)]
pub(super) async fn overview(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let asked = Asked::of(parameters, &caller)?;
    let limits = std::sync::Arc::clone(&admin.limits);
    let month = looked_at(move || Month::of(&BudgetNow::of(limits.monthly(), limits.now()))).await?;
    admin.ledger.answer(move |ledger| Overview::of(&asked, month, ledger)).await
}

/// Cost at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostOverview)]
struct Overview {
    #[serde(flatten)]
    times: Times,
    #[serde(flatten)]
    spent: Spent,
    /// How many calls there were.
    total_calls: u64,
    /// What a call whose cost is known cost on the average; `null` without any.
    avg_cost_per_call_usd: Option<Usd>,
    /// What was spent in as much time just before; `null` where the ledger does not know that time whole.
    previous_total_spend_usd: Option<Usd>,
    /// How much more than that was spent, as a fraction of it (0.25: a quarter more); `null` where nothing was.
    change_from_previous: Option<f64>,
    /// What was spent in the month that is now, by the calendar of the month's budget.
    month_to_date_spend_usd: Usd,
    /// What the whole month will have come to if it goes on like this: `month_to_date_spend_usd` by the part of the month
    /// that is over. `null` on its first day, and where the ledger does not know the month from its beginning.
    projected_monthly_spend_usd: Option<Usd>,
    /// The limit of the month's budget; `null` without one, and where only some of the calls are asked about.
    budget_limit_usd: Option<Usd>,
    /// What is left of it.
    budget_remaining_usd: Option<Usd>,
    /// How much of it is spent, in percent: 0 to 100, and more.
    budget_used_percentage: Option<f64>,
}

/// The month's budget, as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct Month {
    begins: Micros,
    ends: Option<Micros>,
    limit: Option<PicoUsd>,
    spent: PicoUsd,
    used_percentage: f64,
}

impl Month {
    fn of(budget: &BudgetNow) -> Self {
        let Period { start, end } = budget.period;
        let limit = budget.terms.allowance.usd;
        let money = Allowance { usd: limit, tokens: None };
        let micros = |at: UnixTime| at.seconds().saturating_mul(1_000_000);
        Self {
            begins: micros(start),
            ends: end.map(micros),
            limit,
            spent: budget.foremost.spent.usd,
            used_percentage: used_percentage(money, &budget.foremost),
        }
    }

    /// What the month comes to if it goes on as it has until `now`; `None` too early.
    fn projected(&self, spent: PicoUsd, now: Micros) -> Option<PicoUsd> {
        let over = now.checked_sub(self.begins).filter(|over| *over >= FORESIGHT)?;
        let length = u128::try_from(self.ends?.checked_sub(self.begins)?).ok()?;
        let whole = spent.pico().checked_mul(length)?.checked_div(u128::try_from(over).ok()?)?;
        Some(PicoUsd::new(whole))
    }
}

impl Overview {
    fn of(asked: &Asked, month: Month, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.totals(asked.window, &asked.filter)?;
        let before = previous(asked, ledger)?.map(|totals| totals.cost);
        let so_far = Window { from: month.begins, to: asked.now };
        let this_month = ledger.totals(so_far, &asked.filter)?;
        let is_whole = this_month.covers == so_far;
        let times = Times::of(asked.window, &answer);
        let totals = answer.found;
        let limit = month.limit.filter(|_| asked.is_of_everything());
        Ok(Self {
            times,
            spent: Spent::of(&totals),
            total_calls: totals.calls,
            avg_cost_per_call_usd: each(&totals).map(Usd),
            previous_total_spend_usd: before.map(Usd),
            change_from_previous: before.and_then(|before| change(totals.cost.to_usd_f64(), before.to_usd_f64())),
            month_to_date_spend_usd: Usd(this_month.found.cost),
            projected_monthly_spend_usd: month
                .projected(this_month.found.cost, asked.now)
                .filter(|_| is_whole)
                .map(Usd),
            budget_limit_usd: limit.map(Usd),
            budget_remaining_usd: limit.map(|limit| Usd(limit.less(month.spent))),
            budget_used_percentage: limit.map(|_| month.used_percentage),
        })
    }
}

/// What a call whose cost is known cost on the average, rounded down to the pico-dollar.
fn each(totals: &Totals) -> Option<PicoUsd> {
    let priced = u128::from(totals.calls.saturating_sub(totals.unpriced));
    totals.cost.pico().checked_div(priced).map(PicoUsd::new)
}

/// What was spent, over time.
#[utoipa::path(
    get,
    path = "/api/v1/cost/trend",
    tag = "cost",
    operation_id = "cost_trend",
    params(Question, Granularity),
    responses((status = 200, body = Trend), ToAsk)
)]
pub(super) async fn trend(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (asked, step) = Asked::with(parameters, &caller, step)?;
    admin.ledger.answer(move |ledger| Trend::of(&asked, step, ledger)).await
}

/// Cost over time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostTrend)]
struct Trend {
    #[serde(flatten)]
    times: Times,
    /// How long the points are apart: `minute`, `5m`, `15m`, `hourly` or `daily`.
    granularity: &'static str,
    /// One for each such period that is in the time asked about, be it in part.
    points: Vec<SpentThen>,
}

/// Cost of one period.
#[derive(Debug, Serialize, ToSchema)]
struct SpentThen {
    /// When it begins, in UTC.
    timestamp: At,
    #[serde(flatten)]
    spent: Spent,
    /// How many calls were over in it.
    total_calls: u64,
}

impl Trend {
    fn of(asked: &Asked, step: Step, ledger: &Reader) -> Result<Self, Error> {
        let answer = ledger.over_time(asked.window, &asked.filter, step)?;
        let point = |(start, totals): &(Micros, Totals)| SpentThen {
            timestamp: At(*start),
            spent: Spent::of(totals),
            total_calls: totals.calls,
        };
        Ok(Self {
            times: Times::of(asked.window, &answer),
            granularity: word_of(step),
            points: answer.found.iter().map(point).collect(),
        })
    }
}

/// What was spent on which model.
#[utoipa::path(
    get,
    path = "/api/v1/cost/by-model",
    tag = "cost",
    operation_id = "cost_by_model",
    params(Question, Limit),
    responses((status = 200, body = ByModel), ToAsk)
)]
pub(super) async fn by_model(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (asked, most) = Asked::with(parameters, &caller, |parameters, _| limit(parameters, USUAL).get())?;
    let wanted = (Dimension::Model, Order::Cost, most);
    let groups = admin.ledger.ask(move |ledger| Spending::of(&asked, wanted, ledger)).await?;
    let Spending { times, spent, groups, other_groups, others, .. } = groups;
    let model = |OfGroup { name, group }| Model { model: name, group };
    let models =
        ByModel { times, spent, models: groups.into_iter().map(model).collect(), other_models: other_groups, others };
    Ok(answer(StatusCode::OK, &models))
}

/// Cost by model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostByModel)]
struct ByModel {
    #[serde(flatten)]
    times: Times,
    #[serde(flatten)]
    spent: Spent,
    /// The dearest first.
    models: Vec<Model>,
    /// How many more there are.
    other_models: usize,
    /// What those come to together.
    others: Group,
}

/// What a model's calls come to.
#[derive(Debug, Serialize, ToSchema)]
struct Model {
    /// As the app spells it; `null` of all calls that name none.
    model: Option<Box<str>>,
    #[serde(flatten)]
    group: Group,
}

/// What was spent on what.
#[utoipa::path(
    get,
    path = "/api/v1/analytics/costs",
    tag = "analytics",
    operation_id = "analytics_costs",
    params(Question, Limit,
        ("group_by" = Option<String>, Query, pattern = "^(model|provider|agent|namespace|workspace|operation)$",
            description = "What calls are told apart by: `model` (without this), `provider`, `agent`, `namespace`, \
                           `workspace` or `operation`."),
        ("sort" = Option<String>, Query, pattern = "^(cost|calls)$",
            description = "What comes first: `cost` (without this), or `calls`.")),
    responses((status = 200, body = Spending), ToAsk)
)]
pub(super) async fn groups(
    caller: Asker,
    parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (asked, wanted) = Asked::with(parameters, &caller, |parameters, _| {
        let dimension = parameters.choice("group_by", &DIMENSIONS).unwrap_or(Dimension::Model);
        let order = parameters.choice("sort", &ORDERS).unwrap_or(Order::Cost);
        (dimension, order, limit(parameters, USUAL).get())
    })?;
    admin.ledger.answer(move |ledger| Spending::of(&asked, wanted, ledger)).await
}

/// Cost by what calls have in common.
#[derive(Debug, Serialize, ToSchema)]
struct Spending {
    #[serde(flatten)]
    times: Times,
    /// What that is.
    group_by: &'static str,
    #[serde(flatten)]
    spent: Spent,
    /// How many calls there were.
    total_calls: u64,
    /// The first of them, in the order asked for.
    groups: Vec<OfGroup>,
    /// How many more there are.
    other_groups: usize,
    /// What those come to together.
    others: Group,
}

/// What a group's calls come to.
#[derive(Debug, Serialize, ToSchema)]
struct OfGroup {
    /// What they have in common; `null` of all calls that say nothing there.
    name: Option<Box<str>>,
    #[serde(flatten)]
    group: Group,
}

impl Spending {
    fn of(asked: &Asked, wanted: (Dimension, Order, usize), ledger: &Reader) -> Result<Self, Error> {
        let (dimension, order, most) = wanted;
        let answer = ledger.by(dimension, asked.window, &asked.filter, (order, most))?;
        let times = Times::of(asked.window, &answer);
        let all = all_of(&answer.found);
        let Groups { first, others, rest } = answer.found;
        let group = |(name, totals): (_, Totals)| OfGroup { name, group: Group::of(&totals, &all) };
        Ok(Self {
            times,
            group_by: DIMENSIONS.iter().find(|(_, known)| *known == dimension).map_or("model", |(word, _)| *word),
            spent: Spent::of(&all),
            total_calls: all.calls,
            groups: first.into_iter().map(group).collect(),
            other_groups: others,
            others: Group::of(&rest, &all),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_goes_on_as_it_has_begun() {
        let month = Month { begins: 0, ends: Some(30 * DAY), limit: None, spent: PicoUsd::ZERO, used_percentage: 0.0 };
        let usd = |usd| PicoUsd::new(usd * PicoUsd::PER_USD);
        for (rule, now, spent, expected) in [
            ("a third of it", 10 * DAY, usd(10), Some(usd(30))),
            ("its last moment", 30 * DAY, usd(7), Some(usd(7))),
            ("nothing spent", 2 * DAY, usd(0), Some(usd(0))),
            ("rounded down", 7 * DAY, PicoUsd::new(1), Some(PicoUsd::new(4))),
            ("the first day tells nothing", DAY - 1, usd(1), None),
            ("before it begins", -1, usd(1), None),
            ("more than there is", 2 * DAY, PicoUsd::new(u128::MAX), None),
        ] {
            assert_eq!(month.projected(spent, now), expected, "{rule}");
        }
        assert_eq!(Month { ends: None, ..month }.projected(usd(1), 2 * DAY), None);
    }

    #[test]
    fn an_average_is_of_the_calls_whose_cost_is_known() {
        let of = |calls, unpriced, pico| Totals { calls, unpriced, cost: PicoUsd::new(pico), ..Totals::default() };
        assert_eq!(each(&of(4, 1, 10)), Some(PicoUsd::new(3)));
        assert_eq!(each(&of(4, 4, 0)), None);
        assert_eq!(each(&of(0, 0, 0)), None);
    }
}
