//! Rounds: every side is measured in each, in an order that is turned round each time, so that a change of the machine's
//! mood touches all alike. What counts is the ratio within a round; of those the median is told, and how far they lie
//! apart.

use std::thread;
use std::time::Duration;

use crate::Failure;
use crate::load::{Load, Loop, Sample};
use crate::process::CpuTimes;

/// How long a proxy may work on after its calls, on what it writes down of them.
const SETTLE: Duration = Duration::from_millis(150);

/// One way for calls to go.
pub(crate) struct Side {
    pub(crate) load: Load,
    /// The process whose CPU time counts; none for the direct way.
    pub(crate) proxy: Option<u32>,
}

/// What one side took in one round.
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// CPU time of the proxy for each call, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// A figure of several rounds: its median, and the least and the greatest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Side {
    pub(crate) fn through(proxy: u32, load: Load) -> Self {
        Self { load, proxy: Some(proxy) }
    }

    pub(crate) fn direct(load: Load) -> Self {
        Self { load, proxy: None }
    }

    fn round(&self, how: Loop, length: Duration) -> Result<Round, Failure> {
        let (sample, cpu) = measured(self.proxy, || self.load.run(how, length))?;
        Ok(Round::new(&sample, cpu))
    }
}

/// What `work` returns, and the CPU time that the proxy took for it.
pub(crate) fn measured<T>(
    proxy: Option<u32>,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<(T, Duration), Failure> {
    let before = proxy.map(CpuTimes::of).transpose()?;
    let result = work()?;
    thread::sleep(SETTLE);
    let after = proxy.map(CpuTimes::of).transpose()?;
    let cpu = before.zip(after).map(|(before, after)| after.since(&before));
    Ok((result, cpu.unwrap_or_default()))
}

impl Round {
    fn new(sample: &Sample, cpu: Duration) -> Self {
        let calls = as_float(sample.latencies.len());
        Self {
            per_second: calls / sample.took.as_secs_f64(),
            cpu_us: micros(cpu) / calls,
            p50_us: micros(sample.quantile(0.50)),
            p99_us: micros(sample.quantile(0.99)),
        }
    }
}

/// `rounds` rounds of every side, by side; one before them does not count.
pub(crate) fn interleaved(
    rounds: usize,
    sides: &[Side],
    how: Loop,
    length: Duration,
) -> Result<Vec<Vec<Round>>, Failure> {
    for side in sides {
        side.load.run(how, length / 2)?;
    }
    in_turn(rounds, sides.len(), |side| sides[side].round(how, length))
}

/// What `measure` yields for each side (their number is `sides`) in each round, by side.
pub(crate) fn in_turn<T>(
    rounds: usize,
    sides: usize,
    mut measure: impl FnMut(usize) -> Result<T, Failure>,
) -> Result<Vec<Vec<T>>, Failure> {
    let mut results: Vec<Vec<T>> = (0..sides).map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for place in 0..sides {
            let side = if round % 2 == 0 { place } else { sides - 1 - place };
            results[side].push(measure(side)?);
        }
    }
    Ok(results)
}

impl Spread {
    /// Of `figure` in each round.
    pub(crate) fn of<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> Self {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let (low, high) = (figures.first().copied().unwrap_or(f64::NAN), figures.last().copied().unwrap_or(f64::NAN));
        let (half, rest) = (figures.len() / 2, figures.len() % 2);
        let median = if figures.is_empty() {
            f64::NAN
        } else if rest == 1 {
            figures[half]
        } else {
            f64::midpoint(figures[half - 1], figures[half])
        };
        Self { median, low, high }
    }

    /// Of `figure` of both sides in each round.
    pub(crate) fn of_both<T>(one: &[T], other: &[T], figure: impl Fn(&T, &T) -> f64) -> Self {
        let pairs: Vec<(&T, &T)> = one.iter().zip(other).collect();
        Self::of(&pairs, |(one, other)| figure(one, other))
    }

    pub(crate) fn one(figure: f64) -> Self {
        Self { median: figure, low: figure, high: figure }
    }
}

/// What `share` (0 to 1) of the sorted durations stayed within.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let rank = (share * as_float(sorted.len().saturating_sub(1))).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn as_float(count: usize) -> f64 {
    count as f64
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
