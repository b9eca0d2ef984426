//! Invoke: replies of Bedrock's `InvokeModel` and `InvokeModelWithResponseStream`: a vendor's own format, wrapped.
//!
//! Whose format it is shows in the first member that only one of them has. What Bedrock itself counted (in the head of a
//! whole reply, in the last piece of a stream) stands beside what the vendor's format says; the same tokens are meant.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, StatusCode};
use memchr::memmem;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::frames::Event;
use crate::json;
use crate::provider::bedrock::{converse, is_exception, native, read_head};
use crate::provider::endpoint::Endpoint;
use crate::provider::lenient::{Count, Object, Text};
use crate::provider::{Ending, EventKind, ReadReply, Said, anthropic, openai};
use crate::record::ReplyFacts;
use crate::record::usage::{Counter, Usage};

/// How the names of members begin that Bedrock puts into a vendor's format.
const OWN_MEMBERS: &[u8] = b"\"amazon-bedrock-";

/// Reads one reply.
#[derive(Default)]
pub(super) struct Reply {
    /// What the head says.
    head: ReplyFacts,
    vendor: Option<Vendor>,
    counted: Counted,
    /// The piece of a stream that is being read, decoded.
    decoded: Vec<u8>,
    /// Whether Bedrock's counts came, which end a stream.
    ended: bool,
    intervened: bool,
    failed: bool,
}

struct Vendor {
    shape: Shape,
    reply: Box<dyn ReadReply>,
}

/// Whose format it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Anthropic's messages.
    Messages,
    /// OpenAI's chat completions, which several vendors speak.
    Choices,
    /// Bedrock's own: Amazon Nova.
    Converse,
    /// Any other.
    Native,
}

/// The payload of an event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Chunk<'a> {
    #[serde(borrow)]
    bytes: Text<'a>,
}

/// What Bedrock puts into a vendor's format.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Own<'a> {
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Object<Metrics>,
    #[serde(borrow, rename = "amazon-bedrock-guardrailAction")]
    guardrail_action: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metrics {
    #[serde(rename = "inputTokenCount")]
    uncached_input: Count,
    #[serde(rename = "outputTokenCount")]
    output: Count,
    #[serde(rename = "cacheReadInputTokenCount")]
    cache_read: Count,
    #[serde(rename = "cacheWriteInputTokenCount")]
    cache_write: Count,
}

/// What Bedrock counted. Input leaves out what was read from and written to the prompt cache.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    uncached_input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
}

impl ReadReply for Reply {
    fn head(&mut self, headers: &HeaderMap) {
        read_head(headers, &mut self.head);
        self.counted = Counted::of_head(headers);
    }

    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        self.read_own(body);
        self.vendor = Vendor::of(body);
        if let Some(vendor) = &mut self.vendor {
            vendor.reply.whole(status, body);
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        if is_exception(event.name) {
            self.failed = true;
            return EventKind::Other;
        }
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        let chunk = json::read::<Chunk<'_>>(event.data);
        let bytes = chunk.as_ref().and_then(|chunk| chunk.bytes.get());
        let kind = match bytes.map(|bytes| BASE64_STANDARD.decode_vec(bytes, &mut decoded)) {
            Some(Ok(())) => self.read_piece(&decoded),
            Some(Err(_)) | None => EventKind::Other,
        };
        self.decoded = decoded;
        kind
    }

    fn generated(&self) -> u64 {
        self.vendor.as_ref().map_or(0, |vendor| vendor.reply.generated())
    }

    fn finish(mut self: Box<Self>) -> Said {
        let (shape, mut said) = match self.vendor.take() {
            Some(vendor) => (vendor.shape, vendor.finish(self.ended)),
            None => (Shape::Native, Said::default()),
        };
        said.ending = self.ending(said.ending);
        said.usage = self.counted.with(said.usage.as_ref(), shape);
        // The path names the model more exactly than the vendor's format: with its inference profile, which sets the
        // price.
        said.facts.model = None;
        said.facts.id = said.facts.id.or(self.head.id);
        said.facts.service_tier = self.head.service_tier.or(said.facts.service_tier);
        said.facts.speed = self.head.speed.or(said.facts.speed);
        said
    }
}

impl Reply {
    /// Reads a piece of a stream, decoded.
    fn read_piece(&mut self, json: &[u8]) -> EventKind {
        self.ended |= self.read_own(json);
        if self.vendor.is_none() {
            self.vendor = Vendor::of(json);
        }
        self.vendor.as_mut().map_or(EventKind::Other, |vendor| vendor.read_piece(json))
    }

    /// Takes in what Bedrock put into `json`, if anything; whether its counts are there.
    fn read_own(&mut self, json: &[u8]) -> bool {
        if memmem::find(json, OWN_MEMBERS).is_none() {
            return false;
        }
        let Some(own) = json::read::<Own<'_>>(json) else { return false };
        self.intervened |= own.guardrail_action.get() == Some("INTERVENED");
        let Some(metrics) = own.metrics.get() else { return false };
        self.counted = Counted::of_metrics(metrics).or(self.counted);
        true
    }

