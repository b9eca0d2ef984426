//! Shared: limits and budgets that replicas hold together, by way of the store.
//!
//! A replica holds a lease of each budget and a few requests and tokens of each rate, and lets calls go against those
//! without asking. Only a call that does not fit makes it ask, once for all rules and all calls that wait then, within
//! the store's deadline. Twice a second it tells what was used, gives back what it does not need and hears how all
//! stand. While the server is away, or has only just begun to remember, each replica goes by its fair share.
//!
//! One task talks to the server, one round trip at a time, so that what is said is heard in order, and goes on waiting for
//! an answer when the calls that waited for it have given up. It knows what is said of each rule; how a rule decides is
//! the rule's own business.

pub(super) mod calls;
pub(super) mod hand;
pub(super) mod lease;
pub(super) mod money;
mod script;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::limits::budget::{Account, Budget};
use crate::limits::rate::{RateLimit, State};
use crate::limits::shared::hand::Request;
use crate::limits::shared::lease::{Statement, Why};
use crate::limits::shared::script::{Answered, PRESENCE, Present, Run, Taken};
use crate::limits::slots::Slot;
use crate::limits::standing::Scope;
use crate::limits::window::Period;
use crate::limits::{Clock, Now};
use crate::store::naming::{Installation, Names};
use crate::store::{self, Answer, Store};

/// How often the server is told.
const EVERY: Duration = Duration::from_millis(500);
/// How long a replica goes on by what it was told last, in nanoseconds.
const TOLD_HOLDS: u64 = 2_000_000_000;
/// How long what a replica holds is kept for it, and it is taken to live, in milliseconds. Longer than the above: it has
/// stopped to count on it before others get it.
const LEASE_MS: u64 = 5_000;
/// For how long replicas must have told the server all the time before it is believed, in milliseconds: by then, each that
/// lives has told what it used while it could not, or what the server has forgotten.
const TOLD_FOR_MS: u64 = 3_000;
/// When none of them has told it for so long, in milliseconds, they could not, or were gone.
const CUT_OFF_MS: u64 = 1_500;
/// Most statements in one round trip.
const MOST_AT_ONCE: usize = 64;
/// After how many failures in a row it is said that this replica goes by itself.
const FAILURES_WORTH_TELLING: u64 = 4;
/// A difference of clocks worth a line in the log, in milliseconds.
const CLOCKS_DIFFER_MS: i64 = 5_000;
/// For how long the account of a window is kept after its end, in seconds: until every replica has left that window.
const KEPT_AFTER: i64 = 3_600;

/// On what a decision rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footing {
    pub(super) scope: Scope,
    /// Among how many a limit is divided, where each goes by itself.
    pub(super) replicas: u64,
    /// Whether what a replica holds is still kept for it.
    pub(super) is_kept: bool,
}

impl Footing {
    /// That of a rule that is not shared.
    pub(super) const OWN: Self = Self { scope: Scope::Instance, replicas: 1, is_kept: false };

    /// The part of each of what all have.
    pub(super) fn part(self, all: u128) -> u128 {
        all / u128::from(self.replicas.max(1))
    }
}

/// How this replica stands with the others.
#[derive(Debug)]
pub(super) struct Link {
    /// When the server was asked last what it then answered, by the clock of rates; 0 if it did not.
    contact: AtomicU64,
    /// Since when it could not be asked; 0 if it can.
    lost_at: AtomicU64,
    replicas: AtomicU64,
}

impl Link {
    pub(super) fn footing(&self, now: Now) -> Footing {
        let contact = self.contact.load(Ordering::Relaxed);
        let is_told = contact > 0 && now.nanos < contact.saturating_add(TOLD_HOLDS);
        let scope = if is_told { Scope::App } else { Scope::Instance };
        let lost_at = match self.lost_at.load(Ordering::Relaxed) {
            0 => contact.saturating_add(TOLD_HOLDS),
            lost_at => lost_at,
        };
        let is_kept = now.nanos < lost_at.saturating_add(LEASE_MS * 1_000_000);
        Footing { scope, replicas: self.replicas.load(Ordering::Relaxed), is_kept }
    }

