//! Equal calls at the same time are one upstream call: whoever asks last gets all of the answer, whoever hangs up or
//! fails, and it is paid once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use weir::cache::invalidation::Filter;

use crate::support::client::{Answer, Client, collect, collect_broken};
use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &[u8] = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const ASK_STREAM: &[u8] = br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const FIRST: &[u8] = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
const SECOND: &[u8] = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}]}\n\n";
const LAST: &[u8] = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"model\":\"gpt-5-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n";
const FINISH: &[u8] = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

fn json_after(go_on: &Arc<Notify>) -> Script {
    Script::json(200, ANSWER).after(Step::Wait(Arc::clone(go_on)))
}

fn stream_with_a_pause(go_on: &Arc<Notify>) -> Script {
    Script::begin_sse().pieces(&[FIRST]).then(Step::Wait(Arc::clone(go_on))).pieces(&[SECOND, LAST]).end()
}

fn whole_stream() -> Vec<u8> {
    [FIRST, SECOND, FINISH].concat()
}

/// Clients enough for a thousand calls at once, on few connections.
fn clients() -> Vec<Client> {
    (0..10).map(|_| Client::http2()).collect()
}

fn call(weir: &Weir, client: &Client, headers: &'static [(&str, &str)], ask: &'static [u8]) -> JoinHandle<Answer> {
    let (client, url) = (client.clone(), weir.url(CHAT));
    tokio::spawn(async move { client.post(&url, headers, ask).await })
}

async fn open(weir: &Weir, ask: &[u8]) -> Response<Incoming> {
    // A client of its own: dropped, its connection ends.
    Client::default().open(Method::POST, &weir.url(CHAT), &[], ask).await
}

fn x_cache(answer: &Response<Incoming>) -> &str {
    answer.headers()["x-cache"].to_str().unwrap()
}

async fn next(answer: &mut Response<Incoming>) -> Bytes {
    answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap()
}

async fn ended(weir: &Weir, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    let text = weir.metrics().await;
    let lines = text.lines().filter(|line| line.starts_with("weir_requests_total{") && line.contains(&label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn role(weir: &Weir, role: &str) -> f64 {
    weir.metric(&format!("weir_singleflight_requests_total{{role=\"{role}\"}}")).await
}

async fn saved(weir: &Weir) -> f64 {
    weir.metric(r#"weir_tokens_saved_total{provider="openai",model="gpt-5-mini",source="coalesced"}"#).await
}

/// What was paid is what one call uses, as its provider told.
async fn paid_once(weir: &Weir) {
    assert_eq!(weir.metric_sum("weir_tokens_total{").await, 15.0);
    assert_eq!(weir.metric_sum("weir_billable_requests_total{").await, 1.0);
    assert_eq!(weir.metric_sum("weir_request_cost_usd_count").await, 1.0);
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0);
}

#[tokio::test]
async fn a_thousand_equal_calls_at_once_are_one_upstream_call() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(json_after(&go_on)).await;
    let weir = Weir::before(&fake.url()).await;
    let clients = clients();
    let calls: Vec<_> = (0..1000).map(|number| call(&weir, &clients[number % 10], &[], ASK)).collect();
    weir.in_flight(1000).await;
    go_on.notify_one();
    let mut misses = 0;
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.body, ANSWER);
        assert_eq!(answer.header("content-type"), "application/json");
        match answer.header("x-cache") {
            "MISS" => misses += 1,
            other => {
                assert_eq!(other, "COALESCED");
                assert_eq!(answer.header("cache-status"), "weir; fwd=miss; collapsed");
            }
        }
    }
    assert_eq!((misses, fake.received().len()), (1, 1));
    weir.settled().await;
    paid_once(&weir).await;
    assert_eq!(saved(&weir).await, 999.0 * 15.0);
    assert_eq!((role(&weir, "leader").await, role(&weir, "follower").await), (1.0, 999.0));
    assert_eq!(weir.metric("weir_singleflight_wait_seconds_count").await, 999.0);
    let misses = r#"weir_cache_requests_total{provider="openai",model="gpt-5-mini",result="miss"}"#;
    assert_eq!(weir.metric(misses).await, 1000.0);
    let durations = r#"weir_request_duration_seconds_count{provider="openai",operation="chat",cache="coalesced"}"#;
    assert_eq!(weir.metric(durations).await, 999.0);
    assert_eq!(weir.metric_sum("gen_ai_client_operation_duration_seconds_count").await, 1.0);
    assert_eq!(ended(&weir, "success").await, 1000.0);
    assert_eq!(weir.post(CHAT, &[], ASK).await.header("x-cache"), "HIT");
    weir.stop().await;
}

