//! What was measured, beside the bars: a table for people, which is Markdown, and the same as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rounds::Spread;

/// A bar: what must hold, and what it aims at. Smaller is better, but for P15.
pub(crate) struct Bar {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    Ratio,
    Micros,
    Millis,
    Megabytes,
    /// A ratio that had better be great.
    Gain,
}

/// A line of the table.
pub(crate) struct Row {
    id: &'static str,
    what: String,
    unit: Unit,
    bar: Option<(f64, f64)>,
    found: Found,
    note: String,
}

enum Found {
    Figure(Spread),
    /// Why there is none.
    Skipped(String),
    /// What went wrong.
    Failed(String),
}

impl Row {
    /// What was found for `bar`.
    pub(crate) fn of(bar: &Bar, figure: Spread, note: impl Into<String>) -> Self {
        Self::new(bar, Found::Figure(figure), note.into())
    }

    pub(crate) fn skipped(bar: &Bar, why: impl Into<String>) -> Self {
        Self::new(bar, Found::Skipped(why.into()), String::new())
    }

    pub(crate) fn failed(bar: &Bar, why: impl Into<String>) -> Self {
        Self::new(bar, Found::Failed(why.into()), String::new())
    }

    /// A figure that helps to understand those with a bar.
    pub(crate) fn beside(bar: &Bar, what: impl Into<String>, figure: Spread, note: impl Into<String>) -> Self {
        Self { what: what.into(), bar: None, ..Self::of(bar, figure, note) }
    }

    /// The same in another unit.
    pub(crate) fn in_unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    fn new(bar: &Bar, found: Found, note: String) -> Self {
        Self { id: bar.id, what: bar.what.to_owned(), unit: bar.unit, bar: Some((bar.must, bar.aim)), found, note }
    }

    /// Whether a bar was missed that must be met, or could not be measured though nothing was missing for that.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(self.found, Found::Failed(_)) || self.verdict() == "missed"
    }

    fn verdict(&self) -> &'static str {
        let figure = match &self.found {
            Found::Failed(_) => return "failed",
            Found::Skipped(_) => return "skipped",
            Found::Figure(figure) => figure.median,
        };
        let Some((must, aim)) = self.bar else { return "" };
        let keeps = |bar: f64| if self.unit == Unit::Gain { figure >= bar } else { figure <= bar };
        match (keeps(must), keeps(aim)) {
            (_, true) => "aim met",
            (true, false) => "met",
            (false, false) => "missed",
        }
    }

    fn cells(&self) -> [String; 6] {
        let show = |value: f64| self.unit.show(value);
        let (figure, note) = match &self.found {
            Found::Figure(Spread { median, low, high }) if low < high => {
                (show(*median), format!("{} to {}{}", show(*low), show(*high), separated(&self.note)))
            }
            Found::Figure(Spread { median, .. }) => (show(*median), self.note.clone()),
            Found::Skipped(why) | Found::Failed(why) => ("–".to_owned(), why.replace(['\n', '|'], " ")),
        };
        let bar = self.bar.map_or_else(String::new, |(must, aim)| format!("{} / {}", show(must), show(aim)));
        let id = if self.bar.is_some() { self.id } else { "" };
        [id.to_owned(), self.what.clone(), figure, bar, self.verdict().to_owned(), note]
    }

    fn json(&self) -> Value {
        let mut row = json!({ "id": self.id, "what": self.what, "unit": self.unit.name(), "note": self.note });
        if let Some((must, aim)) = self.bar {
            row["must"] = json!(must);
            row["aim"] = json!(aim);
            row["verdict"] = json!(self.verdict());
        }
        match &self.found {
            Found::Figure(figure) => {
                row["median"] = json!(figure.median);
                row["low"] = json!(figure.low);
                row["high"] = json!(figure.high);
            }
            Found::Skipped(why) | Found::Failed(why) => row["why"] = json!(why),
        }
        row
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Ratio | Self::Gain => format!("{value:.2}"),
            Self::Micros => format!("{value:.1} µs"),
            Self::Millis => format!("{value:.1} ms"),
            Self::Megabytes => format!("{value:.1} MB"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ratio | Self::Gain => "ratio",
            Self::Micros => "us",
            Self::Millis => "ms",
            Self::Megabytes => "MB",
        }
    }
}

fn separated(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!("; {note}") }
}

/// The table in Markdown, with columns that are aligned.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let head = ["bar", "what", "found", "must / aim", "verdict", "spread, remarks"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// All of it: the machine, how it was measured, the lines.
pub(crate) fn json(machine: &Value, rows: &[Row]) -> Value {
    json!({ "machine": machine, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() })
}
