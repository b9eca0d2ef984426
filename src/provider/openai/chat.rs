//! Chat: replies of `/chat/completions` and of the older `/completions`, which share their shape.
//!
//! A whole reply has `message`s where a chunk of a stream has `delta`s; one reading serves both. A stream is complete
//! when `[DONE]` came and every choice said why it stopped.

use http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::alike::Alike;
use crate::provider::lenient::{Count, Filled, List, Object, Text, Written};
use crate::provider::openai::usage::{Head, Reported, Tally};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said};
use crate::record::ReplyFacts;

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    facts: ReplyFacts,
    tally: Tally,
    output: Output,
    /// Each choice seen, by its index, and why it stopped.
    choices: Vec<(u64, Option<Box<str>>)>,
    arrival: Arrival,
    refused: bool,
    failed: bool,
    /// The last chunk that brought some text of the only choice, and nothing else.
    alike: Alike,
}

/// Why a choice stops that is an answer for anybody who asks the same: of OpenAI, its copies, and the APIs that some of
/// them pass on. Whatever else is said (a filter, a busy server, a call that makes no sense) is for this app only.
const ANSWERS: &[&str] = &[
    "stop",
    "length",
    "tool_calls",
    "function_call",
    "eos",
    "eos_token",
    "model_length",
    "stop_sequence",
    "end_turn",
    "tool_use",
    "max_tokens",
    "STOP",
    "MAX_TOKENS",
];

/// Where Fireworks, and Hugging Face's own server, count in headers too.
static INPUT: [HeaderName; 2] =
    [HeaderName::from_static("fireworks-prompt-tokens"), HeaderName::from_static("x-prompt-tokens")];
static CACHED: [HeaderName; 1] = [HeaderName::from_static("fireworks-cached-prompt-tokens")];
static OUTPUT: [HeaderName; 1] = [HeaderName::from_static("x-generated-tokens")];

/// How far the reply came.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Arrival {
    /// Not to its end.
    #[default]
    Partial,
    /// In one piece. Some servers leave out of it why the choices stopped.
    Whole,
    /// As a stream, to its end marker.
    Marked,
}

/// A whole reply, or a chunk of a streamed one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Completion<'a> {
    #[serde(borrow)]
    object: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    service_tier: Text<'a>,
    #[serde(borrow)]
    choices: List<Choice<'a>>,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    #[serde(borrow)]
    x_groq: Object<XGroq<'a>>,
    error: Filled,
    moderation: Filled,
    prompt_filter_results: Filled,
}

/// What Groq adds to the first chunk and the last.
#[derive(Default, Deserialize)]
#[serde(default)]
struct XGroq<'a> {
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    index: Count,
    #[serde(borrow)]
    finish_reason: Text<'a>,
    #[serde(borrow)]
    stop_reason: Text<'a>,
    error: Filled,
    #[serde(borrow)]
    message: Object<Message<'a>>,
    #[serde(borrow)]
    delta: Object<Message<'a>>,
    #[serde(borrow)]
    text: Written<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    content: Written<'a>,
    #[serde(borrow)]
    refusal: Written<'a>,
    #[serde(borrow)]
    reasoning: Written<'a>,
    #[serde(borrow)]
    reasoning_content: Written<'a>,
    audio: Filled,
    #[serde(borrow)]
    tool_calls: List<ToolCall<'a>>,
    #[serde(borrow)]
    function_call: Object<Called<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Object<Called<'a>>,
    #[serde(borrow)]
    custom: Object<Called<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Called<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    arguments: Written<'a>,
    /// A custom tool's.
    #[serde(borrow)]
    input: Written<'a>,
}

