//! Recall: the corridor's part about stored answers. Whether this request may be answered by one, and have its own
//! stored; where one is looked for, in which order; what becomes of the request when there is none.
//!
//! The only place that knows the order of the cache's rooms. What an answer looks like on its way to the app is the
//! business of `exchange::reply`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, Response, StatusCode};
use serde_json_borrow::Value;
use tokio::time::{Instant, timeout_at};

use crate::cache::flight::{Boarding, Flights, Ride};
use crate::cache::key::{self, Key};
use crate::cache::policy::Preferences;
use crate::cache::refresh::Refresh;
use crate::cache::{self, About, Fetched, Lookup, Reusable, Usable};
use crate::exchange::Rooms;
use crate::exchange::crossing::{self, Crossed};
use crate::exchange::entry::{End, Entry};
use crate::exchange::fetch::{Ended, Fetch};
use crate::exchange::pump::Head;
use crate::exchange::reply::{self, Body};
use crate::exchange::route::{self, Route};
use crate::exchange::similar::{self, Check, Similarly};
use crate::exchange::tee::Tee;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Forms;
use crate::provider::{Asked, Reuse};
use crate::record::outcome::{BypassReason, CacheStatus, Outcome, Role};

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
    /// The app has what answered a request that says the same; whether that was right may have to be checked.
    Similar(Response<Body>, Option<Check>),
    /// The provider has to be asked, for whoever rides along.
    Ask(Entry, Option<Ride<Fetch>>),
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
    let Question { route, head, body, .. } = *question;
    let crossing = crossing::asked(rooms, route, route.path(&head.uri), head.uri.query(), body);
    let all_forms = crossing.map(|(_, forms)| forms);
    let key = |left_out: Option<&str>| key(question, caller.namespace.as_deref(), ignored, all_forms, left_out);
    let similar = rooms.similar.as_ref();
    let similar = similar.and_then(|it| it.sought(question, |text| key(Some(text))));
    let key = key(None);
    let forms = crossing.map(|(asked, _)| cache::Forms { question: key, asked });
    if !terms.may_answer() {
        entry.looked_up(CacheStatus::Bypass(BypassReason::RequestDirective), None);
    }
    let key = forms.map_or(key, |forms| key.in_form(forms.asked));
    Some(Reusable { key, about, asked: rooms.cache.rules().asked(), terms, forms, similar })
}

/// Looks for an answer: in memory, then in what replicas share, each in the form asked for and then in others; among
/// those to requests that say the same; then on its way to an equal call. A request that wants a stored one only is
/// answered in any case.
pub(super) async fn recall(
    rooms: &Arc<Rooms>,
    endpoint: Endpoint,
    preferences: &Preferences,
    mut reusable: Option<&mut Reusable>,
    mut entry: Entry,
) -> Recalled {
    if let Some(reusable) = reusable.as_deref_mut().filter(|reusable| reusable.terms.may_answer()) {
        let mut found = in_memory(rooms, endpoint, reusable, &mut entry);
        if found.is_err() && fetch(rooms, endpoint, reusable, &mut entry).await {
            found = look_up(rooms, endpoint, reusable, Instant::now());
            entry.fetched(status_of(&found));
        }
        if let Ok((usable, crossed)) = found {
            return answered(rooms, endpoint, usable, crossed, entry);
        }
        // Nothing goes anywhere for a request that wants a stored answer only.
        let only_if_cached = preferences.directives.only_if_cached;
        let similar = if only_if_cached { None } else { similar::look_up(rooms, endpoint, reusable).await };
        if let Some(Similarly { usable, crossed, cosine }) = similar {
            entry.answered_as_similar(cosine);
            let check = similar::check(rooms, &usable, crossed.as_ref(), &entry);
            return Recalled::Similar(reply::stored(rooms, endpoint, &usable, crossed, entry), check);
        }
    }
    if preferences.directives.only_if_cached {
        return Recalled::Answered(reply::not_stored(rooms, entry));
    }
    match (reusable, &rooms.in_flight.flights) {
        (Some(reusable), Some(flights)) if reusable.terms.may_store() => {
            fly(rooms, flights, endpoint, reusable, entry).await
        }
        _ => Recalled::Ask(entry, None),
    }
}

