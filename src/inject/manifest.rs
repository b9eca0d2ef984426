//! Manifest: weir put into what operators keep in files: pods, and all that has the template of one. The same decision as
//! the webhook's, carried out in YAML.

use serde_json::Value;

use crate::inject::identity::Workload;
use crate::inject::review::{Decision, Outcome};
use crate::inject::yaml::{self, Node};
use crate::inject::{PREFIX, Settings, pod};

/// Kinds that have a pod or the template of one: the versions they are known in begin so, and where it is (RFC 6901).
const KINDS: &[(&str, &str, &str)] = &[
    ("Pod", "v1", ""),
    ("PodTemplate", "v1", "/template"),
    ("ReplicationController", "v1", "/spec/template"),
    ("Deployment", "apps/", "/spec/template"),
    ("StatefulSet", "apps/", "/spec/template"),
    ("DaemonSet", "apps/", "/spec/template"),
    ("ReplicaSet", "apps/", "/spec/template"),
    ("Job", "batch/", "/spec/template"),
    ("CronJob", "batch/", "/spec/jobTemplate/spec/template"),
];

/// What has become of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// All documents, as YAML.
    pub text: String,
    /// What the operator should know, each with its document.
    pub warnings: Vec<String>,
}

/// Puts weir into every pod of `text`, which is YAML, but those that say `weir.dev/inject: "false"`.
///
/// # Errors
/// With all that is wrong, each with its document and its field.
pub fn inject(text: &str, settings: &Settings) -> Result<Manifest, Vec<String>> {
    let mut documents = yaml::read(text).map_err(|fault| vec![fault])?;
    let mut told = Told::default();
    for (index, document) in documents.iter_mut().enumerate() {
        let value = document.to_value();
        each_object(&value, "", &mut |object, path| {
            let place = format!("document {}{}", index + 1, described(object, path));
            put(document, &Found { object, path, place: &place }, settings, &mut told);
        });
    }
    let Told { warnings, faults } = told;
    if faults.is_empty() { Ok(Manifest { text: yaml::write(&documents), warnings }) } else { Err(faults) }
}

/// An object of a manifest.
#[derive(Debug)]
struct Found<'a> {
    object: &'a Value,
    /// Where it is in its document (RFC 6901).
    path: &'a str,
    /// What messages call it.
    place: &'a str,
}

/// What is to be said in the end.
#[derive(Debug, Default)]
struct Told {
    warnings: Vec<String>,
    faults: Vec<String>,
}

/// Calls `on` with every object, and where it is: lists hold several.
fn each_object(value: &Value, path: &str, on: &mut impl FnMut(&Value, &str)) {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value["items"].as_array().filter(|_| is_list) {
        Some(items) => {
            for (index, item) in items.iter().enumerate() {
                each_object(item, &format!("{path}/items/{index}"), on);
            }
        }
        None => on(value, path),
    }
}

/// The kind and the name of an object, for messages; its place in a list.
fn described(object: &Value, path: &str) -> String {
    let place = if path.is_empty() { String::new() } else { format!(", {}", dotted(path)) };
    match (object["kind"].as_str(), object["metadata"]["name"].as_str()) {
        (Some(kind), Some(name)) => format!("{place} ({kind} {name})"),
        (Some(kind), None) => format!("{place} ({kind})"),
        _ => place,
    }
}

/// Puts weir into the pod of what was found in `document`, if it has one.
fn put(document: &mut Node, found: &Found<'_>, settings: &Settings, told: &mut Told) {
    let Found { object, path, place } = found;
    let Some((kind, below)) = template(object) else { return };
    let is_out = object["metadata"]["labels"][format!("{PREFIX}inject")] == "false";
    let Some(template) = object.pointer(below).filter(|_| !is_out) else { return };
    let named = object["metadata"]["name"].as_str().filter(|_| !below.is_empty() && kind != "PodTemplate");
    let workload = named.map(|name| Workload { kind: kind.to_owned(), name: name.to_owned() });
    let Decision { result, patch, warnings, refusal, .. } = pod::inject(template, workload, settings);
    let field = if below.is_empty() { String::new() } else { format!("{}: ", dotted(below)) };
    let said = warnings.into_iter().chain(refusal).map(|message| format!("{place}: {field}{message}"));
    match result {
        Outcome::Denied | Outcome::Error => told.faults.extend(said),
        Outcome::Injected | Outcome::Skipped => told.warnings.extend(said),
    }
    for operation in &patch {
        add(document, &format!("{path}{below}"), operation).expect("every operation applies to what it was made of");
    }
}

