//! Growth: what weir takes, every few seconds, and whether that has become more. Told from the second half alone: before
//! that, caches fill. Of its three thirds, the middle values of the first and of the last are compared: what comes and goes
//! does not count, what leaks does.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::books::Metrics;
use crate::house::{House, LEDGER_BYTES};

/// Most samples that are shown.
const SHOWN: usize = 24;

/// What is looked at.
const COLUMNS: [Column; 10] = [
    Column::judged("RSS MiB", Bound { least: 3 << 20, percent: 5 })
        .of("process_resident_memory_bytes")
        .divided_by(1 << 20),
    Column::judged("fds", Bound { least: 16, percent: 10 }).of("process_open_fds"),
    Column::judged("threads", Bound { least: 2, percent: 0 }).of("process_threads"),
    Column::judged("tasks", Bound { least: 32, percent: 10 }).of("weir_tasks"),
    Column::judged("series", Bound { least: 50, percent: 2 }),
    Column::shown("calls").of("weir_requests_total"),
    Column::shown("open").of("weir_requests_in_flight"),
    Column::shown("upstream").of("weir_upstream_connections"),
    Column::shown("queued").of("weir_queue_length"),
    Column::shown("ledger MiB").of("weir_ledger_size_bytes").divided_by(1 << 20),
];
const SERIES: usize = 4;
const LEDGER: usize = 9;

/// How much more there may be: the larger of the two.
#[derive(Clone, Copy)]
struct Bound {
    least: u64,
    percent: u64,
}

#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    metric: &'static str,
    unit: u64,
    bound: Option<Bound>,
}

impl Column {
    const fn shown(name: &'static str) -> Self {
        Self { name, metric: "", unit: 1, bound: None }
    }

    const fn judged(name: &'static str, bound: Bound) -> Self {
        Self { bound: Some(bound), ..Self::shown(name) }
    }

    const fn of(self, metric: &'static str) -> Self {
        Self { metric, ..self }
    }

    const fn divided_by(self, unit: u64) -> Self {
        Self { unit, ..self }
    }
}

/// One look.
struct Sample {
    after: Duration,
    values: [u64; COLUMNS.len()],
}

impl Sample {
    fn read(metrics: &Metrics, after: Duration) -> Self {
        let mut values = COLUMNS.map(|column| match column.metric {
            "" => 0,
            metric => metrics.count(metric, &[]),
        });
        values[SERIES] = metrics.series();
        Self { after, values }
    }
}

/// All looks.
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    /// Looks for so long, a hundred times or every two seconds.
    pub(crate) async fn take(house: &House, length: Duration) -> Self {
        let (begun, every) = (Instant::now(), (length / 100).max(Duration::from_secs(2)));
        let mut samples = Vec::new();
        while begun.elapsed() < length {
            sleep(every).await;
            samples.push(Sample::read(&house.metrics().await, begun.elapsed()));
        }
        Self(samples)
    }

    pub(crate) fn grown(&self) -> Grown {
        let judged = COLUMNS.iter().enumerate().filter_map(|(index, column)| Some((index, column, column.bound?)));
        let values = |index: usize| self.0.iter().map(|sample| sample.values[index]).collect::<Vec<_>>();
        let mut rows: Vec<_> = judged
            .map(|(index, column, bound)| {
                let (before, after) = first_and_last(&values(index));
                let most = before + bound.least.max(before * bound.percent / 100);
                Row { name: column.name, unit: column.unit, before, after, most }
            })
            .collect();
        // It is let grow as far as it may, and no further; its write-ahead log may be in the way for a while.
        let largest = values(LEDGER).into_iter().max().unwrap_or_default();
        let most = LEDGER_BYTES + LEDGER_BYTES / 4;
        rows.push(Row { name: "ledger MiB, at most", unit: 1 << 20, before: LEDGER_BYTES, after: largest, most });
        Grown(rows)
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7}", "s")?;
        for column in COLUMNS {
            write!(f, "{:>12}", column.name)?;
        }
        for sample in self.0.iter().step_by(self.0.len().div_ceil(SHOWN).max(1)).chain(self.0.last()) {
            write!(f, "\n{:>7}", sample.after.as_secs())?;
            for (value, column) in sample.values.iter().zip(COLUMNS) {
                write!(f, "{:>12}", shown(*value, column.unit))?;
            }
        }
        Ok(())
    }
}

/// With a decimal, where it is told in larger units.
fn shown(value: u64, unit: u64) -> String {
    match unit {
        1 => value.to_string(),
        unit => format!("{}.{}", value / unit, value % unit * 10 / unit),
    }
}

/// What has become of what is judged.
pub(crate) struct Grown(Vec<Row>);

struct Row {
    name: &'static str,
    unit: u64,
    before: u64,
    after: u64,
    most: u64,
}

impl Row {
    const fn is_flat(&self) -> bool {
        self.after <= self.most
    }
}

impl Grown {
    pub(crate) fn faults(&self) -> Vec<String> {
        let grown = self.0.iter().filter(|row| !row.is_flat());
        grown
            .map(|row| format!("{} grew from {} to {}; at most {}", row.name, row.before, row.after, row.most))
            .collect()
    }
}

impl fmt::Display for Grown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "second half, middle value of its first third and of its last:")?;
        for row in &self.0 {
            let [before, after, most] = [row.before, row.after, row.most].map(|value| shown(value, row.unit));
            let verdict = if row.is_flat() { "flat" } else { "GREW" };
            write!(f, "\n  {:<20}{before:>10} → {after:>10}, at most {most:>10}: {verdict}", row.name)?;
        }
        Ok(())
    }
}

/// The middle values of the first and of the last third of the second half.
fn first_and_last(values: &[u64]) -> (u64, u64) {
    let half = &values[values.len() / 2..];
    let third = half.len().div_ceil(3);
    (middle(&half[..third]), middle(&half[half.len() - third..]))
}

fn middle(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(rss: impl Fn(u64) -> u64) -> Vec<String> {
        let sample = |second: u64| {
            let mut values = [0; COLUMNS.len()];
            values[0] = rss(second);
            Sample { after: Duration::from_secs(second), values }
        };
        Samples((0..300).map(sample).collect()).grown().faults()
    }

    #[test]
    fn what_leaks_is_found_and_what_fills_at_first_or_comes_and_goes_is_not() {
        const MIB: u64 = 1 << 20;
        for (what, rss) in [
            ("flat", (|_| 40 * MIB) as fn(u64) -> u64),
            ("fills in the first half", |second| (20 + second.min(150)) * MIB),
            ("comes and goes", |second| (40 + second % 10 * 5) * MIB),
            ("a peak", |second| if second == 290 { 400 * MIB } else { 40 * MIB }),
        ] {
            assert!(grown(rss).is_empty(), "{what}: {:?}", grown(rss));
        }
        let leaks = grown(|second| 40 * MIB + second * MIB / 20);
        assert_eq!(leaks.len(), 1, "{leaks:?}");
        assert!(leaks[0].starts_with("RSS MiB grew"), "{leaks:?}");
    }
}
