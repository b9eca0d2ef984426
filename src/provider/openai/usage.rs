//! Usage, as the OpenAI API and its copies report it: input counts contain cached tokens, output counts contain
//! reasoning, but for the vendors that leave it out.
//!
//! Chat completions, responses, images and audio name the same counters differently, and vendors add their own; all are
//! read here, whoever sends them. Tokens of another model, such as those of a picture made by a tool, are not among them.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json;
use crate::provider::lenient::{Count, Filled, Object, Text, Usd};
use crate::record::usage::{Counter, Usage};
use crate::units::PicoUsd;

/// A usage object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reported<'a> {
    prompt_tokens: Count,
    input_tokens: Count,
    completion_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Object<Details>,
    input_tokens_details: Object<Details>,
    /// The spelling of transcriptions.
    input_token_details: Object<Details>,
    completion_tokens_details: Object<Details>,
    output_tokens_details: Object<Details>,
    output_token_details: Object<Details>,
    /// The tier the call was served at, where Mistral puts it.
    #[serde(borrow)]
    pub(super) service_tier: Text<'a>,
    /// The model that used it, where that is not the reply's.
    #[serde(borrow)]
    pub(super) model: Text<'a>,
    /// Names that a vendor gives to what the details above also have: `DeepSeek`'s, Moonshot's, Databricks'.
    prompt_cache_hit_tokens: Count,
    cached_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    reasoning_tokens: Count,
    /// Perplexity's.
    citation_tokens: Count,
    num_search_queries: Count,
    tool_calls_details: Object<ToolCalls>,
    /// xAI's.
    server_side_tool_usage_details: Object<ServerTools>,
    /// Seconds of audio: Mistral's beside tokens, OpenAI's and others' in place of them.
    prompt_audio_seconds: Count,
    seconds: Count,
    /// Money, in dollars: `OpenRouter`'s as a number, Perplexity's as an object.
    cost: Cost,
    cost_details: Object<CostDetails>,
    is_byok: Filled,
    /// Money, in 10⁻¹⁰ dollars: xAI's.
    cost_in_usd_ticks: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(rename = "cached_tokens")]
    cached: Count,
    /// Perplexity's names, in its responses.
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Count,
    #[serde(rename = "cache_creation_input_tokens")]
    cache_creation: Count,
    #[serde(rename = "cached_tokens_details")]
    cached_parts: Object<CachedParts>,
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

/// Cached tokens by modality.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CachedParts {
    #[serde(rename = "audio_tokens")]
    audio: Count,
    #[serde(rename = "image_tokens")]
    image: Count,
}

