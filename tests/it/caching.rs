//! Repeated calls are answered from memory: byte for byte, and never somebody else's answer.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::client::Answer;

use crate::support::fake::{Fake, Script, Step};
use crate::support::until;
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
    assert_eq!(first.header("cache-status"), "weir; fwd=miss; fwd-status=200");
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
async fn what_is_no_json_has_no_key_and_odd_numbers_count_as_they_are_spelt() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    let deep = format!(r#"{{"model":"m","a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let bodies: [&[u8]; 8] = [
        br#"{"model":"m"} x"#,
        br#"{"model":"m"}{}"#,
        br#"{"model":"\ud800"}"#,
        b"{\"model\":\"\xff\"}",
        b"{\"model\":\"\0\"}",
        b"\xef\xbb\xbf{\"model\":\"m\"}",
        br#"{"model":"m","seed":1e400}"#,
        deep.as_bytes(),
    ];
    for body in bodies {
        for _ in 0..2 {
            assert_eq!(weir.post(CHAT, &[KEY], body).await.header("x-cache"), "BYPASS", "{}", body.escape_ascii());
        }
    }
    let numbers = ["18446744073709551616", "18446744073709551617", "1e-400", "0", "0.1", "0.10000000000000000001"];
    for said in ["MISS", "HIT"] {
        for number in numbers {
            let body = format!(r#"{{"model":"m","messages":[],"seed":{number}}}"#);
            assert_eq!(weir.post(CHAT, &[KEY], body.as_bytes()).await.header("x-cache"), said, "{number}");
        }
    }
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
        ("BYPASS", "weir; fwd=request; fwd-status=200")
    );
    assert_eq!(weir.post(CHAT, &[KEY], ASK).await.header("x-cache"), "MISS", "no-store left nothing behind");
    assert_eq!(weir.post(CHAT, &no_cache, ASK).await.header("x-cache"), "BYPASS", "no-cache wants a new answer");
    assert_eq!(weir.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT");
    assert_eq!(fake.received().len(), 3);
    weir.stop().await;
}

/// What `Cache-Status` says, in minutes begun: the seconds are those of a busy machine.
fn status_of(answer: &Answer) -> String {
    let text = answer.header("cache-status");
    match text.strip_prefix("weir; hit; ttl=").map(|ttl| ttl.parse::<i64>().unwrap()) {
        Some(..0) => "weir; hit, stale".to_owned(),
        Some(ttl) => format!("weir; hit, fresh for {} minutes", ttl / 60 + 1),
        None => text.to_owned(),
    }
}

