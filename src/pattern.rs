//! Pattern: what names look like. One way to write it wherever an operator tells some calls from others. Knows nothing of
//! what the names name.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobSet};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What names look like: `*` stands for any characters, `?` for one, `[a-c]` for one of these, `{a,b}` for either.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    glob: GlobSet,
}

impl Pattern {
    /// Whether `name` looks so.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.glob.is_match(name)
    }
}

impl FromStr for Pattern {
    type Err = globset::Error;

    fn from_str(text: &str) -> Result<Self, globset::Error> {
        // Names of models have slashes in them, which mean nothing here.
        let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build()?;
        Ok(Self { text: text.into(), glob: GlobSet::new([glob])? })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "what names look like, such as gpt-5* or {team-a,team-b}" })
    }
}
