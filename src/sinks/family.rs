//! Family: the series of one metric, made when their labels are first seen.
//!
//! What the client library has for this holds its lock while a scrape writes every series, and a call that needs a new one
//! waits for that. This one is copied first, a pointer for each series, and then written. Knows no labels and no values.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Series of type `M`, told apart by `S`, made by `C`.
pub(super) struct Family<S, M, C> {
    series: Arc<RwLock<HashMap<Arc<S>, M>>>,
    constructor: C,
}

impl<S: Eq + Hash + Clone, M: Clone, C: MetricConstructor<M>> Family<S, M, C> {
    pub(super) fn new_with_constructor(constructor: C) -> Self {
        Self { series: Arc::default(), constructor }
    }

    /// The series of these labels, if it is there.
    pub(super) fn get(&self, labels: &S) -> Option<M> {
        self.series.read().unwrap_or_else(PoisonError::into_inner).get(labels).cloned()
    }

    /// The series of these labels, made if it is not there.
    pub(super) fn get_or_create_owned(&self, labels: &S) -> M {
        if let Some(known) = self.get(labels) {
            return known;
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(made_meanwhile) = series.get(labels) {
            return made_meanwhile.clone();
        }
        let made = self.constructor.new_metric();
        series.insert(Arc::new(labels.clone()), made.clone());
        made
    }

    fn snapshot(&self) -> Vec<(Arc<S>, M)> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.iter().map(|(labels, metric)| (Arc::clone(labels), metric.clone())).collect()
    }
}

impl<S, M, C: Clone> Clone for Family<S, M, C> {
    fn clone(&self) -> Self {
        Self { series: Arc::clone(&self.series), constructor: self.constructor.clone() }
    }
}

impl<S: fmt::Debug, M: fmt::Debug, C> fmt::Debug for Family<S, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("series", &self.series).finish_non_exhaustive()
    }
}

impl<S, M, C> EncodeMetric for Family<S, M, C>
where
    S: Eq + Hash + Clone + EncodeLabelSet,
    M: Clone + EncodeMetric + TypedMetric,
    C: MetricConstructor<M>,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let encode = |(labels, metric): (Arc<S>, M)| metric.encode(encoder.encode_family(&*labels)?);
        self.snapshot().into_iter().try_for_each(encode)
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.series.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::registry::Registry;

    use super::*;

    type Labels = Vec<(&'static str, &'static str)>;

    fn family() -> Family<Labels, Counter, fn() -> Counter> {
        Family::new_with_constructor(Counter::default)
    }

    #[test]
    fn equal_labels_are_one_series() {
        let family = family();
        let labels = vec![("model", "a")];
        assert!(family.get(&labels).is_none());
        family.get_or_create_owned(&labels).inc();
        family.get_or_create_owned(&vec![("model", "b")]).inc();
        assert_eq!(family.get_or_create_owned(&labels).inc(), 1);
        assert_eq!(family.get(&labels).map(|counter| counter.get()), Some(2));
    }

    /// A metric that makes a further one of its family whenever it is written: what a call does while weir is scraped.
    #[derive(Clone, Debug, Default)]
    struct Busy(Option<BusyFamily>);

    type BusyFamily = Family<Labels, Busy, fn() -> Busy>;

    impl TypedMetric for Busy {
        const TYPE: MetricType = MetricType::Counter;
    }

    impl EncodeMetric for Busy {
        fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
            if let Some(family) = &self.0 {
                family.get_or_create_owned(&vec![("model", "new")]);
            }
            Counter::<u64>::default().encode(encoder)
        }

        fn metric_type(&self) -> MetricType {
            Self::TYPE
        }
    }

    #[test]
    fn a_scrape_holds_up_nobody_who_needs_a_new_series() {
        let family: BusyFamily = Family::new_with_constructor(Busy::default);
        family
            .series
            .write()
            .expect("nobody panics")
            .insert(Arc::new(vec![("model", "old")]), Busy(Some(family.clone())));
        let mut registry = Registry::default();
        registry.register("calls", "Calls", family.clone());
        let mut text = String::new();
        encode(&mut text, &registry).expect("memory takes every byte");
        assert!(text.contains("calls_total{model=\"old\"} 0\n") && !text.contains("new"), "{text}");
        assert!(family.get(&vec![("model", "new")]).is_some());
    }
}
