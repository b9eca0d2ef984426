//! Ledger: every call that is over, one row each, in an embedded `SQLite`; on disk and bounded, or in memory.
//!
//! One thread writes; calls hand their entries over and go on, whatever becomes of the disk. Questions are answered from
//! sums by hour and by day where they can be. Knows records; no wire format, no HTTP.

pub mod content;
pub mod entry;
#[cfg(feature = "ledger")]
pub mod erase;
#[cfg(feature = "ledger")]
pub mod filter;
#[cfg(feature = "ledger")]
pub mod home;
#[cfg(feature = "ledger")]
pub mod insert;
#[cfg(feature = "ledger")]
pub mod open;
#[cfg(feature = "ledger")]
pub mod packed;
#[cfg(feature = "ledger")]
pub mod page;
#[cfg(feature = "ledger")]
pub mod people;
#[cfg(feature = "ledger")]
pub mod percentiles;
#[cfg(feature = "ledger")]
pub mod questions;
#[cfg(feature = "ledger")]
pub mod reader;
#[cfg(feature = "ledger")]
pub mod row;
#[cfg(feature = "ledger")]
pub mod sums;
#[cfg(feature = "ledger")]
pub mod totals;
#[cfg(feature = "ledger")]
pub mod upkeep;
#[cfg(feature = "ledger")]
pub mod walk;
#[cfg(feature = "ledger")]
pub mod window;
#[cfg_attr(not(feature = "ledger"), path = "absent.rs")]
pub mod writer;

#[cfg(all(test, feature = "ledger"))]
mod naive;
#[cfg(feature = "ledger")]
mod names;
#[cfg(feature = "ledger")]
mod seal;
#[cfg(all(test, feature = "ledger"))]
mod specimens;
#[cfg(all(test, feature = "ledger"))]
mod tests;
#[cfg(feature = "ledger")]
mod trouble;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

#[cfg(feature = "ledger")]
use crate::ledger::entry::Micros;

/// A minute, which sums of all calls are made by.
#[cfg(feature = "ledger")]
pub const MINUTE: Micros = 60 * 1_000_000;
/// An hour, which sums are made by.
#[cfg(feature = "ledger")]
pub const HOUR: Micros = 60 * MINUTE;
/// A day (UTC), which sums are made by.
#[cfg(feature = "ledger")]
pub const DAY: Micros = 24 * HOUR;

/// The first moment of the period of this length that `at` is in.
#[cfg(feature = "ledger")]
#[must_use]
pub const fn start_of(grain: Micros, at: Micros) -> Micros {
    at.saturating_sub(at.rem_euclid(grain))
}

/// The smallest ledger that there may be.
pub const LEAST_BYTES: ByteSize = ByteSize::mib(1);

/// What the operator writes of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where every call is written down: `disk` (the file `ledger.db` in `state_dir`), `memory` (gone with the process),
    /// or `off`.
    pub mode: Mode,
    /// How long a call stays. Sums by hour and by day stay as long as there is room.
    pub retention: Span,
    /// Most bytes on disk, or in memory. When it is reached, the oldest calls go, then the oldest sums.
    pub max_bytes: ByteSize,
    /// The same where the ledger is in memory, whether that was asked for or there is no place on disk.
    pub memory_max_bytes: ByteSize,
    /// Most calls that wait to be written. Further ones are not written down, and counted.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Disk,
            retention: Span::from_secs(Duration::from_hours(30 * 24).as_secs()),
            max_bytes: ByteSize::mib(1024),
            memory_max_bytes: ByteSize::mib(64),
            queue: 10_000,
        }
    }
}

/// How a ledger stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Calls written since the start.
    pub written: u64,
    /// Calls lost since the start, because too many waited.
    pub queue_full: u64,
    /// Calls lost since the start, because they could not be written.
    pub io_error: u64,
    /// Calls written since the start without what was said in them, because too much of that waited.
    pub content_full: u64,
    /// Calls that wait.
    pub length: u64,
    /// How many may wait.
    pub capacity: u64,
    /// Bytes on disk, or in memory.
    pub size_bytes: u64,
    /// Files that were found damaged since the start, and set aside.
    pub damaged: u64,
}

/// Where a ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In a file.
    #[default]
    Disk,
    /// In memory: for trying, and for where nothing may be written.
    Memory,
    /// Nowhere.
    Off,
}
