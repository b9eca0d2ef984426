//! Samples: what is scraped, read back. Whoever shows a number elsewhere shows this one, and keeps no second books.
//!
//! Reads the text the client library writes: every label value in quotes, escaped. Knows no metric.

use std::collections::BTreeMap;

/// The samples of one moment.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Samples {
    /// The samples of an exposition whose names begin with `prefix`.
    pub(super) fn read(text: &str, prefix: &str) -> Self {
        Self(text.lines().filter(|line| line.starts_with(prefix)).filter_map(Sample::read).collect())
    }

    /// The sum of all samples of `name` that have these `labels`, by their values of the label `by`.
    #[must_use]
    pub fn sums(&self, name: &str, labels: &[(&str, &str)], by: &str) -> BTreeMap<&str, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.0.iter().filter(|sample| sample.name == name && sample.has(labels)) {
            if let Some(value) = sample.label(by) {
                *sums.entry(value).or_default() += sample.value;
            }
        }
        sums
    }

    /// The sum of all samples of `name` that have these `labels`; `None` if there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.0.iter().filter(|sample| sample.name == name && sample.has(labels));
        found.map(|sample| sample.value).reduce(|sum, value| sum + value)
    }
}

impl Sample {
    fn read(line: &str) -> Option<Self> {
        let (name, rest) = line.split_at(line.find(['{', ' '])?);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(value))
    }
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_their_labels() {
        let text = "# HELP a_b Help.\n\
                    a_b_total{x=\"1\",y=\"p\"} 2\n\
                    a_b_total{x=\"1\",y=\"q\"} 3 # {trace=\"t\"} 1\n\
                    a_b_total{x=\"2\",y=\"a,b=\\\"c\\\\}\\n\"} 0.5\n\
                    a_c 7\n\
                    b 9\n";
        let samples = Samples::read(text, "a_");
        assert_eq!(samples.sums("a_b_total", &[], "x"), BTreeMap::from([("1", 5.0), ("2", 0.5)]));
        assert_eq!(samples.sums("a_b_total", &[("x", "1")], "y"), BTreeMap::from([("p", 2.0), ("q", 3.0)]));
        assert_eq!(samples.sum("a_b_total", &[("y", "a,b=\"c\\}\n")]), Some(0.5));
        assert_eq!(samples.sum("a_c", &[]), Some(7.0));
        assert_eq!(samples.sum("b", &[]), None, "not asked for");
        assert_eq!(samples.sum("a_b_total", &[("x", "3")]), None, "absent is not zero");
    }
}
