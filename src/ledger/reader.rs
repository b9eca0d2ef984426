//! Reader: who asks the ledger. A few connections for questions alone, each question in one snapshot and within a
//! deadline.
//!
//! The questions themselves are in the files beside this one. Blocks: not for threads that drive calls.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Row, Transaction};
use tokio::time::Instant;

use crate::ledger::entry::Micros;
use crate::ledger::start_of;
use crate::ledger::window::{Grain, Since, Window, ceil};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no database to ask: not yet, or not any more.
    #[error("the ledger is not open")]
    NotOpen,
    /// It took longer than questions may.
    #[error("the answer would take too long")]
    TooLong,
    /// More points than an answer may have.
    #[error("{points} points are asked for, and {most} are the most")]
    TooManyPoints {
        /// So many.
        points: u64,
        /// The most there may be.
        most: u64,
    },
    /// The database failed.
    #[error("the ledger cannot be read")]
    Database(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // Busy is what a ledger in memory is while it is written.
            Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy) => Self::TooLong,
            _ => Self::Database(error),
        }
    }
}

/// What was found, and of which part of the window: the rest of it is too old to be known any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// What was found.
    pub found: T,
    /// The part of the window that it tells of.
    pub covers: Window,
}

impl<T> Answer<T> {
    /// The same told otherwise.
    pub fn map<U>(self, tell: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { found: tell(self.found), covers: self.covers }
    }
}

/// Asks the ledger. Clones share their connections.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

struct Shared {
    deadline: Duration,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    /// Which database: connections to an earlier one are not taken back.
    generation: u64,
    is_open: bool,
    idle: Vec<Connection>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("deadline", &self.0.deadline).finish_non_exhaustive()
    }
}

impl Reader {
    /// Nobody to ask, until there is a database to [`Reader::open`]. A question may take as long as `deadline`, the wait
    /// for a connection included.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self(Arc::new(Shared { deadline, pool: Mutex::default(), returned: Condvar::new() }))
    }

    /// Asks these connections from now on, each of them one question at a time, and no others.
    pub fn open(&self, connections: Vec<Connection>) {
        /// Questions are many, and each is prepared once.
        const STATEMENTS: usize = 100;
        for connection in &connections {
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
        }
        let mut pool = self.pool();
        let generation = pool.generation + 1;
        *pool = Pool { generation, is_open: !connections.is_empty(), idle: connections };
        drop(pool);
        self.0.returned.notify_all();
    }

    /// Asks nobody any more.
    pub fn close(&self) {
        self.open(Vec::new());
    }

    /// When the first and the last call were over that there is a row of. `None` without rows.
    ///
    /// # Errors
    /// [`Error`].
    pub fn span(&self) -> Result<Option<(Micros, Micros)>, Error> {
        self.ask(|snapshot| Ok(Kept::of(snapshot, About::Series)?.calls))
    }

    /// Asks one snapshot of the ledger.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        /// Steps of `SQLite`'s machine between two looks at the clock: some ten microseconds.
        const STEPS: i32 = 1_000;
        let until = Instant::now() + self.0.deadline;
        let mut lent = self.lend(until)?;
        lent.progress_handler(STEPS, Some(move || Instant::now() >= until))?;
        let snapshot = lent.transaction()?;
        question(&snapshot)
    }

    fn lend(&self, until: Instant) -> Result<Lent<'_>, Error> {
        let mut pool = self.pool();
        while pool.is_open {
            if let Some(connection) = pool.idle.pop() {
                return Ok(Lent { of: &self.0, generation: pool.generation, connection: Some(connection) });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::TooLong);
            }
            pool = self.0.returned.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(Error::NotOpen)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for one question.
struct Lent<'a> {
    of: &'a Shared,
    generation: u64,
    /// There until it goes back.
    connection: Option<Connection>,
}

impl Deref for Lent<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is there until it goes back")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is there until it goes back")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut pool = self.of.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.generation == self.generation {
            pool.idle.extend(self.connection.take());
            self.of.returned.notify_one();
        }
    }
}

/// What is asked, which says what sums there are of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// What calls come to.
    Series,
    /// Who made them.
    Users,
    /// How they failed.
    Failures,
}

/// What there is in a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// The first and the last call.
    pub(super) calls: Option<(Micros, Micros)>,
    /// When the first and the last day begin that there are sums of.
    pub(super) days: Option<(Micros, Micros)>,
    pub(super) since: Since,
}

