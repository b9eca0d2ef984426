//! The kinds of calls there are: what is asked, what the provider says, what the app gets of it, and what is in the books.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::fake::{Received, Script, Step};
use crate::support::fixtures;
use crate::support::socket::{KEY, close, switching, text};

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// JSON, answered by JSON.
    Whole,
    /// Server-sent events.
    Stream,
    /// An embedding.
    Embedding,
    /// What is stored already.
    Hit,
    /// A stream that an equal call is waiting for already.
    Follower,
    /// A WebSocket session.
    Session,
    /// An upload, which is not read.
    Upload,
    /// A binary stream of AWS.
    EventStream,
}

/// How much a provider says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// All of it.
    All,
    /// The beginning of a stream; then it waits until somebody hangs up. All of anything else.
    Beginning,
}

const ASK: &str = r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;
const ASK_STREAM: &str = r#"{"model":"gpt-5-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const ANSWER_EMBEDDING: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,0.2]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":4,"total_tokens":4}}"#;
const ANSWER_UPLOAD: &str = r#"{"id":"file-1","object":"file","bytes":2000,"purpose":"batch"}"#;
const FIRST: &str = "data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
const FINISH: &str =
    "data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"model\":\"gpt-5-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const SESSION: [&str; 3] = [
    r#"{"type":"session.created","session":{"type":"realtime","model":"gpt-realtime"}}"#,
    r#"{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}"#,
    r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","output":[{"type":"message"}],"usage":{"total_tokens":130,"input_tokens":100,"output_tokens":30,"input_token_details":{"text_tokens":100,"audio_tokens":0,"cached_tokens":0},"output_token_details":{"text_tokens":30}}}}"#,
];
const UPLOAD_BYTES: usize = 2_000;

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Whole,
        Self::Stream,
        Self::Embedding,
        Self::Hit,
        Self::Follower,
        Self::Session,
        Self::Upload,
        Self::EventStream,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Whole => "JSON",
            Self::Stream => "SSE stream",
            Self::Embedding => "embedding",
            Self::Hit => "cached",
            Self::Follower => "coalesced",
            Self::Session => "WebSocket",
            Self::Upload => "upload",
            Self::EventStream => "AWS event stream",
        }
    }

    /// Which kind was asked for.
    pub(super) fn asked(asked: &Received) -> Self {
        match asked.target.split('?').next().unwrap() {
            "/v1/embeddings" => Self::Embedding,
            "/v1/files" => Self::Upload,
            "/v1/realtime" => Self::Session,
            "/v1/chat/completions" if asked.body.windows(8).any(|part| part == b"\"stream\"") => Self::Stream,
            "/v1/chat/completions" => Self::Whole,
            _ => Self::EventStream,
        }
    }

    /// What the app asks.
    pub(super) fn request(self) -> Request<Full<Bytes>> {
        let json = |path: &str, body: &'static str| {
            let request = Request::post(path).header("content-type", "application/json");
            request.body(Full::from(body)).unwrap()
        };
        let mut request = match self {
            Self::Whole | Self::Hit => json("/openai/v1/chat/completions", ASK),
            Self::Stream | Self::Follower => json("/openai/v1/chat/completions", ASK_STREAM),
            Self::Embedding => json("/openai/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"hi"}"#),
            Self::Session => Request::get("/openai/v1/realtime?model=gpt-realtime")
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", KEY)
                .body(Full::default())
                .unwrap(),
            Self::Upload => Request::post("/openai/v1/files")
                .header("content-type", "application/octet-stream")
                .body(Full::from(vec![b'u'; UPLOAD_BYTES]))
                .unwrap(),
            Self::EventStream => json(
                "/bedrock/model/us.amazon.nova-lite-v1%3A0/converse-stream",
                r#"{"messages":[{"role":"user","content":[{"text":"Name the largest moon of Saturn."}]}]}"#,
            ),
        };
        request.headers_mut().insert("host", "weir".parse().unwrap());
        request
    }

    /// What the provider says; a follower's leader is answered at the `gate`.
    pub(super) fn script(self, manner: Manner, gate: &Arc<Notify>) -> Script {
        let all = manner == Manner::All;
        let stream = |headers: &[(&str, &str)], begins: &[&[u8]], goes_on: &[&[u8]]| {
            let begun = Script::begin(headers).pieces(begins);
            if all { begun.pieces(goes_on).end() } else { begun.then(Step::Hang) }
        };
        let sse = [("content-type", "text/event-stream")];
        let [first, rest @ ..] = [FIRST, FINISH, USAGE, DONE].map(str::as_bytes);
        match self {
            Self::Whole | Self::Hit => Script::json(200, ANSWER.as_bytes()),
            Self::Embedding => Script::json(200, ANSWER_EMBEDDING.as_bytes()),
            Self::Upload => Script::json(200, ANSWER_UPLOAD.as_bytes()),
            Self::Stream => stream(&sse, &[first], &rest),
            Self::Follower => stream(&sse, &[first], &rest).after(Step::Wait(Arc::clone(gate))),
            Self::EventStream => {
                let all = event_stream();
                let (first, rest) = all.split_at(335);
                stream(&[("content-type", "application/vnd.amazon.eventstream")], &[first], &[rest])
            }
            Self::Session => {
                let [begins @ .., done] = SESSION.map(text);
                let begins = [vec![switching().into_bytes()], begins.to_vec()].concat().concat();
                let goes_on = if all { Step::Send([done, close(1000)].concat().into()) } else { Step::Hang };
                Script::only(vec![Step::Send(begins.into()), goes_on])
            }
        }
    }

    /// What the app gets if all is well.
    pub(super) fn answer(self) -> Vec<u8> {
        match self {
            Self::Whole | Self::Hit => ANSWER.into(),
            Self::Embedding => ANSWER_EMBEDDING.into(),
            Self::Upload => ANSWER_UPLOAD.into(),
            Self::Stream | Self::Follower => [FIRST, FINISH, DONE].concat().into(),
            Self::EventStream => event_stream(),
            Self::Session => [SESSION.map(text).concat(), close(1000)].concat(),
        }
    }

    /// Whether an error of weir's own has the shape that its API's SDKs read, and says this.
    pub(super) fn is_error(self, seen: &Seen, code: &str) -> bool {
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(&seen.body) else { return false };
        let says = |text: &serde_json::Value| text.as_str().is_some_and(|text| !text.is_empty());
        match self {
            Self::EventStream => seen.headers.contains_key("x-amzn-errortype") && says(&body["message"]),
            _ => body["error"]["code"] == code && says(&body["error"]["type"]) && says(&body["error"]["message"]),
        }
    }

    /// What the head of the good answer says.
    pub(super) fn status(self) -> StatusCode {
        if self == Self::Session { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK }
    }
}