#[tokio::test]
async fn a_thousand_apps_share_one_stream() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(stream_with_a_pause(&go_on)).await;
    let weir = Weir::before(&fake.url()).await;
    let clients = clients();
    let calls = (0..1000).map(|number| {
        let (client, url) = (clients[number % 10].clone(), weir.url(CHAT));
        tokio::spawn(async move {
            let mut answer = client.open(Method::POST, &url, &[], ASK_STREAM).await;
            assert_eq!(next(&mut answer).await, FIRST, "before the next is sent");
            answer
        })
    });
    let calls: Vec<_> = calls.collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| x_cache(answer) == "COALESCED").count(), 999);
    go_on.notify_one();
    let rest = [SECOND, FINISH].concat();
    for answer in answers {
        assert_eq!(collect(answer).await.body, rest);
    }
    assert_eq!(fake.received().len(), 1);
    weir.settled().await;
    paid_once(&weir).await;
    assert_eq!(saved(&weir).await, 999.0 * 15.0);
    assert_eq!(weir.metric_sum("gen_ai_server_time_to_first_token_seconds_count").await, 1.0, "nobody else asked");
    weir.stop().await;
}

#[tokio::test]
async fn when_the_app_that_asked_is_gone_the_others_get_all_of_it_and_it_is_paid_once() {
    for (ask, reads_first) in [(ASK, false), (ASK_STREAM, false), (ASK_STREAM, true)] {
        let go_on = Arc::new(Notify::new());
        let script = match (ask == ASK, reads_first) {
            (true, _) => json_after(&go_on),
            (false, true) => stream_with_a_pause(&go_on),
            (false, false) => {
                Script::begin_sse().pieces(&[FIRST, SECOND, LAST]).end().after(Step::Wait(Arc::clone(&go_on)))
            }
        };
        let fake = Fake::always(script).await;
        let weir = Weir::before(&fake.url()).await;
        let (client, url) = (Client::default(), weir.url(CHAT));
        let has_read = Arc::new(Notify::new());
        let read = Arc::clone(&has_read);
        let leader = tokio::spawn(async move {
            let mut answer = client.open(Method::POST, &url, &[], ask).await;
            next(&mut answer).await;
            read.notify_one();
            std::future::pending::<()>().await;
        });
        weir.in_flight(1).await;
        if reads_first {
            has_read.notified().await;
        }
        let clients = clients();
        let followers: Vec<_> = (0..100).map(|number| call(&weir, &clients[number % 10], &[], ask)).collect();
        weir.in_flight(101).await;
        leader.abort();
        weir.in_flight(100).await;
        go_on.notify_one();
        for follower in followers {
            let answer = follower.await.unwrap();
            assert_eq!(answer.header("x-cache"), "COALESCED");
            assert_eq!(answer.body, if ask == ASK { ANSWER.to_vec() } else { whole_stream() });
        }
        assert_eq!(fake.received().len(), 1);
        weir.settled().await;
        paid_once(&weir).await;
        assert_eq!((ended(&weir, "cancelled").await, ended(&weir, "success").await), (1.0, 100.0));
        assert_eq!(saved(&weir).await, 100.0 * 15.0);
        assert_eq!((role(&weir, "leader").await, role(&weir, "follower").await), (1.0, 100.0));
        assert_eq!(weir.post(CHAT, &[], ask).await.header("x-cache"), "HIT", "and it is stored");
        weir.stop().await;
    }
}

