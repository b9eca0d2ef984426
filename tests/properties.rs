//! Properties: what holds of every reader, whatever it is given.
//!
//! Nothing, however broken, makes one panic, go on for ever, or hold more than its bound; what is new to it changes
//! nothing; what it counts adds up. All by chance, but the same each time.

mod fixture;

use std::time::SystemTime;

use allocation_counter::measure;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use weir::price::{self, Prices, Question, Source};
use weir::provider::endpoint::Endpoint;
use weir::provider::forms::{Answer, render};
use weir::provider::reader::Reader;
use weir::provider::{Request, Said};
use weir::record::ReplyFacts;
use weir::record::call::Form;
use weir::record::usage::{Counter, Usage};

use crate::fixture::random::Random;
use crate::fixture::{BINARY, EVENTS, Fixture, eventstream, fixtures, message_of};

/// What a reader is told to keep at most: less than the larger fixtures.
const MAX_BYTES: usize = 8 << 10;

/// What a reader may hold, at its peak: so many times what it is told to keep, and what it keeps of the generated text
/// (256 KiB at most, in a buffer that grows by doubling).
const MOST_HELD: u64 = 64 * MAX_BYTES as u64 + (1 << 20);

/// Every content type that is read, and one that is not.
const CONTENT_TYPES: [&str; 5] = ["application/json", EVENTS, "application/x-ndjson", BINARY, "text/plain"];

#[test]
fn no_broken_reply_makes_a_reader_panic_or_hold_more_than_its_bound() {
    let fixtures = fixtures();
    let mut random = Random(1);
    for fixture in &fixtures {
        for &endpoint in Endpoint::ALL {
            for content_type in CONTENT_TYPES {
                let broken = broken(&mut random, &fixture.source, &fixtures);
                let broken = framed(&mut random, content_type, broken);
                read(&mut random, endpoint, content_type, &broken);
            }
        }
    }
}

#[test]
fn no_broken_reply_of_its_own_api_makes_a_reader_panic() {
    let fixtures = fixtures();
    let mut random = Random(2);
    for fixture in &fixtures {
        for round in 0..60 {
            let broken = broken(&mut random, &fixture.source, &fixtures);
            let broken = if fixture.is_binary() && round % 4 > 0 { reframed(&broken) } else { broken };
            read(&mut random, fixture.endpoint, fixture.content_type, &broken);
        }
    }
}

#[test]
fn no_broken_answer_makes_its_rendering_panic_or_hold_more_than_its_bound() {
    const FORMS: [Form; 5] = [Form::Whole, Form::Stream, Form::StreamWithUsage, Form::StreamWithoutUsage, Form::Array];
    let fixtures = fixtures();
    let mut random = Random(5);
    let mut rendered = 0;
    for fixture in fixtures.iter().filter(|fixture| fixture.endpoint.forms().is_some()) {
        for round in 0..40 {
            let broken =
                if round < 5 { fixture.source.clone() } else { broken(&mut random, &fixture.source, &fixtures) };
            let broken = Bytes::from(if fixture.is_binary() { reframed(&broken) } else { broken });
            let (form, to) = (FORMS[random.below(5)], FORMS[if round < 5 { round } else { random.below(5) }]);
            let answer = Answer { form, headers: &fixture.head(), body: &broken };
            let mut found = None;
            let held = measure(|| found = render(fixture.endpoint, &answer, to, MAX_BYTES));
            let name = fixture.golden.display();
            assert!(held.bytes_max <= MOST_HELD, "{name} holds {} as {to:?}", held.bytes_max);
            rendered += u32::from(found.is_some());
        }
    }
    assert!(rendered > 100, "{rendered}");
}

#[test]
fn a_member_that_nobody_knows_survives_in_every_form_or_is_not_rendered() {
    let mut survived = 0;
    for fixture in fixtures().into_iter().filter(|fixture| !fixture.streams() && fixture.endpoint.forms().is_some()) {
        let changed = Bytes::from(fixture.changed(add_unknown));
        let answer = Answer { form: Form::Whole, headers: &fixture.head(), body: &changed };
        for form in [Form::Stream, Form::StreamWithUsage, Form::Array] {
            let Some(stream) = render(fixture.endpoint, &answer, form, 1 << 20) else { continue };
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, stream.content_type)]);
            let answer = Answer { form, headers: &headers, body: &stream.body };
            let name = fixture.golden.display();
            let Some(back) = render(fixture.endpoint, &answer, Form::Whole, 1 << 20) else { continue };
            let count = |body: &[u8]| String::from_utf8_lossy(body).matches("weir_unknown").count();
            assert_eq!(count(&back.body), count(&changed), "{name} as {form:?}");
            survived += 1;
        }
    }
    assert!(survived > 50, "{survived}");
}

