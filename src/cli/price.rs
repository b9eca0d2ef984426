//! `weir price`: what would a call cost? One question by flags, or many by standard input.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, ErrorKind, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::prices::{Circumstances, time, unanswered};
use crate::cli::print;
use crate::config::mistake::listed;
use crate::pattern::nearest;
use crate::price::explain::Bill;
use crate::price::{Prices, Question, Source};
use crate::record::usage::{Counter, Usage};

/// What may follow `weir price`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The provider: its id in the price table, or a name it goes by
    #[arg(long, required_unless_present = "stdin")]
    provider: Option<String>,
    /// The model, as a request or a reply names it
    #[arg(long, required_unless_present = "stdin")]
    model: Option<String>,
    /// What the call used, such as `input_tokens=1000,output_tokens=200`. `input_tokens` contains every token of the
    /// prompt, cached ones included
    #[arg(long, value_name = "COUNTER=COUNT", value_delimiter = ',', value_parser = count, required_unless_present = "stdin")]
    usage: Vec<(Counter, u64)>,
    /// What else sets the price.
    #[command(flatten)]
    circumstances: Circumstances,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Read questions from standard input, one JSON object a line, and answer each by one:
    /// `{"provider": "openai", "model": "gpt-5", "usage": {"input_tokens": 1000}, "at": "2026-11-20"}`
    #[arg(long, conflicts_with_all = ["provider", "model", "usage", "at", "context"])]
    stdin: bool,
}

/// One question, as a line of standard input asks it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    provider: String,
    model: String,
    usage: BTreeMap<String, u64>,
    #[serde(default)]
    context: BTreeMap<String, String>,
    at: Option<String>,
}

/// Answers.
///
/// # Errors
/// If there is no price, the overlay has mistakes, or a question cannot be read.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { provider, model, usage, circumstances, json, stdin } = arguments;
    let prices = circumstances.prices()?;
    if *stdin {
        return answer_all(&prices);
    }
    let (provider, model) = (provider.as_deref().unwrap_or_default(), model.as_deref().unwrap_or_default());
    let bill = bill(&prices, (provider, model), usage, &circumstances.context(), circumstances.at())?;
    let at = humantime::format_rfc3339_seconds(circumstances.at()).to_string();
    print(&if *json { format!("{}\n", serde_json::to_string_pretty(&bill)?) } else { in_words(&bill, &at)? })
}

/// Answers every line of standard input by one: a bill, or an object with an `error`.
fn answer_all(prices: &Prices) -> anyhow::Result<ExitCode> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        let answer = answer(prices, &line).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        match writeln!(output, "{answer}") {
            Ok(()) => {}
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(prices: &Prices, line: &str) -> anyhow::Result<Value> {
    let asked: Asked = serde_json::from_str(line)?;
    let usage =
        asked.usage.iter().map(|(name, count)| Ok((counter(name)?, *count))).collect::<Result<Vec<_>, String>>();
    let usage = usage.map_err(anyhow::Error::msg)?;
    let context: Vec<_> = asked.context.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let at = asked.at.as_deref().map_or(Ok(SystemTime::now()), time).map_err(anyhow::Error::msg)?;
    Ok(serde_json::to_value(bill(prices, (&asked.provider, &asked.model), &usage, &context, at)?)?)
}

fn bill(
    prices: &Prices,
    (provider, model): (&str, &str),
    usage: &[(Counter, u64)],
    context: &[(&str, &str)],
    at: SystemTime,
) -> anyhow::Result<Bill> {
    let count = |wanted| usage.iter().rev().find(|(counter, _)| *counter == wanted).map(|(_, count)| *count);
    let parts: Vec<_> = Counter::ALL.iter().map(|counter| (*counter, count(*counter))).collect();
    let usage = Usage::cache_inside(count(Counter::InputTokens), count(Counter::OutputTokens), &parts);
    let question = Question {
        source: &Source::Id(provider.into()),
        response_model: Some(model),
        request_model: None,
        usage: Some(&usage),
        context,
        at,
    };
    prices.bill(&question).map_err(|why| unanswered(prices, provider, model, why))
}

fn in_words(bill: &Bill, at: &str) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let by = if bill.listed_by == bill.provider { String::new() } else { format!(", as listed by {}", bill.listed_by) };
    writeln!(text, "{} of {}{by}, at {at}", bill.model, bill.provider)?;
    let names = bill.lines.iter().map(|line| line.counter).chain(bill.classes.keys().copied());
    let width = names.map(str::len).max().unwrap_or_default().max("total".len());
    for line in &bill.lines {
        writeln!(text, "{:width$}  {} USD: {} × {} / {}", line.counter, line.usd, line.count, line.rate, line.per)?;
    }
    writeln!(text, "\nby class")?;
    for (class, usd) in &bill.classes {
        writeln!(text, "{class:width$}  {usd} USD")?;
    }
    writeln!(text, "{:width$}  {} USD", "total", bill.usd)?;
    Ok(text)
}

fn count(text: &str) -> Result<(Counter, u64), String> {
    let (name, count) = text.split_once('=').ok_or("write a counter and its count, such as input_tokens=1000")?;
    let count = count.parse().map_err(|_| format!("`{count}` is no count: write a whole number, such as 1000"))?;
    Ok((counter(name)?, count))
}

fn counter(name: &str) -> Result<Counter, String> {
    let names = || Counter::ALL.iter().map(|counter| counter.name());
    Counter::ALL.iter().find(|counter| counter.name() == name).copied().ok_or_else(|| match nearest(name, names()) {
        Some(near) => format!("`{name}` is no counter: did you mean {near}?"),
        None => format!("`{name}` is no counter: write one of {}", listed(names())),
    })
}
