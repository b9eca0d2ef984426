//! Exposition: the two texts a scraper may ask for.
//!
//! The client library writes OpenMetrics 1.0. Classic text is a different document: type and help carry the sample's
//! name (`…_total`, `…_info`), there are no infos, units, exemplars or end marker. Prometheus fails a whole scrape over
//! any of these, so one is translated into the other, line by line. Knows no metric.

/// A scrape's answer.
#[derive(Debug)]
pub struct Exposition {
    /// The value of `Content-Type`. Prometheus 3 fails a scrape without one.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

/// The two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/openmetrics-text`, version 1.0.0.
    OpenMetrics,
    /// `text/plain`, version 0.0.4: what a browser and curl get, too.
    Classic,
}

impl Format {
    /// The format an `Accept` header prefers; OpenMetrics if it likes both as much (RFC 9110, section 12.5.1).
    pub(super) fn accepted(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default();
        let open_metrics = weight(accept, &["application/openmetrics-text"]);
        let classic = weight(accept, &["text/plain"]);
        if open_metrics > 0.0 && open_metrics >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    /// The answer in this format, from OpenMetrics text.
    pub(super) fn exposition(self, open_metrics: String) -> Exposition {
        match self {
            Self::OpenMetrics => Exposition {
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body: open_metrics,
            },
            Self::Classic => {
                Exposition { content_type: "text/plain; version=0.0.4; charset=utf-8", body: classic(&open_metrics) }
            }
        }
    }
}

/// How much an `Accept`-like header wants one of `names`: the highest `q`, 1 if none is given, 0 if it is not wanted.
#[must_use]
pub fn weight(header: &str, names: &[&str]) -> f32 {
    let weight = |item: &str| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        if !names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)) {
            return 0.0;
        }
        let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        q.map_or(1.0, |q| q.parse().unwrap_or(0.0))
    };
    header.split(',').map(weight).fold(0.0, f32::max)
}

/// How many samples an exposition holds.
pub(super) fn count_samples(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
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
        assert_eq!(count_samples(open_metrics), count_samples(expected));
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
