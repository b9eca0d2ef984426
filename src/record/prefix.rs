//! Prefix: the beginnings of a prompt, by which one call is found to begin like another, told without keeping a word.
//!
//! A beginning is a keyed fingerprint of 64 bits. The key is the process's own, and is written down nowhere: whoever has
//! fingerprints can compare them with each other, and with nothing else. Knows no wire format.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// The shortest beginning that is looked at, in bytes: 1,024 tokens of four bytes. No provider's cache takes fewer.
pub const SHORTEST: u64 = 4 << 10;
/// The longest: what follows is not read. Each is twice as long as the one before.
const LONGEST: u64 = SHORTEST << 7;
/// Most beginnings of one prompt: eight lengths, and four places where something ends.
const MOST: usize = 12;
/// Bytes of one as it is packed: its length, its fingerprint.
const PACKED: usize = 4 + 8;

/// One beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// How many bytes of text it has.
    pub bytes: u32,
    /// What it is told by.
    pub fingerprint: u64,
}

/// The beginnings of one prompt, from the shortest to the longest, packed: the length of all of its text, then each
/// beginning, in little endian.
#[derive(Clone, PartialEq, Eq)]
pub struct Prefixes(Arc<[u8]>);

impl Prefixes {
    /// Those that are packed like this. `None` where this weir packs nothing like it.
    #[must_use]
    pub fn of_packed(packed: &[u8]) -> Option<Self> {
        let is_whole = packed.len() > 4 && (packed.len() - 4).is_multiple_of(PACKED);
        is_whole.then(|| Self(packed.into()))
    }

    /// As they are written down.
    #[must_use]
    pub fn packed(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes of text the whole prompt has.
    #[must_use]
    pub fn all_bytes(&self) -> u32 {
        self.0.first_chunk().map_or(0, |length| u32::from_le_bytes(*length))
    }

    /// Each beginning, the shortest first.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Prefix> {
        let (packed, _) = self.0.get(4..).unwrap_or_default().as_chunks::<PACKED>();
        packed.iter().map(|packed| {
            let (bytes, fingerprint) = packed.split_at(4);
            let bytes = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            Prefix { bytes, fingerprint: fingerprint.first_chunk().map_or(0, |it| u64::from_le_bytes(*it)) }
        })
    }
}

/// Shows how many there are: a fingerprint is for comparing.
impl std::fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefixes").field("all_bytes", &self.all_bytes()).field("count", &self.iter().count()).finish()
    }
}

/// A prompt on its way to its [`Prefixes`]: fed with its texts, in the order in which the model reads them.
#[derive(Debug)]
pub struct Reading<H> {
    hasher: H,
    bytes: u64,
    /// The next length at which a beginning is noted.
    next: u64,
    /// Whether nothing more can be told of how it begins.
    is_over: bool,
    found: [Prefix; MOST],
    count: usize,
}

impl<H: Hasher> Reading<H> {
    /// Of nothing yet, with this key.
    pub fn new(key: &impl BuildHasher<Hasher = H>) -> Self {
        let hasher = key.build_hasher();
        Self { hasher, bytes: 0, next: SHORTEST, is_over: false, found: [Prefix::default(); MOST], count: 0 }
    }

    /// The next text.
    pub fn text(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while !self.is_over && self.bytes + rest.len() as u64 >= self.next {
            let (before, after) = rest.split_at(usize::try_from(self.next - self.bytes).unwrap_or(rest.len()));
            self.hasher.write(before);
            self.bytes = self.next;
            self.note();
            self.is_over = self.next == LONGEST;
            self.next *= 2;
            rest = after;
        }
        if !self.is_over {
            self.hasher.write(rest);
            // A byte that is in no UTF-8 keeps texts apart.
            self.hasher.write_u8(0xff);
        }
        self.bytes += rest.len() as u64;
    }

    /// Here something ends that another prompt may have, too, and then go on otherwise.
    pub fn ends(&mut self) {
        if !self.is_over {
            self.note();
        }
    }

    /// Here is what is no text: nothing that follows is at the beginning of anything.
    pub fn stop(&mut self) {
        self.is_over = true;
    }

