//! Cache: what may be stored, under which key, for how long. Sees keys and responses; not providers, not prices.

mod decimal;
pub mod flight;
pub mod freshness;
pub mod invalidation;
pub mod key;
pub mod memory;
pub mod pace;
pub mod policy;
pub mod recording;
pub mod refresh;
pub mod shared;
pub mod similar;
pub mod wording;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cache::freshness::{Verdict, judge};
use crate::cache::invalidation::{Asked, Entry, Filter, Rules};
use crate::cache::key::Key;
use crate::cache::memory::{Memory, Occupancy, OnEvicted, Place};
use crate::cache::pace::Pace;
use crate::cache::policy::{Mode, Policy, Preferences, Rule, Terms};
use crate::cache::refresh::{Refresh, Refreshes};
use crate::cache::shared::{Shared, Unasked};
use crate::record::ReplyFacts;
use crate::record::call::Form;
use crate::record::outcome::BypassReason;
use crate::record::trace::Context;
use crate::record::usage::Usage;
use crate::store;
use crate::units::{Backlog, ByteSize, PicoUsd, Span};

/// What the operator writes of the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is cached: `all` that may be, only the `deterministic` (where nothing is sampled: embeddings and the like,
    /// a temperature of exactly 0, or a seed), only what requests ask for by their headers (`opt_in`), or nothing
    /// (`off`). For tests: `record` every answer into a file, `replay` answers from files.
    pub mode: Mode,
    /// How long a stored answer may serve. A request's `X-Cache-TTL` goes before it.
    pub ttl: Span,
    /// How long after that it may still serve, at once, while a new one is fetched in the background.
    pub stale_while_revalidate: Span,
    /// Most answers fetched in the background at once; further ones stay stale until they are asked for again.
    pub max_refreshes: usize,
    /// What holds for some requests in place of the above: the first rule that is for a request counts, and what it
    /// leaves out is as above.
    #[schemars(example = [Rule::example()])]
    pub rules: Vec<Rule>,
    /// Whether an answer that is stored in one form may also answer in another: one that came in one piece a call that
    /// streams, and the reverse. What cannot be told in another form without loss does not: the provider is asked.
    pub cross_mode: bool,
    /// Most answers held. Together with `max_bytes`: each answer counts as at least `max_bytes / max_entries`.
    pub max_entries: u64,
    /// Most memory held by answers, with all that belongs to them.
    pub max_bytes: ByteSize,
    /// The largest answer worth storing.
    pub max_entry_bytes: ByteSize,
    /// Which answers are given up when there is no more room: by `tiny_lfu`, those asked for least often, and a new one
    /// is taken in only if it is asked for more often than those it would displace; by `lru`, those not asked for for
    /// the longest time.
    pub eviction: EvictionPolicy,
    /// Equal calls at the same time: one asks, all get the answer.
    pub single_flight: flight::Settings,
    /// A Redis or Valkey that replicas share answers, limits and budgets in. Without it, each keeps its own.
    #[schemars(example = store::Settings::example())]
    pub redis: Option<store::Settings>,
    /// The directory of the recordings, for the modes `record`, which makes it, and `replay`. From the working directory.
    #[schemars(example = "tests/recordings")]
    pub recordings: Option<PathBuf>,
    /// Answers to similar requests: those whose last user message says the same in other words. Off without
    /// `similar.url`.
    pub similar: similar::Settings,
    /// How a stored stream is given to an app: all of it at once (`instant`), or piece by piece with the time between
    /// them in which it came from the provider (`recorded`).
    pub replay: Replay,
}

/// How a stored stream is given to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// All of it at once.
    Instant,
    /// As it came from the provider.
    Recorded,
}

/// Which answers are given up when there is no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvictionPolicy {
    /// The least often used.
    TinyLfu,
    /// The least recently used.
    Lru,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::All,
            ttl: Span::from_secs(3600),
            stale_while_revalidate: Span::from_secs(0),
            max_refreshes: 64,
            rules: Vec::new(),
            cross_mode: false,
            max_entries: 10_000,
            max_bytes: ByteSize::mib(64),
            max_entry_bytes: ByteSize::mib(1),
            eviction: EvictionPolicy::TinyLfu,
            single_flight: flight::Settings::default(),
            redis: None,
            recordings: None,
            similar: similar::Settings::default(),
            replay: Replay::Instant,
        }
    }
}

