//! Insert: a batch of entries into the ledger in one transaction: rows, names and sums, or nothing.

use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};

use crate::ledger::content::Kept;
use crate::ledger::entry::Entry;
use crate::ledger::names::Names;
use crate::ledger::row::Rows;
use crate::ledger::sums::Sums;

/// A call to be written.
pub trait Written {
    /// Its row.
    fn entry(&self) -> &Entry;

    /// What is kept of what was said in it, [packed](crate::ledger::content::packed).
    fn content(&self) -> Option<&Kept> {
        None
    }
}

impl Written for Entry {
    fn entry(&self) -> &Entry {
        self
    }
}

impl Written for Arc<Entry> {
    fn entry(&self) -> &Entry {
        self
    }
}

/// Writes batches; remembers names between them.
#[derive(Debug, Default)]
pub struct Inserter {
    names: Names,
}

impl Inserter {
    /// Writes every entry, under the moment it was over at, or the next one that is free.
    ///
    /// # Errors
    /// Those of the database; then nothing was written.
    pub fn insert(&mut self, ledger: &mut Connection, calls: &[impl Written]) -> rusqlite::Result<()> {
        let written = self.write(ledger, calls);
        if written.is_err() {
            // Names that were made with the batch went with it.
            self.forget();
        }
        written
    }

    /// Forgets all names, because some may have been deleted.
    pub fn forget(&mut self) {
        self.names.forget();
    }

