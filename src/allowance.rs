//! Allowance: how many bytes may be held of something, by all who hold some of it together. What is held is given back
//! when whoever holds it is dropped, however that comes about. Knows no calls, and not what is done without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// What each may hold beside the allowance, in bytes: that much is part of what a connection takes anyway, and small calls
/// are read however many large ones there are.
const FREE_BYTES: u64 = 16 << 10;

/// How many bytes are taken at once, so that what comes in small pieces is not counted piece by piece.
const STEP_BYTES: u64 = 16 << 10;

/// A bound that several share.
#[derive(Clone, Debug)]
pub struct Allowance(Arc<Account>);

#[derive(Debug)]
struct Account {
    most: AtomicU64,
    held: AtomicU64,
    declined: AtomicU64,
}

/// How an allowance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Most bytes that may be held.
    pub most: u64,
    /// Bytes held, beside what each may hold anyway.
    pub held: u64,
    /// How often there was no room for more.
    pub declined: u64,
}

impl Allowance {
    /// At most so many bytes, of which none is held.
    #[must_use]
    pub fn of(most: u64) -> Self {
        Self(Arc::new(Account { most: AtomicU64::new(most), held: AtomicU64::new(0), declined: AtomicU64::new(0) }))
    }

    /// From now on at most so many. What is held already counts, and stays even if it is more.
    pub fn bound(&self, most: u64) {
        self.0.most.store(most, Ordering::Relaxed);
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Account { most, held, declined } = &*self.0;
        Standing { most: now(most), held: now(held), declined: now(declined) }
    }

    /// A share of it, with nothing in it yet.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { of: self.clone(), held: 0, is_declined: false }
    }
}

/// What one holds of an allowance. Dropped, it is given back.
#[derive(Debug)]
pub struct Share {
    of: Allowance,
    held: u64,
    /// Whether it has been told that there is no room: that counts once.
    is_declined: bool,
}

impl Share {
    /// Holds `bytes` in all from now on; false, and nothing changes, if there is no room for that. What it holds already is
    /// never given back.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if bytes <= self.held.max(FREE_BYTES) {
            return true;
        }
        let Allowance(account) = &self.of;
        let (most, all) = (account.most.load(Ordering::Relaxed), bytes.next_multiple_of(STEP_BYTES));
        let more = all - self.held;
        let add = |held: u64| held.checked_add(more).filter(|held| *held <= most);
        if account.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok() {
            self.held = all;
            return true;
        }
        if !self.is_declined {
            self.is_declined = true;
            account.declined.fetch_add(1, Ordering::Relaxed);
        }
        false
    }

    /// `bytes`, which hold this share for as long as anybody has a part of them.
    #[must_use]
    pub fn keep(self, bytes: Bytes) -> Bytes {
        if self.held == 0 { bytes } else { Bytes::from_owner(Held { bytes, _share: self }) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.held > 0 {
            self.of.0.held.fetch_sub(self.held, Ordering::Relaxed);
        }
    }
}

/// Bytes that are on account.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn held(allowance: &Allowance) -> u64 {
        allowance.standing().held / 1024
    }

    #[test]
    fn what_is_small_needs_no_room() {
        let none = Allowance::of(0);
        let mut share = none.share();
        assert!(share.grow_to(16 * KIB));
        assert!(!share.grow_to(16 * KIB + 1));
        assert_eq!(none.standing(), Standing { most: 0, held: 0, declined: 1 });
    }

    #[test]
    fn what_is_held_is_held_together_and_given_back() {
        let allowance = Allowance::of(64 << 10);
        let (mut one, mut other) = (allowance.share(), allowance.share());
        assert!(one.grow_to(30 * KIB));
        assert!(one.grow_to(31 * KIB), "what was taken is enough");
        assert_eq!(held(&allowance), 32);
        assert!(other.grow_to(32 * KIB));
        assert!(!one.grow_to(33 * KIB) && !one.grow_to(40 * KIB), "there is no room");
        assert_eq!(allowance.standing().declined, 1, "one that is told so again and again counts once");
        drop(other);
        assert!(one.grow_to(33 * KIB), "there is again");
        assert!(one.grow_to(KIB), "and nothing is given back before the end");
        assert_eq!(held(&allowance), 48);
        drop(one);
        assert_eq!(held(&allowance), 0);
    }

    #[test]
    fn bytes_hold_their_share_for_as_long_as_there_is_a_part_of_them() {
        let allowance = Allowance::of(64 << 10);
        let mut share = allowance.share();
        assert!(share.grow_to(20 * KIB));
        let bytes = share.keep(vec![7; 20 * KIB].into());
        let part = bytes.slice(3..4);
        drop(bytes);
        assert_eq!((&*part, held(&allowance)), (&[7][..], 32));
        drop(part);
        assert_eq!(held(&allowance), 0);
        let small = Bytes::from_static(b"small");
        assert_eq!(allowance.share().keep(small.clone()).as_ptr(), small.as_ptr(), "nothing is wrapped for nothing");
    }

    #[test]
    fn another_bound_holds_for_what_comes() {
        let allowance = Allowance::of(32 << 10);
        let mut share = allowance.share();
        assert!(share.grow_to(32 * KIB));
        allowance.bound(16 << 10);
        assert!(share.grow_to(32 * KIB), "what is held is held");
        assert!(!share.grow_to(33 * KIB) && !allowance.share().grow_to(17 * KIB));
        drop(share);
        assert_eq!(held(&allowance), 0);
    }

    #[test]
    fn a_panic_gives_back() {
        let allowance = Allowance::of(64 << 10);
        let mut share = allowance.share();
        assert!(share.grow_to(20 * KIB));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _share = share;
            panic!("in the middle");
        }));
        assert!(panicked.is_err());
        assert_eq!(held(&allowance), 0);
    }
}