/// Stored responses and the rules they live by.
#[derive(Debug)]
pub struct Cache {
    policy: Policy,
    cross_mode: bool,
    max_entry_bytes: usize,
    replay: Replay,
    memory: Arc<Memory>,
    shared: Option<Arc<Shared>>,
    rules: Arc<Rules>,
    refreshes: Refreshes,
}

/// What a look-up found.
#[derive(Debug)]
pub enum Lookup {
    /// A response that may answer now.
    Usable(Usable),
    /// A fresh response, but not what the request wants: it is too old for it, or not fresh for long enough.
    Declined,
    /// A response, but too old.
    Stale,
    /// None.
    Absent,
}

/// A stored response that may answer now.
#[derive(Debug)]
pub struct Usable {
    /// The response.
    pub stored: Arc<Stored>,
    /// Its age.
    pub age: Duration,
    /// The task to fetch a new one, where that falls to whoever found this one.
    pub refresh: Option<Refresh>,
}

/// What a look into the second level came to. Of several looks, the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fetched {
    /// There is no second level, or it was not asked, because it would not answer.
    Unasked,
    /// It has nothing.
    Nothing,
    /// What it has is in memory, or something newer is: it is worth looking there again.
    There,
}

impl Cache {
    /// An empty cache. `on_evicted` is told of each response given up.
    #[must_use]
    pub fn new(settings: &Settings, on_evicted: OnEvicted) -> Self {
        let policy = Policy::new(settings);
        let entries_live = policy.longest_kept();
        Self {
            policy,
            cross_mode: settings.cross_mode,
            max_entry_bytes: settings.max_entry_bytes.as_len(),
            replay: settings.replay,
            memory: Arc::new(Memory::new(settings, on_evicted)),
            shared: None,
            rules: Arc::new(Rules::new(entries_live)),
            refreshes: Refreshes::new(settings.max_refreshes),
        }
    }

    /// The same stored responses, on other terms. How much there is room for does not change.
    #[must_use]
    pub fn on_terms(&self, settings: &Settings) -> Self {
        let policy = Policy::new(settings);
        self.rules.entries_live(policy.longest_kept());
        Self {
            policy,
            cross_mode: settings.cross_mode,
            max_entry_bytes: self.max_entry_bytes,
            replay: settings.replay,
            memory: Arc::clone(&self.memory),
            shared: self.shared.clone(),
            rules: Arc::clone(&self.rules),
            refreshes: self.refreshes.up_to(settings.max_refreshes),
        }
    }

    /// The same with a second level, which [`Cache::share`] has to fill.
    #[must_use]
    pub fn with_shared(self, shared: Option<Arc<Shared>>) -> Self {
        Self { shared, ..self }
    }

    /// Whether an answer that is stored in one form may also answer in another.
    #[must_use]
    pub const fn crosses_forms(&self) -> bool {
        self.cross_mode
    }

    /// The largest body worth keeping for [`Cache::store`].
    #[must_use]
    pub const fn max_entry_bytes(&self) -> usize {
        self.max_entry_bytes
    }

    /// How a stored stream is given.
    #[must_use]
    pub const fn replay(&self) -> Replay {
        self.replay
    }

    /// The terms of a request about this that has these `preferences`, and whose answer is drawn by chance or not.
    ///
    /// # Errors
    /// With the reason, if it has no use of the cache.
    pub fn terms(&self, about: &About, preferences: &Preferences, is_sampled: bool) -> Result<Terms, BypassReason> {
        self.policy.terms(about, preferences, is_sampled)
    }

    /// Looks for a response to a request.
    #[must_use]
    pub fn look_up(&self, reusable: &Reusable, now: Instant) -> Lookup {
        let key = &reusable.key;
        let stored = self.memory.get(key).filter(|stored| !self.rules.is_dead(&stored.entry(key)));
        stored.map_or(Lookup::Absent, |stored| self.judge(stored, reusable, now))
    }

    /// What a response stored under a request's key is to that request. The first who finds one that is to be fetched
    /// anew gets the task; but nothing is fetched for a request that wants a stored response only, or none stored.
    fn judge(&self, stored: Arc<Stored>, reusable: &Reusable, now: Instant) -> Lookup {
        let Reusable { key, terms, .. } = reusable;
        let age = stored.age(now);
        let refresh = match judge(age, stored.lifetime, terms.window, &terms.directives) {
            Verdict::Fresh | Verdict::Stale { revalidate: false } => None,
            Verdict::Stale { revalidate: true } if terms.directives.only_if_cached || !terms.may_store() => None,
            Verdict::Stale { revalidate: true } => self.refreshes.begin(*key),
            Verdict::Declined => return Lookup::Declined,
            Verdict::Expired => return Lookup::Stale,
        };
        Lookup::Usable(Usable { stored, age, refresh })
    }

