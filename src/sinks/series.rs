//! Series: the metric families, and the handles a call counts with.
//!
//! Label sets are resolved once per call, to a [`CallSeries`]; what follows are atomics (and a short mutex in each
//! histogram). Series that describe the same thing are made together, at zero: a counter that began at its first
//! increment would hide that increment from `increase()`. Knows labels and families; not what a record means.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::labels::other;
use crate::record::call::Operation;
use crate::record::outcome::{CacheStatus, Outcome, StoreResult};
use crate::record::usage::{TokenClass, Unpriced};
use crate::semconv::{self, Metric, label};

/// A label set, in the order it is exposed.
pub(super) type Labels = Vec<(&'static str, Arc<str>)>;
/// US dollars, or another fraction, that only grow.
pub(super) type Amount = Counter<f64, AtomicU64>;
/// A gauge that holds a fraction.
pub(super) type Level = Gauge<f64, AtomicU64>;

/// Where the cache keeps its entries: the label `backend`.
pub(super) const MEMORY: &str = "memory";
/// The label `source` of what was saved.
pub(super) const SAVED_BY_CACHE: &str = "cache";

/// The codes every configured provider has from the start: what most calls and most alerts are about.
const FIRST_CODES: [&str; 8] = ["200", "429", "500", "502", "503", "529", "error", "timeout"];
/// The token classes that are tokens: all but fees, which come last.
const TOKEN_CLASSES: usize = TokenClass::ALL.len() - 1;
/// The label values of `result` of `weir_cache_requests_total`, as [`cache_result`] numbers them.
const CACHE_RESULTS: [&str; 4] = ["hit", "miss", "expired", "bypass"];

/// A label value that is known at compile time or shared.
pub(super) fn text(value: &str) -> Arc<str> {
    Arc::from(value)
}

/// How many series there are, and how many there may be.
///
/// New names get series of their own while there is space; after that they share those of `other`, which are few and
/// always made, like those of closed sets.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    made: AtomicUsize,
}

impl Room {
    /// More than the series that one new name adds at once.
    const LARGEST_SET: usize = 48;

    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, made: AtomicUsize::new(0) }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether another set of series may get names of its own.
    pub(super) fn has_space(&self) -> bool {
        self.made.load(Ordering::Relaxed).saturating_add(Self::LARGEST_SET) <= self.limit
    }
}

/// Makes the metrics of one family, and counts the series they are.
#[derive(Clone, Debug)]
pub(super) struct Make {
    room: Arc<Room>,
    buckets: &'static [f64],
}

impl Make {
    fn count(&self, series: usize) {
        self.room.made.fetch_add(series, Ordering::Relaxed);
    }
}

impl MetricConstructor<Counter> for Make {
    fn new_metric(&self) -> Counter {
        self.count(1);
        Counter::default()
    }
}

impl MetricConstructor<Amount> for Make {
    fn new_metric(&self) -> Amount {
        self.count(1);
        Amount::default()
    }
}

impl MetricConstructor<Gauge> for Make {
    fn new_metric(&self) -> Gauge {
        self.count(1);
        Gauge::default()
    }
}

impl MetricConstructor<Level> for Make {
    fn new_metric(&self) -> Level {
        self.count(1);
        Level::default()
    }
}

impl MetricConstructor<Histogram> for Make {
    fn new_metric(&self) -> Histogram {
        // The bounds, the one at infinity, the sum and the count.
        self.count(self.buckets.len() + 3);
        Histogram::new(self.buckets.iter().copied())
    }
}

/// One metric family.
#[derive(Debug)]
pub(super) struct Series<M> {
    family: Family<Labels, M, Make>,
    room: Arc<Room>,
}

impl<M> Series<M>
where
    M: Clone + Debug + EncodeMetric + TypedMetric + Send + Sync + 'static,
    Make: MetricConstructor<M>,
{
    fn register(registry: &mut Registry, room: &Arc<Room>, metric: &'static Metric) -> Self {
        let family = Family::new_with_constructor(Make { room: Arc::clone(room), buckets: metric.buckets });
        registry.register(metric.stem(), metric.help, family.clone());
        Self { family, room: Arc::clone(room) }
    }

    /// The handle of one label set, made at zero if it is new.
    fn with(&self, labels: &Labels) -> M {
        self.family.get_or_create_owned(labels)
    }

    /// The handle of `named`, or of `folded` if `named` is new and there is no space for it.
    fn with_space_or(&self, named: &Labels, folded: &Labels) -> M {
        match self.family.get(named) {
            Some(known) => known.clone(),
            None => self.with(if self.room.has_space() { named } else { folded }),
        }
    }

    /// One handle for each value of the label `name`, beside `labels`.
    fn each<const N: usize>(&self, labels: &Labels, name: &'static str, values: [&str; N]) -> [M; N] {
        values.map(|value| self.with(&beside(labels, name, text(value))))
    }
}

