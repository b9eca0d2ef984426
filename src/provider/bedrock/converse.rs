//! Converse: replies of Bedrock's `Converse` and `ConverseStream`, and of the models that speak the same under
//! `InvokeModel` (Amazon Nova).
//!
//! A whole reply has a message where a stream has its blocks, piece by piece. Input counts leave out what was read from
//! and written to the prompt cache; output counts contain reasoning, which is not told apart. In a stream, the name of
//! an event is what tells it from others, and `metadata` ends it.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::bedrock::{is_exception, named_by, read_head};
use crate::provider::lenient::{Count, List, Object, Text, Written};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said};
use crate::record::ReplyFacts;
use crate::record::usage::{Counter, Usage};

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    facts: ReplyFacts,
    tally: Tally,
    output: Output,
    stop_reason: Option<Box<str>>,
    done: bool,
    failed: bool,
}

/// A whole reply, or the payload of any event of a stream: no two of them mean different things by one name.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Payload<'a> {
    #[serde(borrow)]
    output: Object<Generated<'a>>,
    #[serde(borrow)]
    start: Object<Block<'a>>,
    #[serde(borrow)]
    delta: Object<Block<'a>>,
    #[serde(borrow)]
    stop_reason: Text<'a>,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    #[serde(borrow)]
    service_tier: Object<Tier<'a>>,
    #[serde(borrow)]
    performance_config: Object<Performance<'a>>,
    #[serde(borrow)]
    trace: Object<Trace<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Generated<'a> {
    #[serde(borrow)]
    message: Object<Message<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    content: List<Block<'a>>,
}

/// A block of content, whole, or the piece of one that a delta brings.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Block<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    tool_use: Object<ToolUse<'a>>,
    #[serde(borrow)]
    reasoning_content: Object<Reasoning<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolUse<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    /// `server_tool_use`, where it is Bedrock that answers it.
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    /// A text, in pieces, in a stream; any JSON in a whole reply.
    #[serde(borrow)]
    input: Written<'a>,
}

/// Reasoning: its text stands one level deeper in a whole reply than in a delta.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reasoning<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    reasoning_text: Object<ReasoningText<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReasoningText<'a> {
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reported<'a> {
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_write_input_tokens: Count,
    /// Nova's own names for the two, under `InvokeModel`.
    cache_read_input_token_count: Count,
    cache_write_input_token_count: Count,
    #[serde(borrow)]
    cache_details: List<Lifetime<'a>>,
}

/// Tokens written to the cache, for so long.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Lifetime<'a> {
    #[serde(borrow)]
    ttl: Text<'a>,
    input_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tier<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Performance<'a> {
    #[serde(borrow)]
    latency: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Trace<'a> {
    #[serde(borrow)]
    prompt_router: Object<Router<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Router<'a> {
    #[serde(borrow)]
    invoked_model_id: Text<'a>,
}

/// Counts reported so far: the last count of each counter holds.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    uncached_input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_1h: Option<u64>,
}

impl ReadReply for Reply {
    fn head(&mut self, headers: &HeaderMap) {
        read_head(headers, &mut self.facts);
    }

    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        let Some(Object(Some(payload))) = json::read::<Object<Payload<'_>>>(body) else { return };
        self.take(&payload);
        let Some(output) = payload.output.get() else { return };
        let blocks = output.message.get().map(|message| message.content.items());
        for block in blocks.into_iter().flatten() {
            self.take_block(block);
        }
        self.done = true;
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        if is_exception(event.name) {
            self.failed = true;
            return EventKind::Other;
        }
        let Some(payload) = json::read::<Payload<'_>>(event.data) else { return EventKind::Other };
        self.take(&payload);
        self.done |= event.name == "metadata";
        let start = payload.start.get().is_some_and(|block| self.take_block(block));
        let delta = payload.delta.get().is_some_and(|block| self.take_block(block));
        if start || delta || event.name == "contentBlockDelta" { EventKind::Content } else { EventKind::Other }
    }

    fn generated(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let ending = match (self.failed, self.done, self.stop_reason.as_deref()) {
            (true, _, _) => Ending::Failed,
            (_, false, _) => Ending::Unfinished,
            (_, _, Some(reason)) if is_declined(reason) => Ending::Declined,
            _ => Ending::Complete,
        };
        self.facts.finish_reasons = self.stop_reason.into_iter().collect();
        Said { facts: self.facts, usage: self.tally.usage(), output: self.output, ending, ..Said::default() }
    }
}

