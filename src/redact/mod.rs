//! Redact: personal data and keys in text, replaced by the name of what they were.
//!
//! What is looked for is a table ([`kinds`]), and the operator's own patterns beside it. Every pattern is matched in time
//! linear in the text, whatever the text. Redaction makes text safer to keep; it does not make it anonymous: names,
//! addresses and secrets that look like any other word stay. Knows no wire format, and does not know where text goes.

pub mod json;
pub mod kinds;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};

use regex::{Regex, RegexBuilder, RegexSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::redact::kinds::{Kind, Known, RULES};

/// Most memory that one pattern of the operator's may take once it is compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// What the operator wants redacted beyond what weir knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pattern {
    /// What stands in the place of a match, in brackets, and under which it is counted.
    pub name: String,
    /// What it looks like: a regular expression, without look-around and back-references. Where it has a group, the first
    /// one is replaced instead of the whole.
    pub regex: String,
}

/// A pattern of the operator's that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("is not a regular expression that can be used: {why}")]
pub struct BadPattern {
    /// Which of them.
    pub position: usize,
    /// In one line: what `regex` says takes several.
    why: String,
}

/// Finds, replaces and counts. Made once: compiling takes milliseconds.
#[derive(Debug)]
pub struct Redactor {
    /// Those that weir knows, then the operator's.
    rules: Vec<Rule>,
    /// All of the latter at once: most texts have none of what is looked for.
    wanted: RegexSet,
}

/// All that [`RULES`] describe at once. Compiled when the first text is looked at.
static KNOWN: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(RULES.iter().map(|(_, looks_so, _)| looks_so)).expect("a test compiles all of them")
});

/// Each of them, compiled when the first text has what looks like it: in most processes, none ever does.
static EACH: [OnceLock<Regex>; RULES.len()] = [const { OnceLock::new() }; RULES.len()];

#[derive(Debug)]
struct Rule {
    name: Box<str>,
    looks_so: Looks,
    is_one: fn(&str) -> bool,
    is_secret: bool,
    found: AtomicU64,
}

/// What something looks like that a rule is about.
#[derive(Debug)]
enum Looks {
    /// Like the rule at this position among [`RULES`] says.
    Known(usize),
    /// Like the operator says.
    Wanted(Regex),
}

impl Looks {
    fn regex(&self) -> &Regex {
        match self {
            Self::Known(rule) => {
                EACH[*rule].get_or_init(|| Regex::new(RULES[*rule].1).expect("a test compiles all of them"))
            }
            Self::Wanted(regex) => regex,
        }
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Everything.
    All,
    /// What opens something, whoever it belongs to: not what tells of a person.
    Secrets,
}

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
    ///
    /// # Panics
    /// Never: what has been compiled alone is compiled together.
    pub fn new(patterns: &[Pattern]) -> Result<Self, Vec<BadPattern>> {
        let mut mistakes = Vec::new();
        let mut rules: Vec<Rule> = RULES.iter().enumerate().map(Rule::known).collect();
        for (position, pattern) in patterns.iter().enumerate() {
            match Rule::wanted(pattern) {
                Ok(rule) => rules.push(rule),
                Err(error) => mistakes.push(BadPattern { position, why: in_a_line(&error) }),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let wanted = RegexSet::new(rules[RULES.len()..].iter().map(|rule| rule.looks_so.regex().as_str()));
        Ok(Self { rules, wanted: wanted.expect("each of them is a regular expression") })
    }

    /// `text` without what must not stay. Borrowed where there was nothing.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, Scope::All)
    }

    /// `text` without what opens something: keys, tokens, passwords. What only tells of a person stays.
    #[must_use]
    pub fn redact_secrets<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, Scope::Secrets)
    }

    /// Whether there is surely nothing to redact in any of `texts`, which a short look at all of them together tells. Otherwise
    /// each has to be looked at.
    #[must_use]
    pub fn is_clean<'t>(&self, texts: impl Iterator<Item = &'t str>) -> bool {
        /// Whatever is found at the beginning of a text is found after this as well, and nothing that is found goes on over
        /// it unless it does in one text.
        const APART: char = '|';
        if self.rules.len() > RULES.len() {
            return false;
        }
        let mut all = String::with_capacity(512);
        texts.for_each(|text| {
            all.push_str(text);
            all.push(APART);
        });
        !KNOWN.is_match(&all)
    }

    /// How much was found so far, by its name: every kind, and every pattern of the operator's.
    #[must_use]
    pub fn found(&self) -> Vec<(&str, u64)> {
        let mut found: Vec<(&str, u64)> = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let times = rule.found.load(Ordering::Relaxed);
            match found.iter_mut().find(|(name, _)| *name == &*rule.name) {
                Some((_, all)) => *all += times,
                None => found.push((&rule.name, times)),
            }
        }
        found
    }

    fn without<'t>(&self, text: &'t str, scope: Scope) -> Cow<'t, str> {
        if !KNOWN.is_match(text) && !self.wanted.is_match(text) {
            return Cow::Borrowed(text);
        }
        let hits = merged(self.hits(text, scope));
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut kept = String::with_capacity(text.len());
        let mut end = 0;
        for Hit { at, rule } in hits {
            kept.push_str(&text[end..at.start]);
            kept.push_str(&self.rules[rule].instead());
            end = at.end;
        }
        kept.push_str(&text[end..]);
        Cow::Owned(kept)
    }

    /// What stands in the place of something that is of this kind, whatever it looks like.
    fn instead_of(&self, kind: Kind) -> String {
        let rule = self.rules.iter().find(|rule| *rule.name == *kind.as_str());
        rule.map(Rule::instead).unwrap_or_default()
    }

    fn hits(&self, text: &str, scope: Scope) -> Vec<Hit> {
        let mut hits = Vec::new();
        let known = KNOWN.matches(text).into_iter();
        let wanted = self.wanted.matches(text).into_iter().map(|rule| RULES.len() + rule);
        for rule in known.chain(wanted) {
            let Rule { looks_so, is_one, is_secret, .. } = &self.rules[rule];
            if scope == Scope::Secrets && !is_secret {
                continue;
            }
            let parts = looks_so.regex().captures_iter(text).filter_map(|found| found.get(1).or_else(|| found.get(0)));
            let parts = parts.filter(|part| !part.is_empty() && is_one(part.as_str()));
            hits.extend(parts.map(|part| Hit { at: part.range(), rule }));
        }
        hits
    }
}

impl Rule {
    /// What stands in the place of a hit, which is counted.
    fn instead(&self) -> String {
        self.found.fetch_add(1, Ordering::Relaxed);
        format!("[redacted:{}]", self.name)
    }

    fn known((position, (kind, _, is_one)): (usize, &Known)) -> Self {
        Self {
            name: kind.as_str().into(),
            looks_so: Looks::Known(position),
            is_one: *is_one,
            is_secret: kind.is_secret(),
            found: AtomicU64::new(0),
        }
    }

    fn wanted(pattern: &Pattern) -> Result<Self, regex::Error> {
        let looks_so = Looks::Wanted(RegexBuilder::new(&pattern.regex).size_limit(MAX_PATTERN_BYTES).build()?);
        let name = pattern.name.as_str().into();
        // Whoever asks for it by name wants it gone wherever it stands.
        Ok(Self { name, looks_so, is_one: |_| true, is_secret: true, found: AtomicU64::new(0) })
    }
}

fn in_a_line(error: &regex::Error) -> String {
    let all = error.to_string();
    all.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
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

#[cfg(test)]
mod tests;
