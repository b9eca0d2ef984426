//! Fit: what weir may keep in memory, and how many connections it may take in, held to what its container and its system
//! allow. A sidecar that is killed for its memory takes
//! the app's calls with it; one that caches less does not.

use crate::config::Config;
use crate::host::Host;
use crate::units::ByteSize;

/// What a connection of the app's takes at most, in bytes: buffers of both sides and a call in progress. Measured as 30 KiB
/// with a stream on each.
const PER_CONNECTION: u64 = 32 << 10;
/// What a call takes that waits to be written down, in bytes: names, and what else there is of one.
const PER_WAITING_CALL: u64 = 1 << 10;

/// A knob whose value was too much for the memory there is.
#[derive(Debug, PartialEq, Eq)]
struct Lowered {
    knob: &'static str,
    written: String,
    now: String,
}

/// Descriptors beside those of the app's connections and of the calls on them: the operator's side, files, the store.
const OTHER_DESCRIPTORS: u64 = 128;
/// The fewest connections that are of any use, however few descriptors there are.
const FEWEST_CONNECTIONS: u64 = 16;

/// Lowers what does not fit into the memory and the descriptors that weir may use, and says so. Changes nothing where
/// those are not limited.
pub(super) fn fit(config: &mut Config) {
    if let Some(limit) = config.memory_limit.map(ByteSize::bytes).or_else(Host::memory_limit) {
        for Lowered { knob, written, now } in lower(config, limit) {
            tracing::info!(
                weir.memory_limit_bytes = limit,
                "{knob} is {now} rather than {written}: more would not fit"
            );
        }
    }
    let Some(limit) = Host::max_fds() else { return };
    if let Some(Lowered { knob, written, now }) = lower_to_descriptors(config, limit) {
        tracing::info!(
            weir.max_fds = limit,
            "{knob} is {now} rather than {written}: there are no descriptors for more"
        );
    }
}

/// A call takes two descriptors: the app's connection, and one to the provider. More connections than that would have
/// calls fail, where they could have waited.
fn lower_to_descriptors(config: &mut Config, limit: u64) -> Option<Lowered> {
    let most = (limit.saturating_sub(OTHER_DESCRIPTORS) / 2).max(FEWEST_CONNECTIONS);
    let (most, count) = (usize::try_from(most).unwrap_or(usize::MAX), &mut config.connections.max_connections);
    let (written, now) = (count.to_string(), most.to_string());
    (std::mem::replace(count, most.min(*count)) > most).then_some(Lowered {
        knob: "connections.max_connections",
        written,
        now,
    })
}

/// Each kind of memory has a part of `limit`, in hundredths. Together they leave the rest to weir itself, and to what
/// allocators need beyond what they are asked for.
fn lower(config: &mut Config, limit: u64) -> Vec<Lowered> {
    let part = |hundredths: u64| limit / 100 * hundredths;
    let mut lowered = Vec::new();
    let mut note = |knob, written, now| lowered.push(Lowered { knob, written, now });
    for (knob, size, hundredths) in [
        ("cache.max_bytes", &mut config.cache.max_bytes, 25),
        ("cache.max_entry_bytes", &mut config.cache.max_entry_bytes, 2),
        ("cache.similar.max_bytes", &mut config.cache.similar.max_bytes, 8),
        ("ledger.memory_max_bytes", &mut config.ledger.memory_max_bytes, 12),
        ("calls.max_estimate_bytes", &mut config.calls.max_estimate_bytes, 8),
        ("calls.max_request_bytes", &mut config.calls.max_request_bytes, 4),
        ("calls.max_reply_bytes", &mut config.calls.max_reply_bytes, 4),
        ("calls.max_request_bytes_in_all", &mut config.calls.max_request_bytes_in_all, 8),
        ("calls.max_reply_bytes_in_all", &mut config.calls.max_reply_bytes_in_all, 8),
    ] {
        let most = ByteSize::whole_kib(part(hundredths));
        if *size > most {
            note(knob, size.to_string(), most.to_string());
            *size = most;
        }
    }
    for (knob, count, most) in [
        ("connections.max_connections", &mut config.connections.max_connections, part(20) / PER_CONNECTION),
        ("ledger.queue", &mut config.ledger.queue, part(8) / PER_WAITING_CALL),
    ] {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if *count > most {
            note(knob, count.to_string(), most.to_string());
            *count = most;
        }
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    const MIB: u64 = 1 << 20;

    fn lowered(limit: u64) -> Vec<String> {
        let mut config = Config::load(&Sources::default()).expect("the defaults are right");
        lower(&mut config, limit).iter().map(|it| format!("{}: {} → {}", it.knob, it.written, it.now)).collect()
    }

    #[test]
    fn what_does_not_fit_is_lowered_and_named() {
        assert_eq!(
            lowered(128 * MIB),
            [
                "cache.max_bytes: 64MiB → 32767KiB",
                "cache.similar.max_bytes: 64MiB → 10485KiB",
                "ledger.memory_max_bytes: 64MiB → 15728KiB",
                "calls.max_estimate_bytes: 64MiB → 10485KiB",
                "calls.max_request_bytes: 8MiB → 5242KiB",
                "calls.max_reply_bytes: 8MiB → 5242KiB",
                "calls.max_request_bytes_in_all: 128MiB → 10485KiB",
                "calls.max_reply_bytes_in_all: 128MiB → 10485KiB",
                "connections.max_connections: 4096 → 819",
            ],
            "what a sidecar has by default"
        );
        assert_eq!(lowered(2048 * MIB), Vec::<String>::new(), "there is room for all of it");
    }

    #[test]
    fn no_more_connections_are_taken_in_than_calls_have_descriptors() {
        for (limit, expected) in
            [(1 << 20, 4096), (8320, 4096), (8318, 4095), (1024, 448), (256, 64), (64, 16), (0, 16)]
        {
            let mut config = Config::load(&Sources::default()).expect("the defaults are right");
            let lowered = lower_to_descriptors(&mut config, limit);
            assert_eq!((config.connections.max_connections, lowered.is_some()), (expected, expected < 4096), "{limit}");
        }
    }

    #[test]
    fn what_is_left_is_usable_however_little_there_is() {
        let mut config = Config::load(&Sources::default()).expect("the defaults are right");
        lower(&mut config, 32 * MIB);
        assert!(config.ledger.memory_max_bytes >= crate::ledger::LEAST_BYTES);
        assert!(config.cache.max_entry_bytes <= config.cache.max_bytes);
        assert!(config.connections.max_connections >= 100, "{}", config.connections.max_connections);
    }
}
