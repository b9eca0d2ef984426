//! Spans: what a collector gets of each call, where they belong, what they never tell; and that no call knows whether
//! there is a collector at all.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::client::{Answer, Client, collect_broken};
use crate::support::collector::{Collector, Manner, Received, attributes};
use crate::support::fake::{Fake, Script, Step};
use crate::support::process::Process;
#[cfg(feature = "redis")]
use crate::support::redis::{Redis, is_here};
use crate::support::socket::{self, Head, Provider, close, rest, text};
use crate::support::tls::Identity;
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","max_completion_tokens":64,"temperature":0.5,"top_p":0.9,"seed":7,"n":2,
    "response_format":{"type":"json_object"},"user":"alice@example.com",
    "messages":[{"role":"user","content":"the secret prompt"}]}"#;
const ASK_STREAM: &[u8] =
    br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"the secret prompt"}]}"#;
const FIRST: &[u8] =
    b"data: {\"id\":\"c-1\",\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"the secret answer\"}}]}\n\n";
const LAST: &[u8] = b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"model\":\"gpt-5-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const KEY: &str = "sk-the-secret-key";

/// Spans leave as soon as they are there.
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "1");

fn whole() -> Script {
    let answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-5-mini-2025-08-07", "service_tier": "default",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "the secret answer"}},
            {"index": 1, "finish_reason": "length", "message": {"role": "assistant", "content": "the secret answer"}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
            "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 30}}});
    Script::whole(
        200,
        &[("content-type", "application/json"), ("x-request-id", "req_1")],
        answer.to_string().as_bytes(),
    )
}

async fn traced(fake: &Fake, collector: &Collector, more: &[(&str, &str)]) -> Weir {
    let variables: Vec<_> = [AT_ONCE].into_iter().chain(more.iter().copied()).collect();
    Weir::in_environment(&fake.url(), &collector.configured(), &variables).await
}

fn sampled(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn hex(id: &[u8]) -> String {
    use std::fmt::Write;
    id.iter().fold(String::new(), |mut all, byte| {
        write!(all, "{byte:02x}").unwrap();
        all
    })
}

/// The span of this name.
fn named<'a>(spans: &'a [Received], name: &str) -> &'a Received {
    let mut found = spans.iter().filter(|it| it.span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no `{name}` among {:?}", names(spans)));
    assert!(found.next().is_none(), "`{name}` once: {:?}", names(spans));
    span
}

fn names(spans: &[Received]) -> Vec<&str> {
    spans.iter().map(|it| it.span.name.as_str()).collect()
}

/// What a span says, less what differs each time: that has to be there.
fn told(received: &Received, fleeting: &[&str]) -> Value {
    let mut all = attributes(&received.span.attributes);
    for name in fleeting {
        assert!(all.remove(*name).is_some(), "{name} is missing in {}", received.span.name);
    }
    json!(all)
}

fn failure(received: &Received) -> Option<Value> {
    let status = received.span.status.clone().unwrap_or_default();
    assert_eq!(status.message, "", "no words of a provider's");
    let error = attributes(&received.span.attributes).remove("error.type");
    assert_eq!(status.code == StatusCode::Error as i32, error.is_some(), "{}", received.span.name);
    error
}

fn is_child(child: &Received, parent: &Received) {
    assert_eq!(child.span.parent_span_id, parent.span.span_id, "{} below {}", child.span.name, parent.span.name);
    assert_eq!(child.span.trace_id, parent.span.trace_id);
    assert!(child.span.start_time_unix_nano >= parent.span.start_time_unix_nano, "{}", child.span.name);
    assert!(child.span.end_time_unix_nano >= child.span.start_time_unix_nano, "{}", child.span.name);
}

async fn ask(weir: &Weir, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut all = vec![("authorization", "Bearer sk-the-secret-key")];
    all.extend_from_slice(headers);
    let answer = weir.post(CHAT, &all, body).await;
    weir.settled().await;
    answer
}

#[tokio::test]
async fn a_chat_is_three_spans_that_tell_all_there_is_to_tell() {
    for collector in [Collector::http(Manner::Takes).await, Collector::grpc(Manner::Takes).await] {
        let fake = Fake::always(whole()).await;
        let weir = traced(&fake, &collector, &[("OTEL_SERVICE_NAME", "cart")]).await;
        let headers = [
            ("x-agent-id", "planner"),
            ("x-loop-type", "research"),
            ("x-run-id", "run-1"),
            ("x-workspace-id", "w-1"),
            ("x-cache-namespace", "n-1"),
            ("x-stainless-retry-count", "2"),
        ];
        let answer = ask(&weir, &headers, ASK).await;
        let spans = collector.until(3).await;
        let server = named(&spans, "POST /openai/v1/chat/completions");
        let (model, attempt) = (named(&spans, "chat gpt-5-mini"), named(&spans, "POST"));
        let port = i64::from(fake.address.port());

        assert_eq!(answer.header("x-weir-trace-id"), hex(&server.span.trace_id));
        assert!(server.span.parent_span_id.is_empty(), "a trace begins here");
        is_child(model, server);
        is_child(attempt, model);
        let kinds = [server, model, attempt].map(|it| it.span.kind());
        assert_eq!(kinds, [SpanKind::Server, SpanKind::Client, SpanKind::Client]);
        for span in [server, model, attempt] {
            assert_eq!(failure(span), None);
            assert!(span.span.events.is_empty() && span.span.links.is_empty());
            assert_eq!(span.scope.0, "weir");
            assert_eq!(span.scope.2, "https://opentelemetry.io/schemas/1.41.0");
            assert_eq!(span.resource["service.name"], "cart");
            assert_eq!(span.resource["telemetry.sdk.language"], "rust");
        }

        assert_eq!(
            told(server, &["weir.request_id"]),
            json!({
                "http.request.method": "POST", "http.route": CHAT, "url.path": CHAT, "url.scheme": "http",
                "http.response.status_code": 200, "weir.outcome": "success", "weir.provider": "openai",
                "weir.operation": "chat", "weir.model": "gpt-5-mini", "weir.cache.result": "miss",
                "weir.cost.usd": 0.000_091_5, "weir.cost.provenance": "priced", "weir.loop.id": "run-1",
                "weir.loop.type": "research", "weir.agent": "planner", "weir.namespace": "n-1", "weir.workspace": "w-1",
            })
        );
        assert_eq!(
            told(model, &[]),
            json!({
                "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
                "gen_ai.request.stream": false, "gen_ai.request.max_tokens": 64, "gen_ai.request.temperature": 0.5,
                "gen_ai.request.top_p": 0.9, "gen_ai.request.seed": 7, "gen_ai.request.choice.count": 2,
                "gen_ai.output.type": "json", "gen_ai.response.id": "chatcmpl-1",
                "gen_ai.response.model": "gpt-5-mini-2025-08-07", "gen_ai.response.finish_reasons": ["stop", "length"],
                "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 40,
                "gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.usage.reasoning.output_tokens": 30,
                "openai.api.type": "chat_completions", "openai.response.service_tier": "default",
                "server.address": "127.0.0.1", "server.port": port, "weir.cost.usd": 0.000_091_5,
                "weir.cost.provenance": "priced", "weir.retry.count": 2,
            })
        );
        assert_eq!(
            told(attempt, &[]),
            json!({
                "http.request.method": "POST", "server.address": "127.0.0.1", "server.port": port,
                "url.full": format!("{}/v1/chat/completions", fake.url()), "http.response.status_code": 200,
                "http.request.resend_count": 2, "network.protocol.version": "1.1",
                "weir.upstream.request_id": "req_1",
            })
        );
        assert_eq!(weir.metric("weir_otlp_exported_spans_total").await, 3.0);
        weir.stop().await;
    }
}

#[tokio::test]
async fn a_stream_tells_when_it_began_and_a_tool_call_why_it_ended() {
    let collector = Collector::http(Manner::Takes).await;
    let call = json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
        "function": {"name": "look", "arguments": "{\"at\":\"the secret place\"}"}}]}, "finish_reason": "tool_calls"}]});
    let call = format!("data: {call}\n\n");
    let fake = Fake::always(Script::sse(&[call.as_bytes(), b"data: [DONE]\n\n"])).await;
    let weir = traced(&fake, &collector, &[]).await;
    ask(&weir, &[], ASK_STREAM).await;
    let spans = collector.until(3).await;
    let all = attributes(&named(&spans, "chat gpt-5-mini").span.attributes);
    assert_eq!(all["gen_ai.request.stream"], true);
    assert_eq!(all["gen_ai.response.finish_reasons"], json!(["tool_calls"]));
    let first = all["gen_ai.response.time_to_first_chunk"].as_f64().unwrap();
    assert!(first >= 0.0 && first <= all["weir.time_to_first_token_s"].as_f64().unwrap());
    weir.stop().await;
}

