//! Cohere: chat of both versions, embeddings and rerankings, with the events of their streams and their refusals.
//!
//! Cohere bills fewer tokens than its models see, and itemises neither thoughts nor writes to its cache. Knows that wire
//! format and nothing of time or faults.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::bill::Tally;
use super::chat;
use super::dice::Dice;
use super::faults::{Oddity, Script};
use super::mind::{Answer, Caching, Choice, Form, Mind, Question, Tool, ToolChoice, gathered_text, model_of};
use super::openai::embedding;
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;

/// Tokens that Cohere puts around a prompt and does not bill: 69 seen for 7 billed.
const TEMPLATE: u64 = 62;
/// The most documents of one search unit, by Cohere's pricing page.
const DOCUMENTS_PER_SEARCH: u64 = 100;
/// What is planned before tools are called.
const PLAN: &str = "I will use the tools for that.";
/// What the first version calls its streams.
const LINES: &str = "application/stream+json";

/// The body of a refusal, of the request with this id.
pub(super) fn refusal(problem: &Problem, request: &str) -> Value {
    let message = match problem {
        Problem::NoCredential => "no api key supplied".to_owned(),
        Problem::UnknownPath { method, path } => format!("no handler for {method} {path}"),
        Problem::WrongMethod { method, .. } => format!("method {method} is not allowed"),
        Problem::TooLarge => "request body too large".to_owned(),
        Problem::NotJson => "invalid request: the body is not a JSON object".to_owned(),
        Problem::Missing(field) => format!("invalid request: {field} is required"),
        Problem::UnknownModel(model) => format!("model '{model}' not found"),
        Problem::BadScript(message) | Problem::Forbidden { message, .. } => message.clone(),
        Problem::Wanted(status) => match status.as_u16() {
            401 => "invalid api token".to_owned(),
            429 => "You are past the per minute request limit, please wait and try again later.".to_owned(),
            500.. => "internal server error".to_owned(),
            _ => "invalid request".to_owned(),
        },
    };
    json!({"id": request, "message": message})
}

/// The headers of every reply: `request` is unlike any other, `left` is what is left of a trial key's calls.
pub(super) fn headers(request: u64, left: u64) -> Vec<(&'static str, String)> {
    vec![
        ("x-debug-trace-id", request_id(request)),
        ("x-trial-endpoint-call-limit", "10000".to_owned()),
        ("x-trial-endpoint-call-remaining", left.to_string()),
    ]
}

/// The id of a request, unlike any other.
pub(super) fn request_id(request: u64) -> String {
    Dice::new(request).id("")
}

/// `POST /v2/chat`.
pub(super) fn chat(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let question = read(body, mind)?;
    Ok(reply(
        &question,
        mind,
        script,
        |said| if question.stream { said.stream() } else { Content::whole(&said.whole()) },
    ))
}

/// `POST /v1/chat`.
pub(super) fn chat_v1(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let question = read_v1(body, mind)?;
    Ok(reply(&question, mind, script, |said| {
        if question.stream { said.stream_v1() } else { Content::whole(&said.whole_v1()) }
    }))
}

fn read(body: &Value, mind: &Mind) -> Result<Question, Problem> {
    let model = model_of(body)?;
    let messages = body["messages"].as_array().filter(|list| !list.is_empty()).ok_or(Problem::Missing("messages"))?;
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut prompt: Vec<_> = tools.iter().map(|tool| mind.tool_piece(tool, None)).collect();
    prompt.extend(body["documents"].as_array().into_iter().flatten().map(|it| mind.piece("document", it, None)));
    prompt.extend(messages.iter().map(|message| mind.piece(message["role"].as_str().unwrap_or(""), message, None)));
    let last = messages.last().filter(|message| message["role"] == "user");
    let format = &body["response_format"];
    let schema = if format["json_schema"].is_object() { &format["json_schema"] } else { &format["schema"] };
    Ok(Question {
        asked: last.map(|message| gathered_text(&message["content"])),
        most_tokens: body["max_tokens"].as_u64(),
        form: match format["type"].as_str() {
            Some("json_object") if schema.is_object() => Form::Matching(schema.clone()),
            Some("json_object") => Form::AnyObject,
            _ => Form::Prose,
        },
        tools: tools.iter().filter_map(|tool| chat::function(&tool["function"])).collect(),
        choice: match body["tool_choice"].as_str() {
            Some("REQUIRED") => ToolChoice::Always,
            Some("NONE") => ToolChoice::Never,
            _ => ToolChoice::Auto,
        },
        thoughts: if body["thinking"]["type"] == "enabled" { 4 } else { 0 },
        ..Question::plain(model, body["stream"] == true, prompt)
    })
}

