//! Series: the handles a call counts with.
//!
//! Label sets are resolved once per call, to a `CallSeries`; what follows are atomics (and a short mutex in each
//! histogram). Series that describe the same thing are made together, at zero: a counter that began at its first
//! increment would hide that increment from `increase()`. Knows labels; not what a record means.

use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::cache::invalidation::Strategy;
use crate::cache::shared::{Event, Found, Work};
use crate::labels::other;
use crate::record::CacheFacts;
use crate::record::call::Operation;
use crate::record::outcome::{
    CacheStatus, ErrorType, NoVector, Outcome, Reuse, Role, SimilarResult, StoreResult, Trouble, Verdict,
};
use crate::record::provenance::Provenance;
use crate::record::usage::{TokenClass, Unpriced, Usage};
use crate::semconv::label;
use crate::sinks::families::{Families, InferenceTokens, Labels, Level, Origin, Series, beside, text};
use crate::sinks::money::Amount;
use crate::sinks::quotas::Quotas;

/// Where the cache keeps its entries: the label `backend`.
pub(super) const MEMORY: &str = "memory";
/// The same, for what replicas share.
const REDIS: &str = "redis";

/// The codes every configured provider has from the start: what most calls and most alerts are about.
const FIRST_CODES: [&str; 8] = ["200", "429", "500", "502", "503", "529", "error", "timeout"];
/// The token classes that are tokens: all but fees, which come last.
const TOKEN_CLASSES: usize = TokenClass::ALL.len() - 1;
/// The label values of `result` of `weir_cache_requests_total`, as [`cache_result`] numbers them.
pub(super) const CACHE_RESULTS: [&str; 4] = ["hit", "miss", "expired", "bypass"];

/// What is counted for the process as a whole.
#[derive(Debug)]
pub(super) struct ProcessSeries {
    pub(super) overhead_request: Histogram,
    pub(super) overhead_response: Histogram,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    lookups: [Histogram; 3],
    stores: [Counter; 3],
    pub(super) similar: SimilarSeries,
    evictions: [Counter; 3],
    invalidations: [Counter; Strategy::ALL.len()],
    roles: [Counter; Role::ALL.len()],
    pub(super) follower_wait: Histogram,
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
            similar: SimilarSeries::new(families),
            evictions: families.cache_evictions.each(&memory, label::REASON, Eviction::ALL.map(Eviction::as_str)),
            invalidations: families.cache_invalidations.each(
                &Labels::new(),
                label::STRATEGY,
                Strategy::ALL.map(Strategy::as_str),
            ),
            roles: families.singleflight.each(&Labels::new(), label::ROLE, Role::ALL.map(Role::as_str)),
            follower_wait: families.singleflight_wait.clone(),
        }
    }

    /// The histogram of lookups that ended so; `None` for calls that were not looked up.
    pub(super) fn lookup(&self, status: CacheStatus) -> Option<&Histogram> {
        self.lookups.get(cache_result(status))
    }

    pub(super) const fn store(&self, result: StoreResult) -> &Counter {
        &self.stores[result as usize]
    }

    pub(super) const fn role(&self, role: Role) -> &Counter {
        &self.roles[role as usize]
    }

    pub(super) const fn eviction(&self, reason: Eviction) -> &Counter {
        &self.evictions[reason as usize]
    }

    pub(super) const fn invalidation(&self, strategy: Strategy) -> &Counter {
        &self.invalidations[strategy as usize]
    }
}

/// What is counted of similar requests.
#[derive(Debug)]
pub(super) struct SimilarSeries {
    searches: [Counter; SimilarResult::ALL.len()],
    pub(super) lookup: Histogram,
    made: Counter,
    unmade: [Counter; 3],
    verified: [Counter; Verdict::ALL.len()],
}

