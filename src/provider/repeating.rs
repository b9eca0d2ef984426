//! Repeating: whether a request may be made twice, and what an error says of that. Knows no status, no clock and no rule
//! of the operator's.

use std::time::Duration;

use serde_json_borrow::Value;

use crate::json;
use crate::provider::quotas::INSUFFICIENT_QUOTA;

/// What the body of an error says of making the call again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// It would be in vain: the money is spent.
    pub is_spent: bool,
    /// In how long.
    pub wait: Option<Duration>,
}

/// What `body`, of an error in the shape of any API, says of making the call again.
///
/// `OpenAI` tells by the error's type or code that money is missing (429 `insufficient_quota`); Gemini names the wait in
/// `google.rpc.RetryInfo` and has no header for it. A stream that fails at once is an array of one error.
#[must_use]
pub fn hint(body: &[u8]) -> Hint {
    let Some(body) = json::read::<Value<'_>>(body) else { return Hint::default() };
    let body = match &body {
        Value::Array(items) => items.first().unwrap_or(&Value::Null),
        other => other,
    };
    let error = body.get("error");
    let is_spent = ["type", "code"].iter().any(|name| error.get(*name).as_str() == Some(INSUFFICIENT_QUOTA));
    let details = error.get("details");
    let wait =
        details.iter_array().into_iter().flatten().find_map(|detail| seconds(detail.get("retryDelay").as_str()?));
    Hint { is_spent, wait }
}

/// A length of time as protobuf writes it in JSON: `37s`, `6.4s`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

/// Whether what is asked leaves something behind at the provider or does something elsewhere, so that it must not be
/// done twice: work in the background, a conversation or a container that it goes on with, tools of others that the
/// provider calls itself.
///
/// That an answer is kept for later (`store`) is no such thing: the app never learns the id of the one that was lost.
#[must_use]
pub fn has_lasting_effects(body: &Value<'_>) -> bool {
    let is_there = |name: &str| match body.get(name) {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let calls_others = |tool: &Value<'_>| tool.get("type").as_str().is_some_and(|kind| kind.starts_with("mcp"));
    ["background", "conversation", "container", "mcp_servers"].into_iter().any(is_there)
        || body.get("tools").iter_array().into_iter().flatten().any(calls_others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whether_and_when_to_try_again() {
        let wait = |millis| Hint { wait: Some(Duration::from_millis(millis)), is_spent: false };
        let spent = Hint { is_spent: true, wait: None };
        for (rule, body, expected) in [
            ("OpenAI, by code", r#"{"error":{"message":"m","type":"requests","code":"insufficient_quota"}}"#, spent),
            ("OpenAI, by type", r#"{"error":{"message":"m","type":"insufficient_quota","code":null}}"#, spent),
            ("OpenAI, a rate", r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#, Hint::default()),
            (
                "Gemini",
                r#"{"error":{"code":429,"details":[{"@type":"a"},{"@type":"t/google.rpc.RetryInfo","retryDelay":"37s"}]}}"#,
                wait(37_000),
            ),
            ("Gemini's stream", r#"[{"error":{"details":[{"retryDelay":"6.4s"}]}}]"#, wait(6_400)),
            ("a negative wait", r#"{"error":{"details":[{"retryDelay":"-1s"}]}}"#, Hint::default()),
            ("Anthropic", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, Hint::default()),
            ("a text", r#"{"error":"busy"}"#, Hint::default()),
            ("no JSON", "upstream connect error", Hint::default()),
            ("nothing", "", Hint::default()),
            ("an empty array", "[]", Hint::default()),
        ] {
            assert_eq!(hint(body.as_bytes()), expected, "{rule}");
        }
    }

    #[test]
    fn what_would_be_done_twice_is_not_repeated() {
        for (rule, body, expected) in [
            ("a chat", r#"{"model":"m","messages":[]}"#, false),
            ("a response that is kept", r#"{"model":"m","input":"hi","store":true}"#, false),
            ("after another one", r#"{"model":"m","previous_response_id":"r"}"#, false),
            ("in the background", r#"{"model":"m","background":true}"#, true),
            ("not in the background", r#"{"model":"m","background":false}"#, false),
            ("a conversation", r#"{"model":"m","conversation":"conv_1"}"#, true),
            ("no conversation", r#"{"model":"m","conversation":null}"#, false),
            ("a container", r#"{"model":"m","container":"c"}"#, true),
            ("Anthropic's servers of tools", r#"{"model":"m","mcp_servers":[{"name":"s"}]}"#, true),
            ("no server of tools", r#"{"model":"m","mcp_servers":[]}"#, false),
            ("OpenAI's", r#"{"model":"m","tools":[{"type":"function"},{"type":"mcp"}]}"#, true),
            ("Anthropic's toolset", r#"{"model":"m","tools":[{"type":"mcp_toolset"}]}"#, true),
            ("tools of the app's own", r#"{"model":"m","tools":[{"type":"function"},{"name":"t"}]}"#, false),
        ] {
            let body: Value<'_> = serde_json::from_str(body).expect("JSON");
            assert_eq!(has_lasting_effects(&body), expected, "{rule}");
        }
    }
}
