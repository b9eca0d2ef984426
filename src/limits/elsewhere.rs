//! Elsewhere: what an app's other instances have spent of a budget, as far as this one was told.
//!
//! Somebody who adds up says what all of them have spent, and how much this one had spent by then; the rest is theirs.
//! Within a window it only ever grows, and it counts for as long as it is said to. Knows nobody who adds up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::limits::Now;
use crate::limits::budget::{Allowance, Amount};
use crate::limits::window::{Period, UnixTime};

/// A budget that counts what all instances spend, once somebody says what that is.
#[derive(Clone, Debug)]
pub struct FleetBudget {
    /// Its name.
    pub name: Arc<str>,
    /// How much it allows.
    pub allowance: Allowance,
    /// When the window began that is now.
    pub start: UnixTime,
    /// What this instance has counted against it since the start, in whichever window.
    pub charged: Amount,
}

/// What all instances have spent of a budget, as of some moment.
#[derive(Clone, Copy, Debug)]
pub struct FleetSpend {
    /// When the window began that it was spent in.
    pub start: UnixTime,
    /// What they have spent.
    pub all: Amount,
    /// [`FleetBudget::charged`] at that moment, or before it.
    pub charged: Amount,
    /// How long that counts from now on.
    pub good_for: Duration,
}

/// What others have spent.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(Mutex<Option<Told>>);

#[derive(Clone, Copy, Debug)]
struct Told {
    start: UnixTime,
    spent: Amount,
    /// Until when it counts, in nanoseconds of [`Now`].
    until: u64,
}

impl Told {
    fn counts(&self, period: Period, now: Now) -> bool {
        self.start == period.start && now.nanos < self.until
    }
}

impl Elsewhere {
    /// What others have spent in this window; `None` if nobody has said so lately.
    pub(super) fn spent(&self, period: Period, now: Now) -> Option<Amount> {
        let told = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.filter(|told| told.counts(period, now)).map(|told| told.spent)
    }

