//! The operator's commands to the cache: what dies, at once and for good, and what the numbers say of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::client::{Answer, collect};
use crate::support::fake::{Fake, Script, Step};
use crate::support::weir::Weir;

const STATS: &str = "/api/v1/cache/stats";
const CONFIG: &str = "/api/v1/cache/config";
const CLEAR: &str = "/api/v1/cache/clear";
const INVALIDATE: &str = "/api/v1/cache/invalidate";
const OPERATOR: (&str, &str) = ("authorization", "Bearer sesame");

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// A complete answer that says `text`.
fn saying(text: &str) -> Script {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    });
    Script::json(200, body.to_string().as_bytes())
}

fn said(answer: &Answer) -> String {
    answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// Four entries that differ in what an operator may name: `(provider, model, namespace)`.
const ENTRIES: [(&str, &str, Option<&str>); 4] = [
    ("openai", "gpt-5-mini", None),
    ("openai", "gpt-5-mini", Some("team")),
    ("openai", "gpt-5", None),
    ("local", "meta/llama-3", Some("team")),
];

async fn ask(weir: &Weir, (provider, model, namespace): (&str, &str, Option<&str>)) -> Answer {
    let body = json!({ "model": model, "messages": [{"role": "user", "content": "hi"}] }).to_string();
    let headers: Vec<_> = namespace.map(|name| ("x-cache-namespace", name)).into_iter().collect();
    weir.post(&format!("/{provider}/v1/chat/completions"), &headers, body.as_bytes()).await
}

/// Which of the entries are stored, without storing any: `1` for those that are.
async fn stored(weir: &Weir) -> String {
    let mut stored = String::new();
    for (provider, model, namespace) in ENTRIES {
        let body = json!({ "model": model, "messages": [{"role": "user", "content": "hi"}] }).to_string();
        let answer = weir
            .post(
                &format!("/{provider}/v1/chat/completions"),
                &namespace.map(|name| ("x-cache-namespace", name)).into_iter().collect::<Vec<_>>(),
                body.as_bytes(),
            )
            .await;
        stored.push(if answer.header("x-cache") == "HIT" { '1' } else { '0' });
    }
    stored
}

#[tokio::test]
async fn a_filter_removes_what_it_names_and_nothing_else() {
    let fake = Fake::always(saying("hello")).await;
    for (filter, left, strategy) in [
        (json!({"provider": "openai"}), "0001", "provider"),
        (json!({"provider": "open"}), "1111", "provider"),
        (json!({"model": "gpt-5"}), "1101", "model"),
        (json!({"provider": "openai", "model": "gpt-5-mini"}), "0011", "model"),
        (json!({"namespace": "team"}), "1010", "namespace"),
        (json!({"namespace": "team", "provider": "local"}), "1110", "namespace"),
        (json!({"prefix": "openai/gpt-5/"}), "1101", "prefix"),
        (json!({"prefix": "openai/gpt-5"}), "0001", "prefix"),
        (json!({"pattern": "*/team/*"}), "1010", "pattern"),
        (json!({"pattern": "*/gpt-?-mini/-/*"}), "0111", "pattern"),
        (json!({"pattern": "{local,azure}/*"}), "1110", "pattern"),
        (json!({"older_than": "1h"}), "1111", "age"),
        (json!({"older_than": 3600, "provider": "openai"}), "1111", "provider"),
        (json!({"key": "0".repeat(64)}), "1111", "key"),
    ] {
        let weir = Weir::operated(&fake.url(), "").await;
        for entry in ENTRIES {
            ask(&weir, entry).await;
        }
        let answer = weir.command(INVALIDATE, &[OPERATOR], filter.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{filter}: {:?}", answer.body);
        let removed = left.matches('0').count();
        let report = answer.json();
        assert_eq!(report["removed"], removed, "{filter}: {report}");
        assert_eq!(report["strategy"], strategy, "{filter}: {report}");
        assert_eq!(report["other_instances"], false, "nothing is shared");
        assert_eq!(stored(&weir).await, left, "{filter}");
        let counted = format!(r#"weir_cache_invalidations_total{{strategy="{strategy}"}}"#);
        assert_eq!(weir.metric(&counted).await, 1.0);
        let evicted = r#"weir_cache_evictions_total{backend="memory",reason="invalidated"}"#;
        assert_eq!(weir.metric(evicted).await, f64::from(u32::try_from(removed).unwrap()), "{filter}");
        weir.stop().await;
    }
}

#[tokio::test]
async fn clearing_removes_everything() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::operated(&fake.url(), "").await;
    for body in ["", "{}"] {
        for entry in ENTRIES {
            ask(&weir, entry).await;
        }
        let report = weir.command(CLEAR, &[OPERATOR], body.as_bytes()).await.json();
        assert_eq!((&report["removed"], &report["strategy"]), (&json!(4), &json!("all")));
        assert_eq!(weir.metric(r#"weir_cache_entries{backend="memory"}"#).await, 0.0);
    }
    assert_eq!(stored(&weir).await, "0000");
    assert_eq!(weir.metric(r#"weir_cache_invalidations_total{strategy="all"}"#).await, 2.0);
    weir.stop().await;
}

#[tokio::test]
async fn age_is_counted_from_when_an_answer_was_stored() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::operated(&fake.url(), "").await;
    ask(&weir, ENTRIES[0]).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
    ask(&weir, ENTRIES[2]).await;
    let report = weir.command(INVALIDATE, &[OPERATOR], br#"{"older_than":"20s"}"#).await.json();
    assert_eq!(report["removed"], 1);
    assert_eq!(ask(&weir, ENTRIES[2]).await.header("x-cache"), "HIT");
    assert_eq!(ask(&weir, ENTRIES[0]).await.header("x-cache"), "MISS");
    weir.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_answer_nobody_gets_an_old_entry() {
    const ROUNDS: usize = 25;
    // What the provider says now, and what everybody has been told is the least it may say.
    let (current, promised) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let says = Arc::clone(&current);
    let fake = Fake::start(move |_| saying(&says.load(Ordering::SeqCst).to_string())).await;
    let weir = Arc::new(Weir::operated(&fake.url(), "").await);
    let askers: Vec<_> = (0..6)
        .map(|_| {
            let (weir, promised) = (Arc::clone(&weir), Arc::clone(&promised));
            tokio::spawn(async move {
                let mut hits = 0;
                while promised.load(Ordering::SeqCst) < ROUNDS {
                    let least = promised.load(Ordering::SeqCst);
                    let answer = weir.post(CHAT, &[], ASK).await;
                    let is: usize = said(&answer).parse().unwrap();
                    assert!(is >= least, "{is} after {least} was promised: {:?}", answer.header("x-cache"));
                    hits += usize::from(answer.header("x-cache") == "HIT");
                }
                hits
            })
        })
        .collect();
    for round in 1..=ROUNDS {
        let hits = r#"weir_cache_requests_total{provider="openai",model="gpt-5-mini",result="hit"}"#;
        let before = weir.metric(hits).await;
        current.store(round, Ordering::SeqCst);
        let answer = weir.command(INVALIDATE, &[OPERATOR], br#"{"model":"gpt-5-mini"}"#).await;
        assert_eq!(answer.status, 200);
        promised.store(round, Ordering::SeqCst);
        while weir.metric(hits).await == before && round < ROUNDS {
            tokio::task::yield_now().await;
        }
    }
    let mut hits = 0;
    for asker in askers {
        hits += asker.await.unwrap();
    }
    assert!(hits > ROUNDS, "the cache was in use: {hits}");
    Arc::into_inner(weir).unwrap().stop().await;
}

#[tokio::test]
async fn an_answer_that_was_on_its_way_is_not_stored() {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let text = r#"{"id":"c","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    let (head, tail) = text.as_bytes().split_at(60);
    let script = Script::begin(&[("content-type", "application/json")])
        .pieces(&[head])
        .then(Step::Wait(wait))
        .pieces(&[tail])
        .end();
    let fake = Fake::always(script).await;
    let weir = Weir::operated(&fake.url(), "").await;
    let json = [("content-type", "application/json")];
    for (filter, second) in [(r#"{"provider":"openai"}"#, "MISS"), (r#"{"provider":"anthropic"}"#, "HIT")] {
        let on_its_way = weir.client.open(http::Method::POST, &weir.url(CHAT), &json, ASK).await;
        assert_eq!(on_its_way.headers()["x-cache"], "MISS");
        let report = weir.command(INVALIDATE, &[OPERATOR], filter.as_bytes()).await;
        assert_eq!((report.status.as_u16(), &report.json()["removed"]), (200, &json!(0)));
        go_on.notify_one();
        assert_eq!(collect(on_its_way).await.body, text, "the app has its answer all the same");
        weir.settled().await;
        go_on.notify_one();
        assert_eq!(weir.post(CHAT, &[], ASK).await.header("x-cache"), second, "{filter}");
        let report = weir.command(CLEAR, &[OPERATOR], b"").await.json();
        assert_eq!(report["removed"], 1, "what was asked afterwards is stored");
    }
    assert_eq!(weir.metric(r#"weir_cache_stores_total{backend="memory",result="not_cacheable"}"#).await, 1.0);
    weir.stop().await;
}

#[tokio::test]
async fn changes_need_the_token_and_reads_on_this_machine_do_not() {
    let fake = Fake::always(saying("hello")).await;
    let operated = Weir::operated(&fake.url(), "").await;
    let without_token = Weir::before(&fake.url()).await;
    let wrong = [("authorization", "Bearer simsim")];
    for (weir, headers, command, challenge) in [
        (&operated, &[OPERATOR][..], 200, None),
        (&operated, &[("authorization", "bearer sesame")], 200, None),
        (&operated, &[], 401, Some(r#"Bearer realm="weir""#)),
        (&operated, &wrong, 401, Some(r#"Bearer realm="weir", error="invalid_token""#)),
        (&operated, &[("authorization", "Basic c2VzYW1l")], 401, Some(r#"Bearer realm="weir", error="invalid_token""#)),
        (&without_token, &[], 403, None),
        (&without_token, &[OPERATOR], 403, None),
    ] {
        for (path, body) in [(CLEAR, &b""[..]), (INVALIDATE, br#"{"provider":"openai"}"#)] {
            let answer = weir.command(path, headers, body).await;
            assert_eq!(answer.status.as_u16(), command, "{path} {headers:?}: {:?}", answer.body);
            assert_eq!(answer.headers.get("www-authenticate").map(|it| it.to_str().unwrap()), challenge);
            if command != 200 {
                assert_eq!(answer.header("content-type"), "application/problem+json");
                let detail = answer.json()["detail"].as_str().unwrap().to_owned();
                assert!(detail.contains("admin.token_file"), "names the knob: {detail}");
                assert!(!detail.contains("sesame"), "never the token: {detail}");
            }
        }
        for path in [STATS, CONFIG, "/metrics", "/livez", "/readyz", "/version"] {
            assert_eq!(weir.client.get(&format!("{}{path}", weir.admin)).await.status, 200, "{path}");
        }
    }
    operated.stop().await;
    without_token.stop().await;
}

#[tokio::test]
async fn a_new_token_counts_once_it_is_in_the_file() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::operated(&fake.url(), "").await;
    weir.change_token("open-up");
    let new = [("authorization", "Bearer open-up")];
    tokio::time::pause();
    while weir.command(CLEAR, &new, b"").await.status != 200 {
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    tokio::time::resume();
    assert_eq!(weir.command(CLEAR, &[OPERATOR], b"").await.status, 401, "the old one is void");
    weir.stop().await;
}

#[tokio::test]
async fn every_mistake_in_a_command_is_told_at_once() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::operated(&fake.url(), "").await;
    ask(&weir, ENTRIES[0]).await;
    let long = "x".repeat(1025);
    let large = "x".repeat((64 << 10) + 1);
    for (path, body, status, faults) in [
        (INVALIDATE, "", 422, &[("#", "at least one criterion")][..]),
        (INVALIDATE, "{}", 422, &[("#", "/api/v1/cache/clear")]),
        (INVALIDATE, r#"{"provider":null}"#, 422, &[("#", "at least one criterion")]),
        (INVALIDATE, r#"{"provder":"openai"}"#, 422, &[("#", "at least one"), ("#/provder", "`provider`, `model`")]),
        (INVALIDATE, r#"{"model":"m","modell":"m"}"#, 422, &[("#/modell", "unknown")]),
        (INVALIDATE, r#"{"model":5}"#, 422, &[("#/model", "`5` is not a text")]),
        (INVALIDATE, r#"{"model":["m"]}"#, 422, &[("#/model", "a list is not a text")]),
        (INVALIDATE, r#"{"model":""}"#, 422, &[("#/model", "is empty")]),
        (INVALIDATE, &json!({ "model": long }).to_string(), 422, &[("#/model", "at most 1024")]),
        (INVALIDATE, r#"{"older_than":"soon"}"#, 422, &[("#/older_than", "`soon` is not a duration")]),
        (INVALIDATE, r#"{"older_than":1.5}"#, 422, &[("#/older_than", "`1.5` is not a duration")]),
        (INVALIDATE, r#"{"older_than":-1}"#, 422, &[("#/older_than", "`-1` is not a duration")]),
        (INVALIDATE, r#"{"older_than":0}"#, 422, &[("#/older_than", "no time at all")]),
        (INVALIDATE, r#"{"older_than":"0s"}"#, 422, &[("#/older_than", "no time at all")]),
        (INVALIDATE, r#"{"pattern":"openai/[a"}"#, 422, &[("#/pattern", "`openai/[a` is not a pattern")]),
        (INVALIDATE, r#"{"key":"abc"}"#, 422, &[("#/key", "64 hexadecimal digits")]),
        (
            INVALIDATE,
            r#"{"older_than":"soon","key":1,"pattern":"{a","provider":{},"all":true}"#,
            422,
            &[("#/provider", ""), ("#/older_than", ""), ("#/pattern", ""), ("#/key", ""), ("#/all", "unknown")],
        ),
        (INVALIDATE, "[]", 400, &[]),
        (INVALIDATE, "{", 400, &[]),
        (INVALIDATE, r#""openai""#, 400, &[]),
        (INVALIDATE, &large, 413, &[]),
        (CLEAR, r#"{"provider":"openai"}"#, 422, &[("#", "/api/v1/cache/invalidate")]),
    ] {
        let answer = weir.command(path, &[OPERATOR], body.as_bytes()).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(answer.status.as_u16(), status, "{shown}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{shown}");
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        let told = problem["errors"].as_array().cloned().unwrap_or_default();
        let pointers: Vec<_> = told.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
        assert_eq!(pointers, faults.iter().map(|(pointer, _)| *pointer).collect::<Vec<_>>(), "{body}: {problem}");
        for (fault, (_, part)) in told.iter().zip(faults) {
            assert!(fault["detail"].as_str().unwrap().contains(part), "{body}: {fault} has no {part}");
            assert!(problem["detail"].as_str().unwrap().contains(fault["detail"].as_str().unwrap()));
        }
    }
    assert_eq!(weir.client.get(&format!("{}{CLEAR}", weir.admin)).await.status, 405);
    assert_eq!(stored(&weir).await, "1000", "a command with a mistake in it removes nothing");
    weir.stop().await;
}

#[tokio::test]
async fn a_command_that_does_not_end_is_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::operated(&fake.url(), "").await;
    let mut tcp = tokio::net::TcpStream::connect(weir.admin.trim_start_matches("http://")).await.unwrap();
    let head =
        format!("POST {CLEAR} HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer sesame\r\ncontent-length: 9\r\n\r\n{{");
    tcp.write_all(head.as_bytes()).await.unwrap();
    tokio::time::pause();
    let mut answer = [0; 32];
    tcp.read_exact(&mut answer).await.unwrap();
    tokio::time::resume();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    weir.stop().await;
}

#[tokio::test]
async fn the_stats_are_those_of_the_metrics() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::operated(&fake.url(), "").await;
    let stats = async || -> Value { weir.client.get(&format!("{}{STATS}", weir.admin)).await.json() };
    let before = stats().await;
    assert_eq!(before["requests"], json!({"bypass": 0, "expired": 0, "hit": 0, "miss": 0}));
    assert_eq!(before["hit_ratio"], Value::Null, "no look-up, no ratio");
    assert_eq!(before["saved"], json!({"tokens": 0, "usd": "0"}));
    assert_eq!(before["backends"]["memory"]["entries"], 0);

    for _ in 0..4 {
        weir.post(CHAT, &[], ASK).await;
    }
    weir.post(CHAT, &[("cache-control", "no-store")], ASK).await;
    ask(&weir, ENTRIES[2]).await;
    weir.command(INVALIDATE, &[OPERATOR], br#"{"model":"gpt-5"}"#).await;
    weir.settled().await;
    let stats = stats().await;
    assert_eq!(stats["requests"], json!({"bypass": 1, "expired": 0, "hit": 3, "miss": 2}));
    assert_eq!(stats["hit_ratio"], 0.6);
    assert_eq!(stats["saved"]["tokens"], 45);
    let usd: f64 = stats["saved"]["usd"].as_str().expect("a decimal string").parse().unwrap();
    assert!((usd - weir.metric_sum("weir_cost_saved_usd_total{").await).abs() < 1e-12 && usd > 0.0, "{stats}");
    assert_eq!(stats["invalidations"]["model"], 1);
    let memory = &stats["backends"]["memory"];
    assert_eq!(memory["entries"], 1);
    assert_eq!(memory["capacity_bytes"], 64 << 20);
    assert!(memory["bytes"].as_u64().unwrap() > 0);
    assert_eq!(memory["lookups"], json!({"expired": 0, "hit": 3, "miss": 2}));
    assert_eq!(memory["evictions"], json!({"invalidated": 1, "size": 0, "ttl": 0}));
    assert_eq!(memory["stores"]["stored"], 2);
    weir.stop().await;
}

#[tokio::test]
async fn the_config_is_what_is_in_force() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::before_with(&fake.url(), "cache: { ttl: 5m, max_entries: 7 }").await;
    let answer = weir.client.get(&format!("{}{CONFIG}", weir.admin)).await;
    let config = answer.json();
    assert_eq!((&config["ttl"], &config["max_entries"], &config["mode"]), (&json!("5m"), &json!(7), &json!("all")));
    assert_eq!(config["max_bytes"], "64MiB", "defaults too");
    weir.stop().await;
}

const GET: &str = "/api/v1/cache/get";
const SET: &str = "/api/v1/cache/set";
const CALLER: (&str, &str) = ("authorization", "Bearer a");

/// What an app asks that looks aside.
fn question() -> Value {
    json!({"provider": "openai", "model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]})
}

/// `value` with these members laid over it.
fn with(mut value: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("members, not {members}") };
    value.as_object_mut().unwrap().extend(members);
    value
}

async fn aside(weir: &Weir, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    weir.command(path, headers, body.to_string().as_bytes()).await
}

#[tokio::test]
async fn what_was_brought_is_there_until_its_time_is_over() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::before(&fake.url()).await;
    for (response, ttl, seconds) in [
        (json!({"text": "hello", "n": [1, 2.5, null]}), json!({"ttl": 300}), 300),
        (json!("hello"), json!({"ttl": "5m"}), 300),
        (Value::Null, json!({}), 3600),
    ] {
        let miss = aside(&weir, GET, &[CALLER], &with(question(), json!({"namespace": response.to_string()}))).await;
        assert_eq!((miss.status.as_u16(), &miss.json()["hit"]), (200, &json!(false)));
        let brought = with(with(question(), ttl), json!({"namespace": response.to_string(), "response": response}));
        let stored = aside(&weir, SET, &[CALLER], &brought).await;
        assert_eq!(stored.status, 201, "{:?}", stored.body);
        assert_eq!(stored.json(), json!({"key": miss.json()["key"], "ttl_seconds": seconds}));
        let asked = with(question(), json!({"namespace": response.to_string()}));
        let hit = aside(&weir, GET, &[CALLER], &asked).await.json();
        assert_eq!((&hit["hit"], &hit["response"], &hit["key"]), (&json!(true), &response, &stored.json()["key"]));
        assert!(hit["age_seconds"].as_u64().unwrap() < 10 && hit["ttl_seconds"].as_u64().unwrap() <= seconds, "{hit}");
    }
    let asked = with(question(), json!({"request": {"any": "thing"}, "messages": null}));
    aside(&weir, SET, &[], &with(asked.clone(), json!({"response": "brief", "ttl": 20}))).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    assert_eq!(aside(&weir, GET, &[], &asked).await.json()["hit"], false);
    let count = async |result| {
        let series = format!(r#"weir_cache_requests_total{{provider="openai",model="gpt-5-mini",result="{result}"}}"#);
        weir.metric(&series).await
    };
    assert_eq!((count("hit").await, count("expired").await), (3.0, 1.0));
    // Until there was an answer, a model's name deserves no label.
    assert_eq!(weir.metric(r#"weir_cache_requests_total{provider="openai",model="other",result="miss"}"#).await, 1.0);
    assert_eq!(count("miss").await, 2.0);
    assert_eq!(weir.metric(r#"weir_cache_stores_total{backend="memory",result="stored"}"#).await, 4.0);
    assert_eq!(weir.metric_sum("weir_requests_total{").await, 0.0, "nobody called");
    weir.stop().await;
}

#[tokio::test]
async fn who_looks_aside_finds_nobody_elses_answer() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::before(&fake.url()).await;
    let asked = with(question(), json!({"namespace": "team"}));
    aside(&weir, SET, &[CALLER], &with(asked.clone(), json!({"response": "mine"}))).await;
    let caller = [CALLER];
    for (headers, body, hit) in [
        (&caller[..], asked.clone(), true),
        (&[CALLER, ("user-agent", "other")], asked.clone(), true),
        (&[], asked.clone(), false),
        (&[("authorization", "Bearer b")], asked.clone(), false),
        (&[("x-api-key", "Bearer a")], asked.clone(), false),
        (&[CALLER, ("cookie", "session=1")], asked.clone(), false),
        (&caller, question(), false),
        (&caller, with(asked.clone(), json!({"namespace": "other"})), false),
        (&caller, with(asked.clone(), json!({"provider": "azure"})), false),
        (&caller, with(asked.clone(), json!({"model": "gpt-5"})), false),
        (&caller, with(asked.clone(), json!({"messages": []})), false),
        (&caller, with(asked.clone(), json!({"messages": null, "request": asked["messages"]})), false),
    ] {
        assert_eq!(aside(&weir, GET, headers, &body).await.json()["hit"], hit, "{headers:?} {body}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn what_was_brought_never_answers_a_call_nor_a_call_who_looks_aside() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::before(&fake.url()).await;
    let body: Value = serde_json::from_slice(ASK).unwrap();
    for request in [json!({"messages": body["messages"]}), json!({"messages": null, "request": body})] {
        let asked = with(question(), request);
        let brought = with(asked.clone(), json!({"response": "brought"}));
        assert_eq!(aside(&weir, SET, &[CALLER], &brought).await.status, 201);
        assert_eq!(said(&weir.post(CHAT, &[CALLER], ASK).await), "hello");
        assert_eq!(aside(&weir, GET, &[CALLER], &asked).await.json()["response"], "brought", "a call stores elsewhere");
    }
    assert_eq!(fake.received().len(), 1);
    weir.stop().await;
}

#[tokio::test]
async fn what_was_brought_dies_by_the_same_rules() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::operated(&fake.url(), "").await;
    aside(&weir, SET, &[], &with(question(), json!({"response": 1}))).await;
    let report = weir.command(INVALIDATE, &[OPERATOR], br#"{"prefix":"openai/gpt-5-mini/-/"}"#).await.json();
    assert_eq!(report["removed"], 1);
    assert_eq!(aside(&weir, GET, &[], &question()).await.json()["hit"], false);
    weir.stop().await;
}

#[tokio::test]
async fn looking_aside_has_its_bounds() {
    let fake = Fake::always(saying("hello")).await;
    let weir = Weir::before_with(&fake.url(), "cache: { max_entry_bytes: 100 }").await;
    let large = "x".repeat(100 + (64 << 10));
    let set = |members: Value| with(with(question(), json!({"response": 1})), members);
    for (path, body, status, faults) in [
        (GET, json!({}), 422, &["#/provider", "#/model", "#/messages"][..]),
        (SET, json!({}), 422, &["#/provider", "#/model", "#/messages", "#/response"]),
        (GET, json!({"provider": null, "model": 5, "messages": []}), 422, &["#/provider", "#/model"]),
        (GET, with(question(), json!({"request": {}})), 422, &["#/request"]),
        (GET, with(question(), json!({"ttl": 5})), 422, &["#/ttl"]),
        (SET, set(json!({"ttl": 0})), 422, &["#/ttl"]),
        (SET, set(json!({"ttl": "soon"})), 422, &["#/ttl"]),
        (SET, set(json!({"ttl": -5, "namespace": 1, "extra": 1})), 422, &["#/namespace", "#/ttl", "#/extra"]),
        (SET, set(json!({"response": "x".repeat(99)})), 413, &[]),
        (SET, set(json!({"response": "x".repeat(98)})), 201, &[]),
        (SET, set(json!({ "response": large })), 413, &[]),
        (GET, with(question(), json!({ "messages": large })), 413, &[]),
    ] {
        let answer = aside(&weir, path, &[], &body).await;
        let shown: String = body.to_string().chars().take(80).collect();
        assert_eq!(answer.status.as_u16(), status, "{path} {shown}");
        let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
        let pointers: Vec<_> = errors.iter().map(|fault| fault["pointer"].as_str().unwrap().to_owned()).collect();
        assert_eq!(pointers, faults, "{path} {shown}");
    }
    assert_eq!(weir.metric(r#"weir_cache_stores_total{backend="memory",result="too_large"}"#).await, 1.0);
    let page = aside(&weir, GET, &[("origin", "http://page.example")], &question()).await;
    assert_eq!(page.status, 403, "a page in a browser on this machine");
    weir.stop().await;

    for (yaml, status) in [
        ("cache: { mode: off }", [409, 409]),
        ("cache: { rules: [{ model: gpt-5*, mode: off }] }", [409, 409]),
        ("cache: { mode: opt_in }", [200, 201]),
        ("cache: { mode: deterministic }", [200, 201]),
    ] {
        let weir = Weir::before_with(&fake.url(), yaml).await;
        for ((path, body), status) in [(GET, question()), (SET, set(json!({})))].into_iter().zip(status) {
            let answer = aside(&weir, path, &[], &body).await;
            assert_eq!(answer.status.as_u16(), status, "{yaml}: {:?}", answer.body);
            assert_eq!(answer.json()["detail"].as_str().is_some_and(|it| it.contains("`cache.mode`")), status == 409);
        }
        weir.stop().await;
    }
    let ruled = Weir::before_with(&fake.url(), "cache: { rules: [{ namespace: team, ttl: 7s }] }").await;
    assert_eq!(aside(&ruled, SET, &[], &set(json!({"namespace": "team"}))).await.json()["ttl_seconds"], 7);
    assert_eq!(aside(&ruled, SET, &[], &set(json!({"namespace": "team", "ttl": 9}))).await.json()["ttl_seconds"], 9);
    ruled.stop().await;
}
