//! Wording: what of a question makes it another one. White space, case and the time of day do not: they change by
//! themselves, from one call of a stuck loop to the next. Numbers do: they tell one item of a list from the next.

use crate::record::fingerprint::Fingerprint;

/// How much of a question is read. What is longer is told by its beginning and its length.
const MAX_BYTES: usize = 64 << 10;

/// The wording of a question, taken in piece by piece.
#[derive(Debug, Default)]
pub struct Wording {
    print: Fingerprint,
    bytes: usize,
}

impl Wording {
    /// Adds a text of the question.
    pub fn push(&mut self, text: &str) {
        let left = MAX_BYTES.saturating_sub(self.bytes);
        self.bytes = self.bytes.saturating_add(text.len());
        let read = (0..=left.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        for word in text[..read].split_whitespace().filter(|word| !is_time(word)) {
            if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
                self.print.push(word.to_ascii_lowercase().as_bytes());
            } else {
                self.print.push(word.as_bytes());
            }
            self.print.seam();
        }
        self.print.seam();
    }

    /// Whether nothing was said.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Its fingerprint.
    #[must_use]
    pub fn finish(mut self) -> Fingerprint {
        if self.bytes > MAX_BYTES {
            self.print.push(&self.bytes.to_le_bytes());
        }
        self.print
    }
}

/// A time of day, with or without a date: `17:03`, `(17:03:22.5)`, `2026-11-21T17:03:22Z`.
fn is_time(word: &str) -> bool {
    let word = word.trim_matches(|letter: char| letter.is_ascii_punctuation());
    let Some((before, after)) = word.split_once(':') else { return false };
    let is_number = |digits: Option<&[u8]>| digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    let hour = before.as_bytes().last_chunk::<2>().map(<[u8; 2]>::as_slice);
    let minute = after.as_bytes().first_chunk::<2>().map(<[u8; 2]>::as_slice);
    let of_time = |letter: u8| letter.is_ascii_digit() || b":.-+TZ".contains(&letter);
    is_number(hour) && is_number(minute) && word.bytes().all(of_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Fingerprint {
        let mut wording = Wording::default();
        for text in texts {
            wording.push(text);
        }
        wording.finish()
    }

    #[test]
    fn what_changes_by_itself_does_not_make_another_question() {
        for (rule, one, other) in [
            ("equal", &["Is it done?"][..], &["Is it done?"][..]),
            ("white space", &["Is it\n\n done? "], &["Is it done?"]),
            ("case", &["IS IT done?"], &["is it done?"]),
            ("the time of day", &["At 17:03, is it done?"], &["At 17:04, is it done?"]),
            ("with seconds", &["(17:03:22.5) done?"], &["(09:00:01) done?"]),
            ("with a date", &["Now: 2026-11-21T17:03:22Z Done?"], &["Now: 2026-11-22T00:00:00+01:00 Done?"]),
        ] {
            assert_eq!(of(one), of(other), "{rule}");
        }
    }

    #[test]
    fn whatever_says_something_else_does() {
        let long = "x".repeat(MAX_BYTES);
        let (longer, long_and_other) = (format!("{long}y"), format!("{long}yz"));
        for (rule, one, other) in [
            ("words", &["Is it done?"][..], &["Is it red?"][..]),
            ("numbers", &["Read page 1"], &["Read page 2"]),
            ("dates", &["What was on 2026-11-21?"], &["What was on 2026-11-22?"]),
            ("ratios", &["Mix 1:2"], &["Mix 1:3"]),
            ("verses", &["Read John 3:16b"], &["Read John 3:17b"]),
            ("addresses", &["Ask host:8080"], &["Ask host:8081"]),
            ("order", &["a b"], &["b a"]),
            ("where texts end", &["a b"], &["a", "b"]),
            ("a text more", &["a"], &["a", ""]),
            ("length, beyond what is read", &[&longer], &[&long_and_other]),
        ] {
            assert_ne!(of(one), of(other), "{rule}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let wide = "é".repeat(MAX_BYTES);
        assert_eq!(of(&["a", &wide]), of(&["a", &wide]));
    }
}
