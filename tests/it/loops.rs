//! Agent loops: what a run comes to is known while it goes on, one that goes round in circles is stopped, and nothing is
//! kept for ever.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use weir::simulator::pace::Pace;
use weir::simulator::{self, Simulator};

use crate::support::client::{Answer, Client, collect, collect_broken};
use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
/// What the simulator wants of an app.
const KEYS: [(&str, &str); 4] =
    [("authorization", "Bearer k"), ("x-api-key", "k"), ("anthropic-version", "2023-06-01"), ("x-goog-api-key", "k")];

/// A simulated provider.
struct Simulated {
    url: String,
    simulator: Simulator,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Simulated {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (simulator, stop) = (Simulator::new(Pace::instant()), CancellationToken::new());
        let serving = tokio::spawn(simulator::run(listener, simulator.clone(), stop.clone().cancelled_owned()));
        Self { url, simulator, stop, serving }
    }

    fn received(&self) -> u64 {
        self.simulator.state().received
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.serving).await.unwrap().unwrap();
    }
}

/// A chat of 1,000 tokens in and 100 out: gpt-5-mini is listed at 0.25 and 2 dollars for a million, so 0.00045 dollars.
fn answer() -> Script {
    let reply = json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    Script::json(200, reply.to_string().as_bytes())
}

fn ask(words: &str) -> Vec<u8> {
    json!({"model": "gpt-5-mini", "messages": [{"role": "user", "content": words}]}).to_string().into_bytes()
}

/// The headers of a call in a run.
fn in_run<'a>(run: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("x-run-id", run), ("x-loop-type", "research")], more].concat()
}

/// What a stopped loop is told: nothing that an SDK would try again.
#[track_caller]
fn assert_stopped(answer: &Answer, reason: &str) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(answer.header("retry-after"), "", "waiting does not help");
    let said = answer.json().to_string();
    for word in ["runaway loop", "X-Run-ID", reason] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// A request of each API for tools, whose answer calls the same one with the same arguments whatever is said.
