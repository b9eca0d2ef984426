//! Wire: every fixture is read as weir reads a reply while it passes, and what is learnt is compared with its golden.
//!
//! However a reply is cut, framed and coded, the same must be learnt: each one is read whole, byte by byte, in random
//! pieces and compressed; streams also cut in two at every byte, and with other line ends. What the fixtures cover is
//! computed from their goldens. `UPDATE_EXPECT=1` rewrites the goldens.

mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;
use http::header::CONTENT_ENCODING;
use serde_json::{Value, json};
use weir::provider::endpoint::Endpoint;
use weir::provider::reader::Reader;
use weir::provider::{Asked, Ending, EventKind, Request, Reuse, Said, UsageRequest};
use weir::record::ReplyFacts;
use weir::record::call::{Delivery, Operation};
use weir::record::usage::Counter;

use crate::fixture::random::Random;
use crate::fixture::{EVENTS, FOLDERS, Fixture, eventstream, fixtures};

const MAX_BYTES: usize = 1 << 20;

/// What no reply in the fixtures reports: a request's own measure, every call's one, or what no model does yet.
const UNREPORTED: [Counter; 4] =
    [Counter::InputCharacters, Counter::Requests, Counter::AudioSeconds, Counter::OutputVideoTokens];

/// What was learnt of a reply.
#[derive(Clone, Debug, PartialEq)]
struct Learnt {
    said: Said,
    events: Vec<(EventKind, Range<u64>)>,
}

impl Fixture {
    /// Reads `pieces` as this fixture's reply.
    fn learn<'a>(&self, coding: Option<&'static str>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Learnt {
        let mut headers = self.head();
        headers.extend(coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding))));
        let mut reader = Reader::open(self.endpoint, self.status, &headers, MAX_BYTES);
        assert_eq!(reader.is_plain(), coding.is_none());
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(&Bytes::copy_from_slice(piece), &mut |kind, span| events.push((kind, span)));
        }
        Learnt { said: reader.finish(), events }
    }

    /// Asserts that the reply teaches the same however it is cut; what that is.
    fn learn_in_every_cut(&self, reply: &[u8]) -> Learnt {
        let name = self.golden.display();
        let learnt = self.learn(None, [reply]);
        let cuts = if self.streams() { 0..=reply.len() } else { 0..=2 };
        for cut in cuts {
            let (head, tail) = reply.split_at(cut);
            assert_eq!(self.learn(None, [head, tail]), learnt, "{name} cut at {cut}");
        }
        assert_eq!(self.learn(None, reply.chunks(1)), learnt, "{name} byte by byte");
        learnt
    }

    /// The folder it is in.
    fn folder(&self) -> &str {
        self.golden.parent().and_then(|folder| folder.file_name()?.to_str()).expect("a folder")
    }

    /// What it is an example of, as its golden says: pairs of a kind and one of that kind.
    fn shows(&self) -> Vec<(String, String)> {
        let golden: Value =
            serde_json::from_slice(&fs::read(&self.golden).expect("a golden")).expect("goldens are JSON");
        let (asked, said) = (&golden["asked"], &golden["said"]);
        let [delivery, operation, ending] = [&asked["delivery"], &asked["operation"], &said["ending"]];
        let [delivery, operation, ending] = [delivery, operation, ending].map(|text| text.as_str().expect("a text"));
        let endpoint = format!("{:?}", self.endpoint);
        let folder = self.folder();
        let mut shows = vec![(folder, delivery), (operation, delivery), ("ending", ending), ("endpoint", &endpoint)];
        if said["usage"]["cache_read_tokens"].as_u64().is_some_and(|tokens| tokens > 0) {
            shows.push((folder, "cached"));
        }
        if said["tools"].as_array().is_some_and(|tools| !tools.is_empty()) {
            shows.push((folder, "tools"));
        }
        if ending == "failed" {
            shows.push((folder, "failed"));
        }
        shows.extend(said["usage"].as_object().into_iter().flatten().map(|(counter, _)| ("counter", counter.as_str())));
        shows.into_iter().map(|(kind, what)| (kind.to_owned(), what.to_owned())).collect()
    }

    fn kinds(learnt: &Learnt) -> Vec<EventKind> {
        learnt.events.iter().map(|(kind, _)| *kind).collect()
    }
}

