//! Embedding: the vector of a text, from an endpoint that offers OpenAI's embeddings. Whatever the endpoint does, the
//! answer is a vector or nothing, in time, and a bounded number of requests are under way.
//!
//! Calls that wait and work that goes on beside them have places and a breaker each, so that neither starves the other.
//! Knows no cache.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::cache::similar::Direction;
use crate::record::outcome::NoVector;
use crate::upstream::credential::Credential;
use crate::upstream::{Failure, RequestBody, Upstream};

/// The largest reply read. A vector of the largest models in JSON takes a tenth of it.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// The longest vector taken.
const MAX_DIMENSIONS: usize = 16_384;

/// Most calls that wait for the endpoint at once; further ones do without.
const MOST_WAITING: usize = 64;

/// Most requests under way at once for which no call waits.
const MOST_BESIDE: usize = 16;

/// How long a request may take for which no call waits.
const BESIDE_TIMEOUT: Duration = Duration::from_secs(5);

/// An endpoint that makes vectors of texts, and the way to it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where vectors are made.
    pub target: Uri,
    /// The model that makes them.
    pub model: Box<str>,
    /// The credential to show; none where nobody asks for one.
    pub credential: Option<Arc<Credential>>,
    /// The way there.
    pub upstream: Upstream,
}

/// Makes vectors of texts.
#[derive(Debug)]
pub(super) struct Embedder {
    endpoint: Endpoint,
    /// For calls that wait.
    calls: Lane,
    /// For what goes on beside calls.
    beside: Lane,
}

/// Who waits for a vector.
#[derive(Clone, Copy, Debug)]
pub(super) enum For {
    /// A call.
    Call,
    /// Nobody.
    Nobody,
}

impl Embedder {
    /// Has `endpoint` make vectors, in time for calls that wait `call_timeout`.
    pub(super) fn new(endpoint: Endpoint, call_timeout: Duration) -> Self {
        let (calls, beside) = (Lane::new(MOST_WAITING, call_timeout), Lane::new(MOST_BESIDE, BESIDE_TIMEOUT));
        Self { endpoint, calls, beside }
    }

    /// The credential that goes with the requests, if one does.
    pub(super) const fn credential(&self) -> Option<&Arc<Credential>> {
        self.endpoint.credential.as_ref()
    }

    /// The direction of `text`, or why there is none. Dropping the future gives the request up.
    pub(super) async fn embed(&self, text: &str, who: For) -> Result<Direction, NoVector> {
        let lane = match who {
            For::Call => &self.calls,
            For::Nobody => &self.beside,
        };
        let Ok(_place) = lane.places.try_acquire() else { return Err(NoVector::Skipped) };
        if !lane.breaker.lets_pass(Instant::now()) {
            return Err(NoVector::Skipped);
        }
        let (result, why) = match timeout(lane.timeout, self.ask(text)).await {
            Ok(Ok(direction)) => {
                lane.breaker.succeeded();
                return Ok(direction);
            }
            Ok(Err(unfit)) => (NoVector::Error, unfit),
            Err(_) => (NoVector::Timeout, Unfit::Late(lane.timeout)),
        };
        if lane.breaker.failed(Instant::now()) {
            let pause = humantime::format_duration(PAUSE);
            tracing::warn!(
                error.message = %why,
                server.address = self.endpoint.target.host().unwrap_or_default(),
                "the endpoint of cache.similar fails again and again: it is asked once in {pause} until it answers"
            );
        }
        Err(result)
    }

