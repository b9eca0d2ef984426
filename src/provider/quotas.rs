//! Quotas: what is left of a limit, in the names that each provider's headers have for it. One table is read by from
//! replies and written by where weir itself refuses a call, so that SDKs back off as they would from the provider.
//!
//! Beside them stand the fields that are the same whatever the API: `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-10), `Retry-After` (RFC 9110, section 10.2.3), and those of OpenAI's and
//! Anthropic's SDKs. Knows no rule and no status.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::record::head::QuotaKind;

/// The code of an error that says that a rate is exceeded: OpenAI's word.
pub const RATE_LIMIT_EXCEEDED: &str = "rate_limit_exceeded";

/// The code of an error that says that money is spent: OpenAI's word.
pub const INSUFFICIENT_QUOTA: &str = "insufficient_quota";

/// Whether an SDK is to try again; it does at any 429 without it (openai-python and anthropic-sdk-python,
/// `_base_client.py`).
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What the SDKs wait for where they are asked to; what would be longer they try again at after a moment of their own, in
/// vain (as above: `0 < retry_after <= 60`).
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The largest number of a structured field (RFC 9651, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The names that one provider has for a quota of one kind; empty where it has none.
#[derive(Debug)]
pub struct Names {
    pub(super) kind: QuotaKind,
    pub(super) limit: &'static str,
    pub(super) remaining: &'static str,
    pub(super) reset: &'static str,
}

/// How one provider tells of quotas.
#[derive(Debug)]
pub struct Words {
    names: &'static [Names; 2],
    /// When a quota is full again, in so long from this moment.
    reset: fn(Duration, SystemTime) -> String,
}

/// A quota of weir's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnQuota<'a> {
    /// The name of the limit.
    pub name: &'a str,
    /// What it counts.
    pub unit: Unit,
    /// How much there is when it is full.
    pub limit: u64,
    /// In how long as much comes back as there is when it is full; `None` if that is not a matter of time.
    pub window: Option<Duration>,
    /// How much is left.
    pub remaining: u64,
    /// In how long it is full again, if that can be told.
    pub resets_in: Option<Duration>,
}

/// What a quota of weir's own counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// What providers have quotas of as well.
    Of(QuotaKind),
    /// Calls in progress.
    ConcurrentRequests,
}

/// When a call that is refused may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Soon, and nobody can tell when.
    Soon,
    /// In so long.
    In(Duration),
    /// Never, as far as anybody can tell.
    Never,
}

impl Again {
    /// In how long, if that can be told.
    #[must_use]
    pub const fn wait(self) -> Option<Duration> {
        match self {
            Self::In(wait) => Some(wait),
            Self::Soon | Self::Never => None,
        }
    }
}

/// OpenAI, its copies, Azure, Groq, Fireworks.
pub(super) static OPENAI: [Names; 2] = [
    Names {
        kind: QuotaKind::Requests,
        limit: "x-ratelimit-limit-requests",
        remaining: "x-ratelimit-remaining-requests",
        reset: "x-ratelimit-reset-requests",
    },
    Names {
        kind: QuotaKind::Tokens,
        limit: "x-ratelimit-limit-tokens",
        remaining: "x-ratelimit-remaining-tokens",
        reset: "x-ratelimit-reset-tokens",
    },
];

/// Anthropic.
pub(super) static ANTHROPIC: [Names; 2] = [
    Names {
        kind: QuotaKind::Requests,
        limit: "anthropic-ratelimit-requests-limit",
        remaining: "anthropic-ratelimit-requests-remaining",
        reset: "anthropic-ratelimit-requests-reset",
    },
    Names {
        kind: QuotaKind::Tokens,
        limit: "anthropic-ratelimit-tokens-limit",
        remaining: "anthropic-ratelimit-tokens-remaining",
        reset: "anthropic-ratelimit-tokens-reset",
    },
];

