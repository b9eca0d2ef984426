//! Figures: the metrics, and what they ask the rooms for at each scrape.

use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::memory::Occupancy;
use crate::config::Config;
use crate::exchange::house::House;
use crate::exchange::load::Load;
use crate::exchange::{Destination, Rooms};
use crate::price::Edition;
use crate::privacy::users::UserIds;
use crate::provider::Provider;
use crate::sinks::metrics::{About, Metrics, PriceTable};
use crate::sinks::now::{Backend, CacheSize, Overload, Queue};
use crate::sinks::sides::Consumers;
use crate::units::Backlog;

/// The numbers. What is counted of providers that are only known by name begins with their first call.
pub(super) fn metrics(config: &Config, about: About) -> Metrics {
    let is_configured = |it: &&Arc<Provider>| it.settled || it.name == config.default_provider.name;
    let configured = config.providers.iter().filter(is_configured);
    let configured: Vec<_> = configured.map(|provider| Arc::clone(&provider.label)).collect();
    let mut telemetry = config.telemetry.clone();
    if config.privacy.user_ids == UserIds::Hashed && telemetry.metrics.consumers == Consumers::Hashed {
        // They come hashed, under the names that the ledger has.
        telemetry.metrics.consumers = Consumers::Plain;
    }
    Metrics::new(&telemetry, &configured, about).knowing(&labels(config))
}

/// What all providers are called in metrics.
pub(super) fn labels(config: &Config) -> Vec<Arc<str>> {
    config.providers.iter().map(|provider| Arc::clone(&provider.label)).collect()
}

pub(super) fn about(prices: &Edition) -> About {
    About {
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("BUILD_REVISION").unwrap_or("unknown"),
        prices: price_table(prices),
    }
}

pub(super) fn price_table(edition: &Edition) -> PriceTable {
    let Edition { source, version, published } = edition.clone();
    PriceTable { version, source, published_at: published }
}

/// What the metrics ask the rooms in force for. The cache tells evictions to the metrics, the metrics ask the cache for
/// its size: one of the two must not keep the other alive.
pub(super) fn watch_house(metrics: &Metrics, house: &Arc<House>) {
    let watched = Arc::downgrade(house);
    let rooms = move || watched.upgrade().map(|house| house.rooms());
    let look = rooms.clone();
    metrics.watch_cache(Arc::new(move || look().map(|rooms| sizes(&rooms)).unwrap_or_default()));
    let look = rooms.clone();
    metrics.watch_connections(Arc::new(move || look().map(|rooms| connections(&rooms)).unwrap_or_default()));
    let look = rooms.clone();
    metrics.watch_circuits(Arc::new(move || look().map(|rooms| circuits(&rooms)).unwrap_or_default()));
    let look = rooms.clone();
    metrics.watch_limits(Box::new(move || Some(Arc::clone(&look()?.limits))));
    let look = rooms.clone();
    metrics.watch_runs(Box::new(move || {
        look().map(|rooms| rooms.runs.active(Instant::now()).into_iter().collect()).unwrap_or_default()
    }));
    let look = rooms.clone();
    metrics.watch_overload(Box::new(move || look().map(|rooms| overload(&rooms.load)).unwrap_or_default()));
    let watch = |queue, backlog: fn(&Rooms) -> Option<Backlog>| {
        let look = rooms.clone();
        metrics.watch_queue(queue, Box::new(move || backlog(&*look()?)));
    };
    watch(Queue::CacheWrites, |rooms| rooms.cache.backlog());
    watch(Queue::Recordings, |rooms| rooms.recordings.backlog());
    watch(Queue::Estimates, |rooms| rooms.settings.estimate_usage.then(|| rooms.estimator.backlog()));
}

fn sizes(rooms: &Rooms) -> Vec<(Backend, CacheSize)> {
    let memory = Some((Backend::Memory, rooms.cache.occupancy()));
    let similar = rooms.similar.as_ref().map(|similar| (Backend::Similar, similar.occupancy()));
    let size =
        |now: Occupancy| CacheSize { entries: now.entries, bytes: now.bytes, capacity_bytes: now.capacity_bytes };
    memory.into_iter().chain(similar).map(|(backend, now)| (backend, size(now))).collect()
}

fn overload(load: &Load) -> Overload {
    let shed = load.shed().map(|(why, calls)| (why.as_str(), calls)).collect();
    Overload { shed, bodies: vec![("request", load.requests.standing()), ("reply", load.replies.standing())] }
}

fn connections(rooms: &Rooms) -> Vec<(Arc<str>, usize)> {
    let open = |to: &Destination| {
        let fallbacks = to.plan.iter().flat_map(|plan| &plan.fallbacks);
        let others: usize = fallbacks.map(|way| way.upstream.connections()).sum();
        to.upstream.connections() + others
    };
    rooms.destinations.values().map(|to| (Arc::clone(&to.provider.label), open(to))).collect()
}

fn circuits(rooms: &Rooms) -> Vec<(Arc<str>, bool)> {
    let plans = rooms.destinations.values().filter_map(|to| Some((to, to.plan.as_ref()?)));
    plans
        .flat_map(|(to, plan)| plan.circuits(&to.provider.label))
        .map(|(name, is_closed)| (Arc::clone(name), is_closed))
        .collect()
}
