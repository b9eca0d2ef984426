//! Running: what a call has used so far that is still under way, told to the budgets that end streams.
//!
//! A reservation is a guess. A stream that outgrows its own reserves what it has used beyond it, so that no other call is
//! let go for money that is gone; and once all that was spent and is being used has used a budget up, the stream is to be
//! ended. What was told is forgotten when the call is over: then its cost is known.

use std::sync::Arc;

use crate::limits::budget::{Account, Amount, Budget, Reserved};
use crate::limits::slots::Slot;
use crate::limits::{Clock, Permit};

/// What one call has used so far of the budgets that may end it.
#[derive(Debug)]
pub struct Running {
    clock: Clock,
    shares: Vec<Share>,
}

/// What it has used of one budget.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    slot: Arc<Slot<Account>>,
    reserved: Amount,
    used: Amount,
}

impl Permit {
    /// What tells how far the call has come, if there is a budget that may end it.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        let ends = self.reserved.iter().filter(|reserved| reserved.budget.ends_streams());
        let share = |reserved: &Reserved| Share {
            budget: Arc::clone(&reserved.budget),
            slot: Arc::clone(&reserved.slot),
            reserved: reserved.amount,
            used: Amount::default(),
        };
        let shares: Vec<Share> = ends.map(share).collect();
        (!shares.is_empty()).then_some(Running { clock: self.clock, shares })
    }

    /// Holds what the call has reserved beyond what it held so far: it is over, and about to be settled.
    pub fn outgrown(&mut self, mut running: Running) {
        for share in running.shares.drain(..) {
            Budget::ran(&share.slot, share.used);
            let is_same = |reserved: &&mut Reserved| {
                Arc::ptr_eq(&reserved.budget, &share.budget) && Arc::ptr_eq(&reserved.slot, &share.slot)
            };
            match self.reserved.iter_mut().find(is_same) {
                Some(reserved) => reserved.amount = reserved.amount.plus(share.grown()),
                None => Budget::give_back(&share.slot, share.grown()),
            }
        }
    }
}

impl Share {
    /// What it has used beyond its reservation.
    const fn grown(&self) -> Amount {
        self.used.minus(self.reserved)
    }
}

impl Running {
    /// It has used so much so far. The name of a budget that is used up with it, if one is.
    pub fn used(&mut self, so_far: Amount) -> Option<Arc<str>> {
        let now = self.clock.now();
        let mut used_up = None;
        for Share { budget, slot, reserved, used } in &mut self.shares {
            let is_used_up = budget.run(slot, [*used, so_far], *reserved, now);
            *used = so_far;
            if is_used_up {
                used_up = used_up.or(Some(Arc::clone(&budget.name)));
            }
        }
        used_up
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for share in self.shares.drain(..) {
            Budget::ran(&share.slot, share.used);
            Budget::give_back(&share.slot, share.grown());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budget::{Enforce, Settings};
    use crate::limits::matching::Asker;
    use crate::limits::{Demand, Limits, Money, Spent, Stage};
    use crate::record::call::Caller;
    use crate::units::PicoUsd;

    fn usd(dollars: u128) -> PicoUsd {
        PicoUsd::new(dollars * PicoUsd::PER_USD)
    }

    fn amount(dollars: u128) -> Amount {
        Amount { usd: usd(dollars), tokens: 0 }
    }

    fn limits(enforce: Enforce, stop_streams: bool) -> Limits {
        let budget =
            Settings { name: "b".into(), limit_usd: Some(usd(10)), enforce, stop_streams, ..Settings::default() };
        Limits::new(&[], &[budget])
    }

    /// A call that is expected to cost so much, if it may go.
    fn call(limits: &Limits, dollars: u128) -> Option<Permit> {
        let caller = Caller::default();
        let asker = Asker { provider: "p", model: None, caller: &caller, credential: None };
        let demand = Demand { tokens: 0, money: Money::Expected(usd(dollars)) };
        limits.admit(&asker, &demand, Stage::Asking, limits.now()).ok()
    }

    fn reserved(limits: &Limits) -> u128 {
        limits.budgets_now()[0].foremost.reserved.usd.pico() / PicoUsd::PER_USD
    }

    #[test]
    fn a_stream_is_ended_once_what_is_used_uses_the_budget_up_whatever_is_reserved() {
        let limits = limits(Enforce::Block, true);
        let (small, large) = (call(&limits, 2).expect("room"), call(&limits, 50).expect("the one that crosses"));
        let (mut one, mut other) = (small.running().expect("it may end"), large.running().expect("it may end"));
        assert_eq!(one.used(amount(2)), None, "52 of 10 are reserved, 2 are used");
        assert_eq!(other.used(amount(7)), None, "9 are used");
        assert_eq!(other.used(amount(8)).as_deref(), Some("b"), "10 are used");
        assert_eq!(one.used(amount(2)).as_deref(), Some("b"), "for all who use it");
        drop(other);
        assert_eq!(one.used(amount(2)), None, "what was told is forgotten");
    }

    #[test]
    fn what_outgrows_its_reservation_is_reserved_until_the_call_is_over() {
        let limits = limits(Enforce::Block, true);
        let permit = call(&limits, 1).expect("room");
        let mut running = permit.running().expect("it may end");
        for (used, expected) in [(1, 1), (4, 4), (9, 9)] {
            assert_eq!(running.used(amount(used)), None);
            assert_eq!(reserved(&limits), expected);
        }
        assert!(call(&limits, 1).is_some(), "9 of 10 are reserved");
        assert_eq!(running.used(amount(12)).as_deref(), Some("b"));
        assert!(call(&limits, 1).is_none(), "12 of 10 are reserved");
        drop(running);
        assert_eq!(reserved(&limits), 1);
        drop(permit);
        assert_eq!(reserved(&limits), 0, "nothing stays reserved for ever");
    }

    #[test]
    fn what_nobody_can_tell_of_a_call_that_outgrew_its_reservation_is_what_it_used() {
        let limits = limits(Enforce::Block, true);
        let mut permit = call(&limits, 1).expect("room");
        let mut running = permit.running().expect("it may end");
        running.used(amount(4));
        permit.outgrown(running);
        assert_eq!(reserved(&limits), 4);
        permit.settle(Spent::default());
        let foremost = &limits.budgets_now()[0].foremost;
        assert_eq!((foremost.spent.usd, foremost.reserved.usd), (usd(4), PicoUsd::ZERO));
    }

    #[test]
    fn only_a_budget_that_ends_streams_is_told_of_them() {
        for (enforce, stop_streams, told) in
            [(Enforce::Block, true, true), (Enforce::Block, false, false), (Enforce::Alert, true, false)]
        {
            let limits = limits(enforce, stop_streams);
            let permit = call(&limits, 1).expect("room");
            assert_eq!(permit.running().is_some(), told, "{enforce:?} {stop_streams}");
        }
    }
}
