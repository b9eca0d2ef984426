//! What the metrics promise: every number says what happened, and Prometheus can read all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    self as proto, LabelPair, MetricFamily, MetricType,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use weir::allowance::Allowance;
use weir::cache::invalidation::Strategy;
use weir::cache::shared::{Event, Found, Work};
use weir::door::{self, Door};
use weir::host::Host;
use weir::limits::budget::{self, Enforce};
use weir::limits::matching::Asker;
use weir::limits::rate::{self, Decision};
use weir::limits::window::Window;
use weir::limits::{Demand, Limits, Money, Permit, Spent, Stage};
use weir::record::call::{Call, Caller, Delivery, Operation, RequestId};
use weir::record::head::{HeadFacts, Quota};
use weir::record::outcome::{
    BypassReason, CacheStatus, ErrorType, Outcome, Reuse, Role, RunStatus, SimilarResult, StoreResult, Verdict,
};
use weir::record::provenance::Provenance;
use weir::record::trace::{Part, SpanId, Told, Trace, TraceId};
use weir::record::usage::{Charge, Cost, Counter, TokenClass, Unpriced, Usage};
use weir::record::{Attempt, CacheFacts, Record, ReplyFacts, Timing};
use weir::redact::Redactor;
use weir::runs::run::{Ended, Reason};
use weir::runs::{self, Active};
use weir::secret::Reread;
use weir::semconv::values::{self, Most, VALUES};
use weir::semconv::{Kind, METRICS, label};
use weir::sinks::exposition::Exposition;
use weir::sinks::metrics::{About, Histograms, Metrics, PriceTable, Settings};
use weir::sinks::now::{Backend, CacheSize, Overload, Queue};
use weir::sinks::series::Eviction;
use weir::sinks::sides::Consumers;
use weir::sinks::traces::Standing;
use weir::sinks::{self, Conventions};
use weir::units::{Backlog, PicoUsd};

const NOTHING: [&str; 0] = [];

fn metrics(settings: &Settings) -> Metrics {
    in_words(Conventions::V1_41, settings)
}

/// The same, in the words of these conventions.
fn in_words(semconv: Conventions, settings: &Settings) -> Metrics {
    let telemetry = sinks::Settings { semconv, metrics: settings.clone(), ..sinks::Settings::default() };
    Metrics::new(&telemetry, &["openai".into(), "local".into()], about())
}

fn about() -> About {
    let prices = PriceTable {
        version: "0.2.3".to_owned(),
        source: "built-in".to_owned(),
        published_at: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
    };
    About { version: "0.1.0", revision: "abc1234", prices }
}

/// A streamed chat that went well: 100 tokens in, 40 of them cached; 21 out, 5 of them reasoning; 3 dollars.
fn answered() -> Record {
    let parts = [(Counter::CacheReadTokens, Some(40)), (Counter::OutputReasoningTokens, Some(5))];
    let mut charge = Charge::default();
    charge.add(TokenClass::Input, PicoUsd::new(PicoUsd::PER_USD));
    charge.add(TokenClass::Output, PicoUsd::new(2 * PicoUsd::PER_USD));
    Record {
        id: RequestId::next(),
        trace: None,
        call: Call {
            provider: "openai".into(),
            operation: Operation::Chat,
            model: Some("gpt-5".into()),
            delivery: Delivery::Stream,
            caller: Caller { agent: Some("planner".into()), ..Caller::default() },
        },
        reply: ReplyFacts { model: Some("gpt-5-2026-08-07".into()), ..ReplyFacts::default() },
        usage: Some(Usage::cache_inside(Some(100), Some(21), &parts)),
        head: HeadFacts::default(),
        cost: Cost::Known(charge),
        provenance: Some(Provenance::Priced),
        list_cost: None,
        priced_model: Some("gpt-5".into()),
        cache: CacheFacts {
            lookup: Some((CacheStatus::Miss, Duration::from_micros(20))),
            store: Some(StoreResult::Stored),
            ..CacheFacts::new(CacheStatus::Miss)
        },
        downgrade: None,
        outcome: Outcome::Success,
        error_type: None,
        error_detail: None,
        content: None,
        prefixes: None,
        status: Some(200),
        attempt: Some(Attempt::Answered(200)),
        tries: None,
        arrived_at: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        timing: Timing {
            total: Duration::from_millis(3500),
            sent: Some(Duration::from_millis(400)),
            first_chunk: Some(Duration::from_millis(450)),
            overhead_request: Some(Duration::from_micros(300)),
            overhead_response: Some(Duration::from_micros(40)),
            upstream: Some(Duration::from_secs(3)),
            first_token: Some(Duration::from_secs(1)),
        },
        bytes_in: 1000,
        bytes_out: 2000,
    }
}

/// The same, answered from the cache.
fn answered_from_cache() -> Record {
    let lookup = Some((CacheStatus::Hit, Duration::from_micros(9)));
    let cache = CacheFacts { lookup, ..CacheFacts::new(CacheStatus::Hit) };
    let timing = Timing { total: Duration::from_millis(1), ..Timing::default() };
    Record { cache, attempt: None, timing, ..answered() }
}

/// The same, turned away with `status`.
fn refused(status: u16, outcome: Outcome) -> Record {
    Record {
        outcome,
        error_type: Some(ErrorType::Status(status)),
        status: Some(status),
        attempt: Some(Attempt::Answered(status)),
        usage: None,
        cost: Cost::Nothing,
        provenance: None,
        reply: ReplyFacts::default(),
        timing: Timing { first_token: None, ..answered().timing },
        ..answered()
    }
}

/// A call for `model`, which the price table does not know.
fn unlisted(model: &str, attempt: Attempt) -> Record {
    let mut record = answered();
    record.call.model = Some(model.into());
    record.reply.model = None;
    record.priced_model = None;
    record.cost = Cost::Unpriced(Unpriced::UnknownModel);
    record.provenance = Some(Provenance::Unpriced);
    record.attempt = Some(attempt);
    record
}

/// A call that was passed through unread, for nobody weir knows.
fn passed_through() -> Record {
    let mut record = answered();
    record.call = Call {
        provider: "unheard of".into(),
        operation: Operation::Other,
        model: None,
        delivery: Delivery::Whole,
        caller: Caller::default(),
    };
    record.reply = ReplyFacts::default();
    record.usage = None;
    record.cost = Cost::Nothing;
    record.provenance = None;
    record.priced_model = None;
    record.cache = CacheFacts::new(CacheStatus::Bypass(BypassReason::Uncacheable));
    record
}

fn with_operation(mut record: Record, operation: Operation) -> Record {
    record.call.operation = operation;
    record
}

/// Two limits, and budgets of money and of tokens. Windows are such that no test lasts longer.
fn rules() -> Limits {
    let limit = |name: &str| rate::Settings { name: name.into(), ..rate::Settings::default() };
    let budget = |name: &str, window| budget::Settings {
        name: name.into(),
        window,
        enforce: Enforce::Block,
        ..Default::default()
    };
    let per = "agent".parse().expect("a part");
    Limits::new(
        &[
            rate::Settings { requests_per_hour: Some(4), per, ..limit("agents") },
            rate::Settings { concurrent_calls: Some(8), tokens_per_day: Some(1_000_000), ..limit("all") },
        ],
        &[
            budget::Settings { limit_usd: Some(usd(10)), ..budget("app", Window::Total) },
            budget::Settings {
                limit_usd: Some(usd(2)),
                limit_tokens: Some(1000),
                per: "agent".parse().expect("a part"),
                ..budget("agents", Window::Month)
            },
            budget::Settings {
                limit_usd: Some(PicoUsd::ZERO),
                enforce: Enforce::Alert,
                ..budget("nothing", Window::Total)
            },
        ],
    )
}

fn usd(dollars: u128) -> PicoUsd {
    PicoUsd::new(dollars * PicoUsd::PER_USD)
}

/// A call of `agent` that may go, and is to cost so many dollars and tokens.
fn admit(limits: &Limits, agent: &str, dollars: u128, tokens: u64) -> Permit {
    let caller = Caller { agent: Some(agent.into()), ..Caller::default() };
    let asker = Asker { provider: "openai", model: None, caller: &caller, credential: None };
    let demand = Demand { tokens, money: Money::Expected(usd(dollars)) };
    let decided = limits.admit(&asker, &demand, Stage::Asking, limits.now());
    limits.decided(&asker, Stage::Asking, decided.as_ref().map(|_| Decision::Allowed).map_err(|refusal| &**refusal));
    decided.expect("there is room")
}

/// Everything that can be counted, counted.
fn filled() -> Metrics {
    filled_as(Histograms::Classic)
}

fn filled_as(histograms: Histograms) -> Metrics {
    let metrics = watched(histograms);
    metrics.connected("openai", Duration::from_millis(30));
    metrics.evicted(Eviction::Ttl);
    let quotas = [Quota { limit: Some(100), remaining: Some(99), resets_in: None }; 2];
    let head = HeadFacts { came_at: Some(tokio::time::Instant::now()), quotas, ..HeadFacts::default() };
    for record in [
        Record { head, ..answered() },
        answered_from_cache(),
        refused(429, Outcome::ClientError),
        Record { outcome: Outcome::UpstreamError, error_type: Some(ErrorType::StreamAborted), ..answered() },
        unlisted("home-made", Attempt::Answered(200)),
        passed_through(),
    ] {
        metrics.opened(&record.call.provider);
        metrics.closed(&record);
    }
    let caller = Caller { run: Some("1".into()), ..in_loop("research") };
    metrics.closed(&Record { call: Call { caller, ..answered().call }, ..with_tools(&["look"]) });
    metrics.run(runs::Event::RanAway("research".into(), Reason::MaxCalls));
    metrics.run(ended("research", RunStatus::Error));
    metrics
}

