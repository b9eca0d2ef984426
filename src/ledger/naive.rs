//! Naive: every question answered by going through all entries there are. Whatever the reader does to be quick, its
//! answers are these; for any calls, windows and filters, whatever part of the ledger is packed or gone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::ledger::entry::{Entry, Micros};
use crate::ledger::filter::Filter;
use crate::ledger::insert::Inserter;
use crate::ledger::open::Place;
use crate::ledger::packed::pack;
use crate::ledger::page::{Direction, Page};
use crate::ledger::percentiles::{Rank, Timing};
use crate::ledger::questions::{Dimension, Failures, Groups, Order};
use crate::ledger::reader::{Answer, Error, Reader};
use crate::ledger::specimens::{self, Random};
use crate::ledger::totals::{OfUser, Totals};
use crate::ledger::window::{Grain, Step, Window};
use crate::ledger::{DAY, HOUR, start_of};
use crate::record::outcome::Outcome;

/// Where the calls are: a few days of January 2026.
const BEGIN: Micros = 1_767_225_600_000_000;
const DAYS: i64 = 4;
/// The last few hours are nobody's, so that windows end after the last call, too.
const END: Micros = BEGIN + DAYS * DAY - 5 * HOUR;
const DIMENSIONS: [Dimension; 6] = [
    Dimension::Workspace,
    Dimension::Namespace,
    Dimension::Agent,
    Dimension::Provider,
    Dimension::Operation,
    Dimension::Model,
];
const RANKS: [Rank; 4] = [Rank::P50, Rank::P90, Rank::P95, Rank::P99];

/// A ledger, and what is in it.
struct Both {
    ledger: Connection,
    reader: Reader,
    entries: Vec<Entry>,
}

impl Both {
    fn of(seed: u64) -> (Self, Random) {
        let place = Place::memory();
        let mut ledger = place.write().expect("opened");
        let mut random = Random(seed);
        let mut entries: Vec<Entry> = (0..1_500)
            .map(|_| {
                // Now and then a crowd at one moment, as where an hour begins.
                let at = BEGIN + HOUR / 2 + random.below(END - BEGIN - HOUR / 2);
                let at = if random.below(10) == 0 { start_of(HOUR, at) } else { at };
                specimens::entry(&mut random, at)
            })
            .collect();
        entries.sort_by_key(|entry| entry.ended_at);
        Inserter::default().insert(&mut ledger, &entries).expect("written");
        for at in 1..entries.len() {
            entries[at].ended_at = entries[at].ended_at.max(entries[at - 1].ended_at + 1);
        }
        let reader = Reader::new(Duration::from_secs(60));
        reader.open(vec![place.read().expect("opened")]);
        (Self { ledger, reader, entries }, random)
    }

    /// Packs the latencies of some periods.
    fn seal(&self, random: &mut Random) {
        for grain in Grain::ALL {
            for start in
                (0..DAYS * DAY / grain.micros()).map(|at| BEGIN + at * grain.micros()).filter(|_| random.below(3) > 0)
            {
                self.seal_one(grain, start);
            }
        }
    }

    fn seal_one(&self, grain: Grain, start: Micros) {
        let mut series: BTreeMap<i64, [Vec<u64>; 2]> = BTreeMap::new();
        let mut rows = self
            .ledger
            .prepare("SELECT series, latency, first_token FROM calls WHERE id BETWEEN ? AND ?")
            .expect("SQL");
        let mut rows = rows.query([start, start + grain.micros() - 1]).expect("SQL");
        while let Some(row) = rows.next().expect("a row") {
            let [latencies, first_tokens] = series.entry(row.get(0).expect("a series")).or_default();
            latencies.push(row.get::<_, i64>(1).expect("a length").unsigned_abs());
            first_tokens.extend(row.get::<_, Option<i64>>(2).expect("a length").map(i64::unsigned_abs));
        }
        for (series, [mut latencies, mut first_tokens]) in series {
            latencies.sort_unstable();
            first_tokens.sort_unstable();
            let add = format!("INSERT INTO {} VALUES (?, ?, ?, ?)", grain.latencies());
            self.ledger.execute(&add, params![start, series, pack(&latencies), pack(&first_tokens)]).expect("SQL");
        }
        self.ledger.execute("INSERT INTO sealed VALUES (?, ?)", [grain.micros(), start]).expect("SQL");
    }

