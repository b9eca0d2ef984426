//! Paper: a statement as people read it and as spreadsheets do: Markdown, one page of HTML that prints, CSV; and JSON.
//!
//! Names come from apps: each form writes them so that they are nothing but names.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use csv::{Terminator, WriterBuilder};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::export::statement::{Part, Statement, Table};
use crate::export::{chosen, sheet};
use crate::ledger::entry::exact;
use crate::units::PicoUsd;

/// How a statement is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paper {
    /// For terminals and wikis.
    #[default]
    Markdown,
    /// For browsers and printers: one file that needs no other.
    Html,
    /// For spreadsheets: every table in one, told apart by their first column.
    Csv,
    /// For programs.
    Json,
}

impl Paper {
    /// Every one there is.
    pub const ALL: [Self; 4] = [Self::Markdown, Self::Html, Self::Csv, Self::Json];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            // RFC 7763.
            Self::Markdown => "text/markdown; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json => "application/json",
        }
    }

    /// The statement, written so.
    ///
    /// # Panics
    /// Never: names and numbers can be written in every form.
    #[must_use]
    pub fn write(self, statement: &Statement) -> String {
        match self {
            Self::Markdown => markdown(statement).expect("a string takes everything"),
            Self::Html => html(statement).expect("a string takes everything"),
            Self::Csv => csv(statement),
            Self::Json => {
                let told = serde_json::to_string_pretty(&Told::of(statement));
                told.expect("names and numbers are JSON") + "\n"
            }
        }
    }
}

impl FromStr for Paper {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        chosen(name, "form of a statement", &Self::ALL, |it| it.as_str())
    }
}

const HEADS: [&str; 7] = ["", "calls", "tokens", "cost (USD)", "saved (USD)", "unpriced calls", "estimated (USD)"];

/// A row as people read it.
fn cells(part: &Part) -> [String; 6] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    [
        part.calls.to_string(),
        part.tokens.to_string(),
        part.cost.to_string(),
        part.saved.to_string(),
        or_dash(part.unpriced.map(|calls| calls.to_string())),
        or_dash(part.estimated.map(|usd| usd.to_string())),
    ]
}

/// What comes first, in pairs.
fn summary(statement: &Statement) -> Vec<(&'static str, String)> {
    let total = &statement.total;
    let mut pairs = vec![
        ("spent", format!("{} USD", total.cost)),
        ("saved by the cache", format!("{} USD", total.saved)),
        ("calls", total.calls.to_string()),
        ("of which without a known cost", total.unpriced.to_string()),
        ("of which estimated", format!("{} ({} USD)", total.estimated, total.estimated_cost)),
        ("users", statement.users.to_string()),
    ];
    if let Some(limit) = statement.limit {
        pairs.push(("budget", format!("{limit} USD, {}", beside(total.cost, limit))));
    }
    pairs
}

fn beside(spent: PicoUsd, limit: PicoUsd) -> String {
    if spent > limit {
        format!("{} USD more was spent", spent.less(limit))
    } else {
        format!("{} USD are left", limit.less(spent))
    }
}

fn title(table: &Table) -> String {
    if table.is_whole { format!("By {}", table.by) } else { format!("By {}, the most expensive", table.by) }
}

fn markdown(statement: &Statement) -> Result<String, fmt::Error> {
    let mut page = format!("# Statement for {}\n\n", statement.month);
    for (name, value) in summary(statement) {
        writeln!(page, "- {name}: {value}")?;
    }
    for table in &statement.tables {
        writeln!(page, "\n## {}\n\n|{}|\n|---|{}", title(table), HEADS.join("|"), "---:|".repeat(6))?;
        for (name, part) in &table.rows {
            writeln!(page, "|{}|{}|", plain_markdown(name), cells(part).join("|"))?;
        }
    }
    page += "\n## Notes\n\n";
    for note in statement.notes() {
        writeln!(page, "- {note}")?;
    }
    Ok(page)
}

/// A name that is nothing but a name: a backslash takes the meaning of punctuation away (`CommonMark`, section 2.4).
fn plain_markdown(name: &str) -> String {
    let mut plain = String::new();
    for one in name.chars() {
        match one {
            one if one.is_control() => plain.push(char::REPLACEMENT_CHARACTER),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '(' | ')' | '#' | '!' | '|' | '&' | '~' => {
                plain.extend(['\\', one]);
            }
            one => plain.push(one),
        }
    }
    plain
}

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111;\
background:#fff}table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}th,td{border-bottom:1px solid #ccc;\
padding:.25rem .5rem;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}th:first-child,\
td:first-child{text-align:left}thead{display:table-header-group}tr{break-inside:avoid}h2{break-after:avoid}\
dl{display:grid;grid-template-columns:max-content auto;gap:.25rem 1rem}dd{margin:0}\
@media print{body{margin:0;max-width:none;font-size:10pt}}";

