//! Reply: what Ollama's own endpoints answer, whole or line by line. A line is a whole reply with a piece of the text; the
//! last one says `done` and counts.

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::frames::Event;
use crate::json;
use crate::provider::endpoint::Endpoint;
use crate::provider::lenient::{Count, Filled, List, Object, Text};
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said};
use crate::record::usage::Usage;

/// A fresh reader for one reply.
pub(super) fn reader(endpoint: Endpoint) -> Box<dyn ReadReply> {
    Box::new(Reply { embeds: endpoint == Endpoint::OllamaEmbed, ..Reply::default() })
}

/// Reads one reply.
#[derive(Debug, Default)]
struct Reply {
    /// Whether these are embeddings, which do not say `done`.
    embeds: bool,
    said: Said,
    failed: bool,
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    message: Object<Message<'a>>,
    #[serde(borrow)]
    response: Text<'a>,
    #[serde(borrow)]
    thinking: Text<'a>,
    embedding: Filled,
    embeddings: Filled,
    done: Filled,
    #[serde(borrow)]
    done_reason: Text<'a>,
    prompt_eval_count: Count,
    eval_count: Count,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    content: Text<'a>,
    #[serde(borrow)]
    thinking: Text<'a>,
    #[serde(borrow)]
    tool_calls: List<ToolCall<'a>>,
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
    arguments: Option<&'a RawValue>,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if !self.failed {
            self.read(body);
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        self.read(event.data)
    }

    fn generated(&self) -> u64 {
        self.said.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        self.said.ending = match (self.failed, self.done) {
            (true, _) => Ending::Failed,
            (_, true) => Ending::Complete,
            (_, false) => Ending::Unfinished,
        };
        self.said
    }
}

impl Reply {
    fn read(&mut self, json: &[u8]) -> EventKind {
        let Some(Object(Some(line))) = json::read::<Object<Line<'_>>>(json) else { return EventKind::Other };
        self.failed |= line.error.0;
        self.done |= line.done.0 || (self.embeds && (line.embedding.0 || line.embeddings.0));
        line.model.keep_first(&mut self.said.facts.model);
        if let Some(reason) = line.done_reason.get() {
            self.said.facts.finish_reasons = vec![reason.into()];
        }
        // The prompt is not counted where all of it was still in memory: that is unknown, not nothing.
        let (input, output) = (line.prompt_eval_count.0, line.eval_count.0);
        if input.is_some() || output.is_some() {
            self.said.usage = Some(Usage::cache_inside(input, output, &[]));
        }
        if self.read_text(&line) { EventKind::Content } else { EventKind::Other }
    }

    /// Notes what was generated; whether anything was.
    fn read_text(&mut self, line: &Line<'_>) -> bool {
        let none = Message::default();
        let message = line.message.get().unwrap_or(&none);
        let mut has_text = false;
        for text in [&line.thinking, &line.response, &message.thinking, &message.content] {
            has_text |= text.push_to(&mut self.said.output);
        }
        let calls = message.tool_calls.items();
        for function in calls.iter().filter_map(|call| call.function.get()) {
            self.read_call(function);
        }
        has_text || !calls.is_empty()
    }

    fn read_call(&mut self, function: &Function<'_>) {
        if let Some(name) = function.name.get().filter(|_| self.said.facts.tools.len() < MAX_NAMES) {
            self.said.facts.tools.push(name.into());
        }
        let (name, arguments) = (function.name.get().unwrap_or_default(), function.arguments.map(RawValue::get));
        for piece in [name, arguments.unwrap_or_default()] {
            self.said.output.push(piece);
        }
        self.said.facts.call(name);
        self.said.facts.argue(arguments.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::usage::Counter;

    #[test]
    fn a_prompt_that_is_not_counted_is_unknown() {
        for (counts, input, output) in [
            (r#""prompt_eval_count":5,"eval_count":7"#, Some(5), Some(7)),
            (r#""eval_count":7"#, None, Some(7)),
            (r#""prompt_eval_count":null,"eval_count":7.0"#, None, Some(7)),
            (r#""prompt_eval_count":5"#, Some(5), None),
        ] {
            let mut reply = reader(Endpoint::OllamaChat);
            reply.whole(StatusCode::OK, format!(r#"{{"done":true,{counts}}}"#).as_bytes());
            let usage = reply.finish().usage.expect("usage");
            assert_eq!(
                (usage.get(Counter::InputTokens), usage.get(Counter::OutputTokens)),
                (input, output),
                "{counts}"
            );
        }
    }

    #[test]
    fn texts_thoughts_and_tool_calls_are_content() {
        for (line, expected) in [
            (r#"{"message":{"role":"assistant","content":"Hi"},"done":false}"#, "Hi"),
            (r#"{"message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}"#, "Hm"),
            (r#"{"response":"Hi","done":false}"#, "Hi"),
            (r#"{"response":"","thinking":"Hm","done":false}"#, "Hm"),
            (
                r#"{"message":{"content":"","tool_calls":[{"function":{"name":"weather","arguments":{"city":"Ulm"}}}]}}"#,
                r#"weather{"city":"Ulm"}"#,
            ),
            (r#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#, ""),
            (r#"{"error":"model runner has unexpectedly stopped"}"#, ""),
        ] {
            let mut reply = Reply::default();
            let kind = reply.event(&Event { name: "", data: line.as_bytes(), span: 0..0 });
            assert_eq!(kind == EventKind::Content, !expected.is_empty(), "{line}");
            assert_eq!(reply.said.output.text(), expected, "{line}");
        }
    }
}
