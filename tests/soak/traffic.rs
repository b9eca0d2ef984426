//! Traffic: what the apps ask, of every API that the simulator speaks, and what must come of it. Which call comes next is
//! decided by dice with a seed, so that two soaks ask the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::RwLock;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use weir::simulator::dice::Dice;

use crate::house::{House, HungUp};

/// Most calls at once; while there are so many, the next ones wait.
const MOST_AT_ONCE: usize = if cfg!(debug_assertions) { 64 } else { 192 };
/// How long a call may take: a provider that falls silent is given up by weir long before.
const LONGEST: Duration = Duration::from_mins(2);
/// How many questions are asked again and again.
const REPEATED: u64 = 40;
/// How much of an answer is told that must not be, about.
const BEGINNING: usize = 300;
/// Most outcomes that are told of those that must not be.
const MOST_TOLD: usize = 20;

/// A long prompt, as large as a document.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| "A weir holds back the water of a river. ".repeat(4_000));

/// What must come of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// An answer with this status, to its end.
    End(u16),
    /// An answer, or that weir refuses it.
    EndOrRefuse,
    /// Whatever the provider does.
    Anything,
    /// Nothing: the app hangs up once the answer has begun.
    HangUp,
    /// Nothing: the app hangs up before that.
    HangUpAtOnce,
}

/// One call.
struct Ask {
    model: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Value,
    must: Must,
}

impl Ask {
    fn new(model: &'static str, path: impl Into<String>, body: Value) -> Self {
        let headers = vec![("authorization", "Bearer sk-soak".to_owned())];
        Self { model, path: path.into(), headers, body, must: Must::End(200) }
    }

    fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    fn scripted(self, script: &str) -> Self {
        self.with("x-simulate", script)
    }

    fn must(self, must: Must) -> Self {
        Self { must, ..self }
    }
}

/// Makes calls of one kind.
type Asks = fn(u64, &mut Dice) -> Vec<Ask>;

/// What is asked next: how often, of a hundred, and what, with a number that no other call has.
const ASKS: [(u64, Asks); 12] = [
    (20, chats),
    (8, responses_and_embeddings),
    (12, claudes),
    (6, bedrocks),
    (9, others),
    (9, vendors),
    (14, repeated),
    (3, together),
    (6, faulty),
    (4, refused),
    (6, broken_off),
    (3, documents),
];

const CHAT: &str = "/openai/v1/chat/completions";
const FLAKY: &str = "/flaky/v1/chat/completions";

fn chat(model: &str, prompt: &str, streams: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 64, "stream": streams})
}

/// Something that nobody has asked before.
fn new(number: u64) -> String {
    format!("What is weir number {number}?")
}

fn chats(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let mut body = chat("soak-chat", &new(number), dice.below(2) == 0);
    if body["stream"] == true && dice.below(2) == 0 {
        body["stream_options"] = json!({"include_usage": true});
    }
    let user = format!("user-{}", dice.below(200));
    let ask = Ask::new("soak-chat", CHAT, body).with("x-user-id", user).with("x-agent-id", agent(dice));
    vec![match dice.below(4) {
        // Turns of a conversation.
        0 => {
            ask.with("x-run-id", format!("run-{}", number / 40)).with("x-loop-type", format!("loop-{}", dice.below(5)))
        }
        1 => ask.with("x-cache-namespace", format!("shop-{}", dice.below(5))),
        2 => ask.scripted("latency=100ms; chunk-delay=2ms"),
        _ => ask,
    }]
}

/// A place in a list of so many.
fn choose(from: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(from as u64)).unwrap()
}

fn agent(dice: &mut Dice) -> String {
    format!("agent-{}", dice.below(20))
}

fn responses_and_embeddings(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let body = match dice.below(3) {
        0 => {
            return vec![Ask::new(
                "soak-embed",
                "/openai/v1/embeddings",
                json!({"model": "soak-embed", "input": [new(number), "weir"]}),
            )];
        }
        streams => json!({"model": "soak-responses", "input": new(number), "stream": streams == 1}),
    };
    vec![Ask::new("soak-responses", "/openai/v1/responses", body)]
}