    /// Looks for a response in the second level, if there is one, and takes it into memory unless a newer one has come
    /// there since. Waits no longer than the store's deadline. Dropping the future gives up the look-up.
    pub async fn fetch(&self, key: &Key) -> Fetched {
        let Some(shared) = &self.shared else { return Fetched::Unasked };
        let stored = match shared.find(key, &self.rules).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return Fetched::Nothing,
            Err(Unasked) => return Fetched::Unasked,
        };
        if self.memory.get(key).is_none_or(|own| own.since < stored.since) {
            self.memory.put(*key, Arc::new(stored));
        }
        Fetched::There
    }

    /// Writes what is stored to the second level, if there is one, tells rules to the others who share it, and hears
    /// theirs. Runs until it is dropped.
    pub async fn share(self: Arc<Self>) {
        if let Some(shared) = &self.shared {
            shared::work(&self, shared).await;
        }
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
        let Reusable { key, about, asked, terms, forms: _, similar: _ } = reusable;
        let (lifetime, keep_for) = (terms.lifetime, terms.keep_for());
        let stored = Arc::new(Stored { reply, about, asked, since: now, lifetime, keep_for });
        if let Some(shared) = &self.shared {
            shared.offer(key, &stored);
        }
        self.memory.put(key, stored);
    }

    /// Answers that wait to be written for others; `None` where nothing is shared.
    #[must_use]
    pub fn backlog(&self) -> Option<Backlog> {
        self.shared.as_ref().map(|shared| shared.backlog())
    }

    /// Whether there is a second level, whose other users hear of the rules made here.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The rules by which stored responses die.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// From now on, what `filter` names is dead; `made` is when that was decided. Then gives the dead up, and tells how
    /// many there were: that takes milliseconds for many entries, and is not for a thread that serves calls.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn invalidate(&self, filter: Filter, made: Instant, now: Instant) -> u64 {
        match &self.shared {
            Some(shared) => {
                let rule = invalidation::Rule { filter: filter.clone(), made_at: SystemTime::now() };
                shared.announce(rule, || self.rules.make(filter, made, now));
            }
            None => {
                self.rules.make(filter, made, now);
            }
        }
        self.give_up_the_dead()
    }

    fn give_up_the_dead(&self) -> u64 {
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
    /// Where its answer may be stored in other forms.
    pub forms: Option<Forms>,
    /// What of the request is compared with others that say the same, if anything is.
    pub similar: Option<similar::Sought>,
}

/// A question whose answers may be told in several forms, and are stored in each under a key of its own.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// The question, without what only says the form.
    pub question: Key,
    /// The form asked for.
    pub asked: Form,
}

impl Reusable {
    /// The same, asked for in another form. `None` if it has no others.
    #[must_use]
    pub fn in_form(&self, form: Form) -> Option<Self> {
        let forms = Forms { asked: form, ..self.forms? };
        Some(Self { key: forms.question.in_form(form), forms: Some(forms), ..self.clone() })
    }

    /// The question, in whatever form its answer is told.
    #[must_use]
    pub fn question(&self) -> Key {
        self.forms.map_or(self.key, |forms| forms.question)
    }

    /// The same request as if it had asked another `question`, whose answer may serve it as well. That is never fetched
    /// anew for it: it cannot ask for it.
    #[must_use]
    pub fn for_other(&self, question: Key) -> Self {
        Self {
            key: self.forms.map_or(question, |forms| question.in_form(forms.asked)),
            forms: self.forms.map(|forms| Forms { question, ..forms }),
            about: self.about.clone(),
            asked: self.asked,
            terms: Terms { window: Duration::ZERO, ..self.terms },
            similar: None,
        }
    }
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
    /// When the pieces of a stream came, as the app saw it, where it is to be given as it came.
    pub pace: Option<Pace>,
    /// What it said about itself.
    pub facts: ReplyFacts,
    /// What it used: saved each time it answers again. Empty where that is not known, or is still being estimated.
    pub usage: Arc<OnceLock<Usage>>,
    /// What the provider said it charges.
    pub provider_cost: Option<PicoUsd>,
    /// The span of the model call that brought it, where that is kept.
    pub origin: Option<Context>,
}

