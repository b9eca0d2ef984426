//! The ways to a provider: TLS with the operator's own authorities, HTTP/2, proxies from the environment.

use std::sync::{Arc, Mutex};

use http::{StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::Client;
use crate::support::fake::{Fake, Script};
use crate::support::process::Process;
use crate::support::tls::TlsProvider;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[]}"#;
const ANSWER: &[u8] = br#"{"choices":[]}"#;

#[tokio::test]
async fn tls_is_spoken_with_the_operators_own_authorities_and_http2_where_it_is_offered() {
    let protocols: [(&[&[u8]], Version); 2] = [(&[b"h2", b"http/1.1"], Version::HTTP_2), (&[], Version::HTTP_11)];
    for (protocols, version) in protocols {
        let provider = TlsProvider::start(protocols, ANSWER).await;
        let yaml = format!("upstream: {{ ca_files: [\"{}\"] }}\ncache: {{ mode: off }}", provider.authority.display());
        let weir = Weir::before_with(&provider.url(), &yaml).await;
        for _ in 0..3 {
            let answer = weir.post(CHAT, &[], ASK).await;
            assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, ANSWER));
        }
        assert_eq!(provider.versions(), vec![version; 3]);
        let connected = r#"weir_upstream_connect_duration_seconds_count{provider="openai"}"#;
        assert_eq!(weir.metric(connected).await, 1.0, "one connection serves them all");
        weir.stop().await;
    }
}

#[tokio::test]
async fn an_authority_nobody_trusts_is_a_tls_error_that_says_so() {
    let provider = TlsProvider::start(&[], ANSWER).await;
    let weir = Weir::before(&provider.url()).await;
    let answer = weir.post(CHAT, &[], ASK).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["error"]["code"], "tls_error");
    weir.stop().await;
}

#[tokio::test]
async fn without_tls_a_proxy_gets_the_request_in_absolute_form() {
    let proxy = Fake::always(Script::json(200, ANSWER)).await;
    let url = format!("http://user:pass@{}", proxy.address);
    let weir = Process::start("http://provider.invalid", &[], &[("http_proxy", url.as_str())]).await;
    let answer = Client::default().post(&format!("{}{CHAT}", weir.app), &[], ASK).await;
    assert_eq!(answer.status, StatusCode::OK);
    let received = proxy.received().pop().unwrap();
    assert_eq!(received.target, "http://provider.invalid/v1/chat/completions");
    assert_eq!(received.header("host"), Some("provider.invalid"));
    assert_eq!(received.header("proxy-authorization"), Some("Basic dXNlcjpwYXNz"));
}

#[tokio::test]
async fn with_tls_a_proxy_is_tunnelled_through() {
    let provider = TlsProvider::start(&[b"h2"], ANSWER).await;
    let (proxy, asked) = connect_proxy(provider.address.port()).await;
    let authority = format!("upstream.ca_files=[\"{}\"]", provider.authority.display());
    let environment = [("HTTPS_PROXY", proxy.as_str())];
    let weir = Process::start(&provider.url(), &["--set", &authority], &environment).await;
    let answer = Client::default().post(&format!("{}{CHAT}", weir.app), &[], ASK).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(asked.lock().unwrap()[0].starts_with(&format!("CONNECT localhost:{} HTTP/1.1", provider.address.port())));
    assert_eq!(provider.versions(), [Version::HTTP_2]);
}

#[tokio::test]
async fn no_proxy_and_the_setting_go_round_the_proxy() {
    let fake = Fake::always(Script::json(200, ANSWER)).await;
    let dead = ("http_proxy", "http://127.0.0.1:1");
    let by_environment = Process::start(&fake.url(), &[], &[dead, ("no_proxy", "127.0.0.1")]).await;
    let by_setting = Process::start(&fake.url(), &["--set", "upstream.proxy=none"], &[dead]).await;
    for weir in [by_environment, by_setting] {
        let answer = Client::default().post(&format!("{}{CHAT}", weir.app), &[], ASK).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

/// A proxy that digs every tunnel to `port`, and what it was asked.
async fn connect_proxy(port: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            near.write_all(b"HTTP/1.1 200 Tunnel\r\n\r\n").await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (url, asked)
}
