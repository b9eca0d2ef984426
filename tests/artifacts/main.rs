//! Artifacts: what is shipped beside weir says what weir does. Every expression of every dashboard, rule and alert parses,
//! asks for metrics and labels that weir exports, joins what can be joined, and is shown in a unit that Grafana knows;
//! every metric is asked for somewhere.
//!
//! Whether the expressions return data is tested by `tests/prometheus/test_boards.py`, with a real Prometheus.

mod catalogue;
mod shipped;

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::Matcher;
use promql_parser::parser::{self, Expr};
use regex::Regex;
use serde_json::Value;
use weir::semconv::METRICS;

use catalogue::{Known, TARGET, selector_of, walk};
use shipped::{RATE_INTERVAL, VARIABLE, expressions, list, pages, panels, rules, text};

/// Metrics that no panel, rule or alert asks for, and why.
const UNUSED: &[(&str, &str)] = &[
    ("gen_ai_client_inference_usage_input_tokens_total", NEXT),
    ("gen_ai_client_inference_usage_output_tokens_total", NEXT),
    ("gen_ai_client_inference_usage_cache_read_input_tokens_total", NEXT),
    ("gen_ai_client_inference_usage_cache_write_input_tokens_total", NEXT),
    ("gen_ai_client_inference_usage_reasoning_output_tokens_total", NEXT),
    ("gen_ai_client_inference_operation_input_tokens", NEXT),
    ("gen_ai_client_inference_operation_output_tokens", NEXT),
    ("gen_ai_client_inference_duration_seconds", NEXT),
];

/// Dashboards and rules move once the next conventions are released.
const NEXT: &str = "what the next conventions call what is asked for by its name of today";

/// The units of panels, of the many that Grafana knows (`packages/grafana-data/src/valueFormats/categories.ts`).
const UNITS: [&str; 11] =
    ["none", "short", "percentunit", "currencyUSD", "bytes", "Bps", "cps", "reqps", "s", "dateTimeAsLocal", "string"];

/// Panels that show numbers, and so need a unit.
const WITH_NUMBERS: [&str; 7] = ["stat", "gauge", "bargauge", "piechart", "table", "timeseries", "heatmap"];

#[test]
fn expressions_ask_for_what_weir_exports() {
    let known = Known::read();
    let mut faults = Vec::new();
    for asked in expressions() {
        match parser::parse(&asked.readable()) {
            Err(fault) => faults.push(format!("{}: {fault}: {}", asked.place, asked.text)),
            Ok(expression) => {
                let labels = known.labels_of(&expression, &mut |fault| {
                    faults.push(format!("{}: {fault}, in {}", asked.place, asked.text));
                });
                let Some(shown) = labels else { continue };
                let named = asked.named.iter().filter(|label| *label != "__name__" && !shown.contains(*label));
                faults.extend(named.map(|label| format!("{}: {{{{{label}}}}} is not in the result", asked.place)));
            }
        }
    }
    report(&faults);
}

#[test]
fn every_metric_is_asked_for() {
    let mut asked = BTreeSet::new();
    for expression in expressions().iter().filter_map(|asked| parser::parse(&asked.readable()).ok()) {
        walk(&expression, &mut |part, _| {
            if let Some(selector) = selector_of(part) {
                asked.extend(selector.name.clone());
            }
        });
    }
    let known = Known::read();
    let is_asked =
        |name: &str| ["", "_bucket", "_sum", "_count"].iter().any(|end| asked.contains(&format!("{name}{end}")));
    let mut faults = Vec::new();
    for metric in METRICS {
        let excused = UNUSED.iter().any(|(name, _)| *name == metric.name);
        match (is_asked(metric.name), excused) {
            (false, false) => {
                faults.push(format!("no panel, rule or alert asks for {}: show it, or say why not", metric.name));
            }
            (true, true) => faults.push(format!("{} is asked for: take it off the list", metric.name)),
            _ => {}
        }
    }
    let recorded = known.series.keys().filter(|name| name.contains(':'));
    faults.extend(recorded.filter(|name| !asked.contains(*name)).map(|name| format!("nobody asks for {name}")));
    report(&faults);
}

