//! File: the price table as it is written, and the mistakes a person can make in it.
//!
//! Shapes for serde only: what is read here is right in itself. Knows nothing of lookups.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::price::Mistake;
use crate::price::matching::LONGEST_NAME;
use crate::record::usage::Counter;
use crate::units::PicoUsd;

/// The only version of the format there is.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// Reads `text` as a `T`; `at` tells the path of what it is a part of.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str, at: impl Fn() -> String) -> Result<T, Mistake> {
    // Keeping the path costs more than reading: it is kept only for a text that is known to be wrong.
    serde_json::from_str(text).or_else(|_| {
        let read = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text));
        read.map_err(|error| {
            let (at, inner) = (at(), error.path().to_string());
            let parts = [&*at, &inner].into_iter().filter(|part| !matches!(*part, "" | "." | "?"));
            let field = parts.collect::<Vec<_>>().join(".");
            let field = if field.is_empty() { "the file".to_owned() } else { field };
            Mistake { field, problem: error.inner().to_string() }
        })
    })
}

/// The one field that every version of the format has.
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) schema_version: u32,
}

/// The whole table. Its models stay text, to be read one by one: all of them at once would take megabytes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table<'a> {
    pub(super) schema_version: u32,
    pub(super) generated_from: Option<GeneratedFrom>,
    #[serde(rename = "as_of")]
    _as_of: Option<Day>,
    #[serde(rename = "currency")]
    _currency: Option<Currency>,
    pub(super) models: Option<usize>,
    #[serde(default)]
    pub(super) units: BTreeMap<CounterName, Unit>,
    #[serde(borrow)]
    pub(super) providers: Vec<Provider<'a>>,
}

/// Where the table comes from.
#[derive(Deserialize)]
pub(super) struct GeneratedFrom {
    pub(super) source: String,
    pub(super) version: String,
    pub(super) released: Day,
}

/// What a counter's rate buys, and what contains it. A table says it for its readers; weir knows it already.
#[derive(Deserialize)]
pub(super) struct Unit {
    pub(super) per: u64,
    pub(super) within: Vec<CounterName>,
}

/// A provider and its models.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider<'a> {
    pub(super) id: Word,
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "otel")]
    _otel: Option<IgnoredAny>,
    pub(super) url: Option<Word>,
    #[serde(rename = "provider_match")]
    pub(super) names: Option<Matcher>,
    #[serde(rename = "model_match")]
    _model_match: Option<IgnoredAny>,
    pub(super) fallback: Option<Vec<Word>>,
    /// Regions that have prices of their own, each with a regular expression that matches its URLs.
    #[serde(default)]
    pub(super) regions: BTreeMap<Word, Word>,
    #[serde(default)]
    pub(super) uplifts: Vec<Uplift>,
    #[serde(default, borrow)]
    pub(super) models: Vec<&'a RawValue>,
}

/// A factor on rates: what a provider says once for many models, such as a tenth more in a region.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uplift {
    pub(super) id: Word,
    #[serde(default)]
    pub(super) r#if: BTreeMap<Word, Word>,
    /// The ids of the models it applies to; without it, every model.
    pub(super) r#match: Option<Matcher>,
    pub(super) from: Option<Day>,
    /// The rates it makes, each from another rate. Without them, it multiplies the rate of every token.
    #[serde(default)]
    pub(super) derive: BTreeMap<CounterName, CounterName>,
    pub(super) factor: Factor,
}

/// A model and its rates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) id: Word,
    pub(super) r#match: Matcher,
    #[serde(rename = "ctx")]
    _ctx: Option<IgnoredAny>,
    #[serde(rename = "deprecated")]
    _deprecated: Option<IgnoredAny>,
    #[serde(rename = "since")]
    _since: Option<IgnoredAny>,
    pub(super) rates: Rates,
    #[serde(default)]
    pub(super) overrides: Vec<Override>,
    #[serde(default)]
    pub(super) variants: Vec<Variant>,
    #[serde(default)]
    pub(super) min_audio_seconds: u64,
    /// Whether its rates are meant, although they look like a slip.
    #[serde(default)]
    pub(super) unusual: bool,
}

