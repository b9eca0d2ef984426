//! Price: usage → cost. Which row of the price table a model is, and what its counters cost; no I/O after loading.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::usage::{Cost, Usage};

/// What the operator writes of prices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A file in the price table's own format, laid over the built-in table: your negotiated rates, your own models.
    pub overlay: Option<PathBuf>,
}

/// The price table in force.
#[derive(Debug)]
pub struct Prices;

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
