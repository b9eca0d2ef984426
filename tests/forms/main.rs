//! Forms: answers turned from one form into another, over all fixtures.
//!
//! What can be turned is turned there and back without loss, and says the same to weir's own reader in either form; what
//! cannot be is listed here by name, so that nothing is declined unseen. Nothing, however broken, makes it panic.

#[path = "../fixture/mod.rs"]
mod fixture;
mod stop;

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use weir::provider::endpoint::Endpoint;
use weir::provider::forms::{Answer, Rendered, render};
use weir::provider::reader::Reader;
use weir::provider::{Ending, Request, Said};
use weir::record::call::Form;

use crate::fixture::random::Random;
use crate::fixture::{Fixture, fixtures};

const MAX_BYTES: usize = 1 << 20;

/// Whole answers, complete and good for others, that no stream can be made of.
const KEPT_WHOLE: &[&str] = &[
    // A picture that the format has no event for, a part that is null.
    "bedrock/converse_odd_usage",
    // A part of an unknown type.
    "cohere/chat_odd_usage",
    // Sound.
    "gemini/generate_speech",
    "openai/chat_audio",
    // It does not say why it stopped.
    "openai/chat_odd_usage",
    // Tools that run at the provider; such answers are not stored.
    "openai/responses_image_tool",
    "openai/responses_web_search",
    "openai/responses_web_search_counted",
];

/// Streams, complete and good for others, that no whole answer can be made of.
const KEPT_STREAMED: &[&str] = &[
    // Nothing is said of what was used, which a whole answer says.
    "azure/chat_stream_old_version",
    // Events of unknown types.
    "bedrock/converse_stream_unknown_events",
    "cohere/chat_stream_unknown_events",
    // As above: nothing of usage.
    "cohere/compatibility_stream",
    // Thoughts as parts of a content that is a text elsewhere.
    "mistral/chat_stream_thinking",
    // A message that is a list.
    "ollama/chat_odd_counts",
    "openai/chat_stream_no_usage",
    // Arguments in pieces that only Vertex AI knows how to join.
    "vertex/stream_partial_args",
];

impl Fixture {
    pub(crate) fn name(&self) -> String {
        let folder = self.golden.parent().and_then(|folder| folder.file_name()?.to_str()).expect("a folder");
        let file = self.golden.file_name().and_then(|file| file.to_str()).expect("a name");
        format!("{folder}/{}", file.trim_end_matches(".record.json"))
    }

    /// The form it was asked for in, if it has others and is an answer for anybody.
    fn form(&self) -> Option<Form> {
        let (path, query) = self.path();
        let body = self.body().to_string();
        let body = serde_json::from_str(&body).expect("JSON");
        let request = Request { endpoint: self.endpoint, path, query, body: &body };
        let form = (self.endpoint.forms()?.asked)(&request)?;
        let said = read(self.endpoint, self.status, &self.head(), &self.reply);
        (said.ending == Ending::Complete).then_some(form)
    }
}

fn read(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Said {
    let mut reader = Reader::open(endpoint, status, headers, MAX_BYTES);
    reader.push(&Bytes::copy_from_slice(body), &mut |_, _| {});
    reader.finish()
}

/// The head of an answer once it is rendered.
fn head(fixture: &Fixture, rendered: &Rendered) -> HeaderMap {
    let mut headers = fixture.head();
    headers.insert(CONTENT_TYPE, rendered.content_type.clone());
    headers
}

/// `endpoint`, as its answers of this form are read.
fn read_as(endpoint: Endpoint, form: Form) -> Endpoint {
    match (endpoint, form) {
        (Endpoint::GenerateContent, Form::Stream | Form::Array) => Endpoint::StreamGenerateContent,
        (Endpoint::StreamGenerateContent, Form::Whole) => Endpoint::GenerateContent,
        _ => endpoint,
    }
}

/// The forms of streams that this whole answer can come back from.
fn streams_of(endpoint: Endpoint, reply: &Value) -> &'static [Form] {
    match endpoint {
        // Of a stream that says nothing of usage unasked, nobody knows whether the whole would.
        Endpoint::ChatCompletions | Endpoint::Completions if reply["usage"].is_null() => &[Form::StreamWithUsage],
        Endpoint::ChatCompletions | Endpoint::Completions => &[Form::StreamWithUsage, Form::Stream],
        Endpoint::GenerateContent => &[Form::Stream, Form::Array],
        _ => &[Form::Stream],
    }
}

