//! Tree: a provider's JSON, opened only where something is put in, taken out or joined. Every other value stays as it is
//! written, to the byte: members that nobody knows survive, and no number changes its spelling.
//!
//! Knows no API: what becomes of a member when pieces are joined is told by a table of rules.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::json;

/// Most members of an object that is opened. No API's have a tenth of it; members are found by looking at each.
const MAX_MEMBERS: usize = 256;

/// A value, as far as it was opened.
#[derive(Clone, Debug)]
pub(super) enum Json {
    /// As it is written.
    Written(Box<RawValue>),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Object),
}

/// An object: its members in their order. No two have one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Object(Vec<(Box<str>, Json)>);

/// What becomes of a member that an earlier piece and a later one both have. A null says nothing, and gives way to what
/// does. Where no rule is given, both have to say the same; of objects, each member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// Texts: one after the other.
    Text,
    /// Lists: one after the other.
    List,
    /// Objects of lists: each list after its namesake.
    Lists,
    /// The earlier holds, unless it is empty.
    First,
    /// The later holds.
    Last,
    /// Objects: each member of the later holds, unless it is null.
    Update,
    /// Neither: it means nothing once the pieces are joined, as padding does.
    Nothing,
}

/// Rules by the names of members.
pub(super) type Rules = [(&'static str, Join)];

impl Json {
    pub(super) fn null() -> Self {
        Self::Written(RawValue::NULL.to_owned())
    }

    pub(super) fn falsehood() -> Self {
        Self::Written(RawValue::FALSE.to_owned())
    }

    pub(super) fn truth() -> Self {
        Self::Written(RawValue::TRUE.to_owned())
    }

    pub(super) fn number(number: u64) -> Self {
        Self::written(number.to_string()).expect("digits are JSON")
    }

    /// What `text` spells, which has to be JSON.
    pub(super) fn written(text: String) -> Option<Self> {
        RawValue::from_string(text).ok().map(Self::Written)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Written(raw) if raw.get() == "null")
    }

    /// Whether it says anything: not null, false, zero, nor an empty text, list or object.
    pub(super) fn is_filled(&self) -> bool {
        match self {
            Self::Written(raw) => !matches!(raw.get(), "null" | "false" | "0" | "\"\"" | "[]" | "{}"),
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Object(object) => !object.is_empty(),
        }
    }

    /// The text it is, if it is one.
    pub(super) fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Written(raw) => serde_json::from_str(raw.get()).ok().map(Cow::Owned),
            Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The number it is, if it is a whole one.
    pub(super) fn as_number(&self) -> Option<u64> {
        match self {
            Self::Written(raw) => raw.get().parse().ok(),
            _ => None,
        }
    }

    /// Opens it as an object.
    pub(super) fn into_object(self) -> Option<Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::Written(raw) => Object::read(raw.get().as_bytes()),
            Self::Text(_) | Self::List(_) => None,
        }
    }

    /// Opens it as a list.
    pub(super) fn into_list(self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items),
            Self::Written(raw) => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(raw.get()).ok()?;
                Some(items.into_iter().map(Self::Written).collect())
            }
            Self::Text(_) | Self::Object(_) => None,
        }
    }

    /// It as JSON.
    pub(super) fn spelt(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// Joins `later` to it; `None` if the rule does not allow it.
    fn join(&mut self, later: Self, rule: Option<Join>) -> Option<()> {
        if later.is_null() {
            return Some(());
        }
        match rule {
            Some(Join::Nothing) => {}
            Some(Join::First) if self.is_filled() => {}
            Some(Join::First | Join::Last) => *self = later,
            _ if self.is_null() => *self = later.opened(rule)?,
            Some(Join::Text | Join::List) => {
                self.open(rule)?;
                match self {
                    Self::Text(text) => text.push_str(&later.as_text()?),
                    Self::List(items) => items.extend(later.into_list()?),
                    Self::Written(_) | Self::Object(_) => return None,
                }
            }
            Some(Join::Lists) => self.join_members(later, |_| Some(Join::List))?,
            Some(Join::Update) => self.join_members(later, |_| Some(Join::Last))?,
            None => {
                if !self.is_same(&later)? {
                    self.join_members(later, |_| None)?;
                }
            }
        }
        Some(())
    }

    /// Opens it in its place.
    fn open(&mut self, rule: Option<Join>) -> Option<()> {
        if matches!(self, Self::Written(_)) {
            *self = std::mem::replace(self, Self::null()).opened(rule)?;
        }
        Some(())
    }

    /// Opened as far as what is joined by `rule` has to be. `None` if it is of another kind.
    fn opened(self, rule: Option<Join>) -> Option<Self> {
        match rule {
            _ if self.is_null() => Some(self),
            Some(Join::Text) => self.as_text().map(|text| Self::Text(text.into_owned())),
            Some(Join::List) => self.into_list().map(Self::List),
            Some(Join::Lists) => {
                let Object(members) = self.into_object()?;
                let opened = |(name, value): (_, Self)| Some((name, value.opened(Some(Join::List))?));
                Some(Self::Object(Object(members.into_iter().map(opened).collect::<Option<_>>()?)))
            }
            _ => Some(self),
        }
    }

    fn join_members(&mut self, later: Self, rule: impl Fn(&str) -> Option<Join>) -> Option<()> {
        let mut object = std::mem::replace(self, Self::null()).into_object()?;
        object.join_by(later.into_object()?, rule)?;
        *self = Self::Object(object);
        Some(())
    }

    /// Whether both say the same, however they are spelt.
    fn is_same(&self, other: &Self) -> Option<bool> {
        let (one, other) = (self.spelt()?, other.spelt()?);
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
        Some(one == other || value(&one)? == value(&other)?)
    }
}