fn html(statement: &Statement) -> Result<String, fmt::Error> {
    let month = statement.month;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>Statement for {month}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Statement for {month}</h1>\n<dl>\n"
    );
    for (name, value) in summary(statement) {
        writeln!(page, "<dt>{name}</dt><dd>{}</dd>", plain_html(&value))?;
    }
    page += "</dl>\n";
    for table in &statement.tables {
        write!(page, "<h2>{}</h2>\n<table>\n<thead><tr>", title(table))?;
        HEADS.iter().try_for_each(|head| write!(page, "<th>{head}</th>"))?;
        page += "</tr></thead>\n<tbody>\n";
        for (name, part) in &table.rows {
            write!(page, "<tr><td>{}</td>", plain_html(name))?;
            cells(part).iter().try_for_each(|cell| write!(page, "<td>{cell}</td>"))?;
            page += "</tr>\n";
        }
        page += "</tbody>\n</table>\n";
    }
    page += "<h2>Notes</h2>\n<ul>\n";
    for note in statement.notes() {
        writeln!(page, "<li>{}</li>", plain_html(&note))?;
    }
    Ok(page + "</ul>\n</body>\n</html>\n")
}

fn plain_html(text: &str) -> String {
    let mut plain = String::new();
    for one in text.chars() {
        match one {
            '&' => plain += "&amp;",
            '<' => plain += "&lt;",
            '>' => plain += "&gt;",
            '"' => plain += "&quot;",
            '\'' => plain += "&#39;",
            one if one.is_control() => plain.push(char::REPLACEMENT_CHARACTER),
            one => plain.push(one),
        }
    }
    plain
}

fn csv(statement: &Statement) -> String {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    let total = Table { by: "total", rows: vec![(String::new(), Part::of(&statement.total))], is_whole: true };
    let heads = ["by", "name", "calls", "tokens", "cost_usd", "saved_usd", "unpriced_calls", "estimated_usd"];
    let mut written = writer.write_record(heads);
    for table in [&total].into_iter().chain(&statement.tables) {
        for (name, part) in &table.rows {
            let name = format!("{}{name}", sheet::guard(name));
            let number = |text: Option<String>| text.unwrap_or_default();
            let unpriced = number(part.unpriced.map(|calls| calls.to_string()));
            let estimated = number(part.estimated.map(|usd| usd.to_string()));
            let [calls, tokens] = [part.calls, part.tokens].map(|count| count.to_string());
            let [cost, saved] = [part.cost, part.saved].map(|usd| usd.to_string());
            let row = [table.by, &name, &calls, &tokens, &cost, &saved, &unpriced, &estimated];
            written = written.and_then(|()| writer.write_record(row));
        }
    }
    written.expect("every row has as many cells, and memory takes them");
    let text = writer.into_inner().expect("memory takes everything");
    String::from_utf8(text).expect("made of text")
}

/// A statement as programs read it: money with every digit.
#[derive(Serialize)]
struct Told<'a> {
    month: String,
    period: Period,
    total: ToldPart,
    estimated_calls: u64,
    unique_users: u64,
    budget_limit_usd: Option<Box<RawValue>>,
    by: BTreeMap<&'static str, Vec<ToldRow<'a>>>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Period {
    from: String,
    to: String,
}

#[derive(Serialize)]
struct ToldRow<'a> {
    name: &'a str,
    #[serde(flatten)]
    part: ToldPart,
}

#[derive(Serialize)]
struct ToldPart {
    calls: u64,
    tokens: u64,
    cost_usd: Box<RawValue>,
    saved_usd: Box<RawValue>,
    unpriced_calls: Option<u64>,
    estimated_usd: Option<Box<RawValue>>,
}

impl ToldPart {
    fn of(part: &Part) -> Self {
        Self {
            calls: part.calls,
            tokens: part.tokens,
            cost_usd: exact(part.cost),
            saved_usd: exact(part.saved),
            unpriced_calls: part.unpriced,
            estimated_usd: part.estimated.map(exact),
        }
    }
}

impl<'a> Told<'a> {
    fn of(statement: &'a Statement) -> Self {
        let rows = |table: &'a Table| -> Vec<ToldRow<'a>> {
            table.rows.iter().map(|(name, part)| ToldRow { name, part: ToldPart::of(part) }).collect()
        };
        let covers = statement.covers;
        Self {
            month: statement.month.to_string(),
            period: Period { from: sheet::time(covers.from), to: sheet::time(covers.to) },
            total: ToldPart::of(&Part::of(&statement.total)),
            estimated_calls: statement.total.estimated,
            unique_users: statement.users,
            budget_limit_usd: statement.limit.map(exact),
            by: statement.tables.iter().map(|table| (table.by, rows(table))).collect(),
            notes: statement.notes(),
        }
    }
}
