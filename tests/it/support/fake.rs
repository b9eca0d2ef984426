//! A scripted provider: raw TCP, so that every byte and every cut is the test's own. It can stall, cut, trickle and
//! lie, and it remembers what it was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What the provider was asked.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What the provider does once it has been asked.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends these bytes, as one write.
    Send(Bytes),
    /// Goes on when the test says so.
    Wait(Arc<Notify>),
    /// Says nothing more until the other side hangs up.
    Hang,
    /// Ends the connection with a reset.
    Reset,
    /// Sends without end, until the other side hangs up or takes no more; counts the bytes.
    Flood(Arc<AtomicUsize>),
}

/// The steps of one answer. The connection closes after them, but for answers of known length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    steps: Vec<Step>,
    keep_alive: bool,
}

impl Script {
    /// A complete answer of known length, on a connection that stays open.
    pub(crate) fn whole(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut bytes = head(status, headers, &format!("content-length: {}\r\n", body.len())).into_bytes();
        bytes.extend_from_slice(body);
        Self { steps: vec![Step::Send(bytes.into())], keep_alive: true }
    }

    /// A complete JSON answer.
    pub(crate) fn json(status: u16, body: &[u8]) -> Self {
        Self::whole(status, &[("content-type", "application/json")], body)
    }

    /// A chunked answer: one chunk a piece, and its end.
    pub(crate) fn chunked(headers: &[(&str, &str)], pieces: &[&[u8]]) -> Self {
        Self::begin(headers).pieces(pieces).end()
    }

    /// A complete event stream, one chunk a piece.
    pub(crate) fn sse(pieces: &[&[u8]]) -> Self {
        Self::chunked(&[("content-type", "text/event-stream")], pieces)
    }

    /// The head of a chunked answer, for a script that goes on.
    pub(crate) fn begin(headers: &[(&str, &str)]) -> Self {
        let head = head(200, headers, "transfer-encoding: chunked\r\n");
        Self { steps: vec![Step::Send(head.into())], keep_alive: false }
    }

    /// The head of an event stream, for a script that goes on.
    pub(crate) fn begin_sse() -> Self {
        Self::begin(&[("content-type", "text/event-stream")])
    }

    /// A chat's stream that waits after its first chunk until the test says so.
    pub(crate) fn paused_chat(go_on: &Arc<Notify>) -> Self {
        Self::begin_sse()
            .pieces(&[b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"])
            .then(Step::Wait(Arc::clone(go_on)))
            .pieces(&[b"data: [DONE]\n\n"])
            .end()
    }

    /// No answer: just these steps.
    pub(crate) fn only(steps: Vec<Step>) -> Self {
        Self { steps, keep_alive: false }
    }

    pub(crate) fn pieces(mut self, pieces: &[&[u8]]) -> Self {
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            self.steps.push(Step::Send(chunk.into()));
        }
        self
    }

    /// The same after `step`.
    pub(crate) fn after(mut self, step: Step) -> Self {
        self.steps.insert(0, step);
        self
    }

    pub(crate) fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The same, after which the connection stays open.
    pub(crate) fn on_a_kept_connection(self) -> Self {
        Self { keep_alive: true, ..self }
    }

    pub(crate) fn end(mut self) -> Self {
        self.steps.push(Step::Send(Bytes::from_static(b"0\r\n\r\n")));
        self.keep_alive = true;
        self
    }
}

fn head(status: u16, headers: &[(&str, &str)], framing: &str) -> String {
    let fields: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Scripted\r\n{framing}{}\r\n", fields.concat())
}

/// A provider that answers as its script says.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    hung_up: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Fake {
    /// Answers each request by the script that `answer` makes of it.
    pub(crate) async fn start(answer: impl Fn(&Received) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let hung_up = Arc::<AtomicUsize>::default();
        let answer = Arc::new(answer);
        let (log, gone) = (Arc::clone(&received), Arc::clone(&hung_up));
        let server = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (answer, log, gone) = (Arc::clone(&answer), Arc::clone(&log), Arc::clone(&gone));
                tokio::spawn(async move { serve(tcp, &*answer, &log, &gone).await });
            }
        });
        Self { address, received, hung_up, server }
    }

    /// Gives every request the same answer.
    pub(crate) async fn always(script: Script) -> Self {
        Self::start(move |_| script.clone()).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many times the other side hung up on a script that was not over.
    pub(crate) fn hung_up(&self) -> usize {
        self.hung_up.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut tcp: TcpStream,
    answer: &(dyn Fn(&Received) -> Script + Send + Sync),
    log: &Mutex<Vec<Received>>,
    gone: &AtomicUsize,
) {
    tcp.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut tcp, &mut buffer).await {
        let script = answer(&request);
        log.lock().unwrap().push(request);
        let keep_alive = script.keep_alive;
        for step in script.steps {
            if !perform(&mut tcp, step).await {
                gone.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
        if !keep_alive {
            return;
        }
    }
}

/// Performs one step; false if the other side is gone, or the connection is.
async fn perform(tcp: &mut TcpStream, step: Step) -> bool {
    match step {
        Step::Send(bytes) => tcp.write_all(&bytes).await.is_ok(),
        Step::Wait(go_on) => {
            tokio::select! {
                () = go_on.notified() => true,
                () = closed(tcp) => false,
            }
        }
        Step::Hang => {
            closed(tcp).await;
            false
        }
        Step::Reset => {
            tcp.set_zero_linger().unwrap();
            false
        }
        Step::Flood(count) => {
            let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
            while tcp.write_all(&chunk).await.is_ok() {
                count.fetch_add(0x4000, Ordering::SeqCst);
            }
            false
        }
    }
}

async fn closed(tcp: &mut TcpStream) {
    let mut byte = [0; 64];
    while !matches!(tcp.read(&mut byte).await, Ok(0) | Err(_)) {}
}

async fn read_request(tcp: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at;
        }
        // A provider hangs up on what is no HTTP.
        if buffer.first().is_some_and(|byte| !byte.is_ascii()) {
            return None;
        }
        if tcp.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer.drain(..end + 4).collect::<Vec<_>>()).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next()?.split(' ');
    let target = first.nth(1)?.to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into())).collect();
    let mut request = Received { target, headers, body: Vec::new() };
    request.body = if let Some(length) = request.header("content-length") {
        let length = length.parse().unwrap();
        take(tcp, buffer, length).await?
    } else if request.header("transfer-encoding").is_some() {
        read_chunked(tcp, buffer).await?
    } else {
        Vec::new()
    };
    Some(request)
}

async fn read_chunked(tcp: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = loop {
            if let Some(at) = find(buffer, b"\r\n") {
                break at;
            }
            if tcp.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        };
        let line = String::from_utf8(buffer.drain(..line + 2).collect()).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let chunk = take(tcp, buffer, length + 2).await?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

async fn take(tcp: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while buffer.len() < length {
        if tcp.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(buffer.drain(..length).collect())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