/// All that can be watched is, and nothing has happened yet.
fn watched(histograms: Histograms) -> Metrics {
    let consumers = Consumers::Hashed;
    // Space for every hostile name, none of which the price table knows.
    let max_series = 100_000;
    let settings = Settings { histograms, consumers, cache_namespaces: true, max_series, ..Settings::default() };
    let metrics = in_words(Conventions::Both, &settings);
    let size = CacheSize { entries: 3, bytes: 300, capacity_bytes: 1000 };
    metrics.watch_cache(Arc::new(move || vec![(Backend::Memory, size), (Backend::Similar, size)]));
    metrics.watch_store(Arc::new(|| true));
    metrics.watch_state(Arc::new(|| true));
    metrics.watch_traces(Arc::new(|| Standing { capacity: 2048, ..Standing::default() }));
    metrics.watch_ledger(Arc::new(|| weir::ledger::Standing { capacity: 10_000, ..Default::default() }));
    metrics.watch_redactor(Arc::new(Redactor::new(&[]).expect("what weir knows")));
    let rules = Arc::new(rules());
    metrics.watch_limits(Box::new(move || Some(Arc::clone(&rules))));
    let backlog = |length| move || Some(Backlog { length, capacity: 9, dropped: 2 });
    metrics.watch_queue(Queue::Estimates, Box::new(backlog(Some(7))));
    metrics.watch_queue(Queue::LogLines, Box::new(backlog(None)));
    metrics.watch_queue(Queue::Recordings, Box::new(|| None));
    metrics.watch_connections(Arc::new(|| vec![("openai".into(), 2), ("local".into(), 0), ("openai".into(), 1)]));
    metrics.watch_circuits(Arc::new(|| vec![("openai".into(), true)]));
    metrics.may_fall_back("openai", "openai/second");
    metrics.watch_overload(Box::new(|| Overload {
        shed: vec![("concurrency", 0), ("memory", 0)],
        bodies: ["request", "reply"].map(|body| (body, Allowance::of(1 << 20).standing())).into(),
    }));
    metrics.watch_door(&door());
    metrics.watch_host(host());
    // How busy a machine is, takes two looks that are not too close.
    while !text_of(&metrics).contains("weir_system_cpu_usage_ratio") {
        std::thread::yield_now();
    }
    metrics
}

/// A door that nobody comes to.
fn door() -> Door {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    let _within = RUNTIME.enter();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    Door::new(TcpListener::from_std(listener).expect("a socket"), door::Side::App)
}

/// A process in a container, of which files tell.
fn host() -> Host {
    Host::at(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host")))
}

fn in_loop(loop_type: &str) -> Caller {
    Caller { loop_type: Some(loop_type.into()), ..Caller::default() }
}

fn with_tools(tools: &[&str]) -> Record {
    let tools = tools.iter().map(|&tool| tool.into()).collect();
    Record { reply: ReplyFacts { tools, ..answered().reply }, ..answered() }
}

fn ended(loop_type: &str, status: RunStatus) -> runs::Event {
    let error_type = (status == RunStatus::Error).then_some(ErrorType::Status(529));
    runs::Event::Ended(Ended { loop_type: loop_type.into(), status, error_type, took: Duration::from_secs(20) })
}

/// The exposition that a browser gets.
fn text_of(metrics: &Metrics) -> String {
    text(metrics.encode(None))
}

fn text(exposition: Exposition) -> String {
    String::from_utf8(exposition.body).expect("text is UTF-8")
}

/// The samples of an exposition by name and labels.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn of(metrics: &Metrics) -> Self {
        let text = text_of(metrics);
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            (series.to_owned(), value.parse().expect("a value is a number"))
        });
        Self(samples.collect())
    }

    #[track_caller]
    fn expect(&self, expected: &[(&str, f64)]) {
        for (series, value) in expected {
            let found = self.0.get(*series).copied();
            assert!(found.is_some_and(|found| (found - value).abs() < 1e-9), "{series} is {found:?}, not {value}");
        }
    }

    /// Series of `name` whose value is not zero.
    fn counted(&self, name: &str) -> Vec<&str> {
        let of_name = |series: &str| series.split('{').next() == Some(name);
        self.0.iter().filter(|(series, value)| of_name(series) && **value != 0.0).map(|(series, _)| &**series).collect()
    }
}

