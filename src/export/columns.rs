//! Columns: what an export says of each call, under which name, and of which kind. The one list that every format and
//! docs/export.md follow.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use crate::ledger::entry::{Entry, Micros, Word};
use crate::record::usage::{Counter, Usage};
use crate::units::PicoUsd;

/// One column.
#[derive(Debug)]
pub struct Column {
    /// Its name, in every format.
    pub name: &'static str,
    /// Of which kind its values are, where they are known.
    pub kind: Kind,
    /// What it says, in words.
    pub meaning: &'static str,
    source: Source,
}

/// Of which kind the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words.
    Text,
    /// A whole number.
    Count,
    /// Yes or no.
    Flag,
    /// A moment, to the microsecond.
    Time,
    /// An amount of US dollars, with every digit.
    Usd,
    /// A length of time in milliseconds, to the microsecond.
    Milliseconds,
}

impl Kind {
    /// Its name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Count => "count",
            Self::Flag => "flag",
            Self::Time => "time",
            Self::Usd => "USD",
            Self::Milliseconds => "ms",
        }
    }
}

/// What a column says of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// It is not known, or there is none: never the same as zero.
    Absent,
    /// Words.
    Text(Cow<'a, str>),
    /// A whole number.
    Count(u64),
    /// Yes or no.
    Flag(bool),
    /// Microseconds since 1970, UTC.
    Time(Micros),
    /// Money.
    Usd(PicoUsd),
    /// A length of time.
    Took(Duration),
}

#[derive(Debug)]
enum Source {
    Field(fn(&Entry) -> Value<'_>),
    Counter(Counter),
}

impl Column {
    /// What it says of this call.
    #[must_use]
    pub fn of<'a>(&self, entry: &'a Entry) -> Value<'a> {
        match self.source {
            Source::Field(read) => read(entry),
            Source::Counter(counter) => {
                entry.usage.and_then(|usage| usage.get(counter)).map_or(Value::Absent, Value::Count)
            }
        }
    }
}

/// Every column, in order: that of the JSON object of a call of which everything is known.
pub static ALL: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let counters = Counter::ALL.iter().map(|counter| Column {
        name: counter.name(),
        kind: Kind::Count,
        meaning: counter.meaning(),
        source: Source::Counter(*counter),
    });
    what_happened().into_iter().chain(counters).chain(what_it_came_to()).collect()
});

const fn column(name: &'static str, kind: Kind, meaning: &'static str, read: fn(&Entry) -> Value<'_>) -> Column {
    Column { name, kind, meaning, source: Source::Field(read) }
}

/// The columns before the counters: who asked whom for what, and how it ended.
fn what_happened() -> Vec<Column> {
    use Kind::{Count, Flag, Text, Time};
    vec![
        column("timestamp", Time, "When the call was over. No two rows have the same.", |it| Value::Time(it.ended_at)),
        column("started_at", Time, "When the head of its request had been read.", |it| Value::Time(it.started_at)),
        column("request_id", Text, "`X-Weir-Request-Id`.", |it| Value::Text((*it.request_id).into())),
        column("trace_id", Text, "The trace it is in.", |it| match it.trace_id {
            Some(id) => Value::Text(id.to_string().into()),
            None => Value::Absent,
        }),
        column("workspace_id", Text, "`X-Workspace-ID`.", |it| text(it.workspace_id.as_deref())),
        column("namespace", Text, "`X-Cache-Namespace`.", |it| text(it.namespace.as_deref())),
        column("user_id", Text, "`X-User-ID`, or the user that the body names, as far as users are kept.", |it| {
            text(it.user_id.as_deref())
        }),
        column("agent_id", Text, "`X-Agent-ID`.", |it| text(it.agent_id.as_deref())),
        column("loop_type", Text, "`X-Loop-Type`.", |it| text(it.loop_type.as_deref())),
        column("run_id", Text, "`X-Run-ID`.", |it| text(it.run_id.as_deref())),
        column("client", Text, "The program that asked: its `User-Agent`.", |it| text(it.client.as_deref())),
        column("provider", Text, "Whom it asked.", |it| Value::Text((*it.provider).into())),
        column("operation", Text, "What kind of call it is, such as `chat`.", |it| word(&it.operation)),
        column("model", Text, "The model asked for.", |it| text(it.model.as_deref())),
        column("response_model", Text, "The model that answered.", |it| text(it.response_model.as_deref())),
        column("priced_model", Text, "The price table's id of the model.", |it| text(it.priced_model.as_deref())),
        column(
            "downgraded_from",
            Text,
            "The model that the app had asked for, where a budget had another one asked.",
            |it| text(it.downgraded_from.as_deref()),
        ),
        column("service_tier", Text, "The tier it was served at.", |it| text(it.service_tier.as_deref())),
        column("provider_request_id", Text, "The provider's id of the request.", |it| {
            text(it.provider_request_id.as_deref())
        }),
        column("streamed", Flag, "Whether the answer was streamed.", |it| Value::Flag(it.streamed)),
        column("status", Count, "The HTTP status that the app got.", |it| match it.status {
            Some(status) => Value::Count(status.into()),
            None => Value::Absent,
        }),
        column(
            "outcome",
            Text,
            "How it ended: `success`, `client_error`, `upstream_error`, `timeout`, `internal_error`, `rate_limited`, `budget_blocked` or `cancelled`.",
            |it| word(&it.outcome),
        ),
        column("error_type", Text, "Why, if not well.", |it| text(it.error_type.as_deref())),
        column("error_message", Text, "The same in words.", |it| text(it.error_message.as_deref())),
        column("cache", Text, "What the cache said: `hit`, `miss`, `expired` or `bypass`.", |it| word(&it.cache)),
        column(
            "reuse",
            Text,
            "How the answer came to be there already, if it was: `cache`, `coalesced` or `similar`. The counts are then what that saved.",
            |it| text(it.reuse.as_deref()),
        ),
    ]
}

