//! HTTP/1.1 that two servers may read differently: weir reads it in one way, and forwards what it has read, or refuses it.
//! Nothing that is hidden in a request becomes another one.

use std::fmt::Write as _;

use tokio::io::AsyncWriteExt;

use crate::support::fake::{Fake, Script};
use crate::support::raw::{answers, connect, is_well, rest, say, status};
use crate::support::weir::Weir;

/// What an attacker wants the provider to take for a request of its own.
const HIDDEN: &str = "POST /v1/hidden HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";

async fn stage() -> (Fake, Weir) {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before_with(&fake.url(), "connections: { header_timeout: 2s, idle_timeout: 2s }").await;
    (fake, weir)
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\n{fields}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_nothing_of_it_is_forwarded() {
    let (fake, weir) = stage().await;
    let with_hidden = format!("{{}}{HIDDEN}");
    let hidden_chunks = format!("0\r\n\r\n{HIDDEN}");
    let long_extension = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(64 << 10));
    for (rule, request) in [
        ("two lengths", post("content-length: 2\r\ncontent-length: 61\r\n", &with_hidden)),
        ("lengths in a list", post("content-length: 2, 61\r\n", &with_hidden)),
        ("a length with a sign", post("content-length: +2\r\n", &with_hidden)),
        ("a negative length", post("content-length: -2\r\n", &with_hidden)),
        ("a length in hex", post("content-length: 0x2\r\n", &with_hidden)),
        ("a length with a space in it", post("content-length: 6 1\r\n", &with_hidden)),
        ("a length beyond 64 bits", post("content-length: 18446744073709551618\r\n", &with_hidden)),
        ("an empty length", post("content-length: \r\n", &with_hidden)),
        ("a space before the colon", post("content-length : 2\r\n", &with_hidden)),
        ("a space before the colon of a coding", post("transfer-encoding : chunked\r\n", &hidden_chunks)),
        ("an unknown coding", post("transfer-encoding: xchunked\r\n", &hidden_chunks)),
        ("a coding that is none", post("transfer-encoding: identity\r\n", &hidden_chunks)),
        ("chunked is not the last coding", post("transfer-encoding: chunked, identity\r\n", &hidden_chunks)),
        ("the same on two lines", post("transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", &hidden_chunks)),
        ("a coding in quotes", post("transfer-encoding: \"chunked\"\r\n", &hidden_chunks)),
        ("a vertical tab in a coding", post("transfer-encoding: \x0bchunked\r\n", &hidden_chunks)),
        ("a folded line", post("x: a\r\n transfer-encoding: chunked\r\n", &hidden_chunks)),
        ("a folded first line", post(" transfer-encoding: chunked\r\n", &hidden_chunks)),
        ("a bare CR in a value", post("x: a\rtransfer-encoding: chunked\r\n", &hidden_chunks)),
        ("a NUL in a value", post("x: a\0b\r\n", "")),
        ("a NUL in a name", post("x\0y: a\r\n", "")),
        ("no name", post(": a\r\n", "")),
        ("no colon", post("transfer-encoding chunked\r\n", &hidden_chunks)),
        ("a NUL in the path", b"GET /openai/v1/\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("a space in the path", b"GET /openai/v1/a b HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        (
            "chunks in HTTP/1.0",
            [
                b"POST /openai/v1/chat/completions HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
                hidden_chunks.as_bytes(),
            ]
            .concat(),
        ),
        ("another version", b"GET /openai/v1/models HTTP/3.7\r\nhost: x\r\n\r\n".to_vec()),
        ("a chunk's size with a sign", post("transfer-encoding: chunked\r\n", "+2\r\n{}\r\n0\r\n\r\n")),
        ("a negative chunk", post("transfer-encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n")),
        ("a chunk's size with a prefix", post("transfer-encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n")),
        (
            "a chunk's size beyond 64 bits",
            post("transfer-encoding: chunked\r\n", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        ),
        ("a chunk's size without digits", post("transfer-encoding: chunked\r\n", ";a\r\n{}\r\n0\r\n\r\n")),
        ("a chunk's size that a bare LF ends", post("transfer-encoding: chunked\r\n", "2\n{}\r\n0\r\n\r\n")),
        ("a chunk longer than its size", post("transfer-encoding: chunked\r\n", "1\r\n{}\r\n0\r\n\r\n")),
        ("an extension without an end", post("transfer-encoding: chunked\r\n", &long_extension)),
    ] {
        let answer = say(&weir.app, &request).await;
        assert_eq!(status(&answer), 400, "{rule}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(answers(&answer), 1, "{rule}: what comes after is no request");
        assert!(fake.received().is_empty(), "{rule}: {:?}", fake.received());
    }
    is_well(&weir, &fake).await;
    weir.stop().await;
}

#[tokio::test]
async fn what_is_read_is_forwarded_in_one_framing_and_what_hides_behind_it_is_not() {
    let (fake, weir) = stage().await;
    let both = format!("2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}");
    let padded = "2;a=\"b;\\\"c\";d\r\n{}\r\n00000;x\r\n\r\n";
    let trailers = "2\r\n{}\r\n0\r\nauthorization: Bearer stolen\r\nx-agent-id: other\r\n\r\n";
    let close = "connection: close\r\n";
    for (rule, request) in [
        ("a length beside chunks", post("content-length: 4\r\ntransfer-encoding: chunked\r\n", &both)),
        ("chunks beside a length", post("transfer-encoding: chunked\r\ncontent-length: 4\r\n", &both)),
        ("the same length twice", post(&format!("content-length: 2\r\ncontent-length: 2\r\n{close}"), "{}")),
        ("a tab before a coding", post(&format!("transfer-encoding:\tchunked\r\n{close}"), "2\r\n{}\r\n0\r\n\r\n")),
        ("a coding in capitals", post(&format!("TRANSFER-ENCODING: CHUNKED\r\n{close}"), "2\r\n{}\r\n0\r\n\r\n")),
        ("extensions of chunks", post(&format!("transfer-encoding: chunked\r\n{close}"), padded)),
        ("trailers", post(&format!("transfer-encoding: chunked\r\n{close}"), trailers)),
        (
            "bare line feeds",
            String::from_utf8(post(&format!("content-length: 2\r\n{close}"), "{}"))
                .unwrap()
                .replace('\r', "")
                .into_bytes(),
        ),
    ] {
        let before = fake.received().len();
        let answer = say(&weir.app, &request).await;
        assert_eq!((status(&answer), answers(&answer)), (200, 1), "{rule}: {}", String::from_utf8_lossy(&answer));
        let received = fake.received();
        assert_eq!(received.len(), before + 1, "{rule}");
        let one = received.last().unwrap();
        assert_eq!((one.target.as_str(), one.body.as_slice()), ("/v1/chat/completions", b"{}".as_slice()), "{rule}");
        let framings =
            one.headers.iter().filter(|(name, _)| ["content-length", "transfer-encoding"].contains(&&**name));
        assert_eq!(framings.count(), 1, "{rule}: {:?}", one.headers);
        assert_eq!((one.header("authorization"), one.header("x-agent-id")), (None, None), "{rule}");
    }
    is_well(&weir, &fake).await;
    weir.stop().await;
}

#[tokio::test]
async fn a_head_out_of_all_proportion_is_refused() {
    let (fake, weir) = stage().await;
    let many = (0..10_000).fold(String::new(), |mut fields, number| {
        let _ = write!(fields, "x-{number}: a\r\n");
        fields
    });
    let long = format!("x: {}\r\n", "a".repeat(2 << 20));
    let path = format!("GET /openai/v1/{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70 << 10));
    for (rule, request, expected) in [
        ("many fields", post(&many, ""), 431),
        ("a long field", post(&long, ""), 431),
        ("a long path", path.into_bytes(), 414),
    ] {
        let mut tcp = connect(&weir.app).await;
        // It may be told while it still talks, and what it has not read by then is lost with the connection.
        let _ = tcp.write_all(&request).await;
        let answer = rest_if_any(tcp).await;
        assert!([expected, 0].contains(&status(&answer)), "{rule}: {}", String::from_utf8_lossy(&answer));
        assert!(fake.received().is_empty(), "{rule}");
    }
    is_well(&weir, &fake).await;
    weir.stop().await;
}

/// All that comes, where a reset may come first.
async fn rest_if_any(mut tcp: tokio::net::TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut answer);
    assert!(tokio::time::timeout(crate::support::raw::LONG, read).await.is_ok(), "weir lets go");
    answer
}

#[tokio::test]
async fn hop_by_hop_fields_stay_here_and_weirs_own_credential_cannot_be_named_away() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let files = tempfile::tempdir().unwrap();
    let key = files.path().join("key");
    std::fs::write(&key, "sk-operator").unwrap();
    let provider =
        format!("  kept: {{ api: openai, base_url: \"{}\", api_key_file: \"{}\" }}\n", fake.url(), key.display());
    let weir = Weir::start(&format!("providers:\n{provider}  openai: {{ base_url: \"{}\" }}\n", fake.url())).await;
    let fields = "connection: close\r\nconnection: authorization, x-hop, content-type, \"; \u{ff}\r\nconnection: X-Other\r\nx-hop: 1\r\n\
        x-other: 2\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nproxy-authorization: Basic eDp5\r\nte: trailers\r\n\
        upgrade: h2c\r\nhttp2-settings: AAAA\r\nexpect: 100-continue\r\nauthorization: Bearer app\r\n\
        authorization: Bearer second\r\nhost: 169.254.169.254\r\ncontent-length: 2\r\n";
    let request = format!("POST /kept/v1/chat/completions HTTP/1.1\r\n{fields}\r\n{{}}");
    let answer = say(&weir.app, request.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    let received = fake.received();
    let [one] = received.as_slice() else { panic!("{received:?}") };
    let all = |name: &str| -> Vec<&str> {
        one.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(all("authorization"), ["Bearer sk-operator"], "the operator's, once");
    assert_eq!(all("host"), [fake.address.to_string()], "the provider's, whatever the app says");
    for name in ["x-hop", "x-other", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade", "expect"]
    {
        assert!(all(name).is_empty(), "{name}: {:?}", one.headers);
    }
    weir.stop().await;
}

#[tokio::test]
async fn a_body_that_comes_slowly_or_never_holds_up_nobody() {
    let (fake, weir) = stage().await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut tcp = connect(&weir.app).await;
        tcp.write_all(&post("content-length: 1000000\r\n", "{\"model\"")).await.unwrap();
        stalled.push(tcp);
    }
    let answer = weir.post("/openai/v1/chat/completions", &[], b"{}").await;
    assert_eq!(answer.status, http::StatusCode::OK);
    assert_eq!(fake.received().len(), 1, "half a request never leaves");
    drop(stalled);
    is_well(&weir, &fake).await;
    weir.stop().await;
}

#[tokio::test]
async fn requests_in_a_pipeline_are_answered_in_their_order_and_each_is_one() {
    let (fake, weir) = stage().await;
    let one = |number: u32, last: &str| format!("GET /openai/v1/models/{number} HTTP/1.1\r\nhost: x\r\n{last}\r\n");
    let mut tcp = connect(&weir.app).await;
    let all: String =
        (0..20).map(|number| one(number, if number == 19 { "connection: close\r\n" } else { "" })).collect();
    tcp.write_all(all.as_bytes()).await.unwrap();
    let answer = rest(&mut tcp).await;
    assert_eq!(answers(&answer), 20);
    let targets: Vec<String> = fake.received().into_iter().map(|one| one.target).collect();
    let expected: Vec<String> = (0..20).map(|number| format!("/v1/models/{number}")).collect();
    assert_eq!(targets, expected);
    is_well(&weir, &fake).await;
    weir.stop().await;
}
