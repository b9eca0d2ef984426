//! Body: a request's body, bounded and in time, and its members, each read once. Every fault is found before any is
//! told.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::admin::problem::{Fault, Problem, shown_value};
use crate::units::{PicoUsd, Span};

/// The largest body of a command, in bytes.
pub(super) const COMMAND: usize = 64 << 10;
/// How long a body may take to come.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// All of a body of at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match timeout(READ_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => {
            let detail = format!("the body has more than {limit} bytes, which is the most that is read here");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off before all of it had come")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took longer than 10 seconds to come")),
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

/// The members of an object that have not been read yet, and what was wrong with those that have.
#[derive(Debug)]
pub(super) struct Members<'a> {
    left: BTreeMap<String, &'a RawValue>,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<'a> Members<'a> {
    /// The members of the object that `body` is. No body is an object without any.
    pub(super) fn of(body: &'a [u8]) -> Result<Self, Problem> {
        let body = body.trim_ascii();
        let left = if body.is_empty() { Ok(BTreeMap::new()) } else { serde_json::from_slice(body) };
        let left = left.map_err(|error| {
            let detail = format!("the body must be a JSON object: {error}");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })?;
        Ok(Self { left, known: Vec::new(), faults: Vec::new() })
    }

    /// Whether there are none left.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Notes what is wrong with the member `name`.
    pub(super) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(Fault::of(name, detail));
    }

    /// Notes what is wrong with the members together.
    pub(super) fn fault_of_all(&mut self, detail: impl Into<String>) {
        self.faults.push(Fault::of_all(detail));
    }

    /// Whether the member `name` is there, has not been read yet, and is not `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|raw| raw.get() != "null")
    }

    /// Whether nothing was wrong so far.
    pub(super) fn are_well(&self) -> bool {
        self.faults.is_empty()
    }

    /// The member `name` as it was written; `null` is as good as none.
    pub(super) fn raw(&mut self, name: &'static str) -> Option<&'a RawValue> {
        self.known.push(name);
        self.left.remove(name).filter(|raw| raw.get() != "null")
    }

    /// The member `name`, a text that is not empty and has at most `most` bytes.
    pub(super) fn text(&mut self, name: &'static str, most: usize) -> Option<Box<str>> {
        match self.value(name)? {
            Value::String(text) if text.is_empty() => {
                self.fault(name, "is empty: write something, or leave it out");
                None
            }
            Value::String(text) if text.len() > most => {
                self.fault(name, format!("has {} bytes: write at most {most}", text.len()));
                None
            }
            Value::String(text) => Some(text.into()),
            other => {
                self.fault(name, format!("{} is not a text: write one in quotes", shown_value(&other)));
                None
            }
        }
    }

    /// The same, of a member that has to be there.
    pub(super) fn required_text(&mut self, name: &'static str, most: usize) -> Option<Box<str>> {
        if !self.has(name) {
            self.fault(name, "is missing: write a text");
        }
        self.text(name, most)
    }

    /// The member `name`, a text of at most `most` bytes that reads as `T`; of one that does not, `told` says what is
    /// wrong.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        name: &'static str,
        most: usize,
        told: impl FnOnce(&str, T::Err) -> String,
    ) -> Option<T> {
        let text = self.text(name, most)?;
        match text.parse() {
            Ok(read) => Some(read),
            Err(error) => {
                self.fault(name, told(&text, error));
                None
            }
        }
    }

    /// The member `name`, an amount of US dollars: a number, or the same as a text. Read digit by digit.
    pub(super) fn usd(&mut self, name: &'static str) -> Option<PicoUsd> {
        let raw = self.raw(name)?;
        let usd = PicoUsd::of_usd(raw.get().trim_matches('"'));
        if usd.is_none() {
            let value = self.opened(name, raw)?;
            let fix = "write a number of at least 0, such as 1500 or 0.50";
            self.fault(name, format!("{} is no amount of US dollars: {fix}", shown_value(&value)));
        }
        usd
    }

    /// The same, of a member that has to be there.
    pub(super) fn required_usd(&mut self, name: &'static str) -> Option<PicoUsd> {
        if !self.has(name) {
            self.fault(name, "is missing: write a number of US dollars, such as 1500");
        }
        self.usd(name)
    }

    /// The member `name`, a whole number of percent from 0 to 100.
    pub(super) fn percentage(&mut self, name: &'static str) -> Option<u64> {
        let value = self.value(name)?;
        let percent = value.as_f64().filter(|percent| (0.0..=100.0).contains(percent) && percent.fract() == 0.0);
        if percent.is_none() {
            let fix = "write a whole number from 0 to 100, such as 80";
            self.fault(name, format!("{} is no percentage: {fix}", shown_value(&value)));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and from 0 to 100")]
        percent.map(|percent| percent as u64)
    }

    /// The member `name` as it was written, be it `null`; `what` has to be there.
    pub(super) fn required_raw(&mut self, name: &'static str, what: &str) -> Option<&'a RawValue> {
        self.known.push(name);
        let raw = self.left.remove(name);
        if raw.is_none() {
            self.fault(name, format!("is missing: write {what}"));
        }
        raw
    }

    /// The member `name`, a duration more than zero: a number of seconds, or a text such as `5m`.
    pub(super) fn span(&mut self, name: &'static str) -> Option<Span> {
        let value = self.value(name)?;
        let span = match &value {
            Value::Number(seconds) => seconds.as_u64().map(Span::from_secs),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let shown = shown_value(&value);
        match span {
            Some(span) if span.get().is_zero() => {
                self.fault(name, format!("{shown} is no time at all: write more, or leave it out"));
                None
            }
            None => {
                let fix = "write whole seconds, such as 300, or a text such as \"30s\", \"5m\" or \"1h\"";
                self.fault(name, format!("{shown} is not a duration: {fix}"));
                None
            }
            span => span,
        }
    }

    /// All that was wrong, unknown members included; nothing, if nothing was.
    pub(super) fn end(self) -> Result<(), Problem> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(Problem::of_faults(faults)) }
    }

    /// The same, for members that are part of something larger.
    pub(super) fn faults(mut self) -> Vec<Fault> {
        let known: Vec<String> = self.known.iter().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let unknown =
            self.left.keys().map(|name| Fault::of(name, format!("is unknown: what is known here is {known}")));
        self.faults.extend(unknown);
        self.faults
    }

    /// What was read; `None` only where something is wrong.
    pub(super) fn end_with<T>(self, read: Option<T>) -> Result<T, Problem> {
        self.end()?;
        Ok(read.expect("what could not be read is a fault"))
    }

    fn value(&mut self, name: &'static str) -> Option<Value> {
        let raw = self.raw(name)?;
        self.opened(name, raw)
    }

    /// What a member says. Some that JSON's grammar has cannot be read: half of a surrogate pair (RFC 8259, section 8.2), and
    /// numbers that are beyond what a machine has.
    fn opened(&mut self, name: &'static str, raw: &RawValue) -> Option<Value> {
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.fault(name, "cannot be read: it has half of a character, or a number beyond all bounds");
        }
        value
    }
}
