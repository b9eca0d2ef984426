//! Repeated calls are answered from memory: byte for byte, and never somebody else's answer.

use crate::support::fake::{Fake, Script, Step};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &[u8] = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const KEY: (&str, &str) = ("authorization", "Bearer a");

#[tokio::test]
async fn a_thousand_identical_calls_are_one_upstream_call() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    for number in 0..1000 {
        let answer = weir.post(CHAT, &[KEY], ASK).await;
        assert_eq!(answer.body, ANSWER);
        assert_eq!(answer.header("x-cache"), if number == 0 { "MISS" } else { "HIT" });
    }
    assert_eq!(fake.received().len(), 1);
    let hits = r#"weir_cache_requests_total{provider="openai",model="gpt-5-mini",result="hit"}"#;
    assert_eq!(weir.metric(hits).await, 999.0);
    let saved = r#"weir_tokens_saved_total{provider="openai",model="gpt-5-mini",source="cache"}"#;
    assert_eq!(weir.metric(saved).await, 999.0 * 15.0);
    assert_eq!(weir.metric_sum("weir_tokens_total{").await, 15.0, "a hit buys no tokens");
    weir.stop().await;
}

#[tokio::test]
async fn a_hit_says_so_and_how_old_it_is() {
    let fake = Fake::always(Script::whole(
        200,
        &[("content-type", "application/json"), ("set-cookie", "a=b"), ("x-request-id", "req_1")],
        ANSWER,
    ))
    .await;
    let weir = Weir::before(&fake.url()).await;
    let first = weir.post(CHAT, &[KEY], ASK).await;
    assert_eq!(first.header("cache-status"), "weir; fwd=uri-miss");
    assert_eq!(first.header("x-request-id"), "req_1");
    let second = weir.post(CHAT, &[KEY], ASK).await;
    assert!(second.header("age").parse::<u64>().unwrap() < 10);
    assert!(second.header("cache-status").starts_with("weir; hit; ttl="), "{:?}", second.headers);
    assert_eq!(second.header("content-type"), "application/json");
    assert!(second.headers.get("set-cookie").is_none() && second.headers.get("x-request-id").is_none());
    assert_ne!(second.header("x-weir-request-id"), first.header("x-weir-request-id"));
    weir.stop().await;
}

#[tokio::test]
async fn equal_json_is_one_question_however_it_is_written() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    weir.post(CHAT, &[KEY], ASK).await;
    let same = br#"{ "messages": [ {"content":"h\u0069", "role":"user"} ], "model":"gpt-5-mini", "user":"someone" }"#;
    assert_eq!(weir.post(CHAT, &[KEY], same).await.header("x-cache"), "HIT");
    weir.stop().await;
}

#[tokio::test]
async fn nobody_gets_an_answer_that_was_made_for_another() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    weir.post(CHAT, &[KEY], ASK).await;
    let strangers: [&[(&str, &str)]; 9] = [
        &[KEY, ("x-goog-api-key", "c")],
        &[KEY, ("cookie", "session=c")],
        &[("authorization", "Bearer b")],
        &[],
        &[KEY, ("x-api-key", "c")],
        &[KEY, ("x-cache-namespace", "team")],
        &[KEY, ("openai-organization", "other")],
        &[KEY, ("openai-project", "other")],
        &[KEY, ("accept-encoding", "gzip")],
    ];
    for headers in strangers {
        assert_eq!(weir.post(CHAT, headers, ASK).await.header("x-cache"), "MISS", "{headers:?}");
    }
    assert_eq!(weir.post("/openai/v1/chat/completions?x=1", &[KEY], ASK).await.header("x-cache"), "MISS");
    let other = String::from_utf8(ASK.to_vec()).unwrap().replace("hi", "Hi");
    assert_eq!(weir.post(CHAT, &[KEY], other.as_bytes()).await.header("x-cache"), "MISS");
    assert_eq!(fake.received().len(), 12);
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_is_replayed_byte_for_byte() {
    let pieces: [&[u8]; 3] = [
        b"data: {\"id\":\"c\",\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\n",
        b"data: {\"id\":\"c\",\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"},\"finish_reason\":\"stop\"}]}\n\n",
        b"data: {\"id\":\"c\",\"model\":\"gpt-5-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n",
    ];
    let fake = Fake::always(Script::sse(&pieces)).await;
    let weir = Weir::before(&fake.url()).await;
    let quiet = br#"{"model":"gpt-5-mini","stream":true,"messages":[]}"#;
    let asking = br#"{"model":"gpt-5-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    for (ask, shows_usage) in [(quiet.as_slice(), false), (asking.as_slice(), true)] {
        let first = weir.post(CHAT, &[KEY], ask).await;
        let second = weir.post(CHAT, &[KEY], ask).await;
        assert_eq!((first.header("x-cache"), second.header("x-cache")), ("MISS", "HIT"));
        assert_eq!(first.body, second.body);
        assert_eq!(second.header("content-type"), "text/event-stream");
        let text = String::from_utf8(second.body.to_vec()).unwrap();
        assert_eq!(text.contains("\"usage\""), shows_usage);
        assert!(text.ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(weir.metric_sum("weir_tokens_saved_total{").await, 30.0, "both hits know what they saved");
    weir.stop().await;
}

