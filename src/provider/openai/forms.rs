//! Forms: replies of `/chat/completions` and of the older `/completions`, whole and streamed, turned into each other.
//!
//! A stream repeats on each chunk what holds for all of it, says each text in deltas, and what was used in a chunk of its
//! own if it was asked to. Vendors that say it unasked do so on the last chunk of a choice. Knows which pieces of a delta
//! go together; whatever else a delta has may only be said once.

use serde_json_borrow::Value;

use crate::provider::Request;
use crate::provider::forms::{Event, Events, Forms, Framing, numbered};
use crate::provider::tree::{Join, Json, Object, Rules};
use crate::record::call::Form;

/// The forms of completions.
pub(super) static FORMS: Forms = Forms {
    all: &[Form::StreamWithUsage, Form::Whole, Form::StreamWithoutUsage, Form::Stream],
    asked,
    members: &["stream", "stream_options"],
    queries: &[],
    path_ends: None,
    framing: Framing::Events,
    to_whole,
    to_events,
};

/// What a stream says again on each of its chunks.
pub(super) const CONSTANT: &[&str] =
    &["id", "object", "created", "model", "service_tier", "system_fingerprint", "provider"];

/// What `object` is of a whole reply, and of a chunk; completions of texts have one word for both.
const OBJECTS: (&str, &str) = ("chat.completion", "chat.completion.chunk");

/// The texts of a message, in the order in which models write them. Vendors call reasoning by either name, some by both.
const TEXTS: &[&[&str]] = &[&["reasoning_content", "reasoning"], &["content"], &["refusal"]];

/// How the members of chunks come together. `obfuscation` and `p` are padding.
const CHUNK: &Rules = &[
    ("id", Join::First),
    ("object", Join::Nothing),
    ("created", Join::First),
    ("model", Join::First),
    ("system_fingerprint", Join::First),
    ("service_tier", Join::Last),
    ("usage", Join::Last),
    ("obfuscation", Join::Nothing),
    ("p", Join::Nothing),
];

/// How the members of a choice come together, but for its delta.
const CHOICE: &Rules = &[
    ("index", Join::First),
    ("text", Join::Text),
    ("logprobs", Join::Lists),
    ("finish_reason", Join::Last),
    ("native_finish_reason", Join::Last),
    ("stop_reason", Join::Last),
];

/// How deltas come together, but for their calls of tools. Groq's `channel` says of a piece what its name says.
const DELTA: &Rules = &[
    ("role", Join::First),
    ("content", Join::Text),
    ("refusal", Join::Text),
    ("reasoning", Join::Text),
    ("reasoning_content", Join::Text),
    ("annotations", Join::List),
    ("channel", Join::Nothing),
    ("obfuscation", Join::Nothing),
];

/// How the fragments of a call come together: the first names it.
const CALL: &Rules = &[("index", Join::Nothing), ("id", Join::First), ("type", Join::First)];

/// A message without calls may say so.
const NO_CALLS: &Rules = &[("tool_calls", Join::First)];

/// How the fragments of a function's name and arguments come together.
const FUNCTION: &Rules = &[("name", Join::First), ("arguments", Join::Text)];

/// The form a request asks for. With options of a stream that weir does not know, an answer is good for equal requests
/// only.
fn asked(request: &Request<'_>) -> Option<Form> {
    let options = request.body.get("stream_options");
    let known = match options {
        Value::Null => true,
        Value::Object(members) => {
            members.iter().all(|(name, _)| matches!(name, "include_usage" | "include_obfuscation"))
        }
        _ => false,
    };
    match (request.body.get("stream"), options.get("include_usage")) {
        (Value::Null | Value::Bool(false), _) => Some(Form::Whole).filter(|_| *options == Value::Null),
        (Value::Bool(true), Value::Bool(true)) if known => Some(Form::StreamWithUsage),
        (Value::Bool(true), Value::Null | Value::Bool(false)) if known => Some(Form::StreamWithoutUsage),
        _ => None,
    }
}

/// A choice, as far as its chunks came.
#[derive(Default)]
struct Choice {
    rest: Object,
    message: Option<Object>,
    calls: Vec<(u64, Call)>,
}

