//! App: builds the rooms from the configuration, binds both sides, serves until told to stop, and drains in order.
//!
//! The only place that knows every room. Binding comes last of all that can fail, so that nothing is started when the
//! configuration cannot be carried out.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::admin::access::Access;
#[cfg(feature = "ledger")]
use crate::admin::analytics::LedgerSide;
use crate::admin::cache::CacheSide;
use crate::admin::health::Readiness;
use crate::admin::tokens::{self, Bearer, Bounds, Role, Token, Tokens};
use crate::admin::{self, Admin};
use crate::cache::memory::{self, Occupancy};
use crate::cache::recording::writer::Writer;
use crate::cache::shared::Shared;
use crate::cache::{self, Cache};
use crate::config::Config;
use crate::exchange::embedding::Endpoint;
use crate::exchange::estimate::Estimator;
use crate::exchange::fetch::InFlight;
use crate::exchange::recordings::Recordings;
use crate::exchange::similar::Similar;
use crate::exchange::{Destination, Rooms, Who};
use crate::fleet::Fleet;
use crate::host::Host;
use crate::ledger;
use crate::ledger::writer::{Ledger, Writer as LedgerWriter};
use crate::limits::Limits;
use crate::limits::shared::Shared as Sharing;
use crate::listener;
use crate::price::{Edition, Payee, PriceError, Prices, Source, Whose};
use crate::privacy::Privacy;
use crate::privacy::users::UserIds;
use crate::provider::{CredentialSource, PricedAs, Provider};
use crate::runs::{self, Runs};
use crate::secret::{Reread, Told};
use crate::sinks::Sinks;
use crate::sinks::log::CallLog;
use crate::sinks::metrics::{About, Metrics, PriceTable};
use crate::sinks::now::{Backend, CacheSize, Queue};
use crate::sinks::sides::Consumers;
use crate::sinks::traces::queue::{Exporter, Traces};
use crate::sinks::{series, traces};
use crate::state::kept::Kept;
use crate::store::Store;
use crate::store::naming::{Installation, Names};
use crate::units::Backlog;
use crate::upstream::aws::Signer;
use crate::upstream::credential::Credential;
use crate::upstream::{self, Trust, Upstream};
use crate::warm;

/// How long weir waits at its start to hear what other replicas have spent.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(1);
/// How long what was recorded may take to be written, and what spans wait to be sent, once weir is told to stop.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);

/// weir, built and bound, not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    built: Built,
    kept: Option<Arc<Kept<Limits>>>,
    downstream: TcpListener,
    operator: TcpListener,
}

/// The configuration asks for something that cannot be had: a file that cannot be read, a price list nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Unusable(anyhow::Error);

/// Whether all that `config` names can be used. Binds nothing and asks no provider.
///
/// # Errors
/// [`Unusable`] with what cannot, and the knob that names it.
pub fn check(config: &Config) -> Result<(), Unusable> {
    Built::from(config).map(drop).map_err(Unusable)
}

/// The rooms that `config` asks for, of a weir that serves nobody: for questions about routes and prices.
///
/// # Errors
/// [`Unusable`] with what cannot be used, and the knob that names it.
pub fn rooms(config: &Config) -> Result<Arc<Rooms>, Unusable> {
    Built::from(config).map(|built| built.rooms).map_err(Unusable)
}

/// What is made of a configuration before anything is bound.
#[derive(Debug)]
struct Built {
    rooms: Arc<Rooms>,
    metrics: Arc<Metrics>,
    store: Option<Arc<Store>>,
    watched_keys: Vec<(Arc<Credential>, PathBuf)>,
    signers: Vec<Signer>,
    access: Access,
    watched_tokens: WatchedTokens,
    writer: Option<Writer>,
    fleet: Option<Fleet>,
    exporter: Option<Exporter>,
    ledger: Option<(Arc<Ledger>, LedgerWriter)>,
}

