//! Tokens: how many tokens a text has, counted by OpenAI's public vocabularies, or told from its length.
//!
//! A vocabulary is large (`o200k_base`: 46 MiB of memory, and 0.2 s to load), so it is loaded when it is first needed
//! and let go when it has not been needed for a while. Loading and counting take milliseconds: not for a thread that
//! serves calls. Knows requests as JSON ([`prompt`]), and neither APIs nor prices.

pub mod prompt;
mod tables;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiktoken_rs::CoreBPE;
use tokio::time::Instant;

/// How many bytes of text a token stands for where nobody counts. OpenAI: "1 token ~= 4 chars in English" (help
/// center, "What are tokens and how to count them?"). docs/cost.md says how far off that is.
const BYTES_PER_TOKEN: u64 = 4;

/// Texts are counted in pieces of this size at most. It bounds what the regular expression that finds words can
/// backtrack, at the price of a token for each cut.
const PIECE: usize = 16 << 10;

/// How much of one prompt or one output is counted. What follows is taken to be like what was counted.
const MOST_COUNTED: usize = 1 << 20;

/// How often it is looked whether a vocabulary is still needed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A vocabulary that is not used for so long is let go.
const KEEP_FOR: Duration = Duration::from_secs(300);

/// How many tokens a text of so many bytes has, roughly.
#[must_use]
pub const fn by_length(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// A vocabulary: which runs of bytes are one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// `o200k_base`: OpenAI's models since GPT-4o. The nearest there is for models whose vocabulary is not public.
    O200k,
    /// `cl100k_base`: GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
}

/// Beginnings of the names of models that read `cl100k_base`, and of newer ones that begin the same but do not.
/// (`tiktoken/model.py`, version 0.12.)
const CL100K: [&str; 6] = ["gpt-4", "gpt-3.5", "gpt-35", "text-embedding-", "davinci-002", "babbage-002"];
const NOT_CL100K: [&str; 3] = ["gpt-4o", "gpt-4.1", "gpt-4.5"];

/// The loaded vocabularies. They are constants of the program, so everyone in it shares them.
static LOADED: [Mutex<Option<Loaded>>; 2] = [Mutex::new(None), Mutex::new(None)];

struct Loaded {
    vocabulary: Arc<CoreBPE>,
    used: Instant,
}

impl Vocabulary {
    const ALL: [Self; 2] = [Self::O200k, Self::Cl100k];

    /// The vocabulary of a model, or the nearest to it.
    #[must_use]
    pub fn of_model(model: &str) -> Self {
        // `azure/gpt-4`, `openai/gpt-4`: gateways put who offers it before the name.
        let name = model.rsplit('/').next().unwrap_or(model);
        let begins = |list: &[&str]| list.iter().any(|beginning| name.starts_with(beginning));
        if begins(&CL100K) && !begins(&NOT_CL100K) { Self::Cl100k } else { Self::O200k }
    }

    /// The number of tokens of `text`. What looks like a special token is text like any other.
    #[must_use]
    pub fn count(self, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let vocabulary = self.load();
        pieces(text).map(|piece| vocabulary.count_ordinary(piece) as u64).sum()
    }

    /// The first `most` tokens of `text`, or all of it if it has no more.
    #[must_use]
    pub fn beginning(self, text: &str, most: u64) -> String {
        let vocabulary = self.load();
        let mut tokens = vocabulary.encode_ordinary(text);
        tokens.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        loop {
            // A token may end in the middle of a character; the text then ends one token earlier.
            match vocabulary.decode(&tokens) {
                Ok(text) => return text,
                Err(_) => tokens.pop(),
            };
        }
    }

    /// The vocabulary, loaded. Whoever comes while it loads waits for it.
    fn load(self) -> Arc<CoreBPE> {
        let mut place = self.place();
        if let Some(loaded) = place.as_mut() {
            loaded.used = Instant::now();
            return Arc::clone(&loaded.vocabulary);
        }
        let vocabulary = Arc::new(match self {
            Self::O200k => tables::o200k(),
            Self::Cl100k => tables::cl100k(),
        });
        *place = Some(Loaded { vocabulary: Arc::clone(&vocabulary), used: Instant::now() });
        vocabulary
    }

    fn place(self) -> MutexGuard<'static, Option<Loaded>> {
        LOADED[self as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_go_if_unused(self, now: Instant) {
        // Whoever has the lock is loading it: then it is needed.
        let Ok(mut place) = LOADED[self as usize].try_lock() else { return };
        if place.as_ref().is_some_and(|loaded| now.saturating_duration_since(loaded.used) >= KEEP_FOR) {
            *place = None;
        }
    }
}

/// Counts a text that comes in pieces: the first MiB exactly, the rest in proportion.
#[derive(Debug)]
pub struct Count {
    vocabulary: Vocabulary,
    counted_bytes: usize,
    counted: u64,
    unseen_bytes: u64,
}

impl Count {
    /// Nothing counted yet.
    #[must_use]
    pub const fn new(vocabulary: Vocabulary) -> Self {
        Self { vocabulary, counted_bytes: 0, counted: 0, unseen_bytes: 0 }
    }

