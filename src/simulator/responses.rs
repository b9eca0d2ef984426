//! Responses: OpenAI's responses API, with the events of its stream in the order in which the official SDKs expect
//! them.
//!
//! Knows that wire format and nothing of time, faults or HTTP.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::bill::Tally;
use super::chat::{choice, form, function, service_tier, thoughts};
use super::dice::Dice;
use super::faults::{Oddity, Script};
use super::mind::{Answer, Caching, Choice, Mind, Question, ToolCall, gathered_text, model_of};
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;

/// `POST /v1/responses`.
pub(super) fn reply(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let question = read(body, mind)?;
    let answer = mind.answer(&question, Caching::Unasked);
    let tokens = script.usage.map_or(answer.tokens, |usage| usage.instead_of(answer.tokens));
    let response = Response {
        asked: body,
        model: &question.model,
        created: mind.created,
        items: items(&answer, body["reasoning"]["summary"].is_string()),
        cut: answer.choices.iter().any(|choice| choice.cut),
        seed: answer.seed,
        usage: if script.has(Oddity::NoUsage) { Value::Null } else { usage(tokens) },
    };
    let content = if question.stream { response.stream() } else { Content::whole(&response.ended()) };
    Ok(Reply { model: question.model.clone(), seed: answer.seed, tokens, content })
}

/// `POST /v1/responses/input_tokens`: free of charge.
pub(super) fn input_tokens(body: &Value, mind: &Mind) -> Result<Reply, Problem> {
    let Question { model, pieces, .. } = read(body, mind)?;
    let tokens: u64 = pieces.iter().map(|piece| piece.tokens).sum();
    let content = Content::whole(&json!({"object": "response.input_tokens", "input_tokens": tokens}));
    Ok(Reply { model, seed: tokens, tokens: Tally::default(), content })
}

fn read(body: &Value, mind: &Mind) -> Result<Question, Problem> {
    let model = model_of(body)?;
    let input = body.get("input").filter(|input| !input.is_null()).ok_or(Problem::Missing("input"))?;
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut prompt: Vec<_> = tools.iter().map(|tool| mind.tool_piece(tool, None)).collect();
    if body["instructions"].is_string() {
        prompt.push(mind.piece("system", &body["instructions"], None));
    }
    let asked = if let Some(items) = input.as_array() {
        prompt.extend(items.iter().map(|item| mind.piece(item["role"].as_str().unwrap_or("tool"), item, None)));
        items.last().filter(|item| item["role"] == "user").map(|item| gathered_text(&item["content"]))
    } else {
        prompt.push(mind.piece("user", input, None));
        Some(gathered_text(input))
    };
    let format = &body["text"]["format"];
    Ok(Question {
        model,
        stream: body["stream"] == true,
        pieces: prompt,
        asked,
        most_tokens: body["max_output_tokens"].as_u64(),
        form: form(format, &format["schema"]),
        tools: tools.iter().filter(|tool| tool["type"] == "function").filter_map(function).collect(),
        choice: choice(&body["tool_choice"], &body["tool_choice"]["name"]),
        thoughts: thoughts(&body["reasoning"]["effort"]),
        choices: 1,
    })
}

fn usage(tokens: Tally) -> Value {
    json!({
        "input_tokens": tokens.input,
        "input_tokens_details": {
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write_short + tokens.cache_write_long,
            "cache_write_tokens_details": {
                "ttl_30m_tokens": tokens.cache_write_short,
                "ttl_12h_tokens": tokens.cache_write_long,
            },
        },
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    })
}

/// One thing the response puts out.
enum Item {
    Reasoning { id: String, summary: Option<String> },
    Message { id: String, text: String },
    Call { id: String, call: ToolCall },
}

