//! Usage: what a call used, counter by counter, and what that cost.
//!
//! Providers disagree on whether their input counts contain cached tokens. A [`Usage`] has one constructor per
//! convention and no public fields, so the two cannot be mixed: inside, `input_tokens` always contains every input
//! class and `output_tokens` every output class. Absent is not zero.

use crate::units::PicoUsd;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $class:ident, [$($within:ident),*];)+) => {
        /// A counter that can carry a price. The names are those of the price table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Counter {
            /// Every counter, containers before what they contain.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name in the price table.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it counts, in words.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }

            /// Every counter whose count already contains this one.
            #[must_use]
            pub const fn within(self) -> &'static [Self] {
                match self {
                    $(Self::$name => &[$(Self::$within),*],)+
                }
            }

            /// The class its own share (less what is counted more exactly) belongs to.
            #[must_use]
            pub const fn class(self) -> TokenClass {
                match self {
                    $(Self::$name => TokenClass::$class,)+
                }
            }
        }
    };
}

counters! {
    /// Every token of the prompt: cached, written to a cache, audio, image and tool tokens included.
    InputTokens = "input_tokens", Input, [];
    /// Every token generated, reasoning included.
    OutputTokens = "output_tokens", Output, [];
    /// Prompt tokens the provider read from its cache.
    CacheReadTokens = "cache_read_tokens", CacheRead, [InputTokens];
    /// Prompt tokens the provider wrote to its cache, whatever their lifetime.
    CacheWriteTokens = "cache_write_tokens", CacheWrite, [InputTokens];
    /// Those of them written for one hour.
    CacheWrite1hTokens = "cache_write_1h_tokens", CacheWrite, [InputTokens, CacheWriteTokens];
    /// Those of them written for twelve hours.
    CacheWrite12hTokens = "cache_write_12h_tokens", CacheWrite, [InputTokens, CacheWriteTokens];
    /// Prompt tokens that the provider's own tools brought in.
    ToolInputTokens = "tool_input_tokens", Input, [InputTokens];
    /// Audio tokens of the prompt.
    InputAudioTokens = "input_audio_tokens", Media, [InputTokens];
    /// Audio tokens generated.
    OutputAudioTokens = "output_audio_tokens", Media, [OutputTokens];
    /// Audio tokens read from the provider's cache.
    CacheAudioReadTokens = "cache_audio_read_tokens", CacheRead, [InputTokens, CacheReadTokens, InputAudioTokens];
    /// Image tokens of the prompt.
    InputImageTokens = "input_image_tokens", Media, [InputTokens];
    /// Image tokens generated.
    OutputImageTokens = "output_image_tokens", Media, [OutputTokens];
    /// Image tokens read from the provider's cache.
    CacheImageReadTokens = "cache_image_read_tokens", CacheRead, [InputTokens, CacheReadTokens, InputImageTokens];
    /// Video tokens of the prompt.
    InputVideoTokens = "input_video_tokens", Media, [InputTokens];
    /// Video tokens generated.
    OutputVideoTokens = "output_video_tokens", Media, [OutputTokens];
    /// Reasoning tokens: part of the output.
    OutputReasoningTokens = "output_reasoning_tokens", Reasoning, [OutputTokens];
    /// Citation tokens: part of the output.
    OutputCitationTokens = "output_citation_tokens", Output, [OutputTokens];
    /// Characters of input, where speech is billed by them.
    InputCharacters = "input_characters", Fee, [];
    /// Text messages, where input is billed by them.
    InputTextMessages = "input_text_messages", Fee, [];
    /// Seconds of audio, in and out.
    AudioSeconds = "audio_seconds", Fee, [];
    /// Seconds of audio read.
    InputAudioSeconds = "input_audio_seconds", Fee, [AudioSeconds];
    /// Pages of documents read.
    InputDocumentPages = "input_document_pages", Fee, [];
    /// Those of them read with annotations.
    InputAnnotatedDocumentPages = "input_annotated_document_pages", Fee, [InputDocumentPages];
    /// Web searches the provider made for the call.
    WebSearches = "web_searches", Fee, [];
    /// Searches in stored files.
    StorageSearches = "storage_searches", Fee, [];
    /// The call itself, where each costs a fee. Always one.
    Requests = "requests", Fee, [];
}

