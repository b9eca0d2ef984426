//! What holds of the writer and of what it keeps up: on real files, with a real thread.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::ledger::entry::{Entry, Micros};
use crate::ledger::home::Home;
use crate::ledger::insert::Inserter;
use crate::ledger::open::Place;
use crate::ledger::packed::unpack;
use crate::ledger::specimens::{self, Random};
use crate::ledger::upkeep::{Bounds, Upkeep};
use crate::ledger::writer::{self, Ledger, Refused, Writer};
use crate::ledger::{DAY, HOUR, MINUTE, Standing, start_of};
use crate::record::content::{Capture, Content, Text};
use crate::record::prefix::Prefixes;
use crate::redact::Redactor;

const BOUNDS: Bounds =
    Bounds { retention: Duration::from_hours(24 * 365 * 100), max_bytes: u64::MAX, memory_max_bytes: u64::MAX };

fn redactor() -> Arc<Redactor> {
    Arc::new(Redactor::new(&[]).expect("what weir knows"))
}

fn opened(home: Home, capacity: usize) -> (Ledger, Writer) {
    writer::at(home, BOUNDS, capacity, redactor(), Box::new(|_| ()))
}

/// A ledger and the thread that writes it.
struct Running {
    ledger: Arc<Ledger>,
    thread: JoinHandle<()>,
}

impl Running {
    fn begin(home: Home, capacity: usize) -> Self {
        let (ledger, writer) = opened(home, capacity);
        Self { ledger: Arc::new(ledger), thread: thread::spawn(move || writer.run()) }
    }

    fn in_dir(dir: &Path) -> Self {
        Self::begin(Home::dir(dir.to_owned()), 100_000)
    }

    fn offer(&self, entries: &[Entry]) {
        for entry in entries {
            self.ledger.offer(Arc::new(entry.clone()), None);
        }
    }

    fn end(self) {
        self.ledger.end();
        self.thread.join().expect("no panic");
    }

