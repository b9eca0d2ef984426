//! What holds of every question: who may ask, what is described, what is read, and that the numbers are those of the
//! calls.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use axum::body::Body;
use axum::http::{Method, Request};
use axum::{Extension, Router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower_service::Service;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr};

use super::*;
use crate::admin::access::{Access, Peer};
use crate::admin::openapi::described::document;
use crate::admin::router;
use crate::admin::tests::admin;
use crate::admin::tokens::{Bearer, Bounds, Role, Token, Tokens};
use crate::ledger::entry::tests::plain;
use crate::ledger::entry::{Entry, Micros};
use crate::ledger::writer::{self, Writer};
use crate::ledger::{HOUR, Mode, Settings};
use crate::record::usage::{Counter, Usage};
use crate::redact::Redactor;
use crate::units::{PicoUsd, Span};

/// Midnight, 2026-11-02.
const MIDNIGHT: Micros = 1_793_577_600_000_000;
/// The day before.
const THE_DAY: &str = "from=2026-11-01&to=2026-11-02";

/// A call of workspace `of` that was over at `at`; everything that has a name is named after it.
fn call(of: &str, at: Micros) -> Entry {
    let named = |what: &str| Some(format!("{what}-of-{of}").into());
    Entry {
        ended_at: at,
        started_at: at - 1_500_000,
        request_id: format!("{at:x}-of-{of}").into(),
        workspace_id: Some(of.into()),
        namespace: named("namespace"),
        user_id: named("user"),
        agent_id: named("agent"),
        loop_type: named("loop"),
        run_id: named("run"),
        client: named("client"),
        provider: format!("provider-of-{of}").into(),
        model: named("model"),
        response_model: named("model"),
        priced_model: named("model"),
        provider_request_id: named("request"),
        streamed: true,
        usage: Some(Usage::cache_inside(Some(1_000), Some(200), &[(Counter::CacheReadTokens, Some(400))])),
        cost: Some(PicoUsd::new(1_234_567_890)),
        latency: Duration::from_millis(1_500),
        first_token: Some(Duration::from_millis(300)),
        upstream: Some(Duration::from_millis(1_450)),
        bytes_in: 512,
        bytes_out: 4_096,
        ..plain()
    }
}

/// Calls of two workspaces, of a day and of the day before, some of which went otherwise than well.
fn calls() -> Vec<Entry> {
    let mut calls: Vec<Entry> = (1..=20).map(|hours| call("a", MIDNIGHT - hours * HOUR)).collect();
    calls.extend((1..=10).map(|hours| call("a", MIDNIGHT - (24 + hours) * HOUR)));
    calls.extend((1..=7).map(|hours| call("b", MIDNIGHT - hours * HOUR - 1)));
    let (failed, reused, unpriced) = (0, 1, 2);
    calls[failed].outcome = "upstream_error".into();
    calls[failed].error_type = Some("of-a".into());
    calls[failed].error_message = Some("the provider of-a is overloaded".into());
    calls[failed].status = Some(529);
    calls[reused].cache = "hit".into();
    calls[reused].reuse = Some("cache".into());
    calls[reused].saved = calls[reused].cost.replace(PicoUsd::ZERO);
    calls[unpriced].cost = None;
    calls[unpriced].unpriced = Some("unknown_model".into());
    calls
}

/// One in memory, with nothing in it yet, and who writes it.
fn opened() -> (Arc<Ledger>, Writer) {
    let retention = Span::from_secs(100 * 365 * 86_400);
    let settings = Settings { mode: Mode::Memory, retention, ..Settings::default() };
    let redactor = Arc::new(Redactor::new(&[]).expect("what weir knows"));
    let (ledger, writer) = writer::open(&settings, None, redactor, Box::new(|_| ())).expect("one in memory");
    (Arc::new(ledger), writer)
}

/// One with these calls in it.
async fn ledger(calls: Vec<Entry>) -> LedgerSide {
    let (ledger, writer) = opened();
    // It ends with the ledger.
    std::thread::spawn(move || writer.run());
    for call in calls {
        ledger.offer(Arc::new(call), None);
    }
    ledger.audit("admin", "export", json!({ "calls": 3 })).await.expect("it is written");
    ledger.flush().await.expect("it is written");
    LedgerSide::of(Some(ledger), prices())
}

