//! Retry: whether an attempt is followed by another one, and after how long. Pure: knows what an attempt met, and the
//! random number it is given; not what is asked, nor the clock.

use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::outcome::Trouble;
use crate::units::Span;
use crate::upstream::{Failure, retry_budget};

/// What the operator writes of retries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How often a call is made again, at most; none by default. SDKs retry as well: what both do multiplies.
    pub max: u32,
    /// The longest wait before the first retry. Before each further one it is twice as long, and each waits a random part
    /// of it, so that those who failed together do not come back together.
    pub base_delay: Span,
    /// No retry waits longer than this, unless the provider says so.
    pub max_delay: Span,
    /// The longest wait that a provider may ask for (`Retry-After`): where it asks for more, its answer goes to the app.
    pub max_wait: Span,
    /// After what a call is made again: `connect` (no connection, or it broke before an answer came), `timeout` (no
    /// answer within `first_byte_timeout`, or a 408), `rate_limit` (a 429, but none that says that the money is spent)
    /// and `server_error` (a 5xx).
    pub on: Vec<Trouble>,
    /// How many retries there may be in all, so that they never become a storm.
    pub budget: retry_budget::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max: 0,
            base_delay: Span::from_millis(500),
            max_delay: Span::from_secs(8),
            max_wait: Span::from_secs(30),
            on: Trouble::ALL.to_vec(),
            budget: retry_budget::Settings::default(),
        }
    }
}

impl Settings {
    /// How long to wait before the retry of this number, the first one being 0; `None` if the provider has `asked` for
    /// more than is waited for. `random` is any number.
    #[must_use]
    pub fn wait(&self, retry: u32, asked: Option<Duration>, random: u32) -> Option<Duration> {
        let part = f64::from(random) / f64::from(u32::MAX);
        let base = self.base_delay.get();
        match asked {
            Some(asked) if asked > self.max_wait.get() => None,
            // Not all at the very moment that it named.
            Some(asked) => Some(asked + base.mul_f64(part)),
            None => {
                let doubled = base.saturating_mul(2_u32.saturating_pow(retry.min(30)));
                Some(doubled.min(self.max_delay.get()).mul_f64(part))
            }
        }
    }
}

/// What an answer of this status is, if another attempt may fare better.
#[must_use]
pub fn of_status(status: StatusCode) -> Option<Trouble> {
    match status.as_u16() {
        408 => Some(Trouble::Timeout),
        429 => Some(Trouble::RateLimit),
        500..=599 => Some(Trouble::ServerError),
        _ => None,
    }
}

/// What a failure is, if another attempt may fare better.
#[must_use]
pub const fn of_failure(failure: &Failure) -> Option<Trouble> {
    match failure {
        Failure::Dns(_) | Failure::Connect(_) | Failure::Tls(_) | Failure::ConnectTimeout | Failure::Reset(_) => {
            Some(Trouble::Connect)
        }
        Failure::FirstByteTimeout(_) => Some(Trouble::Timeout),
        // Of these no provider is to blame, or there is no time left for another attempt.
        Failure::RequestBody(_)
        | Failure::RequestStalled(_)
        | Failure::NoDescriptor(_)
        | Failure::TotalTimeout(_)
        | Failure::Unsigned(_)
        | Failure::CircuitOpen(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_failures_that_another_attempt_may_mend() {
        for (status, expected) in [
            (200, None),
            (400, None),
            (401, None),
            (404, None),
            (408, Some(Trouble::Timeout)),
            (409, None),
            (429, Some(Trouble::RateLimit)),
            (500, Some(Trouble::ServerError)),
            (503, Some(Trouble::ServerError)),
            (529, Some(Trouble::ServerError)),
        ] {
            assert_eq!(of_status(StatusCode::from_u16(status).expect("a status")), expected, "{status}");
        }
        let open = Failure::CircuitOpen(Duration::ZERO);
        let silent = Failure::FirstByteTimeout(Duration::ZERO);
        assert_eq!(of_failure(&Failure::ConnectTimeout), Some(Trouble::Connect));
        assert_eq!(of_failure(&Failure::Reset("gone".into())), Some(Trouble::Connect));
        assert_eq!(of_failure(&silent), Some(Trouble::Timeout));
        assert_eq!(of_failure(&Failure::RequestBody("gone".into())), None);
        assert_eq!(of_failure(&open), None);
    }

    #[test]
    fn waits_double_up_to_a_limit_and_are_a_random_part_of_that() {
        let (settings, all, half) = (Settings::default(), u32::MAX, u32::MAX / 2 + 1);
        let millis = |retry, asked: Option<u64>, random| {
            let asked = asked.map(Duration::from_millis);
            settings.wait(retry, asked, random).map(|wait| wait.as_millis())
        };
        for (rule, retry, asked, random, expected) in [
            ("the first", 0, None, all, Some(500)),
            ("a part of it", 0, None, half, Some(250)),
            ("none of it", 0, None, 0, Some(0)),
            ("twice as long", 1, None, all, Some(1000)),
            ("twice again", 3, None, all, Some(4000)),
            ("no longer than that", 5, None, all, Some(8000)),
            ("however often", u32::MAX, None, all, Some(8000)),
            ("as the provider asks", 0, Some(20_000), 0, Some(20_000)),
            ("not all at that moment", 3, Some(20_000), all, Some(20_500)),
            ("the longest that is waited for", 0, Some(30_000), 0, Some(30_000)),
            ("too long", 0, Some(30_001), 0, None),
        ] {
            assert_eq!(millis(retry, asked, random), expected, "{rule}");
        }
    }
}
