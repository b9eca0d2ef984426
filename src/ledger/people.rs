//! People: the users that calls were made for, as far as users are kept.
//!
//! Sums by user know workspace, namespace and agent. Who asks for one model's users has the calls read.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use rusqlite::{OptionalExtension, Transaction};

use crate::ledger::filter::Filter;
use crate::ledger::questions::{Order, plan, rows};
use crate::ledger::reader::{About, Answer, Error, Reader};
use crate::ledger::sums::SUMS;
use crate::ledger::totals::{OfUser, Totals};
use crate::ledger::window::{Grain, Source, Window};

/// The users that calls were made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// The first in the order asked for, by name.
    pub first: Vec<(Box<str>, OfUser)>,
    /// How many users there are, these included.
    pub all: u64,
}

impl Reader {
    /// The first `limit` users, and how many there are. Calls for nobody, or for somebody erased, are of none of them.
    ///
    /// # Errors
    /// [`Error`].
    pub fn users(
        &self,
        window: Window,
        filter: &Filter,
        (order, limit): (Order, usize),
    ) -> Result<Answer<Users>, Error> {
        self.ask(|snapshot| {
            let Answer { found: users, covers } = by_user(snapshot, window, filter)?;
            let all = u64::try_from(users.len()).unwrap_or(u64::MAX);
            let mut users: Vec<(i64, OfUser)> = users.into_iter().collect();
            users.sort_unstable_by_key(|(id, of_user)| match order {
                Order::Cost => (Reverse((of_user.cost.pico(), of_user.calls)), *id),
                Order::Calls => (Reverse((of_user.calls.into(), 0)), *id),
            });
            let mut name = snapshot.prepare_cached("SELECT name FROM users WHERE id = ?")?;
            let mut first = Vec::with_capacity(limit.min(users.len()));
            for (id, of_user) in users.into_iter().take(limit) {
                let name: Option<Box<str>> = name.query_row([id], |row| row.get(0)).optional()?;
                first.extend(name.map(|name| (name, of_user)));
            }
            Ok(Answer { found: Users { first, all }, covers })
        })
    }

    /// How many users calls were made for.
    ///
    /// # Errors
    /// [`Error`].
    pub fn unique_users(&self, window: Window, filter: &Filter) -> Result<Answer<u64>, Error> {
        self.ask(|snapshot| {
            let mut users: HashSet<i64> = HashSet::new();
            let coarsest = if filter.is_by_user() { Source::COARSEST } else { Source::Calls };
            let (kept, covers) = plan(snapshot, About::Users, window, coarsest)?;
            for piece in kept {
                let (select, condition) = match piece.source {
                    Source::Calls => (
                        "SELECT DISTINCT user FROM calls WHERE id >= ? AND id < ? AND user IS NOT NULL",
                        filter.of_call(),
                    ),
                    Source::Periods(Grain::Hour) => {
                        ("SELECT DISTINCT user FROM user_hours WHERE start >= ? AND start < ?", filter.of_user())
                    }
                    // By user: there are far fewer of them than there are sums.
                    Source::Periods(Grain::Day) => (
                        "SELECT id FROM users WHERE EXISTS \
                         (SELECT 1 FROM user_days WHERE user = users.id AND start >= ? AND start < ?",
                        filter.of_user().closed(),
                    ),
                };
                rows(snapshot, select, piece.window, &condition, |row| {
                    users.insert(row.get(0)?);
                    Ok(())
                })?;
            }
            users.remove(&NOBODY);
            Ok(Answer { found: u64::try_from(users.len()).unwrap_or(u64::MAX), covers })
        })
    }
}

/// Who is nobody.
const NOBODY: i64 = 0;

fn by_user(snapshot: &Transaction<'_>, window: Window, filter: &Filter) -> Result<Answer<HashMap<i64, OfUser>>, Error> {
    let mut users: HashMap<i64, OfUser> = HashMap::new();
    let coarsest = if filter.is_by_user() { Source::COARSEST } else { Source::Calls };
    let (kept, covers) = plan(snapshot, About::Users, window, coarsest)?;
    for piece in kept {
        let (select, condition): (&str, _) = match piece.source {
            Source::Calls => (&OF_CALLS, filter.of_call()),
            Source::Periods(grain) => (of_periods(grain, filter), filter.of_user()),
        };
        rows(snapshot, select, piece.window, &condition, |row| {
            let of_user = match piece.source {
                Source::Calls => OfUser::of(&Totals::of_row(row, 2)?, row.get(1)?),
                Source::Periods(_) => OfUser::of_row(row, 1)?,
            };
            users.entry(row.get(0)?).or_default().add(&of_user);
            Ok(())
        })?;
    }
    users.remove(&NOBODY);
    Ok(Answer { found: users, covers })
}

static OF_CALLS: LazyLock<String> = LazyLock::new(|| {
    let columns = SUMS.map(|sum| sum.sql).join(", ");
    format!(
        "SELECT user, calls.id, {columns} FROM calls CROSS JOIN series ON series.id = calls.series \
         WHERE calls.id >= ? AND calls.id < ? AND user IS NOT NULL"
    )
});

fn of_periods(grain: Grain, filter: &Filter) -> &'static str {
    static SELECTS: LazyLock<[String; 3]> = LazyLock::new(|| {
        [Grain::Hour.user_sums(), Grain::Day.user_sums(), "user_day_totals"].map(|table| {
            format!("SELECT user, {} FROM {table} WHERE start >= ? AND start < ?", OfUser::COLUMNS.join(", "))
        })
    });
    match grain {
        Grain::Hour => &SELECTS[0],
        Grain::Day if filter.is_by_scope() => &SELECTS[1],
        Grain::Day => &SELECTS[2],
    }
}
