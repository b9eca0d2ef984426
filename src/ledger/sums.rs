//! Sums: what is added up by hour and by day, written together with the rows it is the sum of.
//!
//! Each sum of [`SUMS`] says how it is counted twice, of an entry and in SQL of a row, and a test holds the two together:
//! whole periods are answered from the sums, the rest of a range from the rows, and nobody can tell.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rusqlite::{Transaction, params, params_from_iter};

use crate::ledger::entry::{Entry, Micros, Word};
use crate::ledger::names::Series;
use crate::ledger::open::tables_of;
use crate::ledger::row::{length, pico, whole};
use crate::ledger::{DAY, HOUR, start_of};
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
    const FREE: [Operation; 3] = [Operation::CountTokens, Operation::Moderation, Operation::Other];
    let is_billed = FREE.iter().all(|free| free.as_str() != entry.operation);
    entry.usage.as_ref().filter(|_| is_billed && entry.reuse.is_none())
}

fn bought(entry: &Entry, counter: Counter) -> i64 {
    whole(usage_bought(entry).and_then(|usage| usage.get(counter)).unwrap_or(0))
}

fn saved_tokens(entry: &Entry) -> i64 {
    whole(entry.usage.filter(|_| entry.reuse.is_some()).map_or(0, |usage| usage.total_tokens()))
}

/// What a user adds up to.
#[derive(Clone, Copy, Debug, Default)]
struct OfUser {
    calls: i64,
    errors: i64,
    tokens: i64,
    cost: i64,
    saved: i64,
    latest: Micros,
}

impl OfUser {
    fn of(id: Micros, entry: &Entry) -> Self {
        let ended_as = |outcome: Outcome| entry.outcome == outcome.as_str();
        Self {
            calls: 1,
            errors: (!ended_as(Outcome::Success) && !ended_as(Outcome::Cancelled)).into(),
            tokens: whole(usage_bought(entry).map_or(0, Usage::total_tokens)),
            cost: entry.cost.map_or(0, pico),
            saved: entry.saved.map_or(0, pico),
            latest: id,
        }
    }

    fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.cost = self.cost.saturating_add(other.cost);
        self.saved = self.saved.saturating_add(other.saved);
        self.latest = self.latest.max(other.latest);
    }
}

/// The sums of a batch, by the hour. Days are added up from them when they are written.
#[derive(Debug, Default)]
pub(super) struct Sums {
    hours: BTreeMap<(Micros, i64), [i64; SUMS.len()]>,
    errors: BTreeMap<(Micros, i64, Word, Word), i64>,
    users: BTreeMap<(Micros, i64, i64), OfUser>,
}

impl Sums {
    /// Adds the call that is written as `id`.
    pub(super) fn add(&mut self, id: Micros, entry: &Entry, series: Series, user: Option<i64>) {
        let hour = start_of(HOUR, id);
        let sums = self.hours.entry((hour, series.id)).or_insert([0; SUMS.len()]);
        for (slot, sum) in sums.iter_mut().zip(&SUMS) {
            *slot = slot.saturating_add((sum.of)(entry));
        }
        if entry.outcome != Outcome::Success.as_str() {
            let kind = (hour, series.id, entry.outcome.clone(), entry.error_type.clone().unwrap_or_default());
            *self.errors.entry(kind).or_default() += 1;
        }
        let of_user = self.users.entry((hour, user.unwrap_or(0), series.scope)).or_default();
        of_user.add(&OfUser::of(id, entry));
    }

    /// Adds them to what is there, and takes away what had been made of periods that were thought to be over.
    pub(super) fn write(&self, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        for grain in [HOUR, DAY] {
            self.write_totals(grain, ledger)?;
            self.write_users(grain, ledger)?;
            self.unseal(grain, ledger)?;
        }
        let mut add = ledger.prepare_cached(
            "INSERT INTO hour_errors (start, series, outcome, error_type, calls) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
        )?;
        for ((start, series, outcome, error_type), calls) in &self.errors {
            add.execute(params![start, series, outcome, error_type, calls])?;
        }
        Ok(())
    }

    fn write_totals(&self, grain: Micros, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut periods: BTreeMap<(Micros, i64), [i64; SUMS.len()]> = BTreeMap::new();
        for ((hour, series), sums) in &self.hours {
            let period = periods.entry((start_of(grain, *hour), *series)).or_insert([0; SUMS.len()]);
            for (slot, sum) in period.iter_mut().zip(sums) {
                *slot = slot.saturating_add(*sum);
            }
        }
        let mut add = ledger.prepare_cached(if grain == HOUR { &ADD_HOUR } else { &ADD_DAY })?;
        for ((start, series), sums) in &periods {
            add.execute(params_from_iter([start, series].into_iter().chain(sums)))?;
        }
        Ok(())
    }

    fn write_users(&self, grain: Micros, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut periods: BTreeMap<(Micros, i64, i64), OfUser> = BTreeMap::new();
        for ((hour, user, scope), sums) in &self.users {
            periods.entry((start_of(grain, *hour), *user, *scope)).or_default().add(sums);
        }
        let mut add = ledger.prepare_cached(if grain == HOUR { &ADD_USER_HOUR } else { &ADD_USER_DAY })?;
        for ((start, user, scope), it) in &periods {
            add.execute([*start, *user, *scope, it.calls, it.errors, it.tokens, it.cost, it.saved, it.latest])?;
        }
        Ok(())
    }

    fn unseal(&self, grain: Micros, ledger: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut unseal = ledger.prepare_cached("DELETE FROM sealed WHERE grain = ?1 AND start = ?2")?;
        let mut starts: Vec<Micros> = self.hours.keys().map(|(hour, _)| start_of(grain, *hour)).collect();
        starts.dedup();
        for start in starts {
            if unseal.execute([grain, start])? > 0 {
                let (_, latencies) = tables_of(grain);
                ledger.execute(&format!("DELETE FROM {latencies} WHERE start = ?1"), [start])?;
            }
        }
        Ok(())
    }
}

static ADD_HOUR: LazyLock<String> = LazyLock::new(|| add_to(tables_of(HOUR).0));
static ADD_DAY: LazyLock<String> = LazyLock::new(|| add_to(tables_of(DAY).0));
static ADD_USER_HOUR: LazyLock<String> = LazyLock::new(|| add_user_to("user_hours"));
static ADD_USER_DAY: LazyLock<String> = LazyLock::new(|| add_user_to("user_days"));

fn add_to(table: &str) -> String {
    let names = SUMS.map(|sum| sum.name);
    let places = ["?"; SUMS.len()];
    format!(
        "INSERT INTO {table} (start, series, {}) VALUES (?, ?, {}) ON CONFLICT (start, series) DO UPDATE SET {}",
        names.join(", "),
        places.join(", "),
        names.map(added).join(", ")
    )
}

fn add_user_to(table: &str) -> String {
    let names = ["calls", "errors", "tokens", "cost", "saved"];
    format!(
        "INSERT INTO {table} (start, user, scope, {}, latest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (start, user, scope) DO UPDATE SET {}, latest = max(latest, excluded.latest)",
        names.join(", "),
        names.map(added).join(", ")
    )
}

/// What overflows becomes a float, which the cast makes the largest integer.
fn added(name: &str) -> String {
    format!("{name} = CAST({name} + excluded.{name} AS INTEGER)")
}
