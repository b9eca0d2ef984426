//! Bedrock: AWS's API for models of many vendors. What its requests ask, and how its errors are worded.
//!
//! The path names the model; `Converse` speaks one format for all models, `InvokeModel` each vendor's own. Beside them
//! stand paths in OpenAI's and in Anthropic's formats, which are read as theirs.

mod converse;
mod forms;
mod invoke;
mod native;
mod stop;

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::substitute::in_a_path;
use crate::provider::tree::Object;
use crate::provider::{
    Asked, CREDENTIAL_HEADERS, Dialect, Format, NamesModel, Problem, ReadReply, Request, Reuse, UsageRequest,
    anthropic, is_sampled, openai, refers_outside, text,
};
use crate::record::ReplyFacts;
use crate::record::call::{Delivery, Operation};

/// Where Bedrock has what.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "",
    endpoint,
    error,
    error_type: Some((ERROR_TYPE, error_type)),
    quotas: None,
    names_model: NamesModel::Request,
    credential: (AUTHORIZATION, "Bearer "),
    credential_headers: &CREDENTIAL_HEADERS,
    credential_queries: &[],
};

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked,
    request_usage: None,
    with_model,
    reader,
    stop: stop::notes,
    fail: |_, problem, out| out.push_exception("modelStreamErrorException", &Object::read(&error(problem))?),
    key_headers: &[
        "x-amzn-bedrock-accept",
        "x-amzn-bedrock-guardrailidentifier",
        "x-amzn-bedrock-guardrailversion",
        "x-amzn-bedrock-performanceconfig-latency",
        "x-amzn-bedrock-service-tier",
        "x-amzn-bedrock-trace",
    ],
    forms: |endpoint| (endpoint == Endpoint::Converse).then_some(&forms::FORMS),
};

/// Which exception an error reply is.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Parts of a `Converse` request that do not change the answer. A block that marks what AWS is to cache is about billing
/// only.
const IGNORED: &[&str] = &[
    "messages[].content[cachePoint]",
    "performanceConfig",
    "requestMetadata",
    "serviceTier",
    "system[cachePoint]",
    "toolConfig.tools[cachePoint]",
];

/// What a path that ends so, after the model, is.
const ACTIONS: &[(&str, Endpoint)] = &[
    ("converse", Endpoint::Converse),
    ("converse-stream", Endpoint::Converse),
    ("invoke", Endpoint::InvokeModel),
    ("invoke-with-response-stream", Endpoint::InvokeModel),
    ("count-tokens", Endpoint::CountConverse),
];

/// What stands before the model's id.
const MODEL: &str = "/model/";

fn endpoint(method: &Method, path: &str) -> Endpoint {
    let Some((_, action)) = model_and_action(path) else {
        let anthropic = (anthropic::DIALECT.endpoint)(method, path);
        return if anthropic == Endpoint::Other { (openai::DIALECT.endpoint)(method, path) } else { anthropic };
    };
    let known = ACTIONS.iter().find(|(name, _)| *name == action && method == Method::POST);
    known.map_or(Endpoint::Other, |(_, endpoint)| *endpoint)
}

/// The model's id, as the app spelt it, and what is to be done with it: `/model/<id>/<action>`.
fn model_and_action(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = path.split_once(MODEL)?;
    rest.rsplit_once('/')
}

fn reader(endpoint: Endpoint) -> Box<dyn ReadReply> {
    match endpoint {
        Endpoint::Converse => Box::<converse::Reply>::default(),
        Endpoint::InvokeModel => Box::<invoke::Reply>::default(),
        _ => (openai::FORMAT.reader)(Endpoint::CountInput),
    }
}

fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    let Request { endpoint, body, .. } = *request;
    let (id, action) = model_and_action(request.path).unwrap_or_default();
    let model = model(id);
    let operation = if endpoint == Endpoint::InvokeModel { operation(&model, body) } else { endpoint.operation() };
    Asked {
        operation,
        delivery: if action.ends_with("-stream") { Delivery::Stream } else { Delivery::Whole },
        user: text(body.get("metadata").get("user_id")),
        usage: UsageRequest::Unneeded,
        reuse: if body.is_object() { reuse(request, &model) } else { Reuse::Never },
        is_sampled: is_sampled(operation, body),
        counted: None,
        model: Some(model).filter(|model| !model.is_empty()),
    }
}

