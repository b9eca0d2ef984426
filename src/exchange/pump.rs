//! Pump: a provider's answer as it comes. Each chunk is read on its way, what weir asked for and the app did not is
//! taken out, and silence has a limit. Pulled by whoever wants the next chunk. Knows no app, and writes no record: what
//! it learnt is in the [`Finished`] that it leaves.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode, Version};
use http_body::{Body, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::cache::flight::Company;
use crate::cache::flight::log::Log;
use crate::cache::pace::Pacing;
use crate::cache::{self, Reusable};
use crate::exchange::crossing;
use crate::exchange::entry::{End, Entry, Fetched};
use crate::exchange::filter::Filter;
use crate::exchange::meter::{Enough, Meter};
use crate::exchange::recordings::{Recordable, Take};
use crate::exchange::{Rooms, recall, route};
use crate::limits::tally::Deed;
use crate::provider::endpoint::Endpoint;
use crate::provider::reader::Reader;
use crate::provider::{Ending, EventKind, Problem, Said, headers};
use crate::record::call::RequestId;
use crate::record::head::HeadFacts;
use crate::record::outcome::{ErrorType, Outcome, Role, StoreResult};
use crate::record::trace::Context as Origin;
use crate::record::usage::Usage;
use crate::upstream::reply::ReplyBody;

/// The reply broke off on its way to the app.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokenReply {
    /// The provider's connection broke.
    #[error("the provider broke off its reply")]
    Reset(#[source] Arc<hyper::Error>),
    /// The provider fell silent.
    #[error("the provider was silent for {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The provider took longer than a call may.
    #[error("the call was not over within {}", humantime::format_duration(*.0))]
    TooLong(Duration),
}

impl BrokenReply {
    fn end(&self, said: Said) -> End {
        let (outcome, error_type) = match self {
            Self::Reset(_) => (Outcome::UpstreamError, ErrorType::StreamAborted),
            Self::Silent(_) | Self::TooLong(_) => (Outcome::Timeout, ErrorType::Timeout),
        };
        End { outcome, error_type: Some(error_type), detail: Some(self.to_string().into()), said }
    }
}

/// What is to become of an answer beside being forwarded.
pub(super) struct Wishes {
    /// Where it may be stored.
    pub(super) reusable: Option<Reusable>,
    /// Where it is recorded.
    pub(super) recordable: Option<Box<Recordable>>,
    /// Whether weir asked for usage that the app did not ask for.
    pub(super) weir_asked: bool,
    /// What tells when a stream is to be ended, if anything may.
    pub(super) meter: Option<Meter>,
    /// When its pieces come, where that is to be stored with a stream.
    pub(super) pacing: Option<Pacing>,
    /// How much is kept of what the answer says, in bytes; `None` if nothing is.
    pub(super) keeps_text: Option<usize>,
    /// The span of the call, for those who get its answer later or with it.
    pub(super) origin: Option<Origin>,
}

impl Wishes {
    /// It is forwarded, and that is all.
    pub(super) const NONE: Self = Self {
        reusable: None,
        recordable: None,
        weir_asked: false,
        meter: None,
        pacing: None,
        keeps_text: None,
        origin: None,
    };
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// Whether it is read event by event.
    pub(super) is_stream: bool,
    /// Its header fields, less what belongs to its connection: for who asked.
    pub(super) headers: ForLeader<HeaderMap>,
    /// Those that are for anybody; none where the answer is for nobody else.
    pub(super) kept: Arc<HeaderMap>,
    /// The span of the call that brought it, where that is kept.
    pub(super) origin: Option<Origin>,
}

/// Something there is only one of, for the one who asked.
pub(super) struct ForLeader<T>(Mutex<Option<T>>);

impl<T> ForLeader<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(Some(value)))
    }

    /// Taken once.
    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An answer on its way.
pub(super) struct Pump {
    rooms: Arc<Rooms>,
    /// The exchange that it is for.
    id: RequestId,
    upstream: Option<ReplyBody>,
    status: StatusCode,
    is_stream: bool,
    reader: Option<Reader>,
    filter: Option<Filter>,
    keep: Option<Keep>,
    take: Option<Box<Take>>,
    meter: Option<Meter>,
    /// The budget for whose sake it was ended.
    ended_by: Option<Arc<str>>,
    fetched: Fetched,
    last_byte: Instant,
    silence: Option<Pin<Box<Sleep>>>,
    /// When it has to be over, and within how much time that was, if that is bounded.
    over_by: Option<(Instant, Duration)>,
    broken: Option<BrokenReply>,
    /// Whether the app has been told in the stream itself how it broke off.
    has_told: bool,
    trailers: Option<HeaderMap>,
}

