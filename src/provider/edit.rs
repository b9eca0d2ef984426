//! Edit: a JSON object with one member set, and every other byte as it was.
//!
//! The text is cut at the member and put together again; nothing of it is written anew. Knows no API.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object, unread. No two have one name.
#[derive(Debug)]
pub(super) struct Members<'a> {
    object: &'a str,
    by_name: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

impl<'a> Members<'a> {
    /// Those of the object that `json` is. `None` if it is none, or if a name is there twice: what counts then is for
    /// whoever reads it to say.
    pub(super) fn of(json: &'a [u8]) -> Option<Self> {
        let object = std::str::from_utf8(json).ok()?;
        let ByName(by_name) = serde_json::from_str(object).ok()?;
        Some(Self { object, by_name })
    }

    /// What the member is, as it is written.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.by_name.get(name).map(|value| value.get())
    }

    /// The object with its member `name` set to `value`, which is JSON: in place if it is there, else at the end.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let Self { object, by_name } = self;
        if let Some(old) = by_name.get(name) {
            // A raw value is a slice of the text it was read from.
            let start = old.get().as_ptr().addr() - object.as_ptr().addr();
            let end = start + old.get().len();
            return [&object[..start], value, &object[end..]].concat();
        }
        let comma = if by_name.is_empty() { "" } else { "," };
        let close = object.rfind('}').expect("an object ends with a brace");
        [&object[..close], comma, "\"", name, "\":", value, &object[close..]].concat()
    }
}

struct ByName<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for ByName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = ByName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ByName<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name twice"));
                    }
                }
                Ok(ByName(members))
            }
        }

        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_is_set_and_no_other_byte_changes() {
        for (rule, object, expected) in [
            (
                "in place",
                "{\"b\":1.0,\n \"a\" : [2e1] , \"c\":\"\\u00e4\"}\n",
                "{\"b\":1.0,\n \"a\" : true , \"c\":\"\\u00e4\"}\n",
            ),
            ("at the end", "{ \"b\":{\"a\":1} }", "{ \"b\":{\"a\":1} ,\"a\":true}"),
            ("nothing else there", " {} ", " {\"a\":true} "),
            ("an escaped name is the same name", r#"{"\u0061":0}"#, r#"{"\u0061":true}"#),
        ] {
            let members = Members::of(object.as_bytes()).expect("an object");
            assert_eq!(members.with("a", "true"), expected, "{rule}");
        }
    }

    #[test]
    fn what_is_no_object_or_could_be_two_is_not_edited() {
        for json in
            [&b"[]"[..], b"{", b"", b"{} {}", b"{\"a\":\"\x01\"}", b"{\"a\":\"\xff\"}", br#"{"a":1,"\u0061":2}"#]
        {
            assert!(Members::of(json).is_none(), "{}", json.escape_ascii());
        }
    }
}
