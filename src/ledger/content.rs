//! Content: what is kept of what was said in a call, made of what was seen of it. Takes as long as it takes to read a text
//! twice: for the ledger's own thread, never for a call.

use std::borrow::Cow;

use crate::record::content::{Capture, Content, Text};
use crate::redact::Redactor;

/// What is kept of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of what the app asked.
    pub request: Option<Vec<u8>>,
    /// Of what it was answered.
    pub response: Option<Vec<u8>>,
}

impl Kept {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        [&self.request, &self.response].into_iter().flatten().map(Vec::len).sum()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is kept of `content`. What is not text, and so could not be looked at, is kept only where all of it is. What is cut
/// says so at its end.
#[must_use]
pub fn kept(content: &Content, redactor: &Redactor) -> Kept {
    let keep = |text: &Option<Text>| {
        let text = text.as_ref()?;
        let bytes = match content.capture {
            Capture::None => return None,
            Capture::Full => text.bytes.to_vec(),
            Capture::Redacted => redacted(text, redactor)?.into_bytes(),
        };
        Some(if text.is_cut() { [&bytes, mark(text).as_bytes()].concat() } else { bytes })
    };
    Kept { request: keep(&content.request), response: keep(&content.response) }
}

/// The same, compressed: as it is written down.
#[cfg(feature = "ledger")]
#[must_use]
pub fn packed(kept: Kept) -> Kept {
    // Where it cannot be compressed, memory has run out: then nothing is kept.
    let pack = |text: Option<Vec<u8>>| zstd::bulk::compress(&text?, zstd::DEFAULT_COMPRESSION_LEVEL).ok();
    Kept { request: pack(kept.request), response: pack(kept.response) }
}

fn redacted(text: &Text, redactor: &Redactor) -> Option<String> {
    let readable = match std::str::from_utf8(&text.bytes) {
        Ok(readable) => readable,
        // Cut within a character.
        Err(error) if text.is_cut() && error.error_len().is_none() => {
            std::str::from_utf8(&text.bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    // Half a key looks like none.
    let readable = if text.is_cut() { without_last_word(readable) } else { readable };
    let is_json = readable.trim_start().starts_with(['{', '[', '"']);
    let redacted = if is_json { redactor.redact_json(readable) } else { redactor.redact(readable) };
    Some(Cow::into_owned(redacted))
}

/// The longest word that is left out because it may go on.
const MAX_WORD_BYTES: usize = 512;

fn without_last_word(text: &str) -> &str {
    let from = text.floor_char_boundary(text.len().saturating_sub(MAX_WORD_BYTES));
    let last = text[from..].rfind(char::is_whitespace).unwrap_or(0);
    &text[..from + last]
}

fn mark(text: &Text) -> String {
    format!("\n[cut: {} bytes in all]", text.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(said: &str) -> Text {
        Text::beginning(said.as_bytes(), said.len() as u64, said.len())
    }

    fn kept_of(capture: Capture, request: Option<Text>) -> Option<Vec<u8>> {
        let redactor = Redactor::new(&[]).expect("what weir knows");
        kept(&Content { capture, request, response: None }, &redactor).request
    }

    #[test]
    fn as_much_is_kept_as_the_operator_wants() {
        let json = r#"{"content":"a\njane@example.com","n":1}"#;
        for (rule, capture, said, expected) in [
            ("nothing", Capture::None, json, None),
            ("all", Capture::Full, json, Some(json)),
            ("JSON", Capture::Redacted, json, Some(r#"{"content":"a\n[redacted:email]","n":1}"#)),
            ("text", Capture::Redacted, "I am jane@example.com", Some("I am [redacted:email]")),
            ("nothing to redact", Capture::Redacted, "I am", Some("I am")),
        ] {
            let kept = kept_of(capture, Some(text(said)));
            assert_eq!(kept.as_deref(), expected.map(str::as_bytes), "{rule}");
        }
        assert_eq!(kept_of(Capture::Full, None), None);
    }

    #[test]
    fn what_is_cut_says_so_and_leaves_no_half_a_secret() {
        let said = "card 4111-1111-1111-1111 jane@example.com".as_bytes();
        for (most, full, redacted) in
            [(21, "card 4111-1111-1111-1", "card"), (29, "card 4111-1111-1111-1111 jane", "card [redacted:card]")]
        {
            let cut = || Some(Text::beginning(said, said.len() as u64, most));
            let marked = |kept: &str| Some(format!("{kept}\n[cut: 41 bytes in all]").into_bytes());
            assert_eq!(kept_of(Capture::Full, cut()), marked(full));
            assert_eq!(kept_of(Capture::Redacted, cut()), marked(redacted));
        }
        let wide = "ü ü".as_bytes();
        assert_eq!(
            kept_of(Capture::Redacted, Some(Text::beginning(wide, 5, 4))),
            Some("ü\n[cut: 5 bytes in all]".into())
        );
    }

    #[test]
    fn what_is_no_text_is_kept_whole_or_not_at_all() {
        let picture = || Some(Text::beginning(&[0x89, b'P', 0xff, b'G'], 4, 4));
        assert_eq!(kept_of(Capture::Redacted, picture()), None);
        assert_eq!(kept_of(Capture::Full, picture()).as_deref(), Some(&[0x89, b'P', 0xff, b'G'][..]));
    }
}
