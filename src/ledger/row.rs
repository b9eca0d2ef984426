//! Row: an entry as a row of `calls`, there and back. The only place that lists the columns.

use std::borrow::Cow;
use std::time::Duration;

use rusqlite::types::{FromSql, ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, params};

use crate::ledger::entry::{Entry, Micros, Word};
use crate::ledger::names::Series;
use crate::record::prefix::Prefixes;
use crate::record::trace::TraceId;
use crate::record::usage::{Counter, Usage};
use crate::units::PicoUsd;

/// The columns of `calls`, in the order in which [`Rows::write`] and [`read`] go through them.
macro_rules! columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "id, ",
            $prefix,
            "started_at, ",
            $prefix,
            "request_id, ",
            $prefix,
            "trace_id, ",
            $prefix,
            "loop_type, ",
            $prefix,
            "run, ",
            $prefix,
            "client, ",
            $prefix,
            "response_model, ",
            $prefix,
            "priced_model, ",
            $prefix,
            "downgraded_from, ",
            $prefix,
            "service_tier, ",
            $prefix,
            "provider_request_id, ",
            $prefix,
            "streamed, ",
            $prefix,
            "status, ",
            $prefix,
            "outcome, ",
            $prefix,
            "error_type, ",
            $prefix,
            "error_message, ",
            $prefix,
            "cache, ",
            $prefix,
            "reuse, ",
            $prefix,
            "usage_estimated, ",
            $prefix,
            "input_tokens, ",
            $prefix,
            "output_tokens, ",
            $prefix,
            "cache_read_tokens, ",
            $prefix,
            "cache_write_tokens, ",
            $prefix,
            "reasoning_tokens, ",
            $prefix,
            "other_counts, ",
            $prefix,
            "cost, ",
            $prefix,
            "provenance, ",
            $prefix,
            "unpriced, ",
            $prefix,
            "list_cost, ",
            $prefix,
            "saved, ",
            $prefix,
            "latency, ",
            $prefix,
            "first_token, ",
            $prefix,
            "upstream, ",
            $prefix,
            "bytes_in, ",
            $prefix,
            "bytes_out, ",
            $prefix,
            "prefixes"
        )
    };
}

/// What [`read`] reads: every column of an entry, up to where a `WHERE` or an `ORDER BY` (on `calls.id`) goes.
pub const SELECT: &str = concat!(
    "SELECT ",
    columns!("calls."),
    ", series.provider, series.operation, series.model, scopes.workspace, scopes.namespace, scopes.agent, users.name \
     FROM calls JOIN series ON series.id = calls.series JOIN scopes ON scopes.id = series.scope \
     LEFT JOIN users ON users.id = calls.user "
);

/// Writes a row with [`Rows`], unless there is one with its id.
pub(super) const INSERT: &str = concat!(
    "INSERT INTO calls (",
    columns!(""),
    ", series, user) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
     ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
);

/// The counters that have a column of their own, in the columns' order.
const OWN: [Counter; 5] = [
    Counter::InputTokens,
    Counter::OutputTokens,
    Counter::CacheReadTokens,
    Counter::CacheWriteTokens,
    Counter::OutputReasoningTokens,
];

/// Rows, written one after the other.
pub(super) struct Rows<'l> {
    /// [`INSERT`].
    insert: CachedStatement<'l>,
    /// The parameters that are not NULL, by their number.
    bound: u64,
}

impl<'l> Rows<'l> {
    pub(super) fn into(ledger: &'l Connection) -> rusqlite::Result<Self> {
        // A statement out of the cache has nothing bound to it, which is to say NULL.
        Ok(Self { insert: ledger.prepare_cached(INSERT)?, bound: 0 })
    }

    /// Writes `entry` under `id`; `false` if that is taken.
    pub(super) fn write(
        &mut self,
        id: Micros,
        entry: &Entry,
        series: Series,
        user: Option<i64>,
    ) -> rusqlite::Result<bool> {
        let own = OWN.map(|counter| entry.usage.and_then(|usage| usage.get(counter)).map(whole));
        let values: &[&dyn ToSql] = params![
            id,
            entry.started_at,
            entry.request_id,
            entry.trace_id.map(|trace| trace.get().to_be_bytes()),
            entry.loop_type,
            entry.run_id,
            entry.client,
            entry.response_model,
            entry.priced_model,
            entry.downgraded_from,
            entry.service_tier,
            entry.provider_request_id,
            entry.streamed,
            entry.status,
            entry.outcome,
            entry.error_type,
            entry.error_message,
            entry.cache,
            entry.reuse,
            entry.usage.map(|usage| usage.is_estimated()),
            own[0],
            own[1],
            own[2],
            own[3],
            own[4],
            entry.usage.as_ref().and_then(other_counts),
            entry.cost.map(pico),
            entry.provenance,
            entry.unpriced,
            entry.list_cost.map(pico),
            entry.saved.map(pico),
            length(entry.latency),
            entry.first_token.map(length),
            entry.upstream.map(length),
            whole(entry.bytes_in),
            whole(entry.bytes_out),
            entry.prefixes.as_ref().map(Prefixes::packed),
            series.id,
            user,
        ];
        for (number, value) in (1..).zip(values) {
            let value = value.to_sql()?;
            let is_null = matches!(value, ToSqlOutput::Borrowed(ValueRef::Null) | ToSqlOutput::Owned(Value::Null));
            // Nearly half of a row is NULL, and was in the row before.
            if !is_null || self.bound & 1 << number != 0 {
                self.insert.raw_bind_parameter(number, value)?;
            }
            self.bound = self.bound & !(1 << number) | u64::from(!is_null) << number;
        }
        Ok(self.insert.raw_execute()? == 1)
    }
}

