#![no_main]

use weir::exchange::form::fields;

// The first line is the boundary.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (boundary, body) = data.split_at(end);
    let Ok(boundary) = std::str::from_utf8(boundary) else { return };
    let found: Vec<_> = fields(body, boundary).collect();
    assert!(found.len() <= 64 && found.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() <= body.len());
});
