//! Replicas share limits and budgets in a Redis: together they spend what one may, and when it fails, each its part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weir::limits::standing::{Scope, SubjectBudget};
use weir::units::PicoUsd;

use crate::support::client::Client;
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::process::Process;
use crate::support::redis::{Fault, Proxy, Redis, cluster, is_here};
use crate::support::until;
use crate::support::weir::Weir;

const CHAT: &str = "/openai/v1/chat/completions";
/// Longer than any machine is busy with something else.
const PATIENT: &str = "deadline: 2s";
/// gpt-5-mini is listed at 2 dollars for a million tokens out.
const PICO_PER_TOKEN: u128 = 2_000_000;
/// Tokens that a request lets be generated: 20 cents, and what its prompt is worth.
const MOST: u64 = 100_000;
const REPLICAS: usize = 3;

/// A request whose answer has so many tokens; `number` makes it unlike any other.
fn ask(number: usize, tokens: u64) -> Vec<u8> {
    json!({"model": "gpt-5-mini", "max_tokens": MOST, "stream": number.is_multiple_of(2),
        "messages": [{"role": "user", "content": format!("q{number}:{tokens}")}]})
    .to_string()
    .into_bytes()
}

/// How many tokens a request wants to be answered with.
fn wanted(request: &Received) -> u64 {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["messages"][0]["content"].as_str().unwrap().split_once(':').unwrap().1.parse().unwrap()
}

/// Answers with as many tokens as are wanted, as a stream or whole.
fn answer(request: &Received) -> Script {
    let usage = json!({"prompt_tokens": 0, "completion_tokens": wanted(request), "total_tokens": wanted(request)});
    if String::from_utf8_lossy(&request.body).contains("\"stream\":true") {
        let chunk = |rest: Value| {
            let mut chunk = json!({"id": "c", "object": "chat.completion.chunk", "model": "gpt-5-mini"});
            chunk.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            format!("data: {chunk}\n\n")
        };
        let pieces = [
            chunk(json!({"choices": [{"index": 0, "delta": {"content": "yes"}}]})),
            chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})),
            chunk(json!({"choices": [], "usage": usage})),
            "data: [DONE]\n\n".to_owned(),
        ];
        return Script::sse(&pieces.each_ref().map(String::as_bytes));
    }
    let whole = json!({"id": "c", "model": "gpt-5-mini", "object": "chat.completion", "usage": usage,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]});
    Script::json(200, whole.to_string().as_bytes())
}

/// Replicas before one provider.
struct House {
    fake: Fake,
    secret: tempfile::NamedTempFile,
}

impl House {
    async fn new() -> Self {
        Self::with(Fake::start(answer).await)
    }

    fn with(fake: Fake) -> Self {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
        Self { fake, secret }
    }

    fn yaml(&self, url: &str, store: &str, rules: &str) -> String {
        let secret = self.secret.path().display();
        format!("cache: {{ mode: off, redis: {{ url: \"{url}\", secret_file: {secret}, {store} }} }}\n{rules}")
    }

    /// A weir that may not have heard of any other yet.
    async fn weir(&self, url: &str, store: &str, rules: &str) -> Weir {
        Weir::before_with(&self.fake.url(), &self.yaml(url, store, rules)).await
    }

    /// Replicas that know of each other.
    async fn replicas(&self, url: &str, store: &str, rules: &str) -> Vec<Weir> {
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            replicas.push(self.weir(url, store, rules).await);
        }
        together(&replicas).await;
        replicas
    }

    /// What the provider has served.
    fn served(&self) -> PicoUsd {
        let tokens: u64 = self.fake.received().iter().map(wanted).sum();
        PicoUsd::new(u128::from(tokens) * PICO_PER_TOKEN)
    }
}

/// Waits until all of them share their limits, and know how many they are.
async fn together(replicas: &[Weir]) {
    let count = replicas.len() as u64;
    for weir in replicas {
        until("the limits are shared", || {
            let now = weir.limits().sharing_now().unwrap();
            (now.scope, now.replicas) == (Scope::App, count)
        })
        .await;
    }
}

