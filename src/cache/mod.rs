//! Cache: what may be stored, under which key, for how long. Sees keys and responses; not providers, not prices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

/// What the operator writes of the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is cached: `all` that may be, or nothing (`off`).
    pub mode: Mode,
    /// How long a stored answer may serve.
    pub ttl: Span,
    /// Most answers held.
    pub max_entries: u64,
    /// Most memory held by answers.
    pub max_bytes: ByteSize,
    /// The largest answer worth storing.
    pub max_entry_bytes: ByteSize,
}

/// What is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All that may be.
    All,
    /// Nothing.
    Off,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::All,
            ttl: Span::from_secs(3600),
            max_entries: 10_000,
            max_bytes: ByteSize::mib(64),
            max_entry_bytes: ByteSize::mib(1),
        }
    }
}
