//! A real weir on port 0. At teardown, exchanges opened must equal records closed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir::admin::reload::{Bell, Outcome};
use weir::app::App;
use weir::cache::Cache;
use weir::config::{Config, Flag, Sources};
use weir::exchange::Rooms;
use weir::exchange::estimate::Estimator;
use weir::exchange::house::House;
use weir::ledger::writer::Ledger;
use weir::limits::Limits;
use weir::provider::KNOWN;
use weir::units::PicoUsd;

use super::client::{Answer, Client};

/// A running weir.
pub(crate) struct Weir {
    pub(crate) app: String,
    pub(crate) admin: String,
    pub(crate) client: Client,
    /// Those in force.
    house: Arc<House>,
    /// Those it began with.
    rooms: Arc<Rooms>,
    bell: Bell,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    /// What has to be there while it runs: the configuration among it.
    files: TempDir,
    /// What the configuration begins with.
    head: String,
}

/// What changes on the admin side need, where a test may change something.
pub(crate) const TOKEN: &str = "sesame";

impl Weir {
    /// Starts with `yaml` beside addresses on port 0.
    pub(crate) async fn start(yaml: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "", yaml, &[]).await
    }

    /// Starts in front of a provider at `url`, with these environment variables.
    pub(crate) async fn in_environment(url: &str, yaml: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "", &in_front_of(url, yaml), environment).await
    }

    /// Starts in front of a provider at `url`, with a token: [`TOKEN`].
    pub(crate) async fn operated(url: &str, yaml: &str) -> Self {
        Self::operated_with(url, "", yaml).await
    }

    /// The same, with more of the admin side: `, ` and what is to follow.
    pub(crate) async fn operated_with(url: &str, admin: &str, yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let token = format!(", token_file: {}{admin}", token.display());
        Self::start_in(dir, &token, &in_front_of(url, yaml), &[]).await
    }

    async fn start_in(files: TempDir, admin: &str, yaml: &str, environment: &[(&str, &str)]) -> Self {
        let path = files.path().join("weir.yaml");
        let head = format!("listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0{admin} }}\n");
        let text = format!("{head}{yaml}");
        std::fs::write(&path, &text).unwrap();
        let environment: BTreeMap<String, String> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // Tests have no time to waste, but those of how weir ends.
        let at_once = Flag { name: "--set", path: "connections.linger".to_owned(), value: "0s".to_owned() };
        let flags = if text.contains("linger") { Vec::new() } else { vec![at_once] };
        let sources = Sources { file: Some(path), environment, flags, ..Sources::default() };
        let config = Config::load(&sources).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let app = App::bind(config).await.unwrap();
        let (app_address, admin_address) = (app.app_address().unwrap(), app.admin_address().unwrap());
        let (house, bell) = (Arc::clone(app.house()), app.bell());
        let rooms = house.rooms();
        let (stop, told) = oneshot::channel();
        let serving = tokio::spawn(app.run(async move {
            let _ = told.await;
        }));
        Self {
            app: format!("http://{app_address}"),
            admin: format!("http://{admin_address}"),
            client: Client::default(),
            house,
            rooms,
            bell,
            stop: Some(stop),
            serving: Some(serving),
            files,
            head,
        }
    }

    /// Starts with every provider at `url`, and `local` beside them, which speaks OpenAI's API.
    pub(crate) async fn before(url: &str) -> Self {
        Self::before_with(url, "").await
    }

    /// The same, with more YAML.
    pub(crate) async fn before_with(url: &str, yaml: &str) -> Self {
        Self::start(&in_front_of(url, yaml)).await
    }

    /// Writes another configuration, in front of a provider at `url`, and has it read.
    pub(crate) async fn configure(&self, url: &str, yaml: &str) -> Outcome {
        self.configure_bare(&in_front_of(url, yaml)).await
    }

    /// The same, with nothing but this.
    pub(crate) async fn configure_bare(&self, yaml: &str) -> Outcome {
        std::fs::write(self.files.path().join("weir.yaml"), format!("{}{yaml}", self.head)).unwrap();
        self.bell.ring().await.expect("weir runs")
    }

    /// Has the configuration read again, whatever its file holds.
    pub(crate) async fn read_again(&self) -> Outcome {
        self.bell.ring().await.expect("weir runs")
    }

    /// The same, with more of the admin side.
    pub(crate) async fn configure_admin(&self, url: &str, more: &str) -> Outcome {
        let head = self.head.replace(" }\n", &format!(", {more} }}\n"));
        std::fs::write(self.files.path().join("weir.yaml"), head + &in_front_of(url, "")).unwrap();
        self.bell.ring().await.expect("weir runs")
    }

    /// A directory for what a configuration names.
    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// The rooms in force.
    pub(crate) fn rooms_now(&self) -> Arc<Rooms> {
        self.house.rooms()
    }

    /// Posts JSON to a path of the app's side.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.client.post(&format!("{}{path}", self.app), headers, body).await
    }

    /// Writes another token where weir looks for it.
    pub(crate) fn change_token(&self, token: &str) {
        std::fs::write(self.files.path().join("token"), token).unwrap();
    }

    /// Posts JSON to a path of the admin side.
    pub(crate) async fn command(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.client.post(&format!("{}{path}", self.admin), headers, body).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.app)
    }

    /// All metrics, as exposed.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.client.get(&format!("{}/metrics", self.admin)).await;
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// The value of one series, by its exact name and labels as exposed; 0 if there is none.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .map_or(0.0, |value| value.parse().unwrap())
    }

    /// The sum of all series whose line begins with `prefix`.
    pub(crate) async fn metric_sum(&self, prefix: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The same of amounts of money, to the pico-dollar.
    pub(crate) async fn metric_pico(&self, prefix: &str) -> u128 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| PicoUsd::of_usd(line.rsplit(' ').next().unwrap()).unwrap().pico()).sum()
    }

    /// Where calls are written down.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        self.rooms.sinks.ledger().unwrap()
    }

    /// What estimates usage, for tests that hold it up.
    pub(crate) fn estimator(&self) -> &Estimator {
        &self.rooms.estimator
    }

    /// What is cached, for tests that make rules.
    pub(crate) fn cache(&self) -> &Cache {
        &self.rooms.cache
    }

    /// The limits and budgets, to see how they stand.
    pub(crate) fn limits(&self) -> &Limits {
        &self.rooms.limits
    }

    /// Waits until so many calls are in flight that ask, or wait for the answer to an equal one.
    pub(crate) async fn in_flight(&self, calls: usize) {
        super::until(&format!("{calls} calls are in flight"), || self.rooms.in_flight.calls() == calls).await;
    }

    /// How many watch what is going on.
    pub(crate) fn watchers(&self) -> usize {
        self.rooms.sinks.live().watchers()
    }

    /// Exchanges that have no record yet.
    pub(crate) fn open_exchanges(&self) -> u64 {
        self.rooms.sinks.exchanges_opened() - self.rooms.sinks.records_closed()
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u64 {
        self.rooms.sinks.records_closed()
    }

    /// Waits until every exchange opened so far has its record.
    pub(crate) async fn settled(&self) {
        let sinks = &self.rooms.sinks;
        super::until("every exchange has its record", || sinks.exchanges_opened() == sinks.records_closed()).await;
    }

    /// Tells weir to stop and waits for it.
    pub(crate) async fn stop(mut self) {
        self.settled().await;
        self.end().await;
    }

    /// Tells weir to stop while calls are in progress.
    pub(crate) fn begin_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for weir to have stopped, and for its books to be closed.
    pub(crate) async fn end(&mut self) {
        self.begin_to_stop();
        self.serving.take().unwrap().await.expect("weir does not panic");
        let sinks = &self.rooms.sinks;
        assert_eq!(sinks.exchanges_opened(), sinks.records_closed(), "exchanges opened and records closed");
    }
}

/// The YAML of every provider at `url`, of `local` beside them, and of what else there is.
fn in_front_of(url: &str, yaml: &str) -> String {
    let known = KNOWN.iter().map(|known| format!("  {}: {{ base_url: \"{url}\" }}\n", known.name));
    let known: String = known.collect();
    let local = format!("  local: {{ api: openai, base_url: \"{url}\", prices: free }}\n");
    format!("providers:\n{known}{local}{yaml}\n")
}
