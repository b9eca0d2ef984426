//! Reloads: files that weir reads again while it runs, and whether what is in them now is in force. Knows no file, and not
//! why one cannot be used: whoever reads it tells what came of it, and the log says why.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::secret::Reread;
use crate::semconv;
use crate::sinks::now::write;

/// All files that are read again.
#[derive(Debug)]
pub(super) struct Reloads {
    /// Those of which something older is in force.
    failing: AtomicUsize,
    taken: AtomicU64,
    refused: AtomicU64,
    /// Milliseconds since 1970 began.
    taken_at: AtomicU64,
    /// Whether something of the configuration waits for a restart.
    pub(super) restart_needed: AtomicBool,
}

/// One of them.
#[derive(Debug)]
pub struct WatchedFile {
    all: Arc<Reloads>,
    is_failing: AtomicBool,
}

impl WatchedFile {
    /// A file that has been read, and is in force.
    pub(super) fn new(all: &Arc<Reloads>) -> Self {
        Self { all: Arc::clone(all), is_failing: AtomicBool::new(false) }
    }

    /// It was read again, and this came of it.
    pub fn reread(&self, came: Reread) {
        let (all, fails) = (&self.all, came == Reread::Refused);
        match (self.is_failing.swap(fails, Ordering::Relaxed), fails) {
            (false, true) => all.failing.fetch_add(1, Ordering::Relaxed),
            (true, false) => all.failing.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => 0,
        };
        match came {
            Reread::Taken => {
                all.taken.fetch_add(1, Ordering::Relaxed);
                all.taken_at.store(milliseconds(SystemTime::now()), Ordering::Relaxed);
            }
            Reread::Refused => {
                all.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One that nobody reads any more does not keep an older one in force.
impl Drop for WatchedFile {
    fn drop(&mut self) {
        if *self.is_failing.get_mut() {
            self.all.failing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Reloads {
    /// All that was read at the start is in force.
    pub(super) fn new(started_at: SystemTime) -> Self {
        Self {
            failing: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            taken_at: AtomicU64::new(milliseconds(started_at)),
            restart_needed: AtomicBool::new(false),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a timestamp is a float; milliseconds stay below 2⁵³")]
    pub(super) fn write_all(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all_are_good = self.failing.load(Ordering::Relaxed) == 0;
        let taken_at = self.taken_at.load(Ordering::Relaxed) as f64 / 1e3;
        write(encoder, &semconv::CONFIG_SUCCESSFUL, [([], ConstGauge::new(u64::from(all_are_good)))])?;
        write(encoder, &semconv::CONFIG_SUCCESS_TIMESTAMP, [([], ConstGauge::new(taken_at))])?;
        let restart_needed = u64::from(self.restart_needed.load(Ordering::Relaxed));
        write(encoder, &semconv::CONFIG_RESTART_NEEDED, [([], ConstGauge::new(restart_needed))])?;
        let results = [("success", &self.taken), ("failure", &self.refused)];
        let results = results.map(|(result, count)| ([result], ConstCounter::new(count.load(Ordering::Relaxed))));
        write(encoder, &semconv::CONFIG_RELOADS, results)
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
