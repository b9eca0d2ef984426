//! Prompts: the apps of the demo. Who asks which model, what about, and how often the same again.
//!
//! Pure: the same seed asks the same questions. Knows the two APIs' requests; not how they are sent.

use serde_json::{Value, json};

use crate::simulator::dice::Dice;

/// Of a thousand calls, how many meet a fault on purpose, beside the mishaps the simulator has by itself.
const FAULTS_PER_MILLE: u64 = 15;
/// What may befall a call to OpenAI: overloaded, slow.
const OPENAI_FAULTS: &[&str] = &["status=503", "slow-headers=1500ms"];
/// What may befall a call to Anthropic: its own word for overloaded (`overloaded_error`), slow.
const ANTHROPIC_FAULTS: &[&str] = &["status=529; retry-after=1", "slow-headers=1500ms"];
/// Files in the map of the repository that the coder sends along: enough for the provider's prompt cache, which begins
/// at 1,024 tokens.
const MAPPED_FILES: usize = 90;

/// One call of an app, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// `X-Agent-ID`.
    pub(super) agent: &'static str,
    /// The API it speaks.
    pub(super) api: Api,
    /// The path below weir's address.
    pub(super) path: &'static str,
    /// The body, JSON.
    pub(super) body: String,
    /// What the simulator shall do differently: its `x-simulate` header.
    pub(super) script: Option<&'static str>,
}

/// Whose API a call speaks: its credential goes in different headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    OpenAi,
    Anthropic,
}

/// All apps together: an endless sequence of calls, decided by a seed.
#[derive(Debug)]
pub(super) struct Prompts(Dice);

impl Prompts {
    pub(super) fn new(seed: u64) -> Self {
        Self(Dice::new(seed))
    }

    pub(super) fn dice(&mut self) -> &mut Dice {
        &mut self.0
    }

    /// The next call.
    pub(super) fn next(&mut self) -> Ask {
        let dice = &mut self.0;
        let habit = &HABITS[weighted(dice, HABITS.iter().map(|habit| habit.share))];
        let faults = match habit.api {
            Api::OpenAi => OPENAI_FAULTS,
            Api::Anthropic => ANTHROPIC_FAULTS,
        };
        let prompt = habit.prompt(dice);
        let script = (dice.below(1000) < FAULTS_PER_MILLE).then(|| pick(dice, faults));
        Ask {
            agent: habit.agent,
            api: habit.api,
            path: habit.path,
            body: (habit.body)(&prompt).to_string(),
            script: script.copied(),
        }
    }
}

/// What one app asks again and again.
struct Habit {
    agent: &'static str,
    /// Of all calls, in percent.
    share: u64,
    api: Api,
    path: &'static str,
    /// Of its prompts, how many are like no other, in percent.
    fresh: u64,
    /// What such a prompt says beside the rest, before a number.
    about: &'static str,
    /// Questions with a place `{}` for a subject.
    questions: &'static [&'static str],
    subjects: &'static [&'static str],
    body: fn(&str) -> Value,
}

