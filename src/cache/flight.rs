//! Flight: one fetch per key. Who asks for what is being fetched already rides along: it is given what has come so far,
//! then what comes.
//!
//! A flight holds the source of what is fetched, and whoever rides polls it: there is no task, no channel, and nothing
//! to hand over when a rider leaves or does not poll for a while. Knows keys, pieces and wakers; not HTTP clients, not
//! providers, not what is fetched or who pays for it.

pub mod log;

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use foldhash::HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::allowance::Allowance;
use crate::cache::flight::log::Log;
use crate::cache::invalidation::Asked;
use crate::cache::key::Key;
use crate::units::Span;

/// What the operator writes of calls that ask the same at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether a call that is equal to one in flight waits for that one's answer instead of asking the provider again.
    pub enabled: bool,
    /// How long a call waits for another one's answer, or for a stream to begin, before it asks the provider itself.
    pub timeout: Span,
}

impl Default for Settings {
    /// Half of the ten minutes that SDKs wait by default, so that there is time left to ask.
    fn default() -> Self {
        Self { enabled: true, timeout: Span::from_secs(300) }
    }
}

/// What is being fetched: a head, then pieces, then an end.
pub trait Source {
    /// What comes first.
    type Head: Clone;
    /// What there is to know once nothing more comes.
    type End: Clone;

    /// What comes next. Not asked again once it is over.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Came<Self::Head>>;

    /// Whether it is known, without asking, that nothing more comes.
    fn is_over(&self) -> bool;

    /// The end, once nothing more comes. `log` has all that came, if that was not too much.
    fn end(self, log: &Log, company: Company) -> Self::End;
}

/// What came from a source.
#[derive(Debug)]
pub enum Came<H> {
    /// What comes first, once.
    Head(H),
    /// A piece, never empty.
    Piece(Bytes),
    /// Nothing more.
    Over,
}

/// Who rode a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Nobody but the one who began it.
    Nobody,
    /// Somebody joined it, and may have left it again.
    Others,
}

/// The flights there are.
pub struct Flights<S: Source> {
    open: Open<S>,
    limit: usize,
    /// What all of them keep together, where that is bounded.
    allowance: Option<Allowance>,
}

type Open<S> = Arc<Mutex<HashMap<Question, Arc<Flight<S>>>>>;

/// What two must have in common to fly together. A rule made since one of them was asked may have named its answer.
type Question = (Key, Asked);

/// How somebody came aboard.
#[derive(Debug)]
pub enum Boarding<S: Source> {
    /// First: who [takes off](Ride::take_off), or leaves so that somebody else can.
    Lead(Ride<S>),
    /// With others.
    Follow(Ride<S>),
}

impl<S: Source> Flights<S> {
    /// None yet. Each keeps what comes while it is no more than `limit` bytes; one that has brought more cannot be
    /// joined, as its beginning is gone.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { open: Arc::default(), limit, allowance: None }
    }

    /// The same, and what all of them keep together is within `allowance`: one for which there is no room cannot be joined.
    #[must_use]
    pub fn within(self, allowance: Allowance) -> Self {
        Self { allowance: Some(allowance), ..self }
    }

    /// Joins the flight for `key` that was begun after the same rules, or begins one.
    #[must_use]
    pub fn board(&self, key: Key, asked: Asked) -> Boarding<S> {
        let mut closed: Option<Arc<Flight<S>>> = None;
        loop {
            let known = match lock(&self.open).entry((key, asked)) {
                Entry::Occupied(known) if closed.as_ref().is_none_or(|closed| !Arc::ptr_eq(closed, known.get())) => {
                    Arc::clone(known.get())
                }
                // None, or one that could not be joined any more and is about to be removed.
                vacant => return Boarding::Lead(self.begin(vacant)),
            };
            if let Some(seat) = known.join() {
                return Boarding::Follow(Ride { flight: known, seat, has_left: false });
            }
            closed = Some(known);
        }
    }

    /// Begins a flight for `key`, unless there is one.
    #[must_use]
    pub fn lead(&self, key: Key, asked: Asked) -> Option<Ride<S>> {
        match lock(&self.open).entry((key, asked)) {
            Entry::Occupied(_) => None,
            vacant @ Entry::Vacant(_) => Some(self.begin(vacant)),
        }
    }

    /// How many can be joined.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.open).len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many ride on those that can be joined.
    #[must_use]
    pub fn riders(&self) -> usize {
        let open: Vec<_> = lock(&self.open).values().map(Arc::clone).collect();
        open.iter().map(|flight| lock(&flight.state).riders).sum()
    }

    fn begin(&self, place: Entry<'_, Question, Arc<Flight<S>>>) -> Ride<S> {
        let share = self.allowance.as_ref().map(Allowance::share);
        let flight = Arc::new(Flight::new(*place.key(), &self.open, Log::new(self.limit).within(share)));
        place.insert_entry(Arc::clone(&flight));
        Ride { flight, seat: 0, has_left: false }
    }
}

