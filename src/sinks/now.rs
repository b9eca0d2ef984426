//! Now: what is asked at the scrape instead of counted on the way. Sizes, prices, how full the labels are, how the rules
//! stand, and what weir uses of the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::allowance::Standing;
use crate::door::Side;
use crate::host::Host;
use crate::labels::Limiter;
use crate::ledger::Standing as Ledger;
use crate::limits::Limits;
use crate::record::head::QuotaKind;
use crate::record::provenance::Provenance;
use crate::redact::Redactor;
use crate::semconv::{self, Metric, label};
use crate::sinks::denials::Denials;
use crate::sinks::families::Room;
use crate::sinks::host;
use crate::sinks::metrics::PriceTable;
use crate::sinks::money::Amount;
use crate::sinks::quotas::Quotas;
use crate::sinks::reloads::Reloads;
use crate::sinks::rules;
use crate::sinks::series::{MEMORY, ProviderSeries};
use crate::sinks::traces;
use crate::units::{Backlog, PicoUsd};

/// How full the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Most bytes held.
    pub capacity_bytes: u64,
}

/// Where the cache keeps what it holds: the label `backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Answers, in this process.
    Memory,
    /// Vectors of texts that were answered, in this process.
    Similar,
}

impl Backend {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => MEMORY,
            Self::Similar => "similar",
        }
    }
}

/// Says how full the cache is now, wherever it keeps something.
pub type WatchCache = Arc<dyn Fn() -> Vec<(Backend, CacheSize)> + Send + Sync>;

/// Says whether the shared store answers now.
pub type WatchStore = Arc<dyn Fn() -> bool + Send + Sync>;

/// Says whether what has to survive a restart can be kept now.
pub type WatchState = Arc<dyn Fn() -> bool + Send + Sync>;

/// Says how many connections to providers are open, by the values of the label `provider`.
pub type WatchConnections = Arc<dyn Fn() -> Vec<(Arc<str>, usize)> + Send + Sync>;

/// Says whether the circuits of upstreams are closed, by the values of the label `provider`.
pub type WatchCircuits = Arc<dyn Fn() -> Vec<(Arc<str>, bool)> + Send + Sync>;

/// A bounded queue of weir's own: the label `queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Answers to be written for other replicas.
    CacheWrites,
    /// Recordings to be written.
    Recordings,
    /// Usage to be estimated.
    Estimates,
    /// Log lines to be written.
    LogLines,
}

impl Queue {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CacheWrites => "cache_writes",
            Self::Recordings => "recordings",
            Self::Estimates => "estimates",
            Self::LogLines => "log_lines",
        }
    }
}