    fn asked(&self, window: Window, filter: &Filter) -> Vec<&Entry> {
        let within = |entry: &&Entry| window.from <= entry.ended_at && entry.ended_at < window.to;
        self.entries.iter().filter(within).filter(|entry| meets(entry, filter)).collect()
    }
}

fn meets(entry: &Entry, filter: &Filter) -> bool {
    let Filter { workspace, namespace, agent, user, provider, operation, model, outcome, cache, error_type, run } =
        filter;
    let names = [
        (workspace, entry.workspace_id.as_deref()),
        (namespace, entry.namespace.as_deref()),
        (agent, entry.agent_id.as_deref()),
        (user, entry.user_id.as_deref()),
        (provider, Some(&*entry.provider)),
        (operation, Some(&*entry.operation)),
        (model, entry.model.as_deref()),
        (cache, Some(&*entry.cache)),
        (error_type, entry.error_type.as_deref()),
        (run, entry.run_id.as_deref()),
    ];
    names.iter().all(|(asked, has)| asked.is_none() || asked.as_deref() == *has)
        && outcome.is_none_or(|outcome| outcome.as_str() == entry.outcome)
}

fn dimension(entry: &Entry, dimension: Dimension) -> Option<Box<str>> {
    match dimension {
        Dimension::Workspace => entry.workspace_id.clone(),
        Dimension::Namespace => entry.namespace.clone(),
        Dimension::Agent => entry.agent_id.clone(),
        Dimension::Provider => Some((*entry.provider).into()),
        Dimension::Operation => Some((*entry.operation).into()),
        Dimension::Model => entry.model.clone(),
    }
}

/// A number that was drawn, for a place in a list.
fn index(drawn: i64) -> usize {
    usize::try_from(drawn).expect("below what was asked for")
}

fn total<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Totals {
    let mut totals = Totals::default();
    for entry in entries {
        totals.add(&Totals::of(entry));
    }
    totals
}

/// From and to anywhere: at whole hours and days, at calls, before the first and after the last.
fn window(random: &mut Random, entries: &[Entry]) -> Window {
    let mut moment = || {
        let at = BEGIN - DAY / 2 + random.below((DAYS + 1) * DAY);
        match random.below(5) {
            0 => start_of(HOUR, at),
            1 => start_of(DAY, at),
            2 => entries[index(random.below(1_500))].ended_at,
            3 => BEGIN - HOUR,
            _ => at,
        }
    };
    let (one, other) = (moment(), moment());
    match random.below(10) {
        0 => Window::ALL,
        1 => Window { from: one, to: Micros::MAX },
        2 => Window { from: one, to: one },
        _ => Window { from: one.min(other), to: one.max(other) },
    }
}

/// Names that some entry has, and one that none has.
fn filter(random: &mut Random, entries: &[Entry]) -> Filter {
    let entry = &entries[index(random.below(1_500))];
    let mut one_in = |chance: i64, name: Option<Box<str>>| {
        let name = if random.below(40) == 0 { Some("nobody's".into()) } else { name };
        name.filter(|_| random.below(chance) == 0)
    };
    Filter {
        workspace: one_in(4, entry.workspace_id.clone()),
        namespace: one_in(6, entry.namespace.clone()),
        agent: one_in(5, entry.agent_id.clone()),
        user: one_in(6, entry.user_id.clone()),
        provider: one_in(6, Some((*entry.provider).into())),
        operation: one_in(8, Some((*entry.operation).into())),
        model: one_in(6, entry.model.clone()),
        cache: one_in(12, Some((*entry.cache).into())),
        error_type: one_in(12, entry.error_type.as_deref().map(Into::into)),
        run: one_in(12, entry.run_id.clone()),
        outcome: (random.below(8) == 0).then_some(Outcome::ALL[index(random.below(8))]),
    }
}

