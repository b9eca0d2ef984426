//! Every kind of rate there is, each at its edges, against the built-in table; and what holds for all of them.

use super::*;
use Counter::{
    CacheAudioReadTokens, CacheReadTokens, CacheWrite1hTokens, CacheWrite12hTokens, CacheWriteTokens,
    InputAnnotatedDocumentPages, InputAudioSeconds, InputAudioTokens, InputCharacters, InputDocumentPages,
    InputTextMessages, StorageSearches, WebSearches,
};

#[test]
fn context_tiers_change_all_rates_just_above_their_threshold() {
    let prices = built_in();
    for (provider, model, last, below, above) in [
        // 2 → 4; "≥ 200k"
        ("x-ai", "grok-4.6", 199_999, "0.399998", "0.8"),
        // 1.25 → 2.5
        ("google", "gemini-2.5-pro", 200_000, "0.25", "0.5000025"),
        // 0.1 → 0.5
        ("anthropic", "claude-haiku-5-5", 100_000, "0.01", "0.0500005"),
        // 2.5 → 5
        ("openai", "gpt-5.4", 272_000, "0.68", "1.360005"),
    ] {
        let case = case(provider, model);
        assert_eq!(case.usd(&prices, &tokens(last, 0)), below, "{model} at its threshold");
        assert_eq!(case.usd(&prices, &tokens(last + 1, 0)), above, "{model} one above it");
        // Output alone does not reach it.
        let output =
            |input| pico(&case.usd(&prices, &tokens(input, 1_000_000))) - pico(&case.usd(&prices, &tokens(input, 0)));
        assert_eq!(output(0), output(last), "{model}: the output's rate below");
        assert!(output(last + 1) > output(last), "{model}: the output's rate above");
    }
}

#[test]
fn the_context_chooses_the_rates() {
    let prices = built_in();
    let million = tokens(1_000_000, 1_000_000);
    let opus = case("anthropic", "claude-opus-5-5");
    let gpt = case("openai", "gpt-4.1");
    let argon = case("google", "gemini-4-argon");
    for (rule, case, usd) in [
        ("standard", opus, "24"),
        ("batch", opus.with(&[("processing", "batch")]), "12"),
        ("fast", opus.with(&[("speed", "fast")]), "48"),
        ("another speed", opus.with(&[("speed", "standard")]), "24"),
        ("a tier of another provider", opus.with(&[("service_tier", "flex")]), "24"),
        ("the default tier is standard", gpt.with(&[("service_tier", "default")]), "10"),
        ("priority", gpt.with(&[("service_tier", "priority")]), "17.5"),
        ("fast is priority's other name", gpt.with(&[("service_tier", "fast")]), "17.5"),
        ("a tier the model does not have", gpt.with(&[("service_tier", "flex")]), "10"),
        ("values are compared as they are spelt", gpt.with(&[("service_tier", "Priority")]), "10"),
        ("a batch keeps what it does not name", gpt.with(&[("processing", "batch")]), "5"),
        ("before the batch price", gpt.with(&[("processing", "batch")]).at("2026-10-13T23:59:59Z"), "10"),
        ("from its day on", gpt.with(&[("processing", "batch")]).at("2026-10-14T00:00:00Z"), "5"),
        ("before the dated change", argon.with(&[("processing", "batch")]).at("2026-11-30T23:59:59Z"), "6"),
        (
            "the first variant that is active counts",
            argon.with(&[("processing", "batch")]).at("2026-12-01T00:00:00Z"),
            "12",
        ),
    ] {
        assert_eq!(case.usd(&prices, &million), usd, "{rule}");
    }
    let read = cached(1_000_000, 0, &[(CacheReadTokens, 1_000_000)]);
    assert_eq!(gpt.with(&[("processing", "batch")]).usd(&prices, &read), "0.5", "cached tokens at the standard rate");
}

