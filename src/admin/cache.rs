//! Cache: how the cache does, what it was told to do, and commands by which its entries die.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::admin::access::{Operator, Reader};
use crate::admin::body::{self, Members};
use crate::admin::openapi::{ToChange, ToRead};
use crate::admin::problem::{Fault, Problem};
use crate::admin::{Admin, audit};
use crate::cache::Cache;
use crate::cache::invalidation::{Filter, MAX_TEXT};
use crate::labels::OTHER;
use crate::semconv::{self, label};
use crate::sinks::samples::Samples;

/// What the admin side knows of the cache.
#[derive(Clone, Debug)]
pub struct CacheSide {
    /// The cache.
    pub cache: Arc<Cache>,
    /// What the operator wrote of it.
    pub settings: Arc<crate::cache::Settings>,
    /// What metrics call each configured provider.
    pub labels: Arc<BTreeMap<Arc<str>, Arc<str>>>,
}

impl CacheSide {
    /// What metrics call the provider of this name, which may be one nobody configured.
    pub(super) fn label(&self, provider: &str) -> &str {
        self.labels.get(provider).map_or(OTHER, |label| label)
    }
}

/// How the cache does, since the start.
#[utoipa::path(
    get,
    path = "/api/v1/cache/stats",
    tag = "cache",
    operation_id = "cache_stats",
    responses((status = 200, body = Counted), ToRead)
)]
pub(super) async fn stats(_: Reader, State(admin): State<Admin>) -> Result<Response, Problem> {
    // As long as a scrape.
    let samples = spawn_blocking(move || admin.metrics.samples("weir_")).await;
    let unread = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the numbers could not be read");
    Ok(answer(StatusCode::OK, &counted(&samples.map_err(unread)?)))
}

/// What the cache was told to do. Passwords in URLs are left out.
#[utoipa::path(
    get,
    path = "/api/v1/cache/config",
    tag = "cache",
    operation_id = "cache_config",
    responses((status = 200, body = Object, content_type = "application/json", description = "`cache` in the \
        configuration, as it was understood."), ToRead)
)]
pub(super) async fn config(_: Reader, State(admin): State<Admin>) -> Response {
    let mut settings = json!(&*admin.cache.settings);
    hide_credentials(&mut settings);
    answer(StatusCode::OK, &settings)
}

