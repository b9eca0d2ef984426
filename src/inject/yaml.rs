//! YAML: documents as they were written, to be written again. A scalar keeps its text and whether it was quoted, so that it
//! means the same to every reader, whatever version of YAML that knows: `yes`, `0123` and `1e3` are left as they are.
//! Comments are lost; anchors and merges (`<<`) are carried out.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use saphyr::{Scalar, ScalarStyle, Tag, Yaml, YamlLoader};
use saphyr_parser::Parser;
use serde_json::{Map, Number, Value};

use crate::yaml::{self, DEEPEST};

/// What stands in a tag encoded alone, as far as any tag needs it (YAML 1.2.2, section 5.6).
const NOT_OF_TAGS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b':').remove(b'@');

/// A value, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// A text without quotes, which may mean a number, `true` or nothing.
    Plain(String),
    /// A text, and nothing else.
    Text(String),
    /// A text over several lines, for people to read.
    Block(String),
    /// A list.
    List(Vec<Self>),
    /// A section.
    Section(Vec<(Self, Self)>),
    /// Something with a tag, such as `!!str`.
    Tagged(String, Box<Self>),
}

/// Reads all documents.
///
/// # Errors
/// With what is wrong, and the line of it.
pub(super) fn read(text: &str) -> Result<Vec<Node>, String> {
    if let Some(line) = yaml::too_deep(text) {
        return Err(format!("line {line}: more than {DEEPEST} levels: this is no manifest"));
    }
    let mut loader = YamlLoader::<Yaml<'_>>::default();
    loader.early_parse(false);
    let unreadable = |error: &saphyr::ScanError| {
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        format!("line {line}, column {column}: this is not YAML: {}", error.info())
    };
    Parser::new_from_str(text).load(&mut loader, true).map_err(|error| unreadable(&error))?;
    if let Some(error) = loader.error() {
        return Err(unreadable(error));
    }
    loader.into_documents().into_iter().map(convert).collect()
}

fn convert(yaml: Yaml<'_>) -> Result<Node, String> {
    Ok(match yaml {
        Yaml::Representation(text, style, tag) => {
            let text = text.into_owned();
            let node = match style {
                ScalarStyle::Plain => Node::Plain(text),
                ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Node::Text(text),
                ScalarStyle::Literal | ScalarStyle::Folded => Node::Block(text),
            };
            match tag {
                Some(tag) => Node::Tagged(written(&tag), Box::new(node)),
                None => node,
            }
        }
        Yaml::Sequence(items) => Node::List(items.into_iter().map(convert).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let entries = entries.into_iter().map(|(key, value)| Ok((convert(key)?, convert(value)?)));
            Node::Section(merged(entries.collect::<Result<_, String>>()?))
        }
        Yaml::Tagged(tag, inner) => Node::Tagged(written(&tag), Box::new(convert(*inner)?)),
        // An empty document.
        Yaml::BadValue => Node::Plain(String::new()),
        Yaml::Value(_) | Yaml::Alias(_) => return Err("an alias stands for itself: write what it means".to_owned()),
    })
}

/// `entries` with those that `<<` brings in, unless they are there.
fn merged(entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
    let (merges, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| *key == Node::Plain("<<".to_owned()));
    for (key, merge) in merges {
        let sections = match merge {
            Node::List(sections) if sections.iter().all(|one| matches!(one, Node::Section(_))) => sections,
            Node::Section(_) => vec![merge],
            other => {
                own.push((key, other));
                continue;
            }
        };
        for (key, value) in sections.into_iter().flat_map(Node::into_entries) {
            if own.iter().all(|(known, _)| known.text() != key.text()) {
                own.push((key, value));
            }
        }
    }
    own
}

fn written(tag: &Tag) -> String {
    // Read, it is decoded.
    let suffix = utf8_percent_encode(&tag.suffix, NOT_OF_TAGS);
    match tag.handle.as_str() {
        "tag:yaml.org,2002:" => format!("!!{suffix}"),
        "!" => format!("!{suffix}"),
        "" if tag.suffix == "!" => "!".to_owned(),
        handle => format!("!<{handle}{suffix}>"),
    }
}

