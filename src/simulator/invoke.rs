//! Invoke: Bedrock's `InvokeModel` and `InvokeModelWithResponseStream`, which carry each vendor's own bodies: those of
//! Anthropic, Amazon Nova, Amazon Titan's embeddings and Meta's Llama.
//!
//! Knows how Bedrock wraps them; nothing of time or faults.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::bedrock::{self, Said, failure, latency_ms, padding, uncached};
use super::bill::Tally;
use super::eventstream;
use super::faults::{Oddity, Script};
use super::mind::{Answer, Caching, Mind, Question};
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;
use super::{anthropic, openai};

/// What a vendor's model answers: one document, or events with their weight in the stream.
enum Native {
    Whole(Value),
    Events(Vec<(Part, Value)>),
}

/// A vendor's answer, and what Bedrock says of it.
struct Invoked {
    seed: u64,
    tokens: Tally,
    native: Native,
}

/// `POST /model/{id}/invoke` and `/invoke-with-response-stream`.
pub(super) fn reply(model: &str, stream: bool, body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    bedrock::known(model)?;
    let asked = Asked { model, stream, body, mind, script };
    let vendor = |name: &str| model.split(['.', '/', ':']).any(|part| part == name);
    let invoked = match () {
        () if vendor("anthropic") => asked.anthropic()?,
        () if vendor("amazon") && model.contains("titan-embed") => asked.titan()?,
        () if vendor("amazon") && model.contains("nova") => asked.nova()?,
        () if vendor("meta") => asked.llama()?,
        () => return Err(Problem::UnknownModel(model.to_owned())),
    };
    let Invoked { seed, tokens, native } = invoked;
    let says_usage = !script.has(Oddity::NoUsage);
    let (headers, content) = match native {
        Native::Whole(document) => (counts(tokens, seed, says_usage), Content::whole(&document)),
        Native::Events(events) => {
            let kind = ("x-amzn-bedrock-content-type", "application/json".to_owned());
            (vec![kind], streamed(events, says_usage.then(|| metrics(tokens, seed))))
        }
    };
    Ok(Reply { model: model.to_owned(), seed, tokens, headers, content })
}

/// What Bedrock says of an answer in its headers.
fn counts(tokens: Tally, seed: u64, says_usage: bool) -> Vec<(&'static str, String)> {
    let latency = ("x-amzn-bedrock-invocation-latency", latency_ms(seed));
    let counts = [
        ("x-amzn-bedrock-input-token-count", uncached(tokens)),
        ("x-amzn-bedrock-output-token-count", tokens.output),
        ("x-amzn-bedrock-cache-read-input-token-count", tokens.cached),
        ("x-amzn-bedrock-cache-write-input-token-count", tokens.cache_write_short + tokens.cache_write_long),
    ];
    let counts = counts.into_iter().filter(|_| says_usage);
    counts.chain([latency]).map(|(name, count)| (name, count.to_string())).collect()
}

/// What Bedrock adds to the last event of a stream.
fn metrics(tokens: Tally, seed: u64) -> Value {
    json!({
        "inputTokenCount": uncached(tokens),
        "outputTokenCount": tokens.output,
        "invocationLatency": latency_ms(seed),
        "firstByteLatency": latency_ms(seed) / 2,
        "cacheReadInputTokenCount": tokens.cached,
        "cacheWriteInputTokenCount": tokens.cache_write_short + tokens.cache_write_long,
    })
}

/// A vendor's events, each in a `chunk`.
fn streamed(mut events: Vec<(Part, Value)>, metrics: Option<Value>) -> Content {
    if let (Some((part, last)), Some(metrics)) = (events.last_mut(), metrics) {
        *part = Part::End;
        last["amazon-bedrock-invocationMetrics"] = metrics;
    }
    let chunk = |(number, (part, event)): (usize, (Part, Value))| {
        let bytes = STANDARD.encode(event.to_string());
        Event { part, bytes: eventstream::event("chunk", &json!({"bytes": bytes, "p": padding(number)})) }
    };
    let events = events.into_iter().enumerate().map(chunk).collect();
    Content::Stream { events, failure, framing: Framing::AwsEventStream }
}

/// What is asked of a vendor's model.
struct Asked<'a> {
    model: &'a str,
    stream: bool,
    body: &'a Value,
    mind: &'a Mind,
    script: &'a Script,
}

