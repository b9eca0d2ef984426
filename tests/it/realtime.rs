//! A WebSocket session passes through weir untouched, and each response in it is a call of its own.

use std::time::Duration;

use http::StatusCode;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::fake::{Fake, Script, Step};
use crate::support::socket::{Head, KEY, Provider, agree, ask, close, frame, rest, session, text};
use crate::support::tls::Identity;
use crate::support::until;
use crate::support::weir::Weir;

const PATH: &str = "/openai/v1/realtime?model=gpt-realtime";
/// A frame of the app: a masked text message.
const SAID: &[u8] = b"\x81\x82\x01\x02\x03\x04zq";
const PING: [u8; 2] = [0x89, 0];

const CREATED: &str = r#"{"type":"session.created","session":{"type":"realtime","model":"gpt-realtime",
    "audio":{"input":{"transcription":{"model":"gpt-4o-mini-transcribe"}}}}}"#;
const BEGUN: &str = r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}"#;
const DELTA: &str = r#"{"type":"response.output_text.delta","response_id":"resp_1","delta":"Guten Tag 🙂"}"#;
/// 100 text tokens in, 20 of them cached; 30 out. At 4, 0.4 and 16 dollars per million: 0.000808 dollars.
const DONE: &str = r#"{"type":"response.done","response":{"id":"resp_1","status":"completed",
    "output":[{"type":"message"}],"usage":{"total_tokens":130,"input_tokens":100,"output_tokens":30,
    "input_token_details":{"text_tokens":100,"audio_tokens":0,"cached_tokens":20,
    "cached_tokens_details":{"text_tokens":20,"audio_tokens":0}},"output_token_details":{"text_tokens":30}}}}"#;
/// 13 audio tokens in, 9 out. At 3 and 5 dollars per million: 0.000084 dollars.
const HEARD: &str = r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"item_1",
    "transcript":"hello","usage":{"type":"tokens","total_tokens":22,"input_tokens":13,"output_tokens":9,
    "input_token_details":{"text_tokens":0,"audio_tokens":13}}}"#;

fn requests(model: &str, operation: &str, outcome: &str) -> String {
    format!(r#"weir_requests_total{{provider="openai",model="{model}",operation="{operation}",outcome="{outcome}"}}"#)
}

#[expect(clippy::cast_precision_loss, reason = "the tests count in small numbers")]
fn count(number: usize) -> f64 {
    number as f64
}

fn session_ended(outcome: &str) -> String {
    requests("none", "other", outcome)
}

fn response_ended(outcome: &str) -> String {
    requests("gpt-realtime", "chat", outcome)
}

/// Waits until a series has this value.
async fn reaches(weir: &Weir, series: &str, value: f64) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while weir.metric(series).await != value {
        assert!(tokio::time::Instant::now() < deadline, "{series} is not {value}:\n{}", weir.metrics().await);
    }
}

#[tokio::test]
async fn the_handshake_is_between_the_two_ends() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let more = "authorization: Bearer sk-app\r\nx-agent-id: planner\r\n\
        sec-websocket-protocol: realtime, openai-insecure-api-key.sk-secret\r\n\
        sec-websocket-extensions: permessage-deflate\r\n";
    let (mut app, (asked, mut tcp)) = tokio::join!(ask(&weir.app, PATH, more), provider.asked());
    assert_eq!(asked.first_line(), "GET /v1/realtime?model=gpt-realtime HTTP/1.1");
    for (name, value) in [
        ("host", Some(&provider.url()[7..])),
        ("connection", Some("Upgrade")),
        ("upgrade", Some("websocket")),
        ("sec-websocket-key", Some(KEY)),
        ("sec-websocket-version", Some("13")),
        ("sec-websocket-protocol", Some("realtime, openai-insecure-api-key.sk-secret")),
        ("authorization", Some("Bearer sk-app")),
        ("sec-websocket-extensions", None),
        ("x-agent-id", None),
        ("content-length", None),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    // Its first message may come in one piece with its agreement.
    tcp.write_all(
        b"HTTP/1.1 101 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\
        sec-websocket-protocol: realtime\r\nx-request-id: req_1\r\n\r\n\x81\x02hi",
    )
    .await
    .unwrap();
    let answered = Head::read(&mut app).await;
    assert_eq!(answered.first_line(), "HTTP/1.1 101 Switching Protocols");
    for (name, value) in [
        ("connection", Some("Upgrade")),
        ("upgrade", Some("websocket")),
        ("sec-websocket-accept", Some("x")),
        ("sec-websocket-protocol", Some("realtime")),
        ("x-request-id", Some("req_1")),
        ("x-cache", Some("BYPASS")),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(answered.header(name), value, "{name}");
    }
    tcp.shutdown().await.unwrap();
    assert_eq!(rest(&mut app).await, b"\x81\x02hi");
    drop(app);
    assert_eq!(rest(tcp).await, b"");
    weir.settled().await;
    assert!(!weir.metrics().await.contains("sk-secret"));
    weir.stop().await;
}