#[tokio::test]
async fn who_comes_late_gets_what_has_come_then_follows() {
    let go_on = Arc::new(Notify::new());
    let headers =
        [("content-type", "text/event-stream"), ("set-cookie", "a=b"), ("x-request-id", "req_1"), ("x-ratelimit", "9")];
    let script = Script::begin(&headers).pieces(&[FIRST, SECOND]).then(Step::Wait(Arc::clone(&go_on))).pieces(&[LAST]);
    let fake = Fake::always(script.end()).await;
    let weir = Weir::before(&fake.url()).await;
    let mut first = open(&weir, ASK_STREAM).await;
    let mut read = Vec::new();
    while read.len() < FIRST.len() + SECOND.len() {
        read.extend_from_slice(&next(&mut first).await);
    }
    let mut late = open(&weir, ASK_STREAM).await;
    assert_eq!((x_cache(&first), x_cache(&late)), ("MISS", "COALESCED"));
    assert_eq!(next(&mut late).await, [FIRST, SECOND].concat());
    let fields = ["set-cookie", "x-request-id", "x-ratelimit"];
    assert!(fields.iter().all(|name| first.headers().contains_key(*name) && !late.headers().contains_key(*name)));
    assert_ne!(first.headers()["x-weir-request-id"], late.headers()["x-weir-request-id"]);
    go_on.notify_one();
    for answer in [first, late] {
        assert_eq!(collect(answer).await.body, FINISH);
    }
    weir.stop().await;
}

#[tokio::test]
async fn when_a_call_gets_no_answer_another_asks_for_the_rest() {
    let go_on = Arc::new(Notify::new());
    let refused = Script::json(429, br#"{"error":{"message":"slow down"}}"#);
    let torn = Script::begin(&[("content-type", "application/json")]).pieces(&[&ANSWER[..50]]);
    let failed = Script::json(200, br#"{"error":{"message":"in a 200"}}"#);
    for (first, status) in [(Script::only(vec![Step::Reset]), 502), (refused, 429), (torn, 200), (failed, 200)] {
        let asked = Arc::<AtomicUsize>::default();
        let (count, wait) = (Arc::clone(&asked), Arc::clone(&go_on));
        let first = first.after(Step::Wait(Arc::clone(&go_on)));
        let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => first.clone(),
            _ => json_after(&wait),
        })
        .await;
        let weir = Weir::before(&fake.url()).await;
        let (client, url) = (Client::default(), weir.url(CHAT));
        let leader = tokio::spawn(async move {
            let answer = client.open(Method::POST, &url, &[], ASK).await;
            let status = answer.status();
            (status, collect_broken(answer).await)
        });
        weir.in_flight(1).await;
        let clients = clients();
        let followers: Vec<_> = (0..50).map(|number| call(&weir, &clients[number % 10], &[], ASK)).collect();
        weir.in_flight(51).await;
        go_on.notify_one();
        assert_eq!(leader.await.unwrap().0, status, "who asked gets what came");
        weir.in_flight(50).await;
        go_on.notify_one();
        let mut kinds = [0, 0];
        for follower in followers {
            let answer = follower.await.unwrap();
            assert_eq!(answer.body, ANSWER, "nobody else gets a broken answer");
            kinds[usize::from(answer.header("x-cache") == "COALESCED")] += 1;
        }
        assert_eq!((kinds, fake.received().len()), ([1, 49], 2));
        weir.settled().await;
        assert_eq!(saved(&weir).await, 49.0 * 15.0);
        assert_eq!(weir.metric_sum("weir_tokens_total{").await, 15.0);
        weir.stop().await;
    }
}

