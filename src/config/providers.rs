//! Providers: what was written of each provider, made whole with what is known of it by name.
//!
//! Notes mistakes; never shows a base URL or a key's place, in which a credential may stand by mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;
use std::sync::Arc;

use http::Uri;
use http::uri::{Authority, Parts};

use crate::config::checks::Checks;
use crate::config::file::File;
use crate::config::mistake::{Path, listed, shown};
use crate::pattern::nearest;
use crate::provider::{Api, CredentialSource, Fallback, FallbackSettings, KNOWN, PricedAs, Provider, Settings};

/// First parts of a path that are no provider: bare calls begin with them, or weir may answer there itself.
const RESERVED: &[&str] = &["v1", "v1beta", "weir"];

/// The providers written, and those that are there anyway, by name. Leaves out those with a mistake.
pub(super) fn resolve(written: &BTreeMap<String, Settings>, checks: &mut Checks<'_>) -> Vec<Arc<Provider>> {
    let mut all: BTreeMap<&str, Settings> = KNOWN.iter().map(|known| (known.name, Settings::default())).collect();
    all.extend(written.iter().map(|(name, settings)| (name.as_str(), settings.clone())));
    check_fallback_names(&all, checks);
    all.iter().filter_map(|(name, settings)| resolve_one(name, settings, checks)).map(Arc::new).collect()
}

/// Whether each fallback has a name of its own: it is the value of a label.
fn check_fallback_names(all: &BTreeMap<&str, Settings>, checks: &mut Checks<'_>) {
    let mut taken: BTreeSet<String> = all.keys().map(|name| (*name).to_owned()).collect();
    for (name, settings) in all {
        for (position, fallback) in settings.fallbacks.iter().enumerate() {
            let called = fallback_name(name, position, fallback);
            let path = Path::of(["providers", name, "fallbacks"]).position(position).name("name");
            if let Err(message) = check_name(&called) {
                checks.note(path, message);
            } else if !taken.insert(called.clone()) {
                checks.note(path, format!("{} is the name of another upstream: write one of its own", shown(&called)));
            }
        }
    }
}

/// What a fallback is called: the provider itself is the first of its upstreams.
fn fallback_name(provider: &str, position: usize, fallback: &FallbackSettings) -> String {
    fallback.name.clone().unwrap_or_else(|| format!("{provider}-{}", position + 2))
}

/// The provider that answers bare paths.
pub(super) fn default(file: &File, providers: &[Arc<Provider>], checks: &mut Checks<'_>) -> Option<Arc<Provider>> {
    let name = file.default_provider.as_str();
    let found = providers.iter().find(|provider| &*provider.name == name);
    if found.is_none() && !file.providers.contains_key(name) {
        let names = listed(providers.iter().map(|provider| &*provider.name));
        checks.note(
            Path::of(["default_provider"]),
            format!("there is no provider {}: write one of {names}", shown(name)),
        );
    }
    found.cloned()
}

fn resolve_one(name: &str, settings: &Settings, checks: &mut Checks<'_>) -> Option<Provider> {
    let path = Path::of(["providers", name]);
    if let Err(message) = check_name(name) {
        checks.note(path, message);
        return None;
    }
    let known = KNOWN.iter().find(|known| known.name == name);
    let api = settings.api.or(known.map(|known| known.api));
    if api.is_none() {
        checks.note(path.name("api"), missing(name, "the API it speaks, such as openai"));
    }
    let url = settings.base_url.as_deref().or(known.map(|known| known.base_url));
    let url = url.map_or_else(|| Err(missing(name, "where it is, such as http://127.0.0.1:8000")), base_url);
    let base_url = url.map_err(|message| checks.note(path.name("base_url"), message)).ok();
    let is_asked = known.is_none_or(|known| known.ask_for_usage);
    let has_version = known.is_none_or(|known| known.has_version) && !url_has_path(settings);
    let credential = credential(settings, &path, checks);
    let vendor = api.and_then(Api::vendor);
    let listed = known.and_then(|known| known.prices).or(vendor.map(|(_, prices)| prices));
    let prices = prices(settings, listed).map_err(|message| checks.note(path.name("prices"), message)).ok();
    Some(Provider {
        name: name.into(),
        label: known.map(|known| known.label).or(vendor.map(|(label, _)| label)).unwrap_or(name).into(),
        settled: *settings != Settings::default(),
        api: api?,
        version_prefix: if has_version { api?.dialect().version_prefix } else { "" },
        ask_for_usage: settings.ask_for_usage.unwrap_or(api?.takes_stream_options() && is_asked),
        propagate_upstream: settings.propagate_upstream,
        capture: settings.capture,
        prices: prices?,
        models: settings.models.clone(),
        fallbacks: fallbacks(name, settings, base_url.as_ref(), &path, checks)?,
        base_url: base_url?,
        credential: credential?,
    })
}

/// The other ways to a provider; `None` if there is a mistake in any of them.
fn fallbacks(
    provider: &str,
    settings: &Settings,
    own: Option<&Uri>,
    path: &Path,
    checks: &mut Checks<'_>,
) -> Option<Vec<Fallback>> {
    let mut all = Vec::new();
    for (position, fallback) in settings.fallbacks.iter().enumerate() {
        let path = path.name("fallbacks").position(position);
        let credential = key(fallback.api_key_file.as_deref(), fallback.api_key_env.as_deref(), &path, checks);
        let url = fallback.base_url.as_deref().map(base_url).transpose();
        let url = url.map_err(|message| checks.note(path.name("base_url"), message)).ok();
        let base_url = url.and_then(|url| url.or_else(|| own.cloned()));
        if credential == Some(CredentialSource::App) && base_url.as_ref().is_some_and(|url| Some(url) == own) {
            checks.note(path, "is the provider itself: write another `base_url`, or another key as `api_key_file`");
        }
        let name = fallback_name(provider, position, fallback).into();
        all.extend(credential.zip(base_url).map(|(credential, base_url)| Fallback { name, base_url, credential }));
    }
    (all.len() == settings.fallbacks.len()).then_some(all)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let fits =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || "-_".contains(character);
    if name.is_empty() || !name.chars().all(fits) {
        return Err("a provider's name is part of a path: write lower-case letters, digits, `-` and `_` only");
    }
    if RESERVED.contains(&name) {
        return Err("this name is reserved: choose another");
    }
    Ok(())
}