pub(in crate::admin) fn prices() -> Arc<Prices> {
    Arc::new(Prices::load(&crate::price::Settings::default(), Vec::new()).expect("the built-in table"))
}

fn bearer(name: &str, token: &str, role: Role, bounds: Bounds) -> Bearer {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), token).expect("a written file");
    Bearer { name: name.into(), role, bounds, token: Arc::new(Token::from_file(file.path()).expect("a token")) }
}

/// An admin side with a ledger, and tokens: `sesame` opens everything, `mine` what is of workspace a, `me` what is of
/// its user there.
async fn house(require_workspace: bool) -> Router {
    house_of(ledger(calls()).await, require_workspace)
}

/// The same with this ledger.
fn house_of(ledger: LedgerSide, require_workspace: bool) -> Router {
    let a = || Some("a".into());
    let tokens = Tokens::of(vec![
        bearer("admin", "sesame", Role::Admin, Bounds::default()),
        bearer("team-a", "mine", Role::Reader, Bounds { workspace: a(), user: None }),
        bearer("user-a", "me", Role::Reader, Bounds { workspace: None, user: Some("user-of-a".into()) }),
    ]);
    let tokens = Arc::new(tokens.expect("three tokens"));
    let access = Access { tokens, require_workspace, ..Access::default() };
    served(Admin { access, ledger, ..admin() })
}

/// The admin side, asked from this machine.
fn served(admin: Admin) -> Router {
    router(admin).layer(Extension(Peer("127.0.0.1:9".parse().expect("an address"))))
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum By {
    Token(&'static str),
    Workspace(&'static str),
    Anybody,
}

async fn get(house: &Router, path: &str, by: By) -> (u16, String) {
    ask(house, Method::GET, path, by).await
}

async fn ask(house: &Router, method: Method, path: &str, by: By) -> (u16, String) {
    let request = Request::builder().method(method).uri(path);
    let request = match by {
        By::Token(token) => request.header("authorization", format!("Bearer {token}")),
        By::Workspace(name) => request.header("x-workspace-id", name),
        By::Anybody => request,
    };
    let Ok(answer) = house.clone().call(request.body(Body::empty()).expect("a request")).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn json_of(house: &Router, path: &str) -> Value {
    let (status, body) = get(house, path, By::Token("sesame")).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The methods and what they do, as the index has them.
fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let each = [("GET", &item.get), ("PUT", &item.put), ("POST", &item.post), ("DELETE", &item.delete)];
    each.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// Every path that can be read, and what the document says of that.
fn readable(document: &OpenApi) -> Vec<(&str, &Operation)> {
    let each = document.paths.paths.iter();
    each.filter_map(|(path, item)| Some((path.as_str(), item.get.as_ref()?))).collect()
}

fn parameters(operation: &Operation) -> Vec<&str> {
    let each = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.as_str()),
        _ => None,
    });
    each.collect()
}

/// How the time is said that an operation is asked about, by the day or else by `month`.
fn time_of<'a>(operation: &Operation, month: &'a str) -> &'a str {
    let known = parameters(operation);
    match () {
        () if known.contains(&"from") => THE_DAY,
        () if known.contains(&"month") => month,
        () => "",
    }
}

fn is_of_calls(operation: &Operation) -> bool {
    const TAGS: [&str; 5] = ["analytics", "usage", "cost", "performance", "stats"];
    let tags: Vec<&str> = operation.tags.iter().flatten().map(String::as_str).collect();
    tags.iter().any(|tag| TAGS.contains(tag)) && operation.operation_id.as_deref() != Some("cost_budget")
}

