//! Realtime: sessions at `/realtime`, in the words of the released API and of its beta.
//!
//! A response is complete with its `response.done`, which alone has usage: that of this response, not of the session.
//! What the app says is written down by a second model, with usage of its own.

use http::StatusCode;
use serde::Deserialize;

use crate::json;
use crate::provider::lenient::{Count, List, Object, Text, Written};
use crate::provider::openai::responses::is_content;
use crate::provider::session::{Complaint, News, Open, ReadSession, Told};
use crate::provider::{Ending, MAX_NAMES, Said};
use crate::record::ReplyFacts;
use crate::record::call::Operation;
use crate::record::usage::{Counter, Usage};

/// Reads one session.
#[derive(Debug)]
pub(in crate::provider) struct Realtime {
    /// The model that answers: as the URL asks, then as the session itself says.
    model: Option<Box<str>>,
    /// The model that writes down what it hears.
    transcriber: Option<Box<str>>,
    open: Open<()>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServerEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    response_id: Text<'a>,
    #[serde(borrow)]
    item_id: Text<'a>,
    #[serde(borrow)]
    session: Object<Session<'a>>,
    #[serde(borrow)]
    response: Object<Response<'a>>,
    #[serde(borrow)]
    item: Object<Item<'a>>,
    usage: Object<Transcribed>,
    #[serde(borrow)]
    error: Object<Complaint<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Session<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    audio: Object<Audio<'a>>,
    /// Where the beta had what is now `audio.input.transcription`.
    #[serde(borrow)]
    input_audio_transcription: Object<Named<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Audio<'a> {
    #[serde(borrow)]
    input: Object<AudioInput<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AudioInput<'a> {
    #[serde(borrow)]
    transcription: Object<Named<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    model: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    status_details: Object<StatusDetails<'a>>,
    #[serde(borrow)]
    output: List<Item<'a>>,
    usage: Object<Reported>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusDetails<'a> {
    #[serde(borrow)]
    reason: Text<'a>,
    #[serde(borrow)]
    error: Object<Complaint<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    arguments: Written<'a>,
}

/// The usage of a response.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Reported {
    input_tokens: Count,
    output_tokens: Count,
    input_token_details: Object<InputDetails>,
    output_token_details: Object<ByKind>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    audio_tokens: Count,
    image_tokens: Count,
    cached_tokens: Count,
    cached_tokens_details: Object<ByKind>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ByKind {
    audio_tokens: Count,
    image_tokens: Count,
}

/// The usage of a transcription: tokens, or seconds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Transcribed {
    input_tokens: Count,
    output_tokens: Count,
    input_token_details: Object<ByKind>,
    seconds: Count,
}

impl Realtime {
    /// For a session whose URL asks for `model`.
    pub(in crate::provider) fn new(model: Option<Box<str>>) -> Self {
        Self { model, transcriber: None, open: Open::default() }
    }

    fn learn(&mut self, session: &Session<'_>) {
        session.model.keep_last(&mut self.model);
        let input = session.audio.get().and_then(|audio| audio.input.get());
        let transcription = input.and_then(|input| input.transcription.get());
        if let Some(named) = transcription.or(session.input_audio_transcription.get()) {
            named.model.keep_last(&mut self.transcriber);
        }
    }

    fn begin(&mut self, id: &str, tell: &mut dyn FnMut(News)) {
        let (turn, ended) = self.open.begin(id, ());
        if let Some((ended, ())) = ended {
            tell(News::Ended(ended, self.unfinished()));
        }
        tell(News::Began(turn));
    }

    fn end(&mut self, response: &Response<'_>, tell: &mut dyn FnMut(News)) {
        let id = response.id.get().unwrap_or_default();
        let turn = if let Some((turn, ())) = self.open.end(id) {
            turn
        } else {
            // Its beginning was not seen; what it used counts all the same.
            let turn = self.open.number();
            tell(News::Began(turn));
            turn
        };
        tell(News::Ended(turn, response.told(self.model.as_deref())));
    }

    fn transcribed(&self, event: &ServerEvent<'_>) -> Told {
        let facts = ReplyFacts {
            model: self.transcriber.clone(),
            id: event.item_id.get().map(Into::into),
            ..ReplyFacts::default()
        };
        let usage = event.usage.get().and_then(Transcribed::usage);
        Told { status: StatusCode::OK, said: Said { facts, usage, ending: Ending::Complete, ..Said::default() } }
    }

