//! Building: the rooms that a configuration asks for. Binds nothing and begins nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::admin::access::Access;
use crate::admin::tokens::{self, Bearer, Bounds, Role, Token, Tokens};
use crate::app::figures::{about, metrics, watch_cache, watch_connections, watch_queues, watch_runs};
use crate::app::ways::{
    default_destination, destination, fleet, prices, signer, similar, warn_of_unpriced, watched_key,
};
use crate::cache::recording::writer::Writer;
use crate::cache::shared::Shared;
use crate::cache::{self, Cache, memory};
use crate::config::Config;
use crate::exchange::estimate::Estimator;
use crate::exchange::fetch::InFlight;
use crate::exchange::recordings::Recordings;
use crate::exchange::{Rooms, Who};
use crate::fleet::Fleet;
use crate::host::Host;
use crate::ledger;
use crate::ledger::writer::{Ledger, Writer as LedgerWriter};
use crate::limits::Limits;
use crate::limits::shared::Shared as Sharing;
use crate::privacy::Privacy;
use crate::runs::{self, Runs};
use crate::sinks::Sinks;
use crate::sinks::log::CallLog;
use crate::sinks::metrics::Metrics;
use crate::sinks::traces::queue::{Exporter, Traces};
use crate::sinks::{series, traces};
use crate::store::Store;
use crate::store::naming::{Installation, Names};
use crate::upstream::Trust;
use crate::upstream::aws::Signer;
use crate::upstream::credential::Credential;

/// What is made of a configuration before anything is bound.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) rooms: Arc<Rooms>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: Option<Arc<Store>>,
    pub(super) watched_keys: Vec<(Arc<Credential>, PathBuf)>,
    pub(super) signers: Vec<Signer>,
    pub(super) access: Access,
    pub(super) watched_tokens: WatchedTokens,
    pub(super) writer: Option<Writer>,
    pub(super) fleet: Option<Fleet>,
    pub(super) exporter: Option<Exporter>,
    pub(super) ledger: Option<(Arc<Ledger>, LedgerWriter)>,
}

impl Built {
    pub(super) fn from(config: &Config) -> anyhow::Result<Self> {
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

/// Where calls are written down, and who writes them, if they are.
fn ledger(config: &Config, metrics: &Arc<Metrics>) -> Option<(Arc<Ledger>, LedgerWriter)> {
    let told = Arc::clone(metrics);
    let written = Box::new(move |took| told.wrote_ledger(took));
    let (ledger, writer) =
        ledger::writer::open(&config.ledger, config.state_dir.clone(), Arc::clone(&config.redactor), written)?;
    metrics.watch_ledger(Arc::new(ledger.standing()));
    Some((Arc::new(ledger), writer))
}

/// The agent loops in progress; none yet.
fn runs(settings: &runs::Settings, metrics: &Arc<Metrics>) -> Runs {
    let told = Arc::clone(metrics);
    Runs::new(settings, metrics.loop_types(), Box::new(move |event| told.run(event)))
}

/// Tokens, and the files they are read from again.
pub(super) type WatchedTokens = Vec<(Arc<Token>, PathBuf)>;

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
