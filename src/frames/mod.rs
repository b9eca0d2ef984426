//! Frames: the pieces a streamed reply is made of, found as its bytes arrive, in whatever framing it comes.
//!
//! Each framing is a decoder with one face: bytes go in, cut anywhere, and every event that is complete with them comes
//! out, with where it stood. What a decoder holds is bounded. Knows no provider.

pub mod array;
#[cfg(test)]
mod cuts;
pub mod eventstream;
pub mod lines;
pub mod sse;
pub mod websocket;

use std::ops::Range;

/// One piece of a stream: an event of an event stream, a line, an element of an array, a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What the framing calls it: the `event` field of server-sent events, the `:event-type` of an AWS message (see
    /// [`eventstream::Decoder`] for its exceptions). Empty if it has no name.
    pub name: &'a str,
    /// What it carries.
    pub data: &'a [u8],
    /// Where it stood in the stream, in bytes: from its first byte to the end of its own end mark. What lies between
    /// events (comments, blank lines) belongs to none.
    pub span: Range<u64>,
}

/// Finds the events of one stream, whatever its framing.
#[derive(Debug)]
pub enum Decoder {
    /// `text/event-stream`.
    Sse(sse::Decoder),
    /// `application/vnd.amazon.eventstream`.
    EventStream(eventstream::Decoder),
    /// One JSON object a line.
    Lines(lines::Decoder),
    /// One JSON array.
    Array(array::Decoder),
}

/// What a framing by itself says of the end of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing: only what the events say can tell whether the stream is complete.
    Unmarked,
    /// Its end mark came.
    Marked,
    /// Its end mark did not come, it broke off within an event, or it is damaged.
    Torn,
}

impl Decoder {
    /// Takes the stream's next piece and hands over every event that is complete with it.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        match self {
            Self::Sse(events) => events.push(chunk, on_event),
            Self::EventStream(messages) => messages.push(chunk, on_event),
            Self::Lines(lines) => lines.push(chunk, on_event),
            Self::Array(objects) => objects.push(chunk, on_event),
        }
    }

    /// Hands over what is left when the stream ends, if it may be an event, and says what the framing knows of that
    /// end.
    pub fn finish(&mut self, on_event: &mut impl FnMut(Event<'_>)) -> End {
        match self {
            Self::Sse(events) => {
                events.finish(on_event);
                End::Unmarked
            }
            Self::EventStream(messages) if messages.is_between_messages() => End::Unmarked,
            Self::EventStream(messages) => {
                messages.finish();
                End::Torn
            }
            Self::Lines(lines) => {
                lines.finish(on_event);
                End::Unmarked
            }
            Self::Array(objects) => {
                objects.finish();
                if objects.is_closed() { End::Marked } else { End::Torn }
            }
        }
    }

    /// The offset in the stream before which every event is complete: what follows it may yet become one.
    #[must_use]
    pub fn incomplete_from(&self) -> u64 {
        match self {
            Self::Sse(events) => events.incomplete_from(),
            Self::EventStream(messages) => messages.incomplete_from(),
            Self::Lines(lines) => lines.incomplete_from(),
            Self::Array(objects) => objects.incomplete_from(),
        }
    }

    /// How many events were skipped because they were too large.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        match self {
            Self::Sse(events) => events.overflowed(),
            Self::EventStream(messages) => messages.overflowed(),
            Self::Lines(lines) => lines.overflowed(),
            Self::Array(objects) => objects.overflowed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cuts::{Random, assert_cuts_change_nothing, found};
    use super::*;

    const MAX_EVENT_BYTES: usize = 20;

    fn decoders() -> [Decoder; 4] {
        [
            Decoder::Sse(sse::Decoder::new(MAX_EVENT_BYTES)),
            Decoder::EventStream(eventstream::Decoder::new(MAX_EVENT_BYTES)),
            Decoder::Lines(lines::Decoder::new(MAX_EVENT_BYTES)),
            Decoder::Array(array::Decoder::new(MAX_EVENT_BYTES)),
        ]
    }

    #[test]
    fn a_framing_says_what_it_knows_of_the_end() {
        let message = [0, 0, 0, 0x10, 0, 0, 0, 0, 5, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        let [sse, eventstream, lines, array] = [0, 1, 2, 3];
        for (framing, stream, events, expected) in [
            (sse, &b"data: 1\n\ndata: 2"[..], 2, End::Unmarked),
            (eventstream, &message, 1, End::Unmarked),
            (eventstream, &message[..9], 0, End::Torn),
            (eventstream, &[0; 16], 0, End::Torn),
            (lines, b"{}\n{}", 2, End::Unmarked),
            (array, b"[{},{}]", 2, End::Marked),
            (array, b"[{},{", 1, End::Torn),
            (array, b"", 0, End::Torn),
        ] {
            let mut decoder = decoders().into_iter().nth(framing).expect("one of the four");
            let mut found = 0;
            decoder.push(stream, &mut |_| found += 1);
            let end = decoder.finish(&mut |_| found += 1);
            assert_eq!((found, end), (events, expected), "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn garbage_is_read_without_harm_in_whatever_pieces_it_comes() {
        let mut random = Random::new(42);
        for _ in 0..300 {
            let length = random.below(60);
            let garbage = random.picks(b"[]{}\"\\\r\n: ,data\0\x10\xff", length);
            for framing in 0..decoders().len() {
                assert_cuts_change_nothing(&garbage, |pieces| {
                    let mut decoder = decoders().into_iter().nth(framing).expect("one of the four");
                    let mut events = Vec::new();
                    let mut note = |event: Event<'_>| events.push(found(&event));
                    for piece in pieces {
                        decoder.push(piece, &mut note);
                        assert!(decoder.incomplete_from() <= garbage.len() as u64);
                    }
                    let end = decoder.finish(&mut note);
                    assert!(events.iter().all(|(_, _, span)| span.end - span.start <= MAX_EVENT_BYTES as u64));
                    (events, end, decoder.overflowed())
                });
            }
        }
    }
}
