//! Exemplars: beside a bucket of a histogram, one call that was counted in it and can be looked at in its trace.
//!
//! The client library's own histograms with exemplars take two locks for every observation, traced or not, and hold none
//! for native buckets. So the latest one of each series is held here, filled by calls whose spans are kept and by no others,
//! and put into the document once that is written. Classic text has no room for them. Knows no record.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{self as proto, MetricFamily};

use crate::record::trace::Context;
use crate::semconv::{CLIENT_OPERATION_DURATION, INFERENCE_DURATION, Metric, REQUEST_COST, REQUEST_DURATION};
use crate::sinks::families::Labels;

/// Most series that have one; those that come later go without. More than are exposed of these histograms by default.
const MOST: usize = 4_096;

/// Which histograms have exemplars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Of {
    /// How long a call took as its app sees it.
    Request,
    /// How long it took as its model sees it, by whichever name that goes.
    Operation,
    /// What it cost.
    Cost,
}

impl Of {
    const ALL: [Self; 3] = [Self::Request, Self::Operation, Self::Cost];

    /// Whether the metric of this name has exemplars.
    fn may_be(name: &str) -> bool {
        Self::ALL.iter().flat_map(|of| of.metrics()).any(|metric| metric.name == name)
    }

    const fn metrics(self) -> &'static [&'static Metric] {
        match self {
            Self::Request => &[&REQUEST_DURATION],
            Self::Operation => &[&CLIENT_OPERATION_DURATION, &INFERENCE_DURATION],
            Self::Cost => &[&REQUEST_COST],
        }
    }
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    /// Where it is told.
    pub(super) context: Context,
    /// What was observed.
    pub(super) value: f64,
    /// When.
    pub(super) at: SystemTime,
}

impl Exemplar {
    fn seconds(&self) -> f64 {
        self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}

/// The latest exemplar of each series.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<HashMap<(Of, Labels), Exemplar>>);

impl Exemplars {
    /// The series with these `labels` has counted this.
    pub(super) fn note(&self, of: Of, labels: Labels, exemplar: Exemplar) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = (of, labels);
        if latest.len() < MOST || latest.contains_key(&series) {
            latest.insert(series, exemplar);
        }
    }

    /// All of them, as documents name series; `None` where there are none, as without traces.
    pub(super) fn by_series(&self) -> Option<BySeries> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if latest.is_empty() {
            return None;
        }
        let named = latest.into_iter().flat_map(|((of, labels), exemplar)| {
            let labels = spelt(labels.iter().map(|(name, value)| (*name, &**value)));
            of.metrics().iter().map(move |metric| (format!("{}{{{labels}}}", metric.name), exemplar))
        });
        Some(BySeries(named.collect()))
    }
}

/// Exemplars by the series they are of, without its bucket.
#[derive(Debug)]
pub(super) struct BySeries(HashMap<String, Exemplar>);

impl BySeries {
    /// `open_metrics` with an exemplar behind the bucket that counts it, for each series that has one.
    pub(super) fn write_into_text(&self, open_metrics: &str) -> String {
        let mut text = String::with_capacity(open_metrics.len() + 160 * self.0.len());
        let mut done = String::new();
        for line in open_metrics.lines() {
            text.push_str(line);
            if let Some((series, bound)) = bucket(line)
                && let Some(exemplar) = self.0.get(&series)
                && exemplar.value <= bound
                && series != done
            {
                let Context { trace, span, .. } = exemplar.context;
                let (value, at) = (exemplar.value, exemplar.seconds());
                let written = write!(text, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value:?} {at:.3}");
                written.expect("text is written to memory");
                done = series;
            }
            text.push('\n');
        }
        text
    }

    /// The same, in protobuf.
    pub(super) fn write_into(&self, families: &mut [MetricFamily]) {
        for family in families.iter_mut().filter(|family| Of::may_be(&family.name)) {
            for metric in &mut family.metric {
                let labels = spelt(metric.label.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())));
                let Some(exemplar) = self.0.get(&format!("{}{{{labels}}}", family.name)) else { continue };
                let buckets = metric.histogram.iter_mut().flat_map(|histogram| &mut histogram.bucket);
                if let Some(bucket) = buckets.into_iter().find(|bucket| exemplar.value <= bucket.upper_bound) {
                    bucket.exemplar = Some(message(exemplar));
                }
            }
        }
    }
}

/// The series of a line of OpenMetrics, without its bucket, and that bucket's bound; `None` where it is no bucket of
/// a histogram that has exemplars.
fn bucket(line: &str) -> Option<(String, f64)> {
    let (name, rest) = line.split_once("_bucket{").filter(|(name, _)| Of::may_be(name))?;
    let (labels, _count) = rest.rsplit_once("} ")?;
    let (before, rest) = match labels.strip_prefix("le=\"") {
        Some(rest) => ("", rest),
        None => labels.rsplit_once(",le=\"")?,
    };
    let (bound, after) = rest.split_once('"')?;
    let after = if before.is_empty() { after.trim_start_matches(',') } else { after };
    Some((format!("{name}{{{before}{after}}}"), bound.parse().ok()?))
}

/// Labels as OpenMetrics spells them.
fn spelt<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let escaped = |value: &str| value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
}

fn message(exemplar: &Exemplar) -> proto::Exemplar {
    let pair = |name: &str, value: String| proto::LabelPair { name: name.to_owned(), value };
    let since = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut message = proto::Exemplar {
        label: vec![
            pair("trace_id", exemplar.context.trace.to_string()),
            pair("span_id", exemplar.context.span.to_string()),
        ],
        value: exemplar.value,
        ..proto::Exemplar::default()
    };
    let at = message.timestamp.get_or_insert_default();
    at.seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    at.nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    message
}
