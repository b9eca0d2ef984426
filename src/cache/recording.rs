//! Recording: one exchange kept for good, in a file made for people and for diffs. Tests of an app record the provider's
//! answers once, and from then on replay them without provider, key or network.
//!
//! What is kept is what the app sent and what it got, less whatever belongs to one connection, one caller or one day: no
//! credential, no cookie, no request id. Knows files and JSON; not providers, not which requests are equal.

pub mod difference;
pub mod file;
pub mod library;
pub mod writer;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::cache::kept_headers;
use crate::cache::key::Key;

/// One exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// What was asked.
    pub request: Request,
    /// What came back.
    pub response: Response,
}

/// What was asked, as far as it tells one request from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// The provider's configured name.
    pub provider: Box<str>,
    /// Its path below the provider's base URL, as the app spelt it.
    pub path: Box<str>,
    /// Its query, without credentials.
    pub query: Option<Box<str>>,
    /// The header fields that change the answer, by name.
    pub headers: HeaderMap,
    /// Its body, without content coding.
    pub body: Bytes,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields, as far as [`recorded_headers`] keeps them.
    pub headers: HeaderMap,
    /// Its body, as the app saw it.
    pub body: Bytes,
    /// The pieces in which a stream came. Together they are as long as the body. Empty where it is no stream.
    pub timing: Vec<Piece>,
}

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How long it is.
    pub bytes: usize,
    /// How long after the piece before it, or after the head of the reply, it came.
    pub after: Duration,
}

/// A header field that AWS names an error by; its body does not.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// The header fields of a response that are worth recording: those worth storing, and what says which error it is.
#[must_use]
pub fn recorded_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = kept_headers(headers);
    kept.extend(headers.get(&ERROR_TYPE).map(|value| (ERROR_TYPE, value.clone())));
    kept
}

/// The longest part of a file's name.
const LONGEST_PART: usize = 48;

/// The name of the file of a request: its provider, what it is (`chat`), its model, and the beginning of its key, which
/// tells it from others.
#[must_use]
pub fn file_name(provider: &str, what: &str, model: Option<&str>, key: &Key) -> String {
    let key = format!("{key:?}");
    let parts = [Some(provider), Some(what), model, Some(&key[..12])].into_iter().flatten().map(plain);
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("-") + ".json"
}

/// `text` in characters that every file system takes.
fn plain(text: &str) -> String {
    let replaced =
        text.chars().map(|char| if char.is_ascii_alphanumeric() || "._".contains(char) { char } else { '-' });
    let replaced: String = replaced.take(LONGEST_PART).collect();
    replaced.to_ascii_lowercase().trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_what_is_asked_of_whom() {
        let key: Key = "0123456789abcdef".repeat(4).parse().expect("64 digits");
        let hash = "0123456789ab";
        for (provider, what, model, expected) in [
            ("openai", "chat", Some("gpt-5-mini"), "openai-chat-gpt-5-mini"),
            ("openrouter", "chat", Some("Anthropic/claude:online"), "openrouter-chat-anthropic-claude-online"),
            ("openai", "models", None, "openai-models"),
            ("openai", "", Some("../../etc/passwd"), "openai-etc-passwd"),
            ("openai", "chat", Some(&*"long".repeat(100)), &*format!("openai-chat-{}", "long".repeat(12))),
            ("openai", "chat", Some("modèle"), "openai-chat-mod-le"),
        ] {
            assert_eq!(file_name(provider, what, model, &key), format!("{expected}-{hash}.json"));
        }
    }

    #[test]
    fn what_names_an_error_is_recorded_and_what_belongs_to_one_exchange_is_not() {
        let all = ["content-type", "x-amzn-errortype", "set-cookie", "x-request-id", "date", "retry-after"];
        let all = all.map(|name| (HeaderName::from_static(name), http::HeaderValue::from_static("v")));
        let kept = recorded_headers(&all.into_iter().collect());
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["content-type", "x-amzn-errortype"]);
    }
}
