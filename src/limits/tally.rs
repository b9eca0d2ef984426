//! Tally: what a budget has done to calls since the start, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a budget does to calls once it is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It kept a call from going.
    Blocked,
    /// It had a cheaper model asked, and that was answered.
    Downgraded,
    /// It ended a stream that was being generated.
    Stopped,
}

/// How often each was done.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; 3]);

impl Tally {
    /// It was done once more.
    pub(super) fn count(&self, deed: Deed) {
        self.0[deed as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was done so far.
    #[must_use]
    pub fn of(&self, deed: Deed) -> u64 {
        self.0[deed as usize].load(Ordering::Relaxed)
    }
}
