//! Reply: what `generateContent` and `streamGenerateContent` answer; a chunk of a stream has the shape of a whole reply.
//!
//! A stream has no end marker of its own: it is complete when every candidate said why it stopped. A prompt that is
//! blocked has no candidates.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::frames::Event;
use crate::json;
use crate::provider::gemini::usage::{Metadata, Tally};
use crate::provider::lenient::{Count, Filled, Length, List, Object, Text};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said};
use crate::record::ReplyFacts;

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    facts: ReplyFacts,
    tally: Tally,
    candidates: Vec<Seen>,
    /// Why the prompt was blocked.
    blocked: Option<Box<str>>,
    output: Output,
    /// Whether it came in one piece.
    whole: bool,
    failed: bool,
}

/// A candidate, as far as it came.
#[derive(Debug)]
struct Seen {
    index: u64,
    /// Why it stopped.
    reason: Option<Box<str>>,
    /// The queries by which it searched the web.
    searches: u64,
}

/// A whole reply, or a chunk of a streamed one.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    candidates: List<Candidate<'a>>,
    #[serde(borrow)]
    prompt_feedback: Object<Feedback<'a>>,
    #[serde(borrow)]
    usage_metadata: Object<Metadata<'a>>,
    #[serde(borrow)]
    model_version: Text<'a>,
    #[serde(borrow)]
    response_id: Text<'a>,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Feedback<'a> {
    #[serde(borrow)]
    block_reason: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Candidate<'a> {
    index: Count,
    #[serde(borrow)]
    finish_reason: Text<'a>,
    #[serde(borrow)]
    content: Object<Content<'a>>,
    grounding_metadata: Object<Grounding>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content<'a> {
    #[serde(borrow)]
    parts: List<Part<'a>>,
}

/// A part of the content. A thought is a text that is marked as one.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    function_call: Object<FunctionCall<'a>>,
    #[serde(borrow)]
    executable_code: Object<Code<'a>>,
    inline_data: Filled,
}

/// A call of one of the app's functions. Vertex AI may stream its arguments; the name then comes first, and once.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FunctionCall<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    args: Option<Value>,
    partial_args: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Code<'a> {
    #[serde(borrow)]
    code: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Grounding {
    web_search_queries: Length,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if !self.failed {
            self.whole = self.read(body).is_some();
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        self.read(event.data).unwrap_or(EventKind::Other)
    }

    fn generated(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let ending = self.ending();
        let ended = matches!(ending, Ending::Complete | Ending::Declined);
        let usage = self.tally.usage(ended, self.searches());
        self.candidates.sort_by_key(|candidate| candidate.index);
        let reasons = self.candidates.into_iter().filter_map(|candidate| candidate.reason);
        self.facts.finish_reasons = self.blocked.into_iter().chain(reasons).collect();
        Said { facts: self.facts, usage, output: self.output, ending, ..Said::default() }
    }
}

impl Reply {
    /// Takes in what `json` says. `None` if it cannot be read.
    fn read(&mut self, json: &[u8]) -> Option<EventKind> {
        let Object(body) = json::read::<Object<Body<'_>>>(json)?;
        let body = body?;
        self.failed |= body.error.0;
        body.response_id.keep_first(&mut self.facts.id);
        body.model_version.keep_first(&mut self.facts.model);
        if let Some(feedback) = body.prompt_feedback.get() {
            feedback.block_reason.keep_first(&mut self.blocked);
        }
        if let Some(metadata) = body.usage_metadata.get() {
            self.tally = metadata.tally().or(self.tally);
            self.facts.service_tier = metadata.tier().or(self.facts.service_tier.take());
        }
        let mut has_content = false;
        for candidate in body.candidates.items() {
            self.note(candidate);
            for part in candidate.content.get().map(|content| content.parts.items()).unwrap_or_default() {
                has_content |= self.read_part(part);
            }
        }
        Some(if has_content { EventKind::Content } else { EventKind::Other })
    }

    fn note(&mut self, candidate: &Candidate<'_>) {
        let index = candidate.index.0.unwrap_or(0);
        let known = self.candidates.iter().position(|known| known.index == index);
        let slot = known.unwrap_or(self.candidates.len());
        if slot >= MAX_NAMES {
            return;
        }
        if known.is_none() {
            self.candidates.push(Seen { index, reason: None, searches: 0 });
        }
        let seen = &mut self.candidates[slot];
        if candidate.finish_reason.get() != Some("FINISH_REASON_UNSPECIFIED") {
            candidate.finish_reason.keep_last(&mut seen.reason);
        }
        let queries = candidate.grounding_metadata.get().and_then(|grounding| grounding.web_search_queries.0);
        seen.searches = seen.searches.max(queries.unwrap_or(0));
    }

    /// Takes in a part; whether it is content.
    fn read_part(&mut self, part: &Part<'_>) -> bool {
        let call = part.function_call.get();
        if let Some(name) = call.and_then(|call| call.name.get()) {
            self.facts.call(name);
            if self.facts.tools.len() < MAX_NAMES {
                self.facts.tools.push(name.into());
            }
        }
        let code = part.executable_code.get().and_then(|code| code.code.get());
        for piece in part.text.get().into_iter().chain(code) {
            self.output.push(piece);
        }
        // Written anew: the API pads its JSON with spaces that no model has generated.
        for arguments in call.into_iter().flat_map(|call| [&call.args, &call.partial_args]).flatten() {
            let arguments = arguments.to_string();
            self.output.push(&arguments);
            self.facts.argue(&arguments);
        }
        part.text.get().is_some() || call.is_some() || code.is_some() || part.inline_data.0
    }

