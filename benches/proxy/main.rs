//! What weir costs, held against the bars P1 to P15 of docs/performance.md, beside a floor: a reverse proxy that does
//! nothing but forward, on the same libraries.
//!
//! Run by `make bench`, or `cargo bench --bench proxy -- P1 P9 --rounds 3`. Upstream, floor and weir are processes of their
//! own, so that the CPU time of each can be read from `/proc`; the load comes from this one. Sides take turns within each
//! round, and ratios are made within rounds.

mod bench;
mod calls;
mod floor;
mod load;
mod memory;
mod nginx;
mod process;
mod report;
mod rounds;
mod scaling;
mod start;
mod streams;
mod upstream;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::report::{Bar, Row};

type Failure = Box<dyn std::error::Error>;

/// Measures weir beside a bare reverse proxy, and holds the figures against the bars.
#[derive(Parser)]
struct Arguments {
    /// The bars to measure, such as `P1 P9`; all of them without.
    bars: Vec<String>,
    /// How many rounds there are.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many seconds one side is measured in a round.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// A file to write the figures to, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A file to write the table to, as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Fail where a bar is missed.
    #[arg(long)]
    strict: bool,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it is started by itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    Upstream {
        #[arg(long)]
        certificate: Option<PathBuf>,
    },
    Floor(floor::Arguments),
}

/// Bars that are measured together, and how.
struct Measure {
    bars: &'static [&'static Bar],
    of: fn(&Bench) -> Result<Vec<Row>, Failure>,
}

const MEASURES: &[Measure] = &[
    Measure { bars: &[&calls::P1], of: calls::saturated },
    Measure { bars: &[&calls::P2, &calls::P4], of: calls::steady },
    Measure { bars: &[&calls::P3], of: calls::alone },
    Measure { bars: &[&streams::P5, &streams::P6], of: streams::told },
    Measure { bars: &[&calls::P7], of: calls::hits },
    Measure { bars: &[&calls::P8], of: calls::misses },
    Measure { bars: &[&calls::P9], of: calls::large },
    Measure { bars: &[&memory::P10], of: memory::idle },
    Measure { bars: &[&memory::P11], of: memory::streams },
    Measure { bars: &[&memory::P12], of: memory::cache },
    Measure { bars: &[&start::P13], of: start::started },
    Measure { bars: &[&start::P14], of: start::sizes },
    Measure { bars: &[&scaling::P15], of: scaling::secured_and_scaled },
];

fn main() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Upstream { certificate }) => upstream::serve(certificate.as_deref())?,
        Some(Role::Floor(floor)) => floor::serve(floor)?,
        None => return measure(&arguments),
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this program is for")]
fn measure(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let chosen = chosen(&arguments.bars)?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let machine = machine(arguments);
    let bench = Bench::new(folder.path(), arguments.rounds, Duration::from_secs_f64(arguments.seconds))?;
    println!("{}", headed(&machine, &bench));
    let mut rows = Vec::new();
    for measure in chosen {
        let names: Vec<&str> = measure.bars.iter().map(|bar| bar.id).collect();
        eprintln!("measuring {} …", names.join(", "));
        let failed = |error: Failure| measure.bars.iter().map(|bar| Row::failed(bar, error.to_string())).collect();
        rows.extend((measure.of)(&bench).unwrap_or_else(failed));
    }
    let table = report::markdown(&rows);
    println!("{table}");
    if let Some(file) = &arguments.markdown {
        fs::write(file, table)?;
    }
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report::json(&machine, &rows)))?;
    }
    let is_fault = arguments.strict && rows.iter().any(Row::is_fault);
    Ok(if is_fault { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The measures of the bars that are named; all of them if none is.
fn chosen(named: &[String]) -> Result<Vec<&'static Measure>, Failure> {
    let is_known = |name: &&String| MEASURES.iter().any(|measure| measure.has(name));
    if let Some(unknown) = named.iter().find(|name| !is_known(name)) {
        return Err(format!("there is no bar {unknown}: P1 to P15 are known").into());
    }
    Ok(MEASURES.iter().filter(|measure| named.is_empty() || named.iter().any(|name| measure.has(name))).collect())
}

impl Measure {
    fn has(&self, name: &str) -> bool {
        self.bars.iter().any(|bar| bar.id.eq_ignore_ascii_case(name))
    }
}

/// What was measured, and on what.
fn machine(arguments: &Arguments) -> Value {
    let first = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.trim_start_matches(key).trim_matches([' ', '\t', ':']).to_owned()
    };
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    json!({
        "commit": said("git", &["describe", "--always", "--dirty"]),
        "compiler": said("rustc", &["--version"]),
        "processor": first("/proc/cpuinfo", "model name"),
        "kernel": first("/proc/sys/kernel/osrelease", ""),
        "load_average": first("/proc/loadavg", ""),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    })
}

/// What is printed above the table.
fn headed(machine: &Value, bench: &Bench) -> String {
    let said = |key: &str| machine[key].as_str().unwrap_or_default().to_owned();
    let (load, proxy) = (bench.cores.load(), bench.cores.proxy());
    let pinned = match (load, proxy) {
        (Some(load), Some(proxy)) => format!("proxies on processor {proxy}, load and upstream on {load}"),
        _ => "nothing pinned, for want of a second processor or of taskset: ratios are of little use".to_owned(),
    };
    let busy: f64 = said("load_average").split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0.0);
    let warning = if busy > 0.5 {
        "\nWARNING: others use this machine. Ratios of CPU time hold roughly, latencies and absolute figures do not."
    } else {
        ""
    };
    format!(
        "weir at {}, {}\n{} processors ({}), Linux {}, load average {}\n{pinned}\n{} rounds of {} s a side; ledger in {}, \
         log to a file there at its default level{warning}\n",
        said("commit"),
        said("compiler"),
        bench.cores.count,
        said("processor"),
        said("kernel"),
        said("load_average"),
        machine["rounds"],
        machine["seconds"],
        bench.folder.display(),
    )
}