impl Built {
    fn from(config: &Config) -> anyhow::Result<Self> {
        let prices = Arc::new(prices(config)?);
        let trust = Trust::load(&config.upstream).context("upstream.ca_files")?;
        let metrics = Arc::new(metrics(config, about(&prices.edition())));
        let privacy =
            Privacy::new(&config.privacy, Arc::clone(&config.redactor)).context("privacy.user_id_key_file")?;
        metrics.watch_redactor(Arc::clone(privacy.redactor()));

        let mut watched_keys = Vec::new();
        let mut signers = Vec::new();
        let mut destinations = BTreeMap::new();
        for (provider, source) in config.providers.iter().zip(prices.sources()) {
            if !prices.is_listed(&source) {
                warn_of_unpriced(provider);
            }
            let signer = signer(config, provider, &trust)?;
            signers.extend(signer.clone());
            let mut destination = destination(config, provider, source, &trust, &metrics)?;
            destination.upstream = destination.upstream.signed_by(signer);
            watched_keys.extend(watched_key(&destination));
            destinations.insert(Arc::clone(&provider.name), Arc::new(destination));
        }
        let default_destination = default_destination(config, &destinations)?;

        let (traces, exporter) = traces(config, &metrics)?.unzip();
        let ledger = ledger(config, &metrics);
        let store = store(&config.cache, &metrics)?;
        let cache = cache(&config.cache, store.as_ref(), &metrics);
        let similar = similar(&config.cache.similar, &config.upstream, &trust, &mut watched_keys)?;
        let (recordings, writer) = Recordings::open(&config.cache, &destinations).context("cache.recordings")?;
        let rooms = Arc::new(Rooms {
            who: Who::new(&config.calls.identity).context("calls.identity: not the name of a header")?,
            settings: config.calls.clone(),
            drains: Arc::new(Semaphore::new(config.calls.max_drains)),
            destinations,
            default_destination,
            idle_timeout: config.upstream.idle_timeout.get(),
            cache: Arc::new(cache),
            recordings,
            similar,
            runs: runs(&config.loops, &metrics),
            in_flight: InFlight::new(&config.cache.single_flight, config.cache.max_entry_bytes.as_len()),
            limits: Arc::new(limits(config, store.as_ref())?),
            privacy: Arc::new(privacy),
            prices,
            sinks: Sinks::new(Arc::clone(&metrics), CallLog::new(config.telemetry.log.calls), traces)
                .with_ledger(ledger.as_ref().map(|(ledger, _)| Arc::clone(ledger))),
            estimator: Estimator::new(&config.calls),
            tasks: TaskTracker::new(),
            hard_stop: CancellationToken::new(),
        });
        watch_cache(&metrics, &rooms);
        watch_connections(&metrics, &rooms);
        watch_queues(&metrics, &rooms);
        metrics.watch_host(Host::new());
        metrics.watch_limits(Arc::clone(&rooms.limits));
        watch_runs(&metrics, &rooms);
        let fleet = fleet(config, &trust, &mut watched_keys)?;
        let store = store.map(|(store, _)| store);
        let (access, watched_tokens) = access(&config.admin)?;
        Ok(Self {
            rooms,
            metrics,
            store,
            watched_keys,
            signers,
            access,
            watched_tokens,
            writer,
            fleet,
            exporter,
            ledger,
        })
    }
}