/// The kind of an object that has the template of a pod, and where that is.
fn template(object: &Value) -> Option<(&'static str, &'static str)> {
    let (kind, version) = (object["kind"].as_str()?, object["apiVersion"].as_str()?);
    let found = KINDS.iter().find(|(known, versions, _)| {
        *known == kind && if versions.ends_with('/') { version.starts_with(versions) } else { version == *versions }
    });
    found.map(|(kind, _, below)| (*kind, *below))
}

/// Carries out one `add` of a JSON patch for what stands at `path`.
fn add(document: &mut Node, path: &str, operation: &Value) -> Option<()> {
    let whole = format!("{path}{}", operation["path"].as_str()?);
    let (holder, last) = whole.rsplit_once('/')?;
    let mut names = holder.split('/').skip(1).map(plain);
    let holder = names.try_fold(document, |node, name| node.child(&name))?;
    holder.add(&plain(last), Node::of(&operation["value"]))
}

/// A name out of a pointer.
fn plain(escaped: &str) -> String {
    escaped.replace("~1", "/").replace("~0", "~")
}

/// A pointer as people write it: `spec.template`, `items[0]`.
fn dotted(path: &str) -> String {
    path.split('/').skip(1).fold(String::new(), |text, name| match name.parse::<usize>() {
        Ok(index) => format!("{text}[{index}]"),
        Err(_) if text.is_empty() => name.to_owned(),
        Err(_) => format!("{text}.{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { image: Some("weir:1".to_owned()), ..Settings::default() }
    }

    #[test]
    fn every_kind_with_a_template_is_injected_and_others_are_not() {
        let pod = "metadata: {labels: {a: b}}\nspec: {containers: [{name: app}]}";
        let within = |names: &[&str]| {
            names.iter().rev().fold(pod.to_owned(), |inner, name| format!("{name}:\n  {}", inner.replace('\n', "\n  ")))
        };
        for (kind, version, names, expected) in [
            ("Pod", "v1", &[][..], true),
            ("PodTemplate", "v1", &["template"], true),
            ("Deployment", "apps/v1", &["spec", "template"], true),
            ("StatefulSet", "apps/v1", &["spec", "template"], true),
            ("DaemonSet", "apps/v1", &["spec", "template"], true),
            ("ReplicaSet", "apps/v1", &["spec", "template"], true),
            ("Job", "batch/v1", &["spec", "template"], true),
            ("CronJob", "batch/v1", &["spec", "jobTemplate", "spec", "template"], true),
            ("Deployment", "acme.io/v1", &["spec", "template"], false),
            ("Rollout", "argoproj.io/v1alpha1", &["spec", "template"], false),
        ] {
            let text = format!("apiVersion: {version}\nkind: {kind}\n{}", within(names));
            let injected = inject(&text, &settings()).expect("nothing is wrong");
            assert_eq!(injected.text.contains("name: weir\n"), expected, "{kind} {version}:\n{}", injected.text);
            assert_eq!(
                inject(&injected.text, &settings()).expect("nothing is wrong").text,
                injected.text,
                "{kind} twice"
            );
        }
    }

    #[test]
    fn what_is_wrong_names_its_document_and_field() {
        let text = "a: b\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: apps/v1\n  kind: Deployment\n  metadata: {name: shop}\n  \
                    spec:\n    template:\n      metadata: {annotations: {weir.dev/port: x}}\n      spec: {containers: [{name: app}]}\n";
        let faults = inject(text, &settings()).expect_err("a port is wrong");
        assert_eq!(
            faults,
            [
                "document 2, items[0] (Deployment shop): spec.template: weir finds 1 mistake in this pod: weir.dev/port: `x` \
              is no port: write one such as 9347"
            ]
        );
    }

    #[test]
    fn who_says_so_is_left_alone() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: shop\n  labels:\n    weir.dev/inject: \"false\"\nspec:\n  \
                    template:\n    spec:\n      containers:\n      - name: app\n";
        assert_eq!(inject(text, &settings()).expect("nothing is wrong").text, text);
    }
}
