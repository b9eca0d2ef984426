//! Cache: what may be stored, under which key, for how long. Sees keys and responses; not providers, not prices.

mod decimal;
pub mod freshness;
pub mod invalidation;
pub mod key;
pub mod memory;
pub mod policy;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cache::freshness::{Directives, is_fresh};
use crate::cache::invalidation::{Asked, Entry, Filter, Rules};
use crate::cache::key::Key;
use crate::cache::memory::{Memory, Occupancy, OnEvicted};
use crate::cache::policy::Terms;
use crate::record::ReplyFacts;
use crate::record::usage::Usage;
use crate::units::{ByteSize, PicoUsd, Span};

/// What the operator writes of the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is cached: `all` that may be, or nothing (`off`).
    pub mode: Mode,
    /// How long a stored answer may serve.
    pub ttl: Span,
    /// Most answers held. Together with `max_bytes`: each answer counts as at least `max_bytes / max_entries`.
    pub max_entries: u64,
    /// Most memory held by answers.
    pub max_bytes: ByteSize,
    /// The largest answer worth storing.
    pub max_entry_bytes: ByteSize,
}

/// What is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All that may be.
    All,
    /// Nothing.
    Off,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::All,
            ttl: Span::from_secs(3600),
            max_entries: 10_000,
            max_bytes: ByteSize::mib(64),
            max_entry_bytes: ByteSize::mib(1),
        }
    }
}

/// Stored responses and the rules they live by.
#[derive(Debug)]
pub struct Cache {
    mode: Mode,
    ttl: Duration,
    max_entry_bytes: usize,
    memory: Memory,
    rules: Rules,
}

/// What a look-up found.
#[derive(Debug)]
pub enum Lookup {
    /// A response that may answer now, and its age.
    Fresh(Arc<Stored>, Duration),
    /// A response, but too old.
    Stale,
    /// None.
    Absent,
}

impl Cache {
    /// An empty cache. `on_evicted` is told of each response given up.
    #[must_use]
    pub fn new(settings: &Settings, on_evicted: OnEvicted) -> Self {
        let ttl = settings.ttl.get();
        // Kept as long again once stale, so that an answer that has expired can be told from one never seen.
        let keep = ttl.saturating_mul(2);
        let memory = Memory::new(settings.max_entries, settings.max_bytes, keep, on_evicted);
        let max_entry_bytes = settings.max_entry_bytes.as_len();
        Self { mode: settings.mode, ttl, max_entry_bytes, memory, rules: Rules::new(keep) }
    }

    /// Whether anything is cached at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        matches!(self.mode, Mode::All)
    }

    /// The largest body worth keeping for [`Cache::store`].
    #[must_use]
    pub const fn max_entry_bytes(&self) -> usize {
        self.max_entry_bytes
    }

    /// The terms of a request that says this of stored responses.
    #[must_use]
    pub const fn terms(&self, directives: Directives) -> Terms {
        Terms { directives, lifetime: self.ttl }
    }

    /// Looks for a response to the request that has this key.
    #[must_use]
    pub fn look_up(&self, key: &Key, now: Instant) -> Lookup {
        let stored = self.memory.get(key).filter(|stored| !self.rules.is_dead(&stored.entry(key)));
        let Some(stored) = stored else { return Lookup::Absent };
        let age = stored.age(now);
        if is_fresh(age, stored.lifetime) { Lookup::Fresh(stored, age) } else { Lookup::Stale }
    }

    /// Whether the answer to this request is dead before it is stored: a rule made since it was asked names it.
    #[must_use]
    pub fn is_dead(&self, reusable: &Reusable, now: Instant) -> bool {
        let Reusable { key, about, asked, .. } = reusable;
        self.rules.is_dead(&Entry { key, about, asked: *asked, since: now })
    }

    /// Stores a complete, successful reply, unless it [is dead](Self::is_dead); what was stored under its key before is
    /// replaced.
    pub fn store(&self, reusable: Reusable, reply: Reply, now: Instant) {
        if self.is_dead(&reusable, now) {
            return;
        }
        let Reusable { key, about, asked, terms } = reusable;
        self.memory.put(key, Stored { reply, about, asked, since: now, lifetime: terms.lifetime });
    }

    /// The rules by which stored responses die.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// From now on, what `filter` names is dead; `made` is when that was decided. Then gives the dead up, and tells how
    /// many there were: that takes milliseconds for many entries, and is not for a thread that serves calls.
    pub fn invalidate(&self, filter: Filter, made: Instant, now: Instant) -> u64 {
        self.rules.make(filter, made, now);
        self.memory.give_up(|key, stored| self.rules.is_dead(&stored.entry(key)))
    }

    /// How full it is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.memory.occupancy()
    }
}

/// What a stored response is about, beyond its key: what an operator can name it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The provider's configured name.
    pub provider: Arc<str>,
    /// The model asked for, as the app spelt it.
    pub model: Option<Box<str>>,
    /// The caller's namespace.
    pub namespace: Option<Box<str>>,
}

/// What makes the answer to a request reusable: the question it answers, and the request's own terms.
#[derive(Clone, Debug)]
pub struct Reusable {
    /// The question.
    pub key: Key,
    /// What it is about.
    pub about: About,
    /// When it was asked, as [`Rules::asked`] tells.
    pub asked: Asked,
    /// The terms.
    pub terms: Terms,
}

