//! Ways: to the providers, and to whatever else is asked, each with its credential; and what the providers' calls cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::cache;
use crate::config::Config;
use crate::exchange::embedding::Endpoint;
use crate::exchange::similar::Similar;
use crate::exchange::{Destination, Rooms};
use crate::fleet::Fleet;
use crate::price::{Payee, PriceError, Prices, Source, Whose};
use crate::provider::{CredentialSource, Fallback, PricedAs, Provider};
use crate::sinks::metrics::Metrics;
use crate::upstream::aws::Signer;
use crate::upstream::breaker::Breaker;
use crate::upstream::credential::Credential;
use crate::upstream::plan::{self, Plan};
use crate::upstream::trust::Trust;
use crate::upstream::{self, Upstream, sign};

/// Keys that are in files, which are read again.
pub(super) type WatchedKeys = Vec<(Arc<Credential>, PathBuf)>;

/// The ways to all providers, and what it takes to keep them.
pub(super) struct Ways {
    pub(super) destinations: BTreeMap<Arc<str>, Arc<Destination>>,
    pub(super) watched_keys: WatchedKeys,
    pub(super) signers: Vec<Signer>,
}

/// The ways that `config` asks for. Where there were others before, those to providers that stay as they are go on, with
/// their connections.
pub(super) fn ways(
    config: &Config,
    (prices, trust, metrics): (&Prices, &Trust, &Arc<Metrics>),
    before: Option<(&Config, &Rooms)>,
) -> anyhow::Result<Ways> {
    let mut ways = Ways { destinations: BTreeMap::new(), watched_keys: Vec::new(), signers: Vec::new() };
    for (provider, source) in config.providers.iter().zip(prices.sources()) {
        if !prices.is_listed(&source) {
            warn_of_unpriced(provider);
        }
        let goes_on = before.and_then(|(was, old)| unchanged(config, provider, was, old));
        let destination = match goes_on {
            Some(old) => Destination {
                provider: Arc::clone(provider),
                upstream: Arc::clone(&old.upstream),
                credential: old.credential.clone(),
                prices: source,
                // With what is known of its circuits, and what is left of its retries.
                plan: old.plan.clone(),
            },
            None => destination(config, provider, source, trust, metrics)?,
        };
        let fallbacks = destination.plan.iter().flat_map(|plan| &plan.fallbacks);
        ways.signers.extend(destination.upstream.signer().cloned());
        ways.signers.extend(fallbacks.filter_map(|it| it.upstream.signer().cloned()));
        ways.watched_keys.extend(watched_keys(&destination));
        ways.destinations.insert(Arc::clone(&provider.name), Arc::new(destination));
    }
    Ok(ways)
}

/// The way to a provider that stays as it is. Files of authorities may have changed: with any, none does.
fn unchanged<'a>(config: &Config, provider: &Provider, was: &Config, old: &'a Rooms) -> Option<&'a Destination> {
    let is_same = config.is_as(was, &["providers", &provider.name])
        && config.is_as(was, &["upstream"])
        && config.upstream.ca_files.is_empty();
    old.destinations.get(&provider.name).filter(|_| is_same).map(|to| &**to)
}

fn destination(
    config: &Config,
    provider: &Arc<Provider>,
    prices: Source,
    trust: &Trust,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Destination> {
    let way = Way { config, provider, trust, metrics };
    let fallbacks = provider.fallbacks.iter().map(|fallback| way.fallback(fallback)).collect::<Result<_, _>>()?;
    Ok(Destination {
        provider: Arc::clone(provider),
        upstream: Arc::new(way.upstream(None)?),
        credential: way.credential(&provider.credential)?,
        prices,
        plan: Plan::of(&config.upstream, fallbacks, Instant::now()).map(Arc::new),
    })
}

/// What ways to a provider are made of.
struct Way<'a> {
    config: &'a Config,
    provider: &'a Provider,
    trust: &'a Trust,
    metrics: &'a Arc<Metrics>,
}

