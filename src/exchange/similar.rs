//! Similar: the corridor's part about requests that say the same in other words. What of a request is compared, the
//! search for an answer, what is learnt from one, and the check whether it was right to answer so.
//!
//! A call waits for nothing here but the vector of its text, and for that no longer than it is told to. Everything that
//! fails is a plain miss. What is near what is known by `cache::similar`; how vectors are made, by `embedding`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::cache::key::Key;
use crate::cache::memory::Occupancy;
use crate::cache::similar::{self, Candidates, Direction, Near, Settings, Sought, is_near};
use crate::cache::wording::Wording;
use crate::cache::{Fetched, Reusable, Usable};
use crate::exchange::crossing::{self, Crossed};
use crate::exchange::embedding::{self, Embedder, For};
use crate::exchange::entry::Entry;
use crate::exchange::recall::{self, Question};
use crate::exchange::{Asking, Rooms, ask_again};
use crate::provider::Ending;
use crate::provider::endpoint::Endpoint;
use crate::provider::last_words::last_words;
use crate::provider::reader::Reader;
use crate::record::call::RequestId;
use crate::record::outcome::{BypassReason, CacheStatus, NoVector, SimilarResult, Verdict};
use crate::semconv::attribute;
use crate::units::Share;
use crate::upstream::credential::Credential;

/// The request header by which an app declines: `off` keeps the text from the endpoint, and the answer from being
/// another's.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-cache-similar");

/// How many of the nearest are tried: the answer to the first may be gone, and is then looked for where replicas share
/// theirs, which takes milliseconds.
const MOST_TRIED: usize = 4;

/// Most answers learnt at once; of further ones the texts are not remembered.
const MOST_LEARNING: usize = 16;

/// Most answers checked at once; further ones are not checked.
const MOST_CHECKING: usize = 4;

/// How much of two answers is compared by a check: what most models take at once.
const MAX_COMPARED_BYTES: usize = 8 << 10;

/// What it takes to answer similar requests.
#[derive(Debug)]
pub struct Similar {
    threshold: Share,
    verify: Share,
    verify_threshold: Share,
    max_text_bytes: usize,
    texts: similar::Similar,
    embedder: Embedder,
    /// Places to learn.
    learning: Arc<Semaphore>,
    /// Places to check.
    checking: Arc<Semaphore>,
    /// Answers to similar requests, as far as one of them may have to be checked.
    hits: AtomicU64,
}

/// An answer to a similar request, and how similar that is.
pub(super) struct Similarly {
    pub(super) usable: Usable,
    pub(super) crossed: Option<Crossed>,
    pub(super) cosine: f32,
}

/// An answer that is to be checked.
pub(super) struct Check {
    answered: RequestId,
    similarity: Option<f32>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    _place: OwnedSemaphorePermit,
}

impl Similar {
    /// Nothing learnt yet. `endpoint` makes the vectors.
    #[must_use]
    pub fn new(settings: &Settings, endpoint: embedding::Endpoint) -> Self {
        Self {
            threshold: settings.threshold,
            verify: settings.verify,
            verify_threshold: settings.verify_threshold,
            max_text_bytes: settings.max_text_bytes.as_len(),
            texts: similar::Similar::new(settings),
            embedder: Embedder::new(endpoint, settings.timeout.get()),
            learning: Arc::new(Semaphore::new(MOST_LEARNING)),
            checking: Arc::new(Semaphore::new(MOST_CHECKING)),
            hits: AtomicU64::new(0),
        }
    }

    /// The credential for whoever makes the vectors, if there is one.
    #[must_use]
    pub const fn credential(&self) -> Option<&Arc<Credential>> {
        self.embedder.credential()
    }

    /// What of a request is compared, if anything is; `context` is the key of all of it but that text.
    pub(super) fn sought(&self, question: &Question<'_>, context: impl FnOnce(&str) -> Key) -> Option<Sought> {
        let text = last_words(question.route.endpoint, question.body)?;
        let declines = || {
            let wishes = question.head.headers.get_all(HEADER);
            wishes.iter().any(|wish| wish.as_bytes().trim_ascii().eq_ignore_ascii_case(b"off"))
        };
        if text.len() > self.max_text_bytes || declines() {
            return None;
        }
        Some(Sought { context: context(text), wording: Wording::of(text), text: text.into(), direction: None })
    }

