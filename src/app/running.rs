//! Running: what serves with a configuration, and how it takes another one.
//!
//! A configuration is read again when somebody asks for that, and when the file's text has changed: looked at, not
//! watched, for Kubernetes swaps what it mounts by symlinks. What is right is taken as a whole: rooms, tokens and all that
//! goes on beside the calls. What is not is told of once, and changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::admin::access::Access;
#[cfg(feature = "ledger")]
use crate::admin::analytics::LedgerSide;
use crate::admin::cache::CacheSide;
use crate::admin::health::Readiness;
use crate::admin::reload::{Asked, Bell, Outcome};
use crate::admin::{Admin, Desk};
use crate::app::building::{Beside, Refitted};
use crate::app::figures::price_table;
use crate::app::fit::fit;
use crate::app::{kept, watching};
use crate::config::live::Changes;
use crate::config::mistake::Mistakes;
use crate::config::{Config, Revision};
use crate::exchange::Destination;
use crate::exchange::house::House;
use crate::limits::Limits;
use crate::secret::Reread;
use crate::sinks::metrics::Metrics;
use crate::sinks::reloads::WatchedFile;
use crate::state::kept::Kept;
use crate::store::Store;
use crate::warm;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A file that is written in place is there by halves for a moment: it is to be the same after so long.
const SETTLES_WITHIN: Duration = Duration::from_millis(250);

/// What is the same whatever is configured.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) house: Arc<House>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    pub(super) store: Option<Arc<Store>>,
    pub(super) bell: Bell,
    /// Where the app's calls come in, as it is reached from here.
    pub(super) own: Option<SocketAddr>,
}

impl Fixed {
    /// What the operator's side shows of `config`, which is in force.
    pub(super) fn admin(&self, config: &Config, access: Access) -> Admin {
        let rooms = self.house.rooms();
        let label = |(name, to): (&Arc<str>, &Arc<Destination>)| (Arc::clone(name), Arc::clone(&to.provider.label));
        let labels = Arc::new(rooms.destinations.iter().map(label).collect());
        Admin {
            metrics: Arc::clone(&self.metrics),
            readiness: self.readiness.clone(),
            access,
            cache: CacheSide { cache: Arc::clone(&rooms.cache), settings: Arc::new(config.cache.clone()), labels },
            limits: Arc::clone(&rooms.limits),
            #[cfg(feature = "ledger")]
            ledger: LedgerSide::of(rooms.sinks.ledger().map(Arc::clone), Arc::clone(&rooms.prices)),
            live: Arc::clone(rooms.sinks.live()),
            privacy: Arc::clone(&rooms.privacy),
            store: self.store.clone(),
            bell: self.bell.clone(),
        }
    }
}

/// What serves with the configuration that is in force.
#[derive(Debug)]
pub(super) struct Running {
    config: Config,
    fixed: Fixed,
    desk: Arc<Desk>,
    /// What the rules have counted survives a restart, once they count anything.
    pub(super) kept: Option<Arc<Kept<Limits>>>,
    for_now: JoinSet<()>,
    warming: JoinSet<()>,
    file: WatchedFile,
    /// The text that was tried last; `None` if there was none that could be read.
    tried: Option<Revision>,
}

impl Running {
    /// With `config`, of which the rooms in force are.
    pub(super) fn begin(
        config: Config,
        fixed: Fixed,
        desk: Arc<Desk>,
        kept: Option<Arc<Kept<Limits>>>,
        beside: Beside,
    ) -> Self {
        let for_now = watching::for_now(&fixed.house.rooms(), beside, kept.as_ref(), &fixed.metrics);
        let (file, tried) = (fixed.metrics.watched_file(), Some(config.revision));
        let mut running = Self { config, fixed, desk, kept, for_now, warming: JoinSet::new(), file, tried };
        running.warm();
        running
    }

