//! Price: usage → cost. Which row of the price table a model is, and what its counters cost; no I/O after loading.
//!
//! The table that is compiled in is `prices.json`: rates in US dollars as decimals, of which every figure is kept.
//! Money is counted in whole pico-dollars and rounded once for each counter billed; there are no floats here. What the
//! table does not know has no price, which is not a price of zero.

mod cost;
mod file;
mod matching;
mod table;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::read::GzDecoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::price::table::{Builder, Found, Patterns, Table};
use crate::record::usage::{Charge, Cost, Counter, Unpriced, Usage};

/// What the operator writes of prices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A file in the price table's own format, laid over the built-in table: your negotiated rates, your own models.
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

/// The price table in force.
pub struct Prices {
    table: Table,
    source_name: Box<str>,
}

/// A provider's place in the price table, found once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing is charged.
    Free,
    /// The provider at this position of the table.
    Listed(usize),
    /// The table does not know the provider.
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
    /// What else sets the price: `service_tier`, `speed`, `processing` …, as the reply gave them.
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

impl Prices {
    /// The table that is compiled in.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a test reads the very same bytes")]
    pub fn built_in() -> Self {
        let table = build(None).expect("the built-in price table is read in a test");
        let source_name = table.edition().source.clone();
        Self { table, source_name }
    }

    /// The table that is compiled in, with the operator's file laid on top: the models of a provider both know come
    /// before the built-in ones, so that the first match is the operator's; other providers come before all.
    ///
    /// # Errors
    ///
    /// [`PriceError`] if the file cannot be read or has mistakes, naming each.
    pub fn load(settings: &Settings) -> Result<Self, PriceError> {
        let Some(path) = &settings.overlay else { return Ok(Self::built_in()) };
        let overlay =
            std::fs::read_to_string(path).map_err(|source| PriceError::Unreadable { path: path.clone(), source })?;
        let table = build(Some(&overlay)).map_err(|mistakes| PriceError::Mistaken { path: path.clone(), mistakes })?;
        let source_name = format!("{} + overlay", table.edition().source).into();
        Ok(Self { table, source_name })
    }

    /// The provider with this id in the table, else the first that goes by this name (`bedrock`, `vertex_ai`).
    #[must_use]
    pub fn source_by_id(&self, id: &str) -> Option<Source> {
        self.table.provider_named(id).map(Source::Listed)
    }

    /// The first provider to which this URL belongs. Takes milliseconds: ask at start, not for every call.
    #[must_use]
    pub fn source_by_url(&self, url: &str) -> Option<Source> {
        self.table.provider_at(url).map(Source::Listed)
    }

    /// What a call costs.
    ///
    /// The model that answered counts, else the one asked for. Without usage the model is still named.
    #[must_use]
    pub fn price(&self, question: &Question<'_>) -> Answer {
        let provider = match question.source {
            Source::Free => return Answer { cost: Cost::Known(Charge::default()), model: None },
            Source::Unlisted => return Answer { cost: Cost::Unpriced(Unpriced::NoTable), model: None },
            Source::Listed(provider) => *provider,
        };
        let mut models = [question.response_model, question.request_model].into_iter().flatten();
        let Some(found) = models.find_map(|model| self.table.find(provider, model)) else {
            return Answer { cost: Cost::Unpriced(Unpriced::UnknownModel), model: None };
        };
        let cost = match question.usage {
            Some(usage) => Cost::Known(charge(found, usage, question)),
            None => Cost::Unpriced(Unpriced::NoUsage),
        };
        Answer { cost, model: Some(found.id()) }
    }

    /// The version of the built-in table.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.table.edition().version
    }

    /// Who gathered the prices, and whether an overlay is on top.
    #[must_use]
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// When the built-in table was published.
    #[must_use]
    pub fn published(&self) -> SystemTime {
        self.table.edition().published.unwrap_or(UNIX_EPOCH)
    }

    /// The day (midnight, UTC) up to which the built-in table dropped rates that had been superseded.
    #[must_use]
    pub fn as_of(&self) -> SystemTime {
        self.table.edition().as_of.unwrap_or(UNIX_EPOCH)
    }
}

/// Says which table it is, not what is in it: that is thousands of lines.
impl fmt::Debug for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prices")
            .field("source", &self.source_name)
            .field("version", &self.version())
            .field("providers", &self.table.len())
            .finish_non_exhaustive()
    }
}

/// The charge for `usage` of the model `found`.
fn charge(found: Found<'_>, usage: &Usage, question: &Question<'_>) -> Charge {
    let input_tokens = usage.get(Counter::InputTokens).unwrap_or(0);
    let rates = found.rates(input_tokens, question.at, question.context);
    let bill = cost::bill(&rates, &cost::counts(usage, found.min_audio_seconds()));
    cost::charge(&rates, &bill, usage)
}

/// The built-in table with `overlay` on top.
fn build(overlay: Option<&str>) -> Result<Table, Vec<Mistake>> {
    let mut builder = Builder::default();
    if let Some(overlay) = overlay {
        builder.add(overlay, Patterns::Checked)?;
    }
    builder.add(&built_in_text(), Patterns::Trusted)?;
    builder.finish()
}

fn built_in_text() -> String {
    const COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/prices.json.gz"));
    // The last four bytes are the length: a buffer that grows would take twice as much.
    let len = COMPRESSED.last_chunk().map_or(0, |len| u32::from_le_bytes(*len));
    let mut text = String::with_capacity(len as usize);
    GzDecoder::new(COMPRESSED).read_to_string(&mut text).expect("the build compressed it");
    text
}

fn listed(mistakes: &[Mistake]) -> String {
    mistakes.iter().fold(String::new(), |list, mistake| list + "\n  " + &mistake.to_string())
}

#[cfg(test)]
mod tests;
