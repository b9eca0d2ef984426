//! Content: what was said in a call, where the operator wants that kept. As it came; whoever keeps it leaves out what must
//! not stay.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of what is said in calls is kept. What is listed first is more private.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Nothing.
    #[default]
    None,
    /// Text, less personal data and keys as far as they are found.
    Redacted,
    /// All of it.
    Full,
}

/// What was said.
#[derive(Clone, Debug)]
pub struct Content {
    /// What is to be kept of it: not nothing.
    pub capture: Capture,
    /// What the app asked, as it wrote it. `None` where it was not read.
    pub request: Option<Text>,
    /// What it was answered: a body as the provider wrote it; of a stream, the texts of its events, joined. `None` where
    /// there was no answer, or none that was read.
    pub response: Option<Text>,
}

impl Content {
    /// How many bytes of it are held.
    #[must_use]
    pub fn len(&self) -> usize {
        [&self.request, &self.response].into_iter().flatten().map(|text| text.bytes.len()).sum()
    }

    /// Whether nothing of it is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A text as far as it is kept, which may be cut within a character.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// Its beginning.
    pub bytes: Bytes,
    /// How long all of it is, in bytes, as far as that is known.
    pub length: u64,
}

impl Text {
    /// A copy of no more than `most` bytes of `text`, of which there were `length`.
    #[must_use]
    pub fn beginning(text: &[u8], length: u64, most: usize) -> Self {
        Self { bytes: Bytes::copy_from_slice(&text[..text.len().min(most)]), length }
    }

    /// Whether this is not all.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        (self.bytes.len() as u64) < self.length
    }
}

/// Shows how much there is, not what: prompts stay out of logs.
impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_kept_and_nothing_is_shown() {
        let (all, part) = (Text::beginning(b"secret", 6, 6), Text::beginning(b"secret", 6, 3));
        assert_eq!((&all.bytes[..], all.is_cut()), (&b"secret"[..], false));
        assert_eq!((&part.bytes[..], part.is_cut()), (&b"sec"[..], true));
        assert!(!format!("{all:?}").contains("secret"));
        assert!(Capture::None < Capture::Redacted && Capture::Redacted < Capture::Full);
    }
}
