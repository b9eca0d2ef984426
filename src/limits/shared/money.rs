//! Money: what a budget says of an account to the server, and what it makes of the answer.

use std::sync::{Arc, PoisonError};

use crate::limits::Demand;
use crate::limits::Now;
use crate::limits::budget::{Account, Budget};
use crate::limits::shared::lease::{Handing, Statement, Why};
use crate::limits::shared::script::Answered;
use crate::limits::shared::{Footing, Link, Party};
use crate::limits::slots::Slot;
use crate::limits::standing::Scope;
use crate::limits::window::Period;

/// How often an account is told of, and what others have spent heard, after anything has happened to it here.
const TOLD_WHILE_IDLE: u8 = 60;

impl Budget {
    /// Holds it together with others from now on, unless the operator wants it to be each instance's own.
    pub(in crate::limits) fn share_by(&self, link: &Arc<Link>) {
        if self.may_share {
            self.link.get_or_init(|| Arc::clone(link));
        }
    }

    /// On what its decisions rest.
    pub(in crate::limits) fn footing(&self, now: Now) -> Footing {
        self.link.get().map_or(Footing::OWN, |link| link.footing(now))
    }

    /// What calls wait for here, if a call that demands this lacks something that the others may have.
    pub(in crate::limits) fn want(
        self: &Arc<Self>,
        slot: &Arc<Slot<Account>>,
        demand: &Demand,
        model: Option<&str>,
        now: Now,
    ) -> Option<Party> {
        let (period, amount) = (self.period(now), self.amount(demand));
        let about = self.allowance(now).filter(|_| self.holds(model))?.about(demand);
        if self.footing(now).scope == Scope::Instance {
            return None;
        }
        let mut account = slot.lock();
        account.enter(period);
        let reserved = account.reserved;
        let lease = account.lease.as_mut()?;
        if lease.fits(reserved, amount, about) {
            return None;
        }
        lease.want(amount, about);
        Some(Party::Money(Arc::clone(self), Arc::clone(slot)))
    }

    /// Remembers that there is something to tell of an account.
    pub(in crate::limits) fn list(&self, slot: &Arc<Slot<Account>>, account: &mut Account) {
        if self.link.get().is_some() && !std::mem::replace(&mut account.is_listed, true) {
            self.listed.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(slot));
        }
    }

    /// Whatever there is something to tell of. Those that nothing has happened to for long are not told of any more.
    pub(in crate::limits) fn in_use(self: &Arc<Self>, now: Now) -> Vec<Party> {
        if self.link.get().is_none() || !self.is_open() {
            return Vec::new();
        }
        if self.per.is_everybody() {
            let slot = self.account("", now);
            self.list(&slot, &mut slot.lock());
        }
        // An account is locked before the list is: so they are looked at without it.
        let mut listed = std::mem::take(&mut *self.listed.lock().unwrap_or_else(PoisonError::into_inner));
        listed.retain(|slot| {
            let mut account = slot.lock();
            let reserved = account.reserved;
            let is_in_use = account.lease.as_ref().is_some_and(|lease| lease.is_in_use(reserved));
            account.idle_for = if is_in_use { 0 } else { account.idle_for.saturating_add(1) };
            account.is_listed = self.per.is_everybody() || account.idle_for <= TOLD_WHILE_IDLE;
            account.is_listed
        });
        let parties = listed.iter().map(|slot| Party::Money(Arc::clone(self), Arc::clone(slot))).collect();
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).append(&mut listed);
        parties
    }

    /// What to say of an account, and of which window.
    pub(super) fn state(&self, slot: &Slot<Account>, why: Why, now: Now) -> Option<(Statement, Period)> {
        let (period, replicas) = (self.period(now), self.footing(now).replicas);
        let handing = if self.per.is_everybody() { Handing::InParts(replicas) } else { Handing::ByUse };
        let limit = self.allowance(now).unwrap_or_default();
        let mut account = slot.lock();
        account.enter(period);
        let reserved = account.reserved;
        let statement = account.lease.get_or_insert_default().state(why, handing, reserved, limit)?;
        Some((statement, period))
    }

    /// The server has answered to that.
    pub(super) fn hear(&self, slot: &Slot<Account>, said: (&Statement, Period), answer: &Answered, now: Now) {
        let (statement, period) = said;
        self.change_spent(slot, self.period(now), now, |account| {
            if account.start == period.start
                && let Some(lease) = &mut account.lease
            {
                lease.hear(statement, answer, now.nanos);
            }
        });
    }
}