/// What is stored beside the body.
struct Keep {
    reusable: Reusable,
    headers: Arc<HeaderMap>,
    pacing: Option<Pacing>,
    origin: Option<Origin>,
}

/// Takes in an answer whose head has come.
pub(super) fn receive(
    rooms: &Arc<Rooms>,
    endpoint: Endpoint,
    id: RequestId,
    answer: Response<ReplyBody>,
    wishes: Wishes,
) -> (Head, Box<Pump>) {
    let (mut head, body) = answer.into_parts();
    route::leave_one_length(&mut head.headers);
    route::remove_hop_by_hop(&mut head.headers);
    let mut reader = endpoint.is_read().then(|| {
        let limit = rooms.settings.max_reply_bytes.as_len();
        let mut reader = Reader::open(endpoint, head.status, &head.headers, limit);
        reader.hold_within(rooms.load.replies.share());
        reader
    });
    if let Some((reader, most)) = reader.as_mut().zip(wishes.keeps_text) {
        reader.keep_text(most);
    }
    let is_stream = reader.as_ref().is_some_and(Reader::is_stream);
    let removes = wishes.weir_asked && is_stream && reader.as_ref().is_some_and(Reader::is_plain);
    let meter = wishes.meter.filter(|_| reader.as_mut().is_some_and(|reader| reader.prepare_to_stop(endpoint)));
    if removes || meter.is_some() {
        // What is announced would no longer be what comes.
        head.headers.remove(CONTENT_LENGTH);
    }
    let reusable = wishes.reusable.filter(|_| head.status.is_success());
    let kept = Arc::new(reusable.as_ref().map(|_| cache::kept_headers(&head.headers)).unwrap_or_default());
    let take = wishes.recordable.and_then(|asked| Take::begin(rooms, asked, &head.headers, is_stream));
    // Boxed here, for it goes through many hands.
    let pump = Box::new(Pump {
        rooms: Arc::clone(rooms),
        id,
        upstream: Some(body),
        status: head.status,
        is_stream,
        reader,
        filter: removes.then(Filter::default),
        keep: reusable.map(|reusable| Keep {
            reusable,
            headers: Arc::clone(&kept),
            pacing: wishes.pacing.filter(|_| is_stream),
            origin: wishes.origin,
        }),
        take,
        meter,
        ended_by: None,
        fetched: Fetched::now(
            head.status,
            HeadFacts { http: version(head.version), ..headers::read(&head.headers, SystemTime::now()) },
        ),
        last_byte: Instant::now(),
        silence: None,
        over_by: None,
        broken: None,
        has_told: false,
        trailers: None,
    });
    (Head { status: head.status, is_stream, headers: ForLeader::new(head.headers), kept, origin: wishes.origin }, pump)
}

/// `network.protocol.version`.
fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

impl Pump {
    /// The same, and it has to be over by then, which is within `total`.
    pub(super) fn over_by(mut self: Box<Self>, deadline: Instant, total: Duration) -> Box<Self> {
        self.over_by = Some((deadline, total));
        self
    }

    /// The most that it is worth keeping of the answer, in bytes: nothing where it is not to be stored.
    pub(super) fn worth_keeping(&self) -> usize {
        self.keep.as_ref().map_or(0, |_| self.rooms.cache.max_entry_bytes())
    }

