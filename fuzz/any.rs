//! Any target: `FUZZ_TARGET` names which of [`weir_fuzz::TARGETS`] gets what libFuzzer makes.
//!
//! One binary for all of them: weir is in it once, not forty times at a quarter of a gigabyte each.

#![no_main]

use std::env;
use std::sync::LazyLock;

use weir_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = found else {
        let known: Vec<&str> = TARGETS.iter().map(|(known, _)| *known).collect();
        panic!("FUZZ_TARGET is \"{name}\"; it names one of {}", known.join(", "));
    };
    *target
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
