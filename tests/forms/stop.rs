//! Stop: streams that weir ends early, over all fixtures: cut after each of their events, and ended there.
//!
//! weir's own reader, which knows what each API promises, has to find them complete, and as long as they were allowed to
//! be. What has no such end is listed here by name, so that nothing is broken off unseen.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::StatusCode;
use weir::provider::endpoint::Endpoint;
use weir::provider::reader::Reader;
use weir::provider::stop::UsedSoFar;
use weir::provider::{Ending, Problem, Said};
use weir::record::usage::Counter;

use crate::fixture::{Fixture, fixtures};

const MAX_BYTES: usize = 1 << 20;

/// How each API says that an answer was as long as it was allowed to be.
const REASONS: [&str; 5] = ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "limit"];

const USED: UsedSoFar = UsedSoFar { input: 12, output: 7 };

/// Streams of formats without an end that says so: they end with an error.
const ENDED_BY_AN_ERROR: [&str; 15] = [
    "bedrock/invoke_stream_gpt_oss",
    "bedrock/invoke_stream_llama",
    "bedrock/invoke_stream_mistral",
    "bedrock/invoke_stream_mistral_chat",
    "bedrock/invoke_stream_nova",
    "bedrock/invoke_stream_titan",
    "gemini/interaction_stream",
    "gemini/interaction_stream_error",
    "gemini/interaction_stream_tools",
    "gemini/interaction_stream_truncated",
    "local/tgi_stream",
    "local/tgi_stream_error",
    "local/tgi_stream_older",
    "local/tgi_stream_truncated",
    "local/tgi_stream_without_details",
];

fn reader(fixture: &Fixture) -> Reader {
    Reader::open(fixture.endpoint, fixture.status, &fixture.head(), MAX_BYTES)
}

fn read(fixture: &Fixture, stream: &[u8]) -> Said {
    let mut reader = reader(fixture);
    reader.push(&Bytes::copy_from_slice(stream), &mut |_, _| {});
    reader.finish()
}

/// Where the events of a stream end.
fn ends(fixture: &Fixture) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut reader = reader(fixture);
    reader.push(&Bytes::copy_from_slice(&fixture.reply), &mut |_, span| {
        ends.push(usize::try_from(span.end).expect("small"));
    });
    ends
}

/// A stream that came as far as `beginning`, and what it is ended with.
fn ended(fixture: &Fixture, beginning: &[u8]) -> (Reader, Option<Vec<u8>>) {
    let mut reader = reader(fixture);
    assert!(reader.prepare_to_stop(fixture.endpoint), "{}", fixture.name());
    reader.push(&Bytes::copy_from_slice(beginning), &mut |_, _| {});
    let ending = reader.ending(USED);
    (reader, ending)
}

/// Whether streams of this kind are never stopped: nothing in them is counted as text while it comes.
fn is_never_stopped(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::Images | Endpoint::Speech | Endpoint::Transcription)
}

#[test]
fn a_stream_is_complete_wherever_it_is_ended() {
    let mut by_error = BTreeSet::new();
    let mut told = 0;
    for fixture in fixtures().iter().filter(|fixture| fixture.streams() && fixture.status == StatusCode::OK) {
        if is_never_stopped(fixture.endpoint) {
            assert!(!reader(fixture).prepare_to_stop(fixture.endpoint), "{}", fixture.name());
            continue;
        }
        for end in ends(fixture) {
            let beginning = &fixture.reply[..end];
            let before = read(fixture, beginning);
            if before.ending == Ending::Failed {
                continue;
            }
            let (reader, ending) = ended(fixture, beginning);
            let Some(ending) = ending else {
                assert_eq!(reader.generated(), 0, "{} cannot be ended at {end}", fixture.name());
                continue;
            };
            let after = read(fixture, &[beginning, &ending].concat());
            let text = String::from_utf8_lossy(&ending);
            if after.ending == Ending::Failed {
                by_error.insert(fixture.name());
                continue;
            }
            let context = format!("{} ended at {end} with {text}", fixture.name());
            assert!(matches!(after.ending, Ending::Complete | Ending::Declined), "{:?} {context}", after.ending);
            assert_eq!(after.output, before.output, "nothing is said in the model's place: {context}");
            let is_long = after.facts.finish_reasons.iter().any(|reason| REASONS.contains(&&**reason));
            let was_over = ending.is_empty() || !before.facts.finish_reasons.is_empty();
            assert!(is_long || was_over, "{:?} {context}", after.facts);
            told += 1;
        }
    }
    assert_eq!(by_error.iter().map(String::as_str).collect::<Vec<_>>(), ENDED_BY_AN_ERROR);
    assert!(told > 300, "{told}");
}

