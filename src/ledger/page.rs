//! Page: calls one by one, a page at a time; what was said in one; what was done to the ledger.
//!
//! A page is a short question of its own, so that whoever reads all of it never holds up the one who writes. What a filter
//! seldom meets is looked for only in the hours whose sums say that it is there.

use std::io::Read;
use std::num::NonZeroUsize;
use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params_from_iter};
use tokio::time::Instant;

use crate::ledger::content::Kept;
use crate::ledger::entry::{Entry, Micros};
use crate::ledger::filter::{Filter, Occurs};
use crate::ledger::questions::rows;
use crate::ledger::reader::{Error, Reader};
use crate::ledger::row;
use crate::ledger::window::{Grain, Window, ceil};
use crate::ledger::{DAY, HOUR, start_of};

/// Which calls come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The last.
    Newest,
    /// The first.
    Oldest,
}

/// Some of the calls asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The calls, in the order asked for.
    pub entries: Vec<Entry>,
    /// After which moment the next page begins; `None` where there is no more. Calls that are hard to find make short
    /// pages, even empty ones: what was asked for ends only where this does.
    pub next: Option<Micros>,
}

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Its number, which the next is higher than.
    pub id: i64,
    /// When.
    pub at: Micros,
    /// Who.
    pub who: Box<str>,
    /// What.
    pub action: Box<str>,
    /// What there is to say of it: a JSON object.
    pub detail: Box<str>,
}

impl Reader {
    /// At most `limit` calls; those after the moment `after`, where a page ended, if there was one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn page(
        &self,
        window: Window,
        filter: &Filter,
        after: Option<Micros>,
        (direction, limit): (Direction, NonZeroUsize),
    ) -> Result<Page, Error> {
        /// After so long, what was found is handed over.
        const ENOUGH: Duration = Duration::from_millis(250);
        let until = Instant::now() + ENOUGH;
        let left = match (direction, after) {
            (_, None) => window,
            (Direction::Newest, Some(after)) => Window { to: window.to.min(after), ..window },
            (Direction::Oldest, Some(after)) => Window { from: window.from.max(after.saturating_add(1)), ..window },
        };
        self.ask(|snapshot| {
            let mut search = Search { snapshot, filter, direction, until, limit: limit.get(), found: Vec::new() };
            let next = search.all(left)?;
            Ok(Page { entries: search.found, next })
        })
    }

    /// What was said in the call that was over at this moment. `None` if nothing is kept of that.
    ///
    /// # Errors
    /// [`Error`].
    pub fn content(&self, call: Micros) -> Result<Option<Kept>, Error> {
        let packed = self.ask(|snapshot| {
            let mut content = snapshot.prepare_cached("SELECT request, response FROM contents WHERE call = ?")?;
            Ok(content.query_row([call], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        })?;
        Ok(packed.map(|(request, response): (Option<Vec<u8>>, Option<Vec<u8>>)| Kept {
            request: request.as_deref().and_then(unpacked),
            response: response.as_deref().and_then(unpacked),
        }))
    }

    /// What was done, the last first, before the deed of number `before`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn audit(&self, before: Option<i64>, limit: usize) -> Result<Vec<Deed>, Error> {
        self.ask(|snapshot| {
            let mut deeds = snapshot.prepare_cached(
                "SELECT id, at, who, action, detail FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let deeds = deeds.query_map([before.unwrap_or(i64::MAX), limit], |row| {
                Ok(Deed {
                    id: row.get(0)?,
                    at: row.get(1)?,
                    who: row.get(2)?,
                    action: row.get(3)?,
                    detail: row.get(4)?,
                })
            })?;
            Ok(deeds.collect::<rusqlite::Result<_>>()?)
        })
    }
}

/// More than this was never in one body.
const MAX_CONTENT: u64 = 256 << 20;

fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed).ok()?;
    decoder.take(MAX_CONTENT).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Looks for calls.
struct Search<'a> {
    snapshot: &'a Transaction<'a>,
    filter: &'a Filter,
    direction: Direction,
    until: Instant,
    limit: usize,
    found: Vec<Entry>,
}

impl Search<'_> {
    /// Looks through the whole window, and tells after which moment it goes on, if it did not come to the end.
    fn all(&mut self, window: Window) -> Result<Option<Micros>, Error> {
        let Some(occurs) = self.filter.occurs() else { return self.look(window) };
        for day in self.days(&occurs, window)? {
            for hour in self.hours(&occurs, day)? {
                let next = self.look(hour)?;
                if next.is_some() {
                    return Ok(next);
                }
                if Instant::now() >= self.until {
                    return Ok(Some(match self.direction {
                        Direction::Newest => hour.from,
                        Direction::Oldest => hour.to - 1,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The parts of the window that are in days in which there are such calls.
    fn days(&self, occurs: &Occurs, window: Window) -> Result<Vec<Window>, Error> {
        let select =
            format!("SELECT DISTINCT start FROM {} WHERE start >= ? AND start < ?", (occurs.table)(Grain::Day));
        let whole = Window { from: start_of(DAY, window.from), to: ceil(window.to, DAY) };
        let mut parts = Vec::new();
        rows(self.snapshot, &select, whole, &occurs.condition, |row| {
            let from: Micros = row.get(0)?;
            parts.push(Window { from, to: from.saturating_add(DAY) }.within(window));
            Ok(())
        })?;
        parts.sort_unstable_by_key(|part| part.from);
        Ok(self.in_order(parts))
    }

    /// The parts of what is within a day that are in hours in which there are such calls. Each hour is asked, which is
    /// less than to look through all sums of the day.
    fn hours(&self, occurs: &Occurs, window: Window) -> Result<Vec<Window>, Error> {
        let exists = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE start = ?{})",
            (occurs.table)(Grain::Hour),
            occurs.condition.sql
        );
        let mut exists = self.snapshot.prepare_cached(&exists)?;
        let mut parts = Vec::new();
        let mut from = start_of(HOUR, window.from);
        while from < window.to {
            let values = [from.into()];
            if exists.query_row(params_from_iter(values.iter().chain(&occurs.condition.values)), |row| row.get(0))? {
                parts.push(Window { from, to: from.saturating_add(HOUR) }.within(window));
            }
            from = from.saturating_add(HOUR);
        }
        Ok(self.in_order(parts))
    }

    fn in_order(&self, mut parts: Vec<Window>) -> Vec<Window> {
        if self.direction == Direction::Newest {
            parts.reverse();
        }
        parts
    }

    /// Reads calls of the window, until the page is full.
    fn look(&mut self, window: Window) -> Result<Option<Micros>, Error> {
        let condition = self.filter.of_call();
        let order = match self.direction {
            Direction::Newest => "DESC",
            Direction::Oldest => "ASC",
        };
        let left = i64::try_from(self.limit - self.found.len()).unwrap_or(i64::MAX);
        let select = format!(
            "{}WHERE calls.id >= ? AND calls.id < ?{} ORDER BY calls.id {order} LIMIT ?",
            row::SELECT,
            condition.sql
        );
        let mut select = self.snapshot.prepare_cached(&select)?;
        let (ends, limit) = ([window.from.into(), window.to.into()], left.saturating_add(1).into());
        let mut rows = select.query(params_from_iter(ends.iter().chain(&condition.values).chain([&limit])))?;
        while let Some(row) = rows.next()? {
            if self.found.len() == self.limit {
                return Ok(self.found.last().map(|last| last.ended_at));
            }
            self.found.push(row::read(row)?);
        }
        Ok(None)
    }
}
