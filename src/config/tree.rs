//! Tree: all that was written, wherever it was, as one tree of values that remembers where each came from.
//!
//! Knows the shape of [`File`]; not what makes sense in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::config::file::File;
use crate::config::knob::{Kind, Knob};
use crate::config::mistake::{Mistake, Origin, Path, Step, listed, shown};
use crate::config::yaml;
use crate::pattern::nearest;

/// Which version of all names a file may say that it is written for: the only one there is.
const VERSION: &str = "weir.dev/v1alpha1";
/// Where it says so.
const VERSION_NAME: &str = "apiVersion";

/// All that was written.
#[derive(Debug)]
pub(super) struct Tree {
    root: Value,
    origins: BTreeMap<Path, Origin>,
}

impl Tree {
    /// Nothing was written.
    pub(super) fn empty() -> Self {
        Self { root: Value::Object(Map::new()), origins: BTreeMap::new() }
    }

    /// These values, which were written nowhere.
    pub(super) fn of(mut root: Value) -> Self {
        leave_out_nulls(&mut root);
        Self { root, origins: BTreeMap::new() }
    }

    /// What stands in a file called `name`.
    ///
    /// # Errors
    /// With the mistake, if it is not one YAML document.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self, Mistake> {
        let name: Arc<str> = name.into();
        let origin = |line| Origin::File { name: Arc::clone(&name), line: Some(line) };
        let (mut root, lines) = yaml::document(text).map_err(|unreadable| Mistake {
            origin: origin(unreadable.line),
            path: Path::default(),
            message: unreadable.message,
        })?;
        fill_blanks(&mut root, Knob::root());
        Ok(Self { root, origins: lines.into_iter().map(|(path, line)| (path, origin(line))).collect() })
    }

    /// Lays what `over` holds over this: sections name by name, everything else whole.
    pub(super) fn lay(&mut self, over: Self) {
        let replaced = lay(&mut self.root, over.root, &Path::default());
        self.origins.retain(|known, _| !replaced.iter().any(|path| known.is_within(path)));
        self.origins.extend(over.origins);
    }

    /// Leaves out the version that a file says it is written for, and notes it if it is another one.
    pub(super) fn leave_out_version(&mut self, left_out: &mut Vec<Mistake>) {
        let Some(version) = self.root.as_object_mut().and_then(|root| root.remove(VERSION_NAME)) else { return };
        if version != VERSION {
            let message = format!("is not `{VERSION}`, which this weir knows: names may mean something else");
            let path = Path::of([VERSION_NAME]);
            left_out.push(Mistake { origin: self.origin(&path), path, message });
        }
    }

    /// Leaves out the names that lead to no knob, and notes them.
    pub(super) fn leave_out_unknown(&mut self, left_out: &mut Vec<Mistake>) {
        self.leave_out_version(left_out);
        let mut unknown = Vec::new();
        leave_out(&mut self.root, Knob::root(), &Path::default(), &mut unknown);
        left_out.extend(unknown.into_iter().map(|path| {
            let message = explain_unknown(&path);
            Mistake { origin: self.origin(&path), path, message }
        }));
    }

    /// Where what stands at `path` was written, or the nearest thing that holds it.
    pub(super) fn origin(&self, path: &Path) -> Origin {
        let mut path = path.clone();
        loop {
            if let Some(origin) = self.origins.get(&path) {
                return origin.clone();
            }
            match path.split_last() {
                Some((holder, _)) => path = holder,
                None => return Origin::Default,
            }
        }
    }

    /// The knob that a path by names leads to, and its path. A name that the operator chose may be written with `_`
    /// for `-` and in any case, because a variable's name cannot hold everything a provider's can.
    pub(super) fn locate(&self, names: &[String]) -> Option<(Path, Knob)> {
        let (mut path, mut knob, mut node) = (Path::default(), Knob::root(), Some(&self.root));
        for name in names {
            let section = node.and_then(Value::as_object);
            let name = match (knob.kind(), section) {
                (Kind::Names, Some(section)) => section.keys().find(|key| folded(key) == folded(name)).unwrap_or(name),
                _ => name,
            };
            knob = knob.child(name)?;
            path = path.name(name);
            node = section.and_then(|section| section.get(name));
        }
        Some((path, knob))
    }

    /// Puts `value` at `path`, a path by names, over what was written there before.
    pub(super) fn set(&mut self, path: &Path, value: Value, origin: Origin) {
        self.origins.retain(|known, _| !known.is_within(path));
        self.origins.insert(path.clone(), origin);
        let mut node = &mut self.root;
        for step in path.steps() {
            if !node.is_object() {
                *node = Value::Object(Map::new());
            }
            if let (Step::Name(name), Some(section)) = (step, node.as_object_mut()) {
                node = section.entry(name.as_str()).or_insert(Value::Null);
            } else {
                return;
            }
        }
        *node = value;
    }

    /// What was written, as far as it has the right shape; the rest is noted in `mistakes` and left out.
    pub(super) fn file(&mut self, mistakes: &mut Vec<Mistake>) -> File {
        // Serde takes a list for a section, item by item in the order of the fields: never what was meant.
        for path in misfits(&self.root, Knob::root(), &Path::default()) {
            self.leave_out(path, "", mistakes);
        }
        loop {
            let error = match serde_path_to_error::deserialize::<_, File>(&self.root) {
                Ok(file) => return file,
                Err(error) => error,
            };
            self.leave_out(path_of(error.path()), &error.inner().to_string(), mistakes);
        }
    }

    /// Notes what is wrong at `path`, for serde's `reason`, and removes it.
    fn leave_out(&mut self, path: Path, reason: &str, mistakes: &mut Vec<Mistake>) {
        let message = explain(&path, self.find(&path), reason);
        mistakes.push(Mistake { origin: self.origin(&path), message, path: path.clone() });
        self.remove(path);
    }

    fn find(&self, path: &Path) -> &Value {
        path.steps().iter().fold(&self.root, |node, step| match step {
            Step::Name(name) => &node[name.as_str()],
            Step::Position(position) => &node[*position],
        })
    }

    /// Removes what stands at `path`. An item takes its list with it: without it, the others would change position and
    /// be reported wrongly.
    fn remove(&mut self, mut path: Path) {
        while let Some((holder, last)) = path.split_last() {
            let node = holder.steps().iter().try_fold(&mut self.root, |node, step| match step {
                Step::Name(name) => node.get_mut(name),
                Step::Position(position) => node.get_mut(*position),
            });
            if let (Some(Value::Object(section)), Step::Name(name)) = (node, last)
                && section.remove(name).is_some()
            {
                return;
            }
            path = holder;
        }
        self.root = Value::Object(Map::new());
    }
}

