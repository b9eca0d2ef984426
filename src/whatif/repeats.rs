//! Repeats: calls whose prompt begins like that of a call shortly before, and what they would have cost, had the
//! provider's cache still held that beginning.
//!
//! Calls come the newest first: a call waits until no earlier one can have begun like it. Bounded memory: what waits for
//! too long, or with too many others, is settled with what has been found.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::ledger::entry::{Entry, Micros, exact};
use crate::price::Prices;
use crate::record::prefix::Prefixes;
use crate::record::usage::{Counter, Usage};
use crate::units::PicoUsd;
use crate::whatif::{LEAST_CACHED, MOST_MODELS, OTHER, difference, priced_as_asked};

/// How long a provider's cache keeps what nobody asks for. Anthropic: "the cache has a 5-minute lifetime [...] refreshed
/// [...] each time the cached content is used",
/// <https://platform.claude.com/docs/en/build-with-claude/prompt-caching>; OpenAI: "5 to 10 minutes of inactivity",
/// <https://platform.openai.com/docs/guides/prompt-caching>. Others keep it as long, or longer.
const LIFETIME: Micros = 5 * 60 * 1_000_000;
/// Most calls that wait.
const MOST_WAITING: usize = 10_000;
/// Most calls that wait for an earlier one with the same beginning: those that overlap.
const MOST_ALIKE: usize = 64;
/// A token has at least so many bytes of text, as far as an estimate counts them.
const BYTES_PER_TOKEN: u64 = 4;

/// What to know of the figures.
const NOTE: &str = "at least: a beginning counts where a call of the same agent for the same model, answered before this one came, \
     had come at most five minutes before it with the same one. Its tokens are told from its share of the prompt \
     (four bytes each at least), and known to the full only where tools and instructions, a power of two of 1,024 tokens or \
     a whole earlier prompt end. Who keeps it first is charged the rate for writing to the cache, where there is one. Calls of one \
     agent are taken to be of one account; some models cache nothing below 4,096 tokens";

/// Calls, looked through for beginnings that come again.
#[derive(Debug)]
pub(super) struct Repeats<'a> {
    prices: &'a Prices,
    /// The newest first.
    waiting: VecDeque<Waiting>,
    /// The number of the first that waits.
    first: u64,
    /// The numbers of those that wait for an earlier call with this beginning, by who asks whom and by fingerprint.
    alike: HashMap<(u64, u64), Vec<u64>>,
    hasher: RandomState,
    sums: BTreeMap<Who, Sums>,
}

/// The agent, the provider, the model.
type Who = (Option<Box<str>>, Box<str>, Box<str>);

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    prefixes: Prefixes,
    /// Who asks whom.
    who: u64,
    /// How much of its prompt an earlier call had sent, in bytes.
    repeated: u32,
    /// How much of its prompt a later call sent again.
    held: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    calls: u64,
    repeated_calls: u64,
    repeated_tokens: u64,
    read_tokens: u64,
    unreported_calls: u64,
    no_usage_calls: u64,
    unpriced_calls: u64,
    cost: PicoUsd,
    otherwise: PicoUsd,
}

impl<'a> Repeats<'a> {
    pub(super) fn new(prices: &'a Prices) -> Self {
        Self {
            prices,
            waiting: VecDeque::new(),
            first: 0,
            alike: HashMap::new(),
            hasher: RandomState::new(),
            sums: BTreeMap::new(),
        }
    }