    fn write(&mut self, ledger: &mut Connection, calls: &[impl Written]) -> rusqlite::Result<()> {
        let batch = ledger.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut sums = Sums::default();
        let mut rows = Rows::into(&batch)?;
        let mut keep = batch.prepare_cached("INSERT INTO contents (call, request, response) VALUES (?, ?, ?)")?;
        for call in calls {
            let entry = call.entry();
            let series = self.names.series(entry, &batch)?;
            let user = self.names.user(entry, &batch)?;
            let mut id = entry.ended_at;
            while !rows.write(id, entry, series, user)? {
                id += 1;
            }
            if let Some(Kept { request, response }) = call.content() {
                keep.execute((id, request, response))?;
            }
            sums.add(id, entry, series, user);
        }
        drop((rows, keep));
        sums.write(&batch)?;
        batch.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::open::Place;
    use crate::ledger::row;
    use crate::ledger::specimens::{self, Random};
    use crate::ledger::sums::SUMS;
    use crate::ledger::{DAY, HOUR, MINUTE};
    use crate::record::usage::{Counter, Usage};

    fn all(ledger: &Connection) -> Vec<Entry> {
        let mut rows = ledger.prepare(&format!("{} ORDER BY calls.id", row::SELECT)).expect("SQL");
        let entries = rows.query_map([], row::read).expect("asked");
        entries.map(|entry| entry.expect("as written")).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut ledger = Place::memory().write().expect("opened");
        let mut random = Random(1);
        let mut entries: Vec<Entry> = (0..2_000).map(|at| specimens::entry(&mut random, at * 1_000)).collect();
        let mut inserter = Inserter::default();
        for batch in entries.chunks(300) {
            inserter.insert(&mut ledger, batch).expect("written");
        }
        entries.sort_by_key(|entry| entry.ended_at);
        assert_eq!(all(&ledger), entries);
    }

    #[test]
    fn calls_that_end_at_once_follow_each_other() {
        let mut ledger = Place::memory().write().expect("opened");
        let mut random = Random(2);
        let at = 5 * DAY - 2;
        let entries: Vec<Entry> = (0..5).map(|_| specimens::entry(&mut random, at)).collect();
        let mut inserter = Inserter::default();
        inserter.insert(&mut ledger, &entries[..2]).expect("written");
        inserter.insert(&mut ledger, &entries[2..]).expect("written");
        let ids: Vec<i64> = all(&ledger).iter().map(|entry| entry.ended_at - at).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        let by_day = |start: i64| -> i64 {
            ledger.query_row("SELECT sum(calls) FROM days WHERE start = ?", [start], |row| row.get(0)).expect("a sum")
        };
        assert_eq!((by_day(4 * DAY), by_day(5 * DAY)), (2, 3), "each where its id says");
    }

    /// Both tables of sums against the rows, sum by sum.
    #[test]
    fn sums_are_the_sums_of_the_rows() {
        let mut ledger = Place::memory().write().expect("opened");
        let mut random = Random(3);
        let mut inserter = Inserter::default();
        for _ in 0..20 {
            let batch: Vec<Entry> = (0..100)
                .map(|_| {
                    let at = random.below(3 * DAY);
                    specimens::entry(&mut random, at)
                })
                .collect();
            inserter.insert(&mut ledger, &batch).expect("written");
        }
        for (table, grain) in [("hours", HOUR), ("days", DAY)] {
            for sum in SUMS {
                let differing: i64 = ledger
                    .query_row(
                        &format!(
                            "SELECT count(*) FROM (SELECT calls.id / {grain} * {grain} AS start, series.id AS series, \
                             sum({}) AS total FROM calls JOIN series ON series.id = calls.series GROUP BY 1, 2) AS rows \
                             FULL JOIN {table} USING (start, series) WHERE rows.total IS NOT {table}.{}",
                            sum.sql, sum.name
                        ),
                        [],
                        |row| row.get(0),
                    )
                    .expect("compared");
                assert_eq!(differing, 0, "{table}.{}", sum.name);
                let total: i64 = ledger
                    .query_row(&format!("SELECT sum({}) FROM {table}", sum.name), [], |row| row.get(0))
                    .expect("a sum");
                assert!(total > 0, "{}: nothing was compared", sum.name);
            }
        }
        for (table, grain) in [("minute_totals", MINUTE), ("hour_totals", HOUR), ("day_totals", DAY)] {
            for sum in SUMS {
                let differing: i64 = ledger
                    .query_row(
                        &format!(
                            "SELECT count(*) FROM (SELECT calls.id / {grain} * {grain} AS start, sum({}) AS total \
                             FROM calls JOIN series ON series.id = calls.series GROUP BY 1) AS rows \
                             FULL JOIN {table} USING (start) WHERE rows.total IS NOT {table}.{}",
                            sum.sql, sum.name
                        ),
                        [],
                        |row| row.get(0),
                    )
                    .expect("compared");
                assert_eq!(differing, 0, "{table}.{}", sum.name);
            }
        }
        let users =
            [("user_hours", "calls"), ("user_days", "calls"), ("user_days", "cost"), ("user_day_totals", "cost")];
        for (table, total) in users {
            let total: i64 = ledger
                .query_row(
                    &format!("SELECT (SELECT sum({total}) FROM {table}) - (SELECT sum({total}) FROM hours)"),
                    [],
                    |row| row.get(0),
                )
                .expect("a sum");
            assert_eq!(total, 0, "{table}");
        }
        let missing: i64 = ledger
            .query_row(
                "SELECT (SELECT sum(calls) FROM hour_errors) - (SELECT sum(calls - successes) FROM hours)",
                [],
                |row| row.get(0),
            )
            .expect("a sum");
        assert_eq!(missing, 0, "errors");
    }

    #[test]
    fn a_call_that_comes_late_opens_its_period_again() {
        let mut ledger = Place::memory().write().expect("opened");
        ledger
            .execute_batch(&format!(
                "INSERT INTO sealed VALUES ({HOUR}, 0), ({DAY}, 0), ({HOUR}, {HOUR});
                 INSERT INTO hour_latencies VALUES (0, 1, x'00', x''), ({HOUR}, 1, x'00', x'');
                 INSERT INTO day_latencies VALUES (0, 1, x'00', x'');"
            ))
            .expect("written");
        Inserter::default().insert(&mut ledger, &[specimens::entry(&mut Random(4), 17)]).expect("written");
        let left = |table: &str| -> i64 {
            ledger.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("counted")
        };
        assert_eq!((left("sealed"), left("hour_latencies"), left("day_latencies")), (1, 1, 0));
    }

    #[test]
    fn numbers_beyond_all_reason_spoil_nothing() {
        let mut ledger = Place::memory().write().expect("opened");
        let mut inserter = Inserter::default();
        for at in 0..3 {
            let mut entry = specimens::entry(&mut Random(5), at);
            entry.reuse = None;
            entry.operation = "chat".into();
            entry.usage = Some(Usage::cache_inside(Some(u64::MAX), Some(1), &[(Counter::WebSearches, Some(u64::MAX))]));
            inserter.insert(&mut ledger, &[entry]).expect("written");
        }
        let total: i64 = ledger.query_row("SELECT input_tokens FROM days", [], |row| row.get(0)).expect("a sum");
        assert_eq!(total, i64::MAX);
    }

    #[test]
    fn a_batch_that_fails_leaves_nothing() {
        let place = Place::memory();
        let mut ledger = place.write().expect("opened");
        let mut random = Random(6);
        let entries: Vec<Entry> = (0..10).map(|at| specimens::entry(&mut random, at)).collect();
        ledger.execute_batch("ALTER TABLE user_days RENAME TO gone").expect("renamed");
        let mut inserter = Inserter::default();
        inserter.insert(&mut ledger, &entries).expect_err("there is no such table");
        assert!(all(&ledger).is_empty());
        ledger.execute_batch("ALTER TABLE gone RENAME TO user_days").expect("renamed");
        inserter.insert(&mut ledger, &entries).expect("written");
        assert_eq!(all(&ledger), entries, "with every name");
    }
}
