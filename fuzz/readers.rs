//! Replies and requests of providers, as the readers of their APIs read them.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::value::RawValue;
use serde_json_borrow::Value;
use weir::provider::endpoint::Endpoint;
use weir::provider::forms::Answer;
use weir::provider::reader::Reader;
use weir::provider::session::{self as sessions, News};
use weir::provider::stop::UsedSoFar;
use weir::provider::{EventKind, Request, Said, forms};
use weir::record::ReplyFacts;
use weir::record::call::Form;

use super::{frames, pieces, two_parts};

/// Small, so that inputs reach the bound.
const MAX_BYTES: usize = 4096;

/// Content types that a reply is read by, and the codings it may come in.
const CONTENT_TYPES: [&str; 6] = [
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/stream+json",
    "application/vnd.amazon.eventstream",
    "multipart/form-data; boundary=b",
];
const CODINGS: [Option<&str>; 4] = [None, Some("gzip"), Some("br"), Some("deflate")];

/// Anthropic's messages.
pub fn anthropic(data: &[u8]) {
    use Endpoint::{CountMessages, Messages, PublishedMessages};
    read(&[Messages, CountMessages, PublishedMessages], data);
}

/// Bedrock's own form.
pub fn bedrock_converse(data: &[u8]) {
    use Endpoint::{Converse, CountConverse};
    read(&[Converse, CountConverse], data);
}

/// Bedrock in the forms of its vendors.
pub fn bedrock_invoke(data: &[u8]) {
    read(&[Endpoint::InvokeModel], data);
}

/// Cohere.
pub fn cohere(data: &[u8]) {
    use Endpoint::{
        CohereChat, CohereChatV1, CohereClassify, CohereEmbed, CohereGenerate, CohereRerank, CohereTokenize,
    };
    read(&[CohereChat, CohereChatV1, CohereGenerate, CohereEmbed, CohereRerank, CohereClassify, CohereTokenize], data);
}

/// Gemini and Vertex AI.
pub fn gemini(data: &[u8]) {
    use Endpoint::{
        CountContent, EmbedContent, GenerateContent, Interactions, PredictEmbeddings, StreamGenerateContent,
    };
    read(&[GenerateContent, StreamGenerateContent, CountContent, EmbedContent, PredictEmbeddings, Interactions], data);
}

/// llama.cpp's own form.
pub fn llamacpp(data: &[u8]) {
    read(&[Endpoint::LlamaCppCompletion], data);
}

/// Ollama's own form.
pub fn ollama(data: &[u8]) {
    use Endpoint::{OllamaChat, OllamaEmbed, OllamaGenerate};
    read(&[OllamaChat, OllamaGenerate, OllamaEmbed], data);
}

/// OpenAI's chats, and of all who copy them.
pub fn openai_chat(data: &[u8]) {
    use Endpoint::{ChatCompletions, Completions};
    read(&[ChatCompletions, Completions], data);
}

/// OpenAI's pictures and sounds.
pub fn openai_media(data: &[u8]) {
    use Endpoint::{Images, Speech, Transcription};
    read(&[Images, Speech, Transcription], data);
}

/// What answers in one piece.
pub fn openai_plain(data: &[u8]) {
    use Endpoint::{CountInput, Decisions, Embeddings, Moderations, Ocr};
    read(&[Embeddings, Moderations, Decisions, Ocr, CountInput], data);
}

/// OpenAI's responses.
pub fn openai_responses(data: &[u8]) {
    use Endpoint::{Responses, ResponsesCompact};
    read(&[Responses, ResponsesCompact], data);
}

/// Text Generation Inference.
pub fn tgi(data: &[u8]) {
    use Endpoint::{TgiGenerate, TgiGenerateStream};
    read(&[TgiGenerate, TgiGenerateStream], data);
}

/// Messages of sessions: the first byte says of which kind; each line is one.
pub fn session(data: &[u8]) {
    let [kind, messages @ ..] = data else { return };
    let path = ["/v1/realtime", "/v1/responses"][usize::from(kind & 1)];
    let Some(mut opened) = sessions::open(path, Some("model=m")) else { return };
    let (mut open, mut ended) = (BTreeSet::new(), BTreeSet::new());
    let mut tell = |news| match news {
        News::Began(turn) => assert!(open.insert(turn), "a response begins once"),
        News::Content(turn) => assert!(open.contains(&turn), "only what is open brings content"),
        News::Ended(turn, _) => {
            open.remove(&turn);
            assert!(ended.insert(turn), "a response ends once");
            assert!(open.len() <= 32, "responses that are open are bounded");
        }
        News::Beside(..) | News::Complained(_) => {}
    };
    for message in messages.split(|byte| *byte == b'\n') {
        opened.reader.message(message, &mut tell);
    }
    opened.reader.finish(&mut tell);
    assert!(open.is_empty(), "whatever began has ended");
}

