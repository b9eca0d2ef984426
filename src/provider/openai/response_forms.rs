//! Response forms: replies of `/responses`, whole and streamed, turned into each other.
//!
//! A stream ends with an event that repeats the whole response, so that it need not be put together. As a stream, a
//! response is told item by item: messages, reasoning and calls of the app's own tools. What the provider ran itself has
//! events of its own, which are not told here.

use crate::provider::Request;
use crate::provider::forms::{Event, Events, Forms, Framing, asked_by_body};
use crate::provider::tree::{Json, Object};
use crate::record::call::Form;

/// The forms of responses.
pub(super) static FORMS: Forms = Forms {
    all: &[Form::Whole, Form::Stream],
    asked,
    members: &["stream", "stream_options"],
    queries: &[],
    path_ends: None,
    framing: Framing::Events,
    to_whole,
    to_events,
};

/// What a response says only once it is there: null, or empty, before.
const LATER: &[&str] = &["usage", "incomplete_details", "completed_at", "tool_usage"];

/// The form a request asks for. Of its stream's options, only that which hides the size of events is known.
fn asked(request: &Request<'_>) -> Option<Form> {
    let options = request.body.get("stream_options");
    let known = match options {
        serde_json_borrow::Value::Null => true,
        serde_json_borrow::Value::Object(members) => members.iter().all(|(name, _)| name == "include_obfuscation"),
        _ => false,
    };
    asked_by_body(request).filter(|_| known)
}

fn to_whole(events: Vec<Event>, _: Form) -> Option<Object> {
    let mut items = 0;
    for event in events {
        let mut event = event.into_object()?;
        match event.take_text("type")?.as_str() {
            "response.output_item.done" => items += 1,
            "response.completed" | "response.incomplete" => {
                let response = event.take_object("response")?;
                let said = response.get("output")?.clone().into_list()?.len();
                return Some(response).filter(|_| items <= said);
            }
            "response.failed" | "error" => return None,
            _ => {}
        }
    }
    None
}

fn to_events(whole: Object, _: Form, out: &mut Events) -> Option<()> {
    let status = whole.get("status")?.as_text()?.into_owned();
    if !matches!(&*status, "completed" | "incomplete") || whole.has("error") {
        return None;
    }
    let items = whole.get("output")?.clone().into_list()?;
    let mut begun = whole.clone().with("status", "in_progress").with("output", Vec::new());
    for name in LATER {
        if begun.get(name).is_some() {
            begun.set(name, Json::null());
        }
    }
    let mut told = Told { out, number: 0 };
    for kind in ["response.created", "response.in_progress"] {
        told.push(kind, Object::new().with("response", begun.clone()))?;
    }
    for (at, item) in items.into_iter().enumerate() {
        told.push_item(at, item.into_object()?)?;
    }
    told.push(&format!("response.{status}"), Object::new().with("response", whole))
}

/// The events of a response, as they are written: each has a number.
pub(super) struct Told<'a> {
    out: &'a mut Events,
    number: usize,
}

/// Where in a response an event belongs.
pub(super) struct Place {
    pub(super) item: Json,
    pub(super) at: usize,
}

impl Place {
    pub(super) fn event(&self) -> Object {
        Object::new().with("item_id", self.item.clone()).with("output_index", self.at)
    }

    pub(super) fn part(&self, index: &str, number: usize) -> Object {
        self.event().with(index, number)
    }
}

impl<'a> Told<'a> {
    /// The events after those that came, of which the next has this number.
    pub(super) fn going_on(out: &'a mut Events, number: usize) -> Self {
        Self { out, number }
    }

    pub(super) fn push(&mut self, kind: &str, event: Object) -> Option<()> {
        let event = Object::new().with("type", kind).with_all(event).with("sequence_number", self.number);
        self.number += 1;
        self.out.push(kind, &event)
    }

