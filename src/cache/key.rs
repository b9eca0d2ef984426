//! Key: equal requests by equal credentials in one namespace have equal keys, and no others do.
//!
//! SHA-256 over tagged, length-prefixed parts, so that no two different inputs run into the same bytes. JSON is taken
//! by value: order of members, white space, and the spelling of numbers and strings do not matter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json_borrow::{ObjectAsVec, Value};
use sha2::{Digest, Sha256};

/// Changes whenever the meaning of a key does, so that no old entry answers a new question.
const VERSION: u8 = 1;

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
    /// Where it goes: method and full URL.
    pub target: &'a [&'a [u8]],
    /// Names and values of the credentials the app sent, which keep tenants apart.
    pub credentials: &'a [(&'a [u8], &'a [u8])],
    /// Names and values of the headers that change the answer or its form.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The request's body.
    pub body: &'a Value<'a>,
    /// Top-level members of the body that are known not to change the answer.
    pub ignored: &'a [&'a str],
}

impl Key {
    /// The key of `question`.
    #[must_use]
    pub fn of(question: &Question<'_>) -> Self {
        let mut hash = Canonical(Sha256::new_with_prefix([VERSION]));
        hash.optional(question.namespace.map(str::as_bytes));
        hash.bytes(question.provider.as_bytes());
        hash.list(question.target);
        hash.pairs(question.credentials);
        hash.pairs(question.headers);
        match question.body {
            Value::Object(members) => hash.object(members, question.ignored),
            other => hash.value(other),
        }
        Self(hash.0.finalize().into())
    }
}

/// Feeds values into the hash so that different values are different bytes.
struct Canonical(Sha256);

impl Canonical {
    fn tag(&mut self, tag: u8) {
        self.0.update([tag]);
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
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

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Null => self.tag(b'z'),
            Value::Bool(false) => self.tag(b'f'),
            Value::Bool(true) => self.tag(b't'),
            Value::Number(_) => self.number(value),
            Value::Str(text) => {
                self.tag(b's');
                self.bytes(text.as_bytes());
            }
            Value::Array(items) => {
                self.tag(b'[');
                self.count(items.len());
                for item in items {
                    self.value(item);
                }
            }
            Value::Object(members) => self.object(members, &[]),
        }
    }

    /// A whole number is the same number however it is written: `1`, `1.0`, `10e-1`. Beyond 2⁵³ a float no longer
    /// names one whole number, and stays a float.
    #[expect(clippy::cast_possible_truncation, reason = "only whole numbers below 2^53 are converted")]
    fn number(&mut self, value: &Value<'_>) {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let whole = value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
        let float = value.as_f64().unwrap_or_default();
        match whole {
            Some(whole) => self.whole(whole),
            None if float.fract() == 0.0 && float.abs() < EXACT => self.whole(i128::from(float as i64)),
            None => {
                self.tag(b'd');
                self.0.update(float.to_bits().to_le_bytes());
            }
        }
    }

    fn whole(&mut self, number: i128) {
        self.tag(b'i');
        self.0.update(number.to_le_bytes());
    }

    fn object(&mut self, members: &ObjectAsVec<'_>, ignored: &[&str]) {
        let mut members: Vec<_> = members.iter().filter(|(name, _)| !ignored.contains(name)).collect();
        // Stable: of members with one name, which JSON leaves undefined, the order is part of the key.
        members.sort_by_key(|(name, _)| *name);
        self.tag(b'{');
        self.count(members.len());
        for (name, value) in members {
            self.bytes(name.as_bytes());
            self.value(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(body: &str) -> Key {
        key(body, Some("team"), &[(b"authorization", b"Bearer a")])
    }

    fn key(body: &str, namespace: Option<&str>, credentials: &[(&[u8], &[u8])]) -> Key {
        let body: Value<'_> = serde_json::from_str(body).expect("JSON");
        Key::of(&Question {
            namespace,
            provider: "openai",
            target: &[b"POST", b"https://api.openai.com", b"/v1/chat/completions"],
            credentials,
            headers: &[],
            body: &body,
            ignored: &["user"],
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
            r#"{"model":"m"}"#,
            r#"{"model":"M"}"#,
            r#"{"model":null}"#,
            r#"{"model":["m"]}"#,
            r#"{"model":{"m":1}}"#,
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
}