/// A call of a tool, as far as its fragments came.
#[derive(Default)]
struct Call {
    rest: Object,
    function: Object,
}

fn to_whole(events: Vec<Event>, form: Form) -> Option<Object> {
    let mut top = Object::new();
    let mut object = None;
    let mut choices: Vec<(u64, Choice)> = Vec::new();
    let mut done = false;
    for event in events {
        let Event::Object(_, mut chunk) = event else {
            done = true;
            continue;
        };
        if done || chunk.has("error") {
            return None;
        }
        for choice in chunk.take_list("choices")? {
            let choice = choice.into_object()?;
            let index = choice.get("index").map_or(Some(0), Json::as_number)?;
            numbered(&mut choices, index)?.join(choice)?;
        }
        object = object.or(chunk.take_text("object").filter(|object| !object.is_empty()));
        take_usage_of_groq(&mut chunk)?;
        top.join(chunk, CHUNK)?;
    }
    choices.sort_by_key(|(index, _)| *index);
    let choices: Vec<Json> = choices.into_iter().map(|(_, choice)| choice.close()).collect::<Option<_>>()?;
    let usage = top.take("usage").filter(Json::is_filled);
    // An app that asked for usage and got none would have got none in one piece either.
    let is_told = usage.is_some() || form == Form::StreamWithUsage;
    if choices.is_empty() || !is_told || !done {
        return None;
    }
    let object = object.map(|object| if object == OBJECTS.1 { OBJECTS.0.to_owned() } else { object });
    let head = top.take_all(&["id"]).with_any("object", object.map(Json::from));
    let head = head.with_all(top.take_all(&["created", "model"])).with("choices", choices).with_any("usage", usage);
    Some(head.with_all(top))
}

/// Groq says on its last chunk what was used, beside ids of its own, before it is asked to say it like others.
fn take_usage_of_groq(chunk: &mut Object) -> Option<()> {
    let Some(groq) = chunk.take("x_groq").filter(|groq| !groq.is_null()) else { return Some(()) };
    let mut groq = groq.into_object()?;
    if groq.has("error") {
        return None;
    }
    let usage = groq.take("usage").filter(Json::is_filled);
    if !chunk.has("usage")
        && let Some(usage) = usage
    {
        chunk.set("usage", usage);
    }
    chunk.set("x_groq", groq);
    Some(())
}

impl Choice {
    fn join(&mut self, mut choice: Object) -> Option<()> {
        if choice.has("error") || choice.get("message").is_some() {
            return None;
        }
        if let Some(delta) = choice.take("delta") {
            // Together says its texts twice: in the delta, and beside it.
            choice.take("text");
            self.join_delta(delta.into_object()?)?;
        }
        self.rest.join(choice, CHOICE)
    }

    fn join_delta(&mut self, mut delta: Object) -> Option<()> {
        if delta.has("audio") {
            return None;
        }
        let message = self.message.get_or_insert_default();
        match delta.take("tool_calls") {
            Some(calls) if calls.is_filled() => {
                for (at, fragment) in calls.into_list()?.into_iter().enumerate() {
                    join_call(&mut self.calls, fragment.into_object()?, at)?;
                }
            }
            Some(none) => message.join(Object::new().with("tool_calls", none), NO_CALLS)?,
            None => {}
        }
        if let Some(function) = delta.take("function_call").filter(|function| !function.is_null()) {
            let mut known = message.take("function_call").map_or(Some(Object::new()), Json::into_object)?;
            known.join(function.into_object()?, FUNCTION)?;
            message.set("function_call", known);
        }
        message.join(delta, DELTA)
    }

    fn close(mut self) -> Option<Json> {
        if !self.rest.has("finish_reason") {
            return None;
        }
        let index = self.rest.take("index").unwrap_or_else(|| Json::from(0));
        let mut choice = Object::new().with("index", index);
        if let Some(mut message) = self.message {
            message.has("role").then_some(())?;
            let content = message.take("content").unwrap_or_else(Json::null);
            let head = message.take_all(&["role"]).with("content", content);
            message = head.with_all(message);
            if !self.calls.is_empty() {
                let calls: Vec<Json> = self.calls.into_iter().map(|(_, call)| call.close()).collect::<Option<_>>()?;
                message.set("tool_calls", calls);
            }
            choice.set("message", message);
        } else if self.rest.get("text").is_none() {
            return None;
        }
        Some(choice.with_all(self.rest).into())
    }
}

