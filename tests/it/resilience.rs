//! The provider's worst day: what is tried again and what is not, where a call goes instead, and how an upstream that fails
//! is left alone. Without a word in the configuration, each call is one attempt.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::client::{collect, collect_broken};
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const NO_CACHE: &str = "cache: { mode: \"off\" }";

/// Retries at once.
const AT_ONCE: &str = "retries: { max: 2, base_delay: 1ms }";

/// A whole chat of a million tokens in: a quarter of a dollar.
fn good() -> Script {
    let usage = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000});
    let reply = json!({"id": "1", "model": "gpt-5-mini", "object": "chat.completion", "usage": usage, "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    Script::json(200, reply.to_string().as_bytes())
}

fn error(status: u16, more: &[(&str, &str)]) -> Script {
    let headers = [&[("content-type", "application/json")], more].concat();
    Script::whole(status, &headers, format!(r#"{{"error":{{"message":"no {status}","code":null}}}}"#).as_bytes())
}

/// Answers by one script after the other; the last one goes on.
async fn one_after_the_other(scripts: Vec<Script>) -> Fake {
    let asked = AtomicUsize::new(0);
    Fake::start(move |_: &Received| {
        let now = asked.fetch_add(1, Ordering::SeqCst).min(scripts.len() - 1);
        scripts[now].clone()
    })
    .await
}

async fn nobody() -> String {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

/// A weir in front of `first`, with these fallbacks and these knobs of `upstream`.
async fn weir(first: &str, fallbacks: &str, upstream: &str) -> Weir {
    let openai = format!("openai: {{ base_url: \"{first}\", fallbacks: [{fallbacks}] }}");
    Weir::start(&format!("providers: {{ {openai} }}\nupstream: {{ {upstream} }}\n{NO_CACHE}\n")).await
}

/// As metrics have it.
fn count(things: usize) -> f64 {
    f64::from(u32::try_from(things).unwrap())
}

async fn attempts(weir: &Weir, code: &str) -> f64 {
    weir.metric(&format!(r#"weir_upstream_requests_total{{provider="openai",code="{code}"}}"#)).await
}

async fn retries(weir: &Weir, reason: &str) -> f64 {
    weir.metric(&format!(r#"weir_upstream_retries_total{{provider="openai",reason="{reason}"}}"#)).await
}

#[tokio::test]
async fn what_is_tried_again_and_what_the_app_gets() {
    let reset = || Script::only(vec![Step::Reset]);
    let silent = || Script::only(vec![Step::Hang]);
    let spent =
        || Script::json(429, br#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#);
    let gemini = || Script::json(429, br#"{"error":{"code":429,"details":[{"retryDelay":"31s"}]}}"#);
    let soon = "first_byte_timeout: 100ms";
    for (rule, scripts, upstream, status, asked, reason) in [
        ("by default, nothing", vec![error(503, &[]), good()], String::new(), 503, 1, None),
        ("a 503 that passes", vec![error(503, &[]), good()], AT_ONCE.into(), 200, 2, Some("5xx")),
        ("an overload", vec![error(529, &[]), error(500, &[]), good()], AT_ONCE.into(), 200, 3, Some("5xx")),
        ("a 408", vec![error(408, &[]), good()], AT_ONCE.into(), 200, 2, Some("timeout")),
        ("a 429", vec![error(429, &[("retry-after-ms", "1")]), good()], AT_ONCE.into(), 200, 2, Some("429")),
        ("a 429 too far away", vec![error(429, &[("retry-after", "31")]), good()], AT_ONCE.into(), 429, 1, None),
        ("the same in a body", vec![gemini(), good()], AT_ONCE.into(), 429, 1, None),
        ("no money left", vec![spent(), good()], AT_ONCE.into(), 429, 1, None),
        (
            "the provider says no",
            vec![error(503, &[("x-should-retry", "false")]), good()],
            AT_ONCE.into(),
            503,
            1,
            None,
        ),
        ("the app's own fault", vec![error(400, &[]), good()], AT_ONCE.into(), 400, 1, None),
        ("a reset", vec![reset(), good()], AT_ONCE.into(), 200, 2, Some("connect")),
        ("silence", vec![silent(), good()], format!("{AT_ONCE}, {soon}"), 200, 2, Some("timeout")),
        ("no more than so often", vec![error(500, &[])], AT_ONCE.into(), 500, 3, Some("5xx")),
        (
            "only what is wanted",
            vec![error(500, &[]), good()],
            "retries: { max: 2, base_delay: 1ms, on: [connect] }".into(),
            500,
            1,
            None,
        ),
        (
            "no more than the budget has",
            vec![error(500, &[])],
            "retries: { max: 9, base_delay: 1ms, budget: { share: 0, per_minute: 3 } }".into(),
            500,
            4,
            Some("5xx"),
        ),
    ] {
        let fake = one_after_the_other(scripts).await;
        let weir = weir(&fake.url(), "", &upstream).await;
        let answer = weir.post(CHAT, &[], ASK).await;
        assert_eq!(answer.status.as_u16(), status, "{rule}: {:?}", answer.body);
        let received = fake.received();
        assert_eq!(received.len(), asked, "{rule}");
        assert!(received.iter().all(|it| it.body == ASK), "{rule}: every attempt has the whole body");
        weir.settled().await;
        assert_eq!(weir.metric_sum("weir_upstream_requests_total{").await, count(asked), "{rule}");
        assert_eq!(weir.metric_sum("weir_upstream_retries_total{").await, count(asked - 1), "{rule}");
        if let Some(reason) = reason {
            assert_eq!(retries(&weir, reason).await, count(asked - 1), "{rule}");
        }
        assert_eq!(weir.metric_sum("weir_requests_total{").await, 1.0, "{rule}: one call");
        assert_eq!(
            weir.metric_sum("gen_ai_client_operation_duration_seconds_count").await,
            1.0,
            "{rule}: one operation"
        );
        weir.stop().await;
    }
}

#[tokio::test]
async fn when_attempts_run_out_the_last_answer_goes_to_the_app_untouched() {
    let body = br#"{"error":{"message":"slow down","type":"rate_limit_exceeded","param":null,"code":"x"}}"#;
    let headers = [("content-type", "application/json"), ("retry-after-ms", "1"), ("x-request-id", "the-last")];
    let fake = one_after_the_other(vec![error(500, &[]), Script::whole(429, &headers, body)]).await;
    let weir = weir(&fake.url(), "", "retries: { max: 1, base_delay: 1ms }").await;
    let answer = weir.post(CHAT, &[], ASK).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (429, body.as_slice()));
    assert_eq!((answer.header("retry-after-ms"), answer.header("x-request-id")), ("1", "the-last"));
    weir.settled().await;
    assert_eq!((attempts(&weir, "500").await, attempts(&weir, "429").await), (1.0, 1.0));
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0, "answers that are errors cost nothing");
    weir.stop().await;
}

#[tokio::test]
async fn what_a_refused_answer_says_is_passed_on_though_weir_has_looked_at_it() {
    // Too long to be looked at as a whole, and not tried again in the end: not so late.
    let body = format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(200_000)).into_bytes();
    let head = "HTTP/1.1 503 Scripted\r\nretry-after: 99\r\ntransfer-encoding: chunked\r\n\r\n";
    let pieces: Vec<&[u8]> = body.chunks(30_000).collect();
    let in_pieces = Script::only(vec![Step::Send(head.into())]).pieces(&pieces);
    let whole = Script::whole(503, &[("retry-after", "99")], &body);
    for (script, ends_well) in [(whole, true), (in_pieces.clone().end(), true), (in_pieces, false)] {
        let fake = Fake::always(script).await;
        let weir = weir(&fake.url(), "", AT_ONCE).await;
        let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"99".parse().unwrap()));
        let (came, ended_well) = collect_broken(answer).await;
        assert!(came == body && ended_well == ends_well, "{} bytes, {ended_well}", came.len());
        assert_eq!(fake.received().len(), 1);
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_would_be_done_twice_is_only_sent_again_if_it_was_never_seen() {
    let (background, mcp) = (
        br#"{"model":"gpt-5-mini","input":"hi","background":true}"#.as_slice(),
        br#"{"model":"gpt-5-mini","input":"hi","tools":[{"type":"mcp","server_url":"http://x"}]}"#.as_slice(),
    );
    let batch = br#"{"input_file_id":"f","endpoint":"/v1/chat/completions"}"#.as_slice();
    for (method, path, body, asked) in [
        (Method::POST, "/openai/v1/responses", background, 1),
        (Method::POST, "/openai/v1/responses", mcp, 1),
        (Method::POST, "/openai/v1/responses", br#"{"model":"gpt-5-mini","input":"hi"}"#, 2),
        (Method::POST, "/openai/v1/batches", batch, 1),
        (Method::POST, "/openai/v1/files", b"file".as_slice(), 1),
        (Method::POST, "/openai/v1/unheard/of", b"{}".as_slice(), 1),
        (Method::DELETE, "/openai/v1/files/f", b"".as_slice(), 1),
        (Method::GET, "/openai/v1/models", b"".as_slice(), 2),
        (Method::POST, "/openai/v1/embeddings", br#"{"model":"e","input":"hi"}"#, 2),
    ] {
        let fake = one_after_the_other(vec![error(503, &[]), good()]).await;
        let weir = weir(&fake.url(), "", AT_ONCE).await;
        let json = [("content-type", "application/json")];
        let answer = collect(weir.client.open(method.clone(), &weir.url(path), &json, body).await).await;
        assert_eq!(fake.received().len(), asked, "{method} {path}");
        assert_eq!(answer.status == 200, asked == 2, "{method} {path}");
        weir.stop().await;
    }
    let fake = Fake::always(good()).await;
    let weir = weir(&nobody().await, &format!("{{ base_url: \"{}\" }}", fake.url()), "").await;
    assert_eq!(weir.post("/openai/v1/responses", &[], background).await.status, 200, "nobody saw the first one");
    assert_eq!(fake.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_is_not_begun_again() {
    let piece = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\n";
    let fake = Fake::always(Script::begin_sse().pieces(&[piece])).await;
    let weir = weir(&fake.url(), "", AT_ONCE).await;
    let ask = br#"{"model":"gpt-5-mini","stream":true,"messages":[]}"#;
    let (came, ended_well) = collect_broken(weir.client.open(Method::POST, &weir.url(CHAT), &[], ask).await).await;
    assert!(came == piece && !ended_well, "{came:?}");
    assert_eq!(fake.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn an_app_that_hangs_up_ends_all_attempts() {
    let fake = Fake::always(error(503, &[("retry-after", "20")])).await;
    let weir = weir(&fake.url(), "", "retries: { max: 5 }").await;
    let (client, url) = (weir.client.clone(), weir.url(CHAT));
    let waits = tokio::spawn(async move { client.post(&url, &[], ASK).await });
    until("it was asked", || fake.received().len() == 1).await;
    // What was answered has been counted once the next attempt is waited for, or the app is gone.
    waits.abort();
    weir.settled().await;
    assert_eq!(fake.received().len(), 1);
    assert_eq!(weir.metric_sum("weir_upstream_requests_total{").await, 1.0);
    assert_eq!(weir.metric_sum("weir_upstream_retries_total{").await, 0.0);
    weir.stop().await;
}

#[tokio::test]
async fn what_may_have_been_worked_on_is_paid_for_by_estimate() {
    let silent = Script::only(vec![Step::Hang]);
    let fake = one_after_the_other(vec![silent.clone(), good()]).await;
    let upstream = format!("{AT_ONCE}, first_byte_timeout: 100ms");
    let weir = weir(&fake.url(), "", &upstream).await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.status, 200);
    weir.settled().await;
    for (series, expected) in [
        (r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="estimated"}"#, 0.5),
        (r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="priced"}"#, 0.0),
        (r#"weir_billable_requests_total{provider="openai",provenance="estimated"}"#, 1.0),
        (r#"weir_tokens_total{provider="openai",model="gpt-5-mini",token_type="input"}"#, 1_000_000.0),
    ] {
        assert_eq!(weir.metric(series).await, expected, "{series}");
    }
    weir.stop().await;

    let fake = one_after_the_other(vec![silent, error(500, &[])]).await;
    let weir = self::weir(&fake.url(), "", &upstream).await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.status, 500);
    weir.settled().await;
    let unpriced = r#"weir_billable_requests_total{provider="openai",provenance="unpriced"}"#;
    assert_eq!(weir.metric(unpriced).await, 1.0, "nobody knows what the first attempt costs");
    weir.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_failing_calls_are_no_storm() {
    let fake = Fake::always(error(503, &[])).await;
    let weir = weir(&fake.url(), "", "retries: { max: 5, base_delay: 1ms }").await;
    let calls = stream::iter(0..1000).map(|_| weir.post(CHAT, &[], ASK)).buffer_unordered(16);
    let statuses: Vec<StatusCode> = calls.map(|answer| answer.status).collect().await;
    assert!(statuses.iter().all(|status| *status == 503));
    weir.settled().await;
    let asked = fake.received().len();
    // A fifth of the calls, what a minute earns from the beginning on, and what it earns while this runs.
    assert!((1100..=1000 + 200 + 10 + 10).contains(&asked), "{asked} attempts");
    assert_eq!(attempts(&weir, "503").await, count(asked));
    assert_eq!(retries(&weir, "5xx").await, count(asked - 1000));
    assert_eq!(weir.metric_sum("weir_requests_total{").await, 1000.0);
    weir.stop().await;
}

#[tokio::test]
async fn an_upstream_that_fails_is_left_alone_probed_and_taken_back() {
    let is_well = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&is_well);
    let fake = Fake::start(move |_| if state.load(Ordering::SeqCst) == 1 { good() } else { error(503, &[]) }).await;
    let breaker = "breaker: { enabled: true, min_attempts: 3, open_for: 300ms, probes: 1 }";
    let weir = weir(&fake.url(), "", breaker).await;
    let up = r#"weir_upstream_up{provider="openai"}"#;
    assert_eq!(weir.metric(up).await, 1.0);
    for _ in 0..3 {
        assert_eq!(weir.post(CHAT, &[], ASK).await.json()["error"]["message"], "no 503", "the provider's own words");
    }
    assert_eq!(weir.metric(up).await, 0.0);
    let refused = weir.post(CHAT, &[], ASK).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "circuit_open");
    assert!(error["message"].as_str().unwrap().contains("weir did not ask provider `openai`"), "{error}");
    assert_eq!(fake.received().len(), 3, "it was not asked");
    weir.settled().await;
    assert_eq!(weir.metric_sum("weir_upstream_requests_total{").await, 3.0);
    let failed =
        r#"weir_requests_total{provider="openai",model="gpt-5-mini",operation="chat",outcome="upstream_error"}"#;
    assert_eq!(weir.metric(failed).await, 4.0);

    // A probe that fails opens it again.
    until_asked(&weir, &fake, 4).await;
    assert_eq!(weir.metric(up).await, 0.0);
    is_well.store(1, Ordering::SeqCst);
    until_asked(&weir, &fake, 5).await;
    assert_eq!(weir.metric(up).await, 1.0);
    assert_eq!(weir.post(CHAT, &[], ASK).await.status, 200);
    weir.stop().await;
}

/// Makes calls until the provider has been asked so often.
async fn until_asked(weir: &Weir, fake: &Fake, times: usize) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while fake.received().len() < times {
        assert!(tokio::time::Instant::now() < deadline, "it is never probed");
        weir.post(CHAT, &[], ASK).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_second_key_answers_where_the_first_has_reached_its_limit() {
    let fake = Fake::start(|received| match received.header("authorization") {
        Some("Bearer second") => good(),
        _ => error(429, &[("retry-after", "60")]),
    })
    .await;
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("second");
    fs::write(&key, "second").unwrap();
    let fallback = format!("{{ name: second-key, api_key_file: {} }}", key.display());
    let weir = weir(&fake.url(), &fallback, "fallback_on: [connect, rate_limit]").await;
    let moved = r#"weir_upstream_fallbacks_total{provider="openai",to_provider="second-key"}"#;
    assert!(weir.metrics().await.contains(&format!("{moved} 0")), "that none has moved is told as well");
    let answer = weir.post(CHAT, &[("authorization", "Bearer the-apps")], ASK).await;
    assert_eq!(answer.status, 200);
    let keys: Vec<_> = fake.received().iter().map(|it| it.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(keys, ["Bearer the-apps", "Bearer second"]);
    weir.settled().await;
    assert_eq!(weir.metric(moved).await, 1.0);
    assert_eq!((attempts(&weir, "429").await, attempts(&weir, "200").await), (1.0, 1.0));
    assert_eq!(weir.metric_sum("weir_upstream_retries_total{").await, 0.0, "it did not ask the first one again");
    weir.stop().await;
}

#[tokio::test]
async fn a_second_region_answers_where_the_first_is_gone() {
    let fake = Fake::always(good()).await;
    let elsewhere = format!("{{ base_url: \"{}/eu\" }}", fake.url());
    for first in [nobody().await, Fake::always(error(500, &[])).await.url()] {
        let weir = weir(&first, &elsewhere, "").await;
        let answer = weir.post(&format!("{CHAT}?a=b"), &[("authorization", "Bearer the-apps")], ASK).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let received = fake.received().pop().unwrap();
        assert_eq!(received.target, "/eu/v1/chat/completions?a=b");
        assert_eq!(received.header("authorization"), Some("Bearer the-apps"));
        assert_eq!(received.header("host").unwrap(), fake.address.to_string());
        weir.settled().await;
        let moved = r#"weir_upstream_fallbacks_total{provider="openai",to_provider="openai-2"}"#;
        assert_eq!(weir.metric(moved).await, 1.0);
        weir.stop().await;
    }
}

#[tokio::test]
async fn the_app_s_own_key_does_not_follow_a_call_to_somebody_else() {
    let fake = Fake::always(good()).await;
    let keys = tempfile::tempdir().unwrap();
    fs::write(keys.path().join("second"), "second").unwrap();
    let fallback =
        format!("{{ base_url: \"{}\", api_key_file: {} }}", fake.url(), keys.path().join("second").display());
    let gemini = format!("gemini: {{ base_url: \"{}\", fallbacks: [{fallback}] }}", nobody().await);
    let weir = Weir::start(&format!("providers: {{ {gemini} }}\n{NO_CACHE}\n")).await;
    let ask = br#"{"contents":[{"parts":[{"text":"hi"}]}]}"#;
    let path = "/gemini/v1beta/models/gemini-2.5-flash:generateContent?key=the-apps&alt=json";
    weir.post(path, &[("x-goog-api-key", "the-apps")], ask).await;
    let received = fake.received().pop().unwrap();
    assert!(!format!("{received:?}").contains("the-apps"), "{received:?}");
    assert_eq!(received.header("x-goog-api-key"), Some("second"));
    assert!(received.target.ends_with(":generateContent?alt=json"), "{}", received.target);
    weir.stop().await;
}

#[tokio::test]
async fn calls_go_past_an_open_circuit_at_once() {
    let (first, second) = (Fake::always(error(500, &[])).await, Fake::always(good()).await);
    let fallback = format!("{{ name: eu, base_url: \"{}\" }}", second.url());
    let weir = weir(&first.url(), &fallback, "breaker: { enabled: true, min_attempts: 2 }").await;
    for _ in 0..5 {
        assert_eq!(weir.post(CHAT, &[], ASK).await.status, 200);
    }
    assert_eq!((first.received().len(), second.received().len()), (2, 5));
    weir.settled().await;
    assert_eq!(weir.metric(r#"weir_upstream_up{provider="openai"}"#).await, 0.0);
    assert_eq!(weir.metric(r#"weir_upstream_up{provider="eu"}"#).await, 1.0);
    let moved = r#"weir_upstream_fallbacks_total{provider="openai",to_provider="eu"}"#;
    assert_eq!(weir.metric(moved).await, 5.0);
    // What streams through can only be sent once, and goes where somebody is.
    let upload = vec![b'x'; 9 << 20];
    let path = weir.url("/openai/v1/unheard/of");
    assert_eq!(collect(weir.client.open(Method::POST, &path, &[], &upload).await).await.status, 200);
    assert_eq!(second.received().pop().unwrap().body.len(), upload.len());
    weir.stop().await;
}

#[tokio::test]
async fn when_all_ways_fail_they_are_tried_again_from_the_first() {
    let first = one_after_the_other(vec![error(500, &[]), good()]).await;
    let second = Fake::always(error(502, &[])).await;
    let fallback = format!("{{ base_url: \"{}\" }}", second.url());
    let weir = weir(&first.url(), &fallback, AT_ONCE).await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.status, 200);
    assert_eq!((first.received().len(), second.received().len()), (2, 1));
    weir.settled().await;
    assert_eq!((retries(&weir, "5xx").await, attempts(&weir, "502").await), (1.0, 1.0));
    weir.stop().await;
}

#[tokio::test]
async fn equal_calls_wait_for_one_that_is_tried_again() {
    let go_on = Arc::new(Notify::new());
    let held = error(503, &[]).after(Step::Wait(Arc::clone(&go_on)));
    let fake = one_after_the_other(vec![held, good()]).await;
    let yaml = format!("providers: {{ openai: {{ base_url: \"{}\" }} }}\nupstream: {{ {AT_ONCE} }}\n", fake.url());
    let weir = Weir::start(&yaml).await;
    let ask = || {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        tokio::spawn(async move { client.post(&url, &[], ASK).await })
    };
    let first = ask();
    weir.in_flight(1).await;
    let second = ask();
    weir.in_flight(2).await;
    go_on.notify_one();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(fake.received().len(), 2);
    weir.settled().await;
    assert_eq!(retries(&weir, "5xx").await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_second_attempt_answers_where_the_first_is_slow() {
    let slow = Script::only(vec![Step::Hang]);
    let hedging = "hedging: { after: 50ms, share: 1 }";
    let (first, second) = (Fake::always(slow.clone()).await, Fake::always(good()).await);
    let fallback = format!("{{ name: eu, base_url: \"{}\" }}", second.url());
    let weir = weir(&first.url(), &fallback, hedging).await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.status, 200);
    assert_eq!((first.received().len(), second.received().len()), (1, 1));
    until("the slow one is given up", || first.hung_up() == 1).await;
    weir.settled().await;
    assert_eq!((attempts(&weir, "200").await, attempts(&weir, "abandoned").await), (1.0, 1.0));
    assert_eq!(retries(&weir, "hedge").await, 1.0);
    assert_eq!(weir.metric_sum("weir_requests_total{").await, 1.0, "one call");
    assert_eq!(weir.metric_sum("gen_ai_client_operation_duration_seconds_count").await, 1.0, "one operation");
    let estimated = r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="estimated"}"#;
    assert_eq!(weir.metric(estimated).await, 0.5, "the one that was given up is not free");
    weir.stop().await;

    // One that fails while the other is under way costs nothing, and says nothing of the other.
    let asked = AtomicUsize::new(0);
    let go_on = Arc::new(Notify::new());
    let held = good().after(Step::Wait(Arc::clone(&go_on)));
    let fake =
        Fake::start(move |_| if asked.fetch_add(1, Ordering::SeqCst) == 0 { held.clone() } else { error(500, &[]) });
    let fake = fake.await;
    let weir = self::weir(&fake.url(), "", hedging).await;
    let (client, url) = (weir.client.clone(), weir.url(CHAT));
    let answer = tokio::spawn(async move { client.post(&url, &[], ASK).await });
    until("it was asked again", || fake.received().len() == 2).await;
    go_on.notify_one();
    assert_eq!(answer.await.unwrap().status, 200);
    weir.settled().await;
    assert_eq!(weir.metric_sum("weir_upstream_requests_total{").await, 2.0);
    // Unless the good answer came before the bad one.
    let (provenance, cost) = if attempts(&weir, "500").await == 1.0 { ("priced", 0.25) } else { ("estimated", 0.5) };
    let series = format!(r#"weir_cost_by_provenance_usd_total{{provider="openai",provenance="{provenance}"}}"#);
    assert_eq!(weir.metric(&series).await, cost);
    weir.stop().await;

    // What would be done twice is waited for.
    let fake = Fake::always(good()).await;
    let weir = self::weir(&fake.url(), "", "hedging: { after: 1ms, share: 1 }, first_byte_timeout: 1s").await;
    let ask = br#"{"model":"gpt-5-mini","input":"hi","background":true}"#;
    for _ in 0..20 {
        weir.post("/openai/v1/responses", &[], ask).await;
    }
    assert_eq!(fake.received().len(), 20);
    weir.stop().await;
}