impl Node {
    /// `value`, written anew.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(text) if is_word(text) => Self::Plain(text.clone()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(entries) => Self::Section(
                entries.iter().map(|(name, value)| (Self::of(&Value::from(name.as_str())), Self::of(value))).collect(),
            ),
            scalar => Self::Plain(scalar.to_string()),
        }
    }

    /// What it means, by the core schema of YAML 1.2.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Plain(text) => meaning(text),
            Self::Text(text) | Self::Block(text) => Value::from(text.as_str()),
            Self::List(items) => items.iter().map(Self::to_value).collect(),
            Self::Section(entries) => {
                let entries =
                    entries.iter().map(|(key, value)| (key.text().unwrap_or_default().to_owned(), value.to_value()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
            Self::Tagged(tag, inner) => match (tag.as_str(), inner.text()) {
                ("!!str" | "!", Some(text)) => Value::from(text),
                _ => inner.to_value(),
            },
        }
    }

    /// What is in here under `name`.
    pub(super) fn child(&mut self, name: &str) -> Option<&mut Self> {
        match self {
            Self::Section(entries) => {
                entries.iter_mut().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
            }
            Self::List(items) => items.get_mut(name.parse::<usize>().ok()?),
            Self::Tagged(_, inner) => inner.child(name),
            Self::Plain(_) | Self::Text(_) | Self::Block(_) => None,
        }
    }

    /// Puts `value` in here under `name`: over what is there in a section, between what is there in a list. `None` if there
    /// is no such place.
    pub(super) fn add(&mut self, name: &str, value: Self) -> Option<()> {
        match self {
            Self::Section(entries) => match entries.iter_mut().find(|(key, _)| key.text() == Some(name)) {
                Some((_, known)) => *known = value,
                None => entries.push((Self::of(&Value::from(name)), value)),
            },
            Self::List(items) => {
                let index = if name == "-" { items.len() } else { name.parse().ok()? };
                (index <= items.len()).then(|| items.insert(index, value))?;
            }
            Self::Tagged(_, inner) => inner.add(name, value)?,
            Self::Plain(_) | Self::Text(_) | Self::Block(_) => return None,
        }
        Some(())
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) | Self::Text(text) | Self::Block(text) => Some(text),
            Self::Tagged(_, inner) => inner.text(),
            Self::List(_) | Self::Section(_) => None,
        }
    }

    fn into_entries(self) -> Vec<(Self, Self)> {
        match self {
            Self::Section(entries) => entries,
            _ => Vec::new(),
        }
    }
}

/// What a text without quotes means. Where there is none, nothing: YAML 1.2, section 10.3.2.
fn meaning(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Null => Value::Null,
        Scalar::Boolean(truth) => Value::from(truth),
        Scalar::Integer(number) => Value::from(number),
        Scalar::FloatingPoint(number) => {
            Number::from_f64(number.into_inner()).map_or_else(|| Value::from(text), Value::Number)
        }
        Scalar::String(text) => Value::from(text.as_ref()),
    }
}

/// Whether `text` without quotes means itself to every reader.
fn is_word(text: &str) -> bool {
    const OTHERWISE: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    text.bytes().all(fits)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && !OTHERWISE.contains(&text.to_ascii_lowercase().as_str())
}

/// All documents as one text.
pub(super) fn write(documents: &[Node]) -> String {
    let written = documents.iter().map(|document| {
        let mut writer = Writer::default();
        writer.document(document);
        writer.0
    });
    written.collect::<Vec<_>>().join("---\n")
}

/// Text that grows.
#[derive(Debug, Default)]
struct Writer(String);

impl Writer {
    fn document(&mut self, node: &Node) {
        match node {
            Node::List(_) | Node::Section(_) if !is_empty(node) => self.collection(node, 0),
            other => {
                self.after(other, 0, 0);
                // What stands behind a name begins with a space.
                self.0.remove(0);
            }
        }
    }

