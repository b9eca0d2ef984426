//! Opened: a request's JSON as one tree of borrowed values, unless that would take memory out of all proportion to its text.
//!
//! Nearly all of a long request is a few long texts, and to read one is to find what ends it or is escaped in it, a vector at
//! a time, in one pass. Numbers that are not short and whole are left to `serde_json`, which reads the same JSON, to the
//! letter.
//!
//! A value takes thirty-two bytes, and a list at least four of them, while an empty list is two bytes of text: eight
//! megabytes of brackets would fill a small container. A body with so many values is forwarded like any other, and not
//! read. Knows no API.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::value::Error;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json_borrow::Value;

/// Room for values, in values: 16 MiB of them, and three times that in an object. The largest request that an API takes,
/// 300,000 token numbers to embed, needs a little more than half of it.
const ROOM: usize = 1 << 19;
/// What a list or an object takes beside what is in it: one that grows has room for four at first.
const LIST: usize = 4;
/// How deep lists and objects may lie in each other, less one: as deep as `serde_json` reads.
const DEPTH: usize = 128;
/// The longest number that is read here: any number of so many digits is a `u64`.
const DIGITS: usize = 19;

/// `text` as a tree; `None` if it is no JSON, nests too deep, or has too many values.
#[must_use]
pub fn opened(text: &[u8]) -> Option<Value<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    // Looked at to its end, which a vector at a time is quicker than stopping early. Nearly no request has any.
    let has_controls = text.bytes().fold(u8::MAX, u8::min) < b' ';
    let mut rest = Rest { text, at: 0, room: ROOM, depth: DEPTH, has_controls };
    let value = Value::deserialize(&mut rest).ok()?;
    rest.next().is_none().then_some(value)
}

/// A text that is read up to a place outside of its texts.
struct Rest<'t> {
    text: &'t str,
    at: usize,
    /// What may still come.
    room: usize,
    depth: usize,
    /// Whether there is any control character: beside line feeds and their likes between values, there must be none.
    has_controls: bool,
}

impl<'t> Rest<'t> {
    /// The next byte that is no white space, which stays.
    fn next(&mut self) -> Option<u8> {
        loop {
            match *self.text.as_bytes().get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Goes on behind `word`, if that is next.
    fn pass(&mut self, word: &str) -> Result<(), Error> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Error::custom("no JSON"));
        }
        self.at += word.len();
        Ok(())
    }

    fn take_room(&mut self, values: usize) -> Result<(), Error> {
        self.room = self.room.checked_sub(values).ok_or_else(|| Error::custom("too many values"))?;
        Ok(())
    }

    /// A list or an object, whose items `items` brings.
    fn inside<T>(&mut self, items: impl FnOnce(Items<'_, 't>) -> Result<T, Error>) -> Result<T, Error> {
        self.at += 1;
        self.take_room(LIST)?;
        self.depth -= 1;
        if self.depth == 0 {
            return Err(Error::custom("nests too deep"));
        }
        let all = items(Items { rest: self, is_first: true })?;
        self.depth += 1;
        Ok(all)
    }

    /// The text that is next: borrowed where it is spelt as it reads.
    fn text(&mut self) -> Result<Cow<'t, str>, Error> {
        self.pass("\"")?;
        let (begin, mut from, mut read) = (self.at, self.at, String::new());
        loop {
            let rest = self.text.as_bytes().get(from..).unwrap_or_default();
            let found = from + memchr2(b'"', b'\\', rest).ok_or_else(|| Error::custom("a text without an end"))?;
            let piece = &self.text[from..found];
            if self.has_controls && piece.bytes().any(|byte| byte < b' ') {
                return Err(Error::custom("a control character in a text"));
            }
            self.at = found + 1;
            let is_end = self.text.as_bytes()[found] == b'"';
            if is_end && from == begin {
                return Ok(Cow::Borrowed(piece));
            }
            read.push_str(piece);
            if is_end {
                return Ok(Cow::Owned(read));
            }
            read.push(self.escaped()?);
            from = self.at;
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, Error> {
        let name = self.text.as_bytes().get(self.at);
        self.at += 1;
        Ok(match name {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.code_point().ok_or_else(|| Error::custom("no character")),
            _ => return Err(Error::custom("an escape that there is not")),
        })
    }

    /// The character whose number in hexadecimal digits is next: beyond the first plane, two halves of it.
    fn code_point(&mut self) -> Option<char> {
        let first = self.code_unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first.into());
        }
        self.pass("\\u").ok()?;
        char::decode_utf16([first, self.code_unit()?]).next()?.ok()
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit: u16, digit| {
            let digit = char::from(*digit).to_digit(16).and_then(|digit| u16::try_from(digit).ok())?;
            Some(unit * 16 + digit)
        })
    }

    fn number<V: Visitor<'t>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let rest = &self.text[self.at..];
        let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let number = &rest[..rest.bytes().take_while(|byte| is_of_number(byte)).count()];
        self.at += number.len();
        let is_whole = number.len() <= DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_whole && (number == "0" || !number.starts_with('0')) {
            return number.parse().map_err(Error::custom).and_then(|number| visitor.visit_u64(number));
        }
        let mut number = serde_json::Deserializer::from_str(number);
        let value = number.deserialize_any(visitor).map_err(Error::custom)?;
        number.end().map_err(Error::custom)?;
        Ok(value)
    }
}

