//! Table: the price table in memory, small and ready to be searched.
//!
//! Thousands of models are kept as a few long lists: text, rules, models, rates. Equal sets of rates are kept once.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::price::cost::{self, PerCounter, Rate};
use crate::price::file::Day;
use crate::price::matching::{
    LONGEST_NAME, Test, Word, Words, literal_prefix, lower_case, regex, undecorated, with_dashed_dates,
};
use crate::record::usage::{Counter, TokenClass};

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) words: Words,
    pub(super) rates: Vec<Rate>,
    pub(super) providers: Vec<Provider>,
    pub(super) edition: Edition,
}

/// Which table it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Edition {
    /// Who gathered the prices.
    pub(super) source: Box<str>,
    /// Their version.
    pub(super) version: Box<str>,
    /// When they published it.
    pub(super) published: Option<SystemTime>,
    /// Whether the operator's file is on top.
    pub(super) is_overlaid: bool,
}

/// The file that something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The operator's.
    Overlay,
    /// weir's own additions to the gathered table.
    Additions,
    /// The gathered table.
    BuiltIn,
}

#[derive(Debug, Default)]
pub(super) struct Provider {
    pub(super) id: Box<str>,
    /// Regular expressions that match its URLs.
    pub(super) urls: Vec<Box<str>>,
    /// The names it goes by.
    pub(super) names: Vec<Test>,
    /// Whose models are searched when it does not have one itself.
    pub(super) fallback: Vec<usize>,
    /// Regions with prices of their own, and a regular expression that matches the URLs of each.
    pub(super) regions: Vec<(Box<str>, Box<str>)>,
    pub(super) uplifts: Vec<Uplift>,
    pub(super) rules: Vec<Rule>,
    pub(super) models: Vec<Model>,
    /// What the names meant that were asked for, as far as they are remembered.
    pub(super) meant: Meant,
}

/// What a name means: the provider that lists the model, and which of its rules the name passes; `None` if it means none.
type Meaning = Option<(u32, u32)>;

/// What names mean. Whoever asks nearly always asks for a few, and to try every rule of a long table takes longer than all the
/// rest of a bill.
#[derive(Debug, Default)]
pub(super) struct Meant(RwLock<foldhash::HashMap<Box<str>, Meaning>>);

/// Most names whose meaning is remembered for each provider: an app may call a model anything.
const MOST_MEANT: usize = 256;

impl Meant {
    fn of(&self, name: &str, find: impl FnOnce() -> Meaning) -> Meaning {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return *known;
        }
        let found = find();
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MOST_MEANT {
            names.insert(name.into(), found);
        }
        found
    }
}

/// A test, and the position of the model whose name passes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) test: Test,
    pub(super) model: u32,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) id: Word,
    pub(super) rates: RateSet,
    pub(super) terms: Option<Box<Terms>>,
    pub(super) origin: Origin,
    /// The id as records share it, once the model has been used.
    pub(super) shared_id: OnceLock<Arc<str>>,
}

/// Rates next to each other in [`Table::rates`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RateSet {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// What only some models have.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) overrides: Box<[Override]>,
    pub(super) variants: Box<[Variant]>,
    pub(super) min_audio_seconds: u64,
}

#[derive(Debug)]
pub(super) struct Override {
    pub(super) from: Option<Day>,
    /// The minutes of the day from which and before which it is active.
    pub(super) utc: Option<(u16, u16)>,
    pub(super) rates: RateSet,
}

/// What a call's context must hold.
pub(super) type Context = Box<[(Word, Word)]>;

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) context: Context,
    pub(super) from: Option<Day>,
    pub(super) rates: RateSet,
}

/// A factor on the rates of a provider's calls.
#[derive(Debug)]
pub(super) struct Uplift {
    pub(super) id: Word,
    pub(super) context: Context,
    /// Tests of the model's id; without them it applies to all.
    pub(super) models: Option<Vec<Test>>,
    pub(super) from: Option<Day>,
    /// The rates it makes, each from another one. Without them it multiplies the rate of every token.
    pub(super) derive: Box<[(Counter, Counter)]>,
    /// In trillionths.
    pub(super) factor: u64,
    pub(super) origin: Origin,
}

