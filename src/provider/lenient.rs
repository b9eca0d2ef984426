//! Lenient: pieces of a provider's JSON, read so that one piece of an unexpected type never loses the others.
//!
//! New fields, nulls and numbers spelt as floats appear without notice; whatever is not what was expected is as good as
//! absent. Borrows from the text where it can. Knows no API.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json;
use crate::provider::output::Output;
use crate::record::ReplyFacts;
use crate::units::PicoUsd;

/// A count: a whole number, however it is spelt. Absent if it is negative or no number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count(pub(crate) Option<u64>);

/// A text that is not empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text<'a>(Option<Cow<'a, str>>);

/// An amount of US dollars, read to the pico-dollar. Absent if it is negative or no number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usd(pub(crate) Option<PicoUsd>);

/// Whether there is anything: not null, not false, not an empty text, list or object.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filled(pub(crate) bool);

/// A value as it is written. Empty if there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written<'a>(pub(crate) &'a str);

/// How many items a list has, whatever they are. Absent if it is no list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Length(pub(crate) Option<u64>);

/// An object read as a `T`. Boxed, as most objects that there could be are not there: a reply would carry the space for all
/// of them from hand to hand.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) Option<Box<T>>);

/// A list of `T`s, as many as [`MAX_ITEMS`]. An absent list is not an empty one.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Option<Vec<T>>);

/// How many items of one list are read. A `{}` of two bytes would become hundreds of a `T`: a body within its limit could
/// fill the memory. No API says more than a few hundred of anything: Vertex AI embeds 250 texts in one call, OpenAI
/// allows 128 choices.
const MAX_ITEMS: usize = 1024;

impl<'a> Text<'a> {
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Keeps this text in `kept` if there is none yet.
    pub(crate) fn keep_first(&self, kept: &mut Option<Box<str>>) {
        if kept.is_none() {
            *kept = self.get().map(Box::from);
        }
    }

    /// Keeps this text in `kept`, in place of what may be there.
    pub(crate) fn keep_last(&self, kept: &mut Option<Box<str>>) {
        if self.0.is_some() && self.get() != kept.as_deref() {
            *kept = self.get().map(Box::from);
        }
    }

    /// Adds this text to `output`; whether there is any.
    pub(crate) fn push_to(&self, output: &mut Output) -> bool {
        self.get().is_some_and(|text| {
            output.push(text);
            true
        })
    }

    fn of_json(json: &'a str) -> Self {
        let Some(inside) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return Self(None) };
        let text =
            if is_escaped(inside) { json::read(json.as_bytes()).map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) };
        Self(text.filter(|text| !text.is_empty()))
    }
}

/// Whether a text, between its quotation marks, is not spelt as it reads.
fn is_escaped(inside: &str) -> bool {
    memchr::memchr(b'\\', inside.as_bytes()).is_some()
}

/// How deep parts lie in parts: Mistral's `content[].thinking[].text`.
const MAX_DEPTH: usize = 2;

/// A part of a written list: the name of the member that holds the text is its type's.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct WrittenPart<'a> {
    #[serde(borrow)]
    text: Written<'a>,
    #[serde(borrow)]
    thinking: Written<'a>,
    #[serde(borrow)]
    refusal: Written<'a>,
}

