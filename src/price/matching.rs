//! Matching: which row of the table a model's name means. First rule that passes wins; there is no "closest" name.
//!
//! Names are compared in lower case. All text of the table lies in one string, [`Words`], and a rule is a few bytes that
//! point into it: thousands of small strings would weigh several times as much. Knows no rates and no files.

use std::borrow::Cow;
use std::sync::OnceLock;

use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};

use crate::price::file::{Matcher, day};

/// The longest name that is looked up, in bytes: that of an inference profile's ARN, the longest any provider defines.
pub(super) const LONGEST_NAME: usize = 2048;

/// How the names of fine-tuned models begin: `ft:gpt-4o-mini-2024-07-18:acme::abc123`.
const FINE_TUNED: &str = "ft:";

/// A piece of the table's text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    start: u32,
    len: u16,
}

/// The table's text, and its rarer tests.
#[derive(Debug, Default)]
pub(super) struct Words {
    text: String,
    rare: Vec<Rare>,
}

/// A test of a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equals(Word),
    Starts(Word),
    Ends(Word),
    Contains(Word),
    /// The position of a test in [`Words::rare`].
    Rare(u32),
}

/// Tests that few rules need, and that are larger than the others.
#[derive(Debug)]
enum Rare {
    Matches(Pattern),
    /// Of each list one test passes.
    All(Box<[Box<[Test]>]>),
    /// None passes.
    Not(Box<[Test]>),
}

/// A regular expression, compiled when a name first reaches it.
#[derive(Debug)]
struct Pattern {
    source: Word,
    /// Every match starts with this: most names need no expression to be told apart.
    prefix: Word,
    compiled: OnceLock<Option<Regex>>,
}

impl Words {
    /// Keeps `text`, which is no longer than [`LONGEST_NAME`].
    pub(super) fn add(&mut self, text: &str) -> Word {
        let start = u32::try_from(self.text.len()).expect("a price table has less than 4 GiB of text");
        let len = u16::try_from(text.len()).expect("the text of a table is checked when it is read");
        self.text.push_str(text);
        Word { start, len }
    }

    /// The text of `word`.
    pub(super) fn get(&self, word: Word) -> &str {
        let start = word.start as usize;
        &self.text[start..start + usize::from(word.len)]
    }

    /// Keeps a matcher as a list of tests of which one must pass. `id` is text kept before, which is not kept again.
    pub(super) fn tests(&mut self, matcher: &Matcher, id: Option<Word>) -> Vec<Test> {
        let mut tests = Vec::new();
        for (texts, test) in [
            (&matcher.eq, Test::Equals as fn(Word) -> Test),
            (&matcher.prefix, Test::Starts),
            (&matcher.suffix, Test::Ends),
            (&matcher.contains, Test::Contains),
        ] {
            for text in texts {
                let text = text.as_str().to_lowercase();
                let kept = id.filter(|id| self.get(*id) == text);
                tests.push(test(kept.unwrap_or_else(|| self.add(&text))));
            }
        }
        for source in &matcher.regex {
            let prefix = self.add(&literal_prefix(source.as_str()));
            let source = self.add(source.as_str());
            tests.push(self.rare(Rare::Matches(Pattern { source, prefix, compiled: OnceLock::new() })));
        }
        if !matcher.all.is_empty() {
            let all = matcher.all.iter().map(|part| self.tests(part, None).into_boxed_slice()).collect();
            tests.push(self.rare(Rare::All(all)));
        }
        if let Some(not) = &matcher.not {
            let not = self.tests(not, None).into_boxed_slice();
            tests.push(self.rare(Rare::Not(not)));
        }
        tests
    }

    fn rare(&mut self, test: Rare) -> Test {
        let position = u32::try_from(self.rare.len()).expect("a price table has less than 2³² tests");
        self.rare.push(test);
        Test::Rare(position)
    }

