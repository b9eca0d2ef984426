//! Table: the price table in memory, small and ready to be searched.
//!
//! Thousands of models are kept as a few long lists: text, rules, models, rates. Equal sets of rates are kept once.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::price::Mistake;
use crate::price::cost::{self, PerCounter, Rate};
use crate::price::file::{self, Day, SCHEMA_VERSION};
use crate::price::matching::{LONGEST_NAME, Test, Word, Words, lower_case, regex, with_dashed_dates};
use crate::record::usage::Counter;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    words: Words,
    rates: Vec<Rate>,
    providers: Vec<Provider>,
    edition: Edition,
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
    /// The day for which "current" was decided.
    pub(super) as_of: Option<SystemTime>,
}

#[derive(Debug, Default)]
struct Provider {
    id: Box<str>,
    /// A regular expression that matches its URLs.
    url: Option<Box<str>>,
    /// The names it goes by.
    names: Vec<Test>,
    /// Whose models are searched when it does not have one itself.
    fallback: Vec<usize>,
    rules: Vec<Rule>,
    models: Vec<Model>,
}

/// A test, and the position of the model whose name passes it.
#[derive(Clone, Copy, Debug)]
struct Rule {
    test: Test,
    model: u32,
}

#[derive(Debug)]
struct Model {
    id: Word,
    rates: RateSet,
    terms: Option<Box<Terms>>,
    /// The id as records share it, once the model has been used.
    shared_id: OnceLock<Arc<str>>,
}

/// Rates next to each other in [`Table::rates`].
#[derive(Clone, Copy, Debug)]
struct RateSet {
    start: u32,
    len: u32,
}

/// What only some models have.
#[derive(Debug)]
struct Terms {
    overrides: Box<[Override]>,
    variants: Box<[Variant]>,
    min_audio_seconds: u64,
}

#[derive(Debug)]
struct Override {
    from: Option<Day>,
    /// The minutes of the day from which and before which it is active.
    utc: Option<(u16, u16)>,
    rates: RateSet,
}

#[derive(Debug)]
struct Variant {
    context: Box<[(Word, Word)]>,
    from: Option<Day>,
    rates: RateSet,
}

/// A model that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    table: &'a Table,
    model: &'a Model,
    /// The provider that was asked for.
    asked: usize,
    /// The provider that lists the model: the one asked for, or one it falls back to.
    lister: usize,
}

impl Table {
    /// Which table it is.
    pub(super) const fn edition(&self) -> &Edition {
        &self.edition
    }

    /// How many providers it lists.
    pub(super) const fn len(&self) -> usize {
        self.providers.len()
    }

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
        let belongs = |pattern: &str| {
            let found = regex(pattern).ok().and_then(|regex| regex.find(url.as_bytes()).map(|found| found.start()));
            found == Some(0)
        };
        self.providers.iter().position(|provider| provider.url.as_deref().is_some_and(belongs))
    }

    /// The model that `provider` calls `name`: one of its own, else of those it falls back to; as spelt, else with its
    /// compact dates spelt out.
    pub(super) fn find(&self, provider: usize, name: &str) -> Option<Found<'_>> {
        if name.len() > LONGEST_NAME {
            return None;
        }
        let name = lower_case(name);
        self.find_spelt(provider, &name).or_else(|| self.find_spelt(provider, &with_dashed_dates(&name)?))
    }

    fn find_spelt(&self, asked: usize, name: &str) -> Option<Found<'_>> {
        let fallback = &self.providers.get(asked)?.fallback;
        std::iter::once(&asked).chain(fallback).find_map(|&lister| {
            let provider = &self.providers[lister];
            let rule = provider.rules.iter().find(|rule| self.words.names_model(rule.test, name))?;
            Some(Found { table: self, model: &provider.models[rule.model as usize], asked, lister })
        })
    }

    fn rates(&self, set: RateSet) -> &[Rate] {
        &self.rates[set.start as usize..][..set.len as usize]
    }
}

