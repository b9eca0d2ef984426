//! Books: what the simulator charged, what weir's metrics say, and what is in the ledger. All of it in whole tokens and
//! pico-dollars. Each model of the soak has prices that are written here, so that the bill becomes money without weir.
//!
//! A model is asked in one way only, so that where the books may differ is told by the model.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{Timestamp, ToSpan, Unit};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;
use weir::units::PicoUsd;

use crate::house::House;
use crate::traffic::Made;

/// What is asked of a model, as far as it matters to the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answered to the end, or refused without a bill: all books have to be equal.
    Exact,
    /// The same, by a vendor that charges a millionth of a dollar for each token, and says so.
    Stated,
    /// The same, and nothing is charged.
    Free,
    /// Broken off: by the provider, or by the app where weir then gives the call up. The simulator charges what it had
    /// handed out, weir counts what had come: these may differ. weir's own books must not.
    BrokenOff,
}

/// Every model that is asked.
pub(crate) const MODELS: [(&str, Kind); 19] = [
    ("soak-chat", Kind::Exact),
    ("soak-responses", Kind::Exact),
    ("soak-embed", Kind::Exact),
    ("soak-claude", Kind::Exact),
    ("soak-vertex", Kind::Exact),
    ("soak-bedrock", Kind::Exact),
    ("soak-cohere", Kind::Exact),
    ("soak-ollama", Kind::Exact),
    ("soak-gemini", Kind::Exact),
    ("soak-azure", Kind::Exact),
    ("soak-vendor", Kind::Exact),
    ("soak-realtime", Kind::Exact),
    ("soak-repeated", Kind::Exact),
    ("soak-refused", Kind::Exact),
    ("soak-faulty", Kind::Exact),
    ("soak-drained", Kind::Exact),
    ("soak-stated", Kind::Stated),
    ("soak-free", Kind::Free),
    ("cut-short", Kind::BrokenOff),
];

/// Pico-dollars a token.
struct Rates {
    input: u64,
    cached: u64,
    written_short: u64,
    written_long: u64,
    output: u64,
}

/// Odd prices, unlike any other model's, so that no mistake makes up for another.
fn rates(model: usize) -> Rates {
    let odd = 1009 * model as u64;
    match MODELS[model].1 {
        Kind::Stated => Rates {
            input: 1_000_000,
            cached: 1_000_000,
            written_short: 1_000_000,
            written_long: 1_000_000,
            output: 1_000_000,
        },
        Kind::Free => Rates { input: 0, cached: 0, written_short: 0, written_long: 0, output: 0 },
        Kind::Exact | Kind::BrokenOff => Rates {
            input: 1_234_567 + odd,
            cached: 123_457 + odd,
            written_short: 1_543_211 + odd,
            written_long: 2_469_133 + odd,
            output: 7_654_321 + odd,
        },
    }
}

/// The price table of these models, as an operator writes it.
pub(crate) fn overlay() -> String {
    let priced = |model: usize| {
        let (name, Rates { input, cached, written_short, written_long, output }) = (MODELS[model].0, rates(model));
        // Pico-dollars a token are micro-dollars a million tokens.
        let usd = |pico: u64| PicoUsd::new(u128::from(pico) * 1_000_000).to_string();
        let rates = json!({
            "input_tokens": usd(input),
            "cache_read_tokens": usd(cached),
            "cache_write_tokens": usd(written_short),
            "cache_write_1h_tokens": usd(written_long),
            "output_tokens": usd(output),
        });
        json!({"id": name, "match": {"eq": [name]}, "rates": rates})
    };
    let models: Vec<_> = (0..MODELS.len()).map(priced).collect();
    json!({"schema_version": 1, "currency": "USD", "providers": [{"id": "soak", "models": models}]}).to_string()
}

/// What one of them has of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    /// All tokens of prompts.
    input: u64,
    /// Of `input`: read from the provider's cache, and written to it.
    cached: u64,
    written: u64,
    /// All tokens of answers.
    output: u64,
    /// Of `output`.
    reasoning: u64,
    spent: PicoUsd,
}

/// The simulator's bill.
#[derive(Debug, Deserialize)]
pub(crate) struct Bill {
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    model: String,
    requests: u64,
    input: u64,
    cached: u64,
    cache_write_short: u64,
    cache_write_long: u64,
    output: u64,
    reasoning: u64,
}

impl Bill {
    fn of(&self, model: usize) -> (u64, Account) {
        let (mut requests, mut account, rates) = (0, Account::default(), rates(model));
        for line in self.lines.iter().filter(|line| line.model == MODELS[model].0) {
            let written = line.cache_write_short + line.cache_write_long;
            let parts = [
                (line.input - line.cached - written, rates.input),
                (line.cached, rates.cached),
                (line.cache_write_short, rates.written_short),
                (line.cache_write_long, rates.written_long),
                (line.output, rates.output),
            ];
            requests += line.requests;
            account.input += line.input;
            account.cached += line.cached;
            account.written += written;
            account.output += line.output;
            account.reasoning += line.reasoning;
            let cost = |(tokens, rate): (u64, u64)| PicoUsd::new(u128::from(tokens) * u128::from(rate));
            account.spent += parts.map(cost).into_iter().sum();
        }
        (requests, account)
    }
}

