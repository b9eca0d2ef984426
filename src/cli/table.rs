//! Table: answers of a running weir for people: columns that stand below each other, and values without quotes.

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::print;

/// Prints an answer as JSON, or as `shown` says.
pub(super) fn show(as_json: bool, answer: &Value, shown: fn(&Value) -> String) -> anyhow::Result<ExitCode> {
    if as_json { print(&format!("{answer:#}\n")) } else { print(&shown(answer)) }
}

/// A value without quotes. What could move a terminal's cursor is shown as `�`: names in it come from apps' users.
pub(super) fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|one| if one.is_control() { char::REPLACEMENT_CHARACTER } else { one }).collect()
}

/// Rows of as many cells as there are `heads`, each column as wide as what is in it.
pub(super) fn columns<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let heads = heads.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        assert_eq!(
            columns(["name", "spent"], &[row(["ä", "12 USD"]), row(["longer", ""])]),
            "name    spent\nä       12 USD\nlonger\n"
        );
    }

    #[test]
    fn no_name_moves_the_cursor() {
        assert_eq!(plain(&json!("user=\u{1b}[2Jann\r\n")), "user=\u{fffd}[2Jann\u{fffd}\u{fffd}");
        assert_eq!((plain(&json!(80)), plain(&json!("0.5"))), ("80".to_owned(), "0.5".to_owned()));
    }
}
