//! What a scrape costs: time and bytes for a usual app, after a million calls of junk, and with ten thousand series; and
//! what it costs the calls that end meanwhile.
//!
//! Run by `make bench`. Times differ from machine to machine; with fewer than two processors to spare, calls also wait for
//! the processor that the scrape is on.

#[path = "../tests/fixture/junk.rs"]
mod junk;

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use weir::record::call::Caller;
use weir::record::outcome::{CacheStatus, ErrorType, Outcome};
use weir::record::{Attempt, CacheFacts, Record, ReplyFacts};
use weir::sinks::metrics::{Metrics, Settings};

use crate::junk::{answered, junk, metrics};

/// How often each scrape is taken.
const SCRAPES: usize = 50;
/// Calls in one round, of which there are some with scrapes and as many without.
const CALLS: usize = 100_000;
const ROUNDS: usize = 5;
/// Calls in one round that need new series.
const NEW: usize = 50;
const OPEN_METRICS: Option<&str> = Some("application/openmetrics-text");
const PROTOBUF: Option<&str> =
    Some("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited");

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn main() {
    let limit = Duration::from_millis(20);
    let usual = usual();
    println!("{}", scrapes("a usual app", &usual, limit));
    let after_junk = metrics(&Settings::default());
    (0..1_000_000).for_each(|number| after_junk.closed(&junk(number)));
    println!("{}", scrapes("after 1,000,000 calls of junk", &after_junk, limit));
    let many = with_series(10_000);
    println!("{}", scrapes("ten thousand series", &many, Duration::from_millis(50)));

    println!("{}", calls("calls of a usual app", &usual, CALLS, |_| answered("gpt-5")));
    println!("{}", calls("calls, ten thousand series", &many, CALLS, |number| junk(number % 100)));
    let unbounded = Settings { max_series: 1 << 40, max_models: 1 << 20, max_agents: 1 << 20, ..Settings::default() };
    let growing = metrics(&unbounded);
    (0..100).for_each(|number| growing.closed(&of_new_model(number)));
    println!("{}", calls("calls that need new series", &growing, NEW, |number| of_new_model(100 + number)));
}

/// An app of one provider with three models, which it also calls from loops of two kinds, by twenty agents with fifteen
/// tools; some of its calls are answered from the cache, and some fail.
fn usual() -> Metrics {
    let metrics = metrics(&Settings::default());
    for number in 0..2_000 {
        let model = ["gpt-5", "gpt-5-mini", "claude-opus-4"][number % 3];
        let mut record = answered(model);
        record.call.caller = Caller {
            agent: Some(format!("agent-{}", number % 20).into()),
            loop_type: Some(["research", "support"][number % 2].into()),
            run: Some("run".into()),
            ..Caller::default()
        };
        record.reply.tools = vec![format!("tool-{}", number % 15).into()];
        match number % 10 {
            0 => record = Record { cache: CacheFacts::new(CacheStatus::Hit), attempt: None, ..record },
            1 => record = failed(record, 429),
            2 => record = failed(record, 500),
            _ => {}
        }
        metrics.opened("openai");
        metrics.closed(&record);
    }
    metrics
}

fn failed(record: Record, status: u16) -> Record {
    Record {
        outcome: Outcome::UpstreamError,
        error_type: Some(ErrorType::Status(status)),
        attempt: Some(Attempt::Answered(status)),
        reply: ReplyFacts::default(),
        ..record
    }
}

/// As many series as that, of names from outside.
fn with_series(series: usize) -> Metrics {
    // Names from outside have a part of the space; see docs/metrics.md.
    let max_series = series * 100;
    let settings =
        Settings { max_series, max_models: 1_000, max_agents: 1_000, max_tools: 1_000, ..Settings::default() };
    let metrics = metrics(&settings);
    let enough = |metrics: &Metrics| lines(&metrics.encode(None).body) >= series;
    (0..).step_by(10).take_while(|_| !enough(&metrics)).for_each(|from| {
        (from..from + 10).for_each(|number| metrics.closed(&junk(number)));
    });
    metrics
}

fn of_new_model(number: usize) -> Record {
    Record { priced_model: Some(format!("model-{number}").into()), ..answered(&format!("model-{number}")) }
}

fn lines(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#")).count()
}

fn scrapes(name: &str, metrics: &Metrics, limit: Duration) -> String {
    let series = lines(&metrics.encode(None).body);
    let mut figures = format!("{name:<30} {series:>6} series");
    for (form, accept) in [("classic", None), ("OpenMetrics", OPEN_METRICS), ("protobuf", PROTOBUF)] {
        let bytes = metrics.encode(accept).body.len();
        let times = measured(SCRAPES, |_| drop(black_box(metrics.encode(accept))));
        let middle = times[times.len() / 2];
        let is_small = bytes < 1 << 20 || series >= 10_000;
        let verdict = if middle < limit && is_small { "" } else { " OVER" };
        let said = write!(figures, "   {form} {:.1} ms, {} KiB{verdict}", middle.as_secs_f64() * 1e3, bytes >> 10);
        said.expect("text is written to memory");
    }
    figures
}

/// What it takes to count a call, without scrapes and while one follows the other.
fn calls(name: &str, metrics: &Metrics, calls: usize, of: impl Fn(usize) -> Record) -> String {
    let (mut alone, mut scraped) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for (during_scrapes, times) in [(false, &mut alone), (true, &mut scraped)] {
            let first = (2 * round + usize::from(during_scrapes)) * calls;
            let records: Vec<Record> = (first..first + calls).map(&of).collect();
            times.extend(counted(metrics, &records, during_scrapes));
        }
    }
    let [alone, scraped] = [alone, scraped].map(|mut times| {
        times.sort_unstable();
        times
    });
    let at = |times: &[Duration], per_mille: usize| times[(times.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
    let (p99, p99_scraped) = (at(&alone, 990), at(&scraped, 990));
    let ratio = p99_scraped / p99;
    let (most, most_scraped) = (at(&alone, 1000), at(&scraped, 1000));
    format!(
        "{name:<30} p50 {:>6.2} µs   p99 {p99:>6.2} µs, scraped {p99_scraped:>6.2} µs: × {ratio:.2}   most {most:.0} µs, \
         scraped {most_scraped:.0} µs",
        at(&alone, 500)
    )
}

fn counted(metrics: &Metrics, records: &[Record], during_scrapes: bool) -> Vec<Duration> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        if during_scrapes {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    drop(black_box(metrics.encode(OPEN_METRICS)));
                }
            });
        }
        let times = measured_unsorted(records.len(), |number| metrics.closed(&records[number]));
        is_over.store(true, Ordering::Relaxed);
        times
    })
}

/// How long each of `times` runs takes, the shortest first.
fn measured(times: usize, run: impl FnMut(usize)) -> Vec<Duration> {
    let mut taken = measured_unsorted(times, run);
    taken.sort_unstable();
    taken
}

fn measured_unsorted(times: usize, mut run: impl FnMut(usize)) -> Vec<Duration> {
    let once = |number| {
        let begun = Instant::now();
        run(number);
        begun.elapsed()
    };
    (0..times).map(once).collect()
}
