//! The simulator over the wire: what it promises to the tests and demos that lean on it.
//!
//! Real connections on port 0, a plain HTTP client, no sleeps: a test that waits for something waits for the
//! simulator to say that it has happened.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use weir::frames::eventstream::Decoder;
use weir::simulator::bill::{Api, NONE, State, Tally};
use weir::simulator::pace::Pace;
use weir::simulator::{Simulator, run};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const COHERE_CHAT: &str = "/v2/chat";
const COHERE_CHAT_V1: &str = "/v1/chat";
const OLLAMA_CHAT: &str = "/api/chat";
const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";

/// A simulator that is being served.
struct Served {
    simulator: Simulator,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// Everything that came back, and whether it came to its proper end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    frames: Vec<Bytes>,
    complete: bool,
}

async fn serve(simulator: Simulator) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { drop(stopped.await) };
    let server = tokio::spawn(run(listener, simulator.clone(), shutdown));
    Served { simulator, address, stop, server }
}

async fn instant() -> Served {
    serve(Simulator::new(Pace::instant())).await
}

fn request(method: Method, path: &str, body: &[u8], script: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "simulator")
        .header("authorization", "Bearer sk-test")
        .header("accept-encoding", "gzip");
    if path.starts_with(MESSAGES) {
        request = request.header("anthropic-version", "2023-06-01");
    }
    if !script.is_empty() {
        request = request.header("x-simulate", script);
    }
    request.body(Full::new(Bytes::copy_from_slice(body))).expect("a good request")
}

impl Served {
    async fn post(&self, path: &str, body: &Value, script: &str) -> Answer {
        self.send(request(Method::POST, path, body.to_string().as_bytes(), script)).await
    }

    async fn get(&self, path: &str) -> Value {
        self.send(request(Method::GET, path, b"", "")).await.json()
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (response, _connection) = self.begin(request).await.expect("an answer");
        let (head, mut body) = response.into_parts();
        let mut answer = Answer { status: head.status, headers: head.headers, frames: Vec::new(), complete: true };
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => answer.frames.extend(frame.into_data()),
                Err(_) => answer.complete = false,
            }
        }
        answer
    }

    /// The beginning of an answer, and the connection that ends when it is dropped.
    async fn begin(&self, request: Request<Full<Bytes>>) -> hyper::Result<(http::Response<Incoming>, Connection)> {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = Connection(tokio::spawn(async { drop(connection.await) }));
        Ok((sender.send_request(request).await?, connection))
    }

    async fn bill(&self, api: Api, model: &str) -> Tally {
        self.simulator.until(|state| state.open == 0).await;
        self.simulator.bill().line(api, model).expect("it was called").tokens
    }
}

/// A client's connection: closed when it is dropped.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    fn bytes(&self) -> Vec<u8> {
        self.frames.concat()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("text")
    }

    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.bytes()).expect("JSON")
    }

    /// The data of the events, `[DONE]` as text.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream; charset=utf-8");
        let text = self.text();
        let data = text.split("\n\n").filter_map(|event| event.split_once("data: ").map(|(_, data)| data));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
    }

    /// The documents of a stream of lines.
    fn lines(&self, kind: &str) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], kind);
        self.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line))).collect()
    }

    fn types(&self) -> Vec<String> {
        let mut types: Vec<_> =
            self.events().iter().map(|event| event["type"].as_str().unwrap_or("").to_owned()).collect();
        types.dedup();
        types
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

fn chat(stream: bool) -> Value {
    json!({
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "Hello, how are you?"}],
        "stream": stream,
        "stream_options": {"include_usage": stream},
    })
}

fn message(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-5-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "Hello, how are you?"}],
        "stream": stream,
    })
}

fn cohere(stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "Hello, how are you?"}]);
    json!({"model": "command-a-03-2025", "messages": messages, "stream": stream})
}

fn cohere_v1(stream: bool) -> Value {
    json!({"model": "command-r-08-2024", "message": "Hello, how are you?", "stream": stream})
}

fn ollama(stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "Hello, how are you?"}]);
    json!({"model": "llama3.2", "messages": messages, "stream": stream})
}

fn weather_tool() -> Value {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!({"name": "get_weather", "parameters": schema, "input_schema": schema})
}

#[tokio::test]
async fn a_chat_says_the_same_streamed_and_whole_and_is_charged_what_it_reports() {
    let served = instant().await;
    let whole = served.post(CHAT, &chat(false), "").await;
    let events = served.post(CHAT, &chat(true), "").await.events();
    let body = whole.json();

    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    for header in ["x-request-id", "openai-organization", "openai-processing-ms", "x-ratelimit-remaining-requests"] {
        assert!(!whole.header(header).is_empty(), "{header}");
    }
    let usage = &body["usage"];
    let count = |name: &str| usage[name].as_u64().expect("a count");
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));

    let spoken: String = events.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(body["choices"][0]["message"]["content"], spoken);
    let [.., finish, last, done] = events.as_slice() else { panic!("too few events") };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), usage));
    assert_eq!(done, "[DONE]");
    assert!(events.iter().all(|chunk| chunk == "[DONE]" || chunk["id"] == body["id"] || chunk["id"].is_string()));

    let charged = served.bill(Api::OpenAi, "gpt-5").await;
    assert_eq!((charged.input, charged.output), (2 * count("prompt_tokens"), 2 * count("completion_tokens")));
}

fn generate() -> Value {
    json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": true}},
        "cachedContent": "cachedContents/test",
    })
}

fn spoken(chunks: &[Value]) -> String {
    let parts = chunks.iter().filter_map(|chunk| chunk["candidates"][0]["content"]["parts"].as_array()).flatten();
    parts.filter_map(|part| part["text"].as_str()).collect()
}

