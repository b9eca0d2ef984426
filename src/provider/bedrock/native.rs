//! Native: replies of `InvokeModel` in the formats that only their vendors' models on Bedrock speak: Llama, Titan,
//! Mistral's and Cohere's and AI21's older ones.
//!
//! They differ by names more than by shape: one or several texts, each with the reason why it ended, and sometimes
//! counts. One reading serves them all. A stream ends where it is told that it does, by `[DONE]`.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::lenient::{Count, Filled, List, Object, Text, Written};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said};
use crate::record::ReplyFacts;
use crate::record::usage::Usage;

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    facts: ReplyFacts,
    input: Option<u64>,
    output_tokens: Option<u64>,
    output: Output,
    /// Why each text ended.
    reasons: Vec<Option<Box<str>>>,
    done: bool,
    failed: bool,
}

/// A whole reply, or a piece of a streamed one. Beside each name stand those that other vendors have for the same.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Spoken<'a> {
    /// Cohere's, Titan's, Llama's, and that of Anthropic's first models.
    #[serde(borrow, alias = "outputText", alias = "generation", alias = "completion")]
    text: Text<'a>,
    /// Cohere's, Titan's, and that of all others.
    #[serde(borrow, alias = "completionReason", alias = "stop_reason")]
    finish_reason: Text<'a>,
    /// Titan's, Mistral's, Cohere's and AI21's.
    #[serde(borrow, alias = "outputs", alias = "generations", alias = "completions")]
    results: List<Choice<'a>>,
    #[serde(borrow)]
    tool_calls: List<Called<'a>>,
    #[serde(borrow, alias = "generation_id")]
    id: Text<'a>,
    /// Llama's and Titan's.
    #[serde(alias = "inputTextTokenCount")]
    prompt_token_count: Count,
    #[serde(alias = "totalOutputTextTokenCount")]
    generation_token_count: Count,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    #[serde(borrow, alias = "outputText")]
    text: Text<'a>,
    #[serde(borrow)]
    data: Object<Data<'a>>,
    #[serde(borrow, alias = "completionReason", alias = "stop_reason")]
    finish_reason: Text<'a>,
    #[serde(borrow, rename = "finishReason")]
    finish: Object<Finish<'a>>,
    #[serde(rename = "tokenCount")]
    tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data<'a> {
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Finish<'a> {
    #[serde(borrow)]
    reason: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Called<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    parameters: Written<'a>,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if !self.failed {
            self.done = self.read(body).is_some();
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        if event.data == b"[DONE]" {
            self.done = true;
            return EventKind::Other;
        }
        self.read(event.data).unwrap_or(EventKind::Other)
    }

    fn generated(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let ending = self.ending();
        let is_counted = self.input.is_some() || self.output_tokens.is_some();
        let usage = is_counted.then(|| Usage::cache_inside(self.input, self.output_tokens, &[]));
        self.facts.finish_reasons = self.reasons.into_iter().flatten().collect();
        Said { facts: self.facts, usage, output: self.output, ending, ..Said::default() }
    }
}

impl Reply {
    /// Takes in what `json` says. `None` if it cannot be read.
    fn read(&mut self, json: &[u8]) -> Option<EventKind> {
        let Object(Some(spoken)) = json::read::<Object<Spoken<'_>>>(json)? else { return None };
        self.failed |= spoken.error.0;
        spoken.id.keep_first(&mut self.facts.id);
        self.input = spoken.prompt_token_count.0.or(self.input);
        let sum = spoken.results.items().iter().filter_map(|choice| choice.tokens.0).reduce(u64::saturating_add);
        self.output_tokens = spoken.generation_token_count.0.or(sum).or(self.output_tokens);
        let mut has_content = self.take(0, spoken.text.get(), &spoken.finish_reason);
        for (index, choice) in spoken.results.items().iter().enumerate().take(MAX_NAMES) {
            let data = choice.data.get().and_then(|data| data.text.get());
            has_content |= self.take(index, choice.text.get().or(data), &choice.finish_reason);
            has_content |= choice.finish.get().is_some_and(|finish| self.take(index, None, &finish.reason));
        }
        for called in spoken.tool_calls.items() {
            let Some(name) = called.name.get() else { continue };
            has_content = true;
            self.facts.call(name);
            called.parameters.argue_to(&mut self.facts);
            if self.facts.tools.len() < MAX_NAMES {
                self.facts.tools.push(name.into());
            }
        }
        Some(if has_content { EventKind::Content } else { EventKind::Other })
    }

