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
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
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
        Self::made(protocols, &CertificateParams::new(["localhost".to_owned()]).unwrap())
    }

    /// Says that it is somebody else.
    pub(crate) fn of_another() -> Self {
        Self::made(&[], &CertificateParams::new(["somebody.invalid".to_owned()]).unwrap())
    }

    /// Was good some time ago.
    pub(crate) fn expired() -> Self {
        let mut about = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (about.not_before, about.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        Self::made(&[], &about)
    }

    fn made(protocols: &[&[u8]], about: &CertificateParams) -> Self {
        let pair = KeyPair::generate().unwrap();
        let cert = about.self_signed(&pair).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let authority = dir.path().join("ca.pem");
        std::fs::write(&authority, cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let pem = [cert.pem(), pair.serialize_pem()];
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), authority, pem, dir }
    }
}

/// A way through TLS to a server that knows none.
pub(crate) struct TlsWay {
    pub(crate) address: SocketAddr,
    passing: JoinHandle<()>,
}

impl TlsWay {
    /// To `server`, which is who `identity` says.
    pub(crate) async fn before(server: SocketAddr, identity: &Identity) -> Self {
        let (listener, acceptor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), identity.acceptor.clone());
        let address = listener.local_addr().unwrap();
        let passing = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut near) = acceptor.accept(tcp).await else { return };
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    // Who hangs up has its reasons.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, passing }
    }
}

impl Drop for TlsWay {
    fn drop(&mut self) {
        self.passing.abort();
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
