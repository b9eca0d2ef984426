//! Standing: how the rules stand, for those who look: metrics, the operator, tests. Looks at every subject: not for a call's
//! way.

use std::sync::Arc;

use crate::limits::Now;
use crate::limits::budget::{Allowance, Amount, Budget, Enforce, Terms};
use crate::limits::rate::{Decision, Quota, RateLimit};
use crate::limits::window::{Period, Window};

/// How a limit of rate stands.
#[derive(Clone, Debug)]
pub struct RateNow {
    /// Its name.
    pub name: Arc<str>,
    /// How many subjects it remembers.
    pub subjects: usize,
    /// How often each decision was made since the start.
    pub decisions: [(Decision, u64); 3],
    /// The subject that has least left.
    pub fullest: SubjectRate,
}

/// How a limit of rate stands for one subject.
#[derive(Clone, Debug, Default)]
pub struct SubjectRate {
    /// Who; empty where everybody is one.
    pub subject: Box<str>,
    /// What is left of each of its rates.
    pub quotas: Vec<Quota>,
}

impl SubjectRate {
    /// The used share of what is used most, from 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
    pub fn used(&self) -> f64 {
        let shares = self.quotas.iter().map(|quota| 1.0 - quota.remaining as f64 / quota.limit.max(1) as f64);
        shares.fold(0.0, f64::max)
    }
}

/// Whose spending a budget counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The whole app's: what all its instances have spent.
    App,
    /// This instance's.
    #[default]
    Instance,
}

impl Scope {
    /// The value of the label `scope`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Instance => "instance",
        }
    }
}

/// How a budget stands.
#[derive(Clone, Debug)]
pub struct BudgetNow {
    /// Its name.
    pub name: Arc<str>,
    /// Its window.
    pub window: Window,
    /// Whose spending it counts.
    pub scope: Scope,
    /// What happens once it is spent.
    pub enforce: Enforce,
    /// The window that is now.
    pub period: Period,
    /// What it allows, which percentages are told of, and whether it is overridden.
    pub terms: Terms,
    /// How many calls were refused since the start.
    pub blocked: u64,
    /// How many subjects it remembers.
    pub subjects: usize,
    /// The subject that has spent most.
    pub foremost: SubjectBudget,
}

/// How a budget stands for one subject.
#[derive(Clone, Debug, Default)]
pub struct SubjectBudget {
    /// Who; empty where everybody is one.
    pub subject: Box<str>,
    /// What was spent in the window that is now.
    pub spent: Amount,
    /// What calls under way are expected to cost.
    pub reserved: Amount,
}

impl RateNow {
    pub(super) fn of(rule: &RateLimit, now: Now) -> Self {
        let subjects = rule.slots.all().map(|slot| {
            let quotas = rule.quotas(&slot.lock(), now);
            SubjectRate { subject: slot.subject.clone(), quotas }
        });
        let fullest = subjects.max_by(|one, other| one.used().total_cmp(&other.used()));
        Self {
            name: Arc::clone(&rule.name),
            subjects: rule.slots.len(),
            decisions: rule.decisions(),
            fullest: fullest.unwrap_or_default(),
        }
    }
}

impl BudgetNow {
    pub(super) fn of(budget: &Budget, now: Now) -> Self {
        let period = budget.period(now);
        let subjects = budget.accounts().map(|slot| {
            let mut account = slot.lock();
            account.enter(period);
            SubjectBudget { subject: slot.subject.clone(), spent: account.spent, reserved: account.reserved }
        });
        let terms = budget.terms();
        let foremost = subjects.max_by_key(|subject| match terms.allowance {
            Allowance { usd: Some(_), .. } => subject.spent.usd.pico(),
            Allowance { usd: None, .. } => u128::from(subject.spent.tokens),
        });
        Self {
            name: Arc::clone(&budget.name),
            window: budget.window,
            scope: Scope::Instance,
            enforce: budget.enforce,
            period,
            terms,
            blocked: budget.blocked_so_far(),
            subjects: budget.subjects(),
            foremost: foremost.unwrap_or_default(),
        }
    }
}
