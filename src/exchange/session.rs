//! Session: the books of one WebSocket session, kept from a copy of what passes in either direction.
//!
//! The session itself is one record, closed when it ends; each response in it is a record of its own, closed and priced
//! when that response ends, so that money spent is seen while the session lasts. Never holds up what passes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use crate::exchange::entry::{End, Entry};
use crate::exchange::pump::end_of;
use crate::exchange::{Destination, Rooms, admission};
use crate::frames::websocket::{CLOSE, Decoder};
use crate::provider::session::{News, Opened, ReadSession, Told, Turn};
use crate::provider::{Ending, Said};
use crate::record::call::{Caller, Operation};
use crate::record::outcome::{ErrorType, Outcome};

/// Close codes that say that all is well (RFC 6455, section 7.4.1): done, going away, none given.
const WELL: [u16; 3] = [1000, 1001, 1005];

/// Who ended a session, or what did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ender {
    App,
    Provider,
    /// Nothing passed for too long.
    Silence,
    /// weir was told to stop.
    Shutdown,
}

/// What passes from the app, of which only the close frame is read.
#[derive(Debug)]
pub(super) struct Upward {
    frames: Decoder,
    bytes: Arc<AtomicU64>,
    closed: bool,
}

impl Upward {
    /// Takes note of the next piece; whether the app has now said goodbye.
    pub(super) fn passes(&mut self, piece: &[u8]) -> bool {
        self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        self.frames.push(piece, &mut |event| self.closed |= event.name == CLOSE);
        self.closed
    }

    /// Whether the app said goodbye.
    pub(super) const fn has_closed(&self) -> bool {
        self.closed
    }
}

/// What passes from the provider, and what it means.
pub(super) struct Downward {
    frames: Decoder,
    reader: Option<Box<dyn ReadSession>>,
    books: Books,
}

/// The records of one session.
struct Books {
    rooms: Arc<Rooms>,
    to: Arc<Destination>,
    caller: Caller,
    credential: Option<Box<str>>,
    model: Option<Box<str>>,
    session: Entry,
    turns: BTreeMap<Turn, Entry>,
    /// The last complaint, if nothing but the end has come since.
    complaint: Option<StatusCode>,
    /// The code of the provider's close frame.
    closed: Option<u16>,
}

/// Opens the books of a session with `to`, whose own entry is `session`. `opened` reads it, if it can be read;
/// `credential` is the fingerprint of the app's, if limits need it.
pub(super) fn open(
    rooms: &Arc<Rooms>,
    to: &Arc<Destination>,
    opened: Option<Opened>,
    credential: Option<Box<str>>,
    session: Entry,
) -> (Upward, Downward) {
    let upward = Upward { frames: Decoder::new(0), bytes: session.streamed_in(), closed: false };
    let (model, reader) = opened.map_or((None, None), |opened| (opened.model, Some(opened.reader)));
    // A session that is not read still has its close frames seen.
    let max_message_bytes = if reader.is_some() { rooms.settings.max_reply_bytes.as_len() } else { 0 };
    let books = Books {
        rooms: Arc::clone(rooms),
        to: Arc::clone(to),
        caller: session.call().caller.clone(),
        credential,
        model,
        session,
        turns: BTreeMap::new(),
        complaint: None,
        closed: None,
    };
    (upward, Downward { frames: Decoder::new(max_message_bytes), reader, books })
}

impl Downward {
    /// Takes note of the next piece; whether the provider has now said goodbye.
    pub(super) fn passes(&mut self, piece: &[u8]) -> bool {
        let Self { frames, reader, books } = self;
        books.session.passed(piece.len());
        frames.push(piece, &mut |event| match reader {
            _ if event.name == CLOSE => books.closed = Some(close_code(event.data)),
            Some(reader) => {
                books.complaint = None;
                reader.message(event.data, &mut |news| books.note(news));
            }
            None => {}
        });
        self.books.closed.is_some()
    }

    /// Closes every record. `ender` ended the session; whether `app_closed` it with a close frame.
    pub(super) fn close(mut self, ender: Ender, app_closed: bool) {
        let (outcome, error_type) = match ender {
            Ender::App | Ender::Shutdown => (Outcome::Cancelled, ErrorType::Cancelled),
            Ender::Provider => (Outcome::UpstreamError, ErrorType::StreamAborted),
            Ender::Silence => (Outcome::Timeout, ErrorType::Timeout),
        };
        let cut = |said| End { outcome, error_type: Some(error_type), detail: None, said };
        if let Some(reader) = self.reader.take() {
            reader.finish(&mut |news| match news {
                News::Ended(turn, told) => self.books.end(turn, cut(bounded(told.said))),
                other => self.books.note(other),
            });
        }
        let said = Said { ending: Ending::Unknown, ..Said::default() };
        let end = match (self.books.complaint, self.books.closed) {
            // The provider complained and left: it is why the session is over.
            (Some(status), closed) if ender == Ender::Provider || closed.is_some() => {
                end_of(status, Said { ending: Ending::Failed, ..said })
            }
            (_, Some(code)) if ender == Ender::Provider && !WELL.contains(&code) => {
                End { detail: Some(format!("the provider closed the session with code {code}").into()), ..cut(said) }
            }
            (_, closed) if app_closed || closed.is_some() => end_of(StatusCode::OK, said),
            _ => cut(said),
        };
        self.books.session.upstream_done();
        self.books.session.close(end);
    }
}

impl Books {
    fn note(&mut self, news: News) {
        match news {
            News::Began(turn) => {
                let mut entry = self.entry(Operation::Chat, self.model.clone());
                entry.sending();
                entry.answered_in_session(StatusCode::OK);
                self.turns.insert(turn, entry);
            }
            News::Content(turn) => {
                if let Some(entry) = self.turns.get_mut(&turn) {
                    entry.content_came();
                }
            }
            News::Ended(turn, told) => self.end_told(turn, told),
            News::Beside(operation, told) => {
                // Another model than the one that answers did this.
                let mut entry = self.entry(operation, None);
                entry.answered_in_session(told.status);
                entry.close(end_of(told.status, bounded(told.said)));
            }
            News::Complained(status) => self.complaint = Some(status),
        }
    }

    fn end_told(&mut self, turn: Turn, told: Told) {
        if let Some(entry) = self.turns.get_mut(&turn) {
            entry.answered_in_session(told.status);
        }
        self.end(turn, end_of(told.status, bounded(told.said)));
    }

    fn end(&mut self, turn: Turn, end: End) {
        if let Some(mut entry) = self.turns.remove(&turn) {
            entry.upstream_done();
            entry.close(end);
        }
    }

    fn entry(&self, operation: Operation, model: Option<Box<str>>) -> Entry {
        let mut entry = Entry::in_session(&self.rooms, &self.to, operation, model, self.caller.clone());
        admission::charge(&self.rooms, &self.to, self.credential.as_deref(), &mut entry);
        entry
    }
}

impl std::fmt::Debug for Downward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downward")
            .field("frames", &self.frames)
            .field("session", &self.books.session)
            .finish_non_exhaustive()
    }
}

/// The code of a close frame; 1005 if it has none.
fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// What was said, with no word of the provider's longer than is kept.
fn bounded(said: Said) -> Said {
    Said { facts: said.facts.bounded(), ..said }
}
