//! The bars of what is there before the first call: how long weir takes to start, and how large it is.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::bench::Bench;
use crate::load::{Load, PROMPT_LEN};
use crate::process;
use crate::report::{Bar, Row, Unit};
use crate::rounds::Spread;

pub(crate) const P13: Bar =
    Bar { id: "P13", what: "exec to first proxied 200", unit: Unit::Millis, must: 20.0, aim: 10.0 };
pub(crate) const P14: Bar = Bar { id: "P14", what: "binary, stripped", unit: Unit::Megabytes, must: 20.0, aim: 15.0 };
/// The second half of P14.
const SLIM: Bar = Bar { id: "P14", what: "binary, --no-default-features", unit: Unit::Megabytes, must: 10.0, aim: 8.0 };

/// Fresh starts.
const STARTS: usize = 15;
/// How often a start is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names the binary without default features, as `make bench` has built it.
const SLIM_BINARY: &str = "BENCH_SLIM";

/// P13: from nothing to an answer.
pub(crate) fn started(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut times = Vec::new();
    for _ in 0..=STARTS {
        // Nobody else takes the port in between: the system gives ports in turn.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        times.push(first_answer(bench, address)?);
    }
    // The first reads the program from the disk.
    Ok(vec![Row::of(&P13, Spread::of(&times[1..], |time| time.as_secs_f64() * 1e3), format!("{STARTS} starts"))])
}

fn first_answer(bench: &Bench, address: SocketAddr) -> Result<Duration, Failure> {
    let load = Load::unique(address, PROMPT_LEN);
    let plan = bench.plan("");
    plan.prepare(&address.to_string())?;
    let begun = Instant::now();
    let _weir = plan.exec()?;
    while !load.is_answered() {
        if begun.elapsed() > PATIENCE {
            return Err("weir did not answer in time".into());
        }
        sleep(LOOK_EVERY);
    }
    Ok(begun.elapsed())
}

/// P14: what has to be carried.
pub(crate) fn sizes(_: &Bench) -> Result<Vec<Row>, Failure> {
    let whole = Row::of(&P14, Spread::one(megabytes(&process::weir())?), "");
    let slim = match std::env::var_os(SLIM_BINARY).map(PathBuf::from).filter(|file| file.exists()) {
        Some(file) => Row::of(&SLIM, Spread::one(megabytes(&file)?), ""),
        None => Row::skipped(&SLIM, format!("{SLIM_BINARY} names no binary that is there; `make bench` builds one")),
    };
    Ok(vec![whole, slim])
}

fn megabytes(file: &std::path::Path) -> Result<f64, Failure> {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let bytes = fs::metadata(file)?.len() as f64;
    Ok(bytes / 1e6)
}