/// A stored answer that may serve, and how it is told if it is stored in another form; or why there is none.
pub(super) type Found = Result<(Usable, Option<Crossed>), CacheStatus>;

/// Looks in memory, and tells the entry.
fn in_memory(rooms: &Rooms, endpoint: Endpoint, reusable: &Reusable, entry: &mut Entry) -> Found {
    let started = Instant::now();
    let found = look_up(rooms, endpoint, reusable, started);
    entry.looked_up(status_of(&found), Some(started.elapsed()));
    found
}

/// Looks in what replicas share, and tells the entry.
async fn fetch(rooms: &Rooms, endpoint: Endpoint, reusable: &Reusable, entry: &mut Entry) -> bool {
    let began = Instant::now();
    let fetched = crossing::fetch(rooms, endpoint, reusable).await;
    if fetched != Fetched::Unasked {
        entry.asked_shared(began, fetched == Fetched::There);
    }
    fetched == Fetched::There
}

/// Looks in memory.
pub(super) fn look_up(rooms: &Rooms, endpoint: Endpoint, reusable: &Reusable, now: Instant) -> Found {
    let missed = match rooms.cache.look_up(reusable, now) {
        Lookup::Usable(usable) => return Ok((usable, None)),
        Lookup::Declined => CacheStatus::Bypass(BypassReason::RequestDirective),
        Lookup::Stale => CacheStatus::Expired,
        Lookup::Absent => CacheStatus::Miss,
    };
    let crossed = crossing::look_up(rooms, endpoint, reusable, now);
    crossed.map(|(usable, crossed)| (usable, Some(crossed))).ok_or(missed)
}

fn status_of(found: &Found) -> CacheStatus {
    found.as_ref().map_or_else(|missed| *missed, |_| CacheStatus::Hit)
}

fn answered(rooms: &Rooms, endpoint: Endpoint, usable: Usable, crossed: Option<Crossed>, entry: Entry) -> Recalled {
    let response = reply::stored(rooms, endpoint, &usable, crossed, entry);
    match usable.refresh {
        Some(refresh) => Recalled::Stale(response, refresh),
        None => Recalled::Answered(response),
    }
}

/// A flight of its own for a call that wants an answer of its own; `None` if there is one already. Whoever asks the same
/// meanwhile gets the answer too.
pub(super) fn lead(rooms: &Rooms, reusable: Option<&Reusable>) -> Option<Ride<Fetch>> {
    let Reusable { key, asked, .. } = reusable.filter(|reusable| reusable.terms.may_store())?;
    rooms.in_flight.flights.as_ref()?.lead(*key, *asked)
}

/// How often a call waits for the answer to an equal one before it asks for itself.
const MOST_FLIGHTS: usize = 2;

/// Joins the call in flight that asks the same, or is to be joined by others.
async fn fly(
    rooms: &Arc<Rooms>,
    flights: &Flights<Fetch>,
    endpoint: Endpoint,
    reusable: &Reusable,
    mut entry: Entry,
) -> Recalled {
    if !reusable.terms.may_answer() {
        return Recalled::Ask(entry, lead(rooms, Some(reusable)));
    }
    let deadline = Instant::now() + rooms.in_flight.timeout;
    for _ in 0..MOST_FLIGHTS {
        let ride = match flights.board(reusable.key, reusable.asked) {
            Boarding::Follow(ride) => ride,
            // The one before may have landed, and been stored, since this call looked for its answer.
            Boarding::Lead(ride) => {
                return match in_memory(rooms, endpoint, reusable, &mut entry) {
                    Ok((usable, crossed)) => answered(rooms, endpoint, usable, crossed, entry),
                    Err(_missed) => Recalled::Ask(entry, Some(ride)),
                };
            }
        };
        let boarded = Instant::now();
        let mut tee = Tee::shared(rooms, ride, Role::Follower, entry);
        let answer = timeout_at(deadline, wait(&mut tee)).await;
        tee.entry_mut().waited(boarded.elapsed());
        match answer {
            Ok(Some(Answer::Coming(head))) => return Recalled::Answered(reply::followed(rooms, &head, tee)),
            Ok(Some(Answer::Whole(head, body, end))) => {
                return Recalled::Answered(reply::shared(rooms, &head, body, *end, tee.give_back()));
            }
            Ok(None) => entry = tee.give_back(),
            Err(_elapsed) => return Recalled::Ask(tee.give_back(), None),
        }
    }
    match in_memory(rooms, endpoint, reusable, &mut entry) {
        Ok((usable, crossed)) => answered(rooms, endpoint, usable, crossed, entry),
        Err(_missed) => Recalled::Ask(entry, None),
    }
}

