//! Rate: how many requests, how many tokens, and how many calls at once.
//!
//! The generic cell rate algorithm, with the whole limit as its burst: after a pause the whole limit is free at once, and
//! comes back evenly. There is no minute at whose turn everything is free again, and one number is all that is kept of a
//! subject. Goes by a clock that never goes back. Knows nothing of money.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::limits::matching::{Matching, Per};
use crate::limits::shared::hand::{Hand, places};
use crate::limits::shared::{Footing, Link};
use crate::limits::slots::{Idle, Slot, Slots};
use crate::limits::standing::Scope;
use crate::limits::{Demand, Now, Stage};
use crate::units::Span;

/// What the operator writes of one limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Settings {
    /// What it is called: in metrics, in refusals and in the log.
    pub name: String,
    /// Which calls it is for; without this, all of them.
    #[serde(rename = "match")]
    pub matching: Matching,
    /// Whom it holds apart: one or more of `provider`, `model`, `namespace`, `workspace`, `user`, `agent`,
    /// `credential`. Each has the whole limit. Without this, all share it.
    pub per: Per,
    /// Most requests a second.
    pub requests_per_second: Option<u64>,
    /// Most requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Most requests an hour.
    pub requests_per_hour: Option<u64>,
    /// Most requests a day.
    pub requests_per_day: Option<u64>,
    /// Most tokens a second, input and output together.
    pub tokens_per_second: Option<u64>,
    /// Most tokens a minute, input and output together.
    pub tokens_per_minute: Option<u64>,
    /// Most tokens an hour, input and output together.
    pub tokens_per_hour: Option<u64>,
    /// Most tokens a day, input and output together.
    pub tokens_per_day: Option<u64>,
    /// Most calls in progress at once, streams until their end.
    pub concurrent_calls: Option<u64>,
    /// How long a call may wait for its turn before it is refused. Zero: it is refused at once.
    pub wait: Span,
    /// Whether calls that are answered from the cache, or by an equal call in flight, count as well. For requests and
    /// calls in progress only: such an answer takes no tokens.
    pub count_hits: bool,
    /// Whether all replicas share it, once `cache.redis` is set. Without, each has the whole of it.
    pub shared: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            matching: Matching::default(),
            per: Per::default(),
            requests_per_second: None,
            requests_per_minute: None,
            requests_per_hour: None,
            requests_per_day: None,
            tokens_per_second: None,
            tokens_per_minute: None,
            tokens_per_hour: None,
            tokens_per_day: None,
            concurrent_calls: None,
            wait: Span::from_secs(0),
            count_hits: false,
            shared: true,
        }
    }
}

impl Settings {
    /// A limit as it may be written.
    #[must_use]
    pub fn example() -> Self {
        Self {
            name: "agents".to_owned(),
            per: "agent".parse().unwrap_or_default(),
            requests_per_minute: Some(100),
            tokens_per_minute: Some(200_000),
            ..Self::default()
        }
    }

    /// Whether it limits anything.
    #[must_use]
    pub fn limits_anything(&self) -> bool {
        self.concurrent_calls.is_some() || !self.rates().is_empty()
    }

    /// Whether it limits tokens.
    #[must_use]
    pub fn limits_tokens(&self) -> bool {
        self.rates().iter().any(|rate| rate.unit == Unit::Tokens)
    }

    /// The rates it sets, the shortest period first.
    #[must_use]
    pub fn rates(&self) -> Box<[Rate]> {
        const HOUR: u64 = 3600;
        [
            (Unit::Requests, self.requests_per_second, 1),
            (Unit::Tokens, self.tokens_per_second, 1),
            (Unit::Requests, self.requests_per_minute, 60),
            (Unit::Tokens, self.tokens_per_minute, 60),
            (Unit::Requests, self.requests_per_hour, HOUR),
            (Unit::Tokens, self.tokens_per_hour, HOUR),
            (Unit::Requests, self.requests_per_day, 24 * HOUR),
            (Unit::Tokens, self.tokens_per_day, 24 * HOUR),
        ]
        .into_iter()
        .filter_map(|(unit, limit, seconds)| {
            Some(Rate { unit, limit: limit?.max(1), period: Duration::from_secs(seconds) })
        })
        .collect()
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Calls.
    Requests,
    /// Tokens, in and out.
    Tokens,
    /// Calls in progress.
    Calls,
}

impl Unit {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Calls => "concurrent calls",
        }
    }
}

