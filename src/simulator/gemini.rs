//! Gemini: generated content, token counts and embeddings, as the Gemini API and Vertex AI have them, with both forms of
//! their streams and their refusals.
//!
//! Tokens are counted with OpenAI's vocabulary: an approximation, as Google's own is not public. Knows that wire format
//! and nothing of time or faults.

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use serde_json::{Value, json};

use super::bill::Tally;
use super::dice::Dice;
use super::faults::{Oddity, Script};
use super::memory::Piece;
use super::mind::{Answer, Caching, Choice, Form, Mind, Question, Tool, ToolChoice, gathered_text, named_model};
use super::openai;
use super::reply::{Content, Event, Framing, Part, Problem, Reply};
use super::text::pieces;

/// Models on the list; others are answered for as well.
const MODELS: [&str; 3] = ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-3.5-flash"];
/// Tokens in whatever `cachedContent` names.
const TOKENS_IN_A_CACHE: u64 = 2048;
/// The numbers in an embedding of which nobody said how many it should have.
const USUAL_DIMENSIONS: u64 = 3072;
/// How the names of models begin that say the usage of embeddings; older ones do not.
const COUNTING_EMBEDDERS: &str = "gemini-embedding-2";
/// Stands for the signature of a thought; nobody but Google can tell it from a real one.
const SIGNATURE: &str = "c2ltdWxhdGVkLXRob3VnaHQtc2lnbmF0dXJl";

/// What a path calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) model: String,
    method: Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Generate,
    Stream(Framing),
    CountTokens,
    Embed,
    EmbedBatch,
}

/// The method of a model that a path calls: `…/models/<model>:<method>`. Server-sent events come to those who ask for
/// them, one array to all others.
pub(super) fn target(path: &str, query: Option<&str>) -> Option<Target> {
    let (resource, method) = path.rsplit_once(':')?;
    let (_, model) = resource.rsplit_once("/models/")?;
    let sse = query.unwrap_or_default().split('&').any(|pair| pair == "alt=sse");
    let method = match method {
        "generateContent" => Method::Generate,
        "streamGenerateContent" if sse => Method::Stream(Framing::ServerSentEvents),
        "streamGenerateContent" => Method::Stream(Framing::JsonArray),
        "countTokens" => Method::CountTokens,
        "embedContent" => Method::Embed,
        "batchEmbedContents" => Method::EmbedBatch,
        _ => return None,
    };
    Some(Target { model: model.to_owned(), method })
}

/// Whether the call brings a credential, right or wrong: a key in a header or in the query, or a token.
pub(super) fn has_credential(head: &Parts) -> bool {
    let filled = |headers: &HeaderMap| headers.get("x-goog-api-key").is_some_and(|key| !key.is_empty());
    let in_query =
        head.uri.query().unwrap_or_default().split('&').any(|pair| pair.len() > 4 && pair.starts_with("key="));
    filled(&head.headers) || in_query || openai::has_credential(&head.headers)
}

/// The body of a refusal.
pub(super) fn refusal(problem: &Problem) -> Value {
    let message = match problem {
        Problem::NoCredential => "Method doesn't allow unregistered callers (callers without established identity).",
        Problem::UnknownPath { .. } | Problem::WrongMethod { .. } => "Not found.",
        Problem::TooLarge => "Request payload size exceeds the limit.",
        Problem::NotJson => "Invalid JSON payload received.",
        Problem::Missing(field) => {
            return worded(problem, &format!("* GenerateContentRequest.{field}: it is not there"));
        }
        Problem::UnknownModel(model) => return worded(problem, &format!("models/{model} is not found.")),
        Problem::BadScript(message) | Problem::Forbidden { message, .. } => message,
        Problem::Wanted(status) => match status.as_u16() {
            429 => "You exceeded your current quota, please check your plan and billing details.",
            503 => "The model is overloaded. Please try again later.",
            500.. => "An internal error has occurred. Please retry.",
            _ => "The request was refused.",
        },
    };
    worded(problem, message)
}

