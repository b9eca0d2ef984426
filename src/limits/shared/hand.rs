//! Hand: requests and tokens that this replica has taken from the shared rates and not used yet. They are taken a few at
//! once, so that a busy replica seldom has to ask, and what an idle one does not use is given back.
//!
//! Pure: what is said to the server, and what becomes of its answer. Calls at once are a [`Lease`] of places.

use std::time::Duration;

use crate::limits::budget::{Allowance, Amount};
use crate::limits::rate::{self, Mark, Quota, Rate, Unit, given_back, quota_filled};
use crate::limits::shared::Footing;
use crate::limits::shared::lease::{Lease, NO_ROOM_HOLDS, Why};
use crate::limits::shared::script::Taken;
use crate::limits::standing::Scope;
use crate::limits::{Demand, Now};

/// The share of a limit that a replica in use likes to have in hand: so much more than the limit each of them may let
/// pass at once, no more.
const SPARE: u64 = 100;
const NANOS_PER_MICRO: u128 = 1000;

/// What this replica has in hand of one limit.
#[derive(Debug, Default)]
pub(in crate::limits) struct Hand {
    rates: Box<[InHand]>,
    /// Calls at once.
    pub(in crate::limits) places: Lease,
    no_room_until: u64,
}

/// The same of one rate.
#[derive(Clone, Copy, Debug, Default)]
struct InHand {
    held: u64,
    /// What was used beyond what was taken.
    owed: u64,
    first: u64,
    needs: u64,
    /// Whether something was taken since the server was told last.
    is_in_use: bool,
    /// Until when what was taken without asking fills the rate.
    alone_until: u64,
    /// How far the server said the rate is filled, and when.
    level: u64,
    level_at: u64,
}

/// What is said to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::limits) struct Request(Box<[Part]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    owed: i64,
    first: u64,
    needs: u64,
    spare: u64,
}

impl Hand {
    pub(in crate::limits) fn new(rates: usize) -> Self {
        Self { rates: vec![InHand::default(); rates].into(), ..Self::default() }
    }

    /// Which of `rates`, if one does, has less in hand than a call demands.
    pub(in crate::limits) fn lacks(&self, rates: &[Rate], demand: &Demand) -> Option<usize> {
        let lacks = |(rate, hand): (&Rate, &InHand)| hand.held < rate.units(rate.of(demand));
        rates.iter().zip(&self.rates).position(lacks)
    }

    /// Takes what a call demands, which was found to be there. `marks` says until when each rate is filled, as far as is
    /// known.
    pub(in crate::limits) fn take(&mut self, rates: &[Rate], demand: &Demand, now: Now, marks: &mut [u64]) {
        for ((rate, hand), mark) in rates.iter().zip(&mut self.rates).zip(marks) {
            hand.held = hand.held.saturating_sub(rate.units(rate.of(demand)));
            hand.is_in_use = true;
            *mark = now.nanos.saturating_add(hand.filled(rate, now));
        }
    }

    /// Notes what was taken without asking: the server is told when it is there again, as far as it still counts then.
    pub(in crate::limits) fn take_alone(&mut self, rates: &[Rate], demand: &Demand, now: Now, marks: &mut [u64]) {
        for ((rate, hand), mark) in rates.iter().zip(&mut self.rates).zip(marks) {
            hand.alone_until = hand.alone_until.max(now.nanos).saturating_add(rate.weight(rate.of(demand)));
            *mark = hand.alone_until;
        }
    }

    /// Gives back what a call has taken that did not go, less what has come free of it meanwhile.
    pub(in crate::limits) fn give_back(&mut self, rates: &[Rate], demand: &Demand, mark: &Mark, now: Now) {
        for ((rate, hand), until) in rates.iter().zip(&mut self.rates).zip(mark.filled_until) {
            match mark.scope {
                Scope::Instance => {
                    hand.alone_until = given_back(hand.alone_until, rate.weight(rate.of(demand)), until, now);
                }
                Scope::App => hand.put_back(rate, rate.units(rate.of(demand)), until, now),
            }
        }
    }

