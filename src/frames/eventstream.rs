//! Eventstream: finds the messages of an `application/vnd.amazon.eventstream` as its bytes arrive, in pieces cut
//! anywhere.
//!
//! A message is, all numbers big-endian: its length (u32), the length of its headers (u32), a CRC-32 of those eight
//! bytes, the headers, the payload, and a CRC-32 of everything before. Both sums are checked; once one is wrong, nobody
//! can say where the next message begins, and nothing more is read. Messages are written here too. Knows the headers
//! that name a message, and no service.

use crate::frames::Event;

/// The two lengths and their sum.
const PRELUDE_BYTES: usize = 12;

/// What a message has beside its headers and its payload: the prelude and the last sum.
const FRAME_BYTES: usize = PRELUDE_BYTES + 4;

/// The most bytes of headers in a message: AWS's event stream encoding, "Message components".
const MAX_HEADERS_BYTES: usize = 128 << 10;

/// The most bytes of payload in a message: as above.
const MAX_PAYLOAD_BYTES: usize = 24 << 20;

/// Finds the messages of one stream.
///
/// An event is named by its `:event-type`. An exception or an error is named by what it is, a colon and its own type,
/// such as `exception:throttlingException` or `error:InternalFailure`: no event type has a colon.
#[derive(Debug)]
pub struct Decoder {
    max_event_bytes: usize,
    /// Bytes taken in so far.
    position: u64,
    /// The beginning of the current message, as far as earlier pieces brought it.
    held: Vec<u8>,
    state: State,
    overflowed: u64,
    /// The name of an exception, put together.
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The prelude of a message comes.
    Prelude,
    /// The message comes that this prelude announced.
    Message(Prelude),
    /// A message that is too large goes by, with this many bytes left.
    Skipping(usize),
    /// Nothing can be read any more.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prelude {
    total_bytes: usize,
    headers_bytes: usize,
}

impl Decoder {
    /// For a stream whose messages larger than `max_event_bytes` are skipped.
    #[must_use]
    pub const fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            position: 0,
            held: Vec::new(),
            state: State::Prelude,
            overflowed: 0,
            name: String::new(),
        }
    }

    /// Takes the stream's next piece and hands over every message that is complete with it. A message that lies wholly
    /// in `chunk` is not copied.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let taken = match self.state {
                State::Prelude => self.take_prelude(rest),
                State::Message(prelude) => self.take_message(prelude, rest, on_event),
                State::Skipping(left) => self.skip(left, rest),
                State::Broken => rest.len(),
            };
            self.position += taken as u64;
            rest = &rest[taken..];
        }
    }

    /// The stream has ended. What is left is no message: its sum never came.
    pub fn finish(&mut self) {
        self.held = Vec::new();
    }

    /// The offset in the stream before which every message is complete. What follows it may yet become one, unless it
    /// is being skipped or nothing can be read any more: then this is the end of what was pushed.
    #[must_use]
    pub fn incomplete_from(&self) -> u64 {
        self.position - self.held.len() as u64
    }

    /// How many messages were skipped because they were too large.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Whether the stream stopped making sense: a sum was wrong, or a length is not allowed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether the stream is between two messages, as it is at its proper end.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.state == State::Prelude && self.held.is_empty()
    }

    /// Takes what is missing of a prelude. One that lies wholly in `rest` is read and not taken: its message may lie
    /// there too.
    fn take_prelude(&mut self, rest: &[u8]) -> usize {
        if let (true, Some(prelude)) = (self.held.is_empty(), rest.first_chunk()) {
            self.read_prelude(prelude);
            return 0;
        }
        let taken = rest.len().min(PRELUDE_BYTES - self.held.len());
        self.held.extend_from_slice(&rest[..taken]);
        if let Some(prelude) = self.held.first_chunk().copied() {
            self.read_prelude(&prelude);
        }
        taken
    }

    fn read_prelude(&mut self, bytes: &[u8; PRELUDE_BYTES]) {
        match Prelude::read(bytes) {
            Some(prelude) if prelude.total_bytes <= self.max_event_bytes => self.state = State::Message(prelude),
            Some(prelude) => {
                self.overflowed += 1;
                self.state = State::Skipping(prelude.total_bytes - self.held.len());
                self.held = Vec::new();
            }
            None => self.give_up(),
        }
    }

    fn take_message(&mut self, prelude: Prelude, rest: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> usize {
        let missing = prelude.total_bytes - self.held.len();
        if rest.len() < missing {
            self.held.extend_from_slice(rest);
            return rest.len();
        }
        let end = self.position + missing as u64;
        let span = end - prelude.total_bytes as u64..end;
        if !self.held.is_empty() {
            self.held.extend_from_slice(&rest[..missing]);
        }
        let message = if self.held.is_empty() { &rest[..missing] } else { &self.held };
        if let Some((headers, data)) = prelude.open(message) {
            on_event(Event { name: name_of(headers, &mut self.name), data, span });
            self.state = State::Prelude;
            self.held.clear();
        } else {
            self.give_up();
        }
        missing
    }

    fn skip(&mut self, left: usize, rest: &[u8]) -> usize {
        let taken = left.min(rest.len());
        self.state = if taken == left { State::Prelude } else { State::Skipping(left - taken) };
        taken
    }

    fn give_up(&mut self) {
        self.state = State::Broken;
        self.held = Vec::new();
    }
}

