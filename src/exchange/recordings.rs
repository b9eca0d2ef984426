//! Recordings: the corridor's part about answers kept for tests. While they are recorded, every call goes to its
//! provider and the answer into a file; while they are replayed, files answer and no call leaves.
//!
//! Says which requests are equal here: by what is asked of which provider, whoever asks and wherever the provider is.
//! What an answer looks like on its way to the app is the business of `exchange::reply`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use memchr::memmem;
use serde_json_borrow::Value;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::cache::Settings;
use crate::cache::key::{Key, Question};
use crate::cache::policy::Mode;
use crate::cache::recording::file::{self, Damages};
use crate::cache::recording::library::Library;
use crate::cache::recording::writer::{self, Recorder, Writer};
use crate::cache::recording::{self, Piece, Recording, Request, file_name, recorded_headers};
use crate::exchange::entry::Entry;
use crate::exchange::kept::Kept;
use crate::exchange::reply::{self, Body};
use crate::exchange::route::{self, Route};
use crate::exchange::{Destination, Rooms, form};
use crate::json;
use crate::provider::endpoint::Endpoint;
use crate::provider::{self, Asked, Ending, Provider, Reuse, Said};
use crate::record::call::{Delivery, Operation};
use crate::record::outcome::{BypassReason, CacheStatus, StoreResult};
use crate::units::Backlog;

/// What is done about recordings.
#[derive(Debug)]
pub enum Recordings {
    /// Nothing.
    Off,
    /// Every answer is recorded.
    Record {
        /// What takes them.
        recorder: Recorder,
        /// Whether it has been said that sessions are not recorded.
        said_of_sessions: AtomicBool,
    },
    /// Recordings answer, and nothing else does.
    Replay(Arc<Library>),
}

impl Recordings {
    /// What `settings` ask for, and what writes, where something is to be written.
    ///
    /// # Errors
    /// With every recording that is damaged, or that could never answer at these destinations.
    pub fn open(
        settings: &Settings,
        destinations: &BTreeMap<Arc<str>, Arc<Destination>>,
    ) -> Result<(Self, Option<Writer>), Damages> {
        match (settings.mode, &settings.recordings) {
            (Mode::Record, Some(dir)) => {
                let (recorder, writer) = writer::open(dir);
                Ok((Self::Record { recorder, said_of_sessions: AtomicBool::new(false) }, Some(writer)))
            }
            (Mode::Replay, Some(dir)) => Ok((Self::Replay(Arc::new(library(dir, destinations)?)), None)),
            _ => Ok((Self::Off, None)),
        }
    }

    /// Whether requests have to be read for them, whatever they are.
    pub(super) const fn are_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Whether they answer, and nothing else does.
    pub(super) const fn answer(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    /// Says, once, that sessions are not recorded, where anything is.
    pub(super) fn pass_session(&self) {
        if let Self::Record { said_of_sessions, .. } = self
            && !said_of_sessions.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("WebSocket sessions are not recorded: they go through, and cannot be replayed");
        }
    }

    /// Recordings that wait to be written; `None` where nothing is recorded.
    #[must_use]
    pub fn backlog(&self) -> Option<Backlog> {
        match self {
            Self::Record { recorder, .. } => Some(recorder.backlog()),
            Self::Off | Self::Replay(_) => None,
        }
    }

    /// Resolves once all that was recorded is written.
    pub async fn flush(&self) {
        if let Self::Record { recorder, .. } = self {
            recorder.flush().await;
        }
    }
}

fn library(dir: &Path, destinations: &BTreeMap<Arc<str>, Arc<Destination>>) -> Result<Library, Damages> {
    Library::new(dir, file::load(dir)?, |request| {
        let name = &*request.provider;
        let Some(to) = destinations.get(name) else {
            return Err(format!("there is no provider `{name}`: configure it below `providers`, or remove the file"));
        };
        Ok(key_of_recorded(&to.provider, request))
    })
}

