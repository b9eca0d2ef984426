//! Faults: what a call asks the simulator to do differently, in the words of its `x-simulate` header.
//!
//! Only reads the words; who carries them out is said beside each. A word it does not know is refused, so that a
//! test never passes because of a slip of the pen.

use std::str::FromStr;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use thiserror::Error;

use super::bill::Tally;
use super::dice::Dice;

/// The request header that holds a [`Script`].
pub const HEADER: &str = "x-simulate";

/// The words a script is made of, for people.
const WORDS: &str = "usage=input:N,cached:N,cache-write:N,cache-write-long:N,output:N,reasoning:N; latency=20ms; \
    chunk-delay=5ms; slow-headers=2s; status=N; retry-after=N; retry-after-ms=N; cut[=after N chunks|bytes]; \
    stall[=after N chunks|bytes]; stream-error[=after N chunks]; reset; trickle; bad-json; no-done; no-usage; \
    usage-always; gzip; canned";

/// What a call is to meet: words separated by semicolons, such as `usage=input:100,output:7; cut=after 3 chunks`.
///
/// - `usage=…`: report, and charge, these counts (`input` includes what is cached and written, `output` the
///   reasoning). Without `input` or `output` that count is the true one; any other left out is zero.
/// - `latency=20ms`: time to the first token. `chunk-delay=5ms`: from each event of a stream to the next.
///   `slow-headers=2s`: before the head of the reply.
/// - `status=429`, or any other error status, in the API's own shape; with `retry-after=2` (seconds) and
///   `retry-after-ms=1500` as wanted.
/// - `cut`: the connection ends in the middle of the body; `stall`: the body never goes on. Both after half of the
///   bytes, or where they say: `cut=after 3 chunks`, `stall=after 100 bytes`.
/// - `stream-error`: a stream reports an error in one of its events and ends, after half of its events or where it
///   says.
/// - `reset`: the connection is reset before any head. `trickle`: the body comes byte by byte.
/// - `bad-json`: the body, or an event in the middle of a stream, is not JSON.
/// - `no-done`: a stream ends without its end marker. `no-usage`: nothing is said of usage. `usage-always`: an OpenAI
///   stream says its usage unasked.
/// - `gzip`: the body is compressed, if the call accepts that.
/// - `canned`: chat completions and messages are answered with a fixed reply, ready made: for benchmarks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub(super) usage: Option<ScriptedUsage>,
    pub(super) latency: Option<Duration>,
    pub(super) chunk_delay: Option<Duration>,
    pub(super) slow_headers: Option<Duration>,
    pub(super) status: Option<StatusCode>,
    pub(super) retry_after: Option<u64>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) cut: Option<Place>,
    pub(super) stall: Option<Place>,
    pub(super) stream_error: Option<Place>,
    oddities: Vec<Oddity>,
}

/// The words that stand alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    Reset,
    Trickle,
    BadJson,
    NoDone,
    NoUsage,
    UsageAlways,
    Gzip,
    Canned,
}

const ODDITIES: &[(&str, Oddity)] = &[
    ("reset", Oddity::Reset),
    ("trickle", Oddity::Trickle),
    ("bad-json", Oddity::BadJson),
    ("no-done", Oddity::NoDone),
    ("no-usage", Oddity::NoUsage),
    ("usage-always", Oddity::UsageAlways),
    ("gzip", Oddity::Gzip),
    ("canned", Oddity::Canned),
];

/// Where in a body something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Half,
    Chunks(usize),
    Bytes(usize),
}

/// Counts to report instead of the true ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ScriptedUsage {
    input: Option<u64>,
    output: Option<u64>,
    parts: Tally,
}

