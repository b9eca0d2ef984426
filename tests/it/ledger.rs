//! The ledger: every call is one row, whatever becomes of weir or its disk, and the sums are those of the bill.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::StatusCode;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use weir::ledger::filter::Filter;
use weir::ledger::page::Direction;
use weir::ledger::window::Window;
use weir::simulator::bill::Api;
use weir::simulator::pace::Pace;
use weir::simulator::{self, Simulator};
use weir::units::PicoUsd;

use crate::support::client::Client;
use crate::support::disk::Disk;
use crate::support::fake::{Fake, Script};
use crate::support::process::Process;
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
/// gpt-5-mini is listed at 0.25 dollars for a million tokens in, and 2 for a million out: in pico-dollars.
const COST: i64 = 1_000 * 250_000 + 100 * 2_000_000;
/// The most that a sudden end loses: a batch, and what comes in a quarter of a second.
const MOST_LOST: i64 = 1_000;

fn answer() -> Vec<u8> {
    json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]})
    .to_string()
    .into_bytes()
}

fn ask() -> Vec<u8> {
    json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "a prompt that nobody keeps"}]})
        .to_string()
        .into_bytes()
}

async fn start(provider: &Fake, dir: &Path) -> Process {
    let state_dir = format!("state_dir={}", dir.display());
    Process::start(&provider.url(), &["--set", "cache.mode=off", "--set", &state_dir], &[]).await
}

async fn call(client: &Client, weir: &Process) -> StatusCode {
    client.post(&format!("{}{CHAT}", weir.app), &[("x-user-id", "alice")], &ask()).await.status
}

fn open(dir: &Path) -> Connection {
    Connection::open(dir.join("ledger.db")).unwrap()
}

fn number(ledger: &Connection, question: &str) -> i64 {
    ledger.query_row(question, [], |row| row.get(0)).unwrap()
}

/// Every sum against its rows; how many rows there are.
fn checked(dir: &Path) -> i64 {
    let ledger = open(dir);
    let verdict: String = ledger.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let rows = number(&ledger, "SELECT count(*) FROM calls");
    let cost = number(&ledger, "SELECT ifnull(sum(cost), 0) FROM calls");
    assert_eq!(cost, rows * COST, "every row is whole");
    for table in
        ["hours", "days", "user_hours", "user_days", "minute_totals", "hour_totals", "day_totals", "user_day_totals"]
    {
        assert_eq!(number(&ledger, &format!("SELECT ifnull(sum(calls), 0) FROM {table}")), rows, "{table}");
        assert_eq!(number(&ledger, &format!("SELECT ifnull(sum(cost), 0) FROM {table}")), cost, "{table}");
    }
    rows
}

#[tokio::test]
async fn every_call_is_a_row_once_weir_has_ended() {
    let provider = Fake::always(Script::json(200, &answer())).await;
    let dir = TempDir::new().unwrap();
    let client = Client::default();
    let weir = start(&provider, dir.path()).await;
    for _ in 0..20 {
        assert_eq!(call(&client, &weir).await, StatusCode::OK);
    }
    let metrics = client.get(&format!("{}/metrics", weir.admin)).await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let spent = metrics.lines().find(|line| line.starts_with("weir_cost_usd_total{") && line.contains("input"));
    let spent = PicoUsd::of_usd(spent.unwrap().rsplit(' ').next().unwrap()).unwrap();
    assert_eq!(spent.pico(), 20 * 1_000 * 250_000);
    weir.stop().await;
    assert_eq!(checked(dir.path()), 20);
    for file in fs::read_dir(dir.path()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"prompt"), "no prompt is kept");
    }
}

