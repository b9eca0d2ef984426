//! Relay: a WebSocket session (RFC 6455) between the app and its provider.
//!
//! The handshake goes through as it is: key, answer and subprotocols are between the two ends. weir switches protocols
//! only once the provider has; any other answer is passed on as an ordinary reply. Then bytes pass unchanged, each way
//! at the pace of whoever reads them, in one task, with one buffer a direction; the books read a copy.

use std::pin::pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::Entry::Occupied;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::exchange::admission::Coming;
use crate::exchange::entry::Entry;
use crate::exchange::pump::{self, Wishes};
use crate::exchange::recordings;
use crate::exchange::reply::{self, Body};
use crate::exchange::route::{self, Route};
use crate::exchange::session::{self, Downward, Ender, Passing, Upward};
use crate::exchange::{Rooms, admission, forward, prepare};
use crate::provider::session::open;
use crate::record::Attempt;
use crate::record::call::Delivery;
use crate::record::outcome::{BypassReason, CacheStatus};
use crate::record::trace::Trace;
use crate::upstream::RequestBody;

/// The protocol that is switched to.
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// How an app in a browser, which cannot set headers, hands over its key for OpenAI: as the name of a subprotocol.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";
/// What is read at once from either side.
const BUFFER_BYTES: usize = 16 << 10;
/// How long the two ends may take to part once one of them has said goodbye or is gone.
const PARTING: Duration = Duration::from_secs(30);

/// Whether a request asks for a WebSocket session.
pub(super) fn is_asked(head: &Parts, body: &Incoming) -> bool {
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && body.is_end_stream()
        && lists(&head.headers, &CONNECTION, "upgrade")
        && lists(&head.headers, &UPGRADE, "websocket")
}

fn lists(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|known| known.trim().eq_ignore_ascii_case(token))
}

/// Asks the provider for the session that the app asks for. If it agrees, the session lives on in a task of its own.
pub(super) async fn walk(
    rooms: &Arc<Rooms>,
    route: &Route,
    mut request: Request<Incoming>,
    mut entry: Entry,
) -> Response<Body> {
    if rooms.recordings.answer() {
        return recordings::refuse_session(rooms, route, entry);
    }
    rooms.recordings.pass_session();
    for coming in [Coming::Call, Coming::Session] {
        entry = match admission::admit(rooms, route, request.headers(), coming, entry).await {
            Ok(entry) => entry,
            Err(refusal) => return refusal,
        };
    }
    let credential = admission::credential(rooms, route, request.headers());
    let app = hyper::upgrade::on(&mut request);
    let (mut head, _) = request.into_parts();
    let opened = open(route.target.path(), route.target.query());
    prepare_to_switch(rooms, route, entry.trace(), &mut head.headers, opened.is_some());
    let mut upward = Request::new(RequestBody::whole(Bytes::new()));
    *upward.uri_mut() = route.target.clone();
    *upward.headers_mut() = head.headers;

    entry.call_mut().delivery = Delivery::Stream;
    entry.looked_up(CacheStatus::Bypass(BypassReason::Uncacheable), None);
    entry.sending();
    entry.tell(|told| told.target = Some(route.target.clone()));
    let mut answer = match route.to.upstream.switch(upward).await {
        Ok(answer) => answer,
        Err(failure) => return reply::failed(rooms, &route.to.provider, &failure, entry),
    };
    entry.attempted(Attempt::Answered(answer.status().as_u16()));
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, pump) = pump::receive(rooms, route.endpoint, entry.id(), answer.map(Into::into), Wishes::NONE);
        return forward(rooms, &head, pump, entry);
    }
    let provider = hyper::upgrade::on(&mut answer);
    let mut headers = std::mem::take(answer.headers_mut());
    route::remove_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    announce_switch(&mut headers);
    let response = reply::switched(rooms, headers, &mut entry);
    let (upward, downward) = session::open(rooms, &route.to, opened, credential, entry);
    rooms.tasks.spawn(Relay { rooms: Arc::clone(rooms), upward, downward }.run(app, provider));
    response
}

