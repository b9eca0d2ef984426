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
use crate::frames::websocket::{CLOSE, Decoder, goodbye};
use crate::limits::refusal::Refusal;
use crate::provider::session::{News, Opened, ReadSession, Told, Turn};
use crate::provider::{Ending, Said};
use crate::record::call::Operation;
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
    /// A budget is spent.
    Budget,
}

/// What becomes of a session once a piece of it has come.
#[derive(Debug)]
pub(super) enum Passing {
    /// It goes on.
    On,
    /// The provider has said goodbye.
    Closed,
    /// It is over: of the piece only so many bytes are still for the app, and then this.
    Over(usize, Vec<u8>),
}

/// The code of a close frame to an app whose session is over for a policy's sake (RFC 6455, section 7.4.1).
const POLICY: u16 = 1008;

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
    /// Bytes that passed before the next piece.
    passed: u64,
    reader: Option<Box<dyn ReadSession>>,
    books: Books,
}

/// The records of one session.
struct Books {
    rooms: Arc<Rooms>,
    to: Arc<Destination>,
    credential: Option<Box<str>>,
    model: Option<Box<str>>,
    session: Entry,
    turns: BTreeMap<Turn, Entry>,
    /// The last complaint, if nothing but the end has come since.
    complaint: Option<StatusCode>,
    /// The code of the provider's close frame.
    closed: Option<u16>,
    /// Why the session may not go on.
    refused: Option<Box<Refusal>>,
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
        credential,
        model,
        session,
        turns: BTreeMap::new(),
        complaint: None,
        closed: None,
        refused: None,
    };
    (upward, Downward { frames: Decoder::new(max_message_bytes), passed: 0, reader, books })
}

impl Downward {
    /// Takes note of the next piece; what becomes of the session.
    pub(super) fn passes(&mut self, piece: &[u8]) -> Passing {
        let Self { frames, passed, reader, books } = self;
        let mut ends_at = None;
        frames.push(piece, &mut |event| match reader {
            // What comes after the message that was one too many is for nobody.
            _ if ends_at.is_some() => {}
            _ if event.name == CLOSE => books.closed = Some(close_code(event.data)),
            Some(reader) => {
                books.complaint = None;
                reader.message(event.data, &mut |news| books.note(news));
                ends_at = books.refused.as_ref().map(|_| event.span.end);
            }
            None => {}
        });
        let keep = ends_at.map(|end| usize::try_from(end.saturating_sub(*passed)).unwrap_or(piece.len()));
        *passed += piece.len() as u64;
        books.session.passed(keep.unwrap_or(piece.len()));
        match (keep, &books.refused) {
            (Some(keep), Some(refusal)) => Passing::Over(keep, goodbye(POLICY, &refusal.to_string())),
            _ if books.closed.is_some() => Passing::Closed,
            _ => Passing::On,
        }
    }

    /// Closes every record. `ender` ended the session; whether `app_closed` it with a close frame.
    pub(super) fn close(mut self, ender: Ender, app_closed: bool) {
        let (outcome, error_type) = match ender {
            Ender::App | Ender::Shutdown => (Outcome::Cancelled, ErrorType::Cancelled),
            Ender::Provider => (Outcome::UpstreamError, ErrorType::StreamAborted),
            Ender::Silence => (Outcome::Timeout, ErrorType::Timeout),
            Ender::Budget => (Outcome::BudgetBlocked, ErrorType::Status(StatusCode::TOO_MANY_REQUESTS.as_u16())),
        };
        let detail = self.books.refused.as_ref().map(|refusal| Box::from(refusal.to_string()));
        let cut = |said| End { outcome, error_type: Some(error_type), detail: detail.clone(), said };
        if let Some(reader) = self.reader.take() {
            reader.finish(&mut |news| match news {
                News::Ended(turn, told) => self.books.end(turn, cut(bounded(told.said))),
                other => self.books.note(other),
            });
        }
        let said = Said { ending: Ending::Unknown, ..Said::default() };
        let end = match (self.books.complaint, self.books.closed) {
            _ if ender == Ender::Budget => cut(said),
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
        if let Some(refusal) = &self.books.refused {
            self.books.session.tell(|told| told.budget = Some(Arc::clone(&refusal.rule)));
        }
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
                if self.refused.is_none() {
                    self.refused = admission::is_over(&self.rooms, &self.to, self.credential.as_deref(), &entry);
                }
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
        let mut entry = Entry::in_session(&self.rooms, &self.to, operation, model, &self.session);
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
