//! Outcome: how an exchange ended, in the closed sets of words that labels, logs and spans share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a call ended for the app: the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A complete, successful reply.
    Success,
    /// The provider refused the request (4xx), or the request was wrong before it left.
    ClientError,
    /// The provider failed (5xx), could not be reached, or broke off.
    UpstreamError,
    /// A deadline passed before the provider answered or went on.
    Timeout,
    /// weir itself failed.
    InternalError,
    /// A configured rate limit refused the call.
    RateLimited,
    /// A configured budget refused the call.
    BudgetBlocked,
    /// The app hung up.
    Cancelled,
}

impl Outcome {
    /// Every outcome there is, for creating series at zero.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::ClientError,
        Self::UpstreamError,
        Self::Timeout,
        Self::InternalError,
        Self::RateLimited,
        Self::BudgetBlocked,
        Self::Cancelled,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client_error",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::InternalError => "internal_error",
            Self::RateLimited => "rate_limited",
            Self::BudgetBlocked => "budget_blocked",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a run of an agent loop ended: the label `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// It came to what it was for.
    Success,
    /// It failed.
    Error,
    /// It was left in the middle, or its time was up.
    Timeout,
    /// It was given up on purpose.
    Cancelled,
}

impl RunStatus {
    /// Every status there is, for creating series at zero.
    pub const ALL: [Self; 4] = [Self::Success, Self::Error, Self::Timeout, Self::Cancelled];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status that this word says, in whatever case; `None` if it is none.
    #[must_use]
    pub fn of_word(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().as_bytes().eq_ignore_ascii_case(word.trim_ascii()))
    }
}

/// Why a call did not end well: the label `error_type`, OpenTelemetry's `error.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// The provider answered with this HTTP status.
    Status(u16),
    /// A deadline passed.
    Timeout,
    /// The upstream's name did not resolve.
    Dns,
    /// No connection could be made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The connection broke before the response head came.
    ConnectionReset,
    /// The reply broke off, or carried an error, after its head.
    StreamAborted,
    /// The reply was not what the API promises.
    InvalidResponse,
    /// A body was larger than is allowed.
    BodyTooLarge,
    /// The app hung up.
    Cancelled,
    /// The upstream has failed too often: it was not asked.
    CircuitOpen,
    /// None of the above.
    Other,
}

impl ErrorType {
    /// The label value. Statuses outside the catalogue's list count as `_OTHER`, which keeps the set closed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status(status) => Self::status_str(status),
            Self::Timeout => "timeout",
            Self::Dns => "dns_error",
            Self::Connect => "connect_error",
            Self::Tls => "tls_error",
            Self::ConnectionReset => "connection_reset",
            Self::StreamAborted => "stream_aborted",
            Self::InvalidResponse => "invalid_response",
            Self::BodyTooLarge => "body_too_large",
            Self::Cancelled => "cancelled",
            Self::CircuitOpen => "circuit_open",
            Self::Other => "_OTHER",
        }
    }

    const fn status_str(status: u16) -> &'static str {
        match status {
            400 => "400",
            401 => "401",
            403 => "403",
            404 => "404",
            408 => "408",
            413 => "413",
            422 => "422",
            429 => "429",
            500 => "500",
            502 => "502",
            503 => "503",
            504 => "504",
            529 => "529",
            _ => "_OTHER",
        }
    }
}

/// What an attempt to ask a provider met, where another one may fare better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// No connection, or it broke before an answer came.
    Connect,
    /// No answer in time, or a 408.
    Timeout,
    /// A 429.
    RateLimit,
    /// A 5xx.
    ServerError,
}

impl Trouble {
    /// Every trouble there is, for creating series at zero.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Timeout, Self::RateLimit, Self::ServerError];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::RateLimit => "429",
            Self::ServerError => "5xx",
        }
    }
}

/// What the cache said to a call. `Cache-Status` (RFC 9211) and `X-Cache` say it to the app, `result` to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheStatus {
    /// Answered from the cache.
    Hit,
    /// Not stored.
    Miss,
    /// Stored, but no longer fresh.
    Expired,
    /// Not looked up.
    Bypass(BypassReason),
}

