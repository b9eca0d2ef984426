//! Totals: what calls come to together, counted and added up exactly; and what may be derived from that.
//!
//! Knows the columns of the tables of sums. Money is added up in 128 bits.

use std::time::Duration;

use rusqlite::Row;

use crate::ledger::entry::{Entry, Micros};
use crate::ledger::row::{pico, whole};
use crate::ledger::sums::SUMS;
use crate::units::PicoUsd;

/// A quantity as a column keeps it.
trait Quantity: Copy {
    fn of_column(value: i64) -> Self;
    fn plus(self, other: Self) -> Self;
}

impl Quantity for u64 {
    fn of_column(value: i64) -> Self {
        Self::try_from(value).unwrap_or(0)
    }

    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl Quantity for PicoUsd {
    fn of_column(value: i64) -> Self {
        Self::new(u128::from(u64::of_column(value)))
    }

    fn plus(self, other: Self) -> Self {
        self + other
    }
}

macro_rules! totals {
    ($($(#[doc = $doc:literal])+ $name:ident: $quantity:ty,)+) => {
        /// What calls come to together. The fields are the columns of `hours` and `days`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[doc = $doc])+ pub $name: $quantity,)+
        }

        impl Totals {
            /// Adds up.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = Quantity::plus(self.$name, other.$name);)+
            }

            /// Of the columns of `hours` after its key.
            pub(super) fn of_columns(columns: [i64; SUMS.len()]) -> Self {
                let [$($name),+] = columns;
                Self { $($name: Quantity::of_column($name),)+ }
            }

            #[cfg(test)]
            const FIELDS: [&'static str; SUMS.len()] = [$(stringify!($name)),+];
        }
    };
}

totals! {
    /// Calls.
    calls: u64,
    /// Those that ended well.
    successes: u64,
    /// Those that the provider refused, or that were wrong before they left.
    client_errors: u64,
    /// Those that failed at the provider's.
    upstream_errors: u64,
    /// Those that a deadline ended.
    timeouts: u64,
    /// Those that weir failed.
    internal_errors: u64,
    /// Those that a rate limit refused.
    rate_limited: u64,
    /// Those that a budget refused.
    budget_blocked: u64,
    /// Those that the app gave up.
    cancelled: u64,
    /// Calls whose answer was streamed.
    streamed: u64,
    /// Calls answered from what was stored, for an equal or a similar request.
    hits: u64,
    /// Calls answered by an equal call in flight.
    coalesced: u64,
    /// Calls that asked the cache: hits, misses, expired.
    looked_up: u64,
    /// Calls whose cost is not known.
    unpriced: u64,
    /// Calls of which what was spent rests on estimated usage.
    estimated: u64,
    /// Tokens of prompts, bought.
    input_tokens: u64,
    /// Tokens generated, bought.
    output_tokens: u64,
    /// Those of the input that the provider read from its cache.
    cache_read_tokens: u64,
    /// Those of the input that the provider wrote to its cache.
    cache_write_tokens: u64,
    /// Those of the output that were reasoning.
    reasoning_tokens: u64,
    /// Tokens, in and out, that were not bought because the answer was there already.
    saved_tokens: u64,
    /// Money spent, as far as it is known.
    cost: PicoUsd,
    /// The part of it that rests on estimated usage.
    estimated_cost: PicoUsd,
    /// Money that was not spent because the answer was there already.
    saved: PicoUsd,
    /// All latencies together, in microseconds.
    latency: u64,
    /// All times to the first token together, in microseconds.
    first_token: u64,
    /// How many calls have a first token.
    first_tokens: u64,
    /// Bytes of body read from the app.
    bytes_in: u64,
    /// Bytes of body handed to the app.
    bytes_out: u64,
}

impl Totals {
    /// What one call adds.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self::of_columns(SUMS.map(|sum| (sum.of)(entry)))
    }

    /// Of the columns of a row from `first` on.
    pub(super) fn of_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let mut columns = [0; SUMS.len()];
        for (at, column) in columns.iter_mut().enumerate() {
            *column = row.get(first + at)?;
        }
        Ok(Self::of_columns(columns))
    }

