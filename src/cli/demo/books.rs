//! Books: are the tokens that weir counted those that the provider charged?
//!
//! Two who share no code: weir read them in the replies, the simulator wrote them on its bill.

use super::samples::Samples;
use crate::record::usage::TokenClass;
use crate::semconv::{self, label};
use crate::simulator::bill::Tally;

/// The same tokens, counted on both sides.
#[derive(Debug)]
pub(super) struct Books(Vec<Entry>);

/// One kind of tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: &'static str,
    pub(super) weir: u64,
    pub(super) bill: u64,
}

impl Books {
    pub(super) fn of(samples: &Samples, bill: Tally) -> Self {
        let weir = |class: TokenClass| samples.count(semconv::TOKENS.name, &[(label::TOKEN_TYPE, class.as_str())]);
        let written = bill.cache_write_short + bill.cache_write_long;
        let entry = |class: TokenClass, kind, bill| Entry { kind, weir: weir(class), bill };
        Self(vec![
            entry(TokenClass::Input, "input", bill.input - bill.cached - written),
            entry(TokenClass::CacheRead, "read from its cache", bill.cached),
            entry(TokenClass::CacheWrite, "written to its cache", written),
            entry(TokenClass::Output, "output", bill.output - bill.reasoning),
            entry(TokenClass::Reasoning, "reasoning", bill.reasoning),
            entry(TokenClass::Media, "media", 0), // which the simulator does not charge
        ])
    }

    pub(super) fn are_equal(&self) -> bool {
        self.0.iter().all(|entry| entry.weir == entry.bill)
    }

    /// The kinds that occurred.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(|entry| (entry.weir, entry.bill) != (0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BILL: Tally = Tally {
        input: 100,
        cached: 40,
        cache_write_short: 8,
        cache_write_long: 2,
        output: 20,
        reasoning: 5,
        ..Tally::NOTHING
    };

    #[test]
    fn books_are_equal_when_every_kind_is() {
        let text = r#"weir_tokens_total{model="a",token_type="input"} 30
weir_tokens_total{model="b",token_type="input"} 20
weir_tokens_total{model="a",token_type="cache_read"} 40
weir_tokens_total{model="a",token_type="cache_write"} 10
weir_tokens_total{model="a",token_type="output"} 15
weir_tokens_total{model="a",token_type="reasoning"} 5
"#;
        assert!(Books::of(&Samples::read(text), BILL).are_equal());
        assert!(!Books::of(&Samples::read(&text.replace(" 40", " 41")), BILL).are_equal());
        assert!(!Books::of(&Samples::read(""), BILL).are_equal());
        assert!(Books::of(&Samples::read(""), Tally::default()).are_equal());
    }

    #[test]
    fn only_what_occurred_is_listed() {
        let books = Books::of(&Samples::read("weir_tokens_total{token_type=\"media\"} 3"), Tally::default());
        assert_eq!(books.entries().collect::<Vec<_>>(), [&Entry { kind: "media", weir: 3, bill: 0 }]);
    }
}
