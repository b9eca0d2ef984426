//! What the tests stand on: a real weir on port 0, a scripted provider, and a plain client.

pub(crate) mod client;
#[cfg(feature = "otlp")]
pub(crate) mod collector;
#[cfg(feature = "ledger")]
pub(crate) mod disk;
pub(crate) mod fake;
pub(crate) mod process;
#[path = "../../fixture/random.rs"]
pub(crate) mod random;
pub(crate) mod raw;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod socket;
pub(crate) mod tls;
#[cfg(feature = "ledger")]
pub(crate) mod toxic;
pub(crate) mod weir;

use std::path::PathBuf;

/// The folder of wire fixtures.
pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Waits until `holds`, which something in another task is about to make true. Fails after ten seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
