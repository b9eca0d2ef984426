//! Limits hold however many calls come at once; what is admitted is reserved before it goes and settled when it is over.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use weir::limits::standing::BudgetNow;
use weir::units::PicoUsd;

use crate::support::client::Client;
use crate::support::fake::{Fake, Script, Step};
use crate::support::weir::Weir;

pub(crate) const CHAT: &str = "/openai/v1/chat/completions";
/// What a call of these tests costs: gpt-5-mini is listed at 0.25 dollars for a million tokens in, 2 dollars for out.
const CENTS_PER_CALL: u128 = 20;

/// A chat that says the model generated 100,000 tokens: 20 cents.
pub(crate) fn answer() -> Vec<u8> {
    json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 0, "completion_tokens": 100_000, "total_tokens": 100_000},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]})
    .to_string()
    .into_bytes()
}

/// A stream that says the same.
fn stream() -> Script {
    let chunk = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-5-mini\",{rest}}}\n\n"
        )
    };
    let pieces = [
        chunk(r#""choices":[{"index":0,"delta":{"content":"yes"}}]"#),
        chunk(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#),
        chunk(r#""choices":[],"usage":{"prompt_tokens":0,"completion_tokens":100000,"total_tokens":100000}"#),
        "data: [DONE]\n\n".to_owned(),
    ];
    let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    Script::sse(&pieces)
}

/// A request that lets 100,000 tokens be generated; `number` makes it unlike any other.
pub(crate) fn ask(number: usize, streamed: bool) -> Vec<u8> {
    json!({"model": "gpt-5-mini", "max_tokens": 100_000, "stream": streamed,
        "messages": [{"role": "user", "content": format!("q{number}")}]})
    .to_string()
    .into_bytes()
}

/// The only budget there is.
fn budget(weir: &Weir) -> BudgetNow {
    weir.limits().budgets_now().into_iter().next().expect("there is one budget")
}

fn cents(amount: PicoUsd) -> u128 {
    amount.pico() / (PicoUsd::PER_USD / 100)
}

/// Sends `calls` calls at once, none of which is answered before all that may go have gone; how many were refused.
async fn storm(weir: &Weir, calls: usize, go: &Arc<Notify>, admitted: usize) -> usize {
    let mut under_way = JoinSet::new();
    for number in 0..calls {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        under_way.spawn(async move { client.post(&url, &[], &ask(number, number % 2 == 0)).await });
    }
    let mut refused = 0;
    while refused < calls - admitted {
        let answer = under_way.join_next().await.expect("refusals come at once").expect("no call panics");
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
        refused += 1;
    }
    while !under_way.is_empty() {
        go.notify_waiters();
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(5), under_way.join_next()).await {
            let answer = answer.expect("one is under way").expect("no call panics");
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        }
    }
    refused
}

#[tokio::test]
async fn of_500_calls_at_once_as_many_go_as_there_is_money_for() {
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    let fake = Fake::start(move |request| {
        let is_stream = String::from_utf8_lossy(&request.body).contains("\"stream\":true");
        let script = if is_stream { stream() } else { Script::json(200, &answer()) };
        script.after(Step::Wait(Arc::clone(&held)))
    })
    .await;
    // Room for ten.
    let weir = Weir::before_with(
        &fake.url(),
        "cache: { mode: off }\nbudgets: [{ name: app, limit_usd: 2, window: total, enforce: block }]",
    )
    .await;
    assert_eq!(storm(&weir, 500, &go, 10).await, 490);
    weir.settled().await;
    assert_eq!(fake.received().len(), 10);
    let BudgetNow { foremost, blocked, .. } = budget(&weir);
    assert_eq!((cents(foremost.spent.usd), foremost.reserved.usd, blocked), (10 * CENTS_PER_CALL, PicoUsd::ZERO, 490));
    let text = weir.metrics().await;
    let outcomes = |outcome: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with("weir_requests_total{") && line.contains(outcome));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert_eq!((outcomes("\"success\""), outcomes("\"budget_blocked\"")), (10.0, 490.0));
    weir.stop().await;
}