    fn ending(&self, of_vendor: Ending) -> Ending {
        match of_vendor {
            _ if self.failed => Ending::Failed,
            // Some formats have no end marker of their own, or leave out why a text ended.
            Ending::Unfinished if !self.ended => Ending::Unfinished,
            Ending::Unfinished | Ending::Complete if self.intervened => Ending::Declined,
            Ending::Unfinished => Ending::Complete,
            other => other,
        }
    }
}

impl Vendor {
    /// Whoever speaks `json`: a whole reply, or the first piece of a stream. `None` if it is no object.
    fn of(json: &[u8]) -> Option<Self> {
        let shape = Shape::of(json)?;
        let reply: Box<dyn ReadReply> = match shape {
            Shape::Messages => (anthropic::FORMAT.reader)(Endpoint::Messages),
            Shape::Choices => (openai::FORMAT.reader)(Endpoint::ChatCompletions),
            Shape::Converse => Box::<converse::Reply>::default(),
            Shape::Native => Box::<native::Reply>::default(),
        };
        Some(Self { shape, reply })
    }

    fn read_piece(&mut self, json: &[u8]) -> EventKind {
        if self.shape != Shape::Converse {
            return self.reply.event(&Event { name: "", data: json, span: 0..0 });
        }
        // What names an event elsewhere is here the member that holds it.
        let members = json::read::<BTreeMap<&str, &RawValue>>(json).unwrap_or_default();
        let kinds = members.into_iter().map(|(name, payload)| {
            let data = payload.get().as_bytes();
            self.reply.event(&Event { name, data, span: 0..0 })
        });
        kinds.fold(EventKind::Other, |kind, next| if next == EventKind::Content { next } else { kind })
    }

    /// What the vendor's format said. What ends a stream for Bedrock, `ended`, is said to formats without an end of
    /// their own by the mark that OpenAI has for it.
    fn finish(mut self, ended: bool) -> Said {
        if ended && matches!(self.shape, Shape::Choices | Shape::Native) {
            self.reply.event(&Event { name: "", data: b"[DONE]", span: 0..0 });
        }
        self.reply.finish()
    }
}

impl Shape {
    /// Whose format `json` is, by the first member that says so; nothing after it is read.
    fn of(json: &[u8]) -> Option<Self> {
        struct Members<'a>(&'a mut Option<Shape>);

        impl<'de> Visitor<'de> for Members<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
                *self.0 = Some(Shape::Native);
                while let Some(name) = map.next_key::<String>()? {
                    if let Some(shape) = Shape::by_member(&name) {
                        *self.0 = Some(shape);
                        break;
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(())
            }
        }

        let mut shape = None;
        // To stop early is an error to the parser, and none to us.
        let _ = serde_json::Deserializer::from_slice(json).deserialize_map(Members(&mut shape));
        shape
    }

    fn by_member(name: &str) -> Option<Self> {
        match name {
            "type" | "content" => Some(Self::Messages),
            "choices" => Some(Self::Choices),
            "output" | "stopReason" | "messageStart" | "contentBlockStart" | "contentBlockDelta"
            | "contentBlockStop" | "messageStop" | "metadata" => Some(Self::Converse),
            _ => None,
        }
    }
}

impl Counted {
    fn of_head(headers: &HeaderMap) -> Self {
        let count = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        Self {
            uncached_input: count("x-amzn-bedrock-input-token-count"),
            output: count("x-amzn-bedrock-output-token-count"),
            cache_read: count("x-amzn-bedrock-cache-read-input-token-count"),
            cache_write: count("x-amzn-bedrock-cache-write-input-token-count"),
        }
    }

    const fn of_metrics(metrics: &Metrics) -> Self {
        Self {
            uncached_input: metrics.uncached_input.0,
            output: metrics.output.0,
            cache_read: metrics.cache_read.0,
            cache_write: metrics.cache_write.0,
        }
    }

    /// These counts, and those of `earlier` where there is none here.
    fn or(self, earlier: Self) -> Self {
        Self {
            uncached_input: self.uncached_input.or(earlier.uncached_input),
            output: self.output.or(earlier.output),
            cache_read: self.cache_read.or(earlier.cache_read),
            cache_write: self.cache_write.or(earlier.cache_write),
        }
    }