    /// From now on this replica goes by itself, until the server is heard again.
    fn lost(&self, now: Now) {
        self.contact.store(0, Ordering::Relaxed);
        // Since when it did so first.
        let _ = self.lost_at.compare_exchange(0, now.nanos, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// So many replicas were there. Those that have not come back yet are not gone.
    fn are(&self, replicas: u64, is_believed: bool) {
        if is_believed {
            self.replicas.store(replicas.max(1), Ordering::Relaxed);
        } else {
            self.replicas.fetch_max(replicas, Ordering::Relaxed);
        }
    }

    /// The server answered what was asked then.
    fn heard(&self, asked: Now) {
        self.lost_at.store(0, Ordering::Relaxed);
        self.contact.store(asked.nanos, Ordering::Relaxed);
    }
}

/// How the sharing of limits stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharingNow {
    /// Who holds the shared rules.
    pub scope: Scope,
    /// How many replicas there are, as far as is known.
    pub replicas: u64,
    /// How many round trips were made that calls waited for, since the start.
    pub asked: u64,
    /// How many round trips failed, or were not made because they would have.
    pub failed: u64,
}

/// What is told of a rule to the server, for one subject.
#[derive(Clone, Debug)]
pub(super) enum Party {
    Money(Arc<Budget>, Arc<Slot<Account>>),
    Rates(Arc<RateLimit>, Arc<Slot<State>>),
    Places(Arc<RateLimit>, Arc<Slot<State>>),
}

/// What was told.
#[derive(Debug)]
enum Said {
    Money(Statement, Period),
    Rates(Request),
    Places(Statement),
}

/// Those for whom calls wait.
#[derive(Debug, Default)]
struct Queue {
    /// How many times the queue was taken away.
    round: u64,
    parties: Vec<Party>,
}

/// Which rounds were asked about.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    rounds: u64,
    is_answered: bool,
}

/// The system has no randomness to tell this replica from others by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness to name this instance by")]
pub struct Nameless;

/// What it takes to hold rules together with other replicas.
pub struct Shared {
    store: Arc<Store>,
    names: Names,
    prefix: Box<str>,
    /// Who this is, in this life.
    instance: Box<str>,
    deadline: Duration,
    pub(super) link: Arc<Link>,
    turn: AtomicU64,
    queue: Mutex<Queue>,
    is_asked: Notify,
    done: watch::Sender<Done>,
    asked: AtomicU64,
    failed: AtomicU64,
    failed_in_a_row: AtomicU64,
    is_alone: AtomicBool,
    has_heard: watch::Sender<bool>,
    clock_difference_ms: AtomicI64,
}