/// A reply worth storing.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields, as far as [`kept_headers`] keeps them.
    pub headers: HeaderMap,
    /// Its body, as the app saw it.
    pub body: Bytes,
    /// What it said about itself.
    pub facts: ReplyFacts,
    /// What it used: saved each time it answers again. Empty where that is not known, or is still being estimated.
    pub usage: Arc<OnceLock<Usage>>,
    /// What the provider said it charges.
    pub provider_cost: Option<PicoUsd>,
}

/// Header fields that hold for a stored response: they describe the body. All others belong to the exchange that
/// brought it (`date`, `set-cookie`, request ids, rate limits). Amazon says there what other vendors say in the body:
/// apps read the type of a stream's data and the token counts from it.
const KEPT_HEADERS: [HeaderName; 7] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    HeaderName::from_static("x-amzn-bedrock-content-type"),
    HeaderName::from_static("x-amzn-bedrock-input-token-count"),
    HeaderName::from_static("x-amzn-bedrock-output-token-count"),
    HeaderName::from_static("x-amzn-bedrock-cache-read-input-token-count"),
    HeaderName::from_static("x-amzn-bedrock-cache-write-input-token-count"),
];

/// The header fields of a response that are worth storing.
#[must_use]
pub fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let kept = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
    KEPT_HEADERS.iter().filter_map(kept).collect()
}

/// What a stored response takes beside its body, roughly: headers, facts, and moka's own.
const OVERHEAD_BYTES: u64 = 1024;

/// A stored response.
#[derive(Debug)]
pub struct Stored {
    reply: Reply,
    about: About,
    asked: Asked,
    since: Instant,
    lifetime: Duration,
}

impl Stored {
    /// What it is about.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// The reply.
    #[must_use]
    pub const fn reply(&self) -> &Reply {
        &self.reply
    }

    /// The time since it was stored (RFC 9111, section 4.2.3: no other cache has held it).
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// How long it may serve in all.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    fn entry<'a>(&'a self, key: &'a Key) -> Entry<'a> {
        Entry { key, about: &self.about, asked: self.asked, since: self.since }
    }

    fn size(&self) -> u64 {
        self.reply.body.len() as u64 + OVERHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::Question;

    fn reply(headers: &[(&'static str, &str)]) -> Reply {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value")))
            .collect();
        Reply {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(b"{}"),
            facts: ReplyFacts::default(),
            usage: Arc::default(),
            provider_cost: None,
        }
    }

    fn key() -> Key {
        Key::of(&Question {
            namespace: None,
            provider: "p",
            target: &[],
            credentials: &[],
            headers: &[],
            text: b"null",
            body: &serde_json_borrow::Value::Null,
            ignored: &[],
        })
    }

    fn reusable(cache: &Cache, provider: &str) -> Reusable {
        let about = About { provider: provider.into(), model: None, namespace: None };
        Reusable { key: key(), about, asked: cache.rules().asked(), terms: cache.terms(Directives::default()) }
    }

    #[test]
    fn a_dead_reply_is_absent_given_up_and_not_stored_again() {
        let cache = Cache::new(&Settings::default(), Box::new(|_| {}));
        let now = Instant::now();
        let (stored, on_its_way) = (reusable(&cache, "p"), reusable(&cache, "p"));
        cache.store(stored, reply(&[]), now);
        let other = Filter { provider: Some("other".into()), ..Filter::default() };
        assert_eq!(cache.invalidate(other, now, now), 0);
        assert!(matches!(cache.look_up(&key(), now), Lookup::Fresh(..)));
        assert_eq!(cache.invalidate(Filter::default(), now, now), 1);
        assert!(matches!(cache.look_up(&key(), now), Lookup::Absent));
        assert!(cache.is_dead(&on_its_way, now));
        cache.store(on_its_way, reply(&[]), now);
        assert!(matches!(cache.look_up(&key(), now), Lookup::Absent), "asked before, stored after");
        cache.store(reusable(&cache, "p"), reply(&[]), now);
        assert!(matches!(cache.look_up(&key(), now), Lookup::Fresh(..)), "asked after");
        assert_eq!(cache.occupancy().entries, 1);
    }

    #[test]
    fn a_stored_reply_is_fresh_then_stale() {
        let cache = Cache::new(&Settings::default(), Box::new(|_| {}));
        let start = Instant::now();
        assert!(matches!(cache.look_up(&key(), start), Lookup::Absent));
        cache.store(reusable(&cache, "p"), reply(&[]), start);
        let aged = Duration::from_secs(3599);
        assert!(matches!(cache.look_up(&key(), start + aged), Lookup::Fresh(_, age) if age == aged));
        assert!(matches!(cache.look_up(&key(), start + Duration::from_secs(3600)), Lookup::Stale));
    }

    #[test]
    fn only_headers_that_describe_the_body_are_kept() {
        let all = [
            ("content-type", "application/json"),
            ("x-amzn-bedrock-input-token-count", "7"),
            ("x-amzn-bedrock-invocation-latency", "250"),
            ("set-cookie", "a=b"),
            ("x-request-id", "1"),
            ("date", "now"),
        ];
        let kept = kept_headers(&reply(&all).headers);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["content-type", "x-amzn-bedrock-input-token-count"]);
    }
}
