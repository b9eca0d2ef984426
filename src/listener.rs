//! Listener: the app's side. Accepts connections, speaks HTTP/1.1 and HTTP/2 with prior knowledge, and lets go of
//! those that stall or idle.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// What the operator writes of the app's connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long an app may take to send a request's head once it has begun.
    pub header_timeout: Span,
    /// How long a connection may stay open without a request. Keep it longer than the app's own pool does, so that
    /// weir is never the one to close a connection the app is about to use.
    pub idle_timeout: Span,
    /// Most connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// How long calls in progress may go on once weir is told to stop.
    pub drain_timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_timeout: Span::from_secs(30),
            idle_timeout: Span::from_secs(600),
            max_connections: 4096,
            drain_timeout: Span::from_secs(25),
        }
    }
}
