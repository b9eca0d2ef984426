//! weir: a sidecar that proxies, caches, prices and measures an app's LLM calls.
//!
//! ARCHITECTURE.md is the map of this crate: rooms, floors, and which may know which. Nothing is re-exported here, so
//! that every dependency between rooms is visible as a `use crate::room::Item` to a reader and to
//! `tests/architecture.rs`.

pub mod admin;
pub mod allowance;
pub mod app;
pub mod cache;
pub mod cli;
pub mod coding;
pub mod config;
pub mod door;
pub mod exchange;
#[cfg(feature = "ledger")]
pub mod export;
pub mod fleet;
pub mod frames;
pub mod host;
pub mod inject;
#[cfg(feature = "inject")]
pub mod injector;
pub mod json;
pub mod labels;
pub mod ledger;
pub mod limits;
pub mod listener;
pub mod pattern;
pub mod price;
pub mod privacy;
pub mod provider;
pub mod record;
pub mod redact;
pub mod runs;
pub mod secret;
pub mod seldom;
pub mod semconv;
pub mod simulator;
pub mod sinks;
pub mod state;
pub mod store;
pub mod tokens;
pub mod units;
pub mod upstream;
pub mod warm;
#[cfg(feature = "ledger")]
pub mod whatif;
pub mod yaml;
