//! Chat: replies of `/v2/chat`. A stream's `message-end` says why it stopped and what was used; `[DONE]` ends it.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::cohere::usage::Reported;
use crate::provider::lenient::{Filled, List, Object, Text};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said, cohere};

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Said,
    finish_reason: Option<Box<str>>,
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
    finish_reason: Text<'a>,
    #[serde(borrow)]
    message: Object<Message<'a>>,
    usage: Object<Reported>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    content: List<Block<'a>>,
    #[serde(borrow)]
    tool_calls: List<ToolCall<'a>>,
    #[serde(borrow)]
    tool_plan: Text<'a>,
}

/// An event of a stream.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    delta: Object<Delta<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta<'a> {
    #[serde(borrow)]
    message: Object<Piece<'a>>,
    #[serde(borrow)]
    finish_reason: Text<'a>,
    usage: Object<Reported>,
    error: Filled,
}

/// What an event adds to the message.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    #[serde(borrow)]
    content: Object<Block<'a>>,
    #[serde(borrow)]
    tool_calls: Object<ToolCall<'a>>,
    #[serde(borrow)]
    tool_plan: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Block<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    thinking: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Object<Function<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Function<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    arguments: Text<'a>,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        let Some(Object(Some(reply))) = json::read::<Object<Whole<'_>>>(body) else { return };
        reply.id.keep_first(&mut self.said.facts.id);
        reply.finish_reason.keep_last(&mut self.finish_reason);
        self.said.usage = reply.usage.get().and_then(Reported::usage);
        let Some(message) = reply.message.get() else { return };
        self.done = true;
        message.tool_plan.push_to(&mut self.said.output);
        for block in message.content.items() {
            block.push_to(&mut self.said.output);
        }
        for call in message.tool_calls.items() {
            self.read_call(call);
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        if event.data.trim_ascii() == b"[DONE]" {
            self.done = self.finish_reason.is_some();
            return EventKind::Other;
        }
        let Some(read) = json::read::<StreamEvent<'_>>(event.data) else { return EventKind::Other };
        read.id.keep_first(&mut self.said.facts.id);
        let Some(delta) = read.delta.get() else { return EventKind::Other };
        if read.kind.get().unwrap_or(event.name) == "message-end" {
            delta.finish_reason.keep_last(&mut self.finish_reason);
            self.failed |= delta.error.0;
            self.said.usage = delta.usage.get().and_then(Reported::usage).or(self.said.usage);
            return EventKind::Other;
        }
        let has_content = delta.message.get().is_some_and(|piece| self.read_piece(piece));
        if has_content { EventKind::Content } else { EventKind::Other }
    }

    fn generated(&self) -> u64 {
        self.said.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        self.said.facts.finish_reasons.extend(self.finish_reason);
        self.said.ending = match (self.failed, self.done) {
            (true, _) => Ending::Failed,
            (_, false) => Ending::Unfinished,
            _ => cohere::ending(&self.said.facts.finish_reasons),
        };
        self.said
    }
}

impl Reply {
    /// Takes in what an event adds; whether that is content.
    fn read_piece(&mut self, piece: &Piece<'_>) -> bool {
        let planned = piece.tool_plan.push_to(&mut self.said.output);
        let spoken = piece.content.get().is_some_and(|block| block.push_to(&mut self.said.output));
        let called = piece.tool_calls.get().is_some_and(|call| self.read_call(call));
        planned || spoken || called
    }

    /// Takes in a call of a tool, or a fragment of one; whether there is anything in it. The name comes with the first
    /// fragment only, so each name is a call.
    fn read_call(&mut self, call: &ToolCall<'_>) -> bool {
        let Some(function) = call.function.get() else { return false };
        let name = function.name.get();
        self.said.facts.tools.extend(name.filter(|_| self.said.facts.tools.len() < MAX_NAMES).map(Box::from));
        if let Some(name) = name {
            self.said.facts.call(name);
        }
        self.said.facts.argue(function.arguments.get().unwrap_or_default());
        let argued = function.arguments.push_to(&mut self.said.output);
        function.name.push_to(&mut self.said.output) || argued
    }
}

impl Block<'_> {
    /// Adds what the block says to `output`; whether it says anything.
    fn push_to(&self, output: &mut Output) -> bool {
        let thought = self.thinking.push_to(output);
        self.text.push_to(output) || thought
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_thoughts_plans_and_tool_calls_are_content() {
        for (data, expected) in [
            (
                r#"{"type":"message-start","id":"a","delta":{"message":{"role":"assistant","content":[],"tool_plan":""}}}"#,
                "",
            ),
            (r#"{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}"#, ""),
            (r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hi"}}}}"#, "Hi"),
            (r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"thinking":"Hm"}}}}"#, "Hm"),
            (r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"I will"}}}"#, "I will"),
            (
                r#"{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"a","type":"function","function":{"name":"weather","arguments":""}}}}}"#,
                "weather",
            ),
            (
                r#"{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"{\"city\""}}}}}"#,
                r#"{"city""#,
            ),
            (r#"{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0,"text":"a"}}}}"#, ""),
            (r#"{"type":"content-end","index":0}"#, ""),
        ] {
            let mut reply = Reply::default();
            let kind = reply.event(&Event { name: "", data: data.as_bytes(), span: 0..0 });
            assert_eq!(kind == EventKind::Content, !expected.is_empty(), "{data}");
            assert_eq!(reply.said.output.text(), expected, "{data}");
        }
    }
}
