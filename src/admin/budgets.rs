//! Budgets: how they stand, and overrides: an operator lets calls pass for a while.
//!
//! Money is decimal text, exact. Names those who spend most: not for everybody's eyes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::admin::access::{Operator, Reader};
use crate::admin::body::{self, Members};
use crate::admin::cache::answer;
use crate::admin::limits::{SCOPE, how_many, looked_at, matching, per, whose};
use crate::admin::openapi::{ToChange, ToRead};
use crate::admin::problem::Problem;
use crate::admin::query::{Query, Rules, no_such};
use crate::admin::{Admin, audit};
use crate::limits::budget::{Allowance, Budget, Enforce, Origin, Override, Terms};
use crate::limits::standing::{BudgetNow, SubjectBudget, foremost};
use crate::limits::window::{Period, UnixTime, Window};
use crate::limits::{Limits, Now};
use crate::units::{PicoUsd, Span};

/// The longest that calls may be let pass, in seconds: as long as a month.
const LONGEST_OVERRIDE: i64 = 31 * 24 * 3600;
/// The longest reason, in bytes.
const MAX_REASON: usize = 500;
/// The longest time, in bytes.
const MAX_TIME: usize = 64;

/// How budgets stand.
#[utoipa::path(
    get,
    path = "/api/v1/budgets",
    tag = "limits",
    operation_id = "budgets_list",
    params(Rules),
    responses((status = 200, body = Listed), ToRead)
)]
pub(super) async fn list(_: Reader, query: Query, State(admin): State<Admin>) -> Result<Response, Problem> {
    let budgets = query.choose("budget", admin.limits.budgets().map(Arc::clone), |budget| &budget.name)?;
    let budgets = looked_at(move || {
        let now = admin.limits.now();
        budgets.iter().map(|budget| Shown::of(budget, query.subjects, now)).collect::<Vec<_>>()
    });
    Ok(answer(StatusCode::OK, &Listed { budgets: budgets.await? }))
}

/// Budgets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Budgets)]
struct Listed {
    /// In the order of the configuration.
    budgets: Vec<Shown>,
}

/// Lets calls pass for a while although a budget is spent. Needs a token with the role `admin`.
#[utoipa::path(
    post,
    path = "/api/v1/budgets/{name}/override",
    tag = "limits",
    operation_id = "override_begin",
    params(("name" = String, Path, description = "The budget's name.")),
    request_body(content = OverrideWanted, content_type = "application/json"),
    responses((status = 200, body = Shown), ToChange),
    security(("token" = []))
)]
pub(super) async fn begin_override(
    operator: Operator,
    State(admin): State<Admin>,
    Named(budget): Named,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read(body, body::COMMAND).await?;
    let mut members = Members::of(&body)?;
    let now = admin.limits.now();
    let begun = read_override(&mut members, &budget, now);
    let begun = members.end_with(begun)?;
    let before = budget.change(now, |terms| terms.overridden.replace(begun.clone()));
    let change = json!({ "budget": &*budget.name, "from": before.as_ref().map(overridden), "to": overridden(&begun) });
    audit::budget_changed(&operator, "budget.override", &change.to_string());
    stands(budget, now).await
}

/// Ends that before its time. Needs a token with the role `admin`.
#[utoipa::path(
    delete,
    path = "/api/v1/budgets/{name}/override",
    tag = "limits",
    operation_id = "override_end",
    params(("name" = String, Path, description = "The budget's name.")),
    responses((status = 200, body = Shown), ToChange),
    security(("token" = []))
)]
pub(super) async fn end_override(
    operator: Operator,
    State(admin): State<Admin>,
    Named(budget): Named,
) -> Result<Response, Problem> {
    let now = admin.limits.now();
    let ended = budget.change(now, |terms| {
        let is_on = terms.override_at(now).is_some();
        terms.overridden.take_if(|_| is_on)
    });
    let Some(ended) = ended else {
        let detail = format!("budget `{}` is not overridden: there is nothing to end", budget.name);
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let change = json!({ "budget": &*budget.name, "from": overridden(&ended), "to": null });
    audit::budget_changed(&operator, "budget.override.end", &change.to_string());
    stands(budget, now).await
}

/// What holds for a while: `until`, or `for`, and why.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "says what `read_override` reads")]
struct OverrideWanted {
    /// Until when, RFC 3339: at most 31 days from now.
    until: Option<String>,
    /// For how long: a number of seconds, or a text such as `2h`.
    #[schema(rename = "for", value_type = Option<String>)]
    span: Option<Value>,
    /// How much may be spent meanwhile, in US dollars: more than the budget's own limit. Any amount without this.
    limit_usd: Option<f64>,
    /// Why.
    reason: String,
}

/// The budget that the path names.
#[derive(Debug)]
pub(super) struct Named(Arc<Budget>);

impl FromRequestParts<Admin> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let unreadable = |_| Problem::new(StatusCode::BAD_REQUEST, "the name in the path is not UTF-8");
        let Path(name) = Path::<String>::from_request_parts(parts, admin).await.map_err(unreadable)?;
        find(&admin.limits, &name).map(Self)
    }
}

