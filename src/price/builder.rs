//! Builder: puts a table together from files, the one on top first, and finds what is wrong in one that a person wrote.
//!
//! Knows how files are laid over each other; not how a table is searched.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use crate::price::bounds::Bounds;
use crate::price::cost::{self, Rate};
use crate::price::file::{self, Day, SCHEMA_VERSION};
use crate::price::matching::regex;
use crate::price::table::{Edition, Model, Origin, Override, Provider, RateSet, Rule, Table, Terms, Uplift, Variant};
use crate::price::{Mistake, table};

/// Puts a table together.
#[derive(Default)]
pub(super) struct Builder {
    table: Table,
    drafts: Vec<Draft>,
    sets: BTreeMap<Box<[Rate]>, RateSet>,
    /// What is odd, but may be meant.
    remarks: Vec<Mistake>,
}

/// A provider, its place in the last file added, and the ids it falls back to.
#[derive(Default)]
struct Draft {
    place: Option<usize>,
    fallback: Option<Vec<file::Word>>,
    provider: Provider,
}

/// How a file is read: where it comes from, and, if a person wrote it, what its rates are held against.
#[derive(Clone, Copy)]
struct Manner<'a> {
    origin: Origin,
    bounds: Option<Bounds<'a>>,
}

impl Builder {
    /// Adds a file of weir's own below those added before: of a provider known already, its models come after, and
    /// whatever else was not given before. A test has checked it.
    ///
    /// # Errors
    ///
    /// Every model with a mistake, or the first mistake outside of them.
    pub(super) fn add(&mut self, text: &str, origin: Origin) -> Result<(), Vec<Mistake>> {
        self.add_as(text, Manner { origin, bounds: None })
    }

    /// Adds the operator's file, likewise. `built_in` is what its rates are held against.
    ///
    /// # Errors
    ///
    /// Every model with a mistake, or the first mistake outside of them.
    pub(super) fn add_checked(&mut self, text: &str, built_in: &Table) -> Result<(), Vec<Mistake>> {
        self.add_as(text, Manner { origin: Origin::Overlay, bounds: Some(Bounds::of(built_in)) })
    }