    /// How full it is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.texts.occupancy()
    }

    async fn search(
        &self,
        rooms: &Rooms,
        endpoint: Endpoint,
        candidates: Candidates,
        reusable: &mut Reusable,
    ) -> Result<Option<Similarly>, NoVector> {
        let Some(sought) = reusable.similar.as_mut() else { return Ok(None) };
        let direction = self.embed(rooms, &sought.text, For::Call).await?;
        sought.direction = Some(direction.clone());
        let (threshold, context) = (self.threshold, sought.context);
        let near = spawn_blocking(move || candidates.near(&direction, threshold)).await.unwrap_or_default();
        for Near { question, cosine } in near.into_iter().take(MOST_TRIED) {
            let other = reusable.for_other(question);
            let look_up = || recall::look_up(rooms, endpoint, &other, Instant::now());
            let mut found = look_up();
            if found.is_err() && crossing::fetch(rooms, endpoint, &other).await == Fetched::There {
                found = look_up();
            }
            match found {
                Ok((usable, crossed)) => return Ok(Some(Similarly { usable, crossed, cosine })),
                // It is there, but not what this request wants.
                Err(CacheStatus::Bypass(_)) => {}
                Err(_gone) => self.texts.remove(&context, &question),
            }
        }
        Ok(None)
    }

    async fn embed(&self, rooms: &Rooms, text: &str, who: For) -> Result<Direction, NoVector> {
        let made = self.embedder.embed(text, who).await;
        rooms.sinks.embedded(made.as_ref().err().copied());
        made
    }

    /// Whether two answers say the same.
    async fn compare(&self, rooms: &Rooms, one: &str, other: &str) -> Verdict {
        if one == other {
            return Verdict::Same;
        }
        let (one, other) = (beginning(one, MAX_COMPARED_BYTES), beginning(other, MAX_COMPARED_BYTES));
        let (one, other) = tokio::join!(self.embed(rooms, one, For::Nobody), self.embed(rooms, other, For::Nobody));
        let cosine = one.ok().zip(other.ok()).and_then(|(one, other)| one.cosine(&other));
        match cosine.map(|cosine| is_near(cosine, self.verify_threshold)) {
            Some(true) => Verdict::Same,
            Some(false) => Verdict::Different,
            None => Verdict::Failed,
        }
    }
}

/// Looks for the answer to a request that says the same. A call that gives up waiting drops the future.
pub(super) async fn look_up(rooms: &Rooms, endpoint: Endpoint, reusable: &mut Reusable) -> Option<Similarly> {
    let similar = rooms.similar.as_ref()?;
    let candidates = similar.texts.candidates(reusable.similar.as_ref()?)?;
    let started = Instant::now();
    let (result, found) = match similar.search(rooms, endpoint, candidates, reusable).await {
        Ok(Some(found)) => (SimilarResult::Hit, Some(found)),
        Ok(None) => (SimilarResult::Miss, None),
        Err(why) => (SimilarResult::Unseen(why), None),
    };
    rooms.sinks.searched(result, started.elapsed());
    found
}

/// Whether this answer, told so, is to be checked: the share of them that the operator wants, evenly.
pub(super) fn check(rooms: &Rooms, usable: &Usable, crossed: Option<&Crossed>, entry: &Entry) -> Option<Check> {
    let similar = rooms.similar.as_ref()?;
    if !falls_on(similar.verify, similar.hits.fetch_add(1, Ordering::Relaxed)) {
        return None;
    }
    let place = Arc::clone(&similar.checking).try_acquire_owned().ok()?;
    let reply = usable.stored.reply();
    let (mut headers, mut body) = (reply.headers.clone(), reply.body.clone());
    if let Some(Crossed { rendered, .. }) = crossed {
        headers.remove(CONTENT_ENCODING);
        headers.insert(CONTENT_TYPE, rendered.content_type.clone());
        body = rendered.body.clone();
    }
    let (answered, similarity) = (entry.id(), entry.similarity());
    Some(Check { answered, similarity, status: reply.status, headers, body, _place: place })
}

