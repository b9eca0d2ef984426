//! Admin: the operator's side. Metrics, health, version; one file for each resource.
//!
//! Never serves an app's call, and shows no prompt, no key and no user: what is here may be read by anyone who can
//! reach it.

pub mod health;
pub mod metrics;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::health::Readiness;
use crate::sinks::metrics::Metrics;

/// Most connections at once: a few Prometheus servers, the kubelet and a person. More wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be idle, or take to send a request's head. Longer than the usual scrape intervals, so
/// that a scraper keeps its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long to wait before accepting again, when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the operator writes of the admin side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where `/metrics`, `/livez`, `/readyz` and `/version` are served.
    pub listen: SocketAddr,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9348)) }
    }
}

/// What the admin side shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The numbers, and what is running.
    pub metrics: Arc<Metrics>,
    /// Whether the app may send calls.
    pub readiness: Readiness,
}

/// Serves the admin side until `shutdown`, then lets requests in progress end. Dropping the future stops accepting;
/// open connections go on until the runtime ends.
pub async fn run(listener: TcpListener, admin: Admin, shutdown: impl Future<Output = ()>) {
    let router = router(admin);
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let accept = async {
        loop {
            let seat = Arc::clone(&seats).acquire_owned().await.expect("the seats are never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = serve(stream, router.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::warn!(error.message = %error, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    stop.cancel();
    connections.close();
    connections.wait().await;
}

/// Serves one connection until the peer closes it, it idles too long, or `stop`.
async fn serve(stream: TcpStream, router: Router, stop: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error.message = %error, "admin connection ended early");
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics::scrape))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/healthz", get(health::ready))
        .route("/version", get(health::version))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(admin)
}

async fn index() -> &'static str {
    "weir: the operator's side\n\
     \n\
     GET /metrics   what was counted and measured, for Prometheus\n\
     GET /livez     200 while weir runs\n\
     GET /readyz    200 while weir takes calls, else 503\n\
     GET /healthz   the same as /readyz\n\
     GET /version   what is running\n"
}

async fn not_found(uri: Uri) -> Response {
    problem(StatusCode::NOT_FOUND, &format!("there is no {}; GET / lists what is here", uri.path()))
}

async fn method_not_allowed(uri: Uri) -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, &format!("{} can only be read: use GET", uri.path()))
}

/// An error as RFC 9457 describes it. Its type is `about:blank`: the status says it all.
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
