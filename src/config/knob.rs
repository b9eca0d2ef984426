//! Knob: one thing that may be written in the configuration, as its JSON Schema describes it.
//!
//! The schema is made from the rooms' `Settings` and their doc comments; nothing here names a knob. Serves whoever
//! must know what exists: the environment, flags, messages, the default file.

use std::sync::LazyLock;

use serde_json::Value;

use crate::coding::unpacked;
use crate::config::yaml;
use crate::pattern::nearest;

/// The JSON Schema of the configuration, in one piece without references, as text: `docs/weir.schema.json`, which a test holds
/// against what the rooms' `Settings` say. A weir that made it would have the code for it, which is run once.
#[must_use]
pub fn schema() -> String {
    unpacked(include_bytes!(concat!(env!("OUT_DIR"), "/weir.schema.json.gz")))
}

/// The same, made from the rooms' `Settings`.
#[cfg(test)]
pub(super) fn made() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<super::file::File>().to_value()
}

#[cfg(not(test))]
fn read() -> Value {
    serde_json::from_str(&schema()).expect("a test wrote it")
}

// The room's own tests are of the `Settings` as they are now, not of the copy.
#[cfg(test)]
use made as read;

/// One thing that may be written: a section, a list or a scalar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knob {
    /// As the section that holds it describes it.
    outer: &'static Value,
    /// The same without the choice of leaving it out (`Option`).
    inner: &'static Value,
}

/// How a knob is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A section of known names.
    Section,
    /// A section of names that the operator chooses.
    Names,
    /// A list.
    List,
    /// One word of a few.
    Choice,
    /// A text.
    Text,
    /// A duration or a size, a number and a unit; or an amount of money.
    Quantity,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
}

impl Knob {
    /// The whole configuration.
    pub(super) fn root() -> Self {
        static SCHEMA: LazyLock<Value> = LazyLock::new(read);
        Self::new(&SCHEMA)
    }

    fn new(outer: &'static Value) -> Self {
        let some = outer["anyOf"].as_array().and_then(|shapes| shapes.iter().find(|shape| shape["type"] != "null"));
        Self { outer, inner: some.unwrap_or(outer) }
    }

    /// How it is written.
    pub(super) fn kind(self) -> Kind {
        if self.inner["properties"].is_object() {
            Kind::Section
        } else if self.inner["additionalProperties"].is_object() {
            Kind::Names
        } else if self.choices().next().is_some() {
            Kind::Choice
        } else if self.accepts("array") {
            Kind::List
        } else if self.accepts("string") && (self.accepts("integer") || self.accepts("number")) {
            Kind::Quantity
        } else if self.accepts("string") {
            Kind::Text
        } else if self.accepts("boolean") {
            Kind::Boolean
        } else {
            Kind::Number
        }
    }

    /// Whether nothing may be written here and is not the default.
    pub(super) fn may_be_nothing(self) -> bool {
        self.accepts("null") && !self.outer["default"].is_null()
    }

    /// What its doc comment says.
    pub(super) fn description(self) -> &'static str {
        self.outer["description"].as_str().unwrap_or_default()
    }

    /// The first example its `Settings` gives.
    pub(super) fn example(self) -> &'static Value {
        &self.outer["examples"][0]
    }

    /// The knobs of a [`Kind::Section`], by name.
    pub(super) fn children(self) -> impl Iterator<Item = (&'static str, Self)> {
        let properties = self.inner["properties"].as_object();
        properties.into_iter().flatten().map(|(name, outer)| (name.as_str(), Self::new(outer)))
    }

    /// The knob called `name` in here, if there may be one.
    pub(super) fn child(self, name: &str) -> Option<Self> {
        let named = self.inner["properties"].get(name);
        let any = Some(&self.inner["additionalProperties"]).filter(|shape| shape.is_object());
        named.or(any).map(Self::new)
    }

    /// What a [`Kind::List`] holds.
    pub(super) fn item(self) -> Self {
        Self::new(&self.inner["items"])
    }

    /// The words of a [`Kind::Choice`].
    pub(super) fn choices(self) -> impl Iterator<Item = &'static str> {
        let plain = self.inner["enum"].as_array().into_iter().flatten();
        let described = self.inner["oneOf"].as_array().into_iter().flatten().map(|choice| &choice["const"]);
        plain.chain(described).filter_map(Value::as_str)
    }

    /// Reads the value of an environment variable or a flag.
    ///
    /// # Errors
    /// With what is wrong, if it had to be YAML and is not.
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        match self.kind() {
            Kind::Choice | Kind::Text | Kind::Quantity => Ok(Value::from(text)),
            Kind::Boolean | Kind::Number => Ok(yaml::value(text).unwrap_or_else(|_| Value::from(text))),
            Kind::List if !text.trim_start().starts_with('[') => {
                text.split(',').map(|item| self.item().read(item.trim())).collect()
            }
            Kind::List | Kind::Section | Kind::Names => yaml::value(text),
        }
    }

    /// The path that most likely was meant by `names`, a path by names that leads nowhere.
    pub(super) fn nearest(names: &[String]) -> Option<Vec<String>> {
        let (last, holders) = names.split_last()?;
        let holder = holders.iter().try_fold(Self::root(), |knob, name| knob.child(name));
        let sibling = holder.and_then(|holder| nearest(last, holder.children().map(|(name, _)| name)));
        if let Some(sibling) = sibling {
            return Some(holders.iter().cloned().chain([sibling.to_owned()]).collect());
        }
        if holder.is_some() && !holders.is_empty() {
            return None;
        }
        // The way itself is wrong, or its parts are not held apart: `cache_mode`.
        let mut known = Vec::new();
        Self::root().collect_names(&mut Vec::new(), names, &mut known);
        let joined: Vec<String> = known.iter().map(|names| names.join("__")).collect();
        let found = nearest(&names.join("__"), joined.iter().map(String::as_str))?;
        joined.iter().position(|name| name == found).map(|index| known.swap_remove(index))
    }

    /// Collects the paths of all scalars and lists below; where the operator chooses names, the one in `typed` stands.
    fn collect_names(self, path: &mut Vec<String>, typed: &[String], known: &mut Vec<Vec<String>>) {
        let chosen = typed.get(path.len()).map_or("name", String::as_str).to_owned();
        match self.kind() {
            Kind::Section => {
                for (name, child) in self.children() {
                    path.push(name.to_owned());
                    child.collect_names(path, typed, known);
                    path.pop();
                }
            }
            Kind::Names => {
                if let Some(child) = self.child(&chosen) {
                    path.push(chosen);
                    child.collect_names(path, typed, known);
                    path.pop();
                }
            }
            _ => known.push(path.clone()),
        }
    }

    fn accepts(self, kind: &str) -> bool {
        match &self.inner["type"] {
            Value::Array(kinds) => kinds.iter().any(|one| one == kind),
            one => one == kind,
        }
    }
}