    /// What was found. `None` where the prompt is too short for any cache.
    pub fn finish(self) -> Option<Prefixes> {
        let found = &self.found[..self.count];
        if found.is_empty() {
            return None;
        }
        let all = u32::try_from(self.bytes).unwrap_or(u32::MAX).to_le_bytes();
        let packed = found.iter().flat_map(|it| it.bytes.to_le_bytes().into_iter().chain(it.fingerprint.to_le_bytes()));
        Some(Prefixes(all.into_iter().chain(packed).collect()))
    }

    fn note(&mut self) {
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        let is_new = self.count.checked_sub(1).is_none_or(|last| self.found[last].bytes < bytes);
        if self.bytes >= SHORTEST && is_new && self.count < MOST {
            self.found[self.count] = Prefix { bytes, fingerprint: self.hasher.finish() };
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    fn of(key: &RandomState, texts: &[&str]) -> Vec<Prefix> {
        let mut reading = Reading::new(key);
        for text in texts {
            match *text {
                "|" => reading.ends(),
                "#" => reading.stop(),
                text => reading.text(text),
            }
        }
        reading.finish().map(|found| found.iter().collect()).unwrap_or_default()
    }

    #[test]
    fn equal_beginnings_are_told_as_equal_and_no_others() {
        let key = RandomState::new();
        let (same, half) = ("a".repeat(10_000), "a".repeat(5_000));
        let whole = of(&key, &[&same]);
        assert_eq!(whole.iter().map(|it| it.bytes).collect::<Vec<_>>(), [4_096, 8_192]);
        let differing = same.replacen('a', "b", 1);
        for (rule, texts, common) in [
            ("the same", vec![same.as_str()], 2),
            ("the same, and more", vec![&same, &same], 2),
            ("another end", vec![&same[..9_000], "b"], 2),
            ("another second part", vec![&half, "b", &half], 1),
            ("another first byte", vec![&differing], 0),
            ("cut elsewhere", vec![&same[..1], &same[1..]], 0),
            ("shorter than any cache takes", vec![&same[..4_095]], 0),
        ] {
            let found = of(&key, &texts);
            assert_eq!(found.iter().filter(|it| whole.contains(it)).count(), common, "{rule}");
        }
        assert!(of(&RandomState::new(), &[&same]).iter().all(|it| !whole.contains(it)), "another key");
    }

    #[test]
    fn what_ends_is_the_beginning_of_what_goes_on() {
        let key = RandomState::new();
        let (first, second) = ("a".repeat(5_000), "b".repeat(5_000));
        let earlier = of(&key, &[&first, "|"]);
        let later = of(&key, &[&first, "|", &second, "|"]);
        assert_eq!(earlier.iter().map(|it| it.bytes).collect::<Vec<_>>(), [4_096, 5_000]);
        assert_eq!(later.iter().map(|it| it.bytes).collect::<Vec<_>>(), [4_096, 5_000, 8_192, 10_000]);
        assert_eq!(later[..2], earlier);
        assert_eq!(of(&key, &[&first, "|", "|"]), earlier, "said twice");
        assert_eq!(of(&key, &["a", "|"]), [], "too short");
    }

    #[test]
    fn what_is_long_or_no_text_is_read_to_its_beginning_only() {
        let key = RandomState::new();
        let long = "a".repeat(1 << 21);
        let found = of(&key, &[&long, "|"]);
        assert_eq!(found.last().map(|it| u64::from(it.bytes)), Some(LONGEST));
        assert_eq!(found.len(), 8);
        assert_eq!(of(&key, &[&long[..5_000], "#", &long, "|"]).len(), 1);
        let mut reading = Reading::new(&key);
        reading.text(&long);
        reading.text(&long);
        assert_eq!(reading.finish().map(|found| found.all_bytes()), Some(1 << 22), "all of it is measured");
    }

    #[test]
    fn they_are_packed_and_found_again() {
        let key = RandomState::new();
        let mut reading = Reading::new(&key);
        (0..20).for_each(|_| {
            reading.text(&"a".repeat(40_000));
            reading.ends();
        });
        let found = reading.finish().expect("a long prompt");
        assert_eq!(found.iter().count(), MOST);
        assert_eq!(Prefixes::of_packed(found.packed()), Some(found.clone()));
        assert!(found.iter().is_sorted_by(|one, next| one.bytes < next.bytes));
        assert!(!format!("{found:?}").contains(&found.iter().next().expect("one").fingerprint.to_string()));
        for damaged in [&found.packed()[1..], &[], &[0; 4]] {
            assert_eq!(Prefixes::of_packed(damaged), None);
        }
    }
}
