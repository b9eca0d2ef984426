//! Wire: every fixture is read as weir reads a reply while it passes, and what is learnt is compared with its golden.
//!
//! However a reply is cut, framed and coded, the same must be learnt: each one is read whole, byte by byte and
//! compressed; streams also cut in two at every byte, and with other line ends. `UPDATE_EXPECT=1` rewrites the goldens.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use weir::provider::endpoint::Endpoint;
use weir::provider::reader::Reader;
use weir::provider::{Api, Asked, Ending, EventKind, Request, Reuse, Said, UsageRequest};
use weir::record::call::Delivery;
use weir::record::usage::Counter;

const MAX_BYTES: usize = 1 << 20;

/// The content types of replies, by how the names of their files end.
const CONTENT_TYPES: [(&str, &str); 7] = [
    ("response.json", "application/json"),
    ("sse", EVENTS),
    ("stream.json", "application/json; charset=UTF-8"),
    ("ndjson", "application/x-ndjson"),
    ("eventstream.jsonl", BINARY),
    ("txt", "text/plain; charset=utf-8"),
    ("mp3", "audio/mpeg"),
];

/// A stream of server-sent events.
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// A stream of binary messages: its file holds their source.
const BINARY: &str = "application/vnd.amazon.eventstream";

/// One exchange: what was asked, and what came back.
struct Fixture {
    endpoint: Endpoint,
    status: StatusCode,
    content_type: &'static str,
    /// What the head of the reply says beside.
    headers: HeaderMap,
    request: Value,
    reply: Vec<u8>,
    golden: PathBuf,
}

/// What was learnt of a reply.
#[derive(Clone, Debug, PartialEq)]
struct Learnt {
    said: Said,
    events: Vec<(EventKind, Range<u64>)>,
}

/// The folders, and the API that their paths are of.
const FOLDERS: [(&str, Api); 22] = [
    ("anthropic", Api::Anthropic),
    ("azure", Api::AzureOpenAi),
    ("cerebras", Api::OpenAi),
    ("databricks", Api::OpenAi),
    ("deepseek", Api::OpenAi),
    ("fireworks", Api::OpenAi),
    ("groq", Api::OpenAi),
    ("huggingface", Api::OpenAi),
    ("mistral", Api::OpenAi),
    ("moonshot", Api::OpenAi),
    ("openrouter", Api::OpenAi),
    ("perplexity", Api::OpenAi),
    ("together", Api::OpenAi),
    ("vllm", Api::OpenAi),
    ("xai", Api::OpenAi),
    ("bedrock", Api::Bedrock),
    ("cohere", Api::Cohere),
    ("gemini", Api::Gemini),
    ("local", Api::OpenAi),
    ("ollama", Api::Ollama),
    ("openai", Api::OpenAi),
    ("vertex", Api::VertexAi),
];

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut fixtures: Vec<_> = FOLDERS
        .into_iter()
        .flat_map(|(folder, api)| {
            let files = fs::read_dir(root.join(folder)).expect("the folder is there");
            let paths = files.map(|file| file.expect("readable").path());
            paths.filter_map(move |path| Fixture::read(api, &path)).collect::<Vec<_>>()
        })
        .collect();
    fixtures.sort_by(|one, other| one.golden.cmp(&other.golden));
    fixtures
}

impl Fixture {
    /// The fixture whose request is at `path`; `None` if that is another file.
    fn read(api: Api, path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".request.json")?;
        let request: Value = serde_json::from_slice(&fs::read(path).ok()?).expect("a request is JSON");
        let beside = |end: &str| path.with_file_name(format!("{name}.{end}"));
        let reply = |(end, content_type)| Some((content_type, fs::read(beside(end)).ok()?));
        let (content_type, reply) = CONTENT_TYPES.into_iter().find_map(reply).expect("a request has a reply");
        let below = request["path"].as_str().expect("a path").split('?').next().expect("a first part");
        let endpoint = (api.dialect().endpoint)(&Method::POST, below);
        assert_ne!(endpoint, Endpoint::Other, "{name}");
        // `error_429` came with status 429.
        let status = name.rsplit('_').next().and_then(|last| last.parse().ok()).unwrap_or(200);
        Some(Self {
            endpoint,
            status: StatusCode::from_u16(status).expect("a status"),
            content_type,
            headers: fs::read(beside("headers.json")).map(|json| headers(&json)).unwrap_or_default(),
            request,
            reply: if content_type == BINARY { eventstream(&reply) } else { reply },
            golden: beside("record.json"),
        })
    }

    /// Reads `pieces` as this fixture's reply.
    fn learn<'a>(&self, coding: Option<&'static str>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Learnt {
        let mut headers = self.headers.clone();
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(self.content_type));
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

    /// Whether the reply is a stream.
    fn streams(&self) -> bool {
        !["application/json", "text/plain; charset=utf-8", "audio/mpeg"].contains(&self.content_type)
    }

    /// Whether the reply is a stream of binary messages.
    fn is_binary(&self) -> bool {
        self.content_type == BINARY
    }

    fn kinds(learnt: &Learnt) -> Vec<EventKind> {
        learnt.events.iter().map(|(kind, _)| *kind).collect()
    }
}

