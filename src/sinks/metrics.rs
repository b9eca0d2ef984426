//! Metrics: what a record adds to which series, and the scrape.
//!
//! Two families, two meanings. `gen_ai_*` is what weir did upstream as a client of a model: no cache hits. `weir_*` is
//! what the app saw and what weir did itself. Counting is a handful of atomics; nothing here waits or does I/O.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter as PromCounter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::cache::invalidation::Strategy;
use crate::cache::shared::Event;
use crate::door::Door;
use crate::host::Host;
use crate::host::process::Process;
use crate::labels::{self, Limiter};
use crate::record::call::{Delivery, Operation};
use crate::record::outcome::{CacheStatus, ErrorType, NoVector, Outcome, SimilarResult, StoreResult, Trouble, Verdict};
use crate::record::trace::Trace;
use crate::record::usage::{Charge, Cost, Counter, TokenClass, Unpriced, Usage};
use crate::record::{Attempt, Record};
use crate::redact::Redactor;
use crate::runs;
use crate::semconv::{self, label};
use crate::sinks;
use crate::sinks::custom::{self, Custom};
use crate::sinks::denials::{Denial, Denials};
use crate::sinks::exemplars::{Exemplar, Exemplars, Of};
use crate::sinks::exposition::{self, Document, Exposition, Format};
use crate::sinks::families::{Families, Origin};
use crate::sinks::loops::{Loops, WatchRuns};
use crate::sinks::money::Amount;
use crate::sinks::now::{
    Now, Queue, WatchCache, WatchCircuits, WatchConnections, WatchLedger, WatchLimits, WatchOverload, WatchQueue,
    WatchState, WatchStore, WatchTraces, Watched,
};
use crate::sinks::reloads::{Reloads, WatchedFile};
use crate::sinks::samples::Samples;
use crate::sinks::series::{
    CallNames, CallSeries, Eviction, ProcessSeries, ProviderSeries, SharedSeries, Shelf, Side, as_f64,
};
use crate::sinks::sides::{AgentSeries, Consumers, Sides};
use crate::store::naming::Names;
use crate::units::PicoUsd;

/// What the operator writes of metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most series exposed. When it is reached, new label values count as `other`, whose few series always have
    /// room; what exists goes on. Eight hundredths of it are for what neither the configuration nor the price table names:
    /// other models, agents, loops, tools, and providers that are only known.
    pub max_series: usize,
    /// Most models ever named by a label that the price table does not know; later ones count as `other`.
    pub max_models: usize,
    /// Most agents ever named by a label; later ones count as `other`.
    pub max_agents: usize,
    /// Whether calls and their cost are counted by consumer, which is `X-User-ID`, else the request's own user field: `off`,
    /// `plain` (by the id as it is) or `hashed` (by 16 characters of a hash of it; with a key derived from
    /// `cache.redis.secret_file`, where there is one).
    pub consumers: Consumers,
    /// Most consumers ever named by a label; later ones count as `other`.
    pub max_consumers: usize,
    /// Whether look-ups in the cache are counted by namespace, which is `X-Cache-Namespace`.
    pub cache_namespaces: bool,
    /// Most namespaces of the cache ever named by a label; later ones count as `other`.
    pub max_cache_namespaces: usize,
    /// Most kinds of agent loops ever named by a label; later ones count as `other`.
    pub max_loop_types: usize,
    /// Most tools ever named by a label; later ones count as `other`.
    pub max_tools: usize,
    /// Which buckets histograms have: `classic`, or `both`, which adds native ones for a Prometheus that asks for
    /// protobuf. It then stores these in place of the classic ones, unless told to keep both.
    pub histograms: Histograms,
    /// Metrics of the app's own (docs/custom-metrics.md).
    pub custom: custom::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_series: 10_000,
            max_models: 64,
            max_agents: 50,
            consumers: Consumers::Off,
            max_consumers: 100,
            cache_namespaces: false,
            max_cache_namespaces: 50,
            max_loop_types: 20,
            max_tools: 50,
            histograms: Histograms::Classic,
            custom: custom::Settings::default(),
        }
    }
}

/// Which buckets histograms have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Histograms {
    /// The bounds that docs/metrics.md lists.
    Classic,
    /// These, and native ones, which follow the observations.
    Both,
}

