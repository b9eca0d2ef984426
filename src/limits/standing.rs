//! Standing: how the rules stand, for those who look: metrics, the operator, tests. Looks at every subject: not for a call's
//! way.

use std::sync::Arc;

use crate::limits::Now;
use crate::limits::budget::{Allowance, Amount, Budget, Enforce, Terms};
use crate::limits::rate::{Decision, Quota, RateLimit};
use crate::limits::slots::Slot;
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
    /// What this instance has counted against it since the start, whoever spent it and in whichever window.
    pub charged: Amount,
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
        let fullest = first(rule.slots.all(), |state| rule.used(state, now));
        let fullest = fullest.map(|slot| {
            let quotas = rule.quotas(&slot.lock(), now);
            SubjectRate { subject: slot.subject.clone(), quotas }
        });
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
        let (period, terms) = (budget.period(now), budget.terms());
        let foremost = first(budget.accounts(), |account| {
            account.enter(period);
            match terms.allowance {
                Allowance { usd: Some(_), .. } => account.spent.usd.pico(),
                Allowance { usd: None, .. } => u128::from(account.spent.tokens),
            }
        });
        let foremost = foremost.map(|slot| {
            let account = slot.lock();
            SubjectBudget { subject: slot.subject.clone(), spent: account.spent, reserved: account.reserved }
        });
        Self {
            name: Arc::clone(&budget.name),
            window: budget.window,
            scope: Scope::Instance,
            enforce: budget.enforce,
            period,
            terms,
            blocked: budget.blocked_so_far(),
            charged: budget.charged_so_far(),
            subjects: budget.subjects(),
            foremost: foremost.unwrap_or_default(),
        }
    }
}

/// Of all `slots`, the one that ranks highest. There may be a hundred thousand: nothing is copied of them.
fn first<T, R: PartialOrd + Copy>(
    slots: impl Iterator<Item = Arc<Slot<T>>>,
    rank: impl Fn(&mut T) -> R,
) -> Option<Arc<Slot<T>>> {
    let first = slots.fold(None, |first, slot| {
        let rank = rank(&mut slot.lock());
        match first {
            Some((_, highest)) if rank <= highest => first,
            _ => Some((slot, rank)),
        }
    });
    first.map(|(slot, _)| slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budget::Settings;
    use crate::limits::window::UnixTime;
    use crate::units::PicoUsd;

    const DAY: i64 = 24 * 3600;

    /// What is shown as spent may be asked for its rate: within a window it never falls, with the next it begins at 0.
    #[test]
    fn what_is_spent_falls_only_when_a_window_begins() {
        let at = |second: i64| Now { nanos: 0, wall: UnixTime::new(1_000 * DAY + second) };
        let per = "agent".parse().expect("a part");
        let settings = Settings { window: Window::Day, per, limit_usd: Some(PicoUsd::new(9)), ..Settings::default() };
        let budget = Budget::new(&settings, at(0));
        let (mut before, mut start) = (Amount::default(), at(0).wall);
        for step in 0..1000_i64 {
            let now = at(step * DAY / 250);
            let slot = budget.account(&format!("agent={}", step * 7 % 13), now);
            let usd = PicoUsd::new(step.unsigned_abs().into());
            budget.settle(&slot, Amount::default(), Amount { usd, tokens: 0 }, now);
            budget.forget(now);
            let shown = BudgetNow::of(&budget, now);
            let is_new = start < shown.period.start;
            assert!(is_new || shown.foremost.spent.usd >= before.usd, "{shown:?}");
            assert!(!is_new || shown.foremost.spent.usd == usd, "{shown:?}");
            (before, start) = (shown.foremost.spent, shown.period.start);
        }
        assert_eq!(start, at(3 * DAY).wall, "there were four windows");
        assert_eq!(BudgetNow::of(&budget, at(4 * DAY)).foremost.spent, Amount::default());
    }
}
