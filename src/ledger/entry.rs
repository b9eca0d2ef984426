//! Entry: one call as the ledger keeps it and as exports, logs and the live feed show it. Made of a record, once it is
//! closed; read back from a row.
//!
//! Never a body: what is kept of those is beside it, where the operator wants that.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::record::Record;
use crate::record::call::Delivery;
use crate::record::outcome::ErrorType;
use crate::record::prefix::Prefixes;
use crate::record::provenance::Provenance;
use crate::record::trace::TraceId;
use crate::record::usage::{Cost, Counter, Usage};
use crate::units::PicoUsd;

/// A word of a closed set: static where it comes from a record, owned where it comes from a row, which an earlier or a
/// later weir may have written.
pub type Word = Cow<'static, str>;

/// Microseconds since the beginning of 1970, UTC.
pub type Micros = i64;

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// When it was over: the moment it belongs to, as in the metrics. No two entries of a ledger have the same.
    #[serde(rename = "timestamp", serialize_with = "time")]
    pub ended_at: Micros,
    /// When its request's head had been read.
    #[serde(serialize_with = "time")]
    pub started_at: Micros,
    /// `X-Weir-Request-Id`.
    pub request_id: Box<str>,
    /// The trace it is in, if any.
    #[serde(serialize_with = "shown")]
    pub trace_id: Option<TraceId>,
    /// `X-Workspace-ID`.
    pub workspace_id: Option<Box<str>>,
    /// `X-Cache-Namespace`.
    pub namespace: Option<Box<str>>,
    /// `X-User-ID` or the body's own user field, as far as users are kept.
    pub user_id: Option<Box<str>>,
    /// `X-Agent-ID`.
    pub agent_id: Option<Box<str>>,
    /// `X-Loop-Type`.
    pub loop_type: Option<Box<str>>,
    /// `X-Run-ID`.
    pub run_id: Option<Box<str>>,
    /// The program that asked: its `User-Agent`.
    pub client: Option<Box<str>>,
    /// `gen_ai.provider.name`.
    #[serde(serialize_with = "name")]
    pub provider: Arc<str>,
    /// `gen_ai.operation.name`.
    pub operation: Word,
    /// The model asked for.
    pub model: Option<Box<str>>,
    /// The model that answered.
    pub response_model: Option<Box<str>>,
    /// The price table's id of the model.
    pub priced_model: Option<Box<str>>,
    /// The model that the app had asked for, where a budget had another one asked.
    pub downgraded_from: Option<Box<str>>,
    /// The tier it was served at.
    pub service_tier: Option<Box<str>>,
    /// The provider's id of the request.
    pub provider_request_id: Option<Box<str>>,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// The HTTP status the app got.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Word,
    /// Why, if not well.
    pub error_type: Option<Word>,
    /// The same in words, without a body or a credential.
    pub error_message: Option<Box<str>>,
    /// What the cache said: `hit`, `miss`, `expired` or `bypass`.
    pub cache: Word,
    /// How the answer came to be there already, if it was: `cache`, `coalesced` or `similar`.
    pub reuse: Option<Word>,
    /// What was used; with `reuse`, what that saved. `None` when nothing was reported and nothing could be estimated.
    #[serde(flatten, serialize_with = "counts")]
    pub usage: Option<Usage>,
    /// What was spent: nothing with `reuse`. `None` where it is not known.
    #[serde(rename = "cost_usd", serialize_with = "usd")]
    pub cost: Option<PicoUsd>,
    /// Where the cost comes from; `None` where there was nothing to bill.
    pub provenance: Option<Word>,
    /// Why the cost is not known.
    pub unpriced: Option<Word>,
    /// What the price table says, where the provider stated the cost itself.
    #[serde(rename = "list_cost_usd", serialize_with = "usd")]
    pub list_cost: Option<PicoUsd>,
    /// What `reuse` saved; `None` without, or where it is not known.
    #[serde(rename = "saved_usd", serialize_with = "usd")]
    pub saved: Option<PicoUsd>,
    /// Request head read → last byte handed over.
    #[serde(rename = "latency_ms", serialize_with = "length")]
    pub latency: Duration,
    /// Request handed to the provider → first token of a stream.
    #[serde(rename = "first_token_ms", serialize_with = "some_length")]
    pub first_token: Option<Duration>,
    /// Request handed to the provider → last byte of its answer.
    #[serde(rename = "upstream_ms", serialize_with = "some_length")]
    pub upstream: Option<Duration>,
    /// Bytes of body read from the app.
    pub bytes_in: u64,
    /// Bytes of body handed to the app.
    pub bytes_out: u64,
    /// How its prompt begins, where it was sent to a provider: for comparing calls, and for nobody else to see.
    #[serde(skip)]
    pub prefixes: Option<Prefixes>,
}

