//! Pod: what becomes of one pod. Each part is added only where it is missing, so that a pod that comes again, changed by
//! another webhook, gets what it lacks and nothing twice.

use serde_json::{Map, Value, json};

use crate::inject::identity::{Workload, owner};
use crate::inject::patch::Patch;
use crate::inject::review::{Decision, Outcome, Reason, Request};
use crate::inject::shape::{List, Pod, name};
use crate::inject::sidecar::{self, STATE_VOLUME};
use crate::inject::variables::{Place, Plan, SIDECARS};
use crate::inject::wishes::{STATUS, Wishes};
use crate::inject::{Mode, OnInvalid, PREFIX, Settings};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// More of a value that is shown helps nobody.
const LONGEST_MISTAKE: usize = 300;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Decides what becomes of what `request` is about.
pub(super) fn decide(request: &Request, settings: &Settings) -> Decision {
    if request.kind.kind != "Pod" || !request.kind.group.is_empty() {
        return Decision::untouched(Outcome::Skipped, Reason::NotAPod);
    }
    if request.operation != "CREATE" || !request.sub_resource.is_empty() {
        return Decision::untouched(Outcome::Skipped, Reason::NotCreated);
    }
    inject(&request.object, None, settings)
}

/// Decides what becomes of `object`, a pod or the template of one. `workload` is what it is a template of.
pub(super) fn inject(object: &Value, workload: Option<Workload>, settings: &Settings) -> Decision {
    let Some(pod) = Pod::of(object) else {
        return Decision::fault(Reason::NoPod, "there is no pod in what was sent, or it has not the shape of one");
    };
    if let Some(decision) = left_alone(pod) {
        return decision;
    }
    if settings.image.is_none() {
        return Decision::fault(Reason::NoImage, "no image is configured: write `inject.image`");
    }
    match Wishes::read(pod, settings) {
        Ok(wishes) => put(pod, &wishes, settings, workload.or_else(|| owner(pod)).as_ref()),
        Err(mistakes) => refuse(&mistakes, settings.on_invalid),
    }
}

/// Pods that weir leaves alone.
fn left_alone(pod: Pod<'_>) -> Option<Decision> {
    let skip = |reason| Some(Decision::untouched(Outcome::Skipped, reason));
    let skip_aloud = |reason, why: &str| {
        let warnings = vec![format!("weir is not in this pod: {why}")];
        Some(Decision { warnings, ..Decision::untouched(Outcome::Skipped, reason) })
    };
    let is_windows =
        pod.at("/spec/os/name") == "windows" || pod.at("/spec/nodeSelector/kubernetes.io~1os") == "windows";
    if pod.label(&format!("{PREFIX}inject")) == Some("false") {
        skip(Reason::OptedOut)
    } else if pod.annotations().is_some_and(|all| all.contains_key(MIRROR)) {
        skip(Reason::MirrorPod)
    } else if pod.at("/spec/hostNetwork") == true {
        skip_aloud(Reason::HostNetwork, "it is on its node's network, whose ports it shares with other pods")
    } else if is_windows {
        skip_aloud(Reason::Windows, "it is for Windows")
    } else {
        None
    }
}

