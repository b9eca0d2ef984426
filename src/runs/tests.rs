//! Tests of runs: what is counted, how one ends, when it is a runaway loop, and that there are never too many.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::record::call::{Call, Delivery, RequestId};
use crate::record::head::HeadFacts;
use crate::record::outcome::{BypassReason, CacheStatus, ErrorType, Role};
use crate::record::usage::{Charge, Cost, TokenClass, Unpriced, Usage};
use crate::record::{Attempt, CacheFacts, ReplyFacts, Timing};

const SECOND: Duration = Duration::from_secs(1);

/// Runs, what happened to them, and a clock.
struct House {
    runs: Runs,
    events: Arc<Mutex<Vec<Event>>>,
    now: Instant,
}

impl House {
    fn new(settings: &Settings) -> Self {
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let told = Arc::clone(&events);
        let on_event = Box::new(move |event| told.lock().expect("one thread").push(event));
        Self { runs: Runs::new(settings, Arc::new(Limiter::new(20)), on_event), events, now: Instant::now() }
    }

    fn enter(&mut self, run: &str) -> Step {
        self.now += SECOND;
        self.runs.enter(&caller(run), Operation::Chat, self.now).expect("it names a run")
    }

    fn leave(&mut self, step: &Step, record: &Record) {
        self.now += SECOND;
        self.runs.leave(step, record, self.now);
    }

    /// A call of the run "r" that asks `question`; whether it is refused.
    fn call(&mut self, question: u8, change: impl FnOnce(&mut Record)) -> bool {
        let mut step = self.enter("r");
        let mut print = Fingerprint::default();
        print.push(&[question]);
        step.asks(Some(print));
        let is_refused = step.refused().is_some();
        let mut record = if is_refused { refused() } else { answered() };
        change(&mut record);
        self.leave(&step, &record);
        is_refused
    }

    fn silence(&mut self) {
        self.now += Span::from_secs(300).get();
        let _ = self.runs.active(self.now);
    }

    fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().expect("one thread"))
    }

    /// How the only run that ended did.
    fn ended(&self) -> (RunStatus, Option<ErrorType>, Duration) {
        match &self.events()[..] {
            [Event::Ended(Ended { status, error_type, took, .. })] => (*status, *error_type, *took),
            other => unreachable!("{other:?}"),
        }
    }

    fn runaways(&self) -> Vec<Reason> {
        let reason = |event| if let Event::RanAway(_, reason) = event { Some(reason) } else { None };
        self.events().into_iter().filter_map(reason).collect()
    }

    fn tally(&self) -> run::Tally {
        let shards = self.runs.shards.iter().map(lock);
        let tallies: Vec<_> =
            shards.flat_map(|shard| shard.values().map(|run| run.tally).collect::<Vec<_>>()).collect();
        let [tally] = tallies[..] else { unreachable!("{tallies:?}") };
        tally
    }
}

fn caller(run: &str) -> Caller {
    Caller { run: Some(run.into()), loop_type: Some("research".into()), ..Caller::default() }
}

/// A call of 100 tokens in and 20 out for one US dollar.
fn answered() -> Record {
    let mut charge = Charge::default();
    charge.add(TokenClass::Input, PicoUsd::new(PicoUsd::PER_USD));
    Record {
        id: RequestId::next(),
        trace: None,
        call: Call {
            provider: "openai".into(),
            operation: Operation::Chat,
            model: Some("gpt-5".into()),
            delivery: Delivery::Whole,
            caller: caller("r"),
        },
        reply: ReplyFacts::default(),
        usage: Some(Usage::cache_inside(Some(100), Some(20), &[])),
        head: HeadFacts::default(),
        cost: Cost::Known(charge),
        provenance: None,
        list_cost: None,
        priced_model: None,
        cache: CacheFacts::new(CacheStatus::Miss),
        downgrade: None,
        outcome: Outcome::Success,
        error_type: None,
        error_detail: None,
        content: None,
        prefixes: None,
        status: Some(200),
        attempt: Some(Attempt::Answered(200)),
        tries: None,
        arrived_at: SystemTime::UNIX_EPOCH,
        timing: Timing::default(),
        bytes_in: 0,
        bytes_out: 0,
    }
}

