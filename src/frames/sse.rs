//! SSE: finds the events of a `text/event-stream` as its bytes arrive, in pieces cut anywhere.
//!
//! Follows the WHATWG parsing rules (LF, CR and CRLF; one optional space; comments; several data lines), keeps where
//! each event stood in the stream, and bounds what it holds. Knows no provider.

use memchr::{memchr, memchr2, memchr2_iter};

use crate::frames::Event;

/// A byte order mark, which may open a stream and is then no part of its first line.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Finds the events of one stream.
///
/// What it finds does not depend on where the stream was cut. A CR may be the first half of a CRLF, so an event whose
/// blank line is a CR that ends a piece is given with the next piece, once it is known whose the next byte is.
#[derive(Debug)]
pub struct Decoder {
    max_event_bytes: usize,
    /// Bytes taken in so far.
    position: u64,
    /// The beginning of the current event, as far as earlier pieces brought it.
    held: Vec<u8>,
    /// What the current line is, as far as it came.
    line: Line,
    /// Whether the current event has a field line yet.
    begun: bool,
    /// Whether the last piece ended in a CR.
    ended_in_cr: bool,
    /// Whether the rest of the current event is let go, because it is too large.
    skipping: bool,
    overflowed: u64,
    /// Data lines joined, for events that have several.
    joined: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Empty,
    Comment,
    Field,
}

