//! The life of a pod, with real processes: weir is there before its app, goes after it, and keeps its books.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::client::{Client, collect};
use crate::support::fake::{Fake, Script};
use crate::support::process::Process;
use crate::support::until;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","max_tokens":1000,"messages":[{"role":"user","content":"q"}]}"#;
const STREAM: &[u8] = br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"q"}]}"#;
/// gpt-5-mini is listed at 2 dollars for a million tokens out.
const CENTS_A_CALL: u64 = 20;

/// A provider whose streams wait in the middle until they may go on, and whose other answers cost 20 cents.
async fn provider(may_go_on: &Arc<Notify>) -> Fake {
    let may_go_on = Arc::clone(may_go_on);
    let answer = json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 0, "completion_tokens": 100_000, "total_tokens": 100_000},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    Fake::start(move |request| {
        if request.body.windows(6).any(|part| part == b"stream") {
            Script::paused_chat(&may_go_on)
        } else {
            Script::json(200, answer.to_string().as_bytes())
        }
    })
    .await
}

#[tokio::test]
async fn it_is_ready_before_its_app_and_whatever_becomes_of_the_provider() {
    let nobody = "http://127.0.0.1:9";
    let weir = Process::start(nobody, &[], &[]).await;
    let admin = weir.admin.trim_start_matches("http://");
    // What a startup probe asks, and what a health check in an image without a shell does.
    until("weir is ready", || {
        let health =
            Command::new(env!("CARGO_BIN_EXE_weir")).args(["health", "--admin-listen", admin]).env_clear().output();
        health.unwrap().status.success()
    })
    .await;
    let answer = Client::default().post(&format!("{}{CHAT}", weir.app), &[], ASK).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "the SDK tries again");
    assert_eq!(Client::default().get(&format!("{}/readyz", weir.admin)).await.status, StatusCode::OK);
    weir.stop().await;
}

#[tokio::test]
async fn told_to_stop_under_fifty_streams_it_finishes_all_and_takes_what_comes() {
    let may_go_on = Arc::new(Notify::new());
    let (fake, client) = (provider(&may_go_on).await, Client::default());
    let weir = Process::start(&fake.url(), &["--set", "cache.mode=off"], &[]).await;
    let url = format!("{}{CHAT}", weir.app);
    let mut streams = JoinSet::new();
    for _ in 0..50 {
        let answer = client.open(Method::POST, &url, &[], STREAM).await;
        streams.spawn(async move { collect(answer).await.body });
    }
    weir.begin_to_stop();
    until("weir has heard it", || !weir.told("stopping").is_empty()).await;
    assert_eq!(Client::default().post(&url, &[], ASK).await.status, StatusCode::OK, "the app still calls");
    let over = Arc::new(AtomicBool::new(false));
    let going_on = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            while !over.load(Ordering::Relaxed) {
                may_go_on.notify_waiters();
                tokio::task::yield_now().await;
            }
        }
    });
    while let Some(body) = streams.join_next().await {
        assert!(body.unwrap().ends_with(b"data: [DONE]\n\n"), "whole, to the end");
    }
    over.store(true, Ordering::Relaxed);
    going_on.await.unwrap();
    weir.end().await;
}

#[cfg(feature = "ledger")]
#[tokio::test]
async fn a_job_ends_and_every_call_of_it_is_on_the_books() {
    const CALLS: u64 = 30;
    let (fake, client) = (provider(&Arc::default()).await, Client::default());
    let dir = tempfile::tempdir().unwrap();
    let state_dir = format!("state_dir={}", dir.path().display());
    let budget = "budgets=[{name: app, limit_usd: 1000, window: total}]";
    let arguments = ["--set", "cache.mode=off", "--set", &state_dir, "--set", budget];
    let weir = Process::start(&fake.url(), &arguments, &[]).await;
    for _ in 0..CALLS {
        assert_eq!(client.post(&format!("{}{CHAT}", weir.app), &[], ASK).await.status, StatusCode::OK);
    }
    // The kubelet tells it as soon as the job's own container is done.
    weir.stop().await;

    let weir = Process::start(&fake.url(), &arguments, &[]).await;
    let asked = format!("{}/api/v1/usage/overview?range=1h", weir.admin);
    // Its ledger is opened beside what it does first.
    let mut overview = client.get(&asked).await;
    while overview.status == StatusCode::SERVICE_UNAVAILABLE {
        overview = client.get(&asked).await;
    }
    let overview = overview.json();
    assert_eq!(overview["total_calls"], json!(CALLS), "{overview}");
    let budgets = client.get(&format!("{}/api/v1/budgets", weir.admin)).await.json();
    assert_eq!(budgets["budgets"][0]["spent_usd"], json!((CENTS_A_CALL * CALLS / 100).to_string()), "{budgets}");
    weir.stop().await;
}
