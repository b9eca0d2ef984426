//! Exposition: the forms a scraper may ask for.
//!
//! The client library writes OpenMetrics 1.0 and Prometheus' protobuf. Classic text is a different document from
//! OpenMetrics: type and help carry the sample's name (`…_total`, `…_info`), there are no infos, units, exemplars or end
//! marker. Prometheus fails a whole scrape over any of these, so one is translated into the other, line by line. Only
//! protobuf has room for native histograms. Knows no metric.

use std::cmp::Ordering;

use prometheus_client::encoding::prometheus_protobuf;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{self as proto, MetricFamily};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;
use prost::Message;

use crate::sinks::exemplars::Exemplars;

/// A scrape's answer.
#[derive(Debug)]
pub struct Exposition {
    /// The value of `Content-Type`. Prometheus 3 fails a scrape without one.
    pub content_type: &'static str,
    /// The document.
    pub body: Vec<u8>,
}

/// The forms, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Messages of `io.prometheus.client.MetricFamily`, each behind its length.
    Protobuf,
    /// `application/openmetrics-text`, version 1.0.0.
    OpenMetrics,
    /// `text/plain`, version 0.0.4: what a browser and curl get, too.
    Classic,
}

impl Format {
    /// The form an `Accept` header prefers, of those it likes as much the first (RFC 9110, section 12.5.1).
    pub(super) fn accepted(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default();
        let weighed = [Self::Classic, Self::OpenMetrics, Self::Protobuf]
            .map(|format| (weight(accept, &[format.media_type()]), format));
        let liked = weighed.into_iter().filter(|(weight, _)| *weight > 0.0);
        // Of equals, `max_by` takes the last.
        let best = liked.max_by(|(one, _), (other, _)| one.partial_cmp(other).unwrap_or(Ordering::Equal));
        best.map_or(Self::Classic, |(_, format)| format)
    }

    /// What a scraper asks for who wants this form. Which version of it does not matter.
    const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => self.content_type(),
            Self::OpenMetrics => "application/openmetrics-text",
            Self::Classic => "text/plain",
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// How much an `Accept`-like header wants one of `names`: the highest `q`, 1 if none is given, 0 if it is not wanted. A
/// name with parameters is wanted by those that give them, too.
#[must_use]
pub fn weight(header: &str, names: &[&str]) -> f32 {
    let is_same = |one: &&str, other: &&str| one.eq_ignore_ascii_case(other);
    let weight = |item: &str| {
        let given: Vec<_> = item.split(';').map(str::trim).collect();
        let is_wanted = names.iter().any(|name| {
            let mut wanted = name.split(';').map(str::trim);
            let name = wanted.next().unwrap_or_default();
            is_same(&given[0], &name) && wanted.all(|parameter| given[1..].iter().any(|it| is_same(it, &parameter)))
        });
        if !is_wanted {
            return 0.0;
        }
        let q = given.iter().find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        q.map_or(1.0, |q| q.parse().unwrap_or(0.0))
    };
    header.split(',').map(weight).fold(0.0, f32::max)
}

/// An exposition in the making.
#[derive(Debug)]
pub(super) struct Document {
    format: Format,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// OpenMetrics, from which classic text is made in the end.
    Text(String),
    Families(Vec<MetricFamily>),
}

impl Document {
    /// Nothing yet.
    pub(super) const fn new(format: Format) -> Self {
        let content = match format {
            Format::Protobuf => Content::Families(Vec::new()),
            Format::OpenMetrics | Format::Classic => Content::Text(String::new()),
        };
        Self { format, content }
    }

    /// Adds what `registry` holds now.
    ///
    /// # Panics
    ///
    /// If the client library fails to write to memory, which it has no cause to.
    pub(super) fn add(&mut self, registry: &Registry) {
        match &mut self.content {
            Content::Text(open_metrics) => open_metrics.push_str(&text(registry)),
            Content::Families(families) => {
                families.extend(prometheus_protobuf::encode(registry).expect("counts fit their fields"));
            }
        }
    }

    /// How many series these are to Prometheus.
    pub(super) fn series(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.lines().filter(|line| !line.starts_with('#')).count(),
            Content::Families(families) => families.iter().flat_map(|family| &family.metric).map(series).sum(),
        }
    }

    /// Adds exemplars to what is there, where this form has room for them.
    pub(super) fn exemplify(&mut self, exemplars: &Exemplars) {
        if self.format == Format::Classic {
            return;
        }
        let Some(exemplars) = exemplars.by_series() else { return };
        match &mut self.content {
            Content::Text(text) => *text = exemplars.write_into_text(text),
            Content::Families(families) => exemplars.write_into(families),
        }
    }

    /// The answer.
    pub(super) fn finish(self) -> Exposition {
        let body = match self.content {
            Content::Families(families) => families.iter().flat_map(Message::encode_length_delimited_to_vec).collect(),
            Content::Text(text) if self.format == Format::Classic => classic(&text).into_bytes(),
            Content::Text(text) => (text + "# EOF\n").into_bytes(),
        };
        Exposition { content_type: self.format.content_type(), body }
    }
}

