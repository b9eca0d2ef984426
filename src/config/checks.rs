//! Checks: does what was written make sense? Each rule notes its mistakes and goes on, so that all are found at once.
//!
//! Knows the settings and the machine it runs on (files, variables); not what the rooms will do with them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path as FilePath;

use http::HeaderName;
use serde_json::Value;
use tracing_subscriber::EnvFilter;

use crate::cache::policy::Mode;
use crate::cache::similar;
use crate::config::file::File;
use crate::config::knob::{Kind, Knob};
use crate::config::mistake::{Mistake, Path, Step, shown};
use crate::config::tree::Tree;
use crate::config::{access, inject, limits, providers, yaml};
use crate::pattern::nearest;
use crate::provider::KNOWN;
use crate::runs::run::WINDOW;
use crate::sinks::traces::plan::Planned;
use crate::units::Span;
use crate::warm::lines::Lines;
use crate::{ledger, runs, store, upstream};

/// Counts for which zero means something: none kept, none named. Elsewhere zero is a slip that stops everything.
const MAY_BE_ZERO: &[&str] = &[
    "cache.stale_while_revalidate",
    "cache.rules.stale_while_revalidate",
    "cache.redis.compress_above",
    "cache.similar.verify",
    "limits.wait",
    "budgets.limit_usd",
    "budgets.unpriced_usd",
    "calls.max_estimate_bytes",
    "calls.max_request_bytes_in_all",
    "calls.max_reply_bytes_in_all",
    "connections.linger",
    "upstream.pool_max_idle",
    "upstream.retries.max",
    "upstream.retries.base_delay",
    "upstream.retries.max_wait",
    "upstream.retries.budget.per_minute",
    "telemetry.metrics.max_models",
    "telemetry.metrics.max_agents",
    "telemetry.metrics.max_consumers",
    "telemetry.metrics.max_cache_namespaces",
    "telemetry.metrics.max_loop_types",
    "telemetry.metrics.max_tools",
    "loops.repeats",
];

/// The longest span that makes sense. Far longer ones could not be added to the time of day.
const LONGEST: Span = Span::from_secs(10 * 366 * 24 * 3600);

/// More retries of one call than this help nobody: with the longest delays, its app has given up by then.
const MOST_RETRIES: u32 = 10;

/// Headers with a meaning of their own, which cannot say who asks: weir does not forward those that do.
const NOT_FOR_IDENTITY: &[&str] = &[
    "accept",
    "accept-encoding",
    "anthropic-version",
    "api-key",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "x-api-key",
    "x-cache-ttl",
];

/// The mistakes found so far, and what is needed to find more.
#[derive(Debug)]
pub(super) struct Checks<'a> {
    tree: &'a Tree,
    environment: &'a BTreeMap<String, String>,
    mistakes: Vec<Mistake>,
}

impl<'a> Checks<'a> {
    /// Goes on from `mistakes`, those of shape.
    pub(super) fn new(tree: &'a Tree, environment: &'a BTreeMap<String, String>, mistakes: Vec<Mistake>) -> Self {
        Self { tree, environment, mistakes }
    }

    /// All that was found.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }

    /// Notes a mistake, unless there is one of the same value: what is missing because it was wrong is not missing.
    pub(super) fn note(&mut self, path: Path, message: impl Into<String>) {
        if self.mistakes.iter().all(|known| known.path != path) {
            self.mistakes.push(Mistake { origin: self.tree.origin(&path), path, message: message.into() });
        }
    }

    /// The value of an environment variable.
    pub(super) fn variable(&self, name: &str) -> Option<&'a str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Whether `file`, which `path` names, holds something; `what` is missing otherwise.
    pub(super) fn secret_file(&mut self, path: Path, file: &FilePath, what: &str) -> bool {
        let fault = match std::fs::read_to_string(file) {
            Ok(secret) if !secret.trim().is_empty() => return true,
            Ok(_) => format!("the file is empty: it must hold the {what}"),
            Err(error) => format!("the file cannot be read: {error}"),
        };
        self.note(path, fault);
        false
    }

