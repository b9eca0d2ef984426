//! Explain: why a call costs what it costs. Which entry of which file a model's name means and by which rule, what of its
//! terms holds at that time and in that context, and what each counter comes to.
//!
//! For people who ask. Prices nothing itself: it shows the very rates and charges that calls are priced by.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::price::cost::{self, PerCounter};
use crate::price::file::{Day, ONE};
use crate::price::table::{Applicable, Found, Origin, Override, Uplift, Variant};
use crate::price::{InForce, Place, Prices, Question, Source};
use crate::record::usage::{Counter, TokenClass, Unpriced};
use crate::units::PicoUsd;

/// How a model is priced.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The table's id of the provider that bills the call.
    pub provider: String,
    /// The id of the provider that lists the model: the same, or one it falls back to.
    pub listed_by: String,
    /// The table's id of the model.
    pub model: String,
    /// The file that lists it: `overlay`, `additions` or `built-in`.
    pub file: &'static str,
    /// The rule that the name passed.
    pub rule: String,
    /// What replaces the model's standard rates, and when.
    pub replaced_by: Option<String>,
    /// What of the context replaces single rates.
    pub variants: Vec<String>,
    /// What multiplies rates.
    pub uplifts: Vec<String>,
    /// At least so many seconds of audio are billed, if there are any.
    pub min_audio_seconds: u64,
    /// The rates that result.
    pub rates: Vec<ShownRate>,
}

/// The rate of one counter.
#[derive(Debug, Serialize)]
pub struct ShownRate {
    /// The counter.
    pub counter: &'static str,
    /// How many of its units the rate buys.
    pub per: u64,
    /// US dollars, a decimal.
    pub usd: String,
    /// US dollars above so many input tokens, by ascending number.
    pub over: Vec<(u64, String)>,
}

/// What a call comes to.
#[derive(Debug, Serialize)]
pub struct Bill {
    /// The table's id of the provider that bills the call.
    pub provider: String,
    /// The id of the provider that lists the model.
    pub listed_by: String,
    /// The table's id of the model.
    pub model: String,
    /// What each counter with a rate comes to.
    pub lines: Vec<Line>,
    /// The same total by class of token; classes without a cost are left out.
    pub classes: BTreeMap<&'static str, String>,
    /// US dollars in all, a decimal.
    pub usd: String,
}

/// A line of a bill.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The counter.
    pub counter: &'static str,
    /// How many units are billed: those that no counter inside it with a rate of its own covers.
    pub count: u64,
    /// US dollars, a decimal.
    pub rate: String,
    /// How many units the rate buys.
    pub per: u64,
    /// What the line comes to, in US dollars.
    pub usd: String,
}

impl Prices {
    /// How the model of `question` is priced, whatever its usage.
    ///
    /// # Errors
    ///
    /// Why it has no price.
    pub fn explain(&self, question: &Question<'_>) -> Result<Explanation, Unpriced> {
        let in_force = self.in_force();
        let (found, applicable) = in_force.look_up(question)?;
        let words = &found.table.words;
        Ok(Explanation {
            provider: found.asked.id.to_string(),
            listed_by: found.lister.id.to_string(),
            model: found.id().to_string(),
            file: file(found.model.origin),
            rule: words.describe(found.test),
            replaced_by: applicable.replaced.map(override_in_words),
            variants: applicable.variants.iter().map(|it| variant_in_words(&found, it)).collect(),
            uplifts: applicable.uplifts.iter().map(|it| uplift_in_words(&found, it)).collect(),
            min_audio_seconds: found.min_audio_seconds(),
            rates: shown_rates(&applicable),
        })
    }

    /// What a call comes to, line by line; nothing, where none of what it used has a rate.
    ///
    /// # Errors
    ///
    /// Why it has no price.
    pub fn bill(&self, question: &Question<'_>) -> Result<Bill, Unpriced> {
        let in_force = self.in_force();
        let (found, applicable) = in_force.look_up(question)?;
        let usage = question.usage.ok_or(Unpriced::NoUsage)?;
        let rates = applicable.rates(usage.get(Counter::InputTokens).unwrap_or(0));
        let counts = cost::counts(usage, found.min_audio_seconds());
        let (counts, amounts) = (cost::leaves(&rates, &counts), cost::bill(&rates, &counts));
        let lines = Counter::ALL.iter().filter_map(|&counter| {
            let line = Line {
                counter: counter.name(),
                count: counts[counter as usize],
                rate: usd(rates[counter as usize]?),
                per: cost::per(counter),
                usd: amounts[counter as usize].to_string(),
            };
            (line.count > 0).then_some(line)
        });
        let charge = cost::charge(&rates, &amounts, usage);
        let classes = TokenClass::ALL.into_iter().filter(|class| charge.of(*class) > PicoUsd::ZERO);
        Ok(Bill {
            provider: found.asked.id.to_string(),
            listed_by: found.lister.id.to_string(),
            model: found.id().to_string(),
            lines: lines.collect(),
            classes: classes.map(|class| (class.as_str(), charge.of(class).to_string())).collect(),
            usd: charge.total().to_string(),
        })
    }

