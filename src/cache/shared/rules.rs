//! Rules: by which answers die, told to the other replicas and heard from them, through a log that all of them read
//! twice a second. Made while the server is away, they are told once it is back.
//!
//! The log is a stream of sealed rules; it begins with a mark, so that one that was lost can be told from one that
//! never was.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::cache::Cache;
use crate::cache::invalidation::{Asked, Rule};
use crate::cache::shared::rulebook::{MOST_RULES, Own, Place};
use crate::cache::shared::{Event, Shared, Work};
use crate::store::Answer;
use crate::store::Unavailable;
use crate::store::client::Commands;

/// How often the rules are read.
const READ_EVERY: Duration = Duration::from_millis(500);
/// How many names are looked through at once when everything is cleared.
const NAMES_AT_ONCE: &[u8] = b"500";
/// The field of an entry of the log that holds the rule; empty in the mark at its beginning.
const FIELD: &[u8] = b"r";

/// Tells and hears. Runs until it is dropped.
pub(super) async fn follow(cache: &Arc<Cache>, shared: &Arc<Shared>) {
    loop {
        let exchanged = shared.exchange(cache).await;
        if exchanged.is_err() && shared.store.is_up() {
            shared.tell(Event::Failed(Work::Delete));
        }
        tokio::select! {
            () = sleep(READ_EVERY) => {}
            () = shared.rule_made.notified() => {}
            () = shared.store.changed() => {}
        }
    }
}

/// Deletes all answers once everything is dead: they are already, and this only makes room. Runs until it is dropped.
pub(super) async fn clear(shared: &Arc<Shared>) {
    loop {
        if shared.is_to_be_cleared() && shared.delete_all().await.is_err() {
            shared.tell(Event::Failed(Work::Delete));
        }
        sleep(READ_EVERY).await;
    }
}

/// The log did not say what was asked of it.
#[derive(Debug)]
struct Unread;

impl From<Unavailable> for Unread {
    fn from(_: Unavailable) -> Self {
        Self
    }
}

impl Shared {
    /// Makes a rule, which is for the others as well; `make` tells its number here.
    pub(in crate::cache) fn announce(&self, rule: Rule, make: impl FnOnce() -> Asked) {
        let is_everything = rule.filter.is_everything();
        {
            // In one go: what is found meanwhile must not seem to know the rule.
            let mut book = self.rulebook();
            let number = make();
            book.note_own(Own { number, rule });
        }
        // In a cluster, the dead are left to expire.
        if is_everything && self.store.is_one_server() {
            self.to_be_cleared.store(true, Ordering::Relaxed);
        }
        self.rule_made.notify_one();
    }

    async fn exchange(&self, cache: &Arc<Cache>) -> Result<(), Unread> {
        // Read first, so that what is told has its place among what is known.
        let when = Instant::now();
        self.hear(cache).await?;
        self.rules_were_read(when);
        loop {
            let next = self.rulebook().next_to_tell();
            let Some(own) = next else { return Ok(()) };
            let place = self.append(Some(&own.rule)).await?;
            self.rulebook().told(own.number, place);
        }
    }

    /// Reads what is new in the log, and where it begins and ends. One that is not there is begun.
    async fn hear(&self, cache: &Arc<Cache>) -> Result<(), Unread> {
        let (log, from, most) = (self.log(), self.rulebook().last().after().to_string(), MOST_RULES.to_string());
        let mut commands = Commands::default();
        commands.add("XRANGE", &[log.as_bytes(), b"-", b"+", b"COUNT", b"1"]);
        commands.add("XREVRANGE", &[log.as_bytes(), b"+", b"-", b"COUNT", b"1"]);
        commands.add("XRANGE", &[log.as_bytes(), from.as_bytes(), b"+", b"COUNT", most.as_bytes()]);
        let answers = self.store.run_patiently(&commands).await?;
        let [first, newest, news] = <[Answer; 3]>::try_from(answers).map_err(|_| Unread)?;
        let (first, newest) = (entries(first)?.into_iter().next(), entries(newest)?.into_iter().next());
        let (Some(first), Some(newest)) = (first, newest) else {
            let mark = self.append(None).await?;
            self.rulebook().begun_anew(mark);
            return Ok(());
        };
        if newest.place < self.rulebook().last() {
            // Another log than the one that was read: all of it is news.
            self.rulebook().forget();
            return Err(Unread);
        }
        self.rulebook().begins_at(first.place);
        let mut is_news = false;
        for told in entries(news)? {
            is_news |= self.heard(cache, told);
        }
        if is_news {
            let cache = Arc::clone(cache);
            spawn_blocking(move || cache.give_up_the_dead());
        }
        Ok(())
    }