fn items(answer: &Answer, summarise: bool) -> Vec<Item> {
    let mut dice = Dice::new(answer.seed);
    let mut items = Vec::new();
    for Choice { thought, text, calls, .. } in &answer.choices {
        if !thought.is_empty() {
            items.push(Item::Reasoning { id: dice.id("rs_"), summary: summarise.then(|| thought.clone()) });
        }
        items.extend(calls.iter().map(|call| Item::Call { id: dice.id("fc_"), call: call.clone() }));
        if calls.is_empty() {
            items.push(Item::Message { id: dice.id("msg_"), text: text.clone() });
        }
    }
    items
}

impl Item {
    fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. } | Self::Message { id, .. } | Self::Call { id, .. } => id,
        }
    }

    /// As it is announced.
    fn begun(&self) -> Value {
        match self {
            Self::Reasoning { id, .. } => json!({"id": id, "type": "reasoning", "summary": []}),
            Self::Message { id, .. } => {
                json!({"id": id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"})
            }
            Self::Call { id, call } => call_item(id, call, "", "in_progress"),
        }
    }

    /// As it is when it is complete, or as complete as it gets.
    fn ended(&self, status: &str) -> Value {
        match self {
            Self::Reasoning { id, summary } => {
                let summary: Vec<_> = summary.iter().map(|text| summary_part(text)).collect();
                json!({"id": id, "type": "reasoning", "summary": summary})
            }
            Self::Message { id, text } => json!({
                "id": id,
                "type": "message",
                "status": status,
                "content": [text_part(text)],
                "role": "assistant",
            }),
            Self::Call { id, call } => call_item(id, call, &call.arguments.to_string(), "completed"),
        }
    }
}

fn call_item(id: &str, call: &ToolCall, arguments: &str, status: &str) -> Value {
    json!({
        "id": id,
        "type": "function_call",
        "status": status,
        "arguments": arguments,
        "call_id": format!("call_{}", call.id),
        "name": call.name,
    })
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

fn summary_part(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

/// A response, from which each of its documents is made.
struct Response<'a> {
    asked: &'a Value,
    model: &'a str,
    created: u64,
    items: Vec<Item>,
    cut: bool,
    seed: u64,
    usage: Value,
}

impl Response<'_> {
    fn status(&self) -> &'static str {
        if self.cut { "incomplete" } else { "completed" }
    }

    fn ended(&self) -> Value {
        let output: Vec<_> = self.items.iter().map(|item| item.ended(self.status())).collect();
        self.document(self.status(), &output, &self.usage)
    }

    fn document(&self, status: &str, output: &[Value], usage: &Value) -> Value {
        let asked = |name: &str, otherwise: Value| {
            self.asked.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(otherwise)
        };
        let cut = status == "incomplete";
        json!({
            "id": Dice::new(self.seed).id("resp_"),
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": false,
            "completed_at": if status == "completed" { self.created.into() } else { Value::Null },
            "error": null,
            "incomplete_details": if cut { json!({"reason": "max_output_tokens"}) } else { Value::Null },
            "instructions": asked("instructions", Value::Null),
            "max_output_tokens": asked("max_output_tokens", Value::Null),
            "model": self.model,
            "output": output,
            "parallel_tool_calls": asked("parallel_tool_calls", true.into()),
            "previous_response_id": asked("previous_response_id", Value::Null),
            "reasoning": asked("reasoning", json!({"effort": null, "summary": null})),
            "service_tier": service_tier(&self.asked["service_tier"]),
            "store": asked("store", true.into()),
            "temperature": asked("temperature", json!(1.0)),
            "text": asked("text", json!({"format": {"type": "text"}})),
            "tool_choice": asked("tool_choice", "auto".into()),
            "tools": asked("tools", json!([])),
            "top_p": asked("top_p", json!(1.0)),
            "truncation": "disabled",
            "usage": usage,
            "user": asked("user", Value::Null),
            "metadata": asked("metadata", json!({})),
        })
    }

    fn stream(&self) -> Content {
        let mut events = Events::default();
        let begun = self.document("in_progress", &[], &Value::Null);
        events.push(Part::Frame, "response.created", json!({"response": begun}));
        events.push(Part::Frame, "response.in_progress", json!({"response": begun}));
        for (index, item) in self.items.iter().enumerate() {
            let at = Position { item: item.id(), index };
            events.push(
                Part::Frame,
                "response.output_item.added",
                json!({"output_index": index, "item": item.begun()}),
            );
            match item {
                Item::Reasoning { summary, .. } => summary.iter().for_each(|text| at.summary(text, &mut events)),
                Item::Message { text, .. } => at.text(text, &mut events),
                Item::Call { call, .. } => at.arguments(&call.arguments.to_string(), &mut events),
            }
            let ended = item.ended(self.status());
            events.push(Part::Frame, "response.output_item.done", json!({"output_index": index, "item": ended}));
        }
        let kind = if self.cut { "response.incomplete" } else { "response.completed" };
        events.push(Part::End, kind, json!({"response": self.ended()}));
        Content::Stream { events: events.sent, failure, framing: Framing::ServerSentEvents }
    }
}

