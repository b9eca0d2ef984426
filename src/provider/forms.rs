//! Forms: one answer in another form. What a provider sent in one piece, as the stream that it would have been, and the
//! reverse.
//!
//! Bytes go in and bytes come out, true to the provider's format, or nothing: what cannot be said in the other form
//! without losing or inventing something is declined. An API says in its room how its pieces come together ([`Forms`]);
//! content codings, framings and bounds are dealt with here. Knows no cache.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json_borrow::Value;

use crate::coding;
use crate::frames::{self, End, array, eventstream, lines, sse};
use crate::provider::endpoint::Endpoint;
use crate::provider::reader::Reader;
use crate::provider::tree::Object;
use crate::provider::{EventKind, MAX_NAMES, Request};
use crate::record::call::Form;

/// The forms that the answers of one kind of endpoint have.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// Every form there is.
    pub all: &'static [Form],
    /// The form that a request asks for. `None` if that is not one of those known here.
    pub asked: fn(&Request<'_>) -> Option<Form>,
    /// Top-level members of a request's body that only say the form.
    pub members: &'static [&'static str],
    /// Parameters of a request's query that only say the form.
    pub queries: &'static [&'static str],
    /// How a path ends that asks for a stream, and how it ends for one piece, where paths say so.
    pub path_ends: Option<(&'static str, &'static str)>,
    /// How the events of a stream are framed.
    pub(super) framing: Framing,
    /// The whole that the events of a stream of this form amount to.
    pub(super) to_whole: fn(Vec<Event>, Form) -> Option<Object>,
    /// The events of a stream of this form, as which a whole might have come.
    pub(super) to_events: fn(Object, Form, &mut Events) -> Option<()>,
}

/// A stored answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The form it was asked for in.
    pub form: Form,
    /// Its header fields, as far as they describe its body.
    pub headers: &'a HeaderMap,
    /// All that the provider sent of its body.
    pub body: &'a Bytes,
}

/// An answer in another form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its content type. It has no content coding.
    pub content_type: HeaderValue,
    /// Its body.
    pub body: Bytes,
}

/// How the events of a stream are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Server-sent events, with names or without.
    Events,
    /// Server-sent events with CRLF.
    CrlfEvents,
    /// One object a line.
    Lines,
    /// The elements of one list.
    Array,
    /// AWS's binary messages.
    Messages,
}

/// An event of a stream.
#[derive(Debug)]
pub(super) enum Event {
    /// An object, and what the framing calls it.
    Object(Box<str>, Object),
    /// `[DONE]`.
    Done,
}

/// The events of a stream, as they are written.
#[derive(Debug)]
pub(super) struct Events {
    framing: Framing,
    bytes: Vec<u8>,
    max_bytes: usize,
    /// Whether there are events before the next.
    has_begun: bool,
    /// Whether they stand in the `bytes` of messages called `chunk`, as Bedrock hands on other vendors' events.
    is_wrapped: bool,
}

/// `answer`, as it would have come in the form `to`. `None` if that cannot be said without losing or inventing
/// something, or if either takes more than `max_bytes`.
#[must_use]
pub fn render(endpoint: Endpoint, answer: &Answer<'_>, to: Form, max_bytes: usize) -> Option<Rendered> {
    let forms = endpoint.forms()?;
    let body = decoded(answer, max_bytes)?;
    let content_type = answer.headers.get(CONTENT_TYPE);
    match (answer.form, to) {
        (from, to) if from == to && to != Form::StreamWithoutUsage => {
            Some(Rendered { content_type: content_type?.clone(), body })
        }
        (Form::StreamWithUsage | Form::StreamWithoutUsage, Form::StreamWithUsage | Form::StreamWithoutUsage) => {
            let content_type = content_type?.clone();
            let (without, removed) = without_usage(endpoint, &content_type, &body);
            match to {
                Form::StreamWithoutUsage => Some(Rendered { content_type, body: without }),
                _ => removed.then_some(Rendered { content_type, body }),
            }
        }
        (Form::Whole, to) => forms.write(Object::read(&body)?, to, max_bytes),
        (from, to) => {
            let events = events_in(&body, forms.framing_of(from), max_bytes)?;
            forms.write((forms.to_whole)(events, from)?, to, max_bytes)
        }
    }
}