    /// What there is to forward next, never empty; `None` once nothing more comes.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while self.upstream.is_some() {
            match ready!(self.poll_upstream(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => {
                        let piece = self.read(chunk);
                        if piece.is_empty() {
                            continue;
                        }
                        return Poll::Ready(Some(self.record(piece)));
                    }
                    // Trailers are the last thing a reply says.
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(broken)) => {
                    let last = self.tell(&broken);
                    self.broken = Some(broken);
                    self.has_told = last.is_some();
                    self.upstream = None;
                    if let Some(last) = last {
                        return Poll::Ready(Some(last));
                    }
                }
                None => {}
            }
            self.upstream = None;
        }
        let held = self.filter.as_mut().map(Filter::finish).unwrap_or_default();
        Poll::Ready(Some(held).filter(|held| !held.is_empty()).map(|held| self.record(held)))
    }

    /// What a stream has to end with that is out of time: its API's own error. SDKs raise that, with its words; a connection
    /// that breaks off says nothing. `None` where there is no place for one, or where what comes was announced to its length.
    fn tell(&self, broken: &BrokenReply) -> Option<Bytes> {
        let is_late = matches!(broken, BrokenReply::Silent(_) | BrokenReply::TooLong(_));
        let is_open = self.upstream.as_ref().is_some_and(|upstream| upstream.size_hint().exact().is_none());
        let reader = self.reader.as_ref().filter(|_| is_late && is_open)?;
        let (message, id) = (format!("weir ended this stream: {broken}"), self.id.to_string());
        let (status, code) = (StatusCode::GATEWAY_TIMEOUT, ErrorType::Timeout.as_str());
        reader
            .failure(&Problem { status, code, message: &message, request_id: &id, retry_after: None })
            .map(Bytes::from)
    }

    fn record(&mut self, piece: Bytes) -> Bytes {
        if let Some(take) = self.take.as_mut() {
            take.push(&piece);
        }
        if let Some(pacing) = self.keep.as_mut().and_then(|keep| keep.pacing.as_mut()) {
            pacing.note(piece.len(), Instant::now());
        }
        piece
    }

    /// Whether it is known that nothing more comes: hyper stops asking once a body of announced length is all there.
    pub(super) fn is_over(&self) -> bool {
        self.upstream.as_ref().is_none_or(Body::is_end_stream) && !self.holds()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match (&self.upstream, &self.filter, &self.meter) {
            (Some(upstream), None, None) => upstream.size_hint(),
            (None, None, _) => SizeHint::with_exact(0),
            (Some(_), ..) | (_, Some(_), _) => SizeHint::default(),
        }
    }

    /// The answer is over. It is stored where it may be, if `log` has all of it.
    pub(super) fn end(mut self: Box<Self>, log: &Log, company: Company) -> Finished {
        let said = self.said();
        if let Some(broken) = self.broken.take() {
            let end = broken.end(said);
            let all = self.has_told.then_some(log.total());
            let broken = Some(broken).filter(|_| !self.has_told);
            return Finished { broken, all, ..self.finished(end, None, log, company) };
        }
        if let Some(budget) = &self.ended_by {
            let end = ended_early(budget, said);
            let all = self.is_stream.then_some(log.total());
            return Finished { all, ..self.finished(end, None, log, company) };
        }
        let offered = self.offer(&said, log);
        let end = end_of(self.status, said);
        self.finished(end, offered, log, company)
    }

    /// Nobody wants the rest. But who hangs up on a stream after its end marker has had all of it, though the
    /// connection's own end was still to come. SDKs do that.
    pub(super) fn abandon(mut self: Box<Self>, log: &Log, company: Company) -> Finished {
        if !self.reader.as_ref().is_some_and(Reader::marks_its_end) {
            self.keep = None;
            self.take = None;
        }
        let holds = self.holds();
        let said = self.said();
        if self.is_stream && !holds && is_complete(said.ending) {
            let offered = self.offer(&said, log);
            let end = end_of(self.status, said);
            return self.finished(end, offered, log, company);
        }
        Finished { all: None, ..self.finished(cancelled(said), None, log, company) }
    }

    /// Reads on for the bill alone.
    pub(super) async fn drain(mut self: Box<Self>, log: &Log, company: Company) -> Finished {
        if let Some(mut upstream) = self.upstream.take() {
            let reader = &mut self.reader;
            let reading = async {
                while let Some(Ok(frame)) = upstream.frame().await {
                    if let (Some(reader), Some(chunk)) = (reader.as_mut(), frame.data_ref()) {
                        reader.push(chunk, &mut |_, _| {});
                    }
                }
            };
            // Whether it ended or the time is up: what was said is what counts.
            let limited = timeout(self.rooms.settings.drain_timeout.get(), reading);
            self.rooms.hard_stop.run_until_cancelled(limited).await;
        }
        let said = self.said();
        Finished { all: None, ..self.finished(cancelled(said), None, log, company) }
    }

    /// The next chunk from the provider, or an error if it stays silent for too long.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, BrokenReply>>> {
        if let Some(broken) = self.is_late() {
            return Poll::Ready(Some(Err(broken)));
        }
        let Some(upstream) = self.upstream.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(upstream).poll_frame(cx) {
            self.last_byte = Instant::now();
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| BrokenReply::Reset(Arc::new(error)))));
        }
        let idle_timeout = self.rooms.idle_timeout;
        let silent_until = self.last_byte + idle_timeout;
        let until = self.over_by.map_or(silent_until, |(over_by, _)| over_by.min(silent_until));
        // One timer a stream, set anew only when it fires: chunks that come in time do not touch it.
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep_until(until)));
        while silence.as_mut().poll(cx).is_ready() {
            if until <= Instant::now() {
                let broken = self.is_late().unwrap_or(BrokenReply::Silent(idle_timeout));
                return Poll::Ready(Some(Err(broken)));
            }
            silence.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// Whether it has taken all the time that it may in all.
    fn is_late(&self) -> Option<BrokenReply> {
        let (over_by, total) = self.over_by?;
        (over_by <= Instant::now()).then_some(BrokenReply::TooLong(total))
    }

    /// Reads a copy of `chunk` and gives back what of it goes on to the app now.
    fn read(&mut self, chunk: Bytes) -> Bytes {
        let Some(reader) = self.reader.as_mut() else { return chunk };
        if self.is_stream {
            self.fetched.chunk_came();
        }
        let mut removed = Vec::new();
        let mut content = false;
        let mut last = None;
        reader.push(&chunk, &mut |kind, span| {
            last = Some(span.end);
            match kind {
                EventKind::Content => content = true,
                EventKind::UsageOnly => removed.push(span),
                EventKind::Other => {}
            }
        });
        if content {
            self.fetched.content_came();
        }
        if let Some((at, ending)) = last.and_then(|last| Some((last, self.enough()?))) {
            return self.end_early(&chunk, at, &removed, &ending);
        }
        let incomplete_from = self.reader.as_ref().map_or(0, Reader::incomplete_from);
        match self.filter.as_mut() {
            Some(filter) => filter.pass(chunk, &removed, incomplete_from),
            None => chunk,
        }
    }

    /// What the stream has to end with, if what was generated is enough.
    fn enough(&mut self) -> Option<Vec<u8>> {
        let (reader, meter) = (self.reader.as_ref()?, self.meter.as_mut()?);
        let Enough { budget, used } = meter.generated(reader.generated())?;
        let ending = reader.ending(used)?;
        self.rooms.limits.did(&budget, Deed::Stopped);
        self.ended_by = Some(budget);
        Some(ending)
    }

    /// Ends the stream after the event that ended at `at`, somewhere in `chunk`; what goes on to the app for the last time.
    fn end_early(&mut self, chunk: &Bytes, at: u64, removed: &[Range<u64>], ending: &[u8]) -> Bytes {
        let received = self.reader.as_ref().map_or(0, Reader::received);
        let beyond = usize::try_from(received.saturating_sub(at)).unwrap_or(usize::MAX);
        let chunk = chunk.slice(..chunk.len().saturating_sub(beyond));
        let passed = match self.filter.as_mut() {
            Some(filter) => filter.pass(chunk, removed, at),
            None => chunk,
        };
        // Nothing of it is for anybody else, and nothing more is wanted.
        (self.upstream, self.keep, self.take) = (None, None, None);
        Bytes::from([&passed, ending].concat())
    }

    fn holds(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter.is_empty())
    }

    fn said(&mut self) -> Said {
        match self.reader.take() {
            Some(reader) => reader.finish(),
            None => Said { ending: Ending::Unknown, ..Said::default() },
        }
    }

    /// To the cache, or to the recordings: nothing is offered to both. Whoever finds the reply finds what it used as
    /// well, unless that is still being estimated.
    fn offer(&mut self, said: &Said, log: &Log) -> Option<Offered> {
        if let Some(take) = self.take.take() {
            return Some(Offered { result: take.finish(self.status, said), usage: None });
        }
        let Keep { reusable, headers, pacing, origin } = self.keep.take()?;
        let is_for_nobody = || self.rooms.cache.is_dead(&reusable, Instant::now());
        if self.status != StatusCode::OK || said.ending != Ending::Complete || is_for_nobody() {
            return Some(Offered { result: StoreResult::NotCacheable, usage: None });
        }
        let Some(body) = log.whole() else { return Some(Offered { result: StoreResult::TooLarge, usage: None }) };
        // A copy of the exact size: the buffer has grown in steps.
        let body = Bytes::copy_from_slice(body);
        let limit = self.rooms.cache.max_entry_bytes();
        let (reusable, body) = crossing::all_of(reusable, body, self.filter.as_ref(), limit);
        let usage = Arc::new(said.usage.map_or_else(OnceLock::new, OnceLock::from));
        let reply = cache::Reply {
            status: self.status,
            headers: Arc::unwrap_or_clone(headers),
            body,
            pace: pacing.map(Pacing::end),
            facts: said.facts.clone(),
            usage: Arc::clone(&usage),
            provider_cost: said.provider_cost,
            origin,
        };
        recall::store(&self.rooms, reusable, reply);
        Some(Offered { result: StoreResult::Stored, usage: Some(usage) })
    }

    fn finished(mut self: Box<Self>, end: End, offered: Option<Offered>, log: &Log, company: Company) -> Finished {
        self.fetched.done();
        let others = (company == Company::Others).then(|| {
            let usage = offered.as_ref().and_then(|offered| offered.usage.clone());
            Box::new(Others { end: end.for_others(), usage })
        });
        let led = others.is_some() && self.status == StatusCode::OK;
        let meter = self.meter.take();
        Finished {
            broken: None,
            trailers: ForLeader(Mutex::new(self.trailers)),
            all: (self.is_stream && is_complete(end.said.ending)).then_some(log.total()),
            others,
            bill: ForLeader::new(Bill { end, ended_by: self.ended_by, fetched: self.fetched, offered, led, meter }),
        }
    }
}

