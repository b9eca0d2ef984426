//! Slots: what is kept of each subject of a rule. Found in a moment however many there are, never more than a bound, and
//! forgotten once there is nothing to remember. Knows nothing of what is kept.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::Now;

/// How many parts the subjects of one rule are spread over, so that calls of different subjects seldom meet.
pub(super) const PARTS: usize = 32;
/// Most subjects of one rule. Those beyond it share one slot, and so one limit: refused too early rather than never.
const MOST_SUBJECTS: usize = 1 << 18;
/// The name of that slot.
const OTHERS: &str = "(others)";
/// How many subjects a part has before a new one has it looked through for idle ones. Many: that keeps the call of the new
/// one waiting, and somebody who forgets the idle comes by anyway.
const FIRST_SWEEP: usize = 1024;

/// What is kept, of a subject that may be forgotten.
pub(super) trait Idle {
    /// Whether nothing would be lost if this began anew.
    fn is_idle(&self, now: Now) -> bool;
}

/// What is kept of one subject.
#[derive(Debug)]
pub(super) struct Slot<T> {
    /// Who it is; empty where everybody is one subject.
    pub(super) subject: Box<str>,
    state: Mutex<T>,
}

impl<T> Slot<T> {
    fn new(subject: &str, state: T) -> Arc<Self> {
        Arc::new(Self { subject: subject.into(), state: Mutex::new(state) })
    }

    /// The state, for a moment: nothing is awaited while it is held.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slots of one rule.
#[derive(Debug)]
pub(super) struct Slots<T> {
    hasher: RandomState,
    shards: Box<[Mutex<Shard<T>>]>,
    everybody: Arc<Slot<T>>,
    others: Arc<Slot<T>>,
    changes: AtomicU64,
}

#[derive(Debug)]
struct Shard<T> {
    slots: HashSet<Known<T>>,
    next_sweep: usize,
}

/// A slot, found by its subject.
#[derive(Debug)]
struct Known<T>(Arc<Slot<T>>);

impl<T> Borrow<str> for Known<T> {
    fn borrow(&self) -> &str {
        &self.0.subject
    }
}

impl<T> Hash for Known<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.subject.hash(state);
    }
}

impl<T> PartialEq for Known<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.subject == other.0.subject
    }
}

impl<T> Eq for Known<T> {}

impl<T: Idle + Default> Slots<T> {
    pub(super) fn new() -> Self {
        let shard = || Mutex::new(Shard { slots: HashSet::new(), next_sweep: FIRST_SWEEP });
        Self {
            hasher: RandomState::new(),
            shards: (0..PARTS).map(|_| shard()).collect(),
            everybody: Slot::new("", T::default()),
            others: Slot::new(OTHERS, T::default()),
            changes: AtomicU64::new(0),
        }
    }

    /// The slot of `subject`; of everybody if that is empty.
    pub(super) fn of(&self, subject: &str, now: Now) -> Arc<Slot<T>> {
        if subject.is_empty() {
            return Arc::clone(&self.everybody);
        }
        // As it is called when it comes back from a file: no subject of a call reads like this.
        if subject == OTHERS {
            return Arc::clone(&self.others);
        }
        let mut shard = self.shard(subject);
        if let Some(Known(slot)) = shard.slots.get(subject) {
            return Arc::clone(slot);
        }
        if shard.slots.len() >= shard.next_sweep {
            shard.sweep(now);
        }
        if shard.slots.len() >= MOST_SUBJECTS / PARTS {
            return Arc::clone(&self.others);
        }
        let slot = Slot::new(subject, T::default());
        shard.slots.insert(Known(Arc::clone(&slot)));
        slot
    }

    /// Every slot there is, in no order. Holds no lock while they are looked at.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Slot<T>>> {
        let of_shard = |shard: &Mutex<Shard<T>>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.slots.iter().map(|known| Arc::clone(&known.0)).collect::<Vec<_>>()
        };
        let shared = [Arc::clone(&self.everybody), Arc::clone(&self.others)];
        shared.into_iter().chain(self.shards.iter().flat_map(of_shard))
    }

    /// Notes that something has changed which a restart should not forget.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// How often something has.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Forgets the idle of one part, so that calls wait for no more than that. There are [`PARTS`] of them.
    pub(super) fn forget(&self, part: usize, now: Now) {
        self.shards[part % PARTS].lock().unwrap_or_else(PoisonError::into_inner).sweep(now);
    }

    /// How many subjects are remembered.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).slots.len()).sum()
    }

    fn shard(&self, subject: &str) -> MutexGuard<'_, Shard<T>> {
        let hash = usize::try_from(self.hasher.hash_one(subject) >> 32).unwrap_or_default();
        self.shards[hash % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Idle> Shard<T> {
    /// Forgets whoever is idle and in nobody's hand.
    fn sweep(&mut self, now: Now) {
        self.slots.retain(|Known(slot)| Arc::strong_count(slot) > 1 || !slot.lock().is_idle(now));
        self.slots.shrink_to(self.slots.len() * 2);
        self.next_sweep = FIRST_SWEEP.max(self.slots.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::window::UnixTime;

    const NOW: Now = Now { nanos: 0, wall: UnixTime::EPOCH };

    #[derive(Debug, Default)]
    struct Count(u64);

    impl Idle for Count {
        fn is_idle(&self, _: Now) -> bool {
            self.0 == 0
        }
    }

    #[test]
    fn idle_subjects_are_forgotten_and_those_in_hand_are_not() {
        let (slots, now) = (Slots::<Count>::new(), NOW);
        let in_hand = slots.of("in hand", now);
        slots.of("busy", now).lock().0 = 1;
        slots.of("idle", now);
        assert_eq!(slots.len(), 3);
        (0..PARTS).for_each(|part| slots.forget(part, now));
        assert_eq!(slots.len(), 2);
        assert_eq!(slots.of("busy", now).lock().0, 1, "what counts is kept");
        assert!(Arc::ptr_eq(&in_hand, &slots.of("in hand", now)), "nobody counts against a slot that is forgotten");
    }

    #[test]
    fn subjects_beyond_the_bound_share_one_slot() {
        let (slots, now) = (Slots::<Count>::new(), NOW);
        for number in 0..MOST_SUBJECTS + MOST_SUBJECTS / 4 {
            slots.of(&number.to_string(), now).lock().0 = 1;
        }
        assert!(slots.len() <= MOST_SUBJECTS, "{}", slots.len());
        assert_eq!(&*slots.of("one more", now).subject, OTHERS);
        for slot in slots.all() {
            slot.lock().0 = 0;
        }
        (0..PARTS).for_each(|part| slots.forget(part, now));
        assert_eq!(slots.len(), 0);
    }
}
