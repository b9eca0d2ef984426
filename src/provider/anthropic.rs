//! Anthropic: the Messages API. What its requests ask, and how its errors are worded.

pub(super) mod forms;
mod reply;
pub(super) mod stop;

use http::{HeaderName, Method};
use serde_json::json;
use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::stop::Stop;
use crate::provider::tree::Object;
use crate::provider::{
    Asked, CREDENTIAL_HEADERS, Dialect, Format, NamesModel, Problem, Request, Reuse, has_part, is_given, quotas,
    refers_outside, text,
};

/// Where the Anthropic API has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "/v1",
    endpoint,
    error,
    error_type: None,
    quotas: Some(&quotas::ANTHROPIC_WORDS),
    names_model: NamesModel::Reply,
    credential: (HeaderName::from_static("x-api-key"), ""),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: &[],
};

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked,
    request_usage: None,
    with_model: |_, _| None,
    reader: |endpoint| reply::reader(endpoint),
    stop: |endpoint| (endpoint == Endpoint::Messages).then(|| Box::<stop::Notes>::default() as Box<dyn Stop>),
    fail: |_, problem, out| out.push("error", &Object::read(&error(problem))?),
    key_headers: &["anthropic-beta", "anthropic-version"],
    forms: |endpoint| (endpoint == Endpoint::Messages).then_some(&forms::FORMS),
};

/// Parts of a request that do not change the answer. `cache_control` is about billing only, wherever the API takes it:
/// a block of a tool's result and of a document may have one as well.
const IGNORED: &[&str] = &[
    "cache_control",
    "diagnostics",
    "inference_geo",
    "messages[].content[].cache_control",
    "messages[].content[].content[].cache_control",
    "messages[].content[].source.content[].cache_control",
    "metadata",
    "service_tier",
    "speed",
    "system[].cache_control",
    "tools[].cache_control",
];

/// Fields that tie a message to state or services of the provider.
const KEPT_STATE: &[&str] = &["container", "thread", "fallbacks", "fallback_credit_token", "mcp_servers"];

/// How the types of tools begin that the app runs itself, though Anthropic defines them.
const APP_TOOLS: &[&str] = &["custom", "bash_20", "text_editor_", "memory_"];

/// Parts of the paths of what costs nothing by itself: a batch is billed for its lines.
const FREE: &[&str] = &["batches", "files"];

fn endpoint(method: &Method, path: &str) -> Endpoint {
    if method != Method::POST {
        Endpoint::Other
    } else if path.ends_with("/messages") {
        Endpoint::Messages
    } else if path.ends_with("/messages/count_tokens") {
        Endpoint::CountMessages
    } else if FREE.iter().any(|part| has_part(path, part)) {
        Endpoint::Free
    } else {
        Endpoint::Other
    }
}

fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    let Request { endpoint, body, .. } = *request;
    Asked { user: text(body.get("metadata").get("user_id")), ..request.asks(reuse(endpoint, body)) }
}

/// Whether the answer may serve another, equal request.
fn reuse(endpoint: Endpoint, body: &Value<'_>) -> Reuse {
    let uses_state = KEPT_STATE.iter().any(|field| is_given(body.get(*field)));
    // A request for no output warms the provider's cache: it is made for its side effect.
    let warms_cache = body.get("max_tokens").as_u64() == Some(0);
    let known = matches!(endpoint, Endpoint::Messages | Endpoint::CountMessages);
    if !known || uses_state || warms_cache || !all_tools_are_the_apps(body) || refers_outside(body) {
        Reuse::Never
    } else {
        Reuse::Allowed(IGNORED)
    }
}

/// Whether every tool is one that the app runs itself. Any other type, known or not, is taken for one that runs at the
/// provider.
fn all_tools_are_the_apps(body: &Value<'_>) -> bool {
    match body.get("tools") {
        Value::Null => true,
        Value::Array(tools) => tools.iter().all(|tool| match tool.get("type") {
            Value::Null => true,
            kind => kind.as_str().is_some_and(|kind| APP_TOOLS.iter().any(|start| kind.starts_with(start))),
        }),
        _ => false,
    }
}

