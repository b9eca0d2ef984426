//! Memory is bounded, and not only by weir's own count of it: what the process takes, by the system's word, while a
//! million answers pass through the cache, or as many runs of agent loops as anybody likes. Each measure is taken in a
//! process of its own, so that nothing else is in it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;
use weir::cache::policy::Preferences;
use weir::cache::{About, Cache, EvictionPolicy, Reply, Reusable, Settings, kept_headers};
use weir::labels::Limiter;
use weir::record::ReplyFacts;
use weir::record::call::{Caller, Operation};
use weir::record::usage::Usage;
use weir::runs::{self, Runs};
use weir::units::ByteSize;

const LARGEST: u64 = 16 << 10;
const MAX_BYTES: u64 = 64 << 20;
/// Set in the process that measures.
const MEASURES: &str = "WEIR_TEST_MEASURES";

#[test]
fn a_million_answers_pass_through_64_mib() {
    in_a_process_of_its_own("a_million_answers_pass_through_64_mib", &[], || {
        measure(EvictionPolicy::TinyLfu, 1_000_000);
    });
}

/// By `lru` each new answer displaces another, wherever that came from: with an arena for each thread, what one thread
/// gives back is not there for the others. See docs/cache.md.
#[test]
fn each_answer_displaces_another_within_64_mib() {
    in_a_process_of_its_own("each_answer_displaces_another_within_64_mib", &[("MALLOC_ARENA_MAX", "1")], || {
        measure(EvictionPolicy::Lru, 200_000);
    });
}

/// Each run of an agent loop is of constant size, and there are as many as are allowed, however many come and go.
#[test]
fn ten_thousand_runs_take_eight_mib() {
    in_a_process_of_its_own("ten_thousand_runs_take_eight_mib", &[], || {
        let Some(before) = resident_bytes() else {
            return report("skipped: what a process takes is read from /proc/self/statm, which only Linux has");
        };
        let settings = runs::Settings::default();
        let runs = Runs::new(&settings, Arc::new(Limiter::new(20)), Box::new(|_| {}));
        let now = Instant::now();
        for number in 0..50_000 {
            let caller = Caller { run: Some(format!("run-{number}").into()), ..Caller::default() };
            assert!(runs.enter(&caller, Operation::Chat, now).is_some());
        }
        let most = resident_bytes().unwrap_or_default().saturating_sub(before);
        report(&format!("{} runs of 50,000: {most} bytes", runs.len()));
        assert!((9_000..=settings.max_runs).contains(&runs.len()), "{}", runs.len());
        assert!(most <= 8 << 20, "{most} bytes");
    });
}

fn in_a_process_of_its_own(test: &str, variables: &[(&str, &str)], measure: impl Fn()) {
    if std::env::var_os(MEASURES).is_some() {
        return measure();
    }
    let this = std::env::current_exe().expect("a test has a file");
    let mut other = Command::new(this);
    other.args([test, "--exact", "--nocapture"]).env(MEASURES, "1").envs(variables.iter().copied());
    assert!(other.status().expect("it can be run again").success(), "{test}");
}

fn measure(eviction: EvictionPolicy, answers: u64) {
    let Some(before) = resident_bytes() else {
        return report("skipped: what a process takes is read from /proc/self/statm, which only Linux has");
    };
    let settings = Settings { max_bytes: ByteSize::mib(64), max_entries: answers, eviction, ..Settings::default() };
    let cache = Cache::new(&settings, Box::new(|_| {}));
    let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let sample = || most.fetch_max(resident_bytes().unwrap_or_default().saturating_sub(before), Ordering::Relaxed);
    let write = |writer| {
        for number in (writer..answers).step_by(2) {
            cache.store(question(&cache, number), answer(size(number)), Instant::now());
        }
    };
    thread::scope(|scope| {
        // As many threads as serve on a small machine.
        let writers = [0, 1].map(|writer| {
            scope.spawn({
                let write = &write;
                move || write(writer)
            })
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                sample();
                thread::sleep(Duration::from_millis(1));
            }
        });
        for writer in writers {
            writer.join().expect("a writer does not panic");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    sample();
    let (now, most) = (cache.occupancy(), most.load(Ordering::Relaxed));
    report(&format!("{eviction:?}: {now:?}, {most} bytes at most: {} % of MAX_BYTES", most * 100 / MAX_BYTES));
    assert!(now.bytes <= MAX_BYTES && now.bytes > MAX_BYTES / 2 && now.entries <= answers, "{now:?}");
    assert!(most <= MAX_BYTES / 100 * 110, "{eviction:?}: {most} bytes");
}

fn question(cache: &Cache, number: u64) -> Reusable {
    let about = About { provider: "openai".into(), model: Some("gpt-5-mini".into()), namespace: None };
    let terms = cache.terms(&about, &Preferences::default(), true).expect("all is cached");
    Reusable {
        key: format!("{number:064x}").parse().expect("64 digits"),
        about,
        asked: cache.rules().asked(),
        terms,
        forms: None,
        similar: None,
    }
}

/// As the corridor makes one.
fn answer(bytes: usize) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let facts = ReplyFacts {
        model: Some("gpt-5-mini-2025-08-07".into()),
        id: Some("chatcmpl-ABCDEFGHIJKLMNOPQRSTUVWXYZabc".into()),
        service_tier: Some("default".into()),
        finish_reasons: vec!["stop".into()],
        ..ReplyFacts::default()
    };
    Reply {
        status: StatusCode::OK,
        headers: kept_headers(&headers),
        body: Bytes::from(vec![b'x'; bytes]),
        facts,
        usage: Arc::new(OnceLock::from(Usage::cache_inside(Some(100), Some(20), &[]))),
        provider_cost: None,
        origin: None,
        pace: None,
    }
}

/// A size for each number, as good as drawn by chance: `SplitMix64`.
fn size(number: u64) -> usize {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((mixed ^ (mixed >> 31)) % (LARGEST + 1)).expect("a small number")
}

/// What the process takes of the machine's memory.
fn resident_bytes() -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

#[expect(clippy::print_stderr, reason = "a measurement says what it measured")]
fn report(text: &str) {
    eprintln!("{text}");
}
