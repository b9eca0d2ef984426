//! Flight: one fetch per key. Who asks for what is being fetched already rides along: it is given what has come so far,
//! then what comes.
//!
//! A flight holds the source of what is fetched, and whoever rides polls it: there is no task, no channel, and nothing
//! to hand over when a rider leaves or does not poll for a while. Knows keys, pieces and wakers; not HTTP clients, not
//! providers, not what is fetched or who pays for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The most that is copied for a rider at once.
const MAX_COPIED: usize = 64 << 10;

/// What has come of a source, as far as it is kept: all of it while that is within a limit. Beyond the limit, only what
/// somebody still needs.
#[derive(Debug)]
pub struct Log {
    kept: BytesMut,
    /// What was kept, once nothing more comes.
    frozen: Bytes,
    /// Where `kept` begins.
    from: u64,
    total: u64,
    limit: usize,
}

impl Log {
    /// An empty log that keeps all of what is no larger than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { kept: BytesMut::new(), frozen: Bytes::new(), from: 0, total: 0, limit }
    }

    /// Adds a piece that nobody needs to read again.
    pub fn note(&mut self, piece: &[u8]) {
        self.push(piece, None);
    }

    /// Adds a piece. Beyond the limit, only what lies behind `needed_from` is kept.
    fn push(&mut self, piece: &[u8], needed_from: Option<u64>) {
        self.total += piece.len() as u64;
        if self.is_whole() {
            return self.kept.extend_from_slice(piece);
        }
        self.let_go(needed_from.unwrap_or(self.total));
        match needed_from {
            Some(_) => self.kept.extend_from_slice(piece),
            None => self.from = self.total,
        }
    }

    /// How much has come.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether all that came is kept.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.total <= self.limit as u64
    }

    /// All that came, once nothing more comes; `None` if it was too much.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        self.is_whole().then_some(&self.frozen)
    }

    /// Nothing more comes.
    pub fn freeze(&mut self) {
        self.frozen = std::mem::take(&mut self.kept).freeze();
    }

    /// Whether no more should come before somebody has taken of what is kept.
    fn is_full(&self) -> bool {
        !self.is_whole() && self.kept.len() >= self.limit
    }

    /// A piece from `at` on; `None` if nothing has come since.
    fn read(&self, at: u64) -> Option<Bytes> {
        let skipped = usize::try_from(at - self.from).expect("what is kept fits into memory");
        if at >= self.total {
            None
        } else if self.frozen.is_empty() {
            let rest = &self.kept[skipped..];
            Some(Bytes::copy_from_slice(&rest[..rest.len().min(MAX_COPIED)]))
        } else {
            Some(self.frozen.slice(skipped..))
        }
    }

    fn let_go(&mut self, before: u64) {
        let unneeded =
            usize::try_from(before.saturating_sub(self.from)).map_or(self.kept.len(), |n| n.min(self.kept.len()));
        self.from += unneeded as u64;
        if unneeded == self.kept.len() {
            // Given back, not just emptied: it may never be needed again.
            self.kept = BytesMut::new();
        } else {
            self.kept.advance(unneeded);
        }
    }
}