/// The key of a request that was recorded: the same one as when it was asked.
fn key_of_recorded(provider: &Provider, request: &Request) -> Key {
    let Some(json) = json::opened(&request.body) else { return key(request, None) };
    let endpoint = (provider.api.dialect().endpoint)(&request.method, &request.path);
    let query = request.query.as_deref();
    let asked = (endpoint.format().asked)(&provider::Request { endpoint, path: &request.path, query, body: &json });
    key(request, Some((&json, &asked)))
}

/// The key of a request; of one in JSON, with what it asks. Neither credentials nor a namespace are part of it, for tests
/// run with other ones than those they were recorded with; nor is the base URL, which may be a test's own server.
fn key(request: &Request, read: Option<(&Value<'_>, &Asked<'_>)>) -> Key {
    let query = request.query.as_deref().unwrap_or_default();
    let (body, unread) = read.map_or((&Value::Null, &*request.body), |(json, _)| (json, b""));
    let ignored = read.map_or(&[][..], |(_, asked)| ignored(asked.reuse));
    // The members that do not count may say how the answer travels, or why it cannot be reused: that counts.
    let delivery = read.map_or("", |(_, asked)| if asked.delivery == Delivery::Stream { "stream" } else { "whole" });
    let ignoring = ignored.join(" ");
    let place = [request.method.as_str(), &request.path, query, delivery, &ignoring];
    let target: Vec<&[u8]> = place.into_iter().map(str::as_bytes).chain([unread]).collect();
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
    Key::of(&Question {
        namespace: None,
        provider: &request.provider,
        target: &target,
        credentials: &[],
        headers: &headers,
        text: &request.body,
        body,
        ignored,
    })
}

/// What of the body does not count: where an answer may be reused, what does not change it.
const fn ignored(reuse: Reuse) -> &'static [&'static str] {
    match reuse {
        Reuse::Allowed(ignored) => ignored,
        Reuse::Never => &[],
    }
}

/// A request, as recordings know it.
#[derive(Debug)]
pub(super) struct Recordable {
    key: Key,
    /// The name of its file.
    name: String,
    request: Request,
    ignored: &'static [&'static str],
}

/// What of a request tells what is asked.
pub(super) struct Sent<'a> {
    pub(super) route: &'a Route,
    pub(super) head: &'a Parts,
    pub(super) body: &'a Kept,
    /// The body without its content coding, where that can be undone.
    pub(super) plain: Option<&'a Bytes>,
}

/// The request, where anything is recorded or replayed and its body is all there. `json` is the body, where it is that.
pub(super) fn recordable(
    rooms: &Rooms,
    sent: &Sent<'_>,
    json: Option<&Value<'_>>,
    asked: &Asked<'_>,
) -> Option<Box<Recordable>> {
    let &Sent { route, head, body, plain } = sent;
    let (true, Kept::Whole(bytes)) = (rooms.recordings.are_on(), body) else { return None };
    let provider = &route.to.provider;
    let names: Vec<&str> =
        provider.api.dialect().credential_queries.iter().chain(CREDENTIAL_QUERIES).copied().collect();
    let (_, query) = route::part_credentials(head.uri.query(), &names);
    let request = Request {
        method: head.method.clone(),
        provider: (&*provider.name).into(),
        path: route.path(&head.uri).into(),
        query: query.map(Into::into),
        headers: telling_headers(route.endpoint, &head.headers),
        body: without_boundary(plain.unwrap_or(bytes), &head.headers),
    };
    let key = key(&request, json.map(|json| (json, asked)));
    let what = match asked.operation {
        Operation::Other => request.path.rsplit('/').next().unwrap_or_default(),
        operation => operation.as_str(),
    };
    let name = file_name(&request.provider, what, asked.model.as_deref(), &key);
    Some(Box::new(Recordable { key, name, request, ignored: ignored(asked.reuse) }))
}

/// Parameters of a query that hold credentials wherever they are.
const CREDENTIAL_QUERIES: &[&str] = &[
    "api-key",
    "api_key",
    "apikey",
    "subscription-key",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
];