impl Prelude {
    /// Reads a prelude; `None` if its sum is wrong or its lengths are not allowed.
    fn read(bytes: &[u8; PRELUDE_BYTES]) -> Option<Self> {
        let (lengths, sum) = bytes.split_at(8);
        if crc32fast::hash(lengths) != number(sum)? {
            return None;
        }
        let total_bytes = usize::try_from(number(&lengths[..4])?).ok()?;
        let headers_bytes = usize::try_from(number(&lengths[4..])?).ok()?;
        let payload_bytes = total_bytes.checked_sub(FRAME_BYTES)?.checked_sub(headers_bytes)?;
        let allowed = headers_bytes <= MAX_HEADERS_BYTES && payload_bytes <= MAX_PAYLOAD_BYTES;
        allowed.then_some(Self { total_bytes, headers_bytes })
    }

    /// The headers and the payload of the whole `message`; `None` if its sum is wrong.
    fn open(self, message: &[u8]) -> Option<(&[u8], &[u8])> {
        let (summed, sum) = message.split_last_chunk::<4>()?;
        let sound = crc32fast::hash(summed) == u32::from_be_bytes(*sum);
        sound.then(|| summed[PRELUDE_BYTES..].split_at(self.headers_bytes))
    }
}

/// The type of a header's value that is a text.
const TEXT: u8 = 7;

/// A message with these headers, whose values are texts. `None` if anything is longer than a message may have it.
#[must_use]
pub fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Option<Vec<u8>> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(u8::try_from(name.len()).ok()?);
        encoded.extend_from_slice(name.as_bytes());
        encoded.push(TEXT);
        encoded.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
        encoded.extend_from_slice(value.as_bytes());
    }
    if encoded.len() > MAX_HEADERS_BYTES || payload.len() > MAX_PAYLOAD_BYTES {
        return None;
    }
    let total = FRAME_BYTES + encoded.len() + payload.len();
    let mut message = Vec::with_capacity(total);
    message.extend_from_slice(&u32::try_from(total).ok()?.to_be_bytes());
    message.extend_from_slice(&u32::try_from(encoded.len()).ok()?.to_be_bytes());
    seal(&mut message);
    message.extend_from_slice(&encoded);
    message.extend_from_slice(payload);
    seal(&mut message);
    Some(message)
}

