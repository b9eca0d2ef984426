//! P15: what is left of the ratios when the upstream speaks TLS, and what a second processor is good for.

use crate::Failure;
use crate::bench::Bench;
use crate::calls::{SIXTEEN, UNCACHED, both_cpu, cpu};
use crate::floor::Kind;
use crate::load::{Load, PROMPT_LEN};
use crate::process::{ENOUGH_FOR_TWO, Plan, Process};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, Spread, interleaved};

pub(crate) const P15: Bar =
    Bar { id: "P15", what: "calls/s with two processors ÷ with one", unit: Unit::Gain, must: 1.8, aim: 1.8 };

/// P15, both halves.
pub(crate) fn secured_and_scaled(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut rows = vec![secured(bench)?];
    rows.extend(scaled(bench)?);
    Ok(rows)
}

fn secured(bench: &Bench) -> Result<Row, Failure> {
    let folder = bench.folder.display().to_string();
    let upstream = Process::of_this_program(bench.cores.load(), &["upstream", "--certificate", &folder])?;
    let certificate = format!("{folder}/cert.pem");
    let floor = bench.floor_to(Kind::Bare, &[&upstream.address.to_string(), "--certificate", &certificate])?;
    let trust = format!("{UNCACHED}\nupstream: {{ ca_files: ['{certificate}'] }}");
    let (weir, _) = Plan { upstream: format!("https://{}", upstream.address), ..bench.plan(&trust) }.start()?;
    let sides = [
        Side::through(floor.process.id(), Load::unique(floor.address, PROMPT_LEN)),
        Side::through(weir.process.id(), Load::unique(weir.address, PROMPT_LEN)),
    ];
    let rounds = interleaved(bench.rounds, &sides, SIXTEEN, bench.length)?;
    let [floor, weir] = &rounds[..] else { unreachable!("two sides") };
    let what = "CPU per call ÷ floor, TLS to the upstream";
    Ok(Row::beside(&P15, what, cpu(weir, floor), both_cpu(weir, floor)).in_unit(Unit::Ratio))
}

/// Where there are too few processors, load and upstream would have to share with weir: then what two can do at most is told
/// from what a call takes of them.
fn scaled(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let Some(two) = bench.cores.two() else {
        return Ok(vec![Row::skipped(&P15, "nothing can be pinned on this machine")]);
    };
    let one = bench.weir(UNCACHED)?;
    let (both, _) = Plan { workers: 2, cores: Some(&two), ..bench.plan(UNCACHED) }.start()?;
    let sides = [&one, &both].map(|weir| Side::through(weir.process.id(), Load::unique(weir.address, PROMPT_LEN)));
    let rounds = interleaved(bench.rounds, &sides, SIXTEEN, bench.length)?;
    let [one, both] = &rounds[..] else { unreachable!("two sides") };
    let bound = Spread::of_both(one, both, |one, both| (2.0 * one.cpu_us / both.cpu_us).min(2.0));
    let beside = Row::beside(&P15, "two processors' calls ÷ one's, by CPU per call", bound, both_cpu(both, one));
    if bench.cores.count < ENOUGH_FOR_TWO {
        let why = format!("there are {} processors, and load and upstream need theirs", bench.cores.count);
        return Ok(vec![Row::skipped(&P15, why), beside]);
    }
    let speed = Spread::of_both(both, one, |both, one| both.per_second / one.per_second);
    Ok(vec![Row::of(&P15, speed, ""), beside])
}
