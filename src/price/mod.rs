//! Price: usage → cost. Which row of the price table a model is, and what its counters cost.
//!
//! The table that is compiled in is `prices.json`, with `additions.json` for what it lacks: rates in US dollars as
//! decimals, of which every figure is kept. Money is counted in whole pico-dollars and rounded once for each counter
//! billed; there are no floats here. What the table does not know has no price, which is not a price of zero. There is
//! no I/O on the path of a call: an operator's file is read at start, and again beside it when it changes.

mod bounds;
mod builder;
mod cost;
pub mod explain;
mod file;
mod matching;
mod overlay;
mod table;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::coding::unpacked;
use crate::labels::tidy;
use crate::price::builder::Builder;
use crate::price::overlay::Overlay;
use crate::price::table::{Applicable, Found, Origin, Table};
use crate::record::usage::{Charge, Cost, Counter, Unpriced, Usage};

/// What the operator writes of prices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A file in the price table's own format, laid over the built-in table: your negotiated rates, your own models.
    /// Re-read when it changes; a file with mistakes never replaces a good one.
    pub overlay: Option<PathBuf>,
}

/// Why a price table could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// The file could not be read.
    #[error("cannot read the price overlay {path}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is not a price table.
    #[error("the price overlay {path} has mistakes:{list}", path = path.display(), list = listed(mistakes))]
    Mistaken {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        mistakes: Vec<Mistake>,
    },
    /// The operator names a provider that the table does not have.
    #[error("providers.{name}.prices: the price table has no provider `{id}`; write its id there, or `free`")]
    Unlisted {
        /// The provider as the operator calls it.
        name: Box<str>,
        /// The id that the table does not have.
        id: Box<str>,
    },
}

/// A mistake in a table: which field, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The path of the field, such as `providers[0].models[3].rates.input_tokens`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Prices: the table in force, and who is billed by which part of it.
pub struct Prices {
    overlay: Option<Overlay>,
    payees: Vec<Payee>,
    in_force: RwLock<Arc<InForce>>,
    unknown: Mutex<HashSet<(usize, Box<str>)>>,
}

/// A provider as the operator configured it, as far as that sets whose prices apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payee {
    /// The name in the configuration.
    pub name: Box<str>,
    /// Where its calls go.
    pub url: Box<str>,
    /// Whose prices apply, if the operator says.
    pub prices: Whose,
}

/// Whose prices apply to a provider's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Nothing is charged.
    Free,
    /// Those of the table's provider with this id, or that goes by this name.
    Id(Box<str>),
    /// Those of the provider that the table knows by the URL, else by the name.
    Found,
}

/// Whose prices apply to a call. Stays right when the table changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Those of the payee at this position among those that [`Prices`] were loaded with.
    Payee(usize),
    /// Those of the table's provider with this id, or that goes by this name. For questions by hand.
    Id(Box<str>),
}

/// Which price table it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// Who gathered the prices, and whether an overlay is on top.
    pub source: String,
    /// Their version.
    pub version: String,
    /// When they were published.
    pub published: SystemTime,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Providers with a model or an uplift.
    pub providers: usize,
    /// Models.
    pub models: usize,
    /// Uplifts.
    pub uplifts: usize,
}

/// A table, and each payee's place in it.
struct InForce {
    table: Table,
    places: Vec<Place>,
    /// What is odd in the operator's file, but may be meant.
    remarks: Vec<Mistake>,
}

/// A payee's place in one table: positions of its provider, and of its region among the provider's.
#[derive(Clone, Copy)]
enum Place {
    Free,
    Listed { provider: usize, region: Option<usize> },
    Unlisted,
}

/// A call to be priced.
#[derive(Debug)]
pub struct Question<'a> {
    /// Whose prices apply.
    pub source: &'a Source,
    /// The model that answered, if it said so: tried first.
    pub response_model: Option<&'a str>,
    /// The model asked for: tried next.
    pub request_model: Option<&'a str>,
    /// What was used; `None` if it was not reported.
    pub usage: Option<&'a Usage>,
    /// What else sets the price: `service_tier`, `speed`, `processing`, `inference_geo`, as the reply gave them. The
    /// payee's `region` is added by itself.
    pub context: &'a [(&'a str, &'a str)],
    /// When the call began.
    pub at: SystemTime,
}

/// What is known of a call's price.
#[derive(Debug)]
pub struct Answer {
    /// The cost, or why it is unknown.
    pub cost: Cost,
    /// The table's id of the model, if it knows it.
    pub model: Option<Arc<str>>,
}

/// How many models without a price are ever named in the log.
const MOST_UNKNOWN_NAMED: usize = 1000;