#[test]
fn counters_of_closed_sets_start_at_zero() {
    let samples = Samples::of(&metrics(&Settings::default()));
    for provider in ["openai", "local"] {
        for code in ["200", "429", "500", "502", "503", "529", "error", "timeout"] {
            samples
                .expect(&[(&format!(r#"weir_upstream_requests_total{{provider="{provider}",code="{code}"}}"#), 0.0)]);
        }
        for reason in ["unknown_model", "no_usage", "no_table"] {
            let series = format!(r#"weir_unpriced_requests_total{{provider="{provider}",reason="{reason}"}}"#);
            samples.expect(&[(&series, 0.0)]);
        }
        for provenance in ["reported", "priced", "estimated", "unpriced"] {
            let series = format!(r#"weir_billable_requests_total{{provider="{provider}",provenance="{provenance}"}}"#);
            samples.expect(&[(&series, 0.0)]);
        }
        for direction in ["over", "under"] {
            let series = format!(r#"weir_cost_drift_usd_total{{provider="{provider}",direction="{direction}"}}"#);
            samples.expect(&[(&series, 0.0)]);
        }
        samples.expect(&[
            (&format!(r#"weir_requests_in_flight{{provider="{provider}"}}"#), 0.0),
            (&format!(r#"weir_usage_estimated_total{{provider="{provider}"}}"#), 0.0),
        ]);
    }
    samples.expect(&[
        (r#"weir_http_bytes_total{direction="in"}"#, 0.0),
        (r#"weir_http_bytes_total{direction="out"}"#, 0.0),
        (r#"weir_cache_evictions_total{backend="memory",reason="size"}"#, 0.0),
        (r#"weir_cache_evictions_total{backend="memory",reason="ttl"}"#, 0.0),
        (r#"weir_cache_evictions_total{backend="memory",reason="invalidated"}"#, 0.0),
        (r#"weir_cache_stores_total{backend="memory",result="stored"}"#, 0.0),
        (r#"weir_cache_stores_total{backend="memory",result="too_large"}"#, 0.0),
        (r#"weir_cache_stores_total{backend="memory",result="not_cacheable"}"#, 0.0),
        (r#"weir_metrics_label_overflow_total{label="model"}"#, 0.0),
        (r#"weir_metrics_label_overflow_total{label="agent"}"#, 0.0),
        (r#"weir_agent_requests_total{agent="none"}"#, 0.0),
        ("weir_price_table_timestamp_seconds", 1_790_000_000.0),
        (r#"weir_price_table_info{version="0.2.3",source="built-in"}"#, 1.0),
        (r#"weir_build_info{version="0.1.0",revision="abc1234"}"#, 1.0),
        (r#"weir_metrics_label_values_limit{label="model"}"#, 64.0),
        ("weir_metrics_series_limit", 10_000.0),
    ]);
    assert!(samples.0.keys().all(|series| !series.starts_with("weir_cache_entries")), "no cache, no size");
}

#[test]
fn limits_and_budgets_are_there_from_the_start() {
    let metrics = metrics(&Settings::default());
    let without = Samples::of(&metrics);
    let of_rules = |series: &&String| series.starts_with("weir_budget") || series.starts_with("weir_ratelimit");
    assert_eq!(without.0.keys().find(of_rules), None, "no rules, no series");
    let rules = Arc::new(rules());
    metrics.watch_limits(Box::new(move || Some(Arc::clone(&rules))));
    let samples = Samples::of(&metrics);
    for limit in ["agents", "all"] {
        for decision in ["allowed", "delayed", "rejected"] {
            let series = format!(r#"weir_ratelimit_requests_total{{limit="{limit}",decision="{decision}"}}"#);
            samples.expect(&[(&series, 0.0)]);
        }
        samples.expect(&[
            (&format!(r#"weir_ratelimit_utilization_ratio{{limit="{limit}"}}"#), 0.0),
            (&format!(r#"weir_ratelimit_subjects{{limit="{limit}"}}"#), 0.0),
        ]);
    }
    for (budget, window, limit) in [("app", "total", 10.0), ("agents", "month", 2.0), ("nothing", "total", 0.0)] {
        let labels = format!(r#"{{budget="{budget}",window="{window}",scope="instance"}}"#);
        samples.expect(&[
            (&format!("weir_budget_limit_usd{labels}"), limit),
            (&format!("weir_budget_spent_usd{labels}"), 0.0),
            (&format!("weir_budget_remaining_usd{labels}"), limit),
            (&format!(r#"weir_budget_reserved_usd{{budget="{budget}",window="{window}"}}"#), 0.0),
            (&format!(r#"weir_budget_charged_usd_total{{budget="{budget}"}}"#), 0.0),
            (&format!(r#"weir_budget_blocked_requests_total{{budget="{budget}"}}"#), 0.0),
            (&format!(r#"weir_budget_downgraded_requests_total{{budget="{budget}"}}"#), 0.0),
            (&format!(r#"weir_budget_stopped_streams_total{{budget="{budget}"}}"#), 0.0),
            (&format!(r#"weir_budget_subjects{{budget="{budget}"}}"#), 0.0),
        ]);
    }
    samples.expect(&[
        (r#"weir_budget_remaining_tokens{budget="agents",window="month",scope="instance"}"#, 1000.0),
        (r#"weir_budget_window_start_timestamp_seconds{budget="app",window="total"}"#, 0.0),
    ]);
    let ends = samples.counted("weir_budget_window_end_timestamp_seconds");
    assert_eq!(ends, [r#"weir_budget_window_end_timestamp_seconds{budget="agents",window="month"}"#]);
    let tokens: Vec<_> = samples.0.keys().filter(|series| series.starts_with("weir_budget_limit_tokens")).collect();
    assert_eq!(tokens.len(), 1, "only where tokens are limited: {tokens:?}");
    assert!(samples.0.values().all(|value| value.is_finite()), "{:?}", samples.0);
}

#[test]
fn of_a_rule_that_holds_subjects_apart_the_foremost_one_is_shown() {
    let (metrics, limits) = (metrics(&Settings::default()), Arc::new(rules()));
    let watched = Arc::clone(&limits);
    metrics.watch_limits(Box::new(move || Some(Arc::clone(&watched))));
    admit(&limits, "ann", 1, 100).settle(Spent { tokens: Some(300), usd: Some(usd(3)) });
    admit(&limits, "bob", 1, 100).settle(Spent { tokens: Some(900), usd: Some(usd(1)) });
    let under_way = admit(&limits, "bob", 1, 100);
    let month = r#"{budget="agents",window="month",scope="instance"}"#;
    let total = r#"{budget="app",window="total",scope="instance"}"#;
    let samples = Samples::of(&metrics);
    samples.expect(&[
        (&format!("weir_budget_spent_usd{month}"), 3.0),
        (&format!("weir_budget_remaining_usd{month}"), 0.0),
        (&format!("weir_budget_spent_tokens{month}"), 300.0),
        (&format!("weir_budget_remaining_tokens{month}"), 700.0),
        (r#"weir_budget_reserved_usd{budget="agents",window="month"}"#, 0.0),
        (r#"weir_budget_charged_usd_total{budget="agents"}"#, 4.0),
        (r#"weir_budget_charged_tokens_total{budget="agents"}"#, 1200.0),
        (r#"weir_budget_subjects{budget="agents"}"#, 2.0),
        (&format!("weir_budget_spent_usd{total}"), 4.0),
        (&format!("weir_budget_remaining_usd{total}"), 6.0),
        (r#"weir_budget_reserved_usd{budget="app",window="total"}"#, 1.0),
        (r#"weir_ratelimit_requests_total{limit="agents",decision="allowed"}"#, 3.0),
        (r#"weir_ratelimit_utilization_ratio{limit="agents"}"#, 0.5),
        (r#"weir_ratelimit_subjects{limit="agents"}"#, 2.0),
        (r#"weir_ratelimit_utilization_ratio{limit="all"}"#, 0.125),
    ]);
    drop(under_way);
    let samples = Samples::of(&metrics);
    samples.expect(&[
        (r#"weir_budget_reserved_usd{budget="app",window="total"}"#, 0.0),
        (r#"weir_budget_charged_usd_total{budget="app"}"#, 4.0),
        (r#"weir_ratelimit_utilization_ratio{limit="agents"}"#, 0.25),
    ]);
    let named = text_of(&metrics);
    assert!(!named.contains("ann") && !named.contains("bob"), "who it is, is no label");
}

#[test]
fn all_counters_of_a_provider_and_model_begin_together() {
    let metrics = metrics(&Settings::default());
    metrics.closed(&refused(401, Outcome::ClientError));
    let samples = Samples::of(&metrics);
    for outcome in Outcome::ALL {
        let (value, outcome) = (f64::from(u8::from(outcome == Outcome::ClientError)), outcome.as_str());
        let series =
            format!(r#"weir_requests_total{{provider="openai",model="gpt-5",operation="chat",outcome="{outcome}"}}"#);
        samples.expect(&[(&series, value)]);
    }
    for class in TokenClass::ALL.map(TokenClass::as_str) {
        let labels = format!(r#"{{provider="openai",model="gpt-5",token_type="{class}"}}"#);
        samples.expect(&[(&format!("weir_cost_usd_total{labels}"), 0.0)]);
        let tokens = samples.0.get(&format!("weir_tokens_total{labels}"));
        assert_eq!(tokens.is_some(), class != "fee", "fees are no tokens");
    }
    for result in ["hit", "expired", "bypass"] {
        let labels = format!(r#"{{provider="openai",model="gpt-5",result="{result}"}}"#);
        samples.expect(&[(&format!("weir_cache_requests_total{labels}"), 0.0)]);
    }
    samples.expect(&[
        (r#"weir_tokens_saved_total{provider="openai",model="gpt-5",source="cache"}"#, 0.0),
        (r#"weir_cost_saved_usd_total{provider="openai",model="gpt-5",source="cache"}"#, 0.0),
    ]);
}

#[test]
fn an_answered_call_counts_what_was_bought() {
    let metrics = metrics(&Settings::default());
    metrics.opened("openai");
    metrics.closed(&answered());
    let samples = Samples::of(&metrics);
    samples.expect(&[
        (r#"weir_requests_total{provider="openai",model="gpt-5",operation="chat",outcome="success"}"#, 1.0),
        (r#"weir_requests_in_flight{provider="openai"}"#, 0.0),
        (r#"weir_request_duration_seconds_sum{provider="openai",operation="chat",cache="miss"}"#, 3.5),
        (r#"weir_proxy_overhead_seconds_sum{phase="request"}"#, 0.0003),
        (r#"weir_proxy_overhead_seconds_sum{phase="response"}"#, 0.00004),
        (r#"weir_http_bytes_total{direction="in"}"#, 1000.0),
        (r#"weir_http_bytes_total{direction="out"}"#, 2000.0),
        (r#"weir_tokens_total{provider="openai",model="gpt-5",token_type="input"}"#, 60.0),
        (r#"weir_tokens_total{provider="openai",model="gpt-5",token_type="cache_read"}"#, 40.0),
        (r#"weir_tokens_total{provider="openai",model="gpt-5",token_type="cache_write"}"#, 0.0),
        (r#"weir_tokens_total{provider="openai",model="gpt-5",token_type="output"}"#, 16.0),
        (r#"weir_tokens_total{provider="openai",model="gpt-5",token_type="reasoning"}"#, 5.0),
        (r#"weir_cost_usd_total{provider="openai",model="gpt-5",token_type="input"}"#, 1.0),
        (r#"weir_cost_usd_total{provider="openai",model="gpt-5",token_type="output"}"#, 2.0),
        (r#"weir_request_cost_usd_sum{provider="openai",model="gpt-5"}"#, 3.0),
        (r#"weir_cache_requests_total{provider="openai",model="gpt-5",result="miss"}"#, 1.0),
        (r#"weir_cache_lookup_duration_seconds_count{backend="memory",result="miss"}"#, 1.0),
        (r#"weir_cache_stores_total{backend="memory",result="stored"}"#, 1.0),
        (r#"weir_upstream_requests_total{provider="openai",code="200"}"#, 1.0),
        (r#"weir_agent_requests_total{agent="planner"}"#, 1.0),
        (r#"weir_agent_tokens_total{agent="planner"}"#, 121.0),
        (r#"weir_agent_cost_usd_total{agent="planner"}"#, 3.0),
    ]);
    let names = concat!(
        r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai","#,
        r#"gen_ai_request_model="gpt-5",gen_ai_response_model="gpt-5-2026-08-07""#
    );
    samples.expect(&[
        (&format!(r#"gen_ai_client_token_usage_sum{{{names},gen_ai_token_type="input"}}"#), 100.0),
        (&format!(r#"gen_ai_client_token_usage_sum{{{names},gen_ai_token_type="output"}}"#), 21.0),
        (&format!("gen_ai_client_operation_duration_seconds_sum{{{names}}}"), 3.0),
        (&format!("gen_ai_server_time_to_first_token_seconds_sum{{{names}}}"), 1.0),
        (&format!("gen_ai_server_time_per_output_token_seconds_sum{{{names}}}"), 0.1),
    ]);
    assert_eq!(samples.counted("weir_cost_saved_usd_total"), NOTHING);
    assert_eq!(samples.counted("weir_unpriced_requests_total"), NOTHING);
}

#[test]
fn a_hit_is_saved_not_bought() {
    let metrics = metrics(&Settings::default());
    metrics.closed(&answered_from_cache());
    let samples = Samples::of(&metrics);
    samples.expect(&[
        (r#"weir_requests_total{provider="openai",model="gpt-5",operation="chat",outcome="success"}"#, 1.0),
        (r#"weir_request_duration_seconds_count{provider="openai",operation="chat",cache="hit"}"#, 1.0),
        (r#"weir_cache_requests_total{provider="openai",model="gpt-5",result="hit"}"#, 1.0),
        (r#"weir_cache_lookup_duration_seconds_count{backend="memory",result="hit"}"#, 1.0),
        (r#"weir_tokens_saved_total{provider="openai",model="gpt-5",source="cache"}"#, 121.0),
        (r#"weir_cost_saved_usd_total{provider="openai",model="gpt-5",source="cache"}"#, 3.0),
        (r#"weir_agent_requests_total{agent="planner"}"#, 1.0),
    ]);
    for name in [
        "weir_tokens_total",
        "weir_cost_usd_total",
        "weir_request_cost_usd_count",
        "weir_upstream_requests_total",
        "weir_agent_tokens_total",
        "weir_agent_cost_usd_total",
        "gen_ai_client_token_usage_count",
        "gen_ai_client_operation_duration_seconds_count",
        "gen_ai_server_time_to_first_token_seconds_count",
    ] {
        assert_eq!(samples.counted(name), NOTHING, "{name}");
    }
}

#[test]
fn a_failure_says_what_went_wrong_and_where() {
    let unanswered =
        |attempt, error_type, record| Record { attempt: Some(attempt), error_type: Some(error_type), ..record };
    let late = unanswered(Attempt::TimedOut, ErrorType::Timeout, refused(504, Outcome::Timeout));
    let lost = unanswered(Attempt::Failed, ErrorType::Connect, refused(502, Outcome::UpstreamError));
    for (record, outcome, code, error_type) in [
        (refused(429, Outcome::ClientError), "client_error", "429", "429"),
        (refused(418, Outcome::ClientError), "client_error", "other", "_OTHER"),
        (refused(402, Outcome::ClientError), "client_error", "402", "_OTHER"),
        (refused(529, Outcome::UpstreamError), "upstream_error", "529", "529"),
        (late, "timeout", "timeout", "timeout"),
        (lost, "upstream_error", "error", "connect_error"),
    ] {
        let metrics = metrics(&Settings::default());
        metrics.closed(&record);
        let samples = Samples::of(&metrics);
        let labels = r#"provider="openai",model="gpt-5",operation="chat""#;
        let names = r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt-5""#;
        samples.expect(&[
            (&format!(r#"weir_requests_total{{{labels},outcome="{outcome}"}}"#), 1.0),
            (&format!(r#"weir_upstream_requests_total{{provider="openai",code="{code}"}}"#), 1.0),
            (&format!(r#"gen_ai_client_operation_duration_seconds_sum{{{names},error_type="{error_type}"}}"#), 3.0),
        ]);
        assert_eq!(samples.counted("gen_ai_client_operation_duration_seconds_count").len(), 1);
        assert_eq!(samples.counted("gen_ai_server_time_to_first_token_seconds_count"), NOTHING);
        assert_eq!(samples.counted("weir_unpriced_requests_total"), NOTHING);
    }
}

#[test]
fn an_unknown_cost_is_counted_where_money_was_spent() {
    let answered_with = |status| unlisted("home-made", Attempt::Answered(status));
    let from_cache = Record { cost: answered_with(200).cost, ..answered_from_cache() };
    for (rule, record, counted) in [
        ("answered, but not in the table", answered_with(200), true),
        ("broke off after it had reported usage", Record { outcome: Outcome::Cancelled, ..answered_with(200) }, true),
        ("cut off before it had reported usage", Record { usage: None, ..answered_with(200) }, true),
        ("refused: nothing was billed", Record { cost: Cost::Nothing, ..answered_with(500) }, false),
        ("from the cache: nothing was spent", from_cache, false),
        ("counting tokens is free", Record { cost: Cost::Nothing, ..answered_with(200) }, false),
    ] {
        let metrics = metrics(&Settings::default());
        metrics.closed(&record);
        let samples = Samples::of(&metrics);
        assert_eq!(samples.counted("weir_unpriced_requests_total").len(), usize::from(counted), "{rule}");
        assert_eq!(samples.counted("weir_cost_usd_total"), NOTHING, "{rule}");
        let last_seen =
            r#"weir_unpriced_last_seen_timestamp_seconds{provider="openai",model="home-made",reason="unknown_model"}"#;
        assert_eq!(samples.0.contains_key(last_seen), counted, "{rule}");
        if counted {
            samples.expect(&[
                (r#"weir_unpriced_requests_total{provider="openai",reason="unknown_model"}"#, 1.0),
                (last_seen, 1_800_000_003.5),
            ]);
        }
    }
}

/// The same call as `answered`, of which the provider says itself that it charges `usd`.
fn stated(usd: u128) -> Record {
    let Cost::Known(list) = answered().cost else { unreachable!("it is priced") };
    let mut charge = Charge::default();
    charge.add(TokenClass::Fee, PicoUsd::new(usd * PicoUsd::PER_USD));
    Record { cost: Cost::Known(charge), provenance: Some(Provenance::Reported), list_cost: Some(list), ..answered() }
}

/// The same call, broken off: its tokens are an estimate.
fn estimated() -> Record {
    Record {
        usage: Some(Usage::default().with_estimates(Some(100), Some(21))),
        provenance: Some(Provenance::Estimated),
        ..answered()
    }
}

#[test]
fn costs_are_told_apart_by_where_they_come_from() {
    let metrics = metrics(&Settings::default());
    let before = Samples::of(&metrics);
    assert!(!before.0.contains_key(r#"weir_cost_capture_ratio{provider="openai"}"#), "nothing was billable yet");
    let unpriced = unlisted("home-made", Attempt::Answered(200));
    for record in [answered(), answered(), stated(5), estimated(), unpriced, refused(429, Outcome::ClientError)] {
        metrics.closed(&record);
    }
    metrics.closed(&Record { provenance: Some(Provenance::Reported), ..answered_from_cache() });
    let samples = Samples::of(&metrics);
    samples.expect(&[
        (r#"weir_billable_requests_total{provider="openai",provenance="priced"}"#, 2.0),
        (r#"weir_billable_requests_total{provider="openai",provenance="reported"}"#, 1.0),
        (r#"weir_billable_requests_total{provider="openai",provenance="estimated"}"#, 1.0),
        (r#"weir_billable_requests_total{provider="openai",provenance="unpriced"}"#, 1.0),
        (r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="priced"}"#, 6.0),
        (r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="reported"}"#, 5.0),
        (r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="estimated"}"#, 3.0),
        (r#"weir_cost_capture_ratio{provider="openai"}"#, 0.6),
        (r#"weir_usage_estimated_total{provider="openai"}"#, 1.0),
    ]);
    let unknown = r#"weir_cost_by_provenance_usd_total{provider="openai",provenance="unpriced"}"#;
    assert!(!samples.0.contains_key(unknown), "unknown money is no number");
    assert!(!samples.0.contains_key(r#"weir_cost_capture_ratio{provider="local"}"#));
}

#[test]
fn drift_is_measured_where_the_provider_states_money_and_usage() {
    let listed_at = |mut record: Record, list: u128| {
        let mut charge = Charge::default();
        charge.add(TokenClass::Input, PicoUsd::new(list * PicoUsd::PER_USD));
        record.list_cost = Some(charge);
        record
    };
    let without_list = Record { list_cost: None, ..stated(7) };
    let by_estimate = Record { usage: estimated().usage, ..stated(9) };
    for (rule, records, over, under) in [
        ("as the table says", vec![stated(3)], 0.0, 0.0),
        ("more than the table says", vec![stated(5)], 2.0, 0.0),
        ("less than the table says", vec![stated(1)], 0.0, 2.0),
        ("one does not make up for the other", vec![listed_at(stated(10), 4), listed_at(stated(2), 5)], 6.0, 3.0),
        ("the table does not know the model", vec![without_list], 0.0, 0.0),
        ("an estimate is no measure of the table", vec![by_estimate], 0.0, 0.0),
        ("the provider states nothing", vec![answered()], 0.0, 0.0),
    ] {
        let metrics = metrics(&Settings::default());
        for record in &records {
            metrics.closed(record);
        }
        let samples = Samples::of(&metrics);
        for (direction, expected) in [("over", over), ("under", under)] {
            let series = format!(r#"weir_cost_drift_usd_total{{provider="openai",direction="{direction}"}}"#);
            assert_eq!(samples.0[&series].to_string(), f64::to_string(&expected), "{rule}: {direction}");
        }
    }
}

#[test]
fn an_estimate_is_billed_but_is_no_measure_of_the_provider() {
    let metrics = metrics(&Settings::default());
    metrics.closed(&estimated());
    let samples = Samples::of(&metrics);
    samples.expect(&[
        (r#"weir_tokens_total{provider="openai",model="gpt-5",token_type="input"}"#, 100.0),
        (r#"weir_tokens_total{provider="openai",model="gpt-5",token_type="output"}"#, 21.0),
        (r#"weir_cost_usd_total{provider="openai",model="gpt-5",token_type="input"}"#, 1.0),
        (r#"weir_agent_tokens_total{agent="planner"}"#, 121.0),
    ]);
    assert_eq!(samples.counted("gen_ai_client_token_usage_count"), NOTHING);
    assert_eq!(samples.counted("gen_ai_server_time_per_output_token_seconds_count"), NOTHING);
    assert_eq!(samples.counted("gen_ai_server_time_to_first_token_seconds_count").len(), 1, "that is measured");
}

#[test]
fn token_latencies_are_of_streams_that_ended_well() {
    let whole = |mut record: Record| {
        record.call.delivery = Delivery::Whole;
        record
    };
    let tokens = |output| Record { usage: Some(Usage::cache_inside(Some(9), output, &[])), ..answered() };
    let silent = Record { timing: Timing { first_token: None, ..answered().timing }, ..answered() };
    for (rule, record, first, per_token) in [
        ("a stream that ended well", answered(), true, Some(0.1)),
        ("a whole reply has no first token", whole(answered()), false, None),
        ("a failed stream", Record { outcome: Outcome::UpstreamError, ..answered() }, false, None),
        ("a stream given up", Record { outcome: Outcome::Cancelled, ..answered() }, false, None),
        ("a stream without content", silent, false, None),
        ("one token has no time between tokens", tokens(Some(1)), true, None),
        ("two tokens have one", tokens(Some(2)), true, Some(2.0)),
        ("tokens that were not counted", tokens(None), true, None),
        ("from the cache", answered_from_cache(), false, None),
    ] {
        let metrics = metrics(&Settings::default());
        metrics.closed(&record);
        let samples = Samples::of(&metrics);
        let firsts = samples.counted("gen_ai_server_time_to_first_token_seconds_count");
        assert_eq!(!firsts.is_empty(), first, "{rule}");
        let sum = samples.counted("gen_ai_server_time_per_output_token_seconds_sum");
        assert_eq!(
            sum.first().map(|series| samples.0[*series].to_string()),
            per_token.map(|it: f64| it.to_string()),
            "{rule}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_full_again_when_its_reset_time_has_passed() {
    let metrics = metrics(&Settings::default());
    let requests = Quota { limit: Some(100), remaining: Some(7), resets_in: Some(Duration::from_secs(60)) };
    let tokens = Quota { remaining: Some(5_000), ..Quota::default() };
    let head =
        HeadFacts { came_at: Some(tokio::time::Instant::now()), quotas: [requests, tokens], ..HeadFacts::default() };
    metrics.closed(&Record { head, ..answered() });
    let remaining = r#"weir_upstream_ratelimit_remaining{provider="openai",kind="requests"}"#;
    let samples = Samples::of(&metrics);
    samples.expect(&[
        (r#"weir_upstream_ratelimit_limit{provider="openai",kind="requests"}"#, 100.0),
        (remaining, 7.0),
        (r#"weir_upstream_ratelimit_remaining{provider="openai",kind="tokens"}"#, 5_000.0),
    ]);
    assert!(!samples.0.contains_key(r#"weir_upstream_ratelimit_limit{provider="openai",kind="tokens"}"#));
    tokio::time::advance(Duration::from_secs(60)).await;
    Samples::of(&metrics).expect(&[(remaining, 100.0)]);
}

#[test]
fn tokens_that_are_only_counted_are_not_bought() {
    let metrics = metrics(&Settings::default());
    metrics.closed(&Record { cost: Cost::Nothing, ..with_operation(answered(), Operation::CountTokens) });
    let samples = Samples::of(&metrics);
    for name in ["weir_tokens_total", "weir_agent_tokens_total", "gen_ai_client_token_usage_count"] {
        assert_eq!(samples.counted(name), NOTHING, "{name}");
    }
    assert_eq!(samples.counted("gen_ai_client_operation_duration_seconds_count").len(), 1);
}

#[test]
fn a_model_name_gets_a_place_once_a_provider_has_answered_for_it() {
    let metrics = metrics(&Settings::default());
    let requests = |model| {
        format!(r#"weir_requests_total{{provider="openai",model="{model}",operation="chat",outcome="success"}}"#)
    };
    for attempt in [Attempt::Answered(404), Attempt::Answered(500), Attempt::TimedOut] {
        metrics.closed(&unlisted("home-made", attempt));
    }
    Samples::of(&metrics).expect(&[
        (&requests("other"), 3.0),
        (r#"weir_metrics_label_values{label="model"}"#, 0.0),
        (r#"weir_metrics_label_overflow_total{label="model"}"#, 0.0),
    ]);
    for attempt in [Attempt::Answered(200), Attempt::Answered(500)] {
        metrics.closed(&unlisted("home-made", attempt));
    }
    Samples::of(&metrics).expect(&[
        (&requests("other"), 3.0),
        (&requests("home-made"), 2.0),
        (r#"weir_metrics_label_values{label="model"}"#, 1.0),
        (r#"weir_metrics_label_values{label="gen_ai_request_model"}"#, 1.0),
    ]);
}

#[test]
fn labels_that_are_full_fold_into_other() {
    let metrics = metrics(&Settings { max_models: 2, max_agents: 1, ..Settings::default() });
    for model in ["a", "b", "c", "d", "a"] {
        let mut record = unlisted(model, Attempt::Answered(200));
        record.call.caller.agent = Some(model.into());
        metrics.closed(&record);
    }
    Samples::of(&metrics).expect(&[
        (r#"weir_requests_total{provider="openai",model="a",operation="chat",outcome="success"}"#, 2.0),
        (r#"weir_requests_total{provider="openai",model="b",operation="chat",outcome="success"}"#, 1.0),
        (r#"weir_requests_total{provider="openai",model="other",operation="chat",outcome="success"}"#, 2.0),
        (r#"weir_agent_requests_total{agent="a"}"#, 2.0),
        (r#"weir_agent_requests_total{agent="other"}"#, 3.0),
        (r#"weir_metrics_label_overflow_total{label="model"}"#, 2.0),
        (r#"weir_metrics_label_overflow_total{label="gen_ai_request_model"}"#, 2.0),
        (r#"weir_metrics_label_overflow_total{label="agent"}"#, 3.0),
    ]);
}

#[test]
fn names_without_room_fold_into_other_and_nothing_is_lost() {
    let metrics = metrics(&Settings { max_series: 2_000, max_models: 1_000, max_agents: 1_000, ..Settings::default() });
    for number in 0..1_000 {
        let mut record = unlisted(&format!("model-{number}"), Attempt::Answered(200));
        record.call.caller.agent = Some(format!("agent-{number}").into());
        metrics.closed(&record);
        metrics.closed(&Record { error_type: Some(ErrorType::Timeout), outcome: Outcome::Timeout, ..record });
    }
    let samples = Samples::of(&metrics);
    let exposed = samples.0.len();
    let reported = samples.0["weir_metrics_series"];
    assert_eq!(reported.to_string(), exposed.to_string());
    let named = samples.0.keys().filter(|series| !series.contains("\"other\"")).count();
    assert!(named <= 2_000, "{named} of {exposed} series have a name of their own");
    let sum = |name: &str| samples.counted(name).iter().map(|series| samples.0[*series]).sum::<f64>();
    for (name, counted) in [
        ("weir_requests_total", 2_000.0),
        ("weir_agent_requests_total", 2_000.0),
        ("gen_ai_client_operation_duration_seconds_count", 2_000.0),
        ("gen_ai_server_time_to_first_token_seconds_count", 1_000.0),
    ] {
        assert!((sum(name) - counted).abs() < 1e-9, "{name}: {}", sum(name));
    }
    assert!(sum("weir_metrics_label_overflow_total") > 0.0);
}

#[test]
fn what_replicas_share_begins_at_zero_where_there_is_something_to_share() {
    let alone = metrics(&Settings::default());
    alone.shared(Event::Stored);
    let text = text_of(&alone);
    assert!(!text.contains("weir_shared_store_up") && !text.contains("redis"));

    let sharing = metrics(&Settings::default());
    let is_up = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_up);
    sharing.watch_store(Arc::new(move || asked.load(Ordering::Relaxed)));
    let lookups = |result| format!(r#"weir_cache_lookup_duration_seconds_count{{backend="redis",result="{result}"}}"#);
    let stores = |result| format!(r#"weir_cache_stores_total{{backend="redis",result="{result}"}}"#);
    let errors = |operation| format!(r#"weir_cache_errors_total{{backend="redis",operation="{operation}"}}"#);
    let names = [
        "weir_shared_store_up".to_owned(),
        lookups("hit"),
        lookups("miss"),
        lookups("expired"),
        stores("stored"),
        stores("error"),
        errors("get"),
        errors("put"),
        errors("delete"),
    ];
    let expect = |values: [f64; 9]| {
        let expected: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        Samples::of(&sharing).expect(&expected);
    };
    expect([0.0; 9]);
    is_up.store(true, Ordering::Relaxed);
    let took = Duration::from_millis(1);
    for (event, times) in [
        (Event::LookedUp(Found::Fresh, took), 2),
        (Event::LookedUp(Found::Nothing, took), 3),
        (Event::LookedUp(Found::Stale, took), 4),
        (Event::Stored, 5),
        (Event::NotStored, 6),
        (Event::Failed(Work::Get), 7),
        (Event::Failed(Work::Put), 8),
        (Event::Failed(Work::Delete), 9),
    ] {
        (0..times).for_each(|_| sharing.shared(event));
    }
    expect([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
}

/// Whether a metric is exposed by `weir inject` instead; `tests/webhook` looks at those.
fn is_injectors(name: &str) -> bool {
    name.starts_with("weir_inject_")
}

/// In a runtime, whose tasks are counted.
#[tokio::test]
async fn what_is_exposed_is_what_is_declared() {
    let text = text_of(&filled());
    let mut exposed = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a type follows the name");
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not declared"));
        let declared = if metric.kind == Kind::Info { "gauge" } else { metric.kind.as_str() };
        assert_eq!(kind, declared, "{name}");
        assert!(exposed.insert(name), "{name} is exposed twice");
        let help = format!("# HELP {name} {}.\n", metric.help);
        assert!(text.contains(&help), "{help}");
        let declared: BTreeSet<_> = metric.labels.iter().copied().collect();
        assert_eq!(labels_of(&text, name), declared, "{name}");
    }
    let declared = METRICS.iter().map(|metric| metric.name).filter(|name| !is_injectors(name));
    let missing: Vec<_> = declared.filter(|name| !exposed.contains(name)).collect();
    assert!(missing.is_empty(), "declared, but not exposed: {missing:?}");
}

#[test]
fn a_retry_is_an_attempt_of_the_app_s() {
    let metrics = metrics(&Settings::default());
    let retries = r#"weir_upstream_retries_total{provider="openai",reason="app"}"#;
    Samples::of(&metrics).expect(&[(retries, 0.0)]);
    let again = |record: Record| {
        let caller = Caller { is_retry: true, ..Caller::default() };
        Record { call: Call { caller, ..record.call }, ..record }
    };
    for (what, record, count) in [
        ("no retry", answered(), 0.0),
        ("a retry", again(answered()), 1.0),
        ("one that failed", again(refused(429, Outcome::ClientError)), 2.0),
        ("an answer that was there already", again(answered_from_cache()), 2.0),
        ("a refusal of weir's", again(Record { attempt: None, ..refused(429, Outcome::RateLimited) }), 2.0),
        (
            "weir's own call, with the head of the app's",
            again(Record { cache: CacheFacts::new(CacheStatus::Bypass(BypassReason::Refresh)), ..answered() }),
            2.0,
        ),
    ] {
        metrics.closed(&record);
        assert_eq!(Samples::of(&metrics).0[retries].to_bits(), f64::to_bits(count), "{what}");
    }
}

#[test]
fn process_container_and_machine_are_told_as_they_are() {
    let metrics = metrics(&Settings::default());
    metrics.watch_host(host());
    let samples = Samples::of(&metrics);
    samples.expect(&[
        ("process_cpu_seconds_total", 13.0),
        ("process_open_fds", 3.0),
        ("process_max_fds", 1024.0),
        ("process_virtual_memory_bytes", 734_003_200.0),
        ("process_virtual_memory_max_bytes", 1_073_741_824.0),
        ("process_resident_memory_bytes", 8_388_608.0),
        ("process_start_time_seconds", 1_800_000_500.25),
        ("process_threads", 11.0),
        ("weir_cgroup_memory_working_set_bytes", 73_400_320.0),
        ("weir_cgroup_memory_limit_bytes", 268_435_456.0),
        ("weir_cgroup_memory_oom_kills_total", 2.0),
        ("weir_cgroup_cpu_quota_cores", 1.5),
        ("weir_cgroup_cpu_periods_total", 1000.0),
        ("weir_cgroup_cpu_throttled_periods_total", 250.0),
        ("weir_cgroup_cpu_throttled_seconds_total", 2.5),
        (r#"weir_cgroup_pressure_waiting_seconds_total{resource="cpu"}"#, 7.0),
        (r#"weir_cgroup_pressure_waiting_seconds_total{resource="io"}"#, 0.0),
        (r#"weir_cgroup_pressure_stalled_seconds_total{resource="memory"}"#, 0.25),
    ]);
    let of_machine = |name: &str| samples.0.get(name).copied().expect("it is known");
    let (used, total) = (of_machine("weir_system_memory_used_bytes"), of_machine("weir_system_memory_total_bytes"));
    assert!(used > 0.0 && used < total, "{used} of {total}");
}

#[test]
fn ways_to_providers_of_one_name_are_one_series() {
    Samples::of(&filled()).expect(&[
        (r#"weir_upstream_connections{provider="openai"}"#, 3.0),
        (r#"weir_upstream_connections{provider="local"}"#, 0.0),
    ]);
}

#[test]
fn a_queue_says_what_is_known_of_it() {
    let samples = Samples::of(&filled());
    samples.expect(&[
        (r#"weir_queue_length{queue="estimates"}"#, 7.0),
        (r#"weir_queue_capacity{queue="estimates"}"#, 9.0),
        (r#"weir_queue_dropped_total{queue="estimates"}"#, 2.0),
        (r#"weir_queue_dropped_total{queue="log_lines"}"#, 2.0),
    ]);
    let unknown = samples
        .0
        .keys()
        .find(|series| series.contains("recordings") || *series == r#"weir_queue_length{queue="log_lines"}"#);
    assert_eq!(unknown, None);
}

#[test]
fn consumers_and_namespaces_are_counted_where_that_is_wanted() {
    let record = |user: &str, namespace: &str, status| {
        let (user, namespace) = (Some(user.into()), Some(namespace.into()));
        let caller = Caller { user, namespace, ..Caller::default() };
        Record { call: Call { caller, ..answered().call }, cache: CacheFacts::new(status), ..answered() }
    };
    let records = || {
        [
            record("ann", "red", CacheStatus::Miss),
            record("ann", "red", CacheStatus::Expired),
            Record { cost: Cost::Nothing, attempt: None, ..record("ann", "blue", CacheStatus::Hit) },
            record("bob", "blue", CacheStatus::Miss),
            record("eve", "green", CacheStatus::Miss),
            passed_through(),
            record("ann", "red", CacheStatus::Bypass(BypassReason::Refresh)),
        ]
    };
    let count = |settings: &Settings| {
        let metrics = metrics(settings);
        let before = Samples::of(&metrics);
        for record in &records() {
            metrics.closed(record);
        }
        (before, Samples::of(&metrics))
    };
    let (_, off) = count(&Settings::default());
    let told =
        off.0.keys().find(|series| ["ann", "consumer", "cache_namespace"].iter().any(|word| series.contains(word)));
    assert_eq!(told, None, "nobody is named unless the operator says so");

    let wanted = Settings {
        consumers: Consumers::Plain,
        max_consumers: 2,
        cache_namespaces: true,
        max_cache_namespaces: 2,
        ..Settings::default()
    };
    let (before, after) = count(&wanted);
    before.expect(&[
        (r#"weir_consumer_requests_total{consumer="none"}"#, 0.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="none",result="bypass"}"#, 0.0),
        (r#"weir_metrics_label_values_limit{label="consumer"}"#, 2.0),
        (r#"weir_metrics_label_values_limit{label="cache_namespace"}"#, 2.0),
    ]);
    after.expect(&[
        (r#"weir_consumer_requests_total{consumer="ann"}"#, 3.0),
        (r#"weir_consumer_requests_total{consumer="bob"}"#, 1.0),
        (r#"weir_consumer_requests_total{consumer="other"}"#, 1.0),
        (r#"weir_consumer_requests_total{consumer="none"}"#, 1.0),
        // weir's own call for a newer answer is none of hers, but is what she costs.
        (r#"weir_consumer_cost_usd_total{consumer="ann"}"#, 9.0),
        (r#"weir_consumer_cost_usd_total{consumer="none"}"#, 0.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="red",result="miss"}"#, 1.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="red",result="expired"}"#, 1.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="red",result="hit"}"#, 0.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="red",result="bypass"}"#, 1.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="blue",result="hit"}"#, 1.0),
        (r#"weir_cache_namespace_requests_total{cache_namespace="other",result="miss"}"#, 1.0),
        (r#"weir_metrics_label_overflow_total{label="consumer"}"#, 1.0),
    ]);

    let (_, hashed) = count(&Settings { consumers: Consumers::Hashed, ..Settings::default() });
    let consumers = hashed.counted("weir_consumer_requests_total");
    assert_eq!(consumers.len(), 4, "{consumers:?}");
    assert!(hashed.0.keys().all(|series| !series.contains("ann")), "{consumers:?}");
}

#[test]
fn a_reload_has_worked_once_every_file_is_in_force_as_it_is() {
    let metrics = metrics(&Settings::default());
    let (key, token) = (metrics.watched_file(), metrics.watched_file());
    let told = || {
        let samples = Samples::of(&metrics);
        let of = |series: &str| samples.0[series];
        let results =
            ["success", "failure"].map(|result| of(&format!(r#"weir_config_reloads_total{{result="{result}"}}"#)));
        (of("weir_config_last_reload_successful"), results, of("weir_config_last_reload_success_timestamp_seconds"))
    };
    let (is_good, results, started) = told();
    assert_eq!((is_good.to_bits(), results), (1_f64.to_bits(), [0.0, 0.0]), "from the start");
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!((now - 60.0..=now).contains(&started), "{started} is not just before {now}");
    let mut last = started;
    for (file, came, is_good, results) in [
        (&key, Reread::Taken, 1.0, [1.0, 0.0]),
        (&key, Reread::Refused, 0.0, [1.0, 1.0]),
        (&token, Reread::Taken, 0.0, [2.0, 1.0]),
        (&token, Reread::Refused, 0.0, [2.0, 2.0]),
        (&key, Reread::Taken, 0.0, [3.0, 2.0]),
        (&token, Reread::Refused, 0.0, [3.0, 3.0]),
        (&token, Reread::Taken, 1.0, [4.0, 3.0]),
    ] {
        file.reread(came);
        let now = told();
        assert_eq!((now.0.to_bits(), now.1), (f64::to_bits(is_good), results), "{came:?}");
        assert!(now.2 >= last, "it does not go back");
        last = now.2;
    }
}

/// Counters that begin with what they count, because nobody knows all values of their labels before. `true`: once the
/// others of the same provider and model are there, they are too.
const NOT_FROM_THE_START: [(&str, bool); 13] = [
    ("gen_ai_client_inference_usage_input_tokens_total", true),
    ("gen_ai_client_inference_usage_output_tokens_total", true),
    ("gen_ai_client_inference_usage_cache_read_input_tokens_total", true),
    ("gen_ai_client_inference_usage_cache_write_input_tokens_total", true),
    ("gen_ai_client_inference_usage_reasoning_output_tokens_total", true),
    ("weir_requests_total", true),
    ("weir_tokens_total", true),
    ("weir_tokens_saved_total", true),
    ("weir_cost_usd_total", true),
    ("weir_cost_saved_usd_total", true),
    ("weir_cache_requests_total", true),
    ("weir_tool_invocations_total", false),
    ("weir_loop_errors_total", false),
];

#[test]
fn a_first_increment_can_be_seen_because_zero_came_before() {
    let metrics = watched(Histograms::Classic);
    let before = Samples::of(&metrics);
    let is_there =
        |samples: &Samples, name: &str| samples.0.keys().any(|series| series.split('{').next() == Some(name));
    for counter in METRICS.iter().filter(|metric| metric.kind == Kind::Counter && !is_injectors(metric.name)) {
        let exempt = NOT_FROM_THE_START.iter().any(|(name, _)| *name == counter.name);
        assert_eq!(is_there(&before, counter.name), !exempt, "{}", counter.name);
    }
    metrics.closed(&passed_through());
    metrics.closed(&refused(503, Outcome::UpstreamError));
    let seen = Samples::of(&metrics);
    for (name, with_the_others) in NOT_FROM_THE_START {
        assert_eq!(is_there(&seen, name), with_the_others, "{name}");
    }
    let outcomes = ["success", "client_error", "upstream_error", "timeout", "internal_error", "rate_limited"];
    for outcome in outcomes.into_iter().chain(["budget_blocked", "cancelled"]) {
        let series =
            format!(r#"weir_requests_total{{provider="openai",model="gpt-5",operation="chat",outcome="{outcome}"}}"#);
        seen.expect(&[(&series, f64::from(u8::from(outcome == "upstream_error")))]);
    }
    for result in ["hit", "miss", "expired", "bypass"] {
        let series = format!(r#"weir_cache_requests_total{{provider="openai",model="gpt-5",result="{result}"}}"#);
        seen.expect(&[(&series, f64::from(u8::from(result == "miss")))]);
    }
}

#[test]
fn what_the_system_does_not_say_makes_no_sample() {
    let metrics = metrics(&Settings::default());
    metrics.watch_host(Host::at(Path::new("/nowhere")));
    let scrape = text_of(&metrics);
    let told = scrape.lines().find(|line| line.contains("process_") || line.contains("weir_cgroup_"));
    assert_eq!(told, None);
}

#[test]
fn operations_are_told_in_the_words_that_are_wanted() {
    let failed =
        || Record { outcome: Outcome::UpstreamError, error_type: Some(ErrorType::StreamAborted), ..answered() };
    let told = |semconv| {
        let metrics = in_words(semconv, &Settings::default());
        for record in [answered(), failed(), refused(429, Outcome::ClientError), answered_from_cache()] {
            metrics.closed(&record);
        }
        Samples::of(&metrics)
    };
    let [old, next, both] = [Conventions::V1_41, Conventions::Next, Conventions::Both].map(told);
    let names = concat!(
        r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai","#,
        r#"gen_ai_request_model="gpt-5",gen_ai_response_model="gpt-5-2026-08-07""#
    );
    let in_all =
        |tokens| format!(r#"gen_ai_client_inference_usage_{tokens}_total{{{names},gen_ai_token_modality="unknown"}}"#);
    let duration = "gen_ai_client_inference_duration_seconds";
    let input = "gen_ai_client_inference_operation_input_tokens";
    for samples in [&next, &both] {
        samples.expect(&[
            (&in_all("input_tokens"), 200.0),
            (&in_all("output_tokens"), 42.0),
            (&in_all("cache_read_input_tokens"), 80.0),
            (&in_all("cache_write_input_tokens"), 0.0),
            (&in_all("reasoning_output_tokens"), 10.0),
            (&format!("{input}_sum{{{names}}}"), 100.0),
            (&format!("{input}_count{{{names}}}"), 1.0),
            (&format!(r#"{input}_count{{{names},error_type="stream_aborted"}}"#), 1.0),
            (&format!("gen_ai_client_inference_operation_output_tokens_sum{{{names}}}"), 21.0),
            (&format!("{duration}_sum{{{names}}}"), 3.0),
            (&format!(r#"{duration}_count{{{names},error_type="stream_aborted"}}"#), 1.0),
        ]);
    }
    let families = |samples: &Samples, stem: &str| samples.0.keys().filter(|series| series.starts_with(stem)).count();
    for (stem, [in_old, in_next, in_both]) in [
        ("gen_ai_client_token_usage", [true, false, true]),
        ("gen_ai_client_operation_duration_seconds", [true, false, true]),
        ("gen_ai_client_inference_", [false, true, true]),
        ("gen_ai_server_time_to_first_token_seconds", [true, true, true]),
    ] {
        let found = [&old, &next, &both].map(|samples| families(samples, stem) > 0);
        assert_eq!(found, [in_old, in_next, in_both], "{stem}");
    }
    // Neither adds to the other's.
    let of = |stem: &str, samples: &Samples| -> BTreeMap<_, _> {
        samples
            .0
            .iter()
            .filter(|(series, _)| series.starts_with(stem))
            .map(|(series, value)| (series.clone(), *value))
            .collect()
    };
    for (stem, alone) in
        [("gen_ai_client_token", &old), ("gen_ai_client_operation", &old), ("gen_ai_client_inference", &next)]
    {
        assert_eq!(of(stem, alone), of(stem, &both), "{stem}");
    }
}

#[test]
fn labels_say_only_what_is_declared() {
    let text = text_of(&filled());
    let mut said = BTreeMap::<_, BTreeSet<&str>>::new();
    for (name, inside) in text.lines().filter_map(|line| line.rsplit_once('}')?.0.split_once('{')) {
        let is_of =
            |stem: &str| ["", "_bucket", "_sum", "_count"].iter().any(|suffix| name.strip_suffix(suffix) == Some(stem));
        let metric = METRICS.iter().find(|metric| is_of(metric.name)).unwrap_or_else(|| panic!("{name}"));
        for (label, value) in inside.split("\",").filter_map(|label| label.trim_end_matches('"').split_once("=\"")) {
            if label != "le" {
                said.entry((metric.name, label)).or_default().insert(value);
            }
        }
    }
    for ((name, label), found) in said {
        let metric = METRICS.iter().find(|metric| metric.name == name).expect("it is declared");
        let declared = values::of_metric(metric, label).unwrap_or_else(|| panic!("{name}: {label}"));
        let Most::Closed(most @ 2..) = declared.most else { continue };
        assert!(found.len() <= most, "{name}: {label} says {found:?}");
        for value in found {
            assert!(declared.say.contains(&format!("`{value}`")), "{name}: {label} says {value}");
        }
    }
}

/// The sets that code declares, against what is said of them: a value that is added there is missed here.
#[test]
fn closed_sets_are_told_in_full() {
    let sets: [(&str, Option<&str>, Vec<&str>); 12] = [
        (label::OUTCOME, None, Outcome::ALL.map(Outcome::as_str).to_vec()),
        (label::TOKEN_TYPE, None, TokenClass::ALL.map(TokenClass::as_str).to_vec()),
        (label::SOURCE, None, Reuse::ALL.map(Reuse::as_str).to_vec()),
        (label::ROLE, None, Role::ALL.map(Role::as_str).to_vec()),
        (label::VERDICT, None, Verdict::ALL.map(Verdict::as_str).to_vec()),
        (label::STRATEGY, None, Strategy::ALL.map(Strategy::as_str).to_vec()),
        (label::DECISION, None, Decision::ALL.map(Decision::as_str).to_vec()),
        (label::STATUS, Some("weir_loop_execution_duration_seconds"), RunStatus::ALL.map(RunStatus::as_str).to_vec()),
        (label::PROVENANCE, Some("weir_billable_requests_total"), Provenance::ALL.map(Provenance::as_str).to_vec()),
        (
            label::RESULT,
            Some("weir_cache_similar_requests_total"),
            SimilarResult::ALL.map(SimilarResult::as_str).to_vec(),
        ),
        (label::REASON, Some("weir_unpriced_requests_total"), Unpriced::ALL.map(Unpriced::as_str).to_vec()),
        (label::REASON, Some("weir_loop_runaways_total"), Reason::ALL.map(Reason::as_str).to_vec()),
    ];
    for (label, of, set) in sets {
        let is_of = |it: &values::Values| match of {
            Some(name) => it.of.iter().any(|metric| metric.name == name),
            None => it.of.is_empty(),
        };
        let declared = VALUES.iter().find(|it| it.label == label && is_of(it)).unwrap_or_else(|| panic!("{label}"));
        assert_eq!(declared.most, Most::Closed(set.len()), "{label}: {set:?}");
        for value in set {
            assert!(declared.say.contains(&format!("`{value}`")), "{label}: {value}");
        }
    }
}

#[test]
fn one_provider_and_three_models_are_fewer_than_a_thousand_series() {
    let metrics = Metrics::new(&sinks::Settings::default(), &["openai".into()], about());
    for model in ["gpt-5", "gpt-5-mini", "gpt-5-nano"] {
        let mut record = answered();
        (record.call.model, record.reply.model) = (Some(model.into()), Some(model.into()));
        record.priced_model = Some(model.into());
        metrics.closed(&record);
    }
    let series = Samples::of(&metrics).0["weir_metrics_series"];
    assert!((500.0..1_000.0).contains(&series), "{series}, and docs/metrics.md says so");
}

#[test]
fn loops_count_what_their_calls_come_to() {
    let metrics = metrics(&Settings::default());
    let of = |caller, record: Record| Record { call: Call { caller, ..record.call }, ..record };
    let in_run = || Caller { run: Some("1".into()), ..in_loop("research") };
    let before = Samples::of(&metrics);
    before.expect(&[
        (r#"weir_loop_llm_calls_total{loop_type="none"}"#, 0.0),
        (r#"weir_loop_runaways_total{loop_type="none",reason="repeated_tools"}"#, 0.0),
        (r#"weir_active_loops{loop_type="none"}"#, 0.0),
    ]);
    for record in [
        of(in_run(), with_tools(&["look", "look", "go"])),
        of(in_loop("research"), answered()),
        of(Caller { run: Some("2".into()), ..Caller::default() }, answered()),
        of(Caller::default(), with_tools(&["look"])),
        // What costs nothing, was refused, or is none of the app's.
        of(in_run(), answered_from_cache()),
        of(in_run(), Record { attempt: None, outcome: Outcome::RateLimited, ..answered() }),
        of(in_run(), Record { cache: CacheFacts::new(CacheStatus::Bypass(BypassReason::Verify)), ..answered() }),
        of(in_run(), Record { call: Call { operation: Operation::CountTokens, ..answered().call }, ..answered() }),
    ] {
        metrics.closed(&record);
    }
    Samples::of(&metrics).expect(&[
        (r#"weir_loop_llm_calls_total{loop_type="research"}"#, 3.0),
        (r#"weir_loop_tokens_total{loop_type="research",token_type="prompt"}"#, 200.0),
        (r#"weir_loop_tokens_total{loop_type="research",token_type="completion"}"#, 42.0),
        (r#"weir_loop_cost_usd_total{loop_type="research"}"#, 6.0),
        (r#"weir_loop_llm_calls_total{loop_type="none"}"#, 1.0),
        (r#"weir_tool_invocations_total{tool="look",loop_type="research"}"#, 2.0),
        (r#"weir_tool_invocations_total{tool="go",loop_type="research"}"#, 1.0),
        (r#"weir_tool_invocations_total{tool="look",loop_type="none"}"#, 1.0),
        (r#"weir_loop_execution_duration_seconds_count{loop_type="research",status="cancelled"}"#, 0.0),
    ]);
    let none_yet = |series: &&String| series.contains("execution_duration") && series.contains("\"none\"");
    assert!(before.0.keys().find(none_yet).is_none(), "no run has begun");
}

#[test]
fn runs_are_counted_when_they_end_and_shown_while_they_go_on() {
    let metrics = metrics(&Settings::default());
    let active = Arc::new(Mutex::new(vec![("research".into(), Active { runs: 2, most_calls: 7 })]));
    let watched = Arc::clone(&active);
    metrics.watch_runs(Box::new(move || watched.lock().expect("one thread").clone()));
    metrics.run(ended("research", RunStatus::Success));
    metrics.run(ended("research", RunStatus::Error));
    metrics.run(runs::Event::RanAway("research".into(), Reason::RepeatedTools));
    let [runs, most] = ["weir_active_loops", "weir_loop_max_active_llm_calls"]
        .map(|name| format!(r#"{name}{{loop_type="research"}}"#));
    Samples::of(&metrics).expect(&[
        (&runs, 2.0),
        (&most, 7.0),
        (r#"weir_loop_execution_duration_seconds_count{loop_type="research",status="success"}"#, 1.0),
        (r#"weir_loop_execution_duration_seconds_sum{loop_type="research",status="error"}"#, 20.0),
        (r#"weir_loop_execution_duration_seconds_count{loop_type="research",status="timeout"}"#, 0.0),
        (r#"weir_loop_errors_total{loop_type="research",error_type="529"}"#, 1.0),
        (r#"weir_loop_runaways_total{loop_type="research",reason="repeated_tools"}"#, 1.0),
    ]);
    active.lock().expect("one thread").clear();
    Samples::of(&metrics).expect(&[(&runs, 0.0), (&most, 0.0)]);
}

#[test]
fn kinds_of_loops_and_tools_are_capped() {
    let metrics = metrics(&Settings { max_loop_types: 1, max_tools: 1, ..Settings::default() });
    for (loop_type, tool) in [("a", "look"), ("b", "go"), ("a", "look")] {
        let call = Call { caller: in_loop(loop_type), ..answered().call };
        metrics.closed(&Record { call, ..with_tools(&[tool]) });
    }
    Samples::of(&metrics).expect(&[
        (r#"weir_loop_llm_calls_total{loop_type="a"}"#, 2.0),
        (r#"weir_loop_llm_calls_total{loop_type="other"}"#, 1.0),
        (r#"weir_tool_invocations_total{tool="look",loop_type="a"}"#, 2.0),
        (r#"weir_tool_invocations_total{tool="other",loop_type="other"}"#, 1.0),
        (r#"weir_metrics_label_overflow_total{label="loop_type"}"#, 1.0),
        (r#"weir_metrics_label_overflow_total{label="tool"}"#, 1.0),
    ]);
}

/// Every label name that a sample of `name` carries, but a histogram's own.
fn labels_of<'a>(text: &'a str, name: &str) -> BTreeSet<&'a str> {
    let mut labels = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(name)) {
        let line = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| line.strip_prefix(suffix)).unwrap_or(line);
        let Some((inside, _)) = line.strip_prefix('{').and_then(|line| line.rsplit_once('}')) else { continue };
        labels.extend(inside.split("\",").filter_map(|label| Some(label.split_once('=')?.0)));
    }
    labels.remove("le");
    labels
}

/// Names an app may send to break a scrape.
const HOSTILE: [&str; 7] = [
    "quote\"quote",
    "back\\slash\\",
    "new\nline",
    "brace} 1\n# EOF",
    "exemplar # {trace_id=\"x\"} 1",
    "null\0tab\t",
    "日本語のモデル",
];

fn with_hostile_names(histograms: Histograms) -> Metrics {
    let metrics = filled_as(histograms);
    for name in HOSTILE {
        let mut record = unlisted(name, Attempt::Answered(200));
        record.call.caller.agent = Some(name.into());
        metrics.closed(&record);
    }
    metrics
}

#[test]
#[expect(clippy::print_stderr, reason = "says why a test proved nothing")]
fn promtool_reads_classic_text() {
    let exposition = with_hostile_names(Histograms::Classic).encode(None);
    assert_eq!(exposition.content_type, "text/plain; version=0.0.4; charset=utf-8");
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut check) = check else {
        eprintln!("skipped: promtool is not installed");
        return;
    };
    let mut input = check.stdin.take().expect("promtool reads from a pipe");
    input.write_all(&exposition.body).expect("promtool reads all");
    drop(input);
    let output = check.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn open_metrics_is_well_formed() {
    let exposition = with_hostile_names(Histograms::Classic).encode(Some("application/openmetrics-text"));
    assert_eq!(exposition.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = text(exposition);
    assert!(text.ends_with("\n# EOF\n"));
    assert_eq!(text.matches("\n# EOF\n").count(), 1);
    let mut family = "";
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            Some((name, _)) => {
                assert!(seen.insert(name), "the samples of {name} are in one place");
                family = name;
            }
            None if line.starts_with('#') => {}
            None => assert!(line.starts_with(family), "{line} is a sample of {family}"),
        }
    }
    for spelt in [r#""quote\"quote""#, r#""back\\slash\\""#, r#""new_line""#, r#""exemplar # {trace_id=\"x\"} 1""#] {
        assert!(text.contains(&format!("model={spelt}")), "{spelt}");
    }
}

/// What Prometheus sends when it wants native histograms.
const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                        application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";

fn families(metrics: &Metrics) -> Vec<MetricFamily> {
    let exposition = metrics.encode(Some(PROTOBUF));
    assert_eq!(
        exposition.content_type,
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    );
    let mut rest = exposition.body.as_slice();
    let next = || (!rest.is_empty()).then(|| MetricFamily::decode_length_delimited(&mut rest).expect("a message"));
    std::iter::from_fn(next).collect()
}

/// Samples as classic text spells them, by name, labels and a histogram's bound.
fn spelt(family: &MetricFamily) -> Vec<(String, f64)> {
    let name = &family.name;
    let mut samples = Vec::new();
    for metric in &family.metric {
        let mut add = |suffix: &str, le: Option<f64>, value: f64| {
            let escaped = |it: &str| it.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let pair = |it: &LabelPair| format!("{}=\"{}\"", it.name, escaped(&it.value));
            let le = le.map(|le| format!("le=\"{le}\""));
            let labels: Vec<_> = le.into_iter().chain(metric.label.iter().map(pair)).collect();
            samples.push((format!("{name}{suffix}{{{}}}", labels.join(",")), value));
        };
        match (&metric.counter, &metric.gauge, &metric.histogram) {
            (Some(counter), None, None) => add("", None, counter.value),
            (None, Some(gauge), None) => add("", None, gauge.value),
            (None, None, Some(histogram)) => {
                add("_sum", None, histogram.sample_sum);
                add("_count", None, as_f64(histogram.sample_count));
                for bucket in &histogram.bucket {
                    add("_bucket", Some(bucket.upper_bound), as_f64(bucket.cumulative_count));
                }
            }
            _ => panic!("{name}: {metric:?}"),
        }
    }
    samples
}

#[expect(clippy::cast_precision_loss, reason = "samples are floats; counts stay far below 2⁵³")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A sample's name with the bound spelt as [`spelt`] does, and with braces even if there is nothing in them.
fn respelt(series: &str) -> String {
    let Some((name, rest)) = series.split_once("_bucket{le=\"") else {
        return if series.ends_with('}') { series.to_owned() } else { format!("{series}{{}}") };
    };
    let (bound, labels) = rest.split_once('"').expect("a value ends");
    let bound: f64 = bound.trim_start_matches('+').parse().expect("a number");
    format!("{name}_bucket{{le=\"{bound}\"{labels}")
}

#[test]
fn all_forms_say_the_same() {
    for histograms in [Histograms::Classic, Histograms::Both] {
        let metrics = with_hostile_names(histograms);
        let text = Samples::of(&metrics);
        let families = families(&metrics);
        let natives =
            families.iter().flat_map(|family| &family.metric).filter(|metric| native(metric).is_some()).count();
        assert_eq!(natives > 0, histograms == Histograms::Both);

        let mut expected: BTreeMap<_, _> = text.0.iter().map(|(series, value)| (respelt(series), *value)).collect();
        // Text has no room for native histograms, each of which is one series more.
        *expected.get_mut("weir_metrics_series{}").expect("it is there") += as_f64(natives as u64);
        let found: BTreeMap<_, _> = families.iter().flat_map(spelt).collect();
        for (series, value) in &expected {
            let found = found.get(series).unwrap_or_else(|| panic!("{series} is not in protobuf"));
            // The machine does not hold still from one scrape to the next.
            let is_same = series.starts_with("weir_system_") || (found - value).abs() < 1e-9;
            assert!(is_same, "{series} is {found}, not {value}");
        }
        assert_eq!(found.len(), expected.len());
        for family in &families {
            let metric = METRICS.iter().find(|metric| metric.name == family.name);
            let metric = metric.unwrap_or_else(|| panic!("{} is not declared", family.name));
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge | Kind::Info => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            assert_eq!((family.r#type(), family.help.as_str()), (kind, format!("{}.", metric.help).as_str()));
        }
    }
}

/// A metric's native histogram. Prometheus knows one by its zero bucket.
fn native(metric: &proto::Metric) -> Option<&proto::Histogram> {
    metric.histogram.as_ref().filter(|histogram| histogram.zero_threshold > 0.0)
}

#[test]
fn exemplars_lead_to_calls_whose_spans_are_kept_and_to_no_others() {
    let trace = |is_sampled| Trace {
        id: TraceId::new(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c).expect("an id"),
        parent: None,
        state: None,
        is_sampled,
        is_handed_on: false,
        server: SpanId::new(1).expect("an id"),
        model_call: SpanId::new(2).expect("an id"),
        attempt: SpanId::new(3).expect("an id"),
        lookup: SpanId::new(4).expect("an id"),
        part: Part::Whole,
        origin: None,
        told: Told::default(),
    };
    let metrics = metrics(&Settings { histograms: Histograms::Both, ..Settings::default() });
    let open_metrics = |metrics: &Metrics| text(metrics.encode(Some("application/openmetrics-text")));
    metrics.opened("openai");
    metrics.closed(&Record { trace: Some(Box::new(trace(false))), ..answered() });
    assert!(!open_metrics(&metrics).contains("trace_id"), "nobody could look at it");

    metrics.opened("openai");
    let kept = Record { trace: Some(Box::new(trace(true))), ..answered() };
    metrics.closed(&kept);
    let scrape = open_metrics(&metrics);
    let pointed: Vec<_> = scrape.lines().filter_map(|line| line.split_once(" # ")).collect();
    assert_eq!(pointed.len(), 3, "{pointed:?}");
    for (name, labels, bound, value, span) in [
        ("weir_request_duration_seconds", r#"provider="openai",operation="chat",cache="miss""#, 5.0, 3.5, 1),
        ("gen_ai_client_operation_duration_seconds", r#"gen_ai_request_model="gpt-5""#, 5.12, 3.0, 2),
        ("weir_request_cost_usd", r#"provider="openai",model="gpt-5""#, 5.0, 3.0, 2),
    ] {
        let found = pointed.iter().find(|(line, _)| line.starts_with(&format!("{name}_bucket{{")));
        let (line, exemplar) = found.unwrap_or_else(|| panic!("{name} has none: {pointed:?}"));
        assert!(line.contains(labels) && line.contains(&format!("le=\"{bound:?}\"")), "{line}");
        let expected = format!(
            "{{trace_id=\"0af7651916cd43dd8448eb211c80319c\",span_id=\"{span:016x}\"}} {value:?} {:.3}",
            (kept.arrived_at + kept.timing.total).duration_since(UNIX_EPOCH).expect("after it").as_secs_f64()
        );
        assert_eq!(*exemplar, expected);

        let families = families(&metrics);
        let family = families.iter().find(|family| family.name == name).expect("it is exposed");
        let buckets = family.metric.iter().flat_map(|metric| &metric.histogram).flat_map(|it| &it.bucket);
        let with: Vec<_> = buckets.filter(|bucket| bucket.exemplar.is_some()).collect();
        let [bucket] = &*with else { panic!("{name}: {with:?}") };
        let exemplar = bucket.exemplar.as_ref().expect("chosen for it");
        assert_eq!((bucket.upper_bound, exemplar.value), (bound, value), "{name}");
        assert_eq!(exemplar.label[1].value, format!("{span:016x}"));
    }
    assert!(!text_of(&metrics).contains("trace_id"), "classic text has no room for them");
}

#[test]
fn native_histograms_count_what_classic_ones_count_in_few_buckets() {
    let metrics = metrics(&Settings { histograms: Histograms::Both, ..Settings::default() });
    // From a microsecond to four months, in steps of one part in a hundred: as far apart as calls never are.
    let took = (0..3_000).map(|step| Duration::from_secs_f64(1e-6 * 1.01_f64.powi(step)));
    for total in took.clone() {
        metrics.closed(&Record { timing: Timing { total, ..answered().timing }, ..answered() });
    }
    let families = families(&metrics);
    let durations = families.iter().find(|family| family.name == "weir_request_duration_seconds").expect("it is there");
    let histogram = native(&durations.metric[0]).expect("it is native");
    assert_eq!(histogram.sample_count, 3_000);
    let sum: f64 = took.map(|total| total.as_secs_f64()).sum();
    assert!((histogram.sample_sum / sum - 1.0).abs() < 1e-9);
    let mut in_bucket = 0;
    let counted: i64 = histogram
        .positive_delta
        .iter()
        .map(|delta| {
            in_bucket += delta;
            in_bucket
        })
        .sum();
    assert_eq!(counted, 3_000, "none is forgotten when buckets are merged");
    assert!((80..=160).contains(&histogram.positive_delta.len()), "{}", histogram.positive_delta.len());
}
