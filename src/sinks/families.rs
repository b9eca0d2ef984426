//! Families: every metric that records fill, registered once, and how many series they may become.
//!
//! Knows labels and families; not which of them belong together, and not what a record means.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, NativeHistogramConfig};
use prometheus_client::registry::Registry;

use crate::record::usage::Counter as Counted;
use crate::semconv::{self, Metric};
use crate::sinks::family::Family;
use crate::sinks::metrics::Histograms;
use crate::sinks::money::Amount;
use crate::sinks::{Conventions, Settings};

/// A label set, in the order it is exposed.
pub(super) type Labels = Vec<(&'static str, Arc<str>)>;
/// A gauge that holds a fraction.
pub(super) type Level = Gauge<f64, AtomicU64>;

/// A label value. Only for new series: it allocates.
pub(super) fn text(value: &str) -> Arc<str> {
    Arc::from(value)
}

/// Each native bucket is at most this much wider than the one below it, which bounds the error of a quantile to half of
/// that. What Prometheus' own libraries advise.
const NATIVE_FACTOR: f64 = 1.1;
/// Most buckets of one native histogram, 16 bytes each: what the classic buckets span, from half a millisecond to ten
/// minutes, in steps of [`NATIVE_FACTOR`]. When there are more, all are made twice as wide; nothing is forgotten, so that
/// no counter ever falls.
const NATIVE_BUCKETS: usize = 160;

/// Who chose the names that a series carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The operator, or the price table.
    Listed,
    /// The app, whoever it speaks for, or a model.
    Outside,
}

/// How many series there are, and how many there may be.
///
/// New names get series of their own while there is space; after that they share those of `other`, which are few and
/// always made, like those of closed sets. Names from outside have a part of the space, whoever was there first: so
/// there is space left for those that are known, and a flood of names makes no more series than that part.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    pub(super) made: AtomicUsize,
    /// Those of them that are there from the start.
    made_first: AtomicUsize,
}

impl Room {
    /// More than the series that one new name adds at once.
    pub(super) const LARGEST_SET: usize = 64;
    /// The part of the space that names from outside have, in hundredths.
    const OUTSIDE: usize = 8;

    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, made: AtomicUsize::new(0), made_first: AtomicUsize::new(0) }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// What was made until now is there from the start, and takes nobody's part.
    pub(super) fn begin(&self) {
        self.made_first.store(self.made.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether another set of series may get names of its own.
    pub(super) fn has_space(&self, origin: Origin) -> bool {
        let limit = match origin {
            Origin::Listed => self.limit,
            Origin::Outside => {
                let part = self.limit.saturating_mul(Self::OUTSIDE) / 100;
                self.limit.min(part.saturating_add(self.made_first.load(Ordering::Relaxed)))
            }
        };
        self.made.load(Ordering::Relaxed).saturating_add(Self::LARGEST_SET) <= limit
    }
}

/// Makes the metrics of one family, and counts the series they are.
#[derive(Clone, Debug)]
pub(super) struct Make {
    room: Arc<Room>,
    buckets: &'static [f64],
    histograms: Histograms,
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
        let bounds = self.buckets.iter().copied();
        match self.histograms {
            Histograms::Classic => Histogram::new(bounds),
            Histograms::Both => {
                self.count(1);
                let native = NativeHistogramConfig::new(NATIVE_FACTOR).max_buckets(NATIVE_BUCKETS);
                Histogram::new_classic_and_native(bounds, native)
            }
        }
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
    fn register(to: &mut Registrar<'_>, metric: &'static Metric) -> Self {
        let family = Family::new_with_constructor(to.make(metric));
        to.registry.register(metric.stem(), metric.help, family.clone());
        Self { family, room: Arc::clone(&to.room) }
    }

    /// The handle of one label set, made at zero if it is new.
    pub(super) fn with(&self, labels: &Labels) -> M {
        self.family.get_or_create_owned(labels)
    }

    /// The handle of these labels, if it is there or there is space for it.
    pub(super) fn with_space(&self, origin: Origin, labels: &Labels) -> Option<M> {
        self.family.get(labels).or_else(|| self.room.has_space(origin).then(|| self.with(labels)))
    }

    /// The handle of `named`, or of `folded` if `named` is new and there is no space for it.
    pub(super) fn with_space_or(&self, origin: Origin, named: &Labels, folded: &Labels) -> M {
        self.with_space(origin, named).unwrap_or_else(|| self.with(folded))
    }

    /// One handle for each value of the label `name`, beside `labels`.
    pub(super) fn each<const N: usize>(&self, labels: &Labels, name: &'static str, values: [&str; N]) -> [M; N] {
        values.map(|value| self.with(&beside(labels, name, text(value))))
    }
}

/// Where families are registered, and what they are made with.
struct Registrar<'a> {
    registry: &'a mut Registry,
    room: Arc<Room>,
    histograms: Histograms,
}