#[tokio::test]
async fn a_call_that_came_to_nothing_leaves_nothing_reserved() {
    let fake = Fake::start(|request| match String::from_utf8_lossy(&request.body) {
        body if body.contains("q0") => Script::json(400, b"{\"error\":{\"message\":\"no\"}}"),
        body if body.contains("q1") => Script::only(vec![Step::Reset]),
        _ => Script::only(vec![Step::Hang]),
    })
    .await;
    let weir = Weir::before_with(
        &fake.url(),
        "cache: { mode: off }\nbudgets: [{ name: app, limit_usd: 2, window: total, enforce: block }]",
    )
    .await;
    assert_eq!(weir.post(CHAT, &[], &ask(0, false)).await.status, StatusCode::BAD_REQUEST);
    weir.settled().await;
    assert_eq!(budget(&weir).foremost.spent.usd, PicoUsd::ZERO, "a refused call costs nothing");
    assert_eq!(weir.post(CHAT, &[], &ask(1, false)).await.status, StatusCode::BAD_GATEWAY);
    weir.settled().await;
    let after_reset = budget(&weir).foremost;
    assert_eq!(
        cents(after_reset.spent.usd),
        CENTS_PER_CALL,
        "nobody can tell what it cost: what was reserved is spent"
    );
    let client = Client::default();
    let (url, body) = (weir.url(CHAT), ask(2, true));
    let call = tokio::spawn(async move { client.post(&url, &[], &body).await });
    crate::support::until("the call is under way", || budget(&weir).foremost.reserved.usd > PicoUsd::ZERO).await;
    call.abort();
    weir.settled().await;
    assert_eq!(budget(&weir).foremost.reserved.usd, PicoUsd::ZERO, "nothing stays reserved for ever");
    weir.stop().await;
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let weir = Weir::before_with(
        &fake.url(),
        "cache: { mode: off }\nlimits: [{ name: users, per: user, requests_per_minute: 2 }]",
    )
    .await;
    let post = |user: &'static str, number| {
        let weir = &weir;
        async move { weir.post(CHAT, &[("x-user-id", user)], &ask(number, false)).await }
    };
    for number in 0..2 {
        assert_eq!(post("ann", number).await.status, StatusCode::OK);
    }
    let refused = post("ann", 2).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(["29", "30"].contains(&refused.header("retry-after")), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy"), "\"users\";q=2;w=60");
    assert!(refused.header("ratelimit").starts_with("\"users\";r=0;t="), "{refused:?}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0", "in the words of the API");
    assert!(!refused.headers.contains_key("x-should-retry"), "30 seconds are worth waiting for");
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "rate_limit_exceeded", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("weir's limit `users` lets 2 requests pass in 1m: try again in "), "{message}");
    assert_eq!(post("bob", 3).await.status, StatusCode::OK, "each user has the whole limit");
    weir.stop().await;
}

#[tokio::test]
async fn a_refusal_is_in_the_words_of_the_api() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let url = fake.url();
    let weir = Weir::start(&format!(
        "providers: {{ openai: {{ base_url: '{url}' }}, anthropic: {{ base_url: '{url}' }}, gemini: {{ base_url: '{url}' }}, \
         bedrock: {{ base_url: '{url}' }} }}\nlimits: [{{ name: no, per: provider, tokens_per_day: 1 }}]",
    ))
    .await;
    let paths = [
        ("openai", CHAT, "x-ratelimit-reset-tokens"),
        ("anthropic", "/anthropic/v1/messages", "anthropic-ratelimit-tokens-reset"),
        ("gemini", "/gemini/v1beta/models/a:generateContent", ""),
        ("bedrock", "/bedrock/model/a/converse", ""),
    ];
    let body = br#"{"model":"a","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    for (name, path, own) in paths {
        weir.post(path, &[], body).await;
        let refused = weir.post(path, &[], body).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{name}: {refused:?}");
        assert!(own.is_empty() || refused.headers.contains_key(own), "{name}: {refused:?}");
        assert!(refused.header("ratelimit-policy").starts_with("\"no\";q=1;qu=\"tokens\";w=86400"), "{refused:?}");
        assert_eq!(refused.header("x-should-retry"), "false", "{name}: a day is not worth waiting for");
        let error = refused.json();
        let kind = match name {
            "openai" | "anthropic" => &error["error"]["type"],
            "gemini" => &error["error"]["status"],
            _ => &error["message"],
        };
        let expected = ["rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"];
        let says = kind.as_str().expect("a text");
        assert!(expected.contains(&says) || refused.header("x-amzn-errortype") == "ThrottlingException", "{refused:?}");
        if name == "gemini" {
            assert!(error["error"]["details"][1]["retryDelay"].as_str().expect("a text").ends_with('s'), "{error}");
        }
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_spent_budget_is_an_exhausted_quota() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let budget = "budgets: [{ name: app, limit_usd: 1, unpriced_usd: 1, window: total, enforce: block }]";
    let weir = Weir::before_with(&fake.url(), budget).await;
    weir.post("/openai/v1/videos", &[], b"{}").await;
    let refused = weir.post("/openai/v1/videos", &[], b"{}").await;
    let error = &refused.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("insufficient_quota"), &json!("insufficient_quota")));
    assert_eq!(refused.header("x-should-retry"), "false");
    assert!(!refused.headers.contains_key("retry-after"), "there is no new window: {refused:?}");
    weir.stop().await;
}