fn failed(outcome: Outcome, error_type: ErrorType) -> impl FnOnce(&mut Record) {
    move |record| (record.outcome, record.error_type) = (outcome, Some(error_type))
}

fn refused() -> Record {
    let error_type = Some(ErrorType::Status(429));
    Record { outcome: Outcome::RateLimited, error_type, attempt: None, usage: None, cost: Cost::Nothing, ..answered() }
}

fn asking_for(tool: &str, arguments: &str) -> impl FnOnce(&mut Record) {
    move |record| {
        record.reply.tools.push(tool.into());
        record.reply.call(tool);
        record.reply.argue(arguments);
    }
}

fn blocking() -> Settings {
    Settings { on_runaway: OnRunaway::Block, ..Settings::default() }
}

#[test]
fn without_a_run_id_there_is_no_run() {
    let house = House::new(&Settings::default());
    let caller = Caller { loop_type: Some("research".into()), ..Caller::default() };
    assert!(house.runs.enter(&caller, Operation::Chat, house.now).is_none());
    assert!(house.runs.is_empty());
}

#[test]
fn a_run_adds_up_what_its_calls_come_to() {
    let (one, usd) = (Span::from_secs(1), PicoUsd::new(PicoUsd::PER_USD));
    let mut house = House::new(&Settings { idle: one, ..Settings::default() });
    let tally = run::Tally { calls: 1, prompt_tokens: 100, completion_tokens: 20, cost: usd, ..Default::default() };
    for (rule, change, expected) in [
        ("what is bought", (|_| {}) as fn(&mut Record), tally),
        (
            "a hit costs nothing",
            |record| (record.cache.status, record.attempt) = (CacheStatus::Hit, None),
            run::Tally { calls: 1, ..Default::default() },
        ),
        (
            "nor does the answer to an equal call",
            |record| (record.cache.role, record.attempt) = (Some(Role::Follower), None),
            run::Tally { calls: 1, ..Default::default() },
        ),
        (
            "unknown is not zero",
            |record| (record.cost, record.usage) = (Cost::Unpriced(Unpriced::NoUsage), None),
            run::Tally { calls: 1, unpriced: 1, ..Default::default() },
        ),
        (
            "failures are calls",
            |record| {
                record.outcome = Outcome::UpstreamError;
                (record.usage, record.cost) = (None, Cost::Nothing);
            },
            run::Tally { calls: 1, errors: 1, ..Default::default() },
        ),
        (
            "tools",
            |record| record.reply.tools = vec!["look".into(), "look".into()],
            run::Tally { tool_calls: 2, ..tally },
        ),
        (
            "what weir's limits refuse is none",
            |record| (record.outcome, record.attempt) = (Outcome::BudgetBlocked, None),
            run::Tally { errors: 1, ..Default::default() },
        ),
        ("nor is what asks no model", |record| record.call.operation = Operation::Other, run::Tally::default()),
        (
            "nor are weir's own calls",
            |record| record.cache.status = CacheStatus::Bypass(BypassReason::Verify),
            run::Tally::default(),
        ),
    ] {
        house.call(0, change);
        assert_eq!(house.tally(), expected, "{rule}");
        house.now += one.get();
        let _ = house.runs.active(house.now);
    }
}

#[test]
fn a_call_in_flight_keeps_its_run_going() {
    let mut house = House::new(&Settings::default());
    let step = house.enter("r");
    house.silence();
    assert_eq!((house.runs.len(), house.events()), (1, vec![]), "it is not silent, but slow");
    let now = house.runs.active(house.now);
    assert_eq!(now.into_iter().collect::<Vec<_>>(), [("research".into(), Active { runs: 1, most_calls: 1 })]);
    house.leave(&step, &answered());
    house.silence();
    assert_eq!((house.runs.len(), house.ended().0), (0, RunStatus::Success));
}

