//! Variables: which containers are led to weir, by which environment variables. None that a container has is ever changed.

use serde_json::{Map, Value, json};

use crate::inject::Mode;
use crate::inject::family::Family;
use crate::inject::patch::Patch;
use crate::inject::shape::{List, Pod, name, variable};
use crate::inject::sidecar::{self, NO_PROXIES, PROXIES, written_out};
use crate::inject::wishes::{Variables, Wishes};

/// Containers of others that stand beside an app and call no model: they get no variables, unless they are named.
pub const SIDECARS: &[&str] = &[
    "istio-init",
    "istio-proxy",
    "istio-validation",
    "linkerd-init",
    "linkerd-network-validator",
    "linkerd-proxy",
    "linkerd-debug",
    "daprd",
    "vault-agent",
    "vault-agent-init",
    "cloud-sql-proxy",
    "cloudsql-proxy",
    "otc-container",
    "queue-proxy",
    "fluent-bit",
    "envoy",
];

/// The init containers of meshes: weir starts after the last of them, so that it ends before the proxy does.
const MESHES: [&str; 6] =
    ["istio-init", "istio-validation", "istio-proxy", "linkerd-init", "linkerd-network-validator", "linkerd-proxy"];

/// What leads to weir without any proxy.
const LOOPBACK: &str = "127.0.0.1,localhost";

/// Where weir is among the containers, or where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) list: List,
    pub(super) index: usize,
    /// Whether it is there already.
    pub(super) is_there: bool,
}

impl Place {
    pub(super) fn of(pod: Pod<'_>, mode: Mode) -> Self {
        if let Some((list, index)) = pod.find(sidecar::NAME) {
            return Self { list, index, is_there: true };
        }
        let after_meshes = || {
            let is_mesh = |container: &Value| MESHES.contains(&name(container));
            pod.containers(List::Init).iter().rposition(is_mesh).map_or(0, |last| last + 1)
        };
        match mode {
            Mode::Native => Self { list: List::Init, index: after_meshes(), is_there: false },
            // First: containers start in this order, though none waits for another.
            Mode::Container => Self { list: List::Main, index: 0, is_there: false },
        }
    }

    /// Whether the container at `index` of `list` starts before weir does.
    fn comes_after(self, list: List, index: usize) -> bool {
        list == List::Init && (self.list == List::Main || index < self.index)
    }

    /// How weir stands in the pod.
    pub(super) fn mode(self) -> Mode {
        if self.list == List::Init { Mode::Native } else { Mode::Container }
    }
}

/// What the containers of a pod get, and what is to be said of it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Per container: where its variables are, whether there are any, and what is added.
    added: Vec<(String, Value, Vec<Value>)>,
    /// The containers that are led to weir.
    pub(super) led: Vec<String>,
    /// The variables that are somebody else's, by container.
    pub(super) skipped: Map<String, Value>,
    /// What whoever makes the pod should know.
    pub(super) warnings: Vec<String>,
}

impl Plan {
    pub(super) fn of(pod: Pod<'_>, wishes: &Wishes, place: Place) -> Self {
        let mut plan = Self::default();
        for (list, index, container) in pod.all_containers() {
            let name = name(container);
            let is_meant = match &wishes.containers {
                Some(named) => named.iter().any(|one| one == name),
                None => !SIDECARS.contains(&name),
            };
            if !is_meant || name == sidecar::NAME {
                continue;
            }
            if !place.comes_after(list, index) {
                plan.lead(container, &format!("{}/{index}/env", list.path()), wishes);
            } else if wishes.containers.is_some() {
                plan.warnings.push(format!("container {name} starts before weir: it gets no variables"));
            }
        }
        plan
    }

    /// Adds all of it.
    pub(super) fn write(self, patch: &mut Patch) {
        for (path, there, variables) in self.added {
            patch.append(&path, &there, variables);
        }
    }

    /// Whether nothing is added.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    /// Plans what `container` gets, whose variables are at `path`.
    fn lead(&mut self, container: &Value, path: &str, wishes: &Wishes) {
        let (name, mut added) = (name(container), Vec::new());
        let mut is_led = false;
        let mut others = Vec::new();
        for family in Family::ALL {
            let wanted = wanted(family, &wishes.variables, &wishes.families);
            if wanted.is_empty() {
                continue;
            }
            let url = family.url(wishes.port);
            let own: Vec<&str> =
                family.variables().iter().copied().filter(|name| variable(container, name).is_some()).collect();
            let is_ours = |name: &&&str| variable(container, name).is_some_and(|known| known["value"] == url.as_str());
            if own.is_empty() {
                added.extend(wanted.iter().map(|name| json!({ "name": name, "value": url })));
                is_led = true;
            } else if own.iter().all(|name| is_ours(&name)) {
                is_led = true;
            } else {
                others.extend(own);
            }
        }
        if !others.is_empty() {
            let names = others.join(", ");
            self.warnings.push(format!("container {name} has {names} of its own: these calls do not go through weir"));
            self.skipped.insert(name.to_owned(), json!(others));
        }
        if !is_led {
            return;
        }
        self.led.push(name.to_owned());
        self.pass_proxies(container, &mut added);
        if !added.is_empty() && container["envFrom"].as_array().is_some_and(|sources| !sources.is_empty()) {
            self.warnings.push(format!(
                "container {name} has envFrom: what weir sets wins over it; name fewer variables in weir.dev/env if that \
                 is wrong"
            ));
        }
        if !added.is_empty() {
            self.added.push((path.to_owned(), container["env"].clone(), added));
        }
    }

    /// Sees to it that calls to weir go through no proxy.
    fn pass_proxies(&mut self, container: &Value, added: &mut Vec<Value>) {
        let proxies: Vec<&str> = PROXIES.into_iter().filter(|name| variable(container, name).is_some()).collect();
        if proxies.is_empty() {
            return;
        }
        let name = name(container);
        if let Some(hidden) = proxies.iter().find(|name| written_out(container, name).is_none()) {
            self.warnings.push(format!(
                "container {name} takes {hidden} from elsewhere: if weir needs it too, write it in inject.env"
            ));
        }
        let mut exceptions = NO_PROXIES.into_iter().filter(|name| variable(container, name).is_some()).peekable();
        if exceptions.peek().is_none() {
            added.extend(NO_PROXIES.map(|name| json!({ "name": name, "value": LOOPBACK })));
            return;
        }
        let lets_through =
            |list: &str| list.split(',').any(|one| ["127.0.0.1", "127.0.0.0/8", "*"].contains(&one.trim()));
        if let Some(lacking) = exceptions.find(|name| !written_out(container, name).is_some_and(lets_through)) {
            self.warnings.push(format!(
                "container {name} has a proxy: its {lacking} needs 127.0.0.1, else calls to weir go to the proxy"
            ));
        }
    }
}

/// The variables of `family` that are wanted.
fn wanted(family: Family, variables: &Variables, families: &[Family]) -> Vec<&'static str> {
    let all = family.variables().iter().copied();
    match variables {
        Variables::All if families.contains(&family) => all.collect(),
        Variables::All => Vec::new(),
        Variables::Only(names) => all.filter(|name| names.iter().any(|wanted| wanted == name)).collect(),
    }
}
