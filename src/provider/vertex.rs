//! Vertex AI: Google's models as the Gemini API has them, and those of its partners in the APIs of their makers:
//! Anthropic's messages, and OpenAI's API for open models.
//!
//! Paths name a project, a location, a publisher and a model: which of them counts is how they end. Knows no body.

use http::Method;
use http::header::AUTHORIZATION;

use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{Forms, asked_by_body};
use crate::provider::gemini::{CREDENTIAL_QUERIES, error, method_at, model_in, with_model};
use crate::provider::{Asked, CREDENTIAL_HEADERS, Dialect, Format, NamesModel, Request, anthropic, openai};
use crate::record::call::{Delivery, Form};

/// Where Vertex AI has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "/v1",
    endpoint,
    error,
    error_type: None,
    quotas: None,
    names_model: NamesModel::Reply,
    credential: (AUTHORIZATION, "Bearer "),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: CREDENTIAL_QUERIES,
};

/// How Anthropic's messages read whose model is named in the path.
pub(super) static MESSAGES: Format = Format {
    asked: messages_asked,
    request_usage: None,
    with_model,
    reader: |_| (anthropic::FORMAT.reader)(Endpoint::Messages),
    stop: |_| (anthropic::FORMAT.stop)(Endpoint::Messages),
    fail: |_, problem, out| (anthropic::FORMAT.fail)(Endpoint::Messages, problem, out),
    key_headers: anthropic::FORMAT.key_headers,
    forms: |_| Some(&MESSAGES_FORMS),
};

/// Their forms: the path may say which, beside the body.
static MESSAGES_FORMS: Forms =
    Forms { asked: messages_form, path_ends: Some((RAW[1], RAW[0])), ..anthropic::forms::FORMS };

/// The method by which a partner's model is called in its maker's API, and its kin that streams.
const RAW: [&str; 2] = [":rawPredict", ":streamRawPredict"];

fn endpoint(method: &Method, path: &str) -> Endpoint {
    if method != Method::POST {
        Endpoint::Other
    } else if path.contains("/endpoints/openapi/") || path.contains("/publishers/openai/") {
        (openai::DIALECT.endpoint)(method, path)
    } else if path.contains("/publishers/anthropic/") && RAW.iter().any(|raw| path.ends_with(raw)) {
        if path.contains("/models/count-tokens:") { Endpoint::CountMessages } else { Endpoint::PublishedMessages }
    } else if path.ends_with(":predict") && model_in(path).is_some_and(|model| model.contains("embedding")) {
        Endpoint::PredictEmbeddings
    } else {
        method_at(method, path)
    }
}

fn messages_asked<'a>(request: &Request<'a>) -> Asked<'a> {
    let asked = (anthropic::FORMAT.asked)(&Request { endpoint: Endpoint::Messages, ..*request });
    let streams = asked.delivery == Delivery::Stream || request.path.ends_with(RAW[1]);
    let delivery = if streams { Delivery::Stream } else { Delivery::Whole };
    Asked { model: model_in(request.path), delivery, ..asked }
}

fn messages_form(request: &Request<'_>) -> Option<Form> {
    if request.path.ends_with(RAW[1]) { Some(Form::Stream) } else { asked_by_body(request) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/v1/projects/p/locations/europe-west1";

    #[test]
    fn an_endpoint_is_how_a_path_ends_and_who_publishes_the_model() {
        for (path, expected) in [
            ("/publishers/google/models/gemini-2.5-flash:generateContent", Endpoint::GenerateContent),
            ("/publishers/google/models/gemini-2.5-flash:streamGenerateContent", Endpoint::StreamGenerateContent),
            ("/publishers/google/models/gemini-2.5-flash:countTokens", Endpoint::CountContent),
            ("/publishers/google/models/gemini-embedding-2:embedContent", Endpoint::EmbedContent),
            ("/publishers/google/models/text-embedding-005:predict", Endpoint::PredictEmbeddings),
            ("/publishers/google/models/imagen-4:predict", Endpoint::Other),
            ("/endpoints/42:streamGenerateContent", Endpoint::StreamGenerateContent),
            ("/endpoints/42:predict", Endpoint::Other),
            ("/endpoints/openapi/chat/completions", Endpoint::ChatCompletions),
            ("/publishers/openai/v1/responses", Endpoint::Responses),
            ("/publishers/openai/v1/chat/completions", Endpoint::ChatCompletions),
            ("/publishers/anthropic/models/claude-sonnet-4-6:rawPredict", Endpoint::PublishedMessages),
            ("/publishers/anthropic/models/claude-sonnet-4-6:streamRawPredict", Endpoint::PublishedMessages),
            ("/publishers/anthropic/models/count-tokens:rawPredict", Endpoint::CountMessages),
            ("/publishers/mistralai/models/codestral-2:rawPredict", Endpoint::Other),
            ("/batchPredictionJobs", Endpoint::Other),
        ] {
            let path = format!("{BASE}{path}");
            assert_eq!(endpoint(&Method::POST, &path), expected, "{path}");
            assert_eq!(endpoint(&Method::GET, &path), Endpoint::Other, "GET {path}");
        }
        let express = "/v1/publishers/google/models/gemini-2.5-flash:generateContent";
        assert_eq!(endpoint(&Method::POST, express), Endpoint::GenerateContent, "without a project");
    }

    #[test]
    fn messages_have_their_model_in_the_path_and_stream_by_method_or_body() {
        for (method, body, expected) in [
            ("rawPredict", "{}", Delivery::Whole),
            ("rawPredict", r#"{"stream":true}"#, Delivery::Stream),
            ("streamRawPredict", "{}", Delivery::Stream),
        ] {
            let path = format!("{BASE}/publishers/anthropic/models/claude-haiku-4-5@20251001:{method}");
            let body = serde_json::from_str(body).expect("JSON");
            let request = Request { path: &path, ..Request::of(Endpoint::PublishedMessages, &body) };
            let asked = messages_asked(&request);
            assert_eq!(asked.model.as_deref(), Some("claude-haiku-4-5@20251001"));
            assert_eq!(asked.delivery, expected, "{method}");
        }
    }
}
