//! Beginning: what a prompt begins with, in the order in which a provider's prompt cache sees it: tools, then instructions,
//! then turn by turn.
//!
//! "The cache prefix is created in the following order: tools, system, then messages",
//! <https://platform.claude.com/docs/en/build-with-claude/prompt-caching>; OpenAI's has the schema of the answer before
//! all, <https://platform.openai.com/docs/guides/prompt-caching>. Knows no fingerprints.

use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::provider::is_given;
use crate::provider::last_turn::is_models;
use crate::tokens::prompt::is_text;

/// What a prompt is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next text.
    Text(&'a str),
    /// Here something ends that another prompt may have, too, and then go on otherwise: tools and instructions, all that
    /// came before the model spoke last, all of it.
    End,
    /// An image or a file: nobody can tell from here how many tokens that is.
    Media,
}

/// Where a request has what comes before its turns, in this order, and where it has its turns.
type Places = (&'static [&'static str], &'static str);

/// Where Claude's requests do, whoever offers it.
const CLAUDE: Places = (&["tools", "system"], "messages");

/// Members that are no part of what the model reads: marks for the cache, which move as a conversation grows.
const MARKS: [&str; 2] = ["cachePoint", "cache_control"];
/// Members that say nothing beside what they hold: `"hi"` is `[{"text": "hi"}]`.
const PLAIN: [&str; 3] = ["content", "parts", "text"];

/// Hands over the prompt of a request to `endpoint`, piece by piece. Nothing, where it holds no prompt that a cache of
/// prompts is billed for, or not the whole of one.
pub fn pieces<'a>(endpoint: Endpoint, body: &'a Value<'a>, take: &mut dyn FnMut(Piece<'_>)) {
    let Some((before, turns)) = places(endpoint, body) else { return };
    for name in before {
        let part = body.get(*name);
        if is_given(part) {
            take(Piece::Text(name));
            hand_over(part, take);
        }
    }
    take(Piece::End);
    let turns = body.get(turns);
    match turns {
        Value::Array(turns) => {
            let (instructions, spoke_last) = (instructions(turns), where_model_spoke_last(turns));
            for (position, turn) in turns.iter().enumerate() {
                if position > 0 && (position == instructions || position == spoke_last) {
                    take(Piece::End);
                }
                hand_over(turn, take);
            }
        }
        turn => hand_over(turn, take),
    }
    take(Piece::End);
}

fn places(endpoint: Endpoint, body: &Value<'_>) -> Option<Places> {
    let is_elsewhere = |names: &[&str]| names.iter().any(|name| is_given(body.get(*name)));
    match endpoint {
        Endpoint::ChatCompletions => Some((&["response_format", "tools", "functions"], "messages")),
        Endpoint::Responses if is_elsewhere(&["previous_response_id", "conversation", "prompt"]) => None,
        Endpoint::Responses => Some((&["text", "tools", "instructions"], "input")),
        Endpoint::Messages | Endpoint::PublishedMessages => Some(CLAUDE),
        Endpoint::InvokeModel if is_given(body.get("anthropic_version")) => Some(CLAUDE),
        Endpoint::Converse => Some((&["toolConfig", "system"], "messages")),
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent
            if is_elsewhere(&["cachedContent", "cached_content"]) =>
        {
            None
        }
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => {
            Some((&["tools", "systemInstruction", "system_instruction"], "contents"))
        }
        _ => None,
    }
}

