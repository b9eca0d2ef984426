//! Lookaside: the cache for an app that calls its models another way than through weir. The app asks before it calls,
//! and brings what it got.
//!
//! What is brought answers only those who look aside, never a proxied call: its keys are of another kind. Callers are
//! kept apart as proxied ones are, by namespace and by the credentials they send. Only programs on the same machine may
//! look aside: answers are here for whoever asks the same.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json_borrow::Value;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::access::Neighbour;
use crate::admin::body::{self, Members};
use crate::admin::cache::{CacheSide, answer};
use crate::admin::openapi::ToNeighbours;
use crate::admin::problem::Problem;
use crate::cache::freshness::Directives;
use crate::cache::invalidation::MAX_TEXT;
use crate::cache::key::{self, Key};
use crate::cache::policy::{Lifetime, Preferences, Terms};
use crate::cache::{About, Fetched, Lookup, Reply, Reusable, Stored, Usable};
use crate::exchange::recall::may_be_credential;
use crate::record::ReplyFacts;
use crate::record::outcome::{CacheStatus, StoreResult};
use crate::units::Span;

/// The first part of what a lookaside key is made of, where a proxied call has the scheme of its URL.
const KIND: &[u8] = b"lookaside";

/// Looks for an answer that was brought. For programs on this machine.
#[utoipa::path(
    post,
    path = "/api/v1/cache/get",
    tag = "cache",
    operation_id = "cache_get",
    request_body(content = Question, content_type = "application/json"),
    responses((status = 200, body = Found), ToNeighbours),
    security(())
)]
pub(super) async fn get(
    _: Neighbour,
    State(admin): State<Admin>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = read(&admin, body).await?;
    let mut members = Members::of(&body)?;
    let asked = Asked::read(&mut members);
    let asked = members.end_with(asked)?;
    let reusable = asked.reusable(&admin, &headers, None)?;

    let started = Instant::now();
    let cache = &admin.cache.cache;
    let mut found = cache.look_up(&reusable, started);
    let in_memory = (status_of(&found), started.elapsed());
    if !matches!(found, Lookup::Usable(_)) && cache.fetch(&reusable.key).await == Fetched::There {
        found = cache.look_up(&reusable, Instant::now());
    }
    let provider = admin.cache.label(&asked.provider);
    admin.metrics.looked_aside(provider, &reusable.about, status_of(&found), in_memory);
    Ok(match found {
        Lookup::Usable(Usable { stored, age, .. }) => answer(StatusCode::OK, &Found::of(&stored, age, reusable.key)),
        Lookup::Declined | Lookup::Stale | Lookup::Absent => answer(StatusCode::OK, &Found::nothing(reusable.key)),
    })
}

const fn status_of(found: &Lookup) -> CacheStatus {
    match found {
        Lookup::Usable(_) => CacheStatus::Hit,
        Lookup::Declined | Lookup::Stale => CacheStatus::Expired,
        Lookup::Absent => CacheStatus::Miss,
    }
}

/// Brings an answer. For programs on this machine.
#[utoipa::path(
    post,
    path = "/api/v1/cache/set",
    tag = "cache",
    operation_id = "cache_set",
    request_body(content = Brought, content_type = "application/json"),
    responses((status = 201, body = Kept), ToNeighbours),
    security(())
)]
pub(super) async fn set(
    _: Neighbour,
    State(admin): State<Admin>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = read(&admin, body).await?;
    let mut members = Members::of(&body)?;
    let asked = Asked::read(&mut members);
    let response = members.required_raw("response", "any JSON: what the model answered");
    let ttl = members.span("ttl");
    let (asked, response) = members.end_with(asked.zip(response))?;
    let reusable = asked.reusable(&admin, &headers, ttl)?;

    let most = admin.cache.cache.max_entry_bytes();
    if response.get().len() > most {
        admin.metrics.stored_aside(StoreResult::TooLarge);
        let detail = format!("`response` has more than {most} bytes, which `cache.max_entry_bytes` is");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let stored = Kept { key: reusable.key, ttl_seconds: reusable.terms.lifetime.as_secs() };
    admin.cache.cache.store(reusable, reply(response), Instant::now());
    admin.metrics.stored_aside(StoreResult::Stored);
    Ok(answer(StatusCode::CREATED, &stored))
}

/// As much as an entry, and what else a command may have.
async fn read(admin: &Admin, body: Body) -> Result<Bytes, Problem> {
    body::read(body, admin.cache.cache.max_entry_bytes().saturating_add(body::COMMAND)).await
}

/// What the app asks, or asked, its model.
struct Asked<'a> {
    provider: Box<str>,
    model: Box<str>,
    namespace: Option<Box<str>>,
    /// The member the request stands in.
    member: &'static str,
    text: &'a str,
    request: Value<'a>,
}