/// What is running.
#[derive(Clone, Debug)]
pub struct About {
    /// weir's version.
    pub version: &'static str,
    /// The commit weir was built from.
    pub revision: &'static str,
    /// The price table in use at the start; [`Metrics::price_table`] says which one is in use now.
    pub prices: PriceTable,
}

/// Which price table is in use.
#[derive(Clone, Debug)]
pub struct PriceTable {
    /// Its version.
    pub version: String,
    /// Where it comes from.
    pub source: String,
    /// When it was published.
    pub published_at: SystemTime,
}

/// The figures that people look at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glance {
    /// Calls in progress.
    pub in_progress: u64,
    /// What was spent since the start, in US dollars, as the counters have it.
    pub spent_usd: f64,
}

/// The numbers.
#[derive(Debug)]
pub struct Metrics {
    about: About,
    registry: Registry,
    families: Families,
    now: Arc<Now>,
    custom: Arc<Custom>,
    limiters: Limiters,
    process: ProcessSeries,
    /// Made when there is a shared store.
    shared: OnceLock<SharedSeries>,
    /// Made at the start for those that are configured, with their first call for those that could be.
    providers: ArcSwap<Providers>,
    /// For calls to no configured provider; made when there is one.
    no_provider: OnceLock<Arc<ProviderSeries>>,
    calls: Shelf<CallNames, Arc<CallSeries>>,
    sides: Sides,
    loops: Loops,
    exemplars: Exemplars,
}

/// What is counted for each provider, once that has begun.
type Providers = foldhash::HashMap<Arc<str>, Arc<OnceLock<Arc<ProviderSeries>>>>;

/// The capped labels.
#[derive(Debug)]
struct Limiters {
    model: Arc<Limiter>,
    request_model: Arc<Limiter>,
    response_model: Arc<Limiter>,
}

impl Limiters {
    fn new(settings: &Settings) -> Self {
        let models = || Arc::new(Limiter::new(settings.max_models));
        Self { model: models(), request_model: models(), response_model: models() }
    }

    fn named(&self, loops: &Loops, sides: &Sides) -> Vec<(&'static str, Arc<Limiter>)> {
        let all = [
            (label::MODEL, &self.model),
            (label::GEN_AI_REQUEST_MODEL, &self.request_model),
            (label::GEN_AI_RESPONSE_MODEL, &self.response_model),
            (label::LOOP_TYPE, &loops.types),
            (label::TOOL, &loops.tools),
        ];
        all.map(|(label, limiter)| (label, Arc::clone(limiter))).into_iter().chain(sides.limiters()).collect()
    }
}

