//! Stop: streams of both versions' chats, ended: what is open is closed, and the message was as long as it may be. The
//! first version says the whole text once more.

use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::Problem;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Events;
use crate::provider::lenient::{Count, Text};
use crate::provider::stop::{Open, Pieces, Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};

/// What is noted of a stream.
pub(super) fn notes(endpoint: Endpoint) -> Option<Box<dyn Stop>> {
    match endpoint {
        Endpoint::CohereChat => Some(Box::<Chat>::default()),
        Endpoint::CohereChatV1 => Some(Box::new(Lines::default())),
        Endpoint::CohereGenerate => Some(Box::new(Lines { generates: true, ..Lines::default() })),
        _ => None,
    }
}

/// The last event of a stream that failed.
pub(super) fn fail(endpoint: Endpoint, problem: &Problem<'_>, out: &mut Events) -> Option<()> {
    let failed = Object::new().with("finish_reason", "ERROR").with("error", problem.message);
    match endpoint {
        Endpoint::CohereChat => {
            out.push("message-end", &Object::new().with("type", "message-end").with("delta", failed))?;
            out.push_done()
        }
        Endpoint::CohereChatV1 | Endpoint::CohereGenerate => {
            let line = Object::new().with("is_finished", Json::truth()).with("event_type", "stream-error");
            out.push("", &line.with_all(failed))
        }
        _ => None,
    }
}

/// Why it stopped.
const REASON: &str = "MAX_TOKENS";

/// Of the second version.
#[derive(Default)]
struct Chat {
    has_begun: bool,
    /// What is open, and its number: `content`, `tool-call`, `citation`.
    open: Open<(&'static str, u64)>,
    has_ended: bool,
    done: bool,
}

/// What is begun and ended by events of its own.
const PARTS: [&str; 3] = ["content", "tool-call", "citation"];

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    index: Count,
}

impl Stop for Chat {
    fn note(&mut self, event: &Event<'_>) {
        if event.data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return;
        }
        let Some(read) = json::read::<StreamEvent<'_>>(event.data) else { return };
        let Some((part, what)) = read.kind.get().and_then(|kind| kind.rsplit_once('-')) else { return };
        let part = PARTS.into_iter().find(|known| *known == part);
        let index = read.index.0.unwrap_or(0);
        match (part, what) {
            (Some(part), "start") => self.open.open((part, index)),
            (Some(part), "end") => self.open.close(&(part, index)),
            (None, "start") => self.has_begun = true,
            (None, "end") => self.has_ended = true,
            _ => {}
        }
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        self.has_begun.then_some(())?;
        for (part, index) in self.open.iter() {
            let kind = format!("{part}-end");
            out.push(&kind, &Object::new().with("type", &*kind).with("index", Json::number(*index)))?;
        }
        if !self.has_ended {
            let delta = Object::new().with("finish_reason", REASON);
            out.push("message-end", &Object::new().with("type", "message-end").with("delta", delta))?;
        }
        out.push_done()
    }
}

/// Of the first version: lines.
#[derive(Default)]
struct Lines {
    /// Whether it is no chat.
    generates: bool,
    generation: Option<Box<str>>,
    text: Pieces,
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    event_type: Text<'a>,
    #[serde(borrow)]
    generation_id: Text<'a>,
    #[serde(borrow)]
    text: Text<'a>,
}

impl Stop for Lines {
    fn note(&mut self, event: &Event<'_>) {
        let Some(line) = json::read::<Line<'_>>(event.data) else { return };
        line.generation_id.keep_first(&mut self.generation);
        match line.event_type.get() {
            Some("text-generation") => self.text.push(line.text.get().unwrap_or_default()),
            Some("stream-end" | "stream-error") => self.done = true,
            _ => {}
        }
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        let id = self.generation.as_deref().unwrap_or_default();
        let said = Object::new().with("text", self.text.whole()?).with("finish_reason", REASON);
        let response = if self.generates {
            let generation = Object::new().with("id", id).with_all(said);
            Object::new().with("id", id).with("generations", vec![generation.into()])
        } else {
            Object::new().with("generation_id", id).with_all(said)
        };
        let line = Object::new().with("is_finished", Json::truth()).with("event_type", "stream-end");
        out.push("", &line.with("finish_reason", REASON).with("response", response))
    }
}
