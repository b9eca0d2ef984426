//! The promises of the room as a whole, against the built-in table.

mod overlays;
mod rates;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::*;
use crate::record::usage::TokenClass;
use crate::units::PicoUsd;

/// What a call costs on 20 November 2026 at noon unless said otherwise.
#[derive(Clone, Copy)]
struct Case<'a> {
    provider: &'a str,
    model: &'a str,
    context: &'a [(&'a str, &'a str)],
    at: &'a str,
}

const NOON: &str = "2026-11-20T12:00:00Z";

fn case<'a>(provider: &'a str, model: &'a str) -> Case<'a> {
    Case { provider, model, context: &[], at: NOON }
}

impl<'a> Case<'a> {
    fn with(self, context: &'a [(&'a str, &'a str)]) -> Self {
        Self { context, ..self }
    }

    fn at(self, at: &'a str) -> Self {
        Self { at, ..self }
    }

    fn answer(self, prices: &Prices, usage: Option<&Usage>) -> Answer {
        prices.price(&Question {
            source: &Source::Id(self.provider.into()),
            response_model: Some(self.model),
            request_model: None,
            usage,
            context: self.context,
            at: time(self.at),
        })
    }

    fn usd(self, prices: &Prices, usage: &Usage) -> String {
        self.answer(prices, Some(usage)).cost.amount().map_or("unpriced".to_owned(), |amount| amount.to_string())
    }
}

fn time(text: &str) -> SystemTime {
    humantime::parse_rfc3339(text).expect("a time")
}

fn tokens(input: u64, output: u64) -> Usage {
    Usage::cache_inside(Some(input), Some(output), &[])
}

fn cached(input: u64, output: u64, parts: &[(Counter, u64)]) -> Usage {
    let parts: Vec<_> = parts.iter().map(|&(counter, count)| (counter, Some(count))).collect();
    Usage::cache_inside(Some(input), Some(output), &parts)
}

fn built_in() -> Prices {
    Prices::load(&Settings::default(), Vec::new()).expect("no file to be mistaken in")
}

fn overlaid(text: &str) -> Result<Prices, PriceError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    Prices::load(&Settings { overlay: Some(file.path().into()) }, Vec::new())
}

