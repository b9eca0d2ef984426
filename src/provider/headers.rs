//! Headers: what the head of a reply says beside what HTTP needs. The provider's id of the request, the time it took,
//! how long to wait, and what is left of the caller's quota; whichever provider it is.
//!
//! Every provider has its own names for the same few facts, so one table serves them all. What cannot be read is left
//! out. Knows no body.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::provider::quotas::{self, Names};
use crate::record::head::{HeadFacts, Quota, QuotaKind};

/// The longest id kept.
const MAX_ID_BYTES: usize = 128;

/// A quota that is full again later than this is not waited for: no provider counts by more than a month.
const LONGEST: Duration = Duration::from_secs(32 * 24 * 3600);

/// A number larger than this is a moment, not a length of time: seconds since 1970 were 10⁹ in 2001.
const FIRST_MOMENT: f64 = 1e9;

/// What one header says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    /// The id of the request. The first one in [`REQUEST_IDS`] counts.
    RequestId(usize),
    /// How long the call was worked on, in this unit. Those of providers win over those of proxies on the way.
    Processing(Unit),
    /// `server-timing`, where a proxy on the way may have written too.
    ServerTiming,
    /// How long to wait.
    RetryAfter(Unit),
    /// How much of a quota there is when it is full.
    Limit(QuotaKind),
    /// How much of it is left.
    Remaining(QuotaKind),
    /// When it is full again.
    Reset(QuotaKind),
}

/// The unit of a bare number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Seconds,
    Millis,
}

/// Names of the request's id, the provider's own before those of the gateways in front of it.
const REQUEST_IDS: [&str; 10] = [
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "x-generation-id",
    "x-debug-trace-id",
    "mistral-correlation-id",
    "x-ds-trace-id",
    "x-kong-request-id",
    "cf-ray",
];

/// What the reply with these headers says, by the wall clock at `now`.
#[must_use]
pub fn read(headers: &HeaderMap, now: SystemTime) -> HeadFacts {
    let mut facts = HeadFacts { came_at: Some(Instant::now()), ..HeadFacts::default() };
    let (mut id_rank, mut timing) = (usize::MAX, None);
    for (name, value) in headers {
        let Some(meaning) = meaning(name.as_str()) else { continue };
        match meaning {
            Meaning::RequestId(rank) if rank < id_rank => {
                if let Some(id) = id(value) {
                    (facts.request_id, id_rank) = (Some(id), rank);
                }
            }
            Meaning::RequestId(_) => {}
            Meaning::Processing(unit) => facts.processing = time(value, unit).or(facts.processing),
            Meaning::ServerTiming => timing = value.to_str().ok().and_then(server_timing),
            // The shorter unit is the more exact one: `retry-after-ms` and `retry-after` come together.
            Meaning::RetryAfter(Unit::Millis) => facts.retry_after = time(value, Unit::Millis).or(facts.retry_after),
            Meaning::RetryAfter(Unit::Seconds) => {
                facts.retry_after = facts.retry_after.or_else(|| until(value, now));
            }
            Meaning::Limit(kind) => quota(&mut facts, kind).limit = count(value),
            Meaning::Remaining(kind) => quota(&mut facts, kind).remaining = count(value),
            Meaning::Reset(kind) => quota(&mut facts, kind).resets_in = until(value, now).filter(|it| *it <= LONGEST),
        }
    }
    assume_windows(headers, &mut facts);
    facts.processing = facts.processing.or(timing);
    facts
}

fn meaning(name: &str) -> Option<Meaning> {
    if let Some(rank) = REQUEST_IDS.iter().position(|known| *known == name) {
        return Some(Meaning::RequestId(rank));
    }
    Some(match name {
        "openai-processing-ms" | "x-amzn-bedrock-invocation-latency" | "x-envoy-upstream-service-time" => {
            Meaning::Processing(Unit::Millis)
        }
        "fireworks-server-processing-time" | "x-compute-time" => Meaning::Processing(Unit::Seconds),
        "server-timing" => Meaning::ServerTiming,
        "retry-after" => Meaning::RetryAfter(Unit::Seconds),
        "retry-after-ms" => Meaning::RetryAfter(Unit::Millis),
        name if name.contains("ratelimit") => return quotas::known().find_map(|known| of_quota(known, name)),
        _ => return None,
    })
}

/// What a header of this name says, if it is one of these.
fn of_quota(known: &Names, name: &str) -> Option<Meaning> {
    match name {
        name if name == known.limit => Some(Meaning::Limit(known.kind)),
        name if name == known.remaining => Some(Meaning::Remaining(known.kind)),
        name if name == known.reset => Some(Meaning::Reset(known.kind)),
        _ => None,
    }
}

