//! Labels: values that come from outside, capped before they name a series.
//!
//! A series lives as long as the process, so whoever chooses label values chooses how much memory weir and Prometheus
//! use. A [`Limiter`] lets the first so many values through and folds the rest into `other`. It judges only how many
//! and how they are spelt; whether a value deserves a place at all is for the caller to know.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// The value that stands for all values without a place of their own.
pub const OTHER: &str = "other";
/// The value that stands for none given.
pub const NONE: &str = "none";

/// Longest value, in bytes; what is longer is cut.
const MAX_BYTES: usize = 64;

static SHARED_OTHER: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(OTHER));
static SHARED_NONE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(NONE));

/// [`OTHER`], shared.
#[must_use]
pub fn other() -> Arc<str> {
    Arc::clone(&SHARED_OTHER)
}

/// [`NONE`], shared.
#[must_use]
pub fn none() -> Arc<str> {
    Arc::clone(&SHARED_NONE)
}

/// The values of one label: first come, first served, up to a cap, for the life of the process. Values that are known
/// before anybody comes are reserved, and take nobody's place.
#[derive(Debug)]
pub struct Limiter {
    cap: usize,
    values: RwLock<Values>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Values {
    all: foldhash::HashSet<Arc<str>>,
    reserved: usize,
}

impl Limiter {
    /// A limiter that admits `cap` values. [`OTHER`] and [`NONE`] are always admitted and take no place.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { cap, values: RwLock::default(), refused: AtomicU64::new(0) }
    }

    /// The value to use for `value`: itself, tidied, while there is a place for it; else [`OTHER`], which is counted.
    #[must_use]
    pub fn admit(&self, value: &str) -> Arc<str> {
        let value = tidy(value);
        if let Some(known) = self.known(&value) {
            return known;
        }
        // A full label never empties again: values without a place are refused without taking the lock for writing.
        if self.admitted() < self.cap
            && let Some(place) = self.take_place(&value)
        {
            return place;
        }
        self.refuse();
        other()
    }

    /// The value to use for a `value` from a list of ours: itself, tidied, whether there is a place or not. How many
    /// there are is for the list to bound.
    #[must_use]
    pub fn reserve(&self, value: &str) -> Arc<str> {
        let value = tidy(value);
        if let Some(known) = self.known(&value) {
            return known;
        }
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = values.all.get(&*value) {
            return Arc::clone(known);
        }
        values.reserved += 1;
        values.keep(&value)
    }

    /// The value to use for a `value` that deserves no place of its own: itself if it has one already, else [`OTHER`].
    /// Admits nothing and counts nothing.
    #[must_use]
    pub fn find(&self, value: &str) -> Arc<str> {
        self.known(&tidy(value)).unwrap_or_else(other)
    }

    /// Counts a value that was folded into [`OTHER`] for want of room elsewhere.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Values admitted so far, but for the reserved ones.
    #[must_use]
    pub fn admitted(&self) -> usize {
        self.values.read().unwrap_or_else(PoisonError::into_inner).taken()
    }

    /// Most values ever admitted, but for the reserved ones.
    #[must_use]
    pub const fn cap(&self) -> usize {
        self.cap
    }

    /// How often a value was folded into [`OTHER`] because there was no place.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take_place(&self, value: &str) -> Option<Arc<str>> {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = values.all.get(value) {
            return Some(Arc::clone(known));
        }
        (values.taken() < self.cap).then(|| values.keep(value))
    }

    fn known(&self, value: &str) -> Option<Arc<str>> {
        match value {
            "" | NONE => Some(none()),
            OTHER => Some(other()),
            _ => self.values.read().unwrap_or_else(PoisonError::into_inner).all.get(value).cloned(),
        }
    }
}

impl Values {
    fn taken(&self) -> usize {
        self.all.len() - self.reserved
    }

    fn keep(&mut self, value: &str) -> Arc<str> {
        let kept: Arc<str> = value.into();
        self.all.insert(Arc::clone(&kept));
        kept
    }
}

/// `value` cut to 64 bytes at a character boundary, its control characters made `_`. Borrowed where nothing needs to
/// change, which is nearly always.
#[must_use]
pub fn tidy(value: &str) -> Cow<'_, str> {
    let cut = &value[..value.floor_char_boundary(MAX_BYTES)];
    // All control characters beyond ASCII begin with the same byte, which few texts have.
    let may_have_any = cut.bytes().any(|byte| byte.is_ascii_control() || byte == 0xc2);
    if may_have_any && cut.contains(char::is_control) {
        Cow::Owned(cut.replace(char::is_control, "_"))
    } else {
        Cow::Borrowed(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_get_a_place_and_keep_it() {
        let limiter = Limiter::new(2);
        for (value, used) in [
            ("gpt-5", "gpt-5"),
            ("claude", "claude"),
            ("gemini", "other"),
            ("gpt-5", "gpt-5"),
            ("llama", "other"),
            ("claude", "claude"),
        ] {
            assert_eq!(&*limiter.admit(value), used);
        }
        assert_eq!((limiter.admitted(), limiter.cap(), limiter.refused()), (2, 2, 2));
    }

    #[test]
    fn a_reserved_value_has_a_place_of_its_own() {
        let limiter = Limiter::new(1);
        for (value, used) in [("a", "a"), ("b", "other"), ("a", "a")] {
            assert_eq!(&*limiter.admit(value), used);
        }
        for value in ["c", "d", "c", "a"] {
            assert_eq!(&*limiter.reserve(value), value);
        }
        assert_eq!(&*limiter.admit("c"), "c");
        assert_eq!(&*limiter.reserve("none"), "none");
        assert_eq!((limiter.admitted(), limiter.cap(), limiter.refused()), (1, 1, 1));
    }

    #[test]
    fn looking_for_a_value_gives_it_no_place() {
        let limiter = Limiter::new(2);
        assert_eq!(&*limiter.find("junk"), OTHER);
        assert_eq!((limiter.admitted(), limiter.refused()), (0, 0));
        let _ = limiter.admit("gpt-5");
        assert_eq!(&*limiter.find("gpt-5"), "gpt-5");
    }

    #[test]
    fn reserved_values_take_no_place() {
        let limiter = Limiter::new(0);
        for (value, used) in [("other", "other"), ("none", "none"), ("", "none")] {
            assert_eq!(&*limiter.admit(value), used);
        }
        assert_eq!((limiter.admitted(), limiter.refused()), (0, 0));
    }

    #[test]
    fn values_are_tidied() {
        let long = "m".repeat(100);
        let long_in_two_bytes = format!("m{}", "é".repeat(40));
        for (rule, value, tidied) in [
            ("what is tidy stays", "gpt-5", "gpt-5"),
            ("control characters become _", "a\nb\0c\u{85}d", "a_b_c_d"),
            ("quotes and backslashes stay: the encoder escapes them", r#"a"b\c"#, r#"a"b\c"#),
            ("64 bytes at most", &long, &"m".repeat(64)),
            ("cut between characters", &long_in_two_bytes, &format!("m{}", "é".repeat(31))),
        ] {
            assert_eq!(&*Limiter::new(9).admit(value), tidied, "{rule}");
        }
    }

    #[test]
    fn a_known_value_is_shared_not_copied() {
        let limiter = Limiter::new(1);
        assert!(Arc::ptr_eq(&limiter.admit("gpt-5"), &limiter.admit("gpt-5")));
    }
}
