//! Key: equal requests by equal credentials in one namespace have equal keys, and no others do.
//!
//! SHA-256 over tagged parts of announced length, so that no two different inputs run into the same bytes. JSON is taken
//! by value: order of members, white space, and the spelling of numbers and strings do not matter; but a body with a
//! number that a parser does not keep exactly is taken as it is spelt as well. How deep a value goes is bounded by its
//! parser: `serde_json` takes no text deeper than 128.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json_borrow::{Number, ObjectAsVec, Value};
use sha2::{Digest, Sha256};

use crate::cache::decimal::{self, Decimal};
use crate::record::call::Form;

/// Changes whenever the meaning of a key does, so that no old entry answers a new question.
const VERSION: u8 = 2;

/// Names one stored answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl fmt::Display for Key {
    /// 64 hexadecimal digits, as [`Key::from_str`] reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits")]
pub struct NoKey;

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let mut key = [0; 32];
        if text.len() != 2 * key.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoKey);
        }
        for (position, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * position..2 * position + 2], 16).map_err(|_| NoKey)?;
        }
        Ok(Self(key))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// All that makes a request what it is.
#[derive(Debug)]
pub struct Question<'a> {
    /// The caller's namespace.
    pub namespace: Option<&'a str>,
    /// The provider's configured name.
    pub provider: &'a str,
    /// Where it goes: the parts of its URL.
    pub target: &'a [&'a [u8]],
    /// Names and values of the credentials the app sent, which keep tenants apart.
    pub credentials: &'a [(&'a [u8], &'a [u8])],
    /// Names and values of the headers that change the answer or its form.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The request's body, as it is spelt.
    pub text: &'a [u8],
    /// The same, parsed.
    pub body: &'a Value<'a>,
    /// What of the body is known not to change the answer, in ascending order, by its place: `user` is that member of
    /// the body; `tools[].cache_control` that member of each item of `tools`; `system[cachePoint]` each item of `system`
    /// that has this member and no other. Nothing is left out by its name alone, wherever it stands.
    pub ignored: &'a [&'a str],
}

impl Key {
    /// The key of `question`.
    #[must_use]
    pub fn of(question: &Question<'_>) -> Self {
        Self::without(question, None)
    }

    /// The key of all that `question` says but `text`, which is one of the strings of its body: that very string, not
    /// others that read the same.
    #[must_use]
    pub fn of_context(question: &Question<'_>, text: &str) -> Self {
        Self::without(question, Some(text))
    }

    fn without(question: &Question<'_>, left_out: Option<&str>) -> Self {
        let mut canonical = Canonical { hash: Sha256::new_with_prefix([VERSION]), members: Vec::new(), left_out };
        canonical.optional(question.namespace.map(str::as_bytes));
        canonical.bytes(question.provider.as_bytes());
        canonical.list(question.target);
        canonical.pairs(question.credentials);
        canonical.pairs(question.headers);
        canonical.value(question.body, Ignored::of(question.ignored));
        canonical.optional((!decimal::are_kept(question.text)).then_some(question.text));
        Self(canonical.hash.finalize().into())
    }

    /// The key under which the answer to this question is stored in one form. The question itself leaves out what only
    /// says the form.
    #[must_use]
    pub fn in_form(&self, form: Form) -> Self {
        let form = match form {
            Form::Whole => b'w',
            Form::Stream => b's',
            Form::StreamWithUsage => b'u',
            Form::StreamWithoutUsage => b'o',
            Form::Array => b'a',
        };
        Self(Sha256::new_with_prefix([VERSION, form]).chain_update(self.0).finalize().into())
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What is to be left out of one value: the places whose first `read` bytes led to it.
#[derive(Clone, Copy)]
pub(super) struct Ignored<'a> {
    places: &'a [&'a str],
    read: usize,
}

impl<'a> Ignored<'a> {
    const NOTHING: Self = Self { places: &[], read: 0 };

