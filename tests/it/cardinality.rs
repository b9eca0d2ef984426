//! Tens of thousands of calls that name everything anew, through the whole house: few series, and nothing lost.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use crate::support::fake::{Fake, Script};
use crate::support::weir::Weir;

const CALLS: u32 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_makes_few_series() {
    let fake = Fake::start(|received| {
        let asked: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
        let model = asked["model"].as_str().unwrap();
        let tool = json!({"id": "call_1", "type": "function", "function": {"name": format!("tool of {model}"), "arguments": "{}"}});
        let body = json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "finish_reason": "tool_calls",
                         "message": {"role": "assistant", "content": null, "tool_calls": [tool]}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        });
        Script::json(if model.ends_with('7') { 404 } else { 200 }, body.to_string().as_bytes())
    })
    .await;
    let url = format!("http://{}", fake.address);
    let yaml = format!(
        "providers:\n  openai: {{ base_url: \"{url}\" }}\n  local: {{ api: openai, base_url: \"{url}\", prices: free }}\n"
    );
    let weir = Weir::start(&yaml).await;
    let known = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(weir.post("/openai/v1/chat/completions", &[], known).await.status, 200);

    stream::iter(0..CALLS).for_each_concurrent(32, |number| call(&weir, number)).await;
    assert_eq!(weir.post("/openai/v1/chat/completions", &[("cache-control", "no-cache")], known).await.status, 200);
    weir.settled().await;

    let text = weir.metrics().await;
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 2_000 && text.len() < 1 << 20, "{series} series in {} bytes", text.len());
    let of_known = r#"weir_requests_total{provider="openai",model="gpt-5-mini",operation="chat",outcome="success"}"#;
    assert_eq!(weir.metric(of_known).await, 2.0);
    let calls = f64::from(CALLS) + 2.0;
    for name in ["weir_requests_total{", "weir_agent_requests_total{", "weir_cache_requests_total{"] {
        assert_eq!(weir.metric_sum(name).await, calls, "{name}");
    }
    assert_eq!(weir.metric_sum("gen_ai_client_operation_duration_seconds_count").await, calls);
    for label in ["model", "agent", "loop_type", "tool"] {
        let folded = weir.metric(&format!(r#"weir_metrics_label_overflow_total{{label="{label}"}}"#)).await;
        assert!(folded > f64::from(CALLS) / 2.0, "{label}: {folded}");
    }
    weir.stop().await;
}

/// A call in which every name is new.
async fn call(weir: &Weir, number: u32) {
    let name = |what: &str| format!("{what}-{number}");
    let (agent, user, kind) = (name("agent"), name("user"), name("loop"));
    let (run, namespace, workspace) = (name("run"), name("namespace"), name("workspace"));
    let headers = [
        ("x-agent-id", &*agent),
        ("x-user-id", &user),
        ("x-loop-type", &kind),
        ("x-run-id", &run),
        ("x-cache-namespace", &namespace),
        ("x-workspace-id", &workspace),
    ];
    // Every third name looks like one of a model that the price table knows.
    let model = if number.is_multiple_of(3) { format!("gpt-5-{number}") } else { name("model") };
    let body = json!({ "model": model, "messages": [{"role": "user", "content": "hi"}] }).to_string();
    let provider = if number.is_multiple_of(2) { "openai" } else { "local" };
    let answer = weir.post(&format!("/{provider}/v1/chat/completions"), &headers, body.as_bytes()).await;
    assert!(answer.status == 200 || answer.status == 404, "{}", answer.status);
}
