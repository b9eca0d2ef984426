//! A process without descriptors: it takes in no connection, and neither spins nor dies for it; what is open goes on, and all
//! is well again once there are some. For real, with limits set from outside.

use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::fake::{Fake, Script};
use crate::support::process::Process;
use crate::support::until;

const CHAT: &str = "/openai/v1/chat/completions";
const OTHER: &str = "/local/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"m","messages":[]}"#;

/// The value of a series.
async fn metric(client: &Client, weir: &Process, series: &str) -> u64 {
    let answer = client.get(&format!("{}/metrics", weir.admin)).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

#[tokio::test]
async fn without_descriptors_connections_wait_and_calls_go_on() {
    let (fake, other) = (Fake::always(Script::json(200, b"{}")).await, Fake::always(Script::json(200, b"{}")).await);
    let local = format!("providers.local={{ api: openai, base_url: \"{}\", prices: free }}", other.url());
    let weir = Process::start(&fake.url(), &["--set", &local, "--set", "cache.mode=off"], &[]).await;
    let (app, operator) = (Client::default(), Client::default());
    let url = |path: &str| format!("{}{path}", weir.app);
    assert_eq!(app.post(&url(CHAT), &[], ASK).await.status, StatusCode::OK);
    let open = metric(&operator, &weir, "process_open_fds").await;

    // Room for two more.
    weir.limit_descriptors(&(open + 2).to_string());
    let began = Instant::now();
    let address = |side: &str| side.trim_start_matches("http://").to_owned();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(TcpStream::connect(address(&weir.app)).await.unwrap());
        waiting.push(TcpStream::connect(address(&weir.admin)).await.unwrap());
    }
    until("weir says so", || !weir.told("connections have to wait").is_empty()).await;
    assert_eq!(app.post(&url(CHAT), &[], ASK).await.status, StatusCode::OK, "what is open goes on");
    let unreached = app.post(&url(OTHER), &[], ASK).await;
    assert_eq!(unreached.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", unreached.body);
    assert_eq!(unreached.header("retry-after"), "1");
    assert_eq!(unreached.json()["error"]["type"], "server_error");
    assert!(unreached.json()["error"]["message"].as_str().unwrap().contains("no descriptor left"));

    let refused =
        async |side: &str| metric(&operator, &weir, &format!("weir_accept_refused_total{{side=\"{side}\"}}")).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while refused("app").await == 0 || refused("admin").await == 0 {
        assert!(Instant::now() < deadline, "both sides have to wait");
    }
    let times = refused("app").await + refused("admin").await;
    let most = 2 * (began.elapsed().as_millis() / 100 + 1);
    assert!(u128::from(times) <= most, "{times} in {:?}: it spins", began.elapsed());
    let told = weir.told("connections have to wait").len();
    let most = 2 * (began.elapsed().as_secs() / 10 + 1);
    assert!(told as u64 <= most, "{told} lines in {:?}", began.elapsed());

    drop(waiting);
    weir.limit_descriptors("1024");
    let later = Client::default();
    assert_eq!(later.post(&url(CHAT), &[], ASK).await.status, StatusCode::OK, "a new connection is taken in");
    assert_eq!(later.post(&url(OTHER), &[], ASK).await.status, StatusCode::OK, "and one made to the provider");
    assert_eq!(later.get(&format!("{}/readyz", weir.admin)).await.status, StatusCode::OK);
    weir.stop().await;
}

#[tokio::test]
async fn no_more_connections_are_taken_in_than_there_are_descriptors_for() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Process::start_with_descriptors("192", &fake.url(), &[]).await;
    let told = weir.told("connections.max_connections is 32 rather than 4096");
    assert_eq!(told.len(), 1, "(192 - 128) / 2");
    let address = weir.app.trim_start_matches("http://");
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Those who wait are not turned away, and those who are in have what their calls need.
    assert!(weir.told("connections have to wait").is_empty());
    idle.truncate(31);
    let client = Client::default();
    assert_eq!(client.post(&format!("{}{CHAT}", weir.app), &[], ASK).await.status, StatusCode::OK);
    weir.stop().await;
}
