//! Another configuration while weir runs: taken as a whole or not at all, and no call notices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use weir::admin::reload::Outcome;
use weir::config::knob::schema;
use weir::config::live::NEED_RESTART;

use crate::support::client::{Client, collect};
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::process::Process;
use crate::support::until;
use crate::support::weir::{TOKEN, Weir};

const CHAT: &str = "/openai/v1/chat/completions";

fn ask(question: &str) -> Vec<u8> {
    json!({"model": "gpt-5-mini", "max_tokens": 100_000, "messages": [{"role": "user", "content": question}]})
        .to_string()
        .into_bytes()
}

/// 20 cents: gpt-5-mini is listed at 2 dollars for a million tokens out.
fn answer() -> Script {
    let body = json!({"id": "chatcmpl-1", "model": "gpt-5-mini", "object": "chat.completion",
        "usage": {"prompt_tokens": 0, "completion_tokens": 100_000, "total_tokens": 100_000},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    Script::json(200, body.to_string().as_bytes())
}

fn stream() -> Script {
    let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":100000,\"total_tokens\":100000}}\n\n";
    Script::sse(&[
        b"data: {\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n",
        usage,
        b"data: [DONE]\n\n",
    ])
}

/// Answers by what is asked: a stream, nothing at all, or plainly.
fn by_question(received: &Received) -> Script {
    let body = String::from_utf8_lossy(&received.body).into_owned();
    match body {
        body if body.contains("\"stream\":true") => stream(),
        body if body.contains("hang") => Script::only(vec![Step::Hang]),
        _ if received.target.contains("/api/v1/query") => {
            Script::json(200, br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)
        }
        _ => answer(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_and_nothing_is_forgotten_while_configurations_come_and_go() {
    const APPS: usize = 8;
    const CALLS: usize = 40;
    let fake = Fake::start(by_question).await;
    let budget = |limit: u32, ttl: u32, more: &str| {
        format!(
            "cache: {{ mode: \"off\", ttl: {ttl}s }}\nbudgets: [{{ name: app, limit_usd: {limit}, window: total, enforce: block }}]\nlimits: [{{ name: all, requests_per_minute: {limit} }}]\n{more}"
        )
    };
    let weir = Arc::new(Weir::before_with(&fake.url(), &budget(5000, 60, "")).await);
    let mut apps = JoinSet::new();
    for app in 0..APPS {
        let weir = Arc::clone(&weir);
        apps.spawn(async move {
            for call in 0..CALLS {
                let stream = if call % 2 == 0 { "true" } else { "false" };
                let body = format!(r#"{{"model":"gpt-5-mini","stream":{stream},"messages":[{{"role":"user","content":"{app}-{call}"}}]}}"#);
                let answer = weir.post(CHAT, &[], body.as_bytes()).await;
                assert_eq!(answer.status, 200, "call {call} of app {app}: {:?}", answer.body);
            }
        });
    }
    let mut reloads = 0;
    while !apps.is_empty() {
        reloads += 1;
        let more = if reloads % 2 == 0 { "calls: { max_drains: 7 }\n" } else { "loops: { repeats: 3 }\n" };
        let taken = weir.configure(&fake.url(), &budget(5000 + reloads % 3, 60 + reloads, more)).await;
        assert!(matches!(&taken, Outcome::Taken { changed, .. } if !changed.is_empty()), "{taken:?}");
        while let Some(ended) = apps.try_join_next() {
            ended.expect("every call is answered");
        }
    }
    weir.settled().await;
    assert!(reloads > 3, "there were {reloads}");
    let spent = weir.metric_pico("weir_budget_spent_usd{").await;
    assert_eq!(spent, (APPS * CALLS) as u128 * 200_000_000_000, "what each call cost was counted");
    assert_eq!(weir.metric("weir_config_reloads_total{result=\"success\"}").await, f64::from(reloads));
    assert_eq!(fake.received().len(), APPS * CALLS);
    Arc::into_inner(weir).expect("the apps are gone").stop().await;
}

#[tokio::test]
async fn what_was_spent_stays_spent_and_what_was_stored_stays_stored() {
    let fake = Fake::start(by_question).await;
    let budget = |limit: &str, ttl: &str| {
        format!(
            "cache: {{ ttl: {ttl} }}\nbudgets: [{{ name: app, limit_usd: {limit}, window: total, enforce: block }}]"
        )
    };
    let weir = Weir::operated(&fake.url(), &budget("0.40", "1h")).await;
    assert_eq!(weir.post(CHAT, &[], &ask("one")).await.header("x-cache"), "MISS");
    let taken = weir.configure(&fake.url(), &budget("0.60", "2h")).await;
    let changed = vec!["budgets".to_owned(), "cache.ttl".to_owned()];
    assert_eq!(taken, Outcome::Taken { changed, need_restart: Vec::new(), left_out: Vec::new() });
    assert_eq!(weir.post(CHAT, &[], &ask("one")).await.header("x-cache"), "HIT");
    for (question, status) in [("two", 200), ("three", 200), ("four", 429)] {
        assert_eq!(weir.post(CHAT, &[], &ask(question)).await.status, status, "{question}");
    }
    weir.configure(&fake.url(), &budget("0.80", "2h")).await;
    assert_eq!(weir.post(CHAT, &[], &ask("four")).await.status, 200, "there is room again");
    weir.stop().await;
}

#[tokio::test]
async fn an_open_circuit_stays_open_unless_its_way_is_another() {
    let fake = Fake::always(Script::json(500, br#"{"error":{"message":"no"}}"#)).await;
    let upstream = |more: &str| {
        format!(
            "cache: {{ mode: \"off\" }}\nupstream: {{ breaker: {{ enabled: true, min_attempts: 2, open_for: 1h }}{more} }}"
        )
    };
    let up = async |weir: &Weir| weir.metric(r#"weir_upstream_up{provider="openai"}"#).await;
    let weir = Weir::before_with(&fake.url(), &upstream("")).await;
    for status in [500, 500, 503] {
        assert_eq!(weir.post(CHAT, &[], &ask("one")).await.status, status);
    }
    let other_terms = format!("{}\ncalls: {{ max_drains: 7 }}\nloops: {{ repeats: 3 }}", upstream(""));
    assert!(matches!(weir.configure(&fake.url(), &other_terms).await, Outcome::Taken { .. }));
    let refused = weir.post(CHAT, &[], &ask("one")).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (503, &json!("circuit_open")));
    assert_eq!((up(&weir).await, fake.received().len()), (0.0, 2), "nobody has asked it since");

    assert!(matches!(weir.configure(&fake.url(), &upstream(", idle_timeout: 7m")).await, Outcome::Taken { .. }));
    assert_eq!(up(&weir).await, 1.0, "other connections, of which nothing is known");
    assert_eq!(weir.post(CHAT, &[], &ask("one")).await.status, 500);
    assert_eq!(fake.received().len(), 3);
    weir.stop().await;
}

#[tokio::test]
async fn a_provider_that_is_removed_finishes_its_streams() {
    let go_on = Arc::new(Notify::new());
    let fake = Fake::always(Script::paused_chat(&go_on)).await;
    let weir = Weir::before(&fake.url()).await;
    let (path, body) = ("/local/v1/chat/completions", br#"{"model":"m","stream":true,"messages":[]}"#);
    let answer = weir.client.open(Method::POST, &weir.url(path), &[], body).await;
    let taken = weir.configure_bare("").await;
    assert!(matches!(&taken, Outcome::Taken { changed, .. } if changed.contains(&"providers.local".to_owned())));
    assert_eq!(weir.post(path, &[], body).await.status, 404, "it is gone");
    go_on.notify_one();
    assert!(collect(answer).await.body.ends_with(b"data: [DONE]\n\n"));
    weir.stop().await;
}

#[tokio::test]
async fn an_operator_has_it_read_and_hears_every_mistake_at_once() {
    let fake = Fake::start(by_question).await;
    let weir = Weir::operated(&fake.url(), "").await;
    let token = format!("Bearer {TOKEN}");
    let reload = async || weir.command("/api/v1/reload", &[("authorization", &token)], b"").await;
    assert_eq!(weir.command("/api/v1/reload", &[], b"").await.status, 401);
    let unchanged = json!({ "changed": [], "need_restart": [], "left_out": [] });
    assert_eq!(reload().await.json(), unchanged);

    weir.configure(&fake.url(), "cache: { ttl: soon, mode: most }").await;
    let refused = reload().await;
    assert_eq!((refused.status.as_u16(), refused.header("content-type")), (422, "application/problem+json"));
    let errors = refused.json()["errors"].as_array().cloned().unwrap_or_default();
    let details: Vec<&str> = errors.iter().filter_map(|error| error["detail"].as_str()).collect();
    assert!(
        matches!(&*details, [mode, ttl] if ttl.contains("cache.ttl: `soon`") && mode.contains("cache.mode")),
        "{details:?}"
    );
    assert_eq!(weir.metric("weir_config_last_reload_successful").await, 0.0);
    assert_eq!(weir.post(CHAT, &[], &ask("q")).await.status, 200, "the last good one is in force");

    let some = "cache: { max_bytes: 1MiB, mode: \"off\" }\nledger: { mode: memory }\n";
    let outcome = weir.configure(&fake.url(), some).await;
    let need_restart = vec!["cache.max_bytes".to_owned(), "ledger.mode".to_owned()];
    assert_eq!(outcome, Outcome::Taken { changed: vec!["cache.mode".into()], need_restart, left_out: Vec::new() });
    assert_eq!(weir.metric("weir_config_last_reload_successful").await, 1.0);
    assert_eq!(weir.metric("weir_config_restart_needed").await, 1.0);
    weir.configure(&fake.url(), "cache: { mode: \"off\" }").await;
    assert_eq!(weir.metric("weir_config_restart_needed").await, 0.0);
    weir.stop().await;
}

/// Of each section, something that shows that another one is in force: false before, true after.
async fn shows(section: &str, weir: &Weir, fake: &Fake) -> bool {
    let status = async |path: &str, question: &str| weir.post(path, &[], &ask(question)).await.status;
    let run = &[("x-run-id", "run")];
    let asked = |part: &str| fake.received().iter().any(|received| received.target.contains(part));
    match section {
        "admin" => weir.client.get(&format!("{}/api/v1/limits", weir.admin)).await.status == 401,
        "default_provider" => {
            status("/v1/chat/completions", "default").await;
            asked("/elsewhere/v1/chat/completions")
        }
        "providers" => status("/new/v1/chat/completions", "new").await == 200,
        // Until then it is never answered.
        "upstream" => weir.rooms_now().idle_timeout.as_secs() == 7 && status(CHAT, "hang").await == 504,
        "calls" => weir.post(CHAT, &[], &ask("calls")).await.header("x-cache").is_empty(),
        "cache" => weir.post(CHAT, &[], &ask("cache")).await.header("x-cache") == "BYPASS",
        "loops" => {
            weir.post(CHAT, run, &ask("loop 1")).await;
            weir.post(CHAT, run, &ask("loop 2")).await.status != 200
        }
        "warm" => fake.received().iter().any(|it| String::from_utf8_lossy(&it.body).contains("warmed")),
        "limits" | "budgets" => {
            // Never asked before: what is stored takes nothing of a limit.
            let asked = fake.received().len();
            status(CHAT, &format!("one after {asked}")).await;
            status(CHAT, &format!("two after {asked}")).await == 429
        }
        "fleet_spend" => asked("/api/v1/query"),
        "prices" => weir.client.get(&format!("{}/version", weir.admin)).await.json()["price_table"]["source"]
            .as_str()
            .is_some_and(|source| source.contains("overlay")),
        "privacy" => format!("{:?}", weir.rooms_now().privacy).contains("Redacted"),
        "telemetry" => format!("{:?}", weir.rooms_now().sinks).contains("calls: None"),
        other => panic!("{other} has live knobs, and nothing shows that they are"),
    }
}

const OVERLAY: &str = r#"{ "schema_version": 1, "currency": "USD", "providers": [{ "id": "openai", "models":
    [{ "id": "mine", "match": { "eq": ["mine"] }, "rates": { "input_tokens": "1", "output_tokens": "2" } }] }] }"#;

/// A configuration with another value of something in this section; `dir` is a place for what it names.
fn with_another(section: &str, url: &str, dir: &Path) -> String {
    let (prices, requests) = (dir.join("prices.json"), dir.join("requests.jsonl"));
    match section {
        // These stand below `providers:`.
        "default_provider" => {
            format!("  elsewhere: {{ api: openai, base_url: \"{url}/elsewhere\" }}\ndefault_provider: elsewhere")
        }
        "providers" => format!("  new: {{ api: openai, base_url: \"{url}\" }}"),
        "upstream" => "upstream: { first_byte_timeout: 50ms, idle_timeout: 7s }".to_owned(),
        "calls" => "calls: { response_headers: false }".to_owned(),
        "cache" => "cache: { mode: \"off\" }".to_owned(),
        "loops" => "loops: { max_calls_per_run: 1, on_runaway: block }".to_owned(),
        "warm" => format!("warm: [{{ file: {}, every: 1h }}]", requests.display()),
        "limits" => "limits: [{ name: one, requests_per_minute: 1 }]".to_owned(),
        "budgets" => "budgets: [{ name: none, limit_usd: 0, enforce: block }]".to_owned(),
        "fleet_spend" => format!(
            "budgets: [{{ name: app, limit_usd: 9 }}]\nfleet_spend: {{ prometheus_url: \"{url}\", match: 'job=\"weir\"' }}"
        ),
        "prices" => format!("prices: {{ overlay: {} }}", prices.display()),
        "privacy" => "privacy: { capture: redacted }".to_owned(),
        "telemetry" => "telemetry: { log: { calls: none } }".to_owned(),
        "admin" => String::new(),
        other => panic!("{other} has live knobs, and nothing here changes one"),
    }
}

/// The sections of the configuration that have a knob which needs no restart.
fn live_sections() -> Vec<String> {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    let sections = schema["properties"].as_object().expect("sections");
    sections.iter().filter(|(name, knob)| has_live(knob, name)).map(|(name, _)| name.clone()).collect()
}

fn has_live(shape: &Value, path: &str) -> bool {
    let shape = shape["anyOf"].as_array().and_then(|shapes| shapes.first()).unwrap_or(shape);
    match shape["properties"].as_object() {
        _ if NEED_RESTART.iter().any(|knob| path == *knob || path.starts_with(&format!("{knob}."))) => false,
        Some(knobs) => knobs.iter().any(|(name, knob)| has_live(knob, &format!("{path}.{name}"))),
        None => true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_section_takes_effect_that_is_not_said_to_need_a_restart() {
    let sections = live_sections();
    assert!(sections.len() >= 14, "{sections:?}");
    for section in &sections {
        let fake = Fake::start(by_question).await;
        let weir = Weir::operated(&fake.url(), "").await;
        let request = json!({ "custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
            "body": { "model": "gpt-5-mini", "messages": [{ "role": "user", "content": "warmed" }] } });
        fs::write(weir.files().join("requests.jsonl"), request.to_string()).unwrap();
        fs::write(weir.files().join("prices.json"), OVERLAY).unwrap();
        assert!(!shows(section, &weir, &fake).await, "{section}: before");
        let more = with_another(section, &fake.url(), weir.files());
        let taken = match &**section {
            "admin" => weir.configure_admin(&fake.url(), "require_token: true").await,
            _ => weir.configure(&fake.url(), &more).await,
        };
        let Outcome::Taken { changed, need_restart, .. } = &taken else { panic!("{section}: {taken:?}") };
        assert!(
            need_restart.is_empty() && changed.iter().any(|knob| knob.starts_with(section.as_str())),
            "{section}: {taken:?}"
        );
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while !shows(section, &weir, &fake).await {
            assert!(tokio::time::Instant::now() < deadline, "{section}: has no effect");
            tokio::task::yield_now().await;
        }
        weir.stop().await;
    }
}

/// A `ConfigMap`, mounted as the kubelet does it: what is there is swapped by one symlink.
struct Mounted {
    dir: TempDir,
    version: u32,
}

impl Mounted {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), version: 0 }
    }

    fn holds(&mut self, yaml: &str) {
        self.version += 1;
        let (root, version) = (self.dir.path(), format!("..2026_{}", self.version));
        fs::create_dir(root.join(&version)).unwrap();
        fs::write(root.join(&version).join("weir.yaml"), yaml).unwrap();
        symlink(&version, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        if self.version == 1 {
            symlink("..data/weir.yaml", root.join("weir.yaml")).unwrap();
        }
    }
}

async fn gauge(weir: &Process, name: &str) -> String {
    let answer = Client::default().get(&format!("{}/metrics", weir.admin)).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_config_map_may_come_later_be_newer_be_wrong_and_be_mended() {
    let fake = Fake::start(by_question).await;
    let mut mounted = Mounted::empty();
    let file = mounted.dir.path().join("weir.yaml").display().to_string();
    let defaults = ("WEIR_DEFAULTS", "calls: { response_headers: false }");
    let weir = Process::start(&fake.url(), &["--config-if-present", &file], &[defaults]).await;
    let post = async |question: &str| Client::default().post(&format!("{}{CHAT}", weir.app), &[], &ask(question)).await;
    assert_eq!(post("a").await.header("x-cache"), "", "the cluster's defaults");

    mounted.holds("apiVersion: weir.dev/v1alpha1\ncalls: { response_headers: true, magic: 7 }\n");
    until("the file is taken, by itself", || {
        !weir.told("the configuration has changed: calls.response_headers").is_empty()
    })
    .await;
    assert_eq!(weir.told("calls.magic: unknown name").len(), 1, "a newer file's names are left out, and told of");
    assert_eq!(post("a").await.header("x-cache"), "HIT", "and what was stored is still there");

    mounted.holds("cache: { ttl: soon, mode: most }\n");
    weir.hang_up();
    until("all mistakes are told", || !weir.told("keeping the last good configuration").is_empty()).await;
    assert_eq!(weir.told("a mistake in the configuration").len(), 2);
    assert_eq!(gauge(&weir, "weir_config_last_reload_successful").await, "0");
    assert_eq!(post("a").await.header("x-cache"), "HIT", "the last good one is in force");

    mounted.holds("");
    weir.hang_up();
    until("that it was emptied is told", || !weir.told("the file is empty, and was not").is_empty()).await;
    assert_eq!(post("a").await.header("x-cache"), "HIT", "the last good one is in force");

    mounted.holds("calls: { response_headers: true }\nconnections: { max_connections: 9 }\n");
    weir.hang_up();
    until("what needs a restart is named", || {
        !weir.told("needs a restart for: connections.max_connections").is_empty()
    })
    .await;
    assert_eq!(gauge(&weir, "weir_config_last_reload_successful").await, "1");
    assert_eq!(gauge(&weir, "weir_config_restart_needed").await, "1");
    weir.stop().await;
}