#[test]
fn windows_of_the_day_begin_and_end_on_the_minute() {
    let prices = built_in();
    let million = tokens(1_000_000, 0);
    for (model, at, usd) in [
        ("deepseek-flash", "00:59:59.999", "0.15"),
        ("deepseek-flash", "01:00:00", "0.3"),
        ("deepseek-flash", "03:59:59.999", "0.3"),
        ("deepseek-flash", "04:00:00", "0.15"),
        ("deepseek-flash", "06:00:00", "0.3"),
        ("deepseek-flash", "09:59:59", "0.3"),
        ("deepseek-flash", "10:00:00", "0.15"),
        ("deepseek-chat", "00:29:59", "0.135"),
        ("deepseek-chat", "00:30:00", "0.27"),
        ("deepseek-chat", "16:29:59", "0.27"),
        ("deepseek-chat", "16:30:00", "0.135"),
    ] {
        let at = format!("2026-11-20T{at}Z");
        assert_eq!(case("deepseek", model).at(&at).usd(&prices, &million), usd, "{model} {at}");
    }
    let night = with_providers(
        r#"{"id":"house","models":[{"id":"m","match":{"eq":["m"]},"rates":{"input_tokens":"2"},
            "overrides":[{"utc":["22:00","06:00"],"rates":{"input_tokens":"1"}}]}]}"#,
    );
    let night = night.expect("an overlay");
    for (at, usd) in [("21:59:59", "2"), ("22:00:00", "1"), ("00:00:00", "1"), ("05:59:59", "1"), ("06:00:00", "2")] {
        let at = format!("2026-11-20T{at}Z");
        assert_eq!(case("house", "m").at(&at).usd(&night, &million), usd, "over midnight, {at}");
    }
}

#[test]
fn every_kind_of_fee_is_billed_by_its_own_measure() {
    let prices = built_in();
    let fees = |fees: &[(Counter, u64)]| cached(0, 0, fees);
    let writes = [(CacheWriteTokens, 3000), (CacheWrite1hTokens, 1000)];
    let audio = [(InputAudioTokens, 400), (CacheReadTokens, 300), (CacheAudioReadTokens, 100)];
    let pages = [(InputDocumentPages, 30), (InputAnnotatedDocumentPages, 10)];
    let sol = [(CacheWriteTokens, 3000), (CacheWrite12hTokens, 2000)];
    for (what, provider, model, usage, usd) in [
        ("searches of the web, a thousand", "anthropic", "claude-opus-5-5", fees(&[(WebSearches, 3)]), "0.03"),
        ("searches of files, a thousand", "openai", "gpt-4.1", fees(&[(StorageSearches, 2)]), "0.005"),
        ("the call itself", "perplexity", "sonar", tokens(1000, 1000), "0.014"),
        ("text messages, a thousand", "x-ai", "grok-voice-latest", fees(&[(InputTextMessages, 5)]), "0.02"),
        ("characters, a million", "openai", "tts-1", fees(&[(InputCharacters, 2000)]), "0.03"),
        ("audio, an hour", "openai", "whisper-1", fees(&[(InputAudioSeconds, 60)]), "0.006"),
        ("audio, at least ten seconds", "groq", "whisper-large-v3", fees(&[(InputAudioSeconds, 3)]), "0.000308333333"),
        ("audio, above the minimum", "groq", "whisper-large-v3", fees(&[(InputAudioSeconds, 3600)]), "0.111"),
        ("no audio is no minimum", "groq", "whisper-large-v3", fees(&[(InputAudioSeconds, 0)]), "0"),
        ("pages, a thousand, annotated ones dearer", "mistral", "mistral-ocr-latest", fees(&pages), "0.13"),
        // 2000 × 5 + 1000 × 8
        ("writes for five minutes and an hour", "anthropic", "claude-opus-5-5", cached(3000, 0, &writes), "0.018"),
        // 1000 × 5 + 2000 × 10
        ("writes for half an hour and twelve", "openai", "gpt-5.6-sol", cached(3000, 0, &sol), "0.025"),
        // No rate of its own: half an hour's.
        ("on a model that lists no writes", "openai", "gpt-5", cached(3000, 0, &sol), "0.00375"),
        // 400 text × 0.3 + 200 cached × 0.03 + 300 audio × 1 + 100 cached audio × 0.1
        ("cached audio", "google", "gemini-2.5-flash", cached(1000, 0, &audio), "0.000436"),
    ] {
        assert_eq!(case(provider, model).usd(&prices, &usage), usd, "{what}");
    }
}

