//! JSON: a text in memory, read by finding where its own texts end, a vector at a time.
//!
//! Nearly all of a long request or reply is a few long texts. What is borrowed is not copied; what is skipped is not read
//! beyond what tells where it ends. It is the JSON that `serde_json` reads, to the letter, as long as it is UTF-8; numbers that
//! are not short and whole are left to that. Knows no API.

use std::borrow::Cow;

use serde::de::value::{BorrowedStrDeserializer, Error};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json_borrow::Value;
use simdutf8::basic::from_utf8;
use wide::u8x16;

/// Room for values, in values: 16 MiB of them, and three times that in an object. The largest request that an API takes,
/// 300,000 token numbers to embed, needs a little more than half of it.
const ROOM: usize = 1 << 19;
/// What a list or an object takes beside what is in it: one that grows has room for four at first.
const LIST: usize = 4;
/// How deep lists and objects may lie in each other, less one: as deep as `serde_json` reads.
const DEPTH: usize = 128;
/// The longest number that is read here: any number of so many digits is a `u64`.
const DIGITS: usize = 19;
const QUOTATION_MARKS: u8x16 = u8x16::new([b'"'; 16]);
const BACKSLASHES: u8x16 = u8x16::new([b'\\'; 16]);
/// The last control character.
const CONTROLS: u8x16 = u8x16::new([b' ' - 1; 16]);
/// From this length on, in bytes, a text that is not spelt as it reads is handed over in the memory that it was read into. There is
/// room for as much from the beginning.
const LONG: usize = 4096;
/// How many times as much room a longer one is given as it has used up: at twice as much, all of it would be moved once more.
const GROWTH: usize = 16;
/// By this name [`serde_json::value::RawValue`] asks for a value as it is written.
const RAW: &str = "$serde_json::private::RawValue";

/// `text` as a `T`, which is no enum; `None` if it is no JSON, or no `T`.
#[must_use]
pub fn read<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Option<T> {
    Rest::of(from_utf8(text).ok()?, usize::MAX).whole()
}

/// `text` as one tree of borrowed values; `None` if it is no JSON, nests too deep, or has too many values.
///
/// A value takes thirty-two bytes, and a list at least four of them, while an empty list is two bytes of text: eight
/// megabytes of brackets would fill a small container.
#[must_use]
pub fn opened(text: &[u8]) -> Option<Value<'_>> {
    Rest::of(from_utf8(text).ok()?, ROOM).whole()
}

/// A text that is read up to a place outside of its texts.
struct Rest<'t> {
    text: &'t str,
    at: usize,
    /// What may still come.
    room: usize,
    depth: usize,
    /// A text that is not spelt as it reads, as far as it is read.
    spelt: String,
}

impl<'t> Rest<'t> {
    fn of(text: &'t str, room: usize) -> Self {
        Self { text, at: 0, room, depth: DEPTH, spelt: String::new() }
    }