/// The answer to an equal call.
enum Answer {
    /// As it comes.
    Coming(Arc<Head>),
    /// All of it.
    Whole(Arc<Head>, Bytes, Box<End>),
}

/// Waits until there is an answer that is good for a follower: the beginning of a stream, or the whole of anything else,
/// since nobody has any use for a part of it. `None` if it is no success, or breaks off.
async fn wait(tee: &mut Tee) -> Option<Answer> {
    let head = tee.head().await.ok().filter(|head| head.status == StatusCode::OK)?;
    if head.is_stream {
        return Some(Answer::Coming(head));
    }
    // Larger than what may be held back, it is handed on as it comes.
    let Some((body, ended)) = tee.whole().await else { return Some(Answer::Coming(head)) };
    let Ended::Answered(finished) = &*ended else { return None };
    let end = finished.for_others().filter(|end| end.outcome == Outcome::Success)?;
    Some(Answer::Whole(head, body, Box::new(end)))
}

/// Stores an answer, and learns from it for requests that say the same.
pub(super) fn store(rooms: &Arc<Rooms>, mut reusable: Reusable, reply: cache::Reply) {
    let (question, sought) = (reusable.question(), reusable.similar.take());
    rooms.cache.store(reusable, reply, Instant::now());
    if let Some(sought) = sought {
        similar::learn(rooms, sought, question);
    }
}

/// The key of a request; with `forms`, of what it asks in whatever form. With a text that is left out, of its context: of
/// all but that.
fn key(
    question: &Question<'_>,
    namespace: Option<&str>,
    ignored: &[&str],
    forms: Option<&Forms>,
    left_out: Option<&str>,
) -> Key {
    let Question { route, head, text, body } = *question;
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
    let asked = forms.map(|forms| crossing::without_form(forms, target.path(), query.as_deref(), ignored));
    let (path, query, ignored) = match &asked {
        Some(asked) => (&*asked.path, asked.query.as_deref(), &asked.ignored[..]),
        None => (target.path(), query.as_deref(), ignored),
    };
    let place = [target.scheme_str(), target.authority().map(Authority::as_str), Some(path), query];
    let place = place.map(|part| part.unwrap_or_default().as_bytes());
    let question = key::Question {
        namespace,
        provider: &route.to.provider.name,
        target: &place,
        credentials: &credentials,
        headers: &headers,
        text,
        body,
        ignored,
    };
    left_out.map_or_else(|| Key::of(&question), |text| Key::of_context(&question, text))
}

/// Whether a header may hold a credential, or say for whom a gateway acts: those of the known APIs, and whatever else
/// sounds like one. A header too many costs a miss; one too few would hand an answer to a stranger.
#[must_use]
pub fn may_be_credential(name: &HeaderName) -> bool {
    const SOUNDS: [&[u8]; 12] = [
        b"assertion",
        b"auth",
        b"cf-aig-",
        b"cookie",
        b"credential",
        b"jwt",
        b"key",
        b"password",
        b"secret",
        b"session",
        b"token",
        b"x-portkey-",
    ];
    // Nearly everything fails by its first letter.
    let sounds = |rest: &[u8]| SOUNDS.iter().any(|sound| rest[0] == sound[0] && rest.starts_with(sound));
    let name = name.as_str().as_bytes();
    name != b"idempotency-key" && (0..name.len()).any(|at| sounds(&name[at..]))
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
            ("x-auth", true),
            ("x-ke", false),
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