#[tokio::test]
async fn who_is_let_down_twice_asks_alone() {
    let fails = Script::json(500, br#"{"error":{"message":"oops"}}"#);
    let go_on = Arc::new(Notify::new());
    let waits = fails.clone().after(Step::Wait(Arc::clone(&go_on)));
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => waits.clone(),
        _ => fails.clone(),
    })
    .await;
    let weir = Weir::before(&fake.url()).await;
    let client = Client::default();
    let calls: Vec<_> = (0..6).map(|_| call(&weir, &client, &[], ASK)).collect();
    weir.in_flight(6).await;
    go_on.notify_one();
    weir.in_flight(5).await;
    go_on.notify_one();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 500);
    }
    assert_eq!(fake.received().len(), 6, "each learns it from the provider itself");
    weir.settled().await;
    assert_eq!((role(&weir, "leader").await, role(&weir, "follower").await), (0.0, 0.0), "nothing was merged");
    assert_eq!(weir.metric("weir_singleflight_wait_seconds_count").await, 5.0, "though they waited");
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_breaks_off_for_all() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(Script::begin_sse().pieces(&[FIRST]).then(Step::Wait(Arc::clone(&go_on)))).await;
    let weir = Weir::before(&fake.url()).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(open(&weir, ASK_STREAM).await);
    }
    go_on.notify_one();
    for answer in answers {
        assert_eq!(collect_broken(answer).await, (FIRST.to_vec(), false));
    }
    weir.settled().await;
    assert_eq!(fake.received().len(), 1);
    assert_eq!(ended(&weir, "upstream_error").await, 3.0);
    assert_eq!(weir.metric_sum("weir_usage_estimated_total{").await, 1.0, "what came of it is paid once");
    assert_eq!(weir.metric_sum("gen_ai_client_operation_duration_seconds_count").await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn who_reads_slowly_holds_up_nobody_for_long_and_misses_nothing() {
    let line = [
        b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
        &[b'x'; 16_000][..],
        b"\"}}]}\n\n",
    ]
    .concat();
    let pieces: Vec<&[u8]> = std::iter::repeat_n(line.as_slice(), 200).chain([LAST]).collect();
    let whole = [line.repeat(200), FINISH.to_vec()].concat();
    // All of it can be kept, or only a part: then the slow one sets the pace.
    for most in ["16MiB", "100KiB"] {
        let go_on = Arc::new(Notify::new());
        let script = Script::sse(&pieces).after(Step::Wait(Arc::clone(&go_on)));
        let fake = Fake::always(script).await;
        let weir = Weir::before_with(&fake.url(), &format!("cache: {{ max_entry_bytes: {most} }}")).await;
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let url = weir.url(CHAT);
                tokio::spawn(async move { Client::default().open(Method::POST, &url, &[], ASK_STREAM).await })
            })
            .collect();
        weir.in_flight(3).await;
        go_on.notify_one();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        let slow = answers.remove(0);
        let gone = answers.remove(0);
        let fast = tokio::spawn(collect(answers.remove(0)));
        if most == "16MiB" {
            drop(gone);
            assert_eq!(fast.await.unwrap().body, whole);
            assert_eq!(collect(slow).await.body, whole);
        } else {
            let slow = tokio::spawn(collect(slow));
            drop(gone);
            assert_eq!(slow.await.unwrap().body, whole);
            assert_eq!(fast.await.unwrap().body, whole);
        }
        assert_eq!(fake.received().len(), 1);
        weir.settled().await;
        assert_eq!(weir.metric_sum("weir_tokens_total{").await, 15.0);
        weir.stop().await;
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_it_is_worth() {
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Script::only(vec![Step::Hang]),
        _ => Script::json(200, ANSWER),
    })
    .await;
    let weir = Weir::before_with(&fake.url(), "cache: { single_flight: { timeout: 50ms } }").await;
    let first = call(&weir, &Client::default(), &[], ASK);
    weir.in_flight(1).await;
    let second = weir.post(CHAT, &[], ASK).await;
    assert_eq!((second.header("x-cache"), second.body.as_ref()), ("MISS", ANSWER));
    assert_eq!(fake.received().len(), 2);
    first.abort();
    weir.settled().await;
    assert_eq!(weir.metric("weir_singleflight_wait_seconds_count").await, 1.0);
    assert_eq!(role(&weir, "follower").await, 0.0);
    assert!(weir.metric(r#"weir_proxy_overhead_seconds_sum{phase="request"}"#).await < 0.05, "waiting is no overhead");
    weir.stop().await;
}

#[tokio::test]
async fn only_equal_calls_that_want_it_are_merged() {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let fake = Fake::start(move |request| match request.header("x-first") {
        Some(_) => json_after(&wait),
        None => Script::json(200, ANSWER),
    })
    .await;
    let weir = Weir::before(&fake.url()).await;
    let first = call(&weir, &Client::default(), &[("x-first", "1")], ASK);
    weir.in_flight(1).await;
    for (headers, x_cache) in [
        (&[("authorization", "Bearer other")], "MISS"),
        (&[("x-cache-namespace", "other")], "MISS"),
        (&[("cache-control", "no-store")], "BYPASS"),
        (&[("x-cache-ttl", "0")], "MISS"),
        (&[("cache-control", "no-cache")], "BYPASS"),
    ] {
        let answer = weir.post(CHAT, headers, ASK).await;
        assert_eq!((answer.header("x-cache"), answer.status.as_u16()), (x_cache, 200), "{headers:?}");
    }
    assert_eq!(fake.received().len(), 6);
    go_on.notify_one();
    assert_eq!(first.await.unwrap().header("x-cache"), "MISS");
    weir.stop().await;
}

#[tokio::test]
async fn an_answer_that_had_to_be_new_is_new_enough_for_others() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(json_after(&go_on)).await;
    let weir = Weir::before(&fake.url()).await;
    let first = call(&weir, &Client::default(), &[("cache-control", "no-cache")], ASK);
    weir.in_flight(1).await;
    let second = call(&weir, &Client::default(), &[], ASK);
    weir.in_flight(2).await;
    let stored_only = weir.post(CHAT, &[("cache-control", "only-if-cached")], ASK).await;
    assert_eq!(stored_only.status, 504, "it is not stored yet");
    go_on.notify_one();
    assert_eq!(first.await.unwrap().header("x-cache"), "BYPASS");
    assert_eq!(second.await.unwrap().header("x-cache"), "COALESCED");
    assert_eq!(fake.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn what_was_asked_before_answers_were_invalidated_does_not_answer_what_is_asked_after() {
    let go_on = Arc::new(Notify::new());
    let asked = Arc::<AtomicUsize>::default();
    let (count, wait) = (Arc::clone(&asked), Arc::clone(&go_on));
    let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => json_after(&wait),
        _ => Script::json(200, ANSWER),
    })
    .await;
    let weir = Weir::before(&fake.url()).await;
    let before = call(&weir, &Client::default(), &[], ASK);
    weir.in_flight(1).await;
    let now = tokio::time::Instant::now();
    weir.cache().invalidate(Filter::default(), now, now);
    assert_eq!(weir.post(CHAT, &[], ASK).await.header("x-cache"), "MISS");
    go_on.notify_one();
    assert_eq!(before.await.unwrap().header("x-cache"), "MISS");
    assert_eq!(fake.received().len(), 2);
    weir.stop().await;
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let fake = Fake::always(Script::only(vec![Step::Hang])).await;
    let weir = Weir::before_with(&fake.url(), "cache: { single_flight: { enabled: false } }").await;
    let calls: Vec<_> = (0..3).map(|_| call(&weir, &Client::default(), &[], ASK)).collect();
    until("each asks for itself", || fake.received().len() == 3).await;
    calls.iter().for_each(JoinHandle::abort);
    weir.stop().await;
}