/// Header fields that hold for a stored response: they describe the body. All others belong to the exchange that
/// brought it (`date`, `set-cookie`, request ids, rate limits). Amazon says there what other vendors say in the body:
/// apps read the type of a stream's data and the token counts from it.
static KEPT_HEADERS: [HeaderName; 7] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    HeaderName::from_static("x-amzn-bedrock-content-type"),
    HeaderName::from_static("x-amzn-bedrock-input-token-count"),
    HeaderName::from_static("x-amzn-bedrock-output-token-count"),
    HeaderName::from_static("x-amzn-bedrock-cache-read-input-token-count"),
    HeaderName::from_static("x-amzn-bedrock-cache-write-input-token-count"),
];

/// The header fields of a response that are worth storing: copies of their own, for the ones that came are parts of
/// the connection's buffer, and would keep all of it.
#[must_use]
pub fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let found = || KEPT_HEADERS.iter().filter_map(|name| Some((name, headers.get(name)?)));
    let mut kept = HeaderMap::with_capacity(found().count());
    for (name, value) in found() {
        kept.extend(HeaderValue::from_bytes(value.as_bytes()).ok().map(|copy| (name.clone(), copy)));
    }
    kept
}

/// A stored response.
#[derive(Debug)]
pub struct Stored {
    reply: Reply,
    about: About,
    asked: Asked,
    since: Instant,
    lifetime: Duration,
    keep_for: Duration,
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

    /// What it takes of the memory, with its key and its places in moka, as the allocator hands it out.
    fn size(&self) -> u64 {
        let Reply { headers, body, pace, facts, .. } = &self.reply;
        let values = headers.values().map(|value| allocated(value.len()));
        let table = allocated(headers.capacity() * HEADER_BYTES);
        let strings = [&self.about.model, &self.about.namespace, &facts.model, &facts.id, &facts.service_tier]
            .into_iter()
            .chain([&facts.speed, &facts.inference_geo])
            .flatten();
        let words = facts.finish_reasons.iter().chain(&facts.tools);
        let lists = [&facts.finish_reasons, &facts.tools].map(|list| allocated(size_of_val(list.as_slice())));
        let parts = values.chain(strings.chain(words).map(|text| allocated(text.len()))).chain(lists).chain([
            table,
            allocated(body.len()),
            allocated(pace.as_ref().map_or(0, Pace::size)),
            FIXED_BYTES,
        ]);
        let handed_out = parts.sum::<usize>();
        (handed_out + handed_out / LOST_BETWEEN) as u64
    }
}

/// What each stored response takes whatever is in it: itself, its usage, what `Bytes` adds to a body that is shared, and
/// moka's: the key, the entry, its place in the table (twice as many as are in use) and in the lists by which it is
/// given up.
const FIXED_BYTES: usize = allocated(size_of::<Stored>() + COUNTS_BYTES)
    + allocated(size_of::<OnceLock<Usage>>() + COUNTS_BYTES)
    + allocated(24)
    + allocated(size_of::<Key>() + COUNTS_BYTES)
    + allocated(size_of::<Place>() + COUNTS_BYTES)
    + 448;

/// The part by which an allocator has taken more from the system than it has handed out: what lies between is too small
/// for what is asked for. Measured, by `tests/memory.rs`, where a million answers come and go: glibc's, a thirteenth.
const LOST_BETWEEN: usize = 13;

/// The two counts of an `Arc`.
const COUNTS_BYTES: usize = 16;

/// A place in a `HeaderMap`: hash, name, value and links, and its share of the index.
const HEADER_BYTES: usize = size_of::<HeaderName>() + size_of::<HeaderValue>() + 40;

