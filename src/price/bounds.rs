//! Bounds: rates that a person wrote and that look like a slip, such as a price per token where one per million is meant.
//!
//! The bounds are the built-in table's own spread with room around it: its rates for a million tokens go from 0.0011 to
//! 600 US dollars, those for a thousand searches or pages from 1 to 35, those for an hour of audio from 0.02 to 4.80. A
//! rate that is right but for its unit is a thousand or a million times off, and so out of bounds; or, where a model is
//! dear enough to hide that, a thousand times off what the built-in table says of the same model.

use std::ops::RangeInclusive;

use crate::price::Mistake;
use crate::price::cost;
use crate::price::file::{self, ONE};
use crate::price::table::Table;
use crate::record::usage::Counter;
use crate::units::PicoUsd;

/// Nobody's discount is a factor of a hundred; a wrong unit is one of sixty at least, and mostly of a thousand.
const MOST_TIMES_OFF: u64 = 100;

/// A thousandth of a US dollar.
const MILLI_USD: u64 = 1_000_000_000;

/// What rates are held against.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    built_in: &'a Table,
}

impl<'a> Bounds<'a> {
    /// The bounds that are found in `built_in`.
    pub(super) const fn of(built_in: &'a Table) -> Self {
        Self { built_in }
    }

    /// Adds a mistake for every rate of `model` that looks like a slip, unless the model says that it is none. Returns
    /// what is odd, but happens.
    pub(super) fn check(
        self,
        provider: &str,
        model: &file::Model,
        at: &str,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Mistake> {
        if !model.unusual {
            for (at, rates) in sets(model, at) {
                for (counter, rate) in rates {
                    mistakes.extend(out_of_range(counter.0, rate).map(|problem| mistake(&at, counter.0, problem)));
                }
            }
            mistakes.extend(self.far_from_built_in(provider, model, at));
        }
        dearer_to_read_than_to_send(&model.rates, &format!("{at}.rates"))
    }

    /// Rates that are far from those the built-in table has for the same model.
    fn far_from_built_in(self, provider: &str, model: &file::Model, at: &str) -> Vec<Mistake> {
        let names = model.r#match.eq.iter().chain(&model.r#match.prefix).chain([&model.id]).map(file::Word::as_str);
        let provider = self.built_in.provider_named(provider);
        let known = provider.and_then(|provider| names.into_iter().find_map(|name| self.built_in.find(provider, name)));
        let Some(known) = known else { return Vec::new() };
        let listed = known.listed_rates();
        let sets = sets(model, at);
        let rates = sets.iter().flat_map(|(at, rates)| rates.iter().map(move |(counter, rate)| (at, counter, rate)));
        let far = rates.filter_map(|(at, counter, rate)| {
            let theirs = listed[counter.0 as usize].filter(|rate| *rate > 0)?;
            let is_far = |ours: &u64| *ours > 0 && ((*ours).max(theirs) / (*ours).min(theirs)) >= MOST_TIMES_OFF;
            // What is out of range has been named already.
            let is_new = |ours: &u64| is_far(ours) && range(counter.0).contains(ours);
            let mut ours = [rate.base].into_iter().chain(rate.over.iter().map(|(_, rate)| *rate)).map(|rate| rate.0);
            ours.find(is_new).map(|ours| {
                let problem = format!(
                    "{} US dollars for {} is {} times {} than the built-in table's {}: is the unit right? {MEANT}",
                    usd(ours),
                    bought(counter.0),
                    ours.max(theirs) / ours.min(theirs),
                    if ours < theirs { "less" } else { "more" },
                    usd(theirs),
                );
                mistake(at, counter.0, problem)
            })
        });
        far.collect()
    }
}

/// How an operator says that a rate is no slip.
const MEANT: &str = r#"If it is meant, write `"unusual": true` beside the model's `rates`"#;

/// Every set of rates of `model`, and its path.
fn sets<'a>(model: &'a file::Model, at: &str) -> Vec<(String, &'a file::Rates)> {
    let overrides = model.overrides.iter().enumerate();
    let variants = model.variants.iter().enumerate();
    [(format!("{at}.rates"), &model.rates)]
        .into_iter()
        .chain(overrides.map(|(number, it)| (format!("{at}.overrides[{number}].rates"), &it.rates)))
        .chain(variants.map(|(number, it)| (format!("{at}.variants[{number}].rates"), &it.rates)))
        .collect()
}

/// What is wrong with a rate outside of all that is known of such rates. No charge at all is fine.
fn out_of_range(counter: Counter, rate: &file::Rate) -> Option<String> {
    let range = range(counter);
    let rates = [rate.base].into_iter().chain(rate.over.iter().map(|(_, rate)| *rate));
    let rate = rates.map(|rate| rate.0).find(|rate| *rate > 0 && !range.contains(rate))?;
    let (than, bound) = if rate < *range.start() { ("less", range.start()) } else { ("more", range.end()) };
    let perhaps = meant(counter, rate).map(|usd| format!(", so perhaps {usd} is meant")).unwrap_or_default();
    Some(format!(
        "{} US dollars for {bought} is {than} than any rate known ({}): rates are for {bought}{perhaps}. {MEANT}",
        usd(rate),
        usd(*bound),
        bought = bought(counter),
    ))
}

/// What was most likely meant by a rate that is too small: a price for one, or for the next smaller measure. Of the
/// two the one that is nearer to what most things cost, a dollar.
fn meant(counter: Counter, rate: u64) -> Option<PicoUsd> {
    let per = cost::per(counter);
    let smaller = if per == 3600 { 60 } else { 1000 };
    let range = range(counter);
    let candidates = [per, smaller].map(|times| rate.saturating_mul(times));
    let distance = |rate: &u64| ONE.max(*rate) / ONE.min(*rate);
    let meant = candidates.into_iter().filter(|_| rate < *range.start()).filter(|rate| range.contains(rate));
    meant.min_by_key(distance).map(usd)
}

/// The rates, in pico-dollars, that are not taken for slips.
fn range(counter: Counter) -> RangeInclusive<u64> {
    match cost::per(counter) {
        1000 => 100 * MILLI_USD..=1_000_000 * MILLI_USD,
        3600 => 10 * MILLI_USD..=100_000 * MILLI_USD,
        _ => MILLI_USD..=1_000_000 * MILLI_USD,
    }
}

/// What a rate of `counter` buys, in words.
fn bought(counter: Counter) -> &'static str {
    match cost::per(counter) {
        1000 => "a thousand",
        3600 => "an hour",
        _ => "a million",
    }
}

/// Reading from a cache costs less than sending anew nearly everywhere, but not quite: the built-in table has a model
/// where it does not. So this is no mistake.
fn dearer_to_read_than_to_send(rates: &file::Rates, at: &str) -> Option<Mistake> {
    let rate = |counter| rates.get(&file::CounterName(counter)).map(|rate| rate.base.0);
    let (read, input) = (rate(Counter::CacheReadTokens)?, rate(Counter::InputTokens)?);
    let problem = || format!("{} is more than the rate of input_tokens, {}: is it meant?", usd(read), usd(input));
    (read > input).then(|| mistake(at, Counter::CacheReadTokens, problem()))
}

fn mistake(at: &str, counter: Counter, problem: String) -> Mistake {
    Mistake { field: format!("{at}.{}", counter.name()), problem }
}

fn usd(pico: u64) -> PicoUsd {
    PicoUsd::new(u128::from(pico))
}