/// An answer that is over, for all who got it.
pub(super) struct Finished {
    /// How it broke off, if it did.
    pub(super) broken: Option<BrokenReply>,
    pub(super) trailers: ForLeader<HeaderMap>,
    /// How much of a stream there is up to its end marker, if that came: who has had this much has had it all.
    all: Option<u64>,
    others: Option<Box<Others>>,
    bill: ForLeader<Bill>,
}

/// What it comes to for whoever asked.
struct Bill {
    end: End,
    ended_by: Option<Arc<str>>,
    fetched: Fetched,
    offered: Option<Offered>,
    led: bool,
    meter: Option<Meter>,
}

/// What it comes to for those who followed.
struct Others {
    end: End,
    /// What it used, once that is estimated.
    usage: Option<Arc<OnceLock<Usage>>>,
}

/// What became of a reply that was offered to the cache.
struct Offered {
    result: StoreResult,
    usage: Option<Arc<OnceLock<Usage>>>,
}

impl Finished {
    /// How it ended for those who followed; `None` if nobody did.
    pub(super) fn for_others(&self) -> Option<End> {
        let Others { end, usage } = self.others.as_deref()?;
        let mut end = end.clone();
        end.said.usage = end.said.usage.or_else(|| usage.as_ref()?.get().copied());
        Some(end)
    }