/// Joins a fragment of a call to what came of it. Fragments are told apart by their index; some vendors send calls in
/// one fragment each, without one.
fn join_call(calls: &mut Vec<(u64, Call)>, mut fragment: Object, at: usize) -> Option<()> {
    let index = match fragment.get("index") {
        Some(index) => index.as_number()?,
        None if fragment.has("id") => calls.len() as u64,
        None => at as u64,
    };
    let call = numbered(calls, index)?;
    if let Some(function) = fragment.take("function") {
        call.function.join(function.into_object()?, FUNCTION)?;
    }
    call.rest.join(fragment, CALL)
}

impl Call {
    fn close(mut self) -> Option<Json> {
        if self.rest.get("type").is_some_and(|kind| kind.as_text().as_deref() != Some("function")) {
            return None;
        }
        self.function.get("arguments")?.as_text()?;
        let head = self.rest.take_all(&["id", "type"]).with("function", self.function);
        Some(head.with_all(self.rest).into())
    }
}

fn to_events(mut whole: Object, form: Form, out: &mut Events) -> Option<()> {
    if whole.has("error") {
        return None;
    }
    let choices = whole.take_list("choices")?;
    let usage = whole.take("usage").filter(Json::is_filled);
    let mut head = whole.take_all(CONSTANT);
    if head.get("object").and_then(Json::as_text).as_deref() == Some(OBJECTS.0) {
        head.set("object", OBJECTS.1);
    }
    let mut chunks = Chunks { head, once: whole, form, out };
    let last = choices.len().checked_sub(1)?;
    for (at, choice) in choices.into_iter().enumerate() {
        let usage = usage.clone().filter(|_| at == last && form == Form::Stream);
        chunks.push_choice(choice.into_object()?, at, usage)?;
    }
    if form == Form::StreamWithUsage && usage.is_some() {
        chunks.push(Vec::new(), usage)?;
    }
    out.push_done()
}

/// The chunks of a stream, as they are written.
struct Chunks<'a> {
    /// What each of them says.
    head: Object,
    /// What the first of them says beside.
    once: Object,
    form: Form,
    out: &'a mut Events,
}

/// What the pieces of a choice have in common.
struct Piece {
    index: Json,
    /// What is still to be told, once; null if there is no more, absent where the choice says nothing of it.
    logprobs: Option<Json>,
}

impl Piece {
    fn of(&self, member: &str, value: impl Into<Json>) -> Object {
        let logprobs = self.logprobs.as_ref().map(|_| Json::null());
        self.telling(member, value, logprobs)
    }

    /// A piece that tells the log probabilities, unless they were told.
    fn with_logprobs(&mut self, member: &str, value: impl Into<Json>) -> Object {
        let logprobs = self.logprobs.as_mut().map(|logprobs| std::mem::replace(logprobs, Json::null()));
        self.telling(member, value, logprobs)
    }

    fn telling(&self, member: &str, value: impl Into<Json>, logprobs: Option<Json>) -> Object {
        let piece = Object::new().with("index", self.index.clone()).with(member, value);
        piece.with_any("logprobs", logprobs).with("finish_reason", Json::null())
    }
}

