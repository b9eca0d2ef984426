//! llama.cpp: what its server offers beside OpenAI's format: `/completion`.
//!
//! `tokens_evaluated` counts the whole prompt, of which `timings.cache_n` was still in memory. (`tokens_cached` is
//! something else: how far the memory is filled once it is over.) The last event of a stream says `stop`; several prompts
//! in one request have an index each.

use http::StatusCode;
use serde::Deserialize;
use serde_json_borrow::Value;

use crate::frames::Event;
use crate::json;
use crate::provider::forms::{Events, numbered};
use crate::provider::lenient::{self, Count, Filled, List, Text};
use crate::provider::stop::{Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};
use crate::provider::{Asked, Ending, EventKind, Format, MAX_NAMES, ReadReply, Request, Reuse, Said, openai};
use crate::record::usage::{Counter, Usage};

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked,
    request_usage: None,
    with_model: |_, _| None,
    reader: |_| Box::<Reply>::default(),
    stop: |_| Some(Box::<Notes>::default()),
    fail: |_, problem, out| out.push("", &Object::read(&openai::error(problem))?),
    key_headers: &[],
    forms: |_| None,
};

/// Fields of a request that do not change the answer.
const IGNORED: &[&str] = &["cache_prompt", "id_slot"];

fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    request.asks(reuse(request.body))
}

/// Whether the answer may serve another, equal request. One for no output is made to fill the server's memory.
fn reuse(body: &Value<'_>) -> Reuse {
    let fills_memory = body.get("n_predict").as_u64() == Some(0);
    if fills_memory { Reuse::Never } else { Reuse::Allowed(IGNORED) }
}

/// Reads one reply.
#[derive(Debug, Default)]
struct Reply {
    said: Said,
    /// Each completion seen, by its index, and whether it has stopped.
    completions: Vec<(u64, bool)>,
    is_whole: bool,
    failed: bool,
}

/// A whole completion, or an event of a streamed one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Completion<'a> {
    index: Count,
    #[serde(borrow)]
    content: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    stop: Filled,
    #[serde(borrow)]
    stop_type: Text<'a>,
    tokens_evaluated: Count,
    tokens_predicted: Count,
    timings: lenient::Object<Timings>,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Timings {
    cache_n: Count,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        if let Some(List(Some(completions))) = json::read::<List<Completion<'_>>>(body) {
            self.is_whole = !completions.is_empty();
            for completion in &completions {
                self.read(completion);
                self.add_counts(completion);
            }
        } else if let Some(lenient::Object(Some(completion))) = json::read::<lenient::Object<Completion<'_>>>(body) {
            self.is_whole = true;
            self.read(&completion);
            self.add_counts(&completion);
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(completion) = json::read::<Completion<'_>>(event.data) else { return EventKind::Other };
        let index = completion.index.0.unwrap_or(0);
        let known = self.completions.iter().position(|(known, _)| *known == index);
        let slot = known.unwrap_or(self.completions.len());
        if known.is_none() && slot < MAX_NAMES {
            self.completions.push((index, false));
        }
        if completion.stop.0 && self.completions.get(slot).is_some_and(|(_, stopped)| !stopped) {
            self.completions[slot].1 = true;
            self.add_counts(&completion);
        }
        if self.read(&completion) { EventKind::Content } else { EventKind::Other }
    }

    fn generated(&self) -> u64 {
        self.said.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let has_stopped = !self.completions.is_empty() && self.completions.iter().all(|(_, stopped)| *stopped);
        self.said.ending = match (self.failed, self.is_whole || has_stopped) {
            (true, _) => Ending::Failed,
            (_, true) => Ending::Complete,
            (_, false) => Ending::Unfinished,
        };
        self.said
    }
}

