//! Paced: a stored stream, given as it came from the provider: the same pieces, with the same time between them. No task
//! waits for it, only the one timer it has, which ends with it. Knows no app, and writes no record.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::cache::pace::Pace;

/// A stored stream on its way.
#[derive(Debug)]
pub(super) struct Paced {
    rest: Bytes,
    pace: Pace,
    /// The number of the next piece.
    next: usize,
    /// When it is due.
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Paced {
    /// All of `body`: the first piece comes as long from now as it came after its request.
    pub(super) fn new(body: Bytes, pace: Pace) -> Self {
        let due = Instant::now() + pace.piece(0).map_or(Duration::ZERO, |(after, _)| after);
        Self { rest: body, pace, next: 0, due, timer: Box::pin(sleep_until(due)) }
    }

    /// The next piece, once it is due; `None` after the last.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.timer.as_mut().poll(cx));
        let bytes = self.pace.piece(self.next).map_or(self.rest.len(), |(_, bytes)| bytes.min(self.rest.len()));
        self.next += 1;
        // By the time the piece before it was due, not by now: what is fetched late does not make the rest late.
        self.due += self.pace.piece(self.next).map_or(Duration::ZERO, |(after, _)| after);
        self.timer.as_mut().reset(self.due);
        Poll::Ready(Some(self.rest.split_to(bytes)))
    }

    /// How much is still to come.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::sleep;

    use super::*;
    use crate::cache::pace::Pacing;

    /// `abcdef` in three pieces: after 300 ms, at once, and after 2 s more.
    fn paced() -> Paced {
        let begun = Instant::now();
        let mut pacing = Pacing::begin(begun);
        for (bytes, millis) in [(2, 300), (1, 300), (3, 2300)] {
            pacing.note(bytes, begun + Duration::from_millis(millis));
        }
        Paced::new(Bytes::from_static(b"abcdef"), pacing.end())
    }

    async fn next(paced: &mut Paced) -> Option<Bytes> {
        poll_fn(|cx| paced.poll_piece(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn every_piece_comes_as_it_came() {
        let begun = Instant::now();
        let mut paced = paced();
        for (piece, millis, left) in [("ab", 300, 4), ("c", 300, 3), ("def", 2300, 0)] {
            assert_eq!(next(&mut paced).await.as_deref(), Some(piece.as_bytes()));
            assert_eq!((begun.elapsed().as_millis(), paced.left()), (millis, left), "{piece}");
        }
        assert_eq!(next(&mut paced).await, None);
        assert_eq!(begun.elapsed().as_millis(), 2300, "the end is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_that_reads_late_is_given_the_rest_when_it_is_due() {
        let begun = Instant::now();
        let mut paced = paced();
        assert_eq!(next(&mut paced).await.as_deref(), Some(&b"ab"[..]));
        sleep(Duration::from_secs(1)).await;
        for (piece, millis) in [("c", 1300), ("def", 2300)] {
            assert_eq!(next(&mut paced).await.as_deref(), Some(piece.as_bytes()));
            assert_eq!(begun.elapsed().as_millis(), millis, "{piece}");
        }
    }
}