impl<'a> Asked<'a> {
    fn read(members: &mut Members<'a>) -> Option<Self> {
        let provider = members.required_text("provider", MAX_TEXT);
        let model = members.required_text("model", MAX_TEXT);
        let namespace = members.text("namespace", MAX_TEXT);
        let request = match (members.raw("messages"), members.raw("request")) {
            (Some(messages), None) => Some(("messages", messages)),
            (None, Some(request)) => Some(("request", request)),
            (None, None) => {
                members
                    .fault("messages", "is missing: write what the model is asked, here or, in any JSON, in `request`");
                None
            }
            (Some(_), Some(_)) => {
                members.fault("request", "there are `messages` too: write one of the two");
                None
            }
        };
        let (member, raw) = request?;
        let request = serde_json::from_str(raw.get());
        if let Err(error) = &request {
            members.fault(member, format!("cannot be read: {error}"));
        }
        let (provider, model, request) = (provider?, model?, request.ok()?);
        Some(Self { provider, model, namespace, member, text: raw.get(), request })
    }

    /// The question, as the cache knows it. The operator's rules hold; the app's own `ttl` counts before theirs.
    fn reusable(&self, admin: &Admin, headers: &HeaderMap, ttl: Option<Span>) -> Result<Reusable, Problem> {
        let CacheSide { cache, .. } = &admin.cache;
        let about = About {
            provider: Arc::from(&*self.provider),
            model: Some(self.model.clone()),
            namespace: self.namespace.clone(),
        };
        let preferences = Preferences {
            // Whoever looks aside asks for the cache, and nothing is fetched for it.
            directives: Directives { only_if_cached: true, ..Directives::default() },
            lifetime: ttl.map_or(Lifetime::Unsaid, |ttl| Lifetime::Said(ttl.get())),
        };
        // Whether chance draws the answer is for the app to know.
        let terms = cache.terms(&about, &preferences, false).map_err(|_| {
            let detail = "nothing is cached for this: `cache.mode`, or the rule of `cache.rules` for it, says `off`, \
                          `record` or `replay`";
            Problem::new(StatusCode::CONFLICT, detail)
        })?;
        let terms = Terms { window: Duration::ZERO, ..terms };
        Ok(Reusable { key: self.key(headers), about, asked: cache.rules().asked(), terms, forms: None, similar: None })
    }

    fn key(&self, headers: &HeaderMap) -> Key {
        let mut credentials: Vec<(&[u8], &[u8])> = headers
            .iter()
            .filter(|(name, _)| may_be_credential(name))
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .collect();
        credentials.sort_unstable();
        Key::of(&key::Question {
            namespace: self.namespace.as_deref(),
            provider: &self.provider,
            // Of a proxied call these are four: no two lists of different lengths make the same key.
            target: &[KIND, self.member.as_bytes(), self.model.as_bytes()],
            credentials: &credentials,
            headers: &[],
            text: self.text.as_bytes(),
            body: &self.request,
            ignored: &[],
        })
    }
}

