//! Sinks: where a finished record goes. Never slows a call.

pub mod log;
pub mod metrics;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator writes of telemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Metrics.
    pub metrics: metrics::Settings,
    /// Log lines, on standard error.
    pub log: log::Settings,
}