impl Chunks<'_> {
    fn push(&mut self, choices: Vec<Json>, usage: Option<Json>) -> Option<()> {
        let said = std::mem::take(&mut self.once);
        let nothing = (self.form == Form::StreamWithUsage).then(Json::null);
        let chunk = self.head.clone().with("choices", choices).with_all(said);
        self.out.push("", &chunk.with_any("usage", usage.or(nothing)))
    }

    fn push_piece(&mut self, piece: Object) -> Option<()> {
        self.push(vec![piece.into()], None)
    }

    fn push_choice(&mut self, mut choice: Object, at: usize, usage: Option<Json>) -> Option<()> {
        let finish = choice.take("finish_reason").filter(Json::is_filled)?;
        let index = choice.take("index").unwrap_or_else(|| Json::from(at));
        let mut piece = Piece { index, logprobs: choice.take("logprobs") };
        let last = if let Some(message) = choice.take("message") {
            self.push_message(message.into_object()?, &mut piece)?;
            piece.with_logprobs("delta", Object::new())
        } else {
            let text = choice.take_text("text")?;
            self.push_piece(piece.with_logprobs("text", text))?;
            piece.of("text", "")
        };
        self.push(vec![last.with_all(choice).with("finish_reason", finish).into()], usage)
    }

    fn push_message(&mut self, mut message: Object, piece: &mut Piece) -> Option<()> {
        if message.has("audio") {
            return None;
        }
        // A stream does not say that there are none.
        if !message.has("annotations") {
            message.take("annotations");
        }
        let (calls, no_calls) = parted(message.take("tool_calls"));
        let (function, no_function) = parted(message.take("function_call"));
        let texts = TEXTS.iter().map(|names| take_texts(&mut message, names)).collect::<Option<Vec<_>>>()?;
        let first = texts.iter().fold(message.take_all(&["role"]), |first, (begun, _)| first.with_all(begun.clone()));
        let first = first.with_any("tool_calls", no_calls).with_any("function_call", no_function).with_all(message);
        self.push_piece(piece.of("delta", first))?;
        for (_, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            // What has probabilities is what the app reads.
            let is_read = ["content", "refusal"].iter().any(|name| text.get(name).is_some());
            let piece = if is_read { piece.with_logprobs("delta", text) } else { piece.of("delta", text) };
            self.push_piece(piece)?;
        }
        for (at, call) in calls.map_or(Some(Vec::new()), Json::into_list)?.into_iter().enumerate() {
            self.push_call(call.into_object()?, at, piece)?;
        }
        if let Some(function) = function {
            for fragment in function_pieces(function.into_object()?)? {
                self.push_piece(piece.of("delta", Object::new().with("function_call", fragment)))?;
            }
        }
        Some(())
    }

    /// Writes a call: its name, then its arguments.
    fn push_call(&mut self, mut call: Object, at: usize, piece: &Piece) -> Option<()> {
        if call.get("type").is_some_and(|kind| kind.as_text().as_deref() != Some("function")) {
            return None;
        }
        if call.take("index").is_some_and(|index| index.as_number() != Some(at as u64)) {
            return None;
        }
        let [named, argued] = function_pieces(call.take_object("function")?)?;
        let indexed = |fragment: Object| Object::new().with("index", at).with_all(fragment);
        let head = call.take_all(&["id", "type"]).with("function", named).with_all(call);
        for fragment in [head, Object::new().with("function", argued)] {
            let calls = vec![indexed(fragment).into()];
            self.push_piece(piece.of("delta", Object::new().with("tool_calls", calls)))?;
        }
        Some(())
    }
}

/// A member that says something, or one that says that there is nothing.
fn parted(member: Option<Json>) -> (Option<Json>, Option<Json>) {
    let (something, nothing): (Vec<_>, Vec<_>) = member.into_iter().partition(Json::is_filled);
    (something.into_iter().next(), nothing.into_iter().next())
}

/// Takes the named texts out of a message: as their stream begins, and what it then says. `None` if one is neither a text
/// nor null.
fn take_texts(message: &mut Object, names: &[&str]) -> Option<(Object, Object)> {
    let (mut begin, mut say) = (Object::new(), Object::new());
    for name in names {
        let Some(text) = message.take(name) else { continue };
        if text.is_null() {
            begin.set(name, text);
            continue;
        }
        let filled = !text.as_text()?.is_empty();
        begin.set(name, "");
        if filled {
            say.set(name, text);
        }
    }
    Some((begin, say))
}

/// The two fragments as which a function's name and arguments come.
fn function_pieces(mut function: Object) -> Option<[Object; 2]> {
    let arguments = function.take("arguments")?;
    arguments.as_text()?;
    Some([function.with("arguments", ""), Object::new().with("arguments", arguments)])
}
