//! Audit: who changed what, and who tried, as log lines that no log level silences. Names tokens, and never
//! shows one.

use tracing::Level;

use crate::admin::access::{Denied, Operator, Peer};
use crate::semconv::attribute;
use crate::sinks::log::AUDIT;

/// Entries of the cache were removed: so many. `what` was asked for, in JSON.
pub(super) fn entries_removed(Operator { peer, token }: &Operator, action: &str, what: &str, entries: u64) {
    tracing::event!(
        target: AUDIT,
        Level::INFO,
        { attribute::CLIENT_ADDRESS } = %peer.0,
        { attribute::WEIR_AUDIT_TOKEN } = &**token,
        { attribute::WEIR_AUDIT_ACTION } = action,
        { attribute::WEIR_AUDIT_WHAT } = what,
        { attribute::WEIR_AUDIT_ENTRIES } = entries,
        "cache entries removed"
    );
}

/// What a budget allows was changed; `what` says which one, from what to what, in JSON.
pub(super) fn budget_changed(Operator { peer, token }: &Operator, action: &str, what: &str) {
    tracing::event!(
        target: AUDIT,
        Level::INFO,
        { attribute::CLIENT_ADDRESS } = %peer.0,
        { attribute::WEIR_AUDIT_TOKEN } = &**token,
        { attribute::WEIR_AUDIT_ACTION } = action,
        { attribute::WEIR_AUDIT_WHAT } = what,
        "budget changed"
    );
}

/// The configuration is to be read again.
pub(super) fn reload(Operator { peer, token }: &Operator) {
    tracing::event!(
        target: AUDIT,
        Level::INFO,
        { attribute::CLIENT_ADDRESS } = %peer.0,
        { attribute::WEIR_AUDIT_TOKEN } = &**token,
        { attribute::WEIR_AUDIT_ACTION } = "config.reload",
        "the configuration is read again"
    );
}

/// Somebody was taken from the ledger, of whom there were so many calls. Whom, is not said.
#[cfg(feature = "ledger")]
pub(super) fn user_erased(Operator { peer, token }: &Operator, calls: u64) {
    tracing::event!(
        target: AUDIT,
        Level::INFO,
        { attribute::CLIENT_ADDRESS } = %peer.0,
        { attribute::WEIR_AUDIT_TOKEN } = &**token,
        { attribute::WEIR_AUDIT_ACTION } = "ledger.erase_user",
        { attribute::WEIR_AUDIT_ENTRIES } = calls,
        "user erased"
    );
}

/// Somebody who may not wanted to change something.
pub(super) fn denied(Peer(peer): Peer, path: &str, why: &Denied) {
    tracing::event!(
        target: AUDIT,
        Level::INFO,
        { attribute::CLIENT_ADDRESS } = %peer,
        { attribute::WEIR_AUDIT_TOKEN } = why.token(),
        { attribute::WEIR_AUDIT_ACTION } = path,
        "command denied: {}",
        why.as_str()
    );
}

/// Somebody has shown so many wrong tokens that no other is looked at for a while.
pub(super) fn shut_out(Peer(peer): Peer) {
    tracing::event!(
        target: AUDIT,
        Level::WARN,
        { attribute::CLIENT_ADDRESS } = %peer,
        "too many wrong tokens from one address: no other is looked at for a while"
    );
}

/// Somebody asks about calls. Dashboards do so all day: not for every log.
#[cfg(feature = "ledger")]
pub(super) fn asked(Peer(peer): Peer, path: &str, token: Option<&str>) {
    tracing::debug!(
        { attribute::CLIENT_ADDRESS } = %peer,
        { attribute::WEIR_AUDIT_TOKEN } = token,
        { attribute::WEIR_AUDIT_ACTION } = path,
        "asked about calls"
    );
}