/// Together and Mistral, which are read only.
static OTHERS: [Names; 3] = [
    Names {
        kind: QuotaKind::Requests,
        limit: "x-ratelimit-limit",
        remaining: "x-ratelimit-remaining",
        reset: "x-ratelimit-reset",
    },
    Names {
        kind: QuotaKind::Requests,
        limit: "x-ratelimit-limit-req-10-second",
        remaining: "x-ratelimit-remaining-req-10-second",
        reset: "",
    },
    Names {
        kind: QuotaKind::Tokens,
        limit: "x-ratelimit-limit-tokens-minute",
        remaining: "x-ratelimit-remaining-tokens-minute",
        reset: "",
    },
];

/// Every provider's names.
pub(super) fn known() -> impl Iterator<Item = &'static Names> {
    OPENAI.iter().chain(&ANTHROPIC).chain(&OTHERS)
}

/// OpenAI: durations as Go writes them.
pub(super) static OPENAI_WORDS: Words = Words { names: &OPENAI, reset: |resets_in, _| go_duration(resets_in) };

/// Azure: whole seconds.
pub(super) static AZURE_WORDS: Words =
    Words { names: &OPENAI, reset: |resets_in, _| whole_seconds(resets_in).to_string() };

/// Anthropic: moments (RFC 3339).
pub(super) static ANTHROPIC_WORDS: Words = Words {
    names: &ANTHROPIC,
    reset: |resets_in, now| humantime::format_rfc3339_seconds(now + rounded_up(resets_in)).to_string(),
};

/// Says in the head of a refusal what is left of `quotas`, in the `words` of its provider if that has any, and when to
/// try again.
pub fn write(headers: &mut HeaderMap, words: Option<&Words>, quotas: &[OwnQuota<'_>], again: Again, now: SystemTime) {
    for quota in quotas {
        headers.append(RATE_LIMIT_POLICY, value(quota.policy()));
        headers.append(RATE_LIMIT, value(quota.state()));
    }
    for (names, reset) in words.iter().flat_map(|words| words.names.iter().map(|names| (names, words.reset))) {
        let Some(quota) = tightest(quotas, names.kind) else { continue };
        headers.insert(HeaderName::from_static(names.limit), quota.limit.into());
        headers.insert(HeaderName::from_static(names.remaining), quota.remaining.into());
        if let Some(resets_in) = quota.resets_in {
            headers.insert(HeaderName::from_static(names.reset), value(reset(resets_in, now)));
        }
    }
    if let Again::In(wait) = again {
        headers.insert(RETRY_AFTER, whole_seconds(wait).into());
        headers.insert(RETRY_AFTER_MS, whole_millis(wait).into());
    }
    let is_vain = match again {
        Again::Soon => false,
        Again::In(wait) => wait > LONGEST_WAIT,
        Again::Never => true,
    };
    if is_vain {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
}

/// The quota of a kind that an app has to heed before the others: that of which least is left, and of several the one
/// that is full again last.
fn tightest<'a>(quotas: &'a [OwnQuota<'a>], kind: QuotaKind) -> Option<&'a OwnQuota<'a>> {
    let of_kind = quotas.iter().filter(|quota| quota.unit == Unit::Of(kind));
    of_kind.min_by_key(|quota| (quota.remaining, std::cmp::Reverse(quota.resets_in)))
}

impl OwnQuota<'_> {
    /// A member of `RateLimit-Policy` (section 3 of the draft). The draft has no unit for tokens; whoever does not know
    /// it has to ignore the policy.
    fn policy(&self) -> String {
        let unit = match self.unit {
            Unit::Of(QuotaKind::Requests) => "",
            Unit::Of(QuotaKind::Tokens) => ";qu=\"tokens\"",
            Unit::ConcurrentRequests => ";qu=\"concurrent-requests\"",
        };
        let window = self.window.map(|window| format!(";w={}", whole_seconds(window))).unwrap_or_default();
        format!("{};q={}{unit}{window}", quoted(self.name), self.limit.min(MAX_INTEGER))
    }

    /// A member of `RateLimit` (section 4 of the draft).
    fn state(&self) -> String {
        let reset = self.resets_in.map(|resets_in| format!(";t={}", whole_seconds(resets_in))).unwrap_or_default();
        format!("{};r={}{reset}", quoted(self.name), self.remaining.min(MAX_INTEGER))
    }
}

/// A name as an item of a structured field: a token (RFC 9651, section 3.3.4), or a string where it cannot be one.
#[must_use]
pub fn item(name: &str) -> String {
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    let is_of_token = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(letter);
    if begins && name.chars().all(is_of_token) { name.to_owned() } else { quoted(name) }
}

/// A string of a structured field (RFC 9651, section 3.3.3), which has no letters but those of ASCII.
#[must_use]
pub fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for letter in name.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            ' '..='~' => text.push(letter),
            _ => text.push('_'),
        }
    }
    text.push('"');
    text
}

