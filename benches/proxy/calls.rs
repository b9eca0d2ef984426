//! The bars of calls: what weir takes of the processor, and of the app's time, beside the floor.

use crate::bench::Bench;
use crate::floor::Kind;
use crate::load::{Load, Loop, PROMPT_LEN};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Round, Side, Spread, interleaved};
use crate::{Failure, nginx};

pub(crate) const P1: Bar =
    Bar { id: "P1", what: "CPU per call, 16 connections ÷ floor", unit: Unit::Ratio, must: 1.5, aim: 1.25 };
pub(crate) const P2: Bar =
    Bar { id: "P2", what: "CPU per call at 1,000 calls/s ÷ floor", unit: Unit::Ratio, must: 1.25, aim: 1.1 };
pub(crate) const P3: Bar =
    Bar { id: "P3", what: "added p99, one connection ÷ floor's", unit: Unit::Ratio, must: 1.2, aim: 1.1 };
pub(crate) const P4: Bar =
    Bar { id: "P4", what: "added p50 at 1,000 calls/s ÷ floor's", unit: Unit::Ratio, must: 1.3, aim: 1.15 };
pub(crate) const P7: Bar =
    Bar { id: "P7", what: "CPU per cache hit ÷ nginx proxy_cache", unit: Unit::Ratio, must: 0.9, aim: 0.65 };
pub(crate) const P8: Bar = Bar {
    id: "P8",
    what: "CPU per miss that is stored ÷ floor with a HashMap",
    unit: Unit::Ratio,
    must: 1.4,
    aim: 1.2,
};
pub(crate) const P9: Bar =
    Bar { id: "P9", what: "CPU per call with 1 MB in ÷ floor", unit: Unit::Ratio, must: 2.2, aim: 1.5 };

pub(crate) const SIXTEEN: Loop = Loop::Closed { connections: 16 };
/// How weir is told not to cache, where what is measured is what it does beside.
pub(crate) const UNCACHED: &str = "cache: { mode: off }";
const ONE: Loop = Loop::Closed { connections: 1 };
const THOUSAND: Loop = Loop::Open { connections: 16, per_second: 1_000 };
/// The prompt of a call of 1 MB.
const MEGABYTE: usize = 1_000_000;

/// P1: as fast as 16 connections can.
pub(crate) fn saturated(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let (floor, metering) = (bench.floor(Kind::Bare)?, bench.floor(Kind::Metering)?);
    let (weir, caching) = (bench.weir(UNCACHED)?, bench.weir("")?);
    let sides = [
        Side::through(floor.process.id(), Load::unique(floor.address, PROMPT_LEN)),
        Side::through(metering.process.id(), Load::unique(metering.address, PROMPT_LEN)),
        Side::through(weir.process.id(), Load::unique(weir.address, PROMPT_LEN)),
        Side::through(caching.process.id(), Load::unique(caching.address, PROMPT_LEN)),
    ];
    let rounds = interleaved(bench.rounds, &sides, SIXTEEN, bench.length)?;
    let [floor, metering, weir, storing] = &rounds[..] else { unreachable!("four sides") };
    Ok(vec![
        Row::of(&P1, cpu(weir, floor), both_cpu(weir, floor)),
        Row::beside(
            &P1,
            "calls/s ÷ floor",
            Spread::of_both(weir, floor, |weir, floor| weir.per_second / floor.per_second),
            "",
        ),
        Row::beside(&P1, "CPU ÷ floor that reads model and usage", cpu(weir, metering), both_cpu(weir, metering)),
        Row::beside(&P1, "CPU of that floor ÷ floor: the least metering", cpu(metering, floor), ""),
        Row::beside(&P1, "CPU ÷ floor, the answer stored", cpu(storing, floor), ""),
    ])
}

/// P2 and P4: a thousand calls a second, whatever becomes of them.
pub(crate) fn steady(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let rounds = beside_direct(bench, THOUSAND)?;
    let [direct, floor, weir] = &rounds[..] else { unreachable!("three sides") };
    Ok(vec![
        Row::of(&P2, cpu(weir, floor), both_cpu(weir, floor)),
        Row::of(&P4, added(direct, floor, weir, |round| round.p50_us), told(direct, floor, weir, |round| round.p50_us)),
        Row::beside(&P4, "p99 at 1,000 calls/s − floor's", minus(weir, floor, |round| round.p99_us), "")
            .in_unit(Unit::Micros),
    ])
}

/// P3: one call after the other.
pub(crate) fn alone(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let rounds = beside_direct(bench, ONE)?;
    let [direct, floor, weir] = &rounds[..] else { unreachable!("three sides") };
    Ok(vec![
        Row::of(&P3, added(direct, floor, weir, |round| round.p99_us), told(direct, floor, weir, |round| round.p99_us)),
        Row::beside(
            &P3,
            "the same of the p50",
            added(direct, floor, weir, |round| round.p50_us),
            told(direct, floor, weir, |round| round.p50_us),
        ),
        Row::beside(&P3, "p99 − floor's", minus(weir, floor, |round| round.p99_us), "").in_unit(Unit::Micros),
    ])
}

