//! Anthropic: messages, token counts and models, with the events of its stream, its refusals and its headers.
//!
//! Tokens are counted with OpenAI's vocabulary: an approximation, as Anthropic's own is not public. Knows that wire
//! format and nothing of time or faults.

use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::bill::Tally;
use super::dice::Dice;
use super::faults::{Oddity, Script};
use super::memory::{Piece, Stay};
use super::mind::{Answer, Caching, Choice, Form, Mind, Question, Tool, ToolChoice, gathered_text, model_of};
use super::openai;
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;

/// Models on the list; others are answered for as well.
const MODELS: &[&str] = &["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"];

/// The body of a refusal, about the request with this id.
pub(super) fn refusal(problem: &Problem, request: &str) -> Value {
    let message = match problem {
        Problem::NoCredential => "x-api-key header is required".to_owned(),
        Problem::UnknownPath { .. } => "Not found".to_owned(),
        Problem::WrongMethod { .. } => "Method Not Allowed".to_owned(),
        Problem::TooLarge => "Request exceeds the maximum size".to_owned(),
        Problem::NotJson => "The request body is not valid JSON".to_owned(),
        Problem::Missing("anthropic-version") => "anthropic-version: header is required".to_owned(),
        Problem::Missing(field) => format!("{field}: Field required"),
        Problem::UnknownModel(model) => format!("model: {model}"),
        Problem::BadScript(message) | Problem::Forbidden { message, .. } => message.clone(),
        Problem::Wanted(status) => wanted(status.as_u16()).to_owned(),
    };
    let kind = kind(problem.status().as_u16());
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request})
}

fn wanted(status: u16) -> &'static str {
    match status {
        429 => "This request would exceed your organization's rate limit. Please try again later.",
        503 | 529 => "Overloaded",
        500.. => "Internal server error",
        _ => "The request was refused",
    }
}

fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The id of a request, unlike any other.
pub(super) fn request_id(request: u64) -> String {
    Dice::new(request).id("req_")
}

/// The headers of every reply: `request` is unlike any other, `left` is what is left of the rate limit.
pub(super) fn headers(request: u64, left: u64) -> Vec<(&'static str, String)> {
    let reset = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    vec![
        ("request-id", request_id(request)),
        ("anthropic-organization-id", "11111111-2222-4333-8444-555555555555".to_owned()),
        ("anthropic-ratelimit-requests-limit", "10000".to_owned()),
        ("anthropic-ratelimit-requests-remaining", left.to_string()),
        ("anthropic-ratelimit-requests-reset", reset.clone()),
        ("anthropic-ratelimit-tokens-limit", "2400000".to_owned()),
        ("anthropic-ratelimit-tokens-remaining", (left * 240).to_string()),
        ("anthropic-ratelimit-tokens-reset", reset.clone()),
        ("anthropic-ratelimit-input-tokens-limit", "2000000".to_owned()),
        ("anthropic-ratelimit-input-tokens-remaining", (left * 200).to_string()),
        ("anthropic-ratelimit-input-tokens-reset", reset.clone()),
        ("anthropic-ratelimit-output-tokens-limit", "400000".to_owned()),
        ("anthropic-ratelimit-output-tokens-remaining", (left * 40).to_string()),
        ("anthropic-ratelimit-output-tokens-reset", reset),
    ]
}

/// Whether the call brings a credential, right or wrong: a key, or the same in an `Authorization` header.
pub(super) fn has_credential(headers: &HeaderMap) -> bool {
    let key = headers.get("x-api-key").is_some_and(|key| !key.as_bytes().trim_ascii().is_empty());
    key || openai::has_credential(headers)
}

/// `GET /v1/models` and `GET /v1/models/{model}`.
pub(super) fn models(one: Option<&str>) -> Result<Value, Problem> {
    let model = |id: &str| {
        json!({
            "type": "model",
            "id": id,
            "display_name": id,
            "created_at": "2026-10-21T00:00:00Z",
            "lifecycle": "active",
        })
    };
    match one {
        Some(id) if id.starts_with("nope-") => Err(Problem::UnknownModel(id.to_owned())),
        Some(id) => Ok(model(id)),
        None => Ok(json!({
            "data": MODELS.iter().map(|id| model(id)).collect::<Vec<_>>(),
            "has_more": false,
            "first_id": MODELS.first(),
            "last_id": MODELS.last(),
        })),
    }
}

/// `POST /v1/messages`.
pub(super) fn messages(body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let question = Question { most_tokens: Some(most_tokens(body)?), ..read(body, mind)? };
    let answer = mind.answer(&question, Caching::Marked);
    Ok(reply(&question, &answer, script))
}

/// Messages at a publisher, who has the model in the path.
pub(super) fn published(model: &str, mut body: Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    body["model"] = model.into();
    messages(&body, mind, script)
}

