//! Resume: what of an export that broke off is whole, and after which call it goes on.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use csv::{ByteRecord, ReaderBuilder};
use serde::Deserialize;

use crate::export::{Format, columns};
use crate::ledger::entry::Micros;

/// What is whole of an export that broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How many bytes: what comes after them belongs to a row that may not be whole.
    pub bytes: u64,
    /// When the last call in them was over: what is missing is what came after.
    pub after: Micros,
}

/// What is whole of the export in `file`; `None` if not even a row is, or if it is no such export. The last row is never
/// taken for whole: where it ends in a number, nobody can tell.
///
/// # Errors
/// If the file cannot be read.
pub fn kept(format: Format, file: &mut (impl Read + Seek)) -> io::Result<Option<Kept>> {
    file.seek(SeekFrom::Start(0))?;
    match format {
        Format::Csv => kept_of_csv(file),
        Format::Ndjson => kept_of_lines(BufReader::new(file)),
        Format::Json | Format::Parquet => Ok(None),
    }
}

fn kept_of_csv(file: &mut (impl Read + Seek)) -> io::Result<Option<Kept>> {
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(&mut *file);
    if !reader.byte_headers()?.iter().eq(columns::ALL.iter().map(|column| column.name.as_bytes())) {
        return Ok(None);
    }
    let (mut row, mut last, mut begins) = (ByteRecord::new(), None, 0);
    let mut before = None;
    while reader.read_byte_record(&mut row)? {
        before = last;
        last = row.get(0).and_then(moment);
        begins = row.position().map_or(0, csv::Position::byte);
    }
    drop(reader);
    let Some(after) = before else { return Ok(None) };
    // The reader takes a row's line feed for the beginning of the next.
    file.seek(SeekFrom::Start(begins))?;
    let mut next = [0];
    let is_feed = file.read(&mut next)? == 1 && next == *b"\n";
    Ok(Some(Kept { bytes: begins + u64::from(is_feed), after }))
}

fn kept_of_lines(mut file: impl BufRead) -> io::Result<Option<Kept>> {
    #[derive(Deserialize)]
    struct Row<'a> {
        timestamp: &'a str,
    }
    let (mut whole, mut bytes, mut line) = (None, 0, Vec::new());
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(whole);
        }
        bytes += read as u64;
        let row: Option<Row<'_>> = serde_json::from_slice(&line).ok();
        let Some(after) = row.and_then(|row| moment(row.timestamp.as_bytes())) else { return Ok(None) };
        whole = Some(Kept { bytes, after });
    }
}

fn moment(cell: &[u8]) -> Option<Micros> {
    let time: jiff::Timestamp = std::str::from_utf8(cell).ok()?.parse().ok()?;
    Some(time.as_microsecond())
}