    /// Checks everything but the providers.
    pub(super) fn settings(&mut self, file: &File) {
        let written = file.to_value();
        let default = File::default().to_value();
        self.knobs(&Path::default(), Knob::root(), &written, &default);
        if overlap(file.listen, file.admin.listen) {
            let message = format!("{} is taken by `listen`: write another port", file.admin.listen);
            self.note(Path::of(["admin", "listen"]), message);
        }
        access::check(&file.admin, self);
        inject::check(file, self);
        if file.cache.max_entry_bytes > file.cache.max_bytes && file.cache.max_bytes.bytes() > 0 {
            let message = format!("must not be more than `cache.max_bytes`, which is {}", file.cache.max_bytes);
            self.note(Path::of(["cache", "max_entry_bytes"]), message);
        }
        self.cache_rules(file);
        limits::check(file, self);
        if let Some(redis) = &file.cache.redis {
            self.redis(redis);
        }
        if file.cache.mode.is_for_tests() && file.cache.recordings.is_none() {
            let mode = if file.cache.mode == Mode::Record { "record" } else { "replay" };
            let message = format!(
                "is missing, and needed with `cache.mode: {mode}`: write the directory of the recordings, such as \
                 tests/recordings"
            );
            self.note(Path::of(["cache", "recordings"]), message);
        }
        self.similar(&file.cache.similar);
        if file.loops.repeats == 1 || file.loops.repeats > WINDOW {
            let message = format!(
                "must be from 2 to {WINDOW}, the calls that are compared, or 0 for never: the default is {}",
                runs::Settings::default().repeats
            );
            self.note(Path::of(["loops", "repeats"]), message);
        }
        for (knob, size) in [("max_bytes", file.ledger.max_bytes), ("memory_max_bytes", file.ledger.memory_max_bytes)] {
            if size.bytes() > 0 && size < ledger::LEAST_BYTES {
                let message = format!("must not be less than {}, for less holds hardly a call", ledger::LEAST_BYTES);
                self.note(Path::of(["ledger", knob]), message);
            }
        }
        if let Err(message) = log_filter(&file.telemetry.log.level) {
            self.note(Path::of(["telemetry", "log", "level"]), message);
        }
        for (position, warm) in file.warm.iter().enumerate() {
            if let Err(error) = Lines::check(&warm.file) {
                let path = Path::of(["warm"]).position(position).name("file");
                self.note(path, format!("{:#}", anyhow::Error::new(error)));
            }
        }
        self.resilience(&file.upstream);
        for (position, ca_file) in file.upstream.ca_files.iter().enumerate() {
            if let Err(error) = std::fs::read(ca_file) {
                let message = format!("{} cannot be read: {error}", shown(&ca_file.display().to_string()));
                self.note(Path::of(["upstream", "ca_files"]).position(position), message);
            }
        }
    }

    /// What of retries and breakers makes no sense.
    fn resilience(&mut self, settings: &upstream::Settings) {
        let upstream::Settings { retries, breaker, .. } = settings;
        let knob = |section, name| Path::of(["upstream", section, name]);
        if retries.max > MOST_RETRIES {
            self.note(knob("retries", "max"), format!("is more than helps: write at most {MOST_RETRIES}"));
        }
        if retries.max > 0 && retries.on.is_empty() {
            let message = "is empty, so that nothing is tried again: write `connect` or another word, or `max: 0`";
            self.note(knob("retries", "on"), message);
        }
        if retries.base_delay > retries.max_delay {
            let message = format!("must not be less than `base_delay`, which is {}", retries.base_delay);
            self.note(knob("retries", "max_delay"), message);
        }
        if breaker.failure_rate.get() == 0.0 {
            self.note(knob("breaker", "failure_rate"), "must be more than zero: the default is 0.5");
        }
    }

