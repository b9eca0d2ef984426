//! Pace: when each piece of a streamed reply came, so that it can be given again as it came.
//!
//! Knows lengths and times, and takes the time as it is told; not bodies, not the clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Most pieces that are told apart. Of a reply that has more, two and two are one.
const MOST_PIECES: usize = 2048;

/// The pieces of a reply, in their order. Together they are as long as its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace(Arc<[Piece]>);

/// One piece. Half of what a length and a `Duration` would take: there are thousands of them in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Microseconds since the piece before it; of the first, since the request was sent.
    after: u32,
    bytes: u32,
}

impl Pace {
    /// That of pieces that came so long after each other, and are so long.
    pub fn of(pieces: impl IntoIterator<Item = (Duration, usize)>) -> Self {
        let mut pacing = Pacing::begin(Instant::now());
        for (after, bytes) in pieces {
            pacing.push(after, bytes);
        }
        pacing.end()
    }

    /// Whether it is that of a body of so many bytes. It is not of an empty one, and of none of more than 4 GiB.
    #[must_use]
    pub fn fits(&self, total: usize) -> bool {
        total > 0 && self.0.iter().map(|piece| u64::from(piece.bytes)).sum::<u64>() == total as u64
    }

    /// How long after the one before it a piece comes, and how many bytes it has.
    #[must_use]
    pub fn piece(&self, number: usize) -> Option<(Duration, usize)> {
        let Piece { after, bytes } = self.0.get(number)?;
        Some((Duration::from_micros(u64::from(*after)), *bytes as usize))
    }

    /// All of that.
    pub fn pieces(&self) -> impl Iterator<Item = (Duration, usize)> {
        (0..self.0.len()).filter_map(|number| self.piece(number))
    }

    /// What it takes of the memory beside itself.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// The pieces of a reply that is still coming.
#[derive(Debug)]
pub struct Pacing {
    pieces: Vec<Piece>,
    /// When the last piece came, less what a microsecond is too coarse for.
    last: Instant,
}

impl Pacing {
    /// The request is sent.
    #[must_use]
    pub const fn begin(now: Instant) -> Self {
        Self { pieces: Vec::new(), last: now }
    }

    /// A piece of so many bytes came, if it is any.
    pub fn note(&mut self, bytes: usize, now: Instant) {
        if bytes > 0 {
            let after = self.push(now.saturating_duration_since(self.last), bytes);
            self.last += after;
        }
    }

    /// Adds a piece, and gives back the time before it as far as that is kept.
    fn push(&mut self, after: Duration, bytes: usize) -> Duration {
        if self.pieces.len() == MOST_PIECES {
            self.pieces = self.pieces.chunks(2).map(Piece::together).collect();
        }
        let after = u32::try_from(after.as_micros()).unwrap_or(u32::MAX);
        self.pieces.push(Piece { after, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
        Duration::from_micros(u64::from(after))
    }

    /// All of it came.
    #[must_use]
    pub fn end(self) -> Pace {
        Pace(self.pieces.into())
    }
}

impl Piece {
    /// One in place of several: when the last of them came.
    fn together(pieces: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> u32| pieces.iter().map(of).fold(0, u32::saturating_add);
        Self { after: sum(|piece| piece.after), bytes: sum(|piece| piece.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_keeps_its_length_and_its_time() {
        let begun = Instant::now();
        let mut pacing = Pacing::begin(begun);
        let came = [(10, 250_000_900), (1, 250_000_900), (7, 250_001_800), (3, 1_250_000_000)];
        for (bytes, nanos) in came {
            pacing.note(bytes, begun + Duration::from_nanos(nanos));
        }
        let pace = pacing.end();
        let pieces: Vec<_> = pace.pieces().collect();
        let micros = [(10, 250_000), (1, 0), (7, 1), (3, 999_999)];
        assert_eq!(pieces, micros.map(|(bytes, after)| (Duration::from_micros(after), bytes)));
        assert_eq!(pace.piece(4), None);
        assert_eq!(pace.size(), 32);
        assert_eq!(Pace::of(pieces), pace);
    }

    #[test]
    fn beyond_the_bound_two_and_two_are_one_and_none_comes_before_its_time() {
        let begun = Instant::now();
        let mut pacing = Pacing::begin(begun);
        let count = 3 * MOST_PIECES as u64 / 2;
        for number in 0..count {
            pacing.note(2, begun + Duration::from_millis(number + 1));
        }
        let pace = pacing.end();
        assert!(pace.fits(3 * MOST_PIECES));
        assert_eq!(pace.pieces().count(), MOST_PIECES);
        let (mut time, mut bytes) = (Duration::ZERO, 0);
        for (after, more) in pace.pieces() {
            (time, bytes) = (time + after, bytes + more);
            assert_eq!(time.as_millis(), bytes as u128 / 2, "when its last byte came");
        }
        assert_eq!(time.as_millis(), u128::from(count));
    }

    #[test]
    fn a_pace_fits_a_body_of_its_length() {
        for (noted, total, fits) in [(5, 5, true), (5, 6, false), (0, 0, false), (usize::MAX, usize::MAX, false)] {
            let mut pacing = Pacing::begin(Instant::now());
            pacing.note(noted, Instant::now());
            assert_eq!(pacing.end().fits(total), fits, "{noted} of {total}");
        }
    }
}
