//! Ollama: chat, generation and embeddings in its own format, streamed unless told not to, and its refusals.
//!
//! Ollama counts all tokens of the prompt and all it generates, and itemises neither. Knows that wire format and nothing
//! of time or faults.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use super::bill::Tally;
use super::chat;
use super::faults::{Oddity, Script};
use super::mind::{Answer, Caching, Choice, Form, Mind, Question, ToolChoice, gathered_text, model_of};
use super::openai::embedding;
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;

/// What it calls its streams.
const LINES: &str = "application/x-ndjson";
/// Numbers in an embedding of a small local model.
const DIMENSIONS: u64 = 384;

/// The body of a refusal.
pub(super) fn refusal(problem: &Problem) -> Value {
    let message = match problem {
        Problem::NoCredential => "unauthorized".to_owned(),
        Problem::UnknownPath { path, .. } => format!("path \"{path}\" not found"),
        Problem::WrongMethod { .. } => "method not allowed".to_owned(),
        Problem::TooLarge => "request body too large".to_owned(),
        Problem::NotJson => "invalid character in the request body".to_owned(),
        Problem::Missing(field) => format!("{field} is required"),
        Problem::UnknownModel(model) => format!("model '{model}' not found"),
        Problem::BadScript(message) | Problem::Forbidden { message, .. } => message.clone(),
        Problem::Wanted(status) => match status.as_u16() {
            500.. => "llama runner process has terminated: exit status 2".to_owned(),
            _ => "the request is invalid".to_owned(),
        },
    };
    json!({"error": message})
}

/// `POST /api/chat`.
pub(super) fn chat(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let messages = body["messages"].as_array().ok_or(Problem::Missing("messages"))?;
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut prompt: Vec<_> = tools.iter().map(|tool| mind.tool_piece(tool, None)).collect();
    prompt.extend(messages.iter().map(|message| mind.piece(message["role"].as_str().unwrap_or(""), message, None)));
    let last = messages.last().filter(|message| message["role"] == "user");
    let question = Question {
        asked: last.map(|message| gathered_text(&message["content"])),
        tools: tools.iter().filter_map(|tool| chat::function(&tool["function"])).collect(),
        choice: ToolChoice::Auto,
        ..question(body, model_of(body)?, prompt)
    };
    Ok(Said::answer(Kind::Chat, &question, mind, script))
}

/// `POST /api/generate`.
pub(super) fn generate(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let prompt = body.get("prompt").ok_or(Problem::Missing("prompt"))?;
    let mut pieces = vec![mind.piece("system", &body["system"], None)];
    pieces.push(mind.piece("user", prompt, None));
    Ok(Said::answer(Kind::Generate, &question(body, model, pieces), mind, script))
}

/// What both of them read alike.
fn question(body: &Value, model: String, prompt: Vec<super::memory::Piece>) -> Question {
    Question {
        most_tokens: body["options"]["num_predict"].as_u64(),
        form: match &body["format"] {
            Value::Object(schema) => Form::Matching(Value::Object(schema.clone())),
            Value::String(format) if format == "json" => Form::AnyObject,
            _ => Form::Prose,
        },
        thoughts: if matches!(body["think"], Value::Null | Value::Bool(false)) { 0 } else { 4 },
        ..Question::plain(model, body["stream"] != false, prompt)
    }
}

/// `POST /api/embed`: texts that share words are near one another.
pub(super) fn embed(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let input = body.get("input").ok_or(Problem::Missing("input"))?;
    let texts = input.as_array().map_or(std::slice::from_ref(input), Vec::as_slice);
    let said: Vec<_> = texts.iter().map(gathered_text).collect();
    let truth = Tally { input: said.iter().map(|text| mind.tokens.count(text)).sum(), ..Tally::default() };
    let told = script.usage.map_or(truth, |usage| usage.instead_of(truth));
    let tokens = Tally { input: told.input, ..Tally::default() };
    let vectors: Vec<_> = said.iter().map(|text| embedding(text, DIMENSIONS)).collect();
    let mut reply =
        json!({"model": model, "embeddings": vectors, "total_duration": 14_143_917, "load_duration": 1_019_500});
    if !script.has(Oddity::NoUsage) {
        reply["prompt_eval_count"] = tokens.input.into();
    }
    Ok(Reply { model, seed: truth.input, tokens, headers: Vec::new(), content: Content::whole(&reply) })
}

