//! Route: which endpoint of which API a request is for, and what the APIs want of every request.
//!
//! Knows paths and headers; not bodies.

use std::borrow::Cow;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::bill::Api;
use super::reply::Problem;
use super::vendor::{VENDORS, Vendor};
use super::{anthropic, bedrock, cohere, gemini, ollama, openai};

/// What can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completions,
    Responses,
    InputTokens,
    Embeddings,
    Moderations,
    Images,
    Speech,
    Transcription,
    /// Free.
    Batches,
    Messages,
    CountTokens,
    CohereChat,
    CohereChatV1,
    CohereEmbed,
    CohereRerank,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    /// Messages of this model, at a publisher of Anthropic's.
    PublishedMessages(String),
    /// A method of one of Google's models.
    Gemini(gemini::Target),
    /// The list of models, or one of them.
    Models(Option<String>),
    /// An operation of Bedrock's on this model.
    Bedrock(Operation, String),
}

/// What Bedrock does with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Converse,
    ConverseStream,
    Invoke,
    InvokeStream,
    CountTokens,
}

/// `/model/{id}/{operation}`.
const OPERATIONS: &[(&str, Operation)] = &[
    ("converse", Operation::Converse),
    ("converse-stream", Operation::ConverseStream),
    ("invoke", Operation::Invoke),
    ("invoke-with-response-stream", Operation::InvokeStream),
    ("count-tokens", Operation::CountTokens),
];

const ENDPOINTS: &[(&str, Api, Endpoint)] = &[
    ("/v1/chat/completions", Api::OpenAi, Endpoint::Chat),
    ("/v1/completions", Api::OpenAi, Endpoint::Completions),
    ("/v1/responses", Api::OpenAi, Endpoint::Responses),
    ("/v1/responses/input_tokens", Api::OpenAi, Endpoint::InputTokens),
    ("/v1/embeddings", Api::OpenAi, Endpoint::Embeddings),
    ("/v1/moderations", Api::OpenAi, Endpoint::Moderations),
    ("/v1/images/generations", Api::OpenAi, Endpoint::Images),
    ("/v1/images/edits", Api::OpenAi, Endpoint::Images),
    ("/v1/images/variations", Api::OpenAi, Endpoint::Images),
    ("/v1/audio/speech", Api::OpenAi, Endpoint::Speech),
    ("/v1/audio/transcriptions", Api::OpenAi, Endpoint::Transcription),
    ("/v1/audio/translations", Api::OpenAi, Endpoint::Transcription),
    ("/v1/batches", Api::OpenAi, Endpoint::Batches),
    ("/v1/fim/completions", Api::OpenAi, Endpoint::Chat),
    ("/v1/messages", Api::Anthropic, Endpoint::Messages),
    ("/v1/messages/count_tokens", Api::Anthropic, Endpoint::CountTokens),
    ("/v2/chat", Api::Cohere, Endpoint::CohereChat),
    ("/v1/chat", Api::Cohere, Endpoint::CohereChatV1),
    ("/v2/embed", Api::Cohere, Endpoint::CohereEmbed),
    ("/v2/rerank", Api::Cohere, Endpoint::CohereRerank),
    ("/api/chat", Api::Ollama, Endpoint::OllamaChat),
    ("/api/generate", Api::Ollama, Endpoint::OllamaGenerate),
    ("/api/embed", Api::Ollama, Endpoint::OllamaEmbed),
];

/// How the path of a model begins that Vertex AI has from Anthropic, after project and location.
const PUBLISHED: &str = "/publishers/anthropic/models/";

/// Who answers a request, and whether there is anything to answer it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) api: Api,
    pub(super) endpoint: Result<Endpoint, Problem>,
    pub(super) vendor: Vendor,
    /// The deployment that the path names.
    pub(super) deployment: Option<String>,
}

/// A path as `OpenAI` spells it, whose habits go with the one it was, and the deployment it named.
fn translated(path: &str) -> (Cow<'_, str>, Vendor, Option<String>) {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let Some((name, vendor, before)) = VENDORS.iter().find(|(name, ..)| *name == first) else {
        return (path.into(), Vendor::Plain, None);
    };
    let path = &path[1 + name.len()..];
    let below =
        path.strip_prefix("/api/projects/").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
    let below = below.strip_prefix("/anthropic").or_else(|| below.strip_prefix(before)).unwrap_or(below);
    let named = below.strip_prefix("/deployments/").and_then(|rest| rest.split_once('/'));
    let (deployment, below) = match named {
        Some((deployment, _)) => (Some(deployment.to_owned()), &below["/deployments/".len() + deployment.len()..]),
        None => (None, below),
    };
    let below = if below.starts_with("/v1/") { below.into() } else { format!("/v1{below}").into() };
    (below, *vendor, deployment)
}

