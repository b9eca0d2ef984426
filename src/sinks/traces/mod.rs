//! Traces: a finished record → spans → a collector, in the OpenTelemetry protocol.
//!
//! While a call is under way there are no spans, only the ids of those to come. They are made when its record is there,
//! and put into one bounded queue; what is too much for it is counted and lost. Everything that can wait, fail or take
//! long is behind that queue: no call knows whether there is a collector.

pub mod plan;
pub mod sampling;

#[cfg(feature = "otlp")]
mod export;
#[cfg_attr(not(feature = "otlp"), path = "absent.rs")]
pub mod queue;
#[cfg(feature = "otlp")]
mod spans;
#[cfg(feature = "otlp")]
mod transport;

use std::path::PathBuf;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Share;

/// What the operator writes of traces. The standard variables (`OTEL_…`) go before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where spans are sent, such as `http://127.0.0.1:4318` (docs/traces.md). Traces are off without it, and without
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
    pub endpoint: Option<String>,
    /// How they are sent: `http/protobuf`, to `/v1/traces` below the endpoint, or `grpc`.
    pub protocol: Protocol,
    /// A file of header fields to send with them, one `name: value` a line: for a collector that wants a credential. Read
    /// at the start.
    pub headers_file: Option<PathBuf>,
    /// A file of certificate authorities (PEM) to trust when they are sent, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// `service.name`: what the app is called in traces.
    pub service_name: String,
    /// The share of calls whose spans are kept, of those that come without a context of the app's: that decides for its
    /// own.
    pub sample_ratio: Share,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::HttpProtobuf,
            headers_file: None,
            ca_file: None,
            service_name: "weir".to_owned(),
            sample_ratio: Share::percent(100),
        }
    }
}

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// OTLP over HTTP, in protobuf.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// OTLP over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// How the queue of spans stands, and what became of those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Spans that the collector has taken.
    pub exported: u64,
    /// Spans that there was no room for.
    pub queue_full: u64,
    /// Spans that the collector did not take.
    pub export_failed: u64,
    /// Spans that wait.
    pub length: u64,
    /// Most spans that can wait.
    pub capacity: u64,
    /// When the collector last took some; `None` if it never has.
    pub last_taken: Option<SystemTime>,
    /// Whether it did not take what it was sent last.
    pub is_failing: bool,
}
