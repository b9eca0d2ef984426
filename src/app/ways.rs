//! Ways: to the providers, and to whatever else is asked, each with its credential; and what the providers' calls cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::cache;
use crate::config::Config;
use crate::exchange::Destination;
use crate::exchange::embedding::Endpoint;
use crate::exchange::similar::Similar;
use crate::fleet::Fleet;
use crate::price::{Payee, PriceError, Prices, Source, Whose};
use crate::provider::{CredentialSource, PricedAs, Provider};
use crate::sinks::metrics::Metrics;
use crate::upstream::aws::Signer;
use crate::upstream::credential::Credential;
use crate::upstream::{self, Trust, Upstream};

/// What signs a provider's calls, if something does.
pub(super) fn signer(config: &Config, provider: &Provider, trust: &Trust) -> anyhow::Result<Option<Signer>> {
    let CredentialSource::Aws { profile, region } = &provider.credential else { return Ok(None) };
    let signer = Signer::new(profile.as_deref(), region.as_deref(), &config.upstream, trust);
    signer.map(Some).with_context(|| format!("providers.{}.aws_sign", provider.name))
}

pub(super) fn destination(
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
pub(super) fn watched_key(to: &Destination) -> Option<(Arc<Credential>, PathBuf)> {
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

/// What reads from Prometheus what all instances spend, if the operator wants that.
pub(super) fn fleet(
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

pub(super) fn warn_of_unpriced(provider: &Provider) {
    tracing::warn!(
        weir.provider = %provider.name,
        "calls to this provider are unpriced: set its `prices` to `free`, or to the id of a provider in the table"
    );
}
