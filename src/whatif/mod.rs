//! What-if: what the calls of the past would have cost otherwise: at another model, on the batch or the flex tier, with
//! the provider's prompt cache used as well as it can be.
//!
//! Each call is priced anew, with what it used, by the prices of the time it was made: sums of tokens would not do,
//! since rates depend on how long a single prompt is. Bounded memory: nothing is kept of a call. Knows entries and
//! prices; no ledger to read from, no HTTP.

pub mod choice;
pub mod repeats;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::ledger::entry::{Entry, Micros, exact};
use crate::price::{Prices, Question};
use crate::record::usage::{Cost, Counter, TokenClass, Unpriced, Usage};
use crate::units::PicoUsd;
use crate::whatif::choice::Choice;
use crate::whatif::repeats::{Beginnings, Repeats};

/// Most models that are told apart; the rest are summed up as one.
const MOST_MODELS: usize = 100;
/// What the rest are called.
const OTHER: &str = "other";
/// Nothing shorter is ever cached: "1024 tokens or more", <https://platform.openai.com/docs/guides/prompt-caching>;
/// Anthropic's least is the same, or higher.
const LEAST_CACHED: u64 = 1024;

/// Calls, weighed against what they would have cost otherwise.
#[derive(Debug)]
pub struct Weighing<'a> {
    prices: &'a Prices,
    /// What is weighed, and what has come of it.
    scales: Vec<(Choice, Scale)>,
    calls: u64,
    nothing_billed: u64,
    bought: u64,
    spent: PicoUsd,
    reused: Reused,
    repeats: Repeats<'a>,
}

/// What weir's own cache has saved.
#[derive(Clone, Copy, Debug, Default)]
struct Reused {
    calls: u64,
    unknown: u64,
    saved: PicoUsd,
}

/// What is on both sides of one choice: the same calls.
#[derive(Clone, Debug, Default)]
struct Scale {
    total: Side,
    left_out: BTreeMap<LeftOut, u64>,
    by_model: BTreeMap<(Box<str>, Box<str>), Side>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    calls: u64,
    estimated: u64,
    streamed: u64,
    cost: PicoUsd,
    otherwise: PicoUsd,
}

impl Side {
    fn add(&mut self, entry: &Entry, (cost, otherwise): (PicoUsd, PicoUsd)) {
        self.calls += 1;
        self.estimated += u64::from(entry.usage.is_some_and(|usage| usage.is_estimated()));
        self.streamed += u64::from(entry.streamed);
        self.cost += cost;
        self.otherwise += otherwise;
    }
}

/// Why a call is on neither side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// What it used is not known.
    NoUsage,
    /// What it cost is not known, so that there is nothing to compare.
    NoCost,
    /// It is no generation of text: another model does not do the same.
    OtherOperation,
    /// It has images, audio or video, or what is billed by other measures than tokens: models count those differently.
    Media,
    /// The price table does not know the model, or its provider.
    NoPrice,
    /// The model has no such tier at that time, or has the call at that price already.
    NoSuchTier,
    /// The prompt is too short for the provider's cache, or all of it was read from there already.
    NotCacheable,
}

impl<'a> Weighing<'a> {
    /// Of nothing yet, against each of `choices`.
    #[must_use]
    pub fn new(prices: &'a Prices, choices: Vec<Choice>) -> Self {
        Self {
            prices,
            scales: choices.into_iter().map(|choice| (choice, Scale::default())).collect(),
            calls: 0,
            nothing_billed: 0,
            bought: 0,
            spent: PicoUsd::ZERO,
            reused: Reused::default(),
            repeats: Repeats::new(prices),
        }
    }

    /// Weighs one more call, older than those before it.
    pub fn add(&mut self, entry: &Entry) {
        self.calls += 1;
        if entry.reuse.is_some() {
            self.reused.calls += 1;
            self.reused.unknown += u64::from(entry.saved.is_none());
            self.reused.saved += entry.saved.unwrap_or_default();
            return;
        }
        if entry.provenance.is_none() {
            self.nothing_billed += 1;
            return;
        }
        self.bought += 1;
        self.repeats.add(entry);
        self.spent += entry.cost.unwrap_or_default();
        for (choice, scale) in &mut self.scales {
            match weighed(self.prices, choice, entry) {
                Ok(sides) => {
                    scale.total.add(entry, sides);
                    scale.model(entry).add(entry, sides);
                }
                Err(why) => *scale.left_out.entry(why).or_default() += 1,
            }
        }
    }

