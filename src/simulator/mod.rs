//! Simulator: a provider that answers like the real ones, for the demo and for tests.
//!
//! Speaks the APIs of OpenAI, Anthropic, Amazon Bedrock, Cohere, Ollama and Gemini well enough for their official SDKs, counts
//! tokens with a real tokenizer, keeps exact books of what it charges ([`Bill`]), and misbehaves when a call asks for it
//! ([`Script`]). Equal calls get equal bytes. It shares no code with the rooms that read these APIs, so that neither can
//! hide a mistake of the other.
//!
//! Paths: `/v1/chat/completions`, `/v1/completions`, `/v1/responses`, `/v1/responses/input_tokens`,
//! `/v1/embeddings`, `/v1/moderations`, `/v1/images/…`, `/v1/audio/…`, `/v1/batches`, `/v1/messages`,
//! `/v1/messages/count_tokens`, `/v1/models`, `/v1/realtime` (by WebSocket);
//! `/model/{id}/` with `converse`, `converse-stream`, `invoke`, `invoke-with-response-stream` and `count-tokens`, where
//! signatures must be good ([`signature`]); `/v2/chat`, `/v1/chat`, `/v2/embed`, `/v2/rerank`; `/api/chat`,
//! `/api/generate`, `/api/embed`; `…/models/{model}:` with `generateContent`, `streamGenerateContent`, `countTokens`,
//! `embedContent` and `batchEmbedContents`, and `…/publishers/anthropic/models/{model}:` with `rawPredict` and
//! `streamRawPredict`; and its own `/simulator/bill`, `/simulator/state` and `/readyz`. Below `/azure`, `/groq` and other vendors'
//! names it answers on that vendor's paths and has its habits (`vendor`).

mod anthropic;
mod bedrock;
pub mod bill;
mod chat;
mod cohere;
pub mod dice;
mod eventstream;
pub mod faults;
mod gemini;
mod invoke;
mod line;
mod media;
mod memory;
mod mind;
mod ollama;
mod openai;
pub mod pace;
mod playback;
mod realtime;
mod reply;
mod responses;
mod route;
mod schema;
pub mod signature;
mod socket;
mod text;
mod tokens;
mod vendor;

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::response::Builder;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use bill::{Api, Bill, Books, Call, NONE, State, Tally};
use faults::{Mishaps, Oddity, Script};
use line::{Fuse, Line};
use mind::Mind;
use pace::{Pace, Timing};
use playback::{BrokenOff, Playback};
use reply::{Content, Problem, Reply};
use route::{Endpoint, Operation, Route};
use signature::Signed;
use socket::Waiting;
use vendor::Vendor;

/// The largest body of a request it takes: 32 MiB, as Anthropic does.
const MOST_BYTES: usize = 32 << 20;
/// The most connections at once; more wait to be accepted.
const MOST_CONNECTIONS: usize = 4096;
/// How long calls may go on after the simulator was asked to stop.
const GRACE: Duration = Duration::from_secs(1);
/// The requests per minute it claims to allow.
const RATE_LIMIT: u64 = 10_000;

/// A simulated provider. A clone is the same provider.
#[derive(Clone, Debug)]
pub struct Simulator {
    pace: Pace,
    mishaps: Mishaps,
    script: Script,
    mind: Mind,
    books: Books,
    canned: Arc<Canned>,
}

/// Replies that are always the same, made once.
#[derive(Debug)]
struct Canned {
    chat: [Reply; 2],
    messages: [Reply; 2],
}

impl Simulator {
    /// A provider whose models are this fast and which never fails unasked.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        let mind = Mind::new();
        let canned = Canned {
            chat: [false, true].map(|stream| chat::canned(&mind, stream)),
            messages: [false, true].map(anthropic::canned),
        };
        let (mishaps, script) = (Mishaps::default(), Script::default());
        Self { pace, mishaps, script, mind, books: Books::new(), canned: Arc::new(canned) }
    }

    /// Lets this share of calls fail (0.02 are two in a hundred), mostly with 429, sometimes with 500. Which ones is
    /// decided by their number, so that a run can be repeated and a retry can succeed.
    #[must_use]
    pub fn with_mishaps(mut self, share: f64) -> Self {
        self.mishaps = Mishaps::new(share);
        self
    }

    /// Follows this script whenever a call brings none of its own.
    #[must_use]
    pub fn with_script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// What has been charged so far.
    #[must_use]
    pub fn bill(&self) -> Bill {
        self.books.bill()
    }

    /// What has become of the calls so far.
    #[must_use]
    pub fn state(&self) -> State {
        self.books.state()
    }

    /// Waits until the state is as wanted, and returns it. Dropping the future has no effect.
    pub async fn until(&self, ready: impl FnMut(&State) -> bool) -> State {
        self.books.until(ready).await
    }
}