impl Registrar<'_> {
    fn make(&self, metric: &'static Metric) -> Make {
        Make { room: Arc::clone(&self.room), buckets: metric.buckets, histograms: self.histograms }
    }
}

/// A metric that is one series.
fn without_labels<M>(to: &mut Registrar<'_>, metric: &'static Metric) -> M
where
    M: Clone + Debug + EncodeMetric + Send + Sync + 'static,
    Make: MetricConstructor<M>,
{
    let made = to.make(metric).new_metric();
    to.registry.register(metric.stem(), metric.help, made.clone());
    made
}

/// `labels` and one more.
pub(super) fn beside(labels: &Labels, name: &'static str, value: Arc<str>) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value));
    labels
}

/// Tokens in the words that the conventions are moving to: how many in all, and how many an operation takes.
#[derive(Debug)]
pub(super) struct InferenceTokens {
    /// In the order of [`InferenceTokens::USED`].
    pub(super) used: [Series<Counter>; InferenceTokens::USED.len()],
    /// In the order of [`InferenceTokens::PER_OPERATION`].
    pub(super) per_operation: [Series<Histogram>; InferenceTokens::PER_OPERATION.len()],
}

impl InferenceTokens {
    /// What is counted in all: input, output, and subsets of these.
    pub(super) const USED: [Counted; 5] = [
        Counted::InputTokens,
        Counted::OutputTokens,
        Counted::CacheReadTokens,
        Counted::CacheWriteTokens,
        Counted::OutputReasoningTokens,
    ];
    /// What is observed of each operation.
    pub(super) const PER_OPERATION: [Counted; 2] = [Counted::InputTokens, Counted::OutputTokens];

    fn register(to: &mut Registrar<'_>) -> Self {
        let used = [
            &semconv::INFERENCE_INPUT_TOKENS,
            &semconv::INFERENCE_OUTPUT_TOKENS,
            &semconv::INFERENCE_CACHE_READ_TOKENS,
            &semconv::INFERENCE_CACHE_WRITE_TOKENS,
            &semconv::INFERENCE_REASONING_TOKENS,
        ];
        let per_operation = [&semconv::INFERENCE_OPERATION_INPUT_TOKENS, &semconv::INFERENCE_OPERATION_OUTPUT_TOKENS];
        Self {
            used: used.map(|metric| Series::register(to, metric)),
            per_operation: per_operation.map(|metric| Series::register(to, metric)),
        }
    }
}

