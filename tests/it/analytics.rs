//! What the ledger is asked over HTTP: calls that went through are in the answers, and only in those of who may see them.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::client::{Answer, collect};
use crate::support::fake::{Fake, Script};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const OPERATOR: (&str, &str) = ("authorization", "Bearer sesame");

fn answer() -> Vec<u8> {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100},
    });
    body.to_string().into_bytes()
}

/// The same to a long prompt, none of which was read from the provider's cache.
fn answer_to_a_long_prompt() -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&answer()).unwrap();
    body["usage"] = json!({
        "prompt_tokens": 12_000, "completion_tokens": 100, "total_tokens": 12_100,
        "prompt_tokens_details": {"cached_tokens": 0},
    });
    body.to_string().into_bytes()
}

async fn call(weir: &Weir, workspace: &str, text: &str) {
    let body = json!({ "model": "gpt-5-mini", "messages": [{"role": "user", "content": text}] }).to_string();
    let user = format!("user-of-{workspace}");
    let answer = weir.post(CHAT, &[("x-workspace-id", workspace), ("x-user-id", &user)], body.as_bytes()).await;
    assert_eq!(answer.status, StatusCode::OK);
}

async fn ask(weir: &Weir, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    collect(weir.client.open(method, &format!("{}/api/v1/{path}", weir.admin), headers, b"").await).await
}

async fn get(weir: &Weir, path: &str, headers: &[(&str, &str)]) -> Value {
    let answer = ask(weir, Method::GET, path, headers).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
    answer.json()
}