#[tokio::test]
async fn a_request_says_which_stored_answers_will_do() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before_with(&fake.url(), "cache: { stale_while_revalidate: 1h }").await;
    // Stale as soon as it is there, and within the window for an hour.
    weir.post(CHAT, &[KEY, ("x-cache-ttl", "1ns")], ASK).await;
    for (rule, cache_control, said) in [
        ("as stale as can be", "max-stale, only-if-cached", "HIT"),
        ("as stale as it is", "max-stale=60, only-if-cached", "HIT"),
        ("max-age wants no stale answer", "max-age=60", "MISS"),
    ] {
        let answer = weir.post(CHAT, &[KEY, ("cache-control", cache_control)], ASK).await;
        assert_eq!(answer.header("x-cache"), said, "{rule}");
        if said == "HIT" {
            assert_eq!(status_of(&answer), "weir; hit, stale", "{rule}");
        }
    }
    // The last one was stored, for an hour.
    for (rule, cache_control, said, detailed) in [
        ("not so old", "max-age=60", "HIT", "weir; hit, fresh for 60 minutes"),
        ("older than that", "max-age=0", "BYPASS", "weir; fwd=request; fwd-status=200"),
        ("fresh for long enough", "min-fresh=600", "HIT", "weir; hit, fresh for 60 minutes"),
        ("fresh, but not for long enough", "min-fresh=7200", "BYPASS", "weir; fwd=request; fwd-status=200"),
        ("whatever it is", "no-cache, max-age=60", "BYPASS", "weir; fwd=request; fwd-status=200"),
    ] {
        let answer = weir.post(CHAT, &[KEY, ("cache-control", cache_control)], ASK).await;
        assert_eq!((answer.header("x-cache"), status_of(&answer).as_str()), (said, detailed), "{rule}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn who_wants_a_stored_answer_only_costs_nothing() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    let only = [KEY, ("cache-control", "only-if-cached")];
    let calls: [(&str, &[u8]); 5] = [
        (CHAT, ASK),
        ("/anthropic/v1/messages", br#"{"model":"m","messages":[]}"#),
        ("/openai/v1/images/generations", br#"{"model":"m","prompt":"hi"}"#),
        ("/openai/v1/files", b"not read at all"),
        (CHAT, b"no JSON"),
    ];
    for (path, body) in calls {
        let answer = weir.post(path, &only, body).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-status")), (504, "weir; detail=\"not_stored\""));
        assert_eq!(answer.header("x-should-retry"), "false");
        let error = &answer.json()["error"];
        let expected = if path.starts_with("/anthropic") { "timeout_error" } else { "server_error" };
        assert_eq!(error["type"], expected, "{error}");
        assert!(error["message"].as_str().unwrap().contains("only-if-cached"), "{error}");
    }
    assert_eq!(fake.received().len(), 0);
    assert_eq!(weir.metric_sum("weir_cost_usd_total{").await, 0.0);
    assert_eq!(weir.metric_sum("weir_unpriced_requests_total{").await, 0.0);
    weir.post(CHAT, &[KEY], ASK).await;
    assert_eq!(weir.post(CHAT, &only, ASK).await.header("x-cache"), "HIT");
    weir.stop().await;
}

#[tokio::test]
async fn a_request_says_how_long_its_answer_may_serve() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    let ask = async |ttl| {
        let answer = weir.post(CHAT, &[KEY, ("x-cache-ttl", ttl)], ASK).await;
        (answer.header("x-cache").to_owned(), status_of(&answer))
    };
    let unreadable = "weir; fwd=bypass; fwd-status=200; detail=unreadable-x-cache-ttl";
    let missed = "weir; fwd=miss; fwd-status=200";
    for (rule, ttl, said, detailed) in [
        ("what cannot be read is not cached", "soon", "BYPASS", unreadable),
        ("zero is not stored", "0", "MISS", missed),
        ("nothing was", "5m", "MISS", missed),
        ("stored for five minutes", "0", "HIT", "weir; hit, fresh for 5 minutes"),
        ("what cannot be read has no use of it", "-1", "BYPASS", unreadable),
    ] {
        assert_eq!(ask(ttl).await, (said.to_owned(), detailed.to_owned()), "{rule}: {ttl}");
    }
    for request in fake.received() {
        assert_eq!(request.header("x-cache-ttl"), None, "it is for weir");
    }
    weir.stop().await;
}

#[tokio::test]
async fn cache_control_goes_on_to_the_provider() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before(&fake.url()).await;
    weir.post(CHAT, &[KEY, ("cache-control", "no-cache, max-age=5")], ASK).await;
    assert_eq!(fake.received()[0].header("cache-control"), Some("no-cache, max-age=5"));
    weir.stop().await;
}

#[tokio::test]
async fn a_mode_says_what_is_cached() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let zero = br#"{"model":"gpt-4o","temperature":0,"messages":[]}"#.as_slice();
    let seeded = br#"{"model":"gpt-4o","temperature":1,"seed":7,"messages":[]}"#;
    let (ttl, max_age) = (("x-cache-ttl", "5m"), ("cache-control", "max-age=60"));
    for (yaml, headers, body, detail) in [
        ("cache: { mode: all }", &[KEY][..], ASK, ""),
        ("cache: { mode: deterministic }", &[KEY], ASK, "sampled"),
        ("cache: { mode: deterministic }", &[KEY, ttl], ASK, "sampled"),
        ("cache: { mode: deterministic }", &[KEY], zero, ""),
        ("cache: { mode: deterministic }", &[KEY], seeded, ""),
        ("cache: { mode: opt_in }", &[KEY], zero, "not-asked-for"),
        ("cache: { mode: opt_in }", &[KEY, ttl], ASK, ""),
        ("cache: { mode: opt_in }", &[KEY, max_age], ASK, ""),
        ("cache: { mode: off }", &[KEY, ttl], zero, "off"),
    ] {
        let weir = Weir::before_with(&fake.url(), yaml).await;
        weir.post(CHAT, headers, body).await;
        let second = weir.post(CHAT, headers, body).await;
        let said = if detail.is_empty() { "HIT" } else { "BYPASS" };
        assert_eq!(second.header("x-cache"), said, "{yaml} {headers:?}");
        assert!(second.header("cache-status").ends_with(detail), "{yaml}: {:?}", second.headers);
        weir.stop().await;
    }
}