impl App {
    /// Builds every room, goes on with what was kept before, then binds both sides.
    ///
    /// # Errors
    /// [`Unusable`] if something the configuration names cannot be used; another error if an address is not free.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let built = Built::from(&config).map_err(Unusable)?;
        if let Some(writer) = &built.writer {
            let made = writer.prepare().context("cache.recordings: the directory cannot be made");
            made.map_err(Unusable)?;
        }
        let kept = kept(&config, &built.rooms.limits, &built.metrics);
        let downstream = bind(config.listen, "listen").await?;
        let operator = bind(config.admin.listen, "admin.listen").await?;
        Ok(Self { config, built, kept, downstream, operator })
    }

    /// Where the app's calls come in.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn app_address(&self) -> std::io::Result<SocketAddr> {
        self.downstream.local_addr()
    }

    /// Where the operator looks.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.operator.local_addr()
    }

    /// The rooms, for those who watch them: the demo and the tests.
    #[must_use]
    pub const fn rooms(&self) -> &Arc<Rooms> {
        &self.built.rooms
    }

    /// The metrics, likewise.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.built.metrics
    }

    /// Serves until `shutdown` resolves, then lets calls in progress end. The operator's side goes last, so that the
    /// drain can be watched. Dropping the future stops everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { config, built, kept, downstream, operator } = self;
        let mut watchers = watchers(&built);
        let Built { rooms, metrics, store, access, writer, fleet, exporter, ledger, .. } = built;
        if let Ok(own) = downstream.local_addr().map(listener::reachable) {
            for warmed in config.warm {
                watchers.spawn(warm::on_schedule(Arc::clone(&rooms), own, warmed));
            }
        }
        if let Some(writer) = writer {
            watchers.spawn(writer.run());
        }
        if let Some(kept) = &kept {
            watchers.spawn(Arc::clone(kept).keep(Arc::clone(&rooms.limits)));
        }
        if let Some(fleet) = fleet {
            watchers.spawn(fleet.keep(Arc::clone(&rooms.limits)));
        }
        let sending = exporter.map(Sending::begin);
        let ledger = ledger.map(|(ledger, writer)| Writing::begin(ledger, writer));
        let readiness = Readiness::starting();
        let admin = Admin {
            metrics,
            readiness: readiness.clone(),
            access,
            cache: cache_side(&rooms, Arc::new(config.cache)),
            limits: Arc::clone(&rooms.limits),
            #[cfg(feature = "ledger")]
            ledger: LedgerSide::of(rooms.sinks.ledger().map(Arc::clone), Arc::clone(&rooms.prices)),
            live: Arc::clone(rooms.sinks.live()),
            privacy: Arc::clone(&rooms.privacy),
            store,
        };
        let drained = CancellationToken::new();
        let admin_done = drained.clone();
        let operators_side = admin::run(operator, admin, async move { admin_done.cancelled().await });

        // One that has just begun would take all for its own.
        if timeout(FIRST_WORD_WITHIN, rooms.limits.first_word()).await.is_err() {
            tracing::warn!(
                "beginning without having heard of other replicas: limits and budgets are this instance's part"
            );
        }
        readiness.set_ready();
        let apps_side = async {
            let told = async move {
                shutdown.await;
                tracing::info!("stopping: calls in progress may end");
                readiness.set_draining();
            };
            listener::run(downstream, &config.connections, Arc::clone(&rooms), told).await;
            drained.cancel();
        };
        tokio::join!(apps_side, operators_side);
        end(&rooms, kept, sending, ledger).await;
        watchers.shutdown().await;
        rooms.limits.leave().await;
        tracing::info!("stopped");
    }
}

/// Writes and sends, within a bound, what waits for it.
async fn end(rooms: &Arc<Rooms>, kept: Option<Arc<Kept<Limits>>>, sending: Option<Sending>, ledger: Option<Writing>) {
    let kept = async {
        if let Some(kept) = kept {
            kept.keep_now(Arc::clone(&rooms.limits)).await;
        }
    };
    let written = async {
        if timeout(FLUSH_WITHIN, async { tokio::join!(rooms.recordings.flush(), kept) }).await.is_err() {
            tracing::warn!("not everything was written: the disk is too slow");
        }
    };
    let sent = async {
        if let Some(sending) = sending {
            sending.end().await;
        }
    };
    let written_down = async {
        if let Some(ledger) = ledger {
            ledger.end().await;
        }
    };
    tokio::join!(written, sent, written_down);
}

/// Spans on their way to a collector, beside the calls. Dropped, those that wait are lost.
struct Sending {
    exporter: AbortOnDropHandle<()>,
    stop: CancellationToken,
}

impl Sending {
    fn begin(exporter: Exporter) -> Self {
        let stop = CancellationToken::new();
        Self { exporter: AbortOnDropHandle::new(tokio::spawn(exporter.run(stop.clone()))), stop }
    }

    /// Sends what waits, within a bound.
    async fn end(self) {
        self.stop.cancel();
        if timeout(FLUSH_WITHIN, self.exporter).await.is_err() {
            tracing::warn!("not all spans were sent: the collector is too slow");
        }
    }
}

/// The thread that writes the ledger. Dropped, it ends with the last of those who have something to write.
struct Writing {
    ledger: Arc<Ledger>,
    done: oneshot::Receiver<()>,
}

impl Writing {
    fn begin(ledger: Arc<Ledger>, writer: LedgerWriter) -> Self {
        let (tell, done) = oneshot::channel();
        let begun = thread::Builder::new().name("weir-ledger".to_owned()).spawn(move || {
            writer.run();
            let _ = tell.send(());
        });
        if let Err(error) = begun {
            tracing::warn!(error.message = %error, "calls are not written down: there is no thread for it");
        }
        Self { ledger, done }
    }

