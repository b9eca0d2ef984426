//! Memory: stored responses in this process, bounded in number and in bytes. The only file that knows moka.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use moka::Expiry;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::policy;
use moka::sync::Cache;

use crate::cache::key::Key;
use crate::cache::{EvictionPolicy, Settings, Stored};

/// Why a stored response was given up: the label `reason` of `weir_cache_evictions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Eviction {
    /// Room was needed.
    Size,
    /// It was too old.
    Ttl,
    /// It was invalidated.
    Invalidated,
}

/// Told of each response given up.
pub type OnEvicted = Box<dyn Fn(Eviction) + Send + Sync>;

/// Stored responses.
#[derive(Debug)]
pub(super) struct Memory {
    places: Cache<Key, Arc<Place>, RandomState>,
    capacity: u64,
    /// The least that a response counts as.
    least: u64,
    /// The weight of all that is held, also of what moka has not counted yet.
    held: Arc<AtomicU64>,
}

/// A response's place in moka.
///
/// moka frees a place once no thread can be looking at it any more, which on a busy machine is thousands of places
/// later. The response is taken out as soon as its place is given up.
#[derive(Debug)]
pub(super) struct Place {
    stored: Mutex<Option<Arc<Stored>>>,
    weight: u32,
    keep_for: Duration,
}

impl Place {
    fn stored(&self) -> Option<Arc<Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self) -> Option<Arc<Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The part of its capacity that the store may be over before whoever stores a response makes moka look after it: moka
/// does so by itself only after 64 responses, of any size, or 300 ms.
const SLACK: u64 = 64;

/// How full a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Responses held.
    pub entries: u64,
    /// Bytes they take, as far as they are counted.
    pub bytes: u64,
    /// Bytes they may take.
    pub capacity_bytes: u64,
}

impl Memory {
    /// Room for `max_entries` responses and `max_bytes` bytes, whichever is reached first, each kept for as long as it
    /// is worth it.
    ///
    /// moka bounds one weight. With a weight of at least `max_bytes / max_entries` each, neither bound can be passed.
    pub(super) fn new(settings: &Settings, on_evicted: OnEvicted) -> Self {
        let capacity = settings.max_bytes.bytes();
        let least = capacity.div_ceil(settings.max_entries.max(1));
        let held = Arc::<AtomicU64>::default();
        let given_up = Arc::clone(&held);
        let places = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, place: &Arc<Place>| place.weight)
            .eviction_policy(match settings.eviction {
                EvictionPolicy::TinyLfu => policy::EvictionPolicy::tiny_lfu(),
                EvictionPolicy::Lru => policy::EvictionPolicy::lru(),
            })
            .expire_after(AsLongAsWorthIt)
            .eviction_listener(move |_, place, cause| {
                if place.take().is_some() {
                    given_up.fetch_sub(place.weight.into(), Ordering::Relaxed);
                }
                match cause {
                    RemovalCause::Size => on_evicted(Eviction::Size),
                    RemovalCause::Expired => on_evicted(Eviction::Ttl),
                    RemovalCause::Explicit => on_evicted(Eviction::Invalidated),
                    RemovalCause::Replaced => {}
                }
            })
            .build_with_hasher(RandomState::default());
        Self { places, capacity, least, held }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.places.get(key)?.stored()
    }

    pub(super) fn put(&self, key: Key, stored: Arc<Stored>) {
        let weight = u32::try_from(stored.size().max(self.least)).unwrap_or(u32::MAX);
        let held = self.held.fetch_add(weight.into(), Ordering::Relaxed) + u64::from(weight);
        let keep_for = stored.keep_for;
        self.places.insert(key, Arc::new(Place { stored: Mutex::new(Some(stored)), weight, keep_for }));
        if held > self.capacity + self.capacity / SLACK {
            self.places.run_pending_tasks();
        }
    }

    /// Gives up the responses that `is_dead`, and tells how many they were.
    pub(super) fn give_up(&self, is_dead: impl Fn(&Key, &Stored) -> bool) -> u64 {
        let is_dead = |key: &Key, place: &Place| place.stored().is_some_and(|stored| is_dead(key, &stored));
        let dead: Vec<Key> =
            self.places.iter().filter(|(key, place)| is_dead(key, place)).map(|(key, _)| *key).collect();
        // By now another may stand in its place.
        let is_given_up = |key: &Key| {
            let result = self.places.entry(*key).and_compute_with(|entry| match entry {
                Some(entry) if is_dead(key, entry.value()) => Op::Remove,
                _ => Op::Nop,
            });
            matches!(result, CompResult::Removed(_))
        };
        dead.iter().filter(|key| is_given_up(key)).count() as u64
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        self.places.run_pending_tasks();
        let bytes = self.places.iter().filter_map(|(_, place)| Some(place.stored()?.size())).sum();
        Occupancy { entries: self.places.entry_count(), bytes, capacity_bytes: self.capacity }
    }
}

