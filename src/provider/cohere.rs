//! Cohere: both versions of its API. Which path is what, what its requests ask, and how its errors are worded.
//!
//! What it offers under `/compatibility/v1` reads as OpenAI's.

mod chat;
mod chat_v1;
mod forms;
mod plain;
mod stop;
mod usage;

use http::Method;
use http::header::AUTHORIZATION;
use serde_json::json;
use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Forms;
use crate::provider::{
    Asked, CREDENTIAL_HEADERS, Dialect, Ending, Format, NamesModel, Problem, ReadReply, Request, Reuse, is_given,
    openai, refers_outside,
};

/// Where the Cohere API has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "",
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
    reader,
    stop: stop::notes,
    fail: stop::fail,
    key_headers: &[],
    forms,
};

/// Paths by their ends.
const ENDPOINTS: &[(&str, Endpoint)] = &[
    ("/v2/chat", Endpoint::CohereChat),
    ("/v1/chat", Endpoint::CohereChatV1),
    ("/v1/generate", Endpoint::CohereGenerate),
    ("/v2/embed", Endpoint::CohereEmbed),
    ("/v1/embed", Endpoint::CohereEmbed),
    ("/v2/rerank", Endpoint::CohereRerank),
    ("/v1/rerank", Endpoint::CohereRerank),
    ("/v1/classify", Endpoint::CohereClassify),
    ("/v1/tokenize", Endpoint::CohereTokenize),
];

/// Where its endpoints in OpenAI's format are.
const COMPATIBILITY: &str = "/compatibility/";

/// Fields of a request that do not change the answer.
const IGNORED: &[&str] = &["priority"];

/// Fields of the first version that make an answer depend on kept state or live data.
const STATE_OR_LIVE: &[&str] = &["conversation_id", "connectors"];

/// Fields that may hold pictures by their address. (Documents may hold addresses too, but those are only read.)
const MAY_REFER: &[&str] = &["messages", "inputs"];

fn endpoint(method: &Method, path: &str) -> Endpoint {
    if path.contains(COMPATIBILITY) {
        return (openai::DIALECT.endpoint)(method, path);
    }
    let known = ENDPOINTS.iter().find(|(end, _)| method == Method::POST && path.ends_with(end));
    known.map_or(Endpoint::Other, |(_, endpoint)| *endpoint)
}

fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    request.asks(reuse(request.body))
}

/// Whether the answer may serve another, equal request.
fn reuse(body: &Value<'_>) -> Reuse {
    let depends = STATE_OR_LIVE.iter().any(|field| is_given(body.get(*field)));
    let refers = MAY_REFER.iter().any(|field| refers_outside(body.get(*field)));
    if depends || refers { Reuse::Never } else { Reuse::Allowed(IGNORED) }
}

fn reader(endpoint: Endpoint) -> Box<dyn ReadReply> {
    match endpoint {
        Endpoint::CohereChat => Box::<chat::Reply>::default(),
        Endpoint::CohereChatV1 | Endpoint::CohereGenerate => Box::<chat_v1::Reply>::default(),
        _ => Box::new(plain::Reply::new(endpoint)),
    }
}

fn forms(endpoint: Endpoint) -> Option<&'static Forms> {
    (endpoint == Endpoint::CohereChat).then_some(&forms::FORMS)
}

/// How a complete reply ended whose generations stopped for these reasons.
fn ending(reasons: &[Box<str>]) -> Ending {
    let any = |unwanted: &[&str]| reasons.iter().any(|reason| unwanted.contains(&&**reason));
    if any(&["ERROR", "ERROR_LIMIT", "TIMEOUT", "USER_CANCEL"]) {
        Ending::Failed
    } else if any(&["ERROR_TOXIC"]) {
        Ending::Declined
    } else {
        Ending::Complete
    }
}

fn error(problem: &Problem<'_>) -> Vec<u8> {
    json!({ "id": problem.request_id, "message": problem.message }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_endpoint_is_a_post_to_a_path_of_one_of_the_versions() {
        for (path, expected) in [
            ("/v2/chat", Endpoint::CohereChat),
            ("/v1/chat", Endpoint::CohereChatV1),
            ("/v1/generate", Endpoint::CohereGenerate),
            ("/v2/embed", Endpoint::CohereEmbed),
            ("/v1/embed", Endpoint::CohereEmbed),
            ("/v2/rerank", Endpoint::CohereRerank),
            ("/v1/rerank", Endpoint::CohereRerank),
            ("/v1/classify", Endpoint::CohereClassify),
            ("/v1/tokenize", Endpoint::CohereTokenize),
            ("/v1/detokenize", Endpoint::Other),
            ("/v1/embed-jobs", Endpoint::Other),
            ("/chat", Endpoint::Other),
            ("/v1/chat/completions", Endpoint::Other),
            ("/compatibility/v1/chat/completions", Endpoint::ChatCompletions),
            ("/compatibility/v1/embeddings", Endpoint::Embeddings),
            ("/compatibility/v1/chat", Endpoint::Other),
        ] {
            assert_eq!(endpoint(&Method::POST, path), expected, "{path}");
            assert_eq!(endpoint(&Method::GET, path), Endpoint::Other, "GET {path}");
        }
    }

    #[test]
    fn answers_that_use_state_or_live_data_are_never_reused() {
        for (body, reusable) in [
            (r#"{"message":"a","chat_history":[],"documents":[{"url":"https://example.com","snippet":"b"}]}"#, true),
            (r#"{"message":"a","conversation_id":"c"}"#, false),
            (r#"{"message":"a","connectors":[{"id":"web-search"}]}"#, false),
            (r#"{"message":"a","connectors":[],"conversation_id":null}"#, true),
            (r#"{"messages":[{"content":[{"image_url":{"url":"https://example.com/a.png"}}]}]}"#, false),
            (r#"{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AA=="}}]}]}"#, true),
            (r#"{"inputs":[{"content":[{"image_url":{"url":"https://example.com/a.png"}}]}]}"#, false),
            ("[]", false),
        ] {
            let expected = if reusable { Reuse::Allowed(IGNORED) } else { Reuse::Never };
            let value = serde_json::from_str(body).expect("JSON");
            assert_eq!(asked(&Request::of(Endpoint::CohereChat, &value)).reuse, expected, "{body}");
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
        assert_eq!(body, json!({"id": "1", "message": "say \"why\""}));
    }
}