    /// One more call, older than those before it, that a provider was asked.
    pub(super) fn add(&mut self, entry: &Entry) {
        let Some(prefixes) = &entry.prefixes else { return };
        while self.waiting.len() >= MOST_WAITING
            || self.waiting.front().is_some_and(|first| first.entry.started_at - LIFETIME > entry.ended_at)
        {
            self.settle_first();
        }
        let number = self.first + self.waiting.len() as u64;
        let who = self.hasher.hash_one((&entry.agent_id, &entry.provider, &entry.model));
        let begins_to_answer = answered_at(entry);
        let mut held = 0;
        for prefix in prefixes.iter() {
            let alike = self.alike.entry((who, prefix.fingerprint)).or_default();
            alike.retain(|later| {
                let later = position(*later, self.first).and_then(|at| self.waiting.get_mut(at));
                let Some(later) = later else { return false };
                let finds = begins_to_answer <= later.entry.started_at && later.may_still_find(entry);
                if finds {
                    later.repeated = later.repeated.max(prefix.bytes);
                    held = held.max(prefix.bytes);
                }
                !finds
            });
            if alike.len() == MOST_ALIKE {
                alike.remove(0);
            }
            alike.push(number);
        }
        let (entry, prefixes) = (entry.clone(), prefixes.clone());
        self.waiting.push_back(Waiting { entry, prefixes, who, repeated: 0, held });
    }

    /// What it comes to.
    pub(super) fn finish(mut self) -> Beginnings {
        while !self.waiting.is_empty() {
            self.settle_first();
        }
        let mut agents: Vec<OfAgent> = self.sums.into_iter().map(|(who, sums)| OfAgent::of(who, &sums)).collect();
        agents.sort_by_key(|agent| std::cmp::Reverse(agent.saved));
        Beginnings { agents, note: NOTE }
    }

    /// Nothing more can be found of the newest.
    fn settle_first(&mut self) {
        let Some(call) = self.waiting.pop_front() else { return };
        for prefix in call.prefixes.iter() {
            let key = (call.who, prefix.fingerprint);
            if let Some(alike) = self.alike.get_mut(&key) {
                alike.retain(|number| *number != self.first);
                if alike.is_empty() {
                    self.alike.remove(&key);
                }
            }
        }
        self.first += 1;
        call.settle(self.prices, sums_of(&mut self.sums, &call.entry));
    }
}

/// From when on a provider's cache has what the call brought. "A cache entry only becomes available after the first response
/// begins", says Anthropic; without a stream, nobody sees that before all of it is there.
fn answered_at(entry: &Entry) -> Micros {
    let took = entry.first_token.or(entry.upstream);
    took.map_or(entry.ended_at, |took| entry.started_at.saturating_add(micros(took)))
}

fn micros(took: Duration) -> Micros {
    Micros::try_from(took.as_micros()).unwrap_or(Micros::MAX)
}

/// Where in the queue the call of this number is.
fn position(number: u64, first: u64) -> Option<usize> {
    number.checked_sub(first).and_then(|at| usize::try_from(at).ok())
}

/// The sums of whoever asked.
fn sums_of<'a>(sums: &'a mut BTreeMap<Who, Sums>, entry: &Entry) -> &'a mut Sums {
    let mut who = (entry.agent_id.clone(), (*entry.provider).into(), entry.model.clone().unwrap_or_default());
    if sums.len() >= MOST_MODELS && !sums.contains_key(&who) {
        who = (Some(OTHER.into()), OTHER.into(), OTHER.into());
    }
    sums.entry(who).or_default()
}

impl Waiting {
    /// Whether what `earlier` calls have sent may still be there when this one is sent.
    fn may_still_find(&self, earlier: &Entry) -> bool {
        self.entry.started_at.saturating_sub(earlier.started_at) <= LIFETIME
    }

    /// How many tokens that many bytes of its prompt are, of `input` in all. None where no cache takes so few.
    fn tokens(&self, bytes: u32, input: u64) -> u64 {
        let share = u128::from(input) * u128::from(bytes) / u128::from(self.prefixes.all_bytes().max(1));
        let tokens = u64::try_from(share).unwrap_or(u64::MAX).min(input).min(u64::from(bytes) / BYTES_PER_TOKEN);
        if tokens < LEAST_CACHED { 0 } else { tokens }
    }

