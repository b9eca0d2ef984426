//! Reply: what the app gets. The only place where weir chooses a status code.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};

use crate::cache::pace::Pace;
use crate::cache::{Replay, Usable, recording};
use crate::exchange::Rooms;
use crate::exchange::crossing::Crossed;
use crate::exchange::entry::{End, Entry};
use crate::exchange::load::Shed;
use crate::exchange::paced::Paced;
use crate::exchange::pump::{BrokenReply, Head, cancelled, end_of};
use crate::exchange::route;
use crate::exchange::tee::Tee;
use crate::limits::budget::Over;
use crate::limits::rate::{Quota, Unit};
use crate::limits::refusal::{Refusal, Why};
use crate::provider::endpoint::Endpoint;
use crate::provider::quotas::{self, Again, OwnQuota, SHOULD_RETRY};
use crate::provider::reader::Reader;
use crate::provider::{Api, Ending, Problem, Provider, Said};
use crate::record::head::QuotaKind;
use crate::record::outcome::{BypassReason, CacheStatus, ErrorType, Outcome};
use crate::record::{Attempt, Downgrade};
use crate::upstream::Failure;
use crate::upstream::incoming::BrokenBody;
use crate::upstream::sign::Unsigned;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Which model the app had asked, where a budget had another one asked: an item of a structured field (RFC 9651).
const DOWNGRADED: HeaderName = HeaderName::from_static("x-weir-downgraded");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-weir-request-id");
/// Where to look for the call in traces.
const TRACE_ID: HeaderName = HeaderName::from_static("x-weir-trace-id");

/// The body of a response to the app.
#[derive(Debug)]
pub struct Body(Kind);

enum Kind {
    /// All there is, known before it is sent.
    Whole { body: Option<Bytes>, entry: Entry, end: Option<Box<End>> },
    /// What is stored, as it came.
    Paced { paced: Box<Paced>, entry: Entry, end: Option<Box<End>> },
    /// What the provider sends, as it comes.
    Tee(Box<Tee>),
    /// Nothing: another protocol takes over.
    Nothing,
}

impl Body {
    fn whole(body: Bytes, entry: Entry, end: End) -> Self {
        Self(Kind::Whole { body: Some(body).filter(|body| !body.is_empty()), entry, end: Some(Box::new(end)) })
    }

    /// A body that was kept: given at its pace, where it has one and the operator wants it so.
    fn kept(rooms: &Rooms, body: Bytes, pace: impl FnOnce() -> Option<Pace>, entry: Entry, end: End) -> Self {
        let pace = (rooms.cache.replay() == Replay::Recorded).then(pace).flatten().filter(|pace| pace.fits(body.len()));
        let Some(pace) = pace else { return Self::whole(body, entry, end) };
        let paced = Box::new(Paced::new(body, pace));
        Self(Kind::Paced { paced, entry, end: Some(Box::new(end)) })
    }

