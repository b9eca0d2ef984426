//! Exchange: the corridor, and the only place that knows the order of things. One request in, one response out, one
//! record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

/// What the operator writes of how calls are handled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What becomes of the upstream call when the app hangs up: `cancel` it, or `drain` it to learn the bill.
    pub on_disconnect: OnDisconnect,
    /// How long a call goes on for its bill alone, with `on_disconnect: drain`.
    pub drain_timeout: Span,
    /// The largest request body read; a larger one streams straight through, counted and timed but not read.
    pub max_request_bytes: ByteSize,
    /// The largest unstreamed reply, and the largest event of a streamed one, read for its usage.
    pub max_reply_bytes: ByteSize,
    /// Whether answers carry weir's own headers: `X-Cache`, `Age`, `Cache-Status`, `X-Weir-Request-Id`.
    pub response_headers: bool,
    /// Which request headers say who asks.
    pub identity: Identity,
}

/// What becomes of the upstream call when the app hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It ends too.
    Cancel,
    /// It goes on, within `drain_timeout`, so that its usage is known.
    Drain,
}

/// Which request headers say who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Keeps cached answers apart.
    pub namespace_header: String,
    /// The workspace.
    pub workspace_header: String,
    /// The end user. Without it, the body's own user field counts.
    pub user_header: String,
    /// The agent.
    pub agent_header: String,
    /// The kind of agent loop.
    pub loop_header: String,
    /// The run of a loop.
    pub run_header: String,
    /// Whether these headers go on to the provider.
    pub forward: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            on_disconnect: OnDisconnect::Cancel,
            drain_timeout: Span::from_secs(60),
            max_request_bytes: ByteSize::mib(8),
            max_reply_bytes: ByteSize::mib(8),
            response_headers: true,
            identity: Identity::default(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            namespace_header: "X-Cache-Namespace".to_owned(),
            workspace_header: "X-Workspace-ID".to_owned(),
            user_header: "X-User-ID".to_owned(),
            agent_header: "X-Agent-ID".to_owned(),
            loop_header: "X-Loop-Type".to_owned(),
            run_header: "X-Run-ID".to_owned(),
            forward: false,
        }
    }
}
