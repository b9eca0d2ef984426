//! Reply: messages of the Anthropic API, whole or streamed, and token counts.
//!
//! Input counts leave out what was read from and written to the prompt cache; output counts contain thinking. In a
//! stream, `message_start` has the input and the lifetimes of cache writes, `message_delta` cumulative totals without
//! those lifetimes, and `message_stop` ends it.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::endpoint::Endpoint;
use crate::provider::lenient::{Count, Filled, List, Object, Text, Written};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said, sum};
use crate::record::ReplyFacts;
use crate::record::usage::{Counter, Usage};

/// A fresh reader for one reply.
pub(super) fn reader(endpoint: Endpoint) -> Box<dyn ReadReply> {
    Box::new(Reply { counts_tokens: endpoint == Endpoint::CountMessages, ..Reply::default() })
}

/// Reads one reply.
#[derive(Debug, Default)]
struct Reply {
    /// Whether this is the answer of `/messages/count_tokens`: its counts are no usage.
    counts_tokens: bool,
    facts: ReplyFacts,
    tally: Tally,
    /// Tokens of steps that the totals leave out.
    aside: Tally,
    output: Output,
    stop_reason: Option<Box<str>>,
    done: bool,
    failed: bool,
}

/// A whole message; in a stream, what `message_start` opens with.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    stop_reason: Text<'a>,
    #[serde(borrow)]
    content: List<Block<'a>>,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    thinking: Written<'a>,
    #[serde(borrow)]
    text: Written<'a>,
    /// The arguments of a call.
    #[serde(borrow)]
    input: Written<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    message: Object<Message<'a>>,
    #[serde(borrow)]
    content_block: Object<Block<'a>>,
    #[serde(borrow)]
    delta: Object<Delta<'a>>,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta<'a> {
    #[serde(borrow)]
    stop_reason: Text<'a>,
    #[serde(borrow)]
    thinking: Written<'a>,
    #[serde(borrow)]
    text: Written<'a>,
    #[serde(borrow)]
    partial_json: Written<'a>,
}

/// A usage object, or one entry of its `iterations`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Reported<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_creation: Object<Lifetimes>,
    output_tokens_details: Object<OutputDetails>,
    server_tool_use: Object<ServerTools>,
    #[serde(borrow)]
    service_tier: Text<'a>,
    #[serde(borrow)]
    speed: Text<'a>,
    #[serde(borrow)]
    inference_geo: Text<'a>,
    #[serde(borrow)]
    iterations: List<Reported<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Lifetimes {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServerTools {
    web_search_requests: Count,
}

/// Counts reported so far. Usage objects are cumulative: the last count of each counter holds.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    uncached_input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    thinking: Option<u64>,
    web_searches: Option<u64>,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        let Some(Object(Some(message))) = json::read::<Object<Message<'_>>>(body) else { return };
        self.failed = message.error.0 || message.kind.get() == Some("error");
        self.read(&message);
        self.done = self.counts_tokens || message.content.0.is_some();
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(read) = json::read::<StreamEvent<'_>>(event.data) else { return EventKind::Other };
        if let Some(reported) = read.usage.get() {
            self.take(reported);
        }
        match read.kind.get().unwrap_or(event.name) {
            "message_start" => {
                if let Some(message) = read.message.get() {
                    self.read(message);
                    // A placeholder, until `message_delta` counts.
                    self.tally.output = None;
                }
            }
            "content_block_start" if read.content_block.get().is_some_and(|block| self.read_block(block)) => {
                return EventKind::Content;
            }
            "content_block_delta" => {
                if let Some(delta) = read.delta.get() {
                    for written in [delta.thinking, delta.text, delta.partial_json] {
                        written.push_to(&mut self.output);
                    }
                    delta.partial_json.argue_to(&mut self.facts);
                }
                return EventKind::Content;
            }
            "message_delta" => {
                if let Some(delta) = read.delta.get() {
                    delta.stop_reason.keep_last(&mut self.stop_reason);
                }
            }
            "message_stop" => self.done = true,
            "error" => self.failed = true,
            _ => {}
        }
        EventKind::Other
    }

    fn generated(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let ending = match (self.failed, self.done, self.stop_reason.as_deref()) {
            (true, _, _) => Ending::Failed,
            (_, false, _) => Ending::Unfinished,
            (_, _, Some("refusal")) => Ending::Declined,
            _ => Ending::Complete,
        };
        self.facts.finish_reasons = self.stop_reason.into_iter().collect();
        // A stream that broke off has said what went in, but not what came out.
        let is_reported = self.tally.output.is_some() || (!ending.is_success() && self.tally.uncached_input.is_some());
        let usage = is_reported.then(|| self.tally.plus(self.aside).usage());
        Said { facts: self.facts, usage, provider_cost: None, output: self.output, text: None, ending }
    }
}

impl Reply {
    fn read(&mut self, message: &Message<'_>) {
        message.id.keep_first(&mut self.facts.id);
        message.model.keep_first(&mut self.facts.model);
        message.stop_reason.keep_last(&mut self.stop_reason);
        for block in message.content.items() {
            self.read_block(block);
            block.thinking.push_to(&mut self.output);
            block.text.push_to(&mut self.output);
            block.input.push_json_to(&mut self.output);
            block.input.argue_to(&mut self.facts);
        }
        if let Some(reported) = message.usage.get() {
            self.take(reported);
        }
    }

    /// Notes a block that calls a tool; whether it is one. `tool_use`, `server_tool_use` and `mcp_tool_use` do.
    fn read_block(&mut self, block: &Block<'_>) -> bool {
        let calls = block.kind.get().is_some_and(|kind| kind.ends_with("tool_use"));
        if let Some(name) = block.name.get().filter(|_| calls && self.facts.tools.len() < MAX_NAMES) {
            self.facts.tools.push(name.into());
        }
        if block.kind.get() == Some("tool_use") {
            self.facts.call(block.name.get().unwrap_or_default());
        }
        calls
    }