const HABITS: &[Habit] = &[
    Habit {
        agent: "support-bot",
        share: 32,
        api: Api::OpenAi,
        path: "/openai/v1/chat/completions",
        fresh: 8,
        about: "It is about order",
        questions: &[
            "How do I return {}?",
            "When will {} be delivered?",
            "Is there a warranty on {}?",
            "Can I change the address for {}?",
            "The bill for {} is wrong. What now?",
            "Do you have {} in another size?",
        ],
        subjects: &["my bicycle", "the helmet", "a pair of tyres", "the child seat", "my lights", "a gift card"],
        body: support,
    },
    Habit {
        agent: "support-bot",
        share: 12,
        api: Api::OpenAi,
        path: "/openai/v1/chat/completions",
        fresh: 20,
        about: "Ticket",
        questions: &["Which team should answer this: {}?"],
        subjects: &[
            "my parcel is late",
            "the app logs me out",
            "I was charged twice",
            "the brakes squeak",
            "please delete my account",
            "where is my refund",
            "the voucher does not work",
            "I like your shop",
        ],
        body: triage,
    },
    Habit {
        agent: "coder",
        share: 14,
        api: Api::Anthropic,
        path: "/anthropic/v1/messages",
        fresh: 50,
        about: "Begin at line",
        questions: &[
            "Run the tests of {} and say what fails.",
            "Read {} and explain its error handling.",
            "Rename the variables in {} so that they can be read.",
            "Write a test for the edge cases in {}.",
        ],
        subjects: &["src/cart.rs", "src/stock.rs", "src/checkout.rs", "src/prices.rs", "src/mail.rs"],
        body: code,
    },
    Habit {
        agent: "researcher",
        share: 10,
        api: Api::OpenAi,
        path: "/openai/v1/responses",
        fresh: 30,
        about: "Cite at most this many sources:",
        questions: &[
            "What is known about {}? Weigh the evidence.",
            "Which open questions are there about {}?",
            "Compare two views on {}.",
        ],
        subjects: &["e-bike batteries", "city traffic", "cargo bikes", "helmet laws", "bicycle theft", "winter tyres"],
        body: research,
    },
    Habit {
        agent: "summariser",
        share: 17,
        api: Api::Anthropic,
        path: "/anthropic/v1/messages",
        fresh: 25,
        about: "Document",
        questions: &["Summarise {} in three sentences.", "What was decided in {}?"],
        subjects: &[
            "the minutes of Monday's meeting",
            "this week's support tickets",
            "the supplier's new terms",
            "the customer survey",
            "the incident report of last night",
            "the release notes",
        ],
        body: summary,
    },
    Habit {
        agent: "indexer",
        share: 15,
        api: Api::OpenAi,
        path: "/openai/v1/embeddings",
        fresh: 20,
        about: "Part number",
        questions: &["{} for the city", "{} for long tours", "Used {}, as good as new"],
        subjects: &["Touring bicycle", "Folding bicycle", "Steel frame", "Leather saddle", "Pannier", "Dynamo light"],
        body: embed,
    },
];

impl Habit {
    fn prompt(&self, dice: &mut Dice) -> String {
        // The first are asked far more often than the last: by Zipf's law, as questions are in life.
        let prompts = self.questions.len() * self.subjects.len();
        let popular = weighted(dice, (1..=prompts as u64).map(|rank| 1_000_000 / rank));
        let subject = self.subjects[popular % self.subjects.len()];
        let prompt = self.questions[popular / self.subjects.len()].replace("{}", subject);
        if dice.below(100) < self.fresh {
            format!("{prompt} {} {}.", self.about, dice.below(1_000_000_000))
        } else {
            prompt
        }
    }
}

fn support(prompt: &str) -> Value {
    json!({
        "model": "gpt-5-mini",
        "stream": true,
        "messages": [
            {"role": "system", "content": "You are the support bot of a bicycle shop. Be brief and kind."},
            {"role": "user", "content": prompt},
        ],
    })
}

fn triage(prompt: &str) -> Value {
    let schema = json!({
        "type": "object",
        "properties": {"team": {"enum": ["orders", "payments", "app", "workshop"]}, "urgent": {"type": "boolean"}},
        "required": ["team", "urgent"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "triage", "strict": true, "schema": schema}});
    json!({
        "model": "gpt-6-luna",
        "messages": [{"role": "user", "content": prompt}],
        "response_format": format,
    })
}

