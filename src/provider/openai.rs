//! OpenAI: the API of OpenAI and of everything that copies it. Which path is what, and how an error is worded.
//!
//! Its requests and replies are read in the rooms below. Knows what the copies do differently only where one rule
//! serves them all.

mod audio;
mod chat;
mod forms;
mod images;
mod plain;
pub(super) mod realtime;
mod request;
mod response_forms;
mod response_stop;
mod responses;
mod stop;
pub(super) mod turns;
mod usage;

use http::Method;
use http::header::AUTHORIZATION;
use serde_json::json;

use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{Events, Forms};
use crate::provider::stop::Stop;
use crate::provider::tree::{Json, Object};
use crate::provider::{CREDENTIAL_HEADERS, Dialect, Format, NamesModel, Problem, ReadReply, has_part, quotas};

/// Where the OpenAI API has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "/v1",
    endpoint,
    error,
    error_type: None,
    quotas: Some(&quotas::OPENAI_WORDS),
    names_model: NamesModel::Reply,
    credential: (AUTHORIZATION, "Bearer "),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: &[],
};

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked: request::asked,
    request_usage: Some(request::with_usage_requested),
    with_model: request::with_deployment,
    reader,
    stop,
    fail,
    key_headers: &["openai-beta", "openai-organization", "openai-project"],
    forms,
};

/// Paths by their ends, longer before shorter: gateways and Azure deployments put anything before them. Vendors of this
/// API offer Anthropic's beside it.
const ENDPOINTS: &[(&str, Endpoint)] = &[
    ("/agents/completions", Endpoint::ChatCompletions),
    ("/chat/completions", Endpoint::ChatCompletions),
    ("/completions", Endpoint::Completions),
    ("/responses", Endpoint::Responses),
    ("/responses/compact", Endpoint::ResponsesCompact),
    ("/responses/input_tokens", Endpoint::CountInput),
    ("/embeddings", Endpoint::Embeddings),
    ("/moderations", Endpoint::Moderations),
    ("/images/generations", Endpoint::Images),
    ("/images/edits", Endpoint::Images),
    ("/images/variations", Endpoint::Images),
    ("/audio/speech", Endpoint::Speech),
    ("/audio/transcriptions", Endpoint::Transcription),
    ("/audio/translations", Endpoint::Transcription),
    ("/decisions", Endpoint::Decisions),
    ("/ocr", Endpoint::Ocr),
    // In Anthropic's format: vLLM, llama.cpp, clouds and gateways offer both.
    ("/messages", Endpoint::Messages),
    ("/messages/count_tokens", Endpoint::CountMessages),
];

/// Whole paths: what servers that copy the API offer beside it, in formats of their own.
const NATIVE_ENDPOINTS: &[(&str, Endpoint)] = &[
    ("/generate", Endpoint::TgiGenerate),
    ("/generate_stream", Endpoint::TgiGenerateStream),
    ("/completion", Endpoint::LlamaCppCompletion),
];

/// Parts of the paths of what costs nothing by itself: a batch is billed for its lines, training by the hour.
const FREE: &[&str] = &[
    "assistants",
    "batches",
    "containers",
    "evals",
    "files",
    "fine_tuning",
    "organization",
    "threads",
    "uploads",
    "vector_stores",
];

pub(super) fn endpoint(method: &Method, path: &str) -> Endpoint {
    // Runs of threads ask a model; their messages, and all else of threads, do not.
    let is_free = || FREE.iter().any(|part| has_part(path, part)) && !has_part(path, "runs");
    let native = || NATIVE_ENDPOINTS.iter().find(|(whole, _)| path == *whole);
    let known = || native().or_else(|| ENDPOINTS.iter().find(|(end, _)| path.ends_with(end)));
    if method != Method::POST {
        return Endpoint::Other;
    }
    match known() {
        None | Some((_, Endpoint::Messages)) if is_free() => Endpoint::Free,
        Some((_, endpoint)) => *endpoint,
        None => Endpoint::Other,
    }
}