fn error(problem: &Problem<'_>) -> Vec<u8> {
    let kind = match problem.status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let details = json!({ "error_code": problem.code });
    let error = json!({ "type": kind, "message": problem.message, "details": details });
    json!({ "type": "error", "error": error, "request_id": problem.request_id }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::record::call::Delivery;

    #[test]
    fn an_endpoint_is_a_post_to_a_path_with_a_known_end() {
        for (path, expected) in [
            ("/v1/messages", Endpoint::Messages),
            ("/messages", Endpoint::Messages),
            ("/anthropic/v1/messages", Endpoint::Messages),
            ("/v1/messages/count_tokens", Endpoint::CountMessages),
            ("/v1/messages/batches", Endpoint::Free),
            ("/v1/messages/batches/msgbatch_1/cancel", Endpoint::Free),
            ("/v1/files", Endpoint::Free),
            ("/v1/models", Endpoint::Other),
            ("/v1/complete", Endpoint::Other),
        ] {
            assert_eq!(endpoint(&Method::POST, path), expected, "{path}");
            assert_eq!(endpoint(&Method::GET, path), Endpoint::Other, "GET {path}");
        }
    }

    #[test]
    fn answers_that_use_state_or_live_data_are_never_reused() {
        for (body, reusable) in [
            (r#"{"max_tokens":1}"#, true),
            (r#"{"max_tokens":0}"#, false),
            (r#"{"container":"c"}"#, false),
            (r#"{"container":null,"mcp_servers":[]}"#, true),
            (r#"{"mcp_servers":[{"url":"https://example.com"}]}"#, false),
            (r#"{"fallbacks":[{"model":"b"}]}"#, false),
            (r#"{"tools":[{"name":"a","input_schema":{}},{"type":"custom","name":"b"}]}"#, true),
            (r#"{"tools":[{"type":"bash_20250124","name":"bash"}]}"#, true),
            (r#"{"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#, false),
            (r#"{"tools":[{"type":"bash_code_execution_20250825"}]}"#, false),
            (r#"{"tools":[{"type":"mcp_toolset"}]}"#, false),
            (r#"{"tools":[{"type":"computer_20250124"}]}"#, false),
            ("[]", false),
        ] {
            let expected = if reusable { Reuse::Allowed(IGNORED) } else { Reuse::Never };
            let value = serde_json::from_str(body).expect("JSON");
            assert_eq!(asked(&Request::of(Endpoint::Messages, &value)).reuse, expected, "{body}");
            assert_eq!(asked(&Request::of(Endpoint::Other, &value)).reuse, Reuse::Never);
        }
    }

    #[test]
    fn the_user_is_in_the_metadata() {
        let body = serde_json::from_str(r#"{"model":"m","stream":true,"metadata":{"user_id":"u"}}"#).expect("JSON");
        let asked = asked(&Request::of(Endpoint::Messages, &body));
        assert_eq!((asked.model.as_deref(), asked.user, asked.delivery), (Some("m"), Some("u"), Delivery::Stream));
    }

    #[test]
    fn errors_have_the_shape_and_the_types_of_the_api() {
        for (status, kind) in [
            (StatusCode::BAD_REQUEST, "invalid_request_error"),
            (StatusCode::NOT_FOUND, "not_found_error"),
            (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
            (StatusCode::BAD_GATEWAY, "api_error"),
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded_error"),
            (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        ] {
            let problem =
                Problem { status, code: "a_code", message: "say \"why\"", request_id: "1", retry_after: None };
            let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
            let error = json!({"type": kind, "message": "say \"why\"", "details": {"error_code": "a_code"}});
            assert_eq!(body, json!({"type": "error", "error": error, "request_id": "1"}));
        }
    }
}