/// `labels` and one more.
fn beside(labels: &Labels, name: &'static str, value: Arc<str>) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value));
    labels
}

/// Every family that records fill.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) room: Arc<Room>,
    token_usage: Series<Histogram>,
    operation_duration: Series<Histogram>,
    time_to_first_token: Series<Histogram>,
    time_per_output_token: Series<Histogram>,
    requests: Series<Counter>,
    request_duration: Series<Histogram>,
    proxy_overhead: Series<Histogram>,
    in_flight: Series<Gauge>,
    http_bytes: Series<Counter>,
    tokens: Series<Counter>,
    tokens_saved: Series<Counter>,
    cost: Series<Amount>,
    cost_saved: Series<Amount>,
    request_cost: Series<Histogram>,
    unpriced: Series<Counter>,
    unpriced_last_seen: Series<Level>,
    cache_requests: Series<Counter>,
    cache_lookup: Series<Histogram>,
    cache_evictions: Series<Counter>,
    cache_stores: Series<Counter>,
    upstream_requests: Series<Counter>,
    upstream_connect: Series<Histogram>,
    agent_requests: Series<Counter>,
    agent_tokens: Series<Counter>,
    agent_cost: Series<Amount>,
}

impl Families {
    pub(super) fn register(registry: &mut Registry, max_series: usize) -> Self {
        let room = &Arc::new(Room::new(max_series));
        Self {
            room: Arc::clone(room),
            token_usage: Series::register(registry, room, &semconv::CLIENT_TOKEN_USAGE),
            operation_duration: Series::register(registry, room, &semconv::CLIENT_OPERATION_DURATION),
            time_to_first_token: Series::register(registry, room, &semconv::SERVER_TIME_TO_FIRST_TOKEN),
            time_per_output_token: Series::register(registry, room, &semconv::SERVER_TIME_PER_OUTPUT_TOKEN),
            requests: Series::register(registry, room, &semconv::REQUESTS),
            request_duration: Series::register(registry, room, &semconv::REQUEST_DURATION),
            proxy_overhead: Series::register(registry, room, &semconv::PROXY_OVERHEAD),
            in_flight: Series::register(registry, room, &semconv::REQUESTS_IN_FLIGHT),
            http_bytes: Series::register(registry, room, &semconv::HTTP_BYTES),
            tokens: Series::register(registry, room, &semconv::TOKENS),
            tokens_saved: Series::register(registry, room, &semconv::TOKENS_SAVED),
            cost: Series::register(registry, room, &semconv::COST),
            cost_saved: Series::register(registry, room, &semconv::COST_SAVED),
            request_cost: Series::register(registry, room, &semconv::REQUEST_COST),
            unpriced: Series::register(registry, room, &semconv::UNPRICED_REQUESTS),
            unpriced_last_seen: Series::register(registry, room, &semconv::UNPRICED_LAST_SEEN),
            cache_requests: Series::register(registry, room, &semconv::CACHE_REQUESTS),
            cache_lookup: Series::register(registry, room, &semconv::CACHE_LOOKUP_DURATION),
            cache_evictions: Series::register(registry, room, &semconv::CACHE_EVICTIONS),
            cache_stores: Series::register(registry, room, &semconv::CACHE_STORES),
            upstream_requests: Series::register(registry, room, &semconv::UPSTREAM_REQUESTS),
            upstream_connect: Series::register(registry, room, &semconv::UPSTREAM_CONNECT_DURATION),
            agent_requests: Series::register(registry, room, &semconv::AGENT_REQUESTS),
            agent_tokens: Series::register(registry, room, &semconv::AGENT_TOKENS),
            agent_cost: Series::register(registry, room, &semconv::AGENT_COST),
        }
    }
}

