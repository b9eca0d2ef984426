//! Inject: what becomes of pods. Each file in `tests/inject/pods` is what the API server asks, what it is answered, and the
//! pod as it is then; pods made at random show what holds for all of them. `UPDATE_EXPECT=1` rewrites the files.
//!
//! Whether Kubernetes would take the pods is asked by `test_schemas.py`.

mod pages;
mod properties;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use weir::inject::review::{Answer, Outcome, Reason};
use weir::inject::{Settings, answer};

/// The settings of a cluster that has changed `changes`.
pub(crate) fn settings(changes: &Value) -> Settings {
    let mut settings = json!({ "image": "ghcr.io/weir-dev/weir:0.1.0" });
    for (name, value) in changes.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
    serde_json::from_value(settings).expect("settings")
}

/// What the API server asks of `object`.
pub(crate) fn review(object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "operation": "CREATE",
            "namespace": "shop",
            "object": object,
        },
    })
}

/// What is in an answer.
pub(crate) fn response(answer: &Answer) -> Value {
    let review: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(review["kind"], "AdmissionReview");
    review["response"].clone()
}

/// The operations of an answer; `None` if nothing is changed.
pub(crate) fn operations(answer: &Answer) -> Option<Value> {
    let response = response(answer);
    let patch = response.get("patch")?;
    assert_eq!(response["patchType"], "JSONPatch");
    let json = BASE64_STANDARD.decode(patch.as_str().expect("a text")).expect("a patch is base64");
    Some(serde_json::from_slice(&json).expect("a patch is JSON"))
}

/// `object` as `answer` has it changed, and how often it was.
pub(crate) fn patched(object: &Value, answer: &Answer) -> (Value, usize) {
    let Some(operations) = operations(answer) else { return (object.clone(), 0) };
    let count = operations.as_array().map_or(0, Vec::len);
    let mut patched = object.clone();
    let operations: json_patch::Patch = serde_json::from_value(operations).expect("operations");
    json_patch::patch(&mut patched, &operations).expect("every operation applies");
    (patched, count)
}

#[test]
fn pods_become_what_is_written_down() {
    let mut faults = Vec::new();
    let paths = goldens();
    assert!(paths.len() >= 40, "there are only {} pods", paths.len());
    for path in paths {
        let written: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
        let told = told(&written);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, serde_json::to_string_pretty(&told).expect("JSON") + "\n").expect("writable");
        } else if told != written {
            faults.push(format!("{} becomes\n{told:#}", path.display()));
        }
    }
    assert!(
        faults.is_empty(),
        "run UPDATE_EXPECT=1 cargo test --test inject, and look at what changes:\n{}",
        faults.join("\n")
    );
}

/// A golden with the answer that is given today.
fn told(written: &Value) -> Value {
    let settings = settings(&written["settings"]);
    let object = &written["review"]["request"]["object"];
    let answer = answer(written["review"].to_string().as_bytes(), &settings);
    let response = response(&answer);
    assert_eq!(response["uid"], written["review"]["request"]["uid"]);
    let (pod, count) = patched(object, &answer);
    let again = answer_again(written, &pod, &settings);
    assert_eq!(operations(&again), None, "a second run changes nothing: {}", written["about"]);
    let mut told = written.clone();
    told["answer"] = json!({
        "allowed": response["allowed"],
        "result": answer.result.as_str(),
        "reason": answer.reason.as_str(),
        "dry_run": answer.dry_run,
        "operations": count,
        "warnings": response.get("warnings").cloned().unwrap_or(json!([])),
        "refusal": response["status"]["message"],
    });
    told["pod"] = if count == 0 { Value::Null } else { without_version(&pod) };
    told
}

fn answer_again(written: &Value, pod: &Value, settings: &Settings) -> Answer {
    let mut review = written["review"].clone();
    review["request"]["object"] = pod.clone();
    answer(review.to_string().as_bytes(), settings)
}

/// The version in the annotation changes with each release, which is no reason to touch the files.
fn without_version(pod: &Value) -> Value {
    let text =
        pod.to_string().replace(&format!(r#"\"version\":\"{}\""#, env!("CARGO_PKG_VERSION")), r#"\"version\":\"-\""#);
    serde_json::from_str(&text).expect("still JSON")
}

fn goldens() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject/pods");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder is there").map(|file| file.expect("readable").path()).collect();
    paths.sort();
    paths
}

