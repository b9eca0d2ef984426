//! Prompt: the text of a request that a model reads, found in its JSON without knowing which API it is for.
//!
//! Requests name the parts that a model reads by a few words, the same in every API. What is written in them is text,
//! but for the names of the format itself, references, and images or files in base64. Those have tokens too; how many
//! is for their vendor to say, so they are left out.

use serde_json_borrow::Value;

/// Top-level members that hold what a model reads.
const READ: [&str; 24] = [
    "chat_history",
    "contents",
    "documents",
    "functions",
    "input",
    "inputText",
    "inputs",
    "instructions",
    "message",
    "messages",
    "preamble",
    "prompt",
    "response_format",
    "suffix",
    "system",
    "systemInstruction",
    "system_instruction",
    "text",
    "text_format",
    "texts",
    "toolConfig",
    "tool_config",
    "tools",
    "requests",
];

/// Those that become a message of their own.
const MESSAGES: [&str; 5] = ["instructions", "preamble", "system", "systemInstruction", "system_instruction"];

/// Members of these whose value is a word of the format, a reference, or no text.
const FORMAT_VALUES: [&str; 24] = [
    "cache_control",
    "call_id",
    "detail",
    "encrypted_content",
    "file_data",
    "file_id",
    "file_uri",
    "fileUri",
    "format",
    "id",
    "image_url",
    "item_id",
    "media_type",
    "mimeType",
    "mime_type",
    "model",
    "role",
    "signature",
    "status",
    "thoughtSignature",
    "tool_call_id",
    "tool_use_id",
    "type",
    "url",
];

/// Members whose value is the app's own JSON: all of it is text, the names of its members included.
const OWN_JSON: [&str; 9] = [
    "args",
    "arguments",
    "functionResponse",
    "inputSchema",
    "input_schema",
    "json",
    "parameters",
    "response",
    "schema",
];

/// Tokens that frame each message: who speaks, and where the message begins and ends. (OpenAI's cookbook, "How to count
/// tokens with tiktoken", has three and one for the role.)
const AROUND_A_MESSAGE: u64 = 4;

/// Tokens of the quotes, colons and commas around a member of the app's own JSON.
const AROUND_A_MEMBER: u64 = 2;

/// A text of at least this length without any white space, in the letters of base64, is no text.
const SHORTEST_BASE64: usize = 256;

/// What APIs call the most tokens that a model may generate for one choice.
const MOST_OUTPUT: [&str; 9] = [
    "maxOutputTokens",
    "maxTokens",
    "maxTokenCount",
    "max_completion_tokens",
    "max_new_tokens",
    "max_output_tokens",
    "max_tokens",
    "n_predict",
    "num_predict",
];

/// What they call the number of choices.
const CHOICES: [&str; 3] = ["candidateCount", "n", "num_generations"];

/// Members that may hold these, beside the request itself.
const PARAMETERS: [&str; 5] = ["generationConfig", "inferenceConfig", "options", "parameters", "textGenerationConfig"];

/// The most tokens that a request lets a model generate, in all its choices; `None` if it sets no limit.
#[must_use]
pub fn most_output(request: &Value<'_>) -> Option<u64> {
    let places = || std::iter::once(request).chain(PARAMETERS.iter().map(|name| request.get(*name)));
    let number = |names: &[&str]| places().find_map(|place| names.iter().find_map(|name| place.get(*name).as_u64()));
    number(&MOST_OUTPUT).map(|most| most.saturating_mul(number(&CHOICES).unwrap_or(1).max(1)))
}

/// How large a prompt is: what there is to tell without counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Bytes of text.
    pub text_bytes: u64,
    /// Tokens beside the text: the frames of messages, and tokens that the request itself lists as numbers.
    pub tokens_beside: u64,
}

/// Measures the prompt of a request, handing over each text in it.
pub fn read<'a>(request: &'a Value<'a>, on_text: &mut dyn FnMut(&'a str)) -> Measure {
    let mut walk = Walk { measure: Measure::default(), on_text };
    if let Value::Object(members) = request {
        for (name, value) in members.iter().filter(|(name, _)| READ.contains(name)) {
            if MESSAGES.contains(&name) {
                walk.measure.tokens_beside += AROUND_A_MESSAGE;
            }
            walk.add(value, Place::Format);
        }
    }
    walk.measure
}

struct Walk<'a, 'f> {
    measure: Measure,
    on_text: &'f mut dyn FnMut(&'a str),
}

/// Where in a request a value stands.
#[derive(Clone, Copy)]
enum Place {
    /// In the API's own format.
    Format,
    /// In JSON of the app's own making.
    OwnJson,
}