impl Forms {
    fn framing_of(&self, form: Form) -> Framing {
        if form == Form::Array { Framing::Array } else { self.framing }
    }

    fn write(&self, whole: Object, form: Form, max_bytes: usize) -> Option<Rendered> {
        if form == Form::Whole {
            let body = serde_json::to_vec(&whole).ok().filter(|body| body.len() <= max_bytes)?;
            return Some(Rendered { content_type: HeaderValue::from_static("application/json"), body: body.into() });
        }
        let framing = self.framing_of(form);
        let mut events = Events::going_on(framing, false, max_bytes);
        (self.to_events)(whole, form, &mut events)?;
        Some(Rendered { content_type: HeaderValue::from_static(framing.content_type()), body: events.finish().into() })
    }
}

impl Framing {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream; charset=utf-8",
            Self::CrlfEvents => "text/event-stream",
            Self::Lines => "application/x-ndjson",
            Self::Array => "application/json; charset=UTF-8",
            Self::Messages => "application/vnd.amazon.eventstream",
        }
    }

    pub(super) fn decoder(self, max_bytes: usize) -> frames::Decoder {
        match self {
            Self::Events | Self::CrlfEvents => frames::Decoder::Sse(sse::Decoder::new(max_bytes)),
            Self::Lines => frames::Decoder::Lines(lines::Decoder::new(max_bytes)),
            Self::Array => frames::Decoder::Array(array::Decoder::new(max_bytes)),
            Self::Messages => frames::Decoder::EventStream(eventstream::Decoder::new(max_bytes)),
        }
    }
}

impl Events {
    /// The events of a stream of which others may have come before: whether it `has_begun`.
    pub(super) const fn going_on(framing: Framing, has_begun: bool, max_bytes: usize) -> Self {
        Self { framing, bytes: Vec::new(), max_bytes, has_begun, is_wrapped: false }
    }

    /// Writes what `write` does, wrapped as Bedrock does it.
    pub(super) fn wrapped(&mut self, write: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.is_wrapped = true;
        let written = write(self);
        self.is_wrapped = false;
        written
    }

    /// Writes an event, with a name where `name` is one.
    pub(super) fn push(&mut self, name: &str, event: &impl Serialize) -> Option<()> {
        let json = on_one_line(serde_json::to_vec(event).ok()?);
        let name_line = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
        match self.framing {
            Framing::Events => self.write(&[name_line.as_bytes(), b"data: ", &json, b"\n\n"]),
            Framing::CrlfEvents => self.write(&[b"data: ", &json, b"\r\n\r\n"]),
            Framing::Lines => self.write(&[&json, b"\n"]),
            Framing::Array if std::mem::replace(&mut self.has_begun, true) => self.write(&[b",\r\n", &json]),
            Framing::Array => self.write(&[b"[", &json]),
            Framing::Messages if self.is_wrapped => {
                let bytes = BASE64_STANDARD.encode(&json);
                let chunk = serde_json::to_vec(&Object::new().with("bytes", bytes)).ok()?;
                self.write(&[&eventstream::json_event("chunk", &chunk)?])
            }
            Framing::Messages => self.write(&[&eventstream::json_event(name, &json)?]),
        }
    }

