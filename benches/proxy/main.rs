//! What weir costs, measured beside a floor: a reverse proxy that does nothing but forward, on the same libraries.
//!
//! Run by `make bench`. Upstream, floor and weir are processes of their own, so that the CPU seconds of each can be
//! read from `/proc`; the load comes from this one. Rounds are interleaved: direct, floor, weir without its cache, weir
//! storing answers, weir answering from its cache, and again, so that a change of the machine's mood touches all alike.
//! The machine is shared by all of them: compare the ratios, and CPU per call, rather than calls per second.

mod floor;
mod load;
mod process;
mod upstream;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::load::{Load, Sample};
use crate::process::Process;

/// Rounds of every way.
const ROUNDS: usize = 10;
/// Calls of one way in one round. With three ways through weir, the rounds add up to 150,000 calls of weir.
const CALLS: usize = 5_000;
/// Calls of every way before anything is measured.
const WARM_UP_CALLS: usize = 1_000;
/// Fresh starts, of which the median time counts.
const STARTS: usize = 5;

/// One way for a call to go.
struct Way {
    name: &'static str,
    load: Load,
    /// The process whose CPU seconds count; none for the direct way.
    proxy: Option<u32>,
    samples: Vec<Sample>,
    cpu: Duration,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("upstream") => upstream::serve(),
        Some("floor") => floor::serve(arguments[2].parse()?),
        _ => measure(),
    }
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn measure() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let (_upstream, upstream_address) = Process::of_this_program(&["upstream"])?;
    let (floor, floor_address) = Process::of_this_program(&["floor", &upstream_address.to_string()])?;
    let ready_after = median_start(folder.path(), upstream_address)?;
    let (weir, weir_address) = Process::weir(folder.path(), upstream_address)?;
    let memory_idle = weir.resident_kib()?;

    let mut ways = ways(upstream_address, (floor_address, floor.id()), (weir_address, weir.id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for way in &mut ways {
            way.load.run(WARM_UP_CALLS).await?;
        }
        for _ in 0..ROUNDS {
            for way in &mut ways {
                way.round().await?;
            }
        }
        Ok::<(), Failure>(())
    })?;

    println!("{}", table(&ways));
    println!("{}", hit_beside_direct(&ways));
    println!("weir, exec to ready:             {:.1} ms (median of {STARTS})", ready_after.as_secs_f64() * 1e3);
    println!("weir, resident memory idle:      {:.1} MiB", mib(memory_idle));
    println!("weir, after {:>7} calls:       {:.1} MiB", weir_calls(&ways, weir.id()), mib(weir.resident_kib()?));
    println!("weir, binary:                    {:.1} MiB", mib(std::fs::metadata(process::WEIR)?.len() / 1024));
    Ok(())
}

impl Way {
    fn new(name: &'static str, load: Load, proxy: Option<u32>) -> Self {
        Self { name, load, proxy, samples: Vec::new(), cpu: Duration::ZERO }
    }

    async fn round(&mut self) -> Result<(), Failure> {
        let cpu = |proxy: Option<u32>| proxy.map_or(Ok(Duration::ZERO), process::cpu_time);
        let before = cpu(self.proxy)?;
        self.samples.push(self.load.run(CALLS).await?);
        self.cpu += cpu(self.proxy)?.saturating_sub(before);
        Ok(())
    }

    fn calls(&self) -> usize {
        self.samples.iter().map(|sample| sample.latencies.len()).sum()
    }

    fn calls_per_second(&self) -> f64 {
        as_float(self.calls()) / self.samples.iter().map(|sample| sample.took.as_secs_f64()).sum::<f64>()
    }

    /// CPU seconds of the proxy for each thousand calls.
    fn cpu_per_thousand(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / as_float(self.calls())
    }

    /// The latency that `share` (0 to 1) of the calls stayed within.
    fn quantile(&self, share: f64) -> Duration {
        let mut all: Vec<Duration> = self.samples.iter().flat_map(|sample| sample.latencies.iter().copied()).collect();
        all.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
        let rank = (share * as_float(all.len() - 1)).round() as usize;
        all[rank]
    }
}

fn ways(upstream: SocketAddr, floor: (SocketAddr, u32), weir: (SocketAddr, u32)) -> Vec<Way> {
    let (floor, floor_id) = (floor.0, Some(floor.1));
    let (weir, weir_id) = (weir.0, Some(weir.1));
    vec![
        Way::new("direct", Load::unique(upstream), None),
        Way::new("floor", Load::unique(floor), floor_id),
        Way::new("weir, no-store", Load::unique(weir).with_header("cache-control", "no-store"), weir_id),
        Way::new("weir, miss", Load::unique(weir), weir_id),
        Way::new("weir, hit", Load::repeated(weir), weir_id),
    ]
}

fn median_start(folder: &Path, upstream: SocketAddr) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = tokio::time::Instant::now();
        let (_weir, _) = Process::weir(folder, upstream)?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[STARTS / 2])
}

fn table(ways: &[Way]) -> String {
    let floor = &ways[1];
    let head = "way               calls/s    p50 µs    p99 µs   CPU s/1000   calls/s ÷ floor   CPU ÷ floor\n";
    let rows = ways.iter().map(|way| {
        let (p50, p99) = (way.quantile(0.50).as_micros(), way.quantile(0.99).as_micros());
        let speed = way.calls_per_second();
        let ratio = speed / floor.calls_per_second();
        let row = format!("{:<15} {speed:>9.0} {p50:>9} {p99:>9}", way.name);
        if way.proxy.is_none() {
            return format!("{row}            –   {ratio:>15.2}             –\n");
        }
        let cpu = way.cpu_per_thousand();
        format!("{row}   {cpu:>10.4}   {ratio:>15.2}   {:>11.2}\n", cpu / floor.cpu_per_thousand())
    });
    std::iter::once(head.to_owned()).chain(rows).collect()
}

/// The upstream is a bare hyper server that answers a constant: faster than that, an answer from memory cannot be.
fn hit_beside_direct(ways: &[Way]) -> String {
    let [direct, .., hit] = ways else { unreachable!("there are several ways") };
    let speed = hit.calls_per_second() / direct.calls_per_second();
    let latency = hit.quantile(0.50).as_secs_f64() / direct.quantile(0.50).as_secs_f64();
    format!(
        "weir, hit ÷ direct (bare hyper answering a constant): {speed:.2} of the calls/s, {latency:.2} of the p50\n"
    )
}

fn weir_calls(ways: &[Way], weir: u32) -> usize {
    ways.iter().filter(|way| way.proxy == Some(weir)).map(|way| way.calls() + WARM_UP_CALLS).sum()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn as_float(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
