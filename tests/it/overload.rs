//! Too much at once: calls beyond a bound are turned away in the words of their API, bodies that do not fit together pass
//! unread, and whatever ends a call gives back what it held. What takes too long ends, and says so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use weir::allowance::Allowance;

use crate::support::client::{collect, collect_broken};
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::process::Process;
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";
const GEMINI: &str = "/gemini/v1beta/models/gemini-2.5-flash:generateContent";
const PIECE: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\n";
const STREAM: &[u8] = br#"{"model":"gpt-5-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;

/// A question of its own, of about so many bytes.
fn ask(name: &str, bytes: usize) -> Vec<u8> {
    let text = format!("{name} {}", "x".repeat(bytes));
    json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": text}]}).to_string().into_bytes()
}

fn answer(bytes: usize) -> Vec<u8> {
    json!({"object": "chat.completion", "model": "gpt-5-mini", "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x".repeat(bytes)}}]})
    .to_string()
    .into_bytes()
}

/// Answers, but what asks to wait only when it is told to.
async fn waiting(go_on: &Arc<Notify>, reply: Vec<u8>) -> Fake {
    let go_on = Arc::clone(go_on);
    Fake::start(move |received: &Received| {
        let waits = received.body.windows(5).any(|part| part == b"wait ");
        let script = Script::json(200, &reply);
        if waits { script.after(Step::Wait(Arc::clone(&go_on))) } else { script }
    })
    .await
}

fn held(of: &Allowance) -> u64 {
    of.standing().held
}