/// A name without a value means its default, as it does when everything below it is commented out; nothing, where that is
/// something else than the default.
fn fill_blanks(node: &mut Value, knob: Knob) {
    if node.is_null() && matches!(knob.kind(), Kind::Section | Kind::Names) {
        *node = Value::Object(Map::new());
    }
    if let (Kind::List, Value::Array(items)) = (knob.kind(), &mut *node) {
        for item in items {
            fill_blanks(item, knob.item());
        }
    }
    let Some(section) = node.as_object_mut() else { return };
    section.retain(|name, value| {
        // A blank behind an unknown name stays, so that the name is reported.
        let Some(child) = knob.child(name) else { return true };
        fill_blanks(value, child);
        !value.is_null() || child.may_be_nothing()
    });
}

/// Lays `over` over `node`, which stands at `path`; the paths of all that is no more as it was.
fn lay(node: &mut Value, over: Value, path: &Path) -> Vec<Path> {
    match (node, over) {
        (Value::Object(section), Value::Object(over)) => {
            let mut replaced = Vec::new();
            for (name, over) in over {
                let path = path.name(&name);
                replaced.append(&mut lay(section.entry(name).or_insert(Value::Null), over, &path));
            }
            replaced
        }
        (node, over) => {
            *node = over;
            vec![path.clone()]
        }
    }
}

