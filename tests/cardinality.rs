//! How many series there are is weir's to say, whatever an app calls its models, agents, loops and tools.

#![expect(clippy::cast_precision_loss, reason = "counts stay far below 2⁵³")]

#[path = "fixture/junk.rs"]
mod junk;

use std::collections::BTreeMap;
use std::thread;

use weir::record::Record;
use weir::record::outcome::{ErrorType, RunStatus};
use weir::runs::Event;
use weir::runs::run::Ended;
use weir::sinks::metrics::{Metrics, Settings};

use crate::junk::{answered, junk, metrics};

/// Calls with junk in every place that an app can fill.
const JUNK: usize = 1_000_000;
/// Calls that went well before.
const KNOWN: usize = 50;
/// Models that the price table knows.
const MODELS: [&str; 3] = ["gpt-5", "gpt-5-mini", "claude-opus-4"];
/// Most series at default settings, and most bytes of a scrape.
const MOST_SERIES: usize = 2_000;
const MOST_BYTES: usize = 1 << 20;

/// What is scraped, by series.
fn scraped(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = String::from_utf8(metrics.encode(None).body).expect("text");
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        (series.to_owned(), value.parse().expect("a value is a number"))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

/// The sum over all series of a metric.
fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    samples.iter().filter(|(series, _)| series.split('{').next() == Some(name)).map(|(_, value)| value).sum()
}

/// How many series of each metric there are, for a message.
fn by_name(samples: &BTreeMap<String, f64>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for series in samples.keys() {
        let name = series.split('{').next().unwrap_or_default();
        *counts.entry(name.trim_end_matches("_bucket")).or_default() += 1;
    }
    counts
}

#[track_caller]
fn expect(samples: &BTreeMap<String, f64>, series: &str, expected: f64) {
    let found = samples.get(series).copied();
    assert!(found.is_some_and(|found| (found - expected).abs() < 1e-6), "{series} is {found:?}, not {expected}");
}

fn call_all(metrics: &Metrics, calls: usize) {
    for model in MODELS {
        for _ in 0..calls {
            metrics.opened("openai");
            metrics.closed(&answered(model));
        }
    }
}