impl Found<'_> {
    /// The table's id of the model.
    pub(super) fn id(&self) -> Arc<str> {
        Arc::clone(self.model.shared_id.get_or_init(|| self.table.words.get(self.model.id).into()))
    }

    /// The table's id of the provider whose model it is.
    #[cfg(test)]
    pub(super) fn provider(&self) -> &str {
        &self.table.providers[self.lister].id
    }

    /// At least so many seconds of audio are billed, if there are any.
    pub(super) fn min_audio_seconds(&self) -> u64 {
        self.model.terms.as_ref().map_or(0, |terms| terms.min_audio_seconds)
    }

    /// The rates for a call of so many input tokens, at this time and in this context. A set that is active later in
    /// the list replaces the model's own wholly; a variant replaces single rates, the first one first. Variants are the
    /// provider's own: they never apply to models found by falling back.
    pub(super) fn rates(&self, input_tokens: u64, at: SystemTime, context: &[(&str, &str)]) -> PerCounter<Option<u64>> {
        let Some(terms) = &self.model.terms else {
            return cost::in_force(self.table.rates(self.model.rates), input_tokens);
        };
        let at = Moment::of(at);
        let replaced = terms.overrides.iter().rev().find(|it| at.has_reached(it.from) && at.is_within(it.utc));
        let set = replaced.map_or(self.model.rates, |it| it.rates);
        let mut rates = cost::in_force(self.table.rates(set), input_tokens);
        if self.lister == self.asked {
            let variants = terms.variants.iter().filter(|it| at.has_reached(it.from) && self.selects(it, context));
            let mut overlaid = [None; Counter::ALL.len()];
            for variant in variants {
                let more = cost::in_force(self.table.rates(variant.rates), input_tokens);
                overlaid = std::array::from_fn(|counter| overlaid[counter].or(more[counter]));
            }
            rates = std::array::from_fn(|counter| overlaid[counter].or(rates[counter]));
        }
        rates
    }

    fn selects(&self, variant: &Variant, context: &[(&str, &str)]) -> bool {
        let words = &self.table.words;
        variant.context.iter().all(|(key, value)| context.contains(&(words.get(*key), words.get(*value))))
    }
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

/// Whether the expressions of a table are compiled while it is read, to see whether they can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patterns {
    /// They are: a person wrote them.
    Checked,
    /// They are not: a test did.
    Trusted,
}

/// Puts a table together from files, the one on top first.
#[derive(Default)]
pub(super) struct Builder {
    table: Table,
    /// For each provider its place in the last file added, and the ids it falls back to.
    drafts: Vec<Draft>,
    sets: HashMap<Box<[Rate]>, RateSet>,
}

#[derive(Default)]
struct Draft {
    place: Option<usize>,
    fallback: Option<Vec<file::Word>>,
    provider: Provider,
}