#[tokio::test]
async fn calls_beyond_the_bound_are_turned_away_in_the_words_of_their_api() {
    let go_on = Arc::new(Notify::new());
    let fake = waiting(&go_on, answer(1)).await;
    let weir = Weir::before_with(&fake.url(), "calls: { max_in_flight: 1 }").await;
    let (client, url, first) = (weir.client.clone(), weir.url(CHAT), ask("wait", 1));
    let first = tokio::spawn(async move { client.post(&url, &[], &first).await });
    until("the first is with the provider", || fake.received().len() == 1).await;

    for (path, says) in [
        (CHAT, json!({"type": "server_error", "code": "overloaded", "param": null})),
        (MESSAGES, json!({"type": "overloaded_error"})),
        (GEMINI, json!({"code": 503, "status": "UNAVAILABLE"})),
    ] {
        let refused = weir.post(path, &[], &ask("now", 1)).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!((refused.header("retry-after"), refused.header("retry-after-ms")), ("1", "1000"), "{path}");
        let error = &refused.json()["error"];
        for (member, value) in says.as_object().unwrap() {
            assert_eq!(&error[member], value, "{path}: {error}");
        }
        assert!(error["message"].as_str().unwrap().contains("calls.max_in_flight"), "{error}");
    }
    go_on.notify_one();
    assert_eq!(first.await.unwrap().status, StatusCode::OK, "who was there first is not touched");
    weir.settled().await;
    assert_eq!(weir.post(CHAT, &[], &ask("then", 1)).await.status, StatusCode::OK, "there is a place again");
    weir.settled().await;
    assert_eq!(fake.received().len(), 2, "nobody was asked what was turned away");
    assert_eq!(weir.metric(r#"weir_shed_total{reason="concurrency"}"#).await, 3.0);
    assert_eq!(weir.metric(r#"weir_shed_total{reason="memory"}"#).await, 0.0);
    let metrics = weir.metrics().await;
    let refused = metrics.lines().filter(|line| line.contains(r#"outcome="rate_limited"} 1"#)).count();
    assert_eq!(refused, 3, "each has its record");
    weir.stop().await;
}

#[tokio::test]
async fn whatever_ends_a_call_gives_its_place_and_its_bytes_back() {
    let fake = Fake::start(|received: &Received| {
        let says = |word: &[u8]| received.body.windows(word.len()).any(|part| part == word);
        match () {
            () if says(b"hangs ") => Script::only(vec![Step::Hang]),
            () if says(b"resets ") => Script::only(vec![Step::Reset]),
            () if says(b"breaks ") => Script::begin_sse().pieces(&[PIECE]),
            () if says(b"stalls ") => Script::begin_sse().pieces(&[PIECE]).then(Step::Hang),
            () => Script::json(200, &answer(40_000)),
        }
    })
    .await;
    let config = "calls: { max_in_flight: 1 }\nupstream: { first_byte_timeout: 50ms, idle_timeout: 50ms }";
    let weir = Weir::before_with(&fake.url(), config).await;
    let rooms = weir.rooms_now();
    let is_free = || rooms.load.calls() == 0 && held(&rooms.load.requests) == 0 && held(&rooms.load.replies) == 0;
    for how in ["ends well", "hangs ", "resets ", "breaks ", "stalls "] {
        let reply = weir.client.open(Method::POST, &weir.url(CHAT), &[], &ask(how, 30_000)).await;
        assert_ne!(reply.status(), StatusCode::SERVICE_UNAVAILABLE, "{how}");
        collect_broken(reply).await;
        until(&format!("all is given back: {how}"), is_free).await;
    }
    // The app goes in the middle: of its own body, while it waits, and of the answer.
    let body = ask("hangs ", 30_000);
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    for sends in [10_000, body.len()] {
        let asked = fake.received().len();
        let mut tcp = TcpStream::connect(weir.app.trim_start_matches("http://")).await.unwrap();
        tcp.write_all(&[head.as_bytes(), &body[..sends]].concat()).await.unwrap();
        until("it has a place", || rooms.load.calls() == 1 && held(&rooms.load.requests) > 0).await;
        if sends == body.len() {
            until("the provider is asked", || fake.received().len() > asked).await;
        }
        drop(tcp);
        until("all is given back", is_free).await;
    }
    let reply = weir.client.open(Method::POST, &weir.url(CHAT), &[], &ask("stalls ", 30_000)).await;
    assert_eq!(rooms.load.calls(), 1);
    drop(reply);
    until("all is given back", is_free).await;
    weir.stop().await;
}

#[tokio::test]
async fn requests_that_do_not_fit_together_pass_unread() {
    let go_on = Arc::new(Notify::new());
    let fake = waiting(&go_on, answer(1)).await;
    let weir = Weir::before_with(&fake.url(), "calls: { max_request_bytes_in_all: 64KiB }").await;
    let (client, url, first) = (weir.client.clone(), weir.url(CHAT), ask("wait", 50_000));
    let first = tokio::spawn(async move { client.post(&url, &[], &first).await });
    until("the first is with the provider", || fake.received().len() == 1).await;

    let large = ask("now", 30_000);
    let unread = weir.post(CHAT, &[], &large).await;
    assert_eq!(unread.status, StatusCode::OK, "the app is served all the same");
    assert_eq!(fake.received()[1].body, large, "to the byte");
    assert!(unread.header("cache-status").contains("detail=unread"), "{}", unread.header("cache-status"));
    let small = weir.post(CHAT, &[], &ask("now", 100)).await;
    assert_eq!(small.header("x-cache"), "MISS", "what is small has room whatever else there is");
    assert_eq!(weir.metric(r#"weir_bodies_unread_total{body="request"}"#).await, 1.0);
    assert_eq!(weir.metric(r#"weir_bodies_held_limit_bytes{body="request"}"#).await, 65_536.0);
    assert!(weir.metric(r#"weir_bodies_held_bytes{body="request"}"#).await > 50_000.0);
    go_on.notify_one();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    weir.settled().await;
    assert_eq!(weir.metric(r#"weir_bodies_held_bytes{body="request"}"#).await, 0.0);
    assert_eq!(weir.post(CHAT, &[], &large).await.header("x-cache"), "MISS", "there is room again");
    weir.stop().await;
}

#[tokio::test]
async fn replies_that_do_not_fit_pass_untouched_and_are_not_stored() {
    let reply = answer(100_000);
    let usage = b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":\
        {\"prompt_tokens\":10,\"completion_tokens\":20}}\n\ndata: [DONE]\n\n";
    let long =
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(9000));
    let mut stream: Vec<&[u8]> = vec![long.as_bytes(); 8];
    stream.push(usage);
    let (whole, streamed) = (Script::json(200, &reply), Script::sse(&stream));
    let fake = Fake::start(move |received: &Received| {
        if received.body.windows(6).any(|part| part == b"stream") { streamed.clone() } else { whole.clone() }
    })
    .await;
    let weir = Weir::before_with(&fake.url(), "calls: { max_reply_bytes_in_all: 32KiB }").await;
    for _ in 0..2 {
        let passed = weir.post(CHAT, &[], &ask("q", 1)).await;
        assert_eq!((passed.status, passed.header("x-cache")), (StatusCode::OK, "MISS"), "it is not stored");
        assert_eq!(passed.body, Bytes::from(reply.clone()));
    }
    for _ in 0..2 {
        let passed = weir.post(CHAT, &[], STREAM).await;
        assert_eq!((passed.status, passed.header("x-cache")), (StatusCode::OK, "MISS"), "it is not stored");
        assert_eq!(passed.body, Bytes::from(stream.concat()));
    }
    weir.settled().await;
    let metrics = weir.metrics().await;
    let output: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("weir_tokens_total{") && line.contains(r#"token_type="output""#))
        .collect();
    assert!(output.iter().any(|line| line.ends_with(" 40")), "streams are read on, event by event: {output:?}");
    // Each reply that came in one piece was not read; of each stream, nothing was kept.
    assert_eq!(weir.metric(r#"weir_bodies_unread_total{body="reply"}"#).await, 6.0, "reading and storing count each");
    assert_eq!(weir.metric(r#"weir_bodies_held_bytes{body="reply"}"#).await, 0.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_body_that_has_to_be_signed_is_turned_away_if_there_is_no_room() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let identity =
        [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")];
    let base_url = format!("providers.bedrock.base_url={}", fake.url());
    let more = [
        "--set",
        &base_url,
        "--set",
        "providers.bedrock.aws_sign=true",
        "--set",
        "providers.bedrock.aws_region=us-east-1",
        "--set",
        "calls.max_request_bytes_in_all=0",
    ];
    let weir = Process::start(&fake.url(), &more, &identity).await;
    let client = crate::support::client::Client::default();
    let path = format!("{}/bedrock/model/us.amazon.nova-lite-v1%3A0/converse", weir.app);
    let refused = client.post(&path, &[], &ask("large", 30_000)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(refused.header("x-amzn-errortype"), "ServiceUnavailableException");
    assert!(refused.json()["message"].as_str().unwrap().contains("max_request_bytes_in_all"), "{:?}", refused.body);
    let small = client.post(&path, &[], &ask("small", 10)).await;
    assert_eq!(small.status, StatusCode::OK, "{:?}", small.body);
    assert!(fake.received()[0].header("authorization").is_some_and(|it| it.starts_with("AWS4-HMAC-SHA256")));
    weir.stop().await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_in_all_ends_in_the_words_of_its_api() {
    let trickle = Script::begin_sse().pieces(&[PIECE]).then(Step::Hang);
    let fake = Fake::start(move |received: &Received| {
        if received.body.windows(6).any(|part| part == b"stream") {
            trickle.clone()
        } else {
            Script::only(vec![Step::Hang])
        }
    })
    .await;
    for (config, words) in [
        ("upstream: { total_timeout: 150ms }", "within 150ms"),
        ("upstream: { first_byte_timeout: 150ms, idle_timeout: 150ms }", "150ms"),
    ] {
        let weir = Weir::before_with(&fake.url(), config).await;
        let unanswered = weir.post(CHAT, &[], &ask("q", 1)).await;
        assert_eq!(unanswered.status, StatusCode::GATEWAY_TIMEOUT, "{config}");
        let error = unanswered.json()["error"].clone();
        assert_eq!((&error["type"], &error["code"]), (&json!("server_error"), &json!("timeout")), "{config}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");

        let stream = weir.client.open(Method::POST, &weir.url(CHAT), &[], STREAM).await;
        let (came, ended_well) = collect_broken(stream).await;
        assert!(ended_well, "{config}: the stream says itself how it ends");
        let last = came.strip_prefix(PIECE).and_then(|rest| rest.strip_prefix(b"data: ")).expect("an event more");
        let error: Value = serde_json::from_slice(last).unwrap();
        assert_eq!(error["error"]["code"], "timeout", "{config}: {error}");
        weir.settled().await;
        let metrics = weir.metrics().await;
        let timeouts =
            metrics.lines().filter(|line| line.starts_with("weir_requests_total{") && line.contains("timeout"));
        let timeouts: f64 = timeouts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
        assert_eq!(timeouts, 2.0, "{config}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn an_endless_stream_is_over_when_its_time_is() {
    let fake = Fake::always(Script::begin_sse().then(Step::Flood(Arc::default()))).await;
    let weir = Weir::before_with(&fake.url(), "upstream: { total_timeout: 300ms }").await;
    let stream = weir.client.open(Method::POST, &weir.url(CHAT), &[], STREAM).await;
    let (came, ended_well) = collect_broken(stream).await;
    assert!(!came.is_empty() && !ended_well, "in the middle of what should have been an event it can only break off");
    weir.settled().await;
    weir.stop().await;
}

#[tokio::test]
async fn an_app_that_stalls_in_the_middle_of_its_request_is_told_so_and_let_go() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before_with(&fake.url(), "calls: { body_timeout: 150ms }").await;
    // Read by weir before it is sent, and streaming through unread.
    for (path, outcome) in [(CHAT, "chat"), ("/openai/v1/files", "other")] {
        let mut tcp = TcpStream::connect(weir.app.trim_start_matches("http://")).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{\"model\":");
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer))
            .await
            .expect("it is closed")
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{path}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let error = serde_json::from_str::<Value>(body).unwrap()["error"].clone();
        assert_eq!((&error["type"], &error["code"]), (&json!("invalid_request_error"), &json!("request_timeout")));
        weir.settled().await;
        let counted = weir.metrics().await;
        let is_it = |line: &&str| {
            line.contains(&format!("operation=\"{outcome}\",outcome=\"client_error\"")) && line.ends_with(" 1")
        };
        assert!(counted.lines().any(|line| is_it(&line)), "{path}");
    }
    // One that is merely slow is not.
    let mut tcp = TcpStream::connect(weir.app.trim_start_matches("http://")).await.unwrap();
    tcp.write_all(format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n").as_bytes()).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        tcp.write_all(b"{}").await.unwrap();
    }
    let mut status = [0; 15];
    tcp.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    drop(tcp);
    weir.stop().await;
}

#[tokio::test]
async fn a_configuration_read_again_bounds_what_goes_on() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(Script::paused_chat(&go_on)).await;
    let weir = Weir::before(&fake.url()).await;
    let stream = weir.client.open(Method::POST, &weir.url(CHAT), &[], STREAM).await;
    weir.configure(&fake.url(), "calls: { max_in_flight: 1 }").await;
    assert_eq!(weir.post(CHAT, &[], &ask("q", 1)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    go_on.notify_one();
    assert!(collect(stream).await.body.ends_with(b"data: [DONE]\n\n"));
    weir.stop().await;
}