fn worded(problem: &Problem, message: &str) -> Value {
    let code = problem.status().as_u16();
    let status = match code {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    let mut error = json!({"code": code, "message": message, "status": status});
    if code == 429 {
        error["details"] = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]);
    }
    json!({ "error": error })
}

/// The headers of every reply. None of them names the request: its id is in the body.
pub(super) fn headers() -> Vec<(&'static str, String)> {
    [("vary", "Origin"), ("x-content-type-options", "nosniff"), ("x-frame-options", "SAMEORIGIN")]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
}

/// `GET /v1beta/models` and `GET /v1beta/models/{model}`.
pub(super) fn models(one: Option<&str>) -> Result<Value, Problem> {
    let methods = ["generateContent", "countTokens"];
    let model = |id: &str| json!({"name": format!("models/{id}"), "supportedGenerationMethods": methods});
    match one {
        Some(id) => Ok(model(&named_model(id)?)),
        None => Ok(json!({"models": MODELS.map(model)})),
    }
}

/// Answers a call.
pub(super) fn reply(target: &Target, body: &Value, mind: &Mind, script: &Script) -> Result<Reply, Problem> {
    let model = named_model(&target.model)?;
    match target.method {
        Method::Generate => generate(model, None, body, mind, script),
        Method::Stream(framing) => generate(model, Some(framing), body, mind, script),
        Method::CountTokens => count_tokens(model, body, mind),
        Method::Embed => Ok(embed(model, std::slice::from_ref(body), "embedding", mind, script)),
        Method::EmbedBatch => {
            let requests = body["requests"].as_array().ok_or(Problem::Missing("requests"))?;
            Ok(embed(model, requests, "embeddings", mind, script))
        }
    }
}

fn generate(
    model: String,
    stream: Option<Framing>,
    body: &Value,
    mind: &Mind,
    script: &Script,
) -> Result<Reply, Problem> {
    let question = read(model, body, mind)?;
    let mut answer = mind.answer(&question, Caching::Unasked);
    if body["cachedContent"].is_string() {
        answer.tokens.input += TOKENS_IN_A_CACHE;
        answer.tokens.cached += TOKENS_IN_A_CACHE;
    }
    // What is written to a cache costs nothing here, and is not told.
    let told = |tokens: Tally| Tally { cache_write_short: 0, cache_write_long: 0, ..tokens };
    let tokens = told(script.usage.map_or(answer.tokens, |usage| usage.instead_of(answer.tokens)));
    let document = Document {
        model: &question.model,
        seed: answer.seed,
        shows_thoughts: body["generationConfig"]["thinkingConfig"]["includeThoughts"] == true,
        tokens: (!script.has(Oddity::NoUsage)).then_some(tokens),
    };
    let content = match stream {
        None => Content::whole(&document.whole(&answer)),
        Some(framing) => document.stream(&answer, framing),
    };
    Ok(Reply { seed: answer.seed, tokens, headers: Vec::new(), content, model: question.model })
}

/// `:countTokens`: free of charge.
fn count_tokens(model: String, body: &Value, mind: &Mind) -> Result<Reply, Problem> {
    let asked = body.get("generateContentRequest").unwrap_or(body);
    let Question { model, pieces, .. } = read(model, asked, mind)?;
    let tokens: u64 = pieces.iter().map(|piece| piece.tokens).sum();
    let counted = json!({"totalTokens": tokens, "promptTokensDetails": details(tokens)});
    let content = Content::whole(&counted);
    Ok(Reply { model, seed: tokens, tokens: Tally::default(), headers: Vec::new(), content })
}