impl Decoder {
    /// For a stream whose events larger than `max_event_bytes` are skipped.
    #[must_use]
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            position: 0,
            held: Vec::new(),
            line: Line::Empty,
            begun: false,
            ended_in_cr: false,
            skipping: false,
            overflowed: 0,
            joined: Vec::new(),
        }
    }

    /// Takes the stream's next piece and hands over every event that is complete with it. An event that lies wholly in
    /// `chunk` is not copied, unless it has several data lines.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let mut from = 0;
        let mut at = 0;
        if self.ended_in_cr && !chunk.is_empty() {
            self.ended_in_cr = false;
            at = usize::from(chunk[0] == b'\n');
            self.end_line(chunk, &mut from, at, on_event);
        }
        while let Some(length) = memchr2(b'\n', b'\r', &chunk[at..]) {
            let end = at + length;
            self.see_text(&chunk[at..end]);
            at = end + 1;
            if chunk[end] == b'\r' {
                match chunk.get(at) {
                    None => {
                        self.ended_in_cr = true;
                        break;
                    }
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                }
            }
            self.end_line(chunk, &mut from, at, on_event);
        }
        self.see_text(&chunk[at..]);
        self.hold(&chunk[from..]);
        self.position += chunk.len() as u64;
    }

    /// Hands over what is left when the stream ends: an event without its blank line. The rules drop it; what it says
    /// about usage still counts.
    pub fn finish(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        if self.begun && !self.skipping {
            self.dispatch(&[], 0, on_event);
        }
        self.start_over();
    }

    /// The offset in the stream before which every event is complete. What follows it may yet become one event, unless
    /// that is being skipped: then this is the end of what was pushed.
    #[must_use]
    pub fn incomplete_from(&self) -> u64 {
        self.position - self.held.len() as u64
    }

    /// How many events were skipped because they were too large.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Notes the first text of a line: it decides what the line is.
    fn see_text(&mut self, text: &[u8]) {
        if self.line != Line::Empty || text.is_empty() {
            return;
        }
        self.line = if text[0] == b':' { Line::Comment } else { Line::Field };
        self.begun |= self.line == Line::Field;
    }

    /// Ends a line at `end` in `chunk`, and with it the event that began at `from` if the line is blank.
    fn end_line(&mut self, chunk: &[u8], from: &mut usize, end: usize, on_event: &mut impl FnMut(Event<'_>)) {
        let blank = self.line == Line::Empty;
        self.line = Line::Empty;
        if self.begun && !blank {
            return;
        }
        if self.begun && !self.skipping {
            self.dispatch(&chunk[*from..end], end, on_event);
        }
        self.start_over();
        *from = end;
    }

    /// Hands over the event made of what is held and `rest`, which ends `end` bytes after `position`.
    fn dispatch(&mut self, rest: &[u8], end: usize, on_event: &mut impl FnMut(Event<'_>)) {
        let length = self.held.len() + rest.len();
        if length > self.max_event_bytes {
            self.overflowed += 1;
            return;
        }
        if !self.held.is_empty() {
            self.held.extend_from_slice(rest);
        }
        let raw = if self.held.is_empty() { rest } else { &self.held };
        let end = self.position + end as u64;
        let span = end - length as u64..end;
        let text = if span.start == 0 { raw.strip_prefix(BOM).unwrap_or(raw) } else { raw };
        if let Some((name, data)) = parse(text, &mut self.joined) {
            on_event(Event { name, data, span });
        }
    }

    /// Keeps the end of a piece until the event it belongs to is complete, or lets it go if that is too large, or if
    /// there is none: a comment before an event is not part of it.
    fn hold(&mut self, rest: &[u8]) {
        if self.skipping || !self.begun {
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

    fn start_over(&mut self) {
        self.held.clear();
        self.begun = false;
        self.skipping = false;
    }
}

/// The `event` field and the joined `data` lines of an event's lines. `None` without a data line: such an event is
/// never dispatched.
fn parse<'a>(text: &'a [u8], joined: &'a mut Vec<u8>) -> Option<(&'a str, &'a [u8])> {
    let mut name: &[u8] = b"";
    let mut data: Option<&[u8]> = None;
    let mut several = false;
    for line in lines(text) {
        let (field, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match (field, data) {
            (b"event", _) => name = value,
            (b"data", None) => data = Some(value),
            (b"data", Some(first)) => {
                if !several {
                    several = true;
                    joined.clear();
                    joined.extend_from_slice(first);
                }
                joined.push(b'\n');
                joined.extend_from_slice(value);
            }
            _ => {}
        }
    }
    let data = if several { joined } else { data? };
    Some((std::str::from_utf8(name).unwrap_or_default(), data))
}

/// The text of each line. A CRLF is seen as two line ends, which adds an empty line that means nothing here.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = 0;
    memchr2_iter(b'\n', b'\r', text)
        .chain((!text.ends_with(b"\n") && !text.ends_with(b"\r")).then_some(text.len()))
        .map(move |end| &text[std::mem::replace(&mut from, end + 1)..end])
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    type Found = (String, String, Range<u64>);

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Found> {
        let mut found = Vec::new();
        let mut decoder = Decoder::new(1000);
        let mut note = |event: Event<'_>| {
            let data = String::from_utf8(event.data.to_vec()).expect("the tests use text");
            found.push((event.name.to_owned(), data, event.span));
        };
        for piece in pieces {
            decoder.push(piece, &mut note);
        }
        decoder.finish(&mut note);
        found
    }

    fn data(stream: &str) -> Vec<String> {
        decode([stream.as_bytes()]).into_iter().map(|(_, data, _)| data).collect()
    }

    #[test]
    fn events_follow_the_parsing_rules() {
        for (rule, stream, expected) in [
            ("a blank line dispatches", "data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("at most one space is removed", "data:a\n\ndata:  b\n\n", &["a", " b"]),
            ("data lines are joined with line feeds", "data: a\ndata: b\n\n", &["a\nb"]),
            ("a line without colon is a field with an empty value", "data\ndata\n\n", &["\n"]),
            ("an empty data line is data", "data:\n\n", &[""]),
            ("without data there is no event", "event: a\nid: 1\nretry: 2\n\n", &[]),
            ("comments are no data", ": keep-alive\n\ndata: a\n: in between\n\n", &["a"]),
            ("unknown fields are ignored", "p: abc\ndata: a\n\n", &["a"]),
            ("a byte order mark is skipped once", "\u{feff}data: a\n\n\u{feff}data: b\n\n", &["a"]),
            ("lines end with CR", "data: a\rdata: b\r\rdata: c\r\r", &["a\nb", "c"]),
            ("lines end with CRLF", "data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", &["a\nb", "c"]),
            ("line ends may be mixed", "data: a\ndata: b\r\n\rdata: c\r\r\n", &["a\nb", "c"]),
            ("leading blank lines mean nothing", "\n\n\r\n\rdata: a\n\n", &["a"]),
            (
                "other separators are text",
                "data: \u{2028}\u{2029}\u{85}\u{b}\u{c}\n\n",
                &["\u{2028}\u{2029}\u{85}\u{b}\u{c}"],
            ),
            ("the end of the stream ends an event", "data: a\n\ndata: b", &["a", "b"]),
        ] {
            assert_eq!(data(stream), expected, "{rule}");
        }
    }

    #[test]
    fn the_event_field_names_the_event() {
        let found = decode([&b"event: ping\ndata: {}\n\ndata: {}\n\n"[..]]);
        assert_eq!(found[0].0, "ping");
        assert_eq!(found[1].0, "", "a name is not kept for the next event");
    }

    #[test]
    fn where_a_stream_is_cut_changes_nothing() {
        for stream in [
            "\u{feff}: hi\n\nevent: a\ndata: {\"ü\": 1}\n\n\n: x\ndata: b\ndata: c\n\ndata: [DONE]\n\n",
            "event: a\r\ndata: {\"ü\": 1}\r\n\r\n: x\r\ndata: b\r\ndata: c\r\n\r\ndata: [DONE]\r\n\r\n",
            "event: a\rdata: {\"ü\": 1}\r\r: x\rdata: b\rdata: c\r\rdata: [DONE]\r\r",
        ] {
            let bytes = stream.as_bytes();
            let whole = decode([bytes]);
            assert_eq!(whole.len(), 3, "{stream:?}");
            for cut in 0..=bytes.len() {
                assert_eq!(decode([&bytes[..cut], &bytes[cut..]]), whole, "{stream:?} cut at {cut}");
            }
            assert_eq!(decode(bytes.chunks(1)), whole, "{stream:?} byte by byte");
        }
    }

    #[test]
    fn spans_run_from_the_first_field_line_to_the_end_of_the_blank_line() {
        let stream = ": hi\n\ndata: a\r\n\r\n\ndata: b\n\n";
        let found = decode([stream.as_bytes()]);
        let texts: Vec<_> = found
            .iter()
            .map(|(_, _, span)| &stream[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()])
            .collect();
        assert_eq!(texts, ["data: a\r\n\r\n", "data: b\n\n"]);
    }

    #[test]
    fn what_may_become_an_event_is_pending() {
        let mut decoder = Decoder::new(1000);
        for (piece, incomplete_from, why) in [
            ("data: a\n", 0, "no blank line yet"),
            ("\n", 9, "the event is complete"),
            (": x\n", 13, "a comment is no event"),
            ("data: b\r\n\r", 13, "a CR may be half of a CRLF"),
            ("\n", 24, "it was"),
        ] {
            decoder.push(piece.as_bytes(), &mut |_| {});
            assert_eq!(decoder.incomplete_from(), incomplete_from, "{why}");
        }
    }

    #[test]
    fn an_event_that_is_too_large_is_skipped_and_counted() {
        let stream = format!("data: a\n\ndata: {}\n\ndata: b\n\n", "x".repeat(30));
        for size in 1..=stream.len() {
            let mut found = Vec::new();
            let mut decoder = Decoder::new(20);
            for piece in stream.as_bytes().chunks(size) {
                decoder.push(piece, &mut |event| found.push(event.data.to_vec()));
                assert!(decoder.held.len() <= 20);
            }
            assert_eq!(found, [b"a", b"b"], "in pieces of {size}");
            assert_eq!(decoder.overflowed(), 1);
        }
    }

    #[test]
    fn a_comment_is_no_event_that_is_too_large() {
        let stream = format!(": {}\n\ndata: a\n\n", "x".repeat(30));
        for size in 1..=stream.len() {
            let mut found = 0;
            let mut decoder = Decoder::new(20);
            for piece in stream.as_bytes().chunks(size) {
                decoder.push(piece, &mut |_| found += 1);
                assert!(decoder.held.len() <= 20);
            }
            assert_eq!((found, decoder.overflowed()), (1, 0), "in pieces of {size}");
        }
    }
}