impl Builder {
    /// Adds a file below those added before: of a provider known already, its models come after, and whatever else was
    /// not given before.
    ///
    /// # Errors
    ///
    /// Every mistake in a model, or the first one outside of them.
    pub(super) fn add(&mut self, text: &str, patterns: Patterns) -> Result<(), Vec<Mistake>> {
        let table = read_head(text).map_err(|mistake| vec![mistake])?;
        self.table.edition = edition(&table);
        for draft in &mut self.drafts {
            draft.place = None;
        }
        let mut mistakes = Vec::new();
        for (place, provider) in table.providers.into_iter().enumerate() {
            self.add_provider(place, provider, patterns, &mut mistakes);
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn add_provider(&mut self, place: usize, file: file::Provider<'_>, how: Patterns, mistakes: &mut Vec<Mistake>) {
        let at = format!("providers[{place}]");
        if how == Patterns::Checked {
            let names = file.names.iter().flat_map(file::Matcher::patterns);
            check(names.chain(file.url.as_ref().map(file::Word::as_str)), &at, mistakes);
        }
        let known = self.drafts.iter().position(|draft| *draft.provider.id == *file.id.as_str());
        let index = known.unwrap_or_else(|| {
            let provider = Provider { id: file.id.as_str().into(), ..Provider::default() };
            self.drafts.push(Draft { provider, ..Draft::default() });
            self.drafts.len() - 1
        });
        let mut draft = std::mem::take(&mut self.drafts[index]);
        draft.place = Some(place);
        draft.fallback = draft.fallback.or(file.fallback);
        let provider = &mut draft.provider;
        provider.url = provider.url.take().or_else(|| file.url.map(|url| url.as_str().into()));
        if let Some(matcher) = file.names.filter(|_| provider.names.is_empty()) {
            provider.names = self.table.words.tests(&matcher, None);
        }
        for (number, model) in file.models.into_iter().enumerate() {
            let at = format!("{at}.models[{number}]");
            match file::read::<file::Model>(model.get(), &at) {
                Ok(model) => {
                    if how == Patterns::Checked {
                        check(model.r#match.patterns().into_iter(), &format!("{at}.match"), mistakes);
                    }
                    self.add_model(provider, &model);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        self.drafts[index] = draft;
    }

    fn add_model(&mut self, provider: &mut Provider, file: &file::Model) {
        let words = &mut self.table.words;
        let id = words.add(file.id.as_str());
        let model = index(provider.models.len());
        provider.rules.extend(words.tests(&file.r#match, Some(id)).into_iter().map(|test| Rule { test, model }));
        let rates = self.rate_set(&file.rates);
        let terms = self.terms(file).map(Box::new);
        provider.models.push(Model { id, rates, terms, shared_id: OnceLock::new() });
    }

    fn terms(&mut self, file: &file::Model) -> Option<Terms> {
        if file.overrides.is_empty() && file.variants.is_empty() && file.min_audio_seconds == 0 {
            return None;
        }
        let overrides = file.overrides.iter().map(|it| Override {
            from: it.from,
            utc: it.utc.map(|[start, end]| (start.0, end.0)),
            rates: self.rate_set(&it.rates),
        });
        let overrides = overrides.collect();
        let variants = file.variants.iter().map(|it| {
            let words = &mut self.table.words;
            let context =
                it.r#if.iter().map(|(key, value)| (words.add(key.as_str()), words.add(value.as_str()))).collect();
            Variant { context, from: it.from, rates: self.rate_set(&it.rates) }
        });
        Some(Terms { variants: variants.collect(), overrides, min_audio_seconds: file.min_audio_seconds })
    }

    fn rate_set(&mut self, file: &file::Rates) -> RateSet {
        let mut set = Vec::new();
        for (counter, rate) in file {
            let counter = counter.0;
            set.push(Rate { counter, above: None, pico: rate.base.0 });
            set.extend(rate.over.iter().map(|(above, price)| Rate { counter, above: Some(*above), pico: price.0 }));
        }
        let rates = &mut self.table.rates;
        *self.sets.entry(set.into_boxed_slice()).or_insert_with_key(|set| {
            let start = index(rates.len());
            rates.extend_from_slice(set);
            RateSet { start, len: index(set.len()) }
        })
    }

    /// The table: providers that only files on top have come first, the others in the order of the last file.
    ///
    /// # Errors
    ///
    /// Every provider that falls back to one that does not exist.
    pub(super) fn finish(mut self) -> Result<Table, Vec<Mistake>> {
        self.drafts.sort_by_key(|draft| draft.place);
        let mut mistakes = Vec::new();
        let ids: Vec<Box<str>> = self.drafts.iter().map(|draft| draft.provider.id.clone()).collect();
        for draft in self.drafts {
            let mut provider = draft.provider;
            for other in draft.fallback.iter().flatten() {
                match ids.iter().position(|id| **id == *other.as_str()) {
                    Some(position) => provider.fallback.push(position),
                    None => mistakes.push(Mistake {
                        field: format!("fallback of provider {}", provider.id),
                        problem: format!("there is no provider `{}`", other.as_str()),
                    }),
                }
            }
            provider.rules.shrink_to_fit();
            provider.models.shrink_to_fit();
            self.table.providers.push(provider);
        }
        self.table.words.shrink();
        self.table.rates.shrink_to_fit();
        self.table.providers.shrink_to_fit();
        if mistakes.is_empty() { Ok(self.table) } else { Err(mistakes) }
    }
}

/// Everything but the models, checked.
fn read_head(text: &str) -> Result<file::Table<'_>, Mistake> {
    let mistake = |field: &str, problem| Mistake { field: field.to_owned(), problem };
    let version = file::read::<file::Versioned>(text, "")?.schema_version;
    if version != SCHEMA_VERSION {
        let problem = format!("version {version} of the format is not known: write {SCHEMA_VERSION}");
        return Err(mistake("schema_version", problem));
    }
    let table: file::Table<'_> = file::read(text, "")?;
    for (counter, unit) in &table.units {
        let counter = counter.0;
        if unit.per != cost::per(counter) {
            let problem = format!("{} is not what its rates buy: that is {}", unit.per, cost::per(counter));
            return Err(mistake(&format!("units.{}.per", counter.name()), problem));
        }
        if !unit.within.iter().map(|container| &container.0).eq(counter.within()) {
            let names: Vec<_> = counter.within().iter().map(|container| container.name()).collect();
            let problem = format!("it is within {names:?}");
            return Err(mistake(&format!("units.{}.within", counter.name()), problem));
        }
    }
    let models = table.providers.iter().map(|provider| provider.models.len()).sum::<usize>();
    if let Some(said) = table.models.filter(|said| *said != models) {
        return Err(mistake("models", format!("{said} models are announced, but there are {models}")));
    }
    Ok(table)
}

fn edition(table: &file::Table<'_>) -> Edition {
    let time = |day: Day| UNIX_EPOCH + Duration::from_secs(u64::from(day.0) * 86_400);
    let from = table.generated_from.as_ref();
    Edition {
        source: from.map(|from| from.source.as_str().into()).unwrap_or_default(),
        version: from.map(|from| from.version.as_str().into()).unwrap_or_default(),
        published: from.map(|from| time(from.released)),
        as_of: table.as_of.map(time),
    }
}

/// Adds a mistake for every expression that cannot be compiled.
fn check<'a>(patterns: impl Iterator<Item = &'a str>, at: &str, mistakes: &mut Vec<Mistake>) {
    for pattern in patterns {
        if regex(pattern).is_err() {
            let problem = format!("`{pattern}` is not a regular expression");
            mistakes.push(Mistake { field: at.to_owned(), problem });
        }
    }
}

fn index(len: usize) -> u32 {
    u32::try_from(len).expect("a price table has less than 2³² entries")
}
