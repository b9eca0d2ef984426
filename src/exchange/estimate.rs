//! Estimate: what a call used where its provider did not say. The prompt is counted from the request, what was
//! generated from the reply, by a tokenizer where one can be had and by length where not.
//!
//! Nothing is counted on the call's way, nor while it is dropped: an exchange that needs an estimate is handed to a
//! thread that may block, a few at a time, and closes when that is done. Knows no prices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json_borrow::Value;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::exchange::{Rooms, Settings};
use crate::json;
use crate::provider::output::Output;
use crate::tokens::prompt::{self, Measure};
use crate::tokens::{self, Count, Vocabulary};
use crate::units::Backlog;

/// How many estimates are counted at once. One takes milliseconds, and a fifth of a second at most.
const COUNTED_AT_ONCE: usize = 2;

/// How many more may wait for that; those beyond are told from length at once.
const MOST_WAITING: usize = 256;

/// What estimates need, for the whole process.
#[derive(Debug)]
pub struct Estimator {
    /// Bytes of requests kept.
    kept: Arc<AtomicU64>,
    most_kept: u64,
    /// Places for estimates that wait for their turn.
    pub places: Arc<Semaphore>,
    /// Turns to be counted.
    pub turns: Arc<Semaphore>,
    /// Estimates for which there was no place.
    crowded_out: Arc<AtomicU64>,
}

impl Estimator {
    /// An estimator that keeps as many bytes of requests as `settings` allow.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            kept: Arc::default(),
            most_kept: settings.max_estimate_bytes.bytes(),
            places: Arc::new(Semaphore::new(MOST_WAITING)),
            turns: Arc::new(Semaphore::new(COUNTED_AT_ONCE)),
            crowded_out: Arc::default(),
        }
    }

    /// The same, and what is kept already counts, up to as many bytes as `settings` allow.
    #[must_use]
    pub fn on_terms(&self, settings: &Settings) -> Self {
        Self {
            kept: Arc::clone(&self.kept),
            most_kept: settings.max_estimate_bytes.bytes(),
            places: Arc::clone(&self.places),
            turns: Arc::clone(&self.turns),
            crowded_out: Arc::clone(&self.crowded_out),
        }
    }

    /// Estimates that wait for their turn, or are being counted; those that were left out went by length.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        Backlog {
            length: Some(MOST_WAITING.saturating_sub(self.places.available_permits())),
            capacity: MOST_WAITING,
            dropped: self.crowded_out.load(Ordering::Relaxed),
        }
    }

    /// Keeps the prompt of a request whose body is `json`: all of it while there is space, else its size.
    pub(super) fn keep(&self, json: &Bytes, request: &Value<'_>) -> Prompt {
        let kept = Kept::within(self.most_kept, &self.kept, json);
        Prompt { measure: prompt::read(request, &mut |_| {}), json: kept }
    }
}

/// The prompt of a call in progress.
#[derive(Debug)]
pub(super) struct Prompt {
    measure: Measure,
    json: Option<Kept>,
}

/// A request's body, shared with whoever sends it, on account of a bound that all of them share.
#[derive(Debug)]
struct Kept {
    json: Bytes,
    account: Arc<AtomicU64>,
}

impl Kept {
    fn within(most: u64, account: &Arc<AtomicU64>, json: &Bytes) -> Option<Self> {
        let add = |kept: u64| kept.checked_add(json.len() as u64).filter(|kept| *kept <= most);
        account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Self { json: json.clone(), account: Arc::clone(account) })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.account.fetch_sub(self.json.len() as u64, Ordering::Relaxed);
    }
}

/// What is to be estimated, and from what.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) vocabulary: Vocabulary,
    /// For the input.
    pub(super) prompt: Option<Prompt>,
    /// For the output.
    pub(super) output: Option<Output>,
}

/// Tokens, by estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Estimate {
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
}

impl Job {
    /// By the vocabulary: for a thread that may block.
    fn count(&self) -> Estimate {
        Estimate {
            input: self.prompt.as_ref().map(|prompt| prompt.count(self.vocabulary)),
            output: self.output.as_ref().map(|output| {
                let mut count = Count::new(self.vocabulary);
                count.add(output.text());
                count.add_unseen(output.bytes().saturating_sub(output.text().len() as u64));
                count.tokens()
            }),
        }
    }

    /// By length: at once.
    fn measure(&self) -> Estimate {
        Estimate {
            input: self.prompt.as_ref().map(Prompt::by_length),
            output: self.output.as_ref().map(|output| tokens::by_length(output.bytes())),
        }
    }
}

impl Prompt {
    fn count(&self, vocabulary: Vocabulary) -> u64 {
        let Some(request) = self.json.as_ref().and_then(|kept| json::opened(&kept.json)) else {
            return self.by_length();
        };
        let mut count = Count::new(vocabulary);
        let measure = prompt::read(&request, &mut |text| count.add(text));
        count.tokens().saturating_add(measure.tokens_beside)
    }

