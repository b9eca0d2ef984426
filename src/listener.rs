//! Listener: the app's side. Accepts connections, speaks HTTP/1.1 and HTTP/2 with prior knowledge, and lets go of
//! those that stall or idle.
//!
//! Told to stop, it goes on accepting for as long as the app calls: an app that ends itself often calls once more, and a
//! sidecar that refuses by then has lost that call for it.
//!
//! hyper's own header timeout also ends connections that merely idle, which an app's pool takes for an error. So the
//! listener keeps a pulse of each connection and tells the two apart.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::Door;
use crate::exchange;
use crate::exchange::house::House;
use crate::units::Span;

/// What the operator writes of the app's connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long an app may take to send a request's head once it has begun.
    pub header_timeout: Span,
    /// How long a connection may stay open without a request. Keep it longer than the app's own pool does, so that
    /// weir is never the one to close a connection the app is about to use.
    pub idle_timeout: Span,
    /// Most connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// How long calls may go on once weir is told to stop. For as long as the app calls, it takes more of them for four
    /// fifths of that.
    pub drain_timeout: Span,
    /// How long nothing has to be in progress before weir, told to stop, takes no more calls. An app that ends at the same
    /// time often makes a last call.
    pub linger: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_timeout: Span::from_secs(30),
            idle_timeout: Span::from_secs(600),
            max_connections: 4096,
            drain_timeout: Span::from_secs(25),
            linger: Span::from_secs(1),
        }
    }
}

/// How HTTP/2 with prior knowledge begins (RFC 9113, section 3.4); no HTTP/1.1 request does.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The part of the drain timeout in which more calls are taken; the rest is for those that are in progress by then.
const TAKES_FOR: f64 = 0.8;

/// How often weir, told to stop, looks whether something is in progress.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Serves the app at `door` until `shutdown` resolves; goes on until nothing has been in progress for
/// `settings.linger`; then lets go of connections, and waits for what goes on without the app. All of that within
/// `settings.drain_timeout`. Dropping the future drops the connections it serves.
pub async fn run(door: Door, settings: &Settings, house: Arc<House>, shutdown: impl Future<Output = ()>) {
    // Whatever is configured, all rooms have the same two.
    let (tasks, hard_stop) = (house.rooms().tasks.clone(), house.rooms().hard_stop.clone());
    let side = Side {
        settings: settings.clone(),
        house,
        tasks: tasks.clone(),
        hard_stop: hard_stop.clone(),
        connections: TaskTracker::new(),
        stop: CancellationToken::new(),
        traffic: Arc::new(Traffic::new()),
    };
    let deadline = side.serve_until(door, shutdown).await;
    side.stop.cancel();
    side.connections.close();
    tasks.close();
    let drained = async {
        side.connections.wait().await;
        tasks.wait().await;
    };
    if timeout_at(deadline, drained).await.is_err() {
        tracing::warn!(weir.connections = side.connections.len(), "calls were still in progress at the drain timeout");
        hard_stop.cancel();
        side.connections.wait().await;
        tasks.wait().await;
    }
}

/// The app's side, while it is there.
struct Side {
    settings: Settings,
    house: Arc<House>,
    /// What goes on although its app is gone.
    tasks: TaskTracker,
    hard_stop: CancellationToken,
    connections: TaskTracker,
    /// Asks every connection to end.
    stop: CancellationToken,
    traffic: Arc<Traffic>,
}

impl Side {
    /// Accepts and serves until `shutdown`, and then until it is quiet. Returns when all has to be over.
    async fn serve_until(&self, door: Door, shutdown: impl Future<Output = ()>) -> Instant {
        let mut accepting = pin!(self.accept(&door));
        tokio::select! {
            never = &mut accepting => match never {},
            () = shutdown => {}
        }
        let (told, drain) = (Instant::now(), self.settings.drain_timeout.get());
        tokio::select! {
            never = accepting => match never {},
            _ = timeout_at(told + drain.mul_f64(TAKES_FOR), self.is_quiet()) => {}
        }
        told + drain
    }

