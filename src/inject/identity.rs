//! Identity: what the app of a pod is called in metrics and traces, and what it belongs to, told from the pod alone.

use std::fmt::Write;

use crate::inject::shape::Pod;

/// What a pod is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    /// The kind, such as `Deployment`.
    pub(super) kind: String,
    /// The name.
    pub(super) name: String,
}

/// Labels by which a pod knows the hash in the name of its `ReplicaSet`: Kubernetes' own, and Argo Rollouts'.
const HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

/// Kinds of which OpenTelemetry's conventions have an attribute.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("Deployment", "k8s.deployment.name"),
    ("ReplicaSet", "k8s.replicaset.name"),
    ("StatefulSet", "k8s.statefulset.name"),
    ("DaemonSet", "k8s.daemonset.name"),
    ("CronJob", "k8s.cronjob.name"),
    ("Job", "k8s.job.name"),
];

/// What `pod` is made from, as its owner tells. Deployments and `CronJobs` own no pods, but those that do are named after
/// them.
pub(super) fn owner(pod: Pod<'_>) -> Option<Workload> {
    let owners = pod.at("/metadata/ownerReferences").as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true).or(owners.first())?;
    let (kind, name) = (owner["kind"].as_str()?, owner["name"].as_str()?);
    let above = match kind {
        "ReplicaSet" => {
            let hashes = HASHES.into_iter().filter_map(|label| pod.label(label));
            let cut = |hash: &str| name.strip_suffix(hash)?.strip_suffix('-').filter(|rest| !rest.is_empty());
            hashes.into_iter().find_map(cut).map(|name| ("Deployment", name))
        }
        // A CronJob's Jobs end with the minutes since 1970.
        "Job" => name
            .rsplit_once('-')
            .filter(|(name, minutes)| {
                !name.is_empty() && minutes.len() >= 8 && minutes.bytes().all(|byte| byte.is_ascii_digit())
            })
            .map(|(name, _)| ("CronJob", name)),
        _ => None,
    };
    let (kind, name) = above.unwrap_or((kind, name));
    Some(Workload { kind: kind.to_owned(), name: name.to_owned() })
}

/// `service.name`, in the order of OpenTelemetry's conventions for Kubernetes: what is said, then what the pod is made from,
/// then the pod itself. Labels, which charts set to many things, are not asked.
pub(super) fn service(said: Option<&str>, pod: Pod<'_>, workload: Option<&Workload>) -> Option<String> {
    let name = said
        .or_else(|| pod.annotation("resource.opentelemetry.io/service.name"))
        .or(workload.map(|workload| workload.name.as_str()))
        .or_else(|| pod.at("/metadata/name").as_str())
        .or_else(|| pod.at("/metadata/generateName").as_str().map(|name| name.trim_end_matches('-')));
    name.filter(|name| !name.is_empty()).map(literal)
}

/// `OTEL_RESOURCE_ATTRIBUTES`: what the pod is, by variables that the node fills in, and what it is made from.
pub(super) fn attributes(workload: Option<&Workload>) -> String {
    let mut text = "service.namespace=$(POD_NAMESPACE),k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),\
                    k8s.pod.uid=$(POD_UID),k8s.node.name=$(NODE_NAME)"
        .to_owned();
    let named = workload.and_then(|workload| {
        let (_, attribute) = ATTRIBUTES.iter().find(|(kind, _)| *kind == workload.kind)?;
        Some((attribute, &workload.name))
    });
    // Names of objects need no escaping: letters, digits, `-` and `.`.
    if let Some((attribute, name)) = named.filter(|(_, name)| crate::inject::is_object_name(name)) {
        write!(text, ",{attribute}={name}").expect("a string takes all");
    }
    text
}

/// `text` as the value of a variable, in which Kubernetes reads `$(NAME)` as another variable.
fn literal(text: &str) -> String {
    text.replace("$(", "$$(")
}