/// Alternatives, one of which must match.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Matcher {
    pub(super) eq: Vec<Word>,
    pub(super) prefix: Vec<Word>,
    pub(super) suffix: Vec<Word>,
    pub(super) contains: Vec<Word>,
    pub(super) regex: Vec<Word>,
    pub(super) all: Vec<Matcher>,
    pub(super) not: Option<Box<Matcher>>,
}

impl Matcher {
    /// Every regular expression in it.
    pub(super) fn patterns(&self) -> Vec<&str> {
        let nested = self.all.iter().chain(self.not.as_deref()).flat_map(Self::patterns);
        self.regex.iter().map(Word::as_str).chain(nested).collect()
    }
}

/// Rates by counter.
pub(super) type Rates = BTreeMap<CounterName, Rate>;

/// A set of rates that replaces a model's own while it is active.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Override {
    pub(super) from: Option<Day>,
    pub(super) utc: Option<[Clock; 2]>,
    pub(super) rates: Rates,
}

/// Rates that replace some of a model's own if the call's context is right.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variant {
    pub(super) r#if: BTreeMap<Word, Word>,
    pub(super) from: Option<Day>,
    pub(super) rates: Rates,
}

/// One price, or one that depends on the size of the prompt.
pub(super) struct Rate {
    pub(super) base: Dollars,
    /// The price above so many input tokens, by ascending number.
    pub(super) over: Vec<(NonZeroU32, Dollars)>,
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tiered {
            base: Dollars,
            over: Vec<(NonZeroU32, Dollars)>,
        }

        struct Plain;

        impl<'de> Visitor<'de> for Plain {
            type Value = Rate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"US dollars in quotes, such as "1.25", or {"base": "1.25", "over": [[200000, "2.5"]]}"#)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Rate, E> {
                Ok(Rate { base: text.parse().map_err(E::custom)?, over: Vec::new() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rate, A::Error> {
                let Tiered { base, mut over } = Tiered::deserialize(MapAccessDeserializer::new(map))?;
                over.sort_by_key(|(above, _)| *above);
                Ok(Rate { base, over })
            }
        }

        deserializer.deserialize_any(Plain)
    }
}

/// Pico-dollars for as much as a rate buys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dollars(pub(super) u64);

/// More US dollars than any rate is: a table that says so is wrong about its units.
const HIGHEST_RATE: u64 = 1_000_000;

impl FromStr for Dollars {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((whole, part)) = decimal(text) else {
            return Err(format!(
                "`{text}` is not a price: write US dollars as digits with at most 12 decimals, such as 1.25"
            ));
        };
        trillionths(whole, part)
            .filter(|pico| u128::from(*pico) <= u128::from(HIGHEST_RATE) * PicoUsd::PER_USD)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is too much: no rate is above {HIGHEST_RATE} US dollars"))
    }
}

/// A factor on rates, in trillionths: as exact as the rates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Factor(pub(super) u64);

/// The trillionths of a factor that changes nothing.
pub(super) const ONE: u64 = 1_000_000_000_000;

impl FromStr for Factor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A percentage in place of a factor, for one, is beyond these.
        let sensible = ONE / 10..=ONE * 10;
        decimal(text)
            .and_then(|(whole, part)| trillionths(whole, part))
            .filter(|factor| sensible.contains(factor))
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is no factor: write a number from 0.1 to 10, such as 1.1 for a tenth more")
            })
    }
}

/// The digits of a decimal number before and after its point, of which at most twelve come after.
fn decimal(text: &str) -> Option<(&str, &str)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(part) && part.len() <= 12).then_some((whole, part))
}

fn trillionths(whole: &str, part: &str) -> Option<u64> {
    // Fewer digits stand for more each.
    let missing = u32::try_from(12_usize.checked_sub(part.len())?).ok()?;
    let part = part.parse::<u64>().ok()? * 10_u64.pow(missing);
    whole.parse::<u64>().ok()?.checked_mul(ONE)?.checked_add(part)
}

