//! Lines: finds the lines of a stream that has one JSON object in each, as its bytes arrive, in pieces cut anywhere.
//!
//! A line ends with LF or CRLF; blank lines mean nothing; the last line may go without its end. Knows no JSON, and no
//! provider.

use memchr::memchr;

use crate::frames::Event;

/// Finds the lines of one stream. They have no names.
#[derive(Debug)]
pub struct Decoder {
    max_event_bytes: usize,
    /// Bytes taken in so far.
    position: u64,
    /// The beginning of the current line, as far as earlier pieces brought it.
    held: Vec<u8>,
    /// Whether the rest of the current line is let go, because it is too large.
    skipping: bool,
    overflowed: u64,
}

impl Decoder {
    /// For a stream whose lines larger than `max_event_bytes` are skipped.
    #[must_use]
    pub const fn new(max_event_bytes: usize) -> Self {
        Self { max_event_bytes, position: 0, held: Vec::new(), skipping: false, overflowed: 0 }
    }

    /// Takes the stream's next piece and hands over every line that is complete with it. A line that lies wholly in
    /// `chunk` is not copied.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let mut rest = chunk;
        while let Some(length) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at(length + 1);
            rest = after;
            self.position += line.len() as u64;
            self.end_line(line, on_event);
        }
        self.hold(rest);
        self.position += rest.len() as u64;
    }

    /// Hands over what is left when the stream ends: a line without its end.
    pub fn finish(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        self.end_line(&[], on_event);
    }

    /// The offset in the stream before which every line is complete. What follows it may yet become one, unless that is
    /// being skipped: then this is the end of what was pushed.
    #[must_use]
    pub fn incomplete_from(&self) -> u64 {
        self.position - self.held.len() as u64
    }

    /// How many lines were skipped because they were too large.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Ends the line made of what is held and `rest`, at `position`.
    fn end_line(&mut self, rest: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        if !std::mem::take(&mut self.skipping) {
            self.dispatch(rest, on_event);
        }
        self.held.clear();
    }

    fn dispatch(&mut self, rest: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let length = self.held.len() + rest.len();
        if length > self.max_event_bytes {
            self.overflowed += 1;
            return;
        }
        if !self.held.is_empty() {
            self.held.extend_from_slice(rest);
        }
        let line = if self.held.is_empty() { rest } else { &self.held };
        let data = line.strip_suffix(b"\n").unwrap_or(line);
        let data = data.strip_suffix(b"\r").unwrap_or(data);
        if !data.trim_ascii().is_empty() {
            on_event(Event { name: "", data, span: self.position - length as u64..self.position });
        }
    }

    /// Keeps the end of a piece until the line it belongs to is complete, or lets it go if that is too large.
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

    fn decode(pieces: &[&[u8]]) -> (Vec<Found>, u64) {
        let mut decoder = Decoder::new(30);
        let mut events = Vec::new();
        let mut note = |event: Event<'_>| events.push(found(&event));
        for piece in pieces {
            decoder.push(piece, &mut note);
            assert!(decoder.held.len() <= 30);
            assert!(decoder.incomplete_from() <= decoder.position);
        }
        decoder.finish(&mut note);
        (events, decoder.overflowed())
    }

    #[test]
    fn a_line_is_an_event() {
        for (rule, stream, expected) in [
            ("a line ends with LF", "{\"a\":1}\n{\"b\":2}\n", &["{\"a\":1}", "{\"b\":2}"][..]),
            ("or with CRLF", "{\"a\":1}\r\n{\"b\":2}\r\n", &["{\"a\":1}", "{\"b\":2}"]),
            ("the last one may go without", "{\"a\":1}\n{\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]),
            ("blank lines mean nothing", "\n\r\n  \n{\"a\":1}\n\n", &["{\"a\":1}"]),
            ("a CR within a line is text", "{\"a\":\r1}\n", &["{\"a\":\r1}"]),
            ("other separators are text", "{\"\u{2028}\u{85}\u{b}\":1}\n", &["{\"\u{2028}\u{85}\u{b}\":1}"]),
            ("an empty stream has none", "", &[]),
        ] {
            let (found, _) = decode(&[stream.as_bytes()]);
            let data: Vec<_> = found.iter().map(|(_, data, _)| std::str::from_utf8(data).expect("text")).collect();
            assert_eq!(data, expected, "{rule}");
        }
    }

    #[test]
    fn a_span_runs_from_the_first_byte_to_the_end_of_the_line_end() {
        let (found, _) = decode(&[b"\na\r\n\nb\nc"]);
        let spans: Vec<_> = found.into_iter().map(|(_, _, span)| span).collect();
        assert_eq!(spans, [1..4, 5..7, 7..8]);
    }

    #[test]
    fn what_may_become_a_line_is_pending() {
        let mut decoder = Decoder::new(5);
        for (piece, incomplete_from, why) in [
            ("abc", 0, "no line end yet"),
            ("\nde", 4, "the first line is complete"),
            ("fghi", 10, "too large: nothing comes of it"),
            ("\n", 11, "and that is over"),
        ] {
            decoder.push(piece.as_bytes(), &mut |_| {});
            assert_eq!(decoder.incomplete_from(), incomplete_from, "{why}");
        }
    }

    #[test]
    fn where_a_stream_is_cut_changes_nothing() {
        let long = format!("{{\"a\":\"{}\"}}\n{{\"ü\":1}}\r\n", "x".repeat(40));
        for stream in ["{\"ü\":1}\n\n{\"b\":2}\r\n{\"c\":3}", "a\r\r\n\r\n\nb\n", &long] {
            assert_cuts_change_nothing(stream.as_bytes(), decode);
        }
    }

    #[test]
    fn a_line_that_is_too_large_is_skipped_and_counted() {
        let stream = format!("a\n{}\nb\n{}", "x".repeat(31), "y".repeat(31));
        let (found, overflowed) = decode(&[stream.as_bytes()]);
        assert_eq!(found.len(), 2);
        assert_eq!(overflowed, 2);
    }
}