    const fn by_length(&self) -> u64 {
        tokens::by_length(self.measure.text_bytes).saturating_add(self.measure.tokens_beside)
    }
}

/// Hands `job` over to be counted; `then` is called once, with what came of it. Where there is no place, or no runtime
/// any more, that is before this returns, with what its length tells.
pub(super) fn hand_over(rooms: &Rooms, job: Job, then: impl FnOnce(Estimate) + Send + 'static) {
    let pending = Pending(Some((job, then)));
    let estimator = &rooms.estimator;
    let Ok(runtime) = Handle::try_current() else { return };
    let Ok(place) = Arc::clone(&estimator.places).try_acquire_owned() else {
        estimator.crowded_out.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let (turns, hard_stop) = (Arc::clone(&estimator.turns), rooms.hard_stop.clone());
    let counting = async move {
        // Whatever ends this early drops what is pending, which then goes by length.
        let Some(Ok(_turn)) = hard_stop.run_until_cancelled(turns.acquire_owned()).await else { return };
        if spawn_blocking(move || pending.count()).await.is_err() {
            tracing::error!("an estimate could not be counted, and went by length");
        }
        drop(place);
    };
    rooms.tasks.spawn_on(counting, &runtime);
}

/// A job and what comes after it. Dropped before it was counted, it goes by length.
struct Pending<F: FnOnce(Estimate)>(Option<(Job, F)>);

impl<F: FnOnce(Estimate)> Pending<F> {
    fn count(mut self) {
        let estimate = self.0.as_ref().map(|(job, _)| job.count());
        if let (Some((_, then)), Some(estimate)) = (self.0.take(), estimate) {
            then(estimate);
        }
    }
}

impl<F: FnOnce(Estimate)> Drop for Pending<F> {
    fn drop(&mut self) {
        if let Some((job, then)) = self.0.take() {
            then(job.measure());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::units::ByteSize;

    const REQUEST: &[u8] = br#"{"messages":[{"role":"user","content":"Tell me how tides work, in two sentences."}]}"#;

    fn prompt(most_kept: u64) -> (Estimator, Prompt) {
        let settings = Settings { max_estimate_bytes: ByteSize::mib(most_kept), ..Settings::default() };
        let estimator = Estimator::new(&settings);
        let body = Bytes::from_static(REQUEST);
        let request = serde_json::from_slice(&body).expect("JSON");
        let prompt = estimator.keep(&body, &request);
        (estimator, prompt)
    }

    fn output(text: &str) -> Output {
        let mut output = Output::default();
        output.push(text);
        output
    }

    #[test]
    fn a_kept_request_is_on_account_until_it_is_let_go() {
        let (estimator, kept) = prompt(1);
        assert_eq!(estimator.kept.load(Ordering::Relaxed), REQUEST.len() as u64);
        drop(kept);
        assert_eq!(estimator.kept.load(Ordering::Relaxed), 0);
        let (estimator, measured) = prompt(0);
        assert_eq!(estimator.kept.load(Ordering::Relaxed), 0, "there is no space");
        assert_eq!(measured.count(Vocabulary::O200k), measured.by_length());
    }

    #[test]
    fn counting_is_exact_and_length_is_near() {
        let (_estimator, prompt) = prompt(1);
        let job = Job { vocabulary: Vocabulary::O200k, prompt: Some(prompt), output: Some(output("Because they do.")) };
        // Ten tokens of text and four around a message; by length, 41 bytes of text.
        assert_eq!(job.count(), Estimate { input: Some(14), output: Some(4) });
        assert_eq!(job.measure(), Estimate { input: Some(15), output: Some(4) });
        let nothing = Job { vocabulary: Vocabulary::O200k, prompt: None, output: Some(Output::default()) };
        assert_eq!(nothing.count(), Estimate { input: None, output: Some(0) });
    }

    #[test]
    fn what_was_not_kept_of_an_output_counts_like_what_was() {
        let piece = "what was generated ".repeat(6_000);
        let mut long = Output::default();
        for _ in 0..4 {
            long.push(&piece);
        }
        assert!((long.text().len() as u64) < long.bytes());
        let count = |output| Job { vocabulary: Vocabulary::O200k, prompt: None, output: Some(output) }.count().output;
        let (once, all) = (count(output(&piece)).expect("counted"), count(long).expect("counted"));
        assert!(all.abs_diff(4 * once) < 4 * once / 100, "{all} is not four times {once}");
    }

    #[test]
    fn what_is_dropped_before_it_is_counted_goes_by_length_once() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let job = Job { vocabulary: Vocabulary::O200k, prompt: None, output: Some(output("eight by")) };
        drop(Pending(Some((job, move |estimate| heard.lock().expect("one thread").push(estimate)))));
        assert_eq!(*said.lock().expect("one thread"), [Estimate { input: None, output: Some(2) }]);
    }
}
