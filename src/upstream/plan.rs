//! Plan: what is done about attempts that fail: retries, other ways to the same provider, circuits. State that all calls to
//! one provider share; nothing of a single call.

use std::sync::Arc;

use http::Uri;
use tokio::time::Instant;

use crate::record::outcome::Trouble;
use crate::upstream::breaker::Breaker;
use crate::upstream::credential::Credential;
use crate::upstream::hedge::Hedging;
use crate::upstream::retry_budget::RetryBudget;
use crate::upstream::{Settings, Upstream, retry};

/// What is done about attempts that fail, for one provider.
#[derive(Debug)]
pub struct Plan {
    /// When a call is made again, and how often.
    pub retries: retry::Settings,
    /// How many retries there may be in all.
    pub budget: RetryBudget,
    /// When a call is made a second time beside a slow first one, if ever.
    pub hedging: Option<Hedging>,
    /// After what a call moves to the next way.
    pub fallback_on: Vec<Trouble>,
    /// The circuit of the first way, if there is one.
    pub breaker: Option<Breaker>,
    /// The ways there are beside the first, in the order in which they are tried.
    pub fallbacks: Vec<Fallback>,
}

/// Another way to the same provider: a second key, a second region.
#[derive(Debug)]
pub struct Fallback {
    /// What it is called in metrics and logs.
    pub name: Arc<str>,
    /// Where it is: scheme, authority and a path prefix, as of a provider.
    pub base_url: Uri,
    /// The credential to put in; without one, what was sent to the first goes there too.
    pub credential: Option<Arc<Credential>>,
    /// Its connections.
    pub upstream: Arc<Upstream>,
    /// Its circuit, if it has one.
    pub breaker: Option<Breaker>,
}

impl Plan {
    /// What `settings` ask for, with these other ways; `None` where each call is one attempt.
    #[must_use]
    pub fn of(settings: &Settings, fallbacks: Vec<Fallback>, now: Instant) -> Option<Self> {
        let Settings { retries, breaker, hedging, fallback_on, .. } = settings;
        let is_needed = retries.max > 0 || breaker.enabled || hedging.after.is_some() || !fallbacks.is_empty();
        is_needed.then(|| Self {
            retries: retries.clone(),
            budget: RetryBudget::new(&retries.budget, now),
            hedging: Hedging::of(hedging, now),
            fallback_on: fallback_on.clone(),
            breaker: Breaker::new(breaker, now),
            fallbacks,
        })
    }

    /// Whether the circuit of each way is closed, by its name: the first is called `first`. Empty without breakers.
    pub fn circuits<'a>(&'a self, first: &'a Arc<str>) -> impl Iterator<Item = (&'a Arc<str>, bool)> {
        let others = self.fallbacks.iter().map(|it| (&it.name, it.breaker.as_ref()));
        let all = std::iter::once((first, self.breaker.as_ref())).chain(others);
        all.filter_map(|(name, breaker)| Some((name, breaker?.is_closed())))
    }
}
