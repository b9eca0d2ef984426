//! The bars of streams: what weir takes of the processor for a chunk, and how long a chunk is on its way.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Failure;
use crate::bench::Bench;
use crate::floor::Kind;
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Spread, as_float, in_turn, measured, micros, quantile};
use crate::upstream::{SENT_AT, STREAM};

pub(crate) const P5: Bar =
    Bar { id: "P5", what: "CPU per chunk, 200 streams ÷ floor", unit: Unit::Ratio, must: 1.25, aim: 1.1 };
pub(crate) const P6: Bar =
    Bar { id: "P6", what: "p50 of a chunk's way − floor's", unit: Unit::Micros, must: 30.0, aim: 10.0 };

/// Streams at once.
const STREAMS: usize = 200;
/// Of so many chunks each, so many microseconds apart.
const CHUNKS: u32 = 100;
const APART_US: u32 = 10_000;

/// What one side took in one round.
struct Round {
    /// CPU time of the proxy for each chunk, in microseconds.
    cpu: f64,
    /// How long chunks were on their way, in microseconds.
    p50: f64,
    p99: f64,
}

/// P5 and P6: two hundred answers told at once.
pub(crate) fn told(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let (floor, metering) = (bench.floor(Kind::Bare)?, bench.floor(Kind::Metering)?);
    let weir = bench.weir("")?;
    let sides = [
        (bench.upstream.address, None),
        (floor.address, Some(floor.process.id())),
        (metering.address, Some(metering.process.id())),
        (weir.address, Some(weir.process.id())),
    ];
    for (to, _) in sides {
        round(to, None)?;
    }
    let rounds = in_turn(bench.rounds, sides.len(), |side| round(sides[side].0, sides[side].1))?;
    let [direct, floor, metering, weir] = &rounds[..] else { unreachable!("four sides") };
    let cpu = |one: &[Round], other: &[Round]| Spread::of_both(one, other, |one, other| one.cpu / other.cpu);
    let middle = |rounds: &[Round], figure: fn(&Round) -> f64| Spread::of(rounds, figure).median;
    let [p50, p99]: [fn(&Round) -> f64; 2] = [|round| round.p50, |round| round.p99];
    let told = |figure| {
        let [direct, floor, weir] = [direct, floor, weir].map(|rounds| middle(rounds, figure));
        format!("weir {weir:.0}, floor {floor:.0}, direct {direct:.0} µs")
    };
    let cpus = [weir, floor].map(|rounds| middle(rounds, |round| round.cpu));
    Ok(vec![
        Row::of(&P5, cpu(weir, floor), format!("{:.2} beside {:.2} µs", cpus[0], cpus[1])),
        Row::beside(&P5, "CPU per chunk ÷ floor that reads usage", cpu(weir, metering), ""),
        Row::of(&P6, Spread::of_both(weir, floor, |weir, floor| weir.p50 - floor.p50), told(p50)),
        Row::beside(
            &P6,
            "p99 of a chunk's way − floor's",
            Spread::of_both(weir, floor, |weir, floor| weir.p99 - floor.p99),
            told(p99),
        ),
    ])
}

fn round(to: SocketAddr, proxy: Option<u32>) -> Result<Round, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut transits, cpu) = measured(proxy, || runtime.block_on(all(to)))?;
    transits.sort_unstable();
    Ok(Round {
        cpu: micros(cpu) / as_float(transits.len()),
        p50: micros(quantile(&transits, 0.50)),
        p99: micros(quantile(&transits, 0.99)),
    })
}

/// All streams: how long each chunk was on its way.
async fn all(to: SocketAddr) -> Result<Vec<Duration>, Failure> {
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        streams.spawn(async move { one(to, number).await.map_err(|error| error.to_string()) });
    }
    let mut transits = Vec::with_capacity(STREAMS * CHUNKS as usize);
    while let Some(stream) = streams.join_next().await {
        transits.extend(stream??);
    }
    let missing = (STREAMS * CHUNKS as usize).saturating_sub(transits.len());
    if missing > 0 { Err(format!("{missing} chunks from {to} are missing").into()) } else { Ok(transits) }
}

async fn one(to: SocketAddr, number: usize) -> Result<Vec<Duration>, Failure> {
    let mut stream = Stream::open(to, number, CHUNKS, APART_US).await?;
    let mut transits = Vec::with_capacity(CHUNKS as usize);
    while let Some(data) = stream.next().await? {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        transits.extend(sent_at(&data).map(|sent| now.saturating_sub(sent)));
    }
    Ok(transits)
}

/// When the chunks in `data` were sent, since 1970.
fn sent_at(data: &[u8]) -> impl Iterator<Item = Duration> {
    memmem::find_iter(data, SENT_AT).filter_map(|at| {
        let digits = &data[at + SENT_AT.len()..];
        let end = memchr::memchr(b'"', digits)?;
        Some(Duration::from_nanos(str::from_utf8(&digits[..end]).ok()?.parse().ok()?))
    })
}

/// A stream that is read.
pub(crate) struct Stream {
    body: Incoming,
    /// The connection is open for as long as somebody could send on it.
    _sender: SendRequest<Full<Bytes>>,
}

impl Stream {
    pub(crate) async fn open(to: SocketAddr, number: usize, chunks: u32, apart_us: u32) -> Result<Self, Failure> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let body = format!(
            r#"{{"model":"gpt-4o-mini","stream":true,"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"{number}: Tell me of rivers."}}]}}"#
        );
        let request = Request::post("/v1/chat/completions")
            .header(header::HOST, to.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, "Bearer sk-bench")
            .header(header::CACHE_CONTROL, "no-store")
            .header(STREAM, format!("{chunks}x{apart_us}"))
            .body(Full::new(Bytes::from(body)))?;
        let reply = sender.send_request(request).await?;
        if !reply.status().is_success() {
            return Err(format!("{to} answered {}", reply.status()).into());
        }
        Ok(Self { body: reply.into_body(), _sender: sender })
    }

    /// What comes next; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