    fn add_as(&mut self, text: &str, manner: Manner<'_>) -> Result<(), Vec<Mistake>> {
        let table = read_head(text).map_err(|mistake| vec![mistake])?;
        self.say_edition(&table, manner.origin);
        for draft in &mut self.drafts {
            draft.place = None;
        }
        let mut mistakes = Vec::new();
        if manner.bounds.is_some() {
            let ids = table.providers.iter().map(|provider| provider.id.as_str());
            twice(ids.enumerate(), "providers", &mut mistakes);
        }
        for (place, provider) in table.providers.into_iter().enumerate() {
            self.add_provider(place, provider, manner, &mut mistakes);
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// The topmost file that says where it comes from gives the table its version.
    fn say_edition(&mut self, file: &file::Table<'_>, origin: Origin) {
        let time = |day: Day| UNIX_EPOCH + Duration::from_secs(u64::from(day.0) * 86_400);
        let edition = &mut self.table.edition;
        edition.is_overlaid |= origin == Origin::Overlay;
        let Some(from) = file.generated_from.as_ref().filter(|_| edition.published.is_none()) else { return };
        *edition = Edition {
            source: from.source.as_str().into(),
            version: from.version.as_str().into(),
            published: Some(time(from.released)),
            is_overlaid: edition.is_overlaid,
        };
    }

    fn add_provider(&mut self, place: usize, file: file::Provider<'_>, manner: Manner<'_>, out: &mut Vec<Mistake>) {
        let at = format!("providers[{place}]");
        if manner.bounds.is_some() {
            check_provider(&file, &at, out);
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
        provider.urls.extend(file.url.map(|url| url.as_str().into()));
        if let Some(matcher) = file.names.filter(|_| provider.names.is_empty()) {
            provider.names = self.table.words.tests(&matcher, None);
        }
        let regions = file.regions.iter().map(|(name, url)| (name.as_str().into(), url.as_str().into()));
        provider.regions.extend(regions);
        for uplift in file.uplifts {
            let known = provider.uplifts.iter().any(|known| self.table.words.get(known.id) == uplift.id.as_str());
            if !known {
                let uplift = self.uplift(&uplift, manner.origin);
                provider.uplifts.push(uplift);
            }
        }
        let mut ids = Vec::new();
        for (number, model) in file.models.into_iter().enumerate() {
            let at = || format!("{at}.models[{number}]");
            match file::read::<file::Model>(model.get(), at) {
                Ok(model) => {
                    if let Some(bounds) = manner.bounds {
                        let at = at();
                        check(model.r#match.patterns().into_iter(), &format!("{at}.match"), out);
                        self.remarks.extend(bounds.check(&provider.id, &model, &at, out));
                    }
                    self.add_model(provider, &model, manner.origin);
                    ids.push((number, model.id));
                }
                Err(mistake) => out.push(mistake),
            }
        }
        if manner.bounds.is_some() {
            twice(ids.iter().map(|(number, id)| (*number, id.as_str())), &format!("{at}.models"), out);
        }
        self.drafts[index] = draft;
    }

    fn add_model(&mut self, provider: &mut Provider, file: &file::Model, origin: Origin) {
        let words = &mut self.table.words;
        let id = words.add(file.id.as_str());
        let model = index(provider.models.len());
        provider.rules.extend(words.tests(&file.r#match, Some(id)).into_iter().map(|test| Rule { test, model }));
        let rates = self.rate_set(&file.rates);
        let terms = self.terms(file).map(Box::new);
        provider.models.push(Model { id, rates, terms, origin, shared_id: OnceLock::new() });
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
        let variants = file.variants.iter().map(|it| Variant {
            context: self.context(&it.r#if),
            from: it.from,
            rates: self.rate_set(&it.rates),
        });
        Some(Terms { variants: variants.collect(), overrides, min_audio_seconds: file.min_audio_seconds })
    }

    fn uplift(&mut self, file: &file::Uplift, origin: Origin) -> Uplift {
        let context = self.context(&file.r#if);
        let words = &mut self.table.words;
        Uplift {
            id: words.add(file.id.as_str()),
            context,
            models: file.r#match.as_ref().map(|matcher| words.tests(matcher, None)),
            from: file.from,
            derive: file.derive.iter().map(|(counter, of)| (counter.0, of.0)).collect(),
            factor: file.factor.0,
            origin,
        }
    }

    fn context(&mut self, file: &BTreeMap<file::Word, file::Word>) -> table::Context {
        let words = &mut self.table.words;
        file.iter().map(|(key, value)| (words.add(key.as_str()), words.add(value.as_str()))).collect()
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

    /// The table, and what in it is odd but may be meant. Providers that only files on top have come first, the others
    /// in the order of the last file.
    ///
    /// # Errors
    ///
    /// Every provider that falls back to one that does not exist.
    pub(super) fn finish(mut self) -> Result<(Table, Vec<Mistake>), Vec<Mistake>> {
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
        if mistakes.is_empty() { Ok((self.table, self.remarks)) } else { Err(mistakes) }
    }
}

/// Everything but the models, checked.
fn read_head(text: &str) -> Result<file::Table<'_>, Mistake> {
    let mistake = |field: &str, problem| Mistake { field: field.to_owned(), problem };
    let known = |version: u32| {
        if version == SCHEMA_VERSION {
            return Ok(());
        }
        Err(mistake("schema_version", format!("version {version} of the format is not known: write {SCHEMA_VERSION}")))
    };
    let table: file::Table<'_> = file::read(text, String::new).or_else(|unread| {
        // Of another version, what is wrong with it is that.
        known(file::read::<file::Versioned>(text, String::new)?.schema_version)?;
        Err(unread)
    })?;
    known(table.schema_version)?;
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

/// Adds what is wrong with a provider apart from its models.
fn check_provider(file: &file::Provider<'_>, at: &str, mistakes: &mut Vec<Mistake>) {
    let names = file.names.iter().flat_map(file::Matcher::patterns);
    let urls = file.url.iter().chain(file.regions.values()).map(file::Word::as_str);
    check(names.chain(urls), at, mistakes);
    let uplifts = format!("{at}.uplifts");
    for (number, uplift) in file.uplifts.iter().enumerate() {
        let patterns = uplift.r#match.iter().flat_map(file::Matcher::patterns);
        check(patterns, &format!("{uplifts}[{number}].match"), mistakes);
    }
    twice(file.uplifts.iter().map(|uplift| uplift.id.as_str()).enumerate(), &uplifts, mistakes);
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

/// Adds a mistake for every id that another one of the same list has already.
fn twice<'a>(ids: impl Iterator<Item = (usize, &'a str)>, at: &str, mistakes: &mut Vec<Mistake>) {
    let mut first = BTreeMap::new();
    for (number, id) in ids {
        if let Some(before) = first.insert(id, number) {
            let problem = format!("`{id}` is the id of {at}[{before}] already: give it another, or remove one of them");
            mistakes.push(Mistake { field: format!("{at}[{number}].id"), problem });
        }
    }
}

fn index(len: usize) -> u32 {
    u32::try_from(len).expect("a price table has less than 2³² entries")
}
