//! What riders of one flight get, whenever they come and go.

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
        // Most of what comes is far larger than the smaller limit.
        let limit = if seed % 2 == 0 { 100_000 } else { 40 };
        schedule(seed, &Flights::new(limit), limit, 30);
    }
}

#[test]
fn nor_where_there_is_less_room_than_they_need() {
    let mut declined = 0;
    for seed in 0..3000 {
        let room = Allowance::of((seed % 5) << 14);
        // Somebody else may have some of it.
        let mut taken = (seed % 3 == 0).then(|| room.share());
        let _ = taken.as_mut().is_some_and(|share| share.grow_to(20_000));
        let (limit, before) = (1_000_000, room.standing());
        let flights = Flights::new(limit).within(room.clone());
        schedule(seed, &flights, limit, 9000);
        drop(flights);
        let after = room.standing();
        declined += after.declined - before.declined;
        assert_eq!(after.held, before.held, "seed {seed}: what the flight had is given back");
    }
    assert!(declined > 500, "{declined}");
}

/// One flight, whose riders come, go and are polled by chance; all that it can come to is checked.
fn schedule(seed: u64, flights: &Flights<Script>, limit: usize, most: usize) {
    let mut chance = Chance(seed);
    let (first, script) = lead(flights);
    let mut riders = vec![first];
    let mut came = Vec::new();
    script.goes_on(Step::Head);
    for _ in 0..chance.below(120) {
        match chance.below(10) {
            0 => match board(flights) {
                (ride, false) => riders.push(Rider::new(ride)),
                // Too late, or everybody has left.
                (ride, true) => drop(ride),
            },
            1 if riders.len() > 1 => drop(riders.swap_remove(chance.below(riders.len()))),
            2 | 3 => {
                let piece = vec![u8::try_from(came.len() % 251).expect("below"); 1 + chance.below(most)];
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
        assert!(kept <= limit + most, "seed {seed}: {kept} bytes are kept");
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
            let ended = tokio::time::timeout(std::time::Duration::from_secs(20), task).await.expect("nobody sleeps on");
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
