//! What is shipped: dashboards, rules and alerts, read from their files, and every expression in them.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

/// Lengths of time that stand for Grafana's own while an expression is read, and that nobody else writes.
pub(crate) const RATE_INTERVAL: &str = "11m";
pub(crate) const RANGE: &str = "13m";
pub(crate) const INTERVAL: &str = "17m";

/// An expression, and where it stands.
pub(crate) struct Asked {
    pub(crate) place: String,
    pub(crate) text: String,
    /// The labels that a legend names.
    pub(crate) named: Vec<String>,
    /// Whether it is a panel's.
    pub(crate) is_panel: bool,
    /// The variables that its page has.
    pub(crate) variables: Vec<String>,
}

pub(crate) static VARIABLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$([A-Za-z_]\w*)").expect("a pattern"));
pub(crate) static LEGEND: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{\{\s*(\w+)\s*\}\}").expect("a pattern"));

impl Asked {
    /// The expression with lengths of time in place of Grafana's variables.
    pub(crate) fn readable(&self) -> String {
        let lengths = [("$__rate_interval", RATE_INTERVAL), ("$__range", RANGE), ("$__interval", INTERVAL)];
        lengths.iter().fold(self.text.clone(), |text, (variable, length)| text.replace(variable, length))
    }
}

/// Every expression of every dashboard, rule and alert.
pub(crate) fn expressions() -> Vec<Asked> {
    let mut all = Vec::new();
    for page in pages() {
        let uid = text(&page, "/uid");
        let variables: Vec<_> = list(&page, "/templating/list").iter().map(|it| text(it, "/name").to_owned()).collect();
        let mut add = |place: String, text: &str, legend: &str, is_panel| {
            let named = LEGEND.captures_iter(legend).map(|found| found[1].to_owned()).collect();
            all.push(Asked { place, text: text.to_owned(), named, is_panel, variables: variables.clone() });
        };
        for panel in panels(&page) {
            for target in list(panel, "/targets").iter().filter(|target| target["datasource"]["type"] == "prometheus") {
                add(
                    format!("{uid} / {}", text(panel, "/title")),
                    text(target, "/expr"),
                    text(target, "/legendFormat"),
                    true,
                );
            }
        }
        for mark in list(&page, "/annotations/list") {
            let legend = format!("{} {}", text(mark, "/titleFormat"), text(mark, "/textFormat"));
            add(format!("{uid} / annotation {}", text(mark, "/name")), text(mark, "/expr"), &legend, false);
        }
        for variable in list(&page, "/templating/list").iter().filter(|it| it["type"] == "query") {
            let query = text(variable, "/query/query");
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) =
                inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(selector, label)");
            add(format!("{uid} / variable {}", text(variable, "/name")), selector, &format!("{{{{{label}}}}}"), false);
        }
    }
    all.extend(rules().into_iter().map(|rule| Asked {
        place: rule.alert.or(rule.record).expect("a rule records or alerts"),
        text: rule.expression,
        named: Vec::new(),
        is_panel: false,
        variables: Vec::new(),
    }));
    all
}

/// A rule of Prometheus: it records, or it alerts.
pub(crate) struct Rule {
    pub(crate) record: Option<String>,
    pub(crate) alert: Option<String>,
    pub(crate) expression: String,
    pub(crate) dashboard: String,
}

/// Every rule of every group, in the order in which they are evaluated.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for file in files("prometheus/rules", "yml") {
        let content = read(&file);
        let documents = Yaml::load_from_str(&content).unwrap_or_else(|fault| panic!("{file}: {fault}"));
        for group in documents[0]["groups"].as_sequence().expect("groups") {
            for rule in group["rules"].as_sequence().expect("rules") {
                let word = |key| rule.as_mapping_get(key).and_then(Yaml::as_str).map(str::to_owned);
                let annotations = rule.as_mapping_get("annotations");
                let dashboard = annotations.and_then(|it| it.as_mapping_get("dashboard_url")).and_then(Yaml::as_str);
                rules.push(Rule {
                    record: word("record"),
                    alert: word("alert"),
                    expression: word("expr").expect("an expression"),
                    dashboard: dashboard.unwrap_or_default().to_owned(),
                });
            }
        }
    }
    assert!(!rules.is_empty(), "there are rules");
    rules
}

/// Every dashboard.
pub(crate) fn pages() -> Vec<Value> {
    let pages: Vec<_> = files("grafana/dashboards", "json")
        .iter()
        .map(|file| serde_json::from_str(&read(file)).unwrap_or_else(|fault| panic!("{file}: {fault}")))
        .collect();
    assert_eq!(pages.len(), 7, "there are seven dashboards");
    pages
}

/// Every panel of a page, rows and what they hide included.
pub(crate) fn panels(page: &Value) -> Vec<&Value> {
    list(page, "/panels").iter().flat_map(|panel| [panel].into_iter().chain(list(panel, "/panels"))).collect()
}

pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The files of a folder, sorted.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let paths =
        entries.unwrap_or_else(|fault| panic!("{folder}: {fault}")).map(|entry| entry.expect("it is listed").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.to_str().expect("a plain name").to_owned())
        .collect();
    files.sort();
    files
}

/// A file of the repository.
pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .unwrap_or_else(|fault| panic!("{file}: {fault}"))
}