#[test]
fn no_list_however_long_fills_the_memory() {
    const MOST: u64 = 4 << 20;
    let mut seen = Vec::new();
    for fixture in fixtures() {
        if fixture.streams() || seen.iter().filter(|endpoint| **endpoint == fixture.endpoint).count() > 2 {
            continue;
        }
        seen.push(fixture.endpoint);
        for start in values(&fixture.source) {
            let list = format!("[{}{{}}]", "{},".repeat(40_000));
            let reply = Bytes::from(with_value(&fixture.source, start, &list));
            let held = measure(|| {
                let mut reader = Reader::open(fixture.endpoint, fixture.status, &fixture.head(), 1 << 20);
                reader.push(&reply, &mut |_, _| {});
                let _ = reader.finish();
            });
            let name = fixture.golden.display();
            assert!(held.bytes_max <= MOST, "{name} holds {} with a long list at {start}", held.bytes_max);
        }
    }
}

#[test]
fn no_stream_however_long_fills_the_memory() {
    for fixture in fixtures().into_iter().filter(|fixture| fixture.streams() && !fixture.is_binary()) {
        let text = std::str::from_utf8(&fixture.source).expect("fixtures are text");
        let round = |round: u32| Bytes::from(text.replace("\"index\":0", &format!("\"index\":{round}")));
        let rounds: Vec<_> = (0..150).map(round).collect();
        let held = measure(|| {
            let mut reader = Reader::open(fixture.endpoint, fixture.status, &fixture.head(), MAX_BYTES);
            for piece in &rounds {
                reader.push(piece, &mut |_, _| {});
            }
            let _ = reader.finish();
        });
        assert!(held.bytes_max <= MOST_HELD, "{} holds {}", fixture.golden.display(), held.bytes_max);
    }
}

#[test]
fn no_broken_request_makes_its_reading_panic() {
    let fixtures = fixtures();
    let mut random = Random(3);
    for fixture in &fixtures {
        let (path, query) = fixture.path();
        for &endpoint in Endpoint::ALL {
            let broken = broken(&mut random, fixture.body().to_string().as_bytes(), &fixtures);
            let format = endpoint.format();
            if let Some(changed) = format.request_usage.and_then(|change| change(&broken)) {
                let still = serde_json::from_slice::<IgnoredAny>(&changed);
                assert!(still.is_ok(), "a changed request is still JSON: {}", changed.escape_ascii());
            }
            let path = String::from_utf8_lossy(&broken_at(&mut random, path.as_bytes())).into_owned();
            let Ok(body) = serde_json::from_slice(&broken) else { continue };
            let _ = (format.asked)(&Request { endpoint, path: &path, query, body: &body });
        }
    }
}

#[test]
fn a_field_that_nobody_knows_changes_nothing() {
    for fixture in fixtures().into_iter().filter(|fixture| std::str::from_utf8(&fixture.source).is_ok()) {
        let same = fixture.changed(|_| {});
        let changed = fixture.changed(add_unknown);
        assert_eq!(learn(&fixture, &changed), learn(&fixture, &same), "{}", fixture.golden.display());
    }
}

#[test]
fn an_event_that_nobody_knows_changes_nothing() {
    const UNKNOWN: &str = r#"{"type":"weir.unknown","weir":{"usage":null}}"#;
    for fixture in fixtures().into_iter().filter(Fixture::streams) {
        let text = std::str::from_utf8(&fixture.source).expect("fixtures are text");
        let changed = match fixture.content_type {
            EVENTS => {
                let gap = if text.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
                let unknown = format!("event: weir.unknown\ndata: {UNKNOWN}\n\n");
                text.split_inclusive(gap).flat_map(|event| [&*unknown, event]).collect::<String>().into_bytes()
            }
            BINARY => {
                let headers = json!({":message-type": "event", ":event-type": "weirUnknown"});
                let unknown = format!("{}\n", json!({ "headers": headers, "payload": {"weir": 1} }));
                let text: String = text.split_inclusive('\n').flat_map(|line| [&*unknown, line]).collect();
                eventstream(text.as_bytes())
            }
            "application/x-ndjson" => {
                let unknown = format!("{UNKNOWN}\n");
                text.split_inclusive('\n').flat_map(|line| [&*unknown, line]).collect::<String>().into_bytes()
            }
            _ => continue,
        };
        assert_eq!(learn(&fixture, &changed), learn(&fixture, &fixture.reply), "{}", fixture.golden.display());
    }
}

