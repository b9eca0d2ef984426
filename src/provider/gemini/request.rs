//! Request: what a request to a method of the Gemini API asks, and whether its answer may serve others.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::substitute::in_a_path;
use crate::provider::{Asked, Request, Reuse, UsageRequest, is_sampled, refers_outside, text};
use crate::record::call::Delivery;

/// Fields of a request that do not change the answer, in both spellings that the API takes.
const IGNORED: &[&str] = &["labels", "serviceTier", "service_tier", "store"];

/// Members of a tool that the app runs itself; whatever else a tool has is run by Google, on live data.
const APP_TOOLS: &[&str] = &["functionDeclarations", "function_declarations"];

/// Fields that go on from where an earlier answer stopped.
const KEPT_STATE: &[&str] = &["continuationToken", "continuation_token"];

/// The collection of models that anybody may call, and that of models an app has made.
const MODELS: &str = "models";
const TUNED: &str = "tunedModels";

/// What a request asks.
pub(super) fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    let Request { endpoint, path, body, .. } = *request;
    let named = || text(body.get("model")).or_else(|| text(body.get("agent"))).map(Cow::from);
    let streams = match endpoint {
        Endpoint::Interactions => body.get("stream").as_bool() == Some(true),
        _ => endpoint == Endpoint::StreamGenerateContent,
    };
    Asked {
        model: if endpoint == Endpoint::Interactions { named() } else { model_in(path) },
        operation: endpoint.operation(),
        delivery: if streams { Delivery::Stream } else { Delivery::Whole },
        user: None,
        usage: UsageRequest::Unneeded,
        reuse: if body.is_object() { reuse(endpoint, body) } else { Reuse::Never },
        is_sampled: is_sampled(endpoint.operation(), body),
        counted: None,
    }
}

/// The model that a path names before its method: `…/models/gemini-2.5-flash:generateContent`. A tuned model and a
/// deployed one keep the name of their collection (`tunedModels/mine`): they are not the models that may be called so.
pub(in crate::provider) fn model_in(path: &str) -> Option<Cow<'_, str>> {
    let (at, collection, id) = place_of_model(path)?;
    let named = if collection == MODELS { id } else { &path[at..at + collection.len() + 1 + id.len()] };
    (!id.is_empty()).then(|| percent_decode_str(named).decode_utf8_lossy())
}

/// The path with another model, which may name its collection (`tunedModels/mine`). A deployed model stands elsewhere in
/// a path than those that are not: neither takes the other's place.
pub(in crate::provider) fn with_model(path: &str, model: &str) -> Option<String> {
    let (at, old, id) = place_of_model(path).filter(|(.., id)| !id.is_empty())?;
    let (collection, name) = model.split_once('/').unwrap_or((MODELS, model));
    let is_deployed = |collection| !matches!(collection, MODELS | TUNED);
    if is_deployed(collection) != is_deployed(old) || (is_deployed(old) && collection != old) {
        return None;
    }
    let after = at + old.len() + 1 + id.len();
    Some([&path[..at], collection, "/", &in_a_path(name), &path[after..]].concat())
}

/// Where a path names a model's collection, and both names: `models`, `gemini-2.5-flash`.
fn place_of_model(path: &str) -> Option<(usize, &str, &str)> {
    let (resource, _) = path.rsplit_once(':')?;
    let (parents, id) = resource.rsplit_once('/')?;
    let collection = parents.rsplit('/').next()?;
    Some((parents.len() - collection.len(), collection, id))
}

/// Whether the answer may serve another, equal request. An interaction is kept at Google under an id of its own, unless
/// the app says otherwise; and it is most often a step of a conversation that is kept there.
fn reuse(endpoint: Endpoint, body: &Value<'_>) -> Reuse {
    let goes_on = KEPT_STATE.iter().any(|field| !body.get(*field).is_null());
    if endpoint == Endpoint::Interactions || goes_on || !all_tools_are_the_apps(body) || refers_outside(body) {
        Reuse::Never
    } else {
        Reuse::Allowed(IGNORED)
    }
}

/// Whether every tool is one that the app runs itself.
fn all_tools_are_the_apps(body: &Value<'_>) -> bool {
    let is_the_apps = |tool: &Value<'_>| {
        tool.as_object().is_some_and(|members| members.iter().all(|(name, _)| APP_TOOLS.contains(&name)))
    };
    match body.get("tools") {
        Value::Null => true,
        Value::Array(tools) => tools.iter().all(is_the_apps),
        // The API takes a single item for a list of one.
        tool => is_the_apps(tool),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_stands_before_the_method() {
        for (path, expected) in [
            ("/v1beta/models/gemini-2.5-flash:generateContent", Some("gemini-2.5-flash")),
            ("/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:countTokens", Some("gemini-2.5-pro")),
            (
                "/v1/publishers/anthropic/models/claude-haiku-4-5%4020251001:rawPredict",
                Some("claude-haiku-4-5@20251001"),
            ),
            ("/v1beta/tunedModels/gemini-2.5-pro-mine:generateContent", Some("tunedModels/gemini-2.5-pro-mine")),
            ("/v1/projects/p/locations/l/endpoints/42:generateContent", Some("endpoints/42")),
            ("/v1beta/models/:generateContent", None),
            ("/v1beta/models", None),
            ("gemini:generateContent", None),
        ] {
            assert_eq!(model_in(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn answers_that_use_state_or_live_data_are_never_reused() {
        for (body, reusable) in [
            (r#"{"contents":[{"parts":[{"text":"a"}]}]}"#, true),
            (r#"{"labels":{"a":"b"},"cachedContent":"cachedContents/1","store":true}"#, true),
            (r#"{"tools":[{"functionDeclarations":[{"name":"a"}]},{"function_declarations":[]}]}"#, true),
            (r#"{"tools":{"functionDeclarations":[]}}"#, true),
            (r#"{"tools":[]}"#, true),
            (r#"{"tools":[{"googleSearch":{}}]}"#, false),
            (r#"{"tools":[{"functionDeclarations":[],"urlContext":{}}]}"#, false),
            (r#"{"tools":[{"code_execution":{}}]}"#, false),
            (r#"{"tools":["a"]}"#, false),
            (r#"{"continuationToken":"a"}"#, false),
            (r#"{"contents":[{"parts":[{"fileData":{"fileUri":"gs://b/a.png"}}]}]}"#, false),
            (r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AA=="}}]}]}"#, true),
            ("[]", false),
        ] {
            let expected = if reusable { Reuse::Allowed(IGNORED) } else { Reuse::Never };
            let value = serde_json::from_str(body).expect("JSON");
            assert_eq!(asked(&Request::of(Endpoint::GenerateContent, &value)).reuse, expected, "{body}");
            assert_eq!(asked(&Request::of(Endpoint::Interactions, &value)).reuse, Reuse::Never, "{body}");
        }
    }
}
