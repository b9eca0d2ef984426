//! Query: what a URL asks for after its `?`. Every fault is found before any is told.

use std::ops::RangeInclusive;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use percent_encoding::percent_decode;
use utoipa::IntoParams;

use crate::admin::Admin;
use crate::admin::problem::{Fault, Problem, shown};
use crate::pattern::nearest;

/// Most subjects of one rule in an answer.
const MOST_SUBJECTS: u64 = 100;
/// Longest value of a parameter, in bytes: as much as the ledger keeps of a name.
const MAX_TEXT: usize = 256;

/// The parameters that have not been read yet, and what was wrong with those that have.
#[derive(Debug)]
pub struct Parameters {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl Parameters {
    /// Those of a URL's query, which is written as forms are: `+` is a space.
    #[must_use]
    pub fn of(query: &str) -> Self {
        let (mut left, mut faults) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decoded(name), decoded(value)) {
                (Some(name), Some(value)) => left.push((name, value)),
                (readable, _) => {
                    let name = readable.unwrap_or_else(|| name.to_owned());
                    faults.push(Fault::of_parameter(&name, "is not text in UTF-8, percent-encoded"));
                }
            }
        }
        Self { left, known: Vec::new(), faults }
    }

    /// Notes what is wrong with the parameter `name`.
    pub(super) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(Fault::of_parameter(name, detail));
    }

    /// Whether the parameter `name` is there and has not been read yet.
    #[cfg_attr(not(feature = "ledger"), expect(dead_code, reason = "only questions about calls need it"))]
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.iter().any(|(known, _)| known == name)
    }

    /// The parameter `name`, a text of 1 to 256 bytes.
    pub(super) fn text(&mut self, name: &'static str) -> Option<Box<str>> {
        self.known.push(name);
        let is_it = |(known, _): &mut (String, String)| known == name;
        let values: Vec<String> = self.left.extract_if(.., is_it).map(|(_, value)| value).collect();
        let fault = match values.as_slice() {
            [] => return None,
            [value] if value.is_empty() => "is empty: write something after its `=`, or leave it out".to_owned(),
            [value] if value.len() > MAX_TEXT => format!("has {} bytes: write at most {MAX_TEXT}", value.len()),
            [value] if value.contains('\0') => "has a NUL in it, which no name has".to_owned(),
            [value] => return Some(value.as_str().into()),
            _ => format!("is there {} times: write it once", values.len()),
        };
        self.fault(name, fault);
        None
    }

    /// The parameter `name`, a whole number within `bounds`.
    pub(super) fn number(&mut self, name: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let told = format!("write a number from {} to {}", bounds.start(), bounds.end());
        self.parsed(name, &told, |text| text.parse().ok().filter(|number| bounds.contains(number)))
    }

    /// The parameter `name`, one of these words.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let chosen = choices.iter().find(|(word, _)| *word == &*text).map(|(_, meant)| *meant);
        if chosen.is_none() {
            let words = choices.iter().map(|(word, _)| *word);
            self.fault(name, format!("is `{}`: {}", shown(&text), one_of(&text, words)));
        }
        chosen
    }

    /// The parameter `name` as `read` understands it; where it does not, `told` says what to write.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        told: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let parsed = read(&text);
        if parsed.is_none() {
            self.fault(name, format!("is `{}`: {told}", shown(&text)));
        }
        parsed
    }

    /// All that was wrong, unknown parameters included; nothing, if nothing was.
    ///
    /// # Errors
    /// With all of it.
    pub fn end(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.left) {
            let fix = match nearest(&name, self.known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("what is known here is {}", listed(&self.known)),
            };
            self.fault(&name, format!("is unknown: {fix}"));
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::of_parameters(self.faults)) }
    }
}

impl FromRequestParts<Admin> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Admin) -> Result<Self, Problem> {
        Ok(Self::of(parts.uri.query().unwrap_or_default()))
    }
}

fn decoded(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_decode(text.as_bytes()).decode_utf8().ok().map(Into::into)
}

/// Which of `words` to write in place of `text`.
fn one_of(text: &str, words: impl Iterator<Item = &'static str> + Clone) -> String {
    match nearest(text, words.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write one of {}", listed(&words.collect::<Vec<_>>())),
    }
}