    /// A call is over that has taken this, and used so many tokens.
    pub(in crate::limits) fn settle(&mut self, rates: &[Rate], taken: (u64, &Mark), used: u64, now: Now) {
        let (taken, mark) = taken;
        for ((rate, hand), until) in rates.iter().zip(&mut self.rates).zip(mark.filled_until) {
            if rate.unit != Unit::Tokens {
                continue;
            }
            match mark.scope {
                Scope::Instance => hand.alone_until = rate.settled(hand.alone_until, (taken, until), used, now),
                Scope::App => {
                    let units = rate.units(taken);
                    hand.put_back(rate, units.saturating_sub(used), until, now);
                    hand.owed = hand.owed.saturating_add(used.saturating_sub(units));
                }
            }
        }
    }

    /// A call waits for what it demands.
    pub(in crate::limits) fn want(&mut self, rates: &[Rate], demand: &Demand) {
        for (rate, hand) in rates.iter().zip(&mut self.rates) {
            let units = rate.units(rate.of(demand));
            hand.first = hand.first.max(units);
            hand.needs = hand.needs.saturating_add(units);
        }
    }

    /// Whether nobody has to be asked whether there is room: it was said just now that there is none.
    pub(in crate::limits) const fn has_no_room(&self, nanos: u64) -> bool {
        nanos < self.no_room_until
    }

    /// Whether the server needs to hear of it.
    pub(in crate::limits) fn is_in_use(&self, in_flight: u64) -> bool {
        let is_in_use = |hand: &InHand| hand.held > 0 || hand.owed > 0 || hand.is_in_use || hand.alone_until > 0;
        self.rates.iter().any(is_in_use) || self.places.is_in_use(places(in_flight))
    }

    /// What to say of the rates, if there is anything to ask for. What is given back may not be used from now on, whatever
    /// becomes of this.
    pub(in crate::limits) fn state(&mut self, why: Why, rates: &[Rate], now: Now) -> Option<Request> {
        if why == Why::Asking && self.rates.iter().all(|hand| hand.first == 0) {
            return None;
        }
        let parts = rates.iter().zip(&mut self.rates).map(|(rate, hand)| hand.state(why, rate, now));
        Some(Request(parts.collect()))
    }

    /// The server has answered to that.
    pub(in crate::limits) fn hear(&mut self, answer: &Taken, now: Now) {
        for (hand, (taken, level)) in self.rates.iter_mut().zip(&answer.rates) {
            hand.held = hand.held.saturating_add(*taken);
            (hand.level, hand.level_at) = (*level, now.nanos);
        }
        self.no_room_until = if answer.fits { 0 } else { now.nanos.saturating_add(NO_ROOM_HOLDS) };
    }

    /// The server has not answered: what is owed is owed, and may count twice.
    pub(in crate::limits) fn unheard(&mut self, said: &Request) {
        for (hand, part) in self.rates.iter_mut().zip(&said.0) {
            hand.owed = hand.owed.saturating_add(u64::try_from(part.owed).unwrap_or_default());
        }
    }

    /// How far a rate is filled, in nanoseconds, as far as is known: what is in hand is not used.
    pub(in crate::limits) fn filled(&self, place: usize, rate: &Rate, now: Now) -> u64 {
        let hand = self.rates.get(place).copied().unwrap_or_default();
        hand.filled(rate, now).saturating_sub(rate.owed(hand.held))
    }

    /// How a rate stands, as far as is known.
    pub(in crate::limits) fn quota(&self, place: usize, rate: &Rate, now: Now) -> Quota {
        quota_filled(rate, self.filled(place, rate, now))
    }

    /// How many calls of a limit may be in progress at a replica that goes by itself: its part, for no call in progress
    /// lasts for ever; and what it holds, as long as that is kept for it.
    pub(in crate::limits) fn places_alone(&self, limit: u64, footing: Footing) -> u64 {
        let part = u64::try_from(footing.part(limit.into())).unwrap_or(limit).max(limit.min(1));
        let held = if footing.is_kept { self.places.held() } else { 0 };
        part.max(held)
    }

    /// How many calls may be in progress, as far as is known.
    pub(in crate::limits) fn calls(&self, limit: u64, in_flight: u64) -> Quota {
        let may = self.places.alone(of_places(limit), Footing::OWN).tokens.unwrap_or(limit);
        rate::calls(limit, limit.saturating_sub(may.saturating_sub(in_flight)))
    }

