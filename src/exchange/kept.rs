//! Kept: a bounded copy of a request's body. What is too large, or nothing weir reads, streams straight through.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use serde_json_borrow::Value;

use crate::coding;
use crate::exchange::form;
use crate::units::ByteSize;
use crate::upstream::RequestBody;

/// How much is read of a form that is too large to keep: enough for the fields that stand before the file.
const FORM_BYTES: ByteSize = ByteSize::kib(64);

/// How much of `body` is to be kept; nothing at all of one that announces more than `most`, but the beginning of a form.
pub(super) fn limit(headers: &HeaderMap, body: &Incoming, most: ByteSize) -> Option<ByteSize> {
    if body.size_hint().lower() <= most.bytes() {
        return Some(most);
    }
    form::boundary(headers).map(|_| FORM_BYTES.min(most))
}

/// A request's body, as far as it was read.
#[derive(Debug)]
pub(super) enum Kept {
    /// All of it.
    Whole(Bytes),
    /// The beginning; the rest is still to come.
    Beginning(Bytes, Incoming),
}

impl Kept {
    /// Reads up to `limit` bytes of `body`; nothing at all without a limit.
    ///
    /// # Errors
    /// If the app breaks off.
    pub(super) async fn read(mut body: Incoming, limit: Option<ByteSize>) -> Result<Self, hyper::Error> {
        let announced = body.size_hint();
        let Some(limit) = limit.map(ByteSize::as_len) else {
            return Ok(Self::Beginning(Bytes::new(), body));
        };
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if first.is_empty() {
                first = data;
            } else {
                if more.is_empty() {
                    more.reserve(
                        announced
                            .exact()
                            .map_or(first.len() + data.len(), |exact| exact.try_into().unwrap_or(0))
                            .min(limit),
                    );
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&data);
            }
            if first.len().max(more.len()) > limit {
                return Ok(Self::Beginning(if more.is_empty() { first } else { more.freeze() }, body));
            }
        }
        Ok(Self::Whole(if more.is_empty() { first } else { more.freeze() }))
    }

    /// The body to send; `received` counts what comes after the part that was read.
    pub(super) fn into_request_body(self, received: &Arc<AtomicU64>) -> RequestBody {
        match self {
            Self::Whole(body) => RequestBody::whole(body),
            Self::Beginning(kept, rest) => RequestBody::through(kept, rest, Arc::clone(received)),
        }
    }

    /// The text fields of a form, as far as it was read.
    pub(super) fn form(&self, headers: &HeaderMap) -> Option<Value<'_>> {
        let (Self::Whole(bytes) | Self::Beginning(bytes, _)) = self;
        let boundary = form::boundary(headers).filter(|_| !headers.contains_key(CONTENT_ENCODING))?;
        let fields = form::fields(bytes, boundary).map(|(name, text)| (name, Value::Str(text.into())));
        Some(Value::Object(fields.collect()))
    }

    /// How much was read.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Whole(body) | Self::Beginning(body, _) => body.len() as u64,
        }
    }
}

/// `body` without its content coding, for reading; `None` if it cannot be undone within `limit` bytes.
pub(super) fn decoded(body: &Bytes, headers: &HeaderMap, limit: usize) -> Option<Bytes> {
    let Some(coding) = headers.get(CONTENT_ENCODING) else { return Some(body.clone()) };
    let mut decoder = coding::Decoder::for_content_encoding(Some(coding.to_str().ok()?), limit)?;
    let mut plain = Vec::new();
    decoder.push(body, &mut |piece: &[u8]| plain.extend_from_slice(piece)).ok()?;
    Some(plain.into())
}

/// Replaces the body's length where the head announces one.
pub(super) fn announce_length(headers: &mut HeaderMap, length: usize) {
    if headers.contains_key(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}