/// `kill -9` under load, again and again: at most what came in one interval is missing, and nothing is torn.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_sudden_ends_leave_every_row_whole() {
    const APPS: i64 = 4;
    let provider = Fake::always(Script::json(200, &answer())).await;
    let dir = TempDir::new().unwrap();
    let mut before = 0;
    // A ledger is there, however soon the first end comes.
    start(&provider, dir.path()).await.stop().await;
    for round in 0..50 {
        let mut weir = start(&provider, dir.path()).await;
        let answered = Arc::new(AtomicI64::new(0));
        let mut apps = JoinSet::new();
        for _ in 0..APPS {
            let (url, answered) = (format!("{}{CHAT}", weir.app), Arc::clone(&answered));
            apps.spawn(async move {
                let client = Client::default();
                // Ends where weir does, or with the test.
                while client.post(&url, &[], &ask()).await.status == StatusCode::OK {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until("some calls are answered", || answered.load(Ordering::Relaxed) >= 50 + 20 * round).await;
        weir.kill();
        apps.shutdown().await;
        let (rows, answered) = (checked(dir.path()) - before, answered.load(Ordering::Relaxed));
        before += rows;
        // Of those in flight, some were over and had no time to say so.
        assert!(rows <= answered + APPS, "round {round}: {rows} of {answered}");
        assert!(answered - rows <= MOST_LOST, "round {round}: {rows} of {answered}");
    }
    assert!(before > 0, "what was killed had written something");
}

#[tokio::test]
async fn calls_go_on_while_nothing_can_be_written_down() {
    let provider = Fake::always(Script::json(200, &answer())).await;
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("place");
    fs::write(&place, "a file where a directory should be").unwrap();
    let client = Client::default();
    let weir = start(&provider, &place).await;
    for _ in 0..5 {
        assert_eq!(call(&client, &weir).await, StatusCode::OK);
    }
    until("it is told", || !weir.told("the ledger cannot be written").is_empty()).await;
    fs::remove_file(&place).unwrap();
    until("it is written again", || !weir.told("the ledger is written again").is_empty()).await;
    assert_eq!(weir.told("the ledger cannot be written").len(), 1, "not once per call");
    weir.stop().await;
    assert_eq!(checked(&place), 5, "what waited is there");
}

/// With a queue that is soon full.
fn short_queue(dir: &Path) -> [String; 3] {
    ["cache.mode=off".to_owned(), "ledger.queue=50".to_owned(), format!("state_dir={}", dir.display())]
}

async fn start_with(settings: &[String], provider: &Fake) -> Process {
    let more: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting.as_str()]).collect();
    Process::start_ready_for_limits(&provider.url(), &more).await
}

/// What the counters of that name add up to.
async fn counted(client: &Client, weir: &Process, name: &str) -> i64 {
    let metrics = String::from_utf8(client.get(&format!("{}/metrics", weir.admin)).await.body.to_vec()).unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
}

/// A disk fails under a weir, and is well again: meanwhile every call is answered and what is lost is counted, and in the
/// end the rest is written. How many rows there are to be.
async fn outlasts(weir: Process, fails: impl FnOnce(&Process), is_well: impl FnOnce(&Process)) -> i64 {
    let client = Client::default();
    let mut calls = 0;
    fails(&weir);
    while counted(&client, &weir, "weir_ledger_dropped_total").await == 0 {
        for _ in 0..20 {
            assert_eq!(call(&client, &weir).await, StatusCode::OK, "after {calls} calls");
            calls += 1;
        }
        assert!(calls < 100_000, "it never fails");
    }
    is_well(&weir);
    let written = timeout(Duration::from_secs(60), async {
        loop {
            let written = counted(&client, &weir, "weir_ledger_records_total").await;
            if written + counted(&client, &weir, "weir_ledger_dropped_total").await == calls {
                return written;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    let written = written.await.expect("every call is written or counted as lost");
    assert!(written > 0, "what waits longest is not all there is");
    weir.stop().await;
    written
}

#[tokio::test]
async fn a_full_disk_costs_no_call_and_is_recovered_from() {
    let provider = Fake::always(Script::json(200, &answer())).await;
    let dir = TempDir::new().unwrap();
    let weir = start_with(&short_queue(dir.path()), &provider).await;
    let written = outlasts(weir, |weir| weir.limit_files("65536"), |weir| weir.limit_files("unlimited")).await;
    assert_eq!(checked(dir.path()), written, "files that cannot grow");

    let Some(disk) = Disk::mounted("no space left") else { return };
    let weir = start_with(&short_queue(disk.path()), &provider).await;
    let written = outlasts(weir, |_| (), |_| disk.remount("size=64m")).await;
    assert_eq!(checked(disk.path()), written, "no space left");
}

#[tokio::test]
async fn a_disk_that_is_read_only_costs_no_call_and_is_recovered_from() {
    let provider = Fake::always(Script::json(200, &answer())).await;
    let Some(disk) = Disk::mounted("read-only") else { return };
    let settings = short_queue(disk.path());
    let weir = start_with(&settings, &provider).await;
    assert_eq!(call(&Client::default(), &weir).await, StatusCode::OK);
    weir.stop().await;
    disk.remount("ro");
    let weir = start_with(&settings, &provider).await;
    let written = outlasts(weir, |_| (), |_| disk.remount("rw,size=64m")).await;
    assert_eq!(checked(disk.path()), 1 + written);
}

/// As slow as a disk can be: not a row is written for as long as somebody else has it.
#[tokio::test]
async fn a_disk_that_stalls_costs_no_call_and_is_recovered_from() {
    let provider = Fake::always(Script::json(200, &answer())).await;
    let dir = TempDir::new().unwrap();
    let weir = start_with(&short_queue(dir.path()), &provider).await;
    until("there is a ledger", || dir.path().join("ledger.db-wal").exists()).await;
    let other = open(dir.path());
    let has = |sql: &'static str| other.execute_batch(sql).unwrap();
    let written = outlasts(weir, |_| has("BEGIN IMMEDIATE"), |_| has("ROLLBACK")).await;
    drop(other);
    assert_eq!(checked(dir.path()), written);
}

/// Three who count by themselves: the simulator what it charged, the metrics what was spent, the ledger each call. Two
/// models, streams, hits, prompts read from the provider's cache, reasoning; and the exported rows.
#[tokio::test]
async fn the_bill_the_metrics_and_the_ledger_agree_to_the_pico_dollar() {
    const MODELS: [(&str, [u128; 3]); 2] = [
        // Pico-dollars for a token in, one read from the provider's cache, one out.
        ("gpt-5-mini", [250_000, 25_000, 2_000_000]),
        ("gpt-5", [1_250_000, 125_000, 10_000_000]),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let simulator = Simulator::new(Pace::instant());
    let serving = tokio::spawn(simulator::run(listener, simulator.clone(), stop.clone().cancelled_owned()));
    let weir = Weir::before_with(&url, "ledger: { mode: memory }").await;
    for number in 0..60 {
        let (model, _) = MODELS[number % 2];
        let prompt = format!("question {}", number % 42);
        let body =
            json!({"model": model, "stream": number % 3 == 0, "messages": [{"role": "user", "content": prompt}]});
        let (input, output) = (1_000 + 7 * number, 100 + 3 * number);
        let usage = format!("usage=input:{input},cached:{},output:{output},reasoning:{}", 11 * number, 2 * number);
        let headers = [("authorization", "Bearer k"), ("x-simulate", usage.as_str())];
        assert_eq!(weir.post(CHAT, &headers, body.to_string().as_bytes()).await.status, StatusCode::OK);
    }
    weir.settled().await;
    let ledger = weir.ledger();
    ledger.flush().await.unwrap();

    let charged: u128 = MODELS.iter().map(|(model, prices)| charge(&simulator, model, *prices)).sum();
    let sums = ledger.reader().totals(Window::ALL, &Filter::default()).unwrap().found;
    assert_eq!((sums.calls, sums.cost.pico()), (60, charged), "the sums of the ledger");
    let all = Filter::default();
    let entries = ledger.reader().walk(Window::ALL, &all, Direction::Oldest);
    let rows: u128 = entries.map(|entry| entry.unwrap().cost.unwrap().pico()).sum();
    assert_eq!(rows, charged, "its rows");
    assert_eq!(weir.metric_pico("weir_cost_usd_total{").await, charged, "the metrics");
    assert!(sums.hits > 0 && sums.saved.pico() > 0, "some were answered by the cache");
    weir.stop().await;
    stop.cancel();
    serving.await.unwrap();
}

fn charge(simulator: &Simulator, model: &str, [input, cached, output]: [u128; 3]) -> u128 {
    let tokens = simulator.bill().line(Api::OpenAi, model).unwrap().tokens;
    let of = u128::from;
    of(tokens.input - tokens.cached) * input + of(tokens.cached) * cached + of(tokens.output) * output
}