fn ask_for_tools(api: &str, turn: usize, stream: bool) -> (String, Value) {
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo"]}}, "required": ["city"]});
    let words = format!("And what now? {turn}");
    match api {
        "chat" => {
            let tool = json!({"type": "function", "function": {"name": "weather", "parameters": schema}});
            let messages = json!([{"role": "user", "content": words}]);
            let body = json!({"model": "gpt-5-mini", "stream": stream, "messages": messages, "tools": [tool],
                "tool_choice": "required"});
            (CHAT.to_owned(), body)
        }
        "responses" => {
            let tool = json!({"type": "function", "name": "weather", "parameters": schema});
            let body = json!({"model": "gpt-5-mini", "stream": stream, "store": false, "input": words, "tools": [tool],
                "tool_choice": "required"});
            ("/openai/v1/responses".to_owned(), body)
        }
        "messages" => {
            let tool = json!({"name": "weather", "input_schema": schema});
            let messages = json!([{"role": "user", "content": words}]);
            let body = json!({"model": "claude-sonnet-4-5", "stream": stream, "max_tokens": 500, "messages": messages,
                "tools": [tool], "tool_choice": {"type": "any"}});
            ("/anthropic/v1/messages".to_owned(), body)
        }
        "gemini" => {
            let tool = json!({"functionDeclarations": [{"name": "weather", "parameters": schema}]});
            let body = json!({"contents": [{"role": "user", "parts": [{"text": words}]}], "tools": [tool],
                "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}});
            let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            (format!("/gemini/v1beta/models/gemini-2.5-flash:{method}"), body)
        }
        other => unreachable!("{other}"),
    }
}

#[tokio::test]
async fn equal_tool_calls_stop_a_loop_in_every_api_whole_and_streamed() {
    let provider = Simulated::start().await;
    let url = &provider.url;
    let weir = Weir::start(&format!(
        "providers:\n  openai: {{ base_url: {url} }}\n  anthropic: {{ base_url: {url} }}\n  gemini: {{ base_url: {url} }}\n\
         loops: {{ repeats: 3, on_runaway: block }}\n"
    ))
    .await;
    for api in ["chat", "responses", "messages", "gemini"] {
        for stream in [false, true] {
            let run = format!("{api} {stream}");
            let headers = in_run(&run, &KEYS);
            let call = async |turn| {
                let (path, body) = ask_for_tools(api, turn, stream);
                let answer = weir.post(&path, &headers, body.to_string().as_bytes()).await;
                weir.settled().await;
                answer
            };
            let before = provider.received();
            for turn in 0..3 {
                let answer = call(turn).await;
                assert_eq!(answer.status, StatusCode::OK, "{run}: {answer:?}");
                assert!(String::from_utf8_lossy(&answer.body).contains("weather"), "{run}: {answer:?}");
            }
            assert_stopped(&call(3).await, "the same tool calls");
            assert_eq!(provider.received() - before, 3, "{run}");
        }
    }
    let shape = async |api| {
        let (path, body) = ask_for_tools(api, 9, false);
        weir.post(&path, &in_run(&format!("{api} false"), &KEYS), body.to_string().as_bytes()).await.json()
    };
    assert_eq!(shape("chat").await["error"]["code"], "runaway_loop");
    assert_eq!(shape("messages").await["error"]["type"], "rate_limit_error");
    assert_eq!(shape("gemini").await["error"]["status"], "RESOURCE_EXHAUSTED");
    for (series, expected) in [
        (r#"weir_tool_invocations_total{tool="weather",loop_type="research"}"#, 24.0),
        (r#"weir_loop_runaways_total{loop_type="research",reason="repeated_tools"}"#, 8.0),
        (r#"weir_loop_llm_calls_total{loop_type="research"}"#, 24.0),
        (r#"weir_active_loops{loop_type="research"}"#, 8.0),
        (r#"weir_loop_max_active_llm_calls{loop_type="research"}"#, 3.0),
    ] {
        assert_eq!(weir.metric(series).await, expected, "{series}");
    }
    weir.stop().await;
    provider.end().await;
}

#[tokio::test]
async fn a_loop_is_stopped_even_where_the_cache_answers() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(&fake.url(), "loops: { repeats: 3, on_runaway: block }").await;
    let call = async |run, words| {
        let answer = weir.post(CHAT, &in_run(run, &[]), &ask(words)).await;
        weir.settled().await;
        answer
    };
    for (words, cached) in [("Done yet?", "MISS"), ("Done yet?", "HIT"), ("Done yet?", "HIT")] {
        assert_eq!(call("1", words).await.header("x-cache"), cached);
    }
    assert_stopped(&call("1", "Done yet?").await, "ask the same");
    assert_stopped(&call("1", "Something else").await, "ask the same");
    assert_eq!(call("2", "Done yet?").await.header("x-cache"), "HIT", "another run goes on");
    let plain = weir.post(CHAT, &[("x-loop-type", "research")], &ask("Done yet?")).await;
    assert_eq!(plain.header("x-cache"), "HIT", "and so does what is none");
    assert_eq!(fake.received().len(), 1);
    weir.settled().await;
    let refused =
        r#"weir_requests_total{provider="openai",model="gpt-5-mini",operation="chat",outcome="rate_limited"}"#;
    assert_eq!(weir.metric(refused).await, 2.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_conversation_that_grows_is_told_by_what_it_adds() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(&fake.url(), "loops: { repeats: 3, on_runaway: block }").await;
    let mut messages = vec![json!({"role": "user", "content": "Fix the build."})];
    for turn in 0..5 {
        let body = json!({"model": "gpt-5-mini", "messages": messages}).to_string();
        let answer = weir.post(CHAT, &in_run("1", &[]), body.as_bytes()).await;
        weir.settled().await;
        // The first asks for something else; the next three bring the same error each time.
        if turn == 4 {
            assert_stopped(&answer, "ask the same");
        } else {
            assert_eq!(answer.status, StatusCode::OK, "{turn}");
        }
        let call = json!({"id": format!("call_{turn}"), "type": "function",
            "function": {"name": "run", "arguments": format!("{{\"line\":{turn}}}")}});
        messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
        let result = format!("17:03:0{turn}  error: no such  file");
        messages.push(json!({"role": "tool", "tool_call_id": format!("call_{turn}"), "content": result}));
    }
    weir.stop().await;
}

#[tokio::test]
async fn with_alert_a_loop_is_told_and_goes_on() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(&fake.url(), "loops: { repeats: 2, max_calls_per_run: 4 }").await;
    for _ in 0..8 {
        let answer = weir.post(CHAT, &in_run("1", &[("cache-control", "no-cache")]), &ask("Done yet?")).await;
        assert_eq!(answer.status, StatusCode::OK);
        weir.settled().await;
    }
    assert_eq!(weir.metric_sum("weir_loop_runaways_total").await, 1.0, "once, though there are two reasons by now");
    assert_eq!(fake.received().len(), 8);
    weir.stop().await;
}

#[tokio::test]
async fn what_weir_asks_by_itself_is_no_step_of_a_loop() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(
        &fake.url(),
        "cache: { ttl: 1ms, stale_while_revalidate: 1h }\nloops: { max_calls_per_run: 5, on_runaway: block }",
    )
    .await;
    for number in 0..5 {
        assert_eq!(weir.post(CHAT, &in_run("1", &[]), &ask("well?")).await.status, StatusCode::OK);
        // Each stale answer has a newer one fetched.
        until("it is asked for again", || fake.received().len() > number).await;
        weir.settled().await;
    }
    assert_eq!(weir.metric(r#"weir_loop_llm_calls_total{loop_type="research"}"#).await, 5.0);
    assert_eq!(weir.metric_sum("weir_loop_runaways_total").await, 0.0);
    weir.stop().await;
}

#[tokio::test]
async fn of_many_calls_at_once_no_more_go_than_may() {
    let go = Arc::new(Notify::new());
    let fake = Fake::always(answer().after(Step::Wait(Arc::clone(&go)))).await;
    let weir = Weir::before_with(&fake.url(), "loops: { max_calls_per_run: 10, on_runaway: block }").await;
    let mut under_way = JoinSet::new();
    for number in 0..100 {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        let words = format!("question {number}");
        under_way.spawn(async move { client.post(&url, &in_run("1", &[]), &ask(&words)).await });
    }
    for _ in 0..90 {
        assert_stopped(&under_way.join_next().await.unwrap().unwrap(), "it has made 10 model calls");
    }
    until("all that may are there", || fake.received().len() == 10).await;
    let active = r#"weir_loop_max_active_llm_calls{loop_type="research"}"#;
    assert_eq!(weir.metric(active).await, 10.0, "in flight");
    while !under_way.is_empty() {
        go.notify_waiters();
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(5), under_way.join_next()).await {
            assert_eq!(answer.unwrap().unwrap().status, StatusCode::OK);
        }
    }
    weir.settled().await;
    for (series, expected) in [
        (active, 10.0),
        (r#"weir_loop_llm_calls_total{loop_type="research"}"#, 10.0),
        (r#"weir_loop_tokens_total{loop_type="research",token_type="prompt"}"#, 10_000.0),
        (r#"weir_loop_tokens_total{loop_type="research",token_type="completion"}"#, 1_000.0),
        (r#"weir_loop_runaways_total{loop_type="research",reason="max_calls"}"#, 1.0),
    ] {
        assert_eq!(weir.metric(series).await, expected, "{series}");
    }
    assert!((weir.metric(r#"weir_loop_cost_usd_total{loop_type="research"}"#).await - 0.0045).abs() < 1e-12);
    weir.stop().await;
}

#[tokio::test]
async fn what_is_spent_stops_a_loop_and_what_is_unpriced_does_not() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(&fake.url(), "loops: { max_cost_per_run: 0.0009, on_runaway: block }").await;
    for (number, stopped) in [(0, false), (1, false), (2, true)] {
        let answer = weir.post(CHAT, &in_run("1", &[]), &ask(&format!("question {number}"))).await;
        weir.settled().await;
        if stopped {
            assert_stopped(&answer, "it has spent 0.0009 US dollars");
        } else {
            assert_eq!(answer.status, StatusCode::OK);
        }
    }
    weir.stop().await;

    let unpriced = json!({"object": "chat.completion", "model": "home-made", "usage": {"prompt_tokens": 9, "completion_tokens": 9},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    let fake = Fake::always(Script::json(200, unpriced.to_string().as_bytes())).await;
    let limits = "loops: { max_cost_per_run: 0.000000001, max_tokens_per_run: 36, on_runaway: block }";
    let weir = Weir::before_with(&fake.url(), limits).await;
    for (number, stopped) in [(0, false), (1, false), (2, true)] {
        let body = json!({"model": "home-made", "messages": [{"role": "user", "content": number.to_string()}]});
        let answer = weir.post(CHAT, &in_run("1", &[]), body.to_string().as_bytes()).await;
        weir.settled().await;
        if stopped {
            assert_stopped(&answer, "it has used 36 tokens");
        } else {
            assert_eq!(answer.status, StatusCode::OK);
        }
    }
    assert_eq!(weir.metric(r#"weir_loop_cost_usd_total{loop_type="research"}"#).await, 0.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_run_ends_as_its_app_says_or_as_its_last_call_did() {
    let fake = Fake::start(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if body.contains("fails") { Script::json(500, b"{\"error\":{}}") } else { answer() }
    })
    .await;
    let weir = Weir::before_with(&fake.url(), "loops: { idle: 100ms }").await;
    let ended = async |status: &str| {
        let name = "weir_loop_execution_duration_seconds_count";
        weir.metric(&format!(r#"{name}{{loop_type="research",status="{status}"}}"#)).await
    };
    for (said, words, status) in [
        ("success", "well?", "success"),
        ("Cancelled", "well?", "cancelled"),
        ("error", "well?", "error"),
        ("timeout", "well?", "timeout"),
        // Nobody says so, or nobody means it: silence tells.
        ("", "well?", "success"),
        ("", "fails", "error"),
        ("success", "fails", "error"),
        ("splendid", "well?", "success"),
    ] {
        let before = if weir.metrics().await.contains(r#"status="success"}"#) { ended(status).await } else { 0.0 };
        let headers = in_run("1", &[("x-run-status", said), ("cache-control", "no-cache")]);
        weir.post(CHAT, &headers, &ask(words)).await;
        weir.settled().await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while ended(status).await <= before {
            assert!(tokio::time::Instant::now() < deadline, "{said} {words}: it never ended in {status}");
        }
        assert_eq!(ended(status).await, before + 1.0, "{said} {words}");
        assert_eq!(weir.metric(r#"weir_active_loops{loop_type="research"}"#).await, 0.0);
    }
    assert_eq!(weir.metric(r#"weir_loop_errors_total{loop_type="research",error_type="500"}"#).await, 2.0);
    assert_eq!(weir.metric(r#"weir_loop_errors_total{loop_type="research",error_type="_OTHER"}"#).await, 1.0);
    for request in fake.received() {
        for header in ["x-run-id", "x-loop-type", "x-run-status"] {
            assert_eq!(request.header(header), None, "it is nobody else's business");
        }
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_that_the_app_hangs_up_on_is_a_call_of_its_run() {
    let piece = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]}\n\n";
    let fake = Fake::always(Script::begin_sse().pieces(&[piece]).then(Step::Hang)).await;
    let weir = Weir::before_with(&fake.url(), "loops: { idle: 50ms }").await;
    let body = br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"count"}]}"#;
    let answer = weir.client.open(Method::POST, &weir.url(CHAT), &in_run("1", &[]), body).await;
    let active = r#"weir_active_loops{loop_type="research"}"#;
    assert_eq!(weir.metric(active).await, 1.0, "however long it takes");
    drop(answer);
    weir.settled().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while weir.metric(active).await > 0.0 {
        assert!(tokio::time::Instant::now() < deadline, "it never ended");
    }
    let ended = r#"weir_loop_execution_duration_seconds_count{loop_type="research",status="cancelled"}"#;
    assert_eq!(weir.metric(ended).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_stopped_run_opens_no_session_and_lists_nothing() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(&fake.url(), "loops: { max_calls_per_run: 1, on_runaway: block }").await;
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(weir.post(CHAT, &in_run("1", &[]), &ask("well?")).await.status, status);
    }
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (path, more) in [("/openai/v1/realtime?model=gpt-realtime", &upgrade[..]), ("/openai/v1/models", &[])] {
        let answer = weir.client.open(Method::GET, &weir.url(path), &in_run("1", more), b"").await;
        assert_stopped(&collect(answer).await, "it has made 1 model calls");
    }
    assert_eq!(fake.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn runs_without_number_take_no_more_than_their_room() {
    const RUNS: usize = 600;
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(&fake.url(), "loops: { max_runs: 32 }\ncache: { mode: off }").await;
    let mut under_way = JoinSet::new();
    for number in 0..RUNS {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        under_way.spawn(async move { client.post(&url, &in_run(&number.to_string(), &[]), &ask("well?")).await });
        if number % 20 == 0 {
            while let Some(answer) = under_way.join_next().await {
                assert_eq!(answer.unwrap().status, StatusCode::OK);
            }
        }
    }
    under_way.join_all().await;
    weir.settled().await;
    let active = weir.metric(r#"weir_active_loops{loop_type="research"}"#).await;
    assert!((1.0..=32.0).contains(&active), "{active}");
    let ended = weir.metric_sum("weir_loop_execution_duration_seconds_count").await;
    assert_eq!(ended + active, 600.0, "what is forgotten has ended");
    assert_eq!(weir.metric(r#"weir_loop_llm_calls_total{loop_type="research"}"#).await, 600.0);
    weir.stop().await;
}

#[tokio::test]
async fn a_loop_that_is_refused_breaks_nobody_elses_stream() {
    let go = Arc::new(Notify::new());
    let piece = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]}\n\n";
    let script = Script::begin_sse().pieces(&[piece]).then(Step::Wait(Arc::clone(&go)));
    let fake = Fake::always(script.pieces(&[b"data: [DONE]\n\n"]).end()).await;
    let weir = Weir::before_with(&fake.url(), "loops: { max_calls_per_run: 1, on_runaway: block }").await;
    let body = br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"count"}]}"#;
    let streaming = weir.client.open(Method::POST, &weir.url(CHAT), &in_run("1", &[]), body).await;
    let refused = Client::default().post(&weir.url(CHAT), &in_run("1", &[]), &ask("again?")).await;
    assert_stopped(&refused, "it has made 1 model calls");
    go.notify_one();
    let (came, is_whole) = collect_broken(streaming).await;
    assert!(is_whole && came.ends_with(b"[DONE]\n\n"), "{}", came.escape_ascii());
    weir.stop().await;
}
