//! Usage, as the Gemini API reports it: the prompt's count contains cached tokens but not those that Google's own tools
//! brought in, the candidates' count leaves out thoughts.
//!
//! A count of zero is not written at all. Interactions name the same counters differently; both are read here.

use serde::Deserialize;

use crate::provider::lenient::{Count, List, Text};
use crate::provider::sum;
use crate::record::usage::{Counter, Usage};

/// `usageMetadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    tool_use_prompt_token_count: Count,
    total_token_count: Count,
    #[serde(borrow)]
    prompt_tokens_details: List<Detail<'a>>,
    #[serde(borrow)]
    cache_tokens_details: List<Detail<'a>>,
    #[serde(borrow)]
    candidates_tokens_details: List<Detail<'a>>,
    #[serde(borrow)]
    traffic_type: Text<'a>,
    #[serde(borrow)]
    service_tier: Text<'a>,
}

/// The `usage` of an interaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OfInteraction<'a> {
    total_input_tokens: Count,
    total_cached_tokens: Count,
    total_output_tokens: Count,
    total_thought_tokens: Count,
    total_tool_use_tokens: Count,
    total_tokens: Count,
    #[serde(borrow)]
    input_tokens_by_modality: List<Detail<'a>>,
    #[serde(borrow)]
    cached_tokens_by_modality: List<Detail<'a>>,
    #[serde(borrow)]
    output_tokens_by_modality: List<Detail<'a>>,
    #[serde(borrow)]
    grounding_tool_count: List<ToolCount<'a>>,
}

/// The tokens of one modality.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail<'a> {
    #[serde(borrow)]
    modality: Text<'a>,
    token_count: Count,
    tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCount<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    count: Count,
}

/// What a reply has reported so far. Usage is cumulative: the last count of each counter holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    prompt: Option<u64>,
    cached: Option<u64>,
    candidates: Option<u64>,
    thoughts: Option<u64>,
    tools: Option<u64>,
    total: Option<u64>,
    prompt_media: Media,
    cached_media: Media,
    candidates_media: Media,
}

/// Tokens that are not text.
#[derive(Clone, Copy, Debug, Default)]
struct Media {
    audio: Option<u64>,
    /// Documents too: they are billed as the images of their pages.
    image: Option<u64>,
    video: Option<u64>,
}

impl Metadata<'_> {
    pub(super) fn tally(&self) -> Tally {
        Tally {
            prompt: self.prompt_token_count.0,
            cached: self.cached_content_token_count.0,
            candidates: self.candidates_token_count.0,
            thoughts: self.thoughts_token_count.0,
            tools: self.tool_use_prompt_token_count.0,
            total: self.total_token_count.0,
            prompt_media: Media::of(&self.prompt_tokens_details),
            cached_media: Media::of(&self.cache_tokens_details),
            candidates_media: Media::of(&self.candidates_tokens_details),
        }
    }

    /// The tier the call was served at, by the name that prices have it under. Vertex AI calls it the type of traffic.
    pub(super) fn tier(&self) -> Option<Box<str>> {
        let traffic = self.traffic_type.get().map(|traffic| match traffic {
            "ON_DEMAND" => "standard".to_owned(),
            other => other.strip_prefix("ON_DEMAND_").unwrap_or(other).to_ascii_lowercase(),
        });
        let tier = traffic.or_else(|| self.service_tier.get().map(str::to_ascii_lowercase))?;
        (!tier.ends_with("unspecified")).then(|| tier.into())
    }
}

impl OfInteraction<'_> {
    pub(super) fn tally(&self) -> Tally {
        Tally {
            prompt: self.total_input_tokens.0,
            cached: self.total_cached_tokens.0,
            candidates: self.total_output_tokens.0,
            thoughts: self.total_thought_tokens.0,
            tools: self.total_tool_use_tokens.0,
            total: self.total_tokens.0,
            prompt_media: Media::of(&self.input_tokens_by_modality),
            cached_media: Media::of(&self.cached_tokens_by_modality),
            candidates_media: Media::of(&self.output_tokens_by_modality),
        }
    }

    /// How many searches of the web the interaction made.
    pub(super) fn searches(&self) -> Option<u64> {
        let counts = self.grounding_tool_count.items().iter();
        let searches = counts.filter(|count| count.kind.get() == Some("google_search"));
        searches.filter_map(|count| count.count.0).reduce(u64::saturating_add)
    }
}