fn reader(endpoint: Endpoint) -> Box<dyn ReadReply> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => Box::<chat::Reply>::default(),
        Endpoint::Responses | Endpoint::ResponsesCompact => Box::<responses::Reply>::default(),
        Endpoint::Images => Box::<images::Reply>::default(),
        Endpoint::Speech | Endpoint::Transcription => Box::<audio::Reply>::default(),
        _ => Box::<plain::Reply>::default(),
    }
}

fn stop(endpoint: Endpoint) -> Option<Box<dyn Stop>> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => Some(Box::<stop::Notes>::default()),
        Endpoint::Responses => Some(Box::<response_stop::Notes>::default()),
        _ => None,
    }
}

fn forms(endpoint: Endpoint) -> Option<&'static Forms> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => Some(&forms::FORMS),
        Endpoint::Responses => Some(&response_forms::FORMS),
        _ => None,
    }
}

/// An error within a stream: SDKs raise it for its member `error`. Responses have a kind of event for it besides.
fn fail(endpoint: Endpoint, problem: &Problem<'_>, out: &mut Events) -> Option<()> {
    let error = Object::read(&error(problem))?;
    if endpoint != Endpoint::Responses {
        return out.push("", &error);
    }
    let event = Object::new().with("type", "error").with("code", problem.code).with("message", problem.message);
    out.push("error", &event.with("param", Json::null()).with_all(error))
}

pub(super) fn error(problem: &Problem<'_>) -> Vec<u8> {
    let kind = match problem.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 if problem.code == quotas::INSUFFICIENT_QUOTA => quotas::INSUFFICIENT_QUOTA,
        429 => quotas::RATE_LIMIT_EXCEEDED,
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
            ("/v1/images/generations", Endpoint::Images),
            ("/v1/images/edits", Endpoint::Images),
            ("/v1/images", Endpoint::Other),
            ("/openai/deployments/tts/audio/speech", Endpoint::Speech),
            ("/v1/audio/translations", Endpoint::Transcription),
            ("/v1/fim/completions", Endpoint::Completions),
            ("/v1/agents/completions", Endpoint::ChatCompletions),
            ("/v1/ocr", Endpoint::Ocr),
            ("/v1/decisions", Endpoint::Decisions),
            ("/anthropic/v1/messages", Endpoint::Messages),
            ("/v1/messages/count_tokens", Endpoint::CountMessages),
            ("/v1/messages/batches", Endpoint::Free),
            ("/v1/files", Endpoint::Free),
            ("/v1/uploads/upload_1/parts", Endpoint::Free),
            ("/v1/batches/batch_1/cancel", Endpoint::Free),
            ("/openai/batches", Endpoint::Free),
            ("/v1/vector_stores/vs_1/search", Endpoint::Free),
            ("/v1/fine_tuning/jobs", Endpoint::Free),
            ("/v1/threads/thread_1/messages", Endpoint::Free),
            ("/v1/threads", Endpoint::Free),
            ("/v1/threads/runs", Endpoint::Other),
            ("/v1/threads/thread_1/runs", Endpoint::Other),
            ("/hf-inference/models/a/b", Endpoint::Other),
            ("/v1/profiles", Endpoint::Other),
            ("/v1/filesystem", Endpoint::Other),
            ("/v1/videos", Endpoint::Other),
            ("/v1/autocompletions", Endpoint::Other),
            ("/v1/messages", Endpoint::Messages),
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
            let problem =
                Problem { status, code: "a_code", message: "say \"why\"", request_id: "1", retry_after: None };
            let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
            let expected = json!({"error": {"message": "say \"why\"", "type": kind, "param": null, "code": "a_code"}});
            assert_eq!(body, expected);
        }
        let status = StatusCode::TOO_MANY_REQUESTS;
        let code = quotas::INSUFFICIENT_QUOTA;
        let problem = Problem { status, code, message: "", request_id: "1", retry_after: None };
        let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
        assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!(code), &json!(code)), "money is spent");
    }
}
