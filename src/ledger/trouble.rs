//! Trouble: what goes wrong with the disk, told when it begins, now and then while it lasts, and when it is over. Never
//! once per call.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;

/// How often it is said that it lasts.
const AGAIN: Duration = Duration::from_secs(60);

/// That something cannot be done, if so.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// When it was last tried.
    tried: Option<Instant>,
    /// When it was last told.
    told: Option<Instant>,
    /// Calls lost since it began.
    lost: u64,
}

impl Trouble {
    /// Whether it was last tried less than `age` ago, in vain.
    pub(super) fn is_younger_than(&self, age: Duration) -> bool {
        self.tried.is_some_and(|tried| tried.elapsed() < age)
    }

    /// It was tried, in vain.
    pub(super) fn note(&mut self, error: &dyn Error) {
        let now = Instant::now();
        self.tried = Some(now);
        if self.told.is_some_and(|told| now - told < AGAIN) {
            return;
        }
        self.told = Some(now);
        tracing::warn!(
            error.message = %error,
            error.cause = error.source().map(tracing::field::display),
            weir.ledger.lost = self.lost,
            "the ledger cannot be written: calls go on, and are not written down once too many wait"
        );
    }

    /// So many calls were lost by it.
    pub(super) const fn lost(&mut self, calls: u64) {
        self.lost += calls;
    }

    /// It worked.
    pub(super) fn end(&mut self) {
        if self.told.is_some() {
            tracing::info!(weir.ledger.lost = self.lost, "the ledger is written again");
            *self = Self::default();
        }
    }
}