/// An overlay with this list of providers.
fn with_providers(providers: &str) -> Result<Prices, PriceError> {
    overlaid(&format!(r#"{{"schema_version":1,"providers":[{providers}]}}"#))
}

/// Decimal dollars as pico-dollars, cut after twelve decimals.
fn pico(usd: &str) -> u128 {
    let (whole, part) = usd.split_once('.').unwrap_or((usd, ""));
    let part: String = part.chars().chain("0".repeat(12).chars()).take(12).collect();
    whole.parse::<u128>().expect("dollars") * PicoUsd::PER_USD + part.parse::<u128>().expect("decimals")
}

#[test]
fn every_published_example_costs_what_it_says() {
    /// The examples come from a calculator of floats: they are right to a billionth of a dollar.
    const TOLERANCE: u128 = 1000;
    let prices = built_in();
    let sides = sides();
    let mut rows = csv::Reader::from_path("tests/fixtures/pricing-examples.csv").expect("the examples");
    let mut count = 0;
    for row in rows.deserialize::<BTreeMap<String, String>>() {
        let row = row.expect("a row");
        let name = format!("{} {} {}", row["id"], row["provider"], row["model"]);
        count += 1;
        let in_force = prices.in_force();
        let Some(provider) = in_force.table.provider_named(&row["provider"]) else {
            assert_eq!(row["outcome"], "unknown_provider", "{name}");
            continue;
        };
        let Some(found) = in_force.table.find(provider, &row["model"]) else {
            assert_eq!(row["outcome"], "unknown_model", "{name}");
            continue;
        };
        assert_eq!((row["outcome"].as_str(), &*row["matched_provider"]), ("ok", &*found.lister.id), "{name}");
        assert_eq!(&*row["matched_model"], &*found.id(), "{name}");

        let usage = usage_of(&row);
        let context: Vec<_> = row["context"].split(';').filter_map(|pair| pair.split_once('=')).collect();
        let input = usage.get(Counter::InputTokens).unwrap_or(0);
        let rates = found.applicable(time(&row["at"]), &context).rates(input);
        let bill = cost::bill(&rates, &cost::counts(&usage, found.min_audio_seconds()));
        let side = |side: &str| {
            let of_side = Counter::ALL
                .iter()
                .filter(|counter| sides.get(counter.name()).is_some_and(|of| of.as_deref() == Some(side)));
            of_side.map(|counter| bill[*counter as usize].pico()).sum::<u128>()
        };
        let answer = Case { provider: &row["provider"], model: &row["model"], context: &context, at: &row["at"] }
            .answer(&prices, Some(&usage));
        let total = answer.cost.amount().expect("a price").pico();
        assert_eq!(total, bill.iter().map(|amount| amount.pico()).sum::<u128>(), "{name}: classes add up");
        for (column, amount) in
            [("expected_usd", total), ("expected_input_usd", side("input")), ("expected_output_usd", side("output"))]
        {
            let off = amount.abs_diff(pico(&row[column]));
            assert!(off <= TOLERANCE, "{name}: {column} is {}, found {amount} pUSD", row[column]);
        }
    }
    assert_eq!(count, 150);
}

/// The usage columns of an example. A fraction of a second counts as a second.
fn usage_of(row: &BTreeMap<String, String>) -> Usage {
    let count = |counter: &Counter| {
        let (whole, part) = row.get(counter.name())?.split_once('.').unwrap_or((row.get(counter.name())?, "0"));
        Some(whole.parse::<u64>().ok()? + u64::from(part != "0"))
    };
    let parts: Vec<_> = Counter::ALL.iter().map(|counter| (*counter, count(counter))).collect();
    Usage::cache_inside(count(&Counter::InputTokens), count(&Counter::OutputTokens), &parts)
}

fn sides() -> BTreeMap<String, Option<String>> {
    #[derive(Deserialize)]
    struct Unit {
        side: Option<String>,
    }
    #[derive(Deserialize)]
    struct Units {
        units: BTreeMap<String, Unit>,
    }
    let units = |text: &str| serde_json::from_str::<Units>(text).expect("a table").units;
    let all = units(&built_in_text()).into_iter().chain(units(ADDITIONS));
    all.map(|(name, unit)| (name, unit.side)).collect()
}

#[test]
fn the_built_in_table_is_read_whole_and_would_pass_as_an_operator_s_file() {
    let (reference, _) = beneath(Builder::default()).finish().expect("every fallback exists");
    let mut builder = Builder::default();
    builder.add_checked(ADDITIONS, &reference).expect("no mistakes");
    let mut mistakes = builder.add_checked(&built_in_text(), &reference).err().unwrap_or_default();
    // A generated table may list two rules under one label.
    mistakes.retain(|mistake| !mistake.problem.contains("is the id of"));
    assert_eq!(mistakes, []);
    assert_eq!(reference.providers.len(), 47);
    assert_eq!(reference.providers.iter().map(|provider| provider.models.len()).sum::<usize>(), 2330);
    for unit in sides().keys() {
        assert!(Counter::ALL.iter().any(|counter| counter.name() == unit), "there is a counter for {unit}");
    }
}

#[test]
fn the_table_says_what_it_is() {
    let published = time("2026-11-10T00:00:00Z");
    let edition = |source: &str, version: &str, published| Edition {
        source: source.to_owned(),
        version: version.to_owned(),
        published,
    };
    assert_eq!(built_in().edition(), edition("genai-prices", "0.2.3", published));
    let some_rates = with_providers("").expect("an overlay");
    assert_eq!(some_rates.edition(), edition("genai-prices + overlay", "0.2.3", published));
    let newer = r#"{"schema_version":1,"generated_from":{"source":"ours","version":"7","released":"2026-11-20"},"providers":[]}"#;
    let newer = overlaid(newer).expect("an overlay");
    assert_eq!(newer.edition(), edition("ours + overlay", "7", time("2026-11-20T00:00:00Z")));
}

#[test]
fn worked_examples_cost_what_their_rates_say() {
    use Counter::{
        CacheAudioReadTokens, CacheReadTokens, CacheWrite1hTokens, CacheWriteTokens, InputAudioTokens,
        OutputAudioTokens, OutputCitationTokens, OutputReasoningTokens, WebSearches,
    };
    let prices = built_in();
    let claude = [(CacheReadTokens, 2000), (CacheWriteTokens, 123), (CacheWrite1hTokens, 23)];
    let searched: Vec<_> = claude.into_iter().chain([(WebSearches, 2)]).collect();
    let astra = [(CacheReadTokens, 100_000), (CacheWriteTokens, 2000)];
    let haiku = [(CacheReadTokens, 120_000), (CacheWriteTokens, 20_000)];
    let realtime =
        [(InputAudioTokens, 3000), (CacheReadTokens, 1500), (CacheAudioReadTokens, 1000), (OutputAudioTokens, 1500)];
    let research = [(OutputReasoningTokens, 5000), (OutputCitationTokens, 2000), (WebSearches, 12)];
    let opus = case("anthropic", "claude-opus-5-5");
    let flash = case("deepseek", "deepseek-flash");
    let hit = [(CacheReadTokens, 60_000)];
    for (what, case, usage, usd) in [
        ("cache writes of both lifetimes, searches", opus, cached(2627, 97, &searched), "0.02504"),
        ("a geographic profile", case("aws", "us.anthropic.claude-opus-5-5"), cached(2627, 97, &claude), "0.005544"),
        ("the global profile", case("aws", "global.anthropic.claude-opus-5-5"), cached(2627, 97, &claude), "0.00504"),
        (
            "reasoning adds nothing to the output",
            case("openai", "gpt-5"),
            cached(10_000, 3000, &[(CacheReadTokens, 4096), (OutputReasoningTokens, 2500)]),
            "0.037892",
        ),
        ("above the threshold", case("openai", "gpt-6-astra"), cached(300_000, 4000, &astra), "4.51"),
        (
            "above the threshold, flex",
            case("openai", "gpt-6-astra").with(&[("service_tier", "flex")]),
            cached(300_000, 4000, &astra),
            "2.255",
        ),
        (
            "cached tokens count for the threshold",
            case("google", "gemini-2.5-pro"),
            cached(210_000, 3000, &[(CacheReadTokens, 150_000)]),
            "0.2325",
        ),
        (
            "batch, above the threshold",
            case("anthropic", "claude-haiku-5-5").with(&[("processing", "batch")]),
            cached(150_000, 1000, &haiku),
            "0.013",
        ),
        ("audio, cached and not", case("openai", "gpt-realtime"), cached(5000, 2000, &realtime), "0.1746"),
        ("200,000 and more", case("x-ai", "grok-4.6"), cached(200_000, 800, &[(CacheReadTokens, 1000)]), "0.8066"),
        ("outside peak hours", flash, cached(100_000, 5000, &hit), "0.00918"),
        ("in peak hours", flash.at("2026-11-20T02:00:00Z"), cached(100_000, 5000, &hit), "0.01836"),
        (
            "reasoning, citations and searches with rates of their own",
            case("perplexity", "sonar-deep-research"),
            cached(1000, 9000, &research),
            "0.097",
        ),
        (
            "variants do not apply to models fallen back to",
            case("azure", "gpt-6-astra").with(&[("service_tier", "priority")]),
            tokens(1000, 1000),
            "0.06",
        ),
    ] {
        assert_eq!(case.usd(&prices, &usage), usd, "{what}");
    }
}

#[test]
fn a_threshold_is_a_cliff() {
    let prices = built_in();
    let astra = case("openai", "gpt-6-astra");
    assert_eq!(astra.usd(&prices, &tokens(271_999, 0)), "2.71999");
    assert_eq!(astra.usd(&prices, &tokens(272_000, 0)), "2.72");
    assert_eq!(astra.usd(&prices, &tokens(272_001, 0)), "5.44002");
}

#[test]
fn scheduled_prices_change_at_midnight_utc() {
    let prices = built_in();
    let argon = case("google", "gemini-4-argon");
    assert_eq!(argon.at("2026-11-30T23:59:59.999Z").usd(&prices, &tokens(1_000_000, 0)), "2");
    assert_eq!(argon.at("2026-12-01T00:00:00Z").usd(&prices, &tokens(1_000_000, 0)), "4");
}

#[test]
fn the_classes_of_a_charge_are_those_of_the_tokens() {
    let prices = built_in();
    let parts = [(Counter::CacheReadTokens, 4096), (Counter::OutputReasoningTokens, 2500)];
    let usage = cached(10_000, 3000, &parts);
    let Cost::Known(charge) = case("openai", "gpt-5").answer(&prices, Some(&usage)).cost else {
        panic!("gpt-5 has a price")
    };
    let classes = TokenClass::ALL.map(|class| charge.of(class).to_string());
    assert_eq!(classes, ["0.00738", "0.000512", "0", "0.005", "0.025", "0", "0"]);
}

#[test]
fn what_is_unknown_is_unpriced_and_not_free() {
    let prices = built_in();
    let usage = tokens(10, 10);
    let unknown = case("openai", "gpt-99-unheard-of").answer(&prices, Some(&usage));
    assert_eq!((unknown.cost, unknown.model), (Cost::Unpriced(Unpriced::UnknownModel), None));
    let unreported = case("openai", "gpt-5").answer(&prices, None);
    assert_eq!((unreported.cost, unreported.model.as_deref()), (Cost::Unpriced(Unpriced::NoUsage), Some("gpt-5")));
    let question = |source, response_model, request_model| {
        let context = &[];
        prices.price(&Question { source, response_model, request_model, usage: Some(&usage), context, at: time(NOON) })
    };
    let nobody = Source::Id("nobody".into());
    assert_eq!(question(&nobody, Some("gpt-5"), None).cost, Cost::Unpriced(Unpriced::NoTable));
    assert_eq!(question(&Source::Payee(9999), Some("gpt-5"), None).cost, Cost::Unpriced(Unpriced::NoTable));
    let openai = Source::Id("openai".into());
    assert_eq!(question(&openai, None, None).cost, Cost::Unpriced(Unpriced::UnknownModel));
    let named = |response, request| question(&openai, response, request).model;
    assert_eq!(named(Some("gpt-5-2025-08-07"), Some("gpt-4o")).as_deref(), Some("gpt-5"), "the one that answered");
    assert_eq!(named(Some("our-alias"), Some("gpt-4o")).as_deref(), Some("gpt-4o"), "else the one asked for");
}

#[test]
fn what_google_puts_before_a_name_is_not_part_of_it() {
    let prices = built_in();
    for (name, expected) in [
        ("gemini-2.5-pro", Some("gemini-2.5-pro")),
        ("models/gemini-2.5-pro", Some("gemini-2.5-pro")),
        ("google/gemini-2.5-pro", Some("gemini-2.5-pro")),
        ("publishers/google/models/gemini-2.5-pro", Some("gemini-2.5-pro")),
        ("tunedModels/gemini-2.5-pro-of-ours", None),
        ("endpoints/42", None),
        ("other/gemini-2.5-pro", None),
    ] {
        let answer = case("google", name).answer(&prices, Some(&tokens(10, 10)));
        assert_eq!(answer.model.as_deref(), expected, "{name}");
    }
}

#[test]
fn usage_of_which_nothing_has_a_price_is_unpriced_and_not_free() {
    let prices = built_in();
    let spoken = Usage::cache_inside(None, None, &[(Counter::InputCharacters, Some(2_000))]);
    assert_eq!(case("openai", "tts-1").usd(&prices, &spoken), "0.03");
    let by_tokens = case("openai", "gpt-4o-mini-tts").answer(&prices, Some(&spoken));
    assert_eq!(by_tokens.cost, Cost::Unpriced(Unpriced::NoUsage));
    let heard = Usage::cache_inside(None, None, &[(Counter::InputAudioSeconds, Some(3_600))]);
    assert_eq!(case("openai", "whisper-1").usd(&prices, &heard), "0.36");
    assert_eq!(case("openai", "gpt-4o-transcribe").usd(&prices, &heard), "unpriced");
}

#[test]
fn a_listed_model_without_rates_is_known_to_be_free() {
    let free = case("openrouter", "meta-llama/llama-3.3-70b-instruct:free");
    assert_eq!(free.usd(&built_in(), &tokens(1_000_000, 1_000_000)), "0");
}

#[test]
fn a_fine_tune_never_costs_what_its_base_costs() {
    let prices = built_in();
    let listed = case("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc123");
    assert_eq!(listed.usd(&prices, &tokens(1_000_000, 0)), "0.3", "twice the rate of gpt-4o-mini");
    for name in ["ft:gpt-5-2025-08-07:acme::abc", "ft:gpt-4.1-2025-04-14:acme:gpt-4o:abc", "ft:o4-mini:acme::x"] {
        for provider in ["openai", "azure"] {
            let answer = case(provider, name).answer(&prices, Some(&tokens(1, 1)));
            assert_eq!(answer.cost, Cost::Unpriced(Unpriced::UnknownModel), "{provider} {name}");
        }
    }
}

#[test]
fn names_are_found_as_the_rules_say_and_never_by_likeness() {
    let prices = built_in();
    for (rule, provider, name, model) in [
        ("case does not matter", "openai", "GPT-5", Some("gpt-5")),
        ("a dated name", "openai", "gpt-5-2025-08-07", Some("gpt-5")),
        ("a compact date", "openai", "gpt-5-20250807", Some("gpt-5")),
        ("a longer name is another model", "openai", "gpt-5-mini", Some("gpt-5-mini")),
        ("no closest name", "openai", "gpt-5-colossal", None),
        ("nothing", "openai", "", None),
        ("another script", "openai", "ГПТ-5", None),
    ] {
        let answer = case(provider, name).answer(&prices, None);
        assert_eq!(answer.model.as_deref(), model, "{rule}: {name}");
    }
    assert!(case("openai", &"a".repeat(1 << 20)).answer(&prices, None).model.is_none(), "a name has its length");
}

/// The id of the provider that bills a payee with this name and URL, and the region where it has prices of its own.
fn billed_by(prices: &Prices, name: &str, url: &str) -> Option<(String, Option<String>)> {
    let payee = Payee { name: name.into(), url: url.into(), prices: Whose::Found };
    let in_force = prices.in_force();
    match place(&in_force.table, &payee).expect("nothing is named") {
        Place::Listed { provider, region } => {
            let provider = &in_force.table.providers[provider];
            Some((provider.id.to_string(), region.map(|region| provider.regions[region].0.to_string())))
        }
        Place::Free | Place::Unlisted => None,
    }
}

#[test]
fn providers_are_found_by_id_by_name_and_by_url() {
    let prices = built_in();
    let found = |name, url| billed_by(&prices, name, url).map(|(provider, _)| provider);
    for (name, id) in [
        (" OpenAI ", "openai"),
        ("bedrock", "aws"),
        ("vertex_ai", "google"),
        ("xai", "x-ai"),
        ("together-ai", "together"),
    ] {
        assert_eq!(found(name, "http://127.0.0.1:8000").as_deref(), Some(id), "{name}");
    }
    assert_eq!(found("no-such-provider", "http://127.0.0.1:8000"), None);
    for (url, id) in [
        ("https://api.openai.com/v1/chat/completions", Some("openai")),
        ("https://api.anthropic.com", Some("anthropic")),
        ("https://acme.openai.azure.com/openai/deployments/x", Some("azure")),
        ("https://example.com/?next=https://api.openai.com", None),
        ("http://127.0.0.1:8000", None),
        // Hosts that only the additions know.
        ("https://jp.api.openai.com/v1", Some("openai")),
        ("https://bedrock-runtime-fips.us-east-1.amazonaws.com/", Some("aws")),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn/", Some("aws")),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", Some("aws")),
        ("https://aws-external-anthropic.us-east-1.api.aws", Some("anthropic")),
        ("https://api.together.ai/v1", Some("together")),
        ("https://api.eu.mistral.ai/v1", Some("mistral")),
        // What only looks like them.
        ("https://us.api.openai.com.example.com/v1", None),
        ("https://xx.api.openai.com/v1", None),
    ] {
        assert_eq!(found("somebody", url).as_deref(), id, "{url}");
    }
}

#[test]
fn a_region_with_prices_of_its_own_is_known_by_the_host() {
    let prices = built_in();
    for (url, expected) in [
        ("https://api.openai.com/", None),
        ("https://us.api.openai.com/", Some("us")),
        ("https://eu.api.openai.com:443/v1", Some("eu")),
        ("https://jp.api.openai.com/", None),
        ("https://aiplatform.googleapis.com/", None),
        ("https://generativelanguage.googleapis.com/", None),
        ("https://us-central1-aiplatform.googleapis.com/v1", Some("regional")),
        ("https://aiplatform.eu.rep.googleapis.com", Some("regional")),
    ] {
        let (_, region) = billed_by(&prices, "somebody", url).expect("a known host");
        assert_eq!(region.as_deref(), expected, "{url}");
    }
}

#[test]
fn an_overlay_comes_before_the_built_in_table() {
    let prices = overlaid(
        r#"{"schema_version":1,"providers":[
            {"id":"openai","models":[
                {"id":"gpt-5-ours","match":{"eq":["GPT-5"]},"rates":{"input_tokens":"1"}}]},
            {"id":"acme","provider_match":{"eq":["acme-ai"]},"url":"^https://api\\.openai\\.com/acme","fallback":["openai"],"models":[
                {"id":"acme-1","match":{"prefix":["acme-"]},"rates":{"output_tokens":{"base":"2","over":[[10,"3"]]}}}]}]}"#,
    )
    .expect("an overlay");
    let million = tokens(1_000_000, 1_000_000);
    assert_eq!(case("openai", "gpt-5").usd(&prices, &million), "1", "the operator's rates");
    assert_eq!(case("openai", "gpt-5-mini").usd(&prices, &million), "2.25", "the other models stay");
    assert_eq!(case("acme-ai", "acme-1").usd(&prices, &million), "3", "a provider of one's own");
    assert_eq!(case("acme", "gpt-5").usd(&prices, &million), "1", "falls back to the table as overlaid");
    let found = |url| billed_by(&prices, "somebody", url).map(|(provider, _)| provider);
    assert_eq!(found("https://api.openai.com/acme/v1").as_deref(), Some("acme"), "found before the built-in ones");
    assert_eq!(found("https://api.openai.com/v1").as_deref(), Some("openai"), "kept");
}