    /// Accepts and serves connections, until dropped.
    async fn accept(&self, door: &Door) -> Infallible {
        let places = Arc::new(Semaphore::new(self.settings.max_connections));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
            let (tcp, _) = door.next().await;
            let pulse = Arc::new(Pulse::new(Arc::clone(&self.traffic)));
            let served = serve((tcp, place), pulse, self.settings.clone(), Arc::clone(&self.house), self.stop.clone());
            let hard_stop = self.hard_stop.clone();
            self.connections.spawn(async move {
                hard_stop.run_until_cancelled(served).await;
            });
        }
    }

    /// Resolves once nothing has been in progress for as long as weir lingers: no request, no session, nothing that goes
    /// on for its own sake.
    async fn is_quiet(&self) {
        let mut quiet_since = Instant::now();
        let mut ended = self.traffic.ended();
        loop {
            let ended_now = self.traffic.ended();
            let is_busy = self.traffic.is_flowing() || !self.tasks.is_empty();
            if is_busy || ended_now != ended {
                (quiet_since, ended) = (Instant::now(), ended_now);
            }
            if !is_busy && quiet_since.elapsed() >= self.settings.linger.get() {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// What goes on on all connections together.
#[derive(Debug)]
struct Traffic {
    in_flight: AtomicUsize,
    ended: AtomicU64,
}

impl Traffic {
    const fn new() -> Self {
        Self { in_flight: AtomicUsize::new(0), ended: AtomicU64::new(0) }
    }

    fn is_flowing(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Requests that are over.
    fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Serves one connection until either side ends it, it stalls or idles, or `stop` asks it to end; or until it leaves
/// HTTP behind, and belongs to a session.
async fn serve(
    (tcp, place): (TcpStream, OwnedSemaphorePermit),
    pulse: Arc<Pulse>,
    settings: Settings,
    house: Arc<House>,
    stop: CancellationToken,
) {
    // Streams are many small writes, and each matters to the first token's latency.
    let _ = tcp.set_nodelay(true);
    let io = TokioIo::new(Watched { tcp, pulse: Arc::clone(&pulse), _place: place });
    let beats = Arc::clone(&pulse);
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = beats.request_begins(request.version());
        // Ten kilobytes, made where they stay: hyper would move them about, and keep room for them on every connection.
        let answered = Box::into_pin(Box::write(Box::new_uninit(), exchange::handle(house.rooms(), request)));
        async move { Ok::<_, Infallible>(answered.await.map(|body| Guarded { body, _guard: guard })) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(None);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(60));
    let mut connection = pin!(server.serve_connection_with_upgrades(io, service));
    let mut check_at = Instant::now() + settings.header_timeout.get();
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error.message = %error, "a connection of the app ended early");
                }
                return;
            }
            () = stop.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(check_at) => match pulse.check(&settings) {
                Check::Alive(next) => check_at = next,
                Check::Idle if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                    check_at = Instant::now() + settings.header_timeout.get();
                }
                // It stalls in the middle of a head, or did not go when it was asked to.
                Check::Idle | Check::Stalled => return,
            },
        }
    }
}

/// What one connection is doing, written by its reads and requests, read by its watcher.
#[derive(Debug)]
struct Pulse {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds after `opened` when the last request ended.
    last_end: AtomicU64,
    /// Milliseconds after `opened` when the first bytes of a head came, plus one; 0 while there are none.
    head_began: AtomicU64,
    /// On HTTP/2, bytes between requests are frames, not the beginning of a head.
    http2: AtomicBool,
    /// What goes on on all connections, this one among them.
    traffic: Arc<Traffic>,
}

enum Check {
    Alive(Instant),
    Idle,
    Stalled,
}

impl Pulse {
    fn new(traffic: Arc<Traffic>) -> Self {
        Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            last_end: AtomicU64::new(0),
            head_began: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            traffic,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn bytes_came(&self, bytes: &[u8]) {
        if bytes.starts_with(HTTP2_PREFACE) {
            self.http2.store(true, Ordering::Relaxed);
        }
        if self.in_flight.load(Ordering::Relaxed) == 0
            && !self.http2.load(Ordering::Relaxed)
            && self.head_began.load(Ordering::Relaxed) == 0
        {
            self.head_began.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    fn request_begins(self: &Arc<Self>, version: Version) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.traffic.in_flight.fetch_add(1, Ordering::Relaxed);
        self.http2.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.head_began.store(0, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    fn check(&self, settings: &Settings) -> Check {
        let (header, idle) = (settings.header_timeout.get(), settings.idle_timeout.get());
        let now = Instant::now();
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Check::Alive(now + header.min(idle));
        }
        let at = |millis| self.opened + Duration::from_millis(millis);
        match self.head_began.load(Ordering::Relaxed) {
            0 => {
                let deadline = at(self.last_end.load(Ordering::Relaxed)) + idle;
                // Look in between, since a head may begin at any time.
                if deadline <= now { Check::Idle } else { Check::Alive(deadline.min(now + header)) }
            }
            began => {
                let deadline = at(began - 1) + header;
                if deadline <= now { Check::Stalled } else { Check::Alive(deadline) }
            }
        }
    }
}

/// One request in progress, until its response's body is gone.
#[derive(Debug)]
struct InFlight(Arc<Pulse>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.last_end.store(self.0.now(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.traffic.ended.fetch_add(1, Ordering::Relaxed);
        self.0.traffic.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's body that keeps its request in flight.
struct Guarded<B> {
    body: B,
    _guard: InFlight,
}

impl<B: Body + Unpin> Body for Guarded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose reads keep the pulse. It has its place for as long as it is there, whatever is spoken on it.
struct Watched {
    tcp: TcpStream,
    pulse: Arc<Pulse>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.pulse.bytes_came(bytes);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }
}

/// An address at which what listens on `address` is reached from the same machine.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_reached_on_loopback() {
        for (listen, expected) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(listen.parse().expect("an address")).to_string(), expected);
        }
    }
}
