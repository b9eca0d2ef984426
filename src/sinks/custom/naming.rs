//! Naming: what the app's own metrics and their labels may be called, and what they are called in the end.
//!
//! Names are those of Prometheus; units become part of them, in words, as OpenTelemetry's rules for Prometheus say. Knows
//! no values, and not which names are taken.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::labels::tidy;
use crate::sinks::custom::value::Kind;

/// What every name begins with: whatever an app calls a metric, it cannot be one of weir's.
pub(super) const PREFIX: &str = "app_";
/// Longest name, in bytes, with its unit and without `app_`.
pub const MAX_NAME: usize = 128;
/// Most labels of one metric.
pub const MAX_LABELS: usize = 4;
/// Longest name of a label, in bytes.
const MAX_LABEL_NAME: usize = 64;
/// Longest help, in bytes.
const MAX_HELP: usize = 256;
/// Labels that say which part of a metric a sample is.
const RESERVED_LABELS: [&str; 2] = ["le", "quantile"];

/// Units, and how Prometheus spells them: the tables of OpenTelemetry's own translators.
const UNITS: [(&str, &str); 25] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// The same for what stands after a `/`.
const PER_UNITS: [(&str, &str); 8] = [
    ("s", "second"),
    ("m", "minute"),
    ("min", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The name of a metric: without `app_`, with its unit, without the `_total` of a counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// The name of a metric that is called `name` and measured in `unit`; no unit is an empty one.
    ///
    /// # Errors
    ///
    /// If it is no name: says why, and what would be one.
    pub fn new(name: &str, unit: &str, kind: Kind) -> Result<Self, String> {
        if !is_name(name) {
            return Err("is no name: write small letters, digits and `_`, a letter first, such as `orders`".to_owned());
        }
        let mut stem = stem(name, kind).to_owned();
        if let Some(word) = word(unit, kind)
            && stem != word
            && !stem.ends_with(&format!("_{word}"))
        {
            let _ = write!(stem, "_{word}");
        }
        if stem.len() > MAX_NAME {
            return Err(format!("has {} bytes with its unit: write at most {MAX_NAME}", stem.len()));
        }
        Ok(Self(stem.into()))
    }

    /// As OpenTelemetry spells `name`: what Prometheus does not allow becomes `_`, never two in a row. Names are the same
    /// there in small and large letters.
    #[must_use]
    pub fn translated(name: &str) -> String {
        separated(name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()))
    }

    /// As scraped, but for suffixes.
    pub(super) fn exposed(&self, suffix: &str) -> String {
        format!("{PREFIX}{}{suffix}", self.0)
    }

    /// What no other metric may be called, or have a sample called.
    pub(super) fn taken(&self, kind: Kind) -> impl Iterator<Item = String> {
        let suffixes: &[&str] = match kind {
            Kind::Counter => &["", "_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["", "_bucket", "_count", "_sum"],
            Kind::Summary => &["", "_count", "_sum"],
        };
        suffixes.iter().map(|suffix| self.exposed(suffix))
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(allowed)
}

/// A counter's name without its `_total`, which comes back, once, when it is scraped.
fn stem(name: &str, kind: Kind) -> &str {
    name.strip_suffix("_total").filter(|_| kind == Kind::Counter).unwrap_or(name)
}

/// A unit in words; `None` if it is none that a name tells. `1` is one only of gauges: a ratio.
fn word(unit: &str, kind: Kind) -> Option<String> {
    let without_annotations: String =
        unit.split('{').map(|part| part.split_once('}').map_or(part, |it| it.1)).collect();
    let (of, per) = without_annotations.split_once('/').unwrap_or((&without_annotations, ""));
    let of = match of.trim() {
        "1" if kind == Kind::Gauge && per.is_empty() => "ratio".to_owned(),
        "1" => String::new(),
        of => spelt(of, &UNITS),
    };
    let per = spelt(per.trim(), &PER_UNITS);
    match (of.is_empty(), per.is_empty()) {
        (_, true) => Some(of).filter(|of| !of.is_empty()),
        (true, false) => Some(format!("per_{per}")),
        (false, false) => Some(format!("{of}_per_{per}")),
    }
}

fn spelt(unit: &str, table: &[(&str, &str)]) -> String {
    let known = table.iter().find(|(symbol, _)| *symbol == unit);
    known.map_or_else(|| Name::translated(unit), |(_, word)| (*word).to_owned())
}

fn separated<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join("_").to_ascii_lowercase()
}

/// What tells the series of one metric apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(BTreeMap<Box<str>, Box<str>>);

impl Labels {
    /// Adds a label; its value is cut and tidied as that of every label is.
    ///
    /// # Errors
    ///
    /// If there are too many, or it cannot be called that: says why, and what to do.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !begins_well || !name.bytes().all(allowed) || name.len() > MAX_LABEL_NAME {
            return Err(format!(
                "is no name of a label: write letters, digits and `_`, no digit first, at most {MAX_LABEL_NAME} bytes"
            ));
        }
        if name.starts_with("__") || RESERVED_LABELS.contains(&name) {
            return Err("is a name that Prometheus keeps for itself: choose another one".to_owned());
        }
        if self.0.len() >= MAX_LABELS {
            return Err(format!("is one too many: at most {MAX_LABELS} labels tell the series of a metric apart"));
        }
        if self.0.insert(name.into(), tidy(value).into()).is_some() {
            return Err("is there twice: write it once".to_owned());
        }
        Ok(())
    }

    /// As OpenTelemetry spells the attribute `name`: what Prometheus does not allow becomes `_`.
    #[must_use]
    pub fn translated(name: &str) -> String {
        let translated = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
        let begins_with_digit = translated.starts_with(|first: char| first.is_ascii_digit());
        if begins_with_digit { format!("key_{translated}") } else { translated }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    pub(super) fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value)).collect()
    }
}

