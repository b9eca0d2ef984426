//! Usage, as Cohere reports it: what is billed, beside the larger raw counts that include its prompt template.

use serde::Deserialize;

use crate::provider::lenient::{Count, Object};
use crate::record::usage::{Counter, Usage};

/// A `usage` object of the second version, or a `meta` object of the first; of embeddings and rerankings in both.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Reported {
    billed_units: Object<Units>,
    tokens: Object<Units>,
    cached_tokens: Count,
}

/// Counts; Cohere writes them as floats.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Units {
    #[serde(rename = "input_tokens")]
    input: Count,
    #[serde(rename = "text_tokens")]
    text: Count,
    #[serde(rename = "image_tokens")]
    image: Count,
    #[serde(rename = "output_tokens")]
    output: Count,
    #[serde(rename = "search_units")]
    searches: Count,
    classifications: Count,
}

impl Reported {
    /// What was used, as billed where that is said. `None` if nothing was counted.
    ///
    /// Search units are counted as searches in documents, classifications as text messages: a thousand of either is
    /// what their prices are for.
    pub(super) fn usage(&self) -> Option<Usage> {
        let units = self.billed_units.get().or(self.tokens.get())?;
        let (input, image) = (units.all_input(), units.image.0);
        // It counts the raw prompt, of which only a part is billed.
        let cached = self.cached_tokens.0.map(|cached| cached.min(input.unwrap_or(0)));
        let parts = [
            (Counter::CacheReadTokens, cached),
            (Counter::InputImageTokens, image),
            (Counter::StorageSearches, units.searches.0),
            (Counter::InputTextMessages, units.classifications.0),
        ];
        let counts = [input, units.output.0, units.searches.0, units.classifications.0];
        let is_any = counts.iter().any(Option::is_some);
        is_any.then(|| Usage::cache_inside(input, units.output.0, &parts))
    }
}

impl Units {
    /// All tokens of the input. Those of pictures are counted beside those of texts.
    fn all_input(&self) -> Option<u64> {
        match (self.text.0.or(self.input.0), self.image.0) {
            (Some(text), Some(image)) => Some(text.saturating_add(image)),
            (text, image) => text.or(image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Counter::{CacheReadTokens, InputImageTokens, InputTextMessages, InputTokens, OutputTokens, StorageSearches};

    #[test]
    fn what_is_billed_counts() {
        let count = |json: &str, counter: Counter| {
            serde_json::from_str::<Reported>(json).expect("lenient").usage().and_then(|usage| usage.get(counter))
        };
        let raw = r#""tokens":{"input_tokens":69.0,"output_tokens":9.0}"#;
        for (rule, json, counter, expected) in [
            ("floats", r#"{"billed_units":{"input_tokens":7.0}}"#.to_owned(), InputTokens, Some(7)),
            (
                "billed",
                format!(r#"{{"billed_units":{{"input_tokens":7,"output_tokens":3}},{raw}}}"#),
                InputTokens,
                Some(7),
            ),
            (
                "billed",
                format!(r#"{{"billed_units":{{"input_tokens":7,"output_tokens":3}},{raw}}}"#),
                OutputTokens,
                Some(3),
            ),
            ("raw, if that is all", format!("{{{raw}}}"), InputTokens, Some(69)),
            (
                "cached",
                format!(r#"{{"billed_units":{{"input_tokens":7}},"cached_tokens":4.0,{raw}}}"#),
                CacheReadTokens,
                Some(4),
            ),
            (
                "more cached than billed",
                r#"{"billed_units":{"input_tokens":7},"cached_tokens":48}"#.to_owned(),
                CacheReadTokens,
                Some(7),
            ),
            (
                "pictures",
                r#"{"billed_units":{"input_tokens":2,"image_tokens":1200}}"#.to_owned(),
                InputTokens,
                Some(1202),
            ),
            (
                "pictures",
                r#"{"billed_units":{"input_tokens":1202,"text_tokens":2,"image_tokens":1200}}"#.to_owned(),
                InputTokens,
                Some(1202),
            ),
            (
                "pictures alone",
                r#"{"billed_units":{"images":1,"image_tokens":1200}}"#.to_owned(),
                InputImageTokens,
                Some(1200),
            ),
            ("searches", r#"{"billed_units":{"search_units":2}}"#.to_owned(), StorageSearches, Some(2)),
            ("searches are no tokens", r#"{"billed_units":{"search_units":2}}"#.to_owned(), InputTokens, None),
            ("classifications", r#"{"billed_units":{"classifications":3}}"#.to_owned(), InputTextMessages, Some(3)),
        ] {
            assert_eq!(count(&json, counter), expected, "{rule}: {json}");
        }
        for nothing in
            ["{}", r#"{"billed_units":{}}"#, r#"{"billed_units":null,"tokens":[]}"#, r#"{"cached_tokens":1}"#]
        {
            assert_eq!(serde_json::from_str::<Reported>(nothing).expect("lenient").usage(), None, "{nothing}");
        }
    }
}