    /// What is to be left out of a body, where `places` are those of [`Question::ignored`].
    pub(super) const fn of(places: &'a [&'a str]) -> Self {
        Self { places, read: 0 }
    }

    /// Whether an object's member of this name is left out.
    pub(super) fn has_member(self, name: &str) -> bool {
        self.ends_with(|rest| rest == name && is_plain(name))
    }

    /// Whether an array's item is left out: one that has a member of some name, and no other.
    pub(super) fn has_item(self, item: &Value<'_>) -> bool {
        let Some(members) = item.as_object().filter(|members| members.len() == 1) else { return false };
        members.iter().all(|(name, _)| self.ends_with(|rest| rest.strip_suffix(']') == Some(name) && is_plain(name)))
    }

    fn ends_with(self, is_end: impl Fn(&str) -> bool) -> bool {
        self.places.iter().any(|place| is_end(&place[self.read..]))
    }

    /// What is to be left out of an object's member `name`.
    pub(super) fn of_member(self, name: &str, value: &Value<'_>) -> Self {
        match value {
            Value::Object(_) if is_plain(name) => self.behind(name, b'.'),
            Value::Array(_) if is_plain(name) => self.behind(name, b'['),
            _ => Self::NOTHING,
        }
    }

    /// What is to be left out of an array's item.
    pub(super) fn of_item(self, item: &Value<'_>) -> Self {
        if item.is_object() { self.behind("]", b'.') } else { Self::NOTHING }
    }

    /// The places that go on with `step` and a sign: neighbours, as places are in ascending order.
    fn behind(self, step: &str, sign: u8) -> Self {
        let goes_on = |place: &&str| {
            let rest = &place.as_bytes()[self.read..];
            rest.get(step.len()) == Some(&sign) && rest.starts_with(step.as_bytes())
        };
        let Some(first) = self.places.iter().position(&goes_on) else { return Self::NOTHING };
        let places = &self.places[first..];
        let count = places.iter().take_while(|place| goes_on(place)).count();
        Self { places: &places[..count], read: self.read + step.len() + 1 }
    }
}

/// Whether a name has no sign that means something in a place; no field of an API has one.
fn is_plain(name: &str) -> bool {
    !name.contains(['.', '[', ']'])
}

/// Feeds values into the hash so that different values are different bytes.
struct Canonical<'a> {
    hash: Sha256,
    /// Members of the objects that lead to the value at hand, sorted by name, object by object.
    members: Vec<(&'a str, &'a Value<'a>)>,
    /// The string of which only its place counts.
    left_out: Option<&'a str>,
}

impl<'a> Canonical<'a> {
    fn tag(&mut self, tag: u8) {
        self.hash.update([tag]);
    }