fn find(limits: &Limits, name: &str) -> Result<Arc<Budget>, Problem> {
    let found = limits.budgets().find(|budget| *budget.name == *name).map(Arc::clone);
    found.ok_or_else(|| {
        if *limits.monthly().name == *name {
            let detail = format!("budget `{name}` has no limit yet: PUT /api/v1/cost/budget sets one");
            return Problem::new(StatusCode::NOT_FOUND, detail);
        }
        let known: Vec<&str> = limits.budgets().map(|budget| &*budget.name).collect();
        no_such("budget", name, known.into_iter())
    })
}

fn read_override(members: &mut Members<'_>, budget: &Budget, now: Now) -> Option<Override> {
    let until = read_until(members, now);
    let limit_usd = members.usd("limit_usd");
    let reason = members.required_text("reason", MAX_REASON);
    let allowed = budget.terms().allowance.usd;
    if let Some((meanwhile, allowed)) = limit_usd.zip(allowed).filter(|(meanwhile, allowed)| meanwhile <= allowed) {
        let fix = "write more, or leave it out to let every call pass";
        members.fault("limit_usd", format!("{meanwhile} is no more than the budget's own {allowed}: {fix}"));
    }
    Some(Override { until: until?, limit_usd, reason: reason? })
}

/// Until when, by one of two members.
fn read_until(members: &mut Members<'_>, now: Now) -> Option<UnixTime> {
    let given = (members.has("until"), members.has("for"));
    let until = members.parsed("until", MAX_TIME, |_, error| error);
    let span = members.span("for");
    match given {
        (true, true) => members.fault_of_all("says `until` and `for`: give one of them"),
        (false, false) => {
            members.fault_of_all(
                "does not say how long: give `for`, such as \"2h\", or `until`, such as \"2026-11-30T00:00:00Z\"",
            );
        }
        _ => {}
    }
    let seconds = |span: Span| {
        let whole = i64::try_from(span.get().as_secs()).unwrap_or(i64::MAX);
        UnixTime::new(now.wall.seconds().saturating_add(whole).saturating_add(i64::from(span.get().subsec_nanos() > 0)))
    };
    let (name, until) = until.map(|until| ("until", until)).or_else(|| Some(("for", seconds(span?))))?;
    let latest = UnixTime::new(now.wall.seconds() + LONGEST_OVERRIDE);
    if until <= now.wall {
        members.fault(name, format!("{until} is over: it is {} now", now.wall));
    } else if until > latest {
        members.fault(name, format!("is more than 31 days away: the latest is {latest}"));
    }
    Some(until)
}

async fn stands(budget: Arc<Budget>, now: Now) -> Result<Response, Problem> {
    let budget = looked_at(move || Shown::of(&budget, 0, now)).await?;
    Ok(answer(StatusCode::OK, &budget))
}

/// A budget as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Budget)]
struct Shown {
    name: String,
    /// Which calls it is for.
    #[serde(rename = "match")]
    #[schema(value_type = Object)]
    matching: Value,
    per: Option<String>,
    scope: &'static str,
    #[schema(value_type = String)]
    window: Window,
    time_zone: String,
    period: Between,
    counted_since: String,
    /// US dollars, in decimal, as all amounts of money here.
    #[schema(value_type = Option<String>)]
    limit_usd: Option<PicoUsd>,
    limit_tokens: Option<u64>,
    #[schema(value_type = String)]
    source: Origin,
    thresholds: Vec<u64>,
    #[schema(value_type = String)]
    enforce: Enforce,
    downgrade_to: Option<String>,
    #[serde(rename = "override")]
    #[schema(value_type = Option<Object>)]
    overridden: Option<Value>,
    state: &'static str,
    blocked_calls: u64,
    subjects: usize,
    /// Of the subject that has spent most.
    #[serde(flatten)]
    standing: Standing,
    foremost: Vec<Standing>,
}

