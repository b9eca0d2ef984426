//! Session: what a provider says in one WebSocket session, message by message: where each response begins, what it
//! used, and how it ended.
//!
//! A session has many responses, one after the other or side by side; each is a call of its own. Only ever sees copies
//! of text messages; knows no frames, no socket and no clock.

use std::collections::VecDeque;
use std::fmt;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::provider::Said;
use crate::provider::lenient::Text;
use crate::provider::openai::realtime::Realtime;
use crate::provider::openai::turns::Turns;
use crate::record::call::Operation;

/// Reads the messages of one session.
pub trait ReadSession: Send {
    /// Reads one text message of the provider, and tells what it means.
    fn message(&mut self, text: &[u8], tell: &mut dyn FnMut(News));

    /// Tells the end of all that is still open. Nothing more comes.
    fn finish(self: Box<Self>, tell: &mut dyn FnMut(News));
}

/// A response of a session: the first is 0, the next 1, and so on.
pub type Turn = u64;

/// What a message means for the books.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A response began.
    Began(Turn),
    /// It brought content, reasoning or a tool call.
    Content(Turn),
    /// It is over.
    Ended(Turn, Told),
    /// Something was used beside the responses. It has begun and ended in one.
    Beside(Operation, Told),
    /// The provider complained without ending a response. If the session ends with it, this is why.
    Complained(StatusCode),
}

/// All that was said of a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What an HTTP reply would have said of it.
    pub status: StatusCode,
    /// What it said of itself.
    pub said: Said,
}

/// What is known of a session when it begins.
pub struct Opened {
    /// The model its URL asks for.
    pub model: Option<Box<str>>,
    /// Reads what follows.
    pub reader: Box<dyn ReadSession>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("model", &self.model).finish_non_exhaustive()
    }
}

/// A reader for the session at this path; `None` if sessions there are not read. Paths are known by their ends, as those
/// of requests are: gateways and Azure resources put anything before them.
#[must_use]
pub fn open(path: &str, query: Option<&str>) -> Option<Opened> {
    // An Azure resource knows its models by the names of their deployments.
    let model = parameter(query, "model").or_else(|| parameter(query, "deployment"));
    let reader: Box<dyn ReadSession> = if path.ends_with("/realtime") {
        Box::new(Realtime::new(model.clone()))
    } else if path.ends_with("/responses") {
        Box::<Turns>::default()
    } else {
        return None;
    };
    Some(Opened { model, reader })
}

fn parameter(query: Option<&str>, name: &str) -> Option<Box<str>> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(known, _)| *known == name)?.1;
    let text = percent_decode_str(value).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into())
}

/// Responses at once in one session. OpenAI allows one in a conversation, and a few outside it.
const MAX_OPEN: usize = 32;

/// The responses that have begun and not ended, by the name the provider gives them.
#[derive(Debug)]
pub(super) struct Open<T> {
    turns: VecDeque<(Box<str>, Turn, T)>,
    next: Turn,
}

impl<T> Default for Open<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), next: 0 }
    }
}

impl<T> Open<T> {
    /// Begins a response. What makes room for it has to end: one of the same name, or the oldest of too many.
    pub(super) fn begin(&mut self, name: &str, turn: T) -> (Turn, Option<(Turn, T)>) {
        let is_full = self.turns.len() >= MAX_OPEN;
        let ended = self.end(name).or_else(|| {
            let oldest = if is_full { self.turns.pop_front() } else { None };
            oldest.map(|(_, number, turn)| (number, turn))
        });
        let number = self.next;
        self.next += 1;
        self.turns.push_back((name.into(), number, turn));
        (number, ended)
    }

    pub(super) fn find(&mut self, name: &str) -> Option<(Turn, &mut T)> {
        let (_, number, turn) = self.turns.iter_mut().find(|(known, ..)| **known == *name)?;
        Some((*number, turn))
    }

    pub(super) fn end(&mut self, name: &str) -> Option<(Turn, T)> {
        let at = self.turns.iter().position(|(known, ..)| **known == *name)?;
        self.turns.remove(at).map(|(_, number, turn)| (number, turn))
    }

    /// A number for a response that ends without having begun.
    pub(super) fn number(&mut self) -> Turn {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn end_all(self) -> impl Iterator<Item = (Turn, T)> {
        self.turns.into_iter().map(|(_, number, turn)| (number, turn))
    }
}

/// An error, as events and failed responses carry it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Complaint<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    code: Text<'a>,
}

impl Complaint<'_> {
    /// The status an HTTP reply with this error has.
    pub(super) fn status(&self) -> StatusCode {
        match (self.code.get(), self.kind.get()) {
            (Some("invalid_api_key"), _) | (_, Some("authentication_error")) => StatusCode::UNAUTHORIZED,
            (Some("rate_limit_exceeded" | "insufficient_quota"), _) | (_, Some("insufficient_quota")) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            (_, Some("invalid_request_error")) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_known_by_their_path_and_their_model_by_the_query() {
        for (path, query, expected) in [
            ("/v1/realtime", Some("model=gpt-realtime"), Some(Some("gpt-realtime"))),
            ("/v1/realtime", Some("a=b&model=ft%3Agpt&model=no"), Some(Some("ft:gpt"))),
            ("/openai/realtime", Some("api-version=1&deployment=mine"), Some(Some("mine"))),
            ("/openai/v1/realtime", Some("model="), Some(None)),
            ("/v1/realtime", None, Some(None)),
            ("/v1/responses", None, Some(None)),
            ("/v1/realtime/calls", None, None),
            ("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", Some("key=k"), None),
        ] {
            let opened = open(path, query).map(|opened| opened.model);
            assert_eq!(opened, expected.map(|model| model.map(Box::from)), "{path} {query:?}");
        }
    }

    #[test]
    fn responses_are_numbered_and_bounded() {
        let mut open = Open::default();
        assert_eq!(open.begin("a", 'a'), (0, None));
        assert_eq!(open.begin("b", 'b'), (1, None));
        assert_eq!(open.begin("a", 'c'), (2, Some((0, 'a'))), "one of the same name ends");
        assert_eq!(open.end("b"), Some((1, 'b')));
        assert_eq!(open.end("b"), None);
        for number in 0..MAX_OPEN - 1 {
            assert_eq!(open.begin(&number.to_string(), 'd').1, None);
        }
        assert_eq!(open.begin("more", 'e').1, Some((2, 'c')), "the oldest of too many ends");
        assert_eq!(open.end_all().count(), MAX_OPEN);
    }

    #[test]
    fn an_error_has_the_status_that_http_would_give_it() {
        for (error, status) in [
            (r#"{"type":"invalid_request_error","code":"invalid_api_key"}"#, 401),
            (r#"{"type":"invalid_request_error","code":"invalid_value"}"#, 400),
            (r#"{"type":"tokens","code":"rate_limit_exceeded"}"#, 429),
            (r#"{"type":"insufficient_quota","code":null}"#, 429),
            (r#"{"type":"server_error"}"#, 500),
            ("{}", 500),
        ] {
            let complaint: Complaint<'_> = serde_json::from_str(error).expect("lenient");
            assert_eq!(complaint.status().as_u16(), status, "{error}");
        }
    }
}