#[test]
fn every_answer_is_the_naive_one() {
    for seed in 0..2 {
        let (both, mut random) = Both::of(seed);
        both.seal(&mut random);
        for _ in 0..50 {
            let (window, filter) = (window(&mut random, &both.entries), filter(&mut random, &both.entries));
            let answers = all_answers(&both, window, &filter, &mut random);
            for (question, covers) in answers {
                assert_eq!(covers, window, "{question}, {filter:?}: nothing is gone");
            }
            pages(&both, window, &filter, &mut random);
        }
    }
}

#[test]
fn what_is_gone_is_said_to_be_and_the_rest_is_right() {
    for seed in 10..12 {
        let (mut both, mut random) = Both::of(seed);
        both.seal(&mut random);
        let calls_gone = both.entries[index(random.below(1_200))].ended_at;
        both.ledger.execute("DELETE FROM calls WHERE id < ?", [calls_gone]).expect("SQL");
        for table in ["hour_latencies", "day_latencies", "user_hours", "hour_errors", "hours", "user_days"] {
            let gone = BEGIN + random.below(calls_gone - BEGIN);
            let gone = start_of(if table.contains("day") { DAY } else { HOUR }, gone);
            both.ledger.execute(&format!("DELETE FROM {table} WHERE start < ?"), [gone]).expect("SQL");
        }
        for _ in 0..50 {
            let (window, filter) = (window(&mut random, &both.entries), filter(&mut random, &both.entries));
            let answers = all_answers(&both, window, &filter, &mut random);
            for (question, covers) in answers {
                let whole = Window { from: window.from.max(calls_gone), ..window };
                let said = format!("{question} {filter:?}: {covers:?} of {window:?}, calls since {calls_gone}");
                assert!(covers.is_empty() || window.from <= covers.from && covers.to <= window.to, "{said}");
                assert!(whole.is_empty() || covers.from <= whole.from && covers.to == whole.to, "{said}");
            }
        }
        both.entries.retain(|entry| entry.ended_at >= calls_gone);
        pages(&both, Window::ALL, &Filter::default(), &mut random);
    }
}

/// Asks everything, compares it to what is so in the part of the window that the answer is of, and tells these parts.
fn all_answers(both: &Both, window: Window, filter: &Filter, random: &mut Random) -> Vec<(String, Window)> {
    let reader = &both.reader;
    let asked = |covers: Window| both.asked(covers, filter);
    let mut answers = Vec::new();
    let mut said = |question: &str, covers: Window| answers.push((question.to_owned(), covers));

    let Answer { found, covers } = reader.totals(window, filter).expect("an answer");
    assert_eq!(found, total(asked(covers)), "{window:?} {filter:?}");
    said("totals", covers);

    for step in [Step::QuarterHour, Step::Hour, Step::Day] {
        match reader.over_time(window, filter, step) {
            Ok(Answer { found, covers }) => {
                let mut expected: BTreeMap<Micros, Totals> = BTreeMap::new();
                for (start, _) in &found {
                    expected.insert(*start, Totals::default());
                }
                for entry in asked(covers) {
                    let start = start_of(step.length(), entry.ended_at);
                    expected.get_mut(&start).expect("a point").add(&Totals::of(entry));
                }
                assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{step:?} {window:?} {filter:?}");
                assert_eq!(found.len() as u64, step.points_in(window), "{step:?} {window:?}");
                said("over time", covers);
            }
            Err(Error::TooManyPoints { points, .. }) => assert_eq!(points, step.points_in(window)),
            Err(error) => panic!("{error}"),
        }
    }

    for of in DIMENSIONS {
        let Answer { found, covers } = reader.by(of, window, filter, (Order::Cost, 3)).expect("an answer");
        let mut expected: BTreeMap<Option<Box<str>>, Totals> = BTreeMap::new();
        for entry in asked(covers) {
            expected.entry(dimension(entry, of)).or_default().add(&Totals::of(entry));
        }
        let mut expected: Vec<_> = expected.into_iter().collect();
        expected.sort_by_key(|(_, totals)| std::cmp::Reverse((totals.cost, totals.calls)));
        let rest = expected.split_off(expected.len().min(3));
        let mut of_rest = Totals::default();
        for (_, totals) in &rest {
            of_rest.add(totals);
        }
        assert_eq!(
            found,
            Groups { first: expected, others: rest.len(), rest: of_rest },
            "{of:?} {window:?} {filter:?}"
        );
        said("by", covers);
    }

    answers.extend(answers_of_few(both, window, filter, random));
    answers
}

