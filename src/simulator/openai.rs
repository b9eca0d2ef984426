//! OpenAI: how its API refuses, which headers it adds, and its endpoints that do not chat: embeddings, moderations
//! and models.
//!
//! Knows that wire format and nothing of time or faults.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Value, json};

use super::bill::Tally;
use super::dice::Dice;
use super::faults::{Oddity, Script};
use super::mind::{Mind, gathered_text, model_of};
use super::reply::{Content, Problem, Reply};
use super::text::digest;

/// Models on the list; others are answered for as well.
const MODELS: &[&str] = &["gpt-5", "gpt-5-mini", "gpt-4o", "gpt-4o-mini", "o3", "text-embedding-3-small"];
/// The most words of a text that its embedding is made from.
const MOST_WORDS: usize = 512;
/// The most numbers in an embedding.
const MOST_DIMENSIONS: u64 = 3072;

/// The body of a refusal.
pub(super) fn refusal(problem: &Problem) -> Value {
    let (message, kind, param, code) = match problem {
        Problem::NoCredential => (
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer \
             auth (i.e. Authorization: Bearer YOUR_KEY)."
                .to_owned(),
            "invalid_request_error",
            None,
            Some("invalid_api_key"),
        ),
        Problem::Forbidden { message, .. } => (message.clone(), "invalid_request_error", None, Some("forbidden")),
        Problem::UnknownPath { method, path } => {
            (format!("Invalid URL ({method} {path})"), "invalid_request_error", None, None)
        }
        Problem::WrongMethod { method, path } => {
            (format!("Not allowed to {method} on {path}."), "invalid_request_error", None, Some("method_not_supported"))
        }
        Problem::TooLarge => ("The request is too large.".to_owned(), "invalid_request_error", None, None),
        Problem::NotJson => (
            "We could not parse the JSON body of your request. The OpenAI API expects a JSON payload.".to_owned(),
            "invalid_request_error",
            None,
            None,
        ),
        Problem::Missing(field) => (
            format!("Missing required parameter: '{field}'."),
            "invalid_request_error",
            Some(*field),
            Some("missing_required_parameter"),
        ),
        Problem::UnknownModel(model) => (
            format!("The model `{model}` does not exist or you do not have access to it."),
            "invalid_request_error",
            None,
            Some("model_not_found"),
        ),
        Problem::BadScript(message) => {
            (message.clone(), "invalid_request_error", Some("x-simulate"), Some("invalid_value"))
        }
        Problem::Wanted(status) => {
            let (message, kind, code) = wanted(status.as_u16());
            (message.to_owned(), kind, None, code)
        }
    };
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

fn wanted(status: u16) -> (&'static str, &'static str, Option<&'static str>) {
    match status {
        401 => ("Incorrect API key provided.", "invalid_request_error", Some("invalid_api_key")),
        403 => ("You are not allowed to do this.", "invalid_request_error", Some("forbidden")),
        404 => ("Not found.", "invalid_request_error", Some("not_found")),
        429 => ("Rate limit reached. Please try again later.", "requests", Some("rate_limit_exceeded")),
        400..500 => ("The request is invalid.", "invalid_request_error", None),
        503 => ("The engine is currently overloaded, please try again later.", "server_error", Some("overloaded")),
        _ => ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    }
}

/// The headers of every reply: `request` is unlike any other, `left` is what is left of the rate limit.
pub(super) fn headers(request: u64, took_ms: u128, left: u64) -> Vec<(&'static str, String)> {
    vec![
        ("x-request-id", Dice::new(request).id("req_")),
        ("openai-organization", "org-simulator".to_owned()),
        ("openai-project", "proj_simulator".to_owned()),
        ("openai-processing-ms", took_ms.to_string()),
        ("openai-version", "2020-10-01".to_owned()),
        ("x-ratelimit-limit-requests", "10000".to_owned()),
        ("x-ratelimit-limit-tokens", "2000000".to_owned()),
        ("x-ratelimit-remaining-requests", left.to_string()),
        ("x-ratelimit-remaining-tokens", (left * 200).to_string()),
        ("x-ratelimit-reset-requests", "6ms".to_owned()),
        ("x-ratelimit-reset-tokens", "17ms".to_owned()),
    ]
}

/// Whether the call brings a credential, right or wrong.
pub(super) fn has_credential(headers: &HeaderMap) -> bool {
    let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = authorization.and_then(|value| value.strip_prefix("Bearer "));
    // Azure's header.
    let key = key.or_else(|| headers.get("api-key").and_then(|value| value.to_str().ok()));
    key.is_some_and(|key| !key.trim().is_empty())
}

/// `GET /v1/models` and `GET /v1/models/{model}`.
pub(super) fn models(one: Option<&str>, mind: &Mind) -> Result<Value, Problem> {
    let model = |id: &str| json!({"id": id, "object": "model", "created": mind.created, "owned_by": "simulator"});
    match one {
        Some(id) if id.starts_with("nope-") => Err(Problem::UnknownModel(id.to_owned())),
        Some(id) => Ok(model(id)),
        None => Ok(json!({"object": "list", "data": MODELS.iter().map(|id| model(id)).collect::<Vec<_>>()})),
    }
}

/// `POST /v1/embeddings`: texts that share words are near one another.
pub(super) fn embeddings(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let input = body.get("input").ok_or(Problem::Missing("input"))?;
    let inputs = match input.as_array() {
        Some(several) if !several.iter().all(Value::is_number) => several.as_slice(),
        _ => std::slice::from_ref(input),
    };
    let usual = if model.contains("large") { MOST_DIMENSIONS } else { 1536 };
    let dimensions = body["dimensions"].as_u64().unwrap_or(usual).clamp(1, MOST_DIMENSIONS);
    let in_base64 = body["encoding_format"] == "base64";
    let mut counted = 0;
    let data = inputs.iter().enumerate().map(|(index, input)| {
        counted += input.as_array().map_or_else(|| mind.tokens.count(&gathered_text(input)), |ids| ids.len() as u64);
        let vector = embedding(&gathered_text(input), dimensions);
        let embedding = if in_base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let data: Vec<_> = data.collect();
    let truth = Tally { input: counted, ..Tally::default() };
    let tokens = script.usage.map_or(truth, |usage| usage.instead_of(truth));
    let mut reply = json!({"object": "list", "data": data, "model": model});
    if !script.has(Oddity::NoUsage) {
        reply["usage"] = json!({"prompt_tokens": tokens.input, "total_tokens": tokens.input});
    }
    Ok(Reply { model, seed: counted, tokens, headers: Vec::new(), content: Content::whole(&reply) })
}

/// A vector of length one: the sum of one direction for each word.
pub(super) fn embedding(text: &str, dimensions: u64) -> Vec<f32> {
    let mut vector: Vec<f32> = (0..dimensions).map(|_| 0.0).collect();
    let words = text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    // The empty word stands for itself, so that a text without words has a direction too.
    for word in words.take(MOST_WORDS).chain([""]) {
        let mut dice = Dice::new(digest(word.to_lowercase().as_bytes()));
        let weight = if word.is_empty() { 0.1 } else { 1.0 };
        for number in &mut vector {
            *number += weight * unit(dice.next());
        }
    }
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    vector.iter().map(|number| number / length).collect()
}

/// A number between -1 and 1.
#[expect(clippy::cast_possible_truncation, reason = "takes sixteen bits on purpose")]
fn unit(number: u64) -> f32 {
    f32::from(number as i16) / 32768.0
}

/// `POST /v1/moderations`: free of charge; only the word "kill" is found objectionable.
pub(super) fn moderations(body: &Value, mind: &Mind) -> Result<Reply, Problem> {
    const TEXT_ONLY: &[&str] = &[
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "illicit",
        "illicit/violent",
        "sexual/minors",
    ];
    const TEXT_AND_IMAGE: &[&str] =
        &["self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "violence", "violence/graphic"];
    let model = body["model"].as_str().unwrap_or("omni-moderation-latest").to_owned();
    let input = body.get("input").ok_or(Problem::Missing("input"))?;
    let inputs = match input.as_array() {
        Some(several) if several.iter().all(Value::is_string) => several.as_slice(),
        _ => std::slice::from_ref(input),
    };
    let results = inputs.iter().map(|input| {
        let violent = gathered_text(input).to_lowercase().contains("kill");
        let (mut categories, mut scores, mut applied) = (json!({}), json!({}), json!({}));
        let kinds = TEXT_ONLY.iter().map(|name| (name, json!(["text"])));
        for (name, types) in kinds.chain(TEXT_AND_IMAGE.iter().map(|name| (name, json!(["text", "image"])))) {
            let found = violent && *name == "violence";
            categories[*name] = found.into();
            scores[*name] = json!(if found { 0.97 } else { 0.0004 });
            applied[*name] = types;
        }
        json!({
            "flagged": violent,
            "categories": categories,
            "category_scores": scores,
            "category_applied_input_types": applied,
        })
    });
    let results: Vec<_> = results.collect();
    let seed = mind.piece("moderation", input, None).digest;
    let reply = json!({"id": Dice::new(seed).id("modr-"), "model": model, "results": results});
    Ok(Reply { model, seed, tokens: Tally::default(), headers: Vec::new(), content: Content::whole(&reply) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likeness(left: &str, right: &str) -> f32 {
        embedding(left, 256).iter().zip(embedding(right, 256)).map(|(left, right)| left * right).sum()
    }

    #[test]
    fn texts_that_share_words_are_near() {
        assert!((likeness("the cat sat", "the cat sat") - 1.0).abs() < 1e-3);
        assert!(likeness("what is the capital of France", "the capital of France is what") > 0.99);
        assert!(likeness("what is the capital of France", "What is the capital of Spain?") > 0.7);
        assert!(likeness("what is the capital of France", "bake bread with rye flour") < 0.3);
        assert!(embedding("", 8).iter().all(|number| number.is_finite()));
    }
}
