//! Opened: a request's JSON as one tree of borrowed values, unless that would take memory out of all proportion to its text.
//!
//! A value takes thirty-two bytes, and a list at least four of them, while an empty list is two bytes of text: eight
//! megabytes of brackets would fill a small container. A body with so many values is forwarded like any other, and not
//! read. Knows no API.

use memchr::memchr2;
use serde_json_borrow::Value;

/// Room for values, in values: 16 MiB of them, and three times that in an object. The largest request that an API takes,
/// 300,000 token numbers to embed, needs a little more than half of it.
const ROOM: usize = 1 << 19;
/// What a list or an object takes beside what is in it: one that grows has room for four at first.
const LIST: usize = 4;
/// What is shorter cannot take much, whatever it is, and is not looked through.
const SHORT: usize = 128 << 10;

/// `text` as a tree; `None` if it is no JSON, nests too deep, or has too many values.
pub(super) fn opened(text: &[u8]) -> Option<Value<'_>> {
    if text.len() > SHORT && room_for(text) > ROOM { None } else { serde_json::from_slice(text).ok() }
}

/// The room that `text` takes, told from its punctuation outside of texts.
fn room_for(text: &[u8]) -> usize {
    let (mut room, mut at) = (0, 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_text(text, at),
            b',' => room += 1,
            b'[' | b'{' => room += LIST,
            _ => {}
        }
    }
    room
}

/// Behind the quote that ends the text which begins at `at`; the end of all, if there is none.
fn end_of_text(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        // Whatever is escaped ends nothing.
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;

    use super::*;

    #[test]
    fn room_is_told_from_what_stands_outside_of_texts() {
        for (text, room) in [
            ("null", 0),
            ("[]", 4),
            ("[1,2,3]", 6),
            (r#"{"a":[],"b":{}}"#, 13),
            (r#"["a,[{,","\\",",\",["]"#, 6),
            (r#"["a\"#, 4),
            (r#"["a"#, 4),
            ("", 0),
        ] {
            assert_eq!(room_for(text.as_bytes()), room, "{text}");
        }
    }

    #[test]
    fn no_body_takes_memory_out_of_all_proportion() {
        const MOST: u64 = 64 << 20;
        let body = |piece: &str, bytes: usize| format!("[{}0]", piece.repeat(bytes / piece.len())).into_bytes();
        let nested = format!("{}{},", "[".repeat(100), "]".repeat(100));
        for piece in ["0,", "[],", "{},", "\"\",", "{\"\":0},", &nested] {
            for bytes in [SHORT, 1 << 20, 2 << 20, 4 << 20, 8 << 20] {
                let body = body(piece, bytes);
                let held = measure(|| drop(opened(&body)));
                assert!(held.bytes_max <= MOST, "{piece}: {} of {bytes}", held.bytes_max);
            }
            assert!(opened(&body(piece, 8 << 20)).is_none(), "{piece}");
        }
        let members = format!("{{{}\"\":0}}", "\"\":0,".repeat(ROOM - 100));
        let held = measure(|| assert!(opened(members.as_bytes()).is_some()));
        assert!(held.bytes_max <= MOST, "{}", held.bytes_max);
        let tokens = format!("{{\"input\":[{}0]}}", "100000,".repeat(300_000));
        assert!(opened(tokens.as_bytes()).is_some(), "what an API takes is read");
        let prompt = format!("{{\"prompt\":\"{}\"}}", "[1,{2,\\\"3,".repeat(500_000));
        assert!(opened(prompt.as_bytes()).is_some(), "a text may say what it likes");
    }
}
