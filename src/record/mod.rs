//! Record: the nouns of the house. What was asked, what it used, what it cost, how it ended.
//!
//! A [`Record`] is built once, when an exchange closes, and is never changed after. Knows no wire format, no price, no
//! sink.

pub mod call;
pub mod content;
pub mod fingerprint;
pub mod head;
pub mod outcome;
pub mod prefix;
pub mod provenance;
pub mod trace;
pub mod usage;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::record::call::{Call, RequestId};
use crate::record::content::Content;
use crate::record::fingerprint::Fingerprint;
use crate::record::head::HeadFacts;
use crate::record::outcome::{BypassReason, CacheStatus, ErrorType, Outcome, Reuse, Role, StoreResult};
use crate::record::prefix::Prefixes;
use crate::record::provenance::Provenance;
use crate::record::trace::Trace;
use crate::record::usage::{Charge, Cost, Usage};

/// All that is known of one exchange once it is over. One per request of the app, whatever happened.
#[derive(Debug)]
pub struct Record {
    /// Names this exchange in logs and in `X-Weir-Request-Id`.
    pub id: RequestId,
    /// Its place in traces; `None` where none are kept.
    pub trace: Option<Box<Trace>>,
    /// What was asked, as far as weir could tell.
    pub call: Call,
    /// What the provider's reply said about itself; empty when it was not read.
    pub reply: ReplyFacts,
    /// What the head of the provider's reply said; empty when there was none.
    pub head: HeadFacts,
    /// The tokens: bought from the provider on a miss, saved by reuse; it says itself if it was estimated. `None` when
    /// nothing was reported and nothing could be estimated.
    pub usage: Option<Usage>,
    /// What the provider charges, or the price of `usage`: spent on a miss, saved by reuse.
    pub cost: Cost,
    /// Where `cost` comes from; `None` where there was nothing to bill.
    pub provenance: Option<Provenance>,
    /// What the price table says, where the provider stated the cost itself and the table knows the model.
    pub list_cost: Option<Charge>,
    /// The price table's id of the model, if it knows it.
    pub priced_model: Option<Arc<str>>,
    /// What the cache said and did.
    pub cache: CacheFacts,
    /// Which other model the app had asked for, if a budget had this one asked in its place.
    pub downgrade: Option<Downgrade>,
    /// How it ended for the app.
    pub outcome: Outcome,
    /// Why, if not well.
    pub error_type: Option<ErrorType>,
    /// The same in words for the operator; never holds a body or a credential.
    pub error_detail: Option<Box<str>>,
    /// What was said, where the operator wants that kept.
    pub content: Option<Box<Content>>,
    /// How its prompt begins, where there is a ledger to keep that; `None` if it is too short for any cache of prompts.
    pub prefixes: Option<Prefixes>,
    /// The HTTP status the app got; `None` if it hung up before there was one.
    pub status: Option<u16>,
    /// The attempt upstream, the last one if there were several; `None` if none was made.
    pub attempt: Option<Attempt>,
    /// What it took beside one attempt; `None` where none was made again.
    pub tries: Option<Box<Tries>>,
    /// When the request's head had been read, by the wall clock.
    pub arrived_at: SystemTime,
    /// How long each part took.
    pub timing: Timing,
    /// Bytes of body read from the app.
    pub bytes_in: u64,
    /// Bytes of body handed to the app.
    pub bytes_out: u64,
}

impl Record {
    /// Whether an app made the call: not weir itself, for a newer answer than the one that is stored, or to check what a
    /// similar request was answered with.
    #[must_use]
    pub const fn is_of_app(&self) -> bool {
        !matches!(self.cache.status, CacheStatus::Bypass(BypassReason::Refresh | BypassReason::Verify))
    }

    /// Whether an app asked a model, and was not refused before one was asked: what is a step of an agent loop, answered
    /// by reuse or not.
    #[must_use]
    pub const fn asked_a_model(&self) -> bool {
        self.is_of_app() && self.call.operation.is_billed() && self.was_answered()
    }

    /// Whether it was not refused before somebody was asked: there was an attempt upstream, or an answer to use again.
    #[must_use]
    pub const fn was_answered(&self) -> bool {
        self.attempt.is_some() || self.cache.reuse().is_some()
    }

    /// What was bought for it: nothing where the answer was there already.
    #[must_use]
    pub fn bought(&self) -> Option<&Usage> {
        self.usage.as_ref().filter(|_| self.call.operation.is_billed() && self.cache.reuse().is_none())
    }

    /// What was spent on it: nothing where the answer was there already.
    #[must_use]
    pub const fn spent(&self) -> Cost {
        if self.cache.reuse().is_some() { Cost::Nothing } else { self.cost }
    }
}

/// What a reply says about itself, in the provider's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplyFacts {
    /// The model that answered, which may be more exact than the one asked for.
    pub model: Option<Box<str>>,
    /// The provider's id of the reply.
    pub id: Option<Box<str>>,
    /// The tier the provider says it served (and bills) the call at.
    pub service_tier: Option<Box<str>>,
    /// How fast the provider says it served the call: Anthropic's `usage.speed`, Bedrock's `performanceConfig.latency`.
    pub speed: Option<Box<str>>,
    /// Where the provider says inference ran, as far as that sets the price: Anthropic's `usage.inference_geo`.
    pub inference_geo: Option<Box<str>>,
    /// Why the model stopped, one per choice, in the provider's words.
    pub finish_reasons: Vec<Box<str>>,
    /// Names of the tools the model asked to call, in order.
    pub tools: Vec<Box<str>>,
    /// What the app is to do before the model goes on: the fingerprint of the calls of its tools, by name and arguments.
    /// `None` if the model asks for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Fingerprint>,
}

