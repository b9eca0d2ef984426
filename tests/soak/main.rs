//! Soak: whatever may happen to weir happens to it at once, for minutes. Then nothing may have grown, and the simulator, the
//! metrics and the ledger must say the same, to the token and the pico-dollar.
//!
//! `make soak MINUTES=30`. Without `SOAK_MINUTES` it is a third of a minute, so that it stays alive; that is too short to
//! tell what grows. docs/soak.md says what goes on, what is compared, and how what has grown is judged.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod books;
#[path = "../it/support/client.rs"]
#[expect(dead_code, reason = "the soak makes its calls itself")]
mod client;
mod growth;
mod house;
#[path = "../it/support/process.rs"]
#[expect(dead_code, reason = "weir is only started, told to read its configuration, and stopped")]
mod process;
#[path = "../it/support/redis.rs"]
#[expect(dead_code, reason = "only some of what may happen to Redis happens")]
mod redis;
mod traffic;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::RwLock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use growth::Samples;
use house::{House, HungUp};
use traffic::Traffic;
use trouble::Trouble;

/// How long it lasts when nobody says.
const SHORT: Duration = Duration::from_secs(20);
/// What grows cannot be told in less.
const JUDGED_FROM: Duration = Duration::from_mins(5);
/// Calls a second, when nobody says. An unoptimized weir shares the machine with other tests.
const RATE: u32 = if cfg!(debug_assertions) { 40 } else { 150 };

/// Waits until `holds`, which something in another task is about to make true. Fails after half a minute.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the environment says, if it says anything.
fn told<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}: write a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "whoever waited for half an hour wants to see what came of it")]
async fn nothing_grows_and_all_books_are_equal() {
    let length = told("SOAK_MINUTES").map_or(SHORT, |minutes: f64| Duration::from_secs_f64(minutes * 60.0));
    let house = Arc::new(House::open().await);
    println!("for {} s: {house}", length.as_secs());

    let (stop, begun) = (CancellationToken::new(), Instant::now());
    let hung_up = Arc::new(RwLock::new(HungUp::Drained));
    let traffic = Traffic::begin(&house, &hung_up, told("SOAK_RATE").unwrap_or(RATE), stop.clone());
    let trouble = Trouble::begin(&house, &hung_up, length, &stop);
    let samples = Samples::take(&house, length).await;
    stop.cancel();
    let (made, met) = (traffic.end().await, trouble.end().await);
    println!("{samples}\n{met}\n{made}");

    let books = house.settled(&made, begun).await;
    println!("{books}");
    let mut faults = books.faults();
    faults.extend(made.faults());
    faults.extend(met.faults());
    if length >= JUDGED_FROM {
        let grown = samples.grown();
        println!("{grown}");
        faults.extend(grown.faults());
    } else {
        println!("too short to tell whether anything grows: that takes {} minutes", JUDGED_FROM.as_secs() / 60);
    }
    let house = Arc::into_inner(house).expect("everybody else is done");
    house.close().await;
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    println!("no fault");
}