#[tokio::test]
async fn what_was_stored_is_linked_to_the_call_that_brought_it() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(whole()).await;
    let weir = traced(&fake, &collector, &[]).await;
    ask(&weir, &[], ASK).await;
    let origin = named(&collector.until(3).await, "chat gpt-5-mini").clone();
    assert_eq!(ask(&weir, &[], ASK).await.header("x-cache"), "HIT");
    let hit = collector.until(4).await.pop().unwrap();
    assert_eq!(
        told(&hit, &["weir.request_id", "weir.cache.age_seconds"]),
        json!({
            "http.request.method": "POST", "http.route": CHAT, "url.path": CHAT, "url.scheme": "http",
            "http.response.status_code": 200, "weir.outcome": "success", "weir.provider": "openai",
            "weir.operation": "chat", "weir.model": "gpt-5-mini", "weir.cache.result": "hit",
            "weir.cache.backend": "memory", "weir.cost.usd": 0.0, "weir.cost.saved_usd": 0.000_091_5,
        }),
        "no model was called, and no tokens were used"
    );
    let [link] = &hit.span.links[..] else { panic!("one link: {:?}", hit.span.links) };
    assert_eq!((&link.trace_id, &link.span_id), (&origin.span.trace_id, &origin.span.span_id));
    assert_eq!(json!(attributes(&link.attributes)), json!({"weir.link.type": "cache_origin"}));
    weir.stop().await;
}