#[test]
fn rates_are_over_the_intervals_that_grafana_chooses() {
    let mut faults = Vec::new();
    for asked in expressions().iter().filter(|asked| asked.is_panel) {
        let Ok(expression) = parser::parse(&asked.readable()) else { continue };
        walk(&expression, &mut |part, above| {
            let function =
                above.last().and_then(|above| if let Expr::Call(call) = above { Some(call.func.name) } else { None });
            if let Expr::MatrixSelector(matrix) = part
                && matches!(function, Some("rate" | "irate"))
                && matrix.range != length(RATE_INTERVAL)
            {
                faults.push(format!("{}: a rate is over $__rate_interval: {part}", asked.place));
            }
            let grows =
                selector_of(part).and_then(|it| it.name.as_deref()).is_some_and(|name| name.ends_with("_total"));
            if grows && !matches!(function, Some("rate" | "irate" | "increase")) {
                faults.push(format!("{}: a counter is read by rate or increase: {part}", asked.place));
            }
        });
    }
    report(&faults);
}

#[test]
fn selectors_follow_the_choices_of_the_page() {
    let mut faults = Vec::new();
    for asked in expressions().iter().filter(|asked| asked.is_panel || asked.place.contains("annotation")) {
        let Ok(expression) = parser::parse(&asked.readable()) else { continue };
        walk(&expression, &mut |part, _| {
            let Some(selector) = selector_of(part) else { return };
            let name = selector.name.as_deref().unwrap_or("app_");
            let has_instance = !name.contains(':') && name != "ALERTS";
            let chosen = if has_instance { &TARGET[..] } else { &TARGET[..2] };
            for label in chosen {
                let follows = |it: &Matcher| it.name == *label && it.value == format!("${label}");
                if !selector.matchers.matchers.iter().any(follows) {
                    faults.push(format!("{}: {name} has no {label}=~\"${label}\"", asked.place));
                }
            }
        });
        for variable in VARIABLE.captures_iter(&asked.text).map(|found| found[1].to_owned()) {
            if !variable.starts_with("__") && !asked.variables.contains(&variable) {
                faults.push(format!("{}: the page has no variable ${variable}", asked.place));
            }
        }
    }
    report(&faults);
}

#[test]
fn pages_keep_to_the_rules() {
    let mut faults = Vec::new();
    let mut uids = BTreeSet::new();
    for page in pages() {
        let name = page["uid"].as_str().unwrap_or("a page without uid").to_owned();
        let mut rule = |holds: bool, rule: &str| {
            if !holds {
                faults.push(format!("{name}: {rule}"));
            }
        };
        rule(uids.insert(name.clone()), "has a uid of its own");
        rule(
            page["id"].is_null() && page["schemaVersion"] == 39,
            "is in the classic form that every Grafana since 11 reads",
        );
        rule(page["editable"] == false, "cannot be edited in place");
        rule(page["timezone"] == "browser" && page["graphTooltip"] == 1, "shows one time everywhere");
        rule(page["tags"].as_array().is_some_and(|tags| tags.contains(&"weir".into())), "is found by its tag");
        let link = &page["links"][0];
        rule(
            link["tags"][0] == "weir" && link["keepTime"] == true && link["includeVars"] == true,
            "leads to the others",
        );
        let variables = list(&page, "/templating/list");
        let has = |name: &str| variables.iter().any(|it| it["name"] == name);
        rule(
            has("datasource") && has("namespace") && has("job") && has("instance"),
            "has a choice of app and instance",
        );
        for variable in variables {
            let of_sources = variable["type"] == "datasource";
            rule(of_sources || variable["refresh"] == 2, "choices are read again when the time range changes");
            rule(of_sources || variable["allValue"] == ".*", "all of a label's values are also those without it");
            rule(of_sources || variable["multi"] == true && variable["includeAll"] == true, "several can be chosen");
            rule(
                of_sources || variable["datasource"]["uid"] == "${datasource}",
                "choices come from the chosen data source",
            );
            let prometheus = variable["name"] == "datasource" && variable["query"] == "prometheus";
            rule(
                !of_sources || prometheus || variable["name"] == format!("{}_datasource", text(variable, "/query")),
                "names",
            );
        }
        let marks = list(&page, "/annotations/list");
        rule(marks.len() == 3 && marks.iter().all(|mark| mark["enable"] == true), "marks starts, reloads and alerts");
    }
    report(&faults);
}