    /// Weighs all these calls, the newest first, until there are no more or `until` is past.
    ///
    /// # Errors
    /// What kept the calls from coming.
    pub fn of<E>(
        calls: impl Iterator<Item = Result<Entry, E>>,
        prices: &'a Prices,
        choices: Vec<Choice>,
        until: Option<Instant>,
    ) -> Result<Answer, E> {
        /// Calls between two looks at the clock.
        const AT_ONCE: u64 = 256;
        let mut weighing = Self::new(prices, choices);
        for entry in calls {
            let entry = entry?;
            weighing.add(&entry);
            if weighing.calls.is_multiple_of(AT_ONCE) && until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Answer { is_complete: false, since: Some(entry.ended_at), ..weighing.finish() });
            }
        }
        Ok(weighing.finish())
    }

    /// What it comes to.
    #[must_use]
    pub fn finish(self) -> Answer {
        Answer {
            is_complete: true,
            since: None,
            calls: self.calls,
            bought_calls: self.bought,
            nothing_billed_calls: self.nothing_billed,
            spent_usd: exact(self.spent),
            reuse: Reuse {
                calls: self.reused.calls,
                unknown_calls: self.reused.unknown,
                saved_usd: exact(self.reused.saved),
            },
            alternatives: self.scales.into_iter().map(|(choice, scale)| scale.finish(&choice)).collect(),
            repeated_prefixes: self.repeats.finish(),
        }
    }
}

impl Scale {
    /// The side of the model that was asked for.
    fn model(&mut self, entry: &Entry) -> &mut Side {
        let name = |provider: &str, model: Option<&str>| (provider.into(), model.unwrap_or_default().into());
        let mut key = name(&entry.provider, entry.model.as_deref());
        if self.by_model.len() >= MOST_MODELS && !self.by_model.contains_key(&key) {
            key = name(OTHER, Some(OTHER));
        }
        self.by_model.entry(key).or_default()
    }

    fn finish(self, choice: &Choice) -> Alternative {
        let by_model = self.by_model.into_iter().map(|((provider, model), side)| OfModel {
            provider,
            model,
            comparison: Comparison::of(&side),
        });
        let mut by_model: Vec<OfModel> = by_model.collect();
        by_model.sort_by_key(|it| std::cmp::Reverse(it.comparison.spent));
        Alternative {
            what: choice.to_string(),
            comparison: Comparison::of(&self.total),
            left_out_calls: self.left_out,
            by_model,
            note: choice.note(),
        }
    }
}

/// What calls have cost, and what they would have cost otherwise.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = WhatIf)]
pub struct Answer {
    /// Whether every call was looked at; if not, there was no more time.
    pub is_complete: bool,
    /// Where not every one was: the calls that were over since then are those that were.
    #[serde(serialize_with = "time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Micros>,
    /// How many calls there are.
    pub calls: u64,
    /// Those of them that a provider billed, whether the cost is known or not.
    pub bought_calls: u64,
    /// Those that nobody billed: they failed, or were refused.
    pub nothing_billed_calls: u64,
    /// What was spent in all, as far as it is known.
    #[schema(value_type = f64)]
    pub spent_usd: Box<RawValue>,
    /// What weir's own cache has saved: these calls are on no side of anything.
    pub reuse: Reuse,
    /// What would have been otherwise.
    pub alternatives: Vec<Alternative>,
    /// Prompts that begin like one shortly before: what they cost that the provider's cache did not have.
    pub repeated_prefixes: Beginnings,
}

/// What weir's own cache has saved.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Reuse {
    /// Calls whose answer was there already.
    pub calls: u64,
    /// Those of them of which it is not known what they would have cost.
    pub unknown_calls: u64,
    /// What they would have cost.
    #[schema(value_type = f64)]
    pub saved_usd: Box<RawValue>,
}

/// What would have been otherwise.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Alternative {
    /// What.
    pub what: String,
    /// The calls that can be compared, together.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// How many calls cannot, and why.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub left_out_calls: BTreeMap<LeftOut, u64>,
    /// The same by the model that was asked for, the most expensive first.
    pub by_model: Vec<OfModel>,
    /// What to know of these figures.
    pub note: &'static str,
}

/// Calls to one model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OfModel {
    /// Whom was asked.
    pub provider: Box<str>,
    /// Which model, as it was asked for; empty where the request named none.
    pub model: Box<str>,
    /// What they come to.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// The same calls on both sides.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Comparison {
    /// How many there are.
    pub calls: u64,
    /// Those of them whose usage is an estimate.
    pub estimated_calls: u64,
    /// Those of them that were streamed: somebody waited for each word.
    pub streamed_calls: u64,
    /// What they have cost.
    #[schema(value_type = f64)]
    pub spent_usd: Box<RawValue>,
    /// What they would have cost.
    #[schema(value_type = f64)]
    pub would_have_cost_usd: Box<RawValue>,
    /// The second less the first: below zero, it would have been cheaper.
    #[schema(value_type = f64)]
    pub difference_usd: Box<RawValue>,
    #[serde(skip)]
    spent: PicoUsd,
}