/// `6m0s`, `1h2m3.5s`, `17.4s`, `250ms`: to the millisecond, rounded up.
fn go_duration(time: Duration) -> String {
    let millis = whole_millis(time);
    let (seconds, rest) = (millis / 1000, millis % 1000);
    if seconds == 0 && rest > 0 {
        return format!("{rest}ms");
    }
    let fraction = format!(".{rest:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// Rounded up: who comes a moment too early is refused again.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn rounded_up(time: Duration) -> Duration {
    Duration::from_secs(whole_seconds(time))
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("visible ASCII makes a header value")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::provider::{Api, headers};

    /// 2026-11-21T11:00:00.25Z.
    const NOW: Duration = Duration::from_millis(1_795_258_800_250);

    fn quota(name: &str, kind: QuotaKind, remaining: u64, resets_in: Duration) -> OwnQuota<'_> {
        let (window, resets_in) = (Some(Duration::from_secs(60)), Some(resets_in));
        OwnQuota { name, unit: Unit::Of(kind), limit: 100, window, remaining, resets_in }
    }

    fn written(api: Api, quotas: &[OwnQuota<'_>], again: Again) -> HeaderMap {
        let mut headers = HeaderMap::new();
        write(&mut headers, api.dialect().quotas, quotas, again, UNIX_EPOCH + NOW);
        headers
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut text: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        text.sort_unstable();
        text
    }

    #[test]
    fn every_api_tells_of_quotas_in_its_own_words_and_in_those_of_all() {
        let both = [
            quota("all \"agents\"", QuotaKind::Requests, 0, Duration::from_millis(6_400)),
            quota("tümpel", QuotaKind::Tokens, 7, Duration::from_secs(360)),
        ];
        let common = [
            "ratelimit-policy: \"all \\\"agents\\\"\";q=100;w=60",
            "ratelimit-policy: \"t_mpel\";q=100;qu=\"tokens\";w=60",
            "ratelimit: \"all \\\"agents\\\"\";r=0;t=7",
            "ratelimit: \"t_mpel\";r=7;t=360",
            "retry-after-ms: 6400",
            "retry-after: 7",
        ];
        let openai = |requests: &str, tokens: &str| {
            [("limit-requests", "100"), ("limit-tokens", "100"), ("remaining-requests", "0"), ("remaining-tokens", "7")]
                .into_iter()
                .chain([("reset-requests", requests), ("reset-tokens", tokens)])
                .map(|(name, value)| format!("x-ratelimit-{name}: {value}"))
                .collect::<Vec<_>>()
        };
        let anthropic = [
            "anthropic-ratelimit-requests-limit: 100",
            "anthropic-ratelimit-requests-remaining: 0",
            "anthropic-ratelimit-requests-reset: 2026-11-21T11:00:07Z",
            "anthropic-ratelimit-tokens-limit: 100",
            "anthropic-ratelimit-tokens-remaining: 7",
            "anthropic-ratelimit-tokens-reset: 2026-11-21T11:06:00Z",
        ]
        .map(str::to_owned);
        for (api, own) in [
            (Api::OpenAi, openai("6.4s", "6m0s")),
            (Api::AzureOpenAi, openai("7", "360")),
            (Api::Anthropic, anthropic.into()),
            (Api::Bedrock, Vec::new()),
            (Api::Cohere, Vec::new()),
            (Api::Ollama, Vec::new()),
            (Api::Gemini, Vec::new()),
            (Api::VertexAi, Vec::new()),
        ] {
            let mut expected: Vec<String> = common.into_iter().map(str::to_owned).chain(own).collect();
            expected.sort_unstable();
            assert_eq!(text(&written(api, &both, Again::In(Duration::from_millis(6_400)))), expected, "{api:?}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let both = [
            quota("a", QuotaKind::Requests, 3, Duration::from_millis(1_500)),
            quota("b", QuotaKind::Tokens, 5, Duration::from_millis(90)),
        ];
        for (api, resets) in
            [(Api::OpenAi, [1_500, 90]), (Api::AzureOpenAi, [2_000, 1_000]), (Api::Anthropic, [1_750, 750])]
        {
            let read = headers::read(&written(api, &both, Again::In(Duration::from_millis(90))), UNIX_EPOCH + NOW);
            assert_eq!(read.retry_after, Some(Duration::from_millis(90)));
            for ((quota, told), reset) in read.quotas.iter().zip(&both).zip(resets) {
                assert_eq!((quota.limit, quota.remaining), (Some(100), Some(told.remaining)), "{api:?}");
                assert_eq!(quota.resets_in, Some(Duration::from_millis(reset)), "{api:?}");
            }
        }
    }

    #[test]
    fn of_several_quotas_of_a_kind_the_tightest_is_told() {
        let quotas = [
            quota("minute", QuotaKind::Requests, 0, Duration::from_secs(1)),
            quota("day", QuotaKind::Requests, 0, Duration::from_secs(90)),
            quota("month", QuotaKind::Requests, 8, Duration::from_secs(900)),
            OwnQuota {
                name: "at once",
                unit: Unit::ConcurrentRequests,
                limit: 4,
                window: None,
                remaining: 0,
                resets_in: None,
            },
        ];
        let headers = written(Api::OpenAi, &quotas, Again::Soon);
        assert_eq!(headers["x-ratelimit-reset-requests"], "1m30s");
        assert_eq!(headers.get_all("ratelimit").iter().count(), 4);
        let last = |name: &str| headers.get_all(name).iter().next_back().and_then(|value| value.to_str().ok());
        assert_eq!(last("ratelimit"), Some("\"at once\";r=0"));
        assert_eq!(last("ratelimit-policy"), Some("\"at once\";q=4;qu=\"concurrent-requests\""));
        assert!(!headers.contains_key("x-ratelimit-reset-tokens"));
    }

    #[test]
    fn sdks_are_told_not_to_try_again_where_they_would_do_so_in_vain() {
        for (again, header, retries) in [
            (Again::In(Duration::from_nanos(1)), Some("1"), true),
            (Again::In(Duration::from_secs(60)), Some("60"), true),
            (Again::In(Duration::from_millis(60_001)), Some("61"), false),
            (Again::In(Duration::from_secs(86_400)), Some("86400"), false),
            (Again::Soon, None, true),
            (Again::Never, None, false),
        ] {
            let headers = written(Api::OpenAi, &[], again);
            let told = headers.get(RETRY_AFTER).map(|value| value.to_str().expect("digits"));
            assert_eq!((told, !headers.contains_key(SHOULD_RETRY)), (header, retries), "{again:?}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (time, expected) in [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(1), "1ms"),
            (Duration::from_millis(250), "250ms"),
            (Duration::from_millis(8_640), "8.64s"),
            (Duration::from_secs(60), "1m0s"),
            (Duration::from_millis(3_723_500), "1h2m3.5s"),
            (Duration::from_secs(86_400), "24h0m0s"),
        ] {
            assert_eq!(go_duration(time), expected);
        }
    }
}
