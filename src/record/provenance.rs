//! Provenance: where the cost of a call comes from, and how far it can be trusted.
//!
//! What the provider itself says it charges is the cost; else the price table times what was used. Knows no table.

use crate::record::usage::{Charge, Cost, TokenClass, Usage};
use crate::units::PicoUsd;

/// Where a cost comes from: the label `provenance`. Best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// The provider stated the money.
    Reported,
    /// Usage that the provider reported, at the price table's rates.
    Priced,
    /// Usage that was, in part or as a whole, estimated, at the price table's rates.
    Estimated,
    /// The cost is not known.
    Unpriced,
}

impl Provenance {
    /// Every provenance there is, for creating series at zero.
    pub const ALL: [Self; 4] = [Self::Reported, Self::Priced, Self::Estimated, Self::Unpriced];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Priced => "priced",
            Self::Estimated => "estimated",
            Self::Unpriced => "unpriced",
        }
    }

    /// Whether the cost is what the provider will bill, as far as anyone can tell.
    #[must_use]
    pub const fn is_exact(self) -> bool {
        matches!(self, Self::Reported | Self::Priced)
    }
}

/// A cost, where it comes from, and what it was weighed against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The cost.
    pub cost: Cost,
    /// Where it comes from; `None` where there was nothing to bill.
    pub provenance: Option<Provenance>,
    /// What the price table says, where the provider stated the cost itself.
    pub list_cost: Option<Charge>,
}

impl Settled {
    /// The same where so many further attempts may be billed, of which nothing is known but that they asked the same: each
    /// is charged at what this one cost, and the whole is an estimate.
    #[must_use]
    pub fn with_others_like_it(self, others: u32) -> Self {
        let Cost::Known(charge) = self.cost else { return self };
        if others == 0 {
            return self;
        }
        Self { cost: Cost::Known(charge.times(others + 1)), provenance: Some(Provenance::Estimated), list_cost: None }
    }
}

/// Settles the cost of a call: `list` is what the price table makes of its `usage`, `stated` what the provider says it
/// charges.
#[must_use]
pub fn settle(list: Cost, stated: Option<PicoUsd>, usage: Option<&Usage>) -> Settled {
    let list_cost = match list {
        Cost::Nothing => return Settled { cost: list, provenance: None, list_cost: None },
        Cost::Known(charge) => Some(charge),
        Cost::Unpriced(_) => None,
    };
    match (stated, list_cost) {
        (Some(stated), _) => {
            let cost = Cost::Known(in_proportion(stated, list_cost.as_ref()));
            Settled { cost, provenance: Some(Provenance::Reported), list_cost }
        }
        (None, Some(_)) => {
            let estimated = usage.is_some_and(Usage::is_estimated);
            let provenance = if estimated { Provenance::Estimated } else { Provenance::Priced };
            Settled { cost: list, provenance: Some(provenance), list_cost: None }
        }
        (None, None) => Settled { cost: list, provenance: Some(Provenance::Unpriced), list_cost: None },
    }
}

/// `amount` in the proportions of `list`, by largest remainder, so that the parts add up to it exactly. Without a list
/// to go by, all of it is a fee.
fn in_proportion(amount: PicoUsd, list: Option<&Charge>) -> Charge {
    list.and_then(|list| shares(amount, list)).unwrap_or_else(|| {
        let mut fee = Charge::default();
        fee.add(TokenClass::Fee, amount);
        fee
    })
}

/// `None` if nothing is charged by the list, or the amount is beyond all reason.
fn shares(amount: PicoUsd, list: &Charge) -> Option<Charge> {
    let whole = list.total().pico();
    let mut split = Charge::default();
    let mut remainders = [(0, TokenClass::Fee); TokenClass::ALL.len()];
    for (slot, class) in remainders.iter_mut().zip(TokenClass::ALL) {
        let exact = amount.pico().checked_mul(list.of(class).pico())?;
        split.add(class, PicoUsd::new(exact.checked_div(whole)?));
        *slot = (exact % whole, class);
    }
    // Sorted stably: of equal remainders, the first class's wins.
    remainders.sort_by_key(|remainder| std::cmp::Reverse(remainder.0));
    let left = amount.pico() - split.total().pico();
    for (_, class) in remainders.iter().zip(0..left).map(|(remainder, _)| remainder) {
        split.add(*class, PicoUsd::new(1));
    }
    Some(split)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::usage::Unpriced;

    fn charge(parts: &[(TokenClass, u128)]) -> Charge {
        let mut charge = Charge::default();
        for &(class, pico) in parts {
            charge.add(class, PicoUsd::new(pico));
        }
        charge
    }

    fn by_class(charge: &Charge) -> [u128; TokenClass::ALL.len()] {
        TokenClass::ALL.map(|class| charge.of(class).pico())
    }

    #[test]
    fn what_the_provider_states_is_the_cost() {
        let reported = Usage::cache_inside(Some(1), Some(1), &[]);
        let estimated = Usage::default().with_estimates(Some(1), Some(1));
        let known = Cost::Known(charge(&[(TokenClass::Input, 30)]));
        let unpriced = Cost::Unpriced(Unpriced::UnknownModel);
        let stated = Some(PicoUsd::new(40));
        for (rule, list, stated, usage, amount, provenance, list_cost) in [
            ("stated", known, stated, &reported, Some(40), Some(Provenance::Reported), Some(30)),
            ("stated, no list", unpriced, stated, &reported, Some(40), Some(Provenance::Reported), None),
            ("stated beats estimated", known, stated, &estimated, Some(40), Some(Provenance::Reported), Some(30)),
            ("by the table", known, None, &reported, Some(30), Some(Provenance::Priced), None),
            ("by the table, estimated", known, None, &estimated, Some(30), Some(Provenance::Estimated), None),
            ("unknown", unpriced, None, &reported, None, Some(Provenance::Unpriced), None),
            ("nothing to bill", Cost::Nothing, stated, &reported, Some(0), None, None),
        ] {
            let settled = settle(list, stated, Some(usage));
            assert_eq!(settled.cost.amount().map(PicoUsd::pico), amount, "{rule}");
            assert_eq!(settled.provenance, provenance, "{rule}");
            assert_eq!(settled.list_cost.map(|charge| charge.total().pico()), list_cost, "{rule}");
        }
    }

    #[test]
    fn a_stated_cost_is_split_as_the_list_is_and_adds_up() {
        let list = charge(&[(TokenClass::Input, 1), (TokenClass::Output, 1), (TokenClass::Reasoning, 1)]);
        for (rule, amount, list, expected) in [
            ("exact", 6, Some(&list), [2, 0, 0, 2, 2, 0, 0]),
            ("the largest remainders first", 7, Some(&list), [3, 0, 0, 2, 2, 0, 0]),
            ("no list", 7, None, [0, 0, 0, 0, 0, 0, 7]),
            ("a list of nothing", 7, Some(&Charge::default()), [0, 0, 0, 0, 0, 0, 7]),
            ("nothing", 0, Some(&list), [0; 7]),
            ("beyond reason", u128::MAX, Some(&charge(&[(TokenClass::Input, 2)])), [0, 0, 0, 0, 0, 0, u128::MAX]),
        ] {
            assert_eq!(by_class(&in_proportion(PicoUsd::new(amount), list)), expected, "{rule}");
        }
        let list = charge(&[(TokenClass::Input, 333), (TokenClass::CacheRead, 7), (TokenClass::Output, 991)]);
        for amount in 0..2_000 {
            assert_eq!(in_proportion(PicoUsd::new(amount), Some(&list)).total().pico(), amount);
        }
    }
}