/// So many in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Of what.
    pub unit: Unit,
    /// How many.
    pub limit: u64,
    /// In how long.
    pub period: Duration,
}

/// `100 requests in 1m`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.limit, self.unit.as_str(), humantime::format_duration(self.period))
    }
}

impl Rate {
    /// How long it takes until so many are free again, in nanoseconds; no longer than the period, so that what is larger
    /// than the whole limit has its turn once all of it is free.
    pub(super) fn weight(&self, count: u64) -> u64 {
        self.owed(count).min(self.period_nanos())
    }

    /// The same for what was used: all of it counts.
    pub(super) fn owed(&self, count: u64) -> u64 {
        // Few products are too large for a division that takes a tenth of the time.
        if let Some(nanos) = count.checked_mul(self.period_nanos()) {
            return nanos.div_ceil(self.limit);
        }
        let nanos = (u128::from(count) * self.period.as_nanos()).div_ceil(u128::from(self.limit));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Until when it is filled, of which a call that was the last up to `mark` has taken so many, and used others.
    pub(super) fn settled(&self, until: u64, (taken, mark): (u64, u64), used: u64, now: Now) -> u64 {
        let (taken, owed) = (self.weight(taken), self.owed(used));
        // What was not expected counts from now on.
        match owed.checked_sub(taken) {
            Some(more) => until.max(now.nanos).saturating_add(more),
            None => given_back(until, taken - owed, mark, now),
        }
    }

    /// How many come free in so many nanoseconds, rounded up.
    pub(super) fn count_in(&self, nanos: u64) -> u64 {
        let count = (u128::from(nanos) * u128::from(self.limit)).div_ceil(self.period.as_nanos());
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// So many, but no more than the whole limit.
    pub(super) const fn units(&self, count: u64) -> u64 {
        if count < self.limit { count } else { self.limit }
    }

    /// The part of each, where so many share it.
    fn shared_by(&self, replicas: u64) -> Self {
        Self { limit: (self.limit / replicas.max(1)).max(1), ..*self }
    }

    pub(super) fn period_nanos(&self) -> u64 {
        u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) const fn of(&self, demand: &Demand) -> u64 {
        match self.unit {
            Unit::Tokens => demand.tokens,
            Unit::Requests | Unit::Calls => 1,
        }
    }
}

/// Until when a rate is filled of which so much is given back by a call that was the last up to `mark`. What has come
/// free meanwhile is not given back once more.
pub(super) fn given_back(until: u64, weight: u64, mark: u64, now: Now) -> u64 {
    until.saturating_sub(weight.min(mark.saturating_sub(now.nanos)))
}

/// How much of a limit is left to a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of what.
    pub unit: Unit,
    /// The limit.
    pub limit: u64,
    /// In how long; `None` for calls in progress.
    pub period: Option<Duration>,
    /// How many are free now.
    pub remaining: u64,
    /// In how long all of it is free again, if nothing comes; `None` where nobody can tell.
    pub reset: Option<Duration>,
}

/// What is kept of one subject.
#[derive(Debug, Default)]
pub(super) struct State {
    /// For each rate, until when what was taken fills it, in nanoseconds of [`Now`]. Empty before the first call.
    full_until: Box<[u64]>,
    pub(super) in_flight: u64,
    /// What this replica has in hand of it, where it is shared.
    pub(super) hand: Option<Box<Hand>>,
    /// Whether there is something to tell the other replicas.
    pub(super) is_listed: bool,
}

impl Idle for State {
    fn is_idle(&self, now: Now) -> bool {
        self.in_flight == 0 && self.full_until.iter().all(|until| *until <= now.nanos)
    }
}

impl State {
    /// How long it takes until all of each rate is free, in nanoseconds.
    pub(super) fn ahead(&self, now: Now) -> Vec<u64> {
        self.full_until.iter().map(|until| until.saturating_sub(now.nanos)).collect()
    }
}

/// One limit, and what is kept of its subjects.
#[derive(Debug)]
pub struct RateLimit {
    /// Its name.
    pub name: Arc<str>,
    /// Which calls it is for.
    pub matching: Matching,
    /// Whom it holds apart.
    pub per: Per,
    /// How long a call may wait for its turn.
    pub wait: Duration,
    /// Whether calls that are answered without asking a provider count as well.
    pub count_hits: bool,
    pub(super) rates: Box<[Rate]>,
    pub(super) concurrent: Option<u64>,
    pub(super) slots: Arc<Slots<State>>,
    /// Rung when a call ends.
    pub(super) released: Arc<Notify>,
    pub(super) may_share: bool,
    /// How it stands with other replicas, where it is shared.
    pub(super) link: OnceLock<Arc<Link>>,
    /// The subjects that there is something to tell of.
    pub(super) listed: Mutex<Vec<Arc<Slot<State>>>>,
    allowed: Arc<AtomicU64>,
    delayed: Arc<AtomicU64>,
    rejected: Arc<AtomicU64>,
    settings: Settings,
}

/// What a limit said to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may go at once.
    Allowed,
    /// It had to wait, and may go.
    Delayed,
    /// It may not go.
    Rejected,
}