#[test]
fn a_stream_that_is_out_of_time_fails_in_the_words_of_its_api() {
    let problem = Problem {
        status: StatusCode::GATEWAY_TIMEOUT,
        code: "timeout",
        message: "out of \"time\"",
        request_id: "1",
        retry_after: None,
    };
    let mut told = 0;
    for fixture in fixtures().iter().filter(|fixture| fixture.streams() && fixture.status == StatusCode::OK) {
        for end in ends(fixture) {
            let beginning = &fixture.reply[..end];
            if read(fixture, beginning).ending == Ending::Failed {
                continue;
            }
            let failure = |beginning: &[u8]| {
                let mut reader = reader(fixture);
                reader.push(&Bytes::copy_from_slice(beginning), &mut |_, _| {});
                reader.failure(&problem)
            };
            // Where an event ends by what follows it, nothing can follow it but the rest.
            let Some(failure) = failure(beginning) else { continue };
            let after = read(fixture, &[beginning, &failure].concat());
            let text = String::from_utf8_lossy(&failure);
            let is_over = matches!(read(fixture, beginning).ending, Ending::Complete | Ending::Declined);
            assert!(
                after.ending == Ending::Failed || is_over,
                "{:?}: {} at {end}: {text}",
                after.ending,
                fixture.name()
            );
            assert!(failure.windows(7).any(|part| part == b"out of "), "{}: {text}", fixture.name());
            told += 1;
        }
        let mut torn = reader(fixture);
        torn.push(&Bytes::copy_from_slice(&fixture.reply[..ends(fixture)[0] - 3]), &mut |_, _| {});
        assert_eq!(torn.failure(&problem), None, "{}: in the middle of an event", fixture.name());
    }
    assert!(told > 300, "{told}");
}

#[test]
fn a_stream_that_is_over_needs_no_end() {
    for fixture in fixtures().iter().filter(|fixture| fixture.streams() && fixture.status == StatusCode::OK) {
        let said = read(fixture, &fixture.reply);
        if is_never_stopped(fixture.endpoint) || !matches!(said.ending, Ending::Complete | Ending::Declined) {
            continue;
        }
        let end = ends(fixture).pop().expect("an event");
        let (_, ending) = ended(fixture, &fixture.reply[..end]);
        let closed: &[u8] = if fixture.content_type.starts_with("application/json") { b"]" } else { b"" };
        assert_eq!(ending.as_deref(), Some(closed), "{}", fixture.name());
    }
}

#[test]
fn what_an_end_says_of_usage_is_what_was_used_so_far() {
    for (wanted, input) in [("bedrock/converse_stream", Some(USED.input)), ("anthropic/stream_tools", None)] {
        let all = fixtures();
        let fixture = all.iter().find(|fixture| fixture.name() == wanted).expect("it is there");
        let cut = ends(fixture)[3];
        let (_, ending) = ended(fixture, &fixture.reply[..cut]);
        let said = read(fixture, &[&fixture.reply[..cut], &ending.expect("an end")].concat());
        let usage = said.usage.expect("usage");
        assert_eq!(usage.get(Counter::OutputTokens), Some(USED.output), "{wanted}");
        assert!(input.is_none() || usage.get(Counter::InputTokens) == input, "{wanted}");
    }
}

#[test]
fn a_stream_in_a_coding_or_without_a_stream_cannot_be_ended() {
    let all = fixtures();
    let fixture = all.iter().find(|fixture| fixture.name() == "openai/chat_stream").expect("it is there");
    let mut head = fixture.head();
    head.insert(http::header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    let mut coded = Reader::open(fixture.endpoint, fixture.status, &head, MAX_BYTES);
    assert!(!coded.prepare_to_stop(fixture.endpoint));
    let whole = all.iter().find(|fixture| fixture.name() == "openai/chat_tools").expect("it is there");
    assert!(!reader(whole).prepare_to_stop(whole.endpoint));
    let unprepared = reader(fixture);
    assert_eq!(unprepared.ending(USED), None);
}