impl Way<'_> {
    /// Another way to the same provider.
    fn fallback(&self, fallback: &Fallback) -> anyhow::Result<plan::Fallback> {
        let Fallback { name, base_url, credential } = fallback;
        self.metrics.may_fall_back(&self.provider.label, name);
        Ok(plan::Fallback {
            name: Arc::clone(name),
            base_url: base_url.clone(),
            credential: self.credential(credential)?,
            upstream: Arc::new(self.upstream(Some(fallback))?),
            breaker: Breaker::new(&self.config.upstream.breaker, Instant::now()),
        })
    }

    /// The connections of the provider, or of a `fallback`.
    fn upstream(&self, fallback: Option<&Fallback>) -> anyhow::Result<Upstream> {
        let (metrics, label) = (Arc::clone(self.metrics), Arc::clone(&self.provider.label));
        let on_connected = Box::new(move |took: Duration| metrics.connected(&label, took));
        let upstream = Upstream::new(&self.config.upstream, self.trust, on_connected);
        let has_key = fallback.is_some_and(|it| it.credential != CredentialSource::App);
        Ok(upstream.signed_by(if has_key { None } else { self.signer(fallback)? }))
    }

    /// What signs calls that go this way, if something does. A fallback is in the region that its host names, whatever
    /// the provider's own is.
    fn signer(&self, fallback: Option<&Fallback>) -> anyhow::Result<Option<Signer>> {
        let CredentialSource::Aws { profile, region } = &self.provider.credential else { return Ok(None) };
        let elsewhere = fallback.and_then(|it| sign::region_of(it.base_url.host()?));
        let region = elsewhere.or(region.as_deref());
        let signer = Signer::new(profile.as_deref(), region, &self.config.upstream, self.trust);
        signer.map(Some).with_context(|| format!("providers.{}.aws_sign", self.provider.name))
    }

    fn credential(&self, source: &CredentialSource) -> anyhow::Result<Option<Arc<Credential>>> {
        let prefix = self.provider.api.dialect().credential.1;
        let credential = match source {
            CredentialSource::App | CredentialSource::Aws { .. } => None,
            CredentialSource::File(path) => Some(Credential::from_file(path, prefix)),
            CredentialSource::Environment(name) => Some(Credential::from_environment(name, prefix)),
        };
        Ok(credential.transpose().with_context(|| format!("providers.{}", self.provider.name))?.map(Arc::new))
    }
}

/// The keys of a provider's that are in files, and those files.
fn watched_keys(to: &Destination) -> WatchedKeys {
    let own = (&to.provider.credential, to.credential.as_ref());
    let ways = to.plan.iter().flat_map(|plan| &plan.fallbacks).map(|way| way.credential.as_ref());
    let others = to.provider.fallbacks.iter().map(|it| &it.credential).zip(ways);
    let in_file = |(source, credential): (&CredentialSource, Option<&Arc<Credential>>)| match source {
        CredentialSource::File(path) => Some((Arc::clone(credential?), path.clone())),
        CredentialSource::App | CredentialSource::Environment(_) | CredentialSource::Aws { .. } => None,
    };
    std::iter::once(own).chain(others).filter_map(in_file).collect()
}

pub(super) fn default_destination(
    config: &Config,
    destinations: &BTreeMap<Arc<str>, Arc<Destination>>,
) -> anyhow::Result<Arc<Destination>> {
    let name = &config.default_provider.name;
    let found = destinations.get(name).map(Arc::clone);
    found.with_context(|| format!("default_provider: there is no provider `{name}`"))
}

/// What it takes to answer similar requests, if the operator wants that.
pub(super) fn similar(
    settings: &cache::similar::Settings,
    upstream: &upstream::Settings,
    trust: &Trust,
    watched_keys: &mut WatchedKeys,
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

/// The key of what makes vectors that is in a file, and that file.
pub(super) fn similar_key(settings: &cache::similar::Settings, rooms: &Rooms) -> Option<(Arc<Credential>, PathBuf)> {
    let credential = rooms.similar.as_ref()?.credential()?;
    Some((Arc::clone(credential), settings.api_key_file.clone()?))
}

/// What reads from Prometheus what all instances spend, if the operator wants that.
pub(super) fn fleet(config: &Config, trust: &Trust, watched_keys: &mut WatchedKeys) -> anyhow::Result<Option<Fleet>> {
    let file = config.fleet_spend.bearer_token_file.as_ref();
    let credential = file.map(|file| Credential::from_file(file, "Bearer ").map(Arc::new));
    let credential = credential.transpose().context("fleet_spend.bearer_token_file")?;
    watched_keys.extend(credential.clone().zip(file.cloned()));
    let upstream = Upstream::new(&config.upstream, trust, Box::new(|_| {}));
    Ok(Fleet::new(&config.fleet_spend, credential, upstream))
}

/// The price table, and every provider's place in it.
pub(super) fn prices(config: &Config) -> anyhow::Result<Prices> {
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