impl<S: Source> fmt::Debug for Flights<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("open", &self.len()).field("riders", &self.riders()).finish_non_exhaustive()
    }
}

/// One fetch.
struct Flight<S: Source> {
    question: Question,
    among: Open<S>,
    state: Mutex<State<S>>,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
}

struct State<S: Source> {
    /// There between take-off and end.
    source: Option<S>,
    head: Option<S::Head>,
    log: Log,
    /// The last piece, for all who are there to take it as it comes.
    latest: Bytes,
    end: Option<S::End>,
    /// How far each rider has come; `None` is a free seat.
    seats: Vec<Option<u64>>,
    riders: usize,
    /// Who waits while there is only one, who polls the source for itself.
    lone: Option<Waker>,
    company: Company,
    /// The last rider has left, or the first one before it took off: nothing will come.
    is_given_up: bool,
    is_listed: bool,
}

impl<S: Source> Flight<S> {
    fn new(question: Question, among: &Open<S>, log: Log) -> Self {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        let state = Mutex::new(State {
            source: None,
            head: None,
            log,
            latest: Bytes::new(),
            end: None,
            seats: vec![Some(0)],
            riders: 1,
            lone: None,
            company: Company::Nobody,
            is_given_up: false,
            is_listed: true,
        });
        Self { question, among: Arc::clone(among), state, bell, waker }
    }

    /// A seat for another rider, unless it is too late.
    fn join(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        if !state.is_open() {
            return None;
        }
        let seat = state.seats.iter().position(Option::is_none).unwrap_or(state.seats.len());
        if seat == state.seats.len() {
            state.seats.push(None);
        }
        state.seats[seat] = Some(0);
        state.riders += 1;
        state.company = Company::Others;
        let lone = state.lone.take();
        drop(state);
        // Who was alone has the source wake itself; from now on the bell must ring for it as well.
        if let Some(lone) = lone {
            lone.wake();
        }
        Some(seat)
    }

    /// Has the source go on; pending if it does not, or must wait for somebody.
    fn advance(&self, state: &mut State<S>, seat: usize, cx: &mut Context<'_>) -> Poll<()> {
        let is_alone = state.riders == 1;
        // First this, then the source: whoever it wakes from now on is there to be woken.
        if is_alone {
            state.wait_alone(cx.waker());
        } else {
            self.bell.wait(seat, cx.waker());
        }
        let Some(source) = state.source.as_mut().filter(|_| !state.log.is_full()) else { return Poll::Pending };
        let came =
            if is_alone { source.poll_next(cx) } else { source.poll_next(&mut Context::from_waker(&self.waker)) };
        match ready!(came) {
            Came::Head(head) => state.head = Some(head),
            Came::Piece(piece) => state.take_in(piece),
            Came::Over => state.finish(),
        }
        if state.source.as_ref().is_some_and(S::is_over) {
            state.finish();
        }
        Poll::Ready(())
    }

    /// Takes a flight that nobody can join any more out of those there are. The state must not be locked.
    fn unlist(&self) {
        let mut among = lock(&self.among);
        if among.get(&self.question).is_some_and(|known| std::ptr::eq(&raw const **known, self)) {
            among.remove(&self.question);
        }
    }
}