/// Mistral does not say when a quota is full again; its names say by what time it counts, in seconds.
static WINDOWS: [(HeaderName, QuotaKind, u64); 2] = [
    (HeaderName::from_static("x-ratelimit-limit-req-10-second"), QuotaKind::Requests, 10),
    (HeaderName::from_static("x-ratelimit-limit-tokens-minute"), QuotaKind::Tokens, 60),
];

fn assume_windows(headers: &HeaderMap, facts: &mut HeadFacts) {
    for (name, kind, window) in &WINDOWS {
        if headers.contains_key(name) {
            quota(facts, *kind).resets_in.get_or_insert(Duration::from_secs(*window));
        }
    }
}

const fn quota(facts: &mut HeadFacts, kind: QuotaKind) -> &mut Quota {
    &mut facts.quotas[kind as usize]
}

/// An id in visible ASCII, cut to a length that suits a log.
fn id(value: &HeaderValue) -> Option<Box<str>> {
    let id = value.to_str().ok()?.trim();
    (!id.is_empty()).then(|| id[..id.len().min(MAX_ID_BYTES)].into())
}

/// A whole number. Some gateways write `12.0`.
fn count(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    text.parse().ok().or_else(|| text.strip_suffix(".0")?.parse().ok())
}

/// A length of time: a bare number in this unit.
fn time(value: &HeaderValue, unit: Unit) -> Option<Duration> {
    let number: f64 = value.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(if unit == Unit::Millis { number / 1e3 } else { number }).ok()
}

/// The time from `now` to a moment, however it is written: in seconds from now (Azure, Together), as a Go duration
/// (OpenAI), as a date (RFC 3339: Anthropic; RFC 9110: `retry-after`), or in seconds or milliseconds since 1970.
fn until(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if number >= FIRST_MOMENT * 1e3 { number / 1e3 } else { number };
        let time = Duration::try_from_secs_f64(seconds).ok()?;
        if seconds < FIRST_MOMENT {
            return Some(time);
        }
        return Some(UNIX_EPOCH.checked_add(time)?.duration_since(now).unwrap_or_default());
    }
    go_duration(text).or_else(|| {
        let moment = humantime::parse_rfc3339(text).ok().or_else(|| httpdate::parse_http_date(text).ok())?;
        Some(moment.duration_since(now).unwrap_or_default())
    })
}