impl SimilarSeries {
    fn new(families: &Families) -> Self {
        let (none, embeddings) = (&Labels::new(), &families.similar_embeddings);
        let [made] = embeddings.each(none, label::RESULT, ["made"]);
        let unmade = [NoVector::Error, NoVector::Timeout, NoVector::Skipped].map(NoVector::as_str);
        let results = SimilarResult::ALL.map(SimilarResult::as_str);
        Self {
            searches: families.similar_requests.each(none, label::RESULT, results),
            lookup: families.similar_lookup.clone(),
            made,
            unmade: embeddings.each(none, label::RESULT, unmade),
            verified: families.similar_verified.each(none, label::VERDICT, Verdict::ALL.map(Verdict::as_str)),
        }
    }

    pub(super) fn search(&self, result: SimilarResult) -> &Counter {
        let position = SimilarResult::ALL.iter().position(|known| *known == result);
        &self.searches[position.expect("all results are listed")]
    }

    pub(super) const fn embedding(&self, failure: Option<NoVector>) -> &Counter {
        match failure {
            None => &self.made,
            Some(why) => &self.unmade[why as usize],
        }
    }

    pub(super) const fn verified(&self, verdict: Verdict) -> &Counter {
        &self.verified[verdict as usize]
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

/// What is counted for what replicas share.
#[derive(Debug)]
pub(super) struct SharedSeries {
    lookups: [Histogram; 3],
    stored: Counter,
    not_stored: Counter,
    get_failed: Counter,
    put_failed: Counter,
    delete_failed: Counter,
}

impl SharedSeries {
    pub(super) fn new(families: &Families) -> Self {
        let redis = vec![(label::BACKEND, text(REDIS))];
        let [stored, not_stored] = families.cache_stores.each(&redis, label::RESULT, ["stored", "error"]);
        let [get_failed, put_failed, delete_failed] =
            families.cache_errors.each(&redis, label::OPERATION, ["get", "put", "delete"]);
        let lookups = families.cache_lookup.each(&redis, label::RESULT, ["hit", "miss", "expired"]);
        Self { lookups, stored, not_stored, get_failed, put_failed, delete_failed }
    }

    pub(super) fn count(&self, event: Event) {
        let counter = match event {
            Event::LookedUp(found, took) => return self.lookup(found).observe(took.as_secs_f64()),
            Event::Stored => &self.stored,
            Event::NotStored => &self.not_stored,
            Event::Failed(Work::Get) => &self.get_failed,
            Event::Failed(Work::Put) => &self.put_failed,
            Event::Failed(Work::Delete) => &self.delete_failed,
        };
        counter.inc();
    }

    const fn lookup(&self, found: Found) -> &Histogram {
        let [hit, miss, expired] = &self.lookups;
        match found {
            Found::Fresh => hit,
            Found::Nothing => miss,
            Found::Stale => expired,
        }
    }
}

/// Why there was a retry, where only the app's SDK knows.
const APP: &str = "app";

/// Why there was another attempt, where the first one was slow.
const HEDGE: &str = "hedge";

/// What is counted for one provider.
#[derive(Debug)]
pub(super) struct ProviderSeries {
    /// The value of the label `provider`.
    pub(super) name: Arc<str>,
    pub(super) in_flight: Gauge,
    pub(super) connect: Histogram,
    /// Made by the app's SDK.
    pub(super) app_retries: Counter,
    /// Made by weir beside a slow attempt.
    pub(super) hedges: Counter,
    /// Made by weir, indexed as [`Trouble::ALL`].
    retries: [Counter; Trouble::ALL.len()],
    attempts: [Counter; FIRST_CODES.len()],
    unpriced: [Counter; Unpriced::ALL.len()],
    pub(super) estimated: Counter,
    /// Indexed as [`Provenance::ALL`].
    pub(super) billable: [Counter; Provenance::ALL.len()],
    /// The same, but for the last: what is unpriced costs nobody knows what.
    pub(super) cost: [Amount; Provenance::ALL.len() - 1],
    pub(super) charged_over: Amount,
    pub(super) charged_under: Amount,
    pub(super) quotas: Arc<Quotas>,
}

impl ProviderSeries {
    pub(super) fn new(families: &Families, name: Arc<str>) -> Self {
        let labels = vec![(label::PROVIDER, Arc::clone(&name))];
        let provenances = Provenance::ALL.map(Provenance::as_str);
        let [reported, priced, estimated, _unpriced] = provenances;
        let [charged_over, charged_under] = families.cost_drift.each(&labels, label::DIRECTION, ["over", "under"]);
        Self {
            name,
            estimated: families.usage_estimated.with(&labels),
            billable: families.billable.each(&labels, label::PROVENANCE, provenances),
            cost: families.cost_by_provenance.each(&labels, label::PROVENANCE, [reported, priced, estimated]),
            charged_over,
            charged_under,
            quotas: Arc::default(),
            in_flight: families.in_flight.with(&labels),
            connect: families.upstream_connect.with(&labels),
            app_retries: families.upstream_retries.with(&beside(&labels, label::REASON, text(APP))),
            hedges: families.upstream_retries.with(&beside(&labels, label::REASON, text(HEDGE))),
            retries: families.upstream_retries.each(&labels, label::REASON, Trouble::ALL.map(Trouble::as_str)),
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

    pub(super) const fn retries(&self, trouble: Trouble) -> &Counter {
        &self.retries[trouble as usize]
    }

    pub(super) const fn billable(&self, provenance: Provenance) -> &Counter {
        &self.billable[provenance as usize]
    }

    /// `None` for what is unpriced.
    pub(super) fn cost(&self, provenance: Provenance) -> Option<&Amount> {
        self.cost.get(provenance as usize)
    }

    pub(super) const fn unpriced(&self, reason: Unpriced) -> &Counter {
        &self.unpriced[reason as usize]
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
    /// The same with `other` in place of every name from outside but the model's.
    pub(super) fn of_model(&self) -> Self {
        Self {
            request_model: self.request_model.as_ref().map(|_| other()),
            response_model: self.response_model.as_ref().map(|_| other()),
            ..self.clone()
        }
    }

    /// The same with `other` in place of every name from outside.
    pub(super) fn folded(&self) -> Self {
        Self { model: other(), ..self.of_model() }
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
    origin: Origin,
    requests: [Counter; Outcome::ALL.len()],
    durations: [OnceLock<Histogram>; 4],
    tokens: [Counter; TOKEN_CLASSES],
    cost: [Amount; TokenClass::ALL.len()],
    tokens_saved: [Counter; Reuse::ALL.len()],
    cost_saved: [Amount; Reuse::ALL.len()],
    pub(super) request_cost: Histogram,
    cache: [Counter; CACHE_RESULTS.len()],
    usage: [OnceLock<Histogram>; 2],
    inference: OnceLock<InferenceSeries>,
    success: OnceLock<Vec<Histogram>>,
    first_token: OnceLock<Histogram>,
    per_token: OnceLock<Histogram>,
}

impl CallSeries {
    pub(super) fn new(families: &Families, names: CallNames, origin: Origin) -> Self {
        let labels = &names.provider_and_model();
        let with_operation = beside(labels, label::OPERATION, text(names.operation.as_str()));
        let classes = TokenClass::ALL.map(TokenClass::as_str);
        let [input, cache_read, cache_write, output, reasoning, media, _fee] = classes;
        let token_classes = [input, cache_read, cache_write, output, reasoning, media];
        Self {
            requests: families.requests.each(&with_operation, label::OUTCOME, Outcome::ALL.map(Outcome::as_str)),
            durations: Default::default(),
            tokens: families.tokens.each(labels, label::TOKEN_TYPE, token_classes),
            cost: families.cost.each(labels, label::TOKEN_TYPE, classes),
            tokens_saved: families.tokens_saved.each(labels, label::SOURCE, Reuse::ALL.map(Reuse::as_str)),
            cost_saved: families.cost_saved.each(labels, label::SOURCE, Reuse::ALL.map(Reuse::as_str)),
            request_cost: families.request_cost.with(labels),
            cache: families.cache_requests.each(labels, label::RESULT, CACHE_RESULTS),
            usage: Default::default(),
            inference: OnceLock::new(),
            success: OnceLock::new(),
            first_token: OnceLock::new(),
            per_token: OnceLock::new(),
            origin,
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

    /// Tokens and money that were saved.
    pub(super) const fn saved(&self, by: Reuse) -> (&Counter, &Amount) {
        (&self.tokens_saved[by as usize], &self.cost_saved[by as usize])
    }

    pub(super) const fn cache(&self, status: CacheStatus) -> &Counter {
        &self.cache[cache_result(status)]
    }

    /// `weir_request_duration_seconds`, where an expired answer is as good as none: a miss.
    pub(super) fn duration(&self, families: &Families, cache: &CacheFacts) -> &Histogram {
        let (position, _) = part_of_cache(cache);
        self.durations[position].get_or_init(|| families.request_duration.with(&self.labels_of_duration(cache)))
    }

    /// The labels of [`CallSeries::duration`].
    pub(super) fn labels_of_duration(&self, cache: &CacheFacts) -> Labels {
        vec![
            (label::PROVIDER, Arc::clone(&self.names.provider)),
            (label::OPERATION, text(self.names.operation.as_str())),
            (label::CACHE, text(part_of_cache(cache).1)),
        ]
    }

    /// The labels of [`CallSeries::success`], or where there is space of [`CallSeries::failure`].
    pub(super) fn labels_of_operation(&self, error: Option<&'static str>) -> Labels {
        match error {
            None => self.names.gen_ai(),
            Some(error) => beside(&self.names.gen_ai(), label::ERROR_TYPE, text(error)),
        }
    }

    /// The labels of `request_cost`.
    pub(super) fn labels_of_cost(&self) -> Labels {
        self.names.provider_and_model()
    }

    /// `gen_ai_client_token_usage` of one type, if it goes by that name.
    pub(super) fn usage(&self, families: &Families, side: Side) -> Option<&Histogram> {
        let family = families.token_usage.as_ref()?;
        Some(self.usage[side as usize].get_or_init(|| {
            let labels = |names: &CallNames| beside(&names.gen_ai(), label::GEN_AI_TOKEN_TYPE, text(side.as_str()));
            family.with_space_or(self.origin, &labels(&self.names), &labels(&self.names.folded()))
        }))
    }

    /// The same in the words of [`InferenceTokens`]. Operations that reported nothing begin the counters.
    pub(super) fn count_inference(
        &self,
        families: &InferenceTokens,
        usage: Option<&Usage>,
        error: Option<&'static str>,
    ) {
        let series = self.inference.get_or_init(|| InferenceSeries::new(families, &self.names, self.origin));
        let count = |counter| usage.and_then(|usage| usage.get(counter));
        for (used, counter) in series.used.iter().zip(InferenceTokens::USED) {
            used.inc_by(count(counter).unwrap_or(0));
        }
        for (position, counter) in InferenceTokens::PER_OPERATION.into_iter().enumerate() {
            let Some(tokens) = count(counter) else { continue };
            let family = &families.per_operation[position];
            match error {
                None => series.per_operation[position].get_or_init(|| self.gen_ai(family)).observe(as_f64(tokens)),
                Some(error) => self.failed(family, error).observe(as_f64(tokens)),
            }
        }
    }

    /// How long an operation took that ended well, under each name of it.
    pub(super) fn success(&self, families: &Families) -> &[Histogram] {
        self.success.get_or_init(|| families.operation_duration.iter().map(|family| self.gen_ai(family)).collect())
    }

    /// The same of what ended with `error`. Not kept: most never happen.
    pub(super) fn failure(&self, families: &Families, error: &'static str) -> Vec<Histogram> {
        families.operation_duration.iter().map(|family| self.failed(family, error)).collect()
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
        families.unpriced_last_seen.with_space_or(self.origin, &labels(&self.names), &labels(&self.names.folded()))
    }

    fn gen_ai(&self, series: &Series<Histogram>) -> Histogram {
        series.with_space_or(self.origin, &self.names.gen_ai(), &self.names.folded().gen_ai())
    }

    /// Where there is no space for an error, it is not told apart; then neither is the model.
    fn failed(&self, series: &Series<Histogram>, error: &'static str) -> Histogram {
        let labels = |names: &CallNames, value| beside(&names.gen_ai(), label::ERROR_TYPE, text(value));
        let any = ErrorType::Other.as_str();
        series
            .with_space(Origin::Outside, &labels(&self.names, error))
            .or_else(|| series.with_space(self.origin, &labels(&self.names, any)))
            .unwrap_or_else(|| series.with(&labels(&self.names.folded(), any)))
    }
}

/// What the cache did, as the label `cache` says it, and the number of that.
const fn part_of_cache(cache: &CacheFacts) -> (usize, &'static str) {
    match (cache.reuse(), cache.status) {
        (Some(Reuse::Coalesced), _) => (3, "coalesced"),
        (Some(Reuse::Stored | Reuse::Similar), _) | (None, CacheStatus::Hit) => (0, "hit"),
        (None, CacheStatus::Miss | CacheStatus::Expired) => (1, "miss"),
        (None, CacheStatus::Bypass(_)) => (2, "bypass"),
    }
}

/// What is counted of [`InferenceTokens`] for calls of the same names.
#[derive(Debug)]
struct InferenceSeries {
    used: [Counter; InferenceTokens::USED.len()],
    /// Of operations that ended well.
    per_operation: [OnceLock<Histogram>; InferenceTokens::PER_OPERATION.len()],
}

impl InferenceSeries {
    fn new(families: &InferenceTokens, names: &CallNames, origin: Origin) -> Self {
        // The conventions: `unknown` where there is no breakdown.
        let labels = |names: &CallNames| beside(&names.gen_ai(), label::GEN_AI_TOKEN_MODALITY, text("unknown"));
        let (own, folded) = (labels(names), labels(&names.folded()));
        Self {
            used: families.used.each_ref().map(|family| family.with_space_or(origin, &own, &folded)),
            per_operation: Default::default(),
        }
    }
}

/// A count as histograms take it.
#[expect(clippy::cast_precision_loss, reason = "a histogram's sum is a float; counts stay far below 2⁵³")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
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
pub(super) const fn cache_result(status: CacheStatus) -> usize {
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
    kept: RwLock<foldhash::HashMap<K, V>>,
    making: Mutex<()>,
}

impl<K: Eq + Hash, V: Clone> Shelf<K, V> {
    pub(super) fn new() -> Self {
        Self { kept: RwLock::default(), making: Mutex::new(()) }
    }

    pub(super) fn find(&self, key: &K) -> Option<V> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    pub(super) fn each(&self, look: impl Fn(&V)) {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).values().for_each(look);
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
    use std::sync::atomic::Ordering;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::sinks::families::Room;
    use crate::sinks::metrics::{self, Histograms};
    use crate::sinks::sides::AgentSeries;
    use crate::sinks::{Conventions, Settings};

    #[test]
    fn a_new_name_adds_no_more_than_is_left_free_for_it() {
        let metrics = metrics::Settings { histograms: Histograms::Both, ..Default::default() };
        let telemetry = Settings { semconv: Conventions::Both, metrics, ..Settings::default() };
        let families = Families::register(&mut Registry::default(), &telemetry);
        let names = CallNames {
            provider: text("openai"),
            operation: Operation::Chat,
            model: text("gpt-5"),
            request_model: None,
            response_model: None,
        };
        let made = || families.room.made.load(Ordering::Relaxed);
        let mut before = made();
        let series = CallSeries::new(&families, names, Origin::Listed);
        let mut fits = |what: &str| {
            let added = made() - before;
            before = made();
            assert!((1..=Room::LARGEST_SET).contains(&added), "{what}: {added}");
        };
        fits("a call's counters");
        series.success(&families);
        fits("durations");
        series.failure(&families, "429");
        fits("durations of failures");
        series.count_inference(families.inference_tokens.as_ref().expect("wanted"), None, None);
        fits("tokens");
        series.first_token(&families);
        fits("first tokens");
        AgentSeries::new(&families, text("planner"));
        fits("an agent's counters");
    }
}
