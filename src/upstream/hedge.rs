//! Hedge: a second attempt beside one that is slow to begin its answer; whichever answers first counts. Knows how long that
//! is, and how many there may be.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::units::{Share, Span};
use crate::upstream::retry_budget::{self, RetryBudget};

/// What the operator writes of hedging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// After how long without the beginning of an answer a call is made a second time, beside the first; never by default.
    /// The one that answers first counts, and the other is given up: you are likely to pay for both. What the other may
    /// cost is charged by estimate.
    pub after: Option<Span>,
    /// How many second attempts there may be, as a part of the calls to a provider: `0.05` is one to twenty.
    pub share: Share,
}

impl Default for Settings {
    fn default() -> Self {
        Self { after: None, share: Share::percent(5) }
    }
}

/// When there is a second attempt.
#[derive(Debug)]
pub struct Hedging {
    /// After how long.
    pub after: Duration,
    /// How many there may be.
    pub budget: RetryBudget,
}

impl Hedging {
    /// What `settings` ask for, if anything.
    #[must_use]
    pub fn of(settings: &Settings, now: Instant) -> Option<Self> {
        let budget = || RetryBudget::new(&retry_budget::Settings { share: settings.share, per_minute: 0 }, now);
        settings.after.map(|after| Self { after: after.get(), budget: budget() })
    }
}
