//! OpenAI: the API of OpenAI and of everything that copies it. Which path is what, and how an error is worded.
//!
//! Its requests and replies are read in the rooms below. Knows what the copies do differently only where one rule
//! serves them all.

mod chat;
mod plain;
pub(super) mod realtime;
mod request;
mod responses;
pub(super) mod turns;
mod usage;

use http::Method;
use http::header::AUTHORIZATION;
use serde_json::json;

use crate::provider::{CREDENTIAL_HEADERS, Dialect, Endpoint, Format, NamesModel, Problem, ReadReply};

/// Where the OpenAI API has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "/v1",
    endpoint,
    error,
    error_type: None,
    names_model: NamesModel::Reply,
    credential: (AUTHORIZATION, "Bearer "),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: &[],
};

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked: request::asked,
    request_usage: Some(request::with_usage_requested),
    reader,
    key_headers: &["openai-beta", "openai-organization", "openai-project"],
};

/// Paths by their ends, longer before shorter: gateways and Azure deployments put anything before them.
const ENDPOINTS: &[(&str, Endpoint)] = &[
    ("/chat/completions", Endpoint::ChatCompletions),
    ("/completions", Endpoint::Completions),
    ("/responses", Endpoint::Responses),
    ("/responses/compact", Endpoint::ResponsesCompact),
    ("/responses/input_tokens", Endpoint::CountInput),
    ("/embeddings", Endpoint::Embeddings),
    ("/moderations", Endpoint::Moderations),
    // In Anthropic's format: vLLM, llama.cpp and gateways offer both. OpenAI's threads have messages as well.
    ("/v1/messages", Endpoint::Messages),
    ("/v1/messages/count_tokens", Endpoint::CountMessages),
];

/// Whole paths: what servers that copy the API offer beside it, in formats of their own.
const NATIVE_ENDPOINTS: &[(&str, Endpoint)] = &[
    ("/generate", Endpoint::TgiGenerate),
    ("/generate_stream", Endpoint::TgiGenerateStream),
    ("/completion", Endpoint::LlamaCppCompletion),
];

fn endpoint(method: &Method, path: &str) -> Endpoint {
    if method != Method::POST {
        return Endpoint::Other;
    }
    let native = NATIVE_ENDPOINTS.iter().find(|(whole, _)| path == *whole);
    let known = native.or_else(|| ENDPOINTS.iter().find(|(end, _)| path.ends_with(end)));
    known.map_or(Endpoint::Other, |(_, endpoint)| *endpoint)
}

fn reader(endpoint: Endpoint) -> Box<dyn ReadReply> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => Box::<chat::Reply>::default(),
        Endpoint::Responses | Endpoint::ResponsesCompact => Box::<responses::Reply>::default(),
        _ => Box::<plain::Reply>::default(),
    }
}

fn error(problem: &Problem<'_>) -> Vec<u8> {
    let kind = match problem.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let error = json!({ "message": problem.message, "type": kind, "param": null, "code": problem.code });
    json!({ "error": error }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_endpoint_is_a_post_to_a_path_with_a_known_end() {
        for (path, expected) in [
            ("/v1/chat/completions", Endpoint::ChatCompletions),
            ("/openai/deployments/prod/chat/completions", Endpoint::ChatCompletions),
            ("/chat/completions", Endpoint::ChatCompletions),
            ("/v1/chat/completions/chatcmpl-1", Endpoint::Other),
            ("/v1/completions", Endpoint::Completions),
            ("/v1/responses", Endpoint::Responses),
            ("/v1/responses/compact", Endpoint::ResponsesCompact),
            ("/v1/responses/input_tokens", Endpoint::CountInput),
            ("/v1/responses/resp_1/cancel", Endpoint::Other),
            ("/v1/embeddings", Endpoint::Embeddings),
            ("/v1/moderations", Endpoint::Moderations),
            ("/v1/images/generations", Endpoint::Other),
            ("/v1/autocompletions", Endpoint::Other),
            ("/v1/messages", Endpoint::Messages),
            ("/v1/messages/count_tokens", Endpoint::CountMessages),
            ("/v1/threads/thread_1/messages", Endpoint::Other),
            ("/generate", Endpoint::TgiGenerate),
            ("/generate_stream", Endpoint::TgiGenerateStream),
            ("/completion", Endpoint::LlamaCppCompletion),
            ("/api/generate", Endpoint::Other),
            ("/", Endpoint::Other),
        ] {
            assert_eq!(endpoint(&Method::POST, path), expected, "{path}");
            assert_eq!(endpoint(&Method::GET, path), Endpoint::Other, "GET {path}");
        }
    }

    #[test]
    fn errors_have_the_shape_and_the_types_of_the_api() {
        for (status, kind) in [
            (StatusCode::BAD_REQUEST, "invalid_request_error"),
            (StatusCode::UNAUTHORIZED, "authentication_error"),
            (StatusCode::NOT_FOUND, "not_found_error"),
            (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error"),
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            (StatusCode::BAD_GATEWAY, "server_error"),
            (StatusCode::GATEWAY_TIMEOUT, "server_error"),
        ] {
            let problem = Problem { status, code: "a_code", message: "say \"why\"", request_id: "1" };
            let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
            let expected = json!({"error": {"message": "say \"why\"", "type": kind, "param": null, "code": "a_code"}});
            assert_eq!(body, expected);
        }
    }
}