pub(super) fn find(head: &Parts) -> Route {
    if let Some(rest) = head.uri.path().strip_prefix("/model/") {
        let endpoint = of_bedrock(&head.method, rest).ok_or_else(|| unknown(head));
        return Route { api: Api::Bedrock, endpoint, vendor: Vendor::Plain, deployment: None };
    }
    let (translated, vendor, deployment) = translated(head.uri.path());
    let path = translated.as_ref();
    let fixed = ENDPOINTS.iter().find(|(known, ..)| *known == path);
    let known = fixed.map(|(_, api, endpoint)| (*api, endpoint.clone())).or_else(|| named_in(&head.uri));
    // Several vendors have models, and a path of none is refused in the words of the one that seems meant.
    let api = match &known {
        Some((api, _)) => *api,
        None if path.starts_with("/v1beta") || head.headers.contains_key("x-goog-api-key") => Api::Gemini,
        None if path.starts_with("/v2/") => Api::Cohere,
        None if path.starts_with("/api/") => Api::Ollama,
        None if head.headers.contains_key("anthropic-version") || head.headers.contains_key("x-api-key") => {
            Api::Anthropic
        }
        None => Api::OpenAi,
    };
    let models = || match path.strip_prefix("/v1/models").or_else(|| path.strip_prefix("/v1beta/models"))? {
        "" => Some(Endpoint::Models(None)),
        one => one.strip_prefix('/').map(|model| Endpoint::Models(Some(model.to_owned()))),
    };
    let (method, path) = (|| head.method.to_string(), || path.to_owned());
    let endpoint = match (known.map(|(_, endpoint)| endpoint).or_else(models), &head.method) {
        (Some(models @ Endpoint::Models(_)), &Method::GET) => Ok(models),
        (Some(Endpoint::Models(_)), _) => Err(Problem::WrongMethod { method: method(), path: path() }),
        (Some(endpoint), &Method::POST) => Ok(endpoint),
        (Some(_), _) => Err(Problem::WrongMethod { method: method(), path: path() }),
        (None, _) => Err(unknown(head)),
    };
    Route { api, endpoint, vendor, deployment }
}

fn unknown(head: &Parts) -> Problem {
    Problem::UnknownPath { method: head.method.to_string(), path: head.uri.path().to_owned() }
}

/// The operation at `{id}/{operation}`. The id may be percent-encoded, as it has colons, and slashes in an ARN.
fn of_bedrock(method: &Method, path: &str) -> Option<Endpoint> {
    let (model, name) = path.rsplit_once('/').filter(|_| *method == Method::POST)?;
    let (_, operation) = OPERATIONS.iter().find(|(known, _)| *known == name)?;
    let model = percent_decode_str(model).decode_utf8().ok()?;
    Some(Endpoint::Bedrock(*operation, model.into_owned()))
}

/// The endpoint of a path that names its model before a method.
fn named_in(uri: &Uri) -> Option<(Api, Endpoint)> {
    let Some((_, published)) = uri.path().split_once(PUBLISHED) else {
        return Some((Api::Gemini, Endpoint::Gemini(gemini::target(uri.path(), uri.query())?)));
    };
    let endpoint = match published.rsplit_once(':')? {
        ("count-tokens", "rawPredict") => Endpoint::CountTokens,
        (model, "rawPredict" | "streamRawPredict") => Endpoint::PublishedMessages(model.to_owned()),
        _ => return None,
    };
    Some((Api::Anthropic, endpoint))
}

impl Api {
    /// What is wanted of every call, whatever it asks. Publishers of Anthropic's models have the version in the body.
    pub(super) fn admit(self, head: &Parts) -> Result<(), Problem> {
        let headers = &head.headers;
        let has_version = headers.contains_key("anthropic-version") || head.uri.path().contains(PUBLISHED);
        let has_credential = match self {
            Self::Gemini => gemini::has_credential(head),
            Self::OpenAi | Self::Cohere => openai::has_credential(headers),
            Self::Anthropic => anthropic::has_credential(headers),
            // Bedrock's is judged with the body, which a signature covers; Ollama wants none.
            Self::Bedrock | Self::Ollama => true,
        };
        match self {
            _ if !has_credential => Err(Problem::NoCredential),
            Self::Anthropic if !has_version => Err(Problem::Missing("anthropic-version")),
            _ => Ok(()),
        }
    }

    /// The body of a refusal of the request with this number.
    pub(super) fn refusal(self, problem: &Problem, request: u64) -> Bytes {
        let body = match self {
            Self::OpenAi => openai::refusal(problem),
            Self::Anthropic => anthropic::refusal(problem, &anthropic::request_id(request)),
            Self::Bedrock => bedrock::refusal(problem).1,
            Self::Cohere => cohere::refusal(problem, &cohere::request_id(request)),
            Self::Ollama => ollama::refusal(problem),
            Self::Gemini => gemini::refusal(problem),
        };
        body.to_string().into()
    }

