//! Provider: wire formats. What is asked, what the reply says, and how an error is worded, API by API.
//!
//! Pure: no I/O, no clock. An API says where its endpoints are ([`Dialect`]); an endpoint ([`Endpoint`]) says how its
//! requests and replies read ([`Format`]), whoever offers it. Adding an API is one file here and one row of [`Api`];
//! adding a vendor that speaks a known API is one row of [`KNOWN`]. Knows nothing of caches, prices or metrics.

mod alike;
pub mod anthropic;
pub mod azure;
pub mod bedrock;
pub mod beginning;
pub mod cohere;
mod edit;
pub mod endpoint;
pub mod forms;
pub mod gemini;
pub mod headers;
pub mod last_turn;
pub mod last_words;
mod lenient;
mod llamacpp;
pub mod ollama;
pub mod openai;
pub mod output;
pub mod parameters;
pub mod quotas;
pub mod reader;
pub mod repeating;
pub mod session;
pub mod stop;
pub mod substitute;
mod tgi;
mod tree;
pub mod vertex;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json_borrow::Value;

use crate::frames::Event;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{Events, Forms};
use crate::provider::output::Output;
use crate::provider::quotas::Words;
use crate::provider::stop::Stop;
use crate::record::ReplyFacts;
use crate::record::call::{Delivery, Operation};
use crate::record::content::{Capture, Text};
use crate::record::usage::{Counter, Usage};
use crate::units::PicoUsd;

/// What the operator writes of one provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The API it speaks. Known by itself for the providers that weir knows by name; needed for any other.
    pub api: Option<Api>,
    /// Where it is, such as `https://api.openai.com`; the rest of the app's path is appended to it. Known by itself
    /// for the providers that weir knows by name.
    pub base_url: Option<String>,
    /// A file that holds the API key to put in, in place of the app's own. Re-read when it changes. Without this and
    /// `api_key_env`, the app's own credential passes through.
    pub api_key_file: Option<PathBuf>,
    /// An environment variable that holds the API key to put in, in place of the app's own.
    pub api_key_env: Option<String>,
    /// Whether weir signs calls to AWS (Signature Version 4) with AWS credentials of its own, in place of the app's
    /// signature, which is for weir's address and which AWS refuses. Whoever reaches weir's port then acts with
    /// weir's AWS identity. Calls with a Bedrock API key pass through as they are.
    pub aws_sign: Option<bool>,
    /// The profile of AWS's configuration files whose credentials sign, with `aws_sign`. Without it: whatever AWS's
    /// SDKs would find, from environment variables to the machine's role.
    pub aws_profile: Option<String>,
    /// The AWS region to sign for, with `aws_sign`, whatever apps ask for. Without it: the one the app signed for, else
    /// the one in `base_url`.
    pub aws_region: Option<String>,
    /// Whose prices apply: the id of a provider in the price table, or `free`. Without it, the provider is found by
    /// its name or its URL; `ollama` is free.
    pub prices: Option<String>,
    /// What models are behind names of your own (deployments, aliases, routes), as `name: model`: the price of a call
    /// is that model's, where the price table knows neither the model that answered nor the name asked for.
    pub models: BTreeMap<String, String>,
    /// Whether weir asks for usage on OpenAI-style streams when the app did not (and then removes exactly that chunk
    /// again). Turn it off for servers that refuse `stream_options`. It is off by itself for `api: cohere`, which does,
    /// and for vendors that are known to tell their usage unasked.
    pub ask_for_usage: Option<bool>,
    /// Whether the app's context in traces (`traceparent`, `tracestate`, `baggage`) goes on to the provider, with weir's
    /// own span for its parent where traces are kept. For servers of your own: it tells of the inside of your house.
    pub propagate_upstream: bool,
    /// What is kept of requests and answers that go this way: `none`, `redacted` or `full`, but no more than
    /// `privacy.capture`, which is what holds without it.
    pub capture: Option<Capture>,
    /// Other ways to the same API, tried in this order where this one fails: a second key, a second region. A list; each
    /// has a `base_url`, a key, or both (docs/resilience.md).
    pub fallbacks: Vec<FallbackSettings>,
}

