//! Reply: what an API says to one call, before anything is done to it on its way out.
//!
//! The noun between the files that know a wire format and those that know time and faults.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::bill::Tally;
use super::eventstream;

/// A success.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// The model that is charged for it.
    pub(super) model: String,
    /// Decides how long it takes.
    pub(super) seed: u64,
    /// What it costs.
    pub(super) tokens: Tally,
    /// What its head says beside what every reply of the API does.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Content,
}

/// The body of a success.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// One JSON document.
    Whole(Bytes),
    /// Speech.
    Sound(Bytes),
    /// Text that is no JSON.
    Text(Bytes),
    /// One piece after the other.
    Stream {
        events: Vec<Event>,
        /// What the API sends if it fails after so many events, instead of those that are left.
        failure: fn(usize) -> Bytes,
        framing: Framing,
    },
}

/// How the pieces of a stream are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    ServerSentEvents,
    AwsEventStream,
    /// One JSON document a line. Its media type: there are several.
    Lines(&'static str),
    /// Elements of one array, with what stands between them.
    JsonArray,
}

/// One piece of a stream.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) bytes: Bytes,
    pub(super) part: Part,
}

/// What an event is to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A token or so of the answer, which takes time to come up with.
    Token,
    /// Something around the answer.
    Frame,
    /// The mark that the stream is complete.
    End,
}

impl Content {
    pub(super) fn whole(body: &Value) -> Self {
        Self::Whole(body.to_string().into())
    }

    /// Whether it comes in one piece.
    pub(super) const fn is_whole(&self) -> bool {
        !matches!(self, Self::Stream { .. })
    }

    /// Its media type.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Whole(_) => "application/json",
            Self::Sound(_) => "audio/mpeg",
            Self::Text(_) => "text/plain; charset=utf-8",
            Self::Stream { framing: Framing::ServerSentEvents, .. } => "text/event-stream; charset=utf-8",
            Self::Stream { framing: Framing::AwsEventStream, .. } => "application/vnd.amazon.eventstream",
            Self::Stream { framing: Framing::Lines(kind), .. } => kind,
            Self::Stream { framing: Framing::JsonArray, .. } => "application/json; charset=UTF-8",
        }
    }
}

impl Framing {
    /// A piece that is not JSON.
    pub(super) fn bad_json(self) -> Bytes {
        match self {
            Self::ServerSentEvents => "data: {\"id\": \n\n".into(),
            Self::Lines(_) => "{\"id\": \n".into(),
            Self::AwsEventStream => eventstream::broken_event(),
            Self::JsonArray => "\r\n,\r\n{\"id\": ".into(),
        }
    }
}

impl Event {
    /// An event without a name, as OpenAI's chat completions have.
    pub(super) fn plain(part: Part, data: &Value) -> Self {
        Self { part, bytes: format!("data: {data}\n\n").into() }
    }

    /// A document on a line of its own.
    pub(super) fn line(part: Part, data: &Value) -> Self {
        Self { part, bytes: format!("{data}\n").into() }
    }

    /// An event named after its `type`.
    pub(super) fn named(part: Part, data: &Value) -> Self {
        let name = data["type"].as_str().unwrap_or_default();
        Self { part, bytes: format!("event: {name}\ndata: {data}\n\n").into() }
    }
}

/// Why a call is refused. Each API words these in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No credential, or a blank one.
    NoCredential,
    /// A credential that is not accepted, in the words of AWS: the kind of error, and what is wrong.
    Forbidden { kind: &'static str, message: String },
    /// Nothing lives at this path.
    UnknownPath { method: String, path: String },
    /// Something lives there that cannot be called this way.
    WrongMethod { method: String, path: String },
    /// More bytes than the simulator takes.
    TooLarge,
    /// The body is not a JSON object.
    NotJson,
    /// A field or header that must be there is not.
    Missing(&'static str),
    /// The model does not exist.
    UnknownModel(String),
    /// The `x-simulate` header cannot be followed.
    BadScript(String),
    /// A script or a mishap wants it so.
    Wanted(StatusCode),
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoCredential => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::UnknownPath { .. } | Self::UnknownModel(_) => StatusCode::NOT_FOUND,
            Self::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson | Self::Missing(_) | Self::BadScript(_) => StatusCode::BAD_REQUEST,
            Self::Wanted(status) => *status,
        }
    }
}