/// An event of this type, whose payload is JSON; `None` as of [`encode`].
#[must_use]
pub fn json_event(kind: &str, payload: &[u8]) -> Option<Vec<u8>> {
    encode(&[(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")], payload)
}

/// Appends the sum of what is there so far.
fn seal(message: &mut Vec<u8>) {
    let sum = crc32fast::hash(message);
    message.extend_from_slice(&sum.to_be_bytes());
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// What a message with these headers is called; nothing, if they do not say or cannot be read.
fn name_of<'a>(headers: &'a [u8], joined: &'a mut String) -> &'a str {
    let text = |name: &str| Headers(headers).find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value);
    let kind = text(":message-type").unwrap_or("event");
    let own = match kind {
        "exception" => ":exception-type",
        "error" => ":error-code",
        _ => return text(":event-type").unwrap_or_default(),
    };
    joined.clear();
    joined.push_str(kind);
    joined.push(':');
    joined.push_str(text(own).unwrap_or_default());
    joined
}

/// The names and the values of headers that hold text; ends where they cannot be read.
struct Headers<'a>(&'a [u8]);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&length, rest) = self.0.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(length))?;
            let (&kind, rest) = rest.split_first()?;
            let (length, rest) = match kind {
                0 | 1 => (0, rest),
                2 => (1, rest),
                3 => (2, rest),
                4 => (4, rest),
                5 | 8 => (8, rest),
                9 => (16, rest),
                6 | 7 => {
                    let (length, rest) = rest.split_first_chunk()?;
                    (usize::from(u16::from_be_bytes(*length)), rest)
                }
                _ => return None,
            };
            let (value, rest) = rest.split_at_checked(length)?;
            self.0 = rest;
            if let (7, Ok(text)) = (kind, std::str::from_utf8(value)) {
                return Some((name, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::cuts::{Found, Random, assert_cuts_change_nothing, found};

    const MAX_EVENT_BYTES: usize = 300;

    #[derive(Debug, PartialEq)]
    struct Decoded {
        events: Vec<Found>,
        overflowed: u64,
        broken: bool,
        between_messages: bool,
    }

    fn decode(pieces: &[&[u8]]) -> Decoded {
        let mut decoder = Decoder::new(MAX_EVENT_BYTES);
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(piece, &mut |event| events.push(found(&event)));
            assert!(decoder.held.len() <= MAX_EVENT_BYTES);
            assert!(decoder.incomplete_from() <= decoder.position);
        }
        let between_messages = decoder.is_between_messages();
        decoder.finish();
        Decoded { events, overflowed: decoder.overflowed(), broken: decoder.is_broken(), between_messages }
    }

    /// A header that holds text.
    fn header(name: &str, value: &str) -> Vec<u8> {
        let length = u16::try_from(value.len()).expect("short").to_be_bytes();
        [&[u8::try_from(name.len()).expect("short")], name.as_bytes(), &[7], &length, value.as_bytes()].concat()
    }

    /// A message, with sums that are right.
    fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = |bytes: usize| u32::try_from(bytes).expect("short").to_be_bytes();
        let mut message = [length(FRAME_BYTES + headers.len() + payload.len()), length(headers.len())].concat();
        message.extend(crc32fast::hash(&message).to_be_bytes());
        message.extend([headers, payload].concat());
        message.extend(crc32fast::hash(&message).to_be_bytes());
        message
    }

    fn event(name: &str, payload: &str) -> Vec<u8> {
        let headers = [header(":message-type", "event"), header(":event-type", name)].concat();
        message(&headers, payload.as_bytes())
    }

    fn names(stream: &[u8]) -> Vec<String> {
        decode(&[stream]).events.into_iter().map(|(name, _, _)| name).collect()
    }

    #[test]
    fn a_message_is_read_as_the_encoding_says() {
        // The example of AWS's description of the encoding: no headers, no payload.
        let empty = [0, 0, 0, 0x10, 0, 0, 0, 0, 5, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        assert_eq!(decode(&[&empty]).events, [(String::new(), Vec::new(), 0..16)]);
        assert_eq!(message(&[], &[]), empty);
    }

    #[test]
    fn a_message_is_named_by_its_headers() {
        let message = |headers: &[Vec<u8>]| names(&message(&headers.concat(), b"{}")).concat();
        let kind = |kind| header(":message-type", kind);
        assert_eq!(message(&[kind("event"), header(":event-type", "chunk")]), "chunk");
        assert_eq!(message(&[header(":event-type", "chunk")]), "chunk", "an event, where nothing else is said");
        assert_eq!(message(&[kind("exception"), header(":exception-type", "a")]), "exception:a");
        assert_eq!(message(&[header(":error-code", "b"), kind("error")]), "error:b", "in any order");
        assert_eq!(message(&[kind("exception")]), "exception:");
        assert_eq!(message(&[]), "");
    }

    #[test]
    fn headers_of_every_type_are_passed_over() {
        for (kind, length) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16)] {
            let other = [&[1, b'x', kind][..], &vec![0xff; length]].concat();
            let bytes = [&[1, b'y', 6, 0, 2, 0xff, 0xff][..], &header(":event-type", "a")].concat();
            assert_eq!(names(&message(&[other, bytes].concat(), b"")), ["a"], "type {kind}");
        }
    }

    #[test]
    fn headers_that_cannot_be_read_name_nothing() {
        let good = header(":event-type", "a");
        for bad in [&[1, b'x', 10][..], &[9, b'x', 7], &[1, b'x'], &[1], &[1, b'x', 7, 0xff, 0xff], &[1, b'x', 9, 0]] {
            assert_eq!(names(&message(&[bad, &good].concat(), b"{}")), [""], "{bad:?}");
        }
        assert_eq!(names(&message(&good[..good.len() - 1], b"{}")), [""]);
    }

    /// Made by hand from AWS's description, with zlib's `crc32`.
    #[test]
    fn a_message_is_laid_out_as_aws_describes_it() {
        let expected: &[u8] = &[
            0, 0, 0, 25, 0, 0, 0, 7, 0x96, 0xb6, 0xbf, 0x39, 2, b':', b'a', 7, 0, 1, b'b', b'{', b'}', 0x9e, 0x08,
            0x6d, 0x50,
        ];
        assert_eq!(encode(&[(":a", "b")], b"{}").as_deref(), Some(expected));
        let too_long = "n".repeat(256);
        assert_eq!(encode(&[(&too_long, "b")], b"{}"), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let written = json_event("metadata", b"{\"usage\":1}").expect("short");
        let decoded = decode(&[&written]);
        assert_eq!(decoded.events[0].0, "metadata");
        assert_eq!(decoded.events[0].1, b"{\"usage\":1}");
    }

    #[test]
    fn a_damaged_stream_is_read_up_to_the_damage() {
        let stream = [event("a", "{}"), event("b", "{\"text\":1}"), event("c", "{}")].concat();
        let (from, to) = (event("a", "{}").len(), stream.len() - event("c", "{}").len());
        for at in from..to {
            let mut damaged = stream.clone();
            damaged[at] ^= 0x10;
            let decoded = assert_cuts_change_nothing(&damaged, decode);
            assert!(decoded.broken, "byte {at}");
            assert_eq!(decoded.events.len(), 1, "byte {at}: framing is lost");
        }
    }

    #[test]
    fn a_stream_cut_short_hands_over_whole_messages_only() {
        let stream = [event("a", "{}"), event("b", "{}")].concat();
        let first = event("a", "{}").len();
        for length in 0..=stream.len() {
            let decoded = decode(&[&stream[..length]]);
            assert_eq!(decoded.events.len(), length / first);
            assert_eq!(decoded.between_messages, length % first == 0, "cut short at {length}");
            assert!(!decoded.broken);
        }
    }

    #[test]
    fn a_span_is_the_whole_message() {
        let (one, other) = (event("a", "{}"), event("b", "{\"c\":1}"));
        let events = decode(&[&[&one[..], &other].concat()]).events;
        assert_eq!(events[0].2, 0..one.len() as u64);
        assert_eq!(events[1].2, one.len() as u64..(one.len() + other.len()) as u64);
        assert_eq!(events[1].1, b"{\"c\":1}");
    }

    #[test]
    fn where_a_stream_is_cut_changes_nothing() {
        let large = event("large", &"x".repeat(MAX_EVENT_BYTES));
        let exception =
            message(&[header(":message-type", "exception"), header(":exception-type", "t")].concat(), b"{}");
        assert_cuts_change_nothing(&[event("a", "{}"), event("b", ""), exception].concat(), decode);
        assert_cuts_change_nothing(&[event("a", "{}"), large, event("b", "{}")].concat(), decode);
    }

    #[test]
    fn a_message_that_is_too_large_is_skipped_and_counted() {
        let large = event("large", &"x".repeat(MAX_EVENT_BYTES));
        let decoded = decode(&[&[event("a", "{}"), large.clone(), large, event("b", "{}")].concat()]);
        assert_eq!((decoded.events.len(), decoded.overflowed, decoded.broken), (2, 2, false));
    }

    #[test]
    fn lengths_that_are_not_allowed_end_the_reading() {
        for (total, headers, broken) in [
            (15, 0, true),
            (16, 1, true),
            (u32::MAX, u32::MAX, true),
            (16 + (24 << 20), 0, false),
            (17 + (24 << 20), 0, true),
            (16 + (128 << 10), 128 << 10, false),
            (17 + (128 << 10), (128 << 10) + 1, true),
        ] {
            let mut prelude = [u32::to_be_bytes(total), u32::to_be_bytes(headers)].concat();
            prelude.extend(crc32fast::hash(&prelude).to_be_bytes());
            let decoded = decode(&[&prelude]);
            assert_eq!(decoded.broken, broken, "{total} {headers}");
            assert_eq!(decoded.overflowed, u64::from(!broken));
        }
    }

    #[test]
    fn headers_of_any_bytes_are_read_without_harm() {
        let mut random = Random::new(7);
        for _ in 0..2_000 {
            let length = random.below(60);
            let headers = random.bytes(length);
            assert_eq!(names(&message(&headers, b"{}")).len(), 1);
        }
    }
}
