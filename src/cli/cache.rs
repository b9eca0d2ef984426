//! `weir cache`: how the cache of a running weir does, and commands by which its entries die.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::admin::Asking;
use crate::cli::table::{plain, show};
use crate::units::Span;

/// What may follow `weir cache`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how the cache does: hits, what they saved, how full it is
    Stats(Asking),
    /// Show what the cache was told to do
    Config(Asking),
    /// Remove every entry
    Clear(Asking),
    /// Remove the entries for which every criterion given holds
    Invalidate(Invalidate),
}

/// Which entries are to go.
#[derive(Debug, Args)]
pub struct Invalidate {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    asking: Asking,
}

/// An entry's name is `<provider>/<model>/<namespace>/<key>`, with `-` for no model or no namespace.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Filter {
    /// Entries of the provider of this name
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Entries of this model, as the app spells it
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Entries in this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Entries older than this, such as 1h
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
    /// Entries whose name, `<provider>/<model>/<namespace or ->/<key>`, begins so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Entries whose name looks so: `*` stands for any characters, `?` for one
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
    /// The entry with this key, 64 hexadecimal digits
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Every entry
    #[arg(
        long,
        conflicts_with_all = ["provider", "model", "namespace", "older_than", "prefix", "pattern", "key"]
    )]
    all: bool,
}

impl Filter {
    fn to_json(&self) -> Value {
        let criteria = [
            ("provider", &self.provider),
            ("model", &self.model),
            ("namespace", &self.namespace),
            ("older_than", &self.older_than.map(|span| span.to_string())),
            ("prefix", &self.prefix),
            ("pattern", &self.pattern),
            ("key", &self.key),
        ];
        let given = criteria.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        Value::Object(given.collect())
    }
}

/// Asks the running weir.
///
/// # Errors
/// If it does not answer, or says no.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Stats(Asking { json, admin }) => show(*json, &admin.get("/api/v1/cache/stats")?, stats),
        Command::Config(Asking { json, admin }) => show(*json, &admin.get("/api/v1/cache/config")?, settings),
        Command::Clear(arguments) => clear(arguments),
        Command::Invalidate(Invalidate { filter, asking }) if filter.all => clear(asking),
        Command::Invalidate(Invalidate { filter, asking: Asking { json, admin } }) => {
            show(*json, &admin.post("/api/v1/cache/invalidate", &filter.to_json())?, removed)
        }
    }
}

fn clear(Asking { json, admin }: &Asking) -> anyhow::Result<ExitCode> {
    show(*json, &admin.post("/api/v1/cache/clear", &json!({}))?, removed)
}

fn removed(answer: &Value) -> String {
    let others = if answer["other_instances"] == true { "; other instances remove theirs" } else { "" };
    match answer["removed"].as_u64().unwrap_or_default() {
        1 => format!("1 entry removed{others}\n"),
        count => format!("{count} entries removed{others}\n"),
    }
}

fn stats(answer: &Value) -> String {
    let saved = &answer["saved"];
    let mut text = row("requests", &counts(&answer["requests"]));
    text += &row("hit ratio", &percent(&answer["hit_ratio"]));
    text += &row("saved", &format!("{} tokens, {} USD", saved["tokens"], plain(&saved["usd"])));
    text += &row("commands", &counts(&answer["invalidations"]));
    for (name, backend) in answer["backends"].as_object().into_iter().flatten() {
        let (entries, bytes, capacity) = (&backend["entries"], &backend["bytes"], &backend["capacity_bytes"]);
        text += &row(name, &format!("{entries} entries, {bytes} of {capacity} bytes"));
        for part in ["lookups", "evictions", "stores"] {
            text += &row(&format!("  {part}"), &counts(&backend[part]));
        }
    }
    text
}

/// Every knob on a line of its own, under its path.
fn settings(answer: &Value) -> String {
    fn walk(path: &str, value: &Value, text: &mut String) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, value) in members {
                    walk(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, text);
                }
            }
            other => {
                // Writing to memory does not fail.
                let _ = writeln!(text, "{path}: {}", plain(other));
            }
        }
    }
    let mut text = String::new();
    walk("", answer, &mut text);
    text
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<12} {value}\n")
}

fn counts(counts: &Value) -> String {
    let none = Map::new();
    let each = counts.as_object().unwrap_or(&none).iter().map(|(name, count)| format!("{name} {count}"));
    each.collect::<Vec<_>>().join(", ")
}

fn percent(ratio: &Value) -> String {
    ratio.as_f64().map_or_else(|| "no look-up yet".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_for_people() {
        let answer = json!({
            "requests": {"hit": 3, "miss": 1}, "hit_ratio": 0.75, "saved": {"tokens": 45, "usd": "0.02"},
            "invalidations": {"all": 1},
            "backends": {"memory": {
                "entries": 2, "bytes": 10, "capacity_bytes": 100,
                "lookups": {"hit": 3}, "evictions": {"size": 0}, "stores": {"stored": 2},
            }},
        });
        assert_eq!(
            stats(&answer),
            "requests     hit 3, miss 1\n\
             hit ratio    75.0 %\n\
             saved        45 tokens, 0.02 USD\n\
             commands     all 1\n\
             memory       2 entries, 10 of 100 bytes\n\
             \x20 lookups    hit 3\n\
             \x20 evictions  size 0\n\
             \x20 stores     stored 2\n"
        );
        assert_eq!(percent(&Value::Null), "no look-up yet");
        assert_eq!(
            settings(&json!({"ttl": "1h", "redis": {"url": null, "keys": []}})),
            "ttl: 1h\nredis.url: null\nredis.keys: []\n"
        );
        assert_eq!(
            removed(&json!({"removed": 1, "other_instances": true})),
            "1 entry removed; other instances remove theirs\n"
        );
        assert_eq!(removed(&json!({"removed": 0, "other_instances": false})), "0 entries removed\n");
    }
}
