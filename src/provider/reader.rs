//! Reader: reads one reply as its bytes pass, in whatever coding and framing it comes, with what its API says it means.
//!
//! Only ever sees a copy. What it cannot read (another content type, an unknown coding, a body over the limit) costs
//! knowledge, never the reply. Knows no API itself, and no socket.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::allowance::Share;
use crate::coding;
use crate::frames::{self, Event};
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{Events, Framing};
use crate::provider::stop::{Stopper, UsedSoFar};
use crate::provider::{Ending, EventKind, Problem, ReadReply, Said};
use crate::record::content::Text;

/// Reads one reply.
pub struct Reader {
    status: StatusCode,
    coding: Option<coding::Decoder>,
    body: Body,
    /// Whether something in the reply says that nothing follows.
    marks_its_end: bool,
    /// Bytes taken in, as they came.
    received: u64,
    /// How much is kept of what it says, in bytes.
    keeps: usize,
    /// What accounts for what is held until it can be read, where that is bounded for all replies together.
    share: Option<Share>,
}

enum Body {
    /// Event by event.
    Events(Box<Stream>),
    /// In one piece, kept until it is complete.
    Whole(Kept, Box<dyn ReadReply>),
    /// Not read.
    Opaque,
}

/// A stream that is read.
struct Stream {
    endpoint: Endpoint,
    framing: Framing,
    events: frames::Decoder,
    has_begun: bool,
    /// Bytes taken in, without their coding.
    plain: u64,
    reply: Box<dyn ReadReply>,
    stopper: Option<Stopper>,
}

/// A body kept until it is complete. One that comes in one piece is not copied.
struct Kept {
    first: Bytes,
    joined: Vec<u8>,
    max_bytes: usize,
}

impl Reader {
    /// For a reply with this head. It is read as what it says it is, not as what was asked for: errors come as JSON even
    /// where a stream was asked for. A body larger than `max_bytes`, or an event of that size, is not read.
    #[must_use]
    pub fn open(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap, max_bytes: usize) -> Self {
        let coding = coding_of(headers, max_bytes);
        let content_type = header(headers, &CONTENT_TYPE).unwrap_or("application/json");
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is_lower = !essence.bytes().any(|byte| byte.is_ascii_uppercase());
        let essence = if is_lower { Cow::Borrowed(essence) } else { Cow::Owned(essence.to_ascii_lowercase()) };
        let reply = || {
            let mut reply = (endpoint.format().reader)(endpoint);
            reply.head(headers);
            reply
        };
        let body = if coding.is_none() || !endpoint.is_read() {
            Body::Opaque
        } else if let Some(framing) = framing(endpoint, &essence).filter(|_| status.is_success()) {
            let events = framing.decoder(max_bytes);
            Body::Events(Box::new(Stream {
                endpoint,
                framing,
                events,
                has_begun: false,
                plain: 0,
                reply: reply(),
                stopper: None,
            }))
        } else if essence == "application/json" || essence.ends_with("+json") {
            Body::Whole(Kept { first: Bytes::new(), joined: Vec::new(), max_bytes }, reply())
        } else {
            Body::Opaque
        };
        // Gemini says of each candidate why it ended, not how many there are, nor whether more is to come.
        let marks_its_end = endpoint != Endpoint::StreamGenerateContent;
        Self { status, coding, body, marks_its_end, received: 0, keeps: 0, share: None }
    }