/// P7: the same call again and again, beside what nginx takes for it.
pub(crate) fn hits(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let nginx = match nginx::start(bench)? {
        Ok(nginx) => nginx,
        Err(why) => return Ok(vec![Row::skipped(&P7, why)]),
    };
    let (floor, weir) = (bench.floor(Kind::Caching)?, bench.weir("")?);
    let sides = [
        Side::through(nginx.process.id(), Load::repeated(nginx.address)),
        Side::through(floor.process.id(), Load::repeated(floor.address)),
        Side::through(weir.process.id(), Load::repeated(weir.address)),
    ];
    let rounds = interleaved(bench.rounds, &sides, SIXTEEN, bench.length)?;
    let [nginx, floor, weir] = &rounds[..] else { unreachable!("three sides") };
    Ok(vec![
        Row::of(&P7, cpu(weir, nginx), both_cpu(weir, nginx)),
        Row::beside(&P7, "CPU per cache hit ÷ floor with a HashMap", cpu(weir, floor), both_cpu(weir, floor)),
    ])
}

/// P8: calls that nobody has made before, whose answers are stored.
pub(crate) fn misses(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let (floor, weir) = (bench.floor(Kind::Caching)?, bench.weir("")?);
    let sides = [
        Side::through(floor.process.id(), Load::unique(floor.address, PROMPT_LEN)),
        Side::through(weir.process.id(), Load::unique(weir.address, PROMPT_LEN)),
    ];
    let rounds = interleaved(bench.rounds, &sides, SIXTEEN, bench.length)?;
    let [floor, weir] = &rounds[..] else { unreachable!("two sides") };
    Ok(vec![Row::of(&P8, cpu(weir, floor), both_cpu(weir, floor))])
}

/// P9: prompts of a megabyte.
pub(crate) fn large(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let (floor, metering) = (bench.floor(Kind::Bare)?, bench.floor(Kind::Metering)?);
    let (weir, caching) = (bench.weir(UNCACHED)?, bench.weir("")?);
    let sides = [
        Side::through(floor.process.id(), Load::unique(floor.address, MEGABYTE)),
        Side::through(metering.process.id(), Load::unique(metering.address, MEGABYTE)),
        Side::through(weir.process.id(), Load::unique(weir.address, MEGABYTE)),
        Side::through(caching.process.id(), Load::unique(caching.address, MEGABYTE)),
    ];
    let rounds = interleaved(bench.rounds, &sides, Loop::Closed { connections: 4 }, bench.length)?;
    let [floor, metering, weir, storing] = &rounds[..] else { unreachable!("four sides") };
    Ok(vec![
        Row::of(&P9, cpu(weir, floor), both_cpu(weir, floor)),
        Row::beside(&P9, "CPU ÷ floor that reads model and usage", cpu(weir, metering), both_cpu(weir, metering)),
        Row::beside(&P9, "CPU ÷ floor, the answer stored", cpu(storing, floor), ""),
    ])
}

fn beside_direct(bench: &Bench, how: Loop) -> Result<Vec<Vec<Round>>, Failure> {
    let (floor, weir) = (bench.floor(Kind::Bare)?, bench.weir(UNCACHED)?);
    let sides = [
        Side::direct(Load::unique(bench.upstream.address, PROMPT_LEN)),
        Side::through(floor.process.id(), Load::unique(floor.address, PROMPT_LEN)),
        Side::through(weir.process.id(), Load::unique(weir.address, PROMPT_LEN)),
    ];
    interleaved(bench.rounds, &sides, how, bench.length)
}

pub(crate) fn cpu(one: &[Round], other: &[Round]) -> Spread {
    Spread::of_both(one, other, |one, other| one.cpu_us / other.cpu_us)
}

pub(crate) fn both_cpu(one: &[Round], other: &[Round]) -> String {
    let [one, other] = [one, other].map(|rounds| Spread::of(rounds, |round| round.cpu_us).median);
    format!("{one:.1} beside {other:.1} µs")
}

/// What weir adds to the direct way, beside what the floor adds to it.
fn added(direct: &[Round], floor: &[Round], weir: &[Round], figure: impl Fn(&Round) -> f64) -> Spread {
    let direct = Spread::of(direct, &figure).median;
    Spread::of_both(weir, floor, |weir, floor| (figure(weir) - direct) / (figure(floor) - direct))
}

fn minus(weir: &[Round], floor: &[Round], figure: impl Fn(&Round) -> f64) -> Spread {
    Spread::of_both(weir, floor, |weir, floor| figure(weir) - figure(floor))
}

fn told(direct: &[Round], floor: &[Round], weir: &[Round], figure: impl Fn(&Round) -> f64) -> String {
    let [direct, floor, weir] = [direct, floor, weir].map(|rounds| Spread::of(rounds, &figure).median);
    format!("weir {weir:.0}, floor {floor:.0}, direct {direct:.0} µs")
}
