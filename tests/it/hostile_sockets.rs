//! WebSocket abuse: what breaks the protocol passes as it is, for it is between the two ends; reading a copy of it ends, and
//! holds no more than its bound. The other way goes on, and so does the next session.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::fake::{Fake, Script};
use crate::support::raw::{has_sane_metrics, is_well};
use crate::support::socket::{Provider, frame, rest, session, text};
use crate::support::weir::Weir;

const PATH: &str = "/openai/v1/realtime?model=gpt-realtime";

#[tokio::test]
async fn whatever_either_side_sends_passes_as_it_is_and_the_other_way_goes_on() {
    let provider = Provider::start().await;
    let weir = Weir::before(&provider.url()).await;
    let giant = [&[0x81, 127], (1_u64 << 62).to_be_bytes().as_slice(), b"not so much"].concat();
    let negative = [&[0x81, 127], u64::MAX.to_be_bytes().as_slice(), b"less"].concat();
    let fragments = [frame(0x01, b"{\"type\""), frame(0x00, b"x").repeat(20_000)].concat();
    for (rule, bytes) in [
        ("a giant length", giant),
        ("a length whose first bit is set", negative),
        ("a length in more bytes than it needs", vec![0x81, 126, 0, 2, b'{', b'}']),
        ("a mask where there is none, or none where there is one", vec![0x81, 0x82, 1, 2, 3, 4, b'{', b'}']),
        ("no mask", frame(0x81, b"{}")),
        ("bits that nobody agreed on", frame(0xf1, b"{}")),
        ("a kind that nobody knows", frame(0x83, b"{}")),
        ("a control frame that is too long", [&[0x89, 126, 1, 0], [0; 256].as_slice()].concat()),
        ("a control frame in pieces", frame(0x09, b"a")),
        ("pings", frame(0x89, &[7; 125]).repeat(5_000)),
        ("fragments without end", fragments),
        ("a piece that goes on with nothing", frame(0x80, b"{}")),
        ("text that is none", frame(0x81, b"{\"type\":\"\xff\xfe\xc3\"}")),
        ("deep JSON", frame(0x81, "[".repeat(60_000).as_bytes())),
        ("a close frame with half a code", frame(0x88, &[3])),
        ("a close frame with a code that is none", frame(0x88, &0_u16.to_be_bytes())),
        ("a close frame whose reason is no text", frame(0x88, &[3, 0xe8, 0xff])),
        ("no frame at all", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        for from_app in [true, false] {
            let (app, other) = session(&weir.app, &provider, PATH).await;
            let (mut from, mut to) = if from_app { (app, other) } else { (other, app) };
            let mut came = vec![0; bytes.len()];
            let (sent, read) = tokio::join!(from.write_all(&bytes), to.read_exact(&mut came));
            assert!(sent.is_ok() && read.is_ok(), "{rule}");
            assert!(came == bytes, "{rule}: what passes is changed");
            let back = text(r#"{"type":"still there"}"#);
            to.write_all(&back).await.unwrap();
            let mut answer = vec![0; back.len()];
            from.read_exact(&mut answer).await.unwrap_or_else(|error| panic!("{rule}: {error}"));
            assert_eq!(answer, back, "{rule}");
            drop(to);
            rest(from).await;
        }
    }
    has_sane_metrics(&weir).await;
    let sessions = r#"weir_requests_total{provider="openai",model="none",operation="other""#;
    assert_eq!(weir.metric_sum(sessions).await, 36.0, "each session is one exchange");
    weir.stop().await;
}

#[tokio::test]
async fn a_handshake_that_is_none_is_an_ordinary_request() {
    let fake = Fake::always(Script::json(400, b"{\"error\":{}}")).await;
    let weir = Weir::before(&fake.url()).await;
    for fields in [
        "connection: upgrade\r\nupgrade: h2c\r\n",
        "connection: upgrade\r\nupgrade: websocket, h2c\r\nsec-websocket-key: \r\n",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n",
    ] {
        let body = if fields.contains("content-length") { "{}" } else { "" };
        let request = format!("GET {PATH} HTTP/1.1\r\nhost: x\r\n{fields}connection: close\r\n\r\n{body}");
        let answer = crate::support::raw::say(&weir.app, request.as_bytes()).await;
        assert_eq!(crate::support::raw::status(&answer), 400, "{fields}: {}", String::from_utf8_lossy(&answer));
    }
    has_sane_metrics(&weir).await;
    weir.stop().await;
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before(&fake.url()).await;
    is_well(&weir, &fake).await;
    weir.stop().await;
}