    /// A body that comes from the provider.
    pub(super) fn tee(tee: Tee) -> Self {
        Self(Kind::Tee(Box::new(tee)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        match &mut self.0 {
            Kind::Whole { body, entry, end } => {
                let data = body.take();
                if let Some(end) = end.take() {
                    entry.passed(data.as_ref().map_or(0, Bytes::len));
                    entry.close(*end);
                }
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
            Kind::Paced { paced, entry, end } => {
                let data = ready!(paced.poll_piece(cx));
                entry.passed(data.as_ref().map_or(0, Bytes::len));
                // hyper stops asking once a body of announced length is all there.
                if let Some(end) = end.take_if(|_| paced.left() == 0) {
                    entry.close(*end);
                }
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
            Kind::Tee(tee) => Pin::new(tee.as_mut()).poll_frame(cx),
            Kind::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole { body, .. } => body.is_none(),
            Kind::Paced { paced, .. } => paced.left() == 0,
            Kind::Tee(tee) => tee.is_end_stream(),
            Kind::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole { body, .. } => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Kind::Paced { paced, .. } => SizeHint::with_exact(paced.left() as u64),
            Kind::Tee(tee) => tee.size_hint(),
            Kind::Nothing => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Kind {
    /// A whole body that was never asked for (the answer to HEAD) ends as it would have; who hangs up on one that takes
    /// its time has not had all of it.
    fn drop(&mut self) {
        match self {
            Self::Whole { entry, end, .. } => {
                if let Some(end) = end.take() {
                    entry.close(*end);
                }
            }
            Self::Paced { entry, end, .. } => {
                if let Some(end) = end.take() {
                    entry.close(cancelled(end.said));
                }
            }
            Self::Tee(_) | Self::Nothing => {}
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole { .. } => "Whole",
            Self::Paced { .. } => "Paced",
            Self::Tee(_) => "Tee",
            Self::Nothing => "Nothing",
        })
    }
}

/// A stored response answers, as it is or told in another form.
pub(super) fn stored(
    rooms: &Rooms,
    endpoint: Endpoint,
    Usable { stored, age, .. }: &Usable,
    crossed: Option<Crossed>,
    mut entry: Entry,
) -> Response<Body> {
    let reply = stored.reply();
    let text = entry.keeps_text().and_then(|most| {
        let mut reader = Reader::open(endpoint, reply.status, &reply.headers, rooms.settings.max_reply_bytes.as_len());
        reader.keep_text(most);
        reader.push(&reply.body, &mut |_, _| {});
        reader.finish().text
    });
    let said = Said {
        facts: reply.facts.clone(),
        usage: reply.usage.get().copied(),
        provider_cost: reply.provider_cost,
        text,
        ending: Ending::Complete,
        ..Said::default()
    };
    let mut headers = reply.headers.clone();
    let is_rendered = crossed.as_ref().is_some_and(|crossed| crossed.is_another);
    let body = match crossed {
        Some(Crossed { rendered, .. }) => {
            headers.remove(CONTENT_ENCODING);
            headers.insert(CONTENT_TYPE, rendered.content_type);
            rendered.body
        }
        None => reply.body.clone(),
    };
    if rooms.settings.response_headers {
        headers.insert(AGE, age.as_secs().into());
    }
    entry.owes(reply.origin);
    entry.tell(|told| told.age = Some(*age));
    let (ttl, similarity) = (ttl(stored.lifetime(), *age), entry.similarity());
    announce(rooms, &mut headers, &entry, Told::Stored { ttl, is_rendered, similarity });
    entry.handed(reply.status.as_u16());
    let end = End { outcome: Outcome::Success, error_type: None, detail: None, said };
    response(reply.status, headers, Body::kept(rooms, body, || reply.pace.clone(), entry, end))
}

/// A recording answers.
pub(super) fn replayed(
    rooms: &Rooms,
    endpoint: Endpoint,
    recorded: &recording::Response,
    mut entry: Entry,
) -> Response<Body> {
    let (status, mut headers, body) = (recorded.status, recorded.headers.clone(), recorded.body.clone());
    let mut reader = Reader::open(endpoint, status, &headers, rooms.settings.max_reply_bytes.as_len());
    reader.push(&body, &mut |_, _| {});
    announce(rooms, &mut headers, &entry, Told::Replayed);
    entry.handed(status.as_u16());
    let pace = || Some(Pace::of(recorded.timing.iter().map(|piece| (piece.after, piece.bytes))));
    let end = end_of(status, reader.finish());
    response(status, headers, Body::kept(rooms, body, pace, entry, end))
}

/// Nothing that is recorded answers, and the provider is not asked.
pub(super) fn no_recording(rooms: &Rooms, provider: &Provider, message: &str, entry: Entry) -> Response<Body> {
    // A status that SDKs do not try again at: the next time there would be none either.
    let status = StatusCode::NOT_FOUND;
    let end = End::unread(Outcome::ClientError, Some(ErrorType::Status(status.as_u16())));
    in_words(rooms, &Words { api: provider.api, status, code: "no_recording", message, retry_after: None }, end, entry)
}

/// The provider answers; its head, less what belongs to its own connection.
pub(super) fn forwarded(rooms: &Rooms, head: &Head, mut tee: Tee) -> Response<Body> {
    let mut headers = head.headers.take().unwrap_or_default();
    let entry = tee.entry_mut();
    entry.attempted(Attempt::Answered(head.status.as_u16()));
    announce(rooms, &mut headers, entry, Told::Forwarded);
    entry.handed(head.status.as_u16());
    response(head.status, headers, Body::tee(tee))
}

/// The answer to an equal call, as it comes; its head, less what belongs to that call.
pub(super) fn followed(rooms: &Rooms, head: &Head, mut tee: Tee) -> Response<Body> {
    let headers = follow(rooms, head, tee.entry_mut());
    response(head.status, headers, Body::tee(tee))
}

/// The answer to an equal call, all of it, which ended like this.
pub(super) fn shared(rooms: &Rooms, head: &Head, body: Bytes, end: End, mut entry: Entry) -> Response<Body> {
    let headers = follow(rooms, head, &mut entry);
    response(head.status, headers, Body::whole(body, entry, end))
}

fn follow(rooms: &Rooms, head: &Head, entry: &mut Entry) -> HeaderMap {
    let mut headers = head.kept.as_ref().clone();
    entry.followed();
    entry.owes(head.origin);
    announce(rooms, &mut headers, entry, Told::Collapsed);
    entry.handed(head.status.as_u16());
    headers
}

/// The provider agrees to another protocol; its head, less what belongs to its own connection.
pub(super) fn switched(rooms: &Rooms, mut headers: HeaderMap, entry: &mut Entry) -> Response<Body> {
    let status = StatusCode::SWITCHING_PROTOCOLS;
    announce(rooms, &mut headers, entry, Told::Forwarded);
    entry.handed(status.as_u16());
    response(status, headers, Body(Kind::Nothing))
}

/// The provider could not be asked, or did not answer.
pub(super) fn failed(rooms: &Rooms, provider: &Provider, failure: &Failure, mut entry: Entry) -> Response<Body> {
    let (status, outcome) = match failure {
        Failure::FirstByteTimeout(_) | Failure::ConnectTimeout | Failure::TotalTimeout(_) => {
            (StatusCode::GATEWAY_TIMEOUT, Outcome::Timeout)
        }
        Failure::Dns(_) | Failure::Connect(_) | Failure::Tls(_) | Failure::Reset(_) => {
            (StatusCode::BAD_GATEWAY, Outcome::UpstreamError)
        }
        Failure::RequestBody(_) => (StatusCode::BAD_REQUEST, Outcome::Cancelled),
        Failure::RequestStalled(patience) => {
            blame(failure, &mut entry);
            return stalled(rooms, provider, *patience, entry);
        }
        // It is weir that cannot, and may a moment later.
        Failure::NoDescriptor(_) => (StatusCode::SERVICE_UNAVAILABLE, Outcome::InternalError),
        Failure::Unsigned(why) => return unsigned(rooms, provider, why, entry),
        Failure::CircuitOpen(wait) => return left_alone(rooms, provider, failure, *wait, entry),
    };
    blame(failure, &mut entry);
    let target = entry.went_to();
    let url = target.as_ref().unwrap_or(&provider.base_url);
    let (name, host) = (&provider.name, url.authority().map_or("", http::uri::Authority::as_str));
    let message = format!("weir got no answer from provider `{name}` at {host}: {failure}");
    let error_type = failure.error_type();
    let end = End { detail: Some(causes(failure).into()), ..End::unread(outcome, Some(error_type)) };
    let again = if status == StatusCode::SERVICE_UNAVAILABLE { Again::In(SOON) } else { Again::Soon };
    let words =
        Words { api: provider.api, status, code: error_type.as_str(), message: &message, retry_after: again.wait() };
    let mut response = in_words(rooms, &words, end, entry);
    quotas::write(response.headers_mut(), None, &[], again, SystemTime::now());
    response
}

/// When to try again where weir itself is short of something that calls in progress give back.
const SOON: Duration = Duration::from_secs(1);

/// weir turns the call away: it has too much to do.
pub(super) fn shed(rooms: &Rooms, provider: &Provider, why: Shed, entry: Entry) -> Response<Body> {
    rooms.load.turn_away(why);
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let outcome = match why {
        // As the operator wants it.
        Shed::Concurrency => Outcome::RateLimited,
        Shed::Memory => Outcome::InternalError,
    };
    let end = End::unread(outcome, Some(ErrorType::Status(status.as_u16())));
    let (message, again) = (why.to_string(), Again::In(SOON));
    let words = Words { api: provider.api, status, code: "overloaded", message: &message, retry_after: again.wait() };
    let mut response = in_words(rooms, &words, end, entry);
    quotas::write(response.headers_mut(), None, &[], again, SystemTime::now());
    response
}

/// Notes what a call came to that was not answered.
pub(super) fn blame(failure: &Failure, entry: &mut Entry) {
    match failure {
        Failure::Unsigned(_) | Failure::CircuitOpen(_) => return entry.unsent(),
        Failure::FirstByteTimeout(_) | Failure::ConnectTimeout | Failure::TotalTimeout(_) => {
            entry.attempted(Attempt::TimedOut);
        }
        Failure::Dns(_)
        | Failure::Connect(_)
        | Failure::Tls(_)
        | Failure::NoDescriptor(_)
        | Failure::Reset(_)
        | Failure::RequestBody(_)
        | Failure::RequestStalled(_) => entry.attempted(Attempt::Failed),
    }
    if !failure.reached_the_provider() {
        entry.unreached();
    }
}

/// The provider was not asked: it has failed too often, and so have the other ways to it.
fn left_alone(
    rooms: &Rooms,
    provider: &Provider,
    failure: &Failure,
    wait: Duration,
    mut entry: Entry,
) -> Response<Body> {
    entry.unsent();
    let error_type = failure.error_type();
    let message = format!("weir did not ask provider `{}`: {failure}", provider.name);
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let end = End::unread(Outcome::UpstreamError, Some(error_type));
    let code = error_type.as_str();
    let words = Words { api: provider.api, status, code, message: &message, retry_after: Some(wait) };
    let mut response = in_words(rooms, &words, end, entry);
    quotas::write(response.headers_mut(), None, &[], Again::In(wait), SystemTime::now());
    response
}

/// The provider was not asked: AWS would not have accepted what weir had to send.
fn unsigned(rooms: &Rooms, provider: &Provider, why: &Unsigned, mut entry: Entry) -> Response<Body> {
    let (status, outcome, error_type) = match why {
        Unsigned::NotConfigured
        | Unsigned::SignedPieces
        | Unsigned::OtherRegion { .. }
        | Unsigned::NoRegion
        | Unsigned::Unfit(_) => {
            let status = StatusCode::BAD_REQUEST;
            (status, Outcome::ClientError, ErrorType::Status(status.as_u16()))
        }
        Unsigned::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Outcome::ClientError, ErrorType::BodyTooLarge),
        // A status that SDKs try again at: credentials may be there a moment later.
        Unsigned::NoIdentity(_) => (StatusCode::SERVICE_UNAVAILABLE, Outcome::InternalError, ErrorType::Other),
    };
    entry.unsent();
    let message = format!("weir did not ask provider `{}`: {why}", provider.name);
    let end = End { detail: Some(causes(why).into()), ..End::unread(outcome, Some(error_type)) };
    in_words(
        rooms,
        &Words { api: provider.api, status, code: "unsigned_request", message: &message, retry_after: None },
        end,
        entry,
    )
}

/// The request is for nobody weir knows.
pub(super) fn not_found(rooms: &Rooms, path: &str, entry: Entry) -> Response<Body> {
    if route::climbs(path) {
        let message =
            format!("weir does not forward `{path}`: it has `..` in it, which leads out of a provider's base URL");
        return not_routed(rooms, StatusCode::BAD_REQUEST, "path_leads_upwards", &message, entry);
    }
    let names: Vec<&str> = rooms.destinations.keys().map(|name| &**name).collect();
    let message = format!(
        "weir has no provider for `{path}`: paths begin with /{} (or with /v1/, for {})",
        names.join("/, /") + "/",
        rooms.default_destination.provider.name
    );
    not_routed(rooms, StatusCode::NOT_FOUND, "unknown_provider", &message, entry)
}

/// The request goes nowhere.
fn not_routed(rooms: &Rooms, status: StatusCode, code: &str, message: &str, entry: Entry) -> Response<Body> {
    let end = End::unread(Outcome::ClientError, Some(ErrorType::Status(status.as_u16())));
    in_words(rooms, &Words { api: Api::OpenAi, status, code, message, retry_after: None }, end, entry)
}

/// The app wants a stored answer only, and there is none that may answer.
pub(super) fn not_stored(rooms: &Rooms, entry: Entry) -> Response<Body> {
    // "respond with either a stored response consistent with the other constraints of the request, or a 504 (Gateway
    // Timeout) status code" (RFC 9111, section 5.2.1.7).
    let status = StatusCode::GATEWAY_TIMEOUT;
    let api = entry.provider().map_or(Api::OpenAi, |provider| provider.api);
    let message = "no stored answer may serve this request, and its `Cache-Control: only-if-cached` wants no other: \
                   leave that out to have the provider asked";
    let end = End::unread(Outcome::ClientError, Some(ErrorType::Status(status.as_u16())));
    let mut response =
        in_words(rooms, &Words { api, status, code: "not_stored", message, retry_after: None }, end, entry);
    // It would be the same again: the SDKs of OpenAI and Anthropic heed this, and try again at any 5xx without it.
    response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    response
}

/// A limit or a budget that the operator set has no room for the call.
pub(super) fn refused(rooms: &Rooms, provider: &Provider, refusal: &Refusal, mut entry: Entry) -> Response<Body> {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let (outcome, code) = match refusal.why {
        Why::Full(_) => (Outcome::RateLimited, quotas::RATE_LIMIT_EXCEEDED),
        Why::Over(_) => (Outcome::BudgetBlocked, quotas::INSUFFICIENT_QUOTA),
    };
    if outcome == Outcome::BudgetBlocked {
        entry.tell(|told| told.budget = Some(Arc::clone(&refusal.rule)));
    }
    let message = refusal.to_string();
    let again = again(refusal);
    let end = End::unread(outcome, Some(ErrorType::Status(status.as_u16())));
    let words = Words { api: provider.api, status, code, message: &message, retry_after: again.wait() };
    let mut response = in_words(rooms, &words, end, entry);
    let full: Vec<_> = refusal.full.iter().map(|(name, quota)| own_quota(name, quota)).collect();
    let words = provider.api.dialect().quotas;
    quotas::write(response.headers_mut(), words, &full, again, SystemTime::now());
    response
}

/// When there is room again.
fn again(refusal: &Refusal) -> Again {
    match (refusal.retry_after, refusal.why) {
        (Some(wait), _) => Again::In(wait),
        // It would be the same again for as long as the budget's window lasts.
        (None, Why::Over(Over { is_spent: true, .. })) => Again::Never,
        // Calls in progress hold it, and end.
        (None, _) => Again::Soon,
    }
}

/// A limit in the words of a refusal.
fn own_quota<'a>(name: &'a str, quota: &Quota) -> OwnQuota<'a> {
    let &Quota { unit, limit, period, remaining, reset } = quota;
    let unit = match unit {
        Unit::Requests => quotas::Unit::Of(QuotaKind::Requests),
        Unit::Tokens => quotas::Unit::Of(QuotaKind::Tokens),
        Unit::Calls => quotas::Unit::ConcurrentRequests,
    };
    OwnQuota { name, unit, limit, window: period, remaining, resets_in: reset }
}

/// The call belongs to a runaway loop, and the operator wants no more of it.
pub(super) fn runaway(rooms: &Rooms, entry: Entry) -> Response<Body> {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let api = entry.provider().map_or(Api::OpenAi, |provider| provider.api);
    let knob = entry.runaway().map_or("", |runaway| runaway.reason.knob());
    let why = entry.runaway().map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "this run is taken for a runaway loop: {why}. Its further calls are refused: go on with another `{}`, or raise \
         `{knob}`",
        rooms.settings.identity.run_header
    );
    let end = End {
        detail: Some(format!("a runaway loop: {why}").into()),
        ..End::unread(Outcome::RateLimited, Some(ErrorType::Status(status.as_u16())))
    };
    let words = Words { api, status, code: "runaway_loop", message: &message, retry_after: None };
    let mut response = in_words(rooms, &words, end, entry);
    // It would be refused again: waiting does not help.
    response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    response
}

/// The app's body broke off, and nobody is likely to read the answer; or it stalled.
pub(super) fn broken_request(rooms: &Rooms, provider: &Provider, broken: &BrokenBody, entry: Entry) -> Response<Body> {
    if let BrokenBody::Stalled(patience) = broken {
        return stalled(rooms, provider, *patience, entry);
    }
    let message = "the request's body broke off before all of it had come";
    let words = Words {
        api: provider.api,
        status: StatusCode::BAD_REQUEST,
        code: "incomplete_body",
        message,
        retry_after: None,
    };
    in_words(rooms, &words, End::unread(Outcome::Cancelled, Some(ErrorType::Cancelled)), entry)
}

/// The app said nothing more in the middle of its request, for so long.
fn stalled(rooms: &Rooms, provider: &Provider, patience: Duration, entry: Entry) -> Response<Body> {
    let status = StatusCode::REQUEST_TIMEOUT;
    let message = format!(
        "nothing more of the request's body came within {}: send it without pauses, or raise `calls.body_timeout`",
        humantime::format_duration(patience)
    );
    let words = Words { api: provider.api, status, code: "request_timeout", message: &message, retry_after: None };
    let end = End::unread(Outcome::ClientError, Some(ErrorType::Status(status.as_u16())));
    let mut response = in_words(rooms, &words, end, entry);
    // "The server SHOULD send the `close` connection option": what is still to come of the body would be taken for the
    // next request (RFC 9110, section 15.5.9). HTTP/2 has its own end of a stream, and hyper leaves this out there.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// An error of weir's own, still to be put in an API's shape.
struct Words<'a> {
    api: Api,
    status: StatusCode,
    code: &'a str,
    message: &'a str,
    /// In how long to try again, where that can be told.
    retry_after: Option<Duration>,
}

fn in_words(rooms: &Rooms, words: &Words<'_>, end: End, mut entry: Entry) -> Response<Body> {
    let &Words { api, status, code, message, retry_after } = words;
    let request_id = entry.id().to_string();
    let body = (api.dialect().error)(&Problem { status, code, message, request_id: &request_id, retry_after });
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, body.len().into());
    if let Some((name, value)) = &api.dialect().error_type {
        headers.insert(name, HeaderValue::from_static(value(status)));
    }
    announce(rooms, &mut headers, &entry, Told::Own { code });
    entry.handed(status.as_u16());
    response(status, headers, Body::whole(body.into(), entry, end))
}

fn response(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug)]
enum Told<'a> {
    /// It was stored, and is fresh for so many seconds more, or has been stale for as many; as it is told, or in another
    /// form; for an equal request, or for one that is so similar.
    Stored { ttl: i64, is_rendered: bool, similarity: Option<f32> },
    /// It was recorded: that does not age.
    Replayed,
    /// The provider.
    Forwarded,
    /// The provider, asked by an equal call.
    Collapsed,
    /// weir itself, for this reason.
    Own { code: &'a str },
}