/// What there is of bodies in progress, and how many calls were turned away.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    /// Calls turned away, by the label `reason`.
    pub shed: Vec<(&'static str, u64)>,
    /// What is held of requests, by the label `body`, then of replies.
    pub bodies: Vec<(&'static str, Standing)>,
}

/// Says how much goes on now.
pub type WatchOverload = Box<dyn Fn() -> Overload + Send + Sync>;

/// Says how full a queue is now; `None` once it is gone.
pub type WatchQueue = Box<dyn Fn() -> Option<Backlog> + Send + Sync>;

/// The limits and budgets in force; `None` once they are gone.
pub type WatchLimits = Box<dyn Fn() -> Option<Arc<Limits>> + Send + Sync>;

/// Says how the queue of spans stands now.
pub type WatchTraces = Arc<dyn Fn() -> traces::Standing + Send + Sync>;

/// Says how the ledger stands now.
pub type WatchLedger = Arc<dyn Fn() -> Ledger + Send + Sync>;

/// What is asked at each scrape.
pub(super) struct Now {
    pub(super) room: Arc<Room>,
    /// The price table in use.
    pub(super) prices: RwLock<PriceTable>,
    /// Every capped label and who caps it.
    pub(super) limiters: Vec<(&'static str, Arc<Limiter>)>,
    /// Every provider that has begun.
    pub(super) providers: RwLock<Vec<Watched>>,
    /// Set once the cache is there.
    pub(super) cache: OnceLock<WatchCache>,
    /// Set if there is a shared store.
    pub(super) store: OnceLock<WatchStore>,
    /// Set if there is something that has to survive a restart.
    pub(super) state: OnceLock<WatchState>,
    /// Set if there are traces.
    pub(super) traces: OnceLock<WatchTraces>,
    /// Set if there is a ledger.
    pub(super) ledger: OnceLock<WatchLedger>,
    /// Set once there are limits and budgets.
    pub(super) limits: OnceLock<WatchLimits>,
    /// Requests to the operator's side that were denied.
    pub(super) denials: Denials,
    /// The files that are read again.
    pub(super) reloads: Arc<Reloads>,
    /// The queues there are.
    pub(super) queues: RwLock<Vec<(Queue, WatchQueue)>>,
    /// Set once calls can come in.
    pub(super) overload: OnceLock<WatchOverload>,
    /// Where connections come in, and how often the system refused.
    pub(super) doors: RwLock<Vec<(Side, Arc<AtomicU64>)>>,
    /// Set once there are providers to connect to.
    pub(super) connections: OnceLock<WatchConnections>,
    /// Set once there are providers that may be left alone.
    pub(super) circuits: OnceLock<WatchCircuits>,
    /// Set if the machine is to be looked at.
    pub(super) host: OnceLock<Host>,
    /// Set once there is something that finds what must not be told.
    pub(super) redactor: OnceLock<Arc<Redactor>>,
}

/// What is asked of one provider.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    name: Arc<str>,
    in_flight: Gauge,
    billable: [Counter; Provenance::ALL.len()],
    cost: [Amount; Provenance::ALL.len() - 1],
    quotas: Arc<Quotas>,
}

impl Watched {
    /// What is counted for this provider, to be asked later.
    pub(super) fn new(series: &ProviderSeries) -> Self {
        Self {
            name: Arc::clone(&series.name),
            in_flight: series.in_flight.clone(),
            billable: series.billable.clone(),
            cost: series.cost.clone(),
            quotas: Arc::clone(&series.quotas),
        }
    }

    /// Its calls in progress.
    pub(super) fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// What was spent on it.
    pub(super) fn spent_usd(&self) -> f64 {
        self.cost.iter().map(Amount::get).sum::<PicoUsd>().to_usd_f64()
    }

    /// The share of billable calls whose cost is exact; `None` if there were none.
    #[expect(clippy::cast_precision_loss, reason = "a ratio is a float; counts stay far below 2⁵³")]
    fn capture_ratio(&self) -> Option<f64> {
        let (mut exact, mut all) = (0, 0);
        for (provenance, counter) in Provenance::ALL.iter().zip(&self.billable) {
            let count = counter.get();
            all += count;
            exact += if provenance.is_exact() { count } else { 0 };
        }
        (all > 0).then(|| exact as f64 / all as f64)
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Now").field("limiters", &self.limiters).finish_non_exhaustive()
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let prices = self.prices.read().unwrap_or_else(PoisonError::into_inner).clone();
        write_price_table(encoder, &prices)?;
        let published = prices.published_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        write(encoder, &semconv::PRICE_TABLE_TIMESTAMP, [([], ConstGauge::new(published.as_secs()))])?;
        write(encoder, &semconv::SERIES_LIMIT, [([], ConstGauge::new(whole(self.room.limit())))])?;
        write(encoder, &semconv::LABEL_VALUES, self.labels(|limiter| ConstGauge::new(whole(limiter.admitted()))))?;
        write(encoder, &semconv::LABEL_VALUES_LIMIT, self.labels(|limiter| ConstGauge::new(whole(limiter.cap()))))?;
        write(encoder, &semconv::LABEL_OVERFLOW, self.labels(|limiter| ConstCounter::new(limiter.refused())))?;
        let providers = self.providers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let captured = providers.iter().filter_map(|it| Some(([&*it.name], ConstGauge::new(it.capture_ratio()?))));
        write(encoder, &semconv::COST_CAPTURE_RATIO, captured)?;
        write(encoder, &semconv::UPSTREAM_RATELIMIT_LIMIT, quotas(&providers, |(limit, _)| limit))?;
        write(encoder, &semconv::UPSTREAM_RATELIMIT_REMAINING, quotas(&providers, |(_, remaining)| remaining))?;
        self.denials.write_all(encoder)?;
        self.reloads.write_all(encoder)?;
        self.write_connections(encoder)?;
        self.write_circuits(encoder)?;
        self.write_queues(encoder)?;
        let tasks = Handle::try_current().ok().map(|runtime| runtime.metrics().num_alive_tasks());
        write(encoder, &semconv::TASKS, tasks.map(|tasks| ([], ConstGauge::new(whole(tasks)))))?;
        self.write_overload(encoder)?;
        let store = self.store.get().map(|is_up| ([], ConstGauge::new(u64::from(is_up()))));
        write(encoder, &semconv::SHARED_STORE_UP, store)?;
        let state = self.state.get().map(|is_kept| ([], ConstGauge::new(u64::from(is_kept()))));
        write(encoder, &semconv::STATE_KEPT, state)?;
        if let Some(watch) = self.traces.get() {
            write_traces(encoder, watch())?;
        }
        if let Some(watch) = self.ledger.get() {
            write_ledger(encoder, watch())?;
        }
        if let Some(watch) = self.cache.get() {
            let sizes = watch();
            let each = |part: fn(&CacheSize) -> u64| {
                sizes.iter().map(move |(backend, size)| ([backend.as_str()], ConstGauge::new(part(size))))
            };
            write(encoder, &semconv::CACHE_ENTRIES, each(|size| size.entries))?;
            write(encoder, &semconv::CACHE_SIZE, each(|size| size.bytes))?;
            write(encoder, &semconv::CACHE_CAPACITY, each(|size| size.capacity_bytes))?;
        }
        let found = self.redactor.get().map(|redactor| redactor.found()).unwrap_or_default();
        let found = found.into_iter().map(|(kind, times)| ([kind], ConstCounter::new(times)));
        write(encoder, &semconv::REDACTIONS, found)?;
        let limits = self.limits.get().and_then(|watch| watch());
        limits.map_or(Ok(()), |limits| rules::write_all(encoder, &limits))?;
        self.host.get().map_or(Ok(()), |host| host::write_all(encoder, host))
    }
}

impl Now {
    fn write_queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let queues: Vec<_> = queues.iter().filter_map(|(queue, watch)| Some(([queue.as_str()], watch()?))).collect();
        let lengths = queues.iter().filter_map(|(name, it)| Some((*name, ConstGauge::new(whole(it.length?)))));
        write(encoder, &semconv::QUEUE_LENGTH, lengths)?;
        let capacities = queues.iter().map(|(name, it)| (*name, ConstGauge::new(whole(it.capacity))));
        write(encoder, &semconv::QUEUE_CAPACITY, capacities)?;
        let dropped = queues.iter().map(|(name, it)| (*name, ConstCounter::new(it.dropped)));
        write(encoder, &semconv::QUEUE_DROPPED, dropped)
    }

    fn write_overload(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Overload { shed, bodies } = self.overload.get().map(|watch| watch()).unwrap_or_default();
        let each = |part: fn(&Standing) -> u64| bodies.iter().map(move |(body, standing)| ([*body], part(standing)));
        let shed = shed.into_iter().map(|(reason, calls)| ([reason], ConstCounter::new(calls)));
        write(encoder, &semconv::SHED, shed)?;
        let unread = each(|it| it.declined).map(|(body, times)| (body, ConstCounter::new(times)));
        write(encoder, &semconv::BODIES_UNREAD, unread)?;
        let gauge = |(body, bytes)| (body, ConstGauge::new(bytes));
        write(encoder, &semconv::BODIES_HELD, each(|it| it.held).map(gauge))?;
        write(encoder, &semconv::BODIES_BOUND, each(|it| it.most).map(gauge))?;
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        let refused = doors.iter().map(|(side, times)| ([side.as_str()], times.load(Ordering::Relaxed)));
        write(encoder, &semconv::ACCEPT_REFUSED, refused.map(|(side, times)| (side, ConstCounter::new(times))))
    }

    /// Providers that have the same value of the label are one series.
    fn write_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(watch) = self.connections.get() else { return Ok(()) };
        let open = watch();
        let mut sums = BTreeMap::<&str, usize>::new();
        for (provider, connections) in &open {
            *sums.entry(provider).or_default() += connections;
        }
        let sums = sums.into_iter().map(|(provider, open)| ([provider], ConstGauge::new(whole(open))));
        write(encoder, &semconv::UPSTREAM_CONNECTIONS, sums)
    }

    /// Of providers that have the same value of the label, the worst one counts.
    fn write_circuits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(watch) = self.circuits.get() else { return Ok(()) };
        let circuits = watch();
        let mut all = BTreeMap::<&str, bool>::new();
        for (upstream, is_closed) in &circuits {
            *all.entry(upstream).or_insert(true) &= is_closed;
        }
        let all = all.into_iter().map(|(upstream, is_closed)| ([upstream], ConstGauge::new(u64::from(is_closed))));
        write(encoder, &semconv::UPSTREAM_UP, all)
    }

    fn labels<M>(&self, sample: impl Fn(&Limiter) -> M) -> impl Iterator<Item = ([&str; 1], M)> {
        self.limiters.iter().map(move |(name, limiter)| ([*name], sample(limiter)))
    }
}