fn claudes(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let body = chat("soak-claude", &new(number), dice.below(2) == 0);
    let ask = match dice.below(4) {
        0 => {
            let method = if body["stream"] == true { "streamRawPredict" } else { "rawPredict" };
            let path =
                format!("/vertex/v1/projects/p/locations/global/publishers/anthropic/models/soak-vertex:{method}");
            let mut body = body;
            body.as_object_mut().unwrap().remove("model");
            body["anthropic_version"] = "vertex-2023-10-16".into();
            Ask::new("soak-vertex", path, body)
        }
        1 => {
            let mut body = body;
            let ttl = if dice.below(2) == 0 { "5m" } else { "1h" };
            let text = format!("Document {}. {}", number / 5, *DOCUMENT);
            body["system"] =
                json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}}]);
            Ask::new("soak-claude", "/anthropic/v1/messages", body)
        }
        _ => Ask::new("soak-claude", "/anthropic/v1/messages", body),
    };
    vec![ask.with("anthropic-version", "2023-06-01").with("x-agent-id", agent(dice))]
}

fn bedrocks(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let operation = if dice.below(2) == 0 { "converse" } else { "converse-stream" };
    let body = json!({"messages": [{"role": "user", "content": [{"text": new(number)}]}]});
    let ask = Ask::new("soak-bedrock", format!("/bedrock/model/soak-bedrock/{operation}"), body);
    // weir signs with an identity of its own.
    vec![Ask { headers: Vec::new(), ..ask }]
}

fn others(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let streams = dice.below(2) == 0;
    vec![match dice.below(4) {
        0 => Ask::new("soak-cohere", "/cohere/v2/chat", chat("soak-cohere", &new(number), streams)),
        1 => Ask::new("soak-ollama", "/ollama/api/chat", chat("soak-ollama", &new(number), streams)),
        2 => Ask::new("soak-free", "/local/v1/chat/completions", chat("soak-free", &new(number), streams)),
        _ => {
            let method = if streams { "streamGenerateContent?alt=sse" } else { "generateContent" };
            let body = json!({"contents": [{"role": "user", "parts": [{"text": new(number)}]}]});
            Ask::new("soak-gemini", format!("/gemini/v1beta/models/soak-gemini:{method}"), body)
        }
    }]
}

fn vendors(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let (model, path) = match dice.below(4) {
        0 => ("soak-azure", "/azure/openai/v1/chat/completions"),
        1 => ("soak-stated", "/openrouter/api/v1/chat/completions"),
        2 => ("soak-vendor", "/groq/openai/v1/chat/completions"),
        _ => ("soak-vendor", "/deepseek/v1/chat/completions"),
    };
    vec![Ask::new(model, path, chat(model, &new(number), dice.below(2) == 0))]
}

/// Answered from the cache, most of the time.
fn repeated(_: u64, dice: &mut Dice) -> Vec<Ask> {
    let prompt = format!("What is weir number {} of them all?", dice.below(REPEATED));
    let ask = Ask::new("soak-repeated", CHAT, chat("soak-repeated", &prompt, dice.below(2) == 0));
    vec![match dice.below(8) {
        0 => ask.with("cache-control", "no-cache"),
        1 => ask.with("cache-control", "no-store"),
        _ => ask,
    }]
}

/// Equal calls at the same time: one of them asks.
fn together(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let streams = dice.below(2) == 0;
    let ask = || {
        Ask::new("soak-repeated", CHAT, chat("soak-repeated", &new(number), streams))
            .scripted("latency=200ms; chunk-delay=5ms")
    };
    (0..=dice.below(3)).map(|_| ask()).collect()
}

/// The provider errs, or is slow, in ways that leave no doubt about the bill.
fn faulty(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let (script, status) = [
        ("status=500", 500),
        ("status=503; retry-after=1", 503),
        ("status=429; retry-after-ms=10", 429),
        ("status=529", 529),
        ("status=400", 400),
        ("slow-headers=1s", 200),
        ("trickle", 200),
        ("gzip", 200),
        ("usage=input:3000,cached:2048,output:70,reasoning:64", 200),
    ][choose(9, dice)];
    let mut body = chat("soak-faulty", &new(number), dice.below(2) == 0);
    if script == "trickle" {
        // A byte at a time is enough of a trial when they are few.
        body["max_tokens"] = 4.into();
        body["stream"] = false.into();
    }
    vec![Ask::new("soak-faulty", CHAT, body).with("accept-encoding", "gzip").scripted(script).must(Must::End(status))]
}

/// More than limits and budgets allow.
fn refused(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let ask = Ask::new("soak-refused", CHAT, chat("soak-refused", &new(number), dice.below(2) == 0));
    let ask = if dice.below(2) == 0 { ask.with("x-agent-id", "greedy") } else { ask.with("x-workspace-id", "spent") };
    vec![ask.must(Must::EndOrRefuse)]
}

