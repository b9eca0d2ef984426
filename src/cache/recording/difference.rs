//! Difference: where two requests first differ, and at how many places, told so that the developer of a test sees what
//! changed.
//!
//! Pure. Shows parts of prompts: what it says is for the app, never for a log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use http::HeaderMap;
use serde_json_borrow::Value;

use crate::cache::decimal::Decimal;
use crate::cache::key::Ignored;
use crate::cache::recording::Request;

/// The longest part of a text that is shown.
const SHOWN_CHARS: usize = 60;
/// How much of it stands before the first difference.
const LEAD_CHARS: usize = 20;

/// How one request differs from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// At how many places: each value of the JSON counts, as do the path, the query and each header field.
    pub places: usize,
    /// The first of them, and what was recorded and asked there. Empty if there is none.
    pub first: String,
}

impl Difference {
    /// The difference between a `recorded` request and one that is `asked`, to the same provider by the same method.
    /// What is `ignored` of the body, by its place as in a key, does not count.
    #[must_use]
    pub fn between(recorded: &Request, asked: &Request, ignored: &[&str]) -> Self {
        let mut found = Self::default();
        found.texts("path", Some(&recorded.path), Some(&asked.path));
        found.texts("query", recorded.query.as_deref(), asked.query.as_deref());
        found.headers(&recorded.headers, &asked.headers);
        let json = |request: &Request| serde_json::from_slice::<Value<'_>>(&request.body).is_ok();
        match (json(recorded), json(asked)) {
            (true, true) => found.bodies(&recorded.body, &asked.body, ignored),
            _ => found.bytes(&recorded.body, &asked.body),
        }
        found
    }

    fn note(&mut self, places: usize, tell: impl FnOnce() -> String) {
        if self.places == 0 {
            self.first = tell();
        }
        self.places += places;
    }

    fn texts(&mut self, place: impl Display, recorded: Option<&str>, asked: Option<&str>) {
        if recorded != asked {
            self.note(1, || told(place, &excerpt(recorded, asked), &excerpt(asked, recorded)));
        }
    }

    fn headers(&mut self, recorded: &HeaderMap, asked: &HeaderMap) {
        let names: BTreeSet<&str> = recorded.keys().chain(asked.keys()).map(http::HeaderName::as_str).collect();
        for name in names {
            let value = |headers: &HeaderMap| Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned());
            self.texts(format_args!("header {name}"), value(recorded).as_deref(), value(asked).as_deref());
        }
    }

    /// Two bodies that are JSON, by value.
    fn bodies(&mut self, recorded: &[u8], asked: &[u8], ignored: &[&str]) {
        let [Ok(recorded), Ok(asked)] = [recorded, asked].map(serde_json::from_slice::<Value<'_>>) else { return };
        let mut walk = Walk { found: self, pointer: String::new() };
        walk.values(Some(&recorded), Some(&asked), Ignored::of(ignored));
    }

    /// Two bodies of which one is no JSON.
    fn bytes(&mut self, recorded: &[u8], asked: &[u8]) {
        if let [Ok(recorded), Ok(asked)] = [recorded, asked].map(std::str::from_utf8) {
            let some = |text| Some(text).filter(|text: &&str| !text.is_empty());
            return self.texts("body", some(recorded), some(asked));
        }
        if recorded != asked {
            let equal = recorded.iter().zip(asked).take_while(|(one, other)| one == other).count();
            let size = |body: &[u8]| format!("{} bytes", body.len());
            let place = format!("body, from byte {equal} on");
            self.note(1, || told(place, &size(recorded), &size(asked)));
        }
    }
}

/// What was recorded and what is asked, where there is something.
type Both<'a> = (Option<&'a Value<'a>>, Option<&'a Value<'a>>);

/// Walks two trees at once.
struct Walk<'a> {
    found: &'a mut Difference,
    /// Where it is (RFC 6901).
    pointer: String,
}