    fn push_item(&mut self, at: usize, item: Object) -> Option<()> {
        let place = Place { item: item.get("id")?.clone(), at };
        let kind = item.get("type")?.as_text()?.into_owned();
        let mut added = item.clone();
        if added.get("status").is_some() {
            added.set("status", "in_progress");
        }
        for (name, empty) in [("content", Json::from(Vec::new())), ("summary", Vec::new().into())] {
            if added.has(name) {
                added.set(name, empty);
            }
        }
        for name in ["arguments", "input"] {
            if added.get(name).is_some() {
                added.set(name, "");
            }
        }
        self.push("response.output_item.added", Object::new().with("output_index", at).with("item", added))?;
        match &*kind {
            "message" => self.push_content(&place, item.clone()),
            "reasoning" => self.push_reasoning(&place, item.clone()),
            "function_call" => self.push_text(&place.event(), "response.function_call_arguments", "arguments", &item),
            "custom_tool_call" => self.push_text(&place.event(), "response.custom_tool_call_input", "input", &item),
            _ => None,
        }?;
        self.push("response.output_item.done", Object::new().with("output_index", at).with("item", item))
    }

    /// Writes a text in one piece, and then that it is done.
    fn push_text(&mut self, place: &Object, kind: &str, name: &str, from: &Object) -> Option<()> {
        let text = from.get(name)?;
        text.as_text()?;
        self.push(&format!("{kind}.delta"), place.clone().with("delta", text.clone()))?;
        self.push(&format!("{kind}.done"), place.clone().with(name, text.clone()))
    }

    fn push_content(&mut self, place: &Place, mut item: Object) -> Option<()> {
        for (number, part) in item.take_list("content")?.into_iter().enumerate() {
            let part = part.into_object()?;
            let place = place.part("content_index", number);
            let (kind, name) = match &*part.get("type")?.as_text()? {
                "output_text" => ("response.output_text", "text"),
                "refusal" => ("response.refusal", "refusal"),
                _ => return None,
            };
            let mut added = part.clone().with(name, "");
            for list in ["annotations", "logprobs"] {
                if added.has(list) {
                    added.set(list, Vec::new());
                }
            }
            self.push("response.content_part.added", place.clone().with("part", added))?;
            let logprobs = || part.get("logprobs").cloned().unwrap_or_else(|| Vec::new().into());
            let texts = place.clone().with_any("logprobs", (name == "text").then(logprobs));
            self.push_text(&texts, kind, name, &part)?;
            for (number, annotation) in part.clone().take_list("annotations")?.into_iter().enumerate() {
                let event = place.clone().with("annotation_index", number).with("annotation", annotation);
                self.push("response.output_text.annotation.added", event)?;
            }
            self.push("response.content_part.done", place.with("part", part))?;
        }
        Some(())
    }

    fn push_reasoning(&mut self, place: &Place, mut item: Object) -> Option<()> {
        for (number, part) in item.take_list("summary")?.into_iter().enumerate() {
            let part = typed(part, "summary_text")?;
            let place = place.part("summary_index", number);
            let added = part.clone().with("text", "");
            self.push("response.reasoning_summary_part.added", place.clone().with("part", added))?;
            self.push_text(&place, "response.reasoning_summary_text", "text", &part)?;
            self.push("response.reasoning_summary_part.done", place.with("part", part))?;
        }
        for (number, part) in item.take_list("content")?.into_iter().enumerate() {
            let part = typed(part, "reasoning_text")?;
            let place = place.part("content_index", number);
            let added = part.clone().with("text", "");
            self.push("response.content_part.added", place.clone().with("part", added))?;
            self.push_text(&place, "response.reasoning_text", "text", &part)?;
            self.push("response.content_part.done", place.with("part", part))?;
        }
        Some(())
    }
}

/// A part, if it is of this type.
fn typed(part: Json, kind: &str) -> Option<Object> {
    part.into_object().filter(|part| part.get("type").and_then(Json::as_text).as_deref() == Some(kind))
}
