//! Tokens: how many tokens a text has, by OpenAI's own `o200k_base` vocabulary, whatever the model.
//!
//! For Anthropic's models this is an approximation: their tokenizer is not public. Remembers what it has counted,
//! because counting is by far the slowest thing the simulator does. Knows nothing of requests.

use std::sync::Arc;

use moka::sync::Cache;

use super::text::digest;
use crate::tokens::Vocabulary;

/// Counts tokens, and remembers the counts of recent texts. A clone shares the memory.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    counts: Cache<(u64, usize), u64>,
    beginnings: Cache<(u64, usize, u64), Arc<str>>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self { counts: Cache::new(20_000), beginnings: Cache::new(1_000) }
    }

    pub(super) fn count(&self, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let key = (digest(text.as_bytes()), text.len());
        self.counts.get_with(key, || Vocabulary::O200k.count(text))
    }

    /// The first `most` tokens of a text that has more of them.
    pub(super) fn beginning(&self, text: &str, most: u64) -> Arc<str> {
        let key = (digest(text.as_bytes()), text.len(), most);
        self.beginnings.get_with(key, || Vocabulary::O200k.beginning(text, most).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_o200k() {
        let tokens = Tokens::new();
        // "hello world" is the example of OpenAI's tokenizer page: two tokens.
        assert_eq!(tokens.count("hello world"), 2);
        assert_eq!(tokens.count("hello world"), 2);
        assert_eq!(tokens.count(""), 0);
    }

    #[test]
    fn a_beginning_has_as_many_tokens_as_asked_for() {
        let tokens = Tokens::new();
        let beginning = tokens.beginning("one two three four five", 3);
        assert_eq!(&*beginning, "one two three");
        assert_eq!(tokens.count(&beginning), 3);
        assert_eq!(&*tokens.beginning("anything", 0), "");
    }
}