/// Serves `simulator` on `listener` until `shutdown` completes, then lets open calls go on for a second.
///
/// Dropping the future ends it at once, with every connection.
pub async fn run(listener: TcpListener, simulator: Simulator, shutdown: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let closing = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, simulator.clone(), closing.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "simulator cannot accept a connection");
                    sleep(Duration::from_millis(50)).await; // it is usually out of descriptors: let some go
                }
            },
        }
    }
    drop(listener);
    closing.cancel();
    // Those that are not done by then are ended by the drop of their set.
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn serve(stream: TcpStream, simulator: Simulator, closing: CancellationToken) {
    // Without this, small events wait for each other. If it fails they do, and nothing else is wrong.
    let _ = stream.set_nodelay(true);
    let line = Line::new(stream);
    let fuse = line.fuse();
    let (waiting, host) = (Waiting::default(), simulator.clone());
    let waits = waiting.clone();
    let service = service_fn(move |request| host.clone().answer(request, fuse.clone(), waits.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(line), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "simulator lost a connection");
    }
    if let Some(agreed) = waiting.take() {
        simulator.talk(agreed).await;
    }
}

/// One request, as far as it could be read.
struct Asked {
    api: Api,
    endpoint: Result<Endpoint, Problem>,
    admitted: Result<(), Problem>,
    vendor: Vendor,
    /// The model that the path names, as Azure's do.
    deployment: Option<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, Problem>,
    script: Result<Script, Problem>,
}

/// What even a canned reply depends on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gist {
    model: Option<String>,
    stream: Option<bool>,
}

impl Simulator {
    /// Answers one request. Dropped before it is done, the call counts as hung up.
    async fn answer(
        self,
        mut request: Request<Incoming>,
        fuse: Fuse,
        waiting: Waiting,
    ) -> Result<Response<Playback>, BrokenOff> {
        let arrived = Instant::now();
        let connection = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        if socket::is_asked(&head) {
            return self.agree(&head, connection, &waiting, &fuse);
        }
        if let Some(page) = self.own_page(&head) {
            return Ok(page);
        }
        let mut call = self.books.open();
        let asked = self.read(head, body).await?;
        let outcome = self.decide(&asked, call.number);
        asked.put_on_the_bill(&outcome, &mut call);

        let script = asked.script.as_ref().map(Cow::Borrowed).unwrap_or_default();
        rest(script.slow_headers.unwrap_or_default()).await;
        if script.has(Oddity::Reset) {
            call.break_off();
            fuse.light();
            return Err(BrokenOff);
        }
        let (status, headers, content, timing) = match outcome {
            Ok(reply) => {
                let mut timing = self.pace.timing(reply.seed, reply.tokens.output);
                timing.first = script.latency.unwrap_or(timing.first);
                if reply.content.is_whole() {
                    rest(timing.whole(reply.tokens.output)).await;
                }
                (StatusCode::OK, reply.headers, reply.content, timing)
            }
            Err(problem) => {
                let content = Content::Whole(asked.api.refusal(&problem, call.number));
                (problem.status(), asked.api.refusal_headers(&problem), content, Timing::default())
            }
        };
        let mut response = asked.head(status, call.number, arrived).header(CONTENT_TYPE, content.kind());
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let whole = content.is_whole();
        let playback = Playback::reply(content, &script, timing, call);
        if whole {
            response = response.header(CONTENT_LENGTH, playback.length());
        }
        Ok(response.body(playback).expect("every header is plain text"))
    }

