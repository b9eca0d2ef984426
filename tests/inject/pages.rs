//! Pages: docs/inject.md lists what there is.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use weir::inject::family::Family;
use weir::inject::review::{Outcome, Reason};
use weir::inject::variables::SIDECARS;
use weir::inject::wishes::ANNOTATIONS;
use weir::inject::{PREFIX, answer};

use crate::{response, review, settings};

#[test]
fn the_page_lists_what_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/inject.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let mut current = page.clone();
    for (name, table) in [("annotations", annotations()), ("variables", variables()), ("reasons", reasons())] {
        current = replaced(&current, name, &table);
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &current).expect("writable");
    } else {
        assert!(page == current, "docs/inject.md is not current: run UPDATE_EXPECT=1 cargo test --test inject");
    }
    for sidecar in SIDECARS {
        assert!(page.contains(&format!("`{sidecar}`")), "docs/inject.md does not name the sidecar {sidecar}");
    }
}

#[test]
fn every_annotation_that_is_listed_is_heard() {
    for annotation in ANNOTATIONS {
        let name = format!("{PREFIX}{}", annotation.name);
        let pod =
            json!({ "metadata": { "annotations": { &name: "" } }, "spec": { "containers": [{ "name": "app" }] } });
        let answer = answer(review(&pod).to_string().as_bytes(), &settings(&json!({})));
        let refusal = response(&answer)["status"]["message"].to_string();
        assert!(refusal.contains(&name), "{name}: nothing is not what it says: {refusal}");
        assert!(!refusal.contains("unknown annotation"), "{name} is listed, and not heard: {refusal}");
    }
}

/// `page` with `table` between the marks of `name`.
fn replaced(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&begin).expect("the mark of its beginning");
    let (_, after) = rest.split_once(&end).expect("the mark of its end");
    format!("{before}{begin}{table}{end}{after}")
}

fn annotations() -> String {
    let mut table = "| annotation | without it | what it says |\n|---|---|---|\n".to_owned();
    for annotation in ANNOTATIONS {
        let (name, default, meaning) = (annotation.name, annotation.default, annotation.meaning);
        writeln!(table, "| `{PREFIX}{name}` | {default} | {meaning} |").expect("a string takes all");
    }
    table
}

fn variables() -> String {
    let mut table = "| family | variables | what they say | key in a Secret |\n|---|---|---|---|\n".to_owned();
    for family in Family::ALL {
        let names: Vec<String> = family.variables().iter().map(|name| format!("`{name}`")).collect();
        let key = family.key().map_or("none".to_owned(), |key| format!("`{key}`"));
        let (name, url) = (family.as_str(), family.url(9347));
        writeln!(table, "| `{name}` | {} | `{url}` | {key} |", names.join(", ")).expect("a string takes all");
    }
    table
}

fn reasons() -> String {
    let code = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let (results, reasons) = (Outcome::ALL.map(Outcome::as_str), Reason::ALL.map(Reason::as_str));
    format!("`result` is one of {}; `reason` is one of {}.\n", code(&results), code(&reasons))
}
