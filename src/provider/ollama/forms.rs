//! Forms: what Ollama's `/api/chat` and `/api/generate` answer, whole and line by line, turned into each other.
//!
//! A line is a whole reply with a piece of its texts; the last one, with no more text, says why it stopped and counts.

use serde_json_borrow::Value;

use crate::provider::Request;
use crate::provider::forms::{Event, Events, Forms, Framing};
use crate::provider::tree::{Join, Json, Object, Rules};
use crate::record::call::Form;

/// The forms of generations.
pub(super) static FORMS: Forms = Forms {
    all: &[Form::Whole, Form::Stream],
    asked,
    members: &["stream"],
    queries: &[],
    path_ends: None,
    framing: Framing::Lines,
    to_whole,
    to_events,
};

/// What each line says again.
pub(super) const CONSTANT: &[&str] = &["model", "remote_model", "remote_host", "created_at"];

/// How the members of lines come together, but for their message.
const LINE: &Rules = &[
    ("created_at", Join::Last),
    ("response", Join::Text),
    ("thinking", Join::Text),
    ("logprobs", Join::List),
    ("done", Join::Last),
];

/// How messages come together.
const MESSAGE: &Rules =
    &[("role", Join::First), ("content", Join::Text), ("thinking", Join::Text), ("tool_calls", Join::List)];

/// It streams unless told not to.
fn asked(request: &Request<'_>) -> Option<Form> {
    match request.body.get("stream") {
        Value::Null | Value::Bool(true) => Some(Form::Stream),
        Value::Bool(false) => Some(Form::Whole),
        _ => None,
    }
}

fn to_whole(events: Vec<Event>, _: Form) -> Option<Object> {
    let mut whole = Object::new();
    let mut message: Option<Object> = None;
    for event in events {
        let mut line = event.into_object()?;
        if line.has("error") || whole.has("done") {
            return None;
        }
        if let Some(piece) = line.take("message") {
            message.get_or_insert_default().join(piece.into_object()?, MESSAGE)?;
        }
        whole.join(line, LINE)?;
    }
    let head = whole.has("done").then(|| whole.take_all(CONSTANT))?;
    Some(head.with_any("message", message.map(Json::from)).with_all(whole))
}

fn to_events(whole: Object, _: Form, out: &mut Events) -> Option<()> {
    if !whole.has("done") || whole.has("error") {
        return None;
    }
    let mut last = whole;
    let head = last.clone().take_all(CONSTANT);
    let logprobs = last.take("logprobs");
    let mut lines: Vec<Object> = Vec::new();
    if let Some(message) = last.take("message") {
        let mut message = message.into_object()?;
        let role = message.get("role").cloned();
        let said = |name: &str, value: Json| {
            let message = Object::new().with_any("role", role.clone()).with("content", "").with(name, value);
            Object::new().with("message", message)
        };
        let pieces = ["thinking", "content", "tool_calls"].map(|name| Some((name, taken(&mut message, name)?)));
        lines.extend(pieces.into_iter().flatten().map(|(name, value)| said(name, value)));
        last.set("message", message);
    } else {
        last.get("response")?.as_text()?;
        let pieces = ["thinking", "response"].map(|name| Some((name, taken(&mut last, name)?)));
        let said = |(name, value)| Object::new().with("response", "").with(name, value);
        lines.extend(pieces.into_iter().flatten().map(said));
    }
    if let Some(logprobs) = logprobs {
        lines.last_mut().unwrap_or(&mut last).set("logprobs", logprobs);
    }
    for line in lines {
        out.push("", &head.clone().with_all(line).with("done", Json::falsehood()))?;
    }
    out.push("", &last)
}

/// Takes a member out that says something; a text that the last line has as well is left there, empty.
fn taken(from: &mut Object, name: &str) -> Option<Json> {
    let value = from.get(name).filter(|value| value.is_filled())?.clone();
    match name {
        "content" | "response" => from.set(name, ""),
        _ => drop(from.take(name)),
    }
    Some(value)
}
