//! Cuts: for tests of decoders: a stream in every way it may be cut, and bytes that look random but are the same each
//! time.

use std::fmt::Debug;
use std::ops::Range;

use crate::frames::Event;

/// An event's name, its data and its span.
pub(super) type Found = (String, Vec<u8>, Range<u64>);

/// What there is to remember of an event.
pub(super) fn found(event: &Event<'_>) -> Found {
    (event.name.to_owned(), event.data.to_vec(), event.span.clone())
}

/// Asserts that `decode` finds the same in `stream` however it is cut; what that is.
pub(super) fn assert_cuts_change_nothing<T: Debug + PartialEq>(stream: &[u8], decode: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = decode(&[stream]);
    let text = stream.escape_ascii();
    for cut in 0..=stream.len() {
        assert_eq!(decode(&[&stream[..cut], &stream[cut..]]), whole, "{text} cut at {cut}");
    }
    for size in 1..4 {
        let pieces: Vec<_> = stream.chunks(size).collect();
        assert_eq!(decode(&pieces), whole, "{text} by {size}");
    }
    let mut random = Random::new(stream.len() as u64);
    for _ in 0..10 {
        let pieces = random.cut(stream);
        assert_eq!(decode(&pieces), whole, "{text} as {pieces:?}");
    }
    whole
}

/// Numbers by xorshift.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).expect("a byte")).collect()
    }

    /// As many of `bytes`.
    pub(super) fn picks(&mut self, bytes: &[u8], length: usize) -> Vec<u8> {
        (0..length).map(|_| bytes[self.below(bytes.len())]).collect()
    }

    fn cut<'a>(&mut self, mut stream: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !stream.is_empty() {
            let (piece, rest) = stream.split_at(self.below(stream.len().min(9)) + 1);
            pieces.push(piece);
            stream = rest;
        }
        pieces
    }
}
