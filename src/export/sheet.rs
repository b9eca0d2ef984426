//! Sheet: rows of comma-separated values (RFC 4180), with a header row.
//!
//! Spreadsheets run a text that begins like a formula: such a text gets an apostrophe before it, and so does one that
//! begins with an apostrophe itself, so that taking one away always gives the text back. Numbers stay numbers.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use csv::{Terminator, Writer, WriterBuilder};
use jiff::Timestamp;

use crate::export::columns::{self, Value};
use crate::ledger::entry::{Entry, Micros};

/// Rows on their way.
pub(super) struct Sheet<W: Write> {
    writer: Writer<W>,
    cell: String,
}

impl<W: Write> Sheet<W> {
    pub(super) fn new(out: W, has_header: bool) -> io::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
        if has_header {
            writer.write_record(columns::ALL.iter().map(|column| column.name)).map_err(failed)?;
        }
        Ok(Self { writer, cell: String::new() })
    }

    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        for column in columns::ALL.iter() {
            self.cell.clear();
            spell(&mut self.cell, &column.of(entry));
            self.writer.write_field(&self.cell).map_err(failed)?;
        }
        self.writer.write_record(None::<&[u8]>).map_err(failed)
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.writer.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}

/// What went wrong beneath, so that a reader who is gone is known for one.
fn failed(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => io::Error::other(format!("{kind:?}")),
    }
}

/// A value as a cell: empty where it is not known.
fn spell(cell: &mut String, value: &Value<'_>) {
    let spelt = match value {
        Value::Absent => Ok(()),
        Value::Text(text) => {
            cell.push_str(guard(text));
            cell.push_str(text);
            Ok(())
        }
        Value::Count(count) => write!(cell, "{count}"),
        Value::Flag(flag) => write!(cell, "{flag}"),
        Value::Time(at) => {
            cell.push_str(&time(*at));
            Ok(())
        }
        Value::Usd(usd) => write!(cell, "{usd}"),
        Value::Took(took) => {
            cell.push_str(&milliseconds(*took));
            Ok(())
        }
    };
    spelt.expect("a string takes everything");
}

/// What stands before a text so that no spreadsheet runs it.
pub(super) fn guard(text: &str) -> &'static str {
    // The first six: OWASP, "CSV Injection".
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\'']) { "'" } else { "" }
}

/// The moment in RFC 3339, UTC, to the microsecond; empty beyond the years there are.
#[must_use]
pub fn time(at: Micros) -> String {
    Timestamp::from_microsecond(at).map(|at| format!("{at:.6}")).unwrap_or_default()
}

/// Milliseconds with what is known behind the point, and no more.
fn milliseconds(took: Duration) -> String {
    let micros = took.as_micros();
    let (whole, part) = (micros / 1000, micros % 1000);
    match part {
        0 => whole.to_string(),
        part => format!("{whole}.{part:03}").trim_end_matches('0').to_owned(),
    }
}
