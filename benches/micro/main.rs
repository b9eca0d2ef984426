//! The parts of a call's way, measured by themselves.
//!
//! `cargo bench --bench micro` tells how long each takes; `cargo bench --bench micro -- key` those whose name has that in
//! it. `make instructions` counts their instructions, and holds them against what is committed.

mod chat;
mod instructions;
#[expect(dead_code, reason = "another benchmark's calls, of which some kinds are asked for here")]
#[path = "../../tests/fixture/junk.rs"]
mod junk;
mod parts;

use std::process::ExitCode;

use criterion::Criterion;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["instructions"] => return instructions::hold(),
        ["repeat", name, times] => instructions::repeat(name, times.parse()?),
        _ => time(),
    }
    Ok(ExitCode::SUCCESS)
}

fn time() {
    let mut criterion = Criterion::default().configure_from_args();
    for part in parts::PARTS {
        let mut once = (part.prepare)();
        criterion.bench_function(part.name, |bencher| bencher.iter(&mut once));
    }
    criterion.final_summary();
}
