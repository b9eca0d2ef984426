//! HTTP/2 that is there to cost: resets without end, heads that never end, floods of frames that say nothing, tables that
//! expand. Whoever sends it is let go, and others are served meanwhile. Frames as RFC 9113 and RFC 7541 write them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::fake::{Fake, Script, Step};
use crate::support::raw::{LONG, connect, is_well};
use crate::support::weir::Weir;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal field that no table is to hold, with one of the static table's names (RFC 7541, section 6.2.2).
fn literal(name: u8, value: &str) -> Vec<u8> {
    [&[name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

/// The head of a GET of `path`: `:method`, `:scheme`, `:path`, `:authority`.
fn get(path: &str) -> Vec<u8> {
    [&[0x82, 0x86], literal(4, path).as_slice(), literal(1, "x").as_slice()].concat()
}

/// The head of a POST to a chat.
fn post() -> Vec<u8> {
    [&[0x83, 0x86], literal(4, "/openai/v1/chat/completions").as_slice(), literal(1, "x").as_slice()].concat()
}

async fn stage() -> (Fake, Weir) {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Weir::before_with(&fake.url(), "connections: { header_timeout: 3s, idle_timeout: 3s }").await;
    (fake, weir)
}

/// A connection on which HTTP/2 has begun.
async fn begin(weir: &Weir) -> TcpStream {
    let mut tcp = connect(&weir.app).await;
    tcp.write_all(&[PREFACE, frame(SETTINGS, 0, 0, &[]).as_slice()].concat()).await.unwrap();
    tcp
}

/// Sends all of it, as far as weir takes it, while reading what it says; the reasons of its GOAWAYs. It lets go.
async fn is_let_go(tcp: TcpStream, bytes: &[u8]) -> Vec<u32> {
    let (mut from, mut to) = tcp.into_split();
    let reading = async {
        let mut said = Vec::new();
        // A reset is as good an end as any.
        let _ = from.read_to_end(&mut said).await;
        said
    };
    let writing = async {
        let _ = to.write_all(bytes).await;
        // It stays there, and says nothing more.
        std::future::pending::<()>().await;
    };
    let said = timeout(LONG, async {
        tokio::select! {
            said = reading => said,
            () = writing => unreachable!("it never ends"),
        }
    });
    goaways(&said.await.expect("weir lets go"))
}

/// Why the connection ends, as far as it was told.
fn goaways(mut said: &[u8]) -> Vec<u32> {
    let mut reasons = Vec::new();
    while let Some((head, rest)) = said.split_first_chunk::<9>() {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let Some(payload) = rest.get(..length) else { break };
        if head[3] == GOAWAY {
            reasons.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        said = &rest[length..];
    }
    reasons
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened_end_the_connection() {
    let fake = Fake::start(|asked| {
        let hangs = asked.target.ends_with("/reset");
        if hangs { Script::only(vec![Step::Hang]) } else { Script::json(200, b"{}") }
    })
    .await;
    let weir = Weir::before_with(&fake.url(), "connections: { header_timeout: 3s, idle_timeout: 3s }").await;
    let head = get("/openai/v1/models/reset");
    let streams = (0..20_000_u32).map(|number| number * 2 + 1);
    let flood: Vec<u8> = streams
        .flat_map(|stream| {
            [
                frame(HEADERS, END_HEADERS | END_STREAM, stream, &head),
                frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
            ]
            .concat()
        })
        .collect();
    let reasons = is_let_go(begin(&weir).await, &flood).await;
    assert!(reasons.iter().all(|reason| *reason == 11), "ENHANCE_YOUR_CALM: {reasons:?}");
    assert!(fake.received().len() < 5_000, "{}", fake.received().len());
    is_well(&weir, &fake).await;
    weir.stop().await;
}

#[tokio::test]
async fn heads_and_frames_that_no_honest_app_sends_end_the_connection() {
    let (fake, weir) = stage().await;
    let begun = |more: &[Vec<u8>]| [frame(HEADERS, 0, 1, &post()), more.concat()].concat();
    let filler: Vec<u8> = (0..600).flat_map(|_| literal(0x0f, "a")).collect();
    let continuations: Vec<_> = (0..2_000).map(|_| frame(CONTINUATION, 0, 1, &filler)).collect();
    let empty: Vec<_> = (0..200_000).map(|_| frame(CONTINUATION, 0, 1, &[])).collect();
    // One entry of 4,000 bytes in the table, and a head that says it ten thousand times (RFC 7541, section 6.2.1).
    let entry = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e], "b".repeat(4000).as_bytes()].concat();
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[post(), entry, vec![0xbe; 10_000]].concat());
    let window = |increment: u32| frame(WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
    let capitals = [post(), vec![0, 1], b"A".to_vec(), vec![1], b"b".to_vec()].concat();
    let for_connection = [post(), vec![0, 17], b"transfer-encoding".to_vec(), vec![7], b"chunked".to_vec()].concat();
    for (rule, bytes, may_stay) in [
        ("a head that never ends", begun(&continuations), false),
        ("a head that goes on with nothing", begun(&empty), false),
        ("a head that waits for its end", begun(&[]), true),
        ("another frame within a head", begun(&[frame(PING, 0, 0, &[0; 8])]), false),
        ("a table that expands", bomb, true),
        ("a table's entry that is not there", frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x7f]), false),
        ("a frame larger than was agreed", frame(DATA, 0, 1, &vec![0; 1 << 20]), false),
        ("a length that nothing follows", vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1], false),
        ("data for no stream", frame(DATA, 0, 0, b"a"), false),
        ("data for a stream that was never opened", frame(DATA, 0, 7, b"a"), false),
        ("a head on an even stream", frame(HEADERS, END_HEADERS, 2, &post()), false),
        ("a window beyond its bounds", [window(0x7fff_ffff), window(0x7fff_ffff)].concat(), false),
        ("a window that does not grow", window(0), false),
        ("settings of an odd length", frame(SETTINGS, 0, 0, &[0; 5]), false),
        ("a ping of an odd length", frame(PING, 0, 0, &[0; 7]), false),
        ("a name in capitals", frame(HEADERS, END_HEADERS | END_STREAM, 1, &capitals), true),
        ("a field of HTTP/1.1's connections", frame(HEADERS, END_HEADERS | END_STREAM, 1, &for_connection), true),
        ("no preface", b"nothing of the sort".to_vec(), false),
    ] {
        let tcp = begin(&weir).await;
        let reasons = is_let_go(tcp, &bytes).await;
        // What is wrong with one stream ends that stream; the connection goes when it has idled.
        assert!(may_stay || reasons.is_empty() || reasons.iter().any(|reason| *reason != 0), "{rule}: {reasons:?}");
        assert!(fake.received().is_empty(), "{rule}: {:?}", fake.received());
    }
    is_well(&weir, &fake).await;
    weir.stop().await;
}