/// A scrape.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) const fn read(text: String) -> Self {
        Self(text)
    }

    /// The values of the series of this name that have all these labels.
    fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&str> {
        let wanted: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let of_series = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            let (labels, value) = rest.rsplit_once(' ')?;
            wanted.iter().all(|wanted| labels.contains(wanted)).then_some(value)
        });
        of_series.collect()
    }

    /// Their sum, of whole numbers.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let whole = |value: &str| -> u64 { value.parse().unwrap_or_else(|_| panic!("{name} is {value}")) };
        self.values(name, labels).into_iter().map(whole).sum()
    }

    /// Their sum, of money.
    fn usd(&self, name: &str, labels: &[(&str, &str)]) -> PicoUsd {
        let exact = |value: &str| PicoUsd::of_usd(value).unwrap_or_else(|| panic!("{name} is {value}"));
        self.values(name, labels).into_iter().map(exact).sum()
    }

    /// The calls that the ledger has, or has lost.
    pub(crate) fn written(&self) -> u64 {
        self.count("weir_ledger_records_total", &[]) + self.lost()
    }

    /// The calls that the ledger has lost.
    fn lost(&self) -> u64 {
        self.count("weir_ledger_dropped_total", &[])
    }

    /// How many series there are.
    pub(crate) fn series(&self) -> u64 {
        self.0.lines().filter(|line| !line.starts_with('#')).count() as u64
    }

    fn of(&self, model: usize) -> (u64, Account) {
        let model = ("model", MODELS[model].0);
        let tokens = |kind| self.count("weir_tokens_total", &[model, ("token_type", kind)]);
        let (cached, written, reasoning) = (tokens("cache_read"), tokens("cache_write"), tokens("reasoning"));
        let account = Account {
            input: tokens("input") + cached + written,
            cached,
            written,
            output: tokens("output") + reasoning,
            reasoning,
            spent: self.usd("weir_cost_usd_total", &[model]),
        };
        (self.count("weir_requests_total", &[model]), account)
    }
}

/// What the ledger answers, by model.
#[derive(Debug)]
pub(crate) struct Ledger(Vec<Stats>);

#[derive(Debug, Deserialize)]
struct Stats {
    period: Period,
    covered: Period,
    total_calls: u64,
    outcomes: BTreeMap<String, u64>,
    cache: Reused,
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    reasoning_tokens: u64,
    /// Digit by digit.
    total_spend_usd: Box<RawValue>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Period {
    from: String,
    to: String,
}

#[derive(Debug, Deserialize)]
struct Reused {
    hits: u64,
    coalesced: u64,
}

impl Ledger {
    /// Asks about whole hours: their sums stay when calls go.
    pub(crate) async fn ask(house: &House, begun: Instant) -> Self {
        let now = Timestamp::now();
        let begun = now - jiff::SignedDuration::try_from(begun.elapsed()).unwrap();
        let hour = |time: Timestamp| (time - 30.minutes()).round(Unit::Hour).unwrap();
        let (from, to) = (hour(begun), hour(now) + 1.hour());
        let mut stats = Vec::new();
        for (model, _) in MODELS {
            let page = house.page(&format!("/api/v1/analytics/stats?from={from}&to={to}&model={model}")).await;
            stats.push(serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}")));
        }
        Self(stats)
    }

