//! Openapi: the document that describes what is below `/api/v1/`, and the index of what is here.
//!
//! The document is made of the handlers, but by a test: what is served is `docs/openapi.json`, which that test holds against
//! what is described beside each handler. A weir that made it would have megabytes of code for it, and take as much memory.

#[cfg(test)]
pub(super) mod described;

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::http::{HeaderName, header};
use serde_json::Value;
use utoipa::IntoResponses;
use utoipa::openapi::{Ref, RefOr, Response};

use crate::coding::unpacked;

/// The extension of an operation that not every weir has: the feature that it is built with.
pub(super) const FEATURE: &str = "x-feature";

/// The document, of what this weir is built with.
fn document() -> String {
    let all = unpacked(include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz")));
    if cfg!(feature = "ledger") {
        return all;
    }
    let mut document = read(&all);
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.retain(|_, item| operations(item).all(|(_, operation)| operation[FEATURE] != "ledger"));
    }
    format!("{document:#}\n")
}

fn read(document: &str) -> Value {
    serde_json::from_str(document).expect("a test wrote it")
}

/// The methods of a path, and what they do.
fn operations(item: &Value) -> impl Iterator<Item = (&str, &Value)> {
    item.as_object().into_iter().flatten().map(|(method, operation)| (method.as_str(), operation))
}

/// This document, in the terms of `OpenAPI` 3.1.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "meta",
    operation_id = "openapi",
    responses((status = 200, body = Object, content_type = "application/json", description = "The document.")),
    security(())
)]
pub(super) async fn serve() -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

/// `GET /`.
pub(super) async fn show_index() -> String {
    let mut index = String::from("weir: the operator's side\n\n");
    let mut line = |method: &str, path: &str, what: &str| {
        writeln!(index, "{method:<6} {path:<36} {what}").expect("a String takes all");
    };
    for (path, what) in [
        ("/metrics", "What was counted and measured, for Prometheus."),
        ("/livez", "200 while weir runs."),
        ("/readyz", "200 while weir takes calls, else 503."),
        ("/healthz", "The same, and how what weir can do without is doing, in JSON."),
        ("/version", "What is running."),
    ] {
        line("GET", path, what);
    }
    for (path, item) in read(&document())["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations(item) {
            line(&method.to_uppercase(), path, operation["summary"].as_str().unwrap_or_default().trim());
        }
    }
    if cfg!(feature = "otlp") {
        line("POST", "/v1/metrics", "Metrics of the app's own, from OpenTelemetry.");
    }
    index
}

/// Problems of reading what is of the whole instance.
#[derive(Debug)]
pub(super) struct ToRead;

impl IntoResponses for ToRead {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[400, 401, 403, 404, 429, 500])
    }
}

/// Problems of asking what may have no room for one more question.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only a test asks for the descriptions that name it"))]
pub(super) struct ToAsk;

impl IntoResponses for ToAsk {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[400, 401, 403, 404, 429, 500, 503])
    }
}

/// Problems of changing something.
#[derive(Debug)]
pub(super) struct ToChange;

impl IntoResponses for ToChange {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[400, 401, 403, 404, 408, 413, 422, 429, 500])
    }
}

/// Problems of what is for programs on this machine alone.
#[derive(Debug)]
pub(super) struct ToNeighbours;

impl IntoResponses for ToNeighbours {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[400, 403, 404, 408, 409, 413, 422])
    }
}

fn problems(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let each = statuses.iter().map(|status| (status.to_string(), Ref::from_response_name(name_of(*status)).into()));
    each.collect()
}

fn name_of(status: u16) -> String {
    format!("Problem{status}")
}