/// Takes the user and the password out of every URL.
fn hide_credentials(value: &mut Value) {
    match value {
        Value::String(text) => {
            let Some((scheme, rest)) = text.split_once("://") else { return };
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            if let Some((_, host)) = authority.rsplit_once('@') {
                *text = format!("{scheme}://[redacted]@{host}{path}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_credentials),
        Value::Object(members) => members.values_mut().for_each(hide_credentials),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Removes every entry. Needs a token with the role `admin`.
#[utoipa::path(
    post,
    path = "/api/v1/cache/clear",
    tag = "cache",
    operation_id = "cache_clear",
    responses((status = 200, body = Removal), ToChange),
    security(("token" = []))
)]
pub(super) async fn clear(operator: Operator, State(admin): State<Admin>, body: Body) -> Result<Response, Problem> {
    nothing_in(body).await?;
    remove(operator, admin, "cache.clear", Filter::default()).await
}

/// Removes the entries for which all holds that is given. Needs a token with the role `admin`.
#[utoipa::path(
    post,
    path = "/api/v1/cache/invalidate",
    tag = "cache",
    operation_id = "cache_invalidate",
    request_body(content = Criteria, content_type = "application/json"),
    responses((status = 200, body = Removal), ToChange),
    security(("token" = []))
)]
pub(super) async fn invalidate(
    operator: Operator,
    State(admin): State<Admin>,
    body: Body,
) -> Result<Response, Problem> {
    let filter = filter_in(body).await?;
    remove(operator, admin, "cache.invalidate", filter).await
}

/// Whoever sends a filter does not want everything to go.
async fn nothing_in(body: Body) -> Result<(), Problem> {
    let body = body::read(body, body::COMMAND).await?;
    if Members::of(&body)?.is_empty() {
        return Ok(());
    }
    let fault = "clears everything and takes no filter: post one to /api/v1/cache/invalidate";
    Err(Problem::of_faults(vec![Fault::of_all(fault)]))
}

async fn filter_in(body: Body) -> Result<Filter, Problem> {
    let body = body::read(body, body::COMMAND).await?;
    let mut members = Members::of(&body)?;
    let filter = filter(&mut members);
    if filter.is_everything() && members.are_well() {
        members.fault_of_all(
            "says nothing of what is to go: give at least one criterion, or post to /api/v1/cache/clear to remove \
             everything",
        );
    }
    members.end()?;
    Ok(filter)
}

fn filter(members: &mut Members<'_>) -> Filter {
    Filter {
        provider: members.text("provider", MAX_TEXT),
        model: members.text("model", MAX_TEXT),
        namespace: members.text("namespace", MAX_TEXT),
        older_than: members.span("older_than"),
        prefix: members.text("prefix", MAX_TEXT),
        pattern: read(members, "pattern", "a pattern: `*` stands for any characters, `?` for one, `\\` before either"),
        key: read(members, "key", "a key: write its 64 hexadecimal digits"),
    }
}

/// The member `name`, a text that reads as `T`, which `what` describes.
fn read<T: FromStr<Err: Display>>(members: &mut Members<'_>, name: &'static str, what: &str) -> Option<T> {
    members.parsed(name, MAX_TEXT, |text, error| format!("`{text}` is not {what} ({error})"))
}

/// Removes what `filter` names, and says what came of it.
async fn remove(operator: Operator, admin: Admin, action: &'static str, filter: Filter) -> Result<Response, Problem> {
    let (strategy, what) = (filter.strategy(), json!(filter));
    let cache = Arc::clone(&admin.cache.cache);
    let other_instances = cache.is_shared();
    let removing = spawn_blocking(move || {
        let now = Instant::now();
        cache.invalidate(filter, now, now)
    });
    let halfway = "not every entry could be removed, but none of them answers any more";
    let removed = removing.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, halfway))?;
    admin.metrics.invalidated(strategy);
    audit::entries_removed(&operator, action, &what.to_string(), removed);
    let body = Removal { removed, strategy: strategy.as_str(), filter: what, other_instances };
    Ok(answer(StatusCode::OK, &body))
}

/// What is to go: at least one of these.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "says what `filter` reads")]
struct Criteria {
    /// Entries of this provider.
    provider: Option<String>,
    /// Entries of this model.
    model: Option<String>,
    /// Entries of this namespace.
    namespace: Option<String>,
    /// Entries that are older: a number of seconds, or a text such as `1h`.
    #[schema(value_type = Option<String>)]
    older_than: Option<Value>,
    /// Entries whose `provider/namespace/model` begins so.
    prefix: Option<String>,
    /// Entries whose `provider/namespace/model` looks so.
    pattern: Option<String>,
    /// The entry of this key: 64 hexadecimal digits.
    key: Option<String>,
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Removed)]
struct Removal {
    /// So many entries of this instance's memory.
    removed: u64,
    /// By which criterion.
    strategy: &'static str,
    /// What was asked for.
    #[schema(value_type = Object)]
    filter: Value,
    /// Whether others, who share a store with this one, are told.
    other_instances: bool,
}