/// Headers that change the answer but say only for whom it is.
const FOR_WHOM: [&str; 2] = ["openai-organization", "openai-project"];

/// The header fields that change the answer, each as one (RFC 9110, section 5.3).
fn telling_headers(endpoint: Endpoint, headers: &HeaderMap) -> HeaderMap {
    let names = endpoint.format().key_headers.iter().filter(|name| !FOR_WHOM.contains(name));
    names
        .filter_map(|name| {
            let values: Vec<&[u8]> = headers.get_all(*name).iter().map(HeaderValue::as_bytes).collect();
            let value = HeaderValue::from_bytes(&values.join(&b", "[..])).ok().filter(|_| !values.is_empty())?;
            Some((HeaderName::from_static(name), value))
        })
        .collect()
}

/// A form's body with a boundary that is always the same: clients make up a new one for each request.
fn without_boundary(body: &Bytes, headers: &HeaderMap) -> Bytes {
    const ALWAYS: &[u8] = b"weir-boundary";
    let Some(boundary) = form::boundary(headers) else { return body.clone() };
    let mut changed = Vec::with_capacity(body.len());
    let mut from = 0;
    for at in memmem::find_iter(body, boundary) {
        changed.extend_from_slice(&body[from..at]);
        changed.extend_from_slice(ALWAYS);
        from = at + boundary.len();
    }
    changed.extend_from_slice(&body[from..]);
    changed.into()
}

/// Answers from `library`, or says why it cannot.
pub(super) async fn replay(
    rooms: &Rooms,
    library: &Arc<Library>,
    route: &Route,
    asked: Option<Box<Recordable>>,
    mut entry: Entry,
) -> Response<Body> {
    let recording = asked.as_ref().and_then(|asked| library.find(&asked.key));
    entry.looked_up(if recording.is_some() { CacheStatus::Hit } else { CacheStatus::Miss }, None);
    if let Some(recording) = recording {
        return reply::replayed(rooms, route.endpoint, &recording.response, entry);
    }
    let library = Arc::clone(library);
    let explained = match asked {
        None => {
            Ok("weir has no recording of this request: its body is larger than `calls.max_request_bytes`".to_owned())
        }
        Some(asked) => spawn_blocking(move || library.explain(&asked.request, asked.ignored)).await,
    };
    let message = explained.unwrap_or_else(|_| "weir has no recording of this request".to_owned());
    reply::no_recording(rooms, &route.to.provider, &message, entry)
}

/// Refuses a session: none is recorded.
pub(super) fn refuse_session(rooms: &Rooms, route: &Route, mut entry: Entry) -> Response<Body> {
    entry.looked_up(CacheStatus::Miss, None);
    let message = "weir has no recording of this session: with `cache.mode: replay` no call leaves, and WebSocket \
                   sessions are not recorded; use plain HTTP in tests that replay";
    reply::no_recording(rooms, &route.to.provider, message, entry)
}

/// Prepares a call to be recorded: its answer is to come as text that can be read, and not from elsewhere.
pub(super) fn prepare(asked: Option<&Recordable>, headers: &mut HeaderMap, entry: &mut Entry) {
    let reason = if asked.is_some() { BypassReason::Recording } else { BypassReason::Unread };
    entry.looked_up(CacheStatus::Bypass(reason), None);
    if asked.is_some() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    } else {
        tracing::warn!("a call was not recorded: its body is larger than `calls.max_request_bytes`");
    }
}

/// A reply on its way into a recording.
pub(super) struct Take {
    recorder: Recorder,
    name: String,
    request: Option<Request>,
    headers: HeaderMap,
    body: BytesMut,
    limit: usize,
    /// The pieces of a stream.
    timing: Option<Vec<Piece>>,
    last: Instant,
}

/// Most pieces of a stream that are told apart; further ones are one with the last.
const MOST_PIECES: usize = 1 << 16;