#[tokio::test]
async fn what_weir_does_not_read_is_limited_as_well() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before_with(
        &fake.url(),
        "limits: [{ name: all, requests_per_hour: 2 }]\nbudgets: [{ name: b, limit_usd: 1, unpriced_usd: 0.4, window: day, enforce: block }]",
    )
    .await;
    for path in ["/openai/v1/videos", "/openai/v1/videos"] {
        assert_eq!(weir.post(path, &[], b"{}").await.status, StatusCode::OK);
    }
    weir.settled().await;
    assert_eq!(budget(&weir).foremost.spent.usd, PicoUsd::of_usd("0.8").unwrap(), "a price nobody knows is not zero");
    let refused = weir.post("/openai/v1/uploads", &[], &vec![b'x'; 1 << 20]).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let session = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "x"),
    ];
    let url = weir.url("/openai/v1/realtime?model=gpt-realtime");
    let refused = weir.client.open(Method::GET, &url, &session, b"").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    weir.stop().await;
    let spent = "budgets: [{ name: b, limit_usd: 0, enforce: block }]";
    let weir = Weir::before_with(&fake.url(), spent).await;
    let refused = weir.client.open(Method::GET, &weir.url("/openai/v1/realtime"), &session, b"").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "a session costs money, too");
    assert_eq!(weir.client.get(&weir.url("/openai/v1/models")).await.status, StatusCode::OK, "a list costs nothing");
    weir.stop().await;
}

#[tokio::test]
async fn what_the_cache_answers_takes_a_limit_only_where_hits_count() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    for (count_hits, hits) in [("false", 5), ("true", 1)] {
        let limits = format!("limits: [{{ name: all, requests_per_hour: 2, count_hits: {count_hits} }}]");
        let weir = Weir::before_with(&fake.url(), &limits).await;
        assert_eq!(weir.post(CHAT, &[], &ask(0, false)).await.header("x-cache"), "MISS");
        for number in 1..=5 {
            let answer = weir.post(CHAT, &[], &ask(0, false)).await;
            assert_eq!(answer.status.is_success(), number <= hits, "{count_hits}, {number}: {answer:?}");
        }
        weir.stop().await;
    }
}

#[tokio::test]
async fn a_call_waits_for_its_turn_where_the_limit_lets_it() {
    let go = Arc::new(Notify::new());
    let fake = Fake::always(Script::json(200, &answer()).after(Step::Wait(Arc::clone(&go)))).await;
    let weir = Weir::before_with(
        &fake.url(),
        "cache: { mode: off }\nlimits: [{ name: one, concurrent_calls: 1, wait: 20s }, { name: two, requests_per_second: 50, wait: 20s }]",
    )
    .await;
    let mut under_way = JoinSet::new();
    for number in 0..8 {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        under_way.spawn(async move { client.post(&url, &[], &ask(number, false)).await.status });
    }
    for answered in 1..=8 {
        crate::support::until("one call is upstream", || fake.received().len() == answered).await;
        assert_eq!(weir.open_exchanges(), 9 - answered as u64, "the others wait");
        while tokio::time::timeout(Duration::from_millis(5), under_way.join_next()).await.is_err() {
            go.notify_waiters();
        }
    }
    weir.stop().await;
}

/// A budget that has a smaller model asked once it is spent: by the first call.
const DOWNGRADE: &str =
    "budgets: [{ name: app, limit_usd: 0.2, window: total, enforce: downgrade, downgrade_to: gpt-5-nano }]";

