//! Injector: the operator's side of `weir inject`: metrics, health and version, and nothing that changes something.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::admin::health::{self, Readiness};
use crate::admin::metrics::exposed;
use crate::admin::{method_not_allowed, not_found, serve_all};
use crate::door::{Door, Side};
use crate::sinks::injector::Injections;

/// What the operator's side of an injector shows.
#[derive(Clone, Debug)]
pub struct InjectorSide {
    /// The numbers.
    pub metrics: Arc<Injections>,
    /// Whether it may be asked.
    pub readiness: Readiness,
    /// Its version, and the commit it was built from.
    pub about: (&'static str, &'static str),
}

/// Serves it until `shutdown`, then lets requests in progress end.
pub async fn run(listener: TcpListener, side: InjectorSide, shutdown: impl Future<Output = ()>) {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(health::live))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(side);
    serve_all(Door::new(listener, Side::Admin), Arc::new(ArcSwap::from_pointee(router)), shutdown).await;
}

async fn scrape(State(side): State<InjectorSide>, headers: HeaderMap) -> Response {
    exposed(&headers, move |accept| side.metrics.encode(Some(accept))).await
}

async fn ready(State(side): State<InjectorSide>) -> (StatusCode, &'static str) {
    side.readiness.answer_of("starting: there is no certificate yet, see the log\n")
}

async fn version(State(side): State<InjectorSide>) -> ([(HeaderName, &'static str); 1], String) {
    let (version, revision) = side.about;
    ([(header::CONTENT_TYPE, "application/json")], json!({ "version": version, "revision": revision }).to_string())
}
