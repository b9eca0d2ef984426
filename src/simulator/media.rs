//! Media: pictures, speech and transcriptions of OpenAI's API, and the batches that cost nothing by themselves.
//!
//! Knows that wire format and nothing of time, faults or HTTP. What is heard in a file is decided by its size.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::bill::{NONE, Tally};
use super::faults::{Oddity, Script};
use super::mind::{Mind, model_of};
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;

/// Tokens of one picture of medium quality, by OpenAI's table for 1024 × 1024 pixels.
const PER_PICTURE: u64 = 1056;
/// A picture of one pixel.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/// What is heard in every file.
const HEARD: &str = "A weir is a low dam across a river.";
/// Bytes of sound in a second.
const BYTES_PER_SECOND: usize = 16_000;

/// `POST /v1/images/generations`, `/edits`, `/variations`.
pub(super) fn images(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let text = mind.tokens.count(body["prompt"].as_str().unwrap_or_default());
    let count = body["n"].as_u64().unwrap_or(1).clamp(1, 10);
    let tokens = Tally { input: text, output: count * PER_PICTURE, ..Tally::default() };
    let usage = json!({
        "input_tokens": tokens.input,
        "input_tokens_details": {"text_tokens": text, "image_tokens": 0},
        "output_tokens": tokens.output,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": tokens.output},
        "total_tokens": tokens.input + tokens.output,
    });
    let content = if body["stream"] == true {
        let picture = |kind: &str| json!({"type": kind, "b64_json": PICTURE, "created_at": mind.created});
        let mut partial = picture("image_generation.partial_image");
        partial["partial_image_index"] = 0.into();
        let mut completed = picture("image_generation.completed");
        completed["usage"] = usage;
        let events = vec![Event::named(Part::Token, &partial), Event::named(Part::End, &completed)];
        Content::Stream { events, failure: super::chat::failure, framing: Framing::ServerSentEvents }
    } else {
        let data: Vec<_> = (0..count).map(|_| json!({"b64_json": PICTURE})).collect();
        let mut reply = json!({"created": mind.created, "data": data});
        if !script.has(Oddity::NoUsage) {
            reply["usage"] = usage;
        }
        Content::whole(&reply)
    };
    Ok(Reply { model, seed: text, tokens, content, headers: Vec::new() })
}

/// `POST /v1/audio/speech`: the sound is silence. Older models are billed by the character, newer ones by tokens, of
/// which only a stream tells.
pub(super) fn speech(body: &Value, mind: &Mind) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let text = body["input"].as_str().ok_or(Problem::Missing("input"))?;
    let read = mind.tokens.count(text);
    let tokens = if model.starts_with("tts-1") {
        Tally { characters: text.chars().count() as u64, ..Tally::default() }
    } else {
        Tally { input: read, output: 20 * read, ..Tally::default() }
    };
    let content = if body["stream_format"] == "sse" {
        let (input, output) = (tokens.input, tokens.output);
        let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
        let delta = json!({"type": "speech.audio.delta", "audio": "SUQzBAAAAAAA"});
        let done = json!({"type": "speech.audio.done", "usage": usage});
        let events = vec![Event::plain(Part::Token, &delta), Event::plain(Part::End, &done)];
        Content::Stream { events, failure: super::chat::failure, framing: Framing::ServerSentEvents }
    } else {
        Content::Sound([b"ID3\x04\x00\x00", [0xff_u8, 0xfb, 0x90, 0x64].repeat(64).as_slice()].concat().into())
    };
    Ok(Reply { model, seed: read, tokens, content, headers: Vec::new() })
}

/// `POST /v1/audio/transcriptions` and `/translations`, of a form of so many bytes.
pub(super) fn transcription(body: &Value, mind: &Mind, bytes: usize) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let seconds = (bytes / BYTES_PER_SECOND) as u64 + 1;
    let (tokens, usage) = if model.starts_with("whisper") {
        let tokens = Tally { seconds, ..Tally::default() };
        (tokens, json!({"type": "duration", "seconds": seconds}))
    } else {
        let (input, output) = (10 * seconds, mind.tokens.count(HEARD));
        let details = json!({"text_tokens": 0, "audio_tokens": input});
        let usage = json!({"type": "tokens", "input_tokens": input, "input_token_details": details,
            "output_tokens": output, "total_tokens": input + output});
        (Tally { input, output, ..Tally::default() }, usage)
    };
    let content = match (body["stream"] == "true", body["response_format"].as_str()) {
        (true, _) => {
            let delta = |piece| json!({"type": "transcript.text.delta", "delta": piece});
            let mut events: Vec<_> = pieces(HEARD).map(|piece| Event::plain(Part::Token, &delta(piece))).collect();
            let done = json!({"type": "transcript.text.done", "text": HEARD, "usage": usage});
            events.push(Event::plain(Part::End, &done));
            Content::Stream { events, failure: super::chat::failure, framing: Framing::ServerSentEvents }
        }
        (_, Some("text" | "srt" | "vtt")) => Content::Text(format!("{HEARD}\n").into()),
        _ => Content::whole(&json!({"text": HEARD, "usage": usage})),
    };
    Ok(Reply { model, seed: seconds, tokens, content, headers: Vec::new() })
}

/// `POST /v1/batches`: taken in; its lines are never run.
pub(super) fn batch() -> Reply {
    let content = Content::whole(&json!({"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1", "completion_window": "24h", "status": "validating", "created_at": 0}));
    Reply { model: NONE.to_owned(), seed: 0, tokens: Tally::default(), content, headers: Vec::new() }
}

/// The text fields of a form, as an object.
pub(super) fn form(body: &[u8], boundary: &str) -> Value {
    let text = String::from_utf8_lossy(body);
    let mut fields = json!({});
    for part in text.split(&format!("--{boundary}")) {
        let Some((head, content)) = part.split_once("\r\n\r\n").filter(|(head, _)| !head.contains("filename")) else {
            continue;
        };
        let name = head.split_once("name=\"").and_then(|(_, rest)| rest.split_once('"'));
        if let Some((name, _)) = name {
            fields[name] = Cow::from(content.trim_end_matches("\r\n")).into();
        }
    }
    fields
}
