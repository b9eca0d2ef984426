//! Tokens: how many tokens a text has, by OpenAI's own `o200k_base` vocabulary.
//!
//! For Anthropic's models this is an approximation: their tokenizer is not public. Remembers what it has counted,
//! because counting is by far the slowest thing the simulator does. Knows nothing of requests.

use std::sync::Arc;

use moka::sync::Cache;
use tiktoken_rs::o200k_base_singleton;

use super::text::digest;

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
        self.counts.get_with(key, || o200k_base_singleton().count_ordinary(text) as u64)
    }

    /// The first `most` tokens of a text that has more of them.
    pub(super) fn beginning(&self, text: &str, most: u64) -> Arc<str> {
        let key = (digest(text.as_bytes()), text.len(), most);
        self.beginnings.get_with(key, || {
            let tokenizer = o200k_base_singleton();
            let mut tokens = tokenizer.encode_ordinary(text);
            tokens.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            loop {
                // A token may end in the middle of a character; the text then ends one token earlier.
                match tokenizer.decode(&tokens) {
                    Ok(text) => return text.into(),
                    Err(_) => tokens.pop(),
                };
            }
        })
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
