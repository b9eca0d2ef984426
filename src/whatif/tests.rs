//! What past calls would have cost, against the price table that is compiled in.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;
use crate::ledger::entry::tests::plain;
use crate::price::{Payee, Settings, Whose};
use crate::whatif::choice::{Target, Tier};

/// 2026-11-20, when every tier of the table is in force.
const AT: Micros = 1_795_132_800_000_000;

static PRICES: LazyLock<Prices> = LazyLock::new(|| {
    let free = Payee { name: "local".into(), url: "http://127.0.0.1:8000".into(), prices: Whose::Free };
    Prices::load(&Settings::default(), vec![free]).expect("the built-in table")
});

/// A call to gpt-5 that was answered.
fn call(usage: &Usage, cost: PicoUsd) -> Entry {
    Entry { ended_at: AT, started_at: AT, usage: Some(*usage), cost: Some(cost), ..plain() }
}

fn usd(text: &str) -> PicoUsd {
    PicoUsd::of_usd(text).expect("dollars")
}

fn used(input: u64, output: u64, parts: &[(Counter, u64)]) -> Usage {
    let parts: Vec<_> = parts.iter().map(|&(counter, count)| (counter, Some(count))).collect();
    Usage::cache_inside(Some(input), Some(output), &parts)
}

fn weigh(choice: Choice, entries: &[Entry]) -> Value {
    let mut weighing = Weighing::new(&PRICES, vec![choice]);
    for entry in entries {
        weighing.add(entry);
    }
    serde_json::to_value(weighing.finish()).expect("JSON")
}

fn model(text: &str) -> Choice {
    Choice::Model(Target::named(text, &PRICES).expect("a model"))
}

#[test]
fn a_call_is_priced_at_the_other_model_with_what_it_used() {
    // gpt-5: 1.25 and 10 USD a million tokens; cached 0.125.
    let entry = call(&used(100_000, 10_000, &[(Counter::CacheReadTokens, 40_000)]), usd("0.18"));
    for (rule, choice, expected) in [
        // 60,000 × 0.25 + 40,000 × 0.025 + 10,000 × 2, by the million.
        ("of the same provider", model("gpt-5-mini"), "0.036"),
        // 60,000 × 1 + 40,000 × 0.1 + 10,000 × 5.
        ("of another one", model("anthropic/claude-haiku-4-5"), "0.114"),
        // Half of everything.
        ("batch", Choice::Tier(Tier::Batch), "0.09"),
        ("flex", Choice::Tier(Tier::Flex), "0.09"),
        // 100,000 × 0.125 + 10,000 × 10.
        ("every token of the prompt read from the cache", Choice::PromptCache, "0.1125"),
    ] {
        let answer = weigh(choice, std::slice::from_ref(&entry));
        let alternative = &answer["alternatives"][0];
        assert_eq!(alternative["would_have_cost_usd"].to_string(), expected, "{rule}");
        assert_eq!(alternative["spent_usd"].to_string(), "0.18", "{rule}");
        assert_eq!(alternative["by_model"][0]["model"], "gpt-5", "{rule}");
        assert_eq!(answer["spent_usd"].to_string(), "0.18", "{rule}");
    }
    let answer = weigh(model("gpt-5-mini"), &[entry.clone(), entry]);
    assert_eq!(answer["alternatives"][0]["difference_usd"].to_string(), "-0.288");
}

#[test]
fn what_cannot_be_compared_is_counted_and_in_no_sum() {
    let good = call(&used(2_000, 10, &[]), usd("0.0026"));
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut entry = good.clone();
        change(&mut entry);
        entry
    };
    let mini = || model("gpt-5-mini");
    for (why, choice, entry) in [
        ("no_usage", mini(), with(&|it| it.usage = None)),
        ("no_cost", mini(), with(&|it| it.cost = None)),
        ("other_operation", mini(), with(&|it| it.operation = "embeddings".into())),
        ("media", mini(), with(&|it| it.usage = Some(used(2_000, 10, &[(Counter::InputImageTokens, 9)])))),
        ("media", mini(), with(&|it| it.usage = Some(used(2_000, 10, &[(Counter::WebSearches, 1)])))),
        ("no_price", mini(), with(&|it| it.provider = "anthropic".into())),
        ("no_price", Choice::Tier(Tier::Batch), with(&|it| it.model = Some("nobody-knows".into()))),
        ("no_such_tier", Choice::Tier(Tier::Flex), with(&|it| it.model = Some("gpt-3.5-turbo".into()))),
        ("not_cacheable", Choice::PromptCache, with(&|it| it.usage = Some(used(1_023, 10, &[])))),
        (
            "not_cacheable",
            Choice::PromptCache,
            with(&|it| it.usage = Some(used(2_000, 10, &[(Counter::CacheReadTokens, 2_000)]))),
        ),
    ] {
        let answer = weigh(choice, &[entry]);
        let alternative = &answer["alternatives"][0];
        assert_eq!(alternative["left_out_calls"], json!({ why: 1 }), "{why}");
        assert_eq!(
            (&alternative["calls"], alternative["would_have_cost_usd"].to_string()),
            (&json!(0), "0".to_owned())
        );
    }
    let answer = weigh(
        mini(),
        &[
            with(&|it| {
                it.reuse = Some("cache".into());
                it.saved = Some(usd("0.5"));
            }),
            with(&|it| it.reuse = Some("coalesced".into())),
            with(&|it| it.provenance = None),
            good.clone(),
        ],
    );
    assert_eq!(answer["reuse"], json!({ "calls": 2, "unknown_calls": 1, "saved_usd": 0.5 }));
    assert_eq!([&answer["calls"], &answer["bought_calls"], &answer["nothing_billed_calls"]], [4, 1, 1]);
    assert_eq!(answer["alternatives"][0]["calls"], 1);
}