#[test]
fn silence_ends_a_run_and_its_last_call_says_how() {
    let ends = |change: Box<dyn FnOnce(&mut Record)>| {
        let mut house = House::new(&Settings::default());
        house.call(0, failed(Outcome::UpstreamError, ErrorType::Connect));
        house.call(1, change);
        house.silence();
        house.ended()
    };
    for (rule, change, status, error_type) in [
        ("an answer", Box::new(|_: &mut Record| {}) as Box<dyn FnOnce(&mut Record)>, RunStatus::Success, None),
        ("tools that nobody called", Box::new(asking_for("look", "{}")), RunStatus::Timeout, None),
        ("a deadline", Box::new(failed(Outcome::Timeout, ErrorType::Timeout)), RunStatus::Timeout, None),
        ("an app that hung up", Box::new(failed(Outcome::Cancelled, ErrorType::Cancelled)), RunStatus::Cancelled, None),
        (
            "a failure",
            Box::new(failed(Outcome::UpstreamError, ErrorType::Status(529))),
            RunStatus::Error,
            Some(ErrorType::Status(529)),
        ),
        (
            "a refusal",
            Box::new(|record: &mut Record| *record = refused()),
            RunStatus::Error,
            Some(ErrorType::Status(429)),
        ),
    ] {
        // From the first call to the last, without the silence after it.
        assert_eq!(ends(change), (status, error_type, 3 * SECOND), "{rule}");
    }
}

#[test]
fn the_app_says_how_its_run_ends() {
    use RunStatus::{Cancelled, Error, Success, Timeout};
    for (said, outcome, expected) in [
        (Success, Outcome::Success, Some((Success, None))),
        (Error, Outcome::Success, Some((Error, Some(ErrorType::Other)))),
        (Timeout, Outcome::Success, Some((Timeout, None))),
        (Cancelled, Outcome::Cancelled, Some((Cancelled, None))),
        (Error, Outcome::UpstreamError, Some((Error, Some(ErrorType::Other)))),
        // It was to be the last call, and failed: the SDK tries again.
        (Success, Outcome::UpstreamError, None),
    ] {
        let mut house = House::new(&Settings::default());
        house.call(0, |record| {
            record.call.caller.run_ends = Some(said);
            record.outcome = outcome;
        });
        let ended = house.events().pop().map(|event| match event {
            Event::Ended(Ended { status, error_type, .. }) => (status, error_type),
            Event::RanAway(..) => unreachable!("it is not"),
        });
        assert_eq!(ended, expected, "{said:?} {outcome:?}");
        assert_eq!(house.runs.is_empty(), expected.is_some());
    }
}

#[test]
fn a_run_that_is_over_does_not_count_what_comes_late() {
    let mut house = House::new(&Settings::default());
    let late = house.enter("r");
    house.call(0, |record| record.call.caller.run_ends = Some(RunStatus::Success));
    assert_eq!(house.ended().0, RunStatus::Success);
    house.call(1, |_| {});
    house.leave(&late, &answered());
    assert_eq!(house.tally().calls, 1, "another run of the same name has begun");
}

#[test]
fn what_never_asked_a_model_was_no_loop() {
    let mut house = House::new(&Settings::default());
    house.call(0, |record| record.call.operation = Operation::Other);
    assert_eq!(house.runs.active(house.now), BTreeMap::new());
    house.silence();
    assert_eq!((house.runs.len(), house.events()), (0, vec![]));
}

#[test]
fn runs_of_other_teams_are_other_runs() {
    let house = House::new(&Settings::default());
    for (namespace, workspace) in [(None, None), (Some("a"), None), (Some("b"), None), (None, Some("a"))] {
        let caller =
            Caller { namespace: namespace.map(Into::into), workspace: workspace.map(Into::into), ..caller("1") };
        for _ in 0..2 {
            let _ = house.runs.enter(&caller, Operation::Chat, house.now);
        }
    }
    assert_eq!(house.runs.len(), 4);
}