    /// Reads the configuration again whenever that is asked for, and when its file has changed, until `stop`.
    pub(super) async fn keep(mut self, mut asks: mpsc::Receiver<Asked>, stop: CancellationToken) -> Self {
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(asked) = asks.recv() => {
                    self.tried = self.look().await;
                    let outcome = self.reload().await;
                    asked.answer(outcome);
                }
                _ = looks.tick() => {
                    if self.config.sources.file.is_some() && self.has_changed().await {
                        self.reload().await;
                    }
                }
            }
        }
        self
    }

    /// Which text the file holds now; `None` if it cannot be read.
    async fn look(&self) -> Option<Revision> {
        let sources = self.config.sources.clone();
        spawn_blocking(move || sources.revision().ok()).await.ok().flatten()
    }

    /// Whether the file holds another text than the one that was tried last.
    async fn has_changed(&mut self) -> bool {
        let seen = self.look().await;
        if seen == self.tried {
            return false;
        }
        sleep(SETTLES_WITHIN).await;
        let is_settled = self.look().await == seen;
        if is_settled {
            self.tried = seen;
        }
        is_settled
    }

    /// Takes what is configured now, or says what is wrong with it.
    async fn reload(&mut self) -> Outcome {
        let (was, rooms) = (self.config.clone(), self.fixed.house.rooms());
        let metrics = Arc::clone(&self.fixed.metrics);
        let read = spawn_blocking(move || {
            let read = Config::load(&was.sources).and_then(|config| config.onto(&was));
            let (mut config, changes) = read.map_err(|mistakes| lines(&mistakes))?;
            fit(&mut config);
            let refitted = Refitted::from(&config, &was, &rooms, &metrics);
            Ok((refitted.map_err(|error| vec![format!("{error:#}")])?, config, changes))
        });
        let read = read.await.unwrap_or_else(|_| Err(vec!["weir failed at it: see the log".to_owned()]));
        let outcome = match read {
            Ok((refitted, config, changes)) => self.take(refitted, config, changes),
            Err(mistakes) => Outcome::Refused(mistakes),
        };
        tell(&outcome);
        self.file.reread(if matches!(outcome, Outcome::Refused(_)) { Reread::Refused } else { Reread::Taken });
        outcome
    }

    /// From now on `config` is in force, and `refitted` what serves with it.
    fn take(&mut self, refitted: Refitted, config: Config, changes: Changes) -> Outcome {
        let Refitted { rooms, access, beside } = refitted;
        let metrics = &self.fixed.metrics;
        let warms_otherwise = !config.is_as(&self.config, &["warm"]);
        self.config = config;
        self.fixed.house.refit(Arc::clone(&rooms));
        self.desk.show(self.fixed.admin(&self.config, access));
        if self.kept.is_none() {
            self.kept = kept(&self.config, &rooms.limits, metrics);
        }
        self.for_now = watching::for_now(&rooms, beside, self.kept.as_ref(), metrics);
        metrics.set_price_table(price_table(&rooms.prices.edition()));
        metrics.need_restart(!changes.need_restart.is_empty());
        if warms_otherwise {
            self.warm();
        }
        let left_out = self.config.left_out.iter().map(ToString::to_string).collect();
        Outcome::Taken { changed: changes.taken, need_restart: changes.need_restart, left_out }
    }

    fn warm(&mut self) {
        self.warming = JoinSet::new();
        for warmed in self.config.warm.iter().cloned() {
            if let Some(own) = self.fixed.own {
                self.warming.spawn(warm::on_schedule(Arc::clone(&self.fixed.house), own, warmed));
            }
        }
    }

    /// Ends what goes on beside the calls.
    pub(super) async fn end(mut self) {
        self.for_now.shutdown().await;
        self.warming.shutdown().await;
    }
}

fn lines(mistakes: &Mistakes) -> Vec<String> {
    mistakes.all().iter().map(ToString::to_string).collect()
}

/// Says in the log what came of it: all of it, once.
fn tell(outcome: &Outcome) {
    match outcome {
        Outcome::Refused(mistakes) => {
            for mistake in mistakes {
                tracing::warn!("a mistake in the configuration: {mistake}");
            }
            tracing::warn!("keeping the last good configuration");
        }
        Outcome::Taken { changed, need_restart, left_out } => {
            for left_out in left_out {
                tracing::warn!("left out of the configuration: {left_out}");
            }
            if !need_restart.is_empty() {
                tracing::warn!("the configuration needs a restart for: {}", need_restart.join(", "));
            }
            match &**changed {
                [] => tracing::info!("the configuration was read again: nothing is changed"),
                changed => tracing::info!("the configuration has changed: {}", changed.join(", ")),
            }
        }
    }
}