#[test]
fn thresholds_of_length_are_of_each_call_not_of_all() {
    // gemini-2.5-pro costs more above 200,000 tokens: two calls of 150,000 are not one of 300,000.
    let mut entry = call(&used(150_000, 0, &[]), usd("1"));
    entry.provider = "google".into();
    let twice = weigh(model("gemini-2.5-pro"), &[entry.clone(), entry.clone()]);
    entry.usage = Some(used(300_000, 0, &[]));
    let once = weigh(model("gemini-2.5-pro"), &[entry]);
    let cost = |answer: &Value| answer["alternatives"][0]["would_have_cost_usd"].to_string();
    assert_eq!((cost(&twice), cost(&once)), ("0.375".to_owned(), "0.75".to_owned()));
}

#[test]
fn a_provider_is_known_by_the_name_it_was_given() {
    let mut entry = call(&used(2_000, 10, &[]), usd("0"));
    entry.provider = "local".into();
    let answer = weigh(model("gpt-5-mini"), &[entry.clone()]);
    assert_eq!(answer["alternatives"][0]["would_have_cost_usd"], 0, "nothing is charged there, whatever the model");
    let answer = weigh(model("openai/gpt-5-mini"), &[entry]);
    assert_eq!(answer["alternatives"][0]["would_have_cost_usd"].to_string(), "0.00052");
}

#[test]
fn however_many_models_there_are_so_many_are_told_apart() {
    let entries: Vec<Entry> = (0..300_u32)
        .map(|number| Entry { model: Some(format!("m{number}").into()), ..call(&used(10, 1, &[]), usd("1")) })
        .collect();
    let answer = weigh(model("gpt-5-mini"), &entries);
    let models = answer["alternatives"][0]["by_model"].as_array().expect("a list").clone();
    assert_eq!(models.len(), MOST_MODELS + 1);
    assert_eq!(models[0]["model"], OTHER, "the most expensive first");
    assert_eq!(models[0]["calls"], 200);
}

#[test]
fn a_model_that_nobody_lists_is_refused_with_what_may_be_meant() {
    for (text, says) in [
        ("gpt-5-mni", "did you mean `gpt-5-mini`?"),
        ("anthropic/claude-haiku-45", "did you mean `claude-haiku-4-5`?"),
        ("", "write a model"),
    ] {
        let error = Target::named(text, &PRICES).expect_err(text);
        assert!(error.contains(says), "{error}");
    }
    let with_a_slash = Target::named("openrouter/meta-llama/llama-3-8b-instruct", &PRICES).expect("a model");
    assert_eq!((with_a_slash.provider(), with_a_slash.model()), (Some("openrouter"), "meta-llama/llama-3-8b-instruct"));
}

#[test]
fn a_model_behind_another_name_is_known_by_the_table_s_id() {
    let mut entry = call(&used(2_000, 10, &[]), usd("1"));
    entry.model = Some("our-deployment".into());
    entry.priced_model = Some("gpt-5".into());
    let answer = weigh(Choice::Tier(Tier::Flex), &[entry]);
    assert_eq!(answer["alternatives"][0]["would_have_cost_usd"].to_string(), "0.0013");
}

#[test]
fn without_more_time_it_says_how_far_it_came() {
    let call = |number: i64| Entry { ended_at: AT - number, ..call(&used(10, 1, &[]), usd("1")) };
    let calls = |count| (0..count).map(|number| Ok::<_, ()>(call(number)));
    let weighed = |count, until| Weighing::of(calls(count), &PRICES, Vec::new(), until).expect("calls");
    let all = weighed(1_000, None);
    assert_eq!((all.is_complete, all.since, all.calls), (true, None, 1_000));
    let some = weighed(1_000, Some(Instant::now()));
    assert_eq!((some.is_complete, some.since, some.calls), (false, Some(AT - 255), 256));
    let failed = (0..3).map(|number| if number < 2 { Ok(call(number)) } else { Err("gone") });
    assert_eq!(Weighing::of(failed, &PRICES, Vec::new(), None).expect_err("it failed"), "gone");
}