impl Metrics {
    /// Every counter whose labels are closed sets starts here, at zero. `providers` are the values of the label
    /// `provider` of all configured providers.
    #[must_use]
    pub fn new(telemetry: &sinks::Settings, providers: &[Arc<str>], about: About) -> Self {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry, telemetry);
        let settings = &telemetry.metrics;
        let limiters = Limiters::new(settings);
        let loops = Loops::new(&families, settings.max_loop_types, settings.max_tools);
        let sides = Sides::new(&families, settings);
        registry.register(
            semconv::BUILD_INFO.stem(),
            semconv::BUILD_INFO.help,
            Info::new(vec![(label::VERSION, about.version), (label::REVISION, about.revision)]),
        );
        let begun = |name: &Arc<str>| Arc::new(ProviderSeries::new(&families, Arc::clone(name)));
        let providers: Providers =
            providers.iter().map(|name| (Arc::clone(name), Arc::new(OnceLock::from(begun(name))))).collect();
        let now = Arc::new(Now {
            room: Arc::clone(&families.room),
            prices: RwLock::new(about.prices.clone()),
            limiters: limiters.named(&loops, &sides),
            providers: RwLock::new(providers.values().filter_map(|it| it.get().map(|it| Watched::new(it))).collect()),
            cache: OnceLock::new(),
            store: OnceLock::new(),
            state: OnceLock::new(),
            traces: OnceLock::new(),
            ledger: OnceLock::new(),
            limits: OnceLock::new(),
            denials: Denials::default(),
            reloads: Arc::new(Reloads::new(SystemTime::now())),
            queues: RwLock::default(),
            overload: OnceLock::new(),
            doors: RwLock::default(),
            connections: OnceLock::new(),
            circuits: OnceLock::new(),
            host: OnceLock::new(),
            redactor: OnceLock::new(),
        });
        registry.register_collector(Box::new(Arc::clone(&now)));
        let custom = Arc::new(Custom::new(settings.custom.clone()));
        registry.register_collector(Box::new(Arc::clone(&custom)));
        let process = ProcessSeries::new(&families);
        families.room.begin();
        Self {
            process,
            shared: OnceLock::new(),
            providers: ArcSwap::from_pointee(providers),
            about,
            registry,
            families,
            now,
            custom,
            limiters,
            no_provider: OnceLock::new(),
            calls: Shelf::new(),
            sides,
            loops,
            exemplars: Exemplars::default(),
        }
    }

    /// Names consumers with `names` from now on, where they are hashed. The first ones stay.
    pub fn name_consumers(&self, names: Names) {
        if let Some(consumers) = &self.sides.consumers {
            consumers.keyed(names);
        }
    }

    /// Also counts calls to these `providers`, from the first one on: those that need no configuration, and may never be
    /// called. Dozens of series for each of them would only say so.
    #[must_use]
    pub fn knowing(self, providers: &[Arc<str>]) -> Self {
        self.know(providers);
        self
    }

    /// The same, while weir runs.
    pub fn know(&self, providers: &[Arc<str>]) {
        self.providers.rcu(|known| {
            let mut known = Providers::clone(known);
            for name in providers {
                known.entry(Arc::clone(name)).or_default();
            }
            known
        });
    }

    /// The figures that people look at first.
    #[must_use]
    pub fn glance(&self) -> Glance {
        let watched = self.now.providers.read().unwrap_or_else(PoisonError::into_inner);
        let (mut in_progress, mut spent_usd) = (0, 0.0);
        for provider in watched.iter() {
            in_progress += provider.in_flight();
            spent_usd += provider.spent_usd();
        }
        Glance { in_progress: u64::try_from(in_progress).unwrap_or_default(), spent_usd }
    }

    /// What weir uses of the machine now, if that is looked at. Reads files: not for a thread that serves calls.
    #[must_use]
    pub fn process(&self) -> Process {
        self.now.host.get().map(|host| host.read().process).unwrap_or_default()
    }

    /// What is running.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// The app's own metrics.
    #[must_use]
    pub fn custom(&self) -> &Custom {
        &self.custom
    }

    /// From now on this price table is in use.
    pub fn set_price_table(&self, prices: PriceTable) {
        *self.now.prices.write().unwrap_or_else(PoisonError::into_inner) = prices;
    }

    /// The price table in use.
    #[must_use]
    pub fn price_table(&self) -> PriceTable {
        self.now.prices.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the queue of spans stands, if there are traces.
    #[must_use]
    pub fn traces(&self) -> Option<sinks::traces::Standing> {
        self.now.traces.get().map(|watch| watch())
    }

    /// Has `watch` asked at each scrape how full the cache is. The first one stays.
    pub fn watch_cache(&self, watch: WatchCache) {
        // A second cache would be a second backend, with a label of its own.
        let _ = self.now.cache.set(watch);
    }

    /// Has `watch` asked at each scrape whether the shared store answers; what is counted for it begins at zero. The
    /// first one stays.
    pub fn watch_store(&self, watch: WatchStore) {
        let _ = self.now.store.set(watch);
        let _ = self.shared.set(SharedSeries::new(&self.families));
    }

    /// Has `watch` asked at each scrape whether what has to survive a restart can be kept. The first one stays.
    pub fn watch_state(&self, watch: WatchState) {
        let _ = self.now.state.set(watch);
    }

    /// Has `watch` asked at each scrape how the queue of spans stands. The first one stays.
    pub fn watch_traces(&self, watch: WatchTraces) {
        let _ = self.now.traces.set(watch);
    }

    /// Has `watch` asked at each scrape how the ledger stands. The first one stays.
    pub fn watch_ledger(&self, watch: WatchLedger) {
        let _ = self.now.ledger.set(watch);
    }

    /// A transaction of the ledger took so long.
    pub fn wrote_ledger(&self, took: Duration) {
        self.families.ledger_write.observe(took.as_secs_f64());
    }

    /// Has `watch` asked at each scrape for the limits and budgets in force, and these how they stand. The first one stays.
    pub fn watch_limits(&self, watch: WatchLimits) {
        let _ = self.now.limits.set(watch);
    }

    /// A request to the operator's side was denied.
    pub fn denied(&self, why: Denial) {
        self.now.denials.note(why);
    }

    /// Whether something of the configuration that was read waits for a restart.
    pub fn need_restart(&self, is_needed: bool) {
        self.now.reloads.restart_needed.store(is_needed, Ordering::Relaxed);
    }

    /// A file that has been read and is read again from now on.
    #[must_use]
    pub fn watched_file(&self) -> WatchedFile {
        WatchedFile::new(&self.now.reloads)
    }

    /// Has `watch` asked at each scrape how full a queue is: one for each queue.
    pub fn watch_queue(&self, queue: Queue, watch: WatchQueue) {
        self.now.queues.write().unwrap_or_else(PoisonError::into_inner).push((queue, watch));
    }

    /// Has `watch` asked at each scrape how many connections are open. The first one stays.
    pub fn watch_connections(&self, watch: WatchConnections) {
        let _ = self.now.connections.set(watch);
    }

    /// Has `watch` asked at each scrape whether circuits are closed. The first one stays.
    pub fn watch_circuits(&self, watch: WatchCircuits) {
        let _ = self.now.circuits.set(watch);
    }

    /// Has `watch` asked at each scrape how much goes on at once. The first one stays.
    pub fn watch_overload(&self, watch: WatchOverload) {
        let _ = self.now.overload.set(watch);
    }

    /// Shows from now on how often the system refused at `door`.
    pub fn watch_door(&self, door: &Door) {
        let mut doors = self.now.doors.write().unwrap_or_else(PoisonError::into_inner);
        doors.push((door.side(), Arc::clone(door.refused())));
    }

    /// Has `host` looked at, at each scrape. The first one stays.
    pub fn watch_host(&self, host: Host) {
        let _ = self.now.host.set(host);
    }

    /// Has `redactor` asked at each scrape what it found. The first one stays.
    pub fn watch_redactor(&self, redactor: Arc<Redactor>) {
        let _ = self.now.redactor.set(redactor);
    }

    /// Has `watch` asked at each scrape which runs of agent loops are in progress. The first one stays.
    pub fn watch_runs(&self, watch: WatchRuns) {
        self.loops.watch(watch);
    }

    /// Caps the values of the label `loop_type`.
    #[must_use]
    pub fn loop_types(&self) -> Arc<Limiter> {
        Arc::clone(&self.loops.types)
    }

    /// Something happened to the run of an agent loop.
    pub fn run(&self, event: runs::Event) {
        self.loops.happened(&self.families, event);
    }

    /// Something happened in what replicas share. Nothing is counted before [`Metrics::watch_store`].
    pub fn shared(&self, event: Event) {
        if let Some(series) = self.shared.get() {
            series.count(event);
        }
    }

    /// A call to `provider` has begun. [`Metrics::closed`] ends it.
    pub fn opened(&self, provider: &str) {
        self.provider(provider).in_flight.inc();
    }

    /// A new connection to `provider` took `took`: name resolution, TCP and TLS.
    pub fn connected(&self, provider: &str, took: Duration) {
        self.provider(provider).connect.observe(took.as_secs_f64());
    }

    /// An attempt to ask `provider` has ended, and another one follows. [`Metrics::closed`] counts the last one.
    pub fn attempted(&self, provider: &str, attempt: Attempt) {
        self.provider(provider).count_attempt(&self.families, code(attempt));
    }

    /// A call to `provider` is made again, because of this.
    pub fn retried(&self, provider: &str, trouble: Trouble) {
        self.provider(provider).retries(trouble).inc();
    }

    /// A call to `provider` is made a second time, beside a slow first one.
    pub fn hedged(&self, provider: &str) {
        self.provider(provider).hedges.inc();
    }

    /// A call to `provider` has moved `to` another way.
    pub fn fell_back(&self, provider: &str, to: &str) {
        self.fallbacks(provider, to).inc();
    }

    /// Calls to `provider` may move `to` another way: that none has yet is told as well.
    pub fn may_fall_back(&self, provider: &str, to: &str) {
        self.fallbacks(provider, to);
    }

    fn fallbacks(&self, provider: &str, to: &str) -> PromCounter {
        let labels = vec![(label::PROVIDER, Arc::from(provider)), (label::TO_PROVIDER, Arc::from(to))];
        self.families.upstream_fallbacks.with(&labels)
    }

    /// An entry left the cache.
    pub fn evicted(&self, reason: Eviction) {
        self.process.eviction(reason).inc();
    }

    /// An operator's command to invalidate was executed.
    pub fn invalidated(&self, strategy: Strategy) {
        self.process.invalidation(strategy).inc();
    }

    /// The cache was asked, not by a call but by an app that looks aside, for what `about` is about; `provider` is the
    /// value of the label, `in_memory` what memory said, and how long that took. As with calls, the name of a model gets a
    /// place only once there was an answer.
    pub fn looked_aside(
        &self,
        provider: &str,
        about: &cache::About,
        found: CacheStatus,
        in_memory: (CacheStatus, Duration),
    ) {
        let limiter = &self.limiters.model;
        let place = |model: &str| if found == CacheStatus::Hit { limiter.admit(model) } else { limiter.find(model) };
        let model = about.model.as_deref().map_or_else(labels::none, place);
        let provider = Arc::clone(&self.provider(provider).name);
        let operation = Operation::Other;
        let names = CallNames { provider, operation, model, request_model: None, response_model: None };
        let call = self.call((names, Chosen { model: Origin::Outside, details: Origin::Outside }));
        call.cache(found).inc();
        self.sides.looked_up(&self.families, about.namespace.as_deref(), found);
        let (status, took) = in_memory;
        if let Some(lookups) = self.process.lookup(status) {
            lookups.observe(took.as_secs_f64());
        }
    }

    /// An app that looks aside brought an answer.
    pub fn stored_aside(&self, result: StoreResult) {
        self.process.store(result).inc();
    }

    /// A similar request was looked for, which took `took`.
    pub fn searched(&self, result: SimilarResult, took: Duration) {
        self.process.similar.search(result).inc();
        self.process.similar.lookup.observe(took.as_secs_f64());
    }

    /// A vector was wanted of a text; `failure` says why there is none.
    pub fn embedded(&self, failure: Option<NoVector>) {
        self.process.similar.embedding(failure).inc();
    }

    /// An answer to a similar request was checked.
    pub fn verified(&self, verdict: Verdict) {
        self.process.similar.verified(verdict).inc();
    }

    /// A call is over.
    pub fn closed(&self, record: &Record) {
        let provider = self.provider(&record.call.provider);
        let call = self.call(self.names(record, &provider));
        let (families, caller) = (&self.families, &record.call.caller);
        let agent = self.sides.agents.of(families, caller.agent.as_deref());
        let consumer = self.sides.consumers.as_ref().map(|consumers| consumers.of(families, caller));
        provider.in_flight.dec();
        if record.is_of_app() {
            agent.requests.inc();
            if let Some(consumer) = &consumer {
                consumer.requests.inc();
            }
            self.count_call(record, &call);
        }
        self.count_cache(record, &call);
        self.loops.closed(&self.families, record);
        if let Some(trace) = record.trace.as_deref().filter(|trace| trace.is_sampled) {
            self.point_at(record, trace, &call);
        }
        if let Some(reuse) = record.cache.reuse() {
            let (tokens, cost) = call.saved(reuse);
            count_saved(record, tokens, cost);
        } else if let Some(attempt) = record.attempt {
            provider.count_attempt(&self.families, code(attempt));
            // weir's own calls, for newer answers and for checks, come with the head of an app's.
            if record.call.caller.is_retry && record.is_of_app() {
                provider.app_retries.inc();
            }
            provider.quotas.note(&record.head);
            self.count_operation(record, &call);
            count_bought(record, &call, &agent);
            if let (Some(consumer), Some(amount)) = (&consumer, record.cost.amount()) {
                consumer.cost.inc_by(amount);
            }
            count_provenance(record, &provider);
            if let Some(reason) = unpriced(record) {
                let ended_at = (record.arrived_at + record.timing.total).duration_since(UNIX_EPOCH).unwrap_or_default();
                provider.unpriced(reason).inc();
                call.unpriced_last_seen(&self.families, reason).set(ended_at.as_secs_f64());
            }
        }
    }

    /// Everything, as the scraper's `Accept` header asks for it. Takes milliseconds: not for a thread that serves
    /// calls.
    ///
    /// # Panics
    ///
    /// If the client library fails to write to memory, which it has no cause to.
    #[must_use]
    pub fn encode(&self, accept: Option<&str>) -> Exposition {
        self.loops.look(&self.families);
        let mut document = Document::new(Format::accepted(accept));
        document.add(&self.registry);
        document.exemplify(&self.exemplars);
        // Apart, because it counts the rest.
        let mut last = Registry::default();
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(document.series() + 1).unwrap_or(i64::MAX));
        last.register(semconv::SERIES.stem(), semconv::SERIES.help, gauge);
        document.add(&last);
        document.finish()
    }

    /// What is scraped now, of the metrics whose names begin with `prefix`. Takes as long as a scrape.
    ///
    /// # Panics
    ///
    /// As [`Metrics::encode`] does.
    #[must_use]
    pub fn samples(&self, prefix: &str) -> Samples {
        self.loops.look(&self.families);
        Samples::read(&exposition::text(&self.registry), prefix)
    }

    /// Has the series that counted a traced call say where it is told.
    fn point_at(&self, record: &Record, trace: &Trace, call: &CallSeries) {
        let at = record.arrived_at + record.timing.total;
        let note = |of, labels, span, value| {
            self.exemplars.note(of, labels, Exemplar { context: trace.context_of(span), value, at });
        };
        if record.is_of_app() {
            note(Of::Request, call.labels_of_duration(&record.cache), trace.server, record.timing.total.as_secs_f64());
        }
        if record.cache.reuse().is_some() || record.attempt.is_none() {
            return;
        }
        if let Some(took) = record.timing.upstream {
            note(Of::Operation, call.labels_of_operation(failure(record)), trace.model_call, took.as_secs_f64());
        }
        if let Some(cost) = record.cost.amount() {
            note(Of::Cost, call.labels_of_cost(), trace.model_call, cost.to_usd_f64());
        }
    }

    fn count_call(&self, record: &Record, call: &CallSeries) {
        let (process, timing) = (&self.process, &record.timing);
        call.requests(record.outcome).inc();
        call.duration(&self.families, &record.cache).observe(timing.total.as_secs_f64());
        process.bytes_in.inc_by(record.bytes_in);
        process.bytes_out.inc_by(record.bytes_out);
        for (overhead, histogram) in [
            (timing.overhead_request, &process.overhead_request),
            (timing.overhead_response, &process.overhead_response),
        ] {
            if let Some(overhead) = overhead {
                histogram.observe(overhead.as_secs_f64());
            }
        }
    }

    fn count_cache(&self, record: &Record, call: &CallSeries) {
        call.cache(record.cache.status).inc();
        self.sides.looked_up(&self.families, record.call.caller.namespace.as_deref(), record.cache.status);
        if let Some((status, took)) = record.cache.lookup
            && let Some(lookups) = self.process.lookup(status)
        {
            lookups.observe(took.as_secs_f64());
        }
        if let Some(result) = record.cache.store {
            self.process.store(result).inc();
        }
        if let Some(role) = record.cache.role {
            self.process.role(role).inc();
        }
        if let Some(waited) = record.cache.waited {
            self.process.follower_wait.observe(waited.as_secs_f64());
        }
    }

    /// The `gen_ai_*` metrics. Duration for every operation, so that errors of calls weir cannot read are seen too;
    /// the rest only where there is usage or a stream that was read.
    fn count_operation(&self, record: &Record, call: &CallSeries) {
        let families = &self.families;
        // The conventions: no counts of one's own in place of the provider's, unless somebody asks for them.
        let usage = billed(record).filter(|usage| !usage.is_estimated());
        let error = failure(record);
        for (side, counter) in [(Side::Input, Counter::InputTokens), (Side::Output, Counter::OutputTokens)] {
            // In this order: a series is made only for what is counted.
            if let Some(count) = usage.and_then(|usage| usage.get(counter))
                && let Some(histogram) = call.usage(families, side)
            {
                histogram.observe(as_f64(count));
            }
        }
        if let Some(tokens) = &families.inference_tokens {
            call.count_inference(tokens, usage, error);
        }
        if let Some(took) = record.timing.upstream {
            match error {
                None => observe_all(call.success(families), took),
                Some(error) => observe_all(&call.failure(families, error), took),
            }
        }
        if error.is_some() {
            return;
        }
        if let (Delivery::Stream, Some(first_token)) = (record.call.delivery, record.timing.first_token) {
            call.first_token(families).observe(first_token.as_secs_f64());
            if let Some(per_token) = per_token(record, first_token, usage) {
                call.per_token(families).observe(per_token);
            }
        }
    }

    /// The names a call's series carry, and who chose them. A name that came with the request gets a place only once a
    /// provider has answered it with a 2xx, so that an app cannot fill the label with junk; one that the price table knows
    /// is not junk.
    fn names(&self, record: &Record, provider: &ProviderSeries) -> (CallNames, Chosen) {
        let proven = record.cache.reuse().is_some() || matches!(record.attempt, Some(Attempt::Answered(200..=299)));
        let (asked, answered) = (record.call.model.as_deref(), record.reply.model.as_deref());
        let id = record.priced_model.as_deref();
        let is_listed = |name: &str| id.is_some_and(|id| is_edition(name, id));
        let place = |limiter: &Limiter, name: &str| match proven {
            _ if is_listed(name) => limiter.reserve(name),
            true => limiter.admit(name),
            false => limiter.find(name),
        };
        let origin = |all_listed: bool| if all_listed { Origin::Listed } else { Origin::Outside };
        let model = origin(id.is_some() || asked.or(answered).is_none());
        let details = origin(model == Origin::Listed && [asked, answered].into_iter().flatten().all(is_listed));
        let names = CallNames {
            provider: Arc::clone(&provider.name),
            operation: record.call.operation,
            model: id.or(asked).or(answered).map_or_else(labels::none, |name| place(&self.limiters.model, name)),
            request_model: asked.map(|name| place(&self.limiters.request_model, name)),
            response_model: answered.map(|name| place(&self.limiters.response_model, name)),
        };
        (names, Chosen { model, details })
    }

    fn call(&self, (names, chosen): (CallNames, Chosen)) -> Arc<CallSeries> {
        if let Some(known) = self.calls.find(&names) {
            return known;
        }
        let (names, origin) = self.with_space(names, chosen);
        let make = |names: &CallNames| Arc::new(CallSeries::new(&self.families, names.clone(), origin));
        self.calls.find(&names).unwrap_or_else(|| self.calls.find_or_make(names, make))
    }

    /// `names`, or as much of them as there is space for.
    fn with_space(&self, names: CallNames, chosen: Chosen) -> (CallNames, Origin) {
        let has_space = |names: &CallNames, origin| self.families.room.has_space(origin) || self.calls.has(names);
        if has_space(&names, chosen.details) {
            return (names, chosen.details);
        }
        let of_model = names.of_model();
        if has_space(&of_model, chosen.model) {
            if of_model != names {
                self.limiters.request_model.refuse();
            }
            return (of_model, chosen.model);
        }
        let folded = names.folded();
        if folded != names {
            self.limiters.model.refuse();
        }
        // What models are asked to do is a closed set, but not a small one.
        let operation = if has_space(&folded, Origin::Outside) { folded.operation } else { Operation::Other };
        (CallNames { operation, ..folded }, Origin::Outside)
    }

    fn provider(&self, provider: &str) -> Arc<ProviderSeries> {
        match self.providers.load().get(provider) {
            Some(series) => Arc::clone(series.get_or_init(|| Arc::new(self.begin(provider)))),
            None => Arc::clone(self.no_provider.get_or_init(|| self.elsewhere())),
        }
    }

    fn elsewhere(&self) -> Arc<ProviderSeries> {
        Arc::new(ProviderSeries::new(&self.families, labels::other()))
    }

    /// What is counted for a provider with whose first call that begins.
    fn begin(&self, provider: &str) -> ProviderSeries {
        if !self.families.room.has_space(Origin::Outside) {
            return ProviderSeries::new(&self.families, labels::other());
        }
        let series = ProviderSeries::new(&self.families, provider.into());
        self.now.providers.write().unwrap_or_else(PoisonError::into_inner).push(Watched::new(&series));
        series
    }
}