    /// Takes in a text, or a piece of it, and why it ended; whether there is any text.
    fn take(&mut self, index: usize, text: Option<&str>, reason: &Text<'_>) -> bool {
        if self.reasons.len() <= index {
            self.reasons.resize(index + 1, None);
        }
        reason.keep_last(&mut self.reasons[index]);
        if let Some(text) = text {
            self.output.push(text);
        }
        text.is_some()
    }

    fn ending(&self) -> Ending {
        let ended_by = |names: &[&str]| self.reasons.iter().flatten().any(|reason| names.contains(&&**reason));
        if self.failed || ended_by(&["ERROR"]) {
            Ending::Failed
        } else if !self.done {
            Ending::Unfinished
        } else if ended_by(&["CONTENT_FILTERED", "ERROR_TOXIC", "content_filter"]) {
            Ending::Declined
        } else {
            Ending::Complete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::usage::Counter;

    #[test]
    fn every_vendors_names_are_known() {
        for (vendor, body, text, reasons, counts) in [
            (
                "Llama",
                r#"{"generation":"hi","prompt_token_count":5,"generation_token_count":2,"stop_reason":"stop"}"#,
                "hi",
                &["stop"][..],
                (Some(5), Some(2)),
            ),
            (
                "Titan",
                r#"{"inputTextTokenCount":5,"results":[{"tokenCount":2,"outputText":"hi","completionReason":"FINISH"}]}"#,
                "hi",
                &["FINISH"],
                (Some(5), Some(2)),
            ),
            ("Titan embeddings", r#"{"embedding":[0.1],"inputTextTokenCount":5}"#, "", &[], (Some(5), None)),
            (
                "Mistral",
                r#"{"outputs":[{"text":"a","stop_reason":"stop"},{"text":"b","stop_reason":"length"}]}"#,
                "ab",
                &["stop", "length"],
                (None, None),
            ),
            (
                "Cohere's Command",
                r#"{"generations":[{"finish_reason":"COMPLETE","id":"1","text":"hi"}],"id":"2","prompt":"x"}"#,
                "hi",
                &["COMPLETE"],
                (None, None),
            ),
            (
                "Cohere's Command R",
                r#"{"text":"hi","generation_id":"2","finish_reason":"MAX_TOKENS","chat_history":[]}"#,
                "hi",
                &["MAX_TOKENS"],
                (None, None),
            ),
            (
                "AI21's Jurassic",
                r#"{"id":7,"completions":[{"data":{"text":"hi"},"finishReason":{"reason":"endoftext"}}]}"#,
                "hi",
                &["endoftext"],
                (None, None),
            ),
            ("Anthropic's first", r#"{"completion":"hi","stop_reason":"x","stop":"y"}"#, "hi", &["x"], (None, None)),
        ] {
            let mut reply = Box::<Reply>::default();
            reply.whole(StatusCode::OK, body.as_bytes());
            let said = reply.finish();
            assert_eq!(said.output.text(), text, "{vendor}");
            assert_eq!(
                said.facts.finish_reasons.iter().map(|reason| &**reason).collect::<Vec<_>>(),
                reasons,
                "{vendor}"
            );
            let count = |counter| said.usage.and_then(|usage| usage.get(counter));
            assert_eq!((count(Counter::InputTokens), count(Counter::OutputTokens)), counts, "{vendor}");
            assert_eq!(said.ending, Ending::Complete, "{vendor}");
        }
    }

    #[test]
    fn what_was_filtered_or_failed_is_not_complete() {
        for (body, expected) in [
            (r#"{"results":[{"completionReason":"CONTENT_FILTERED"}]}"#, Ending::Declined),
            (r#"{"generations":[{"finish_reason":"ERROR_TOXIC"}]}"#, Ending::Declined),
            (r#"{"generations":[{"finish_reason":"ERROR"}]}"#, Ending::Failed),
            (r#"{"images":[],"error":"blocked"}"#, Ending::Failed),
            (r#"{"images":["aGk="],"error":null}"#, Ending::Complete),
            ("[]", Ending::Unfinished),
            ("{\"text\":", Ending::Unfinished),
        ] {
            let mut reply = Box::<Reply>::default();
            reply.whole(StatusCode::OK, body.as_bytes());
            assert_eq!(reply.finish().ending, expected, "{body}");
        }
    }
}
