//! Quantity: an amount of CPU, memory or disk as Kubernetes writes it, such as `100m` or `128Mi`. Read to be compared, never
//! to be rewritten.

/// Powers of what an amount is counted in, in thousandths.
const UNITS: [(&str, u128); 14] = [
    ("m", 1),
    ("", 1000),
    ("k", 1000 * 10_u128.pow(3)),
    ("M", 1000 * 10_u128.pow(6)),
    ("G", 1000 * 10_u128.pow(9)),
    ("T", 1000 * 10_u128.pow(12)),
    ("P", 1000 * 10_u128.pow(15)),
    ("E", 1000 * 10_u128.pow(18)),
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("Ei", 1000 << 60),
];

/// An amount, in thousandths; fractions of these are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u128);

impl Quantity {
    /// Reads an amount that is more than nothing. Of the notations Kubernetes knows, exponents (`1e3`), `n` and `u` are not
    /// read: nobody writes them, and what they would mean here is a slip.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let end = text.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (_, thousandths) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Nine digits either way keep the product within bounds, and are more than any machine has.
        if whole.is_empty() || whole.len() > 12 || fraction.len() > 9 || number.ends_with('.') {
            return None;
        }
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let places = u32::try_from(fraction.len()).ok()?;
        let amount = digits.checked_mul(thousandths)? / 10_u128.pow(places);
        (amount > 0).then_some(Self(amount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_whatever_their_units() {
        for (smaller, larger) in [("10m", "0.1"), ("100m", "1"), ("32Mi", "128Mi"), ("1M", "1Mi"), ("1023Ki", "1Mi")] {
            assert!(Quantity::of(smaller).expect(smaller) < Quantity::of(larger).expect(larger), "{smaller} {larger}");
        }
        for (one, other) in [("1", "1000m"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1.5Gi", "1536Mi"), ("1k", "1000")] {
            assert_eq!(Quantity::of(one), Quantity::of(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "m",
            "0",
            "0Mi",
            "-1",
            "+1",
            "1 Mi",
            "1mb",
            "1MB",
            "128mi",
            "1e3",
            ".5",
            "1.",
            "1.2.3",
            "ten",
            "999999999999999",
        ] {
            assert_eq!(Quantity::of(text), None, "{text}");
        }
    }
}
