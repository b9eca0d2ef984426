//! A collector of traces: takes spans in the OpenTelemetry protocol, over HTTP or gRPC, decodes them with the official
//! types, and remembers them. It can refuse, and never answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity as Pem, Server, ServerTlsConfig};
use tonic::{Code, Status};

use super::tls::Identity;

/// What a collector does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Takes,
    /// It says that it cannot, for now.
    Refuses,
    /// It says nothing.
    Hangs,
}

/// A collector on a port of its own.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: &'static str,
    seen: Arc<Seen>,
    server: JoinHandle<()>,
}

/// What it was sent.
struct Seen {
    manner: Mutex<Manner>,
    asked: AtomicU64,
    requests: Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>,
}

/// A span as it was received, with what it came with.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) span: Span,
    pub(crate) resource: BTreeMap<String, Value>,
    pub(crate) scope: (String, String, String),
}

impl Collector {
    /// Takes protobuf over HTTP at `/v1/traces`.
    pub(crate) async fn http(manner: Manner) -> Self {
        Self::over_http(manner, None).await
    }

    /// The same behind TLS.
    pub(crate) async fn https(identity: &Identity) -> Self {
        Self::over_http(Manner::Takes, Some(identity.acceptor.clone())).await
    }

    async fn over_http(manner: Manner, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Seen::new(manner));
        let taking = Arc::clone(&seen);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, tls) = (Arc::clone(&taking), tls.clone());
                tokio::spawn(async move {
                    let answer = service_fn(move |request| answer(Arc::clone(&seen), request));
                    let server = auto::Builder::new(TokioExecutor::new());
                    // Who hangs up has its reasons.
                    let _ = match tls {
                        None => server.serve_connection(TokioIo::new(stream), answer).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => server.serve_connection(TokioIo::new(stream), answer).await,
                            Err(_) => return,
                        },
                    };
                });
            }
        });
        Self { address, protocol: "http/protobuf", seen, server }
    }

    /// Takes gRPC.
    pub(crate) async fn grpc(manner: Manner) -> Self {
        Self::over_grpc(manner, None).await
    }

    /// The same behind TLS.
    pub(crate) async fn grpcs(identity: &Identity) -> Self {
        let [certificate, key] = &identity.pem;
        let tls = ServerTlsConfig::new().identity(Pem::from_pem(certificate, key));
        Self::over_grpc(Manner::Takes, Some(tls)).await
    }

    async fn over_grpc(manner: Manner, tls: Option<ServerTlsConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Seen::new(manner));
        let service = TraceServiceServer::new(Grpc(Arc::clone(&seen))).accept_compressed(CompressionEncoding::Gzip);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let serving = server.add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, protocol: "grpc", seen, server }
    }

    /// The YAML and the variables of a weir that sends it spans at once.
    pub(crate) fn configured(&self) -> String {
        format!("telemetry: {{ traces: {{ endpoint: \"http://{}\", protocol: {} }} }}", self.address, self.protocol)
    }

    /// It goes on like this.
    pub(crate) fn now(&self, manner: Manner) {
        *self.seen.manner.lock().unwrap() = manner;
    }

    /// How often it was asked to take spans.
    pub(crate) fn asked(&self) -> u64 {
        self.seen.asked.load(Ordering::Relaxed)
    }

    /// Every span so far, in the order in which they came.
    pub(crate) fn spans(&self) -> Vec<Received> {
        let requests = self.seen.requests.lock().unwrap();
        requests.iter().flat_map(|(_, request)| received(request)).collect()
    }

    /// Waits until there are so many spans.
    pub(crate) async fn until(&self, spans: usize) -> Vec<Received> {
        super::until(&format!("{spans} spans have come"), || self.spans().len() >= spans).await;
        let all = self.spans();
        assert_eq!(all.len(), spans, "{:?}", all.iter().map(|it| &it.span.name).collect::<Vec<_>>());
        all
    }

    /// The head of the last request.
    pub(crate) fn last_head(&self) -> HeaderMap {
        self.seen.requests.lock().unwrap().last().unwrap().0.clone()
    }

    /// Everything it was sent, as bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let requests = self.seen.requests.lock().unwrap();
        requests.iter().flat_map(|(_, request)| request.encode_to_vec()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Seen {
    fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self { manner: Mutex::new(manner), asked: AtomicU64::new(0), requests: Mutex::default() })
    }

    /// Whether it takes a request; it may take forever to say.
    async fn takes(&self, head: HeaderMap, request: ExportTraceServiceRequest) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Takes => self.requests.lock().unwrap().push((head, request)),
            Manner::Refuses => {}
            Manner::Hangs => std::future::pending().await,
        }
        manner == Manner::Takes
    }
}

async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut plain = Vec::new();
    let body = if head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
        flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
        plain.into()
    } else {
        body
    };
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/traces"));
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let status = if seen.takes(head.headers, request).await { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = ExportTraceServiceResponse::default().encode_to_vec();
    Ok(Response::builder().status(status).body(Full::from(body)).unwrap())
}

struct Grpc(Arc<Seen>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        if self.0.takes(metadata.into_headers(), request).await {
            return Ok(tonic::Response::new(ExportTraceServiceResponse::default()));
        }
        Err(Status::new(Code::ResourceExhausted, "not now"))
    }
}

fn received(request: &ExportTraceServiceRequest) -> Vec<Received> {
    let mut all = Vec::new();
    for of_resource in &request.resource_spans {
        let resource = of_resource.resource.as_ref().map(|it| attributes(&it.attributes)).unwrap_or_default();
        for of_scope in &of_resource.scope_spans {
            let scope = of_scope.scope.clone().unwrap_or_default();
            let scope = (scope.name, scope.version, of_scope.schema_url.clone());
            let spans = of_scope.spans.iter();
            all.extend(spans.map(|span| Received {
                span: span.clone(),
                resource: resource.clone(),
                scope: scope.clone(),
            }));
        }
    }
    all
}

/// Attributes, by name.
pub(crate) fn attributes(all: &[KeyValue]) -> BTreeMap<String, Value> {
    let by_name: BTreeMap<_, _> = all.iter().map(|it| (it.key.clone(), value(it.value.as_ref()))).collect();
    assert_eq!(by_name.len(), all.len(), "each attribute once: {all:?}");
    by_name
}

fn value(value: Option<&AnyValue>) -> Value {
    use any_value::Value::{ArrayValue, BoolValue, DoubleValue, IntValue, StringValue};
    match value.and_then(|value| value.value.as_ref()) {
        Some(StringValue(text)) => json!(text),
        Some(BoolValue(truth)) => json!(truth),
        Some(IntValue(number)) => json!(number),
        Some(DoubleValue(number)) => json!(number),
        Some(ArrayValue(list)) => list.values.iter().map(|item| self::value(Some(item))).collect(),
        other => panic!("not expected in a span: {other:?}"),
    }
}