/// Who chose the names that a call's series carry.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    /// The model's.
    model: Origin,
    /// All of them.
    details: Origin,
}

/// Whether `name` is that of the model `id`, or of one edition of it: `gpt-5-2025-08-07`, `claude-opus-4-20250514`.
fn is_edition(name: &str, id: &str) -> bool {
    let Some(rest) = name.strip_prefix(id) else { return false };
    let digits = rest.bytes().filter(u8::is_ascii_digit).count();
    let is_date = rest.starts_with("-20") && digits == 8 && rest.bytes().all(|it| it.is_ascii_digit() || it == b'-');
    rest.is_empty() || rest == "-latest" || is_date
}

/// What reuse saved: tokens and money that would have been spent again.
fn count_saved(record: &Record, tokens: &PromCounter, cost: &Amount) {
    if let Some(usage) = &record.usage {
        tokens.inc_by(usage.tokens_by_class().iter().sum());
    }
    if let Some(amount) = record.cost.amount() {
        cost.inc_by(amount);
    }
}

/// Why an operation failed, if it did.
fn failure(record: &Record) -> Option<&'static str> {
    (record.outcome != Outcome::Success).then(|| record.error_type.unwrap_or(ErrorType::Other).as_str())
}

/// What a call bought: tokens and their price.
fn count_bought(record: &Record, call: &CallSeries, agent: &AgentSeries) {
    if let Some(usage) = billed(record) {
        // Fees come last among the classes and count no tokens.
        for (counter, count) in call.tokens().iter().zip(usage.tokens_by_class()) {
            counter.inc_by(count);
            agent.tokens.inc_by(count);
        }
    }
    if let Cost::Known(charge) = &record.cost {
        count_charge(charge, call);
        agent.cost.inc_by(charge.total());
    }
}