/// A model that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) table: &'a Table,
    pub(super) model: &'a Model,
    /// The provider that was asked for.
    pub(super) asked: &'a Provider,
    /// The provider that lists the model: the one asked for, or one it falls back to.
    pub(super) lister: &'a Provider,
    /// The test that its name passed.
    pub(super) test: Test,
}

/// What of a model's terms holds for a call.
#[derive(Debug)]
pub(super) struct Applicable<'a> {
    pub(super) table: &'a Table,
    /// What replaces the model's own rates wholly, if anything does.
    pub(super) replaced: Option<&'a Override>,
    pub(super) base: RateSet,
    /// What replaces single rates: the first one first.
    pub(super) variants: Vec<&'a Variant>,
    pub(super) uplifts: Vec<&'a Uplift>,
}

impl Table {
    /// The provider with this id, else the first that goes by this name.
    pub(super) fn provider_named(&self, name: &str) -> Option<usize> {
        let name = lower_case(name.trim());
        if name.len() > LONGEST_NAME {
            return None;
        }
        self.providers
            .iter()
            .position(|provider| *provider.id == *name)
            .or_else(|| self.providers.iter().position(|provider| self.words.any_passes(&provider.names, &name)))
    }

    /// The first provider to which this URL belongs. Slow, for use at start: expressions are compiled and dropped.
    pub(super) fn provider_at(&self, url: &str) -> Option<usize> {
        self.providers.iter().position(|provider| provider.urls.iter().any(|pattern| begins_with(url, pattern)))
    }

    /// The position of the region of `provider` to which this URL belongs, if it has prices of its own. Slow, likewise.
    pub(super) fn region_at(&self, provider: usize, url: &str) -> Option<usize> {
        self.providers[provider].regions.iter().position(|(_, pattern)| begins_with(url, pattern))
    }

    /// The model that `provider` calls `name`: one of its own, else of those it falls back to; as spelt, else with its
    /// compact dates spelt out; then the same without what Google's APIs put before it.
    pub(super) fn find(&self, provider: usize, name: &str) -> Option<Found<'_>> {
        let asked = self.providers.get(provider).filter(|_| name.len() <= LONGEST_NAME)?;
        let (lister, rule) = asked.meant.of(name, || {
            let name = lower_case(name);
            self.find_dated(provider, &name).or_else(|| self.find_dated(provider, undecorated(&name)?))
        })?;
        let lister = &self.providers[lister as usize];
        let Rule { test, model } = lister.rules[rule as usize];
        Some(Found { table: self, model: &lister.models[model as usize], asked, lister, test })
    }

    fn find_dated(&self, provider: usize, name: &str) -> Meaning {
        self.find_spelt(provider, name).or_else(|| self.find_spelt(provider, &with_dashed_dates(name)?))
    }

    /// Which provider lists the model, and by which of its rules.
    fn find_spelt(&self, asked: usize, name: &str) -> Meaning {
        let listers = [asked].into_iter().chain(self.providers[asked].fallback.iter().copied());
        listers.into_iter().find_map(|lister| {
            let rules = &self.providers[lister].rules;
            let rule = rules.iter().position(|rule| self.words.names_model(rule.test, name))?;
            Some((u32::try_from(lister).ok()?, u32::try_from(rule).ok()?))
        })
    }

    pub(super) fn rates(&self, set: RateSet) -> &[Rate] {
        &self.rates[set.start as usize..][..set.len as usize]
    }
}

impl<'a> Found<'a> {
    /// The table's id of the model.
    pub(super) fn id(&self) -> Arc<str> {
        Arc::clone(self.model.shared_id.get_or_init(|| self.table.words.get(self.model.id).into()))
    }

    /// At least so many seconds of audio are billed, if there are any.
    pub(super) fn min_audio_seconds(&self) -> u64 {
        self.model.terms.as_ref().map_or(0, |terms| terms.min_audio_seconds)
    }

    /// The rates that the table lists first, below every threshold and whatever the time and the context.
    pub(super) fn listed_rates(&self) -> PerCounter<Option<u64>> {
        cost::in_force(self.table.rates(self.model.rates), 0)
    }