#[tokio::test]
async fn floods_whose_answers_nobody_reads_are_not_read_either() {
    let (fake, weir) = stage().await;
    for (rule, one) in [("settings", frame(SETTINGS, 0, 0, &[])), ("pings", frame(PING, 0, 0, &[7; 8]))] {
        let mut tcp = begin(&weir).await;
        let flood = one.repeat(4096);
        let mut taken = 0;
        // Each has to be answered: once nobody reads that, weir has no reason to read on.
        while let Ok(Ok(())) = timeout(std::time::Duration::from_millis(500), tcp.write_all(&flood)).await {
            taken += flood.len();
            assert!(taken < 256 << 20, "{rule}: weir goes on for ever");
        }
        is_well(&weir, &fake).await;
        drop(tcp);
    }
    is_well(&weir, &fake).await;
    weir.stop().await;
}

#[tokio::test]
async fn a_body_in_a_hundred_thousand_empty_frames_is_one_body() {
    let (fake, weir) = stage().await;
    let head = frame(HEADERS, END_HEADERS, 1, &post());
    let empty = frame(DATA, 0, 1, &[]).repeat(100_000);
    let last = frame(DATA, END_STREAM, 1, b"{}");
    let reasons = is_let_go(begin(&weir).await, &[head, empty, last].concat()).await;
    let received = fake.received();
    // It may be too much for weir, or a request: but nothing in between.
    let is_refused = received.is_empty() && reasons.iter().any(|reason| *reason != 0);
    assert!(is_refused || matches!(received.as_slice(), [one] if one.body == b"{}"), "{reasons:?}: {received:?}");
    is_well(&weir, &fake).await;
    weir.stop().await;
}

#[tokio::test]
async fn who_opens_many_streams_and_says_nothing_on_them_keeps_nobody_from_calling() {
    let (fake, weir) = stage().await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut tcp = begin(&weir).await;
        let heads: Vec<u8> =
            (0..100_u32).flat_map(|number| frame(HEADERS, END_HEADERS, number * 2 + 1, &post())).collect();
        tcp.write_all(&heads).await.unwrap();
        silent.push(tcp);
    }
    let answer = weir.post("/openai/v1/chat/completions", &[], b"{}").await;
    assert_eq!(answer.status, http::StatusCode::OK);
    assert_eq!(fake.received().len(), 1, "half a request never leaves");
    drop(silent);
    is_well(&weir, &fake).await;
    weir.stop().await;
}
