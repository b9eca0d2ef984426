//! Value: what one series of the app's own holds, and what is added to it. Knows no names.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Upper bounds of a histogram that says none: those of Prometheus' own clients, for seconds.
pub const DEFAULT_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Most upper bounds of a histogram.
pub const MAX_BOUNDS: usize = 50;
/// Most quantiles of a summary.
pub const MAX_QUANTILES: usize = 10;
/// Most observations in one bucket: so many that those of all buckets together can still be counted.
const MAX_COUNT: u64 = u64::MAX / 64;
/// Most processes of the app whose totals are told apart in one series.
const MAX_WRITERS: usize = 64;

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows.
    Counter,
    /// Is what was said last.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
    /// Counts observations, and says what quantiles the app has found.
    Summary,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Counter, Self::Gauge, Self::Histogram, Self::Summary];

    /// What it is called.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// What the app tells of one series.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A counter grows by this, or has grown to it.
    Counter(f64),
    /// A gauge is this.
    Gauge(f64),
    /// A gauge is more or less by this.
    GaugeBy(f64),
    /// A histogram's observations; without bounds, those that it has, or [`DEFAULT_BOUNDS`].
    Observed(Vec<f64>, Option<Arc<[f64]>>),
    /// A histogram's observations, counted by bucket: one for each bound, and one for what is above all of them.
    Counted {
        /// Upper bounds.
        bounds: Arc<[f64]>,
        /// How many observations are in each.
        counts: Vec<u64>,
        /// Their sum; not a number if it is not known.
        sum: f64,
    },
    /// A summary's observations, and quantiles by their names.
    Summary(Summary),
}

impl Told {
    /// What kind of metric can be told this.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) => Kind::Counter,
            Self::Gauge(_) | Self::GaugeBy(_) => Kind::Gauge,
            Self::Observed(..) | Self::Counted { .. } => Kind::Histogram,
            Self::Summary(_) => Kind::Summary,
        }
    }

    /// The bounds it comes with, of a histogram.
    pub(super) fn bounds(&self) -> Option<&Arc<[f64]>> {
        match self {
            Self::Observed(_, bounds) => bounds.as_ref(),
            Self::Counted { bounds, .. } => Some(bounds),
            Self::Counter(_) | Self::Gauge(_) | Self::GaugeBy(_) | Self::Summary(_) => None,
        }
    }

    /// What it comes to, in a histogram of these bounds.
    pub(super) fn value(&self, bounds: &[f64]) -> Value {
        match self {
            Self::Counter(by) => Value::Counter(*by),
            Self::Gauge(now) => Value::Gauge { now: Some(*now), by: 0.0 },
            Self::GaugeBy(by) => Value::Gauge { now: None, by: *by },
            Self::Observed(values, _) => Value::Histogram { counts: counted(values, bounds), sum: values.iter().sum() },
            Self::Counted { counts, sum, .. } => Value::Histogram { counts: counts.clone(), sum: *sum },
            Self::Summary(summary) => Value::Summary(summary.clone()),
        }
    }
}

/// How many of `values` are in each bucket: above the bound before it, and not above its own.
fn counted(values: &[f64], bounds: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; bounds.len() + 1];
    for value in values {
        counts[bounds.partition_point(|bound| bound < value)] += 1;
    }
    counts
}

/// Observations that nobody has put into buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Quantiles, by what their label says: they are what they are, and add up to nothing.
    pub quantiles: BTreeMap<Box<str>, f64>,
}

/// What a series holds, or what is to be added to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Counter(f64),
    /// What it is, if that is said; else what it was; and by how much it is more.
    Gauge {
        now: Option<f64>,
        by: f64,
    },
    Histogram {
        counts: Vec<u64>,
        sum: f64,
    },
    Summary(Summary),
}

impl Value {
    /// How many series it is when scraped.
    pub(super) fn series(&self) -> usize {
        match self {
            Self::Counter(_) | Self::Gauge { .. } => 1,
            Self::Histogram { counts, .. } => counts.len() + 2,
            Self::Summary(summary) => summary.quantiles.len() + 2,
        }
    }

