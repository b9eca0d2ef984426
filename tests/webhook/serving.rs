//! Serving: what the webhook does with reviews and with everything else, with a certificate from files.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use weir::inject::server::Bounds;
use weir::semconv::SECTIONS;

use crate::injector::{NAME, Running, bounds, connect, review, reviewed, until};

/// A certificate that is its own authority.
struct Provided {
    chain: String,
    key: String,
}

fn provided(days: u32) -> Provided {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + days * Duration::from_secs(24 * 60 * 60)).into();
    Provided { chain: params.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
}

impl Provided {
    /// Puts it into `directory` as Kubernetes does: both files at once, by a link that is exchanged.
    fn put(&self, directory: &Path) {
        let next = TempDir::new_in(directory).expect("a directory").keep();
        std::fs::write(next.join("tls.crt"), &self.chain).expect("a file");
        std::fs::write(next.join("tls.key"), &self.key).expect("a file");
        std::os::unix::fs::symlink(&next, directory.join("next")).expect("a link");
        std::fs::rename(directory.join("next"), directory.join("..data")).expect("an exchanged link");
        for name in ["tls.crt", "tls.key"] {
            let _ = std::os::unix::fs::symlink(Path::new("..data").join(name), directory.join(name));
        }
    }
}

async fn started(bounds: Bounds) -> (Running, String, TempDir) {
    let (directory, provided) = (TempDir::new().expect("a directory"), provided(90));
    provided.put(directory.path());
    let injector = Running::with_files(directory.path(), bounds).await;
    injector.ready().await;
    (injector, provided.chain, directory)
}

const EXPIRY: &str = "weir_inject_cert_expiry_timestamp_seconds";
const IN_ORDER: &str = "weir_config_last_reload_successful";

#[tokio::test]
async fn files_are_read_again_and_a_bad_pair_keeps_the_good_one() {
    let directory = TempDir::new().expect("a directory");
    let injector = Running::with_files(directory.path(), bounds()).await;
    until!("no files yet: it says so, and waits", injector.series(IN_ORDER).await == Some(0.0));
    assert!(!injector.is_ready().await);
    let first = provided(90);
    first.put(directory.path());
    injector.ready().await;
    injector.review(&first.chain).await.expect("it is shown");
    until!("it is in order", injector.series(IN_ORDER).await == Some(1.0));
    let expiry = injector.series(EXPIRY).await;

    let (second, other) = (provided(60), provided(60));
    for (rule, bad) in [
        ("the key of another", Provided { chain: second.chain.clone(), key: other.key.clone() }),
        ("no PEM", Provided { chain: "certificate".to_owned(), key: second.key.clone() }),
        ("expired", provided(0)),
    ] {
        bad.put(directory.path());
        until!(rule, injector.series(IN_ORDER).await == Some(0.0));
        assert_eq!(injector.series(EXPIRY).await, expiry, "{rule}");
        injector.review(&first.chain).await.unwrap_or_else(|error| panic!("{rule}: {error}"));
        first.put(directory.path());
        until!(rule, injector.series(IN_ORDER).await == Some(1.0));
    }

    second.put(directory.path());
    until!("the new one is shown", injector.series(EXPIRY).await < expiry);
    injector.review(&second.chain).await.expect("it is shown");
    injector.review(&first.chain).await.expect_err("the old one is not");
}

#[tokio::test]
async fn whatever_is_asked_is_answered() {
    let (injector, bundle, _directory) = started(bounds()).await;
    let good = review(false).to_string();
    let large = " ".repeat((4 << 20) + 1);
    let json = "application/json";
    for (rule, method, path, media_type, body, status) in [
        ("a review", Method::POST, "/mutate", json, good.as_str(), 200),
        ("of a webhook that is named", Method::POST, "/mutate/namespace?timeout=5s", json, &good, 200),
        ("with parameters", Method::POST, "/mutate/object", "Application/JSON; charset=utf-8", &good, 200),
        ("elsewhere", Method::POST, "/", json, &good, 404),
        ("near by", Method::POST, "/mutate/", json, &good, 404),
        ("the operator's side is another", Method::GET, "/metrics", json, "", 404),
        ("another method", Method::GET, "/mutate", json, "", 405),
        ("another method", Method::PUT, "/mutate", json, &good, 405),
        ("no JSON", Method::POST, "/mutate", "text/plain", &good, 415),
        ("too large", Method::POST, "/mutate", json, &large, 413),
        ("nothing", Method::POST, "/mutate", json, "", 400),
        ("no JSON at all", Method::POST, "/mutate", json, "\u{0}{{{", 400),
        ("JSON", Method::POST, "/mutate", json, "[null]", 400),
        ("an object", Method::POST, "/mutate", json, "{}", 400),
        ("without a request", Method::POST, "/mutate", json, &good[..good.len() - 1], 400),
    ] {
        let tls = connect(injector.webhook, &bundle, &[b"http/1.1"]).await.expect("TLS");
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.expect("HTTP");
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", NAME);
        let request = request.header("content-type", media_type).body(Full::new(Bytes::from(body.to_owned())));
        let answer =
            sender.send_request(request.expect("a request")).await.unwrap_or_else(|error| panic!("{rule}: {error}"));
        let (head, body) = answer.into_parts();
        assert_eq!(head.status, status, "{rule}");
        assert!(!body.collect().await.expect("a whole body").to_bytes().is_empty(), "{rule}: it says why");
    }
    assert_eq!(injector.series("weir_inject_results_total{result=\"error\",reason=\"unreadable\"}").await, Some(5.0));
    assert_eq!(injector.series("weir_inject_requests_total{webhook=\"namespace\"}").await, Some(1.0));
    assert_eq!(injector.series("weir_inject_requests_total{webhook=\"object\"}").await, Some(1.0));
    assert_eq!(injector.series("weir_inject_requests_total{webhook=\"unnamed\"}").await, Some(6.0));
    assert_eq!(injector.series("weir_inject_duration_seconds_count").await, Some(8.0));
}

