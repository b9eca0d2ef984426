//! Points: what OpenTelemetry's data points say, as readings. Follows its rules for Prometheus
//! (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>). Pure: keeps nothing.
//!
//! Resources and scopes become no labels. They tell apart whose totals are told.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use crate::admin::problem::shown;
use crate::sinks::custom::naming::{Labels, Name};
use crate::sinks::custom::value::{Kind, MAX_BOUNDS, MAX_QUANTILES, Summary, Told, Writer};
use crate::sinks::custom::{Reading, Reason, Refused};

/// What a push says.
#[derive(Debug, Default)]
pub(super) struct Points {
    /// What can be taken, as far as can be seen here.
    pub(super) readings: Vec<Reading>,
    /// What the app calls them.
    pub(super) names: Vec<Arc<str>>,
    /// What cannot: its name, and why.
    pub(super) refused: Vec<(Arc<str>, Refused)>,
}

/// What is the same for every point of a metric.
struct About<'a> {
    metric: &'a Metric,
    /// The name as the app spells it, for messages.
    name: Arc<str>,
    kind: Kind,
    /// Who tells it.
    id: u64,
    /// Whether a point says a total, and not what has come since the last one.
    is_total: bool,
}

impl Points {
    pub(super) fn of(request: &ExportMetricsServiceRequest) -> Self {
        let mut points = Self::default();
        for of_resource in &request.resource_metrics {
            for of_scope in &of_resource.scope_metrics {
                let id = writer(of_resource.resource.as_ref(), of_scope.scope.as_ref());
                for metric in &of_scope.metrics {
                    points.take(metric, id);
                }
            }
        }
        points
    }

    fn take(&mut self, metric: &Metric, id: u64) {
        let about = |kind, temporality| About {
            metric,
            name: shown(&metric.name).into(),
            kind,
            id,
            is_total: temporality == AggregationTemporality::Cumulative as i32,
        };
        match &metric.data {
            Some(Data::Sum(sum)) if !is_known(sum.aggregation_temporality) => {
                self.refuse_each(&about(Kind::Counter, 0), sum.data_points.len(), UNKNOWN_TEMPORALITY);
            }
            Some(Data::Histogram(histogram)) if !is_known(histogram.aggregation_temporality) => {
                self.refuse_each(&about(Kind::Histogram, 0), histogram.data_points.len(), UNKNOWN_TEMPORALITY);
            }
            Some(Data::Sum(sum)) => {
                let kind = if sum.is_monotonic { Kind::Counter } else { Kind::Gauge };
                let about = about(kind, sum.aggregation_temporality);
                for point in sum.data_points.iter().filter(|point| is_recorded(point.flags)) {
                    self.put(&about, &point.attributes, point.start_time_unix_nano, summed(point, &about));
                }
            }
            Some(Data::Gauge(gauge)) => {
                let about = about(Kind::Gauge, 0);
                for point in gauge.data_points.iter().filter(|point| is_recorded(point.flags)) {
                    self.put(&about, &point.attributes, 0, number(point).map(Told::Gauge));
                }
            }
            Some(Data::Histogram(histogram)) => {
                let about = about(Kind::Histogram, histogram.aggregation_temporality);
                for point in histogram.data_points.iter().filter(|point| is_recorded(point.flags)) {
                    self.put(&about, &point.attributes, point.start_time_unix_nano, counted(point));
                }
            }
            Some(Data::Summary(summary)) => {
                let about = about(Kind::Summary, AggregationTemporality::Cumulative as i32);
                for point in summary.data_points.iter().filter(|point| is_recorded(point.flags)) {
                    self.put(&about, &point.attributes, point.start_time_unix_nano, summarised(point));
                }
            }
            Some(Data::ExponentialHistogram(histogram)) => {
                self.refuse_each(&about(Kind::Histogram, 0), histogram.data_points.len(), EXPONENTIAL);
            }
            None => {}
        }
    }

    fn put(&mut self, about: &About<'_>, attributes: &[KeyValue], since: u64, told: Result<Told, String>) {
        match reading(about, attributes, since, told) {
            Ok(reading) => {
                self.readings.push(reading);
                self.names.push(Arc::clone(&about.name));
            }
            Err((reason, detail)) => self.refused.push((Arc::clone(&about.name), Refused { reason, detail })),
        }
    }

