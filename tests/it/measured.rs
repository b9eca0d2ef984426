//! What weir measures of itself, scraped: its process and the machine, its connections, its queues, the files that it reads
//! again, and who asks, where that is wanted.

use std::fs;

use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::support::client::Client;
use crate::support::fake::{Fake, Script};
use crate::support::process::Process;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const WANTED: &str = "telemetry: { metrics: { consumers: plain, cache_namespaces: true } }";

/// A chat that used a million tokens, at 25 cents for those in and 2 dollars for those out.
fn answer() -> Script {
    Script::json(
        200,
        br#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000000,"completion_tokens":1000000,"total_tokens":2000000}}"#,
    )
}

#[tokio::test]
async fn one_scrape_says_it_all() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before_with(&fake.url(), WANTED).await;
    for _ in 0..2 {
        weir.post(CHAT, &[("x-user-id", "ann"), ("x-cache-namespace", "red")], ASK).await;
    }
    weir.settled().await;
    for (series, value) in [
        (r#"weir_upstream_retries_total{provider="openai",reason="app"}"#, 0.0),
        (r#"weir_upstream_connections{provider="openai"}"#, 1.0),
        (r#"weir_queue_length{queue="estimates"}"#, 0.0),
        (r#"weir_queue_dropped_total{queue="estimates"}"#, 0.0),
        ("weir_config_last_reload_successful", 1.0),
        (r#"weir_config_reloads_total{result="failure"}"#, 0.0),
        (r#"weir_consumer_requests_total{consumer="ann"}"#, 2.0),
        (r#"weir_consumer_cost_usd_total{consumer="ann"}"#, 2.25),
        (r#"weir_consumer_requests_total{consumer="none"}"#, 0.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="red",result="miss"}"#, 1.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="red",result="hit"}"#, 1.0),
    ] {
        let text = weir.metrics().await;
        assert!(text.lines().any(|line| line.starts_with(&format!("{series} "))), "{series} is not in\n{text}");
        assert_eq!(weir.metric(series).await, value, "{series}");
    }
    let text = weir.metrics().await;
    for absent in [r#"queue="cache_writes""#, r#"queue="recordings""#, r#"queue="log_lines""#] {
        assert!(!text.contains(absent), "{absent}: there is none");
    }
    let (used, total) =
        (weir.metric("weir_system_memory_used_bytes").await, weir.metric("weir_system_memory_total_bytes").await);
    assert!(used > 0.0 && used < total, "{used} of {total}");
    let busy = loop {
        let text = weir.metrics().await;
        if let Some(busy) = text.lines().find_map(|line| line.strip_prefix("weir_system_cpu_usage_ratio ")) {
            break busy.parse::<f64>().unwrap();
        }
    };
    assert!((0.0..=1.0).contains(&busy), "{busy}");
    weir.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_process_is_as_the_kernel_says() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::before(&fake.url()).await;
    let resident = weir.metric("process_resident_memory_bytes").await;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let told: f64 = kib.trim().trim_end_matches(" kB").parse().unwrap();
    // Other tests run in this process, too.
    assert!(resident > 0.2 * told * 1024.0 && resident < 5.0 * told * 1024.0, "{resident}, {kib}");
    let (open, most) = (weir.metric("process_open_fds").await, weir.metric("process_max_fds").await);
    let address = weir.app.strip_prefix("http://").unwrap();
    let mut connections = Vec::new();
    for _ in 0..200 {
        connections.push(TcpStream::connect(address).await.unwrap());
    }
    let with_connections = weir.metric("process_open_fds").await;
    assert!(with_connections >= open + 150.0, "{open}, then {with_connections}");
    assert!(with_connections < most, "{with_connections} of {most}");
    for (series, least) in [
        ("process_cpu_seconds_total", 0.01),
        ("process_virtual_memory_bytes", resident),
        ("process_start_time_seconds", 1_700_000_000.0),
        ("process_threads", 2.0),
    ] {
        let value = weir.metric(series).await;
        assert!(value >= least, "{series}: {value}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn what_is_recorded_or_logged_waits_in_queues_that_say_so() {
    let (fake, dir) = (Fake::always(answer()).await, tempfile::tempdir().unwrap());
    let yaml = format!("cache: {{ mode: record, recordings: \"{}\" }}", dir.path().display());
    let weir = Weir::before_with(&fake.url(), &yaml).await;
    assert_eq!(weir.metric(r#"weir_queue_capacity{queue="recordings"}"#).await, 1024.0);
    weir.stop().await;

    let weir = Process::start(&fake.url(), &[], &[]).await;
    let answer = Client::default().get(&format!("{}/metrics", weir.admin)).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for line in [r#"weir_queue_capacity{queue="log_lines"} 8192"#, r#"weir_queue_dropped_total{queue="log_lines"} 0"#] {
        assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
    }
    assert!(text.contains(r#"weir_queue_length{queue="log_lines"} "#), "{text}");
    weir.stop().await;
}

#[tokio::test]
async fn a_token_that_is_none_is_a_reload_that_failed_until_there_is_one_again() {
    let fake = Fake::always(answer()).await;
    let weir = Weir::operated(&fake.url(), "").await;
    let is_good = "weir_config_last_reload_successful";
    let started = weir.metric("weir_config_last_reload_success_timestamp_seconds").await;
    assert_eq!(weir.metric(is_good).await, 1.0);
    for (token, good) in [("two words", 0.0), ("another", 1.0)] {
        weir.change_token(token);
        while weir.metric(is_good).await != good {
            yield_now().await;
        }
    }
    let reloads = async |result: &str| weir.metric(&format!(r#"weir_config_reloads_total{{result="{result}"}}"#)).await;
    assert_eq!((reloads("success").await, reloads("failure").await), (1.0, 1.0));
    assert!(weir.metric("weir_config_last_reload_success_timestamp_seconds").await > started);
    weir.stop().await;
}