    /// All that is known of a response whose end did not come.
    fn unfinished(&self) -> Told {
        let facts = ReplyFacts { model: self.model.clone(), ..ReplyFacts::default() };
        Told { status: StatusCode::OK, said: Said { facts, ..Said::default() } }
    }
}

impl ReadSession for Realtime {
    fn message(&mut self, text: &[u8], tell: &mut dyn FnMut(News)) {
        let Some(event) = json::read::<ServerEvent<'_>>(text) else { return };
        if let Some(session) = event.session.get() {
            self.learn(session);
        }
        let kind = event.kind.get().unwrap_or_default();
        match (kind, event.response.get()) {
            ("response.created", Some(response)) => self.begin(response.id.get().unwrap_or_default(), tell),
            ("response.done", Some(response)) => self.end(response, tell),
            ("conversation.item.input_audio_transcription.completed", _) => {
                tell(News::Beside(Operation::Transcription, self.transcribed(&event)));
            }
            ("error", _) => {
                let status = event.error.get().map_or(StatusCode::INTERNAL_SERVER_ERROR, Complaint::status);
                tell(News::Complained(status));
            }
            _ if event.is_content() => {
                if let Some((turn, ())) = self.open.find(event.response_id.get().unwrap_or_default()) {
                    tell(News::Content(turn));
                }
            }
            _ => {}
        }
    }

    fn finish(mut self: Box<Self>, tell: &mut dyn FnMut(News)) {
        let open = std::mem::take(&mut self.open);
        for (turn, ()) in open.end_all() {
            tell(News::Ended(turn, self.unfinished()));
        }
    }
}

impl ServerEvent<'_> {
    /// `response.output_audio.delta`, `response.output_text.delta`, `response.function_call_arguments.delta` …
    fn is_content(&self) -> bool {
        let kind = self.kind.get().unwrap_or_default();
        is_content(kind) || kind == "response.output_item.added" && self.item.get().is_some_and(Item::is_call)
    }
}

impl Response<'_> {
    fn told(&self, model: Option<&str>) -> Told {
        let details = self.status_details.get();
        let reason = details.and_then(|details| details.reason.get());
        let calls = self.output.items().iter().filter(|item| item.is_call());
        let tools: Vec<Box<str>> = calls.filter_map(Item::tool).take(MAX_NAMES).map(Into::into).collect();
        let (ending, finish) = match (self.status.get(), reason) {
            (Some("completed"), _) if !tools.is_empty() => (Ending::Complete, "tool_calls"),
            (Some("incomplete"), Some("content_filter")) => (Ending::Declined, "content_filter"),
            (Some("incomplete"), reason) => (Ending::Complete, reason.unwrap_or("incomplete")),
            // Whoever speaks up interrupts the model: the usual end of a response in a talk.
            (Some(status @ ("completed" | "cancelled")), _) => (Ending::Complete, status),
            (status, _) => (Ending::Failed, status.unwrap_or("failed")),
        };
        let error = details.and_then(|details| details.error.get());
        let status = match ending {
            Ending::Failed => error.map_or(StatusCode::INTERNAL_SERVER_ERROR, Complaint::status),
            _ => StatusCode::OK,
        };
        let mut facts = ReplyFacts {
            model: model.map(Into::into),
            id: self.id.get().map(Into::into),
            finish_reasons: vec![finish.into()],
            tools,
            ..ReplyFacts::default()
        };
        for item in self.output.items().iter().filter(|item| item.kind.get() == Some("function_call")) {
            facts.call(item.name.get().unwrap_or_default());
            item.arguments.argue_to(&mut facts);
        }
        let usage = self.usage.get().and_then(Reported::usage);
        Told { status, said: Said { facts, usage, ending, ..Said::default() } }
    }
}

impl Item<'_> {
    fn is_call(&self) -> bool {
        self.kind.get().is_some_and(|kind| kind.ends_with("_call"))
    }

    /// The tool's name; where it has none, its kind.
    fn tool(&self) -> Option<&str> {
        self.name.get().or_else(|| self.kind.get()?.strip_suffix("_call"))
    }
}

