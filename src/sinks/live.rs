//! Live: calls as they end, for whoever watches, and how the last minute went.
//!
//! While nobody watches, a call that is over looks at one flag and goes on. While somebody does, it is made an entry once,
//! and left in a ring of a fixed length that every watcher reads at its own pace: one that is too slow loses the oldest
//! and is told how many. Nothing waits for a watcher. Knows entries; not how they are shown.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ledger::entry::Entry;
use crate::record::outcome::{CacheStatus, Outcome};
use crate::units::PicoUsd;

/// Most watchers at once.
pub const MOST_WATCHERS: usize = 8;
/// How many calls a watcher may lag behind before it loses some.
const HELD_CALLS: usize = 1024;
/// How many seconds are remembered.
const REMEMBERED: u64 = 60;
/// How many latencies are remembered, however many calls those seconds had.
const HELD_LATENCIES: usize = 4096;

/// What is going on.
pub struct Live {
    is_watched: AtomicBool,
    calls: broadcast::Sender<Arc<Entry>>,
    watched: Mutex<Watched>,
    over: CancellationToken,
}

/// How many watch, and what they see besides calls.
#[derive(Debug)]
struct Watched {
    by: usize,
    lately: Lately,
}

impl Live {
    /// Nobody watches yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_watched: AtomicBool::new(false),
            calls: broadcast::Sender::new(HELD_CALLS),
            watched: Mutex::new(Watched { by: 0, lately: Lately::begin(Instant::now()) }),
            over: CancellationToken::new(),
        }
    }

    /// Whether it is worth making an entry for [`Live::offer`].
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// A call is over. Takes two short locks, and waits for nobody.
    pub fn offer(&self, entry: Arc<Entry>) {
        self.watched().lately.add(&entry, Instant::now());
        // The last watcher may just have gone.
        let _ = self.calls.send(entry);
    }

    /// Watches from now on, until the watcher is dropped. What is said of the last minute begins with the first watcher.
    /// `None` if there are [`MOST_WATCHERS`] already, or all is over.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Option<Watcher> {
        let mut watched = self.watched();
        if watched.by == MOST_WATCHERS || self.over.is_cancelled() {
            return None;
        }
        watched.by += 1;
        if watched.by == 1 {
            watched.lately = Lately::begin(Instant::now());
        }
        self.is_watched.store(true, Ordering::Relaxed);
        Some(Watcher { live: Arc::clone(self), calls: self.calls.subscribe() })
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.watched().by
    }

    /// Nothing more will happen: every watcher comes to its end, and there are no new ones.
    pub fn end(&self) {
        self.over.cancel();
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("watchers", &self.watchers()).finish_non_exhaustive()
    }
}

/// What a watcher comes to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A call that is over.
    Call(Arc<Entry>),
    /// So many calls were lost, because the watcher was too slow.
    Lost(u64),
}

/// Somebody who watches.
#[derive(Debug)]
pub struct Watcher {
    live: Arc<Live>,
    calls: broadcast::Receiver<Arc<Entry>>,
}

impl Watcher {
    /// The next call; `None` once all is over and every call was seen. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Seen> {
        tokio::select! {
            biased;
            call = self.calls.recv() => match call {
                Ok(entry) => Some(Seen::Call(entry)),
                Err(RecvError::Lagged(lost)) => Some(Seen::Lost(lost)),
                Err(RecvError::Closed) => None,
            },
            () = self.live.over.cancelled() => None,
        }
    }

    /// How the last minute went.
    #[must_use]
    pub fn lately(&self) -> Summary {
        let now = Instant::now();
        let lately = self.live.watched().lately.clone();
        lately.summary(now)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watched = self.live.watched();
        watched.by -= 1;
        if watched.by == 0 {
            self.live.is_watched.store(false, Ordering::Relaxed);
            watched.lately = Lately::begin(Instant::now());
        }
    }
}

