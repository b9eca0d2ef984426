//! `weir what-if`: what past calls would have cost at another model, on another tier, with prompts cached.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::Value;

use crate::cli::ledger::{Asked, Source, query, spelt};
use crate::cli::print;
use crate::cli::table::{columns, plain};
use crate::export::stream::Selection;
use crate::ledger::page::Direction;
use crate::price::{Prices, Settings};
use crate::whatif::Weighing;
use crate::whatif::choice::Choice;

/// What may follow `weir what-if`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A model to have asked instead: `gpt-5-mini`, of whatever provider a call was sent to, or
    /// `anthropic/claude-haiku-4-5`; may be repeated
    #[arg(long, value_name = "[PROVIDER/]MODEL")]
    model: Vec<String>,
    /// Only calls for this model
    #[arg(long, value_name = "NAME")]
    of_model: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// With `--ledger`: a file laid over the built-in price table, `prices.overlay`
    #[arg(long, value_name = "FILE", env = "WEIR_PRICES__OVERLAY")]
    overlay: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    source: Source,
}

/// Weighs, or has the running weir weigh.
///
/// # Errors
/// If the ledger cannot be asked, or nobody lists a model.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    let answer = if let Some(reader) = arguments.source.file()? {
        let Selection { window, filter } = arguments.asked.selection(arguments.of_model.as_deref(), now);
        let prices = Prices::load(&Settings { overlay: arguments.overlay.clone() }, Vec::new())?;
        let choices = Choice::all(&arguments.model, &prices).map_err(|problem| anyhow!("--model: {problem}"))?;
        let walk = reader.walk(window, &filter, Direction::Newest);
        let answer = Weighing::of(walk, &prices, choices, None).context("cannot ask the ledger")?;
        serde_json::to_value(answer)?
    } else {
        let of_model = arguments.of_model.iter().map(|model| ("of_model", model.clone()));
        let models = Some(arguments.model.join(",")).filter(|models| !models.is_empty());
        let pairs: Vec<_> = of_model.chain(models.map(|models| ("model", models))).collect();
        let pairs = [query(&arguments.asked.selection(None, now)), spelt(&pairs)].join("&");
        arguments.source.admin.get(&format!("/api/v1/cost/what-if?{}", pairs.trim_end_matches('&')))?
    };
    print(&if arguments.json { format!("{answer:#}\n") } else { in_words(&answer)? })
}

/// A row for each alternative, then what to know of each.
fn in_words(answer: &Value) -> Result<String, fmt::Error> {
    let none = Vec::new();
    let alternatives = answer["alternatives"].as_array().unwrap_or(&none);
    let cells = |it: &Value| {
        ["what", "calls", "spent_usd", "would_have_cost_usd", "difference_usd"].map(|name| plain(&it[name]))
    };
    let rows: Vec<[String; 5]> = alternatives.iter().map(cells).collect();
    let mut text = format!(
        "{} calls, {} of them bought, for {} USD; {} answered from what was there already, which saved {} USD\n\n{}\n",
        plain(&answer["calls"]),
        plain(&answer["bought_calls"]),
        plain(&answer["spent_usd"]),
        plain(&answer["reuse"]["calls"]),
        plain(&answer["reuse"]["saved_usd"]),
        columns(["what if", "calls", "spent (USD)", "would have cost", "difference"], &rows),
    );
    if answer["is_complete"] == false {
        writeln!(text, "calls before {} were not looked at: there was no more time", plain(&answer["since"]))?;
    }
    for it in alternatives {
        let left_out = it["left_out_calls"].as_object().into_iter().flatten();
        let left_out: Vec<String> = left_out.map(|(why, calls)| format!("{} {why}", plain(calls))).collect();
        let left_out = if left_out.is_empty() { String::new() } else { format!("; left out: {}", left_out.join(", ")) };
        writeln!(text, "{}: {}{left_out}", plain(&it["what"]), plain(&it["note"]))?;
    }
    beginnings(answer, &mut text)?;
    Ok(text)
}

/// A row for each agent whose prompts repeat the beginning of an earlier one.
fn beginnings(answer: &Value, text: &mut String) -> fmt::Result {
    let told = &answer["repeated_prefixes"];
    let names = ["agent", "provider", "model", "repeated_calls", "repeated_tokens", "read_tokens", "difference_usd"];
    let agents = told["agents"].as_array().into_iter().flatten().filter(|it| it["repeated_calls"] != 0);
    let rows: Vec<[String; 7]> = agents.map(|it| names.map(|name| plain(&it[name]))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let heads = ["agent", "provider", "model", "begin alike", "tokens of that", "read from cache", "difference"];
    write!(text, "\n{}\n{}\n", columns(heads, &rows), plain(&told["note"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_alternative_has_a_row_and_says_what_it_leaves_out() {
        let answer = json!({
            "calls": 9, "bought_calls": 7, "spent_usd": 1.5, "reuse": { "calls": 2, "saved_usd": 0.25 },
            "is_complete": false, "since": "2026-11-01T00:00:00Z",
            "alternatives": [{
                "what": "gpt-5-mini", "calls": 6, "spent_usd": 1.25, "would_have_cost_usd": 0.5, "difference_usd": -0.75,
                "left_out_calls": { "no_usage": 1 }, "note": "as it is",
            }],
            "repeated_prefixes": { "note": "at least", "agents": [
                { "agent": "planner", "provider": "openai", "model": "gpt-5", "repeated_calls": 3, "repeated_tokens": 9000,
                  "read_tokens": 1000, "difference_usd": -0.009 },
                { "agent": null, "provider": "openai", "model": "gpt-5", "repeated_calls": 0, "repeated_tokens": 0,
                  "read_tokens": 0, "difference_usd": 0 },
            ]},
        });
        assert_eq!(
            in_words(&answer).expect("text"),
            "9 calls, 7 of them bought, for 1.5 USD; 2 answered from what was there already, which saved 0.25 USD\n\n\
             what if     calls  spent (USD)  would have cost  difference\n\
             gpt-5-mini  6      1.25         0.5              -0.75\n\n\
             calls before 2026-11-01T00:00:00Z were not looked at: there was no more time\n\
             gpt-5-mini: as it is; left out: 1 no_usage\n\n\
             agent    provider  model  begin alike  tokens of that  read from cache  difference\n\
             planner  openai    gpt-5  3            9000            1000             -0.009\n\n\
             at least\n"
        );
    }
}
