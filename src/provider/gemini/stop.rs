//! Stop: streams of `streamGenerateContent`, ended: every candidate was as long as it may be, with what was used so far
//! as the last chunk counted it. An interaction, which goes on at Google, ends with an error.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::frames::Event;
use crate::json;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{Events, numbered};
use crate::provider::lenient::{self, Count, List, Text};
use crate::provider::stop::{CODE, MESSAGE, Stop, UsedSoFar};
use crate::provider::tree::{Json, Object};

/// What is noted of a stream.
pub(super) fn notes(endpoint: Endpoint) -> Option<Box<dyn Stop>> {
    match endpoint {
        Endpoint::StreamGenerateContent => Some(Box::<Generated>::default()),
        Endpoint::Interactions => Some(Box::<Interaction>::default()),
        _ => None,
    }
}

/// Of `streamGenerateContent`.
#[derive(Default)]
struct Generated {
    /// Each candidate seen, and whether it has ended.
    candidates: Vec<(u64, bool)>,
    /// Whether the prompt was blocked: then there are none.
    is_blocked: bool,
    usage: Option<Box<RawValue>>,
    /// What each chunk says again.
    head: Option<Object>,
}

/// What each chunk says again.
const CONSTANT: &[&str] = &["modelVersion", "createTime", "responseId"];

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow)]
    candidates: List<Candidate<'a>>,
    #[serde(borrow)]
    prompt_feedback: lenient::Object<Feedback<'a>>,
    #[serde(borrow)]
    usage_metadata: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Feedback<'a> {
    #[serde(borrow)]
    block_reason: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Candidate<'a> {
    index: Count,
    #[serde(borrow)]
    finish_reason: Text<'a>,
}

impl Stop for Generated {
    fn note(&mut self, event: &Event<'_>) {
        let Some(chunk) = json::read::<Chunk<'_>>(event.data) else { return };
        for candidate in chunk.candidates.items() {
            if let Some(has_ended) = numbered(&mut self.candidates, candidate.index.0.unwrap_or(0)) {
                *has_ended |= candidate.finish_reason.get().is_some_and(|reason| reason != "FINISH_REASON_UNSPECIFIED");
            }
        }
        self.is_blocked |= chunk.prompt_feedback.get().is_some_and(|feedback| feedback.block_reason.get().is_some());
        if let Some(usage) = chunk.usage_metadata {
            self.usage = Some(usage.to_owned());
        }
        if self.head.is_none() {
            self.head = Object::read(event.data).map(|mut chunk| chunk.take_all(CONSTANT));
        }
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        let ended = |index: &u64| {
            let nothing = vec![Object::new().with("text", "").into()];
            let content = Object::new().with("parts", nothing).with("role", "model");
            let candidate = Object::new().with("content", content).with("finishReason", "MAX_TOKENS");
            Json::from(candidate.with("index", Json::number(*index)))
        };
        let open: Vec<Json> =
            self.candidates.iter().filter(|(_, has_ended)| !has_ended).map(|(i, _)| ended(i)).collect();
        if open.is_empty() {
            return (self.is_blocked || !self.candidates.is_empty()).then_some(());
        }
        let usage = self.usage.clone().map(Json::Written);
        let chunk = Object::new().with("candidates", open).with_any("usageMetadata", usage);
        out.push("", &chunk.with_all(self.head.clone()?))
    }
}

/// Of an interaction.
#[derive(Default)]
struct Interaction {
    done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow)]
    event_type: Text<'a>,
}

impl Stop for Interaction {
    fn note(&mut self, event: &Event<'_>) {
        let Some(read) = json::read::<StreamEvent<'_>>(event.data) else { return };
        self.done |= matches!(read.event_type.get().unwrap_or(event.name), "interaction.completed" | "error");
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        let error = Object::new().with("code", CODE).with("message", MESSAGE);
        out.push("error", &Object::new().with("error", error).with("event_type", "error"))
    }
}
