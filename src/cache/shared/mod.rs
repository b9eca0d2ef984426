//! Shared: the second level, in a store that replicas have in common. Looked up when memory has nothing; filled off the
//! calls' way, through a bounded queue.
//!
//! What goes there is sealed, and lives no longer than its answer may serve. Whatever goes wrong there is counted, and
//! never a call's failure. Rules by which answers die are told to the other replicas, and heard from them, by
//! `cache::shared::rules`.

pub mod envelope;
mod rulebook;
mod rules;
mod sealing;
mod writer;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use crate::cache::invalidation::Rules;
use crate::cache::key::Key;
use crate::cache::shared::envelope::{Content, unpack};
use crate::cache::shared::rulebook::{Place, Rulebook};
use crate::cache::shared::sealing::Seal;
use crate::cache::shared::writer::Put;
use crate::cache::{Cache, Stored};
use crate::store::Answer;
use crate::store::client::Commands;
use crate::store::naming::Installation;
use crate::store::{self, Store, Unavailable};
use crate::units::Backlog;

/// Most answers that wait to be written.
const MOST_WAITING: usize = 1024;
/// Most bytes of them, in kibibytes.
const MOST_WAITING_KIB: usize = 16 << 10;
/// How old the newest reading of the rules may be. Beyond that, another replica may have made one more than a second
/// ago, and what is found is not used.
const RULES_HOLD: Duration = Duration::from_secs(1);

/// Something the second level did, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A look-up that took so long found an answer that may serve, one that may not any more, or none.
    LookedUp(Found, Duration),
    /// An answer was written.
    Stored,
    /// An answer that was offered was not written.
    NotStored,
    /// An operation failed, or was left out because it would have.
    Failed(Work),
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// An answer.
    Fresh,
    /// An answer that is too old.
    Stale,
    /// None.
    Nothing,
}

/// What may fail: the label `operation` of `weir_cache_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A look-up.
    Get,
    /// A write.
    Put,
    /// A rule told, heard or carried out.
    Delete,
}

/// Told of each event.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// The second level.
pub struct Shared {
    store: Arc<Store>,
    seal: Seal,
    prefix: Box<str>,
    compress_above: usize,
    max_body: usize,
    on_event: OnEvent,
    queue: mpsc::Sender<Put>,
    /// Until it is taken by the one who writes.
    waiting: Mutex<Option<mpsc::Receiver<Put>>>,
    /// Kibibytes that may wait.
    space: Arc<Semaphore>,
    /// Answers for which there was no space.
    dropped: AtomicU64,
    rulebook: Mutex<Rulebook>,
    /// When the rules were read last.
    rules_read: Mutex<Option<Instant>>,
    rule_made: Notify,
    to_be_cleared: AtomicBool,
}

/// What is done off the calls' way: writing, telling and hearing rules, making room. Runs until it is dropped.
pub(super) async fn work(cache: &Arc<Cache>, shared: &Arc<Shared>) {
    tokio::join!(writer::write(cache, shared), rules::follow(cache, shared), rules::clear(shared));
}

/// The server was not asked.
pub(super) struct Unasked;

impl Shared {
    /// A second level in `store`, for bodies of at most `max_body` bytes, sealed with the secret of `installation`.
    #[must_use]
    pub fn new(
        settings: &store::Settings,
        installation: &Installation,
        store: Arc<Store>,
        max_body: usize,
        on_event: OnEvent,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        Self {
            store,
            seal: Seal::new(installation),
            prefix: settings.prefix.as_str().into(),
            compress_above: settings.compress_above.as_len(),
            max_body,
            on_event,
            queue,
            waiting: Mutex::new(Some(waiting)),
            space: Arc::new(Semaphore::new(MOST_WAITING_KIB)),
            dropped: AtomicU64::new(0),
            rulebook: Mutex::default(),
            rules_read: Mutex::default(),
            rule_made: Notify::new(),
            to_be_cleared: AtomicBool::new(false),
        }
    }

