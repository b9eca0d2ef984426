//! Cost: counters × rates, to the pico-dollar. Every counted unit is billed once, at the most exact rate there is.
//!
//! Knows no models.

use std::num::NonZeroU32;

use crate::price::file::ONE;
use crate::record::usage::{Charge, Counter, TokenClass, Usage};
use crate::units::PicoUsd;

/// Something for every counter, indexed by it.
pub(super) type PerCounter<T> = [T; Counter::ALL.len()];

/// A rate of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rate {
    /// What it is the rate of.
    pub(super) counter: Counter,
    /// It applies to calls with more input tokens than this, cached ones included; without it, to all.
    pub(super) above: Option<NonZeroU32>,
    /// Pico-dollars for [`per`] of the counter's units.
    pub(super) pico: u64,
}

/// How many of a counter's units its rate buys.
pub(super) const fn per(counter: Counter) -> u64 {
    match counter {
        Counter::InputTextMessages
        | Counter::InputDocumentPages
        | Counter::InputAnnotatedDocumentPages
        | Counter::WebSearches
        | Counter::StorageSearches
        | Counter::Requests => 1000,
        Counter::AudioSeconds | Counter::InputAudioSeconds => 3600,
        _ => 1_000_000,
    }
}

/// The rate of each counter for a call of so many input tokens. `rates` are sorted by threshold: above one, its rate
/// applies to every unit of the call, not only to those beyond.
pub(super) fn in_force(rates: &[Rate], input_tokens: u64) -> PerCounter<Option<u64>> {
    let mut chosen = [None; Counter::ALL.len()];
    for rate in rates.iter().filter(|rate| rate.above.is_none_or(|above| input_tokens > u64::from(above.get()))) {
        chosen[rate.counter as usize] = Some(rate.pico);
    }
    chosen
}

/// What is billed: the counters of `usage`, one request, and no fewer than `min_audio_seconds` if there was audio.
pub(super) fn counts(usage: &Usage, min_audio_seconds: u64) -> PerCounter<u64> {
    let mut counts = [0; Counter::ALL.len()];
    for &counter in Counter::ALL {
        counts[counter as usize] = usage.get(counter).unwrap_or(0);
    }
    counts[Counter::Requests as usize] = 1;
    let (audio, input_audio) = (Counter::AudioSeconds as usize, Counter::InputAudioSeconds as usize);
    let seconds = if counts[audio] > 0 { counts[audio] } else { counts[input_audio] };
    if seconds > 0 && min_audio_seconds > 0 {
        counts[audio] = seconds.max(min_audio_seconds);
        counts[input_audio] = counts[audio];
    }
    counts
}

/// The bill of each counter that has a rate, for the share that no rated counter inside it covers. A part larger than
/// its whole leaves nothing of the whole, and never less than nothing.
pub(super) fn bill(rates: &PerCounter<Option<u64>>, counts: &PerCounter<u64>) -> PerCounter<PicoUsd> {
    let own = leaves(rates, counts);
    let mut bill = [PicoUsd::ZERO; Counter::ALL.len()];
    for &counter in Counter::ALL {
        if let Some(rate) = rates[counter as usize] {
            bill[counter as usize] = PicoUsd::new(amount(rate, own[counter as usize], counter));
        }
    }
    bill
}

/// Whether `usage` counts anything that these rates are for; a fee for each call is for any. A model without any rate
/// costs nothing, whatever it counts.
pub(super) fn is_measured(rates: &PerCounter<Option<u64>>, usage: &Usage) -> bool {
    let is_rated = |counter: &Counter| rates[*counter as usize].is_some();
    let costs_by_call = is_rated(&Counter::Requests);
    let is_paid_for = |(counter, _): (Counter, u64)| is_rated(&counter) || counter.within().iter().any(is_rated);
    costs_by_call || rates.iter().all(Option::is_none) || usage.leaves().any(is_paid_for)
}

/// The bill by class. What has no rate of its own is part of the bill of the nearest counter that contains it: its
/// share is charged to its own class (reasoning, billed as output, is charged as reasoning). The total stays the bill's.
pub(super) fn charge(rates: &PerCounter<Option<u64>>, bill: &PerCounter<PicoUsd>, usage: &Usage) -> Charge {
    let mut rest = bill.map(PicoUsd::pico);
    let mut charge = Charge::default();
    for (counter, count) in usage.leaves() {
        if rates[counter as usize].is_some() || counter.class() == TokenClass::Fee {
            continue;
        }
        let nearest = counter.within().iter().rev().find_map(|&it| rates[it as usize].map(|rate| (it, rate)));
        if let Some((container, rate)) = nearest {
            let share = amount(rate, count, container).min(rest[container as usize]);
            rest[container as usize] -= share;
            charge.add(counter.class(), PicoUsd::new(share));
        }
    }
    for &counter in Counter::ALL.iter().filter(|counter| rest[**counter as usize] > 0) {
        charge.add(counter.class(), PicoUsd::new(rest[counter as usize]));
    }
    charge
}

/// Of each counter the share that no rated counter inside it covers.
pub(super) fn leaves(rates: &PerCounter<Option<u64>>, counts: &PerCounter<u64>) -> PerCounter<u64> {
    let mut rest = *counts;
    for &counter in Counter::ALL.iter().rev().filter(|counter| rates[**counter as usize].is_some()) {
        for &container in counter.within() {
            rest[container as usize] = rest[container as usize].saturating_sub(rest[counter as usize]);
        }
    }
    rest
}