/// A script that cannot be followed.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ScriptError {
    /// It has a word that is none of the known ones.
    #[error("x-simulate does not know {word:?}; it knows: {WORDS}")]
    UnknownWord {
        /// The word.
        word: String,
    },
    /// It has a known word with a value that makes no sense.
    #[error("x-simulate cannot read {value:?} as the value of {word:?}; it knows: {WORDS}")]
    BadValue {
        /// The word.
        word: String,
        /// Its value.
        value: String,
    },
}

impl Script {
    /// The script of a call, if it has one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, ScriptError> {
        let unreadable = || ScriptError::UnknownWord { word: "not text".to_owned() };
        headers.get(HEADER).map(|value| value.to_str().map_err(|_| unreadable())?.parse()).transpose()
    }

    pub(super) fn has(&self, oddity: Oddity) -> bool {
        self.oddities.contains(&oddity)
    }

    pub(super) fn forget(&mut self, oddity: Oddity) {
        self.oddities.retain(|kept| *kept != oddity);
    }

    fn set(&mut self, word: &str, value: &str) -> Result<(), ScriptError> {
        let bad = || ScriptError::BadValue { word: word.to_owned(), value: value.to_owned() };
        if let Some((_, oddity)) = ODDITIES.iter().find(|(name, _)| *name == word) {
            self.oddities.push(*oddity);
            return if value.is_empty() { Ok(()) } else { Err(bad()) };
        }
        let span = || humantime::parse_duration(value).ok();
        let understood = match word {
            "usage" => ScriptedUsage::read(value).map(|usage| self.usage = Some(usage)),
            "latency" => span().map(|latency| self.latency = Some(latency)),
            "chunk-delay" => span().map(|delay| self.chunk_delay = Some(delay)),
            "slow-headers" => span().map(|delay| self.slow_headers = Some(delay)),
            "status" => error_status(value).map(|status| self.status = Some(status)),
            "retry-after" => value.parse().ok().map(|seconds| self.retry_after = Some(seconds)),
            "retry-after-ms" => value.parse().ok().map(|millis| self.retry_after_ms = Some(millis)),
            "cut" => Place::read(value).map(|place| self.cut = Some(place)),
            "stall" => Place::read(value).map(|place| self.stall = Some(place)),
            "stream-error" => Place::read(value)
                .filter(|place| !matches!(place, Place::Bytes(_)))
                .map(|place| self.stream_error = Some(place)),
            _ => return Err(ScriptError::UnknownWord { word: word.to_owned() }),
        };
        understood.ok_or_else(bad)
    }
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (word, value) = part.split_once('=').unwrap_or((part, ""));
            script.set(word.trim(), value.trim())?;
        }
        Ok(script)
    }
}

fn error_status(value: &str) -> Option<StatusCode> {
    let status = StatusCode::from_bytes(value.as_bytes()).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

impl Place {
    fn read(value: &str) -> Option<Self> {
        if value.is_empty() {
            return Some(Self::Half);
        }
        let mut words = value.split_whitespace();
        let (after, count, unit) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        if after != "after" || words.next().is_some() {
            return None;
        }
        match unit {
            "chunk" | "chunks" => Some(Self::Chunks(count)),
            "byte" | "bytes" => Some(Self::Bytes(count)),
            _ => None,
        }
    }
}

impl ScriptedUsage {
    fn read(value: &str) -> Option<Self> {
        let mut usage = Self::default();
        for part in value.split(',') {
            let (kind, count) = part.split_once(':')?;
            let count = count.trim().parse::<u32>().ok()?.into(); // small enough for any sum to fit
            match kind.trim() {
                "input" => usage.input = Some(count),
                "output" => usage.output = Some(count),
                "cached" => usage.parts.cached = count,
                "cache-write" => usage.parts.cache_write_short = count,
                "cache-write-long" => usage.parts.cache_write_long = count,
                "reasoning" => usage.parts.reasoning = count,
                _ => return None,
            }
        }
        let fits = usage.input.is_none_or(|input| input >= usage.prompt_parts())
            && usage.output.is_none_or(|output| output >= usage.parts.reasoning);
        fits.then_some(usage)
    }

    fn prompt_parts(&self) -> u64 {
        self.parts.cached + self.parts.cache_write_short + self.parts.cache_write_long
    }

    /// What is reported for a call that truly used `truth`.
    pub(super) fn instead_of(self, truth: Tally) -> Tally {
        Tally {
            input: self.input.unwrap_or(truth.input.max(self.prompt_parts())),
            output: self.output.unwrap_or(truth.output.max(self.parts.reasoning)),
            ..self.parts
        }
    }
}

/// A share of calls that fail for no reason, as they do in life.
///
/// Decided by how many calls came before, not by what they ask, so that trying again helps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mishaps {
    /// In a million calls.
    rate: u32,
}

