//! Upkeep: what keeps a ledger within its bounds and its questions quick, in small steps between two batches: calls that
//! are too old go, and the oldest when there is no room; periods that are over are sealed.

use std::time::Duration;

use rusqlite::Connection;

use crate::ledger::entry::Micros;
use crate::ledger::insert::Inserter;
use crate::ledger::open::Place;
use crate::ledger::seal::Sealing;
use crate::ledger::{MINUTE, Settings, start_of};

/// Most calls that go in one step: some milliseconds.
const CALLS: i64 = 1_000;
/// Most pages that are given back to the disk in one step.
const PAGES: u32 = 512;

/// Sums, in the order in which they go. What is longest known goes last; sums of all calls go with those they add up.
const SUMS: [&[&str]; 7] = [
    &["hour_latencies"],
    &["day_latencies"],
    &["user_hours"],
    &["hour_errors"],
    &["hours", "hour_totals"],
    &["user_days", "user_day_totals"],
    &["days", "day_totals"],
];

/// How much may stay.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a call stays.
    pub retention: Duration,
    /// Most bytes in a file.
    pub max_bytes: u64,
    /// Most bytes in memory.
    pub memory_max_bytes: u64,
}

impl Bounds {
    /// Those that `settings` say.
    #[must_use]
    pub const fn of(settings: &Settings) -> Self {
        Self {
            retention: settings.retention.get(),
            max_bytes: settings.max_bytes.bytes(),
            memory_max_bytes: settings.memory_max_bytes.bytes(),
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Whether there is another that need not wait.
    pub(super) has_more: bool,
    /// How large the ledger is, where that was looked at.
    pub(super) size_bytes: Option<u64>,
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Upkeep {
    bounds: Bounds,
    max_bytes: u64,
    sealing: Sealing,
    /// Whether there may be more to do now.
    is_at_it: bool,
    /// Whether names may be left that nothing points to.
    has_orphans: bool,
}

/// How many pages there are, and how large all of them.
struct Size {
    free_pages: u64,
    bytes: u64,
}

impl Upkeep {
    pub(super) const fn new(bounds: Bounds) -> Self {
        let max_bytes = bounds.max_bytes;
        Self { bounds, max_bytes, sealing: Sealing::new(), is_at_it: false, has_orphans: false }
    }

    /// It is another ledger, which is at `place`.
    pub(super) fn begin_anew(&mut self, place: &Place) {
        *self = Self::new(self.bounds);
        if matches!(place, Place::Memory(_)) {
            self.max_bytes = self.bounds.memory_max_bytes;
        }
    }

    /// Does the next step, if one `is_due` or was left.
    pub(super) fn step(
        &mut self,
        ledger: &mut Connection,
        inserter: &mut Inserter,
        now: Micros,
        is_due: bool,
    ) -> rusqlite::Result<Step> {
        if !is_due && !self.is_at_it {
            return Ok(Step::default());
        }
        let size = size(ledger)?;
        let did = self.give_room(ledger, &size)?
            || self.let_old_calls_go(ledger, now)?
            || self.let_orphans_go(ledger, inserter)?
            || self.sealing.step(ledger, now)?;
        self.is_at_it = did;
        Ok(Step { has_more: did, size_bytes: Some(size.bytes) })
    }

    /// One step towards `max_bytes`, if it is over that.
    fn give_room(&mut self, ledger: &mut Connection, size: &Size) -> rusqlite::Result<bool> {
        if size.bytes <= self.max_bytes {
            return Ok(false);
        }
        if size.free_pages > 0 {
            return give_back(ledger, PAGES).map(|()| true);
        }
        let (_, last) = oldest_calls(ledger)?;
        if let Some(last) = last {
            return delete_calls(ledger, last).map(|()| true);
        }
        for tables in SUMS {
            if delete_oldest_period(ledger, tables)? {
                self.has_orphans = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn let_old_calls_go(&self, ledger: &mut Connection, now: Micros) -> rusqlite::Result<bool> {
        let retention = Micros::try_from(self.bounds.retention.as_micros()).unwrap_or(Micros::MAX);
        let until = now.saturating_sub(retention);
        match oldest_calls(ledger)? {
            (Some(first), Some(last)) if first < until => delete_calls(ledger, last.min(until - 1)).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Names that no sum points to any more: calls go before their sums.
    fn let_orphans_go(&mut self, ledger: &mut Connection, inserter: &mut Inserter) -> rusqlite::Result<bool> {
        if !std::mem::take(&mut self.has_orphans) {
            return Ok(false);
        }
        inserter.forget();
        let change = ledger.transaction()?;
        change.execute_batch(
            "DELETE FROM users WHERE id NOT IN (SELECT user FROM user_days)
               AND id NOT IN (SELECT user FROM user_hours) AND id NOT IN (SELECT user FROM calls WHERE user NOT NULL);
             DELETE FROM series WHERE id NOT IN (SELECT series FROM days)
               AND id NOT IN (SELECT series FROM hours) AND id NOT IN (SELECT series FROM calls);
             DELETE FROM scopes WHERE id NOT IN (SELECT scope FROM series)
               AND id NOT IN (SELECT scope FROM user_days) AND id NOT IN (SELECT scope FROM user_hours);",
        )?;
        change.commit()?;
        Ok(true)
    }
}

/// Gives free pages back, and leaves nothing of what was deleted in the write-ahead log. `false` if somebody reads what
/// is in it.
pub(super) fn sweep(ledger: &mut Connection) -> rusqlite::Result<bool> {
    give_back(ledger, u32::MAX)?;
    let busy: i64 = ledger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

fn give_back(ledger: &Connection, pages: u32) -> rusqlite::Result<()> {
    // A page goes with each row that it does not return.
    let mut vacuum = ledger.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn size(ledger: &Connection) -> rusqlite::Result<Size> {
    let number = |name| ledger.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let log =
        ledger.path().filter(|path| !path.is_empty()).and_then(|path| std::fs::metadata(format!("{path}-wal")).ok());
    let bytes = number("page_count")? * number("page_size")? + log.map_or(0, |log| log.len());
    Ok(Size { free_pages: number("freelist_count")?, bytes })
}

/// The ids of the oldest call, and of the last of the oldest few.
fn oldest_calls(ledger: &Connection) -> rusqlite::Result<(Option<Micros>, Option<Micros>)> {
    let oldest = "SELECT min(id), max(id) FROM (SELECT id FROM calls ORDER BY id LIMIT ?1)";
    ledger.prepare_cached(oldest)?.query_row([CALLS], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn delete_calls(ledger: &mut Connection, up_to: Micros) -> rusqlite::Result<()> {
    let change = ledger.transaction()?;
    change.execute("DELETE FROM contents WHERE call <= ?1", [up_to])?;
    change.execute("DELETE FROM calls WHERE id <= ?1", [up_to])?;
    change.execute("DELETE FROM minute_totals WHERE start < ?1", [start_of(MINUTE, up_to)])?;
    change.commit()
}

/// Deletes the oldest period of the first of the tables from all of them; `false` if there is none.
fn delete_oldest_period(ledger: &mut Connection, tables: &[&str]) -> rusqlite::Result<bool> {
    let change = ledger.transaction()?;
    let oldest = format!("SELECT min(start) FROM {}", tables[0]);
    let Some(oldest) = change.query_row(&oldest, [], |row| row.get::<_, Option<Micros>>(0))? else {
        return Ok(false);
    };
    for table in tables {
        change.execute(&format!("DELETE FROM {table} WHERE start <= ?1"), [oldest])?;
    }
    change.commit().map(|()| true)
}
