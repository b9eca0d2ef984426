//! Request: what a request to the OpenAI API asks, whether its answer may serve others, and how to ask for usage.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json_borrow::Value;

use crate::provider::edit::Members;
use crate::provider::endpoint::Endpoint;
use crate::provider::substitute::in_a_path;
use crate::provider::{Asked, Request, Reuse, UsageRequest, is_sampled, refers_outside, text};
use crate::record::call::Delivery;
use crate::record::usage::Counter;

/// Fields of chat requests and of requests for a response that do not change the answer. (A response may only be reused
/// if `store` is false.) vLLM and its kin take `priority` and `request_id`; vendors refuse them, or do not know them.
const GENERATION_IGNORED: &[&str] = &[
    "metadata",
    "priority",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// Fields of other requests that do not change the answer.
const IGNORED: &[&str] = &["priority", "request_id", "user"];

/// Fields that make an answer depend on live data: OpenAI's, xAI's and `OpenRouter`'s ways to ask for a web search.
const LIVE_DATA: &[&str] = &["web_search_options", "search_parameters", "plugins"];

/// Parts of the names of models that always search the web: `gpt-4o-search-preview`, `gpt-5-search-api`,
/// `OpenRouter`'s `…:online`, Perplexity's Sonar and Groq's Compound.
const LIVE_MODELS: &[&str] = &["-search-", ":online", "sonar", "compound"];

/// Fields that tie an answer to state that the provider keeps: a conversation, or a Mistral agent.
const KEPT_STATE: &[&str] = &["previous_response_id", "conversation", "agent_id"];

/// What a request asks.
pub(super) fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    let Request { endpoint, path, query, body } = *request;
    let text = |field| text(body.get(field));
    let streams = match endpoint {
        Endpoint::Speech => text("stream_format") == Some("sse"),
        // A form's fields are texts.
        _ => body.get("stream").as_bool() == Some(true) || text("stream") == Some("true"),
    };
    let has_usage_option =
        matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions) && knows_stream_options(query);
    let wants_usage = body.get("stream_options").get("include_usage").as_bool() == Some(true);
    Asked {
        model: text("model").map(Cow::from).or_else(|| deployment(path)),
        operation: endpoint.operation(),
        delivery: if streams { Delivery::Stream } else { Delivery::Whole },
        user: text("safety_identifier").or_else(|| text("user")),
        usage: if has_usage_option && streams && !wants_usage { UsageRequest::Missing } else { UsageRequest::Unneeded },
        reuse: if body.is_object() { reuse(endpoint, body) } else { Reuse::Never },
        is_sampled: is_sampled(endpoint.operation(), body),
        counted: characters(endpoint, body),
    }
}

/// Azure's deployment, where the path names it: `/openai/deployments/<name>/…`.
fn deployment(path: &str) -> Option<Cow<'_, str>> {
    let (_, name, _) = around_deployment(path)?;
    let name = percent_decode_str(name).decode_utf8().ok()?;
    Some(name).filter(|name| !name.is_empty())
}

/// Whether the version of Azure's API that the query names, if any, takes `stream_options`. Versions are dates, and
/// words for the newest.
fn knows_stream_options(query: Option<&str>) -> bool {
    let version = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("api-version=")));
    version.is_none_or(|version| version >= "2024-09-01")
}

/// The characters of a text to be spoken: some models are billed by them, and the sound that comes back says nothing.
fn characters(endpoint: Endpoint, body: &Value<'_>) -> Option<(Counter, u64)> {
    let spoken = body.get("input").as_str().filter(|_| endpoint == Endpoint::Speech)?;
    Some((Counter::InputCharacters, spoken.chars().count() as u64))
}