#[test]
fn a_damaged_overlay_names_its_mistakes() {
    let model = |model: &str| format!(r#"{{"schema_version":1,"providers":[{{"id":"a","models":[{model}]}}]}}"#);
    let rated = |rates: &str| model(&format!(r#"{{"id":"m","match":{{"eq":["m"]}},"rates":{rates}}}"#));
    let at = "providers[0].models[0]";
    for (text, field, fix) in [
        ("{".to_owned(), "the file", "EOF"),
        (r#"{"providers":[]}"#.to_owned(), "the file", "missing field `schema_version`"),
        (r#"{"schema_version":2,"new":1}"#.to_owned(), "schema_version", "write 1"),
        (r#"{"schema_version":1,"currency":"EUR","providers":[]}"#.to_owned(), "currency", "USD"),
        (r#"{"schema_version":1,"models":7,"providers":[]}"#.to_owned(), "models", "there are 0"),
        (
            r#"{"schema_version":1,"units":{"requests":{"per":1,"within":[]}},"providers":[]}"#.to_owned(),
            "units.requests.per",
            "1000",
        ),
        (
            r#"{"schema_version":1,"providers":[{"id":"a","fallback":["b"],"models":[]}]}"#.to_owned(),
            "provider a",
            "`b`",
        ),
        (model(r#"{"id":"m","match":{"eq":["m"]},"rates":{},"rate":{}}"#), at, "unknown field `rate`"),
        (model(r#"{"id":"m","match":{"regex":["("]},"rates":{}}"#), "models[0].match", "regular expression"),
        (model(r#"{"id":"m","match":{"eq":[""]},"rates":{}}"#), "models[0].match.eq[0]", "empty"),
        (rated(r#"{"input_tokens":"-1"}"#), "models[0].rates.input_tokens", "write US dollars"),
        (rated(r#"{"input_tokens":1.25}"#), "models[0].rates.input_tokens", "in quotes"),
        (rated(r#"{"input_tokens":"1000001"}"#), "models[0].rates.input_tokens", "no rate is above"),
        (rated(r#"{"input_tokens":{"base":"1","over":[[5,"x"]]}}"#), "input_tokens.over[0][1]", "`x`"),
        (rated(r#"{"inputs":"1"}"#), "models[0].rates", "write one of input_tokens"),
    ] {
        let error = overlaid(&text).expect_err(&text).to_string();
        assert!(error.contains(field) && error.contains(fix), "{text}\n{error}");
    }
    let two = r#"{"schema_version":1,"providers":[{"id":"a","models":[{"id":"m"},{"id":"n"}]}]}"#;
    let error = overlaid(two).expect_err("two mistakes").to_string();
    assert!(error.contains("models[0]") && error.contains("models[1]"), "every model is named:\n{error}");
}

#[test]
fn an_overlay_that_is_not_there_is_named() {
    let error =
        Prices::load(&Settings { overlay: Some("/nowhere/prices.json".into()) }, Vec::new()).expect_err("no file");
    assert_eq!(error.to_string(), "cannot read the price overlay /nowhere/prices.json");
}