    /// Writes what waits, within a bound.
    async fn end(self) {
        self.ledger.end();
        if timeout(FLUSH_WITHIN, self.done).await.is_err() {
            tracing::warn!("not every call was written down: the disk is too slow");
        }
    }
}

/// Where calls are written down, and who writes them, if they are.
fn ledger(config: &Config, metrics: &Arc<Metrics>) -> Option<(Arc<Ledger>, LedgerWriter)> {
    let told = Arc::clone(metrics);
    let written = Box::new(move |took| told.wrote_ledger(took));
    let (ledger, writer) =
        ledger::writer::open(&config.ledger, config.state_dir.clone(), Arc::clone(&config.redactor), written)?;
    metrics.watch_ledger(Arc::new(ledger.standing()));
    Some((Arc::new(ledger), writer))
}

/// What the limits have counted survives a restart, if they count anything, or an operator can have them count.
fn kept(config: &Config, limits: &Limits, metrics: &Metrics) -> Option<Arc<Kept<Limits>>> {
    let may_come_to_count = config.admin.allows_changes() && config.state_dir.is_some();
    if !limits.remember() && !may_come_to_count {
        return None;
    }
    let (kept, saved) = Kept::open(config.state_dir.as_deref());
    if let Some(saved) = saved {
        limits.restore(saved);
    }
    let watched = Arc::clone(&kept);
    metrics.watch_state(Arc::new(move || !watched.is_failing()));
    Some(kept)
}

/// Everything that goes on beside the calls, until dropped.
fn watchers(built: &Built) -> JoinSet<()> {
    let Built { rooms, metrics, store, watched_keys, signers, watched_tokens, .. } = built;
    let mut watchers = JoinSet::new();
    for (credential, path) in watched_keys {
        watchers.spawn(Arc::clone(credential).watch(path.clone(), told(metrics)));
    }
    for (token, path) in watched_tokens {
        watchers.spawn(Arc::clone(token).watch(path.clone(), told(metrics)));
    }
    let (metrics, told_of_overlay) = (Arc::clone(metrics), told(metrics));
    let told = move |edition: Option<Edition>| {
        told_of_overlay(if edition.is_some() { Reread::Taken } else { Reread::Refused });
        if let Some(edition) = edition {
            metrics.set_price_table(price_table(&edition));
        }
    };
    watchers.spawn(Arc::clone(&rooms.prices).watch(told));
    watchers.spawn(crate::tokens::let_unused_go());
    watchers.spawn(Arc::clone(&rooms.limits).forget_idle());
    watchers.spawn(Arc::clone(&rooms.limits).end_overrides());
    for signer in signers {
        watchers.spawn(signer.clone().keep());
    }
    if let Some(store) = store {
        watchers.spawn(Arc::clone(store).keep());
        watchers.spawn(Arc::clone(&rooms.cache).share());
        watchers.spawn(Arc::clone(&rooms.limits).share());
    }
    watchers
}

/// Tells the metrics what comes of one file that is read again.
fn told(metrics: &Metrics) -> Told {
    let file = metrics.watched_file();
    Box::new(move |came| file.reread(came))
}

async fn bind(address: SocketAddr, knob: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: set `{knob}` to a free address, or end what is listening there")
    })
}

/// The numbers. What is counted of providers that are only known by name begins with their first call.
fn metrics(config: &Config, about: About) -> Metrics {
    let is_configured = |it: &&Arc<Provider>| it.settled || it.name == config.default_provider.name;
    let labels = |providers: Vec<&Arc<Provider>>| -> Vec<Arc<str>> {
        providers.into_iter().map(|provider| Arc::clone(&provider.label)).collect()
    };
    let (configured, known) = config.providers.iter().partition(is_configured);
    let mut telemetry = config.telemetry.clone();
    if config.privacy.user_ids == UserIds::Hashed && telemetry.metrics.consumers == Consumers::Hashed {
        // They come hashed, under the names that the ledger has.
        telemetry.metrics.consumers = Consumers::Plain;
    }
    Metrics::new(&telemetry, &labels(configured), about).knowing(&labels(known))
}