impl<'a> Walk<'a, '_> {
    fn add(&mut self, value: &'a Value<'a>, place: Place) {
        match value {
            Value::Str(text) => self.text(text),
            // A list of numbers is a list of tokens.
            Value::Number(_) => self.measure.tokens_beside += 1,
            Value::Array(items) => items.iter().for_each(|item| self.add(item, place)),
            Value::Object(members) => {
                for (name, value) in members.iter() {
                    self.member(name, value, place);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn member(&mut self, name: &'a str, value: &'a Value<'a>, place: Place) {
        let is_object = matches!(value, Value::Object(_));
        // A tool's `input` is the app's own where it is an object; a request's `input` is a text or a list.
        let own = matches!(place, Place::OwnJson) || OWN_JSON.contains(&name) || (name == "input" && is_object);
        if own {
            self.text(name);
            self.measure.tokens_beside += AROUND_A_MEMBER;
            return self.add(value, Place::OwnJson);
        }
        if name == "role" {
            self.measure.tokens_beside += AROUND_A_MESSAGE;
        }
        let is_word_of_the_format = FORMAT_VALUES.contains(&name) && !(name == "format" && is_object);
        if !is_word_of_the_format {
            self.add(value, Place::Format);
        }
    }

    fn text(&mut self, text: &'a str) {
        if is_text(text) {
            self.measure.text_bytes += text.len() as u64;
            (self.on_text)(text);
        }
    }
}

/// Whether a string of a request is text: neither an image nor a file in base64.
#[must_use]
pub fn is_text(text: &str) -> bool {
    !text.starts_with("data:") && !is_base64(text)
}

fn is_base64(text: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    text.len() >= SHORTEST_BASE64 && text.as_bytes()[..SHORTEST_BASE64].iter().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(request: &str) -> (String, u64) {
        let request = serde_json::from_str(request).expect("JSON");
        let mut texts = Vec::new();
        let measure = read(&request, &mut |text| texts.push(text.to_owned()));
        assert_eq!(measure.text_bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
        (texts.join("|"), measure.tokens_beside)
    }

    #[test]
    fn the_prompt_of_every_api_is_found() {
        for (api, request, texts, beside) in [
            (
                "chat completions",
                r#"{"model":"gpt-5","user":"u","messages":[{"role":"system","content":"be brief"},
                    {"role":"user","content":[{"type":"text","text":"hello"}]}]}"#,
                "be brief|hello",
                8,
            ),
            ("responses", r#"{"model":"gpt-5","instructions":"be brief","input":"hello"}"#, "be brief|hello", 4),
            (
                "responses, items",
                r#"{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"hello"}]},
                    {"type":"function_call_output","call_id":"call_1","output":"12"}]}"#,
                "hello|12",
                4,
            ),
            (
                "messages",
                r#"{"max_tokens":9,"system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}}],
                    "messages":[{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"look",
                    "input":{"city":"Rome"}}]}]}"#,
                "be brief|look|input|city|Rome",
                12,
            ),
            (
                "Gemini",
                r#"{"systemInstruction":{"parts":[{"text":"be brief"}]},"contents":[{"role":"user",
                    "parts":[{"text":"hello"}]}],"generationConfig":{"temperature":1}}"#,
                "be brief|hello",
                8,
            ),
            ("Converse", r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#, "hello", 4),
            ("embeddings", r#"{"model":"m","input":["one","two"]}"#, "one|two", 0),
            ("embeddings of tokens", r#"{"model":"m","input":[[1,2,3],[4]]}"#, "", 4),
            ("completions", r#"{"prompt":"once upon","suffix":"the end","max_tokens":5}"#, "once upon|the end", 0),
            ("no prompt", r#"{"model":"m"}"#, "", 0),
            ("no request", "[1,2]", "", 0),
        ] {
            assert_eq!(prompt(request), (texts.to_owned(), beside), "{api}");
        }
    }

    #[test]
    fn the_most_that_a_request_lets_a_model_generate_is_found() {
        for (api, request, expected) in [
            ("chat completions", r#"{"max_completion_tokens":100,"n":3}"#, Some(300)),
            ("responses", r#"{"max_output_tokens":100}"#, Some(100)),
            ("messages", r#"{"max_tokens":100,"tools":[{"input_schema":{"properties":{"n":2}}}]}"#, Some(100)),
            ("Gemini", r#"{"generationConfig":{"maxOutputTokens":100,"candidateCount":2}}"#, Some(200)),
            ("Converse", r#"{"inferenceConfig":{"maxTokens":100}}"#, Some(100)),
            ("Ollama", r#"{"options":{"num_predict":100}}"#, Some(100)),
            ("Ollama without a limit", r#"{"options":{"num_predict":-1}}"#, None),
            ("TGI", r#"{"parameters":{"max_new_tokens":100}}"#, Some(100)),
            ("no limit", r#"{"messages":[{"max_tokens":5}]}"#, None),
            ("no request", "[1]", None),
        ] {
            assert_eq!(most_output(&serde_json::from_str(request).expect("JSON")), expected, "{api}");
        }
    }

    #[test]
    fn a_tool_s_schema_is_text() {
        let tool = r#"{"tools":[{"type":"function","function":{"name":"weather","description":"of a place",
            "parameters":{"type":"object","properties":{"url":{"type":"string"}}}}}]}"#;
        let (texts, beside) = prompt(tool);
        assert_eq!(texts, "weather|of a place|parameters|type|object|properties|url|type|string");
        assert_eq!(beside, 10);
    }

    #[test]
    fn images_files_and_references_are_no_text() {
        let blob = "QUJD".repeat(100);
        for (kind, part) in [
            ("data URL", format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{blob}"}}}}"#)),
            ("URL", r#"{"type":"input_image","image_url":"https://example.com/a.png"}"#.to_owned()),
            ("Anthropic", format!(r#"{{"type":"image","source":{{"type":"base64","data":"{blob}"}}}}"#)),
            ("Gemini", format!(r#"{{"inlineData":{{"mimeType":"image/png","data":"{blob}"}}}}"#)),
            ("file", format!(r#"{{"type":"file","file":{{"file_data":"data:application/pdf;base64,{blob}"}}}}"#)),
        ] {
            let request = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
            assert_eq!(prompt(&request).0, "", "{kind}");
        }
        let text = r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"a plain text"}}"#;
        assert_eq!(prompt(&format!(r#"{{"messages":[{{"content":[{text}]}}]}}"#)).0, "a plain text");
    }
}