/// What calls of some time come to. Calls that were answered by reuse used and cost nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many there were.
    pub calls: u64,
    /// How many ended in each way, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Tokens that were used, as far as is known.
    pub tokens: u64,
    /// What was spent, as far as is known.
    pub spent: PicoUsd,
    /// How many cost nobody knows what.
    pub unpriced: u64,
    /// How many the cache was asked for: hit, miss or expired.
    pub lookups: u64,
    /// How many of these were hits.
    pub hits: u64,
}

impl Sums {
    fn add_call(&mut self, entry: &Entry) {
        let known = Outcome::ALL.iter().position(|outcome| outcome.as_str() == entry.outcome);
        let is = |status: CacheStatus| u64::from(entry.cache == status.as_str());
        let bought = entry.usage.filter(|_| entry.reuse.is_none());
        let mut call = Self {
            calls: 1,
            tokens: bought.map_or(0, |usage| usage.total_tokens()),
            spent: entry.cost.unwrap_or_default(),
            unpriced: u64::from(entry.unpriced.is_some() && entry.reuse.is_none()),
            lookups: is(CacheStatus::Hit) + is(CacheStatus::Miss) + is(CacheStatus::Expired),
            hits: is(CacheStatus::Hit),
            ..Self::default()
        };
        if let Some(outcome) = known {
            call.outcomes[outcome] = 1;
        }
        self.add(&call);
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.spent += other.spent;
        self.unpriced += other.unpriced;
        self.lookups += other.lookups;
        self.hits += other.hits;
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, more)| *sum += more);
    }

    /// How many ended so.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        Outcome::ALL.iter().zip(self.outcomes).find(|(known, _)| **known == outcome).map_or(0, |(_, count)| count)
    }

    /// The share of calls that failed without the app's doing, among these and those that went well: what the alerts
    /// call errors (`job:weir_errors_per_request`). `None` if there were none of either.
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        let failed = [Outcome::UpstreamError, Outcome::Timeout, Outcome::InternalError];
        let failed = failed.into_iter().map(|outcome| self.ended(outcome)).sum();
        share(failed, failed + self.ended(Outcome::Success))
    }

    /// The share of hits among look-ups; `None` if there were none.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        share(self.hits, self.lookups)
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

/// How the last minute went, or what there was of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The time it is of: a minute at most, less just after somebody began to watch.
    pub over: Duration,
    /// What its calls come to.
    pub sums: Sums,
    /// The same of the last whole second.
    pub last_second: Sums,
    /// What half of the calls took no longer than; of the last few thousand, where there were more.
    pub p50: Option<Duration>,
    /// What 95 in a hundred took no longer than, likewise.
    pub p95: Option<Duration>,
}

/// The last minute, second by second.
#[derive(Clone, Debug)]
struct Lately {
    began: Instant,
    /// The seconds that had calls, each with its number since the beginning.
    seconds: VecDeque<(u64, Sums)>,
    /// How long calls took, each with the number of its second.
    latencies: VecDeque<(u64, Duration)>,
}

impl Lately {
    const fn begin(now: Instant) -> Self {
        Self { began: now, seconds: VecDeque::new(), latencies: VecDeque::new() }
    }

    fn add(&mut self, entry: &Entry, now: Instant) {
        let second = self.second(now);
        match self.seconds.back_mut() {
            // Never back: another thread may have looked at the clock a little later, and come first.
            Some((last, sums)) if *last >= second => sums.add_call(entry),
            _ => {
                let mut sums = Sums::default();
                sums.add_call(entry);
                self.seconds.push_back((second, sums));
                let oldest = second.saturating_sub(REMEMBERED);
                self.seconds.retain(|(number, _)| *number >= oldest);
            }
        }
        if self.latencies.len() == HELD_LATENCIES {
            self.latencies.pop_front();
        }
        self.latencies.push_back((second, entry.latency));
    }