/// Whether the answer may serve another, equal request.
fn reuse(endpoint: Endpoint, body: &Value<'_>) -> Reuse {
    let uses_state = KEPT_STATE.iter().any(|field| !body.get(*field).is_null());
    let hosts_tools = !all_tools_are_the_apps(body);
    let searches = LIVE_DATA.iter().any(|field| !body.get(*field).is_null()) || model_searches(body);
    match endpoint {
        _ if searches || refers_outside(body) => Reuse::Never,
        Endpoint::ChatCompletions => {
            let stores = body.get("store").as_bool() == Some(true);
            if stores || uses_state || hosts_tools { Reuse::Never } else { Reuse::Allowed(GENERATION_IGNORED) }
        }
        Endpoint::Responses => {
            // Stored unless the app says otherwise: the answer's id must stay good for the next turn.
            let stores = body.get("store").as_bool() != Some(false);
            let later = body.get("background").as_bool() == Some(true) || body.get("generate").as_bool() == Some(false);
            let prompt = body.get("prompt");
            let unpinned = !prompt.is_null() && prompt.get("version").is_null();
            if stores || uses_state || later || unpinned || hosts_tools {
                Reuse::Never
            } else {
                Reuse::Allowed(GENERATION_IGNORED)
            }
        }
        Endpoint::CountInput if uses_state || hosts_tools => Reuse::Never,
        Endpoint::Completions | Endpoint::Embeddings | Endpoint::Moderations | Endpoint::CountInput => {
            Reuse::Allowed(IGNORED)
        }
        _ => Reuse::Never,
    }
}

/// Whether every tool is one that the app runs itself. Any other type, known or not, is run by the provider.
fn all_tools_are_the_apps(body: &Value<'_>) -> bool {
    match body.get("tools") {
        Value::Null => true,
        Value::Array(tools) => {
            tools.iter().all(|tool| matches!(tool.get("type").as_str(), Some("function" | "custom")))
        }
        _ => false,
    }
}

fn model_searches(body: &Value<'_>) -> bool {
    let model = body.get("model").as_str().unwrap_or_default();
    LIVE_MODELS.iter().any(|part| model.contains(part))
}

/// The path with another deployment. `None` where it names none.
pub(super) fn with_deployment(path: &str, name: &str) -> Option<String> {
    let (before, old, after) = around_deployment(path)?;
    (!old.is_empty()).then(|| [before, &in_a_path(name), after].concat())
}

/// Azure's deployment as it stands in a path, and what is before and after it.
fn around_deployment(path: &str) -> Option<(&str, &str, &str)> {
    const BEFORE: &str = "/deployments/";
    let from = path.find(BEFORE)? + BEFORE.len();
    let to = path[from..].find('/').map_or(path.len(), |length| from + length);
    Some((&path[..from], &path[from..to], &path[to..]))
}

