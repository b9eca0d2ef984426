//! Statement: what a month has come to, for whoever pays: in all, by provider, model, workspace, agent and day, by user;
//! what was saved, and what of it is not certain.
//!
//! Made of the ledger's sums, which stay when calls are too old to be kept. A month is one of UTC, as providers bill.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::export::sheet;
use crate::ledger::entry::Micros;
use crate::ledger::filter::Filter;
use crate::ledger::people::Users;
use crate::ledger::questions::{Dimension, Groups, Order};
use crate::ledger::reader::{Error, Reader};
use crate::ledger::totals::Totals;
use crate::ledger::window::{Step, Window};
use crate::units::PicoUsd;

/// Most rows of a table; the rest are summed up in one.
const MOST_ROWS: usize = 50;
/// How many users are named.
const MOST_USERS: usize = 20;
/// How often the ledger is asked again while calls come in between the questions.
const ATTEMPTS: usize = 5;

/// A month of a year, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month(Date);

impl Month {
    /// The month that `at` is in.
    #[must_use]
    pub fn of(at: Micros) -> Self {
        let at = jiff::Timestamp::from_microsecond(at).unwrap_or_default();
        Self(at.to_zoned(TimeZone::UTC).date().first_of_month())
    }

    /// From its first microsecond to the next one's.
    #[must_use]
    pub fn window(self) -> Window {
        let start = |date: Date| {
            let midnight = date.to_zoned(TimeZone::UTC);
            midnight.map_or(Micros::MAX, |midnight| midnight.timestamp().as_microsecond())
        };
        Window { from: start(self.0), to: self.0.last_of_month().tomorrow().map_or(Micros::MAX, start) }
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let first = text.len() == "2026-10".len();
        let date = first.then(|| format!("{text}-01").parse::<Date>().ok()).flatten();
        date.filter(|date| date.year() >= 1970)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no month: write a year and a month, such as 2026-10"))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

/// What a month has come to.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Which month.
    pub month: Month,
    /// The part of it that it tells of: not what is yet to come, nor what is no longer known.
    pub covers: Window,
    /// What was to be spent at most, where that is known.
    pub limit: Option<PicoUsd>,
    /// Everything.
    pub total: Totals,
    /// The same by what the calls have in common.
    pub tables: Vec<Table>,
    /// How many users calls were made for.
    pub users: u64,
}

/// Parts of a whole.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it is by.
    pub by: &'static str,
    /// The parts, by name, the most expensive first; days in order.
    pub rows: Vec<(String, Part)>,
    /// Whether they add up to everything.
    pub is_whole: bool,
}

/// What a part comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many calls.
    pub calls: u64,
    /// Input and output tokens that were bought.
    pub tokens: u64,
    /// What was spent.
    pub cost: PicoUsd,
    /// What was not spent because the answer was there already.
    pub saved: PicoUsd,
    /// How many calls have no known cost. `None` where that is not told apart.
    pub unpriced: Option<u64>,
    /// How much of what was spent rests on an estimate. `None` where that is not told apart.
    pub estimated: Option<PicoUsd>,
}

impl Part {
    /// Of totals.
    #[must_use]
    pub const fn of(totals: &Totals) -> Self {
        Self {
            calls: totals.calls,
            tokens: totals.tokens(),
            cost: totals.cost,
            saved: totals.saved,
            unpriced: Some(totals.unpriced),
            estimated: Some(totals.estimated_cost),
        }
    }
}

impl Statement {
    /// What the month has come to until `now`, of the calls that the filter lets through.
    ///
    /// # Errors
    /// If the ledger cannot be asked.
    pub fn of(reader: &Reader, month: Month, filter: &Filter, now: Micros) -> Result<Self, Error> {
        let mut statement = Self::asked(reader, month, filter, now)?;
        // Each table is a question of its own: calls that came in between are in one and not in another.
        for _ in 1..ATTEMPTS {
            if statement.adds_up() {
                break;
            }
            statement = Self::asked(reader, month, filter, now)?;
        }
        Ok(statement)
    }

