//! Stop: streams of `/api/chat` and `/api/generate`, ended: a last line without text that was as long as it may be.

use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Events;
use crate::provider::lenient::Filled;
use crate::provider::ollama::forms::CONSTANT;
use crate::provider::stop::{Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};

/// What is noted of a stream.
pub(super) fn notes(endpoint: Endpoint) -> Option<Box<dyn Stop>> {
    let notes = |is_chat| Box::new(Notes { is_chat, head: None, done: false });
    match endpoint {
        Endpoint::OllamaChat => Some(notes(true)),
        Endpoint::OllamaGenerate => Some(notes(false)),
        _ => None,
    }
}

struct Notes {
    is_chat: bool,
    /// What each line says again.
    head: Option<Object>,
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    done: Filled,
    error: Filled,
}

impl Stop for Notes {
    fn note(&mut self, event: &Event<'_>) {
        let Some(line) = json::read::<Line>(event.data) else { return };
        self.done |= line.done.0 || line.error.0;
        if self.head.is_none() {
            self.head = Object::read(event.data).map(|mut line| line.take_all(CONSTANT));
        }
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        let (name, nothing) = if self.is_chat {
            ("message", Object::new().with("role", "assistant").with("content", "").into())
        } else {
            ("response", Json::from(""))
        };
        let line = self.head.clone()?.with(name, nothing).with("done_reason", "length");
        out.push("", &line.with("done", Json::truth()))
    }
}
