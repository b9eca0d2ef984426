//! Forms: replies of `Converse` and `ConverseStream`, turned into each other.
//!
//! A stream tells each block of the content by its number, then why it stopped, and at last what was used and measured.
//! Texts, calls of tools and reasoning come in deltas; other blocks are not told here.

use crate::provider::Request;
use crate::provider::forms::{Event, Events, Forms, Framing};
use crate::provider::tree::{Json, Object};
use crate::record::call::Form;

/// The forms of conversations.
pub(super) static FORMS: Forms = Forms {
    all: &[Form::Whole, Form::Stream],
    asked,
    members: &[],
    queries: &[],
    path_ends: Some(("/converse-stream", "/converse")),
    framing: Framing::Messages,
    to_whole,
    to_events,
};

/// What the end of a message says.
const ENDING: &[&str] = &["stopReason", "additionalModelResponseFields"];

fn asked(request: &Request<'_>) -> Option<Form> {
    let forms = [("/converse-stream", Form::Stream), ("/converse", Form::Whole)];
    forms.into_iter().find(|(end, _)| request.path.ends_with(end)).map(|(_, form)| form)
}

/// A block, as far as its deltas came.
enum Block {
    Text(String),
    /// A call, and its input as JSON.
    ToolUse(Object, String),
    /// Reasoning, and its signature.
    Reasoning(String, Option<Json>),
    /// Reasoning that nobody may read.
    Redacted(Json),
}

fn to_whole(events: Vec<Event>, _: Form) -> Option<Object> {
    let mut role = None;
    let mut blocks: Vec<Block> = Vec::new();
    let (mut ending, mut metadata) = (None, None);
    for event in events {
        let Event::Object(name, mut event) = event else { return None };
        // Padding.
        event.take("p");
        let index = event.take("contentBlockIndex").map(|index| usize::try_from(index.as_number()?).ok());
        match &*name {
            "messageStart" => role = event.take("role"),
            "contentBlockStart" => {
                let mut start = event.take_object("start").filter(|_| index == Some(Some(blocks.len())))?;
                blocks.push(Block::ToolUse(start.take_object("toolUse")?, String::new()));
                start.nothing_left()?;
            }
            "contentBlockDelta" => join_delta(&mut blocks, index??, event.take_object("delta")?)?,
            "contentBlockStop" => {}
            "messageStop" => ending = Some(std::mem::take(&mut event)),
            "metadata" => metadata = Some(std::mem::take(&mut event)),
            _ => return None,
        }
        event.nothing_left()?;
    }
    let content: Vec<Json> = blocks.into_iter().map(Block::close).collect::<Option<_>>()?;
    let message = Object::new().with("role", role?).with("content", content);
    let ending = ending.filter(|ending| ending.has("stopReason"))?;
    Some(Object::new().with("output", Object::new().with("message", message)).with_all(ending).with_all(metadata?))
}

fn join_delta(blocks: &mut Vec<Block>, index: usize, mut delta: Object) -> Option<()> {
    if let Some(tool) = delta.take("toolUse") {
        let mut tool = tool.into_object()?;
        let Block::ToolUse(_, input) = blocks.get_mut(index)? else { return None };
        input.push_str(&tool.take_text("input")?);
        tool.nothing_left()?;
        return delta.nothing_left();
    }
    let (text, reasoning) = (delta.take("text"), delta.take("reasoningContent"));
    delta.nothing_left()?;
    match (text, reasoning) {
        (Some(text), None) => {
            if index == blocks.len() {
                blocks.push(Block::Text(String::new()));
            }
            let Block::Text(known) = blocks.get_mut(index)? else { return None };
            known.push_str(&text.as_text()?);
            Some(())
        }
        (None, Some(reasoning)) => join_reasoning(blocks, index, reasoning.into_object()?),
        _ => None,
    }
}

fn join_reasoning(blocks: &mut Vec<Block>, index: usize, mut delta: Object) -> Option<()> {
    if let Some(redacted) = delta.take("redactedContent") {
        (index == blocks.len()).then(|| blocks.push(Block::Redacted(redacted)))?;
        return delta.nothing_left();
    }
    if index == blocks.len() {
        blocks.push(Block::Reasoning(String::new(), None));
    }
    let Block::Reasoning(text, signature) = blocks.get_mut(index)? else { return None };
    if let Some(piece) = delta.take("text") {
        text.push_str(&piece.as_text()?);
    }
    if let Some(signed) = delta.take("signature") {
        signature.is_none().then(|| *signature = Some(signed))?;
    }
    delta.nothing_left()
}

impl Block {
    fn close(self) -> Option<Json> {
        let block = match self {
            Self::Text(text) => Object::new().with("text", text),
            Self::ToolUse(tool, input) => {
                let input = if input.is_empty() { Object::new().into() } else { Json::written(input)? };
                Object::new().with("toolUse", tool.with("input", input))
            }
            Self::Reasoning(text, signature) => {
                let text = Object::new().with("text", text).with_any("signature", signature);
                Object::new().with("reasoningContent", Object::new().with("reasoningText", text))
            }
            Self::Redacted(content) => {
                Object::new().with("reasoningContent", Object::new().with("redactedContent", content))
            }
        };
        Some(block.into())
    }
}

fn to_events(mut whole: Object, _: Form, out: &mut Events) -> Option<()> {
    let mut output = whole.take_object("output")?;
    let mut message = output.take_object("message")?;
    output.nothing_left()?;
    let ending = whole.take_all(ENDING);
    if !ending.has("stopReason") || !whole.has("usage") {
        return None;
    }
    let content = message.take_list("content")?;
    out.push("messageStart", &message.take_all(&["role"]))?;
    message.nothing_left()?;
    for (index, block) in content.into_iter().enumerate() {
        push_block(index, block.into_object()?, out)?;
    }
    out.push("messageStop", &ending)?;
    out.push("metadata", &whole)
}

fn push_block(index: usize, mut block: Object, out: &mut Events) -> Option<()> {
    let numbered = |name: &str, value: Object| Object::new().with("contentBlockIndex", index).with(name, value);
    let mut deltas: Vec<Object> = Vec::new();
    if let Some(text) = block.take("text") {
        text.as_text()?;
        deltas.push(Object::new().with("text", text));
    } else if let Some(tool) = block.take("toolUse") {
        let mut tool = tool.into_object()?;
        let input = tool.take("input")?.spelt()?;
        out.push("contentBlockStart", &numbered("start", Object::new().with("toolUse", tool)))?;
        deltas.push(Object::new().with("toolUse", Object::new().with("input", input)));
    } else {
        let mut reasoning = block.take_object("reasoningContent")?;
        let mut text = reasoning.take("reasoningText").map_or(Some(Object::new()), Json::into_object)?;
        let pieces = [("text", text.take("text")), ("signature", text.take("signature"))];
        for (name, piece) in pieces.into_iter().chain([("redactedContent", reasoning.take("redactedContent"))]) {
            if let Some(piece) = piece {
                piece.as_text()?;
                deltas.push(Object::new().with("reasoningContent", Object::new().with(name, piece)));
            }
        }
        text.nothing_left()?;
        reasoning.nothing_left()?;
    }
    block.nothing_left()?;
    for delta in deltas {
        out.push("contentBlockDelta", &numbered("delta", delta))?;
    }
    out.push("contentBlockStop", &Object::new().with("contentBlockIndex", index))
}