    /// Holds what cannot be read yet on account of `share`. Where there is no room, the reply is not read on.
    pub fn hold_within(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// Keeps up to `most` bytes of what it says: of the body without its coding, or of the texts of its events, joined.
    pub fn keep_text(&mut self, most: usize) {
        self.keeps = most;
    }

    /// Takes the notes from now on that it takes to end the stream early. Whether it can be: it is one that is read as
    /// it is, in a format that has such an end.
    pub fn prepare_to_stop(&mut self, endpoint: Endpoint) -> bool {
        let is_plain = self.is_plain();
        let Body::Events(stream) = &mut self.body else { return false };
        stream.stopper = Stopper::open(endpoint, stream.framing).filter(|_| is_plain);
        stream.stopper.is_some()
    }

    /// What has to follow the last event that came, if nothing more is to come. `None` if the stream cannot be ended
    /// here.
    #[must_use]
    pub fn ending(&self, used: UsedSoFar) -> Option<Vec<u8>> {
        let Body::Events(stream) = &self.body else { return None };
        stream.stopper.as_ref()?.end(used)
    }

    /// What has to follow, if nothing more is to come because of `problem`: an error of the stream's own format. `None` if
    /// there is no place for one here: what has come ends in the middle of an event, or is no stream that is read as it is.
    #[must_use]
    pub fn failure(&self, problem: &Problem<'_>) -> Option<Vec<u8>> {
        /// Far more than any error has.
        const MAX_BYTES: usize = 64 << 10;
        let Body::Events(stream) = &self.body else { return None };
        let Stream { endpoint, framing, events, has_begun, .. } = &**stream;
        let is_between_events = events.incomplete_from() == self.received && (*has_begun || self.received == 0);
        if !self.is_plain() || !is_between_events {
            return None;
        }
        let mut out = Events::going_on(*framing, *has_begun, MAX_BYTES);
        (endpoint.format().fail)(*endpoint, problem, &mut out)?;
        Some(out.finish())
    }

    /// Bytes taken in, as they came.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of what a stream brought so far that was generated, as far as it is text.
    #[must_use]
    pub fn generated(&self) -> u64 {
        match &self.body {
            Body::Events(stream) => stream.reply.generated(),
            Body::Whole(..) | Body::Opaque => 0,
        }
    }

    /// Whether the reply's bytes are read as they are: only then do spans fit what passes.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.coding.as_ref().is_some_and(coding::Decoder::is_identity)
    }

    /// Whether something in the reply says that nothing follows; else only its connection's end does.
    #[must_use]
    pub const fn marks_its_end(&self) -> bool {
        self.marks_its_end
    }

    /// Whether the reply is read event by event.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self.body, Body::Events(..))
    }

    /// Takes the reply's next piece, and hands over what each event that is complete with it is, and where it stood in
    /// the stream once its coding is undone.
    pub fn push(&mut self, chunk: &Bytes, on_event: &mut dyn FnMut(EventKind, Range<u64>)) {
        self.received += chunk.len() as u64;
        let Some(coding) = &mut self.coding else { return };
        let share = &mut self.share;
        let mut has_room = |bytes: usize| share.as_mut().is_none_or(|share| share.grow_to(bytes));
        let readable = match &mut self.body {
            Body::Events(stream) => {
                let Stream { events, has_begun, plain, reply, stopper, .. } = &mut **stream;
                let mut read = |event: Event<'_>| {
                    *has_begun = true;
                    if let Some(stopper) = stopper {
                        stopper.note(&event);
                    }
                    on_event(reply.event(&event), event.span);
                };
                let decoded = coding.push(chunk, &mut |bytes| {
                    *plain += bytes.len() as u64;
                    events.push(bytes, &mut read);
                });
                let held = plain.saturating_sub(events.incomplete_from());
                decoded.is_ok() && has_room(usize::try_from(held).unwrap_or(usize::MAX))
            }
            Body::Whole(kept, _) if coding.is_identity() => {
                has_room(kept.bytes().len() + chunk.len()) && kept.add(chunk)
            }
            Body::Whole(kept, _) => {
                let mut fits = true;
                let mut add = |bytes: &[u8]| {
                    fits = fits && has_room(kept.bytes().len() + bytes.len()) && kept.add_copy(bytes);
                };
                coding.push(chunk, &mut add).is_ok() && fits
            }
            Body::Opaque => true,
        };
        if !readable {
            self.body = Body::Opaque;
            self.share = None;
        }
    }

    /// The offset (measured as spans are) before which every event is complete: what follows it may yet turn out to be
    /// an event that is only about usage. Where the reply is not read as a stream, all that came.
    #[must_use]
    pub fn incomplete_from(&self) -> u64 {
        match &self.body {
            Body::Events(stream) => stream.events.incomplete_from(),
            Body::Whole(..) | Body::Opaque => self.received,
        }
    }

    /// What the reply said, once nothing more comes of it. A reply that was not read has [`Ending::Unknown`], or
    /// [`Ending::Failed`] if its status is no success; so has one without a body.
    #[must_use]
    pub fn finish(self) -> Said {
        let said = self.read_to_its_end();
        Said { facts: said.facts.bounded(), ..said }
    }

    fn read_to_its_end(self) -> Said {
        let keeps = self.keeps;
        let text = |text: &[u8], length: u64| (keeps > 0).then(|| Text::beginning(text, length, keeps));
        let unread = if self.status.is_success() { Ending::Unknown } else { Ending::Failed };
        match self.body {
            Body::Events(stream) => {
                let Stream { mut events, mut reply, .. } = *stream;
                let end = events.finish(&mut |event| {
                    reply.event(&event);
                });
                let mut said = reply.finish();
                said.text = text(said.output.text().as_bytes(), said.output.bytes());
                if end == frames::End::Torn && said.ending.is_success() {
                    said.ending = Ending::Unfinished;
                }
                if said.ending == Ending::Unfinished && events.overflowed() > 0 {
                    // The end marker may have been in an event that was not read.
                    said.ending = unread;
                }
                said
            }
            Body::Whole(kept, mut reply) if !kept.bytes().is_empty() => {
                reply.whole(self.status, kept.bytes());
                Said { text: text(kept.bytes(), kept.bytes().len() as u64), ..reply.finish() }
            }
            Body::Whole(..) | Body::Opaque => Said { ending: unread, ..Said::default() },
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = match self.body {
            Body::Events(..) => "events",
            Body::Whole(..) => "whole",
            Body::Opaque => "opaque",
        };
        f.debug_struct("Reader").field("body", &body).field("received", &self.received).finish_non_exhaustive()
    }
}