    fn refuse_each(&mut self, about: &About<'_>, points: usize, detail: &str) {
        let refused = Refused { reason: Reason::Type, detail: detail.to_owned() };
        self.refused.extend(std::iter::repeat_n((Arc::clone(&about.name), refused), points));
    }
}

const UNKNOWN_TEMPORALITY: &str = "is neither of delta nor of cumulative temporality: choose one";
const EXPONENTIAL: &str = "is an exponential histogram, which text that is scraped cannot say: use explicit buckets \
                           (OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=explicit_bucket_histogram)";

fn is_known(temporality: i32) -> bool {
    let known = [AggregationTemporality::Delta, AggregationTemporality::Cumulative];
    known.iter().any(|known| *known as i32 == temporality)
}

/// A point that says that there is nothing to say takes nothing back: a series ends with weir.
const fn is_recorded(flags: u32) -> bool {
    flags & DataPointFlags::NoRecordedValueMask as u32 == 0
}

/// Tells processes of the app, and the parts of one that count for themselves, apart as far as they say who they are.
fn writer(resource: Option<&Resource>, scope: Option<&InstrumentationScope>) -> u64 {
    let mut hasher = DefaultHasher::new();
    resource.map(Message::encode_to_vec).hash(&mut hasher);
    scope.map(Message::encode_to_vec).hash(&mut hasher);
    hasher.finish()
}

fn reading(
    about: &About<'_>,
    attributes: &[KeyValue],
    since: u64,
    told: Result<Told, String>,
) -> Result<Reading, (Reason, String)> {
    let About { metric, kind, .. } = about;
    // A ratio is what a gauge of the unit 1 is; a sum of that unit is a number of things.
    let is_sum = matches!(metric.data, Some(Data::Sum(_)));
    let unit = if is_sum && metric.unit == "1" { "" } else { &metric.unit };
    let name = Name::new(&Name::translated(&metric.name), unit, *kind).map_err(|why| (Reason::Name, why))?;
    let labels = labels(attributes).map_err(|why| (Reason::Labels, why))?;
    let told = told.map_err(|why| (Reason::Type, why))?;
    // Sums that also fall are gauges, which are what was said last.
    let is_total = about.is_total && *kind != Kind::Gauge;
    let total_of = is_total.then_some(Writer { id: about.id, since });
    Ok(Reading { name, help: metric.description.clone(), labels, told, total_of })
}

fn labels(attributes: &[KeyValue]) -> Result<Labels, String> {
    let mut labels = Labels::default();
    for KeyValue { key, value, .. } in attributes {
        let text = match value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::BoolValue(value)) => value.to_string(),
            Some(Value::IntValue(value)) => value.to_string(),
            Some(Value::DoubleValue(value)) => value.to_string(),
            Some(Value::ArrayValue(_) | Value::KvlistValue(_) | Value::BytesValue(_)) => {
                return Err(format!("has the attribute `{}`, which is no single value: leave it out", shown(key)));
            }
            None | Some(Value::StringValueStrindex(_)) => String::new(),
        };
        // To Prometheus, a label that is empty is one that is not there.
        if !text.is_empty() {
            let add = labels.add(&Labels::translated(key), &text);
            add.map_err(|why| format!("has the attribute `{}`, which {why}", shown(key)))?;
        }
    }
    Ok(labels)
}

fn number(point: &NumberDataPoint) -> Result<f64, String> {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    let number = match point.value {
        Some(Number::AsDouble(number)) => number,
        Some(Number::AsInt(number)) => number as f64,
        None => return Err("has a point without a value".to_owned()),
    };
    if number.is_finite() { Ok(number) } else { Err(format!("is {number}: leave out what is no number")) }
}

fn summed(point: &NumberDataPoint, about: &About<'_>) -> Result<Told, String> {
    let number = number(point)?;
    match about.kind {
        Kind::Counter if number < 0.0 => Err(format!("only grows, and says {number}: use an up-down counter")),
        Kind::Counter => Ok(Told::Counter(number)),
        _ if about.is_total => Ok(Told::Gauge(number)),
        _ => Ok(Told::GaugeBy(number)),
    }
}

