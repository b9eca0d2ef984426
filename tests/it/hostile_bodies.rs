//! Bodies that are small on the wire and large in memory, in requests and in replies: bombs, brackets, giant numbers. A weir
//! of its own, whose memory is looked at afterwards.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::StatusCode;

use crate::support::client::Client;
use crate::support::fake::{Fake, Received, Script};
use crate::support::process::Process;

const CHAT: &str = "/openai/v1/chat/completions";
/// What all of it together may add to what weir takes at its peak: a few times what one body may be.
const MOST_MORE: u64 = 96 << 20;

fn gzip(plain: &[u8], rounds: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    (0..rounds).for_each(|_| encoder.write_all(plain).unwrap());
    encoder.finish().unwrap()
}

fn deflate(plain: &[u8], rounds: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    (0..rounds).for_each(|_| encoder.write_all(plain).unwrap());
    encoder.finish().unwrap()
}

fn brotli(plain: &[u8], rounds: usize) -> Vec<u8> {
    let mut packed = Vec::new();
    {
        let mut encoder = brotli::CompressorWriter::new(&mut packed, 4096, 5, 22);
        (0..rounds).for_each(|_| encoder.write_all(plain).unwrap());
    }
    packed
}

/// So many times this, as the elements of a list.
fn list_of(piece: &str, bytes: usize) -> Vec<u8> {
    format!("{{\"model\":\"gpt-5-mini\",\"messages\":[{}0]}}", format!("{piece},").repeat(bytes / (piece.len() + 1)))
        .into_bytes()
}

/// Half a gigabyte of one letter, in each coding, as JSON that begins well.
fn bombs() -> [(&'static str, Vec<u8>); 3] {
    let letters = vec![b'a'; 1 << 20];
    [("gzip", gzip(&letters, 512)), ("deflate", deflate(&letters, 512)), ("br", brotli(&letters, 512))]
}

/// Bodies that take many times their length once they are opened.
fn brackets() -> Vec<Vec<u8>> {
    const MIB: usize = 1 << 20;
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let mut all: Vec<Vec<u8>> = ["0", "[]", "{}", "\"\"", "{\"\":0}", &nested, "[[],[]]", "1e999"]
        .iter()
        .map(|piece| list_of(piece, 7 * MIB))
        .collect();
    all.extend(["[", "{\"a\":", "\"\\u", "-"].iter().map(|piece| piece.repeat(7 * MIB / piece.len()).into_bytes()));
    all.push([b"{\"model\":".as_slice(), &vec![b'9'; 7 * MIB], b"}"].concat());
    all.push([b"{\"model\":\"".as_slice(), &vec![b'm'; 7 * MIB], b"\",\"messages\":[]}"].concat());
    all
}

#[tokio::test]
async fn no_request_takes_memory_out_of_all_proportion() {
    let fake = Fake::always(Script::json(200, b"{}")).await;
    let weir = Process::start(&fake.url(), &["--set", "ledger.mode=off"], &[]).await;
    let (client, url) = (Client::default(), format!("{}{CHAT}", weir.app));
    assert_eq!(client.post(&url, &[], &list_of("{}", 1 << 20)).await.status, StatusCode::OK);
    let before = weir.peak_bytes();
    for (coding, bomb) in bombs() {
        let answer = client.post(&url, &[("content-encoding", coding)], &bomb).await;
        assert_eq!(answer.status, StatusCode::OK, "{coding}");
        assert!(fake.received().last().unwrap().body == bomb, "{coding}: forwarded as it is");
    }
    for body in brackets() {
        let answer = client.post(&url, &[], &body).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(fake.received().last().unwrap().body == body, "forwarded as it is");
    }
    let more = weir.peak_bytes() - before;
    assert!(more < MOST_MORE, "{} MiB more", more >> 20);
    weir.stop().await;
}

#[tokio::test]
async fn no_reply_takes_memory_out_of_all_proportion() {
    let mut replies: Vec<(Option<&str>, &str, Vec<u8>)> = Vec::new();
    for (coding, bomb) in bombs() {
        replies.push((Some(coding), "application/json", bomb.clone()));
        replies.push((Some(coding), "text/event-stream", bomb));
    }
    for body in brackets() {
        replies.push((None, "application/json", body.clone()));
        replies.push((None, "text/event-stream", [b"data: ".as_slice(), &body, b"\n\n"].concat()));
        replies.push((None, "application/x-ndjson", body));
    }
    replies.push((None, "text/event-stream", b"data:\n".repeat(1 << 20)));
    let (all, script) = (replies.clone(), move |asked: &Received| {
        let number: usize = asked.header("x-reply").map_or(0, |number| number.parse().unwrap());
        let (coding, kind, body) = &replies[number];
        let coding = coding.map(|coding| ("content-encoding", coding));
        Script::whole(200, &[[("content-type", *kind)].as_slice(), coding.as_slice()].concat(), body)
    });
    let fake = Fake::start(script).await;
    let weir = Process::start(&fake.url(), &["--set", "ledger.mode=off"], &[]).await;
    let (client, url) = (Client::default(), format!("{}{CHAT}", weir.app));
    let ask = br#"{"model":"gpt-5-mini","messages":[]}"#;
    client.post(&url, &[("x-reply", "6")], ask).await;
    let before = weir.peak_bytes();
    for (number, (coding, kind, body)) in all.iter().enumerate() {
        let number = number.to_string();
        let answer = client.post(&url, &[("x-reply", &number), ("cache-control", "no-store")], ask).await;
        assert!(answer.body == body.as_slice(), "{coding:?} {kind} {number}: passes as it is");
    }
    let more = weir.peak_bytes() - before;
    assert!(more < MOST_MORE, "{} MiB more", more >> 20);
    weir.stop().await;
}
