//! Server: what the API server asks, over TLS: `POST /mutate`. Bounded in every way, and it ends without a failed review.
//!
//! Knows HTTP and TLS; not what a review says, nor where certificates come from.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inject::certificates::Certificates;
use crate::inject::review::Reason;
use crate::inject::{Settings, answer};
use crate::sinks::injector::{Injections, Webhook};

/// Most bytes of a review: an object of Kubernetes has at most 1.5 MiB, and an update brings two.
const REVIEW_BYTES_MAX: usize = 4 << 20;
/// Most KiB of reviews at once; more wait.
const REVIEWS_KIB_MAX: usize = 16 << 10;
/// Most reviews at once on one HTTP/2 connection; hyper's own default.
const STREAMS_MAX: u32 = 200;
/// How long to wait after the system refuses to accept (out of descriptors, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long each thing may take, and how much there may be at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most connections at once; more wait to be accepted.
    pub connections: usize,
    /// For the handshake of TLS.
    pub handshake: Duration,
    /// For the head of a request, and between two requests. Longer than the 90 seconds for which the API server keeps a
    /// connection, so that it is not closed just when it is used.
    pub head: Duration,
    /// For reading a review, once its head is there; shorter than the API server waits.
    pub review: Duration,
    /// How long connections are still accepted once the injector is told to stop: the API server hears late that it is to
    /// ask another one.
    pub linger: Duration,
    /// How long reviews in progress may go on after that.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(120),
            review: Duration::from_secs(4),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// What answers reviews.
pub struct Reviewer {
    settings: Settings,
    bounds: Bounds,
    metrics: Arc<Injections>,
    room: Semaphore,
    tls: TlsAcceptor,
}

impl Reviewer {
    /// One that shows `certificates`.
    ///
    /// # Panics
    /// Never: ring supports the protocol versions named here.
    #[must_use]
    pub fn new(settings: Settings, bounds: Bounds, certificates: Arc<Certificates>, metrics: Arc<Injections>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default protocol versions")
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        tls.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        let room = Semaphore::new(REVIEWS_KIB_MAX);
        Self { settings, bounds, metrics, room, tls: TlsAcceptor::from(Arc::new(tls)) }
    }
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewer").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

const HTTP2: &[u8] = b"h2";

/// How far it is with the end.
#[derive(Clone, Debug, Default)]
struct End {
    /// Connections are accepted, and those there were are given up.
    lingers: CancellationToken,
    /// What is in progress ends.
    drains: CancellationToken,
}

/// Answers reviews on `listener` until `shutdown` resolves; goes on for as long as the API server may not have heard of
/// it, then ends what is in progress. Dropping the future stops accepting; open connections go on until the runtime ends.
pub async fn run(listener: TcpListener, reviewer: Arc<Reviewer>, shutdown: impl Future<Output = ()>) {
    let (connections, end) = (TaskTracker::new(), End::default());
    let Bounds { linger, drain, .. } = reviewer.bounds;
    let ended = async {
        shutdown.await;
        end.lingers.cancel();
        sleep(linger).await;
    };
    tokio::select! {
        () = accept(&listener, &reviewer, &connections, &end) => {}
        () = ended => {}
    }
    drop(listener);
    end.drains.cancel();
    connections.close();
    if timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(weir.connections = connections.len(), "reviews were still in progress at the end");
    }
}

