//! The provider fails in every way: the app gets, at once, an error its SDK understands, and the metrics say which.

use std::sync::Arc;

use http::StatusCode;
use tokio::net::TcpListener;

use crate::support::client::collect_broken;
use crate::support::fake::{Fake, Script, Step};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

/// Asks both APIs and checks the shape of what they say.
async fn fails(weir: &Weir, status: StatusCode, error_type: &str) {
    let openai = weir.post(CHAT, &[], ASK).await;
    assert_eq!(openai.status, status, "{:?}", openai.body);
    let error = &openai.json()["error"];
    assert_eq!(error["code"], error_type);
    assert!(error["type"].is_string() && error["message"].as_str().unwrap().contains("provider `openai`"), "{error}");

    let anthropic = weir.post(MESSAGES, &[], ASK).await;
    assert_eq!(anthropic.status, status);
    let body = anthropic.json();
    assert_eq!(body["type"], "error");
    assert!(body["error"]["type"].is_string() && body["request_id"].is_string(), "{body}");

    let durations = format!("error_type=\"{error_type}\"");
    weir.settled().await;
    let metrics = weir.metrics().await;
    let counted = metrics
        .lines()
        .filter(|line| line.starts_with("gen_ai_client_operation_duration_seconds_count") && line.contains(&durations));
    assert_eq!(counted.count(), 2, "one series for each provider says {error_type}");
}

#[tokio::test]
async fn a_refused_connection_is_a_502() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let weir = Weir::before(&format!("http://{address}")).await;
    fails(&weir, StatusCode::BAD_GATEWAY, "connect_error").await;
    weir.stop().await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_502() {
    let weir = Weir::before("http://no-such-host.invalid").await;
    fails(&weir, StatusCode::BAD_GATEWAY, "dns_error").await;
    weir.stop().await;
}

#[tokio::test]
async fn a_failed_handshake_is_a_502() {
    let chatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = chatter.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = chatter.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let weir = Weir::before(&format!("https://{address}")).await;
    fails(&weir, StatusCode::BAD_GATEWAY, "tls_error").await;
    weir.stop().await;
    server.abort();
}

#[tokio::test]
async fn a_reset_before_the_answer_is_a_502() {
    let fake = Fake::always(Script::only(vec![Step::Reset])).await;
    let weir = Weir::before(&fake.url()).await;
    fails(&weir, StatusCode::BAD_GATEWAY, "connection_reset").await;
    weir.stop().await;
}

#[tokio::test]
async fn silence_is_a_504() {
    let fake = Fake::always(Script::only(vec![Step::Hang])).await;
    let weir = Weir::before_with(&fake.url(), "upstream: { first_byte_timeout: 100ms }").await;
    fails(&weir, StatusCode::GATEWAY_TIMEOUT, "timeout").await;
    let timeouts = r#"weir_upstream_requests_total{provider="openai",code="timeout"}"#;
    assert_eq!(weir.metric(timeouts).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_breaks_off_for_the_app_too() {
    let piece = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\n";
    let half = b"data: {\"choices\":[{\"ind";
    let ask = br#"{"model":"gpt-5-mini","stream":true,"messages":[]}"#;
    let broken = Script::begin_sse().pieces(&[piece, half]);
    let silent = broken.clone().then(Step::Hang);
    // What was sent before a reset may be lost with it on any TCP connection; so cut, do not reset.
    for (script, outcome) in [(broken, "upstream_error"), (silent, "timeout")] {
        let fake = Fake::always(script).await;
        let weir = Weir::before_with(&fake.url(), "upstream: { idle_timeout: 100ms }").await;
        let answer = weir.client.open(http::Method::POST, &weir.url(CHAT), &[], ask).await;
        let (came, ended_well) = collect_broken(answer).await;
        assert!(!ended_well, "the app must see that the stream broke off");
        assert_eq!(came, [piece.as_slice(), half].concat(), "all that came before is passed on");
        weir.settled().await;
        let ended = weir.metric_sum("weir_requests_total{").await;
        assert_eq!(ended, 1.0);
        let metrics = weir.metrics().await;
        let counted = |line: &&str| line.starts_with("weir_requests_total") && line.ends_with(" 1");
        let line = metrics.lines().find(counted).unwrap();
        assert!(line.contains(outcome), "{line}");
        let estimated = r#"weir_billable_requests_total{provider="openai",provenance="estimated"}"#;
        assert_eq!(weir.metric(estimated).await, 1.0, "its cost is estimated, not zero");
        weir.stop().await;
    }
}

#[tokio::test]
async fn the_next_call_after_a_failure_is_fine() {
    let bad = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let first = Arc::clone(&bad);
    let fake = Fake::start(move |_| {
        let fails = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        if fails { Script::only(vec![Step::Reset]) } else { Script::json(200, b"{\"choices\":[]}") }
    })
    .await;
    let weir = Weir::before(&fake.url()).await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(weir.post(CHAT, &[], ASK).await.status, StatusCode::OK);
    weir.stop().await;
}

#[tokio::test]
async fn errors_of_the_provider_pass_untouched() {
    let body = br#"{"error":{"message":"slow down","type":"rate_limit_exceeded","param":null,"code":"x"}}"#;
    let headers = [("content-type", "application/json"), ("retry-after-ms", "20"), ("x-should-retry", "true")];
    let fake = Fake::always(Script::whole(429, &headers, body)).await;
    let weir = Weir::before(&fake.url()).await;
    let answer = weir.post(CHAT, &[], ASK).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.body, body.as_slice());
    assert_eq!((answer.header("retry-after-ms"), answer.header("x-should-retry")), ("20", "true"));
    weir.settled().await;
    assert_eq!(weir.metric(r#"weir_upstream_requests_total{provider="openai",code="429"}"#).await, 1.0);
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0, "a refused call costs nothing");
    weir.stop().await;
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_answer_to_begin() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before_with(&fake.url(), "upstream: { first_byte_timeout: 1s }").await;
    let mut tcp = tokio::net::TcpStream::connect(weir.app.trim_start_matches("http://")).await.unwrap();
    tcp.write_all(b"POST /openai/v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        tcp.write_all(b"x").await.unwrap();
    }
    let mut answer = [0; 15];
    tcp.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(fake.received()[0].body.len(), 10);
    drop(tcp);
    weir.stop().await;
}
