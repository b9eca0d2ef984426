//! Catalogue: the series there are, with their labels and the values these may have; and what labels come out of an
//! expression, if it can be evaluated at all.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};
use regex::Regex;
use weir::semconv::values::{Most, VALUES, Values, of_metric};
use weir::semconv::{self, Kind, METRICS, Metric};

use crate::shipped::rules;

/// What the scraper knows of a target: part of every series.
pub(crate) const TARGET: [&str; 3] = ["namespace", "job", "instance"];

/// What Prometheus itself makes, with the labels that matter here.
const PROMETHEUS_OWN: &[(&str, &[&str])] =
    &[("up", &[]), ("ALERTS", &["alertname", "alertstate", "severity", "category"])];

/// What kube-state-metrics makes, with the labels that matter here.
const KUBE_STATE: &[(&str, &[&str])] = &[
    ("kube_namespace_labels", &["label_weir_dev_injection"]),
    ("kube_pod_info", &["pod", "host_network", "created_by_name"]),
    ("kube_pod_labels", &["pod", "label_weir_dev_inject"]),
    ("kube_pod_status_ready", &["pod", "condition"]),
];

type Labels = BTreeSet<String>;
/// Takes what is wrong with an expression.
type Tell<'a> = &'a mut dyn FnMut(String);

/// What can be asked for: series with their labels, and the values of labels.
pub(crate) struct Known {
    pub(crate) series: BTreeMap<String, Labels>,
    /// Which metric a series is of, where weir exports it.
    metrics: BTreeMap<String, &'static Metric>,
}

impl Known {
    pub(crate) fn read() -> Self {
        let mut known = Self { series: BTreeMap::new(), metrics: BTreeMap::new() };
        for metric in METRICS {
            let (plain, with_bound) =
                (&[("", None)][..], &[("_bucket", Some("le")), ("_sum", None), ("_count", None)][..]);
            for (end, bound) in if metric.kind == Kind::Histogram { with_bound } else { plain } {
                let name = format!("{}{end}", metric.name);
                known.add(&name, metric.labels, *bound);
                known.metrics.insert(name, metric);
            }
        }
        for (name, labels) in PROMETHEUS_OWN.iter().chain(KUBE_STATE) {
            known.add(name, labels, None);
        }
        // In Kubernetes the scraper knows the pod as well, which is what kube-state-metrics tells pods by.
        known.add("weir_build_info", semconv::BUILD_INFO.labels, Some("pod"));
        // Rules that use others stand below them, so that one reading is enough.
        for rule in rules() {
            let Some(name) = rule.record else { continue };
            let expression = parser::parse(&rule.expression).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            let labels = known.labels_of(&expression, &mut |_| {}).unwrap_or_default();
            known.series.insert(name, labels);
        }
        known
    }

    fn add(&mut self, name: &str, labels: &[&str], one_more: Option<&str>) {
        let labels = TARGET.iter().chain(labels).copied().chain(one_more).map(str::to_owned);
        self.series.insert(name.to_owned(), labels.collect());
    }

    /// The labels of what an expression returns; none of a number, or of what nothing exports.
    pub(crate) fn labels_of(&self, expression: &Expr, tell: Tell<'_>) -> Option<Labels> {
        match expression {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => None,
            Expr::VectorSelector(selector) => self.labels_of_series(selector, tell),
            Expr::MatrixSelector(matrix) => self.labels_of_series(&matrix.vs, tell),
            Expr::Paren(inner) => self.labels_of(&inner.expr, tell),
            Expr::Unary(inner) => self.labels_of(&inner.expr, tell),
            Expr::Subquery(inner) => self.labels_of(&inner.expr, tell),
            Expr::Call(call) => self.labels_of_call(call, tell),
            Expr::Aggregate(aggregate) => self.labels_of_aggregate(aggregate, tell),
            Expr::Binary(binary) => {
                let (left, right) = (self.labels_of(&binary.lhs, tell), self.labels_of(&binary.rhs, tell));
                match (left, right) {
                    (Some(left), Some(right)) => Some(joined(binary, left, right, tell)),
                    (left, right) => left.or(right),
                }
            }
        }
    }

