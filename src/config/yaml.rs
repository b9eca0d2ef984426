//! YAML: text → values, and the line on which each was written.
//!
//! Knows nothing of knobs.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Value};

use crate::config::mistake::Path;
use crate::yaml::{self, DEEPEST};

/// A document: its values, and on which line (from 1) each of them begins.
pub(super) type Document = (Value, BTreeMap<Path, usize>);

/// Why a text is no YAML document.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// The line of it, counted from 1.
    pub(super) line: usize,
    /// What is wrong there.
    pub(super) message: String,
}

/// Reads one YAML document. An empty one is null.
pub(super) fn document(text: &str) -> Result<Document, Unreadable> {
    if let Some(line) = yaml::too_deep(text) {
        return Err(Unreadable { line, message: format!("more than {DEEPEST} levels: this is no configuration") });
    }
    let nodes = MarkedYaml::load_from_str(text).map_err(|error| {
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        // The loader's words for a name that stands twice in one section; the position is the second one's.
        let message = match error.info() {
            "duplicated key in mapping" => {
                format!("column {column}: this name is already used in its section: remove one")
            }
            info => format!("column {column}: this is not YAML: {info}"),
        };
        Unreadable { line, message }
    })?;
    let mut lines = BTreeMap::new();
    match nodes.as_slice() {
        [] => Ok((Value::Null, lines)),
        [node] => convert(node, &Path::default(), &mut lines).map(|value| (value, lines)),
        [_, second, ..] => Err(Unreadable {
            line: second.span.start.line(),
            message: "a second document begins here: write one".into(),
        }),
    }
}

/// Reads the value of a variable or a flag that is written as YAML, such as `[a, b]`.
pub(super) fn value(text: &str) -> Result<Value, String> {
    document(text).map(|(value, _)| value).map_err(|unreadable| unreadable.message)
}

/// `value`, a scalar or a list of scalars, as YAML on one line.
pub(super) fn write(value: &Value) -> String {
    match value {
        // Plain where that reads back as the same text; quoted as JSON, which is YAML, elsewhere.
        Value::String(text) if self::value(text).is_ok_and(|read| read == *value) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn convert(node: &MarkedYaml<'_>, path: &Path, lines: &mut BTreeMap<Path, usize>) -> Result<Value, Unreadable> {
    // A name's line is kept, where there is a name: what it is given may begin on a later line.
    lines.entry(path.clone()).or_insert_with(|| node.span.start.line());
    Ok(match &node.data {
        YamlData::Value(scalar) => convert_scalar(scalar),
        YamlData::Sequence(items) => items
            .iter()
            .enumerate()
            .map(|(position, item)| convert(item, &path.position(position), lines))
            .collect::<Result<_, _>>()?,
        YamlData::Mapping(entries) => {
            let mut section = Map::new();
            for (key, value) in entries {
                let line = key.span.start.line();
                let name = match convert(key, &Path::default(), &mut BTreeMap::new())? {
                    Value::String(name) => name,
                    // As text, such a name in such a name would be twice as long for each level.
                    Value::Array(_) | Value::Object(_) => {
                        let message = "a name here is a list or a section: write a text".to_owned();
                        return Err(Unreadable { line, message });
                    }
                    other => other.to_string(),
                };
                let path = path.name(&name);
                lines.insert(path.clone(), line);
                section.insert(name, convert(value, &path, lines)?);
            }
            Value::Object(section)
        }
        YamlData::Tagged(_, inner) => convert(inner, path, lines)?,
        YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
            let message = "this value does not fit its tag: write it without the tag".to_owned();
            return Err(Unreadable { line: node.span.start.line(), message });
        }
    })
}

fn convert_scalar(scalar: &Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(truth) => Value::from(*truth),
        Scalar::Integer(number) => Value::from(*number),
        Scalar::FloatingPoint(number) => Value::from(number.into_inner()),
        Scalar::String(text) => Value::from(text.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_knows_the_line_of_its_name() {
        let (value, lines) = document("a: 1\nb:\n  c: [x,\n    y]\n").expect("it is YAML");
        assert_eq!(value, json!({ "a": 1, "b": { "c": ["x", "y"] } }));
        let c = Path::of(["b", "c"]);
        for (path, line) in [(Path::of(["a"]), 1), (Path::of(["b"]), 2), (c.clone(), 3), (c.position(1), 4)] {
            assert_eq!(lines[&path], line, "{path}");
        }
    }

    #[test]
    fn what_is_no_document_says_where() {
        for (text, line, message) in [
            ("a: 1\nb: 2\na: 3\n", 3, "column 1: this name is already used in its section: remove one"),
            ("a: 1\n---\nb: 2\n", 3, "a second document begins here: write one"),
            ("a: !!int x\n", 1, "this value does not fit its tag: write it without the tag"),
            ("a: 1\n? [b]\n: 2\n", 2, "a name here is a list or a section: write a text"),
            (&format!("a:\n {}", "- ".repeat(200)), 2, "more than 128 levels: this is no configuration"),
            (&"? ".repeat(100), 1, "a name here is a list or a section: write a text"),
        ] {
            let unreadable = document(text).expect_err("it is not a document");
            assert_eq!((unreadable.line, unreadable.message.as_str()), (line, message));
        }
        let unreadable = document("a:\n  - b\n c: d\n").expect_err("it is not YAML");
        assert_eq!(unreadable.line, 3);
        assert!(unreadable.message.starts_with("column 2: this is not YAML: "), "{}", unreadable.message);
    }

    #[test]
    fn scalars_are_written_so_that_they_read_back() {
        for (value, written) in [
            (json!("127.0.0.1:9347"), "127.0.0.1:9347"),
            (json!("off"), "off"),
            (json!("true"), "\"true\""),
            (json!("a: b"), "\"a: b\""),
            (json!(""), "\"\""),
            (json!(10_000), "10000"),
            (json!(["a", "b"]), "[\"a\", \"b\"]"),
        ] {
            assert_eq!(write(&value), written);
            assert_eq!(self::value(written).expect("it is YAML"), value);
        }
    }
}