/// A model's id, from its place in a path: decoded once.
fn model(id: &str) -> Cow<'_, str> {
    match percent_decode_str(id).decode_utf8_lossy() {
        Cow::Borrowed(id) => Cow::Borrowed(named_by(id)),
        Cow::Owned(id) => Cow::Owned(named_by(&id).to_owned()),
    }
}

/// The path with another model's id.
fn with_model(path: &str, id: &str) -> Option<String> {
    let (old, _) = model_and_action(path).filter(|(old, _)| !old.is_empty())?;
    let from = path.find(MODEL)? + MODEL.len();
    Some([&path[..from], &in_a_path(id), &path[from + old.len()..]].concat())
}

/// The model that an id names: of the ARNs that have a model's id in them, only that. Application inference profiles,
/// provisioned and imported models do not say which model they are.
fn named_by(id: &str) -> &str {
    let names_model = |arn: &str| arn.ends_with(":foundation-model") || arn.ends_with(":inference-profile");
    id.split_once('/').filter(|(arn, _)| names_model(arn)).map_or(id, |(_, model)| model)
}

/// What kind of call a body in a vendor's own format makes.
fn operation(model: &str, body: &Value<'_>) -> Operation {
    let has = |names: &[&str]| names.iter().any(|name| !matches!(body.get(*name), Value::Null));
    if has(&["documents"]) && has(&["query"]) {
        Operation::Rerank
    } else if has(&["messages", "message"]) {
        Operation::Chat
    } else if model.contains("embed") {
        Operation::Embeddings
    } else if has(&["taskType", "text_prompts"]) {
        Operation::ImageGeneration
    } else {
        Operation::TextCompletion
    }
}

/// Whether the answer may serve another, equal request.
fn reuse(request: &Request<'_>, model: &str) -> Reuse {
    let body = request.body;
    if refers_outside(body) || refers_to_storage(body) || is_draft_prompt(model) {
        return Reuse::Never;
    }
    match request.endpoint {
        Endpoint::Converse if all_tools_are_the_apps(body) => Reuse::Allowed(IGNORED),
        Endpoint::InvokeModel if !matches!(body.get("anthropic_version"), Value::Null) => {
            (anthropic::FORMAT.asked)(&Request { endpoint: Endpoint::Messages, ..*request }).reuse
        }
        Endpoint::InvokeModel if all_tools_are_the_apps(body) => Reuse::Allowed(&[]),
        Endpoint::CountConverse => Reuse::Allowed(&[]),
        _ => Reuse::Never,
    }
}

/// Whether every tool is one that the app runs itself: none of `toolConfig` is a tool of Bedrock's own.
fn all_tools_are_the_apps(body: &Value<'_>) -> bool {
    match body.get("toolConfig").get("tools") {
        Value::Null => true,
        Value::Array(tools) => {
            let is_of_app = |tool: &Value<'_>| {
                ["toolSpec", "cachePoint"].iter().any(|kind| !matches!(tool.get(*kind), Value::Null))
            };
            tools.iter().all(is_of_app)
        }
        _ => false,
    }
}

/// Whether any part of a request is kept in S3, where it may change under the same name.
fn refers_to_storage(part: &Value<'_>) -> bool {
    match part {
        Value::Array(items) => items.iter().any(refers_to_storage),
        Value::Object(members) => members.iter().any(|(name, value)| name == "s3Location" || refers_to_storage(value)),
        _ => false,
    }
}

/// Whether the model is a managed prompt without a version: its text may change.
fn is_draft_prompt(model: &str) -> bool {
    model.split_once(":prompt/").is_some_and(|(_, prompt)| !prompt.contains(':'))
}

/// Whether an event of a stream is no event, but says that the call failed: see [`crate::frames::eventstream`].
fn is_exception(name: &str) -> bool {
    name.contains(':')
}

/// Notes what the head of a reply says of it. Bedrock's own replies have their id nowhere else.
fn read_head(headers: &HeaderMap, facts: &mut ReplyFacts) {
    let text = |name: &str| headers.get(name)?.to_str().ok().filter(|text| !text.is_empty()).map(Box::from);
    facts.id = text("x-amzn-requestid");
    facts.service_tier = text("x-amzn-bedrock-service-tier");
    facts.speed = text("x-amzn-bedrock-performanceconfig-latency");
}

