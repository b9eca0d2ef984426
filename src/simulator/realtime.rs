//! Realtime: what OpenAI's realtime API says in a session, event by event.
//!
//! Text in and out, function calls, and as much of audio as usage and its details need: what is heard is silence, what
//! is said is a sound for each word. Knows that wire format and nothing of time, faults or sockets.

use serde_json::{Map, Value, json};

use super::bill::Tally;
use super::chat::{choice, function};
use super::dice::Dice;
use super::faults::{Oddity, Script};
use super::memory::Piece;
use super::mind::{Caching, Choice, Mind, Question, ToolCall, gathered_text};
use super::reply::Part;
use super::text::{digest, pieces};

/// The base64 digits of a tenth of a second of audio (24,000 samples a second, two bytes each): one token, by OpenAI's
/// guide to the costs of realtime.
const DIGITS_PER_TOKEN: usize = 6400;
/// What is written down of whatever is heard.
const TRANSCRIPT: &str = "What is a weir?";
/// Four samples of silence, as base64: the sound of a word.
const SOUND: &str = "AAAAAAAAAAA=";

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    model: String,
    settings: Value,
    items: Vec<Item>,
    /// Base64 digits of audio that wait to be committed.
    heard: usize,
    dice: Dice,
}

/// A part of the conversation.
#[derive(Clone, Debug)]
struct Item {
    value: Value,
    audio_tokens: u64,
}

/// What the session says to one event of the app.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) events: Vec<(Part, Value)>,
    /// Which model is charged for it, and for what.
    pub(super) charge: Option<(String, Tally)>,
    /// Decides how long it takes.
    pub(super) seed: u64,
    /// What is said in place of the rest of a response that fails.
    pub(super) failure: Value,
}

impl Turn {
    fn push(&mut self, part: Part, kind: &str, members: Value) {
        let mut event = Map::from_iter([("type".to_owned(), Value::from(kind))]);
        if let Value::Object(members) = members {
            event.extend(members);
        }
        self.events.push((part, event.into()));
    }

    fn of(kind: &str, members: Value) -> Self {
        let mut turn = Self::default();
        turn.push(Part::Frame, kind, members);
        turn
    }

    fn complaint(code: &str, message: &str) -> Self {
        let error = json!({"type": "invalid_request_error", "code": code, "message": message, "param": null});
        Self::of("error", json!({"error": error}))
    }
}

impl Session {
    pub(super) fn new(model: &str) -> Self {
        let mut dice = Dice::new(digest(model.as_bytes()));
        let settings = json!({
            "type": "realtime",
            "object": "realtime.session",
            "id": dice.id("sess_"),
            "model": model,
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "audio": {"input": {"transcription": null, "turn_detection": null}, "output": {"voice": "marin"}},
        });
        Self { model: model.to_owned(), settings, items: Vec::new(), heard: 0, dice }
    }

    /// What it says unasked.
    pub(super) fn greeting(&mut self) -> Turn {
        let turn = Turn::of("session.created", json!({"session": self.settings}));
        self.numbered(turn)
    }

    /// What it says to one message of the app. Most messages have one turn, a commit may have two.
    pub(super) fn hears(&mut self, message: &str, mind: &Mind, script: &Script) -> Vec<Turn> {
        let event: Value = serde_json::from_str(message).unwrap_or_default();
        let turns = match event["type"].as_str() {
            Some("session.update") => {
                merge(&mut self.settings, &event["session"]);
                vec![Turn::of("session.updated", json!({"session": self.settings}))]
            }
            Some("conversation.item.create") => vec![self.add(event["item"].clone(), 0)],
            Some("input_audio_buffer.append") => {
                self.heard += event["audio"].as_str().map_or(0, str::len);
                Vec::new()
            }
            Some("input_audio_buffer.clear") => {
                self.heard = 0;
                vec![Turn::of("input_audio_buffer.cleared", json!({}))]
            }
            Some("input_audio_buffer.commit") => self.commit(mind, script),
            Some("response.create") => vec![self.respond(&event["response"], mind, script)],
            Some("response.cancel") => {
                vec![Turn::complaint("response_cancel_not_active", "Cancellation failed: no active response found")]
            }
            _ => vec![Turn::complaint("invalid_value", "This is no event that the simulator knows.")],
        };
        turns.into_iter().map(|turn| self.numbered(turn)).collect()
    }