fn read_v1(body: &Value, mind: &Mind) -> Result<Question, Problem> {
    let model = model_of(body)?;
    let message = body["message"].as_str().ok_or(Problem::Missing("message"))?;
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut prompt: Vec<_> = tools.iter().map(|tool| mind.tool_piece(tool, None)).collect();
    prompt.extend(body.get("preamble").map(|preamble| mind.piece("SYSTEM", preamble, None)));
    let history = body["chat_history"].as_array().into_iter().flatten();
    prompt.extend(history.map(|turn| mind.piece(turn["role"].as_str().unwrap_or(""), &turn["message"], None)));
    prompt.push(mind.piece("USER", &body["message"], None));
    let answers_tools = body["tool_results"].as_array().is_some_and(|results| !results.is_empty());
    Ok(Question {
        asked: (!answers_tools).then(|| message.to_owned()),
        most_tokens: body["max_tokens"].as_u64(),
        tools: tools.iter().filter_map(tool_v1).collect(),
        choice: if body["force_single_step"] == true { ToolChoice::Always } else { ToolChoice::Auto },
        ..Question::plain(model, body["stream"] == true, prompt)
    })
}

/// A tool as the first version describes it: a type and a word for each parameter.
fn tool_v1(tool: &Value) -> Option<Tool> {
    let parameters = tool["parameter_definitions"].as_object().into_iter().flatten();
    let properties = parameters.map(|(name, definition)| {
        let kind = match definition["type"].as_str() {
            Some("int") => "integer",
            Some("float") => "number",
            Some("bool") => "boolean",
            _ => "string",
        };
        (name.clone(), json!({"type": kind}))
    });
    let properties: Map<_, _> = properties.collect();
    let required: Vec<_> = properties.keys().cloned().collect();
    let schema = json!({"type": "object", "properties": properties, "required": required});
    Some(Tool { name: tool["name"].as_str()?.to_owned(), schema })
}

fn reply(question: &Question, mind: &Mind, script: &Script, word: impl FnOnce(&Said<'_>) -> Content) -> Reply {
    let answer = mind.answer(question, Caching::Unasked);
    let told = script.usage.map_or(answer.tokens, |usage| usage.instead_of(answer.tokens));
    let tokens = Tally { cache_write_short: 0, cache_write_long: 0, reasoning: 0, ..told };
    let content = word(&Said::new(&answer, tokens, script));
    Reply { model: question.model.clone(), seed: answer.seed, tokens, headers: Vec::new(), content }
}

/// What is said in answer, from which each document is made.
struct Said<'a> {
    id: String,
    choice: &'a Choice,
    /// `None`: usage is not to be mentioned.
    tokens: Option<Tally>,
}

impl<'a> Said<'a> {
    fn new(answer: &'a Answer, tokens: Tally, script: &Script) -> Self {
        let choice = answer.choices.first().expect("a question has an answer");
        let tokens = (!script.has(Oddity::NoUsage)).then_some(tokens);
        Self { id: Dice::new(answer.seed).id(""), choice, tokens }
    }

