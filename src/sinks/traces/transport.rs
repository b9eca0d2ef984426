//! Transport: what sends spans to a collector. The official exporters, over weir's own HTTP client or over gRPC.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Limited};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::sinks::traces::Protocol;
use crate::sinks::traces::plan::Plan;
use crate::units::Span;
use crate::upstream::trust::{self, Trust};
use crate::upstream::{self, BoxError, RequestBody, Upstream};

/// The longest answer of a collector that is read: it says which spans it did not take.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What sends spans as `plan` says. Connects to nobody yet.
///
/// # Errors
/// If the certificate authorities cannot be used, or the exporter finds fault with the plan.
pub(super) fn exporter(plan: &Plan) -> Result<SpanExporter, BoxError> {
    match plan.protocol {
        Protocol::HttpProtobuf => over_http(plan),
        Protocol::Grpc => over_grpc(plan),
    }
}

fn over_http(plan: &Plan) -> Result<SpanExporter, BoxError> {
    let text = |(name, value): &(http::HeaderName, http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new(plan)?)
        .with_endpoint(plan.endpoint.to_string())
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_timeout(plan.timeout)
        .with_headers(plan.headers.iter().filter_map(text).collect::<HashMap<_, _>>());
    if plan.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

fn over_grpc(plan: &Plan) -> Result<SpanExporter, BoxError> {
    let headers: HeaderMap = plan.headers.iter().cloned().collect();
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel(plan)?)
        .with_protocol(opentelemetry_otlp::Protocol::Grpc)
        .with_timeout(plan.timeout)
        .with_metadata(MetadataMap::from_headers(headers));
    if plan.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

fn channel(plan: &Plan) -> Result<Channel, BoxError> {
    let mut endpoint = Endpoint::from(plan.endpoint.clone()).timeout(plan.timeout).connect_timeout(plan.timeout);
    if plan.endpoint.scheme_str() == Some("https") {
        let roots = trust::authorities(plan.ca_file.as_slice())?.roots;
        endpoint = endpoint.tls_config(ClientTlsConfig::new().trust_anchors(roots))?;
    }
    Ok(endpoint.connect_lazy())
}

/// weir's own client: the same roots, proxies and deadlines as towards providers.
struct Client(Upstream);

impl Client {
    fn new(plan: &Plan) -> Result<Self, BoxError> {
        let within = Span::from_millis(u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX));
        let settings = upstream::Settings {
            connect_timeout: within,
            first_byte_timeout: within,
            ca_files: plan.ca_file.iter().cloned().collect(),
            pool_max_idle: 1,
            ..upstream::Settings::default()
        };
        let trust = Trust::load(&settings)?;
        Ok(Self(Upstream::new(&settings, &trust, Box::new(|_| {}))))
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let (head, body) = self.0.send(request.map(RequestBody::whole)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
