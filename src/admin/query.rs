//! Query: what a URL asks for after its `?`, for lists of rules. Every fault is found before any is told.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::admin::Admin;
use crate::admin::problem::{Problem, shown};
use crate::pattern::nearest;

/// Most subjects of one rule in an answer.
const MOST_SUBJECTS: usize = 100;

/// Which rules are asked for, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// Only the rule of this name.
    name: Option<String>,
    /// How many subjects of each at most.
    pub(super) subjects: usize,
}

impl Query {
    fn read(query: &str) -> Result<Self, Problem> {
        let mut read = Self { name: None, subjects: 10 };
        let mut faults = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match (name, value.parse::<usize>()) {
                ("name", _) => read.name = Some(value.into_owned()),
                ("subjects", Ok(most)) if most <= MOST_SUBJECTS => read.subjects = most,
                ("subjects", _) => {
                    let fault = format!("`subjects={}`: write a number from 0 to {MOST_SUBJECTS}", shown(&value));
                    faults.push(fault);
                }
                (other, _) => {
                    faults.push(format!("`{}` is unknown: what is known here is `name`, `subjects`", shown(other)));
                }
            }
        }
        if faults.is_empty() { Ok(read) } else { Err(Problem::new(StatusCode::BAD_REQUEST, faults.join("; "))) }
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
        let chosen: Vec<T> = rules.into_iter().filter(|rule| name_of(rule) == wanted).collect();
        if chosen.is_empty() { Err(missing) } else { Ok(chosen) }
    }
}

impl FromRequestParts<Admin> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Admin) -> Result<Self, Problem> {
        Self::read(parts.uri.query().unwrap_or_default())
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
        Query { name: name.map(str::to_owned), subjects }
    }

    #[test]
    fn what_is_asked_for_is_read() {
        for (text, expected) in [
            ("", query(None, 10)),
            ("subjects=0", query(None, 0)),
            ("subjects=100&name=app", query(Some("app"), 100)),
            ("name=a%2eb", query(Some("a.b"), 10)),
        ] {
            assert_eq!(Query::read(text).expect("well"), expected, "{text}");
        }
    }

    #[test]
    fn every_mistake_is_told() {
        for text in ["subjects=101&nam=x", "subjects=&top=1", "subjects=-1&subject=2", "subjects=ten&&x"] {
            let problem = format!("{:?}", Query::read(text).expect_err("a mistake"));
            assert!(problem.contains("write a number from 0 to 100; `"), "{text}: {problem}");
            assert!(problem.contains("what is known here is `name`, `subjects`"), "{text}: {problem}");
        }
    }
}
