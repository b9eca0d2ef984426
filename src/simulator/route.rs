//! Route: which endpoint of which API a request is for, and what the APIs want of every request.
//!
//! Knows paths and headers; not bodies.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::bill::Api;
use super::reply::Problem;
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
}

pub(super) fn find(head: &Parts) -> Route {
    let path = head.uri.path();
    if let Some(rest) = path.strip_prefix("/model/") {
        return Route { api: Api::Bedrock, endpoint: of_bedrock(&head.method, rest).ok_or_else(|| unknown(head)) };
    }
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
    Route { api, endpoint }
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