#[tokio::test]
async fn generated_content_says_and_charges_the_same_in_all_three_forms() {
    let served = instant().await;
    let whole = served.post(GENERATE, &generate(), "").await.json();
    let events = served.post(&format!("{STREAM}?alt=sse"), &generate(), "").await;
    assert!(events.text().ends_with("}\r\n\r\n"));
    let events: Vec<Value> = events
        .text()
        .split("\r\n\r\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    let array = served.post(STREAM, &generate(), "").await;
    assert_eq!(array.headers["content-type"], "application/json; charset=UTF-8");
    let array: Vec<Value> = serde_json::from_slice(&array.bytes()).expect("an array");
    assert_eq!(events, array);
    assert_eq!(spoken(&events), spoken(std::slice::from_ref(&whole)));

    let usage = &whole["usageMetadata"];
    assert_eq!(&events.last().expect("chunks")["usageMetadata"], usage);
    assert_eq!(events[0]["usageMetadata"]["promptTokenCount"], usage["promptTokenCount"]);
    assert!(events[0]["usageMetadata"].get("candidatesTokenCount").is_none(), "on the way only the prompt is counted");
    let count = |name: &str| usage[name].as_u64().expect("a count");
    let charged = served.bill(Api::Gemini, "gemini-2.5-flash").await;
    let expected = Tally {
        input: 3 * count("promptTokenCount"),
        cached: 3 * count("cachedContentTokenCount"),
        output: 3 * (count("candidatesTokenCount") + count("thoughtsTokenCount")),
        reasoning: 3 * count("thoughtsTokenCount"),
        ..Tally::default()
    };
    assert_eq!(charged, expected);
}

#[tokio::test]
async fn a_stream_of_generated_content_fails_in_its_own_framing() {
    let served = instant().await;
    let unclosed = served.post(STREAM, &generate(), "no-done").await.bytes();
    assert!(serde_json::from_slice::<Value>(&unclosed).is_err(), "without its bracket");
    for script in ["stream-error=after 0 chunks", "stream-error=after 2 chunks"] {
        let failed: Vec<Value> =
            serde_json::from_slice(&served.post(STREAM, &generate(), script).await.bytes()).expect("an array");
        assert_eq!(failed.last().expect("an element")["error"]["status"], "UNAVAILABLE", "{script}");
    }
    let refused = served.post(STREAM, &generate(), "status=429").await;
    assert_eq!(refused.json()["error"]["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(served.simulator.bill().line(Api::Gemini, "gemini-2.5-flash").map(|line| line.failures), Some(1));
}

#[tokio::test]
async fn equal_calls_get_equal_bytes() {
    let served = instant().await;
    for (path, body) in [
        (CHAT, chat(false)),
        (CHAT, chat(true)),
        (RESPONSES, json!({"model": "gpt-5", "input": "Hello"})),
        (MESSAGES, message(true)),
        ("/v1/embeddings", json!({"model": "text-embedding-3-small", "input": "Hello"})),
        (COHERE_CHAT, cohere(true)),
        (COHERE_CHAT_V1, cohere_v1(true)),
        ("/v2/embed", json!({"model": "embed-v4.0", "texts": ["Hello"]})),
        ("/v2/rerank", json!({"model": "rerank-v3.5", "query": "Hello", "documents": ["a", "b"]})),
        (OLLAMA_CHAT, ollama(true)),
        ("/api/generate", json!({"model": "llama3.2", "prompt": "Hello"})),
        ("/api/embed", json!({"model": "all-minilm", "input": "Hello"})),
    ] {
        let (first, second) = (served.post(path, &body, "").await, served.post(path, &body, "").await);
        assert_eq!(first.bytes(), second.bytes(), "{path}");
    }
}

#[tokio::test]
async fn a_response_streams_its_events_in_order() {
    let served = instant().await;
    let body = json!({
        "model": "gpt-5",
        "input": "Hello",
        "stream": true,
        "reasoning": {"effort": "low", "summary": "auto"},
    });
    let answer = served.post(RESPONSES, &body, "").await;
    assert_eq!(
        answer.types(),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let events = answer.events();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let usage = &events.last().expect("events")["response"]["usage"];
    assert!(usage["output_tokens_details"]["reasoning_tokens"].as_u64() > Some(0));
    let charged = served.bill(Api::OpenAi, "gpt-5").await;
    assert_eq!(usage["output_tokens"], charged.output);
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], charged.reasoning);
}

#[tokio::test]
async fn a_message_streams_its_events_in_order() {
    let served = instant().await;
    let mut body = message(true);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let answer = served.post(MESSAGES, &body, "").await;
    assert_eq!(
        answer.types(),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    for header in ["request-id", "anthropic-organization-id", "anthropic-ratelimit-tokens-reset"] {
        assert!(!answer.header(header).is_empty(), "{header}");
    }
    let events = answer.events();
    let ended = events.iter().find(|event| event["type"] == "message_delta").expect("an end");
    let charged = served.bill(Api::Anthropic, "claude-sonnet-5-5").await;
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], charged.input);
    assert_eq!(ended["usage"]["output_tokens"], charged.output);
    assert_eq!(ended["usage"]["output_tokens_details"]["thinking_tokens"], charged.reasoning);
    assert_eq!(ended["delta"]["stop_reason"], "end_turn");
}

#[tokio::test]
async fn tools_are_called_in_the_words_of_each_api() {
    let served = instant().await;
    let tool = weather_tool();
    let mut body = chat(false);
    body["tools"] = json!([{"type": "function", "function": tool}]);
    body["tool_choice"] = json!("required");
    let choice = &served.post(CHAT, &body, "").await.json()["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!((&function["name"], &function["arguments"]), (&json!("get_weather"), &json!(r#"{"city":"Paris"}"#)));

    body["stream"] = json!(true);
    let events = served.post(CHAT, &body, "").await.events();
    let arguments = |chunk: &Value| {
        chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str().map(str::to_owned)
    };
    assert_eq!(events.iter().filter_map(arguments).collect::<String>(), r#"{"city":"Paris"}"#);

    let mut tool_of_responses = tool.clone();
    tool_of_responses["type"] = json!("function");
    let asked = json!({"model": "gpt-5", "input": "The weather in Paris?", "tools": [tool_of_responses]});
    let output = &served.post(RESPONSES, &asked, "").await.json()["output"][0];
    assert_eq!((&output["type"], &output["name"]), (&json!("function_call"), &json!("get_weather")));

    let mut body = message(false);
    body["tools"] = json!([tool]);
    body["tool_choice"] = json!({"type": "tool", "name": "get_weather"});
    let answer = served.post(MESSAGES, &body, "").await.json();
    assert_eq!(answer["stop_reason"], "tool_use");
    assert_eq!(answer["content"][0]["input"], json!({"city": "Paris"}));
}

#[tokio::test]
async fn structured_answers_match_their_schema() {
    let served = instant().await;
    let schema = json!({"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
    let mut body = chat(false);
    for (format, member) in [(format, "done"), (json!({"type": "json_object"}), "approved")] {
        body["response_format"] = format;
        let answer = served.post(CHAT, &body, "").await.json();
        let content = answer["choices"][0]["message"]["content"].as_str().expect("text");
        let content: Value = serde_json::from_str(content).expect("JSON");
        assert!(content[member].is_boolean(), "{content}");
    }
}

#[tokio::test]
async fn answers_end_where_they_must() {
    let served = instant().await;
    let mut body = chat(false);
    body["max_tokens"] = json!(5);
    body["n"] = json!(3);
    let answer = served.post(CHAT, &body, "").await.json();
    assert_eq!(answer["choices"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer["choices"][2]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 15);

    let asked = json!({"model": "gpt-5", "input": "Hello", "max_output_tokens": 5, "stream": true});
    let last = served.post(RESPONSES, &asked, "").await.events().pop().expect("events");
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");

    let mut body = message(false);
    body["max_tokens"] = json!(5);
    assert_eq!(served.post(MESSAGES, &body, "").await.json()["stop_reason"], "max_tokens");

    let legacy = json!({"model": "gpt-3.5-turbo-instruct", "prompt": "Once", "max_tokens": 5, "stream": true});
    let events = served.post("/v1/completions", &legacy, "").await.events();
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn embeddings_moderations_counts_and_models_have_their_shapes() {
    let served = instant().await;
    let mut body = json!({"model": "text-embedding-3-small", "input": ["one two", "three"], "dimensions": 8});
    let floats = served.post("/v1/embeddings", &body, "").await.json();
    assert_eq!(floats["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    body["encoding_format"] = json!("base64");
    let encoded = served.post("/v1/embeddings", &body, "").await.json();
    let text = encoded["data"][1]["embedding"].as_str().expect("base64");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    let numbers: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect();
    assert_eq!(floats["data"][1]["embedding"], json!(numbers));

    let moderated = served.post("/v1/moderations", &json!({"input": ["Hello", "I kill it"]}), "").await.json();
    assert_eq!(
        (&moderated["results"][0]["flagged"], &moderated["results"][1]["flagged"]),
        (&json!(false), &json!(true))
    );

    let counted = served.post("/v1/messages/count_tokens", &message(false), "").await.json();
    let told = served.post(MESSAGES, &message(false), "").await.json();
    assert_eq!(counted["input_tokens"], told["usage"]["input_tokens"]);
    let asked = json!({"model": "gpt-5", "input": "Hello"});
    let counted = served.post("/v1/responses/input_tokens", &asked, "").await.json();
    assert_eq!(counted["input_tokens"], served.post(RESPONSES, &asked, "").await.json()["usage"]["input_tokens"]);

    assert_eq!(served.get("/v1/models").await["object"], "list");
    assert_eq!(served.get("/v1/models/gpt-5").await["id"], "gpt-5");
}

#[tokio::test]
async fn what_is_marked_for_caching_is_written_then_read() {
    let served = instant().await;
    let mut body = message(true);
    body["system"] = json!([{
        "type": "text",
        "text": "word ".repeat(1500),
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }]);
    let first = &served.post(MESSAGES, &body, "").await.events()[0]["message"]["usage"];
    let second = &served.post(MESSAGES, &body, "").await.events()[0]["message"]["usage"];
    assert_eq!(first["cache_creation"]["ephemeral_1h_input_tokens"], first["cache_creation_input_tokens"]);
    assert!(first["cache_creation_input_tokens"].as_u64() > Some(1024));
    assert_eq!(second["cache_read_input_tokens"], first["cache_creation_input_tokens"]);
    assert_eq!(second["cache_creation_input_tokens"], 0);
    assert_eq!(first["input_tokens"], second["input_tokens"]);
}

#[tokio::test]
async fn refusals_are_worded_by_the_api_that_is_called() {
    let served = instant().await;
    let nope = |mut body: Value| {
        body["model"] = json!("nope-1");
        body
    };
    for (path, body, script, status, kind) in [
        (CHAT, json!({"messages": []}), "", 400, "invalid_request_error"),
        (CHAT, nope(chat(true)), "", 404, "invalid_request_error"),
        (CHAT, json!("not an object"), "", 400, "invalid_request_error"),
        (CHAT, chat(false), "status=429", 429, "requests"),
        (CHAT, chat(true), "status=503", 503, "server_error"),
        ("/v1/nothing", json!({}), "", 404, "invalid_request_error"),
        (RESPONSES, json!({"model": "gpt-5"}), "", 400, "invalid_request_error"),
        (MESSAGES, nope(message(false)), "", 404, "not_found_error"),
        (MESSAGES, json!({"model": "c", "messages": [{}]}), "", 400, "invalid_request_error"),
        (MESSAGES, message(false), "status=429", 429, "rate_limit_error"),
        (MESSAGES, message(true), "status=529", 529, "overloaded_error"),
        (MESSAGES, message(true), "status=500", 500, "api_error"),
    ] {
        let answer = served.post(path, &body, script).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {script}");
        assert_eq!(answer.json()["error"]["type"], kind, "{path} {script}");
    }
    let answer = served.send(request(Method::GET, CHAT, b"", "")).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let answer = served.send(request(Method::POST, CHAT, b"{\"model\":", "")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(served.simulator.bill().tokens(), Tally::default(), "refusals are free");
}

#[tokio::test]
async fn without_a_credential_nothing_is_answered() {
    let served = instant().await;
    for (path, name, value, status) in [
        (CHAT, "authorization", "Bearer", 401),
        (CHAT, "authorization", "Basic abc", 401),
        (CHAT, "x-api-key", "sk-ant", 401),
        (MESSAGES, "x-api-key", "", 401),
        (MESSAGES, "x-api-key", "sk-ant", 200),
        (MESSAGES, "authorization", "Bearer sk-ant", 200),
    ] {
        let body = if path == CHAT { chat(false) } else { message(false) };
        let mut request = request(Method::POST, path, body.to_string().as_bytes(), "");
        request.headers_mut().remove("authorization");
        request.headers_mut().insert(name, value.parse().expect("a value"));
        assert_eq!(served.send(request).await.status.as_u16(), status, "{path} {name} {value}");
    }
}

#[tokio::test]
async fn a_script_that_cannot_be_followed_is_refused_with_the_known_words() {
    let served = instant().await;
    for path in [CHAT, MESSAGES] {
        let answer = served.post(path, &json!({}), "explode").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let message = answer.json()["error"]["message"].as_str().expect("text").to_owned();
        assert!(message.contains("explode") && message.contains("stream-error"), "{message}");
    }
}

#[tokio::test]
async fn a_cohere_chat_says_the_same_streamed_and_whole_and_is_charged_what_it_bills() {
    let served = instant().await;
    let whole = served.post(COHERE_CHAT, &cohere(false), "").await;
    let events = served.post(COHERE_CHAT, &cohere(true), "").await.events();
    let body = whole.json();
    assert_eq!((&body["finish_reason"], whole.header("x-debug-trace-id").is_empty()), (&json!("COMPLETE"), false));
    let pieces = events.iter().filter_map(|event| event["delta"]["message"]["content"]["text"].as_str());
    assert_eq!(body["message"]["content"][0]["text"], pieces.collect::<String>());
    let [.., end, done] = events.as_slice() else { panic!("too few events") };
    assert_eq!((&end["type"], &end["delta"]["usage"], done), (&json!("message-end"), &body["usage"], &json!("[DONE]")));
    let billed = |name: &str| body["usage"]["billed_units"][name].as_u64().expect("a count");
    assert!(
        body["usage"]["tokens"]["input_tokens"].as_u64() > Some(billed("input_tokens")),
        "the template is not billed"
    );
    let charged = served.bill(Api::Cohere, "command-a-03-2025").await;
    assert_eq!((charged.input, charged.output), (2 * billed("input_tokens"), 2 * billed("output_tokens")));
}

#[tokio::test]
async fn the_first_version_of_cohere_streams_lines() {
    let served = instant().await;
    let whole = served.post(COHERE_CHAT_V1, &cohere_v1(false), "").await.json();
    let lines = served.post(COHERE_CHAT_V1, &cohere_v1(true), "").await.lines("application/stream+json");
    let pieces = lines.iter().filter(|line| line["event_type"] == "text-generation");
    assert_eq!(whole["text"], pieces.filter_map(|line| line["text"].as_str()).collect::<String>());
    let end = lines.last().expect("lines");
    assert_eq!((&end["event_type"], &end["response"]), (&json!("stream-end"), &whole));
    let billed = whole["meta"]["billed_units"]["output_tokens"].as_u64().expect("a count");
    assert_eq!(served.bill(Api::Cohere, "command-r-08-2024").await.output, 2 * billed);
}

#[tokio::test]
async fn ollama_streams_unless_told_not_to_and_is_charged_what_it_counts() {
    let served = instant().await;
    let whole = served.post(OLLAMA_CHAT, &ollama(false), "").await.json();
    let unasked = json!({"model": "llama3.2", "messages": [{"role": "user", "content": "Hello, how are you?"}]});
    let lines = served.post(OLLAMA_CHAT, &unasked, "").await.lines("application/x-ndjson");
    let pieces = lines.iter().filter_map(|line| line["message"]["content"].as_str());
    assert_eq!(whole["message"]["content"], pieces.collect::<String>());
    let end = lines.last().expect("lines");
    assert_eq!((&end["done"], &end["done_reason"]), (&json!(true), &json!("stop")));
    for count in ["prompt_eval_count", "eval_count"] {
        assert_eq!((end[count].is_u64(), &end[count]), (true, &whole[count]), "{count}");
    }
    let charged = served.bill(Api::Ollama, "llama3.2").await;
    assert_eq!(Some(charged.output), whole["eval_count"].as_u64().map(|count| 2 * count));

    let generated = served.post("/api/generate", &json!({"model": "m", "prompt": "Hello", "stream": false}), "").await;
    assert!(generated.json()["response"].as_str().is_some_and(|text| !text.is_empty()));
    let thought = served.post("/api/generate", &json!({"model": "m", "prompt": "Hello", "think": true}), "").await;
    assert!(thought.lines("application/x-ndjson")[0]["thinking"].is_string());
}

#[tokio::test]
async fn tools_are_called_in_every_native_format() {
    let served = instant().await;
    let asked = json!([{"role": "user", "content": "What is the weather in Ulm?"}]);
    let tools = json!([{"type": "function", "function": weather_tool()}]);
    for stream in [false, true] {
        let body = json!({"model": "m", "messages": asked, "tools": tools, "stream": stream});
        let cohere = served.post(COHERE_CHAT, &body, "").await.text();
        assert!(cohere.contains("get_weather") && cohere.contains("TOOL_CALL"), "{cohere}");
        let ollama = served.post(OLLAMA_CHAT, &body, "").await.text();
        assert!(ollama.contains(r#""tool_calls""#) && ollama.contains(r#""arguments":{"city":"#), "{ollama}");
        let tool = json!({"name": "get_weather", "parameter_definitions": {"city": {"type": "str", "required": true}}});
        let body = json!({"model": "m", "message": "What is the weather in Ulm?", "tools": [tool], "stream": stream});
        let first = served.post(COHERE_CHAT_V1, &body, "").await.text();
        assert!(first.contains(r#""tool_calls":[{"name":"get_weather","parameters":{"city":"#), "{first}");
    }
}

#[tokio::test]
async fn documents_are_ranked_by_the_words_they_share_and_billed_by_searches() {
    let served = instant().await;
    let documents = json!(["bake bread with rye", "the capital of France is Paris"]);
    let body =
        json!({"model": "rerank-v3.5", "query": "what is the capital of France", "documents": documents, "top_n": 1});
    let reply = served.post("/v2/rerank", &body, "").await.json();
    assert_eq!((&reply["results"][0]["index"], reply["results"].as_array().map(Vec::len)), (&json!(1), Some(1)));
    assert_eq!(reply["meta"]["billed_units"], json!({"search_units": 1}));
    assert_eq!(served.bill(Api::Cohere, "rerank-v3.5").await, Tally::default());
}

#[tokio::test]
async fn native_streams_break_in_the_ways_they_are_told_to() {
    let served = instant().await;
    for (path, body, end, failure) in [
        (COHERE_CHAT, cohere(true), "[DONE]", r#""finish_reason":"ERROR""#),
        (COHERE_CHAT_V1, cohere_v1(true), r#""finish_reason":"COMPLETE""#, r#""finish_reason":"ERROR""#),
        (OLLAMA_CHAT, ollama(true), r#""done":true"#, r#"{"error":"#),
    ] {
        assert!(served.post(path, &body, "").await.text().contains(end), "{path}");
        let unmarked = served.post(path, &body, "no-done").await;
        assert!(unmarked.complete && !unmarked.text().contains(end), "{path}");
        let failed = served.post(path, &body, "stream-error=after 3 chunks").await.text();
        assert!(failed.contains(failure) && !failed.contains(end), "{path}: {failed}");
        let garbled = served.post(path, &body, "bad-json").await.text();
        assert_eq!(garbled.lines().filter(|line| line.ends_with(r#"{"id": "#)).count(), 1, "{path}");
        let silent = served.post(path, &body, "no-usage").await.text();
        assert!(!silent.contains("input_tokens") && !silent.contains("eval_count"), "{path}: {silent}");
        assert!(!served.post(path, &body, "cut=after 3 chunks").await.complete, "{path}");
    }
}

#[tokio::test]
async fn refusals_are_in_the_words_of_the_native_apis() {
    let served = instant().await;
    for (path, body, script, status, member) in [
        (COHERE_CHAT, cohere(false), "status=429", 429, "message"),
        (COHERE_CHAT, json!({"model": "m"}), "", 400, "message"),
        ("/v2/nothing", json!({}), "", 404, "message"),
        (OLLAMA_CHAT, ollama(false), "status=500", 500, "error"),
        (OLLAMA_CHAT, json!({"model": "nope-1", "messages": []}), "", 404, "error"),
        ("/api/nothing", json!({}), "", 404, "error"),
    ] {
        let answer = served.post(path, &body, script).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(answer.json()[member].is_string(), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_scripted_status_brings_its_retry_headers() {
    let served = instant().await;
    let answer = served.post(CHAT, &chat(false), "status=429; retry-after=2; retry-after-ms=1500").await;
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), ("2", "1500"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "0");
    let bill = served.simulator.bill();
    let line = bill.line(Api::OpenAi, "gpt-5").expect("it was called");
    assert_eq!((line.requests, line.failures, line.tokens), (1, 1, Tally::default()));
}

#[tokio::test]
async fn scripted_usage_is_reported_and_charged() {
    let served = instant().await;
    let script = "usage=input:100,cached:40,cache-write:10,cache-write-long:5,output:7,reasoning:3";
    let told = Tally {
        input: 100,
        cached: 40,
        cache_write_short: 10,
        cache_write_long: 5,
        output: 7,
        reasoning: 3,
        ..Tally::NOTHING
    };

    let usage = &served.post(CHAT, &chat(false), script).await.json()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(100), &json!(7)));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 40);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(served.bill(Api::OpenAi, "gpt-5").await, told);

    let asked = json!({"model": "o3", "input": "Hello", "stream": true});
    let last = served.post(RESPONSES, &asked, script).await.events().pop().expect("events");
    assert_eq!(last["response"]["usage"]["total_tokens"], 107);
    assert_eq!(served.bill(Api::OpenAi, "o3").await, told);

    let usage = &served.post(MESSAGES, &message(false), script).await.json()["usage"];
    assert_eq!(usage["input_tokens"], 45, "Anthropic counts apart what is cached and written");
    assert_eq!(usage["cache_creation_input_tokens"], 15);
    assert_eq!(usage["cache_creation"]["ephemeral_5m_input_tokens"], 10);
    assert_eq!(served.bill(Api::Anthropic, "claude-sonnet-5-5").await, told);
}

#[tokio::test]
async fn usage_is_said_or_kept_back_as_scripted() {
    let served = instant().await;
    let mut unasked = chat(true);
    unasked["stream_options"] = Value::Null;
    let speaks = |answer: &Answer| answer.text().contains("prompt_tokens");
    assert!(!speaks(&served.post(CHAT, &unasked, "").await));
    assert!(speaks(&served.post(CHAT, &unasked, "usage-always").await));
    assert!(speaks(&served.post(CHAT, &chat(true), "").await));
    for (path, body) in [
        (CHAT, chat(false)),
        (CHAT, chat(true)),
        (RESPONSES, json!({"model": "gpt-5", "input": "Hello"})),
        (MESSAGES, message(false)),
        (MESSAGES, message(true)),
    ] {
        let text = served.post(path, &body, "no-usage").await.text();
        assert!(!text.contains("\"prompt_tokens\"") && !text.contains("\"input_tokens\""), "{path}: {text}");
    }
    assert!(served.bill(Api::OpenAi, "gpt-5").await.output > 0, "what is not said is charged all the same");
}

#[tokio::test]
async fn a_cut_body_ends_without_its_end() {
    let served = instant().await;
    let answer = served.post(CHAT, &chat(true), "cut=after 11 chunks").await;
    assert!(!answer.complete);
    assert_eq!(answer.events().len(), 11);
    let state = served.simulator.until(|state| state.open == 0).await;
    assert_eq!(state, State { received: 1, broken: 1, ..State::default() });
    // The first chunk only says who speaks: ten tokens or so were handed out.
    let charged = served.bill(Api::OpenAi, "gpt-5").await;
    assert!((5..=15).contains(&charged.output), "{charged:?}");

    let whole = served.post(CHAT, &chat(false), "").await.bytes();
    for (script, length) in [("cut", whole.len() / 2), ("cut=after 100 bytes", 100)] {
        let answer = served.post(CHAT, &chat(false), script).await;
        assert!(!answer.complete, "{script}");
        assert_eq!(answer.bytes(), whole[..length], "{script}");
    }
}

#[tokio::test]
async fn a_stalled_body_waits_for_the_client_to_hang_up() {
    let served = instant().await;
    let request = request(Method::POST, MESSAGES, message(true).to_string().as_bytes(), "stall=after 4 chunks");
    let (mut response, connection) = served.begin(request).await.expect("a head");
    let mut seen = 0;
    while seen < 4 {
        let frame = response.body_mut().frame().await.expect("more to come").expect("no error yet");
        seen += String::from_utf8_lossy(&frame.into_data().unwrap_or_default()).matches("event: ").count();
    }
    assert_eq!(served.simulator.state(), State { received: 1, open: 1, ..State::default() });
    drop((response, connection));
    let state = served.simulator.until(|state| state.hung_up > 0).await;
    assert_eq!(state, State { received: 1, hung_up: 1, ..State::default() });
    let bill = served.simulator.bill();
    let line = bill.line(Api::Anthropic, "claude-sonnet-5-5").expect("it was called");
    assert_eq!(line.broken_off, 1);
    assert!(line.tokens.input > 0 && line.tokens.output < 10, "{line:?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_head_is_noticed() {
    let served = instant().await;
    for script in ["slow-headers=1h", "latency=1h"] {
        let request = request(Method::POST, CHAT, chat(false).to_string().as_bytes(), script);
        let before = served.simulator.state().hung_up;
        tokio::select! {
            _ = served.begin(request) => panic!("answered too early"),
            _ = served.simulator.until(|state| state.open == 1) => {}
        }
        // The connection went with the future that held it.
        assert_eq!(served.simulator.until(|state| state.open == 0).await.hung_up, before + 1, "{script}");
    }
}

#[tokio::test]
async fn a_reset_comes_before_any_head() {
    let served = instant().await;
    let request = request(Method::POST, CHAT, chat(false).to_string().as_bytes(), "reset");
    let error = served.begin(request).await.map(|_| ()).expect_err("a reset");
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    assert_eq!(cause.map(std::io::Error::kind), Some(std::io::ErrorKind::ConnectionReset), "{error:?}");
    assert_eq!(served.simulator.until(|state| state.open == 0).await.broken, 1);
    let charged = served.bill(Api::OpenAi, "gpt-5").await;
    assert!(charged.input > 0 && charged.output == 0, "{charged:?}");
}

#[tokio::test]
async fn a_trickle_is_the_same_byte_by_byte() {
    let served = instant().await;
    let whole = served.post(CHAT, &chat(true), "").await.bytes();
    let trickle = served.post(CHAT, &chat(true), "trickle").await;
    assert!(trickle.frames.iter().all(|frame| frame.len() == 1));
    assert_eq!(trickle.bytes(), whole);
    assert_eq!(served.simulator.until(|state| state.open == 0).await.finished, 2);
}

#[tokio::test]
async fn compressed_bodies_hold_the_same() {
    let served = instant().await;
    for stream in [false, true] {
        let plain = served.post(CHAT, &chat(stream), "").await.bytes();
        let packed = served.post(CHAT, &chat(stream), "gzip").await;
        assert_eq!(packed.header("content-encoding"), "gzip");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.bytes().as_slice()).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain);
        // Each event can be read as soon as it has come.
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        decoder.write_all(&packed.frames[0]).expect("gzip");
        decoder.flush().expect("gzip");
        assert!(decoder.get_ref().ends_with(if stream { b"\n\n" } else { b"}" }));
    }
    let mut request = request(Method::POST, CHAT, chat(false).to_string().as_bytes(), "gzip");
    request.headers_mut().remove("accept-encoding");
    assert_eq!(served.send(request).await.header("content-encoding"), "", "only for who accepts it");
}

#[tokio::test]
async fn streams_break_in_the_ways_they_are_told_to() {
    let served = instant().await;
    let responses = json!({"model": "gpt-5", "input": "Hello", "stream": true});
    for (path, body, end, failure) in [
        (CHAT, chat(true), "[DONE]", "server_error"),
        (RESPONSES, responses, "response.completed", "\"type\":\"error\""),
        (MESSAGES, message(true), "message_stop", "overloaded_error"),
    ] {
        assert!(served.post(path, &body, "").await.text().contains(end), "{path}");
        let unmarked = served.post(path, &body, "no-done").await;
        assert!(unmarked.complete && !unmarked.text().contains(end), "{path}");
        let failed = served.post(path, &body, "stream-error=after 3 chunks").await;
        assert!(failed.complete && !failed.text().contains(end), "{path}");
        assert_eq!(failed.events().len(), 4, "{path}");
        assert!(failed.text().contains(failure), "{path}");
        let garbled = served.post(path, &body, "bad-json").await;
        assert_eq!(garbled.events().iter().filter(|event| *event == "{\"id\": ").count(), 1, "{path}");
        let garbled = served
            .post(
                path,
                &{
                    let mut body = body;
                    body["stream"] = json!(false);
                    body
                },
                "bad-json",
            )
            .await;
        assert!(garbled.complete && serde_json::from_slice::<Value>(&garbled.bytes()).is_err(), "{path}");
    }
    assert_eq!(served.simulator.until(|state| state.open == 0).await.broken, 3);
}

#[tokio::test]
async fn answers_take_the_time_they_are_told_to() {
    let served = instant().await;
    for (stream, script) in [(false, "latency=30ms"), (true, "latency=30ms"), (true, "slow-headers=30ms")] {
        let began = Instant::now();
        served.post(CHAT, &chat(stream), script).await;
        assert!(began.elapsed() >= Duration::from_millis(30), "{script}");
    }
    let began = Instant::now();
    let events = served.post(CHAT, &chat(true), "chunk-delay=1ms").await.events().len();
    assert!(began.elapsed() >= Duration::from_millis(events as u64 - 1));
}

#[tokio::test]
async fn mishaps_strike_some_calls_and_a_retry_helps() {
    let served = serve(Simulator::new(Pace::instant()).with_mishaps(0.3)).await;
    let mut statuses = Vec::new();
    for _ in 0..100 {
        statuses.push(served.post(CHAT, &chat(false), "canned").await.status.as_u16());
    }
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert!((15..45).contains(&(count(429) + count(500))), "{statuses:?}");
    assert!(count(429) > count(500) && count(500) > 0, "{statuses:?}");
    assert_eq!(count(200) + count(429) + count(500), 100);
}

#[tokio::test]
async fn canned_replies_are_small_and_exactly_charged() {
    let simulator = Simulator::new(Pace::instant()).with_script("canned".parse().expect("a good script"));
    let served = serve(simulator).await;
    let whole = served.post(CHAT, &chat(false), "").await;
    assert!((1500..1700).contains(&whole.bytes().len()), "{}", whole.bytes().len());
    let streamed = served.post(CHAT, &chat(true), "").await.events();
    let usage = &whole.json()["usage"];
    assert_eq!(&streamed[streamed.len() - 2]["usage"], usage);
    assert_eq!(
        served.bill(Api::OpenAi, "gpt-4o-mini").await.output,
        2 * usage["completion_tokens"].as_u64().expect("one")
    );
    assert_eq!(
        served.post(MESSAGES, &message(false), "").await.json()["usage"]["output_tokens"],
        usage["completion_tokens"]
    );
}

#[tokio::test]
async fn the_books_can_be_read_over_http() {
    let served = instant().await;
    served.post(CHAT, &chat(false), "usage=input:9,output:4").await;
    served.post(CHAT, &json!({}), "").await;
    served.simulator.until(|state| state.open == 0).await;
    let bill = served.get("/simulator/bill").await;
    assert_eq!(bill["lines"][0]["api"], "openai");
    assert_eq!((&bill["lines"][0]["model"], &bill["lines"][0]["input"]), (&json!("gpt-5"), &json!(9)));
    assert_eq!((&bill["lines"][1]["model"], &bill["lines"][1]["failures"]), (&json!(NONE), &json!(1)));
    assert_eq!(served.get("/readyz").await, json!("ok"), "where `weir health` asks; no call of any API");
    let state = served.get("/simulator/state").await;
    assert_eq!(state, json!({"received": 2, "open": 0, "finished": 2, "hung_up": 0, "broken": 0}));
}

#[tokio::test]
async fn it_speaks_http_2_with_prior_knowledge() {
    let served = instant().await;
    let stream = TcpStream::connect(served.address).await.expect("a connection");
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    let connection = tokio::spawn(connection);
    let mut request = request(Method::POST, CHAT, chat(true).to_string().as_bytes(), "");
    *request.uri_mut() = format!("http://{}{CHAT}", served.address).parse().expect("a URI");
    request.headers_mut().remove("host");
    let response = sender.send_request(request).await.expect("an answer");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    drop(sender);
    connection.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let Served { stop, server, .. } = instant().await;
    stop.send(()).expect("it is waiting");
    server.await.expect("no panic");
}

const CLAUDE: &str = "us.anthropic.claude-sonnet-5-5-v1:0";
const LLAMA: &str = "meta.llama3-3-70b-instruct-v1:0";

fn model(id: &str, operation: &str) -> String {
    format!("/model/{}/{operation}", id.replace(':', "%3A"))
}

fn converse(prompt: &str) -> Value {
    json!({"messages": [{"role": "user", "content": [{"text": prompt}]}]})
}

fn native() -> Value {
    let messages = json!([{"role": "user", "content": "Hello, how are you?"}]);
    json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1000, "messages": messages})
}

impl Answer {
    /// The messages of an AWS event stream: what each is called, and what it says. Their checksums must be right.
    fn messages(&self) -> Vec<(String, Value)> {
        assert_eq!(self.headers["content-type"], "application/vnd.amazon.eventstream");
        let (mut decoder, mut messages) = (Decoder::new(1 << 20), Vec::new());
        decoder.push(&self.bytes(), &mut |event| {
            messages.push((event.name.to_owned(), serde_json::from_slice(event.data).expect("JSON")));
        });
        assert!(decoder.is_between_messages() && !decoder.is_broken());
        messages
    }

    /// What is in the chunks of an invoked stream.
    fn chunks(&self) -> Vec<Value> {
        let decode = |(name, chunk): (String, Value)| {
            assert_eq!(name, "chunk");
            let bytes = chunk["bytes"].as_str().expect("text");
            let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).expect("base64");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        self.messages().into_iter().map(decode).collect()
    }
}

#[tokio::test]
async fn converse_says_the_same_streamed_and_whole_and_is_charged_what_it_reports() {
    let served = instant().await;
    let whole = served.post(&model(CLAUDE, "converse"), &converse("Hello, how are you?"), "").await;
    assert!(!whole.header("x-amzn-requestid").is_empty());
    let (body, usage) = (whole.json(), &whole.json()["usage"]);
    let charged = served.bill(Api::Bedrock, CLAUDE).await;
    assert_eq!(
        (usage["inputTokens"].as_u64(), usage["outputTokens"].as_u64()),
        (Some(charged.input), Some(charged.output))
    );

    let streamed =
        served.post(&model(CLAUDE, "converse-stream"), &converse("Hello, how are you?"), "").await.messages();
    let spoken: String = streamed.iter().filter_map(|(_, event)| event["delta"]["text"].as_str()).collect();
    assert_eq!(body["output"]["message"]["content"][0]["text"], spoken);
    let [(first, _), .., (stop, stopped), (last, metadata)] = streamed.as_slice() else { panic!("too few events") };
    assert_eq!([first, stop, last], ["messageStart", "messageStop", "metadata"]);
    assert_eq!((&stopped["stopReason"], &metadata["usage"]), (&body["stopReason"], usage));
}

#[tokio::test]
async fn converse_writes_and_reads_the_prompt_cache_at_its_cache_points() {
    let served = instant().await;
    let mut asked = converse("Hello");
    asked["system"] = json!([{"text": "word ".repeat(2000)}, {"cachePoint": {"type": "default", "ttl": "1h"}}]);
    let first = served.post(&model(CLAUDE, "converse"), &asked, "").await.json()["usage"].clone();
    let second = served.post(&model(CLAUDE, "converse"), &asked, "").await.json()["usage"].clone();
    let written = first["cacheWriteInputTokens"].as_u64().expect("a count");
    assert!(written > 2000, "{written}");
    assert_eq!(first["cacheDetails"], json!([{"ttl": "1h", "inputTokens": written}]));
    assert_eq!((&second["cacheReadInputTokens"], &second["cacheWriteInputTokens"]), (&json!(written), &json!(0)));
    let charged = served.bill(Api::Bedrock, CLAUDE).await;
    assert_eq!((charged.cached, charged.cache_write_long), (written, written));
}

#[tokio::test]
async fn an_invoked_model_answers_in_its_vendors_words_and_bedrock_counts_beside_them() {
    let served = instant().await;
    let whole = served.post(&model(CLAUDE, "invoke"), &native(), "").await;
    let (message, usage) = (whole.json(), whole.json()["usage"].clone());
    assert_eq!(message["type"], "message");
    assert_eq!(whole.header("x-amzn-bedrock-input-token-count"), usage["input_tokens"].to_string());
    assert_eq!(whole.header("x-amzn-bedrock-output-token-count"), usage["output_tokens"].to_string());

    let streamed = served.post(&model(CLAUDE, "invoke-with-response-stream"), &native(), "").await;
    assert_eq!(streamed.header("x-amzn-bedrock-content-type"), "application/json");
    let chunks = streamed.chunks();
    let spoken: String = chunks.iter().filter_map(|chunk| chunk["delta"]["text"].as_str()).collect();
    assert_eq!(message["content"][0]["text"], spoken);
    let last = chunks.last().expect("an event");
    assert_eq!(last["type"], "message_stop");
    assert_eq!(last["amazon-bedrock-invocationMetrics"]["outputTokenCount"], usage["output_tokens"]);

    let asked = json!({"prompt": "Hello"});
    let whole = served.post(&model(LLAMA, "invoke"), &asked, "").await.json();
    let chunks = served.post(&model(LLAMA, "invoke-with-response-stream"), &asked, "").await.chunks();
    let spoken: String = chunks.iter().filter_map(|chunk| chunk["generation"].as_str()).collect();
    assert_eq!(whole["generation"], spoken);
    assert_eq!(chunks.last().expect("an event")["generation_token_count"], whole["generation_token_count"]);
}

#[tokio::test]
async fn bedrock_refuses_in_its_own_words() {
    let served = instant().await;
    for (path, body, script, status, kind) in [
        (model(CLAUDE, "converse"), converse("Hello"), "status=429", 429, "ThrottlingException"),
        (model(CLAUDE, "converse"), json!({}), "", 400, "ValidationException"),
        (model("nope-1", "converse"), converse("Hello"), "", 404, "ResourceNotFoundException"),
        (model("cohere.command-r-v1:0", "invoke"), json!({}), "", 404, "ResourceNotFoundException"),
        (model(CLAUDE, "nothing"), json!({}), "", 404, "UnknownOperationException"),
    ] {
        let refused = served.post(&path, &body, script).await;
        assert_eq!(refused.status.as_u16(), status, "{path}");
        assert!(refused.header("x-amzn-errortype").starts_with(&format!("{kind}:")), "{path}");
    }
    let mut stranger = request(Method::POST, &model(CLAUDE, "converse"), b"{}", "");
    stranger.headers_mut().remove("authorization");
    let refused = served.send(stranger).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.json(), json!({"message": "Missing Authentication Token"}));
    let failed = served
        .post(&model(CLAUDE, "converse-stream"), &converse("Hello"), "stream-error=after 3 chunks")
        .await
        .messages();
    assert_eq!(failed.last().expect("an exception").0, "exception:modelStreamErrorException");
}

#[tokio::test]
async fn a_vendor_has_its_own_paths_and_habits() {
    let served = instant().await;
    let mut unasked = chat(true);
    unasked["stream_options"] = Value::Null;
    let events = async |path: &str| served.post(path, &unasked, "").await.text();
    let finish = |text: &str| -> Value {
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: {")).collect();
        serde_json::from_str(&format!("{{{}", lines.last().expect("a chunk"))).expect("JSON")
    };
    for (path, pointer) in [
        ("/mistral/v1/chat/completions", "/usage/prompt_tokens"),
        ("/groq/openai/v1/chat/completions", "/x_groq/usage/prompt_tokens"),
        ("/deepseek/chat/completions", "/usage/prompt_cache_miss_tokens"),
        ("/openrouter/api/v1/chat/completions", "/usage/cost"),
        ("/perplexity/chat/completions", "/usage/cost/total_cost"),
    ] {
        assert!(finish(&events(path).await).pointer(pointer).is_some(), "{path}");
    }
    assert!(finish(&events(CHAT).await).get("usage").is_none(), "OpenAI's has to be asked");
    let azure = "/azure/openai/deployments/gpt-5/chat/completions?api-version=2025-04-01";
    assert!(events(azure).await.starts_with("data: {\"id\":\"\""), "Azure begins with an empty chunk");
    let whole = served.post("/xai/v1/chat/completions", &chat(false), "").await.json();
    assert_eq!(whole["usage"]["cost_in_usd_ticks"], whole["usage"]["total_tokens"].as_u64().expect("a count") * 10_000);
    assert!(served.post("/deepseek/chat/completions", &chat(false), "").await.text().starts_with("\n\n{"));
}

#[tokio::test]
async fn pictures_speech_and_transcriptions_are_charged_by_their_own_measure() {
    let served = instant().await;
    let picture = json!({"model": "gpt-image-2", "prompt": "a weir", "n": 2});
    let usage = &served.post("/v1/images/generations", &picture, "").await.json()["usage"];
    assert_eq!(usage["output_tokens_details"]["image_tokens"], usage["output_tokens"]);
    assert_eq!(served.bill(Api::OpenAi, "gpt-image-2").await.output, usage["output_tokens"].as_u64().expect("a count"));

    let speech = json!({"model": "tts-1", "input": "Grüße", "voice": "alloy"});
    assert!(served.post("/v1/audio/speech", &speech, "").await.bytes().starts_with(b"ID3"));
    assert_eq!(served.bill(Api::OpenAi, "tts-1").await.characters, 5);

    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\nID3\r\n--b--\r\n";
    let mut asked = request(Method::POST, "/v1/audio/transcriptions", form.as_bytes(), "");
    asked.headers_mut().insert("content-type", "multipart/form-data; boundary=b".parse().expect("a value"));
    assert_eq!(served.send(asked).await.json()["usage"], json!({"type": "duration", "seconds": 1}));
    assert_eq!(served.bill(Api::OpenAi, "whisper-1").await.seconds, 1);
}
