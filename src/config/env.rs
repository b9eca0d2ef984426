//! Environment: every knob is also a variable. `WEIR_CACHE__MODE=off` is `cache: { mode: off }`: `WEIR_`, then the
//! names on the way, joined by two underscores, in any case.
//!
//! Knows names; what may be written is the business of `config::knob`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::config::knob::Knob;
use crate::config::mistake::{Mistake, Origin, Path};
use crate::config::tree::Tree;

/// What the variables of weir begin with.
const PREFIX: &str = "WEIR_";
/// The variable that holds YAML, to be laid below the file.
pub(super) const DEFAULTS: &str = "WEIR_DEFAULTS";

/// Lays the `WEIR_…` variables of `environment` over `tree`. An empty variable counts as unset, as in the
/// OpenTelemetry specification. Returns the names that lead to no knob.
pub(super) fn apply(
    environment: &BTreeMap<String, String>,
    tree: &mut Tree,
    mistakes: &mut Vec<Mistake>,
) -> Vec<String> {
    let mut unknown = Vec::new();
    for (variable, text) in environment {
        let Some(names) = names(variable) else { continue };
        let Some((path, knob)) = tree.locate(&names) else {
            if !is_service_link(variable, text) {
                unknown.push(variable.clone());
            }
            continue;
        };
        if text.is_empty() {
            continue;
        }
        let origin = Origin::Environment(variable.clone());
        match knob.read(text) {
            Ok(value) => tree.set(&path, value, origin),
            Err(message) => mistakes.push(Mistake { origin, path, message }),
        }
    }
    unknown
}

/// The mistake of a variable that leads to no knob.
pub(super) fn unknown(variable: &str) -> Mistake {
    let names = names(variable).unwrap_or_default();
    let message = match Knob::nearest(&names) {
        Some(meant) => format!("unknown name: did you mean {PREFIX}{}?", meant.join("__").to_uppercase()),
        None => "unknown name: `weir config default` shows them all".to_owned(),
    };
    let path = Path::of(names.iter().map(String::as_str));
    Mistake { origin: Origin::Environment(variable.to_owned()), path, message }
}

/// The path by names that a variable stands for; `None` if it is not about a knob.
fn names(variable: &str) -> Option<Vec<String>> {
    let (prefix, rest) = variable.split_at_checked(PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    match rest.to_lowercase().as_str() {
        // The variables behind `--config` and `--config-if-present`, and the token of the admin side: read by the command
        // line; and what is laid below the file.
        "config" | "config_if_present" | "admin_token" | "defaults" => None,
        // The variable behind `--log`.
        "log" => Some(["telemetry", "log", "level"].map(str::to_owned).to_vec()),
        rest => Some(rest.split("__").map(str::to_owned).collect()),
    }
}

/// Whether Kubernetes set the variable, to lead to a Service called `weir` or `weir-…`:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_service_link(variable: &str, text: &str) -> bool {
    static LINK: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^WEIR_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
            .expect("the pattern is valid")
    });
    static ADDRESS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(tcp|udp|sctp)://").expect("the pattern is valid"));
    LINK.is_match(variable) || variable.ends_with("_PORT") && ADDRESS.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_stands_for_a_path_by_names() {
        for (variable, expected) in [
            ("WEIR_LISTEN", Some("listen")),
            ("WEIR_CACHE__MAX_ENTRIES", Some("cache.max_entries")),
            ("weir_cache__mode", Some("cache.mode")),
            ("WEIR_LOG", Some("telemetry.log.level")),
            ("WEIR_CONFIG", None),
            ("WEIR_CONFIG_IF_PRESENT", None),
            ("WEIR_DEFAULTS", None),
            ("WEIR_ADMIN_TOKEN", None),
            ("WEIRD_LISTEN", None),
            ("PATH", None),
        ] {
            assert_eq!(names(variable).map(|names| names.join(".")).as_deref(), expected, "{variable}");
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_is_no_mistake() {
        for (variable, text) in [
            ("WEIR_SERVICE_HOST", "10.0.0.1"),
            ("WEIR_SERVICE_PORT", "9347"),
            ("WEIR_SERVICE_PORT_ADMIN", "9348"),
            ("WEIR_PORT", "tcp://10.0.0.1:9347"),
            ("WEIR_PORT_9347_TCP", "tcp://10.0.0.1:9347"),
            ("WEIR_PORT_9347_TCP_PROTO", "tcp"),
            ("WEIR_PORT_9347_TCP_PORT", "9347"),
            ("WEIR_PORT_9347_TCP_ADDR", "10.0.0.1"),
            ("WEIR_INJECT_SERVICE_HOST", "10.0.0.1"),
            ("WEIR_INJECT_PORT", "tcp://10.0.0.1:443"),
        ] {
            assert!(is_service_link(variable, text), "{variable}");
        }
        for (variable, text) in [("WEIR_PORT", "9347"), ("WEIR_HOST", "10.0.0.1"), ("WEIR_PORTS_9347_TCP", "x")] {
            assert!(!is_service_link(variable, text), "{variable}");
        }
    }
}