    /// Writes an exception, where the framing has any.
    pub(super) fn push_exception(&mut self, kind: &str, payload: &impl Serialize) -> Option<()> {
        if self.framing != Framing::Messages {
            return None;
        }
        let headers =
            [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
        self.write(&[&eventstream::encode(&headers, &serde_json::to_vec(payload).ok()?)?])
    }

    /// Writes the mark after the last event of OpenAI's streams and Cohere's.
    pub(super) fn push_done(&mut self) -> Option<()> {
        self.write(&[b"data: [DONE]\n\n"])
    }

    fn write(&mut self, pieces: &[&[u8]]) -> Option<()> {
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        (self.bytes.len() <= self.max_bytes).then_some(())
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.framing == Framing::Array {
            self.bytes.extend_from_slice(b"]");
        }
        self.bytes
    }
}

/// JSON without its line ends and what indents its lines. No text in it has any: there they are escaped.
fn on_one_line(json: Vec<u8>) -> Vec<u8> {
    if memchr::memchr2(b'\n', b'\r', &json).is_none() {
        return json;
    }
    let lines = json.split(|byte| matches!(byte, b'\n' | b'\r'));
    lines.flat_map(<[u8]>::trim_ascii_start).copied().collect()
}

/// The body without its content coding.
fn decoded(answer: &Answer<'_>, max_bytes: usize) -> Option<Bytes> {
    let mut codings = answer.headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map(HeaderValue::to_str).transpose().ok()?;
    let mut decoder = coding::Decoder::for_content_encoding(coding, max_bytes).filter(|_| codings.next().is_none())?;
    if decoder.is_identity() {
        return Some(answer.body.clone());
    }
    let mut plain = Vec::new();
    decoder.push(answer.body, &mut |bytes| plain.extend_from_slice(bytes)).ok()?;
    Some(plain.into())
}

/// A stream without the events that are about usage and nothing else, and whether there were any: exactly what an app
/// gets that did not ask for them.
fn without_usage(endpoint: Endpoint, content_type: &HeaderValue, stream: &Bytes) -> (Bytes, bool) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, content_type.clone());
    let mut reader = Reader::open(endpoint, StatusCode::OK, &headers, stream.len());
    let mut spans = Vec::new();
    reader.push(stream, &mut |kind, span| {
        if kind == EventKind::UsageOnly {
            spans.push(span);
        }
    });
    if spans.is_empty() {
        return (stream.clone(), false);
    }
    let place = |offset: u64| usize::try_from(offset).map_or(stream.len(), |offset| offset.min(stream.len()));
    let mut rest = Vec::with_capacity(stream.len());
    let mut from = 0;
    for span in spans {
        rest.extend_from_slice(&stream[from..place(span.start)]);
        from = place(span.end);
    }
    rest.extend_from_slice(&stream[from..]);
    (rest.into(), true)
}

/// The events of a stream. `None` if one of them is no object, or if it is cut off or damaged.
fn events_in(stream: &[u8], framing: Framing, max_bytes: usize) -> Option<Vec<Event>> {
    let mut decoder = framing.decoder(max_bytes);
    let mut events = Some(Vec::new());
    let mut read = |event: frames::Event<'_>| {
        let read = Event::read(&event);
        events = events.take().zip(read).map(|(mut events, event)| {
            events.push(event);
            events
        });
    };
    decoder.push(stream, &mut read);
    let end = decoder.finish(&mut read);
    events.filter(|_| end != End::Torn && decoder.overflowed() == 0)
}

impl Event {
    fn read(event: &frames::Event<'_>) -> Option<Self> {
        if event.data.trim_ascii() == b"[DONE]" {
            return Some(Self::Done);
        }
        Some(Self::Object(event.name.into(), Object::read(event.data)?))
    }

    /// The object, where no stream has an end marker.
    pub(super) fn into_object(self) -> Option<Object> {
        match self {
            Self::Object(_, object) => Some(object),
            Self::Done => None,
        }
    }
}

/// The one of several things told side by side that has this number; a fresh one, if it is the first to be told of it.
/// `None` if there are too many.
pub(super) fn numbered<T: Default>(known: &mut Vec<(u64, T)>, number: u64) -> Option<&mut T> {
    let at = known.iter().position(|(at, _)| *at == number).unwrap_or(known.len());
    if at == known.len() {
        known.push((number, T::default()));
    }
    known.get_mut(at).filter(|_| at < MAX_NAMES).map(|(_, thing)| thing)
}

/// The form asked for by the member `stream` of a request's body, where an absent one asks for one piece.
pub(super) fn asked_by_body(request: &Request<'_>) -> Option<Form> {
    match request.body.get("stream") {
        Value::Null | Value::Bool(false) => Some(Form::Whole),
        Value::Bool(true) => Some(Form::Stream),
        _ => None,
    }
}
