//! Schema: a plausible value for a JSON Schema, as a model gives one for a tool's arguments or a structured answer.
//!
//! Follows the parts of JSON Schema that the APIs accept for structured outputs; what it does not know it leaves
//! out. Pure.

use serde_json::{Map, Value, json};

use super::dice::Dice;

/// How deep a value may get; recursive schemas end here.
const DEEPEST: usize = 8;
/// How many values there may be in one; a schema that wants more gets nulls.
const MOST_VALUES: usize = 1000;

/// A value that the schema allows.
pub(super) fn sample(schema: &Value, dice: &mut Dice) -> Value {
    Sampler { root: schema, dice, values: 0 }.value(schema, "", DEEPEST)
}

/// An object for who asked for JSON without saying which.
pub(super) fn any_object(dice: &mut Dice) -> Value {
    json!({
        "summary": dice.pick(PHRASES),
        "category": dice.pick(WORDS),
        "score": dice.below(100),
        "approved": dice.below(2) == 1,
    })
}

struct Sampler<'a> {
    root: &'a Value,
    dice: &'a mut Dice,
    /// How many there are so far.
    values: usize,
}

impl Sampler<'_> {
    fn value(&mut self, schema: &Value, name: &str, depth: usize) -> Value {
        self.values += 1;
        if depth == 0 || self.values > MOST_VALUES {
            return Value::Null;
        }
        if let Some(constant) = schema.get("const") {
            return constant.clone();
        }
        if let Some(choices) = schema.get("enum").and_then(Value::as_array).filter(|choices| !choices.is_empty()) {
            let at = usize::try_from(self.dice.below(choices.len() as u64)).unwrap_or(0);
            return choices[at].clone();
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let found = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return found.cloned().map_or(Value::Null, |found| self.value(&found, name, depth - 1));
        }
        for branches in ["anyOf", "oneOf", "allOf"] {
            if let Some(first) = schema.get(branches).and_then(|branches| branches.get(0)) {
                return self.value(first, name, depth - 1);
            }
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, name, depth),
            "string" => Value::String(self.string(schema, name)),
            "integer" => self.number(schema).into(),
            "number" => json!(self.number(schema)),
            "boolean" => Value::Bool(self.dice.below(2) == 1),
            _ => Value::Null,
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let required = schema.get("required").and_then(Value::as_array);
        let needed = |name: &str| required.is_some_and(|names| names.iter().any(|needed| needed == name));
        let mut object = Map::new();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            // A recursive schema must be able to end: near the bottom only what is required is given.
            if depth > 3 || needed(name) {
                object.insert(name.clone(), self.value(property, name, depth - 1));
            }
        }
        Value::Object(object)
    }

    fn array(&mut self, schema: &Value, name: &str, depth: usize) -> Value {
        let bound = |key| schema.get(key).and_then(Value::as_u64);
        let least = bound("minItems").unwrap_or(u64::from(depth > 3));
        let most = bound("maxItems").unwrap_or(3).max(least).min(least + 2);
        let length = least + self.dice.below(most - least + 1);
        let items = schema.get("items").cloned().unwrap_or_else(|| json!({"type": "string"}));
        Value::Array((0..length.min(20)).map(|_| self.value(&items, name, depth - 1)).collect())
    }

    fn string(&mut self, schema: &Value, name: &str) -> String {
        let text = match schema.get("format").and_then(Value::as_str) {
            Some("date-time") => "2026-03-14T09:30:00Z",
            Some("date") => "2026-03-14",
            Some("time") => "09:30:00Z",
            Some("duration") => "PT15M",
            Some("email") => "ada@example.com",
            Some("uri") => "https://example.com/articles/42",
            Some("uuid") => "3f2b8c1e-5d4a-4f6b-9a7c-0e1d2c3b4a59",
            Some("ipv4") => "192.0.2.17",
            Some("hostname") => "app.example.com",
            _ => by_name(name).unwrap_or_else(|| self.dice.pick(PHRASES)),
        };
        let length = |key| schema.get(key).and_then(Value::as_u64).and_then(|length| usize::try_from(length).ok());
        let mut text: String = text.chars().take(length("maxLength").unwrap_or(usize::MAX)).collect();
        while text.len() < length("minLength").unwrap_or(0).min(4096) {
            text.push('x');
        }
        text
    }

    fn number(&mut self, schema: &Value) -> i64 {
        let bound = |key| schema.get(key).and_then(Value::as_i64);
        let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|bound| bound.saturating_add(1)));
        let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|bound| bound.saturating_sub(1)));
        let least = least.unwrap_or_else(|| most.map_or(1, |most| most.min(1)));
        let most = most.unwrap_or(least.saturating_add(41)).max(least);
        least.saturating_add_unsigned(self.dice.below(most.abs_diff(least).saturating_add(1)))
    }
}

