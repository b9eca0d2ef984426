//! Usage, as the OpenAI API reports it: input counts contain cached tokens, output counts contain reasoning.
//!
//! Chat completions and responses name the same counters differently; both are read here.

use serde::Deserialize;

use crate::provider::lenient::{Count, Object};
use crate::record::usage::{Counter, Usage};

/// A usage object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reported {
    prompt_tokens: Count,
    input_tokens: Count,
    completion_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Object<Details>,
    input_tokens_details: Object<Details>,
    completion_tokens_details: Object<Details>,
    output_tokens_details: Object<Details>,
    /// `DeepSeek`'s name for cached tokens.
    prompt_cache_hit_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(rename = "cached_tokens")]
    cached: Count,
    #[serde(rename = "cache_write_tokens")]
    cache_write: Count,
    #[serde(rename = "cache_write_tokens_details")]
    cache_write_lifetimes: Object<Lifetimes>,
    #[serde(rename = "audio_tokens")]
    audio: Count,
    #[serde(rename = "image_tokens")]
    image: Count,
    #[serde(rename = "reasoning_tokens")]
    reasoning: Count,
}

/// Cache writes by lifetime. Those for half an hour, the usual one, have no counter of their own.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Lifetimes {
    ttl_12h_tokens: Count,
}

/// The counters that are part of the input or of the output, in the order a [`Tally`] keeps them.
const PARTS: [Counter; 8] = [
    Counter::CacheReadTokens,
    Counter::CacheWriteTokens,
    Counter::CacheWrite12hTokens,
    Counter::InputAudioTokens,
    Counter::InputImageTokens,
    Counter::OutputReasoningTokens,
    Counter::OutputAudioTokens,
    Counter::OutputImageTokens,
];

/// Where [`PARTS`] has the reasoning.
const REASONING: usize = 5;

/// What a reply has reported so far. Usage objects are cumulative: the last count of each counter holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    parts: [Option<u64>; PARTS.len()],
}

impl Tally {
    pub(super) fn take(&mut self, reported: &Reported) {
        let none = Details::default();
        let details = |long: &Object<Details>, short: &Object<Details>, count: fn(&Details) -> Count| {
            let first = count(long.get().unwrap_or(&none)).0;
            first.or(count(short.get().unwrap_or(&none)).0)
        };
        let input = |count| details(&reported.prompt_tokens_details, &reported.input_tokens_details, count);
        let output = |count| details(&reported.completion_tokens_details, &reported.output_tokens_details, count);
        let parts = [
            input(|details| details.cached).or(reported.prompt_cache_hit_tokens.0),
            input(|details| details.cache_write),
            input(|details| details.cache_write_lifetimes.get().map_or(Count(None), |it| it.ttl_12h_tokens)),
            input(|details| details.audio),
            input(|details| details.image),
            output(|details| details.reasoning),
            output(|details| details.audio),
            output(|details| details.image),
        ];
        self.input = reported.prompt_tokens.0.or(reported.input_tokens.0).or(self.input);
        self.output = reported.completion_tokens.0.or(reported.output_tokens.0).or(self.output);
        self.total = reported.total_tokens.0.or(self.total);
        for (kept, part) in self.parts.iter_mut().zip(parts) {
            *kept = part.or(*kept);
        }
    }

    /// The usage, with counters that are reported elsewhere beside it. `None` if no tokens were reported: fees alone
    /// would pass for the whole bill.
    pub(super) fn usage(mut self, beside: &[(Counter, Option<u64>)]) -> Option<Usage> {
        if [self.input, self.output].into_iter().chain(self.parts).all(|count| count.is_none()) {
            return None;
        }
        self.add_unitemised_reasoning();
        let mut parts: Vec<_> = PARTS.into_iter().zip(self.parts).collect();
        parts.extend_from_slice(beside);
        Some(Usage::cache_inside(self.input, self.output, &parts))
    }

    /// Where the total is more than its parts, the difference is reasoning that the output leaves out: xAI and Gemini
    /// report so behind this API, with and without naming it as reasoning.
    fn add_unitemised_reasoning(&mut self) {
        let (Some(input), Some(output), Some(total)) = (self.input, self.output, self.total) else { return };
        let gap = total.saturating_sub(input.saturating_add(output));
        if gap > 0 {
            self.output = Some(output.saturating_add(gap));
            self.parts[REASONING] = Some(self.parts[REASONING].unwrap_or(0).max(gap));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(snapshots: &[&str]) -> Option<Usage> {
        let mut tally = Tally::default();
        for snapshot in snapshots {
            tally.take(&serde_json::from_str(snapshot).expect("lenient"));
        }
        tally.usage(&[])
    }

    #[test]
    fn a_total_beyond_its_parts_is_reasoning_outside_the_output() {
        for (rule, reported, output, reasoning) in [
            (
                "xAI names it",
                r#"{"prompt_tokens":200000,"completion_tokens":500,"total_tokens":200800,
                    "completion_tokens_details":{"reasoning_tokens":300}}"#,
                800,
                Some(300),
            ),
            ("Gemini does not", r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":35}"#, 25, Some(20)),
            (
                "OpenAI has it inside",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,
                    "completion_tokens_details":{"reasoning_tokens":4}}"#,
                5,
                Some(4),
            ),
            (
                "a total that is too small means nothing",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":1}"#,
                5,
                None,
            ),
        ] {
            let usage = usage(&[reported]).expect("usage");
            assert_eq!(usage.get(Counter::OutputTokens), Some(output), "{rule}");
            assert_eq!(usage.get(Counter::OutputReasoningTokens), reasoning, "{rule}");
        }
    }

    #[test]
    fn snapshots_are_cumulative_and_the_last_count_holds() {
        let first = r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}"#;
        let last = r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"prompt_tokens_details":null}"#;
        let usage = usage(&[first, last]).expect("usage");
        assert_eq!(usage.total_tokens(), 17);
        assert_eq!(usage.get(Counter::CacheReadTokens), Some(4));
    }

    #[test]
    fn writes_for_twelve_hours_are_told_apart() {
        let usage = usage(&[r#"{"input_tokens":5000,"output_tokens":1,"input_tokens_details":{"cached_tokens":0,
            "cache_write_tokens":3000,"cache_write_tokens_details":{"ttl_30m_tokens":1000,"ttl_12h_tokens":2000}}}"#]);
        let usage = usage.expect("usage");
        assert_eq!(usage.get(Counter::CacheWriteTokens), Some(3000));
        assert_eq!(usage.get(Counter::CacheWrite12hTokens), Some(2000));
    }

    #[test]
    fn without_a_count_there_is_no_usage() {
        assert_eq!(usage(&[]), None);
        assert_eq!(usage(&["{}", r#"{"prompt_tokens":null,"cost":1}"#]), None);
    }

    #[test]
    fn a_counter_of_the_wrong_type_does_not_lose_the_others() {
        let usage = usage(&[r#"{"prompt_tokens":"ten","completion_tokens":5.0,"prompt_tokens_details":[]}"#]);
        let usage = usage.expect("usage");
        assert_eq!((usage.get(Counter::InputTokens), usage.get(Counter::OutputTokens)), (None, Some(5)));
    }
}
