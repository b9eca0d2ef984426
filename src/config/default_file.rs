//! Default file: every knob with what it does and its default, as YAML. Made from the JSON Schema and the defaults, so
//! that a new knob appears by itself.
//!
//! Names no knob.

use serde_json::{Map, Value};

use crate::config::file::File;
use crate::config::knob::{Kind, Knob};
use crate::config::mistake::listed;
use crate::config::yaml;

/// The longest line of a comment.
const WIDTH: usize = 100;

const HEAD: &str = "\
# weir's configuration: every knob, and its default. Write only what you change.
#
# Each knob is also an environment variable, which wins over this file: WEIR_CACHE__MODE=off is
# cache.mode. Flags win over both. See docs/config.md. Made by `weir config default`.
";

/// The commented default file.
#[must_use]
pub fn default_file() -> String {
    let defaults = File::default().to_value();
    let mut text = HEAD.to_owned();
    for (name, knob) in Knob::root().children() {
        text.push('\n');
        for line in entry(name, knob, &defaults[name], Place { width: WIDTH, in_comment: false }) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// Where a knob stands in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The longest line of a comment here.
    width: usize,
    /// Whether all of it becomes a comment, so that what has no value need not.
    in_comment: bool,
}

impl Place {
    /// Two characters further right: in a section, or behind a `#`.
    fn indented(self) -> Self {
        Self { width: self.width - 2, ..self }
    }

    /// In a comment.
    fn commented(self) -> Self {
        Self { in_comment: true, ..self.indented() }
    }
}

/// The lines of one knob: what it does, then its name and value. Without a value, they are a comment.
fn entry(name: &str, knob: Knob, value: &Value, place: Place) -> Vec<String> {
    let mut lines = wrapped(&description(knob), place.width);
    if is_blank(knob, value) && !place.in_comment {
        lines.extend(body(name, knob, value, place.commented()).iter().map(|line| commented(line)));
    } else {
        lines.extend(body(name, knob, value, place));
    }
    lines
}

/// What a knob does, and what it may be if the doc comment does not say that itself.
fn description(knob: Knob) -> String {
    let said = knob.description();
    let choices: Vec<&str> = knob.choices().collect();
    if choices.iter().all(|choice| said.contains(&format!("`{choice}`"))) {
        return said.to_owned();
    }
    format!("{said} One of {}.", listed(choices))
}

/// The lines of one knob, without what it does.
fn body(name: &str, knob: Knob, value: &Value, place: Place) -> Vec<String> {
    match knob.kind() {
        Kind::Section => {
            let value = if value.is_null() { knob.example() } else { value };
            let children = knob.children().flat_map(|(name, child)| entry(name, child, &value[name], place.indented()));
            [format!("{name}:")].into_iter().chain(children.map(|line| indented(&line))).collect()
        }
        Kind::Names => named(name, knob, value, place),
        Kind::List if knob.item().kind() == Kind::Section => items(name, knob, place),
        _ if !value.is_null() => vec![format!("{name}: {}", yaml::write(value))],
        _ if !knob.example().is_null() => vec![format!("{name}: {}", yaml::write(knob.example()))],
        _ => vec![format!("{name}:")],
    }
}

/// The lines of a section in which the operator chooses the names: those there are by default, and an example that
/// says what may be written below each.
fn named(name: &str, knob: Knob, value: &Value, place: Place) -> Vec<String> {
    let mut lines = vec![format!("{name}:")];
    lines.extend(value.as_object().into_iter().flat_map(Map::keys).map(|name| format!("  {name}: {{}}")));
    for (name, example) in knob.example().as_object().into_iter().flatten() {
        let example = knob.child(name).map(|child| body(name, child, example, place.indented().commented()));
        lines.extend(example.iter().flatten().map(|line| indented(&commented(line))));
    }
    lines
}

/// The lines of a list of sections: an example that says what may be written in each.
fn items(name: &str, knob: Knob, place: Place) -> Vec<String> {
    let mut lines = vec![format!("{name}:")];
    for example in knob.example().as_array().into_iter().flatten() {
        let place = place.indented().indented();
        lines.push("  -".to_owned());
        let children = knob.item().children().flat_map(|(name, child)| entry(name, child, &example[name], place));
        lines.extend(children.map(|line| indented(&indented(&line))));
    }
    lines
}

/// Whether nothing is set here.
fn is_blank(knob: Knob, value: &Value) -> bool {
    match knob.kind() {
        Kind::Section => knob.children().all(|(name, child)| is_blank(child, &value[name])),
        Kind::List if knob.item().kind() == Kind::Section => value.as_array().is_none_or(Vec::is_empty),
        _ => value.is_null(),
    }
}

/// `text` as comment lines of at most `width` characters. Paragraphs are kept.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut line = "#".to_owned();
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::replace(&mut line, "#".to_owned()));
            }
            line.push(' ');
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

fn commented(line: &str) -> String {
    format!("# {line}")
}

fn indented(line: &str) -> String {
    format!("  {line}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::knob::made;
    use crate::config::tree::Tree;

    #[test]
    fn the_default_file_says_what_the_defaults_are() {
        let mut mistakes = Vec::new();
        let file = Tree::parse(&default_file(), "weir.yaml").expect("it is YAML").file(&mut mistakes);
        assert_eq!(mistakes, []);
        assert_eq!(file, File::default());
    }

    #[test]
    fn what_the_default_file_comments_out_may_be_written() {
        let text: String = default_file()
            .lines()
            .filter_map(|line| {
                let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
                let bare = rest.strip_prefix("# ").unwrap_or(rest);
                // A comment's comment stays one; prose has no `name:` at its beginning, nor is it a dash.
                let name = bare.trim_start().split_once(':').map(|(name, _)| name);
                let is_knob =
                    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
                (is_knob || bare.trim() == "-").then(|| format!("{indent}{bare}\n"))
            })
            .collect();
        let mut mistakes = Vec::new();
        let file = Tree::parse(&text, "weir.yaml").expect("it is YAML").file(&mut mistakes);
        assert_eq!(mistakes, [], "{text}");
        assert!(file.providers.contains_key("local") && !file.cache.rules.is_empty(), "{text}");
    }

    #[test]
    fn the_copies_for_reading_are_current() {
        let mut printed = serde_json::to_string_pretty(&made()).expect("it is JSON");
        printed.push('\n');
        for (name, current) in [("weir.default.yaml", default_file()), ("weir.schema.json", printed)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&path, &current).expect("docs can be written");
            }
            let copy = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(copy == current, "docs/{name} is not current: run UPDATE_EXPECT=1 cargo test --lib default_file");
        }
    }

    #[test]
    fn comments_are_wrapped_and_keep_their_paragraphs() {
        let text = format!("{}\n\nEnd.", "word ".repeat(30));
        let lines = wrapped(&text, WIDTH);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH && line.starts_with("# ")));
        assert_eq!(lines[2], "# End.");
    }
}
