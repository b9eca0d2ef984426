//! Wording: what of a text matters to its meaning but hardly to its vector. Two texts in which any of it differs are not
//! taken for the same question, however near their vectors are.
//!
//! What is no plain word (numbers, dates, code, paths, addresses, acronyms), words that turn a meaning round ("not",
//! "without", "off"), and the order of the same words ("from A to B", "from B to A"). Each rule can only cost a hit.
//! Which wrong hits they are there for is told in ADR 18. Knows no vectors.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Words that turn a meaning round; of two opposites the one that is rarer by itself. Texts agree if they have as many
/// of them. The commonest of English, German, French, Spanish, Italian and Portuguese.
const TURNING: &str = "\
    not no nor none never neither nothing cannot without except unless excluding \
    off disable disabled disabling closed close stop deny denied reject remove delete uninstall decrease reduce lower \
    sell after less fewer worst last down false incorrect wrong illegal invalid unsafe \
    nicht kein keine keinen nie niemals ohne aus \
    ne pas jamais sans aucun aucune \
    nunca sin ningún ninguna \
    non senza mai não sem";

/// Marks that end or surround a word without being part of it.
const AROUND: &[char] = &['.', ',', ';', ':', '!', '?', '"', '\'', '’', '(', ')', '[', ']', '{', '}'];

/// How a text is worded, as far as it counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wording {
    /// Hash of what is no plain word, in order.
    exact: u64,
    /// How many words turn the meaning round.
    turns: usize,
    /// Hash of all words, in whatever order.
    words: u64,
    /// Hash of all words, in order.
    order: u64,
}

impl Wording {
    /// The wording of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut exact = DefaultHasher::new();
        let mut order = DefaultHasher::new();
        let mut found = Self { exact: 0, turns: 0, words: 0, order: 0 };
        for word in words(text) {
            let lower = word.to_lowercase();
            if !is_plain(word) {
                word.hash(&mut exact);
            }
            found.turns += usize::from(turns(&lower));
            found.words = found.words.wrapping_add(hash(&lower));
            lower.hash(&mut order);
        }
        Self { exact: exact.finish(), order: order.finish(), ..found }
    }

    /// Whether a text worded so may mean what one worded like `other` does.
    #[must_use]
    pub const fn agrees_with(&self, other: &Self) -> bool {
        let is_reordered = self.words == other.words && self.order != other.order;
        self.exact == other.exact && self.turns == other.turns && !is_reordered
    }
}

/// What white space and the punctuation of any script separates.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let separates = |letter: char| {
        letter.is_whitespace() || (!letter.is_ascii() && !letter.is_alphanumeric() && !AROUND.contains(&letter))
    };
    text.split(separates).map(|word| word.trim_matches(AROUND)).filter(|word| !word.is_empty())
}

/// Whether a word is made of letters, hyphens and apostrophes only, as words of a language are, and is no acronym.
fn is_plain(word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphabetic() || matches!(letter, '-' | '\'' | '’');
    word.starts_with(char::is_alphabetic)
        && word.chars().all(is_part)
        && word.chars().filter(|letter| letter.is_uppercase()).count() < 2
}

fn turns(word: &str) -> bool {
    TURNING.split(' ').any(|turning| turning == word) || word.ends_with("n't") || word.ends_with("n’t")
}

fn hash(word: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    word.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(one: &str, other: &str) -> bool {
        let (one, other) = (Wording::of(one), Wording::of(other));
        assert_eq!(one.agrees_with(&other), other.agrees_with(&one), "it goes both ways");
        one.agrees_with(&other)
    }

    #[test]
    fn texts_that_say_the_same_in_other_words_agree() {
        for (one, other) in [
            ("How do I reset my password?", "What is the way to reset my password"),
            ("Hello there!", "hello, there"),
            ("What does the law of 1998 say?", "What is it that the law of 1998 says?"),
            ("Why is it not on?", "Why isn't it on?"),
            ("Why don’t tides stop?", "why don't tides stop"),
            ("Remove a user from a group", "Delete a user from one group"),
            ("What does HTTP mean?", "Please tell me what HTTP means."),
            ("Was ist ein Wehr?", "Sag mir, was ein Wehr ist."),
            ("", ""),
        ] {
            assert!(agree(one, other), "{one} / {other}");
        }
    }

    #[test]
    fn texts_that_differ_in_what_a_vector_hardly_tells_do_not() {
        for (rule, one, other) in [
            ("numbers", "What is 17 times 3?", "What is 17 times 4?"),
            ("numbers in order", "Convert 3 pounds to 5 stones", "Convert 5 pounds to 3 stones"),
            ("a number more", "List the kings", "List the 3 kings"),
            ("signs", "Is -5 even?", "Is 5 even?"),
            ("operators", "What is a + b?", "What is a - b?"),
            ("decimals", "Round 3.14", "Round 314"),
            ("dates", "Who ruled on 2024-05-01?", "Who ruled on 2024-05-10?"),
            ("versions", "What is new in v2.1?", "What is new in v2.2?"),
            ("flags", "What does --max-cost do?", "What does --max-heads do?"),
            ("paths", "Explain internal/awsconf", "Explain internal/executor"),
            ("identifiers", "Explain read_file", "Explain read_dir"),
            ("addresses", "Who is a@example.com?", "Who is b@example.com?"),
            ("acronyms", "What is our refund window for EU orders?", "What is our refund window for US orders?"),
            ("negation", "Is it safe to eat?", "Is it not safe to eat?"),
            ("contracted negation", "Why does it work?", "Why doesn't it work?"),
            ("opposites", "How do I turn on dark mode?", "How do I turn off dark mode?"),
            ("opposites", "How do I enable it?", "How do I disable it?"),
            ("opposites", "Is port ssh open by default?", "Is port ssh closed by default?"),
            ("negation in German", "Warum geht es?", "Warum geht es nicht?"),
            ("negation in French", "Il vient ?", "Il ne vient pas ?"),
            ("roles", "Did Alice sue Bob?", "Did Bob sue Alice?"),
            ("directions", "Flights from Rome to Oslo", "flights from Oslo to Rome"),
        ] {
            assert!(!agree(one, other), "{rule}: {one} / {other}");
        }
    }

    #[test]
    fn nothing_of_a_text_is_shown() {
        assert!(!format!("{:?}", Wording::of("secret")).contains("secret"));
    }
}
