//! What it costs to ask the rules: taking what a call needs of twenty of them and settling it, while they remember a
//! hundred thousand subjects; the same without rules; what a subject takes of memory; and a scrape that looks at all.
//!
//! Run by `make bench`. Times differ from machine to machine. Every admission counts, and two looks at the clock with it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;
use weir::limits::budget::{self, Enforce};
use weir::limits::matching::Asker;
use weir::limits::rate;
use weir::limits::{Demand, Limits, Money, Spent, Stage};
use weir::record::call::Caller;
use weir::sinks::Settings;
use weir::sinks::metrics::{About, Metrics, PriceTable};
use weir::units::PicoUsd;

/// How many users there are. Two rules hold them apart: a hundred thousand subjects.
const USERS: usize = 50_000;
/// How many admissions are measured.
const ADMISSIONS: usize = 500_000;
/// What a call is expected to cost, and does.
const CENT: PicoUsd = PicoUsd::new(PicoUsd::PER_USD / 100);

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn main() {
    let callers: Vec<Caller> = (0..USERS).map(caller).collect();
    println!("{}", admissions("no rules", &Limits::new(&[], &[]), &callers));
    for (name, rules) in [("one rule", one_limit("")), ("one rule per user", one_limit("user"))] {
        println!("{}", admissions(name, &rules, &callers));
    }
    let (limits, budgets) = rules();
    let limits = Arc::new(Limits::new(&limits, &budgets));
    admit_all(&limits, &callers);
    println!("{}", admissions("20 rules, 100,000 subjects", &limits, &callers));
    println!("{}", scrape(&limits));
    for (name, rules) in [("limit", one_limit("user")), ("budget", one_budget("user"))] {
        let memory = allocation_counter::measure(|| admit_all(&rules, &callers));
        let bytes = memory.bytes_current / i64::try_from(USERS).expect("some thousand");
        println!("{:<32} {bytes:>6} bytes", format!("one user of a {name}"));
    }
}

/// Twenty rules that are all for every call here: of ten limits and ten budgets, one holds users apart, three agents, two
/// are for what matches patterns, and the others are for everybody.
fn rules() -> (Vec<rate::Settings>, Vec<budget::Settings>) {
    const PER: [&str; 10] = ["user", "agent", "agent", "agent", "", "", "", "", "", ""];
    let patterns = |number: usize| {
        let pattern = |text: &str| (number == 4 || number == 5).then(|| text.parse().expect("a pattern"));
        (pattern("gpt-5*"), pattern("team-?"))
    };
    let limits = PER.iter().enumerate().map(|(number, per)| {
        let mut rule = limit(per);
        rule.name = format!("limit-{number}");
        (rule.matching.model, rule.matching.namespace) = patterns(number);
        rule
    });
    let budgets = PER.iter().enumerate().map(|(number, per)| {
        let mut rule = budget(per);
        rule.name = format!("budget-{number}");
        (rule.matching.model, rule.matching.namespace) = patterns(number);
        rule
    });
    (limits.collect(), budgets.collect())
}

/// A limit that nothing here fills, and that takes longer than this program to forget somebody.
fn limit(per: &str) -> rate::Settings {
    rate::Settings {
        per: per.parse().expect("parts"),
        requests_per_minute: Some(1 << 40),
        tokens_per_day: Some(if per.is_empty() { 1 << 40 } else { 20_000_000 }),
        ..rate::Settings::default()
    }
}

fn budget(per: &str) -> budget::Settings {
    let limit_usd = Some(PicoUsd::new(u128::MAX / 2));
    let per = per.parse().expect("parts");
    budget::Settings { per, limit_usd, enforce: Enforce::Block, ..budget::Settings::default() }
}

fn one_limit(per: &str) -> Limits {
    Limits::new(&[limit(per)], &[])
}

fn one_budget(per: &str) -> Limits {
    Limits::new(&[], &[budget(per)])
}

fn caller(number: usize) -> Caller {
    Caller {
        user: Some(format!("user-{number:08}").into()),
        agent: Some(format!("agent-{}", number % 100).into()),
        namespace: Some("team-a".into()),
        ..Caller::default()
    }
}

/// Admits a call and settles it.
fn admit(limits: &Limits, caller: &Caller) {
    let asker = Asker { provider: "openai", model: Some("gpt-5-mini"), caller, credential: None };
    let demand = Demand { tokens: 1500, money: Money::Expected(CENT) };
    if !limits.has_any(Stage::Asking) {
        return;
    }
    let permit = limits.admit(&asker, &demand, Stage::Asking, limits.now()).expect("there is room");
    permit.settle(Spent { tokens: Some(1400), usd: Some(CENT) });
}

fn admit_all(limits: &Limits, callers: &[Caller]) {
    for caller in callers {
        admit(limits, caller);
    }
}

/// Calls of all users, in an order that is no order.
fn admissions(name: &str, limits: &Limits, callers: &[Caller]) -> String {
    let once = |number: usize| {
        let caller = &callers[number * 7919 % callers.len()];
        let begun = Instant::now();
        admit(limits, caller);
        begun.elapsed()
    };
    let clock = middle((0..ADMISSIONS).map(|_| Instant::now().elapsed()).collect());
    let mut times: Vec<Duration> = (0..ADMISSIONS).map(once).collect();
    times.sort_unstable();
    let [p50, p99] = [50, 99].map(|share| {
        let time = times[times.len() * share / 100].saturating_sub(clock);
        time.as_secs_f64() * 1e6
    });
    format!("{name:<32} p50 {p50:>6.2} µs   p99 {p99:>6.2} µs")
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What a scrape takes that looks at every subject, in the best of several.
fn scrape(limits: &Arc<Limits>) -> String {
    let prices = PriceTable { version: String::new(), source: String::new(), published_at: UNIX_EPOCH };
    let metrics = Metrics::new(&Settings::default(), &["openai".into()], About { version: "", revision: "", prices });
    let of = || {
        let begun = Instant::now();
        drop(metrics.encode(None));
        begun.elapsed()
    };
    let best = |of: &dyn Fn() -> Duration| (0..10).map(|_| of()).min().expect("ten").as_secs_f64() * 1e3;
    let before = best(&of);
    let watched = Arc::clone(limits);
    metrics.watch_limits(Box::new(move || Some(Arc::clone(&watched))));
    format!("{:<32} {:>6.1} ms more than {before:.1} ms", "a scrape of these", best(&of) - before)
}