#[test]
fn a_model_that_nobody_knows_changes_only_the_model() {
    for fixture in fixtures() {
        let said = learn(&fixture, &fixture.reply);
        let Some(model) = said.facts.model.clone() else { continue };
        // Google bills searches by the prompt up to Gemini 2.5, by the search from Gemini 3 on.
        if said.usage.is_some_and(|usage| usage.get(Counter::WebSearches).is_some()) && model.starts_with("gemini-2") {
            continue;
        }
        let source = String::from_utf8(fixture.source.clone()).expect("fixtures are text");
        let renamed = source.replace(&format!("\"{model}\""), "\"weir-unknown-9\"");
        let renamed = if fixture.is_binary() { eventstream(renamed.as_bytes()) } else { renamed.into_bytes() };
        let mut changed = learn(&fixture, &renamed);
        assert!(changed.facts.model.is_some(), "{}", fixture.golden.display());
        changed.facts.model = Some(model);
        assert_eq!(changed, said, "{}", fixture.golden.display());
    }
}

#[test]
fn what_every_fixture_uses_adds_up() {
    for fixture in fixtures() {
        let Some(usage) = learn(&fixture, &fixture.reply).usage else { continue };
        let name = fixture.golden.display();
        let count = |counter| usage.get(counter).unwrap_or(0);
        let cached = count(Counter::CacheReadTokens) + count(Counter::CacheWriteTokens);
        assert!(cached <= count(Counter::InputTokens), "{name}: {cached} cached tokens, more than there are");
        assert_eq!(usage.tokens_by_class().iter().sum::<u64>(), usage.total_tokens(), "{name}");
        for &part in Counter::ALL {
            for &container in part.within() {
                let fits = usage.get(container).is_none_or(|whole| count(part) <= whole);
                assert!(fits, "{name}: {} above {}", part.name(), container.name());
            }
        }
    }
}

#[test]
fn absurd_counts_overflow_nothing() {
    const ABSURD: [&str; 6] =
        ["18446744073709551615", "18446744073709551614", "9223372036854775808", "1.8e19", "1e999", "-1"];
    let prices = Prices::load(&price::Settings::default(), Vec::new()).expect("the table that is compiled in");
    let mut random = Random(4);
    for fixture in fixtures() {
        for round in 0..6 {
            let mut absurd = || if round < 2 { ABSURD[0] } else { ABSURD[random.below(ABSURD.len())] };
            let source = with_counts(&fixture.source, &mut absurd);
            let reply = if fixture.is_binary() { reframed(&source) } else { source };
            let said = learn(&fixture, &reply);
            check(&said);
            for (provider, model) in
                [("openai", "gpt-5"), ("anthropic", "claude-opus-4-5"), ("google", "gemini-2.5-pro")]
            {
                let _ = prices.price(&Question {
                    source: &Source::Id(provider.into()),
                    response_model: None,
                    request_model: Some(model),
                    usage: said.usage.as_ref(),
                    context: &[],
                    at: SystemTime::UNIX_EPOCH,
                });
            }
        }
    }
}

impl Fixture {
    /// The reply with every JSON object of the protocol changed.
    fn changed(&self, change: impl Fn(&mut Map<String, Value>)) -> Vec<u8> {
        let text = std::str::from_utf8(&self.source).expect("fixtures are text");
        let json = |text: &str| {
            let mut value: Value = serde_json::from_str(text).ok()?;
            change_objects(&mut value, &change);
            Some(value.to_string())
        };
        if let Some(whole) = json(text).filter(|_| !self.is_binary()) {
            return whole.into_bytes();
        }
        let line = |line: &str| {
            let (text, end) = line.split_at(line.trim_end().len());
            if self.is_binary() {
                let mut message: Value = serde_json::from_str(text).unwrap_or_default();
                for part in ["payload", "bytes"] {
                    message.get_mut(part).into_iter().for_each(|part| change_objects(part, &change));
                }
                return format!("{message}{end}");
            }
            let (before, text) = text.strip_prefix("data:").map_or(("", text), |data| ("data:", data));
            json(text).map_or_else(|| line.to_owned(), |text| format!("{before}{text}{end}"))
        };
        let changed: String = text.split_inclusive('\n').map(line).collect();
        if self.is_binary() { eventstream(changed.as_bytes()) } else { changed.into_bytes() }
    }
}

