//! Where a provider does not say what a call used, weir estimates it, marks it, and holds up no call for it.
//!
//! The texts are counted here by the same vocabulary; how far that is from what vendors bill is in docs/cost.md.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir::simulator::pace::Pace;
use weir::simulator::{self, Simulator};
use weir::tokens::Vocabulary;

use crate::support::client::collect_broken;
use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";
const PROMPT: &str = "Summarise what is known of the tides: why there are two a day, why some are higher than others, and \
    what the shape of a coast has to do with it. Write for a reader who has never heard of gravity, and keep it short.";
const ANSWER: [&str; 4] = [
    "The moon pulls on the water of the sea, ",
    "and on the side that faces it the water rises a little. ",
    "On the far side the earth is pulled away from the water, so it rises there as well: ",
    "that makes two tides a day. ",
];

fn chat(content: &str) -> Vec<u8> {
    json!({"model": "gpt-5-mini", "stream": true, "messages": [{"role": "user", "content": content}]})
        .to_string()
        .into_bytes()
}

fn tokens(text: &str) -> f64 {
    f64::from(u32::try_from(Vocabulary::O200k.count(text)).unwrap())
}

fn delta(content: &str) -> Vec<u8> {
    let chunk = json!({"model": "gpt-5-mini", "choices": [{"index": 0, "delta": {"content": content}}]});
    format!("data: {chunk}\n\n").into_bytes()
}

/// A chat stream that has sent all of [`ANSWER`], and goes on as `after` says.
fn answering() -> Script {
    let pieces = ANSWER.map(delta);
    Script::begin_sse().pieces(&pieces.each_ref().map(Vec::as_slice))
}