impl<S: Source> State<S> {
    fn is_open(&self) -> bool {
        self.end.is_none() && !self.is_given_up && self.log.is_whole()
    }

    /// Whether it has just become one that nobody can join.
    fn closes(&mut self) -> bool {
        let closes = self.is_listed && !self.is_open();
        self.is_listed &= !closes;
        closes
    }

    fn wait_alone(&mut self, waker: &Waker) {
        if !self.lone.as_ref().is_some_and(|lone| lone.will_wake(waker)) {
            self.lone = Some(waker.clone());
        }
    }

    fn take_in(&mut self, piece: Bytes) {
        let slowest = self.slowest();
        // Who is alone takes the piece itself, at once.
        let is_needed = self.riders > 1 || slowest < self.log.total();
        self.log.push(&piece, is_needed.then_some(slowest));
        self.latest = piece;
    }

    fn finish(&mut self) {
        if let Some(source) = self.source.take() {
            self.log.freeze();
            self.end = Some(source.end(&self.log, self.company));
        }
    }

    /// The next piece for this seat, and the end with the last one, if that is known.
    fn next(&mut self, seat: usize) -> Option<Next<S::End>> {
        let at = self.position(seat);
        let is_latest = !self.latest.is_empty() && at + self.latest.len() as u64 == self.log.total();
        let piece = if !is_latest {
            self.log.read(at)
        } else if self.riders == 1 {
            Some(std::mem::take(&mut self.latest))
        } else {
            Some(self.latest.clone())
        };
        let Some(piece) = piece else {
            return self.end.clone().map(|end| Next { piece: None, end: Some(end) });
        };
        let at = at + piece.len() as u64;
        self.seats[seat] = Some(at);
        self.let_go();
        let end = self.end.clone().filter(|_| at == self.log.total());
        Some(Next { piece: Some(piece), end })
    }

    /// Beyond the limit, lets go of what nobody needs any more.
    fn let_go(&mut self) {
        if !self.log.is_whole() && self.end.is_none() {
            self.log.let_go(self.slowest());
        }
    }

    fn position(&self, seat: usize) -> u64 {
        self.seats[seat].expect("a rider has a seat until it leaves")
    }

    fn slowest(&self) -> u64 {
        self.seats.iter().copied().flatten().min().unwrap_or(self.log.total())
    }
}

/// What a rider is given.
#[derive(Debug, PartialEq, Eq)]
pub struct Next<E> {
    /// A piece, never empty; `None` if there is only the end.
    pub piece: Option<Bytes>,
    /// The end, if nothing follows.
    pub end: Option<E>,
}

/// A place aboard. Dropped, it is left.
pub struct Ride<S: Source> {
    flight: Arc<Flight<S>>,
    seat: usize,
    has_left: bool,
}

/// What a rider leaves behind.
#[derive(Debug)]
pub enum Left<S: Source> {
    /// Others, who go on.
    Others,
    /// Nobody: the source, if there was one, and what came of it, are the leaver's.
    Nobody(Option<S>, Log, Company),
    /// A flight that is over; whether the leaver has taken all that came.
    Over(S::End, bool),
}

impl<S: Source> Ride<S> {
    /// From now on there is something to wait for. For who came aboard first.
    pub fn take_off(&self, source: S) {
        lock(&self.flight.state).source = Some(source);
        self.flight.bell.ring(None);
    }

