//! What limits have counted survives a restart: one that was asked for, and one that nobody expected.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir::units::PicoUsd;

use crate::support::client::Client;
use crate::support::fake::{Fake, Script, Step};
use crate::support::process::Process;
use crate::support::until;

const CHAT: &str = "/openai/v1/chat/completions";
/// What an answer costs: gpt-5-mini is listed at 2 dollars for a million tokens out.
const CENTS: u128 = 20;
/// Budgets that hold up nobody here.
const BUDGETS: &str = "budgets=[{name: app, limit_usd: 100000, window: total, enforce: block}]";

fn answer() -> Vec<u8> {
    json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 0, "completion_tokens": 100_000, "total_tokens": 100_000},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]})
    .to_string()
    .into_bytes()
}

fn ask() -> Vec<u8> {
    json!({"model": "gpt-5-mini", "max_tokens": 100_000, "messages": [{"role": "user", "content": "q"}]})
        .to_string()
        .into_bytes()
}

/// A weir that keeps its state in `dir`, with these budgets or limits.
async fn start(provider: &Fake, dir: &Path, rules: &str) -> Process {
    let state_dir = format!("state_dir={}", dir.display());
    let arguments = ["--set", "cache.mode=off", "--set", &state_dir, "--set", rules];
    Process::start(&provider.url(), &arguments, &[]).await
}

async fn call(client: &Client, weir: &Process) -> StatusCode {
    client.post(&format!("{}{CHAT}", weir.app), &[], &ask()).await.status
}

/// A number that stands there once: of the only budget, or of weir.
async fn gauge(client: &Client, weir: &Process, name: &str) -> PicoUsd {
    let answer = client.get(&format!("{}/metrics", weir.admin)).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let line = text.lines().find(is_it).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// What the file says was spent, in cents; nothing if there is none.
fn cents_on_disk(dir: &Path) -> u128 {
    let Ok(text) = std::fs::read_to_string(dir.join("limits.json")) else { return 0 };
    let json: Value = serde_json::from_str(&text).expect("whole, whenever it is read");
    let usd = json["state"]["budgets"][0]["accounts"][0]["usd"].as_str();
    usd.map_or(0, |usd| cents(usd.parse().unwrap()))
}

fn cents(amount: PicoUsd) -> u128 {
    amount.pico() / (PicoUsd::PER_USD / 100)
}

/// Apps that ask again and again, until weir is gone.
struct Load {
    /// When they were answered.
    answers: Arc<Mutex<Vec<Instant>>>,
    asked: Arc<AtomicUsize>,
    apps: JoinSet<()>,
}

impl Load {
    fn on(weir: &Process) -> Self {
        let mut load = Self { answers: Arc::default(), asked: Arc::default(), apps: JoinSet::new() };
        for _ in 0..4 {
            let (answers, asked) = (Arc::clone(&load.answers), Arc::clone(&load.asked));
            let (url, client) = (format!("{}{CHAT}", weir.app), Client::default());
            load.apps.spawn(async move {
                loop {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let Some(answer) = client.post_if_there(&url, &ask()).await else { return };
                    assert_eq!(answer.status, StatusCode::OK);
                    answers.lock().unwrap().push(Instant::now());
                }
            });
        }
        load
    }

    /// When the first was answered.
    fn first(&self) -> Option<Instant> {
        self.answers.lock().unwrap().first().copied()
    }

    /// How many were answered before `moment`, and how many were asked, once weir is gone.
    async fn end(mut self, moment: Instant) -> (u128, u128) {
        while let Some(app) = self.apps.join_next().await {
            app.expect("every answer was a good one");
        }
        let answered = self.answers.lock().unwrap().iter().filter(|at| **at < moment).count();
        (answered as u128, self.asked.load(Ordering::SeqCst) as u128)
    }
}

/// Written once a second, and a second for a disk that others use as well.
const MOST_LOST: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_kill_under_load_loses_no_more_than_the_last_second() {
    let (fake, dir, client) = (Fake::always(Script::json(200, &answer())).await, temporary(), Client::default());
    let mut weir = start(&fake, dir.path(), BUDGETS).await;
    let load = Load::on(&weir);
    // Whatever has been written by then: who kills does not wait for it.
    until("answers have come for a while", || load.first().is_some_and(|first| first.elapsed() > 2 * MOST_LOST)).await;
    let killed = Instant::now();
    weir.kill();
    let kept = cents_on_disk(dir.path());
    let (answered, asked) = load.end(killed - MOST_LOST).await;
    assert!(answered > 0 && answered * CENTS <= kept, "{kept} of {} cents are known", answered * CENTS);
    assert!(kept <= asked * CENTS, "{kept} cents for {asked} calls");

    let weir = start(&fake, dir.path(), BUDGETS).await;
    assert_eq!(cents(gauge(&client, &weir, "weir_budget_spent_usd").await), kept, "at the first scrape");
    assert_eq!(gauge(&client, &weir, "weir_budget_reserved_usd").await, PicoUsd::ZERO);
    assert_eq!(weir.told("goes on with what was kept before").len(), 1);
    assert_eq!(call(&client, &weir).await, StatusCode::OK);
    weir.stop().await;
    assert_eq!(cents_on_disk(dir.path()), kept + CENTS);
}

/// Every other time while a file is being written, if that can be seen, and then with what that left behind.
#[tokio::test]
async fn a_kill_at_any_moment_leaves_a_file_that_is_whole() {
    let (fake, dir) = (Fake::always(Script::json(200, &answer())).await, temporary());
    let mut before = 0;
    for round in 0..6 {
        let mut weir = start(&fake, dir.path(), BUDGETS).await;
        let load = Load::on(&weir);
        let beside = dir.path().join("limits.json.new");
        let is_midway = || round % 2 == 1 && beside.exists();
        until("a file is being written, or was", || is_midway() || cents_on_disk(dir.path()) > before).await;
        weir.kill();
        assert!(weir.told("of no use").is_empty(), "round {round}");
        load.end(Instant::now()).await;
        let kept = cents_on_disk(dir.path());
        assert!(kept >= before, "round {round}: {kept} cents, and {before} before");
        before = kept;
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("corrupt")), "{names:?}");
}

