//! A process under strain: nobody reads its log, its clock jumps. Calls go on, and what is
//! written is right.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::client::{Client, collect};
use crate::support::fake::{Fake, Script};
use crate::support::process::{Process, Reader};

const CHAT: &str = "/openai/v1/chat/completions";
const STREAM: &[u8] = br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"q"}]}"#;

fn answer() -> Vec<u8> {
    json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 10, "completion_tokens": 100_000, "total_tokens": 100_010},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]})
    .to_string()
    .into_bytes()
}

fn ask(number: usize) -> Vec<u8> {
    json!({"model": "gpt-5-mini", "max_tokens": 10, "messages": [{"role": "user", "content": format!("q {number}")}]})
        .to_string()
        .into_bytes()
}

/// A provider whose streams wait in the middle until they may go on.
async fn provider(may_go_on: &Arc<Notify>) -> Fake {
    let may_go_on = Arc::clone(may_go_on);
    Fake::start(move |asked| {
        let is_stream = asked.body.windows(6).any(|part| part == b"stream");
        if is_stream { Script::paused_chat(&may_go_on) } else { Script::json(200, &answer()) }
    })
    .await
}

async fn start(provider: &Fake, dir: &Path, environment: &[(&str, &str)]) -> Process {
    let state_dir = format!("state_dir={}", dir.display());
    let budget = "budgets=[{name: app, limit_usd: 100000, window: hour, enforce: block}]";
    Process::start(&provider.url(), &["--set", &state_dir, "--set", budget], environment).await
}

async fn call(client: &Client, weir: &Process, number: usize) -> StatusCode {
    client.post(&format!("{}{CHAT}", weir.app), &[], &ask(number)).await.status
}

/// How many calls are in the ledger, each once, and all of them in its sums.
fn rows(dir: &Path) -> i64 {
    let ledger = Connection::open(dir.join("ledger.db")).unwrap();
    let number = |question: &str| ledger.query_row(question, [], |row| row.get::<_, i64>(0)).unwrap();
    let verdict: String = ledger.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let rows = number("SELECT count(*) FROM calls");
    for sums in ["hours", "days", "hour_totals", "day_totals", "minute_totals"] {
        assert_eq!(number(&format!("SELECT ifnull(sum(calls), 0) FROM {sums}")), rows, "{sums}");
    }
    rows
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_no_call() {
    // A line is some hundred bytes, and a pipe holds 64 KiB.
    const CALLS: usize = 500;
    for reader in [Reader::Sleeps, Reader::Leaves] {
        let (fake, client, dir) = (provider(&Arc::default()).await, Client::default(), TempDir::new().unwrap());
        let weir = start(&fake, dir.path(), &[]).await;
        weir.log_reader(reader);
        for number in 0..CALLS {
            assert_eq!(call(&client, &weir, number).await, StatusCode::OK, "{reader:?}, {number}");
        }
        let ready = client.get(&format!("{}/readyz", weir.admin)).await;
        assert_eq!(ready.status, StatusCode::OK);
        // It ends, well, and in its time.
        weir.stop().await;
        assert_eq!(rows(dir.path()), 500, "{reader:?}");
    }
}

/// Debian's libfaketime, where it is.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn libfaketime() -> Option<String> {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    if found.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "libfaketime is missing: run scripts/deps.sh");
        eprintln!("skipped: libfaketime is not installed; scripts/deps.sh does it");
    }
    found
}

/// Somebody sets the clock, again and again, while calls are under way: what is measured is measured by a clock that does
/// not jump, what is stored stays fresh, what was spent stays spent, and the books have every call once.
#[tokio::test]
async fn a_clock_that_jumps_costs_no_call_and_no_row() {
    let Some(library) = libfaketime() else { return };
    let may_go_on = Arc::<Notify>::default();
    let (fake, client, dir) = (provider(&may_go_on).await, Client::default(), TempDir::new().unwrap());
    let clock = dir.path().join("clock");
    let set = |offset: &str| {
        fs::write(dir.path().join("next"), offset).unwrap();
        fs::rename(dir.path().join("next"), &clock).unwrap();
    };
    set("+0");
    let clock = clock.display().to_string();
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &clock),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let weir = start(&fake, dir.path(), &environment).await;
    let url = format!("{}{CHAT}", weir.app);
    let no_store = [("cache-control", "no-store")];
    let mut calls = 0;
    let began = Instant::now();
    assert_eq!(client.post(&url, &[], &ask(0)).await.header("x-cache"), "MISS");
    for offset in ["-1h", "+1h", "-1d", "+1d", "+20d", "-20d", "+0"] {
        let under_way = client.open(Method::POST, &url, &no_store, STREAM).await;
        set(offset);
        // Another one meanwhile, and one that is stored.
        assert_eq!(client.post(&url, &no_store, &ask(1)).await.status, StatusCode::OK, "{offset}");
        let stored = client.post(&url, &[], &ask(0)).await;
        let age: u64 = stored.header("age").parse().unwrap();
        assert_eq!(stored.header("x-cache"), "HIT", "{offset}");
        assert!(age <= began.elapsed().as_secs() + 1, "{offset}: {age}");
        may_go_on.notify_one();
        let body = collect(under_way).await.body;
        assert!(body.ends_with(b"data: [DONE]\n\n"), "{offset}: whole");
        calls += 3;
    }
    let spent = client.get(&format!("{}/api/v1/budgets", weir.admin)).await.json();
    let metrics = String::from_utf8(client.get(&format!("{}/metrics", weir.admin)).await.body.to_vec()).unwrap();
    let durations = metrics.lines().filter(|line| line.starts_with("gen_ai_client_operation_duration_seconds_sum"));
    let longest = durations.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).fold(0.0, f64::max);
    assert!(
        longest <= 8.0 * (began.elapsed().as_secs_f64() + 1.0),
        "no call took as long as the clock says: {longest}"
    );
    let spent_usd: f64 = spent["budgets"][0]["spent_usd"].as_str().unwrap().parse().unwrap();
    // A window that has begun is over when its end comes, and never begins again: what was spent since it did counts.
    assert!(spent_usd > 0.0, "{spent}");
    weir.stop().await;
    assert_eq!(rows(dir.path()), calls + 1);
}