/// What the operator writes of another way to the same API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackSettings {
    /// What it is called in metrics and logs. Without it, the provider's name and a number: `openai-2` for the first.
    pub name: Option<String>,
    /// Where it is; what follows the provider's own `base_url` in a call is appended to it. Without it, the provider's own.
    pub base_url: Option<String>,
    /// A file that holds the API key to put in. Re-read when it changes. Without this and `api_key_env`, what goes to the
    /// provider itself goes there too: its key, or the app's own.
    pub api_key_file: Option<PathBuf>,
    /// An environment variable that holds the API key to put in.
    pub api_key_env: Option<String>,
}

/// The APIs weir can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// The OpenAI API and everything that copies it.
    #[serde(rename = "openai")]
    OpenAi,
    /// Azure `OpenAI` and Foundry: the OpenAI API behind deployments, and Claude's own.
    #[serde(rename = "azure_openai")]
    AzureOpenAi,
    /// The Anthropic API.
    Anthropic,
    /// AWS Bedrock's API.
    Bedrock,
    /// The Cohere API, both versions, and what it offers in OpenAI's format.
    Cohere,
    /// Ollama's own API, and what it offers in OpenAI's and Anthropic's formats.
    Ollama,
    /// The Gemini API of Google AI Studio.
    Gemini,
    /// Vertex AI: Google's models, and those of its partners in the APIs of their makers.
    VertexAi,
}

impl Api {
    /// What is particular to this API.
    #[must_use]
    pub const fn dialect(self) -> &'static Dialect {
        match self {
            Self::OpenAi => &openai::DIALECT,
            Self::AzureOpenAi => &azure::DIALECT,
            Self::Anthropic => &anthropic::DIALECT,
            Self::Bedrock => &bedrock::DIALECT,
            Self::Cohere => &cohere::DIALECT,
            Self::Ollama => &ollama::DIALECT,
            Self::Gemini => &gemini::DIALECT,
            Self::VertexAi => &vertex::DIALECT,
        }
    }

    /// Whether its endpoints in OpenAI's format take `stream_options`. Cohere's refuse them (the compatibility API, as
    /// users of it reported in 2026).
    #[must_use]
    pub const fn takes_stream_options(self) -> bool {
        !matches!(self, Self::Cohere)
    }

    /// The only vendor of this API, where there is but one: its `gen_ai.provider.name`, and its id in the price table.
    #[must_use]
    pub const fn vendor(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::AzureOpenAi => Some(("azure.ai.openai", "azure")),
            _ => None,
        }
    }
}

/// A provider that needs no configuration.
#[derive(Debug)]
pub struct Known {
    /// The name in the path: `/<name>/…`.
    pub name: &'static str,
    /// The API it speaks.
    pub api: Api,
    /// Where it is.
    pub base_url: &'static str,
    /// `gen_ai.provider.name`.
    pub label: &'static str,
    /// Its id in the price table, or `free`; `None` if it is there under several.
    pub prices: Option<&'static str>,
    /// Whether its streams have to be asked for usage.
    pub ask_for_usage: bool,
    /// Whether its paths begin with the API's version, so that it is put in where an app left it out.
    pub has_version: bool,
}

impl Known {
    const fn new(name: &'static str, api: Api, base_url: &'static str) -> Self {
        Self { name, api, base_url, label: name, prices: Some(name), ask_for_usage: true, has_version: true }
    }

    const fn cloud(name: &'static str, base_url: &'static str) -> Self {
        Self::new(name, Api::OpenAi, base_url)
    }

    const fn labelled(self, label: &'static str) -> Self {
        Self { label, ..self }
    }

    const fn priced_as(self, id: &'static str) -> Self {
        Self { prices: Some(id), ..self }
    }

