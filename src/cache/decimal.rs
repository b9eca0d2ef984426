//! Decimal: what a JSON number says, whatever its spelling and whatever a 64-bit float makes of it.
//!
//! Knows the grammar of numbers (RFC 8259, section 6) and how to find them in a JSON text; nothing of keys.

use std::io::Write;

use memchr::memchr2;
use serde_json_borrow::Number;

/// `±digits × 10^exponent`, without a zero at the end of the digits: one for each value. There is one zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) is_negative: bool,
    pub(super) digits: u64,
    pub(super) exponent: i64,
}

impl Decimal {
    /// What a number of a parsed text says: of an integer all of it, of a float the shortest decimal that names it.
    pub(super) fn of(number: Number) -> Self {
        match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => Self::new(false, whole, 0),
            (None, Some(below_zero)) => Self::new(true, below_zero.unsigned_abs(), 0),
            (None, None) => Self::of_float(number.as_f64().unwrap_or_default()),
        }
    }

    fn of_float(float: f64) -> Self {
        // The longest is `-1.7976931348623157e-308`.
        let mut shortest = [0; 32];
        let mut rest = shortest.as_mut_slice();
        write!(rest, "{float:e}").expect("a float takes 24 bytes");
        let unused = rest.len();
        Self::read(&shortest[..shortest.len() - unused]).expect("the shortest decimal has at most 17 digits")
    }

    /// What is spelt so; `None` if that has too many digits.
    fn read(number: &[u8]) -> Option<Self> {
        let (is_negative, number) = number.strip_prefix(b"-").map_or((false, number), |rest| (true, rest));
        let end = memchr2(b'e', b'E', number).unwrap_or(number.len());
        let (mut digits, mut zeros, mut decimals, mut after_point) = (0_u64, 0, 0, false);
        for byte in &number[..end] {
            decimals += i64::from(after_point);
            match byte {
                b'.' => after_point = true,
                b'0' if digits == 0 => {}
                b'0' => zeros += 1,
                digit => {
                    let shifted = digits.checked_mul(10_u64.checked_pow(zeros + 1)?)?;
                    digits = shifted.checked_add(u64::from(digit - b'0'))?;
                    zeros = 0;
                }
            }
        }
        if digits == 0 {
            return Some(Self::default());
        }
        let exponent = std::str::from_utf8(number.get(end + 1..).unwrap_or(b"0")).ok()?.parse::<i64>().ok()?;
        let exponent = exponent.checked_sub(decimals)?.checked_add(i64::from(zeros))?;
        Some(Self { is_negative, digits, exponent })
    }

    fn new(is_negative: bool, mut digits: u64, mut exponent: i64) -> Self {
        if digits == 0 {
            return Self::default();
        }
        while digits.is_multiple_of(10) {
            digits /= 10;
            exponent += 1;
        }
        Self { is_negative, digits, exponent }
    }
}

/// Whether a parser keeps all that the numbers of this JSON text say: whether each is an integer of 64 bits, or the
/// shortest decimal of a 64-bit float.
pub(super) fn are_kept(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9')) {
        rest = &rest[at..];
        if let Some(text) = rest.strip_prefix(b"\"") {
            rest = after_text(text);
            continue;
        }
        let is_outside = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let (number, after) = rest.split_at(rest.iter().position(is_outside).unwrap_or(rest.len()));
        if !is_kept(number) {
            return false;
        }
        rest = after;
    }
    true
}

fn after_text(mut text: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', text) {
        if text[at] == b'"' {
            return &text[at + 1..];
        }
        text = text.get(at + 2..).unwrap_or_default();
    }
    &[]
}

fn is_kept(number: &[u8]) -> bool {
    // A float of 64 bits tells all decimals of 15 digits apart (C's DBL_DIG).
    if number.len() <= 15 && memchr2(b'e', b'E', number).is_none() {
        return true;
    }
    let text = std::str::from_utf8(number).unwrap_or_default();
    if text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok() {
        return true;
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite());
    float.is_some_and(|float| Decimal::read(number) == Some(Decimal::of_float(float)))
}

#[cfg(test)]
mod tests {
    use serde_json_borrow::Value;

    use super::*;

    fn decimal(spelt: &str) -> Decimal {
        match serde_json::from_str(spelt).expect("JSON") {
            Value::Number(number) => Decimal::of(number),
            other => panic!("{other:?} is no number"),
        }
    }

    #[test]
    fn one_value_is_one_decimal() {
        for same in [
            &["0", "-0", "0.0", "-0.0", "0e5", "-0E-9999999999999999999"][..],
            &["1", "1.0", "1e0", "10e-1", "0.1E1", "1.000000000000000000000000000"],
            &["0.1", "0.10", "1e-1", "1E-01", "100e-3"],
            &["-1200", "-1.2e3", "-12e+2", "-1200.00"],
            &["9007199254740992", "9007199254740992.0", "9.007199254740992e15"],
            &["10000000000000000000", "1e19"],
            &["100000000000000000000", "1e20", "1E+20", "10000000000e10"],
            &["0.30000000000000004", "3.0000000000000004e-1"],
            &["5e-324", "0.5e-323"],
        ] {
            for spelt in same {
                assert_eq!(decimal(spelt), decimal(same[0]), "{spelt} and {}", same[0]);
                assert!(are_kept(spelt.as_bytes()), "{spelt}");
            }
        }
    }

    #[test]
    fn different_values_are_different_decimals() {
        let different = [
            "0",
            "1",
            "-1",
            "10",
            "0.1",
            "0.2",
            "0.30000000000000004",
            "9007199254740992",
            "9007199254740993",
            "1e19",
            "1.2345678901234567e19",
            "12345678901234567168",
            "18446744073709551615",
            "18446744073709551614",
            "-9223372036854775808",
            "-9223372036854775807",
            "9223372036854775808",
            "1e22",
            "1e23",
            "1.7976931348623157e308",
            "1.7976931348623155e308",
            "5e-324",
            "-5e-324",
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(are_kept(one.as_bytes()), "{one}");
            for other in &different[at + 1..] {
                assert_ne!(decimal(one), decimal(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn a_number_that_a_parser_rounds_is_noticed_wherever_it_stands() {
        for (json, kept) in [
            ("0.1000000000000000055511151231257827", false),
            ("0.30000000000000001", false),
            ("18446744073709551616", false),
            ("-9223372036854775809", false),
            ("9007199254740993.0", false),
            ("1e-400", false),
            ("123456789012345678901234567890", false),
            (r#"{"a\"":[{"b":1e-400}]}"#, false),
            (r#"{"a":"","b":9007199254740993.0}"#, false),
            (r#"{"a":"1e-400","b\\":"\\\"1e-400","1e-400":["1e-400"]}"#, true),
            (r#"{"t":0.7,"seed":9007199254740993,"p":1e-5}"#, true),
            ("", true),
            ("\"", true),
            ("\"\\", true),
            ("-", true),
            ("1e400", false),
            ("1234567890123456-", false),
        ] {
            assert_eq!(are_kept(json.as_bytes()), kept, "{json}");
        }
    }
}