    /// Writes a list or a section whose first line begins here, `indent` characters from the left.
    fn collection(&mut self, node: &Node, indent: usize) {
        match node {
            Node::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.begin(index, indent);
                    self.0.push('-');
                    self.within(item, indent);
                }
            }
            Node::Section(entries) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    self.begin(index, indent);
                    self.entry(key, value, indent);
                }
            }
            _ => unreachable!("only lists and sections have lines of their own"),
        }
    }

    fn begin(&mut self, index: usize, indent: usize) {
        if index > 0 {
            self.indent(indent);
        }
    }

    fn entry(&mut self, key: &Node, value: &Node, indent: usize) {
        // "An implicit key … must not span more than 1024 characters" (YAML 1.2.2, section 7.4).
        const LONGEST_KEY: usize = 128;
        if let Some(key) = inline(key).filter(|key| key.len() <= LONGEST_KEY) {
            self.0.push_str(&key);
            self.0.push(':');
            // A list may stand as far left as the name of it.
            let inner = if matches!(value, Node::List(_)) { indent } else { indent + 2 };
            self.after(value, indent, inner);
        } else {
            self.0.push('?');
            self.within(key, indent);
            self.indent(indent);
            self.0.push(':');
            self.within(value, indent);
        }
    }

    /// Writes what stands behind a dash.
    fn within(&mut self, node: &Node, indent: usize) {
        match node {
            Node::List(_) | Node::Section(_) if !is_empty(node) => {
                self.0.push(' ');
                self.collection(node, indent + 2);
            }
            other => self.after(other, indent, indent + 2),
        }
    }

    /// Writes what stands behind a name; a list or a section begins on the next line, `inner` from the left.
    fn after(&mut self, node: &Node, indent: usize, inner: usize) {
        match node {
            Node::Tagged(tag, tagged) => {
                write!(self.0, " {tag}").expect("a string takes all");
                self.after(tagged, indent, indent + 2);
            }
            Node::List(_) | Node::Section(_) if !is_empty(node) => {
                self.0.push('\n');
                self.indent(inner);
                self.collection(node, inner);
            }
            Node::Block(text) if is_readable(text) => {
                self.0.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
                for line in text.lines() {
                    if !line.is_empty() {
                        self.indent(indent + 2);
                        self.0.push_str(line);
                    }
                    self.0.push('\n');
                }
            }
            other => {
                let text = inline(other).unwrap_or_default();
                writeln!(self.0, " {text}").expect("a string takes all");
            }
        }
    }

    fn indent(&mut self, indent: usize) {
        self.0.extend(std::iter::repeat_n(' ', indent));
    }
}

fn is_empty(node: &Node) -> bool {
    match node {
        Node::List(items) => items.is_empty(),
        Node::Section(entries) => entries.is_empty(),
        _ => false,
    }
}

/// `node` on one line, if it has room there.
fn inline(node: &Node) -> Option<String> {
    match node {
        // Nothing, which would leave a name without a value.
        Node::Plain(text) if text.is_empty() => Some("null".to_owned()),
        Node::Plain(text)
            if text.starts_with(INDICATORS)
                || text.chars().any(is_special)
                || text.starts_with("---")
                || text.starts_with("...") =>
        {
            Some(quoted(text))
        }
        Node::Plain(text) => Some(text.clone()),
        Node::Text(text) | Node::Block(text) => Some(quoted(text)),
        Node::List(items) if items.is_empty() => Some("[]".to_owned()),
        Node::Section(entries) if entries.is_empty() => Some("{}".to_owned()),
        Node::Tagged(tag, inner) => Some(format!("{tag} {}", inline(inner)?)),
        Node::List(_) | Node::Section(_) => None,
    }
}

/// What no text without quotes begins with (YAML 1.2.2, section 7.3.3). Within braces it is read all the same; outside of them
/// it would mean something.
const INDICATORS: &[char] = &[',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`'];

/// Whether `text` as a block of lines reads back as it is.
fn is_readable(text: &str) -> bool {
    let begins_plainly = text.chars().next().is_some_and(|first| !first.is_whitespace());
    let is_line = |line: &str| line.is_empty() || !line.trim().is_empty();
    let ends_once = !text.ends_with("\n\n");
    begins_plainly
        && ends_once
        && text.split('\n').all(is_line)
        && !text.chars().any(|one| one != '\n' && is_special(one))
}