#[test]
fn every_fixture_reads_as_its_golden_says() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    for fixture in fixtures() {
        let body = fixture.body().to_string();
        let body = serde_json::from_str(&body).expect("a body is JSON");
        let (path, query) = fixture.path();
        let asked =
            (fixture.endpoint.format().asked)(&Request { endpoint: fixture.endpoint, path, query, body: &body });
        let learnt = fixture.learn(None, [&fixture.reply[..]]);
        let read = format!("{:#}\n", json!({ "asked": asked_json(&asked), "said": learnt_json(&learnt) }));
        if update {
            fs::write(&fixture.golden, &read).expect("the golden can be written");
        }
        let golden = fs::read_to_string(&fixture.golden).unwrap_or_default();
        assert_eq!(read, golden, "{} (UPDATE_EXPECT=1 rewrites it)", fixture.golden.display());
    }
}

/// What of the providers' many habits the fixtures show at least once, folder by folder: nobody removes the last fixture
/// of a kind unseen.
#[test]
fn the_fixtures_cover_every_folder_operation_and_kind_of_reply() {
    const CAPABLE: [&str; 8] = ["anthropic", "azure", "bedrock", "cohere", "gemini", "groq", "openai", "vertex"];
    let fixtures = fixtures();
    assert!(fixtures.len() >= 250, "{} fixtures", fixtures.len());
    let shown: BTreeSet<(String, String)> = fixtures.iter().flat_map(Fixture::shows).collect();
    let assert_shown = |kind: &str, what: &str| {
        assert!(shown.contains(&(kind.to_owned(), what.to_owned())), "no fixture shows {kind}: {what}");
    };
    for (folder, _) in FOLDERS {
        assert_shown(folder, "whole");
        // Databricks says nothing of its streams that OpenAI does not.
        if folder != "databricks" {
            assert_shown(folder, "stream");
        }
    }
    for folder in CAPABLE {
        for what in ["cached", "tools", "failed"] {
            assert_shown(folder, what);
        }
    }
    for operation in Endpoint::ALL.iter().filter(|endpoint| endpoint.is_read()).map(|endpoint| endpoint.operation()) {
        assert_shown(operation.as_str(), "whole");
    }
    for operation in [Operation::Chat, Operation::TextCompletion, Operation::GenerateContent, Operation::Speech] {
        assert_shown(operation.as_str(), "stream");
    }
    for endpoint in Endpoint::ALL.iter().filter(|endpoint| endpoint.is_read()) {
        assert_shown("endpoint", &format!("{endpoint:?}"));
    }
    for ending in [Ending::Complete, Ending::Declined, Ending::Failed, Ending::Unfinished, Ending::Unknown] {
        assert_shown("ending", &format!("{ending:?}").to_lowercase());
    }
    for counter in Counter::ALL.iter().filter(|counter| !UNREPORTED.contains(counter)) {
        assert_shown("counter", counter.name());
    }
}

