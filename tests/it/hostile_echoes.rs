//! What apps and providers call things, where weir says it again: headers, metrics, logs. Nothing of it becomes a header, a
//! line or a label of its own.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::fake::{Fake, Script};
use crate::support::process::Process;
use crate::support::raw::{connect, has_sane_metrics, rest, status};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";

/// Names that try to be more than a name.
const NAMES: [&str; 10] = [
    "gpt\r\nx-evil: 1\r\n\r\n<script>",
    "gpt\"} 1\nweir_requests_total{evil=\"1",
    "gpt\\\" 1\\n",
    "\u{0}\u{1b}[31mred\u{7}",
    "\u{2028}\u{202e}evil\u{feff}",
    "{{ .Values.evil }}${jndi:ldap://169.254.169.254/}",
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE calls; --",
    "../../../../etc/passwd",
    "%0d%0ax-evil:%201",
];

fn ask(model: &str) -> Vec<u8> {
    json!({"model": model, "user": model, "messages": [{"role": "user", "content": model}]}).to_string().into_bytes()
}

/// A provider that calls everything as it was called, and names its request so.
async fn echoing() -> Fake {
    Fake::start(|asked| {
        let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let answer = json!({"id": body["model"], "model": body["model"], "service_tier": body["model"], "object": "chat.completion",
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            "choices": [{"index": 0, "finish_reason": body["model"], "message": {"role": "assistant", "content": "a",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": body["model"], "arguments": "{}"}}]}}]});
        Script::json(200, answer.to_string().as_bytes())
    })
    .await
}

#[tokio::test]
async fn no_name_in_a_body_becomes_a_header_or_a_label_of_its_own() {
    let fake = echoing().await;
    let weir = Weir::before(&fake.url()).await;
    for name in NAMES {
        let answer = weir.post(CHAT, &[], &ask(name)).await;
        assert_eq!(answer.status, StatusCode::OK, "{name:?}");
        assert!(!answer.headers.contains_key("x-evil"), "{name:?}: {:?}", answer.headers);
        has_sane_metrics(&weir).await;
        let metrics = weir.metrics().await;
        assert!(
            metrics.lines().all(|line| !line.starts_with("x-evil") && !line.starts_with("weir_requests_total{evil")),
            "{name:?}"
        );
        assert!(metrics.chars().all(|one| one == '\n' || !one.is_control()), "{name:?}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn no_header_of_an_app_becomes_one_of_weirs() {
    let fake = echoing().await;
    let weir = Weir::before(&fake.url()).await;
    let body = ask("gpt-5-mini");
    for value in
        [b"a\xff\xfeb".as_slice(), b"\"; x=y, z", b"a\tb", b"-", &[b'a'; 4000], b"00-00-00-00", "日本".as_bytes()]
    {
        let mut request =
            format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len())
                .into_bytes();
        let names = [
            "x-cache-namespace",
            "x-workspace-id",
            "x-user-id",
            "x-agent-id",
            "x-run-id",
            "x-loop-type",
            "traceparent",
            "tracestate",
            "x-request-id",
            "x-cache-ttl",
            "cache-control",
            "user-agent",
            "baggage",
            "x-weir-request-id",
        ];
        for name in names {
            request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        request.extend(&body);
        let mut tcp = connect(&weir.app).await;
        tcp.write_all(&request).await.unwrap();
        let answer = rest(&mut tcp).await;
        assert_eq!(status(&answer), 200, "{}", String::from_utf8_lossy(&answer));
        let head: Vec<u8> = answer.split(|byte| *byte == b'{').next().unwrap().to_vec();
        assert!(
            !head.windows(value.len()).any(|window| window == value && value.len() > 3),
            "weir does not say it again"
        );
        let ids = head.windows(17).filter(|window| window.eq_ignore_ascii_case(b"x-weir-request-id")).count();
        assert_eq!(ids, 1, "{}", String::from_utf8_lossy(&head));
        has_sane_metrics(&weir).await;
    }
    weir.stop().await;
}

#[tokio::test]
async fn every_line_of_the_log_is_one_object_whatever_things_are_called() {
    let fake = echoing().await;
    let weir =
        Process::start(&fake.url(), &["--set", "telemetry.log.calls=all", "--set", "ledger.mode=off"], &[]).await;
    let client = crate::support::client::Client::default();
    for name in NAMES {
        let headers = [("x-agent-id", "a\tb"), ("x-cache-namespace", "=1+1"), ("cache-control", "no-store")];
        assert_eq!(client.post(&format!("{}{CHAT}", weir.app), &headers, &ask(name)).await.status, StatusCode::OK);
    }
    let lines = || weir.told("");
    crate::support::until("each call has its line", || {
        lines()
            .iter()
            .filter(|line| line.to_string().contains("gpt-5") || line["gen_ai.request.model"].is_string())
            .count()
            >= NAMES.len()
    })
    .await;
    assert!(weir.untold().is_empty(), "lines that are no objects: {:?}", weir.untold());
    for line in lines() {
        assert!(line.get("x-evil").is_none() && line.get("evil").is_none(), "{line}");
    }
    weir.stop().await;
}
