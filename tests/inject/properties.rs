//! Properties: what holds for every pod, shown with pods made at random.

use serde_json::{Map, Value, json};
use weir::inject::answer;
use weir::inject::review::Outcome;

use crate::{operations, patched, review, settings};
use random::Random;

#[path = "../fixture/random.rs"]
mod random;

const PODS: u64 = 1000;

/// What weir may add to a pod.
const OURS: [&str; 2] = ["weir.dev/status", "weir.dev/injected"];
const VOLUMES: [&str; 2] = ["weir-config", "weir-state"];
const SET: [&str; 10] = [
    "OPENAI_BASE_URL",
    "OPENAI_API_BASE",
    "ANTHROPIC_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_VERTEX_BASE_URL",
    "GROQ_BASE_URL",
    "CO_API_URL",
    "AZURE_OPENAI_ENDPOINT",
    "NO_PROXY",
    "no_proxy",
];

#[test]
fn what_weir_adds_can_be_taken_away_again_and_is_added_once() {
    let mut injected = 0;
    for seed in 0..PODS {
        let mut random = Random(seed);
        let pod = pod(&mut random);
        let settings =
            settings(&pick(&mut random, &[json!({}), json!({ "mode": "container" }), json!({ "on_invalid": "skip" })]));
        let first = answer(review(&pod).to_string().as_bytes(), &settings);
        let (changed, count) = patched(&pod, &first);
        assert_eq!(count > 0, first.result == Outcome::Injected, "seed {seed}");
        injected += usize::from(count > 0);
        let second = answer(review(&changed).to_string().as_bytes(), &settings);
        assert_eq!(operations(&second), None, "seed {seed}: a second run changes nothing");
        for operation in operations(&first).iter().flat_map(|all| all.as_array().expect("a list")) {
            assert_eq!(operation["op"], "add", "seed {seed}: nothing is removed or replaced");
        }
        nothing_is_overridden(&pod, &changed, seed);
        assert_eq!(without_weir(&changed, &pod), tidy(pod), "seed {seed}: nothing else is touched");
    }
    assert!(injected > usize::try_from(PODS / 4).expect("small"), "only {injected} pods were injected");
}

/// Every container has the variables it had, in their order, before any that were added.
fn nothing_is_overridden(before: &Value, after: &Value, seed: u64) {
    for list in ["initContainers", "containers"] {
        for container in before["spec"][list].as_array().into_iter().flatten() {
            let name = &container["name"];
            let now = after["spec"][list].as_array().into_iter().flatten().find(|now| now["name"] == *name);
            let now = now.unwrap_or_else(|| panic!("seed {seed}: {name} is gone"));
            let had = container["env"].as_array().map(Vec::as_slice).unwrap_or_default();
            let has = now["env"].as_array().map(Vec::as_slice).unwrap_or_default();
            assert_eq!(&has[..had.len()], had, "seed {seed}: {name}");
            for added in &has[had.len()..] {
                assert!(had.iter().all(|own| own["name"] != added["name"]), "seed {seed}: {name} {added}");
            }
        }
    }
}

/// `after` without all that weir adds to pods like `before`.
fn without_weir(after: &Value, before: &Value) -> Value {
    let mut pod = after.clone();
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"][list].as_array_mut() else { continue };
        containers.retain(|container| {
            container["name"] != "weir" || before["spec"][list].as_array().is_some_and(|had| had.contains(container))
        });
        for container in containers {
            let had =
                before["spec"][list].as_array().into_iter().flatten().find(|had| had["name"] == container["name"]);
            let had = had.and_then(|had| had["env"].as_array()).map_or(0, Vec::len);
            if let Some(variables) = container["env"].as_array_mut() {
                assert!(variables[had..].iter().all(|added| SET.iter().any(|name| added["name"] == *name)));
                variables.truncate(had);
            }
        }
    }
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.retain(|volume| {
            let is_ours = VOLUMES.iter().any(|name| volume["name"] == *name);
            !is_ours || before["spec"]["volumes"].as_array().is_some_and(|had| had.contains(volume))
        });
    }
    for section in ["labels", "annotations"] {
        if let Some(entries) = pod["metadata"][section].as_object_mut() {
            entries.retain(|name, _| !OURS.contains(&name.as_str()) || before["metadata"][section].get(name).is_some());
            let named = "kubectl.kubernetes.io/default-container";
            if before["metadata"][section].get(named).is_none() {
                entries.remove(named);
            }
            let safe = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
            match before["metadata"][section].get(safe) {
                Some(had) => drop(entries.insert(safe.to_owned(), had.clone())),
                None => drop(entries.remove(safe)),
            }
        }
    }
    tidy(pod)
}