/// What `registry` holds now, as OpenMetrics without an end marker.
///
/// # Panics
///
/// As [`Document::add`] does.
pub(super) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    encode_registry(&mut text, registry).expect("text is written to memory");
    text
}

/// How many series a message is: each bucket, the sum and the count of a histogram, and one if it is native as well.
fn series(metric: &proto::Metric) -> usize {
    metric.histogram.as_ref().map_or(1, |it| it.bucket.len() + 2 + usize::from(it.zero_threshold > 0.0))
}

/// OpenMetrics text as the client library writes it (help, then type, then samples; label values escaped, so that a
/// line is a line) as classic text.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Held back until the type says how the name goes on.
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (stem, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some(help) = help.take() {
                push(&mut text, &["# HELP ", stem, suffix, " ", help]);
            }
            push(&mut text, &["# TYPE ", stem, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push(&mut text, &[without_exemplar(line)]);
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

/// A sample without its exemplar, which follows ` # ` after the value. Label values may hold the same characters, in
/// quotes.
fn without_exemplar(sample: &str) -> &str {
    if !sample.contains(" # {") {
        return sample;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (position, byte) in sample.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return sample[..position].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_chooses_the_format() {
        let prometheus_2_42 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                               q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2";
        let prometheus_2_42_native = format!(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
             {}",
            prometheus_2_42.replacen("version=1.0.0", "version=1.0.0;q=0.8", 1)
        );
        let prometheus_3_native = format!(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             {prometheus_3}"
        );
        for (accept, format) in [
            (None, Format::Classic),
            (Some(""), Format::Classic),
            (Some("*/*"), Format::Classic),
            (Some("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"), Format::Classic),
            (Some(prometheus_2_42), Format::OpenMetrics),
            (Some(prometheus_3), Format::OpenMetrics),
            (Some("text/plain;q=0.6,application/openmetrics-text;q=0.5"), Format::Classic),
            (Some("application/openmetrics-text;q=0, text/plain"), Format::Classic),
            (Some("Application/OpenMetrics-Text; Q=0.5"), Format::OpenMetrics),
            (Some(&prometheus_2_42_native), Format::Protobuf),
            (Some(&prometheus_3_native), Format::Protobuf),
            (Some(Format::Protobuf.content_type()), Format::Protobuf),
            (
                Some("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text"),
                Format::Classic,
            ),
            (Some("application/vnd.google.protobuf;encoding=delimited, text/plain;q=0.1"), Format::Classic),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn classic_text_names_types_as_its_parser_expects() {
        let open_metrics = concat!(
            "# HELP weir_requests Calls received from the app.\n",
            "# TYPE weir_requests counter\n",
            "weir_requests_total{model=\"gpt-5\"} 1 # {trace_id=\"4bf9\"} 1.0 1700000000.0\n",
            "# HELP weir_build Build information.\n",
            "# TYPE weir_build info\n",
            "weir_build_info{version=\"0.1.0\"} 1\n",
            "# HELP weir_wait_seconds Wait.\n",
            "# TYPE weir_wait_seconds histogram\n",
            "# UNIT weir_wait_seconds seconds\n",
            "weir_wait_seconds_sum 0.5\n",
            "weir_wait_seconds_count 1\n",
            "weir_wait_seconds_bucket{le=\"+Inf\"} 1\n",
            "# EOF\n",
        );
        let expected = concat!(
            "# HELP weir_requests_total Calls received from the app.\n",
            "# TYPE weir_requests_total counter\n",
            "weir_requests_total{model=\"gpt-5\"} 1\n",
            "# HELP weir_build_info Build information.\n",
            "# TYPE weir_build_info gauge\n",
            "weir_build_info{version=\"0.1.0\"} 1\n",
            "# HELP weir_wait_seconds Wait.\n",
            "# TYPE weir_wait_seconds histogram\n",
            "weir_wait_seconds_sum 0.5\n",
            "weir_wait_seconds_count 1\n",
            "weir_wait_seconds_bucket{le=\"+Inf\"} 1\n",
        );
        assert_eq!(classic(open_metrics), expected);
    }

    #[test]
    fn a_label_value_that_looks_like_syntax_survives() {
        for sample in [
            r#"requests_total{model="a # {b=\"c\"} 1"} 7"#,
            r#"requests_total{model="ends with a backslash\\"} 7"#,
            r#"requests_total{model="\" # {",agent="x"} 7"#,
            r#"requests_total{model="two\nlines"} 7"#,
        ] {
            assert_eq!(classic(&format!("{sample}\n")), format!("{sample}\n"));
            assert_eq!(classic(&format!("{sample} # {{trace_id=\"1\"}} 7.0\n")), format!("{sample}\n"));
        }
    }
}
