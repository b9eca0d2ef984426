//! Sums: what is added up by hour and by day, written together with the rows it is the sum of.
//!
//! Each sum of [`SUMS`] says how it is counted twice, of an entry and in SQL of a row, and a test holds the two together:
//! whole periods are answered from the sums, the rest of a range from the rows, and nobody can tell.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rusqlite::{Statement, Transaction, params, params_from_iter};

use crate::ledger::entry::{Entry, Micros, Word};
use crate::ledger::names::Series;
use crate::ledger::open::totals_of;
use crate::ledger::row::{length, pico, whole};
use crate::ledger::totals::{OfUser, Totals};
use crate::ledger::window::Grain;
use crate::ledger::{DAY, HOUR, MINUTE, start_of};
use crate::record::call::Operation;
use crate::record::outcome::Outcome;
use crate::record::usage::{Counter, Usage};

/// A column of `hours` and `days`.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    /// Its name.
    pub name: &'static str,
    /// What a call adds to it.
    pub of: fn(&Entry) -> i64,
    /// The same of a row, in SQL: of `calls`, joined with its `series`.
    pub sql: &'static str,
}

const fn sum(name: &'static str, of: fn(&Entry) -> i64, sql: &'static str) -> Sum {
    Sum { name, of, sql }
}

/// SQL for whether a row's usage was bought: not reused, and billed by usage.
macro_rules! bought {
    ($column:literal) => {
        concat!(
            "iif(calls.reuse IS NULL AND series.operation NOT IN ('count_tokens', 'moderation', 'other'), ifnull(",
            $column,
            ", 0), 0)"
        )
    };
}

/// Every column of `hours` and `days` after `start` and `series`.
pub const SUMS: [Sum; 29] = [
    sum("calls", |_| 1, "1"),
    sum("successes", |it| ended(it, Outcome::Success), "calls.outcome = 'success'"),
    sum("client_errors", |it| ended(it, Outcome::ClientError), "calls.outcome = 'client_error'"),
    sum("upstream_errors", |it| ended(it, Outcome::UpstreamError), "calls.outcome = 'upstream_error'"),
    sum("timeouts", |it| ended(it, Outcome::Timeout), "calls.outcome = 'timeout'"),
    sum("internal_errors", |it| ended(it, Outcome::InternalError), "calls.outcome = 'internal_error'"),
    sum("rate_limited", |it| ended(it, Outcome::RateLimited), "calls.outcome = 'rate_limited'"),
    sum("budget_blocked", |it| ended(it, Outcome::BudgetBlocked), "calls.outcome = 'budget_blocked'"),
    sum("cancelled", |it| ended(it, Outcome::Cancelled), "calls.outcome = 'cancelled'"),
    sum("streamed", |it| it.streamed.into(), "calls.streamed"),
    sum("hits", |it| reused(it, &["cache", "similar"]), "ifnull(calls.reuse IN ('cache', 'similar'), 0)"),
    sum("coalesced", |it| reused(it, &["coalesced"]), "ifnull(calls.reuse = 'coalesced', 0)"),
    sum("looked_up", |it| (it.cache != "bypass").into(), "calls.cache <> 'bypass'"),
    sum("unpriced", |it| it.unpriced.is_some().into(), "calls.unpriced IS NOT NULL"),
    sum("estimated", |it| estimated(it).into(), "ifnull(calls.provenance = 'estimated' AND calls.reuse IS NULL, 0)"),
    sum("input_tokens", |it| bought(it, Counter::InputTokens), bought!("calls.input_tokens")),
    sum("output_tokens", |it| bought(it, Counter::OutputTokens), bought!("calls.output_tokens")),
    sum("cache_read_tokens", |it| bought(it, Counter::CacheReadTokens), bought!("calls.cache_read_tokens")),
    sum("cache_write_tokens", |it| bought(it, Counter::CacheWriteTokens), bought!("calls.cache_write_tokens")),
    sum("reasoning_tokens", |it| bought(it, Counter::OutputReasoningTokens), bought!("calls.reasoning_tokens")),
    sum(
        "saved_tokens",
        saved_tokens,
        "iif(calls.reuse IS NULL, 0, ifnull(calls.input_tokens, 0) + ifnull(calls.output_tokens, 0))",
    ),
    sum("cost", |it| it.cost.map_or(0, pico), "ifnull(calls.cost, 0)"),
    sum(
        "estimated_cost",
        |it| it.cost.filter(|_| estimated(it)).map_or(0, pico),
        "iif(calls.provenance = 'estimated' AND calls.reuse IS NULL, ifnull(calls.cost, 0), 0)",
    ),
    sum("saved", |it| it.saved.map_or(0, pico), "ifnull(calls.saved, 0)"),
    sum("latency", |it| length(it.latency), "calls.latency"),
    sum("first_token", |it| it.first_token.map_or(0, length), "ifnull(calls.first_token, 0)"),
    sum("first_tokens", |it| it.first_token.is_some().into(), "calls.first_token IS NOT NULL"),
    sum("bytes_in", |it| whole(it.bytes_in), "calls.bytes_in"),
    sum("bytes_out", |it| whole(it.bytes_out), "calls.bytes_out"),
];

