//! Frames: the pieces a streamed reply is made of, found as its bytes arrive, in whatever framing it comes.
//!
//! Each framing is a decoder with one face: bytes go in, cut anywhere, and every event that is complete with them comes
//! out, with where it stood. What a decoder holds is bounded. Knows no provider.

pub mod sse;

use std::ops::Range;

/// One piece of a stream: an event of an event stream, a line, an element of an array, a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What the framing calls it, such as the `event` field of server-sent events; empty if it has no name.
    pub name: &'a str,
    /// What it carries.
    pub data: &'a [u8],
    /// Where it stood in the stream, in bytes: from its first byte to the end of its own end mark. What lies between
    /// events (comments, blank lines) belongs to none.
    pub span: Range<u64>,
}