/// What is counted for the process as a whole.
#[derive(Debug)]
pub(super) struct ProcessSeries {
    pub(super) overhead_request: Histogram,
    pub(super) overhead_response: Histogram,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    lookups: [Histogram; 3],
    stores: [Counter; 3],
    evictions: [Counter; 3],
}

impl ProcessSeries {
    pub(super) fn new(families: &Families) -> Self {
        let memory = vec![(label::BACKEND, text(MEMORY))];
        let stores = [StoreResult::Stored, StoreResult::TooLarge, StoreResult::NotCacheable].map(StoreResult::as_str);
        let [overhead_request, overhead_response] =
            families.proxy_overhead.each(&Labels::new(), label::PHASE, ["request", "response"]);
        let [bytes_in, bytes_out] = families.http_bytes.each(&Labels::new(), label::DIRECTION, ["in", "out"]);
        Self {
            overhead_request,
            overhead_response,
            bytes_in,
            bytes_out,
            lookups: families.cache_lookup.each(&memory, label::RESULT, ["hit", "miss", "expired"]),
            stores: families.cache_stores.each(&memory, label::RESULT, stores),
            evictions: families.cache_evictions.each(&memory, label::REASON, Eviction::ALL.map(Eviction::as_str)),
        }
    }

    /// The histogram of lookups that ended so; `None` for calls that were not looked up.
    pub(super) fn lookup(&self, status: CacheStatus) -> Option<&Histogram> {
        self.lookups.get(cache_result(status))
    }

    pub(super) const fn store(&self, result: StoreResult) -> &Counter {
        &self.stores[result as usize]
    }

    pub(super) const fn eviction(&self, reason: Eviction) -> &Counter {
        &self.evictions[reason as usize]
    }
}

/// Why an entry left the cache: the label `reason` of `weir_cache_evictions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// To make place for another.
    Size,
    /// Its time was over.
    Ttl,
    /// It was removed or replaced on purpose.
    Invalidated,
}

impl Eviction {
    const ALL: [Self; 3] = [Self::Size, Self::Ttl, Self::Invalidated];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Ttl => "ttl",
            Self::Invalidated => "invalidated",
        }
    }
}

/// What is counted for one provider.
#[derive(Debug)]
pub(super) struct ProviderSeries {
    /// The value of the label `provider`.
    pub(super) name: Arc<str>,
    pub(super) in_flight: Gauge,
    pub(super) connect: Histogram,
    attempts: [Counter; FIRST_CODES.len()],
    unpriced: [Counter; Unpriced::ALL.len()],
}

impl ProviderSeries {
    pub(super) fn new(families: &Families, name: Arc<str>) -> Self {
        let labels = vec![(label::PROVIDER, Arc::clone(&name))];
        Self {
            name,
            in_flight: families.in_flight.with(&labels),
            connect: families.upstream_connect.with(&labels),
            attempts: families.upstream_requests.each(&labels, label::CODE, FIRST_CODES),
            unpriced: families.unpriced.each(&labels, label::REASON, Unpriced::ALL.map(Unpriced::as_str)),
        }
    }

    /// Counts an attempt that ended with `code`, from a closed set.
    pub(super) fn count_attempt(&self, families: &Families, code: &'static str) {
        match FIRST_CODES.iter().position(|first| *first == code) {
            Some(position) => self.attempts[position].inc(),
            None => families
                .upstream_requests
                .with(&vec![(label::PROVIDER, Arc::clone(&self.name)), (label::CODE, text(code))])
                .inc(),
        };
    }

    pub(super) const fn unpriced(&self, reason: Unpriced) -> &Counter {
        &self.unpriced[reason as usize]
    }
}

/// What is counted for one agent.
#[derive(Clone, Debug)]
pub(super) struct AgentSeries {
    pub(super) requests: Counter,
    pub(super) tokens: Counter,
    pub(super) cost: Amount,
}

impl AgentSeries {
    pub(super) fn new(families: &Families, agent: Arc<str>) -> Self {
        let labels = vec![(label::AGENT, agent)];
        Self {
            requests: families.agent_requests.with(&labels),
            tokens: families.agent_tokens.with(&labels),
            cost: families.agent_cost.with(&labels),
        }
    }
}

/// The names a call's series carry: closed sets, configured names and values a limiter let through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallNames {
    pub(super) provider: Arc<str>,
    pub(super) operation: Operation,
    /// The price table's id, else the name asked for.
    pub(super) model: Arc<str>,
    /// `None` leaves the label out, as the conventions do.
    pub(super) request_model: Option<Arc<str>>,
    /// `None` leaves the label out, as the conventions do.
    pub(super) response_model: Option<Arc<str>>,
}