fn ended(entry: &Entry, outcome: Outcome) -> i64 {
    (entry.outcome == outcome.as_str()).into()
}

fn reused(entry: &Entry, how: &[&str]) -> i64 {
    entry.reuse.as_ref().is_some_and(|reuse| how.contains(&&**reuse)).into()
}

fn estimated(entry: &Entry) -> bool {
    entry.reuse.is_none() && entry.provenance.as_deref() == Some("estimated")
}

/// What was bought for it, as [`crate::record::Record::bought`] says of a record.
fn usage_bought(entry: &Entry) -> Option<&Usage> {
    let operation = Operation::ALL.into_iter().find(|operation| operation.as_str() == entry.operation);
    let is_billed = operation.is_none_or(Operation::is_billed);
    entry.usage.as_ref().filter(|_| is_billed && entry.reuse.is_none())
}

fn bought(entry: &Entry, counter: Counter) -> i64 {
    whole(usage_bought(entry).and_then(|usage| usage.get(counter)).unwrap_or(0))
}

fn saved_tokens(entry: &Entry) -> i64 {
    whole(entry.usage.filter(|_| entry.reuse.is_some()).map_or(0, |usage| usage.total_tokens()))
}

/// What some calls add up to, sum by sum.
type Counts = [i64; SUMS.len()];

const NOTHING: Counts = [0; SUMS.len()];

/// The sums of a batch, by the hour; those of all calls by the minute. What is longer is added up from them when they
/// are written.
#[derive(Debug, Default)]
pub(super) struct Sums {
    minutes: BTreeMap<Micros, Counts>,
    hours: BTreeMap<(Micros, i64), Counts>,
    errors: BTreeMap<(Micros, i64, Word, Word), i64>,
    users: BTreeMap<(Micros, i64, i64), OfUser>,
}

impl Sums {
    /// Adds the call that is written as `id`.
    pub(super) fn add(&mut self, id: Micros, entry: &Entry, series: Series, user: Option<i64>) {
        let hour = start_of(HOUR, id);
        let counts = SUMS.map(|sum| (sum.of)(entry));
        add_up(self.minutes.entry(start_of(MINUTE, id)).or_insert(NOTHING), &counts);
        add_up(self.hours.entry((hour, series.id)).or_insert(NOTHING), &counts);
        if entry.outcome != Outcome::Success.as_str() {
            let kind = (hour, series.id, entry.outcome.clone(), entry.error_type.clone().unwrap_or_default());
            *self.errors.entry(kind).or_default() += 1;
        }
        let of_user = self.users.entry((hour, user.unwrap_or(0), series.scope)).or_default();
        of_user.add(&OfUser::of(&Totals::of_columns(counts), id));
    }

    /// Adds them to what is there, and takes away what had been made of periods that were thought to be over.
    pub(super) fn write(&self, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        for grain in Grain::ALL {
            self.write_series(grain, ledger)?;
            self.unseal(grain, ledger)?;
        }
        for (grain, add) in &*ADD_TOTALS {
            let mut add = ledger.prepare_cached(add)?;
            self.write_totals(*grain, &mut add)?;
        }
        self.write_users(ledger)?;
        let mut add = ledger.prepare_cached(
            "INSERT INTO hour_errors (start, series, outcome, error_type, calls) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
        )?;
        for ((start, series, outcome, error_type), calls) in &self.errors {
            add.execute(params![start, series, outcome, error_type, calls])?;
        }
        Ok(())
    }

    fn write_series(&self, grain: Grain, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut periods: BTreeMap<(Micros, i64), Counts> = BTreeMap::new();
        for ((hour, series), counts) in &self.hours {
            add_up(periods.entry((start_of(grain.micros(), *hour), *series)).or_insert(NOTHING), counts);
        }
        let mut add = ledger.prepare_cached(if grain == Grain::Hour { &ADD_HOUR } else { &ADD_DAY })?;
        for ((start, series), counts) in &periods {
            add.execute(params_from_iter([start, series].into_iter().chain(counts)))?;
        }
        Ok(())
    }