/// `POST /v1/messages/count_tokens`: free of charge.
pub(super) fn count_tokens(body: &Value, mind: &Mind) -> Result<Reply, Problem> {
    let Question { model, pieces, .. } = read(body, mind)?;
    let tokens: u64 = pieces.iter().map(|piece| piece.tokens).sum();
    let content = Content::whole(&json!({"input_tokens": tokens}));
    Ok(Reply { model, seed: tokens, tokens: Tally::default(), headers: Vec::new(), content })
}

fn most_tokens(body: &Value) -> Result<u64, Problem> {
    body["max_tokens"].as_u64().ok_or(Problem::Missing("max_tokens"))
}

fn read(body: &Value, mind: &Mind) -> Result<Question, Problem> {
    let model = model_of(body)?;
    let messages = body["messages"].as_array().filter(|list| !list.is_empty()).ok_or(Problem::Missing("messages"))?;
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut prompt: Vec<_> = tools.iter().map(|tool| mind.tool_piece(tool, kept(tool))).collect();
    add_blocks(&mut prompt, mind, "system", &body["system"]);
    for message in messages {
        add_blocks(&mut prompt, mind, message["role"].as_str().unwrap_or(""), &message["content"]);
    }
    // A mark on the request itself stands for one on its last block.
    if let (Some(last), Some(stay)) = (prompt.last_mut(), kept(body)) {
        last.keep = Some(stay);
    }
    let format = &body["output_config"]["format"];
    Ok(Question {
        model,
        stream: body["stream"] == true,
        pieces: prompt,
        asked: messages.last().and_then(asked),
        most_tokens: None,
        form: if format["schema"].is_object() { Form::Matching(format["schema"].clone()) } else { Form::Prose },
        tools: tools.iter().filter_map(tool).collect(),
        choice: choice(&body["tool_choice"]),
        thoughts: thoughts(&body["thinking"]),
        choices: 1,
    })
}

/// Content as the prompt pieces it is cached in: one for each block.
fn add_blocks(prompt: &mut Vec<Piece>, mind: &Mind, role: &str, content: &Value) {
    match content {
        Value::Array(blocks) => prompt.extend(blocks.iter().map(|block| mind.piece(role, block, kept(block)))),
        Value::Null => {}
        text => prompt.push(mind.piece(role, text, None)),
    }
}

/// How long the `cache_control` of a block, a tool or a request wants it kept. Five minutes is Anthropic's default.
fn kept(marked: &Value) -> Option<Stay> {
    let mark = marked.get("cache_control").filter(|mark| mark.is_object())?;
    Some(if mark["ttl"] == "1h" { Stay::Hour } else { Stay::FiveMinutes })
}

/// What the user asks, unless this message only brings the results of tools.
fn asked(message: &Value) -> Option<String> {
    let results = |blocks: &Vec<Value>| blocks.iter().any(|block| block["type"] == "tool_result");
    let speaks = message["role"] == "user" && !message["content"].as_array().is_some_and(results);
    speaks.then(|| gathered_text(&message["content"]))
}

fn tool(tool: &Value) -> Option<Tool> {
    let schema = tool.get("input_schema")?.clone();
    Some(Tool { name: tool["name"].as_str()?.to_owned(), schema })
}

fn choice(choice: &Value) -> ToolChoice {
    match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("none"), _) => ToolChoice::Never,
        (Some("any"), _) => ToolChoice::Always,
        (Some("tool"), Some(name)) => ToolChoice::Only(name.to_owned()),
        _ => ToolChoice::Auto,
    }
}

/// How much thought is wanted, in sentences of about a dozen tokens.
fn thoughts(thinking: &Value) -> u64 {
    match thinking["type"].as_str() {
        None | Some("disabled") => 0,
        Some("enabled") => (thinking["budget_tokens"].as_u64().unwrap_or(1024) / 256).clamp(2, 20),
        Some(_) => 8,
    }
}

fn reply(question: &Question, answer: &Answer, script: &Script) -> Reply {
    let tokens = script.usage.map_or(answer.tokens, |usage| usage.instead_of(answer.tokens));
    let message = Message {
        model: &question.model,
        seed: answer.seed,
        blocks: answer.choices.first().map(blocks).unwrap_or_default(),
        stop_reason: answer.choices.first().map_or("end_turn", stop_reason),
        tokens: (!script.has(Oddity::NoUsage)).then_some(tokens),
    };
    let content = if question.stream { message.stream() } else { Content::whole(&message.whole()) };
    Reply { model: question.model.clone(), seed: answer.seed, tokens, headers: Vec::new(), content }
}

fn stop_reason(choice: &Choice) -> &'static str {
    match choice {
        Choice { cut: true, .. } => "max_tokens",
        Choice { calls, .. } if !calls.is_empty() => "tool_use",
        _ => "end_turn",
    }
}

/// One block of a message.
struct Block {
    /// As it is when complete.
    whole: Value,
    /// As a stream announces it.
    begun: Value,
    /// What a stream then adds.
    deltas: Vec<Value>,
}

