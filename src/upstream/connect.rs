//! Connect: makes one connection to a provider. Name, proxy, TCP, TLS, within one deadline, and says which of them
//! failed.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower_service::Service;

use crate::upstream::trust::Offer;
use crate::upstream::{BoxError, OnNewConnection};

/// Why no connection was made. The variant is the fact; the source says more.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the name does not resolve")]
    Dns(#[source] BoxError),
    #[error("no connection")]
    Tcp(#[source] BoxError),
    #[error("the proxy refuses")]
    Proxy(#[source] BoxError),
    #[error("the TLS handshake fails")]
    Tls(#[source] io::Error),
    #[error("not connected within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

/// What the system says where a process (24) or the machine (23) has no descriptor left: `EMFILE` and `ENFILE`, the same
/// on Linux and on BSDs.
const NO_DESCRIPTOR: [i32; 2] = [24, 23];

impl ConnectError {
    /// Whether the system had no descriptor left for it.
    pub(super) fn is_for_want_of_descriptors(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let of_system = error.downcast_ref::<io::Error>();
            let code =
                of_system.or_else(|| Some(&error.downcast_ref::<NoAddress>()?.0)).and_then(io::Error::raw_os_error);
            if code.is_some_and(|code| NO_DESCRIPTOR.contains(&code)) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// How many connections are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }
}

/// That a connection is open, until it is dropped.
struct Place(Open);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes connections to one provider.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<Names>,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Offer,
    proxy: Option<Arc<Matcher>>,
    deadline: Duration,
    on_connected: Arc<OnNewConnection>,
    open: Open,
}

impl Connector {
    pub(super) fn new(
        tls: Offer,
        proxy: Option<Arc<Matcher>>,
        deadline: Duration,
        on_connected: Arc<OnNewConnection>,
        open: Open,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Names(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        Self { tcp, shared: Arc::new(Shared { tls, proxy, deadline, on_connected, open }) }
    }

    async fn connect(self, to: Uri) -> Result<Stream, ConnectError> {
        let started = Instant::now();
        let deadline = self.shared.deadline;
        let shared = Arc::clone(&self.shared);
        let (io, route) = timeout(deadline, self.dial(to))
            .await
            .map_err(|_| ConnectError::Timeout(deadline))
            .and_then(|made| made)?;
        (shared.on_connected)(started.elapsed());
        Ok(Stream { io: TokioIo::new(io), route, _place: shared.open.one_more() })
    }

    async fn dial(self, to: Uri) -> Result<(Io, Route), ConnectError> {
        let over_tls = to.scheme() == Some(&http::uri::Scheme::HTTPS);
        match self.shared.proxy.as_ref().and_then(|proxy| proxy.intercept(&to)) {
            Some(proxy) if over_tls => {
                let (tcp, tls) = tokio::join!(self.tunnel(&to, &proxy), self.shared.tls.config());
                self.handshake(&to, tcp?, tls).await
            }
            // Without TLS the proxy takes the request itself, in absolute form.
            Some(proxy) => Ok((Either::Left(self.reach(proxy.uri().clone()).await?), Route::Proxy)),
            None if over_tls => {
                // The first connection of all has authorities read: that takes no longer than reaching another machine.
                let (tcp, tls) = tokio::join!(self.reach(to.clone()), self.shared.tls.config());
                self.handshake(&to, tcp?, tls).await
            }
            None => Ok((Either::Left(self.reach(to).await?), Route::Http1)),
        }
    }

    async fn reach(&self, to: Uri) -> Result<TcpStream, ConnectError> {
        let mut tcp = self.tcp.clone();
        tcp.call(to).await.map(TokioIo::into_inner).map_err(|error| classify(error.into()))
    }

    async fn tunnel(&self, to: &Uri, proxy: &Intercept) -> Result<TcpStream, ConnectError> {
        if proxy.uri().scheme_str() != Some("http") {
            let scheme = proxy.uri().scheme_str().unwrap_or_default();
            return Err(ConnectError::Proxy(format!("`{scheme}://` proxies are not supported: use http://").into()));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(credential) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credential.clone());
        }
        let made = tunnel.call(to.clone()).await;
        made.map(TokioIo::into_inner).map_err(|error| ConnectError::Proxy(error.into()))
    }

    async fn handshake(
        &self,
        to: &Uri,
        tcp: TcpStream,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<(Io, Route), ConnectError> {
        let host = to.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tls = TlsConnector::from(tls).connect(name, tcp).await.map_err(ConnectError::Tls)?;
        let route = match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => Route::Http2,
            _ => Route::Http1,
        };
        Ok((Either::Right(Box::new(tls)), route))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("deadline", &self.shared.deadline).finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// hyper-util's connector hides a resolver's error in its own; ours is found again by its type.
fn classify(error: BoxError) -> ConnectError {
    match cause_of::<NoAddress>(&*error) {
        Some(_) => ConnectError::Dns(error),
        None => ConnectError::Tcp(error),
    }
}

/// The first error of type `E` among `error` and its causes.
pub(super) fn cause_of<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The system's resolver, with an error that can be told from others.
#[derive(Clone)]
struct Names(GaiResolver);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAddress(io::Error);

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NoAddress;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoAddress>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NoAddress>> {
        self.0.poll_ready(cx).map_err(NoAddress)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move { Ok(found.await.map_err(NoAddress)?.collect::<Vec<_>>().into_iter()) })
    }
}

/// With or without TLS.
type Io = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// One connection.
pub(super) struct Stream {
    io: TokioIo<Io>,
    route: Route,
    _place: Place,
}

/// What the client must know of a connection to speak on it.
#[derive(Clone, Copy)]
enum Route {
    Http1,
    Http2,
    Proxy,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self.route {
            Route::Http1 => Connected::new(),
            Route::Http2 => Connected::new().negotiated_h2(),
            Route::Proxy => Connected::new().proxy(true),
        }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