fn foremost(weir: &Weir) -> SubjectBudget {
    weir.limits().budgets_now().into_iter().next().expect("there is one budget").foremost
}

/// Waits until every replica tells of the same total, which is what the provider served, to the nano-dollar.
async fn totals_add_up(replicas: &[Weir], house: &House) {
    for weir in replicas {
        weir.settled().await;
    }
    let served = house.served().pico();
    for weir in replicas {
        until("the totals add up", || {
            let told = foremost(weir).spent.usd.pico();
            told.abs_diff(served) < 1000 * REPLICAS as u128
        })
        .await;
        assert_eq!(foremost(weir).reserved.usd, PicoUsd::ZERO);
    }
}

/// How calls came out.
#[derive(Debug, Default)]
struct Came {
    statuses: BTreeMap<StatusCode, usize>,
    slowest: Duration,
}

impl Came {
    fn of(&self, status: StatusCode) -> usize {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    fn note(&mut self, status: StatusCode, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        self.slowest = self.slowest.max(took);
    }

    /// No call came to anything but an answer or a refusal.
    fn is_clean(&self) -> bool {
        self.statuses.keys().all(|status| [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(status))
    }
}

/// Sends calls, spread over all `urls`, so many at once.
async fn send(urls: &[String], numbers: std::ops::Range<usize>, at_once: usize, tokens: u64) -> Came {
    let (places, client) = (Arc::new(Semaphore::new(at_once)), Client::default());
    let mut under_way = JoinSet::new();
    for number in numbers {
        let (places, client, url) = (Arc::clone(&places), client.clone(), urls[number % urls.len()].clone());
        under_way.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let begun = Instant::now();
            let status = client.post(&url, &[], &ask(number, tokens)).await.status;
            (status, begun.elapsed())
        });
    }
    let mut came = Came::default();
    while let Some(one) = under_way.join_next().await {
        let (status, took) = one.unwrap();
        came.note(status, took);
    }
    came
}

/// Lets go on whoever waits for it.
async fn open(gate: Arc<Notify>) {
    loop {
        gate.notify_waiters();
        sleep(Duration::from_millis(5)).await;
    }
}

fn urls(replicas: &[Weir]) -> Vec<String> {
    replicas.iter().map(|weir| weir.url(CHAT)).collect()
}

async fn stop(replicas: Vec<Weir>) {
    for weir in replicas {
        weir.stop().await;
    }
}

/// How much more was spent than the limit, in percent.
#[expect(clippy::cast_precision_loss, reason = "shown, and compared with room to spare")]
fn percent_over(spent: PicoUsd, limit_usd: u128) -> f64 {
    let limit = (limit_usd * PicoUsd::PER_USD) as f64;
    100.0 * (spent.pico() as f64 - limit) / limit
}

