#![no_main]

use std::fs;

use weir::price::{PriceError, Prices, Settings};

// As `weir prices check` reads a file: it is a table, or its mistakes are named.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("weir-fuzz-{}.json", std::process::id()));
    fs::write(&path, data).expect("the file can be written");
    match Prices::load(&Settings { overlay: Some(path) }, Vec::new()) {
        Ok(prices) => drop((prices.overlay_size(), prices.remarks())),
        Err(PriceError::Mistaken { mistakes, .. }) => {
            assert!(!mistakes.is_empty() && mistakes.iter().all(|it| !it.field.is_empty() && !it.problem.is_empty()));
        }
        Err(PriceError::Unreadable { .. }) => assert!(std::str::from_utf8(data).is_err(), "all text can be read"),
        Err(error @ PriceError::Unlisted { .. }) => unreachable!("nobody is to be billed: {error}"),
    }
});
