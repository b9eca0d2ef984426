//! Redact: personal data and keys in text, replaced by the name of what they were.
//!
//! What is looked for is a table ([`kinds`]), and the operator's own patterns beside it. Every pattern is matched in time
//! linear in the text, whatever the text. Redaction makes text safer to keep; it does not make it anonymous: names,
//! addresses and secrets that look like any other word stay. Knows no wire format, and does not know where text goes.

pub mod kinds;

use std::borrow::Cow;
use std::ops::Range;

use regex::{Regex, RegexBuilder, RegexSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::redact::kinds::{Kind, RULES};

/// Most memory that one pattern of the operator's may take once it is compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// No number with fewer digits is a kind of number that is looked for.
const FEWEST_DIGITS: usize = 9;

/// What the operator wants redacted beyond what weir knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// What stands in the place of a match, in brackets, and under which it is counted.
    pub name: String,
    /// What it looks like: a regular expression, without look-around and back-references. Where it has a group, the first
    /// one is replaced instead of the whole.
    pub regex: String,
}

/// A pattern of the operator's that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{name}`: not a regular expression that can be used")]
pub struct BadPattern {
    /// The name it was given.
    pub name: String,
    source: regex::Error,
}

/// Finds and replaces. Made once: compiling takes milliseconds.
#[derive(Debug)]
pub struct Redactor {
    rules: Vec<Rule>,
    /// All of them at once: most texts have none of what is looked for.
    hints: RegexSet,
}

#[derive(Debug)]
struct Rule {
    name: Box<str>,
    looks_so: Regex,
    is_one: fn(&str) -> bool,
}

/// How often what was found, by its name.
pub type Found = Vec<(Box<str>, u64)>;

/// A part of a text that must not stay, and the number of the rule that found it.
struct Hit {
    at: Range<usize>,
    rule: usize,
}

impl Redactor {
    /// Looks for all [`Kind`]s, and for what `patterns` describe.
    ///
    /// # Errors
    /// Every pattern that cannot be used.
    pub fn new(patterns: &[Pattern]) -> Result<Self, Vec<BadPattern>> {
        let mut mistakes = Vec::new();
        let mut rules: Vec<Rule> = RULES.iter().map(Rule::known).collect();
        for pattern in patterns {
            match Rule::wanted(pattern) {
                Ok(rule) => rules.push(rule),
                Err(source) => mistakes.push(BadPattern { name: pattern.name.clone(), source }),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let hints = RegexSet::new(rules.iter().map(|rule| rule.looks_so.as_str()));
        Ok(Self { rules, hints: hints.expect("each of them is a regular expression") })
    }

    /// `text` without what must not stay, and what was found. Borrowed where there was nothing.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t str) -> (Cow<'t, str>, Found) {
        let hits = merged(self.hits(text));
        let mut found = Found::new();
        if hits.is_empty() {
            return (Cow::Borrowed(text), found);
        }
        let mut kept = String::with_capacity(text.len());
        let mut end = 0;
        for hit in hits {
            let name = &self.rules[hit.rule].name;
            kept.push_str(&text[end..hit.at.start]);
            kept.extend(["[redacted ", name, "]"]);
            count(&mut found, name, 1);
            end = hit.at.end;
        }
        kept.push_str(&text[end..]);
        (Cow::Owned(kept), found)
    }

    /// The same with every text in `value`, keys included, and with numbers that are what is looked for. Redacting JSON
    /// as text instead would break its escapes.
    pub fn redact_json(&self, value: &mut Value) -> Found {
        let mut found = Found::new();
        self.redact_within(value, &mut found);
        found
    }

    fn redact_within(&self, value: &mut Value, found: &mut Found) {
        match value {
            Value::String(text) => {
                if let Some(kept) = self.without(text, found) {
                    *text = kept;
                }
            }
            Value::Number(number) => {
                let digits = number.to_string();
                if digits.len() >= FEWEST_DIGITS
                    && let Some(kept) = self.without(&digits, found)
                {
                    *value = Value::String(kept);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_within(item, found)),
            Value::Object(fields) => {
                let names: Vec<_> =
                    fields.keys().filter_map(|name| Some((name.clone(), self.without(name, found)?))).collect();
                for (name, kept) in names {
                    if let Some(field) = fields.remove(&name) {
                        fields.insert(kept, field);
                    }
                }
                fields.values_mut().for_each(|field| self.redact_within(field, found));
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// `text` redacted, if there was anything to redact.
    fn without(&self, text: &str, found: &mut Found) -> Option<String> {
        let (kept, here) = self.redact(text);
        here.iter().for_each(|(name, times)| count(found, name, *times));
        match kept {
            Cow::Owned(kept) => Some(kept),
            Cow::Borrowed(_) => None,
        }
    }

    fn hits(&self, text: &str) -> Vec<Hit> {
        let mut hits = Vec::new();
        for rule in &self.hints.matches(text) {
            let Rule { looks_so, is_one, .. } = &self.rules[rule];
            let parts = looks_so.captures_iter(text).filter_map(|found| found.get(1).or_else(|| found.get(0)));
            let parts = parts.filter(|part| !part.is_empty() && is_one(part.as_str()));
            hits.extend(parts.map(|part| Hit { at: part.range(), rule }));
        }
        hits
    }
}

impl Rule {
    fn known(&(kind, looks_so, is_one): &(Kind, &str, fn(&str) -> bool)) -> Self {
        Self {
            name: kind.as_str().into(),
            looks_so: Regex::new(looks_so).expect("a test compiles all of them"),
            is_one,
        }
    }

    fn wanted(pattern: &Pattern) -> Result<Self, regex::Error> {
        let looks_so = RegexBuilder::new(&pattern.regex).size_limit(MAX_PATTERN_BYTES).build()?;
        Ok(Self { name: pattern.name.as_str().into(), looks_so, is_one: |_| true })
    }
}

/// The same parts in their order, those that overlap made one: what either of them found must not stay. It is called what
/// the first of them is, and of those that begin together the one that is listed first.
fn merged(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by_key(|hit| (hit.at.start, hit.rule));
    let mut apart: Vec<Hit> = Vec::with_capacity(hits.len());
    for hit in hits {
        match apart.last_mut() {
            Some(last) if hit.at.start < last.at.end => last.at.end = last.at.end.max(hit.at.end),
            _ => apart.push(hit),
        }
    }
    apart
}

fn count(found: &mut Found, name: &str, times: u64) {
    match found.iter_mut().find(|(known, _)| **known == *name) {
        Some((_, already)) => *already += times,
        None => found.push((name.into(), times)),
    }
}

#[cfg(test)]
mod tests;
