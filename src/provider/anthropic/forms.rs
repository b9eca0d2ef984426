//! Forms: messages of the Anthropic API, whole and streamed, turned into each other.
//!
//! A stream opens with the message as far as it is known (`message_start`), tells each block of its content, and then why
//! it stopped and what was used in all (`message_delta`). Texts, thoughts, calls of tools and citations come in deltas;
//! blocks that come complete with their start are carried as they are, if their type is known to do so.

use crate::provider::forms::{Event, Events, Forms, Framing, asked_by_body};
use crate::provider::tree::{Join, Json, Object, Rules};
use crate::record::call::Form;

/// The forms of messages.
pub(in crate::provider) static FORMS: Forms = Forms {
    all: &[Form::Whole, Form::Stream],
    asked: asked_by_body,
    members: &["stream"],
    queries: &[],
    path_ends: None,
    framing: Framing::Events,
    to_whole,
    to_events,
};

/// What `message_delta` says in its `delta`.
const ENDING: &[&str] = &["stop_reason", "stop_sequence", "stop_details", "container"];

/// What `message_delta` says of usage: totals. The rest is said by `message_start`.
const TOTALS: &[&str] = &[
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
];

/// What is used only as the message is written.
const WRITTEN: &[&str] = &["output_tokens_details", "server_tool_use"];

/// Usage is cumulative: the last count holds.
const MESSAGE: &Rules = &[
    ("usage", Join::Update),
    ("stop_reason", Join::Last),
    ("stop_sequence", Join::Last),
    ("stop_details", Join::Last),
    ("container", Join::Last),
    ("context_management", Join::Last),
];

/// How the deltas of a block's texts are called, and which member they add to.
const TEXTS: &[(&str, &str)] = &[("text_delta", "text"), ("thinking_delta", "thinking")];

/// Blocks whose input comes in deltas, as JSON.
const CALLS: &[&str] = &["tool_use", "server_tool_use", "mcp_tool_use"];

/// The end of the names of blocks that come complete: what a tool of the provider's gave back.
const RESULT: &str = "_tool_result";

/// A block, as far as its deltas came.
struct Block {
    begun: Object,
    /// The input of a call, as JSON.
    input: String,
    citations: Vec<Json>,
}

fn to_whole(events: Vec<Event>, _: Form) -> Option<Object> {
    let mut message: Option<Object> = None;
    let mut blocks: Vec<Block> = Vec::new();
    for event in events {
        let mut event = event.into_object()?;
        match event.take_text("type")?.as_str() {
            "message_start" if message.is_none() => {
                let mut start = event.take_object("message")?;
                start.take_list("content")?.is_empty().then_some(())?;
                start.set("content", Vec::new());
                message = Some(start);
            }
            "content_block_start" => {
                let index = event.take_number("index")?;
                let begun = event.take_object("content_block").filter(|_| index == blocks.len() as u64)?;
                blocks.push(Block { begun, input: String::new(), citations: Vec::new() });
            }
            "content_block_delta" => {
                let index = usize::try_from(event.take_number("index")?).ok()?;
                blocks.get_mut(index)?.join(event.take_object("delta")?)?;
            }
            "content_block_stop" => {
                event.take_number("index")?;
            }
            "message_delta" => {
                let delta = event.take_object("delta")?;
                let ended = event.take_all(&["usage", "context_management"]).with_all(delta);
                message.as_mut()?.join(ended, MESSAGE)?;
            }
            "message_stop" => {
                let blocks: Vec<Json> = blocks.into_iter().map(Block::close).collect::<Option<_>>()?;
                let message = message.filter(|message| message.has("stop_reason"))?;
                return Some(message.with("content", blocks));
            }
            "ping" => continue,
            _ => return None,
        }
        event.nothing_left()?;
    }
    None
}

impl Block {
    fn join(&mut self, mut delta: Object) -> Option<()> {
        let kind = delta.take_text("type")?;
        match &*kind {
            "input_json_delta" => self.input.push_str(&delta.take_text("partial_json")?),
            "citations_delta" => self.citations.push(delta.take("citation")?),
            "signature_delta" => self.begun.set("signature", delta.take("signature")?),
            kind => {
                let (_, name) = TEXTS.iter().find(|(known, _)| *known == kind)?;
                let piece = Object::new().with(name, delta.take(name)?);
                self.begun.join(piece, &[(*name, Join::Text)])?;
            }
        }
        delta.nothing_left()
    }

