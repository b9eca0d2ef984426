//! Told to stop, weir lets calls in progress end, and closes its books.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::client::{Client, collect};
use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const ASK: &[u8] = br#"{"model":"gpt-5-mini","stream":true,"messages":[]}"#;
const CHAT: &str = "/openai/v1/chat/completions";

#[tokio::test]
async fn a_stream_in_progress_is_finished() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(Script::paused_chat(&go_on)).await;
    let mut weir = Weir::before(&fake.url()).await;
    let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await;
    weir.begin_to_stop();
    not_ready(&weir).await;
    go_on.notify_one();
    assert!(collect(answer).await.body.ends_with(b"data: [DONE]\n\n"));
    weir.end().await;
}

#[tokio::test]
async fn calls_are_taken_for_as_long_as_the_app_is_there() {
    let go_on = Arc::new(Notify::new());
    let fake = {
        let go_on = Arc::clone(&go_on);
        Fake::start(move |request| match request.header("x-slow") {
            Some(_) => Script::begin_sse().then(Step::Wait(Arc::clone(&go_on))).end(),
            None => Script::json(200, b"{}"),
        })
        .await
    };
    let mut weir = Weir::before_with(&fake.url(), "cache: { mode: off }").await;
    let slow = weir.client.open(Method::POST, &weir.url(CHAT), &[("x-slow", "1")], ASK).await;
    weir.begin_to_stop();
    not_ready(&weir).await;
    for client in [&weir.client, &Client::default()] {
        let answer = client.post(&weir.url(CHAT), &[], b"{\"model\":\"gpt-5-mini\",\"messages\":[]}").await;
        assert_eq!(answer.status, StatusCode::OK, "on a connection of before, and on a new one");
    }
    go_on.notify_one();
    collect(slow).await;
    weir.end().await;
}

#[tokio::test]
async fn it_lingers_for_a_last_call_and_no_longer_than_it_may() {
    for (rule, connections, least, most) in [
        ("for as long as is asked for", "linger: 300ms, drain_timeout: 1h", 300, 60_000),
        ("four fifths of the drain timeout bound it", "linger: 1h, drain_timeout: 300ms", 240, 60_000),
    ] {
        let fake = Fake::always(Script::json(200, b"{}")).await;
        let mut weir = Weir::before_with(&fake.url(), &format!("connections: {{ {connections} }}")).await;
        let told = Instant::now();
        weir.end().await;
        let took = told.elapsed().as_millis();
        assert!((least..most).contains(&took), "{rule}: {took} ms");
    }
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_drain_timeout() {
    let fake = Fake::always(Script::begin_sse().then(Step::Hang)).await;
    let mut weir = Weir::before_with(&fake.url(), "connections: { drain_timeout: 100ms }").await;
    let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await;
    weir.end().await;
    assert!(!crate::support::client::collect_broken(answer).await.1);
    until("the provider sees that weir is gone", || fake.hung_up() == 1).await;
}

/// Waits until weir has heard that it is to stop.
async fn not_ready(weir: &Weir) {
    let ready = format!("{}/readyz", weir.admin);
    while weir.client.get(&ready).await.status != StatusCode::SERVICE_UNAVAILABLE {
        tokio::task::yield_now().await;
    }
}
