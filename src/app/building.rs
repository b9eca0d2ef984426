//! Building: the rooms that a configuration asks for. Binds nothing and begins nothing.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::admin::access::Access;
use crate::admin::tokens::{self, Bearer, Bounds, Role, Token, Tokens};
use crate::app::figures::{about, labels, metrics, watch_house};
use crate::app::ways::{WatchedKeys, Ways, default_destination, fleet, prices, similar, similar_key, ways};
use crate::cache::recording::writer::Writer;
use crate::cache::shared::Shared;
use crate::cache::{self, Cache, memory};
use crate::config::Config;
use crate::exchange::estimate::Estimator;
use crate::exchange::fetch::InFlight;
use crate::exchange::house::House;
use crate::exchange::load::Load;
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
use crate::units::Span;
use crate::upstream::aws::Signer;
use crate::upstream::trust::Trust;

/// What is made of a configuration before anything is bound.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) house: Arc<House>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: Option<Arc<Store>>,
    pub(super) beside: Beside,
    pub(super) access: Access,
    pub(super) writer: Option<Writer>,
    pub(super) exporter: Option<Exporter>,
    pub(super) ledger: Option<(Arc<Ledger>, LedgerWriter)>,
}

/// What goes on beside the calls, and is of one configuration.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) watched_keys: WatchedKeys,
    pub(super) watched_tokens: WatchedTokens,
    pub(super) signers: Vec<Signer>,
    pub(super) fleet: Option<Fleet>,
}

/// What is made of another configuration while weir runs.
#[derive(Debug)]
pub(super) struct Refitted {
    pub(super) rooms: Arc<Rooms>,
    pub(super) access: Access,
    pub(super) beside: Beside,
}

impl Refitted {
    /// The rooms that `config` asks for in place of `old` ones, which are of the configuration `was`. What holds something
    /// goes on in the new ones: answers, what was spent, runs, connections to providers that stay as they are.
    pub(super) fn from(config: &Config, was: &Config, old: &Rooms, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let are_same = |sections: &[&str]| sections.iter().all(|section| config.is_as(was, &[section]));
        let prices =
            if are_same(&["providers", "prices"]) { Arc::clone(&old.prices) } else { Arc::new(prices(config)?) };
        let trust = Trust::load(&config.upstream).context("upstream.ca_files")?;
        let privacy = if are_same(&["privacy"]) {
            Arc::clone(&old.privacy)
        } else {
            let redactor = Arc::clone(old.privacy.redactor());
            Arc::new(Privacy::new(&config.privacy, redactor).context("privacy.user_id_key_file")?)
        };
        let Ways { destinations, mut watched_keys, signers } =
            ways(config, (&prices, &trust, metrics), Some((was, old)))?;
        watched_keys.extend(old.similar.as_ref().and_then(|_| similar_key(&config.cache.similar, old)));
        let fleet = fleet(config, &trust, &mut watched_keys)?;
        let (access, watched_tokens) = access(&config.admin)?;
        let flights = config.is_as(was, &["cache", "single_flight"]);
        let drains = config.is_as(was, &["calls", "max_drains"]);
        let rooms = Arc::new(Rooms {
            who: Who::new(&config.calls.identity).context("calls.identity: not the name of a header")?,
            settings: config.calls.clone(),
            drains: if drains { Arc::clone(&old.drains) } else { Arc::new(Semaphore::new(config.calls.max_drains)) },
            default_destination: default_destination(config, &destinations)?,
            destinations,
            idle_timeout: config.upstream.idle_timeout.get(),
            total_timeout: config.upstream.total_timeout.map(Span::get),
            cache: Arc::new(old.cache.on_terms(&config.cache)),
            recordings: Arc::clone(&old.recordings),
            similar: old.similar.clone(),
            runs: old.runs.on_terms(&config.loops),
            in_flight: if flights { Arc::clone(&old.in_flight) } else { Arc::new(in_flight(config, &old.load)) },
            // Nothing can fail any more: from here on the rules that go on have the new terms.
            limits: Arc::new(old.limits.succeeded_by(&config.limits, &config.budgets)),
            privacy,
            prices,
            sinks: old.sinks.logging(CallLog::new(config.telemetry.log.calls)),
            estimator: old.estimator.on_terms(&config.calls),
            load: {
                old.load.bound(&config.calls);
                Arc::clone(&old.load)
            },
            tasks: old.tasks.clone(),
            hard_stop: old.hard_stop.clone(),
        });
        metrics.know(&labels(config));
        Ok(Self { rooms, access, beside: Beside { watched_keys, watched_tokens, signers, fleet } })
    }
}