    /// In how long there is room for a call that lacks something, as far as is known.
    pub(in crate::limits) fn wait(&self, rates: &[Rate], demand: &Demand, now: Now) -> Duration {
        let waits = rates.iter().zip(&self.rates).map(|(rate, hand)| {
            let lacks = rate.units(rate.of(demand)).saturating_sub(hand.held);
            hand.filled(rate, now).saturating_add(rate.owed(lacks)).saturating_sub(rate.period_nanos())
        });
        let until_asked = self.no_room_until.saturating_sub(now.nanos);
        Duration::from_nanos(waits.max().unwrap_or_default().max(until_asked))
    }
}

impl InHand {
    /// Puts back so many, but no more than is still taken of a rate that was filled until then.
    fn put_back(&mut self, rate: &Rate, count: u64, filled_until: u64, now: Now) {
        let still_taken = rate.count_in(filled_until.saturating_sub(now.nanos));
        self.held = self.held.saturating_add(count.min(still_taken));
    }

    /// How long it takes until all of the rate is free, in nanoseconds, as far as is known.
    fn filled(&self, rate: &Rate, now: Now) -> u64 {
        rate.owed(self.level).saturating_sub(now.nanos.saturating_sub(self.level_at))
    }

    fn state(&mut self, why: Why, rate: &Rate, now: Now) -> Part {
        let spare = if self.is_in_use && why != Why::Leaving { rate.limit / SPARE } else { 0 };
        let back = if why == Why::Asking { 0 } else { self.held.saturating_sub(spare) };
        self.held -= back;
        let alone = rate.count_in(std::mem::take(&mut self.alone_until).saturating_sub(now.nanos));
        let owed = i128::from(std::mem::take(&mut self.owed)) + i128::from(alone);
        let owed = i64::try_from(owed - i128::from(back)).unwrap_or(i64::MAX);
        if why != Why::Asking {
            self.is_in_use = false;
            return Part { owed, first: 0, needs: 0, spare: spare.saturating_sub(self.held) };
        }
        let (first, needs) = (std::mem::take(&mut self.first), std::mem::take(&mut self.needs));
        let lacks = |wanted: u64| wanted.saturating_sub(self.held);
        Part { owed, first: lacks(first), needs: lacks(needs), spare }
    }
}

impl Request {
    /// As arguments of the script.
    pub(super) fn arguments<'a>(&'a self, rates: &'a [Rate]) -> impl Iterator<Item = String> + 'a {
        rates.iter().zip(&self.0).flat_map(|(rate, part)| {
            let name = format!("{}-{}", rate.unit.as_str(), rate.period.as_secs());
            let period = rate.period.as_nanos() / NANOS_PER_MICRO;
            let numbers = [part.first, part.needs, part.spare].map(|number| number.to_string());
            [name, rate.limit.to_string(), period.to_string(), part.owed.to_string()].into_iter().chain(numbers)
        })
    }
}

/// So many places, as an amount of what a lease is of.
pub(in crate::limits) const fn places(count: u64) -> Amount {
    Amount { usd: crate::units::PicoUsd::ZERO, tokens: count }
}

