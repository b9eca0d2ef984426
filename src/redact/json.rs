//! JSON: text in JSON, redacted as it is written. Each string is read as what it says, redacted, and written again; what
//! lies between stays as it is, but for numbers that are what is looked for.
//!
//! Nothing is parsed as a whole, so what was cut off, or has a mistake in it, is redacted all the same; and nothing is
//! moved. Redacting JSON as plain text instead would miss what its escapes hide, and break them.

use std::borrow::Cow;
use std::ops::Range;

use crate::redact::Redactor;
use crate::redact::kinds::{self, Kind};

/// No number with fewer digits is a kind of number that is looked for.
const FEWEST_DIGITS: usize = 9;
/// The longest piece of a character's escape that may be left where text was cut off: all but the last of `\ud83d\ude00`.
const MAX_TORN_BYTES: usize = 11;

impl Redactor {
    /// JSON `text` without what must not stay. A string whose name says that it is a key or a password goes whole.
    #[must_use]
    pub fn redact_json<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let (mut kept, mut end) = (String::new(), 0);
        let mut replace = |at: Range<usize>, by: &str| {
            kept.push_str(&text[end..at.start]);
            kept.push_str(&serde_json::Value::from(by).to_string());
            end = at.end;
        };
        let mut name = None;
        for token in (Tokens { text, at: 0 }) {
            match token {
                Token::String(at) => {
                    let said = unescaped(&text[at.clone()]);
                    if let Cow::Owned(without) = self.redact_named(name.take().as_deref(), &said) {
                        replace(at.clone(), &without);
                    }
                    name = is_name(&text[at.end..]).then_some(said);
                }
                Token::Number(at) => {
                    if let Cow::Owned(without) = self.redact(&text[at.clone()]) {
                        replace(at, &without);
                    }
                    name = None;
                }
            }
        }
        if end == 0 {
            return Cow::Borrowed(text);
        }
        kept.push_str(&text[end..]);
        Cow::Owned(kept)
    }

    fn redact_named<'t>(&self, name: Option<&str>, said: &'t str) -> Cow<'t, str> {
        match self.redact(said) {
            Cow::Borrowed(_) if name.is_some_and(|name| kinds::is_named_secret(name, said)) => {
                Cow::Owned(self.instead_of(Kind::Secret))
            }
            without => without,
        }
    }
}

/// What may have to go.
enum Token {
    /// With its quotes, as far as they are there.
    String(Range<usize>),
    /// One that is long enough.
    Number(Range<usize>),
}

struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let bytes = self.text.as_bytes();
        loop {
            let from = self.at + bytes[self.at..].iter().position(|byte| *byte == b'"' || byte.is_ascii_digit())?;
            let is_string = bytes[from] == b'"';
            let end = if is_string { end_of_string(bytes, from + 1) } else { end_of_number(bytes, from) };
            self.at = end;
            if is_string {
                return Some(Token::String(from..end));
            }
            if end - from >= FEWEST_DIGITS {
                return Some(Token::Number(from..end));
            }
        }
    }
}

fn end_of_number(bytes: &[u8], from: usize) -> usize {
    let length = bytes[from..].iter().position(|byte| !byte.is_ascii_digit());
    length.map_or(bytes.len(), |length| from + length)
}

/// Behind the quote that ends the string whose text begins at `at`; the end of all if there is none.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What a string says; where it is none that JSON knows, what is written.
fn unescaped(written: &str) -> Cow<'_, str> {
    let inner = &written[1..];
    let is_whole = end_of_string(inner.as_bytes(), 0) == inner.len() && inner.ends_with('"');
    let inner = if is_whole { &inner[..inner.len() - 1] } else { inner };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let torn = if is_whole { 0 } else { MAX_TORN_BYTES };
    (0..=torn.min(inner.len()))
        .filter_map(|torn| inner.get(..inner.len() - torn))
        .find_map(|inner| serde_json::from_str::<String>(&format!("\"{inner}\"")).ok())
        .map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// Whether what stood before `rest` names what follows.
fn is_name(rest: &str) -> bool {
    rest.trim_ascii_start().starts_with(':')
}