#[test]
fn whatever_bytes_come_are_answered() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let all_bytes: Vec<u8> = (0..=255).collect();
    for (about, bytes) in [
        ("nothing", &b""[..]),
        ("no JSON", b"<html>"),
        ("cut", br#"{"apiVersion": "admission.k8s.io/v1", "kin"#),
        ("a number", b"1"),
        ("a list", b"[]"),
        ("too deep", deep.as_bytes()),
        ("no text", &all_bytes),
    ] {
        check(about, bytes, ["error", "unreadable"]);
    }
}

#[test]
fn whatever_review_comes_is_answered() {
    let object = "/request/object";
    let container = "/request/object/spec/containers/0";
    // What is changed of a review that is right, and what becomes of it.
    let rows = json!([
        ["another kind", "/kind", "Pod", "error", "unreadable"],
        ["no kind", "/kind", "", "error", "unreadable"],
        ["an old version", "/apiVersion", "admission.k8s.io/v1beta1", "error", "unknown_version"],
        ["no request", "/request", null, "error", "unreadable"],
        ["a number for an id", "/request/uid", 1, "error", "unreadable"],
        ["no object", object, null, "error", "no_pod"],
        ["an empty object", object, {}, "error", "no_pod"],
        ["a list for a pod", object, [], "error", "no_pod"],
        ["metadata as a text", format!("{object}/metadata"), "x", "error", "no_pod"],
        ["labels as a list", format!("{object}/metadata/labels"), [], "error", "no_pod"],
        ["no containers", format!("{object}/spec/containers"), [], "error", "no_pod"],
        ["containers of numbers", format!("{object}/spec/containers"), [1], "error", "no_pod"],
        ["containers as a section", format!("{object}/spec/containers"), {}, "error", "no_pod"],
        ["volumes as a text", format!("{object}/spec/volumes"), "x", "error", "no_pod"],
        ["variables as a section", format!("{container}/env"), {}, "error", "no_pod"],
        ["variables of numbers", format!("{container}/env"), [1], "error", "no_pod"],
        ["another object", "/request/kind/kind", "Service", "skipped", "not_a_pod"],
        ["another group's pod", "/request/kind/group", "acme.io", "skipped", "not_a_pod"],
        ["an update", "/request/operation", "UPDATE", "skipped", "not_created"],
        ["an ephemeral container", "/request/subResource", "ephemeralcontainers", "skipped", "not_created"],
        ["a huge name", format!("{container}/name"), "x".repeat(4 << 20), "injected", "added"],
        ["a number for an annotation", format!("{object}/metadata/annotations"), { "weir.dev/port": 1 },
            "denied", "invalid_annotation"],
        ["a huge annotation", format!("{object}/metadata/annotations"), { "weir.dev/providers": "x".repeat(1 << 20) },
            "denied", "invalid_annotation"],
        ["a huge name of an annotation", format!("{object}/metadata/annotations"),
            { format!("weir.dev/{}", "x".repeat(1 << 20)): "x" }, "denied", "invalid_annotation"],
    ]);
    for row in rows.as_array().expect("rows") {
        let mut review = review(&json!({ "metadata": {}, "spec": { "containers": [{ "name": "app" }] } }));
        review["request"]["subResource"] = json!("");
        let [about, path, result, reason] = [0, 1, 3, 4].map(|column| row[column].as_str().expect("a text"));
        let change = json!([{ "op": "add", "path": path, "value": row[2] }]);
        json_patch::patch(&mut review, &serde_json::from_value::<json_patch::Patch>(change).expect("a patch"))
            .expect("it applies");
        check(about, review.to_string().as_bytes(), [result, reason]);
    }
}

/// Whether `bytes` are answered, and so.
fn check(about: &str, bytes: &[u8], expected: [&str; 2]) {
    let answer = answer(bytes, &settings(&json!({})));
    let response = response(&answer);
    assert_eq!([answer.result.as_str(), answer.reason.as_str()], expected, "{about}");
    let is_denied = answer.result == Outcome::Denied;
    assert_eq!(response["allowed"], !is_denied, "{about}: only what is wrong with the pod holds it up");
    assert!(answer.result != Outcome::Error || response["warnings"][0].is_string(), "{about}: a fault is told");
    assert!(answer.body.len() < 16 << 20, "{about}: the answer is bounded");
}

#[test]
fn every_reason_has_a_word_of_its_own() {
    let mut words: Vec<&str> = Reason::ALL.map(Reason::as_str).to_vec();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Reason::ALL.len());
}
