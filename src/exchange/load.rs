//! Load: how much goes on at once, and that no more does than weir can bear. More calls than the operator wants are turned
//! away; bodies that do not fit beside those of other calls are not read.
//!
//! Everything held is given back when it is dropped, whatever ends the call. Knows no call, and chooses no status.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::allowance::Allowance;
use crate::exchange::Settings;
use crate::seldom::Seldom;

/// What goes on at once, for the whole process.
#[derive(Debug)]
pub struct Load {
    calls: Arc<AtomicUsize>,
    most_calls: AtomicUsize,
    /// Request bodies, as far as they are kept.
    pub requests: Allowance,
    /// What is kept of answers, to be read or stored.
    pub replies: Allowance,
    shed: [AtomicU64; Shed::ALL.len()],
    told: Seldom,
}

/// Why a call is turned away that weir could otherwise have sent: the label `reason` of `weir_shed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// As many calls are in progress as there may be.
    Concurrency,
    /// Its body has to be whole, and does not fit beside those of other calls.
    Memory,
}

impl Shed {
    /// Every reason there is, for creating series at zero.
    pub const ALL: [Self; 2] = [Self::Concurrency, Self::Memory];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Memory => "memory",
        }
    }
}

/// What happened, and what mends it.
impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Concurrency => {
                "weir has as many calls in progress as it may (`calls.max_in_flight`): try again when one has ended"
            }
            Self::Memory => {
                "weir has no room for this request's body, which has to be signed as a whole \
                 (`calls.max_request_bytes_in_all`): try again when other calls have ended"
            }
        })
    }
}

impl Load {
    /// Nothing yet, within the bounds of `settings`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            calls: Arc::default(),
            most_calls: AtomicUsize::new(settings.max_in_flight.unwrap_or(usize::MAX)),
            requests: Allowance::of(settings.max_request_bytes_in_all.bytes()),
            replies: Allowance::of(settings.max_reply_bytes_in_all.bytes()),
            shed: Default::default(),
            told: Seldom::default(),
        }
    }

    /// From now on the bounds of `settings` hold, for calls that began before as well: there is one memory.
    pub fn bound(&self, settings: &Settings) {
        self.most_calls.store(settings.max_in_flight.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.requests.bound(settings.max_request_bytes_in_all.bytes());
        self.replies.bound(settings.max_reply_bytes_in_all.bytes());
    }

    /// Calls of apps in progress.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many calls were turned away, by why.
    pub fn shed(&self) -> impl Iterator<Item = (Shed, u64)> {
        Shed::ALL.into_iter().map(|why| (why, self.shed[why as usize].load(Ordering::Relaxed)))
    }

    /// A place for one more call, if there may be one.
    pub(super) fn enter(&self) -> Option<Place> {
        let most = self.most_calls.load(Ordering::Relaxed);
        let one_more = |calls: usize| (calls < most).then_some(calls + 1);
        self.calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(Arc::clone(&self.calls)))
    }

    /// A call is turned away.
    pub(super) fn turn_away(&self, why: Shed) {
        self.shed[why as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(times) = self.told.now() {
            tracing::warn!(weir.shed.reason = why.as_str(), weir.times = times, "calls are turned away: {why}");
        }
    }
}

/// `bytes`, if there is room for them within `allowance`.
pub(super) fn on_account(allowance: &Allowance, bytes: Vec<u8>) -> Option<Bytes> {
    let mut share = allowance.share();
    share.grow_to(bytes.len()).then(|| share.keep(bytes.into()))
}

/// A call in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(most: Option<usize>) -> Load {
        Load::new(&Settings { max_in_flight: most, ..Settings::default() })
    }

    #[test]
    fn no_more_calls_enter_than_may_and_each_place_is_given_back_once() {
        let load = load(Some(2));
        let places = [load.enter(), load.enter()];
        assert!(places.iter().all(Option::is_some));
        assert!(load.enter().is_none());
        assert_eq!(load.calls(), 2, "who did not enter holds no place");
        drop(places);
        assert_eq!(load.calls(), 0);
        assert!(load.enter().is_some());
    }

    #[test]
    fn without_a_bound_calls_are_counted_all_the_same() {
        let load = load(None);
        let places: Vec<_> = (0..100).map(|_| load.enter()).collect();
        assert_eq!((places.iter().flatten().count(), load.calls()), (100, 100));
        load.bound(&Settings { max_in_flight: Some(100), ..Settings::default() });
        assert!(load.enter().is_none(), "those that came before another configuration count");
        drop(places);
        assert_eq!(load.calls(), 0);
    }
}
