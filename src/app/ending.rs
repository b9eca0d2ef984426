//! Ending: what waits to be written or sent once weir is told to stop, within a bound.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::exchange::Rooms;
use crate::ledger::writer::{Ledger, Writer as LedgerWriter};
use crate::limits::Limits;
use crate::sinks::traces::queue::Exporter;
use crate::state::kept::Kept;

/// How long what was recorded may take to be written, and what spans wait to be sent, once weir is told to stop.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);

/// Writes and sends, within a bound, what waits for it.
pub(super) async fn end(
    rooms: &Arc<Rooms>,
    kept: Option<Arc<Kept<Limits>>>,
    sending: Option<Sending>,
    ledger: Option<Writing>,
) {
    let kept = async {
        if let Some(kept) = kept {
            kept.keep_now(Arc::clone(&rooms.limits)).await;
        }
    };
    let written = async {
        if timeout(FLUSH_WITHIN, async { tokio::join!(rooms.recordings.flush(), kept) }).await.is_err() {
            tracing::warn!("not everything was written: the disk is too slow");
        }
    };
    let sent = async {
        if let Some(sending) = sending {
            sending.end().await;
        }
    };
    let written_down = async {
        if let Some(ledger) = ledger {
            ledger.end().await;
        }
    };
    tokio::join!(written, sent, written_down);
}

/// Spans on their way to a collector, beside the calls. Dropped, those that wait are lost.
pub(super) struct Sending {
    exporter: AbortOnDropHandle<()>,
    stop: CancellationToken,
}

impl Sending {
    pub(super) fn begin(exporter: Exporter) -> Self {
        let stop = CancellationToken::new();
        Self { exporter: AbortOnDropHandle::new(tokio::spawn(exporter.run(stop.clone()))), stop }
    }

    /// Sends what waits, within a bound.
    async fn end(self) {
        self.stop.cancel();
        if timeout(FLUSH_WITHIN, self.exporter).await.is_err() {
            tracing::warn!("not all spans were sent: the collector is too slow");
        }
    }
}

/// The thread that writes the ledger. Dropped, it ends with the last of those who have something to write.
pub(super) struct Writing {
    ledger: Arc<Ledger>,
    done: oneshot::Receiver<()>,
}

impl Writing {
    pub(super) fn begin(ledger: Arc<Ledger>, writer: LedgerWriter) -> Self {
        let (tell, done) = oneshot::channel();
        let begun = thread::Builder::new().name("weir-ledger".to_owned()).spawn(move || {
            writer.run();
            let _ = tell.send(());
        });
        if let Err(error) = begun {
            tracing::warn!(error.message = %error, "calls are not written down: there is no thread for it");
        }
        Self { ledger, done }
    }

    /// Writes what waits, within a bound.
    async fn end(self) {
        self.ledger.end();
        if timeout(FLUSH_WITHIN, self.done).await.is_err() {
            tracing::warn!("not every call was written down: the disk is too slow");
        }
    }
}
