//! Chat: OpenAI's chat completions, and the legacy completions that share their shape of a stream.
//!
//! Knows that wire format and nothing of time, faults or HTTP.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::bill::Tally;
use super::dice::Dice;
use super::faults::{Oddity, Script};
use super::mind::{Answer, Caching, Choice, Form, Mind, Question, Tool, ToolChoice, gathered_text, model_of};
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;
use super::vendor::Vendor;

/// `POST /v1/chat/completions`.
pub(super) fn reply(body: &Value, mind: &Mind, script: &Script, vendor: Vendor) -> Result<Reply, Problem> {
    let question = read(body, mind)?;
    let answer = mind.answer(&question, Caching::Unasked);
    Ok(Envelope { vendor, ..Envelope::new(Kind::Chat, body, &question, mind) }.reply(&answer, script))
}

/// `POST /v1/completions`.
pub(super) fn legacy_reply(body: &Value, mind: &Mind, script: &Script, vendor: Vendor) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let prompt = body.get("prompt").ok_or(Problem::Missing("prompt"))?;
    let question = Question {
        // OpenAI's reference: "max_tokens … defaults to 16".
        most_tokens: Some(body["max_tokens"].as_u64().unwrap_or(16)),
        choices: body["n"].as_u64().unwrap_or(1),
        ..Question::plain(model, body["stream"] == true, vec![mind.piece("prompt", prompt, None)])
    };
    let answer = mind.answer(&question, Caching::Unasked);
    Ok(Envelope { vendor, ..Envelope::new(Kind::Legacy, body, &question, mind) }.reply(&answer, script))
}

fn read(body: &Value, mind: &Mind) -> Result<Question, Problem> {
    let model = model_of(body)?;
    let messages = body["messages"].as_array().filter(|list| !list.is_empty()).ok_or(Problem::Missing("messages"))?;
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut pieces: Vec<_> = tools.iter().map(|tool| mind.tool_piece(tool, None)).collect();
    pieces.extend(messages.iter().map(|message| mind.piece(message["role"].as_str().unwrap_or(""), message, None)));
    let last = messages.last().filter(|message| message["role"] == "user");
    let format = &body["response_format"];
    Ok(Question {
        model,
        stream: body["stream"] == true,
        pieces,
        asked: last.map(|message| gathered_text(&message["content"])),
        most_tokens: body["max_completion_tokens"].as_u64().or(body["max_tokens"].as_u64()),
        form: form(format, &format["json_schema"]["schema"]),
        tools: tools.iter().filter_map(|tool| function(&tool["function"])).collect(),
        choice: choice(&body["tool_choice"], &body["tool_choice"]["function"]["name"]),
        thoughts: thoughts(&body["reasoning_effort"]),
        choices: body["n"].as_u64().unwrap_or(1),
    })
}

/// A function on offer, from the object that names it.
pub(super) fn function(function: &Value) -> Option<Tool> {
    Some(Tool { name: function["name"].as_str()?.to_owned(), schema: function["parameters"].clone() })
}

/// The form a `format` object wants, with the schema it has somewhere inside.
pub(super) fn form(format: &Value, schema: &Value) -> Form {
    match format["type"].as_str() {
        Some("json_schema") if schema.is_object() => Form::Matching(schema.clone()),
        Some("json_object" | "json_schema") => Form::AnyObject,
        _ => Form::Prose,
    }
}

/// What a `tool_choice` says, with the name it has somewhere inside.
pub(super) fn choice(choice: &Value, name: &Value) -> ToolChoice {
    match (choice.as_str(), name.as_str()) {
        (Some("none"), _) => ToolChoice::Never,
        (Some("required"), _) => ToolChoice::Always,
        (_, Some(name)) => ToolChoice::Only(name.to_owned()),
        _ => ToolChoice::Auto,
    }
}

/// How much thought a reasoning effort stands for, in sentences.
pub(super) fn thoughts(effort: &Value) -> u64 {
    match effort.as_str() {
        None | Some("none") => 0,
        Some("minimal") => 1,
        Some("low") => 3,
        Some("medium") => 8,
        Some(_) => 20,
    }
}