/// What calls of a model that is known have come to.
#[track_caller]
fn expect_known(samples: &BTreeMap<String, f64>, calls: f64) {
    for model in MODELS {
        let of_model = format!(r#"provider="openai",model="{model}""#);
        let gen_ai = format!(
            r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="{model}",gen_ai_response_model="{model}""#
        );
        for (series, expected) in [
            (format!(r#"weir_requests_total{{{of_model},operation="chat",outcome="success"}}"#), calls),
            (format!(r#"weir_tokens_total{{{of_model},token_type="input"}}"#), 100.0 * calls),
            (format!(r#"weir_cost_usd_total{{{of_model},token_type="output"}}"#), 2.0 * calls),
            (format!(r"weir_request_cost_usd_count{{{of_model}}}"), calls),
            (format!("gen_ai_client_operation_duration_seconds_sum{{{gen_ai}}}"), 3.0 * calls),
            (format!("gen_ai_server_time_to_first_token_seconds_count{{{gen_ai}}}"), calls),
        ] {
            expect(samples, &series, expected);
        }
    }
    let agent = format!(r#"weir_agent_requests_total{{agent="{}"}}"#, "planner");
    expect(samples, &agent, calls * f64::from(u8::try_from(MODELS.len()).expect("few")));
}

/// Sends junk from two threads.
fn send_junk(metrics: &Metrics, calls: usize) {
    thread::scope(|scope| {
        for parity in 0..2 {
            scope.spawn(move || {
                for number in (parity..calls).step_by(2) {
                    let record = junk(number);
                    metrics.opened(&record.call.provider);
                    metrics.closed(&record);
                    let loop_type = metrics.loop_types().admit(&format!("loop {number}"));
                    let error_type = (parity == 1).then_some(ErrorType::Timeout);
                    let status = if parity == 1 { RunStatus::Error } else { RunStatus::Success };
                    metrics.run(Event::Ended(Ended { loop_type, status, error_type, took: record.timing.total }));
                }
            });
        }
    });
}

#[test]
fn a_million_calls_of_junk_make_two_thousand_series_and_no_number_is_lost() {
    let metrics = metrics(&Settings::default());
    call_all(&metrics, KNOWN);
    expect_known(&scraped(&metrics), KNOWN as f64);
    let before = scraped(&metrics).len();
    send_junk(&metrics, JUNK);
    call_all(&metrics, KNOWN);

    let samples = scraped(&metrics);
    assert!(samples.len() <= MOST_SERIES, "{before} became {}: {:#?}", samples.len(), by_name(&samples));
    for accept in [None, Some("application/openmetrics-text")] {
        let bytes = metrics.encode(accept).body.len();
        assert!(bytes < MOST_BYTES, "{accept:?}: {bytes} bytes");
    }
    expect_known(&samples, 2.0 * KNOWN as f64);
    expect_sums(&samples);
    for label in ["model", "gen_ai_request_model", "gen_ai_response_model", "agent", "loop_type", "tool"] {
        let folded = format!(r#"weir_metrics_label_overflow_total{{label="{label}"}}"#);
        assert!(samples[&folded] > 0.0, "{folded}");
    }
}

/// Nothing that was sent is missing, whatever it is counted as.
fn expect_sums(samples: &BTreeMap<String, f64>) {
    let (calls, known) = (JUNK as f64, (2 * KNOWN * MODELS.len()) as f64);
    let answered = calls / 2.0;
    // Counting tokens, for one, buys none, and asks no model.
    let count =
        |is_counted: fn(&Record) -> bool, step| (0..JUNK).step_by(step).filter(|&it| is_counted(&junk(it))).count();
    let billed = count(|record| record.call.operation.is_billed(), 2) as f64;
    let asked = count(Record::asked_a_model, 1) as f64;
    for (name, expected) in [
        ("weir_requests_total", calls + known),
        ("weir_request_duration_seconds_count", calls + known),
        ("weir_cache_requests_total", calls + known),
        ("weir_upstream_requests_total", calls + known),
        ("weir_agent_requests_total", calls + known),
        ("weir_tokens_total", 121.0 * (billed + known)),
        ("weir_agent_tokens_total", 121.0 * (billed + known)),
        ("weir_cost_usd_total", 3.0 * known),
        ("weir_unpriced_requests_total", answered),
        ("gen_ai_client_operation_duration_seconds_count", calls + known),
        ("gen_ai_client_operation_duration_seconds_sum", 3.0 * (calls + known)),
        ("gen_ai_client_token_usage_count", 2.0 * (billed + known)),
        ("weir_loop_llm_calls_total", asked),
        ("weir_loop_execution_duration_seconds_count", calls),
        ("weir_loop_errors_total", calls / 2.0),
        ("weir_tool_invocations_total", calls),
        ("weir_requests_in_flight", 0.0),
    ] {
        let sum = sum(samples, name);
        assert!((sum - expected).abs() < 1e-6 * expected.max(1.0), "{name}: {sum}, not {expected}");
    }
}

#[test]
fn junk_that_comes_first_leaves_space_for_what_is_known() {
    let metrics = metrics(&Settings::default());
    send_junk(&metrics, JUNK / 20);
    let samples = scraped(&metrics);
    assert!(samples.len() <= MOST_SERIES, "{}: {:#?}", samples.len(), by_name(&samples));
    call_all(&metrics, KNOWN);
    let samples = scraped(&metrics);
    for model in MODELS {
        let of_model = format!(r#"provider="openai",model="{model}""#);
        let calls = format!(r#"weir_requests_total{{{of_model},operation="chat",outcome="success"}}"#);
        expect(&samples, &calls, KNOWN as f64);
        expect(&samples, &format!(r#"weir_cost_usd_total{{{of_model},token_type="output"}}"#), 2.0 * KNOWN as f64);
    }
}

#[test]
fn models_of_the_price_table_make_no_more_series_than_are_allowed() {
    let settings = Settings::default();
    let metrics = metrics(&settings);
    for number in 0..2_000 {
        let mut record = answered(&format!("model-{number}"));
        record.call.caller.agent = Some(format!("agent-{number}").into());
        metrics.closed(&record);
    }
    let samples = scraped(&metrics);
    // What is always made comes on top: the series of `other`, and what is asked at the scrape.
    let most = settings.max_series + 300;
    assert!((settings.max_series / 2..=most).contains(&samples.len()), "{}: {:#?}", samples.len(), by_name(&samples));
    for name in ["weir_requests_total", "gen_ai_client_operation_duration_seconds_count", "weir_agent_requests_total"] {
        assert!((sum(&samples, name) - 2_000.0).abs() < 1e-6, "{name}");
    }
}