    /// The ids of all providers.
    #[must_use]
    pub fn provider_ids(&self) -> Vec<String> {
        self.in_force().table.providers.iter().map(|provider| provider.id.to_string()).collect()
    }

    /// The ids of the models of `source` and of the providers it falls back to.
    #[must_use]
    pub fn model_ids(&self, source: &Source) -> Vec<String> {
        let in_force = self.in_force();
        let Place::Listed { provider, .. } = in_force.place(source) else { return Vec::new() };
        let table = &in_force.table;
        let listers = [provider].into_iter().chain(table.providers[provider].fallback.iter().copied());
        let models = listers.flat_map(|lister| &table.providers[lister].models);
        models.map(|model| table.words.get(model.id).to_owned()).collect()
    }
}

impl InForce {
    /// The model of `question`, and what of its terms holds.
    fn look_up(&self, question: &Question<'_>) -> Result<(Found<'_>, Applicable<'_>), Unpriced> {
        let Place::Listed { provider, region } = self.place(question.source) else { return Err(Unpriced::NoTable) };
        let found = self.find(provider, question).ok_or(Unpriced::UnknownModel)?;
        let applicable = found.applicable(question.at, &self.context(provider, region, question.context));
        Ok((found, applicable))
    }
}

/// The rates below every threshold, and above each one those that differ.
fn shown_rates(applicable: &Applicable<'_>) -> Vec<ShownRate> {
    let steps: Vec<(u64, PerCounter<Option<u64>>)> =
        applicable.thresholds().into_iter().map(|above| (above, applicable.rates(above.saturating_add(1)))).collect();
    let base = applicable.rates(0);
    let shown = Counter::ALL.iter().filter_map(|&counter| {
        let mut last = base[counter as usize]?;
        let over = steps.iter().filter_map(|(above, rates)| {
            let rate = rates[counter as usize].filter(|rate| *rate != last)?;
            last = rate;
            Some((*above, usd(rate)))
        });
        let over = over.collect();
        let usd = usd(base[counter as usize]?);
        Some(ShownRate { counter: counter.name(), per: cost::per(counter), usd, over })
    });
    shown.collect()
}

const fn file(origin: Origin) -> &'static str {
    match origin {
        Origin::Overlay => "overlay",
        Origin::Additions => "additions",
        Origin::BuiltIn => "built-in",
    }
}

fn override_in_words(it: &Override) -> String {
    let window = it.utc.map(|(start, end)| format!("from {} to {} UTC", clock(start), clock(end)));
    let from = it.from.map(|day| format!("since {}", date(day)));
    let parts: Vec<_> = from.into_iter().chain(window).collect();
    if parts.is_empty() { "at all times".to_owned() } else { parts.join(", ") }
}

fn variant_in_words(found: &Found<'_>, it: &Variant) -> String {
    let since = it.from.map(|day| format!(", since {}", date(day))).unwrap_or_default();
    format!("{}{since}", context_in_words(found, &it.context))
}

fn uplift_in_words(found: &Found<'_>, it: &Uplift) -> String {
    let factor = usd_like(it.factor);
    let what = if it.derive.is_empty() {
        format!("every rate for tokens × {factor}")
    } else {
        let made = it.derive.iter().map(|(counter, of)| format!("{} = {} × {factor}", counter.name(), of.name()));
        made.collect::<Vec<_>>().join(", ")
    };
    let context = context_in_words(found, &it.context);
    let because = if context.is_empty() { String::new() } else { format!(" ({context})") };
    format!("{}: {what}{because}, by the {}", found.table.words.get(it.id), file(it.origin))
}

fn context_in_words(found: &Found<'_>, context: &crate::price::table::Context) -> String {
    let words = &found.table.words;
    let pairs = context.iter().map(|(key, value)| format!("{}={}", words.get(*key), words.get(*value)));
    pairs.collect::<Vec<_>>().join(", ")
}

fn usd(pico: u64) -> String {
    PicoUsd::new(u128::from(pico)).to_string()
}

/// Trillionths as a decimal, which is what pico-dollars are too.
fn usd_like(trillionths: u64) -> String {
    const { assert!(ONE as u128 == PicoUsd::PER_USD) };
    usd(trillionths)
}

fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn date(day: Day) -> String {
    let midnight = UNIX_EPOCH + Duration::from_secs(u64::from(day.0) * 86_400);
    let mut text = humantime::format_rfc3339_seconds(midnight).to_string();
    text.truncate("2026-11-20".len());
    text
}