impl Prices {
    /// The table that is compiled in, with the operator's file, if there is one, laid on top: the models of a provider
    /// both know come before the built-in ones, so that the first match is the operator's; other providers come before
    /// all.
    ///
    /// # Errors
    ///
    /// [`PriceError`] if the file cannot be read or has mistakes, naming each, or if a payee is to be billed by a
    /// provider that is in neither.
    pub fn load(settings: &Settings, payees: Vec<Payee>) -> Result<Self, PriceError> {
        let (overlay, text) = match &settings.overlay {
            Some(path) => {
                let (overlay, text) = Overlay::open(path)?;
                (Some(overlay), Some(text))
            }
            None => (None, None),
        };
        let in_force = InForce::new(settings.overlay.as_deref().zip(text.as_deref()), &payees)?;
        Ok(Self { overlay, payees, in_force: RwLock::new(Arc::new(in_force)), unknown: Mutex::default() })
    }

    /// Each payee's source, in the order in which they were given.
    pub fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        (0..self.payees.len()).map(Source::Payee)
    }

    /// Whose prices apply to the calls of a provider of this name: the payee's who is called so, else those of the table's
    /// provider with this id, or that goes by this name.
    #[must_use]
    pub fn source_of(&self, name: &str) -> Source {
        let payee = self.payees.iter().position(|payee| *payee.name == *name);
        payee.map_or_else(|| Source::Id(name.into()), Source::Payee)
    }

    /// Whether `source` has a model of this name.
    #[must_use]
    pub fn knows(&self, source: &Source, model: &str) -> bool {
        let in_force = self.in_force();
        matches!(in_force.place(source), Place::Listed { provider, .. } if in_force.table.find(provider, model).is_some())
    }

    /// Whether anything is known of what `source` charges.
    #[must_use]
    pub fn is_listed(&self, source: &Source) -> bool {
        !matches!(self.in_force().place(source), Place::Unlisted)
    }

    /// What a call costs.
    ///
    /// The model that answered counts, else the one asked for. Without usage the model is still named.
    #[must_use]
    pub fn price(&self, question: &Question<'_>) -> Answer {
        self.in_force().price(question)
    }

    /// Names a model in the log, for it has no price: once, and no more than so many of them.
    pub fn name_unknown(&self, source: &Source, model: &str) {
        let Source::Payee(position) = source else { return };
        let model = tidy(model);
        if let Some(payee) = self.payees.get(*position).filter(|_| self.is_news(*position, &model)) {
            tracing::warn!(
                weir.provider = %payee.name,
                weir.model = %model,
                "the price table does not know this model: calls to it are unpriced until `prices.overlay` lists it"
            );
        }
    }

    /// Whether this model of this payee has not been named before, and there is room to remember that it was.
    fn is_news(&self, payee: usize, model: &str) -> bool {
        let mut named = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        named.len() < MOST_UNKNOWN_NAMED && named.insert((payee, model.into()))
    }

    /// Which table is in force.
    #[must_use]
    pub fn edition(&self) -> Edition {
        let in_force = self.in_force();
        let table::Edition { source, version, published, is_overlaid } = &in_force.table.edition;
        Edition {
            source: if *is_overlaid { format!("{source} + overlay") } else { source.to_string() },
            version: version.to_string(),
            published: published.unwrap_or(UNIX_EPOCH),
        }
    }

    /// How much of the table comes from the operator's file.
    #[must_use]
    pub fn overlay_size(&self) -> Size {
        let in_force = self.in_force();
        let counts = in_force.table.providers.iter().map(|provider| {
            let models = provider.models.iter().filter(|model| model.origin == Origin::Overlay).count();
            let uplifts = provider.uplifts.iter().filter(|uplift| uplift.origin == Origin::Overlay).count();
            Size { providers: usize::from(models + uplifts > 0), models, uplifts }
        });
        counts.fold(Size::default(), |sum, it| Size {
            providers: sum.providers + it.providers,
            models: sum.models + it.models,
            uplifts: sum.uplifts + it.uplifts,
        })
    }

    /// What is odd in the operator's file, but may be meant.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.in_force().remarks.iter().map(ToString::to_string).collect()
    }

    fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&*self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on `fresh` is in force; calls that are being priced end with the table they began with.
    fn replace(&self, fresh: InForce) {
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        // What the new table does not know either is worth a line again.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Says which table it is, not what is in it: that is thousands of lines.
impl fmt::Debug for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prices").field("edition", &self.edition()).field("payees", &self.payees).finish_non_exhaustive()
    }
}

impl InForce {
    fn new(overlay: Option<(&Path, &str)>, payees: &[Payee]) -> Result<Self, PriceError> {
        let (table, remarks) = match overlay {
            None => beneath(Builder::default()).finish().expect(WHOLE),
            Some((path, text)) => {
                overlaid(text).map_err(|mistakes| PriceError::Mistaken { path: path.to_owned(), mistakes })?
            }
        };
        let places = payees.iter().map(|payee| place(&table, payee)).collect::<Result<_, _>>()?;
        Ok(Self { table, places, remarks })
    }