impl Mishaps {
    /// `share` of all calls: 0.02 are two in a hundred.
    pub(super) fn new(share: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
        let rate = (share.clamp(0.0, 1.0) * 1e6).round() as u32;
        Self { rate }
    }

    /// What befalls the call with this number: mostly a rate limit, sometimes a server error.
    pub(super) fn strike(self, call: u64) -> Option<StatusCode> {
        let mut dice = Dice::new(call);
        let struck = dice.below(1_000_000) < u64::from(self.rate);
        struck.then(|| match dice.below(3) {
            0 => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::TOO_MANY_REQUESTS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Script {
        text.parse().expect("a good script")
    }

    #[test]
    fn a_script_is_read_word_by_word() {
        let script = read("usage=input:100,cached:40,output:7,reasoning:3; latency=20ms; chunk-delay=5ms;");
        let usage = script.usage.expect("scripted").instead_of(Tally::default());
        assert_eq!(usage, Tally { input: 100, cached: 40, output: 7, reasoning: 3, ..Tally::default() });
        assert_eq!(script.latency, Some(Duration::from_millis(20)));
        assert_eq!(script.chunk_delay, Some(Duration::from_millis(5)));
        assert_eq!(read("cut").cut, Some(Place::Half));
        assert_eq!(read("cut = after 3 chunks").cut, Some(Place::Chunks(3)));
        assert_eq!(read("stall=after 100 bytes").stall, Some(Place::Bytes(100)));
        assert_eq!(read("status=529").status.map(|status| status.as_u16()), Some(529));
        assert!(read("gzip;trickle").has(Oddity::Trickle));
        assert!(!read("gzip;trickle").has(Oddity::Canned));
        assert_eq!(read(" ; "), Script::default());
    }

    #[test]
    fn usage_left_out_is_the_true_one() {
        let truth = Tally { input: 10, cached: 5, output: 20, ..Tally::default() };
        let told = read("usage=output:7").usage.expect("scripted").instead_of(truth);
        assert_eq!(told, Tally { input: 10, output: 7, ..Tally::default() });
        let told = read("usage=cached:40").usage.expect("scripted").instead_of(truth);
        assert_eq!(told, Tally { input: 40, cached: 40, output: 20, ..Tally::default() });
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_the_known_words_are_listed() {
        for bad in [
            "stal",
            "stall=3",
            "cut=before 3 chunks",
            "stream-error=after 3 bytes",
            "latency=fast",
            "status=200",
            "status=x",
            "reset=now",
            "usage=input:-1",
            "usage=inputs:1",
            "usage=input:1,cached:2",
            "usage=output:1,reasoning:2",
        ] {
            let error = bad.parse::<Script>().expect_err(bad).to_string();
            assert!(error.contains("stream-error"), "{error}");
        }
    }

    #[test]
    fn mishaps_strike_as_often_as_they_should() {
        let mishaps = Mishaps::new(0.05);
        let struck = (0..10_000).filter(|call| mishaps.strike(*call).is_some()).count();
        assert!((400..600).contains(&struck), "{struck} of 10,000");
        assert!((0..1000).all(|call| Mishaps::default().strike(call).is_none()));
    }
}