/// A stream that is ended early, after any of its events: what comes of it is a stream in the same framing.
pub fn stop(data: &[u8]) {
    let [which, how, rest @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(*which) % Endpoint::ALL.len()];
    let headers = head(how & 7, None);
    let mut reader = Reader::open(endpoint, StatusCode::OK, &headers, MAX_BYTES);
    if !reader.prepare_to_stop(endpoint) {
        return;
    }
    for piece in pieces(rest) {
        let mut events = 0;
        reader.push(&Bytes::copy_from_slice(piece), &mut |_, _| events += 1);
        let ending = if events > 0 { reader.ending(UsedSoFar { input: 3, output: 5 }) } else { None };
        if let Some(ending) = ending {
            let mut found = 0;
            let mut end = Reader::open(endpoint, StatusCode::OK, &headers, 1 << 20);
            end.push(&Bytes::from(ending), &mut |_, _| found += 1);
            assert!(found > 0 || end.incomplete_from() == end.received(), "an ending is made of whole events");
        }
    }
}

/// An answer in one form, told in another: what comes of it is read as the form it is, and has not more than it may.
pub fn render(data: &[u8]) {
    const FORMS: [Form; 5] = [Form::Whole, Form::Stream, Form::StreamWithUsage, Form::StreamWithoutUsage, Form::Array];
    const MOST: usize = 16 << 10;
    let [which, from, to, how, body @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(*which) % Endpoint::ALL.len()];
    let (form, to) = (FORMS[usize::from(*from) % 5], FORMS[usize::from(*to) % 5]);
    let headers = head(how & 7, CODINGS[usize::from(how >> 3 & 3)]);
    let body = Bytes::copy_from_slice(body);
    let Some(rendered) = forms::render(endpoint, &Answer { form, headers: &headers, body: &body }, to, MOST) else {
        return;
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, rendered.content_type)]);
    let mut reader = Reader::open(endpoint, StatusCode::OK, &headers, 8 * MOST);
    reader.push(&rendered.body, &mut |_, _| {});
    check(&reader.finish());
}

/// Reads `data` as a request to one of `endpoints`, or as its reply: the first byte says which, and which of the two.
fn read(endpoints: &[Endpoint], data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    let endpoint = endpoints[usize::from(which & 127) % endpoints.len()];
    if which & 128 == 0 { read_reply(endpoint, rest) } else { read_request(endpoint, rest) }
}

fn head(content_type: u8, coding: Option<&'static str>) -> HeaderMap {
    let content_type = CONTENT_TYPES[usize::from(content_type) % CONTENT_TYPES.len()];
    let coding = coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding)));
    [(CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().chain(coding).collect()
}

/// Reads `data` as a reply of `endpoint`: whatever it is, reading ends, spans stay inside what came, and all that is learnt
/// of a reply that is not compressed is the same when it comes in one piece.
fn read_reply(endpoint: Endpoint, data: &[u8]) {
    let [how, rest @ ..] = data else { return };
    let headers = head(how & 7, CODINGS[usize::from(how >> 3 & 3)]);
    let status = if how & 32 == 0 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
    let cut: Vec<_> = pieces(rest).collect();
    let said = read_all(endpoint, status, &headers, &cut);
    check(&said);
    if !headers.contains_key(CONTENT_ENCODING) {
        let whole = cut.concat();
        assert_eq!(said, read_all(endpoint, status, &headers, &[&whole]), "however it is cut");
    }
    if how & 7 == 4 {
        let sound = frames::event_stream(rest);
        check(&read_all(endpoint, status, &headers, &pieces(&sound).collect::<Vec<_>>()));
    }
}

fn read_all(endpoint: Endpoint, status: StatusCode, headers: &HeaderMap, cut: &[&[u8]]) -> Said {
    let mut reader = Reader::open(endpoint, status, headers, MAX_BYTES);
    reader.keep_text(MAX_BYTES);
    let mut last_end = 0;
    for piece in cut {
        reader.push(&Bytes::copy_from_slice(piece), &mut |_: EventKind, span: Range<u64>| {
            assert!(last_end <= span.start && span.start <= span.end, "spans follow each other");
            last_end = span.end;
        });
        assert!(reader.incomplete_from() >= last_end);
    }
    reader.finish()
}

/// What is learnt is bounded, and what was used adds up.
fn check(said: &Said) {
    let ReplyFacts { model, id, service_tier, speed, inference_geo, finish_reasons, tools, calls: _ } = &said.facts;
    assert!(tools.len() <= 128 && finish_reasons.len() <= 128);
    let single = [model, id, service_tier, speed, inference_geo].into_iter().flatten();
    assert!(single.chain(finish_reasons).chain(tools).all(|word| word.len() <= 128), "words are short");
    if let Some(usage) = &said.usage {
        let classes: u128 = usage.tokens_by_class().iter().map(|tokens| u128::from(*tokens)).sum();
        assert!(classes >= u128::from(usage.total_tokens()) || usage.total_tokens() == u64::MAX, "nothing is lost");
    }
}

/// Reads `data` as a request to `endpoint`: its path, and its body.
fn read_request(endpoint: Endpoint, data: &[u8]) {
    let (path, body) = two_parts(data);
    let Ok(path) = std::str::from_utf8(path) else { return };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let format = endpoint.format();
    let parsed = serde_json::from_slice::<Value<'_>>(body).unwrap_or(Value::Null);
    let _ = (format.asked)(&Request { endpoint, path, query, body: &parsed });
    if let Some(change) = format.request_usage
        && let Some(changed) = change(body)
    {
        assert!(serde_json::from_slice::<&RawValue>(&changed).is_ok(), "a changed body is still JSON");
    }
}