    fn place(&self, source: &Source) -> Place {
        match source {
            Source::Payee(position) => self.places.get(*position).copied().unwrap_or(Place::Unlisted),
            Source::Id(id) => self
                .table
                .provider_named(id)
                .map_or(Place::Unlisted, |provider| Place::Listed { provider, region: None }),
        }
    }

    fn price(&self, question: &Question<'_>) -> Answer {
        let unpriced = |reason| Answer { cost: Cost::Unpriced(reason), model: None };
        let (provider, region) = match self.place(question.source) {
            Place::Free => return Answer { cost: Cost::Known(Charge::default()), model: None },
            Place::Unlisted => return unpriced(Unpriced::NoTable),
            Place::Listed { provider, region } => (provider, region),
        };
        let Some(found) = self.find(provider, question) else { return unpriced(Unpriced::UnknownModel) };
        let charge = question.usage.and_then(|usage| {
            let context = self.context(provider, region, question.context);
            charge(&found, &found.applicable(question.at, &context), usage)
        });
        let cost = charge.map_or(Cost::Unpriced(Unpriced::NoUsage), Cost::Known);
        Answer { cost, model: Some(found.id()) }
    }

    /// The model that answered, else the one asked for.
    fn find(&self, provider: usize, question: &Question<'_>) -> Option<Found<'_>> {
        let mut models = [question.response_model, question.request_model].into_iter().flatten();
        models.find_map(|model| self.table.find(provider, model))
    }

    /// The context of a call to `provider`, with the payee's region where it has prices of its own.
    fn context<'a>(&'a self, provider: usize, region: Option<usize>, context: &'a [(&str, &str)]) -> Context<'a> {
        let Some(region) = region else { return Cow::Borrowed(context) };
        let region = &*self.table.providers[provider].regions[region].0;
        Cow::Owned(context.iter().copied().chain([("region", region)]).collect())
    }
}

type Context<'a> = Cow<'a, [(&'a str, &'a str)]>;

/// The charge for `usage` of the model `found`, of whose terms this holds; `None` if it counts nothing that the model is
/// billed by.
fn charge(found: &Found<'_>, applicable: &Applicable<'_>, usage: &Usage) -> Option<Charge> {
    let rates = applicable.rates(usage.get(Counter::InputTokens).unwrap_or(0));
    let bill = cost::bill(&rates, &cost::counts(usage, found.min_audio_seconds()));
    cost::is_measured(&rates, usage).then(|| cost::charge(&rates, &bill, usage))
}

/// Where `payee` stands in `table`: as the operator says, else by URL, else by name.
fn place(table: &Table, payee: &Payee) -> Result<Place, PriceError> {
    let provider = match &payee.prices {
        Whose::Free => return Ok(Place::Free),
        Whose::Id(id) => Some(
            table
                .provider_named(id)
                .ok_or_else(|| PriceError::Unlisted { name: payee.name.clone(), id: id.clone() })?,
        ),
        Whose::Found => table.provider_at(&payee.url).or_else(|| table.provider_named(&payee.name)),
    };
    Ok(provider
        .map_or(Place::Unlisted, |provider| Place::Listed { provider, region: table.region_at(provider, &payee.url) }))
}

/// The operator's file on top of the built-in table, and what in it is odd but may be meant.
fn overlaid(text: &str) -> Result<(Table, Vec<Mistake>), Vec<Mistake>> {
    let (built_in, _) = beneath(Builder::default()).finish().expect(WHOLE);
    let mut builder = Builder::default();
    builder.add_checked(text, &built_in)?;
    drop(built_in);
    beneath(builder).finish()
}

/// Why the tables that are compiled in can be relied on.
const WHOLE: &str = "a test reads the very same bytes";

/// The built-in table, and above it what it lacks, below what `builder` has already.
fn beneath(mut builder: Builder) -> Builder {
    builder.add(ADDITIONS, Origin::Additions).expect(WHOLE);
    builder.add(&built_in_text(), Origin::BuiltIn).expect(WHOLE);
    builder
}

/// What the built-in table lacks: see docs/prices.md.
const ADDITIONS: &str = include_str!("additions.json");

fn built_in_text() -> String {
    unpacked(include_bytes!(concat!(env!("OUT_DIR"), "/prices.json.gz")))
}

fn listed(mistakes: &[Mistake]) -> String {
    mistakes.iter().fold(String::new(), |list, mistake| list + "\n  " + &mistake.to_string())
}

#[cfg(test)]
mod tests;
