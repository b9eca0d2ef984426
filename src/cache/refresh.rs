//! Refresh: which stored responses are being fetched anew while they still answer: each once, and only so many at a
//! time. RFC 5861, section 3. Knows keys; not how anything is fetched.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::key::Key;

/// The responses being fetched anew.
#[derive(Clone, Debug)]
pub(super) struct Refreshes {
    keys: Arc<Mutex<HashSet<Key>>>,
    most: usize,
}

impl Refreshes {
    /// Up to `most` at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { keys: Arc::default(), most }
    }

    /// The same, up to `most` at a time.
    pub(super) fn up_to(&self, most: usize) -> Self {
        Self { keys: Arc::clone(&self.keys), most }
    }

    /// The task to fetch the response of this key anew, if nobody has it yet, and there is room for one more.
    pub(super) fn begin(&self, key: Key) -> Option<Refresh> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        (keys.len() < self.most && keys.insert(key)).then(|| Refresh { key, all: self.clone() })
    }
}

/// The task to fetch one response anew. Dropped, it is done, or given up.
#[derive(Debug)]
pub struct Refresh {
    key: Key,
    all: Refreshes,
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.all.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::key;

    #[test]
    fn each_is_fetched_once_and_only_so_many_at_a_time() {
        let refreshes = Refreshes::new(2);
        let first = refreshes.begin(key(1)).expect("nobody has it");
        assert!(refreshes.begin(key(1)).is_none(), "somebody has it");
        let _second = refreshes.begin(key(2)).expect("nobody has it");
        assert!(refreshes.begin(key(3)).is_none(), "too many at a time");
        drop(first);
        assert!(refreshes.begin(key(1)).is_some(), "it was given up");
    }
}
