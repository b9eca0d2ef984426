//! Pace: how long a model takes, from the request to its first token and from one token to the next.
//!
//! Pure: it says how long, others wait. Decided by the seed, so that the same call takes equally long every time.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::dice::Dice;

/// How fast the simulated models are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From the request to the first token.
    pub time_to_first_token: RangeInclusive<Duration>,
    /// From one token to the next.
    pub per_token: RangeInclusive<Duration>,
    /// The longest a whole answer may take; longer ones are sped up.
    pub at_most: Duration,
}

impl Pace {
    /// No waiting at all: for tests and benchmarks.
    #[must_use]
    pub const fn instant() -> Self {
        let none = Duration::ZERO..=Duration::ZERO;
        Self { time_to_first_token: none, per_token: Duration::ZERO..=Duration::ZERO, at_most: Duration::ZERO }
    }

    /// As a small hosted model feels, a little hurried so that a demo stays lively: 150 to 400 ms to the first token,
    /// 5 to 15 ms for each further one, 1.4 s at most.
    #[must_use]
    pub const fn lifelike() -> Self {
        Self {
            time_to_first_token: Duration::from_millis(150)..=Duration::from_millis(400),
            per_token: Duration::from_millis(5)..=Duration::from_millis(15),
            at_most: Duration::from_millis(1400),
        }
    }

    pub(super) fn timing(&self, seed: u64, tokens: u64) -> Timing {
        let mut dice = Dice::new(seed);
        let first = within(&self.time_to_first_token, &mut dice).min(self.at_most);
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX).max(1);
        let per_token = within(&self.per_token, &mut dice).min(self.at_most.saturating_sub(first) / tokens);
        Timing { first, per_token }
    }
}

fn within(range: &RangeInclusive<Duration>, dice: &mut Dice) -> Duration {
    let width = range.end().saturating_sub(*range.start()).as_micros();
    *range.start() + Duration::from_micros(dice.below(u64::try_from(width).unwrap_or(u64::MAX).saturating_add(1)))
}

/// How long one answer takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) first: Duration,
    pub(super) per_token: Duration,
}

impl Timing {
    /// Until an answer of this many tokens is there as a whole.
    pub(super) fn whole(self, tokens: u64) -> Duration {
        self.first.saturating_add(self.per_token.saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_never_waits() {
        assert_eq!(Pace::instant().timing(1, 1000).whole(1000), Duration::ZERO);
    }

    #[test]
    fn lifelike_stays_within_its_bounds() {
        let pace = Pace::lifelike();
        for seed in 0..100 {
            for tokens in [0, 1, 50, 5_000] {
                let timing = pace.timing(seed, tokens);
                assert!(pace.time_to_first_token.contains(&timing.first));
                assert!(timing.whole(tokens) <= pace.at_most);
                assert_eq!(timing, pace.timing(seed, tokens));
            }
        }
    }
}