    /// It sells what others make, at a price that depends on who that is.
    const fn without_prices(self) -> Self {
        Self { prices: None, ..self }
    }

    /// Its paths have no version, or have it only here and there.
    const fn without_version(self) -> Self {
        Self { has_version: false, ..self }
    }

    /// It says on its streams what was used, whether it is asked or not.
    const fn tells_usage(self) -> Self {
        Self { ask_for_usage: false, ..self }
    }
}

/// The providers that need no configuration. A base URL has what all of the vendor's paths begin with, but the version.
pub const KNOWN: &[Known] = &[
    Known::new("openai", Api::OpenAi, "https://api.openai.com"),
    Known::new("anthropic", Api::Anthropic, "https://api.anthropic.com"),
    Known::new("bedrock", Api::Bedrock, "https://bedrock-runtime.us-east-1.amazonaws.com")
        .labelled("aws.bedrock")
        .priced_as("aws"),
    Known::new("cohere", Api::Cohere, "https://api.cohere.com"),
    Known::new("ollama", Api::Ollama, "http://127.0.0.1:11434").priced_as("free"),
    Known::new("gemini", Api::Gemini, "https://generativelanguage.googleapis.com")
        .labelled("gcp.gemini")
        .priced_as("google"),
    Known::new("vertex", Api::VertexAi, "https://aiplatform.googleapis.com")
        .labelled("gcp.vertex_ai")
        .priced_as("google"),
    Known::cloud("cerebras", "https://api.cerebras.ai"),
    Known::cloud("deepseek", "https://api.deepseek.com").without_version().tells_usage(),
    Known::cloud("fireworks", "https://api.fireworks.ai/inference").labelled("fireworks_ai").tells_usage(),
    Known::cloud("groq", "https://api.groq.com/openai").tells_usage(),
    Known::cloud("huggingface", "https://router.huggingface.co").without_prices(),
    Known::cloud("mistral", "https://api.mistral.ai").labelled("mistral_ai").tells_usage(),
    Known::cloud("moonshot", "https://api.moonshot.ai").labelled("moonshot_ai").priced_as("moonshotai"),
    Known::cloud("openrouter", "https://openrouter.ai/api").tells_usage(),
    Known::cloud("perplexity", "https://api.perplexity.ai").without_version().tells_usage(),
    Known::cloud("together", "https://api.together.ai").labelled("together_ai"),
    Known::cloud("xai", "https://api.x.ai").labelled("x_ai").priced_as("x-ai"),
];

/// A configured provider, made whole: where its calls go and how they are read.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name in the path and in the configuration.
    pub name: Arc<str>,
    /// The value of the label `provider`.
    pub label: Arc<str>,
    /// Whether the operator has settled anything of it; else it is only there because weir knows it by name.
    pub settled: bool,
    /// The API it speaks.
    pub api: Api,
    /// Where it is: scheme, authority and a path prefix without a trailing slash (or just `/`). No query.
    pub base_url: Uri,
    /// What is put before the path of a call in which the app left it out: a version such as `/v1`, or nothing.
    pub version_prefix: &'static str,
    /// Whether weir may ask for usage on streams.
    pub ask_for_usage: bool,
    /// Whether the app's context in traces goes on to it.
    pub propagate_upstream: bool,
    /// The most that is kept of what is said this way, where the operator says so.
    pub capture: Option<Capture>,
    /// Whose prices apply.
    pub prices: PricedAs,
    /// The models behind names that the price table does not know.
    pub models: BTreeMap<String, String>,
    /// Whose credential the provider sees.
    pub credential: CredentialSource,
    /// Other ways to it, in the order in which they are tried.
    pub fallbacks: Vec<Fallback>,
}

/// Another way to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// What it is called in metrics and logs.
    pub name: Arc<str>,
    /// Where it is: as of a provider.
    pub base_url: Uri,
    /// Whose credential is seen there: with [`CredentialSource::App`], the one that the provider itself sees.
    pub credential: CredentialSource,
}