#[tokio::test]
async fn rules_hold_for_those_they_name() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let yaml = r#"
cache:
  mode: off
  rules:
    - { provider: openai, model: "gpt-5*", namespace: "batch-*", ttl: 10m, mode: all }
    - { provider: openai, model: "gpt-5*", ttl: 5m, mode: all }
    - { provider: local, mode: deterministic }
"#;
    let weir = Weir::before_with(&fake.url(), yaml).await;
    let (five, four) = (ASK, br#"{"model":"gpt-4o","messages":[]}"#.as_slice());
    let zero = br#"{"model":"gpt-4o","temperature":0,"messages":[]}"#;
    for (path, namespace, body, expected) in [
        ("/openai/v1/chat/completions", "batch-1", five, "weir; hit, fresh for 10 minutes"),
        ("/openai/v1/chat/completions", "live", five, "weir; hit, fresh for 5 minutes"),
        ("/openai/v1/chat/completions", "batch-1", four, "weir; fwd=bypass; fwd-status=200; detail=off"),
        ("/groq/v1/chat/completions", "batch-1", five, "weir; fwd=bypass; fwd-status=200; detail=off"),
        ("/local/v1/chat/completions", "live", four, "weir; fwd=bypass; fwd-status=200; detail=sampled"),
        ("/local/v1/chat/completions", "live", zero, "weir; hit, fresh for 60 minutes"),
    ] {
        let headers = [KEY, ("x-cache-namespace", namespace)];
        weir.post(path, &headers, body).await;
        let second = weir.post(path, &headers, body).await;
        assert_eq!(status_of(&second), expected, "{path} {namespace}");
    }
    weir.stop().await;
}

/// A provider whose first answer comes at once, and each later one by the script `later`.
async fn later(later: Script) -> Fake {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Fake::start(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Script::json(200, ANSWER),
        _ => later.clone(),
    })
    .await
}

const REVALIDATE: &str = "cache: { stale_while_revalidate: 1h }";
/// Stale as soon as it is there.
const SHORT: (&str, &str) = ("x-cache-ttl", "1ns");