impl ReadReply for Reply {
    fn head(&mut self, headers: &HeaderMap) {
        let count =
            |names: &[HeaderName]| names.iter().find_map(|name| headers.get(name)?.to_str().ok()?.trim().parse().ok());
        self.tally.take_head(Head { input: count(&INPUT), cached: count(&CACHED), output: count(&OUTPUT) });
    }

    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        if self.read(body).is_some() {
            self.arrival = Arrival::Whole;
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        if let Some(text) = self.alike.text_of(event.data) {
            self.output.push(text);
            return EventKind::Content;
        }
        if event.data.trim_ascii() == b"[DONE]" {
            self.arrival = Arrival::Marked;
            return EventKind::Other;
        }
        self.read(event.data).unwrap_or(EventKind::Other)
    }

    fn generated(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let ending = self.ending();
        self.choices.sort_by_key(|(index, _)| *index);
        self.facts.finish_reasons = self.choices.into_iter().filter_map(|(_, reason)| reason).collect();
        let (usage, provider_cost) = (self.tally.usage(&[]), self.tally.cost());
        Said { facts: self.facts, usage, provider_cost, output: self.output, text: None, ending }
    }
}

impl Reply {
    /// Takes in what `json` says. `None` if it cannot be read.
    fn read(&mut self, json: &[u8]) -> Option<EventKind> {
        let completion: Completion<'_> = json::read(json)?;
        self.failed |= completion.error.0 || completion.object.get() == Some("error");
        completion.id.keep_first(&mut self.facts.id);
        completion.model.keep_first(&mut self.facts.model);
        completion.service_tier.keep_last(&mut self.facts.service_tier);
        let groq = completion.x_groq.get();
        self.failed |= groq.is_some_and(|groq| groq.error.0);
        let reports = [groq.and_then(|groq| groq.usage.get()), completion.usage.get()];
        for reported in reports.into_iter().flatten() {
            self.tally.take(reported);
            reported.service_tier.keep_last(&mut self.facts.service_tier);
        }
        let mut has_content = false;
        for choice in completion.choices.items() {
            has_content |= self.read_choice(choice);
        }
        if let Some(text) = completion.only_text() {
            let start = text.as_ptr().addr() - json.as_ptr().addr();
            self.alike.remember(json, start..start + text.len());
        }
        Some(if has_content { EventKind::Content } else { completion.kind_without_content() })
    }

    /// Takes in what a choice says; whether it has content.
    fn read_choice(&mut self, choice: &Choice<'_>) -> bool {
        let index = choice.index.0.unwrap_or(0);
        let known = self.choices.iter().position(|(known, _)| *known == index);
        let slot = known.unwrap_or(self.choices.len());
        if slot < MAX_NAMES {
            if slot == self.choices.len() {
                self.choices.push((index, None));
            }
            choice.reason().keep_last(&mut self.choices[slot].1);
        }
        let reason = choice.reason().get();
        self.failed |= choice.error.0 || reason == Some("error");
        self.refused |= reason.is_some_and(|reason| !ANSWERS.contains(&reason));
        let messages = [choice.message.get(), choice.delta.get()];
        if messages.iter().all(Option::is_none) {
            // Together says it twice: here, and in the delta.
            choice.text.push_to(&mut self.output);
        }
        messages.into_iter().flatten().fold(choice.text.is_filled(), |has_content, message| {
            self.refused |= message.refusal.is_filled();
            self.read_tools(message);
            message.push_to(&mut self.output);
            has_content || message.has_content()
        })
    }

    /// A tool's name comes with the first fragment of its call only, so each name is a call.
    fn read_tools(&mut self, message: &Message<'_>) {
        for called in message.called() {
            if let Some(name) = called.name.get() {
                self.facts.call(name);
                if self.facts.tools.len() < MAX_NAMES {
                    self.facts.tools.push(name.into());
                }
            }
            called.arguments.argue_to(&mut self.facts);
            called.input.argue_to(&mut self.facts);
        }
    }

