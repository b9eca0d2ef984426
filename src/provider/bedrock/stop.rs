//! Stop: streams of `ConverseStream` and of `InvokeModelWithResponseStream`, ended: open blocks are closed, and the
//! message was as long as it may be. Of the vendors' own formats only Anthropic's has such an end here; the others get an
//! exception.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::anthropic;
use crate::provider::bedrock::is_exception;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Events;
use crate::provider::lenient::{Count, Text};
use crate::provider::stop::{MESSAGE, Open, Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};

/// The exception that ends a stream whose format has no other end.
const EXCEPTION: &str = "throttlingException";

/// What the last event of a stream has, whoever's format it is in.
const LAST: &[u8] = b"\"amazon-bedrock-invocationMetrics\"";

/// What is noted of a stream.
pub(super) fn notes(endpoint: Endpoint) -> Option<Box<dyn Stop>> {
    match endpoint {
        Endpoint::Converse => Some(Box::<Conversed>::default()),
        Endpoint::InvokeModel => Some(Box::<Invoked>::default()),
        _ => None,
    }
}

/// Of `ConverseStream`.
#[derive(Default)]
struct Conversed {
    has_begun: bool,
    blocks: Open<u64>,
    /// Whether it said why it stopped.
    has_reason: bool,
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Payload {
    content_block_index: Count,
}

impl Stop for Conversed {
    fn note(&mut self, event: &Event<'_>) {
        let index = || json::read::<Payload>(event.data)?.content_block_index.0;
        match event.name {
            "messageStart" => self.has_begun = true,
            "contentBlockStart" | "contentBlockDelta" => self.blocks.open(index().unwrap_or(0)),
            "contentBlockStop" => self.blocks.close(&index().unwrap_or(0)),
            "messageStop" => self.has_reason = true,
            "metadata" => self.done = true,
            name => self.done |= is_exception(name),
        }
    }

    fn end(&self, used: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        self.has_begun.then_some(())?;
        for index in self.blocks.iter() {
            out.push("contentBlockStop", &Object::new().with("contentBlockIndex", Json::number(*index)))?;
        }
        if !self.has_reason {
            out.push("messageStop", &Object::new().with("stopReason", "max_tokens"))?;
        }
        let counts = [
            ("inputTokens", used.input),
            ("outputTokens", used.output),
            ("totalTokens", used.input.saturating_add(used.output)),
        ];
        let usage =
            counts.into_iter().fold(Object::new(), |usage, (name, count)| usage.with(name, Json::number(count)));
        out.push("metadata", &Object::new().with("usage", usage))
    }
}

/// Of `InvokeModelWithResponseStream`.
#[derive(Default)]
struct Invoked {
    message: anthropic::stop::Notes,
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk<'a> {
    #[serde(borrow)]
    bytes: Text<'a>,
}

impl Stop for Invoked {
    fn note(&mut self, event: &Event<'_>) {
        self.done |= is_exception(event.name);
        let Some(chunk) = json::read::<Chunk<'_>>(event.data) else { return };
        let decoded = chunk.bytes.get().and_then(|bytes| BASE64_STANDARD.decode(bytes).ok());
        if let Some(data) = decoded {
            self.done |= memmem::find(&data, LAST).is_some();
            self.message.note(&Event { name: "", data: &data, span: 0..0 });
        }
    }

    fn end(&self, used: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        let ended = out.wrapped(|out| self.message.end(used, out));
        ended.or_else(|| out.push_exception(EXCEPTION, &Object::new().with("message", MESSAGE)))
    }
}