impl Reported {
    /// `None` if no tokens were reported.
    fn usage(&self) -> Option<Usage> {
        let (no_details, no_kinds) = (InputDetails::default(), ByKind::default());
        let input = self.input_token_details.get().unwrap_or(&no_details);
        let cached = input.cached_tokens_details.get().unwrap_or(&no_kinds);
        let output = self.output_token_details.get().unwrap_or(&no_kinds);
        (self.input_tokens.0.is_some() || self.output_tokens.0.is_some()).then(|| {
            let parts = [
                (Counter::CacheReadTokens, input.cached_tokens.0),
                (Counter::InputAudioTokens, input.audio_tokens.0),
                (Counter::InputImageTokens, input.image_tokens.0),
                (Counter::CacheAudioReadTokens, cached.audio_tokens.0),
                (Counter::CacheImageReadTokens, cached.image_tokens.0),
                (Counter::OutputAudioTokens, output.audio_tokens.0),
                (Counter::OutputImageTokens, output.image_tokens.0),
            ];
            Usage::cache_inside(self.input_tokens.0, self.output_tokens.0, &parts)
        })
    }
}

impl Transcribed {
    /// `None` if neither tokens nor seconds were reported.
    fn usage(&self) -> Option<Usage> {
        let counts = [self.input_tokens.0, self.output_tokens.0, self.seconds.0];
        counts.iter().any(Option::is_some).then(|| {
            let audio = self.input_token_details.get().and_then(|details| details.audio_tokens.0);
            // Some models have a price for seconds of audio, some for seconds of audio read: these are both.
            let parts = [
                (Counter::InputAudioTokens, audio),
                (Counter::AudioSeconds, self.seconds.0),
                (Counter::InputAudioSeconds, self.seconds.0),
            ];
            Usage::cache_inside(self.input_tokens.0, self.output_tokens.0, &parts)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: &[&str]) -> Vec<News> {
        let mut session = Box::new(Realtime::new(Some("asked".into())));
        let mut news = Vec::new();
        for message in messages {
            session.message(message.as_bytes(), &mut |told| news.push(told));
        }
        session.finish(&mut |told| news.push(told));
        news
    }

    fn only_end(done: &str) -> Told {
        match read(&[done]).pop() {
            Some(News::Ended(0, told)) => told,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_response_is_one_call_from_its_creation_to_its_end() {
        let news = read(&[
            r#"{"type":"session.created","session":{"type":"realtime","model":"gpt-realtime-2025-08-28"}}"#,
            r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress","usage":null}}"#,
            r#"{"type":"response.created","response":{"id":"resp_2","status":"in_progress"}}"#,
            r#"{"type":"response.output_item.added","response_id":"resp_1","item":{"type":"message"}}"#,
            r#"{"type":"response.output_audio.delta","response_id":"resp_2","delta":"AAAA"}"#,
            r#"{"type":"response.output_text.delta","response_id":"resp_1","delta":"a"}"#,
            r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","output":[{"type":"message"}],
                "usage":{"total_tokens":30,"input_tokens":20,"output_tokens":10}}}"#,
        ]);
        let [first, second, audio, text, News::Ended(0, done), News::Ended(1, cut)] = &news[..] else {
            unreachable!("{news:?}")
        };
        assert_eq!([first, second], [&News::Began(0), &News::Began(1)]);
        assert_eq!([audio, text], [&News::Content(1), &News::Content(0)]);
        assert_eq!(done.said.ending, Ending::Complete);
        assert_eq!(done.said.facts.model.as_deref(), Some("gpt-realtime-2025-08-28"));
        assert_eq!(done.said.facts.id.as_deref(), Some("resp_1"));
        assert_eq!(done.said.usage.map(|usage| usage.total_tokens()), Some(30));
        assert_eq!((cut.said.ending, cut.said.usage), (Ending::Unfinished, None));
    }

    #[test]
    fn usage_is_read_to_the_last_detail() {
        let told = only_end(
            r#"{"type":"response.done","response":{"id":"r","status":"completed","usage":{
                "total_tokens":400,"input_tokens":300,"output_tokens":100,
                "input_token_details":{"text_tokens":100,"audio_tokens":180,"image_tokens":20,"cached_tokens":96,
                    "cached_tokens_details":{"text_tokens":32,"audio_tokens":60,"image_tokens":4}},
                "output_token_details":{"text_tokens":30,"audio_tokens":70}}}}"#,
        );
        let usage = told.said.usage.expect("usage");
        for (counter, count) in [
            (Counter::InputTokens, 300),
            (Counter::OutputTokens, 100),
            (Counter::InputAudioTokens, 180),
            (Counter::InputImageTokens, 20),
            (Counter::CacheReadTokens, 96),
            (Counter::CacheAudioReadTokens, 60),
            (Counter::CacheImageReadTokens, 4),
            (Counter::OutputAudioTokens, 70),
        ] {
            assert_eq!(usage.get(counter), Some(count), "{}", counter.name());
        }
        // Text 68 uncached of 100, audio 120 and image 16 uncached, cached 96, output text 30 and audio 70.
        assert_eq!(usage.tokens_by_class(), [68, 96, 0, 30, 0, 206, 0]);
    }

    #[test]
    fn the_status_says_how_a_response_ended() {
        for (response, ending, finish, status) in [
            (r#""status":"completed""#, Ending::Complete, "completed", 200),
            (
                r#""status":"completed","output":[{"type":"function_call","name":"f"}]"#,
                Ending::Complete,
                "tool_calls",
                200,
            ),
            (r#""status":"cancelled","status_details":{"reason":"turn_detected"}"#, Ending::Complete, "cancelled", 200),
            (
                r#""status":"incomplete","status_details":{"reason":"max_output_tokens"}"#,
                Ending::Complete,
                "max_output_tokens",
                200,
            ),
            (
                r#""status":"incomplete","status_details":{"reason":"content_filter"}"#,
                Ending::Declined,
                "content_filter",
                200,
            ),
            (
                r#""status":"failed","status_details":{"error":{"type":"x","code":"rate_limit_exceeded"}}"#,
                Ending::Failed,
                "failed",
                429,
            ),
            (r#""status":"failed""#, Ending::Failed, "failed", 500),
        ] {
            let told = only_end(&format!(r#"{{"type":"response.done","response":{{{response}}}}}"#));
            assert_eq!(told.said.facts.finish_reasons, [Box::from(finish)], "{response}");
            assert_eq!((told.said.ending, told.status.as_u16()), (ending, status), "{response}");
            assert_eq!(told.said.usage, None, "{response}");
        }
    }

    #[test]
    fn what_is_heard_is_a_transcription_by_its_own_model() {
        let session = |inside: &str| format!(r#"{{"type":"session.updated","session":{{"model":"m",{inside}}}}}"#);
        let heard = |usage: &str| {
            format!(
                r#"{{"type":"conversation.item.input_audio_transcription.completed","item_id":"i",
                    "transcript":"hello","usage":{usage}}}"#
            )
        };
        let tokens = r#"{"type":"tokens","total_tokens":22,"input_tokens":13,"output_tokens":9,
            "input_token_details":{"text_tokens":0,"audio_tokens":13}}"#;
        for (setting, usage, counter, count, model) in [
            (
                r#""audio":{"input":{"transcription":{"model":"gpt-4o-transcribe"}}}"#,
                tokens,
                Counter::InputAudioTokens,
                13,
                "gpt-4o-transcribe",
            ),
            (
                r#""input_audio_transcription":{"model":"whisper-1"}"#,
                r#"{"type":"duration","seconds":7.2}"#,
                Counter::InputAudioSeconds,
                7,
                "whisper-1",
            ),
        ] {
            let news = read(&[&session(setting), &heard(usage)]);
            let [News::Beside(Operation::Transcription, told)] = &news[..] else { unreachable!("{news:?}") };
            assert_eq!(told.said.facts.model.as_deref(), Some(model));
            assert_eq!(told.said.usage.and_then(|usage| usage.get(counter)), Some(count), "{model}");
        }
        let unknown = read(&[&heard("null")]);
        let [News::Beside(_, told)] = &unknown[..] else { unreachable!("{unknown:?}") };
        assert_eq!((told.said.facts.model.as_deref(), told.said.usage), (None, None), "not the model that answers");
    }

    #[test]
    fn what_makes_no_sense_is_stepped_over() {
        let news = read(&[
            "",
            "[]",
            "{",
            r#"{"type":"response.done"}"#,
            r#"{"type":"response.done","response":[]}"#,
            r#"{"type":"response.output_text.delta","response_id":"never begun"}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"secret"}}"#,
        ]);
        assert_eq!(news, [News::Complained(StatusCode::BAD_REQUEST)]);
    }
}