/// How far what a call cost can be trusted, and how far the price table is from what the provider says.
fn count_provenance(record: &Record, provider: &ProviderSeries) {
    if billed(record).is_some_and(Usage::is_estimated) {
        provider.estimated.inc();
    }
    let Some(provenance) = record.provenance else { return };
    provider.billable(provenance).inc();
    let (Some(amount), Some(cost)) = (record.cost.amount(), provider.cost(provenance)) else { return };
    cost.inc_by(amount);
    // An estimate differs from the bill by itself; that says nothing of the table.
    let is_comparable = record.usage.is_some_and(|usage| !usage.is_estimated());
    if let Some(list) = record.list_cost.filter(|_| is_comparable) {
        let listed = list.total();
        provider.charged_over.inc_by(amount.less(listed));
        provider.charged_under.inc_by(listed.less(amount));
    }
}

fn count_charge(charge: &Charge, call: &CallSeries) {
    for class in TokenClass::ALL {
        let amount = charge.of(class);
        if amount > PicoUsd::ZERO {
            call.cost(class).inc_by(amount);
        }
    }
    call.request_cost.observe(charge.total().to_usd_f64());
}

/// The usage of an operation that is billed by it. Counting tokens, for one, reports tokens that nobody pays.
fn billed(record: &Record) -> Option<&Usage> {
    record.usage.as_ref().filter(|_| record.call.operation.is_billed())
}

