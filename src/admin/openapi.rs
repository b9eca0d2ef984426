//! Openapi: the document that describes what is below `/api/v1/`, made of the handlers that serve it, and the index of what
//! is here.
//!
//! What is served and what is described are one list: `routes!` names each handler once.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::Extension;
use axum::body::Bytes;
use axum::http::{HeaderName, header};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi as _};

use crate::admin::problem::Written;

/// What the document says of the API as a whole.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(
        title = "weir",
        description = "The operator's side of a weir: what calls cost and how they went, the cache, limits and budgets. \
                       Money is exact: read it as decimals. What is not known is null, never 0.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Written)),
    tags(
        (name = "analytics", description = "Calls one by one, and all that is added up of them."),
        (name = "content", description = "What was said in calls, where that is kept."),
        (name = "usage", description = "How many calls, whose, and when."),
        (name = "cost", description = "What calls cost, and the month's budget."),
        (name = "performance", description = "How fast, and how well."),
        (name = "stats", description = "What reuse saves."),
        (name = "audit", description = "Who took, changed or erased what."),
        (name = "cache", description = "Stored answers."),
        (name = "limits", description = "Limits and budgets."),
        (name = "metrics", description = "Metrics of the app's own."),
        (name = "live", description = "What is going on."),
        (name = "meta", description = "The API itself.")
    )
)]
struct About;

/// What every operation is added to.
pub(super) fn about() -> OpenApi {
    let mut document = About::openapi();
    let token = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token from one of the files of `admin` in the configuration. On the same machine, reading needs none \
             unless `admin.require_token` is set.",
        ))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    for status in STATUSES {
        components.responses.insert(name_of(status), RefOr::T(problem(status)));
    }
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new("token", Vec::<String>::new())]);
    document
}

/// The document and the index, written.
#[derive(Clone, Debug)]
pub(super) struct Document {
    json: Bytes,
    index: Bytes,
}

impl Document {
    pub(super) fn of(document: &OpenApi) -> Self {
        let mut json = document.to_pretty_json().expect("the document is plain data");
        json.push('\n');
        Self { json: json.into(), index: index(document).into() }
    }

    /// As it is served.
    #[cfg(all(test, feature = "ledger"))]
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }
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
pub(super) async fn serve(Extension(document): Extension<Document>) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, "application/json")], document.json)
}

/// `GET /`.
pub(super) async fn show_index(Extension(document): Extension<Document>) -> Bytes {
    document.index
}

/// The methods and what they do, in the order in which they are listed.
pub(super) fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let each = [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)];
    each.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn index(document: &OpenApi) -> String {
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
    for (path, item) in &document.paths.paths {
        for (method, operation) in operations(item) {
            line(method, path, operation.summary.as_deref().unwrap_or_default().trim());
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

/// Every status that a problem may have.
const STATUSES: [u16; 11] = [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503];

fn problems(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let each = statuses.iter().map(|status| (status.to_string(), Ref::from_response_name(name_of(*status)).into()));
    each.collect()
}

fn name_of(status: u16) -> String {
    format!("Problem{status}")
}

fn problem(status: u16) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(meaning(status)).content("application/problem+json", content).build()
}

const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The body is no JSON object, or what is asked for after `?` or in a header cannot be read.",
        401 => "A token is needed, and missing or wrong.",
        403 => "The token is not for this, or none is configured, or it is not for callers from there.",
        404 => "There is no such thing, or what it is part of is switched off.",
        408 => "The body took too long.",
        409 => "Nothing is cached there.",
        413 => "The body is too large.",
        422 => "The body says something that cannot be done.",
        429 => "Too many wrong tokens came from this address: `Retry-After` says when another is looked at.",
        503 => "Not now: `Retry-After` says when to ask again.",
        _ => "weir failed; its log says why.",
    }
}
