//! A provider that lies: what the app gets is one answer, or an error; what hides in an answer is never another call's.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::client::collect_broken;
use crate::support::fake::{Fake, Script, Step};
use crate::support::raw::{has_sane_metrics, is_well};
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const NO_STORE: (&str, &str) = ("cache-control", "no-store");

/// A provider that first says this, byte for byte, and whatever is right from then on.
async fn lies_once(first: Vec<u8>) -> Fake {
    let calls = AtomicUsize::new(0);
    Fake::start(move |_| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            return Script::only(vec![Step::Send(first.clone().into())]).on_a_kept_connection();
        }
        Script::json(200, b"{\"right\":1}")
    })
    .await
}

fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn what_is_no_answer_is_a_502_in_the_providers_shape() {
    let many = (0..500).map(|number| format!("x-{number}: a\r\n")).collect::<Vec<_>>().concat();
    let long = format!("x: {}\r\n", "a".repeat(1 << 20));
    for (rule, bytes) in [
        ("two lengths", ok("content-length: 2\r\ncontent-length: 30\r\n", "{}")),
        ("lengths in a list that differ", ok("content-length: 2, 30\r\n", "{}")),
        ("a length with a sign", ok("content-length: +2\r\n", "{}")),
        ("a negative length", ok("content-length: -2\r\n", "{}")),
        ("a length beyond 64 bits", ok("content-length: 18446744073709551618\r\n", "{}")),
        ("a folded line", ok("x: a\r\n b\r\ncontent-length: 2\r\n", "{}")),
        ("a NUL in a value", ok("x: a\0b\r\ncontent-length: 2\r\n", "{}")),
        ("a bare CR in a value", ok("x: a\rset-cookie: b\r\ncontent-length: 2\r\n", "{}")),
        ("a space before the colon", ok("content-length : 2\r\n", "{}")),
        ("chunks in HTTP/1.0", b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        ("no status", b"HTTP/1.1 OK\r\n\r\n".to_vec()),
        ("a status of two digits", b"HTTP/1.1 99 Low\r\n\r\n".to_vec()),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00".to_vec()),
        ("HTTP/2 that nobody asked for", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("many fields", ok(&many, "")),
        ("a long field", ok(&long, "")),
        (
            "another protocol that nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nboo".to_vec(),
        ),
    ] {
        let fake = lies_once(bytes).await;
        let weir = Weir::before_with(&fake.url(), "upstream: { first_byte_timeout: 10s }").await;
        let answer = weir.post(CHAT, &[], ASK).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{rule}: {:?}", answer.body);
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("provider `openai`"), "{rule}");
        weir.settled().await;
        let failed =
            r#"weir_requests_total{provider="openai",model="gpt-5-mini",operation="chat",outcome="upstream_error"}"#;
        assert_eq!(weir.metric(failed).await, 1.0, "{rule}");
        is_well(&weir, &fake).await;
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_is_an_answer_reaches_the_app_in_one_framing() {
    for (rule, bytes) in [
        (
            "a length beside chunks",
            ok("content-length: 1\r\ntransfer-encoding: chunked\r\n", "b\r\n{\"right\":0}\r\n0\r\n\r\n"),
        ),
        (
            "a longer length beside chunks",
            ok("transfer-encoding: chunked\r\ncontent-length: 100\r\n", "b\r\n{\"right\":0}\r\n0\r\n\r\n"),
        ),
        ("the same length twice", ok("content-length: 11\r\ncontent-length: 11\r\n", "{\"right\":0}")),
        ("the same length in a list", ok("content-length: 11, 11\r\n", "{\"right\":0}")),
        (
            "fields for the connection alone",
            ok("connection: x-hop\r\nx-hop: a\r\nproxy-authenticate: Basic\r\ncontent-length: 11\r\n", "{\"right\":0}"),
        ),
        (
            "fields that are weir's to say",
            ok("x-cache: HIT\r\nx-weir-request-id: forged\r\ncontent-length: 11\r\n", "{\"right\":0}"),
        ),
        (
            "a thousand early hints",
            [
                b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(1000),
                ok("content-length: 11\r\n", "{\"right\":0}"),
            ]
            .concat(),
        ),
    ] {
        let fake = lies_once(bytes).await;
        let weir = Weir::before(&fake.url()).await;
        let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[NO_STORE], ASK).await;
        let headers = answer.headers().clone();
        let status = answer.status();
        let (body, ended_well) = collect_broken(answer).await;
        assert_eq!((status, ended_well), (StatusCode::OK, true), "{rule}");
        assert_eq!(body, b"{\"right\":0}", "{rule}: {headers:?}");
        let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
        assert!(lengths.is_empty() || lengths == ["11"], "{rule}: {lengths:?}");
        assert!(!headers.contains_key("x-hop") && !headers.contains_key("proxy-authenticate"), "{rule}");
        assert_eq!(headers.get_all("x-cache").iter().collect::<Vec<_>>(), ["BYPASS"], "{rule}");
        assert!(headers.get_all("x-weir-request-id").iter().all(|id| id != "forged"), "{rule}");
        is_well(&weir, &fake).await;
        weir.stop().await;
    }
}

#[tokio::test]
async fn what_hides_behind_an_answer_is_not_the_answer_to_the_next_call() {
    let hidden = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"stolen\":1}";
    for (rule, bytes) in [
        ("behind a length", ok("content-length: 2\r\n", &format!("{{}}{hidden}"))),
        ("behind the last chunk", ok("transfer-encoding: chunked\r\n", &format!("2\r\n{{}}\r\n0\r\n\r\n{hidden}"))),
        ("behind no content", [b"HTTP/1.1 204 No Content\r\n\r\n", hidden.as_bytes()].concat()),
        (
            "behind a length beside chunks",
            ok("content-length: 2\r\ntransfer-encoding: chunked\r\n", &format!("0\r\n\r\n{hidden}")),
        ),
    ] {
        let fake = lies_once(bytes).await;
        let weir = Weir::before(&fake.url()).await;
        let first = weir.post(CHAT, &[NO_STORE], ASK).await;
        assert!(first.status.is_success() && !first.body.starts_with(b"{\"stolen"), "{rule}: {first:?}");
        let second = weir.post(CHAT, &[NO_STORE], ASK).await;
        assert_eq!((second.status, &*second.body), (StatusCode::OK, b"{\"right\":1}".as_slice()), "{rule}");
        is_well(&weir, &fake).await;
        weir.stop().await;
    }
}

#[tokio::test]
async fn an_answer_shorter_than_it_says_breaks_off_for_the_app_and_is_not_stored() {
    for (rule, bytes) in [
        ("a length", ok("content-type: application/json\r\ncontent-length: 100\r\n", "{}")),
        ("a giant length", ok("content-length: 18446744073709551614\r\n", "{}")),
        ("a chunk", ok("transfer-encoding: chunked\r\n", "64\r\n{}")),
        ("a giant chunk", ok("transfer-encoding: chunked\r\n", "fffffffffffffff0\r\n{}")),
        ("no last chunk", ok("transfer-encoding: chunked\r\n", "2\r\n{}\r\n")),
        ("a chunk's size that is none", ok("transfer-encoding: chunked\r\n", "2\r\n{}\r\nzz\r\n")),
        ("a negative chunk", ok("transfer-encoding: chunked\r\n", "2\r\n{}\r\n-1\r\n")),
        ("a chunk's size beyond 64 bits", ok("transfer-encoding: chunked\r\n", "2\r\n{}\r\n10000000000000000\r\n")),
    ] {
        let fake = Fake::always(Script::only(vec![Step::Send(bytes.into())])).await;
        let weir = Weir::before(&fake.url()).await;
        for _ in 0..2 {
            let answer = weir.client.open(Method::POST, &weir.url(CHAT), &[], ASK).await;
            let status = answer.status();
            let (body, ended_well) = collect_broken(answer).await;
            if status == StatusCode::OK {
                assert!(!ended_well && body == b"{}", "{rule}: {body:?}");
            } else {
                assert_eq!(status, StatusCode::BAD_GATEWAY, "{rule}");
            }
        }
        assert_eq!(fake.received().len(), 2, "{rule}: nothing of it is stored");
        has_sane_metrics(&weir).await;
        weir.stop().await;
    }
}

#[tokio::test]
async fn early_hints_without_end_are_an_answer_that_does_not_come() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                while tcp.write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(64)).await.is_ok() {}
            });
        }
    });
    let weir = Weir::before_with(&url, "upstream: { first_byte_timeout: 300ms }").await;
    let answer = weir.post(CHAT, &[], ASK).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{:?}", answer.body);
    has_sane_metrics(&weir).await;
    weir.stop().await;
    server.abort();
}