/// A pod whose annotations are wrong.
fn refuse(mistakes: &[String], on_invalid: OnInvalid) -> Decision {
    let count = match mistakes.len() {
        1 => "1 mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    let shown: Vec<String> = mistakes.iter().map(|mistake| mistake.chars().take(LONGEST_MISTAKE).collect()).collect();
    let message = format!("weir finds {count} in this pod: {}", shown.join("; "));
    match on_invalid {
        OnInvalid::Deny => {
            Decision { refusal: Some(message), ..Decision::untouched(Outcome::Denied, Reason::InvalidAnnotation) }
        }
        OnInvalid::Skip => Decision {
            warnings: vec![format!("weir is not in this pod: {message}")],
            ..Decision::untouched(Outcome::Skipped, Reason::InvalidAnnotation)
        },
    }
}

/// Puts weir into `pod`, as far as it is not in it.
fn put(pod: Pod<'_>, wishes: &Wishes, settings: &Settings, workload: Option<&Workload>) -> Decision {
    let place = Place::of(pod, wishes.mode);
    let plan = Plan::of(pod, wishes, place);
    if place.is_there && plan.is_empty() {
        return Decision::untouched(Outcome::Skipped, Reason::AlreadyInjected);
    }
    let mut warnings = plan.warnings.clone();
    let mut notes = Map::from_iter([(STATUS.to_owned(), Value::from(status(&plan, place.mode())))]);
    let mut patch = Patch::default();
    if !pod.at("/metadata").is_object() {
        patch.add("/metadata", json!({}));
    }
    // The variables first: the sidecar changes the places of the containers behind it.
    plan.write(&mut patch);
    if !place.is_there {
        warnings.extend(clashes(pod, wishes));
        notes.extend(notes_on_sidecar(pod, wishes));
        put_sidecar(&mut patch, pod, place, sidecar::container(pod, wishes, settings, workload));
        let missing = sidecar::volumes(wishes).into_iter().filter(|volume| !has_volume(pod, &volume["name"]));
        patch.append("/spec/volumes", pod.at("/spec/volumes"), missing.collect());
        let labels = Map::from_iter([(format!("{PREFIX}injected"), json!("true"))]);
        enter(&mut patch, pod, "/metadata/labels", labels);
    }
    enter(&mut patch, pod, "/metadata/annotations", notes);
    let reason = if place.is_there { Reason::Completed } else { Reason::Added };
    let patch = patch.into_operations();
    Decision { patch, warnings, ..Decision::untouched(Outcome::Injected, reason) }
}

/// Writes `entries` into the labels or annotations.
fn enter(patch: &mut Patch, pod: Pod<'_>, section: &str, entries: Map<String, Value>) {
    patch.enter(section, pod.at(section), entries);
}

fn put_sidecar(patch: &mut Patch, pod: Pod<'_>, place: Place, container: Value) {
    let list = place.list.path();
    if pod.containers(place.list).is_empty() {
        patch.add(list, json!([container]));
    } else {
        patch.add(&format!("{list}/{}", place.index), container);
    }
}

fn has_volume(pod: Pod<'_>, name: &Value) -> bool {
    pod.at("/spec/volumes").as_array().is_some_and(|volumes| volumes.iter().any(|volume| volume["name"] == *name))
}

/// What weir has done, for people and tools to read.
fn status(plan: &Plan, mode: Mode) -> String {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "mode": mode.as_str(),
        "containers": plan.led,
        "skippedEnv": plan.skipped,
    })
    .to_string()
}

/// Annotations that others read because of the sidecar.
fn notes_on_sidecar(pod: Pod<'_>, wishes: &Wishes) -> Vec<(String, Value)> {
    let mut notes = Vec::new();
    // Without it, `kubectl logs` and `kubectl exec` take the first container, which is weir now.
    if wishes.mode == Mode::Container && pod.annotation(DEFAULT_CONTAINER).is_none() {
        let all = pod.containers(List::Main).iter().map(name);
        let first = all.clone().find(|name| !SIDECARS.contains(name)).or_else(|| all.clone().next());
        notes.extend(first.map(|first| (DEFAULT_CONTAINER.to_owned(), Value::from(first))));
    }
    // A volume on a node's disk keeps the autoscaler from draining the node.
    if wishes.disk.is_some() {
        let named = pod.annotation(SAFE_TO_EVICT).unwrap_or_default();
        let is_there = named.split(',').any(|volume| volume.trim() == STATE_VOLUME);
        let with = if named.is_empty() { STATE_VOLUME.to_owned() } else { format!("{named},{STATE_VOLUME}") };
        notes.extend((!is_there).then(|| (SAFE_TO_EVICT.to_owned(), Value::from(with))));
    }
    notes
}

/// What does not go well with the sidecar.
fn clashes(pod: Pod<'_>, wishes: &Wishes) -> Vec<String> {
    let mut warnings = Vec::new();
    for (_, _, container) in pod.all_containers() {
        let ports =
            container["ports"].as_array().into_iter().flatten().filter_map(|port| port["containerPort"].as_u64());
        for port in ports {
            let annotation = match port {
                port if port == u64::from(wishes.port) => "port",
                port if port == u64::from(wishes.admin_port) => "admin-port",
                _ => continue,
            };
            warnings.push(format!(
                "container {} has port {port}, which is weir's: write another in {PREFIX}{annotation}",
                name(container)
            ));
        }
    }
    let ends = pod.at("/spec/restartPolicy").as_str().is_some_and(|policy| policy != "Always");
    if wishes.mode == Mode::Container && ends {
        warnings.push(format!("this pod does not end while weir runs beside it: write {PREFIX}mode: native"));
    }
    warnings
}
