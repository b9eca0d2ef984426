//! The floor: a reverse proxy on the libraries that weir uses, which forwards and does nothing else. Less than this, a
//! proxy on hyper cannot cost.
//!
//! Two more floors do a little: one reads the model and the usage of each call, which is the least that metering can be;
//! one answers equal bodies from a `HashMap`, which is the least that a cache can be.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use clap::ValueEnum;
use http::response::Parts;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use memchr::memmem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::Failure;
use crate::process::announce;

/// What a floor does.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Kind {
    /// It forwards.
    Bare,
    /// It reads model and usage, and adds them up.
    Metering,
    /// It answers a body that it has answered before from memory.
    Caching,
}

/// How a floor is told what to be.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    pub(crate) kind: Kind,
    /// Where calls go.
    pub(crate) upstream: SocketAddr,
    /// The threads of its runtime.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: usize,
    /// The certificate to trust: the upstream speaks TLS.
    #[arg(long)]
    pub(crate) certificate: Option<PathBuf>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Serves until it is killed.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.workers).enable_all().build()?;
    let tls = arguments.certificate.as_deref().map(connector).transpose()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        match tls {
            None => accept(listener, arguments, "http", plain()).await,
            Some(tls) => accept(listener, arguments, "https", Secured { plain: plain(), tls }).await,
        }
    })
}

fn plain() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}

async fn accept<C>(listener: TcpListener, arguments: &Arguments, scheme: &str, connector: C) -> Result<(), Failure>
where
    C: hyper_util::client::legacy::connect::Connect + Clone + Send + Sync + 'static,
{
    let to = Arc::new(Target { scheme: scheme.to_owned(), authority: arguments.upstream.to_string() });
    let client = Client::builder(TokioExecutor::new()).build(connector.clone());
    let buffering = Arc::new(Buffering {
        client: Client::builder(TokioExecutor::new()).build(connector),
        to: Arc::clone(&to),
        seen: Seen::default(),
        stored: Mutex::default(),
    });
    let kind = arguments.kind;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, to, buffering) = (client.clone(), Arc::clone(&to), Arc::clone(&buffering));
        let stream = TokioIo::new(stream);
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new());
        match kind {
            Kind::Bare => {
                let service = service_fn(move |request| forward(client.clone(), Arc::clone(&to), request));
                tokio::spawn(server.serve_connection(stream, service));
            }
            Kind::Metering => {
                let service = service_fn(move |request| Arc::clone(&buffering).meter(request));
                tokio::spawn(server.serve_connection(stream, service));
            }
            Kind::Caching => {
                let service = service_fn(move |request| Arc::clone(&buffering).recall(request));
                tokio::spawn(server.serve_connection(stream, service));
            }
        }
    }
}

struct Target {
    scheme: String,
    authority: String,
}

impl Target {
    fn readdress<B>(&self, request: &mut Request<B>) {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::builder()
            .scheme(&*self.scheme)
            .authority(&*self.authority)
            .path_and_query(path)
            .build()
            .expect("the parts of a parsed URI make a URI");
        request.headers_mut().remove(http::header::HOST);
    }
}

