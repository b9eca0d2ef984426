//! Reply: the body of a provider's answer. Its beginning may be looked at before it is known what becomes of it; whoever
//! reads it then gets every byte all the same.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// The body of a provider's answer.
#[derive(Debug)]
pub struct ReplyBody {
    /// What has been looked at; `None` where nothing was, or all of that has been read.
    seen: Option<Box<Seen>>,
    rest: Incoming,
}

#[derive(Debug, Default)]
struct Seen {
    bytes: BytesMut,
    /// What came after them that is no such bytes: trailers, or that it broke off.
    after: Option<Result<Frame<Bytes>, hyper::Error>>,
}

impl From<Incoming> for ReplyBody {
    fn from(rest: Incoming) -> Self {
        Self { seen: None, rest }
    }
}

impl ReplyBody {
    /// Looks at its beginning: all of it, if that comes `within` so long and is about `limit` bytes at most. Whether
    /// there is more cannot be told from it. Dropping the future loses nothing.
    pub async fn look(&mut self, limit: usize, within: Duration) -> &[u8] {
        let seen = self.seen.get_or_insert_default();
        let rest = &mut self.rest;
        let looking = async {
            while seen.bytes.len() < limit && seen.after.is_none() {
                match rest.frame().await.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => seen.bytes.extend_from_slice(&data),
                    Some(Ok(Err(trailers))) => seen.after = Some(Ok(trailers)),
                    Some(Err(broken)) => seen.after = Some(Err(broken)),
                    None => return,
                }
            }
        };
        // What has come by then is there.
        let _ = timeout(within, looking).await;
        self.seen.as_ref().map_or(&[], |seen| &seen.bytes)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(mut seen) = self.seen.take() {
            if !seen.bytes.is_empty() {
                let bytes = seen.bytes.split().freeze();
                self.seen = seen.after.is_some().then_some(seen);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if let Some(after) = seen.after {
                return Poll::Ready(Some(after));
            }
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.seen.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(seen) = &self.seen else { return self.rest.size_hint() };
        let (seen, rest) = (seen.bytes.len() as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(seen));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(seen));
        }
        hint
    }
}
