//! Money: dollars that only grow, added up in whole pico-dollars. A float is made of the sum where it is written, so that
//! no sum drifts from what its calls came to. Knows no label and no record.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{CounterValueEncoder, EncodeCounterValue};
use prometheus_client::metrics::counter::{Atomic, Counter};

use crate::units::PicoUsd;

/// US dollars that only grow.
pub(super) type Amount = Counter<PicoUsd, Pico>;

/// Whole pico-dollars. There is room for 18 million dollars, far more than one process spends; after that it begins anew,
/// which to Prometheus is what a restart is.
#[derive(Debug, Default)]
pub(super) struct Pico(AtomicU64);

impl Atomic<PicoUsd> for Pico {
    /// By a dollar: that is the unit.
    fn inc(&self) -> PicoUsd {
        self.inc_by(PicoUsd::new(PicoUsd::PER_USD))
    }

    fn inc_by(&self, amount: PicoUsd) -> PicoUsd {
        let amount = u64::try_from(amount.pico()).unwrap_or(u64::MAX);
        PicoUsd::new(self.0.fetch_add(amount, Ordering::Relaxed).into())
    }

    fn get(&self) -> PicoUsd {
        PicoUsd::new(self.0.load(Ordering::Relaxed).into())
    }
}

impl EncodeCounterValue for PicoUsd {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        self.to_usd_f64().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_sum_is_what_its_parts_come_to_to_the_pico_dollar() {
        let spent = Amount::default();
        let mut registry = Registry::default();
        registry.register("spent", "Spent", spent.clone());
        let mut exact = PicoUsd::ZERO;
        // Tenths of cents and odd pico-dollars: as floats they would have drifted after some hundreds.
        for call in 0..100_000 {
            let amount = PicoUsd::new(1_000_000_000 + call % 7);
            spent.inc_by(amount);
            exact += amount;
        }
        assert_eq!(spent.get(), exact);
        let mut text = String::new();
        encode(&mut text, &registry).expect("memory takes every byte");
        let written = text.lines().find_map(|line| line.strip_prefix("spent_total ")).expect("a sample");
        assert_eq!(PicoUsd::of_usd(written), Some(exact), "{written}");
        assert_eq!(exact.to_string(), "100.000000299995");
    }

    #[test]
    fn a_dollar_is_the_unit() {
        let spent = Amount::default();
        assert_eq!(spent.inc(), PicoUsd::ZERO);
        assert_eq!(spent.get().to_string(), "1");
    }
}
