//! Audio: replies of `/audio/speech` that are not sound itself, and of `/audio/transcriptions` and `/audio/translations`.
//!
//! Transcriptions count tokens or seconds, whichever their model is billed by; where they count neither, the length of
//! what was heard stands for the seconds. A stream ends with an event that says what was used.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::lenient::{Count, Filled, Object, Text, Written};
use crate::provider::openai::usage::{Reported, Tally};
use crate::provider::{Ending, EventKind, ReadReply, Said};
use crate::record::usage::{Counter, Usage};

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Said,
    tally: Tally,
    seconds: Option<u64>,
}

/// A whole transcription, or an event of a stream.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Heard<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    text: Written<'a>,
    #[serde(borrow)]
    delta: Written<'a>,
    duration: Count,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    error: Filled,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.said.ending = Ending::Failed;
            return;
        }
        let Some(Object(Some(heard))) = json::read::<Object<Heard<'_>>>(body) else { return };
        self.read(&heard);
        heard.text.push_to(&mut self.said.output);
        self.said.ending = if heard.error.0 { Ending::Failed } else { Ending::Complete };
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(heard) = json::read::<Heard<'_>>(event.data) else { return EventKind::Other };
        self.read(&heard);
        let kind = heard.kind.get().unwrap_or(event.name);
        if kind == "error" || heard.error.0 {
            self.said.ending = Ending::Failed;
        }
        match kind {
            "transcript.text.done" | "speech.audio.done" | "transcription.done" => self.said.ending = Ending::Complete,
            "transcript.text.delta" | "transcription.text.delta" => {
                heard.delta.push_to(&mut self.said.output);
                // Mistral's name for the same.
                heard.text.push_to(&mut self.said.output);
                return EventKind::Content;
            }
            "speech.audio.delta" => return EventKind::Content,
            _ => {}
        }
        EventKind::Other
    }

    fn finish(mut self: Box<Self>) -> Said {
        let heard = || Some(Usage::cache_inside(None, None, &[(Counter::InputAudioSeconds, Some(self.seconds?))]));
        self.said.usage = self.tally.usage(&[]).or_else(heard);
        self.said.provider_cost = self.tally.cost();
        self.said
    }
}

impl Reply {
    fn read(&mut self, heard: &Heard<'_>) {
        heard.model.keep_first(&mut self.said.facts.model);
        self.seconds = heard.duration.0.or(self.seconds);
        if let Some(reported) = heard.usage.get() {
            self.tally.take(reported);
        }
    }
}