#[tokio::test]
async fn a_weir_that_is_told_to_stop_loses_nothing() {
    let (dir, client) = (temporary(), Client::default());
    let go_on = Arc::new(Notify::new());
    let held = Arc::clone(&go_on);
    let fake = Fake::start(move |request| {
        let script = Script::json(200, &answer());
        let is_last = request.header("x-last").is_some();
        if is_last { script.after(Step::Wait(Arc::clone(&held))) } else { script }
    })
    .await;
    let weir = start(&fake, dir.path(), BUDGETS).await;
    for _ in 0..3 {
        assert_eq!(call(&client, &weir).await, StatusCode::OK);
    }
    let url = format!("{}{CHAT}", weir.app);
    let app = client.clone();
    let last = tokio::spawn(async move { app.post(&url, &[("x-last", "1")], &ask()).await.status });
    until("the last call is under way", || fake.received().len() == 4).await;
    weir.begin_to_stop();
    until("weir is stopping", || !weir.told("stopping").is_empty()).await;
    go_on.notify_one();
    assert_eq!(last.await.unwrap(), StatusCode::OK);
    weir.stop().await;
    assert_eq!(cents_on_disk(dir.path()), 4 * CENTS, "what ended while weir stopped is known as well");
}

#[tokio::test]
async fn a_spent_budget_stays_spent() {
    let (fake, dir, client) = (Fake::always(Script::json(200, &answer())).await, temporary(), Client::default());
    let rules = "budgets=[{name: app, limit_usd: 0.30, window: total, enforce: block}]";
    let mut weir = start(&fake, dir.path(), rules).await;
    for status in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(call(&client, &weir).await, status);
    }
    for _ in 0..3 {
        until("it is written", || cents_on_disk(dir.path()) == 2 * CENTS).await;
        weir.kill();
        weir = start(&fake, dir.path(), rules).await;
        assert_eq!(call(&client, &weir).await, StatusCode::TOO_MANY_REQUESTS, "a crash loop spends nothing");
    }
    assert_eq!(fake.received().len(), 2);
}

