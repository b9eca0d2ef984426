//! Forms: replies of `generateContent` and `streamGenerateContent`, turned into each other.
//!
//! A chunk of a stream has the shape of a whole reply, so that a whole reply is a stream of one chunk. What several
//! chunks say of one candidate is put together: its texts one after the other, its other parts in their order. Sound is
//! cut where it may be, and is not put together.

use serde_json_borrow::Value;

use crate::provider::Request;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{Event, Events, Forms, Framing, numbered};
use crate::provider::tree::{Join, Json, Object, Rules};
use crate::record::call::Form;

/// The forms of generated content.
pub(super) static FORMS: Forms = Forms {
    all: &[Form::Whole, Form::Stream, Form::Array],
    asked,
    members: &[],
    queries: &["alt", "$alt"],
    path_ends: Some((":streamGenerateContent", ":generateContent")),
    framing: Framing::CrlfEvents,
    to_whole,
    to_events,
};

/// How the members of chunks come together, but for their candidates. Usage is cumulative.
const CHUNK: &Rules = &[("usageMetadata", Join::Update)];

/// How the members of a candidate come together, but for its content.
const CANDIDATE: &Rules = &[
    ("index", Join::First),
    ("finishReason", Join::Last),
    ("finishMessage", Join::Last),
    ("safetyRatings", Join::Last),
    ("tokenCount", Join::Last),
    ("avgLogprobs", Join::Last),
    ("citationMetadata", Join::Lists),
];

/// The form that a method and its parameter `alt` ask for. Others than JSON and events are not known.
fn asked(request: &Request<'_>) -> Option<Form> {
    let pairs = request.query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut alts = pairs.filter(|(name, _)| FORMS.queries.contains(name)).map(|(_, value)| value);
    let alt = alts.next().unwrap_or("json");
    match (request.endpoint, alt) {
        _ if alts.next().is_some() || !matches!(request.body, Value::Object(_)) => None,
        (Endpoint::GenerateContent, "json") => Some(Form::Whole),
        (Endpoint::StreamGenerateContent, "json") => Some(Form::Array),
        (Endpoint::StreamGenerateContent, "sse") => Some(Form::Stream),
        _ => None,
    }
}

/// A candidate, as far as its chunks came.
#[derive(Default)]
struct Candidate {
    rest: Object,
    content: Option<Object>,
    parts: Vec<Object>,
}

fn to_whole(events: Vec<Event>, _: Form) -> Option<Object> {
    let mut whole = Object::new();
    let mut candidates: Vec<(u64, Candidate)> = Vec::new();
    for event in events {
        let mut chunk = event.into_object()?;
        if chunk.has("error") {
            return None;
        }
        for candidate in chunk.take_list("candidates")? {
            let candidate = candidate.into_object()?;
            let index = candidate.get("index").map_or(Some(0), Json::as_number)?;
            numbered(&mut candidates, index)?.join(candidate)?;
        }
        whole.join(chunk, CHUNK)?;
    }
    candidates.sort_by_key(|(index, _)| *index);
    let candidates: Vec<Json> = candidates.into_iter().map(|(_, one)| one.close()).collect::<Option<_>>()?;
    let some = !candidates.is_empty();
    some.then(|| Object::new().with("candidates", candidates).with_all(whole))
}

impl Candidate {
    fn join(&mut self, mut candidate: Object) -> Option<()> {
        if let Some(content) = candidate.take("content").filter(|content| !content.is_null()) {
            self.join_content(content.into_object()?)?;
        }
        self.rest.join(candidate, CANDIDATE)
    }

    fn join_content(&mut self, mut content: Object) -> Option<()> {
        // Within a chunk, texts that stand apart are meant to.
        let mut may_go_on = !self.parts.is_empty();
        for part in content.take_list("parts")? {
            let part = complete(part)?;
            let goes_on = std::mem::take(&mut may_go_on) && self.parts.last().is_some_and(|last| goes_on(last, &part));
            match self.parts.last_mut() {
                Some(last) if goes_on => last.join(part, &[("text", Join::Text)])?,
                // The last chunk has often nothing to say but why it is the last.
                Some(_) if is_text(&part) && !part.has("text") && !part.has("thoughtSignature") => {}
                _ => self.parts.push(part),
            }
        }
        self.content.get_or_insert_default().join(content, &[])
    }

    fn close(self) -> Option<Json> {
        let mut candidate = self.rest;
        if !candidate.has("finishReason") {
            return None;
        }
        if let Some(content) = self.content {
            let parts: Vec<Json> = self.parts.into_iter().map(Json::from).collect();
            let content = if parts.is_empty() { content } else { Object::new().with("parts", parts).with_all(content) };
            candidate = Object::new().with("content", content).with_all(candidate);
        }
        Some(candidate.into())
    }
}

/// A part, if it is complete: neither sound nor a piece of a call's arguments.
fn complete(part: Json) -> Option<Object> {
    let part = part.into_object()?;
    if let Some(call) = part.get("functionCall") {
        let call = call.clone().into_object()?;
        if call.is_empty() || call.has("partialArgs") || call.has("willContinue") {
            return None;
        }
    }
    if let Some(data) = part.get("inlineData") {
        let data = data.clone().into_object()?;
        if !data.get("mimeType")?.as_text()?.starts_with("image/") {
            return None;
        }
    }
    Some(part)
}

/// Whether a part is a text, or a thought, and perhaps signed.
fn is_text(part: &Object) -> bool {
    let mut rest = part.clone();
    rest.take("text").is_some_and(|text| text.as_text().is_some()) && {
        rest.take_all(&["thought", "thoughtSignature"]);
        rest.is_empty()
    }
}

/// Whether a text goes on with the next one: both thoughts, or neither. What is signed has ended.
fn goes_on(last: &Object, next: &Object) -> bool {
    let both = is_text(last) && is_text(next);
    both && !last.has("thoughtSignature") && last.has("thought") == next.has("thought")
}

fn to_events(mut whole: Object, _: Form, out: &mut Events) -> Option<()> {
    if whole.has("error") {
        return None;
    }
    for candidate in whole.clone().take_list("candidates").filter(|candidates| !candidates.is_empty())? {
        let mut candidate = candidate.into_object()?;
        if !candidate.has("finishReason") {
            return None;
        }
        let content = candidate.take("content").filter(|content| !content.is_null());
        if let Some(content) = content {
            for part in content.into_object()?.take_list("parts")? {
                complete(part)?;
            }
        }
    }
    out.push("", &std::mem::take(&mut whole))
}
