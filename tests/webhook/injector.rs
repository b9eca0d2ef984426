//! Injector: a real one on port 0, and the API server's side of it: reviews over TLS, from clients that trust what they
//! are given.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir::inject::server::Bounds;
use weir::inject::{CertificateSource, Settings};
use weir::injector::{Injector, Surroundings};

use crate::kubernetes::Kubernetes;

/// Waits until an asynchronous condition holds. Fails after ten seconds.
macro_rules! until {
    ($what:expr, $holds:expr) => {{
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            if $holds {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "never came true: {}", $what);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }};
}
pub(crate) use until;

/// What the API server asks for.
pub(crate) const NAME: &str = "weir-injector.weir-system.svc";
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// An injector, running.
pub(crate) struct Running {
    pub(crate) webhook: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Bounds that tests can wait for.
pub(crate) fn bounds() -> Bounds {
    Bounds { linger: Duration::from_millis(300), ..Bounds::default() }
}

impl Running {
    /// One that looks after its own certificate, and asks `kubernetes` often.
    pub(crate) async fn in_cluster(kubernetes: &Kubernetes) -> Self {
        let every = Some(Duration::from_millis(20));
        Self::start(settings(), Surroundings { cluster: Some(kubernetes.cluster()), bounds: bounds(), every }).await
    }

    /// One whose certificate is in `directory`.
    pub(crate) async fn with_files(directory: &Path, bounds: Bounds) -> Self {
        let mut settings = settings();
        settings.tls.source = CertificateSource::Files;
        directory.clone_into(&mut settings.tls.directory);
        Self::start(settings, Surroundings { bounds, ..Surroundings::default() }).await
    }

    async fn start(settings: Settings, surroundings: Surroundings) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let injector = Injector::bind(settings, any, surroundings).await.expect("free ports");
        let webhook = injector.webhook_address().expect("a bound address");
        let admin = injector.admin_address().expect("a bound address");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(injector.run(async move {
            let _ = stopped.await;
        }));
        Self { webhook, admin, stop: Some(stop), server }
    }

    /// Tells it to stop, as SIGTERM does.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("once").send(()).expect("it runs");
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) {
        (&mut self.server).await.expect("it ended well");
    }

    /// What the operator's side says.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let tcp = TcpStream::connect(self.admin).await.expect("a connection");
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.expect("HTTP");
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "weir").body(Full::new(Bytes::new())).expect("a request");
        let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        (head.status, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// The value of a series; none while it is not there.
    pub(crate) async fn series(&self, series: &str) -> Option<f64> {
        let (_, scraped) = self.get("/metrics").await;
        let line = scraped.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        Some(line[series.len() + 1..].parse().expect("a number"))
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.get("/readyz").await.0 == StatusCode::OK
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        until!("the injector is ready", self.is_ready().await);
    }

    /// One review over a connection of its own, by one who trusts `bundle`.
    pub(crate) async fn review(&self, bundle: &str) -> Result<Value, Failed> {
        let tls = connect(self.webhook, bundle, &[b"http/1.1"]).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(reviewed("/mutate/object", false)).await?.into_parts();
        assert_eq!(head.status, StatusCode::OK);
        Ok(serde_json::from_slice(&body.collect().await?.to_bytes())?)
    }

    /// One connection on which many reviews are asked for at once.
    pub(crate) async fn http2(&self, bundle: &str) -> Result<http2::SendRequest<Full<Bytes>>, Failed> {
        let tls = connect(self.webhook, bundle, &[b"h2"]).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn settings() -> Settings {
    Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        image: Some("ghcr.io/weir-dev/weir:0.1.0".to_owned()),
        ..Settings::default()
    }
}

/// A connection by one who trusts `bundle`, and nothing else.
pub(crate) async fn connect(to: SocketAddr, bundle: &str, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>, Failed> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let tcp = TcpStream::connect(to).await?;
    // As Go's HTTP does it, which the API server asks with: head and body are two writes.
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME)?, tcp).await?)
}

/// A request for a review, as the API server sends it.
pub(crate) fn reviewed(path: &str, dry_run: bool) -> Request<Full<Bytes>> {
    let review = review(dry_run);
    Request::builder()
        .method(Method::POST)
        .uri(format!("https://{NAME}{path}?timeout=5s"))
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::new(review.to_string().into()))
        .expect("a request")
}

/// A review of a pod that is made.
pub(crate) fn review(dry_run: bool) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "shop", "operation": "CREATE", "dryRun": dry_run,
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "generateName": "chat-7c5ddbdf54-", "labels": { "weir.dev/inject": "true" } },
                "spec": { "containers": [{ "name": "app", "image": "example.com/chat:1" }] },
            },
        },
    })
}
