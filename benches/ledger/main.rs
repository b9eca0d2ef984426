//! The ledger under load: how many calls it takes per second, and what handing one over costs the call.
//!
//! `cargo bench --bench ledger` measures, on one core with `taskset -c 0`; `cargo bench --bench ledger -- seed FILE
//! --calls 5000000 --days 60` writes a ledger to ask questions of.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "small numbers"
)]

#[expect(dead_code, reason = "another benchmark's calls, of which one kind is asked for here")]
#[path = "../../tests/fixture/junk.rs"]
mod junk;
mod seeded;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use weir::ledger::entry::Entry;
use weir::ledger::insert::Inserter;
use weir::ledger::open::Place;
use weir::ledger::{Settings, writer};
use weir::record::Record;
use weir::record::call::Caller;
use weir::redact::Redactor;

use crate::junk::answered;
use crate::seeded::{Plan, Seeded};

/// As many as the writer takes at once.
const BATCH: usize = 1_000;
/// Calls whose hand-over is timed.
const CALLS: usize = 100_000;
/// The midnight that 2026-07-06 begins with, in microseconds.
const UNTIL: i64 = 1_783_296_000_000_000;

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench").peekable();
    let mut plan = Plan { seed: 1, calls: 500_000, days: 60, until: UNTIL };
    let mut file = None;
    while let Some(word) = words.next() {
        let mut number = |what: &str| -> u64 {
            let number = words.next().and_then(|word| word.parse().ok());
            number.unwrap_or_else(|| panic!("--{what} takes a number"))
        };
        match &*word {
            "seed" => file = words.next().map(PathBuf::from),
            "--seed" => plan.seed = number("seed"),
            "--calls" => plan.calls = number("calls"),
            "--days" => plan.days = number("days") as u32,
            "--until" => plan.until = number("until") as i64,
            other => panic!("what is `{other}`? See the head of benches/ledger/main.rs"),
        }
    }
    match file {
        Some(file) => report(&file, plan, fill(&file, plan)),
        None => measure(plan),
    }
}

fn measure(plan: Plan) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ledger.db");
    report(&file, plan, fill(&file, plan));
    hand_over(dir.path().join("beside"));
}

/// What a call pays once it is over, one every fifty microseconds, while the writer writes to a disk: all of it, and its
/// two parts by themselves.
fn hand_over(dir: PathBuf) {
    let redactor = Arc::new(Redactor::new(&[]).expect("what weir knows"));
    let opened = writer::open(&Settings::default(), Some(dir), redactor, Box::new(|_| ()));
    let (ledger, writer) = opened.expect("there is to be a ledger");
    let writing = std::thread::spawn(move || writer.run());
    let records: Vec<Record> = (0..CALLS).map(called).collect();
    let entry = |record: &Record| Arc::new(Entry::of(record, SystemTime::now()));
    let mut entries: Vec<Arc<Entry>> = records.iter().map(entry).collect();
    timed("the clock alone", &records, |_| ());
    let mut made = Vec::with_capacity(records.len());
    timed("an entry made", &records, |record| made.push(entry(record)));
    timed("an entry handed over", &records, |_| ledger.offer(entries.pop().expect("one each"), None));
    timed("both, as a call does", &records, |record| ledger.offer(entry(record), None));
    let standing = ledger.standing();
    drop(ledger);
    writing.join().expect("it ends");
    println!("{} written, {} lost", standing().written, standing().queue_full + standing().io_error);
}

/// Does it for each of the records, and prints how long that took them.
fn timed(what: &str, records: &[Record], mut each: impl FnMut(&Record)) {
    const BETWEEN: Duration = Duration::from_micros(50);
    let mut costs: Vec<Duration> = Vec::with_capacity(records.len());
    for record in records {
        let begun = Instant::now();
        each(record);
        costs.push(begun.elapsed());
        while begun.elapsed() < BETWEEN {
            std::hint::spin_loop();
        }
    }
    costs.sort_unstable();
    let at = |share: usize| costs[costs.len() * share / 1_000];
    println!("{what:24} p50 {:>8?}, p99 {:>8?}, p99.9 {:>8?}", at(500), at(990), at(999));
}

/// A call with as many names as an agent's calls have.
fn called(number: usize) -> Record {
    let mut record = answered("gpt-5-mini");
    record.call.caller = Caller {
        namespace: Some("production".into()),
        workspace: Some("support".into()),
        user: Some(format!("user-{:04}", number % 2_000).into()),
        agent: Some("coder".into()),
        run: Some(format!("run-{}", number / 100).into()),
        client: Some("OpenAI/Python 2.7.1".into()),
        ..Caller::default()
    };
    record.head.request_id = Some(format!("req_{number:016x}").into());
    record
}

/// Writes the ledger; returns how long the writing took, without the making up.
fn fill(file: &Path, plan: Plan) -> Duration {
    let mut ledger = Place::File(file.to_owned()).write().expect("opened");
    let mut inserter = Inserter::default();
    let mut calls = Seeded::new(plan);
    let mut took = Duration::ZERO;
    loop {
        let batch: Vec<Entry> = calls.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return took;
        }
        let begun = Instant::now();
        inserter.insert(&mut ledger, &batch).expect("written");
        took += begun.elapsed();
    }
}

fn report(file: &Path, plan: Plan, took: Duration) {
    let per_second = plan.calls as f64 / took.as_secs_f64();
    let bytes = std::fs::metadata(file).expect("the file").len();
    println!(
        "written: {} calls in {:.1} s, {per_second:.0} a second with their sums; {} MiB, {} bytes a call",
        plan.calls,
        took.as_secs_f64(),
        bytes >> 20,
        bytes / plan.calls.max(1)
    );
}
