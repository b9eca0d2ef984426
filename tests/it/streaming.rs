//! Streams pass chunk by chunk, at the app's pace; and when the app hangs up, the provider hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use tokio::sync::Notify;

use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","stream":true,"messages":[]}"#;
const FIRST: &[u8] = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
const LAST: &[u8] = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"model\":\"gpt-5-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n";

#[tokio::test]
async fn each_chunk_reaches_the_app_before_the_next_is_sent() {
    let go_on = Arc::new(Notify::new());
    let script = Script::begin_sse()
        .pieces(&[FIRST])
        .then(Step::Wait(Arc::clone(&go_on)))
        .pieces(&[FIRST])
        .then(Step::Wait(Arc::clone(&go_on)))
        .pieces(&[LAST])
        .end();
    let fake = Fake::always(script).await;
    let weir = Weir::before(&fake.url()).await;
    let mut body = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await.into_body();
    for _ in 0..2 {
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(chunk, FIRST);
        go_on.notify_one();
    }
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n") && !String::from_utf8_lossy(&rest).contains("usage"));
    weir.stop().await;
}

#[tokio::test]
async fn a_slow_app_slows_the_provider() {
    let sent = Arc::<AtomicUsize>::default();
    let fake = Fake::always(Script::begin_sse().then(Step::Flood(Arc::clone(&sent)))).await;
    let weir = Weir::before(&fake.url()).await;
    let body = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await.into_body();
    // The provider stops when every buffer on the way is full; what they hold is the kernel's and hyper's, not weir's.
    let (mut before, mut same) = (0, 0);
    while same < 50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = sent.load(Ordering::SeqCst);
        same = if now == before && now > 0 { same + 1 } else { 0 };
        before = now;
    }
    assert!(before < 64 << 20, "{before} bytes were taken though nobody read them");
    drop(body);
    weir.stop().await;
}

#[tokio::test]
async fn when_the_app_hangs_up_the_upstream_call_ends() {
    let waits = Script::only(vec![Step::Hang]);
    let streams = Script::begin_sse().pieces(&[FIRST]).then(Step::Hang);
    for (script, reads_first) in [(waits, false), (streams, true)] {
        let fake = Fake::always(script).await;
        let weir = Weir::before(&fake.url()).await;
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        let has_read = Arc::new(Notify::new());
        let tells = Arc::clone(&has_read);
        let app = tokio::spawn(async move {
            let mut body = client.open(Method::POST, &url, &[], ASK).await.into_body();
            body.frame().await.unwrap().unwrap();
            tells.notify_one();
            std::future::pending::<()>().await;
        });
        until("the provider is asked", || fake.received().len() == 1).await;
        if reads_first {
            has_read.notified().await;
        }
        app.abort();
        until("the provider sees the hang-up", || fake.hung_up() == 1).await;
        weir.settled().await;
        let metrics = weir.metrics().await;
        let cancelled =
            |line: &str| line.starts_with("weir_requests_total") && line.contains("cancelled") && line.ends_with(" 1");
        assert!(metrics.lines().any(cancelled), "{metrics}");
        // Where an answer had begun, what came of it is estimated.
        let (unpriced, estimated) = if reads_first { (0.0, 1.0) } else { (1.0, 0.0) };
        assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, unpriced, "the provider may bill it");
        assert_eq!(weir.metric_sum("weir_usage_estimated_total{").await, estimated);
        weir.stop().await;
    }
}

