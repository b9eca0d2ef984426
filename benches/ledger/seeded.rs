//! Seeded: the calls of an app that does not exist, the same for the same seed.
//!
//! Two months of an office's working days: eight models of three providers at their list prices, ten agents in three
//! workspaces and four namespaces, two thousand users of whom few ask most, quiet nights, errors, answers from the cache,
//! streams, and agents that go round in loops.

use std::time::Duration;

use weir::ledger::entry::{Entry, Micros};
use weir::record::trace::TraceId;
use weir::record::usage::{Counter, Usage};
use weir::units::PicoUsd;

const MINUTE: Micros = 60_000_000;
const MINUTES_OF_A_DAY: usize = 24 * 60;
const USERS: usize = 2_000;

/// A model: how much of the traffic it has, and its prices in `µUSD` per million tokens.
struct Model {
    share: u64,
    provider: &'static str,
    operation: &'static str,
    name: &'static str,
    input: u64,
    cached: u64,
    output: u64,
}

const MODELS: [Model; 8] = [
    model(34, "openai", "chat", "gpt-5-mini", [250_000, 25_000, 2_000_000]),
    model(10, "openai", "chat", "gpt-5", [1_250_000, 125_000, 10_000_000]),
    model(14, "openai", "embeddings", "text-embedding-3-small", [20_000, 20_000, 0]),
    model(4, "openai", "chat", "o4-mini", [1_100_000, 275_000, 4_400_000]),
    model(16, "anthropic", "chat", "claude-sonnet-4-5", [3_000_000, 300_000, 15_000_000]),
    model(8, "anthropic", "chat", "claude-haiku-4-5", [1_000_000, 100_000, 5_000_000]),
    model(11, "gcp.gemini", "generate_content", "gemini-2.5-flash", [300_000, 75_000, 2_500_000]),
    model(3, "gcp.gemini", "generate_content", "gemini-2.5-pro", [1_250_000, 310_000, 10_000_000]),
];

const fn model(
    share: u64,
    provider: &'static str,
    operation: &'static str,
    name: &'static str,
    prices: [u64; 3],
) -> Model {
    let [input, cached, output] = prices;
    Model { share, provider, operation, name, input, cached, output }
}

/// An agent, its workspace and namespace, and whether it works in loops.
const AGENTS: [(&str, &str, &str, Option<&str>); 10] = [
    ("assistant", "support", "production", None),
    ("triage", "support", "production", None),
    ("answers", "support", "staging", None),
    ("researcher", "research", "production", Some("react")),
    ("planner", "research", "production", Some("plan-execute")),
    ("summaries", "research", "batch", None),
    ("indexer", "research", "batch", None),
    ("coder", "engineering", "production", Some("react")),
    ("reviewer", "engineering", "ci", Some("reflect")),
    ("docs", "engineering", "ci", None),
];

const ERRORS: [(&str, &str, u16, &str); 5] = [
    ("upstream_error", "upstream_5xx", 502, "the provider answered with 502"),
    ("client_error", "rate_limited_upstream", 429, "the provider answered with 429"),
    ("client_error", "invalid_request", 400, "the provider answered with 400"),
    ("timeout", "timeout_first_byte", 504, "no answer within 60s"),
    ("rate_limited", "limit", 429, "the limit `agents` is reached"),
];

/// What to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub seed: u64,
    pub calls: u64,
    pub days: u32,
    /// When the last of them is over, at the latest.
    pub until: Micros,
}

/// The calls, in the order in which they were over.
pub(crate) struct Seeded {
    plan: Plan,
    random: Random,
    /// Up to each minute of the time: how much of the traffic has come.
    shares: Vec<u64>,
    /// Up to each user: how much of the traffic is theirs.
    users: Vec<u64>,
    minute: usize,
    made: u64,
}

impl Seeded {
    pub(crate) fn new(plan: Plan) -> Self {
        let minutes = plan.days as usize * MINUTES_OF_A_DAY;
        let users = added_up((1..=USERS as u64).map(|rank| 1_000_000 / rank));
        Self { plan, random: Random(plan.seed), shares: added_up((0..minutes).map(weight)), users, minute: 0, made: 0 }
    }

    /// When the next call is over: as many lie before as their share of the traffic says.
    fn next_moment(&mut self) -> Micros {
        let all = u128::from(*self.shares.last().unwrap_or(&1));
        let at = (all * u128::from(self.made) / u128::from(self.plan.calls)) as u64;
        while self.shares[self.minute] <= at {
            self.minute += 1;
        }
        let before = self.minute.checked_sub(1).map_or(0, |minute| self.shares[minute]);
        let within = (at - before) as Micros * MINUTE / (self.shares[self.minute] - before) as Micros;
        let begin = self.plan.until - Micros::from(self.plan.days) * 24 * 60 * MINUTE;
        begin + self.minute as Micros * MINUTE + within
    }
}

impl Iterator for Seeded {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.made >= self.plan.calls {
            return None;
        }
        let at = self.next_moment();
        self.made += 1;
        let random = &mut self.random;
        let model = of_share(random);
        let who = random.below(AGENTS.len() as u64) as usize;
        let user = random.below(*self.users.last().unwrap_or(&1));
        let user = self.users.partition_point(|up_to| *up_to <= user);
        let entry = asked(random, model, who, user, at);
        Some(match random.below(1_000) {
            0..25 => failed(random, entry),
            25..205 if model.name != "o4-mini" => reused(random, entry, "cache", "hit"),
            205..217 => reused(random, entry, "coalesced", "miss"),
            _ => entry,
        })
    }
}