    fn asked(reader: &Reader, month: Month, filter: &Filter, now: Micros) -> Result<Self, Error> {
        let whole = month.window();
        let window = Window { to: whole.to.min(now.max(whole.from)), ..whole };
        let days = reader.over_time(window, filter, Step::Day)?;
        let mut total = Totals::default();
        for (_, day) in &days.found {
            total.add(day);
        }
        let mut tables = Vec::new();
        for (by, dimension) in [
            ("provider", Dimension::Provider),
            ("model", Dimension::Model),
            ("workspace", Dimension::Workspace),
            ("agent", Dimension::Agent),
        ] {
            let groups = reader.by(dimension, window, filter, (Order::Cost, MOST_ROWS))?.found;
            tables.push(Table { by, rows: rows(&groups, by), is_whole: true });
        }
        let by_day = days.found.iter().map(|(start, day)| (sheet::time(*start)[..DATE].to_owned(), Part::of(day)));
        tables.push(Table { by: "day", rows: by_day.collect(), is_whole: true });
        let users = reader.users(window, filter, (Order::Cost, MOST_USERS))?.found;
        tables.push(Table { by: "user", rows: named(&users), is_whole: false });
        Ok(Self { month, covers: days.covers, limit: None, total, tables, users: users.all })
    }

    /// The same, beside what was to be spent at most.
    #[must_use]
    pub fn beside(self, limit: Option<PicoUsd>) -> Self {
        Self { limit, ..self }
    }

    /// Whether every table that tells of everything comes to the same.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let total = (self.total.calls, self.total.cost, self.total.saved);
        self.tables.iter().filter(|table| table.is_whole).all(|table| {
            let mut sum = (0, PicoUsd::ZERO, PicoUsd::ZERO);
            for (_, part) in &table.rows {
                sum = (sum.0 + part.calls, sum.1 + part.cost, sum.2 + part.saved);
            }
            sum == total
        })
    }

    /// What to know of the figures.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            format!(
                "US dollars. {} is a month of UTC, as providers bill; a call is of the moment it was over.",
                self.month
            ),
            "Costs are what the provider stated, else what was used times the price table's rates at that time."
                .to_owned(),
        ];
        if self.covers != self.month.window() {
            let (from, to) = (sheet::time(self.covers.from), sheet::time(self.covers.to));
            notes.push(format!("This tells of {from} to {to}, not of the whole month."));
        }
        if self.total.unpriced > 0 {
            notes.push(format!("{} calls have no known cost: the total is without them.", self.total.unpriced));
        }
        if self.total.estimated > 0 {
            let Totals { estimated, estimated_cost, .. } = self.total;
            notes.push(format!("{estimated_cost} USD of {estimated} calls rest on estimates of what was used."));
        }
        if !self.adds_up() {
            notes.push("Calls came in while this was made: its tables differ by them.".to_owned());
        }
        notes
    }
}

/// How long a date is: `2026-10-01`.
const DATE: usize = 10;

fn rows(groups: &Groups, by: &str) -> Vec<(String, Part)> {
    let named = |(name, totals): &(Option<Box<str>>, Totals)| {
        let name = name.as_deref().map_or_else(|| format!("(no {by})"), str::to_owned);
        (name, Part::of(totals))
    };
    let rest = (groups.others > 0).then(|| (format!("({} others)", groups.others), Part::of(&groups.rest)));
    groups.first.iter().map(named).chain(rest).collect()
}

fn named(users: &Users) -> Vec<(String, Part)> {
    let part = |(name, of_user): &(Box<str>, crate::ledger::totals::OfUser)| {
        let part = Part {
            calls: of_user.calls,
            tokens: of_user.tokens,
            cost: of_user.cost,
            saved: of_user.saved,
            unpriced: None,
            estimated: None,
        };
        (name.to_string(), part)
    };
    users.first.iter().map(part).collect()
}