/// A day in UTC, counted from 1 January 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(pub(super) u32);

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        day(text).ok_or_else(|| format!("`{text}` is not a day: write it as 2026-11-20"))
    }
}

/// The day written `YYYY-MM-DD`, if it is in the calendar.
pub(super) fn day(text: &str) -> Option<Day> {
    let midnight = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok()?;
    let seconds = midnight.duration_since(UNIX_EPOCH).ok()?.as_secs();
    u32::try_from(seconds / 86_400).ok().map(Day)
}

/// A time of day in UTC, in minutes after midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock(pub(super) u16);

impl FromStr for Clock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 2);
        text.split_once(':')
            .and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)))
            .filter(|(hour, minute)| *hour < 24 && *minute < 60)
            .map(|(hour, minute)| Self(hour * 60 + minute))
            .ok_or_else(|| format!("`{text}` is not a time of day: write it as 16:30"))
    }
}

/// A counter by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CounterName(pub(super) Counter);

impl FromStr for CounterName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Counter::ALL.iter().find(|counter| counter.name() == text).map(|counter| Self(*counter)).ok_or_else(|| {
            let names: Vec<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
            format!("`{text}` is no counter: write one of {}", names.join(", "))
        })
    }
}

/// The only currency there is.
pub(super) struct Currency;

impl FromStr for Currency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "USD" { Ok(Self) } else { Err(format!("`{text}` is not understood: rates are in USD")) }
    }
}

/// Text of a length that a name can have.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word(String);

impl Word {
    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.len() {
            0 => Err("empty text".to_owned()),
            1..=LONGEST_NAME => Ok(Self(text.to_owned())),
            len => Err(format!("a text of {len} bytes: names have at most {LONGEST_NAME}")),
        }
    }
}

macro_rules! read_from_text {
    ($($type:ident: $expected:literal),+ $(,)?) => {
        $(impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text($expected, PhantomData))
            }
        })+
    };
}

read_from_text! {
    Dollars: r#"US dollars in quotes, such as "1.25""#,
    Factor: r#"a factor in quotes, such as "1.1""#,
    Day: r#"a day, such as "2026-11-20""#,
    Clock: r#"a time of day, such as "16:30""#,
    CounterName: "the name of a counter",
    Currency: r#""USD""#,
    Word: "a text",
}

/// Reads a `T` from a string.
struct Text<T>(&'static str, PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact_to_the_pico_dollar() {
        for (text, pico) in [
            ("0", 0),
            ("1.25", 1_250_000_000_000),
            ("0.083333333333", 83_333_333_333),
            ("0.000000000001", 1),
            ("1000000", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Dollars(pico)), "{text}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in ["", "-1", "+1", "1e3", ".5", "1.", "1,25", "NaN", "0.0000000000001", "1000000.000000000001"] {
            assert!(text.parse::<Dollars>().is_err(), "{text}");
        }
        assert!("99999999999999999999999".parse::<Dollars>().expect_err("absurd").contains("too much"));
    }

    #[test]
    fn a_factor_is_a_decimal_near_one() {
        assert_eq!("1.1".parse(), Ok(Factor(1_100_000_000_000)));
        assert_eq!("10".parse(), Ok(Factor(10 * ONE)));
        for text in ["110", "10%", "0", "0.01", "-1.1", "1.1.1", "1,1", "99999999999999999999"] {
            assert!(text.parse::<Factor>().expect_err(text).contains("such as 1.1"), "{text}");
        }
    }

    #[test]
    fn days_and_times_are_those_of_the_calendar() {
        assert_eq!(day("1970-01-02"), Some(Day(1)));
        assert_eq!(day("2026-11-20"), Some(Day(20_777)));
        for text in ["2025-02-29", "2025-13-01", "2025-04-31", "2025-1-1", "20250101", ""] {
            assert_eq!(day(text), None, "{text}");
        }
        assert_eq!("16:30".parse(), Ok(Clock(990)));
        for text in ["24:00", "10:60", "1:30", "0130", ""] {
            assert!(text.parse::<Clock>().is_err(), "{text}");
        }
    }
}