fn error(problem: &Problem<'_>) -> Vec<u8> {
    json!({ "message": problem.message }).to_string().into_bytes()
}

fn error_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 | 504 => "ModelTimeoutException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        500.. => "InternalServerException",
        _ => "ValidationException",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_of(path: &str, body: &str) -> (Option<String>, Operation, Delivery, Reuse) {
        let endpoint = endpoint(&Method::POST, path);
        let body = serde_json::from_str(body).expect("JSON");
        let asked = asked(&Request { endpoint, path, query: None, body: &body });
        (asked.model.map(Cow::into_owned), asked.operation, asked.delivery, asked.reuse)
    }

    fn reuse_of(action: &str, body: &str) -> Reuse {
        asked_of(&format!("/model/amazon.nova-lite-v1:0/{action}"), body).3
    }

    #[test]
    fn an_endpoint_is_what_is_done_with_a_model() {
        for (path, expected) in [
            ("/model/amazon.nova-lite-v1:0/converse", Endpoint::Converse),
            ("/model/amazon.nova-lite-v1%3A0/converse-stream", Endpoint::Converse),
            ("/model/amazon.nova-lite-v1:0/invoke", Endpoint::InvokeModel),
            ("/model/amazon.nova-lite-v1:0/invoke-with-response-stream", Endpoint::InvokeModel),
            ("/model/amazon.nova-lite-v1:0/invoke-with-bidirectional-stream", Endpoint::Other),
            ("/model/amazon.nova-lite-v1:0/count-tokens", Endpoint::CountConverse),
            ("/model/a", Endpoint::Other),
            ("/guardrail/g/version/1/apply", Endpoint::Other),
            ("/async-invoke", Endpoint::Other),
            ("/openai/v1/chat/completions", Endpoint::ChatCompletions),
            ("/v1/responses", Endpoint::Responses),
            ("/anthropic/v1/messages", Endpoint::Messages),
            ("/anthropic/v1/messages/count_tokens", Endpoint::CountMessages),
        ] {
            assert_eq!(endpoint(&Method::POST, path), expected, "{path}");
            assert_eq!(endpoint(&Method::GET, path), Endpoint::Other, "GET {path}");
        }
    }

    #[test]
    fn the_path_names_the_model() {
        for (id, expected) in [
            ("anthropic.claude-opus-5-5", "anthropic.claude-opus-5-5"),
            ("us.anthropic.claude-sonnet-4-20250514-v1%3A0", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
            ("us.anthropic.claude-sonnet-4-20250514-v1:0", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
            ("twice%253Aencoded", "twice%3Aencoded"),
            (
                "arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Fmeta.llama3-8b-instruct-v1%3A0",
                "meta.llama3-8b-instruct-v1:0",
            ),
            (
                "arn:aws:bedrock:eu-west-1:111122223333:inference-profile/eu.amazon.nova-lite-v1:0",
                "eu.amazon.nova-lite-v1:0",
            ),
            (
                "arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Aapplication-inference-profile%2Fa1b2c3",
                "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/a1b2c3",
            ),
        ] {
            let (model, ..) = asked_of(&format!("/model/{id}/converse"), "{}");
            assert_eq!(model.as_deref(), Some(expected), "{id}");
        }
        assert_eq!(asked_of("/model//converse", "{}").0, None);
    }

    #[test]
    fn the_path_says_whether_the_reply_streams() {
        for (action, expected) in [
            ("converse", Delivery::Whole),
            ("converse-stream", Delivery::Stream),
            ("invoke", Delivery::Whole),
            ("invoke-with-response-stream", Delivery::Stream),
        ] {
            assert_eq!(asked_of(&format!("/model/m/{action}"), "{}").2, expected, "{action}");
        }
    }

    #[test]
    fn the_body_says_what_a_vendors_model_is_to_do() {
        for (model, body, expected) in [
            ("anthropic.claude-opus-5-5", r#"{"messages":[]}"#, Operation::Chat),
            ("cohere.command-r-v1:0", r#"{"message":"hi"}"#, Operation::Chat),
            ("meta.llama3-8b-instruct-v1:0", r#"{"prompt":"hi"}"#, Operation::TextCompletion),
            ("amazon.titan-text-lite-v1", r#"{"inputText":"hi"}"#, Operation::TextCompletion),
            ("amazon.titan-embed-text-v2:0", r#"{"inputText":"hi"}"#, Operation::Embeddings),
            ("cohere.embed-english-v3", r#"{"texts":["hi"],"input_type":"search_query"}"#, Operation::Embeddings),
            ("cohere.rerank-v3-5:0", r#"{"query":"hi","documents":["a"]}"#, Operation::Rerank),
            ("amazon.nova-canvas-v1:0", r#"{"taskType":"TEXT_IMAGE"}"#, Operation::ImageGeneration),
        ] {
            assert_eq!(asked_of(&format!("/model/{model}/invoke"), body).1, expected, "{model} {body}");
        }
        assert_eq!(asked_of("/model/m/converse", "{}").1, Operation::Chat);
        assert_eq!(asked_of("/model/m/count-tokens", "{}").1, Operation::CountTokens);
    }

    #[test]
    fn answers_that_use_tools_of_bedrocks_own_or_what_is_kept_elsewhere_are_never_reused() {
        for (body, reusable) in [
            (r#"{"messages":[{"role":"user","content":[{"text":"hi"},{"cachePoint":{"type":"default"}}]}]}"#, true),
            (r#"{"toolConfig":{"tools":[{"toolSpec":{"name":"a"}},{"cachePoint":{"type":"default"}}]}}"#, true),
            (r#"{"toolConfig":{"tools":[{"systemTool":{"name":"nova_grounding"}}]}}"#, false),
            (r#"{"toolConfig":{"tools":{}}}"#, false),
            (r#"{"messages":[{"content":[{"document":{"source":{"s3Location":{"uri":"s3://b/k"}}}}]}]}"#, false),
            (r#"{"messages":[{"content":[{"document":{"source":{"bytes":"aGk="}}}]}]}"#, true),
            ("[]", false),
        ] {
            let expected = if reusable { Reuse::Allowed(IGNORED) } else { Reuse::Never };
            assert_eq!(reuse_of("converse", body), expected, "{body}");
        }
    }

    #[test]
    fn a_body_in_anthropics_format_is_reused_as_anthropics_are() {
        let body = |more| format!(r#"{{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,{more}"messages":[]}}"#);
        assert!(matches!(reuse_of("invoke", &body("")), Reuse::Allowed([_, ..])));
        assert_eq!(reuse_of("invoke", &body(r#""tools":[{"type":"web_search_20250305"}],"#)), Reuse::Never);
        assert_eq!(reuse_of("invoke", r#"{"prompt":"hi"}"#), Reuse::Allowed(&[]));
        assert_eq!(reuse_of("count-tokens", r#"{"input":{}}"#), Reuse::Allowed(&[]));
    }

    #[test]
    fn a_managed_prompt_is_reused_only_in_a_version() {
        let reuse = |version: &str| {
            asked_of(&format!("/model/arn:aws:bedrock:us-east-1:111122223333:prompt%2FABCDEF{version}/converse"), "{}")
                .3
        };
        assert_eq!(reuse(""), Reuse::Never);
        assert_eq!(reuse("%3A1"), Reuse::Allowed(IGNORED));
    }

    #[test]
    fn errors_have_the_shape_and_the_types_of_the_api() {
        for (status, kind) in [
            (StatusCode::BAD_REQUEST, "ValidationException"),
            (StatusCode::NOT_FOUND, "ResourceNotFoundException"),
            (StatusCode::PAYLOAD_TOO_LARGE, "ValidationException"),
            (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException"),
            (StatusCode::BAD_GATEWAY, "InternalServerException"),
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
            (StatusCode::GATEWAY_TIMEOUT, "ModelTimeoutException"),
        ] {
            assert_eq!(error_type(status), kind);
        }
        let problem = Problem {
            status: StatusCode::BAD_GATEWAY,
            code: "a_code",
            message: "say \"why\"",
            request_id: "1",
            retry_after: None,
        };
        assert_eq!(error(&problem), br#"{"message":"say \"why\""}"#);
    }
}
