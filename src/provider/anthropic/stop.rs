//! Stop: streams of messages, ended: open blocks are closed, and the message was as long as it may be.

use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::anthropic::forms::Told;
use crate::provider::forms::Events;
use crate::provider::lenient::{Count, Text};
use crate::provider::stop::{Open, Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};

/// What is noted of a stream.
#[derive(Default)]
pub(in crate::provider) struct Notes {
    has_begun: bool,
    blocks: Open<u64>,
    /// Whether it said why it stopped.
    has_reason: bool,
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    index: Count,
}

impl Stop for Notes {
    fn note(&mut self, event: &Event<'_>) {
        let Some(read) = json::read::<StreamEvent<'_>>(event.data) else { return };
        let index = read.index.0.unwrap_or(0);
        match read.kind.get().unwrap_or(event.name) {
            "message_start" => self.has_begun = true,
            "content_block_start" => self.blocks.open(index),
            "content_block_stop" => self.blocks.close(&index),
            "message_delta" => self.has_reason = true,
            "message_stop" | "error" => self.done = true,
            _ => {}
        }
    }

    fn end(&self, used: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        let mut told = Told(out);
        self.has_begun.then_some(())?;
        for index in self.blocks.iter() {
            told.push("content_block_stop", Object::new().with("index", Json::number(*index)))?;
        }
        if !self.has_reason {
            let delta = Object::new().with("stop_reason", "max_tokens").with("stop_sequence", Json::null());
            let usage = Object::new().with("output_tokens", Json::number(used.output));
            told.push("message_delta", Object::new().with("delta", delta).with("usage", usage))?;
        }
        told.push("message_stop", Object::new())
    }
}