/// Whether an answer that ended so is not for anybody else: filtered, or not what a model should have said.
fn is_declined(stop_reason: &str) -> bool {
    matches!(stop_reason, "guardrail_intervened" | "content_filtered") || stop_reason.starts_with("malformed_")
}

impl Reply {
    /// Takes in what a payload says beside content.
    fn take(&mut self, payload: &Payload<'_>) {
        payload.stop_reason.keep_last(&mut self.stop_reason);
        if let Some(reported) = payload.usage.get() {
            self.tally = Tally::of(reported).or(self.tally);
        }
        if let Some(tier) = payload.service_tier.get() {
            tier.kind.keep_last(&mut self.facts.service_tier);
        }
        if let Some(performance) = payload.performance_config.get() {
            performance.latency.keep_last(&mut self.facts.speed);
        }
        // The one case in which the path does not say which model answers.
        if let Some(router) = payload.trace.get().and_then(|trace| trace.prompt_router.get()) {
            self.facts.model = router.invoked_model_id.get().map(|id| named_by(id).into());
        }
    }

    /// Notes a block or a piece of one; whether it calls a tool.
    fn take_block(&mut self, block: &Block<'_>) -> bool {
        let tool = block.tool_use.get();
        if let Some(name) = tool.and_then(|tool| tool.name.get()).filter(|_| self.facts.tools.len() < MAX_NAMES) {
            self.facts.tools.push(name.into());
        }
        if let Some(tool) = tool {
            if let Some(name) = tool.name.get().filter(|_| tool.kind.get() != Some("server_tool_use")) {
                self.facts.call(name);
            }
            tool.input.push_to(&mut self.output);
            tool.input.argue_to(&mut self.facts);
        }
        let reasoning = block.reasoning_content.get();
        let deeper = reasoning.and_then(|reasoning| reasoning.reasoning_text.get());
        let texts = [
            block.text.get(),
            reasoning.and_then(|reasoning| reasoning.text.get()),
            deeper.and_then(|deeper| deeper.text.get()),
        ];
        texts.into_iter().flatten().for_each(|text| self.output.push(text));
        tool.is_some()
    }
}

impl Tally {
    fn of(reported: &Reported<'_>) -> Self {
        let hours = reported.cache_details.items().iter().filter(|part| part.ttl.get() == Some("1h"));
        let hours = hours.filter_map(|part| part.input_tokens.0).reduce(u64::saturating_add);
        Self {
            uncached_input: reported.input_tokens.0,
            output: reported.output_tokens.0,
            cache_read: reported.cache_read_input_tokens.0.or(reported.cache_read_input_token_count.0),
            cache_write: reported.cache_write_input_tokens.0.or(reported.cache_write_input_token_count.0),
            cache_write_1h: hours,
        }
    }

    /// These counts, and those of `earlier` where there is none here.
    fn or(self, earlier: Self) -> Self {
        Self {
            uncached_input: self.uncached_input.or(earlier.uncached_input),
            output: self.output.or(earlier.output),
            cache_read: self.cache_read.or(earlier.cache_read),
            cache_write: self.cache_write.or(earlier.cache_write),
            cache_write_1h: self.cache_write_1h.or(earlier.cache_write_1h),
        }
    }

    fn usage(self) -> Option<Usage> {
        let parts = [
            (Counter::CacheReadTokens, self.cache_read),
            (Counter::CacheWriteTokens, self.cache_write),
            (Counter::CacheWrite1hTokens, self.cache_write_1h),
        ];
        let is_reported = self.uncached_input.is_some() || self.output.is_some();
        is_reported.then(|| Usage::cache_outside(self.uncached_input, self.output, &parts))
    }
}