/// The framing of a stream of this content type; `None` if it is none. What Gemini streams as JSON is one array.
fn framing(endpoint: Endpoint, essence: &str) -> Option<Framing> {
    let is_gemini = endpoint == Endpoint::StreamGenerateContent;
    Some(match essence {
        "application/json" if is_gemini => Framing::Array,
        "text/event-stream" if is_gemini => Framing::CrlfEvents,
        "text/event-stream" => Framing::Events,
        "application/x-ndjson" | "application/jsonl" | "application/stream+json" => Framing::Lines,
        "application/vnd.amazon.eventstream" => Framing::Messages,
        _ => return None,
    })
}

impl Kept {
    /// Adds a piece; whether it still fits.
    fn add(&mut self, chunk: &Bytes) -> bool {
        if self.bytes().is_empty() && chunk.len() <= self.max_bytes {
            self.first = chunk.clone();
            return true;
        }
        self.add_copy(chunk)
    }

    fn add_copy(&mut self, bytes: &[u8]) -> bool {
        if self.bytes().len() + bytes.len() > self.max_bytes {
            return false;
        }
        self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        self.joined.extend_from_slice(bytes);
        true
    }

    fn bytes(&self) -> &[u8] {
        if self.first.is_empty() { &self.joined } else { &self.first }
    }
}

/// Undoes the reply's coding, if it is one that can be undone.
fn coding_of(headers: &HeaderMap, max_bytes: usize) -> Option<coding::Decoder> {
    let several = headers.get_all(CONTENT_ENCODING).iter().count() > 1;
    let undone = || coding::Decoder::for_content_encoding(header(headers, &CONTENT_ENCODING), max_bytes);
    if several { None } else { undone() }
}