/// Every family that records fill.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) room: Arc<Room>,
    /// In the words of version 1.41, if they are wanted.
    pub(super) token_usage: Option<Series<Histogram>>,
    /// In the next words, if they are wanted.
    pub(super) inference_tokens: Option<InferenceTokens>,
    /// Under each of the names that are wanted.
    pub(super) operation_duration: Vec<Series<Histogram>>,
    pub(super) time_to_first_token: Series<Histogram>,
    pub(super) time_per_output_token: Series<Histogram>,
    pub(super) requests: Series<Counter>,
    pub(super) request_duration: Series<Histogram>,
    pub(super) proxy_overhead: Series<Histogram>,
    pub(super) in_flight: Series<Gauge>,
    pub(super) http_bytes: Series<Counter>,
    pub(super) tokens: Series<Counter>,
    pub(super) tokens_saved: Series<Counter>,
    pub(super) cost: Series<Amount>,
    pub(super) cost_saved: Series<Amount>,
    pub(super) request_cost: Series<Histogram>,
    pub(super) unpriced: Series<Counter>,
    pub(super) unpriced_last_seen: Series<Level>,
    pub(super) usage_estimated: Series<Counter>,
    pub(super) billable: Series<Counter>,
    pub(super) cost_by_provenance: Series<Amount>,
    pub(super) cost_drift: Series<Amount>,
    pub(super) cache_requests: Series<Counter>,
    pub(super) cache_lookup: Series<Histogram>,
    pub(super) cache_evictions: Series<Counter>,
    pub(super) cache_stores: Series<Counter>,
    pub(super) cache_invalidations: Series<Counter>,
    pub(super) cache_errors: Series<Counter>,
    pub(super) singleflight: Series<Counter>,
    pub(super) singleflight_wait: Histogram,
    pub(super) similar_requests: Series<Counter>,
    pub(super) similar_lookup: Histogram,
    pub(super) ledger_write: Histogram,
    pub(super) similar_embeddings: Series<Counter>,
    pub(super) similar_verified: Series<Counter>,
    pub(super) upstream_requests: Series<Counter>,
    pub(super) upstream_retries: Series<Counter>,
    pub(super) upstream_fallbacks: Series<Counter>,
    pub(super) upstream_connect: Series<Histogram>,
    pub(super) agent_requests: Series<Counter>,
    pub(super) agent_tokens: Series<Counter>,
    pub(super) agent_cost: Series<Amount>,
    pub(super) consumer_requests: Series<Counter>,
    pub(super) consumer_cost: Series<Amount>,
    pub(super) namespace_requests: Series<Counter>,
    pub(super) loop_duration: Series<Histogram>,
    pub(super) loop_tokens: Series<Counter>,
    pub(super) loop_calls: Series<Counter>,
    pub(super) loop_cost: Series<Amount>,
    pub(super) tool_invocations: Series<Counter>,
    pub(super) loop_errors: Series<Counter>,
    pub(super) loop_runaways: Series<Counter>,
    pub(super) active_loops: Series<Gauge>,
    pub(super) loop_max_calls: Series<Gauge>,
}

