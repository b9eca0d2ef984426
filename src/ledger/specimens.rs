//! Specimens: entries of every kind, by chance but the same each time. For tests.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use crate::ledger::entry::{Entry, Micros, Word};
use crate::record::outcome::{Outcome, Reuse};
use crate::record::prefix::{Prefixes, Reading};
use crate::record::provenance::Provenance;
use crate::record::trace::TraceId;
use crate::record::usage::{Counter, Unpriced, Usage};
use crate::units::PicoUsd;

/// Numbers that look random: splitmix64.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: i64) -> i64 {
        i64::try_from(self.next() % bound.unsigned_abs()).unwrap_or(0)
    }

    fn maybe<T>(&mut self, of: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.next().is_multiple_of(2).then(|| of(self))
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        let at = self.below(i64::try_from(of.len()).unwrap_or(1));
        of[usize::try_from(at).unwrap_or(0)].clone()
    }

    /// A name out of few, one of them strange.
    fn name(&mut self, of: &str) -> Box<str> {
        match self.next() % 8 {
            0 => format!("{of} \u{1f}'\"ü-").into(),
            number => format!("{of}-{number}").into(),
        }
    }
}

/// An entry of a call that was over `at`, with anything in it that may be.
pub(super) fn entry(random: &mut Random, at: Micros) -> Entry {
    let reuse: Option<Word> = random.maybe(|it| it.one(&Reuse::ALL).as_str().into());
    let amount = |it: &mut Random| PicoUsd::new(u128::from(it.next() % 5_000_000_000));
    Entry {
        ended_at: at,
        started_at: at - random.below(10_000_000),
        request_id: format!("{:016x}", random.next()).into(),
        trace_id: random.maybe(Random::next).and_then(|id| TraceId::new(u128::from(id) << 60)),
        workspace_id: random.maybe(|it| it.name("workspace")),
        namespace: random.maybe(|it| it.name("namespace")),
        user_id: random.maybe(|it| it.name("user")),
        agent_id: random.maybe(|it| it.name("agent")),
        loop_type: random.maybe(|it| it.name("loop")),
        run_id: random.maybe(|it| it.name("run")),
        client: random.maybe(|it| it.name("client")),
        provider: random.one(&["openai", "anthropic"]).into(),
        operation: random.one(&["chat", "chat", "embeddings", "count_tokens", "moderation", "other"]).into(),
        model: random.maybe(|it| it.name("model")),
        response_model: random.maybe(|it| it.name("model")),
        priced_model: random.maybe(|it| it.name("model")),
        downgraded_from: random.maybe(|it| it.name("model")),
        service_tier: random.maybe(|it| it.name("tier")),
        provider_request_id: random.maybe(|it| it.name("req")),
        streamed: random.next().is_multiple_of(2),
        status: random.maybe(|it| it.one(&[200, 429, 500])),
        outcome: random.one(&Outcome::ALL).as_str().into(),
        error_type: random.maybe(|it| it.one(&["timeout", "rate_limit", "server_error"]).into()),
        error_message: random.maybe(|it| it.name("it broke")),
        cache: random.one(&["hit", "miss", "expired", "bypass"]).into(),
        usage: random.maybe(usage),
        cost: random.maybe(amount),
        provenance: random.maybe(|it| it.one(&Provenance::ALL).as_str().into()),
        unpriced: random.maybe(|it| it.one(&Unpriced::ALL).as_str().into()),
        list_cost: random.maybe(amount),
        saved: random.maybe(amount).filter(|_| reuse.is_some()),
        reuse,
        latency: Duration::from_micros(random.next() % 30_000_000),
        first_token: random.maybe(|it| Duration::from_micros(it.next() % 3_000_000)),
        upstream: random.maybe(|it| Duration::from_micros(it.next() % 30_000_000)),
        bytes_in: random.next() % 100_000,
        bytes_out: random.next() % 100_000,
        prefixes: random.maybe(prefixes).flatten(),
    }
}

fn prefixes(random: &mut Random) -> Option<Prefixes> {
    let mut reading = Reading::new(&BuildHasherDefault::<DefaultHasher>::default());
    reading.text(&"a".repeat(usize::try_from(random.below(100_000)).unwrap_or(0)));
    reading.finish()
}

fn usage(random: &mut Random) -> Usage {
    let count = |it: &mut Random| it.maybe(|it| it.next() % 100_000);
    let (input, output) = (count(random), count(random));
    let parts: Vec<_> =
        Counter::ALL.iter().skip(2).map(|counter| (*counter, count(random).filter(|it| it % 3 == 0))).collect();
    let usage = Usage::cache_inside(input, output, &parts);
    if random.next().is_multiple_of(4) { usage.with_estimates(None, None) } else { usage }
}
