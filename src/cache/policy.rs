//! Policy: on which terms one request uses the cache. Knows settings and what the request says; not the stored
//! responses, not HTTP clients, not providers.

use std::time::Duration;

use crate::cache::freshness::Directives;

/// One request's terms.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What the request asks of stored responses.
    pub directives: Directives,
    /// How long an answer stored for it may serve.
    pub lifetime: Duration,
}

impl Terms {
    /// Whether a stored response may answer.
    #[must_use]
    pub const fn may_answer(&self) -> bool {
        !self.directives.no_cache && !self.directives.no_store
    }

    /// Whether the answer may be stored; with `no-cache` alone, it may take the place of the stored one.
    #[must_use]
    pub const fn may_store(&self) -> bool {
        !self.directives.no_store
    }
}
