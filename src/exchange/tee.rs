//! Tee: a response's body on its way to the app. Each chunk goes on at once; a copy feeds the reader and, where the
//! reply may be stored, a bounded buffer. Pulled by the app's own pace, so back-pressure reaches the provider.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::cache::{self, Reusable};
use crate::exchange::entry::{End, Entry};
use crate::exchange::filter::Filter;
use crate::exchange::recordings::Take;
use crate::exchange::{OnDisconnect, Rooms};
use crate::provider::reader::Reader;
use crate::provider::{Ending, EventKind, Said};
use crate::record::outcome::{ErrorType, Outcome, StoreResult};

/// The reply broke off on its way to the app.
#[derive(Debug, thiserror::Error)]
pub enum BrokenReply {
    /// The provider's connection broke.
    #[error("the provider broke off its reply")]
    Reset(#[source] hyper::Error),
    /// The provider fell silent.
    #[error("the provider was silent for {}", humantime::format_duration(*.0))]
    Silent(Duration),
}

impl BrokenReply {
    fn end(&self, said: Said) -> End {
        let (outcome, error_type) = match self {
            Self::Reset(_) => (Outcome::UpstreamError, ErrorType::StreamAborted),
            Self::Silent(_) => (Outcome::Timeout, ErrorType::Timeout),
        };
        End { outcome, error_type: Some(error_type), detail: Some(self.to_string().into()), said }
    }
}

/// What a tee needs to know of the reply it carries.
pub(super) struct Plan {
    pub(super) status: StatusCode,
    pub(super) reader: Option<Reader>,
    pub(super) remove_usage: bool,
    pub(super) keep: Option<Keep>,
    pub(super) take: Option<Take>,
    pub(super) idle_timeout: Duration,
}

/// A reply being kept for the cache.
pub(super) struct Keep {
    pub(super) reusable: Reusable,
    pub(super) headers: HeaderMap,
    pub(super) body: BytesMut,
    pub(super) limit: usize,
}

/// A reply on its way.
pub(super) struct Tee {
    rooms: Arc<Rooms>,
    upstream: Option<Incoming>,
    status: StatusCode,
    reader: Option<Reader>,
    filter: Option<Filter>,
    keep: Option<Keep>,
    take: Option<Take>,
    entry: Entry,
    idle_timeout: Duration,
    last_byte: Instant,
    silence: Option<Pin<Box<Sleep>>>,
    broken: Option<BrokenReply>,
    flushed: bool,
    trailers: Option<Frame<Bytes>>,
}

impl Tee {
    pub(super) fn new(rooms: &Arc<Rooms>, upstream: Incoming, plan: Plan, entry: Entry) -> Self {
        Self {
            rooms: Arc::clone(rooms),
            upstream: Some(upstream),
            status: plan.status,
            reader: plan.reader,
            filter: plan.remove_usage.then(Filter::default),
            keep: plan.keep,
            take: plan.take,
            entry,
            idle_timeout: plan.idle_timeout,
            last_byte: Instant::now(),
            silence: None,
            broken: None,
            flushed: false,
            trailers: None,
        }
    }

