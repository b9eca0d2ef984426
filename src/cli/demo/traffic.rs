//! Traffic: when the apps of the demo ask. Not too regular, never more at once than is allowed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::prompts::Prompts;

/// Most calls at once. While there are so many, the next ones wait.
const MOST_AT_ONCE: usize = 256;
/// How late the next call may be and still be made up for; what is later was more than this machine can do.
const LATEST: Duration = Duration::from_secs(1);
/// How long calls may take to end when no more are made. The simulator answers within 3 seconds, faults included, but a
/// machine that was asked too much has more to catch up with.
const LAST_CALLS: Duration = Duration::from_secs(20);

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Calls per second.
    pub(super) rate: u32,
    /// Decides what is asked, and in which order.
    pub(super) seed: u64,
}

/// What was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    /// Calls that have ended.
    pub(super) calls: u64,
    /// Those among them that nobody answered.
    pub(super) unanswered: u64,
}

impl Made {
    fn add(&mut self, answered: bool) {
        self.calls += 1;
        self.unanswered += u64::from(!answered);
    }
}

/// Makes calls until `stop`, then waits for the last ones to end. Dropping the future gives them up.
pub(super) async fn run(client: Client, weir: SocketAddr, pace: Pace, stop: CancellationToken) -> Made {
    let mut prompts = Prompts::new(pace.seed);
    let mut made = Made::default();
    let mut calls = JoinSet::new();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(next), if calls.len() < MOST_AT_ONCE => {
                let (client, ask) = (client.clone(), prompts.next());
                calls.spawn(async move { client.call(weir, ask).await });
                next += Duration::from_secs(1) / pace.rate * percent(&mut prompts) / 100;
                if next.elapsed() > LATEST {
                    next = Instant::now();
                }
            }
            Some(ended) = calls.join_next() => made.add(ended.unwrap_or(false)),
        }
    }
    let last = async {
        while let Some(ended) = calls.join_next().await {
            made.add(ended.unwrap_or(false));
        }
    };
    // Those that are not done by then are ended by the drop of their set.
    let _ = timeout(LAST_CALLS, last).await;
    made
}

/// How long to wait, of what the rate says: half as long up to half as long again.
fn percent(prompts: &mut Prompts) -> u32 {
    50 + u32::try_from(prompts.dice().below(101)).expect("it is below 101")
}