    /// Nothing yet, of the same kind: what a series holds before the first `value` is added.
    pub(super) fn zero_of(value: &Self) -> Self {
        match value {
            Self::Counter(_) => Self::Counter(0.0),
            Self::Gauge { .. } => Self::Gauge { now: Some(0.0), by: 0.0 },
            Self::Histogram { counts, .. } => Self::Histogram { counts: vec![0; counts.len()], sum: 0.0 },
            Self::Summary(_) => Self::Summary(Summary::default()),
        }
    }

    /// Adds what is of the same kind, and has as many buckets.
    pub(super) fn add(&mut self, more: &Self) {
        match (self, more) {
            (Self::Counter(total), Self::Counter(by)) => *total += by,
            (Self::Gauge { now, by }, Self::Gauge { now: said, by: more }) => {
                *now = Some(said.or(*now).unwrap_or_default() + more);
                *by = 0.0;
            }
            (Self::Histogram { counts, sum }, Self::Histogram { counts: by, sum: more }) => {
                for (count, by) in counts.iter_mut().zip(by) {
                    *count = count.saturating_add(*by).min(MAX_COUNT);
                }
                *sum += more;
            }
            (Self::Summary(total), Self::Summary(more)) => {
                total.count = total.count.saturating_add(more.count);
                total.sum += more.sum;
                total.quantiles.extend(more.quantiles.iter().map(|(name, value)| (name.clone(), *value)));
            }
            _ => debug_assert!(false, "a metric keeps its type"),
        }
    }

    /// What has come since `before`; `None` if this cannot have grown out of it.
    fn since(&self, before: &Self) -> Option<Self> {
        match (self, before) {
            (Self::Counter(now), Self::Counter(before)) => (now >= before).then(|| Self::Counter(now - before)),
            (Self::Gauge { .. }, _) => Some(self.clone()),
            (Self::Histogram { counts, sum }, Self::Histogram { counts: before, sum: sum_before }) => {
                let counts: Option<_> =
                    counts.iter().zip(before).map(|(now, before)| now.checked_sub(*before)).collect();
                Some(Self::Histogram { counts: counts?, sum: sum - sum_before })
            }
            (Self::Summary(now), Self::Summary(before)) => {
                let count = now.count.checked_sub(before.count)?;
                Some(Self::Summary(Summary { count, sum: now.sum - before.sum, quantiles: now.quantiles.clone() }))
            }
            _ => None,
        }
    }
}

/// Who tells a total, and since when: a process of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Tells processes apart, as far as they say who they are.
    pub id: u64,
    /// When its total was zero, in nanoseconds since 1970; zero if it does not say.
    pub since: u64,
}

/// Totals, and who told them: each process of the app tells its own, from its own start. What is exposed is their sum,
/// which goes on when one of them starts again.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// Those told least recently come first.
    told: Vec<(Writer, Value)>,
    /// Whoever began before this may have told here already, and not to be remembered.
    counted_from: u64,
}

impl Totals {
    /// For totals that nobody here can have heard of if they begin at `counted_from`, in nanoseconds since 1970.
    pub(super) const fn new(counted_from: u64) -> Self {
        Self { told: Vec::new(), counted_from }
    }