fn listed(words: &[&str]) -> String {
    if words.is_empty() {
        return "nothing".to_owned();
    }
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// What lists of rules may be asked.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what `Query` reads; a test holds the two together")]
pub(super) struct Rules {
    /// Only the rule of this name.
    name: Option<String>,
    /// How many subjects of each rule with `per` at most.
    #[param(minimum = 0, maximum = 100, default = 10)]
    subjects: Option<u64>,
}

/// Which rules are asked for, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Only the rule of this name.
    name: Option<Box<str>>,
    /// How many subjects of each at most.
    pub(super) subjects: usize,
}

impl Query {
    fn read(mut parameters: Parameters) -> Result<Self, Problem> {
        let name = parameters.text("name");
        let subjects = parameters.number("subjects", 0..=MOST_SUBJECTS).unwrap_or(10);
        parameters.end()?;
        Ok(Self { name, subjects: usize::try_from(subjects).unwrap_or(usize::MAX) })
    }

    /// Those of the rules of this `kind` that are asked for.
    pub(super) fn choose<T>(
        &self,
        kind: &str,
        rules: impl Iterator<Item = T>,
        name_of: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, Problem> {
        let rules: Vec<T> = rules.collect();
        let Some(wanted) = &self.name else { return Ok(rules) };
        let missing = no_such(kind, wanted, rules.iter().map(&name_of));
        let chosen: Vec<T> = rules.into_iter().filter(|rule| name_of(rule) == &**wanted).collect();
        if chosen.is_empty() { Err(missing) } else { Ok(chosen) }
    }
}

impl FromRequestParts<Admin> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        Self::read(Parameters::from_request_parts(parts, admin).await?)
    }
}

/// That there is no rule of this name, and which one may be meant.
pub(super) fn no_such<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Problem {
    let each: Vec<String> = known.clone().map(|name| format!("`{name}`")).collect();
    let fix = match nearest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if each.is_empty() => "there is none at all".to_owned(),
        None => format!("there are {}", each.join(", ")),
    };
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {kind} `{}`: {fix}", shown(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: Option<&str>, subjects: usize) -> Query {
        Query { name: name.map(Into::into), subjects }
    }

    #[test]
    fn what_is_asked_for_is_read() {
        for (text, expected) in [
            ("", query(None, 10)),
            ("subjects=0", query(None, 0)),
            ("subjects=100&name=app", query(Some("app"), 100)),
            ("name=a%2eb", query(Some("a.b"), 10)),
            ("name=a+b%2B&", query(Some("a b+"), 10)),
        ] {
            assert_eq!(Query::read(Parameters::of(text)).expect("well"), expected, "{text}");
        }
    }

    #[test]
    fn every_mistake_is_told() {
        for (text, each) in [
            ("subjects=101&nam=x", &["`subjects` is `101`: write a number from 0 to 100", "did you mean `name`?"][..]),
            ("subjects=&top=1", &["`subjects` is empty", "`top` is unknown: what is known here is `name`, `subjects`"]),
            ("subjects=-1&subject=2", &["`subjects` is `-1`: write a number", "did you mean `subjects`?"]),
            ("subjects=ten&&x", &["`subjects` is `ten`: write a number", "`x` is unknown"]),
            ("name=a&name=b", &["`name` is there 2 times: write it once"]),
            ("name=%ff&name=%00", &["`name` is not text in UTF-8", "`name` has a NUL in it"]),
        ] {
            let problem = Query::read(Parameters::of(text)).expect_err("a mistake").detail().to_owned();
            for part in each {
                assert!(problem.contains(part), "{text}: {problem}");
            }
        }
        let long = format!("name={}", "x".repeat(257));
        let problem = Query::read(Parameters::of(&long)).expect_err("too long");
        assert!(problem.detail().contains("has 257 bytes: write at most 256"));
    }

    #[test]
    fn a_word_that_is_none_of_the_choices_is_told_with_the_nearest() {
        for (text, expected) in [
            ("sort=cost", Ok(Some(1))),
            ("", Ok(None)),
            ("sort=cots", Err("did you mean `cost`?")),
            ("sort=x", Err("write one of `cost`, `calls`")),
        ] {
            let mut parameters = Parameters::of(text);
            let chosen = parameters.choice("sort", &[("cost", 1), ("calls", 2)]);
            match (parameters.end(), expected) {
                (Ok(()), Ok(expected)) => assert_eq!(chosen, expected, "{text}"),
                (Err(problem), Err(expected)) => assert!(problem.detail().contains(expected), "{problem:?}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
    }
}
