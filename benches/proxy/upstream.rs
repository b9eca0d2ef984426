//! The provider of the bench: one canned chat completion for every call, as fast as hyper can answer, or a stream of
//! chunks that are sent at their time. A chunk says when it was sent, so that who receives it can tell how long it took.
//!
//! Single-threaded but for the pacer, which sleeps to the microsecond, as timers of the runtime do not: two hundred
//! streams of a chunk each ten milliseconds are one chunk each fifty microseconds, not twenty each millisecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::Failure;
use crate::process::announce;

/// How long the answer's text is, so that the reply is about 1.6 KB: a few paragraphs.
const TEXT_LEN: usize = 1_250;
/// Asks for a stream: `<chunks>x<microseconds between them>`.
pub(crate) const STREAM: &str = "x-bench-stream";
/// What a chunk's `system_fingerprint` begins with; nanoseconds since 1970 follow, when it was sent.
pub(crate) const SENT_AT: &str = "fp_";

/// Serves until it is killed; over TLS with `cert.pem` and `key.pem` in `certificate`, if there is one.
pub(crate) fn serve(certificate: Option<&Path>) -> Result<(), Failure> {
    let tls = certificate.map(acceptor).transpose()?;
    let (streams, asked) = channel();
    std::thread::spawn(move || pace(&asked));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        let provider = Arc::new(Provider { reply: reply(), streams });
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(connection(stream, tls.clone(), Arc::clone(&provider)));
        }
    })
}

struct Provider {
    reply: Bytes,
    streams: Sender<Stream>,
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, provider: Arc<Provider>) {
    match tls {
        None => serve_on(stream, provider).await,
        // Who breaks off a handshake has seen why.
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve_on(stream, provider).await;
            }
        }
    }
}

async fn serve_on<S: AsyncRead + AsyncWrite + Unpin>(stream: S, provider: Arc<Provider>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&provider)));
    // Who hangs up has been answered or has failed, and counts it.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    provider: Arc<Provider>,
) -> Result<Response<Either<Full<Bytes>, Chunks>>, Infallible> {
    let (head, mut body) = request.into_parts();
    // A broken upload is the load's own failure, which counts it.
    while let Some(Ok(_)) = body.frame().await {}
    let (body, kind) = match asked_stream(&head.headers) {
        Some((chunks, every)) => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let stream = Stream { due: Instant::now(), left: chunks, every, chunks: sender };
            provider.streams.send(stream).expect("the pacer lives as long as this process");
            (Either::Right(Chunks(receiver)), "text/event-stream; charset=utf-8")
        }
        None => (Either::Left(Full::new(provider.reply.clone())), "application/json"),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn asked_stream(headers: &HeaderMap) -> Option<(u32, Duration)> {
    let (chunks, every) = headers.get(STREAM)?.to_str().ok()?.split_once('x')?;
    Some((chunks.parse().ok()?, Duration::from_micros(every.parse().ok()?)))
}

/// The body of a stream: what the pacer hands over.
struct Chunks(mpsc::UnboundedReceiver<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// A stream, and when its next chunk is due.
struct Stream {
    due: Instant,
    left: u32,
    every: Duration,
    chunks: mpsc::UnboundedSender<Bytes>,
}

/// Sends every chunk at its time.
fn pace(asked: &Receiver<Stream>) {
    let begun = Instant::now();
    let mut waiting = Waiting::default();
    loop {
        let pause = waiting.next_due().map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
        match asked.recv_timeout(pause) {
            Ok(stream) => waiting.begin(stream, begun),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => waiting.send_next(),
        }
    }
}

#[derive(Default)]
struct Waiting {
    order: BinaryHeap<Reverse<(Instant, usize)>>,
    streams: Vec<Option<Stream>>,
}

impl Waiting {
    fn next_due(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((due, _))| *due)
    }

    /// Gives the stream a place of its own in the interval: by the golden ratio, places are evenly spread however many
    /// streams there are.
    fn begin(&mut self, mut stream: Stream, begun: Instant) {
        const GOLDEN: u128 = 618_033_989;
        let every = stream.every.as_nanos().max(1);
        let number = self.streams.len();
        let place = (number as u128 * GOLDEN % 1_000_000_000) * every / 1_000_000_000;
        let wait = (place + every - begun.elapsed().as_nanos() % every) % every;
        stream.due = Instant::now() + Duration::from_nanos(u64::try_from(wait).unwrap_or(0));
        self.order.push(Reverse((stream.due, number)));
        self.streams.push(Some(stream));
    }

    fn send_next(&mut self) {
        let Some(Reverse((_, number))) = self.order.pop() else { return };
        let Some(mut stream) = self.streams[number].take() else { return };
        let is_over = stream.left == 0;
        let chunk = if is_over { Bytes::from_static(END.as_bytes()) } else { chunk() };
        // A stream that nobody reads any more is not sent.
        if stream.chunks.send(chunk).is_err() || is_over {
            return;
        }
        stream.left -= 1;
        stream.due += stream.every;
        self.order.push(Reverse((stream.due, number)));
        self.streams[number] = Some(stream);
    }
}

fn chunk() -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Bytes::from(format!(
        r#"data: {{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"{SENT_AT}{now}","choices":[{{"index":0,"delta":{{"content":" weir"}},"logprobs":null,"finish_reason":null}}],"usage":null}}

"#
    ))
}

/// The end of the answer, the usage, and the end of the stream.
const END: &str = r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":250,"completion_tokens":100,"total_tokens":350,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

"#;

fn reply() -> Bytes {
    let text = "A weir is a low wall across a river. ".repeat(TEXT_LEN / 37 + 1);
    let reply = serde_json::json!({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o-mini-2024-07-18",
        "choices": [{
            "index": 0, "finish_reason": "stop", "logprobs": null,
            "message": { "role": "assistant", "content": &text[..TEXT_LEN], "refusal": null },
        }],
        "usage": {
            "prompt_tokens": 250, "completion_tokens": 312, "total_tokens": 562,
            "prompt_tokens_details": { "cached_tokens": 0 }, "completion_tokens_details": { "reasoning_tokens": 0 },
        },
        "system_fingerprint": "fp_bench",
    });
    Bytes::from(reply.to_string())
}

/// Makes a certificate for this machine's loopback, `cert.pem` and `key.pem` in `folder`.
pub(crate) fn certify(folder: &Path) -> Result<(), Failure> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    std::fs::write(folder.join("cert.pem"), made.cert.pem())?;
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(())
}

fn acceptor(folder: &Path) -> Result<TlsAcceptor, Failure> {
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key)?;
    // HTTP/1.1 alone, so that floor and weir speak the same.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