/// How much comes in a minute: most by day, little at night, less on two days of seven.
fn weight(minute: usize) -> u64 {
    const BY_HOUR: [u64; 24] =
        [6, 4, 3, 3, 4, 6, 12, 25, 55, 80, 92, 96, 78, 88, 100, 97, 90, 74, 50, 36, 28, 22, 15, 10];
    let (day, hour) = (minute / MINUTES_OF_A_DAY, minute % MINUTES_OF_A_DAY / 60);
    let weekend = day % 7 >= 5;
    BY_HOUR[hour] * if weekend { 3 } else { 10 }
}

fn added_up(parts: impl Iterator<Item = u64>) -> Vec<u64> {
    parts
        .scan(0, |sum, part| {
            *sum += part;
            Some(*sum)
        })
        .collect()
}

fn of_share(random: &mut Random) -> &'static Model {
    let mut at = random.below(100);
    for model in &MODELS {
        if at < model.share {
            return model;
        }
        at -= model.share;
    }
    &MODELS[0]
}

/// A call that was answered by its provider.
fn asked(random: &mut Random, model: &Model, who: usize, user: usize, at: Micros) -> Entry {
    let (agent, workspace, namespace, loop_type) = AGENTS[who];
    let is_chat = model.output > 0;
    let input = 40 + random.long_tailed(6_000);
    let cached = if is_chat && random.below(4) == 0 { input / 2 } else { 0 };
    let output = if is_chat { 5 + random.long_tailed(700) } else { 0 };
    let reasoning = if model.name.starts_with("o4") || model.name.ends_with("pro") { output / 2 } else { 0 };
    let parts = [
        (Counter::CacheReadTokens, (cached > 0).then_some(cached)),
        (Counter::OutputReasoningTokens, (reasoning > 0).then_some(reasoning)),
    ];
    let usage = Usage::cache_inside(Some(input), is_chat.then_some(output), &parts);
    let cost = (input - cached) * model.input + cached * model.cached + output * model.output;
    let streamed = is_chat && random.below(10) < 6;
    let first_token = 150_000 + random.long_tailed(600_000);
    let upstream = first_token + output * (6_000 + random.below(9_000));
    let latency = upstream + 300 + random.below(900);
    let loops = loop_type.filter(|_| random.below(3) > 0);
    Entry {
        ended_at: at,
        started_at: at - latency as Micros,
        request_id: format!("{:016x}-{:08x}", 0x5eed, random.next() >> 32).into(),
        trace_id: TraceId::new(u128::from(random.next()) << 64 | u128::from(random.next())),
        workspace_id: Some(workspace.into()),
        namespace: Some(namespace.into()),
        user_id: (random.below(10) > 0).then(|| format!("user-{user:04}").into()),
        agent_id: Some(agent.into()),
        loop_type: loops.map(Into::into),
        // A run is a few minutes of one agent's.
        run_id: loops.map(|_| format!("run-{}-{who}", at / (5 * MINUTE)).into()),
        client: Some(if who.is_multiple_of(2) { "OpenAI/Python 2.7.1" } else { "Anthropic/JS 0.68.0" }.into()),
        provider: model.provider.into(),
        operation: model.operation.into(),
        model: Some(model.name.into()),
        response_model: Some(model.name.into()),
        priced_model: Some(model.name.into()),
        downgraded_from: (model.name == "gpt-5-mini" && random.below(100) == 0).then(|| "gpt-5".into()),
        service_tier: (model.provider == "openai").then(|| "default".into()),
        provider_request_id: Some(format!("req_{:016x}", random.next()).into()),
        streamed,
        status: Some(200),
        outcome: "success".into(),
        error_type: None,
        error_message: None,
        cache: if random.below(10) == 0 { "bypass" } else { "miss" }.into(),
        reuse: None,
        usage: Some(usage),
        cost: Some(PicoUsd::new(cost.into())),
        provenance: Some("priced".into()),
        unpriced: None,
        list_cost: None,
        saved: None,
        latency: Duration::from_micros(latency),
        first_token: streamed.then(|| Duration::from_micros(first_token)),
        upstream: Some(Duration::from_micros(upstream)),
        bytes_in: input * 4 + 300,
        bytes_out: output * 5 + 400,
        prefixes: None,
    }
}

fn failed(random: &mut Random, entry: Entry) -> Entry {
    let (outcome, error_type, status, message) = ERRORS[random.below(ERRORS.len() as u64) as usize];
    let cancelled = random.below(5) == 0;
    let failed = Entry { usage: None, cost: Some(PicoUsd::ZERO), provenance: None, first_token: None, ..entry };
    if cancelled {
        // What was generated until then is told from its length.
        let usage = Usage::default().with_estimates(Some(1_000), Some(20));
        let cost = Some(PicoUsd::new(290_000_000));
        let provenance = Some("estimated".into());
        return Entry { outcome: "cancelled".into(), usage: Some(usage), cost, provenance, ..failed };
    }
    Entry {
        outcome: outcome.into(),
        error_type: Some(error_type.into()),
        error_message: Some(message.into()),
        status: Some(status),
        response_model: None,
        bytes_out: 180,
        prefixes: None,
        ..failed
    }
}

fn reused(random: &mut Random, entry: Entry, reuse: &'static str, cache: &'static str) -> Entry {
    let latency = Duration::from_micros(80 + random.below(400));
    Entry {
        reuse: Some(reuse.into()),
        cache: cache.into(),
        saved: entry.cost,
        cost: Some(PicoUsd::ZERO),
        started_at: entry.ended_at - latency.as_micros() as Micros,
        latency,
        first_token: None,
        upstream: None,
        provider_request_id: None,
        ..entry
    }
}

/// Numbers that look random: splitmix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Mostly small, sometimes a few times `usual`.
    fn long_tailed(&mut self, usual: u64) -> u64 {
        let steep = self.below(usual) * self.below(usual) / usual;
        if self.below(20) == 0 { steep * 8 } else { steep }
    }
}
