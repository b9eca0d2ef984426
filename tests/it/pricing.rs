//! What a call cost is what its reply says was used, at the rates of its circumstances; what has no price is counted.

use crate::support::fake::{Fake, Script};
use crate::support::weir::Weir;

const KEY: (&str, &str) = ("authorization", "Bearer a");
const CHAT: &str = "/openai/v1/chat/completions";

/// What weir says a call to `path` cost whose reply is `answer`.
async fn cost(path: &str, model: &str, answer: &str) -> f64 {
    let fake = Fake::always(Script::json(200, answer.as_bytes())).await;
    let weir = Weir::before(&fake.url()).await;
    let ask = format!(r#"{{"model":"{model}","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]}}"#);
    weir.post(path, &[KEY], ask.as_bytes()).await;
    weir.settled().await;
    let cost = weir.metric_sum("weir_cost_usd_total{").await;
    weir.stop().await;
    cost
}

#[tokio::test]
async fn what_a_reply_says_of_its_circumstances_sets_the_price() {
    let claude = |more: &str| {
        format!(
            r#"{{"type":"message","id":"msg_1","model":"claude-opus-5-5","role":"assistant","stop_reason":"end_turn",
                "content":[{{"type":"text","text":"x"}}],
                "usage":{{"input_tokens":1000000,"output_tokens":0{more}}}}}"#
        )
    };
    let written = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-5.6-sol","service_tier":"default",
        "choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":100000,"completion_tokens":0,"total_tokens":100000,"prompt_tokens_details":
            {"cache_write_tokens":100000,"cache_write_tokens_details":{"ttl_30m_tokens":0,"ttl_12h_tokens":100000}}}}"#;
    let messages = "/anthropic/v1/messages";
    for (rule, path, model, answer, usd) in [
        ("list price", messages, "claude-opus-5-5", claude(""), 4.0),
        ("inference in the US", messages, "claude-opus-5-5", claude(r#","inference_geo":"us""#), 4.4),
        ("fast", messages, "claude-opus-5-5", claude(r#","speed":"fast""#), 8.0),
        ("a batch", messages, "claude-opus-5-5", claude(r#","service_tier":"batch""#), 2.0),
        ("cache writes for twelve hours", CHAT, "gpt-5.6-sol", written.to_owned(), 1.0),
    ] {
        let cost = cost(path, model, &answer).await;
        assert!((cost - usd).abs() < 1e-9, "{rule}: {cost}");
    }
}

#[tokio::test]
async fn a_model_without_a_price_is_counted_and_costs_nothing_known() {
    let answer = br#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-99",
        "choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
    let fake = Fake::always(Script::json(200, answer)).await;
    let weir = Weir::before_with(&fake.url(), "cache: { mode: off }").await;
    for _ in 0..2 {
        weir.post(CHAT, &[KEY], br#"{"model":"gpt-99","messages":[]}"#).await;
    }
    weir.settled().await;
    let unpriced = r#"weir_unpriced_requests_total{provider="openai",reason="unknown_model"}"#;
    assert_eq!(weir.metric(unpriced).await, 2.0);
    assert_eq!(weir.metric_sum("weir_cost_usd_total{").await, 0.0);
    weir.stop().await;
}
