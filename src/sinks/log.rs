//! Log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator writes of log lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How lines look: `json`, `text`, or `auto` (text on a terminal, JSON elsewhere).
    pub format: Format,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a `tracing` filter such as `weir=debug,hyper=warn`.
    pub level: String,
    /// Which calls get a line of their own: `all`, `failed` or `none`.
    pub calls: Calls,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".to_owned(), calls: Calls::All }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Which calls get a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Calls {
    /// Every call.
    All,
    /// Those that did not end well.
    Failed,
    /// None.
    None,
}