    /// Calls that failed through no fault of the app's: the provider's, a deadline's, weir's own.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.upstream_errors.saturating_add(self.timeouts).saturating_add(self.internal_errors)
    }

    /// Failures among failures and successes, as the error budgets count them. `None` without either.
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        share(self.failures(), self.failures().saturating_add(self.successes))
    }

    /// Hits and shared answers among the calls that asked the cache. `None` without any.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        share(self.hits.saturating_add(self.coalesced), self.looked_up)
    }

    /// How long a call took on the average. `None` without calls.
    #[must_use]
    pub fn mean_latency(&self) -> Option<Duration> {
        self.latency.checked_div(self.calls).map(Duration::from_micros)
    }

    /// How long it took to the first token on the average. `None` where no call had one.
    #[must_use]
    pub fn mean_first_token(&self) -> Option<Duration> {
        self.first_token.checked_div(self.first_tokens).map(Duration::from_micros)
    }

    /// Tokens bought, in and out.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// `part` among `whole`; `None` of nothing.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// What a user's calls come to together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfUser {
    /// Calls.
    pub calls: u64,
    /// Those that neither ended well nor were given up by the app.
    pub errors: u64,
    /// Tokens bought, in and out.
    pub tokens: u64,
    /// Money spent, as far as it is known.
    pub cost: PicoUsd,
    /// Money that was not spent because the answer was there already.
    pub saved: PicoUsd,
    /// When the last call was over.
    pub latest: Micros,
}

impl OfUser {
    /// The columns of sums by user that it is kept in.
    pub(super) const COLUMNS: [&'static str; 6] = ["calls", "errors", "tokens", "cost", "saved", "latest"];

    /// What a call that was over `at` adds, of which there is this to count.
    pub(super) fn of(call: &Totals, at: Micros) -> Self {
        Self {
            calls: call.calls,
            errors: call.calls.saturating_sub(call.successes).saturating_sub(call.cancelled),
            tokens: call.tokens(),
            cost: call.cost,
            saved: call.saved,
            latest: at,
        }
    }

    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        self.calls = self.calls.plus(other.calls);
        self.errors = self.errors.plus(other.errors);
        self.tokens = self.tokens.plus(other.tokens);
        self.cost += other.cost;
        self.saved += other.saved;
        self.latest = self.latest.max(other.latest);
    }

    /// What the columns hold.
    pub(super) fn columns(&self) -> [i64; Self::COLUMNS.len()] {
        [whole(self.calls), whole(self.errors), whole(self.tokens), pico(self.cost), pico(self.saved), self.latest]
    }

    /// Of the columns of a row from `first` on.
    pub(super) fn of_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let number = |column: usize| row.get::<_, i64>(first + column);
        Ok(Self {
            calls: u64::of_column(number(0)?),
            errors: u64::of_column(number(1)?),
            tokens: u64::of_column(number(2)?),
            cost: PicoUsd::of_column(number(3)?),
            saved: PicoUsd::of_column(number(4)?),
            latest: number(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_columns() {
        assert_eq!(Totals::FIELDS, SUMS.map(|sum| sum.name));
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let nothing = Totals::default();
        assert_eq!((nothing.error_rate(), nothing.hit_rate()), (None, None));
        assert_eq!((nothing.mean_latency(), nothing.mean_first_token()), (None, None));
        let refused = Totals { calls: 2, rate_limited: 2, latency: 3, ..nothing };
        assert_eq!((refused.error_rate(), refused.mean_latency()), (None, Some(Duration::from_micros(1))));
    }

    #[test]
    fn more_money_than_a_column_holds_is_added_up() {
        let most = Totals { cost: PicoUsd::of_column(i64::MAX), calls: u64::MAX, ..Totals::default() };
        let mut sum = most;
        sum.add(&most);
        assert_eq!((sum.cost, sum.calls), (PicoUsd::new(2 * (u128::from(u64::MAX) >> 1)), u64::MAX));
    }
}