    /// These counts in place of the vendor's, with what only the vendor tells: the lifetimes of cache writes, reasoning,
    /// searches. Where input may contain what was cached, the vendor's counts stand if there are any.
    fn with(self, told: Option<&Usage>, shape: Shape) -> Option<Usage> {
        let of_vendor = |counter| told.and_then(|usage| usage.get(counter));
        let (input, output) = (of_vendor(Counter::InputTokens), of_vendor(Counter::OutputTokens));
        if shape == Shape::Choices && input.is_some() && output.is_some() {
            return told.copied();
        }
        let (read, write) = (of_vendor(Counter::CacheReadTokens), of_vendor(Counter::CacheWriteTokens));
        let vendors = Self {
            uncached_input: input.map(|all| all.saturating_sub(read.unwrap_or(0).saturating_add(write.unwrap_or(0)))),
            output,
            cache_read: read,
            cache_write: write,
        };
        let counts = self.or(vendors);
        let mut parts: Vec<_> = Counter::ALL.iter().map(|&counter| (counter, of_vendor(counter))).collect();
        parts.push((Counter::CacheReadTokens, counts.cache_read));
        parts.push((Counter::CacheWriteTokens, counts.cache_write));
        let is_counted = counts.uncached_input.is_some() || counts.output.is_some() || told.is_some();
        is_counted.then(|| Usage::cache_outside(counts.uncached_input, counts.output, &parts))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn event(reply: &mut Reply, piece: &str) -> EventKind {
        let data = format!(r#"{{"bytes":"{}","p":"abc"}}"#, BASE64_STANDARD.encode(piece));
        reply.event(&Event { name: "chunk", data: data.as_bytes(), span: 0..0 })
    }

    fn counts(said: &Said) -> [Option<u64>; 5] {
        [
            Counter::InputTokens,
            Counter::OutputTokens,
            Counter::CacheReadTokens,
            Counter::CacheWriteTokens,
            Counter::CacheWrite1hTokens,
        ]
        .map(|counter| said.usage.and_then(|usage| usage.get(counter)))
    }

    #[test]
    fn the_first_member_that_says_so_tells_whose_format_it_is() {
        for (json, expected) in [
            (r#"{"model":"m","id":"1","type":"message","content":[]}"#, Some(Shape::Messages)),
            (r#"{"id":"1","usage":{"a":[1,2]},"choices":[]}"#, Some(Shape::Choices)),
            (r#"{"contentBlockDelta":{"delta":{}}}"#, Some(Shape::Converse)),
            (r#"{"generation":"a \"type\": b","stop_reason":null}"#, Some(Shape::Native)),
            (r#"{"id":1,"choices":[{"type""#, Some(Shape::Choices)),
            ("{}", Some(Shape::Native)),
            ("[]", None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(Shape::of(json.as_bytes()), expected, "{json}");
        }
    }

    #[test]
    fn bedrocks_counts_replace_the_vendors_and_are_never_added() {
        let mut reply = Box::<Reply>::default();
        let usage = r#"{"input_tokens":4,"cache_read_input_tokens":5,"cache_creation_input_tokens":9,"output_tokens":1,
            "cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":7}}"#;
        event(&mut reply, &format!(r#"{{"type":"message_start","message":{{"usage":{usage}}}}}"#));
        event(
            &mut reply,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":20}}"#,
        );
        event(
            &mut reply,
            r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":6,"outputTokenCount":21}}"#,
        );
        let said = reply.finish();
        assert_eq!(counts(&said), [Some(6 + 5 + 9), Some(21), Some(5), Some(9), Some(7)]);
        assert_eq!(said.ending, Ending::Complete);
    }

    #[test]
    fn counts_that_may_contain_what_was_cached_stand() {
        let mut reply = Box::<Reply>::default();
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-bedrock-input-token-count", HeaderValue::from_static("76"));
        headers.insert("x-amzn-bedrock-cache-read-input-token-count", HeaderValue::from_static("64"));
        reply.head(&headers);
        let body = r#"{"choices":[{"finish_reason":"stop","index":0}],
            "usage":{"prompt_tokens":76,"completion_tokens":21,"prompt_tokens_details":{"cached_tokens":64}}}"#;
        reply.whole(StatusCode::OK, body.as_bytes());
        assert_eq!(counts(&reply.finish()), [Some(76), Some(21), Some(64), None, None]);
    }

    #[test]
    fn what_the_text_says_of_bedrock_is_not_from_bedrock() {
        let mut reply = Box::<Reply>::default();
        let text = r#"\"amazon-bedrock-invocationMetrics\":{\"inputTokenCount\":6}"#;
        event(&mut reply, &format!(r#"{{"generation":"{text}","stop_reason":"stop"}}"#));
        let said = reply.finish();
        assert_eq!((said.usage, said.ending), (None, Ending::Unfinished));
    }

    #[test]
    fn a_piece_that_cannot_be_read_costs_knowledge_only() {
        let mut reply = Box::<Reply>::default();
        for data in [r#"{"bytes":"%%%"}"#, r#"{"bytes":7}"#, "{", "{}", r#"{"bytes":"bm8gSlNPTg=="}"#] {
            assert_eq!(reply.event(&Event { name: "chunk", data: data.as_bytes(), span: 0..0 }), EventKind::Other);
        }
        assert_eq!(event(&mut reply, r#"{"generation":"a"}"#), EventKind::Content);
        let end = r#"{"generation":"","stop_reason":"stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":6}}"#;
        event(&mut reply, end);
        assert_eq!(reply.finish().ending, Ending::Complete);
    }

    #[test]
    fn the_model_in_a_vendors_format_does_not_count() {
        let mut reply = Box::<Reply>::default();
        reply.whole(StatusCode::OK, br#"{"type":"message","model":"claude-opus-5-5","content":[]}"#);
        assert_eq!(reply.finish().facts.model, None);
    }
}
