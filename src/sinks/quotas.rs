//! Quotas: what is left of a provider's rate limits, as its replies say, and what has come back since.
//!
//! Replies end in another order than they began, so the latest head counts. A quota whose reset time has passed is full:
//! otherwise one that ran low before a quiet night would look low until the morning.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::record::head::{HeadFacts, Quota, QuotaKind};

/// What one provider said last.
#[derive(Debug, Default)]
pub(super) struct Quotas(Mutex<[Option<(Instant, Quota)>; QuotaKind::ALL.len()]>);

impl Quotas {
    /// Takes in what a reply's head says.
    pub(super) fn note(&self, head: &HeadFacts) {
        let Some(came_at) = head.came_at else { return };
        let says = |quota: &Quota| quota.limit.is_some() || quota.remaining.is_some();
        if !head.quotas.iter().any(says) {
            return;
        }
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (known, quota) in latest.iter_mut().zip(head.quotas).filter(|(_, quota)| says(quota)) {
            if known.is_none_or(|(noted_at, _)| noted_at <= came_at) {
                *known = Some((came_at, quota));
            }
        }
    }

    /// What there is of one kind at `now`: the limit, and the rest of it.
    pub(super) fn now(&self, kind: QuotaKind, now: Instant) -> (Option<u64>, Option<u64>) {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((came_at, quota)) = latest[kind as usize] else { return (None, None) };
        let is_reset = quota.resets_in.is_some_and(|resets_in| now.saturating_duration_since(came_at) >= resets_in);
        let remaining = if is_reset { quota.limit.or(quota.remaining) } else { quota.remaining };
        (quota.limit, remaining)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn head(came_at: Instant, limit: Option<u64>, remaining: Option<u64>) -> HeadFacts {
        let requests = Quota { limit, remaining, resets_in: Some(Duration::from_secs(10)) };
        HeadFacts { came_at: Some(came_at), quotas: [requests, Quota::default()], ..HeadFacts::default() }
    }

    #[test]
    fn the_latest_head_counts_and_a_reset_fills_the_quota() {
        let quotas = Quotas::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let requests = |at| quotas.now(QuotaKind::Requests, at);
        assert_eq!(requests(start), (None, None), "before any reply");
        quotas.note(&head(start + second, Some(100), Some(7)));
        quotas.note(&head(start, Some(100), Some(50)));
        quotas.note(&head(start + 2 * second, None, None));
        assert_eq!(requests(start + 10 * second), (Some(100), Some(7)), "an older head, and one that says nothing");
        assert_eq!(requests(start + 11 * second), (Some(100), Some(100)), "the reset time has passed");
        assert_eq!(quotas.now(QuotaKind::Tokens, start), (None, None));
    }
}