/// `:embedContent` and `:batchEmbedContents`: one vector for each request.
fn embed(model: String, requests: &[Value], name: &str, mind: &Mind, script: &Script) -> Reply {
    let texts: Vec<String> = requests.iter().map(|request| gathered_text(&request["content"]["parts"])).collect();
    let vectors = requests.iter().zip(&texts).map(|(request, text)| {
        let dimensions = request["outputDimensionality"].as_u64().unwrap_or(USUAL_DIMENSIONS);
        json!({"values": openai::embedding(text, dimensions.clamp(1, USUAL_DIMENSIONS))})
    });
    let vectors: Vec<Value> = vectors.collect();
    let truth = Tally { input: texts.iter().map(|text| mind.tokens.count(text)).sum(), ..Tally::default() };
    let tokens = script.usage.map_or(truth, |usage| usage.instead_of(truth));
    let mut reply = json!({});
    reply[name] = if name == "embedding" { vectors[0].clone() } else { json!(vectors) };
    if model.starts_with(COUNTING_EMBEDDERS) && !script.has(Oddity::NoUsage) {
        reply["usageMetadata"] = json!({
            "promptTokenCount": tokens.input,
            "totalTokenCount": tokens.input,
            "promptTokensDetails": details(tokens.input),
        });
    }
    Reply { model, seed: tokens.input, tokens, headers: Vec::new(), content: Content::whole(&reply) }
}

fn read(model: String, body: &Value, mind: &Mind) -> Result<Question, Problem> {
    let contents = body["contents"].as_array().filter(|list| !list.is_empty()).ok_or(Problem::Missing("contents"))?;
    let config = &body["generationConfig"];
    let declared = body["tools"].as_array().into_iter().flatten();
    let declared: Vec<&Value> = declared.filter_map(|tool| tool["functionDeclarations"].as_array()).flatten().collect();
    let mut prompt: Vec<Piece> = declared.iter().map(|tool| mind.tool_piece(tool, None)).collect();
    if body["systemInstruction"].is_object() {
        prompt.push(mind.piece("system", &said(&body["systemInstruction"]), None));
    }
    prompt.extend(contents.iter().map(|content| mind.piece(role(content), &said(content), None)));
    Ok(Question {
        asked: contents.last().filter(|content| role(content) == "user" && !has_results(content)).map(|content| {
            let said = said(content);
            gathered_text(&said)
        }),
        most_tokens: config["maxOutputTokens"].as_u64(),
        form: form(config),
        tools: declared.into_iter().filter_map(tool).collect(),
        choice: choice(&body["toolConfig"]["functionCallingConfig"]),
        thoughts: thoughts(&config["thinkingConfig"]),
        choices: config["candidateCount"].as_u64().unwrap_or(1),
        ..Question::plain(model, false, prompt)
    })
}

fn role(content: &Value) -> &str {
    content["role"].as_str().unwrap_or("user")
}

fn has_results(content: &Value) -> bool {
    content["parts"].as_array().into_iter().flatten().any(|part| part.get("functionResponse").is_some())
}

/// What the parts of a content say; media stand for themselves.
fn said(content: &Value) -> Value {
    let parts = content["parts"].as_array().into_iter().flatten();
    parts
        .map(|part| match part {
            _ if part.get("inlineData").is_some() || part.get("fileData").is_some() => json!({"type": "file"}),
            _ => json!([
                part["text"],
                part["functionCall"]["name"],
                part["functionCall"]["args"],
                part["functionResponse"]["name"],
                part["functionResponse"]["response"]
            ]),
        })
        .collect()
}

fn form(config: &Value) -> Form {
    match (config.get("responseJsonSchema"), config.get("responseSchema")) {
        (Some(schema), _) => Form::Matching(schema.clone()),
        (_, Some(schema)) => Form::Matching(json_schema(schema)),
        _ if config["responseMimeType"] == "application/json" => Form::AnyObject,
        _ => Form::Prose,
    }
}