    fn add(&mut self, mut item: Value, audio_tokens: u64) -> Turn {
        let before = self.items.last().map_or(Value::Null, |item| item.value["id"].clone());
        if item["id"].is_null() {
            item["id"] = self.dice.id("item_").into();
        }
        item["object"] = "realtime.item".into();
        item["status"] = "completed".into();
        self.items.push(Item { value: item.clone(), audio_tokens });
        let mut turn = Turn::default();
        for kind in ["conversation.item.added", "conversation.item.done"] {
            turn.push(Part::Frame, kind, json!({"previous_item_id": before, "item": item}));
        }
        turn
    }

    /// Takes what was heard as one message of the user, and has it written down if the session wants that.
    fn commit(&mut self, mind: &Mind, script: &Script) -> Vec<Turn> {
        if self.heard == 0 {
            return vec![Turn::complaint("input_audio_buffer_commit_empty", "The input audio buffer is empty.")];
        }
        let digits = std::mem::take(&mut self.heard);
        let tokens = digits.div_ceil(DIGITS_PER_TOKEN) as u64;
        let id = self.dice.id("item_");
        let before = self.items.last().map_or(Value::Null, |item| item.value["id"].clone());
        let mut committed =
            Turn::of("input_audio_buffer.committed", json!({"previous_item_id": before, "item_id": id}));
        let content = json!([{"type": "input_audio", "transcript": null}]);
        let item = json!({"id": id, "type": "message", "role": "user", "content": content});
        committed.events.extend(self.add(item, tokens).events);
        let transcriber = self.settings["audio"]["input"]["transcription"]["model"].as_str().map(str::to_owned);
        let written = transcriber.map(|model| written_down(&model, &id, tokens, mind, script));
        [committed].into_iter().chain(written).collect()
    }

    fn respond(&mut self, asked: &Value, mind: &Mind, script: &Script) -> Turn {
        let mut settings = self.settings.clone();
        merge(&mut settings, asked);
        let question = self.question(&settings, mind);
        let answer = mind.answer(&question, Caching::Unasked);
        let tokens = script.usage.map_or(answer.tokens, |usage| usage.instead_of(answer.tokens));
        let audio_in = self.items.iter().map(|item| item.audio_tokens).sum();
        let spoken = settings["output_modalities"][0] != "text";
        let usage = if script.has(Oddity::NoUsage) { Value::Null } else { usage(tokens, audio_in, spoken) };
        let mut response = Response { id: self.dice.id("resp_"), settings, spoken, turn: Turn::default() };
        response.turn.push(
            Part::Frame,
            "response.created",
            json!({"response": response.document("in_progress", &Value::Null, &[], &Value::Null)}),
        );
        let Choice { text, calls, cut, .. } = &answer.choices[0];
        let status = if *cut { "incomplete" } else { "completed" };
        let mut output = Vec::new();
        for call in calls {
            output.push(response.call(output.len(), &self.dice.id("item_"), call));
        }
        if calls.is_empty() {
            output.push(response.message(&self.dice.id("item_"), text));
        }
        for item in &output {
            self.items.push(Item { value: item.clone(), audio_tokens: 0 });
        }
        let details = json!({"type": status, "reason": if *cut { "max_output_tokens".into() } else { Value::Null }});
        let done = response.document(status, &details, &output, &usage);
        response.turn.push(Part::End, "response.done", json!({"response": done}));
        let error = json!({"type": "server_error", "code": "server_error", "message": "Sorry about that!"});
        let details = json!({"type": "failed", "error": error});
        let failed = response.document("failed", &details, &[], &Value::Null);
        let failure = json!({"type": "response.done", "response": failed});
        Turn { charge: Some((self.model.clone(), tokens)), seed: answer.seed, failure, ..response.turn }
    }

    fn question(&self, settings: &Value, mind: &Mind) -> Question {
        let tools = settings["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut prompt: Vec<_> = tools.iter().map(|tool| mind.tool_piece(tool, None)).collect();
        prompt.push(mind.piece("system", &settings["instructions"], None));
        prompt.extend(self.items.iter().map(|item| match item.audio_tokens {
            0 => mind.piece(item.value["role"].as_str().unwrap_or("tool"), &item.value["content"], None),
            tokens => Piece { digest: tokens, tokens, keep: None },
        }));
        let last = self.items.last().filter(|item| item.value["role"] == "user");
        Question {
            asked: last.map(|item| gathered_text(&item.value["content"])),
            most_tokens: settings["max_output_tokens"].as_u64(),
            tools: tools.iter().filter_map(function).collect(),
            choice: choice(&settings["tool_choice"], &settings["tool_choice"]["name"]),
            ..Question::plain(self.model.clone(), true, prompt)
        }
    }

    /// Each event has an id of its own.
    fn numbered(&mut self, mut turn: Turn) -> Turn {
        for (_, event) in &mut turn.events {
            event["event_id"] = self.dice.id("event_").into();
        }
        if turn.failure.is_object() {
            turn.failure["event_id"] = self.dice.id("event_").into();
        }
        turn
    }
}

/// Puts the members of `more` in place of those of `into`, as deep as both have them.
fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, more) => *into = more.clone(),
    }
}

