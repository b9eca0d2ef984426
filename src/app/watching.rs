//! Watching: what goes on beside the calls. Files are read again, rules and answers are shared, what is idle is forgotten.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::app::building::Beside;
use crate::app::figures::price_table;
use crate::exchange::Rooms;
use crate::exchange::house::House;
use crate::limits::Limits;
use crate::price::Edition;
use crate::secret::{Reread, Told};
use crate::sinks::metrics::Metrics;
use crate::state::kept::Kept;
use crate::store::Store;

/// What goes on for as long as weir runs, until dropped.
pub(super) fn for_good(house: &Arc<House>, store: Option<&Arc<Store>>) -> JoinSet<()> {
    let mut watchers = JoinSet::new();
    watchers.spawn(crate::tokens::let_unused_go());
    if let Some(store) = store {
        watchers.spawn(Arc::clone(store).keep());
        watchers.spawn(Arc::clone(&house.rooms().cache).share());
        let house = Arc::clone(house);
        watchers.spawn(Limits::share(move || Arc::clone(&house.rooms().limits)));
    }
    watchers
}

/// What goes on for as long as a configuration holds, until dropped.
pub(super) fn for_now(
    rooms: &Rooms,
    beside: Beside,
    kept: Option<&Arc<Kept<Limits>>>,
    metrics: &Arc<Metrics>,
) -> JoinSet<()> {
    let Beside { watched_keys, watched_tokens, signers, fleet } = beside;
    let mut watchers = JoinSet::new();
    for (credential, path) in watched_keys {
        watchers.spawn(credential.watch(path, told(metrics)));
    }
    for (token, path) in watched_tokens {
        watchers.spawn(token.watch(path, told(metrics)));
    }
    for signer in signers {
        watchers.spawn(signer.keep());
    }
    watchers.spawn(Arc::clone(&rooms.prices).watch(told_of_prices(metrics)));
    watchers.spawn(Arc::clone(&rooms.limits).forget_idle());
    watchers.spawn(Arc::clone(&rooms.limits).end_overrides());
    if let Some(kept) = kept {
        watchers.spawn(Arc::clone(kept).keep(Arc::clone(&rooms.limits)));
    }
    if let Some(fleet) = fleet {
        watchers.spawn(fleet.keep(Arc::clone(&rooms.limits)));
    }
    watchers
}

/// Tells the metrics what comes of one file that is read again.
fn told(metrics: &Metrics) -> Told {
    let file = metrics.watched_file();
    Box::new(move |came| file.reread(came))
}

fn told_of_prices(metrics: &Arc<Metrics>) -> impl Fn(Option<Edition>) + Send + Sync + use<> {
    let (metrics, told) = (Arc::clone(metrics), told(metrics));
    move |edition: Option<Edition>| {
        told(if edition.is_some() { Reread::Taken } else { Reread::Refused });
        if let Some(edition) = edition {
            metrics.set_price_table(price_table(&edition));
        }
    }
}