    fn close(mut self) -> Option<Json> {
        if !self.input.is_empty() {
            let input = Json::written(self.input).filter(|input| input.clone().into_object().is_some())?;
            self.begun.set("input", input);
        }
        if !self.citations.is_empty() {
            let mut citations = self.begun.take_list("citations")?;
            citations.extend(self.citations);
            self.begun.set("citations", citations);
        }
        Some(self.begun.into())
    }
}

fn to_events(mut message: Object, _: Form, out: &mut Events) -> Option<()> {
    if message.get("type")?.as_text()? != "message" || !message.has("stop_reason") {
        return None;
    }
    let blocks = message.get("content")?.clone().into_list()?;
    let mut usage = message.get("usage")?.clone().into_object()?;
    let totals = usage.clone().take_all(TOTALS);
    totals.get("output_tokens")?;
    usage.take_all(WRITTEN);
    let ending = message.clone().take_all(ENDING);
    let context = message.take("context_management");
    // The output is not counted yet: a placeholder.
    let mut start = message.with("content", Vec::new()).with("usage", usage.with("output_tokens", 1));
    for name in ENDING {
        if start.get(name).is_some() {
            start.set(name, Json::null());
        }
    }
    let mut told = Told(out);
    told.push("message_start", Object::new().with("message", start))?;
    for (index, block) in blocks.into_iter().enumerate() {
        told.push_block(index, block.into_object()?)?;
    }
    let ended = Object::new().with("delta", ending).with("usage", totals).with_any("context_management", context);
    told.push("message_delta", ended)?;
    told.push("message_stop", Object::new())
}

/// The events of a message, as they are written.
pub(super) struct Told<'a>(pub(super) &'a mut Events);

impl Told<'_> {
    pub(super) fn push(&mut self, kind: &str, event: Object) -> Option<()> {
        self.0.push(kind, &Object::new().with("type", kind).with_all(event))
    }

    fn push_delta(&mut self, index: usize, kind: &str, name: &str, value: Json) -> Option<()> {
        let delta = Object::new().with("type", kind).with(name, value);
        self.push("content_block_delta", Object::new().with("index", index).with("delta", delta))
    }

    fn push_block(&mut self, index: usize, mut block: Object) -> Option<()> {
        let mut deltas: Vec<(&str, &str, Json)> = Vec::new();
        let kind = block.get("type")?.as_text()?.into_owned();
        match &*kind {
            "text" => {
                deltas.push(("text_delta", "text", emptied(&mut block, "text")?));
                if block.has("citations") {
                    let citations = block.take_list("citations")?;
                    block.set("citations", Vec::new());
                    deltas.extend(citations.into_iter().map(|citation| ("citations_delta", "citation", citation)));
                }
            }
            "thinking" => {
                deltas.push(("thinking_delta", "thinking", emptied(&mut block, "thinking")?));
                deltas.push(("signature_delta", "signature", emptied(&mut block, "signature")?));
            }
            kind if CALLS.contains(&kind) => {
                let input = block.take("input").filter(|input| input.clone().into_object().is_some())?;
                deltas.push(("input_json_delta", "partial_json", input.spelt()?.into()));
                block.set("input", Object::new());
            }
            kind if kind == "redacted_thinking" || kind.ends_with(RESULT) => {}
            _ => return None,
        }
        self.push("content_block_start", Object::new().with("index", index).with("content_block", block))?;
        for (kind, name, value) in deltas {
            self.push_delta(index, kind, name, value)?;
        }
        self.push("content_block_stop", Object::new().with("index", index))
    }
}

/// Takes a text out of a block, and leaves an empty one.
fn emptied(block: &mut Object, name: &str) -> Option<Json> {
    let text = block.get(name)?.clone();
    text.as_text()?;
    block.set(name, "");
    Some(text)
}
