//! Limits: does what was written of limits and budgets make sense? Notes every mistake there is.

use crate::config::checks::Checks;
use crate::config::file::File;
use crate::config::mistake::{Path, shown};
use crate::config::providers;
use crate::limits::budget::{self, Enforce};
use crate::limits::rate;

/// The longest name, which becomes the value of a label.
const LONGEST_NAME: usize = 64;

/// Where the names of rules stand.
const IN_METRICS: &str = "metrics and in refusals";

/// Checks all of them.
pub(super) fn check(file: &File, checks: &mut Checks<'_>) {
    for (position, limit) in file.limits.iter().enumerate() {
        let path = Path::of(["limits"]).position(position);
        let earlier = file.limits[..position].iter().map(|earlier| earlier.name.as_str());
        name(&limit.name, IN_METRICS, earlier, &path, checks);
        checks.provider(file, path.name("match").name("provider"), limit.matching.provider.as_deref());
        rates(limit, &path, checks);
    }
    for (position, budget) in file.budgets.iter().enumerate() {
        let path = Path::of(["budgets"]).position(position);
        let earlier = file.budgets[..position].iter().map(|earlier| earlier.name.as_str());
        name(&budget.name, IN_METRICS, earlier, &path, checks);
        checks.provider(file, path.name("match").name("provider"), budget.matching.provider.as_deref());
        money(budget, &path, checks);
    }
    fleet_spend(file, checks);
}

/// A rule's name is how all that happens to it is told; `stands` says where.
pub(super) fn name<'a>(
    name: &str,
    stands: &str,
    mut earlier: impl Iterator<Item = &'a str>,
    path: &Path,
    checks: &mut Checks<'_>,
) {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "-_.".contains(one);
    let fault = if name.is_empty() {
        format!("is missing: it stands in {stands}")
    } else if name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
        format!("{} is no name: write up to {LONGEST_NAME} letters, digits and any of -_.", shown(name))
    } else if earlier.any(|known| known == name) {
        format!("`{name}` is the name of an earlier one: write another")
    } else {
        return;
    };
    checks.note(path.name("name"), fault);
}

fn rates(limit: &rate::Settings, path: &Path, checks: &mut Checks<'_>) {
    if checks.is_whole(path) && !limit.limits_anything() {
        checks.note(
            path.clone(),
            "limits nothing: write one such as `requests_per_minute`, `tokens_per_minute` or `concurrent_calls`",
        );
    }
    if limit.count_hits && limit.limits_tokens() {
        let message = "what the cache answers takes no tokens: limit tokens in a rule of its own, without this";
        checks.note(path.name("count_hits"), message);
    }
}

fn money(budget: &budget::Settings, path: &Path, checks: &mut Checks<'_>) {
    if checks.is_whole(path) && budget.limit_usd.is_none() && budget.limit_tokens.is_none() {
        checks.note(path.clone(), "limits nothing: write `limit_usd` or `limit_tokens`");
    }
    let downgrades = budget.enforce == Enforce::Downgrade;
    let fault = match &budget.downgrade_to {
        None if downgrades => "is missing, and needed with `enforce: downgrade`: write the cheaper model",
        Some(model) if downgrades && model.trim().is_empty() => "is empty: write the cheaper model",
        Some(_) if !downgrades => "has no effect without `enforce: downgrade`: add that, or remove this",
        _ => "",
    };
    if !fault.is_empty() {
        checks.note(path.name("downgrade_to"), fault);
    }
    if budget.stop_streams && budget.enforce != Enforce::Block {
        checks.note(path.name("stop_streams"), "has no effect without `enforce: block`: add that, or remove this");
    }
    for (place, threshold) in budget.thresholds.iter().enumerate() {
        if !(1..=1000).contains(threshold) {
            let message = format!("{threshold} is no percentage that is worth a line: write one from 1 to 1000");
            checks.note(path.name("thresholds").position(place), message);
        }
    }
}

/// What it takes to read from Prometheus what all instances spend, once its URL turns that on.
fn fleet_spend(file: &File, checks: &mut Checks<'_>) {
    let (settings, path) = (&file.fleet_spend, Path::of(["fleet_spend"]));
    let Some(url) = &settings.prometheus_url else {
        let others = [
            ("match", settings.matching.is_some()),
            ("query", settings.query.is_some()),
            ("bearer_token_file", settings.bearer_token_file.is_some()),
        ];
        for (name, _) in others.into_iter().filter(|(_, is_set)| *is_set) {
            checks
                .note(path.name(name), "has no effect without `fleet_spend.prometheus_url`: add that, or remove this");
        }
        return;
    };
    if let Err(message) = providers::url(url, "http://prometheus:9090", "bearer_token_file") {
        checks.note(path.name("prometheus_url"), message);
    }
    let example = r#"write matchers such as namespace="shop", job="weir""#;
    match settings.matching.as_deref().map(str::trim) {
        None | Some("") => {
            let message = format!("is missing, so that other apps' spending would count: {example}");
            checks.note(path.name("match"), message);
        }
        Some(text) if text.contains(['{', '}']) || !text.contains('=') => {
            checks.note(path.name("match"), format!("{} are no label matchers: {example}", shown(text)));
        }
        Some(_) => {}
    }
    if settings.keep_for < settings.interval {
        let message = format!("must not be less than `fleet_spend.interval`, which is {}", settings.interval);
        checks.note(path.name("keep_for"), message);
    }
    if let Some(file) = &settings.bearer_token_file {
        checks.secret_file(path.name("bearer_token_file"), file, "token");
    }
}