#[test]
fn a_model_is_what_its_name_means_to_the_provider() {
    let prices = built_in();
    for (rule, provider, name, model) in [
        ("an alias", "openai", "gpt-5.6", Some("gpt-5.6-sol")),
        ("a prefix", "openai", "gpt-5-nano-2025-08-07", Some("gpt-5-nano")),
        ("a spelling", "anthropic", "claude-5.5-opus-latest", Some("claude-opus-5-5")),
        ("a model fallen back to", "google", "claude-mythos-5-2", Some("claude-mythos-5-2")),
        ("its own list before the fallback's", "google", "claude-opus-5-5@20260901", Some("claude-opus-5-5")),
        ("no fallback of a fallback", "anthropic", "gpt-5", None),
        ("a fine-tune of a listed family", "openai", "ft:gpt-4o-2024-08-06:acme::x", Some("ft:gpt-4o")),
        ("a fine-tune of another one", "openai", "ft:gpt-4.1-mini-2025-04-14:acme::x", None),
    ] {
        let answer = case(provider, name).answer(&prices, None);
        assert_eq!(answer.model.as_deref(), model, "{rule}: {name}");
    }
    let fast = case("google", "claude-mythos-5-2").with(&[("speed", "fast")]);
    assert_eq!(fast.usd(&prices, &tokens(1_000_000, 0)), "8", "variants do not come along");
}

#[test]
fn uplifts_multiply_tokens_and_not_fees() {
    let prices = built_in();
    let usage = cached(1_000_000, 1_000_000, &[(CacheReadTokens, 500_000), (WebSearches, 1000)]);
    let (us, eu, regional) = (&[("region", "us")], &[("region", "eu")], &[("region", "regional")]);
    let geo = &[("inference_geo", "us")];
    // 0.5 × 4 + 0.5 × 0.2 + 20, and 10 for the searches
    let opus = case("anthropic", "claude-opus-5-5");
    let argon = case("google", "gemini-4-argon");
    for (rule, case, usd) in [
        ("list price", opus, "32.1"),
        ("inference kept in the US", opus.with(geo), "34.31"),
        ("inference anywhere", opus.with(&[("inference_geo", "global")]), "32.1"),
        ("not Anthropic's regions", opus.with(us), "32.1"),
        ("gpt-5.4 and later, above its threshold", case("openai", "gpt-5.4").with(eu), "37.775"),
        ("the same without", case("openai", "gpt-5.4"), "35.25"),
        ("not what is older", case("openai", "gpt-4.1").with(us), "19.25"),
        ("a newer Gemini", argon.with(regional), "26.155"),
        ("the same without", argon, "25.05"),
        ("an older Gemini", case("google", "gemini-2.5-flash").with(regional), "37.665"),
        ("a newer Claude that Vertex lists", case("google", "claude-sonnet-5-5").with(regional), "12.155"),
        ("an older one", case("google", "claude-4-sonnet@x").with(regional), "16.65"),
        ("one that Vertex falls back to, with its fee", case("google", "claude-mythos-5-2").with(regional), "58.51"),
    ] {
        assert_eq!(case.usd(&prices, &usage), usd, "{rule}");
    }
    // 4.1 × (1.1 of 4, written for twelve hours: 2.5 times that)
    let written = cached(1000, 0, &[(CacheWriteTokens, 1000), (CacheWrite12hTokens, 1000)]);
    assert_eq!(case("openai", "gpt-5.6-sol").with(us).usd(&prices, &written), "0.011", "on derived rates as well");
    let tuned = tokens(1_000_000, 0);
    assert_eq!(case("openai", "ft:gpt-4o-2024-08-06:a::x").with(us).usd(&prices, &tuned), "3.75", "no fine-tune");
}

#[test]
fn a_payee_in_a_region_pays_its_prices_without_being_asked() {
    let payee = |url: &str| Payee { name: "mine".into(), url: url.into(), prices: Whose::Id("openai".into()) };
    let payees = vec![payee("https://api.openai.com/"), payee("https://us.api.openai.com/")];
    let prices = Prices::load(&Settings::default(), payees).expect("the built-in table");
    let usage = tokens(1000, 0);
    let charged = prices.sources().map(|source| {
        let (response_model, context) = (Some("gpt-5.4"), &[("service_tier", "flex")][..]);
        let usage = Some(&usage);
        let question =
            Question { source: &source, response_model, request_model: None, usage, context, at: time(NOON) };
        prices.price(&question).cost.amount().expect("a price").to_string()
    });
    assert_eq!(charged.collect::<Vec<_>>(), ["0.00125", "0.001375"]);
}

