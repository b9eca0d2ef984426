//! File: a recording as text, and back. The text is JSON in a stable order, one line for each line of a body, so that a
//! change of a prompt is a change of a line.
//!
//! What is read back is checked at the door: a file that is damaged, or no recording, is named with its line and its
//! reason, and all of them at once. Writes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json_borrow::Value;

use crate::cache::decimal::are_kept;
use crate::cache::recording::{Piece, Recording, Request, Response};

/// The version of the format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// No recording is as large: a guard against the wrong file.
const MOST_BYTES: u64 = 256 << 20;

/// A file that is no recording, or no longer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; `None` if the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Everything that is wrong with the files of a directory, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damages(pub Vec<Damage>);

impl fmt::Display for Damages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [damage] = &*self.0 {
            return damage.fmt(f);
        }
        write!(f, "{} files cannot be replayed:", self.0.len())?;
        self.0.iter().try_for_each(|damage| write!(f, "\n{damage}"))
    }
}

impl std::error::Error for Damages {}

/// The recordings of the directory at `dir`, by the names of their files. Hidden files are left alone.
///
/// # Errors
/// If the directory cannot be read, or if anything else in it is no recording: with all of that.
pub fn load(dir: &Path) -> Result<BTreeMap<String, Recording>, Damages> {
    let whole = |error: &io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "there is no such directory: record first, with `cache.mode: record`".to_owned(),
            _ => format!("the directory cannot be read: {error}"),
        };
        Damages(vec![Damage { path: dir.to_owned(), line: None, reason }])
    };
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(|error| whole(&error))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(|path| !is_hidden(path)).collect();
    paths.sort();
    let (mut recordings, mut damages) = (BTreeMap::new(), Vec::new());
    for path in paths {
        match read(&path) {
            Ok(recording) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                recordings.insert(name, recording);
            }
            Err((line, reason)) => damages.push(Damage { path, line, reason }),
        }
    }
    if damages.is_empty() { Ok(recordings) } else { Err(Damages(damages)) }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The line, if one is meant, and what is wrong.
type Fault = (Option<usize>, String);

fn read(path: &Path) -> Result<Recording, Fault> {
    if path.is_dir() {
        return Err((None, "a directory, where only recordings are expected: move it elsewhere".to_owned()));
    }
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .map_err(|error| (None, format!("the file cannot be read: {error}")))?;
    from_text(&text)
}

/// `recording` as the text of its file.
///
/// # Panics
/// Never: texts and numbers make JSON.
#[must_use]
pub fn to_text(recording: &Recording) -> String {
    let Recording { request, response } = recording;
    let file = Written {
        version: VERSION,
        request: WrittenRequest {
            method: request.method.as_str(),
            provider: &request.provider,
            path: &request.path,
            query: request.query.as_deref(),
            headers: Fields(&request.headers),
            body: WrittenBody::of_request(&request.body),
        },
        response: WrittenResponse {
            status: response.status.as_u16(),
            headers: Fields(&response.headers),
            body: WrittenBody::of_bytes(&response.body),
            timing: &response.timing,
        },
    };
    let mut text = serde_json::to_string_pretty(&file).expect("texts and numbers make JSON");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    request: WrittenRequest<'a>,
    response: WrittenResponse<'a>,
}

#[derive(Serialize)]
struct WrittenRequest<'a> {
    method: &'a str,
    provider: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Fields::is_empty")]
    headers: Fields<'a>,
    #[serde(skip_serializing_if = "WrittenBody::is_empty")]
    body: WrittenBody<'a>,
}

#[derive(Serialize)]
struct WrittenResponse<'a> {
    status: u16,
    headers: Fields<'a>,
    #[serde(skip_serializing_if = "WrittenBody::is_empty")]
    body: WrittenBody<'a>,
    #[serde(skip_serializing_if = "<[Piece]>::is_empty", serialize_with = "serialize_timing")]
    timing: &'a [Piece],
}

/// Header fields that are text, by name.
struct Fields<'a>(&'a HeaderMap);

impl Fields<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        serializer.collect_map(fields.collect::<BTreeMap<_, _>>())
    }
}

/// A body, in the form that reads best.
enum WrittenBody<'a> {
    /// A JSON object, by value.
    Object(Value<'a>),
    /// Text, split after its line ends.
    Lines(&'a str),
    /// Anything else.
    Binary(&'a [u8]),
}

impl<'a> WrittenBody<'a> {
    /// A request is equal to another by the value of its JSON. An object that would read as another form is text, and so
    /// is one with a number that would not come back as it was.
    fn of_request(bytes: &'a [u8]) -> Self {
        match serde_json::from_slice::<Value<'_>>(bytes) {
            Ok(value @ Value::Object(_)) if base64_in(&value).is_none() && are_kept(bytes) => Self::Object(value),
            _ => Self::of_bytes(bytes),
        }
    }

    /// A reply is the same byte for byte.
    fn of_bytes(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Binary(bytes), Self::Lines)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Lines(""))
    }
}