impl Built {
    pub(super) fn from(config: &Config) -> anyhow::Result<Self> {
        let prices = Arc::new(prices(config)?);
        let trust = Trust::load(&config.upstream).context("upstream.ca_files")?;
        let metrics = Arc::new(metrics(config, about(&prices.edition())));
        let privacy =
            Privacy::new(&config.privacy, Arc::clone(&config.redactor)).context("privacy.user_id_key_file")?;
        metrics.watch_redactor(Arc::clone(privacy.redactor()));

        let Ways { destinations, mut watched_keys, signers } = ways(config, (&prices, &trust, &metrics), None)?;
        let default_destination = default_destination(config, &destinations)?;

        let (traces, exporter) = traces(config, &metrics)?.unzip();
        let ledger = ledger(config, &metrics);
        let store = store(&config.cache, &metrics)?;
        let cache = cache(&config.cache, store.as_ref(), &metrics);
        let similar = similar(&config.cache.similar, &config.upstream, &trust, &mut watched_keys)?;
        let (recordings, writer) = Recordings::open(&config.cache, &destinations).context("cache.recordings")?;
        let load = Arc::new(Load::new(&config.calls));
        let rooms = Arc::new(Rooms {
            who: Who::new(&config.calls.identity).context("calls.identity: not the name of a header")?,
            settings: config.calls.clone(),
            drains: Arc::new(Semaphore::new(config.calls.max_drains)),
            destinations,
            default_destination,
            idle_timeout: config.upstream.idle_timeout.get(),
            total_timeout: config.upstream.total_timeout.map(Span::get),
            cache: Arc::new(cache),
            recordings: Arc::new(recordings),
            similar: similar.map(Arc::new),
            runs: runs(&config.loops, &metrics),
            in_flight: Arc::new(in_flight(config, &load)),
            limits: Arc::new(limits(config, store.as_ref())?),
            privacy: Arc::new(privacy),
            prices,
            sinks: Sinks::new(Arc::clone(&metrics), CallLog::new(config.telemetry.log.calls), traces)
                .with_ledger(ledger.as_ref().map(|(ledger, _)| Arc::clone(ledger))),
            estimator: Estimator::new(&config.calls),
            load,
            tasks: TaskTracker::new(),
            hard_stop: CancellationToken::new(),
        });
        let house = Arc::new(House::of(rooms));
        watch_house(&metrics, &house);
        metrics.watch_host(Host::new());
        let fleet = fleet(config, &trust, &mut watched_keys)?;
        let store = store.map(|(store, _)| store);
        let (access, watched_tokens) = access(&config.admin)?;
        Ok(Self {
            house,
            metrics,
            store,
            beside: Beside { watched_keys, watched_tokens, signers, fleet },
            access,
            writer,
            exporter,
            ledger,
        })
    }
}

/// Calls in flight that equal ones may join; none yet.
fn in_flight(config: &Config, load: &Load) -> InFlight {
    InFlight::new(&config.cache.single_flight, config.cache.max_entry_bytes.as_len(), &load.replies)
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
    Ok((Access { tokens, require_token, require_workspace, attempts: Arc::default() }, watched))
}