#[tokio::test]
async fn only_complete_successes_are_stored() {
    let cut = Script::begin_sse().pieces(&[b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\n"]);
    let scripts = [
        Script::json(429, br#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#),
        Script::json(500, br#"{"error":{"message":"oops"}}"#),
        Script::json(200, br#"{"error":{"message":"in a 200"}}"#),
        Script::json(200, &ANSWER[..100]),
        Script::json(200, &String::from_utf8(ANSWER.to_vec()).unwrap().replace("stop", "content_filter").into_bytes()),
        cut.clone().end(),
        cut.then(Step::Reset),
    ];
    for script in scripts {
        let fake = Fake::always(script.clone()).await;
        let weir = Weir::before(&fake.url()).await;
        for _ in 0..2 {
            let answer = weir.client.open(http::Method::POST, &weir.url(CHAT), &[KEY], ASK).await;
            assert_eq!(answer.headers()["x-cache"], "MISS", "{script:?}");
            crate::support::client::collect_broken(answer).await;
        }
        assert_eq!(fake.received().len(), 2, "{script:?}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn the_request_may_decline() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    let no_store = [KEY, ("cache-control", "no-store")];
    let no_cache = [KEY, ("cache-control", "no-cache")];
    let answer = weir.post(CHAT, &no_store, ASK).await;
    assert_eq!(
        (answer.header("x-cache"), answer.header("cache-status")),
        ("BYPASS", "weir; fwd=bypass; detail=request")
    );
    assert_eq!(weir.post(CHAT, &[KEY], ASK).await.header("x-cache"), "MISS", "no-store left nothing behind");
    assert_eq!(weir.post(CHAT, &no_cache, ASK).await.header("x-cache"), "BYPASS", "no-cache wants a new answer");
    assert_eq!(weir.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT");
    assert_eq!(fake.received().len(), 3);
    weir.stop().await;
}

#[tokio::test]
async fn what_has_side_effects_or_state_is_never_cached() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    let calls: [(&str, &[u8]); 8] = [
        (CHAT, br#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://camera/latest.jpg"}}]}]}"#),
        (CHAT, br#"{"model":"m","messages":[],"store":true}"#),
        (CHAT, br#"{"model":"m","messages":[],"web_search_options":{}}"#),
        ("/openai/v1/responses", br#"{"model":"m","input":"hi"}"#),
        ("/openai/v1/responses", br#"{"model":"m","input":"hi","store":false,"previous_response_id":"r"}"#),
        ("/openai/v1/responses", br#"{"model":"m","input":"hi","store":false,"tools":[{"type":"web_search"}]}"#),
        ("/anthropic/v1/messages", br#"{"model":"m","messages":[],"tools":[{"type":"web_search_20250305"}]}"#),
        ("/openai/v1/images/generations", br#"{"model":"m","prompt":"hi"}"#),
    ];
    for (path, body) in calls {
        for _ in 0..2 {
            assert_eq!(weir.post(path, &[KEY], body).await.header("x-cache"), "BYPASS", "{path}");
        }
    }
    assert_eq!(fake.received().len(), 2 * calls.len());
    weir.stop().await;
}

#[tokio::test]
async fn the_cache_can_be_off_and_too_large_is_not_stored() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    for (yaml, said) in [("cache: { mode: off }", "BYPASS"), ("cache: { max_entry_bytes: 100 }", "MISS")] {
        let weir = Weir::before_with(&fake.url(), yaml).await;
        for _ in 0..2 {
            assert_eq!(weir.post(CHAT, &[KEY], ASK).await.header("x-cache"), said);
        }
        weir.stop().await;
    }
}