    fn finish_reason(&self) -> &'static str {
        match self.choice {
            Choice { cut: true, .. } => "MAX_TOKENS",
            Choice { calls, .. } if !calls.is_empty() => "TOOL_CALL",
            _ => "COMPLETE",
        }
    }

    /// Says in `to` what was used.
    fn put_usage(&self, to: &mut Value) {
        let Some(tokens) = self.tokens else { return };
        to["usage"] = json!({
            "billed_units": {"input_tokens": tokens.input, "output_tokens": tokens.output},
            "tokens": {"input_tokens": tokens.input + TEMPLATE, "output_tokens": tokens.output},
            "cached_tokens": tokens.cached,
        });
    }

    fn calls(&self) -> Vec<Value> {
        let call = |id: &str, name: &str, arguments: &Value| {
            let function = json!({"name": name, "arguments": arguments.to_string()});
            json!({"id": format!("{name}_{id}"), "type": "function", "function": function})
        };
        self.choice.calls.iter().map(|it| call(&it.id, &it.name, &it.arguments)).collect()
    }

    fn whole(&self) -> Value {
        let mut message = json!({"role": "assistant"});
        if self.choice.calls.is_empty() {
            let blocks = [("thinking", &self.choice.thought), ("text", &self.choice.text)].into_iter();
            let blocks = blocks.filter(|(_, text)| !text.is_empty());
            message["content"] = blocks.map(|(kind, text)| json!({"type": kind, kind: text})).collect();
        } else {
            message["tool_plan"] = PLAN.into();
            message["tool_calls"] = self.calls().into();
        }
        let mut reply = json!({"id": self.id, "message": message, "finish_reason": self.finish_reason()});
        self.put_usage(&mut reply);
        reply
    }

    fn stream(&self) -> Content {
        let mut events = Vec::new();
        let mut push = |part, event: Value| events.push(Event::named(part, &event));
        let delta = |kind: &str, index: usize, message: Value| json!({"type": kind, "index": index, "delta": {"message": message}});
        let begun = json!({"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []});
        push(Part::Frame, json!({"id": self.id, "type": "message-start", "delta": {"message": begun}}));
        let blocks = [("thinking", &self.choice.thought), ("text", &self.choice.text)];
        for (index, (kind, text)) in blocks.into_iter().filter(|(_, text)| !text.is_empty()).enumerate() {
            push(Part::Frame, delta("content-start", index, json!({"content": {"type": kind, kind: ""}})));
            for piece in pieces(text) {
                push(Part::Token, delta("content-delta", index, json!({"content": {kind: piece}})));
            }
            push(Part::Frame, json!({"type": "content-end", "index": index}));
        }
        for piece in pieces(PLAN).filter(|_| !self.choice.calls.is_empty()) {
            push(Part::Token, json!({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}}));
        }
        for (index, mut call) in self.calls().into_iter().enumerate() {
            let arguments = call["function"]["arguments"].take();
            call["function"]["arguments"] = "".into();
            push(Part::Token, delta("tool-call-start", index, json!({"tool_calls": call})));
            for piece in pieces(arguments.as_str().unwrap_or_default()) {
                let fragment = json!({"tool_calls": {"function": {"arguments": piece}}});
                push(Part::Token, delta("tool-call-delta", index, fragment));
            }
            push(Part::Frame, json!({"type": "tool-call-end", "index": index}));
        }
        let mut ended = json!({"finish_reason": self.finish_reason()});
        self.put_usage(&mut ended);
        push(Part::Frame, json!({"type": "message-end", "delta": ended}));
        events.push(Event { part: Part::End, bytes: "data: [DONE]\n\n".into() });
        Content::Stream { events, failure, framing: Framing::ServerSentEvents }
    }

    fn whole_v1(&self) -> Value {
        let calls: Vec<_> =
            self.choice.calls.iter().map(|it| json!({"name": it.name, "parameters": it.arguments})).collect();
        let text = if calls.is_empty() { &self.choice.text } else { PLAN };
        let reason = if self.choice.cut { "MAX_TOKENS" } else { "COMPLETE" };
        let mut reply =
            json!({"response_id": self.id, "text": text, "generation_id": self.id, "finish_reason": reason});
        if !calls.is_empty() {
            reply["tool_calls"] = calls.into();
        }
        reply["meta"] = json!({"api_version": {"version": "1"}});
        if let Some(tokens) = self.tokens {
            reply["meta"]["billed_units"] = json!({"input_tokens": tokens.input, "output_tokens": tokens.output});
            reply["meta"]["tokens"] = json!({"input_tokens": tokens.input + TEMPLATE, "output_tokens": tokens.output});
            reply["meta"]["cached_tokens"] = tokens.cached.into();
        }
        reply
    }

    fn stream_v1(&self) -> Content {
        let mut lines = Vec::new();
        let mut push = |part, kind: &str, mut line: Value| {
            line["event_type"] = kind.into();
            line["is_finished"] = (part == Part::End).into();
            lines.push(Event::line(part, &line));
        };
        push(Part::Frame, "stream-start", json!({"generation_id": self.id}));
        for piece in pieces(&self.choice.text) {
            push(Part::Token, "text-generation", json!({"text": piece}));
        }
        for (index, call) in self.choice.calls.iter().enumerate() {
            push(Part::Token, "tool-calls-chunk", json!({"tool_call_delta": {"index": index, "name": call.name}}));
            for piece in pieces(&call.arguments.to_string()) {
                push(
                    Part::Token,
                    "tool-calls-chunk",
                    json!({"tool_call_delta": {"index": index, "parameters": piece}}),
                );
            }
        }
        let reply = self.whole_v1();
        if let Some(calls) = reply.get("tool_calls") {
            push(Part::Frame, "tool-calls-generation", json!({"text": reply["text"], "tool_calls": calls}));
        }
        push(Part::End, "stream-end", json!({"finish_reason": reply["finish_reason"], "response": reply}));
        Content::Stream { events: lines, failure: failure_v1, framing: Framing::Lines(LINES) }
    }
}

