//! Sides: side tables. What is counted by who asks, under one label each, never crossed with another: by agent, by
//! consumer, by namespace of the cache. The latter two only where the operator wants them.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::labels::{self, Limiter};
use crate::record::call::Caller;
use crate::record::outcome::CacheStatus;
use crate::semconv::label;
use crate::sinks::families::{Families, Origin};
use crate::sinks::metrics::Settings;
use crate::sinks::money::Amount;
use crate::sinks::series::{CACHE_RESULTS, Shelf, cache_result};
use crate::store::naming::Names;

/// How many characters of a hash stand for a consumer.
const SHOWN: usize = 16;

/// Whether calls are counted by consumer, and under which name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consumers {
    /// They are not.
    #[default]
    Off,
    /// By the id that the app sends.
    Plain,
    /// By a hash of that id.
    Hashed,
}

/// The side tables.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) agents: Table<AgentSeries>,
    pub(super) consumers: Option<ConsumerTable>,
    namespaces: Option<Table<NamespaceSeries>>,
}

impl Sides {
    /// The tables that are wanted, each with the row of those who give no name.
    pub(super) fn new(families: &Families, settings: &Settings) -> Self {
        let consumers = (settings.consumers != Consumers::Off).then(|| ConsumerTable {
            table: Table::new(families, settings.max_consumers, ConsumerSeries::new),
            is_hashed: settings.consumers == Consumers::Hashed,
            names: OnceLock::new(),
        });
        let namespaces = || Table::new(families, settings.max_cache_namespaces, NamespaceSeries::new);
        Self {
            agents: Table::new(families, settings.max_agents, AgentSeries::new),
            consumers,
            namespaces: settings.cache_namespaces.then(namespaces),
        }
    }

    /// Counts what the cache said to somebody in this namespace, where that is wanted.
    pub(super) fn looked_up(&self, families: &Families, namespace: Option<&str>, status: CacheStatus) {
        if let Some(namespaces) = &self.namespaces {
            namespaces.of(families, namespace).0[cache_result(status)].inc();
        }
    }

    /// Every label of theirs, and who caps it.
    pub(super) fn limiters(&self) -> impl Iterator<Item = (&'static str, Arc<Limiter>)> {
        let consumers = self.consumers.as_ref().map(|consumers| (label::CONSUMER, &consumers.table.limiter));
        let namespaces = self.namespaces.as_ref().map(|namespaces| (label::CACHE_NAMESPACE, &namespaces.limiter));
        let all = [Some((label::AGENT, &self.agents.limiter)), consumers, namespaces];
        all.into_iter().flatten().map(|(label, limiter)| (label, Arc::clone(limiter)))
    }
}

/// One table: the series of each value of its label.
pub(super) struct Table<S> {
    limiter: Arc<Limiter>,
    rows: Shelf<Arc<str>, S>,
    make: fn(&Families, Arc<str>) -> S,
}

impl<S: Clone> Table<S> {
    fn new(families: &Families, most: usize, make: fn(&Families, Arc<str>) -> S) -> Self {
        let table = Self { limiter: Arc::new(Limiter::new(most)), rows: Shelf::new(), make };
        table.of(families, None);
        table
    }

    /// The row of `name`; of all for whom there is no place; or of those who give none.
    pub(super) fn of(&self, families: &Families, name: Option<&str>) -> S {
        let name = name.map_or_else(labels::none, |name| self.limiter.admit(name));
        if let Some(known) = self.rows.find(&name) {
            return known;
        }
        let name = if families.room.has_space(Origin::Outside) || *name == *labels::NONE {
            name
        } else {
            self.limiter.refuse();
            labels::other()
        };
        let make = |name: &Arc<str>| (self.make)(families, Arc::clone(name));
        self.rows.find(&name).unwrap_or_else(|| self.rows.find_or_make(name, make))
    }
}

impl<S> fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

