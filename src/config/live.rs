//! Live: which knobs a running weir can change, and what changes from one configuration to the next.
//!
//! Every knob is one or the other: what is not named here as needing a restart is live, and a test of the whole house
//! holds each to it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cache::policy::Mode;
use crate::config::knob::{Kind, Knob};
use crate::config::mistake::Path;

/// The knobs, and sections of them, that stay as they are until weir is started again.
pub const NEED_RESTART: &[&str] = &[
    // Sockets, and what was agreed with those who are connected.
    "listen",
    "admin.listen",
    "connections",
    // What was laid out at the start for the machine.
    "memory_limit",
    "worker_threads",
    // Read by `weir inject`, not by what runs beside an app.
    "inject",
    // What is held in memory was laid out for them.
    "cache.max_entries",
    "cache.max_bytes",
    "cache.max_entry_bytes",
    "cache.eviction",
    "cache.similar",
    "loops.max_runs",
    "telemetry.semconv",
    "telemetry.metrics",
    // Files and servers that weir is at work with.
    "cache.redis",
    "cache.recordings",
    "ledger",
    "state_dir",
    "telemetry.traces",
    "telemetry.log.format",
    "telemetry.log.level",
    // Names that stand in what was written, and patterns that the log's own writer has.
    "privacy.user_ids",
    "privacy.user_id_key_file",
    "privacy.patterns",
];

/// What changes from one configuration to the next, by knob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is taken.
    pub taken: Vec<String>,
    /// What is not taken until weir is started again.
    pub need_restart: Vec<String>,
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub const fn are_none(&self) -> bool {
        self.taken.is_empty() && self.need_restart.is_empty()
    }
}

/// The `wanted` values of all knobs, but for those that need a restart, which stay as they are in `running`.
pub(super) fn onto(running: &Value, wanted: &Value) -> (Value, Changes) {
    let (mut knobs, mut changes) = (wanted.clone(), Changes::default());
    walk(Knob::root(), &Path::default(), running, &mut knobs, &mut changes);
    (knobs, changes)
}

fn walk(knob: Knob, path: &Path, running: &Value, wanted: &mut Value, changes: &mut Changes) {
    if running == wanted {
        return;
    }
    if let (Kind::Section | Kind::Names, Value::Object(running), Value::Object(wanted)) =
        (knob.kind(), running, &mut *wanted)
    {
        for name in names(running, wanted) {
            let Some(child) = knob.child(&name) else { continue };
            let was = running.get(&name).unwrap_or(&Value::Null);
            walk(child, &path.name(&name), was, wanted.entry(&name).or_insert(Value::Null), changes);
        }
        wanted.retain(|name, value| !value.is_null() || running.get(name).is_none_or(Value::is_null));
        return;
    }
    if needs_restart(path, running, wanted) {
        changes.need_restart.push(path.to_string());
        *wanted = running.clone();
    } else {
        changes.taken.push(path.to_string());
    }
}

fn names(running: &Map<String, Value>, wanted: &Map<String, Value>) -> BTreeSet<String> {
    running.keys().chain(wanted.keys()).cloned().collect()
}

fn needs_restart(path: &Path, running: &Value, wanted: &Value) -> bool {
    let is_for_tests = |mode: &Value| serde_json::from_value(mode.clone()).is_ok_and(Mode::is_for_tests);
    let mode = Path::of(["cache", "mode"]);
    // Recordings are opened at the start, and nothing is shared beside them.
    (*path == mode && (is_for_tests(running) || is_for_tests(wanted)))
        || NEED_RESTART.iter().any(|knob| path.is_within(&Path::of(knob.split('.'))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Flag, Sources};

    fn config(set: &[(&str, &str)]) -> Config {
        let flag = |(path, value): &(&str, &str)| Flag { name: "--set", path: (*path).into(), value: (*value).into() };
        let sources = Sources { flags: set.iter().map(flag).collect(), ..Sources::default() };
        Config::load(&sources).expect("it is right")
    }

    fn all(knobs: &[String]) -> String {
        knobs.join(" ")
    }

    #[test]
    fn every_change_is_named_and_what_needs_a_restart_stays() {
        for (rule, running, wanted, taken, stays) in [
            ("nothing", &[][..], &[][..], &[][..], &[][..]),
            ("a value", &[("cache.ttl", "1m")], &[("cache.ttl", "2m")], &["cache.ttl"], &[]),
            ("a default again", &[("cache.ttl", "1m")], &[], &["cache.ttl"], &[]),
            ("an address", &[], &[("listen", "127.0.0.1:1")], &[], &["listen"]),
            (
                "some of it",
                &[],
                &[("cache.max_bytes", "1MiB"), ("cache.mode", "off")],
                &["cache.mode"],
                &["cache.max_bytes"],
            ),
            ("a whole section", &[], &[("ledger.retention", "1h")], &[], &["ledger.retention"]),
            ("a new section", &[], &[("cache.recordings", "/r")], &[], &["cache.recordings"]),
            ("one that goes", &[("cache.recordings", "/r")], &[], &[], &["cache.recordings"]),
            (
                "a provider that comes",
                &[],
                &[("providers.local", "{ api: openai, base_url: \"http://h\" }")],
                &["providers.local"],
                &[],
            ),
            (
                "one that goes again",
                &[("providers.local", "{ api: openai, base_url: \"http://h\" }")],
                &[],
                &["providers.local"],
                &[],
            ),
            (
                "recordings",
                &[],
                &[("cache.mode", "record"), ("cache.recordings", "/r")],
                &[],
                &["cache.mode", "cache.recordings"],
            ),
        ] {
            let (running, wanted) = (config(running), config(wanted));
            let (onto, changes) = wanted.clone().onto(&running).expect("it fits");
            assert_eq!((all(&changes.taken), all(&changes.need_restart)), (taken.join(" "), stays.join(" ")), "{rule}");
            let (_, rest) = onto.clone().onto(&running).expect("it fits");
            assert_eq!((all(&rest.taken), rest.need_restart.len()), (taken.join(" "), 0), "{rule}: the others stay");
            let (_, missing) = wanted.onto(&onto).expect("it fits");
            assert_eq!((missing.taken.len(), all(&missing.need_restart)), (0, stays.join(" ")), "{rule}: still wanted");
        }
    }

    #[test]
    fn what_needs_a_restart_is_a_knob() {
        for knob in NEED_RESTART {
            let found = knob.split('.').try_fold(Knob::root(), Knob::child);
            assert!(found.is_some(), "{knob}");
        }
    }
}