/// Gives each response up once it is no longer worth keeping, however often it is read.
struct AsLongAsWorthIt;

#[expect(clippy::disallowed_types, reason = "moka's interface; its clock is not read here")]
impl Expiry<Key, Arc<Place>> for AsLongAsWorthIt {
    fn expire_after_create(&self, _: &Key, place: &Arc<Place>, _: std::time::Instant) -> Option<Duration> {
        Some(place.keep_for)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        place: &Arc<Place>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(place.keep_for)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::cache::tests::{key, stored};
    use crate::units::ByteSize;

    #[test]
    fn what_is_given_up_is_counted_and_told() {
        let told = Arc::new(AtomicU64::new(0));
        let listener = Arc::clone(&told);
        let on_evicted = Box::new(move |why| {
            assert_eq!(why, Eviction::Invalidated);
            listener.fetch_add(1, Ordering::Relaxed);
        });
        let memory = Memory::new(&Settings { max_bytes: ByteSize::mib(1), ..Settings::default() }, on_evicted);
        for number in 0..50_u8 {
            memory.put(key(number.into()), Arc::new(stored(number.into())));
        }
        assert_eq!(memory.give_up(|_, stored| stored.reply.body.len() < 20), 20);
        assert_eq!((memory.occupancy().entries, told.load(Ordering::Relaxed)), (30, 20));
        assert!(memory.get(&key(19)).is_none() && memory.get(&key(20)).is_some());
        assert_eq!(memory.give_up(|_, _| false), 0);
    }

    #[test]
    fn neither_bound_is_ever_passed() {
        for (size, max_entries) in [(10, 20), (4000, 1000), (1000, 40)] {
            let settings = Settings { max_entries, max_bytes: ByteSize::mib(1), ..Settings::default() };
            let memory = Memory::new(&settings, Box::new(|_| {}));
            for number in 0..2000 {
                memory.put(key(number), Arc::new(stored(size)));
            }
            let now = memory.occupancy();
            assert!(now.entries <= max_entries && now.bytes <= now.capacity_bytes, "{now:?}");
            assert!(now.entries > 0);
        }
    }
    #[test]
    fn no_more_is_held_than_there_is_room_for_however_large_each_is() {
        for eviction in [EvictionPolicy::TinyLfu, EvictionPolicy::Lru] {
            let settings = Settings { max_bytes: ByteSize::mib(8), eviction, ..Settings::default() };
            let memory = Memory::new(&settings, Box::new(|_| {}));
            let room = memory.capacity + memory.capacity / SLACK;
            for number in 0..200 {
                memory.put(key(number % 150), Arc::new(stored(1 << 20)));
                assert!(memory.held.load(Ordering::Relaxed) <= room, "{eviction:?} {number}");
            }
            memory.give_up(|_, _| true);
            assert_eq!((memory.occupancy().entries, memory.held.load(Ordering::Relaxed)), (0, 0), "{eviction:?}");
        }
    }
}