impl<'t> Deserializer<'t> for &mut Rest<'t> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.next() {
            Some(b'"') => match self.text()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            Some(b'{') => self.inside(|members| visitor.visit_map(members)),
            Some(b'[') => self.inside(|items| visitor.visit_seq(items)),
            Some(b't') => self.pass("true").and_then(|()| visitor.visit_bool(true)),
            Some(b'f') => self.pass("false").and_then(|()| visitor.visit_bool(false)),
            Some(b'n') => self.pass("null").and_then(|()| visitor.visit_unit()),
            Some(_) => self.number(visitor),
            None => Err(Error::custom("nothing")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What is in a list or an object, one after the other.
struct Items<'r, 't> {
    rest: &'r mut Rest<'t>,
    is_first: bool,
}

impl Items<'_, '_> {
    /// Goes on to the next one, or behind `end`; whether there is one.
    fn has_next(&mut self, end: u8) -> Result<bool, Error> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        match self.rest.next() {
            Some(byte) if byte == end => {
                self.rest.at += 1;
                Ok(false)
            }
            Some(b',') if !is_first => {
                self.rest.at += 1;
                self.rest.take_room(1)?;
                Ok(true)
            }
            Some(_) if is_first => Ok(true),
            _ => Err(Error::custom("a list without an end")),
        }
    }
}

impl<'t> SeqAccess<'t> for Items<'_, 't> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.has_next(b']')? { seed.deserialize(&mut *self.rest).map(Some) } else { Ok(None) }
    }
}

impl<'t> MapAccess<'t> for Items<'_, 't> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.has_next(b'}')? {
            return Ok(None);
        }
        if self.rest.next() != Some(b'"') {
            return Err(Error::custom("a member without a name"));
        }
        seed.deserialize(&mut *self.rest).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<T::Value, Error> {
        self.rest.next();
        self.rest.pass(":")?;
        seed.deserialize(&mut *self.rest)
    }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;

    use super::*;

    /// Text that has all that JSON has, and what it has not.
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n\t\r",
        "\"\"",
        "\"a\"",
        "\"a b, {[\"",
        "\"\\\"\"",
        "\"\\u00e4\\n\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\\u0041\"",
        "\"\\udc00\"",
        "\"\\u00E4\\u000\"",
        "\"\\/\\b\\f\\r\\t\\\\\"",
        "\"\\x\"",
        "\"\\u+123\"",
        "\"ü\"",
        "\"\u{1}\"",
        "\"\n\"",
        "\"\\\n\"",
        "\"",
        "\\",
        "0",
        "-0",
        "00",
        "1",
        "17",
        "-3",
        "+1",
        "1.",
        ".5",
        "1.50",
        "1e3",
        "1E+2",
        "1e400",
        "-1e-400",
        "9999999999999999999",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "true",
        "false",
        "null",
        "nul",
        "truefalse",
        "\u{a0}",
        "\u{feff}",
        "\"k\":",
        "\"\\u006b\":",
        "{\"a\":[",
        "]}",
        "/**/",
        "x",
    ];

    /// What both make of it, which says how numbers are held as well.
    fn both(text: &[u8]) -> [Option<String>; 2] {
        let known: Option<Value<'_>> = serde_json::from_slice(text).ok();
        [opened(text), known].map(|value| value.map(|value| format!("{value:?}")))
    }

    #[test]
    fn it_is_the_json_that_serde_json_reads() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |most: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).expect("31 bits") % most
        };
        let mut read = 0;
        for _ in 0..50_000 {
            let text: String = (0..=below(8)).map(|_| PIECES[below(PIECES.len())]).collect();
            let [found, known] = both(text.as_bytes());
            assert_eq!(found, known, "{text}");
            read += usize::from(known.is_some());
        }
        assert!(read > 1_000, "{read} of them were JSON");
        for piece in PIECES {
            for text in [
                (*piece).to_owned(),
                format!("[{piece}]"),
                format!("{{\"a\":{piece}}}"),
                format!("[1,{piece} ,\"b\"]"),
                format!("{{\"a\" : [{piece}],\"a\":{{\"b\":{piece}}} }}"),
            ] {
                let [found, known] = both(text.as_bytes());
                assert_eq!(found, known, "{text}");
            }
        }
        for depth in [126, 127, 128, 129] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let [found, known] = both(text.as_bytes());
            assert_eq!(found, known, "{depth} deep");
        }
        assert_eq!(both(b"[\"\xff\"]"), [None, None], "no UTF-8");
    }

    #[test]
    fn a_long_text_is_borrowed_and_nothing_else_is_held() {
        let body = format!("{{\"prompt\":\"{}\"}}", "ü, ".repeat(300_000));
        let held = measure(|| assert!(opened(body.as_bytes()).is_some()));
        assert!(held.bytes_max < 1024, "{}", held.bytes_max);
    }

    #[test]
    fn no_body_takes_memory_out_of_all_proportion() {
        const MOST: u64 = 64 << 20;
        let body = |piece: &str, bytes: usize| format!("[{}0]", piece.repeat(bytes / piece.len())).into_bytes();
        let nested = format!("{}{},", "[".repeat(100), "]".repeat(100));
        for piece in ["0,", "[],", "{},", "\"\",", "{\"\":0},", &nested] {
            for bytes in [128 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20] {
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