impl Serialize for WrittenBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(value) => value.serialize(serializer),
            Self::Lines(text) => serializer.collect_seq(text.split_inclusive('\n')),
            Self::Binary(bytes) => serializer.collect_map([("base64", BASE64_STANDARD.encode(bytes))]),
        }
    }
}

/// One line for each piece.
fn serialize_timing<S: Serializer>(timing: &[Piece], serializer: S) -> Result<S::Ok, S::Error> {
    let line = |piece: &Piece| RawValue::from_string(format!("[{}, {}]", piece.bytes, piece.after.as_millis()));
    let lines: Result<Vec<_>, _> = timing.iter().map(line).collect();
    serializer.collect_seq(lines.map_err(S::Error::custom)?)
}

/// The recording that `text` is.
///
/// # Errors
/// If it is none: the line, if one is meant, and why.
pub fn from_text(text: &str) -> Result<Recording, Fault> {
    let file: ReadFile<'_> = serde_json::from_str(text).map_err(|error| fault_of(&error, 1))?;
    let ReadRequest { method, provider, path, query, headers, body } = file.request;
    let request = Request { method, provider, path, query, headers, body: body_of(text, body, Form::Request)? };
    let ReadResponse { status, headers, body, timing } = file.response;
    let bytes = body_of(text, body, Form::Response)?;
    let timing: Vec<Piece> = timing
        .into_iter()
        .map(|(bytes, milliseconds)| Piece { bytes, after: Duration::from_millis(milliseconds) })
        .collect();
    let timed = timing.iter().try_fold(0_usize, |sum, piece| sum.checked_add(piece.bytes));
    if !timing.is_empty() && timed != Some(bytes.len()) {
        let reason = format!("the pieces in `timing` are not as long as the body, which has {} bytes", bytes.len());
        return Err((body.map(|body| line_of(text, body.get())), reason));
    }
    Ok(Recording { request, response: Response { status, headers, body: bytes, timing } })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadFile<'a> {
    #[serde(rename = "version", deserialize_with = "version")]
    _version: (),
    #[serde(borrow)]
    request: ReadRequest<'a>,
    #[serde(borrow)]
    response: ReadResponse<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadRequest<'a> {
    #[serde(deserialize_with = "method")]
    method: Method,
    provider: Box<str>,
    path: Box<str>,
    query: Option<Box<str>>,
    #[serde(default, deserialize_with = "headers")]
    headers: HeaderMap,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadResponse<'a> {
    #[serde(deserialize_with = "status")]
    status: StatusCode,
    #[serde(default, deserialize_with = "headers")]
    headers: HeaderMap,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(default)]
    timing: Vec<(usize, u64)>,
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match u32::deserialize(deserializer)? {
        VERSION => Ok(()),
        other => Err(D::Error::custom(format!("version {other} is not known here, only {VERSION}"))),
    }
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    Cow::<'_, str>::deserialize(deserializer)?
        .parse()
        .map_err(|_| D::Error::custom("not a method: write one such as POST"))
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    StatusCode::from_u16(u16::deserialize(deserializer)?)
        .map_err(|_| D::Error::custom("not a status: write one such as 200"))
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
    let fields = BTreeMap::<String, String>::deserialize(deserializer)?;
    let field = |(name, value): (String, String)| {
        let parsed = (name.parse::<HeaderName>().ok(), value.parse::<HeaderValue>().ok());
        let (Some(name), Some(value)) = parsed else {
            return Err(D::Error::custom(format!("`{name}` is not the name of a header, or its value is none")));
        };
        Ok((name, value))
    };
    fields.into_iter().map(field).collect()
}

/// Whose body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A request's may be a JSON object.
    Request,
    /// A response's may not.
    Response,
}

/// The bytes of a body that was written as `raw`, a part of `text`.
fn body_of(text: &str, raw: Option<&RawValue>, form: Form) -> Result<Bytes, Fault> {
    let Some(raw) = raw.map(RawValue::get) else { return Ok(Bytes::new()) };
    let at = || line_of(text, raw);
    if raw.starts_with('[') {
        let lines: Vec<Cow<'_, str>> = serde_json::from_str(raw).map_err(|error| fault_of(&error, at()))?;
        return Ok(lines.concat().into());
    }
    let value: Value<'_> = serde_json::from_str(raw).map_err(|error| fault_of(&error, at()))?;
    match base64_in(&value) {
        Some(text) => BASE64_STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| (Some(at()), format!("the body is not base64: {error}"))),
        None if form == Form::Request && value.is_object() => Ok(Bytes::copy_from_slice(raw.as_bytes())),
        None => Err((Some(at()), "a body is a list of lines, or {\"base64\": \"…\"}".to_owned())),
    }
}

