//! Custom: metrics of the app's own, pushed as JSON by a program on this machine. All of a push is taken, or nothing.
//!
//! Knows how they are written; what may be called what, and how many there may be, is for `sinks::custom` to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::access::Neighbour;
use crate::admin::body::{self, Members};
use crate::admin::cache::answer;
use crate::admin::openapi::ToNeighbours;
use crate::admin::problem::{Fault, Place, Problem, shown};
use crate::pattern::nearest;
use crate::sinks::custom::naming::{Labels, Name};
use crate::sinks::custom::value::{Kind, MAX_BOUNDS, MAX_QUANTILES, Summary, Told};
use crate::sinks::custom::{Custom, Reading, Reason, Refused};

/// The largest push, in bytes.
const MAX_BODY: usize = 256 << 10;
/// Longest text of a member, in bytes: longer than any that is taken.
const MAX_TEXT: usize = 256;
/// Most faults that are told of one push.
const MAX_FAULTS: usize = 100;

/// Takes metrics of the app's own. For programs on this machine.
#[utoipa::path(
    post,
    path = "/api/v1/metrics",
    tag = "metrics",
    operation_id = "metrics_push",
    request_body(content = Object, content_type = "application/json",
        description = "One metric, or several in `metrics`: see docs/custom-metrics.md."),
    responses((status = 200, body = Accepted), ToNeighbours),
    security(())
)]
pub(super) async fn push(_: Neighbour, State(admin): State<Admin>, body: Body) -> Result<Response, Problem> {
    let custom = admin.metrics.custom();
    if !custom.is_enabled() {
        return Err(switched_off());
    }
    let accepted = put(custom, &body::read(body, MAX_BODY).await?)?;
    Ok(answer(StatusCode::OK, &Accepted { accepted }))
}

/// Takes all metrics of a push, and says how many they are.
///
/// # Errors
/// With all that is wrong with any of them: then none is taken.
pub fn put(custom: &Custom, body: &[u8]) -> Result<usize, Problem> {
    let readings = match read(body)? {
        Ok(readings) => readings,
        Err(mistakes) => return Err(told(custom, mistakes)),
    };
    match custom.take_all(&readings) {
        Ok(()) => Ok(readings.len()),
        Err(refused) => {
            let is_list = Members::of(body)?.has("metrics");
            let place = |(position, refused)| placed(fault(refused), is_list.then_some(position));
            Err(of_faults(refused.into_iter().map(place).collect()))
        }
    }
}

/// All of it was taken.
#[derive(Debug, Serialize, ToSchema)]
struct Accepted {
    /// How many metrics that were.
    accepted: usize,
}

/// That the operator wants none.
pub(super) fn switched_off() -> Problem {
    let detail = "the app's own metrics are switched off: set `telemetry.metrics.custom.enabled` to true";
    Problem::new(StatusCode::NOT_FOUND, detail)
}

/// What is wrong with one metric of a push, and what that counts as.
type Mistake = (Reason, Fault);

/// Counts what was wrong, each metric once, and says all of it.
fn told(custom: &Custom, mistakes: Vec<Vec<Mistake>>) -> Problem {
    for reason in mistakes.iter().filter_map(|of_one| Some(of_one.first()?.0)) {
        custom.refuse(reason);
    }
    of_faults(mistakes.into_iter().flatten().map(|(_, fault)| fault).collect())
}

fn of_faults(mut faults: Vec<Fault>) -> Problem {
    if let Some(more) = faults.len().checked_sub(MAX_FAULTS).filter(|more| *more > 0) {
        faults.truncate(MAX_FAULTS);
        faults.push(Fault::of_all(format!("has {more} more faults")));
    }
    Problem::of_faults(faults)
}

/// All metrics of a push, or for each that cannot be read all that is wrong with it.
fn read(body: &[u8]) -> Result<Result<Vec<Reading>, Vec<Vec<Mistake>>>, Problem> {
    let mut members = Members::of(body)?;
    if !members.has("metrics") {
        return Ok(metric(members).map(|reading| vec![reading]).map_err(|mistakes| vec![mistakes]));
    }
    let raw = members.raw("metrics").map_or("null", RawValue::get);
    let Ok(each) = serde_json::from_str::<Vec<&RawValue>>(raw) else {
        members.fault("metrics", "is no list: write `[{\"name\": …}, …]`, or one metric without `metrics` around it");
        return Err(Problem::of_faults(members.faults()));
    };
    members.end()?;
    let (mut readings, mut mistakes) = (Vec::new(), Vec::new());
    for (position, raw) in each.into_iter().enumerate() {
        let read = match serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()) {
            Ok(_) => metric(Members::of(raw.get().as_bytes())?),
            Err(_) => Err(vec![(Reason::Type, Fault::of_all("is no object: write `{\"name\": …, \"type\": …}`"))]),
        };
        let place = |(reason, fault)| (reason, placed(fault, Some(position)));
        match read {
            Ok(reading) => readings.push(reading),
            Err(of_one) => mistakes.push(of_one.into_iter().map(place).collect()),
        }
    }
    Ok(if mistakes.is_empty() { Ok(readings) } else { Err(mistakes) })
}

