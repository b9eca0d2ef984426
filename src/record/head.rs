//! Head: what the head of a provider's reply says about the exchange: its id, its time, the caller's quota.

use std::time::Duration;

use tokio::time::Instant;

/// What the head of a reply says, beside what HTTP itself needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadFacts {
    /// The provider's id of the request: what its support asks for.
    pub request_id: Option<Box<str>>,
    /// How long the provider says it worked on the call.
    pub processing: Option<Duration>,
    /// How long the provider asks to wait before the next try.
    pub retry_after: Option<Duration>,
    /// What is left of the quotas the call was counted against, indexed as [`QuotaKind::ALL`].
    pub quotas: [Quota; QuotaKind::ALL.len()],
    /// The version of HTTP that it came by: `network.protocol.version`.
    pub http: Option<&'static str>,
    /// When the head came; `None` if none did.
    pub came_at: Option<Instant>,
}

/// What a quota counts: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaKind {
    /// Calls.
    Requests,
    /// Tokens.
    Tokens,
}

impl QuotaKind {
    /// Every kind there is.
    pub const ALL: [Self; 2] = [Self::Requests, Self::Tokens];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// A quota, as far as a reply tells of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// How much there is when it is full.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: Option<u64>,
    /// In how long it will be full again, at the latest.
    pub resets_in: Option<Duration>,
}
