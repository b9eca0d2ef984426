//! Similar requests: an answer serves one that says the same in other words, in the same context only, and an endpoint
//! that fails in whatever way costs no call more than its time limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::Answer;
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const KEY: (&str, &str) = ("authorization", "Bearer a");
const ONE: &str = "Please tell me how a weir holds back the river";
/// The same words but one.
const LIKE_ONE: &str = "Please tell me how the weir holds back the river";
const OTHER: &str = "Write a limerick about cheese";

/// What a provider says to every request: an answer of its own number.
async fn provider() -> Fake {
    let count = Mutex::new(0);
    Fake::start(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Script::json(200, answer(&format!("answer {count}")).as_bytes())
    })
    .await
}

fn answer(text: &str) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
    .to_string()
}

/// An endpoint whose vectors count words: each word is a dimension of its own.
async fn endpoint() -> Fake {
    let words = Mutex::new(HashMap::new());
    Fake::start(move |received| Script::json(200, vector(&words, received).to_string().as_bytes())).await
}

/// The same, but from the second time on it does this.
async fn endpoint_that_then(does: Script) -> Fake {
    let words = Mutex::new(HashMap::new());
    let is_first = AtomicBool::new(true);
    Fake::start(move |received| {
        let vector = || Script::json(200, vector(&words, received).to_string().as_bytes());
        if is_first.swap(false, Ordering::SeqCst) { vector() } else { does.clone() }
    })
    .await
}

fn vector(words: &Mutex<HashMap<String, usize>>, received: &Received) -> Value {
    let asked: Value = serde_json::from_slice(&received.body).unwrap();
    let mut words = words.lock().unwrap();
    let mut vector = vec![0.0; 128];
    let text = asked["input"].as_str().unwrap().to_lowercase();
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let next = words.len();
        vector[*words.entry(word.to_owned()).or_insert(next)] += 1.0;
    }
    json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}], "model": "m"})
}

/// A weir that is patient with its endpoint, so that only what a test is about goes wrong.
async fn weir(provider: &Fake, endpoint: &Fake, more: &str) -> Weir {
    weir_in_time(provider, endpoint, &format!(", timeout: 10s{more}")).await
}

async fn weir_in_time(provider: &Fake, endpoint: &Fake, more: &str) -> Weir {
    let similar = format!("url: \"{}/v1/\", model: words, threshold: 0.85{more}", endpoint.url());
    Weir::before_with(&provider.url(), &format!("cache: {{ similar: {{ {similar} }} }}")).await
}

fn ask(text: &str) -> Value {
    json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": text}]})
}

async fn post(weir: &Weir, headers: &[(&str, &str)], body: &Value) -> Answer {
    weir.post(CHAT, headers, body.to_string().as_bytes()).await
}

