//! Sidecar: the container that weir is in, and the volumes it needs.

use serde_json::{Map, Value, json};

use crate::inject::identity::{self, Workload};
use crate::inject::shape::{Pod, variable};
use crate::inject::wishes::Wishes;
use crate::inject::{Mode, PullPolicy, Settings};

/// What the container is called.
pub(super) const NAME: &str = "weir";

/// The volume with the configuration, and where it is.
pub(super) const CONFIG_VOLUME: &str = "weir-config";
const CONFIG_DIR: &str = "/etc/weir";

/// The volume for state, and where it is.
pub(super) const STATE_VOLUME: &str = "weir-state";
const STATE_DIR: &str = "/var/lib/weir";

/// The name of the admin port, by which Prometheus finds it.
const ADMIN_PORT: &str = "weir-admin";

/// How long a sidecar among the app's own containers goes on after it is told to stop: they are told at the same time.
const SLEEP_SECS: u64 = 5;

/// Variables that say which proxy leads out: weir makes the calls now.
pub(super) const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// Variables that say where no proxy is asked.
pub(super) const NO_PROXIES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The container.
pub(super) fn container(pod: Pod<'_>, wishes: &Wishes, settings: &Settings, workload: Option<&Workload>) -> Value {
    let mut container = json!({ "name": NAME, "image": wishes.image, "args": ["run"] });
    match settings.image_pull_policy {
        PullPolicy::Unset => {}
        policy => container["imagePullPolicy"] = json!(policy),
    }
    if wishes.mode == Mode::Native {
        container["restartPolicy"] = json!("Always");
    }
    container["ports"] = json!([{ "name": ADMIN_PORT, "containerPort": wishes.admin_port }]);
    container["env"] = Value::Array(environment(pod, wishes, settings, workload));
    probes(&mut container, wishes);
    if let Some(seconds) = sleep(pod).filter(|_| wishes.mode == Mode::Container) {
        container["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": seconds } } });
    }
    let [requests, limits] = wishes
        .resources
        .written()
        .map(|all| all.into_iter().map(|(name, amount)| (name.to_owned(), Value::from(amount))).collect::<Map<_, _>>());
    let resources = [("requests", requests), ("limits", limits)].into_iter().filter(|(_, all)| !all.is_empty());
    let resources: Map<_, _> = resources.map(|(name, all)| (name.to_owned(), Value::Object(all))).collect();
    if !resources.is_empty() {
        container["resources"] = Value::Object(resources);
    }
    container["securityContext"] = security(settings);
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let mounts = mounts(wishes);
    if !mounts.is_empty() {
        container["volumeMounts"] = Value::Array(mounts);
    }
    container
}

/// The volumes.
pub(super) fn volumes(wishes: &Wishes) -> Vec<Value> {
    // Readable by whichever user weir runs as.
    let config = wishes.config_map.as_ref().map(
        |name| json!({ "name": CONFIG_VOLUME, "configMap": { "name": name, "optional": true, "defaultMode": 0o444 } }),
    );
    let state = wishes.disk.as_ref().map(|size| json!({ "name": STATE_VOLUME, "emptyDir": { "sizeLimit": size } }));
    config.into_iter().chain(state).collect()
}

fn mounts(wishes: &Wishes) -> Vec<Value> {
    // The directory, not the file in it: what is mounted by `subPath` never changes again.
    let config =
        wishes.config_map.as_ref().map(|_| json!({ "name": CONFIG_VOLUME, "mountPath": CONFIG_DIR, "readOnly": true }));
    let state = wishes.disk.as_ref().map(|_| json!({ "name": STATE_VOLUME, "mountPath": STATE_DIR }));
    config.into_iter().chain(state).collect()
}

/// Nothing in them depends on a provider: its outage must not take the pod out of service.
fn probes(container: &mut Value, wishes: &Wishes) {
    let ask = |path: &str| json!({ "path": path, "port": ADMIN_PORT });
    if wishes.wait {
        container["startupProbe"] = json!({ "httpGet": ask("/readyz"), "periodSeconds": 1, "failureThreshold": 30 });
    }
    container["readinessProbe"] = json!({ "httpGet": ask("/readyz"), "periodSeconds": 10 });
    container["livenessProbe"] = json!({ "httpGet": ask("/livez"), "periodSeconds": 20, "timeoutSeconds": 3 });
}