/// The tokens counted of one class.
async fn counted(weir: &Weir, class: &str) -> f64 {
    let text = weir.metrics().await;
    let lines = text.lines().filter(|line| line.starts_with("weir_tokens_total{") && line.contains(class));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn input(weir: &Weir) -> f64 {
    counted(weir, "token_type=\"input\"").await
}

async fn output(weir: &Weir) -> f64 {
    counted(weir, "token_type=\"output\"").await
}

async fn with_provenance(weir: &Weir, provenance: &str) -> f64 {
    let text = weir.metrics().await;
    let label = format!("provenance=\"{provenance}\"");
    let lines = text.lines().filter(|line| line.starts_with("weir_billable_requests_total{") && line.contains(&label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Whether `estimate` is within `percent` of `truth`.
#[track_caller]
fn near(what: &str, estimate: f64, truth: f64, percent: f64) {
    assert!((estimate - truth).abs() <= truth * percent / 100.0, "{what}: {estimate} is not near {truth}");
}

/// How a stream ends that does not end well.
#[derive(Clone, Copy, Debug)]
enum Bad {
    AppHangsUp,
    ProviderCuts,
    ProviderStalls,
    ProviderReportsAnError,
}

impl Bad {
    const ALL: [Self; 4] = [Self::AppHangsUp, Self::ProviderCuts, Self::ProviderStalls, Self::ProviderReportsAnError];

    fn end(self, script: Script) -> Script {
        match self {
            Self::AppHangsUp | Self::ProviderStalls => script.then(Step::Hang),
            Self::ProviderCuts => script,
            Self::ProviderReportsAnError => {
                script.pieces(&[b"data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\n"]).end()
            }
        }
    }

    /// Calls, and comes to this end once `chunks` have come.
    async fn meet(self, weir: &Weir, path: &str, ask: &[u8], chunks: usize) {
        let answer = weir.client.open(Method::POST, &weir.url(path), &[], ask).await;
        if matches!(self, Self::AppHangsUp) {
            let mut body = answer.into_body();
            for _ in 0..chunks {
                body.frame().await.unwrap().unwrap();
            }
        } else {
            collect_broken(answer).await;
        }
        weir.settled().await;
    }
}

async fn before(script: Script) -> (Fake, Weir) {
    let fake = Fake::always(script).await;
    let weir = Weir::before_with(&fake.url(), "upstream: { idle_timeout: 300ms }").await;
    (fake, weir)
}

#[tokio::test]
async fn a_stream_that_ends_badly_is_billed_for_what_came_of_it() {
    for bad in Bad::ALL {
        let (_fake, weir) = before(bad.end(answering())).await;
        bad.meet(&weir, CHAT, &chat(PROMPT), ANSWER.len()).await;
        near(&format!("{bad:?}: input"), input(&weir).await, tokens(PROMPT) + 4.0, 0.0);
        near(&format!("{bad:?}: output"), output(&weir).await, tokens(&ANSWER.concat()), 3.0);
        assert_eq!(with_provenance(&weir, "estimated").await, 1.0, "{bad:?}");
        assert_eq!(weir.metric(r#"weir_usage_estimated_total{provider="openai"}"#).await, 1.0, "{bad:?}");
        assert_eq!(
            weir.metric(r#"weir_cost_capture_ratio{provider="openai"}"#).await,
            0.0,
            "{bad:?}: it is no exact cost"
        );
        assert!(weir.metric_sum("weir_cost_usd_total{").await > 0.0, "{bad:?}");
        assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0, "{bad:?}");
        assert_eq!(weir.metric_sum("gen_ai_client_token_usage_count").await, 0.0, "{bad:?}: nobody reported it");
        weir.stop().await;
    }
}

#[tokio::test]
async fn a_stream_that_broke_before_any_content_is_billed_for_its_input() {
    for bad in Bad::ALL {
        let role =
            b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
        let (_fake, weir) = before(bad.end(Script::begin_sse().pieces(&[role]))).await;
        bad.meet(&weir, CHAT, &chat(PROMPT), 1).await;
        assert_eq!((input(&weir).await, output(&weir).await), (tokens(PROMPT) + 4.0, 0.0), "{bad:?}");
        assert_eq!(with_provenance(&weir, "estimated").await, 1.0, "{bad:?}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_was_reported_before_the_end_stays_as_it_was() {
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude-sonnet-4-5", "content": [],
        "usage": {"input_tokens": 504, "cache_read_input_tokens": 100, "output_tokens": 1}}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let deltas = ANSWER
        .map(|text| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}));
    let events: Vec<Vec<u8>> = [start, block]
        .iter()
        .chain(&deltas)
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()).into_bytes())
        .collect();
    let events: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
    let ask = json!({"model": "claude-sonnet-4-5", "max_tokens": 900, "stream": true,
        "messages": [{"role": "user", "content": PROMPT}]});
    let (_fake, weir) = before(Script::begin_sse().pieces(&events)).await;
    Bad::ProviderCuts.meet(&weir, MESSAGES, ask.to_string().as_bytes(), 0).await;
    assert_eq!((input(&weir).await, counted(&weir, "cache_read").await), (504.0, 100.0));
    near("output", output(&weir).await, tokens(&ANSWER.concat()), 3.0);
    assert_eq!(with_provenance(&weir, "estimated").await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_complete_reply_without_usage_is_estimated_and_so_is_what_it_saves() {
    let whole = json!({"id": "c", "model": "gpt-5-mini", "object": "chat.completion", "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER.concat()}}]});
    let ask = json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": PROMPT}]}).to_string();
    let (_fake, weir) = before(Script::json(200, whole.to_string().as_bytes())).await;
    assert_eq!(weir.post(CHAT, &[], ask.as_bytes()).await.header("x-cache"), "MISS");
    weir.settled().await;
    let truth = tokens(PROMPT) + 4.0 + tokens(&ANSWER.concat());
    assert_eq!(input(&weir).await + output(&weir).await, truth);
    assert_eq!(weir.post(CHAT, &[], ask.as_bytes()).await.header("x-cache"), "HIT");
    weir.settled().await;
    assert_eq!(weir.metric_sum("weir_tokens_saved_total{").await, truth);
    assert_eq!(with_provenance(&weir, "estimated").await, 1.0, "a hit is not billed");
    weir.stop().await;
}

#[tokio::test]
async fn embeddings_without_usage_are_billed_for_their_input() {
    let reply = br#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1]}],"model":"text-embedding-3-small"}"#;
    let (_fake, weir) = before(Script::json(200, reply)).await;
    let ask = json!({"model": "text-embedding-3-small", "input": [PROMPT, "tides"]}).to_string();
    weir.post("/openai/v1/embeddings", &[], ask.as_bytes()).await;
    weir.settled().await;
    let truth = Vocabulary::Cl100k.count(PROMPT) + Vocabulary::Cl100k.count("tides");
    assert_eq!(input(&weir).await, f64::from(u32::try_from(truth).unwrap()));
    weir.stop().await;
}

#[tokio::test]
async fn what_nobody_can_know_stays_unpriced() {
    let refused = Script::json(400, br#"{"error":{"message":"no","type":"invalid_request_error"}}"#);
    let silent = Script::only(vec![Step::Hang]);
    let half = Script::begin(&[("content-type", "application/json")]).pieces(&[b"{\"choices\":[{\"mess"]);
    let background =
        Script::json(200, br#"{"id":"resp_1","object":"response","status":"queued","model":"gpt-5-mini"}"#);
    for (rule, script, path, yaml, unpriced) in [
        ("a refused call costs nothing", refused, CHAT, "", 0.0),
        ("an answer that never began", silent, CHAT, "upstream: { first_byte_timeout: 100ms }", 1.0),
        ("a whole reply cut in the middle cannot be read", half, CHAT, "", 1.0),
        ("work that goes on elsewhere", background, "/openai/v1/responses", "", 1.0),
        ("the operator wants no estimates", answering(), CHAT, "calls: { estimate_usage: false }", 1.0),
    ] {
        let fake = Fake::always(script).await;
        let weir = Weir::before_with(&fake.url(), yaml).await;
        let ask = json!({"model": "gpt-5-mini", "background": true, "stream": rule.contains("estimates"),
            "messages": [{"role": "user", "content": PROMPT}]});
        Bad::ProviderCuts.meet(&weir, path, ask.to_string().as_bytes(), 0).await;
        let no_usage = r#"weir_unpriced_requests_total{provider="openai",reason="no_usage"}"#;
        assert_eq!(weir.metric(no_usage).await, unpriced, "{rule}");
        assert_eq!(weir.metric_sum("weir_usage_estimated_total{").await, 0.0, "{rule}");
        assert_eq!(weir.metric_sum("weir_cost_usd_total{").await, 0.0, "{rule}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn where_there_is_no_place_to_count_the_length_tells() {
    let (_fake, weir) = before(answering()).await;
    let places = Arc::clone(&weir.estimator().places);
    let all = u32::try_from(places.available_permits()).unwrap();
    let queue = async |what: &str| weir.metric(&format!(r#"weir_queue_{what}{{queue="estimates"}}"#)).await;
    assert_eq!((queue("length").await, queue("dropped_total").await), (0.0, 0.0));
    let _held = places.acquire_many(all).await.unwrap();
    Bad::ProviderCuts.meet(&weir, CHAT, &chat(PROMPT), 0).await;
    assert_eq!(queue("length").await, queue("capacity").await);
    assert_eq!(queue("dropped_total").await, 1.0);
    let by_length = |text: &str| f64::from(u32::try_from(text.len().div_ceil(4)).unwrap());
    assert_eq!(input(&weir).await, by_length(PROMPT) + 4.0);
    assert_eq!(output(&weir).await, by_length(&ANSWER.concat()));
    near("input", input(&weir).await, tokens(PROMPT) + 4.0, 25.0);
    near("output", output(&weir).await, tokens(&ANSWER.concat()), 25.0);
    weir.stop().await;
}

#[tokio::test]
async fn beyond_the_bytes_that_may_be_kept_the_length_tells() {
    let fake = Fake::always(answering()).await;
    let weir = Weir::before_with(&fake.url(), "calls: { max_estimate_bytes: 100 }").await;
    Bad::ProviderCuts.meet(&weir, CHAT, &chat(PROMPT), 0).await;
    assert_eq!(input(&weir).await, f64::from(u32::try_from(PROMPT.len().div_ceil(4)).unwrap()) + 4.0);
    near("output", output(&weir).await, tokens(&ANSWER.concat()), 3.0);
    weir.stop().await;
}

#[tokio::test]
async fn no_call_waits_for_an_estimate() {
    let (_fake, weir) = before(answering()).await;
    let turns = Arc::clone(&weir.estimator().turns);
    let all = u32::try_from(turns.available_permits()).unwrap();
    let held = turns.acquire_many(all).await.unwrap();
    let long = "word ".repeat((1 << 20) / 5);
    for (content, calls) in [(long.as_str(), 1), (PROMPT, 2)] {
        let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], &chat(content)).await;
        let (came, _) = collect_broken(answer).await;
        assert_eq!(came, ANSWER.map(delta).concat(), "all of it, at once");
        until("the estimates wait, not the calls", || weir.open_exchanges() == calls).await;
    }
    assert_eq!(input(&weir).await, 0.0);
    drop(held);
    weir.settled().await;
    near("input", input(&weir).await, tokens(&long) + tokens(PROMPT) + 8.0, 1.0);
    assert_eq!(with_provenance(&weir, "estimated").await, 2.0, "each call has one record");
    weir.stop().await;
}

#[tokio::test]
async fn told_to_stop_weir_waits_for_estimates_within_its_time() {
    let fake = Fake::always(answering()).await;
    let mut weir = Weir::before_with(&fake.url(), "connections: { drain_timeout: 100ms }").await;
    let turns = Arc::clone(&weir.estimator().turns);
    let all = u32::try_from(turns.available_permits()).unwrap();
    let _held = turns.acquire_many(all).await.unwrap();
    let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], &chat(PROMPT)).await;
    collect_broken(answer).await;
    until("the estimate waits", || weir.open_exchanges() == 1).await;
    weir.end().await;
}

#[tokio::test]
async fn a_drained_call_that_brings_no_bill_is_estimated() {
    let fake = Fake::always(answering().then(Step::Hang)).await;
    let weir = Weir::before_with(&fake.url(), "calls: { on_disconnect: drain, drain_timeout: 100ms }").await;
    Bad::AppHangsUp.meet(&weir, CHAT, &chat(PROMPT), 1).await;
    until("the provider sees the end", || fake.hung_up() == 1).await;
    assert_eq!(input(&weir).await, tokens(PROMPT) + 4.0);
    near("all that came while draining", output(&weir).await, tokens(&ANSWER.concat()), 3.0);
    weir.stop().await;
}

/// How far estimates may be from what the simulator charges, in percent.
const OFF_BY: f64 = 5.0;

#[tokio::test]
async fn estimates_are_near_what_the_simulator_charges() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let simulator = Simulator::new(Pace::instant());
    let serving = tokio::spawn(simulator::run(listener, simulator.clone(), stop.clone().cancelled_owned()));
    let weather = json!({"type": "object", "properties": {"city": {"type": "string", "description": "where"}}});
    let many: Vec<Value> = (0..12)
        .map(|turn| json!({"role": if turn % 2 == 0 { "user" } else { "assistant" }, "content": format!("{turn}: {PROMPT}")}))
        .collect();
    for (what, path, ask) in [
        ("chat", CHAT, json!({"messages": [{"role": "user", "content": PROMPT}]})),
        ("a long chat", CHAT, json!({"messages": many.clone()[..11]})),
        ("responses", "/openai/v1/responses", json!({"instructions": "Be brief.", "input": PROMPT})),
        ("messages", MESSAGES, json!({"max_tokens": 900, "system": "Be brief.", "messages": many[..11]})),
        (
            "tools",
            CHAT,
            json!({"messages": many[..11], "tools": [{"type": "function", "function":
            {"name": "weather", "description": "The weather of a place, today.", "parameters": weather}}]}),
        ),
    ] {
        for stream in [false, true] {
            let weir = Weir::before_with(&url, "cache: { mode: off }").await;
            let mut ask = ask.clone();
            ask["model"] = json!(if path == MESSAGES { "claude-sonnet-4-5" } else { "gpt-5-mini" });
            ask["stream"] = json!(stream);
            let before = simulator.bill().tokens();
            let headers = [
                ("x-simulate", "no-usage"),
                ("authorization", "Bearer k"),
                ("x-api-key", "k"),
                ("anthropic-version", "2023-06-01"),
            ];
            let answer = weir.post(path, &headers, ask.to_string().as_bytes()).await;
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            weir.settled().await;
            let after = simulator.bill().tokens();
            let charged = |count: u64| f64::from(u32::try_from(count).unwrap());
            let what = format!("{what}, streamed: {stream}");
            near(&format!("{what}: input"), input(&weir).await, charged(after.input - before.input), OFF_BY);
            near(&format!("{what}: output"), output(&weir).await, charged(after.output - before.output), OFF_BY);
            weir.stop().await;
        }
    }
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}