/// What Ollama tells of these counts.
fn counted(tokens: Tally) -> Tally {
    Tally { input: tokens.input, output: tokens.output, ..Tally::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chat,
    Generate,
}

/// What is said in answer, from which each document is made.
struct Said<'a> {
    kind: Kind,
    model: &'a str,
    created_at: String,
    choice: &'a Choice,
    tokens: Tally,
    tells_usage: bool,
}

impl Said<'_> {
    fn answer(kind: Kind, question: &Question, mind: &Mind, script: &Script) -> Reply {
        let Answer { seed, choices, tokens } = mind.answer(question, Caching::Unasked);
        let tokens = counted(script.usage.map_or(tokens, |usage| usage.instead_of(tokens)));
        let created = UNIX_EPOCH + Duration::from_secs(mind.created);
        let said = Said {
            kind,
            model: &question.model,
            created_at: humantime::format_rfc3339_micros(created).to_string(),
            choice: choices.first().expect("a question has an answer"),
            tokens,
            tells_usage: !script.has(Oddity::NoUsage),
        };
        let content = if question.stream { said.stream() } else { Content::whole(&said.whole()) };
        Reply { model: question.model.clone(), seed, tokens, headers: Vec::new(), content }
    }

    /// A document that adds this text, thought and these calls of tools.
    fn document(&self, text: &str, thought: &str, calls: &[Value]) -> Value {
        let mut said = json!({});
        if !thought.is_empty() {
            said["thinking"] = thought.into();
        }
        let mut document = json!({"model": self.model, "created_at": self.created_at});
        match self.kind {
            Kind::Chat => {
                said["role"] = "assistant".into();
                said["content"] = text.into();
                if !calls.is_empty() {
                    said["tool_calls"] = calls.into();
                }
                document["message"] = said;
            }
            Kind::Generate => {
                said["response"] = text.into();
                document
                    .as_object_mut()
                    .into_iter()
                    .for_each(|to| to.extend(said.as_object().cloned().unwrap_or_default()));
            }
        }
        document["done"] = false.into();
        document
    }

    /// The same document as the last one: it counts.
    fn ended(&self, mut document: Value) -> Value {
        document["done"] = true.into();
        document["done_reason"] = if self.choice.cut { "length" } else { "stop" }.into();
        document["total_duration"] = (5_000_000 * (self.tokens.input + self.tokens.output)).into();
        document["load_duration"] = 1_334_875.into();
        if self.tells_usage {
            document["prompt_eval_count"] = self.tokens.input.into();
            document["prompt_eval_duration"] = (1_000_000 * self.tokens.input).into();
            document["eval_count"] = self.tokens.output.into();
            document["eval_duration"] = (4_000_000 * self.tokens.output).into();
        }
        document
    }

    fn calls(&self) -> Vec<Value> {
        let calls = self.choice.calls.iter().enumerate();
        let call = calls.map(|(index, call)| {
            let function = json!({"index": index, "name": call.name, "arguments": call.arguments});
            json!({"id": format!("call_{}", call.id), "function": function})
        });
        call.collect()
    }

    fn whole(&self) -> Value {
        self.ended(self.document(&self.choice.text, &self.choice.thought, &self.calls()))
    }

    fn stream(&self) -> Content {
        let mut lines = Vec::new();
        let mut push = |part, document: &Value| lines.push(Event::line(part, document));
        for piece in pieces(&self.choice.thought) {
            push(Part::Token, &self.document("", piece, &[]));
        }
        for piece in pieces(&self.choice.text) {
            push(Part::Token, &self.document(piece, "", &[]));
        }
        for call in self.calls() {
            push(Part::Token, &self.document("", "", &[call]));
        }
        push(Part::End, &self.ended(self.document("", "", &[])));
        Content::Stream { events: lines, failure, framing: Framing::Lines(LINES) }
    }
}

/// The line in which Ollama reports that a stream has failed.
fn failure(_before: usize) -> Bytes {
    let error = "an error was encountered while running the model: unexpected EOF";
    Event::line(Part::Frame, &json!({"error": error})).bytes
}
