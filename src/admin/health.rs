//! Health: whether weir lives, whether it takes calls, and what is running.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde_json::json;

use crate::admin::Admin;

/// Whether weir takes calls. Cloning shares it: the app sets it, the admin side shows it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Not ready: listeners are not bound yet.
    #[must_use]
    pub fn starting() -> Self {
        Self::default()
    }

    /// From now on weir takes calls: its listeners are bound. Nothing changes once it drains.
    pub fn set_ready(&self) {
        // A start that is interrupted must not come back as ready.
        let _ = self.0.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// From now on weir takes no new calls, and ends once those in progress have.
    pub fn set_draining(&self) {
        self.0.store(DRAINING, Ordering::Relaxed);
    }

    fn answer(&self) -> (StatusCode, &'static str) {
        match self.0.load(Ordering::Relaxed) {
            READY => (StatusCode::OK, "ready\n"),
            DRAINING => (StatusCode::SERVICE_UNAVAILABLE, "draining: calls in progress end, new ones are not taken\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "starting: listeners are not bound yet\n"),
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
pub(super) async fn healthy(State(admin): State<Admin>) -> (StatusCode, String) {
    let (status, says) = admin.readiness.answer();
    let store = match admin.store.as_ref().map(|store| store.is_up()) {
        None => "",
        Some(true) => "shared store: up\n",
        Some(false) => "shared store: down; calls go on without it\n",
    };
    (status, format!("{says}{store}"))
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
