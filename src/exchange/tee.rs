//! Tee: a reply on its way to one app, from a call of its own or one that others share. Pulled by the app's own pace, so
//! back-pressure reaches the provider. Closes the app's record: at the end, or when the app hangs up.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::cache::flight::log::Log;
use crate::cache::flight::{Company, Left, Next, Ride};
use crate::exchange::Rooms;
use crate::exchange::entry::Entry;
use crate::exchange::fetch::{self, Ended, Fetch, Gone};
use crate::exchange::pump::{BrokenReply, Finished, Head, Pump};
use crate::record::outcome::Role;

/// A reply on its way.
pub(super) struct Tee {
    rooms: Arc<Rooms>,
    from: From,
    role: Role,
    entry: Entry,
    trailers: Option<HeaderMap>,
    broken: Option<BrokenReply>,
    flushed: bool,
}

/// Where it comes from.
enum From {
    /// A call of its own, and what came of it, as far as it may be stored.
    Alone(Box<Pump>, Log),
    /// A call that others may share.
    Shared(Ride<Fetch>),
    /// Nowhere any more.
    Nowhere,
}

impl Tee {
    /// What `pump` brings goes to one app alone.
    pub(super) fn alone(rooms: &Arc<Rooms>, pump: Box<Pump>, entry: Entry) -> Self {
        let most = pump.worth_keeping();
        let log = Log::new(most).within((most > 0).then(|| rooms.load.replies.share()));
        Self::new(rooms, From::Alone(pump, log), Role::Leader, entry)
    }

    /// What a call brings goes to whoever rides along.
    pub(super) fn shared(rooms: &Arc<Rooms>, ride: Ride<Fetch>, role: Role, entry: Entry) -> Self {
        Self::new(rooms, From::Shared(ride), role, entry)
    }

    fn new(rooms: &Arc<Rooms>, from: From, role: Role, entry: Entry) -> Self {
        let rooms = Arc::clone(rooms);
        Self { rooms, from, role, entry, trailers: None, broken: None, flushed: false }
    }

    /// The head of a shared call's answer. Without an answer, the end, if the call was made at all. Dropped, it may be
    /// asked for again.
    pub(super) async fn head(&mut self) -> Result<Arc<Head>, Option<Arc<Ended>>> {
        let From::Shared(ride) = &mut self.from else { return Err(None) };
        poll_fn(|cx| ride.poll_head(cx)).await
    }

    /// All that a shared call brings, and its end; `None` if it is too much to wait for. Dropped, it may be asked for
    /// again.
    pub(super) async fn whole(&mut self) -> Option<(Bytes, Arc<Ended>)> {
        let From::Shared(ride) = &mut self.from else { return None };
        poll_fn(|cx| ride.poll_whole(cx)).await
    }

    /// The app's record, until it is closed.
    pub(super) fn entry_mut(&mut self) -> &mut Entry {
        &mut self.entry
    }

    /// The record of an app that does not wait for this any more, but for something else.
    pub(super) fn give_back(mut self) -> Entry {
        self.entry.take()
    }

    /// The next piece, noted; the record is closed with the last one.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.from {
            From::Alone(pump, log) => {
                let piece = ready!(pump.poll_piece(cx));
                let is_last = piece.is_none() || pump.is_over();
                if let Some(piece) = &piece {
                    log.note(piece);
                    self.entry.passed(piece.len());
                }
                if is_last {
                    self.end_alone();
                }
                Poll::Ready(piece)
            }
            From::Shared(ride) => {
                let Next { piece, end } = ready!(ride.poll_next(cx));
                if let Some(piece) = &piece {
                    self.entry.passed(piece.len());
                }
                if let Some(Ended::Answered(finished)) = end.as_deref() {
                    self.end(finished);
                }
                Poll::Ready(piece)
            }
            From::Nowhere => Poll::Ready(None),
        }
    }

    fn end_alone(&mut self) {
        if let From::Alone(pump, mut log) = mem::replace(&mut self.from, From::Nowhere) {
            log.freeze();
            self.end(&pump.end(&log, Company::Nobody));
        }
    }

    fn end(&mut self, finished: &Finished) {
        self.from = From::Nowhere;
        finished.close(self.role, &mut self.entry);
        self.broken.clone_from(&finished.broken);
        if self.role == Role::Leader {
            self.trailers = finished.trailers.take();
        }
    }

    /// hyper drops what it has not written yet when a body fails, so it gets a turn to write it first.
    fn let_it_flush(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        self.flushed = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The app is gone, others may not be.
    fn leave(&mut self, ride: Ride<Fetch>) {
        let role = self.role;
        // Who waits for an answer leaves no record that could end better than cancelled, but for who asked.
        let may_end = role == Role::Leader || (self.entry.is_open() && self.entry.role().is_some());
        let entry = &mut self.entry;
        let part = |fetch: Option<&mut Fetch>, had| {
            if let Some(fetch) = fetch.filter(|_| may_end && entry.is_open()) {
                fetch.keep_gone(role, had, entry);
            }
        };
        match ride.leave(part) {
            Left::Nobody(Some(fetch), log, company) => fetch.let_go(&self.rooms, log, company),
            Left::Over(ended, has_all) if may_end && self.entry.is_open() => {
                ended.close(role, has_all, &mut self.entry);
            }
            Left::Others | Left::Nobody(None, ..) | Left::Over(..) => {}
        }
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        let tee = &mut *self;
        if let Some(piece) = ready!(tee.poll_piece(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = tee.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if tee.broken.is_some() && !tee.flushed {
            return tee.let_it_flush(cx);
        }
        Poll::Ready(tee.broken.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Alone(pump, _) => pump.is_over(),
            From::Shared(_) => false,
            From::Nowhere => self.broken.is_none() && self.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Alone(pump, _) => pump.size_hint(),
            From::Shared(_) => SizeHint::default(),
            From::Nowhere => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Tee {
    /// The app is gone. A body nobody has to ask for (an empty one, or the answer to HEAD) is simply over.
    fn drop(&mut self) {
        match mem::replace(&mut self.from, From::Nowhere) {
            From::Alone(pump, mut log) if pump.is_over() => {
                log.freeze();
                self.end(&pump.end(&log, Company::Nobody));
            }
            From::Alone(pump, log) => {
                let gone = Gone { role: self.role, had: Some(log.total()), entry: self.entry.take() };
                fetch::let_go(&self.rooms, pump, log, Company::Nobody, vec![gone]);
            }
            From::Shared(ride) => self.leave(ride),
            From::Nowhere => {}
        }
    }
}