/// The type of a schema: the first that is not null, or what its members suggest.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}

/// What people usually put in a field of this name.
fn by_name(name: &str) -> Option<&'static str> {
    const USUAL: &[(&str, &str)] = &[
        ("city", "Paris"),
        ("location", "Paris, France"),
        ("country", "France"),
        ("unit", "celsius"),
        ("email", "ada@example.com"),
        ("name", "Ada Lovelace"),
        ("date", "2026-03-14"),
        ("query", "opening hours on Sunday"),
        ("url", "https://example.com/articles/42"),
        ("currency", "EUR"),
        ("language", "en"),
    ];
    USUAL.iter().find(|(usual, _)| name.eq_ignore_ascii_case(usual)).map(|(_, value)| *value)
}

const PHRASES: &[&str] = &[
    "the second option",
    "delivered on Tuesday",
    "needs a review",
    "within two working days",
    "renewed every year",
    "a small correction",
];

const WORDS: &[&str] = &["billing", "delivery", "returns", "account", "other"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_the_schema_allows() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 3, "maximum": 5},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "note": {"type": ["string", "null"], "maxLength": 4},
                "exact": {"const": 7},
                "child": {"$ref": "#/$defs/child"},
                "either": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            },
            "required": ["city", "unit", "days", "tags", "note", "exact", "child", "either"],
            "$defs": {"child": {"type": "object", "properties": {"flag": {"type": "boolean"}}, "required": ["flag"]}},
        });
        for seed in 0..50 {
            let value = sample(&schema, &mut Dice::new(seed));
            assert_eq!(value["city"], "Paris");
            assert!(["celsius", "fahrenheit"].contains(&value["unit"].as_str().expect("text")));
            assert!((3..=5).contains(&value["days"].as_i64().expect("a number")));
            assert!(value["tags"].as_array().expect("a list").len() >= 2);
            assert!(value["note"].as_str().expect("text").len() <= 4);
            assert_eq!(value["exact"], 7);
            assert!(value["child"]["flag"].is_boolean());
            assert!(value["either"].is_boolean());
        }
    }

    #[test]
    fn a_recursive_schema_ends() {
        let schema = json!({
            "type": "object",
            "properties": {"next": {"$ref": "#"}, "label": {"type": "string"}},
            "required": ["label"],
        });
        assert!(sample(&schema, &mut Dice::new(1)).to_string().len() < 1000);
    }

    #[test]
    fn a_schema_that_grows_without_bounds_is_cut_back() {
        let child = json!({"$ref": "#"});
        let schema = json!({"type": "array", "items": child, "minItems": 20});
        assert!(sample(&schema, &mut Dice::new(1)).to_string().len() < 1_000_000);
    }

    #[test]
    fn numbers_at_the_edges_do_not_overflow() {
        for schema in [
            json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
            json!({"type": "integer", "minimum": i64::MAX}),
            json!({"type": "integer", "maximum": i64::MIN}),
        ] {
            assert!(sample(&schema, &mut Dice::new(1)).is_i64());
        }
    }
}
