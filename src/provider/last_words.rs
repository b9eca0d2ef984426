//! Last words: the text a conversation ends with, where its last turn is the user's and nothing but one text.
//!
//! Anything beside the text (a picture, a document, the result of a tool, a second text) means that the text alone does
//! not say what is asked. Knows no endpoint that does not hold a conversation: where a text is to be counted or
//! embedded, every letter matters.

use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::{is_given, text};

/// What the user says last in a request to `endpoint`: one of the strings of its body.
#[must_use]
pub fn last_words<'a>(endpoint: Endpoint, body: &'a Value<'a>) -> Option<&'a str> {
    match endpoint {
        Endpoint::ChatCompletions
        | Endpoint::Messages
        | Endpoint::PublishedMessages
        | Endpoint::CohereChat
        | Endpoint::OllamaChat
        | Endpoint::Converse => said(last_of_user(body.get("messages"))?, "content"),
        Endpoint::Responses => match body.get("input") {
            input @ Value::Str(_) => text(input),
            input => said(last_of_user(input)?, "content"),
        },
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => {
            let last = body.get("contents").as_array()?.last()?;
            // Gemini's contents are the user's unless they say otherwise.
            let is_users = last.get("role").is_null() || last.get("role").as_str() == Some("user");
            if is_users { said(last, "parts") } else { None }
        }
        _ => None,
    }
}

/// The last of these turns, if it is the user's.
fn last_of_user<'a>(turns: &'a Value<'a>) -> Option<&'a Value<'a>> {
    turns.as_array()?.last().filter(|turn| turn.get("role").as_str() == Some("user"))
}

/// The text of a turn whose member of this name is one, or holds one and nothing else.
fn said<'a>(turn: &'a Value<'a>, member: &'static str) -> Option<&'a str> {
    // Ollama's pictures stand beside the text.
    if is_given(turn.get("images")) {
        return None;
    }
    match turn.get(member) {
        content @ Value::Str(_) => text(content),
        Value::Array(parts) => match parts.as_slice() {
            [part] if is_text(part) => text(part.get("text")),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a part is a text and nothing else: of a known type, or of none and without anything beside it.
fn is_text(part: &Value<'_>) -> bool {
    match part.get("type") {
        Value::Null => part.as_object().is_some_and(|members| members.len() == 1),
        kind => matches!(kind.as_str(), Some("text" | "input_text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_last(endpoint: Endpoint, body: &str) -> Option<String> {
        let body: Value<'_> = serde_json::from_str(body).expect("JSON");
        last_words(endpoint, &body).map(str::to_owned)
    }

    #[test]
    fn the_last_turn_is_read_in_every_conversations_own_shape() {
        use Endpoint::{
            ChatCompletions, CohereChat, Converse, GenerateContent, Messages, OllamaChat, PublishedMessages, Responses,
            StreamGenerateContent,
        };
        let plain = r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}]}"#;
        let parts = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}"#;
        for endpoint in [ChatCompletions, Messages, PublishedMessages, CohereChat, OllamaChat] {
            assert_eq!(said_last(endpoint, plain).as_deref(), Some("hi"), "{endpoint:?}");
            assert_eq!(said_last(endpoint, parts).as_deref(), Some("hi"), "{endpoint:?}");
        }
        for (endpoint, body) in [
            (Converse, r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#),
            (Responses, r#"{"input":"hi"}"#),
            (Responses, r#"{"input":[{"role":"user","content":"hi"}]}"#),
            (
                Responses,
                r#"{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}]}"#,
            ),
            (GenerateContent, r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#),
            (StreamGenerateContent, r#"{"contents":[{"role":"model"},{"role":"user","parts":[{"text":"hi"}]}]}"#),
            (Messages, r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{}}]}]}"#),
        ] {
            assert_eq!(said_last(endpoint, body).as_deref(), Some("hi"), "{endpoint:?} {body}");
        }
    }

    #[test]
    fn a_turn_that_is_not_the_users_or_not_one_text_says_nothing_by_itself() {
        use Endpoint::{ChatCompletions, Converse, GenerateContent, Messages, OllamaChat, Responses};
        for (rule, endpoint, body) in [
            ("no turns", ChatCompletions, r#"{"messages":[]}"#),
            ("no list", ChatCompletions, r#"{"messages":"hi"}"#),
            ("no messages", ChatCompletions, "{}"),
            ("the model's turn", ChatCompletions, r#"{"messages":[{"role":"assistant","content":"hi"}]}"#),
            ("a tool's turn", ChatCompletions, r#"{"messages":[{"role":"tool","tool_call_id":"1","content":"hi"}]}"#),
            ("nobody's turn", ChatCompletions, r#"{"messages":[{"content":"hi"}]}"#),
            ("nothing said", ChatCompletions, r#"{"messages":[{"role":"user","content":""}]}"#),
            (
                "two texts",
                ChatCompletions,
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#,
            ),
            (
                "a picture",
                ChatCompletions,
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}]}"#,
            ),
            (
                "a tool's result",
                Messages,
                r#"{"messages":[{"role":"user","content":[{"type":"tool_result","content":"a"}]}]}"#,
            ),
            ("a document", Messages, r#"{"messages":[{"role":"user","content":[{"type":"document","text":"a"}]}]}"#),
            ("pictures beside", OllamaChat, r#"{"messages":[{"role":"user","content":"a","images":["AA"]}]}"#),
            ("a picture", Converse, r#"{"messages":[{"role":"user","content":[{"text":"a"},{"image":{}}]}]}"#),
            ("guarded", Converse, r#"{"messages":[{"role":"user","content":[{"guardContent":{"text":"a"}}]}]}"#),
            ("a tool's output", Responses, r#"{"input":[{"type":"function_call_output","output":"a"}]}"#),
            ("the model's turn", GenerateContent, r#"{"contents":[{"role":"model","parts":[{"text":"a"}]}]}"#),
            ("a thought", GenerateContent, r#"{"contents":[{"parts":[{"text":"a","thought":true}]}]}"#),
            ("data", GenerateContent, r#"{"contents":[{"parts":[{"inlineData":{}},{"text":"a"}]}]}"#),
        ] {
            assert_eq!(said_last(endpoint, body), None, "{rule}: {body}");
        }
    }

    #[test]
    fn what_is_counted_or_embedded_is_no_conversation() {
        let body = r#"{"messages":[{"role":"user","content":"a"}],"input":"a","contents":[{"parts":[{"text":"a"}]}]}"#;
        let conversations = [
            Endpoint::ChatCompletions,
            Endpoint::Responses,
            Endpoint::Messages,
            Endpoint::PublishedMessages,
            Endpoint::GenerateContent,
            Endpoint::StreamGenerateContent,
            Endpoint::CohereChat,
            Endpoint::OllamaChat,
            Endpoint::Converse,
        ];
        for endpoint in Endpoint::ALL {
            let expected = conversations.contains(endpoint);
            assert_eq!(said_last(*endpoint, body).is_some(), expected, "{endpoint:?}");
        }
    }
}