#[test]
fn each_limit_refuses_the_call_after_it_is_used_up() {
    let usd = |dollars| Some(PicoUsd::new(dollars * PicoUsd::PER_USD));
    let minute = Some(Span::from_secs(6));
    for (reason, settings) in [
        (Reason::MaxCalls, Settings { max_calls_per_run: Some(3), ..blocking() }),
        (Reason::MaxTokens, Settings { max_tokens_per_run: Some(360), ..blocking() }),
        (Reason::MaxCost, Settings { max_cost_per_run: usd(3), ..blocking() }),
        (Reason::MaxDuration, Settings { max_duration_per_run: minute, ..blocking() }),
    ] {
        let mut house = House::new(&settings);
        let refused: Vec<bool> = (0..5).map(|question| house.call(question, |_| {})).collect();
        assert_eq!(refused, [false, false, false, true, true], "{reason:?}");
        assert_eq!(house.runaways(), [reason], "once");
        house.silence();
        assert_eq!(house.ended().0, RunStatus::Error);
        assert!(!house.call(0, |_| {}), "{reason:?}: another run");

        let mut house = House::new(&Settings { on_runaway: OnRunaway::Alert, ..settings });
        assert!(!(0..5).any(|question| house.call(question, |_| {})), "{reason:?}: only told");
        assert_eq!(house.runaways(), [reason], "once");
    }
}

#[test]
fn calls_at_once_do_not_slip_past_their_limit() {
    let mut house = House::new(&Settings { max_calls_per_run: Some(3), ..blocking() });
    let steps: Vec<Step> = (0..5).map(|_| house.enter("r")).collect();
    assert_eq!(steps.iter().filter(|step| step.refused().is_none()).count(), 3);
    for step in &steps {
        let record = if step.refused().is_some() { refused() } else { answered() };
        house.leave(step, &record);
    }
    assert_eq!((house.tally().calls, house.runaways()), (3, vec![Reason::MaxCalls]));
}

#[test]
fn what_asks_no_model_is_refused_only_once_the_run_is_blocked() {
    let mut house = House::new(&Settings { max_calls_per_run: Some(1), ..blocking() });
    house.call(0, |_| {});
    let list = |house: &House| house.runs.enter(&caller("r"), Operation::Other, house.now).expect("it names a run");
    assert!(list(&house).refused().is_none(), "it wants no further call of a model");
    assert!(house.call(1, |_| {}));
    assert!(list(&house).refused().is_some());
}

#[test]
fn so_many_equal_calls_among_the_last_sixteen_are_a_loop() {
    let calls = |house: &mut House, questions: &[u8]| questions.iter().any(|question| house.call(*question, |_| {}));
    for (rule, repeats, questions, expected) in [
        ("equal ones in a row", 3, &[1, 1, 1, 2][..], true),
        ("one less", 3, &[1, 1, 2, 3], false),
        ("others between", 3, &[1, 2, 1, 3, 1, 4], true),
        ("the last may be as it was: it is over", 3, &[1, 1, 1], false),
        ("16 calls later", 2, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 1, 18], false),
        ("15 calls later", 2, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1, 18], true),
        ("never", 0, &[1; 40], false),
    ] {
        let mut house = House::new(&Settings { repeats, ..blocking() });
        assert_eq!(calls(&mut house, questions), expected, "{rule}");
        assert_eq!(house.runaways(), Vec::from_iter(expected.then_some(Reason::RepeatedCalls)), "{rule}");
    }
}