fn placed(fault: Fault, position: Option<usize>) -> Fault {
    match position {
        Some(position) => fault.under(&format!("metrics/{position}")),
        None => fault,
    }
}

fn fault(Refused { reason, detail }: Refused) -> Fault {
    match reason {
        Reason::Name => Fault::of("name", detail),
        Reason::Type => Fault::of("type", detail),
        Reason::Labels => Fault::of("labels", detail),
        Reason::SeriesLimit => Fault::of_all(detail),
    }
}

/// One metric, or all that is wrong with it.
fn metric(mut members: Members<'_>) -> Result<Reading, Vec<Mistake>> {
    let name = members.required_text("name", MAX_TEXT);
    let kind = kind(&mut members);
    let unit = members.text("unit", MAX_TEXT).unwrap_or_default();
    let help = members.text("help", MAX_TEXT).unwrap_or_default();
    let (labels, of_labels) = labels(&mut members);
    let given = Given::read(&mut members);
    let told = kind.and_then(|kind| given.told(kind, &mut members));
    let named = name.zip(kind).map(|(name, kind)| (Name::new(&name, &unit, kind), name));
    if let Some((Err(why), name)) = &named {
        members.fault("name", format!("`{}` {why}", shown(name)));
    }
    let mistakes: Vec<Mistake> = members.faults().into_iter().chain(of_labels).map(with_reason).collect();
    match (named, told) {
        (Some((Ok(name), _)), Some(told)) if mistakes.is_empty() => {
            Ok(Reading { name, help: help.into(), labels, told, total_of: None })
        }
        _ => Err(mistakes),
    }
}

fn with_reason(fault: Fault) -> Mistake {
    let Place::Pointer(pointer) = &fault.place else { return (Reason::Type, fault) };
    let reason = match pointer.split('/').nth(1) {
        Some("name" | "unit") => Reason::Name,
        Some("labels") => Reason::Labels,
        _ => Reason::Type,
    };
    (reason, fault)
}

fn kind(members: &mut Members<'_>) -> Option<Kind> {
    let written = members.required_text("type", MAX_TEXT)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == &*written);
    if kind.is_none() {
        let fix = match nearest(&written, Kind::ALL.iter().map(|kind| kind.as_str())) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "write `counter`, `gauge`, `histogram` or `summary`".to_owned(),
        };
        members.fault("type", format!("`{}` is no type: {fix}", shown(&written)));
    }
    kind
}

/// The labels, and what is wrong with some.
fn labels(members: &mut Members<'_>) -> (Labels, Vec<Fault>) {
    let (mut labels, mut faults) = (Labels::default(), Vec::new());
    let Some(raw) = members.raw("labels") else { return (labels, faults) };
    let Ok(written) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()) else {
        members.fault("labels", "is no object: write `{\"region\": \"eu\"}`");
        return (labels, faults);
    };
    for (name, value) in written {
        let added = match serde_json::from_str::<String>(value.get()) {
            Ok(value) => labels.add(&name, &value).map_err(|why| format!("`{}` {why}", shown(&name))),
            Err(_) => Err(format!("`{}` is no text: write one in quotes", shown(value.get()))),
        };
        faults.extend(added.err().map(|why| Fault::of(&name, why).under("labels")));
    }
    (labels, faults)
}

/// What is said of a metric, whatever its type.
#[derive(Debug, Default)]
struct Given {
    value: Option<f64>,
    observe: Option<Vec<f64>>,
    buckets: Option<Vec<f64>>,
    quantiles: Option<BTreeMap<Box<str>, f64>>,
}

impl Given {
    fn read(members: &mut Members<'_>) -> Self {
        let value = numbers(members, "value", "a number, such as 1").and_then(|values| values.first().copied());
        let observe = numbers(members, "observe", "a list of numbers, such as [0.2, 1.5]");
        let buckets = numbers(members, "buckets", "a list of numbers, such as [0.1, 1, 10]");
        Self { value, observe, buckets, quantiles: quantiles(members) }
    }

