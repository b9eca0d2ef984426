//! Pattern: what names look like, and which one is meant. One way to write it wherever an operator tells some calls from
//! others. Knows nothing of what the names name.

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

/// The one of `names` that `word` most likely means, if one is near.
#[must_use]
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in three letters still reads as the same word; more is another word.
    let allowed = (word.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_it_means_and_another_word_finds_none() {
        let names = ["max_entries", "max_bytes", "mode", "ttl"];
        for (word, expected) in [
            ("max_entrys", Some("max_entries")),
            ("Mode", Some("mode")),
            ("mod", Some("mode")),
            ("tl", Some("ttl")),
            ("lifetime", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
    }
}