/// A header's value, where it is text.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const STREAM: &[u8] =
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
    const WHOLE: &[u8] = b"{\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}],\
        \"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}";

    fn open(status: u16, fields: &[(HeaderName, &'static str)]) -> Reader {
        let fields = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        let status = StatusCode::from_u16(status).expect("a status");
        Reader::open(Endpoint::ChatCompletions, status, &headers, 500)
    }

    /// How the reply ended, and whether usage was learnt.
    fn read(mut reader: Reader, body: &'static [u8]) -> (Ending, bool) {
        reader.push(&Bytes::from_static(body), &mut |_, _| {});
        let said = reader.finish();
        (said.ending, said.usage.is_some())
    }

    #[test]
    fn what_it_says_is_kept_where_that_is_wanted() {
        const STREAM: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"4111 1111 \"}}]}\n\n\
            data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"1111 1111\"}}]}\n\ndata: [DONE]\n\n";
        for (content_type, body, most, expected) in [
            ("text/event-stream", STREAM, 0, None),
            ("text/event-stream", STREAM, 100, Some((&b"4111 1111 1111 1111"[..], false))),
            ("text/event-stream", STREAM, 9, Some((b"4111 1111", true))),
            ("application/json", WHOLE, 500, Some((WHOLE, false))),
            ("application/json", WHOLE, 3, Some((b"{\"c", true))),
            ("image/png", WHOLE, 500, None),
        ] {
            let mut reader = open(200, &[(CONTENT_TYPE, content_type)]);
            reader.keep_text(most);
            reader.push(&Bytes::from_static(body), &mut |_, _| {});
            let text = reader.finish().text;
            let kept = text.as_ref().map(|text| (&*text.bytes, text.is_cut()));
            assert_eq!(kept, expected, "{content_type}, {most} bytes");
        }
    }

    #[test]
    fn a_reply_is_read_as_what_it_says_it_is() {
        for (content_type, body, expected) in [
            ("text/event-stream", STREAM, (Ending::Complete, true)),
            ("Text/Event-Stream ; charset=utf-8", STREAM, (Ending::Complete, true)),
            ("text/event-stream", WHOLE, (Ending::Unfinished, false)),
            ("application/json", WHOLE, (Ending::Complete, true)),
            ("application/problem+json; charset=utf-8", WHOLE, (Ending::Complete, true)),
            ("application/json", STREAM, (Ending::Unfinished, false)),
            ("text/html", WHOLE, (Ending::Unknown, false)),
            ("application/octet-stream", WHOLE, (Ending::Unknown, false)),
        ] {
            assert_eq!(read(open(200, &[(CONTENT_TYPE, content_type)]), body), expected, "{content_type}");
        }
        assert_eq!(read(open(200, &[]), WHOLE), (Ending::Complete, true), "JSON, where nothing is said");
    }

    #[test]
    fn what_cannot_be_decoded_is_unknown_and_no_failure() {
        for codings in [&["zstd"][..], &["gzip, br"], &["gzip", "br"], &["gzip"]] {
            let mut fields = vec![(CONTENT_TYPE, "application/json")];
            fields.extend(codings.iter().map(|coding| (CONTENT_ENCODING, *coding)));
            assert_eq!(read(open(200, &fields), WHOLE), (Ending::Unknown, false), "{codings:?}");
        }
    }

    #[test]
    fn an_error_status_is_a_failure_whatever_the_body_says() {
        for content_type in ["application/json", "text/event-stream", "text/html"] {
            for body in [WHOLE, STREAM, b""] {
                assert_eq!(read(open(500, &[(CONTENT_TYPE, content_type)]), body), (Ending::Failed, false));
            }
        }
    }

    #[test]
    fn a_reply_without_a_body_is_no_failure() {
        assert_eq!(read(open(204, &[]), b""), (Ending::Unknown, false));
        assert_eq!(read(open(200, &[(CONTENT_TYPE, "application/json")]), b""), (Ending::Unknown, false));
    }

    #[test]
    fn a_body_over_the_limit_is_let_go() {
        let long: &'static [u8] = [b"{\"padding\":\"", vec![b'x'; 500].as_slice(), b"\",", &WHOLE[1..]].concat().leak();
        for size in [1, 100, 1000] {
            let mut reader = open(200, &[]);
            for piece in long.chunks(size) {
                reader.push(&Bytes::from_static(piece), &mut |_, _| {});
            }
            assert!(matches!(reader.body, Body::Opaque));
            assert_eq!(reader.incomplete_from(), long.len() as u64, "nothing is pending");
            assert_eq!(reader.finish().ending, Ending::Unknown);
        }
    }

    #[test]
    fn an_end_marker_in_an_event_over_the_limit_is_not_missed() {
        let long: &'static [u8] = [b"data: ", vec![b'x'; 500].as_slice(), b"\n\n"].concat().leak();
        let stream = || open(200, &[(CONTENT_TYPE, "text/event-stream")]);
        assert_eq!(read(stream(), long), (Ending::Unknown, false), "it may have been there");
        assert_eq!(read(stream(), [long, STREAM].concat().leak()), (Ending::Complete, true), "it came later");
    }

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let mut reader = open(200, &[]);
        let body = Bytes::from_static(WHOLE);
        reader.push(&body, &mut |_, _| {});
        let Body::Whole(kept, _) = &reader.body else { unreachable!("JSON is read whole") };
        assert!(std::ptr::eq(kept.bytes(), WHOLE));
    }

    #[test]
    fn a_reader_may_move_between_threads() {
        const fn sends<T: Send>() {}
        sends::<Reader>();
    }

    #[test]
    fn other_endpoints_are_not_read() {
        let mut reader = Reader::open(Endpoint::Other, StatusCode::OK, &HeaderMap::new(), 500);
        reader.push(&Bytes::from_static(WHOLE), &mut |_, _| {});
        assert_eq!(reader.finish(), Said { ending: Ending::Unknown, ..Said::default() });
    }
}
