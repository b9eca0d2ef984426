//! Ways: to the providers, and to whatever else is asked, each with its credential; and what the providers' calls cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::cache;
use crate::config::Config;
use crate::exchange::embedding::Endpoint;
use crate::exchange::similar::Similar;
use crate::exchange::{Destination, Rooms};
use crate::fleet::Fleet;
use crate::price::{Payee, PriceError, Prices, Source, Whose};
use crate::provider::{CredentialSource, PricedAs, Provider};
use crate::sinks::metrics::Metrics;
use crate::upstream::aws::Signer;
use crate::upstream::credential::Credential;
use crate::upstream::{self, Trust, Upstream};

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
            },
            None => destination(config, provider, source, trust, metrics)?,
        };
        ways.signers.extend(destination.upstream.signer().cloned());
        ways.watched_keys.extend(watched_key(&destination));
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
    let upstream = Upstream::new(&config.upstream, trust, on_connected);
    Ok(Destination {
        provider: Arc::clone(provider),
        upstream: Arc::new(upstream.signed_by(signer(config, provider, trust)?)),
        credential: credential.transpose().with_context(|| format!("providers.{}", provider.name))?.map(Arc::new),
        prices,
    })
}

/// The key of a provider's that is in a file, and that file.
fn watched_key(to: &Destination) -> Option<(Arc<Credential>, PathBuf)> {
    let CredentialSource::File(path) = &to.provider.credential else { return None };
    Some((Arc::clone(to.credential.as_ref()?), path.clone()))
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