    fn settle(&self, prices: &Prices, sums: &mut Sums) {
        sums.calls += 1;
        let usage = self.entry.usage.as_ref();
        let Some((usage, input)) = usage.and_then(|usage| Some((usage, usage.get(Counter::InputTokens)?))) else {
            sums.no_usage_calls += 1;
            return;
        };
        let (repeated, held) = (self.tokens(self.repeated, input), self.tokens(self.held, input));
        let read = usage.get(Counter::CacheReadTokens);
        if repeated > 0 {
            sums.repeated_calls += 1;
            sums.repeated_tokens += repeated;
            sums.read_tokens += read.unwrap_or(0).min(repeated);
            sums.unreported_calls += u64::from(read.is_none());
        }
        let Some(otherwise) = cached(usage, input, repeated, held) else { return };
        let context = self.entry.service_tier.as_deref().map(|tier| ("service_tier", tier));
        let price = |usage| priced_as_asked(prices, &self.entry, usage, context.as_slice());
        match (price(usage), price(&otherwise)) {
            (Ok(cost), Ok(otherwise)) => {
                sums.cost += cost;
                sums.otherwise += otherwise;
            }
            _ => sums.unpriced_calls += 1,
        }
    }
}

/// The same usage, had `repeated` tokens of the input been read from the cache, and `held` been there afterwards. `None`
/// where it was so. What is read takes the place of what was sent anew first, then of what was written.
fn cached(usage: &Usage, input: u64, repeated: u64, held: u64) -> Option<Usage> {
    let count = |counter| usage.get(counter).unwrap_or(0);
    let (read, written) = (count(Counter::CacheReadTokens), count(Counter::CacheWriteTokens));
    let reads = read.max(repeated);
    let writes = written.max(held.saturating_sub(reads)).min(input.saturating_sub(reads));
    if (reads, writes) == (read, written) {
        return None;
    }
    let of = |counter: Counter| match counter {
        Counter::CacheReadTokens => Some(reads),
        Counter::CacheWriteTokens => Some(writes),
        Counter::CacheWrite1hTokens => usage.get(counter).map(|long| long.min(writes)),
        other => usage.get(other),
    };
    let parts: Vec<_> = Counter::ALL.iter().map(|counter| (*counter, of(*counter))).collect();
    Some(Usage::cache_inside(Some(input), usage.get(Counter::OutputTokens), &parts))
}

/// Calls whose prompt begins like that of a call shortly before.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Beginnings {
    /// By who asks which model, the one first that would have saved most.
    pub agents: Vec<OfAgent>,
    /// What to know of these figures.
    pub note: &'static str,
}

/// Calls of one agent to one model, whose prompts are long enough for a cache.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OfAgent {
    /// `X-Agent-ID`, if it was said.
    pub agent: Option<Box<str>>,
    /// Whom was asked.
    pub provider: Box<str>,
    /// Which model, as it was asked for.
    pub model: Box<str>,
    /// How many there are.
    pub calls: u64,
    /// Those of them that began like one shortly before.
    pub repeated_calls: u64,
    /// How many tokens these beginnings have, by estimate.
    pub repeated_tokens: u64,
    /// Those of them that the provider read from its cache, as far as it says so.
    pub read_tokens: u64,
    /// The others: sent anew, and charged so.
    pub missed_tokens: u64,
    /// Of the calls that began like another, those whose provider did not say what it read: nothing, as the bill has it.
    pub unreported_calls: u64,
    /// Calls of which it is not known how many tokens went in: in no other figure.
    pub no_usage_calls: u64,
    /// Calls that would have cost another amount, which is not known: they are in no sum of money.
    pub unpriced_calls: u64,
    /// What those that would have cost another amount have cost, by the price table.
    #[schema(value_type = f64)]
    pub cost_usd: Box<RawValue>,
    /// What they would have cost, had their beginnings been read from the cache, and written there the first time.
    #[schema(value_type = f64)]
    pub would_have_cost_usd: Box<RawValue>,
    /// The second less the first: below zero, it would have been cheaper.
    #[schema(value_type = f64)]
    pub difference_usd: Box<RawValue>,
    #[serde(skip)]
    saved: i128,
}