/// What is counted by consumer.
#[derive(Debug)]
pub(super) struct ConsumerTable {
    table: Table<ConsumerSeries>,
    is_hashed: bool,
    /// What makes names that nobody can guess, where the installation has a secret.
    names: OnceLock<Names>,
}

impl ConsumerTable {
    /// Names consumers with a secret from now on. The first one stays.
    pub(super) fn keyed(&self, names: Names) {
        let _ = self.names.set(names);
    }

    /// The row of whoever makes a call.
    pub(super) fn of(&self, families: &Families, caller: &Caller) -> ConsumerSeries {
        let name = caller.user.as_deref().map(|user| self.name(user));
        self.table.of(families, name.as_deref())
    }

    fn name<'a>(&self, user: &'a str) -> Cow<'a, str> {
        if !self.is_hashed {
            return Cow::Borrowed(user);
        }
        let mut name = match self.names.get() {
            Some(names) => names.of(&[user.as_bytes()]),
            None => hex(&Sha256::digest(user)),
        };
        name.truncate(SHOWN);
        Cow::Owned(name)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// What is counted for one agent.
#[derive(Clone, Debug)]
pub(super) struct AgentSeries {
    pub(super) requests: Counter,
    pub(super) tokens: Counter,
    pub(super) cost: Amount,
}

impl AgentSeries {
    pub(super) fn new(families: &Families, agent: Arc<str>) -> Self {
        let labels = vec![(label::AGENT, agent)];
        Self {
            requests: families.agent_requests.with(&labels),
            tokens: families.agent_tokens.with(&labels),
            cost: families.agent_cost.with(&labels),
        }
    }
}

/// What is counted for one consumer.
#[derive(Clone, Debug)]
pub(super) struct ConsumerSeries {
    pub(super) requests: Counter,
    pub(super) cost: Amount,
}

impl ConsumerSeries {
    fn new(families: &Families, consumer: Arc<str>) -> Self {
        let labels = vec![(label::CONSUMER, consumer)];
        Self { requests: families.consumer_requests.with(&labels), cost: families.consumer_cost.with(&labels) }
    }
}

/// What is counted for one namespace of the cache: look-ups by result.
#[derive(Clone, Debug)]
struct NamespaceSeries([Counter; CACHE_RESULTS.len()]);

impl NamespaceSeries {
    fn new(families: &Families, namespace: Arc<str>) -> Self {
        let labels = vec![(label::CACHE_NAMESPACE, namespace)];
        Self(families.namespace_requests.each(&labels, label::RESULT, CACHE_RESULTS))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::secret::Secret;
    use crate::sinks;
    use crate::store::naming::Installation;

    fn table(consumers: Consumers) -> ConsumerTable {
        let settings = Settings { consumers, ..Settings::default() };
        let telemetry = sinks::Settings { metrics: settings.clone(), ..sinks::Settings::default() };
        let families = Families::register(&mut Registry::default(), &telemetry);
        Sides::new(&families, &settings).consumers.expect("it is wanted")
    }

    #[test]
    fn a_hashed_name_is_the_same_for_the_same_id_and_another_with_a_secret() {
        let plain = table(Consumers::Plain);
        assert_eq!(plain.name("ann@example.com"), "ann@example.com");
        let hashed = table(Consumers::Hashed);
        // printf %s ann@example.com | sha256sum | cut -c1-16
        assert_eq!(hashed.name("ann@example.com"), "71d4f55f72fa128d");
        assert_ne!(hashed.name("bob@example.com"), hashed.name("ann@example.com"));
        let secret = |text: &str| {
            let keyed = table(Consumers::Hashed);
            let installation = Installation::new(&Secret::new(text)).expect("long enough");
            keyed.keyed(Names::new(&installation.keys_for("consumers")));
            keyed.name("ann@example.com").into_owned()
        };
        let (one, other) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
        assert_eq!(secret(one), secret(one));
        assert_ne!(secret(one), secret(other));
        assert_ne!(secret(one), hashed.name("ann@example.com"));
        assert_eq!(secret(one).len(), SHOWN);
    }
}