impl Walk<'_> {
    fn values(&mut self, recorded: Option<&Value<'_>>, asked: Option<&Value<'_>>, ignored: Ignored<'_>) {
        match (recorded, asked) {
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                let [there, here] = [one, other].map(|object| object.iter().collect::<BTreeMap<_, _>>());
                let added = other.iter().map(|(name, _)| name).filter(|name| !there.contains_key(name));
                let names = one.iter().map(|(name, _)| name).chain(added);
                for name in names.filter(|name| !ignored.has_member(name)) {
                    let step = name.replace('~', "~0").replace('/', "~1");
                    let both = (there.get(name).copied(), here.get(name).copied());
                    let inner = both.0.or(both.1).map(|value| ignored.of_member(name, value));
                    self.step(&step, both, inner.unwrap_or(ignored));
                }
            }
            (Some(Value::Array(one)), Some(Value::Array(other))) => {
                let [mut one, mut other] =
                    [one, other].map(|items| items.iter().enumerate().filter(|(_, item)| !ignored.has_item(item)));
                loop {
                    let both = (one.next(), other.next());
                    let Some((index, item)) = both.1.or(both.0) else { break };
                    let values = (both.0.map(|(_, item)| item), both.1.map(|(_, item)| item));
                    self.step(&index.to_string(), values, ignored.of_item(item));
                }
            }
            (Some(one), Some(other)) if equal(one, other) => {}
            _ => {
                let places = leaves(recorded).max(leaves(asked));
                let place = if self.pointer.is_empty() { "body" } else { &self.pointer };
                self.found.note(places, || {
                    let [text, other] = [recorded, asked].map(|value| value.and_then(Value::as_str));
                    let show = |value: Option<&Value<'_>>, text, other| match value {
                        Some(Value::Str(_)) => excerpt(text, other),
                        value => shortened(value),
                    };
                    told(place, &show(recorded, text, other), &show(asked, other, text))
                });
            }
        }
    }

    fn step(&mut self, step: &str, (recorded, asked): Both<'_>, ignored: Ignored<'_>) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(step);
        self.values(recorded, asked, ignored);
        self.pointer.truncate(length);
    }
}

/// Whether two values that are not both objects or both lists are equal: numbers however they are written.
fn equal(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => Decimal::of(*one) == Decimal::of(*other),
        _ => one == other,
    }
}

/// How many values there are that hold no others.
fn leaves(value: Option<&Value<'_>>) -> usize {
    match value {
        Some(Value::Array(items)) => items.iter().map(|item| leaves(Some(item))).sum::<usize>().max(1),
        Some(Value::Object(members)) => members.values().map(|value| leaves(Some(value))).sum::<usize>().max(1),
        _ => 1,
    }
}

fn told(place: impl Display, recorded: &str, asked: &str) -> String {
    format!("{place}: recorded {recorded}, asked {asked}")
}

/// A text in quotes, from a little before where it differs from `other`.
fn excerpt(text: Option<&str>, other: Option<&str>) -> String {
    let Some(text) = text else { return "nothing".to_owned() };
    let equal = text.chars().zip(other.unwrap_or_default().chars()).take_while(|(one, other)| one == other).count();
    let start = if equal + LEAD_CHARS < SHOWN_CHARS { 0 } else { equal - LEAD_CHARS };
    let mut shown = if start > 0 { "…".to_owned() } else { String::new() };
    let mut rest = text.chars().skip(start);
    shown.extend(rest.by_ref().take(SHOWN_CHARS));
    if rest.next().is_some() {
        shown.push('…');
    }
    Value::Str(shown.into()).to_string()
}