#[tokio::test]
async fn who_follows_an_equal_call_is_linked_to_it() {
    for (body, script) in [(ASK, None), (ASK_STREAM, Some(Script::begin_sse().pieces(&[FIRST])))] {
        let collector = Collector::http(Manner::Takes).await;
        let go_on = Arc::new(Notify::new());
        let script = match script {
            Some(begun) => begun.then(Step::Wait(Arc::clone(&go_on))).pieces(&[LAST]).end(),
            None => whole().after(Step::Wait(Arc::clone(&go_on))),
        };
        let fake = Fake::always(script).await;
        let weir = traced(&fake, &collector, &[]).await;
        let call = || {
            let (client, url) = (weir.client.clone(), weir.url(CHAT));
            tokio::spawn(async move { client.post(&url, &[], body).await })
        };
        let leader = call();
        weir.in_flight(1).await;
        let follower = call();
        weir.in_flight(2).await;
        go_on.notify_one();
        leader.await.unwrap();
        assert_eq!(follower.await.unwrap().header("x-cache"), "COALESCED");
        let spans = collector.until(4).await;
        let led = named(&spans, "chat gpt-5-mini");
        let linked = spans.iter().find(|it| !it.span.links.is_empty()).unwrap();
        let link = &linked.span.links[0];
        assert_eq!((&link.trace_id, &link.span_id), (&led.span.trace_id, &led.span.span_id));
        assert_eq!(json!(attributes(&link.attributes)), json!({"weir.link.type": "singleflight_leader"}));
        assert_eq!(attributes(&linked.span.attributes)["weir.singleflight.role"], "follower");
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_fails_is_told_by_the_same_word_as_in_metrics() {
    let error = br#"{"error":{"message":"you said: the secret prompt","type":"x"}}"#;
    let broken = Script::begin_sse().pieces(&[FIRST]).then(Step::Reset);
    for (script, body, outcome, word, server_fails) in [
        (Script::json(400, error), ASK, "client_error", "400", false),
        (Script::json(429, error), ASK, "client_error", "429", false),
        (Script::json(500, error), ASK, "upstream_error", "500", true),
        (Script::json(529, error), ASK, "upstream_error", "529", true),
        (Script::only(vec![Step::Reset]), ASK, "upstream_error", "connection_reset", true),
        (broken, ASK_STREAM, "upstream_error", "stream_aborted", true),
    ] {
        let collector = Collector::http(Manner::Takes).await;
        let fake = Fake::always(script).await;
        let weir = traced(&fake, &collector, &[]).await;
        let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], body).await;
        collect_broken(answer).await;
        weir.settled().await;
        let spans = collector.until(3).await;
        let (server, model) = (named(&spans, "POST /openai/v1/chat/completions"), named(&spans, "chat gpt-5-mini"));
        assert_eq!(failure(server), server_fails.then(|| json!(word)), "{word}");
        assert_eq!(failure(model), Some(json!(word)));
        assert_eq!(failure(named(&spans, "POST")), Some(json!(word)));
        assert_eq!(attributes(&server.span.attributes)["weir.outcome"], outcome, "{word}");
        let events: Vec<_> = model.span.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, if word == "stream_aborted" { vec!["weir.stream.aborted"] } else { vec![] });
        let counted = weir.metric_sum("gen_ai_client_operation_duration_seconds_count").await;
        let metrics = weir.metrics().await;
        assert_eq!(counted, 1.0);
        assert!(metrics.contains(&format!("error_type=\"{word}\"")), "{word}: {metrics}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn a_timeout_is_an_error_and_an_app_that_hangs_up_is_not_the_server_s() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(Script::only(vec![Step::Hang])).await;
    let yaml = format!("upstream: {{ first_byte_timeout: 50ms }}\n{}", collector.configured());
    let weir = Weir::in_environment(&fake.url(), &yaml, &[AT_ONCE]).await;
    assert_eq!(ask(&weir, &[], ASK).await.status, 504);
    let spans = collector.until(3).await;
    for name in ["POST /openai/v1/chat/completions", "chat gpt-5-mini", "POST"] {
        assert_eq!(failure(named(&spans, name)), Some(json!("timeout")), "{name}");
    }
    weir.stop().await;

    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(Script::begin_sse().pieces(&[FIRST]).then(Step::Hang)).await;
    let weir = traced(&fake, &collector, &[]).await;
    let answer = Client::default().open(Method::POST, &weir.url(CHAT), &[], ASK_STREAM).await;
    drop(answer);
    let spans = collector.until(3).await;
    let server = named(&spans, "POST /openai/v1/chat/completions");
    assert_eq!(failure(server), None);
    assert_eq!(attributes(&server.span.attributes)["weir.outcome"], "cancelled");
    assert_eq!(failure(named(&spans, "chat gpt-5-mini")), Some(json!("cancelled")));
    weir.stop().await;
}

#[tokio::test]
async fn a_budget_that_refuses_is_told_and_no_model_is_said_to_be_called() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(whole()).await;
    let budget = "budgets: [{ name: team, limit_usd: 0, enforce: block }]\ncache: { mode: off }";
    let weir = Weir::in_environment(&fake.url(), &format!("{budget}\n{}", collector.configured()), &[AT_ONCE]).await;
    assert_eq!(ask(&weir, &[], ASK).await.status, 429);
    let spans = collector.until(1).await;
    let server = named(&spans, "POST /openai/v1/chat/completions");
    assert_eq!(failure(server), None, "a refusal is no failure");
    let all = attributes(&server.span.attributes);
    for (name, value) in [
        ("weir.outcome", json!("budget_blocked")),
        ("weir.budget.blocked", json!(true)),
        ("weir.budget.name", json!("team")),
        ("http.response.status_code", json!(429)),
    ] {
        assert_eq!(all[name], value, "{name}");
    }
    let [event] = &server.span.events[..] else { panic!("one event: {:?}", server.span.events) };
    assert_eq!(event.name, "weir.budget.blocked");
    assert_eq!(json!(attributes(&event.attributes)), json!({"weir.budget.name": "team"}));
    weir.stop().await;
}

