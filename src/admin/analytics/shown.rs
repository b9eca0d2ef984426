//! Shown: how answers write money, moments, and what calls come to.
//!
//! What is not known is `null`, never 0; money has every digit.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::ledger::entry::{Micros, exact, milliseconds};
use crate::ledger::reader::Answer;
use crate::ledger::totals::{Totals, share};
use crate::ledger::window::Window;
use crate::units::PicoUsd;

/// An amount of US dollars: a JSON number with every digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usd(pub(super) PicoUsd);

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        exact(self.0).serialize(serializer)
    }
}

impl PartialSchema for Usd {
    fn schema() -> RefOr<Schema> {
        let description = "US dollars, exact to the pico-dollar: read it as a decimal, not as a binary fraction.";
        ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).description(Some(description)).into()
    }
}

impl ToSchema for Usd {}

/// A moment, as RFC 3339 writes it, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(pub(super) Micros);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Timestamp::from_microsecond(self.0) {
            Ok(at) => serializer.collect_str(&at),
            Err(_) => serializer.serialize_none(),
        }
    }
}

impl PartialSchema for At {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for At {}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Period {
    /// Its first moment.
    from: At,
    /// The first moment that is no longer in it.
    to: At,
}

impl From<Window> for Period {
    fn from(Window { from, to }: Window) -> Self {
        Self { from: At(from), to: At(to) }
    }
}

/// What time an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Times {
    /// The time asked about.
    period: Period,
    /// The part of it that the numbers tell of. It begins later where the ledger no longer has what was before.
    covered: Period,
}

impl Times {
    pub(super) fn of<T>(asked: Window, answer: &Answer<T>) -> Self {
        Self { period: asked.into(), covered: answer.covers.into() }
    }
}

/// What was spent, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Spent {
    /// What was spent, as far as it is known.
    total_spend_usd: Usd,
    /// The part of it that rests on estimated usage.
    estimated_spend_usd: Usd,
    /// Calls of which that is so.
    estimated_calls: u64,
    /// Calls whose cost is not known: they are not in any sum of money.
    unpriced_calls: u64,
    /// What was not spent because the answer was there already.
    saved_usd: Usd,
}

impl Spent {
    pub(super) const fn of(totals: &Totals) -> Self {
        Self {
            total_spend_usd: Usd(totals.cost),
            estimated_spend_usd: Usd(totals.estimated_cost),
            estimated_calls: totals.estimated,
            unpriced_calls: totals.unpriced,
            saved_usd: Usd(totals.saved),
        }
    }
}

/// Tokens, bought and not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "what the API calls them")]
pub(super) struct Tokens {
    /// Of prompts, bought.
    input_tokens: u64,
    /// Generated, bought.
    output_tokens: u64,
    /// Both.
    total_tokens: u64,
    /// Those of the input that the provider read from its own cache.
    cache_read_tokens: u64,
    /// Those of the input that the provider wrote to its own cache.
    cache_write_tokens: u64,
    /// Those of the output that were reasoning.
    reasoning_tokens: u64,
    /// Tokens that were not bought because the answer was there already.
    saved_tokens: u64,
}

impl Tokens {
    pub(super) const fn of(totals: &Totals) -> Self {
        Self {
            input_tokens: totals.input_tokens,
            output_tokens: totals.output_tokens,
            total_tokens: totals.tokens(),
            cache_read_tokens: totals.cache_read_tokens,
            cache_write_tokens: totals.cache_write_tokens,
            reasoning_tokens: totals.reasoning_tokens,
            saved_tokens: totals.saved_tokens,
        }
    }
}

/// Calls of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Group {
    /// How many there were.
    total_calls: u64,
    /// Their share of all calls asked about, from 0 to 1; `null` of none.
    calls_share: Option<f64>,
    /// Failures (the provider's, a deadline's, weir's own) among failures and successes, from 0 to 1; `null` without
    /// either.
    error_rate: Option<f64>,
    /// Tokens bought, in and out.
    total_tokens: u64,
    #[serde(flatten)]
    spent: Spent,
    /// Their share of all money asked about, from 0 to 1; `null` of none.
    spend_share: Option<f64>,
    /// How long one took on the average; `null` without calls.
    avg_latency_ms: Option<f64>,
}

impl Group {
    pub(super) fn of(totals: &Totals, all: &Totals) -> Self {
        Self {
            total_calls: totals.calls,
            calls_share: share(totals.calls, all.calls),
            error_rate: totals.error_rate(),
            total_tokens: totals.tokens(),
            spent: Spent::of(totals),
            spend_share: (all.cost.pico() > 0).then(|| totals.cost.to_usd_f64() / all.cost.to_usd_f64()),
            avg_latency_ms: totals.mean_latency().map(milliseconds),
        }
    }
}

/// How much more than before, as a fraction of that; `None` where there was nothing before.
pub(super) fn change(now: f64, before: f64) -> Option<f64> {
    (before > 0.0).then(|| now / before - 1.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn money_has_every_digit_and_moments_are_in_utc() {
        let usd = serde_json::to_string(&Usd(PicoUsd::new(123_456_789_012_345_678))).expect("JSON");
        assert_eq!(usd, "123456.789012345678");
        assert_eq!(json!(At(1_793_491_200_000_000)), json!("2026-11-01T00:00:00Z"));
        assert_eq!(json!(At(1_793_491_200_000_001)), json!("2026-11-01T00:00:00.000001Z"));
    }

    #[test]
    fn of_nothing_there_is_no_share_and_since_nothing_no_change() {
        assert_eq!((share(0, 0), share(1, 4)), (None, Some(0.25)));
        assert_eq!((change(5.0, 0.0), change(5.0, 4.0), change(0.0, 4.0)), (None, Some(0.25), Some(-1.0)));
        let nothing = Totals::default();
        let group = json!(Group::of(&nothing, &nothing));
        for unknown in ["calls_share", "error_rate", "spend_share", "avg_latency_ms"] {
            assert_eq!(group[unknown], json!(null), "{unknown}");
        }
    }
}