    /// A page of the simulator's own: no call of any API.
    fn own_page(&self, head: &Parts) -> Option<Response<Playback>> {
        let page = match (&head.method, head.uri.path()) {
            (&Method::GET, "/simulator/bill") => serde_json::to_vec(&self.bill()),
            (&Method::GET, "/simulator/state") => serde_json::to_vec(&self.state()),
            // Where weir says so itself: `weir health` can ask both.
            (&Method::GET, "/readyz") => serde_json::to_vec("ok"),
            _ => return None,
        };
        let page = page.expect("plain numbers and names are always JSON");
        let response = Response::builder().header(CONTENT_TYPE, "application/json");
        Some(response.body(Playback::page(page.into())).expect("the headers are fixed"))
    }

    async fn read(&self, head: Parts, body: Incoming) -> Result<Asked, BrokenOff> {
        let body = match Limited::new(body, MOST_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge),
            Err(_) => return Err(BrokenOff), // the client went away while it was still asking
        };
        let mut script = match Script::of(&head.headers) {
            Ok(script) => Ok(script.unwrap_or_else(|| self.script.clone())),
            Err(error) => Err(Problem::BadScript(error.to_string())),
        };
        let accepted = head.headers.get(ACCEPT_ENCODING).and_then(|codings| codings.to_str().ok()).unwrap_or_default();
        if let (Ok(script), false) = (&mut script, accepted.contains("gzip")) {
            script.forget(Oddity::Gzip);
        }
        let Route { api, endpoint, vendor, deployment } = route::find(&head);
        let admitted = api.admit(&head);
        let Parts { method, uri, headers, .. } = head;
        Ok(Asked { api, endpoint, admitted, vendor, deployment, method, uri, headers, body, script })
    }

    fn decide(&self, asked: &Asked, call: u64) -> Result<Reply, Problem> {
        let endpoint = asked.endpoint.as_ref().map_err(Clone::clone)?;
        asked.admitted.clone()?;
        let script = asked.script.as_ref().map_err(Clone::clone)?;
        let body = asked.body.as_ref().map_err(Clone::clone)?;
        if asked.api == Api::Bedrock {
            let Asked { method, uri, headers, .. } = asked;
            signature::admit(Signed { method, uri, headers, body }, SystemTime::now())?;
        }
        if let Some(status) = script.status.or_else(|| self.mishaps.strike(call)) {
            return Err(Problem::Wanted(status));
        }
        let (mind, read) = (&self.mind, || asked.read_body(body));
        match endpoint {
            Endpoint::Models(model) => self.models(asked.api, model.as_deref()),
            Endpoint::Chat if script.has(Oddity::Canned) => chosen(&self.canned.chat, body),
            Endpoint::Messages if script.has(Oddity::Canned) => chosen(&self.canned.messages, body),
            Endpoint::Chat => chat::reply(&read()?, mind, script, asked.vendor),
            Endpoint::Completions => chat::legacy_reply(&read()?, mind, script, asked.vendor),
            Endpoint::Responses => responses::reply(&read()?, mind, script),
            Endpoint::InputTokens => responses::input_tokens(&read()?, mind),
            Endpoint::Embeddings => openai::embeddings(&read()?, mind, script),
            Endpoint::Moderations => openai::moderations(&read()?, mind),
            Endpoint::Images => media::images(&read()?, mind, script),
            Endpoint::Speech => media::speech(&read()?, mind),
            Endpoint::Transcription => media::transcription(&read()?, mind, body.len()),
            Endpoint::Batches => Ok(media::batch()),
            Endpoint::Messages => anthropic::messages(&read()?, mind, script),
            Endpoint::CountTokens => anthropic::count_tokens(&read()?, mind),
            Endpoint::Bedrock(operation, model) => {
                let (body, streams) =
                    (read()?, matches!(operation, Operation::ConverseStream | Operation::InvokeStream));
                match operation {
                    Operation::Converse | Operation::ConverseStream => {
                        bedrock::converse(model, streams, &body, mind, script)
                    }
                    Operation::Invoke | Operation::InvokeStream => invoke::reply(model, streams, &body, mind, script),
                    Operation::CountTokens => bedrock::count_tokens(model, &body, mind),
                }
            }
            Endpoint::CohereChat => cohere::chat(&read()?, mind, script),
            Endpoint::CohereChatV1 => cohere::chat_v1(&read()?, mind, script),
            Endpoint::CohereEmbed => cohere::embed(&read()?, mind, script),
            Endpoint::CohereRerank => cohere::rerank(&read()?, mind, script),
            Endpoint::OllamaChat => ollama::chat(&read()?, mind, script),
            Endpoint::OllamaGenerate => ollama::generate(&read()?, mind, script),
            Endpoint::OllamaEmbed => ollama::embed(&read()?, mind, script),
            Endpoint::PublishedMessages(model) => anthropic::published(model, read()?, mind, script),
            Endpoint::Gemini(target) => gemini::reply(target, &read()?, mind, script),
        }
    }

    fn models(&self, api: Api, model: Option<&str>) -> Result<Reply, Problem> {
        let list = match api {
            Api::Anthropic => anthropic::models(model)?,
            // Bedrock's list of models is another service's, which the simulator is not.
            Api::Bedrock => return Err(Problem::UnknownModel(NONE.to_owned())),
            Api::OpenAi | Api::Cohere | Api::Ollama => openai::models(model, &self.mind)?,
            Api::Gemini => gemini::models(model)?,
        };
        let content = Content::whole(&list);
        Ok(Reply { model: NONE.to_owned(), seed: 0, tokens: Tally::default(), headers: Vec::new(), content })
    }
}