/// A value as JSON, cut where it is long.
fn shortened(value: Option<&Value<'_>>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let json = value.to_string();
    let mut chars = json.chars();
    let mut shown: String = chars.by_ref().take(SHOWN_CHARS).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderName, Method};

    use super::*;

    fn request(body: impl Into<Bytes>) -> Request {
        Request {
            method: Method::POST,
            provider: "openai".into(),
            path: "/v1/chat/completions".into(),
            query: None,
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    fn between(recorded: &str, asked: &str) -> (usize, String) {
        let found = Difference::between(
            &request(recorded.to_owned().into_bytes()),
            &request(asked.to_owned().into_bytes()),
            &["tools[].mark", "tools[point]", "user"],
        );
        (found.places, found.first)
    }

    #[test]
    fn the_first_difference_is_named_and_all_are_counted() {
        for (recorded, asked, places, first) in [
            ("{}", "{}", 0, ""),
            (r#"{"a":1,"user":"x"}"#, r#"{"user":"y","a":1.0}"#, 0, ""),
            (r#"{"tools":[{"a":1,"mark":1},{"a":2}]}"#, r#"{"tools":[{"a":1},{"point":{}},{"a":2,"mark":2}]}"#, 0, ""),
            (
                r#"{"tools":[{"a":1,"mark":1},{"a":2}]}"#,
                r#"{"tools":[{"a":1},{"point":{}},{"a":3,"mark":2}]}"#,
                1,
                "/tools/2/a: recorded 2, asked 3",
            ),
            (r#"{"a":{"user":"x"}}"#, r#"{"a":{"user":"y"}}"#, 1, r#"/a/user: recorded "x", asked "y""#),
            (
                r#"{"messages":[{"role":"user"},{"content":"What is 2+2?"}]}"#,
                r#"{"messages":[{"role":"user"},{"content":"What is 2+3?"}]}"#,
                1,
                r#"/messages/1/content: recorded "What is 2+2?", asked "What is 2+3?""#,
            ),
            (r#"{"a":1,"b":2}"#, r#"{"b":3}"#, 2, "/a: recorded 1, asked nothing"),
            (r#"{"b":2}"#, r#"{"b":2,"a":null}"#, 1, "/a: recorded nothing, asked null"),
            (r#"{"a":[1,2,3]}"#, r#"{"a":[1]}"#, 2, "/a/1: recorded 2, asked nothing"),
            (r#"{"a":[1,{"b":[]}]}"#, r#"{"a":"x"}"#, 2, r#"/a: recorded [1,{"b":[]}], asked "x""#),
            (r#"{"a":-1}"#, r#"{"a":18446744073709551615}"#, 1, "/a: recorded -1, asked 18446744073709551615"),
            (r#"{"a/b":{"~":1}}"#, r#"{"a/b":{"~":true}}"#, 1, "/a~1b/~0: recorded 1, asked true"),
            ("[1]", "{}", 1, "body: recorded [1], asked {}"),
            (
                "line 1\nline 2\n",
                "line 1\nline 3\n",
                1,
                r#"body: recorded "line 1\nline 2\n", asked "line 1\nline 3\n""#,
            ),
            ("", "{}", 1, r#"body: recorded nothing, asked "{}""#),
        ] {
            assert_eq!(between(recorded, asked), (places, first.to_owned()), "{recorded} {asked}");
        }
    }

    #[test]
    fn long_values_are_shown_where_they_differ() {
        let json = |text: &str| format!(r#"{{"a":"{text}"}}"#);
        let (same, rest) = ("é".repeat(100), "z".repeat(100));
        let (_, first) = between(&json(&format!("{same}1{rest}")), &json(&format!("{same}2")));
        let lead = "é".repeat(20);
        assert_eq!(first, format!(r#"/a: recorded "…{lead}1{}…", asked "…{lead}2""#, "z".repeat(39)));
        let list = format!("{{\"a\":[{}1]}}", "1,".repeat(100));
        assert_eq!(between(&list, "{}").1, format!("/a: recorded [{}…, asked nothing", "1,".repeat(30).split_at(59).0));
    }

    #[test]
    fn what_is_beside_the_body_counts_too() {
        let plain = request("{}");
        let changed = |change: &dyn Fn(&mut Request)| {
            let mut other = plain.clone();
            change(&mut other);
            let found = Difference::between(&plain, &other, &[]);
            (found.places, found.first)
        };
        let beta = |request: &mut Request| {
            request.headers.insert(HeaderName::from_static("anthropic-beta"), "b".parse().expect("a value"));
        };
        let binary = |request: &mut Request| request.body = Bytes::from_static(b"{\xff");
        for (change, first) in [
            (&beta as &dyn Fn(&mut Request), "header anthropic-beta: recorded nothing, asked \"b\""),
            (&|request| request.query = Some("x=1".into()), "query: recorded nothing, asked \"x=1\""),
            (&|request| request.path = "/v1".into(), "path: recorded \"/v1/chat/completions\", asked \"/v1\""),
            (&binary, "body, from byte 1 on: recorded 2 bytes, asked 2 bytes"),
        ] {
            assert_eq!(changed(change), (1, first.to_owned()));
        }
    }
}