#[tokio::test]
async fn a_stale_answer_serves_at_once_while_one_call_fetches_a_newer_one() {
    let go_on = Arc::new(Notify::new());
    let newer = String::from_utf8(ANSWER.to_vec()).unwrap().replace("hello", "newer");
    let pieces = [newer.as_bytes()];
    let answer = Script::begin(&[("content-type", "application/json")]).then(Step::Wait(Arc::clone(&go_on)));
    let fake = later(answer.pieces(&pieces).end()).await;
    let weir = Weir::before_with(&fake.url(), REVALIDATE).await;
    weir.post(CHAT, &[KEY, SHORT], ASK).await;
    for _ in 0..100 {
        let stale = weir.post(CHAT, &[KEY], ASK).await;
        assert_eq!((stale.header("x-cache"), &*stale.body), ("HIT", ANSWER));
        assert_eq!(status_of(&stale), "weir; hit, stale");
    }
    until("the provider is asked again", || fake.received().len() == 2).await;
    assert_eq!(fake.received()[1].body, ASK);
    go_on.notify_one();
    weir.settled().await;
    let fresh = weir.post(CHAT, &[KEY], ASK).await;
    assert_eq!((status_of(&fresh).as_str(), &*fresh.body), ("weir; hit, fresh for 60 minutes", newer.as_bytes()));
    assert_eq!(fake.received().len(), 2, "one call for a hundred stale answers");

    let result =
        |result| format!("weir_cache_requests_total{{provider=\"openai\",model=\"gpt-5-mini\",result=\"{result}\"}}");
    for (name, expected) in [("hit", 101.0), ("miss", 1.0), ("expired", 0.0), ("bypass", 1.0)] {
        assert_eq!(weir.metric(&result(name)).await, expected, "{name}");
    }
    assert_eq!(weir.metric_sum("weir_requests_total{").await, 102.0, "an app asked so often");
    assert_eq!(weir.metric_sum("weir_tokens_total{").await, 30.0, "and two calls were paid");
    weir.stop().await;
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_stale_answer() {
    let broken = Script::begin(&[("content-type", "application/json")]).pieces(&[&ANSWER[..50]]).then(Step::Reset);
    for failure in [Script::json(500, br#"{"error":{"message":"oops"}}"#), Script::only(vec![Step::Reset]), broken] {
        let fake = later(failure).await;
        let weir = Weir::before_with(&fake.url(), REVALIDATE).await;
        weir.post(CHAT, &[KEY, SHORT], ASK).await;
        for tries in 1..=3 {
            let stale = weir.post(CHAT, &[KEY], ASK).await;
            assert_eq!((stale.header("x-cache"), &*stale.body), ("HIT", ANSWER));
            until("the provider is asked again", || fake.received().len() == 1 + tries).await;
            weir.settled().await;
        }
        assert_eq!(weir.metric_sum("weir_requests_total{").await, 4.0);
        let well = r#"weir_requests_total{provider="openai",model="gpt-5-mini",operation="chat",outcome="success"}"#;
        assert_eq!(weir.metric(well).await, 4.0, "no app has seen a failure");
        weir.stop().await;
    }
}

#[tokio::test]
async fn who_wants_a_stored_answer_only_has_nobody_asked() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let weir = Weir::before_with(&fake.url(), REVALIDATE).await;
    weir.post(CHAT, &[KEY, SHORT], ASK).await;
    let only = weir.post(CHAT, &[KEY, ("cache-control", "only-if-cached")], ASK).await;
    assert_eq!(only.header("x-cache"), "HIT");
    weir.settled().await;
    assert_eq!(fake.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn refreshes_are_bounded_and_end_with_the_house() {
    let fake = later(Script::only(vec![Step::Hang])).await;
    let yaml = "cache: { stale_while_revalidate: 1h, max_refreshes: 1 }\nconnections: { drain_timeout: 50ms }";
    let mut weir = Weir::before_with(&fake.url(), yaml).await;
    weir.post(CHAT, &[KEY, SHORT], ASK).await;
    weir.post(CHAT, &[KEY], ASK).await;
    until("the provider is asked again", || fake.received().len() == 2).await;
    assert_eq!(weir.open_exchanges(), 1);
    weir.end().await;
    until("the call has ended with the house", || fake.hung_up() == 1).await;
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

/// Time goes by while nothing happens.
async fn let_pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_stream_is_replayed_in_its_own_time_where_the_operator_wants_it_so() {
    const GAP: Duration = Duration::from_millis(200);
    let pieces: [&[u8]; 3] = [
        b"data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\nda",
        b"ta: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"},\"finish_reason\":\"stop\"}]}\n\n",
        b"data: [DONE]\n\n",
    ];
    for (replay, takes_time) in [("recorded", true), ("instant", false)] {
        let go_on = Arc::new(Notify::new());
        let waiting = pieces
            .iter()
            .fold(Script::begin_sse(), |script, piece| script.then(Step::Wait(Arc::clone(&go_on))).pieces(&[piece]));
        let fake = Fake::always(waiting.end()).await;
        let weir = Weir::before_with(&fake.url(), &format!("cache: {{ replay: {replay} }}")).await;
        let ask = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
        let url = weir.url("/local/v1/chat/completions");
        let open = || weir.client.open(http::Method::POST, &url, &[KEY], ask);
        let mut body = open().await.into_body();
        for piece in pieces {
            let_pass(GAP).await;
            go_on.notify_one();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        }
        assert!(body.frame().await.is_none());

        let begun = Instant::now();
        let again = open().await;
        assert_eq!(again.headers()["x-cache"], "HIT");
        let (mut body, mut came) = (again.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            came.extend_from_slice(&frame.unwrap().into_data().unwrap());
            let whole = (1..=3).filter(|count| came.len() >= pieces[..*count].concat().len()).count();
            let least = if takes_time { GAP * u32::try_from(whole).unwrap() } else { Duration::ZERO };
            assert!(begun.elapsed() >= least, "{whole} pieces after {:?}", begun.elapsed());
        }
        assert_eq!(came, pieces.concat());

        drop(open().await);
        weir.settled().await;
        let metrics = weir.metrics().await;
        let is_cancelled =
            |line: &str| line.starts_with("weir_requests_total") && line.contains("cancelled") && line.ends_with(" 1");
        assert_eq!(metrics.lines().any(is_cancelled), takes_time, "who hangs up has not had all of it");
        weir.stop().await;
    }
}
