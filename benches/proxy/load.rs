//! The load: calls in a closed loop (each connection sends its next call when the last one is answered), or in an open one
//! (calls are sent at their time, however the ones before them fare).
//!
//! Blocking sockets and threads, and no HTTP library: what calls costs little, so that little of what is measured is the
//! load, and threads sleep to the microsecond, as timers of the runtime do not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use memchr::memmem;
use tokio::time::Instant;

use crate::Failure;

/// How long the prompt of a common call is, so that the request's body is about 1 KB.
pub(crate) const PROMPT_LEN: usize = 900;
/// How long a connection may be silent before the load gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the number goes that makes a body unlike all others.
const NUMBER: &[u8] = b"000000000000";

/// The number of the next body that is unlike all others.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Calls of one kind to one address.
#[derive(Clone)]
pub(crate) struct Load {
    to: SocketAddr,
    request: Vec<u8>,
    number_at: Option<usize>,
}

/// How calls follow each other.
#[derive(Clone, Copy)]
pub(crate) enum Loop {
    /// Each connection sends its next call when the last one is answered.
    Closed { connections: usize },
    /// So many calls a second are sent, at their time, each on the connection that is free first. Latency is counted from
    /// when a call should have been sent: one that waits for a slow one before it has waited.
    Open { connections: usize, per_second: u32 },
}

/// What a number of calls took.
#[derive(Default)]
pub(crate) struct Sample {
    /// All of them, from the first to the last.
    pub(crate) took: Duration,
    /// Each of them, in order of size.
    pub(crate) latencies: Vec<Duration>,
}

impl Load {
    /// Calls that no cache can answer, each unlike all others, with a prompt of `prompt_len` bytes.
    pub(crate) fn unique(to: SocketAddr, prompt_len: usize) -> Self {
        Self::new(to, prompt_len)
    }

    /// The same call again and again.
    pub(crate) fn repeated(to: SocketAddr) -> Self {
        Self { number_at: None, ..Self::new(to, PROMPT_LEN) }
    }

    fn new(to: SocketAddr, prompt_len: usize) -> Self {
        const LINE: &str = "Tell me of rivers, of what they carry, and of the low walls that hold them up.\\n";
        let prompt = LINE.repeat(prompt_len / LINE.len());
        let number = str::from_utf8(NUMBER).expect("digits");
        let body = format!(
            r#"{{"model":"gpt-4o-mini","temperature":0,"messages":[{{"role":"system","content":"You are brief."}},{{"role":"user","content":"{number}: {prompt}"}}]}}"#
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\naccept: application/json\r\n\
             authorization: Bearer sk-bench\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = (head + &body).into_bytes();
        let number_at = memmem::find(&request, NUMBER);
        Self { to, request, number_at }
    }

    /// Makes calls for `length` and waits for every answer.
    pub(crate) fn run(&self, how: Loop, length: Duration) -> Result<Sample, Failure> {
        let begun = Instant::now();
        let until = begun + length;
        let turn = AtomicU64::new(0);
        let sample = match how {
            Loop::Closed { connections } => self.on(connections, |mut connection| {
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let sent = Instant::now();
                    connection.call()?;
                    latencies.push(sent.elapsed());
                }
                Ok(latencies)
            }),
            Loop::Open { connections, per_second } => self.on(connections, |mut connection| {
                let mut latencies = Vec::new();
                loop {
                    let due = begun + Duration::from_secs(turn.fetch_add(1, Ordering::Relaxed)) / per_second;
                    if due >= until {
                        return Ok(latencies);
                    }
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    connection.call()?;
                    latencies.push(due.elapsed());
                }
            }),
        };
        let mut latencies = sample?;
        latencies.sort_unstable();
        Ok(Sample { took: begun.elapsed(), latencies })
    }

    /// Makes `calls` calls, as fast as 16 connections can.
    pub(crate) fn make(&self, calls: u64) -> Result<(), Failure> {
        let turn = AtomicU64::new(0);
        let made = self.on(16, |mut connection| {
            while turn.fetch_add(1, Ordering::Relaxed) < calls {
                connection.call()?;
            }
            Ok(Vec::new())
        });
        made.map(drop)
    }

    /// Makes one call, and says whether it was answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.connect().and_then(|mut connection| connection.call()).is_ok()
    }

    fn on(
        &self,
        connections: usize,
        calls: impl Fn(Connection) -> Result<Vec<Duration>, String> + Sync,
    ) -> Result<Vec<Duration>, Failure> {
        thread::scope(|scope| {
            let started: Vec<_> = (0..connections).map(|_| scope.spawn(|| calls(self.connect()?))).collect();
            let mut all = Vec::new();
            for connection in started {
                all.extend(connection.join().map_err(|_| "a thread of the load has panicked")??);
            }
            Ok(all)
        })
    }

    fn connect(&self) -> Result<Connection, String> {
        let open = || {
            let stream = TcpStream::connect(self.to)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = open().map_err(|error: std::io::Error| format!("no connection to {}: {error}", self.to))?;
        Ok(Connection { stream, load: self.clone(), buffer: vec![0; 64 * 1024] })
    }
}

/// A connection that is kept, and what is sent on it.
struct Connection {
    stream: TcpStream,
    load: Load,
    buffer: Vec<u8>,
}

impl Connection {
    fn call(&mut self) -> Result<(), String> {
        self.number();
        let answered = self.stream.write_all(&self.load.request).and_then(|()| self.read());
        let (length, head) = answered.map_err(|error| format!("a call to {} failed: {error}", self.load.to))?;
        if length == 0 || !head.starts_with("HTTP/1.1 200") {
            return Err(format!("{} answered with {length} bytes: {head}", self.load.to));
        }
        Ok(())
    }

    /// Makes the body unlike all others, if that is wanted.
    fn number(&mut self) {
        let Some(at) = self.load.number_at else { return };
        let mut number = NEXT.fetch_add(1, Ordering::Relaxed);
        for digit in self.load.request[at..at + NUMBER.len()].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
    }

    /// Reads a reply that says how long it is: the length of its body, and its head where it is not `200`.
    fn read(&mut self) -> std::io::Result<(usize, String)> {
        let mut filled = 0;
        let head_end = loop {
            filled += self.more(filled)?;
            if let Some(at) = memmem::find(&self.buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = &self.buffer[..head_end];
        let shown =
            if head.starts_with(b"HTTP/1.1 200") { "HTTP/1.1 200".into() } else { String::from_utf8_lossy(head) };
        let shown = shown.into_owned();
        let length = length(head).ok_or_else(|| std::io::Error::other("a reply without a length"))?;
        let mut missing = (head_end + length).saturating_sub(filled);
        while missing > 0 {
            missing = missing.saturating_sub(self.more(0)?);
        }
        Ok((length, shown))
    }

    fn more(&mut self, after: usize) -> std::io::Result<usize> {
        match self.stream.read(&mut self.buffer[after..])? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

fn length(head: &[u8]) -> Option<usize> {
    let head = str::from_utf8(head).ok()?;
    let is_length = |(name, value): (&str, &str)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    };
    head.lines().filter_map(|line| line.split_once(':')).find_map(is_length)
}

impl Sample {
    /// The latency that `share` (0 to 1) of the calls stayed within.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        crate::rounds::quantile(&self.latencies, share)
    }
}