impl Provider {
    /// The model that the operator says is behind the first of these names that is known to be one.
    #[must_use]
    pub fn model_behind(&self, names: [Option<&str>; 2]) -> Option<&str> {
        names.into_iter().flatten().find_map(|name| self.models.get(name)).map(String::as_str)
    }
}

/// Whose prices apply to a provider's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PricedAs {
    /// Nothing is charged.
    Free,
    /// The price table's entry with this id.
    Table(Box<str>),
    /// No entry is known: calls are unpriced.
    Unknown,
}

/// Whose credential a provider sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The app's own.
    App,
    /// The content of this file.
    File(PathBuf),
    /// The value of this environment variable.
    Environment(String),
    /// A signature for AWS, made by weir.
    Aws {
        /// The profile whose credentials sign; the usual chain's without one.
        profile: Option<String>,
        /// The region to sign for, whatever the app asks for.
        region: Option<String>,
    },
}

/// What is particular to one API: where its endpoints are, where credentials travel, how errors are worded. A table of
/// functions, so that an API is one file.
#[derive(Debug)]
pub struct Dialect {
    /// A prefix of every path that [`Endpoint::is_versioned`]; added where an app names no version, unless the operator's
    /// `base_url` has a path of its own. Empty if there is none.
    pub version_prefix: &'static str,
    /// What a request to this path (without query, below the base URL) is.
    pub endpoint: fn(&Method, &str) -> Endpoint,
    /// An error in the API's own shape.
    pub error: fn(&Problem<'_>) -> Vec<u8>,
    /// The header that says which error it is, where the body does not, and its value for a status.
    pub error_type: Option<(HeaderName, NameError)>,
    /// How it tells of quotas in headers, if it does.
    pub quotas: Option<&'static Words>,
    /// Who names the model more exactly, and so is asked first for its price.
    pub names_model: NamesModel,
    /// Where a credential travels: the header, and what precedes the key in its value.
    pub credential: (HeaderName, &'static str),
    /// Every header an app's own credential may travel in.
    pub credential_headers: &'static [HeaderName],
    /// Every parameter of the query that an app's own credential may travel in.
    pub credential_queries: &'static [&'static str],
}

/// How requests to one kind of endpoint and their replies read, whichever API offers it.
#[derive(Debug)]
pub struct Format {
    /// What a request asks.
    pub asked: for<'a> fn(&Request<'a>) -> Asked<'a>,
    /// The body of a streaming request, changed so that the reply will say what was used, with every other byte as it
    /// was. `None` where a format has no need of it, or where the body cannot be changed so.
    pub request_usage: Option<ChangeBody>,
    /// The path with another model in it. `None` where paths name none, and only bodies do.
    pub with_model: ChangePath,
    /// A fresh reader for one reply.
    pub reader: fn(Endpoint) -> Box<dyn ReadReply>,
    /// What is noted of a stream so that it can be ended early; `None` where it cannot be.
    stop: fn(Endpoint) -> Option<Box<dyn Stop>>,
    /// Writes an error as the last event of a stream; `None` where a stream has no events for that.
    fail: fn(Endpoint, &Problem<'_>, &mut Events) -> Option<()>,
    /// Request headers that change the answer, and so are part of a cache key.
    pub key_headers: &'static [&'static str],
    /// The forms that one answer may have, where they can be turned into each other.
    pub forms: fn(Endpoint) -> Option<&'static Forms>,
}

/// A request, as far as weir reads it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What kind of request it is.
    pub endpoint: Endpoint,
    /// Its path, below the base URL and without the query, as the app spelt it.
    pub path: &'a str,
    /// Its query, as the app spelt it.
    pub query: Option<&'a str>,
    /// Its body; a form's text fields; null if there is none, or it was not read.
    pub body: &'a Value<'a>,
}