/// `rate` times `factor` trillionths, to the pico-dollar.
pub(super) fn scaled(rate: u64, factor: u64) -> u64 {
    u64::try_from(rounded(u128::from(rate) * u128::from(factor), u128::from(ONE))).unwrap_or(u64::MAX)
}

/// `count` units at `rate`, to the pico-dollar.
fn amount(rate: u64, count: u64, counter: Counter) -> u128 {
    rounded(u128::from(rate) * u128::from(count), u128::from(per(counter)))
}

/// A quotient, rounded half to even.
fn rounded(exact: u128, by: u128) -> u128 {
    // Few amounts take more than 64 bits, which is all that a processor divides at once.
    let (whole, rest) = match (u64::try_from(exact), u64::try_from(by)) {
        (Ok(exact), Ok(by)) => ((exact / by).into(), (exact % by).into()),
        _ => (exact / by, exact % by),
    };
    let up = rest * 2 > by || (rest * 2 == by && whole % 2 == 1);
    whole + u128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(list: &[(Counter, u64)]) -> PerCounter<Option<u64>> {
        let list: Vec<_> = list.iter().map(|&(counter, pico)| Rate { counter, above: None, pico }).collect();
        in_force(&list, 0)
    }

    fn charged(rates: &PerCounter<Option<u64>>, usage: &Usage) -> Charge {
        charge(rates, &bill(rates, &counts(usage, 0)), usage)
    }

    #[test]
    fn halves_are_rounded_to_even() {
        for (count, expected) in [(1, 0), (3, 2), (5, 2), (7, 4), (2, 1), (0, 0)] {
            assert_eq!(amount(500_000, count, Counter::InputTokens), expected, "{count} × ½");
        }
        assert_eq!(amount(500_001, 1, Counter::InputTokens), 1);
        assert_eq!(
            amount(u64::MAX, u64::MAX, Counter::Requests) / 1_000_000,
            u128::from(u64::MAX).pow(2) / 1_000_000_000
        );
    }

    #[test]
    fn a_factor_keeps_every_decimal_a_rate_can_have() {
        let tenth_more = ONE / 10 * 11;
        for (rate, expected) in [(4_000_000_000_000, 4_400_000_000_000), (10, 11), (5, 6), (15, 16), (25, 28), (0, 0)] {
            assert_eq!(scaled(rate, tenth_more), expected, "{rate} × 1.1");
        }
        assert_eq!(scaled(u64::MAX, 10 * ONE), u64::MAX, "and ends where numbers end");
    }

    #[test]
    fn above_a_threshold_every_token_costs_the_higher_rate() {
        let tier = |above, pico| Rate { counter: Counter::InputTokens, above: NonZeroU32::new(above), pico };
        let list = [tier(0, 1), tier(100, 2), tier(200, 3)];
        for (input, rate) in [(0, 1), (100, 1), (101, 2), (200, 2), (201, 3), (u64::MAX, 3)] {
            assert_eq!(in_force(&list, input)[Counter::InputTokens as usize], Some(rate), "{input} tokens");
        }
    }

    #[test]
    fn a_part_without_a_rate_is_billed_in_its_container_and_charged_to_its_own_class() {
        let rates = rates(&[(Counter::InputTokens, 2_000_000), (Counter::OutputTokens, 10_000_000)]);
        let parts = [(Counter::CacheReadTokens, Some(40)), (Counter::OutputReasoningTokens, Some(25))];
        let charge = charged(&rates, &Usage::cache_inside(Some(100), Some(30), &parts));
        let classes = TokenClass::ALL.map(|class| charge.of(class).pico());
        assert_eq!(classes, [120, 80, 0, 50, 250, 0, 0]);
        assert_eq!(charge.total(), PicoUsd::new(500));
    }

    #[test]
    fn rounding_never_makes_the_classes_differ_from_the_total() {
        for rate in [1, 333_333, 500_000, 999_999, 1_500_001] {
            let rates = rates(&[(Counter::InputTokens, rate), (Counter::OutputTokens, rate)]);
            for part in 0..=7 {
                let parts = [(Counter::CacheReadTokens, Some(part)), (Counter::OutputReasoningTokens, Some(part))];
                let usage = Usage::cache_inside(Some(7), Some(7), &parts);
                let total: PicoUsd = bill(&rates, &counts(&usage, 0)).into_iter().sum();
                assert_eq!(charged(&rates, &usage).total(), total, "rate {rate}, part {part}");
            }
        }
    }

    #[test]
    fn a_part_larger_than_its_whole_never_costs_less_than_nothing() {
        let rates = rates(&[(Counter::InputTokens, 5_000_000), (Counter::CacheReadTokens, 1_000_000)]);
        let usage = Usage::cache_inside(Some(10), None, &[(Counter::CacheReadTokens, Some(50))]);
        assert_eq!(charged(&rates, &usage).total(), PicoUsd::new(50));
    }

    #[test]
    fn short_audio_is_billed_by_the_minimum_and_none_by_nothing() {
        let seconds = |reported| {
            let usage = Usage::cache_inside(None, None, &[(Counter::InputAudioSeconds, reported)]);
            counts(&usage, 10)[Counter::AudioSeconds as usize]
        };
        assert_eq!(
            [seconds(Some(3)), seconds(Some(10)), seconds(Some(90)), seconds(Some(0)), seconds(None)],
            [10, 10, 90, 0, 0]
        );
    }
}
