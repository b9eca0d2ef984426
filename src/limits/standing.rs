//! Standing: how the rules stand, for those who look: metrics, the operator, tests. Looks at every subject: not for a call's
//! way.

use std::sync::Arc;

use crate::limits::Now;
use crate::limits::budget::{Account, Allowance, Amount, Budget, Enforce, Terms};
use crate::limits::rate::{Decision, Quota, RateLimit, State};
use crate::limits::slots::Slot;
use crate::limits::tally::Deed;
use crate::limits::window::{Period, Window};

/// How a limit of rate stands.
#[derive(Clone, Debug)]
pub struct RateNow {
    /// Its name.
    pub name: Arc<str>,
    /// Whose calls it counts.
    pub scope: Scope,
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
    /// How many were made with a cheaper model.
    pub downgraded: u64,
    /// How many streams were ended.
    pub stopped: u64,
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
    /// What this instance's calls under way are expected to cost.
    pub reserved: Amount,
}

impl RateNow {
    /// How `rule` stands.
    #[must_use]
    pub fn of(rule: &RateLimit, now: Now) -> Self {
        let nobody = || SubjectRate { subject: "".into(), quotas: rule.quotas(&State::default(), now) };
        Self {
            name: Arc::clone(&rule.name),
            scope: rule.footing(now).scope,
            subjects: rule.slots.len(),
            decisions: rule.decisions(),
            fullest: fullest(rule, 1, now).pop().unwrap_or_else(nobody),
        }
    }
}

/// The subjects of a limit that have taken something and have least left: at most so many, the fullest first.
#[must_use]
pub fn fullest(rule: &RateLimit, most: usize, now: Now) -> Vec<SubjectRate> {
    let used = |state: &mut State| Some(rule.used(state, now)).filter(|used| *used > 0.0);
    let fullest = first(rule.slots.all(), most, used).into_iter().map(|slot| {
        let quotas = rule.quotas(&slot.lock(), now);
        SubjectRate { subject: slot.subject.clone(), quotas }
    });
    fullest.collect()
}

/// The subjects of a budget that have spent most, or have something reserved: at most so many, the foremost first.
#[must_use]
pub fn foremost(budget: &Budget, most: usize, now: Now) -> Vec<SubjectBudget> {
    let (period, allowance) = (budget.period(now), budget.terms().allowance);
    let spent = |account: &mut Account| {
        account.enter(period);
        let spent = match allowance {
            Allowance { usd: Some(_), .. } => account.used().usd.pico(),
            Allowance { usd: None, .. } => u128::from(account.used().tokens),
        };
        (account.used().plus(account.reserved) != Amount::default()).then_some(spent)
    };
    let foremost = first(budget.accounts(), most, spent).into_iter().map(|slot| {
        let account = slot.lock();
        SubjectBudget { subject: slot.subject.clone(), spent: account.used(), reserved: account.reserved }
    });
    foremost.collect()
}

impl BudgetNow {
    /// How `budget` stands.
    #[must_use]
    pub fn of(budget: &Budget, now: Now) -> Self {
        let period = budget.period(now);
        let elsewhere = budget.spent_elsewhere(period, now);
        let foremost = foremost(budget, 1, now).pop().unwrap_or_default();
        let foremost = SubjectBudget { spent: foremost.spent.plus(elsewhere.unwrap_or_default()), ..foremost };
        Self {
            name: Arc::clone(&budget.name),
            window: budget.window,
            scope: if elsewhere.is_some() { Scope::App } else { budget.footing(now).scope },
            enforce: budget.enforce,
            period,
            terms: budget.terms(),
            blocked: budget.tally.of(Deed::Blocked),
            downgraded: budget.tally.of(Deed::Downgraded),
            stopped: budget.tally.of(Deed::Stopped),
            charged: budget.charged_so_far(),
            subjects: budget.subjects(),
            foremost,
        }
    }
}

/// Of the `slots` that rank at all, the `most` that rank highest, in order. There may be a hundred thousand: nothing is
/// copied of them.
fn first<T, R: PartialOrd>(
    slots: impl Iterator<Item = Arc<Slot<T>>>,
    most: usize,
    rank: impl Fn(&mut T) -> Option<R>,
) -> Vec<Arc<Slot<T>>> {
    let mut first: Vec<(R, Arc<Slot<T>>)> = Vec::new();
    for slot in slots {
        let Some(rank) = rank(&mut slot.lock()) else { continue };
        let place = first
            .partition_point(|(other, before)| *other > rank || (*other == rank && before.subject <= slot.subject));
        if place < most {
            first.truncate(most - 1);
            first.insert(place, (rank, slot));
        }
    }
    first.into_iter().map(|(_, slot)| slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budget::Settings;
    use crate::limits::slots::PARTS;
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
            (0..PARTS).for_each(|part| budget.forget(part, now));
            let shown = BudgetNow::of(&budget, now);
            let is_new = start < shown.period.start;
            assert!(is_new || shown.foremost.spent.usd >= before.usd, "{shown:?}");
            assert!(!is_new || shown.foremost.spent.usd == usd, "{shown:?}");
            (before, start) = (shown.foremost.spent, shown.period.start);
        }
        assert_eq!(start, at(3 * DAY).wall, "there were four windows");
        assert_eq!(BudgetNow::of(&budget, at(4 * DAY)).foremost.spent, Amount::default());
    }
    #[test]
    fn those_who_have_spent_most_come_first_and_no_more_than_are_asked_for() {
        let now = Now { nanos: 0, wall: UnixTime::new(DAY) };
        let settings = Settings { limit_usd: Some(PicoUsd::new(9)), ..Settings::default() };
        let budget = Budget::new(&settings, now);
        let spends = [("d", 0), ("c", 5), ("a", 1), ("e", 9), ("b", 5)];
        for (subject, usd) in spends {
            let amount = Amount { usd: PicoUsd::new(usd), tokens: 0 };
            budget.settle(&budget.account(subject, now), Amount::default(), amount, now);
        }
        for (most, expected) in [(0, ""), (1, "e"), (3, "ebc"), (4, "ebca"), (9, "ebca")] {
            let subjects: String = foremost(&budget, most, now).iter().map(|one| &*one.subject).collect();
            assert_eq!(subjects, expected, "{most}");
        }
    }
}
