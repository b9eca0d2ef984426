//! Bytes on a socket as no well-behaved client writes them, and what has to hold afterwards whatever they were.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fake::Fake;
use super::weir::Weir;

/// Longer than anything here takes, on a busy machine too.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What the next call of a well-behaved app asks.
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"well-behaved"}]}"#;

/// A connection to one of weir's sides.
pub(crate) async fn connect(base: &str) -> TcpStream {
    TcpStream::connect(base.trim_start_matches("http://")).await.unwrap()
}

/// All that comes until the other side lets go, which it does.
pub(crate) async fn rest(tcp: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = timeout(LONG, tcp.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "weir lets go; so far: {}", String::from_utf8_lossy(&rest));
    rest
}

/// Sends these bytes, and gives back all that is answered until weir closes the connection.
pub(crate) async fn say(base: &str, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = connect(base).await;
    // weir may have read enough, and closed.
    let _ = tcp.write_all(bytes).await;
    rest(&mut tcp).await
}

/// The status of an answer; 0 if there is none.
pub(crate) fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer.get(..12).unwrap_or_default()).into_owned();
    text.strip_prefix("HTTP/1.1 ").and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// How many answers there are.
pub(crate) fn answers(bytes: &[u8]) -> usize {
    bytes.windows(9).filter(|window| *window == b"HTTP/1.1 ").count()
}

/// The next call on another connection is fine, every exchange has its record, and the metrics are numbers.
pub(crate) async fn is_well(weir: &Weir, provider: &Fake) {
    let before = provider.received().len();
    let answer = weir.post("/openai/v1/chat/completions", &[("cache-control", "no-store")], ASK).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let received = provider.received();
    assert_eq!(received.len(), before + 1, "one call is one request");
    assert_eq!(received.last().unwrap().body, ASK);
    has_sane_metrics(weir).await;
}

/// Every exchange has its record, and what is exposed are series and numbers.
pub(crate) async fn has_sane_metrics(weir: &Weir) {
    weir.settled().await;
    for line in weir.metrics().await.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no series: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let name = series.split('{').next().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "no name: {line}");
        if name.ends_with("_total") || name.ends_with("_count") {
            assert!(value.is_finite() && value >= 0.0, "{line}");
        }
    }
}