/// Members that hold what is the app's own, whatever its shape: it is generated, and so part of the output.
const FREE: [&str; 6] = ["args", "arguments", "input", "parameters", "partialArgs", "partial_json"];

fn change_objects(value: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| change_objects(item, change)),
        Value::Object(members) => {
            for (_, value) in members.iter_mut().filter(|(name, _)| !FREE.contains(&&***name)) {
                change_objects(value, change);
            }
            change(members);
        }
        _ => {}
    }
}

fn add_unknown(members: &mut Map<String, Value>) {
    members.insert("weir_unknown".into(), json!({ "usage": [1, { "x": null }], "deep": [[[]]], "text": "\u{0}" }));
    members.shift_insert(0, "weir_before".into(), json!(-1.5e300));
}

/// What `reply` teaches in place of the fixture's own.
fn learn(fixture: &Fixture, reply: &[u8]) -> Said {
    let mut reader = Reader::open(fixture.endpoint, fixture.status, &fixture.head(), 1 << 20);
    reader.push(&Bytes::copy_from_slice(reply), &mut |_, _| {});
    reader.finish()
}

/// Reads `reply` in pieces, and checks all that must hold of it.
fn read(random: &mut Random, endpoint: Endpoint, content_type: &'static str, reply: &[u8]) {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    let status = [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS][random.below(3)];
    let longest = [7, 1000, usize::MAX >> 1][random.below(3)];
    let pieces: Vec<_> = random.pieces(reply, longest).into_iter().map(Bytes::copy_from_slice).collect();
    let mut said = None;
    let held = measure(|| {
        let mut reader = Reader::open(endpoint, status, &headers, MAX_BYTES);
        let mut last_end = 0;
        for piece in &pieces {
            reader.push(piece, &mut |_, span| {
                assert!(last_end <= span.start && span.start <= span.end && span.end <= reply.len() as u64);
                last_end = span.end;
            });
            assert!(reader.incomplete_from() >= last_end);
        }
        said = Some(reader.finish());
    });
    assert!(held.bytes_max <= MOST_HELD, "{endpoint:?} held {} for {} as {content_type}", held.bytes_max, reply.len());
    check(&said.expect("it was read"));
}

/// Checks that what was learnt is bounded, and that what was used adds up.
fn check(said: &Said) {
    let ReplyFacts { model, id, service_tier, speed, inference_geo, finish_reasons, tools, calls: _ } = &said.facts;
    assert!(tools.len() <= 128 && finish_reasons.len() <= 128);
    let single = [model, id, service_tier, speed, inference_geo].into_iter().flatten();
    assert!(single.chain(finish_reasons).chain(tools).all(|word| word.len() <= 128), "words are short");
    said.usage.iter().for_each(check_usage);
}

/// Leaves are disjoint: each counter once, none above its counter, and together no less than what they are leaves of.
fn check_usage(usage: &Usage) {
    let mut seen = Vec::new();
    for (counter, own) in usage.leaves() {
        assert!(!seen.contains(&counter) && Some(own) <= usage.get(counter));
        seen.push(counter);
    }
    let classes: u128 = usage.tokens_by_class().iter().map(|tokens| u128::from(*tokens)).sum();
    assert!(classes >= u128::from(usage.total_tokens()), "no token is lost");
}

/// `source` broken in one or two ways.
fn broken(random: &mut Random, source: &[u8], others: &[Fixture]) -> Vec<u8> {
    let mut broken = source.to_vec();
    for _ in 0..=random.below(2) {
        broken = match random.below(4) {
            0 => broken_at(random, &broken),
            1 => {
                let other = &others[random.below(others.len())];
                spliced(random, &broken, &other.source)
            }
            _ => with_odd_value(random, &broken),
        };
    }
    broken
}

