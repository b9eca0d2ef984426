//! Bedrock: `Converse` and `ConverseStream`, token counts, and how AWS refuses.
//!
//! Knows that wire format and nothing of signatures, time or faults. The bodies that vendors bring to Bedrock are in
//! `invoke`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::bill::Tally;
use super::dice::Dice;
use super::eventstream;
use super::faults::{Oddity, Script};
use super::memory::{Piece, Stay};
use super::mind::{Answer, Caching, Choice, Form, Mind, Question, Tool, ToolChoice, gathered_text};
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;

/// The kind of error and the body of a refusal.
pub(super) fn refusal(problem: &Problem) -> (&'static str, Value) {
    let message = match problem {
        Problem::Forbidden { message, .. } | Problem::BadScript(message) => message.clone(),
        Problem::NoCredential => "Missing Authentication Token".to_owned(),
        Problem::UnknownPath { .. } | Problem::WrongMethod { .. } => {
            return ("UnknownOperationException", json!({}));
        }
        Problem::TooLarge => "Input is too long for requested model.".to_owned(),
        Problem::NotJson => "Unable to parse request: the body is not valid JSON.".to_owned(),
        Problem::Missing(field) => format!(
            "1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must not be null"
        ),
        Problem::UnknownModel(_) => {
            "Could not resolve the foundation model from the provided model identifier.".to_owned()
        }
        Problem::Wanted(status) => wanted(status.as_u16()).to_owned(),
    };
    let kind = match problem {
        Problem::Forbidden { kind, .. } => kind,
        _ => kind(problem.status().as_u16()),
    };
    (kind, json!({"message": message}))
}

/// The kind of error as the head of a refusal words it.
pub(super) fn error_type(problem: &Problem) -> String {
    format!("{}:http://internal.amazon.com/coral/com.amazon.bedrock/", refusal(problem).0)
}

fn wanted(status: u16) -> &'static str {
    match status {
        403 => "You don't have access to the model with the specified model ID.",
        408 => "The model took too long to respond.",
        424 => "The model returned an error.",
        429 => "Too many requests, please wait before trying again.",
        503 => "Bedrock is unable to process your request.",
        500.. => "The system encountered an unexpected error during processing. Try your request again.",
        _ => "The request is not valid.",
    }
}

fn kind(status: u16) -> &'static str {
    match status {
        401 | 403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        500.. => "InternalServerException",
        _ => "ValidationException",
    }
}

/// The headers of every reply: `request` is unlike any other.
pub(super) fn headers(request: u64) -> Vec<(&'static str, String)> {
    let mut dice = Dice::new(request);
    let mut hex = |digits: usize| dice.id("")[..digits].to_owned();
    let id = format!("{}-{}-4{}-8{}-{}", hex(8), hex(4), hex(3), hex(3), hex(12));
    vec![("x-amzn-requestid", id)]
}

/// `POST /model/{id}/converse` and `/converse-stream`.
pub(super) fn converse(
    model: &str,
    stream: bool,
    body: &Value,
    mind: &Mind,
    script: &Script,
) -> Result<Reply, Problem> {
    let question = Question { stream, ..read(model, body, mind)? };
    let answer = mind.answer(&question, Caching::Marked);
    let said = Said::new(&answer, script);
    let content = if stream { said.stream() } else { Content::whole(&said.whole()) };
    Ok(Reply { model: model.to_owned(), seed: answer.seed, tokens: said.tokens, headers: Vec::new(), content })
}

/// `POST /model/{id}/count-tokens`: free of charge.
pub(super) fn count_tokens(model: &str, body: &Value, mind: &Mind) -> Result<Reply, Problem> {
    let asked = body["input"].get("converse").ok_or(Problem::Missing("input"))?;
    let tokens: u64 = read(model, asked, mind)?.pieces.iter().map(|piece| piece.tokens).sum();
    let content = Content::whole(&json!({"inputTokens": tokens}));
    Ok(Reply { model: model.to_owned(), seed: tokens, tokens: Tally::default(), headers: Vec::new(), content })
}

/// A model that exists. Names that begin with `nope-` do not, so that this case can be tried.
pub(super) fn known(model: &str) -> Result<(), Problem> {
    if model.starts_with("nope-") { Err(Problem::UnknownModel(model.to_owned())) } else { Ok(()) }
}