/// What weir says of its own part, in `X-Cache`, `Cache-Status` (RFC 9211), `X-Weir-Request-Id` and `X-Weir-Trace-Id`.
fn announce(rooms: &Rooms, headers: &mut HeaderMap, entry: &Entry, told: Told<'_>) {
    if !rooms.settings.response_headers {
        return;
    }
    let short = match entry.cache_status() {
        _ if matches!(told, Told::Collapsed) => "COALESCED",
        CacheStatus::Hit if entry.similarity().is_some() => "SIMILAR",
        CacheStatus::Hit => "HIT",
        CacheStatus::Miss | CacheStatus::Expired => "MISS",
        CacheStatus::Bypass(_) => "BYPASS",
    };
    headers.insert(X_CACHE, HeaderValue::from_static(short));
    headers.append(CACHE_STATUS, text(cache_status(entry.cache_status(), entry.attempt(), told)));
    headers.insert(REQUEST_ID, text(entry.id().to_string()));
    if let Some(trace) = entry.trace().filter(|trace| trace.is_sampled) {
        headers.insert(TRACE_ID, text(trace.id.to_string()));
    }
    if let Some(Downgrade { from, budget }) = entry.downgrade() {
        headers.insert(DOWNGRADED, text(format!("{}; budget={}", quotas::item(from), quotas::quoted(budget))));
    }
}

