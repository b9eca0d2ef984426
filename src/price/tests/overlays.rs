//! The operator's file: what is refused and why, what it changes, and what becomes of it when it changes.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::*;

/// Every mistake in an overlay with this list of providers, a line each. Empty if there is none.
fn mistakes(providers: &str) -> String {
    static BUILT_IN: LazyLock<Table> = LazyLock::new(|| beneath(Builder::default()).finish().expect(WHOLE).0);
    let text = format!(r#"{{"schema_version":1,"providers":[{providers}]}}"#);
    listed(&Builder::default().add_checked(&text, &BUILT_IN).err().unwrap_or_default())
}

/// Those in an overlay of one model of `provider` with these members beside its id and match.
fn mistakes_in(provider: &str, name: &str, members: &str) -> String {
    mistakes(&model(provider, name, members))
}

fn model(provider: &str, name: &str, members: &str) -> String {
    format!(r#"{{"id":"{provider}","models":[{{"id":"{name}","match":{{"eq":["{name}"]}},{members}}}]}}"#)
}

#[test]
fn rates_in_the_wrong_unit_are_refused_with_what_was_meant() {
    let at = "providers[0].models[0].rates";
    for (slip, provider, name, rates, field, hint) in [
        ("per token", "house", "m", r#"{"input_tokens":"0.0000025"}"#, "input_tokens", "perhaps 2.5"),
        (
            "per token, in a tier",
            "house",
            "m",
            r#"{"input_tokens":{"base":"1","over":[[9,"0.000002"]]}}"#,
            "input_tokens",
            "perhaps 2 is",
        ),
        ("per thousand, cheap", "house", "m", r#"{"input_tokens":"0.0005"}"#, "input_tokens", "0.5"),
        (
            "per thousand, dear, but known",
            "openai",
            "gpt-5",
            r#"{"output_tokens":"0.010"}"#,
            "output_tokens",
            "1000 times less",
        ),
        ("in cents per thousand", "house", "m", r#"{"input_tokens":"5000"}"#, "input_tokens", "more than any"),
        ("a million times", "openai", "gpt-5", r#"{"input_tokens":"1250000"}"#, "input_tokens", "no rate is above"),
        ("per search", "house", "m", r#"{"web_searches":"0.01"}"#, "web_searches", "perhaps 10 is"),
        ("per page", "house", "m", r#"{"input_document_pages":"0.004"}"#, "input_document_pages", "perhaps 4 is"),
        ("per second", "house", "m", r#"{"audio_seconds":"0.0001"}"#, "audio_seconds", "perhaps 0.36 is"),
        ("per minute", "house", "m", r#"{"input_audio_seconds":"0.006"}"#, "input_audio_seconds", "an hour"),
        ("per character", "house", "m", r#"{"input_characters":"0.000015"}"#, "input_characters", "perhaps 15 is"),
    ] {
        let error = mistakes_in(provider, name, &format!(r#""rates":{rates}"#));
        assert!(error.contains(&format!("{at}.{field}: ")) && error.contains(hint), "{slip}:\n{error}");
        if !hint.contains("no rate") {
            assert!(error.contains(r#"`"unusual": true`"#), "{slip}: says how to insist:\n{error}");
            let meant = mistakes_in(provider, name, &format!(r#""unusual":true,"rates":{rates}"#));
            assert_eq!(meant, "", "{slip}: meant so");
        }
    }
    for later in [
        r#""rates":{"input_tokens":"1.25"},"overrides":[{"from":"2027-01-01","rates":{"input_tokens":"0.00125"}}]"#,
        r#""rates":{"input_tokens":"1.25"},"variants":[{"if":{"a":"b"},"rates":{"input_tokens":"0.00125"}}]"#,
        r#""rates":{"input_tokens":{"base":"1.25","over":[[200000,"0.0025"]]}}"#,
    ] {
        assert!(
            mistakes_in("openai", "gpt-5", later).contains("times less"),
            "per thousand, but not at first: {later}"
        );
    }
    for fine in [r#"{"input_tokens":"0"}"#, r#"{"input_tokens":"0.001"}"#, r#"{"output_tokens":"1000"}"#, "{}"] {
        assert_eq!(mistakes_in("house", "m", &format!(r#""rates":{fine}"#)), "");
    }
    assert_eq!(mistakes_in("openai", "gpt-5", r#""rates":{"input_tokens":"0.05"}"#), "", "a discount, however large");
    let variant = r#""rates":{},"variants":[{"if":{"a":"b"},"rates":{"input_tokens":"0.0000025"}}]"#;
    let error = mistakes_in("house", "m", variant);
    assert!(error.contains("providers[0].models[0].variants[0].rates.input_tokens: "), "{error}");
    let replaced = r#""rates":{},"overrides":[{"from":"2027-01-01","rates":{"input_tokens":"0.0000025"}}]"#;
    let error = mistakes_in("house", "m", replaced);
    assert!(error.contains("overrides[0].rates.input_tokens: "), "{error}");
}

#[test]
fn ids_that_stand_twice_are_refused() {
    let plain = r#"{"id":"m","match":{"eq":["m"]},"rates":{}}"#;
    for (text, field) in [
        (r#"{"id":"a"},{"id":"a"}"#.to_owned(), "providers[1].id"),
        (format!(r#"{{"id":"a","models":[{plain},{plain}]}}"#), "providers[0].models[1].id"),
        (
            r#"{"id":"a","uplifts":[{"id":"u","factor":"1.1"},{"id":"u","factor":"1.2"}]}"#.to_owned(),
            "providers[0].uplifts[1].id",
        ),
    ] {
        let error = mistakes(&text);
        assert!(error.contains(&format!("{field}: ")) && error.contains("already"), "{error}");
    }
}

#[test]
fn a_cache_that_is_dearer_to_read_is_pointed_out_and_no_mistake() {
    let dear = model("house", "m", r#""rates":{"input_tokens":"1","cache_read_tokens":"2"}"#);
    let prices = with_providers(&dear).expect("an overlay");
    assert_eq!(
        prices.remarks(),
        ["providers[0].models[0].rates.cache_read_tokens: 2 is more than the rate of input_tokens, 1: is it meant?"]
    );
    assert_eq!(built_in().remarks(), Vec::<String>::new());
}

#[test]
fn an_operator_s_uplifts_add_to_the_built_in_ones_or_take_their_place() {
    let million = tokens(1_000_000, 0);
    let usd = |uplifts: &str, provider, model, context| {
        let overlay = with_providers(&format!(r#"{{"id":"{provider}","uplifts":[{uplifts}]}}"#)).expect("an overlay");
        case(provider, model).with(context).usd(&overlay, &million)
    };
    let geo = &[("inference_geo", "us")];
    assert_eq!(usd(r#"{"id":"ours","factor":"0.9"}"#, "anthropic", "claude-opus-5-5", &[]), "3.6", "a discount");
    assert_eq!(usd(r#"{"id":"ours","factor":"0.9"}"#, "anthropic", "claude-opus-5-5", geo), "3.96", "one on the other");
    assert_eq!(
        usd(r#"{"id":"inference-geo-us","factor":"1"}"#, "anthropic", "claude-opus-5-5", geo),
        "4",
        "in its place"
    );
    let zone = r#"{"id":"data-zone","from":"2026-11-20","factor":"1.1"}"#;
    assert_eq!(usd(zone, "azure", "gpt-6-astra", &[]), "22", "on models fallen back to, above their threshold");
    let later = r#"{"id":"data-zone","from":"2026-11-21","factor":"1.1"}"#;
    assert_eq!(usd(later, "azure", "gpt-6-astra", &[]), "20", "not before its day");
    let other = r#"{"id":"x","match":{"prefix":["gpt-5"]},"factor":"1.1"}"#;
    assert_eq!(usd(other, "openai", "gpt-4.1", &[]), "2", "not on other models");
    for (uplift, field, fix) in [
        (r#"{"id":"x","factor":"110"}"#, "uplifts[0].factor", "such as 1.1"),
        (r#"{"id":"x"}"#, "uplifts[0]", "missing field `factor`"),
        (r#"{"id":"x","factor":"1.1","derive":{"tokens":"input_tokens"}}"#, "uplifts[0].derive", "write one of"),
        (r#"{"id":"x","factor":"1.1","match":{"regex":["("]}}"#, "uplifts[0].match", "regular expression"),
        (r#"{"id":"x","factor":"1.1","when":{}}"#, "uplifts[0]", "unknown field `when`"),
    ] {
        let error = mistakes(&format!(r#"{{"id":"a","uplifts":[{uplift}]}}"#));
        assert!(error.contains(field) && error.contains(fix), "{error}");
    }
}

/// A file as Kubernetes mounts it: `prices.json` leads through a link to a folder, and the link is swapped.
struct Mounted {
    folder: TempDir,
    versions: usize,
}

impl Mounted {
    fn holding(text: &str) -> Self {
        let mut mounted = Self { folder: tempfile::tempdir().expect("a folder"), versions: 0 };
        mounted.swap(text);
        std::os::unix::fs::symlink("..data/prices.json", mounted.path()).expect("a link");
        mounted
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("prices.json")
    }

    fn swap(&mut self, text: &str) {
        self.versions += 1;
        let version = format!("v{}", self.versions);
        let folder = self.folder.path().join(&version);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("prices.json"), text).expect("a file");
        let link = self.folder.path().join("..new");
        std::os::unix::fs::symlink(&version, &link).expect("a link");
        fs::rename(&link, self.folder.path().join("..data")).expect("swapped");
    }

    fn prices(&self) -> Prices {
        let payee = |name: &str, prices| Payee { name: name.into(), url: "http://127.0.0.1:8000/".into(), prices };
        let payees =
            vec![payee("house", Whose::Found), payee("local", Whose::Free), payee("ours", Whose::Id("openai".into()))];
        Prices::load(&Settings { overlay: Some(self.path()) }, payees).expect("an overlay")
    }
}

/// An overlay in which `house` charges this much for a million tokens.
fn house(usd: &str) -> String {
    format!(
        r#"{{"schema_version":1,"providers":[{{"id":"house","models":[
            {{"id":"m","match":{{"eq":["m"]}},"rates":{{"input_tokens":"{usd}"}}}}]}}]}}"#
    )
}

fn charged(prices: &Prices, payee: usize) -> Cost {
    let usage = tokens(1_000_000, 0);
    let source = &Source::Payee(payee);
    let question = Question {
        source,
        response_model: Some("m"),
        request_model: None,
        usage: Some(&usage),
        context: &[],
        at: time(NOON),
    };
    prices.price(&question).cost
}

fn charged_usd(prices: &Prices) -> String {
    charged(prices, 0).amount().map_or("unpriced".to_owned(), |amount| amount.to_string())
}

#[test]
fn a_changed_overlay_comes_into_force_and_a_damaged_one_does_not() {
    let mut file = Mounted::holding(r#"{"schema_version":1,"providers":[]}"#);
    let prices = file.prices();
    assert_eq!(charged(&prices, 0), Cost::Unpriced(Unpriced::NoTable));
    assert!(prices.reload().is_none(), "nothing has changed since the start");

    file.swap(&house("1"));
    assert!(prices.reload().expect("a change").is_ok());
    assert_eq!(charged_usd(&prices), "1", "a provider that is listed from now on");
    assert_eq!(charged(&prices, 1), Cost::Known(Charge::default()), "free stays free");
    assert!(prices.reload().is_none(), "once for each change");

    file.swap(&house("0.000001"));
    let refused = prices.reload().expect("a change").expect_err("a slip").to_string();
    assert!(refused.contains("providers[0].models[0].rates.input_tokens"), "{refused}");
    assert_eq!(charged_usd(&prices), "1", "the last good one");
    assert!(prices.reload().is_none(), "complained once");

    fs::remove_file(file.path()).expect("removed");
    assert!(matches!(prices.reload(), Some(Err(PriceError::Unreadable { .. }))));
    assert!(prices.reload().is_none());
    assert_eq!(charged_usd(&prices), "1", "still the last good one");

    std::os::unix::fs::symlink("..data/prices.json", file.path()).expect("a link");
    file.swap(&house("3"));
    assert!(prices.reload().expect("a change").is_ok());
    assert_eq!(charged_usd(&prices), "3");
}

#[test]
fn a_provider_that_is_named_must_stay_in_the_table() {
    let mut file = Mounted::holding(&house("1"));
    let payee = Payee { name: "mine".into(), url: "http://127.0.0.1/".into(), prices: Whose::Id("house".into()) };
    let prices = Prices::load(&Settings { overlay: Some(file.path()) }, vec![payee]).expect("an overlay");
    file.swap(r#"{"schema_version":1,"providers":[]}"#);
    let refused = prices.reload().expect("a change").expect_err("the provider is gone").to_string();
    assert!(refused.starts_with("providers.mine.prices: the price table has no provider `house`"), "{refused}");
    assert_eq!(charged_usd(&prices), "1");
}

#[tokio::test(start_paused = true)]
async fn the_watcher_tells_of_another_table() {
    let mut file = Mounted::holding(&house("1"));
    let prices = Arc::new(file.prices());
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    let watcher = tokio::spawn(Arc::clone(&prices).watch(move |edition| {
        noted.lock().expect("one thread").push(edition.map(|edition| edition.version));
    }));
    let from = r#""generated_from":{"source":"ours","version":"9","released":"2026-11-20"},"providers""#;
    let good = house("2").replace("\"providers\"", from);
    let mut expected = Vec::new();
    for (text, came) in [(good.as_str(), Some("9")), ("{", None), (good.as_str(), Some("9"))] {
        file.swap(text);
        expected.push(came.map(str::to_owned));
        while told.lock().expect("one thread").len() < expected.len() {
            tokio::time::advance(Duration::from_secs(2)).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(charged_usd(&prices), "2");
    }
    assert_eq!(*told.lock().expect("one thread"), expected);
    watcher.abort();
}

#[test]
fn a_model_without_a_price_is_news_once_and_not_too_many_are() {
    let mut file = Mounted::holding(&house("1"));
    let prices = file.prices();
    assert_eq!([(); 3].map(|()| prices.is_news(0, "gpt-99")), [true, false, false]);
    assert!(prices.is_news(2, "gpt-99"), "another provider's model of the same name is another model");
    let news = (0..2000).filter(|number| prices.is_news(0, &format!("m-{number}"))).count();
    assert_eq!(news, 998, "a thousand in all");

    file.swap(&house("2"));
    assert!(prices.reload().expect("a change").is_ok());
    assert!(prices.is_news(0, "gpt-99"), "again when the table is another");
}
