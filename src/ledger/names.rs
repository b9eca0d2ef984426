//! Names: the numbers that stand for who asks what of whom, so that each name is written once.
//!
//! What was asked for lately is remembered; the rest is looked up. Bounded, whatever apps call things.

use std::hash::Hash;

use foldhash::HashMap;
use rusqlite::{OptionalExtension, Params, Transaction, params};

use crate::ledger::entry::Entry;

/// How many names of a kind are remembered; then they are all forgotten, and looked up again.
const MOST: usize = 1 << 16;

/// The number of a row of `series`, and of its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) id: i64,
    pub(super) scope: i64,
}

/// What was looked up or made. To be forgotten whenever a transaction that made names is not committed, and whenever
/// rows of the dictionaries are deleted.
#[derive(Debug, Default)]
pub(super) struct Names {
    series: HashMap<Box<[u8]>, Series>,
    users: HashMap<Box<str>, i64>,
    /// Where keys are put together.
    key: Vec<u8>,
}

impl Names {
    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        self.series.clear();
        self.users.clear();
    }

    /// The series of `entry`, made if it is new.
    pub(super) fn series(&mut self, entry: &Entry, ledger: &Transaction<'_>) -> rusqlite::Result<Series> {
        let scope = [&entry.workspace_id, &entry.namespace, &entry.agent_id].map(Option::as_deref);
        let (provider, operation, model) = (&*entry.provider, &*entry.operation, entry.model.as_deref());
        self.key.clear();
        for part in scope.into_iter().chain([Some(provider), Some(operation), model]) {
            // Lengths keep them apart, whatever is in them; no text has the length of none.
            self.key.extend(part.map_or(usize::MAX, str::len).to_ne_bytes());
            self.key.extend_from_slice(part.unwrap_or_default().as_bytes());
        }
        if let Some(known) = self.series.get(&*self.key) {
            return Ok(*known);
        }
        let scope = found_or_made(
            ledger,
            "SELECT id FROM scopes WHERE workspace IS ?1 AND namespace IS ?2 AND agent IS ?3",
            "INSERT INTO scopes (workspace, namespace, agent) VALUES (?1, ?2, ?3)",
            params![scope[0], scope[1], scope[2]],
        )?;
        let id = found_or_made(
            ledger,
            "SELECT id FROM series WHERE scope = ?1 AND provider = ?2 AND operation = ?3 AND model IS ?4",
            "INSERT INTO series (scope, provider, operation, model) VALUES (?1, ?2, ?3, ?4)",
            params![scope, provider, operation, model],
        )?;
        let series = Series { id, scope };
        remember(&mut self.series, self.key.as_slice().into(), series);
        Ok(series)
    }

    /// The number of the user of `entry`, made if new; `None` for nobody.
    pub(super) fn user(&mut self, entry: &Entry, ledger: &Transaction<'_>) -> rusqlite::Result<Option<i64>> {
        let Some(name) = &entry.user_id else { return Ok(None) };
        if let Some(known) = self.users.get(name) {
            return Ok(Some(*known));
        }
        let id = found_or_made(
            ledger,
            "SELECT id FROM users WHERE name = ?1",
            "INSERT INTO users (name) VALUES (?1)",
            params![name],
        )?;
        remember(&mut self.users, name.clone(), id);
        Ok(Some(id))
    }
}

fn found_or_made<P: Params + Copy>(
    ledger: &Transaction<'_>,
    find: &str,
    make: &str,
    named: P,
) -> rusqlite::Result<i64> {
    let found = ledger.prepare_cached(find)?.query_row(named, |row| row.get(0)).optional()?;
    match found {
        Some(id) => Ok(id),
        None => ledger.prepare_cached(make)?.insert(named),
    }
}

fn remember<K: Eq + Hash, T>(known: &mut HashMap<K, T>, name: K, value: T) {
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(name, value);
}
