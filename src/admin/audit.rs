//! Audit: who changed what, and who tried, as log lines that no log level silences. Never a token.

use tracing::Level;

use crate::admin::access::{Denied, Peer};
use crate::semconv::attribute;
use crate::sinks::log::AUDIT;

/// Something was changed. `what` was asked for, in JSON; `entries` is how many were removed.
pub(super) fn changed(Peer(peer): Peer, action: &str, what: &str, entries: u64) {
    tracing::event!(
        target: AUDIT,
        Level::INFO,
        { attribute::CLIENT_ADDRESS } = %peer,
        { attribute::WEIR_AUDIT_ACTION } = action,
        { attribute::WEIR_AUDIT_WHAT } = what,
        { attribute::WEIR_AUDIT_ENTRIES } = entries,
        "cache entries removed"
    );
}

/// Somebody who may not wanted to change something.
pub(super) fn denied(Peer(peer): Peer, path: &str, why: Denied) {
    tracing::event!(
        target: AUDIT,
        Level::INFO,
        { attribute::CLIENT_ADDRESS } = %peer,
        { attribute::WEIR_AUDIT_ACTION } = path,
        "command denied: {}",
        why.as_str()
    );
}