    fn whole<T: Deserialize<'t>>(mut self) -> Option<T> {
        let value = T::deserialize(&mut self).ok()?;
        self.next().is_none().then_some(value)
    }

    /// What is to come. Nothing, where an error was met and somebody reads on all the same.
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

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
        if !self.rest().starts_with(word) {
            return Err(Error::custom("no JSON"));
        }
        self.at += word.len();
        Ok(())
    }

    fn take_room(&mut self, values: usize) -> Result<(), Error> {
        self.room = self.room.checked_sub(values).ok_or_else(|| Error::custom("too many values"))?;
        Ok(())
    }

    /// A list or an object that is closed by `end`, whose items `visit` takes.
    fn inside<T>(&mut self, end: u8, visit: impl FnOnce(&mut Items<'_, 't>) -> Result<T, Error>) -> Result<T, Error> {
        self.at += 1;
        self.take_room(LIST)?;
        self.depth -= 1;
        if self.depth == 0 {
            return Err(Error::custom("nests too deep"));
        }
        let mut items = Items { rest: self, end, is_first: true, is_over: false };
        let all = visit(&mut items)?;
        if items.has_next()? {
            return Err(Error::custom("more than was asked for"));
        }
        self.depth += 1;
        Ok(all)
    }

    /// The text that is next: borrowed where it is spelt as it reads.
    fn text(&mut self) -> Result<Cow<'t, str>, Error> {
        self.pass("\"")?;
        let piece = self.piece()?;
        if self.has_ended() {
            return Ok(Cow::Borrowed(piece));
        }
        self.spelt.clear();
        self.spell(piece);
        loop {
            let escaped = self.escaped()?;
            self.spelt.push(escaped);
            let piece = self.piece()?;
            self.spell(piece);
            if self.has_ended() {
                return Ok(Cow::Owned(self.spelt()));
            }
        }
    }

    /// Adds a piece to a text that is not spelt as it reads.
    #[inline]
    fn spell(&mut self, piece: &str) {
        if piece.len() > self.spelt.capacity() - self.spelt.len() {
            self.make_room(piece.len());
        }
        self.spelt.push_str(piece);
    }

    /// Makes room for so many more bytes of such a text, and for what may yet come.
    #[cold]
    fn make_room(&mut self, more: usize) {
        let length = self.spelt.len() + more;
        let room = if length < LONG { LONG } else { GROWTH * length };
        self.spelt.reserve_exact(room.min(length + self.rest().len()) - self.spelt.len());
    }

    /// The text that was spelt.
    fn spelt(&mut self) -> String {
        if self.spelt.len() < LONG {
            return self.spelt.clone();
        }
        let mut spelt = std::mem::take(&mut self.spelt);
        spelt.shrink_to_fit();
        spelt
    }

    /// Goes on behind the text that is next.
    fn skip_text(&mut self) -> Result<(), Error> {
        self.pass("\"")?;
        loop {
            self.piece()?;
            if self.has_ended() {
                return Ok(());
            }
            // What is skipped may be half a character.
            if self.text.as_bytes().get(self.at) == Some(&b'u') {
                self.at += 1;
                self.code_unit().ok_or_else(|| Error::custom("no number of a character"))?;
            } else {
                self.escaped()?;
            }
        }
    }

    /// What is next of a text, up to the quotation mark or the backslash behind it, which are passed.
    fn piece(&mut self) -> Result<&'t str, Error> {
        let rest = self.rest();
        let length = piece_length(rest.as_bytes()).ok_or_else(|| Error::custom("a text without an end"))?;
        if rest.as_bytes()[length] < b' ' {
            return Err(Error::custom("a control character in a text"));
        }
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// Whether what was passed last ends a text.
    fn has_ended(&self) -> bool {
        self.text.as_bytes()[self.at - 1] == b'"'
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
        let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?));
        unit.and_then(|unit| u16::try_from(unit).ok())
    }

    /// The number that is next, as it is written; nothing if none is.
    fn digits(&mut self) -> &'t str {
        let rest = self.rest();
        let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let number = &rest[..rest.bytes().take_while(|byte| is_of_number(byte)).count()];
        self.at += number.len();
        number
    }

    fn number<V: Visitor<'t>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let number = self.digits();
        if is_short_and_whole(number) {
            return number.parse().map_err(Error::custom).and_then(|number| visitor.visit_u64(number));
        }
        let mut number = serde_json::Deserializer::from_str(number);
        let value = number.deserialize_any(visitor).map_err(Error::custom)?;
        number.end().map_err(Error::custom)?;
        Ok(value)
    }

    /// Goes on behind the number that is next, however large that is.
    fn skip_number(&mut self) -> Result<(), Error> {
        let number = self.digits();
        let is_number = is_short_and_whole(number) || serde_json::from_str::<IgnoredAny>(number).is_ok();
        if is_number { Ok(()) } else { Err(Error::custom("no number")) }
    }

    /// Goes on behind the value that is next, however deep that is.
    fn skip(&mut self) -> Result<(), Error> {
        let mut open = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => self.skip_text()?,
                Some(b't') => self.pass("true")?,
                Some(b'f') => self.pass("false")?,
                Some(b'n') => self.pass("null")?,
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    open.push(bracket);
                    if self.next() != Some(closing(bracket)) {
                        self.skip_name(bracket)?;
                        continue;
                    }
                }
                Some(_) => self.skip_number()?,
                None => return Err(Error::custom("nothing")),
            }
            // Behind a value, or in front of what closes an empty list.
            loop {
                let Some(&bracket) = open.last() else { return Ok(()) };
                let next = self.next();
                self.at += 1;
                if next == Some(closing(bracket)) {
                    open.pop();
                } else if next == Some(b',') {
                    self.skip_name(bracket)?;
                    break;
                } else {
                    return Err(Error::custom("a list without an end"));
                }
            }
        }
    }

    /// Goes on to a member's value, in an object.
    fn skip_name(&mut self, bracket: u8) -> Result<(), Error> {
        if bracket == b'{' {
            self.next();
            self.skip_text()?;
            self.next();
            self.pass(":")?;
        }
        Ok(())
    }
}

