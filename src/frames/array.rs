//! Array: finds the objects of one JSON array as its bytes arrive, in pieces cut anywhere: `[{…},{…}]`.
//!
//! Counts braces, and knows strings and their escapes; nothing else of JSON, and no provider.

use memchr::{memchr2, memchr3};

use crate::frames::Event;

/// Finds the objects of one array. They have no names, and their spans are theirs alone: commas and white space between
/// them belong to none.
///
/// An object that stands alone, as an error may, is an element too. Whatever else lies outside of objects means
/// nothing, but for the brackets of the array; what follows the closing one is not read.
#[derive(Debug)]
pub struct Decoder {
    max_event_bytes: usize,
    /// Bytes taken in so far.
    position: u64,
    /// The beginning of the current object, as far as earlier pieces brought it.
    held: Vec<u8>,
    place: Place,
    brackets: Brackets,
    /// How many objects are open, one in the other.
    depth: u64,
    /// Whether the rest of the current object is let go, because it is too large.
    skipping: bool,
    overflowed: u64,
}

/// Where the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between objects, before the array, or after it.
    Outside,
    /// In an object.
    Object,
    /// In a string of an object.
    String,
    /// After a backslash in a string of an object.
    Escape,
}

/// Which brackets of the array came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brackets {
    None,
    Opening,
    Both,
}