/// Waits until so many calls are written down.
async fn written(weir: &Weir, calls: u64) {
    weir.settled().await;
    loop {
        // There is no answer while the ledger is being opened.
        let answer = ask(weir, Method::GET, "usage/overview", &[]).await;
        if answer.status == StatusCode::OK && answer.json()["total_calls"] == calls {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_are_in_the_answers_with_their_cost_to_the_last_digit() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let weir = Weir::operated(&fake.url(), "ledger: { mode: memory }").await;
    for text in ["one", "other", "other"] {
        call(&weir, "a", text).await;
    }
    call(&weir, "b", "one more").await;
    written(&weir, 4).await;

    let all = get(&weir, "cost/overview", &[]).await;
    let of_a = get(&weir, "cost/overview", &[("x-workspace-id", "a")]).await;
    // $0.25 and $2 for a million tokens in and out: $0.00045 a call; one was answered by the cache.
    assert_eq!((&all["total_spend_usd"], &all["saved_usd"]), (&json!(0.001_35), &json!(0.000_45)));
    assert_eq!((&of_a["total_spend_usd"], &of_a["avg_cost_per_call_usd"]), (&json!(0.000_9), &json!(0.000_3)));
    assert_eq!(all["total_spend_usd"].as_f64().unwrap(), weir.metric_sum("weir_cost_usd_total{").await);
    let stats = get(&weir, "stats?period=1h", &[]).await;
    assert_eq!((&stats["requests"], &stats["hits"], &stats["hit_rate"]), (&json!(4), &json!(1), &json!(0.25)));
    let logs = get(&weir, "analytics/logs?workspace=b", &[]).await;
    assert_eq!(logs["logs"].as_array().unwrap().len(), 1);
    assert_eq!(logs["logs"][0]["user_id"], "user-of-b");

    let gone = ask(&weir, Method::DELETE, "analytics/logs?user=user-of-b", &[OPERATOR]).await;
    assert_eq!((gone.status, &gone.json()["erased_calls"]), (StatusCode::OK, &json!(1)));
    let after = get(&weir, "cost/overview", &[]).await;
    assert_eq!(after["total_spend_usd"], all["total_spend_usd"], "the money stays");
    let users = get(&weir, "usage/top-users", &[]).await.to_string();
    assert!(users.contains("user-of-a") && !users.contains("user-of-b"), "{users}");
    weir.stop().await;
}

#[tokio::test]
async fn prompts_that_begin_alike_and_are_not_read_from_a_cache_say_what_that_costs() {
    let fake = Fake::always(Script::json(200, &answer_to_a_long_prompt())).await;
    let weir = Weir::operated(&fake.url(), "ledger: { mode: memory }\ncache: { mode: off }").await;
    let system = "Be brief and kind. ".repeat(3_000);
    let ask = async |agent: &str, question: &str| {
        let body = json!({
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
            "model": "gpt-5-mini",
        });
        let answer = weir.post(CHAT, &[("x-agent-id", agent)], body.to_string().as_bytes()).await;
        assert_eq!(answer.status, StatusCode::OK);
    };
    for (agent, question) in [("planner", "one"), ("planner", "two"), ("planner", "three"), ("writer", "one")] {
        ask(agent, question).await;
    }
    written(&weir, 4).await;
    let told = get(&weir, "cost/what-if", &[]).await["repeated_prefixes"].clone();
    let of = |agent: &str| {
        let agents = told["agents"].as_array().unwrap();
        agents.iter().find(|it| it["agent"] == agent).unwrap().clone()
    };
    // The prompts differ in their last words alone, and have 12,000 tokens, says the provider.
    let planner = of("planner");
    assert_eq!([&planner["calls"], &planner["repeated_calls"]], [3, 2]);
    let tokens = planner["repeated_tokens"].as_u64().unwrap();
    assert!((2 * 11_980..2 * 12_000).contains(&tokens), "{planner}");
    assert_eq!((&planner["read_tokens"], &planner["missed_tokens"]), (&json!(0), &json!(tokens)));
    // $0.25 for a million tokens sent, $0.025 read.
    let saved = -planner["difference_usd"].as_f64().unwrap();
    assert!((saved - 0.225e-6 * f64::from(u32::try_from(tokens).unwrap())).abs() < 1e-12, "{planner}");
    assert_eq!(of("writer")["repeated_calls"], 0, "another agent has what it has alone");
    weir.stop().await;
}

#[tokio::test]
async fn what_was_said_is_read_by_the_operator_alone_as_far_as_it_is_kept() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let weir = Weir::operated(&fake.url(), "ledger: { mode: memory }\nprivacy: { capture: redacted }").await;
    call(&weir, "a", "I am jane@example.com").await;
    written(&weir, 1).await;
    let logs = get(&weir, "analytics/logs", &[]).await;
    let path = format!("analytics/content?timestamp={}", logs["logs"][0]["timestamp"].as_str().unwrap());

    assert_eq!(ask(&weir, Method::GET, &path, &[]).await.status, StatusCode::UNAUTHORIZED);
    let said = get(&weir, &path, &[OPERATOR]).await;
    assert!(said["request"].as_str().unwrap().contains("I am [redacted:email]"), "{said}");
    assert!(said["response"].as_str().unwrap().contains("hello"), "{said}");
    assert_eq!(get(&weir, "audit?limit=1", &[OPERATOR]).await["audit"][0]["action"], "read_content");
    let other = ask(&weir, Method::GET, "analytics/content?timestamp=2026-01-01", &[OPERATOR]).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    weir.stop().await;
}

#[tokio::test]
async fn users_who_are_kept_as_hashes_are_asked_about_and_erased_by_name() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let users = format!("user_ids: hashed, user_id_key_file: {}", key.path().display());
    let config = format!("ledger: {{ mode: memory }}\nprivacy: {{ {users} }}");
    let weir = Weir::operated(&fake.url(), &config).await;
    call(&weir, "a", "one").await;
    call(&weir, "b", "other").await;
    written(&weir, 2).await;

    let logs = get(&weir, "analytics/logs?user=user-of-b", &[]).await;
    let kept = logs["logs"][0]["user_id"].as_str().unwrap().to_owned();
    assert!(kept.starts_with("h-") && !logs.to_string().contains("user-of-b"), "{logs}");
    assert_eq!(get(&weir, &format!("analytics/logs?user={kept}"), &[]).await["logs"], logs["logs"]);
    let gone = ask(&weir, Method::DELETE, "analytics/logs?user=user-of-b", &[OPERATOR]).await;
    assert_eq!((gone.status, &gone.json()["erased_calls"]), (StatusCode::OK, &json!(1)));
    assert_eq!(get(&weir, "analytics/logs?user=user-of-b", &[]).await["logs"], json!([]));
    weir.stop().await;
}

#[tokio::test]
async fn a_ledger_that_is_off_says_which_knob_turns_it_on() {
    let fake = Fake::always(Script::json(200, &answer())).await;
    let weir = Weir::operated(&fake.url(), "ledger: { mode: off }").await;
    call(&weir, "a", "one").await;
    for path in ["usage/overview", "cost/trend", "analytics/logs", "stats"] {
        let answer = ask(&weir, Method::GET, path, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("`ledger.mode`"), "{path}");
    }
    weir.stop().await;
}