/// How a budget stands for one subject.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BudgetStanding)]
struct Standing {
    subject: Option<Box<str>>,
    #[schema(value_type = String)]
    spent_usd: PicoUsd,
    spent_tokens: u64,
    #[schema(value_type = String)]
    reserved_usd: PicoUsd,
    reserved_tokens: u64,
    #[schema(value_type = Option<String>)]
    remaining_usd: Option<PicoUsd>,
    remaining_tokens: Option<u64>,
    used_percentage: f64,
}

/// A period as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Between {
    start: String,
    end: Option<String>,
}

impl Shown {
    /// With at most `most` subjects, where it holds some apart.
    fn of(budget: &Budget, most: usize, now: Now) -> Self {
        let BudgetNow { name, window, scope, enforce, period, terms, blocked, subjects, foremost: first, .. } =
            BudgetNow::of(budget, now);
        let each = if budget.per.is_everybody() { Vec::new() } else { foremost(budget, most, now) };
        Self {
            name: name.to_string(),
            matching: matching(&budget.matching),
            per: per(&budget.per),
            scope: scope.as_str(),
            window,
            time_zone: budget.zone.to_string(),
            period: Between::of(period),
            counted_since: budget.counted_since(period).to_string(),
            limit_usd: terms.allowance.usd,
            limit_tokens: terms.allowance.tokens,
            source: terms.origin,
            enforce,
            downgrade_to: budget.downgrade_to.as_deref().map(str::to_owned),
            overridden: terms.override_at(now).map(overridden),
            state: state(&terms, &first, now),
            blocked_calls: blocked,
            subjects: how_many(&budget.per, subjects),
            standing: Standing::of(first, terms.allowance),
            foremost: each.into_iter().map(|subject| Standing::of(subject, terms.allowance)).collect(),
            thresholds: terms.thresholds,
        }
    }
}

impl Standing {
    fn of(subject: SubjectBudget, allowance: Allowance) -> Self {
        let used_percentage = used_percentage(allowance, &subject);
        let SubjectBudget { subject, spent, reserved } = subject;
        Self {
            subject: whose(subject),
            spent_usd: spent.usd,
            spent_tokens: spent.tokens,
            reserved_usd: reserved.usd,
            reserved_tokens: reserved.tokens,
            remaining_usd: allowance.usd.map(|limit| limit.less(spent.usd)),
            remaining_tokens: allowance.tokens.map(|limit| limit.saturating_sub(spent.tokens)),
            used_percentage,
        }
    }
}

impl Between {
    pub(super) fn of(Period { start, end }: Period) -> Self {
        Self { start: start.to_string(), end: end.map(|end| end.to_string()) }
    }
}

/// How much is spent, in percent, to the hundredth. Always a number: nothing is used up by anything.
#[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
pub(super) fn used_percentage(allowance: Allowance, subject: &SubjectBudget) -> f64 {
    allowance.percent_hundredths(subject.spent) as f64 / 100.0
}

/// One word for how it stands.
pub(super) fn state(terms: &Terms, foremost: &SubjectBudget, now: Now) -> &'static str {
    let used = terms.allowance.percent_hundredths(foremost.spent) / 100;
    if terms.override_at(now).is_some() {
        "overridden"
    } else if terms.allowance.is_used_up_by(foremost.spent) {
        "spent"
    } else if terms.thresholds.iter().any(|threshold| *threshold <= used) {
        "over_threshold"
    } else {
        "within"
    }
}

/// What holds for a while in place of a limit, in this instance.
pub(super) fn overridden(Override { until, limit_usd, reason }: &Override) -> Value {
    json!({ "until": until.to_string(), "limit_usd": limit_usd, "reason": reason, "scope": SCOPE })
}
