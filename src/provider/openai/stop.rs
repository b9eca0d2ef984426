//! Stop: streams of `/chat/completions` and of the older `/completions`, ended: every choice says that it was as long as
//! it may be, and the end marker follows.

use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::forms::{Events, numbered};
use crate::provider::lenient::{Count, List, Text};
use crate::provider::openai::forms::CONSTANT;
use crate::provider::stop::{Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};

/// What is noted of a stream.
#[derive(Default)]
pub(super) struct Notes {
    /// What each chunk says again.
    head: Option<Object>,
    choices: Vec<(u64, Choice)>,
    done: bool,
}

#[derive(Default)]
struct Choice {
    is_text: bool,
    has_ended: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: List<Piece<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    index: Count,
    #[serde(borrow)]
    text: Option<&'a serde_json::value::RawValue>,
    delta: Option<serde::de::IgnoredAny>,
    #[serde(borrow)]
    finish_reason: Text<'a>,
}

impl Stop for Notes {
    fn note(&mut self, event: &Event<'_>) {
        if event.data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return;
        }
        let Some(chunk) = json::read::<Chunk<'_>>(event.data) else { return };
        for piece in chunk.choices.items() {
            let Some(choice) = numbered(&mut self.choices, piece.index.0.unwrap_or(0)) else { continue };
            choice.is_text |= piece.text.is_some() && piece.delta.is_none();
            choice.has_ended |= piece.finish_reason.get().is_some();
        }
        if self.head.is_none() && !chunk.choices.items().is_empty() {
            self.head = Object::read(event.data).map(|mut chunk| chunk.take_all(CONSTANT));
        }
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        let head = self.head.as_ref()?;
        for (index, choice) in self.choices.iter().filter(|(_, choice)| !choice.has_ended) {
            let (name, nothing): (_, Json) =
                if choice.is_text { ("text", "".into()) } else { ("delta", Object::new().into()) };
            let last = Object::new().with("index", Json::number(*index)).with(name, nothing);
            let last = last.with("logprobs", Json::null()).with("finish_reason", "length");
            out.push("", &head.clone().with("choices", vec![last.into()]))?;
        }
        out.push_done()
    }
}
