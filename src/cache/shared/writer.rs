//! Writer: takes what was offered to the second level, seals it and writes it, several at once in one round trip. Never
//! on a call's way.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::cache::invalidation::Rules;
use crate::cache::key::Key;
use crate::cache::shared::envelope::{Letter, pack};
use crate::cache::shared::{Event, Shared};
use crate::cache::{Cache, Stored};
use crate::store::Answer;
use crate::store::client::Commands;

/// Most answers taken from the queue at once.
const MOST_AT_ONCE: usize = 64;
/// So many bytes are enough for one round trip.
const ENOUGH_BYTES: usize = 1 << 20;

/// An answer that waits to be written.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) key: Key,
    pub(super) stored: Arc<Stored>,
    pub(super) _space: OwnedSemaphorePermit,
}

/// An answer, ready to be written.
struct Sealed {
    name: String,
    value: Vec<u8>,
    lives: Duration,
}

/// Writes what is offered. Runs until it is dropped; what waits then is lost, as it would be if the server were away.
pub(super) async fn write(cache: &Arc<Cache>, shared: &Arc<Shared>) {
    let taken = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut waiting) = taken else { return };
    let mut puts = Vec::with_capacity(MOST_AT_ONCE);
    while waiting.recv_many(&mut puts, MOST_AT_ONCE).await > 0 {
        let puts = std::mem::replace(&mut puts, Vec::with_capacity(MOST_AT_ONCE));
        let (own, rules) = (Arc::clone(shared), Arc::clone(cache));
        // A megabyte takes milliseconds to compress and seal; calls must not wait for that.
        let made =
            spawn_blocking(move || puts.iter().filter_map(|put| own.sealed(put, rules.rules())).collect::<Vec<_>>());
        let Ok(sealed) = made.await else { continue };
        let mut rest = &*sealed;
        while !rest.is_empty() {
            let now = one_round(rest);
            shared.set(&rest[..now]).await;
            rest = &rest[now..];
        }
    }
}

/// How many of them go into one round trip.
fn one_round(sealed: &[Sealed]) -> usize {
    let mut bytes = 0;
    let fits = |one: &&Sealed| {
        let before = bytes;
        bytes += one.value.len();
        before < ENOUGH_BYTES
    };
    sealed.iter().take_while(fits).count()
}

impl Shared {
    /// The answer as it is written. `None` if it is not worth it: it is dead, or over, or cannot be written down.
    fn sealed(&self, put: &Put, rules: &Rules) -> Option<Sealed> {
        let Put { key, stored, .. } = put;
        let sealed = self.sealed_if_alive(key, stored, rules);
        if sealed.is_none() {
            self.tell(Event::NotStored);
        }
        sealed
    }

    fn sealed_if_alive(&self, key: &Key, stored: &Stored, rules: &Rules) -> Option<Sealed> {
        let age = stored.age(Instant::now());
        let lives = stored.keep_for.checked_sub(age).filter(|lives| lives.as_millis() > 0)?;
        // First the place, then whether it lives: a rule that comes in between makes it dead.
        let asked = self.rulebook().place(stored.asked)?;
        if rules.is_dead(&stored.entry(key)) {
            return None;
        }
        let letter = Letter {
            reply: stored.reply(),
            about: stored.about(),
            asked: asked.0,
            stored_at: SystemTime::now().checked_sub(age)?,
            lifetime: stored.lifetime(),
            keep_for: stored.keep_for,
        };
        let name = self.name_of(key);
        let value = self.seal.seal(name.as_bytes(), pack(letter, self.compress_above)?)?;
        Some(Sealed { name, value, lives })
    }

    /// Writes them, in one round trip. Each gets an end of life, always: the server forgets by itself.
    async fn set(&self, sealed: &[Sealed]) {
        let mut commands = Commands::default();
        for Sealed { name, value, lives } in sealed {
            let lives = lives.as_millis().to_string();
            commands.add("SET", &[name.as_bytes(), value, b"PX", lives.as_bytes()]);
        }
        let answers = self.store.run_patiently(&commands).await.unwrap_or_default();
        for position in 0..sealed.len() {
            match answers.get(position) {
                Some(Answer::Status(_)) => self.tell(Event::Stored),
                _ => self.not_stored(),
            }
        }
    }
}