fn tool(declaration: &Value) -> Option<Tool> {
    let name = declaration["name"].as_str()?.to_owned();
    let own = declaration.get("parametersJsonSchema").cloned();
    Some(Tool { name, schema: own.unwrap_or_else(|| json_schema(&declaration["parameters"])) })
}

/// Google's schemas are JSON Schemas whose types are in capitals.
fn json_schema(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match value {
                Value::String(kind) if name == "type" => (name.clone(), json!(kind.to_ascii_lowercase())),
                _ => (name.clone(), json_schema(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(json_schema).collect(),
        other => other.clone(),
    }
}

fn choice(config: &Value) -> ToolChoice {
    match (config["mode"].as_str(), config["allowedFunctionNames"][0].as_str()) {
        (Some("NONE"), _) => ToolChoice::Never,
        (Some("ANY"), Some(name)) => ToolChoice::Only(name.to_owned()),
        (Some("ANY"), None) => ToolChoice::Always,
        _ => ToolChoice::Auto,
    }
}

/// How much thought is wanted, in sentences of about a dozen tokens.
fn thoughts(config: &Value) -> u64 {
    match config["thinkingBudget"].as_u64() {
        Some(0) => 0,
        Some(budget) => (budget / 256).clamp(2, 20),
        None if config.is_object() => 8,
        None => 0,
    }
}

/// What the documents of one reply have in common.
struct Document<'a> {
    model: &'a str,
    seed: u64,
    shows_thoughts: bool,
    /// `None`: usage is not to be mentioned.
    tokens: Option<Tally>,
}

impl Document<'_> {
    fn whole(&self, answer: &Answer) -> Value {
        let candidates = answer.choices.iter().enumerate().map(|(index, choice)| {
            let parts: Vec<Value> = self.parts(choice).map(|(part, _)| part).collect();
            candidate(index, &json!(parts), Some(finish_reason(choice)))
        });
        self.around(&candidates.collect(), self.tokens.map(usage))
    }

    fn stream(&self, answer: &Answer, framing: Framing) -> Content {
        let mut chunks = Vec::new();
        for (index, choice) in answer.choices.iter().enumerate() {
            for (part, pieces) in self.parts(choice) {
                for piece in if pieces.is_empty() { vec![part] } else { pieces } {
                    // On the way, only the prompt is counted.
                    let so_far = self.tokens.map(|tokens| usage(Tally { output: 0, reasoning: 0, ..tokens }));
                    chunks.push((Part::Token, self.around(&json!([candidate(index, &json!([piece]), None)]), so_far)));
                }
            }
        }
        let ends = answer.choices.iter().enumerate();
        let ends = ends.map(|(index, choice)| candidate(index, &json!([{"text": ""}]), Some(finish_reason(choice))));
        chunks.push((Part::End, self.around(&ends.collect(), self.tokens.map(usage))));
        if framing != Framing::JsonArray {
            let events = chunks.iter().map(|(part, chunk)| Event { part: *part, bytes: event(chunk) });
            return Content::Stream { events: events.collect(), failure: failed_event, framing };
        }
        let elements = chunks.iter().enumerate().map(|(index, (part, chunk))| {
            // What ends an array is its bracket.
            let part = if *part == Part::End { Part::Frame } else { *part };
            Event { part, bytes: element(index, chunk) }
        });
        let end = Event { part: Part::End, bytes: Bytes::from_static(b"\n]") };
        Content::Stream { events: elements.chain([end]).collect(), failure: failed_element, framing }
    }

    /// The parts of a choice, each with the pieces that a stream sends it in; none, if it goes in one.
    fn parts<'a>(&self, choice: &'a Choice) -> impl Iterator<Item = (Value, Vec<Value>)> + use<'a> {
        let thought =
            Some(&choice.thought).filter(|thought| self.shows_thoughts && !thought.is_empty()).map(|thought| {
                let streamed = pieces(thought).map(|piece| json!({"text": piece, "thought": true})).collect();
                (json!({"text": thought, "thought": true}), streamed)
            });
        let text = Some(&choice.text).filter(|text| !text.is_empty()).map(|text| {
            let streamed = pieces(text).map(|piece| json!({"text": piece})).collect();
            (json!({"text": text}), streamed)
        });
        let calls = choice.calls.iter().map(|call| {
            let function = json!({"id": call.id, "name": call.name, "args": call.arguments});
            (json!({"functionCall": function, "thoughtSignature": SIGNATURE}), Vec::new())
        });
        thought.into_iter().chain(text).chain(calls)
    }

    fn around(&self, candidates: &Value, usage: Option<Value>) -> Value {
        let mut document = json!({ "candidates": candidates });
        if let Some(usage) = usage {
            document["usageMetadata"] = usage;
        }
        document["modelVersion"] = self.model.into();
        document["responseId"] = Dice::new(self.seed).id("").into();
        document
    }
}

