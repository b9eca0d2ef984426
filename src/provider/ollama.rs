//! Ollama: its own API. Which path is what, what its requests ask, and how its errors are worded.
//!
//! It streams unless told not to. What it offers under `/v1` reads as OpenAI's and Anthropic's.

mod forms;
mod reply;
mod stop;

use http::Method;
use http::header::AUTHORIZATION;
use serde_json::json;
use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Forms;
use crate::provider::tree::Object;
use crate::provider::{
    Asked, CREDENTIAL_HEADERS, Dialect, Format, NamesModel, Problem, Request, Reuse, anthropic, openai, text,
};
use crate::record::call::Delivery;

/// Where Ollama has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "/v1",
    endpoint,
    error,
    error_type: None,
    quotas: None,
    names_model: NamesModel::Reply,
    credential: (AUTHORIZATION, "Bearer "),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: &[],
};

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked,
    request_usage: None,
    with_model: |_, _| None,
    reader: |endpoint| reply::reader(endpoint),
    stop: stop::notes,
    fail: |_, problem, out| out.push("", &Object::read(&error(problem))?),
    key_headers: &[],
    forms,
};

/// Paths of its own by their ends. The others below `/api` manage models.
const ENDPOINTS: &[(&str, Endpoint)] = &[
    ("/api/chat", Endpoint::OllamaChat),
    ("/api/generate", Endpoint::OllamaGenerate),
    ("/api/embed", Endpoint::OllamaEmbed),
    ("/api/embeddings", Endpoint::OllamaEmbed),
];

/// Fields of a request that do not change the answer.
const IGNORED: &[&str] = &["keep_alive"];

fn endpoint(method: &Method, path: &str) -> Endpoint {
    if let Some((_, known)) = ENDPOINTS.iter().find(|(end, _)| method == Method::POST && path.ends_with(end)) {
        return *known;
    }
    match (anthropic::DIALECT.endpoint)(method, path) {
        Endpoint::Other => (openai::DIALECT.endpoint)(method, path),
        known => known,
    }
}

fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    let Request { endpoint, body, .. } = *request;
    let streams = endpoint != Endpoint::OllamaEmbed && body.get("stream").as_bool() != Some(false);
    let reuse = if only_loads(endpoint, body) { Reuse::Never } else { Reuse::Allowed(IGNORED) };
    Asked { delivery: if streams { Delivery::Stream } else { Delivery::Whole }, ..request.asks(reuse) }
}

/// Whether a request asks for nothing but that the model be loaded, or put away.
fn only_loads(endpoint: Endpoint, body: &Value<'_>) -> bool {
    match endpoint {
        Endpoint::OllamaChat => body.get("messages").as_array().is_none_or(<[_]>::is_empty),
        Endpoint::OllamaGenerate => text(body.get("prompt")).is_none(),
        _ => false,
    }
}

fn forms(endpoint: Endpoint) -> Option<&'static Forms> {
    matches!(endpoint, Endpoint::OllamaChat | Endpoint::OllamaGenerate).then_some(&forms::FORMS)
}

fn error(problem: &Problem<'_>) -> Vec<u8> {
    json!({ "error": problem.message }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_endpoint_is_a_post_to_a_path_of_one_of_its_three_apis() {
        for (path, expected) in [
            ("/api/chat", Endpoint::OllamaChat),
            ("/api/generate", Endpoint::OllamaGenerate),
            ("/api/embed", Endpoint::OllamaEmbed),
            ("/api/embeddings", Endpoint::OllamaEmbed),
            ("/api/pull", Endpoint::Other),
            ("/api/show", Endpoint::Other),
            ("/api/create", Endpoint::Other),
            ("/v1/chat/completions", Endpoint::ChatCompletions),
            ("/v1/completions", Endpoint::Completions),
            ("/v1/embeddings", Endpoint::Embeddings),
            ("/v1/responses", Endpoint::Responses),
            ("/v1/messages", Endpoint::Messages),
        ] {
            assert_eq!(endpoint(&Method::POST, path), expected, "{path}");
            assert_eq!(endpoint(&Method::GET, path), Endpoint::Other, "GET {path}");
        }
    }

    #[test]
    fn it_streams_unless_told_not_to() {
        for (endpoint, body, expected) in [
            (Endpoint::OllamaChat, "{}", Delivery::Stream),
            (Endpoint::OllamaChat, r#"{"stream":null}"#, Delivery::Stream),
            (Endpoint::OllamaGenerate, r#"{"stream":true}"#, Delivery::Stream),
            (Endpoint::OllamaGenerate, r#"{"stream":false}"#, Delivery::Whole),
            (Endpoint::OllamaEmbed, "{}", Delivery::Whole),
        ] {
            let value = serde_json::from_str(body).expect("JSON");
            assert_eq!(asked(&Request::of(endpoint, &value)).delivery, expected, "{endpoint:?} {body}");
        }
    }

    #[test]
    fn what_only_loads_a_model_is_never_reused() {
        for (endpoint, body, reusable) in [
            (Endpoint::OllamaChat, r#"{"messages":[{"role":"user","content":"a"}],"keep_alive":"5m"}"#, true),
            (Endpoint::OllamaChat, r#"{"messages":[]}"#, false),
            (Endpoint::OllamaChat, r#"{"keep_alive":0}"#, false),
            (Endpoint::OllamaGenerate, r#"{"prompt":"a","context":[1,2]}"#, true),
            (Endpoint::OllamaGenerate, r#"{"prompt":""}"#, false),
            (Endpoint::OllamaEmbed, r#"{"input":"a"}"#, true),
            (Endpoint::OllamaEmbed, "[]", false),
        ] {
            let expected = if reusable { Reuse::Allowed(IGNORED) } else { Reuse::Never };
            let value = serde_json::from_str(body).expect("JSON");
            assert_eq!(asked(&Request::of(endpoint, &value)).reuse, expected, "{endpoint:?} {body}");
        }
    }

    #[test]
    fn errors_have_the_shape_of_the_api() {
        let problem = Problem {
            status: StatusCode::BAD_GATEWAY,
            code: "a",
            message: "say \"why\"",
            request_id: "1",
            retry_after: None,
        };
        let body: serde_json::Value = serde_json::from_slice(&error(&problem)).expect("JSON");
        assert_eq!(body, json!({"error": "say \"why\""}));
    }
}