#[tokio::test]
async fn what_a_budget_has_asked_of_another_model_says_so() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(whole()).await;
    let budget = "budgets: [{ name: team, match: { model: gpt-5 }, limit_usd: 0, enforce: downgrade, \
                  downgrade_to: gpt-5-mini }]";
    let weir = Weir::in_environment(&fake.url(), &format!("{budget}\n{}", collector.configured()), &[AT_ONCE]).await;
    let body = String::from_utf8(ASK.to_vec()).unwrap().replace("gpt-5-mini", "gpt-5");
    assert_eq!(ask(&weir, &[], body.as_bytes()).await.status, 200);
    let spans = collector.until(3).await;
    let all = attributes(&named(&spans, "POST /openai/v1/chat/completions").span.attributes);
    assert_eq!((&all["weir.downgraded.from"], &all["weir.downgraded.budget"]), (&json!("gpt-5"), &json!("team")));
    assert_eq!(attributes(&named(&spans, "chat gpt-5-mini").span.attributes)["gen_ai.request.model"], "gpt-5-mini");
    weir.stop().await;
}

#[tokio::test]
async fn other_apis_are_told_in_the_same_words() {
    let messages = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "the secret answer"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 5, "output_tokens": 7}});
    let gemini = json!({"responseId": "r-1", "modelVersion": "gemini-2.5-flash",
        "candidates": [{"content": {"parts": [{"text": "the secret answer"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "totalTokenCount": 13}});
    let embeddings = json!({"object": "list", "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}});
    for (path, route, body, answer, name, expected) in [
        (
            "/anthropic/v1/messages",
            "/anthropic/v1/messages",
            json!({"model": "claude-sonnet-4-5", "max_tokens": 9, "top_k": 4, "messages": [{"role": "user", "content": "the secret prompt"}]}),
            messages,
            "chat claude-sonnet-4-5",
            json!({"gen_ai.provider.name": "anthropic", "gen_ai.operation.name": "chat", "gen_ai.request.max_tokens": 9,
                "gen_ai.request.top_k": 4.0, "gen_ai.response.id": "msg_1", "gen_ai.response.finish_reasons": ["end_turn"],
                "gen_ai.usage.input_tokens": 35, "gen_ai.usage.output_tokens": 7,
                "gen_ai.usage.cache_read.input_tokens": 20, "gen_ai.usage.cache_creation.input_tokens": 5}),
        ),
        (
            "/gemini/v1beta/models/gemini-2.5-flash:generateContent?key=sk-the-secret-key",
            "/gemini/v1beta/models/{model}:generateContent",
            json!({"contents": [{"parts": [{"text": "the secret prompt"}]}], "generationConfig": {"temperature": 1}}),
            gemini,
            "generate_content gemini-2.5-flash",
            json!({"gen_ai.provider.name": "gcp.gemini", "gen_ai.request.temperature": 1.0,
                "gen_ai.response.finish_reasons": ["STOP"], "gen_ai.usage.input_tokens": 8,
                "gen_ai.usage.output_tokens": 5, "gen_ai.usage.reasoning.output_tokens": 3}),
        ),
        (
            "/openai/v1/embeddings",
            "/openai/v1/embeddings",
            json!({"model": "text-embedding-3-small", "input": "the secret prompt"}),
            embeddings,
            "embeddings text-embedding-3-small",
            json!({"gen_ai.provider.name": "openai", "gen_ai.operation.name": "embeddings",
                "gen_ai.usage.input_tokens": 3}),
        ),
    ] {
        let collector = Collector::http(Manner::Takes).await;
        let fake = Fake::always(Script::json(200, answer.to_string().as_bytes())).await;
        let weir = traced(&fake, &collector, &[]).await;
        weir.post(path, &[("authorization", "Bearer sk-the-secret-key")], body.to_string().as_bytes()).await;
        let spans = collector.until(3).await;
        let all = attributes(&named(&spans, name).span.attributes);
        for (attribute, value) in expected.as_object().unwrap() {
            assert_eq!(all.get(attribute), Some(value), "{name}: {attribute}");
        }
        let server = named(&spans, &format!("POST {route}"));
        assert_eq!(attributes(&server.span.attributes)["http.route"], *route);
        tells_nothing(&collector);
        weir.stop().await;
    }
}

/// Neither words of app or model nor a key nor who asks are in anything that the collector was sent.
fn tells_nothing(collector: &Collector) {
    let sent = collector.bytes();
    assert!(!sent.is_empty());
    for secret in ["the secret", KEY, "alice", "Bearer"] {
        let found = sent.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "`{secret}` in {:?}", String::from_utf8_lossy(&sent));
    }
}

#[tokio::test]
async fn no_word_of_app_or_model_and_no_key_is_in_any_span() {
    let error = br#"{"error":{"message":"you said: the secret prompt, with sk-the-secret-key","type":"the secret"}}"#;
    let broken = Script::begin_sse().pieces(&[FIRST]).then(Step::Reset);
    for (script, body) in [
        (whole(), ASK),
        (Script::json(401, error), ASK),
        (Script::sse(&[FIRST, LAST]), ASK_STREAM),
        (broken, ASK_STREAM),
    ] {
        let collector = Collector::http(Manner::Takes).await;
        let fake = Fake::always(script).await;
        let weir = traced(&fake, &collector, &[]).await;
        let headers = [
            ("authorization", "Bearer sk-the-secret-key"),
            ("x-user-id", "alice"),
            ("content-type", "application/json"),
        ];
        let url = weir.url(&format!("{CHAT}?api-key=sk-the-secret-key"));
        let answer = weir.client.open(Method::POST, &url, &headers, body).await;
        collect_broken(answer).await;
        collector.until(3).await;
        tells_nothing(&collector);
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_is_not_of_a_model_is_the_request_and_the_attempt() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = traced(&fake, &collector, &[]).await;
    weir.client.get(&weir.url("/openai/v1/models/ft:gpt-5:mine")).await;
    let spans = collector.until(2).await;
    assert_eq!(names(&spans), ["GET", "GET"], "a path that may be anything is no route");
    is_child(&spans[1], &spans[0]);
    assert_eq!(attributes(&spans[0].span.attributes)["url.path"], "/openai/v1/models/ft:gpt-5:mine");
    weir.stop().await;
}

#[tokio::test]
async fn a_call_joins_the_trace_of_its_app_and_tells_the_provider_nothing() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(whole()).await;
    let weir = traced(&fake, &collector, &[]).await;
    let context = [("traceparent", &*sampled("01")), ("tracestate", "vendor=1"), ("baggage", "user=alice")];
    let answer = ask(&weir, &context, ASK).await;
    assert_eq!(answer.header("x-weir-trace-id"), TRACE);
    let spans = collector.until(3).await;
    for received in &spans {
        assert_eq!(hex(&received.span.trace_id), TRACE);
        assert_eq!(received.span.trace_state, "vendor=1");
    }
    assert_eq!(hex(&named(&spans, "POST /openai/v1/chat/completions").span.parent_span_id), PARENT);
    let received = fake.received().pop().unwrap();
    for name in ["traceparent", "tracestate", "baggage"] {
        assert_eq!(received.header(name), None, "{name} tells of the inside of a house");
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_provider_of_ones_own_may_be_told_the_context() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(whole()).await;
    let own = format!("  own: {{ api: openai, base_url: \"{}\", propagate_upstream: true }}\n", fake.url());
    let weir = Weir::in_environment(&fake.url(), &format!("{own}{}", collector.configured()), &[AT_ONCE]).await;
    let context = [("traceparent", &*sampled("01")), ("tracestate", "vendor=1"), ("baggage", "user=alice")];
    weir.post("/own/v1/chat/completions", &context, ASK).await;
    let spans = collector.until(3).await;
    let received = fake.received().pop().unwrap();
    let attempt = hex(&named(&spans, "POST").span.span_id);
    assert_eq!(received.header("traceparent"), Some(&*format!("00-{TRACE}-{attempt}-01")));
    assert_eq!((received.header("tracestate"), received.header("baggage")), (Some("vendor=1"), Some("user=alice")));

    // A state without a context that can be read is nobody's.
    weir.post("/own/v1/chat/completions", &[("traceparent", "00-x-y-01"), ("tracestate", "vendor=1")], ASK_STREAM)
        .await;
    let received = fake.received().pop().unwrap();
    assert_ne!(received.header("traceparent"), Some("00-x-y-01"));
    assert_eq!(received.header("tracestate"), None);
    weir.settled().await;
    weir.stop().await;

    // Without traces, the context is the app's own.
    let weir = Weir::in_environment(&fake.url(), &own, &[]).await;
    let answer = weir.post("/own/v1/chat/completions", &context, ASK).await;
    assert_eq!(answer.headers.get("x-weir-trace-id"), None);
    assert_eq!(fake.received().pop().unwrap().header("traceparent"), Some(&*sampled("01")));
    weir.stop().await;
}

#[tokio::test]
async fn what_the_app_does_not_keep_is_not_kept() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(whole()).await;
    let own = format!("  own: {{ api: openai, base_url: \"{}\", propagate_upstream: true }}\n", fake.url());
    let weir = Weir::in_environment(&fake.url(), &format!("{own}{}", collector.configured()), &[AT_ONCE]).await;
    let answer = weir.post("/own/v1/chat/completions", &[("traceparent", &sampled("00"))], ASK).await;
    assert_eq!(answer.headers.get("x-weir-trace-id"), None, "it would lead nowhere");
    let handed_on = fake.received().pop().unwrap().header("traceparent").unwrap().to_owned();
    assert!(handed_on.starts_with(&format!("00-{TRACE}-")) && handed_on.ends_with("-00"), "{handed_on}");
    assert_eq!(weir.post("/own/v1/chat/completions", &[], ASK).await.header("x-cache"), "HIT");
    let kept = collector.until(1).await;
    assert_ne!(hex(&kept[0].span.trace_id), TRACE);
    assert!(kept[0].span.links.is_empty(), "what is not kept cannot be linked to");
    weir.stop().await;

    let weir = traced(&fake, &collector, &[("OTEL_TRACES_SAMPLER", "always_off")]).await;
    weir.post(CHAT, &[("traceparent", &sampled("01"))], ASK).await;
    weir.settled().await;
    weir.stop().await;
    assert_eq!(collector.spans().len(), 1, "nothing more has come");
}

#[tokio::test]
async fn a_collector_that_does_not_take_spans_costs_spans_and_nothing_else() {
    for (what, collector) in [
        ("HTTP 503", Collector::http(Manner::Refuses).await),
        ("RESOURCE_EXHAUSTED", Collector::grpc(Manner::Refuses).await),
        ("no answer over HTTP", Collector::http(Manner::Hangs).await),
        ("no answer over gRPC", Collector::grpc(Manner::Hangs).await),
    ] {
        let fake = Fake::always(whole()).await;
        let small = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "6"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ];
        let weir = traced(&fake, &collector, &small).await;
        let began = Instant::now();
        for index in 0..20 {
            let body = String::from_utf8(ASK.to_vec()).unwrap().replace(":7", &format!(":{index}"));
            let answer = weir.post(CHAT, &[], body.as_bytes()).await;
            assert_eq!(answer.status, 200, "{what}");
        }
        // Were they to wait for room, it would take two seconds for every three spans.
        assert!(began.elapsed() < Duration::from_secs(15), "{what}: calls took {:?}", began.elapsed());
        weir.settled().await;
        let capacity = weir.metric("weir_otlp_queue_capacity").await;
        assert!(weir.metric("weir_otlp_queue_length").await <= capacity, "{what}");
        let lost = "weir_otlp_dropped_spans_total{reason=";
        if what.starts_with("no answer") {
            assert!(weir.metric(&format!("{lost}\"queue_full\"}}")).await > 0.0, "{what}");
        }
        until_metric(&weir, &format!("{lost}\"export_failed\"}}"), |lost| lost > 0.0).await;
        assert_eq!(weir.metric("weir_otlp_exported_spans_total").await, 0.0, "{what}");

        collector.now(Manner::Takes);
        until_metric(&weir, "weir_otlp_queue_length", |length| length == 0.0).await;
        ask(&weir, &[], ASK_STREAM).await;
        until_metric(&weir, "weir_otlp_exported_spans_total", |taken| taken > 0.0).await;
        weir.stop().await;
    }
}

async fn until_metric(weir: &Weir, series: &str, holds: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds(weir.metric(series).await) {
        assert!(Instant::now() < deadline, "never came true of {series}: {}", weir.metric(series).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_no_reason_not_to_start() {
    let fake = Fake::always(whole()).await;
    for protocol in ["http/protobuf", "grpc"] {
        let yaml = format!("telemetry: {{ traces: {{ endpoint: \"http://127.0.0.1:1\", protocol: {protocol} }} }}");
        let weir = Weir::in_environment(&fake.url(), &yaml, &[AT_ONCE]).await;
        assert_eq!(weir.metric("weir_otlp_dropped_spans_total{reason=\"export_failed\"}").await, 0.0);
        assert!(weir.metrics().await.contains("weir_otlp_exported_spans_total 0"), "zero from the start");
        assert_eq!(ask(&weir, &[], ASK).await.status, 200);
        until_metric(&weir, "weir_otlp_dropped_spans_total{reason=\"export_failed\"}", |lost| lost == 3.0).await;
        weir.stop().await;
    }
    let weir = Weir::before(&fake.url()).await;
    assert!(!weir.metrics().await.contains("weir_otlp"), "without traces there is nothing to tell");
    weir.stop().await;
}

#[tokio::test]
async fn spans_go_over_tls_compressed_and_with_the_headers_that_the_collector_wants() {
    for protocol in ["http/protobuf", "grpc"] {
        let identity = Identity::new(&[b"h2", b"http/1.1"]);
        let collector = match protocol {
            "grpc" => Collector::grpcs(&identity).await,
            _ => Collector::https(&identity).await,
        };
        let headers = identity.dir.path().join("headers");
        std::fs::write(&headers, "authorization: Bearer sesame\n").unwrap();
        let fake = Fake::always(whole()).await;
        let yaml = format!(
            "telemetry: {{ traces: {{ endpoint: \"https://localhost:{}\", protocol: {protocol}, ca_file: {}, headers_file: {} }} }}",
            collector.address.port(),
            identity.authority.display(),
            headers.display()
        );
        let gzip = ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
        let weir = Weir::in_environment(&fake.url(), &yaml, &[AT_ONCE, gzip]).await;
        ask(&weir, &[], ASK).await;
        collector.until(3).await;
        let head = collector.last_head();
        assert_eq!(head["authorization"], "Bearer sesame", "{protocol}");
        let coding = if protocol == "grpc" { "grpc-encoding" } else { "content-encoding" };
        assert_eq!(head[coding], "gzip", "{protocol}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_waits_is_sent_when_weir_ends() {
    let fake = Fake::always(whole()).await;
    for collector in [Collector::http(Manner::Takes).await, Collector::grpc(Manner::Takes).await] {
        let endpoint = format!("http://{}", collector.address);
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", collector.protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        ];
        let process = Process::start(&fake.url(), &[], &variables).await;
        let answer = Client::default().post(&format!("{}{CHAT}", process.app), &[], ASK).await;
        assert_eq!(answer.status, 200);
        assert_eq!(collector.asked(), 0, "they wait for more");
        process.stop().await;
        assert_eq!(collector.spans().len(), 3);
    }
    // Nobody waits for ever.
    let collector = Collector::http(Manner::Hangs).await;
    let endpoint = format!("http://{}", collector.address);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_TIMEOUT", "500")];
    let process = Process::start(&fake.url(), &[], &variables).await;
    Client::default().post(&format!("{}{CHAT}", process.app), &[], ASK).await;
    process.stop().await;
    assert_eq!(collector.asked(), 1);
}

#[tokio::test]
async fn a_variable_that_cannot_be_used_is_named_in_the_log_and_a_secret_is_not() {
    let fake = Fake::always(whole()).await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sesame"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
    ];
    let process = Process::start(&fake.url(), &["--log", "debug"], &variables).await;
    until("the variable is named", || process.told("OTEL_TRACES_SAMPLER is ignored").len() == 1).await;
    Client::default().post(&format!("{}{CHAT}", process.app), &[], ASK).await;
    until("that spans are lost is told", || process.told("spans are lost").len() == 1).await;
    let all: Vec<_> = process.told("").iter().map(ToString::to_string).collect();
    assert!(all.iter().all(|line| !line.contains("sesame")), "{all:?}");
    process.stop().await;
}

#[tokio::test]
async fn a_session_is_one_call_and_each_response_in_it_a_model_call() {
    let collector = Collector::http(Manner::Takes).await;
    let provider = Provider::start().await;
    let weir = Weir::in_environment(&provider.url(), &collector.configured(), &[AT_ONCE]).await;
    let context = format!("traceparent: {}\r\n", sampled("01"));
    let path = "/openai/v1/realtime?model=gpt-realtime";
    let (mut app, (asked, mut tcp)) = tokio::join!(socket::ask(&weir.app, path, &context), provider.agrees());
    assert_eq!(asked.header("traceparent"), None);
    Head::read(&mut app).await;
    let said = [
        r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}"#,
        r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","output":[{"type":"message"}],
            "usage":{"total_tokens":130,"input_tokens":100,"output_tokens":30}}}"#,
    ];
    tcp.write_all(&said.map(text).concat()).await.unwrap();
    let turn = collector.until(1).await.remove(0);
    assert_eq!(turn.span.name, "chat gpt-realtime");
    assert_eq!(attributes(&turn.span.attributes)["gen_ai.usage.input_tokens"], 100, "while the session goes on");

    tcp.write_all(&close(1000)).await.unwrap();
    drop(tcp);
    rest(app).await;
    let spans = collector.until(3).await;
    let server = spans.iter().find(|it| it.span.kind() == SpanKind::Server).unwrap();
    assert_eq!(hex(&server.span.parent_span_id), PARENT);
    assert_eq!((&turn.span.parent_span_id, &turn.span.trace_id), (&server.span.span_id, &server.span.trace_id));
    weir.stop().await;
}

#[tokio::test]
async fn what_weir_asks_by_itself_is_not_said_to_be_asked_by_the_app() {
    let collector = Collector::http(Manner::Takes).await;
    let fake = Fake::always(whole()).await;
    let yaml = format!("cache: {{ stale_while_revalidate: 1h }}\n{}", collector.configured());
    let weir = Weir::in_environment(&fake.url(), &yaml, &[AT_ONCE]).await;
    let stale = [("x-cache-ttl", "1ns"), ("traceparent", &*sampled("01"))];
    ask(&weir, &stale, ASK).await;
    assert_eq!(ask(&weir, &stale, ASK).await.header("x-cache"), "HIT");
    let spans = collector.until(7).await;
    let refresh = named(&spans, "refresh");
    assert_eq!(refresh.span.kind(), SpanKind::Internal);
    assert_eq!(hex(&refresh.span.trace_id), TRACE);
    assert_eq!(spans.iter().filter(|it| it.span.kind() == SpanKind::Server).count(), 2);
    assert_eq!(spans.iter().filter(|it| it.span.name == "chat gpt-5-mini").count(), 2);
    weir.stop().await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn an_answer_of_another_replica_is_linked_to_the_call_there() {
    if !is_here() {
        return;
    }
    let (redis, collector) = (Redis::start().await, Collector::http(Manner::Takes).await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
    let refuses = |asked: &[u8]| asked.windows(6).any(|part| part == b"refuse");
    let fake = Fake::start(move |asked| if refuses(&asked.body) { Script::json(400, b"{}") } else { whole() }).await;
    let (url, secret) = (redis.url(), secret.path().display());
    let yaml = format!(
        "cache: {{ redis: {{ url: \"{url}\", secret_file: {secret}, deadline: 2s }} }}\n{}",
        collector.configured()
    );
    // A replica uses what others have stored once it knows what they hold for dead.
    let current = async || {
        let weir = Weir::in_environment(&fake.url(), &yaml, &[AT_ONCE]).await;
        until_metric(&weir, "weir_shared_store_up", |up| up == 1.0).await;
        let mut number = 0;
        while weir.metric("weir_cache_lookup_duration_seconds_count{backend=\"redis\",result=\"miss\"}").await == 0.0 {
            let body = format!(r#"{{"model":"gpt-5-mini","messages":[],"refuse":{number}}}"#);
            weir.post(CHAT, &[("traceparent", &sampled("00"))], body.as_bytes()).await;
            number += 1;
        }
        weir
    };
    let one = current().await;
    ask(&one, &[], ASK).await;
    let stored = r#"weir_cache_stores_total{backend="redis",result="stored"}"#;
    until_metric(&one, stored, |stored| stored >= 1.0).await;
    let origin = named(&collector.until(4).await, "chat gpt-5-mini").clone();
    let other = current().await;
    assert_eq!(ask(&other, &[], ASK).await.header("x-cache"), "HIT");
    let spans = collector.until(6).await;
    let hit = spans.iter().find(|it| !it.span.links.is_empty()).unwrap();
    assert_eq!(attributes(&hit.span.attributes)["weir.cache.backend"], "redis");
    let link = &hit.span.links[0];
    assert_eq!((&link.trace_id, &link.span_id), (&origin.span.trace_id, &origin.span.span_id));
    let looked: Vec<_> = spans.iter().filter(|it| it.span.name == "GET").collect();
    assert_eq!(looked.len(), 2, "one found nothing, the other did");
    for look_up in looked {
        assert_eq!(told(look_up, &[]), json!({"db.system.name": "redis", "db.operation.name": "GET"}));
    }
    one.stop().await;
    other.stop().await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn a_store_that_is_not_asked_has_no_span() {
    let (fake, collector) = (Fake::start(|_| whole()).await, Collector::http(Manner::Takes).await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let yaml = format!(
        "cache: {{ redis: {{ url: \"redis://{gone}\", secret_file: {} }} }}\n{}",
        secret.path().display(),
        collector.configured()
    );
    let weir = Weir::in_environment(&fake.url(), &yaml, &[AT_ONCE]).await;
    assert_eq!(ask(&weir, &[], ASK).await.header("x-cache"), "MISS");
    let spans = collector.until(3).await;
    let names: Vec<_> = spans.iter().map(|it| it.span.name.as_str()).collect();
    assert!(!names.contains(&"GET"), "{names:?}");
    weir.stop().await;
}