impl Shared {
    /// Sharing by way of `store`, with what is said named by the secret of `installation`.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new(settings: &store::Settings, installation: &Installation, store: Arc<Store>) -> Result<Self, Nameless> {
        let mut instance = [0; 12];
        SystemRandom::new().fill(&mut instance).map_err(|_| Nameless)?;
        Ok(Self {
            store,
            names: Names::new(&installation.keys_for("weir shared limits")),
            prefix: settings.prefix.as_str().into(),
            instance: URL_SAFE_NO_PAD.encode(instance).into(),
            deadline: settings.deadline.get(),
            link: Arc::new(Link {
                contact: AtomicU64::new(0),
                lost_at: AtomicU64::new(1),
                replicas: AtomicU64::new(settings.replicas.max(1)),
            }),
            turn: AtomicU64::new(1),
            queue: Mutex::default(),
            is_asked: Notify::new(),
            done: watch::Sender::default(),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            failed_in_a_row: AtomicU64::new(0),
            is_alone: AtomicBool::new(false),
            has_heard: watch::Sender::default(),
            clock_difference_ms: AtomicI64::new(0),
        })
    }

    /// How it stands.
    #[must_use]
    pub(super) fn now(&self, now: Now) -> SharingNow {
        let Footing { scope, replicas, .. } = self.link.footing(now);
        let (asked, failed) = (self.asked.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        SharingNow { scope, replicas, asked, failed }
    }

    /// Asks for what calls wait for, and returns when there is an answer, or none to be had before `until`: then this
    /// replica goes by itself. Dropping the future leaves the question asked.
    pub(super) async fn ask(&self, parties: Vec<Party>, clock: Clock, until: Instant) {
        if parties.is_empty() {
            return;
        }
        if !self.store.is_up() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return self.link.lost(clock.now());
        }
        let mut done = self.done.subscribe();
        let round = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.parties.extend(parties);
            queue.round
        };
        self.is_asked.notify_one();
        let answered = timeout_at(until, done.wait_for(|done| done.rounds > round)).await;
        if !answered.is_ok_and(|done| done.is_ok_and(|done| done.is_answered)) {
            self.link.lost(clock.now());
        }
    }

    /// When a call that asks from now on has to be done with it.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Asks, tells and hears. `in_use` gives whoever there is something to tell of. Runs until it is dropped.
    pub(super) async fn work(&self, clock: Clock, in_use: impl Fn(Now) -> Vec<Party>) {
        self.store_is_up().await;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // However many ask, what is held is to be told of.
                _ = ticks.tick() => {
                    self.tell(Why::Telling, clock, in_use(clock.now())).await;
                    self.tell_of_scope(clock.now());
                }
                () = self.is_asked.notified() => {
                    if !self.answer(clock).await {
                        // Whether it was late or is gone, and what was taken meanwhile, is to be known soon.
                        ticks.reset_immediately();
                    }
                }
            }
        }
    }

    /// Resolves when the server is there, or does not seem to come soon.
    async fn store_is_up(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let comes = async {
            while !self.store.is_up() {
                sleep(LOOK_EVERY).await;
            }
        };
        // Either will do.
        let _ = timeout(EVERY, comes).await;
    }

    /// Resolves when the server was heard for the first time.
    pub(super) async fn first_word(&self) {
        // It cannot be closed: this holds it.
        let _ = self.has_heard.subscribe().wait_for(|heard| *heard).await;
    }

    /// Tells for the last time: whoever goes on need not wait for what this replica holds.
    pub(super) async fn leave(&self, clock: Clock, parties: Vec<Party>) {
        self.tell(Why::Leaving, clock, parties).await;
    }

    /// Asks for all for whom calls wait; whether it could.
    async fn answer(&self, clock: Clock) -> bool {
        let (parties, rounds) = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.round += 1;
            (std::mem::take(&mut queue.parties), queue.round)
        };
        let mut is_answered = true;
        for some in parties.chunks(MOST_AT_ONCE) {
            is_answered &= self.exchange(Why::Asking, clock, some).await;
        }
        self.done.send_replace(Done { rounds, is_answered });
        is_answered
    }

    /// Tells of all of them, a few at once; whoever waits is served in between.
    async fn tell(&self, why: Why, clock: Clock, parties: Vec<Party>) {
        if !self.store.is_up() {
            self.failed(clock.now());
            return;
        }
        let mut rest = &*parties;
        loop {
            let (some, later) = rest.split_at(rest.len().min(MOST_AT_ONCE));
            if !self.exchange(why, clock, some).await || later.is_empty() {
                return;
            }
            rest = later;
            if why == Why::Telling {
                self.answer(clock).await;
            }
        }
    }

    /// One round trip: says who is here, and what is to be said of each; whether it was heard and can be believed.
    async fn exchange(&self, why: Why, clock: Clock, parties: &[Party]) -> bool {
        let now = clock.now();
        let mut runs = vec![self.presence(why)];
        let mut said = Vec::with_capacity(parties.len());
        for party in parties {
            if let Some((what, run)) = self.state(party, why, now) {
                said.push((party, what));
                runs.push(run);
            }
        }
        if why == Why::Asking {
            if said.is_empty() {
                return true;
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        let answers = script::run(&self.store, &runs).await.unwrap_or_default();
        let Some((present, rest)) = answers.split_first().and_then(|(first, rest)| Some((Present::read(first)?, rest)))
        else {
            for (party, what) in &said {
                party.unheard(what);
            }
            self.failed(now);
            return false;
        };
        self.compare_clocks(present, now);
        let is_believed = present.told_for_ms >= TOLD_FOR_MS;
        let mut is_heard = true;
        for (place, (party, what)) in said.iter().enumerate() {
            let heard = rest.get(place).is_some_and(|answer| party.hear(what, answer, is_believed, clock.now()));
            if !heard || !is_believed {
                party.unheard(what);
            }
            is_heard &= heard;
        }
        self.link.are(present.replicas, is_believed);
        if !is_heard {
            self.failed(now);
            return false;
        }
        self.failed_in_a_row.store(0, Ordering::Relaxed);
        self.has_heard.send_replace(true);
        if is_believed {
            self.link.heard(now);
        } else {
            self.link.lost(now);
        }
        is_believed
    }

    fn failed(&self, now: Now) {
        self.link.lost(now);
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    fn presence(&self, why: Why) -> Run {
        let stays = if why == Why::Leaving { "0" } else { "1" };
        let arguments = vec![self.instance.to_string(), LEASE_MS.to_string(), stays.to_owned(), CUT_OFF_MS.to_string()];
        Run { script: &PRESENCE, keys: vec![format!("{}:limits:replicas", self.prefix)], arguments }
    }

    /// What to say of one; `None` if there is nothing to ask for any more.
    fn state(&self, party: &Party, why: Why, now: Now) -> Option<(Said, Run)> {
        match party {
            Party::Money(budget, slot) => {
                let (statement, period) = budget.state(slot, why, now)?;
                let start = period.start.seconds().to_le_bytes();
                let key = [b"money\0", budget.name.as_bytes(), b"\0", slot.subject.as_bytes(), b"\0", &start];
                let over = period.end.map_or(0, |end| end.seconds().saturating_add(KEPT_AFTER));
                let run = self.lease(&key, over, &statement);
                Some((Said::Money(statement, period), run))
            }
            Party::Places(rule, slot) => {
                let statement = rule.state_places(slot, why)?;
                let key = [b"places\0", rule.name.as_bytes(), b"\0", slot.subject.as_bytes()];
                let run = self.lease(&key, 0, &statement);
                Some((Said::Places(statement), run))
            }
            Party::Rates(rule, slot) => {
                let request = rule.state_rates(slot, why, now)?;
                let key = [b"rates\0", rule.name.as_bytes(), b"\0", slot.subject.as_bytes()];
                let keys = vec![format!("{}:limits:{{{}}}:rates", self.prefix, self.names.of(&key))];
                let replicas = self.link.replicas.load(Ordering::Relaxed).to_string();
                let arguments = [replicas].into_iter().chain(request.arguments(&rule.rates)).collect();
                Some((Said::Rates(request), Run { script: &script::RATE, keys, arguments }))
            }
        }
    }

    fn lease(&self, key: &[&[u8]], over: i64, statement: &Statement) -> Run {
        let name = self.names.of(key);
        let keys = ["used", "held"].map(|kind| format!("{}:limits:{{{name}}}:{kind}", self.prefix));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let head = [self.instance.to_string(), turn.to_string(), LEASE_MS.to_string(), over.to_string()];
        let arguments = head.into_iter().chain(statement.arguments()).collect();
        Run { script: &script::LEASE, keys: keys.to_vec(), arguments }
    }

    /// Says once that this replica goes by itself, and once that it does not any more.
    fn tell_of_scope(&self, now: Now) {
        let SharingNow { scope, replicas, .. } = self.now(now);
        let is_alone = match scope {
            Scope::App => false,
            Scope::Instance if self.failed_in_a_row.load(Ordering::Relaxed) >= FAILURES_WORTH_TELLING => true,
            Scope::Instance => return,
        };
        if self.is_alone.swap(is_alone, Ordering::Relaxed) == is_alone {
            return;
        }
        if is_alone {
            tracing::warn!(
                weir.limits.replicas = replicas,
                "limits and budgets cannot be shared: this instance goes on with its part of them"
            );
        } else {
            tracing::info!(weir.limits.replicas = replicas, "limits and budgets are shared again");
        }
    }

    /// Says once when this machine's clock and the server's differ: windows of the calendar go by the former.
    fn compare_clocks(&self, present: Present, now: Now) {
        let own_ms = now.wall.seconds().saturating_mul(1000);
        let difference = i64::try_from(present.now_ms).unwrap_or(i64::MAX).saturating_sub(own_ms);
        let before = self.clock_difference_ms.swap(difference, Ordering::Relaxed);
        if difference.abs() >= CLOCKS_DIFFER_MS && before.abs() < CLOCKS_DIFFER_MS {
            tracing::warn!(
                weir.limits.clock_difference_seconds = difference / 1000,
                "this machine's clock and the shared store's differ: near the end of a window, this replica's calls \
                 count in another one than the others'"
            );
        }
    }
}

impl Party {
    /// Whether that was an answer to what was said. One that is not believed grants nothing, but tells of what was spent.
    fn hear(&self, said: &Said, answer: &Answer, is_believed: bool, now: Now) -> bool {
        match (self, said) {
            (Self::Money(budget, slot), Said::Money(said, period)) => {
                let answer = Answered::read(answer, is_believed);
                answer.map(|answer| budget.hear(slot, (said, *period), &answer, now)).is_some()
            }
            (Self::Places(rule, slot), Said::Places(said)) => {
                let answer = Answered::read(answer, is_believed);
                answer.map(|answer| rule.hear_places(slot, said, &answer, now)).is_some()
            }
            (Self::Rates(rule, slot), Said::Rates(_)) => {
                let answer = Taken::read(answer, rule.rates.len());
                answer.map(|answer| is_believed.then(|| RateLimit::hear_rates(slot, &answer, now))).is_some()
            }
            _ => false,
        }
    }

    /// What was said may not have been heard.
    fn unheard(&self, said: &Said) {
        if let (Self::Rates(_, slot), Said::Rates(request)) = (self, said)
            && let Some(hand) = &mut slot.lock().hand
        {
            hand.unheard(request);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).field("link", &self.link).finish_non_exhaustive()
    }
}
