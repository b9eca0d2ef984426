//! Audit: who took, changed or erased what, as the ledger keeps it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::access::Operator;
use crate::admin::analytics::asked::{Limit, Next, cursor, cursor_after, limit};
use crate::admin::analytics::shown::At;
use crate::admin::cache::answer;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::page::Deed;

/// Pages without a `limit` have so many deeds.
const USUAL: usize = 20;
/// What cursors of this list are told by.
const KIND: &str = "audit";

/// Who took, changed or erased what, the last first. Needs a token with the role `admin`.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    operation_id = "audit_list",
    params(Limit, Next),
    responses((status = 200, body = Deeds), ToAsk),
    security(("token" = []))
)]
pub(super) async fn list(
    _: Operator,
    mut parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let (before, most) = (cursor(&mut parameters, KIND), limit(&mut parameters, USUAL).get());
    parameters.end()?;
    // One more tells whether there is a next page.
    let mut deeds = admin.ledger.ask(move |ledger| ledger.audit(before, most + 1)).await?;
    let has_more = deeds.len() > most;
    deeds.truncate(most);
    let next_cursor = deeds.last().filter(|_| has_more).map(|last| cursor_after(KIND, last.id));
    let deeds = Deeds { audit: deeds.into_iter().map(Shown::of).collect(), next_cursor };
    Ok(answer(StatusCode::OK, &deeds))
}

/// A page of deeds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
struct Deeds {
    /// The last first.
    audit: Vec<Shown>,
    /// `cursor` of the next page; `null` after the last.
    next_cursor: Option<String>,
}

/// What somebody did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deed)]
struct Shown {
    /// When.
    timestamp: At,
    /// Who: the name of a token, or where they were.
    who: Box<str>,
    /// What.
    action: Box<str>,
    /// What there is to say of it.
    #[schema(value_type = Object)]
    detail: Box<RawValue>,
}

impl Shown {
    fn of(Deed { at, who, action, detail, .. }: Deed) -> Self {
        let detail = RawValue::from_string(detail.into()).unwrap_or_default();
        Self { timestamp: At(at), who, action, detail }
    }
}