/// The flights there are.
pub struct Flights<S: Source> {
    open: Open<S>,
    limit: usize,
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
        Self { open: Arc::default(), limit }
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
        let flight = Arc::new(Flight::new(*place.key(), &self.open, self.limit));
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
    fn new(question: Question, among: &Open<S>, limit: usize) -> Self {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        let state = Mutex::new(State {
            source: None,
            head: None,
            log: Log::new(limit),
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
                let whole = (state.log.frozen.clone(), end.clone());
                state.seats[seat] = Some(state.log.total());
                Some(Some(whole))
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
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::cache::tests::key;

    /// What a test has a source do.
    #[derive(Clone, Debug)]
    enum Step {
        Head,
        Piece(Vec<u8>),
        /// The source was woken within its own poll: it is to be polled again.
        WakesAtOnce,
    }

    /// A source that goes on as the test says, and wakes whoever polled it last, as sources do.
    #[derive(Clone, Debug, Default)]
    struct Script(Arc<Mutex<Scripted>>);

    #[derive(Debug, Default)]
    struct Scripted {
        ready: VecDeque<Step>,
        over: bool,
        polls: usize,
        waker: Option<Waker>,
        ended_with: Option<(Option<Vec<u8>>, Company)>,
    }

    impl Script {
        fn goes_on(&self, step: Step) {
            self.change(|script| script.ready.push_back(step));
        }

        fn ends(&self) {
            self.change(|script| script.over = true);
        }

        fn change(&self, change: impl FnOnce(&mut Scripted)) {
            let mut script = lock(&self.0);
            change(&mut script);
            let waker = script.waker.take();
            drop(script);
            if let Some(waker) = waker {
                waker.wake();
            }
        }

        fn polls(&self) -> usize {
            lock(&self.0).polls
        }
    }

    impl Source for Script {
        type Head = &'static str;
        type End = &'static str;

        fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Came<&'static str>> {
            let mut script = lock(&self.0);
            script.polls += 1;
            match script.ready.pop_front() {
                Some(Step::Head) => Poll::Ready(Came::Head("head")),
                Some(Step::Piece(piece)) => Poll::Ready(Came::Piece(piece.into())),
                Some(Step::WakesAtOnce) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None if script.over => Poll::Ready(Came::Over),
                None => {
                    script.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }

        fn is_over(&self) -> bool {
            let script = lock(&self.0);
            script.over && script.ready.is_empty()
        }

        fn end(self, log: &Log, company: Company) -> &'static str {
            lock(&self.0).ended_with = Some((log.whole().map(|whole| whole.to_vec()), company));
            "end"
        }
    }

    /// Somebody who is only polled again once woken, as a task is.
    struct Rider {
        ride: Option<Ride<Script>>,
        woken: Arc<Flag>,
        has_head: bool,
        read: Vec<u8>,
        over: bool,
    }

    #[derive(Default)]
    struct Flag {
        is_up: AtomicBool,
        times: AtomicUsize,
    }

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.is_up.store(true, Ordering::SeqCst);
            self.times.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Rider {
        fn new(ride: Ride<Script>) -> Self {
            let woken = Arc::<Flag>::default();
            woken.is_up.store(true, Ordering::SeqCst);
            Self { ride: Some(ride), woken, has_head: false, read: Vec::new(), over: false }
        }

        fn is_woken(&self) -> bool {
            self.woken.is_up.load(Ordering::SeqCst)
        }

        /// Takes one step; one that got on goes on at once.
        fn step(&mut self) {
            self.woken.is_up.store(false, Ordering::SeqCst);
            if self.gets_on() {
                self.woken.is_up.store(true, Ordering::SeqCst);
            }
        }

        fn gets_on(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            let mut cx = Context::from_waker(&waker);
            let Some(ride) = &mut self.ride else { return false };
            if !self.has_head {
                let Poll::Ready(head) = ride.poll_head(&mut cx) else { return false };
                assert_eq!(head, Ok("head"));
                self.has_head = true;
                return true;
            }
            let Poll::Ready(Next { piece, end }) = ride.poll_next(&mut cx) else { return false };
            self.read.extend_from_slice(&piece.unwrap_or_default());
            self.over = end.is_some();
            if self.over {
                self.ride = None;
            }
            true
        }

        /// Goes on until it has to wait.
        fn run(&mut self) {
            run([self]);
        }
    }

    fn board(flights: &Flights<Script>) -> (Ride<Script>, bool) {
        match flights.board(key(1), Asked::default()) {
            Boarding::Lead(ride) => (ride, true),
            Boarding::Follow(ride) => (ride, false),
        }
    }

    fn lead(flights: &Flights<Script>) -> (Rider, Script) {
        let (ride, is_first) = board(flights);
        assert!(is_first);
        let script = Script::default();
        ride.take_off(script.clone());
        (Rider::new(ride), script)
    }

    fn follow(flights: &Flights<Script>) -> Rider {
        let (ride, is_first) = board(flights);
        assert!(!is_first);
        Rider::new(ride)
    }

    const PIECES: [&[u8]; 4] = [b"one ", b"two ", b"three ", b"four"];
    const ALL: &[u8] = b"one two three four";

    #[test]
    fn whoever_joins_and_leaves_whenever_the_others_get_all_of_it() {
        for (joins, leaves) in
            (0..=PIECES.len()).flat_map(|joins| (joins..=PIECES.len()).map(move |leaves| (joins, leaves)))
        {
            let flights = Flights::new(1000);
            let (mut first, script) = lead(&flights);
            let mut second = None;
            script.goes_on(Step::Head);
            for at in 0..=PIECES.len() {
                if at == joins {
                    second = Some(follow(&flights));
                }
                run(second.iter_mut().chain([&mut first]));
                if at == leaves {
                    first.ride = None;
                }
                match PIECES.get(at) {
                    Some(piece) => script.goes_on(Step::Piece(piece.to_vec())),
                    None => script.ends(),
                }
            }
            let mut second = second.expect("it joined");
            run([&mut second]);
            assert!(second.over, "joined before {joins}, the first left before {leaves}");
            assert_eq!(second.read, ALL, "joined before {joins}, the first left before {leaves}");
            assert_eq!(lock(&script.0).ended_with, Some((Some(ALL.to_vec()), Company::Others)));
            assert!(flights.is_empty());
        }
    }

    #[test]
    fn whatever_happens_in_whatever_order_nobody_misses_a_byte_or_sleeps_on() {
        for seed in 0..3000 {
            let mut chance = Chance(seed);
            // Most of what comes is far larger than the smaller limit.
            let limit = if seed % 2 == 0 { 100_000 } else { 40 };
            let flights = Flights::new(limit);
            let (first, script) = lead(&flights);
            let mut riders = vec![first];
            let mut came = Vec::new();
            script.goes_on(Step::Head);
            for _ in 0..chance.below(120) {
                match chance.below(10) {
                    0 => match board(&flights) {
                        (ride, false) => riders.push(Rider::new(ride)),
                        // Too late, or everybody has left.
                        (ride, true) => drop(ride),
                    },
                    1 if riders.len() > 1 => drop(riders.swap_remove(chance.below(riders.len()))),
                    2 | 3 => {
                        let piece = vec![u8::try_from(came.len() % 251).expect("below"); 1 + chance.below(30)];
                        came.extend_from_slice(&piece);
                        script.goes_on(Step::Piece(piece));
                    }
                    4 => script.goes_on(Step::WakesAtOnce),
                    _ => {
                        let at = chance.below(riders.len());
                        if riders[at].is_woken() {
                            riders[at].step();
                        }
                    }
                }
                let flight = riders.iter().find_map(|rider| rider.ride.as_ref()).map(|ride| &ride.flight);
                let kept = flight.map_or(0, |flight| lock(&flight.state).log.kept.len());
                assert!(kept <= limit + 30, "seed {seed}: {kept} bytes are kept");
            }
            script.ends();
            while let Some(rider) = riders.iter_mut().find(|rider| rider.ride.is_some() && rider.is_woken()) {
                rider.step();
            }
            for rider in &riders {
                assert!(rider.over, "seed {seed}: it sleeps on");
                assert_eq!(rider.read, came, "seed {seed}");
            }
            assert!(flights.is_empty(), "seed {seed}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn on_many_threads_as_well() {
        for round in 0..50 {
            let flights = Flights::new(if round % 2 == 0 { 100_000 } else { 200 });
            let (first, script) = lead(&flights);
            let riders = (0..20).map(|_| follow(&flights)).chain([first]);
            let tasks: Vec<_> = riders
                .enumerate()
                .map(|(number, rider)| {
                    tokio::spawn(async move {
                        let mut ride = rider.ride.expect("just joined");
                        let mut read = Vec::new();
                        assert_eq!(std::future::poll_fn(|cx| ride.poll_head(cx)).await, Ok("head"));
                        loop {
                            let Next { piece, end } = std::future::poll_fn(|cx| ride.poll_next(cx)).await;
                            read.extend_from_slice(&piece.unwrap_or_default());
                            // Some leave on the way.
                            if end.is_some() || (number % 3 == 0 && read.len() > 20 * number) {
                                return (end.is_some(), read);
                            }
                        }
                    })
                })
                .collect();
            script.goes_on(Step::Head);
            let came: Vec<u8> = (0..=250).cycle().take(2000).collect();
            for piece in came.chunks(17) {
                script.goes_on(Step::Piece(piece.to_vec()));
                tokio::task::yield_now().await;
            }
            script.ends();
            for task in tasks {
                let ended =
                    tokio::time::timeout(std::time::Duration::from_secs(20), task).await.expect("nobody sleeps on");
                let (is_whole, read) = ended.expect("no rider panics");
                assert!(if is_whole { read == came } else { came.starts_with(&read) });
            }
            assert!(flights.is_empty());
        }
    }

    #[test]
    fn one_alone_has_the_source_wake_it_itself_and_keeps_no_more_than_the_limit() {
        let flights = Flights::new(6);
        let (mut alone, script) = lead(&flights);
        script.goes_on(Step::Head);
        alone.run();
        let ride = alone.ride.as_ref().expect("it rides");
        assert!(lock(&ride.flight.bell.waiting).is_empty(), "no second lock was needed");
        for (piece, kept) in [(&b"1234"[..], 4), (b"5678", 0), (b"9", 0)] {
            script.goes_on(Step::Piece(piece.to_vec()));
            assert!(alone.is_woken());
            alone.run();
            let ride = alone.ride.as_ref().expect("it rides");
            assert_eq!(lock(&ride.flight.state).log.kept.len(), kept);
            assert_eq!(flights.is_empty(), kept == 0, "what has let go of its beginning cannot be joined");
        }
        script.ends();
        alone.run();
        assert_eq!((alone.over, alone.read.as_slice()), (true, &b"123456789"[..]));
        assert_eq!(lock(&script.0).ended_with, Some((None, Company::Nobody)));
    }

    #[test]
    fn beyond_the_limit_the_slowest_sets_the_pace() {
        let flights = Flights::new(8);
        let (mut fast, script) = lead(&flights);
        let mut slow = follow(&flights);
        script.goes_on(Step::Head);
        run([&mut fast, &mut slow]);
        for _ in 0..10 {
            script.goes_on(Step::Piece(b"1234".to_vec()));
        }
        run([&mut fast]);
        assert_eq!(fast.read.len(), 12, "one piece beyond the limit, and no more");
        let polls = script.polls();
        fast.step();
        assert_eq!(script.polls(), polls, "the source is left alone");
        slow.step();
        assert!(fast.is_woken(), "there is space again");
        script.ends();
        run([&mut fast, &mut slow]);
        assert_eq!((fast.read.len(), slow.read.len()), (40, 40));
    }

    #[test]
    fn the_slowest_holds_nobody_up_once_it_has_left() {
        let flights = Flights::new(8);
        let (mut fast, script) = lead(&flights);
        let mut slow = follow(&flights);
        script.goes_on(Step::Head);
        for _ in 0..10 {
            script.goes_on(Step::Piece(b"1234".to_vec()));
        }
        run([&mut fast]);
        slow.ride = None;
        assert!(fast.is_woken());
        script.ends();
        run([&mut fast]);
        assert_eq!(fast.read.len(), 40);
    }

    #[test]
    fn all_of_it_can_be_waited_for_unless_it_is_too_much() {
        for (limit, expected) in [(100, Some(ALL)), (10, None)] {
            let flights = Flights::new(limit);
            let (mut first, script) = lead(&flights);
            let mut waiting = follow(&flights).ride.expect("it joined");
            script.goes_on(Step::Head);
            first.run();
            let mut cx = Context::from_waker(Waker::noop());
            assert!(waiting.poll_whole(&mut cx).is_pending());
            for piece in PIECES {
                script.goes_on(Step::Piece(piece.to_vec()));
            }
            script.ends();
            let Poll::Ready(whole) = waiting.poll_whole(&mut cx) else { panic!("there is something to say") };
            assert_eq!(whole.as_ref().map(|(whole, _)| &whole[..]), expected);
            // The first one did nothing meanwhile, and still gets all of it.
            let mut also = Rider { has_head: true, ..Rider::new(waiting) };
            run([&mut first, &mut also]);
            assert_eq!(first.read, ALL);
            assert_eq!(also.read, if expected.is_some() { &b""[..] } else { ALL }, "taken as it comes instead");
        }
    }

    #[test]
    fn what_is_not_fetched_after_all_is_left_to_the_next() {
        let flights = Flights::<Script>::new(100);
        let (first, _) = board(&flights);
        let (mut second, is_first) = board(&flights);
        assert!(!is_first);
        let woken = Arc::<Flag>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(second.poll_head(&mut cx).is_pending());
        drop(first);
        assert_eq!(woken.times.load(Ordering::SeqCst), 1);
        assert_eq!(second.poll_head(&mut cx), Poll::Ready(Err(None)));
        assert!(board(&flights).1, "whoever comes next is the first");
    }

    #[test]
    fn what_ends_without_a_head_says_how() {
        let flights = Flights::new(100);
        let (first, script) = lead(&flights);
        let second = follow(&flights);
        script.ends();
        let mut cx = Context::from_waker(Waker::noop());
        for rider in [first, second] {
            let mut ride = rider.ride.expect("it joined");
            assert_eq!(ride.poll_head(&mut cx), Poll::Ready(Err(Some("end"))));
            assert!(matches!(ride.leave(|_, _| unreachable!("it is over")), Left::Over("end", true)));
        }
    }

    #[test]
    fn the_last_to_leave_takes_the_source_along() {
        let flights = Flights::new(100);
        let (mut first, script) = lead(&flights);
        let mut second = follow(&flights);
        script.goes_on(Step::Head);
        script.goes_on(Step::Piece(b"abc".to_vec()));
        run([&mut first]);
        second.step();
        let mut seen = Vec::new();
        let left = first.ride.take().expect("it rides").leave(|source, had| seen.push((source.is_some(), had)));
        assert!(matches!(left, Left::Others));
        let left = second.ride.take().expect("it rides").leave(|source, had| seen.push((source.is_some(), had)));
        let Left::Nobody(Some(_), mut log, Company::Others) = left else { panic!("{left:?}") };
        log.freeze();
        assert_eq!(log.whole().map(|whole| &whole[..]), Some(&b"abc"[..]));
        assert_eq!(seen, [(true, Some(3)), (true, None)], "the second had only the head");
        assert!(flights.is_empty());
    }

    #[test]
    fn who_does_not_want_to_join_leads_or_goes_alone() {
        let flights = Flights::<Script>::new(100);
        let first = flights.lead(key(1), Asked::default()).expect("there is none");
        assert!(flights.lead(key(1), Asked::default()).is_none());
        assert!(!board(&flights).1, "others may join");
        drop(first);
        assert!(flights.lead(key(1), Asked::default()).is_some());
    }

    /// Runs whoever is woken until all wait.
    fn run<'a>(riders: impl IntoIterator<Item = &'a mut Rider>) {
        let mut riders: Vec<_> = riders.into_iter().collect();
        while let Some(rider) = riders.iter_mut().find(|rider| rider.ride.is_some() && rider.is_woken()) {
            rider.step();
        }
    }

    /// Numbers that look like chance and are the same each time.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
        }
    }
}