/// What a second model makes of what was heard. Whisper is charged by the second, others by the token.
fn written_down(model: &str, item: &str, audio_tokens: u64, mind: &Mind, script: &Script) -> Turn {
    let place = |name: &str, text: &str| json!({"item_id": item, "content_index": 0, name: text});
    let mut turn = Turn { seed: audio_tokens, ..Turn::default() };
    let by_token = !model.starts_with("whisper");
    let output = if by_token { mind.tokens.count(TRANSCRIPT) } else { 0 };
    let tokens = Tally { input: if by_token { audio_tokens } else { 0 }, output, ..Tally::default() };
    let usage = match by_token {
        _ if script.has(Oddity::NoUsage) => Value::Null,
        true => json!({
            "type": "tokens",
            "total_tokens": audio_tokens + output,
            "input_tokens": audio_tokens,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio_tokens},
            "output_tokens": output,
        }),
        false => json!({"type": "duration", "seconds": audio_tokens.div_ceil(10)}),
    };
    let kind = |what: &str| format!("conversation.item.input_audio_transcription.{what}");
    turn.push(Part::Token, &kind("delta"), place("delta", TRANSCRIPT));
    let mut completed = place("transcript", TRANSCRIPT);
    completed["usage"] = usage;
    turn.push(Part::End, &kind("completed"), completed);
    Turn { charge: Some((model.to_owned(), tokens)), ..turn }
}

fn usage(tokens: Tally, audio_in: u64, spoken: bool) -> Value {
    let audio_in = audio_in.min(tokens.input);
    let text_in = tokens.input - audio_in;
    let cached_text = tokens.cached.min(text_in);
    let audio_out = if spoken { tokens.output } else { 0 };
    json!({
        "total_tokens": tokens.input + tokens.output,
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "input_token_details": {
            "text_tokens": text_in,
            "audio_tokens": audio_in,
            "image_tokens": 0,
            "cached_tokens": tokens.cached,
            "cached_tokens_details": {
                "text_tokens": cached_text,
                "audio_tokens": tokens.cached - cached_text,
                "image_tokens": 0,
            },
        },
        "output_token_details": {"text_tokens": tokens.output - audio_out, "audio_tokens": audio_out},
    })
}

/// A response as it is put together.
struct Response {
    id: String,
    settings: Value,
    spoken: bool,
    turn: Turn,
}

impl Response {
    fn document(&self, status: &str, details: &Value, output: &[Value], usage: &Value) -> Value {
        json!({
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": output,
            "output_modalities": self.settings["output_modalities"],
            "max_output_tokens": self.settings["max_output_tokens"],
            "metadata": self.settings["metadata"],
            "usage": usage,
        })
    }

    fn message(&mut self, id: &str, text: &str) -> Value {
        let item = |status: &str, content: &[Value]| {
            json!({
                "id": id,
                "object": "realtime.item",
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": content,
            })
        };
        let (kind, word, whole) = if self.spoken {
            ("output_audio", "output_audio_transcript", "transcript")
        } else {
            ("output_text", "output_text", "text")
        };
        let part = |text: &str| json!({"type": kind, whole: text});
        self.push(
            Part::Frame,
            "response.output_item.added",
            json!({"output_index": 0, "item": item("in_progress", &[])}),
        );
        let place = |members: Value| at(id, 0, Some(0), members);
        self.push(Part::Frame, "response.content_part.added", place(json!({"part": part("")})));
        for piece in pieces(text) {
            self.push(Part::Token, &format!("response.{word}.delta"), place(json!({"delta": piece})));
            if self.spoken {
                self.push(Part::Frame, "response.output_audio.delta", place(json!({"delta": SOUND})));
            }
        }
        self.push(Part::Frame, &format!("response.{word}.done"), place(json!({whole: text})));
        if self.spoken {
            self.push(Part::Frame, "response.output_audio.done", place(json!({})));
        }
        self.push(Part::Frame, "response.content_part.done", place(json!({"part": part(text)})));
        let done = item("completed", &[part(text)]);
        self.push(Part::Frame, "response.output_item.done", json!({"output_index": 0, "item": done}));
        done
    }