async fn accept(listener: &TcpListener, reviewer: &Arc<Reviewer>, connections: &TaskTracker, end: &End) {
    let places = Arc::new(Semaphore::new(reviewer.bounds.connections));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((tcp, _)) => {
                connections.spawn(serve(tcp, place, Arc::clone(reviewer), end.clone()));
            }
            Err(error) => {
                tracing::warn!(error.message = %error, "cannot accept a connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until either side ends it, it stalls or idles, or the injector ends.
async fn serve(tcp: TcpStream, _place: OwnedSemaphorePermit, reviewer: Arc<Reviewer>, end: End) {
    let _ = tcp.set_nodelay(true);
    let lingered = end.lingers.is_cancelled();
    let tls = match timeout(reviewer.bounds.handshake, reviewer.tls.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        // Whoever does not trust the certificate ends here: the log of the API server says so, and so does its metric.
        Ok(Err(error)) => return tracing::debug!(error.message = %error, "no TLS handshake"),
        Err(_) => return tracing::debug!("no TLS handshake in time"),
    };
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(HTTP2);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(reviewer.bounds.head);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(60));
    let lingers = end.lingers.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (reviewer, lingers) = (Arc::clone(&reviewer), lingers.clone());
        async move {
            let is_http1 = request.version() <= Version::HTTP_11;
            let mut response = reply(&reviewer, request).await;
            if is_http1 && lingers.is_cancelled() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(tls), service));
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error.message = %error, "a connection ended early");
                }
                return;
            }
            // HTTP/2 says goodbye in a way that loses no request; HTTP/1.1 with its next answer.
            () = end.lingers.cancelled(), if is_http2 && !lingered && !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = end.drains.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Why a request is not a review.
#[derive(Debug)]
enum Wrong {
    Path,
    Method,
    MediaType,
    TooLarge,
    TooSlow,
    Broken,
    TooMany,
}

impl Wrong {
    fn response(&self) -> Response<Full<Bytes>> {
        let (status, says) = match self {
            Self::Path => (StatusCode::NOT_FOUND, "there is nothing here: POST an AdmissionReview to /mutate"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "an AdmissionReview is application/json"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "an AdmissionReview has at most 4 MiB"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the AdmissionReview did not come in time"),
            Self::Broken => (StatusCode::BAD_REQUEST, "the AdmissionReview broke off"),
            Self::TooMany => (StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once"),
        };
        let mut response = response(status, "text/plain; charset=utf-8", format!("{says}\n").into());
        match self {
            Self::Method => response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST")),
            Self::TooMany => response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => None,
        };
        response
    }
}

fn response(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

async fn reply(reviewer: &Reviewer, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let begun = Instant::now();
    let (webhook, review) = match read(reviewer, request, begun).await {
        Ok(read) => read,
        Err(wrong) => return wrong.response(),
    };
    let answer = answer(&review, &reviewer.settings);
    if !answer.dry_run {
        reviewer.metrics.reviewed(webhook, (answer.result.as_str(), answer.reason.as_str()), begun.elapsed());
    }
    let status = if answer.reason == Reason::Unreadable { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    response(status, "application/json", answer.body.into())
}

/// The body of a request that may be a review, and which webhook asks.
async fn read(reviewer: &Reviewer, request: Request<Incoming>, begun: Instant) -> Result<(Webhook, Bytes), Wrong> {
    let webhook = match request.uri().path() {
        "/mutate" => Webhook::Unnamed,
        "/mutate/namespace" => Webhook::Namespace,
        "/mutate/object" => Webhook::Object,
        _ => return Err(Wrong::Path),
    };
    if request.method() != Method::POST {
        return Err(Wrong::Method);
    }
    if !is_json(request.headers()) {
        return Err(Wrong::MediaType);
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let length = length.unwrap_or(REVIEW_BYTES_MAX);
    if length > REVIEW_BYTES_MAX {
        return Err(Wrong::TooLarge);
    }
    let deadline = begun + reviewer.bounds.review;
    let kib = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
    let Ok(Ok(_room)) = timeout_at(deadline, reviewer.room.acquire_many(kib)).await else {
        return Err(Wrong::TooMany);
    };
    match timeout_at(deadline, Limited::new(request.into_body(), REVIEW_BYTES_MAX).collect()).await {
        Ok(Ok(review)) => Ok((webhook, review.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Wrong::TooLarge),
        Ok(Err(_)) => Err(Wrong::Broken),
        Err(_) => Err(Wrong::TooSlow),
    }
}

/// Whether a body is said to be JSON, whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    said.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