#[tokio::test]
async fn once_a_budget_is_spent_a_cheaper_model_is_asked() {
    let fake = Fake::start(|request| {
        let is_small = String::from_utf8_lossy(&request.body).contains("gpt-5-nano");
        let answer = String::from_utf8(answer()).expect("text");
        let answer = if is_small { answer.replace("gpt-5-mini", "gpt-5-nano") } else { answer };
        Script::json(200, answer.as_bytes())
    })
    .await;
    let weir = Weir::before_with(&fake.url(), DOWNGRADE).await;
    let first = weir.post(CHAT, &[], &ask(0, false)).await;
    assert!(!first.headers.contains_key("x-weir-downgraded"), "{first:?}");
    weir.settled().await;

    let second = weir.post(CHAT, &[], &ask(1, false)).await;
    assert_eq!((second.status, second.header("x-cache")), (StatusCode::OK, "MISS"));
    assert_eq!(second.header("x-weir-downgraded"), "gpt-5-mini; budget=\"app\"");
    let asked = |at: usize| String::from_utf8(fake.received()[at].body.clone()).expect("text");
    assert_eq!(asked(1), String::from_utf8(ask(1, false)).unwrap().replace("gpt-5-mini", "gpt-5-nano"), "nothing else");
    assert_eq!(fake.received()[1].header("content-length").unwrap(), asked(1).len().to_string());
    weir.settled().await;
    let requests = r#"weir_requests_total{provider="openai",model="gpt-5-nano","#;
    assert!(weir.metric_sum(requests).await > 0.0, "{}", weir.metrics().await);

    let repeated = weir.post(CHAT, &[], &ask(1, false)).await;
    assert_eq!(repeated.header("x-cache"), "HIT", "it is an equal call, to that model");
    assert_eq!(repeated.header("x-weir-downgraded"), "gpt-5-mini; budget=\"app\"");
    let small = String::from_utf8(ask(1, false)).unwrap().replace("gpt-5-mini", "gpt-5-nano");
    let of_small = weir.post(CHAT, &[], small.as_bytes()).await;
    assert_eq!(of_small.header("x-cache"), "HIT", "who asks the model itself asks the same");
    assert!(!of_small.headers.contains_key("x-weir-downgraded"), "{of_small:?}");
    let before = weir.post(CHAT, &[], &ask(0, false)).await;
    assert_eq!(before.header("x-cache"), "HIT", "what is stored costs nothing");
    assert!(!before.headers.contains_key("x-weir-downgraded"), "{before:?}");
    assert_eq!(fake.received().len(), 2);
    weir.settled().await;
    let BudgetNow { blocked, downgraded, stopped, .. } = budget(&weir);
    assert_eq!((blocked, downgraded, stopped), (0, 2, 0), "one that asked, and one that was there already");
    assert_eq!(weir.metric(r#"weir_budget_downgraded_requests_total{budget="app"}"#).await, 2.0);
    weir.stop().await;
}

#[tokio::test]
async fn equal_calls_that_are_downgraded_are_still_one() {
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    let fake = Fake::start(move |request| {
        let script = Script::json(200, &answer());
        let is_small = String::from_utf8_lossy(&request.body).contains("gpt-5-nano");
        if is_small { script.after(Step::Wait(Arc::clone(&held))) } else { script }
    })
    .await;
    let weir = Weir::before_with(&fake.url(), DOWNGRADE).await;
    weir.post(CHAT, &[], &ask(0, false)).await;
    weir.settled().await;
    let mut under_way = JoinSet::new();
    for _ in 0..5 {
        let (client, url) = (weir.client.clone(), weir.url(CHAT));
        under_way.spawn(async move { client.post(&url, &[], &ask(1, false)).await });
    }
    weir.in_flight(5).await;
    while !under_way.is_empty() {
        go.notify_waiters();
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(5), under_way.join_next()).await {
            let answer = answer.expect("one is under way").expect("no call panics");
            assert_eq!(answer.header("x-weir-downgraded"), "gpt-5-mini; budget=\"app\"");
        }
    }
    assert_eq!(fake.received().len(), 2);
    weir.stop().await;
}

#[tokio::test]
async fn what_cannot_be_asked_of_another_model_is_refused() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let weir = Weir::before_with(&fake.url(), DOWNGRADE).await;
    weir.post(CHAT, &[], &ask(0, false)).await;
    weir.settled().await;
    for (rule, path, headers, body) in [
        (
            "a vector of another model",
            "/openai/v1/embeddings",
            &[][..],
            r#"{"model":"text-embedding-3-small","input":"a"}"#,
        ),
        ("no JSON", CHAT, &[], "model"),
        (
            "signed by the app",
            CHAT,
            &[("authorization", "AWS4-HMAC-SHA256 Credential=a/b")],
            r#"{"model":"gpt-5-mini"}"#,
        ),
    ] {
        let refused = weir.post(path, headers, body.as_bytes()).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{rule}: {refused:?}");
        assert_eq!(refused.json()["error"]["code"], "insufficient_quota", "{rule}");
        assert!(!refused.headers.contains_key("x-weir-downgraded"), "{rule}");
    }
    weir.settled().await;
    assert_eq!((fake.received().len(), budget(&weir).blocked), (1, 3));
    weir.stop().await;
}

#[tokio::test]
async fn a_downgraded_call_is_held_to_the_rules_for_its_model() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let small = "{ name: small, match: { model: gpt-5-nano }, limit_usd: 0.01, window: total, enforce: block }]";
    let weir = Weir::before_with(&fake.url(), &DOWNGRADE.replace(']', &format!(", {small}"))).await;
    for number in 0..2 {
        assert_eq!(weir.post(CHAT, &[], &ask(number, false)).await.status, StatusCode::OK);
        weir.settled().await;
    }
    let refused = weir.post(CHAT, &[], &ask(2, false)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("budget `small`"), "{refused:?}");
    weir.stop().await;
}