impl Comparison {
    fn of(side: &Side) -> Self {
        Self {
            calls: side.calls,
            estimated_calls: side.estimated,
            streamed_calls: side.streamed,
            spent_usd: exact(side.cost),
            would_have_cost_usd: exact(side.otherwise),
            difference_usd: difference(side.otherwise, side.cost),
            spent: side.cost,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn time<S: Serializer>(at: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    match at.and_then(|at| Timestamp::from_microsecond(at).ok()) {
        Some(at) => serializer.collect_str(&format_args!("{at:.6}")),
        None => serializer.serialize_none(),
    }
}

/// `one` less `other`, as a JSON number with every digit.
fn difference(one: PicoUsd, other: PicoUsd) -> Box<RawValue> {
    if one >= other {
        return exact(one.less(other));
    }
    let text = format!("-{}", other.less(one));
    RawValue::from_string(text).expect("decimal dollars with a sign are a JSON number")
}

/// What the call has cost, and what it would have cost otherwise.
fn weighed(prices: &Prices, choice: &Choice, entry: &Entry) -> Result<(PicoUsd, PicoUsd), LeftOut> {
    let usage = entry.usage.as_ref().ok_or(LeftOut::NoUsage)?;
    let cost = entry.cost.ok_or(LeftOut::NoCost)?;
    let otherwise = match choice {
        Choice::Model(target) => {
            suits_any_model(entry, usage)?;
            let provider = target.provider().unwrap_or(&entry.provider);
            priced(prices, entry, (provider, [Some(target.model()), None]), usage, &[])?
        }
        Choice::Tier(tier) => {
            let standard = priced_as_asked(prices, entry, usage, &[])?;
            let otherwise = priced_as_asked(prices, entry, usage, &[tier.context()])?;
            // Without such a tier, the table says what it says without; and a call that is on it has its price already.
            if otherwise == standard || otherwise == cost {
                return Err(LeftOut::NoSuchTier);
            }
            otherwise
        }
        Choice::PromptCache => {
            let cached = all_read_from_cache(entry, usage)?;
            let context = entry.service_tier.as_deref().map(|tier| ("service_tier", tier));
            let otherwise = priced_as_asked(prices, entry, &cached, context.as_slice())?;
            if otherwise >= cost {
                return Err(LeftOut::NotCacheable);
            }
            otherwise
        }
    };
    Ok((cost, otherwise))
}

/// A provider, and what its price table may know a model by: the better name first.
type Asked<'a> = (&'a str, [Option<&'a str>; 2]);

/// What `usage` costs at the provider and the model of the call itself. The table's id of the model comes last: not all
/// of these are names that a provider knows.
fn priced_as_asked(
    prices: &Prices,
    entry: &Entry,
    usage: &Usage,
    context: &[(&str, &str)],
) -> Result<PicoUsd, LeftOut> {
    let named = [entry.response_model.as_deref(), entry.model.as_deref()];
    match priced(prices, entry, (&entry.provider, named), usage, context) {
        Err(LeftOut::NoPrice) => {
            priced(prices, entry, (&entry.provider, [entry.priced_model.as_deref(), None]), usage, context)
        }
        known => known,
    }
}

/// What `usage` costs by the prices of the time of the call.
fn priced(
    prices: &Prices,
    entry: &Entry,
    (provider, [first, next]): Asked<'_>,
    usage: &Usage,
    context: &[(&str, &str)],
) -> Result<PicoUsd, LeftOut> {
    let question = Question {
        source: &prices.source_of(provider),
        response_model: first,
        request_model: next,
        usage: Some(usage),
        context,
        at: moment(entry.started_at),
    };
    match prices.price(&question).cost {
        Cost::Known(charge) => Ok(charge.total()),
        Cost::Unpriced(Unpriced::NoUsage) => Err(LeftOut::NoUsage),
        Cost::Unpriced(_) | Cost::Nothing => Err(LeftOut::NoPrice),
    }
}

/// Whether another model of text would have used the same: as near as anyone can tell without asking it.
fn suits_any_model(entry: &Entry, usage: &Usage) -> Result<(), LeftOut> {
    if !matches!(&*entry.operation, "chat" | "text_completion" | "generate_content") {
        return Err(LeftOut::OtherOperation);
    }
    let is_other = |(counter, count): (Counter, u64)| {
        count > 0 && counter != Counter::Requests && matches!(counter.class(), TokenClass::Media | TokenClass::Fee)
    };
    if usage.leaves().any(is_other) { Err(LeftOut::Media) } else { Ok(()) }
}

/// The same usage, had every token of its prompt been in the provider's cache.
fn all_read_from_cache(entry: &Entry, usage: &Usage) -> Result<Usage, LeftOut> {
    suits_any_model(entry, usage)?;
    let input = usage.get(Counter::InputTokens).ok_or(LeftOut::NoUsage)?;
    let read = usage.get(Counter::CacheReadTokens).unwrap_or(0);
    if input < LEAST_CACHED || read >= input {
        return Err(LeftOut::NotCacheable);
    }
    let reasoning = usage.get(Counter::OutputReasoningTokens);
    let parts = [(Counter::CacheReadTokens, Some(input)), (Counter::OutputReasoningTokens, reasoning)];
    Ok(Usage::cache_inside(Some(input), usage.get(Counter::OutputTokens), &parts))
}

fn moment(at: Micros) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at).unwrap_or(0))
}

#[cfg(test)]
mod tests;