/// Whether `one` can only be written as an escape: a control character, a break of lines to some readers, a mark of order.
fn is_special(one: char) -> bool {
    one.is_control() || matches!(one, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// `text` in double quotes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for one in text.chars() {
        match one {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            special if is_special(special) => {
                write!(quoted, "\\u{:04x}", u32::from(special)).expect("a string takes all");
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_is_written_as_it_was() {
        for text in [
            "a: yes\nb: \"yes\"\nc: 1e3\nd: 0123\ne: ~\nf: null\ng: \"\"\nh: 0x1F\ni: 12:30:45\nj: .inf\nk: -0\nl: 1_000\n",
            "a:\n- b: 1\n  c:\n  - d\n  - - e\n    - f\n- {}\n- []\n",
            "a: |\n  one\n\n   two # not a comment\n  three\nb: |-\n  x\n  y\n",
            "a: !!str 123\nb: !Ref x\nc: !!binary aGk=\n",
            "\"a b\": 1\n\"\": 2\n1: 3\ntrue: 4\n",
            "a: b\n---\nc: d\n---\n- e\n",
            "plain\n",
            "[]\n",
            "a: \"tab\\tand \\\"quotes\\\" and \\\\ and \\u0007 and \\u2028\"\n",
            "? - a\n  - b\n: c\n",
        ] {
            assert_eq!(write(&read(text).expect(text)), text);
        }
    }

    #[test]
    fn other_ways_of_writing_mean_the_same() {
        for (text, written) in [
            ("{a: [1, 'it''s', \"x\"], b: {}}", "a:\n- 1\n- \"it's\"\n- \"x\"\nb: {}\n"),
            ("a: one\n  two\n\n  three\n", "a: \"one two\\nthree\"\n"),
            ("a: >\n  one\n  two\n", "a: |\n  one two\n"),
            ("a: |\n\n  b\n", "a: \"\\nb\\n\"\n"),
            ("a: |+\n  b\n\n", "a: \"b\\n\\n\"\n"),
            ("a: |2\n   b\n", "a: \" b\\n\"\n"),
            ("a:\nb: \n", "a: null\nb: null\n"),
            (
                "x: &x {a: 1, b: 2}\ny: *x\nz:\n  <<: *x\n  b: 3\n",
                "x:\n  a: 1\n  b: 2\ny:\n  a: 1\n  b: 2\nz:\n  b: 3\n  a: 1\n",
            ),
            ("---\na: 1\n---\n---\nb: 2\n...\n", "a: 1\n---\nnull\n---\nb: 2\n"),
            ("%YAML 1.1\n---\na: on\n", "a: on\n"),
            ("# only a comment\n", ""),
            ("a: !b%22c d\n", "a: !b%22c d\n"),
            // Where it is no text at all, readers differ.
            ("{a: >>b, c: |d}", "a: \">>b\"\nc: \"|d\"\n"),
        ] {
            let read_again = write(&read(text).expect(text));
            assert_eq!(read_again, written, "{text}");
            assert_eq!(write(&read(&read_again).expect(written)), written, "{text}");
        }
    }

    #[test]
    fn values_are_written_so_that_they_read_back() {
        for value in [
            json!({ "a": "yes", "b": "1", "c": "x y", "d": "", "e": null, "f": [1, 2.5, true], "g": {}, "no": "n" }),
            json!([
                "a: b", "# c", "- d", "{e}", "'f'", "\"g\"", "*h", "&i", "!j", "%k", "@l", "`m`", "|", ">", "a\nb\n"
            ]),
            json!("http://127.0.0.1:9347/openai/v1"),
            json!("{\"version\":\"1\"}"),
            json!(u64::MAX),
        ] {
            let text = write(&[Node::of(&value)]);
            let documents = read(&text).expect("it is YAML");
            let expected = if value == json!(u64::MAX) { json!(1.844_674_407_370_955_2e19) } else { value };
            assert_eq!(documents[0].to_value(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_left_out_is_null_before_and_after_it_is_written() {
        let documents = read("a:\nb: \"\"\n").expect("it is YAML");
        let expected = json!({ "a": null, "b": "" });
        assert_eq!(documents[0].to_value(), expected);
        assert_eq!(read(&write(&documents)).expect("it is YAML")[0].to_value(), expected);
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        for (text, expected) in [
            ("a: 1\nb: [\n", "line 3"),
            ("a: 1\na: 2\n", "line 2, column 1: this is not YAML: duplicated key in mapping"),
            ("a: *b\n", "line 1"),
        ] {
            let message = read(text).expect_err(text);
            assert!(message.starts_with(expected), "{text}: {message}");
        }
        let deep = format!("{}x", "- ".repeat(1000));
        assert!(read(&deep).expect_err("too deep").contains("128 levels"));
    }
}