/// `pod` without parts that are empty: nothing and an empty list are the same to Kubernetes.
fn tidy(mut pod: Value) -> Value {
    let is_empty = |value: &Value| {
        value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
    };
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if is_empty(&container["env"]) {
                container.as_object_mut().expect("a container").remove("env");
            }
        }
    }
    for section in ["metadata", "spec"] {
        if let Some(entries) = pod[section].as_object_mut() {
            entries.retain(|_, value| !is_empty(value));
        }
    }
    pod
}

fn pod(random: &mut Random) -> Value {
    let mut pod = json!({ "metadata": { "generateName": "shop-" }, "spec": { "containers": [] } });
    let annotations = [
        ("weir.dev/providers", "openai,groq"),
        ("weir.dev/env", "OPENAI_BASE_URL"),
        ("weir.dev/env", "false"),
        ("weir.dev/mode", "container"),
        ("weir.dev/mode", "nativ"),
        ("weir.dev/state", "disk:1Gi"),
        ("weir.dev/secret", "keys"),
        ("weir.dev/port", "9999"),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "cache"),
        ("kubectl.kubernetes.io/default-container", "app"),
        ("a~b/c", "d"),
    ];
    for _ in 0..random.below(4) {
        let (name, value) = annotations[random.below(annotations.len())];
        pod["metadata"]["annotations"][name] = json!(value);
    }
    for (name, value) in [("app", "shop"), ("weir.dev/inject", "true"), ("weir.dev/inject", "false")] {
        if random.below(5) == 0 {
            pod["metadata"]["labels"][name] = json!(value);
        }
    }
    let names = ["app", "worker", "istio-proxy", "istio-init", "linkerd-proxy", "daprd", "migrate", "weir"];
    let mut free: Vec<&str> = names.to_vec();
    for list in ["initContainers", "containers"] {
        let least = usize::from(list == "containers");
        for _ in 0..least + random.below(3) {
            let name = free.remove(random.below(free.len()));
            let container = container(random, name);
            if pod["spec"][list].is_null() {
                pod["spec"][list] = json!([]);
            }
            pod["spec"][list].as_array_mut().expect("a list").push(container);
        }
    }
    let rest = [
        ("hostNetwork", json!(true)),
        ("hostNetwork", json!(false)),
        ("volumes", json!([])),
        ("volumes", json!([{ "name": "weir-config", "emptyDir": {} }])),
        ("volumes", json!(null)),
        ("initContainers", json!(null)),
        ("terminationGracePeriodSeconds", json!(2)),
        ("somethingOfTomorrow", json!({ "a": [1, 2.5, null] })),
    ];
    for _ in 0..random.below(3) {
        let (name, value) = &rest[random.below(rest.len())];
        pod["spec"][name] = value.clone();
    }
    pod
}

fn container(random: &mut Random, name: &str) -> Value {
    let mut container = json!({ "name": name, "image": "registry/app:1" });
    let names = ["A", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].into_iter().chain(SET);
    let values = [
        json!({ "value": "x" }),
        json!({ "value": "http://127.0.0.1:9347/openai/v1" }),
        json!({ "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } }),
        json!({}),
    ];
    let mut variables = Vec::new();
    for name in names {
        if random.below(9) == 0 {
            let mut variable = values[random.below(values.len())].clone();
            variable["name"] = json!(name);
            variables.push(variable);
        }
    }
    if !variables.is_empty() || random.below(4) == 0 {
        container["env"] = Value::Array(variables);
    }
    if random.below(6) == 0 {
        container["envFrom"] = json!([{ "configMapRef": { "name": "c" } }]);
    }
    if random.below(6) == 0 {
        container["ports"] = json!([{ "containerPort": 9347 }]);
    }
    container
}

fn pick(random: &mut Random, from: &[Value]) -> Value {
    from[random.below(from.len())].clone()
}