impl Entry {
    /// What is kept of `record`, which was closed `now`.
    #[must_use]
    pub fn of(record: &Record, now: SystemTime) -> Self {
        let Record { call, reply, cache, .. } = record;
        let caller = &call.caller;
        let reuse = cache.reuse();
        let spent = record.spent();
        Self {
            ended_at: micros(now),
            started_at: micros(record.arrived_at),
            request_id: record.id.to_string().into(),
            trace_id: record.trace.as_ref().map(|trace| trace.id),
            workspace_id: kept(caller.workspace.as_deref()),
            namespace: kept(caller.namespace.as_deref()),
            user_id: kept(caller.user.as_deref()),
            agent_id: kept(caller.agent.as_deref()),
            loop_type: kept(caller.loop_type.as_deref()),
            run_id: kept(caller.run.as_deref()),
            client: kept(caller.client.as_deref()),
            provider: Arc::clone(&call.provider),
            operation: call.operation.as_str().into(),
            model: kept(call.model.as_deref()),
            response_model: reply.model.clone(),
            priced_model: record.priced_model.as_deref().map(Into::into),
            downgraded_from: kept(record.downgrade.as_ref().map(|it| &*it.from)),
            service_tier: reply.service_tier.clone(),
            provider_request_id: kept(record.head.request_id.as_deref()),
            streamed: call.delivery == Delivery::Stream,
            status: record.status,
            outcome: record.outcome.as_str().into(),
            error_type: record.error_type.map(|it| ErrorType::as_str(it).into()),
            error_message: kept(record.error_detail.as_deref()),
            cache: cache.status.as_str().into(),
            reuse: reuse.map(|it| it.as_str().into()),
            usage: record.usage,
            cost: spent.amount(),
            provenance: record.provenance.map(|it| Provenance::as_str(it).into()),
            unpriced: match record.cost {
                Cost::Unpriced(why) => Some(why.as_str().into()),
                Cost::Known(_) | Cost::Nothing => None,
            },
            list_cost: record.list_cost.map(|charge| charge.total()),
            saved: reuse.and_then(|_| record.cost.amount()),
            latency: record.timing.total,
            first_token: record.timing.first_token,
            upstream: record.timing.upstream,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            prefixes: record.prefixes.clone().filter(|_| reuse.is_none()),
        }
    }
}

/// The moment as the ledger writes it; before 1970, its beginning.
#[must_use]
pub fn micros(at: SystemTime) -> Micros {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

/// An amount of US dollars as a JSON number with every digit.
///
/// # Panics
/// Never: decimal dollars are a JSON number.
#[must_use]
pub fn exact(usd: PicoUsd) -> Box<RawValue> {
    RawValue::from_string(usd.to_string()).expect("decimal dollars are a JSON number")
}

/// A length of time in milliseconds, to the microsecond, which is what is kept.
#[must_use]
pub fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// The longest text of an entry's that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// A text as far as it suits an entry.
fn kept(text: Option<&str>) -> Option<Box<str>> {
    text.map(|text| text[..text.floor_char_boundary(MAX_TEXT_BYTES)].into())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over the field as it is")]
fn time<S: Serializer>(at: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    match Timestamp::from_microsecond(*at) {
        Ok(at) => serializer.collect_str(&format_args!("{at:.6}")),
        Err(_) => serializer.serialize_none(),
    }
}

fn name<S: Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name)
}

