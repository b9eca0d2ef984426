//! Forms: replies of `/v2/chat`, whole and streamed, turned into each other.
//!
//! A stream opens with an empty message (`message-start`), tells its plan, each block of its content, each call of a tool
//! and each citation, and ends with why it stopped and what was used (`message-end`).

use crate::provider::forms::{Event, Events, Forms, Framing, asked_by_body};
use crate::provider::tree::{Join, Json, Object, Rules};
use crate::record::call::Form;

/// The forms of chats.
pub(super) static FORMS: Forms = Forms {
    all: &[Form::Whole, Form::Stream],
    asked: asked_by_body,
    members: &["stream"],
    queries: &[],
    path_ends: None,
    framing: Framing::Events,
    to_whole,
    to_events,
};

/// What a message is made of; `message-start` says that there is nothing of it yet.
const MADE_OF: &[&str] = &["content", "tool_plan", "tool_calls", "citations"];

/// How the deltas of a block come together.
const BLOCK: &Rules = &[("text", Join::Text), ("thinking", Join::Text)];

/// The types of blocks, and the member that holds their text.
const BLOCKS: &[&str] = &["text", "thinking"];

/// A message, as far as its events came.
#[derive(Default)]
struct Message {
    head: Object,
    content: Vec<Object>,
    plan: String,
    calls: Vec<Object>,
    citations: Vec<Json>,
}

fn to_whole(events: Vec<Event>, _: Form) -> Option<Object> {
    let mut id = None;
    let mut message = Message::default();
    let mut ending = None;
    let mut done = false;
    for event in events {
        let Event::Object(_, mut event) = event else {
            done = true;
            continue;
        };
        let kind = event.take_text("type")?;
        let index = event.take("index").and_then(|index| usize::try_from(index.as_number()?).ok());
        let mut delta = event.take("delta").map_or(Some(Object::new()), Json::into_object)?;
        match &*kind {
            "message-start" => {
                id = event.take("id");
                message.head = delta.take_object("message")?;
                let empty = message.head.take_all(MADE_OF);
                MADE_OF.iter().all(|name| !empty.has(name)).then_some(())?;
            }
            "message-end" => ending = Some(std::mem::take(&mut delta)),
            kind => {
                let piece = delta.take("message").map_or(Some(Object::new()), Json::into_object)?;
                message.join(kind, index, piece)?;
            }
        }
        delta.nothing_left()?;
        event.nothing_left()?;
    }
    let mut ending = ending.filter(|ending| done && ending.has("finish_reason") && !ending.has("error"))?;
    let ended = ending.take_all(&["finish_reason", "usage"]);
    Some(Object::new().with_any("id", id).with("message", message.close()).with_all(ended).with_all(ending))
}

impl Message {
    fn join(&mut self, kind: &str, index: Option<usize>, mut piece: Object) -> Option<()> {
        match kind {
            "content-start" => {
                let block = piece.take_object("content").filter(|_| index == Some(self.content.len()))?;
                self.content.push(block);
            }
            "content-delta" => {
                let delta = piece.take_object("content")?;
                self.content.get_mut(index?)?.join(delta, BLOCK)?;
            }
            "tool-plan-delta" => self.plan.push_str(&piece.take_text("tool_plan")?),
            "tool-call-start" => {
                let call = piece.take_object("tool_calls").filter(|_| index == Some(self.calls.len()))?;
                self.calls.push(call);
            }
            "tool-call-delta" => {
                let call = self.calls.get_mut(index?)?;
                let mut delta = piece.take_object("tool_calls")?;
                let mut function = call.take_object("function")?;
                function.join(delta.take_object("function")?, &[("arguments", Join::Text)])?;
                call.set("function", function);
                call.join(delta, &[])?;
            }
            "citation-start" => self.citations.push(piece.take("citations")?),
            "content-end" | "tool-call-end" | "citation-end" => {}
            _ => return None,
        }
        piece.nothing_left()
    }

    fn close(self) -> Object {
        let listed = |items: Vec<Object>| items.into_iter().map(Json::from).collect::<Vec<_>>();
        let parts = [
            ("tool_plan", Json::from(self.plan)),
            ("tool_calls", listed(self.calls).into()),
            ("citations", self.citations.into()),
            ("content", listed(self.content).into()),
        ];
        parts
            .into_iter()
            .filter(|(_, part)| part.is_filled())
            .fold(self.head, |message, (name, part)| message.with(name, part))
    }
}

fn to_events(mut whole: Object, _: Form, out: &mut Events) -> Option<()> {
    if !whole.has("finish_reason") || whole.has("logprobs") {
        return None;
    }
    let id = whole.take("id");
    let mut message = whole.take_object("message")?;
    let plan = message.take("tool_plan").filter(Json::is_filled);
    let [content, calls, citations] = ["content", "tool_calls", "citations"].map(|name| message.take_list(name));
    let (calls, citations) = (calls?, citations?);
    let empty = || Json::from(Vec::new());
    let begun = message.take_all(&["role"]).with("content", empty()).with("tool_plan", "");
    let begun = begun.with("tool_calls", empty()).with("citations", empty()).with_all(message);

    let mut told = Told(out);
    let start = Object::new().with_any("id", id).with("type", "message-start");
    told.0.push("message-start", &start.with("delta", Object::new().with("message", begun)))?;
    if let Some(plan) = plan {
        plan.as_text()?;
        told.push("tool-plan-delta", None, Some(("tool_plan", plan)))?;
    }
    for (index, block) in content?.into_iter().enumerate() {
        told.push_block(index, block.into_object()?)?;
    }
    for (index, citation) in citations.into_iter().enumerate() {
        told.push("citation-start", Some(index), Some(("citations", citation)))?;
        told.push("citation-end", Some(index), None)?;
    }
    for (index, call) in calls.into_iter().enumerate() {
        told.push_call(index, call.into_object()?)?;
    }
    out.push("message-end", &Object::new().with("type", "message-end").with("delta", whole))?;
    out.push_done()
}

/// The events of a message, as they are written.
struct Told<'a>(&'a mut Events);

impl Told<'_> {
    fn push(&mut self, kind: &str, index: Option<usize>, piece: Option<(&str, Json)>) -> Option<()> {
        let mut event = Object::new().with("type", kind).with_any("index", index.map(Json::from));
        if let Some((name, piece)) = piece {
            event.set("delta", Object::new().with("message", Object::new().with(name, piece)));
        }
        self.0.push(kind, &event)
    }

    fn push_block(&mut self, index: usize, mut block: Object) -> Option<()> {
        let kind = block.get("type")?.as_text()?.into_owned();
        let name = BLOCKS.iter().find(|known| **known == kind)?;
        let text = block.get(name)?.clone();
        text.as_text()?;
        block.set(name, "");
        self.push("content-start", Some(index), Some(("content", block.into())))?;
        self.push("content-delta", Some(index), Some(("content", Object::new().with(name, text).into())))?;
        self.push("content-end", Some(index), None)
    }

    fn push_call(&mut self, index: usize, mut call: Object) -> Option<()> {
        let mut function = call.take_object("function")?;
        let arguments = function.take("arguments")?;
        arguments.as_text()?;
        function.set("arguments", "");
        let head = call.take_all(&["id", "type"]).with("function", function).with_all(call);
        let rest = Object::new().with("function", Object::new().with("arguments", arguments));
        self.push("tool-call-start", Some(index), Some(("tool_calls", head.into())))?;
        self.push("tool-call-delta", Some(index), Some(("tool_calls", rest.into())))?;
        self.push("tool-call-end", Some(index), None)
    }
}
