//! Responses: replies of `/responses` and `/responses/compact`.
//!
//! A stream's terminal event repeats the whole response, with its usage; earlier events have none. A stream is
//! complete when that event came.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::lenient::{Count, Filled, List, Object, Text, Written};
use crate::provider::openai::usage::{Reported, Tally};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said};
use crate::record::ReplyFacts;
use crate::record::usage::Counter;

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    facts: ReplyFacts,
    tally: Tally,
    output: Output,
    items: Items,
    /// Searches as the response itself counts them.
    web_searches: Option<u64>,
    ending: Ending,
}

/// What the items of the output amount to.
#[derive(Debug, Default)]
struct Items {
    tools: Vec<Box<str>>,
    /// Whether the app is to answer a call.
    calls_app: bool,
    web_searches: Option<u64>,
    file_searches: Option<u64>,
    refused: bool,
}

/// A whole response; in a stream, part of some events.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    service_tier: Text<'a>,
    #[serde(borrow)]
    incomplete_details: Object<Incomplete<'a>>,
    #[serde(borrow)]
    output: List<Item<'a>>,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    tool_usage: Object<ToolUsage>,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Incomplete<'a> {
    #[serde(borrow)]
    reason: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolUsage {
    web_search: Object<WebSearch>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WebSearch {
    num_requests: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    action: Object<Part<'a>>,
    #[serde(borrow)]
    content: List<Part<'a>>,
    /// What is written of the reasoning.
    #[serde(borrow)]
    summary: Written<'a>,
    /// A function's, and a custom tool's.
    #[serde(borrow)]
    arguments: Written<'a>,
    #[serde(borrow)]
    input: Written<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    text: Written<'a>,
    #[serde(borrow)]
    refusal: Written<'a>,
}

/// An event of a stream, or of a session.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    /// In a session: the lane it belongs to.
    #[serde(borrow)]
    pub(super) stream_id: Text<'a>,
    /// In a session, of an error: what HTTP would have answered.
    pub(super) status: Count,
    #[serde(borrow)]
    response: Object<Response<'a>>,
    #[serde(borrow)]
    item: Object<Item<'a>>,
    #[serde(borrow)]
    delta: Written<'a>,
    error: Filled,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.ending = Ending::Failed;
            return;
        }
        let Some(Object(Some(response))) = json::read::<Object<Response<'_>>>(body) else { return };
        self.read(&response);
        // A compaction has no status: it is there, so it is complete.
        let status = response.status.get().unwrap_or("completed");
        self.end(status, &response);
        for item in response.output.items() {
            item.push_to(&mut self.output);
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(read) = json::read(event.data) else { return EventKind::Other };
        self.take(&read, event.name)
    }

    fn generated(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let beside = [
            (Counter::WebSearches, self.web_searches.or(self.items.web_searches)),
            (Counter::StorageSearches, self.items.file_searches),
        ];
        if self.ending == Ending::Complete && self.items.refused {
            self.ending = Ending::Declined;
        }
        self.facts.tools = self.items.tools;
        let (usage, provider_cost) = (self.tally.usage(&beside), self.tally.cost());
        Said { facts: self.facts, usage, provider_cost, output: self.output, text: None, ending: self.ending }
    }
}

/// `response.output_text.delta`, `response.reasoning_summary_text.delta`, `response.function_call_arguments.delta` …
pub(super) fn is_content(kind: &str) -> bool {
    let last = kind.strip_prefix("response.").and_then(|rest| rest.rsplit('.').next());
    matches!(last, Some("delta" | "partial_image"))
}

impl Reply {
    /// Takes in an event of a stream, which calls it `name` if it does not name itself.
    pub(super) fn take(&mut self, read: &StreamEvent<'_>, name: &str) -> EventKind {
        let kind = read.kind.get().unwrap_or(name);
        if let Some(response) = read.response.get() {
            self.read(response);
            match kind {
                "response.completed" => self.end("completed", response),
                "response.incomplete" => self.end("incomplete", response),
                "response.failed" => self.end("failed", response),
                _ => {}
            }
        }
        if kind == "error" || read.error.0 {
            self.ending = Ending::Failed;
        }
        match (kind, read.item.get()) {
            ("response.output_item.added", Some(item)) => {
                self.items.take_call(item, &mut self.facts);
                if item.is_call() { EventKind::Content } else { EventKind::Other }
            }
            ("response.output_item.done", Some(item)) => {
                self.items.take_rest(item, &mut self.facts);
                EventKind::Other
            }
            _ if is_content(kind) => {
                // Sound and pictures are no text.
                if !kind.ends_with("audio.delta") {
                    read.delta.push_to(&mut self.output);
                }
                EventKind::Content
            }
            _ => EventKind::Other,
        }
    }

    fn read(&mut self, response: &Response<'_>) {
        response.id.keep_first(&mut self.facts.id);
        response.model.keep_first(&mut self.facts.model);
        response.service_tier.keep_last(&mut self.facts.service_tier);
        if let Some(reported) = response.usage.get() {
            self.tally.take(reported);
        }
        let searches = response.tool_usage.get().and_then(|tools| tools.web_search.get());
        self.web_searches = searches.and_then(|searches| searches.num_requests.0).or(self.web_searches);
    }

