//! Health: whether weir lives, whether it takes calls, and what is running.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
#[cfg(feature = "ledger")]
use {std::time::Duration, tokio::time::timeout};

use crate::admin::Admin;
use crate::admin::cache::answer;
use crate::sinks::metrics::PriceTable;
use crate::sinks::traces::Standing;

/// Whether weir takes calls. Cloning shares it: the app sets it, the admin side shows it.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<AtomicU8>,
    since: Instant,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Not ready: listeners are not bound yet.
    #[must_use]
    pub fn starting() -> Self {
        Self { state: Arc::default(), since: Instant::now() }
    }

    /// From now on weir takes calls: its listeners are bound. Nothing changes once it drains.
    pub fn set_ready(&self) {
        // A start that is interrupted must not come back as ready.
        let _ = self.state.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// From now on weir takes no new calls, and ends once those in progress have.
    pub fn set_draining(&self) {
        self.state.store(DRAINING, Ordering::Relaxed);
    }

    fn answer(&self) -> (StatusCode, &'static str) {
        self.answer_of("starting: listeners are not bound yet\n")
    }

    /// The answer, where `starting` says what a start waits for.
    pub(super) fn answer_of(&self, starting: &'static str) -> (StatusCode, &'static str) {
        match self.state.load(Ordering::Relaxed) {
            READY => (StatusCode::OK, "ready\n"),
            DRAINING => (StatusCode::SERVICE_UNAVAILABLE, "draining: calls in progress end, new ones are not taken\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, starting),
        }
    }
}

/// `GET /livez`: whoever can answer, lives.
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// `GET /readyz`.
pub(super) async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    admin.readiness.answer()
}

/// `GET /healthz`: the same, and how what weir can do without is doing. That does not change the status: a weir that
/// is restarted because a store is away is no better off.
pub(super) async fn healthy(State(admin): State<Admin>) -> Response {
    let (status, says) = admin.readiness.answer();
    let dependencies = dependencies(&admin).await;
    let are_up = dependencies.iter().all(|dependency| dependency.status == UP);
    let word = says.split([':', '\n']).next().unwrap_or_default();
    let health = Health {
        status: if word == "ready" && !are_up { "degraded" } else { word },
        version: admin.metrics.about().version,
        uptime_seconds: admin.readiness.since.elapsed().as_secs(),
        dependencies,
    };
    answer(status, &health)
}

/// How weir is, in one word, and how what it can do without is.
#[derive(Debug, Serialize)]
struct Health {
    /// `starting`, `ready`, `degraded` (ready, but something it can do without is down) or `draining`.
    status: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    dependencies: Vec<Dependency>,
}

/// Something that weir can do without.
#[derive(Debug, Serialize)]
struct Dependency {
    name: &'static str,
    status: &'static str,
    /// How long it took to answer just now; `null` where it was not asked.
    latency_ms: Option<f64>,
    /// What there is to know of it beside.
    #[serde(flatten)]
    about: Option<Beside>,
}

/// What there is to know of something beside whether it is up.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Beside {
    /// The price table: who gathered it, and how long ago.
    Table { source: String, age_seconds: Option<u64> },
    /// The collector of spans: when it last took some; `null` if it never has.
    Collector { last_success: Option<String> },
}

const UP: &str = "up";
const DOWN: &str = "down";

/// Those that this weir has.
async fn dependencies(admin: &Admin) -> Vec<Dependency> {
    let store = admin.store.as_ref().map(|store| Dependency {
        name: "shared store",
        status: if store.is_up() { UP } else { DOWN },
        latency_ms: None,
        about: None,
    });
    let others = ledger(admin).await.into_iter().chain(collector(admin));
    store.into_iter().chain(others).chain([price_table(admin)]).collect()
}

/// However old it is, calls have prices: whoever minds is told by its age.
fn price_table(admin: &Admin) -> Dependency {
    let PriceTable { source, published_at, .. } = admin.metrics.price_table();
    let age_seconds = published_at.elapsed().ok().map(|age| age.as_secs());
    let about = Some(Beside::Table { source, age_seconds });
    Dependency { name: "price table", status: UP, latency_ms: None, about }
}

fn collector(admin: &Admin) -> Option<Dependency> {
    let Standing { last_taken, is_failing, .. } = admin.metrics.traces()?;
    let last_success = last_taken.map(|at| humantime::format_rfc3339_seconds(at).to_string());
    let about = Some(Beside::Collector { last_success });
    Some(Dependency { name: "trace collector", status: if is_failing { DOWN } else { UP }, latency_ms: None, about })
}

#[cfg(feature = "ledger")]
async fn ledger(admin: &Admin) -> Option<Dependency> {
    /// A kubelet waits for a second.
    const WITHIN: Duration = Duration::from_millis(500);
    let (asked, ledger) = (Instant::now(), &admin.ledger);
    let answered = timeout(WITHIN, ledger.is_there()).await.unwrap_or(Some(false))?;
    let took = (asked.elapsed().as_secs_f64() * 1_000_000.0).round() / 1_000.0;
    let (status, latency_ms) = if answered { (UP, Some(took)) } else { (DOWN, None) };
    Some(Dependency { name: "ledger", status, latency_ms, about: None })
}

#[cfg(not(feature = "ledger"))]
fn ledger(_: &Admin) -> std::future::Ready<Option<Dependency>> {
    std::future::ready(None)
}

/// `GET /version`.
pub(super) async fn version(State(admin): State<Admin>) -> ([(HeaderName, &'static str); 1], String) {
    let about = admin.metrics.about();
    let prices = admin.metrics.price_table();
    let body = json!({
        "version": about.version,
        "revision": about.revision,
        "price_table": {
            "version": prices.version,
            "source": prices.source,
            "published_at": humantime::format_rfc3339_seconds(prices.published_at).to_string(),
        },
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_for_good() {
        let readiness = Readiness::starting();
        assert_eq!(readiness.answer().0, StatusCode::SERVICE_UNAVAILABLE);
        readiness.set_ready();
        assert_eq!(readiness.answer().0, StatusCode::OK);
        readiness.set_draining();
        readiness.set_ready();
        assert_eq!(readiness.answer().0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