/// How long a piece of text is, up to a quotation mark, a backslash, or a control character, which no text has.
fn piece_length(rest: &[u8]) -> Option<usize> {
    let (blocks, last) = rest.as_chunks();
    for (before, block) in blocks.iter().enumerate() {
        let block = u8x16::new(*block);
        let ends = block.simd_eq(QUOTATION_MARKS) | block.simd_eq(BACKSLASHES) | block.simd_eq(block.min(CONTROLS));
        let ends = ends.to_bitmask();
        if ends != 0 {
            return Some(before * 16 + ends.trailing_zeros() as usize);
        }
    }
    let found = last.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
    Some(blocks.len() * 16 + found)
}

/// Whether it is a `u64` for sure.
fn is_short_and_whole(number: &str) -> bool {
    let is_whole = (1..=DIGITS).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    is_whole && (number == "0" || !number.starts_with('0'))
}

const fn closing(bracket: u8) -> u8 {
    if bracket == b'{' { b'}' } else { b']' }
}

impl<'t> Deserializer<'t> for &mut Rest<'t> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.next() {
            Some(b'"') => match self.text()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            Some(b'{') => self.inside(b'}', |members| visitor.visit_map(members)),
            Some(b'[') => self.inside(b']', |items| visitor.visit_seq(items)),
            Some(b't') => self.pass("true").and_then(|()| visitor.visit_bool(true)),
            Some(b'f') => self.pass("false").and_then(|()| visitor.visit_bool(false)),
            Some(b'n') => self.pass("null").and_then(|()| visitor.visit_unit()),
            Some(_) => self.number(visitor),
            None => Err(Error::custom("nothing")),
        }
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.next() == Some(b'n') {
            return self.pass("null").and_then(|()| visitor.visit_none());
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name != RAW {
            return visitor.visit_newtype_struct(self);
        }
        self.next();
        let begin = self.at;
        self.skip()?;
        visitor.visit_map(Raw(Some(&self.text[begin..self.at])))
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier
    }
}

/// What is in a list or an object, one after the other.
struct Items<'r, 't> {
    rest: &'r mut Rest<'t>,
    end: u8,
    is_first: bool,
    is_over: bool,
}

impl Items<'_, '_> {
    /// Goes on to the next one, or behind the end; whether there is one.
    fn has_next(&mut self) -> Result<bool, Error> {
        if self.is_over {
            return Ok(false);
        }
        let is_first = std::mem::replace(&mut self.is_first, false);
        match self.rest.next() {
            Some(byte) if byte == self.end => {
                self.rest.at += 1;
                self.is_over = true;
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
        if self.has_next()? { seed.deserialize(&mut *self.rest).map(Some) } else { Ok(None) }
    }
}

impl<'t> MapAccess<'t> for Items<'_, 't> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.has_next()? {
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

/// A value as it is written, as the one member of an object: so `serde_json` hands one over.
struct Raw<'t>(Option<&'t str>);

impl<'t> MapAccess<'t> for Raw<'t> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.0.map(|_| seed.deserialize(BorrowedStrDeserializer::new(RAW))).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let text = self.0.take().ok_or_else(|| Error::custom("nothing"))?;
        seed.deserialize(BorrowedStrDeserializer::new(text))
    }
}

