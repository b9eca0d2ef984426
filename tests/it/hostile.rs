//! Whatever the app sends, weir stays up, forwards what it can, and says what it cannot.

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::fake::{Fake, Script};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";

async fn connect(weir: &Weir) -> TcpStream {
    TcpStream::connect(weir.app.trim_start_matches("http://")).await.unwrap()
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_goes_on_untouched() {
    let fake = Fake::always(Script::json(400, br#"{"error":{"message":"bad","type":"invalid_request_error"}}"#)).await;
    let weir = Weir::before(&fake.url()).await;
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 7] =
        [b"", b"not json", b"{\"model\":", b"[1,2,3]", b"\"text\"", b"{\"model\":\"\xff\xfe\"}", deep.as_bytes()];
    for body in bodies {
        assert_eq!(weir.post(CHAT, &[], body).await.status, StatusCode::BAD_REQUEST);
        assert_eq!(fake.received().last().unwrap().body, body);
    }
    let odd = br#"{"model":7,"stream":"yes","stream_options":[],"messages":{},"tools":0,"user":[]}"#;
    weir.post(CHAT, &[], odd).await;
    assert_eq!(fake.received().last().unwrap().body, odd);
    weir.stop().await;
}

#[tokio::test]
async fn a_path_for_nobody_is_a_404_that_says_who_there_is() {
    let weir = Weir::before("http://127.0.0.1:9").await;
    for path in ["/", "/nobody/v1/chat/completions", "/v2/x", "//openai/v1"] {
        let answer = weir.client.get(&weir.url(path)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("/anthropic/") && message.contains("/openai/"), "{message}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_let_go_and_an_idle_connection_too() {
    let weir =
        Weir::before_with("http://127.0.0.1:9", "connections: { header_timeout: 100ms, idle_timeout: 300ms }").await;
    let mut stalls = connect(&weir).await;
    stalls.write_all(b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut idles = connect(&weir).await;
    for tcp in [&mut stalls, &mut idles] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(std::time::Duration::from_secs(5), tcp.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "weir lets go of it");
    }
    weir.stop().await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before_with(&fake.url(), "connections: { header_timeout: 50ms, idle_timeout: 1h }").await;
    let mut tcp = connect(&weir).await;
    for _ in 0..2 {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        tcp.write_all(b"GET /openai/v1/models HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        tcp.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let mut rest = [0; 4096];
        let _ = tcp.read(&mut rest).await.unwrap();
    }
    drop(tcp);
    weir.stop().await;
}

#[tokio::test]
async fn garbage_and_half_requests_leave_no_trace() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before(&fake.url()).await;
    let beginnings: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"NOT HTTP AT ALL\r\n\r\n",
        b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"mod",
        b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ];
    for bytes in beginnings {
        let mut tcp = connect(&weir).await;
        tcp.write_all(bytes).await.unwrap();
        drop(tcp);
    }
    assert_eq!(weir.client.open(Method::GET, &weir.url("/openai/v1/models"), &[], b"").await.status(), StatusCode::OK);
    assert_eq!(fake.received().len(), 1, "half a request never leaves");
    weir.stop().await;
}
