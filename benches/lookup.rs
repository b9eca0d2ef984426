//! What a look-up costs before anything is sent: reading a request's body, its key, and finding an answer in memory.
//!
//! Run by `make bench`. Times differ from machine to machine: compare them with bare SHA-256 and with parsing, which are
//! measured over the same bytes in the same run. Each is the best of several rounds, but for look-ups, of which every
//! one counts.

#[path = "micro/chat.rs"]
mod chat;

use std::hint::black_box;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use weir::cache::{Cache, Lookup, Settings};

/// Sizes of bodies, in KB.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];
/// Rounds of each measurement, and how many bytes each goes through.
const ROUNDS: usize = 15;
const BYTES_PER_ROUND: usize = 8 << 20;

/// The size of a request that is looked up, in KB.
const LOOKED_UP: usize = 4;
/// How many answers are stored, and how many look-ups are measured.
const STORED: usize = 10_000;
const LOOK_UPS: usize = 100_000;

#[expect(clippy::print_stdout, reason = "the tables are what this program is for")]
fn main() {
    println!("        body   SHA-256     parse       key   parse + key           ÷ SHA-256   ÷ parse");
    for size in SIZES {
        println!("{}", row(size));
    }
    println!("\n{}", look_ups());
}

fn row(size: usize) -> String {
    let text = chat::body(size, "Be brief.");
    let text = text.as_str();
    let tree = chat::parsed(text);
    let hash = fastest(text.len(), || Sha256::digest(black_box(text)));
    let parsed = fastest(text.len(), || chat::parsed(black_box(text)));
    let keyed = fastest(text.len(), || chat::key(black_box(text), &tree));
    let [hash, parsed, keyed] = [hash, parsed, keyed].map(|time| time.as_secs_f64() * 1e9 / kib(text.len()));
    let sum = parsed + keyed;
    let speed = 1024.0 * 1e3 / sum;
    format!(
        "{size:>9} KB {hash:>9.0} {parsed:>9.0} {keyed:>9.0} {sum:>7.0} ns/KB {speed:>5.0} MB/s {:>9.2} {:>9.2}",
        sum / hash,
        sum / parsed
    )
}

/// What one of a round's runs took, in the best of the rounds.
fn fastest<T>(bytes: usize, mut run: impl FnMut() -> T) -> Duration {
    let runs = u32::try_from(BYTES_PER_ROUND / bytes).expect("a few thousand");
    let round = |_| {
        let begun = Instant::now();
        (0..runs).for_each(|_| drop(black_box(run())));
        begun.elapsed() / runs
    };
    (0..ROUNDS).map(round).min().expect("there are rounds")
}

/// Requests whose answers are stored, in an order that is no order, from bytes to answer.
fn look_ups() -> String {
    let settings = Settings { max_entries: 2 * STORED as u64, ..Settings::default() };
    let cache = Cache::new(&settings, Box::new(|_| {}));
    // No two are alike.
    let body = |number| chat::body(LOOKED_UP, &format!("Be brief: {number}."));
    let question = |body: &str| chat::reusable(&cache, chat::key(body, &chat::parsed(body)));
    let bodies: Vec<String> = (0..STORED).map(body).collect();
    for body in &bodies {
        cache.store(question(body), chat::reply(), Instant::now());
    }
    let (mut whole, mut alone) = (Vec::with_capacity(LOOK_UPS), Vec::with_capacity(LOOK_UPS));
    for number in 0..LOOK_UPS {
        let body = &bodies[number * 7919 % STORED];
        let begun = Instant::now();
        let question = question(body);
        let asked = Instant::now();
        let found = cache.look_up(&question, asked);
        let done = Instant::now();
        assert!(matches!(found, Lookup::Usable(_)), "what was stored is found");
        whole.push(done - begun);
        alone.push(done - asked);
    }
    [
        line(&format!("{LOOKED_UP} KB: parse, key and look-up"), whole),
        line("look-up alone", alone),
        format!("({STORED} answers stored, {LOOK_UPS} look-ups)"),
    ]
    .join("\n")
}

fn line(name: &str, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let [p50, p99] = [50, 99].map(|share| times[times.len() * share / 100].as_secs_f64() * 1e6);
    format!("{name:<32} p50 {p50:>6.1} µs   p99 {p99:>6.1} µs")
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}
