//! House: weir, the simulated provider, Redis and a collector of spans, each reached as an operator's would be: the first
//! three are processes of their own.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Method;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use weir::simulator::signature;

use crate::books::{Bill, Books, Ledger, Metrics, overlay};
use crate::client::{Client, collect};
use crate::process::Process;
use crate::redis::{self, Redis};
use crate::traffic::Made;

/// What changes on the admin side need.
const TOKEN: &str = "sesame";
/// Largest ledger: small enough that the oldest calls go.
pub(crate) const LEDGER_BYTES: u64 = 32 << 20;
/// How long it may take until all is written down, once the last call has ended.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What becomes of a call whose app hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HungUp {
    Drained,
    Cancelled,
}

/// Everything that runs.
pub(crate) struct House {
    files: TempDir,
    simulator: Simulator,
    weir: Process,
    /// `None` where there is no `redis-server`. Whoever disturbs it holds it.
    pub(crate) redis: Option<Mutex<Redis>>,
    /// Where spans are sent, whether somebody listens or not.
    pub(crate) collector: SocketAddr,
    pub(crate) client: Client,
}

/// The simulated provider. Ended by its id.
struct Simulator {
    process: Child,
    url: String,
}

impl Simulator {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["simulate", "--listen", "127.0.0.1:0"])
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("simulator listening on ").expect("it says where it listens").to_owned();
        Self { process, url }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl House {
    pub(crate) async fn open() -> Self {
        let (files, simulator) = (tempfile::tempdir().unwrap(), Simulator::start());
        let redis = if redis::is_here() { Some(Redis::start().await) } else { None };
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for (name, content) in [("token", TOKEN), ("secret", &"s".repeat(64)), ("prices.json", &overlay())] {
            std::fs::write(files.path().join(name), content).unwrap();
        }
        let config = files.path().join("weir.yaml");
        let redis_url = redis.as_ref().map(Redis::url);
        write(&config, &yaml(files.path(), &simulator.url, redis_url.as_deref(), collector, HungUp::Drained));
        let keys = [
            ("AWS_ACCESS_KEY_ID", signature::ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", signature::SECRET_ACCESS_KEY),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        let weir = Process::start(&simulator.url, &["--config", config.to_str().unwrap()], &keys).await;
        Self { files, simulator, weir, redis: redis.map(Mutex::new), collector, client: Client::default() }
    }

    /// Where the app's calls come in.
    pub(crate) fn app(&self) -> &str {
        &self.weir.app
    }

    /// The operator's side.
    pub(crate) fn admin(&self, path: &str) -> String {
        format!("{}{path}", self.weir.admin)
    }

    /// The text of a page of the operator's side.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.client.get(&self.admin(path)).await;
        assert!(answer.status.is_success(), "{path} says {}: {:?}", answer.status, answer.body);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::read(self.page("/metrics").await)
    }

    /// Asks for a change, and says what status came.
    pub(crate) async fn command(&self, path: &str, body: &str) -> u16 {
        let headers = [("authorization", "Bearer sesame"), ("content-type", "application/json")];
        let answer = self.client.open(Method::POST, &self.admin(path), &headers, body.as_bytes()).await;
        collect(answer).await.status.as_u16()
    }

    /// Writes another configuration and has it read: it is in force from then on.
    pub(crate) async fn configure(&self, hung_up: HungUp) {
        let redis = match &self.redis {
            Some(redis) => Some(redis.lock().await.url()),
            None => None,
        };
        let text = yaml(self.files.path(), &self.simulator.url, redis.as_deref(), self.collector, hung_up);
        write(&self.files.path().join("weir.yaml"), &text);
        assert_eq!(self.command("/api/v1/reload", "{}").await, 200, "the configuration is taken");
    }

    /// Has the configuration read as it is, by `SIGHUP`, and the prices, which look new.
    pub(crate) fn hang_up(&self) {
        self.weir.hang_up();
        write(&self.files.path().join("prices.json"), &overlay());
    }

    async fn bill(&self) -> Bill {
        let answer = self.client.get(&format!("{}/simulator/bill", self.simulator.url)).await;
        serde_json::from_slice(&answer.body).expect("a bill")
    }

    async fn open_at_simulator(&self) -> u64 {
        let answer = self.client.get(&format!("{}/simulator/state", self.simulator.url)).await;
        answer.json()["open"].as_u64().unwrap()
    }

    /// What everybody has in their books, once no call is open any more and all of them are written down.
    pub(crate) async fn settled(&self, made: &Made, begun: Instant) -> Books {
        let deadline = Instant::now() + SETTLED_WITHIN;
        let metrics = loop {
            let metrics = self.metrics().await;
            let open = self.open_at_simulator().await + metrics.count("weir_requests_in_flight", &[]);
            let (ended, written) = (metrics.count("weir_requests_total", &[]), metrics.written());
            if open == 0 && ended == written {
                break metrics;
            }
            assert!(Instant::now() < deadline, "{open} calls are open, {ended} ended, {written} are written down");
            sleep(Duration::from_millis(100)).await;
        };
        let ledger = Ledger::ask(self, begun).await;
        Books::new(&self.bill().await, &metrics, &ledger, made)
    }

    /// Ends weir first, which has to go in peace.
    pub(crate) async fn close(self) {
        self.weir.stop().await;
    }
}

impl fmt::Display for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = if self.redis.is_some() { "Redis" } else { "no Redis, for redis-server is not installed" };
        write!(f, "weir at {}, the simulator at {}, {redis}", self.weir.app, self.simulator.url)
    }
}