    fn ending(&self) -> Ending {
        let complete = !self.choices.is_empty()
            && match self.arrival {
                Arrival::Partial => false,
                Arrival::Whole => true,
                Arrival::Marked => self.choices.iter().all(|(_, reason)| reason.is_some()),
            };
        match (self.failed, complete, self.refused) {
            (true, _, _) => Ending::Failed,
            (_, false, _) => Ending::Unfinished,
            (_, _, true) => Ending::Declined,
            (_, _, false) => Ending::Complete,
        }
    }
}

impl<'a> Choice<'a> {
    /// Why it stopped. Bedrock's Mistral and `DeepSeek` call it `stop_reason`; vLLM has both names, and means another
    /// thing by that one.
    fn reason(&self) -> &Text<'a> {
        if self.finish_reason.get().is_some() { &self.finish_reason } else { &self.stop_reason }
    }
}

impl<'a> Completion<'a> {
    /// The text of a chunk that brings nothing else: were the same chunk to come again, only its text would count again.
    fn only_text(&self) -> Option<&'a str> {
        let [choice] = self.choices.items() else { return None };
        let Message { content, refusal, reasoning, reasoning_content, .. } = choice.delta.get()?;
        let is_else = self.usage.get().is_some()
            || self.x_groq.get().is_some()
            || self.error.0
            || self.object.get() == Some("error")
            || choice.reason().get().is_some()
            || choice.error.0
            || choice.message.get().is_some()
            || choice.text.is_filled()
            || [refusal, reasoning, reasoning_content].into_iter().any(Written::is_filled)
            || choice.delta.get()?.audio.0
            || choice.delta.get()?.called().next().is_some();
        content.as_spelt().filter(|_| !is_else)
    }
    /// Azure's first chunk and moderation chunks have no choices either, but say something of their own.
    fn kind_without_content(&self) -> EventKind {
        let says_more = self.moderation.0 || self.prompt_filter_results.0 || self.error.0;
        if self.choices.is_present_but_empty() && self.usage.get().is_some() && !says_more {
            EventKind::UsageOnly
        } else {
            EventKind::Other
        }
    }
}