impl Decision {
    /// Every decision there is.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Delayed, Self::Rejected];

    /// The value of the label `decision`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Delayed => "delayed",
            Self::Rejected => "rejected",
        }
    }
}

/// Why a limit has no room for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which of the limit's rates has none, and how it stands.
    pub quota: Quota,
    /// In how long there is; `None` where nobody can tell: when a call ends.
    pub wait: Option<Duration>,
    /// Whether other replicas may have room: they were not asked.
    pub may_ask: bool,
}

/// The most rates of one limit: requests and tokens in each of four periods.
const MOST_RATES: usize = 8;

/// What a call has taken, as it stood then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Of whose: what all replicas share, or what this one has by itself.
    pub(super) scope: Scope,
    /// Until when each rate was filled, with this call the last.
    pub(super) filled_until: [u64; MOST_RATES],
}

impl Mark {
    /// What a part of a call has taken: nothing.
    pub(super) const fn of_nothing(scope: Scope) -> Self {
        Self { scope, filled_until: [0; MOST_RATES] }
    }
}

/// What a call has taken of a limit.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) limit: Arc<RateLimit>,
    pub(super) slot: Arc<Slot<State>>,
    /// The tokens it was expected to use.
    pub(super) tokens: u64,
    /// Whether it is a call of its own, not a part of one.
    pub(super) is_call: bool,
    /// How the limit stood once it was taken.
    pub(super) mark: Mark,
}