    /// Gives back what was reserved for more.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.rare.shrink_to_fit();
    }

    /// Whether the model `name`, in lower case, passes `test`. A fine-tuned model is named after its base and costs more:
    /// it passes only tests that speak of fine-tuned models themselves.
    pub(super) fn names_model(&self, test: Test, name: &str) -> bool {
        (!name.starts_with(FINE_TUNED) || self.is_of_fine_tuned(test)) && self.passes(test, name)
    }

    fn is_of_fine_tuned(&self, test: Test) -> bool {
        let is_of = |word| self.get(word).starts_with(FINE_TUNED);
        match test {
            Test::Equals(word) | Test::Starts(word) => is_of(word),
            Test::Ends(_) | Test::Contains(_) => false,
            Test::Rare(position) => match &self.rare[position as usize] {
                Rare::Matches(pattern) => is_of(pattern.prefix),
                Rare::All(parts) => parts.iter().any(|part| part.iter().all(|test| self.is_of_fine_tuned(*test))),
                Rare::Not(_) => false,
            },
        }
    }

    fn passes(&self, test: Test, name: &str) -> bool {
        match test {
            Test::Equals(word) => usize::from(word.len) == name.len() && self.get(word) == name,
            Test::Starts(word) => name.starts_with(self.get(word)),
            Test::Ends(word) => name.ends_with(self.get(word)),
            Test::Contains(word) => memmem::find(name.as_bytes(), self.get(word).as_bytes()).is_some(),
            Test::Rare(position) => match &self.rare[position as usize] {
                Rare::Matches(pattern) => self.matches(pattern, name),
                Rare::All(parts) => parts.iter().all(|part| self.any_passes(part, name)),
                Rare::Not(tests) => !self.any_passes(tests, name),
            },
        }
    }

    /// Whether `name`, in lower case, passes one of `tests`.
    pub(super) fn any_passes(&self, tests: &[Test], name: &str) -> bool {
        tests.iter().any(|test| self.passes(*test, name))
    }

    /// A test in words: `begins with "gpt-5-nano-"`.
    pub(super) fn describe(&self, test: Test) -> String {
        let quoted = |how: &str, word| format!("{how} {:?}", self.get(word));
        let any = |tests: &[Test]| tests.iter().map(|test| self.describe(*test)).collect::<Vec<_>>().join(" or ");
        match test {
            Test::Equals(word) => quoted("is", word),
            Test::Starts(word) => quoted("begins with", word),
            Test::Ends(word) => quoted("ends with", word),
            Test::Contains(word) => quoted("contains", word),
            Test::Rare(position) => match &self.rare[position as usize] {
                Rare::Matches(pattern) => format!("matches {}", self.get(pattern.source)),
                Rare::All(parts) => parts.iter().map(|part| any(part)).collect::<Vec<_>>().join(" and "),
                Rare::Not(tests) => format!("not ({})", any(tests)),
            },
        }
    }

    fn matches(&self, pattern: &Pattern, name: &str) -> bool {
        name.starts_with(self.get(pattern.prefix))
            && pattern
                .compiled
                .get_or_init(|| regex(self.get(pattern.source)).ok())
                .as_ref()
                .is_some_and(|regex| regex.is_match(name.as_bytes()))
    }
}

/// An expression of the table, compiled. Bytes, not Unicode: `\d` is ten digits and not a thousand, which makes the
/// compiled form small.
pub(super) fn regex(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source).unicode(false).build()
}

/// The text with which every match of `regex` starts: empty where that is not obvious.
pub(super) fn literal_prefix(regex: &str) -> String {
    let mut prefix = String::new();
    let Some(anchored) = regex.strip_prefix('^') else { return prefix };
    // `^(?:…)`, as most URLs are written.
    let grouped = anchored.strip_prefix("(?:").and_then(|it| it.strip_suffix(')')).filter(|it| is_one_sequence(it));
    let Some(mut rest) = grouped.or_else(|| Some(anchored).filter(|it| is_one_sequence(it))) else { return prefix };
    while let Some(char) = rest.chars().next() {
        let (char, len) = match rest.strip_prefix('\\').and_then(|escaped| escaped.chars().next()) {
            Some(escaped) if escaped.is_ascii_punctuation() => (escaped, 1 + escaped.len_utf8()),
            None if char.is_alphanumeric() || "-_/:@".contains(char) => (char, char.len_utf8()),
            _ => break,
        };
        rest = &rest[len..];
        if rest.starts_with(['?', '*', '{']) {
            break;
        }
        prefix.push(char);
    }
    prefix
}

