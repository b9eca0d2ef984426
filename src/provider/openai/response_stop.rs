//! Response stop: streams of `/responses`, ended: what is open is told to be done as far as it came, and the response is
//! incomplete for want of tokens.

use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::MAX_NAMES;
use crate::provider::forms::Events;
use crate::provider::lenient::{Count, Text};
use crate::provider::openai::response_forms::{Place, Told};
use crate::provider::stop::{Pieces, Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};

/// What is noted of a stream.
#[derive(Default)]
pub(super) struct Notes {
    /// The response as it began.
    response: Option<Object>,
    /// The items that are done.
    items: Vec<Json>,
    open: Option<Item>,
    /// The number of the next event.
    number: usize,
    done: bool,
}

/// An item of the output that is not done.
struct Item {
    at: usize,
    begun: Object,
    /// Its parts that are done: of its content and of its summary.
    parts: [Vec<Json>; 2],
    part: Option<Part>,
    /// What came of it in deltas; of its last part, where it has parts.
    text: Pieces,
}

/// A part of an item that is not done.
struct Part {
    of: PartOf,
    number: usize,
    begun: Object,
}

/// What a part is a part of.
#[derive(Clone, Copy, PartialEq)]
enum PartOf {
    Content,
    Summary,
}

/// An event, as far as it says what it is and where it belongs.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    sequence_number: Count,
    output_index: Count,
    content_index: Count,
    summary_index: Count,
    #[serde(borrow)]
    delta: Text<'a>,
}

impl StreamEvent<'_> {
    fn part_of(&self) -> (PartOf, usize) {
        match self.summary_index.0 {
            Some(number) => (PartOf::Summary, to_index(number)),
            None => (PartOf::Content, to_index(self.content_index.0.unwrap_or(0))),
        }
    }
}

impl Stop for Notes {
    fn note(&mut self, event: &Event<'_>) {
        let Some(read) = json::read::<StreamEvent<'_>>(event.data) else { return };
        self.number = read.sequence_number.0.map_or(self.number, to_index) + 1;
        let kind = read.kind.get().unwrap_or(event.name);
        let taken = |name: &str| Object::read(event.data)?.take_object(name);
        match kind {
            "response.created" | "response.in_progress" | "response.queued" if self.response.is_none() => {
                self.response = taken("response");
            }
            "response.completed" | "response.incomplete" | "response.failed" | "error" => self.done = true,
            "response.output_item.added" => {
                let at = to_index(read.output_index.0.unwrap_or(0));
                self.open = taken("item").map(|begun| Item {
                    at,
                    begun,
                    parts: [const { Vec::new() }; 2],
                    part: None,
                    text: Pieces::default(),
                });
            }
            "response.output_item.done" => {
                self.open = None;
                let item = taken("item").filter(|_| self.items.len() < MAX_NAMES);
                self.items.extend(item.map(Json::from));
            }
            kind => {
                if let Some(open) = &mut self.open {
                    open.note(kind, &read, taken);
                }
            }
        }
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        let response = self.response.clone()?;
        let mut told = Told::going_on(out, self.number);
        let mut items = self.items.clone();
        if let Some(open) = &self.open
            && let Some(text) = open.text.whole()
        {
            items.push(open.end(text, &mut told)?.into());
        }
        let details = Object::new().with("reason", "max_output_tokens");
        let response = response.with("status", "incomplete").with("incomplete_details", details);
        told.push("response.incomplete", Object::new().with("response", response.with("output", items)))
    }
}

impl Item {
    fn note(&mut self, kind: &str, read: &StreamEvent<'_>, taken: impl Fn(&str) -> Option<Object>) {
        match kind.rsplit('.').next() {
            Some("delta") => self.text.push(read.delta.get().unwrap_or_default()),
            Some("added") => {
                let (of, number) = read.part_of();
                self.part = taken("part").map(|begun| Part { of, number, begun });
                self.text = Pieces::default();
            }
            // A text is done before the part that it is of.
            Some("done") if kind.ends_with("_part.done") => {
                let (of, _) = read.part_of();
                let parts = &mut self.parts[of as usize];
                let part = taken("part").filter(|_| parts.len() < MAX_NAMES);
                parts.extend(part.map(Json::from));
                self.part = None;
                self.text = Pieces::default();
            }
            _ => {}
        }
    }

    /// Tells that it is done, as far as it came; the item itself.
    fn end(&self, text: &str, told: &mut Told<'_>) -> Option<Object> {
        let place = Place { item: self.begun.get("id")?.clone(), at: self.at };
        let mut parts = self.parts.clone();
        if let Some(part) = &self.part {
            parts[part.of as usize].push(part.end(text, &place, told)?.into());
        }
        let mut item = self.begun.clone();
        for (name, parts) in ["content", "summary"].into_iter().zip(parts).filter(|(_, parts)| !parts.is_empty()) {
            item.set(name, parts);
        }
        let said = match &*item.get("type")?.as_text()? {
            "function_call" => Some(("response.function_call_arguments.done", "arguments")),
            "custom_tool_call" => Some(("response.custom_tool_call_input.done", "input")),
            _ => None,
        };
        if let Some((kind, name)) = said {
            told.push(kind, place.event().with(name, text))?;
            item.set(name, text);
        }
        if item.get("status").is_some() {
            item.set("status", "incomplete");
        }
        told.push("response.output_item.done", Object::new().with("output_index", self.at).with("item", item.clone()))?;
        Some(item)
    }
}