#[test]
fn panels_keep_to_the_rules() {
    let mut faults = Vec::new();
    for page in pages() {
        let mut ids = BTreeSet::new();
        for panel in panels(&page) {
            let place = format!("{} / {}", text(&page, "/uid"), text(panel, "/title"));
            let mut rule = |holds: bool, rule: &str| {
                if !holds {
                    faults.push(format!("{place}: {rule}"));
                }
            };
            rule(
                !text(panel, "/title").is_empty() && ids.insert(panel["id"].as_i64()),
                "has a title and an id of its own",
            );
            let kind = text(panel, "/type");
            if kind == "row" {
                continue;
            }
            rule(!text(panel, "/description").is_empty(), "says what it is");
            rule(text(panel, "/description").ends_with('.'), "says so in sentences");
            if ["text", "alertlist"].contains(&kind) {
                continue;
            }
            let source = text(panel, "/datasource/uid");
            rule(source.starts_with("${") && source.ends_with("datasource}"), "asks a chosen data source");
            rule(!list(panel, "/targets").is_empty(), "asks something");
            rule(
                list(panel, "/targets").iter().all(|target| target["datasource"] == panel["datasource"]),
                "asks one source",
            );
            rule(!WITH_NUMBERS.contains(&kind) || !units(panel).is_empty(), "has a unit");
            rule(units(panel).iter().all(|unit| UNITS.contains(unit)), "has a unit that is known");
            rule(!list(panel, "/fieldConfig/defaults/thresholds/steps").is_empty(), "has thresholds");
            let legend = &panel["options"]["legend"];
            rule(
                kind != "timeseries" || legend["displayMode"] == "table" && legend["calcs"].is_array(),
                "sums its lines up",
            );
        }
        for (one, other) in overlaps(&page) {
            faults.push(format!("{}: {one} lies on {other}, or beside the page", text(&page, "/uid")));
        }
    }
    report(&faults);
}

#[test]
fn latencies_and_costs_of_calls_lead_to_traces() {
    let pages = pages();
    let targets: Vec<_> = pages.iter().flat_map(panels).flat_map(|panel| list(panel, "/targets")).collect();
    for metric in ["weir_request_duration_seconds", "gen_ai_client_operation_duration_seconds", "weir_request_cost_usd"]
    {
        let leads = |target: &&Value| target["exemplar"] == true && text(target, "/expr").contains(metric);
        assert!(targets.iter().any(leads), "no panel shows the traces beside {metric}");
    }
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let variables_of: BTreeMap<_, Vec<_>> = pages
        .iter()
        .map(|page| (text(page, "/uid"), list(page, "/templating/list").iter().map(|it| text(it, "/name")).collect()))
        .collect();
    let leads = Regex::new(r"^/d/([\w-]+)\?(.*)$").expect("a pattern");
    let chooses = Regex::new(r"&var-(\w+)=").expect("a pattern");
    let mut faults = Vec::new();
    for (page, url) in pages.iter().flat_map(|page| urls(page).into_iter().map(move |url| (page, url))) {
        let from = text(page, "/uid");
        if url.starts_with("/explore?") {
            let has = variables_of[from].contains(&"tempo_datasource");
            faults.extend((!has).then(|| format!("{from}: leads to traces and does not let choose where they are")));
        } else if let Some(found) = leads.captures(&url) {
            let Some(there) = variables_of.get(&found[1]) else {
                faults.push(format!("{from}: there is no page {}", &found[1]));
                continue;
            };
            faults.extend((!found[2].contains("${__url_time_range}")).then(|| format!("{from}: {url} loses the time")));
            let chosen = chooses.captures_iter(&found[2]).map(|found| found[1].to_owned());
            let lost = chosen.filter(|name| !there.contains(&name.as_str()));
            faults.extend(lost.map(|name| format!("{from}: {} has no variable {name}", &found[1])));
        } else {
            faults.push(format!("{from}: {url} leads nowhere"));
        }
    }
    report(&faults);
}

#[test]
fn alerts_name_a_page_that_exists() {
    let uids: BTreeSet<_> = pages().iter().map(|page| text(page, "/uid").to_owned()).collect();
    let mut faults = Vec::new();
    for rule in rules() {
        let Some(alert) = rule.alert else { continue };
        let uid = rule.dashboard.rsplit_once("/d/").map_or("", |(_, uid)| uid.split(['?', '/']).next().unwrap_or(uid));
        if !uids.contains(uid) {
            faults.push(format!("{alert}: there is no dashboard {:?}", rule.dashboard));
        }
    }
    report(&faults);
}

