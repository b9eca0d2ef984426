//! Envelope: a stored response as bytes, for a place outside this process. Compact, versioned by whoever seals it, and
//! bounded before anything is unpacked.
//!
//! Knows what a stored response is; not where the bytes go, nor how they are kept secret.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lz4_flex::block;
use serde::{Deserialize, Serialize};

use crate::cache::pace::Pace;
use crate::cache::{About, Reply};
use crate::record::ReplyFacts;
use crate::record::trace::Context;
use crate::record::usage::{Counter, Usage};
use crate::units::PicoUsd;

/// The most that goes with a body: names, facts and counts, each of them bounded where it is read.
pub(super) const MOST_HEAD_BYTES: usize = 64 << 10;

/// Plain, or compressed: the first byte.
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;
/// That byte, and the unpacked length.
const FRONT: usize = 5;

/// What goes into an envelope: a reply, and what holds for it wherever it is.
#[derive(Debug)]
pub struct Content {
    /// The reply.
    pub reply: Reply,
    /// What it is about.
    pub about: About,
    /// How far the sender knew the rules when the reply was asked for.
    pub asked: [u64; 2],
    /// When it was stored, by the wall clock: replicas have no other in common.
    pub stored_at: SystemTime,
    /// How long it is fresh.
    pub lifetime: Duration,
    /// How long it is worth keeping, its lifetime included.
    pub keep_for: Duration,
}

/// A content, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The reply.
    pub reply: &'a Reply,
    /// What it is about.
    pub about: &'a About,
    /// How far the sender knew the rules when the reply was asked for.
    pub asked: [u64; 2],
    /// When it was stored, by the wall clock.
    pub stored_at: SystemTime,
    /// How long it is fresh.
    pub lifetime: Duration,
    /// How long it is worth keeping, its lifetime included.
    pub keep_for: Duration,
}

/// All but the body.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    asked: [u64; 2],
    stored_ms: u64,
    lifetime_ms: u64,
    keep_ms: u64,
    status: u16,
    headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    provider: Cow<'a, str>,
    model: Option<Cow<'a, str>>,
    namespace: Option<Cow<'a, str>>,
    facts: Cow<'a, ReplyFacts>,
    /// By name: a counter that another version does not know is a reason not to open it there.
    usage: Option<Vec<(Cow<'a, str>, u64)>>,
    /// Pico-dollars, in digits: more than a JSON number holds.
    provider_cost: Option<String>,
    /// Of each piece: the microseconds before it, and its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pace: Option<Vec<(u64, usize)>>,
    /// The span that brought it, as `traceparent` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Cow<'a, str>>,
}

/// The bytes of `letter`, compressed if it is larger than `compress_above` and that makes it smaller. `None` if it has
/// something that is not text where text is expected, or a head out of all proportion.
#[must_use]
pub fn pack(letter: Letter<'_>, compress_above: usize) -> Option<Vec<u8>> {
    let head = serde_json::to_vec(&head(letter)?).ok().filter(|head| head.len() <= MOST_HEAD_BYTES)?;
    let body = &letter.reply.body;
    let mut plain = Vec::with_capacity(4 + head.len() + body.len());
    plain.extend_from_slice(&u32::try_from(head.len()).ok()?.to_le_bytes());
    plain.extend_from_slice(&head);
    plain.extend_from_slice(body);
    let length = u32::try_from(plain.len()).ok()?;
    let smaller = (plain.len() > compress_above).then(|| block::compress(&plain));
    let (form, content) = match smaller.filter(|smaller| smaller.len() < plain.len()) {
        Some(smaller) => (COMPRESSED, smaller),
        None => (PLAIN, plain),
    };
    let mut packed = Vec::with_capacity(FRONT + content.len());
    packed.push(form);
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(&content);
    Some(packed)
}

/// What `packed` holds. `None` if that is nothing known, or its body would be larger than `max_body`.
#[must_use]
pub fn unpack(packed: &[u8], max_body: usize) -> Option<Content> {
    let (front, content) = packed.split_at_checked(FRONT)?;
    let (form, length) = front.split_first()?;
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    if length > max_body.saturating_add(MOST_HEAD_BYTES) {
        return None;
    }
    let plain = match *form {
        PLAIN => Cow::Borrowed(content),
        COMPRESSED => Cow::Owned(block::decompress(content, length).ok()?),
        _ => return None,
    };
    let (head_length, rest) = plain.split_at_checked(4)?;
    let head_length = usize::try_from(u32::from_le_bytes(head_length.try_into().ok()?)).ok()?;
    let (head, body) = rest.split_at_checked(head_length)?;
    if plain.len() != length || body.len() > max_body {
        return None;
    }
    serde_json::from_slice::<Head<'_>>(head).ok().and_then(|head| content_of(head, body))
}