impl Part {
    /// Tells that it is done, as far as it came; the part itself.
    fn end(&self, text: &str, place: &Place, told: &mut Told<'_>) -> Option<Object> {
        let (kind, name) = match &*self.begun.get("type")?.as_text()? {
            "output_text" => ("response.output_text.done", "text"),
            "refusal" => ("response.refusal.done", "refusal"),
            "summary_text" => ("response.reasoning_summary_text.done", "text"),
            "reasoning_text" => ("response.reasoning_text.done", "text"),
            _ => return None,
        };
        let (index, done) = match self.of {
            PartOf::Content => ("content_index", "response.content_part.done"),
            PartOf::Summary => ("summary_index", "response.reasoning_summary_part.done"),
        };
        let place = place.part(index, self.number);
        let logprobs = (kind == "response.output_text.done").then(|| Json::from(Vec::new()));
        told.push(kind, place.clone().with_any("logprobs", logprobs).with(name, text))?;
        let part = self.begun.clone().with(name, text);
        told.push(done, place.with("part", part.clone()))?;
        Some(part)
    }
}

/// No list of anything is as long as that.
fn to_index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX - 1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::provider::forms::Framing;

    /// The events that end a stream of these.
    fn ended(events: &[Value]) -> Vec<Value> {
        let mut notes = Notes::default();
        for (number, event) in events.iter().enumerate() {
            let mut event = event.clone();
            event["sequence_number"] = json!(number);
            notes.note(&Event { name: "", data: event.to_string().as_bytes(), span: 0..0 });
        }
        let mut out = Events::going_on(Framing::Lines, true, 1 << 20);
        notes.end(UsedSoFar::default(), &mut out).expect("an end");
        let lines = String::from_utf8(out.finish()).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn created() -> Value {
        json!({"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": [], "usage": null}})
    }

    fn added(item: &Value) -> Value {
        json!({"type": "response.output_item.added", "output_index": 1, "item": item})
    }

    #[test]
    fn what_is_open_is_told_to_be_done_as_far_as_it_came() {
        let reasoning = json!({"id": "rs", "type": "reasoning", "summary": []});
        let message = json!({"id": "msg", "type": "message", "status": "in_progress", "content": []});
        let place = json!({"item_id": "msg", "output_index": 1, "content_index": 0});
        let with = |mut event: Value, more: Value| {
            event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            event
        };
        let part = |text: &str| json!({"type": "output_text", "annotations": [], "text": text});
        let delta = |text: &str| with(place.clone(), json!({"type": "response.output_text.delta", "delta": text}));
        let events = ended(&[
            created(),
            json!({"type": "response.output_item.done", "output_index": 0, "item": reasoning}),
            added(&message),
            with(place.clone(), json!({"type": "response.content_part.added", "part": part("")})),
            delta("Ti"),
            delta("t\n"),
        ]);
        let message = json!({"id": "msg", "type": "message", "status": "incomplete", "content": [part("Tit\n")]});
        let response = json!({
            "id": "r",
            "status": "incomplete",
            "output": [reasoning, message],
            "usage": null,
            "incomplete_details": {"reason": "max_output_tokens"},
        });
        let done = json!({"type": "response.output_text.done", "logprobs": [], "text": "Tit\n", "sequence_number": 6});
        let part_done = json!({"type": "response.content_part.done", "part": part("Tit\n"), "sequence_number": 7});
        let expected = [
            with(place.clone(), done),
            with(place, part_done),
            json!({"type": "response.output_item.done", "output_index": 1, "item": message, "sequence_number": 8}),
            json!({"type": "response.incomplete", "response": response, "sequence_number": 9}),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn a_calls_arguments_end_where_they_are() {
        let call = json!({"id": "fc", "type": "function_call", "name": "f", "arguments": "", "status": "in_progress"});
        let delta = json!({"type": "response.function_call_arguments.delta", "item_id": "fc", "delta": "{\"a\":"});
        let events = ended(&[created(), added(&call), delta]);
        let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
        let expected = ["response.function_call_arguments.done", "response.output_item.done", "response.incomplete"];
        assert_eq!(kinds, expected);
        assert_eq!(events[0]["arguments"], "{\"a\":");
        assert_eq!(
            (&events[1]["item"]["arguments"], &events[1]["item"]["status"]),
            (&json!("{\"a\":"), &json!("incomplete"))
        );
    }

    #[test]
    fn a_text_that_is_too_long_to_be_said_again_is_left_out() {
        let message = json!({"id": "msg", "type": "message", "status": "in_progress", "content": []});
        let part = json!({"type": "response.content_part.added", "content_index": 0, "part": {"type": "output_text"}});
        let delta = json!({"type": "response.output_text.delta", "delta": "x".repeat(200 << 10)});
        let events = ended(&[created(), added(&message), part, delta.clone(), delta]);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["response"]["output"], json!([]));
    }
}