/// One part of every quota that any provider told of.
fn quotas(
    providers: &[Watched],
    part: impl Fn((Option<u64>, Option<u64>)) -> Option<u64>,
) -> impl Iterator<Item = ([&str; 2], ConstGauge<u64>)> {
    let now = Instant::now();
    let each = providers.iter().flat_map(|it| QuotaKind::ALL.map(|kind| (it, kind)));
    each.filter_map(move |(it, kind)| {
        Some(([&*it.name, kind.as_str()], ConstGauge::new(part(it.quotas.now(kind, now))?)))
    })
}

/// Writes one family, each sample under its values of the family's labels.
pub(super) fn write<'a, M: EncodeMetric, const LABELS: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    samples: impl IntoIterator<Item = ([&'a str; LABELS], M)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    let Some((_, first)) = samples.peek() else { return Ok(()) };
    // The registry ends the help of what it owns with a full stop; so do we.
    let help = format!("{}.", metric.help);
    let mut family = encoder.encode_descriptor(metric.stem(), &help, None, first.metric_type())?;
    for (values, sample) in samples {
        if LABELS == 0 {
            return sample.encode(family);
        }
        let labels: Vec<_> = metric.labels.iter().copied().zip(values).collect();
        sample.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Writes which price table is in use: an info metric, which has two labels.
fn write_price_table(encoder: &mut DescriptorEncoder<'_>, prices: &PriceTable) -> fmt::Result {
    let metric = &semconv::PRICE_TABLE_INFO;
    let info = Info::new(vec![(label::VERSION, prices.version.clone()), (label::SOURCE, prices.source.clone())]);
    info.encode(encoder.encode_descriptor(metric.stem(), &format!("{}.", metric.help), None, info.metric_type())?)
}

fn write_traces(encoder: &mut DescriptorEncoder<'_>, standing: traces::Standing) -> fmt::Result {
    let traces::Standing { exported, queue_full, export_failed, length, capacity, last_taken: _, is_failing: _ } =
        standing;
    let dropped = [("queue_full", queue_full), ("export_failed", export_failed)];
    write(encoder, &semconv::OTLP_EXPORTED_SPANS, [([], ConstCounter::new(exported))])?;
    write(encoder, &semconv::OTLP_DROPPED_SPANS, dropped.map(|(why, count)| ([why], ConstCounter::new(count))))?;
    write(encoder, &semconv::OTLP_QUEUE_LENGTH, [([], ConstGauge::new(length))])?;
    write(encoder, &semconv::OTLP_QUEUE_CAPACITY, [([], ConstGauge::new(capacity))])
}

fn write_ledger(encoder: &mut DescriptorEncoder<'_>, standing: Ledger) -> fmt::Result {
    let Ledger { written, queue_full, io_error, content_full, length, capacity, size_bytes, damaged } = standing;
    let dropped = [("queue_full", queue_full), ("io_error", io_error), ("content_full", content_full)];
    write(encoder, &semconv::LEDGER_RECORDS, [([], ConstCounter::new(written))])?;
    write(encoder, &semconv::LEDGER_DROPPED, dropped.map(|(why, count)| ([why], ConstCounter::new(count))))?;
    write(encoder, &semconv::LEDGER_QUEUE_LENGTH, [([], ConstGauge::new(length))])?;
    write(encoder, &semconv::LEDGER_QUEUE_CAPACITY, [([], ConstGauge::new(capacity))])?;
    write(encoder, &semconv::LEDGER_SIZE, [([], ConstGauge::new(size_bytes))])?;
    write(encoder, &semconv::LEDGER_DAMAGED, [([], ConstCounter::new(damaged))])
}

pub(super) fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