/// A piece of `source` flipped, cut off, doubled, or followed by zeros.
fn broken_at(random: &mut Random, source: &[u8]) -> Vec<u8> {
    let at = random.below(source.len() + 1);
    let mut broken = source.to_vec();
    match random.below(4) {
        0 => {
            for _ in 0..8 {
                let at = random.below(source.len() + 1);
                let bit = random.below(8);
                broken.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
            }
        }
        1 => broken.truncate(at),
        2 => broken.extend_from_slice(&source[at..]),
        _ => drop(broken.splice(at..at, [0, 0, b'\\', b'u', b'd', b'8', b'0', b'0', 0xff])),
    }
    broken
}

/// The beginning of one, and the end of the other.
fn spliced(random: &mut Random, one: &[u8], other: &[u8]) -> Vec<u8> {
    let (end, start) = (random.below(one.len() + 1), random.below(other.len() + 1));
    [&one[..end], &other[start..]].concat()
}

/// `source` with one of its members' values replaced by one of another kind, or by an absurd one.
fn with_odd_value(random: &mut Random, source: &[u8]) -> Vec<u8> {
    const ODD: [&str; 16] = [
        "null",
        "true",
        "-1",
        "1.5",
        "1e999",
        "-0",
        "18446744073709551615",
        "18446744073709551616",
        "\"\"",
        "\"x\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "[]",
        "{}",
        "[[{}]]",
        "{\"text\":7}",
    ];
    let values = values(source);
    let Some(&start) = (!values.is_empty()).then(|| &values[random.below(values.len())]) else {
        return source.to_vec();
    };
    let odd = match random.below(40) {
        0 => "[".repeat(10_000),
        1 => "{\"a\":".repeat(10_000),
        2 => format!("{}0{}", "[".repeat(10_000), "]".repeat(10_000)),
        3 => "9".repeat(10_000),
        4 => format!("[{}{{}}]", "{},".repeat(2000)),
        5 => format!("[{}1]", "1,".repeat(3000)),
        6 => format!("[{}[]]", "[],".repeat(2000)),
        other => ODD[other % ODD.len()].to_owned(),
    };
    with_value(source, start, &odd)
}

/// Where the values of members begin.
fn values(source: &[u8]) -> Vec<usize> {
    source.windows(2).enumerate().filter(|(_, two)| *two == b"\":").map(|(at, _)| at + 2).collect()
}

/// `source` with another value in place of the one that begins at `start`, as far as that is easily told.
fn with_value(source: &[u8], start: usize, value: &str) -> Vec<u8> {
    let length = source[start..].iter().position(|byte| b",}]\n".contains(byte)).unwrap_or(0);
    [&source[..start], value.as_bytes(), &source[start + length..]].concat()
}

/// `broken` in the framing that `content_type` promises, where chance has it so.
fn framed(random: &mut Random, content_type: &str, broken: Vec<u8>) -> Vec<u8> {
    const NAMES: [&str; 6] =
        ["chunk", "messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata"];
    let lines = broken.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    match (content_type, random.below(4)) {
        (_, 0) => broken,
        (BINARY, _) => lines
            .flat_map(|line| {
                let name = NAMES[random.below(NAMES.len())];
                message_of(&[(":message-type", "event"), (":event-type", name)], line)
            })
            .collect(),
        (EVENTS, _) if !broken.windows(5).any(|five| five == b"data:") => {
            lines.flat_map(|line| [b"data: ", line, b"\n\n"].concat()).collect()
        }
        _ => broken,
    }
}

/// The binary stream of a broken source: a line that is still JSON is still a message.
fn reframed(source: &[u8]) -> Vec<u8> {
    let lines = source.split(|byte| *byte == b'\n');
    let sound = lines.filter(|line| {
        let line: Value = serde_json::from_slice(line).unwrap_or_default();
        line["headers"].as_object().is_some_and(|headers| headers.values().all(Value::is_string))
    });
    sound.flat_map(eventstream).collect()
}

/// `source` with every whole number that is a member's value replaced.
fn with_counts<'a>(source: &[u8], absurd: &mut impl FnMut() -> &'a str) -> Vec<u8> {
    let mut changed = Vec::with_capacity(source.len() * 2);
    let mut rest = source;
    while let Some(colon) = rest.windows(2).position(|two| two == b"\":") {
        let (before, after) = rest.split_at(colon + 2);
        changed.extend_from_slice(before);
        let spaces = after.iter().take_while(|byte| **byte == b' ').count();
        let digits = after[spaces..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            changed.extend_from_slice(absurd().as_bytes());
        }
        rest = if digits > 0 { &after[spaces + digits..] } else { after };
    }
    changed.extend_from_slice(rest);
    changed
}