    async fn ask(&self, text: &str) -> Result<Direction, Unfit> {
        let Endpoint { target, model, credential, upstream } = &self.endpoint;
        let asked = Asked { model, input: text, encoding_format: "float" };
        let body = Bytes::from(serde_json::to_vec(&asked).expect("texts are JSON"));
        let length = HeaderValue::from(body.len());
        let mut request = Request::new(RequestBody::whole(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, length);
        if let Some(credential) = credential {
            headers.insert(AUTHORIZATION, credential.header_value());
        }
        let answer = upstream.send(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(Unfit::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_REPLY_BYTES).collect().await.map_err(|_| Unfit::Broken)?;
        let read: Answer = serde_json::from_slice(&body.to_bytes()).map_err(|_| Unfit::NoVector)?;
        match read.data.as_slice() {
            [one] if one.embedding.len() <= MAX_DIMENSIONS => Direction::of(&one.embedding).ok_or(Unfit::NoVector),
            _ => Err(Unfit::NoVector),
        }
    }
}

/// A request for one vector.
#[derive(Serialize)]
struct Asked<'a> {
    model: &'a str,
    input: &'a str,
    encoding_format: &'static str,
}

/// What comes back, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    data: Vec<Embedded>,
}

#[derive(Deserialize)]
struct Embedded {
    embedding: Vec<f32>,
}

/// Why there is no vector. Quotes nothing of a reply: some repeat the text they were asked about.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Unreached(#[from] Failure),
    #[error("it answers with status {0}")]
    Status(StatusCode),
    #[error("its reply breaks off, or is larger than {MAX_REPLY_BYTES} bytes")]
    Broken,
    #[error("its reply holds no vector that has a direction")]
    NoVector,
    #[error("it takes longer than {}", humantime::format_duration(*.0))]
    Late(Duration),
}

/// One kind of use: how much of it, how long, and whether at all.
#[derive(Debug)]
struct Lane {
    places: Semaphore,
    timeout: Duration,
    breaker: Breaker,
}

impl Lane {
    fn new(places: usize, timeout: Duration) -> Self {
        Self { places: Semaphore::new(places), timeout, breaker: Breaker::default() }
    }
}

/// So many failures in a row, and the endpoint is left alone for a while.
const FAILURES: u32 = 3;

/// For how long.
const PAUSE: Duration = Duration::from_secs(10);

/// Keeps requests from an endpoint that fails again and again.
#[derive(Debug, Default)]
struct Breaker(Mutex<Run>);

/// Failures without a success between them.
#[derive(Debug, Default)]
struct Run {
    failures: u32,
    /// When the next request may try.
    until: Option<Instant>,
}

impl Breaker {
    /// Whether a request may go now. After each pause, one may.
    fn lets_pass(&self, now: Instant) -> bool {
        let mut run = self.lock();
        match run.until {
            Some(until) if now < until => false,
            Some(_) => {
                run.until = Some(now + PAUSE);
                true
            }
            None => true,
        }
    }

    fn succeeded(&self) {
        *self.lock() = Run::default();
    }

    /// Whether this was the failure that makes it pause.
    fn failed(&self, now: Instant) -> bool {
        let mut run = self.lock();
        run.failures = run.failures.saturating_add(1);
        if run.failures >= FAILURES {
            run.until = Some(now + PAUSE);
        }
        run.failures == FAILURES
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_failures_in_a_row_only_one_request_a_pause_may_try_until_one_succeeds() {
        let breaker = Breaker::default();
        let start = Instant::now();
        let after = |pauses: u32| start + PAUSE * pauses;
        for _ in 0..FAILURES - 1 {
            assert!(breaker.lets_pass(start) && !breaker.failed(start));
        }
        breaker.succeeded();
        for _ in 0..FAILURES - 1 {
            assert!(breaker.lets_pass(start) && !breaker.failed(start), "they are not in a row");
        }
        assert!(breaker.lets_pass(start) && breaker.failed(start), "told once");
        assert!(!breaker.lets_pass(start));
        assert!(breaker.lets_pass(after(1)), "one tries");
        assert!(!breaker.lets_pass(after(1)), "one only");
        assert!(!breaker.failed(after(1)), "not told again");
        assert!(!breaker.lets_pass(after(1)));
        assert!(breaker.lets_pass(after(2)), "another one");
        breaker.succeeded();
        assert!(breaker.lets_pass(after(2)) && breaker.lets_pass(after(2)), "all again");
    }
}
