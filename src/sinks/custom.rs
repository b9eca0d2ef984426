//! Custom: metrics of the app's own, which it pushes to weir, and which are scraped with weir's.
//!
//! All of them are called `app_…`, so that none can pass for one of weir's. There are only so many, of only so many series.
//! A name keeps its type and its labels for as long as weir runs. Knows no wire format; who pushes, and how, is for the
//! doors to know.

pub mod naming;
pub mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::semconv;
use crate::sinks::custom::naming::{Labels, MAX_LABELS, Name};
use crate::sinks::custom::value::{DEFAULT_BOUNDS, Kind, Told, Totals, Value, Writer};
use crate::sinks::now::write;

/// What the operator writes of the app's own metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether programs on this machine may push metrics of their own, to `POST /api/v1/metrics` and `POST /v1/metrics`
    /// (OpenTelemetry) on the operator's side. They are scraped as `app_…`.
    pub enabled: bool,
    /// Most metrics; more are refused.
    pub max_families: usize,
    /// Most series of all of them together; more are refused. A histogram is as many as it has buckets, and two.
    pub max_series: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, max_families: 50, max_series: 500 }
    }
}

/// What the app says of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The metric.
    pub name: Name,
    /// What it is, in words; the first ones stay.
    pub help: String,
    /// Which series of it.
    pub labels: Labels,
    /// What is said.
    pub told: Told,
    /// Whose total it is; `None` if it is what has come since the last time.
    pub total_of: Option<Writer>,
}

/// Why something was refused: the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It cannot be called that, or something else is.
    Name,
    /// It is of another type, or its value is not of its type.
    Type,
    /// Its labels are not those of its name, too many, or not called so.
    Labels,
    /// There are enough.
    SeriesLimit,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Name, Self::Type, Self::Labels, Self::SeriesLimit];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Type => "type",
            Self::Labels => "labels",
            Self::SeriesLimit => "series_limit",
        }
    }
}

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// Why in words, and what to do.
    pub detail: String,
}

/// The app's own metrics.
#[derive(Debug)]
pub struct Custom {
    settings: Settings,
    /// When weir began, in nanoseconds since 1970.
    started: u64,
    /// Whoever changes it changes a copy of what changes, so that a scrape holds up nobody.
    families: Mutex<Families>,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Custom {
    /// None yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        Self { settings, started, families: Mutex::default(), refused: Default::default() }
    }

    /// Whether there may be any.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    /// Takes all of `readings`, or none: a name has the same labels each time.
    ///
    /// # Errors
    ///
    /// Which ones cannot be taken, and why. They are counted as refused.
    pub fn take_all(&self, readings: &[Reading]) -> Result<(), Vec<(usize, Refused)>> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = families.clone();
        let refused = self.put_each(&mut changed, readings, LabelNames::AsBefore);
        if !refused.is_empty() {
            return Err(refused);
        }
        *families = changed;
        Ok(())
    }

    /// Takes what can be taken of `readings`, and says which ones cannot, and why. They are counted as refused. A series
    /// may lack labels that another one of its name has: to Prometheus, that is the same as an empty one.
    pub fn take_each(&self, readings: &[Reading]) -> Vec<(usize, Refused)> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_each(&mut families, readings, LabelNames::MayGrow)
    }

    /// Counts something that was refused at the door.
    pub fn refuse(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn put_each(&self, families: &mut Families, readings: &[Reading], names: LabelNames) -> Vec<(usize, Refused)> {
        let put = |(position, reading)| {
            let refused = families.put(reading, names, self).err()?;
            self.refuse(refused.reason);
            Some((position, refused))
        };
        readings.iter().enumerate().filter_map(put).collect()
    }
}

/// Whether the labels of a name may become more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LabelNames {
    AsBefore,
    MayGrow,
}

/// All metrics, by name. A copy shares what has not changed.
#[derive(Clone, Debug, Default)]
struct Families {
    by_name: BTreeMap<Name, Arc<Family>>,
    /// What is called something, and by whom.
    taken: BTreeMap<String, Name>,
    series: usize,
}