impl RateLimit {
    /// The limit that `settings` describe.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            name: settings.name.as_str().into(),
            matching: settings.matching.clone(),
            per: settings.per.clone(),
            wait: settings.wait.get(),
            count_hits: settings.count_hits,
            rates: settings.rates(),
            concurrent: settings.concurrent_calls,
            slots: Arc::new(Slots::new()),
            released: Arc::default(),
            may_share: settings.shared,
            link: OnceLock::new(),
            listed: Mutex::default(),
            allowed: Arc::default(),
            delayed: Arc::default(),
            rejected: Arc::default(),
            settings: settings.clone(),
        }
    }

    /// The limit that `settings` describe, in place of this one. If it counts the same in the same periods, what is taken
    /// stays taken: as large a part of the new limit. What replicas share is known to the store.
    pub(super) fn succeeded_by(self: &Arc<Self>, settings: &Settings) -> Arc<Self> {
        if self.settings == *settings {
            return Arc::clone(self);
        }
        let [allowed, delayed, rejected] = [&self.allowed, &self.delayed, &self.rejected].map(Arc::clone);
        let next = Self { allowed, delayed, rejected, ..Self::new(settings) };
        let counts = |limit: &Self| limit.rates.iter().map(|rate| (rate.unit, rate.period)).collect::<Vec<_>>();
        let counts_the_same = next.per == self.per && counts(&next) == counts(self) && self.link.get().is_none();
        if !counts_the_same {
            return Arc::new(next);
        }
        Arc::new(Self { slots: Arc::clone(&self.slots), released: Arc::clone(&self.released), ..next })
    }

    /// Takes what a call demands, all of it or nothing.
    pub(super) fn take(&self, slot: &Arc<Slot<State>>, demand: &Demand, now: Now) -> Result<Mark, Full> {
        let footing = self.footing(now);
        let mut state = slot.lock();
        let state = &mut *state;
        self.begin(state);
        if let Some(full) = self.lacks(state, demand, footing, now) {
            return Err(full);
        }
        let mut mark = Mark::of_nothing(footing.scope);
        for ((rate, until), mark) in self.rates.iter().zip(&mut state.full_until).zip(&mut mark.filled_until) {
            let rate = rate.shared_by(footing.replicas);
            // What is shared may be more than this replica's part: of that, no more than all of it is taken.
            let full = now.nanos.saturating_add(rate.period_nanos());
            *until = (*until).max(now.nanos).saturating_add(rate.weight(rate.of(demand))).min(full.max(*until));
            *mark = *until;
        }
        state.in_flight += 1;
        if let Some(hand) = &mut state.hand {
            match footing.scope {
                Scope::App => hand.take(&self.rates, demand, now, &mut mark.filled_until),
                Scope::Instance => hand.take_alone(&self.rates, demand, now, &mut mark.filled_until),
            }
            hand.places.take(places(1));
        }
        self.list(slot, state);
        self.slots.changed();
        Ok(mark)
    }

    /// Makes room for what is kept, if nothing was taken yet.
    fn begin(&self, state: &mut State) {
        if state.full_until.is_empty() {
            state.full_until = vec![0; self.rates.len()].into();
        }
        if self.link.get().is_some() {
            state.hand.get_or_insert_with(|| Box::new(Hand::new(self.rates.len())));
        }
    }

    /// What of this has no room, if something has none: what takes longest to come free.
    fn lacks(&self, state: &State, demand: &Demand, footing: Footing, now: Now) -> Option<Full> {
        if let (Some(hand), Scope::App) = (&state.hand, footing.scope) {
            return self.lacks_in_hand(hand, state.in_flight, demand, now);
        }
        let rates = self.rates.iter().zip(&state.full_until).filter_map(|(rate, until)| {
            let rate = rate.shared_by(footing.replicas);
            let filled_until = until.saturating_add(rate.weight(rate.of(demand)));
            let late = filled_until.saturating_sub(now.nanos.saturating_add(rate.period_nanos()));
            if late == 0 {
                return None;
            }
            let wait = Some(Duration::from_nanos(late));
            Some(Full { quota: quota(&rate, *until, now), wait, may_ask: false })
        });
        let rates = rates.max_by_key(|full| full.wait);
        let places = |limit| state.hand.as_ref().map_or(limit, |hand| hand.places_alone(limit, footing));
        let limit = self.concurrent.map(places).filter(|limit| state.in_flight >= *limit);
        let calls = limit.map(|limit| Full { quota: calls(limit, state.in_flight), wait: None, may_ask: false });
        rates.or(calls)
    }

    /// Gives back what a call has taken that did not go.
    pub(super) fn give_back(&self, taken: &Taken, now: Now) {
        let demand = Demand { tokens: taken.tokens, ..Demand::default() };
        let replicas = self.footing(now).replicas;
        let mut state = taken.slot.lock();
        let state = &mut *state;
        if taken.is_call {
            let marks = taken.mark.filled_until;
            for ((rate, until), mark) in self.rates.iter().zip(&mut state.full_until).zip(marks) {
                let rate = rate.shared_by(replicas);
                *until = given_back(*until, rate.weight(rate.of(&demand)), mark, now);
            }
            if let Some(hand) = &mut state.hand {
                hand.give_back(&self.rates, &demand, &taken.mark, now);
            }
            self.release(state);
        }
        self.slots.changed();
    }

    /// A call is over that has taken this, and used so many tokens.
    pub(super) fn settle(&self, taken: &Taken, used: u64, now: Now) {
        let replicas = self.footing(now).replicas;
        let mut state = taken.slot.lock();
        let state = &mut *state;
        self.begin(state);
        for ((rate, until), mark) in self.rates.iter().zip(&mut state.full_until).zip(taken.mark.filled_until) {
            if rate.unit == Unit::Tokens {
                *until = rate.shared_by(replicas).settled(*until, (taken.tokens, mark), used, now);
            }
        }
        if let Some(hand) = &mut state.hand {
            hand.settle(&self.rates, (taken.tokens, &taken.mark), used, now);
        }
        self.list(&taken.slot, state);
        if taken.is_call {
            self.release(state);
        }
        self.slots.changed();
    }

    /// Goes on where `subject` was before a restart.
    pub(super) fn restore(&self, subject: &str, ahead: impl Iterator<Item = u64>, now: Now) {
        let slot = self.slots.of(subject, now);
        let mut state = slot.lock();
        self.begin(&mut state);
        for (until, ahead) in state.full_until.iter_mut().zip(ahead) {
            *until = (*until).max(now.nanos.saturating_add(ahead));
        }
    }

    fn release(&self, state: &mut State) {
        state.in_flight = state.in_flight.saturating_sub(1);
        if self.concurrent.is_some() {
            self.released.notify_one();
        }
    }

    /// At which stage of a call it is asked.
    pub(super) const fn stage(&self) -> Stage {
        if self.count_hits { Stage::Arrival } else { Stage::Asking }
    }

    /// Counts what was said to a call.
    pub(super) fn decided(&self, decision: Decision) {
        let counter = match decision {
            Decision::Allowed => &self.allowed,
            Decision::Delayed => &self.delayed,
            Decision::Rejected => &self.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How often each decision was made since the start.
    pub(super) fn decisions(&self) -> [(Decision, u64); 3] {
        let counters = [&self.allowed, &self.delayed, &self.rejected];
        std::array::from_fn(|place| (Decision::ALL[place], counters[place].load(Ordering::Relaxed)))
    }

    /// How each of its rates stands for a subject.
    pub(super) fn quotas(&self, state: &State, now: Now) -> Vec<Quota> {
        let until = |place: usize| state.full_until.get(place).copied().unwrap_or_default();
        let footing = self.footing(now);
        let in_hand = state.hand.as_ref().filter(|_| footing.scope == Scope::App);
        let rates = self.rates.iter().enumerate().map(|(place, rate)| match in_hand {
            Some(hand) => hand.quota(place, rate, now),
            None => quota(&rate.shared_by(footing.replicas), until(place), now),
        });
        let in_progress = self.concurrent.map(|limit| calls_of(limit, state, footing));
        rates.chain(in_progress).collect()
    }

    /// The used share, for a subject, of whichever of its rates is used most: 1 if that is full. Told without allocating.
    #[expect(clippy::cast_precision_loss, reason = "compared, never added up")]
    pub(super) fn used(&self, state: &State, now: Now) -> f64 {
        let footing = self.footing(now);
        let in_hand = state.hand.as_ref().filter(|_| footing.scope == Scope::App);
        let rates = self.rates.iter().zip(&state.full_until).enumerate().map(|(place, (rate, until))| {
            let filled = in_hand.map_or(until.saturating_sub(now.nanos), |hand| hand.filled(place, rate, now));
            filled.min(rate.period_nanos()) as f64 / rate.period_nanos() as f64
        });
        let calls = self.concurrent.map(|limit| {
            let left = calls_of(limit, state, footing).remaining;
            (limit.max(left) - left) as f64 / limit.max(1) as f64
        });
        rates.chain(calls).fold(0.0, f64::max)
    }

    /// Whether it takes an estimate of a call's tokens to tell whether the call may go.
    pub(super) fn counts_tokens(&self) -> bool {
        self.rates.iter().any(|rate| rate.unit == Unit::Tokens)
    }
}

/// How a rate stands that is filled until then.
fn quota(rate: &Rate, until: u64, now: Now) -> Quota {
    quota_filled(rate, until.saturating_sub(now.nanos))
}

/// How a rate stands of which so many nanoseconds' worth are filled.
pub(in crate::limits) fn quota_filled(rate: &Rate, filled: u64) -> Quota {
    let free = u128::from(rate.period_nanos().saturating_sub(filled));
    let remaining = free * u128::from(rate.limit) / rate.period.as_nanos();
    Quota {
        unit: rate.unit,
        limit: rate.limit,
        period: Some(rate.period),
        remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
        reset: Some(Duration::from_nanos(filled)),
    }
}

/// How many calls of a subject may be in progress.
fn calls_of(limit: u64, state: &State, footing: Footing) -> Quota {
    match &state.hand {
        Some(hand) if footing.scope == Scope::App => hand.calls(limit, state.in_flight),
        Some(hand) => calls(hand.places_alone(limit, footing), state.in_flight),
        None => calls(limit, state.in_flight),
    }
}

pub(super) const fn calls(limit: u64, in_flight: u64) -> Quota {
    Quota { unit: Unit::Calls, limit, period: None, remaining: limit.saturating_sub(in_flight), reset: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::window::UnixTime;

    const SECOND: u64 = 1_000_000_000;

    fn limit(settings: &Settings) -> (Arc<RateLimit>, Arc<Slot<State>>) {
        let limit = Arc::new(RateLimit::new(settings));
        let slot = limit.slots.of("", at(0));
        (limit, slot)
    }

    fn taken(limit: &Arc<RateLimit>, slot: &Arc<Slot<State>>, tokens: u64) -> Taken {
        let mark = Mark { scope: Scope::Instance, filled_until: [u64::MAX; MOST_RATES] };
        Taken { limit: Arc::clone(limit), slot: Arc::clone(slot), tokens, is_call: true, mark }
    }

    const fn at(nanos: u64) -> Now {
        Now { nanos: 1000 * SECOND + nanos, wall: UnixTime::EPOCH }
    }

    fn requests(per_minute: u64) -> (Arc<RateLimit>, Arc<Slot<State>>) {
        limit(&Settings { requests_per_minute: Some(per_minute), ..Settings::default() })
    }

    fn tokens(tokens: u64) -> Demand {
        Demand { tokens, ..Demand::default() }
    }

    #[test]
    fn a_limit_is_free_at_once_and_comes_back_evenly() {
        let (limit, slot) = requests(60);
        let admitted = |now| (0..100).take_while(|_| limit.take(&slot, &tokens(0), at(now)).is_ok()).count();
        assert_eq!(admitted(0), 60, "the whole limit");
        assert_eq!(admitted(SECOND - 1), 0, "a moment too early");
        assert_eq!(admitted(SECOND), 1);
        assert_eq!(admitted(30 * SECOND), 29, "no minute has to turn");
        assert_eq!(admitted(600 * SECOND), 60, "no more than the limit, however long the pause");
    }

    #[test]
    fn the_wait_that_is_told_is_exact() {
        let (limit, slot) = requests(7);
        let mut now = 0;
        for _ in 0..50 {
            match limit.take(&slot, &tokens(0), at(now)) {
                Ok(_) => {}
                Err(Full { wait, .. }) => {
                    let wait = u64::try_from(wait.expect("a rate knows").as_nanos()).expect("short");
                    assert!(limit.take(&slot, &tokens(0), at(now + wait - 1)).is_err(), "a nanosecond too early");
                    now += wait;
                    limit.take(&slot, &tokens(0), at(now)).expect("in time");
                }
            }
        }
    }

    #[test]
    fn tokens_are_taken_as_expected_and_settled_as_used() {
        let (limit, slot) = limit(&Settings { tokens_per_minute: Some(1000), ..Settings::default() });
        let left = |now| limit.quotas(&slot.lock(), at(now))[0].remaining;
        limit.take(&slot, &tokens(600), at(0)).expect("room");
        assert_eq!(left(0), 400);
        assert!(limit.take(&slot, &tokens(600), at(0)).is_err());
        limit.settle(&taken(&limit, &slot, 600), 100, at(0));
        assert_eq!(left(0), 900, "what was not used is free again");
        limit.take(&slot, &tokens(600), at(0)).expect("room");
        limit.settle(&taken(&limit, &slot, 600), 1500, at(0));
        assert_eq!(left(0), 0, "what was used beyond the limit is paid back");
        assert!(limit.take(&slot, &tokens(1), at(35 * SECOND)).is_err());
        limit.take(&slot, &tokens(1), at(37 * SECOND)).expect("paid back: 600 tokens beyond the limit");
    }

    #[test]
    fn what_has_come_free_meanwhile_is_not_given_back_once_more() {
        let settings = Settings { tokens_per_minute: Some(100), ..Settings::default() };
        for ends in
            [RateLimit::give_back as fn(&RateLimit, &Taken, Now), |limit, taken, now| limit.settle(taken, 0, now)]
        {
            let (limit, slot) = limit(&settings);
            let mark = limit.take(&slot, &tokens(100), at(0)).expect("room");
            let late = Taken { mark, ..taken(&limit, &slot, 100) };
            let half = 30 * SECOND;
            limit.take(&slot, &tokens(50), at(half)).expect("half of it is free again");
            ends(&limit, &late, at(half));
            assert_eq!(limit.quotas(&slot.lock(), at(half))[0].remaining, 50, "as if the first call had never been");
        }
    }

    #[test]
    fn a_call_larger_than_the_limit_has_its_turn_once_all_is_free() {
        let (limit, slot) = limit(&Settings { tokens_per_minute: Some(1000), ..Settings::default() });
        limit.take(&slot, &tokens(5000), at(0)).expect("nothing is taken");
        let full = limit.take(&slot, &tokens(5000), at(0)).expect_err("all is taken");
        assert_eq!(full.wait, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_did_not_go_is_given_back() {
        let settings = Settings {
            requests_per_minute: Some(1),
            tokens_per_minute: Some(10),
            concurrent_calls: Some(1),
            ..Settings::default()
        };
        let (limit, slot) = limit(&settings);
        for _ in 0..5 {
            limit.take(&slot, &tokens(10), at(0)).expect("room");
            assert!(limit.take(&slot, &tokens(10), at(0)).is_err());
            limit.give_back(&taken(&limit, &slot, 10), at(0));
        }
        assert!(slot.lock().is_idle(at(0)));
    }

    #[test]
    fn calls_at_once_are_counted_until_they_end() {
        let (limit, slot) = limit(&Settings { concurrent_calls: Some(2), ..Settings::default() });
        limit.take(&slot, &tokens(0), at(0)).expect("room");
        limit.take(&slot, &tokens(0), at(0)).expect("room");
        let full = limit.take(&slot, &tokens(0), at(0)).expect_err("two are under way");
        assert_eq!((full.quota.unit, full.quota.limit, full.wait), (Unit::Calls, 2, None));
        limit.settle(&taken(&limit, &slot, 0), 0, at(0));
        limit.take(&slot, &tokens(0), at(0)).expect("room");
    }

    #[test]
    fn in_no_stretch_of_time_does_more_pass_than_the_limit_and_what_came_back() {
        // The burst is the limit, and as much again comes back in a period: in a stretch of time, so much can pass.
        let (limit, slot) = requests(10);
        let mut passed: Vec<u64> = Vec::new();
        let mut seed = 7_u64;
        let mut now = 0;
        for _ in 0..5_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += (seed >> 33) % (2 * SECOND);
            if limit.take(&slot, &tokens(0), at(now)).is_ok() {
                passed.push(now);
            }
        }
        for (place, from) in passed.iter().enumerate() {
            for (count, until) in (1_u64..).zip(&passed[place..]) {
                assert!(count <= 10 + (until - from) / (6 * SECOND), "{count} in {} ns", until - from);
            }
        }
        assert!(passed.len() as u64 >= now / (6 * SECOND), "and no less than comes back");
    }
}