/// Makes the head fit for the provider. A session that is read must not be compressed.
fn prepare_to_switch(rooms: &Rooms, route: &Route, trace: Option<&Trace>, headers: &mut HeaderMap, is_read: bool) {
    prepare(rooms, route, trace, headers);
    announce_switch(headers);
    if is_read {
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    if route.to.credential.is_some() {
        remove_key_protocols(headers);
    }
    if let Occupied(mut protocols) = headers.entry(SEC_WEBSOCKET_PROTOCOL) {
        protocols.iter_mut().for_each(|value| value.set_sensitive(true));
    }
}

fn announce_switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Takes the app's own key out of the subprotocols, for weir puts in another.
fn remove_key_protocols(headers: &mut HeaderMap) {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let left: Vec<&str> = all.iter().copied().filter(|protocol| !protocol.starts_with(KEY_PROTOCOL)).collect();
    if left.len() == all.len() {
        return;
    }
    let value = HeaderValue::try_from(left.join(", ")).ok().filter(|value| !value.is_empty());
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    headers.extend(value.map(|value| (SEC_WEBSOCKET_PROTOCOL, value)));
}

/// One session under way.
struct Relay {
    rooms: Arc<Rooms>,
    upward: Upward,
    downward: Downward,
}

impl Relay {
    /// Carries the session until both ends are done, nothing passes for too long, or weir is told to stop.
    async fn run(mut self, app: OnUpgrade, provider: OnUpgrade) {
        let watch = Watch::new();
        let rooms = Arc::clone(&self.rooms);
        tokio::select! {
            () = self.carry(app, provider, &watch) => {}
            () = watch.silence(rooms.idle_timeout) => watch.ends(Ender::Silence),
            () = rooms.hard_stop.cancelled() => watch.ends(Ender::Shutdown),
        }
        self.downward.close(watch.ender(), self.upward.has_closed());
    }

    async fn carry(&mut self, app: OnUpgrade, provider: OnUpgrade, watch: &Watch) {
        let (app, provider) = match tokio::join!(app, provider) {
            (Ok(app), Ok(provider)) => (app, provider),
            (Err(_), _) => return watch.ends(Ender::App),
            (_, Err(_)) => return watch.ends(Ender::Provider),
        };
        let ((from_app, to_app), (from_provider, to_provider)) = (halves(app), halves(provider));
        let Self { upward, downward, .. } = self;
        let upward = |piece: &[u8]| {
            if upward.passes(piece) {
                watch.ends(Ender::App);
            }
            None
        };
        let downward = |piece: &[u8]| {
            match downward.passes(piece) {
                Passing::On => {}
                Passing::Closed => watch.ends(Ender::Provider),
                Passing::Over(keep, goodbye) => {
                    watch.ends(Ender::Budget);
                    watch.over.cancel();
                    return Some([&piece[..keep], &goodbye].concat());
                }
            }
            None
        };
        let mut up = pin!(pass(from_app, to_provider, watch, upward));
        let mut down = pin!(pass(from_provider, to_app, watch, downward));
        let (mut up_is_open, mut down_is_open) = (true, true);
        while up_is_open || down_is_open {
            let (end, reads, writes) = tokio::select! {
                end = &mut up, if up_is_open => {
                    up_is_open = false;
                    (end, Ender::App, Ender::Provider)
                }
                end = &mut down, if down_is_open => {
                    down_is_open = false;
                    (end, Ender::Provider, Ender::App)
                }
            };
            match end {
                // The other way may still have something to say.
                PassEnd::Finished => watch.ends(reads),
                PassEnd::CannotWrite => watch.ends(writes),
                PassEnd::CannotRead => return watch.ends(reads),
            }
        }
    }
}

fn halves(upgraded: Upgraded) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin) {
    split(TokioIo::new(upgraded))
}