/// A member of `Cache-Status` (RFC 9211, section 2). Whether the answer will be stored is not known yet, and the key is
/// nobody's business.
fn cache_status(status: CacheStatus, attempt: Option<Attempt>, told: Told<'_>) -> String {
    let (forward, reason) = match status {
        CacheStatus::Hit => ("hit", None),
        // The key is made of more than the URI: whether another was stored for the same URI cannot be told.
        CacheStatus::Miss => ("fwd=miss", None),
        CacheStatus::Expired => ("fwd=stale", None),
        CacheStatus::Bypass(BypassReason::RequestDirective) => ("fwd=request", None),
        CacheStatus::Bypass(reason) => ("fwd=bypass", Some(reason.as_str())),
    };
    let detail = reason.map(|reason| ["; detail=", reason]).unwrap_or_default().concat();
    match (told, attempt) {
        (Told::Replayed, _) => "weir; hit; detail=replay".to_owned(),
        (Told::Stored { ttl, similarity: Some(cosine), .. }, _) => {
            format!("weir; hit; ttl={ttl}; detail=\"similar={cosine:.3}\"")
        }
        (Told::Stored { ttl, is_rendered: true, .. }, _) => format!("weir; hit; ttl={ttl}; detail=rendered"),
        (Told::Stored { ttl, .. }, _) => format!("weir; hit; ttl={ttl}"),
        // By hand, as nearly every answer is such a one.
        (Told::Forwarded, Some(Attempt::Answered(status))) => {
            let status = StatusCode::from_u16(status).expect("what was answered has a status");
            ["weir; ", forward, "; fwd-status=", status.as_str(), &detail].concat()
        }
        (Told::Forwarded, _) => format!("weir; {forward}{detail}"),
        (Told::Collapsed, _) => format!("weir; {forward}; collapsed"),
        (Told::Own { code }, Some(_)) => format!("weir; {forward}; detail=\"{code}\""),
        (Told::Own { code }, None) => format!("weir; detail=\"{code}\""),
    }
}

