//! What the fuzz targets share: one reply, read in pieces that the input itself chooses.

use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::value::RawValue;
use serde_json_borrow::Value;
use weir::provider::endpoint::Endpoint;
use weir::provider::reader::Reader;
use weir::provider::{EventKind, Request, Said};
use weir::record::ReplyFacts;

/// Small, so that inputs reach the bound.
const MAX_BYTES: usize = 4096;

/// Content types that a reply is read by, and the codings it may come in.
const CONTENT_TYPES: [&str; 6] = [
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/stream+json",
    "application/vnd.amazon.eventstream",
    "multipart/form-data; boundary=b",
];
const CODINGS: [Option<&str>; 4] = [None, Some("gzip"), Some("br"), Some("deflate")];

/// Cuts `data` into pieces: each is as long as its first byte says.
pub fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (piece, left) = rest.split_at(rest.len().min(usize::from(*length)));
        data = left;
        Some(piece)
    })
}

/// Reads `data` as a request to one of `endpoints`, or as its reply: the first byte says which, and which of the two.
pub fn read(endpoints: &[Endpoint], data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    let endpoint = endpoints[usize::from(which & 127) % endpoints.len()];
    if which & 128 == 0 { read_reply(endpoint, rest) } else { read_request(endpoint, rest) }
}

/// Reads `data` as a reply of `endpoint`: whatever it is, reading ends, and spans stay inside what came.
fn read_reply(endpoint: Endpoint, data: &[u8]) {
    let [how, rest @ ..] = data else { return };
    let mut headers = HeaderMap::new();
    let content_type = CONTENT_TYPES[usize::from(how & 7) % CONTENT_TYPES.len()];
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(coding) = CODINGS[usize::from(how >> 3 & 3)] {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let status = if how & 32 == 0 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
    let mut reader = Reader::open(endpoint, status, &headers, MAX_BYTES);
    let mut last_end = 0;
    for piece in pieces(rest) {
        reader.push(&Bytes::copy_from_slice(piece), &mut |_: EventKind, span: Range<u64>| {
            assert!(last_end <= span.start && span.start <= span.end, "spans follow each other");
            last_end = span.end;
        });
        assert!(reader.incomplete_from() >= last_end);
    }
    let said = reader.finish();
    check(&said);
}

/// What is learnt is bounded, and what was used adds up.
fn check(said: &Said) {
    let ReplyFacts { model, id, service_tier, speed, inference_geo, finish_reasons, tools } = &said.facts;
    assert!(tools.len() <= 128 && finish_reasons.len() <= 128);
    let single = [model, id, service_tier, speed, inference_geo].into_iter().flatten();
    assert!(single.chain(finish_reasons).chain(tools).all(|word| word.len() <= 128), "words are short");
    if let Some(usage) = &said.usage {
        let classes: u128 = usage.tokens_by_class().iter().map(|tokens| u128::from(*tokens)).sum();
        assert!(classes >= u128::from(usage.total_tokens()) || usage.total_tokens() == u64::MAX, "nothing is lost");
    }
}

/// Reads `data` as a request to `endpoint`.
fn read_request(endpoint: Endpoint, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, body) = text.split_once('\n').unwrap_or(("/", text));
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let body = serde_json::from_str::<Value<'_>>(body).unwrap_or(Value::Null);
    let format = endpoint.format();
    let _ = (format.asked)(&Request { endpoint, path, query, body: &body });
    if let Some(change) = format.request_usage
        && let Some(changed) = change(text.as_bytes())
    {
        assert!(serde_json::from_slice::<&RawValue>(&changed).is_ok(), "a changed body is still JSON");
    }
}

/// An AWS event stream of sound messages with the pieces of `data` as payloads, cut into pieces in turn.
pub fn event_stream(data: &[u8]) -> Vec<u8> {
    const NAMES: [&str; 6] =
        ["chunk", "messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata"];
    let mut stream = Vec::new();
    for (number, payload) in pieces(data).enumerate() {
        let mut headers = Vec::new();
        let name = NAMES[payload.first().map_or(number, |first| usize::from(*first)) % NAMES.len()];
        for (header, value) in [(":message-type", "event"), (":event-type", name)] {
            headers.push(u8::try_from(header.len()).expect("short"));
            headers.extend_from_slice(header.as_bytes());
            headers.push(7);
            headers.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
            headers.extend_from_slice(value.as_bytes());
        }
        let payload = payload.get(1..).unwrap_or_default();
        let mut message = u32::try_from(16 + headers.len() + payload.len()).expect("short").to_be_bytes().to_vec();
        message.extend_from_slice(&u32::try_from(headers.len()).expect("short").to_be_bytes());
        message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
        message.extend_from_slice(&headers);
        message.extend_from_slice(payload);
        message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
        for piece in message.chunks(100) {
            stream.push(u8::try_from(piece.len()).expect("at most 100"));
            stream.extend_from_slice(piece);
        }
    }
    stream
}
