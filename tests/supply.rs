//! Supply: what weir is made of is what is written of it. The dependencies are those of docs/dependencies.md, the tests that
//! SECURITY.md names are there, and no line of weir's own is unsafe.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Where `Cargo.toml` lists what, and which part of the page that is. What is optional is in the part of its feature.
const SECTIONS: [(&str, &str); 4] = [
    ("[dependencies]", "Always"),
    ("[target.'cfg(target_env = \"musl\")'.dependencies]", "Only with musl"),
    ("[build-dependencies]", "Only for building"),
    ("[dev-dependencies]", "Only for tests"),
];
/// The part of the page that lists none.
const LAST: &str = "What could go";

/// Names, by the part of the page that has them.
type Parts = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines of a section of a file of Cargo's.
fn section<'a>(manifest: &'a str, head: &str) -> impl Iterator<Item = &'a str> {
    let after = manifest.split_once(&format!("\n{head}\n")).map_or("", |(_, after)| after);
    after.lines().take_while(|line| !line.starts_with('['))
}

fn in_manifest() -> Parts {
    let manifest = text("Cargo.toml");
    let mut feature_of = BTreeMap::new();
    for line in section(&manifest, "[features]") {
        let Some((feature, _)) = line.split_once(" = ") else { continue };
        for named in line.split('"').filter_map(|word| word.strip_prefix("dep:")) {
            feature_of.insert(named.to_owned(), format!("With `{feature}`"));
        }
    }
    let mut parts = Parts::new();
    for (head, part) in SECTIONS {
        for line in section(&manifest, head) {
            let Some((name, what)) = line.split_once(" = ") else { continue };
            let optional = what.contains("optional = true").then(|| feature_of.get(name).cloned()).flatten();
            let part = optional.unwrap_or_else(|| part.to_owned());
            assert!(parts.entry(part).or_default().insert(name.to_owned()), "{name} is there twice");
        }
    }
    parts
}

fn on_page() -> Parts {
    let page = text("docs/dependencies.md");
    let mut parts = Parts::new();
    for part in page.split("\n## ").skip(1) {
        let (head, body) = part.split_once('\n').expect("a heading ends");
        if head == LAST {
            continue;
        }
        for row in body.lines().filter_map(|line| line.strip_prefix("| `")) {
            let cells: Vec<_> = row.trim_end_matches(" |").split(" | ").collect();
            assert!(cells.len() == 5 && cells.iter().all(|cell| !cell.is_empty()), "a row of five: {row}");
            parts.entry(head.to_owned()).or_default().insert(cells[0].trim_end_matches('`').to_owned());
        }
    }
    parts
}

#[test]
fn every_dependency_has_its_reason() {
    assert_eq!(on_page(), in_manifest(), "docs/dependencies.md, and Cargo.toml");
}

#[test]
fn every_test_that_is_named_exists() {
    let named = Regex::new(r"`((?:tests|src|fuzz)/[\w./]+\.(?:rs|py))::(\w+)`").expect("a pattern");
    let page = text("SECURITY.md");
    let mut faults = Vec::new();
    for (_, [file, name]) in named.captures_iter(&page).map(|found| found.extract()) {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        if !["fn ", "def "].iter().any(|word| source.contains(&format!("{word}{name}("))) {
            faults.push(format!("{file} has no {name}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let rows = page.split_once("## Threats, answers, tests").expect("the section").1;
    let unproven = rows.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() != 2);
    assert_eq!(unproven.collect::<Vec<_>>(), [] as [&str; 0], "rows of three");
}

/// Whoever writes a hostile test says which threat it is of.
#[test]
fn every_hostile_test_is_named() {
    let page = text("SECURITY.md");
    let test = Regex::new(r"#\[(?:tokio::)?test\]\n(?:async )?fn (\w+)\(").expect("a pattern");
    let mut files = Vec::new();
    sources(&root().join("tests/it"), &mut files);
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hostile")));
    files.push(root().join("tests/fuzz.rs"));
    assert!(files.len() > 5, "{files:?}");
    let unnamed: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let file_in_here = file.strip_prefix(root()).expect("a file of this repository").display().to_string();
            let source = fs::read_to_string(file).expect("a source");
            let names: Vec<String> = test.captures_iter(&source).map(|found| found[1].to_owned()).collect();
            assert!(!names.is_empty(), "{file_in_here} has none");
            names.into_iter().map(move |name| format!("`{file_in_here}::{name}`"))
        })
        .filter(|named| !page.contains(named))
        .collect();
    assert!(unnamed.is_empty(), "SECURITY.md does not name {}", unnamed.join("\n"));
}

#[test]
fn nothing_here_is_unsafe() {
    assert!(section(&text("Cargo.toml"), "[lints.rust]").any(|line| line == "unsafe_code = \"forbid\""));
    // The lint is the compiler's word for all of this package; the programs that are fuzzed are another.
    let word = Regex::new(r"\bunsafe\b\s*(\{|fn|impl|trait|extern|\()").expect("a pattern");
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        sources(&root().join(folder), &mut files);
    }
    files.extend(["build.rs", "fuzz/any.rs", "fuzz/lib.rs"].map(|file| root().join(file)));
    for file in files.iter().filter(|file| !file.ends_with(file!())) {
        let source = fs::read_to_string(file).expect("a source");
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found: Vec<_> = code.filter(|line| word.is_match(line)).collect();
        assert!(found.is_empty(), "{}: {found:?}", file.display());
    }
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_oldest_compiler_is_said_once_and_the_same_everywhere() {
    let manifest = text("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("rust-version");
    let version = version.trim_matches('"');
    for page in ["README.md", "CONTRIBUTING.md", "docs/release.md"] {
        assert!(text(page).contains(&format!("{version} or later")), "{page} does not say Rust {version} or later");
    }
}