impl Families {
    pub(super) fn register(registry: &mut Registry, settings: &Settings) -> Self {
        let room = Arc::new(Room::new(settings.metrics.max_series));
        let to = &mut Registrar { registry, room: Arc::clone(&room), histograms: settings.metrics.histograms };
        let (is_v1_41, is_next) = match settings.semconv {
            Conventions::V1_41 => (true, false),
            Conventions::Next => (false, true),
            Conventions::Both => (true, true),
        };
        let durations =
            [is_v1_41.then_some(&semconv::CLIENT_OPERATION_DURATION), is_next.then_some(&semconv::INFERENCE_DURATION)];
        Self {
            room,
            token_usage: is_v1_41.then(|| Series::register(to, &semconv::CLIENT_TOKEN_USAGE)),
            inference_tokens: is_next.then(|| InferenceTokens::register(to)),
            operation_duration: durations.into_iter().flatten().map(|it| Series::register(to, it)).collect(),
            time_to_first_token: Series::register(to, &semconv::SERVER_TIME_TO_FIRST_TOKEN),
            time_per_output_token: Series::register(to, &semconv::SERVER_TIME_PER_OUTPUT_TOKEN),
            requests: Series::register(to, &semconv::REQUESTS),
            request_duration: Series::register(to, &semconv::REQUEST_DURATION),
            proxy_overhead: Series::register(to, &semconv::PROXY_OVERHEAD),
            in_flight: Series::register(to, &semconv::REQUESTS_IN_FLIGHT),
            http_bytes: Series::register(to, &semconv::HTTP_BYTES),
            tokens: Series::register(to, &semconv::TOKENS),
            tokens_saved: Series::register(to, &semconv::TOKENS_SAVED),
            cost: Series::register(to, &semconv::COST),
            cost_saved: Series::register(to, &semconv::COST_SAVED),
            request_cost: Series::register(to, &semconv::REQUEST_COST),
            unpriced: Series::register(to, &semconv::UNPRICED_REQUESTS),
            unpriced_last_seen: Series::register(to, &semconv::UNPRICED_LAST_SEEN),
            usage_estimated: Series::register(to, &semconv::USAGE_ESTIMATED),
            billable: Series::register(to, &semconv::BILLABLE_REQUESTS),
            cost_by_provenance: Series::register(to, &semconv::COST_BY_PROVENANCE),
            cost_drift: Series::register(to, &semconv::COST_DRIFT),
            cache_requests: Series::register(to, &semconv::CACHE_REQUESTS),
            cache_lookup: Series::register(to, &semconv::CACHE_LOOKUP_DURATION),
            cache_evictions: Series::register(to, &semconv::CACHE_EVICTIONS),
            cache_stores: Series::register(to, &semconv::CACHE_STORES),
            cache_invalidations: Series::register(to, &semconv::CACHE_INVALIDATIONS),
            cache_errors: Series::register(to, &semconv::CACHE_ERRORS),
            singleflight: Series::register(to, &semconv::SINGLEFLIGHT_REQUESTS),
            singleflight_wait: without_labels(to, &semconv::SINGLEFLIGHT_WAIT),
            similar_requests: Series::register(to, &semconv::SIMILAR_REQUESTS),
            similar_lookup: without_labels(to, &semconv::SIMILAR_LOOKUP),
            ledger_write: without_labels(to, &semconv::LEDGER_WRITE_DURATION),
            similar_embeddings: Series::register(to, &semconv::SIMILAR_EMBEDDINGS),
            similar_verified: Series::register(to, &semconv::SIMILAR_VERIFIED),
            upstream_requests: Series::register(to, &semconv::UPSTREAM_REQUESTS),
            upstream_retries: Series::register(to, &semconv::UPSTREAM_RETRIES),
            upstream_fallbacks: Series::register(to, &semconv::UPSTREAM_FALLBACKS),
            upstream_connect: Series::register(to, &semconv::UPSTREAM_CONNECT_DURATION),
            agent_requests: Series::register(to, &semconv::AGENT_REQUESTS),
            agent_tokens: Series::register(to, &semconv::AGENT_TOKENS),
            agent_cost: Series::register(to, &semconv::AGENT_COST),
            consumer_requests: Series::register(to, &semconv::CONSUMER_REQUESTS),
            consumer_cost: Series::register(to, &semconv::CONSUMER_COST),
            namespace_requests: Series::register(to, &semconv::NAMESPACE_REQUESTS),
            loop_duration: Series::register(to, &semconv::LOOP_DURATION),
            loop_tokens: Series::register(to, &semconv::LOOP_TOKENS),
            loop_calls: Series::register(to, &semconv::LOOP_CALLS),
            loop_cost: Series::register(to, &semconv::LOOP_COST),
            tool_invocations: Series::register(to, &semconv::TOOL_INVOCATIONS),
            loop_errors: Series::register(to, &semconv::LOOP_ERRORS),
            loop_runaways: Series::register(to, &semconv::LOOP_RUNAWAYS),
            active_loops: Series::register(to, &semconv::ACTIVE_LOOPS),
            loop_max_calls: Series::register(to, &semconv::LOOP_MAX_CALLS),
        }
    }
}
