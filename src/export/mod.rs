//! Export: calls of the ledger → CSV, JSON, lines of JSON or Parquet, compressed on their way, in bounded memory.
//!
//! Knows entries and where bytes are written to; no HTTP, no file, and nothing of how the ledger keeps what it has.

#[cfg(feature = "parquet")]
mod columnar;
pub mod columns;
mod packed;
pub mod paper;
pub mod resume;
pub mod sheet;
pub mod statement;
pub mod stream;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[cfg(feature = "parquet")]
use crate::export::columnar::Columnar;
use crate::export::packed::Packed;
use crate::export::sheet::Sheet;
use crate::ledger::entry::Entry;
use crate::pattern::nearest;

/// How calls are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values, RFC 4180.
    #[default]
    Csv,
    /// One array.
    Json,
    /// One object a line.
    Ndjson,
    /// Columns, typed and compressed within.
    Parquet,
}

impl Format {
    /// Every format there is.
    pub const ALL: [Self; 4] = [Self::Csv, Self::Json, Self::Ndjson, Self::Parquet];

    /// Its name, which is the extension of its files too.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
        }
    }

    /// Whether an export that broke off can be gone on with: its rows stand one after another, and nothing around them.
    #[must_use]
    pub const fn is_resumable(self) -> bool {
        matches!(self, Self::Csv | Self::Ndjson)
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        chosen(name, "format", &Self::ALL, |it| it.as_str())
    }
}

/// How what is written is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Every one there is.
    pub const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Zstd];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What it adds to a file's name.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        chosen(name, "compression", &Self::ALL, |it| it.as_str())
    }
}

/// The one of this name, or which there are.
fn chosen<T: Copy>(name: &str, what: &str, all: &[T], name_of: fn(&T) -> &'static str) -> Result<T, String> {
    let names = || all.iter().map(name_of);
    if let Some(it) = all.iter().find(|it| name_of(it) == name) {
        return Ok(*it);
    }
    match nearest(name, names()) {
        Some(near) => Err(format!("`{name}` is no {what}: did you mean {near}?")),
        None => Err(format!("`{name}` is no {what}: write one of {}", names().collect::<Vec<_>>().join(", "))),
    }
}

/// What an export looks like from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    format: Format,
    compression: Compression,
    follows: bool,
}

impl Form {
    /// This format, compressed so.
    ///
    /// # Errors
    /// If there is no such thing: what is wrong, and what mends it.
    pub fn new(format: Format, compression: Compression) -> Result<Self, &'static str> {
        if format == Format::Parquet && compression != Compression::None {
            return Err("parquet is compressed within: leave out the compression");
        }
        if format == Format::Parquet && cfg!(not(feature = "parquet")) {
            return Err("this weir was built without Parquet: take csv, json or ndjson");
        }
        Ok(Self { format, compression, follows: false })
    }

    /// The same without what comes before the first row: what is written follows what is there already.
    ///
    /// # Errors
    /// If rows of this form cannot follow others.
    pub fn following(self) -> Result<Self, &'static str> {
        if !self.format.is_resumable() {
            return Err("only csv and ndjson can be gone on with: take one of them, or begin anew");
        }
        Ok(Self { follows: true, ..self })
    }

    /// What a file's name says of how it is written and compressed: `calls.csv.gz`.
    #[must_use]
    pub fn of_name(name: &str) -> (Option<Format>, Option<Compression>) {
        let packed = [Compression::Gzip, Compression::Zstd].into_iter().find(|it| name.ends_with(it.extension()));
        let name = packed.map_or(name, |it| name.strip_suffix(it.extension()).unwrap_or(name));
        let format =
            Format::ALL.into_iter().find(|it| name.rsplit_once('.').is_some_and(|(_, end)| end == it.as_str()));
        (format, packed)
    }

    /// Whether an export of this form that broke off can be gone on with: its rows stand one after another, as they are.
    #[must_use]
    pub fn is_resumable(self) -> bool {
        self.format.is_resumable() && self.compression == Compression::None
    }

    /// Whether it is without what comes before the first row.
    #[must_use]
    pub const fn follows(self) -> bool {
        self.follows
    }

    /// How calls are written down.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// How that is compressed.
    #[must_use]
    pub const fn compression(self) -> Compression {
        self.compression
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match (self.compression, self.format) {
            // RFC 6713 and RFC 8878.
            (Compression::Gzip, _) => "application/gzip",
            (Compression::Zstd, _) => "application/zstd",
            // RFC 4180, section 3.
            (Compression::None, Format::Csv) if self.follows => "text/csv; charset=utf-8; header=absent",
            (Compression::None, Format::Csv) => "text/csv; charset=utf-8; header=present",
            (Compression::None, Format::Json) => "application/json",
            (Compression::None, Format::Ndjson) => "application/x-ndjson",
            (Compression::None, Format::Parquet) => "application/vnd.apache.parquet",
        }
    }

    /// The extension of its files: `csv`, `ndjson.gz`.
    #[must_use]
    pub fn extension(self) -> String {
        format!("{}{}", self.format.as_str(), self.compression.extension())
    }
}

/// Calls on their way to where they are written. What was written is whole only after [`Encoder::finish`].
pub struct Encoder<W: Write + Send> {
    rows: Rows<W>,
}

enum Rows<W: Write + Send> {
    Sheet(Box<Sheet<Packed<W>>>),
    Lines(Packed<W>),
    Array {
        out: Packed<W>,
        is_first: bool,
    },
    #[cfg(feature = "parquet")]
    Columnar(Box<Columnar<W>>),
}

impl<W: Write + Send> Encoder<W> {
    /// Begins to write to `out`.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn new(form: Form, out: W) -> io::Result<Self> {
        let packed = |out| Packed::new(form.compression, out);
        let rows = match form.format {
            Format::Csv => Rows::Sheet(Box::new(Sheet::new(packed(out)?, !form.follows)?)),
            Format::Ndjson => Rows::Lines(packed(out)?),
            Format::Json => {
                let mut out = packed(out)?;
                out.write_all(b"[")?;
                Rows::Array { out, is_first: true }
            }
            #[cfg(feature = "parquet")]
            Format::Parquet => Rows::Columnar(Box::new(Columnar::new(out, columnar::ROWS_IN_GROUP)?)),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => return Err(io::Error::other("built without Parquet")),
        };
        Ok(Self { rows })
    }

    /// Writes one call.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn write(&mut self, entry: Entry) -> io::Result<()> {
        match &mut self.rows {
            Rows::Sheet(sheet) => sheet.write(&entry),
            Rows::Lines(out) => {
                serde_json::to_writer(&mut *out, &entry)?;
                out.write_all(b"\n")
            }
            Rows::Array { out, is_first } => {
                out.write_all(if std::mem::take(is_first) { b"\n" } else { b",\n" })?;
                serde_json::to_writer(out, &entry)?;
                Ok(())
            }
            #[cfg(feature = "parquet")]
            Rows::Columnar(columnar) => columnar.write(entry),
        }
    }

    /// Writes what is left, and gives back where it was written to.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn finish(self) -> io::Result<W> {
        let mut out = match self.rows {
            Rows::Sheet(sheet) => sheet.finish()?.finish()?,
            Rows::Lines(out) => out.finish()?,
            Rows::Array { mut out, .. } => {
                out.write_all(b"\n]\n")?;
                out.finish()?
            }
            #[cfg(feature = "parquet")]
            Rows::Columnar(columnar) => columnar.finish()?,
        };
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write + Send> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