/// What the app brought, as a reply. It says nothing of itself that could be trusted.
fn reply(response: &RawValue) -> Reply {
    Reply {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(response.get().as_bytes()),
        pace: None,
        facts: ReplyFacts::default(),
        usage: Arc::default(),
        provider_cost: None,
        origin: None,
    }
}

/// What the app asks, or asked, its model.
#[derive(ToSchema)]
#[schema(as = LookasideQuestion)]
#[expect(dead_code, reason = "says what `Asked` reads")]
struct Question {
    provider: String,
    model: String,
    namespace: Option<String>,
    /// What the model is asked: this, or `request`.
    messages: Option<Vec<serde_json::Value>>,
    /// What the model is asked, in any JSON.
    request: Option<serde_json::Value>,
}

/// The same, and what the model answered.
#[derive(ToSchema)]
#[schema(as = LookasideAnswer)]
#[expect(dead_code, reason = "says what `set` reads")]
struct Brought {
    #[serde(flatten)]
    question: Question,
    /// What the model answered: any JSON.
    response: serde_json::Value,
    /// How long it may answer: a number of seconds, or a text such as `5m`.
    #[schema(value_type = Option<String>)]
    ttl: Option<serde_json::Value>,
}

/// What was brought is there.
#[derive(Serialize, ToSchema)]
#[schema(as = LookasideStored)]
struct Kept {
    #[schema(value_type = String)]
    key: Key,
    /// How long it may answer.
    ttl_seconds: u64,
}

/// What a look-up found.
#[derive(Serialize, ToSchema)]
#[schema(as = LookasideFound)]
struct Found<'a> {
    /// Whether there is an answer. All but the key are missing otherwise.
    hit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    response: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[schema(value_type = String)]
    key: Key,
}

impl<'a> Found<'a> {
    fn of(stored: &'a Stored, age: Duration, key: Key) -> Self {
        let response = serde_json::from_slice(&stored.reply().body).expect("what was brought was JSON");
        let ttl_seconds = stored.lifetime().saturating_sub(age).as_secs();
        Self {
            hit: true,
            response: Some(response),
            age_seconds: Some(age.as_secs()),
            ttl_seconds: Some(ttl_seconds),
            key,
        }
    }

    const fn nothing(key: Key) -> Self {
        Self { hit: false, response: None, age_seconds: None, ttl_seconds: None, key }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn key(body: &str, fields: &[(&'static str, &'static str)]) -> Key {
        let mut members = Members::of(body.as_bytes()).expect("an object");
        let asked = Asked::read(&mut members).expect("a question");
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        asked.key(&fields.iter().map(field).collect())
    }

    #[test]
    fn equal_questions_of_equal_callers_have_equal_keys_and_no_others_do() {
        let asked = r#"{"provider":"p","model":"m","messages":[{"role":"user","content":"hi"}],"namespace":"n"}"#;
        let same =
            r#"{ "namespace": "n", "messages": [{"content":"h\u0069","role":"user"}], "model":"m","provider":"p" }"#;
        let caller = [("authorization", "Bearer a")];
        assert_eq!(key(asked, &caller), key(same, &caller));
        assert_eq!(key(asked, &caller), key(asked, &[caller[0], ("user-agent", "x"), ("accept", "*/*")]));
        let others = [
            key(asked, &caller),
            key(asked, &[]),
            key(asked, &[("authorization", "Bearer b")]),
            key(asked, &[("x-api-key", "Bearer a")]),
            key(asked, &[caller[0], ("cookie", "a=b")]),
            key(&asked.replace(r#""n""#, r#""o""#), &caller),
            key(&asked.replace(r#","namespace":"n""#, ""), &caller),
            key(&asked.replace(r#""p""#, r#""q""#), &caller),
            key(&asked.replace(r#""m""#, r#""M""#), &caller),
            key(&asked.replace("hi", "ho"), &caller),
            key(&asked.replace("messages", "request"), &caller),
        ];
        for (position, one) in others.iter().enumerate() {
            assert!(!others[position + 1..].contains(one), "{position}");
        }
    }
}