fn about(prices: &Edition) -> About {
    About {
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("BUILD_REVISION").unwrap_or("unknown"),
        prices: price_table(prices),
    }
}

fn price_table(edition: &Edition) -> PriceTable {
    let Edition { source, version, published } = edition.clone();
    PriceTable { version, source, published_at: published }
}

/// The cache, with a second level where replicas share a store.
fn cache(settings: &cache::Settings, store: Option<&(Arc<Store>, Installation)>, metrics: &Arc<Metrics>) -> Cache {
    let told = Arc::clone(metrics);
    let on_evicted = Box::new(move |why| {
        told.evicted(match why {
            memory::Eviction::Size => series::Eviction::Size,
            memory::Eviction::Ttl => series::Eviction::Ttl,
            memory::Eviction::Invalidated => series::Eviction::Invalidated,
        });
    });
    let cache = Cache::new(settings, on_evicted);
    let Some((redis, (store, installation))) = settings.redis.as_ref().zip(store) else { return cache };
    let told = Arc::clone(metrics);
    let on_event = Box::new(move |event| told.shared(event));
    let shared = Shared::new(redis, installation, Arc::clone(store), cache.max_entry_bytes(), on_event);
    cache.with_shared(Some(Arc::new(shared)))
}

/// The store that replicas share, if they do, and the secret that they have in common.
fn store(settings: &cache::Settings, metrics: &Metrics) -> anyhow::Result<Option<(Arc<Store>, Installation)>> {
    // Recordings are of tests, which share nothing with anybody.
    let Some(redis) = settings.redis.as_ref().filter(|_| !settings.mode.is_for_tests()) else { return Ok(None) };
    let store = Arc::new(Store::new(redis)?);
    let watched = Arc::clone(&store);
    metrics.watch_store(Arc::new(move || watched.is_up()));
    let installation = Installation::read(redis)?;
    metrics.name_consumers(Names::new(&installation.keys_for("consumers")));
    Ok(Some((store, installation)))
}

/// The limits and budgets, held together with other replicas where there is a store for that.
fn limits(config: &Config, store: Option<&(Arc<Store>, Installation)>) -> anyhow::Result<Limits> {
    let shared = config.cache.redis.as_ref().zip(store);
    let shared = shared.map(|(redis, (store, installation))| Sharing::new(redis, installation, Arc::clone(store)));
    Ok(Limits::new(&config.limits, &config.budgets).shared_by(shared.transpose()?))
}

/// What it takes to answer similar requests, if the operator wants that.
fn similar(
    settings: &cache::similar::Settings,
    upstream: &upstream::Settings,
    trust: &Trust,
    watched_keys: &mut Vec<(Arc<Credential>, PathBuf)>,
) -> anyhow::Result<Option<Similar>> {
    let (Some(url), Some(model)) = (&settings.url, &settings.model) else { return Ok(None) };
    let target = format!("{}/embeddings", url.trim_end_matches('/')).parse().context("cache.similar.url")?;
    let credential = match (&settings.api_key_file, &settings.api_key_env) {
        (Some(file), _) => Some(Credential::from_file(file, "Bearer ")),
        (None, Some(name)) => Some(Credential::from_environment(name, "Bearer ")),
        (None, None) => None,
    };
    let credential = credential.transpose().context("cache.similar")?.map(Arc::new);
    if let (Some(file), Some(credential)) = (&settings.api_key_file, &credential) {
        watched_keys.push((Arc::clone(credential), file.clone()));
    }
    let upstream = Upstream::new(upstream, trust, Box::new(|_| {}));
    let endpoint = Endpoint { target, model: model.as_str().into(), credential, upstream };
    Ok(Some(Similar::new(settings, endpoint)))
}

