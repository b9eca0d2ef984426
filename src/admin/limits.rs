//! Limits: how the operator's limits of rate stand. Names those who take most of them: not for everybody's eyes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::access::Reader;
use crate::admin::cache::answer;
use crate::admin::openapi::ToRead;
use crate::admin::problem::Problem;
use crate::admin::query::{Query, Rules};
use crate::limits::Now;
use crate::limits::matching::{Matching, Per};
use crate::limits::rate::{Quota, RateLimit};
use crate::limits::standing::{RateNow, Scope, SubjectRate, fullest};

/// What counts in this instance alone.
pub(super) const SCOPE: &str = Scope::Instance.as_str();

/// How limits of rate stand.
#[utoipa::path(
    get,
    path = "/api/v1/limits",
    tag = "limits",
    operation_id = "limits_list",
    params(Rules),
    responses((status = 200, body = Listed), ToRead)
)]
pub(super) async fn list(_: Reader, query: Query, State(admin): State<Admin>) -> Result<Response, Problem> {
    let rules = query.choose("limit", admin.limits.rates().iter().map(Arc::clone), |rule| &rule.name)?;
    let limits = looked_at(move || {
        let now = admin.limits.now();
        rules.iter().map(|rule| Shown::of(rule, query.subjects, now)).collect::<Vec<_>>()
    });
    Ok(answer(StatusCode::OK, &Listed { limits: limits.await? }))
}

/// Limits of rate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
struct Listed {
    /// In the order of the configuration.
    limits: Vec<Shown>,
}

/// What `look` finds, who looks at every subject: not on a thread that serves calls.
pub(super) async fn looked_at<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let unread = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the numbers could not be read");
    spawn_blocking(look).await.map_err(unread)
}

/// A limit as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
struct Shown {
    name: String,
    /// Which calls it is for.
    #[serde(rename = "match")]
    #[schema(value_type = Object)]
    matching: Value,
    per: Option<String>,
    wait: Option<String>,
    count_hits: bool,
    scope: &'static str,
    decisions: BTreeMap<&'static str, u64>,
    subjects: usize,
    /// Of the subject that has least left.
    #[serde(flatten)]
    standing: Standing,
    fullest: Vec<Standing>,
}

/// How a limit stands for one subject.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LimitStanding)]
struct Standing {
    subject: Option<Box<str>>,
    used_percentage: f64,
    rates: Vec<Rate>,
}

/// How one rate of a limit stands.
#[derive(Debug, Serialize, ToSchema)]
struct Rate {
    unit: &'static str,
    limit: u64,
    period_seconds: Option<u64>,
    remaining: u64,
    reset_seconds: Option<u64>,
}

impl Shown {
    /// With at most `most` subjects, where it holds some apart.
    fn of(rule: &RateLimit, most: usize, now: Now) -> Self {
        let RateNow { name, scope, subjects, decisions, fullest: first } = RateNow::of(rule, now);
        let each = if rule.per.is_everybody() { Vec::new() } else { fullest(rule, most, now) };
        Self {
            name: name.to_string(),
            matching: matching(&rule.matching),
            per: per(&rule.per),
            wait: (!rule.wait.is_zero()).then(|| humantime::format_duration(rule.wait).to_string()),
            count_hits: rule.count_hits,
            scope: scope.as_str(),
            decisions: decisions.iter().map(|(decision, count)| (decision.as_str(), *count)).collect(),
            subjects: how_many(&rule.per, subjects),
            standing: Standing::of(first),
            fullest: each.into_iter().map(Standing::of).collect(),
        }
    }
}

impl Standing {
    fn of(subject: SubjectRate) -> Self {
        // To the hundredth.
        let used_percentage = (subject.used() * 10_000.0).floor() / 100.0;
        let SubjectRate { subject, quotas } = subject;
        Self { subject: whose(subject), used_percentage, rates: quotas.into_iter().map(Rate::of).collect() }
    }
}

impl Rate {
    fn of(Quota { unit, limit, period, remaining, reset }: Quota) -> Self {
        Self {
            unit: unit.as_str(),
            limit,
            period_seconds: period.map(|period| period.as_secs()),
            remaining,
            reset_seconds: reset.map(up_to_seconds),
        }
    }
}

/// Whole seconds, no fewer than it takes.
fn up_to_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Whose standing it is; `None` where all share it, and where nobody has any.
pub(super) fn whose(subject: Box<str>) -> Option<Box<str>> {
    Some(subject).filter(|subject| !subject.is_empty())
}

/// How many are held apart: one, where all share it.
pub(super) fn how_many(per: &Per, remembered: usize) -> usize {
    if per.is_everybody() { 1 } else { remembered }
}

/// What calls are held apart by; `None` where all share it.
pub(super) fn per(per: &Per) -> Option<String> {
    (!per.is_everybody()).then(|| per.to_string())
}

/// What a rule names of the calls it is for.
pub(super) fn matching(matching: &Matching) -> Value {
    let mut named = json!(matching);
    if let Some(members) = named.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    named
}