pub(super) fn read(model: &str, body: &Value, mind: &Mind) -> Result<Question, Problem> {
    known(model)?;
    let messages = body["messages"].as_array().filter(|list| !list.is_empty()).ok_or(Problem::Missing("messages"))?;
    let tools = body["toolConfig"]["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut prompt = Vec::new();
    for tool in tools {
        add(&mut prompt, tool, |tool| mind.tool_piece(tool, None));
    }
    let blocks = |content: &Value| content.as_array().cloned().unwrap_or_default();
    for block in blocks(&body["system"]) {
        add(&mut prompt, &block, |block| mind.piece("system", block, None));
    }
    for message in messages {
        let role = message["role"].as_str().unwrap_or_default();
        for block in blocks(&message["content"]) {
            add(&mut prompt, &block, |block| mind.piece(role, spoken(block), None));
        }
    }
    let config = &body["inferenceConfig"];
    let most_tokens = ["maxTokens", "max_new_tokens"].iter().find_map(|name| config[*name].as_u64());
    Ok(Question {
        asked: messages.last().and_then(asked),
        most_tokens,
        form: Form::Prose,
        tools: tools.iter().filter_map(tool).collect(),
        choice: choice(&body["toolConfig"]["toolChoice"]),
        thoughts: thoughts(&body["additionalModelRequestFields"]),
        ..Question::plain(model.to_owned(), false, prompt)
    })
}

/// Adds a block to the prompt; a cache point instead marks what came before it.
fn add(prompt: &mut Vec<Piece>, block: &Value, piece: impl FnOnce(&Value) -> Piece) {
    match block.get("cachePoint") {
        Some(point) => {
            let stay = if point["ttl"] == "1h" { Stay::Hour } else { Stay::FiveMinutes };
            prompt.iter_mut().last().into_iter().for_each(|last| last.keep = Some(stay));
        }
        None => prompt.push(piece(block)),
    }
}

/// What of a block counts as its words: of a picture, that it is one.
fn spoken(block: &Value) -> &Value {
    static PICTURE: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| json!({"type": "image"}));
    let is_file = ["image", "document", "video"].iter().any(|kind| block.get(kind).is_some());
    if is_file { &PICTURE } else { block }
}

/// What the user asks, unless this message only brings the results of tools.
fn asked(message: &Value) -> Option<String> {
    let has_results = |blocks: &Vec<Value>| blocks.iter().any(|block| block.get("toolResult").is_some());
    let speaks = message["role"] == "user" && !message["content"].as_array().is_some_and(has_results);
    speaks.then(|| gathered_text(&message["content"]))
}

fn tool(tool: &Value) -> Option<Tool> {
    let spec = tool.get("toolSpec")?;
    Some(Tool { name: spec["name"].as_str()?.to_owned(), schema: spec["inputSchema"]["json"].clone() })
}

fn choice(choice: &Value) -> ToolChoice {
    match choice["tool"]["name"].as_str() {
        Some(name) => ToolChoice::Only(name.to_owned()),
        None if choice.get("any").is_some() => ToolChoice::Always,
        None => ToolChoice::Auto,
    }
}

/// How much thought is wanted, in sentences: by Anthropic's field, which Converse passes on.
fn thoughts(fields: &Value) -> u64 {
    let thinking = ["thinking", "reasoning_config"].iter().find_map(|name| fields.get(*name));
    match thinking.and_then(|thinking| thinking["type"].as_str()) {
        None | Some("disabled") => 0,
        Some(_) => 8,
    }
}

/// What is answered, from which each of its documents is made.
pub(super) struct Said {
    blocks: Vec<Block>,
    stop_reason: &'static str,
    pub(super) tokens: Tally,
    says_usage: bool,
    latency_ms: u64,
}

/// One block of a message.
struct Block {
    whole: Value,
    /// As a stream announces it; blocks of text are not announced.
    begun: Option<Value>,
    deltas: Vec<Value>,
}

impl Said {
    pub(super) fn new(answer: &Answer, script: &Script) -> Self {
        let first = answer.choices.first();
        Self {
            blocks: first.map(blocks).unwrap_or_default(),
            stop_reason: first.map_or("end_turn", stop_reason),
            tokens: script.usage.map_or(answer.tokens, |usage| usage.instead_of(answer.tokens)),
            says_usage: !script.has(Oddity::NoUsage),
            // Decided by the question, so that equal calls get equal bytes.
            latency_ms: latency_ms(answer.seed),
        }
    }

    pub(super) fn message(&self) -> Value {
        let content: Vec<_> = self.blocks.iter().map(|block| &block.whole).collect();
        json!({"message": {"content": content, "role": "assistant"}})
    }