#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn shown<S: Serializer>(id: &Option<TraceId>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

/// Every count that is known, all tokens together, and whether any of them is an estimate.
#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn counts<S: Serializer>(usage: &Option<Usage>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut counts = serializer.serialize_map(None)?;
    if let Some(usage) = usage {
        for counter in Counter::ALL {
            if let Some(count) = usage.get(*counter) {
                counts.serialize_entry(counter.name(), &count)?;
            }
        }
        counts.serialize_entry("total_tokens", &usage.total_tokens())?;
        counts.serialize_entry("usage_estimated", &usage.is_estimated())?;
    }
    counts.end()
}

#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn usd<S: Serializer>(usd: &Option<PicoUsd>, serializer: S) -> Result<S::Ok, S::Error> {
    usd.map(exact).serialize(serializer)
}

fn length<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(milliseconds(*took))
}

#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn some_length<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match took {
        Some(took) => length(took, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A call to gpt-5 that was answered well, about which nothing else is known.
    pub(crate) fn plain() -> Entry {
        Entry {
            ended_at: 0,
            started_at: 0,
            request_id: "1".into(),
            trace_id: None,
            workspace_id: None,
            namespace: None,
            user_id: None,
            agent_id: None,
            loop_type: None,
            run_id: None,
            client: None,
            provider: "openai".into(),
            operation: "chat".into(),
            model: Some("gpt-5".into()),
            response_model: None,
            priced_model: None,
            downgraded_from: None,
            service_tier: None,
            provider_request_id: None,
            streamed: false,
            status: Some(200),
            outcome: "success".into(),
            error_type: None,
            error_message: None,
            cache: "miss".into(),
            reuse: None,
            usage: None,
            cost: None,
            provenance: Some("priced".into()),
            unpriced: None,
            list_cost: None,
            saved: None,
            latency: Duration::ZERO,
            first_token: None,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            prefixes: None,
        }
    }

    fn entry() -> Entry {
        Entry {
            ended_at: 1_700_000_001_500_000,
            started_at: 1_700_000_000_000_000,
            trace_id: TraceId::new(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
            usage: Some(Usage::cache_inside(Some(10), Some(2), &[(Counter::CacheReadTokens, Some(4))])),
            cost: Some(PicoUsd::new(12_345_678_901)),
            latency: Duration::from_micros(1_500_250),
            upstream: Some(Duration::from_millis(1_499)),
            ..plain()
        }
    }

    #[test]
    fn an_entry_is_shown_with_every_digit_and_without_inventing_any() {
        let shown = serde_json::to_value(entry()).expect("JSON");
        for (field, expected) in [
            ("timestamp", json!("2023-11-14T22:13:21.500000Z")),
            ("started_at", json!("2023-11-14T22:13:20.000000Z")),
            ("trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
            ("provider", json!("openai")),
            ("input_tokens", json!(10)),
            ("cache_read_tokens", json!(4)),
            ("total_tokens", json!(12)),
            ("usage_estimated", json!(false)),
            ("latency_ms", json!(1_500.25)),
            ("upstream_ms", json!(1_499.0)),
            ("first_token_ms", json!(null)),
            ("saved_usd", json!(null)),
        ] {
            assert_eq!(shown[field], expected, "{field}");
        }
        assert!(shown.get("cache_write_tokens").is_none(), "it was not reported");
        let text = serde_json::to_string(&entry()).expect("JSON");
        assert!(text.contains(r#""cost_usd":0.012345678901,"#), "{text}");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(kept(Some(&"ü".repeat(200))).map(|text| text.len()), Some(256));
        assert_eq!(kept(Some(&format!("a{}", "ü".repeat(200)))).map(|text| text.len()), Some(255));
        assert_eq!(kept(None), None);
    }
}