/// Whether the operator's own base URL has a path: then that says all there is to say of it.
fn url_has_path(settings: &Settings) -> bool {
    let url = settings.base_url.as_deref().and_then(|url| url.split_once("://"));
    url.is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'))
}

fn missing(name: &str, what: &str) -> String {
    let known = KNOWN.iter().map(|known| known.name);
    match nearest(name, known.clone()) {
        Some(meant) => format!("is missing: did you mean the provider `{meant}`? Otherwise write {what}"),
        None => format!("is missing: write {what} (only {} are known by name)", listed(known)),
    }
}

pub(super) fn base_url(text: &str) -> Result<Uri, String> {
    url(text, KNOWN[0].base_url, "api_key_file")
}

/// The URL that `text` is, such as `example`; what it takes to be let in goes into a file that the knob `key` names.
pub(super) fn url(text: &str, example: &str, key: &str) -> Result<Uri, String> {
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return Err(format!("is not an http or https URL: write one such as {example}"));
    };
    let (authority, _) = rest.split_once(['/', '?', '#']).unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(format!("holds a credential: put it in a file and write `{key}`"));
    }
    if rest.contains(['?', '#']) {
        return Err("has a query or a fragment: write what precedes the `?` or `#` only".to_owned());
    }
    let unreadable = || format!("is not a URL: write one such as {example}");
    let parts: Parts =
        format!("{scheme}://{}", rest.trim_end_matches('/')).parse::<Uri>().map_err(|_| unreadable())?.into();
    // `http` takes any digits for a port; what follows the host here can only be one.
    let is_whole = |authority: &Authority| {
        !authority.host().is_empty() && (authority.as_str() == authority.host() || authority.port_u16().is_some())
    };
    if !parts.authority.as_ref().is_some_and(is_whole) {
        return Err(unreadable());
    }
    Uri::from_parts(parts).map_err(|_| unreadable())
}

fn credential(settings: &Settings, path: &Path, checks: &mut Checks<'_>) -> Option<CredentialSource> {
    if settings.aws_sign == Some(true) {
        return signature(settings, path, checks);
    }
    for (name, value) in [("aws_profile", &settings.aws_profile), ("aws_region", &settings.aws_region)] {
        if value.is_some() {
            checks.note(path.name(name), "has no effect without `aws_sign: true`: add that, or remove this");
        }
    }
    key(settings.api_key_file.as_deref(), settings.api_key_env.as_deref(), path, checks)
}

/// Where a key is that may stand in a file or in an environment variable; with neither, apps bring their own.
pub(super) fn key(
    file: Option<&FilePath>,
    variable: Option<&str>,
    path: &Path,
    checks: &mut Checks<'_>,
) -> Option<CredentialSource> {
    match (file, variable) {
        (None, None) => Some(CredentialSource::App),
        (Some(_), Some(_)) => {
            checks.note(path.name("api_key_env"), "there is an `api_key_file` too: remove one of them");
            None
        }
        (Some(file), None) => {
            let holds_a_key = checks.secret_file(path.name("api_key_file"), file, "key");
            holds_a_key.then(|| CredentialSource::File(file.to_owned()))
        }
        (None, Some(variable)) => match checks.variable(variable) {
            Some(key) if !key.trim().is_empty() => Some(CredentialSource::Environment(variable.to_owned())),
            _ => {
                checks.note(
                    path.name("api_key_env"),
                    "the environment variable of this name is not set: set it to the key",
                );
                None
            }
        },
    }
}

fn signature(settings: &Settings, path: &Path, checks: &mut Checks<'_>) -> Option<CredentialSource> {
    let keys = [("api_key_file", settings.api_key_file.is_some()), ("api_key_env", settings.api_key_env.is_some())];
    let mut fits = true;
    for (name, _) in keys.into_iter().filter(|(_, is_set)| *is_set) {
        checks.note(path.name(name), "there is `aws_sign: true` too: remove one of them");
        fits = false;
    }
    let is_region = |region: &str| {
        !region.is_empty() && region.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if let Some(region) = settings.aws_region.as_deref().filter(|region| !is_region(region)) {
        checks.note(path.name("aws_region"), format!("{} is not a region: write one such as eu-west-1", shown(region)));
        fits = false;
    }
    if settings.aws_profile.as_deref().is_some_and(|profile| profile.trim().is_empty()) {
        checks.note(path.name("aws_profile"), "is empty: write a profile's name, or leave it out");
        fits = false;
    }
    fits.then(|| CredentialSource::Aws { profile: settings.aws_profile.clone(), region: settings.aws_region.clone() })
}

fn prices(settings: &Settings, listed: Option<&str>) -> Result<PricedAs, &'static str> {
    match settings.prices.as_deref().or(listed) {
        Some("free") => Ok(PricedAs::Free),
        Some(id) if id.trim().is_empty() => Err("is empty: write `free`, an id of the price table, or leave it out"),
        Some(id) => Ok(PricedAs::Table(id.into())),
        None => Ok(PricedAs::Unknown),
    }
}