    fn call(&mut self, index: usize, id: &str, call: &ToolCall) -> Value {
        let (call_id, arguments) = (format!("call_{}", call.id), call.arguments.to_string());
        let item = |status: &str, arguments: &str| {
            json!({
                "id": id,
                "object": "realtime.item",
                "type": "function_call",
                "status": status,
                "call_id": call_id,
                "name": call.name,
                "arguments": arguments,
            })
        };
        let begun = item("in_progress", "");
        self.push(Part::Frame, "response.output_item.added", json!({"output_index": index, "item": begun}));
        let place = |name: &str, text: &str| at(id, index, None, json!({"call_id": call_id, name: text}));
        for piece in pieces(&arguments) {
            self.push(Part::Token, "response.function_call_arguments.delta", place("delta", piece));
        }
        let mut done = place("arguments", &arguments);
        done["name"] = call.name.clone().into();
        self.push(Part::Frame, "response.function_call_arguments.done", done);
        let done = item("completed", &arguments);
        self.push(Part::Frame, "response.output_item.done", json!({"output_index": index, "item": done}));
        done
    }

    fn push(&mut self, part: Part, kind: &str, mut members: Value) {
        members["response_id"] = self.id.clone().into();
        self.turn.push(part, kind, members);
    }
}

/// These members, and which part of which item of the output they belong to.
fn at(item: &str, index: usize, part: Option<usize>, members: Value) -> Value {
    let mut place = json!({"item_id": item, "output_index": index});
    if let Some(part) = part {
        place["content_index"] = part.into();
    }
    if let (Value::Object(place), Value::Object(members)) = (&mut place, members) {
        place.extend(members);
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(messages: &[Value]) -> Vec<Turn> {
        let (mind, script) = (Mind::new(), Script::default());
        let mut session = Session::new("gpt-realtime");
        messages.iter().flat_map(|message| session.hears(&message.to_string(), &mind, &script)).collect()
    }

    fn kinds(turn: &Turn) -> Vec<&str> {
        let mut kinds: Vec<_> = turn.events.iter().filter_map(|(_, event)| event["type"].as_str()).collect();
        kinds.dedup();
        kinds
    }

    #[test]
    fn a_text_is_answered_with_a_text_that_is_counted() {
        let turns = talk(&[
            json!({"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}),
            json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": "Hello"}]}}),
            json!({"type": "response.create"}),
        ]);
        assert_eq!(kinds(&turns[1]), ["conversation.item.added", "conversation.item.done"]);
        let response = &turns[2];
        assert_eq!(
            kinds(response),
            [
                "response.created",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.done",
            ]
        );
        let usage = &response.events.last().expect("events").1["response"]["usage"];
        let (model, tokens) = response.charge.as_ref().expect("charged");
        assert_eq!((model.as_str(), usage["output_tokens"].as_u64()), ("gpt-realtime", Some(tokens.output)));
        assert_eq!(usage["output_token_details"]["audio_tokens"], 0);
        assert!(tokens.input > 0 && tokens.output > 0);
    }

    #[test]
    fn what_is_heard_is_written_down_and_answered_aloud() {
        let transcription = |model: &str| json!({"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": model}}}}});
        let append = json!({"type": "input_audio_buffer.append", "audio": "A".repeat(DIGITS_PER_TOKEN * 15)});
        let commit = json!({"type": "input_audio_buffer.commit"});
        let turns = talk(&[
            transcription("whisper-1"),
            append.clone(),
            commit.clone(),
            transcription("gpt-4o-transcribe"),
            append,
            commit.clone(),
            commit,
            json!({"type": "response.create"}),
        ]);
        let last = |turn: &Turn| turn.events.last().expect("events").1.clone();
        assert_eq!(last(&turns[2])["usage"], json!({"type": "duration", "seconds": 2}));
        assert_eq!(last(&turns[5])["usage"]["input_token_details"]["audio_tokens"], 15);
        assert_eq!(last(&turns[6])["error"]["code"], "input_audio_buffer_commit_empty");
        let usage = &last(&turns[7])["response"]["usage"];
        assert_eq!(usage["input_token_details"]["audio_tokens"], 30);
        assert_eq!(usage["output_token_details"]["audio_tokens"], usage["output_tokens"]);
    }
}