    fn summary(&self, now: Instant) -> Summary {
        let second = self.second(now);
        // The second that is not over yet counts as one of the sixty.
        let from = second.saturating_sub(REMEMBERED - 1);
        let mut sums = Sums::default();
        let recent = self.seconds.iter().filter(|(number, _)| *number >= from);
        recent.for_each(|(_, of_second)| sums.add(of_second));
        let last = |(number, _): &&(u64, Sums)| number.checked_add(1) == Some(second);
        let latencies = self.latencies.iter().filter(|(number, _)| *number >= from);
        let mut latencies: Vec<Duration> = latencies.map(|(_, took)| *took).collect();
        latencies.sort_unstable();
        Summary {
            over: now.duration_since(self.began + Duration::from_secs(from)),
            sums,
            last_second: self.seconds.iter().find(last).map(|(_, sums)| *sums).unwrap_or_default(),
            p50: nearest_rank(&latencies, 50),
            p95: nearest_rank(&latencies, 95),
        }
    }

    fn second(&self, now: Instant) -> u64 {
        now.duration_since(self.began).as_secs()
    }
}

/// Of `sorted`, the least that `percent` in a hundred do not exceed.
fn nearest_rank(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use allocation_counter::measure;

    use super::*;
    use crate::record::Record;
    use crate::sinks::log::tests::record;
    use crate::sinks::log::{CallLog, Calls};
    use crate::sinks::metrics::{About, Metrics, PriceTable};
    use crate::sinks::{Settings, Sinks};

    fn sinks() -> Sinks {
        let prices = PriceTable { version: String::new(), source: String::new(), published_at: SystemTime::UNIX_EPOCH };
        let about = About { version: "", revision: "", prices };
        let metrics = Metrics::new(&Settings::default(), &["openai".into()], about);
        Sinks::new(Arc::new(metrics), CallLog::new(Calls::None), None)
    }

    fn call(sinks: &Sinks, record: &Record) {
        sinks.opened("openai");
        sinks.closed(record);
    }

    /// An entry of a call that took so many milliseconds.
    fn entry(outcome: Outcome, took: u64) -> Arc<Entry> {
        let entry = Entry::of(&record(outcome), SystemTime::UNIX_EPOCH);
        Arc::new(Entry { latency: Duration::from_millis(took), ..entry })
    }

    #[tokio::test]
    async fn a_watcher_that_reads_nothing_slows_no_call_and_is_told_what_it_lost() {
        const CALLS: u64 = 5000;
        let (sinks, record) = (sinks(), record(Outcome::Success));
        let (mut stalled, mut quick) = (sinks.live().watch().expect("a place"), sinks.live().watch().expect("a place"));
        for _ in 0..CALLS {
            call(&sinks, &record);
            assert!(matches!(quick.next().await, Some(Seen::Call(_))), "one that keeps up loses nothing");
        }
        assert_eq!(sinks.records_closed(), CALLS, "nothing waited for the one that reads nothing");
        assert_eq!(stalled.next().await, Some(Seen::Lost(CALLS - 1024)));
        sinks.live().end();
        for seen in 0..1024 {
            let Some(Seen::Call(entry)) = stalled.next().await else { panic!("call {seen} is missing") };
            assert_eq!(*entry.request_id, *record.id.to_string());
        }
        assert_eq!((stalled.next().await, quick.next().await), (None, None), "all is over");
    }

    #[tokio::test]
    async fn nothing_is_made_of_a_call_while_nobody_watches() {
        let (sinks, record) = (sinks(), record(Outcome::Success));
        // What series it has is made with the first.
        call(&sinks, &record);
        let before = measure(|| call(&sinks, &record)).count_total;
        let watcher = sinks.live().watch();
        let meanwhile = measure(|| call(&sinks, &record)).count_total;
        drop(watcher);
        let afterwards = measure(|| call(&sinks, &record)).count_total;
        assert!(meanwhile > before, "an entry was made");
        assert_eq!(afterwards, before, "and no longer is");
        let live = sinks.live();
        assert_eq!(measure(|| assert!(!live.is_watched())).count_total, 0);
    }

    #[tokio::test]
    async fn there_are_few_places_and_each_is_free_again_once_it_is_left() {
        let live = Arc::new(Live::new());
        let mut watchers: Vec<Watcher> = (0..MOST_WATCHERS).map(|_| live.watch().expect("a place")).collect();
        assert!(live.watch().is_none());
        watchers.pop();
        watchers.push(live.watch().expect("the place that was left"));
        watchers.clear();
        assert!(!live.is_watched() && live.watchers() == 0);
        live.end();
        assert!(live.watch().is_none(), "all is over");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_minute_is_added_up_and_slides() {
        let live = Arc::new(Live::new());
        let watcher = live.watch().expect("a place");
        assert_eq!(watcher.lately().over, Duration::ZERO);
        for took in 1..=20 {
            live.offer(entry(Outcome::Success, took));
        }
        live.offer(entry(Outcome::ClientError, 1));
        live.offer(entry(Outcome::Timeout, 1));
        assert_eq!(watcher.lately().last_second, Sums::default(), "it is not over");

        tokio::time::advance(Duration::from_millis(1500)).await;
        let lately = watcher.lately();
        assert_eq!(lately.over, Duration::from_millis(1500));
        assert_eq!((lately.last_second.calls, lately.sums), (22, lately.last_second));
        assert_eq!(lately.sums.spent, PicoUsd::new(22 * 25_040_000_000));
        assert_eq!((lately.sums.tokens, lately.sums.unpriced), (22 * 120, 0));
        assert_eq!(lately.sums.error_rate(), Some(1.0 / 21.0), "what the app did wrong is no error of a provider's");
        assert_eq!(lately.sums.hit_rate(), None, "nobody asked the cache");
        assert_eq!((lately.p50, lately.p95), (Some(Duration::from_millis(9)), Some(Duration::from_millis(19))));

        tokio::time::advance(Duration::from_secs(57)).await;
        live.offer(entry(Outcome::Success, 7));
        assert_eq!((watcher.lately().sums.calls, watcher.lately().last_second.calls), (23, 0));
        tokio::time::advance(Duration::from_secs(2)).await;
        let lately = watcher.lately();
        assert_eq!((lately.sums.calls, lately.p95), (1, Some(Duration::from_millis(7))));
        assert_eq!(lately.over, Duration::from_millis(59_500));
        drop(watcher);
        assert_eq!(live.watch().expect("a place").lately().sums, Sums::default(), "who comes first begins anew");
    }

    #[tokio::test]
    async fn what_reuse_saved_is_not_spent() {
        let saved = Entry {
            reuse: Some("cache".into()),
            cache: "hit".into(),
            cost: None,
            ..(*entry(Outcome::Success, 1)).clone()
        };
        let unknown =
            Entry { unpriced: Some("unknown_model".into()), cost: None, cache: "miss".into(), ..saved.clone() };
        let unknown = Entry { reuse: None, ..unknown };
        let mut sums = Sums::default();
        sums.add_call(&saved);
        sums.add_call(&unknown);
        assert_eq!((sums.calls, sums.tokens, sums.spent, sums.unpriced), (2, 120, PicoUsd::ZERO, 1));
        assert_eq!(sums.hit_rate(), Some(0.5));
    }

    #[test]
    fn however_many_calls_there_are_little_is_remembered() {
        let (began, entry) = (Instant::now(), entry(Outcome::Success, 1));
        let mut lately = Lately::begin(began);
        for call in 0..20_000 {
            lately.add(&entry, began + Duration::from_millis(call * 10));
        }
        assert!(lately.latencies.len() <= HELD_LATENCIES, "{}", lately.latencies.len());
        assert!(lately.seconds.len() <= 62, "{}", lately.seconds.len());
    }
}
