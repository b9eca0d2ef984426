//! Files of questions, sent on a schedule: their answers are there before an app asks.

use std::io::Write;

use crate::support::fake::{Fake, Script};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ANSWER: &[u8] = br#"{"id":"c","object":"chat.completion","model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;

fn body(number: usize) -> String {
    format!(r#"{{"model":"gpt-5-mini","messages":[{{"role":"user","content":"question {number}"}}]}}"#)
}

fn questions(count: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for number in 0..count {
        writeln!(file, r#"{{"url":"{CHAT}","body":{}}}"#, body(number)).unwrap();
    }
    file
}

fn schedule(file: &tempfile::NamedTempFile, every: &str, more: &str) -> String {
    format!("warm: [{{ file: {}, every: {every}, rate: 1000{more} }}]", file.path().display())
}

#[tokio::test]
async fn what_is_on_the_schedule_is_asked_at_the_start_and_then_there() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let file = questions(10);
    // What is stored stays fresh for an hour: many more times change nothing.
    let weir = Weir::before_with(&fake.url(), &schedule(&file, "20ms", "")).await;
    until("every question is stored", || fake.received().len() == 10).await;
    weir.settled().await;
    let again = r#"weir_cache_requests_total{provider="openai",model="gpt-5-mini",result="hit"}"#;
    while weir.metric(again).await < 20.0 {
        tokio::task::yield_now().await;
    }
    // As OpenAI's and Anthropic's SDKs say what they can undo.
    let coding = ("accept-encoding", "gzip, deflate");
    assert_eq!(weir.post(CHAT, &[coding], body(3).as_bytes()).await.header("x-cache"), "HIT");
    assert_eq!(fake.received().len(), 10);
    weir.stop().await;
}

#[tokio::test]
async fn what_would_not_stay_fresh_until_the_next_time_is_asked_anew() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let file = questions(1);
    let yaml = schedule(&file, "1s", "") + "\ncache: { ttl: 1s }";
    let weir = Weir::before_with(&fake.url(), &yaml).await;
    until("it is asked again", || fake.received().len() >= 2).await;
    weir.stop().await;
}

#[tokio::test]
async fn a_schedule_spends_no_more_than_it_may() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let file = questions(50);
    // 10 tokens in and 5 out of gpt-5-mini: 0.0000125 USD.
    let weir = Weir::before_with(&fake.url(), &schedule(&file, "1h", ", max_usd: 0.00001")).await;
    until("it has begun", || !fake.received().is_empty()).await;
    weir.settled().await;
    assert!(
        fake.received().len() <= 4,
        "{} calls: no more than may begin before the first has ended",
        fake.received().len()
    );
    weir.stop().await;
}
