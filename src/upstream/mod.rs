//! Upstream: the provider's side. One send: DNS, TLS, pool, deadlines, credentials.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// What the operator writes of connections to providers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long name resolution, TCP and TLS may take together.
    pub connect_timeout: Span,
    /// How long a provider may take to begin its answer. Long by default: a model may think for minutes.
    pub first_byte_timeout: Span,
    /// How long a provider may fall silent in the middle of an answer.
    pub idle_timeout: Span,
    /// How long an unused connection is kept for the next call.
    pub pool_idle_timeout: Span,
    /// Most unused connections kept for each provider.
    pub pool_max_idle: usize,
    /// Files of further certificate authorities (PEM) to trust, beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Which proxy leads to the providers: `environment` (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) or
    /// `none`.
    pub proxy: Proxy,
}

/// Which proxy leads to the providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proxy {
    /// As the usual environment variables say.
    Environment,
    /// None, whatever the environment says.
    None,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Span::from_secs(10),
            first_byte_timeout: Span::from_secs(600),
            idle_timeout: Span::from_secs(300),
            pool_idle_timeout: Span::from_secs(60),
            pool_max_idle: 64,
            ca_files: Vec::new(),
            proxy: Proxy::Environment,
        }
    }
}
