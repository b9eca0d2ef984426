//! Seldom: how often something is said that may happen thousands of times a second. Knows no words.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long nothing is said once something has been.
const SILENCE: Duration = Duration::from_secs(10);

/// When something was last said, and how often there would have been something to say since.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// It happens: how often it has since it was last said, this time included, if it may be said again.
    pub fn now(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (said, times) = &mut *state;
        *times += 1;
        let now = Instant::now();
        if said.is_some_and(|said| now.saturating_duration_since(said) < SILENCE) {
            return None;
        }
        *said = Some(now);
        Some(std::mem::take(times))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_all_the_time_is_said_once_in_a_while_and_counted() {
        let seldom = Seldom::default();
        assert_eq!([seldom.now(), seldom.now(), seldom.now()], [Some(1), None, None]);
        advance(SILENCE).await;
        assert_eq!([seldom.now(), seldom.now()], [Some(3), None]);
    }
}