/// The text of `{"base64": "…"}`; `None` for any other value.
fn base64_in<'a>(value: &'a Value<'_>) -> Option<&'a str> {
    let mut members = value.as_object()?.iter();
    let (name, text) = members.next()?;
    text.as_str().filter(|_| name == "base64" && members.next().is_none())
}

/// What is wrong with a text that begins at line `first` of its file.
fn fault_of(error: &serde_json::Error, first: usize) -> Fault {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    (Some(first + error.line().saturating_sub(1)), message.strip_suffix(&place).unwrap_or(&message).to_owned())
}

/// The line of `text`, counted from 1, at which `part` of it begins.
fn line_of(text: &str, part: &str) -> usize {
    let before = part.as_ptr().addr().saturating_sub(text.as_ptr().addr()).min(text.len());
    1 + memchr::memchr_iter(b'\n', &text.as_bytes()[..before]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\n  \"version\": 1,\n  \"request\": {\n    \"method\": \"POST\",\n    \"provider\": \"openai\",\n    \
        \"path\": \"/v1/chat/completions\"";

    fn recording(request: &'static [u8], response: &'static [u8]) -> Recording {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
        Recording {
            request: Request {
                method: Method::POST,
                provider: "openai".into(),
                path: "/v1/chat/completions".into(),
                query: None,
                headers: HeaderMap::new(),
                body: Bytes::from_static(request),
            },
            response: Response {
                status: StatusCode::OK,
                headers,
                body: Bytes::from_static(response),
                timing: Vec::new(),
            },
        }
    }

    /// The file of `recording`, less what all of them have.
    fn bodies(recording: &Recording) -> String {
        let text = to_text(recording);
        let rest = text.strip_prefix(HEAD).expect("the same head");
        let head = "\n  },\n  \"response\": {\n    \"status\": 200,\n    \"headers\": {\n      \"content-type\": \
            \"text/event-stream\"\n    }";
        rest.replace(head, " |")
    }

    #[test]
    fn a_file_is_made_for_people() {
        let mut stream = recording(br#"{"model":"m","stream":true}"#, b"data: {}\n\ndata: [DONE]\n\n");
        stream.response.timing =
            [(10, 0), (14, 250)].map(|(bytes, after)| Piece { bytes, after: Duration::from_millis(after) }).to_vec();
        stream.request.query = Some("beta=true".into());
        stream.request.headers.insert("openai-beta", HeaderValue::from_static("assistants=v2"));
        let expected = r#"{
  "version": 1,
  "request": {
    "method": "POST",
    "provider": "openai",
    "path": "/v1/chat/completions",
    "query": "beta=true",
    "headers": {
      "openai-beta": "assistants=v2"
    },
    "body": {
      "model": "m",
      "stream": true
    }
  },
  "response": {
    "status": 200,
    "headers": {
      "content-type": "text/event-stream"
    },
    "body": [
      "data: {}\n",
      "\n",
      "data: [DONE]\n",
      "\n"
    ],
    "timing": [
      [10, 0],
      [14, 250]
    ]
  }
}
"#;
        assert_eq!(to_text(&stream), expected);
        let back = from_text(expected).expect("a recording");
        assert_eq!(back.response, stream.response);
        assert_eq!((back.request.query, back.request.headers), (stream.request.query, stream.request.headers));
    }

    #[test]
    fn a_body_has_the_form_that_reads_best_and_comes_back_as_it_was() {
        for (request, response, expected) in [
            (&b""[..], &b""[..], " |\n  }\n}\n"),
            (b"a\r\nb", b"", ",\n    \"body\": [\n      \"a\\r\\n\",\n      \"b\"\n    ] |\n  }\n}\n"),
            (b"[\"a\"]", b"", ",\n    \"body\": [\n      \"[\\\"a\\\"]\"\n    ] |\n  }\n}\n"),
            (b"\xff", b"", ",\n    \"body\": {\n      \"base64\": \"/w==\"\n    } |\n  }\n}\n"),
            (
                br#"{"base64":"/w=="}"#,
                b"",
                ",\n    \"body\": [\n      \"{\\\"base64\\\":\\\"/w==\\\"}\"\n    ] |\n  }\n}\n",
            ),
            (
                br#"{"a":0.12345678901234567890}"#,
                b"",
                ",\n    \"body\": [\n      \"{\\\"a\\\":0.12345678901234567890}\"\n    ] |\n  }\n}\n",
            ),
            (b"", b"\x00\xff", " |,\n    \"body\": {\n      \"base64\": \"AP8=\"\n    }\n  }\n}\n"),
            (b"", b"{\"a\":1}", " |,\n    \"body\": [\n      \"{\\\"a\\\":1}\"\n    ]\n  }\n}\n"),
            (b"", "é\n\n".as_bytes(), " |,\n    \"body\": [\n      \"é\\n\",\n      \"\\n\"\n    ]\n  }\n}\n"),
        ] {
            let recording = recording(request, response);
            assert_eq!(bodies(&recording), expected);
            assert_eq!(from_text(&to_text(&recording)).expect("a recording"), recording);
        }
    }

    #[test]
    fn a_request_in_json_comes_back_by_value() {
        for body in [
            r#"{"a":[1,-2,0.1,1e300,18446744073709551615],"é\n":{"":null,"t":true}}"#,
            r#"{"a":1,"a":2,"base64":"x"}"#,
            r#"{"base64":1}"#,
            "{}",
        ] {
            let text = to_text(&recording(body.as_bytes(), b""));
            let back = from_text(&text).expect("a recording").request.body;
            let value = |bytes: &[u8]| serde_json::from_slice::<Value<'_>>(bytes).map(|value| value.to_string());
            assert_eq!(value(&back).ok(), value(body.as_bytes()).ok(), "{text}");
            assert!(!text.contains("\\\""), "as an object: {text}");
        }
    }

    #[test]
    fn what_is_damaged_is_named_with_its_line() {
        let sound = to_text(&recording(br#"{"model":"m"}"#, b"a\nb\n"));
        for (part, damaged, line, reason) in [
            ("\"version\": 1", "\"version\": 2", 2, "version 2 is not known here, only 1"),
            ("\"POST\"", "\"\"", 4, "not a method: write one such as POST"),
            ("\"status\": 200", "\"status\": 20", 12, "not a status: write one such as 200"),
            (
                "\"path\"",
                "\"paht\"",
                6,
                "unknown field `paht`, expected one of `method`, `provider`, `path`, `query`, `headers`, `body`",
            ),
            (
                "content-type\"",
                "content type\"",
                15,
                "`content type` is not the name of a header, or its value is none",
            ),
            ("\"b\\n\"", "7", 18, "invalid type: integer `7`, expected a string"),
            ("\"b\\n\"\n    ]", "\"b\\n\"\n", 20, "expected `,` or `]`"),
        ] {
            assert!(sound.contains(part), "{part}");
            let fault = from_text(&sound.replace(part, damaged)).expect_err(reason);
            assert_eq!(fault, (Some(line), reason.to_owned()), "{part}");
        }
        let lines = "[\n      \"a\\n\",\n      \"b\\n\"\n    ]";
        for (body, line, reason) in [
            ("\"a\"", 16, "a body is a list of lines, or {\"base64\": \"…\"}"),
            ("{}", 16, "a body is a list of lines, or {\"base64\": \"…\"}"),
            ("{ \"base64\": \"?\" }", 16, "the body is not base64: Invalid symbol 63, offset 0."),
            (
                "[\"abc\"],\n    \"timing\": [[1, 0], [1, 5]]",
                16,
                "the pieces in `timing` are not as long as the body, which has 3 bytes",
            ),
        ] {
            assert!(sound.contains(lines));
            let fault = from_text(&sound.replace(lines, body)).expect_err(reason);
            assert_eq!(fault, (Some(line), reason.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_directory_is_read_as_a_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
        put("one.json", &to_text(&recording(b"{}", b"1")));
        put("two.json", &to_text(&recording(b"[]", b"2")));
        put(".gitattributes", "* -text");
        let names: Vec<String> = load(dir.path()).expect("recordings").into_keys().collect();
        assert_eq!(names, ["one.json", "two.json"]);

        put("README.md", "hello");
        put("three.json", "{\n  \"version\": 3, \"request\": {}\n}");
        fs::create_dir(dir.path().join("deeper")).expect("a directory");
        let found = load(dir.path()).expect_err("damages").to_string();
        let here = dir.path().display();
        let expected = [
            "3 files cannot be replayed:".to_owned(),
            format!("{here}/README.md:1: expected value"),
            format!("{here}/deeper: a directory, where only recordings are expected: move it elsewhere"),
            format!("{here}/three.json:2: version 3 is not known here, only 1"),
        ];
        assert_eq!(found, expected.join("\n"));

        let absent = load(&dir.path().join("absent")).expect_err("no directory").to_string();
        let reason = "there is no such directory: record first, with `cache.mode: record`";
        assert_eq!(absent, format!("{here}/absent: {reason}"));
    }
}
