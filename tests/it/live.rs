//! What is going on, as it goes on: `GET /api/v1/live` of a real weir.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;
use weir::frames::sse::Decoder;

use crate::limits::{CHAT, answer, ask};
use crate::support::client::collect;
use crate::support::fake::{Fake, Script};
use crate::support::until;
use crate::support::weir::Weir;

const LIVE: &str = "/api/v1/live";
const SOON: Duration = Duration::from_secs(10);

async fn weir(yaml: &str) -> (Weir, Fake) {
    let fake = Fake::always(Script::json(200, &answer())).await;
    (Weir::operated(&fake.url(), yaml).await, fake)
}

/// A stream that is being read.
struct Watched {
    body: Incoming,
    decoder: Decoder,
    come: Vec<(String, Value)>,
}

impl Watched {
    async fn open(weir: &Weir, query: &str) -> Self {
        let answer = weir.client.open(Method::GET, &format!("{}{LIVE}{query}", weir.admin), &[], b"").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        Self { body: answer.into_body(), decoder: Decoder::new(1 << 20), come: Vec::new() }
    }

    /// The next event of this name; `None` once the stream has ended well.
    async fn next(&mut self, name: &str) -> Option<Value> {
        loop {
            if let Some(found) = self.come.iter().position(|(come, _)| come == name) {
                return Some(self.come.remove(found).1);
            }
            let frame = timeout(SOON, self.body.frame()).await.expect("something comes")?;
            let data = frame.expect("the stream does not break").into_data().unwrap();
            let come = &mut self.come;
            self.decoder.push(&data, &mut |event| {
                let data = serde_json::from_slice(event.data).expect("every event is JSON");
                come.push((event.name.to_owned(), data));
            });
        }
    }
}

#[tokio::test]
async fn calls_are_seen_as_they_end_and_gauges_every_second() {
    let (weir, _fake) =
        weir("cache: { mode: off }\nbudgets: [{ name: app, limit_usd: 0.80, window: total, thresholds: [50] }]").await;
    let mut live = Watched::open(&weir, "").await;
    let gauges = live.next("gauges").await.unwrap();
    assert_eq!(gauges["last_minute"]["calls"], 0);
    assert_eq!(gauges["last_minute"]["error_rate"], Value::Null, "of no calls there is no share");
    assert_eq!(gauges["since_start"], json!({ "cost_usd": 0 }));

    let answer = weir.post(CHAT, &[("x-agent-id", "planner"), ("x-user-id", "ann")], &ask(0, false)).await;
    let call = live.next("call").await.unwrap();
    assert_eq!(call["request_id"], answer.header("x-weir-request-id"));
    assert_eq!(
        (&call["provider"], &call["outcome"], &call["status"]),
        (&json!("openai"), &json!("success"), &json!(200))
    );
    assert_eq!((&call["agent_id"], &call["user_id"]), (&json!("planner"), &json!("ann")));
    assert_eq!(call["cost_usd"], 0.2);
    assert!(call["latency_ms"].as_f64().unwrap() > 0.0);

    weir.post("/openai/nowhere", &[], b"{").await;
    live.next("call").await.unwrap();
    let mut gauges = live.next("gauges").await.unwrap();
    while gauges["last_minute"]["calls"] != 2 {
        gauges = live.next("gauges").await.unwrap();
    }
    assert_eq!(gauges["calls_in_progress"], 0);
    assert_eq!(gauges["since_start"], json!({ "cost_usd": 0.2 }));
    let minute = &gauges["last_minute"];
    assert_eq!((&minute["cost_usd"], &minute["tokens"]), (&json!(0.2), &call["total_tokens"]));
    assert!(minute["latency_p95_ms"].as_f64() >= minute["latency_p50_ms"].as_f64());
    assert!(gauges["process"]["resident_memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(gauges["process"]["cpu_cores"].is_f64(), "two looks tell: {gauges}");
    assert_eq!(
        gauges["budgets"],
        json!([{
            "name": "app", "window": "total", "subject": null, "state": "within", "limit_usd": 0.8, "spent_usd": 0.2,
            "limit_tokens": null, "spent_tokens": call["total_tokens"], "used_percentage": 25.0,
        }])
    );
    drop(live);
    weir.stop().await;
}

#[tokio::test]
async fn only_the_calls_that_every_filter_names_are_shown() {
    let (weir, _fake) = weir("cache: { mode: off }").await;
    let mut live = Watched::open(&weir, "?agent_id=b%20b&provider=openai&outcome=success").await;
    for (agent, path) in [("a", CHAT), ("b b", "/local/v1/chat/completions"), ("b b", CHAT)] {
        weir.post(path, &[("x-agent-id", agent)], &ask(0, false)).await;
    }
    let call = live.next("call").await.unwrap();
    assert_eq!((&call["agent_id"], &call["provider"]), (&json!("b b"), &json!("openai")));
    let mut gauges = live.next("gauges").await.unwrap();
    while gauges["last_minute"]["calls"] != 3 {
        gauges = live.next("gauges").await.unwrap();
    }
    assert!(live.come.iter().all(|(name, _)| name != "call"), "gauges are of all calls, the rest of one");
    drop(live);
    weir.stop().await;
}

#[tokio::test]
async fn who_may_watch_and_how_many() {
    let (weir, _fake) = weir("").await;
    let url = format!("{}{LIVE}", weir.admin);
    let asked = async |query: &str, headers: &[(&str, &str)]| {
        collect(weir.client.open(Method::GET, &format!("{url}{query}"), headers, b"").await).await
    };
    let answer = asked("", &[("origin", "http://page.example")]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a page in a browser is no neighbour");
    let answer = asked("?agent=x&outcome=fine", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::BAD_REQUEST, "application/problem+json"));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("`agent` is unknown") && detail.contains("`outcome` is `fine`"), "{detail}");

    let mut watching = Vec::new();
    for _ in 0..8 {
        watching.push(Watched::open(&weir, "").await);
    }
    let answer = asked("", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "10"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("8 watch already"));
    watching.pop();
    until("who hangs up leaves a place", || weir.watchers() == 7).await;
    watching.push(Watched::open(&weir, "").await);
    watching.clear();
    until("nobody watches any more", || weir.watchers() == 0).await;
    weir.stop().await;
}

#[tokio::test]
async fn a_stream_ends_well_when_weir_stops_and_does_not_hold_it_up() {
    let (mut weir, _fake) = weir("").await;
    let mut live = Watched::open(&weir, "").await;
    live.next("gauges").await.unwrap();
    weir.begin_to_stop();
    while live.next("gauges").await.is_some() {}
    // Well within the five seconds that the operator's side has.
    timeout(Duration::from_secs(4), weir.end()).await.expect("nothing holds it up");
}