/// A help text on one line, and not too long a line. The encoder writes it as it is.
pub(super) fn help(text: &str) -> Box<str> {
    let end = (0..=MAX_HELP.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    let tidy = text[..end].replace(|letter: char| letter.is_control() || letter == '\\', " ");
    match tidy.trim().trim_end_matches('.') {
        "" => "A metric of the app's own.".into(),
        text => format!("{text}.").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_prometheus() {
        for (rule, name, unit, kind, expected) in [
            ("a counter's suffix comes when it is scraped", "orders_total", "", Kind::Counter, Some("orders")),
            ("of no other kind", "orders_total", "", Kind::Gauge, Some("orders_total")),
            ("a unit is part of the name", "latency", "s", Kind::Histogram, Some("latency_seconds")),
            ("once", "latency_seconds", "s", Kind::Histogram, Some("latency_seconds")),
            ("before the counter's suffix", "sent_bytes_total", "By", Kind::Counter, Some("sent_bytes")),
            ("in words that are not in the table", "revenue", "EUR", Kind::Counter, Some("revenue_eur")),
            ("words stay", "latency", "seconds", Kind::Gauge, Some("latency_seconds")),
            ("annotations are no units", "queue", "{item}", Kind::Gauge, Some("queue")),
            ("one is a ratio, of a gauge", "usage", "1", Kind::Gauge, Some("usage_ratio")),
            ("and of nothing else", "usage", "1", Kind::Counter, Some("usage")),
            ("what is per something", "speed", "m/s", Kind::Gauge, Some("speed_meters_per_second")),
            ("an annotation per something", "calls", "{call}/min", Kind::Gauge, Some("calls_per_minute")),
            ("empty", "", "", Kind::Gauge, None),
            ("large letters", "Orders", "", Kind::Counter, None),
            ("a digit first", "2xx", "", Kind::Counter, None),
            ("other letters", "größe", "", Kind::Gauge, None),
            ("a line of its own", "a 1\nweir_requests_total", "", Kind::Gauge, None),
        ] {
            let found = Name::new(name, unit, kind).ok();
            assert_eq!(found.as_ref().map(|name| &*name.0), expected, "{rule}");
        }
        assert!(Name::new(&"a".repeat(MAX_NAME), "", Kind::Gauge).is_ok());
        assert!(Name::new(&"a".repeat(MAX_NAME - 7), "s", Kind::Gauge).is_err(), "the unit counts");
    }

    #[test]
    fn names_of_opentelemetry_are_translated() {
        for (name, expected) in [
            ("http.server.request.duration", "http_server_request_duration"),
            ("Queue.Length", "queue_length"),
            ("a--b..c__d", "a_b_c_d"),
            (".a.", "a"),
            ("größe", "gr_e"),
        ] {
            assert_eq!(Name::translated(name), expected);
        }
        for (name, expected) in [("http.route", "http_route"), ("2xx", "key_2xx"), ("error.Type", "error_Type")] {
            assert_eq!(Labels::translated(name), expected);
        }
    }

    #[test]
    fn labels_are_few_and_tidy() {
        let mut labels = Labels::default();
        for refused in ["", "2xx", "a-b", "__name__", "le", "quantile", &"l".repeat(65)] {
            assert!(labels.add(refused, "x").is_err(), "{refused}");
        }
        for name in ["a", "B", "_c", "d1"] {
            labels.add(name, "two\nlines").expect("a label");
        }
        assert!(labels.add("e", "x").expect_err("one too many").contains("at most 4"));
        assert_eq!(labels.pairs()[0], ("B", "two_lines"));
        let mut twice = Labels::default();
        twice.add("a", &"x".repeat(65)).expect("a label");
        assert_eq!(twice.pairs(), [("a", &*"x".repeat(64))]);
        assert!(twice.add("a", "y").is_err());
    }

    #[test]
    fn help_is_one_line() {
        assert_eq!(&*help("Orders\nweir_requests_total 5"), "Orders weir_requests_total 5.");
        assert_eq!(&*help("Ends well."), "Ends well.");
        assert_eq!(&*help(" \n"), "A metric of the app's own.");
        assert_eq!(help(&"é".repeat(200)).len(), 257);
    }
}