impl CallNames {
    /// The same with `other` in place of every name from outside.
    pub(super) fn folded(&self) -> Self {
        Self {
            provider: Arc::clone(&self.provider),
            operation: self.operation,
            model: other(),
            request_model: self.request_model.as_ref().map(|_| other()),
            response_model: self.response_model.as_ref().map(|_| other()),
        }
    }

    /// The labels of the `gen_ai` metrics.
    fn gen_ai(&self) -> Labels {
        let mut labels = vec![
            (label::GEN_AI_OPERATION_NAME, text(self.operation.as_str())),
            (label::GEN_AI_PROVIDER_NAME, Arc::clone(&self.provider)),
        ];
        let models =
            [(label::GEN_AI_REQUEST_MODEL, &self.request_model), (label::GEN_AI_RESPONSE_MODEL, &self.response_model)];
        labels.extend(models.into_iter().filter_map(|(name, model)| Some((name, Arc::clone(model.as_ref()?)))));
        labels
    }

    /// The labels `provider` and `model`.
    fn provider_and_model(&self) -> Labels {
        vec![(label::PROVIDER, Arc::clone(&self.provider)), (label::MODEL, Arc::clone(&self.model))]
    }
}

/// What is counted for calls of the same names. Counters of the same labels share their value, whoever holds them.
#[derive(Debug)]
pub(super) struct CallSeries {
    names: CallNames,
    requests: [Counter; Outcome::ALL.len()],
    durations: [OnceLock<Histogram>; 3],
    tokens: [Counter; TOKEN_CLASSES],
    cost: [Amount; TokenClass::ALL.len()],
    pub(super) tokens_saved: Counter,
    pub(super) cost_saved: Amount,
    pub(super) request_cost: Histogram,
    cache: [Counter; CACHE_RESULTS.len()],
    usage: [OnceLock<Histogram>; 2],
    success: OnceLock<Histogram>,
    first_token: OnceLock<Histogram>,
    per_token: OnceLock<Histogram>,
}

impl CallSeries {
    pub(super) fn new(families: &Families, names: CallNames) -> Self {
        let labels = &names.provider_and_model();
        let with_operation = beside(labels, label::OPERATION, text(names.operation.as_str()));
        let saved = beside(labels, label::SOURCE, text(SAVED_BY_CACHE));
        let classes = TokenClass::ALL.map(TokenClass::as_str);
        let [input, cache_read, cache_write, output, reasoning, media, _fee] = classes;
        let token_classes = [input, cache_read, cache_write, output, reasoning, media];
        Self {
            requests: families.requests.each(&with_operation, label::OUTCOME, Outcome::ALL.map(Outcome::as_str)),
            durations: Default::default(),
            tokens: families.tokens.each(labels, label::TOKEN_TYPE, token_classes),
            cost: families.cost.each(labels, label::TOKEN_TYPE, classes),
            tokens_saved: families.tokens_saved.with(&saved),
            cost_saved: families.cost_saved.with(&saved),
            request_cost: families.request_cost.with(labels),
            cache: families.cache_requests.each(labels, label::RESULT, CACHE_RESULTS),
            usage: Default::default(),
            success: OnceLock::new(),
            first_token: OnceLock::new(),
            per_token: OnceLock::new(),
            names,
        }
    }

    pub(super) const fn requests(&self, outcome: Outcome) -> &Counter {
        &self.requests[outcome as usize]
    }

    pub(super) const fn tokens(&self) -> &[Counter; TOKEN_CLASSES] {
        &self.tokens
    }

    pub(super) const fn cost(&self, class: TokenClass) -> &Amount {
        &self.cost[class as usize]
    }

    pub(super) const fn cache(&self, status: CacheStatus) -> &Counter {
        &self.cache[cache_result(status)]
    }

    /// `weir_request_duration_seconds`, where an expired answer is as good as none: a miss.
    pub(super) fn duration(&self, families: &Families, status: CacheStatus) -> &Histogram {
        let (position, value) = match status {
            CacheStatus::Hit => (0, "hit"),
            CacheStatus::Miss | CacheStatus::Expired => (1, "miss"),
            CacheStatus::Bypass(_) => (2, "bypass"),
        };
        self.durations[position].get_or_init(|| {
            families.request_duration.with(&vec![
                (label::PROVIDER, Arc::clone(&self.names.provider)),
                (label::OPERATION, text(self.names.operation.as_str())),
                (label::CACHE, text(value)),
            ])
        })
    }