/// The body with `stream_options.include_usage` set, and every other byte as it was. `None` if it is no JSON object, or
/// its `stream_options` is neither an object nor null.
pub(super) fn with_usage_requested(body: &[u8]) -> Option<Vec<u8>> {
    let members = Members::of(body)?;
    let options = match members.get("stream_options") {
        None | Some("null") => "{}",
        Some(options) => options,
    };
    let options = Members::of(options.as_bytes())?.with("include_usage", "true");
    Some(members.with("stream_options", &options).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reuse_of(endpoint: Endpoint, body: &str) -> Reuse {
        asked(&Request::of(endpoint, &serde_json::from_str(body).expect("JSON"))).reuse
    }

    #[test]
    fn usage_is_asked_for_with_every_other_byte_unchanged() {
        for (rule, body, expected) in [
            (
                "absent: put in at the end",
                r#"{"model":"a", "stream":true }"#,
                r#"{"model":"a", "stream":true ,"stream_options":{"include_usage":true}}"#,
            ),
            ("nothing else there", "{}", r#"{"stream_options":{"include_usage":true}}"#),
            (
                "other options are kept",
                r#"{"stream_options": {"include_obfuscation": false}, "n":1.0}"#,
                r#"{"stream_options": {"include_obfuscation": false,"include_usage":true}, "n":1.0}"#,
            ),
            (
                "false becomes true",
                r#"{"stream_options":{"include_usage" : false},"a":"\u00e4}"}"#,
                r#"{"stream_options":{"include_usage" : true},"a":"\u00e4}"}"#,
            ),
            (
                "null is replaced",
                "{\"stream_options\": null,\n\"a\":{\"stream_options\":1}}\n",
                "{\"stream_options\": {\"include_usage\":true},\n\"a\":{\"stream_options\":1}}\n",
            ),
            (
                "an escaped name is the same name",
                r#"{"stream\u005foptions":{}}"#,
                r#"{"stream\u005foptions":{"include_usage":true}}"#,
            ),
        ] {
            let changed = with_usage_requested(body.as_bytes()).expect("an object");
            assert_eq!(String::from_utf8(changed).expect("text"), expected, "{rule}");
        }
        for body in ["[]", "{", "", r#"{"stream_options":"x"}"#, "{\"a\":\"\u{1}\"}"] {
            assert_eq!(with_usage_requested(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn usage_is_missing_from_streams_that_did_not_ask() {
        let body = |options| format!(r#"{{"stream":true{options}}}"#);
        for (endpoint, body, expected) in [
            (Endpoint::ChatCompletions, body(""), UsageRequest::Missing),
            (Endpoint::Completions, body(r#","stream_options":null"#), UsageRequest::Missing),
            (Endpoint::ChatCompletions, body(r#","stream_options":{"include_usage":false}"#), UsageRequest::Missing),
            (Endpoint::ChatCompletions, body(r#","stream_options":{"include_usage":true}"#), UsageRequest::Unneeded),
            (Endpoint::ChatCompletions, r#"{"stream":false}"#.to_owned(), UsageRequest::Unneeded),
            (Endpoint::Responses, body(""), UsageRequest::Unneeded),
        ] {
            assert_eq!(
                asked(&Request::of(endpoint, &serde_json::from_str(&body).expect("JSON"))).usage,
                expected,
                "{body}"
            );
        }
    }

    #[test]
    fn chat_answers_with_side_effects_or_live_data_are_never_reused() {
        for (body, reusable) in [
            ("{}", true),
            (r#"{"store":false,"user":"a"}"#, true),
            (r#"{"store":true}"#, false),
            (r#"{"web_search_options":{}}"#, false),
            (r#"{"web_search_options":null}"#, true),
            (r#"{"model":"gpt-4o-search-preview"}"#, false),
            (r#"{"tools":[{"type":"function"},{"type":"custom"}]}"#, true),
            (r#"{"tools":[{"type":"function"},{"type":"web_search"}]}"#, false),
            (r#"{"tools":[{}]}"#, false),
            ("[]", false),
        ] {
            let expected = if reusable { Reuse::Allowed(GENERATION_IGNORED) } else { Reuse::Never };
            assert_eq!(reuse_of(Endpoint::ChatCompletions, body), expected, "{body}");
        }
    }

    #[test]
    fn responses_that_are_stored_or_use_state_are_never_reused() {
        for (body, reusable) in [
            (r#"{"store":false}"#, true),
            ("{}", false),
            (r#"{"store":null}"#, false),
            (r#"{"store":true}"#, false),
            (r#"{"store":false,"previous_response_id":"resp_1"}"#, false),
            (r#"{"store":false,"previous_response_id":null}"#, true),
            (r#"{"store":false,"conversation":"conv_1"}"#, false),
            (r#"{"store":false,"background":true}"#, false),
            (r#"{"store":false,"generate":false}"#, false),
            (r#"{"store":false,"prompt":{"id":"pmpt_1"}}"#, false),
            (r#"{"store":false,"prompt":{"id":"pmpt_1","version":"2"}}"#, true),
            (r#"{"store":false,"tools":[{"type":"function"}]}"#, true),
            (r#"{"store":false,"tools":[{"type":"mcp"}]}"#, false),
        ] {
            let expected = if reusable { Reuse::Allowed(GENERATION_IGNORED) } else { Reuse::Never };
            assert_eq!(reuse_of(Endpoint::Responses, body), expected, "{body}");
        }
        assert_eq!(reuse_of(Endpoint::ResponsesCompact, r#"{"store":false}"#), Reuse::Never);
    }

    #[test]
    fn a_deployment_in_the_path_is_the_model_where_the_body_names_none() {
        for (path, body, model) in [
            ("/openai/deployments/prod-chat/chat/completions", "{}", Some("prod-chat")),
            ("/openai/deployments/prod%20chat/chat/completions", "null", Some("prod chat")),
            ("/openai/deployments/prod-chat/chat/completions", r#"{"model":"gpt"}"#, Some("gpt")),
            ("/openai/deployments//chat/completions", "{}", None),
            ("/openai/v1/chat/completions", "{}", None),
        ] {
            let body = serde_json::from_str(body).expect("JSON");
            let request = Request { path, ..Request::of(Endpoint::ChatCompletions, &body) };
            assert_eq!(asked(&request).model.as_deref(), model, "{path}");
        }
    }

    #[test]
    fn usage_is_not_asked_of_versions_that_do_not_know_how() {
        let body = serde_json::from_str(r#"{"stream":true}"#).expect("JSON");
        for (query, expected) in [
            (None, UsageRequest::Missing),
            (Some("api-version=2024-02-01"), UsageRequest::Unneeded),
            (Some("a=b&api-version=2024-06-01"), UsageRequest::Unneeded),
            (Some("api-version=2024-09-01-preview"), UsageRequest::Missing),
            (Some("api-version=2025-04-01"), UsageRequest::Missing),
            (Some("api-version=preview"), UsageRequest::Missing),
        ] {
            let request = Request { query, ..Request::of(Endpoint::ChatCompletions, &body) };
            assert_eq!(asked(&request).usage, expected, "{query:?}");
        }
    }

    #[test]
    fn forms_and_speech_say_in_their_own_way_that_they_stream() {
        for (endpoint, body, expected) in [
            (Endpoint::Transcription, r#"{"stream":"true"}"#, Delivery::Stream),
            (Endpoint::Transcription, r#"{"stream":"false"}"#, Delivery::Whole),
            (Endpoint::Speech, r#"{"stream_format":"sse"}"#, Delivery::Stream),
            (Endpoint::Speech, r#"{"stream_format":"audio"}"#, Delivery::Whole),
            (Endpoint::Images, r#"{"stream":true}"#, Delivery::Stream),
        ] {
            let value = serde_json::from_str(body).expect("JSON");
            let asked = asked(&Request::of(endpoint, &value));
            assert_eq!((asked.delivery, asked.reuse), (expected, Reuse::Never), "{body}");
        }
    }

    #[test]
    fn the_characters_of_speech_are_counted_and_not_its_bytes() {
        let body = serde_json::from_str(r#"{"model":"tts-1","input":"Grüße \ud83d\ude00"}"#).expect("JSON");
        let counted = |endpoint| asked(&Request::of(endpoint, &body)).counted;
        assert_eq!(counted(Endpoint::Speech), Some((Counter::InputCharacters, 7)));
        assert_eq!(counted(Endpoint::Embeddings), None);
    }

    #[test]
    fn the_safety_identifier_goes_before_the_user() {
        let body = serde_json::from_str(r#"{"user":"old","safety_identifier":"new"}"#).expect("JSON");
        assert_eq!(asked(&Request::of(Endpoint::ChatCompletions, &body)).user, Some("new"));
        let body = serde_json::from_str(r#"{"user":"old","safety_identifier":""}"#).expect("JSON");
        assert_eq!(asked(&Request::of(Endpoint::ChatCompletions, &body)).user, Some("old"));
    }
}