    fn count(&mut self, count: usize) {
        self.hash.update((count as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.hash.update(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.tag(u8::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default());
    }

    fn list(&mut self, items: &[&[u8]]) {
        self.count(items.len());
        for item in items {
            self.bytes(item);
        }
    }

    fn pairs(&mut self, pairs: &[(&[u8], &[u8])]) {
        self.count(pairs.len());
        for (name, value) in pairs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn value(&mut self, value: &'a Value<'a>, ignored: Ignored<'_>) {
        match value {
            Value::Null => self.tag(b'z'),
            Value::Bool(false) => self.tag(b'f'),
            Value::Bool(true) => self.tag(b't'),
            Value::Number(number) => self.number(*number),
            Value::Str(text) if self.left_out.is_some_and(|left_out| std::ptr::eq(left_out, text.as_ref())) => {
                self.tag(b'?');
            }
            Value::Str(text) => {
                self.tag(b's');
                self.bytes(text.as_bytes());
            }
            Value::Array(items) => self.array(items, ignored),
            Value::Object(members) => self.object(members, ignored),
        }
    }

    fn number(&mut self, number: Number) {
        let Decimal { is_negative, digits, exponent } = Decimal::of(number);
        self.tag(if is_negative { b'-' } else { b'+' });
        self.hash.update(digits.to_le_bytes());
        self.hash.update(exponent.to_le_bytes());
    }

    fn array(&mut self, items: &'a [Value<'a>], ignored: Ignored<'_>) {
        let items = items.iter().filter(|item| !ignored.has_item(item));
        self.tag(b'[');
        self.count(items.clone().count());
        for item in items {
            self.value(item, ignored.of_item(item));
        }
    }

    fn object(&mut self, members: &'a ObjectAsVec<'a>, ignored: Ignored<'_>) {
        let first = self.members.len();
        self.members.extend(members.iter().filter(|(name, _)| !ignored.has_member(name)));
        // Stable: of members with one name, which JSON leaves undefined, the order is part of the key.
        self.members[first..].sort_by_key(|(name, _)| *name);
        self.tag(b'{');
        self.count(self.members.len() - first);
        for at in first..self.members.len() {
            let (name, value) = self.members[at];
            self.bytes(name.as_bytes());
            self.value(value, ignored.of_member(name, value));
        }
        self.members.truncate(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IGNORED: &[&str] = &[
        "messages[].content[].cache_control",
        "messages[].content[].content[].cache_control",
        "messages[].content[cachePoint]",
        "toolConfig.tools[cachePoint]",
        "tools[].cache_control",
        "user",
    ];

    fn key_of(body: &str) -> Key {
        key(body, Some("team"), &[(b"authorization", b"Bearer a")])
    }

    fn key(text: &str, namespace: Option<&str>, credentials: &[(&[u8], &[u8])]) -> Key {
        let body: Value<'_> = serde_json::from_str(text).expect("JSON");
        Key::of(&Question {
            namespace,
            provider: "openai",
            target: &[b"POST", b"https://api.openai.com", b"/v1/chat/completions"],
            credentials,
            headers: &[],
            text: text.as_bytes(),
            body: &body,
            ignored: IGNORED,
        })
    }

    #[test]
    fn spelling_does_not_matter() {
        let plain = key_of(r#"{"model":"m","n":1,"t":0.5,"stop":["é\n"]}"#);
        for same in [
            r#"{"n":1,"model":"m","t":0.5,"stop":["é\n"]}"#,
            "{ \"model\" : \"m\",\n\t\"n\":1, \"t\":0.5, \"stop\":[\"é\\n\"] }",
            r#"{"model":"m","n":1.0,"t":5e-1,"stop":["\u00e9\u000a"]}"#,
            r#"{"mo\u0064el":"m","n":1,"t":0.50,"stop":["é\n"],"user":"someone"}"#,
        ] {
            assert_eq!(key_of(same), plain, "{same}");
        }
    }

    #[test]
    fn any_other_difference_does() {
        let bodies = [
            "null",
            "[]",
            "{}",
            r#"{"model":"m"}"#,
            r#"{"model":"M"}"#,
            r#"{"model":"m\u0000"}"#,
            r#"{"model":null}"#,
            r#"{"model":["m"]}"#,
            r#"{"model":{"m":1}}"#,
            r#"{"model":"m","model":"n"}"#,
            r#"{"model":"n","model":"m"}"#,
            r#"{"model":"m","a":null}"#,
            r#"{"model":"m","a":false}"#,
            r#"{"model":"m","a":0}"#,
            r#"{"model":"m","a":-1}"#,
            r#"{"model":"m","a":0.1}"#,
            r#"{"model":"m","a":"0"}"#,
            r#"{"model":"m","a":[]}"#,
            r#"{"model":"m","a":{}}"#,
            r#"{"model":"m","a":[[1],2]}"#,
            r#"{"model":"m","a":[1,[2]]}"#,
            r#"{"model":"m","a":18446744073709551615}"#,
            r#"{"model":"m","a":18446744073709551614}"#,
            r#"{"model":"m","a":18446744073709551616}"#,
            r#"{"model":"m","a":18446744073709551617}"#,
            r#"{"model":"m","a":0.10000000000000000001}"#,
            r#"{"model":"m","a":0.10000000000000000002}"#,
            r#"{"model":"m","a":1e-400}"#,
            r#"{"model":"m","a":{"user":"x"}}"#,
            r#"{"model":"m","a":{"user":"y"}}"#,
        ];
        for (i, one) in bodies.iter().enumerate() {
            for other in &bodies[i + 1..] {
                assert_ne!(key_of(one), key_of(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn a_key_is_read_back_as_it_is_written() {
        let key = key_of("{}");
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        for no_key in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"+0".repeat(32), &"é".repeat(32)] {
            assert_eq!(no_key.parse::<Key>(), Err(NoKey), "{no_key}");
        }
    }

    #[test]
    fn what_is_left_out_is_left_out_at_its_place() {
        for (with, without) in [
            (r#"{"user":"a"}"#, "{}"),
            (r#"{"tools":[{"cache_control":1,"name":"a"},{"name":"b"}]}"#, r#"{"tools":[{"name":"a"},{"name":"b"}]}"#),
            (r#"{"messages":[{"content":[{"cache_control":{}}]}]}"#, r#"{"messages":[{"content":[{}]}]}"#),
            (
                r#"{"messages":[{"content":[{"text":"a"},{"content":[{"cache_control":null}]}]}]}"#,
                r#"{"messages":[{"content":[{"text":"a"},{"content":[{}]}]}]}"#,
            ),
            (
                r#"{"messages":[{"content":[{"text":"a"},{"cachePoint":{"type":"default"}}]}]}"#,
                r#"{"messages":[{"content":[{"text":"a"}]}]}"#,
            ),
            (r#"{"toolConfig":{"tools":[{"cachePoint":{}},1]}}"#, r#"{"toolConfig":{"tools":[1]}}"#),
        ] {
            assert_eq!(key_of(with), key_of(without), "{with}");
        }
    }

    #[test]
    fn what_has_the_name_of_something_left_out_counts_elsewhere() {
        for (one, other) in [
            (r#"{"a":{"user":1}}"#, r#"{"a":{}}"#),
            (r#"{"messages":[{"user":1}]}"#, r#"{"messages":[{}]}"#),
            (r#"{"cache_control":1}"#, "{}"),
            (r#"{"tools":{"cache_control":1}}"#, r#"{"tools":{}}"#),
            (r#"{"tools":[[{"cache_control":1}]]}"#, r#"{"tools":[[{}]]}"#),
            (r#"{"tools":[{"schema":{"cache_control":1}}]}"#, r#"{"tools":[{"schema":{}}]}"#),
            (r#"{"messages":[{"content":{"cache_control":1}}]}"#, r#"{"messages":[{"content":{}}]}"#),
            (
                r#"{"messages":[{"content":[{"input":{"cache_control":1}}]}]}"#,
                r#"{"messages":[{"content":[{"input":{}}]}]}"#,
            ),
            (
                r#"{"messages":[{"content":[{"cachePoint":1,"text":"a"}]}]}"#,
                r#"{"messages":[{"content":[{"text":"a"}]}]}"#,
            ),
            (r#"{"messages":[{"content":[["cachePoint"]]}]}"#, r#"{"messages":[{"content":[]}]}"#),
            (r#"{"toolConfig":{"tools":{"cachePoint":1}}}"#, r#"{"toolConfig":{"tools":{}}}"#),
            (r#"{"toolConfig":[{"tools":[{"cachePoint":1}]}]}"#, r#"{"toolConfig":[{"tools":[]}]}"#),
            // A text that is taken as it is spelt is taken whole.
            (r#"{"user":1e-400}"#, "{}"),
            // Names that read like places.
            (r#"{"tools[].cache_control":1}"#, "{}"),
            (r#"{"messages[].content":[{"cache_control":1}]}"#, r#"{"messages[].content":[{}]}"#),
            (r#"{"messages":[{"].content[cachePoint":1}]}"#, r#"{"messages":[]}"#),
            (r#"{"toolConfig.tools":[{"cachePoint":1}]}"#, r#"{"toolConfig.tools":[]}"#),
        ] {
            assert_ne!(key_of(one), key_of(other), "{one}");
        }
    }

    #[test]
    fn a_context_is_all_but_that_very_text() {
        let context = |text: &str, namespace| {
            let body: Value<'_> = serde_json::from_str(text).expect("JSON");
            let question = Question {
                namespace,
                provider: "openai",
                target: &[],
                credentials: &[],
                headers: &[],
                text: text.as_bytes(),
                body: &body,
                ignored: IGNORED,
            };
            let left_out = body.get("text").as_str().expect("a text");
            (Key::of_context(&question, left_out), Key::of(&question))
        };
        let (plain, key) = context(r#"{"model":"m","text":"a","also":"a"}"#, None);
        assert_ne!(plain, key);
        for same in
            [r#"{"model":"m","text":"b","also":"a"}"#, r#"{"also":"\u0061","text":"\n","model":"m","user":"u"}"#]
        {
            assert_eq!(context(same, None).0, plain, "{same}");
        }
        for other in [r#"{"model":"m","text":"a","also":"b"}"#, r#"{"model":"n","text":"a","also":"a"}"#] {
            assert_ne!(context(other, None).0, plain, "{other}");
        }
        assert_ne!(context(r#"{"model":"m","text":"a","also":"a"}"#, Some("team")).0, plain);
    }

    #[test]
    fn namespaces_and_credentials_are_kept_apart() {
        let keys = [
            key("{}", None, &[(b"n", b"a")]),
            key("{}", Some(""), &[(b"n", b"a")]),
            key("{}", Some("a"), &[(b"n", b"")]),
            key("{}", Some("a"), &[(b"n", b"a")]),
            key("{}", Some("a"), &[(b"na", b"")]),
            key("{}", Some("a"), &[(b"n", b"a"), (b"m", b"")]),
            key("{}", Some("a"), &[]),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(one));
        }
    }

    #[test]
    fn a_key_reads_as_64_digits() {
        let key = key_of("{}");
        assert_eq!(key.to_string().len(), 64);
        assert_eq!(key.to_string()[..2], format!("{:02x}", key.as_bytes()[0]));
    }
}
