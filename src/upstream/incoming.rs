//! Incoming: the app's request body as it comes. It may be slow, but not stall: an app that says nothing more in the middle
//! of its request holds a connection at both ends.
//!
//! Only the time counts in which somebody waits for it: a provider that takes its time to read is no fault of the app's.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

/// The body of a request of the app's.
#[derive(Debug)]
pub struct AppBody {
    body: Incoming,
    patience: Duration,
    /// Since when the next piece is waited for, if it is.
    waiting: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Not all of the app's request body came.
#[derive(Debug, thiserror::Error)]
pub enum BrokenBody {
    /// The app's connection broke.
    #[error("the app's request body broke off")]
    BrokenOff(#[source] hyper::Error),
    /// The app said nothing more.
    #[error("nothing more of the app's request body came within {}", humantime::format_duration(*.0))]
    Stalled(Duration),
}

impl AppBody {
    /// What comes, with at most so much time between its pieces.
    #[must_use]
    pub const fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, waiting: None, timer: None }
    }

    /// Ready once the next piece has been waited for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<BrokenBody> {
        let deadline = *self.waiting.get_or_insert_with(Instant::now) + self.patience;
        // One timer a body, set anew only when it fires: pieces that come in time do not touch it.
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(BrokenBody::Stalled(self.patience));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Body for AppBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BrokenBody::BrokenOff)));
        }
        self.poll_patience(cx).map(|broken| Some(Err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
