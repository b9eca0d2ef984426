//! Recall: the corridor's part about stored answers. Whether this request may be answered by one, and have its own
//! stored; where one is looked for, in which order; what becomes of the request when there is none.
//!
//! The only place that knows the order of the cache's rooms. What an answer looks like on its way to the app is the
//! business of `exchange::reply`.

use std::sync::Arc;

use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, Response};
use serde_json_borrow::Value;
use tokio::time::Instant;

use crate::cache::key::{self, Key};
use crate::cache::policy::Preferences;
use crate::cache::refresh::Refresh;
use crate::cache::{About, Lookup, Reusable, Usable};
use crate::exchange::Rooms;
use crate::exchange::entry::Entry;
use crate::exchange::reply::{self, Body};
use crate::exchange::route::{self, Route};
use crate::provider::{Asked, Reuse};
use crate::record::outcome::{BypassReason, CacheStatus};

/// A request, as far as it tells one question from another.
pub(super) struct Question<'a> {
    pub(super) route: &'a Route,
    pub(super) head: &'a Parts,
    /// Its body without its content coding.
    pub(super) text: &'a [u8],
    /// The same, parsed.
    pub(super) body: &'a Value<'a>,
}

/// What recalling came to.
pub(super) enum Recalled {
    /// The app has its answer.
    Answered(Response<Body>),
    /// The same, but a newer one is to be fetched for those to come.
    Stale(Response<Body>, Refresh),
    /// The provider has to be asked.
    Ask(Entry),
}

/// Whether the answer to this request may be a stored one, or be stored; if not, the entry is told why.
pub(super) fn reusable(
    rooms: &Rooms,
    question: &Question<'_>,
    asked: &Asked<'_>,
    preferences: &Preferences,
    entry: &mut Entry,
) -> Option<Reusable> {
    let Reuse::Allowed(ignored) = asked.reuse else {
        entry.looked_up(CacheStatus::Bypass(BypassReason::Uncacheable), None);
        return None;
    };
    let caller = &entry.call().caller;
    let about = About {
        provider: Arc::clone(&question.route.to.provider.name),
        model: entry.call().model.clone(),
        namespace: caller.namespace.clone(),
    };
    let terms = match rooms.cache.terms(&about, preferences, asked.is_sampled) {
        Ok(terms) => terms,
        Err(reason) => {
            entry.looked_up(CacheStatus::Bypass(reason), None);
            return None;
        }
    };
    let key = key(question, caller.namespace.as_deref(), ignored);
    if !terms.may_answer() {
        entry.looked_up(CacheStatus::Bypass(BypassReason::RequestDirective), None);
    }
    Some(Reusable { key, about, asked: rooms.cache.rules().asked(), terms })
}

/// Looks for an answer: in memory, then in what replicas share. A request that wants a stored one only is answered in
/// any case.
pub(super) async fn recall(
    rooms: &Arc<Rooms>,
    preferences: &Preferences,
    reusable: Option<&Reusable>,
    mut entry: Entry,
) -> Recalled {
    if let Some(reusable) = reusable.filter(|reusable| reusable.terms.may_answer()) {
        let started = Instant::now();
        let mut found = rooms.cache.look_up(reusable, started);
        entry.looked_up(status_of(&found), Some(started.elapsed()));
        if !matches!(found, Lookup::Usable(_)) && rooms.cache.fetch(&reusable.key).await {
            found = rooms.cache.look_up(reusable, Instant::now());
            entry.fetched(status_of(&found));
        }
        if let Lookup::Usable(usable) = found {
            return answered(rooms, usable, entry);
        }
    }
    if preferences.directives.only_if_cached {
        return Recalled::Answered(reply::not_stored(rooms, entry));
    }
    Recalled::Ask(entry)
}

const fn status_of(found: &Lookup) -> CacheStatus {
    match found {
        Lookup::Usable(_) => CacheStatus::Hit,
        Lookup::Declined => CacheStatus::Bypass(BypassReason::RequestDirective),
        Lookup::Stale => CacheStatus::Expired,
        Lookup::Absent => CacheStatus::Miss,
    }
}

fn answered(rooms: &Rooms, usable: Usable, entry: Entry) -> Recalled {
    let response = reply::stored(rooms, &usable.stored, usable.age, entry);
    match usable.refresh {
        Some(refresh) => Recalled::Stale(response, refresh),
        None => Recalled::Answered(response),
    }
}

fn key(asked: &Question<'_>, namespace: Option<&str>, ignored: &[&str]) -> Key {
    let Question { route, head, text, body } = *asked;
    let headers = &head.headers;
    let names = route.to.provider.api.dialect().credential_queries;
    let (in_query, query) = route::part_credentials(head.uri.query(), names);
    let mut credentials: Vec<(&[u8], &[u8])> = headers
        .iter()
        .filter(|(name, _)| may_be_credential(name))
        .filter_map(|(name, value)| Some((name.as_str().as_bytes(), route.to.identifying(name, value)?)))
        .chain(in_query.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
        .collect();
    credentials.sort_unstable();
    let headers: Vec<(&[u8], &[u8])> = route
        .endpoint
        .format()
        .key_headers
        .iter()
        .copied()
        // The answer's form: a client gets what it can undo.
        .chain([ACCEPT_ENCODING.as_str()])
        .flat_map(|name| headers.get_all(name).iter().map(move |value| (name.as_bytes(), value.as_bytes())))
        .collect();
    let target = &route.target;
    let place = [target.scheme_str(), target.authority().map(Authority::as_str), Some(target.path()), query.as_deref()];
    let place = place.map(|part| part.unwrap_or_default().as_bytes());
    Key::of(&key::Question {
        namespace,
        provider: &route.to.provider.name,
        target: &place,
        credentials: &credentials,
        headers: &headers,
        text,
        body,
        ignored,
    })
}

/// Whether a header may hold a credential, or say for whom a gateway acts: those of the known APIs, and whatever else
/// sounds like one. A header too many costs a miss; one too few would hand an answer to a stranger.
fn may_be_credential(name: &HeaderName) -> bool {
    const SOUNDS: [&str; 8] = ["auth", "key", "token", "cookie", "secret", "credential", "x-portkey-", "cf-aig-"];
    name != "idempotency-key" && SOUNDS.iter().any(|sound| name.as_str().contains(sound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_sounds_like_a_credential_keeps_callers_apart() {
        for (name, expected) in [
            ("authorization", true),
            ("x-api-key", true),
            ("ocp-apim-subscription-key", true),
            ("x-portkey-config", true),
            ("helicone-auth", true),
            ("cookie", true),
            ("idempotency-key", false),
            ("user-agent", false),
            ("x-stainless-retry-count", false),
            ("traceparent", false),
        ] {
            assert_eq!(may_be_credential(&HeaderName::from_static(name)), expected, "{name}");
        }
    }
}
