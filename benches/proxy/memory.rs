//! The bars of memory: what weir has resident when idle, after many calls, with many streams open, and with a full cache.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::Failure;
use crate::bench::Bench;
use crate::calls::UNCACHED;
use crate::load::{Load, PROMPT_LEN};
use crate::process::Process;
use crate::report::{Bar, Row, Unit};
use crate::rounds::Spread;
use crate::streams::Stream;

pub(crate) const P10: Bar = Bar { id: "P10", what: "resident when idle", unit: Unit::Megabytes, must: 10.0, aim: 7.0 };
/// The second half of P10.
const GROWTH: Bar =
    Bar { id: "P10", what: "growth by 100,000 calls, cache off", unit: Unit::Megabytes, must: 4.0, aim: 2.0 };
pub(crate) const P11: Bar =
    Bar { id: "P11", what: "resident with 1,000 open streams", unit: Unit::Megabytes, must: 45.0, aim: 38.0 };
pub(crate) const P12: Bar =
    Bar { id: "P12", what: "resident with a full cache ÷ its bound", unit: Unit::Ratio, must: 1.3, aim: 1.15 };

/// How long weir may give back what its start needed, before it counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(2);
/// Calls between two looks at the memory.
const CALLS: u64 = 100_000;
const STREAMS: usize = 1_000;
/// Chunks of each open stream that are waited for.
const CHUNKS: usize = 3;
/// The bound of the cache that is filled.
const CACHE_BYTES: f64 = 64.0 * 1024.0 * 1024.0;
/// Most rounds of calls to fill it.
const FILLS: usize = 40;

/// P10: idle, and after many calls.
pub(crate) fn idle(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let weir = bench.weir(UNCACHED)?;
    sleep(IDLE_AFTER);
    let idle = megabytes(&weir.process)?;
    let load = Load::unique(weir.address, PROMPT_LEN);
    // What the first calls need once is not growth.
    load.make(CALLS / 50)?;
    sleep(IDLE_AFTER);
    let before = megabytes(&weir.process)?;
    load.make(CALLS)?;
    sleep(IDLE_AFTER);
    let after = megabytes(&weir.process)?;
    Ok(vec![
        Row::of(&P10, Spread::one(idle), ""),
        Row::of(
            &GROWTH,
            Spread::one(after - before),
            format!("from {before:.1} MB, after {} calls, to {after:.1} MB", CALLS / 50),
        ),
    ])
}

/// P11: many answers that are being told.
pub(crate) fn streams(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let weir = bench.weir("")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let resident = runtime.block_on(async {
        let mut opening = JoinSet::new();
        for number in 0..STREAMS {
            opening.spawn(opened(weir.address, number));
        }
        let mut open = Vec::new();
        while let Some(stream) = opening.join_next().await {
            open.push(stream??);
        }
        megabytes(&weir.process)
    });
    Ok(vec![Row::of(&P11, Spread::one(resident?), "")])
}

/// A stream that has begun and goes on.
async fn opened(to: SocketAddr, number: usize) -> Result<Stream, String> {
    const APART_US: u32 = 500_000;
    let open = async {
        let mut stream = Stream::open(to, number, u32::MAX, APART_US).await?;
        for _ in 0..CHUNKS {
            stream.next().await?.ok_or("a stream has ended early")?;
        }
        Ok::<_, Failure>(stream)
    };
    open.await.map_err(|error| error.to_string())
}

/// P12: as many answers as the cache may hold.
pub(crate) fn cache(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let (weir, admin) = bench.weir_and_admin("cache: { max_bytes: 64MiB, max_entries: 1000000 }")?;
    sleep(IDLE_AFTER);
    let idle = megabytes(&weir.process)?;
    let load = Load::unique(weir.address, PROMPT_LEN);
    for _ in 0..FILLS {
        load.make(5_000)?;
        if evicted(admin)? > 0.0 {
            break;
        }
    }
    if evicted(admin)? == 0.0 {
        return Err("the cache was not full in time".into());
    }
    sleep(IDLE_AFTER);
    let full = megabytes(&weir.process)?;
    let bound = CACHE_BYTES / 1e6;
    let entries = metric(&scrape(admin)?, "weir_cache_entries");
    Ok(vec![
        Row::of(
            &P12,
            Spread::one(full / bound),
            format!("{full:.1} MB with {entries:.0} answers within {bound:.1} MB"),
        ),
        Row::beside(
            &P12,
            "growth by that ÷ its bound",
            Spread::one((full - idle) / bound),
            format!("{idle:.1} MB before"),
        ),
    ])
}

fn megabytes(process: &Process) -> Result<f64, Failure> {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let kib = process.resident_kib()? as f64;
    Ok(kib * 1024.0 / 1e6)
}

/// Answers that were put out of the cache for want of room.
fn evicted(admin: SocketAddr) -> Result<f64, Failure> {
    Ok(metric(&scrape(admin)?, "weir_cache_evictions_total"))
}

/// The sum of all series of a metric.
fn metric(exposition: &str, name: &str) -> f64 {
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    exposition.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn scrape(admin: SocketAddr) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
