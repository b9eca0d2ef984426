//! `weir check`: is the configuration right, and what does it mean? Never shows a secret.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;

use crate::app;
use crate::cli::{SourceArguments, print};
use crate::config::Config;
use crate::limits::matching::{Matching, Per};
use crate::provider::{CredentialSource, Provider};

/// What may follow `weir check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the configuration comes from.
    #[command(flatten)]
    sources: SourceArguments,
}

/// Checks the configuration.
///
/// # Errors
/// With every mistake.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load_known(&arguments.sources.sources())?;
    app::check(&config)?;
    print(&summary(&config)?)
}

fn summary(config: &Config) -> Result<String, std::fmt::Error> {
    let mut text = String::from("ok\n");
    let width = config.providers.iter().map(|provider| provider.name.len()).max().unwrap_or_default();
    writeln!(text, "listen     {}", config.listen)?;
    writeln!(text, "admin      {}", config.admin.listen)?;
    for provider in &config.providers {
        let Provider { name, base_url, credential, .. } = &**provider;
        let bare = if *name == config.default_provider.name { ", also for bare /v1 paths" } else { "" };
        let credential = credential_of(credential);
        writeln!(text, "provider   {name:width$}  {}, {credential}{bare}", shown_url(base_url))?;
        for fallback in &provider.fallbacks {
            let credential = match &fallback.credential {
                CredentialSource::App => "the same credential".to_owned(),
                own => credential_of(own),
            };
            writeln!(
                text,
                "fallback   {name:width$}  {}: {}, {credential}",
                fallback.name,
                shown_url(&fallback.base_url)
            )?;
        }
    }
    let cache = &config.cache;
    let mode = serde_json::to_value(cache.mode).expect("a mode is plain data");
    let rules = match cache.rules.len() {
        0 => String::new(),
        1 => ", 1 rule".to_owned(),
        many => format!(", {many} rules"),
    };
    match mode.as_str() {
        Some(mode @ ("record" | "replay")) => {
            let dir = cache.recordings.as_deref().expect("these modes have a directory");
            writeln!(text, "cache      {mode}: {}", dir.display())?;
        }
        Some("off") | None => writeln!(text, "cache      off{rules}")?,
        Some(mode) => writeln!(
            text,
            "cache      {mode}: ttl {}, at most {} entries and {}{rules}",
            cache.ttl, cache.max_entries, cache.max_bytes
        )?,
    }
    if !config.limits.is_empty() || !config.budgets.is_empty() {
        let kept = config.state_dir.as_ref().map(|dir| dir.display().to_string());
        writeln!(text, "state      {}", kept.as_deref().unwrap_or("none: nothing survives a restart"))?;
    }
    if let Some(plan) = &config.traces {
        writeln!(text, "traces     {}", shown_url(&plan.endpoint))?;
    }
    for remark in &config.remarks {
        writeln!(text, "remark     {remark}")?;
    }
    for limit in &config.limits {
        let concurrent = limit.concurrent_calls.map(|calls| format!("{calls} calls at once"));
        let rates: Vec<String> = limit.rates().iter().map(ToString::to_string).chain(concurrent).collect();
        writeln!(text, "limit      {}: {}{}", limit.name, rates.join(", "), whose(&limit.matching, &limit.per))?;
    }
    for budget in &config.budgets {
        let (name, allowance, window) = (&budget.name, budget.allowance(), budget.window.as_str());
        let (zone, enforce) = (budget.time_zone.name(), budget.enforce.as_str());
        let whose = whose(&budget.matching, &budget.per);
        writeln!(text, "budget     {name}: {allowance}, {window} ({zone}), {enforce}{whose}")?;
    }
    Ok(text)
}

/// Which calls a rule is for, and whom it holds apart.
fn whose(matching: &Matching, per: &Per) -> String {
    let matching = Some(matching.to_string()).filter(|named| !named.is_empty());
    let matching = matching.map(|named| format!("; {named}")).unwrap_or_default();
    let per = if per.is_everybody() { String::new() } else { format!("; for each {per}") };
    matching + &per
}

/// A base URL as it was written: `http` adds the slash of an empty path.
fn shown_url(url: &http::Uri) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

fn credential_of(source: &CredentialSource) -> String {
    match source {
        CredentialSource::App => "the app's own key".to_owned(),
        CredentialSource::File(path) => format!("key from file {}", path.display()),
        CredentialSource::Environment(variable) => format!("key from variable {variable}"),
        CredentialSource::Aws { profile: None, .. } => "signed with weir's AWS credentials".to_owned(),
        CredentialSource::Aws { profile: Some(profile), .. } => format!("signed with AWS profile {profile}"),
    }
}