    /// Takes note of an entry of the log: whether it is a rule that is new here.
    fn heard(&self, cache: &Arc<Cache>, told: Told) -> bool {
        let Told { place, mut sealed } = told;
        let mut book = self.rulebook();
        book.read(place);
        if sealed.is_empty() || book.knows(place) {
            return false;
        }
        let rule = self.seal.open(self.log().as_bytes(), &mut sealed);
        let Some(rule) = rule.and_then(|rule| serde_json::from_slice::<Rule>(rule).ok()) else {
            // From a weir with another secret, or of another version: it may name anything there.
            book.begins_at(place);
            drop(book);
            self.tell(Event::Failed(Work::Delete));
            return false;
        };
        let now = Instant::now();
        let made = rule.made(now, SystemTime::now());
        book.heard(place, cache.rules().make(rule.filter, made, now));
        true
    }

    /// Appends a rule, or the mark with which the log begins.
    async fn append(&self, rule: Option<&Rule>) -> Result<Place, Unread> {
        let log = self.log();
        let sealed = match rule {
            Some(rule) => {
                let text = serde_json::to_vec(rule).map_err(|_| Unread)?;
                self.seal.seal(log.as_bytes(), text).ok_or(Unread)?
            }
            None => Vec::new(),
        };
        let most = MOST_RULES.to_string();
        let append = Commands::one("XADD", &[log.as_bytes(), b"MAXLEN", most.as_bytes(), b"*", FIELD, &sealed]);
        match self.store.run_patiently(&append).await?.pop() {
            Some(Answer::Bytes(id)) => place(&id).ok_or(Unread),
            _ => Err(Unread),
        }
    }

    async fn delete_all(&self) -> Result<(), Unread> {
        // The prefix has no character that means something in a pattern.
        let pattern = format!("{}:answer:*", self.prefix);
        let mut cursor = b"0".to_vec();
        loop {
            let scan = [&*cursor, b"MATCH", pattern.as_bytes(), b"COUNT", NAMES_AT_ONCE];
            let answer = self.store.run_patiently(&Commands::one("SCAN", &scan)).await?.pop();
            let Some(Answer::List(parts)) = answer else { return Err(Unread) };
            let Ok([Answer::Bytes(next), Answer::List(names)]) = <[Answer; 2]>::try_from(parts) else {
                return Err(Unread);
            };
            let mut unlink = Commands::default();
            let names: Vec<_> = names.into_iter().filter_map(Answer::into_bytes).collect();
            for name in &names {
                unlink.add("UNLINK", &[name]);
            }
            if !names.is_empty() {
                self.store.run_patiently(&unlink).await?;
            }
            if next == b"0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    fn log(&self) -> String {
        format!("{}:rules", self.prefix)
    }
}

/// An entry of the log.
struct Told {
    place: Place,
    sealed: Vec<u8>,
}

fn entries(answer: Answer) -> Result<Vec<Told>, Unread> {
    let Answer::List(entries) = answer else { return Err(Unread) };
    entries.into_iter().map(|entry| told(entry).ok_or(Unread)).collect()
}

/// An entry of a stream: its id, and a list of names and values, of which there is one.
fn told(entry: Answer) -> Option<Told> {
    let Answer::List(parts) = entry else { return None };
    let Ok([Answer::Bytes(id), Answer::List(fields)]) = <[Answer; 2]>::try_from(parts) else { return None };
    let sealed = fields.into_iter().nth(1)?.into_bytes()?;
    Some(Told { place: place(&id)?, sealed })
}

fn place(id: &[u8]) -> Option<Place> {
    std::str::from_utf8(id).ok()?.parse().ok()
}