#[tokio::test]
async fn no_answer_for_one_workspace_names_anything_of_another() {
    let house = house(false).await;
    let document = document();
    let mut told_of_b = 0;
    for (path, operation) in readable(&document) {
        let window = time_of(operation, "month=2026-11");
        // What goes on for ever has no whole answer; who is bound gets a refusal.
        if !path.ends_with("/live") {
            let (_, everything) = get(&house, &format!("{path}?{window}"), By::Token("sesame")).await;
            told_of_b += u32::from(everything.contains("of-b"));
        }
        for by in [By::Token("mine"), By::Token("me"), By::Workspace("a")] {
            let (status, body) = get(&house, &format!("{path}?{window}"), by).await;
            let is_open = is_of_calls(operation) || operation.operation_id.as_deref() == Some("openapi");
            // Who shows no token is not known; who shows a reader's may not.
            let is_admins = ["/api/v1/audit", "/api/v1/analytics/content"].contains(&path);
            let closed = if is_admins && matches!(by, By::Workspace(_)) { 401 } else { 403 };
            assert_eq!(status, if is_open { 200 } else { closed }, "{path} {by:?}: {body}");
            assert!(!body.contains("of-b"), "{path} {by:?}: {body}");
            for (name, value) in parameters(operation).into_iter().flat_map(|name| {
                ["b", "user-of-b", "agent-of-b", "workspace", "agent", "model"].map(|value| (name, value))
            }) {
                let url = format!("{path}?{window}&{name}={value}");
                let (status, body) = get(&house, &url, by).await;
                // What was asked for may be told; nothing else of it.
                let body = body.replace(&format!("`{value}`"), "");
                let is_echo = name == "namespace" && status == 200;
                assert!(is_echo || !body.contains("of-b"), "{url} {by:?}: {body}");
            }
        }
    }
    assert!(told_of_b >= 5, "without a bound, what is bound would be seen: {told_of_b}");
}

#[tokio::test]
async fn asking_for_what_is_anothers_is_refused_and_a_workspace_can_be_mandatory() {
    let (house, strict) = (house(false).await, house(true).await);
    let path = "/api/v1/usage/overview";
    for (house, query, by, expected) in [
        (&house, "?workspace=b", By::Token("mine"), 403),
        (&house, "?workspace_id=b", By::Workspace("a"), 403),
        (&house, "?workspace=a", By::Token("mine"), 200),
        (&house, "?user=user-of-b", By::Token("me"), 403),
        (&house, "?workspace=b", By::Token("sesame"), 200),
        (&strict, "", By::Anybody, 400),
        (&strict, "", By::Token("sesame"), 400),
        (&strict, "", By::Token("mine"), 200),
        (&strict, "", By::Workspace("a"), 200),
        (&strict, "?workspace=b", By::Workspace("a"), 403),
    ] {
        let (status, body) = get(house, &format!("{path}{query}"), by).await;
        assert_eq!(status, expected, "{query} {by:?}: {body}");
    }
}

#[tokio::test]
async fn what_is_described_is_served_and_what_is_served_is_described() {
    let house = house(false).await;
    let document = document();
    let (_, index) = get(&house, "/", By::Anybody).await;
    for (path, item) in &document.paths.paths {
        let served = path.replace("{name}", "app");
        for (method, operation) in operations(item) {
            assert!(operation.summary.as_ref().is_some_and(|it| it.len() > 10), "{method} {path} says what it is");
            assert!(index.contains(&format!("{method:<6} {path}")), "{method} {path}");
            let request = Request::builder().method(method).uri(&served).body(Body::empty());
            let Ok(answer) = house.clone().call(request.expect("a request")).await;
            let status = answer.status().as_u16();
            let known: Vec<&String> = operation.responses.responses.keys().collect();
            assert!(known.iter().any(|known| **known == status.to_string()), "{method} {path}: {status}");
        }
        let request = Request::builder().method(Method::PATCH).uri(&served).body(Body::empty());
        let Ok(answer) = house.clone().call(request.expect("a request")).await;
        let allowed = answer.headers()["allow"].to_str().expect("text").split(',').filter(|method| *method != "HEAD");
        let mut described: Vec<&str> = operations(item).map(|(method, _)| method).collect();
        described.sort_unstable();
        let mut allowed: Vec<&str> = allowed.collect();
        allowed.sort_unstable();
        assert_eq!(allowed, described, "{path}");
    }
    // No router tells what it has.
    let sources = [include_str!("../mod.rs"), include_str!("mod.rs")];
    let routes = sources.iter().flat_map(|source| source.split(".route(\"/api/v1/").skip(1));
    let served: BTreeSet<String> =
        routes.filter_map(|route| Some(format!("/api/v1/{}", route.split_once('"')?.0))).collect();
    assert!(served.iter().eq(document.paths.paths.keys()), "{served:?}");
}