/// What is null was not written.
fn leave_out_nulls(node: &mut Value) {
    match node {
        Value::Object(section) => {
            section.retain(|_, value| !value.is_null());
            section.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

/// Removes the names below `node` that lead to no knob. Their paths go to `unknown`.
fn leave_out(node: &mut Value, knob: Knob, path: &Path, unknown: &mut Vec<Path>) {
    match (knob.kind(), node) {
        (Kind::Section | Kind::Names, Value::Object(section)) => section.retain(|name, value| {
            let path = path.name(name);
            match knob.child(name) {
                Some(child) => leave_out(value, child, &path, unknown),
                None => unknown.push(path),
            }
            knob.child(name).is_some()
        }),
        (Kind::List, Value::Array(items)) => {
            for (position, item) in items.iter_mut().enumerate() {
                leave_out(item, knob.item(), &path.position(position), unknown);
            }
        }
        _ => {}
    }
}

/// The paths of what stands where a section belongs and is none.
fn misfits(node: &Value, knob: Knob, path: &Path) -> Vec<Path> {
    match (knob.kind(), node) {
        (Kind::Section | Kind::Names, Value::Object(section)) => {
            let children = section.iter().filter_map(|(name, node)| Some((name, node, knob.child(name)?)));
            children.flat_map(|(name, node, child)| misfits(node, child, &path.name(name))).collect()
        }
        (Kind::List, Value::Array(items)) => {
            let items = items.iter().enumerate();
            items.flat_map(|(position, item)| misfits(item, knob.item(), &path.position(position))).collect()
        }
        (Kind::Section | Kind::Names, _) => vec![path.clone()],
        _ => Vec::new(),
    }
}

/// A chosen name as it is compared with a variable's.
fn folded(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

fn path_of(path: &serde_path_to_error::Path) -> Path {
    path.iter().fold(Path::default(), |path, segment| match segment {
        Segment::Seq { index } => path.position(*index),
        Segment::Map { key } | Segment::Enum { variant: key } => path.name(key),
        Segment::Unknown => path,
    })
}

fn knob_at(path: &Path) -> Option<Knob> {
    path.steps().iter().try_fold(Knob::root(), |knob, step| match step {
        Step::Name(name) => knob.child(name),
        Step::Position(_) => Some(knob.item()),
    })
}

/// What is wrong with `value` at `path`, and what mends it. `reason` is serde's word on it.
fn explain(path: &Path, value: &Value, reason: &str) -> String {
    let Some(knob) = knob_at(path) else { return explain_unknown(path) };
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = shown(&text);
    match (knob.kind(), value) {
        (Kind::Section | Kind::Names, _) => {
            format!("a section is expected, not {}: write names below it", kind_of(value))
        }
        (Kind::List, _) => format!("a list is expected, not {}: write [a, b]", kind_of(value)),
        (_, Value::Array(_) | Value::Object(_)) => format!("one value is expected, not {}", kind_of(value)),
        (Kind::Choice, Value::Number(number)) if knob.choices().any(|choice| choice == number.to_string()) => {
            format!("{text} reads as {}, not as text: put it in quotes", kind_of(value))
        }
        (Kind::Choice, _) => explain_choice(knob, value, &text),
        (Kind::Boolean, _) => format!("{text} is neither true nor false: write true or false"),
        (Kind::Number, Value::Number(_)) if reason.contains("is not a share") => reason.to_owned(),
        (Kind::Number, _) => format!("{text} is not a whole number: write one such as 100"),
        (Kind::Text, Value::String(_)) if reason.starts_with("invalid socket address") => {
            format!("{text} is not an address: write an IP address and a port, such as 127.0.0.1:9347")
        }
        (Kind::Text, Value::Bool(_) | Value::Number(_)) => {
            format!("{text} reads as {}, not as text: put it in quotes", kind_of(value))
        }
        (Kind::Quantity, Value::Bool(_) | Value::Number(_)) if reason.starts_with("invalid type") => {
            let expected = reason.rsplit("expected ").next().unwrap_or_default();
            format!("{text} is not {expected}")
        }
        (_, Value::String(hidden)) if text == "this value" => reason.replace(&format!("`{hidden}`"), &text),
        _ => reason.to_owned(),
    }
}

fn explain_unknown(path: &Path) -> String {
    let Some((holder, Step::Name(name))) = path.split_last() else { return "unknown name".to_owned() };
    let known: Vec<&str> = knob_at(&holder).into_iter().flat_map(Knob::children).map(|(name, _)| name).collect();
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("unknown name: did you mean `{meant}`?"),
        None => format!("unknown name: write one of {}", listed(known)),
    }
}

fn explain_choice(knob: Knob, value: &Value, text: &str) -> String {
    let choices = listed(knob.choices());
    match value.as_str().and_then(|word| nearest(word, knob.choices())) {
        Some(meant) => format!("{text} is not one of {choices}: did you mean `{meant}`?"),
        None => format!("{text} is not one of {choices}: write one of them"),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
    }
}
