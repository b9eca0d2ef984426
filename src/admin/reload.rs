//! Reload: has the configuration read again, and says what came of it. Knows no configuration: whoever reads it hears the
//! bell.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::access::Operator;
use crate::admin::audit;
use crate::admin::cache::answer;
use crate::admin::openapi::ToChange;
use crate::admin::problem::{Fault, Problem};

/// Most who wait at once for the configuration to be read again.
const MOST_WAITING: usize = 8;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force.
    Taken {
        /// The knobs that have changed.
        changed: Vec<String>,
        /// Those that do so only once weir is started again.
        need_restart: Vec<String>,
        /// What is written and left out, because this weir does not know it.
        left_out: Vec<String>,
    },
    /// It cannot be used, for all these mistakes: the one before is in force.
    Refused(Vec<String>),
}

/// Has the configuration read again.
#[derive(Clone, Debug)]
pub struct Bell(mpsc::Sender<Asked>);

/// That it is to be read again.
#[derive(Debug)]
pub struct Asked(oneshot::Sender<Outcome>);

impl Asked {
    /// This came of it.
    pub fn answer(self, outcome: Outcome) {
        // Whoever asked may be gone.
        let _ = self.0.send(outcome);
    }
}

impl Bell {
    /// A bell, and where it is heard.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (bell, heard) = mpsc::channel(MOST_WAITING);
        (Self(bell), heard)
    }

    /// Rings it; resolves once the configuration was read again. `None` if nobody hears it any more. Dropping the future
    /// does not keep it from being read.
    pub async fn ring(&self) -> Option<Outcome> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Reads the configuration again: the file, and what it names. What is right is in force from then on; if anything is wrong,
/// the one before stays. Needs a token with the role `admin`.
#[utoipa::path(
    post,
    path = "/api/v1/reload",
    tag = "meta",
    operation_id = "reload",
    responses((status = 200, body = Reloaded), ToChange),
    security(("token" = []))
)]
pub(super) async fn reload(operator: Operator, State(admin): State<Admin>) -> Result<Response, Problem> {
    audit::reload(&operator);
    match admin.bell.ring().await {
        Some(Outcome::Taken { changed, need_restart, left_out }) => {
            Ok(answer(StatusCode::OK, &Reloaded { changed, need_restart, left_out }))
        }
        Some(Outcome::Refused(mistakes)) => Err(Problem::of_faults(mistakes.into_iter().map(Fault::of_all).collect())),
        None => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "weir is stopping: nothing was read")),
    }
}

/// What came of reading the configuration again.
#[derive(Debug, Serialize, ToSchema)]
struct Reloaded {
    /// The knobs that have changed.
    changed: Vec<String>,
    /// Those that do so only once weir is started again.
    need_restart: Vec<String>,
    /// What is written and left out, because this weir does not know it.
    left_out: Vec<String>,
}