#[test]
fn half_an_hour_s_writes_cost_half_of_twelve_hours_everywhere() {
    // The one is listed, the other derived from the input's rate: they agree as long as both are right.
    let prices = built_in();
    let in_force = prices.in_force();
    let openai = &in_force.table.providers[in_force.table.provider_named("openai").expect("listed")];
    let mut count = 0;
    for model in &openai.models {
        let found = Found { table: &in_force.table, model, asked: openai, lister: openai, test: openai.rules[0].test };
        for tier in ["default", "flex", "priority"] {
            let applicable = found.applicable(time(NOON), &[("service_tier", tier)]);
            for input in [0, 300_000] {
                let rates = applicable.rates(input);
                if let Some(short) = rates[CacheWriteTokens as usize] {
                    assert_eq!(rates[CacheWrite12hTokens as usize], Some(2 * short), "{} {tier} {input}", found.id());
                    count += 1;
                }
            }
        }
    }
    assert!(count > 60, "{count} rates were compared");
}

/// Numbers without a pattern, the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The share of `counter` that no part with a rate of it covers, by definition.
fn own(counter: Counter, rates: &cost::PerCounter<Option<u64>>, counts: &cost::PerCounter<u64>) -> u128 {
    let parts = Counter::ALL.iter().filter(|it| it.within().contains(&counter) && rates[**it as usize].is_some());
    u128::from(counts[counter as usize]) - parts.map(|part| own(*part, rates, counts)).sum::<u128>()
}

#[test]
fn whatever_is_used_costs_what_its_leaves_do_and_more_when_there_is_more() {
    /// A multiple of all that a rate buys.
    const SCALE: u128 = 9_000_000;
    let prices = built_in();
    let in_force = prices.in_force();
    let mut dice = Dice(0x5eed);
    for round in 0..4000 {
        let providers = &in_force.table.providers;
        let asked = &providers[usize::try_from(dice.roll(providers.len() as u64)).expect("small")];
        let model = &asked.models[usize::try_from(dice.roll(asked.models.len() as u64)).expect("small")];
        let found = Found { table: &in_force.table, model, asked, lister: asked, test: asked.rules[0].test };
        let input = dice.roll(600_000);
        let rates = found.applicable(time(NOON), &[("service_tier", "flex"), ("region", "us")]).rates(input);
        let charged_for: Vec<_> = Counter::ALL.iter().copied().filter(|it| rates[*it as usize].is_some()).collect();
        let mut counts = [0; Counter::ALL.len()];
        let more = |counts: &mut cost::PerCounter<u64>, counter: Counter, count: u64| {
            for it in counter.within().iter().chain([&counter]) {
                counts[*it as usize] += count;
            }
        };
        for counter in &charged_for {
            more(&mut counts, *counter, dice.roll(1_000_000));
        }
        let total = |counts: &_| cost::bill(&rates, counts).into_iter().sum::<PicoUsd>().pico();
        let name = format!("round {round}: {} of {}", found.id(), asked.id);

        let exact = charged_for.iter().map(|it| {
            let rate = rates[*it as usize].map_or(0, u128::from);
            rate * own(*it, &rates, &counts) * (SCALE / u128::from(cost::per(*it)))
        });
        let off = (total(&counts) * SCALE).abs_diff(exact.sum());
        assert!(off <= charged_for.len() as u128 * SCALE / 2, "{name}: off by more than its roundings");
        for counter in &charged_for {
            let mut larger = counts;
            more(&mut larger, *counter, 1 + dice.roll(1000));
            assert!(total(&larger) >= total(&counts), "{name}: more {} for less", counter.name());
        }

        // Whatever nonsense a provider reports: the classes add up to the bill, and no part is billed beyond its count.
        let parts: Vec<_> =
            Counter::ALL.iter().map(|it| (*it, Some(dice.roll(1000)).filter(|it| it % 3 > 0))).collect();
        let usage = Usage::cache_inside(Some(dice.roll(1000)), Some(dice.roll(1000)), &parts);
        let counts = cost::counts(&usage, found.min_audio_seconds());
        let bill = cost::bill(&rates, &counts);
        let charge = cost::charge(&rates, &bill, &usage);
        assert_eq!(charge.total(), bill.iter().copied().sum(), "{name}: classes add up");
        for counter in charged_for {
            let most = rates[counter as usize].map_or(0, u128::from) * u128::from(counts[counter as usize]);
            assert!(bill[counter as usize].pico() <= most / u128::from(cost::per(counter)) + 1, "{name}");
        }
    }
}