impl Asked {
    /// The body as JSON: a form as an object of its text fields. The model may be in the path instead.
    fn read_body(&self, body: &[u8]) -> Result<Value, Problem> {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let mut read = match kind.split_once("boundary=") {
            Some((_, boundary)) => media::form(body, boundary.trim_matches('"')),
            None => read_json(body)?,
        };
        if let Some(deployment) = &self.deployment {
            read["model"] = deployment.as_str().into();
        }
        Ok(read)
    }

    fn put_on_the_bill(&self, outcome: &Result<Reply, Problem>, call: &mut Call) {
        match outcome {
            _ if self.method != Method::POST => {}
            Ok(reply) => call.charge(self.api, &reply.model, Some(reply.tokens)),
            Err(_) => {
                let gist = self.gist();
                let model = match &self.endpoint {
                    Ok(Endpoint::Bedrock(_, model) | Endpoint::PublishedMessages(model)) => Some(model.as_str()),
                    Ok(Endpoint::Gemini(target)) => Some(target.model.as_str()),
                    _ => gist.model.as_deref().or(self.deployment.as_deref()),
                };
                call.charge(self.api, model.unwrap_or(NONE), None);
            }
        }
    }

    /// The head of the reply to this request, but for what depends on the body.
    fn head(&self, status: StatusCode, call: u64, arrived: Instant) -> Builder {
        // A little of the rate limit is always gone, and all of it when it was hit.
        let left = if status == StatusCode::TOO_MANY_REQUESTS { 0 } else { RATE_LIMIT - 1 - call % 100 };
        let mut head = Response::builder().status(status).header(CACHE_CONTROL, "no-cache");
        for (name, value) in self.api.headers(call, arrived.elapsed().as_millis(), left) {
            head = head.header(name, value);
        }
        let Ok(script) = &self.script else { return head };
        if script.has(Oddity::Gzip) {
            head = head.header(CONTENT_ENCODING, "gzip");
        }
        if let Some(seconds) = script.retry_after {
            head = head.header(RETRY_AFTER, seconds);
        }
        if let Some(millis) = script.retry_after_ms {
            head = head.header("retry-after-ms", millis);
        }
        head
    }

    fn gist(&self) -> Gist {
        self.body.as_ref().ok().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }
}

fn read_json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).ok().filter(Value::is_object).ok_or(Problem::NotJson)
}

/// The canned reply for this body: whole or streamed.
fn chosen(canned: &[Reply; 2], body: &[u8]) -> Result<Reply, Problem> {
    let gist: Gist = serde_json::from_slice(body).map_err(|_| Problem::NotJson)?;
    let [whole, streamed] = canned;
    Ok(if gist.stream == Some(true) { streamed.clone() } else { whole.clone() })
}

/// Waits, but not for nothing: a timer takes a millisecond even for that.
async fn rest(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