    /// Counts `text`, as far as there is time for it.
    pub fn add(&mut self, text: &str) {
        let end = boundary_before(text, MOST_COUNTED - self.counted_bytes);
        self.counted += self.vocabulary.count(&text[..end]);
        self.counted_bytes += end;
        self.add_unseen((text.len() - end) as u64);
    }

    /// Adds a text of which only the length is known.
    pub const fn add_unseen(&mut self, bytes: u64) {
        self.unseen_bytes = self.unseen_bytes.saturating_add(bytes);
    }

    /// The tokens of all that was added.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        if self.counted_bytes == 0 {
            return by_length(self.unseen_bytes);
        }
        let unseen = u128::from(self.unseen_bytes) * u128::from(self.counted) / self.counted_bytes as u128;
        self.counted.saturating_add(u64::try_from(unseen).unwrap_or(u64::MAX))
    }
}

/// Lets vocabularies go that are no longer used, for as long as the future is polled.
pub async fn let_unused_go() {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for vocabulary in Vocabulary::ALL {
            vocabulary.let_go_if_unused(Instant::now());
        }
    }
}

/// `text` in pieces of bounded size, cut at white space where there is any.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = if rest.len() <= PIECE { rest.len() } else { cut(rest) };
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where to cut a text that is too long: before the last space of its first piece, else between two characters.
fn cut(text: &str) -> usize {
    let longest = boundary_before(text, PIECE);
    text[..longest].rfind(' ').filter(|at| *at > 0).unwrap_or(longest)
}

/// The last place at or before `at` that lies between two characters.
fn boundary_before(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_vocabulary() {
        // "hello world" is the example of OpenAI's tokenizer page: two tokens.
        for vocabulary in Vocabulary::ALL {
            assert_eq!(vocabulary.count("hello world"), 2);
            assert_eq!(vocabulary.count(""), 0);
        }
        // `o200k_base` has words for it, `cl100k_base` only pieces.
        let text = "こんにちは、世界。お元気ですか。";
        assert!(Vocabulary::O200k.count(text) < Vocabulary::Cl100k.count(text));
    }

    #[test]
    fn a_beginning_has_as_many_tokens_as_asked_for() {
        let beginning = Vocabulary::O200k.beginning("one two three four five", 3);
        assert_eq!(beginning, "one two three");
        assert_eq!(Vocabulary::O200k.beginning("anything", 0), "");
    }

    #[test]
    fn a_model_reads_its_own_vocabulary_or_the_nearest() {
        for (model, expected) in [
            ("gpt-5-mini", Vocabulary::O200k),
            ("gpt-4o-2024-08-06", Vocabulary::O200k),
            ("gpt-4.1", Vocabulary::O200k),
            ("o3", Vocabulary::O200k),
            ("claude-opus-5-5", Vocabulary::O200k),
            ("", Vocabulary::O200k),
            ("gpt-4-turbo", Vocabulary::Cl100k),
            ("openai/gpt-3.5-turbo", Vocabulary::Cl100k),
            ("gpt-35-turbo", Vocabulary::Cl100k),
            ("text-embedding-3-small", Vocabulary::Cl100k),
        ] {
            assert_eq!(Vocabulary::of_model(model), expected, "{model}");
        }
    }

    #[test]
    fn a_long_text_is_counted_in_pieces_that_change_little() {
        let words = "tokens of a text that is long ".repeat(2_000);
        let whole = Vocabulary::O200k.load().count_ordinary(&words) as u64;
        assert!(Vocabulary::O200k.count(&words).abs_diff(whole) <= words.len() as u64 / PIECE as u64 + 1);
        for hostile in [" ".repeat(1 << 18), "a".repeat(1 << 18), "的".repeat(1 << 16), "\n".repeat(1 << 18)] {
            assert_eq!(pieces(&hostile).map(str::len).sum::<usize>(), hostile.len());
            assert!(pieces(&hostile).all(|piece| piece.len() <= PIECE));
            assert!(Vocabulary::O200k.count(&hostile) > 0);
        }
    }

    #[test]
    fn beyond_a_mebibyte_a_text_is_taken_to_go_on_as_it_was() {
        let piece = "the same words, again and again ".repeat(MOST_COUNTED / 64);
        let mut count = Count::new(Vocabulary::O200k);
        count.add(&piece);
        let half = count.tokens();
        for _ in 0..3 {
            count.add(&piece);
        }
        assert_eq!(count.counted_bytes, MOST_COUNTED);
        assert!(count.tokens().abs_diff(4 * half) <= half / 100, "{} is not four times {half}", count.tokens());
        let mut unseen = Count::new(Vocabulary::O200k);
        unseen.add_unseen(9);
        assert_eq!(unseen.tokens(), 3);
    }

    #[test]
    fn what_is_unused_is_let_go_and_comes_back() {
        let vocabulary = Vocabulary::Cl100k;
        let loaded = Arc::downgrade(&vocabulary.load());
        vocabulary.let_go_if_unused(Instant::now());
        assert!(loaded.upgrade().is_some(), "it was used just now");
        // Other tests may use it at the same time.
        while loaded.upgrade().is_some() {
            vocabulary.let_go_if_unused(Instant::now() + KEEP_FOR + KEEP_FOR);
        }
        assert_eq!(vocabulary.count("hello world"), 2);
    }
}
