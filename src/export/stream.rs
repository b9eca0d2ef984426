//! Stream: the calls of a window, from the ledger to where they are written, in bounded memory.

use std::io::{self, Write};

use serde::Serialize;

use crate::export::{Encoder, Form};
use crate::ledger::entry::{Entry, Micros};
use crate::ledger::filter::Filter;
use crate::ledger::page::Direction;
use crate::ledger::reader::{Error, Reader};
use crate::ledger::window::Window;

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The ledger could not be read on.
    #[error("the ledger cannot be read on")]
    Unread(#[from] Error),
    /// What was read could not be written, or nobody wants it any more.
    #[error("the export cannot be written on")]
    Unwritten(#[from] io::Error),
}

/// Which calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Those that were over in this time.
    pub window: Window,
    /// Of them, those that this lets through.
    pub filter: Filter,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many calls.
    pub rows: u64,
    /// When the last of them was over: an export that goes on begins after that.
    pub last: Option<Micros>,
}

/// Writes every call of the selection to `out`, the oldest first. `written` is told of each; what it is told may not have
/// left for `out` yet.
///
/// # Errors
/// [`Broken`]; then what is in `out` is not whole.
pub fn stream<W: Write + Send>(
    reader: &Reader,
    selection: &Selection,
    (form, out): (Form, W),
    mut written: impl FnMut(&Written),
) -> Result<(Written, W), Broken> {
    let mut encoder = Encoder::new(form, out)?;
    let mut sum = Written::default();
    for entry in reader.walk(selection.window, &selection.filter, Direction::Oldest) {
        let entry = entry?;
        sum = Written { rows: sum.rows + 1, last: Some(entry.ended_at) };
        encoder.write(entry)?;
        written(&sum);
    }
    Ok((sum, encoder.finish()?))
}

/// What an export would contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// How many calls.
    pub rows: u64,
    /// About how many bytes, told from the first of them. `None` where there is none to tell from.
    pub bytes: Option<u64>,
    /// The part of the window of which there are rows. `None` without any.
    #[serde(skip)]
    pub covers: Option<Window>,
}

/// What an export of the selection would contain.
///
/// # Errors
/// [`Broken`].
pub fn estimate(reader: &Reader, selection: &Selection, form: Form) -> Result<Estimate, Broken> {
    /// How many calls the size is told from.
    const SAMPLE: usize = 200;
    let Selection { window, filter } = selection;
    let Some((first, last)) = reader.span()? else { return Ok(Estimate { rows: 0, bytes: None, covers: None }) };
    let covers = window.within(Window { from: first, to: last.saturating_add(1) });
    if covers.is_empty() {
        return Ok(Estimate { rows: 0, bytes: None, covers: None });
    }
    let rows = reader.totals(covers, filter)?.found.calls;
    let sample: Vec<Entry> =
        reader.walk(covers, filter, Direction::Oldest).take(SAMPLE).collect::<Result<_, Error>>()?;
    let bytes = match u64::try_from(sample.len()) {
        Ok(0) | Err(_) => None,
        Ok(sampled) => Some(size(form, sample)?.saturating_mul(rows.max(sampled)) / sampled),
    };
    Ok(Estimate { rows, bytes, covers: Some(covers) })
}

fn size(form: Form, entries: Vec<Entry>) -> io::Result<u64> {
    let mut encoder = Encoder::new(form, Vec::new())?;
    entries.into_iter().try_for_each(|entry| encoder.write(entry))?;
    Ok(u64::try_from(encoder.finish()?.len()).unwrap_or(u64::MAX))
}
