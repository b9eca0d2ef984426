//! Kept: a bounded copy of a request's body. What is too large, by itself or beside those of other calls, and what is
//! nothing weir reads, streams straight through.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use serde_json_borrow::Value;

use crate::allowance::Share;
use crate::coding;
use crate::exchange::form;
use crate::units::ByteSize;
use crate::upstream::RequestBody;
use crate::upstream::incoming::{AppBody, BrokenBody};

/// How much is read of a form that is too large to keep: enough for the fields that stand before the file.
const FORM_BYTES: ByteSize = ByteSize::kib(64);

/// How much of `body` is to be kept; nothing at all of one that announces more than `most`, but the beginning of a form.
pub(super) fn limit(headers: &HeaderMap, body: &Incoming, most: ByteSize) -> Option<ByteSize> {
    if body.size_hint().lower() <= most.bytes() {
        return Some(most);
    }
    form::boundary(headers).map(|_| FORM_BYTES.min(most))
}

/// How much is wanted of a body.
#[derive(Debug)]
pub(super) struct Want {
    /// As much as this.
    pub(super) up_to: ByteSize,
    /// On account of this.
    pub(super) share: Share,
    /// Whether it is of no use unless it is all there.
    pub(super) must_be_whole: bool,
}

/// A request's body, as far as it was read.
#[derive(Debug)]
pub(super) enum Kept {
    /// All of it.
    Whole(Bytes),
    /// The beginning; the rest is still to come.
    Beginning(Bytes, AppBody),
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The app breaks off, or stalls.
    Broken(BrokenBody),
    /// It has to be whole, and there is no room for it beside those of other calls.
    NoRoom,
}

impl Kept {
    /// Reads as much of `body` as is wanted, and as there is room for; nothing at all if nothing is.
    ///
    /// # Errors
    /// [`Unread`] if the app breaks off, or if there is no room for what has to be whole.
    pub(super) async fn read(mut body: AppBody, want: Option<Want>) -> Result<Self, Unread> {
        let Some(Want { up_to, mut share, must_be_whole }) = want else {
            return Ok(Self::Beginning(Bytes::new(), body));
        };
        let limit = up_to.as_len();
        let announced = body.size_hint().exact().map(|exact| usize::try_from(exact).unwrap_or(usize::MAX).min(limit));
        let (mut first, mut more) = (Bytes::new(), BytesMut::new());
        let mut has_room = share.grow_to(announced.unwrap_or(0));
        while has_room {
            let Some(frame) = body.frame().await else {
                return Ok(Self::Whole(share.keep(joined(first, more))));
            };
            let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
            if first.is_empty() {
                first = data;
            } else {
                if more.is_empty() {
                    more.reserve(announced.unwrap_or(first.len() + data.len()));
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&data);
            }
            let length = first.len().max(more.len());
            if length > limit {
                return Ok(Self::Beginning(share.keep(joined(first, more)), body));
            }
            has_room = share.grow_to(length);
        }
        if must_be_whole {
            return Err(Unread::NoRoom);
        }
        Ok(Self::Beginning(share.keep(joined(first, more)), body))
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

/// The pieces of a body: one as it came, or several put together.
fn joined(first: Bytes, more: BytesMut) -> Bytes {
    if more.is_empty() { first } else { more.freeze() }
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
