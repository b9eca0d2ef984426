//! The whole house: real weir on port 0, a scripted provider behind it, a plain client before it. One file per
//! promise.

#![expect(clippy::float_cmp, reason = "counters of whole things are exact")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(feature = "ledger")]
mod analytics;
mod bedrock;
mod cache_admin;
mod caching;
mod cardinality;
mod costs;
mod cross_mode;
mod custom_metrics;
mod descriptors;
mod ended_early;
mod estimates;
mod faults;
mod fleet;
mod flights;
mod google;
mod hostile;
mod hostile_admin;
mod hostile_bodies;
mod hostile_echoes;
mod hostile_http1;
mod hostile_http2;
mod hostile_paths;
mod hostile_replies;
mod hostile_sockets;
mod isolation;
#[cfg(feature = "ledger")]
mod ledger;
mod limits;
mod limits_admin;
mod limits_survive;
mod live;
mod loops;
#[cfg(feature = "ledger")]
mod matrix;
mod measured;
mod memory_limit;
#[cfg(feature = "otlp")]
mod otlp_metrics;
mod overload;
mod pod_life;
mod pricing;
#[cfg(all(feature = "otlp", feature = "parquet"))]
mod privacy;
mod proxying;
mod reaching;
mod realtime;
mod recording;
mod reload;
mod resilience;
mod schedules;
#[cfg(feature = "redis")]
mod shared_limits;
#[cfg(feature = "redis")]
mod shared_store;
mod shutdown;
mod similar;
#[cfg(feature = "ledger")]
mod strained;
mod streaming;
mod support;
#[cfg(feature = "otlp")]
mod traces;
mod vendors;
mod warming;
mod wire;
