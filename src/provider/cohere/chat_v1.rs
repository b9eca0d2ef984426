//! Chat, first version: replies of `/v1/chat` and of the older `/v1/generate`. Streams are lines; the last one, of type
//! `stream-end`, holds the whole reply once more, and what was used.

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::frames::Event;
use crate::json;
use crate::provider::cohere::usage::Reported;
use crate::provider::lenient::{List, Object, Text};
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said, cohere};

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Said,
    failed: bool,
    done: bool,
}

/// A whole reply.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Whole<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    response_id: Text<'a>,
    #[serde(borrow)]
    generation_id: Text<'a>,
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    finish_reason: Text<'a>,
    #[serde(borrow)]
    generations: List<Generation<'a>>,
    #[serde(borrow)]
    tool_calls: List<ToolCall<'a>>,
    meta: Object<Reported>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Generation<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    finish_reason: Text<'a>,
}

/// A line of a stream.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    event_type: Text<'a>,
    #[serde(borrow)]
    generation_id: Text<'a>,
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    tool_call_delta: Object<ToolCall<'a>>,
    #[serde(borrow)]
    finish_reason: Text<'a>,
    #[serde(borrow)]
    response: Object<Whole<'a>>,
}

/// A call of a tool, or (with its parameters as a text) a fragment of one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolCall<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        let Some(Object(Some(reply))) = json::read::<Object<Whole<'_>>>(body) else { return };
        self.done = reply.text.get().is_some() || reply.finish_reason.get().is_some() || reply.generations.0.is_some();
        self.read(&reply);
        reply.text.push_to(&mut self.said.output);
        for generation in reply.generations.items() {
            generation.text.push_to(&mut self.said.output);
        }
        for call in reply.tool_calls.items() {
            self.read_call_text(call);
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(line) = json::read::<Line<'_>>(event.data) else { return EventKind::Other };
        line.generation_id.keep_first(&mut self.said.facts.id);
        match line.event_type.get() {
            Some("text-generation") if line.text.push_to(&mut self.said.output) => return EventKind::Content,
            Some("tool-calls-chunk") => {
                line.text.push_to(&mut self.said.output);
                if let Some(fragment) = line.tool_call_delta.get() {
                    self.read_call_text(fragment);
                }
                return EventKind::Content;
            }
            Some("stream-end") => {
                self.done = true;
                if let Some(reply) = line.response.get() {
                    self.read(reply);
                }
                if let Some(reason) = line.finish_reason.get() {
                    self.said.facts.finish_reasons = vec![reason.into()];
                }
            }
            Some("stream-error") => self.failed = true,
            _ => {}
        }
        EventKind::Other
    }

    fn generated(&self) -> u64 {
        self.said.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        self.said.ending = match (self.failed, self.done) {
            (true, _) => Ending::Failed,
            (_, false) => Ending::Unfinished,
            _ => cohere::ending(&self.said.facts.finish_reasons),
        };
        self.said
    }
}

impl Reply {
    /// Takes in what a reply says of itself.
    fn read(&mut self, reply: &Whole<'_>) {
        let facts = &mut self.said.facts;
        for id in [&reply.generation_id, &reply.response_id, &reply.id] {
            id.keep_first(&mut facts.id);
        }
        let several = reply.generations.items().iter().map(|generation| &generation.finish_reason);
        let reasons = several.chain([&reply.finish_reason]).filter_map(Text::get);
        facts.finish_reasons = reasons.take(MAX_NAMES).map(Box::from).collect();
        let names = reply.tool_calls.items().iter().filter_map(|call| call.name.get());
        facts.tools = names.take(MAX_NAMES).map(Box::from).collect();
        facts.calls = None;
        for call in reply.tool_calls.items() {
            facts.call(call.name.get().unwrap_or_default());
            facts.argue(call.parameters.map(RawValue::get).unwrap_or_default());
        }
        self.said.usage = reply.meta.get().and_then(Reported::usage);
    }

    /// Notes what was generated to call a tool.
    fn read_call_text(&mut self, call: &ToolCall<'_>) {
        call.name.push_to(&mut self.said.output);
        let Some(parameters) = call.parameters.map(RawValue::get) else { return };
        match json::read::<Text<'_>>(parameters.as_bytes()) {
            Some(fragment) if parameters.starts_with('"') => {
                fragment.push_to(&mut self.said.output);
            }
            _ => self.said.output.push(parameters),
        }
    }
}
