//! Analytics: what the ledger is asked over HTTP: who spent what, on what, how fast and how well.
//!
//! A handler reads what is asked, asks off the threads that drive calls, and shows what was found; it counts nothing
//! itself. Few questions are asked at once; more wait a little, and are sent away then.

pub mod asked;
mod audit;
mod content;
mod cost;
#[cfg(test)]
pub(in crate::admin) mod described;
mod erase;
mod export;
mod logs;
mod performance;
mod shown;
mod stats;
mod usage;
mod what_if;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::admin::Admin;
use crate::admin::cache::answer;
use crate::admin::problem::Problem;
use crate::ledger::reader::{Error, Reader};
use crate::ledger::writer::{Ledger, Refused};
use crate::price::Prices;

/// Most questions at once. Each reads from memory or a disk that calls are written to as well.
const AT_ONCE: usize = 4;
/// Most exports at once: each may take as long as whoever reads it.
const EXPORTS_AT_ONCE: usize = 2;
/// How long a question may wait for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(2);
/// When to ask again.
const AGAIN_IN: Duration = Duration::from_secs(1);

/// What the admin side knows of the ledger.
#[derive(Clone, Debug)]
pub struct LedgerSide {
    ledger: Option<Arc<Ledger>>,
    turns: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    /// What its calls would have cost otherwise.
    prices: Arc<Prices>,
}

impl LedgerSide {
    /// What is known of this one, or that there is none.
    #[must_use]
    pub fn of(ledger: Option<Arc<Ledger>>, prices: Arc<Prices>) -> Self {
        let (turns, exports) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(EXPORTS_AT_ONCE)));
        Self { ledger, turns, exports, prices }
    }

    /// Notes that `who` took something.
    async fn note(&self, who: &str, action: &'static str, detail: serde_json::Value) -> Result<(), Problem> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let refused = |error: Refused| {
            tracing::warn!(error.message = format!("{:#}", anyhow::Error::new(error)), "the ledger cannot be noted in");
            Problem::later(AGAIN_IN, "it cannot be noted now who takes this: ask again in a second")
        };
        ledger.audit(who, action, detail).await.map_err(refused)
    }

    /// Whether the ledger answers; `None` if there is none.
    pub(super) async fn is_there(&self) -> Option<bool> {
        self.ledger.as_ref()?;
        Some(self.ask(Reader::span).await.is_ok())
    }

    /// What the ledger answers, as it is shown.
    async fn answer<T: Serialize + Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<Response, Problem> {
        Ok(answer(StatusCode::OK, &self.ask(question).await?))
    }

    /// What the ledger answers.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        let Some(ledger) = &self.ledger else { return Err(switched_off()) };
        let reader = ledger.reader().clone();
        let turn = timeout(TURN_WITHIN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(turn) = turn.map(|turn| turn.expect("the semaphore is never closed")) else {
            return Err(Problem::later(AGAIN_IN, "too many questions are asked at once: ask again in a second"));
        };
        // Whoever hangs up leaves the question to end by its own deadline, and its turn with it.
        let asked = spawn_blocking(move || {
            let _turn = turn;
            question(&reader)
        });
        let lost = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the ledger could not be asked");
        asked.await.map_err(lost)?.map_err(told)
    }
}

fn switched_off() -> Problem {
    let detail = "there is no ledger: set `ledger.mode` to `disk` or `memory`";
    Problem::new(StatusCode::NOT_FOUND, detail)
}

/// Why there is no answer. What the database says is for the operator's log.
fn told(error: Error) -> Problem {
    match error {
        Error::NotOpen => {
            let detail = "the ledger is being opened, or its disk is away: ask again in a second";
            Problem::later(AGAIN_IN, detail)
        }
        Error::TooLong => {
            let detail = "the answer would take too long: ask about less time, or with fewer filters";
            Problem::later(AGAIN_IN, detail)
        }
        Error::TooManyPoints { .. } => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
        Error::Database(_) => {
            tracing::warn!(error.message = format!("{:#}", anyhow::Error::new(error)), "the ledger cannot be read");
            Problem::later(AGAIN_IN, "the ledger cannot be read now: weir's log says why")
        }
    }
}

/// Every question.
pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/api/v1/analytics/logs", get(logs::list).delete(erase::user))
        .route("/api/v1/analytics/content", get(content::of_call))
        .route("/api/v1/analytics/stats", get(stats::calls))
        .route("/api/v1/analytics/export", get(export::export))
        .route("/api/v1/analytics/export-stats", get(export::stats))
        .route("/api/v1/analytics/costs", get(cost::groups))
        .route("/api/v1/usage/overview", get(usage::overview))
        .route("/api/v1/usage/calls-over-time", get(usage::over_time))
        .route("/api/v1/usage/agent-distribution", get(usage::agents))
        .route("/api/v1/usage/top-users", get(usage::users))
        .route("/api/v1/cost/overview", get(cost::overview))
        .route("/api/v1/cost/trend", get(cost::trend))
        .route("/api/v1/cost/by-model", get(cost::by_model))
        .route("/api/v1/cost/statement", get(export::statement))
        .route("/api/v1/cost/what-if", get(what_if::what_if))
        .route("/api/v1/performance/overview", get(performance::overview))
        .route("/api/v1/performance/latency", get(performance::latency))
        .route("/api/v1/performance/throughput", get(performance::throughput))
        .route("/api/v1/performance/errors", get(performance::errors))
        .route("/api/v1/stats", get(stats::stats))
        .route("/api/v1/audit", get(audit::list))
}

#[cfg(test)]
pub(in crate::admin) mod tests;