    /// The headers of the reply to the request with this number, which took so many milliseconds, when so many
    /// requests are left of the rate limit.
    pub(super) fn headers(self, request: u64, took_ms: u128, left: u64) -> Vec<(&'static str, String)> {
        match self {
            Self::OpenAi => openai::headers(request, took_ms, left),
            Self::Anthropic => anthropic::headers(request, left),
            Self::Bedrock => bedrock::headers(request),
            Self::Cohere => cohere::headers(request, left),
            Self::Ollama => Vec::new(),
            Self::Gemini => gemini::headers(),
        }
    }

    /// What the head of a refusal says beside that.
    pub(super) fn refusal_headers(self, problem: &Problem) -> Vec<(&'static str, String)> {
        match self {
            Self::OpenAi | Self::Anthropic | Self::Cohere | Self::Ollama | Self::Gemini => Vec::new(),
            Self::Bedrock => vec![("x-amzn-errortype", bedrock::error_type(problem))],
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_paths_of_vendors_lead_to_the_same_endpoints() {
        for (path, expected, deployment) in [
            ("/v1/chat/completions", "/v1/chat/completions", None),
            ("/groq/openai/v1/chat/completions", "/v1/chat/completions", None),
            ("/groq/v1/chat/completions", "/v1/chat/completions", None),
            ("/openrouter/api/v1/embeddings", "/v1/embeddings", None),
            ("/perplexity/chat/completions", "/v1/chat/completions", None),
            ("/deepseek/anthropic/v1/messages", "/v1/messages", None),
            ("/azure/openai/deployments/gpt-5/chat/completions", "/v1/chat/completions", Some("gpt-5")),
            ("/azure/openai/v1/responses", "/v1/responses", None),
            ("/azure/api/projects/p/openai/v1/responses", "/v1/responses", None),
            ("/azure/anthropic/v1/messages", "/v1/messages", None),
        ] {
            let (path, _, named) = translated(path);
            assert_eq!((path.as_ref(), named.as_deref()), (expected, deployment));
        }
    }

    #[test]
    fn every_path_has_its_endpoint_and_its_own_way_to_refuse() {
        let chat = Ok(Endpoint::Chat);
        let unknown = |path: &str| Err(Problem::UnknownPath { method: "POST".to_owned(), path: path.to_owned() });
        for (method, path, header, api, endpoint) in [
            ("POST", "/v1/chat/completions", "authorization", Api::OpenAi, chat.clone()),
            ("POST", "/v1/chat/completions?api-version=1", "x-api-key", Api::OpenAi, chat),
            ("POST", "/v1/messages", "authorization", Api::Anthropic, Ok(Endpoint::Messages)),
            ("GET", "/v1/models", "authorization", Api::OpenAi, Ok(Endpoint::Models(None))),
            ("GET", "/v1/models/x", "x-api-key", Api::Anthropic, Ok(Endpoint::Models(Some("x".to_owned())))),
            ("POST", "/v2/chat", "authorization", Api::Cohere, Ok(Endpoint::CohereChat)),
            ("POST", "/v2/nothing", "authorization", Api::Cohere, unknown("/v2/nothing")),
            ("POST", "/api/chat", "host", Api::Ollama, Ok(Endpoint::OllamaChat)),
            ("POST", "/api/nothing", "host", Api::Ollama, unknown("/api/nothing")),
            ("GET", "/v1beta/models", "x-goog-api-key", Api::Gemini, Ok(Endpoint::Models(None))),
            ("POST", "/v1beta/nothing", "authorization", Api::Gemini, unknown("/v1beta/nothing")),
            (
                "POST",
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude-haiku-4-5@20251001:streamRawPredict",
                "authorization",
                Api::Anthropic,
                Ok(Endpoint::PublishedMessages("claude-haiku-4-5@20251001".to_owned())),
            ),
            (
                "POST",
                "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
                "authorization",
                Api::Anthropic,
                Ok(Endpoint::CountTokens),
            ),
            ("POST", "/v1/nothing", "authorization", Api::OpenAi, unknown("/v1/nothing")),
            ("POST", "/v1/nothing", "anthropic-version", Api::Anthropic, unknown("/v1/nothing")),
            ("POST", "/v1/modelsx", "authorization", Api::OpenAi, unknown("/v1/modelsx")),
            (
                "GET",
                "/v1/messages",
                "x-api-key",
                Api::Anthropic,
                Err(Problem::WrongMethod { method: "GET".to_owned(), path: "/v1/messages".to_owned() }),
            ),
        ] {
            let request = Request::builder().method(method).uri(path).header(header, "x").body(());
            let (head, ()) = request.expect("a good request").into_parts();
            let route = find(&head);
            assert_eq!((route.api, route.endpoint), (api, endpoint), "{method} {path} {header}");
        }
    }
}
