//! Text: words that read like a model's, always the same for the same seed.
//!
//! Knows nothing of APIs, tokens or time.

use super::dice::Dice;

/// A number that stands for these bytes: FNV-1a, which gives the same on every machine and in every version.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Two digests in this order, as one.
pub(super) fn join(left: u64, right: u64) -> u64 {
    Dice::new(left.rotate_left(17) ^ right).next()
}

/// An answer of four to nine sentences.
pub(super) fn answer(dice: &mut Dice) -> String {
    let sentences = 2 + dice.below(6);
    let mut text = String::from(dice.pick(OPENINGS));
    add(&mut text, dice, BODIES, sentences);
    add(&mut text, dice, CLOSINGS, 1);
    text
}

/// `sentences` sentences of somebody thinking aloud.
pub(super) fn thought(dice: &mut Dice, sentences: u64) -> String {
    let mut text = String::from("Let me think about what is being asked.");
    add(&mut text, dice, THOUGHTS, sentences);
    text
}

fn add(text: &mut String, dice: &mut Dice, from: &[&str], sentences: u64) {
    for _ in 0..sentences {
        text.push(' ');
        text.push_str(dice.pick(from));
    }
}

/// The text in the pieces a stream sends it in: a word with the space before it, or a part of a very long one.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    const LONGEST: usize = 16;
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest
            .char_indices()
            .skip(1)
            .enumerate()
            .find(|(count, (_, letter))| *letter == ' ' || count + 1 == LONGEST)
            .map_or(rest.len(), |(_, (at, _))| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

const OPENINGS: &[&str] = &[
    "Here is a short answer to your question.",
    "Good question; there are a few things to look at.",
    "In short, yes, with two conditions worth knowing.",
    "The summary is simple, and the details are below.",
    "This comes up often, so here is how I would approach it.",
    "Based on what you have described, I would start small.",
];

const BODIES: &[&str] = &[
    "Begin with the smallest change that could work, and measure it before you go on.",
    "The numbers you have so far point to the second option rather than the first.",
    "Most of the time is spent waiting for the network, so fewer and larger requests will help.",
    "Keep the original records as they are and write the corrected ones beside them.",
    "If two customers report the same problem, it is usually the same cause.",
    "You can read the rest of the document later; the first three sections are what matters here.",
    "The agreement renews every twelve months unless one of the parties gives notice in writing.",
    "A table with three columns is enough: the name, the date and the amount.",
    "Check that the clock on both machines agrees before comparing their logs.",
    "When the queue is full, refuse new work early instead of letting everything become slow.",
    "The translation keeps the tone of the original, though one idiom has no direct equivalent.",
    "Store the answer once and reuse it: the same question is asked many times a day.",
    "Sort the list by priority first, then by the day each item was opened.",
    "The message is polite and clear, but the request itself only appears in the last line.",
    "Revenue grew by about four percent, while the cost of support stayed nearly flat.",
    "Write one test for the rule and one for its exception, and name them after the rule.",
    "The delivery left the warehouse on Tuesday and should arrive within two working days.",
    "Add an index on the column you filter by, and the query no longer reads the whole table.",
];

const CLOSINGS: &[&str] = &[
    "Let me know if you would like an example.",
    "I can go into more detail on any of these points.",
    "If that does not fit your case, tell me a little more about it.",
    "That should be enough to take the next step.",
];

const THOUGHTS: &[&str] = &[
    "The question has two parts, and the second depends on the first.",
    "I should check the edge cases before I commit to an answer.",
    "One way would be to list the options and compare them.",
    "The simplest reading is probably the one that was meant.",
    "That would contradict what was said earlier, so it cannot be right.",
    "I can leave the details out and keep the answer short.",
    "An example would make this easier to follow.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_says_the_same() {
        assert_eq!(answer(&mut Dice::new(7)), answer(&mut Dice::new(7)));
        assert_ne!(answer(&mut Dice::new(7)), answer(&mut Dice::new(8)));
    }

    #[test]
    fn pieces_add_up_to_the_text() {
        for text in
            ["", "one", "two words", " lead", "a  double", "überaus lange Wörter: Donaudampfschifffahrtsgesellschaft"]
        {
            assert_eq!(pieces(text).collect::<String>(), text);
        }
        assert_eq!(pieces("two words").collect::<Vec<_>>(), ["two", " words"]);
    }
}