    /// Calls, those of them that went to a provider, and what they came to.
    fn of(&self, model: usize) -> (u64, u64, Account) {
        let stats = &self.0[model];
        let refused = stats.outcomes["rate_limited"] + stats.outcomes["budget_blocked"];
        let account = Account {
            input: stats.input_tokens,
            cached: stats.cache_read_tokens,
            written: stats.cache_write_tokens,
            output: stats.output_tokens,
            reasoning: stats.reasoning_tokens,
            spent: PicoUsd::of_usd(stats.total_spend_usd.get()).expect("an amount"),
        };
        (stats.total_calls, stats.total_calls - stats.cache.hits - stats.cache.coalesced - refused, account)
    }
}

/// All of them, side by side.
pub(crate) struct Books {
    rows: Vec<Row>,
    /// Sums of money that have to be equal: what one is, and both.
    sums: Vec<(&'static str, PicoUsd, PicoUsd)>,
    faults: Vec<String>,
}

/// The models whose calls end, one way or the other.
fn ended(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| MODELS[row.model].1 != Kind::BrokenOff)
}

/// One model.
struct Row {
    model: usize,
    asked: u64,
    calls: [u64; 2],
    requests: [u64; 2],
    accounts: [Account; 3],
}

impl Books {
    pub(crate) fn new(bill: &Bill, metrics: &Metrics, ledger: &Ledger, made: &Made) -> Self {
        let row = |model: usize| {
            let ((requests, billed), (counted, exposed)) = (bill.of(model), metrics.of(model));
            let (calls, sent, kept) = ledger.of(model);
            Row {
                model,
                asked: made.calls(MODELS[model].0),
                calls: [counted, calls],
                requests: [requests, sent],
                accounts: [billed, exposed, kept],
            }
        };
        let rows: Vec<_> = (0..MODELS.len()).map(row).collect();
        let all = metrics.usd("weir_cost_usd_total", &[]);
        let sure = ended(&rows).map(|row| row.accounts[1].spent).sum();
        let sums = vec![
            ("of the models of the soak", rows.iter().map(|row| row.accounts[1].spent).sum(), all),
            ("by where the cost comes from", metrics.usd("weir_cost_by_provenance_usd_total", &[]), all),
            ("by agent", metrics.usd("weir_agent_cost_usd_total", &[]), all),
            ("by consumer", metrics.usd("weir_consumer_cost_usd_total", &[]), all),
            // Where nobody knows what a call cost, a budget is charged what was reserved for it.
            (
                "charged to the budget of calls that end",
                metrics.usd("weir_budget_charged_usd_total", &[("budget", "sure")]),
                sure,
            ),
        ];
        let mut faults = Vec::new();
        for (what, number) in [
            ("calls are missing in the ledger", metrics.lost()),
            ("ledgers were damaged", metrics.count("weir_ledger_damaged_files_total", &[])),
            ("calls failed because of weir", metrics.count("weir_requests_total", &[("outcome", "internal_error")])),
            ("knobs wait for a restart", metrics.count("weir_config_restart_needed", &[])),
            (
                "files that weir reads again could not be used",
                1 - metrics.count("weir_config_last_reload_successful", &[]),
            ),
        ] {
            if number > 0 {
                faults.push(format!("{number} {what}"));
            }
        }
        let strangers = bill.lines.iter().filter(|line| !MODELS.iter().any(|(name, _)| *name == line.model));
        faults.extend(strangers.map(|line| format!("nobody asked for {:?}, which is on the bill", line.model)));
        let uncovered = ledger.0.iter().filter(|stats| stats.covered != stats.period);
        faults.extend(uncovered.map(|stats| format!("the ledger covers {:?} of {:?}", stats.covered, stats.period)));
        Self { rows, sums, faults }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let unequal = self.sums.iter().filter(|(_, one, other)| one != other);
        let sums = unequal.map(|(what, one, other)| format!("spent {what}: {one}, but it should be {other}"));
        self.faults.iter().cloned().chain(self.rows.iter().flat_map(Row::faults)).chain(sums).collect()
    }
}

impl Row {
    fn faults(&self) -> Vec<String> {
        let (name, kind) = MODELS[self.model];
        let [bill, metrics, ledger] = self.accounts;
        let [counted, kept] = self.calls;
        let [requests, sent] = self.requests;
        let mut faults = Vec::new();
        let mut insist = |is_equal: bool, what: String| {
            if !is_equal {
                faults.push(format!("{name}: {what}"));
            }
        };
        insist(self.asked > 0, "nobody asked for it: lengthen the soak".to_owned());
        insist(counted == kept, format!("{counted} calls by the metrics, {kept} by the ledger"));
        insist(metrics == ledger, format!("the metrics have\n  {metrics:?}, the ledger\n  {ledger:?}"));
        if kind != Kind::BrokenOff {
            insist(self.asked == counted, format!("{} calls were made, {counted} counted", self.asked));
            insist(requests == sent, format!("the simulator got {requests} calls, weir sent {sent}"));
            insist(bill == metrics, format!("the bill has\n  {bill:?}, the metrics\n  {metrics:?}"));
        }
        faults
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["model", "calls", "at provider", "tokens in", "out", "US dollars: bill", "metrics", "ledger"];
        let [model, calls, sent, input, output, bill, metrics, ledger] = heads;
        writeln!(f, "{model:<16}{calls:>8}{sent:>13}{input:>13}{output:>10}{bill:>22}{metrics:>20}{ledger:>20}")?;
        for row in &self.rows {
            let [bill, metrics, ledger] = row.accounts;
            let sign = if row.accounts.iter().all(|it| *it == bill) { "=" } else { "≠" };
            write!(f, "{:<16}{:>8}{:>13}", MODELS[row.model].0, row.calls[0], row.requests[0])?;
            write!(f, "{:>13}{:>10}", metrics.input, metrics.output)?;
            let [bill, metrics, ledger] = [bill, metrics, ledger].map(|it| it.spent.to_string());
            writeln!(f, "{bill:>22}{metrics:>20}{ledger:>20} {sign}")?;
            if MODELS[row.model].1 == Kind::BrokenOff {
                let [bill, metrics, _] = row.accounts;
                writeln!(
                    f,
                    "  by the bill: {} tokens in, {} out; weir's: {}, {}",
                    bill.input, bill.output, metrics.input, metrics.output
                )?;
            }
        }
        for (what, one, other) in &self.sums {
            writeln!(f, "spent {what}: {one} {} {other}", if one == other { "=" } else { "≠" })?;
        }
        Ok(())
    }
}