/// Whether `regex` is one thing after the other: no alternatives but within groups, which end where it ends. `false` where
/// that is not obvious.
fn is_one_sequence(regex: &str) -> bool {
    let (mut depth, mut in_class, mut escaped) = (0_usize, false, false);
    for char in regex.chars() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            _ if in_class => {}
            '|' if depth == 0 => return false,
            '(' => depth += 1,
            ')' => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return false,
            },
            _ => {}
        }
    }
    // A class may begin with the bracket that ends others.
    depth == 0 && !in_class && !regex.contains("[]") && !regex.contains("[^]")
}

/// `name` in lower case; most names are already.
pub(super) fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        Cow::Owned(name.to_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// What Google's APIs put before the names of models, and of its own models where they stand beside others'.
const DECORATIONS: [&str; 3] = ["models/", "publishers/google/models/", "google/"];

/// `name` without what Google's APIs put before it. `None` if there is nothing of the kind.
pub(super) fn undecorated(name: &str) -> Option<&str> {
    DECORATIONS.iter().find_map(|decoration| name.strip_prefix(decoration))
}

/// `name` with its compact dates (`-20250807`, at the end or before `-` or `:`) spelt `-2025-08-07`, as some gateways
/// write the one where the table has the other. `None` if it has no such date.
pub(super) fn with_dashed_dates(name: &str) -> Option<String> {
    let mut dashed = String::new();
    let mut copied = 0;
    for (dash, _) in name.match_indices('-') {
        if let Some(date) = compact_date(&name[dash + 1..]) {
            dashed.push_str(&name[copied..=dash]);
            dashed.push_str(&date);
            copied = dash + 9;
        }
    }
    dashed.push_str(&name[copied..]);
    (copied > 0).then_some(dashed)
}

/// The date at the start of `text`, if there is one of this century, in its dashed spelling.
fn compact_date(text: &str) -> Option<String> {
    let digits = text.get(..8).filter(|digits| digits.starts_with("20"))?;
    let ends = text[8..].is_empty() || text[8..].starts_with(['-', ':']);
    let dashed = format!("{}-{}-{}", &digits[..4], digits.get(4..6)?, digits.get(6..)?);
    (ends && day(&dashed).is_some()).then_some(dashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(matcher: &str, name: &str) -> bool {
        let matcher: Matcher = serde_json::from_str(matcher).expect("a matcher");
        let mut words = Words::default();
        let tests = words.tests(&matcher, None);
        words.any_passes(&tests, name)
    }

    #[test]
    fn a_matcher_passes_as_its_keys_say() {
        for (rule, matcher, name, expected) in [
            ("eq is the whole name", r#"{"eq":["gpt-5"]}"#, "gpt-5", true),
            ("eq is not a prefix", r#"{"eq":["gpt-5"]}"#, "gpt-5-mini", false),
            ("values are alternatives", r#"{"eq":["a","b"]}"#, "b", true),
            ("keys are alternatives", r#"{"eq":["a"],"suffix":["-x"]}"#, "y-x", true),
            ("prefix", r#"{"prefix":["gpt-"]}"#, "gpt-5", true),
            ("contains", r#"{"contains":["llama"]}"#, "meta-llama-3", true),
            ("literals are compared in lower case", r#"{"eq":["GPT-5"]}"#, "gpt-5", true),
            ("a regex is searched", r#"{"regex":["-tts(?:$|-)"]}"#, "gemini-2.5-pro-tts-preview", true),
            ("an anchored regex is anchored", r#"{"regex":["^o[134]"]}"#, "pro-o1", false),
            ("a regex behind its prefix", r#"{"regex":["^gpt-5\\.6-\\d{2}$"]}"#, "gpt-5.6-07", true),
            ("a regex before its prefix", r#"{"regex":["^gpt-5\\.6-\\d{2}$"]}"#, "gpt-5x6-07", false),
            ("all is and", r#"{"all":[{"prefix":["a"]},{"not":{"contains":["tts"]}}]}"#, "a-tts", false),
            ("all is and", r#"{"all":[{"prefix":["a"]},{"not":{"contains":["tts"]}}]}"#, "a-b", true),
        ] {
            assert_eq!(passes(matcher, name), expected, "{rule}");
        }
    }

    #[test]
    fn a_fine_tuned_model_passes_only_tests_that_speak_of_it() {
        for (matcher, expected) in [
            (r#"{"prefix":["ft:gpt-4o"]}"#, true),
            (r#"{"regex":["^ft:gpt-\\d"]}"#, true),
            (r#"{"all":[{"prefix":["ft:gpt"]},{"contains":["acme"]}]}"#, true),
            (r#"{"contains":["gpt-4o"],"suffix":["acme"],"prefix":["f"],"not":{"eq":["x"]}}"#, false),
            (r#"{"all":[{"contains":["ft:"]},{"contains":["acme"]}]}"#, false),
        ] {
            let matcher: Matcher = serde_json::from_str(matcher).expect("a matcher");
            let mut words = Words::default();
            let tests = words.tests(&matcher, None);
            let passes = tests.iter().any(|test| words.names_model(*test, "ft:gpt-4o:acme"));
            assert_eq!(passes, expected, "{matcher:?}");
        }
    }

    #[test]
    fn the_literal_prefix_of_a_regex_never_excludes_a_match() {
        for (regex, prefix) in [
            (r"^claude-opus-5[-@]\d{8}$", "claude-opus-5"),
            (r"^gpt-5\.6-luna-\d{4}", "gpt-5.6-luna-"),
            (r"^composer-2\.5\[fast=false\]$", "composer-2.5[fast"),
            (r"^ab?c", "a"),
            (r"^a{2}", ""),
            (r"^ab+c", "ab"),
            (r"^a|b", ""),
            (r"^(typesafe/)?jev", ""),
            (r"-tts", ""),
            (r"^(?:https://api\.x\.ai(?:/|$))", "https://api.x.ai"),
            (r"^(?:https://api\.cohere\.(?:ai|com))", "https://api.cohere."),
            (r"^(?:https://a|https://b)", ""),
            (r"^(?:ab)?cd", ""),
            (r"^(?:ab)c|(?:d)", ""),
            (r"^a[(]b|c", ""),
            (r"^a\(b|c", ""),
            (r"^ab(c|d)", "ab"),
        ] {
            assert_eq!(literal_prefix(regex), prefix, "{regex}");
        }
    }

    #[test]
    fn compact_dates_are_spelt_out() {
        for (rule, name, dashed) in [
            ("at the end", "gpt-5-20250807", Some("gpt-5-2025-08-07")),
            ("before a dash", "a-20250807-v1", Some("a-2025-08-07-v1")),
            ("before a colon", "a-20250807:free", Some("a-2025-08-07:free")),
            ("every one", "a-20250807-20250808", Some("a-2025-08-07-2025-08-08")),
            ("not inside a word", "a-20250807b", None),
            ("not without a dash", "a20250807", None),
            ("not of another century", "a-19991231", None),
            ("not a month", "a-20251301", None),
            ("not a day", "a-20250229", None),
            ("a leap day", "a-20240229", Some("a-2024-02-29")),
            ("beside other scripts", "é-ü2025080", None),
        ] {
            assert_eq!(with_dashed_dates(name).as_deref(), dashed, "{rule}");
        }
    }
}