    pub(super) const fn stop_reason(&self) -> &'static str {
        self.stop_reason
    }

    fn whole(&self) -> Value {
        let mut reply = json!({
            "metrics": {"latencyMs": self.latency_ms},
            "output": self.message(),
            "stopReason": self.stop_reason,
        });
        if self.says_usage {
            reply["usage"] = usage(self.tokens);
        }
        reply
    }

    /// The events of a stream but the last: how much of the answer each is, its kind, and what it says.
    pub(super) fn events(&self) -> Vec<(Part, &'static str, Value)> {
        let mut events = vec![(Part::Frame, "messageStart", json!({"role": "assistant"}))];
        for (index, block) in self.blocks.iter().enumerate() {
            let at = |name: &str, value: &Value| json!({"contentBlockIndex": index, name: value});
            events.extend(block.begun.iter().map(|begun| (Part::Frame, "contentBlockStart", at("start", begun))));
            events.extend(block.deltas.iter().map(|delta| (Part::Token, "contentBlockDelta", at("delta", delta))));
            events.push((Part::Frame, "contentBlockStop", json!({"contentBlockIndex": index})));
        }
        events.push((Part::Frame, "messageStop", json!({"stopReason": self.stop_reason})));
        events
    }

    fn stream(&self) -> Content {
        let mut metadata = json!({"metrics": {"latencyMs": self.latency_ms}});
        if self.says_usage {
            metadata["usage"] = usage(self.tokens);
        }
        let events = self.events().into_iter().chain([(Part::End, "metadata", metadata)]);
        let events = events.enumerate().map(|(number, (part, kind, mut payload))| {
            payload["p"] = padding(number).into();
            Event { part, bytes: eventstream::event(kind, &payload) }
        });
        Content::Stream { events: events.collect(), failure, framing: Framing::AwsEventStream }
    }
}

/// How long an answer claims to have taken.
pub(super) const fn latency_ms(seed: u64) -> u64 {
    200 + seed % 800
}

/// Letters that hide how long an event is, as Bedrock adds them.
pub(super) fn padding(number: usize) -> &'static str {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    &LETTERS[..=number * 7 % LETTERS.len()]
}

/// The exception in which a stream reports that it has failed.
pub(super) fn failure(_before: usize) -> Bytes {
    let said = json!({"message": "The model has timed out in processing the request.", "originalStatusCode": 500});
    eventstream::exception("modelStreamErrorException", &said)
}

fn stop_reason(choice: &Choice) -> &'static str {
    match choice {
        Choice { cut: true, .. } => "max_tokens",
        Choice { calls, .. } if !calls.is_empty() => "tool_use",
        _ => "end_turn",
    }
}

fn blocks(choice: &Choice) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !choice.thought.is_empty() {
        let thought = |piece: &str| json!({"reasoningContent": {"text": piece}});
        let signature = json!({"reasoningContent": {"signature": "c2ltdWxhdGVk"}});
        let whole = json!({"text": choice.thought, "signature": "c2ltdWxhdGVk"});
        blocks.push(Block {
            whole: json!({"reasoningContent": {"reasoningText": whole}}),
            begun: None,
            deltas: pieces(&choice.thought).map(thought).chain([signature]).collect(),
        });
    }
    if !choice.text.is_empty() {
        let deltas = pieces(&choice.text).map(|piece| json!({"text": piece})).collect();
        blocks.push(Block { whole: json!({"text": choice.text}), begun: None, deltas });
    }
    blocks.extend(choice.calls.iter().map(|call| {
        let id = format!("tooluse_{}", call.id);
        let input = |piece: &str| json!({"toolUse": {"input": piece}});
        Block {
            whole: json!({"toolUse": {"toolUseId": id, "name": call.name, "input": call.arguments}}),
            begun: Some(json!({"toolUse": {"toolUseId": id, "name": call.name}})),
            deltas: pieces(&call.arguments.to_string()).map(input).collect(),
        }
    }));
    blocks
}

/// The tokens of the prompt that the prompt cache had no part in.
pub(super) const fn uncached(tokens: Tally) -> u64 {
    tokens.input - tokens.cached - tokens.cache_write_short - tokens.cache_write_long
}

fn usage(tokens: Tally) -> Value {
    let details = [("5m", tokens.cache_write_short), ("1h", tokens.cache_write_long)];
    let details = details.iter().filter(|(_, tokens)| *tokens > 0);
    let details: Vec<_> = details.map(|(ttl, tokens)| json!({"ttl": ttl, "inputTokens": tokens})).collect();
    json!({
        "inputTokens": uncached(tokens),
        "outputTokens": tokens.output,
        "totalTokens": tokens.input + tokens.output,
        "cacheReadInputTokens": tokens.cached,
        "cacheWriteInputTokens": tokens.cache_write_short + tokens.cache_write_long,
        "cacheDetails": details,
        "serverToolUsage": {},
    })
}