    /// The next chunk from the provider, or an error if it stays silent for too long.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        let Some(upstream) = self.upstream.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(upstream).poll_frame(cx) {
            self.last_byte = Instant::now();
            return Poll::Ready(frame.map(|frame| frame.map_err(BrokenReply::Reset)));
        }
        // One timer a stream, set anew only when it fires: chunks that come in time do not touch it.
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep_until(self.last_byte + self.idle_timeout)));
        while silence.as_mut().poll(cx).is_ready() {
            let deadline = self.last_byte + self.idle_timeout;
            if deadline <= Instant::now() {
                return Poll::Ready(Some(Err(BrokenReply::Silent(self.idle_timeout))));
            }
            silence.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Reads a copy of `chunk` and gives back what of it goes on to the app now.
    fn read(&mut self, chunk: Bytes) -> Bytes {
        let Some(reader) = self.reader.as_mut() else { return chunk };
        let mut removed = Vec::new();
        let mut content = false;
        reader.push(&chunk, &mut |kind, span| match kind {
            EventKind::Content => content = true,
            EventKind::UsageOnly => removed.push(span),
            EventKind::Other => {}
        });
        let incomplete_from = reader.incomplete_from();
        if content {
            self.entry.content_came();
        }
        match self.filter.as_mut() {
            Some(filter) => filter.pass(chunk, &removed, incomplete_from),
            None => chunk,
        }
    }

    /// Notes what goes to the app, and keeps it where it may be stored.
    fn pass(&mut self, data: &Bytes) {
        self.entry.passed(data.len());
        if let Some(take) = self.take.as_mut() {
            take.push(data);
        }
        if let Some(keep) = self.keep.as_mut()
            && keep.body.len() <= keep.limit
        {
            // One byte over the limit is enough to know that it does not fit.
            let room = (keep.limit + 1 - keep.body.len()).min(data.len());
            keep.body.extend_from_slice(&data[..room]);
        }
    }

    fn has_ended(&self) -> bool {
        self.upstream.as_ref().is_none_or(Body::is_end_stream) && self.filter.as_ref().is_none_or(Filter::is_empty)
    }

    /// The provider has said all it had to say.
    fn complete(&mut self) {
        if !self.entry.is_open() {
            return;
        }
        self.upstream = None;
        self.entry.upstream_done();
        let said = self.said();
        self.close_at_end(said);
    }

    /// Passes on what is still held, and keeps the error for the next time.
    fn break_off(
        &mut self,
        broken: BrokenReply,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        let held = self.filter.as_mut().map(Filter::finish).unwrap_or_default();
        self.pass(&held);
        self.upstream = None;
        self.entry.upstream_done();
        let end = broken.end(self.said());
        self.entry.close(end);
        self.broken = Some(broken);
        if held.is_empty() { self.let_it_flush(cx) } else { Poll::Ready(Some(Ok(Frame::data(held)))) }
    }

    /// Trailers are the last thing a reply says, and the last thing hyper asks for; what is still held goes first.
    fn end_with(&mut self, trailers: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        let held = self.filter.as_mut().map(Filter::finish).unwrap_or_default();
        self.pass(&held);
        self.complete();
        if held.is_empty() {
            return Poll::Ready(Some(Ok(trailers)));
        }
        self.trailers = Some(trailers);
        Poll::Ready(Some(Ok(Frame::data(held))))
    }

    /// hyper drops what it has not written yet when a body fails, so it gets a turn to write it first.
    fn let_it_flush(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        self.flushed = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn said(&mut self) -> Said {
        match self.reader.take() {
            Some(reader) => reader.finish(),
            None => Said { ending: Ending::Unknown, ..Said::default() },
        }
    }

    /// Closes the entry of a reply that came to its end, which is stored where it may be. First the one, then the other:
    /// whoever finds the reply finds what it used as well, unless that is still being estimated.
    fn close_at_end(&mut self, said: Said) {
        let stored = self.offer_to_cache(&said);
        if let Some(take) = self.take.take() {
            self.entry.offered(take.finish(self.status, &said), None);
        }
        self.entry.close(end_of(self.status, said));
        if let Some((reusable, reply)) = stored {
            self.rooms.cache.store(reusable, reply, Instant::now());
        }
    }

    fn offer_to_cache(&mut self, said: &Said) -> Option<(Reusable, cache::Reply)> {
        let keep = self.keep.take()?;
        let is_for_nobody = || self.rooms.cache.is_dead(&keep.reusable, Instant::now());
        let result = if self.status != StatusCode::OK || said.ending != Ending::Complete || is_for_nobody() {
            StoreResult::NotCacheable
        } else if keep.body.len() > keep.limit {
            StoreResult::TooLarge
        } else {
            StoreResult::Stored
        };
        if result != StoreResult::Stored {
            self.entry.offered(result, None);
            return None;
        }
        let usage = Arc::default();
        self.entry.offered(result, Some(Arc::clone(&usage)));
        let reply = cache::Reply {
            status: self.status,
            headers: keep.headers,
            // A copy of the exact size: the buffer has grown in steps.
            body: Bytes::copy_from_slice(&keep.body),
            facts: said.facts.clone(),
            usage,
            provider_cost: said.provider_cost,
        };
        Some((keep.reusable, reply))
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        let tee = &mut *self;
        if let Some(trailers) = tee.trailers.take() {
            return Poll::Ready(Some(Ok(trailers)));
        }
        if tee.broken.is_some() {
            return if tee.flushed { Poll::Ready(tee.broken.take().map(Err)) } else { tee.let_it_flush(cx) };
        }
        loop {
            let data = match ready!(tee.poll_upstream(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => tee.read(chunk),
                    Err(trailers) => return tee.end_with(trailers),
                },
                Some(Err(broken)) => return tee.break_off(broken, cx),
                None => {
                    let held = tee.filter.as_mut().map(Filter::finish).unwrap_or_default();
                    if !held.is_empty() {
                        tee.pass(&held);
                        tee.complete();
                        return Poll::Ready(Some(Ok(Frame::data(held))));
                    }
                    tee.complete();
                    return Poll::Ready(None);
                }
            };
            if !data.is_empty() {
                tee.pass(&data);
                // hyper stops asking once a body of announced length is all there.
                if tee.has_ended() {
                    tee.complete();
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.trailers.is_none() && self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.upstream, &self.filter) {
            (Some(upstream), None) => upstream.size_hint(),
            (None, None) => SizeHint::with_exact(0),
            (_, Some(_)) => SizeHint::default(),
        }
    }
}

impl Drop for Tee {
    /// The app is gone. A body nobody has to ask for (an empty one, or the answer to HEAD) is simply over.
    fn drop(&mut self) {
        if !self.entry.is_open() {
            return;
        }
        if self.has_ended() {
            return self.complete();
        }
        // Once weir is told to stop, nobody waits for a bill.
        let wanted = self.rooms.settings.on_disconnect == OnDisconnect::Drain && !self.rooms.tasks.is_closed();
        let place = wanted.then(|| Arc::clone(&self.rooms.drains).try_acquire_owned().ok()).flatten();
        match (self.upstream.take(), place) {
            (Some(upstream), Some(place)) => self.drain(upstream, place),
            _ => self.abandon(),
        }
    }
}

impl Tee {
    /// Closes as cancelled, with what was said until now; but an app that hangs up on a stream after its end marker has
    /// had all of it, though the connection's own end was still to come. SDKs do that.
    fn abandon(&mut self) {
        self.upstream = None;
        self.entry.upstream_done();
        let is_stream = self.reader.as_ref().is_some_and(Reader::is_stream);
        if !self.reader.as_ref().is_some_and(Reader::marks_its_end) {
            self.keep = None;
            self.take = None;
        }
        let holds = self.filter.as_ref().is_some_and(|filter| !filter.is_empty());
        let said = self.said();
        if is_stream && !holds && matches!(said.ending, Ending::Complete | Ending::Declined) {
            return self.close_at_end(said);
        }
        self.entry.close(cancelled(said));
    }

    /// Reads on for the bill alone.
    fn drain(&mut self, mut upstream: Incoming, place: OwnedSemaphorePermit) {
        let rooms = Arc::clone(&self.rooms);
        let mut entry = self.entry.take();
        let mut reader = self.reader.take();
        let tasks = rooms.tasks.clone();
        tasks.spawn(async move {
            let reading = async {
                while let Some(Ok(frame)) = upstream.frame().await {
                    if let (Some(reader), Some(chunk)) = (reader.as_mut(), frame.data_ref()) {
                        reader.push(chunk, &mut |_, _| {});
                    }
                }
            };
            // Whether it ended or the time is up: what was said is what counts.
            let limited = timeout(rooms.settings.drain_timeout.get(), reading);
            rooms.hard_stop.run_until_cancelled(limited).await;
            entry.upstream_done();
            let said = reader.map(Reader::finish).unwrap_or_default();
            entry.close(cancelled(said));
            drop(place);
        });
    }
}

fn cancelled(said: Said) -> End {
    End { outcome: Outcome::Cancelled, error_type: Some(ErrorType::Cancelled), detail: None, said }
}

/// What a reply that came to its end amounts to.
pub(super) fn end_of(status: StatusCode, said: Said) -> End {
    let code = status.as_u16();
    let (outcome, error_type) = match (code, said.ending) {
        (500.., _) => (Outcome::UpstreamError, Some(ErrorType::Status(code))),
        (400.., _) => (Outcome::ClientError, Some(ErrorType::Status(code))),
        (_, Ending::Complete | Ending::Declined | Ending::Unknown) => (Outcome::Success, None),
        // The model finished; that the end marker is missing does not make it a failure.
        (_, Ending::Unfinished) if !said.facts.finish_reasons.is_empty() => (Outcome::Success, None),
        (_, Ending::Failed) => (Outcome::UpstreamError, Some(ErrorType::StreamAborted)),
        (_, Ending::Unfinished) => (Outcome::UpstreamError, Some(ErrorType::InvalidResponse)),
    };
    End { outcome, error_type, detail: None, said }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ReplyFacts;

    #[test]
    fn a_reply_is_judged_by_its_status_and_its_end() {
        let finished = ReplyFacts { finish_reasons: vec!["stop".into()], ..ReplyFacts::default() };
        for (status, ending, facts, outcome, error) in [
            (200, Ending::Complete, ReplyFacts::default(), Outcome::Success, None),
            (200, Ending::Unknown, ReplyFacts::default(), Outcome::Success, None),
            (200, Ending::Declined, ReplyFacts::default(), Outcome::Success, None),
            (200, Ending::Failed, ReplyFacts::default(), Outcome::UpstreamError, Some("stream_aborted")),
            (200, Ending::Unfinished, ReplyFacts::default(), Outcome::UpstreamError, Some("invalid_response")),
            (200, Ending::Unfinished, finished, Outcome::Success, None),
            (304, Ending::Complete, ReplyFacts::default(), Outcome::Success, None),
            (429, Ending::Failed, ReplyFacts::default(), Outcome::ClientError, Some("429")),
            (529, Ending::Failed, ReplyFacts::default(), Outcome::UpstreamError, Some("529")),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let end = end_of(status, Said { facts, ending, ..Said::default() });
            assert_eq!(
                (end.outcome, end.error_type.map(ErrorType::as_str)),
                (outcome, error.map(|e: &'static str| e).or(None)),
                "{status}"
            );
        }
    }
}