/// Asks, and waits until what was answered is known: `known` texts in all.
async fn teach(weir: &Weir, headers: &[(&str, &str)], body: &Value, known: u32) -> Answer {
    let answer = post(weir, headers, body).await;
    assert_eq!(answer.header("x-cache"), "MISS");
    wait_for(weir, r#"weir_cache_entries{backend="similar"}"#, f64::from(known)).await;
    answer
}

async fn wait_for(weir: &Weir, series: &str, value: f64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while weir.metric(series).await != value {
        assert!(Instant::now() < deadline, "{series} is {}, not {value}", weir.metric(series).await);
        tokio::task::yield_now().await;
    }
}

fn searches(result: &str) -> String {
    format!(r#"weir_cache_similar_requests_total{{result="{result}"}}"#)
}

#[tokio::test]
async fn an_answer_serves_a_request_that_says_the_same() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = weir(&provider, &endpoint, "").await;
    let first = teach(&weir, &[KEY], &ask(ONE), 1).await;
    let second = post(&weir, &[KEY], &ask(LIKE_ONE)).await;
    assert_eq!(second.header("x-cache"), "SIMILAR");
    assert_eq!(second.body, first.body);
    let status = second.header("cache-status");
    // Ten words each, of which nine are the same, one of them twice: 10 / sqrt(10 * 12).
    assert!(status.starts_with("weir; hit; ttl=3") && status.ends_with(r#"; detail="similar=0.913""#), "{status}");
    assert!(second.header("age").parse::<u64>().unwrap() < 10);

    let asked = endpoint.received();
    assert_eq!(asked[0].target, "/v1/embeddings");
    let body: Value = serde_json::from_slice(&asked[0].body).unwrap();
    assert_eq!(body, json!({"model": "words", "input": ONE, "encoding_format": "float"}));
    assert_eq!((provider.received().len(), asked.len()), (1, 2));

    assert_eq!(weir.metric(&searches("hit")).await, 1.0);
    assert_eq!(weir.metric("weir_cache_similar_lookup_seconds_count").await, 1.0);
    assert_eq!(weir.metric(r#"weir_cache_similar_embeddings_total{result="made"}"#).await, 2.0);
    let hits = r#"weir_cache_requests_total{provider="openai",model="gpt-5-mini",result="hit"}"#;
    assert_eq!(weir.metric(hits).await, 1.0);
    for (source, tokens) in [("similar", 15.0), ("cache", 0.0)] {
        let saved = format!(r#"weir_tokens_saved_total{{provider="openai",model="gpt-5-mini",source="{source}"}}"#);
        assert_eq!(weir.metric(&saved).await, tokens);
    }
    assert!(weir.metric_sum("weir_cost_saved_usd_total{").await > 0.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_request_that_says_something_else_is_answered_and_learnt_with_one_vector() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = weir(&provider, &endpoint, "").await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    teach(&weir, &[KEY], &ask(OTHER), 2).await;
    assert_eq!(endpoint.received().len(), 2, "what was looked for is learnt without being asked again");
    assert_eq!(weir.metric(&searches("miss")).await, 1.0);
    assert_eq!(post(&weir, &[KEY], &ask(OTHER)).await.header("x-cache"), "HIT", "equal ones need no vector");
    assert_eq!(endpoint.received().len(), 2);
    weir.stop().await;
}

#[tokio::test]
async fn without_a_url_nothing_is_compared() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = Weir::before(&provider.url()).await;
    for text in [ONE, LIKE_ONE] {
        assert_eq!(post(&weir, &[KEY], &ask(text)).await.header("x-cache"), "MISS");
    }
    assert_eq!(endpoint.received().len(), 0);
    weir.stop().await;
}

#[tokio::test]
async fn nobody_gets_an_answer_from_another_context() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = weir(&provider, &endpoint, "").await;
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let base = || json!({"model": "gpt-5-mini", "messages": [turn("system", "Be kind."), turn("user", LIKE_ONE)]});
    let with = |member: &str, value: Value| {
        let mut body = base();
        body[member] = value;
        body
    };
    let mut known = base();
    known["messages"][1]["content"] = json!(ONE);
    teach(&weir, &[KEY], &known, 1).await;

    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let earlier =
        json!([turn("system", "Be kind."), turn("user", "a"), turn("assistant", "b"), turn("user", LIKE_ONE)]);
    let picture = json!([{"type": "text", "text": LIKE_ONE}, {"type": "image_url", "image_url": {"url": "data:,"}}]);
    let last = |content: Value| json!([turn("system", "Be kind."), {"role": "user", "content": content}]);
    let bodies = [
        ("the model", with("model", json!("gpt-5"))),
        ("a parameter", with("temperature", json!(0.5))),
        ("how it travels", with("stream", json!(true))),
        ("tools", with("tools", tool)),
        ("the system prompt", with("messages", json!([turn("system", "Be terse."), turn("user", LIKE_ONE)]))),
        ("earlier turns", with("messages", earlier)),
        ("who speaks last", with("messages", json!([turn("system", "Be kind."), turn("assistant", LIKE_ONE)]))),
        ("a picture beside it", with("messages", last(picture))),
        ("two texts", with("messages", last(json!([{"type": "text", "text": ONE}, {"type": "text", "text": "And?"}])))),
        ("a number", with("messages", last(json!(format!("{LIKE_ONE} 2"))))),
        ("a negation", with("messages", last(json!(LIKE_ONE.replace("the weir", "no weir"))))),
        ("nothing at all", with("messages", last(json!("")))),
    ];
    for (rule, body) in &bodies {
        assert_eq!(post(&weir, &[KEY], body).await.header("x-cache"), "MISS", "{rule}");
    }
    let strangers: [(&str, &[(&str, &str)]); 5] = [
        ("the credential", &[("authorization", "Bearer b")]),
        ("no credential", &[]),
        ("the namespace", &[KEY, ("x-cache-namespace", "team")]),
        ("the organisation", &[KEY, ("openai-organization", "other")]),
        ("the form of the answer", &[KEY, ("accept-encoding", "gzip")]),
    ];
    for (rule, headers) in strangers {
        assert_eq!(post(&weir, headers, &base()).await.header("x-cache"), "MISS", "{rule}");
    }
    let elsewhere = weir.post("/local/v1/chat/completions", &[KEY], base().to_string().as_bytes()).await;
    assert_eq!(elsewhere.header("x-cache"), "MISS", "the provider");
    assert_eq!(weir.metric(&searches("hit")).await, 0.0);
    // The table is worth something only if the request it varies is answered.
    assert_eq!(post(&weir, &[KEY], &base()).await.header("x-cache"), "SIMILAR");
    weir.stop().await;
}

#[tokio::test]
async fn every_apis_last_turn_is_compared() {
    type Call = (&'static str, &'static str, fn(&str) -> Value);
    fn say(text: &str) -> Value {
        json!([{"role": "user", "content": text}])
    }
    let calls: [Call; 4] = [
        ("anthropic", "/anthropic/v1/messages", |text| json!({"model": "m", "max_tokens": 9, "messages": say(text)})),
        ("openai", "/openai/v1/responses", |text| json!({"model": "m", "store": false, "input": text})),
        ("ollama", "/ollama/api/chat", |text| json!({"model": "m", "stream": false, "messages": say(text)})),
        (
            "gemini",
            "/gemini/v1beta/models/m:generateContent",
            |text| json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}),
        ),
    ];
    let reply = |received: &Received| match received.target.as_str() {
        "/v1/messages" => {
            r#"{"type":"message","role":"assistant","content":[{"type":"text","text":"a"}],"stop_reason":"end_turn"}"#
        }
        "/v1/responses" => r#"{"object":"response","status":"completed","output":[]}"#,
        "/api/chat" => r#"{"message":{"role":"assistant","content":"a"},"done":true,"done_reason":"stop"}"#,
        _ => r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#,
    };
    let provider = Fake::start(move |received| Script::json(200, reply(received).as_bytes())).await;
    let endpoint = endpoint().await;
    let weir = weir(&provider, &endpoint, "").await;
    for (known, (name, path, body)) in (1..).zip(&calls) {
        let post = async |text| weir.post(path, &[KEY], body(text).to_string().as_bytes()).await;
        assert_eq!(post(ONE).await.header("x-cache"), "MISS", "{name}");
        wait_for(&weir, r#"weir_cache_entries{backend="similar"}"#, f64::from(known)).await;
        assert_eq!(post(LIKE_ONE).await.header("x-cache"), "SIMILAR", "{name}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn an_answer_is_told_in_the_form_the_similar_request_wants() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let similar = format!("url: \"{}/v1\", model: words, threshold: 0.85, timeout: 10s", endpoint.url());
    let yaml = format!("cache: {{ cross_mode: true, similar: {{ {similar} }} }}");
    let weir = Weir::before_with(&provider.url(), &yaml).await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    let mut streamed = ask(LIKE_ONE);
    streamed["stream"] = json!(true);
    for wants_usage in [false, true] {
        streamed["stream_options"] = json!({"include_usage": wants_usage});
        let answer = post(&weir, &[KEY], &streamed).await;
        assert_eq!(answer.header("x-cache"), "SIMILAR");
        assert!(answer.header("content-type").starts_with("text/event-stream"));
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains("answer 1") && text.ends_with("data: [DONE]\n\n"), "{text}");
        assert_eq!(text.contains("\"prompt_tokens\""), wants_usage, "{text}");
    }
    assert_eq!(provider.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn nobody_is_asked_for_a_request_that_wants_a_stored_answer_only() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = weir(&provider, &endpoint, "").await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    for (text, status, x_cache) in [(ONE, 200, "HIT"), (LIKE_ONE, 504, "MISS")] {
        let answer = post(&weir, &[KEY, ("cache-control", "only-if-cached")], &ask(text)).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-cache")), (status, x_cache), "{text}");
    }
    assert_eq!((provider.received().len(), endpoint.received().len()), (1, 1));
    weir.stop().await;
}

#[tokio::test]
async fn a_request_may_decline() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = weir(&provider, &endpoint, "").await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    for (name, value, expected) in [
        ("x-cache-similar", "off", "MISS"),
        ("cache-control", "no-cache", "BYPASS"),
        ("cache-control", "no-store", "BYPASS"),
    ] {
        // Each time another one, so that none finds what the one before it has stored.
        let text = format!("{LIKE_ONE} {}", "indeed ".repeat(endpoint.received().len()));
        let before = endpoint.received().len();
        let answer = post(&weir, &[KEY, (name, value)], &ask(&text)).await;
        assert_eq!(answer.header("x-cache"), expected, "{name}: {value}");
        if value != "no-cache" {
            assert_eq!(endpoint.received().len(), before, "{name}: {value}: its text stays here");
        }
    }
    assert!(provider.received().iter().all(|received| received.header("x-cache-similar").is_none()));
    assert_eq!(weir.metric(&searches("hit")).await, 0.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_long_text_is_not_compared() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = weir(&provider, &endpoint, ", max_text_bytes: 46").await;
    assert_eq!((ONE.len(), LIKE_ONE.len()), (46, 48));
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    assert_eq!(post(&weir, &[KEY], &ask(LIKE_ONE)).await.header("x-cache"), "MISS");
    assert_eq!(endpoint.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_gone_answers_nobody_and_its_text_is_forgotten() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let similar = format!("url: \"{}/v1\", model: words, threshold: 0.85, timeout: 10s", endpoint.url());
    let weir = Weir::before_with(&provider.url(), &format!("cache: {{ ttl: 1us, similar: {{ {similar} }} }}")).await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    assert_eq!(post(&weir, &[KEY], &ask(LIKE_ONE)).await.header("x-cache"), "MISS");
    assert_eq!(weir.metric(&searches("miss")).await, 1.0);
    weir.settled().await;
    assert_eq!(weir.metric(r#"weir_cache_entries{backend="similar"}"#).await, 1.0, "the new one only");
    weir.stop().await;
}

/// What an endpoint may do to a call, and what the search then comes to.
fn faults() -> Vec<(&'static str, Script, &'static str)> {
    let embedding =
        |numbers: &str| Script::json(200, format!(r#"{{"data":[{{"embedding":[{numbers}]}}]}}"#).as_bytes());
    let huge = vec![b'1'; 2 << 20];
    vec![
        ("says nothing", Script::only(vec![Step::Hang]), "timeout"),
        ("begins and stalls", Script::begin(&[]).then(Step::Hang), "timeout"),
        ("resets", Script::only(vec![Step::Reset]), "error"),
        ("breaks off", Script::begin(&[]).pieces(&[b"{\"data\""]).then(Step::Reset), "error"),
        ("is no HTTP", Script::only(vec![Step::Send("hello\r\n\r\n".into()), Step::Reset]), "error"),
        ("refuses", Script::json(401, br#"{"error":{"message":"no"}}"#), "error"),
        ("fails", Script::json(500, b"oops"), "error"),
        ("is elsewhere", Script::whole(302, &[("location", "/v2")], b""), "error"),
        ("is no JSON", Script::json(200, b"<html>"), "error"),
        ("is other JSON", Script::json(200, b"[]"), "error"),
        ("has no vector", Script::json(200, br#"{"data":[]}"#), "error"),
        ("has two", Script::json(200, br#"{"data":[{"embedding":[1]},{"embedding":[1]}]}"#), "error"),
        ("has an empty one", embedding(""), "error"),
        ("has one of zeros", embedding("0,0"), "error"),
        ("has one of words", embedding("\"a\""), "error"),
        ("has no number", embedding("null"), "error"),
        ("has a number out of range", embedding("1e999"), "error"),
        ("has one beyond 32 bits", embedding("1e39"), "error"),
        ("has too many", embedding(vec!["1"; 20_000].join(",").as_str()), "error"),
        ("is huge", Script::json(200, &huge), "error"),
        ("is in base64", Script::json(200, br#"{"data":[{"embedding":"AACAPw=="}]}"#), "error"),
        ("is of another dimension", embedding("1,2,3"), "miss"),
    ]
}

#[tokio::test]
async fn whatever_an_endpoint_does_a_call_is_answered_by_its_provider_in_time() {
    // All at once: an endpoint that hangs holds up the end of its weir until weir gives it up.
    join_all(faults().into_iter().map(|(rule, fault, expected)| survives(rule, fault, expected))).await;
}

async fn survives(rule: &str, fault: Script, expected: &str) {
    let (provider, endpoint) = (provider().await, endpoint_that_then(fault).await);
    let timeout = if expected == "timeout" { "200ms" } else { "10s" };
    let weir = weir_in_time(&provider, &endpoint, &format!(", timeout: {timeout}")).await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    let started = Instant::now();
    let answer = post(&weir, &[KEY], &ask(LIKE_ONE)).await;
    assert!(started.elapsed() < Duration::from_secs(5), "it {rule}: {:?}", started.elapsed());
    assert_eq!((answer.status.as_u16(), answer.header("x-cache")), (200, "MISS"), "it {rule}");
    assert_eq!(answer.body, self::answer("answer 2").as_bytes(), "it {rule}");
    assert_eq!(weir.metric(&searches(expected)).await, 1.0, "it {rule}");
    weir.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_left_alone() {
    let (provider, endpoint) = (provider().await, endpoint_that_then(Script::json(503, b"")).await);
    let weir = weir(&provider, &endpoint, "").await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    for number in 0..20 {
        let text = format!("{LIKE_ONE}{}", "!".repeat(number));
        assert_eq!(post(&weir, &[KEY], &ask(&text)).await.header("x-cache"), "MISS");
    }
    weir.settled().await;
    assert_eq!(weir.metric(&searches("error")).await, 3.0, "three failures in a row");
    assert_eq!(weir.metric(&searches("skipped")).await, 17.0);
    wait_for(&weir, r#"weir_cache_similar_embeddings_total{result="error"}"#, 6.0).await;
    assert_eq!(endpoint.received().len(), 7, "one that was answered, three for calls, three beside them");
    assert_eq!(provider.received().len(), 21);
    weir.stop().await;
}

#[tokio::test]
async fn the_endpoint_gets_its_own_key_and_never_the_apps() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "sk-vectors\n").unwrap();
    let weir = weir(&provider, &endpoint, &format!(", api_key_file: {}", file.display())).await;
    teach(&weir, &[KEY, ("cookie", "secret=1")], &ask(ONE), 1).await;
    let asked = &endpoint.received()[0];
    assert_eq!(asked.header("authorization"), Some("Bearer sk-vectors"));
    assert_eq!(asked.header("cookie"), None);
    assert_eq!(provider.received()[0].header("authorization"), Some(KEY.1));
    weir.stop().await;
}

#[tokio::test]
async fn a_check_asks_the_provider_all_the_same_and_compares() {
    let far = "It is a wall of oak";
    for (verdict, own) in [
        ("same", answer("It is a low wall across")),
        ("same", answer("It is a low wall along")),
        ("different", answer(far)),
        ("failed", r#"{"error":{"message":"no"}}"#.to_owned()),
    ] {
        let script = |answer: &str| Script::json(200, answer.as_bytes());
        let answers = vec![script(&own), script(&own), script(&answer("It is a low wall across"))];
        let scripts = Arc::new(Mutex::new(answers));
        let left = Arc::clone(&scripts);
        let provider = Fake::start(move |_| left.lock().unwrap().pop().expect("not so many calls")).await;
        let endpoint = endpoint().await;
        let weir = weir(&provider, &endpoint, ", verify: 1.0, verify_threshold: 0.75").await;
        let first = teach(&weir, &[KEY], &ask(ONE), 1).await;
        let second = post(&weir, &[KEY], &ask(LIKE_ONE)).await;
        assert_eq!((second.header("x-cache"), &second.body), ("SIMILAR", &first.body));
        wait_for(&weir, &format!(r#"weir_cache_similar_verified_total{{verdict="{verdict}"}}"#), 1.0).await;
        weir.settled().await;
        let received = provider.received();
        assert_eq!(received.len(), 2);
        assert_eq!(received[1].body, ask(LIKE_ONE).to_string().as_bytes(), "the request itself, as it was");
        assert_eq!(received[1].header("authorization"), Some(KEY.1));
        let checks = weir.metric_sum("weir_cache_requests_total{").await;
        assert_eq!(checks, 3.0, "a check is a call with a record of its own");
        let third = post(&weir, &[KEY], &ask(LIKE_ONE)).await;
        let (expected, body) = match verdict {
            "failed" => ("SIMILAR", &first.body),
            _ => ("HIT", &Bytes::from(own)),
        };
        assert_eq!((third.header("x-cache"), &third.body), (expected, body), "what was paid for is stored");
        weir.stop().await;
    }
}

#[tokio::test]
async fn only_the_share_that_is_wanted_is_checked() {
    let (provider, endpoint) = (provider().await, endpoint().await);
    let weir = weir(&provider, &endpoint, ", verify: 0.25").await;
    teach(&weir, &[KEY], &ask(ONE), 1).await;
    for number in 1..=8 {
        let text = format!("{LIKE_ONE}{}", "!".repeat(number));
        post(&weir, &[KEY], &ask(&text)).await;
    }
    weir.settled().await;
    assert_eq!(weir.metric(&searches("hit")).await, 8.0);
    crate::support::until("two of eight are checked", || provider.received().len() == 3).await;
    weir.settled().await;
    assert_eq!(provider.received().len(), 3);
    weir.stop().await;
}

#[tokio::test]
async fn what_cannot_work_is_told_at_the_start() {
    use weir::config::{Config, Sources};
    for (yaml, expected) in [
        ("url: here", "cache.similar.url"),
        ("url: \"http://127.0.0.1:1/v1\"", "cache.similar.model"),
        ("model: m", "cache.similar.model"),
        ("url: \"http://127.0.0.1:1\", model: m, threshold: 95", "cache.similar.threshold"),
        ("url: \"http://127.0.0.1:1\", model: m, threshold: 0", "cache.similar.threshold"),
        ("url: \"http://127.0.0.1:1\", model: m, verify: -1", "cache.similar.verify"),
        ("url: \"http://127.0.0.1:1\", model: m, api_key_env: NOWHERE", "cache.similar.api_key_env"),
        ("url: \"http://127.0.0.1:1\", model: m, api_key_file: /nowhere", "cache.similar.api_key_file"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.yaml");
        std::fs::write(&path, format!("cache: {{ similar: {{ {yaml} }} }}\n")).unwrap();
        let sources = Sources { file: Some(path), ..Sources::default() };
        let mistakes = Config::load(&sources).expect_err(yaml).to_string();
        assert!(mistakes.contains(expected), "{yaml}: {mistakes}");
    }
}