/// Where the spans of calls go, and what sends them, if they go anywhere.
fn traces(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<(Traces, Exporter)>> {
    for remark in &config.remarks {
        tracing::warn!("{remark}");
    }
    let Some(plan) = config.traces.clone() else { return Ok(None) };
    match traces::queue::open(plan) {
        Ok((traces, exporter)) => {
            let watched = traces.clone();
            metrics.watch_traces(Arc::new(move || watched.standing()));
            Ok(Some((traces, exporter)))
        }
        Err(why) if config.telemetry.traces.endpoint.is_some() => anyhow::bail!("telemetry.traces.endpoint: {why}"),
        // Variables are set for whole clusters: no app may fail to start for one.
        Err(why) => {
            tracing::warn!("no spans are sent: {why}");
            Ok(None)
        }
    }
}

/// What reads from Prometheus what all instances spend, if the operator wants that.
fn fleet(
    config: &Config,
    trust: &Trust,
    watched_keys: &mut Vec<(Arc<Credential>, PathBuf)>,
) -> anyhow::Result<Option<Fleet>> {
    let file = config.fleet_spend.bearer_token_file.as_ref();
    let credential = file.map(|file| Credential::from_file(file, "Bearer ").map(Arc::new));
    let credential = credential.transpose().context("fleet_spend.bearer_token_file")?;
    watched_keys.extend(credential.clone().zip(file.cloned()));
    let upstream = Upstream::new(&config.upstream, trust, Box::new(|_| {}));
    Ok(Fleet::new(&config.fleet_spend, credential, upstream))
}

/// The cache tells evictions to the metrics, the metrics ask the cache for its size; one of the two must not keep the
/// other alive.
fn watch_cache(metrics: &Metrics, rooms: &Arc<Rooms>) {
    let watched = Arc::downgrade(rooms);
    metrics.watch_cache(Arc::new(move || {
        let Some(rooms) = watched.upgrade() else { return Vec::new() };
        let memory = Some((Backend::Memory, rooms.cache.occupancy()));
        let similar = rooms.similar.as_ref().map(|similar| (Backend::Similar, similar.occupancy()));
        let size =
            |now: Occupancy| CacheSize { entries: now.entries, bytes: now.bytes, capacity_bytes: now.capacity_bytes };
        memory.into_iter().chain(similar).map(|(backend, now)| (backend, size(now))).collect()
    }));
}

/// As with the cache: neither may keep the other alive.
fn watch_connections(metrics: &Metrics, rooms: &Arc<Rooms>) {
    let watched = Arc::downgrade(rooms);
    metrics.watch_connections(Arc::new(move || {
        let Some(rooms) = watched.upgrade() else { return Vec::new() };
        let each = rooms.destinations.values();
        each.map(|to| (Arc::clone(&to.provider.label), to.upstream.connections())).collect()
    }));
}

/// As with the cache: neither may keep the other alive.
fn watch_queues(metrics: &Metrics, rooms: &Arc<Rooms>) {
    let watch = |queue, backlog: fn(&Rooms) -> Option<Backlog>| {
        let watched = Arc::downgrade(rooms);
        metrics.watch_queue(queue, Box::new(move || backlog(&*watched.upgrade()?)));
    };
    watch(Queue::CacheWrites, |rooms| rooms.cache.backlog());
    watch(Queue::Recordings, |rooms| rooms.recordings.backlog());
    watch(Queue::Estimates, |rooms| rooms.settings.estimate_usage.then(|| rooms.estimator.backlog()));
}

/// The agent loops in progress; none yet.
fn runs(settings: &runs::Settings, metrics: &Arc<Metrics>) -> Runs {
    let told = Arc::clone(metrics);
    Runs::new(settings, metrics.loop_types(), Box::new(move |event| told.run(event)))
}

/// As with the cache: neither may keep the other alive.
fn watch_runs(metrics: &Metrics, rooms: &Arc<Rooms>) {
    let watched = Arc::downgrade(rooms);
    metrics.watch_runs(Box::new(move || {
        watched.upgrade().map(|rooms| rooms.runs.active(Instant::now()).into_iter().collect()).unwrap_or_default()
    }));
}

/// What signs a provider's calls, if something does.
fn signer(config: &Config, provider: &Provider, trust: &Trust) -> anyhow::Result<Option<Signer>> {
    let CredentialSource::Aws { profile, region } = &provider.credential else { return Ok(None) };
    let signer = Signer::new(profile.as_deref(), region.as_deref(), &config.upstream, trust);
    signer.map(Some).with_context(|| format!("providers.{}.aws_sign", provider.name))
}

fn destination(
    config: &Config,
    provider: &Arc<Provider>,
    prices: Source,
    trust: &Trust,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Destination> {
    let (metrics, label) = (Arc::clone(metrics), Arc::clone(&provider.label));
    let on_connected = Box::new(move |took: Duration| metrics.connected(&label, took));
    let prefix = provider.api.dialect().credential.1;
    let credential = match &provider.credential {
        CredentialSource::App | CredentialSource::Aws { .. } => None,
        CredentialSource::File(path) => Some(Credential::from_file(path, prefix)),
        CredentialSource::Environment(name) => Some(Credential::from_environment(name, prefix)),
    };
    Ok(Destination {
        provider: Arc::clone(provider),
        upstream: Upstream::new(&config.upstream, trust, on_connected),
        credential: credential.transpose().with_context(|| format!("providers.{}", provider.name))?.map(Arc::new),
        prices,
    })
}

/// The key of a provider's that is in a file, and that file.
fn watched_key(to: &Destination) -> Option<(Arc<Credential>, PathBuf)> {
    let CredentialSource::File(path) = &to.provider.credential else { return None };
    Some((Arc::clone(to.credential.as_ref()?), path.clone()))
}

fn default_destination(
    config: &Config,
    destinations: &BTreeMap<Arc<str>, Arc<Destination>>,
) -> anyhow::Result<Arc<Destination>> {
    let name = &config.default_provider.name;
    let found = destinations.get(name).map(Arc::clone);
    found.with_context(|| format!("default_provider: there is no provider `{name}`"))
}

/// What the operator's side knows of the cache.
fn cache_side(rooms: &Rooms, settings: Arc<cache::Settings>) -> CacheSide {
    let label = |(name, to): (&Arc<str>, &Arc<Destination>)| (Arc::clone(name), Arc::clone(&to.provider.label));
    let labels = Arc::new(rooms.destinations.iter().map(label).collect());
    CacheSide { cache: Arc::clone(&rooms.cache), settings, labels }
}

/// Tokens, and the files they are read from again.
type WatchedTokens = Vec<(Arc<Token>, PathBuf)>;

/// Who may read and change on the operator's side, and the files their tokens are in.
fn access(settings: &admin::Settings) -> anyhow::Result<(Access, WatchedTokens)> {
    let (mut bearers, mut watched) = (Vec::new(), Vec::new());
    let mut add = |knob: &str, name: &str, role, bounds, file: &PathBuf| {
        let token = Arc::new(Token::from_file(file).with_context(|| format!("admin.{knob}"))?);
        watched.push((Arc::clone(&token), file.clone()));
        bearers.push(Bearer { name: name.into(), role, bounds, token });
        anyhow::Ok(())
    };
    if let Some(file) = &settings.token_file {
        add("token_file", tokens::ADMIN, Role::Admin, Bounds::default(), file)?;
    }
    if let Some(file) = &settings.reader_token_file {
        add("reader_token_file", tokens::READER, Role::Reader, Bounds::default(), file)?;
    }
    for (position, token) in settings.tokens.iter().enumerate() {
        add(&format!("tokens[{position}].file"), &token.name, token.role, token.bounds(), &token.file)?;
    }
    let tokens = Arc::new(Tokens::of(bearers).context("admin.tokens")?);
    let admin::Settings { require_token, require_workspace, .. } = *settings;
    Ok((Access { tokens, require_token, require_workspace }, watched))
}

/// The price table, and every provider's place in it.
fn prices(config: &Config) -> anyhow::Result<Prices> {
    let prices = Prices::load(&config.prices, config.providers.iter().map(|it| payee(it)).collect());
    let prices = prices.map_err(|error| match error {
        PriceError::Unlisted { .. } => error.into(),
        PriceError::Unreadable { .. } | PriceError::Mistaken { .. } => {
            anyhow::Error::new(error).context("prices.overlay")
        }
    })?;
    prices.log_remarks();
    Ok(prices)
}

fn payee(provider: &Provider) -> Payee {
    let prices = match &provider.prices {
        PricedAs::Free => Whose::Free,
        PricedAs::Table(id) => Whose::Id(id.clone()),
        PricedAs::Unknown => Whose::Found,
    };
    Payee { name: (&*provider.name).into(), url: provider.base_url.to_string().into(), prices }
}

fn warn_of_unpriced(provider: &Provider) {
    tracing::warn!(
        weir.provider = %provider.name,
        "calls to this provider are unpriced: set its `prices` to `free`, or to the id of a provider in the table"
    );
}
