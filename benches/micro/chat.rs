//! A chat as apps ask for it, its key, and an answer that may be stored for it: what is measured of them, several
//! benchmarks say.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json_borrow::Value;
use weir::cache::key::{Key, Question};
use weir::cache::policy::Preferences;
use weir::cache::{About, Cache, Reply, Reusable};
use weir::json::opened;
use weir::provider::endpoint::Endpoint;
use weir::provider::{Request, Reuse};
use weir::record::ReplyFacts;

/// A chat of about `kib` KiB, with this instruction.
pub(crate) fn body(kib: usize, instruction: &str) -> String {
    const TURN: &str = "Tell me of rivers,\\nof mountains and of \\u201cthe sea\\u201d, as they were. ";
    let mut body = format!(
        r#"{{"model":"gpt-5-mini","temperature":0.7,"max_tokens":256,"messages":[{{"role":"system","content":"{instruction}"}}"#
    );
    for role in ["user", "assistant"].iter().cycle() {
        if body.len() + 2 * TURN.len() > kib << 10 {
            break;
        }
        let turns = ((kib << 10) - body.len()) / TURN.len();
        let turn = TURN.repeat(turns.clamp(1, 6));
        let message = format!(r#",{{"role":"{role}","content":[{{"type":"text","text":"{turn}"}}]}}"#);
        body.push_str(&message);
    }
    body + "]}"
}

pub(crate) fn parsed(text: &str) -> Value<'_> {
    opened(text.as_bytes()).expect("a body is JSON")
}

pub(crate) fn request<'a>(body: &'a Value<'a>) -> Request<'a> {
    Request { endpoint: Endpoint::ChatCompletions, path: "/v1/chat/completions", query: None, body }
}

pub(crate) fn key(text: &str, body: &Value<'_>) -> Key {
    let asked = (Endpoint::ChatCompletions.format().asked)(&request(body));
    let Reuse::Allowed(ignored) = asked.reuse else { unreachable!("such a chat may be cached") };
    Key::of(&Question {
        namespace: Some("team"),
        provider: "openai",
        target: &[b"https", b"api.openai.com", b"/v1/chat/completions", b""],
        credentials: &[(b"authorization", b"Bearer sk-0123456789012345678901234567890123456789")],
        headers: &[(b"accept-encoding", b"gzip, deflate")],
        text: text.as_bytes(),
        body,
        ignored,
    })
}

pub(crate) fn reusable(cache: &Cache, key: Key) -> Reusable {
    let about = About { provider: "openai".into(), model: Some("gpt-5-mini".into()), namespace: Some("team".into()) };
    let terms = cache.terms(&about, &Preferences::of(&HeaderMap::new()), true).expect("all is cached");
    Reusable { key, about, asked: cache.rules().asked(), terms, forms: None, similar: None }
}

pub(crate) fn reply() -> Reply {
    Reply {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Bytes::from(vec![b' '; 600]),
        pace: None,
        facts: ReplyFacts::default(),
        usage: Arc::default(),
        provider_cost: None,
        origin: None,
    }
}