    /// Closes the entry of somebody who has had all of it.
    pub(super) fn close(&self, role: Role, entry: &mut Entry) {
        match role {
            Role::Leader => {
                if let Some(bill) = self.bill.take() {
                    let end = bill.note(entry);
                    entry.close(end);
                }
            }
            Role::Follower => {
                if let Some(end) = self.for_others() {
                    entry.close(end);
                }
            }
        }
    }

    /// Closes the entry of somebody who hung up; `had` is how much it had had if that was all that had come.
    pub(super) fn close_gone(&self, role: Role, had: Option<u64>, entry: &mut Entry) {
        if had.is_some() && had == self.all {
            return self.close(role, entry);
        }
        let bill = (role == Role::Leader).then(|| self.bill.take()).flatten();
        let said = bill.map(|bill| bill.note(entry).said).unwrap_or_default();
        entry.close(cancelled(said));
    }
}

impl Bill {
    /// Notes what was done for it; how it ended.
    fn note(self, entry: &mut Entry) -> End {
        entry.brought(self.fetched);
        if let Some(budget) = self.ended_by {
            entry.tell(|told| told.budget = Some(budget));
        }
        if let Some(meter) = self.meter {
            entry.metered(meter);
        }
        if let Some(Offered { result, usage }) = self.offered {
            entry.offered(result, usage);
        }
        if self.led {
            entry.led();
        }
        self.end
    }
}

/// The end of a call whose app hung up.
pub(super) fn cancelled(said: Said) -> End {
    End { outcome: Outcome::Cancelled, error_type: Some(ErrorType::Cancelled), detail: None, said }
}

/// The end of a stream that weir ended, because this budget is used up.
fn ended_early(budget: &str, said: Said) -> End {
    let detail = format!("weir ended the stream: budget `{budget}` is used up");
    End { outcome: Outcome::BudgetBlocked, error_type: None, detail: Some(detail.into()), said }
}

const fn is_complete(ending: Ending) -> bool {
    matches!(ending, Ending::Complete | Ending::Declined)
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
