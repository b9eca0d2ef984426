//! Trouble: what goes on around the calls. Redis is killed, begun again and frozen; the collector comes and goes; the
//! configuration and the prices are read again; questions are asked; somebody watches; the app's own metrics are pushed.
//! None of it may change what a call gets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::house::{House, HungUp};

/// What is asked of the ledger while it is written.
const QUESTIONS: [&str; 8] = [
    "/api/v1/cost/overview",
    "/api/v1/cost/trend?range=1h&granularity=minute",
    "/api/v1/analytics/costs?range=1h&group_by=agent",
    "/api/v1/analytics/logs?range=1h&limit=50",
    "/api/v1/performance/latency?range=1h",
    "/api/v1/usage/top-users?range=24h",
    "/api/v1/analytics/export?range=1m&format=csv",
    "/api/v1/limits",
];

/// It goes on until it is told to stop.
pub(crate) struct Trouble(JoinSet<(&'static str, Met)>);

/// What came of one kind of it.
#[derive(Default)]
struct Met {
    times: u64,
    faults: Vec<String>,
}

/// What came of all of it.
pub(crate) struct AllMet(BTreeMap<&'static str, Met>);

impl Trouble {
    pub(crate) fn begin(
        house: &Arc<House>,
        hung_up: &Arc<RwLock<HungUp>>,
        length: Duration,
        stop: &CancellationToken,
    ) -> Self {
        // Each a few times, however short it is; no more often than makes sense.
        let every = |seconds: u64| (length / 6).min(Duration::from_secs(seconds));
        let mut all = JoinSet::new();
        let again = |seconds| Again { house: Arc::clone(house), every: every(seconds), stop: stop.clone() };
        all.spawn(again(10).disturb_redis());
        all.spawn(again(6).come_and_go());
        all.spawn(again(12).reload(Arc::clone(hung_up)));
        all.spawn(again(2).ask());
        all.spawn(again(5).watch());
        all.spawn(again(1).push());
        Self(all)
    }

    pub(crate) async fn end(self) -> AllMet {
        AllMet(self.0.join_all().await.into_iter().collect())
    }
}

/// Something that happens again and again.
struct Again {
    house: Arc<House>,
    every: Duration,
    stop: CancellationToken,
}

impl Again {
    /// Waits for the next time. `false` if there is none.
    async fn next(&self) -> bool {
        tokio::select! {
            () = sleep(self.every) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// Left as it was found: running.
    async fn disturb_redis(self) -> (&'static str, Met) {
        let mut met = Met::default();
        while self.next().await {
            let Some(redis) = &self.house.redis else { continue };
            let mut redis = redis.lock().await;
            let frozen = met.times % 2 == 1;
            if frozen {
                redis.signal("STOP");
            } else {
                redis.kill();
            }
            self.next().await;
            if frozen {
                redis.signal("CONT");
            } else {
                redis.begin().await;
            }
            met.times += 1;
        }
        ("Redis was killed or frozen", met)
    }

    /// Listens for spans, and does not, by turns.
    async fn come_and_go(self) -> (&'static str, Met) {
        let mut met = Met::default();
        while self.next().await {
            if let Ok(listener) = TcpListener::bind(self.house.collector).await {
                let taking = tokio::spawn(take_spans(listener));
                self.next().await;
                taking.abort();
                met.times += 1;
            }
        }
        ("the collector was there and went", met)
    }

    /// Where calls that are hung up on are in progress, what becomes of them may not change: they hold the lock.
    async fn reload(self, hung_up: Arc<RwLock<HungUp>>) -> (&'static str, Met) {
        let mut met = Met::default();
        while self.next().await {
            self.house.hang_up();
            let mut now = hung_up.write().await;
            *now = if *now == HungUp::Drained { HungUp::Cancelled } else { HungUp::Drained };
            self.house.configure(*now).await;
            met.times += 1;
        }
        ("another configuration was read", met)
    }

    async fn ask(self) -> (&'static str, Met) {
        let mut met = Met::default();
        for path in QUESTIONS.iter().cycle() {
            if !self.next().await {
                break;
            }
            let answer = self.house.client.get(&self.house.admin(path)).await;
            // Too many questions at once are refused; so is one that takes too long.
            if !matches!(answer.status.as_u16(), 200 | 503) {
                met.faults.push(format!("{path} says {}: {:?}", answer.status, answer.body));
            }
            met.times += 1;
        }
        ("questions were asked", met)
    }

    /// Watches for a while, and leaves without a word.
    async fn watch(self) -> (&'static str, Met) {
        let mut met = Met::default();
        while self.next().await {
            let live = self.house.client.open(Method::GET, &self.house.admin("/api/v1/live"), &[], b"").await;
            let mut body = live.into_body();
            let watching = async { while let Some(Ok(_)) = http_body_util::BodyExt::frame(&mut body).await {} };
            let _ = timeout(self.every, watching).await;
            met.times += 1;
        }
        ("somebody watched", met)
    }

    async fn push(self) -> (&'static str, Met) {
        let mut met = Met::default();
        while self.next().await {
            for (path, body) in [
                ("/api/v1/metrics", r#"{"name":"orders","type":"counter","value":1}"#),
                ("/api/v1/cache/invalidate", r#"{"model":"soak-repeated"}"#),
            ] {
                let status = self.house.command(path, body).await;
                if !matches!(status, 200..300) {
                    met.faults.push(format!("{path} says {status}"));
                }
            }
            met.times += 1;
        }
        ("metrics were pushed and rules made for the cache", met)
    }
}

/// Takes whatever comes, and says thank you.
async fn take_spans(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((mut connection, _)) = listener.accept().await {
        connections.spawn(async move {
            let mut buffer = [0; 16 << 10];
            while let Ok(1..) = connection.read(&mut buffer).await {
                let thanks = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                if thanks.is_err() {
                    break;
                }
            }
        });
    }
}

impl AllMet {
    pub(crate) fn faults(&self) -> Vec<String> {
        let faults = self.0.values().flat_map(|met| met.faults.iter().cloned());
        faults.collect()
    }
}

impl fmt::Display for AllMet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meanwhile:")?;
        for (what, met) in &self.0 {
            write!(f, "\n  {what}: {} times", met.times)?;
        }
        Ok(())
    }
}