    /// `gen_ai_client_token_usage` of one type.
    pub(super) fn usage(&self, families: &Families, side: Side) -> &Histogram {
        self.usage[side as usize].get_or_init(|| {
            let labels = |names: &CallNames| beside(&names.gen_ai(), label::GEN_AI_TOKEN_TYPE, text(side.as_str()));
            families.token_usage.with_space_or(&labels(&self.names), &labels(&self.names.folded()))
        })
    }

    /// `gen_ai_client_operation_duration_seconds` of what ended well.
    pub(super) fn success(&self, families: &Families) -> &Histogram {
        self.success.get_or_init(|| self.gen_ai(&families.operation_duration))
    }

    /// `gen_ai_client_operation_duration_seconds` of what ended with `error_type`. Not kept: most never happen.
    pub(super) fn failure(&self, families: &Families, error_type: &'static str) -> Histogram {
        let labels = |names: &CallNames| beside(&names.gen_ai(), label::ERROR_TYPE, text(error_type));
        families.operation_duration.with_space_or(&labels(&self.names), &labels(&self.names.folded()))
    }

    /// `gen_ai_server_time_to_first_token_seconds`.
    pub(super) fn first_token(&self, families: &Families) -> &Histogram {
        self.first_token.get_or_init(|| self.gen_ai(&families.time_to_first_token))
    }

    /// `gen_ai_server_time_per_output_token_seconds`.
    pub(super) fn per_token(&self, families: &Families) -> &Histogram {
        self.per_token.get_or_init(|| self.gen_ai(&families.time_per_output_token))
    }

    /// `weir_unpriced_last_seen_timestamp_seconds`. Not kept: rare.
    pub(super) fn unpriced_last_seen(&self, families: &Families, reason: Unpriced) -> Level {
        let labels = |names: &CallNames| beside(&names.provider_and_model(), label::REASON, text(reason.as_str()));
        families.unpriced_last_seen.with_space_or(&labels(&self.names), &labels(&self.names.folded()))
    }

    fn gen_ai(&self, series: &Series<Histogram>) -> Histogram {
        series.with_space_or(&self.names.gen_ai(), &self.names.folded().gen_ai())
    }
}

/// `gen_ai.token.type`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// What went to the model.
    Input,
    /// What came from it.
    Output,
}

impl Side {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// The position of a look-up's result in [`CACHE_RESULTS`].
const fn cache_result(status: CacheStatus) -> usize {
    match status {
        CacheStatus::Hit => 0,
        CacheStatus::Miss => 1,
        CacheStatus::Expired => 2,
        CacheStatus::Bypass(_) => 3,
    }
}

/// Handles made so far, by what tells them apart.
///
/// Whoever finds its handle takes a lock for reading only. Whoever makes one waits for others who do, and for a scrape
/// that is reading the same family, but holds up nobody who has a handle already.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    kept: RwLock<HashMap<K, V>>,
    making: Mutex<()>,
}

impl<K: Eq + Hash, V: Clone> Shelf<K, V> {
    pub(super) fn new() -> Self {
        Self { kept: RwLock::new(HashMap::new()), making: Mutex::new(()) }
    }

    pub(super) fn find(&self, key: &K) -> Option<V> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn find_or_make(&self, key: K, make: impl FnOnce(&K) -> V) -> V {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made_meanwhile) = self.find(&key) {
            return made_meanwhile;
        }
        let value = make(&key);
        self.kept.write().unwrap_or_else(PoisonError::into_inner).insert(key, value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_adds_no_more_than_is_left_free_for_it() {
        let families = Families::register(&mut Registry::default(), 0);
        let names = CallNames {
            provider: text("openai"),
            operation: Operation::Chat,
            model: text("gpt-5"),
            request_model: None,
            response_model: None,
        };
        let series = CallSeries::new(&families, names);
        let _ = (series.success(&families), series.first_token(&families));
        let made = families.room.made.load(Ordering::Relaxed);
        assert!(made > 0);
        assert!(made <= 2 * Room::LARGEST_SET, "{made}");
    }
}
