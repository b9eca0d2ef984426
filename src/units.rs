//! Units: the quantities weir counts and configures, as types that cannot be mixed up.
//!
//! Money is a whole number of pico-dollars; sizes and durations are parsed at the door from what people write
//! (`64MiB`, `1h`). No floats but at the edge, where a number is shown.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How full a bounded queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// How many things wait in it; `None` if nobody can tell.
    pub length: Option<usize>,
    /// How many may wait in it.
    pub capacity: usize,
    /// How many were left out so far because there was no room.
    pub dropped: u64,
}

/// An amount of money in pico-dollars: 10⁻¹² US dollars.
///
/// A price in `µUSD` per million tokens times a number of tokens is a whole number of these, so sums are exact. 128 bits
/// hold more than all the money there is: addition cannot overflow in practice and saturates if it ever would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PicoUsd(u128);

impl PicoUsd {
    /// No money at all.
    pub const ZERO: Self = Self(0);
    /// Pico-dollars in one US dollar.
    pub const PER_USD: u128 = 1_000_000_000_000;

    /// An amount of `pico` pico-dollars.
    #[must_use]
    pub const fn new(pico: u128) -> Self {
        Self(pico)
    }

    /// The amount in pico-dollars.
    #[must_use]
    pub const fn pico(self) -> u128 {
        self.0
    }

    /// The amount of US dollars that a JSON number spells, such as `0.0123` or `1.5e-05`: read digit by digit, and to the
    /// nearest pico-dollar. `None` if it is negative, no number, or spelt with more than 38 digits.
    #[must_use]
    pub fn of_usd(number: &str) -> Option<Self> {
        let (decimal, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, part) = decimal.split_once('.').unwrap_or((decimal, ""));
        let digits = whole.bytes().chain(part.bytes());
        let amount = digits.clone().try_fold(0_u128, |amount, digit| {
            let digit = digit.is_ascii_digit().then(|| u128::from(digit - b'0'))?;
            amount.checked_mul(10)?.checked_add(digit)
        })?;
        let places = 12 - i64::try_from(part.len()).ok()? + i64::from(exponent.parse::<i32>().ok()?);
        let factor = u32::try_from(places.unsigned_abs()).ok().and_then(|places| 10_u128.checked_pow(places));
        match factor {
            _ if digits.count() == 0 => None,
            Some(factor) if places >= 0 => amount.checked_mul(factor).map(Self),
            Some(factor) => {
                let (quotient, rest) = (amount / factor, amount % factor);
                let up = rest > factor - rest || (rest == factor - rest && quotient % 2 == 1);
                Some(Self(quotient + u128::from(up)))
            }
            None => (places < 0 || amount == 0).then_some(Self::ZERO),
        }
    }

    /// What is left of it without `other`: nothing, if that is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The amount in US dollars, for showing and for Prometheus: the only way out to a float.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown, never added up")]
    pub fn to_usd_f64(self) -> f64 {
        self.0 as f64 / Self::PER_USD as f64
    }
}

impl FromStr for PicoUsd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::of_usd(text).ok_or_else(|| format!("`{text}` is no amount of US dollars: write one such as 0.50"))
    }
}

impl Add for PicoUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for PicoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for PicoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// Decimal US dollars without an exponent and without trailing zeros: `0.02504`.
impl fmt::Display for PicoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PER_USD: u64 = 1_000_000_000_000;
        const { assert!(PER_USD as u128 == PicoUsd::PER_USD) };
        // Nearly every amount is less than eighteen million dollars, and division of so few bits takes a tenth of the time.
        let part = if let Ok(pico) = u64::try_from(self.0) {
            write!(f, "{}", pico / PER_USD)?;
            pico % PER_USD
        } else {
            write!(f, "{}", self.0 / Self::PER_USD)?;
            u64::try_from(self.0 % Self::PER_USD).unwrap_or_default()
        };
        if part == 0 {
            return Ok(());
        }
        let (mut digits, mut rest) = ([b'0'; 12], part);
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        let digits = std::str::from_utf8(&digits).expect("digits");
        f.write_str(".")?;
        f.write_str(digits.trim_end_matches('0'))
    }
}

/// A length of time as people write it: `250ms`, `30s`, `5m`, `1h 30m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// A span of `seconds` seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A span of `milliseconds` milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The span as a [`Duration`].
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is not a duration: write a number and a unit, such as 250ms, 30s, 5m or 1h"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

