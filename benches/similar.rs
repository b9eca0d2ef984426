//! What a search among similar requests costs: nanoseconds for one vector of 1,536 numbers, and milliseconds for all.
//!
//! Run by `cargo bench --bench similar`. The best of several searches counts: what is slower had other company.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::hint::black_box;
use std::time::Duration;

use tokio::time::Instant;
use weir::cache::key::Key;
use weir::cache::similar::{Direction, Settings, Similar, Sought};
use weir::cache::wording::Wording;
use weir::units::{ByteSize, Share};

const DIMENSIONS: usize = 1536;
const SEARCHES: usize = 20;

fn main() {
    for count in [100, 1_000, 10_000] {
        let similar = Similar::new(&Settings { max_bytes: ByteSize::mib(128), ..Settings::default() });
        let sought = Sought { context: key(0), wording: Wording::of("a"), text: "a".into(), direction: None };
        for number in 0..count {
            similar.insert(&sought, direction(number), key(number));
        }
        let candidates = similar.candidates(&sought).expect("texts of this context");
        let asked = direction(count);
        let best = (0..SEARCHES).map(|_| {
            let started = Instant::now();
            black_box(candidates.near(black_box(&asked), Share::percent(95)));
            started.elapsed()
        });
        let best = best.min().unwrap_or(Duration::ZERO);
        println!(
            "{count:>6} vectors: {:>4} ns each, {:.2} ms",
            best.as_nanos() / u128::from(count),
            best.as_secs_f64() * 1e3
        );
    }
}

fn key(number: u32) -> Key {
    format!("{number:064x}").parse().expect("64 digits")
}

/// A vector that looks like any other.
fn direction(seed: u32) -> Direction {
    let mut state = u64::from(seed) << 20 | 1;
    let vector: Vec<f32> = (0..DIMENSIONS)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from(u16::try_from(state >> 48).unwrap_or_default()) - 32_768.0
        })
        .collect();
    Direction::of(&vector).expect("a direction")
}