impl Take {
    /// Of the reply to `asked` that has this head, if anything is recorded.
    pub(super) fn begin(
        rooms: &Rooms,
        asked: Box<Recordable>,
        headers: &HeaderMap,
        is_stream: bool,
    ) -> Option<Box<Self>> {
        let Recordings::Record { recorder, .. } = &*rooms.recordings else { return None };
        let Recordable { name, request, .. } = *asked;
        Some(Box::new(Self {
            recorder: recorder.clone(),
            name,
            request: Some(request),
            headers: recorded_headers(headers),
            body: BytesMut::new(),
            limit: rooms.settings.max_reply_bytes.as_len(),
            timing: is_stream.then(Vec::new),
            last: Instant::now(),
        }))
    }

    /// The next piece goes to the app.
    pub(super) fn push(&mut self, piece: &Bytes) {
        let room = (self.limit + 1).saturating_sub(self.body.len()).min(piece.len());
        // One byte over the limit is enough to know that it does not fit.
        self.body.extend_from_slice(&piece[..room]);
        let Some(timing) = &mut self.timing else { return };
        let after = self.last.elapsed();
        self.last += after;
        let is_full = timing.len() == MOST_PIECES;
        match timing.last_mut().filter(|_| is_full) {
            Some(last) => last.bytes += piece.len(),
            None => timing.push(Piece { bytes: piece.len(), after }),
        }
    }

    /// The reply came to its end, and said this.
    pub(super) fn finish(mut self, status: StatusCode, said: &Said) -> StoreResult {
        let Some(request) = self.request.take() else { return StoreResult::NotCacheable };
        let broke_off =
            self.timing.is_some() && said.ending == Ending::Unfinished && said.facts.finish_reasons.is_empty();
        if broke_off {
            return self.refuse("the stream broke off", StoreResult::NotCacheable);
        }
        if self.body.len() > self.limit {
            return self.refuse("the reply is larger than `calls.max_reply_bytes`", StoreResult::TooLarge);
        }
        let response = recording::Response {
            status,
            headers: std::mem::take(&mut self.headers),
            body: std::mem::take(&mut self.body).freeze(),
            timing: self.timing.take().unwrap_or_default(),
        };
        match self.recorder.take(std::mem::take(&mut self.name), Recording { request, response }) {
            Ok(()) => StoreResult::Stored,
            Err(full) => self.refuse(&full.to_string(), StoreResult::NotCacheable),
        }
    }

    fn refuse(&self, why: &str, result: StoreResult) -> StoreResult {
        tracing::warn!(file.name = %self.name, "a call was not recorded: {why}");
        result
    }
}

impl Drop for Take {
    /// Without an end, there is nothing to replay.
    fn drop(&mut self) {
        if self.request.is_some() {
            self.refuse("its reply broke off, or the app hung up", StoreResult::NotCacheable);
        }
    }
}

impl fmt::Debug for Take {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Take").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_the_same_whatever_separates_its_parts() {
        let form = |boundary: &str| {
            let mut headers = HeaderMap::new();
            let content_type = format!("multipart/form-data; boundary={boundary}");
            headers.insert("content-type", content_type.parse().expect("a value"));
            let body = format!("--{boundary}\r\n\r\na\r\n--{boundary}--\r\n");
            without_boundary(&Bytes::from(body), &headers)
        };
        assert_eq!(form("b0"), form("another-one"));
        assert_eq!(form("b0"), "--weir-boundary\r\n\r\na\r\n--weir-boundary--\r\n");
        assert_eq!(without_boundary(&Bytes::from_static(b"b0"), &HeaderMap::new()), "b0");
    }

    #[test]
    fn headers_that_change_the_answer_tell_requests_apart_and_those_that_say_for_whom_do_not() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("openai-beta", "a"),
            ("openai-beta", "b"),
            ("openai-organization", "org"),
            ("authorization", "Bearer k"),
            ("cookie", "c"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let found = telling_headers(Endpoint::ChatCompletions, &headers);
        assert_eq!(
            found.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect::<Vec<_>>(),
            [("openai-beta", &b"a, b"[..])]
        );
    }
}