    /// Others have spent so much in this window: or more, if that was said before.
    pub(super) fn tell(&self, spent: Amount, period: Period, good_for: Duration, now: Now) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.filter(|told| told.counts(period, now));
        let good_for = u64::try_from(good_for.as_nanos()).unwrap_or(u64::MAX);
        let until = now.nanos.saturating_add(good_for);
        *told = Some(Told {
            start: period.start,
            spent: before.map_or(spent, |before| before.spent.max(spent)),
            until: before.map_or(until, |before| before.until.max(until)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budget::{Budget, Enforce, Settings};
    use crate::limits::standing::{BudgetNow, Scope};
    use crate::limits::window::Window;
    use crate::limits::{Demand, Money};
    use crate::units::PicoUsd;

    const DAY: i64 = 24 * 3600;
    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Now {
        Now { nanos: second.unsigned_abs() * 1_000_000_000, wall: UnixTime::new(1_000 * DAY + second) }
    }

    fn dollars(dollars: u128) -> Amount {
        Amount { usd: PicoUsd::new(dollars), tokens: 0 }
    }

    /// A budget of 100 for a day.
    fn budget(per: &str) -> Budget {
        let (limit_usd, per) = (Some(PicoUsd::new(100)), per.parse().expect("parts"));
        let settings = Settings { limit_usd, per, window: Window::Day, enforce: Enforce::Block, ..Settings::default() };
        Budget::new(&settings, at(0))
    }

    /// This instance spends so much.
    fn spend(budget: &Budget, amount: u128, now: Now) {
        budget.settle(&budget.account("", now), Amount::default(), dollars(amount), now);
    }

    /// All instances have spent so much, of which this one had counted `charged`; good for an hour.
    fn tell(budget: &Budget, all: u128, charged: u128, now: Now) {
        let start = UnixTime::new(now.wall.seconds() / DAY * DAY);
        budget.tell(&FleetSpend { start, all: dollars(all), charged: dollars(charged), good_for: HOUR }, now);
    }

    fn shown(budget: &Budget, now: Now) -> (u128, Scope) {
        let BudgetNow { foremost, scope, .. } = BudgetNow::of(budget, now);
        (foremost.spent.usd.pico(), scope)
    }

    #[test]
    fn what_counts_is_what_all_have_spent_and_what_was_spent_here_since() {
        let budget = budget("");
        spend(&budget, 10, at(0));
        assert_eq!(shown(&budget, at(1)), (10, Scope::Instance), "nobody has said anything");
        tell(&budget, 50, 10, at(2));
        assert_eq!(shown(&budget, at(2)), (50, Scope::App), "10 of the 50 are ours");
        spend(&budget, 5, at(3));
        assert_eq!(shown(&budget, at(3)), (55, Scope::App));
        tell(&budget, 50, 10, at(4));
        assert_eq!(shown(&budget, at(4)), (55, Scope::App), "the 5 are not among the 50");
        tell(&budget, 70, 15, at(5));
        assert_eq!(shown(&budget, at(5)), (70, Scope::App), "now they are");
        tell(&budget, 60, 15, at(6));
        assert_eq!(shown(&budget, at(6)), (70, Scope::App), "what is spent stays spent");
        tell(&budget, 0, 0, at(7));
        assert_eq!(shown(&budget, at(7)), (70, Scope::App));
    }

    #[test]
    fn calls_are_held_to_what_all_have_spent() {
        let (budget, now) = (budget(""), at(0));
        let demand = Demand { tokens: 0, money: Money::Expected(PicoUsd::new(20)) };
        let reserve = |now| budget.reserve(&budget.account("", now), &demand, None, now);
        tell(&budget, 70, 0, now);
        reserve(now).expect("70 of 100");
        reserve(now).expect("90 of 100, the last");
        let over = reserve(now).expect_err("110 of 100");
        assert_eq!((over.spent, over.is_spent), (dollars(70), false), "some of it may come back");
        tell(&budget, 100, 0, now);
        assert!(reserve(now).expect_err("spent").is_spent);
        reserve(at(3600)).expect("what was said is good for an hour");
    }

    #[test]
    fn it_counts_for_as_long_as_it_is_good_and_in_its_own_window() {
        let budget = budget("");
        tell(&budget, 50, 0, at(0));
        assert_eq!(shown(&budget, at(3599)), (50, Scope::App));
        assert_eq!(shown(&budget, at(3600)), (0, Scope::Instance), "never longer");
        tell(&budget, 40, 0, at(3601));
        assert_eq!(shown(&budget, at(3601)), (40, Scope::App), "what is no longer good holds nobody up");
        tell(&budget, 60, 0, at(DAY - 10));
        assert_eq!(shown(&budget, at(DAY)), (0, Scope::Instance), "a new day");
        let yesterday = FleetSpend { start: at(0).wall, all: dollars(90), charged: dollars(0), good_for: HOUR };
        budget.tell(&yesterday, at(DAY));
        assert_eq!(shown(&budget, at(DAY)), (0, Scope::Instance), "that was yesterday's");
    }

    #[test]
    fn a_window_that_begins_takes_no_spending_along() {
        let budget = budget("");
        spend(&budget, 30, at(0));
        spend(&budget, 4, at(DAY));
        tell(&budget, 10, 34, at(DAY + 1));
        assert_eq!(shown(&budget, at(DAY + 1)), (10, Scope::App), "4 of the 10 are ours");
        spend(&budget, 1, at(DAY + 2));
        tell(&budget, 10, 34, at(DAY + 2));
        assert_eq!(shown(&budget, at(DAY + 2)), (11, Scope::App));
    }

    #[test]
    fn a_budget_that_holds_subjects_apart_is_not_told() {
        let budget = budget("user");
        tell(&budget, 50, 0, at(0));
        assert_eq!(shown(&budget, at(0)), (0, Scope::Instance));
        assert!(budget.of_fleet(at(0)).is_none());
    }
}
