//! Watching: what goes on beside the calls. Files are read again, rules and answers are shared, what is idle is forgotten.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::app::building::Built;
use crate::app::figures::price_table;
use crate::price::Edition;
use crate::secret::{Reread, Told};
use crate::sinks::metrics::Metrics;

/// Everything that goes on beside the calls, until dropped.
pub(super) fn watchers(built: &Built) -> JoinSet<()> {
    let Built { rooms, metrics, store, watched_keys, signers, watched_tokens, .. } = built;
    let mut watchers = JoinSet::new();
    for (credential, path) in watched_keys {
        watchers.spawn(Arc::clone(credential).watch(path.clone(), told(metrics)));
    }
    for (token, path) in watched_tokens {
        watchers.spawn(Arc::clone(token).watch(path.clone(), told(metrics)));
    }
    let (metrics, told_of_overlay) = (Arc::clone(metrics), told(metrics));
    let told = move |edition: Option<Edition>| {
        told_of_overlay(if edition.is_some() { Reread::Taken } else { Reread::Refused });
        if let Some(edition) = edition {
            metrics.set_price_table(price_table(&edition));
        }
    };
    watchers.spawn(Arc::clone(&rooms.prices).watch(told));
    watchers.spawn(crate::tokens::let_unused_go());
    watchers.spawn(Arc::clone(&rooms.limits).forget_idle());
    watchers.spawn(Arc::clone(&rooms.limits).end_overrides());
    for signer in signers {
        watchers.spawn(signer.clone().keep());
    }
    if let Some(store) = store {
        watchers.spawn(Arc::clone(store).keep());
        watchers.spawn(Arc::clone(&rooms.cache).share());
        watchers.spawn(Arc::clone(&rooms.limits).share());
    }
    watchers
}

/// Tells the metrics what comes of one file that is read again.
fn told(metrics: &Metrics) -> Told {
    let file = metrics.watched_file();
    Box::new(move |came| file.reread(came))
}
