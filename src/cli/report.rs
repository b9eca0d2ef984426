//! `weir report`: what a month has come to, as Markdown, as a page that prints, as CSV or as JSON.

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Args;

use crate::cli::ledger::{Source, spelt};
use crate::cli::print;
use crate::export::paper::Paper;
use crate::export::statement::{Month, Statement};
use crate::ledger::entry::micros;
use crate::ledger::filter::Filter;
use crate::units::PicoUsd;

/// What may follow `weir report`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The month, such as 2026-10, in UTC as providers bill [default: the one that goes on]
    #[arg(long, value_name = "YEAR-MONTH")]
    month: Option<Month>,
    /// `markdown`, `html`, `csv` or `json`
    #[arg(long, default_value = "markdown")]
    format: Paper,
    /// Only calls of this workspace
    #[arg(long, value_name = "ID")]
    workspace: Option<String>,
    /// What was to be spent at most, in US dollars [default: what the running weir has for the month]
    #[arg(long, value_name = "USD")]
    budget: Option<PicoUsd>,
    #[command(flatten)]
    source: Source,
}

/// Prints the statement.
///
/// # Errors
/// If the ledger cannot be asked.
pub fn run(Arguments { month, format, workspace, budget, source }: &Arguments) -> anyhow::Result<ExitCode> {
    let now = micros(SystemTime::now());
    let month = month.unwrap_or_else(|| Month::of(now));
    if let Some(reader) = source.file()? {
        let filter = Filter { workspace: workspace.as_deref().map(Into::into), ..Filter::default() };
        let statement = Statement::of(&reader, month, &filter, now).context("cannot ask the ledger")?;
        return print(&format.write(&statement.beside(*budget)));
    }
    let mut pairs = vec![("month", month.to_string()), ("format", format.as_str().to_owned())];
    pairs.extend(workspace.iter().map(|workspace| ("workspace_id", workspace.clone())));
    pairs.extend(budget.iter().map(|budget| ("budget_usd", budget.to_string())));
    let mut page = Vec::new();
    source.admin.download(&format!("/api/v1/cost/statement?{}", spelt(&pairs)), &mut page)?;
    print(&String::from_utf8(page).context("the answer is no text")?)
}