impl<'a> Written<'a> {
    /// The text, if it is one that is spelt as it reads.
    pub(crate) fn as_spelt(&self) -> Option<&'a str> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        (!is_escaped(inside)).then_some(inside)
    }

    /// Whether there is anything.
    pub(crate) fn is_filled(&self) -> bool {
        !self.0.is_empty() && Filled::of_json(self.0).0
    }

    /// Adds what it says to `output`: a text, or the texts of a list of parts.
    pub(crate) fn push_to(&self, output: &mut Output) {
        self.push_parts(output, MAX_DEPTH);
    }

    /// Adds it as it is spelt, if it is an object: the arguments of a call.
    pub(crate) fn push_json_to(&self, output: &mut Output) {
        if self.0.starts_with('{') {
            output.push(self.0);
        }
    }

    /// Notes the arguments of a call: a text, or an object as it is spelt.
    pub(crate) fn argue_to(&self, facts: &mut ReplyFacts) {
        match Text::of_json(self.0).get() {
            Some(text) => facts.argue(text),
            None if self.0.starts_with('{') => facts.argue(self.0),
            None => {}
        }
    }

    fn push_parts(&self, output: &mut Output, depth: usize) {
        if let Some(text) = Text::of_json(self.0).get() {
            output.push(text);
        } else if depth > 0 && self.0.starts_with('[') {
            let parts: List<WrittenPart<'_>> = json::read(self.0.as_bytes()).unwrap_or_default();
            for part in parts.items() {
                for written in [part.text, part.thinking, part.refusal] {
                    written.push_parts(output, depth - 1);
                }
            }
        }
    }
}

impl Filled {
    fn of_json(json: &str) -> Self {
        Self(!matches!(json, "null" | "false" | "\"\"" | "[]" | "{}"))
    }
}

impl<T> Object<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }
}

impl<T> List<T> {
    pub(crate) fn items(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_present_but_empty(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }
}

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self(json.parse().ok().or_else(|| json.parse().ok().and_then(whole))))
    }
}

/// A float as a count. Cohere and some gateways write `12.0`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked; `as` saturates")]
fn whole(number: f64) -> Option<u64> {
    (number.is_finite() && number >= 0.0).then(|| number.round() as u64)
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of_json(<&RawValue>::deserialize(deserializer)?.get()))
    }
}

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of_json(<&RawValue>::deserialize(deserializer)?.get()))
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(PicoUsd::of_usd(<&RawValue>::deserialize(deserializer)?.get())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Written<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self(if json == "null" { "" } else { json }))
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self(json::read::<Vec<IgnoredAny>>(json.as_bytes()).map(|items| items.len() as u64)))
    }
}

/// Takes every kind of value but the named one for absent.
macro_rules! all_else_is_absent {
    ($($method:ident: $type:ty),+) => {
        $(
            fn $method<E>(self, _: $type) -> Result<Self::Value, E> {
                Ok(Self::Value::default())
            }
        )+

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }
    };
}

/// A `T`, if it is an object.
struct IfObject<T>(Option<T>);

impl<T> Default for IfObject<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for IfObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lenient<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Lenient<T> {
            type Value = IfObject<T>;