    /// Looks for a response that others, or this weir in an earlier life, have stored under this key, within the
    /// store's deadline. Dropping the future gives up the look-up.
    ///
    /// # Errors
    /// If the server was not asked, because its answer would be of no use, or would not come.
    pub(super) async fn find(&self, key: &Key, rules: &Rules) -> Result<Option<Stored>, Unasked> {
        let started = Instant::now();
        if !self.rules_hold(started) {
            self.tell(Event::Failed(Work::Get));
            return Err(Unasked);
        }
        let name = self.name_of(key);
        let answered = self.store.run(&Commands::one("GET", &[name.as_bytes()])).await;
        let found = match answered.map(|mut answers| answers.pop()) {
            Ok(Some(Answer::Nothing)) => None,
            Ok(Some(Answer::Bytes(sealed))) => match self.open(&name, sealed) {
                Some(content) => self.place_among(rules, content, started),
                None => return Ok(self.failed_to_get(started)),
            },
            Err(Unavailable::Down | Unavailable::Busy) => {
                self.tell(Event::Failed(Work::Get));
                return Err(Unasked);
            }
            Err(Unavailable::Late | Unavailable::Broken) | Ok(_) => return Ok(self.failed_to_get(started)),
        };
        let now = Instant::now();
        let what = match &found {
            Some(stored) if stored.age(now) < stored.lifetime() => Found::Fresh,
            Some(_) => Found::Stale,
            None => Found::Nothing,
        };
        self.tell(Event::LookedUp(what, now.saturating_duration_since(started)));
        Ok(found)
    }

    fn failed_to_get(&self, started: Instant) -> Option<Stored> {
        self.tell(Event::Failed(Work::Get));
        self.tell(Event::LookedUp(Found::Nothing, started.elapsed()));
        None
    }

    fn open(&self, name: &str, mut sealed: Vec<u8>) -> Option<Content> {
        let most = self.max_body + envelope::MOST_HEAD_BYTES + sealing::OVERHEAD;
        if sealed.len() > most {
            return None;
        }
        unpack(self.seal.open(name.as_bytes(), &mut sealed)?, self.max_body)
    }

    /// The same as one of this weir's own, unless it is not certain that no rule names it.
    fn place_among(&self, rules: &Rules, content: Content, now: Instant) -> Option<Stored> {
        let Content { reply, about, asked, stored_at, lifetime, keep_for } = content;
        let asked = self.rulebook().asked(Place(asked), rules.asked())?;
        // Clocks differ; an age below nothing is none.
        let age = SystemTime::now().duration_since(stored_at).unwrap_or_default();
        let keep_for = keep_for.checked_sub(age).filter(|rest| !rest.is_zero())?;
        Some(Stored { reply, about, asked, since: now.checked_sub(age).unwrap_or(now), lifetime, keep_for })
    }

    /// Offers a response to the others. Never waits: what there is no space for is dropped, and counted.
    pub(super) fn offer(&self, key: Key, stored: &Arc<Stored>) {
        let kib = stored.reply().body.len().div_ceil(1024) + 1;
        let put = || {
            let space = Arc::clone(&self.space).try_acquire_many_owned(u32::try_from(kib).ok()?).ok()?;
            self.queue.try_send(Put { key, stored: Arc::clone(stored), _space: space }).ok()
        };
        if !self.store.is_up() {
            return self.not_stored();
        }
        if put().is_none() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.not_stored();
        }
    }

    /// Answers that wait to be written.
    pub(super) fn backlog(&self) -> Backlog {
        let capacity = self.queue.max_capacity();
        Backlog {
            length: Some(capacity - self.queue.capacity()),
            capacity,
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    fn not_stored(&self) {
        self.tell(Event::NotStored);
        self.tell(Event::Failed(Work::Put));
    }

    fn name_of(&self, key: &Key) -> String {
        format!("{}:answer:{}", self.prefix, self.seal.name(key.as_bytes()))
    }

    fn tell(&self, event: Event) {
        (self.on_event)(event);
    }

    fn rulebook(&self) -> MutexGuard<'_, Rulebook> {
        self.rulebook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules_hold(&self, now: Instant) -> bool {
        let read = *self.rules_read.lock().unwrap_or_else(PoisonError::into_inner);
        read.is_some_and(|read| now.saturating_duration_since(read) < RULES_HOLD)
    }

    fn rules_were_read(&self, when: Instant) {
        *self.rules_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(when);
    }

    fn is_to_be_cleared(&self) -> bool {
        self.to_be_cleared.swap(false, Ordering::Relaxed)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