    /// What that says to a metric of this kind.
    fn told(self, kind: Kind, members: &mut Members<'_>) -> Option<Told> {
        self.check(kind, members);
        let observed = self.observe.or_else(|| self.value.map(|value| vec![value])).unwrap_or_default();
        Some(match kind {
            Kind::Counter => Told::Counter(self.value?),
            Kind::Gauge => Told::Gauge(self.value?),
            Kind::Histogram => Told::Observed(observed, self.buckets.map(Arc::from)),
            Kind::Summary => Told::Summary(Summary {
                count: u64::try_from(observed.len()).unwrap_or(u64::MAX),
                sum: observed.iter().sum(),
                quantiles: self.quantiles.unwrap_or_default(),
            }),
        })
    }

    fn check(&self, kind: Kind, members: &mut Members<'_>) {
        let is_observed = matches!(kind, Kind::Histogram | Kind::Summary);
        for (name, is_there, is_for_it) in [
            ("observe", self.observe.is_some(), is_observed),
            ("buckets", self.buckets.is_some(), kind == Kind::Histogram),
            ("quantiles", self.quantiles.is_some(), kind == Kind::Summary),
        ] {
            if is_there && !is_for_it {
                members.fault(name, format!("is nothing that a {} has: leave it out", kind.as_str()));
            }
        }
        let (value, observe) = (self.value, &self.observe);
        match kind {
            _ if !members.are_well() => {}
            Kind::Counter | Kind::Gauge if value.is_none() => members.fault("value", "is missing: write a number"),
            Kind::Counter if value.is_some_and(|value| value < 0.0) => {
                members.fault("value", "is less than 0, and a counter only grows: write 0 or more, or use a gauge");
            }
            Kind::Histogram | Kind::Summary if value.is_some() && observe.is_some() => {
                members.fault("value", "there is `observe` too: write one of the two");
            }
            Kind::Histogram if value.is_none() && observe.is_none() => {
                members.fault("observe", "is missing: write a list of numbers, such as [0.2, 1.5]");
            }
            Kind::Summary if value.is_none() && observe.is_none() && self.quantiles.is_none() => {
                members.fault("observe", "is missing: write a list of numbers, or `quantiles`");
            }
            _ => {}
        }
        if let Some(buckets) = &self.buckets {
            check_bounds(buckets, members);
        }
    }
}

fn check_bounds(bounds: &[f64], members: &mut Members<'_>) {
    if bounds.is_empty() || bounds.len() > MAX_BOUNDS {
        members.fault("buckets", format!("has {} numbers: write 1 to {MAX_BOUNDS}", bounds.len()));
    } else if !bounds.windows(2).all(|pair| pair[0] < pair[1]) {
        members.fault("buckets", "does not rise: write each upper bound once, the smallest first, without infinity");
    }
}

/// The member `name`, a number or, unless it is `value`, several.
fn numbers(members: &mut Members<'_>, name: &'static str, what: &str) -> Option<Vec<f64>> {
    let raw = members.raw(name)?.get();
    let one = serde_json::from_str::<f64>(raw).ok().map(|number| vec![number]);
    let several = || if name == "value" { None } else { serde_json::from_str(raw).ok() };
    let numbers = one.or_else(several);
    if numbers.is_none() {
        members.fault(name, format!("`{}` is something else: write {what}", shown(raw)));
    }
    numbers
}