/// A number of bytes as people write it: `512KiB`, `64MiB`, `1GB`, or a bare number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `count` kibibytes.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// `count` mebibytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The whole kibibytes in `bytes`.
    #[must_use]
    pub const fn whole_kib(bytes: u64) -> Self {
        Self::kib(bytes >> 10)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in bytes as a length in memory; what does not fit is as good as unlimited.
    #[must_use]
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("`{text}` is not a size: write a number and a unit, such as 512KiB, 64MiB or 1GiB"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let whole = UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match whole {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A part of a whole: a number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct Share(f64);

impl Share {
    /// So many hundredths of the whole; all of it, if there are more.
    #[must_use]
    pub fn percent(hundredths: u8) -> Self {
        Self(f64::from(hundredths.min(100)) / 100.0)
    }

    /// The share as a number from 0 to 1.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&number) {
            return Ok(Self(number));
        }
        Err(de::Error::custom(format!("`{number}` is not a share: write a number from 0 to 1, such as 0.95")))
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

/// Reads a quantity from a string, or from a bare number where one makes sense (bytes).
fn from_text<'de, T, D>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err = String>,
    D: Deserializer<'de>,
{
    struct Text<T>(&'static str, std::marker::PhantomData<T>);

    impl<T: FromStr<Err = String>> de::Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
            number.to_string().parse().map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            number.to_string().parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_any(Text(expected, std::marker::PhantomData))
}

macro_rules! written_as_text {
    ($type:ident, $number:literal, $expected:literal, $($example:literal),+) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_text(deserializer, $expected)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", $number], "minimum": 0, "description": $expected, "examples": [$($example),+] })
            }
        }
    };
}

written_as_text!(Span, "integer", "a duration such as 250ms, 30s, 5m or 1h", "250ms", "30s", "5m", "1h");
written_as_text!(ByteSize, "integer", "a size such as 512KiB, 64MiB or 1GiB", "512KiB", "64MiB", "1GiB");
written_as_text!(PicoUsd, "number", "an amount of US dollars such as 0.50", "0.50", "100");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_in_decimal_dollars_without_padding() {
        for (pico, shown) in [
            (0, "0"),
            (1, "0.000000000001"),
            (25_040_000_000, "0.02504"),
            (1_000_000_000_000, "1"),
            (12_500_000_000_000, "12.5"),
        ] {
            assert_eq!(PicoUsd::new(pico).to_string(), shown);
        }
    }

    #[test]
    fn money_is_read_from_a_number_digit_by_digit() {
        for (number, pico) in [
            ("0.00014", Some(140_000_000)),
            ("1.5e-05", Some(15_000_000)),
            ("12", Some(12_000_000_000_000)),
            ("1E+2", Some(100_000_000_000_000)),
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("0.1000000000000000055511151231257827", Some(100_000_000_000)),
            ("0.0000000000005", Some(0)),
            ("0.0000000000015", Some(2)),
            ("0.0000000000005001", Some(1)),
            ("1e-400", Some(0)),
            ("1e400", None),
            ("-1", None),
            ("null", None),
            ("\"1\"", None),
            (".", None),
            ("", None),
        ] {
            assert_eq!(PicoUsd::of_usd(number), pico.map(PicoUsd::new), "{number}");
        }
    }

    #[test]
    fn sizes_and_spans_read_back_as_written() {
        for text in ["64MiB", "1GiB", "512KiB", "1000", "0"] {
            assert_eq!(text.parse::<ByteSize>().expect("a size").to_string(), text);
        }
        for text in ["250ms", "30s", "5m", "1h", "1h 30m", "7days"] {
            assert_eq!(text.parse::<Span>().expect("a span").to_string(), text);
        }
    }

    #[test]
    fn a_share_is_a_number_from_none_to_all() {
        for (json, share) in [("0", Some(0.0)), ("0.95", Some(0.95)), ("1", Some(1.0)), ("1.01", None), ("-0.1", None)]
        {
            assert_eq!(serde_json::from_str::<Share>(json).ok().map(Share::get), share, "{json}");
        }
        assert_eq!(Share::percent(95).get().to_bits(), 0.95_f64.to_bits());
        let error = serde_json::from_str::<Share>("95").expect_err("no share").to_string();
        assert!(error.contains("from 0 to 1"), "{error}");
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_an_example() {
        assert!("soon".parse::<Span>().expect_err("no span").contains("such as"));
        assert!("64 apples".parse::<ByteSize>().expect_err("no size").contains("such as"));
        assert!("10".parse::<Span>().is_err(), "a bare number has no unit");
    }
}