fn candidate(index: usize, parts: &Value, reason: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}});
    if let Some(reason) = reason {
        candidate["finishReason"] = reason.into();
    }
    candidate["index"] = index.into();
    candidate
}

fn finish_reason(choice: &Choice) -> &'static str {
    if choice.cut { "MAX_TOKENS" } else { "STOP" }
}

/// Usage: a count of zero is not written.
fn usage(tokens: Tally) -> Value {
    let said = tokens.output - tokens.reasoning;
    let mut usage = json!({"promptTokenCount": tokens.input});
    for (name, count) in [
        ("cachedContentTokenCount", tokens.cached),
        ("candidatesTokenCount", said),
        ("thoughtsTokenCount", tokens.reasoning),
    ] {
        if count > 0 {
            usage[name] = count.into();
        }
    }
    usage["totalTokenCount"] = (tokens.input + tokens.output).into();
    usage["promptTokensDetails"] = details(tokens.input);
    usage
}

fn details(tokens: u64) -> Value {
    json!([{"modality": "TEXT", "tokenCount": tokens}])
}

fn event(data: &Value) -> Bytes {
    format!("data: {data}\r\n\r\n").into()
}

fn element(index: usize, data: &Value) -> Bytes {
    format!("{}{data}", if index == 0 { "[" } else { "\r\n,\r\n" }).into()
}

fn overloaded() -> Value {
    worded(&Problem::Wanted(http::StatusCode::SERVICE_UNAVAILABLE), "The model is overloaded. Please try again later.")
}

/// The event in which Google reports that a stream has failed.
fn failed_event(_before: usize) -> Bytes {
    event(&overloaded())
}

fn failed_element(before: usize) -> Bytes {
    [element(before, &overloaded()), Bytes::from_static(b"\n]")].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_model_and_the_method_and_the_query_the_framing() {
        let target = |path, query| target(path, query).map(|target| (target.model, target.method));
        let flash = |method| Some(("gemini-2.5-flash".to_owned(), method));
        for (path, query, expected) in [
            ("/v1beta/models/gemini-2.5-flash:generateContent", None, flash(Method::Generate)),
            (
                "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:countTokens",
                None,
                flash(Method::CountTokens),
            ),
            (
                "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
                Some("key=k&alt=sse"),
                flash(Method::Stream(Framing::ServerSentEvents)),
            ),
            ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", None, flash(Method::Stream(Framing::JsonArray))),
            ("/v1beta/models/gemini-2.5-flash:predict", None, None),
            ("/v1beta/models/gemini-2.5-flash", None, None),
        ] {
            assert_eq!(target(path, query), expected, "{path} {query:?}");
        }
    }

    #[test]
    fn types_of_schemas_are_written_small_and_names_are_left_alone() {
        let schema = json!({"type": "OBJECT", "properties": {"Type": {"type": "STRING", "enum": ["A"]}}});
        let expected = json!({"type": "object", "properties": {"Type": {"type": "string", "enum": ["A"]}}});
        assert_eq!(json_schema(&schema), expected);
    }
}