/// One metric.
#[derive(Clone, Debug)]
struct Family {
    kind: Kind,
    help: Box<str>,
    label_names: BTreeSet<Box<str>>,
    /// Of a histogram.
    bounds: Arc<[f64]>,
    series: BTreeMap<Labels, Series>,
}

#[derive(Clone, Debug)]
struct Series {
    value: Value,
    totals: Totals,
}

impl Families {
    fn put(&mut self, reading: &Reading, names: LabelNames, custom: &Custom) -> Result<(), Refused> {
        let limits = &custom.settings;
        let known = self.by_name.get(&reading.name);
        match known {
            Some(family) => family.check(reading, names)?,
            None => self.check_new(reading, limits)?,
        }
        let bounds = known.map_or_else(|| bounds_of(&reading.told), |family| Arc::clone(&family.bounds));
        let mut series = known.and_then(|family| family.series.get(&reading.labels)).cloned().unwrap_or_else(|| {
            let value = Value::zero_of(&reading.told.value(&bounds));
            Series { value, totals: Totals::new(custom.started) }
        });
        let before = known.and_then(|family| family.series.get(&reading.labels)).map_or(0, |it| it.value.series());
        let mut value = reading.told.value(&bounds);
        if let Some(writer) = reading.total_of {
            value = series.totals.grown(writer, value);
        }
        series.value.add(&value);
        let grown = self.series - before + series.value.series();
        if grown > limits.max_series {
            return Err(too_many("series", limits.max_series, "max_series"));
        }
        self.series = grown;
        self.keep(reading, bounds, series);
        Ok(())
    }

    fn keep(&mut self, reading: &Reading, bounds: Arc<[f64]>, series: Series) {
        let kind = reading.told.kind();
        let family = self.by_name.entry(reading.name.clone()).or_insert_with(|| {
            self.taken.extend(reading.name.taken(kind).map(|taken| (taken, reading.name.clone())));
            let help = naming::help(&reading.help);
            Arc::new(Family { kind, help, label_names: BTreeSet::new(), bounds, series: BTreeMap::new() })
        });
        let family = Arc::make_mut(family);
        for name in reading.labels.names().filter(|name| !family.label_names.contains(*name)).collect::<Vec<_>>() {
            family.label_names.insert(name.into());
        }
        family.series.insert(reading.labels.clone(), series);
    }

    fn check_new(&self, reading: &Reading, limits: &Settings) -> Result<(), Refused> {
        let taken = reading.name.taken(reading.told.kind()).find_map(|name| Some((self.taken.get(&name)?, name)));
        if let Some((by, name)) = taken {
            let detail = format!("would be scraped as `{name}`, as `{}` is: choose another name", by.exposed(""));
            return Err(Refused { reason: Reason::Name, detail });
        }
        if self.by_name.len() >= limits.max_families {
            return Err(too_many("metrics", limits.max_families, "max_families"));
        }
        Ok(())
    }
}

/// The bounds of a histogram that is new; those of anything else say nothing.
fn bounds_of(told: &Told) -> Arc<[f64]> {
    told.bounds().map_or_else(|| DEFAULT_BOUNDS.into(), Arc::clone)
}

fn too_many(what: &str, most: usize, knob: &str) -> Refused {
    let detail = format!(
        "is new, and the app has {most} {what} already, which is what `telemetry.metrics.custom.{knob}` allows: use fewer \
         labels with fewer values, or allow more"
    );
    Refused { reason: Reason::SeriesLimit, detail }
}