/// Why the cost of a call that went upstream is not known.
const fn unpriced(record: &Record) -> Option<Unpriced> {
    match record.cost {
        Cost::Unpriced(reason) => Some(reason),
        Cost::Known(_) | Cost::Nothing => None,
    }
}

fn observe_all(histograms: &[Histogram], took: Duration) {
    for histogram in histograms {
        histogram.observe(took.as_secs_f64());
    }
}

/// Seconds for each output token after the first.
fn per_token(record: &Record, first_token: Duration, usage: Option<&Usage>) -> Option<f64> {
    let after_first = record.timing.upstream?.checked_sub(first_token)?;
    let tokens = usage?.get(Counter::OutputTokens).filter(|tokens| *tokens >= 2)?;
    Some(after_first.as_secs_f64() / as_f64(tokens - 1))
}

/// The label `code`, kept to a closed set: a provider may answer with any number.
const fn code(attempt: Attempt) -> &'static str {
    match attempt {
        Attempt::Answered(status) => status_code(status),
        Attempt::TimedOut => "timeout",
        Attempt::Failed => "error",
        Attempt::Abandoned => "abandoned",
    }
}

const fn status_code(status: u16) -> &'static str {
    match status {
        101 => "101",
        200 => "200",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        402 => "402",
        403 => "403",
        404 => "404",
        408 => "408",
        409 => "409",
        413 => "413",
        422 => "422",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        529 => "529",
        _ => labels::OTHER,
    }
}