/// Why a call went past the cache: told to the app in `Cache-Status`, to the operator in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BypassReason {
    /// The operator turned the cache off.
    Off,
    /// The request's `Cache-Control` asked for it, or wanted a newer answer than there is.
    RequestDirective,
    /// Only what is not drawn by chance is cached, and this answer is.
    Sampled,
    /// Only what asks for the cache is cached, and this request does not.
    NotAskedFor,
    /// The request's `X-Cache-TTL` is no length of time.
    UnreadableTtl,
    /// It is weir's own call, for a newer answer than the one that is stored.
    Refresh,
    /// This kind of call is never cached: it has side effects, uses state or live data, or is not known.
    Uncacheable,
    /// The request's body was too large to keep, or could not be read.
    Unread,
    /// Answers are being recorded, so that each is new.
    Recording,
    /// It is weir's own call, to check what a similar request was answered with.
    Verify,
}

impl BypassReason {
    /// The reason as a token for `Cache-Status; detail=`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::RequestDirective => "request",
            Self::Sampled => "sampled",
            Self::NotAskedFor => "not-asked-for",
            Self::UnreadableTtl => "unreadable-x-cache-ttl",
            Self::Refresh => "refresh",
            Self::Uncacheable => "uncacheable",
            Self::Unread => "unread",
            Self::Recording => "record",
            Self::Verify => "verify",
        }
    }
}

impl CacheStatus {
    /// The label `result` of `weir_cache_requests_total`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Expired => "expired",
            Self::Bypass(_) => "bypass",
        }
    }
}

/// A call's part among equal ones at the same time: the label `role` of `weir_singleflight_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It asked, and pays.
    Leader,
    /// It got the answer to another.
    Follower,
}

impl Role {
    /// Every role there is, for creating series at zero.
    pub const ALL: [Self; 2] = [Self::Leader, Self::Follower];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
        }
    }
}

/// How an answer came to be there without being asked for: the label `source` of what that saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It was stored.
    Stored,
    /// It was on its way to an equal call.
    Coalesced,
    /// It was stored for another request that says the same.
    Similar,
}

impl Reuse {
    /// Every way there is, for creating series at zero.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Coalesced, Self::Similar];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "cache",
            Self::Coalesced => "coalesced",
            Self::Similar => "similar",
        }
    }
}

/// What came of looking for a similar request that has been answered: the label `result` of
/// `weir_cache_similar_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimilarResult {
    /// Its answer answered.
    Hit,
    /// None is near enough, or its answer is gone.
    Miss,
    /// The text has no vector to be compared by.
    Unseen(NoVector),
}

impl SimilarResult {
    /// Every result there is, for creating series at zero.
    pub const ALL: [Self; 5] = [
        Self::Hit,
        Self::Miss,
        Self::Unseen(NoVector::Error),
        Self::Unseen(NoVector::Timeout),
        Self::Unseen(NoVector::Skipped),
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Unseen(why) => why.as_str(),
        }
    }
}

/// Why a text has no vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoVector {
    /// The endpoint cannot be reached, refuses, or says something else.
    Error,
    /// It takes too long.
    Timeout,
    /// It was not asked: it has failed again and again, or is busy with as many texts as it is given.
    Skipped,
}

impl NoVector {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Skipped => "skipped",
        }
    }
}

/// Whether an answer to a similar request was as good as one of its own: the label `verdict` of
/// `weir_cache_similar_verified_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The two answers say the same, as far as their vectors tell.
    Same,
    /// They do not.
    Different,
    /// They could not be compared.
    Failed,
}

impl Verdict {
    /// Every verdict there is, for creating series at zero.
    pub const ALL: [Self; 3] = [Self::Same, Self::Different, Self::Failed];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Failed => "failed",
        }
    }
}

/// What became of a reply that was offered to the cache: the label `result` of `weir_cache_stores_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreResult {
    /// Kept.
    Stored,
    /// Over the size cap.
    TooLarge,
    /// Not complete, not a success, invalidated on its way, or the request said `no-store`.
    NotCacheable,
}

impl StoreResult {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::TooLarge => "too_large",
            Self::NotCacheable => "not_cacheable",
        }
    }
}
