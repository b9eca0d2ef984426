//! Now: what is asked at the scrape instead of counted on the way. Sizes, limits, and how full the labels are.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;

use crate::labels::Limiter;
use crate::semconv::{self, Metric, label};
use crate::sinks::families::Room;
use crate::sinks::metrics::PriceTable;
use crate::sinks::series::MEMORY;

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

/// Says how full the cache is now.
pub type WatchCache = Arc<dyn Fn() -> CacheSize + Send + Sync>;

/// What is asked at each scrape.
pub(super) struct Now {
    pub(super) room: Arc<Room>,
    /// The price table in use.
    pub(super) prices: RwLock<PriceTable>,
    /// Every capped label and who caps it.
    pub(super) limiters: Vec<(&'static str, Arc<Limiter>)>,
    /// Set once the cache is there.
    pub(super) cache: OnceLock<WatchCache>,
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
        write(encoder, &semconv::PRICE_TABLE_TIMESTAMP, [("", ConstGauge::new(published.as_secs()))])?;
        write(encoder, &semconv::SERIES_LIMIT, [("", ConstGauge::new(whole(self.room.limit())))])?;
        write(encoder, &semconv::LABEL_VALUES, self.labels(|limiter| ConstGauge::new(whole(limiter.admitted()))))?;
        write(encoder, &semconv::LABEL_VALUES_LIMIT, self.labels(|limiter| ConstGauge::new(whole(limiter.cap()))))?;
        write(encoder, &semconv::LABEL_OVERFLOW, self.labels(|limiter| ConstCounter::new(limiter.refused())))?;
        if let Some(watch) = self.cache.get() {
            let size = watch();
            write(encoder, &semconv::CACHE_ENTRIES, [(MEMORY, ConstGauge::new(size.entries))])?;
            write(encoder, &semconv::CACHE_SIZE, [(MEMORY, ConstGauge::new(size.bytes))])?;
            write(encoder, &semconv::CACHE_CAPACITY, [(MEMORY, ConstGauge::new(size.capacity_bytes))])?;
        }
        Ok(())
    }
}

impl Now {
    fn labels<M>(&self, sample: impl Fn(&Limiter) -> M) -> impl Iterator<Item = (&'static str, M)> {
        self.limiters.iter().map(move |(name, limiter)| (*name, sample(limiter)))
    }
}

/// Writes one family, each sample under its value of the family's only label, if it has one.
fn write<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    samples: impl IntoIterator<Item = (&'static str, M)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    let Some((_, first)) = samples.peek() else { return Ok(()) };
    // The registry ends the help of what it owns with a full stop; so do we.
    let help = format!("{}.", metric.help);
    let mut family = encoder.encode_descriptor(metric.stem(), &help, None, first.metric_type())?;
    for (value, sample) in samples {
        match metric.labels.first() {
            Some(name) => sample.encode(family.encode_family(&[(*name, value)])?)?,
            None => return sample.encode(family),
        }
    }
    Ok(())
}

/// Writes which price table is in use: an info metric, which has two labels.
fn write_price_table(encoder: &mut DescriptorEncoder<'_>, prices: &PriceTable) -> fmt::Result {
    let metric = &semconv::PRICE_TABLE_INFO;
    let info = Info::new(vec![(label::VERSION, prices.version.clone()), (label::SOURCE, prices.source.clone())]);
    info.encode(encoder.encode_descriptor(metric.stem(), &format!("{}.", metric.help), None, info.metric_type())?)
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