    /// Ends the reply with the response's last word.
    fn end(&mut self, status: &str, response: &Response<'_>) {
        if !response.output.items().is_empty() {
            self.items = Items::default();
            self.facts.calls = None;
            for item in response.output.items() {
                self.items.take_call(item, &mut self.facts);
                self.items.take_rest(item, &mut self.facts);
            }
        }
        let incomplete = response.incomplete_details.get().and_then(|details| details.reason.get());
        let (ending, reason) = match (status, incomplete) {
            _ if response.error.0 => (Ending::Failed, "failed"),
            ("completed", _) if self.items.calls_app => (Ending::Complete, "tool_calls"),
            ("completed", _) => (Ending::Complete, "completed"),
            ("incomplete", Some("content_filter")) => (Ending::Declined, "content_filter"),
            ("incomplete", reason) => (Ending::Complete, reason.unwrap_or("incomplete")),
            // A background response: this reply is all there is for now, and says nothing of how it will end.
            ("queued" | "in_progress", _) => (Ending::Unknown, ""),
            (status, _) => (Ending::Failed, status),
        };
        self.ending = ending;
        self.facts.finish_reasons = (!reason.is_empty()).then(|| reason.into()).into_iter().collect();
    }
}

impl Items {
    /// Takes in what an item says when it begins.
    fn take_call(&mut self, item: &Item<'_>, facts: &mut ReplyFacts) {
        let Some(tool) = item.kind.get().and_then(|kind| kind.strip_suffix("_call")) else { return };
        if matches!(tool, "function" | "custom_tool") {
            self.calls_app = true;
            facts.call(item.name.get().unwrap_or(tool));
        }
        if self.tools.len() < MAX_NAMES {
            self.tools.push(item.name.get().unwrap_or(tool).into());
        }
    }

    /// Takes in what an item says once it is done.
    fn take_rest(&mut self, item: &Item<'_>, facts: &mut ReplyFacts) {
        self.refused |= item.content.items().iter().any(|part| part.kind.get() == Some("refusal"));
        let action = item.action.get().and_then(|action| action.kind.get());
        match item.kind.get() {
            // Opening a page and looking for text in it are free.
            Some("web_search_call") => {
                *self.web_searches.get_or_insert(0) += u64::from(action == Some("search"));
            }
            Some("file_search_call") => *self.file_searches.get_or_insert(0) += 1,
            Some("function_call" | "custom_tool_call") => {
                item.arguments.argue_to(facts);
                item.input.argue_to(facts);
            }
            _ => {}
        }
    }
}

impl Item<'_> {
    /// Adds what was written to `output`.
    fn push_to(&self, output: &mut Output) {
        self.summary.push_to(output);
        for part in self.content.items() {
            part.text.push_to(output);
            part.refusal.push_to(output);
        }
        self.arguments.push_to(output);
        self.input.push_to(output);
    }

    fn is_call(&self) -> bool {
        self.kind.get().is_some_and(|kind| kind.ends_with("_call"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_and_calls_are_content() {
        for (data, expected) in [
            (r#"{"type":"response.created","response":{"usage":null}}"#, EventKind::Other),
            (r#"{"type":"response.output_item.added","item":{"type":"message"}}"#, EventKind::Other),
            (r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"a"}}"#, EventKind::Content),
            (r#"{"type":"response.output_text.delta","delta":"a"}"#, EventKind::Content),
            (r#"{"type":"response.reasoning_summary_text.delta","delta":"a"}"#, EventKind::Content),
            (r#"{"type":"response.function_call_arguments.delta","delta":"a"}"#, EventKind::Content),
            (r#"{"type":"response.output_text.done","text":"a"}"#, EventKind::Other),
            (r#"{"type":"response.completed","response":{"status":"completed"}}"#, EventKind::Other),
        ] {
            let event = Event { name: "", data: data.as_bytes(), span: 0..0 };
            assert_eq!(Reply::default().event(&event), expected, "{data}");
        }
    }

    #[test]
    fn the_status_says_how_a_response_ended() {
        for (body, expected) in [
            (r#"{"status":"completed","error":null}"#, Ending::Complete),
            (r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}"#, Ending::Complete),
            (r#"{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}"#, Ending::Declined),
            (
                r#"{"status":"completed","output":[{"type":"message","content":[{"type":"refusal"}]}]}"#,
                Ending::Declined,
            ),
            (r#"{"status":"failed","error":{"code":"server_error"}}"#, Ending::Failed),
            (r#"{"status":"cancelled"}"#, Ending::Failed),
            (r#"{"status":"queued"}"#, Ending::Unknown),
            (r#"{"status":"in_progress"}"#, Ending::Unknown),
            (r#"{"object":"response.compaction"}"#, Ending::Complete),
            (r#"{"error":{"code":"x"}}"#, Ending::Failed),
            ("[]", Ending::Unfinished),
            ("{", Ending::Unfinished),
        ] {
            let mut reply = Box::<Reply>::default();
            reply.whole(StatusCode::OK, body.as_bytes());
            assert_eq!(reply.finish().ending, expected, "{body}");
        }
    }
}