#[tokio::test]
async fn every_parameter_that_is_described_is_read() {
    let house = house(false).await;
    let document = document();
    for (path, operation) in readable(&document) {
        for name in parameters(operation) {
            // No name, no number and no word has a NUL in it: what is read, is refused.
            let (status, body) = get(&house, &format!("{path}?{name}=%00"), By::Token("sesame")).await;
            assert_eq!(status, 400, "{path}?{name}: {body}");
            let problem: Value = serde_json::from_str(&body).expect("JSON");
            let fault = json!({ "parameter": name, "detail": "has a NUL in it, which no name has" });
            assert!(problem["errors"].as_array().is_some_and(|all| all.contains(&fault)), "{path}?{name}: {body}");
        }
        if !parameters(operation).is_empty() {
            let (status, body) = get(&house, &format!("{path}?nonsense=1"), By::Token("sesame")).await;
            assert!(status == 400 && body.contains("`nonsense` is unknown"), "{path}: {body}");
        }
    }
}

#[tokio::test]
async fn the_numbers_are_those_of_the_calls() {
    let house = house(false).await;
    let usage = json_of(&house, &format!("/api/v1/usage/overview?{THE_DAY}&workspace=a")).await;
    for (member, expected) in [
        ("total_calls", json!(20)),
        ("unique_users", json!(1)),
        ("active_agents", json!(1)),
        ("avg_calls_per_user", json!(20.0)),
        ("input_tokens", json!(19_000)),
        ("saved_tokens", json!(1_200)),
        ("previous_total_calls", json!(10)),
        ("change_from_previous", json!(1.0)),
        ("hit_rate", json!(0.05)),
    ] {
        assert_eq!(usage[member], expected, "{member}");
    }
    let path = format!("/api/v1/cost/overview?{THE_DAY}&workspace=a");
    let (_, cost) = get(&house, &path, By::Token("sesame")).await;
    // 18 calls of $0.00123456789: one was reused, and of one the price is not known.
    assert!(cost.contains("\"total_spend_usd\":0.02222222202,"), "{cost}");
    assert!(cost.contains("\"saved_usd\":0.00123456789,"), "{cost}");
    let cost: Value = serde_json::from_str(&cost).expect("JSON");
    assert_eq!((&cost["unpriced_calls"], &cost["budget_limit_usd"]), (&json!(1), &json!(null)));
    let speed = json_of(&house, &format!("/api/v1/performance/overview?{THE_DAY}&workspace=a")).await;
    assert_eq!((&speed["p50_latency_ms"], &speed["p99_latency_ms"]), (&json!(1_500.0), &json!(1_500.0)));
    assert_eq!((&speed["error_rate"], &speed["success_rate"]), (&json!(0.05), &json!(0.95)));
    let nothing = json_of(&house, "/api/v1/performance/overview?from=2020-01-01&to=2020-01-02").await;
    for unknown in ["p50_latency_ms", "avg_latency_ms", "error_rate", "success_rate"] {
        assert_eq!(nothing[unknown], json!(null), "{unknown}: nothing is known of nothing");
    }
}