fn blocks(choice: &Choice) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !choice.thought.is_empty() {
        let signature = STANDARD_SIGNATURE;
        let thoughts = pieces(&choice.thought).map(|piece| json!({"type": "thinking_delta", "thinking": piece}));
        blocks.push(Block {
            whole: json!({"type": "thinking", "thinking": choice.thought, "signature": signature}),
            begun: json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas: thoughts.chain([json!({"type": "signature_delta", "signature": signature})]).collect(),
        });
    }
    if !choice.text.is_empty() {
        blocks.push(Block {
            whole: json!({"type": "text", "text": choice.text}),
            begun: json!({"type": "text", "text": ""}),
            deltas: pieces(&choice.text).map(|piece| json!({"type": "text_delta", "text": piece})).collect(),
        });
    }
    blocks.extend(choice.calls.iter().map(|call| {
        let tool_use = |input: &Value| {
            json!({"type": "tool_use", "id": format!("toolu_{}", call.id), "name": call.name, "input": input})
        };
        let arguments = call.arguments.to_string();
        // The real API begins with an empty piece.
        let parts = std::iter::once("").chain(pieces(&arguments));
        Block {
            whole: tool_use(&call.arguments),
            begun: tool_use(&json!({})),
            deltas: parts.map(|piece| json!({"type": "input_json_delta", "partial_json": piece})).collect(),
        }
    }));
    blocks
}

/// Stands for the signature of a thought; nobody but Anthropic can tell it from a real one.
const STANDARD_SIGNATURE: &str = "c2ltdWxhdGVkLXRob3VnaHQtc2lnbmF0dXJl";

/// A message, from which each of its documents is made.
struct Message<'a> {
    model: &'a str,
    seed: u64,
    blocks: Vec<Block>,
    stop_reason: &'static str,
    /// `None`: usage is not to be mentioned.
    tokens: Option<Tally>,
}

impl Message<'_> {
    fn whole(&self) -> Value {
        let content: Vec<_> = self.blocks.iter().map(|block| &block.whole).collect();
        self.document(&json!(content), Some(self.stop_reason), self.tokens.map(usage))
    }

    fn document(&self, content: &Value, stop_reason: Option<&str>, usage: Option<Value>) -> Value {
        let mut message = json!({
            "id": Dice::new(self.seed).id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
        });
        if let Some(usage) = usage {
            message["usage"] = usage;
        }
        message
    }

    fn stream(&self) -> Content {
        let mut events = Vec::new();
        let mut push = |part, data: Value| events.push(Event::named(part, &data));
        // At the start only the input is known; one output token stands for those to come.
        let so_far = self.tokens.map(|tokens| usage(Tally { output: tokens.output.min(1), reasoning: 0, ..tokens }));
        let begun = self.document(&json!([]), None, so_far);
        push(Part::Frame, json!({"type": "message_start", "message": begun}));
        for (index, block) in self.blocks.iter().enumerate() {
            push(Part::Frame, json!({"type": "content_block_start", "index": index, "content_block": block.begun}));
            if index == 0 {
                push(Part::Frame, json!({"type": "ping"}));
            }
            for delta in &block.deltas {
                push(Part::Token, json!({"type": "content_block_delta", "index": index, "delta": delta}));
            }
            push(Part::Frame, json!({"type": "content_block_stop", "index": index}));
        }
        let mut ended = json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason, "stop_sequence": null},
        });
        if let Some(tokens) = self.tokens {
            ended["usage"] = final_usage(tokens);
        }
        push(Part::Frame, ended);
        push(Part::End, json!({"type": "message_stop"}));
        Content::Stream { events, failure, framing: Framing::ServerSentEvents }
    }
}

/// Usage as a whole message and the start of a stream word it.
fn usage(tokens: Tally) -> Value {
    json!({
        "input_tokens": tokens.input - tokens.cached - tokens.cache_write_short - tokens.cache_write_long,
        "cache_creation_input_tokens": tokens.cache_write_short + tokens.cache_write_long,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_short,
            "ephemeral_1h_input_tokens": tokens.cache_write_long,
        },
        "output_tokens": tokens.output,
        "output_tokens_details": {"thinking_tokens": tokens.reasoning},
        "service_tier": "standard",
    })
}

/// Usage as the end of a stream words it: totals, without the split of cache writes.
fn final_usage(tokens: Tally) -> Value {
    let mut usage = usage(tokens);
    if let Some(members) = usage.as_object_mut() {
        members.retain(|name, _| !matches!(name.as_str(), "cache_creation" | "service_tier"));
    }
    usage
}

/// The event in which Anthropic reports that a stream has failed.
fn failure(_before: usize) -> Bytes {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    Event::named(Part::Frame, &error).bytes
}

/// A reply that is always the same, to be made once.
pub(super) fn canned(stream: bool) -> Reply {
    let question = Question::plain("claude-haiku-5-5".to_owned(), stream, Vec::new());
    reply(&question, &Answer::canned(), &Script::default())
}
