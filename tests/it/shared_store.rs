//! Replicas share answers in a Redis, which may fail in every way: no call does.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Commands;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weir::cache::invalidation::Filter;
use weir::store::{Settings, Store, Unavailable};
use weir::units::Span;

use crate::support::fake::{Fake, Script};
use crate::support::redis::{Fault, Proxy, Redis, cluster, free_port, is_here};
use crate::support::tls::Identity;
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"the blue prompt"}]}"#;
const ANSWER: &[u8] = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"the green answer"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const KEY: (&str, &str) = ("authorization", "Bearer sk-violet");
const NAMESPACE: (&str, &str) = ("x-cache-namespace", "crimson");
const STORED: &str = r#"weir_cache_stores_total{backend="redis",result="stored"}"#;
const UP: &str = "weir_shared_store_up";
/// Longer than any machine is busy with something else.
const PATIENT: &str = "deadline: 2s";

fn failed(operation: &str) -> String {
    format!(r#"weir_cache_errors_total{{backend="redis",operation="{operation}"}}"#)
}

/// Replicas: weirs with one secret before one provider.
struct House {
    fake: Fake,
    secret: tempfile::NamedTempFile,
}

impl House {
    async fn new() -> Self {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
        Self { fake: Fake::always(Script::json(200, ANSWER)).await, secret }
    }

    async fn weir(&self, url: &str, more: &str) -> Weir {
        self.weir_with(url, more, "").await
    }

    /// The same, with more of the cache's settings.
    async fn weir_with(&self, url: &str, more: &str, cache: &str) -> Weir {
        let secret = self.secret.path().display();
        let redis = format!("cache: {{ {cache} redis: {{ url: \"{url}\", secret_file: {secret}, {more} }} }}");
        let weir = Weir::before_with(&self.fake.url(), &redis).await;
        becomes(&weir, UP, 1.0).await;
        becomes_current(&weir).await;
        weir
    }

    /// A weir that is patient with its server.
    async fn replica(&self, redis: &Redis) -> Weir {
        self.weir(&redis.url(), PATIENT).await
    }

    fn asked(&self) -> usize {
        self.fake.received().len()
    }
}

/// Waits until a series has this value.
async fn becomes(weir: &Weir, series: &str, value: f64) {
    grows(weir, series, |now| now == value).await;
}

async fn grows(weir: &Weir, series: &str, holds: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    loop {
        let now = weir.metric(series).await;
        if holds(now) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{series} is {now}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn lookups(backend: &str, result: &str) -> String {
    format!(r#"weir_cache_lookup_duration_seconds_count{{backend="{backend}",result="{result}"}}"#)
}

fn ask(number: usize) -> Vec<u8> {
    format!(r#"{{"model":"gpt-5-mini","messages":[{{"role":"user","content":"question {number}"}}]}}"#).into_bytes()
}

/// Asks, and waits until the answer is written for the others.
async fn ask_and_share(weir: &Weir, body: &[u8]) {
    let before = weir.metric(STORED).await;
    assert_eq!(weir.post(CHAT, &[KEY], body).await.header("x-cache"), "MISS");
    grows(weir, STORED, |now| now > before).await;
}

#[tokio::test]
async fn what_one_replica_asked_answers_at_the_other() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let (one, other) = (house.replica(&redis).await, house.replica(&redis).await);
    let before = house.asked();
    let (hits_before, misses_before) =
        (other.metric(&lookups("redis", "hit")).await, other.metric(&lookups("memory", "miss")).await);
    let name = name_of_new(&redis, ask_and_share(&one, ASK)).await;
    let found = other.post(CHAT, &[KEY], ASK).await;
    assert_eq!((found.header("x-cache"), &found.body[..]), ("HIT", ANSWER));
    assert_eq!(found.header("content-type"), "application/json");
    assert!(found.header("age").parse::<u64>().unwrap() < 10);
    assert!(found.header("cache-status").starts_with("weir; hit; ttl=35"), "{}", found.header("cache-status"));
    assert_eq!(house.asked(), before + 1);

    other.settled().await;
    let writes = async |what: &str| one.metric(&format!(r#"weir_queue_{what}{{queue="cache_writes"}}"#)).await;
    assert_eq!([writes("length").await, writes("capacity").await, writes("dropped_total").await], [0.0, 1024.0, 0.0]);
    assert_eq!(other.metric(&lookups("memory", "miss")).await, misses_before + 1.0);
    assert_eq!(other.metric(&lookups("redis", "hit")).await, hits_before + 1.0);
    assert_eq!(other.metric_sum("weir_tokens_saved_total{").await, 15.0, "what it used came with it");
    let hits = r#"weir_cache_requests_total{provider="openai",model="gpt-5-mini",result="hit"}"#;
    assert_eq!(other.metric(hits).await, 1.0);

    assert_eq!(other.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT");
    other.settled().await;
    assert_eq!(other.metric(&lookups("memory", "hit")).await, 1.0, "from then on it is in memory");
    assert_eq!(other.post(CHAT, &[("authorization", "Bearer other")], ASK).await.header("x-cache"), "MISS");
    let lives: i64 = redis.ask(&["PTTL", &name]);
    assert!((7_100_000..=7_200_000).contains(&lives), "it is forgotten when it is of no use any more: {lives}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_one_replica_asked_answers_in_another_form_at_the_other() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let (url, crossing) = (redis.url(), "cross_mode: true,");
    let one = house.weir_with(&url, PATIENT, crossing).await;
    let other = house.weir_with(&url, PATIENT, crossing).await;
    let before = house.asked();
    ask_and_share(&one, ASK).await;
    let asking = String::from_utf8(ASK.to_vec()).unwrap().replacen('{', r#"{"stream":true,"#, 1);
    let stream = other.post(CHAT, &[KEY], asking.as_bytes()).await;
    assert_eq!(stream.header("x-cache"), "HIT");
    assert!(stream.header("cache-status").ends_with("detail=rendered"), "{}", stream.header("cache-status"));
    let text = String::from_utf8(stream.body.to_vec()).unwrap();
    assert!(text.contains("the green answer") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(house.asked(), before + 1);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_stream_is_shared_byte_for_byte() {
    if !is_here() {
        return;
    }
    let pieces: [&[u8]; 2] = [
        b"data: {\"id\":\"c\",\"model\":\"gpt-5-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n",
        b"data: {\"id\":\"c\",\"model\":\"gpt-5-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n",
    ];
    let redis = Redis::start().await;
    let house = House { fake: Fake::always(Script::sse(&pieces)).await, ..House::new().await };
    let (one, other) = (house.replica(&redis).await, house.replica(&redis).await);
    let ask = br#"{"model":"gpt-5-mini","stream":true,"messages":[]}"#;
    let before = one.metric(STORED).await;
    let first = one.post(CHAT, &[KEY], ask).await;
    grows(&one, STORED, |now| now > before).await;
    let second = other.post(CHAT, &[KEY], ask).await;
    assert_eq!((second.header("x-cache"), second.header("content-type")), ("HIT", "text/event-stream"));
    assert_eq!(first.body, second.body);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_weir_finds_the_answers_of_its_earlier_life() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let first = house.replica(&redis).await;
    for number in 0..20 {
        ask_and_share(&first, &ask(number)).await;
    }
    first.stop().await;
    let second = house.replica(&redis).await;
    let before = house.asked();
    for number in 0..20 {
        assert_eq!(second.post(CHAT, &[KEY], &ask(number)).await.header("x-cache"), "HIT", "{number}");
    }
    assert_eq!(house.asked(), before);
    second.stop().await;
}

/// Waits until a weir has read the rules, without which it trusts nothing that is shared.
async fn becomes_current(weir: &Weir) {
    let begun = Instant::now();
    for number in 1_000_000.. {
        weir.post(CHAT, &[KEY, ("x-cache-namespace", &weir.app)], &ask(number)).await;
        if weir.metric(&lookups("redis", "miss")).await > 0.0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn whoever_reads_the_server_learns_nothing() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let weir = house.replica(&redis).await;
    let before = weir.metric(STORED).await;
    weir.post(CHAT, &[KEY, NAMESPACE], ASK).await;
    grows(&weir, STORED, |now| now > before).await;
    let now = Instant::now();
    weir.cache().invalidate(Filter { namespace: Some("crimson".into()), ..Filter::default() }, now, now);
    until_rules(&redis, 2).await;
    let dump = redis.dir().join("dump.rdb");
    redis.ask::<()>(&["CONFIG", "SET", "rdbcompression", "no"]);
    redis.ask::<()>(&["SAVE"]);
    let dump = std::fs::read(dump).unwrap();
    assert!(dump.windows(11).any(|bytes| bytes == b"weir:answer"), "it is the dump");
    for secret in ["blue", "green", "answer\"", "violet", "crimson", "openai", "gpt-5", "choices", "0123456789abcdef"] {
        let found = dump.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!found, "`{secret}` is in the dump");
    }
    weir.stop().await;
}

async fn until_rules(redis: &Redis, count: usize) {
    let begun = Instant::now();
    while redis.ask::<usize>(&["XLEN", "weir:rules"]) < count {
        assert!(begun.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_does_not_belong_there_is_ignored_and_counted() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let writer = house.replica(&redis).await;
    let first = name_of_new(&redis, ask_and_share(&writer, &ask(1))).await;
    let second = name_of_new(&redis, ask_and_share(&writer, &ask(2))).await;
    let mut server = redis.connection();
    let good: Vec<u8> = server.get(&first).unwrap();
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let other: Vec<u8> = server.get(&second).unwrap();
    let huge = vec![1; 2 << 20];
    for (what, value) in [
        ("foreign", &b"hello"[..]),
        ("empty", b""),
        ("damaged", &damaged),
        ("cut", &good[..good.len() / 2]),
        ("moved from another key", &other),
        ("larger than any answer", &huge),
    ] {
        let () = server.set(&first, value).unwrap();
        let reader = house.replica(&redis).await;
        let before = reader.metric(&failed("get")).await;
        assert_eq!(reader.post(CHAT, &[KEY], &ask(1)).await.header("x-cache"), "MISS", "{what}");
        assert_eq!(reader.metric(&failed("get")).await, before + 1.0, "{what}");
        reader.stop().await;
    }
    let () = server.del(&first).unwrap();
    let () = server.rpush(&first, "a list").unwrap();
    let reader = house.replica(&redis).await;
    let before = reader.metric(&failed("get")).await;
    assert_eq!(reader.post(CHAT, &[KEY], &ask(1)).await.header("x-cache"), "MISS", "of a wrong type");
    assert_eq!(reader.metric(&failed("get")).await, before + 1.0);
    reader.stop().await;
    writer.stop().await;
}

/// The name of the key that is there once this has happened.
async fn name_of_new(redis: &Redis, happening: impl Future<Output = ()>) -> String {
    let before = redis.names();
    happening.await;
    redis.names().into_iter().find(|name| !before.contains(name)).unwrap()
}

#[tokio::test]
async fn a_replica_with_another_secret_shares_nothing() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let one = house.replica(&redis).await;
    ask_and_share(&one, ASK).await;
    std::fs::write(house.secret.path(), "fedcba9876543210fedcba9876543210").unwrap();
    let stranger = house.replica(&redis).await;
    assert_eq!(stranger.post(CHAT, &[KEY], ASK).await.header("x-cache"), "MISS");
    one.stop().await;
    stranger.stop().await;
}

#[tokio::test]
async fn a_rule_made_at_one_replica_holds_at_all_within_a_second() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let (one, other) = (house.replica(&redis).await, house.replica(&redis).await);
    ask_and_share(&one, ASK).await;
    assert_eq!(other.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT", "in the memory of both");
    let now = Instant::now();
    one.cache().invalidate(Filter { provider: Some("openai".into()), ..Filter::default() }, now, now);
    assert_eq!(house.asked_again(&one).await, "MISS", "here at once");
    let late = Instant::now();
    while house.asked_again(&other).await == "HIT" {
        assert!(late.elapsed() < Duration::from_secs(1), "still alive at the other");
        sleep(Duration::from_millis(10)).await;
    }
    // And at one that starts later.
    let third = house.replica(&redis).await;
    assert_eq!(third.metric(&failed("delete")).await, 0.0);
    for weir in [one, other, third] {
        weir.stop().await;
    }
}

impl House {
    /// What the cache says of the question, without an answer to it being kept.
    async fn asked_again(&self, weir: &Weir) -> String {
        weir.post(CHAT, &[KEY], ASK).await.header("x-cache").to_owned()
    }
}

#[tokio::test]
async fn what_was_brought_to_one_replica_is_at_the_other_until_a_command_names_it() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let (secret, url) = (house.secret.path().display(), redis.url());
    let yaml = format!("cache: {{ redis: {{ url: \"{url}\", secret_file: {secret}, {PATIENT} }} }}");
    let one = Weir::operated(&house.fake.url(), &yaml).await;
    becomes(&one, UP, 1.0).await;
    becomes_current(&one).await;
    let other = house.replica(&redis).await;
    let before = one.metric(STORED).await;
    let question = r#"{"provider":"openai","model":"o3","messages":["the blue prompt"]"#;
    let brought = format!(r#"{question},"response":"the green answer"}}"#);
    assert_eq!(one.command("/api/v1/cache/set", &[KEY], brought.as_bytes()).await.status, 201);
    grows(&one, STORED, |now| now > before).await;
    let asked = format!("{question}}}");
    let found = other.command("/api/v1/cache/get", &[KEY], asked.as_bytes()).await.json();
    assert_eq!((&found["hit"], &found["response"]), (&true.into(), &"the green answer".into()), "{found}");

    let operator = [("authorization", "Bearer sesame")];
    let told = one.command("/api/v1/cache/invalidate", &operator, br#"{"model":"o3"}"#).await.json();
    assert_eq!((&told["removed"], &told["other_instances"]), (&1.into(), &true.into()), "{told}");
    let begun = Instant::now();
    while other.command("/api/v1/cache/get", &[KEY], asked.as_bytes()).await.json()["hit"] == true {
        assert!(begun.elapsed() < Duration::from_secs(20), "the other never heard");
        sleep(Duration::from_millis(5)).await;
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn an_answer_asked_for_before_a_rule_is_dead_for_whoever_comes_later() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let one = house.replica(&redis).await;
    ask_and_share(&one, ASK).await;
    let now = Instant::now();
    one.cache().invalidate(Filter { provider: Some("openai".into()), ..Filter::default() }, now, now);
    until_rules(&redis, 2).await;
    assert!(redis.names().iter().any(|name| name.contains("answer")), "it is still there");
    let later = house.replica(&redis).await;
    ask_and_share(&later, ASK).await;
    let last = house.replica(&redis).await;
    assert_eq!(last.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT", "asked for after the rule");
    for weir in [one, later, last] {
        weir.stop().await;
    }
}

#[tokio::test]
async fn a_rule_made_while_the_server_is_away_is_told_once_it_is_back() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let proxy = Proxy::before(&redis).await;
    let one = house.weir(&proxy.url(), PATIENT).await;
    let other = house.replica(&redis).await;
    ask_and_share(&one, ASK).await;
    assert_eq!(other.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT");
    proxy.close();
    becomes(&one, UP, 0.0).await;
    let now = Instant::now();
    one.cache().invalidate(Filter { provider: Some("openai".into()), ..Filter::default() }, now, now);
    let read = redis.done("xrevrange");
    until("the other has read the rules since", || redis.done("xrevrange") >= read + 2).await;
    assert_eq!(other.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT", "it cannot have heard");
    proxy.reopen().await;
    until_rules(&redis, 2).await;
    let late = Instant::now();
    while house.asked_again(&other).await == "HIT" {
        assert!(late.elapsed() < Duration::from_secs(1));
        sleep(Duration::from_millis(10)).await;
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn when_everything_dies_the_server_is_cleared() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let weir = house.replica(&redis).await;
    for number in 0..30 {
        ask_and_share(&weir, &ask(number)).await;
    }
    redis.ask::<()>(&["SET", "somebody:else", "1"]);
    let now = Instant::now();
    weir.cache().invalidate(Filter::default(), now, now);
    let begun = Instant::now();
    while redis.names().iter().any(|name| name.contains("answer")) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", redis.names());
        sleep(Duration::from_millis(5)).await;
    }
    let mut left = redis.names();
    // What the limits tell each other is not the cache's.
    left.retain(|name| !name.starts_with("weir:limits:"));
    left.sort();
    assert_eq!(left, ["somebody:else", "weir:rules"], "nobody else's");
    weir.stop().await;
}

#[tokio::test]
async fn a_log_that_was_lost_is_begun_anew() {
    if !is_here() {
        return;
    }
    let (mut redis, house) = (Redis::start().await, House::new().await);
    let weir = house.replica(&redis).await;
    ask_and_share(&weir, ASK).await;
    redis.kill();
    becomes(&weir, UP, 0.0).await;
    redis.begin().await;
    becomes(&weir, UP, 1.0).await;
    until_rules(&redis, 1).await;
    let other = house.replica(&redis).await;
    ask_and_share(&weir, &ask(1)).await;
    assert_eq!(other.post(CHAT, &[KEY], &ask(1)).await.header("x-cache"), "HIT");
    assert_eq!(weir.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT", "memory has kept what it had");
    weir.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn its_state_is_said_in_words_and_in_a_gauge() {
    if !is_here() {
        return;
    }
    let (mut redis, house) = (Redis::start().await, House::new().await);
    let weir = house.replica(&redis).await;
    let health = || async {
        let answer = weir.client.get(&format!("{}/healthz", weir.admin)).await;
        let (health, status) = (answer.json(), answer.status.as_u16());
        let store = |it: &&Value| it["name"] == "shared store";
        let store = health["dependencies"].as_array().unwrap().iter().find(store).unwrap()["status"].clone();
        (status, health["status"].clone(), store)
    };
    assert_eq!(health().await, (200, json!("ready"), json!("up")));
    redis.kill();
    becomes(&weir, UP, 0.0).await;
    assert_eq!(health().await, (200, json!("degraded"), json!("down")), "calls go on without it");
    redis.begin().await;
    becomes(&weir, UP, 1.0).await;
    weir.stop().await;

    let without = Weir::before(&house.fake.url()).await;
    assert!(!without.metrics().await.contains(UP), "absent when none is configured");
    assert!(!without.metrics().await.contains("backend=\"redis\""));
    without.stop().await;
}

#[tokio::test]
async fn tls_with_a_user_whose_password_is_in_a_file() {
    if !is_here() {
        return;
    }
    let (identity, house) = (Identity::new(&[]), House::new().await);
    let file = |name: &str, text: &str| {
        let path = identity.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("cert.pem", &identity.pem[0]), file("key.pem", &identity.pem[1]));
    let port = free_port();
    let port_text = port.to_string();
    let redis = Redis::with(&[
        "--port",
        "0",
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &certificate,
    ])
    .await;
    redis.ask::<()>(&["ACL", "SETUSER", "weir", "on", ">first", "~weir:*", "+@all", "-@dangerous"]);
    // This one goes on.
    let mut connection = redis.connection();
    redis.ask::<()>(&["ACL", "SETUSER", "default", "off"]);
    let password = file("password", "first\n");
    let more =
        format!("username: weir, password_file: {password}, ca_file: {}, {PATIENT}", identity.authority.display());
    let weir = house.weir(&format!("rediss://localhost:{port}"), &more).await;
    ask_and_share(&weir, ASK).await;

    weir.stop().await;
    redis::cmd("ACL").arg("LOG").arg("RESET").exec(&mut connection).unwrap();
    file("password", "wrong\n");
    let secret = house.secret.path().display();
    let yaml = format!("cache: {{ redis: {{ url: \"rediss://localhost:{port}\", secret_file: {secret}, {more} }} }}");
    let weir = Weir::before_with(&house.fake.url(), &yaml).await;
    assert_eq!(weir.post(CHAT, &[KEY], &ask(1)).await.header("x-cache"), "MISS");
    let mut refused = || redis::cmd("ACL").arg("LOG").query::<Vec<redis::Value>>(&mut connection).unwrap();
    until("it has shown the wrong password", || !refused().is_empty()).await;
    assert_eq!(weir.metric(UP).await, 0.0, "the server lets nobody in who has the wrong password");
    file("password", "first\n");
    becomes(&weir, UP, 1.0).await;
    becomes_current(&weir).await;
    assert_eq!(weir.post(CHAT, &[KEY], ASK).await.header("x-cache"), "HIT");
    weir.stop().await;
}

#[tokio::test]
async fn a_cluster_of_three_shares_too() {
    if !is_here() {
        return;
    }
    let nodes = cluster().await;
    let house = House::new().await;
    let url = format!("redis://127.0.0.1:{}", nodes[0].1);
    let more = format!("cluster: true, {PATIENT}");
    let (one, other) = (house.weir(&url, &more).await, house.weir(&url, &more).await);
    for number in 0..30 {
        ask_and_share(&one, &ask(number)).await;
    }
    for number in 0..30 {
        assert_eq!(other.post(CHAT, &[KEY], &ask(number)).await.header("x-cache"), "HIT", "{number}");
    }
    for (node, _) in &nodes {
        assert!(node.ask::<u64>(&["DBSIZE"]) > 0, "every node has its share");
    }
    let now = Instant::now();
    one.cache().invalidate(Filter { provider: Some("openai".into()), ..Filter::default() }, now, now);
    let late = Instant::now();
    while other.post(CHAT, &[KEY], &ask(0)).await.header("x-cache") == "HIT" {
        assert!(late.elapsed() < Duration::from_secs(1), "still alive at the other");
        sleep(Duration::from_millis(10)).await;
    }
    one.stop().await;
    other.stop().await;

    // One that takes a node for a server of its own is told that its keys are elsewhere.
    let secret = house.secret.path().display();
    let yaml = format!("cache: {{ redis: {{ url: \"{url}\", secret_file: {secret}, {PATIENT} }} }}");
    let lost = Weir::before_with(&house.fake.url(), &yaml).await;
    becomes(&lost, UP, 1.0).await;
    for number in 100..130 {
        assert_eq!(lost.post(CHAT, &[KEY], &ask(number)).await.body, ANSWER);
    }
    grows(&lost, &failed("get"), |now| now > 0.0).await;
    lost.stop().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_makes_nobody_wait_and_nothing_grow() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    // Says PONG to everything, then nothing.
    let server = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            let is_silent = Arc::clone(&is_silent);
            connections.spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = tcp.read(&mut buffer).await {
                    let commands = buffer[..count].split(|&byte| byte == b'*').count() - 1;
                    if !is_silent.load(Ordering::SeqCst) && tcp.write_all(&b"+PONG\r\n".repeat(commands)).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    let deadline: Span = "100ms".parse().unwrap();
    let settings = Settings { url: Some(url), deadline, ..Settings::default() };
    let store = Arc::new(Store::new(&settings).unwrap());
    let keeper = tokio::spawn(Arc::clone(&store).keep());
    until("it is up", || store.is_up()).await;

    silent.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let asked = (0..2000).map(|_| {
        let store = Arc::clone(&store);
        async move { store.run(&weir::store::client::Commands::one("GET", &[b"key"])).await }
    });
    let said = futures_util::future::join_all(asked).await;
    let took = begun.elapsed();
    let count = |why| said.iter().filter(|said| **said == Err(why)).count();
    assert_eq!((count(Unavailable::Late), count(Unavailable::Busy)), (256, 2000 - 256), "no more than fit are asked");
    assert!(took < Duration::from_secs(2), "{took:?}");
    until("it is given up", || !store.is_up()).await;
    let begun = Instant::now();
    for _ in 0..10_000 {
        let said = store.run(&weir::store::client::Commands::one("GET", &[b"key"])).await;
        assert_eq!(said, Err(Unavailable::Down));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "nobody waits for what is known to be away");
    silent.store(false, Ordering::SeqCst);
    until("it is back", || store.is_up()).await;
    keeper.abort();
    server.abort();
}

/// How often each weir is asked during one fault.
const CALLS: usize = 200;

/// What each call took, sorted.
struct Took(Vec<Duration>);

impl Took {
    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

/// Asks both weirs in turn [`CALLS`] questions that nobody has asked before, and counts the answers that are not right.
async fn run(weirs: [&Weir; 2], first: usize) -> ([Took; 2], usize) {
    let (mut took, mut failed) = ([Vec::new(), Vec::new()], 0);
    for number in first..first + CALLS {
        for (weir, took) in weirs.iter().zip(&mut took) {
            let begun = Instant::now();
            let answer = weir.post(CHAT, &[KEY], &ask(number)).await;
            took.push(begun.elapsed());
            failed += usize::from(answer.status != 200 || answer.body != ANSWER);
        }
    }
    let sorted = took.map(|mut took| {
        took.sort_unstable();
        Took(took)
    });
    (sorted, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are to be seen")]
async fn no_fault_of_the_server_is_a_call_s_fault() {
    if !is_here() {
        return;
    }
    let (mut redis, house) = (Redis::start().await, House::new().await);
    let proxy = Proxy::before(&redis).await;
    let plain = Weir::before(&house.fake.url()).await;
    let mut table = format!("{:<26} | calls | failed | added p50 | added p99\n", "fault");
    let mut row = |what: &str, took: &[Took; 2], failed: usize| {
        let added = |percent| took[0].at(percent).as_secs_f64() * 1e3 - took[1].at(percent).as_secs_f64() * 1e3;
        let (half, most) = (added(50), added(99));
        writeln!(table, "{what:<26} | {CALLS:>5} | {failed:>6} | {half:>6.2} ms | {most:>6.2} ms").unwrap();
    };
    let weir = house.weir(&proxy.url(), "").await;
    let (took, failures) = run([&weir, &plain], 0).await;
    row("none", &took, failures);
    for (position, fault) in Fault::ALL.into_iter().enumerate() {
        fault.begin(&mut redis, &proxy).await;
        let (took, failures) = run([&weir, &plain], (position + 1) * CALLS).await;
        row(fault.describe(), &took, failures);
        assert_eq!(failures, 0, "{fault:?}");
        assert!(took[0].at(50) < took[1].at(50) + Duration::from_millis(20), "{fault:?}: most calls hardly notice");
        assert!(took[0].at(99) < took[1].at(99) + Duration::from_millis(250), "{fault:?}");
        becomes(&weir, UP, f64::from(u8::from(fault.leaves_it_up()))).await;
        assert!(weir.metric(&failed("put")).await > 0.0);
        fault.end(&mut redis, &proxy).await;
        becomes(&weir, UP, 1.0).await;
        comes_back(&weir, position).await;
    }
    println!("{table}");
    weir.stop().await;
    plain.stop().await;
}

/// Answers are written again, by themselves.
async fn comes_back(weir: &Weir, position: usize) {
    let (before, begun) = (weir.metric(STORED).await, Instant::now());
    for number in 0.. {
        weir.post(CHAT, &[KEY], &ask(10_000_000 + 100_000 * position + number)).await;
        if weir.metric(STORED).await > before {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is written any more");
        sleep(Duration::from_millis(20)).await;
    }
}