impl Family {
    fn check(&self, reading: &Reading, names: LabelNames) -> Result<(), Refused> {
        let refused = |reason, detail| Err(Refused { reason, detail });
        let (kind, was) = (reading.told.kind(), self.kind);
        if kind != was {
            let (kind, was) = (kind.as_str(), was.as_str());
            let detail = format!("is a {was} since it was first pushed, not a {kind}: choose another name for this");
            return refused(Reason::Type, detail);
        }
        if reading.told.bounds().is_some_and(|bounds| *bounds != self.bounds) {
            let detail = format!("has the buckets {:?} since it was first pushed: keep them", self.bounds);
            return refused(Reason::Type, detail);
        }
        let known = |name: &str| self.label_names.contains(name);
        let fits = match names {
            LabelNames::AsBefore => {
                reading.labels.names().all(known) && reading.labels.names().count() == self.label_names.len()
            }
            LabelNames::MayGrow => {
                self.label_names.len() + reading.labels.names().filter(|name| !known(name)).count() <= MAX_LABELS
            }
        };
        if fits {
            return Ok(());
        }
        let listed: Vec<String> = self.label_names.iter().map(|name| format!("`{name}`")).collect();
        let listed = if listed.is_empty() { "no labels".to_owned() } else { listed.join(", ") };
        refused(Reason::Labels, format!("has {listed} since it was first pushed: keep to these"))
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &Name) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Histogram => MetricType::Histogram,
            Kind::Gauge => MetricType::Gauge,
            Kind::Summary => return self.encode_summary(encoder, name),
        };
        let exposed = name.exposed("");
        let mut metric = encoder.encode_descriptor(&exposed, &self.help, None, kind)?;
        for (labels, series) in &self.series {
            let labels = labels.pairs();
            with_labels(&mut metric, &labels, |sample| match &series.value {
                Value::Counter(total) => sample.encode_counter::<NoLabelSet, _, u64>(total, None),
                Value::Gauge { now, .. } => sample.encode_gauge(&now.unwrap_or_default()),
                Value::Histogram { counts, sum } => {
                    let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
                    let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
                    let count = counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
                    sample.encode_histogram::<NoLabelSet>(*sum, count, &buckets, None)
                }
                Value::Summary(_) => Ok(()),
            })?;
        }
        Ok(())
    }

    /// As three metrics, because the client library has no summaries.
    fn encode_summary(&self, encoder: &mut DescriptorEncoder<'_>, name: &Name) -> fmt::Result {
        let summaries = || {
            self.series.iter().filter_map(|(labels, series)| match &series.value {
                Value::Summary(summary) => Some((labels.pairs(), summary)),
                _ => None,
            })
        };
        if summaries().any(|(_, summary)| !summary.quantiles.is_empty()) {
            let exposed = name.exposed("");
            let mut metric = encoder.encode_descriptor(&exposed, &self.help, None, MetricType::Gauge)?;
            for (labels, summary) in summaries() {
                for (quantile, value) in &summary.quantiles {
                    let labels: Vec<_> = labels.iter().copied().chain([("quantile", &**quantile)]).collect();
                    metric.encode_family(&labels)?.encode_gauge(value)?;
                }
            }
        }
        let exposed = name.exposed("_sum");
        let mut metric = encoder.encode_descriptor(&exposed, &self.help, None, MetricType::Gauge)?;
        for (labels, summary) in summaries() {
            with_labels(&mut metric, &labels, |sample| sample.encode_gauge(&summary.sum))?;
        }
        let exposed = name.exposed("_count");
        let mut metric = encoder.encode_descriptor(&exposed, &self.help, None, MetricType::Gauge)?;
        for (labels, summary) in summaries() {
            with_labels(&mut metric, &labels, |sample| sample.encode_gauge(&summary.count))?;
        }
        Ok(())
    }
}

/// Has one sample written, with braces only where there is something in them.
fn with_labels(
    metric: &mut MetricEncoder<'_>,
    labels: &Vec<(&str, &str)>,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { encode(metric) } else { encode(&mut metric.encode_family(labels)?) }
}