    /// What comes first; if it does not come, the end without it, if there was one.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Head, Option<S::End>>> {
        self.poll_for(cx, |state, _| match (&state.head, &state.end) {
            (Some(head), _) => Some(Ok(head.clone())),
            (None, end) if end.is_some() || state.is_given_up => Some(Err(end.clone())),
            (None, _) => None,
        })
    }

    /// All there is, once it has all come; `None` if it is too much to wait for, so that it has to be taken as it comes.
    pub fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Bytes, S::End)>> {
        self.poll_for(cx, |state, seat| match &state.end {
            _ if !state.log.is_whole() => Some(None),
            Some(end) => {
                let whole = state.log.whole().map(|bytes| (bytes.clone(), end.clone()));
                state.seats[seat] = Some(state.log.total());
                Some(whole)
            }
            None => None,
        })
    }

    /// The next piece.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<S::End>> {
        self.poll_for(cx, State::next)
    }

    /// Leaves. If the flight is not over, `part` sees the source, if there is one, and how much has come if this rider
    /// has taken all of it.
    pub fn leave(mut self, part: impl FnOnce(Option<&mut S>, Option<u64>)) -> Left<S> {
        self.give_up_seat(part)
    }

    /// What `pick` finds; the source goes on until it finds something.
    fn poll_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut pick: impl FnMut(&mut State<S>, usize) -> Option<T>,
    ) -> Poll<T> {
        let flight = &*self.flight;
        let mut state = lock(&flight.state);
        let was_full = state.log.is_full();
        let mut came = false;
        let picked = loop {
            if let Some(picked) = pick(&mut state, self.seat) {
                break Poll::Ready(picked);
            }
            if flight.advance(&mut state, self.seat, cx).is_pending() {
                break Poll::Pending;
            }
            came = true;
        };
        let concerns_others = state.riders > 1 && (came || (was_full && !state.log.is_full()));
        let closes = state.closes();
        drop(state);
        if closes {
            flight.unlist();
        }
        if concerns_others {
            flight.bell.ring(Some(self.seat));
        }
        picked
    }

    fn give_up_seat(&mut self, part: impl FnOnce(Option<&mut S>, Option<u64>)) -> Left<S> {
        let flight = &*self.flight;
        let mut state = lock(&flight.state);
        let at = state.seats[self.seat].take().expect("a seat is given up once");
        self.has_left = true;
        state.riders -= 1;
        // Who came first and leaves before it has taken off leaves nothing to wait for.
        state.is_given_up |= state.riders == 0 || (self.seat == 0 && state.source.is_none() && state.end.is_none());
        let total = state.log.total();
        let left = if let Some(end) = &state.end {
            Left::Over(end.clone(), at == total)
        } else {
            part(state.source.as_mut(), (at == total).then_some(total));
            if state.riders == 0 {
                let log = std::mem::replace(&mut state.log, Log::new(0));
                Left::Nobody(state.source.take(), log, state.company)
            } else {
                state.let_go();
                Left::Others
            }
        };
        let closes = state.closes();
        drop(state);
        if closes {
            flight.unlist();
        }
        flight.bell.forget(self.seat);
        // It may have been the one they waited for, or the one to go on.
        flight.bell.ring(None);
        left
    }
}

impl<S: Source> Drop for Ride<S> {
    fn drop(&mut self) {
        if !self.has_left {
            self.give_up_seat(|_, _| {});
        }
    }
}

impl<S: Source> fmt::Debug for Ride<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ride").field("key", &self.flight.question.0).field("seat", &self.seat).finish_non_exhaustive()
    }
}

/// Wakes whoever waits. Has a lock of its own, as a source may wake while it is polled.
#[derive(Debug, Default)]
struct Bell {
    /// By seat.
    waiting: Mutex<Vec<Option<Waker>>>,
}

impl Bell {
    fn wait(&self, seat: usize, waker: &Waker) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() <= seat {
            waiting.resize(seat + 1, None);
        }
        if waiting[seat].as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        let before = waiting[seat].replace(waker.clone());
        drop(waiting);
        drop(before);
    }

    fn forget(&self, seat: usize) {
        let known = lock(&self.waiting).get_mut(seat).and_then(Option::take);
        drop(known);
    }

    fn ring(&self, but_for: Option<usize>) {
        let mut waiting = lock(&self.waiting);
        let others = waiting.iter_mut().enumerate().filter(|(seat, _)| Some(*seat) != but_for);
        let woken: Vec<Waker> = others.filter_map(|(_, waker)| waker.take()).collect();
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring(None);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring(None);
    }
}

/// What a lock guards is whole even if its holder panicked: a source that did is not polled further than it got.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