    fn take(&mut self, reported: &Reported<'_>) {
        reported.service_tier.keep_last(&mut self.facts.service_tier);
        reported.speed.keep_last(&mut self.facts.speed);
        reported.inference_geo.keep_last(&mut self.facts.inference_geo);
        self.tally = Tally::of(reported).or(self.tally);
        if reported.iterations.0.is_some() {
            // Compactions are billed, but not in the totals.
            let steps = reported.iterations.items().iter();
            let compactions = steps.filter(|step| step.kind.get() == Some("compaction"));
            self.aside = compactions.fold(Tally::default(), |sum, step| sum.plus(Tally::of(step)));
        }
    }
}

impl Tally {
    fn of(reported: &Reported<'_>) -> Self {
        let lifetimes = reported.cache_creation.get();
        Self {
            uncached_input: reported.input_tokens.0,
            output: reported.output_tokens.0,
            cache_read: reported.cache_read_input_tokens.0,
            cache_write: reported.cache_creation_input_tokens.0,
            cache_write_5m: lifetimes.and_then(|lifetimes| lifetimes.ephemeral_5m_input_tokens.0),
            cache_write_1h: lifetimes.and_then(|lifetimes| lifetimes.ephemeral_1h_input_tokens.0),
            thinking: reported.output_tokens_details.get().and_then(|details| details.thinking_tokens.0),
            web_searches: reported.server_tool_use.get().and_then(|tools| tools.web_search_requests.0),
        }
    }

    /// These counts, and those of `earlier` where there is none here.
    fn or(self, earlier: Self) -> Self {
        self.with(earlier, Option::or)
    }

    fn plus(self, other: Self) -> Self {
        self.with(other, sum)
    }

    fn with(self, other: Self, combine: fn(Option<u64>, Option<u64>) -> Option<u64>) -> Self {
        Self {
            uncached_input: combine(self.uncached_input, other.uncached_input),
            output: combine(self.output, other.output),
            cache_read: combine(self.cache_read, other.cache_read),
            cache_write: combine(self.cache_write, other.cache_write),
            cache_write_5m: combine(self.cache_write_5m, other.cache_write_5m),
            cache_write_1h: combine(self.cache_write_1h, other.cache_write_1h),
            thinking: combine(self.thinking, other.thinking),
            web_searches: combine(self.web_searches, other.web_searches),
        }
    }

    /// Writes that are not itemised live five minutes, so only the hour's are told apart.
    fn usage(self) -> Usage {
        let parts = [
            (Counter::CacheReadTokens, self.cache_read),
            (Counter::CacheWriteTokens, self.cache_write.or(sum(self.cache_write_5m, self.cache_write_1h))),
            (Counter::CacheWrite1hTokens, self.cache_write_1h),
            (Counter::OutputReasoningTokens, self.thinking),
            (Counter::WebSearches, self.web_searches),
        ];
        Usage::cache_outside(self.uncached_input, self.output, &parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(body: &str) -> Usage {
        let mut reply = reader(Endpoint::Messages);
        reply.whole(StatusCode::OK, body.as_bytes());
        reply.finish().usage.expect("usage")
    }

    #[test]
    fn compactions_are_added_to_the_totals() {
        let usage = usage(
            r#"{"content":[],"usage":{"input_tokens":100,"output_tokens":10,"iterations":[
                {"type":"message","input_tokens":100,"output_tokens":10},
                {"type":"compaction","input_tokens":1000,"output_tokens":50,"cache_read_input_tokens":7}]}}"#,
        );
        assert_eq!(usage.get(Counter::InputTokens), Some(1107));
        assert_eq!(usage.get(Counter::OutputTokens), Some(60));
        assert_eq!(usage.get(Counter::CacheReadTokens), Some(7));
    }

    #[test]
    fn all_writes_are_those_of_each_lifetime_where_no_total_is_given() {
        let usage = usage(
            r#"{"content":[],"usage":{"input_tokens":1,"output_tokens":1,
                "cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":23}}}"#,
        );
        assert_eq!(usage.get(Counter::CacheWriteTokens), Some(123));
        assert_eq!(usage.get(Counter::CacheWrite1hTokens), Some(23));
    }

    #[test]
    fn where_inference_ran_is_noted_from_the_start_of_a_stream() {
        let mut reply = reader(Endpoint::Messages);
        for data in [
            r#"{"type":"message_start","message":{"usage":{"input_tokens":1,"inference_geo":"us"}}}"#,
            r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":1}}"#,
        ] {
            reply.event(&Event { name: "", data: data.as_bytes(), span: 0..0 });
        }
        assert_eq!(reply.finish().facts.inference_geo.as_deref(), Some("us"));
    }

    #[test]
    fn deltas_and_tool_calls_are_content() {
        for (data, expected) in [
            (r#"{"type":"message_start","message":{"usage":{}}}"#, EventKind::Other),
            (r#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#, EventKind::Other),
            (r#"{"type":"content_block_start","content_block":{"type":"tool_use","name":"a"}}"#, EventKind::Content),
            (r#"{"type":"content_block_start","content_block":{"type":"server_tool_use"}}"#, EventKind::Content),
            (r#"{"type":"content_block_delta","delta":{"type":"thinking_delta"}}"#, EventKind::Content),
            (r#"{"type":"ping"}"#, EventKind::Other),
            (r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":1}}"#, EventKind::Other),
        ] {
            let event = Event { name: "", data: data.as_bytes(), span: 0..0 };
            assert_eq!(Reply::default().event(&event), expected, "{data}");
        }
    }
}