/// Why nothing more passes in one direction.
#[derive(Clone, Copy, Debug)]
enum PassEnd {
    /// The one side is done, and the other has been told.
    Finished,
    /// The one side is gone.
    CannotRead,
    /// The other side is gone.
    CannotWrite,
}

/// Passes on what comes, as it comes, until no more does. `note` sees each piece, and may say what is to be the last in its
/// place. Once the session is over, what comes is for nobody.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    watch: &Watch,
    mut note: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> PassEnd {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut last = None;
    while last.is_none() {
        let read = tokio::select! {
            biased;
            () = watch.over.cancelled() => return drain(from, to, buffer).await,
            read = from.read(&mut buffer) => read,
        };
        let piece = match read {
            Ok(0) => break,
            Ok(length) => &buffer[..length],
            Err(_) => return PassEnd::CannotRead,
        };
        watch.passes();
        last = note(piece);
        if to.write_all(last.as_deref().unwrap_or(piece)).await.is_err() || to.flush().await.is_err() {
            return PassEnd::CannotWrite;
        }
    }
    match to.shutdown().await {
        Ok(()) => PassEnd::Finished,
        Err(_) => PassEnd::CannotWrite,
    }
}

/// Leaves the one side, and hears the other out: who is cut off in the middle of a word may never read why.
async fn drain(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut buffer: Vec<u8>) -> PassEnd {
    // It may be gone already.
    let _ = to.shutdown().await;
    while let Ok(1..) = from.read(&mut buffer).await {}
    PassEnd::Finished
}

/// When something last passed, and who was first to end the session.
#[derive(Debug)]
struct Watch {
    began: Instant,
    /// Milliseconds after `began` when something last passed.
    passed: AtomicU64,
    ender: OnceLock<Ender>,
    /// Whether weir itself has ended it.
    over: CancellationToken,
}

impl Watch {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            passed: AtomicU64::new(0),
            ender: OnceLock::new(),
            over: CancellationToken::new(),
        }
    }

    fn passes(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.passed.store(now, Ordering::Relaxed);
    }

    /// Notes who ends the session; only the first counts.
    fn ends(&self, ender: Ender) {
        let _ = self.ender.set(ender);
    }

    fn ender(&self) -> Ender {
        self.ender.get().copied().unwrap_or(Ender::Shutdown)
    }

    /// Resolves once nothing has passed for `idle_timeout`, or for the time that is left for parting.
    async fn silence(&self, idle_timeout: Duration) {
        let parting = idle_timeout.min(PARTING);
        loop {
            let limit = if self.ender.get().is_some() { parting } else { idle_timeout };
            let passed = self.began + Duration::from_millis(self.passed.load(Ordering::Relaxed));
            let now = Instant::now();
            if passed + limit <= now {
                return;
            }
            // Look in between: either side may go at any time.
            sleep_until((passed + limit).min(now + parting)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apps_key_is_taken_out_of_the_subprotocols_and_nothing_else() {
        for (sent, left) in [
            (
                &["realtime, openai-insecure-api-key.sk-1, openai-beta.realtime-v1"][..],
                &["realtime, openai-beta.realtime-v1"][..],
            ),
            (&["realtime", "openai-insecure-api-key.sk-1"], &["realtime"]),
            (&["openai-insecure-api-key.sk-1"], &[]),
            (&["a,b", "c"], &["a,b", "c"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            }
            remove_key_protocols(&mut headers);
            let found: Vec<_> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().collect();
            assert_eq!(found, left, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_from_the_last_byte_and_parting_is_short() {
        let (watch, idle) = (Watch::new(), Duration::from_secs(300));
        let took = |from: Instant| from.elapsed().as_secs();
        tokio::time::advance(Duration::from_secs(200)).await;
        watch.passes();
        watch.silence(idle).await;
        assert_eq!(took(watch.began), 500);
        watch.passes();
        watch.ends(Ender::App);
        watch.silence(idle).await;
        assert_eq!((took(watch.began), watch.ender()), (530, Ender::App));
    }
}