/// The tier a call is served in, by the tier it asked for.
pub(super) fn service_tier(asked: &Value) -> &'static str {
    match asked.as_str() {
        Some("priority" | "fast") => "priority",
        Some("flex") => "flex",
        _ => "default",
    }
}

/// Usage as chat completions, completions and embeddings word it.
fn usage(tokens: Tally) -> Value {
    let mut input = Map::from_iter([("cached_tokens".to_owned(), tokens.cached.into())]);
    let written = tokens.cache_write_short + tokens.cache_write_long;
    if written > 0 {
        input.insert("cache_write_tokens".to_owned(), written.into());
    }
    input.insert("audio_tokens".to_owned(), 0.into());
    json!({
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": input,
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chat,
    Legacy,
}

/// What is around every document of one reply.
struct Envelope<'a> {
    kind: Kind,
    question: &'a Question,
    created: u64,
    tier: &'static str,
    usage_asked: bool,
    vendor: Vendor,
}

impl<'a> Envelope<'a> {
    fn new(kind: Kind, body: &Value, question: &'a Question, mind: &Mind) -> Self {
        let tier = service_tier(&body["service_tier"]);
        let usage_asked = body["stream_options"]["include_usage"] == true;
        Self { kind, question, created: mind.created, tier, usage_asked, vendor: Vendor::Plain }
    }

    fn reply(&self, answer: &Answer, script: &Script) -> Reply {
        let tokens = script.usage.map_or(answer.tokens, |usage| usage.instead_of(answer.tokens));
        let content =
            if self.question.stream { self.stream(answer, tokens, script) } else { self.whole(answer, tokens, script) };
        Reply { model: self.question.model.clone(), seed: answer.seed, tokens, headers: Vec::new(), content }
    }

    fn whole(&self, answer: &Answer, tokens: Tally, script: &Script) -> Content {
        let choices = answer.choices.iter().enumerate().map(|(index, choice)| match self.kind {
            Kind::Chat => json!({
                "index": index,
                "message": message(choice),
                "logprobs": null,
                "finish_reason": finish_reason(choice),
            }),
            Kind::Legacy => json!({
                "text": choice.text,
                "index": index,
                "logprobs": null,
                "finish_reason": finish_reason(choice),
            }),
        });
        let mut body = self.document(answer.seed, &choices.collect::<Vec<_>>());
        if !script.has(Oddity::NoUsage) {
            body["usage"] = self.vendor.usage(usage(tokens), tokens);
        }
        Content::Whole([self.vendor.lead(), &body.to_string()].concat().into())
    }

    fn stream(&self, answer: &Answer, tokens: Tally, script: &Script) -> Content {
        let asked = (self.usage_asked || script.has(Oddity::UsageAlways)) && !script.has(Oddity::NoUsage);
        let usage = self.vendor.usage(usage(tokens), tokens);
        let choices = answer.choices.iter().enumerate().flat_map(|(index, choice)| self.parts(index, choice));
        let choices: Vec<_> = choices.collect();
        let mut events: Vec<_> = self.vendor.opening().into_iter().collect();
        let count = choices.len();
        for (number, (part, choice)) in choices.into_iter().enumerate() {
            let mut chunk = self.document(answer.seed, &[choice]);
            if asked {
                chunk["usage"] = Value::Null;
            }
            if !script.has(Oddity::NoUsage) {
                self.vendor.dress(&mut chunk, number + 1 == count, &usage);
            }
            events.push(Event::plain(part, &chunk));
        }
        if asked {
            let mut chunk = self.document(answer.seed, &[]);
            chunk["usage"] = usage;
            events.push(Event::plain(Part::Frame, &chunk));
        }
        events.push(Event { part: Part::End, bytes: "data: [DONE]\n\n".into() });
        Content::Stream { events, failure, framing: Framing::ServerSentEvents }
    }

    /// The choices of the chunks that one choice is streamed in.
    fn parts(&self, index: usize, choice: &Choice) -> Vec<(Part, Value)> {
        match self.kind {
            Kind::Chat => {
                let chunk = |(part, delta, reason): (Part, Value, Value)| {
                    (part, json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": reason}))
                };
                deltas(choice).into_iter().map(chunk).collect()
            }
            Kind::Legacy => {
                let chunk = |text: &str, reason: Value| json!({"text": text, "index": index, "logprobs": null, "finish_reason": reason});
                let mut parts: Vec<_> =
                    pieces(&choice.text).map(|piece| (Part::Token, chunk(piece, Value::Null))).collect();
                parts.push((Part::Frame, chunk("", finish_reason(choice).into())));
                parts
            }
        }
    }

    fn document(&self, seed: u64, choices: &[Value]) -> Value {
        let (prefix, object) = match (self.kind, self.question.stream) {
            (Kind::Chat, false) => ("chatcmpl-", "chat.completion"),
            (Kind::Chat, true) => ("chatcmpl-", "chat.completion.chunk"),
            (Kind::Legacy, _) => ("cmpl-", "text_completion"),
        };
        json!({
            "id": Dice::new(seed).id(prefix),
            "object": object,
            "created": self.created,
            "model": self.question.model,
            "choices": choices,
            "service_tier": self.tier,
            "system_fingerprint": "fp_simulator",
        })
    }
}

fn finish_reason(choice: &Choice) -> &'static str {
    match choice {
        Choice { cut: true, .. } => "length",
        Choice { calls, .. } if !calls.is_empty() => "tool_calls",
        _ => "stop",
    }
}

fn message(choice: &Choice) -> Value {
    if choice.calls.is_empty() {
        return json!({"role": "assistant", "content": choice.text, "refusal": null, "annotations": []});
    }
    let calls = choice.calls.iter().map(|call| {
        json!({
            "id": format!("call_{}", call.id),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments.to_string()},
        })
    });
    let calls: Vec<_> = calls.collect();
    json!({"role": "assistant", "content": null, "tool_calls": calls, "refusal": null, "annotations": []})
}