/// Disjoint classes of what is billed: the label `token_type`. The token classes add up to all tokens billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenClass {
    /// Prompt tokens at the full rate.
    Input,
    /// Prompt tokens read from the provider's cache.
    CacheRead,
    /// Prompt tokens written to the provider's cache.
    CacheWrite,
    /// Generated tokens that are not reasoning.
    Output,
    /// Reasoning tokens.
    Reasoning,
    /// Audio, image and video tokens, in and out.
    Media,
    /// What is billed by another measure than tokens; has a cost, but no tokens.
    Fee,
}

impl TokenClass {
    /// Every class, in the order of the arrays indexed by it.
    pub const ALL: [Self; 7] =
        [Self::Input, Self::CacheRead, Self::CacheWrite, Self::Output, Self::Reasoning, Self::Media, Self::Fee];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWrite => "cache_write",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::Media => "media",
            Self::Fee => "fee",
        }
    }
}

/// What one call used, as its provider reported it, or by estimate where it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    counts: [Option<u64>; Counter::ALL.len()],
    estimated: bool,
}

/// Nothing reported.
impl Default for Usage {
    fn default() -> Self {
        Self { counts: [None; Counter::ALL.len()], estimated: false }
    }
}

impl Usage {
    /// From a provider whose input count already contains cached tokens (OpenAI and its likes). `parts` are counters
    /// inside `input` or `output`, or fees beside them.
    #[must_use]
    pub fn cache_inside(input: Option<u64>, output: Option<u64>, parts: &[(Counter, Option<u64>)]) -> Self {
        let mut usage = Self::default();
        for &(counter, count) in parts {
            usage.counts[counter as usize] = count;
        }
        usage.counts[Counter::InputTokens as usize] = input;
        usage.counts[Counter::OutputTokens as usize] = output;
        usage
    }

    /// From a provider whose input count leaves out tokens read from and written to its cache (Anthropic, Bedrock).
    #[must_use]
    pub fn cache_outside(uncached: Option<u64>, output: Option<u64>, parts: &[(Counter, Option<u64>)]) -> Self {
        let mut usage = Self::cache_inside(None, output, parts);
        let input = [uncached, usage.get(Counter::CacheReadTokens), usage.get(Counter::CacheWriteTokens)];
        if input.iter().any(Option::is_some) {
            usage.counts[Counter::InputTokens as usize] =
                Some(input.iter().flatten().fold(0, |sum: u64, count| sum.saturating_add(*count)));
        }
        usage
    }

    /// The same with estimates of what was not reported, marked as estimated. A count that was reported stays, but for
    /// one that a stream broke off on: tokens only grow, so the larger one is nearer.
    #[must_use]
    pub fn with_estimates(mut self, input: Option<u64>, output: Option<u64>) -> Self {
        for (counter, estimate) in [(Counter::InputTokens, input), (Counter::OutputTokens, output)] {
            let count = &mut self.counts[counter as usize];
            *count = (*count).max(estimate);
        }
        self.estimated = true;
        self
    }

    /// Whether any of its counts is an estimate.
    #[must_use]
    pub const fn is_estimated(&self) -> bool {
        self.estimated
    }

    /// The count of `counter`, `None` if it was not reported.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> Option<u64> {
        self.counts[counter as usize]
    }

    /// The share of each reported counter that no counter inside it covers: disjoint, and never below zero even where
    /// a provider reports a part larger than its whole.
    pub fn leaves(&self) -> impl Iterator<Item = (Counter, u64)> {
        let mut leaves = self.counts;
        for &part in Counter::ALL.iter().rev() {
            let Some(own) = leaves[part as usize] else { continue };
            for &container in part.within() {
                let rest = &mut leaves[container as usize];
                *rest = rest.map(|count| count.saturating_sub(own));
            }
        }
        Counter::ALL.iter().filter_map(move |&counter| leaves[counter as usize].map(|count| (counter, count)))
    }

    /// Billed tokens by class, indexed as [`TokenClass::ALL`]; fees count no tokens.
    #[must_use]
    pub fn tokens_by_class(&self) -> [u64; TokenClass::ALL.len()] {
        let mut classes = [0_u64; TokenClass::ALL.len()];
        for (counter, count) in self.leaves().filter(|(counter, _)| counter.class() != TokenClass::Fee) {
            let class = &mut classes[counter.class() as usize];
            *class = class.saturating_add(count);
        }
        classes
    }

    /// All tokens billed: input and output together.
    #[must_use]
    pub fn total_tokens(&self) -> u64 {
        let count = |counter| self.get(counter).unwrap_or(0);
        count(Counter::InputTokens).saturating_add(count(Counter::OutputTokens))
    }
}