impl Asked<'_> {
    /// Messages as Anthropic has them, but for the model (in the path), the stream (likewise) and the version (in the
    /// body).
    fn anthropic(&self) -> Result<Invoked, Problem> {
        if !self.body["anthropic_version"].is_string() {
            return Err(Problem::Missing("anthropic_version"));
        }
        let mut body = self.body.clone();
        body["model"] = self.model.into();
        body["stream"] = self.stream.into();
        let Reply { seed, tokens, content, .. } = anthropic::messages(&body, self.mind, self.script)?;
        let native = match content {
            Content::Whole(document) | Content::Sound(document) | Content::Text(document) => {
                Native::Whole(serde_json::from_slice(&document).unwrap_or_default())
            }
            Content::Stream { events, .. } => {
                let events = events.iter().map(|event| (event.part, data(event)));
                Native::Events(events.filter(|(_, data)| data["type"] != "ping").collect())
            }
        };
        Ok(Invoked { seed, tokens, native })
    }

    /// Messages as Converse has them.
    fn nova(&self) -> Result<Invoked, Problem> {
        let answer = self.mind.answer(&bedrock::read(self.model, self.body, self.mind)?, Caching::Marked);
        let said = Said::new(&answer, self.script);
        let usage = nova_usage(said.tokens);
        let says_usage = !self.script.has(Oddity::NoUsage);
        let native = if self.stream {
            let mut events: Vec<_> =
                said.events().into_iter().map(|(part, kind, payload)| (part, json!({kind: payload}))).collect();
            let usage = if says_usage { json!({"usage": usage}) } else { json!({}) };
            events.push((Part::End, json!({"metadata": usage})));
            Native::Events(events)
        } else {
            let mut document = json!({"output": said.message(), "stopReason": said.stop_reason()});
            if says_usage {
                document["usage"] = usage;
            }
            Native::Whole(document)
        };
        Ok(Invoked { seed: answer.seed, tokens: said.tokens, native })
    }

    fn titan(&self) -> Result<Invoked, Problem> {
        if self.stream {
            return Err(Problem::UnknownModel(self.model.to_owned()));
        }
        let text = self.body["inputText"].as_str().ok_or(Problem::Missing("inputText"))?;
        let truth = Tally { input: self.mind.tokens.count(text), ..Tally::default() };
        let tokens = self.usage_of(truth);
        let embedding = openai::embedding(text, self.body["dimensions"].as_u64().unwrap_or(1024).clamp(1, 1024));
        let mut document = json!({"embedding": embedding, "embeddingsByType": {"float": embedding}});
        if !self.script.has(Oddity::NoUsage) {
            document["inputTextTokenCount"] = tokens.input.into();
        }
        Ok(Invoked { seed: truth.input, tokens, native: Native::Whole(document) })
    }

    fn llama(&self) -> Result<Invoked, Problem> {
        let prompt = self.body.get("prompt").filter(|prompt| prompt.is_string()).ok_or(Problem::Missing("prompt"))?;
        let question = Question {
            most_tokens: self.body["max_gen_len"].as_u64(),
            ..Question::plain(self.model.to_owned(), false, vec![self.mind.piece("user", prompt, None)])
        };
        let answer = self.mind.answer(&question, Caching::Marked);
        let tokens = self.usage_of(answer.tokens);
        let native =
            if self.stream { Native::Events(llama_events(&answer, tokens)) } else { llama_whole(&answer, tokens) };
        Ok(Invoked { seed: answer.seed, tokens, native })
    }

    fn usage_of(&self, truth: Tally) -> Tally {
        self.script.usage.map_or(truth, |usage| usage.instead_of(truth))
    }
}

/// What a server-sent event says.
fn data(event: &Event) -> Value {
    let text = String::from_utf8_lossy(&event.bytes);
    text.split_once("data: ").and_then(|(_, data)| serde_json::from_str(data).ok()).unwrap_or_default()
}

/// Usage as Nova words it in a body of its own.
fn nova_usage(tokens: Tally) -> Value {
    json!({
        "inputTokens": uncached(tokens),
        "outputTokens": tokens.output,
        "totalTokens": tokens.input + tokens.output,
        "cacheReadInputTokenCount": tokens.cached,
        "cacheWriteInputTokenCount": tokens.cache_write_short + tokens.cache_write_long,
    })
}

fn llama_stop(answer: &Answer) -> &'static str {
    if answer.choices.first().is_some_and(|choice| choice.cut) { "length" } else { "stop" }
}

fn llama_whole(answer: &Answer, tokens: Tally) -> Native {
    let text = answer.choices.first().map(|choice| choice.text.as_str()).unwrap_or_default();
    Native::Whole(json!({
        "generation": text,
        "prompt_token_count": tokens.input,
        "generation_token_count": tokens.output,
        "stop_reason": llama_stop(answer),
    }))
}

/// The prompt is counted in the first event only, the answer so far in each.
fn llama_events(answer: &Answer, tokens: Tally) -> Vec<(Part, Value)> {
    let text = answer.choices.first().map(|choice| choice.text.as_str()).unwrap_or_default();
    let event = |generation: &str, prompt: Option<u64>, so_far: u64, stop: Option<&str>| {
        json!({
            "generation": generation,
            "prompt_token_count": prompt,
            "generation_token_count": so_far,
            "stop_reason": stop,
        })
    };
    let mut events = Vec::new();
    for (number, piece) in (0..).zip(pieces(text)) {
        let prompt = (number == 0).then_some(tokens.input);
        events.push((Part::Token, event(piece, prompt, tokens.output.min(number + 1), None)));
    }
    events.push((Part::End, event("", None, tokens.output, Some(llama_stop(answer)))));
    events
}
