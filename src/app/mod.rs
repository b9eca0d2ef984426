//! App: builds the rooms from the configuration, binds both sides, serves until told to stop, and drains in order.
//!
//! The only place that knows every room: `building` makes them, as large as they `fit`, with the `ways` to the providers
//! and the `figures` that are looked at; `running` takes other configurations, `watching` is what goes on beside the calls,
//! `ending` what is done last. Binding comes last of all that
//! can fail, so that nothing is started when the configuration cannot be carried out.

mod building;
mod ending;
mod figures;
mod fit;
mod running;
mod watching;
mod ways;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::health::Readiness;
use crate::admin::reload::{Asked, Bell};
use crate::admin::{self, Desk};
use crate::app::building::Built;
use crate::app::ending::{Sending, Writing, end};
use crate::app::fit::fit;
use crate::app::running::{Fixed, Running};
use crate::cache::recording::writer::Writer;
use crate::config::Config;
use crate::door::{Door, Side};
use crate::exchange::Rooms;
use crate::exchange::house::House;
use crate::host::process::keep_freed_memory;
use crate::limits::Limits;
use crate::listener;
use crate::sinks::metrics::Metrics;
use crate::state::kept::Kept;

/// How long weir waits at its start to hear what other replicas have spent.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(1);

/// weir, built and bound, not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    built: Built,
    kept: Option<Arc<Kept<Limits>>>,
    bell: (Bell, mpsc::Receiver<Asked>),
    downstream: Door,
    operator: Door,
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
    Built::from(config).map(|built| built.house.rooms()).map_err(Unusable)
}

impl App {
    /// Builds every room, goes on with what was kept before, then binds both sides.
    ///
    /// # Errors
    /// [`Unusable`] if something the configuration names cannot be used; another error if an address is not free.
    pub async fn bind(mut config: Config) -> anyhow::Result<Self> {
        fit(&mut config);
        let built = Built::from(&config).map_err(Unusable)?;
        if let Some(writer) = &built.writer {
            let made = writer.prepare().context("cache.recordings: the directory cannot be made");
            made.map_err(Unusable)?;
        }
        let kept = kept(&config, &built.house.rooms().limits, &built.metrics);
        let downstream = Door::new(bind(config.listen, "listen").await?, Side::App);
        let operator = Door::new(bind(config.admin.listen, "admin.listen").await?, Side::Admin);
        for door in [&downstream, &operator] {
            built.metrics.watch_door(door);
        }
        Ok(Self { config, built, kept, bell: Bell::new(), downstream, operator })
    }

    /// Where the app's calls come in.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn app_address(&self) -> std::io::Result<SocketAddr> {
        self.downstream.address()
    }

    /// Where the operator looks.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.operator.address()
    }

    /// The rooms, for those who watch them: the demo and the tests.
    #[must_use]
    pub const fn house(&self) -> &Arc<House> {
        &self.built.house
    }

    /// The metrics, likewise.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.built.metrics
    }

    /// What has the configuration read again, once this runs.
    #[must_use]
    pub fn bell(&self) -> Bell {
        self.bell.0.clone()
    }

    /// Serves until `shutdown` resolves, then lets calls in progress end. The operator's side goes last, so that the
    /// drain can be watched. Dropping the future stops everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { config, built, kept, bell: (bell, asks), downstream, operator } = self;
        let Built { house, metrics, store, beside, access, writer, exporter, ledger } = built;
        let mut for_good = watching::for_good(&house, store.as_ref());
        for_good.extend(writer.map(Writer::run));
        let sending = exporter.map(Sending::begin);
        let ledger = ledger.map(|(ledger, writer)| Writing::begin(ledger, writer));
        let (readiness, connections) = (Readiness::starting(), config.connections.clone());
        let own = downstream.address().ok().map(listener::reachable);
        let fixed = Fixed { house: Arc::clone(&house), metrics, readiness: readiness.clone(), store, bell, own };
        let (stop, drained) = (CancellationToken::new(), CancellationToken::new());
        let mut running = None;
        let operators_side = async {
            let desk = Arc::new(Desk::of(fixed.admin(&config, access)));
            // Not before: what the start took and gave back is not for keeping.
            keep_freed_memory();
            let keeping = Running::begin(config, fixed, Arc::clone(&desk), kept, beside).keep(asks, stop.clone());
            running = Some(AbortOnDropHandle::new(tokio::spawn(keeping)));
            admin::run(operator, desk, async { drained.cancelled().await }).await;
        };

        let apps_side = async {
            // One that has just begun would take all for its own.
            if timeout(FIRST_WORD_WITHIN, house.rooms().limits.first_word()).await.is_err() {
                tracing::warn!(
                    "beginning without having heard of other replicas: limits and budgets are this instance's part"
                );
            }
            readiness.set_ready();
            let told = async move {
                shutdown.await;
                tracing::info!("stopping: calls in progress may end");
                readiness.set_draining();
            };
            listener::run(downstream, &connections, Arc::clone(&house), told).await;
            drained.cancel();
        };
        tokio::join!(apps_side, operators_side);
        stop.cancel();
        let running = match running {
            Some(running) => running.await.ok(),
            None => None,
        };
        let rooms = house.rooms();
        end(&rooms, running.as_ref().and_then(|it| it.kept.clone()), sending, ledger).await;
        if let Some(running) = running {
            running.end().await;
        }
        for_good.shutdown().await;
        rooms.limits.leave().await;
        tracing::info!("stopped");
    }
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

async fn bind(address: SocketAddr, knob: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: set `{knob}` to a free address, or end what is listening there")
    })
}