/// A limit of so many places.
pub(in crate::limits) const fn of_places(limit: u64) -> Allowance {
    Allowance { usd: None, tokens: Some(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::window::UnixTime;

    const SECOND: u64 = 1_000_000_000;
    const MINUTE: [Rate; 2] = [
        Rate { unit: Unit::Requests, limit: 600, period: Duration::from_secs(60) },
        Rate { unit: Unit::Tokens, limit: 60_000, period: Duration::from_secs(60) },
    ];

    const fn at(second: u64) -> Now {
        Now { nanos: (1000 + second) * SECOND, wall: UnixTime::EPOCH }
    }

    fn tokens(tokens: u64) -> Demand {
        Demand { tokens, ..Demand::default() }
    }

    fn parts(request: Option<Request>) -> Vec<(i64, u64, u64, u64)> {
        let parts = request.expect("something to say").0;
        parts.iter().map(|part| (part.owed, part.first, part.needs, part.spare)).collect()
    }

    #[test]
    fn calls_that_wait_are_asked_for_together_less_what_is_in_hand() {
        let mut hand = Hand::new(2);
        hand.hear(&Taken { fits: true, rates: vec![(2, 10), (500, 500)] }, at(0));
        for _ in 0..3 {
            hand.want(&MINUTE, &tokens(1000));
        }
        assert_eq!(hand.lacks(&MINUTE, &tokens(1000)), Some(1));
        assert_eq!(parts(hand.state(Why::Asking, &MINUTE, at(0))), [(0, 0, 1, 0), (0, 500, 2500, 0)]);
        assert_eq!(hand.state(Why::Asking, &MINUTE, at(0)), None, "once");
    }

    #[test]
    fn an_idle_hand_gives_back_and_a_busy_one_keeps_a_hundredth() {
        let mut hand = Hand::new(2);
        hand.hear(&Taken { fits: true, rates: vec![(20, 20), (5000, 5000)] }, at(0));
        hand.take(&MINUTE, &tokens(1000), at(0), &mut [0; 2]);
        assert_eq!(parts(hand.state(Why::Telling, &MINUTE, at(0))), [(-13, 0, 0, 0), (-3400, 0, 0, 0)], "6, and 600");
        assert_eq!(parts(hand.state(Why::Telling, &MINUTE, at(0))), [(-6, 0, 0, 0), (-600, 0, 0, 0)]);
        assert!(!hand.is_in_use(0));
    }

    #[test]
    fn what_was_used_beyond_what_was_taken_is_owed_until_it_is_told() {
        let mut hand = Hand::new(2);
        let mark = Mark::of_nothing(Scope::App);
        hand.settle(&MINUTE, (100, &mark), 350, at(0));
        let said = hand.state(Why::Telling, &MINUTE, at(0)).expect("something to say");
        assert_eq!((said.0[0].owed, said.0[1].owed), (0, 250));
        hand.unheard(&said);
        assert_eq!(parts(hand.state(Why::Telling, &MINUTE, at(0)))[1].0, 250);
    }

    #[test]
    fn what_has_come_free_meanwhile_is_not_given_back_once_more() {
        // A thousand tokens come back in a second.
        for (second, back) in [(0, 5000), (2, 3000), (5, 0), (60, 0)] {
            let mut hand = Hand::new(2);
            hand.hear(&Taken { fits: true, rates: vec![(1, 1), (5000, 5000)] }, at(0));
            let mut mark = Mark::of_nothing(Scope::App);
            hand.take(&MINUTE, &tokens(5000), at(0), &mut mark.filled_until);
            hand.settle(&MINUTE, (5000, &mark), 0, at(second));
            assert_eq!(hand.rates[1].held, back, "after {second} s");
        }
    }

    #[test]
    fn what_was_taken_without_asking_is_told_as_far_as_it_still_counts() {
        let (mut hand, mut mark) = (Hand::new(2), Mark::of_nothing(Scope::Instance));
        for _ in 0..100 {
            hand.take_alone(&MINUTE, &tokens(100), at(0), &mut mark.filled_until);
        }
        // A thousand tokens come back in a second; what was not used never counted.
        hand.settle(&MINUTE, (100, &mark), 0, at(0));
        assert_eq!(parts(hand.state(Why::Telling, &MINUTE, at(4))), [(60, 0, 0, 0), (9_900 - 4_000, 0, 0, 0)]);
        assert_eq!(parts(hand.state(Why::Telling, &MINUTE, at(4))), [(0, 0, 0, 0), (0, 0, 0, 0)]);
    }

    #[test]
    fn the_wait_that_is_told_goes_by_what_the_server_said() {
        let mut hand = Hand::new(2);
        hand.hear(&Taken { fits: false, rates: vec![(0, 600), (0, 0)] }, at(0));
        assert!(hand.has_no_room(at(0).nanos) && !hand.has_no_room(at(1).nanos));
        assert_eq!(hand.wait(&MINUTE, &tokens(0), at(0)), Duration::from_millis(100), "ten a second come back");
        let quota = hand.quota(0, &MINUTE[0], at(6));
        assert_eq!((quota.remaining, quota.reset), (60, Some(Duration::from_secs(54))));
    }
}