/// What passes the Pod Security Standard "restricted". On the container, for a pod may say `runAsUser: 0` for all.
fn security(settings: &Settings) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if let Some(user) = settings.run_as_user {
        context["runAsUser"] = json!(user);
        context["runAsGroup"] = json!(user);
    }
    context
}

/// How long to sleep before the end; Kubernetes refuses more than the pod has.
fn sleep(pod: Pod<'_>) -> Option<u64> {
    let grace = pod.at("/spec/terminationGracePeriodSeconds").as_u64();
    Some(grace.map_or(SLEEP_SECS, |grace| grace.min(SLEEP_SECS))).filter(|seconds| *seconds > 0)
}

/// Variables by name, each once, in the order they came.
#[derive(Debug, Default)]
struct Environment(Vec<Value>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        self.put(json!({ "name": name, "value": value }));
    }

    fn set_from(&mut self, name: &str, source: &Value) {
        self.put(json!({ "name": name, "valueFrom": source }));
    }

    fn put(&mut self, variable: Value) {
        match self.0.iter_mut().find(|known| known["name"] == variable["name"]) {
            Some(known) => *known = variable,
            None => self.0.push(variable),
        }
    }
}

/// weir's own variables: what the pod is, then what the operator set for all, then what the pod wants.
fn environment(pod: Pod<'_>, wishes: &Wishes, settings: &Settings, workload: Option<&Workload>) -> Vec<Value> {
    let mut all = Environment::default();
    for (name, field) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_UID", "metadata.uid"),
        ("NODE_NAME", "spec.nodeName"),
    ] {
        all.set_from(name, &json!({ "fieldRef": { "fieldPath": field } }));
    }
    if wishes.config_map.is_some() {
        all.set("WEIR_CONFIG_IF_PRESENT", &format!("{CONFIG_DIR}/weir.yaml"));
    }
    all.set("WEIR_ADMIN__LISTEN", &format!("0.0.0.0:{}", wishes.admin_port));
    all.set("OTEL_RESOURCE_ATTRIBUTES", &identity::attributes(workload));
    let service = identity::service(wishes.service.as_deref(), pod, workload);
    if let Some(service) = &service {
        all.set("OTEL_SERVICE_NAME", service);
    }
    for (name, value) in proxies(pod) {
        all.set(name, value);
    }
    for (name, value) in &settings.env {
        all.set(name, value);
    }
    // The app's variables say this port, whatever the configuration says.
    all.set("WEIR_LISTEN", &format!("127.0.0.1:{}", wishes.port));
    wanted(&mut all, wishes, service.filter(|_| wishes.service.is_some()));
    all.0
}

/// What the annotations say; `service` is what they call the app.
fn wanted(all: &mut Environment, wishes: &Wishes, service: Option<String>) {
    if let Some(service) = service {
        all.set("OTEL_SERVICE_NAME", &service);
    }
    if let Some(level) = &wishes.log_level {
        all.set("WEIR_TELEMETRY__LOG__LEVEL", level);
    }
    if let Some(is_on) = wishes.cache {
        all.set("WEIR_CACHE__MODE", if is_on { "all" } else { "off" });
    }
    if wishes.disk.is_some() {
        all.set("WEIR_STATE_DIR", STATE_DIR);
    }
    let Some(secret) = &wishes.secret else { return };
    for (family, key) in secret.families.iter().filter_map(|family| Some((family, family.key()?))) {
        // Not optional: Kubernetes says which key is missing, where weir could only say that it has none.
        all.set_from(key, &json!({ "secretKeyRef": { "name": secret.name, "key": key } }));
        all.set(&format!("WEIR_PROVIDERS__{}__API_KEY_ENV", family.as_str().to_uppercase()), key);
    }
}

/// The proxies of the first container that has any, as far as they are written out.
fn proxies(pod: Pod<'_>) -> impl Iterator<Item = (&'static str, &str)> {
    let mut containers = pod.all_containers().map(|(_, _, container)| container);
    let has_proxy = |container: &&Value| PROXIES.iter().any(|name| written_out(container, name).is_some());
    let from = containers.find(has_proxy);
    let names = PROXIES.into_iter().chain(NO_PROXIES);
    names.filter_map(move |name| Some((name, written_out(from?, name)?)))
}

/// The value of a variable, if it is not taken from elsewhere.
pub(super) fn written_out<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let value = variable(container, name)?["value"].as_str()?;
    Some(value).filter(|value| !value.is_empty() && !value.contains("$("))
}