/// How many turns come first that instruct the model.
fn instructions(turns: &[Value<'_>]) -> usize {
    let instructs = |turn: &&Value<'_>| matches!(turn.get("role").as_str(), Some("system" | "developer"));
    turns.iter().take_while(instructs).count()
}

/// The first of the turns in which the model spoke last: before it is what it was asked then.
fn where_model_spoke_last(turns: &[Value<'_>]) -> usize {
    let last = turns.iter().rposition(is_models).unwrap_or(0);
    turns[..last].iter().rposition(|turn| !is_models(turn)).map_or(0, |asked| asked + 1)
}

fn hand_over(value: &Value<'_>, take: &mut dyn FnMut(Piece<'_>)) {
    match value {
        Value::Str(text) if is_text(text) => take(Piece::Text(text)),
        Value::Str(_) => take(Piece::Media),
        Value::Number(number) => take(Piece::Text(&number.to_string())),
        Value::Bool(yes) => take(Piece::Text(if *yes { "true" } else { "false" })),
        Value::Array(items) => items.iter().for_each(|item| hand_over(item, take)),
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(name, _)| !MARKS.contains(name)) {
                if name == "type" && matches!(member.as_str(), Some("text" | "input_text")) {
                    continue;
                }
                if !PLAIN.contains(&name) {
                    take(Piece::Text(name));
                }
                hand_over(member, take);
            }
        }
        Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts, with a bar where something ends and a hash for what is no text.
    fn spelt(endpoint: Endpoint, body: &str) -> String {
        let body: Value<'_> = serde_json::from_str(body).expect("JSON");
        let mut texts: Vec<String> = Vec::new();
        pieces(endpoint, &body, &mut |piece| {
            texts.push(match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::End => "|".to_owned(),
                Piece::Media => "#".to_owned(),
            });
        });
        texts.join(" ")
    }

    #[test]
    fn a_prompt_is_handed_over_as_the_cache_sees_it() {
        for (rule, endpoint, body, expected) in [
            (
                "tools, then system, then messages, however they are written",
                Endpoint::Messages,
                r#"{"messages":[{"role":"user","content":"c"}],"system":"b","tools":[{"name":"a"}],"max_tokens":1}"#,
                "tools name a system b | role user c |",
            ),
            (
                "the schema of the answer first",
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"system","content":"b"}],"tools":[{"n":1,"s":true}],"response_format":{"x":"y"}}"#,
                "response_format x y tools n 1 s true | role system b |",
            ),
            (
                "what came before the model spoke last, tools' results after it",
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},
                    {"role":"tool","content":"c"},{"role":"tool","content":"d"}]}"#,
                "| role user a | role assistant b role tool c role tool d |",
            ),
            (
                "several items of the model's, one after the other",
                Endpoint::Responses,
                r#"{"instructions":"a","input":[{"role":"user","content":"b"},{"type":"reasoning"},
                    {"type":"function_call","name":"f"},{"type":"function_call_output","output":"c"}]}"#,
                "instructions a | role user b | type reasoning type function_call name f \
                 type function_call_output output c |",
            ),
        ] {
            assert_eq!(spelt(endpoint, body), expected, "{rule}");
        }
    }

    #[test]
    fn every_api_s_own_shape_is_known_and_what_is_a_part_only_is_left_alone() {
        let image = "A".repeat(300);
        for (rule, endpoint, body, expected) in [
            (
                "instructions among the turns",
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"developer","content":"a"},{"role":"user","content":"b"}]}"#,
                "| role developer a | role user b |",
            ),
            ("one text", Endpoint::Responses, r#"{"input":"a"}"#, "| a |"),
            (
                "marks for the cache say nothing, nor does how a text is written",
                Endpoint::Messages,
                r#"{"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}],
                    "messages":[{"role":"user","content":[{"type":"text","text":"b"}]}]}"#,
                "system a | role user b |",
            ),
            (
                "Bedrock's marks stand by themselves",
                Endpoint::Converse,
                r#"{"system":[{"text":"a"},{"cachePoint":{"type":"default"}}],"messages":[]}"#,
                "system a | |",
            ),
            (
                "Gemini's",
                Endpoint::GenerateContent,
                r#"{"systemInstruction":{"parts":[{"text":"a"}]},"contents":[{"role":"user","parts":[{"text":"b"}]}]}"#,
                "systemInstruction a | role user b |",
            ),
            (
                "Claude's on Bedrock",
                Endpoint::InvokeModel,
                r#"{"anthropic_version":"bedrock-2023-05-31","messages":[{"role":"user","content":"a"}]}"#,
                "| role user a |",
            ),
            (
                "an image",
                Endpoint::ChatCompletions,
                &format!(r#"{{"messages":[{{"role":"user","content":[{{"data":"{image}"}}]}}]}}"#),
                "| role user data # |",
            ),
            ("another's on Bedrock", Endpoint::InvokeModel, r#"{"inputText":"a"}"#, ""),
            ("a part only", Endpoint::Responses, r#"{"previous_response_id":"r","input":"a"}"#, ""),
            ("a part only", Endpoint::GenerateContent, r#"{"cachedContent":"c","contents":[]}"#, ""),
            ("no prompt", Endpoint::Embeddings, r#"{"input":"a","messages":[{"role":"user"}]}"#, ""),
        ] {
            assert_eq!(spelt(endpoint, body), expected, "{rule}");
        }
    }
}
