//! Told to stop, weir lets calls in progress end, and closes its books.

use std::sync::Arc;

use http::Method;
use tokio::sync::Notify;

use crate::support::client::collect;
use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const ASK: &[u8] = br#"{"model":"gpt-5-mini","stream":true,"messages":[]}"#;
const CHAT: &str = "/openai/v1/chat/completions";

#[tokio::test]
async fn a_stream_in_progress_is_finished() {
    let go_on = Arc::new(Notify::new());
    let script = Script::begin_sse()
        .pieces(&[b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"])
        .then(Step::Wait(Arc::clone(&go_on)))
        .pieces(&[b"data: [DONE]\n\n"])
        .end();
    let fake = Fake::always(script).await;
    let mut weir = Weir::before(&fake.url()).await;
    let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await;
    weir.begin_to_stop();
    let ready = format!("{}/readyz", weir.admin);
    let mut status = weir.client.get(&ready).await.status;
    while status != http::StatusCode::SERVICE_UNAVAILABLE {
        tokio::task::yield_now().await;
        status = weir.client.get(&ready).await.status;
    }
    go_on.notify_one();
    assert!(collect(answer).await.body.ends_with(b"data: [DONE]\n\n"));
    weir.end().await;
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