#[test]
fn equal_tool_calls_are_a_loop_whatever_led_to_them() {
    let mut house = House::new(&Settings { repeats: 3, ..blocking() });
    let tools = [("read", r#"{"path": "a"}"#), ("read", r#"{"path":"b"}"#), ("read", r#"{"path":"a"}"#)];
    for (question, (tool, arguments)) in (0..).zip(tools) {
        assert!(!house.call(question, asking_for(tool, arguments)), "two are equal, but for white space");
    }
    assert!(!house.call(8, asking_for("read", r#"{"path":"a"}"#)));
    assert!(house.call(9, |_| {}));
    assert_eq!(house.runaways(), [Reason::RepeatedTools]);
}

#[test]
fn trying_again_is_no_loop() {
    for (rule, outcome, error_type, expected) in [
        ("overload", Outcome::UpstreamError, ErrorType::Status(529), false),
        ("a rate limit", Outcome::ClientError, ErrorType::Status(429), false),
        ("a deadline", Outcome::Timeout, ErrorType::Timeout, false),
        ("a call given up", Outcome::Cancelled, ErrorType::Cancelled, false),
        ("a request that is wrong and stays so", Outcome::ClientError, ErrorType::Status(400), true),
    ] {
        let mut house = House::new(&Settings { repeats: 2, ..blocking() });
        let was_refused = (0..5).any(|_| house.call(1, failed(outcome, error_type)));
        assert_eq!(was_refused, expected, "{rule}");
    }
}

#[test]
fn the_run_that_was_silent_for_longest_makes_room() {
    let mut house = House::new(&Settings { max_runs: 1, ..Settings::default() });
    let step = house.enter("a");
    house.leave(&step, &answered());
    let b = house.enter("b");
    assert_eq!(house.ended(), (RunStatus::Success, None, SECOND), "it ended as if it had been silent");
    let _c = house.enter("c");
    assert_eq!(house.ended().0, RunStatus::Timeout, "nobody knows what became of it");
    house.leave(&b, &answered());
    assert_eq!(house.runs.len(), 1);
}

#[test]
fn there_are_never_more_runs_than_are_allowed() {
    for max_runs in [1, 7, 16, 100, 1000] {
        let house = House::new(&Settings { max_runs, ..Settings::default() });
        for number in 0..3 * max_runs {
            let _ = house.runs.enter(&caller(&number.to_string()), Operation::Chat, house.now);
        }
        assert!((max_runs / 2..=max_runs).contains(&house.runs.len()), "{max_runs}: {}", house.runs.len());
    }
    assert!(size_of::<Run>() <= 512, "{}", size_of::<Run>());
}

#[test]
fn kinds_of_loops_are_capped() {
    let mut house = House::new(&Settings::default());
    for number in 0..100 {
        let caller = Caller { loop_type: Some(format!("kind-{number}").into()), ..caller(&number.to_string()) };
        let _ = house.runs.enter(&caller, Operation::Chat, house.now);
    }
    house.now += SECOND;
    let active = house.runs.active(house.now);
    assert_eq!((active.len(), active[labels::OTHER].runs), (21, 80));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("one thread").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn one_line_tells_what_a_runaway_loop_has_come_to() {
    let written = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(written.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut house = House::new(&Settings { repeats: 2, ..blocking() });
        house.call(1, asking_for("look", "{}"));
        house.call(2, |record| (record.cost, record.outcome) = (Cost::Unpriced(Unpriced::NoUsage), Outcome::Timeout));
        house.call(1, |_| {});
        for _ in 0..3 {
            assert!(house.call(1, |_| {}));
        }
    });
    let bytes = written.0.lock().expect("one thread").clone();
    let mut line: Value = serde_json::from_slice(&bytes).expect("one JSON object, once");
    assert!(line["timestamp"].take().is_string());
    let expected = json!({
        "timestamp": null,
        "level": "WARN",
        "target": "weir::runs",
        "message": "an agent loop runs away: its latest calls ask the same again and again (`loops.repeats`)",
        "weir.run": "r",
        "weir.loop.type": "research",
        "weir.loop.reason": "repeated_calls",
        "weir.loop.calls": 3,
        "weir.loop.errors": 1,
        "weir.loop.tool_calls": 1,
        "weir.loop.tokens": 360,
        "weir.loop.unpriced_calls": 1,
        "weir.cost.usd": "2",
        "weir.duration_s": 6.0,
    });
    assert_eq!(line, expected);
}