#[tokio::test]
async fn pages_lead_through_all_calls_once() {
    let house = house(false).await;
    for order in ["newest", "oldest"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/analytics/logs?{THE_DAY}&limit=4&order={order}{cursor}");
            let page = json_of(&house, &path).await;
            let logs = page["logs"].as_array().expect("a list");
            assert!(logs.len() <= 4);
            seen.extend(logs.iter().map(|call| call["timestamp"].as_str().expect("a time").to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 27, "{order}");
        assert!(seen.is_sorted_by(|one, other| if order == "newest" { one > other } else { one < other }));
    }
}

#[tokio::test]
async fn without_a_ledger_the_knob_is_named_and_one_that_is_busy_says_when() {
    let off = served(admin());
    let (status, body) = get(&off, "/api/v1/usage/overview", By::Anybody).await;
    assert!(status == 404 && body.contains("`ledger.mode`"), "{body}");
    let (unopened, _writer) = opened();
    let closed = LedgerSide::of(Some(unopened), prices());
    let closed = served(Admin { ledger: closed, ..admin() });
    let (status, body) = get(&closed, "/api/v1/usage/overview", By::Anybody).await;
    assert!(status == 503 && body.contains("ask again in a second"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_no_turn_is_sent_away() {
    let ledger = ledger(calls()).await;
    let turns = Arc::clone(&ledger.turns).acquire_many_owned(4).await.expect("all of them");
    let house = served(Admin { ledger, ..admin() });
    let (status, body) = get(&house, "/api/v1/usage/overview", By::Anybody).await;
    assert!(status == 503 && body.contains("too many questions"), "{body}");
    drop(turns);
}

#[tokio::test]
async fn whoever_is_erased_is_in_no_answer_and_the_money_is() {
    let house = house(false).await;
    let whole = format!("/api/v1/usage/top-users?{THE_DAY}");
    assert!(get(&house, &whole, By::Token("sesame")).await.1.contains("user-of-b"));
    let spent = format!("/api/v1/analytics/stats?{THE_DAY}");
    let before = json_of(&house, &spent).await;
    for (rule, query, by, expected) in [
        ("only with a token", "?user=user-of-b", By::Anybody, 401),
        ("only by an admin", "?user=user-of-b", By::Token("mine"), 403),
        ("somebody", "", By::Token("sesame"), 400),
        ("only that", "?user=user-of-b&model=x", By::Token("sesame"), 400),
        ("well", "?user=user-of-b", By::Token("sesame"), 200),
        ("once more", "?user_id=user-of-b", By::Token("sesame"), 200),
    ] {
        let (status, body) = ask(&house, Method::DELETE, &format!("/api/v1/analytics/logs{query}"), by).await;
        assert_eq!(status, expected, "{rule}: {body}");
        let calls = serde_json::from_str::<Value>(&body).expect("JSON")["erased_calls"].as_u64();
        let expected = match rule {
            "well" => Some(7),
            "once more" => Some(0),
            _ => None,
        };
        assert_eq!(calls, expected, "{rule}: {body}");
    }
    for path in [&whole, &format!("/api/v1/analytics/logs?{THE_DAY}&limit=100"), "/api/v1/audit"] {
        assert!(!get(&house, path, By::Token("sesame")).await.1.contains("user-of-b"), "{path}");
    }
    assert_eq!(json_of(&house, &spent).await, before, "the sums still equal the bill");
    let audit = json_of(&house, "/api/v1/audit?limit=1").await;
    assert_eq!((&audit["audit"][0]["who"], &audit["audit"][0]["action"]), (&json!("admin"), &json!("erase_user")));
    assert!(audit["next_cursor"].is_string(), "there were more");
}

#[tokio::test]
async fn an_export_is_every_call_in_the_form_asked_for() {
    let house = house(false).await;
    for (query, lines, first) in [
        ("", 27 + 1, "timestamp,"),
        ("&format=ndjson", 27, "{"),
        ("&format=ndjson&agent_id=agent-of-b", 7, "{"),
        ("&format=ndjson&error_type=of-a", 1, "{"),
        ("&format=ndjson&run_id=run-of-b", 7, "{"),
        ("&format=csv&after=2026-11-01T12:00:00Z", 18, "2026-11-01T13:00:00.000000Z,"),
        ("&format=ndjson&workspace=nobody", 0, ""),
    ] {
        let (status, body) = get(&house, &format!("/api/v1/analytics/export?{THE_DAY}{query}"), By::Anybody).await;
        assert_eq!((status, body.lines().count()), (200, lines), "{query}: {body}");
        assert!(body.starts_with(first), "{query}: {body}");
    }
    for (query, says) in [
        ("format=xml", "`format` is `xml`: write one of"),
        ("format=parquet&compression=gzip", "`compression` parquet is compressed within"),
        ("format=json&after=2026-11-01", "`after` only csv and ndjson can be gone on with"),
        ("after=soon", "`after` is `soon`: write the `timestamp`"),
    ] {
        let (status, body) = get(&house, &format!("/api/v1/analytics/export?{query}"), By::Anybody).await;
        assert!(status == 400 && body.contains(says), "{query}: {body}");
    }
    let stats = json_of(&house, &format!("/api/v1/analytics/export-stats?{THE_DAY}&workspace=b")).await;
    assert_eq!((&stats["rows"], &stats["format"]), (&json!(7), &json!("csv")));
    assert!(stats["estimated_bytes"].as_u64().is_some_and(|bytes| bytes > 7 * 200), "{stats}");
}

#[tokio::test]
async fn exports_are_few_at_once_and_noted() {
    let ledger = ledger(calls()).await;
    let writes = Arc::clone(ledger.ledger.as_ref().expect("there is one"));
    let exports = Arc::clone(&ledger.exports);
    let house = served(Admin { ledger, ..admin() });
    let path = format!("/api/v1/analytics/export?{THE_DAY}");
    assert_eq!(get(&house, &path, By::Anybody).await.0, 200);
    let all = exports.acquire_many(2).await.expect("given back once an export is over");
    let (status, body) = get(&house, &path, By::Anybody).await;
    assert!(status == 503 && body.contains("as many exports"), "{body}");
    drop(all);
    let deeds = writes.reader().audit(None, 1).expect("the ledger answers");
    assert_eq!((&*deeds[0].who, &*deeds[0].action), ("this machine", "export"));
}

#[tokio::test]
async fn whoever_hangs_up_ends_an_export() {
    let many: Vec<Entry> = (1..=3_000).map(|number| call("a", MIDNIGHT - number)).collect();
    let ledger = ledger(many).await;
    let exports = Arc::clone(&ledger.exports);
    let house = served(Admin { ledger, ..admin() });
    let request = Request::builder().uri(format!("/api/v1/analytics/export?{THE_DAY}")).body(Body::empty());
    let Ok(answer) = house.clone().call(request.expect("a request")).await;
    let mut body = answer.into_body();
    assert!(body.frame().await.is_some(), "it has begun");
    assert_eq!(exports.available_permits(), 1, "and waits: so much is not taken unread");
    drop(body);
    drop(exports.acquire_many(2).await.expect("given back"));
}

#[tokio::test]
async fn a_statement_is_a_page_that_runs_nothing() {
    let house = house(false).await;
    let path = "/api/v1/cost/statement?month=2026-10&workspace_id=a";
    let request = Request::builder().uri(format!("{path}&format=html")).body(Body::empty());
    let Ok(answer) = house.clone().call(request.expect("a request")).await;
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    assert!(answer.headers()["content-security-policy"].as_bytes().starts_with(b"default-src 'none'"));
    let (_, body) = get(&house, path, By::Anybody).await;
    // Ten calls of $0.00123456789.
    assert!(body.contains("\"cost_usd\": 0.0123456789,"), "{body}");
    for (query, says) in [("month=2026-13", "such as `2026-10`"), ("budget_usd=much", "such as `500`")] {
        let (status, body) = get(&house, &format!("/api/v1/cost/statement?{query}"), By::Anybody).await;
        assert!(status == 400 && body.contains(says), "{body}");
    }
}

#[tokio::test]
async fn what_if_names_models_that_nobody_lists() {
    let house = house(false).await;
    let path = format!("/api/v1/cost/what-if?{THE_DAY}");
    let (status, body) = get(&house, &format!("{path}&model=gpt-5-mni"), By::Anybody).await;
    assert!(status == 400 && body.contains("did you mean `gpt-5-mini`?"), "{body}");
    let answer = json_of(&house, &format!("{path}&model=openai/gpt-5-mini,gpt-5&of_model=model-of-a")).await;
    assert_eq!((&answer["calls"], &answer["is_complete"]), (&json!(20), &json!(true)));
    let first = &answer["alternatives"][0];
    // 600 tokens at 0.25 USD a million, 400 cached at 0.025, 200 out at 2: for eighteen calls.
    assert_eq!(first["would_have_cost_usd"].to_string(), "0.01008");
    assert_eq!(answer["alternatives"][1]["left_out_calls"], json!({ "no_cost": 1, "no_price": 18 }));
}

#[test]
fn a_call_is_described_as_it_is_written() {
    let shown = serde_json::to_value(call("a", MIDNIGHT)).expect("JSON");
    let schema = serde_json::to_value(<logs::Call as utoipa::PartialSchema>::schema()).expect("JSON");
    let described = schema["properties"].as_object().expect("an object");
    let counts = ["cache_read_tokens"];
    for name in shown.as_object().expect("an object").keys().filter(|name| !counts.contains(&name.as_str())) {
        assert!(described.contains_key(name), "{name} is not described");
    }
    for name in schema["required"].as_array().expect("a list") {
        assert!(shown.get(name.as_str().expect("a name")).is_some(), "{name} is not written");
    }
}

/// Compares a file of docs/ with what it has to be, or writes it.
fn is_current(name: &str, current: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, current).expect("docs can be written");
    }
    let copy = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(copy == current, "docs/{name} is not current: run UPDATE_EXPECT=1 cargo test --lib api_docs");
}

#[test]
fn the_document_is_current_api_docs() {
    is_current("openapi.json", &(document().to_pretty_json().expect("plain data") + "\n"));
}

#[tokio::test]
async fn the_page_for_reading_is_current_api_docs() {
    const MARK: &str = "<!-- From here on, a test writes what the API answers. -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    let (prose, _) = page.split_once(MARK).expect("the page has a mark");
    is_current("api.md", &format!("{prose}{MARK}{}", examples().await));
}

/// What each question is answered, of a few calls that are always the same.
async fn examples() -> String {
    let (house, document, mut page) = (house(false).await, document(), String::new());
    page.push_str("\n| | |\n|---|---|\n");
    let all = || readable(&document).into_iter().filter(|(path, it)| is_of_calls(it) || path.ends_with("audit"));
    for (path, operation) in all() {
        let anchor = path.trim_start_matches("/api/v1/").replace('/', "");
        let summary = operation.summary.as_deref().unwrap_or_default().trim();
        writeln!(page, "| [`{path}`](#{anchor}) | {summary} |").expect("a String takes all");
    }
    for (path, operation) in all() {
        let known = parameters(operation);
        // A month that is over: what it has come to changes no more.
        let time = time_of(operation, "month=2026-10");
        let mut query = if time.is_empty() { String::new() } else { format!("?{time}") };
        query.push_str(if known.contains(&"workspace_id") { "&workspace_id=a" } else { "" });
        query.push_str(if known.contains(&"granularity") { "&granularity=daily" } else { "" });
        query.push_str(if known.contains(&"cursor") && !query.is_empty() { "&limit=1" } else { "" });
        query.push_str(if known.contains(&"format") { "&format=json" } else { "" });
        let mut answer = json_of(&house, &format!("{path}{query}")).await;
        for deed in answer.get_mut("audit").and_then(Value::as_array_mut).into_iter().flatten() {
            deed["timestamp"] = json!("2026-11-02T09:30:00.250125Z");
        }
        if let Value::Array(rows) = &mut answer {
            rows.truncate(1);
        }
        // The month that is now is another one each month.
        if let Some(month) = answer.get_mut("month_to_date_spend_usd") {
            *month = json!(0.04);
            answer["projected_monthly_spend_usd"] = json!(0.12);
        }
        let curl = if path.ends_with("audit") { " -H \"Authorization: Bearer $(cat token)\"" } else { "" };
        let shown = serde_json::to_string_pretty(&answer).expect("JSON");
        let title = path.trim_start_matches("/api/v1/");
        let summary = operation.summary.as_deref().unwrap_or_default().trim();
        let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        write!(
            page,
            "\n## {title}\n\n{summary} Parameters: {known}.\n\n```sh\ncurl -s{curl} \
             '127.0.0.1:9348{path}{query}'\n```\n\n```json\n{shown}\n```\n"
        )
        .expect("a String takes all");
    }
    page
}
