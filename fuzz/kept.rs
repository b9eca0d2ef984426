//! What others keep for weir: a shared store, a disk, Prometheus.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use weir::cache::shared::envelope::{Content, Letter, pack, unpack};
use weir::cache::{About, Reply};
use weir::fleet::number;
use weir::limits::Limits;
use weir::limits::saved::Saved;
use weir::record::ReplyFacts;
use weir::state::file::Form;

/// What replicas share of stored answers: what is unpacked is bounded, and what is packed is unpacked.
pub fn envelope(data: &[u8]) {
    const MOST: usize = 1 << 10;
    if let Some(content) = unpack(data, MOST) {
        assert!(content.reply.body.len() <= MOST);
        let again = packed(&content).and_then(|packed| unpack(&packed, MOST)).map(|content| told(&content));
        assert!(again.is_none_or(|again| again == told(&content)), "what was unpacked is packed as it was");
    }
    let body = data.get(..MOST).unwrap_or(data);
    let content = Content {
        reply: Reply {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]),
            body: Bytes::copy_from_slice(body),
            pace: None,
            facts: ReplyFacts::default(),
            usage: Arc::new(OnceLock::new()),
            provider_cost: None,
            origin: None,
        },
        about: About { provider: "p".into(), model: Some("m".into()), namespace: None },
        asked: [1, 2],
        stored_at: SystemTime::UNIX_EPOCH,
        lifetime: Duration::from_secs(1),
        keep_for: Duration::from_secs(2),
    };
    let packed = packed(&content).expect("a small reply can be packed");
    assert_eq!(unpack(&packed, MOST).map(|content| told(&content)), Some(told(&content)), "what is packed is unpacked");
}

fn packed(content: &Content) -> Option<Vec<u8>> {
    let &Content { ref reply, ref about, asked, stored_at, lifetime, keep_for } = content;
    pack(Letter { reply, about, asked, stored_at, lifetime, keep_for }, 64)
}

/// What two contents have to have in common to be one.
fn told(content: &Content) -> (StatusCode, HeaderMap, Bytes, Duration, Duration, [u64; 2]) {
    let Content { reply, asked, lifetime, keep_for, .. } = content;
    (reply.status, reply.headers.clone(), reply.body.clone(), *lifetime, *keep_for, *asked)
}

/// The file of limits and budgets: whole or not, what is in it changes nothing that it should not; written, it is read.
pub fn state(data: &[u8]) {
    const FORM: Form = Form { name: "limits.json", version: 1 };
    let saved = FORM.read::<Saved>(data).ok().or_else(|| serde_json::from_slice(data).ok());
    if let Some(saved) = saved {
        let written = FORM.write(&saved).expect("what was read can be written");
        assert!(FORM.read::<Saved>(&written).is_ok(), "what is written is read");
        let limits = r#"[{"name":"app","requests_per_minute":60,"per":"agent"}]"#;
        let budgets = r#"[{"name":"app","limit_usd":"10","window":"month"}]"#;
        let rules = (serde_json::from_str(limits), serde_json::from_str(budgets));
        let (limits, budgets): (Vec<_>, Vec<_>) = (rules.0.expect("limits"), rules.1.expect("budgets"));
        Limits::new(&limits, &budgets).restore(saved);
    }
}

/// Prometheus' answer to what the fleet has spent: an amount, or why there is none.
pub fn prometheus_reply(data: &[u8]) {
    let [status, body @ ..] = data else { return };
    let status = if status & 1 == 0 { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    if let Err(unfit) = number(status, body) {
        let why = unfit.to_string();
        assert!(why.len() < 2048 && !why.chars().any(char::is_control), "why fits into a line of the log");
    }
}