/// An answer in JSON, good for now.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("answers are plain data");
    (status, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// How the cache does.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheStats)]
struct Counted {
    /// Requests by what the cache said.
    requests: BTreeMap<String, u64>,
    /// Hits among look-ups; `null` before the first.
    hit_ratio: Option<f64>,
    /// What that saved.
    saved: Saved,
    /// Commands by which entries were removed, by criterion.
    invalidations: BTreeMap<String, u64>,
    /// Where entries are.
    backends: BTreeMap<String, Backend>,
}

/// What was not bought.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheSaved)]
struct Saved {
    /// Tokens, in and out.
    tokens: u64,
    /// US dollars, in decimal.
    usd: String,
}

/// How one place for entries does. What is not known is `null`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheBackend)]
struct Backend {
    /// How many entries there are.
    entries: Option<u64>,
    /// What they take, in bytes.
    bytes: Option<u64>,
    /// What they may take, in bytes.
    capacity_bytes: Option<u64>,
    /// Look-ups by what came of them.
    lookups: BTreeMap<String, u64>,
    /// Hits among them; `null` before the first.
    hit_ratio: Option<f64>,
    /// Entries that went, by why.
    evictions: BTreeMap<String, u64>,
    /// Answers by whether they were stored.
    stores: BTreeMap<String, u64>,
}

/// What the metrics say of the cache.
fn counted(samples: &Samples) -> Counted {
    let requests = samples.sums(semconv::CACHE_REQUESTS.name, &[], label::RESULT);
    let saved_usd = samples.sum(semconv::COST_SAVED.name, &[]).unwrap_or_default();
    let lookups = format!("{}_count", semconv::CACHE_LOOKUP_DURATION.name);
    let backends: BTreeSet<&str> = [semconv::CACHE_ENTRIES.name, semconv::CACHE_STORES.name, &lookups]
        .iter()
        .flat_map(|name| samples.sums(name, &[], label::BACKEND).into_keys())
        .collect();
    let backend = |name: &str| {
        let of = [(label::BACKEND, name)];
        let gauge = |metric: &semconv::Metric| samples.sum(metric.name, &of).map(whole);
        let lookups = samples.sums(&lookups, &of, label::RESULT);
        Backend {
            entries: gauge(&semconv::CACHE_ENTRIES),
            bytes: gauge(&semconv::CACHE_SIZE),
            capacity_bytes: gauge(&semconv::CACHE_CAPACITY),
            lookups: each_whole(&lookups),
            hit_ratio: hit_ratio(&lookups),
            evictions: each_whole(&samples.sums(semconv::CACHE_EVICTIONS.name, &of, label::REASON)),
            stores: each_whole(&samples.sums(semconv::CACHE_STORES.name, &of, label::RESULT)),
        }
    };
    let all = ["hit", "miss", "expired", "bypass"].map(|result| (result, requests.get(result).copied().unwrap_or(0.0)));
    Counted {
        requests: each_whole(&BTreeMap::from(all)),
        hit_ratio: hit_ratio(&requests),
        saved: Saved {
            tokens: whole(samples.sum(semconv::TOKENS_SAVED.name, &[]).unwrap_or_default()),
            usd: decimal(saved_usd),
        },
        invalidations: each_whole(&samples.sums(semconv::CACHE_INVALIDATIONS.name, &[], label::STRATEGY)),
        backends: backends.into_iter().map(|name| (name.to_owned(), backend(name))).collect(),
    }
}

/// Hits among all look-ups; `None` if there were none.
fn hit_ratio(results: &BTreeMap<&str, f64>) -> Option<f64> {
    let count = |result| results.get(result).copied().unwrap_or_default();
    let lookups = count("hit") + count("miss") + count("expired");
    (lookups > 0.0).then(|| count("hit") / lookups)
}

fn each_whole(counts: &BTreeMap<&str, f64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), whole(*count))).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole and below 2⁵³")]
fn whole(count: f64) -> u64 {
    count as u64
}

/// US dollars as money is written everywhere: decimal, to the pico-dollar, without padding.
fn decimal(usd: f64) -> String {
    let text = format!("{usd:.12}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_in_decimal_dollars_without_padding() {
        for (usd, shown) in [(0.0, "0"), (0.1 + 0.2, "0.3"), (1e-12, "0.000000000001"), (12.5, "12.5"), (100.0, "100")]
        {
            assert_eq!(decimal(usd), shown);
        }
    }

    #[test]
    fn no_password_is_shown() {
        let mut settings =
            json!({"ttl": "1h", "redis": {"url": "rediss://me:secret@host:6379/1", "more": ["redis://:p@h"]}});
        hide_credentials(&mut settings);
        assert_eq!(
            settings,
            json!({"ttl": "1h", "redis": {"url": "rediss://[redacted]@host:6379/1", "more": ["redis://[redacted]@h"]}})
        );
        let mut plain = json!(["redis://host:6379", "a@b", "https://host/path@x"]);
        hide_credentials(&mut plain);
        assert_eq!(plain, json!(["redis://host:6379", "a@b", "https://host/path@x"]));
    }

    #[test]
    fn without_a_look_up_there_is_no_ratio() {
        assert_eq!(hit_ratio(&BTreeMap::from([("hit", 0.0), ("bypass", 9.0)])), None);
        assert_eq!(hit_ratio(&BTreeMap::from([("miss", 2.0)])), Some(0.0));
        assert_eq!(hit_ratio(&BTreeMap::from([("hit", 6.0), ("miss", 1.0), ("expired", 1.0)])), Some(0.75));
    }
}
