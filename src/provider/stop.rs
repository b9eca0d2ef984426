//! Stop: how a stream ends that weir ends before its provider does.
//!
//! An app's SDK has to find the end that its API promises, with the reason that means "as far as it was allowed to go":
//! then it hands on what came, and tries nothing again. What that takes to know (ids, what is still open) is noted of
//! each event while the stream passes, and only where it may be stopped. A format that has no such end gets an error of
//! its own shape. Knows no limit: it stops when it is told to.

use std::fmt;

use crate::frames;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{Events, Framing};

/// What an error says that ends a stream.
pub(super) const MESSAGE: &str = "weir ended this stream: its budget is spent";

/// The code of such an error.
pub(super) const CODE: &str = "budget_exceeded";

/// Most bytes of a text that are noted, where an end has to say it once more.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// Most bytes of the events that end a stream: such a text may be in three of them.
const MAX_BYTES: usize = 4 << 20;

/// Notes what a stream needs in order to be stopped.
pub struct Stopper {
    framing: Framing,
    has_begun: bool,
    notes: Box<dyn Stop>,
}

/// What was used until a stream was stopped, estimated: some formats have to say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsedSoFar {
    /// Tokens of the request.
    pub input: u64,
    /// Tokens generated.
    pub output: u64,
}

/// What one format needs.
pub(super) trait Stop: Send {
    /// Takes note of an event.
    fn note(&mut self, event: &frames::Event<'_>);

    /// Writes the events that end a stream which came this far. `None` if it has not come far enough to be ended.
    fn end(&self, used: UsedSoFar, out: &mut Events) -> Option<()>;
}

impl Stopper {
    /// For a stream of this framing; `None` if its format has no streams that can be ended.
    pub(super) fn open(endpoint: Endpoint, framing: Framing) -> Option<Self> {
        Some(Self { framing, has_begun: false, notes: (endpoint.format().stop)(endpoint)? })
    }

    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &frames::Event<'_>) {
        self.has_begun = true;
        self.notes.note(event);
    }

    /// What has to follow the last event noted. `None` if the stream cannot be ended here.
    pub(super) fn end(&self, used: UsedSoFar) -> Option<Vec<u8>> {
        let mut out = Events::going_on(self.framing, self.has_begun, MAX_BYTES);
        self.notes.end(used, &mut out)?;
        Some(out.finish())
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper").field("framing", &self.framing).finish_non_exhaustive()
    }
}

/// A text that came in pieces; lost if it is too long.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    text: String,
    is_lost: bool,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: &str) {
        self.is_lost |= self.text.len() + piece.len() > MAX_TEXT_BYTES;
        if self.is_lost {
            self.text = String::new();
        } else {
            self.text.push_str(piece);
        }
    }

    pub(super) fn whole(&self) -> Option<&str> {
        (!self.is_lost).then_some(&*self.text)
    }
}

/// What is open of things told side by side, in the order in which they were opened.
#[derive(Debug, Default)]
pub(super) struct Open<T>(Vec<T>);

impl<T: PartialEq> Open<T> {
    /// Notes that it is open; more than so many at once are not noted.
    pub(super) fn open(&mut self, thing: T) {
        if !self.0.contains(&thing) && self.0.len() < super::MAX_NAMES {
            self.0.push(thing);
        }
    }

    pub(super) fn close(&mut self, thing: &T) {
        self.0.retain(|open| open != thing);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}