fn event_stream() -> Vec<u8> {
    std::fs::read(fixtures().join("bedrock/converse_stream.eventstream")).unwrap()
}

/// What the app saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// `None` if there was no answer.
    pub(super) status: Option<StatusCode>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether the answer came to its end, as far as the app can tell.
    pub(super) is_whole: bool,
}

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks whoever is at `address`, on a connection of its own, and takes what comes. `None` if it never ends.
pub(super) async fn ask(address: &str, request: Request<Full<Bytes>>) -> Option<Seen> {
    let mut seen = Seen::default();
    timeout(PATIENCE, take(address, request, &mut seen)).await.ok()?;
    Some(seen)
}

async fn take(address: &str, request: Request<Full<Bytes>>, seen: &mut Seen) {
    let Ok(tcp) = TcpStream::connect(address).await else { return };
    tcp.set_nodelay(true).unwrap();
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await else { return };
    let connection = tokio::spawn(connection.with_upgrades());
    if let Ok(mut answer) = sender.send_request(request).await {
        seen.status = Some(answer.status());
        seen.headers = answer.headers().clone();
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Ok(session) = hyper::upgrade::on(&mut answer).await {
                let read = TokioIo::new(session).read_to_end(&mut seen.body).await;
                // A session is over once that is said.
                seen.is_whole = read.is_ok() && seen.body.ends_with(&close(1000));
            }
        } else {
            let mut body = answer.into_body();
            seen.is_whole = loop {
                match body.frame().await {
                    Some(Ok(frame)) => seen.body.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
        }
    }
    connection.abort();
}
