//! Retry budget: how many further attempts there may be beside the calls themselves. Each call earns a part of one, and
//! time earns a few, so that however many calls fail, attempts stay near the number of calls. Takes the time it is given.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::units::Share;

/// What the operator writes of how many further attempts there may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many there may be, as a part of the calls to the provider: `0.2` is one to five calls.
    pub share: Share,
    /// How many there may be in a minute whatever the number of calls: for an app that makes few.
    pub per_minute: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { share: Share::percent(20), per_minute: 10 }
    }
}

/// What an attempt takes; a little less than one, for ten tenths are a little less.
const ONE: f64 = 1.0 - 1e-9;

/// Most attempts saved up. What a quiet day has earned must not become a storm.
const MOST_SAVED: f64 = 100.0;

/// What there is left of further attempts. All calls to one provider share it.
#[derive(Debug)]
pub struct RetryBudget {
    share: f64,
    per_minute: f64,
    saved: Mutex<Saved>,
}

#[derive(Debug)]
struct Saved {
    attempts: f64,
    /// Until when time has been counted.
    until: Instant,
}

impl RetryBudget {
    /// What time earns in a minute is there from the beginning, `now`.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant) -> Self {
        let per_minute = f64::from(settings.per_minute).min(MOST_SAVED);
        let saved = Mutex::new(Saved { attempts: per_minute, until: now });
        Self { share: settings.share.get(), per_minute, saved }
    }

    /// A call is made.
    pub fn earn(&self) {
        self.change(|saved| saved.attempts = (saved.attempts + self.share).min(MOST_SAVED));
    }

    /// Takes one attempt, if there is one.
    pub fn spend(&self, now: Instant) -> bool {
        self.change(|saved| {
            let passed: Duration = now.saturating_duration_since(saved.until);
            saved.until = saved.until.max(now);
            // Time fills up what is missing of a minute's worth, and saves up no more than that.
            let by_time = (self.per_minute - saved.attempts).max(0.0);
            saved.attempts += (self.per_minute * passed.as_secs_f64() / 60.0).min(by_time);
            let is_enough = saved.attempts >= ONE;
            if is_enough {
                saved.attempts = (saved.attempts - ONE).max(0.0);
            }
            is_enough
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Saved) -> T) -> T {
        change(&mut self.saved.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(hundredths: u8, per_minute: u32, now: Instant) -> RetryBudget {
        RetryBudget::new(&Settings { share: Share::percent(hundredths), per_minute }, now)
    }

    /// How many of `times` attempts are let go at once.
    fn spent(budget: &RetryBudget, times: usize, now: Instant) -> usize {
        (0..times).filter(|_| budget.spend(now)).count()
    }

    #[test]
    fn calls_earn_their_share_and_time_a_few() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let of_calls = budget(25, 0, now);
        assert_eq!(spent(&of_calls, 9, later(600)), 0, "time earns nothing here");
        (0..40).for_each(|_| of_calls.earn());
        assert_eq!(spent(&of_calls, 99, now), 10);

        let of_time = budget(0, 6, now);
        assert_eq!(spent(&of_time, 99, now), 6, "a minute's worth is there from the beginning");
        assert_eq!(spent(&of_time, 99, later(10)), 1);
        assert_eq!(spent(&of_time, 99, later(5)), 0, "time that was counted is not counted again");
        assert_eq!(spent(&of_time, 99, later(3600)), 6, "no more than a minute's worth is saved up");
    }

    #[test]
    fn a_quiet_day_is_not_saved_up_for_a_storm() {
        let now = Instant::now();
        let budget = budget(100, 5, now);
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!(spent(&budget, 1000, now), 100);
    }

    #[test]
    fn however_calls_and_failures_come_attempts_stay_within_their_share() {
        let mut seed = 7_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..50 {
            let begin = Instant::now();
            let (hundredths, per_minute) = (random(101), random(20));
            let budget =
                budget(u8::try_from(hundredths).expect("below 101"), u32::try_from(per_minute).expect("small"), begin);
            let (mut now, mut calls, mut retries) = (begin, 0_u64, 0_u64);
            for _ in 0..2000 {
                match random(3) {
                    0 => now += Duration::from_millis(random(2000)),
                    1 => {
                        budget.earn();
                        calls += 1;
                    }
                    _ => retries += u64::from(budget.spend(now)),
                }
                let minutes = now.duration_since(begin).as_secs() / 60 + 1;
                let most = calls * hundredths / 100 + per_minute * (minutes + 1) + 1;
                assert!(retries <= most, "{retries} of {calls} calls in {minutes} minutes");
            }
        }
    }
}