/// The event in which Cohere reports that a stream has failed.
fn failure(_before: usize) -> Bytes {
    let delta = json!({"finish_reason": "ERROR", "error": "internal server error"});
    Event::named(Part::Frame, &json!({"type": "message-end", "delta": delta})).bytes
}

/// The same in the first version.
fn failure_v1(_before: usize) -> Bytes {
    let response = json!({"text": "", "finish_reason": "ERROR"});
    let line = json!({"is_finished": true, "event_type": "stream-end", "finish_reason": "ERROR", "response": response});
    Event::line(Part::Frame, &line).bytes
}

/// `POST /v2/embed`: texts that share words are near one another.
pub(super) fn embed(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let model = model_of(body)?;
    let texts = body["texts"].as_array().or(body["inputs"].as_array()).ok_or(Problem::Missing("texts"))?;
    let dimensions = body["output_dimension"].as_u64().unwrap_or(1536).clamp(1, 1536);
    let said: Vec<_> = texts.iter().map(gathered_text).collect();
    let truth = Tally { input: said.iter().map(|text| mind.tokens.count(text)).sum(), ..Tally::default() };
    let told = script.usage.map_or(truth, |usage| usage.instead_of(truth));
    let tokens = Tally { input: told.input, ..Tally::default() };
    let vectors: Vec<_> = said.iter().map(|text| embedding(text, dimensions)).collect();
    let mut reply = json!({
        "id": Dice::new(truth.input).id(""),
        "embeddings": {"float": vectors},
        "texts": said,
        "meta": {"api_version": {"version": "2"}},
        "response_type": "embeddings_by_type",
    });
    if !script.has(Oddity::NoUsage) {
        reply["meta"]["billed_units"] = json!({"input_tokens": tokens.input});
    }
    Ok(Reply { model, seed: truth.input, tokens, headers: Vec::new(), content: Content::whole(&reply) })
}

/// `POST /v2/rerank`: documents that share words with the query come first. Billed by searches, not by tokens.
pub(super) fn rerank(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    const DIMENSIONS: u64 = 256;
    let model = model_of(body)?;
    let query = body["query"].as_str().ok_or(Problem::Missing("query"))?;
    let documents = body["documents"].as_array().ok_or(Problem::Missing("documents"))?;
    let asked = embedding(query, DIMENSIONS);
    let likeness = |document: &Value| -> f32 {
        let vector = embedding(&gathered_text(document), DIMENSIONS);
        vector.iter().zip(&asked).map(|(left, right)| left * right).sum()
    };
    let mut results: Vec<(usize, f32)> = documents.iter().map(likeness).enumerate().collect();
    results.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let most = body["top_n"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let results = results.into_iter().take(most);
    let results: Vec<_> =
        results.map(|(index, score)| json!({"index": index, "relevance_score": score.clamp(0.0, 1.0)})).collect();
    let seed = mind.piece("rerank", body, None).digest;
    let mut reply = json!({
        "id": Dice::new(seed).id(""),
        "results": results,
        "meta": {"api_version": {"version": "2"}},
    });
    if !script.has(Oddity::NoUsage) {
        let searches = (documents.len() as u64).div_ceil(DOCUMENTS_PER_SEARCH).max(1);
        reply["meta"]["billed_units"] = json!({"search_units": searches});
    }
    Ok(Reply { model, seed, tokens: Tally::default(), headers: Vec::new(), content: Content::whole(&reply) })
}
