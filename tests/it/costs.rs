//! What the provider says it charges is the cost, beside what the price table says; and what its head says is shown.

use serde_json::json;

use crate::support::client::collect_broken;
use crate::support::fake::{Fake, Script};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";

/// A whole chat of a million tokens in, for which the provider says it charges `usd`.
fn charged(model: &str, usd: &str) -> Script {
    let usage = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000});
    let reply = json!({"id": "gen-1", "model": model, "object": "chat.completion", "usage": usage, "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    let body = reply.to_string().replace("\"usage\":{", &format!("\"usage\":{{\"cost\":{usd},"));
    Script::json(200, body.as_bytes())
}

fn ask(model: &str) -> Vec<u8> {
    json!({"model": model, "messages": [{"role": "user", "content": "well?"}]}).to_string().into_bytes()
}

#[tokio::test]
async fn what_the_provider_charges_is_the_cost_and_what_it_saves() {
    // gpt-5-mini is listed at 0.25 dollars for a million tokens in.
    let fake = Fake::always(charged("gpt-5-mini", "0.3125")).await;
    let weir = Weir::before(&fake.url()).await;
    for cached in ["MISS", "HIT"] {
        assert_eq!(weir.post(CHAT, &[], &ask("gpt-5-mini")).await.header("x-cache"), cached);
        weir.settled().await;
    }
    for (series, expected) in [
        (r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="reported"}"#, 0.3125),
        (r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="priced"}"#, 0.0),
        (r#"weir_billable_requests_total{provider="openai",provenance="reported"}"#, 1.0),
        (r#"weir_cost_usd_total{provider="openai",model="gpt-5-mini",token_type="input"}"#, 0.3125),
        (r#"weir_cost_drift_usd_total{provider="openai",direction="over"}"#, 0.0625),
        (r#"weir_cost_drift_usd_total{provider="openai",direction="under"}"#, 0.0),
        (r#"weir_cost_capture_ratio{provider="openai"}"#, 1.0),
        (r#"weir_cost_saved_usd_total{provider="openai",model="gpt-5-mini",source="cache"}"#, 0.3125),
    ] {
        assert_eq!(weir.metric(series).await, expected, "{series}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_count_or_a_cost_on_the_way_is_not_the_bill() {
    // Perplexity counts and charges in every chunk: what the first one says is not what the call comes to.
    let chunk =
        b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one two three\"}}],\
        \"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"total_tokens\":6,\"cost\":{\"total_cost\":0.5}}}\n\n";
    let error = b"data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    let ask = br#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"count"}]}"#;
    for (script, end) in
        [(Script::begin_sse().pieces(&[chunk]), "broke off"), (Script::sse(&[chunk, error]), "failed on the way")]
    {
        let fake = Fake::always(script).await;
        let weir = Weir::before(&fake.url()).await;
        let answer = weir.client.open(http::Method::POST, &weir.url(CHAT), &[], ask).await;
        collect_broken(answer).await;
        weir.settled().await;
        let calls = r#"weir_billable_requests_total{provider="openai",provenance="estimated"}"#;
        assert_eq!(weir.metric(calls).await, 1.0, "{end}");
        let output = r#"weir_tokens_total{provider="openai",model="gpt-5-mini",token_type="output"}"#;
        assert_eq!(weir.metric(output).await, 3.0, "{end}: the tokens that came, not the one that was counted");
        weir.stop().await;
    }
}

#[tokio::test]
async fn a_stated_cost_needs_no_price_table() {
    let fake = Fake::always(charged("home-made", "0.5")).await;
    let weir = Weir::before(&fake.url()).await;
    weir.post(CHAT, &[], &ask("home-made")).await;
    weir.settled().await;
    for (series, expected) in [
        (r#"weir_cost_usd_total{provider="openai",model="home-made",token_type="fee"}"#, 0.5),
        (r#"weir_billable_requests_total{provider="openai",provenance="reported"}"#, 1.0),
        (r#"weir_unpriced_requests_total{provider="openai",reason="unknown_model"}"#, 0.0),
    ] {
        assert_eq!(weir.metric(series).await, expected, "{series}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn where_nothing_is_charged_nobody_s_word_counts() {
    let fake = Fake::always(charged("home-made", "0.5")).await;
    let weir = Weir::start(&format!("providers:\n  openai: {{ base_url: \"{}\", prices: free }}\n", fake.url())).await;
    weir.post(CHAT, &[], &ask("home-made")).await;
    weir.settled().await;
    assert_eq!(weir.metric_sum("weir_cost_usd_total{").await, 0.0);
    assert_eq!(weir.metric(r#"weir_billable_requests_total{provider="openai",provenance="priced"}"#).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn quotas_are_those_of_the_latest_reply() {
    let headers = [
        ("content-type", "application/json"),
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-remaining-requests", "499"),
        ("x-ratelimit-reset-requests", "1h0m0s"),
        ("x-ratelimit-limit-tokens", "30000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "0s"),
    ];
    let fake = Fake::always(Script::whole(429, &headers, b"{}")).await;
    let weir = Weir::before(&fake.url()).await;
    assert_eq!(weir.metric_sum("weir_upstream_ratelimit_limit").await, 0.0, "absent until it is said");
    weir.post(CHAT, &[], &ask("gpt-5-mini")).await;
    weir.settled().await;
    for (series, expected) in [
        (r#"weir_upstream_ratelimit_limit{provider="openai",kind="requests"}"#, 500.0),
        (r#"weir_upstream_ratelimit_remaining{provider="openai",kind="requests"}"#, 499.0),
        (r#"weir_upstream_ratelimit_limit{provider="openai",kind="tokens"}"#, 30_000.0),
        (r#"weir_upstream_ratelimit_remaining{provider="openai",kind="tokens"}"#, 30_000.0),
    ] {
        assert_eq!(weir.metric(series).await, expected, "{series}");
    }
    weir.stop().await;
}
