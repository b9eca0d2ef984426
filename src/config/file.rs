//! File: the shape of what an operator writes, whole. Each room's `Settings` says which knobs there are and what they
//! do; this file only says under which name a room is found.
//!
//! Knows nothing of where a value came from, nor whether it makes sense: that is the business of `config::checks`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{budget, rate};
use crate::provider::{Api, KNOWN};
use crate::units::ByteSize;
use crate::{
    admin, cache, exchange, fleet, inject, ledger, listener, price, privacy, provider, runs, sinks, upstream, warm,
};

/// The configuration of weir.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Where the app's calls come in. Keep it on loopback: whoever reaches it spends your money.
    pub listen: SocketAddr,
    /// The operator's side: metrics and health.
    pub admin: admin::Settings,
    /// The provider that answers bare `/v1/…` paths.
    pub default_provider: String,
    /// Where calls go: `/<name>/<rest>` goes to `<base_url>/<rest>`. The providers that weir knows by
    /// name are there even when not written.
    #[schemars(example = example_providers())]
    pub providers: BTreeMap<String, provider::Settings>,
    /// The app's connections to weir.
    pub connections: listener::Settings,
    /// weir's connections to the providers.
    pub upstream: upstream::Settings,
    /// How calls are handled.
    pub calls: exchange::Settings,
    /// The cache of answers.
    pub cache: cache::Settings,
    /// Agent loops: the calls that carry one `X-Run-ID` (docs/loops.md).
    pub loops: runs::Settings,
    /// Files of requests that are sent through weir on a schedule, so that their answers are stored. A list; each has
    /// a `file`, and may have `every`, `rate` and `max_usd` (docs/warm.md).
    pub warm: Vec<warm::Settings>,
    /// How many requests, tokens and calls at once are let through. A list; each has a `name`, and what it limits
    /// (docs/limits.md).
    #[schemars(example = [rate::Settings::example()])]
    pub limits: Vec<rate::Settings>,
    /// How much may be spent. A list; each has a `name` and a limit (docs/limits.md).
    #[schemars(example = [budget::Settings::example()])]
    pub budgets: Vec<budget::Settings>,
    /// What all instances of the app spend, read from Prometheus: for budgets that are not shared otherwise
    /// (docs/limits.md). Off without `fleet_spend.prometheus_url`.
    pub fleet_spend: fleet::Settings,
    /// What calls cost.
    pub prices: price::Settings,
    /// What is kept of what is said, and of whom (docs/privacy.md).
    pub privacy: privacy::Settings,
    /// The ledger: every call that is over, one row each (docs/ledger.md).
    pub ledger: ledger::Settings,
    /// The directory for what has to survive a restart. By default `$STATE_DIRECTORY`, which systemd sets, else
    /// `$XDG_STATE_HOME/weir`, else `$HOME/.local/state/weir`. It is made if there are limits or budgets, or
    /// an `admin.token_file`, with which budgets may be made, or a ledger on disk.
    pub state_dir: Option<PathBuf>,
    /// Threads that work on calls. By default as many as weir may use processors at once, but no more than 4: it stands
    /// beside one app.
    pub worker_threads: Option<usize>,
    /// How much memory weir may use. By default what its container may; where nothing limits that, weir keeps what it is
    /// told to. Caches, queues and the ledger in memory are lowered until they fit, and weir says which (docs/sizing.md).
    pub memory_limit: Option<ByteSize>,
    /// What weir says about its work.
    pub telemetry: sinks::Settings,
    /// Sidecars in Kubernetes: what `weir inject` puts beside apps (docs/inject.md).
    pub inject: inject::Settings,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9347)),
            admin: admin::Settings::default(),
            default_provider: "openai".to_owned(),
            providers: KNOWN.iter().map(|known| (known.name.to_owned(), provider::Settings::default())).collect(),
            connections: listener::Settings::default(),
            upstream: upstream::Settings::default(),
            calls: exchange::Settings::default(),
            cache: cache::Settings::default(),
            loops: runs::Settings::default(),
            warm: Vec::new(),
            limits: Vec::new(),
            budgets: Vec::new(),
            fleet_spend: fleet::Settings::default(),
            prices: price::Settings::default(),
            privacy: privacy::Settings::default(),
            ledger: ledger::Settings::default(),
            state_dir: None,
            worker_threads: None,
            memory_limit: None,
            telemetry: sinks::Settings::default(),
            inject: inject::Settings::default(),
        }
    }
}

impl File {
    /// The same as plain data, to be walked beside the schema.
    pub(super) fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("settings are plain data")
    }
}

/// A provider as it may be written: shown, commented out, in the default file.
fn example_providers() -> BTreeMap<String, provider::Settings> {
    let local = provider::Settings {
        api: Some(Api::OpenAi),
        base_url: Some("http://127.0.0.1:8000".to_owned()),
        prices: Some("free".to_owned()),
        ..provider::Settings::default()
    };
    BTreeMap::from([("local".to_owned(), local)])
}