/// A duration as Go writes it: `6m0s`, `1h2m3.5s`, `17.4s`, `2ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let after = &rest[number..];
        let unit = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let in_seconds = match &after[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += rest[..number].parse::<f64>().ok()? * in_seconds;
        rest = &after[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

/// The first duration of a `server-timing` (in milliseconds) that is not Cloudflare's own.
fn server_timing(value: &str) -> Option<Duration> {
    let entries = value.split(',').map(str::trim).filter(|entry| !entry.starts_with("cf"));
    let millis: f64 = entries
        .flat_map(|entry| entry.split(';').skip(1))
        .find_map(|parameter| parameter.trim().strip_prefix("dur=")?.trim_matches('"').parse().ok())?;
    Duration::try_from_secs_f64(millis / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    /// 2026-11-21T11:00:00Z.
    const NOW: u64 = 1_795_258_800;

    fn facts(headers: &[(&'static str, &str)]) -> HeadFacts {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value")))
            .collect();
        read(&headers, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    fn millis(time: Option<Duration>) -> Option<u128> {
        time.map(|time| time.as_millis())
    }

    /// The quota of one kind: limit, rest, and milliseconds to its reset.
    fn quota_of(headers: &[(&'static str, &str)], kind: QuotaKind) -> (Option<u64>, Option<u64>, Option<u128>) {
        let Quota { limit, remaining, resets_in } = facts(headers).quotas[kind as usize];
        (limit, remaining, millis(resets_in))
    }

    #[test]
    fn every_provider_names_the_request() {
        for (headers, expected) in [
            (&[("x-request-id", "req_1")][..], Some("req_1")),
            (&[("request-id", "req_2")], Some("req_2")),
            (&[("x-amzn-requestid", "a-b")], Some("a-b")),
            (&[("apim-request-id", "az"), ("x-request-id", "oa")], Some("oa")),
            (&[("cf-ray", "edge"), ("mistral-correlation-id", "mi")], Some("mi")),
            (&[("x-generation-id", "gen-1")], Some("gen-1")),
            (&[("x-request-id", " ")], None),
            (&[], None),
        ] {
            assert_eq!(facts(headers).request_id.as_deref(), expected, "{headers:?}");
        }
        let long = "x".repeat(1000);
        assert_eq!(facts(&[("x-request-id", &long)]).request_id.map(|id| id.len()), Some(MAX_ID_BYTES));
    }

    #[test]
    fn the_time_a_provider_took_is_read_in_its_own_unit() {
        for (name, value, expected) in [
            ("openai-processing-ms", "412", Some(412)),
            ("x-amzn-bedrock-invocation-latency", "1500", Some(1500)),
            ("fireworks-server-processing-time", "0.25", Some(250)),
            ("x-compute-time", "1.5", Some(1500)),
            ("server-timing", "gfet4t7; dur=123", Some(123)),
            ("server-timing", "cfExtPri, cfRequestDuration;dur=80, app;desc=\"x\";dur=12.5", Some(12)),
            ("server-timing", "miss", None),
            ("openai-processing-ms", "-3", None),
            ("openai-processing-ms", "soon", None),
        ] {
            assert_eq!(millis(facts(&[(name, value)]).processing), expected, "{name}: {value}");
        }
        let both = [("server-timing", "a;dur=9"), ("openai-processing-ms", "5")];
        assert_eq!(millis(facts(&both).processing), Some(5), "the provider's own word");
    }

    #[test]
    fn retry_after_is_seconds_milliseconds_or_a_date() {
        for (headers, expected) in [
            (&[("retry-after", "20")][..], Some(20_000)),
            (&[("retry-after", "20"), ("retry-after-ms", "19500")], Some(19_500)),
            (&[("retry-after-ms", "19500"), ("retry-after", "20")], Some(19_500)),
            (&[("retry-after", "Sat, 21 Nov 2026 11:00:30 GMT")], Some(30_000)),
            (&[("retry-after", "Sat, 21 Nov 2026 10:00:30 GMT")], Some(0)),
            (&[("retry-after", "later")], None),
        ] {
            assert_eq!(millis(facts(headers).retry_after), expected, "{headers:?}");
        }
    }

    #[test]
    fn quotas_are_read_as_every_provider_writes_them() {
        let (requests, tokens) = (QuotaKind::Requests, QuotaKind::Tokens);
        for (provider, headers, kind, expected) in [
            (
                "OpenAI",
                &[
                    ("x-ratelimit-limit-requests", "10000"),
                    ("x-ratelimit-remaining-requests", "9999"),
                    ("x-ratelimit-reset-requests", "6m0s"),
                ][..],
                requests,
                (Some(10_000), Some(9_999), Some(360_000)),
            ),
            (
                "Azure",
                &[("x-ratelimit-remaining-tokens", "800"), ("x-ratelimit-reset-tokens", "60")],
                tokens,
                (None, Some(800), Some(60_000)),
            ),
            (
                "Anthropic",
                &[
                    ("anthropic-ratelimit-tokens-limit", "80000"),
                    ("anthropic-ratelimit-tokens-remaining", "79000"),
                    ("anthropic-ratelimit-tokens-reset", "2026-11-21T11:00:07Z"),
                ],
                tokens,
                (Some(80_000), Some(79_000), Some(7_000)),
            ),
            (
                "Mistral",
                &[("x-ratelimit-limit-req-10-second", "60"), ("x-ratelimit-remaining-req-10-second", "59")],
                requests,
                (Some(60), Some(59), Some(10_000)),
            ),
            (
                "Together",
                &[("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "1")],
                requests,
                (Some(10), Some(9), Some(1_000)),
            ),
            (
                "OpenRouter, milliseconds since 1970",
                &[("x-ratelimit-limit", "20"), ("x-ratelimit-reset", "1795258860000")],
                requests,
                (Some(20), None, Some(60_000)),
            ),
            (
                "what cannot be read is left out",
                &[("x-ratelimit-limit-tokens", "many"), ("x-ratelimit-reset-tokens", "soon")],
                tokens,
                (None, None, None),
            ),
            ("none", &[], tokens, (None, None, None)),
        ] {
            assert_eq!(quota_of(headers, kind), expected, "{provider}");
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("2ms", Some(2)),
            ("17.4s", Some(17_400)),
            ("6m0s", Some(360_000)),
            ("1h2m3.5s", Some(3_723_500)),
            ("1d", None),
            ("s", None),
            ("12", None),
            ("1..5s", None),
            ("", None),
        ] {
            assert_eq!(millis(go_duration(text)), expected, "{text}");
        }
    }
}