/// The same of what has one answer: agents, users, failures, percentiles.
fn answers_of_few(both: &Both, window: Window, filter: &Filter, random: &mut Random) -> Vec<(String, Window)> {
    let reader = &both.reader;
    let asked = |covers: Window| both.asked(covers, filter);
    let mut answers = Vec::new();
    let mut said = |question: &str, covers: Window| answers.push((question.to_owned(), covers));

    let Answer { found, covers } = reader.active_agents(window, filter).expect("an answer");
    let agents: BTreeSet<_> = asked(covers).iter().filter_map(|entry| entry.agent_id.clone()).collect();
    assert_eq!(found, agents.len() as u64, "agents {window:?} {filter:?}");
    said("agents", covers);

    let Answer { found, covers } = reader.users(window, filter, (Order::Calls, 1_000)).expect("an answer");
    let mut expected: BTreeMap<Box<str>, OfUser> = BTreeMap::new();
    for entry in asked(covers) {
        if let Some(user) = entry.user_id.clone() {
            expected.entry(user).or_default().add(&OfUser::of(&Totals::of(entry), entry.ended_at));
        }
    }
    assert!(found.first.is_sorted_by_key(|(_, of_user)| std::cmp::Reverse(of_user.calls)));
    assert_eq!(found.all, expected.len() as u64);
    assert_eq!(found.first.into_iter().collect::<BTreeMap<_, _>>(), expected, "{window:?} {filter:?}");
    said("users", covers);

    let Answer { found, covers } = reader.failures(window, filter).expect("an answer");
    let mut expected: BTreeMap<(Box<str>, Option<Box<str>>), u64> = BTreeMap::new();
    for entry in asked(covers).into_iter().filter(|entry| entry.outcome != "success") {
        let kind = ((*entry.outcome).into(), entry.error_type.as_deref().map(Into::into));
        *expected.entry(kind).or_default() += 1;
    }
    assert!(found.is_sorted_by_key(|it| std::cmp::Reverse(it.calls)));
    let kind = |it: Failures| ((it.outcome, it.error_type), it.calls);
    assert_eq!(found.into_iter().map(kind).collect::<BTreeMap<_, _>>(), expected, "{window:?} {filter:?}");
    said("failures", covers);

    let of = if random.below(2) == 0 { Timing::Latency } else { Timing::FirstToken };
    let Answer { found, covers } = reader.percentiles(window, filter, of, &RANKS).expect("an answer");
    let mut took: Vec<Duration> = match of {
        Timing::Latency => asked(covers).iter().map(|entry| entry.latency).collect(),
        Timing::FirstToken => asked(covers).iter().filter_map(|entry| entry.first_token).collect(),
    };
    took.sort_unstable();
    let nearest = |thousandths: usize| took[(took.len() * thousandths).div_ceil(1_000).max(1) - 1];
    let expected = (!took.is_empty()).then(|| [500, 900, 950, 990].map(nearest).to_vec());
    assert_eq!(found, expected, "{of:?} {window:?} {filter:?}");
    said("percentiles", covers);
    answers
}

/// Page after page is all there is, each call once, in order.
fn pages(both: &Both, window: Window, filter: &Filter, random: &mut Random) {
    for direction in [Direction::Newest, Direction::Oldest] {
        let mut expected = both.asked(window, filter);
        if direction == Direction::Newest {
            expected.reverse();
        }
        let limit = NonZeroUsize::new(1 + index(random.below(700))).expect("one or more");
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let Page { entries, next } = both.reader.page(window, filter, after, (direction, limit)).expect("a page");
            assert!(entries.len() <= limit.get());
            found.extend(entries);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{direction:?} {window:?} {filter:?}");
    }
}