/// The events so far. Each carries its number.
#[derive(Default)]
struct Events {
    sent: Vec<Event>,
}

impl Events {
    fn push(&mut self, part: Part, kind: &str, members: Value) {
        let mut event = Map::from_iter([
            ("type".to_owned(), Value::from(kind)),
            ("sequence_number".to_owned(), self.sent.len().into()),
        ]);
        if let Value::Object(members) = members {
            event.extend(members);
        }
        self.sent.push(Event::named(part, &event.into()));
    }
}

/// The event in which a stream reports that it has failed, after `before` events.
fn failure(before: usize) -> Bytes {
    let error = json!({
        "type": "error",
        "sequence_number": before,
        "code": "server_error",
        "message": "The server had an error while processing your request. Sorry about that!",
        "param": null,
    });
    Event::named(Part::Frame, &error).bytes
}

/// Where in the output an item is.
struct Position<'a> {
    item: &'a str,
    index: usize,
}

impl Position<'_> {
    fn text(&self, text: &str, events: &mut Events) {
        let place = |members| self.place("content_index", members);
        events.push(Part::Frame, "response.content_part.added", place(json!({"part": text_part("")})));
        for piece in pieces(text) {
            events.push(Part::Token, "response.output_text.delta", place(json!({"delta": piece, "logprobs": []})));
        }
        events.push(Part::Frame, "response.output_text.done", place(json!({"text": text, "logprobs": []})));
        events.push(Part::Frame, "response.content_part.done", place(json!({"part": text_part(text)})));
    }

    fn summary(&self, text: &str, events: &mut Events) {
        let place = |members| self.place("summary_index", members);
        events.push(Part::Frame, "response.reasoning_summary_part.added", place(json!({"part": summary_part("")})));
        for piece in pieces(text) {
            events.push(Part::Token, "response.reasoning_summary_text.delta", place(json!({"delta": piece})));
        }
        events.push(Part::Frame, "response.reasoning_summary_text.done", place(json!({"text": text})));
        events.push(Part::Frame, "response.reasoning_summary_part.done", place(json!({"part": summary_part(text)})));
    }

    fn arguments(&self, arguments: &str, events: &mut Events) {
        let place = |name: &str, text: &str| json!({"item_id": self.item, "output_index": self.index, name: text});
        for piece in pieces(arguments) {
            events.push(Part::Token, "response.function_call_arguments.delta", place("delta", piece));
        }
        events.push(Part::Frame, "response.function_call_arguments.done", place("arguments", arguments));
    }

    /// These members, and where in the item they belong.
    fn place(&self, part: &str, members: Value) -> Value {
        let mut place = json!({"item_id": self.item, "output_index": self.index, part: 0});
        if let (Value::Object(place), Value::Object(members)) = (&mut place, members) {
            place.extend(members);
        }
        place
    }
}
