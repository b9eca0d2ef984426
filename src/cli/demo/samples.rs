//! Samples: what a scrape of `/metrics` says, read as Prometheus reads it.
//!
//! Knows the classic text format and what Prometheus computes from histograms; not which metrics there are.

use std::collections::{BTreeMap, BTreeSet};

/// Which samples are meant: those that carry every one of these labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// One scrape.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Reads the classic text format, version 0.0.4. Lines that are none of it are left out.
    pub(super) fn read(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// `sum(name{labels})`.
    pub(super) fn sum(&self, name: &str, labels: Labels<'_>) -> f64 {
        // Not by `sum`, which makes -0 of nothing.
        self.all(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// The same of a counter that counts whole things.
    pub(super) fn count(&self, name: &str, labels: Labels<'_>) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is whole and grows")]
        let count = self.sum(name, labels).round() as u64;
        count
    }

    /// The values that `label` has in the samples of a metric.
    pub(super) fn values<'a>(&'a self, name: &str, label: &str) -> BTreeSet<&'a str> {
        self.all(name, &[]).filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect()
    }

    /// `histogram_quantile(quantile, sum by (le) (name_bucket{labels}))`; `None` if nothing was observed.
    ///
    /// As Prometheus does it: a straight line within the bucket that holds the quantile, from zero in the first one;
    /// the highest bound when it lies beyond that.
    pub(super) fn quantile(&self, quantile: f64, name: &str, labels: Labels<'_>) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.all(&format!("{name}_bucket"), labels) {
            let bound: f64 = sample.labels.get("le")?.parse().ok()?;
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|(left, _), (right, _)| left.total_cmp(right));
        let (_, total) = buckets.last().copied().filter(|(_, total)| *total > 0.0)?;
        let rank = quantile * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in buckets {
            if bound.is_infinite() {
                break;
            }
            if count >= rank {
                return Some(lower + (bound - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (bound, count);
        }
        Some(lower)
    }

    fn all<'a, 'b>(&'a self, name: &'b str, labels: Labels<'b>) -> impl Iterator<Item = &'a Sample> + use<'a, 'b> {
        let carries = |sample: &Sample, (label, value): &(&str, &str)| {
            sample.labels.get(*label).is_some_and(|found| found == value)
        };
        self.0.iter().filter(move |sample| sample.name == name && labels.iter().all(|label| carries(sample, label)))
    }
}

/// `name value` or `name{label="value",…} value`.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels after the opening brace, and what follows the closing one.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(rest) = text.trim_start_matches(',').strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = text.trim_start_matches(',').split_once("=\"")?;
        let (value, rest) = unquoted(quoted)?;
        labels.insert(name.to_owned(), value);
        text = rest;
    }
}

/// A label's value, up to the quote that ends it, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()? {
                (_, 'n') => value.push('\n'),
                (_, escaped) => value.push(escaped),
            },
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{model="a",outcome="success"} 3
calls_total{model="a",outcome="client_error"} 1
calls_total{model="b \"{,}\\\n",outcome="success"} 2
up 1
took_seconds_bucket{cache="hit",le="0.1"} 0
took_seconds_bucket{cache="hit",le="0.2"} 4
took_seconds_bucket{cache="hit",le="+Inf"} 4
took_seconds_bucket{cache="miss",le="0.1"} 0
took_seconds_bucket{cache="miss",le="0.2"} 0
took_seconds_bucket{cache="miss",le="+Inf"} 6
took_seconds_bucket{cache="bypass",le="0.1"} 0
took_seconds_bucket{cache="bypass",le="0.2"} 0
took_seconds_bucket{cache="bypass",le="+Inf"} 0
not a sample
"#;

    #[test]
    fn samples_are_summed_over_the_labels_not_asked_for() {
        let samples = Samples::read(TEXT);
        assert_eq!(samples.count("calls_total", &[]), 6);
        assert_eq!(samples.count("calls_total", &[("outcome", "success")]), 5);
        assert_eq!(samples.count("calls_total", &[("outcome", "success"), ("model", "a")]), 3);
        assert_eq!(samples.count("calls_total", &[("outcome", "timeout")]), 0);
        assert_eq!(samples.count("up", &[]), 1);
    }

    #[test]
    fn label_values_may_hold_anything() {
        let samples = Samples::read(TEXT);
        assert_eq!(samples.values("calls_total", "model"), BTreeSet::from(["a", "b \"{,}\\\n"]));
    }

    #[test]
    fn a_quantile_lies_where_prometheus_puts_it() {
        let samples = Samples::read(TEXT);
        for (quantile, labels, expected) in [
            (0.5, &[("cache", "hit")][..], Some(0.15)), // halfway into the second bucket
            (1.0, &[("cache", "hit")], Some(0.2)),
            (0.5, &[("cache", "miss")], Some(0.2)),   // beyond the highest bound
            (0.25, &[], Some(0.1 + 0.1 * 2.5 / 4.0)), // of all series together
            (0.5, &[("cache", "bypass")], None),      // nothing was observed
            (0.5, &[("cache", "other")], None),
        ] {
            let found = samples.quantile(quantile, "took_seconds", labels);
            let near = |(found, expected): (f64, f64)| (found - expected).abs() < 1e-9;
            assert!(found.zip(expected).is_none_or(near), "{quantile} of {labels:?}: {found:?}");
            assert_eq!(found.is_some(), expected.is_some());
        }
    }
}
