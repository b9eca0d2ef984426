//! `weir prices check`: is a file of prices right?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::print;
use crate::price::{Prices, Settings, Size};

/// What may follow `weir prices check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The file, as `prices.overlay` would name it
    file: PathBuf,
    /// Print the answer as JSON; mistakes are named on standard error all the same
    #[arg(long)]
    json: bool,
}

/// Checks it.
///
/// # Errors
/// With every mistake.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let prices = Prices::load(&Settings { overlay: Some(arguments.file.clone()) }, Vec::new())?;
    let (size, remarks) = (prices.overlay_size(), prices.remarks());
    if arguments.json {
        return print(&format!("{}\n", json!({ "ok": true, "size": size, "remarks": remarks })));
    }
    let Size { providers, models, uplifts } = size;
    let counts = [counted(providers, "provider"), counted(models, "model"), counted(uplifts, "uplift")].join(", ");
    let remarks = remarks.iter().fold(String::new(), |list, remark| list + "look at  " + remark + "\n");
    print(&format!("ok: {counts}\n{remarks}"))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