impl Media {
    fn of(details: &List<Detail<'_>>) -> Self {
        let mut media = Self::default();
        for detail in details.items() {
            let modality = detail.modality.get().unwrap_or_default().to_ascii_lowercase();
            let count = match modality.as_str() {
                "audio" => &mut media.audio,
                "image" | "document" => &mut media.image,
                "video" => &mut media.video,
                _ => continue,
            };
            *count = sum(*count, detail.token_count.0.or(detail.tokens.0));
        }
        media
    }

    fn or(self, earlier: Self) -> Self {
        Self {
            audio: self.audio.or(earlier.audio),
            image: self.image.or(earlier.image),
            video: self.video.or(earlier.video),
        }
    }
}

impl Tally {
    /// These counts, and those of `earlier` where there is none here.
    pub(super) fn or(self, earlier: Self) -> Self {
        Self {
            prompt: self.prompt.or(earlier.prompt),
            cached: self.cached.or(earlier.cached),
            candidates: self.candidates.or(earlier.candidates),
            thoughts: self.thoughts.or(earlier.thoughts),
            tools: self.tools.or(earlier.tools),
            total: self.total.or(earlier.total),
            prompt_media: self.prompt_media.or(earlier.prompt_media),
            cached_media: self.cached_media.or(earlier.cached_media),
            candidates_media: self.candidates_media.or(earlier.candidates_media),
        }
    }

    /// The usage of a reply that `ended` as its API promises or broke off, with the web searches it was grounded on.
    /// `None` if no tokens were reported, or only those that went in: half a bill is none.
    pub(super) fn usage(self, ended: bool, searches: Option<u64>) -> Option<Usage> {
        let input = sum(self.prompt, self.tools);
        let mut output = sum(self.candidates, self.thoughts);
        if ended && input.is_some() {
            // Where nothing was generated, nothing is written.
            output = output.or(Some(0));
        }
        output?;
        if self.thoughts_are_inside(input) {
            output = self.candidates;
        }
        // What the total has beyond its parts came in by tools that are not itemised.
        let parts = input.unwrap_or(0).saturating_add(output.unwrap_or(0));
        let unitemised = self.total.and_then(|total| total.checked_sub(parts)).filter(|gap| *gap > 0);
        let unitemised = unitemised.filter(|_| input.is_some());
        // No counter holds cached video apart: it is taken from the video, and counts as read from the cache.
        let video = self.prompt_media.video.map(|all| all.saturating_sub(self.cached_media.video.unwrap_or(0)));
        let parts = [
            (Counter::CacheReadTokens, self.cached),
            (Counter::ToolInputTokens, sum(self.tools, unitemised)),
            (Counter::InputAudioTokens, self.prompt_media.audio),
            (Counter::InputImageTokens, self.prompt_media.image),
            (Counter::InputVideoTokens, video),
            (Counter::CacheAudioReadTokens, self.cached_media.audio),
            (Counter::CacheImageReadTokens, self.cached_media.image),
            (Counter::OutputReasoningTokens, self.thoughts),
            (Counter::OutputAudioTokens, self.candidates_media.audio),
            (Counter::OutputImageTokens, self.candidates_media.image),
            (Counter::OutputVideoTokens, self.candidates_media.video),
            (Counter::WebSearches, searches),
        ];
        Some(Usage::cache_inside(sum(input, unitemised), output, &parts))
    }

    /// Whether the total says that the candidates' count contains the thoughts already.
    fn thoughts_are_inside(self, input: Option<u64>) -> bool {
        let without_thoughts = sum(input, self.candidates);
        self.thoughts.is_some() && self.thoughts <= self.candidates && self.total == without_thoughts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::usage::TokenClass;

    fn usage(metadata: &str) -> Usage {
        serde_json::from_str::<Metadata<'_>>(metadata).expect("lenient").tally().usage(true, None).expect("usage")
    }

    fn counts(usage: &Usage) -> Vec<(&'static str, u64)> {
        Counter::ALL.iter().filter_map(|counter| Some((counter.name(), usage.get(*counter)?))).collect()
    }

    #[test]
    fn thoughts_and_tools_lie_outside_and_the_cache_inside() {
        let usage = usage(
            r#"{"promptTokenCount":210000,"cachedContentTokenCount":150000,"candidatesTokenCount":900,
                "thoughtsTokenCount":2100,"toolUsePromptTokenCount":50,"totalTokenCount":213050}"#,
        );
        let expected = [
            ("input_tokens", 210_050),
            ("output_tokens", 3000),
            ("cache_read_tokens", 150_000),
            ("tool_input_tokens", 50),
            ("output_reasoning_tokens", 2100),
        ];
        assert_eq!(counts(&usage), expected);
    }

