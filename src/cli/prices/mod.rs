//! `weir prices`: what weir knows of prices, and whether a file of your own is right.

mod check;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use crate::pattern::nearest;
use crate::price::{Prices, Settings, Source};
use crate::record::usage::Unpriced;

/// What may follow `weir prices`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say which entry of the price table a model is, by which rule and why, and at which rates
    Show(show::Arguments),
    /// Name every mistake in a file of prices
    Check(check::Arguments),
}

/// Does it.
///
/// # Errors
/// With what is wrong.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show(arguments) => show::run(arguments),
        Command::Check(arguments) => check::run(arguments),
    }
}

/// What sets a price beside provider, model and usage.
#[derive(Debug, Args)]
pub(super) struct Circumstances {
    /// When the call began, such as 2026-11-20T12:00:00Z or 2026-11-20. Without it, now
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<SystemTime>,
    /// What the reply says of the price, such as `service_tier=flex`; also `processing`, `speed`, `inference_geo` and
    /// `region`. May be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    context: Vec<(String, String)>,
    /// A file laid over the built-in table: `prices.overlay`
    #[arg(long, value_name = "FILE", env = "WEIR_PRICES__OVERLAY")]
    overlay: Option<PathBuf>,
}

impl Circumstances {
    /// The price table to ask.
    pub(super) fn prices(&self) -> anyhow::Result<Prices> {
        Ok(Prices::load(&Settings { overlay: self.overlay.clone() }, Vec::new())?)
    }

    /// When the call began.
    pub(super) fn at(&self) -> SystemTime {
        self.at.unwrap_or_else(SystemTime::now)
    }

    /// What the reply says of the price.
    pub(super) fn context(&self) -> Vec<(&str, &str)> {
        self.context.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}

/// Why a question has no answer, and which names are near.
pub(super) fn unanswered(prices: &Prices, provider: &str, model: &str, why: Unpriced) -> anyhow::Error {
    let (what, word, names) = match why {
        Unpriced::NoTable => (format!("the price table has no provider `{provider}`"), provider, prices.provider_ids()),
        Unpriced::UnknownModel => {
            let names = prices.model_ids(&Source::Id(provider.into()));
            (format!("the price table has no model `{model}` of `{provider}`"), model, names)
        }
        Unpriced::NoUsage => return anyhow!("without usage there is no cost"),
    };
    match nearest(word, names.iter().map(String::as_str)) {
        Some(near) => anyhow!("{what}: did you mean `{near}`?"),
        None => anyhow!("{what}"),
    }
}

/// A time, or a day's midnight, in UTC.
pub(super) fn time(text: &str) -> Result<SystemTime, &'static str> {
    humantime::parse_rfc3339(text)
        .or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .map_err(|_| "write a time in UTC such as 2026-11-20T12:00:00Z, or a day such as 2026-11-20")
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write a key and its value, such as service_tier=flex"),
    }
}
