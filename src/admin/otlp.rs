//! Otlp: metrics of the app's own, pushed in the OpenTelemetry protocol over HTTP by a program on this machine. What can be
//! taken of a push is taken; the answer says what was not, and why.
//!
//! The protocol: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>, version 1.

mod points;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use tokio::sync::Semaphore;

use crate::admin::Admin;
use crate::admin::access::Neighbour;
use crate::admin::otlp::points::Points;
use crate::admin::problem::Problem;
use crate::admin::{body, custom};
use crate::coding::Decoder;
use crate::sinks::custom::Custom;

/// The largest push, in bytes, compressed or not.
const MAX_BODY: usize = 512 << 10;
/// The one encoding that is read.
const PROTOBUF: &str = "application/x-protobuf";
/// Most refusals that are told of one push.
const MAX_TOLD: usize = 20;

/// Pushes are read one after the other: read, one takes up many times what it has in bytes.
static READING: Semaphore = Semaphore::const_new(1);

/// Why a push failed: `google.rpc.Status`, of which the protocol wants only the words.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

/// `POST /v1/metrics`.
pub(super) async fn push(
    from: Result<Neighbour, Problem>,
    State(admin): State<Admin>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_protobuf(&headers) {
        let detail = format!("write `{PROTOBUF}`: set OTEL_EXPORTER_OTLP_METRICS_PROTOCOL to http/protobuf");
        return Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into_response();
    }
    let taken = match from {
        Ok(_) => take(admin, &headers, body).await,
        Err(problem) => Err(problem),
    };
    match taken {
        Ok(response) => answer(StatusCode::OK, &response),
        Err(problem) => {
            let (status, message) = problem.into_parts();
            answer(status, &Status { message })
        }
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let written = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    written.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(PROTOBUF)
}

fn answer(status: StatusCode, message: &impl Message) -> Response {
    (status, [(header::CONTENT_TYPE, PROTOBUF)], message.encode_to_vec()).into_response()
}

async fn take(admin: Admin, headers: &HeaderMap, body: Body) -> Result<ExportMetricsServiceResponse, Problem> {
    if !admin.metrics.custom().is_enabled() {
        return Err(custom::switched_off());
    }
    let coding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    let decoder = Decoder::for_content_encoding(coding, MAX_BODY).ok_or_else(|| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content coding is unknown: use gzip, or none")
    })?;
    let body = body::read(body, MAX_BODY).await?;
    let _turn = READING.acquire().await.expect("the semaphore is never closed");
    // Half a megabyte takes milliseconds; calls must not wait for that.
    let taken = tokio::task::spawn_blocking(move || put(admin.metrics.custom(), &decoded(decoder, &body)?));
    taken.await.unwrap_or_else(|_| Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the push could not be read")))
}

fn decoded(mut decoder: Decoder, body: &Bytes) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let pushed = decoder.push(body, &mut |piece| bytes.extend_from_slice(piece));
    pushed.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(bytes)
}

/// Takes what can be taken of a push; the answer says what was not, and why.
///
/// # Errors
/// If it is none.
pub fn put(custom: &Custom, body: &[u8]) -> Result<ExportMetricsServiceResponse, Problem> {
    let request = ExportMetricsServiceRequest::decode(body).map_err(|error| {
        let detail = format!("the body is no ExportMetricsServiceRequest: {error}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    let Points { readings, names, refused } = Points::of(&request);
    let mut told: Vec<String> = Vec::new();
    for (name, refused) in refused {
        custom.refuse(refused.reason);
        told.push(format!("`{name}` {}", refused.detail));
    }
    for (position, refused) in custom.take_each(&readings) {
        told.push(format!("`{}` {}", names[position], refused.detail));
    }
    Ok(ExportMetricsServiceResponse { partial_success: partial_success(&told) })
}

/// What the protocol wants where something was refused, and nothing where nothing was.
fn partial_success(told: &[String]) -> Option<ExportMetricsPartialSuccess> {
    if told.is_empty() {
        return None;
    }
    let mut error_message = told[..told.len().min(MAX_TOLD)].join("; ");
    if told.len() > MAX_TOLD {
        error_message.push_str("; and more");
    }
    let rejected_data_points = i64::try_from(told.len()).unwrap_or(i64::MAX);
    Some(ExportMetricsPartialSuccess { rejected_data_points, error_message })
}
