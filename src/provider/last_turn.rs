//! Last turn: what an app has said since the model spoke last. The user's words, or what the tools brought: where a
//! conversation grows with each call, this is what the call adds.
//!
//! Knows no endpoint that does not hold a conversation.

use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;

/// Members that say nothing by themselves: names that are made up anew for each call, marks for caches, signatures.
const UNSAID: &[&str] = &[
    "cachePoint",
    "cache_control",
    "call_id",
    "id",
    "signature",
    "thoughtSignature",
    "toolUseId",
    "tool_call_id",
    "tool_use_id",
];

/// Hands over the texts of the last turn of a request to `endpoint`, in order.
pub fn last_turn(endpoint: Endpoint, body: &Value<'_>, take: &mut dyn FnMut(&str)) {
    let turns = match endpoint {
        Endpoint::ChatCompletions
        | Endpoint::Messages
        | Endpoint::PublishedMessages
        | Endpoint::CohereChat
        | Endpoint::OllamaChat
        | Endpoint::Converse => body.get("messages"),
        Endpoint::Responses => body.get("input"),
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => body.get("contents"),
        _ => return,
    };
    let Value::Array(turns) = turns else { return say(turns, take) };
    let begins = turns.iter().rposition(is_models).map_or(0, |models| models + 1);
    turns.iter().skip(begins).for_each(|turn| say(turn, take));
}

/// Whether the model spoke. An item of OpenAI's responses that has no role is the model's, unless it is the output of a
/// tool.
pub(super) fn is_models(turn: &Value<'_>) -> bool {
    let role = turn.get("role").as_str();
    let is_models_item = |kind: &str| kind != "message" && !kind.ends_with("_output");
    match role {
        Some(role) => matches!(role, "assistant" | "model"),
        None => turn.get("type").as_str().is_some_and(is_models_item),
    }
}

fn say(value: &Value<'_>, take: &mut dyn FnMut(&str)) {
    match value {
        Value::Str(text) => take(text),
        Value::Number(number) => take(&number.to_string()),
        Value::Bool(yes) => take(if *yes { "true" } else { "false" }),
        Value::Array(items) => items.iter().for_each(|item| say(item, take)),
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(name, _)| !UNSAID.contains(name)) {
                take(name);
                say(member, take);
            }
        }
        Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(endpoint: Endpoint, body: &str) -> String {
        let body: Value<'_> = serde_json::from_str(body).expect("JSON");
        let mut texts = Vec::new();
        last_turn(endpoint, &body, &mut |text| texts.push(text.to_owned()));
        texts.join(" ")
    }

    #[test]
    fn a_turn_is_all_that_came_since_the_model_spoke() {
        for (rule, endpoint, body, expected) in [
            (
                "the user's words",
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"assistant","content":"a"},{"role":"user","content":"b"}]}"#,
                "role user content b",
            ),
            (
                "all results of tools, whatever their calls are named",
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"assistant"},{"role":"tool","tool_call_id":"1","content":"b"},
                    {"role":"tool","tool_call_id":"2","content":"c"}]}"#,
                "role tool content b role tool content c",
            ),
            (
                "all of it, where the model has not spoken",
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"system","content":"a"},{"role":"user","content":"b"}]}"#,
                "role system content a role user content b",
            ),
            (
                "Anthropic's results",
                Endpoint::Messages,
                r#"{"messages":[{"role":"assistant","content":[]},{"role":"user","content":[
                    {"type":"tool_result","tool_use_id":"toolu_1","content":"b","cache_control":{"type":"ephemeral"}}]}]}"#,
                "role user content type tool_result content b",
            ),
            (
                "Gemini's results, with what they hold",
                Endpoint::GenerateContent,
                r#"{"contents":[{"role":"model"},{"role":"user","parts":[
                    {"functionResponse":{"id":"1","name":"f","response":{"count":3,"ok":true}}}]}]}"#,
                "role user parts functionResponse name f response count 3 ok true",
            ),
            (
                "Bedrock's results",
                Endpoint::Converse,
                r#"{"messages":[{"role":"assistant"},{"role":"user","content":[
                    {"toolResult":{"toolUseId":"t","content":[{"text":"b"}]}},{"cachePoint":{"type":"default"}}]}]}"#,
                "role user content toolResult content text b",
            ),
            (
                "a response's items",
                Endpoint::Responses,
                r#"{"input":[{"role":"user","content":"a"},{"type":"reasoning","id":"rs_1"},
                    {"type":"function_call","call_id":"1","name":"f"},
                    {"type":"function_call_output","call_id":"1","output":"b"}]}"#,
                "type function_call_output output b",
            ),
            ("a response's only words", Endpoint::Responses, r#"{"input":"a"}"#, "a"),
            (
                "a message without a role's kind",
                Endpoint::Responses,
                r#"{"input":[{"type":"message","role":"user","content":"a"}]}"#,
                "type message role user content a",
            ),
            ("nothing", Endpoint::ChatCompletions, "{}", ""),
            ("no conversation", Endpoint::Embeddings, r#"{"input":"a","messages":[{"role":"user"}]}"#, ""),
        ] {
            assert_eq!(said(endpoint, body), expected, "{rule}");
        }
    }
}
