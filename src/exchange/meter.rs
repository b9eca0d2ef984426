//! Meter: what a stream uses while it runs, for the budgets that end it.
//!
//! Goes by the length of what was generated, at the price of its call; looks every so often, so that it costs nothing.
//! Knows no bytes: it is told how many there are, and says when it is enough.

use std::sync::Arc;
use std::time::SystemTime;

use crate::exchange::admission::Size;
use crate::exchange::entry::Entry;
use crate::exchange::{Destination, Rooms, bill};
use crate::limits::budget::Amount;
use crate::limits::running::Running;
use crate::provider::Said;
use crate::provider::stop::UsedSoFar;
use crate::record::call::Delivery;
use crate::record::usage::Usage;
use crate::tokens;
use crate::units::PicoUsd;

/// How much is generated between two looks, in bytes: about a hundred tokens.
const STEP_BYTES: u64 = 400;

/// How many tokens the price of one is told from: enough for it to be a whole number.
const TOKENS: u64 = 1000;

/// What one stream uses.
#[derive(Debug)]
pub(super) struct Meter {
    running: Running,
    input: u64,
    /// What its prompt costs.
    prompt_usd: PicoUsd,
    /// What [`TOKENS`] generated cost.
    output_usd: PicoUsd,
    /// How many bytes have to be generated before the next look.
    next_bytes: u64,
}

/// That a stream is to end here.
#[derive(Debug)]
pub(super) struct Enough {
    /// The budget that is used up.
    pub(super) budget: Arc<str>,
    pub(super) used: UsedSoFar,
}

impl Meter {
    /// For a call of this size that may go; `None` if it does not stream, or no budget may end it.
    pub(super) fn of(rooms: &Rooms, to: &Destination, entry: &Entry, size: Size) -> Option<Self> {
        let running = entry.running().filter(|_| entry.call().delivery == Delivery::Stream)?;
        let input = size.input.unwrap_or_default();
        // What cannot be priced counts as what was reserved for it, no more.
        let usd = |output| {
            let usage = Usage::default().with_estimates(Some(input), Some(output));
            let said = Said { usage: Some(usage), ..Said::default() };
            bill::price(&rooms.prices, to, entry.call(), &said, SystemTime::now())
                .cost
                .amount()
                .unwrap_or(PicoUsd::ZERO)
        };
        let prompt_usd = usd(0);
        let output_usd = PicoUsd::new(usd(TOKENS).pico().saturating_sub(prompt_usd.pico()));
        Some(Self { running, input, prompt_usd, output_usd, next_bytes: 1 })
    }

    /// What it had told, now that the call is over.
    pub(super) fn into_running(self) -> Running {
        self.running
    }

    /// So many bytes were generated so far; whether that is enough.
    pub(super) fn generated(&mut self, bytes: u64) -> Option<Enough> {
        if bytes < self.next_bytes {
            return None;
        }
        self.next_bytes = bytes + STEP_BYTES;
        let output = tokens::by_length(bytes);
        let output_usd = self.output_usd.pico().saturating_mul(output.into()) / u128::from(TOKENS);
        let so_far = Amount {
            usd: PicoUsd::new(self.prompt_usd.pico().saturating_add(output_usd)),
            tokens: self.input.saturating_add(output),
        };
        let budget = self.running.used(so_far)?;
        Some(Enough { budget, used: UsedSoFar { input: self.input, output } })
    }
}
