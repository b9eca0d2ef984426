//! Calls: what a limit of rates and of calls at once says of a subject to the server, and what it makes of the answer.

use std::sync::{Arc, PoisonError};

use crate::limits::rate::{Full, RateLimit, State};
use crate::limits::shared::hand::{Hand, Request, of_places, places};
use crate::limits::shared::lease::{Handing, Statement, Why};
use crate::limits::shared::script::{Answered, Taken};
use crate::limits::shared::{Footing, Link, Party};
use crate::limits::slots::Slot;
use crate::limits::standing::Scope;
use crate::limits::{Demand, Now, rate};

impl RateLimit {
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

    /// What of this has too little in hand for a call, if something has.
    pub(in crate::limits) fn lacks_in_hand(
        &self,
        hand: &Hand,
        in_flight: u64,
        demand: &Demand,
        now: Now,
    ) -> Option<Full> {
        if let Some(place) = hand.lacks(&self.rates, demand) {
            let (quota, wait) = (hand.quota(place, &self.rates[place], now), hand.wait(&self.rates, demand, now));
            return Some(Full { quota, wait: Some(wait), may_ask: !hand.has_no_room(now.nanos) });
        }
        let limit = self.concurrent?;
        if hand.places.fits(places(in_flight), places(1), of_places(limit)) {
            return None;
        }
        let quota = rate::calls(limit, in_flight.max(limit));
        Some(Full { quota, wait: None, may_ask: !hand.places.has_no_room(now.nanos) })
    }

    /// What calls wait for here, if a call that demands this lacks something that the others may have.
    pub(in crate::limits) fn want(
        self: &Arc<Self>,
        slot: &Arc<Slot<State>>,
        demand: &Demand,
        now: Now,
        parties: &mut Vec<Party>,
    ) {
        let mut state = slot.lock();
        let in_flight = state.in_flight;
        let Some(hand) = state.hand.as_mut().filter(|_| self.footing(now).scope == Scope::App) else { return };
        if hand.lacks(&self.rates, demand).is_some() {
            hand.want(&self.rates, demand);
            parties.push(Party::Rates(Arc::clone(self), Arc::clone(slot)));
        }
        if let Some(limit) = self.concurrent.map(of_places)
            && !hand.places.fits(places(in_flight), places(1), limit)
        {
            hand.places.want(places(1), limit);
            parties.push(Party::Places(Arc::clone(self), Arc::clone(slot)));
        }
    }

    /// Remembers that there is something to tell of a subject.
    pub(in crate::limits) fn list(&self, slot: &Arc<Slot<State>>, state: &mut State) {
        if self.link.get().is_some() && !std::mem::replace(&mut state.is_listed, true) {
            self.listed.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(slot));
        }
    }

    /// Whatever there is something to tell of.
    pub(in crate::limits) fn in_use(self: &Arc<Self>) -> Vec<Party> {
        // A subject is locked before the list is: so they are looked at without it.
        let mut listed = std::mem::take(&mut *self.listed.lock().unwrap_or_else(PoisonError::into_inner));
        let parties = listed.iter().flat_map(|slot| {
            let rates = (!self.rates.is_empty()).then(|| Party::Rates(Arc::clone(self), Arc::clone(slot)));
            let places = self.concurrent.map(|_| Party::Places(Arc::clone(self), Arc::clone(slot)));
            rates.into_iter().chain(places)
        });
        let parties = parties.collect();
        // What is told of now for the last time is listed again when something happens to it.
        listed.retain(|slot| {
            let mut state = slot.lock();
            let in_flight = state.in_flight;
            state.is_listed = state.hand.as_ref().is_some_and(|hand| hand.is_in_use(in_flight));
            state.is_listed
        });
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).append(&mut listed);
        parties
    }

    /// What to say of the rates.
    pub(super) fn state_rates(&self, slot: &Slot<State>, why: Why, now: Now) -> Option<Request> {
        slot.lock().hand.as_mut()?.state(why, &self.rates, now)
    }

    /// The server has answered to that.
    pub(super) fn hear_rates(slot: &Slot<State>, answer: &Taken, now: Now) {
        if let Some(hand) = &mut slot.lock().hand {
            hand.hear(answer, now);
        }
    }

    /// What to say of the calls in progress.
    pub(super) fn state_places(&self, slot: &Slot<State>, why: Why) -> Option<Statement> {
        let mut state = slot.lock();
        let in_flight = places(state.in_flight);
        state.hand.as_mut()?.places.state(why, Handing::ByUse, in_flight, of_places(self.concurrent?))
    }

    /// The server has answered to that.
    pub(super) fn hear_places(&self, slot: &Slot<State>, said: &Statement, answer: &Answered, now: Now) {
        if let Some(hand) = &mut slot.lock().hand {
            hand.places.hear(said, answer, now.nanos);
        }
        // There may be places now.
        self.released.notify_one();
    }
}
