//! Upstream: the provider's side. One send: DNS, TLS, pool, deadlines, credentials; and what is known of when another
//! send may fare better.
//!
//! Knows how to reach one provider and how that fails; not what is asked, nor what it costs.

#[cfg_attr(not(feature = "aws"), path = "aws_absent.rs")]
pub mod aws;
pub mod breaker;
mod connect;
pub mod credential;
pub mod hedge;
pub mod incoming;
pub mod plan;
pub mod reply;
pub mod retry;
pub mod retry_budget;
pub mod sign;
pub mod trust;

use std::error::Error as StdError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::record::outcome::{ErrorType, Trouble};
use crate::units::Span;
use crate::upstream::aws::Signer;
use crate::upstream::connect::{ConnectError, Connector, Open, cause_of};
use crate::upstream::incoming::{AppBody, BrokenBody};
use crate::upstream::sign::Unsigned;
use crate::upstream::trust::{Offer, Speaks, Trust};

/// What the operator writes of connections to providers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long name resolution, TCP and TLS may take together.
    pub connect_timeout: Span,
    /// How long a provider may take to begin its answer. Long by default: a model may think for minutes.
    pub first_byte_timeout: Span,
    /// How long a provider may fall silent in the middle of an answer, and both sides of a WebSocket session.
    pub idle_timeout: Span,
    /// How long a call may take in all, from when it goes to the provider to the end of its answer. A stream that takes
    /// longer ends with an error of its API's own. Without it (`null`), there is no such bound; sessions have none.
    pub total_timeout: Option<Span>,
    /// How long an unused connection is kept for the next call.
    pub pool_idle_timeout: Span,
    /// Most unused connections kept for each provider.
    pub pool_max_idle: usize,
    /// Files of further certificate authorities (PEM) to trust, beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Whether HTTP/2 is spoken to providers that offer it. All calls to a provider then share one connection, and wait
    /// for each other once the provider's limit of streams is reached (usually 100); without it, each call in progress
    /// has a connection of its own.
    pub http2: bool,
    /// Which proxy leads to the providers: `environment` (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) or
    /// `none`.
    pub proxy: Proxy,
    /// How a call is made again that failed before anything of its answer came (docs/resilience.md).
    pub retries: retry::Settings,
    /// When an upstream that fails is left alone (docs/resilience.md).
    pub breaker: breaker::Settings,
    /// When a call is made a second time beside a slow first one (docs/resilience.md).
    pub hedging: hedge::Settings,
    /// After what a call moves to the next of the provider's `fallbacks`, where it has any: `connect`, `timeout`,
    /// `rate_limit`, `server_error`, as for `retries.on`.
    pub fallback_on: Vec<Trouble>,
}

/// Which proxy leads to the providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proxy {
    /// As the usual environment variables say.
    Environment,
    /// None, whatever the environment says.
    None,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Span::from_secs(10),
            first_byte_timeout: Span::from_secs(600),
            idle_timeout: Span::from_secs(300),
            total_timeout: None,
            pool_idle_timeout: Span::from_secs(60),
            pool_max_idle: 64,
            ca_files: Vec::new(),
            http2: true,
            proxy: Proxy::Environment,
            retries: retry::Settings::default(),
            breaker: breaker::Settings::default(),
            hedging: hedge::Settings::default(),
            fallback_on: vec![Trouble::Connect, Trouble::Timeout, Trouble::ServerError],
        }
    }
}