impl Object {
    /// The object that `json` is. `None` if it is none, is cut off, has a name twice or too many members.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        json::read(json)
    }

    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Json> {
        self.0.iter_mut().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }

    /// Whether the member is there and says anything.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(Json::is_filled)
    }

    /// Takes a member out.
    pub(super) fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(known, _)| &**known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Takes a member out that is an object.
    pub(super) fn take_object(&mut self, name: &str) -> Option<Self> {
        self.take(name)?.into_object()
    }

    /// Takes a member out that is a list. An absent one, or null, is an empty one.
    pub(super) fn take_list(&mut self, name: &str) -> Option<Vec<Json>> {
        self.take(name).filter(|value| !value.is_null()).map_or(Some(Vec::new()), Json::into_list)
    }

    /// Takes a member out that is a text.
    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        self.take(name)?.as_text().map(Cow::into_owned)
    }

    /// Takes a member out that is a whole number.
    pub(super) fn take_number(&mut self, name: &str) -> Option<u64> {
        self.take(name)?.as_number()
    }

    /// Takes the named members out, in the order of the names.
    pub(super) fn take_all(&mut self, names: &[&str]) -> Self {
        Self(names.iter().filter_map(|name| Some(((*name).into(), self.take(name)?))).collect())
    }

    /// Sets a member: in its place if it is there, else at the end.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Json>) {
        let value = value.into();
        match self.get_mut(name) {
            Some(known) => *known = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// With a member more.
    pub(super) fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.set(name, value);
        self
    }

    /// With a member more, if there is one.
    pub(super) fn with_any(self, name: &str, value: Option<Json>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With all members of `others`, which hold where both have one.
    pub(super) fn with_all(mut self, others: Self) -> Self {
        for (name, value) in others.0 {
            self.set(&name, value);
        }
        self
    }

    /// Something, unless what is left says anything: that would be lost.
    pub(super) fn nothing_left(&self) -> Option<()> {
        self.0.iter().all(|(_, value)| value.is_null()).then_some(())
    }

    /// Joins a later piece to it by `rules`. `None` if they do not allow it.
    pub(super) fn join(&mut self, later: Self, rules: &Rules) -> Option<()> {
        self.join_by(later, |name| rules.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule))
    }

    fn join_by(&mut self, later: Self, rule: impl Fn(&str) -> Option<Join>) -> Option<()> {
        for (name, value) in later.0 {
            let rule = rule(&name);
            match self.get_mut(&name) {
                Some(known) => known.join(value, rule)?,
                None if rule == Some(Join::Nothing) => {}
                None => self.0.push((name, value.opened(rule)?)),
            }
        }
        (self.0.len() <= MAX_MEMBERS).then_some(())
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Json {
    fn from(number: usize) -> Self {
        Self::number(number as u64)
    }
}

impl From<Vec<Self>> for Json {
    fn from(items: Vec<Self>) -> Self {
        Self::List(items)
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Written(raw) => raw.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => items.serialize(serializer),
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(&**name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object::new();
                while let Some((name, value)) = map.next_entry::<Box<str>, Box<RawValue>>()? {
                    if object.get(&name).is_some() || object.0.len() == MAX_MEMBERS {
                        return Err(A::Error::custom("a name twice, or too many members"));
                    }
                    object.0.push((name, Json::Written(value)));
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Object::read(json.as_bytes()).expect("an object")
    }

    #[test]
    fn what_is_not_opened_stays_as_it_is_written() {
        let odd = r#"{"a":1.50,"b":[ 1e400,{"c":"\u00e4"} ],"n":18446744073709551616}"#;
        assert_eq!(Json::from(object(odd)).spelt().as_deref(), Some(odd));
        let changed = object(odd).with("a", "x").with("z", 7);
        let expected = r#"{"a":"x","b":[ 1e400,{"c":"\u00e4"} ],"n":18446744073709551616,"z":7}"#;
        assert_eq!(Json::from(changed).spelt().as_deref(), Some(expected));
    }

    #[test]
    fn what_is_no_object_or_could_be_two_is_not_read() {
        let long = |count: usize| {
            let members: Vec<_> = (0..=count).map(|number| format!("\"{number}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        for (json, read) in [
            ("{}".to_owned(), true),
            ("{\"a\":1,\"a\":1}".to_owned(), false),
            ("[]".to_owned(), false),
            ("{\"a\":1".to_owned(), false),
            ("{} {}".to_owned(), false),
            (long(MAX_MEMBERS - 1), true),
            (long(MAX_MEMBERS), false),
        ] {
            assert_eq!(Object::read(json.as_bytes()).is_some(), read, "{json}");
        }
    }

    #[test]
    fn pieces_are_joined_by_the_rules_of_their_members() {
        const RULES: &Rules = &[
            ("text", Join::Text),
            ("list", Join::List),
            ("lists", Join::Lists),
            ("first", Join::First),
            ("last", Join::Last),
            ("update", Join::Update),
            ("padding", Join::Nothing),
        ];
        for (earlier, later, joined) in [
            (r#"{"text":"a"}"#, r#"{"text":"b\n"}"#, Some(r#"{"text":"ab\n"}"#)),
            (r#"{"text":null}"#, r#"{"text":"b"}"#, Some(r#"{"text":"b"}"#)),
            (r#"{"text":"a"}"#, r#"{"text":null}"#, Some(r#"{"text":"a"}"#)),
            (r#"{"text":"a"}"#, r#"{"text":["b"]}"#, None),
            (r#"{"text":["a"]}"#, r#"{"text":"b"}"#, None),
            (r#"{"text":null}"#, r#"{"text":["b"]}"#, None),
            ("{}", r#"{"text":1}"#, None),
            (r#"{"list":[1]}"#, r#"{"list":[2]}"#, Some(r#"{"list":[1,2]}"#)),
            (r#"{"list":[1]}"#, r#"{"list":2}"#, None),
            (
                r#"{"lists":{"a":[1],"b":null}}"#,
                r#"{"lists":{"a":[2],"b":[3]}}"#,
                Some(r#"{"lists":{"a":[1,2],"b":[3]}}"#),
            ),
            (r#"{"lists":{"a":[1]}}"#, r#"{"lists":{"a":"x"}}"#, None),
            (r#"{"first":""}"#, r#"{"first":"a"}"#, Some(r#"{"first":"a"}"#)),
            (r#"{"first":"a"}"#, r#"{"first":"b"}"#, Some(r#"{"first":"a"}"#)),
            (r#"{"last":"a"}"#, r#"{"last":null}"#, Some(r#"{"last":"a"}"#)),
            (r#"{"last":"a"}"#, r#"{"last":[]}"#, Some(r#"{"last":[]}"#)),
            (
                r#"{"update":{"a":1,"b":2}}"#,
                r#"{"update":{"a":null,"b":3,"c":4}}"#,
                Some(r#"{"update":{"a":1,"b":3,"c":4}}"#),
            ),
            (r#"{"padding":1}"#, r#"{"padding":2}"#, Some("{}")),
            (r#"{"unknown":1}"#, r#"{"unknown":1}"#, Some(r#"{"unknown":1}"#)),
            (r#"{"unknown":"é"}"#, r#"{"unknown":"\u00e9"}"#, Some(r#"{"unknown":"é"}"#)),
            (r#"{"unknown":1}"#, r#"{"unknown":2}"#, None),
            (r#"{"unknown":[1]}"#, r#"{"unknown":[1,2]}"#, None),
            (r#"{"unknown":{"a":1}}"#, r#"{"unknown":{"b":2}}"#, Some(r#"{"unknown":{"a":1,"b":2}}"#)),
            (r#"{"unknown":{"a":1}}"#, r#"{"unknown":{"a":2}}"#, None),
        ] {
            let mut piece = Object::new();
            let all = piece.join(object(earlier), RULES).and_then(|()| piece.join(object(later), RULES));
            let found = all.and_then(|()| Json::from(piece).spelt());
            assert_eq!(found.as_deref(), joined, "{earlier} and {later}");
        }
    }
}