#[tokio::test]
async fn a_connection_that_makes_no_sense_or_no_progress_ends() {
    let short = Duration::from_millis(200);
    let (injector, bundle, _directory) =
        started(Bounds { handshake: short, head: short, review: short, connections: 4, ..bounds() }).await;
    // More than there are places, so that each has to end for the next to begin.
    for round in 0..6 {
        for bytes in [&b"POST /mutate HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b""] {
            let mut tcp = TcpStream::connect(injector.webhook).await.expect("a connection");
            tcp.write_all(bytes).await.expect("they are taken");
            let mut heard = Vec::new();
            let _ = tcp.read_to_end(&mut heard).await;
            assert!(!heard.starts_with(b"HTTP"), "{round}: no answer without TLS");
        }
        for (bytes, expected) in [
            (&b"POST /mutate HT"[..], &b""[..]),
            (
                b"POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
                b"HTTP/1.1 408",
            ),
            (b"\x00\x01\x02\x03\r\n\r\n", b"HTTP/1.1 400"),
        ] {
            let mut tls = connect(injector.webhook, &bundle, &[b"http/1.1"]).await.expect("TLS");
            tls.write_all(bytes).await.expect("they are taken");
            let mut heard = Vec::new();
            let _ = tls.read_to_end(&mut heard).await;
            assert!(heard.starts_with(expected), "{round}: {:?}", String::from_utf8_lossy(&heard));
        }
    }
    injector.review(&bundle).await.expect("it goes on");
}

#[tokio::test]
async fn a_dry_run_is_answered_and_not_counted() {
    let (injector, bundle, _directory) = started(bounds()).await;
    let mut sender = injector.http2(&bundle).await.expect("a connection");
    let answer = sender.send_request(reviewed("/mutate/object", true)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(injector.series("weir_inject_requests_total{webhook=\"object\"}").await, Some(0.0));
    assert_eq!(injector.series("weir_inject_duration_seconds_count").await, Some(0.0));
    injector.review(&bundle).await.expect("an answer");
    assert_eq!(injector.series("weir_inject_requests_total{webhook=\"object\"}").await, Some(1.0));
}

#[tokio::test]
async fn the_end_fails_no_review() {
    let (mut injector, bundle, _directory) = started(bounds()).await;
    let mut http2 = injector.http2(&bundle).await.expect("a connection");
    let mut slow = connect(injector.webhook, &bundle, &[b"http/1.1"]).await.expect("TLS");
    let body = review(false).to_string();
    let head = format!(
        "POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.expect("a head");
    let begun = http2.send_request(reviewed("/mutate", false)).await.expect("an answer");
    assert_eq!(begun.status(), 200);

    injector.stop();
    until!("it says so", injector.get("/readyz").await.1.starts_with("draining"));
    injector.review(&bundle).await.expect("who has not heard of it is answered");
    slow.write_all(body.as_bytes()).await.expect("a body");
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).await.expect("an answer, and the end");
    let answer = String::from_utf8_lossy(&bytes).to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    let webhook = injector.webhook;
    injector.ended().await;
    assert!(TcpStream::connect(webhook).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_operators_side_says_what_runs() {
    let (injector, _bundle, _directory) = started(bounds()).await;
    let (status, version) = injector.get("/version").await;
    assert_eq!(status, 200);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let (_, metrics) = injector.get("/metrics").await;
    for name in ["weir_build_info{", "process_start_time_seconds ", "weir_inject_results_total{result=\"error\","] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(!metrics.contains("weir_requests_total"), "it serves no calls");
    let (_, declared) = SECTIONS.iter().find(|(title, _)| *title == "The injector").expect("a section");
    for metric in *declared {
        let head = format!("# HELP {} {}.\n", metric.name, metric.help);
        assert!(metrics.contains(&head), "{head}");
    }
    assert_eq!(injector.get("/mutate").await.0, 404);
}

/// Prints how many reviews a second there are, over eight connections that are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "it is what it is for")]
async fn how_many_reviews_a_second() {
    const CONNECTIONS: usize = 8;
    const REVIEWS: usize = 250;
    let (injector, bundle, _directory) = started(bounds()).await;
    let mut clients = Vec::new();
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut sender = injector.http2(&bundle).await.expect("a connection");
        clients.push(tokio::spawn(async move {
            for _ in 0..REVIEWS {
                let answer = sender.send_request(reviewed("/mutate/object", false)).await.expect("an answer");
                assert_eq!(answer.status(), 200);
                answer.into_body().collect().await.expect("a whole body");
            }
        }));
    }
    for client in clients {
        client.await.expect("all are answered");
    }
    #[expect(clippy::cast_precision_loss, reason = "two thousand")]
    let rate = (CONNECTIONS * REVIEWS) as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} reviews a second");
    let counted = injector.series("weir_inject_requests_total{webhook=\"object\"}").await;
    assert_eq!(counted, Some(2000.0));
}