/// Why a provider could not be asked, or did not begin to answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its name does not resolve.
    #[error("the name does not resolve")]
    Dns(#[source] BoxError),
    /// No connection could be made.
    #[error("no connection could be made")]
    Connect(#[source] BoxError),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed")]
    Tls(#[source] BoxError),
    /// No connection within the deadline.
    #[error("no connection within the deadline")]
    ConnectTimeout,
    /// No response head within the deadline.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    FirstByteTimeout(Duration),
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke before an answer came")]
    Reset(#[source] BoxError),
    /// No end of the answer within the time that a call may take in all.
    #[error("the call was not over within {}", humantime::format_duration(*.0))]
    TotalTimeout(Duration),
    /// The process has no descriptor left for another connection: the provider was not asked, and has no part in it.
    #[error("weir has no descriptor left for another connection")]
    NoDescriptor(#[source] BoxError),
    /// The app's own body broke off while it was being forwarded.
    #[error("the request's body broke off")]
    RequestBody(#[source] BoxError),
    /// The app's own body stalled while it was being forwarded.
    #[error("the request's body stalled: nothing more of it came within {}", humantime::format_duration(*.0))]
    RequestStalled(Duration),
    /// It should carry a signature for AWS, and cannot.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// It has failed too often, and is left alone for so much longer.
    #[error("it has failed too often, and is left alone for {}", humantime::format_duration(seconds(*.0)))]
    CircuitOpen(Duration),
}

/// Rounded up: who comes a moment too early is refused again.
fn seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1))
}

/// Any error, as a cause.
pub type BoxError = Box<dyn StdError + Send + Sync>;

impl Failure {
    /// The failure as a label.
    #[must_use]
    pub const fn error_type(&self) -> ErrorType {
        match self {
            Self::Dns(_) => ErrorType::Dns,
            Self::Connect(_) | Self::NoDescriptor(_) => ErrorType::Connect,
            Self::Tls(_) => ErrorType::Tls,
            Self::ConnectTimeout | Self::FirstByteTimeout(_) | Self::TotalTimeout(_) => ErrorType::Timeout,
            Self::Reset(_) => ErrorType::ConnectionReset,
            Self::RequestBody(_) => ErrorType::Cancelled,
            // What the app is told.
            Self::RequestStalled(_) => ErrorType::Status(408),
            Self::Unsigned(_) => ErrorType::Other,
            Self::CircuitOpen(_) => ErrorType::CircuitOpen,
        }
    }

    /// Whether the provider may have seen the request, and so may bill it.
    #[must_use]
    pub const fn reached_the_provider(&self) -> bool {
        match self {
            Self::Dns(_)
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::ConnectTimeout
            | Self::NoDescriptor(_)
            | Self::Unsigned(_)
            | Self::CircuitOpen(_) => false,
            Self::FirstByteTimeout(_)
            | Self::TotalTimeout(_)
            | Self::Reset(_)
            | Self::RequestBody(_)
            | Self::RequestStalled(_) => true,
        }
    }

    fn of(error: ClientError) -> Self {
        if let Some(connect) = cause_of::<ConnectError>(&error) {
            return match connect {
                connect if connect.is_for_want_of_descriptors() => Self::NoDescriptor(error.into()),
                ConnectError::Dns(_) => Self::Dns(error.into()),
                ConnectError::Tcp(_) | ConnectError::Proxy(_) => Self::Connect(error.into()),
                ConnectError::Tls(_) => Self::Tls(error.into()),
                ConnectError::Timeout(_) => Self::ConnectTimeout,
            };
        }
        match cause_of::<BrokenBody>(&error) {
            Some(BrokenBody::Stalled(patience)) => Self::RequestStalled(*patience),
            Some(BrokenBody::BrokenOff(_)) => Self::RequestBody(error.into()),
            None => Self::Reset(error.into()),
        }
    }
}

/// Told of each new connection, and how long it took to make.
pub type OnConnected = Box<OnNewConnection>;

type OnNewConnection = dyn Fn(Duration) + Send + Sync;

/// Bytes of unread replies that one HTTP/2 connection may hold, in all its streams.
const HTTP2_CONNECTION_WINDOW: u32 = 32 << 20;

/// The way to one provider: a pool of connections and their deadlines.
#[derive(Debug)]
pub struct Upstream {
    client: Client<Connector, RequestBody>,
    /// For requests to switch protocols: always HTTP/1.1, each on a connection of its own.
    switching: Client<Connector, RequestBody>,
    first_byte: Duration,
    proxy: Option<Arc<Matcher>>,
    signer: Option<Signer>,
    open: Open,
}

impl Upstream {
    /// A way to a provider. `on_connected` is told of each new connection.
    #[must_use]
    pub fn new(settings: &Settings, trust: &Trust, on_connected: OnConnected) -> Self {
        let proxy = matches!(settings.proxy, Proxy::Environment).then(of_environment).flatten().map(Arc::new);
        let connect_timeout = settings.connect_timeout.get();
        let on_connected: Arc<OnNewConnection> = on_connected.into();
        let open = Open::default();
        let connector = |speaks| {
            let tls = Offer::new(trust, speaks);
            Connector::new(tls, proxy.clone(), connect_timeout, Arc::clone(&on_connected), open.clone())
        };
        let switching = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector(Speaks::Http1));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.pool_idle_timeout.get())
            .pool_max_idle_per_host(settings.pool_max_idle)
            // All calls share one HTTP/2 connection: an app that leaves some replies unread must not stall the others.
            .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            // A silent HTTP/2 connection would take every later call with it.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_keep_alive_timeout(Duration::from_secs(20))
            .build(connector(Speaks::Any));
        Self { client, switching, first_byte: settings.first_byte_timeout.get(), proxy, signer: None, open }
    }

    /// What signs on it, if something does.
    #[must_use]
    pub const fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// The same way, on which `signer` signs what carries no API key.
    #[must_use]
    pub fn signed_by(self, signer: Option<Signer>) -> Self {
        Self { signer, ..self }
    }

    /// Connections that are open now, in use or kept for the next call.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.now()
    }

    /// Whether requests are signed on this way. Their bodies must then be there as a whole.
    #[must_use]
    pub const fn signs(&self) -> bool {
        self.signer.is_some()
    }

    /// Sends one request and waits for the head of its answer. Dropping the future, or the answer's body, ends the
    /// exchange upstream.
    ///
    /// # Errors
    /// If the provider cannot be reached, breaks off, or does not begin to answer in time; or if the request should be
    /// signed and cannot.
    pub async fn send(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, Failure> {
        let answer = self.ask(&self.client, request).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // The app would take what follows for an answer in a protocol that it does not speak.
            return Err(Failure::Reset("the provider switched protocols, which nobody had asked for".into()));
        }
        Ok(answer)
    }

    /// Sends a request to switch protocols, over HTTP/1.1 and on a connection of its own, and waits for the head of its
    /// answer. If that is 101, the connection is had from it by [`hyper::upgrade::on`]. Dropping the future ends the
    /// exchange upstream.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    pub async fn switch(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, Failure> {
        self.ask(&self.switching, request).await
    }

    async fn ask(
        &self,
        client: &Client<Connector, RequestBody>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Failure> {
        request.headers_mut().remove(HOST);
        sign::authorise(self.signer.as_ref(), &mut request).await?;
        if let Some(credential) = self.plain_proxy_credential(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credential);
        }
        let progress = Arc::clone(&request.body().received);
        let mut answer = pin!(client.request(request));
        let mut received = 0;
        loop {
            if let Ok(answer) = timeout(self.first_byte, answer.as_mut()).await {
                return answer.map_err(Failure::of);
            }
            // While the app is still sending, the provider owes no answer.
            let now = progress.load(Ordering::Relaxed);
            if now == received {
                return Err(Failure::FirstByteTimeout(self.first_byte));
            }
            received = now;
        }
    }

    /// A tunnel shows its credential to the proxy when it is dug; a request without TLS carries it itself.
    fn plain_proxy_credential(&self, to: &Uri) -> Option<HeaderValue> {
        let plain = to.scheme() == Some(&http::uri::Scheme::HTTP);
        let proxy = self.proxy.as_ref().filter(|_| plain)?.intercept(to)?;
        proxy.basic_auth().cloned()
    }
}