    #[test]
    fn what_is_not_written_is_zero_in_a_reply_that_ended_and_unknown_in_one_that_broke_off() {
        let only_input = r#"{"promptTokenCount":10,"totalTokenCount":10}"#;
        assert_eq!(usage(only_input).get(Counter::OutputTokens), Some(0), "a blocked prompt");
        let thoughts = r#"{"promptTokenCount":10,"thoughtsTokenCount":20,"totalTokenCount":30}"#;
        assert_eq!(usage(thoughts).get(Counter::OutputTokens), Some(20), "nothing but thoughts");
        let tally = serde_json::from_str::<Metadata<'_>>(only_input).expect("lenient").tally();
        assert_eq!(tally.usage(false, None), None);
        assert_eq!(Tally::default().usage(true, Some(1)), None, "fees alone would pass for the whole bill");
    }

    #[test]
    fn the_total_settles_what_its_parts_leave_open() {
        for (rule, metadata, input, output) in [
            (
                "more than its parts: tools that are not itemised",
                r#"{"promptTokenCount":10,"candidatesTokenCount":5,"totalTokenCount":35}"#,
                30,
                5,
            ),
            (
                "without the thoughts: they are inside",
                r#"{"promptTokenCount":10,"candidatesTokenCount":25,"thoughtsTokenCount":20,"totalTokenCount":35}"#,
                10,
                25,
            ),
            (
                "less than its parts: it means nothing",
                r#"{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":20,"totalTokenCount":1}"#,
                10,
                25,
            ),
        ] {
            let usage = usage(metadata);
            assert_eq!(usage.get(Counter::InputTokens), Some(input), "{rule}");
            assert_eq!(usage.get(Counter::OutputTokens), Some(output), "{rule}");
        }
    }

    #[test]
    fn modalities_are_told_apart_and_documents_are_images() {
        let usage = usage(
            r#"{"promptTokenCount":1000,"cachedContentTokenCount":600,"candidatesTokenCount":300,
                "promptTokensDetails":[{"modality":"TEXT","tokenCount":100},{"modality":"AUDIO","tokenCount":400},
                    {"modality":"VIDEO","tokenCount":300},{"modality":"IMAGE","tokenCount":150},
                    {"modality":"DOCUMENT","tokenCount":50}],
                "cacheTokensDetails":[{"modality":"AUDIO","tokenCount":400},{"modality":"VIDEO","tokenCount":200}],
                "candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":258},{"modality":"MODALITY_UNSPECIFIED"}]}"#,
        );
        let expected = [
            ("input_tokens", 1000),
            ("output_tokens", 300),
            ("cache_read_tokens", 600),
            ("input_audio_tokens", 400),
            ("cache_audio_read_tokens", 400),
            ("input_image_tokens", 200),
            ("output_image_tokens", 258),
            ("input_video_tokens", 100),
        ];
        let mut counted = counts(&usage);
        counted.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(counted, expected);
        let classes = usage.tokens_by_class();
        assert_eq!(classes.iter().sum::<u64>(), 1300, "every token in one class");
        assert_eq!(classes[TokenClass::CacheRead as usize], 600);
    }

    #[test]
    fn the_tier_is_what_prices_call_it() {
        for (metadata, expected) in [
            (r#"{"trafficType":"ON_DEMAND"}"#, Some("standard")),
            (r#"{"trafficType":"ON_DEMAND_PRIORITY"}"#, Some("priority")),
            (r#"{"trafficType":"ON_DEMAND_FLEX"}"#, Some("flex")),
            (r#"{"trafficType":"PROVISIONED_THROUGHPUT"}"#, Some("provisioned_throughput")),
            (r#"{"trafficType":"TRAFFIC_TYPE_UNSPECIFIED"}"#, None),
            (r#"{"serviceTier":"flex"}"#, Some("flex")),
            (r#"{"serviceTier":"unspecified"}"#, None),
            ("{}", None),
        ] {
            let read: Metadata<'_> = serde_json::from_str(metadata).expect("lenient");
            assert_eq!(read.tier().as_deref(), expected, "{metadata}");
        }
    }
}