    fn ending(&self) -> Ending {
        let stopped = |candidate: &Seen| candidate.reason.is_some();
        let is_answer = |candidate: &Seen| matches!(candidate.reason.as_deref(), None | Some("STOP" | "MAX_TOKENS"));
        let has_ended = self.whole || (!self.candidates.is_empty() && self.candidates.iter().all(stopped));
        if self.failed {
            Ending::Failed
        } else if self.blocked.is_some() {
            Ending::Declined
        } else if !has_ended {
            Ending::Unfinished
        } else if !self.candidates.is_empty() && self.candidates.iter().all(is_answer) {
            Ending::Complete
        } else {
            // Filtered, cut off in a way that is nobody else's, or nothing at all.
            Ending::Declined
        }
    }

    /// The web searches that are billed: each query since Gemini 3, one for the whole prompt before.
    fn searches(&self) -> Option<u64> {
        let queries = self.candidates.iter().map(|candidate| candidate.searches).sum::<u64>();
        let model = self.facts.model.as_deref().unwrap_or_default();
        let by_prompt = ["gemini-1", "gemini-2"].iter().any(|generation| model.starts_with(generation));
        (queries > 0).then_some(if by_prompt { 1 } else { queries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::usage::Counter;

    fn said(chunks: &[&str]) -> Said {
        let mut reply = Box::<Reply>::default();
        for chunk in chunks {
            reply.event(&Event { name: "", data: chunk.as_bytes(), span: 0..0 });
        }
        reply.finish()
    }

    #[test]
    fn a_stream_is_complete_when_every_candidate_said_why_it_stopped() {
        let candidate = |index: u64, reason: &str| format!(r#"{{"index":{index},"finishReason":"{reason}"}}"#);
        let chunk = |candidates: &[String]| format!(r#"{{"candidates":[{}]}}"#, candidates.join(","));
        for (rule, chunks, expected) in [
            ("nothing came", vec![], Ending::Unfinished),
            ("it stopped", vec![chunk(&[candidate(0, "STOP")])], Ending::Complete),
            ("it was long enough", vec![chunk(&[candidate(0, "MAX_TOKENS")])], Ending::Complete),
            ("not said yet", vec![chunk(&[candidate(0, "FINISH_REASON_UNSPECIFIED")])], Ending::Unfinished),
            (
                "one of two has not",
                vec![chunk(&[candidate(0, "STOP"), r#"{"index":1}"#.to_owned()])],
                Ending::Unfinished,
            ),
            ("both have", vec![chunk(&[candidate(0, "STOP")]), chunk(&[candidate(1, "STOP")])], Ending::Complete),
            ("one was filtered", vec![chunk(&[candidate(0, "STOP"), candidate(1, "SAFETY")])], Ending::Declined),
            ("a reason unknown to weir", vec![chunk(&[candidate(0, "NEW_REASON")])], Ending::Declined),
            ("to be continued", vec![chunk(&[candidate(0, "CONTINUATION")])], Ending::Declined),
            (
                "the prompt was blocked",
                vec![r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#.to_owned()],
                Ending::Declined,
            ),
            (
                "an error came after all",
                vec![chunk(&[candidate(0, "STOP")]), r#"{"error":{"code":503}}"#.to_owned()],
                Ending::Failed,
            ),
        ] {
            let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
            assert_eq!(said(&chunks).ending, expected, "{rule}");
        }
    }

    #[test]
    fn a_whole_reply_without_candidates_is_an_answer_for_nobody_else() {
        let mut reply = Box::<Reply>::default();
        reply.whole(StatusCode::OK, br#"{"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}"#);
        assert_eq!(reply.finish().ending, Ending::Declined);
        for body in [&b"[]"[..], b"{", b"null"] {
            let mut reply = Box::<Reply>::default();
            reply.whole(StatusCode::OK, body);
            assert_eq!(reply.finish().ending, Ending::Unfinished, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn web_searches_are_billed_by_the_query_since_gemini_3_and_by_the_prompt_before() {
        for (model, expected) in [("gemini-2.5-flash", 1), ("gemini-3.5-flash", 3), ("gemini-4-argon", 3)] {
            let first = format!(
                r#"{{"candidates":[{{"groundingMetadata":{{"webSearchQueries":["a"]}}}}],"modelVersion":"{model}"}}"#
            );
            let last = r#"{"candidates":[{"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["a","b","c"]}}],
                "usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}"#;
            let usage = said(&[&first, last]).usage.expect("usage");
            assert_eq!(usage.get(Counter::WebSearches), Some(expected), "{model}");
        }
    }

    #[test]
    fn text_thoughts_calls_code_and_media_are_content_and_what_can_be_counted_is_kept() {
        for (part, expected, output) in [
            (r#"{"text":"a"}"#, EventKind::Content, "a"),
            (r#"{"text":"a","thought":true}"#, EventKind::Content, "a"),
            (r#"{"text":""}"#, EventKind::Other, ""),
            (r#"{"thoughtSignature":"c2ln"}"#, EventKind::Other, ""),
            (r#"{"functionCall":{"name":"f","args":{ "a": 1 }}}"#, EventKind::Content, r#"{"a":1}"#),
            (r#"{"functionCall":{"partialArgs":[1]}}"#, EventKind::Content, "[1]"),
            (r#"{"executableCode":{"language":"PYTHON","code":"1+1"}}"#, EventKind::Content, "1+1"),
            (r#"{"inlineData":{"mimeType":"image/png","data":"AA=="}}"#, EventKind::Content, ""),
        ] {
            let mut reply = Box::<Reply>::default();
            let chunk = format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}}}}]}}"#);
            let kind = reply.event(&Event { name: "", data: chunk.as_bytes(), span: 0..0 });
            assert_eq!((kind, reply.finish().output.text()), (expected, output), "{part}");
        }
    }
}
