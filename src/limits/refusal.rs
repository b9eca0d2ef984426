//! Refusal: why a call may not go, and when it may try again. Words for the app's developer; not the API's shape, nor its
//! status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::budget::{Budget, Enforce, Over};
use crate::limits::rate::{Full, Quota, RateLimit, Unit};

/// Why a call may not go.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The rule that has no room, of several the one that takes longest to have some.
    pub rule: Arc<str>,
    /// What it lacks.
    pub why: Why,
    /// In how long there is room again, by every rule. `None` where nobody can tell, or there never is.
    pub retry_after: Option<Duration>,
    /// The limits of rate that have no room, and how they stand.
    pub full: Vec<(Arc<str>, Quota)>,
    /// How long the call may wait for its turn, where every rule that has no room lets it.
    pub may_wait: Option<Duration>,
    /// The model to be asked for instead, where no rule wants more than that.
    pub downgrade_to: Option<Arc<str>>,
    /// Whether other replicas may have room, which were not asked: by every rule that has none here.
    pub may_ask: bool,
}

/// What a rule lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its limit is reached.
    Full(Quota),
    /// The money or the tokens are spent, or reserved for calls under way.
    Over(Over),
}

impl Refusal {
    pub(super) fn full(refusal: &mut Option<Self>, rule: &RateLimit, full: Full) {
        let Full { quota, wait, may_ask } = full;
        let may_wait = Some(rule.wait).filter(|wait| !wait.is_zero());
        let known = refusal.get_or_insert_with(|| Self {
            rule: Arc::clone(&rule.name),
            why: Why::Full(quota),
            retry_after: wait,
            full: Vec::new(),
            may_wait,
            downgrade_to: None,
            may_ask,
        });
        known.may_ask &= may_ask;
        known.full.push((Arc::clone(&rule.name), quota));
        known.may_wait = known.may_wait.min(may_wait);
        known.downgrade_to = None;
        if known.retry_after < wait {
            (known.rule, known.why, known.retry_after) = (Arc::clone(&rule.name), Why::Full(quota), wait);
        }
    }

    pub(super) fn over(refusal: &mut Option<Self>, budget: &Budget, over: Over) {
        let is_first = refusal.is_none();
        let retry_after = if over.is_spent { over.renews_in } else { None };
        let known = refusal.get_or_insert_with(|| Self {
            rule: Arc::clone(&budget.name),
            why: Why::Over(over),
            retry_after,
            full: Vec::new(),
            may_wait: None,
            downgrade_to: None,
            may_ask: over.may_ask,
        });
        known.may_ask &= over.may_ask;
        known.may_wait = None;
        let downgrades = budget.enforce == Enforce::Downgrade && (is_first || known.downgrade_to.is_some());
        known.downgrade_to = budget.downgrade_to.clone().filter(|_| downgrades);
        // Waiting for a rate is of no use to a call that no money is left for.
        if matches!(known.why, Why::Full(_)) || known.retry_after < retry_after {
            (known.rule, known.why) = (Arc::clone(&budget.name), Why::Over(over));
            known.retry_after = known.retry_after.max(retry_after);
        }
    }
}

/// What happened, and what mends it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = &self.rule;
        match &self.why {
            Why::Full(Quota { unit: Unit::Calls, limit, .. }) => {
                write!(
                    f,
                    "weir's limit `{rule}` lets {limit} calls be in progress at once: try again when one has ended"
                )
            }
            Why::Full(Quota { unit, limit, period, .. }) => {
                let period = humantime::format_duration(period.unwrap_or_default());
                write!(f, "weir's limit `{rule}` lets {limit} {} pass in {period}", unit.as_str())?;
                self.when(f)
            }
            Why::Over(Over { allowance, is_spent: false, .. }) => write!(
                f,
                "weir's budget `{rule}` of {allowance} is reserved for calls in progress: try again when they have ended"
            ),
            Why::Over(Over { allowance, .. }) => {
                write!(f, "weir's budget `{rule}` of {allowance} is spent")?;
                self.when(f)
            }
        }
    }
}

impl Refusal {
    fn when(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(wait) => {
                let seconds = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
                write!(f, ": try again in {}", humantime::format_duration(seconds))
            }
            None => f.write_str(": ask whoever runs weir to raise it"),
        }
    }
}