#[test]
fn every_fixture_reads_as_its_golden_says() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    for fixture in fixtures() {
        // A form is read as an object of its text fields.
        let body = [&fixture.request["body"], &fixture.request["form"]].into_iter().find(|body| !body.is_null());
        let body = body.expect("a body or a form").to_string();
        let body = serde_json::from_str(&body).expect("a body is JSON");
        let path = fixture.request["path"].as_str().expect("a path");
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
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

#[test]
fn where_a_reply_is_cut_changes_nothing() {
    for fixture in fixtures() {
        fixture.learn_in_every_cut(&fixture.reply);
    }
}

#[test]
fn the_kind_of_line_end_changes_nothing() {
    for fixture in fixtures().iter().filter(|fixture| fixture.streams() && !fixture.is_binary()) {
        let text = std::str::from_utf8(&fixture.reply).expect("fixtures are text").replace("\r\n", "\n");
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
fn compression_changes_nothing() {
    for fixture in fixtures() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for event in fixture.reply.split_inclusive(|byte| *byte == b'\n') {
            encoder.write_all(event).expect("into memory");
            encoder.flush().expect("into memory");
        }
        let compressed = encoder.finish().expect("into memory");
        let learnt = fixture.learn(None, [&fixture.reply[..]]);
        // That decoding is indifferent to every cut is proved where it is done.
        for size in [1, 2, 3, 5, 7, 11, 101, compressed.len()] {
            let pieces = compressed.chunks(size);
            assert_eq!(fixture.learn(Some("gzip"), pieces), learnt, "{} by {size}", fixture.golden.display());
        }
    }
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

/// Header fields from a JSON object.
fn headers(json: &[u8]) -> HeaderMap {
    let fields: BTreeMap<String, String> = serde_json::from_slice(json).expect("an object of texts");
    let field = |(name, value): (String, String)| {
        (name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"))
    };
    fields.into_iter().map(field).collect()
}

/// The binary stream of a source with one message a line.
fn eventstream(source: &[u8]) -> Vec<u8> {
    let lines = source.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.flat_map(|line| message(&serde_json::from_slice(line).expect("a line is JSON"))).collect()
}

/// A message of a binary stream: `bytes` stands for the piece that the payload holds in base64.
fn message(source: &Value) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in source["headers"].as_object().expect("headers") {
        let value = value.as_str().expect("a text");
        headers.push(u8::try_from(name.len()).expect("short"));
        headers.extend([name.as_bytes(), &[7]].concat());
        headers.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = match (source.get("payload"), source.get("bytes")) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(payload), _) => payload.to_string(),
        (None, Some(piece)) => {
            json!({ "bytes": BASE64_STANDARD.encode(piece.to_string()), "p": source["p"] }).to_string()
        }
        (None, None) => String::new(),
    };
    let length = |bytes: usize| u32::try_from(bytes).expect("short").to_be_bytes();
    let mut message = [length(16 + headers.len() + payload.len()), length(headers.len())].concat();
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message.extend([&headers, payload.as_bytes()].concat());
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message
}

fn asked_json(asked: &Asked<'_>) -> Value {
    json!({
        "model": asked.model,
        "delivery": match asked.delivery { Delivery::Whole => "whole", Delivery::Stream => "stream" },
        "user": asked.user,
        "usage": match asked.usage { UsageRequest::Unneeded => "unneeded", UsageRequest::Missing => "missing" },
        "reuse": match asked.reuse { Reuse::Allowed(_) => "allowed", Reuse::Never => "never" },
        "counted": asked.counted.map(|(counter, count)| format!("{count} {}", counter.name())),
    })
}

fn learnt_json(learnt: &Learnt) -> Value {
    let Said { facts, usage, provider_cost, output, ending } = &learnt.said;
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
        "finish_reasons": facts.finish_reasons,
        "tools": facts.tools,
        "usage": counts,
        "provider_cost": provider_cost.map(|cost| cost.to_string()),
        "output": output.text(),
        "ending": format!("{ending:?}").to_lowercase(),
        "events": events.join(" "),
    })
}