impl OfAgent {
    fn of((agent, provider, model): Who, sums: &Sums) -> Self {
        let pico = |usd: PicoUsd| i128::try_from(usd.pico()).unwrap_or(i128::MAX);
        Self {
            agent,
            provider,
            model,
            calls: sums.calls,
            repeated_calls: sums.repeated_calls,
            repeated_tokens: sums.repeated_tokens,
            read_tokens: sums.read_tokens,
            missed_tokens: sums.repeated_tokens.saturating_sub(sums.read_tokens),
            unreported_calls: sums.unreported_calls,
            no_usage_calls: sums.no_usage_calls,
            unpriced_calls: sums.unpriced_calls,
            cost_usd: exact(sums.cost),
            would_have_cost_usd: exact(sums.otherwise),
            difference_usd: difference(sums.otherwise, sums.cost),
            saved: pico(sums.cost).saturating_sub(pico(sums.otherwise)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use serde_json::{Value, json};

    use super::*;
    use crate::ledger::entry::tests::plain;
    use crate::price::Settings;
    use crate::record::prefix::Reading;

    const SECOND: Micros = 1_000_000;
    /// 2026-11-20.
    const AT: Micros = 1_795_132_800_000_000;

    fn prices() -> Prices {
        Prices::load(&Settings::default(), Vec::new()).expect("the built-in table")
    }

    fn begins(texts: &[&str]) -> Option<Prefixes> {
        let mut reading = Reading::new(&BuildHasherDefault::<DefaultHasher>::default());
        for text in texts {
            reading.text(text);
            reading.ends();
        }
        reading.finish()
    }

    /// A call that was sent so many seconds after the first and took one, of 10,000 tokens in and none out.
    fn call(second: i64, texts: &[&str], counts: &[(Counter, Option<u64>)]) -> Entry {
        let started_at = AT + second * SECOND;
        Entry {
            started_at,
            ended_at: started_at + SECOND,
            agent_id: Some("planner".into()),
            usage: Some(Usage::cache_inside(Some(10_000), Some(0), counts)),
            prefixes: begins(texts),
            ..plain()
        }
    }

    fn found(calls: &[Entry]) -> Beginnings {
        let prices = prices();
        let mut repeats = Repeats::new(&prices);
        calls.iter().rev().for_each(|entry| repeats.add(entry));
        repeats.finish()
    }

    fn shown(calls: &[Entry]) -> Value {
        serde_json::to_value(found(calls)).expect("JSON")
    }

    const READ: Counter = Counter::CacheReadTokens;
    const WRITTEN: Counter = Counter::CacheWriteTokens;

    #[test]
    fn a_beginning_counts_where_the_cache_could_still_have_it() {
        let (tools, one, other) = ("t".repeat(20_000), "a".repeat(20_000), "b".repeat(20_000));
        let first = || call(0, &[&tools, &one], &[(READ, Some(0))]);
        let later = |second| call(second, &[&tools, &other], &[(READ, Some(0))]);
        let with = |mut entry: Entry, change: &dyn Fn(&mut Entry)| {
            change(&mut entry);
            entry
        };
        // 20,000 of 40,000 bytes are half of 10,000 tokens, and five thousand of four bytes each.
        for (rule, calls, expected) in [
            ("shortly before", vec![first(), later(60)], 5_000),
            ("all of an earlier prompt", vec![first(), call(60, &[&tools, &one, &other], &[(READ, Some(0))])], 6_666),
            ("kept for five minutes", vec![first(), later(300)], 5_000),
            ("and no longer", vec![first(), later(301)], 0),
            ("from the last time on", vec![first(), later(250), later(500)], 15_000),
            (
                "before it was answered",
                vec![with(first(), &|it| it.upstream = Some(Duration::from_secs(61))), later(60)],
                0,
            ),
            (
                "once it began to be answered",
                vec![
                    with(first(), &|it| {
                        it.first_token = Some(Duration::from_secs(1));
                        it.ended_at = AT + 60 * SECOND;
                    }),
                    later(60),
                ],
                5_000,
            ),
            ("of another agent", vec![first(), with(later(60), &|it| it.agent_id = None)], 0),
            ("for another model", vec![first(), with(later(60), &|it| it.model = Some("gpt-5-mini".into()))], 0),
            ("of another provider", vec![first(), with(later(60), &|it| it.provider = "azure".into())], 0),
            ("with no beginning in common", vec![first(), call(60, &[&other], &[])], 0),
            ("of which nothing is known", vec![first(), with(later(60), &|it| it.prefixes = None)], 0),
            (
                "too few tokens for any cache",
                vec![first(), with(later(60), &|it| it.usage = Some(Usage::cache_inside(Some(2_000), None, &[])))],
                0,
            ),
        ] {
            let tokens: u64 = found(&calls).agents.iter().map(|agent| agent.repeated_tokens).sum();
            assert_eq!(tokens, expected, "{rule}");
        }
    }

    #[test]
    fn what_was_missed_is_priced_as_read_and_what_was_kept_as_written() {
        let (same, end) = ("t".repeat(16_384), "e".repeat(16_384));
        let ask = |second, counts: &[(Counter, Option<u64>)]| call(second, &[&same, &end[..16_383]], counts);
        // The same prompt twice: 10,000 tokens as they are counted, but no more than 8,191 of four bytes each. At gpt-5's
        // rates, 1.25 for a million in and 0.125 read.
        let missed = shown(&[ask(0, &[(READ, Some(0))]), ask(60, &[(READ, Some(1_000))])]);
        assert_eq!(missed["agents"].as_array().map(Vec::len), Some(1));
        let agent = &missed["agents"][0];
        assert_eq!(
            [&agent["calls"], &agent["repeated_calls"], &agent["repeated_tokens"], &agent["read_tokens"]],
            [&json!(2), &json!(1), &json!(8_191), &json!(1_000)]
        );
        assert_eq!(agent["missed_tokens"], json!(7_191));
        // 7,191 tokens that would have been read: 1.125 dollars less for a million of them. The first is kept for nothing.
        assert_eq!(agent["difference_usd"].to_string(), "-0.008089875");
        assert_eq!(agent["cost_usd"].to_string(), "0.023875");
        let claude = |mut entry: Entry| {
            (entry.provider, entry.model) = ("anthropic".into(), Some("claude-haiku-4-5".into()));
            entry
        };
        // 1 dollar for a million in, 0.1 read, 1.25 written: 8,191 tokens once written and once read.
        let kept = shown(&[claude(ask(0, &[(READ, Some(0))])), claude(ask(60, &[(READ, Some(0))]))]);
        assert_eq!(kept["agents"][0]["difference_usd"].to_string(), "-0.00532415");
        let well = shown(&[
            claude(ask(0, &[(READ, Some(0)), (WRITTEN, Some(9_000))])),
            claude(ask(60, &[(READ, Some(9_000))])),
        ]);
        assert_eq!(well["agents"][0]["missed_tokens"], 0, "it was read");
        assert_eq!(well["agents"][0]["difference_usd"], 0);
    }

    #[test]
    fn what_is_not_known_is_marked_and_in_no_sum() {
        let text = "t".repeat(40_000);
        let ask = |second, counts: &[(Counter, Option<u64>)]| call(second, &[&text], counts);
        let none = |mut entry: Entry| {
            entry.usage = None;
            entry
        };
        let unheard_of = |mut entry: Entry| {
            entry.model = Some("nobody-knows".into());
            entry
        };
        for (rule, calls, field) in [
            ("no usage", vec![none(ask(0, &[]))], "no_usage_calls"),
            ("what was read is not said", vec![ask(0, &[]), ask(60, &[])], "unreported_calls"),
            ("no price", vec![unheard_of(ask(0, &[])), unheard_of(ask(60, &[(READ, Some(0))]))], "unpriced_calls"),
        ] {
            let answer = shown(&calls);
            for counted in ["no_usage_calls", "unreported_calls", "unpriced_calls"] {
                // The first of two is priced anew, too: it would have kept what the second reads.
                let expected = if counted == field { 1 + u64::from(field == "unpriced_calls") } else { 0 };
                assert_eq!(answer["agents"][0][counted], expected, "{rule}: {counted}");
            }
        }
        assert_eq!(shown(&[])["agents"], json!([]));
    }

    /// Each call against every other, as slowly and as plainly as can be.
    fn naive(calls: &[Entry]) -> (u64, u64) {
        let prefixes = |entry: &Entry| entry.prefixes.iter().flat_map(Prefixes::iter).collect::<Vec<_>>();
        let is_kept = |earlier: &Entry, later: &Entry| {
            earlier.agent_id == later.agent_id
                && answered_at(earlier) <= later.started_at
                && later.started_at - earlier.started_at <= LIFETIME
        };
        let mut sums = (0, 0);
        for (at, later) in calls.iter().enumerate() {
            let before: BTreeSet<u64> = calls[..at]
                .iter()
                .filter(|earlier| is_kept(earlier, later))
                .flat_map(|earlier| prefixes(earlier).into_iter().map(|prefix| prefix.fingerprint))
                .collect();
            let longest = prefixes(later).into_iter().rev().find(|prefix| before.contains(&prefix.fingerprint));
            if let Some(prefix) = longest {
                sums.0 += 1;
                sums.1 += u64::from(prefix.bytes) / BYTES_PER_TOKEN;
            }
        }
        sums
    }

    #[test]
    fn it_finds_what_a_look_at_every_pair_finds() {
        let texts = ["a".repeat(9_000), "b".repeat(9_000), "c".repeat(30_000)];
        let mut random = 7_u64;
        let mut below = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).expect("31 bits") % bound
        };
        for _ in 0..20 {
            let mut calls: Vec<Entry> = (0..150)
                .map(|_| {
                    let parts: Vec<&str> = (0..=below(3)).map(|_| &*texts[below(3)]).collect();
                    let mut entry = call(i64::try_from(below(6_000)).expect("small"), &parts, &[]);
                    entry.usage = Some(Usage::cache_inside(Some(1 << 30), None, &[]));
                    entry.agent_id = [Some("planner".into()), None][below(2)].clone();
                    entry.first_token = (below(2) == 0).then(|| Duration::from_secs(below(90) as u64));
                    entry.ended_at = entry.started_at + i64::try_from(below(120)).expect("small") * SECOND;
                    entry
                })
                .collect();
            calls.sort_by_key(|entry| entry.ended_at);
            let agents = found(&calls).agents;
            let sum = |of: fn(&OfAgent) -> u64| agents.iter().map(of).sum::<u64>();
            assert_eq!((sum(|it| it.repeated_calls), sum(|it| it.repeated_tokens)), naive(&calls));
            assert!(sum(|it| it.repeated_calls) > 0, "nothing was compared");
        }
    }

    #[test]
    fn whoever_waits_is_settled_in_the_end() {
        let prices = prices();
        let mut repeats = Repeats::new(&prices);
        let text = "t".repeat(8_192);
        let calls: Vec<Entry> = (0..200).map(|number| call(number, &[&text], &[(READ, Some(0))])).collect();
        for entry in calls.iter().rev() {
            repeats.add(entry);
        }
        assert!(repeats.alike.values().all(|alike| alike.len() <= MOST_ALIKE));
        let old = call(-10_000, &["u".repeat(8_192).as_str()], &[]);
        repeats.add(&old);
        assert_eq!((repeats.waiting.len(), repeats.alike.len()), (1, 2), "what is past is forgotten");
        assert_eq!(repeats.finish().agents[0].repeated_calls, 199);
    }
}