    /// What has come to the total of `writer` since it told the last one. The first one of somebody who is older than
    /// weir is where counting begins: how much of it was scraped from the weir before this one, nobody knows.
    pub(super) fn grown(&mut self, writer: Writer, total: Value) -> Value {
        let known = self.told.iter().position(|(known, _)| *known == writer);
        let grown = match known.map(|position| self.told.remove(position)) {
            // Smaller than before, although nobody said so: begun anew.
            Some((_, before)) => total.since(&before).unwrap_or_else(|| total.clone()),
            None if writer.since >= self.counted_from => total.clone(),
            None => total.since(&total).expect("nothing is smaller than itself"),
        };
        self.told.push((writer, total));
        if self.told.len() > MAX_WRITERS {
            let (forgotten, _) = self.told.remove(0);
            self.counted_from = self.counted_from.max(forgotten.since.saturating_add(1));
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1000;

    fn counter(totals: &mut Totals, id: u64, since: u64, total: f64) -> f64 {
        match totals.grown(Writer { id, since }, Value::Counter(total)) {
            Value::Counter(grown) => grown,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "small whole numbers")]
    fn totals_grow_by_what_has_come_since() {
        let totals = &mut Totals::new(START);
        for (rule, id, since, total, grown) in [
            ("the first of one younger than weir counts", 1, START, 5.0, 5.0),
            ("then what has come", 1, START, 7.0, 2.0),
            ("nothing has", 1, START, 7.0, 0.0),
            ("another process has its own total", 2, START + 1, 3.0, 3.0),
            ("and so the first one goes on", 1, START, 8.0, 1.0),
            ("a process that starts again says so", 1, START + 9, 2.0, 2.0),
            ("or does not", 1, START + 9, 1.0, 1.0),
            ("one older than weir counts from what it has", 3, START - 1, 100.0, 0.0),
            ("on", 3, START - 1, 101.0, 1.0),
            ("one that does not say when it began, too", 4, 0, 100.0, 0.0),
        ] {
            assert_eq!(counter(totals, id, since, total), grown, "{rule}");
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "small whole numbers")]
    fn one_that_was_forgotten_is_not_counted_twice() {
        let totals = &mut Totals::new(START);
        for process in 0..=MAX_WRITERS as u64 {
            assert_eq!(counter(totals, process, START + process, 10.0), 10.0);
        }
        assert_eq!(totals.told.len(), MAX_WRITERS);
        assert_eq!(counter(totals, 0, START, 11.0), 0.0, "forgotten, and back");
        assert_eq!(counter(totals, 0, START, 12.0), 1.0);
        assert_eq!(counter(totals, 99, START + 999, 4.0), 4.0, "a new one");
    }

    #[test]
    fn histograms_and_summaries_grow_alike() {
        let totals = &mut Totals::new(START);
        let writer = Writer { id: 1, since: START };
        let of = |counts: &[u64], sum| Value::Histogram { counts: counts.to_vec(), sum };
        assert_eq!(totals.grown(writer, of(&[1, 2], 3.0)), of(&[1, 2], 3.0));
        assert_eq!(totals.grown(writer, of(&[1, 4], 5.0)), of(&[0, 2], 2.0));
        assert_eq!(totals.grown(writer, of(&[0, 9], 9.0)), of(&[0, 9], 9.0), "begun anew");
        let totals = &mut Totals::new(START);
        let of = |count, median| {
            let quantiles = [("0.5".into(), median)].into();
            Value::Summary(Summary { count, sum: 2.0, quantiles })
        };
        assert_eq!(totals.grown(writer, of(1, 0.1)), of(1, 0.1));
        let Value::Summary(grown) = totals.grown(writer, of(3, 0.2)) else { panic!("a summary") };
        assert_eq!((grown.count, grown.quantiles["0.5"].to_bits()), (2, 0.2_f64.to_bits()));
    }

    #[test]
    fn observations_are_counted_in_the_bucket_that_ends_above_them() {
        let bounds = [1.0, 2.0];
        assert_eq!(counted(&[0.5, 1.0, 1.5, 2.0, 2.5, -1.0], &bounds), [3, 2, 1]);
        assert_eq!(counted(&[], &bounds), [0, 0, 0]);
    }

    #[test]
    fn all_buckets_together_can_be_counted() {
        let mut histogram = Value::Histogram { counts: vec![0; MAX_BOUNDS + 1], sum: 0.0 };
        histogram.add(&Value::Histogram { counts: vec![u64::MAX; MAX_BOUNDS + 1], sum: 0.0 });
        let Value::Histogram { counts, .. } = histogram else { panic!("a histogram") };
        assert!(counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count)).is_some());
    }

    #[test]
    fn a_gauge_is_what_was_said_last_and_what_came_since() {
        let mut gauge = Value::zero_of(&Value::Gauge { now: None, by: 0.0 });
        for (told, expected) in [(Told::GaugeBy(2.0), 2.0), (Told::Gauge(7.0), 7.0), (Told::GaugeBy(-3.0), 4.0)] {
            gauge.add(&told.value(&[]));
            assert_eq!(gauge, Value::Gauge { now: Some(expected), by: 0.0 });
        }
    }
}
