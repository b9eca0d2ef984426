//! Metrics: the scrape, over HTTP.

use std::io::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::sinks::exposition::{Exposition, weight};

/// `GET /metrics`.
pub(super) async fn scrape(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let metrics = Arc::clone(&admin.metrics);
    exposed(&headers, move |accept| metrics.encode(Some(accept))).await
}

/// What `encode` makes for a scraper that sends these `headers`.
pub(super) async fn exposed(headers: &HeaderMap, encode: impl FnOnce(&str) -> Exposition + Send + 'static) -> Response {
    let accept = every(headers, &header::ACCEPT);
    let gzip = weight(&every(headers, &header::ACCEPT_ENCODING), &["gzip", "x-gzip"]) > 0.0;
    // Thousands of series take milliseconds to write and more to compress; calls must not wait for that.
    let scrape = tokio::task::spawn_blocking(move || {
        let exposition = encode(&accept);
        let body = if gzip { compressed(&exposition.body) } else { exposition.body };
        (exposition.content_type, body)
    });
    let Ok((content_type, body)) = scrape.await else {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written").into_response();
    };
    let mut response =
        ([(header::CONTENT_TYPE, content_type), (header::VARY, "accept, accept-encoding")], body).into_response();
    if gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    }
    response
}

/// All values of a list-valued field, as one (RFC 9110, section 5.3).
fn every(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn compressed(body: &[u8]) -> Vec<u8> {
    // The lowest level: names repeat so much that others gain little and take several times as long.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}
