//! Schedules: many calls at once, some of them equal, some hung up on, some broken by their provider, while the configuration
//! is read again and again. Drawn by chance from a seed that is told when something is wrong. Whatever happens: every
//! exchange has its one record, all that was held is given back, equal calls get equal bytes, and no call sees parts of two
//! configurations.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use weir::units::PicoUsd;

use crate::support::client::Client;
use crate::support::fake::{Fake, Received, Script, Step};
use crate::support::random::Random;
use crate::support::until;
use crate::support::weir::Weir;

const ROUNDS: u64 = 12;
const CALLS: usize = 24;
/// Permits of the one rule that there is.
const AT_ONCE: u64 = 8;

const KINDS: [&str; 6] = ["whole", "stream", "pauses", "hangs", "resets", "breaks"];

/// A provider that says in each answer who it is.
async fn provider(name: &'static str) -> Fake {
    Fake::start(move |received: &Received| {
        let text = String::from_utf8_lossy(&received.body).into_owned();
        let from = ("x-from", name);
        let piece =
            format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{name} {}\"}}}}]}}\n\n", text.len());
        let stream = || Script::begin(&[("content-type", "text/event-stream"), from]).pieces(&[piece.as_bytes()]);
        let done = b"data: [DONE]\n\n";
        match KINDS.iter().position(|kind| text.contains(kind)) {
            Some(0) => Script::whole(200, &[("content-type", "application/json"), from], b"{\"choices\":[]}"),
            Some(1) => stream().pieces(&[done]).end(),
            Some(2) => {
                let go_on = Arc::new(tokio::sync::Notify::new());
                let rings = Arc::clone(&go_on);
                tokio::spawn(async move {
                    sleep(Duration::from_millis(15)).await;
                    rings.notify_one();
                });
                stream().then(Step::Wait(go_on)).pieces(&[done]).end()
            }
            Some(3) => stream().then(Step::Hang),
            Some(4) => Script::only(vec![Step::Reset]),
            _ => stream(),
        }
    })
    .await
}

/// Two settings that belong together: where calls go, and whether answers have weir's own headers.
fn configuration(is_first: bool) -> String {
    format!(
        "calls: {{ response_headers: {is_first}, max_in_flight: 1000, max_reply_bytes_in_all: 32KiB }}\n\
         upstream: {{ idle_timeout: 200ms }}\n\
         limits: [{{ name: few, concurrent_calls: {AT_ONCE}, wait: 20s }}]\n\
         budgets: [{{ name: all, limit_usd: 1000 }}]"
    )
}

/// One call, hung up on after `patience` if that is less than it takes; what came, and from whom, if it came whole.
async fn call(client: Client, url: String, body: Vec<u8>, patience: Duration) -> Option<(Vec<u8>, String, bool)> {
    let asked = async {
        let answer = client.open(Method::POST, &url, &[("content-type", "application/json")], &body).await;
        let from = answer.headers().get("x-from").map(|from| from.to_str().unwrap().to_owned());
        let is_announced = answer.headers().contains_key("x-cache");
        let (came, ended_well) = crate::support::client::collect_broken(answer).await;
        Some((came, from?, is_announced)).filter(|_| ended_well)
    };
    timeout(patience, asked).await.ok().flatten()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_exchange_has_one_record_and_all_is_given_back() {
    let (first, second) = (provider("first").await, provider("second").await);
    let weir = Weir::before_with(&first.url(), &configuration(true)).await;
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let (kind, question) = (KINDS[random.below(KINDS.len())], random.below(3));
            let streams = kind != "whole";
            let body = format!(
                r#"{{"model":"gpt-5-mini","stream":{streams},"messages":[{{"role":"user","content":"{kind} {seed} {question}"}}]}}"#
            );
            let patience = if random.below(3) == 0 { 1 + random.below(25) } else { 30_000 };
            let url = weir.url("/openai/v1/chat/completions");
            let patience = Duration::from_millis(patience as u64);
            let asked = body.clone();
            // A pool of its own: who hangs up hangs up.
            calls.spawn(async move { (asked, call(Client::default(), url, body.into_bytes(), patience).await) });
            if random.below(8) == 0 {
                let is_first = random.below(2) == 0;
                let to = if is_first { &first } else { &second };
                weir.configure(&to.url(), &configuration(is_first)).await;
            }
        }
        let mut answers = std::collections::BTreeMap::new();
        while let Some(done) = calls.join_next().await {
            let (asked, Some((came, from, is_announced))) = done.expect("no call panics") else { continue };
            assert_eq!(from == "first", is_announced, "seed {seed}: parts of two configurations");
            if asked.contains("hangs") {
                continue;
            }
            let known = answers.entry((asked, from)).or_insert_with(|| came.clone());
            assert_eq!(*known, came, "seed {seed}: equal calls get equal bytes");
        }
        let rooms = weir.rooms_now();
        until(&format!("seed {seed}: every exchange has its record"), || weir.open_exchanges() == 0).await;
        assert_eq!(rooms.load.calls(), 0, "seed {seed}");
        until(&format!("seed {seed}: all bytes are given back"), || {
            [&rooms.load.requests, &rooms.load.replies].iter().all(|of| of.standing().held == 0)
        })
        .await;
        let [few] = &*rooms.limits.rates_now() else { panic!("one rule") };
        let left: Vec<u64> = few.fullest.quotas.iter().map(|quota| quota.remaining).collect();
        assert_eq!(left, [AT_ONCE], "seed {seed}: permits out are permits back");
        let budgets = rooms.limits.budgets_now();
        let reserved = budgets.iter().map(|budget| budget.foremost.reserved.usd);
        assert!(reserved.into_iter().all(|usd| usd == PicoUsd::ZERO), "seed {seed}: nothing stays reserved");
        assert_eq!(rooms.in_flight.calls(), 0, "seed {seed}");
    }
    let opened = weir.rooms_now().sinks.exchanges_opened();
    assert!(opened >= ROUNDS * CALLS as u64 / 2, "{opened}");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let opened = opened as f64;
    assert_eq!(weir.metric_sum("weir_requests_total{").await, opened, "each record is counted once");
    #[cfg(feature = "ledger")]
    {
        // Rows wait in a queue: what is written is counted when it is.
        let written = async || weir.metric("weir_ledger_records_total").await;
        let come = async {
            while written().await < opened {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), come).await.expect("every row is written");
        assert_eq!(written().await, opened, "each is written down once");
    }
    weir.stop().await;
}
