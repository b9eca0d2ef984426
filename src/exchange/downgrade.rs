//! Downgrade: the corridor's part about budgets that have a cheaper model asked once they are spent.
//!
//! A call that such a budget keeps from going is made again, once, with another model in its request and nothing else
//! changed. It is then a call like any other for that model: with its own key in the cache, its own price, and the rules
//! that are for it. What cannot be made so is refused.

use std::sync::Arc;

use http::header::CONTENT_ENCODING;
use http::uri::PathAndQuery;
use http::{Response, Uri};

use crate::exchange::admission;
use crate::exchange::entry::Entry;
use crate::exchange::kept::{self, Kept};
use crate::exchange::load;
use crate::exchange::recordings::{self, Recordings};
use crate::exchange::reply::Body;
use crate::exchange::route::Route;
use crate::exchange::{Asking, Rooms, Unanswered, recall_or_ask, understand};
use crate::limits::refusal::Refusal;
use crate::provider::substitute::substitute;
use crate::record::outcome::{BypassReason, CacheStatus};
use crate::upstream::sign;

/// The call that goes in place of one that the rules refuse, and may go; else the app's answer.
pub(super) async fn instead(
    rooms: &Arc<Rooms>,
    asking: Asking,
    refusal: &Refusal,
    mut entry: Entry,
) -> Result<Unanswered, Response<Body>> {
    let to = Arc::clone(&asking.route.to);
    let model = refusal.downgrade_to.as_deref().filter(|_| is_of_app(&entry));
    let Some(mut cheaper) = model.and_then(|model| asked_of(rooms, asking, model)) else {
        return Err(admission::refuse(rooms, &to.provider, refusal, entry));
    };
    entry.downgraded(Arc::clone(&refusal.rule));
    let understood = understand(rooms, &cheaper, &mut entry);
    let mut unanswered = match *rooms.recordings {
        Recordings::Off => recall_or_ask(rooms, cheaper, understood, entry).await?,
        Recordings::Record { .. } | Recordings::Replay(_) => {
            recordings::prepare(understood.recordable.as_deref(), &mut cheaper.head.headers, &mut entry);
            Unanswered { asking: cheaper, understood, ride: None, entry }
        }
    };
    match unanswered.decide(rooms).await {
        Ok(()) => Ok(unanswered),
        Err(refusal) => Err(admission::refuse(rooms, &to.provider, &refusal, unanswered.entry)),
    }
}

/// Whether an app waits for the answer: weir's own calls look after what apps were told, by the model that told it.
fn is_of_app(entry: &Entry) -> bool {
    !matches!(entry.cache_status(), CacheStatus::Bypass(BypassReason::Refresh | BypassReason::Verify))
}

/// The same request, asked of `model`. `None` if it was not kept whole, names no model that could be another, or carries a
/// signature of the app's, which would no longer fit.
fn asked_of(rooms: &Rooms, asking: Asking, model: &str) -> Option<Asking> {
    let Asking { route, mut head, body } = asking;
    let Kept::Whole(body) = body else { return None };
    if !route.to.upstream.signs() && sign::is_signed(&head.headers) {
        return None;
    }
    let plain = kept::decoded(&body, &head.headers, rooms.settings.max_request_bytes.as_len())?;
    let path = route.path(&head.uri);
    let cheaper = substitute(route.endpoint, path, &plain, model)?;
    let before = &head.uri.path()[..head.uri.path().len() - path.len()];
    let uri = with_path(&head.uri, &[before, &cheaper.path].concat())?;
    let body = load::on_account(&rooms.load.requests, cheaper.body.into_owned())?;
    head.uri = uri;
    head.headers.remove(CONTENT_ENCODING);
    kept::announce_length(&mut head.headers, body.len());
    let route = Route::find(rooms, &head.method, &head.uri)?;
    Some(Asking { route, head, body: Kept::Whole(body) })
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.ok()?);
    Uri::from_parts(parts).ok()
}