/// What each fixture with tools asks the app to do: nothing, where the tools are the provider's own. Whole or streamed,
/// spelt as a text or as an object, the same calls have the same fingerprint.
#[test]
fn what_the_app_is_to_do_is_told_by_the_names_and_arguments_of_its_tools() {
    let (oslo, lyon, ulm, ghent) =
        (r#"{"city":"Oslo"}"#, r#"{"city":"Lyon"}"#, r#"{"city":"Ulm"}"#, r#"{"city":"Ghent"}"#);
    let (paris, zone, saturn) = (r#"{"city":"Paris"}"#, r#"{"zone":"Europe/Paris"}"#, r#"{"planet":"Saturn"}"#);
    let partial =
        r#"[{"jsonPath":"$.city","stringValue":"Pa","willContinue":true}][{"jsonPath":"$.city","stringValue":"ris"}]"#;
    let calls_of = |name: &str| match name {
        "anthropic/stream_tools"
        | "anthropic/tool_use"
        | "openai/responses_tools"
        | "openai/responses_stream_tools"
        | "openai/chat_function_call" => vec![("weather", oslo)],
        "openai/chat_tools" | "openai/chat_stream_tools" => vec![("weather", oslo), ("local_time", oslo)],
        "openai/responses_stream_truncated" => vec![("weather", "")],
        "bedrock/converse_tools" => vec![("weather", lyon), ("weather", oslo)],
        "bedrock/converse_stream_tools"
        | "bedrock/invoke_anthropic_tools"
        | "bedrock/invoke_stream_anthropic_tools"
        | "bedrock/invoke_command_r" => vec![("weather", lyon)],
        "cohere/chat_tools"
        | "cohere/chat_stream_tools"
        | "cohere/chat_v1_tools"
        | "ollama/chat_tools"
        | "ollama/chat_stream_tools" => vec![("weather", ulm), ("weather", ghent)],
        "cohere/chat_v1_stream_tools" => vec![("weather", ulm)],
        "gemini/generate_tools" | "gemini/stream_tools" => vec![("weather", paris), ("time", zone)],
        "gemini/array_tools" | "gemini/interaction_tools" | "gemini/interaction_stream_tools" => {
            vec![("weather", paris)]
        }
        "vertex/stream_partial_args" => vec![("weather", partial)],
        _ if name.ends_with("/chat_tools") || name.ends_with("/chat_stream_tools") => vec![("moons_of", saturn)],
        _ => vec![],
    };
    for fixture in fixtures() {
        let learnt = fixture.learn(None, [&fixture.reply[..]]).said.facts;
        let file = fixture.golden.file_name().and_then(|name| name.to_str()).expect("a file");
        let name = format!("{}/{}", fixture.folder(), file.trim_end_matches(".record.json"));
        let mut expected = ReplyFacts::default();
        for (tool, arguments) in calls_of(&name) {
            expected.call(tool);
            expected.argue(arguments);
        }
        assert_eq!(learnt.calls, expected.calls, "{name}: {:?}", learnt.tools);
    }
}

#[test]
fn where_a_reply_is_cut_changes_nothing() {
    for fixture in fixtures() {
        fixture.learn_in_every_cut(&fixture.reply);
    }
}

#[test]
fn the_kind_of_line_end_changes_nothing() {
    for fixture in fixtures().iter().filter(|fixture| fixture.streams() && !fixture.is_binary()) {
        let text = std::str::from_utf8(&fixture.source).expect("fixtures are text").replace("\r\n", "\n");
        let with_lf = fixture.learn(None, [text.as_bytes()]);
        let with_crlf = fixture.learn_in_every_cut(text.replace('\n', "\r\n").as_bytes());
        assert_eq!(with_crlf.said, with_lf.said, "{} with CRLF", fixture.golden.display());
        // Lines of JSON never end with a CR alone.
        if fixture.content_type == EVENTS {
            let with_cr = fixture.learn(None, text.replace('\n', "\r").as_bytes().chunks(1));
            assert_eq!(with_cr.said, with_lf.said, "{} with CR", fixture.golden.display());
        }
    }
}

#[test]
fn random_pieces_change_nothing() {
    for (number, fixture) in fixtures().iter().enumerate() {
        let learnt = fixture.learn(None, [&fixture.reply[..]]);
        for (seed, longest) in (0..).zip([2, 16, 100, 1500]) {
            let mut random = Random(1000 * seed + number as u64);
            let pieces = random.pieces(&fixture.reply, longest);
            assert_eq!(fixture.learn(None, pieces), learnt, "{} with seed {seed}", fixture.golden.display());
        }
    }
}

#[test]
fn compression_changes_nothing() {
    for (number, fixture) in fixtures().iter().enumerate() {
        let learnt = fixture.learn(None, [&fixture.reply[..]]);
        for (coding, coded) in [
            ("gzip", coded(GzEncoder::new(Vec::new(), Compression::default()), &fixture.reply).finish()),
            ("deflate", coded(ZlibEncoder::new(Vec::new(), Compression::default()), &fixture.reply).finish()),
            ("br", Ok(coded(brotli::CompressorWriter::new(Vec::new(), 4096, 4, 18), &fixture.reply).into_inner())),
        ] {
            let coded = coded.expect("into memory");
            let name = fixture.golden.display();
            // That decoding is indifferent to every cut is proved where it is done.
            for size in [1, 3, 7, 101, coded.len()] {
                let pieces = coded.chunks(size);
                assert_eq!(fixture.learn(Some(coding), pieces), learnt, "{name} in {coding} by {size}");
            }
            let pieces = Random(number as u64).pieces(&coded, 40);
            assert_eq!(fixture.learn(Some(coding), pieces), learnt, "{name} in {coding} by chance");
        }
    }
}

/// `reply` through `encoder`, which lets each line go at once, as servers of streams do.
fn coded<W: Write>(mut encoder: W, reply: &[u8]) -> W {
    for line in reply.split_inclusive(|byte| *byte == b'\n') {
        encoder.write_all(line).expect("into memory");
        encoder.flush().expect("into memory");
    }
    encoder
}

#[test]
fn a_stream_that_is_cut_short_is_never_complete() {
    for fixture in fixtures().iter().filter(|fixture| fixture.streams()) {
        let whole = fixture.learn(None, [&fixture.reply[..]]);
        if !matches!(whole.said.ending, Ending::Complete | Ending::Declined) {
            continue;
        }
        // In text, the end marker is good without the line ends after it.
        let end = if fixture.is_binary() { fixture.reply.len() } else { fixture.reply.trim_ascii_end().len() };
        for length in 0..end {
            let ending = fixture.learn(None, [&fixture.reply[..length]]).said.ending;
            assert_eq!(ending, Ending::Unfinished, "{} cut short at {length}", fixture.golden.display());
        }
    }
}

#[test]
fn without_its_usage_chunk_a_stream_is_what_it_would_have_been() {
    for fixture in fixtures().iter().filter(|fixture| fixture.streams()) {
        let learnt = fixture.learn(None, [&fixture.reply[..]]);
        let usage_only: Vec<_> = learnt.events.iter().filter(|(kind, _)| *kind == EventKind::UsageOnly).collect();
        let Some((_, span)) = usage_only.first() else { continue };
        assert_eq!(usage_only.len(), 1, "{}", fixture.golden.display());
        let (from, to) = (usize::try_from(span.start).expect("short"), usize::try_from(span.end).expect("short"));
        let mut rest = fixture.reply.clone();
        let removed: Vec<u8> = rest.drain(from..to).collect();
        assert!(removed.starts_with(b"data: {") && removed.ends_with(b"}\n\n"));
        let without = fixture.learn(None, [&rest[..]]);
        assert_eq!(without.said.facts, learnt.said.facts);
        assert_eq!(without.said.ending, learnt.said.ending);
        let kinds: Vec<_> = Fixture::kinds(&learnt).into_iter().filter(|kind| *kind != EventKind::UsageOnly).collect();
        assert_eq!(Fixture::kinds(&without), kinds);
    }
}

#[test]
fn a_binary_stream_that_is_damaged_is_never_complete() {
    for fixture in fixtures().iter().filter(|fixture| fixture.is_binary()) {
        let whole = fixture.learn(None, [&fixture.reply[..]]).said;
        for at in 0..fixture.reply.len() {
            let mut damaged = fixture.reply.clone();
            damaged[at] ^= 1;
            let ending = fixture.learn(None, [&damaged[..]]).said.ending;
            let expected = if whole.ending == Ending::Failed { ending } else { Ending::Unfinished };
            assert_eq!(ending, expected, "{} damaged at {at}", fixture.golden.display());
        }
    }
}

#[test]
fn the_tests_encode_event_streams_as_another_program_does() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bedrock/converse_stream.eventstream");
    let source = fs::read(sample.with_extension("eventstream.jsonl")).expect("it has a source");
    assert_eq!(eventstream(&source), fs::read(sample).expect("it is there"));
}

fn asked_json(asked: &Asked<'_>) -> Value {
    json!({
        "model": asked.model,
        "operation": asked.operation.as_str(),
        "delivery": match asked.delivery { Delivery::Whole => "whole", Delivery::Stream => "stream" },
        "user": asked.user,
        "usage": match asked.usage { UsageRequest::Unneeded => "unneeded", UsageRequest::Missing => "missing" },
        "reuse": match asked.reuse { Reuse::Allowed(_) => "allowed", Reuse::Never => "never" },
        "counted": asked.counted.map(|(counter, count)| format!("{count} {}", counter.name())),
    })
}

fn learnt_json(learnt: &Learnt) -> Value {
    let Said { facts, usage, provider_cost, output, ending, text: _ } = &learnt.said;
    let counts = usage.as_ref().map(|usage| {
        let counters = Counter::ALL.iter();
        let counts = counters.filter_map(|counter| Some((counter.name().to_owned(), json!(usage.get(*counter)?))));
        Value::Object(counts.collect())
    });
    let events: Vec<_> = Fixture::kinds(learnt).into_iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
    json!({
        "model": facts.model,
        "id": facts.id,
        "service_tier": facts.service_tier,
        "speed": facts.speed,
        "inference_geo": facts.inference_geo,
        "finish_reasons": facts.finish_reasons,
        "tools": facts.tools,
        "usage": counts,
        "provider_cost": provider_cost.map(|cost| cost.to_string()),
        "output": output.text(),
        "ending": format!("{ending:?}").to_lowercase(),
        "events": events.join(" "),
    })
}