    /// What holds for a call at this time and in this context. A set that is active later in the list replaces the
    /// model's own wholly; a variant replaces single rates, the first one first. Variants are the provider's own: they
    /// never apply to models found by falling back. Uplifts are those of the provider asked, who sends the bill: they
    /// apply to the models it falls back to as well.
    pub(super) fn applicable(&self, at: SystemTime, context: &[(&str, &str)]) -> Applicable<'a> {
        let (table, at) = (self.table, Moment::of(at));
        let terms = self.model.terms.as_deref();
        let (overrides, variants) = terms.map_or((&[][..], &[][..]), |terms| (&terms.overrides, &terms.variants));
        let replaced = overrides.iter().rev().find(|it| at.has_reached(it.from) && at.is_within(it.utc));
        let variants = if std::ptr::eq(self.lister, self.asked) { variants } else { &[] };
        let variants = variants.iter().filter(|it| at.has_reached(it.from) && table.holds(&it.context, context));
        let uplifts = self.asked.uplifts.iter().filter(|it| {
            let tests = it.models.as_ref();
            at.has_reached(it.from)
                && table.holds(&it.context, context)
                && tests.is_none_or(|tests| table.words.any_passes(tests, &lower_case(table.words.get(self.model.id))))
        });
        Applicable {
            table,
            replaced,
            base: replaced.map_or(self.model.rates, |it| it.rates),
            variants: variants.collect(),
            uplifts: uplifts.collect(),
        }
    }
}

impl Applicable<'_> {
    /// The numbers of input tokens above which some rate is another, ascending.
    pub(super) fn thresholds(&self) -> BTreeSet<u64> {
        let sets = [self.base].into_iter().chain(self.variants.iter().map(|it| it.rates));
        let rates = sets.flat_map(|set| self.table.rates(set));
        rates.filter_map(|rate| rate.above).map(|above| u64::from(above.get())).collect()
    }

    /// The rates for a call of so many input tokens.
    pub(super) fn rates(&self, input_tokens: u64) -> PerCounter<Option<u64>> {
        let mut rates = cost::in_force(self.table.rates(self.base), input_tokens);
        let mut overlaid = [None; Counter::ALL.len()];
        for variant in &self.variants {
            let more = cost::in_force(self.table.rates(variant.rates), input_tokens);
            overlaid = std::array::from_fn(|counter| overlaid[counter].or(more[counter]));
        }
        rates = std::array::from_fn(|counter| overlaid[counter].or(rates[counter]));
        // First the rates that are made, then what multiplies them all.
        for uplift in &self.uplifts {
            for &(counter, of) in &uplift.derive {
                let made = rates[of as usize].map(|rate| cost::scaled(rate, uplift.factor));
                rates[counter as usize] = rates[counter as usize].or(made);
            }
        }
        for uplift in self.uplifts.iter().filter(|it| it.derive.is_empty()) {
            for &counter in Counter::ALL.iter().filter(|counter| counter.class() != TokenClass::Fee) {
                rates[counter as usize] = rates[counter as usize].map(|rate| cost::scaled(rate, uplift.factor));
            }
        }
        rates
    }
}

impl Table {
    fn holds(&self, wanted: &Context, context: &[(&str, &str)]) -> bool {
        wanted.iter().all(|(key, value)| context.contains(&(self.words.get(*key), self.words.get(*value))))
    }
}

/// Whether `url` begins with what the regular expression `pattern` matches.
fn begins_with(url: &str, pattern: &str) -> bool {
    // Dozens of expressions are asked about each provider at start, and compiling one takes longer than all the rest.
    if !url.starts_with(&literal_prefix(pattern)) {
        return false;
    }
    let found = regex(pattern).ok().and_then(|regex| regex.find(url.as_bytes()).map(|found| found.start()));
    found == Some(0)
}

/// A time as the table tells it: day and minute of the day, in UTC.
#[derive(Clone, Copy)]
struct Moment {
    day: u64,
    minute: u64,
}

impl Moment {
    fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { day: seconds / 86_400, minute: seconds % 86_400 / 60 }
    }

    fn has_reached(self, from: Option<Day>) -> bool {
        from.is_none_or(|from| self.day >= u64::from(from.0))
    }

    fn is_within(self, window: Option<(u16, u16)>) -> bool {
        window.is_none_or(|(start, end)| {
            let (start, end) = (u64::from(start), u64::from(end));
            let (started, ended) = (self.minute >= start, self.minute >= end);
            if end < start { started || !ended } else { started && !ended }
        })
    }
}
