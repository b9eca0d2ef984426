//! What a look-up costs before anything is sent: reading a request's body, its key, and finding an answer in memory.
//!
//! Run by `make bench`. Times differ from machine to machine: compare them with bare SHA-256 and with parsing, which are
//! measured over the same bytes in the same run. Each is the best of several rounds, but for look-ups, of which every
//! one counts.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json_borrow::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use weir::cache::key::{Key, Question};
use weir::cache::policy::Preferences;
use weir::cache::{About, Cache, Lookup, Reply, Reusable, Settings};
use weir::provider::endpoint::Endpoint;
use weir::provider::{Request, Reuse};
use weir::record::ReplyFacts;

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
    let text = body(size, 0);
    let text = text.as_bytes();
    let tree = parse(text);
    let hash = fastest(text.len(), || Sha256::digest(black_box(text)));
    let parsed = fastest(text.len(), || parse(black_box(text)));
    let keyed = fastest(text.len(), || key(black_box(text), &tree));
    let [hash, parsed, keyed] = [hash, parsed, keyed].map(|time| time.as_secs_f64() * 1e9 / kib(text.len()));
    let sum = parsed + keyed;
    let speed = 1024.0 * 1e3 / sum;
    format!(
        "{size:>9} KB {hash:>9.0} {parsed:>9.0} {keyed:>9.0} {sum:>7.0} ns/KB {speed:>5.0} MB/s {:>9.2} {:>9.2}",
        sum / hash,
        sum / parsed
    )
}

/// A chat of about `size` KB, of which no two numbers are alike.
fn body(size: usize, number: usize) -> String {
    const TURN: &str = "Tell me of rivers,\\nof mountains and of \\u201cthe sea\\u201d, as they were. ";
    let mut body = format!(
        r#"{{"model":"gpt-5-mini","temperature":0.7,"max_tokens":256,"messages":[{{"role":"system","content":"Be brief: {number}."}}"#
    );
    let roles = ["user", "assistant"].iter().cycle();
    for role in roles {
        let turn = TURN.repeat(6);
        let message = format!(r#",{{"role":"{role}","content":[{{"type":"text","text":"{turn}"}}]}}"#);
        if body.len() + message.len() > size << 10 {
            break;
        }
        body.push_str(&message);
    }
    body.push_str("]}");
    body
}

fn parse(text: &[u8]) -> Value<'_> {
    serde_json::from_slice(text).expect("a body is JSON")
}

fn key(text: &[u8], body: &Value<'_>) -> Key {
    let request = Request { endpoint: Endpoint::ChatCompletions, path: "/v1/chat/completions", query: None, body };
    let Reuse::Allowed(ignored) = (request.endpoint.format().asked)(&request).reuse else {
        unreachable!("such a chat may be cached")
    };
    Key::of(&Question {
        namespace: Some("team"),
        provider: "openai",
        target: &[b"https", b"api.openai.com", b"/v1/chat/completions", b""],
        credentials: &[(b"authorization", b"Bearer sk-0123456789012345678901234567890123456789")],
        headers: &[(b"accept-encoding", b"gzip, deflate")],
        text,
        body,
        ignored,
    })
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
    let bodies: Vec<String> = (0..STORED).map(|number| body(LOOKED_UP, number)).collect();
    for body in &bodies {
        cache.store(question(&cache, body.as_bytes()), reply(), Instant::now());
    }
    let (mut whole, mut alone) = (Vec::with_capacity(LOOK_UPS), Vec::with_capacity(LOOK_UPS));
    for number in 0..LOOK_UPS {
        let body = bodies[number * 7919 % STORED].as_bytes();
        let begun = Instant::now();
        let question = question(&cache, body);
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

fn question(cache: &Cache, text: &[u8]) -> Reusable {
    let key = key(text, &parse(text));
    let about = About { provider: "openai".into(), model: Some("gpt-5-mini".into()), namespace: Some("team".into()) };
    let terms = cache.terms(&about, &Preferences::of(&HeaderMap::new()), true).expect("all is cached");
    Reusable { key, about, asked: cache.rules().asked(), terms, forms: None, similar: None }
}

fn reply() -> Reply {
    Reply {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Bytes::from(vec![b' '; 600]),
        pace: None,
        facts: ReplyFacts::default(),
        usage: Arc::default(),
        provider_cost: None,
        origin: None,
    }
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