impl Decoder {
    /// For a stream whose objects larger than `max_event_bytes` are skipped.
    #[must_use]
    pub const fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            position: 0,
            held: Vec::new(),
            place: Place::Outside,
            brackets: Brackets::None,
            depth: 0,
            skipping: false,
            overflowed: 0,
        }
    }

    /// Takes the stream's next piece and hands over every object that is complete with it. An object that lies wholly
    /// in `chunk` is not copied.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let mut from = 0;
        let mut at = 0;
        while at < chunk.len() {
            let was_outside = self.place == Place::Outside;
            at += self.step(&chunk[at..]);
            match (was_outside, self.place == Place::Outside) {
                // The brace belongs to the object it opens.
                (true, is_outside) => from = at - usize::from(!is_outside),
                (false, true) => self.end_object(&chunk[from..at], at, on_event),
                (false, false) => {}
            }
        }
        if self.place != Place::Outside {
            self.hold(&chunk[from..]);
        }
        self.position += chunk.len() as u64;
    }

    /// The stream has ended. What is left is no object: its last brace never came.
    pub fn finish(&mut self) {
        self.held = Vec::new();
    }

    /// The offset in the stream before which every object is complete. What follows it may yet become one, unless that
    /// is being skipped: then this is the end of what was pushed.
    #[must_use]
    pub fn incomplete_from(&self) -> u64 {
        self.position - self.held.len() as u64
    }

    /// How many objects were skipped because they were too large.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Whether the array's closing bracket came.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.brackets == Brackets::Both
    }

    /// Goes to the end of the next byte in `text` that means something, or to its end; how far that was.
    fn step(&mut self, text: &[u8]) -> usize {
        let found = match self.place {
            Place::Outside if self.is_closed() => None,
            Place::Outside => memchr3(b'{', b'[', b']', text),
            Place::Object => memchr3(b'{', b'}', b'"', text),
            Place::String => memchr2(b'"', b'\\', text),
            Place::Escape => Some(0),
        };
        let Some(at) = found else { return text.len() };
        match (self.place, text[at]) {
            (Place::Outside, b'[') => self.brackets = Brackets::Opening,
            (Place::Outside, b']') if self.brackets == Brackets::Opening => self.brackets = Brackets::Both,
            (Place::Outside | Place::Object, b'{') => {
                self.place = Place::Object;
                self.depth += 1;
            }
            (Place::Object, b'}') => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.place = Place::Outside;
                }
            }
            (Place::Object, b'"') | (Place::Escape, _) => self.place = Place::String,
            (Place::String, b'"') => self.place = Place::Object,
            (Place::String, b'\\') => self.place = Place::Escape,
            _ => {}
        }
        at + 1
    }

    /// Hands over the object made of what is held and `rest`, which ends `end` bytes after `position`.
    fn end_object(&mut self, rest: &[u8], end: usize, on_event: &mut impl FnMut(Event<'_>)) {
        let length = self.held.len() + rest.len();
        if std::mem::take(&mut self.skipping) {
            return;
        }
        if length > self.max_event_bytes {
            self.overflowed += 1;
        } else {
            if !self.held.is_empty() {
                self.held.extend_from_slice(rest);
            }
            let data = if self.held.is_empty() { rest } else { &self.held };
            let end = self.position + end as u64;
            on_event(Event { name: "", data, span: end - length as u64..end });
        }
        self.held.clear();
    }

    /// Keeps the end of a piece until the object it belongs to is complete, or lets it go if that is too large.
    fn hold(&mut self, rest: &[u8]) {
        if self.skipping {
            return;
        }
        if self.held.len() + rest.len() > self.max_event_bytes {
            self.skipping = true;
            self.overflowed += 1;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::cuts::{Found, assert_cuts_change_nothing, found};

    #[derive(Debug, PartialEq)]
    struct Decoded {
        events: Vec<Found>,
        overflowed: u64,
        closed: bool,
    }

    fn decode(pieces: &[&[u8]]) -> Decoded {
        let mut decoder = Decoder::new(40);
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(piece, &mut |event| events.push(found(&event)));
            assert!(decoder.held.len() <= 40);
            assert!(decoder.incomplete_from() <= decoder.position);
        }
        decoder.finish();
        Decoded { events, overflowed: decoder.overflowed(), closed: decoder.is_closed() }
    }

    #[test]
    fn an_object_of_the_array_is_an_event() {
        for (rule, stream, expected, closed) in [
            ("as Gemini sends it", "[{\"a\":1}\r\n,\r\n{\"b\":2}\r\n]", &["{\"a\":1}", "{\"b\":2}"][..], true),
            ("without white space", "[{},{}]", &["{}", "{}"], true),
            ("objects in objects are parts", "[{\"a\":{\"b\":[{}]}}]", &["{\"a\":{\"b\":[{}]}}"], true),
            ("braces in strings are text", "[{\"}{[]\":\"}\"}]", &["{\"}{[]\":\"}\"}"], true),
            ("an escaped quote ends no string", r#"[{"a\"}":"\\"}]"#, &[r#"{"a\"}":"\\"}"#], true),
            ("an object may stand alone", "{\"error\":{}}", &["{\"error\":{}}"], false),
            ("an empty array has none", "[]", &[], true),
            ("an array that breaks off is not closed", "[{},{\"a\":", &["{}"], false),
            ("nor is one that breaks off between objects", "[{},", &["{}"], false),
            ("a bracket in an unfinished object closes nothing", "[{\"a\":[]", &[], false),
            ("what comes before is no matter", "x ] , \u{feff}[{}]", &["{}"], true),
            ("nor what comes after", "[{}] {} [{", &["{}"], true),
            ("other elements are passed over", "[1, \"a\", null, {}]", &["{}"], true),
        ] {
            let decoded = decode(&[stream.as_bytes()]);
            let data: Vec<_> =
                decoded.events.iter().map(|(_, data, _)| std::str::from_utf8(data).expect("text")).collect();
            assert_eq!((data.as_slice(), decoded.closed), (expected, closed), "{rule}");
        }
    }

    #[test]
    fn a_span_runs_from_brace_to_brace() {
        let spans: Vec<_> = decode(&[b"[{}\r\n,\r\n{\"a\":1}]"]).events.into_iter().map(|(_, _, span)| span).collect();
        assert_eq!(spans, [1..3, 8..15]);
    }

    #[test]
    fn where_a_stream_is_cut_changes_nothing() {
        let long = format!("[{{\"a\":\"{}\"}},{{}},{{\"a\":{{\"b\":\"{}\"}}}}]", "x".repeat(33), "}".repeat(50));
        for stream in ["[{\"ü\\\"}\":{\"a\":\"\\\\\"}}\r\n,\r\n{\"b\":2}]\r\n", "{}[{},{\"a\":", &long] {
            assert_cuts_change_nothing(stream.as_bytes(), decode);
        }
    }

    #[test]
    fn what_may_become_an_object_is_pending() {
        let mut decoder = Decoder::new(5);
        for (piece, incomplete_from, why) in [
            ("[", 1, "a bracket is no object"),
            ("{\"a", 1, "no last brace yet"),
            ("bcd", 7, "too large: nothing comes of it"),
            ("\"}, {", 11, "the next one has begun"),
            ("}]", 14, "and is complete"),
        ] {
            decoder.push(piece.as_bytes(), &mut |_| {});
            assert_eq!(decoder.incomplete_from(), incomplete_from, "{why}");
        }
    }

    #[test]
    fn an_object_that_is_too_large_is_skipped_and_counted() {
        let stream = format!("[{{}},{{\"a\":\"{}\"}},{{}}]", "}".repeat(50));
        let decoded = decode(&[stream.as_bytes()]);
        assert_eq!((decoded.events.len(), decoded.overflowed, decoded.closed), (2, 1, true));
    }
}