fn code(prompt: &str) -> Value {
    let tool = |name: &str, description: &str| {
        json!({
            "name": name,
            "description": description,
            "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        })
    };
    json!({
        "model": "claude-sonnet-5-5",
        "max_tokens": 1024,
        "stream": true,
        "system": [{"type": "text", "text": repository_map(), "cache_control": {"type": "ephemeral"}}],
        "tools": [tool("run_tests", "Runs the tests of a file."), tool("read_file", "Reads a file.")],
        "messages": [{"role": "user", "content": prompt}],
    })
}

/// What a coding agent sends along with every call, so that the provider caches it.
fn repository_map() -> String {
    const PARTS: &[&str] = &["cart", "stock", "checkout", "prices", "mail", "search", "login", "report", "invoice"];
    const LAYERS: &[&str] = &["api", "model", "store", "view", "task"];
    let file = |file| {
        let (part, layer) = (PARTS[file % PARTS.len()], LAYERS[file / PARTS.len() % LAYERS.len()]);
        format!("src/{part}/{layer}_{file}.rs: the {layer} of the {part}\n")
    };
    let files: String = (0..MAPPED_FILES).map(file).collect();
    format!("You are a careful programmer. The repository is a web shop:\n{files}")
}

fn research(prompt: &str) -> Value {
    json!({
        "model": "gpt-5",
        "stream": true,
        "store": false,
        "reasoning": {"effort": "low"},
        "instructions": "You are a research assistant. Say how sure you are.",
        "input": prompt,
    })
}

fn summary(prompt: &str) -> Value {
    json!({
        "model": "claude-haiku-5-5",
        "max_tokens": 300,
        "messages": [{"role": "user", "content": prompt}],
    })
}

fn embed(prompt: &str) -> Value {
    json!({"model": "text-embedding-3-small", "input": prompt})
}

fn pick<'a, T>(dice: &mut Dice, from: &'a [T]) -> &'a T {
    &from[weighted(dice, from.iter().map(|_| 1))]
}

/// The place of one of the weights, each as likely as it is heavy.
fn weighted(dice: &mut Dice, weights: impl Iterator<Item = u64> + Clone) -> usize {
    let mut left = dice.below(weights.clone().sum());
    weights
        .take_while(|weight| {
            let passed = left >= *weight;
            left = left.saturating_sub(*weight);
            passed
        })
        .count()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::price::{Prices, Question, Settings, Source};
    use crate::record::usage::{Cost, Usage};

    fn asks(seed: u64, count: usize) -> Vec<Ask> {
        let mut prompts = Prompts::new(seed);
        (0..count).map(|_| prompts.next()).collect()
    }

    #[test]
    fn a_seed_decides_every_call() {
        assert_eq!(asks(1, 500), asks(1, 500));
        assert_ne!(asks(1, 500), asks(2, 500));
    }

    #[test]
    fn the_shares_of_the_apps_are_percents() {
        assert_eq!(HABITS.iter().map(|habit| habit.share).sum::<u64>(), 100);
    }

    #[test]
    fn some_prompts_are_popular_and_some_are_asked_once() {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for ask in asks(1, 2000) {
            *times.entry(ask.body).or_default() += 1;
        }
        assert!(times.values().any(|times| *times > 50), "none is popular");
        let once = times.values().filter(|times| **times == 1).count();
        assert!((200..1200).contains(&once), "{once} of 2,000 are asked once");
    }

    #[test]
    fn every_app_streams_or_waits_and_some_meet_a_fault() {
        let asks = asks(1, 2000);
        let agents: BTreeSet<_> = asks.iter().map(|ask| ask.agent).collect();
        assert_eq!(agents, BTreeSet::from(["coder", "indexer", "researcher", "summariser", "support-bot"]));
        let faults = asks.iter().filter(|ask| ask.script.is_some()).count();
        assert!((10..60).contains(&faults), "{faults} of 2,000");
    }

    #[test]
    fn every_model_has_a_price() {
        let prices = Prices::load(&Settings::default(), Vec::new()).expect("the built-in table");
        let usage = Usage::cache_inside(Some(1), Some(1), &[]);
        for habit in HABITS {
            let provider = if habit.api == Api::OpenAi { "openai" } else { "anthropic" };
            let body = (habit.body)("Hello");
            let answer = prices.price(&Question {
                source: &Source::Id(provider.into()),
                response_model: None,
                request_model: body["model"].as_str(),
                usage: Some(&usage),
                context: &[],
                at: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            });
            assert!(matches!(answer.cost, Cost::Known(_)), "{}", body["model"]);
        }
    }
}