impl<'a> Request<'a> {
    /// What a request asks in most APIs: of the model that its body names, event by event where its body says so.
    /// `reuse` holds where there is a body to tell requests apart.
    fn asks(&self, reuse: Reuse) -> Asked<'a> {
        let streams = self.body.get("stream").as_bool() == Some(true);
        Asked {
            model: text(self.body.get("model")).map(Cow::from),
            operation: self.endpoint.operation(),
            delivery: if streams { Delivery::Stream } else { Delivery::Whole },
            user: None,
            usage: UsageRequest::Unneeded,
            reuse: if self.body.is_object() { reuse } else { Reuse::Never },
            is_sampled: is_sampled(self.endpoint.operation(), self.body),
            counted: None,
        }
    }
}

#[cfg(test)]
impl<'a> Request<'a> {
    /// A request of which only the body matters.
    fn of(endpoint: Endpoint, body: &'a Value<'a>) -> Self {
        Self { endpoint, path: "/", query: None, body }
    }
}

/// Who names the model that answered more exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamesModel {
    /// The reply: the request may use an alias.
    Reply,
    /// The request: the reply leaves out what sets the price, such as the region that an inference profile stands for.
    Request,
}

/// What an API calls an error of this status.
pub type NameError = fn(StatusCode) -> &'static str;

/// Changes the body of a request; `None` if it cannot.
pub type ChangeBody = fn(&[u8]) -> Option<Vec<u8>>;

/// Puts a name into the path of a request; `None` if it cannot.
pub type ChangePath = fn(&str, &str) -> Option<String>;

/// What a request asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked<'a> {
    /// The model, as the app spelt it.
    pub model: Option<Cow<'a, str>>,
    /// What kind of call it is.
    pub operation: Operation,
    /// In one piece or event by event.
    pub delivery: Delivery,
    /// The body's own word on who the end user is.
    pub user: Option<&'a str>,
    /// Whether the reply will say what was used.
    pub usage: UsageRequest,
    /// Whether the answer may serve another, equal request.
    pub reuse: Reuse,
    /// Whether the answer is drawn by chance, so that equal requests are meant to have different ones.
    pub is_sampled: bool,
    /// What is billed by the request's own measure, whatever the reply says: the characters of a text to be spoken.
    pub counted: Option<(Counter, u64)>,
}

/// Whether a reply will say what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageRequest {
    /// It will, or there is none to say.
    Unneeded,
    /// Only if `stream_options.include_usage` is set, and the app did not set it.
    Missing,
}

/// Whether an answer may serve another, equal request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It may; these parts of the body, in ascending order, are known not to change the answer. Each is named by its
    /// place: `user`, `tools[].cache_control` for that member of each item of `tools`, `system[cachePoint]` for each item
    /// of `system` that has this member and no other.
    Allowed(&'static [&'static str]),
    /// It may not: the call has side effects, or its answer depends on state or live data.
    Never,
}

/// Reads one reply, whole or event by event, and says at the end what it learnt.
pub trait ReadReply: Send {
    /// Reads the head of the reply, before anything of its body.
    fn head(&mut self, _headers: &HeaderMap) {}

    /// Reads a reply that came in one piece. `body` is decoded, and complete.
    fn whole(&mut self, status: StatusCode, body: &[u8]);

    /// Reads one event of a streamed reply.
    fn event(&mut self, event: &Event<'_>) -> EventKind;

    /// Bytes of what was generated so far, as far as it is text.
    fn generated(&self) -> u64 {
        0
    }

    /// What was learnt. `None` usage means that none was reported.
    fn finish(self: Box<Self>) -> Said;
}

/// What an event of a stream is to weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It carries generated content, reasoning or a tool call.
    Content,
    /// It carries usage and nothing else: the chunk that `stream_options.include_usage` adds.
    UsageOnly,
    /// Anything else.
    Other,
}