/// What is noted of a stream: each completion seen, and whether it has stopped.
#[derive(Default)]
struct Notes(Vec<(u64, bool)>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Noted {
    index: Count,
    stop: Filled,
}

impl Stop for Notes {
    fn note(&mut self, event: &Event<'_>) {
        let Some(noted) = json::read::<Noted>(event.data) else { return };
        if let Some(has_stopped) = numbered(&mut self.0, noted.index.0.unwrap_or(0)) {
            *has_stopped |= noted.stop.0;
        }
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        for (index, _) in self.0.iter().filter(|(_, has_stopped)| !has_stopped) {
            let last = Object::new().with("index", Json::number(*index)).with("content", "");
            let last = last.with("tokens", Vec::new()).with("stop", Json::truth()).with("stop_type", "limit");
            out.push("", &last)?;
        }
        (!self.0.is_empty()).then_some(())
    }
}

impl Reply {
    /// Takes in what a completion says of itself; whether it has content.
    fn read(&mut self, completion: &Completion<'_>) -> bool {
        self.failed |= completion.error.0;
        completion.model.keep_first(&mut self.said.facts.model);
        let reasons = &mut self.said.facts.finish_reasons;
        let reason = completion.stop_type.get().filter(|reason| *reason != "none" && reasons.len() < MAX_NAMES);
        reasons.extend(reason.map(Box::from));
        completion.content.push_to(&mut self.said.output)
    }

    /// Adds the counts of one completion: each comes once, at its end.
    fn add_counts(&mut self, completion: &Completion<'_>) {
        let (input, output) = (completion.tokens_evaluated.0, completion.tokens_predicted.0);
        if input.is_none() && output.is_none() {
            return;
        }
        let cached = completion.timings.get().and_then(|timings| timings.cache_n.0);
        let counted = |counter| self.said.usage.and_then(|usage: Usage| usage.get(counter));
        let sum = |counter, count: Option<u64>| match (counted(counter), count) {
            (Some(before), Some(count)) => Some(before.saturating_add(count)),
            (before, count) => before.or(count),
        };
        self.said.usage = Some(Usage::cache_inside(
            sum(Counter::InputTokens, input),
            sum(Counter::OutputTokens, output),
            &[(Counter::CacheReadTokens, sum(Counter::CacheReadTokens, cached))],
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(said: &Said) -> [Option<u64>; 3] {
        [Counter::InputTokens, Counter::CacheReadTokens, Counter::OutputTokens]
            .map(|counter| said.usage.as_ref().and_then(|usage| usage.get(counter)))
    }

    #[test]
    fn completions_of_several_prompts_add_up_and_end_with_the_last() {
        let mut reply = Box::<Reply>::default();
        for (line, ending) in [
            (r#"{"index":0,"content":"a","stop":false,"tokens_evaluated":5,"tokens_predicted":1}"#, Ending::Unfinished),
            (r#"{"index":1,"content":"b","stop":false,"tokens_evaluated":7,"tokens_predicted":1}"#, Ending::Unfinished),
            (r#"{"index":0,"content":"","stop":true,"tokens_evaluated":5,"tokens_predicted":2}"#, Ending::Unfinished),
            (
                r#"{"index":1,"stop":true,"tokens_evaluated":7,"tokens_predicted":3,"timings":{"cache_n":4}}"#,
                Ending::Complete,
            ),
        ] {
            reply.event(&Event { name: "", data: line.as_bytes(), span: 0..0 });
            let so_far = Box::new(Reply {
                said: reply.said.clone(),
                completions: reply.completions.clone(),
                ..Reply::default()
            });
            assert_eq!(so_far.finish().ending, ending, "{line}");
        }
        assert_eq!(usage(&reply.finish()), [Some(12), Some(4), Some(5)]);
        let mut reply = Box::<Reply>::default();
        reply.whole(StatusCode::OK, br#"[{"tokens_evaluated":5,"tokens_predicted":2},{"tokens_evaluated":7}]"#);
        let said = reply.finish();
        assert_eq!((usage(&said), said.ending), ([Some(12), None, Some(2)], Ending::Complete));
    }

    #[test]
    fn a_request_for_no_output_is_never_reused() {
        for (body, reusable) in [(r#"{"prompt":"a","n_predict":8}"#, true), (r#"{"prompt":"a","n_predict":0}"#, false)]
        {
            let expected = if reusable { Reuse::Allowed(IGNORED) } else { Reuse::Never };
            assert_eq!(reuse(&serde_json::from_str(body).expect("JSON")), expected, "{body}");
        }
    }
}
