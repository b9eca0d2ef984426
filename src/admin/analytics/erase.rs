//! Erase: takes a person out of the ledger, on behalf of whoever may change things. The money stays.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::access::Operator;
use crate::admin::analytics::asked::either;
use crate::admin::analytics::{AGAIN_IN, switched_off};
use crate::admin::cache::answer;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::admin::{Admin, audit};
use crate::ledger::erase::Erased;
use crate::ledger::writer::Refused;

/// Takes every trace of a user from the ledger, but for what their calls cost. Needs a token with the role `admin`.
///
/// Their rows say no longer who asked, in which run, from where, or what was said; sums stay what they were. Whom it was is
/// not kept either: the audit says that somebody was erased.
#[utoipa::path(
    delete,
    path = "/api/v1/analytics/logs",
    tag = "analytics",
    operation_id = "analytics_erase",
    params(("user" = String, Query, description = "Whom, as the app calls them or as the ledger does. `user_id` means the same.")),
    responses((status = 200, body = Gone), ToAsk),
    security(("token" = []))
)]
pub(super) async fn user(
    operator: Operator,
    mut parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let is_named = parameters.has("user") || parameters.has("user_id");
    let user = either(&mut parameters, "user", "user_id");
    if !is_named {
        parameters.fault("user", "is missing: write whom to erase");
    }
    parameters.end()?;
    let user = user.expect("what could not be read is a fault");
    let ledger = admin.ledger.ledger.as_ref().ok_or_else(switched_off)?;
    let mut gone = Gone { erased_calls: 0, erased_contents: 0, is_swept: true };
    for name in admin.privacy.names_of_user(&user) {
        let Erased { calls, contents, is_swept } = ledger.erase_user(&name, &operator.token).await.map_err(told)?;
        gone.erased_calls += calls;
        gone.erased_contents += contents;
        gone.is_swept &= is_swept;
    }
    audit::user_erased(&operator, gone.erased_calls);
    Ok(answer(StatusCode::OK, &gone))
}

/// What was erased. Nothing, if there was nobody of that name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erased)]
struct Gone {
    /// Calls that say no longer who asked.
    erased_calls: u64,
    /// Calls of which what was said is gone.
    erased_contents: u64,
    /// Whether the bytes are gone from the files, too. If not, somebody was reading: ask again.
    is_swept: bool,
}

/// Why nothing was erased. What the database says is for the operator's log.
fn told(refused: Refused) -> Problem {
    if matches!(refused, Refused::Failed(_)) {
        tracing::warn!(error.message = format!("{:#}", anyhow::Error::new(refused)), "nobody could be erased");
        return Problem::later(AGAIN_IN, "nothing was erased: weir's log says why");
    }
    Problem::later(AGAIN_IN, format!("nothing was erased: {refused}; ask again in a second"))
}