/// The proxies that the environment names; `None` if it names none, so that no call asks for one.
fn of_environment() -> Option<Matcher> {
    let is_of_proxies = |name: OsString| name.to_string_lossy().to_ascii_lowercase().ends_with("_proxy");
    std::env::vars_os().any(|(name, _)| is_of_proxies(name)).then(Matcher::from_env)
}

/// The body of a request on its way up: what weir has kept of it, then what is still to come from the app.
#[derive(Debug)]
pub struct RequestBody {
    kept: Option<Bytes>,
    rest: Option<AppBody>,
    received: Arc<AtomicU64>,
}

impl RequestBody {
    /// A body that is all there.
    #[must_use]
    pub fn whole(body: Bytes) -> Self {
        Self { kept: Some(body).filter(|body| !body.is_empty()), rest: None, received: Arc::default() }
    }

    /// A body whose beginning is `kept` and whose rest streams through, adding its length to `received`.
    #[must_use]
    pub fn through(kept: Bytes, rest: AppBody, received: Arc<AtomicU64>) -> Self {
        Self { kept: Some(kept).filter(|kept| !kept.is_empty()), rest: Some(rest), received }
    }

    /// What it is made of, so that it can be sent more than once.
    ///
    /// # Errors
    /// With the body itself, if it is not.
    pub fn into_bytes(self) -> Result<Bytes, Self> {
        // An app's body that is over before it began is as good as none.
        if self.rest.as_ref().is_some_and(|rest| !rest.is_end_stream()) {
            Err(self)
        } else {
            Ok(self.kept.unwrap_or_default())
        }
    }

    /// All of it, if it is all there.
    fn as_whole(&self) -> Option<&[u8]> {
        self.rest.is_none().then(|| self.kept.as_deref().unwrap_or_default())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        if let Some(kept) = self.kept.take() {
            return Poll::Ready(Some(Ok(Frame::data(kept))));
        }
        let Some(rest) = self.rest.as_mut() else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(rest).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.len() as u64);
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}
