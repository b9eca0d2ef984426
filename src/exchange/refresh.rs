//! Refresh: a newer answer fetched in the background, after a stale one has answered. A call of its own with a record of
//! its own, which no app sees: it costs what it costs, and if it fails, the stale answer stays for its time.

use std::sync::Arc;

use http_body_util::BodyExt;

use crate::cache::refresh::Refresh;
use crate::exchange::{Asking, Rooms, ask_again};
use crate::record::outcome::BypassReason;

/// Begins the `task` of asking again what was asked. It ends with the house.
pub(super) fn begin(rooms: &Arc<Rooms>, asking: Asking, task: Refresh) {
    // Once weir is told to stop, nobody will ask for a newer answer.
    if rooms.tasks.is_closed() {
        return;
    }
    let rooms = Arc::clone(rooms);
    rooms.tasks.clone().spawn(async move {
        rooms.hard_stop.run_until_cancelled(Box::pin(fetch(&rooms, asking))).await;
        drop(task);
    });
}

/// Asks the provider, and lets its answer be stored.
async fn fetch(rooms: &Arc<Rooms>, asking: Asking) {
    let mut answer = ask_again(rooms, asking, BypassReason::Refresh).await.into_body();
    while let Some(Ok(_)) = answer.frame().await {}
}