impl Collector for Custom {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let count = |reason: Reason| self.refused[reason as usize].load(Ordering::Relaxed);
        let refused = Reason::ALL.map(|reason| ([reason.as_str()], ConstCounter::new(count(reason))));
        write(&mut encoder, &semconv::CUSTOM_METRICS_REJECTED, refused)?;
        let now = self.families.lock().unwrap_or_else(PoisonError::into_inner).by_name.clone();
        now.iter().try_for_each(|(name, family)| family.encode(&mut encoder, name))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::sinks::custom::value::Summary;

    fn reading(name: &str, told: Told) -> Reading {
        let name = Name::new(name, "", told.kind()).expect("a name");
        Reading { name, help: "Help".to_owned(), labels: Labels::default(), told, total_of: None }
    }

    fn labelled(name: &str, told: Told, labels: &[(&str, &str)]) -> Reading {
        let mut reading = reading(name, told);
        for (name, value) in labels {
            reading.labels.add(name, value).expect("a label");
        }
        reading
    }

    fn scraped(custom: &Arc<Custom>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(custom)));
        let mut text = String::new();
        encode(&mut text, &registry).expect("memory takes every byte");
        text.split_inclusive('\n').filter(|line| line.contains("app_")).collect()
    }

    fn refused(custom: &Custom) -> [u64; 4] {
        Reason::ALL.map(|reason| custom.refused[reason as usize].load(Ordering::Relaxed))
    }

    #[test]
    fn every_kind_is_scraped() {
        let custom = Arc::new(Custom::new(Settings::default()));
        let quantiles = [("0.5".into(), 0.1), ("0.99".into(), 0.4)].into();
        let summary = Summary { count: 2, sum: 0.5, quantiles };
        let bounds = Some([1.0, 2.0].into());
        custom
            .take_all(&[
                labelled("orders_total", Told::Counter(2.0), &[("shop", "a\"b")]),
                labelled("orders", Told::Counter(1.5), &[("shop", "a\"b")]),
                reading("queue", Told::Gauge(-3.0)),
                reading("took", Told::Observed(vec![0.5, 1.5, 9.0], bounds)),
                labelled("wait", Told::Summary(summary), &[("k", "v")]),
            ])
            .expect("all are well");
        let expected = r#"# HELP app_orders Help.
# TYPE app_orders counter
app_orders_total{shop="a\"b"} 3.5
# HELP app_queue Help.
# TYPE app_queue gauge
app_queue -3.0
# HELP app_took Help.
# TYPE app_took histogram
app_took_sum 11.0
app_took_count 3
app_took_bucket{le="1.0"} 1
app_took_bucket{le="2.0"} 2
app_took_bucket{le="+Inf"} 3
# HELP app_wait Help.
# TYPE app_wait gauge
app_wait{k="v",quantile="0.5"} 0.1
app_wait{k="v",quantile="0.99"} 0.4
# HELP app_wait_sum Help.
# TYPE app_wait_sum gauge
app_wait_sum{k="v"} 0.5
# HELP app_wait_count Help.
# TYPE app_wait_count gauge
app_wait_count{k="v"} 2
"#;
        assert_eq!(scraped(&custom), expected);
    }

    #[test]
    fn all_of_a_batch_is_taken_or_nothing() {
        let custom = Arc::new(Custom::new(Settings::default()));
        custom.take_all(&[reading("orders", Told::Counter(1.0))]).expect("well");
        let before = scraped(&custom);
        let batch = [reading("orders", Told::Counter(1.0)), reading("orders", Told::Gauge(1.0))];
        let refused_now = custom.take_all(&batch).expect_err("a mistake");
        assert_eq!(refused_now[0].0, 1);
        assert_eq!(scraped(&custom), before);
        assert_eq!(refused(&custom), [0, 1, 0, 0]);
        assert_eq!(custom.take_each(&batch).len(), 1);
        assert!(scraped(&custom).contains("app_orders_total 2.0"), "what can be taken is");
    }

    #[test]
    fn a_name_keeps_what_it_is() {
        let custom = Custom::new(Settings::default());
        let of = |bounds: &[f64]| Told::Observed(vec![1.0], Some(bounds.into()));
        custom.take_all(&[labelled("took", of(&[1.0]), &[("a", "1")])]).expect("well");
        custom.take_all(&[reading("orders", Told::Counter(1.0))]).expect("well");
        for (rule, reading, reason) in [
            ("its type", labelled("took", Told::Gauge(1.0), &[("a", "1")]), Reason::Type),
            ("its buckets", labelled("took", of(&[1.0, 2.0]), &[("a", "1")]), Reason::Type),
            ("its labels: none missing", reading("took", of(&[1.0])), Reason::Labels),
            ("its labels: no other", labelled("took", of(&[1.0]), &[("b", "1")]), Reason::Labels),
            ("its labels: no more", labelled("took", of(&[1.0]), &[("a", "1"), ("b", "1")]), Reason::Labels),
            ("its labels: none, if none", labelled("orders", Told::Counter(1.0), &[("a", "1")]), Reason::Labels),
            ("its samples: a histogram's count", reading("took_count", Told::Gauge(1.0)), Reason::Name),
            ("its samples: a counter's total", reading("orders_total", Told::Gauge(1.0)), Reason::Name),
        ] {
            assert_eq!(custom.take_all(&[reading]).expect_err(rule)[0].1.reason, reason, "{rule}");
        }
        let unsaid = labelled("took", Told::Observed(vec![1.0], None), &[("a", "2")]);
        custom.take_all(&[unsaid]).expect("buckets need not be said again");
    }

    #[test]
    fn of_a_batch_that_is_taken_in_part_labels_may_grow_to_four() {
        let custom = Custom::new(Settings::default());
        let with = |labels: &[(&str, &str)]| labelled("orders", Told::Counter(1.0), labels);
        let all = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
        assert_eq!(custom.take_each(&[with(&all[..1]), with(&[]), with(&all[1..])]), []);
        let refused = custom.take_each(&[with(&[("e", "1")])]);
        assert_eq!(refused[0].1.reason, Reason::Labels, "{refused:?}");
    }

    #[test]
    fn there_are_only_so_many() {
        let settings = Settings { max_families: 2, max_series: 9, ..Settings::default() };
        let custom = Arc::new(Custom::new(settings));
        let took = |label| labelled("took", Told::Observed(vec![], Some([1.0].into())), &[("a", label)]);
        let orders = |label| labelled("orders", Told::Counter(1.0), &[("a", label)]);
        let limited = |reading: Reading| {
            let refused = custom.take_all(&[reading]).err()?;
            assert_eq!(refused[0].1.reason, Reason::SeriesLimit, "{refused:?}");
            Some(refused[0].1.detail.clone())
        };
        assert_eq!(limited(took("1")), None, "four series");
        assert_eq!(limited(orders("1")), None);
        assert_eq!(limited(took("2")), None);
        assert!(limited(orders("2")).expect("nine are made").contains("max_series"));
        assert_eq!(limited(orders("1")), None, "what is there goes on");
        assert!(limited(reading("more", Told::Gauge(1.0))).expect("two are made").contains("max_families"));
        assert_eq!(refused(&custom), [0, 0, 0, 2]);
        assert_eq!(scraped(&custom).lines().filter(|line| !line.starts_with('#')).count(), 9);
    }

    #[test]
    fn totals_of_processes_add_up() {
        let custom = Arc::new(Custom::new(Settings::default()));
        let since = custom.started;
        let total = |id, since, total| {
            let total_of = Some(Writer { id, since });
            Reading { total_of, ..reading("orders", Told::Counter(total)) }
        };
        for (reading, expected) in [
            (total(1, since, 5.0), "5.0"),
            (total(2, since, 2.0), "7.0"),
            (total(1, since, 6.0), "8.0"),
            (total(1, since + 1, 1.0), "9.0"),
            (total(3, since - 1, 100.0), "9.0"),
        ] {
            assert_eq!(custom.take_each(&[reading]), []);
            assert!(scraped(&custom).contains(&format!("app_orders_total {expected}\n")), "{expected}");
        }
    }
}