/// By the provider, or by the app. What becomes of a stream that the app leaves is decided where it is asked.
fn broken_off(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let scripts =
        ["cut=after 3 chunks", "cut", "reset", "stream-error=after 4 chunks", "bad-json", "no-usage", "no-done"];
    // Where nothing comes for a long time, few may be.
    let script = if dice.below(20) == 0 { "stall=after 3 chunks" } else { scripts[choose(scripts.len(), dice)] };
    let flaky = || Ask::new("cut-short", FLAKY, chat("cut-short", &new(number), true));
    vec![match dice.below(3) {
        0 => flaky().scripted(script).must(Must::Anything),
        1 => flaky().scripted("slow-headers=300ms").must(Must::HangUpAtOnce),
        _ => flaky().scripted("chunk-delay=20ms").must(Must::HangUp),
    }]
}

/// Large bodies.
fn documents(number: u64, dice: &mut Dice) -> Vec<Ask> {
    let mut body = chat("soak-chat", &new(number), dice.below(2) == 0);
    body["messages"] = json!([{"role": "system", "content": *DOCUMENT}, {"role": "user", "content": new(number)}]);
    vec![Ask::new("soak-chat", CHAT, body)]
}

/// Calls that are made until the traffic ends.
pub(crate) struct Traffic(JoinHandle<Made>);

/// What was asked, and what came that must not.
#[derive(Default)]
pub(crate) struct Made {
    calls: BTreeMap<&'static str, u64>,
    waited: u64,
    /// The first few of them.
    unexpected: Vec<String>,
    all_unexpected: u64,
}

/// What came of one call.
type Came = Result<(), String>;
/// What came of calls that were made as one.
type Ended = Vec<(&'static str, Came)>;

impl Traffic {
    pub(crate) fn begin(house: &Arc<House>, hung_up: &Arc<RwLock<HungUp>>, rate: u32, stop: CancellationToken) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        let apps = Apps { house: Arc::clone(house), hung_up: Arc::clone(hung_up), pool };
        Self(tokio::spawn(apps.call(rate, stop)))
    }

    pub(crate) async fn end(self) -> Made {
        self.0.await.expect("traffic does not panic")
    }
}

impl Made {
    pub(crate) fn calls(&self, model: &str) -> u64 {
        self.calls.get(model).copied().unwrap_or_default()
    }

    fn take(&mut self, ended: Option<Result<Ended, JoinError>>) {
        for (model, came) in ended.into_iter().flat_map(|ended| ended.expect("a call does not panic")) {
            *self.calls.entry(model).or_default() += 1;
            let Err(what) = came else { continue };
            self.all_unexpected += 1;
            if self.unexpected.len() < MOST_TOLD {
                self.unexpected.push(format!("{model}: {what}"));
            }
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.unexpected.clone()
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls: u64 = self.calls.values().sum();
        write!(f, "{calls} calls, {} with an outcome that was not expected", self.all_unexpected)?;
        write!(f, "; {} waited for others to end", self.waited)
    }
}

/// The apps.
#[derive(Clone)]
struct Apps {
    house: Arc<House>,
    hung_up: Arc<RwLock<HungUp>>,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

impl Apps {
    /// Makes so many calls a second until `stop`, then waits for the last ones to end.
    async fn call(self, rate: u32, stop: CancellationToken) -> Made {
        let (mut made, mut calls, mut dice) = (Made::default(), JoinSet::new(), Dice::new(1));
        let (mut number, mut next) = (0, Instant::now());
        while !stop.is_cancelled() {
            sleep_until(next).await;
            next = (next + Duration::from_secs(1) / rate).max(Instant::now() - Duration::from_secs(1));
            number += 1;
            match dice.below(100) {
                0 => _ = calls.spawn(self.clone().talk(number)),
                1 | 2 => _ = calls.spawn(self.clone().leave(number)),
                at => {
                    for ask in pick(at, number, &mut dice) {
                        let apps = self.clone();
                        calls.spawn(async move { vec![(ask.model, apps.ask(ask).await)] });
                    }
                }
            }
            made.waited += u64::from(calls.len() >= MOST_AT_ONCE);
            while calls.len() >= MOST_AT_ONCE {
                made.take(calls.join_next().await);
            }
            while let Some(ended) = calls.try_join_next() {
                made.take(Some(ended));
            }
        }
        while !calls.is_empty() {
            made.take(calls.join_next().await);
        }
        made
    }