/// What a reply said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// About itself.
    pub facts: ReplyFacts,
    /// About what was used.
    pub usage: Option<Usage>,
    /// What the provider itself says it charges for the call.
    pub provider_cost: Option<PicoUsd>,
    /// What was generated, for an estimate where the reply does not count it.
    pub output: Output,
    /// What it says, where that is to be kept.
    pub text: Option<Text>,
    /// About its end.
    pub ending: Ending,
}

/// How a reply ended, judged by its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Complete, and a success.
    Complete,
    /// Complete, but the model refused or its output was filtered: not for anybody else.
    Declined,
    /// It carries an error, or says that it failed.
    Failed,
    /// Its end marker never came, or it is not what the API promises.
    #[default]
    Unfinished,
    /// Nothing is known of its end: it was not read, or the work goes on elsewhere (a background response). Only the
    /// status and the transport can say whether it was a success, and it is not for anybody else.
    Unknown,
}

impl Ending {
    /// Whether nothing says that the call failed or broke off.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Complete | Self::Declined | Self::Unknown)
    }
}

/// Every header in which an app may send the credential of an API. The APIs accept each other's habits, and so do their
/// copies.
static CREDENTIAL_HEADERS: [HeaderName; 7] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    // What belongs to a signature for AWS.
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-content-sha256"),
];

/// Members by which a request names something that is kept elsewhere and may change under the same name.
const REFERENCES: [&str; 6] = ["url", "image_url", "file_url", "document_url", "input_audio", "file_data"];

/// How the address of something kept elsewhere begins.
const ADDRESSES: [&str; 3] = ["http", "gs://", "s3://"];

/// Members that name nothing but files kept elsewhere, whatever their value looks like.
const FILES: [&str; 5] = ["file_id", "fileUri", "file_uri", "gcsUri", "gcs_uri"];

/// Whether any part of a request is a file at the provider or a page on the web: what it holds may have changed when
/// the same request comes again. Data URLs hold themselves.
fn refers_outside(part: &Value<'_>) -> bool {
    match part {
        Value::Array(items) => items.iter().any(refers_outside),
        Value::Object(members) => members.iter().any(|(name, value)| match value.as_str() {
            Some(text) => {
                let is_address = || ADDRESSES.iter().any(|beginning| text.starts_with(beginning));
                FILES.contains(&name) || (REFERENCES.contains(&name) && is_address())
            }
            None => refers_outside(value),
        }),
        _ => false,
    }
}

/// Whether a path has the parts of `wanted` (`files`, `fine_tuning/jobs`) one after the other, anywhere.
fn has_part(path: &str, wanted: &str) -> bool {
    path.match_indices(wanted).any(|(at, _)| {
        path[..at].ends_with('/') && path[at + wanted.len()..].chars().next().is_none_or(|next| next == '/')
    })
}

/// Where a request has what governs sampling, beside its top level: Gemini, Bedrock's Converse, Amazon's own models and
/// what Converse hands on to others; then Ollama, and servers that generate text for whoever asks.
const SAMPLING: [&str; 7] = [
    "generationConfig",
    "generation_config",
    "inferenceConfig",
    "textGenerationConfig",
    "additionalModelRequestFields",
    "options",
    "parameters",
];

/// Whether the answer to a request is drawn by chance: something is generated, and neither is the temperature exactly 0
/// nor a seed given. What is not given is not zero: each API has a default of its own.
fn is_sampled(operation: Operation, body: &Value<'_>) -> bool {
    let is_pinned = |place: &Value<'_>| {
        place.get("temperature").as_f64() == Some(0.0)
            || ["seed", "random_seed"].iter().any(|name| is_seed(place.get(*name)))
            // Text Generation Inference takes no temperature of 0.
            || place.get("do_sample").as_bool() == Some(false)
    };
    operation.generates() && !is_pinned(body) && !SAMPLING.iter().any(|name| is_pinned(body.get(*name)))
}

/// A whole number; but -1 stands for any at llama.cpp, Ollama and vLLM.
fn is_seed(value: &Value<'_>) -> bool {
    value.as_u64().is_some() || value.as_i64().is_some_and(|seed| seed != -1)
}