/// In one piece: whoever reads it sees the text before or this one.
fn write(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// A weir with everything on, whose bounds are small enough to be reached.
fn yaml(files: &Path, provider: &str, redis: Option<&str>, collector: SocketAddr, hung_up: HungUp) -> String {
    let files = files.display();
    let redis = redis.map_or_else(String::new, |url| {
        format!("redis: {{ url: \"{url}\", secret_file: \"{files}/secret\", replicas: 1 }}")
    });
    let on_disconnect = match hung_up {
        HungUp::Drained => "drain",
        HungUp::Cancelled => "cancel",
    };
    let known = ["openai", "anthropic", "cohere", "ollama", "gemini", "vertex"];
    let known = known.map(|name| format!("  {name}: {{ base_url: \"{provider}\", prices: soak }}\n")).concat();
    let vendors = ["groq", "openrouter", "deepseek"];
    let vendors =
        vendors.map(|name| format!("  {name}: {{ base_url: \"{provider}/{name}\", prices: soak }}\n")).concat();
    format!(
        r#"
state_dir: "{files}/state"
admin: {{ token_file: "{files}/token" }}
providers:
{known}{vendors}
  azure: {{ api: azure_openai, base_url: "{provider}/azure", prices: soak }}
  bedrock: {{ base_url: "{provider}", aws_sign: true, aws_region: us-east-1, prices: soak }}
  local: {{ api: openai, base_url: "{provider}", prices: free }}
  flaky: {{ api: openai, base_url: "{provider}", prices: soak }}
upstream: {{ connect_timeout: 1m, idle_timeout: 30s, proxy: none }}
calls: {{ on_disconnect: {on_disconnect}, max_drains: 512 }}
cache:
  ttl: 1m
  max_bytes: 4MiB
  {redis}
loops: {{ idle: 20s, max_runs: 200, repeats: 4, on_runaway: alert }}
limits:
  - {{ name: all, requests_per_minute: 1000000, tokens_per_minute: 1000000000 }}
  - {{ name: greedy, match: {{ agent: greedy }}, per: agent, requests_per_minute: 2 }}
  - {{ name: users, per: user, concurrent_calls: 1000 }}
budgets:
  - {{ name: app, limit_usd: 1000000, window: month, enforce: alert }}
  - {{ name: sure, match: {{ model: "soak-*" }}, limit_usd: 1000000, window: month, enforce: alert }}
  - {{ name: users, per: user, limit_usd: 1000000, window: day, enforce: block }}
  - {{ name: spent, match: {{ workspace: spent }}, limit_tokens: 1, window: total, enforce: block }}
prices: {{ overlay: "{files}/prices.json" }}
ledger: {{ mode: disk, retention: 1m, max_bytes: {LEDGER_BYTES} }}
telemetry:
  log: {{ format: json, calls: none }}
  metrics: {{ consumers: plain, cache_namespaces: true, histograms: both, max_series: 100000 }}
  traces: {{ endpoint: "http://{collector}" }}
"#
    )
}
