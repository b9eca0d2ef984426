//! Config: what the operator wrote (`file`), and what it means (`Config`). A file, the environment and flags become one
//! tree; the tree becomes a [`File`]; a [`File`] that makes sense becomes a [`Config`]. Every mistake on the way is
//! kept and reported with the others.
//!
//! Builds nothing and binds nothing: that is the app's business.

pub mod default_file;
pub mod file;
pub mod knob;
pub mod live;
pub mod mistake;

mod access;
mod checks;
mod env;
mod inject;
mod limits;
mod privacy;
mod providers;
mod tree;
mod written;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::config::checks::Checks;
use crate::config::file::File;
use crate::config::live::Changes;
use crate::config::mistake::{Mistake, Mistakes, Path};
use crate::config::written::Written;
use crate::limits::{budget, rate};
use crate::provider::{KNOWN, Provider};
use crate::redact::Redactor;
use crate::sinks::traces::plan::{self, Plan};
use crate::units::ByteSize;
use crate::{admin, cache, exchange, fleet, ledger, listener, price, runs, sinks, state, upstream, warm};

/// What weir shall do: a configuration without mistakes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the app's calls come in.
    pub listen: SocketAddr,
    /// The operator's side.
    pub admin: admin::Settings,
    /// The provider that answers bare `/v1/…` paths: one of `providers`.
    pub default_provider: Arc<Provider>,
    /// The providers, by name.
    pub providers: Vec<Arc<Provider>>,
    /// The app's connections.
    pub connections: listener::Settings,
    /// Connections to the providers.
    pub upstream: upstream::Settings,
    /// How calls are handled.
    pub calls: exchange::Settings,
    /// The cache.
    pub cache: cache::Settings,
    /// Agent loops.
    pub loops: runs::Settings,
    /// Files of requests to be sent on a schedule.
    pub warm: Vec<warm::Settings>,
    /// Limits of rate.
    pub limits: Vec<rate::Settings>,
    /// Budgets.
    pub budgets: Vec<budget::Settings>,
    /// What all instances of the app spend.
    pub fleet_spend: fleet::Settings,
    /// What calls cost.
    pub prices: price::Settings,
    /// What is kept of what is said, and of whom.
    pub privacy: crate::privacy::Settings,
    /// What finds what must not be told: what weir knows, and `privacy.patterns`.
    pub redactor: Arc<Redactor>,
    /// The ledger.
    pub ledger: ledger::Settings,
    /// Sidecars in Kubernetes.
    pub inject: crate::inject::Settings,
    /// Where what has to survive a restart is kept; none if there is no place for it.
    pub state_dir: Option<PathBuf>,
    /// Threads that work on calls, if the operator says how many.
    pub worker_threads: Option<usize>,
    /// How much memory weir may use, if the operator says so.
    pub memory_limit: Option<ByteSize>,
    /// What weir says about its work.
    pub telemetry: sinks::Settings,
    /// What is done about traces; nothing where they are off.
    pub traces: Option<Plan>,
    /// What of the environment cannot be used, and is left out.
    pub remarks: Vec<String>,
    /// What was written that this weir does not know, where that is left out and not refused.
    pub left_out: Vec<Mistake>,
    /// Where all of it was read, and may be read again.
    pub sources: Sources,
    /// Which text the file held.
    pub revision: Revision,
    /// Every knob's value, as plain data.
    knobs: Value,
}

/// Where a configuration comes from. Flags win over the environment, the environment over the file, the file over the
/// defaults: those that the variable `WEIR_DEFAULTS` holds, and then weir's own.
#[derive(Clone, Default)]
pub struct Sources {
    /// The YAML file, if there is one.
    pub file: Option<PathBuf>,
    /// Whether that file has to be there.
    pub presence: Presence,
    /// All environment variables.
    pub environment: BTreeMap<String, String>,
    /// The flags that set a knob, in order; the last one wins.
    pub flags: Vec<Flag>,
}

/// What is to be made of a configuration file that weir was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It has to be there, and every name in it has to be known.
    #[default]
    Required,
    /// Somebody else brings it, perhaps later, perhaps for a newer weir: until it is there the defaults hold, and names
    /// that this weir does not know are left out.
    IfPresent,
}

/// Which text a configuration file held: a hash of it; `None` where there was no file.
pub type Revision = Option<[u8; 32]>;

/// A flag that sets a knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag, such as `--listen`.
    pub name: &'static str,
    /// The knob it sets, such as `cache.mode`.
    pub path: String,
    /// The value.
    pub value: String,
}

impl Sources {
    /// Which text the file holds now.
    ///
    /// # Errors
    /// If it cannot be read, unless it need not be there.
    pub fn revision(&self) -> io::Result<Revision> {
        written::look(self)
    }
}

