//! Parameters: how an answer is to be made, read from the tree that a request was parsed into.
//!
//! One table of names for all APIs: what one calls `top_p` another calls `topP` and means the same. Knows nothing of
//! what becomes of them.

use serde_json_borrow::Value;

use crate::provider::endpoint::Endpoint;
use crate::record::call::Operation;
use crate::record::trace::Parameters;

/// What holds parameters, beside the request itself.
const PLACES: [&str; 5] = ["generationConfig", "inferenceConfig", "options", "parameters", "textGenerationConfig"];

const MAX_TOKENS: [&str; 9] = [
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "maxOutputTokens",
    "maxTokens",
    "maxTokenCount",
    "max_new_tokens",
    "n_predict",
    "num_predict",
];
const TEMPERATURE: [&str; 1] = ["temperature"];
const TOP_P: [&str; 3] = ["top_p", "topP", "p"];
const TOP_K: [&str; 3] = ["top_k", "topK", "k"];
const SEED: [&str; 1] = ["seed"];
const CHOICES: [&str; 3] = ["n", "candidateCount", "num_generations"];

/// The longest id of a conversation that is kept, in bytes.
const MAX_CONVERSATION_BYTES: usize = 128;

/// The parameters of a request to this endpoint.
#[must_use]
pub fn parameters(endpoint: Endpoint, request: &Value<'_>) -> Parameters {
    let find = |names: &[&'static str]| number(request, names);
    Parameters {
        max_tokens: find(&MAX_TOKENS).and_then(Value::as_u64),
        temperature: find(&TEMPERATURE).and_then(Value::as_f64),
        top_p: find(&TOP_P).and_then(Value::as_f64),
        top_k: find(&TOP_K).and_then(Value::as_f64),
        seed: find(&SEED).and_then(Value::as_i64),
        choices: find(&CHOICES).and_then(Value::as_u64),
        output: output(endpoint.operation(), request),
        conversation: conversation(request),
    }
}

/// The first number by one of these names.
fn number<'a>(request: &'a Value<'a>, names: &[&'static str]) -> Option<&'a Value<'a>> {
    let mut places = std::iter::once(request).chain(PLACES.iter().map(|name| request.get(*name)));
    places.find_map(|place| names.iter().map(|name| place.get(*name)).find(|value| value.is_number()))
}

/// `gen_ai.output.type`, where the request asks for one.
fn output(operation: Operation, request: &Value<'_>) -> Option<&'static str> {
    match operation {
        Operation::ImageGeneration => return Some("image"),
        Operation::Speech => return Some("speech"),
        _ => {}
    }
    let openai = request.get("response_format").get("type").as_str();
    let responses = request.get("text").get("format").get("type").as_str();
    let gemini = request.get("generationConfig").get("responseMimeType").as_str();
    match openai.or(responses).or(gemini)? {
        "text" | "text/plain" => Some("text"),
        "json_object" | "json_schema" | "application/json" => Some("json"),
        _ => None,
    }
}

/// The conversation that OpenAI's Responses API keeps, by its id.
fn conversation(request: &Value<'_>) -> Option<Box<str>> {
    let conversation = request.get("conversation");
    let id = conversation.as_str().or_else(|| conversation.get("id").as_str())?;
    (id.len() <= MAX_CONVERSATION_BYTES).then(|| id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoint: Endpoint, request: &str) -> Parameters {
        parameters(endpoint, &serde_json::from_str(request).expect("JSON"))
    }

    #[test]
    fn every_api_s_names_mean_the_same() {
        let sampled = |max_tokens, temperature, top_p| Parameters {
            max_tokens: Some(max_tokens),
            temperature: Some(temperature),
            top_p: Some(top_p),
            ..Parameters::default()
        };
        for (api, endpoint, request, expected) in [
            (
                "OpenAI",
                Endpoint::ChatCompletions,
                r#"{"max_completion_tokens":9,"temperature":0.5,"top_p":0.9,"seed":-7,"n":2}"#,
                Parameters { seed: Some(-7), choices: Some(2), ..sampled(9, 0.5, 0.9) },
            ),
            (
                "Anthropic",
                Endpoint::Messages,
                r#"{"max_tokens":9,"temperature":1,"top_p":0.9,"top_k":40}"#,
                Parameters { top_k: Some(40.0), ..sampled(9, 1.0, 0.9) },
            ),
            (
                "Gemini",
                Endpoint::GenerateContent,
                r#"{"generationConfig":{"maxOutputTokens":9,"temperature":0,"topP":0.9,"topK":4,"candidateCount":1}}"#,
                Parameters { top_k: Some(4.0), choices: Some(1), ..sampled(9, 0.0, 0.9) },
            ),
            (
                "Bedrock",
                Endpoint::Converse,
                r#"{"inferenceConfig":{"maxTokens":9,"temperature":0.5,"topP":0.9}}"#,
                sampled(9, 0.5, 0.9),
            ),
            (
                "Cohere",
                Endpoint::CohereChat,
                r#"{"max_tokens":9,"temperature":0.5,"p":0.9,"k":3,"seed":1}"#,
                Parameters { top_k: Some(3.0), seed: Some(1), ..sampled(9, 0.5, 0.9) },
            ),
            (
                "Ollama",
                Endpoint::OllamaChat,
                r#"{"options":{"num_predict":9,"temperature":0.5,"top_p":0.9}}"#,
                sampled(9, 0.5, 0.9),
            ),
            ("nothing", Endpoint::ChatCompletions, r#"{"temperature":null,"top_p":"0.9"}"#, Parameters::default()),
        ] {
            assert_eq!(read(endpoint, request), expected, "{api}");
        }
    }

    #[test]
    fn what_the_output_is_to_be_is_told_where_it_is_asked_for() {
        for (endpoint, request, expected) in [
            (Endpoint::ChatCompletions, r#"{"response_format":{"type":"json_schema"}}"#, Some("json")),
            (Endpoint::Responses, r#"{"text":{"format":{"type":"text"}}}"#, Some("text")),
            (
                Endpoint::GenerateContent,
                r#"{"generationConfig":{"responseMimeType":"application/json"}}"#,
                Some("json"),
            ),
            (Endpoint::Images, "{}", Some("image")),
            (Endpoint::Speech, "{}", Some("speech")),
            (Endpoint::ChatCompletions, "{}", None),
        ] {
            assert_eq!(read(endpoint, request).output, expected, "{request}");
        }
    }

    #[test]
    fn a_conversation_is_named_by_its_id() {
        for (request, expected) in [
            (r#"{"conversation":"conv_1"}"#.to_owned(), Some("conv_1")),
            (r#"{"conversation":{"id":"conv_1"}}"#.to_owned(), Some("conv_1")),
            (r#"{"conversation":null}"#.to_owned(), None),
            (format!(r#"{{"conversation":"{}"}}"#, "x".repeat(1000)), None),
        ] {
            assert_eq!(read(Endpoint::Responses, &request).conversation.as_deref(), expected, "{request}");
        }
    }
}
