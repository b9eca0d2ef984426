//! What questions to a ledger cost: of five million calls in sixty days, while calls come in.
//!
//! `cargo bench --bench analytics` makes the ledger once, where the target directory keeps temporary files; `-- --calls N`
//! for another size. Prints how long each question took, half of the times and nineteen in twenty, and whether that is soon
//! enough; what the process weighs; and what questions cost the calls that are written meanwhile.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "numbers are small, and the file is another benchmark's, too"
)]
#[path = "ledger/seeded.rs"]
mod seeded;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use rusqlite::{Connection, params};
use tokio::time::Instant;
use weir::export::stream::{Selection, Written, stream};
use weir::export::{Compression, Form, Format};
use weir::ledger::entry::{Entry, Micros};
use weir::ledger::filter::Filter;
use weir::ledger::insert::Inserter;
use weir::ledger::open::Place;
use weir::ledger::packed::pack;
use weir::ledger::page::Direction;
use weir::ledger::percentiles::{Rank, Timing};
use weir::ledger::questions::{Dimension, Order};
use weir::ledger::reader::{Error, Reader};
use weir::ledger::window::{Grain, Step, Window};
use weir::ledger::{DAY, HOUR};
use weir::record::outcome::Outcome;

use crate::seeded::{Plan, Seeded};

/// How often each question is asked.
const RUNS: usize = 50;
/// The end of the time of which there are calls: half past two in the afternoon of a working day.
const UNTIL: Micros = 1_783_002_600_000_000;
/// The rest of that day.
const REST: Micros = DAY - UNTIL.rem_euclid(DAY);
const DAYS: u32 = 60;
/// As many as are written at once: a quarter of a second of a thousand calls a second.
const BATCH: usize = 250;
const BATCHES_PER_SECOND: u32 = 4;

fn main() {
    let calls = std::env::args().skip_while(|word| word != "--calls").nth(1);
    let calls = calls.map_or(5_000_000, |calls| calls.parse().expect("--calls takes a number"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("analytics-{calls}.db"));
    if !file.exists() {
        let part = file.with_extension("part");
        // Up to midnight; what would be after half past two is left out.
        fill(
            &part,
            Plan { seed: 1, calls: calls * u64::from(DAYS + 1) / u64::from(DAYS), days: DAYS + 1, until: UNTIL + REST },
        );
        fs::rename(&part, &file).expect("renamed");
    }
    let bytes = fs::metadata(&file).expect("the file").len();
    println!("about {calls} calls in {DAYS} days, {} MiB; {} MiB resident at first", bytes >> 20, resident());
    let reader = Reader::new(Duration::from_secs(30));
    let place = Place::File(file);
    reader.open((0..2).map(|_| place.read().expect("opened")).collect());

    println!("\nnobody writes");
    ask(&reader);
    println!("\na thousand calls a second are written");
    let alone = write_for(&place, 40);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = write_until(&place, Arc::clone(&stop));
    ask(&reader);
    stop.store(true, Ordering::Relaxed);
    let meanwhile = writer.join().expect("written");
    println!("\n{} MiB resident", resident());
    export(&reader);
    let [alone, meanwhile] = [alone, meanwhile].map(|batches| (at(&batches, 50), at(&batches, 99)));
    println!("a batch of {BATCH} is written in {:?}, one in a hundred longer than {:?}", alone.0, alone.1);
    println!("while questions are asked without a pause, in {:?} and {:?}", meanwhile.0, meanwhile.1);
}

/// Every question, and how soon it is to be answered.
fn ask(reader: &Reader) {
    let questions = questions();
    for (name, limit, question) in &questions {
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|run| {
                let asked = Instant::now();
                question(reader, i64::try_from(run).unwrap_or(0)).expect("an answer");
                asked.elapsed()
            })
            .collect();
        times.sort_unstable();
        let (half, most) = (at(&times, 50), at(&times, 95));
        let verdict = if most <= *limit { "soon enough" } else { "TOO LATE" };
        println!("{name:44} {half:>12.2?} {most:>12.2?}   {verdict}: at most {limit:?}");
    }
}

type Question = Box<dyn Fn(&Reader, i64) -> Result<(), Error>>;