/// Whether a member says anything: neither null nor an empty list.
fn is_given(value: &Value<'_>) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => !values.is_empty(),
        _ => true,
    }
}

/// A text that is not empty.
fn text<'a>(value: &'a Value<'a>) -> Option<&'a str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// The sum of two counts, either of which may be absent.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

/// How many tools and how many choices of one reply are noted. OpenAI allows 128 of either.
const MAX_NAMES: usize = 128;

/// An error of weir's own, for the app, to be worded in the API's shape.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// The HTTP status it travels with.
    pub status: StatusCode,
    /// A short machine-readable code, such as `upstream_connect_error`.
    pub code: &'a str,
    /// What happened and what mends it, for the app's developer.
    pub message: &'a str,
    /// The exchange's id.
    pub request_id: &'a str,
    /// In how long to try again, where that can be told.
    pub retry_after: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_drawn_by_chance_unless_the_request_says_otherwise_in_its_apis_own_words() {
        use Api::{Anthropic, AzureOpenAi, Bedrock, Cohere, Gemini, Ollama, OpenAi, VertexAi};
        const CHAT: &str = "/v1/chat/completions";
        const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
        for (api, path, body, sampled) in [
            (OpenAi, CHAT, "{}", true),
            (OpenAi, CHAT, r#"{"temperature":0}"#, false),
            (OpenAi, CHAT, r#"{"temperature":0.0}"#, false),
            (OpenAi, CHAT, r#"{"temperature":-0.0}"#, false),
            (OpenAi, CHAT, r#"{"temperature":1e-9}"#, true),
            (OpenAi, CHAT, r#"{"temperature":"0"}"#, true),
            (OpenAi, CHAT, r#"{"temperature":null}"#, true),
            (OpenAi, CHAT, r#"{"temperature":1,"seed":7}"#, false),
            (OpenAi, CHAT, r#"{"seed":0}"#, false),
            (OpenAi, CHAT, r#"{"seed":-7}"#, false),
            (OpenAi, CHAT, r#"{"seed":-1}"#, true),
            (OpenAi, CHAT, r#"{"seed":null}"#, true),
            (OpenAi, CHAT, r#"{"messages":[{"temperature":0,"seed":7}]}"#, true),
            (OpenAi, CHAT, r#"{"random_seed":7}"#, false), // Mistral
            (OpenAi, "/v1/completions", r#"{"temperature":0}"#, false),
            (OpenAi, "/v1/responses", r#"{"temperature":0}"#, false),
            (OpenAi, "/v1/responses", r#"{"temperature":0.7}"#, true),
            (OpenAi, "/v1/embeddings", "{}", false),
            (OpenAi, "/v1/moderations", "{}", false),
            (OpenAi, "/v1/ocr", "{}", false),
            (OpenAi, "/v1/responses/input_tokens", "{}", false),
            (OpenAi, "/v1/images/generations", "{}", true),
            (OpenAi, "/v1/messages", r#"{"temperature":0}"#, false),
            (OpenAi, "/generate", "{}", true),
            (OpenAi, "/generate", r#"{"parameters":{"seed":7}}"#, false),
            (OpenAi, "/generate", r#"{"parameters":{"do_sample":false}}"#, false),
            (OpenAi, "/completion", r#"{"temperature":0}"#, false),
            (AzureOpenAi, "/openai/deployments/d/chat/completions", r#"{"temperature":0}"#, false),
            (Anthropic, "/v1/messages", "{}", true),
            (Anthropic, "/v1/messages", r#"{"temperature":0}"#, false),
            (Anthropic, "/v1/messages/count_tokens", "{}", false),
            (Gemini, GENERATE, r#"{"temperature":0.5}"#, true),
            (Gemini, GENERATE, r#"{"generationConfig":{"temperature":0}}"#, false),
            (Gemini, GENERATE, r#"{"generation_config":{"seed":7}}"#, false),
            (Gemini, "/v1beta/models/gemini-embedding-2:embedContent", "{}", false),
            (Gemini, "/v1beta/models/gemini-2.5-flash:countTokens", "{}", false),
            (VertexAi, "/v1/publishers/google/models/g:generateContent", r#"{"generationConfig":{"seed":7}}"#, false),
            (VertexAi, "/v1/publishers/anthropic/models/claude:rawPredict", r#"{"temperature":0}"#, false),
            (VertexAi, "/v1/publishers/google/models/text-embedding-005:predict", "{}", false),
            (Bedrock, "/model/m/converse", r#"{"inferenceConfig":{"maxTokens":5}}"#, true),
            (Bedrock, "/model/m/converse", r#"{"inferenceConfig":{"temperature":0}}"#, false),
            (Bedrock, "/model/m/converse", r#"{"additionalModelRequestFields":{"seed":7}}"#, false),
            (Bedrock, "/model/amazon.titan/invoke", r#"{"textGenerationConfig":{"temperature":0}}"#, false),
            (Bedrock, "/model/amazon.nova/invoke", r#"{"messages":[],"inferenceConfig":{"temperature":0}}"#, false),
            (Bedrock, "/model/meta.llama/invoke", r#"{"prompt":"hi","temperature":0}"#, false),
            (Bedrock, "/model/meta.llama/invoke", r#"{"prompt":"hi"}"#, true),
            (Bedrock, "/model/amazon.titan-embed/invoke", r#"{"inputText":"hi"}"#, false),
            (Bedrock, "/model/cohere.rerank/invoke", r#"{"query":"hi","documents":["a"]}"#, false),
            (Bedrock, "/model/m/count-tokens", "{}", false),
            (Cohere, "/v2/chat", r#"{"seed":7}"#, false),
            (Cohere, "/v2/chat", r#"{"temperature":0.3}"#, true),
            (Cohere, "/v1/chat", r#"{"temperature":0}"#, false),
            (Cohere, "/v2/rerank", "{}", false),
            (Cohere, "/v1/classify", "{}", false),
            (Cohere, "/v1/tokenize", "{}", false),
            (Ollama, "/api/chat", r#"{"temperature":0}"#, false),
            (Ollama, "/api/chat", r#"{"options":{"num_ctx":4096}}"#, true),
            (Ollama, "/api/chat", r#"{"options":{"temperature":0}}"#, false),
            (Ollama, "/api/generate", r#"{"options":{"seed":42}}"#, false),
            (Ollama, "/api/embed", "{}", false),
        ] {
            let endpoint = (api.dialect().endpoint)(&Method::POST, path);
            let value = serde_json::from_str(body).expect("JSON");
            let asked = (endpoint.format().asked)(&Request { endpoint, path, query: None, body: &value });
            assert_eq!(asked.is_sampled, sampled, "{api:?} {path} {body}");
        }
    }

    #[test]
    fn what_is_kept_elsewhere_may_change_and_what_holds_itself_may_not() {
        for (part, outside) in [
            (r#"{"image_url":{"url":"https://example.com/a.png"}}"#, true),
            (r#"{"image_url":{"url":"gs://bucket/a.png"}}"#, true),
            (r#"{"image_url":{"url":"data:image/png;base64,AA"}}"#, false),
            (r#"{"document_url":"https://example.com/a.pdf"}"#, true),
            (r#"{"input_audio":"https://example.com/a.mp3"}"#, true),
            (r#"{"input_audio":{"data":"AA","format":"mp3"}}"#, false),
            (r#"{"file":{"file_data":"https://example.com/a.pdf"}}"#, true),
            (r#"{"instances":[{"image":{"gcsUri":"gs://bucket/a.png"}}]}"#, true),
            (r#"{"file_id":"file-1"}"#, true),
            (r#"{"text":"see https://example.com"}"#, false),
        ] {
            assert_eq!(refers_outside(&serde_json::from_str(part).expect("JSON")), outside, "{part}");
        }
    }
}
