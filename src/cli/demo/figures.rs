//! Figures: what the demo shows, worked out from one scrape of weir's metrics and from nothing else.
//!
//! Knows which metrics there are; not how a scrape is had or how figures are drawn.

use super::samples::{Labels, Samples};
use crate::record::outcome::Outcome;
use crate::semconv::{self, label};

/// Everything that is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Calls that have ended, and what became of them.
    pub(super) calls: Calls,
    /// Money, in US dollars.
    pub(super) money: Money,
    /// Tokens bought, and tokens that did not have to be.
    pub(super) tokens: (u64, u64),
    /// Calls whose price is not known.
    pub(super) unpriced: u64,
    /// How long calls took that went to the provider.
    pub(super) from_provider: Latency,
    /// How long calls took that the cache answered.
    pub(super) from_cache: Latency,
    /// How long the first token of a stream took.
    pub(super) first_token: Latency,
    /// Why calls failed, and how often; the most frequent first.
    pub(super) errors: Vec<(String, u64)>,
    /// By model, the dearest first.
    pub(super) models: Vec<Model>,
    /// By agent, the dearest first.
    pub(super) agents: Vec<Agent>,
}

/// A number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) all: u64,
    /// Answered from the cache.
    pub(super) hits: u64,
    /// Looked up in the cache.
    pub(super) looked_up: u64,
    /// Not ended well.
    pub(super) failed: u64,
}

/// An amount of money, in US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Money {
    pub(super) spent: f64,
    pub(super) saved: f64,
}

/// Durations in seconds; `None` before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latency {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
}

/// What one model did.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) calls: Calls,
    pub(super) money: Money,
}

/// What one agent did.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) calls: u64,
    pub(super) spent: f64,
}

impl Figures {
    pub(super) fn of(samples: &Samples) -> Self {
        let duration = |cache| Latency::of(samples, semconv::REQUEST_DURATION.name, &[(label::CACHE, cache)]);
        Self {
            calls: Calls::of(samples, &[]),
            money: Money::of(samples, &[]),
            tokens: (samples.count(semconv::TOKENS.name, &[]), samples.count(semconv::TOKENS_SAVED.name, &[])),
            unpriced: samples.count(semconv::UNPRICED_REQUESTS.name, &[]),
            from_provider: duration("miss"),
            from_cache: duration("hit"),
            first_token: Latency::of(samples, semconv::SERVER_TIME_TO_FIRST_TOKEN.name, &[]),
            errors: errors(samples),
            models: models(samples),
            agents: agents(samples),
        }
    }
}

impl Calls {
    fn of(samples: &Samples, of: Labels<'_>) -> Self {
        let requests = |name, value| samples.count(semconv::REQUESTS.name, &[of, &[(name, value)]].concat());
        let cache = |value| samples.count(semconv::CACHE_REQUESTS.name, &[of, &[(label::RESULT, value)]].concat());
        let all = samples.count(semconv::REQUESTS.name, of);
        let hits = cache("hit");
        Self {
            all,
            hits,
            looked_up: hits + cache("miss") + cache("expired"),
            failed: all - requests(label::OUTCOME, Outcome::Success.as_str()),
        }
    }

    /// The share of look-ups that the cache answered, in percent.
    pub(super) fn hit_rate(&self) -> Option<f64> {
        (self.looked_up > 0).then(|| 100.0 * as_f64(self.hits) / as_f64(self.looked_up))
    }
}

impl Money {
    fn of(samples: &Samples, of: Labels<'_>) -> Self {
        Self { spent: samples.sum(semconv::COST.name, of), saved: samples.sum(semconv::COST_SAVED.name, of) }
    }

    /// The share that was saved of what would have been spent, from 0 to 1.
    pub(super) fn saved_share(&self) -> Option<f64> {
        let all = self.spent + self.saved;
        (all > 0.0).then(|| self.saved / all)
    }
}

impl Latency {
    fn of(samples: &Samples, name: &str, of: Labels<'_>) -> Self {
        Self { p50: samples.quantile(0.5, name, of), p95: samples.quantile(0.95, name, of) }
    }
}

/// Of the calls that went to the provider; a word for each way to fail.
fn errors(samples: &Samples) -> Vec<(String, u64)> {
    let name = format!("{}_count", semconv::CLIENT_OPERATION_DURATION.name);
    let types = samples.values(&name, label::ERROR_TYPE).into_iter();
    let counted = types.map(|error| (error.to_owned(), samples.count(&name, &[(label::ERROR_TYPE, error)])));
    let mut errors: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    errors
}

fn models(samples: &Samples) -> Vec<Model> {
    let names = samples.values(semconv::REQUESTS.name, label::MODEL).into_iter();
    let model = |name: &str| {
        let of = [(label::MODEL, name)];
        Model { name: name.to_owned(), calls: Calls::of(samples, &of), money: Money::of(samples, &of) }
    };
    let mut models: Vec<_> = names.map(model).collect();
    models.sort_by(|left, right| right.money.spent.total_cmp(&left.money.spent));
    models
}

fn agents(samples: &Samples) -> Vec<Agent> {
    let names = samples.values(semconv::AGENT_REQUESTS.name, label::AGENT).into_iter();
    let agent = |name: &str| {
        let of = [(label::AGENT, name)];
        let calls = samples.count(semconv::AGENT_REQUESTS.name, &of);
        Agent { name: name.to_owned(), calls, spent: samples.sum(semconv::AGENT_COST.name, &of) }
    };
    let mut agents: Vec<_> = names.map(agent).collect();
    agents.sort_by(|left, right| right.spent.total_cmp(&left.spent));
    agents
}

#[expect(clippy::cast_precision_loss, reason = "for a share that is shown")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