    fn write_totals(&self, grain: Micros, add: &mut Statement<'_>) -> rusqlite::Result<()> {
        let mut periods: BTreeMap<Micros, Counts> = BTreeMap::new();
        for (minute, counts) in &self.minutes {
            add_up(periods.entry(start_of(grain, *minute)).or_insert(NOTHING), counts);
        }
        for (start, counts) in &periods {
            add.execute(params_from_iter([start].into_iter().chain(counts)))?;
        }
        Ok(())
    }

    fn write_users(&self, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut days: BTreeMap<(Micros, i64, i64), OfUser> = BTreeMap::new();
        let mut totals: BTreeMap<(Micros, i64), OfUser> = BTreeMap::new();
        for ((hour, user, scope), of_user) in &self.users {
            let day = start_of(DAY, *hour);
            days.entry((day, *user, *scope)).or_default().add(of_user);
            totals.entry((day, *user)).or_default().add(of_user);
        }
        for (add, periods) in [(&ADD_USER_HOUR, &self.users), (&ADD_USER_DAY, &days)] {
            let mut add = ledger.prepare_cached(add)?;
            for ((start, user, scope), of_user) in periods {
                add.execute(params_from_iter([*start, *user, *scope].into_iter().chain(of_user.columns())))?;
            }
        }
        let mut add = ledger.prepare_cached(&ADD_USER_TOTAL)?;
        for ((start, user), of_user) in &totals {
            add.execute(params_from_iter([*start, *user].into_iter().chain(of_user.columns())))?;
        }
        Ok(())
    }

    fn unseal(&self, grain: Grain, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut unseal = ledger.prepare_cached("DELETE FROM sealed WHERE grain = ?1 AND start = ?2")?;
        let mut starts: Vec<Micros> = self.hours.keys().map(|(hour, _)| start_of(grain.micros(), *hour)).collect();
        starts.dedup();
        for start in starts {
            if unseal.execute([grain.micros(), start])? > 0 {
                let latencies = grain.latencies();
                ledger.execute(&format!("DELETE FROM {latencies} WHERE start = ?1"), [start])?;
            }
        }
        Ok(())
    }
}

fn add_up(sums: &mut Counts, counts: &Counts) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum = sum.saturating_add(*count);
    }
}

static ADD_HOUR: LazyLock<String> = LazyLock::new(|| add_sums_to(Grain::Hour.sums(), &["start", "series"]));
static ADD_DAY: LazyLock<String> = LazyLock::new(|| add_sums_to(Grain::Day.sums(), &["start", "series"]));
static ADD_TOTALS: LazyLock<[(Micros, String); 3]> =
    LazyLock::new(|| [MINUTE, HOUR, DAY].map(|grain| (grain, add_sums_to(totals_of(grain), &["start"]))));
static ADD_USER_HOUR: LazyLock<String> =
    LazyLock::new(|| add_to("user_hours", &["start", "user", "scope"], &OfUser::COLUMNS));
static ADD_USER_DAY: LazyLock<String> =
    LazyLock::new(|| add_to("user_days", &["start", "user", "scope"], &OfUser::COLUMNS));
static ADD_USER_TOTAL: LazyLock<String> =
    LazyLock::new(|| add_to("user_day_totals", &["start", "user"], &OfUser::COLUMNS));

fn add_sums_to(table: &str, key: &[&str]) -> String {
    add_to(table, key, &SUMS.map(|sum| sum.name))
}

fn add_to(table: &str, key: &[&str], sums: &[&str]) -> String {
    let columns = [key, sums].concat();
    format!(
        "INSERT INTO {table} ({}) VALUES ({}) {}",
        columns.join(", "),
        vec!["?"; columns.len()].join(", "),
        or_add(key, sums)
    )
}

/// What an `INSERT` of sums ends with: where there are some of that key, they are added to.
pub(super) fn or_add(key: &[&str], sums: &[&str]) -> String {
    let added: Vec<String> = sums.iter().map(|name| added(name)).collect();
    format!("ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), added.join(", "))
}

/// What overflows becomes a float, which the cast makes the largest integer.
fn added(name: &str) -> String {
    match name {
        "latest" => "latest = max(latest, excluded.latest)".to_owned(),
        sum => format!("{sum} = CAST({sum} + excluded.{sum} AS INTEGER)"),
    }
}