const TWENTY: &str = "budgets: [{ name: app, limit_usd: 20, window: total, enforce: block }]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are to be seen")]
async fn of_500_calls_at_three_replicas_as_many_go_as_there_is_money_for() {
    if !is_here() {
        return;
    }
    let (redis, gate) = (Redis::start().await, Arc::new(Notify::new()));
    for (store, held) in [(PATIENT, true), (PATIENT, false), ("", false)] {
        let wait = Arc::clone(&gate);
        let fake = Fake::start(move |request| {
            let script = answer(request);
            if held { script.after(Step::Wait(Arc::clone(&wait))) } else { script }
        });
        let house = House::with(fake.await);
        redis.ask::<()>(&["FLUSHALL"]);
        let replicas = house.replicas(&redis.url(), store, TWENTY).await;
        let urls = urls(&replicas);
        let calls = tokio::spawn(async move { send(&urls, 0..500, 500, MOST).await });
        if held {
            // No call is answered before all that may go have gone, and all others were refused.
            let is_decided = || {
                let open: u64 = replicas.iter().map(Weir::open_exchanges).sum();
                let received = house.fake.received().len();
                received >= 100 && usize::try_from(open).unwrap() <= received
            };
            until("every call is decided", is_decided).await;
        }
        let opening = tokio::spawn(open(Arc::clone(&gate)));
        let came = calls.await.unwrap();
        opening.abort();
        assert!(came.is_clean(), "{came:?}");
        totals_add_up(&replicas, &house).await;
        let over = percent_over(house.served(), 20);
        println!(
            "room for 100 of 500 calls at {REPLICAS} replicas ({store:?}, held: {held}): {} went, {over:+.2} % over \
             (bound: one reservation, 1 %; {REPLICAS} where a replica goes by itself); {:?}",
            came.of(StatusCode::OK),
            replicas.iter().map(|weir| weir.limits().sharing_now().unwrap()).collect::<Vec<_>>(),
        );
        // One that is late has what it holds, and what no call fits in is left.
        let expected = if store == PATIENT { 100..=101 } else { 90..=100 + REPLICAS };
        assert!(expected.contains(&came.of(StatusCode::OK)), "{came:?}");
        stop(replicas).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are to be seen")]
async fn whatever_becomes_of_the_server_the_budget_holds_and_no_call_fails() {
    if !is_here() {
        return;
    }
    let mut faults: JoinSet<String> = Fault::ALL.into_iter().map(through).collect();
    while let Some(told) = faults.join_next().await {
        println!("{}", told.unwrap());
    }
}

/// Spends a budget while the server has this fault, and adds up when it is over.
async fn through(fault: Fault) -> String {
    let (mut redis, house) = (Redis::start().await, House::new().await);
    let proxy = Proxy::before(&redis).await;
    let replicas = house.replicas(&proxy.url(), "deadline: 100ms", TWENTY).await;
    let urls = urls(&replicas);
    let before = send(&urls, 0..40, 8, MOST - 3).await;
    assert_eq!(before.of(StatusCode::OK), 40, "{fault:?}: {before:?}");
    let during = tokio::spawn({
        let urls = urls.clone();
        async move { send(&urls, 40..500, 24, MOST - 7).await }
    });
    until("a few more have gone", || house.fake.received().len() > 50).await;
    fault.begin(&mut redis, &proxy).await;
    let during = during.await.unwrap();
    assert!(during.is_clean(), "{fault:?}: {during:?}");
    let (went, over) = (house.fake.received().len(), percent_over(house.served(), 20));
    assert!(over <= 5.0, "{fault:?}: {over} % over");
    assert!(during.slowest < Duration::from_secs(5), "{fault:?}: {during:?}");
    assert!(went >= 80, "{fault:?}: {went} of 100 went, though each replica holds its part");
    fault.end(&mut redis, &proxy).await;
    together(&replicas).await;
    totals_add_up(&replicas, &house).await;
    let again = send(&urls, 500..530, 8, MOST).await;
    assert!(again.is_clean() && percent_over(house.served(), 20) <= 5.0, "{fault:?}: {again:?}");
    stop(replicas).await;
    let over = percent_over(house.served(), 20);
    format!(
        "{:<26}: {went} of 100 at once, {over:+.2} % over in the end, slowest {:?}",
        fault.describe(),
        during.slowest
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_one_for_all() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let rules = "limits: [{ name: all, requests_per_hour: 60 }, { name: users, per: user, requests_per_day: 5 }]";
    let replicas = house.replicas(&redis.url(), PATIENT, rules).await;
    let came = send(&urls(&replicas), 0..240, 48, 10).await;
    assert!(came.is_clean());
    // Nobody is named: that is one user.
    assert_eq!(came.of(StatusCode::OK), 5, "{came:?}");
    let mut passed = 0;
    for number in 0..120 {
        let user = [("x-user-id", &*format!("user {}", number / 8))];
        let answer = replicas[number % REPLICAS].post(CHAT, &user, &ask(number, 10)).await;
        let place = number % 8;
        assert!(answer.status.is_success() || place >= 5 || passed >= 55, "{number}: {answer:?}");
        assert!(!answer.status.is_success() || place < 5, "{number}: five a day, wherever they go");
        passed += usize::from(answer.status.is_success());
        if !answer.status.is_success() {
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=24 * 3600 / 5).contains(&wait), "{wait}");
        }
    }
    // Each minute, one more comes back.
    assert!((54..=56).contains(&passed), "{passed}, and 5 before them");
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_server_each_replica_has_its_part_of_a_rate() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let proxy = Proxy::before(&redis).await;
    let rules = "limits: [{ name: all, requests_per_hour: 60 }]";
    let replicas = house.replicas(&proxy.url(), PATIENT, rules).await;
    let urls = urls(&replicas);
    assert_eq!(send(&urls, 0..30, 6, 10).await.of(StatusCode::OK), 30);
    proxy.close();
    until("they go by themselves", || {
        replicas.iter().all(|weir| weir.limits().sharing_now().unwrap().scope == Scope::Instance)
    })
    .await;
    let alone = send(&urls, 30..150, 6, 10).await;
    assert!(
        alone.is_clean() && (30..=31).contains(&alone.of(StatusCode::OK)),
        "what each took before counts: {alone:?}"
    );
    proxy.reopen().await;
    together(&replicas).await;
    let again = send(&urls, 150..180, 6, 10).await;
    assert!(again.is_clean() && again.of(StatusCode::OK) <= 2, "what was taken meanwhile is told: {again:?}");
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_taken_as_expected_and_come_back_as_far_as_they_were_not_used() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let rules = "limits: [{ name: all, tokens_per_day: 1000000 }]";
    let replicas = house.replicas(&redis.url(), PATIENT, rules).await;
    let used = || -> u64 { house.fake.received().iter().map(wanted).sum() };
    let begun = Instant::now();
    // Each call takes a tenth of it and uses a fiftieth.
    for first in (0..).step_by(30) {
        assert!(send(&urls(&replicas), first..first + 30, 30, 20_000).await.is_clean());
        if used() >= 850_000 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of a million were used", used());
        sleep(Duration::from_millis(100)).await;
    }
    assert!(used() <= 1_020_000, "{}", used());
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_are_counted_together() {
    if !is_here() {
        return;
    }
    let (redis, gate) = (Redis::start().await, Arc::new(Notify::new()));
    let wait = Arc::clone(&gate);
    let house = House::with(Fake::start(move |request| answer(request).after(Step::Wait(Arc::clone(&wait)))).await);
    let rules = "limits: [{ name: all, concurrent_calls: 6, wait: 30s }]";
    let replicas = house.replicas(&redis.url(), PATIENT, rules).await;
    let urls = urls(&replicas);
    let calls = tokio::spawn(async move { send(&urls, 0..30, 30, 10).await });
    until("six are under way", || house.fake.received().len() == 6).await;
    let open = || replicas.iter().map(Weir::open_exchanges).sum::<u64>();
    until("the others wait", || open() == 30).await;
    // Each tells and asks the server every half second: so whoever would go on by mistake has had its chance.
    let told = redis.done("evalsha");
    until("they have asked the server since", || redis.done("evalsha") >= told + 4 * replicas.len()).await;
    assert_eq!(house.fake.received().len(), 6);
    while !calls.is_finished() {
        let (begun, ended) = (house.fake.received().len() as u64, 30 - open());
        assert!(begun <= ended + 6, "{begun} have begun, {ended} have ended");
        gate.notify_waiters();
        sleep(Duration::from_millis(20)).await;
    }
    let came = calls.await.unwrap();
    assert_eq!(came.of(StatusCode::OK), 30, "{came:?}");
    stop(replicas).await;
}

/// How many calls take the busy path.
const CALLS: usize = 1500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are to be seen")]
#[expect(clippy::cast_precision_loss, reason = "shown")]
async fn a_busy_path_seldom_asks() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let rules = "limits: [{ name: all, requests_per_minute: 100000, tokens_per_minute: 2000000000, concurrent_calls: 500 }]\n\
                 budgets: [{ name: app, limit_usd: 5000, window: month, enforce: block }]";
    let replicas = house.replicas(&redis.url(), PATIENT, rules).await;
    let came = send(&urls(&replicas), 0..CALLS, 24, 1000).await;
    assert_eq!(came.of(StatusCode::OK), CALLS, "{came:?}");
    let asked: u64 = replicas.iter().map(|weir| weir.limits().sharing_now().unwrap().asked).sum();
    let each = asked as f64 / CALLS as f64;
    println!("{asked} round trips for {CALLS} calls under four shared rules: {each:.3} a call");
    assert!(each < 0.1);
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_begins_without_the_server_has_its_part_and_tells_later() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let proxy = Proxy::before(&redis).await;
    proxy.close();
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(house.weir(&proxy.url(), "replicas: 3", TWENTY).await);
    }
    let came = send(&urls(&replicas), 0..300, 24, MOST).await;
    assert!(came.is_clean());
    assert!((95..=100).contains(&came.of(StatusCode::OK)), "each has a third: {came:?}");
    for weir in &replicas {
        let now = weir.limits().budgets_now().pop().unwrap();
        assert_eq!(now.scope, Scope::Instance);
    }
    proxy.reopen().await;
    together(&replicas).await;
    totals_add_up(&replicas, &house).await;
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_has_spent_counts_when_it_is_gone() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let proxy = Proxy::before(&redis).await;
    for calls in [0..60, 60..160] {
        let alone = [house.weir(&proxy.url(), PATIENT, TWENTY).await];
        together(&alone).await;
        let came = send(&urls(&alone), calls, 8, MOST).await;
        assert!(came.is_clean(), "{came:?}");
        totals_add_up(&alone, &house).await;
        let [weir] = alone;
        if house.fake.received().len() > 60 {
            assert_eq!(house.fake.received().len(), 100, "{came:?}");
            // It knows that all is spent when it cannot ask as well.
            proxy.close();
            until("it goes by itself", || weir.limits().sharing_now().unwrap().scope == Scope::Instance).await;
            assert_eq!(send(&[weir.url(CHAT)], 200..205, 1, MOST).await.of(StatusCode::OK), 0);
        }
        weir.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_joins_has_something_at_once_and_may_take_it_all() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let mut replicas = house.replicas(&redis.url(), PATIENT, TWENTY).await;
    let joins = house.weir(&redis.url(), PATIENT, TWENTY).await;
    let at_once = send(&[joins.url(CHAT)], 0..15, 8, MOST).await;
    assert_eq!(at_once.of(StatusCode::OK), 15, "{at_once:?}");
    // The others hold their parts, and give them back as less is left.
    let begun = Instant::now();
    while house.fake.received().len() < 100 {
        let first = 1000 + house.fake.received().len();
        assert!(send(&[joins.url(CHAT)], first..first + 5, 5, MOST).await.is_clean());
        assert!(begun.elapsed() < Duration::from_secs(20), "{} of 100 went", house.fake.received().len());
    }
    assert!(house.fake.received().len() <= 101);
    replicas.push(joins);
    totals_add_up(&replicas, &house).await;
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_shared_is_each_instance_s_own() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let rules = "limits: [{ name: own, requests_per_hour: 10, shared: false }, { name: all, requests_per_hour: 1000 }]\n\
                 budgets: [{ name: own, limit_usd: 20, window: total, shared: false }]";
    let replicas = house.replicas(&redis.url(), PATIENT, rules).await;
    let came = send(&urls(&replicas), 0..60, 12, 10).await;
    assert_eq!(came.of(StatusCode::OK), 10 * REPLICAS, "{came:?}");
    for weir in &replicas {
        weir.settled().await;
        assert_eq!(weir.limits().budgets_now()[0].scope, Scope::Instance);
        assert_eq!(foremost(weir).spent.usd.pico(), 10 * 10 * PICO_PER_TOKEN);
    }
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_the_server_learns_no_name() {
    if !is_here() {
        return;
    }
    let (redis, house) = (Redis::start().await, House::new().await);
    let rules = "limits: [{ name: turquoise, per: user, requests_per_hour: 10, concurrent_calls: 9 }]\n\
                 budgets: [{ name: vermilion, per: user, limit_usd: 20, window: total, enforce: block }]";
    let replicas = house.replicas(&redis.url(), PATIENT, rules).await;
    let answer = replicas[0].post(CHAT, &[("x-user-id", "magenta")], &ask(0, 10)).await;
    assert_eq!(answer.status, StatusCode::OK);
    replicas[0].settled().await;
    until("it is told", || redis.names().iter().filter(|name| name.ends_with(":used")).count() == 1).await;
    redis.ask::<()>(&["CONFIG", "SET", "rdbcompression", "no"]);
    redis.ask::<()>(&["SAVE"]);
    let dump = std::fs::read(redis.dir().join("dump.rdb")).unwrap();
    assert!(dump.windows(11).any(|bytes| bytes == b"weir:limits"), "it is the dump");
    for secret in ["magenta", "turquoise", "vermilion", "user", "0123456789abcdef"] {
        // Of the words there is one of ours: what was used up.
        let found = dump.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!found, "`{secret}` is in the dump");
    }
    stop(replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_shares_too() {
    if !is_here() {
        return;
    }
    let (nodes, house) = (cluster().await, House::new().await);
    let url = format!("redis://127.0.0.1:{}", nodes[0].1);
    let rules = "limits: [{ name: users, per: user, requests_per_day: 8, concurrent_calls: 4 }]\n\
                 budgets: [{ name: users, per: user, limit_usd: 1, window: day, enforce: block }]";
    let replicas = house.replicas(&url, &format!("cluster: true, {PATIENT}"), rules).await;
    for user in 0..12 {
        let user = format!("user {user}");
        let mut passed = 0;
        for number in 0..9 {
            let answer = replicas[number % REPLICAS].post(CHAT, &[("x-user-id", &user)], &ask(number, MOST)).await;
            passed += usize::from(answer.status.is_success());
        }
        assert_eq!(passed, 5, "{user}: a dollar is five calls");
    }
    let share = |node: &Redis| node.names().iter().filter(|name| name.ends_with(":used")).count();
    assert!(nodes.iter().all(|(node, _)| share(node) > 0), "every node has its share");
    stop(replicas).await;
}

/// Replicas in processes of their own, once they know of each other.
async fn processes(redis: &Redis, house: &House, rules: &[&str]) -> Vec<Process> {
    let (url, secret) = (redis.url(), house.secret.path().display());
    let store = format!("cache.redis={{ url: \"{url}\", secret_file: {secret}, {PATIENT} }}");
    let mut more = vec!["--set", "cache.mode=off", "--set", &store];
    more.extend(rules.iter().flat_map(|rule| ["--set", rule]));
    let mut running = Vec::new();
    for _ in 0..REPLICAS {
        running.push(Process::start(&house.fake.url(), &more, &[]).await);
    }
    until("the replicas are told of", || present(redis).len() == REPLICAS + 1).await;
    let since: u64 = present(redis)["since"].parse().unwrap();
    // Three seconds until the server is believed, and a round in which each is told so.
    until("the server is believed", || server_ms(redis) > since + 4500).await;
    running
}

fn present(redis: &Redis) -> BTreeMap<String, String> {
    redis.ask(&["HGETALL", "weir:limits:replicas"])
}

fn server_ms(redis: &Redis) -> u64 {
    let (seconds, micros): (u64, u64) = redis.ask(&["TIME"]);
    seconds * 1000 + micros / 1000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the figures are to be seen")]
async fn three_processes_spend_what_one_may() {
    if !is_here() {
        return;
    }
    let (mut redis, house) = (Redis::start().await, House::new().await);
    let rule = "budgets=[{ name: app, limit_usd: 20, window: total, enforce: block }]";
    let running = processes(&redis, &house, &[rule]).await;
    let urls: Vec<String> = running.iter().map(|weir| format!("{}{CHAT}", weir.app)).collect();
    let calls = tokio::spawn(async move { send(&urls, 0..500, 500, MOST).await });
    until("some have gone", || house.fake.received().len() > 40).await;
    redis.kill();
    let came = calls.await.unwrap();
    assert!(came.is_clean(), "{came:?}");
    let over = percent_over(house.served(), 20);
    println!("three processes, the server killed midway: {} of 100 went, {over:+.2} % over", came.of(StatusCode::OK));
    assert!(over <= 5.0 && came.of(StatusCode::OK) >= 75, "{came:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_held_comes_back() {
    if !is_here() {
        return;
    }
    let redis = Redis::start().await;
    let house = House::with(Fake::start(|_| Script::only(vec![Step::Hang])).await);
    let rules = [
        "limits=[{ name: all, concurrent_calls: 3 }]",
        "budgets=[{ name: users, per: user, limit_usd: 0.6, window: day, enforce: block }]",
    ];
    let mut running = processes(&redis, &house, &rules).await;
    let url = |weir: &Process| format!("{}{CHAT}", weir.app);
    let mut under_way = Vec::new();
    for number in 0..3 {
        let mut tcp = TcpStream::connect(running[0].app.trim_start_matches("http://")).await.unwrap();
        let body = ask(number, MOST);
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
        tcp.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        under_way.push(tcp);
    }
    until("three are under way", || house.fake.received().len() == 3).await;
    let client = Client::default();
    let second = url(&running[1]);
    assert_eq!(client.post(&second, &[], &ask(9, 1)).await.status, StatusCode::TOO_MANY_REQUESTS);
    running[0].kill();
    let begun = Instant::now();
    while house.fake.received().len() == 3 {
        let body = ask(9, 1);
        let post = client.post(&second, &[], &body);
        // One that may go hangs.
        let _ = tokio::time::timeout(Duration::from_millis(200), post).await;
        assert!(begun.elapsed() < Duration::from_secs(15), "its places and its money are not given back");
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "not before it is certain that it is gone");
}

const LEASE: &str = include_str!("../../src/limits/shared/lease.lua");
const RATE: &str = include_str!("../../src/limits/shared/rate.lua");

/// What the script for leases answers: `who` in its `turn`, and of money what was used, held, free, needed at once, needed
/// in all, liked beyond, and the limit.
fn lease(redis: &Redis, who: &str, turn: u64, money: [i64; 7]) -> Vec<String> {
    let head = [who.to_owned(), turn.to_string(), "5000".to_owned(), "0".to_owned()];
    let parts = money.iter().chain(&[0, 0, 0, 0, 0, 0, -1]).map(ToString::to_string);
    let words: Vec<String> = head.into_iter().chain(parts).chain(["1".to_owned()]).collect();
    let mut command = vec!["EVAL", LEASE, "2", "{k}:used", "{k}:held"];
    command.extend(words.iter().map(String::as_str));
    redis.ask(&command)
}

#[tokio::test]
async fn what_is_used_up_is_exact_and_counts_once() {
    if !is_here() {
        return;
    }
    let redis = Redis::start().await;
    // Nine million dollars, in billionths, less one.
    let most = 9_000_000_000_000_000;
    let all = |answer: Vec<String>| answer[2].clone();
    assert_eq!(all(lease(&redis, "one", 1, [most - 1, 0, 0, 0, 0, 0, most])), "8999999999999999");
    for turn in 2..5 {
        let answer = lease(&redis, "one", turn, [most - 1, 0, 0, 0, 0, 0, most]);
        assert_eq!(all(answer), "8999999999999999", "told again");
    }
    assert_eq!(all(lease(&redis, "one", 1, [5, 0, 0, 0, 0, 0, most])), "8999999999999999", "told late");
    assert_eq!(lease(&redis, "other", 1, [0, 0, 0, 1, 1, 0, most])[..2], ["1", "1"], "there is room for one");
    assert_eq!(lease(&redis, "third", 1, [0, 0, 0, 1, 1, 0, most])[..2], ["0", "0"], "it is taken");
    assert_eq!(all(lease(&redis, "other", 2, [1, 0, 0, 0, 0, 0, most])), "9000000000000000", "not a billionth is lost");
    assert_eq!(lease(&redis, "third", 2, [0, 0, 0, 1, 1, 0, most])[0], "0");
}

#[tokio::test]
async fn leases_never_come_to_more_than_the_limit_and_one_need() {
    if !is_here() {
        return;
    }
    let redis = Redis::start().await;
    let held = |answer: &[String]| answer[1].parse::<i64>().unwrap();
    assert_eq!(held(&lease(&redis, "one", 1, [0, 0, 0, 0, 0, 400, 1000])), 400, "what it likes");
    assert_eq!(held(&lease(&redis, "two", 1, [0, 0, 0, 50, 300, 800, 1000])), 600, "what is left");
    let full = lease(&redis, "three", 1, [0, 0, 0, 50, 50, 0, 1000]);
    assert_eq!((&*full[0], held(&full)), ("0", 0), "all is held");
    // The first gives back what it does not need.
    assert_eq!(held(&lease(&redis, "one", 2, [100, 299, 0, 0, 0, 0, 1000])), 299);
    assert_eq!(held(&lease(&redis, "three", 2, [0, 0, 0, 50, 50, 0, 1000])), 50, "the one that crosses");
    assert_eq!(lease(&redis, "three", 3, [0, 50, 0, 1, 1, 0, 1000])[0], "0", "is the last");
    // An old statement changes nothing.
    assert_eq!(lease(&redis, "two", 1, [0, 0, 0, 0, 0, 0, 1000]), ["0"]);
    assert_eq!(lease(&redis, "three", 4, [0, 50, 0, 1, 1, 0, 1000])[0], "0");
    // What somebody else wrote there is nothing that anybody holds.
    redis.ask::<()>(&["HSET", "{k}:held", "two", "nonsense"]);
    assert_eq!(lease(&redis, "three", 5, [0, 50, 0, 1, 1, 0, 1000])[0], "1");
    let lives: i64 = redis.ask(&["PTTL", "{k}:held"]);
    assert!((1..=5000).contains(&lives), "{lives}");
}

#[tokio::test]
async fn a_rate_that_has_no_room_takes_nothing_of_the_others() {
    if !is_here() {
        return;
    }
    let redis = Redis::start().await;
    let hour = 3_600_000_000_u64.to_string();
    let rate = |requests: [&str; 4], tokens: [&str; 4]| -> Vec<String> {
        let mut command = vec!["EVAL", RATE, "1", "k", "3", "requests-3600", "10", &hour];
        command.extend(requests);
        command.extend(["tokens-3600", "1000000000", &hour]);
        command.extend(tokens);
        redis.ask(&command)
    };
    let none = ["0", "0", "0", "0"];
    assert_eq!(
        rate(["0", "1", "2", "0"], ["0", "600000000", "600000000", "0"]),
        ["1", "2", "2", "600000000", "600000000"]
    );
    let full = rate(["0", "1", "1", "0"], ["0", "600000000", "600000000", "0"]);
    assert_eq!((&*full[0], &*full[1], &*full[3]), ("0", "0", "0"), "{full:?}");
    let back = rate(none, ["-600000000", "0", "0", "0"]);
    assert_eq!(back[3..], ["0", "0"], "what was not used is given back");
    let owed = rate(["25", "1", "1", "0"], none);
    assert_eq!((&*owed[0], &*owed[1]), ("0", "0"), "what is owed counts, room or not: {owed:?}");
    assert_eq!(rate(["-17", "1", "1", "0"], none)[..2], ["0", "0"], "ten of ten");
    assert_eq!(rate(["-1", "1", "3", "0"], none)[..2], ["1", "1"], "one is free");
}