    async fn until(&self, what: impl Fn(&Standing) -> bool) {
        let standing = self.ledger.standing();
        while !what(&standing()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn entries(seed: u64, count: i64) -> Vec<Entry> {
    let mut random = Random(seed);
    (0..count).map(|at| specimens::entry(&mut random, 400 * DAY + at * 1_000_000)).collect()
}

fn count(ledger: &Connection, question: &str) -> i64 {
    ledger.query_row(question, [], |row| row.get(0)).expect(question)
}

fn rows(dir: &Path) -> i64 {
    let ledger = Place::in_dir(dir).read().expect("opened");
    assert_eq!(count(&ledger, "SELECT ifnull(sum(calls), 0) FROM hours"), count(&ledger, "SELECT count(*) FROM calls"));
    count(&ledger, "SELECT count(*) FROM calls")
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test]
async fn what_is_offered_is_written_and_what_waits_at_the_end_too() {
    let dir = temporary();
    let running = Running::in_dir(&dir.path().join("made"));
    running.offer(&entries(1, 3_000));
    running.ledger.flush().await.expect("written");
    assert_eq!(rows(&dir.path().join("made")), 3_000);
    running.offer(&entries(2, 2_500));
    let standing = running.ledger.standing();
    running.end();
    assert_eq!(rows(&dir.path().join("made")), 5_500);
    assert_eq!((standing().written, standing().queue_full, standing().length), (5_500, 0, 0));
    assert!(!dir.path().join("made/ledger.db-wal").exists(), "closed as it should be");
}

#[test]
fn what_finds_no_room_is_counted_and_nobody_waits() {
    let (ledger, writer) = opened(Home::memory(), 10);
    for entry in entries(3, 25) {
        ledger.offer(Arc::new(entry), None);
    }
    let standing = ledger.standing();
    assert_eq!((standing().length, standing().queue_full, standing().capacity), (10, 15, 10));
    drop(ledger);
    writer.run();
    assert_eq!((standing().written, standing().length), (10, 0), "nobody is left, so it ends");
}

#[tokio::test]
async fn a_damaged_ledger_is_set_aside() {
    for (rule, damage) in [
        ("no database", &(|path: &Path| fs::write(path, "x".repeat(5_000))) as &dyn Fn(&Path) -> std::io::Result<()>),
        ("a page that is spoilt", &|path| {
            let mut bytes = fs::read(path)?;
            let middle = bytes.len() / 2;
            bytes[middle..middle + 8_192].fill(0xff);
            fs::write(path, bytes)
        }),
        ("cut off", &|path| {
            let bytes = fs::read(path)?;
            fs::write(path, &bytes[..bytes.len() / 2])
        }),
    ] {
        let dir = temporary();
        let running = Running::in_dir(dir.path());
        running.offer(&entries(4, 2_000));
        running.end();
        damage(&dir.path().join("ledger.db")).expect("damaged");
        let running = Running::in_dir(dir.path());
        running.offer(&entries(5, 10));
        running.ledger.flush().await.expect("written");
        assert_eq!(running.ledger.standing()().damaged, 1, "{rule}");
        running.end();
        assert_eq!(rows(dir.path()), 10, "{rule}");
        let names = fs::read_dir(dir.path()).expect("read").map(|file| file.expect("a file").file_name());
        let aside = names.filter(|name| name.to_string_lossy().starts_with("ledger.db.damaged-20")).count();
        assert_eq!(aside, 1, "{rule}");
    }
}

#[tokio::test]
async fn where_there_is_no_place_on_disk_the_ledger_is_in_memory() {
    let dir = temporary();
    let first = Running::in_dir(dir.path());
    first.ledger.flush().await.expect("open");
    let second = Running::in_dir(dir.path());
    second.offer(&entries(6, 10));
    second.ledger.flush().await.expect("in memory");
    assert_eq!(second.ledger.standing()().written, 10);
    second.end();
    first.end();
    assert_eq!(rows(dir.path()), 0, "nothing of the second");

    let path = dir.path().join("ledger.db");
    Connection::open(&path).expect("opened").pragma_update(None, "user_version", 99).expect("set");
    let before = fs::read(&path).expect("read");
    let later = Running::in_dir(dir.path());
    later.offer(&entries(7, 10));
    later.ledger.flush().await.expect("in memory");
    later.end();
    assert_eq!(fs::read(&path).expect("read"), before, "of a later weir");
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_tried_again() {
    let dir = temporary();
    let place = dir.path().join("place");
    fs::write(&place, "a file").expect("written");
    let running = Running::begin(Home::dir(place.clone()), 2_000);
    running.offer(&entries(8, 1_500));
    assert!(matches!(running.ledger.flush().await, Err(Refused::Unavailable)));
    assert_eq!(running.ledger.standing()().written, 0);
    fs::remove_file(&place).expect("removed");
    running.until(|it| it.written == 1_500).await;
    running.end();
    assert_eq!(rows(&place), 1_500, "nothing was lost");
}

#[tokio::test]
async fn while_another_has_the_lock_the_oldest_go_and_are_counted() {
    let dir = temporary();
    let running = Running::begin(Home::dir(dir.path().to_owned()), 3_000);
    running.ledger.flush().await.expect("open");
    // Another process has the lock for as long as this lasts.
    let other = Connection::open(dir.path().join("ledger.db")).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let entries = entries(9, 10_000);
    running.offer(&entries);
    let lost = running.ledger.standing()().queue_full;
    assert!(lost >= 10_000 - 3_000 - 2_000, "{lost}");
    running.until(|it| it.io_error > 0).await;
    other.execute_batch("ROLLBACK").expect("let go");
    running.until(|it| it.length == 0 && it.written > 0).await;
    running.ledger.flush().await.expect("written");
    let standing = running.ledger.standing();
    running.end();
    let it = standing();
    assert_eq!(it.written + it.queue_full + it.io_error, 10_000, "{it:?}");
    assert_eq!(rows(dir.path()), i64::try_from(it.written).expect("few"));
}

#[tokio::test]
async fn a_file_that_is_removed_is_made_again() {
    let dir = temporary();
    let running = Running::in_dir(dir.path());
    running.offer(&entries(10, 10));
    running.ledger.flush().await.expect("written");
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        fs::remove_file(dir.path().join(file)).expect("removed");
    }
    while !dir.path().join("ledger.db").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.offer(&entries(11, 20));
    running.ledger.flush().await.expect("written");
    running.end();
    assert_eq!(rows(dir.path()), 20);
}

#[tokio::test]
async fn an_erased_user_is_nowhere_and_the_money_still_is() {
    let dir = temporary();
    let running = Running::in_dir(dir.path());
    let mut calls = entries(12, 4_000);
    let mut random = Random(13);
    for entry in &mut calls {
        if random.below(3) == 0 {
            entry.user_id = Some("mallory.marker@example.com".into());
            entry.request_id = "req-marker-1".into();
            entry.run_id = Some("run-marker-1".into());
            entry.client = Some("client-marker".into());
            entry.provider_request_id = Some("prov-marker-1".into());
            entry.error_message = Some("said mallory-marker".into());
            entry.prefixes = Prefixes::of_packed(b"sizemarker-bytes");
        }
    }
    let theirs = calls.iter().filter(|entry| entry.run_id.as_deref() == Some("run-marker-1")).count();
    running.offer(&calls);
    running.ledger.flush().await.expect("written");
    let sums = |dir: &Path| {
        let ledger = Place::in_dir(dir).read().expect("opened");
        ["calls", "cost", "saved", "tokens", "errors"].map(|sum| {
            let each = ["user_hours", "user_days", "user_day_totals"];
            each.map(|table| count(&ledger, &format!("SELECT sum({sum}) FROM {table}")))
        })
    };
    let before = sums(dir.path());
    let erased = running.ledger.erase_user("mallory.marker@example.com", "admin").await.expect("erased");
    assert_eq!((erased.calls, erased.contents, erased.is_swept), (theirs as u64, 0, true));
    assert_eq!(sums(dir.path()), before);
    for file in fs::read_dir(dir.path()).expect("read").map(|file| file.expect("a file").path()) {
        let bytes = fs::read(&file).expect("read");
        let found = bytes.windows(6).position(|window| window == b"marker");
        assert_eq!(found, None, "{}", file.display());
    }
    let again = running.ledger.erase_user("mallory.marker@example.com", "admin").await.expect("erased");
    assert_eq!(again.calls, 0);
    running.ledger.audit("admin", "export", json!({ "format": "csv" })).await.expect("noted");
    running.end();
    let ledger = Place::in_dir(dir.path()).read().expect("opened");
    assert_eq!(count(&ledger, "SELECT count(*) FROM calls"), 4_000);
    assert_eq!(count(&ledger, "SELECT count(*) FROM audit WHERE who = 'admin'"), 3);
}

/// A ledger of `count` calls, one each second, and what keeps it up.
fn filled(place: &Place, count: i64, bounds: Bounds) -> (Connection, Inserter, Upkeep) {
    let mut ledger = place.write().expect("opened");
    let mut inserter = Inserter::default();
    for batch in entries(14, count).chunks(1_000) {
        inserter.insert(&mut ledger, batch).expect("written");
    }
    let mut upkeep = Upkeep::new(bounds);
    upkeep.begin_anew(place);
    (ledger, inserter, upkeep)
}

fn keep_up(ledger: &mut Connection, inserter: &mut Inserter, upkeep: &mut Upkeep, now: Micros) {
    while upkeep.step(ledger, inserter, now, true).expect("a step").has_more {}
}

#[test]
fn calls_that_are_too_old_go_and_their_sums_stay() {
    let bounds = Bounds { retention: Duration::from_secs(3_000), ..BOUNDS };
    let (mut ledger, mut inserter, mut upkeep) = filled(&Place::memory(), 5_000, bounds);
    let now = 400 * DAY + 5_000 * 1_000_000;
    keep_up(&mut ledger, &mut inserter, &mut upkeep, now);
    assert_eq!(count(&ledger, "SELECT count(*) FROM calls"), 3_000);
    assert_eq!(count(&ledger, "SELECT sum(calls) FROM hours"), 5_000);
    let first = now - 3_000 * 1_000_000;
    assert_eq!(count(&ledger, "SELECT min(id) FROM calls"), first);
    assert_eq!(count(&ledger, "SELECT min(start) FROM minute_totals"), start_of(MINUTE, first), "with their calls");
}

#[test]
fn a_ledger_stays_within_its_bytes() {
    for (percent, leaves_calls) in [(80, true), (10, false)] {
        let dir = temporary();
        let place = Place::in_dir(dir.path());
        drop(filled(&place, 20_000, BOUNDS));
        let most = fs::metadata(dir.path().join("ledger.db")).expect("there").len() * percent / 100;
        let (mut ledger, mut inserter, mut upkeep) = filled(&place, 0, Bounds { max_bytes: most, ..BOUNDS });
        ledger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpointed");
        let mut steps = 0;
        while upkeep.step(&mut ledger, &mut inserter, 500 * DAY, true).expect("a step").has_more {
            // The log is emptied as it goes, as it is between batches.
            ledger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpointed");
            steps += 1;
            assert!(steps < 1_000, "it never ends");
        }
        let on_disk = fs::metadata(dir.path().join("ledger.db")).expect("there").len();
        assert!(on_disk <= most, "{on_disk}");
        assert_eq!(count(&ledger, "SELECT count(*) FROM calls") > 0, leaves_calls);
        if leaves_calls {
            assert_eq!(count(&ledger, "SELECT sum(calls) FROM hours"), 20_000, "sums go last");
        }
        for (totals, sums) in [
            ("hour_totals", "hours"),
            ("day_totals", "days"),
            ("user_day_totals", "user_days"),
            ("minute_totals", "hours"),
        ] {
            let further = format!("SELECT count(*) FROM {totals} WHERE start < (SELECT min(start) FROM {sums})");
            assert_eq!(count(&ledger, &further), 0, "{totals} go with {sums}");
        }
        let orphans = "SELECT count(*) FROM series WHERE id NOT IN (SELECT series FROM hours)
                       AND id NOT IN (SELECT series FROM days)";
        assert_eq!(count(&ledger, orphans), 0);
        assert_eq!(ledger.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)), Ok("ok".into()));
    }
}

#[test]
fn hours_and_days_that_are_over_are_sealed_and_complete() {
    let place = Place::memory();
    let (mut ledger, mut inserter, mut upkeep) = filled(&place, 30_000, BOUNDS);
    let begin = 400 * DAY;
    keep_up(&mut ledger, &mut inserter, &mut upkeep, begin + HOUR + 59_000_000);
    assert_eq!(count(&ledger, "SELECT count(*) FROM sealed"), 0, "late calls may come yet");
    keep_up(&mut ledger, &mut inserter, &mut upkeep, begin + 4 * HOUR);
    assert_eq!(count(&ledger, "SELECT count(*) FROM sealed"), 3);
    keep_up(&mut ledger, &mut inserter, &mut upkeep, begin + 2 * DAY);
    assert_eq!(count(&ledger, "SELECT count(*) FROM sealed"), 10, "nine hours and the day");
    let latencies = |ledger: &Connection, table: &str| {
        let mut all = Vec::new();
        let mut question = ledger.prepare(&format!("SELECT latency FROM {table}")).expect("SQL");
        let blobs = question.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("asked");
        for blob in blobs {
            unpack(&blob.expect("a blob"), |it| all.push(it)).expect("whole");
        }
        all.sort_unstable();
        all
    };
    let calls = entries(14, 30_000);
    let mut rows: Vec<u64> = calls.iter().filter_map(|it| u64::try_from(it.latency.as_micros()).ok()).collect();
    rows.sort_unstable();
    assert_eq!(
        (latencies(&ledger, "hour_latencies") == rows, latencies(&ledger, "day_latencies") == rows),
        (true, true)
    );

    let late = specimens::entry(&mut Random(15), begin + 17);
    inserter.insert(&mut ledger, &[late]).expect("written");
    assert_eq!(count(&ledger, "SELECT count(*) FROM sealed"), 8);
    keep_up(&mut ledger, &mut inserter, &mut upkeep, begin + 2 * DAY);
    assert_eq!(count(&ledger, "SELECT count(*) FROM sealed"), 10);
    assert_eq!(latencies(&ledger, "day_latencies").len(), 30_001);
}

#[test]
fn a_period_of_which_calls_are_gone_is_not_sealed() {
    let (mut ledger, mut inserter, mut upkeep) = filled(&Place::memory(), 10_000, BOUNDS);
    ledger.execute("DELETE FROM calls WHERE id < ?1", [400 * DAY + HOUR / 2]).expect("deleted");
    keep_up(&mut ledger, &mut inserter, &mut upkeep, 402 * DAY);
    assert_eq!(count(&ledger, "SELECT count(*) FROM sealed"), 2, "neither the first hour nor the day");
}

#[tokio::test]
async fn what_is_said_is_kept_as_the_operator_wants_and_goes_with_its_user() {
    let running = Running::begin(Home::memory(), 100);
    let text = |said: &str| Some(Text::beginning(said.as_bytes(), said.len() as u64, said.len()));
    let mut calls = entries(20, 3);
    for call in &mut calls {
        call.user_id = Some("ann".into());
    }
    for (call, capture) in calls.iter().zip([Capture::Full, Capture::Redacted]) {
        let (request, response) = (text(r#"{"input":"I am jane@example.com"}"#), text("Hello, jane@example.com"));
        running.ledger.offer(Arc::new(call.clone()), Some(Box::new(Content { capture, request, response })));
    }
    running.ledger.offer(Arc::new(calls[2].clone()), None);
    running.ledger.flush().await.expect("written");

    let reader = running.ledger.reader().clone();
    let kept = move |call: &Entry| {
        let said = reader.content(call.ended_at).expect("an answer")?;
        Some((said.request.expect("kept"), said.response.expect("kept")))
    };
    let of = |request: &str, response: &str| Some((request.to_owned(), response.to_owned()));
    let as_text = |(request, response): (Vec<u8>, Vec<u8>)| {
        (String::from_utf8(request).expect("text"), String::from_utf8(response).expect("text"))
    };
    assert_eq!(kept(&calls[0]).map(as_text), of(r#"{"input":"I am jane@example.com"}"#, "Hello, jane@example.com"));
    assert_eq!(kept(&calls[1]).map(as_text), of(r#"{"input":"I am [redacted:email]"}"#, "Hello, [redacted:email]"));
    assert_eq!(kept(&calls[2]), None);
    let erased = running.ledger.erase_user("ann", "test").await.expect("erased");
    assert_eq!((erased.calls, erased.contents), (3, 2));
    assert_eq!(kept(&calls[0]), None);
    running.end();
}

#[tokio::test]
async fn what_is_said_waits_within_a_bound_and_its_calls_are_written_all_the_same() {
    let (ledger, writer) = opened(Home::memory(), 1_000);
    let said = "x".repeat(1 << 20);
    let text = || Some(Text::beginning(said.as_bytes(), said.len() as u64, said.len()));
    for call in entries(21, 20) {
        let content = Content { capture: Capture::Full, request: text(), response: None };
        ledger.offer(Arc::new(call), Some(Box::new(content)));
    }
    let standing = ledger.standing();
    assert_eq!((standing().length, standing().content_full), (20, 4), "of 20 MiB, 16 wait");
    let writing = thread::spawn(move || writer.run());
    ledger.flush().await.expect("written");
    assert_eq!((standing().written, standing().queue_full), (20, 0));
    ledger.end();
    writing.join().expect("no panic");
}