#[tokio::test]
async fn who_hangs_up_after_the_end_marker_has_had_it_all_though_others_go_on() {
    let go_on = Arc::new(Notify::new());
    let script = Script::begin_sse().pieces(&[FIRST, SECOND, LAST]).then(Step::Wait(Arc::clone(&go_on))).end();
    let fake = Fake::always(script).await;
    let weir = Weir::before(&fake.url()).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut answer = open(&weir, ASK_STREAM).await;
        let mut read = Vec::new();
        while !read.ends_with(b"data: [DONE]\n\n") {
            read.extend_from_slice(&next(&mut answer).await);
        }
        answers.push(answer);
    }
    weir.in_flight(3).await;
    let last = answers.remove(2);
    drop(answers);
    weir.in_flight(1).await;
    go_on.notify_one();
    assert_eq!(collect(last).await.body, "");
    weir.settled().await;
    paid_once(&weir).await;
    assert_eq!(ended(&weir, "success").await, 3.0);
    assert_eq!(saved(&weir).await, 30.0);
    assert_eq!(fake.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn when_all_have_hung_up_the_call_ends_or_is_drained_and_is_paid_once() {
    for drains in [false, true] {
        let go_on = Arc::new(Notify::new());
        let fake = Fake::always(stream_with_a_pause(&go_on)).await;
        let yaml = if drains { "calls: { on_disconnect: drain }" } else { "" };
        let weir = Weir::before_with(&fake.url(), yaml).await;
        let mut answers = Vec::new();
        for _ in 0..5 {
            let mut answer = open(&weir, ASK_STREAM).await;
            assert_eq!(next(&mut answer).await, FIRST);
            answers.push(answer);
        }
        drop(answers);
        weir.in_flight(0).await;
        if drains {
            go_on.notify_one();
            weir.settled().await;
            paid_once(&weir).await;
        } else {
            until("the provider sees the hang-up", || fake.hung_up() == 1).await;
            weir.settled().await;
            assert_eq!(weir.metric_sum("weir_usage_estimated_total{").await, 1.0);
            assert_eq!(weir.metric_sum("weir_billable_requests_total{").await, 1.0);
        }
        assert_eq!(ended(&weir, "cancelled").await, 5.0);
        assert_eq!(saved(&weir).await, 0.0, "nobody got the answer");
        weir.stop().await;
    }
}

#[tokio::test]
async fn told_to_stop_weir_lets_all_who_share_a_call_finish() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(stream_with_a_pause(&go_on)).await;
    let mut weir = Weir::before(&fake.url()).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(open(&weir, ASK_STREAM).await);
    }
    weir.begin_to_stop();
    let ready = format!("{}/readyz", weir.admin);
    while weir.client.get(&ready).await.status != http::StatusCode::SERVICE_UNAVAILABLE {
        tokio::task::yield_now().await;
    }
    go_on.notify_one();
    for answer in answers {
        assert_eq!(collect(answer).await.body, whole_stream());
    }
    weir.end().await;
}

#[tokio::test]
async fn what_does_not_end_is_cut_for_all_at_the_drain_timeout() {
    let streams = Script::begin_sse().pieces(&[FIRST]).then(Step::Hang);
    let fake = Fake::start(move |request| {
        let is_stream = request.body.windows(6).any(|part| part == b"stream");
        if is_stream { streams.clone() } else { Script::only(vec![Step::Hang]) }
    })
    .await;
    let mut weir = Weir::before_with(&fake.url(), "connections: { drain_timeout: 100ms }").await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(open(&weir, ASK_STREAM).await);
    }
    let waiting: Vec<_> = (0..3).map(|_| call(&weir, &Client::default(), &[], ASK)).collect();
    weir.in_flight(6).await;
    weir.end().await;
    for answer in answers {
        assert!(!collect_broken(answer).await.1);
    }
    for call in waiting {
        assert!(call.await.is_err(), "no answer came");
    }
    until("the provider sees that weir is gone", || fake.hung_up() == 2).await;
}