fn quantiles(members: &mut Members<'_>) -> Option<BTreeMap<Box<str>, f64>> {
    let raw = members.raw("quantiles")?.get();
    let Ok(written) = serde_json::from_str::<BTreeMap<String, f64>>(raw) else {
        members.fault("quantiles", "is no object of numbers: write `{\"0.5\": 0.12, \"0.99\": 0.8}`");
        return None;
    };
    let quantile = |name: &str| name.parse::<f64>().ok().filter(|quantile| (0.0..=1.0).contains(quantile));
    if let Some(name) = written.keys().find(|name| quantile(name).is_none()) {
        members.fault("quantiles", format!("`{}` is no quantile: write a number from 0 to 1 in quotes", shown(name)));
        return None;
    }
    if written.len() > MAX_QUANTILES {
        members.fault("quantiles", format!("has {} quantiles: write at most {MAX_QUANTILES}", written.len()));
        return None;
    }
    let spelt = |(name, value): (String, f64)| Some((quantile(&name)?.to_string().into(), value));
    Some(written.into_iter().filter_map(spelt).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the mistakes of a push are, what they say of the fix, and what they count as.
    fn mistakes(body: &str) -> Vec<(Place, Reason)> {
        let mistakes = read(body.as_bytes()).expect("JSON").expect_err(body);
        mistakes.into_iter().flatten().map(|(reason, fault)| (fault.place, reason)).collect()
    }

    #[test]
    fn one_metric_or_several_are_read() {
        let one = r#"{"name":"orders","type":"counter","value":2,"labels":{"shop":"a"},"help":"Orders"}"#;
        let readings = read(one.as_bytes()).expect("JSON").expect("a metric");
        assert_eq!((readings[0].told.clone(), &*readings[0].help), (Told::Counter(2.0), "Orders"));
        let several = format!(r#"{{"metrics":[{one},{{"name":"q","type":"gauge","value":-1.5,"unit":"s"}}]}}"#);
        let readings = read(several.as_bytes()).expect("JSON").expect("two");
        assert_eq!(readings[1].name, Name::new("q_seconds", "", Kind::Gauge).expect("a name"));
        assert!(read(br#"{"metrics":[]}"#).expect("JSON").expect("none").is_empty());
        for (told, observed) in [("\"value\":2", vec![2.0]), ("\"observe\":2", vec![2.0]), ("\"observe\":[]", vec![])] {
            let body = format!(r#"{{"name":"took","type":"histogram",{told},"buckets":[1,2]}}"#);
            let readings = read(body.as_bytes()).expect("JSON").expect("a metric");
            assert_eq!(readings[0].told, Told::Observed(observed, Some([1.0, 2.0].into())));
        }
        let body = r#"{"name":"took","type":"summary","observe":[1,2],"quantiles":{"0.50":1,"1":2}}"#;
        let readings = read(body.as_bytes()).expect("JSON").expect("a metric");
        let quantiles = [("0.5".into(), 1.0), ("1".into(), 2.0)].into();
        assert_eq!(readings[0].told, Told::Summary(Summary { count: 2, sum: 3.0, quantiles }));
    }

    #[test]
    fn every_mistake_is_found_in_its_place() {
        let long = "x".repeat(300);
        for (rule, metric, expected) in [
            ("nothing", "{}", &[("/name", Reason::Name), ("/type", Reason::Type)][..]),
            ("a name", r#"{"name":"Orders","type":"counter","value":1}"#, &[("/name", Reason::Name)]),
            ("a long one", &format!(r#"{{"name":"{long}","type":"gauge","value":1}}"#), &[("/name", Reason::Name)]),
            ("a type", r#"{"name":"a","type":"timer","value":1}"#, &[("/type", Reason::Type)]),
            ("no value", r#"{"name":"a","type":"gauge"}"#, &[("/value", Reason::Type)]),
            ("no number", r#"{"name":"a","type":"gauge","value":"1"}"#, &[("/value", Reason::Type)]),
            ("infinity", r#"{"name":"a","type":"gauge","value":1e999}"#, &[("/value", Reason::Type)]),
            ("falls", r#"{"name":"a","type":"counter","value":-1}"#, &[("/value", Reason::Type)]),
            ("another's", r#"{"name":"a","type":"gauge","value":1,"buckets":[1]}"#, &[("/buckets", Reason::Type)]),
            ("both", r#"{"name":"a","type":"histogram","value":1,"observe":[1]}"#, &[("/value", Reason::Type)]),
            ("neither", r#"{"name":"a","type":"histogram"}"#, &[("/observe", Reason::Type)]),
            ("flat", r#"{"name":"a","type":"histogram","value":1,"buckets":[1,1]}"#, &[("/buckets", Reason::Type)]),
            ("none", r#"{"name":"a","type":"histogram","value":1,"buckets":[]}"#, &[("/buckets", Reason::Type)]),
            ("quantile", r#"{"name":"a","type":"summary","quantiles":{"99":1}}"#, &[("/quantiles", Reason::Type)]),
            (
                "labels",
                r#"{"name":"a","type":"gauge","value":1,"labels":{"le":"1","b":2,"c":"well"},"lables":{}}"#,
                &[("/lables", Reason::Type), ("/labels/b", Reason::Labels), ("/labels/le", Reason::Labels)],
            ),
            ("no object", "3", &[("", Reason::Type)]),
        ] {
            let well = r#"{"name":"well","type":"gauge","value":1}"#;
            let expected: Vec<_> =
                expected.iter().map(|(at, reason)| (Place::Pointer(format!("#/metrics/1{at}")), *reason)).collect();
            assert_eq!(mistakes(&format!(r#"{{"metrics":[{well},{metric}]}}"#)), expected, "{rule}");
        }
    }
}