/// What an allocator hands out for so many bytes: its own words, and the next of its sizes.
const fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16) }
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;

    use super::*;

    fn reply(headers: &[(&'static str, &str)]) -> Reply {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value")))
            .collect();
        Reply {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(b"{}"),
            pace: None,
            facts: ReplyFacts::default(),
            usage: Arc::default(),
            provider_cost: None,
            origin: None,
        }
    }

    /// A key for each number.
    pub(super) fn key(number: u64) -> Key {
        format!("{number:064x}").parse().expect("64 digits")
    }

    fn question(cache: &Cache, cache_control: &str) -> Reusable {
        let about = About { provider: "p".into(), model: None, namespace: None };
        let mut request = HeaderMap::new();
        request.insert(CACHE_CONTROL, cache_control.parse().expect("a header value"));
        let terms = cache.terms(&about, &Preferences::of(&request), true).expect("all is cached");
        Reusable { key: key(1), about, asked: cache.rules().asked(), terms, forms: None, similar: None }
    }

    #[test]
    fn a_dead_reply_is_absent_given_up_and_not_stored_again() {
        let cache = Cache::new(&Settings::default(), Box::new(|_| {}));
        let now = Instant::now();
        let asked = || question(&cache, "");
        let (stored, on_its_way) = (asked(), asked());
        cache.store(stored, reply(&[]), now);
        let other = Filter { provider: Some("other".into()), ..Filter::default() };
        assert_eq!(cache.invalidate(other, now, now), 0);
        assert!(matches!(cache.look_up(&asked(), now), Lookup::Usable(..)));
        assert_eq!(cache.invalidate(Filter::default(), now, now), 1);
        assert!(matches!(cache.look_up(&asked(), now), Lookup::Absent));
        assert!(cache.is_dead(&on_its_way, now));
        cache.store(on_its_way, reply(&[]), now);
        assert!(matches!(cache.look_up(&asked(), now), Lookup::Absent), "asked before, stored after");
        cache.store(asked(), reply(&[]), now);
        assert!(matches!(cache.look_up(&asked(), now), Lookup::Usable(..)), "asked after");
        assert_eq!(cache.occupancy().entries, 1);
    }

    /// A stored response with a body of so many bytes.
    pub(super) fn stored(bytes: usize) -> Stored {
        let about = About { provider: "p".into(), model: None, namespace: None };
        let lifetime = Duration::from_secs(60);
        let reply = Reply { body: vec![0; bytes].into(), ..reply(&[]) };
        let asked = Asked::default();
        Stored { reply, about, asked, since: Instant::now(), lifetime, keep_for: lifetime * 2 }
    }

    #[test]
    fn a_stored_reply_is_fresh_then_refreshed_then_stale() {
        let window = Span::from_secs(100);
        let settings = Settings { stale_while_revalidate: window, ..Settings::default() };
        let cache = Cache::new(&settings, Box::new(|_| {}));
        let start = Instant::now();
        let look_up = |cache_control, after| {
            let after = Duration::from_secs(after);
            match cache.look_up(&question(&cache, cache_control), start + after) {
                Lookup::Usable(Usable { age, refresh, .. }) => {
                    assert_eq!(age, after);
                    if refresh.is_some() { "usable, to be refreshed" } else { "usable" }
                }
                Lookup::Declined => "declined",
                Lookup::Stale => "stale",
                Lookup::Absent => "absent",
            }
        };
        assert_eq!(look_up("", 0), "absent");
        cache.store(question(&cache, ""), reply(&[]), start);
        for (cache_control, after, expected) in [
            ("", 3599, "usable"),
            ("max-age=5", 3599, "declined"),
            ("", 3600, "usable, to be refreshed"),
            ("only-if-cached", 3600, "usable"),
            ("max-stale=500", 3700, "usable"),
            ("", 3700, "stale"),
        ] {
            assert_eq!(look_up(cache_control, after), expected, "{cache_control} after {after}");
        }
    }

    #[test]
    fn one_of_those_who_find_a_stale_reply_is_to_refresh_it() {
        let settings = Settings { stale_while_revalidate: Span::from_secs(100), ..Settings::default() };
        let cache = Cache::new(&settings, Box::new(|_| {}));
        let start = Instant::now();
        cache.store(question(&cache, ""), reply(&[]), start);
        let find = || match cache.look_up(&question(&cache, ""), start + Duration::from_secs(3650)) {
            Lookup::Usable(usable) => usable.refresh,
            other => panic!("{other:?}"),
        };
        let refresh = find();
        assert!(refresh.is_some() && find().is_none());
        drop(refresh);
        assert!(find().is_some(), "it failed: another may try");
    }

    #[test]
    fn the_times_of_a_stream_are_counted() {
        let mut timed = stored(100);
        let without = timed.size();
        timed.reply.pace = Some(Pace::of([(Duration::ZERO, 1); 100]));
        assert!(timed.size() >= without + 800, "{} and {without}", timed.size());
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