impl<'a> Message<'a> {
    /// The calls of tools, or fragments of them.
    fn called(&self) -> impl Iterator<Item = &Called<'a>> {
        let calls = self.tool_calls.items().iter().flat_map(|call| [call.function.get(), call.custom.get()]);
        calls.chain([self.function_call.get()]).flatten()
    }

    fn has_content(&self) -> bool {
        let texts = [self.content, self.refusal, self.reasoning, self.reasoning_content];
        texts.iter().any(Written::is_filled)
            || self.audio.0
            || !self.tool_calls.items().is_empty()
            || self.function_call.get().is_some()
    }

    /// Adds what was written to `output`. Some vendors say their reasoning under both names.
    fn push_to(&self, output: &mut Output) {
        let reasoning = if self.reasoning_content.is_filled() { self.reasoning_content } else { self.reasoning };
        for written in [reasoning, self.content, self.refusal] {
            written.push_to(output);
        }
        for called in self.called() {
            called.arguments.push_to(output);
            called.input.push_to(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(data: &str) -> EventKind {
        Reply::default().event(&Event { name: "", data: data.as_bytes(), span: 0..0 })
    }

    #[test]
    fn a_stream_says_the_same_whether_its_chunks_are_compared_or_read() {
        let chunk = |delta: &str, rest: &str| {
            format!(r#"{{"id":"c","model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]{rest}}}"#)
        };
        let text = |text: &str| chunk(&format!(r#"{{"content":"{text}"}}"#), "");
        let tool = r#"{"content":"x","tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]}"#;
        let usage = r#","usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}"#;
        let chunks = [
            chunk(r#"{"role":"assistant","content":""}"#, ""),
            chunk(r#"{"role":"assistant","content":"a"}"#, ""),
            chunk(r#"{"role":"assistant","content":"b"}"#, ""),
            text("one"),
            text("two"),
            text(r#"an \"escape\"\n"#),
            text(""),
            text("three"),
            chunk(r#"{"content":"x","reasoning":"why"}"#, ""),
            chunk(r#"{"content":"y","reasoning":"why"}"#, ""),
            chunk(tool, ""),
            chunk(tool, ""),
            chunk(r#"{"content":"z"}"#, usage),
            chunk(r#"{"content":"z"}"#, usage),
            text("four").replace("null", r#""stop""#),
            text("five").replace("null", r#""stop""#),
            text("six").replace(r#""index":0"#, r#""index":1"#),
            text("seven").replace(r#""index":0"#, r#""index":1"#),
            text("eight").replace(r#""id""#, r#""object":"error","id""#),
            text("nine"),
            "[DONE]".to_owned(),
        ];
        let read = |compares: bool| {
            let (mut reply, mut kinds) = (Box::<Reply>::default(), Vec::new());
            for chunk in &chunks {
                if !compares {
                    reply.alike = Alike::default();
                }
                kinds.push(reply.event(&Event { name: "", data: chunk.as_bytes(), span: 0..0 }));
            }
            (kinds, format!("{reply:?}").split("alike:").next().map(str::to_owned), reply.finish())
        };
        let (compared, one_by_one) = (read(true), read(false));
        assert_eq!(compared.0, one_by_one.0);
        assert_eq!(compared.1, one_by_one.1);
        assert_eq!(compared.2.output.text(), one_by_one.2.output.text());
        let mut reply = Reply::default();
        let first = text("one");
        reply.event(&Event { name: "", data: first.as_bytes(), span: 0..0 });
        assert_eq!(reply.alike.text_of(text("two").as_bytes()), Some("two"), "chunks of text are compared");
    }

    #[test]
    fn only_a_chunk_with_usage_and_no_choices_is_usage_only() {
        let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}"#;
        for (rule, data, expected) in [
            ("the usage chunk", format!(r#"{{"choices":[],{usage}}}"#), EventKind::UsageOnly),
            ("no usage", r#"{"choices":[],"usage":null}"#.to_owned(), EventKind::Other),
            ("no list of choices", format!("{{{usage}}}"), EventKind::Other),
            ("a finish chunk", format!(r#"{{"choices":[{{"index":0,"delta":{{}}}}],{usage}}}"#), EventKind::Other),
            (
                "Azure's first chunk",
                r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#.to_owned(),
                EventKind::Other,
            ),
            (
                "a moderation chunk",
                format!(r#"{{"choices":[],"moderation":{{"input":{{}}}},{usage}}}"#),
                EventKind::Other,
            ),
            ("the end marker", "[DONE]".to_owned(), EventKind::Other),
            ("no JSON", "{\"choices\":[],".to_owned(), EventKind::Other),
        ] {
            assert_eq!(kind(&data), expected, "{rule}");
        }
    }

    #[test]
    fn text_reasoning_refusals_audio_and_tool_calls_are_content() {
        for (delta, expected) in [
            (r#"{"role":"assistant","content":""}"#, EventKind::Other),
            (r#"{"content":"a"}"#, EventKind::Content),
            (r#"{"reasoning_content":"a","content":null}"#, EventKind::Content),
            (r#"{"reasoning":"a"}"#, EventKind::Content),
            (r#"{"refusal":"a"}"#, EventKind::Content),
            (r#"{"audio":{"data":"a"}}"#, EventKind::Content),
            (r#"{"tool_calls":[{"index":0,"function":{"arguments":""}}]}"#, EventKind::Content),
            (r#"{"function_call":{"name":"a"}}"#, EventKind::Content),
            ("{}", EventKind::Other),
        ] {
            assert_eq!(kind(&format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#)), expected, "{delta}");
        }
        assert_eq!(kind(r#"{"choices":[{"index":0,"text":"a"}]}"#), EventKind::Content, "legacy completions");
    }
}