#[tokio::test]
async fn weirs_credential_takes_the_place_of_the_apps_wherever_that_travels() {
    let provider = Provider::start().await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "sk-weir").unwrap();
    let yaml =
        format!("providers: {{ openai: {{ base_url: \"{}\", api_key_file: \"{}\" }} }}", provider.url(), key.display());
    let weir = Weir::start(&yaml).await;
    let more = "authorization: Bearer sk-app\r\n\
        sec-websocket-protocol: realtime, openai-insecure-api-key.sk-app, openai-beta.realtime-v1\r\n";
    let (mut app, (asked, tcp)) = tokio::join!(ask(&weir.app, PATH, more), provider.agrees());
    assert_eq!(asked.header("authorization"), Some("Bearer sk-weir"));
    assert_eq!(asked.header("sec-websocket-protocol"), Some("realtime, openai-beta.realtime-v1"));
    Head::read(&mut app).await;
    drop((app, tcp));
    weir.stop().await;
}

#[tokio::test]
async fn a_refusal_is_an_ordinary_reply() {
    let body = br#"{"error":{"message":"Incorrect API key provided.","type":"invalid_request_error"}}"#;
    let fake = Fake::always(Script::json(401, body)).await;
    let weir = Weir::before(&fake.url()).await;
    let mut app = ask(&weir.app, PATH, "").await;
    for _ in 0..2 {
        let head = Head::read(&mut app).await;
        assert_eq!(head.first_line(), "HTTP/1.1 401 Unauthorized");
        assert_eq!((head.header("upgrade"), head.header("content-type")), (None, Some("application/json")));
        let mut came = vec![0; body.len()];
        app.read_exact(&mut came).await.unwrap();
        assert_eq!(came, body);
        // The connection is still one for requests.
        app.write_all(b"GET /openai/v1/models HTTP/1.1\r\nhost: weir\r\n\r\n").await.unwrap();
    }
    drop(app);
    weir.settled().await;
    assert_eq!(weir.metric_sum(&session_ended("client_error")).await, 2.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_asked_or_says_nothing_is_told_in_its_words() {
    let silent = Fake::always(Script::only(vec![Step::Hang])).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, status, code, outcome) in [
        (silent.url(), "HTTP/1.1 504 Gateway Timeout", "timeout", "timeout"),
        (format!("http://{gone}"), "HTTP/1.1 502 Bad Gateway", "connect_error", "upstream_error"),
    ] {
        let weir = Weir::before_with(&url, "upstream: { first_byte_timeout: 100ms }").await;
        let mut app = ask(&weir.app, PATH, "connection: close\r\n").await;
        assert_eq!(Head::read(&mut app).await.first_line(), status);
        let body: serde_json::Value = serde_json::from_slice(&rest(app).await).unwrap();
        assert_eq!(body["error"]["code"], code);
        weir.settled().await;
        assert_eq!(weir.metric(&session_ended(outcome)).await, 1.0);
        weir.stop().await;
    }
}

#[tokio::test]
async fn each_response_is_booked_when_it_ends_while_the_session_goes_on() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let more = "x-agent-id: planner\r\n";
    let (mut app, (_, mut tcp)) = tokio::join!(ask(&weir.app, PATH, more), provider.agrees());
    Head::read(&mut app).await;
    let said = [CREATED, BEGUN, DELTA, HEARD, DONE].map(text).concat();
    tcp.write_all(&said).await.unwrap();
    let mut came = vec![0; said.len()];
    app.read_exact(&mut came).await.unwrap();
    assert_eq!(came, said);

    reaches(&weir, &response_ended("success"), 1.0).await;
    reaches(&weir, &requests("gpt-4o-mini-transcribe", "transcription", "success"), 1.0).await;
    let model = r#"provider="openai",model="gpt-realtime""#;
    for (class, tokens, cost) in
        [("input", 80.0, 0.000_32), ("cache_read", 20.0, 0.000_008), ("output", 30.0, 0.000_48)]
    {
        let labels = format!(r#"{model},token_type="{class}"}}"#);
        assert_eq!(weir.metric(&format!("weir_tokens_total{{{labels}")).await, tokens, "{class}");
        assert_eq!(weir.metric(&format!("weir_cost_usd_total{{{labels}")).await, cost, "{class}");
    }
    let heard = weir.metric_sum(r#"weir_cost_usd_total{provider="openai",model="gpt-4o-mini-transcribe""#).await;
    assert!((heard - 0.000_084).abs() < 1e-12, "{heard}");
    assert_eq!(weir.metric(r#"weir_agent_tokens_total{agent="planner"}"#).await, 152.0);
    assert_eq!(weir.metric_sum("gen_ai_server_time_to_first_token_seconds_count{").await, 1.0);
    assert_eq!(weir.metric(r#"weir_requests_in_flight{provider="openai"}"#).await, 1.0, "the session itself");
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0);

    app.write_all(SAID).await.unwrap();
    tcp.write_all(&close(1000)).await.unwrap();
    drop(tcp);
    assert_eq!(rest(app).await, close(1000));
    weir.settled().await;
    assert_eq!(weir.metric(&session_ended("success")).await, 1.0);
    assert_eq!(weir.metric(r#"weir_http_bytes_total{direction="out"}"#).await, count(said.len() + 4));
    assert_eq!(weir.metric(r#"weir_proxy_overhead_seconds_count{phase="request"}"#).await, 1.0, "of the session alone");
    weir.stop().await;
}

#[tokio::test]
async fn once_a_budget_is_spent_a_session_ends_with_its_next_response() {
    let provider = Provider::start().await;
    let budget = "budgets: [{ name: app, limit_usd: 0.0008, window: total, enforce: block }]";
    let weir = Weir::before_with(&provider.url(), budget).await;
    let (mut app, mut tcp) = session(&weir.app, &provider, PATH).await;
    let first = [CREATED, BEGUN, DELTA, DONE].map(text).concat();
    tcp.write_all(&first).await.unwrap();
    let mut came = vec![0; first.len()];
    app.read_exact(&mut came).await.unwrap();
    assert_eq!(came, first, "a response within the budget is as it came");
    reaches(&weir, &response_ended("success"), 1.0).await;

    // Cut within the message that is one too many, and with more behind it.
    let next = BEGUN.replace("resp_1", "resp_2");
    let [next, delta] = [&next, DELTA].map(text);
    tcp.write_all(&next[..9]).await.unwrap();
    tcp.write_all(&[&next[9..], &delta].concat()).await.unwrap();
    let reason = b"weir's budget `app` of 0.0008 USD is spent: ask whoever runs weir to raise it";
    let goodbye = frame(0x88, &[&1008_u16.to_be_bytes()[..], reason].concat());
    let mut last = vec![0; next.len() + goodbye.len()];
    app.read_exact(&mut last).await.unwrap();
    assert_eq!(last, [next, goodbye].concat());
    assert_eq!(rest(&mut tcp).await, b"", "the provider is left at once, while the app still reads");
    app.write_all(b"\x88\x82\0\0\0\0\x03\xf0").await.unwrap();
    drop(tcp);
    assert_eq!(rest(app).await, b"");
    weir.settled().await;
    for series in [session_ended("budget_blocked"), response_ended("budget_blocked"), response_ended("success")] {
        assert_eq!(weir.metric(&series).await, 1.0, "{series}");
    }
    assert_eq!(weir.limits().budgets_now()[0].blocked, 1);
    weir.stop().await;
}

#[tokio::test]
async fn however_messages_are_framed_the_same_is_booked() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let (mut app, mut tcp) = session(&weir.app, &provider, PATH).await;
    let (begin, end) = DONE.as_bytes().split_at(40);
    let (middle, end) = end.split_at(50);
    let said = [
        text(BEGUN),
        frame(0x02, &[0xff; 300]),
        PING.to_vec(),
        frame(0x80, b"\0\xff"),
        frame(0x01, begin),
        PING.to_vec(),
        frame(0x00, middle),
        frame(0x8a, b"pong"),
        frame(0x80, end),
    ]
    .concat();
    for byte in &said {
        tcp.write_all(&[*byte]).await.unwrap();
    }
    let mut came = vec![0; said.len()];
    app.read_exact(&mut came).await.unwrap();
    assert_eq!(came, said);
    reaches(&weir, &response_ended("success"), 1.0).await;
    drop((app, tcp));
    weir.stop().await;
}

#[tokio::test]
async fn cut_anywhere_everything_is_passed_on_and_booked_once() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let begun = text(BEGUN);
    let said =
        [begun.clone(), frame(0x01, &DONE.as_bytes()[..200]), PING.to_vec(), frame(0x80, &DONE.as_bytes()[200..])];
    let said = [said.concat(), close(1000)].concat();
    let ends_at = said.len() - 4;
    for cut in 0..=said.len() {
        let (app, mut tcp) = session(&weir.app, &provider, PATH).await;
        tcp.write_all(&said[..cut]).await.unwrap();
        if cut % 2 == 0 {
            tcp.shutdown().await.unwrap();
        }
        drop(tcp);
        assert_eq!(rest(app).await, &said[..cut], "cut at {cut}");
    }
    weir.settled().await;
    for (series, expected) in [
        (response_ended("success"), said.len() - ends_at + 1),
        (response_ended("upstream_error"), ends_at - begun.len()),
        (session_ended("success"), 1),
        (session_ended("upstream_error"), said.len()),
        (r#"weir_unpriced_requests_total{provider="openai",reason="no_usage"}"#.to_owned(), ends_at - begun.len()),
    ] {
        assert_eq!(weir.metric(&series).await, count(expected), "{series}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn an_app_that_vanishes_in_the_middle_of_a_frame_cancels_what_is_open() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    for (at, reset) in [(1, false), (5, false), (7, true)] {
        let (mut app, mut tcp) = session(&weir.app, &provider, PATH).await;
        tcp.write_all(&text(BEGUN)).await.unwrap();
        let mut came = vec![0; text(BEGUN).len()];
        app.read_exact(&mut came).await.unwrap();
        app.write_all(&SAID[..at]).await.unwrap();
        let mut passed = vec![0; at];
        tcp.read_exact(&mut passed).await.unwrap();
        assert_eq!(passed, SAID[..at]);
        if reset {
            app.set_zero_linger().unwrap();
        }
        drop(app);
        assert_eq!(rest(tcp).await, b"", "the provider sees that it is gone");
    }
    weir.settled().await;
    assert_eq!(weir.metric(&response_ended("cancelled")).await, 3.0);
    assert_eq!(weir.metric(&session_ended("cancelled")).await, 3.0);
    weir.stop().await;
}

#[tokio::test]
async fn who_says_goodbye_first_ends_the_session_well_but_not_the_open_response() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let goodbye = b"\x88\x82\0\0\0\0\x03\xe8";
    let (mut app, mut tcp) = session(&weir.app, &provider, PATH).await;
    tcp.write_all(&text(BEGUN)).await.unwrap();
    let mut came = vec![0; text(BEGUN).len()];
    app.read_exact(&mut came).await.unwrap();
    app.write_all(goodbye).await.unwrap();
    let mut passed = [0; 8];
    tcp.read_exact(&mut passed).await.unwrap();
    assert_eq!(&passed, goodbye);
    tcp.write_all(&close(1000)).await.unwrap();
    drop(tcp);
    assert_eq!(rest(app).await, close(1000));
    weir.settled().await;
    assert_eq!(weir.metric(&session_ended("success")).await, 1.0);
    assert_eq!(weir.metric(&response_ended("cancelled")).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn how_the_provider_closes_says_how_the_session_ended() {
    let invalid = r#"{"type":"error","error":{"type":"invalid_request_error","code":"invalid_model","message":"no"}}"#;
    for (rule, said, outcome, error) in [
        ("done", close(1000), "success", None),
        ("going away", close(1001), "success", None),
        ("without a code", frame(0x88, b""), "success", None),
        ("a code of an error", close(1011), "upstream_error", Some("stream_aborted")),
        ("after a complaint", [text(invalid), close(4000)].concat(), "client_error", Some("400")),
        ("a complaint long before", [text(invalid), text(CREATED), close(1000)].concat(), "success", None),
        ("no goodbye", text(CREATED), "upstream_error", Some("stream_aborted")),
    ] {
        let provider = Provider::start().await;
        let weir = Weir::before(&provider.url()).await;
        let (app, mut tcp) = session(&weir.app, &provider, PATH).await;
        tcp.write_all(&said).await.unwrap();
        drop(tcp);
        assert_eq!(rest(app).await, said, "{rule}");
        weir.settled().await;
        assert_eq!(weir.metric(&session_ended(outcome)).await, 1.0, "{rule}");
        if let Some(error) = error {
            let failed = weir.metrics().await.lines().any(|line| {
                line.starts_with("gen_ai_client_operation_duration_seconds_count")
                    && line.contains(&format!(r#"error_type="{error}""#))
            });
            assert!(failed, "{rule}");
        }
        weir.stop().await;
    }
}

#[tokio::test]
async fn ten_megabytes_pass_each_way_unchanged() {
    const LENGTH: usize = 10 << 20;
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let noise = |seed: u64| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()
        };
        (0..LENGTH / 8).flat_map(|_| next()).collect()
    };
    // Anything goes: one side sends one huge binary message, the other what is no WebSocket at all.
    let down = [&b"\x82\x7f"[..], &(LENGTH as u64).to_be_bytes(), &noise(1)].concat();
    let up = noise(2);
    let (app, tcp) = session(&weir.app, &provider, PATH).await;
    let ((mut app_reads, mut app_writes), (mut tcp_reads, mut tcp_writes)) = (app.into_split(), tcp.into_split());
    let came = async {
        let (mut at_app, mut at_provider) = (vec![0; down.len()], vec![0; up.len()]);
        let (one, other, first, second) = tokio::join!(
            app_reads.read_exact(&mut at_app),
            tcp_reads.read_exact(&mut at_provider),
            app_writes.write_all(&up),
            tcp_writes.write_all(&down),
        );
        first.and(second).unwrap();
        one.and(other).unwrap();
        (Sha256::digest(&at_app), Sha256::digest(&at_provider))
    };
    assert_eq!(came.await, (Sha256::digest(&down), Sha256::digest(&up)));
    drop((app_reads, app_writes));
    drop((tcp_reads, tcp_writes));
    weir.settled().await;
    for (direction, bytes) in [("in", up.len()), ("out", down.len())] {
        let series = format!(r#"weir_http_bytes_total{{direction="{direction}"}}"#);
        assert_eq!(weir.metric(&series).await, count(bytes));
    }
    weir.stop().await;
}

/// Writes until nothing is taken any more; how much was.
async fn fill(tcp: &TcpStream) -> usize {
    let (mut taken, mut stuck) = (0, 0);
    let piece = [0x5a; 0x4000];
    while stuck < 50 {
        if let Ok(length) = tcp.try_write(&piece) {
            taken += length;
            stuck = 0;
        } else {
            stuck += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    taken
}

#[tokio::test]
async fn a_slow_reader_slows_the_other_end() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let (app, tcp) = session(&weir.app, &provider, PATH).await;
    // Each end stops when every buffer on the way is full; what they hold is the kernel's, not weir's.
    let (down, up) = tokio::join!(fill(&tcp), fill(&app));
    for taken in [down, up] {
        assert!(taken < 64 << 20, "{taken} bytes were taken though nobody read them");
    }
    let ((mut app, app_writes), (mut tcp, tcp_writes)) = (app.into_split(), tcp.into_split());
    let (mut at_app, mut at_provider) = (vec![0; down], vec![0; up]);
    let (one, other) = tokio::join!(app.read_exact(&mut at_app), tcp.read_exact(&mut at_provider));
    assert_eq!((one.unwrap(), other.unwrap()), (down, up), "and nothing is lost");
    drop((app, app_writes, tcp, tcp_writes));
    weir.stop().await;
}

#[tokio::test]
async fn an_end_that_is_done_may_still_listen() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let (mut app, mut tcp) = session(&weir.app, &provider, PATH).await;
    app.write_all(SAID).await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(rest(&mut tcp).await, SAID, "the provider hears all of it, and that it is over");
    tcp.write_all(&text(CREATED)).await.unwrap();
    drop(tcp);
    assert_eq!(rest(app).await, text(CREATED));
    weir.stop().await;
}

#[tokio::test]
async fn a_session_in_which_nothing_passes_is_ended() {
    let provider = Provider::start().await;
    let weir = Weir::before_with(&provider.url(), "upstream: { idle_timeout: 100ms }").await;
    let (app, mut tcp) = session(&weir.app, &provider, PATH).await;
    tcp.write_all(&text(BEGUN)).await.unwrap();
    assert_eq!(rest(app).await, text(BEGUN));
    assert_eq!(rest(tcp).await, b"");
    weir.settled().await;
    assert_eq!(weir.metric(&response_ended("timeout")).await, 1.0);
    assert_eq!(weir.metric(&session_ended("timeout")).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn told_to_stop_weir_lets_a_session_end_and_cuts_it_at_the_drain_timeout() {
    for ends_in_time in [true, false] {
        let provider = Provider::start().await;
        let drain = if ends_in_time { "25s" } else { "200ms" };
        let yaml = format!("connections: {{ drain_timeout: {drain} }}");
        let mut weir = Weir::before_with(&provider.url(), &yaml).await;
        let (mut app, mut tcp) = session(&weir.app, &provider, PATH).await;
        weir.begin_to_stop();
        let ready = format!("{}/readyz", weir.admin);
        while weir.client.get(&ready).await.status != StatusCode::SERVICE_UNAVAILABLE {
            tokio::task::yield_now().await;
        }
        app.write_all(SAID).await.unwrap();
        let mut passed = [0; SAID.len()];
        tcp.read_exact(&mut passed).await.unwrap();
        assert_eq!(passed, SAID, "it goes on");
        if ends_in_time {
            tcp.write_all(&close(1000)).await.unwrap();
            drop(tcp);
            assert_eq!(rest(app).await, close(1000));
        } else {
            assert_eq!((rest(app).await, rest(tcp).await), (vec![], vec![]));
        }
        weir.end().await;
    }
}

#[tokio::test]
async fn responses_over_a_websocket_are_read_as_streams_are() {
    let begun =
        r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt-5-mini-2025-08-07","usage":null}}"#;
    let delta = r#"{"type":"response.output_text.delta","delta":"a"}"#;
    let done = r#"{"type":"response.completed","response":{"id":"resp_1","model":"gpt-5-mini-2025-08-07",
        "status":"completed","usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15}}}"#;
    let refused = r#"{"type":"error","status":429,"error":{"type":"rate_limit_exceeded","message":"no"}}"#;
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let (app, mut tcp) = session(&weir.app, &provider, "/openai/v1/responses").await;
    let said = [text(begun), text(delta), text(done), text(begun), text(done), text(refused), close(1000)].concat();
    tcp.write_all(&said).await.unwrap();
    drop(tcp);
    assert_eq!(rest(app).await, said);
    weir.settled().await;
    assert_eq!(weir.metric(&requests("gpt-5-mini", "chat", "success")).await, 2.0);
    assert_eq!(weir.metric(&requests("none", "chat", "client_error")).await, 1.0);
    assert_eq!(weir.metric_sum(r#"weir_tokens_total{provider="openai",model="gpt-5-mini""#).await, 30.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_session_that_is_not_read_passes_with_its_compression() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let path = "/anthropic/ws/anything.BidiGenerateContent?key=k";
    let more = "sec-websocket-extensions: permessage-deflate\r\n";
    let (mut app, (asked, mut tcp)) = tokio::join!(ask(&weir.app, path, more), provider.asked());
    assert_eq!(asked.first_line(), "GET /ws/anything.BidiGenerateContent?key=k HTTP/1.1");
    assert_eq!(asked.header("sec-websocket-extensions"), Some("permessage-deflate"));
    agree(&mut tcp, "sec-websocket-extensions: permessage-deflate\r\n").await;
    assert_eq!(Head::read(&mut app).await.header("sec-websocket-extensions"), Some("permessage-deflate"));
    let said = [frame(0xc1, b"\xaaV*\xa9,HU\xb2RPJ-"), close(1000)].concat();
    tcp.write_all(&said).await.unwrap();
    drop(tcp);
    assert_eq!(rest(app).await, said);
    weir.settled().await;
    let ended = r#"weir_requests_total{provider="anthropic",model="none",operation="other",outcome="success"}"#;
    assert_eq!(weir.metric(ended).await, 1.0);
    assert_eq!(weir.metric_sum("weir_requests_total{").await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn behind_tls_http1_is_spoken_even_where_http2_is_offered() {
    let Identity { acceptor, authority, dir: _dir, .. } = Identity::new(&[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let weir = Weir::before_with(&url, &format!("upstream: {{ ca_files: [\"{}\"] }}", authority.display())).await;
    let provider = async {
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        Head::read(&mut tls).await;
        tls.write_all(b"HTTP/1.1 101 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n").await.unwrap();
        let mut passed = [0; SAID.len()];
        tls.read_exact(&mut passed).await.unwrap();
        assert_eq!(passed, SAID);
        tls.write_all(&[text(CREATED), close(1000)].concat()).await.unwrap();
        tls.shutdown().await.unwrap();
    };
    let app = async {
        let mut app = ask(&weir.app, PATH, "").await;
        assert_eq!(Head::read(&mut app).await.first_line(), "HTTP/1.1 101 Switching Protocols");
        app.write_all(SAID).await.unwrap();
        assert_eq!(rest(app).await, [text(CREATED), close(1000)].concat());
    };
    tokio::join!(provider, app);
    weir.stop().await;
}

#[tokio::test]
async fn a_session_keeps_the_place_of_its_connection() {
    let provider = Provider::start().await;
    let weir = Weir::before_with(&provider.url(), "connections: { max_connections: 1 }").await;
    let (app, tcp) = session(&weir.app, &provider, PATH).await;
    // The kernel takes the connection; weir does not, until there is a place.
    let mut next = ask(&weir.app, "/nowhere", "").await;
    let waited = tokio::time::timeout(Duration::from_millis(200), next.readable()).await;
    assert!(waited.is_err(), "it has to wait");
    drop((app, tcp));
    assert_eq!(Head::read(&mut next).await.first_line(), "HTTP/1.1 404 Not Found");
    drop(next);
    weir.stop().await;
}

#[tokio::test]
async fn over_http2_there_are_no_sessions() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before(&fake.url()).await;
    let client = crate::support::client::Client::http2();
    // A client may only ask (RFC 8441) where the server says that it may, and weir does not say so: what is left is a
    // plain GET.
    let answer = client.get(&weir.url(PATH)).await;
    assert_eq!(answer.status, StatusCode::OK);
    until("the provider is asked", || fake.received().len() == 1).await;
    assert_eq!(fake.received()[0].header("upgrade"), None);
    weir.stop().await;
}
