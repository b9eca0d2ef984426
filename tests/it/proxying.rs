//! Calls go through untouched: heads, bodies, paths, credentials.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::client::{Client, collect};
use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{ "model":"gpt-5-mini",  "messages":[] }"#;

fn ok() -> Script {
    Script::json(200, br#"{"choices":[]}"#)
}

#[tokio::test]
async fn paths_lead_where_they_say() {
    let fake = Fake::always(ok()).await;
    let yaml = format!(
        "providers:\n  openai: {{ base_url: \"{0}\" }}\n  anthropic: {{ base_url: \"{0}\" }}\n  \
         local: {{ api: openai, base_url: \"{0}/openai/\", prices: free }}\ndefault_provider: openai\n",
        fake.url()
    );
    let weir = Weir::start(&yaml).await;
    for (asked, sent) in [
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/files/a%2Fb?limit=2&x=%20", "/v1/files/a%2Fb?limit=2&x=%20"),
        ("/anthropic/v1/messages", "/v1/messages"),
        ("/anthropic/messages", "/v1/messages"),
        ("/anthropic/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/local/v1/chat/completions", "/openai/v1/chat/completions"),
    ] {
        assert_eq!(weir.post(asked, &[], ASK).await.status, StatusCode::OK);
        assert_eq!(fake.received().last().unwrap().target, sent, "{asked}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn the_apps_bytes_and_headers_are_untouched_but_for_the_hop() {
    let fake = Fake::always(ok()).await;
    let weir = Weir::before(&fake.url()).await;
    let kept = [
        ("authorization", "Bearer sk-app"),
        ("openai-organization", "org"),
        ("x-stainless-retry-count", "1"),
        ("user-agent", "OpenAI/Python"),
    ];
    let mut sent = kept.to_vec();
    let stops_here = ["x-agent-id", "x-user-id", "x-loop-type", "x-run-id", "x-workspace-id", "x-cache-namespace"];
    let tells_of_the_house = ["traceparent", "tracestate", "baggage"];
    sent.extend(stops_here.iter().chain(&tells_of_the_house).map(|name| (*name, "me")));
    sent.extend([("connection", "x-hop"), ("x-hop", "1"), ("proxy-authorization", "Basic eDp5")]);
    weir.post(CHAT, &sent, ASK).await;
    let received = fake.received().pop().unwrap();
    assert_eq!(received.body, ASK);
    for (name, value) in kept {
        assert_eq!(received.header(name), Some(value));
    }
    for name in
        stops_here.iter().chain(&tells_of_the_house).chain(&["x-hop", "proxy-authorization", "x-forwarded-for", "via"])
    {
        assert_eq!(received.header(name), None, "{name}");
    }
    assert_eq!(received.header("host"), Some(fake.address.to_string().as_str()));
    assert_eq!(received.header("content-length"), Some(ASK.len().to_string().as_str()));
    weir.stop().await;
}

#[tokio::test]
async fn the_providers_head_is_untouched_but_for_the_hop() {
    let headers = [
        ("content-type", "application/json"),
        ("x-request-id", "req_1"),
        ("x-ratelimit-remaining-requests", "99"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("server", "cloudflare"),
    ];
    let fake = Fake::always(Script::whole(201, &headers, b"{}")).await;
    let weir = Weir::before(&fake.url()).await;
    let answer = weir.post(CHAT, &[], ASK).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!((answer.header("x-request-id"), answer.header("server")), ("req_1", "cloudflare"));
    assert!(answer.headers.get("x-hop").is_none());
    weir.stop().await;
}

#[tokio::test]
async fn weirs_own_headers_can_be_off_and_identity_can_go_on() {
    let fake = Fake::always(ok()).await;
    let yaml = "calls: { response_headers: false, identity: { forward: true, agent_header: X-Bot } }";
    let weir = Weir::before_with(&fake.url(), yaml).await;
    let answer = weir.post(CHAT, &[("x-bot", "me")], ASK).await;
    for name in ["x-cache", "cache-status", "x-weir-request-id"] {
        assert!(answer.headers.get(name).is_none(), "{name}");
    }
    assert_eq!(fake.received()[0].header("x-bot"), Some("me"));
    weir.settled().await;
    assert_eq!(weir.metric(r#"weir_agent_requests_total{agent="me"}"#).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn what_weir_does_not_know_passes_through_and_is_counted() {
    let fake = Fake::always(Script::whole(200, &[("content-type", "audio/mpeg")], &[0xff; 1000])).await;
    let weir = Weir::before(&fake.url()).await;
    let multipart = vec![b'm'; 3 << 20];
    let answer = weir
        .client
        .open(
            Method::POST,
            &weir.url("/openai/v1/videos"),
            &[("content-type", "multipart/form-data; boundary=x")],
            &multipart,
        )
        .await;
    assert_eq!(collect(answer).await.body.len(), 1000);
    assert_eq!(fake.received()[0].body, multipart);
    let head = weir.client.open(Method::HEAD, &weir.url("/openai/v1/models"), &[], b"").await;
    assert_eq!(head.status(), StatusCode::OK);
    let delete = weir.client.open(Method::DELETE, &weir.url("/openai/v1/files/f"), &[], b"").await;
    collect(delete).await;
    weir.settled().await;
    let counted = r#"weir_requests_total{provider="openai",model="none",operation="other",outcome="success"}"#;
    assert_eq!(weir.metric(counted).await, 3.0);
    assert!(weir.metric(r#"weir_http_bytes_total{direction="in"}"#).await >= f64::from(3 << 20));
    weir.stop().await;
}

#[tokio::test]
async fn a_body_too_large_to_keep_streams_through_and_is_still_priced() {
    let reply = br#"{"model":"gpt-5-mini","choices":[{"index":0,"finish_reason":"stop","message":{"content":"x"}}],"usage":{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105}}"#;
    let fake = Fake::always(Script::json(200, reply)).await;
    let weir = Weir::before_with(&fake.url(), "calls: { max_request_bytes: 1KiB }").await;
    let large = format!(r#"{{"model":"gpt-5-mini","messages":["{}"]}}"#, "x".repeat(100_000));
    let answer = weir.post(CHAT, &[], large.as_bytes()).await;
    assert_eq!((answer.body.as_ref(), answer.header("x-cache")), (reply.as_slice(), "BYPASS"));
    assert_eq!(fake.received()[0].body, large.as_bytes());
    weir.settled().await;
    let tokens = r#"weir_tokens_total{provider="openai",model="gpt-5-mini",token_type="input"}"#;
    assert_eq!(weir.metric(tokens).await, 100.0);
    weir.stop().await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken_to_the_app() {
    let fake = Fake::always(ok()).await;
    let weir = Weir::before(&fake.url()).await;
    let client = Client::http2();
    for _ in 0..3 {
        let answer = client.open(Method::POST, &weir.url(CHAT), &[("cache-control", "no-store")], ASK).await;
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(collect(answer).await.body.as_ref(), br#"{"choices":[]}"#);
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_configured_key_takes_the_place_of_the_apps_and_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "sk-first\n").unwrap();
    let fake = Fake::always(ok()).await;
    let yaml = format!(
        "providers:\n  openai: {{ base_url: \"{0}\", api_key_file: \"{1}\" }}\n  \
         anthropic: {{ base_url: \"{0}\", api_key_file: \"{1}\" }}\ncache: {{ mode: off }}\n",
        fake.url(),
        key.display()
    );
    let weir = Weir::start(&yaml).await;
    let own = [("authorization", "Bearer sk-app"), ("x-api-key", "sk-app")];
    weir.post(CHAT, &own, ASK).await;
    weir.post("/anthropic/v1/messages", &own, ASK).await;
    let received = fake.received();
    assert_eq!(received[0].header("authorization"), Some("Bearer sk-first"));
    assert_eq!(received[0].header("x-api-key"), None);
    assert_eq!(received[1].header("x-api-key"), Some("sk-first"));
    assert_eq!(received[1].header("authorization"), None);

    std::fs::write(&key, "sk-second\n").unwrap();
    let mut last = String::new();
    while last != "Bearer sk-second" {
        tokio::task::yield_now().await;
        weir.post(CHAT, &own, ASK).await;
        last = fake.received().pop().unwrap().header("authorization").unwrap().to_owned();
    }
    weir.stop().await;
}

#[tokio::test]
async fn an_attempt_that_the_sdk_calls_a_retry_counts_as_one() {
    let fake = Fake::always(ok()).await;
    let weir = Weir::before_with(&fake.url(), "cache: { mode: off }").await;
    let retries = r#"weir_upstream_retries_total{provider="openai",reason="app"}"#;
    assert!(weir.metrics().await.contains(&format!("{retries} 0\n")), "from the start");
    for count in ["0", "1", "2"] {
        weir.post(CHAT, &[("x-stainless-retry-count", count)], ASK).await;
    }
    weir.settled().await;
    assert_eq!((fake.received().len(), weir.metric(retries).await), (3, 2.0));
    weir.stop().await;
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let go = Arc::new(Notify::new());
    let script = ok().after(Step::Wait(Arc::clone(&go)));
    let fake = Fake::always(script).await;
    let yaml = "cache: { mode: off, single_flight: { enabled: false } }\nupstream: { pool_max_idle: 0 }";
    let weir = Weir::before_with(&fake.url(), yaml).await;
    let open = r#"weir_upstream_connections{provider="openai"}"#;
    assert!(weir.metrics().await.contains(&format!("{open} 0\n")), "from the start");
    let mut under_way = JoinSet::new();
    for _ in 0..3 {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        under_way.spawn(async move { client.post(&url, &[], ASK).await });
    }
    until("the provider is asked", || fake.received().len() == 3).await;
    assert_eq!(weir.metric(open).await, 3.0);
    while !under_way.is_empty() {
        go.notify_waiters();
        // Whoever has not begun to wait yet is told the next time.
        let _ = tokio::time::timeout(Duration::from_millis(5), under_way.join_next()).await;
    }
    while weir.metric(open).await != 0.0 {}
    weir.stop().await;
}

#[tokio::test]
async fn connections_to_the_provider_are_reused() {
    let fake = Fake::always(ok()).await;
    let weir = Weir::before_with(&fake.url(), "cache: { mode: off }").await;
    for _ in 0..10 {
        weir.post(CHAT, &[], ASK).await;
    }
    let connected = r#"weir_upstream_connect_duration_seconds_count{provider="openai"}"#;
    assert_eq!(weir.metric(connected).await, 1.0);
    assert_eq!(weir.metric(r#"weir_upstream_connections{provider="openai"}"#).await, 1.0);
    weir.stop().await;
}
