//! Output: what a reply generated, kept (up to a limit) for the case that the reply does not say how many tokens it was.
//!
//! Text, reasoning, refusals and the arguments of tool calls, one after the other. Knows no tokenizer.

use std::fmt;

/// How much is kept as text. What follows is only measured: an estimate goes on from what was kept.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// What was generated so far.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Output {
    text: String,
    /// All bytes generated, kept or not.
    bytes: u64,
}

impl Output {
    /// Adds a piece of text.
    pub fn push(&mut self, piece: &str) {
        self.bytes += piece.len() as u64;
        if self.text.len() + piece.len() <= MAX_TEXT_BYTES {
            self.text.push_str(piece);
        }
    }

    /// What was kept.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of all that was generated, kept or not.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Shows how much there is, not what: completions stay out of logs.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_still_measured_and_nothing_is_shown() {
        let mut output = Output::default();
        let piece = "secret ".repeat(MAX_TEXT_BYTES / 14);
        for _ in 0..3 {
            output.push(&piece);
        }
        assert_eq!(output.text().len(), 2 * piece.len());
        assert_eq!(output.bytes(), 3 * piece.len() as u64);
        assert!(!format!("{output:?}").contains("secret"));
    }
}
