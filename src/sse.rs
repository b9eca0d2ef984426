//! SSE: finds the events of a `text/event-stream` as its bytes arrive, in pieces cut anywhere.
//!
//! Follows the WHATWG parsing rules (LF, CR and CRLF; one optional space; comments; several data lines), keeps where
//! each event stood in the stream, and bounds what it holds. Knows no provider.

use std::ops::Range;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty if there is none.
    pub name: &'a str,
    /// The `data` lines, joined with line feeds.
    pub data: &'a [u8],
    /// Where the event stood in the stream, in bytes: from the end of the event before it to the end of its own blank
    /// line.
    pub span: Range<u64>,
}