/// What each chunk of one choice adds, and the finish reason on the last.
fn deltas(choice: &Choice) -> Vec<(Part, Value, Value)> {
    let none = Value::Null;
    let mut deltas = Vec::new();
    if choice.calls.is_empty() {
        deltas.push((Part::Frame, json!({"role": "assistant", "content": "", "refusal": null}), none.clone()));
    }
    deltas.extend(pieces(&choice.text).map(|piece| (Part::Token, json!({"content": piece}), none.clone())));
    for (index, call) in choice.calls.iter().enumerate() {
        let head = json!({
            "index": index,
            "id": format!("call_{}", call.id),
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        });
        let first = match index {
            0 => json!({"role": "assistant", "content": null, "tool_calls": [head], "refusal": null}),
            _ => json!({"tool_calls": [head]}),
        };
        deltas.push((Part::Token, first, none.clone()));
        let arguments = call.arguments.to_string();
        deltas.extend(pieces(&arguments).map(|piece| {
            (Part::Token, json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}), none.clone())
        }));
    }
    deltas.push((Part::Frame, json!({}), finish_reason(choice).into()));
    deltas
}

/// The event in which OpenAI reports that a stream has failed.
pub(super) fn failure(_before: usize) -> Bytes {
    let error = json!({"error": {
        "message": "The server had an error while processing your request. Sorry about that!",
        "type": "server_error",
        "param": null,
        "code": null,
    }});
    Event::plain(Part::Frame, &error).bytes
}

/// A reply that is always the same, to be made once.
pub(super) fn canned(mind: &Mind, stream: bool) -> Reply {
    let question = Question::plain("gpt-4o-mini".to_owned(), stream, Vec::new());
    let body = json!({"stream_options": {"include_usage": true}});
    Envelope::new(Kind::Chat, &body, &question, mind).reply(&Answer::canned(), &Script::default())
}