#[tokio::test]
async fn a_spent_rate_stays_spent() {
    let (fake, dir, client) = (Fake::always(Script::json(200, &answer())).await, temporary(), Client::default());
    let rules = "limits=[{name: few, requests_per_day: 2}]";
    let weir = start(&fake, dir.path(), rules).await;
    for status in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(call(&client, &weir).await, status);
    }
    weir.stop().await;
    let weir = start(&fake, dir.path(), rules).await;
    assert_eq!(call(&client, &weir).await, StatusCode::TOO_MANY_REQUESTS);
    weir.stop().await;
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_named() {
    let (fake, dir, client) = (Fake::always(Script::json(200, &answer())).await, temporary(), Client::default());
    let weir = start(&fake, dir.path(), BUDGETS).await;
    assert_eq!(call(&client, &weir).await, StatusCode::OK);
    weir.stop().await;
    let path = dir.path().join("limits.json");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();

    let weir = start(&fake, dir.path(), BUDGETS).await;
    let told = weir.told("is of no use, and set aside");
    let message = told[0]["message"].as_str().unwrap();
    let (_, aside) = message.split_once("set aside as ").unwrap();
    let aside = PathBuf::from(aside.split(';').next().unwrap());
    assert_eq!(std::fs::read(&aside).unwrap(), whole[..whole.len() - 9]);
    assert!(aside.to_string_lossy().contains("limits.json.corrupt-20"), "{aside:?}");
    assert_eq!(told[0]["file.path"], path.display().to_string());
    assert_eq!(gauge(&client, &weir, "weir_budget_spent_usd").await, PicoUsd::ZERO);
    assert_eq!(call(&client, &weir).await, StatusCode::OK);
    weir.stop().await;
    assert_eq!(cents_on_disk(dir.path()), CENTS);
}

/// Calls go on whatever becomes of the state, and what is wrong is told once.
#[tokio::test]
async fn a_directory_that_is_of_no_use_holds_up_no_call() {
    let (fake, dir, client) = (Fake::always(Script::json(200, &answer())).await, temporary(), Client::default());
    let first = start(&fake, dir.path(), BUDGETS).await;
    let second = start(&fake, dir.path(), BUDGETS).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let nowhere = start(&fake, file.path(), BUDGETS).await;
    for weir in [&first, &second, &nowhere] {
        assert_eq!(call(&client, weir).await, StatusCode::OK);
    }
    let told = second.told("nothing of this weir survives a restart");
    assert!(told[0]["error.message"].as_str().unwrap().starts_with("another weir keeps its state in "), "{told:?}");
    assert_eq!(nowhere.told("cannot be kept: calls go on").len(), 1);
    let one = PicoUsd::new(PicoUsd::PER_USD);
    for (weir, kept) in [(&first, one), (&second, PicoUsd::ZERO), (&nowhere, PicoUsd::ZERO)] {
        assert_eq!(gauge(&client, weir, "weir_state_kept").await, kept);
    }
    nowhere.stop().await;
    second.stop().await;
    first.stop().await;
    assert_eq!(cents_on_disk(dir.path()), CENTS, "of the first one's own call");
}

#[tokio::test]
async fn without_rules_nothing_is_made() {
    let (fake, dir, client) = (Fake::always(Script::json(200, &answer())).await, temporary(), Client::default());
    let place = dir.path().join("state");
    let weir = start(&fake, &place, "ledger.mode=off").await;
    assert_eq!(call(&client, &weir).await, StatusCode::OK);
    weir.stop().await;
    assert!(!place.exists());
}

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}