/// Remembers that the text of `sought` asks this question, whose answer has just been stored. Where its vector is not
/// known yet, it is made beside the call.
pub(super) fn learn(rooms: &Arc<Rooms>, sought: Sought, question: Key) {
    let Some(similar) = &rooms.similar else { return };
    if let Some(direction) = sought.direction.clone() {
        return similar.texts.insert(&sought, direction, question);
    }
    let (Ok(place), Ok(runtime)) = (Arc::clone(&similar.learning).try_acquire_owned(), Handle::try_current()) else {
        return rooms.sinks.embedded(Some(NoVector::Skipped));
    };
    let its_rooms = Arc::clone(rooms);
    let learning = async move {
        let rooms = its_rooms;
        let Some(similar) = &rooms.similar else { return };
        let embedded = rooms.hard_stop.run_until_cancelled(similar.embed(&rooms, &sought.text, For::Nobody)).await;
        if let Some(Ok(direction)) = embedded {
            similar.texts.insert(&sought, direction, question);
        }
        drop(place);
    };
    rooms.tasks.spawn_on(learning, &runtime);
}

/// Begins to check an answer, if it is to be checked: makes the request all the same, and compares the two answers. It
/// ends with the house.
pub(super) fn begin_to_verify(rooms: &Arc<Rooms>, asking: Asking, check: Option<Check>) {
    let Some(check) = check.filter(|_| !rooms.tasks.is_closed()) else { return };
    let rooms = Arc::clone(rooms);
    rooms.tasks.clone().spawn(async move {
        let Some(verdict) = rooms.hard_stop.run_until_cancelled(Box::pin(verify(&rooms, asking, &check))).await else {
            return;
        };
        rooms.sinks.verified(verdict);
        tracing::debug!(
            { attribute::WEIR_REQUEST_ID } = %check.answered,
            { attribute::WEIR_CACHE_SIMILARITY } = check.similarity,
            { attribute::WEIR_CACHE_VERDICT } = verdict.as_str(),
            "checked the answer to a similar request"
        );
    });
}

async fn verify(rooms: &Arc<Rooms>, asking: Asking, check: &Check) -> Verdict {
    let (Some(similar), endpoint) = (&rooms.similar, asking.route.endpoint) else { return Verdict::Failed };
    let max_bytes = rooms.settings.max_reply_bytes.as_len();
    let (head, body) = ask_again(rooms, asking, BypassReason::Verify).await.into_parts();
    let Ok(body) = Limited::new(body, max_bytes).collect().await else { return Verdict::Failed };
    let own = said(Reader::open(endpoint, head.status, &head.headers, max_bytes), &body.to_bytes());
    let stored = said(Reader::open(endpoint, check.status, &check.headers, max_bytes), &check.body);
    match (own, stored) {
        (Some(own), Some(stored)) => similar.compare(rooms, &own, &stored).await,
        _ => Verdict::Failed,
    }
}

/// What a complete reply says in words; `None` if it is no success, or says nothing.
fn said(mut reader: Reader, body: &Bytes) -> Option<String> {
    reader.push(body, &mut |_, _| {});
    let said = reader.finish();
    let text = said.output.text();
    (said.ending == Ending::Complete && !text.is_empty()).then(|| text.to_owned())
}

/// Whether the share of a series falls on its item of this number: as near to it as whole items can be, at any time.
#[expect(clippy::cast_precision_loss, reason = "items stay far below 2^53")]
fn falls_on(share: Share, number: u64) -> bool {
    let until = |number: u64| (share.get() * number as f64).floor();
    until(number + 1) > until(number)
}

/// The beginning of a text, of at most so many bytes.
fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_falls_evenly() {
        let chosen = |percent, of| (0..of).filter(|number| falls_on(Share::percent(percent), *number)).count();
        for (percent, of, expected) in [(0, 1000, 0), (100, 1000, 1000), (25, 1000, 250), (1, 99, 0), (1, 100, 1)] {
            assert_eq!(chosen(percent, of), expected, "{percent} % of {of}");
        }
    }

    #[test]
    fn a_beginning_ends_between_letters() {
        assert_eq!(beginning("größe", 4), "grö");
        assert_eq!(beginning("größe", 3), "gr");
        assert_eq!(beginning("a", 9), "a");
    }
}