fn head(letter: Letter<'_>) -> Option<Head<'_>> {
    let Letter { reply, about, asked, stored_at, lifetime, keep_for } = letter;
    let Reply { status, headers, body: _, pace, facts, usage, provider_cost, origin } = reply;
    let pieces = |pace: &Pace| pace.pieces().map(|(after, bytes)| (microseconds(after), bytes)).collect();
    let headers = headers.iter().map(|(name, value)| Some((name.as_str().into(), value.to_str().ok()?.into())));
    Some(Head {
        asked,
        stored_ms: milliseconds(stored_at.duration_since(UNIX_EPOCH).unwrap_or_default()),
        lifetime_ms: milliseconds(lifetime),
        keep_ms: milliseconds(keep_for),
        status: status.as_u16(),
        headers: headers.collect::<Option<_>>()?,
        provider: (&*about.provider).into(),
        model: about.model.as_deref().map(Into::into),
        namespace: about.namespace.as_deref().map(Into::into),
        facts: Cow::Borrowed(facts),
        // An estimate is this process's own; another makes its own.
        usage: usage.get().filter(|usage| !usage.is_estimated()).map(counts),
        provider_cost: provider_cost.map(|cost| cost.pico().to_string()),
        pace: pace.as_ref().map(pieces),
        origin: origin.map(|origin| origin.to_string().into()),
    })
}

fn content_of(head: Head<'_>, body: &[u8]) -> Option<Content> {
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in head.headers {
        headers.append(HeaderName::try_from(&*name).ok()?, HeaderValue::try_from(&*value).ok()?);
    }
    let usage = OnceLock::new();
    if let Some(counts) = head.usage {
        usage.set(usage_of(&counts)?).ok()?;
    }
    let provider_cost = head.provider_cost.map(|cost| cost.parse().map(PicoUsd::new)).transpose().ok()?;
    Some(Content {
        reply: Reply {
            status: StatusCode::from_u16(head.status).ok()?,
            headers,
            body: Bytes::copy_from_slice(body),
            pace: head.pace.map(pace_of),
            facts: head.facts.into_owned(),
            usage: Arc::new(usage),
            provider_cost,
            origin: head.origin.and_then(|origin| Context::parse(origin.as_bytes())),
        },
        about: About {
            provider: (&*head.provider).into(),
            model: head.model.as_deref().map(Into::into),
            namespace: head.namespace.as_deref().map(Into::into),
        },
        asked: head.asked,
        stored_at: UNIX_EPOCH.checked_add(Duration::from_millis(head.stored_ms))?,
        lifetime: Duration::from_millis(head.lifetime_ms),
        keep_for: Duration::from_millis(head.keep_ms),
    })
}

fn pace_of(pieces: Vec<(u64, usize)>) -> Pace {
    Pace::of(pieces.into_iter().map(|(after, bytes)| (Duration::from_micros(after), bytes)))
}

fn counts(usage: &Usage) -> Vec<(Cow<'_, str>, u64)> {
    let reported = Counter::ALL.iter().filter_map(|counter| Some((counter.name().into(), usage.get(*counter)?)));
    reported.collect()
}

fn usage_of(counts: &[(Cow<'_, str>, u64)]) -> Option<Usage> {
    let known = |name: &str| Counter::ALL.iter().copied().find(|counter| counter.name() == name);
    let parts: Option<Vec<_>> = counts.iter().map(|(name, count)| Some((known(name)?, Some(*count)))).collect();
    let parts = parts?;
    let whole = |wanted| parts.iter().find(|(counter, _)| *counter == wanted).and_then(|(_, count)| *count);
    // Within a usage, input always contains every class of input.
    Some(Usage::cache_inside(whole(Counter::InputTokens), whole(Counter::OutputTokens), &parts))
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn reply(body: &[u8], usage: Option<&Usage>) -> Reply {
        let known = OnceLock::new();
        if let Some(usage) = usage {
            known.set(*usage).expect("it is new");
        }
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        Reply {
            status: StatusCode::OK,
            headers,
            body: Bytes::copy_from_slice(body),
            pace: Some(Pace::of([(Duration::from_millis(250), 1), (Duration::from_micros(1), 3)])),
            facts: ReplyFacts { id: Some("chatcmpl-1".into()), tools: vec!["look".into()], ..ReplyFacts::default() },
            usage: Arc::new(known),
            provider_cost: Some(PicoUsd::new(u128::MAX)),
            origin: Context::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        }
    }

    fn about() -> About {
        About { provider: "openai".into(), model: Some("gpt-5".into()), namespace: None }
    }

    fn letter<'a>(reply: &'a Reply, about: &'a About) -> Letter<'a> {
        let stored_at = UNIX_EPOCH + Duration::from_millis(1_234_567_891);
        let (lifetime, keep_for) = (Duration::from_millis(1500), Duration::from_millis(2500));
        Letter { reply, about, asked: [7, u64::MAX], stored_at, lifetime, keep_for }
    }

    #[test]
    fn a_reply_comes_out_as_it_went_in() {
        let parts = [(Counter::CacheReadTokens, Some(3)), (Counter::Requests, Some(1))];
        let usage = Usage::cache_inside(Some(10), Some(0), &parts);
        let (noise, text): (Vec<u8>, _) = ((0..=255).cycle().take(3000).collect(), b"word ".repeat(1000));
        for body in [&b""[..], b"{}", &noise, &text] {
            let (reply, about) = (reply(body, Some(&usage)), about());
            let packed = pack(letter(&reply, &about), 1024).expect("plain data");
            let content = unpack(&packed, MAX).expect("what was packed");
            assert_eq!(content.reply.body, body);
            assert_eq!((content.reply.pace, content.reply.origin), (reply.pace.clone(), reply.origin));
            assert_eq!((content.reply.status, &content.reply.headers), (reply.status, &reply.headers));
            assert_eq!((&content.reply.facts, content.reply.provider_cost), (&reply.facts, reply.provider_cost));
            assert_eq!(content.reply.usage.get(), Some(&usage));
            assert_eq!(content.about, about);
            let sent = letter(&reply, &about);
            assert_eq!((content.asked, content.stored_at), (sent.asked, sent.stored_at));
            assert_eq!((content.lifetime, content.keep_for), (sent.lifetime, sent.keep_for));
        }
    }

    #[test]
    fn what_was_not_reported_stays_unknown() {
        let estimated = Usage::cache_inside(Some(1), None, &[]).with_estimates(None, Some(5));
        for usage in [None, Some(estimated)] {
            let (reply, about) = (reply(b"{}", usage.as_ref()), about());
            let packed = pack(letter(&reply, &about), 1024).expect("plain data");
            assert_eq!(unpack(&packed, MAX).expect("what was packed").reply.usage.get(), None);
        }
    }

    #[test]
    fn large_text_is_compressed_and_small_or_random_content_is_not() {
        let mut state = 1_u64;
        let mut dice = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..5000).map(|_| dice()).collect();
        for (body, above, form) in [
            (b"word ".repeat(1000), 1024, COMPRESSED),
            (b"word ".repeat(1000), 1 << 20, PLAIN),
            (b"word ".repeat(10), 1024, PLAIN),
            (noise, 0, PLAIN),
        ] {
            let (reply, about) = (reply(&body, None), about());
            // Without the names of facts and fields, which repeat nothing but compress a little.
            let packed = pack(letter(&reply, &about), above).expect("plain data");
            assert!(packed[0] == form || body.len() == 5000, "{above}");
            assert!(form == PLAIN || packed.len() < body.len() / 2);
        }
    }

    #[test]
    fn nothing_larger_than_allowed_is_unpacked() {
        let (big, about) = (reply(&b"word ".repeat(1000), None), about());
        let packed = pack(letter(&big, &about), 1024).expect("plain data");
        assert!(unpack(&packed, 5000).is_some());
        assert!(unpack(&packed, 4999).is_none());
        let mut lying = packed.clone();
        lying[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(unpack(&lying, MAX).is_none(), "a length that is no length");
    }

    #[test]
    fn no_cut_and_no_flipped_byte_is_a_panic() {
        let (reply, about) = (reply(&b"word ".repeat(300), None), about());
        for above in [0, MAX] {
            let packed = pack(letter(&reply, &about), above).expect("plain data");
            for position in 0..packed.len() {
                assert!(unpack(&packed[..position], MAX).is_none(), "cut at {position}");
                let mut damaged = packed.clone();
                damaged[position] ^= 0x55;
                let _ = unpack(&damaged, MAX);
            }
        }
    }
}
