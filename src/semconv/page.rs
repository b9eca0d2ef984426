//! Page: the tables of `docs/metrics.md`, as what is declared here says them. The prose between them is written by
//! hand.
//!
//! `UPDATE_EXPECT=1 cargo test --lib semconv` writes them anew.

use std::path::Path;

use crate::semconv::values::{Most, VALUES, Values, of_metric};
use crate::semconv::{Kind, METRICS, Metric, SECTIONS};

/// The line after a table.
const END: &str = "<!-- end -->";

#[test]
fn the_tables_of_the_page_are_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("docs/metrics.md can be read");
    let current = with_tables(&page);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &current).expect("docs/metrics.md can be written");
    } else {
        assert!(page == current, "docs/metrics.md is not current: run UPDATE_EXPECT=1 cargo test --lib semconv");
    }
}

/// The page with every table as it ought to be: those between `<!-- metrics: … -->`, `<!-- labels -->` or
/// `<!-- buckets -->` and [`END`].
fn with_tables(page: &str) -> String {
    let mut lines = page.lines();
    let mut current = String::new();
    let mut shown = Vec::new();
    while let Some(line) = lines.next() {
        let title = line.strip_prefix("<!-- metrics: ").and_then(|rest| rest.strip_suffix(" -->"));
        let table = match (title, line) {
            (Some(title), _) => Some(metrics_table(title)),
            (None, "<!-- labels -->") => Some(labels_table()),
            (None, "<!-- buckets -->") => Some(buckets_table()),
            (None, _) => None,
        };
        current += line;
        current.push('\n');
        if let Some(table) = table {
            shown.extend(title);
            current += &table;
            current += END;
            current.push('\n');
            assert!(lines.by_ref().any(|line| line == END), "a table has no {END}");
        }
    }
    let sections: Vec<_> = SECTIONS.iter().map(|(title, _)| *title).collect();
    assert_eq!(shown, sections, "docs/metrics.md has a <!-- metrics: … --> for each section, in the same order");
    current
}

fn metrics_table(title: &str) -> String {
    let section = SECTIONS.iter().find(|(known, _)| *known == title);
    let (_, metrics) = section.unwrap_or_else(|| panic!("no section is called `{title}`"));
    let head = "| name | type | labels | unit | what | when | series at most |\n\
                | --- | --- | --- | --- | --- | --- | --- |\n";
    metrics.iter().fold(head.to_owned(), |table, metric| table + &row(metric))
}

fn row(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { "—".to_owned() } else { labels.join(" ") };
    let Metric { name, kind, unit, help, measured, .. } = metric;
    let series = series_at_most(metric);
    format!("| `{name}` | {} | {labels} | {unit} | {help} | {measured} | {series} |\n", kind.as_str())
}

/// The product of what each label may say; of histograms, of their series as well: the bounds, the one at infinity, the
/// sum and the count.
fn series_at_most(metric: &Metric) -> String {
    let mut fixed = if metric.buckets.is_empty() { 1 } else { metric.buckets.len() + 3 };
    let mut factors = Vec::new();
    for label in metric.labels {
        let values = of_metric(metric, label);
        match values.unwrap_or_else(|| panic!("`{label}` of {} has no row in VALUES", metric.name)).most {
            Most::Closed(count) => fixed *= count,
            Most::Configured(names) | Most::Capped(names) => factors.push(names.to_owned()),
            Most::Follows(other) => assert!(metric.labels.contains(&other), "{}: `{label}`", metric.name),
        }
    }
    if fixed > 1 || factors.is_empty() {
        factors.insert(0, fixed.to_string());
    }
    factors.join(" × ")
}

fn labels_table() -> String {
    let head = "| label | of | values | at most |\n| --- | --- | --- | --- |\n";
    VALUES.iter().fold(head.to_owned(), |table, Values { label, of, most, say }| {
        let of: Vec<_> = of.iter().map(|metric| format!("`{}`", metric.name)).collect();
        let at_most = match most {
            Most::Closed(count) => count.to_string(),
            Most::Follows(other) => format!("one of each `{other}`"),
            Most::Configured(names) | Most::Capped(names) => (*names).to_owned(),
        };
        format!("{table}| `{label}` | {} | {say} | {at_most} |\n", of.join(" "))
    })
}

fn buckets_table() -> String {
    let head = "| upper bounds | of |\n| --- | --- |\n";
    let mut rows: Vec<(&[f64], Vec<String>)> = Vec::new();
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let name = format!("`{}`", metric.name);
        match rows.iter_mut().find(|(bounds, _)| *bounds == metric.buckets) {
            Some((_, names)) => names.push(name),
            None => rows.push((metric.buckets, vec![name])),
        }
    }
    rows.iter().fold(head.to_owned(), |table, (bounds, names)| {
        let bounds: Vec<_> = bounds.iter().map(f64::to_string).collect();
        format!("{table}| {} | {} |\n", bounds.join(" "), names.join(" "))
    })
}

#[test]
fn every_row_of_values_is_of_use() {
    for Values { label, of, .. } in VALUES {
        let of_label = || METRICS.iter().filter(|metric| metric.labels.contains(label));
        assert!(of_label().next().is_some(), "no metric has the label `{label}`");
        for metric in *of {
            assert!(of_label().any(|known| known.name == metric.name), "{} has no label `{label}`", metric.name);
        }
    }
}