    /// What of traces makes no sense.
    pub(super) fn traces(&mut self, planned: &Planned) {
        for (knob, message) in &planned.mistakes {
            self.note(Path::of(["telemetry", "traces", knob]), message);
        }
    }

    /// Whether there is a provider of this name.
    pub(super) fn provider(&mut self, file: &File, path: Path, name: Option<&str>) {
        let mut names = file.providers.keys().map(String::as_str).chain(KNOWN.iter().map(|known| known.name));
        let Some(name) = name.filter(|name| !names.clone().any(|known| known == *name)) else { return };
        let fix = match nearest(name, &mut names) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "write the name of one of `providers`".to_owned(),
        };
        self.note(path, format!("there is no provider {}: {fix}", shown(name)));
    }

    /// Whether all of what is written below `path` could be read; what was left out has been reported.
    pub(super) fn is_whole(&self, path: &Path) -> bool {
        self.mistakes.iter().all(|known| !known.path.is_within(path))
    }

    /// Whether each rule of the cache is for somebody, and says something.
    fn cache_rules(&mut self, file: &File) {
        for (position, rule) in file.cache.rules.iter().enumerate() {
            let path = Path::of(["cache", "rules"]).position(position);
            self.provider(file, path.name("provider"), rule.provider.as_deref());
            if rule.mode.is_some_and(Mode::is_for_tests) {
                self.note(path.name("mode"), "holds for all calls or for none: write it as `cache.mode`");
            }
            if self.is_whole(&path) && !rule.sets_anything() {
                self.note(path, "sets nothing: write `mode`, `ttl` or `stale_while_revalidate`");
            }
        }
    }

    /// What the shared store needs, as far as that can be told without asking it.
    fn redis(&mut self, redis: &store::Settings) {
        const SCHEMES: [&str; 5] = ["redis://", "rediss://", "valkey://", "valkeys://", "redis+unix://"];
        let knob = |name| Path::of(["cache", "redis", name]);
        match (&redis.url, &redis.url_file) {
            (None, None) => self.note(knob("url"), "is missing: write one such as redis://127.0.0.1:6379"),
            (Some(_), Some(_)) => self.note(knob("url_file"), "`url` is set as well: remove one of them"),
            // Not shown: it may hold a password.
            (Some(url), None) if !SCHEMES.iter().any(|scheme| url.trim().starts_with(scheme)) => {
                self.note(knob("url"), "is no URL of a server: write one such as redis://127.0.0.1:6379");
            }
            _ => {}
        }
        if redis.secret_file.is_none() {
            self.note(knob("secret_file"), "is missing: name a file that holds what `openssl rand -hex 32` prints");
        }
        let is_plain = |one: char| one.is_ascii_alphanumeric() || "-_.:/".contains(one);
        if redis.prefix.is_empty() || !redis.prefix.chars().all(is_plain) {
            self.note(knob("prefix"), "is part of the names of keys: write letters, digits and any of -_.:/");
        }
        let files = [
            ("url_file", &redis.url_file),
            ("password_file", &redis.password_file),
            ("ca_file", &redis.ca_file),
            ("secret_file", &redis.secret_file),
        ];
        for (name, file) in files {
            if let Some(Err(error)) = file.as_ref().map(std::fs::read) {
                let path = file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
                self.note(knob(name), format!("{} cannot be read: {error}", shown(&path)));
            }
        }
    }

    /// What `cache.similar` needs, once it is turned on by its URL.
    fn similar(&mut self, settings: &similar::Settings) {
        let path = Path::of(["cache", "similar"]);
        let Some(url) = &settings.url else {
            let others = [("model", settings.model.is_some()), ("api_key_file", settings.api_key_file.is_some())];
            for (name, _) in others.into_iter().filter(|(_, is_set)| *is_set) {
                self.note(path.name(name), "has no effect without `cache.similar.url`: add that, or remove this");
            }
            return;
        };
        if let Err(message) = providers::base_url(url) {
            self.note(path.name("url"), message);
        }
        if settings.model.as_deref().is_none_or(|model| model.trim().is_empty()) {
            self.note(path.name("model"), "is missing: write the embedding model, as the endpoint calls it");
        }
        providers::key(settings.api_key_file.as_deref(), settings.api_key_env.as_deref(), &path, self);
        for (name, share) in [("threshold", settings.threshold), ("verify_threshold", settings.verify_threshold)] {
            if share.get() == 0.0 {
                self.note(path.name(name), "must be more than zero: everything is as near as that");
            }
        }
    }

    /// The rules that hold for every knob of a kind, so that a new knob need not be named here.
    fn knobs(&mut self, path: &Path, knob: Knob, written: &Value, default: &Value) {
        match (knob.kind(), written) {
            (Kind::Section, _) => {
                for (name, child) in knob.children() {
                    self.knobs(&path.name(name), child, &written[name], &default[name]);
                }
            }
            (Kind::List, Value::Array(items)) => {
                for (position, item) in items.iter().enumerate() {
                    self.knobs(&path.position(position), knob.item(), item, &Value::Null);
                }
            }
            (Kind::Number, Value::Number(number)) if number.as_u64() == Some(0) => self.zero(path, default),
            (Kind::Quantity, Value::String(text)) if text == "0" || text == "0s" => self.zero(path, default),
            (Kind::Quantity, Value::String(text)) if text.parse::<Span>().is_ok_and(|span| span > LONGEST) => {
                self.note(path.clone(), "is too long: write at most 10 years");
            }
            (Kind::Text, Value::String(name)) if path.to_string().ends_with("_header") => {
                if HeaderName::from_bytes(name.as_bytes()).is_err() {
                    self.note(
                        path.clone(),
                        format!("{} is not a header name: write one such as {}", shown(name), yaml::write(default)),
                    );
                } else if NOT_FOR_IDENTITY.contains(&name.to_ascii_lowercase().as_str()) {
                    self.note(
                        path.clone(),
                        format!("`{name}` has another meaning: write one such as {}", yaml::write(default)),
                    );
                }
            }
            _ => {}
        }
    }

    fn zero(&mut self, path: &Path, default: &Value) {
        let names = path.steps().iter().filter_map(|step| match step {
            Step::Name(name) => Some(name.as_str()),
            Step::Position(_) => None,
        });
        if MAY_BE_ZERO.contains(&names.collect::<Vec<_>>().join(".").as_str()) {
            return;
        }
        let message = match default {
            Value::Null => "must be more than zero".to_owned(),
            default => format!("must be more than zero: the default is {}", yaml::write(default)),
        };
        self.note(path.clone(), message);
    }
}

/// Whether two addresses cannot both be listened on.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_ip
}

fn log_filter(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let fix = "write error, warn, info, debug, trace, or a filter such as weir=debug,hyper=warn";
    // `EnvFilter` takes a single unknown word for the name of a crate, and then says nothing else: a mistyped level
    // would silence weir.
    let is_level = |word: &str| LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    let unclear = filter.split(',').any(|part| !part.contains(['=', '[', ']', '{', '}']) && !is_level(part));
    if unclear || EnvFilter::try_new(filter).is_err() {
        return Err(format!("{} is not a log filter: {fix}", shown(filter)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_listeners_need_two_ports() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (one, other) = (one.parse().expect("an address"), other.parse().expect("an address"));
            assert_eq!(overlap(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_log_filter_is_levels_and_targets() {
        for filter in ["info", "WARN", "off", "weir=debug,hyper=warn", "info,weir::cache=trace", "[span]=debug"] {
            assert_eq!(log_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "verbose", "weir=loud", "weir=debug,", "weir=="] {
            assert!(log_filter(filter).is_err(), "{filter}");
        }
    }
}
