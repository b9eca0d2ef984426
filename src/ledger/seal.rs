//! Seal: every latency of an hour or a day that is over, packed, so that exact percentiles of a month need none of its
//! rows. In steps: an hour of a busy app has more rows than fit between two batches.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::entry::Micros;
use crate::ledger::packed::{pack, unpack};
use crate::ledger::window::Grain;
use crate::ledger::{DAY, HOUR};

/// How long after its end a period is sealed: calls that were over in it are written by then.
const GRACE: Micros = 60 * 1_000_000;
/// Most rows that are read in one step: some milliseconds.
const ROWS: i64 = 10_000;

/// Both kinds of latency, in microseconds.
#[derive(Debug, Default)]
struct Latencies {
    calls: Vec<u64>,
    first_tokens: Vec<u64>,
}

/// A period on its way to being sealed.
#[derive(Debug)]
struct Period {
    start: Micros,
    /// The id up to which its rows have been read.
    read: Micros,
    series: BTreeMap<i64, Latencies>,
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Sealing {
    /// The hour at hand.
    hour: Option<Period>,
    /// Periods before this have been found sealed, or cannot be: their rows are not all there. By the hour and the day.
    passed: [Micros; 2],
}

impl Sealing {
    pub(super) const fn new() -> Self {
        Self { hour: None, passed: [Micros::MIN; 2] }
    }

    /// Does the next step; `false` if there is nothing to seal now.
    pub(super) fn step(&mut self, ledger: &mut Connection, now: Micros) -> rusqlite::Result<bool> {
        if let Some(mut hour) = self.hour.take() {
            if read_on(ledger, &mut hour)? {
                self.hour = Some(hour);
            } else {
                self.passed[0] = hour.start + 1;
                seal(ledger, Grain::Hour, hour.start, hour.series)?;
            }
            return Ok(true);
        }
        if let Some(start) = next(ledger, Grain::Hour, self.passed[0], now)? {
            self.hour = Some(Period { start, read: start - 1, series: BTreeMap::new() });
            return Ok(true);
        }
        let Some(start) = next(ledger, Grain::Day, self.passed[1], now)? else {
            // Late calls have opened some again, perhaps.
            self.passed = [Micros::MIN; 2];
            return Ok(false);
        };
        self.passed[1] = start + 1;
        let series = of_hours(ledger, start)?;
        seal(ledger, Grain::Day, start, series)?;
        Ok(true)
    }
}

/// The first period from `from` on that is over and not sealed.
fn next(ledger: &Connection, grain: Grain, from: Micros, now: Micros) -> rusqlite::Result<Option<Micros>> {
    let (sums, length) = (grain.sums(), grain.micros());
    // Calls that are gone cannot be read: of what is before the oldest, nothing is sealed.
    let oldest: Option<Micros> = ledger.query_row("SELECT min(id) FROM calls", [], |row| row.get(0))?;
    let Some(oldest) = oldest else { return Ok(None) };
    let from = from.max(crate::ledger::start_of(length, oldest));
    let find = format!(
        "WITH RECURSIVE periods (start) AS (
           SELECT min(start) FROM {sums} WHERE start >= ?1
           UNION ALL SELECT (SELECT min(start) FROM {sums} WHERE start > periods.start) FROM periods WHERE start NOT NULL
         )
         SELECT start FROM periods WHERE start <= ?2
         AND NOT EXISTS (SELECT 1 FROM sealed WHERE grain = ?3 AND sealed.start = periods.start) LIMIT 1"
    );
    ledger.prepare_cached(&find)?.query_row([from, now - length - GRACE, length], |row| row.get(0)).optional()
}

/// Reads the next rows; `false` if there are no more.
fn read_on(ledger: &Connection, period: &mut Period) -> rusqlite::Result<bool> {
    let mut rows = ledger.prepare_cached(
        "SELECT id, series, latency, first_token FROM calls WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut rows = rows.query(params![period.read, period.start + HOUR, ROWS])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        period.read = row.get(0)?;
        let latencies = period.series.entry(row.get(1)?).or_default();
        latencies.calls.push(row.get::<_, i64>(2)?.unsigned_abs());
        latencies.first_tokens.extend(row.get::<_, Option<i64>>(3)?.map(i64::unsigned_abs));
    }
    Ok(count == ROWS)
}

/// The latencies of a day, of those of its hours.
fn of_hours(ledger: &Connection, day: Micros) -> rusqlite::Result<BTreeMap<i64, Latencies>> {
    let mut hours = ledger
        .prepare_cached("SELECT series, latency, first_token FROM hour_latencies WHERE start >= ?1 AND start < ?2")?;
    let mut rows = hours.query([day, day + DAY])?;
    let mut series: BTreeMap<i64, Latencies> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let latencies = series.entry(row.get(0)?).or_default();
        // What is damaged comes short, which the count tells.
        let _ = unpack(row.get_ref(1)?.as_blob()?, |it| latencies.calls.push(it));
        let _ = unpack(row.get_ref(2)?.as_blob()?, |it| latencies.first_tokens.push(it));
    }
    Ok(series)
}

/// Writes the latencies of a period, if they are those of all its calls: some may be gone, or have come late.
fn seal(
    ledger: &mut Connection,
    grain: Grain,
    start: Micros,
    series: BTreeMap<i64, Latencies>,
) -> rusqlite::Result<()> {
    let (sums, latencies) = (grain.sums(), grain.latencies());
    let change = ledger.transaction()?;
    let count = format!("SELECT ifnull(sum(calls), 0), ifnull(sum(first_tokens), 0) FROM {sums} WHERE start = ?1");
    let all: (i64, i64) = change.query_row(&count, [start], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let sum = |part: fn(&Latencies) -> usize| series.values().map(part).sum::<usize>();
    let found = (sum(|it| it.calls.len()), sum(|it| it.first_tokens.len()));
    if (i64::try_from(found.0), i64::try_from(found.1)) != (Ok(all.0), Ok(all.1)) {
        return Ok(());
    }
    let insert = format!("INSERT OR REPLACE INTO {latencies} VALUES (?1, ?2, ?3, ?4)");
    let mut insert = change.prepare_cached(&insert)?;
    for (series, mut it) in series {
        it.calls.sort_unstable();
        it.first_tokens.sort_unstable();
        insert.execute(params![start, series, pack(&it.calls), pack(&it.first_tokens)])?;
    }
    drop(insert);
    change.execute("INSERT OR IGNORE INTO sealed VALUES (?1, ?2)", [grain.micros(), start])?;
    change.commit()
}