/// The columns after the counters: money, time and bytes.
fn what_it_came_to() -> Vec<Column> {
    use Kind::{Count, Flag, Milliseconds, Text, Usd};
    vec![
        column("total_tokens", Count, "Input and output tokens together.", |it| match &it.usage {
            Some(usage) => Value::Count(usage.total_tokens()),
            None => Value::Absent,
        }),
        column("usage_estimated", Flag, "Whether any of the counts is an estimate.", |it| match &it.usage {
            Some(usage) => Value::Flag(Usage::is_estimated(usage)),
            None => Value::Absent,
        }),
        column(
            "cost_usd",
            Usd,
            "What was spent: nothing where the answer was there already; empty where it is not known.",
            |it| usd(it.cost),
        ),
        column(
            "provenance",
            Text,
            "Where the cost comes from: `reported` by the provider, `priced` from the table, `estimated`, or `unpriced`.",
            |it| text(it.provenance.as_deref()),
        ),
        column("unpriced", Text, "Why the cost is not known: `unknown_model`, `no_usage` or `no_table`.", |it| {
            text(it.unpriced.as_deref())
        }),
        column("list_cost_usd", Usd, "What the price table says, where the provider stated the cost itself.", |it| {
            usd(it.list_cost)
        }),
        column("saved_usd", Usd, "What `reuse` saved.", |it| usd(it.saved)),
        column("latency_ms", Milliseconds, "From the head of the request to the last byte of the answer.", |it| {
            Value::Took(it.latency)
        }),
        column("first_token_ms", Milliseconds, "From asking the provider to the first token of a stream.", |it| {
            took(it.first_token)
        }),
        column("upstream_ms", Milliseconds, "From asking the provider to the last byte of its answer.", |it| {
            took(it.upstream)
        }),
        column("bytes_in", Count, "Bytes of body read from the app.", |it| Value::Count(it.bytes_in)),
        column("bytes_out", Count, "Bytes of body handed to the app.", |it| Value::Count(it.bytes_out)),
    ]
}

fn text(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Absent, |text| Value::Text(text.into()))
}

fn word(word: &Word) -> Value<'_> {
    Value::Text((**word).into())
}

fn usd(usd: Option<PicoUsd>) -> Value<'static> {
    usd.map_or(Value::Absent, Value::Usd)
}

fn took(took: Option<Duration>) -> Value<'static> {
    took.map_or(Value::Absent, Value::Took)
}

/// The columns as docs/export.md shows them.
#[must_use]
pub fn as_markdown() -> String {
    let rows = ALL.iter().map(|it| format!("| `{}` | {} | {} |\n", it.name, it.kind.as_str(), it.meaning));
    format!("| column | kind | meaning |\n|---|---|---|\n{}", rows.collect::<String>())
}
