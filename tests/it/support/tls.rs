//! A provider behind TLS, with a certificate authority of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A certificate for `localhost` that nobody else knows.
pub(crate) struct Identity {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) authority: PathBuf,
    /// The certificate and its key, as PEM.
    pub(crate) pem: [String; 2],
    pub(crate) dir: TempDir,
}

impl Identity {
    /// Offers these protocols.
    pub(crate) fn new(protocols: &[&[u8]]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let authority = dir.path().join("ca.pem");
        std::fs::write(&authority, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let pem = [made.cert.pem(), made.signing_key.serialize_pem()];
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), authority, pem, dir }
    }
}

/// A provider at `https://localhost:<port>` that always says the same.
pub(crate) struct TlsProvider {
    pub(crate) address: SocketAddr,
    pub(crate) authority: PathBuf,
    versions: Arc<Mutex<Vec<Version>>>,
    server: JoinHandle<()>,
    _dir: TempDir,
}

impl TlsProvider {
    /// Answers every request with `body`; offers these protocols.
    pub(crate) async fn start(protocols: &[&[u8]], body: &'static [u8]) -> Self {
        let Identity { acceptor, authority, dir, .. } = Identity::new(protocols);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let versions = Arc::<Mutex<Vec<Version>>>::default();
        let seen = Arc::clone(&versions);
        let server = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        seen.lock().unwrap().push(request.version());
                        let answer = Response::builder().header("content-type", "application/json");
                        async move { Ok::<_, Infallible>(answer.body(Full::new(Bytes::from_static(body))).unwrap()) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Self { address, authority, versions, server, _dir: dir }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The HTTP version of each request so far.
    pub(crate) fn versions(&self) -> Vec<Version> {
        self.versions.lock().unwrap().clone()
    }
}

impl Drop for TlsProvider {
    fn drop(&mut self) {
        self.server.abort();
    }
}
