//! `weir prices show`: which entry of the price table a model is, by which rule and why, and at which rates.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;

use crate::cli::prices::{Circumstances, unanswered};
use crate::cli::print;
use crate::price::explain::{Explanation, ShownRate};
use crate::price::{Edition, Question, Source};

/// What may follow `weir prices show`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The provider: its id in the price table, or a name it goes by
    provider: String,
    /// The model, as a request or a reply names it
    model: String,
    /// What else sets the price.
    #[command(flatten)]
    circumstances: Circumstances,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Shows it.
///
/// # Errors
/// If there is no price, or the overlay has mistakes.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { provider, model, circumstances, json } = arguments;
    let prices = circumstances.prices()?;
    let explained = prices.explain(&Question {
        source: &Source::Id(provider.as_str().into()),
        response_model: Some(model),
        request_model: None,
        usage: None,
        context: &circumstances.context(),
        at: circumstances.at(),
    });
    let explained = explained.map_err(|why| unanswered(&prices, provider, model, why))?;
    if *json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&explained)?));
    }
    let at = humantime::format_rfc3339_seconds(circumstances.at()).to_string();
    print(&in_words(&explained, model, &at, &prices.edition())?)
}

fn in_words(it: &Explanation, name: &str, at: &str, edition: &Edition) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "model      {} of {}", it.model, it.provider)?;
    writeln!(text, "because    `{name}` {}", it.rule)?;
    let table = match it.file {
        "overlay" => "your overlay".to_owned(),
        "additions" => "weir's additions to the built-in table".to_owned(),
        _ => format!("the built-in table ({} {})", edition.source.trim_end_matches(" + overlay"), edition.version),
    };
    writeln!(text, "listed in  {table}")?;
    if it.listed_by != it.provider {
        writeln!(
            text,
            "fallback   {} has no such model: that of {} counts, without variants",
            it.provider, it.listed_by
        )?;
    }
    writeln!(text, "at         {at}")?;
    match &it.replaced_by {
        Some(when) => writeln!(text, "rates      those {when}")?,
        None => writeln!(text, "rates      standard")?,
    }
    for variant in &it.variants {
        writeln!(text, "variant    {variant}")?;
    }
    for uplift in &it.uplifts {
        writeln!(text, "uplift     {uplift}")?;
    }
    if it.min_audio_seconds > 0 {
        writeln!(text, "minimum    {} seconds of audio", it.min_audio_seconds)?;
    }
    writeln!(text)?;
    if it.rates.is_empty() {
        writeln!(text, "no charge")?;
    }
    let width = it.rates.iter().map(|rate| rate.counter.len()).max().unwrap_or_default();
    for ShownRate { counter, per, usd, over } in &it.rates {
        write!(text, "{counter:width$}  {usd} USD for {per}")?;
        for (above, usd) in over {
            write!(text, "; above {above} input tokens {usd}")?;
        }
        writeln!(text)?;
    }
    Ok(text)
}