fn counted(point: &HistogramDataPoint) -> Result<Told, String> {
    let HistogramDataPoint { count, sum, bucket_counts, explicit_bounds: bounds, .. } = point;
    let counts = if bucket_counts.is_empty() { vec![*count] } else { bucket_counts.clone() };
    let rises = bounds.iter().all(|bound| bound.is_finite()) && bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if counts.len() != bounds.len() + 1 || !rises {
        return Err("has buckets that do not fit its bounds, or bounds that do not rise".to_owned());
    }
    if bounds.len() > MAX_BOUNDS {
        return Err(format!("has {} bounds: use at most {MAX_BOUNDS}", bounds.len()));
    }
    // A sum that nobody said is not zero.
    let sum = sum.unwrap_or(f64::NAN);
    Ok(Told::Counted { bounds: bounds.as_slice().into(), counts, sum })
}

fn summarised(point: &SummaryDataPoint) -> Result<Told, String> {
    let SummaryDataPoint { count, sum, quantile_values, .. } = point;
    if quantile_values.len() > MAX_QUANTILES {
        return Err(format!("has {} quantiles: use at most {MAX_QUANTILES}", quantile_values.len()));
    }
    let quantiles = quantile_values.iter().map(|it| (it.quantile.to_string().into(), it.value)).collect();
    Ok(Told::Summary(Summary { count: *count, sum: *sum, quantiles }))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::AnyValue;
    use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
    use opentelemetry_proto::tonic::metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, ResourceMetrics, ScopeMetrics, Sum,
    };

    use super::*;

    const DELTA: i32 = AggregationTemporality::Delta as i32;
    const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn point(value: f64) -> NumberDataPoint {
        let value = Some(Number::AsDouble(value));
        NumberDataPoint { value, start_time_unix_nano: 7, ..NumberDataPoint::default() }
    }

    fn sum(value: f64, aggregation_temporality: i32, is_monotonic: bool) -> Data {
        Data::Sum(Sum { data_points: vec![point(value)], aggregation_temporality, is_monotonic })
    }

    fn gauge(attributes: Vec<KeyValue>) -> Data {
        Data::Gauge(Gauge { data_points: vec![NumberDataPoint { attributes, ..point(1.0) }] })
    }

    fn histogram(bucket_counts: &[u64], explicit_bounds: &[f64], sum: Option<f64>) -> Data {
        let point = HistogramDataPoint {
            bucket_counts: bucket_counts.to_vec(),
            explicit_bounds: explicit_bounds.to_vec(),
            count: 3,
            sum,
            ..HistogramDataPoint::default()
        };
        Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: DELTA })
    }

    fn points(name: &str, unit: &str, data: Data) -> Points {
        let metric = Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Metric::default() };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
        Points::of(&ExportMetricsServiceRequest { resource_metrics })
    }

    #[test]
    fn every_kind_is_read() {
        let named = |name: &str, kind| Name::new(name, "", kind).expect("a name");
        for (rule, (name, unit, data), (expected, kind), told, is_total) in [
            ("delta", ("a.b", "", sum(2.0, DELTA, true)), ("a_b", Kind::Counter), Told::Counter(2.0), false),
            (
                "cumulative",
                ("a", "s", sum(2.0, CUMULATIVE, true)),
                ("a_seconds", Kind::Counter),
                Told::Counter(2.0),
                true,
            ),
            ("both ways", ("a", "1", sum(-2.0, CUMULATIVE, false)), ("a", Kind::Gauge), Told::Gauge(-2.0), false),
            ("by steps", ("a", "{x}", sum(-2.0, DELTA, false)), ("a", Kind::Gauge), Told::GaugeBy(-2.0), false),
            ("gauge", ("a", "1", gauge(vec![])), ("a_ratio", Kind::Gauge), Told::Gauge(1.0), false),
            (
                "histogram",
                ("a", "By", histogram(&[1, 2], &[1.0], Some(3.0))),
                ("a_bytes", Kind::Histogram),
                Told::Counted { bounds: [1.0].into(), counts: vec![1, 2], sum: 3.0 },
                false,
            ),
            (
                "histogram without buckets",
                ("a", "", histogram(&[], &[], Some(3.0))),
                ("a", Kind::Histogram),
                Told::Counted { bounds: [].into(), counts: vec![3], sum: 3.0 },
                false,
            ),
        ] {
            let points = points(name, unit, data);
            let reading = &points.readings[0];
            assert_eq!((&reading.name, &reading.told), (&named(expected, kind), &told), "{rule}");
            let writer = reading.total_of.map(|writer| writer.since);
            assert_eq!(writer, is_total.then_some(7), "{rule}");
        }
        let quantile = ValueAtQuantile { quantile: 0.5, value: 0.1 };
        let point = SummaryDataPoint { count: 2, sum: 0.3, quantile_values: vec![quantile], ..Default::default() };
        let data = Data::Summary(opentelemetry_proto::tonic::metrics::v1::Summary { data_points: vec![point] });
        let quantiles = [("0.5".into(), 0.1)].into();
        assert_eq!(points("a", "", data).readings[0].told, Told::Summary(Summary { count: 2, sum: 0.3, quantiles }));
    }

    #[test]
    fn attributes_are_labels() {
        let attributes = vec![
            attribute("http.route", Value::StringValue("/a".to_owned())),
            attribute("status", Value::IntValue(200)),
            attribute("ok", Value::BoolValue(true)),
            attribute("empty", Value::StringValue(String::new())),
        ];
        let mut expected = Labels::default();
        for (name, value) in [("http_route", "/a"), ("status", "200"), ("ok", "true")] {
            expected.add(name, value).expect("a label");
        }
        assert_eq!(points("a", "", gauge(attributes)).readings[0].labels, expected);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let text = |key: &str| attribute(key, Value::StringValue("x".to_owned()));
        let exponential = ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint::default(); 2],
            aggregation_temporality: DELTA,
        };
        for (rule, name, data, reason) in [
            ("a name without a letter", "2.0", sum(1.0, DELTA, true), Reason::Name),
            ("a counter that falls", "a", sum(-1.0, DELTA, true), Reason::Type),
            ("no number", "a", sum(f64::NAN, DELTA, false), Reason::Type),
            ("no temporality", "a", sum(1.0, 0, true), Reason::Type),
            ("exponential buckets", "a", Data::ExponentialHistogram(exponential), Reason::Type),
            ("buckets without bounds", "a", histogram(&[1, 2, 3], &[1.0], None), Reason::Type),
            ("bounds that fall", "a", histogram(&[1, 2, 3], &[2.0, 1.0], None), Reason::Type),
            ("five attributes", "a", gauge(["a", "b", "c", "d", "e"].map(text).to_vec()), Reason::Labels),
            ("two that are one", "a", gauge(["a.b", "a-b"].map(text).to_vec()), Reason::Labels),
            ("bytes", "a", gauge(vec![attribute("a", Value::BytesValue(vec![1]))]), Reason::Labels),
        ] {
            let points = points(name, "", data);
            assert!(points.readings.is_empty(), "{rule}");
            assert_eq!(points.refused[0].1.reason, reason, "{rule}: {:?}", points.refused);
        }
        let unrecorded = NumberDataPoint { flags: 1, ..point(1.0) };
        let points = points("a", "", Data::Gauge(Gauge { data_points: vec![unrecorded] }));
        assert!(points.readings.is_empty() && points.refused.is_empty(), "nothing was said");
    }

    #[test]
    fn processes_are_told_apart_by_what_they_say_they_are() {
        let resource =
            |pid| Resource { attributes: vec![attribute("process.pid", Value::IntValue(pid))], ..Resource::default() };
        let scope = InstrumentationScope { name: "shop".to_owned(), ..InstrumentationScope::default() };
        let ids = [
            writer(None, None),
            writer(Some(&resource(1)), None),
            writer(Some(&resource(2)), None),
            writer(Some(&resource(1)), Some(&scope)),
        ];
        for (position, id) in ids.iter().enumerate() {
            assert!(!ids[position + 1..].contains(id), "{position}");
        }
        assert_eq!(writer(Some(&resource(1)), Some(&scope)), ids[3]);
    }
}
