//! Metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator writes of metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most series ever exposed. When it is reached, new label values count as `other`; what exists goes on.
    pub max_series: usize,
    /// Most models ever named by a label; later ones count as `other`.
    pub max_models: usize,
    /// Most agents ever named by a label; later ones count as `other`.
    pub max_agents: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_series: 10_000, max_models: 64, max_agents: 50 }
    }
}