    /// One call, as it must come out.
    async fn ask(&self, ask: Ask) -> Came {
        let (must, path) = (ask.must, ask.path.clone());
        let came = timeout(LONGEST, self.outcome(ask)).await.unwrap_or_else(|_| Err("it takes too long".to_owned()));
        let statuses: &[u16] = match must {
            Must::Anything | Must::HangUp | Must::HangUpAtOnce => return Ok(()),
            Must::End(status) => &[status],
            Must::EndOrRefuse => &[200, 429],
        };
        came.and_then(|came| came.expect(statuses)).map_err(|what| format!("{path}: {what}"))
    }

    /// The answer, once it has ended.
    async fn outcome(&self, ask: Ask) -> Result<Answer, String> {
        let mut request =
            Request::post(format!("{}{}", self.house.app(), ask.path)).header("content-type", "application/json");
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(ask.body.to_string())).unwrap();
        let asked = self.pool.request(request);
        if ask.must == Must::HangUpAtOnce {
            let _ = timeout(Duration::from_millis(100), asked).await;
            return Err("it hung up".to_owned());
        }
        let answer = asked.await.map_err(|error| format!("no answer: {error:?}"))?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        if ask.must == Must::HangUp {
            let _ = body.frame().await;
            return Err("it hung up".to_owned());
        }
        let mut beginning = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("it broke off: {error:?}"))?;
            if let Some(data) = frame.data_ref().filter(|_| beginning.len() < BEGINNING) {
                beginning.extend_from_slice(data);
            }
        }
        Ok(Answer { status, beginning })
    }

    /// Leaves a stream behind. What becomes of it is what it was when it began: that may not change meanwhile.
    async fn leave(self, number: u64) -> Ended {
        let hung_up = self.hung_up.read().await;
        let (model, path) = match *hung_up {
            HungUp::Drained => ("soak-drained", CHAT),
            HungUp::Cancelled => ("cut-short", FLAKY),
        };
        let ask =
            Ask::new(model, path, chat(model, &new(number), true)).scripted("chunk-delay=10ms").must(Must::HangUp);
        vec![(model, self.ask(ask).await)]
    }

    /// A session: each response is a call.
    async fn talk(self, number: u64) -> Ended {
        let came = timeout(LONGEST, self.session(number, 3)).await;
        let (responses, came) = match came {
            Ok(Ok(())) => (3, Ok(())),
            Ok(Err(what)) => (0, Err(what)),
            Err(_) => (0, Err("a session takes too long".to_owned())),
        };
        let mut all = vec![("soak-realtime", Ok(())); responses];
        all.extend(came.is_err().then_some(("soak-realtime", came)));
        all
    }

    async fn session(&self, number: u64, turns: u64) -> Came {
        let host = self.house.app().trim_start_matches("http://").to_owned();
        let failed = |error: &dyn fmt::Display| error.to_string();
        let connection = TcpStream::connect(&host).await.map_err(|error| failed(&error))?;
        let request = Request::get(format!("ws://{host}/openai/v1/realtime?model=soak-realtime"))
            .header("host", &host)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("authorization", "Bearer sk-soak")
            .body(())
            .unwrap();
        let (mut socket, _) = client_async(request, connection).await.map_err(|error| failed(&error))?;
        let update = json!({"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}});
        socket.send(Message::text(update.to_string())).await.map_err(|error| failed(&error))?;
        for turn in 0..turns {
            let content = json!([{"type": "input_text", "text": format!("{} And {turn}?", new(number))}]);
            let item = json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}});
            for event in [item, json!({"type": "response.create"})] {
                socket.send(Message::text(event.to_string())).await.map_err(|error| failed(&error))?;
            }
            loop {
                let message = socket.next().await.ok_or("the session ended")?.map_err(|error| failed(&error))?;
                if message.to_text().is_ok_and(|text| text.contains("\"response.done\"")) {
                    break;
                }
            }
        }
        socket.close(None).await.map_err(|error| failed(&error))
    }
}

/// The calls at this place of a hundred.
fn pick(mut at: u64, number: u64, dice: &mut Dice) -> Vec<Ask> {
    for (share, asks) in ASKS {
        match at.checked_sub(share) {
            Some(rest) => at = rest,
            None => return asks(number, dice),
        }
    }
    unreachable!("the shares come to a hundred")
}

/// An answer that has ended.
struct Answer {
    status: u16,
    beginning: Vec<u8>,
}

impl Answer {
    fn expect(&self, statuses: &[u16]) -> Came {
        if statuses.contains(&self.status) {
            return Ok(());
        }
        Err(format!("the answer is {}: {}", self.status, String::from_utf8_lossy(&self.beginning)))
    }
}