#[cfg(test)]
mod tests {
    use allocation_counter::measure;
    use serde_json::value::RawValue;

    use super::*;

    /// What is asked of a reply: members as they are written, of a type, or none; what else there is, is skipped.
    #[derive(serde::Deserialize, Debug)]
    #[serde(default)]
    #[derive(Default)]
    struct Asked<'t> {
        #[serde(borrow)]
        a: Option<&'t RawValue>,
        k: Option<Box<str>>,
        #[serde(borrow)]
        b: Vec<&'t RawValue>,
        c: Option<(u64, IgnoredAny)>,
    }

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

    /// What both make of it: as a tree, which says how numbers are held as well; and as what is asked of it.
    fn both(text: &[u8]) -> [[Option<String>; 3]; 2] {
        fn all(tree: Option<Value<'_>>, asked: Option<Asked<'_>>, raw: Option<&RawValue>) -> [Option<String>; 3] {
            [
                tree.map(|tree| format!("{tree:?}")),
                asked.map(|asked| format!("{asked:?}")),
                raw.map(|raw| raw.get().to_owned()),
            ]
        }
        [
            all(opened(text), read(text), read(text)),
            all(
                serde_json::from_slice(text).ok(),
                serde_json::from_slice(text).ok(),
                serde_json::from_slice(text).ok(),
            ),
        ]
    }

    #[test]
    fn it_is_the_json_that_serde_json_reads() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |most: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).expect("31 bits") % most
        };
        let (mut trees, mut asked) = (0, 0);
        for _ in 0..50_000 {
            let pieces: String = (0..=below(8)).map(|_| PIECES[below(PIECES.len())]).collect();
            let name = ["a", "b", "c", "k", "z"][below(5)];
            for text in [&pieces, &format!("{{\"{name}\":{pieces}}}")] {
                let [found, known] = both(text.as_bytes());
                assert_eq!(found, known, "{text}");
                trees += usize::from(known[0].is_some());
                asked += usize::from(known[1].is_some());
            }
        }
        assert!(trees > 1_000 && asked > 1_000, "{trees} of them were JSON, and {asked} what was asked for");
        for piece in PIECES {
            for text in [
                (*piece).to_owned(),
                format!("[{piece}]"),
                format!("{{\"a\":{piece}}}"),
                format!("[1,{piece} ,\"b\"]"),
                format!("{{\"a\" : [{piece}],\"a\":{{\"b\":{piece}}} }}"),
                format!("{{\"z\":{{\"z\":[{piece},{{}},[]]}},\"b\":[{piece},1],\"c\":[1,{piece}],\"k\":{piece}}}"),
                format!("{{\"c\":[1,2,{piece}]}}"),
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
        for text in [&b"[\"\xff\"]"[..], b"{\"z\":\"\xff\",\"k\":\"v\"}"] {
            assert_eq!(
                both(text)[0],
                [None, None, None],
                "no UTF-8 is no JSON (RFC 8259, section 8.1), skipped or not"
            );
        }
    }

    #[test]
    fn who_reads_on_after_an_error_finds_nothing() {
        struct Stubborn;

        impl<'t> Deserialize<'t> for Stubborn {
            fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Self)
            }
        }

        impl<'t> Visitor<'t> for Stubborn {
            type Value = Self;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'t>>(self, mut items: A) -> Result<Self, A::Error> {
                for _ in 0..9 {
                    let _ = items.next_element::<Box<str>>();
                    let _ = items.next_element::<IgnoredAny>();
                }
                Ok(self)
            }
        }

        for text in ["[\"\\ü\",\"\\ü\"]", "[\"\\u00ü\",1]", "[\"ü", "[ü,ü]", "[\"\\", "["] {
            assert!(read::<Stubborn>(text.as_bytes()).is_none(), "{text}");
        }
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