            all_else_is_absent!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<IfObject<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| IfObject(Some(value)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<IfObject<T>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(IfObject(None))
            }
        }

        deserializer.deserialize_any(Lenient(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IfObject::deserialize(deserializer).map(|IfObject(value)| Self(value.map(Box::new)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lenient<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Lenient<T> {
            type Value = List<T>;

            all_else_is_absent!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while items.len() < MAX_ITEMS
                    && let Some(IfObject(item)) = seq.next_element::<IfObject<T>>()?
                {
                    items.extend(item);
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(List(Some(items)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List<T>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(List(None))
            }
        }

        deserializer.deserialize_any(Lenient(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as Derive;

    use super::*;

    #[derive(Derive, Default)]
    #[serde(default)]
    struct Reply<'a> {
        #[serde(borrow)]
        model: Text<'a>,
        usage: Object<Usage>,
        choices: List<Usage>,
        error: Filled,
    }

    #[derive(Derive, Default)]
    #[serde(default)]
    struct Usage {
        tokens: Count,
    }

    #[test]
    fn of_a_long_list_only_so_much_is_read_and_what_follows_is_not_lost() {
        let json = format!(r#"{{"choices":[{}7],"model":"m"}}"#, "{},".repeat(5000));
        let reply: Reply<'_> = serde_json::from_str(&json).expect("lenient");
        assert_eq!((reply.choices.items().len(), reply.model.get()), (MAX_ITEMS, Some("m")));
    }

    #[test]
    fn counts_are_read_however_they_are_spelt() {
        for (json, count) in [
            ("12", Some(12)),
            ("12.0", Some(12)),
            ("1.2e1", Some(12)),
            ("0", Some(0)),
            ("18446744073709551616", Some(u64::MAX)),
            ("-1", None),
            ("null", None),
            ("\"12\"", None),
            ("[12]", None),
            ("{\"a\":12}", None),
            ("true", None),
        ] {
            assert_eq!(serde_json::from_str::<Count>(json).expect("lenient").0, count, "{json}");
        }
    }

    #[test]
    fn one_unexpected_type_does_not_lose_the_rest() {
        for odd in ["null", "1", "-1", "1.5", "\"x\"", "[1]", "{\"a\":1}", "true"] {
            let json = format!(r#"{{"model": {odd}, "choices": {odd}, "error": null, "usage": {{"tokens": 3}}}}"#);
            let reply: Reply<'_> = serde_json::from_str(&json).expect("lenient");
            assert_eq!(reply.usage.get().and_then(|usage| usage.tokens.0), Some(3), "{odd}");
            let json = format!(r#"{{"usage": {odd}, "model": "gpt"}}"#);
            let reply: Reply<'_> = serde_json::from_str(&json).expect("lenient");
            assert_eq!(reply.model.get(), Some("gpt"), "{odd}");
        }
    }

    #[test]
    fn texts_are_unescaped_and_never_empty() {
        for (json, text) in [(r#""a""#, Some("a")), (r#""\u00e4\n""#, Some("ä\n")), (r#""""#, None), ("1", None)] {
            assert_eq!(serde_json::from_str::<Text<'_>>(json).expect("lenient").get(), text, "{json}");
        }
    }

    #[test]
    fn what_was_written_is_a_text_or_lies_in_parts() {
        for (json, text) in [
            (r#""a\n""#, "a\n"),
            (r#"[{"type":"text","text":"a"},{"type":"image_url"},{"type":"refusal","refusal":"b"}]"#, "ab"),
            (r#"[{"type":"thinking","thinking":[{"type":"text","text":"a"}]},{"type":"text","text":"b"}]"#, "ab"),
            (r#"[{"text":[{"text":[{"text":"too deep"}]}]}]"#, ""),
            ("[1,null]", ""),
            (r#"{"text":"a"}"#, ""),
            ("7", ""),
        ] {
            let mut output = Output::default();
            serde_json::from_str::<Written<'_>>(json).expect("lenient").push_to(&mut output);
            assert_eq!(output.text(), text, "{json}");
        }
        for (json, filled) in [(r#""a""#, true), (r#""""#, false), ("null", false), ("[]", false), ("[1]", true)] {
            let written = serde_json::from_str::<Written<'_>>(json).expect("lenient");
            assert_eq!(written.is_filled(), filled, "{json}");
        }
        assert!(!Written::default().is_filled());
    }

    #[test]
    fn an_absent_list_is_not_an_empty_one() {
        for (json, empty) in [(r#"{"choices": []}"#, true), (r#"{"choices": null}"#, false), ("{}", false)] {
            let reply: Reply<'_> = serde_json::from_str(json).expect("lenient");
            assert_eq!(reply.choices.is_present_but_empty(), empty, "{json}");
        }
    }

    #[test]
    fn the_items_of_a_list_are_counted_whatever_they_are() {
        for (json, length) in [(r#"["a", {}]"#, Some(2)), ("[]", Some(0)), (r#"{"b": [1]}"#, None), ("null", None)] {
            assert_eq!(serde_json::from_str::<Length>(json).expect("lenient").0, length, "{json}");
        }
    }

    #[test]
    fn nothing_is_not_filled() {
        for (json, filled) in [("null", false), ("\"\"", false), ("{}", false), ("{\"a\":1}", true), ("\"x\"", true)] {
            let reply = format!(r#"{{"error": {json}}}"#);
            assert_eq!(serde_json::from_str::<Reply<'_>>(&reply).expect("lenient").error.0, filled, "{json}");
        }
    }
}