/// The checks above see what they should: each row is an expression, and what is wrong with it.
#[test]
fn what_is_wrong_with_an_expression_is_found() {
    let known = Known::read();
    for (expression, fault) in [
        ("sum(rate(weir_calls_total[5m]))", "nothing exports weir_calls_total"),
        ("weir_request_duration_seconds", "nothing exports weir_request_duration_seconds"),
        ("rate(weir_requests_total{workspace=\"a\"}[5m])", "weir_requests_total has no label workspace"),
        ("rate(weir_requests_total{outcome=\"failed\"}[5m])", "outcome is never \"failed\""),
        ("rate(weir_requests_total{outcome=~\"success|failed\"}[5m])", "outcome is never \"failed\""),
        ("rate(weir_cache_stores_total{result=\"hit\"}[5m])", "result is never \"hit\""),
        ("sum by (tool) (rate(weir_requests_total[5m]))", "tool is not a label of what is put together"),
        ("sum without (tool) (rate(weir_requests_total[5m]))", "tool is not a label of what is put together"),
        (
            "histogram_quantile(0.5, sum by (job) (rate(weir_request_cost_usd_bucket[5m])))",
            "a quantile needs the label le",
        ),
        ("weir_budget_spent_usd - weir_budget_reserved_usd", "nothing has the labels of both sides of -"),
        ("weir_budget_spent_usd and on (scope) weir_budget_reserved_usd", "scope is not a label of both sides of and"),
        ("{__name__=~\"weir_.+\"}", "a selector without a name is for app_ metrics only"),
        ("sum(rate(weir_requests_total{outcome=~\"success|client_.*\"}[5m])) / sum(rate(weir_requests_total[5m]))", ""),
        (
            "weir_budget_spent_usd / on (budget, window, job) group_left () max by (budget, window, job) (weir_budget_reserved_usd)",
            "",
        ),
        (
            "label_replace(up, \"tool\", \"$1\", \"job\", \"(.*)\") * on (tool) group_right () weir_tool_invocations_total",
            "",
        ),
    ] {
        let mut faults = Vec::new();
        known.labels_of(&parser::parse(expression).expect("it parses"), &mut |fault| faults.push(fault));
        let found = faults.join("; ");
        assert!(if fault.is_empty() { found.is_empty() } else { found.starts_with(fault) }, "{expression}: {found:?}");
    }
}

/// The unit of a panel, and those of its fields.
fn units(panel: &Value) -> Vec<&str> {
    let properties = list(panel, "/fieldConfig/overrides").iter().flat_map(|field| list(field, "/properties"));
    let of_fields = properties.filter(|property| property["id"] == "unit").map(|property| text(property, "/value"));
    panel.pointer("/fieldConfig/defaults/unit").and_then(Value::as_str).into_iter().chain(of_fields).collect()
}

/// The addresses that panels lead to.
fn urls(page: &Value) -> Vec<String> {
    let mut urls = Vec::new();
    for panel in panels(page) {
        let properties = list(panel, "/fieldConfig/overrides").iter().flat_map(|field| list(field, "/properties"));
        let of_fields = properties.filter(|it| it["id"] == "links").flat_map(|it| list(it, "/value"));
        let links = list(panel, "/fieldConfig/defaults/links").iter().chain(of_fields);
        urls.extend(links.map(|link| text(link, "/url").to_owned()));
    }
    urls
}

/// Panels that lie on each other, or reach beyond the 24 columns.
fn overlaps(page: &Value) -> Vec<(String, String)> {
    let place =
        |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place on the grid"));
    let mut found = Vec::new();
    let all = panels(page);
    for (at, one) in all.iter().enumerate() {
        let [x, y, w, h] = place(one);
        if w == 0 || h == 0 || x + w > 24 {
            found.push((text(one, "/title").to_owned(), "the edge".to_owned()));
        }
        for other in &all[at + 1..] {
            let [x2, y2, w2, h2] = place(other);
            if x < x2 + w2 && x2 < x + w && y < y2 + h2 && y2 < y + h {
                found.push((text(one, "/title").to_owned(), text(other, "/title").to_owned()));
            }
        }
    }
    found
}

fn length(text: &str) -> std::time::Duration {
    promql_parser::util::parse_duration(text).expect("a length of time")
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n\n{}\n", faults.join("\n"));
}