/// The entry in a row of [`SELECT`].
///
/// # Errors
/// If the row is not as weir writes it.
pub fn read(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let mut row = Columns { row, next: 0 };
    let mut entry = Entry {
        ended_at: row.take()?,
        started_at: row.take()?,
        request_id: row.take()?,
        trace_id: row.take::<Option<[u8; 16]>>()?.and_then(|id| TraceId::new(u128::from_be_bytes(id))),
        loop_type: row.take()?,
        run_id: row.take()?,
        client: row.take()?,
        response_model: row.take()?,
        priced_model: row.take()?,
        downgraded_from: row.take()?,
        service_tier: row.take()?,
        provider_request_id: row.take()?,
        streamed: row.take()?,
        status: row.take()?,
        outcome: row.word()?.unwrap_or_default(),
        error_type: row.word()?,
        error_message: row.take()?,
        cache: row.word()?.unwrap_or_default(),
        reuse: row.word()?,
        usage: usage(&mut row)?,
        cost: row.amount()?,
        provenance: row.word()?,
        unpriced: row.word()?,
        list_cost: row.amount()?,
        saved: row.amount()?,
        latency: row.length()?.unwrap_or_default(),
        first_token: row.length()?,
        upstream: row.length()?,
        bytes_in: row.count()?.unwrap_or_default(),
        bytes_out: row.count()?.unwrap_or_default(),
        prefixes: row.take::<Option<Vec<u8>>>()?.as_deref().and_then(Prefixes::of_packed),
        provider: row.take::<Box<str>>()?.into(),
        operation: row.word()?.unwrap_or_default(),
        model: row.take()?,
        workspace_id: row.take()?,
        namespace: row.take()?,
        agent_id: row.take()?,
        user_id: None,
    };
    entry.user_id = row.take()?;
    Ok(entry)
}

/// A row, from left to right.
struct Columns<'r, 's> {
    row: &'r Row<'s>,
    next: usize,
}

impl Columns<'_, '_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let at = self.next;
        self.next += 1;
        self.row.get(at)
    }

    fn word(&mut self) -> rusqlite::Result<Option<Word>> {
        Ok(self.take::<Option<String>>()?.map(Cow::Owned))
    }

    /// What is below zero was written by nobody.
    fn count(&mut self) -> rusqlite::Result<Option<u64>> {
        Ok(self.take::<Option<i64>>()?.and_then(|count| u64::try_from(count).ok()))
    }

    fn amount(&mut self) -> rusqlite::Result<Option<PicoUsd>> {
        Ok(self.count()?.map(|pico| PicoUsd::new(pico.into())))
    }

    fn length(&mut self) -> rusqlite::Result<Option<Duration>> {
        Ok(self.count()?.map(Duration::from_micros))
    }
}

fn usage(row: &mut Columns<'_, '_>) -> rusqlite::Result<Option<Usage>> {
    let estimated: Option<bool> = row.take()?;
    let mut parts: Vec<(Counter, Option<u64>)> = Vec::with_capacity(OWN.len());
    for counter in OWN {
        parts.push((counter, row.count()?));
    }
    let (input, output) = (parts[0].1, parts[1].1);
    if let Some(others) = row.take::<Option<String>>()? {
        parts.extend(read_others(&others).into_iter().map(|(counter, count)| (counter, Some(count))));
    }
    let Some(estimated) = estimated else { return Ok(None) };
    let usage = Usage::cache_inside(input, output, &parts);
    Ok(Some(if estimated { usage.with_estimates(None, None) } else { usage }))
}

/// Counts without a column of their own, as a JSON object by the counter's name; `None` where there are none.
fn other_counts(usage: &Usage) -> Option<String> {
    let others = Counter::ALL.iter().filter(|counter| !OWN.contains(counter));
    let mut counts = others.filter_map(|counter| Some((counter.name(), usage.get(*counter)?))).peekable();
    counts.peek()?;
    let parts: Vec<String> = counts.map(|(name, count)| format!(r#""{name}":{count}"#)).collect();
    Some(format!("{{{}}}", parts.join(",")))
}

/// A counter that this weir does not know was counted by a later one.
fn read_others(counts: &str) -> Vec<(Counter, u64)> {
    let counts: std::collections::HashMap<String, u64> = serde_json::from_str(counts).unwrap_or_default();
    let known = Counter::ALL.iter().filter_map(|counter| Some((*counter, *counts.get(counter.name())?)));
    known.collect()
}

/// A count as the database holds it. What does not fit is beyond all reason, and stays that.
pub(super) fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// An amount as the database holds it: up to nine million dollars in one call.
pub(super) fn pico(amount: PicoUsd) -> i64 {
    i64::try_from(amount.pico()).unwrap_or(i64::MAX)
}

/// A length of time as the database holds it.
pub(super) fn length(took: Duration) -> i64 {
    i64::try_from(took.as_micros()).unwrap_or(i64::MAX)
}