/// Windows begin at no particular moment, each time at another.
fn questions() -> Vec<(&'static str, Duration, Question)> {
    let last = |days: i64, run: i64| Window { from: UNTIL - days * DAY - run * 61_000_000, to: UNTIL + 9 * HOUR };
    let all = Filter::default();
    let agent = Filter { agent: Some("coder".into()), ..Filter::default() };
    let user = Filter { user: Some("user-1500".into()), ..Filter::default() };
    let timeouts = Filter { outcome: Some(Outcome::Timeout), agent: Some("docs".into()), ..Filter::default() };
    let (soon, later) = (Duration::from_millis(50), Duration::from_millis(200));
    let ranks = [Rank::P50, Rank::P95, Rank::P99];
    let few = NonZeroUsize::new(50).expect("not zero");
    let mut questions: Vec<(&'static str, Duration, Question)> = Vec::new();
    let mut add = |name, limit, question: Question| questions.push((name, limit, question));
    macro_rules! question {
        ($name:literal, $limit:expr, $filter:expr, |$reader:ident, $run:ident, $asked:ident| $question:expr) => {{
            let $asked = $filter.clone();
            add($name, $limit, Box::new(move |$reader, $run| $question.map(drop)));
        }};
    }
    question!("overview, 60 days", soon, all, |it, run, of| it.totals(last(60, run), &of));
    question!("overview, a day", soon, all, |it, run, of| it.totals(last(1, run), &of));
    question!("overview of an agent, 60 days", soon, agent, |it, run, of| it.totals(last(60, run), &of));
    question!("unique users, 60 days", soon, all, |it, run, of| it.unique_users(last(60, run), &of));
    question!("trend by day, 60 days", soon, all, |it, run, of| it.over_time(last(60, run), &of, Step::Day));
    question!("trend by hour, 30 days", soon, all, |it, run, of| it.over_time(last(30, run), &of, Step::Hour));
    question!("trend by five minutes, a day", later, all, |it, run, of| {
        it.over_time(last(1, run), &of, Step::FiveMinutes)
    });
    for (name, by) in [
        ("distribution by agent, 60 days", Dimension::Agent),
        ("distribution by model, 60 days", Dimension::Model),
        ("distribution by namespace, 60 days", Dimension::Namespace),
    ] {
        let of = all.clone();
        add(name, soon, Box::new(move |it, run| it.by(by, last(60, run), &of, (Order::Cost, 20)).map(drop)));
    }
    question!("top users, 60 days", later, all, |it, run, of| it.users(last(60, run), &of, (Order::Cost, 20)));
    question!("percentiles, 60 days", later, all, |it, run, of| {
        it.percentiles(last(60, run), &of, Timing::Latency, &ranks)
    });
    question!("percentiles, a day", later, all, |it, run, of| {
        it.percentiles(last(1, run), &of, Timing::Latency, &ranks)
    });
    question!("percentiles of an agent, 60 days", later, agent, |it, run, of| {
        it.percentiles(last(60, run), &of, Timing::FirstToken, &ranks)
    });
    question!("errors, 60 days", later, all, |it, run, of| it.failures(last(60, run), &of));
    let newest = (Direction::Newest, few);
    question!("the last 50 calls", soon, all, |it, run, of| it.page(last(60, run), &of, None, newest));
    question!("the last 50 calls of an agent", soon, agent, |it, run, of| it.page(last(60, run), &of, None, newest));
    question!("the last 50 calls of a user", later, user, |it, run, of| it.page(last(60, run), &of, None, newest));
    question!("the last 50 timeouts of an agent", later, timeouts, |it, run, of| {
        it.page(last(60, run), &of, None, newest)
    });
    questions
}

/// Calls as files: ten thousand of them in every format, and all there are, which is to take no more memory.
fn export(reader: &Reader) {
    const SOME: usize = 10_000;
    let filter = Filter::default();
    let since = reader.walk(Window::ALL, &filter, Direction::Newest).nth(SOME - 1).expect("so many calls");
    let some = Window { from: since.expect("a call").ended_at, ..Window::ALL };
    let forms = Format::ALL.into_iter().filter_map(|format| Form::new(format, Compression::None).ok());
    for (window, form) in forms.map(|form| (some, form)).chain([(Window::ALL, Form::default())]) {
        let selection = Selection { window, filter: filter.clone() };
        let (begun, mut most) = (Instant::now(), 0);
        let look = |written: &Written| {
            if written.rows.is_multiple_of(10_000) {
                most = most.max(resident());
            }
        };
        let (written, _) = stream(reader, &selection, (form, io::sink()), look).expect("written");
        let (rows, took) = (written.rows, begun.elapsed());
        println!("{rows} calls exported as {} in {took:.2?}, {most} MiB resident at most", form.extension());
    }
}

/// Of times in order, the one that so many in a hundred are not longer than.
fn at(times: &[Duration], hundredths: usize) -> Duration {
    times.get((times.len() * hundredths).div_ceil(100).max(1) - 1).copied().unwrap_or_default()
}

fn write_for(place: &Place, batches: u32) -> Vec<Duration> {
    let mut left = batches;
    write_while(place, move || {
        left -= 1;
        left > 0
    })
}

fn write_until(place: &Place, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Duration>> {
    let place = place.clone();
    thread::spawn(move || write_while(&place, || !stop.load(Ordering::Relaxed)))
}

/// Writes a thousand calls a second, over after all that are there; how long each batch took, in order of that.
fn write_while(place: &Place, mut goes_on: impl FnMut() -> bool) -> Vec<Duration> {
    let mut ledger = place.write().expect("opened");
    let begin: Micros = ledger.query_row("SELECT max(id) FROM calls", [], |row| row.get(0)).expect("there are calls");
    let mut inserter = Inserter::default();
    let plan = Plan { seed: 2, calls: 1_000_000, days: 1, until: begin + DAY };
    let mut calls = Seeded::new(plan);
    let (mut times, mut now) = (Vec::new(), begin);
    while goes_on() {
        let batch: Vec<Entry> = calls
            .by_ref()
            .take(BATCH)
            .map(|made| {
                now += 1_000;
                Entry { ended_at: now, ..made }
            })
            .collect();
        let started = Instant::now();
        inserter.insert(&mut ledger, &batch).expect("written");
        times.push(started.elapsed());
        thread::sleep((Duration::from_secs(1) / BATCHES_PER_SECOND).saturating_sub(started.elapsed()));
    }
    times.sort_unstable();
    times
}

/// Writes the ledger, and packs the latencies of all that is over.
fn fill(file: &PathBuf, plan: Plan) {
    let _ = fs::remove_file(file);
    let begun = Instant::now();
    let mut ledger = Place::File(file.clone()).write().expect("opened");
    let mut inserter = Inserter::default();
    let mut calls = Seeded::new(plan).take_while(|entry| entry.ended_at < UNTIL);
    loop {
        let batch: Vec<Entry> = calls.by_ref().take(10_000).collect();
        if batch.is_empty() {
            break;
        }
        inserter.insert(&mut ledger, &batch).expect("written");
    }
    println!("written in {:.0?}", begun.elapsed());
    for grain in Grain::ALL {
        seal(&mut ledger, grain);
    }
    ledger.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("one file");
    println!("packed after {:.0?}", begun.elapsed());
}

fn seal(ledger: &mut Connection, grain: Grain) {
    let first = UNTIL + REST - Micros::from(DAYS + 1) * DAY;
    let change = ledger.transaction().expect("begun");
    let length = grain.micros();
    for start in (first..=UNTIL - length).step_by(usize::try_from(length).expect("it fits")) {
        seal_one(&change, grain, start).expect("packed");
    }
    change.commit().expect("written");
}

fn seal_one(ledger: &Connection, grain: Grain, start: Micros) -> rusqlite::Result<()> {
    let mut series: BTreeMap<i64, [Vec<u64>; 2]> = BTreeMap::new();
    let mut rows = ledger.prepare_cached("SELECT series, latency, first_token FROM calls WHERE id >= ? AND id < ?")?;
    let mut rows = rows.query([start, start + grain.micros()])?;
    while let Some(row) = rows.next()? {
        let [latencies, first_tokens] = series.entry(row.get(0)?).or_default();
        latencies.push(row.get::<_, i64>(1)?.unsigned_abs());
        first_tokens.extend(row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs));
    }
    let add = format!("INSERT INTO {} VALUES (?, ?, ?, ?)", grain.latencies());
    for (series, [mut latencies, mut first_tokens]) in series {
        latencies.sort_unstable();
        first_tokens.sort_unstable();
        ledger.execute(&add, params![start, series, pack(&latencies), pack(&first_tokens)])?;
    }
    ledger.execute("INSERT INTO sealed VALUES (?, ?)", [grain.micros(), start])?;
    Ok(())
}

/// What the process weighs, in MiB.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    (pages * 4096) >> 20
}
