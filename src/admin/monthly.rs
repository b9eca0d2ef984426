//! Monthly: the app's budget for a month, as finance sees it. One number that may be changed while weir runs, and taken
//! back to what the configuration says.
//!
//! Money is JSON numbers here, in and out, and exact: read and written digit by digit.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::admin::access::{Operator, Reader};
use crate::admin::body::{self, Members};
use crate::admin::budgets::{Between, overridden, used_percentage};
use crate::admin::cache::answer;
use crate::admin::limits::{SCOPE, looked_at};
use crate::admin::openapi::{ToChange, ToRead};
use crate::admin::problem::Problem;
use crate::admin::{Admin, audit};
use crate::ledger::entry::exact;
use crate::limits::Now;
use crate::limits::budget::{Allowance, Budget, Enforce, Origin, Terms};
use crate::limits::standing::BudgetNow;

/// The budget of all calls for a month.
#[utoipa::path(
    get,
    path = "/api/v1/cost/budget",
    tag = "cost",
    operation_id = "cost_budget",
    responses((status = 200, body = Month), ToRead)
)]
pub(super) async fn get(_: Reader, State(admin): State<Admin>) -> Result<Response, Problem> {
    stands(&admin).await
}

/// Gives it another limit. Needs a token with the role `admin`.
#[utoipa::path(
    put,
    path = "/api/v1/cost/budget",
    tag = "cost",
    operation_id = "cost_budget_set",
    request_body(content = LimitWanted, content_type = "application/json"),
    responses((status = 200, body = Month), ToChange),
    security(("token" = []))
)]
pub(super) async fn put(operator: Operator, State(admin): State<Admin>, body: Body) -> Result<Response, Problem> {
    let body = body::read(body, body::COMMAND).await?;
    let mut members = Members::of(&body)?;
    let limit = members.required_usd("monthly_limit_usd");
    let threshold = members.percentage("alert_threshold_percentage");
    let limit = members.end_with(limit)?;
    let configured = &admin.limits.monthly().configured().thresholds;
    change(&admin, &operator, "budget.set", |terms| {
        // Money is what is set here; tokens are what the configuration says.
        terms.allowance.usd = Some(limit);
        terms.origin = Origin::Api;
        if let Some(lowest) = threshold {
            let higher = configured.iter().copied().filter(|threshold| *threshold > lowest);
            terms.thresholds = [lowest].into_iter().chain(higher).collect();
        }
    });
    stands(&admin).await
}

/// Gives it the configured limit again. Needs a token with the role `admin`.
#[utoipa::path(
    delete,
    path = "/api/v1/cost/budget",
    tag = "cost",
    operation_id = "cost_budget_unset",
    responses((status = 200, body = Month), ToChange),
    security(("token" = []))
)]
pub(super) async fn delete(operator: Operator, State(admin): State<Admin>) -> Result<Response, Problem> {
    let configured = admin.limits.monthly().configured();
    change(&admin, &operator, "budget.unset", |terms| {
        let overridden = terms.overridden.take().filter(|_| configured.allowance != Allowance::default());
        *terms = Terms { overridden, ..configured.clone() };
    });
    stands(&admin).await
}

/// Another limit.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "says what `put` reads")]
struct LimitWanted {
    /// What may be spent in a month, in US dollars.
    #[schema(minimum = 0)]
    monthly_limit_usd: f64,
    /// From which part of it on a line is logged, in percent.
    #[schema(minimum = 0, maximum = 100)]
    alert_threshold_percentage: Option<u64>,
}

fn change(admin: &Admin, operator: &Operator, action: &str, change: impl FnOnce(&mut Terms)) {
    let (budget, now) = (admin.limits.monthly(), admin.limits.now());
    let (from, to) = budget.change(now, |terms| {
        let from = told(terms);
        change(terms);
        (from, told(terms))
    });
    let what = json!({ "budget": &*budget.name, "from": from, "to": to });
    audit::budget_changed(operator, action, &what.to_string());
}

/// What the audit log says of terms.
fn told(terms: &Terms) -> Value {
    json!({
        "limit_usd": terms.allowance.usd,
        "limit_tokens": terms.allowance.tokens,
        "thresholds": terms.thresholds,
        "source": terms.origin,
    })
}

async fn stands(admin: &Admin) -> Result<Response, Problem> {
    let (budget, now) = (Arc::clone(admin.limits.monthly()), admin.limits.now());
    let month = looked_at(move || Month::of(&budget, now)).await?;
    Ok(answer(StatusCode::OK, &month))
}

/// The app's budget for this month. Without a limit, nothing is counted: what is not known is `null`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MonthlyBudget)]
struct Month {
    name: String,
    #[schema(value_type = Option<f64>)]
    monthly_limit_usd: Option<Box<RawValue>>,
    alert_threshold_percentage: Option<u64>,
    #[schema(value_type = Option<f64>)]
    current_spend_usd: Option<Box<RawValue>>,
    #[schema(value_type = Option<f64>)]
    remaining_usd: Option<Box<RawValue>>,
    used_percentage: Option<f64>,
    /// The same as `monthly_limit_usd`, as other answers about money call it.
    #[schema(value_type = Option<f64>)]
    budget_limit_usd: Option<Box<RawValue>>,
    /// The same as `remaining_usd`.
    #[schema(value_type = Option<f64>)]
    budget_remaining_usd: Option<Box<RawValue>>,
    /// The same as `used_percentage`.
    budget_used_percentage: Option<f64>,
    is_over_threshold: bool,
    is_exceeded: bool,
    period: Between,
    counted_since: Option<String>,
    #[schema(value_type = String)]
    enforce: Enforce,
    #[serde(rename = "override")]
    #[schema(value_type = Option<Object>)]
    overridden: Option<Value>,
    #[schema(value_type = String)]
    source: Origin,
    /// Whose spending it is.
    scope: &'static str,
    /// Whom a change of it is for.
    change_scope: &'static str,
}

impl Month {
    fn of(budget: &Budget, now: Now) -> Self {
        let BudgetNow { name, scope, enforce, period, terms, foremost, .. } = BudgetNow::of(budget, now);
        let limit = terms.allowance.usd;
        let is_counted = terms.allowance != Allowance::default();
        let spent = foremost.spent.usd;
        // Of the money: a limit of tokens is not what finance looks at.
        let money = Allowance { usd: limit, tokens: None };
        let threshold = terms.thresholds.first().copied();
        let used = limit.map(|_| money.percent_hundredths(foremost.spent));
        let remaining = limit.map(|limit| limit.less(spent));
        let percentage = limit.map(|_| used_percentage(money, &foremost));
        Self {
            name: name.to_string(),
            monthly_limit_usd: limit.map(exact),
            alert_threshold_percentage: threshold,
            current_spend_usd: is_counted.then(|| exact(spent)),
            remaining_usd: remaining.map(exact),
            used_percentage: percentage,
            budget_limit_usd: limit.map(exact),
            budget_remaining_usd: remaining.map(exact),
            budget_used_percentage: percentage,
            is_over_threshold: threshold.zip(used).is_some_and(|(threshold, used)| threshold <= used / 100),
            is_exceeded: money.is_used_up_by(foremost.spent),
            period: Between::of(period),
            counted_since: is_counted.then(|| budget.counted_since(period).to_string()),
            enforce,
            overridden: terms.override_at(now).map(overridden),
            source: terms.origin,
            scope: scope.as_str(),
            change_scope: SCOPE,
        }
    }
}
