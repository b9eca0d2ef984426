//! Alike: events of a stream that say what an earlier one said, but for one text. Nearly all that a model writes comes in
//! such: reading one of them is comparing it. Knows no format.

use std::ops::Range;

/// The longest event that is remembered, without its text: no vendor's fragment of a sentence comes with more around it.
const MAX_BYTES: usize = 4 << 10;

/// An event, less the text in it that the next ones may have another of.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// What it begins with, up to the quotation mark before the text. Nothing, where none is remembered.
    before: Vec<u8>,
    /// What it ends with, from the quotation mark after the text on.
    after: Vec<u8>,
}

impl Alike {
    /// Remembers `event`, JSON in which the string at `text`, without its quotation marks, is all that may differ.
    pub(super) fn remember(&mut self, event: &[u8], text: Range<usize>) {
        self.before.clear();
        self.after.clear();
        let parts = event.get(..text.start).zip(event.get(text.end..));
        if let Some((before, after)) = parts.filter(|(before, after)| before.len() + after.len() <= MAX_BYTES) {
            self.before.extend_from_slice(before);
            self.after.extend_from_slice(after);
        }
    }

    /// The text of `event`, if it differs from the one that is remembered in nothing else. Never an empty one, nor one that is
    /// not spelt as it reads: JSON that has the same bytes around a text of which none ends it says the same beside it.
    pub(super) fn text_of<'e>(&self, event: &'e [u8]) -> Option<&'e str> {
        if self.before.is_empty() {
            return None;
        }
        let text = event.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let is_plain = !text.is_empty() && text.iter().all(|byte| !matches!(byte, b'"' | b'\\' | ..0x20));
        std::str::from_utf8(text).ok().filter(|_| is_plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_in_the_text_alone_is_alike() {
        let mut alike = Alike::default();
        assert_eq!(alike.text_of(br#"{"a":1,"text":"one","b":2}"#), None, "nothing is remembered");
        alike.remember(br#"{"a":1,"text":"one","b":2}"#, 15..18);
        for (rule, event, text) in [
            ("the same", &br#"{"a":1,"text":"one","b":2}"#[..], Some("one")),
            ("another text", br#"{"a":1,"text":"two, three","b":2}"#, Some("two, three")),
            ("not only ASCII", r#"{"a":1,"text":"für","b":2}"#.as_bytes(), Some("für")),
            ("something else before it", br#"{"a":2,"text":"one","b":2}"#, None),
            ("something else behind it", br#"{"a":1,"text":"one","b":3}"#, None),
            ("more behind it", br#"{"a":1,"text":"one","b":2} "#, None),
            ("a member in its place", br#"{"a":1,"text":"one","c":"","b":2}"#, None),
            ("an escape", br#"{"a":1,"text":"o\ne","b":2}"#, None),
            ("a byte that JSON does not have in texts", b"{\"a\":1,\"text\":\"o\ne\",\"b\":2}", None),
            ("no UTF-8", b"{\"a\":1,\"text\":\"\xff\",\"b\":2}", None),
            ("no text", br#"{"a":1,"text":"","b":2}"#, None),
            ("the ends overlap", br#"{"a":1,"text":","b":2}"#, None),
        ] {
            assert_eq!(alike.text_of(event), text, "{rule}");
        }
        alike.remember(&[b' '; 2 * MAX_BYTES], 1..2);
        assert_eq!(alike.text_of(br#"{"a":1,"text":"one","b":2}"#), None, "too long to remember");
    }
}
