//! Interactions: replies of `POST /interactions`, whole or streamed. An interaction is kept at Google, and may go on
//! there after the reply.
//!
//! A stream ends with `interaction.completed`, which repeats what is known of the whole.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::frames::Event;
use crate::json;
use crate::provider::gemini::usage::{OfInteraction, Tally};
use crate::provider::lenient::{Filled, List, Object, Text};
use crate::provider::output::Output;
use crate::provider::{Ending, EventKind, MAX_NAMES, ReadReply, Said};
use crate::record::ReplyFacts;

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    facts: ReplyFacts,
    tally: Tally,
    searches: Option<u64>,
    status: Option<Box<str>>,
    output: Output,
    done: bool,
    failed: bool,
}

/// An interaction: a whole reply, or what some events carry.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Interaction<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    service_tier: Text<'a>,
    #[serde(borrow)]
    steps: List<Step<'a>>,
    #[serde(borrow)]
    usage: Object<OfInteraction<'a>>,
    error: Filled,
}

/// One step of the model.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Step<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    arguments: Option<Value>,
    #[serde(borrow)]
    content: List<Piece<'a>>,
    #[serde(borrow)]
    summary: List<Piece<'a>>,
}

/// A piece of content, or what is added to one: text, the summary of a thought, or the arguments of a call as text.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    arguments: Text<'a>,
    #[serde(borrow)]
    content: Object<Inner<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Inner<'a> {
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamEvent<'a> {
    #[serde(borrow)]
    event_type: Text<'a>,
    #[serde(borrow)]
    interaction: Object<Interaction<'a>>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    step: Object<Step<'a>>,
    #[serde(borrow)]
    delta: Object<Piece<'a>>,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        self.failed = !status.is_success();
        if self.failed {
            return;
        }
        let Some(Object(Some(interaction))) = json::read::<Object<Interaction<'_>>>(body) else { return };
        self.failed = interaction.error.0;
        self.read(&interaction);
        self.done = self.status.is_some();
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(read) = json::read::<StreamEvent<'_>>(event.data) else { return EventKind::Other };
        read.status.keep_last(&mut self.status);
        if let Some(interaction) = read.interaction.get() {
            self.read(interaction);
        }
        match read.event_type.get().unwrap_or(event.name) {
            "step.start" if read.step.get().is_some_and(|step| self.read_step(step)) => EventKind::Content,
            "step.delta" => {
                if let Some(delta) = read.delta.get() {
                    self.push(delta);
                }
                EventKind::Content
            }
            "interaction.completed" => {
                self.done = true;
                EventKind::Other
            }
            "error" => {
                self.failed = true;
                EventKind::Other
            }
            _ => EventKind::Other,
        }
    }

    fn generated(&self) -> u64 {
        self.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        let ending = match (self.failed, self.done, self.status.as_deref()) {
            (true, ..) | (_, true, Some("failed" | "cancelled")) => Ending::Failed,
            (_, false, _) => Ending::Unfinished,
            (.., Some("in_progress" | "queued")) => Ending::Unknown,
            (.., Some("requires_continuation" | "budget_exceeded")) => Ending::Declined,
            _ => Ending::Complete,
        };
        let ended = matches!(ending, Ending::Complete | Ending::Declined);
        let usage = self.tally.usage(ended, self.searches);
        self.facts.finish_reasons = self.status.filter(|_| self.done).into_iter().collect();
        Said { facts: self.facts, usage, output: self.output, ending, ..Said::default() }
    }
}

impl Reply {
    fn read(&mut self, interaction: &Interaction<'_>) {
        interaction.id.keep_first(&mut self.facts.id);
        interaction.model.keep_first(&mut self.facts.model);
        interaction.status.keep_last(&mut self.status);
        interaction.service_tier.keep_last(&mut self.facts.service_tier);
        if let Some(reported) = interaction.usage.get() {
            self.tally = reported.tally().or(self.tally);
            self.searches = reported.searches().or(self.searches);
        }
        // At the end of a stream, its steps may come once more.
        if self.output.bytes() == 0 && self.facts.tools.is_empty() {
            for step in interaction.steps.items() {
                self.read_step(step);
            }
        }
    }

    /// Takes in a step; whether it has content.
    fn read_step(&mut self, step: &Step<'_>) -> bool {
        let calls = step.kind.get() == Some("function_call");
        if let Some(name) = step.name.get().filter(|_| calls && self.facts.tools.len() < MAX_NAMES) {
            self.facts.tools.push(name.into());
        }
        if calls {
            self.facts.call(step.name.get().unwrap_or_default());
        }
        if let Some(arguments) = step.arguments.as_ref().filter(|_| calls) {
            let arguments = arguments.to_string();
            self.output.push(&arguments);
            self.facts.argue(&arguments);
        }
        let before = self.output.bytes();
        for piece in step.content.items().iter().chain(step.summary.items()) {
            self.push(piece);
        }
        calls || self.output.bytes() > before
    }

    fn push(&mut self, piece: &Piece<'_>) {
        let inner = piece.content.get().map(|content| &content.text);
        for text in [&piece.text, &piece.arguments].into_iter().chain(inner).filter_map(Text::get) {
            self.output.push(text);
        }
        self.facts.argue(piece.arguments.get().unwrap_or_default());
    }
}