/// Cache writes by lifetime. Those for half an hour, the usual one, have no counter of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lifetimes {
    ttl_12h_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCalls {
    search_web: Object<Invocations>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Invocations {
    invocation: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServerTools {
    web_search_calls: Count,
}

/// What a vendor charges: an amount, or an object with a total.
#[derive(Debug, Default)]
struct Cost(Option<PicoUsd>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct TotalCost {
    total_cost: Usd,
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let total = || json::read::<Object<TotalCost>>(json.as_bytes())?.get()?.total_cost.0;
        Ok(Self(PicoUsd::of_usd(json).or_else(total)))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CostDetails {
    upstream_inference_cost: Usd,
}

/// The counters that are part of the input or of the output, or stand beside them, in the order a [`Tally`] keeps them.
const PARTS: [Counter; 13] = [
    Counter::CacheReadTokens,
    Counter::CacheWriteTokens,
    Counter::CacheWrite12hTokens,
    Counter::InputAudioTokens,
    Counter::CacheAudioReadTokens,
    Counter::InputImageTokens,
    Counter::CacheImageReadTokens,
    Counter::OutputReasoningTokens,
    Counter::OutputCitationTokens,
    Counter::OutputAudioTokens,
    Counter::OutputImageTokens,
    Counter::InputAudioSeconds,
    Counter::WebSearches,
];

/// Where [`PARTS`] has what is looked at again.
const CACHED: usize = 0;
const REASONING: usize = 7;
const CITATIONS: usize = 8;
const SECONDS: usize = 11;
/// The parts before this one are what a call is billed for; those from it on only come on top.
const FEES: usize = 12;

/// What a reply has reported so far. Usage objects are cumulative: the last count of each counter holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    parts: [Option<u64>; PARTS.len()],
    /// Whether the output leaves out reasoning and citations, as Perplexity's does.
    leaves_out: bool,
    cost: Option<PicoUsd>,
    head: Head,
}

/// What the head of a reply counts, for what its body does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    pub(super) input: Option<u64>,
    pub(super) cached: Option<u64>,
    pub(super) output: Option<u64>,
}

impl Tally {
    pub(super) fn take(&mut self, reported: &Reported<'_>) {
        self.input = reported.prompt_tokens.0.or(reported.input_tokens.0).or(self.input);
        self.output = reported.completion_tokens.0.or(reported.output_tokens.0).or(self.output);
        self.total = reported.total_tokens.0.or(self.total);
        for (kept, part) in self.parts.iter_mut().zip(reported.parts()) {
            *kept = part.or(*kept);
        }
        self.leaves_out |= reported.citation_tokens.0.is_some() || reported.num_search_queries.0.is_some();
        self.cost = reported.cost().or(self.cost);
    }

    /// Takes the counts of a reply's head.
    pub(super) fn take_head(&mut self, head: Head) {
        self.head = head;
    }

    /// What the vendor itself says it charges.
    pub(super) const fn cost(&self) -> Option<PicoUsd> {
        self.cost
    }

    /// Where nothing comes out that is billed, the total is what went in: some that embed report nothing else.
    pub(super) fn take_total_for_input(&mut self) {
        if self.output.is_none() {
            self.input = self.input.or(self.total);
        }
    }

    /// The usage, with counters that are reported elsewhere beside it. `None` if nothing but fees was reported: alone
    /// they would pass for the whole bill.
    pub(super) fn usage(mut self, beside: &[(Counter, Option<u64>)]) -> Option<Usage> {
        self.add_what_the_head_counts();
        let billed = self.parts[..FEES].iter();
        if [self.input, self.output].iter().chain(billed).all(Option::is_none) {
            return None;
        }
        self.add_what_the_output_leaves_out();
        let mut parts: Vec<_> = PARTS.into_iter().zip(self.parts).collect();
        parts.extend(beside.iter().filter(|(_, count)| count.is_some()));
        Some(Usage::cache_inside(self.input, self.output, &parts))
    }

    /// Half a bill is none: what went in counts only if it is known what came out.
    fn add_what_the_head_counts(&mut self) {
        self.output = self.output.or(self.head.output);
        if self.output.is_some() {
            self.input = self.input.or(self.head.input);
            self.parts[CACHED] = self.parts[CACHED].or(self.head.cached);
        }
    }

    /// Where the total is more than its parts, the difference is reasoning that the output leaves out: xAI and Gemini
    /// report so behind this API, with and without naming it as reasoning. Perplexity leaves it out of the total too.
    fn add_what_the_output_leaves_out(&mut self) {
        let Some(output) = self.output else { return };
        let (reasoning, citations) = (self.parts[REASONING].unwrap_or(0), self.parts[CITATIONS].unwrap_or(0));
        let named = if self.leaves_out { reasoning.saturating_add(citations) } else { 0 };
        let counted = self.input.map(|input| input.saturating_add(output));
        let gap = self.total.zip(counted).map_or(0, |(total, counted)| total.saturating_sub(counted));
        // Mistral has tokens for sound in the total alone; it is billed by the second.
        let gap = if self.parts[SECONDS].is_some() { 0 } else { gap };
        let missing = gap.max(named);
        if missing > 0 {
            self.output = Some(output.saturating_add(missing));
            let unitemised = missing.saturating_sub(citations);
            self.parts[REASONING] = Some(reasoning.max(unitemised)).filter(|count| *count > 0);
        }
    }
}

impl Reported<'_> {
    /// The counts of [`PARTS`].
    fn parts(&self) -> [Option<u64>; PARTS.len()] {
        let input = [&self.prompt_tokens_details, &self.input_tokens_details, &self.input_token_details];
        let output = [&self.completion_tokens_details, &self.output_tokens_details, &self.output_token_details];
        let first = |details: [&Object<Details>; 3], count: fn(&Details) -> Option<u64>| {
            details.into_iter().filter_map(Object::get).find_map(count)
        };
        let tools = self.tool_calls_details.get().and_then(|tools| tools.search_web.get());
        let servers = self.server_side_tool_usage_details.get().and_then(|tools| tools.web_search_calls.0);
        [
            first(input, |details| details.cached.0.or(details.cache_read.0))
                .or(self.prompt_cache_hit_tokens.0)
                .or(self.cached_tokens.0)
                .or(self.cache_read_input_tokens.0),
            first(input, |details| details.cache_write.0.or(details.cache_creation.0))
                .or(self.cache_creation_input_tokens.0),
            first(input, |details| details.cache_write_lifetimes.get()?.ttl_12h_tokens.0),
            first(input, |details| details.audio.0),
            first(input, |details| details.cached_parts.get()?.audio.0),
            first(input, |details| details.image.0),
            first(input, |details| details.cached_parts.get()?.image.0),
            first(output, |details| details.reasoning.0).or(self.reasoning_tokens.0),
            self.citation_tokens.0,
            first(output, |details| details.audio.0),
            first(output, |details| details.image.0),
            self.prompt_audio_seconds.0.or(self.seconds.0),
            self.num_search_queries.0.or(servers).or(tools.and_then(|search| search.invocation.0)),
        ]
    }

    /// With the app's own key at the upstream (`is_byok`), `OpenRouter` charges a fee, and the upstream the rest.
    fn cost(&self) -> Option<PicoUsd> {
        const PICO_PER_TICK: u128 = PicoUsd::PER_USD / 10_000_000_000;
        if let Some(ticks) = self.cost_in_usd_ticks.0 {
            return Some(PicoUsd::new(u128::from(ticks) * PICO_PER_TICK));
        }
        if self.is_byok.0 {
            // A fee alone is not what the call costs.
            let upstream = self.cost_details.get().and_then(|it| it.upstream_inference_cost.0)?;
            return self.cost.0.map(|fee| fee + upstream);
        }
        self.cost.0
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
                "Mistral's sound is not reasoning",
                r#"{"prompt_audio_seconds":203,"prompt_tokens":4,"total_tokens":3264,"completion_tokens":635}"#,
                635,
                None,
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
    fn what_vendors_count_on_top_is_found_wherever_it_stands() {
        for (rule, reported, counter, count) in [
            (
                "Perplexity's reasoning and citations are outside",
                r#"{"prompt_tokens":1000,"completion_tokens":2000,"total_tokens":3000,"reasoning_tokens":5000,
                    "citation_tokens":2000,"num_search_queries":12}"#,
                Counter::OutputTokens,
                Some(9000),
            ),
            (
                "even if the total has them",
                r#"{"prompt_tokens":1000,"completion_tokens":2000,"total_tokens":10000,"reasoning_tokens":5000,
                    "citation_tokens":2000}"#,
                Counter::OutputReasoningTokens,
                Some(5000),
            ),
            ("searches", r#"{"prompt_tokens":1,"num_search_queries":12}"#, Counter::WebSearches, Some(12)),
            (
                "Databricks' counts are inside",
                r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"cache_read_input_tokens":4,
                    "reasoning_tokens":3}"#,
                Counter::OutputTokens,
                Some(5),
            ),
            ("cached", r#"{"prompt_tokens":10,"cache_read_input_tokens":4}"#, Counter::CacheReadTokens, Some(4)),
            ("written", r#"{"prompt_tokens":10,"cache_creation_input_tokens":4}"#, Counter::CacheWriteTokens, Some(4)),
            (
                "DeepSeek's hits",
                r#"{"prompt_tokens":9,"prompt_cache_hit_tokens":4}"#,
                Counter::CacheReadTokens,
                Some(4),
            ),
            ("Moonshot's hits", r#"{"prompt_tokens":9,"cached_tokens":4}"#, Counter::CacheReadTokens, Some(4)),
            ("seconds alone", r#"{"type":"duration","seconds":9}"#, Counter::InputAudioSeconds, Some(9)),
            (
                "seconds beside tokens",
                r#"{"prompt_tokens":10,"prompt_audio_seconds":8}"#,
                Counter::InputAudioSeconds,
                Some(8),
            ),
            (
                "xAI's searches",
                r#"{"prompt_tokens":1,"server_side_tool_usage_details":{"web_search_calls":3}}"#,
                Counter::WebSearches,
                Some(3),
            ),
            (
                "Perplexity's searches for a response",
                r#"{"input_tokens":1,"tool_calls_details":{"search_web":{"invocation":2}}}"#,
                Counter::WebSearches,
                Some(2),
            ),
            (
                "Perplexity's cache for a response",
                r#"{"input_tokens":9,"input_tokens_details":{"cache_read_input_tokens":2}}"#,
                Counter::CacheReadTokens,
                Some(2),
            ),
            (
                "cached audio",
                r#"{"input_tokens":9,"input_token_details":{"audio_tokens":5,"cached_tokens":3,
                    "cached_tokens_details":{"text_tokens":1,"audio_tokens":2,"image_tokens":0}}}"#,
                Counter::CacheAudioReadTokens,
                Some(2),
            ),
        ] {
            let usage = usage(&[reported]).expect("usage");
            assert_eq!(usage.get(counter), count, "{rule}");
        }
    }

    #[test]
    fn what_the_vendor_charges_is_exact() {
        for (reported, pico) in [
            (r#"{"cost":0.00014}"#, Some(140_000_000)),
            (r#"{"cost":1.5e-05}"#, Some(15_000_000)),
            (r#"{"cost":0}"#, Some(0)),
            (r#"{"cost":0.0001,"is_byok":false,"cost_details":{"upstream_inference_cost":0.002}}"#, Some(100_000_000)),
            (r#"{"cost":0.0001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.002}}"#, Some(2_100_000_000)),
            (r#"{"cost":0.0001,"cost_details":{"upstream_inference_cost":null}}"#, Some(100_000_000)),
            (r#"{"cost":0,"is_byok":true,"cost_details":{"upstream_inference_cost":null}}"#, None),
            (r#"{"cost":0,"is_byok":true}"#, None),
            (r#"{"cost":{"input_tokens_cost":0.001,"request_cost":0.005,"total_cost":0.006}}"#, Some(6_000_000_000)),
            (r#"{"cost_in_usd_ticks":37756000}"#, Some(3_775_600_000)),
            (r#"{"cost":"free"}"#, None),
            (r#"{"cost":null}"#, None),
            (r#"{"cost":{}}"#, None),
        ] {
            let mut tally = Tally::default();
            tally.take(&serde_json::from_str(reported).expect("lenient"));
            assert_eq!(tally.cost(), pico.map(PicoUsd::new), "{reported}");
        }
    }

    #[test]
    fn without_a_count_there_is_no_usage() {
        assert_eq!(usage(&[r#"{"num_search_queries":3}"#]), None, "a fee is not the whole bill");
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