#[tokio::test]
async fn a_provider_cannot_send_weir_elsewhere() {
    let elsewhere = Fake::always(Script::json(200, b"{\"secret\":1}")).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("{}/latest/meta-data/", elsewhere.url());
        let fields = [("location", location.as_str()), ("refresh", "0; url=http://169.254.169.254/")];
        let fake = Fake::always(Script::whole(status, &fields, b"")).await;
        let weir = Weir::before(&fake.url()).await;
        let answer = weir.post(CHAT, &[("authorization", "Bearer sk-app")], ASK).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (status, location.as_str()),
            "told, not followed"
        );
        has_sane_metrics(&weir).await;
        weir.stop().await;
    }
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn what_an_answer_says_in_bytes_that_are_no_text_reaches_the_app_and_breaks_nothing() {
    let stream: &[&[u8]] = &[
        b"data: {\"model\":\"\xff\xfe\",\"choices\":[{\"delta\":{\"content\":\"\xc3\"}}]}\n\n",
        b"event: \xff\ndata: \xff\n\ndata: {\"usage\":{\"prompt_tokens\":1e999,\"completion_tokens\":-5}}\n\n",
        b"data: {\"usage\":{\"prompt_tokens\":18446744073709551616,\"completion_tokens\":18446744073709551615}}\n\n",
        b"\0\0\r\r\n\ndata:\n\ndata: [DONE]\n\n",
    ];
    let deep = format!("{{\"usage\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let twice =
        br#"{"model":"a","model":"b","usage":{"prompt_tokens":1},"usage":{"prompt_tokens":2,"completion_tokens":0.5}}"#;
    let scripts = [
        (Script::sse(stream), stream.concat()),
        (Script::json(200, deep.as_bytes()), deep.clone().into_bytes()),
        (Script::json(200, twice), twice.to_vec()),
        (
            Script::whole(200, &[("content-type", "application/json"), ("content-encoding", "gzip")], b"no gzip"),
            b"no gzip".to_vec(),
        ),
        (
            Script::whole(200, &[("content-type", "application/json"), ("content-encoding", "br, gzip, x")], b"x"),
            b"x".to_vec(),
        ),
    ];
    for (script, expected) in scripts {
        let fake = Fake::always(script).await;
        let weir = Weir::before(&fake.url()).await;
        let asked = br#"{"model":"gpt-5-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
        let answer = weir.post(CHAT, &[], asked).await;
        assert_eq!(answer.body, expected.as_slice());
        has_sane_metrics(&weir).await;
        weir.stop().await;
    }
}