/// What `body` says: a null says what an absent member does, and so does an empty list of annotations; and some vendors
/// number choices and calls.
fn json(body: &[u8]) -> Value {
    let mut json = serde_json::from_slice(body).expect("JSON");
    forget_what_says_nothing(&mut json);
    json
}

fn forget_what_says_nothing(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let is_numbered = ["function", "finish_reason"].iter().any(|name| members.contains_key(*name));
            let says_nothing = |name: &str, member: &Value| {
                let is_empty = member.as_array().is_some_and(Vec::is_empty);
                member.is_null() || (is_numbered && name == "index") || (is_empty && name == "annotations")
            };
            members.retain(|name, member| !says_nothing(name, member));
            members.values_mut().for_each(forget_what_says_nothing);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_what_says_nothing),
        _ => {}
    }
}

#[test]
fn the_form_is_what_a_request_asks_for_in_the_way_of_its_api() {
    let vertex = "/v1/projects/p/locations/l/publishers/anthropic/models/m";
    let chat = "/v1/chat/completions";
    let converse = "/model/m/converse";
    for (endpoint, path, body, form) in [
        (Endpoint::ChatCompletions, chat, "{}", Some(Form::Whole)),
        (Endpoint::ChatCompletions, chat, r#"{"stream":null,"stream_options":null}"#, Some(Form::Whole)),
        (Endpoint::ChatCompletions, chat, r#"{"stream":false,"stream_options":{}}"#, None),
        (Endpoint::ChatCompletions, chat, r#"{"stream":true}"#, Some(Form::StreamWithoutUsage)),
        (
            Endpoint::Completions,
            "/v1/completions",
            r#"{"stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false}}"#,
            Some(Form::StreamWithoutUsage),
        ),
        (
            Endpoint::ChatCompletions,
            chat,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            Some(Form::StreamWithUsage),
        ),
        (Endpoint::ChatCompletions, chat, r#"{"stream":true,"stream_options":{"include_usage":1}}"#, None),
        (Endpoint::ChatCompletions, chat, r#"{"stream":true,"stream_options":{"continuous_usage_stats":true}}"#, None),
        (Endpoint::ChatCompletions, chat, r#"{"stream":"true"}"#, None),
        (Endpoint::Responses, "/v1/responses", r#"{"stream":true}"#, Some(Form::Stream)),
        (Endpoint::Responses, "/v1/responses", r#"{"stream":true,"stream_options":{"new":1}}"#, None),
        (Endpoint::Messages, "/v1/messages", r#"{"stream":true}"#, Some(Form::Stream)),
        (Endpoint::Messages, "/v1/messages", r#"{"stream":"yes"}"#, None),
        (Endpoint::PublishedMessages, &format!("{vertex}:rawPredict"), "{}", Some(Form::Whole)),
        (Endpoint::PublishedMessages, &format!("{vertex}:rawPredict"), r#"{"stream":true}"#, Some(Form::Stream)),
        (Endpoint::PublishedMessages, &format!("{vertex}:streamRawPredict"), "{}", Some(Form::Stream)),
        (Endpoint::GenerateContent, "/m:generateContent", "{}", Some(Form::Whole)),
        (Endpoint::GenerateContent, "/m:generateContent?alt=json", "{}", Some(Form::Whole)),
        (Endpoint::GenerateContent, "/m:generateContent?alt=sse", "{}", None),
        (Endpoint::StreamGenerateContent, "/m:streamGenerateContent?key=k", "{}", Some(Form::Array)),
        (Endpoint::StreamGenerateContent, "/m:streamGenerateContent?key=k&alt=sse", "{}", Some(Form::Stream)),
        (Endpoint::StreamGenerateContent, "/m:streamGenerateContent?alt=proto", "{}", None),
        (Endpoint::StreamGenerateContent, "/m:streamGenerateContent?alt=sse&$alt=json", "{}", None),
        (Endpoint::Converse, converse, "{}", Some(Form::Whole)),
        (Endpoint::Converse, "/model/m/converse-stream", "{}", Some(Form::Stream)),
        (Endpoint::CohereChat, "/v2/chat", r#"{"stream":true}"#, Some(Form::Stream)),
        (Endpoint::OllamaChat, "/api/chat", "{}", Some(Form::Stream)),
        (Endpoint::OllamaGenerate, "/api/generate", r#"{"stream":false}"#, Some(Form::Whole)),
        (Endpoint::Embeddings, "/v1/embeddings", "{}", None),
        (Endpoint::InvokeModel, "/model/m/invoke", "{}", None),
        (Endpoint::CohereChatV1, "/v1/chat", "{}", None),
    ] {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let value = serde_json::from_str(body).expect("JSON");
        let request = Request { endpoint, path, query, body: &value };
        let asked = endpoint.forms().and_then(|forms| (forms.asked)(&request));
        assert_eq!(asked, form, "{endpoint:?} {path} {query:?} {body}");
    }
}

#[test]
fn what_came_whole_is_the_same_after_it_was_streamed() {
    let mut declined = Vec::new();
    let mut rendered = 0;
    for fixture in fixtures().iter().filter(|fixture| fixture.form() == Some(Form::Whole)) {
        let name = fixture.name();
        let reply = Bytes::from(fixture.reply.clone());
        let said = read(fixture.endpoint, StatusCode::OK, &fixture.head(), &reply);
        for &form in streams_of(fixture.endpoint, &json(&reply)) {
            let answer = Answer { form: Form::Whole, headers: &fixture.head(), body: &reply };
            let Some(stream) = render(fixture.endpoint, &answer, form, MAX_BYTES) else {
                declined.push(name.clone());
                break;
            };
            let streamed = read(read_as(fixture.endpoint, form), StatusCode::OK, &head(fixture, &stream), &stream.body);
            assert_eq!(streamed, Said { output: streamed.output.clone(), ..said.clone() }, "{name} as {form:?}");
            let answer = Answer { form, headers: &head(fixture, &stream), body: &stream.body };
            let back = render(read_as(fixture.endpoint, form), &answer, Form::Whole, MAX_BYTES);
            let back = back.unwrap_or_else(|| panic!("{name} as {form:?} comes back"));
            assert_eq!(json(&back.body), json(&reply), "{name} as {form:?}");
            rendered += 1;
        }
    }
    assert_eq!(declined, KEPT_WHOLE);
    assert!(rendered > 100, "{rendered}");
}

#[test]
fn what_was_streamed_says_the_same_whole() {
    let mut declined = Vec::new();
    let mut rendered = 0;
    for fixture in fixtures() {
        let Some(form) = fixture.form().filter(|form| *form != Form::Whole) else { continue };
        let name = fixture.name();
        let reply = Bytes::from(fixture.reply.clone());
        let said = read(fixture.endpoint, StatusCode::OK, &fixture.head(), &reply);
        let answer = Answer { form, headers: &fixture.head(), body: &reply };
        let Some(whole) = render(fixture.endpoint, &answer, Form::Whole, MAX_BYTES) else {
            declined.push(name);
            continue;
        };
        let again = read(read_as(fixture.endpoint, Form::Whole), StatusCode::OK, &head(&fixture, &whole), &whole.body);
        assert_eq!(again, Said { output: again.output.clone(), ..said.clone() }, "{name}");
        rendered += 1;
    }
    assert_eq!(declined, KEPT_STREAMED);
    assert!(rendered > 50, "{rendered}");
}

#[test]
fn a_stream_that_is_cut_short_is_never_told_whole() {
    let mut random = Random(6);
    for fixture in fixtures().iter().filter(|fixture| fixture.streams()) {
        let Some(form) = fixture.form() else { continue };
        // In text, the end marker is good without the line ends after it.
        let end = if fixture.is_binary() { fixture.reply.len() } else { fixture.source.trim_ascii_end().len() };
        let mut length = 0;
        for piece in random.pieces(&fixture.reply[..end], 60) {
            let cut = Bytes::copy_from_slice(&fixture.reply[..length]);
            length += piece.len();
            let answer = Answer { form, headers: &fixture.head(), body: &cut };
            let whole = render(fixture.endpoint, &answer, Form::Whole, MAX_BYTES);
            assert_eq!(whole, None, "{} cut short at {length}", fixture.name());
        }
    }
}

#[test]
fn the_event_about_usage_is_there_for_who_asked_and_nobody_else() {
    const HEAD: &str = "data: {\"id\":\"a\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\
        \"delta\":{\"role\":\"assistant\",\"content\":\"Titan.\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
    const USAGE: &str = "data: {\"id\":\"a\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
    let rendered = |form, body: &str, to| {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = Answer { form, headers: &headers, body: &body };
        let rendered = render(Endpoint::ChatCompletions, &answer, to, MAX_BYTES)?;
        Some(String::from_utf8(rendered.body.to_vec()).expect("text"))
    };
    let (told, untold) = (format!("{HEAD}{USAGE}{DONE}"), format!("{HEAD}{DONE}"));
    for (rule, form, body, to, expected) in [
        ("weir had asked", Form::StreamWithoutUsage, &told, Form::StreamWithoutUsage, Some(&untold)),
        ("weir could not ask", Form::StreamWithoutUsage, &untold, Form::StreamWithoutUsage, Some(&untold)),
        ("weir had asked, and so does an app", Form::StreamWithoutUsage, &told, Form::StreamWithUsage, Some(&told)),
        ("nobody had asked", Form::StreamWithoutUsage, &untold, Form::StreamWithUsage, None),
        ("an app had asked", Form::StreamWithUsage, &told, Form::StreamWithoutUsage, Some(&untold)),
        ("it was asked, and does not tell", Form::StreamWithUsage, &untold, Form::StreamWithUsage, Some(&untold)),
    ] {
        assert_eq!(rendered(form, body, to).as_ref(), expected, "{rule}");
    }
    let whole = |form, body: &str| rendered(form, body, Form::Whole).map(|body| json(body.as_bytes())["usage"].clone());
    let told_usage = serde_json::json!({"prompt_tokens": 1});
    assert_eq!(whole(Form::StreamWithoutUsage, &told), Some(told_usage), "weir had asked");
    assert_eq!(whole(Form::StreamWithoutUsage, &untold), None, "nobody had asked");
    assert_eq!(whole(Form::StreamWithUsage, &untold), Some(Value::Null), "it was asked, and does not tell");
}

#[test]
fn a_coded_answer_is_decoded_and_what_is_too_large_declined() {
    let whole = br#"{"id":"a","choices":[{"index":0,"message":{"role":"assistant","content":"Titan."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(whole).expect("into memory");
    let coded = Bytes::from(encoder.finish().expect("into memory"));
    let plain = Bytes::from_static(whole);
    let stream = |codings: &[&'static str], body: &Bytes, max_bytes| {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for coding in codings {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let answer = Answer { form: Form::Whole, headers: &headers, body };
        render(Endpoint::ChatCompletions, &answer, Form::StreamWithUsage, max_bytes)
    };
    let expected = stream(&[], &plain, MAX_BYTES).expect("a stream");
    assert_eq!(stream(&["gzip"], &coded, MAX_BYTES).as_ref(), Some(&expected));
    for (rule, codings, body, max_bytes) in [
        ("not in its coding", &["gzip"][..], &plain, MAX_BYTES),
        ("an unknown coding", &["zstd"], &coded, MAX_BYTES),
        ("two codings", &["gzip", "gzip"], &coded, MAX_BYTES),
        ("larger than allowed once it is decoded", &["gzip"], &coded, whole.len() - 1),
        ("larger than allowed as a stream", &[], &plain, expected.body.len() - 1),
    ] {
        assert_eq!(stream(codings, body, max_bytes), None, "{rule}");
    }
}