impl Kept {
    /// The oldest goes first: calls, then what is kept of hours, then of days.
    pub(super) fn of(snapshot: &Transaction<'_>, about: About) -> Result<Self, Error> {
        let calls = ends(snapshot, "SELECT (SELECT min(id) FROM calls), (SELECT max(id) FROM calls)")?;
        let hours = ends(snapshot, "SELECT (SELECT min(start) FROM hours), (SELECT max(start) FROM hours)")?;
        let days = ends(snapshot, "SELECT (SELECT min(start) FROM days), (SELECT max(start) FROM days)")?;
        let same = |one: &'static str, other: &'static str| {
            move |window| Ok(number(snapshot, one, window)? == number(snapshot, other, window)?)
        };
        let hours_since = whole_since(hours.map(|it| it.0), days, Grain::Day, same(HOURS, DAYS))?;
        let calls_since = whole_since(calls.map(|it| it.0), hours, Grain::Hour, same(CALLS, HOURS))?.max(hours_since);
        let since = match about {
            About::Series => Since { calls: calls_since, hours: hours_since, days: Micros::MIN },
            About::Users => {
                let first = |sql| Ok::<_, Error>(snapshot.prepare_cached(sql)?.query_row([], |row| row.get(0))?);
                let (user_hours, user_days) =
                    (first("SELECT min(start) FROM user_hours")?, first("SELECT min(start) FROM user_days")?);
                let of_hours = whole_since(user_hours, days, Grain::Day, same(USER_HOURS, DAYS))?;
                let of_days = whole_since(user_days, days, Grain::Day, same(USER_DAYS, DAYS))?;
                Since { calls: calls_since, hours: of_hours, days: of_days }
            }
            About::Failures => {
                let hours = failures_since(snapshot, hours)?.max(hours_since);
                Since { calls: calls_since, hours, days: Micros::MAX }
            }
        };
        Ok(Self { calls, days, since })
    }

    /// The window with the same calls in it that begins and ends with whole days, as far as there are no calls before
    /// the first or after the last: the hour that goes on is then answered by its sum.
    pub(super) fn widened(&self, window: Window) -> Window {
        let Some((first, last)) = self.calls else { return window };
        let is_all_there = self.since.calls == Micros::MIN;
        Window {
            from: if is_all_there && window.from <= first {
                start_of(Grain::Day.micros(), window.from)
            } else {
                window.from
            },
            to: if window.to > last { ceil(window.to, Grain::Day.micros()) } else { window.to },
        }
    }
}

const CALLS: &str = "SELECT count(*) FROM calls WHERE id >= ?1 AND id < ?2";
const HOURS: &str = "SELECT sum(calls) FROM hours WHERE start >= ?1 AND start < ?2";
const DAYS: &str = "SELECT sum(calls) FROM days WHERE start >= ?1 AND start < ?2";
const USER_HOURS: &str = "SELECT sum(calls) FROM user_hours WHERE start >= ?1 AND start < ?2";
const USER_DAYS: &str = "SELECT sum(calls) FROM user_days WHERE start >= ?1 AND start < ?2";

fn ends(snapshot: &Transaction<'_>, sql: &str) -> Result<Option<(Micros, Micros)>, Error> {
    let ends = |row: &Row<'_>| Ok(row.get::<_, Option<_>>(0)?.zip(row.get(1)?));
    Ok(snapshot.prepare_cached(sql)?.query_row([], ends)?)
}

/// From when on every failure is among those by hour. An hour without any has no row, so its sums are asked.
fn failures_since(snapshot: &Transaction<'_>, hours: Option<(Micros, Micros)>) -> Result<Micros, Error> {
    let Some((_, latest)) = hours else { return Ok(Micros::MIN) };
    let first: Option<Micros> =
        snapshot.prepare_cached("SELECT min(start) FROM hour_errors")?.query_row([], |row| row.get(0))?;
    let first = first.unwrap_or_else(|| latest.saturating_add(Grain::Hour.micros()));
    let has_gone: bool = snapshot
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM hours WHERE start < ? AND calls > successes)")?
        .query_row([first], |row| row.get(0))?;
    Ok(if has_gone { first } else { Micros::MIN })
}

fn number(snapshot: &Transaction<'_>, sql: &str, window: Window) -> Result<Option<i64>, Error> {
    Ok(snapshot.prepare_cached(sql)?.query_row([window.from, window.to], |row| row.get(0))?)
}

/// From when on what is kept finely is whole, where the oldest of it goes first: from its first on, unless the coarser
/// sums tell that nothing has gone.
fn whole_since(
    first: Option<Micros>,
    coarse: Option<(Micros, Micros)>,
    grain: Grain,
    is_whole: impl FnOnce(Window) -> Result<bool, Error>,
) -> Result<Micros, Error> {
    Ok(match (first, coarse) {
        (_, None) => Micros::MIN,
        (None, Some((_, latest))) => latest.saturating_add(grain.micros()),
        (Some(first), Some((earliest, _))) => {
            let start = start_of(grain.micros(), first);
            let period = Window { from: start, to: start.saturating_add(grain.micros()) };
            if start <= earliest && is_whole(period)? { Micros::MIN } else { first }
        }
    })
}
