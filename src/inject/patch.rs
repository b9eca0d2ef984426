//! Patch: a JSON patch (RFC 6902) that only adds.

use serde_json::{Map, Value, json};

/// What is added, in order.
#[derive(Debug, Default)]
pub(super) struct Patch(Vec<Value>);

impl Patch {
    /// Adds `value` at `path`, a pointer (RFC 6901) whose names are escaped.
    pub(super) fn add(&mut self, path: &str, value: Value) {
        let mut operation = json!({ "op": "add", "path": path });
        operation["value"] = value;
        self.0.push(operation);
    }

    /// Adds `items` to the end of the list at `path`, which is `there` or has to be made.
    pub(super) fn append(&mut self, path: &str, there: &Value, items: Vec<Value>) {
        if items.is_empty() {
            return;
        }
        if !there.is_array() {
            return self.add(path, Value::Array(items));
        }
        for item in items {
            self.add(&format!("{path}/-"), item);
        }
    }

    /// Writes `entries` into the section at `path`, which is `there` or has to be made.
    pub(super) fn enter(&mut self, path: &str, there: &Value, entries: Map<String, Value>) {
        if entries.is_empty() {
            return;
        }
        if !there.is_object() {
            return self.add(path, Value::Object(entries));
        }
        for (name, value) in entries {
            self.add(&format!("{path}/{}", escaped(&name)), value);
        }
    }

    /// The operations.
    pub(super) fn into_operations(self) -> Vec<Value> {
        self.0
    }
}

/// `name` as part of a pointer: "~0" and "~1" stand for "~" and "/" (RFC 6901, section 3).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
