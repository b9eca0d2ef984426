//! A stream that uses a budget up while it is generated is ended there, as its API promises; it is billed as far as it
//! came, and is for nobody else.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use weir::limits::standing::SubjectBudget;
use weir::units::PicoUsd;

use crate::support::client::{Client, collect};
use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] =
    br#"{"model":"gpt-5-mini","stream":true,"max_tokens":100000,"messages":[{"role":"user","content":"hi"}]}"#;

/// Half a cent: 2,500 tokens of gpt-5-mini, at 2 dollars for a million.
const BUDGET: &str = "budgets: [{ name: app, limit_usd: 0.005, window: total, enforce: block, stop_streams: true }]";

/// What a chunk generates: a hundred tokens' worth of text.
const TEXT_BYTES: usize = 400;

fn chunk(rest: &Value) -> Vec<u8> {
    let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-mini"});
    chunk.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
    format!("data: {chunk}\n\n").into_bytes()
}

fn said(number: usize) -> Vec<u8> {
    let text = format!("{number:0>TEXT_BYTES$}");
    chunk(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}))
}

/// A stream of so many chunks, which then goes on for ever.
fn without_end(chunks: usize) -> Script {
    let pieces: Vec<Vec<u8>> = (0..chunks).map(said).collect();
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    Script::begin_sse().pieces(&pieces).then(Step::Hang)
}

fn spent(weir: &Weir) -> SubjectBudget {
    weir.limits().budgets_now().into_iter().next().expect("there is one budget").foremost
}

/// How many chunks an ended stream has that say something; it must be whole, and end as OpenAI's do.
fn chunks_of_ended(body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).expect("text");
    let events: Vec<&str> = text.strip_suffix("\n\n").expect("a whole event").split("\n\n").collect();
    let [said @ .., last, done] = events.as_slice() else { panic!("{text}") };
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(last["choices"], json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"}]));
    assert_eq!(
        (&last["id"], &last["model"], &last["created"]),
        (&json!("chatcmpl-1"), &json!("gpt-5-mini"), &json!(1))
    );
    assert_eq!(*done, "data: [DONE]");
    for (number, event) in said.iter().enumerate() {
        assert_eq!(format!("{event}\n\n").as_bytes(), self::said(number), "what came is what the provider sent");
    }
    said.len()
}

#[tokio::test]
async fn a_stream_that_uses_the_budget_up_ends_there_and_is_billed_as_far_as_it_came() {
    let fake = Fake::always(without_end(100)).await;
    let weir = Weir::before_with(&fake.url(), BUDGET).await;
    let answer = weir.post(CHAT, &[("accept-encoding", "gzip")], ASK).await;
    assert_eq!(answer.status, StatusCode::OK);
    let chunks = chunks_of_ended(&answer.body);
    assert!((24..=26).contains(&chunks), "25 chunks cost half a cent: {chunks}");
    assert_eq!(fake.received()[0].header("accept-encoding"), Some("identity"), "what is coded could not be ended");
    until("weir hangs up", || fake.hung_up() == 1).await;
    weir.settled().await;

    let SubjectBudget { spent, reserved, .. } = spent(&weir);
    assert_eq!(reserved.usd, PicoUsd::ZERO);
    let cents = |usd: PicoUsd| usd.pico() * 10_000 / PicoUsd::PER_USD;
    assert!((20..=120).contains(&cents(spent.usd)), "hundredths of a cent, counted and not by length: {}", spent.usd);
    let text = weir.metrics().await;
    assert!(text.contains(r#"outcome="budget_blocked""#), "{text}");
    assert!(weir.metric_sum(r#"weir_requests_total{provider="openai",model="gpt-5-mini""#).await > 0.0);
    assert_eq!(weir.cache().occupancy().entries, 0, "nothing of it is for anybody else");
    assert_eq!(weir.metric(r#"weir_budget_stopped_streams_total{budget="app"}"#).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn who_shares_a_stream_that_is_ended_gets_the_same() {
    let go = Arc::new(Notify::new());
    let fake = Fake::always(without_end(100).after(Step::Wait(Arc::clone(&go)))).await;
    let weir = Weir::before_with(&fake.url(), BUDGET).await;
    let mut under_way = JoinSet::new();
    for _ in 0..4 {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        under_way.spawn(async move { client.post(&url, &[], ASK).await });
    }
    weir.in_flight(4).await;
    until("the provider is asked", || fake.received().len() == 1).await;
    go.notify_one();
    let mut bodies: Vec<Bytes> = Vec::new();
    while let Some(answer) = under_way.join_next().await {
        bodies.push(answer.expect("no call panics").body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    chunks_of_ended(&bodies[0]);
    weir.settled().await;
    assert_eq!((fake.received().len(), spent(&weir).reserved.usd), (1, PicoUsd::ZERO));
    assert_eq!(weir.metric_sum("weir_requests_total{").await, 4.0);
    weir.stop().await;
}

#[tokio::test]
async fn streams_at_once_end_when_they_have_used_the_budget_up_together() {
    let fake = Fake::start(|_| without_end(100)).await;
    let weir = Weir::before_with(&fake.url(), &format!("cache: {{ mode: off }}\n{BUDGET}")).await;
    let other = br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"ho"}]}"#;
    let (client, url) = (weir.client.clone(), weir.url(CHAT));
    let held = client.open(Method::POST, &url, &[("content-type", "application/json")], other).await;
    assert_eq!(held.status(), StatusCode::OK);
    let (one, other) = tokio::join!(collect(held), weir.post(CHAT, &[], ASK));
    let chunks = [&one, &other].map(|answer| match answer.status {
        StatusCode::OK => chunks_of_ended(&answer.body),
        _ => 0,
    });
    let all: usize = chunks.iter().sum();
    assert!((25..=32).contains(&all), "25 chunks cost half a cent: {chunks:?}");
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_within_its_budget_is_as_it_came() {
    let finish = chunk(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    let usage =
        chunk(&json!({"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 2000, "total_tokens": 2008}}));
    let mut pieces: Vec<Vec<u8>> = (0..20).map(said).collect();
    pieces.extend([finish, usage, b"data: [DONE]\n\n".to_vec()]);
    let script: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let fake = Fake::always(Script::sse(&script)).await;
    let weir = Weir::before_with(&fake.url(), BUDGET).await;
    let answer = weir.post(CHAT, &[], ASK).await;
    pieces.remove(21);
    assert_eq!(answer.body, pieces.concat(), "but for what weir asked for");
    weir.settled().await;
    assert_eq!(weir.post(CHAT, &[], ASK).await.header("x-cache"), "HIT");
    weir.stop().await;
}

#[tokio::test]
async fn a_budget_that_only_blocks_lets_a_stream_come_to_its_end() {
    let fake = Fake::always(without_end(50)).await;
    let budget = BUDGET.replace("stop_streams: true", "stop_streams: false");
    let weir = Weir::before_with(&fake.url(), &budget).await;
    // A client of its own: dropped, its connection ends.
    let client = Client::default();
    let mut answer = client.open(Method::POST, &weir.url(CHAT), &[("content-type", "application/json")], ASK).await;
    let mut came = Vec::new();
    while came.len() < said(0).len() * 50 {
        let frame = answer.body_mut().frame().await.expect("more").expect("no error");
        came.extend_from_slice(&frame.into_data().expect("data"));
    }
    assert_eq!(came, (0..50).flat_map(said).collect::<Vec<_>>());
    drop((answer, client));
    weir.stop().await;
}