/// The environment holds secrets: only the rest is shown.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, presence, environment: _, flags } = self;
        let mut shown = f.debug_struct("Sources");
        shown.field("file", file).field("presence", presence).field("flags", flags).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// With every mistake there is.
    pub fn load(sources: &Sources) -> Result<Self, Mistakes> {
        Self::of(Written::read(sources), sources, |_, _| {})
    }

    /// Reads and checks the configuration of an injector that serves, which needs more than a sidecar does.
    ///
    /// # Errors
    /// With every mistake there is.
    #[cfg(feature = "inject")]
    pub fn load_injector(sources: &Sources) -> Result<Self, Mistakes> {
        Self::of(Written::read(sources), sources, inject::check_serving)
    }

    /// The same, and takes nothing that this weir does not know.
    ///
    /// # Errors
    /// With every mistake there is, names among them that [`Config::load`] would leave out.
    pub fn load_known(sources: &Sources) -> Result<Self, Mistakes> {
        let mut written = Written::read(sources);
        written.mistakes.append(&mut written.left_out);
        Self::of(written, sources, |_, _| {})
    }

    /// What a weir can take of this that runs with `running`, and what changes thereby. What needs a restart stays as it
    /// is, and is named.
    ///
    /// # Errors
    /// With the mistakes that come of some of it being taken, and some not; or if its file was emptied, which may be half
    /// of its being written.
    pub fn onto(self, running: &Self) -> Result<(Self, Changes), Mistakes> {
        if written::is_emptied(running.revision, self.revision) {
            return Err(Mistakes::new(vec![written::emptied(&self.sources)]));
        }
        let (knobs, changes) = live::onto(&running.knobs, &self.knobs);
        if changes.need_restart.is_empty() {
            return Ok((self, changes));
        }
        let written = Written { left_out: self.left_out, revision: self.revision, ..Written::of(&knobs) };
        Ok((Self::of(written, &self.sources, |_, _| {})?, changes))
    }

    /// Whether what stands at a path by names is the same in both.
    #[must_use]
    pub fn is_as(&self, other: &Self, path: &[&str]) -> bool {
        let at = |knobs: &Value| path.iter().try_fold(knobs.clone(), |node, name| node.get(*name).cloned());
        at(&self.knobs) == at(&other.knobs)
    }

    fn of(written: Written, sources: &Sources, more: impl FnOnce(&File, &mut Checks<'_>)) -> Result<Self, Mistakes> {
        let Written { file, tree, mistakes, left_out, revision } = written;
        let mut checks = Checks::new(&tree, &sources.environment, mistakes);
        let providers = providers::resolve(&file.providers, &mut checks);
        let default_provider = providers::default(&file, &providers, &mut checks);
        checks.settings(&file);
        let redactor = privacy::check(&file, &mut checks);
        let planned = plan::plan(&file.telemetry.traces, &sources.environment);
        checks.traces(&planned);
        more(&file, &mut checks);
        let mistakes = checks.into_mistakes();
        let (Some(default_provider), Some(redactor), true) = (default_provider, redactor, mistakes.is_empty()) else {
            return Err(Mistakes::new(mistakes));
        };
        let knobs = knobs(&file);
        Ok(Self {
            listen: file.listen,
            admin: file.admin,
            default_provider,
            providers,
            connections: file.connections,
            upstream: file.upstream,
            calls: file.calls,
            cache: file.cache,
            loops: file.loops,
            warm: file.warm,
            limits: file.limits,
            budgets: file.budgets,
            fleet_spend: file.fleet_spend,
            prices: file.prices,
            privacy: file.privacy,
            redactor: Arc::new(redactor),
            ledger: file.ledger,
            inject: file.inject,
            state_dir: file.state_dir.or_else(|| state::default_dir(&sources.environment)),
            worker_threads: file.worker_threads,
            memory_limit: file.memory_limit,
            telemetry: file.telemetry,
            traces: planned.plan,
            remarks: planned.remarks,
            left_out,
            sources: sources.clone(),
            revision,
            knobs,
        })
    }
}

/// Every knob's value. A provider that is known by name is there whether it is written or not.
fn knobs(file: &File) -> Value {
    let mut file = file.clone();
    for known in KNOWN {
        file.providers.entry(known.name.to_owned()).or_default();
    }
    file.to_value()
}

/// The address of the admin side. A mistake elsewhere does not matter: whether a running weir is well does not depend
/// on a file that was edited since.
///
/// # Errors
/// With the mistakes that hide the address.
pub fn admin_address(sources: &Sources) -> Result<SocketAddr, Mistakes> {
    let Written { file, mut mistakes, .. } = Written::read(sources);
    let address = Path::of(["admin", "listen"]);
    mistakes.retain(|mistake| address.is_within(&mistake.path));
    if mistakes.is_empty() { Ok(file.admin.listen) } else { Err(Mistakes::new(mistakes)) }
}

/// The file that holds the token of the admin side, if one is named; mistakes do not matter.
#[must_use]
pub fn admin_token_file(sources: &Sources) -> Option<PathBuf> {
    Written::read(sources).file.admin.token_file
}

#[cfg(test)]
mod tests;
