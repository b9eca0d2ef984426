//! Content: what was said in one call, where that is kept. For those alone who may change things, and noted.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::access::Operator;
use crate::admin::analytics::asked::moment;
use crate::admin::cache::answer;
use crate::admin::openapi::ToAsk;
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::content::Kept;

/// What was said in a call, as far as it is kept (`privacy.capture`). Needs a token with the role `admin`.
///
/// That it was read is in the audit.
#[utoipa::path(
    get,
    path = "/api/v1/analytics/content",
    tag = "content",
    operation_id = "analytics_content",
    params(("timestamp" = String, Query, description = "The `timestamp` of the call, as logs and exports show it.")),
    responses((status = 200, body = Said), ToAsk),
    security(("token" = []))
)]
pub(super) async fn of_call(
    operator: Operator,
    mut parameters: Parameters,
    State(admin): State<Admin>,
) -> Result<Response, Problem> {
    let is_named = parameters.has("timestamp");
    let call = parameters.parsed("timestamp", "write the `timestamp` of a call, as logs and exports show it", moment);
    if !is_named {
        parameters.fault("timestamp", "is missing: write that of the call, as logs and exports show it");
    }
    parameters.end()?;
    let call = call.expect("what could not be read is a fault");
    let Some(kept) = admin.ledger.ask(move |ledger| ledger.content(call)).await? else {
        let detail = "nothing is kept of what was said in a call that was over then: `privacy.capture` says what is";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    admin.ledger.note(&operator.token, "read_content", json!({ "call": call })).await?;
    Ok(answer(StatusCode::OK, &Said::of(kept)))
}

/// What was said. What is no text is told in Base64.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Said {
    /// What the app asked.
    #[schema(required)]
    request: Option<String>,
    /// The same, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_base64: Option<String>,
    /// What it was answered; of a stream, its text.
    #[schema(required)]
    response: Option<String>,
    /// The same, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_base64: Option<String>,
}

impl Said {
    fn of(kept: Kept) -> Self {
        let (request, request_base64) = told(kept.request);
        let (response, response_base64) = told(kept.response);
        Self { request, request_base64, response, response_base64 }
    }
}

fn told(said: Option<Vec<u8>>) -> (Option<String>, Option<String>) {
    match said.map(String::from_utf8) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(bytes)) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_told_in_base64() {
        let said = Said::of(Kept { request: Some(b"hello".to_vec()), response: Some(vec![0xff, 0]) });
        let said = serde_json::to_value(said).expect("JSON");
        assert_eq!(said, json!({ "request": "hello", "response": null, "response_base64": "/wA=" }));
    }
}
