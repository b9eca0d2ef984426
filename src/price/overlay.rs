//! Overlay: the operator's own file of prices, read at start and again when it changes. Never on the path of a call.

use std::error::Error as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::price::{Edition, InForce, PriceError, Prices};

/// How often the file is read again. Kubernetes swaps a mounted file by a symlink, which only reading notices
/// everywhere.
const REREAD_EVERY: Duration = Duration::from_secs(2);

/// The largest file read, in bytes: thirty times the built-in table.
const LARGEST: u64 = 16 << 20;

/// The operator's file.
pub(super) struct Overlay {
    path: PathBuf,
    /// What stands for the text read last; `None` if it could not be read.
    seen: Mutex<Option<u64>>,
}

impl Overlay {
    /// The file at `path`, and what is in it.
    pub(super) fn open(path: &Path) -> Result<(Self, String), PriceError> {
        let text = read(path)?;
        Ok((Self { path: path.to_owned(), seen: Mutex::new(Some(print(&text))) }, text))
    }

    /// What is in the file now, if that is not what was there the last time.
    fn changed(&self) -> Option<Result<String, PriceError>> {
        let text = read(&self.path);
        let now = text.as_deref().ok().map(print);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *seen, now);
        (before != now).then_some(text)
    }
}

impl Prices {
    /// Reads the operator's file, if there is one, again and again; one with mistakes never replaces a good one. Tells
    /// `changed` which table is in force whenever another one is, or that the file cannot be used as it is now, and the log
    /// what has come of every change, once. Runs until it is dropped.
    pub async fn watch(self: Arc<Self>, changed: impl Fn(Option<Edition>)) {
        let Some(overlay) = &self.overlay else { return };
        let mut ticks = interval(REREAD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let prices = Arc::clone(&self);
            // Putting a table together takes tens of milliseconds: not on a thread that serves calls.
            match spawn_blocking(move || prices.reload()).await {
                Ok(None) => {}
                Ok(Some(Ok(edition))) => {
                    changed(Some(edition));
                    tracing::info!(file.path = %overlay.path.display(), "the price overlay has changed and is in force");
                    self.log_remarks();
                }
                Ok(Some(Err(error))) => {
                    tracing::warn!(
                        error.message = %error,
                        error.cause = error.source().map(tracing::field::display),
                        file.path = %overlay.path.display(),
                        "the price overlay has changed but cannot be used: keeping the last good prices"
                    );
                    changed(None);
                }
                Err(failed) => {
                    tracing::error!(error.message = %failed, "reading the price overlay failed inside weir");
                    changed(None);
                }
            }
        }
    }

    /// Reads the operator's file again. `None` if nothing has changed since the last time.
    pub(super) fn reload(&self) -> Option<Result<Edition, PriceError>> {
        let overlay = self.overlay.as_ref()?;
        let fresh = overlay.changed()?.and_then(|text| InForce::new(Some((&overlay.path, &text)), &self.payees));
        Some(fresh.map(|fresh| {
            self.replace(fresh);
            self.edition()
        }))
    }

    /// Says in the log what is odd in the operator's file, but may be meant.
    pub fn log_remarks(&self) {
        for remark in self.remarks() {
            tracing::warn!("price overlay: {remark}");
        }
    }
}

fn read(path: &Path) -> Result<String, PriceError> {
    let unreadable = |source| PriceError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text)).map_err(unreadable)?;
    if u64::try_from(read).is_ok_and(|read| read <= LARGEST) {
        Ok(text)
    } else {
        Err(unreadable(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} MiB", LARGEST >> 20))))
    }
}

/// What stands for a text: equal for equal texts, and different for different ones for all that matters here.
fn print(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