/// What a call cost, or why that is not known. Unknown is never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Stated by the provider, or priced from the table.
    Known(Charge),
    /// Not priced, and why.
    Unpriced(Unpriced),
    /// There was nothing to bill: no call reached the provider, it refused the call, or the operation is free.
    Nothing,
}

impl Cost {
    /// The amount, if it is known.
    #[must_use]
    pub fn amount(&self) -> Option<PicoUsd> {
        match self {
            Self::Known(charge) => Some(charge.total()),
            Self::Nothing => Some(PicoUsd::ZERO),
            Self::Unpriced(_) => None,
        }
    }
}

/// An amount of money by class; its total is the sum of its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    by_class: [PicoUsd; TokenClass::ALL.len()],
}

impl Charge {
    /// Adds `amount` to `class`.
    pub fn add(&mut self, class: TokenClass, amount: PicoUsd) {
        self.by_class[class as usize] += amount;
    }

    /// The same so many times.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        let times = |amount: PicoUsd| std::iter::repeat_n(amount, usize::try_from(count).unwrap_or(usize::MAX)).sum();
        Self { by_class: self.by_class.map(times) }
    }

    /// The part billed for `class`.
    #[must_use]
    pub const fn of(&self, class: TokenClass) -> PicoUsd {
        self.by_class[class as usize]
    }

    /// The whole amount.
    #[must_use]
    pub fn total(&self) -> PicoUsd {
        self.by_class.iter().copied().sum()
    }
}

/// Why a call could not be priced: the label `reason` of `weir_unpriced_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unpriced {
    /// The price table does not know the model.
    UnknownModel,
    /// The provider reported no usage, and it could not be estimated.
    NoUsage,
    /// There are no prices for this provider.
    NoTable,
}

impl Unpriced {
    /// Every reason there is, for creating series at zero.
    pub const ALL: [Self; 3] = [Self::UnknownModel, Self::NoUsage, Self::NoTable];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownModel => "unknown_model",
            Self::NoUsage => "no_usage",
            Self::NoTable => "no_table",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_outside_the_input_are_added_to_it() {
        let parts = [(Counter::CacheReadTokens, Some(2000)), (Counter::CacheWriteTokens, Some(123))];
        let usage = Usage::cache_outside(Some(504), Some(97), &parts);
        assert_eq!(usage.get(Counter::InputTokens), Some(2627));
        assert_eq!(usage.tokens_by_class(), [504, 2000, 123, 97, 0, 0, 0]);
        assert_eq!(usage.total_tokens(), 2724);
    }

    #[test]
    fn cached_tokens_inside_the_input_are_taken_from_it() {
        let parts = [(Counter::CacheReadTokens, Some(4096)), (Counter::OutputReasoningTokens, Some(2500))];
        let usage = Usage::cache_inside(Some(10_000), Some(3000), &parts);
        assert_eq!(usage.tokens_by_class(), [5904, 4096, 0, 500, 2500, 0, 0]);
    }

    #[test]
    fn one_hour_writes_are_part_of_all_writes() {
        let parts = [(Counter::CacheWriteTokens, Some(123)), (Counter::CacheWrite1hTokens, Some(23))];
        let usage = Usage::cache_outside(Some(1), Some(1), &parts);
        let leaves: Vec<_> = usage.leaves().filter(|(counter, _)| counter.class() == TokenClass::CacheWrite).collect();
        assert_eq!(leaves, [(Counter::CacheWriteTokens, 100), (Counter::CacheWrite1hTokens, 23)]);
    }

    #[test]
    fn cached_audio_is_counted_once() {
        let parts = [
            (Counter::CacheReadTokens, Some(1500)),
            (Counter::InputAudioTokens, Some(3000)),
            (Counter::CacheAudioReadTokens, Some(1000)),
        ];
        let usage = Usage::cache_inside(Some(5000), None, &parts);
        assert_eq!(usage.tokens_by_class(), [1500, 1500, 0, 0, 0, 2000, 0]);
    }

    #[test]
    fn a_part_larger_than_its_whole_never_goes_below_zero() {
        let usage = Usage::cache_inside(Some(10), None, &[(Counter::CacheReadTokens, Some(50))]);
        assert_eq!(usage.tokens_by_class()[TokenClass::Input as usize], 0);
    }

    #[test]
    fn what_was_not_reported_stays_absent() {
        let usage = Usage::cache_outside(None, Some(3), &[]);
        assert_eq!(usage.get(Counter::InputTokens), None);
    }
}