/// The seconds for which a response of this age is fresh: fewer than none if it is stale.
fn ttl(lifetime: Duration, age: Duration) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match lifetime.checked_sub(age) {
        Some(left) => seconds(left),
        None => -seconds(age.saturating_sub(lifetime).saturating_add(Duration::from_nanos(999_999_999))),
    }
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("tokens and digits make a header value")
}

/// An error and its causes, each once, for the operator.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(reason) = cause {
        let reason_text = reason.to_string();
        if !text.contains(&reason_text) {
            text.push_str(": ");
            text.push_str(&reason_text);
        }
        cause = reason.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_is_worded_as_rfc_9211_asks() {
        let answered = Some(Attempt::Answered(200));
        let own = Told::Own { code: "timeout" };
        let bypass = CacheStatus::Bypass;
        let stored = |ttl, is_rendered, similarity| Told::Stored { ttl, is_rendered, similarity };
        for (status, attempt, told, expected) in [
            (CacheStatus::Hit, None, stored(30, false, None), "weir; hit; ttl=30"),
            (CacheStatus::Hit, None, stored(-5, true, None), "weir; hit; ttl=-5; detail=rendered"),
            (CacheStatus::Hit, None, stored(30, true, Some(0.9731)), "weir; hit; ttl=30; detail=\"similar=0.973\""),
            (CacheStatus::Miss, answered, Told::Forwarded, "weir; fwd=miss; fwd-status=200"),
            (CacheStatus::Expired, answered, Told::Forwarded, "weir; fwd=stale; fwd-status=200"),
            (CacheStatus::Miss, None, Told::Collapsed, "weir; fwd=miss; collapsed"),
            (CacheStatus::Expired, None, Told::Collapsed, "weir; fwd=stale; collapsed"),
            (
                bypass(BypassReason::RequestDirective),
                Some(Attempt::Answered(429)),
                Told::Forwarded,
                "weir; fwd=request; fwd-status=429",
            ),
            (bypass(BypassReason::Off), answered, Told::Forwarded, "weir; fwd=bypass; fwd-status=200; detail=off"),
            (CacheStatus::Miss, Some(Attempt::TimedOut), own, "weir; fwd=miss; detail=\"timeout\""),
            (bypass(BypassReason::Unread), None, own, "weir; detail=\"timeout\""),
        ] {
            assert_eq!(cache_status(status, attempt, told), expected);
        }
    }

    #[test]
    fn a_ttl_is_negative_as_soon_as_a_response_is_stale() {
        let millis = Duration::from_millis;
        for (lifetime, age, expected) in
            [(60_000, 0, 60), (60_000, 59_500, 0), (60_000, 60_000, 0), (60_000, 60_001, -1), (60_000, 61_001, -2)]
        {
            assert_eq!(ttl(millis(lifetime), millis(age)), expected, "{age}");
        }
    }
}