async fn forward<C>(
    client: Client<C, Incoming>,
    to: Arc<Target>,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error>
where
    C: hyper_util::client::legacy::connect::Connect + Clone + Send + Sync + 'static,
{
    to.readdress(&mut request);
    client.request(request).await
}

/// The floors that hold a request before they send it.
struct Buffering<C> {
    client: Client<C, Full<Bytes>>,
    to: Arc<Target>,
    seen: Seen,
    stored: Mutex<HashMap<Bytes, (Parts, Bytes)>>,
}

/// What the metering floor has counted.
#[derive(Default)]
struct Seen {
    model_bytes: AtomicU64,
    input: AtomicU64,
    output: AtomicU64,
}

impl<C> Buffering<C>
where
    C: hyper_util::client::legacy::connect::Connect + Clone + Send + Sync + 'static,
{
    async fn send(&self, head: http::request::Parts, body: Bytes) -> Result<Response<Incoming>, Error> {
        let mut request = Request::from_parts(head, Full::new(body));
        self.to.readdress(&mut request);
        Ok(self.client.request(request).await?)
    }

    async fn meter(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Metered<C>>, Error> {
        #[derive(Deserialize)]
        struct Asked<'a> {
            model: &'a str,
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let asked: Asked<'_> = serde_json::from_slice(&body)?;
        self.seen.model_bytes.fetch_add(asked.model.len() as u64, Ordering::Relaxed);
        let reply = self.send(head, body).await?;
        Ok(reply.map(|body| Metered { body, unread: Vec::new(), floor: self }))
    }

    /// Bounded as a cache has to be, in the simplest way: it is emptied when it is full.
    async fn recall(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Error> {
        const MOST: usize = 10_000;
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let known = self.stored.lock().map_err(|_| "a call has panicked")?.get(&body).cloned();
        if let Some((head, reply)) = known {
            return Ok(Response::from_parts(head, Full::new(reply)));
        }
        let (reply_head, reply) = self.send(head, body.clone()).await?.into_parts();
        let reply = reply.collect().await?.to_bytes();
        let mut stored = self.stored.lock().map_err(|_| "a call has panicked")?;
        if stored.len() >= MOST {
            stored.clear();
        }
        // A copy: the body may be a slice of a larger buffer.
        stored.insert(Bytes::copy_from_slice(&body), (reply_head.clone(), reply.clone()));
        Ok(Response::from_parts(reply_head, Full::new(reply)))
    }
}

pin_project_lite::pin_project! {
    /// A reply on its way, and a copy of what its usage may be in.
    struct Metered<C> {
        #[pin]
        body: Incoming,
        unread: Vec<u8>,
        floor: Arc<Buffering<C>>,
    }
}

impl<C> Body for Metered<C> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.floor.seen.read(this.unread, data);
                }
            }
            _ => this.floor.seen.read(this.unread, b"\n"),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // It is asked for the end, at which the last of it is read.
        false
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

impl Seen {
    /// Reads each whole line: an event of a stream, or a reply. Only one that may have usage is parsed.
    fn read(&self, unread: &mut Vec<u8>, data: &[u8]) {
        unread.extend_from_slice(data);
        while let Some(end) = memchr::memchr(b'\n', unread) {
            self.read_line(&unread[..end]);
            unread.drain(..=end);
        }
    }

    fn read_line(&self, line: &[u8]) {
        #[derive(Deserialize)]
        struct Told {
            usage: Usage,
        }
        #[derive(Deserialize)]
        struct Usage {
            prompt_tokens: u64,
            completion_tokens: u64,
        }
        let line = line.strip_prefix(b"data: ").unwrap_or(line);
        if memmem::find(line, br#""usage":{"#).is_none() {
            return;
        }
        if let Ok(Told { usage }) = serde_json::from_slice(line) {
            self.input.fetch_add(usage.prompt_tokens, Ordering::Relaxed);
            self.output.fetch_add(usage.completion_tokens, Ordering::Relaxed);
        }
    }
}

/// What makes connections that are secured.
#[derive(Clone)]
struct Secured {
    plain: HttpConnector,
    tls: TlsConnector,
}

fn connector(certificate: &std::path::Path) -> Result<TlsConnector, Failure> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(certificate)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(trusted).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Service<Uri> for Secured {
    type Response = TokioIo<Stream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.plain.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (mut plain, tls) = (self.plain.clone(), self.tls.clone());
        Box::pin(async move {
            let stream = plain.call(to).await?.into_inner();
            let name = ServerName::try_from("127.0.0.1")?;
            Ok(TokioIo::new(Stream(tls.connect(name, stream).await?)))
        })
    }
}

/// A secured connection, as hyper's pool wants it.
struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl tokio::io::AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