    fn labels_of_series(&self, selector: &VectorSelector, tell: Tell<'_>) -> Option<Labels> {
        let Some(name) = &selector.name else {
            let by_name = |matcher: &Matcher| matcher.name == "__name__" && matcher.value.starts_with("app_");
            if !selector.matchers.matchers.iter().any(by_name) {
                tell("a selector without a name is for app_ metrics only".to_owned());
            }
            return Some(TARGET.map(str::to_owned).into());
        };
        let Some(labels) = self.series.get(name) else {
            tell(format!("nothing exports {name}"));
            return None;
        };
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) {
                tell(format!("{name} has no label {}", matcher.name));
            }
            if let Some(unknown) = self.unknown_value(name, matcher) {
                tell(format!("{} is never {unknown:?}", matcher.name));
            }
        }
        Some(labels.clone())
    }

    fn labels_of_call(&self, call: &Call, tell: Tell<'_>) -> Option<Labels> {
        let arguments = &call.args.args;
        let mut labels = arguments.iter().filter_map(|part| self.labels_of(part, tell)).reduce(|a, b| &a | &b)?;
        match (call.func.name, arguments.get(1).map(|second| &**second)) {
            ("scalar", _) => return None,
            ("histogram_quantile", _) if !labels.remove("le") => tell("a quantile needs the label le".to_owned()),
            ("label_replace", Some(Expr::StringLiteral(added))) => {
                labels.insert(added.val.clone());
            }
            _ => {}
        }
        Some(labels)
    }

    fn labels_of_aggregate(&self, aggregate: &AggregateExpr, tell: Tell<'_>) -> Option<Labels> {
        let inner = self.labels_of(&aggregate.expr, tell)?;
        let Some(modifier) = &aggregate.modifier else {
            let keeps = ["topk", "bottomk"].contains(&aggregate.op.to_string().as_str());
            return Some(if keeps { inner } else { Labels::new() });
        };
        let named: Labels = modifier.labels().labels.iter().cloned().collect();
        for label in named.difference(&inner).filter(|label| *label != "__name__") {
            tell(format!("{label} is not a label of what is put together"));
        }
        Some(if modifier.is_include() { named } else { &inner - &named })
    }

    /// A value that a label with a closed set of values does not have. Patterns have to match one of them.
    fn unknown_value(&self, series: &str, matcher: &Matcher) -> Option<String> {
        let values = self.values(series, &matcher.name)?;
        let is_pattern = matches!(matcher.op, MatchOp::Re(_) | MatchOp::NotRe(_));
        let wanted: Vec<_> = if is_pattern { matcher.value.split('|').collect() } else { vec![&*matcher.value] };
        let fits = |wanted: &str| {
            let pattern = if is_pattern { wanted.to_owned() } else { regex::escape(wanted) };
            let pattern =
                Regex::new(&format!("^(?:{pattern})$")).expect("a pattern is read whole, and each part of it");
            values.iter().any(|value| pattern.is_match(value))
        };
        let is_open = |wanted: &str| wanted.is_empty() || wanted.starts_with('$');
        wanted.into_iter().find(|wanted| !is_open(wanted) && !fits(wanted)).map(str::to_owned)
    }

    /// The values that a label of a series may have; none where that is not a closed set. Of recorded series, those that
    /// the label has anywhere.
    fn values(&self, series: &str, label: &str) -> Option<Vec<&'static str>> {
        let is_closed = |values: &&Values| matches!(values.most, Most::Closed(_));
        let found: Vec<_> = match self.metrics.get(series) {
            Some(metric) => of_metric(metric, label).into_iter().filter(is_closed).collect(),
            None => VALUES.iter().filter(|values| values.label == label).filter(is_closed).collect(),
        };
        // What is said of them has each value in backquotes.
        let words = found.iter().flat_map(|values| values.say.split('`').skip(1).step_by(2));
        (!found.is_empty()).then(|| words.collect())
    }
}

/// The labels of what comes of an operation between two vectors.
fn joined(binary: &BinaryExpr, left: Labels, right: Labels, tell: Tell<'_>) -> Labels {
    let operation = binary.op.to_string();
    let cardinality = binary.modifier.as_ref().map(|modifier| &modifier.card);
    let matching = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
    let compared = match matching {
        Some(LabelModifier::Include(on)) => {
            for label in on.labels.iter().filter(|label| !left.contains(*label) || !right.contains(*label)) {
                tell(format!("{label} is not a label of both sides of {operation}"));
            }
            on.labels.iter().cloned().collect()
        }
        matching => {
            let ignored: Labels = matching.iter().flat_map(|it| it.labels().labels.iter().cloned()).collect();
            let (left, right) = (&left - &ignored, &right - &ignored);
            if left != right && operation != "or" {
                tell(format!("nothing has the labels of both sides of {operation}: {left:?} and {right:?}"));
            }
            left
        }
    };
    let is_comparison = ["==", "!=", ">", "<", ">=", "<="].contains(&operation.as_str());
    match (operation.as_str(), cardinality) {
        ("or", _) => &left | &right,
        ("and" | "unless", _) | (_, Some(VectorMatchCardinality::ManyToOne(_))) => left,
        (_, Some(VectorMatchCardinality::OneToMany(_))) => right,
        _ if is_comparison && matching.is_none() => left,
        _ => compared,
    }
}

/// Shows every part of an expression, with the parts around it, outermost first.
pub(crate) fn walk(expression: &Expr, see: &mut dyn FnMut(&Expr, &[&Expr])) {
    pub(crate) fn down<'a>(part: &'a Expr, above: &mut Vec<&'a Expr>, see: &mut dyn FnMut(&Expr, &[&Expr])) {
        see(part, above);
        above.push(part);
        match part {
            Expr::Aggregate(it) => it.param.iter().chain([&it.expr]).for_each(|inner| down(inner, above, see)),
            Expr::Unary(it) => down(&it.expr, above, see),
            Expr::Binary(it) => [&it.lhs, &it.rhs].into_iter().for_each(|inner| down(inner, above, see)),
            Expr::Paren(it) => down(&it.expr, above, see),
            Expr::Subquery(it) => down(&it.expr, above, see),
            Expr::Call(it) => it.args.args.iter().for_each(|inner| down(inner, above, see)),
            Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::VectorSelector(_)
            | Expr::MatrixSelector(_)
            | Expr::Extension(_) => {}
        }
        above.pop();
    }
    down(expression, &mut Vec::new(), see);
}

/// The series that a part of an expression selects by itself.
pub(crate) fn selector_of(part: &Expr) -> Option<&VectorSelector> {
    match part {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(matrix) => Some(&matrix.vs),
        _ => None,
    }
}