/// The longest word of a provider's that is kept, in bytes: ids, names of models and tools, reasons.
const MAX_WORD_BYTES: usize = 128;

impl ReplyFacts {
    /// The app is to call its tool of this name. What [`ReplyFacts::argue`] brings until the next call are the arguments.
    pub fn call(&mut self, name: &str) {
        let calls = self.calls.get_or_insert_default();
        for word in [name, ""] {
            calls.push(word.as_bytes());
            calls.seam();
        }
    }

    /// A piece of the arguments of a call. How they are spaced does not matter, nor whether it is said that there are
    /// none. Pieces that belong to no call of the app's tools say nothing.
    pub fn argue(&mut self, piece: &str) {
        if let Some(calls) = self.calls.as_mut().filter(|_| piece != "{}") {
            piece.split_ascii_whitespace().for_each(|word| calls.push(word.as_bytes()));
        }
    }

    /// The same with every word cut to a length that suits a record. How many there are is bounded where they are read.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let single = [&mut self.model, &mut self.id, &mut self.service_tier, &mut self.speed, &mut self.inference_geo]
            .into_iter()
            .flatten();
        for word in single.chain(&mut self.finish_reasons).chain(&mut self.tools) {
            if word.len() > MAX_WORD_BYTES {
                let end = (0..=MAX_WORD_BYTES).rev().find(|at| word.is_char_boundary(*at)).unwrap_or(0);
                *word = word[..end].into();
            }
        }
        self
    }
}

/// That another model was asked than the app did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// The model that the app asked.
    pub from: Box<str>,
    /// The budget that is spent.
    pub budget: Arc<str>,
}

/// One attempt to get an answer from the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The provider answered with this HTTP status.
    Answered(u16),
    /// There was no answer before a deadline.
    TimedOut,
    /// There was no answer for another reason.
    Failed,
    /// It was given up, because another one beside it was answered.
    Abandoned,
}

/// What a call took beside one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How often it was made again.
    pub retries: u32,
    /// The way that it ended on, if that was not the provider's first.
    pub fallback: Option<Arc<str>>,
    /// Whether it was made a second time beside a slow first attempt.
    pub hedged: bool,
    /// Attempts that the provider may have worked on although weir did not wait for what came of them.
    pub left: u32,
}

/// The cache's part in an exchange.
#[derive(Clone, Copy, Debug)]
pub struct CacheFacts {
    /// What the look-up came to.
    pub status: CacheStatus,
    /// What memory said, and how long that took; `None` if it was not asked.
    pub lookup: Option<(CacheStatus, Duration)>,
    /// What became of the reply when it was offered; `None` if it was not.
    pub store: Option<StoreResult>,
    /// Its part among equal calls at the same time; `None` where it went alone.
    pub role: Option<Role>,
    /// How long it waited for the answers to equal calls in flight, in vain or not; `None` if it did not.
    pub waited: Option<Duration>,
    /// How similar the request is that the answer was made for; `None` if it is an equal one, or there was no hit.
    pub similarity: Option<f32>,
}

impl CacheFacts {
    /// The cache said this, and that is all.
    #[must_use]
    pub const fn new(status: CacheStatus) -> Self {
        Self { status, lookup: None, store: None, role: None, waited: None, similarity: None }
    }

    /// Where the answer was there already, or on its way, asked for by another call.
    #[must_use]
    pub const fn reuse(&self) -> Option<Reuse> {
        match (self.status, self.role) {
            (CacheStatus::Hit, _) if self.similarity.is_some() => Some(Reuse::Similar),
            (CacheStatus::Hit, _) => Some(Reuse::Stored),
            (_, Some(Role::Follower)) => Some(Reuse::Coalesced),
            (_, Some(Role::Leader) | None) => None,
        }
    }
}

/// Durations of one exchange. Every one is measured by the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Request head read → last byte of the response handed over (or the exchange given up).
    pub total: Duration,
    /// Request head read → request handed to the upstream, less the wait for the app's body.
    pub overhead_request: Option<Duration>,
    /// Response head from the provider → response head handed to the app.
    pub overhead_response: Option<Duration>,
    /// Request handed to the upstream → last byte of its answer, or its failure.
    pub upstream: Option<Duration>,
    /// Request head read → request handed to the upstream; of a response within a session, its beginning.
    pub sent: Option<Duration>,
    /// Request handed to the upstream → first piece of a streamed reply, whatever it says.
    pub first_chunk: Option<Duration>,
    /// Request handed to the upstream → first content, reasoning or tool delta of a streamed reply.
    pub first_token: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_provider_s_is_kept_longer_than_suits_a_record() {
        let (long, wide) = ("x".repeat(1 << 20), "ü".repeat(100));
        let facts = ReplyFacts {
            id: Some(long.as_str().into()),
            model: Some("gpt-5".into()),
            inference_geo: Some(long.as_str().into()),
            tools: vec!["look".into(), wide.as_str().into()],
            finish_reasons: vec![format!("a{wide}").into()],
            ..ReplyFacts::default()
        };
        let bounded = facts.bounded();
        assert_eq!([bounded.id.as_deref(), bounded.inference_geo.as_deref()], [Some(&long[..128]); 2]);
        assert_eq!(bounded.model.as_deref(), Some("gpt-5"));
        assert_eq!(bounded.tools, ["look".into(), Box::from(&wide[..128])]);
        assert_eq!(bounded.finish_reasons[0].len(), 127, "not in the middle of a character");
    }
}