#[tokio::test]
async fn drain_reads_on_for_the_bill() {
    let go_on = Arc::new(Notify::new());
    let script = Script::begin_sse().pieces(&[FIRST]).then(Step::Wait(Arc::clone(&go_on))).pieces(&[LAST]).end();
    let fake = Fake::always(script).await;
    let weir = Weir::before_with(&fake.url(), "calls: { on_disconnect: drain }").await;
    let mut body = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await.into_body();
    body.frame().await.unwrap().unwrap();
    let drains = Arc::clone(&weir.rooms_now().drains);
    let places = drains.available_permits();
    drop(body);
    until("weir goes on for the bill alone", || drains.available_permits() < places).await;
    go_on.notify_one();
    weir.settled().await;
    let tokens = r#"weir_tokens_total{provider="openai",model="gpt-5-mini",token_type="input"}"#;
    assert_eq!(weir.metric(tokens).await, 10.0);
    assert_eq!(fake.hung_up(), 0);
    weir.stop().await;
}

#[tokio::test]
async fn draining_is_bounded() {
    let fake = Fake::always(Script::begin_sse().pieces(&[FIRST]).then(Step::Hang)).await;
    let weir = Weir::before_with(&fake.url(), "calls: { on_disconnect: drain, drain_timeout: 50ms }").await;
    let mut body = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    until("the provider sees the end", || fake.hung_up() == 1).await;
    weir.stop().await;
}

#[tokio::test]
async fn no_more_calls_drain_than_there_are_places() {
    let fake = Fake::always(Script::begin_sse().pieces(&[FIRST]).then(Step::Hang)).await;
    let yaml =
        "calls: { on_disconnect: drain, max_drains: 1, drain_timeout: 1h }\nconnections: { drain_timeout: 100ms }";
    let mut weir = Weir::before_with(&fake.url(), yaml).await;
    for _ in 0..2 {
        let mut body = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await.into_body();
        body.frame().await.unwrap().unwrap();
    }
    until("the second call is cancelled", || fake.hung_up() == 1).await;
    assert_eq!(fake.received().len(), 2);
    weir.end().await;
    until("the first call ends with weir", || fake.hung_up() == 2).await;
}

#[tokio::test]
async fn a_stream_of_announced_length_is_whole_without_the_usage_chunk() {
    let stream = [FIRST, LAST].concat();
    let fake = Fake::always(Script::whole(200, &[("content-type", "text/event-stream")], &stream)).await;
    let weir = Weir::before(&fake.url()).await;
    for cached in ["MISS", "HIT"] {
        let answer = weir.post(CHAT, &[], ASK).await;
        assert_eq!(answer.header("x-cache"), cached);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("usage"), "{text}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn an_app_that_hangs_up_after_the_end_marker_has_had_its_answer() {
    let fake = Fake::always(Script::begin_sse().pieces(&[FIRST, LAST]).then(Step::Hang)).await;
    let weir = Weir::before(&fake.url()).await;
    let mut body = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await.into_body();
    let mut read = Vec::new();
    while !read.ends_with(b"data: [DONE]\n\n") {
        read.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    drop(body);
    weir.settled().await;
    let succeeded = r#"weir_requests_total{provider="openai",model="gpt-5-mini",operation="chat",outcome="success"}"#;
    assert_eq!(weir.metric(succeeded).await, 1.0);
    assert_eq!(weir.metric_sum("weir_tokens_total{").await, 15.0);
    assert_eq!(weir.post(CHAT, &[], ASK).await.header("x-cache"), "HIT");
    weir.stop().await;
}

#[tokio::test]
async fn trailers_come_last_and_end_a_complete_reply() {
    let end = Step::Send(b"0\r\nx-checksum: 1\r\n\r\n".as_slice().into());
    let headers = [("content-type", "text/event-stream"), ("trailer", "x-checksum")];
    let fake = Fake::always(Script::begin(&headers).pieces(&[FIRST, LAST]).then(end)).await;
    let weir = Weir::before(&fake.url()).await;
    let headers = [("te", "trailers")];
    let answer = weir.client.open(Method::POST, &weir.url(CHAT), &headers, ASK).await;
    let body = answer.into_body().collect().await.unwrap();
    assert!(body.to_bytes().ends_with(b"data: [DONE]\n\n"));
    weir.settled().await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.header("x-cache"), "HIT", "it was complete, and is stored");
    weir.stop().await;
}
