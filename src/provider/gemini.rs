//! Gemini: the API of Google's own models, as the Gemini API and Vertex AI both speak it. Which path is what, and how
//! an error is worded.
//!
//! A path names the model and, after a colon, the method; the method says whether the reply is streamed. Its requests
//! and replies are read in the rooms below.

mod forms;
mod interactions;
mod plain;
mod reply;
mod request;
mod stop;
mod usage;

use http::{HeaderName, Method};
use serde_json::json;

pub(super) use self::request::{model_in, with_model};
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Forms;
use crate::provider::tree::Object;
use crate::provider::{CREDENTIAL_HEADERS, Dialect, Format, NamesModel, Problem, ReadReply, openai};

/// Where the Gemini API has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "/v1beta",
    endpoint,
    error,
    error_type: None,
    quotas: None,
    names_model: NamesModel::Reply,
    credential: (HeaderName::from_static("x-goog-api-key"), ""),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: CREDENTIAL_QUERIES,
};

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked: request::asked,
    request_usage: None,
    with_model,
    reader,
    stop: stop::notes,
    fail: |endpoint, problem, out| {
        let error = Object::read(&error(problem))?;
        match endpoint {
            Endpoint::Interactions => out.push("error", &error.with("event_type", "error")),
            _ => out.push("", &error),
        }
    },
    key_headers: &[],
    forms,
};

/// In Google's APIs a key, or a token, may travel in the query.
pub(super) const CREDENTIAL_QUERIES: &[&str] = &["key", "access_token"];

/// Methods by the ends of their paths.
const METHODS: &[(&str, Endpoint)] = &[
    (":generateContent", Endpoint::GenerateContent),
    (":streamGenerateContent", Endpoint::StreamGenerateContent),
    (":countTokens", Endpoint::CountContent),
    (":embedContent", Endpoint::EmbedContent),
    (":batchEmbedContents", Endpoint::EmbedContent),
];

fn endpoint(method: &Method, path: &str) -> Endpoint {
    if path.contains("/openai/") {
        return (openai::DIALECT.endpoint)(method, path);
    }
    if method == Method::POST && path.ends_with("/interactions") {
        return Endpoint::Interactions;
    }
    method_at(method, path)
}

/// Which of the methods that generate, embed or count a path calls.
pub(super) fn method_at(method: &Method, path: &str) -> Endpoint {
    let known = METHODS.iter().find(|(end, _)| method == Method::POST && path.ends_with(end));
    known.map_or(Endpoint::Other, |(_, endpoint)| *endpoint)
}

fn reader(endpoint: Endpoint) -> Box<dyn ReadReply> {
    match endpoint {
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => Box::<reply::Reply>::default(),
        Endpoint::Interactions => Box::<interactions::Reply>::default(),
        _ => Box::<plain::Reply>::default(),
    }
}

fn forms(endpoint: Endpoint) -> Option<&'static Forms> {
    matches!(endpoint, Endpoint::GenerateContent | Endpoint::StreamGenerateContent).then_some(&forms::FORMS)
}

/// Google's model of errors, `google.rpc.Status` (<https://google.aip.dev/193>).
pub(super) fn error(problem: &Problem<'_>) -> Vec<u8> {
    let status = match problem.status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        502 | 503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": problem.code.to_ascii_uppercase(),
        "domain": "weir",
        "metadata": { "request_id": problem.request_id },
    });
    let retry = problem.retry_after.map(|wait| {
        let delay = format!("{}s", wait.as_secs_f64());
        json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay })
    });
    let details: Vec<_> = [info].into_iter().chain(retry).collect();
    let code = problem.status.as_u16();
    let error = json!({ "code": code, "message": problem.message, "status": status, "details": details });
    json!({ "error": error }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    #[test]
    fn an_endpoint_is_a_post_to_a_path_with_a_known_method() {
        for (path, expected) in [
            ("/v1beta/models/gemini-2.5-flash:generateContent", Endpoint::GenerateContent),
            ("/v1/models/gemini-2.5-flash:streamGenerateContent", Endpoint::StreamGenerateContent),
            ("/v1beta/tunedModels/mine:generateContent", Endpoint::GenerateContent),
            ("/v1beta/models/gemini-2.5-flash:countTokens", Endpoint::CountContent),
            ("/v1beta/models/gemini-embedding-001:embedContent", Endpoint::EmbedContent),
            ("/v1beta/models/gemini-embedding-001:batchEmbedContents", Endpoint::EmbedContent),
            ("/v1beta/models/imagen-4:predict", Endpoint::Other),
            ("/v1beta/models/gemini-2.5-flash:batchGenerateContent", Endpoint::Other),
            ("/v1beta/interactions", Endpoint::Interactions),
            ("/v1beta/interactions/abc/cancel", Endpoint::Other),
            ("/v1beta/openai/chat/completions", Endpoint::ChatCompletions),
            ("/v1beta/openai/embeddings", Endpoint::Embeddings),
            ("/v1beta/openai/models", Endpoint::Other),
            ("/v1beta/chat/completions", Endpoint::Other),
            ("/upload/v1beta/files", Endpoint::Other),
        ] {
            assert_eq!(endpoint(&Method::POST, path), expected, "{path}");
            assert_eq!(endpoint(&Method::GET, path), Endpoint::Other, "GET {path}");
        }
    }

    #[test]
    fn errors_have_the_shape_and_the_states_of_the_api() {
        for (status, state) in [
            (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            (StatusCode::NOT_FOUND, "NOT_FOUND"),
            (StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT"),
            (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
            (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
            (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
        ] {
            let problem =
                Problem { status, code: "a_code", message: "say \"why\"", request_id: "1", retry_after: None };
            let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
            let details = json!([{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "A_CODE",
                "domain": "weir",
                "metadata": {"request_id": "1"},
            }]);
            let code = status.as_u16();
            let error = json!({"code": code, "message": "say \"why\"", "status": state, "details": details});
            assert_eq!(body, json!({ "error": error }));
        }
    }

    #[test]
    fn an_error_says_when_to_try_again() {
        let problem = Problem {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: "a_code",
            message: "",
            request_id: "1",
            retry_after: Some(Duration::from_millis(6_400)),
        };
        let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
        let expected = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "6.4s"});
        assert_eq!(body["error"]["details"][1], expected);
    }
}
