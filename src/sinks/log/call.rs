//! Call: the line of a call, written from its record without a way round: it is said for every call. It looks as
//! `tracing-subscriber` would have made it look, beside whose lines it stands.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;
use tracing::Level;

use crate::labels::tidy;
use crate::record::Record;
use crate::record::outcome::{CacheStatus, ErrorType, Outcome, Reuse, Role};
use crate::record::provenance::Provenance;
use crate::record::usage::{Cost, Counter, Unpriced, Usage};
use crate::semconv::attribute;

/// What says it.
pub(super) const TARGET: &str = "weir::calls";

/// A call that is over, as a line.
pub(super) struct CallLine<'r> {
    pub(super) record: &'r Record,
    pub(super) at: SystemTime,
}

/// A value of a line.
#[derive(Serialize)]
#[serde(untagged)]
enum Fact<'r> {
    /// One of weir's own words, with nothing in it that JSON would want escaped.
    Word(&'r str),
    Text(Cow<'r, str>),
    Count(u64),
    Real(f64),
    Similarity(f32),
    Yes(bool),
}

impl CallLine<'_> {
    /// As one JSON object.
    ///
    /// # Errors
    /// If `to` fails.
    pub(super) fn write_json(&self, to: &mut Vec<u8>) -> io::Result<()> {
        let Self { record, at } = self;
        let (at, level) = (humantime::format_rfc3339_micros(*at), level(record.outcome));
        write!(to, "{{\"timestamp\":\"{at}\",\"level\":\"{level}\",\"message\":\"{}\"", message(record))?;
        facts(record, |name, fact| {
            // A name is one of weir's own: there is nothing in it that JSON would want escaped.
            append(to, &[",\"", name, "\":"]);
            match fact {
                Fact::Word(word) => {
                    append(to, &["\"", word, "\""]);
                    Ok(())
                }
                fact => serde_json::to_writer(&mut *to, &fact),
            }
        })?;
        writeln!(to, ",\"target\":\"{TARGET}\"}}")
    }

    /// For people; dimmed and coloured where they read it on a terminal.
    ///
    /// # Errors
    /// If `to` fails.
    pub(super) fn write_text(&self, to: &mut Vec<u8>, is_terminal: bool) -> io::Result<()> {
        let Self { record, at } = self;
        let paint = |code: &'static str| if is_terminal { code } else { "" };
        let (dim, italic, plain) = (paint("\x1b[2m"), paint("\x1b[3m"), paint("\x1b[0m"));
        let level = level(record.outcome);
        let colour = paint(match level {
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            _ => "\x1b[32m",
        });
        let at = humantime::format_rfc3339_micros(*at);
        write!(to, "{dim}{at}{plain} {colour}{level:>5}{plain} {dim}{TARGET}:{plain} {}", message(record))?;
        facts(record, |name, fact| {
            write!(to, " {italic}{name}{plain}{dim}={plain}")?;
            match fact {
                Fact::Word(word) => write!(to, "{word:?}"),
                Fact::Text(text) => write!(to, "{text:?}"),
                Fact::Count(count) => write!(to, "{count}"),
                Fact::Real(real) => write!(to, "{real:?}"),
                Fact::Similarity(real) => write!(to, "{real:?}"),
                Fact::Yes(is_so) => write!(to, "{is_so}"),
            }
        })?;
        to.push(b'\n');
        Ok(())
    }
}

/// Tells the facts of a line, those that there are. No prompt, no completion, no key, and not the end user's id.
fn facts<'r, E>(record: &'r Record, mut tell: impl FnMut(&'static str, Fact<'r>) -> Result<(), E>) -> Result<(), E> {
    let Record { call, reply, head, usage, cache, downgrade, timing, .. } = record;
    let tokens = |counter| usage.as_ref().and_then(|usage| usage.get(counter));
    let tries = record.tries.as_deref();
    let trace = record.trace.as_deref().filter(|trace| trace.is_sampled);
    let Money { cost, saved, list, unpriced } = Money::of(record);
    let facts = [
        (attribute::TRACE_ID, trace.and_then(|trace| shown(trace.id))),
        (attribute::SPAN_ID, trace.and_then(|trace| shown(trace.server))),
        (attribute::WEIR_REQUEST_ID, shown(record.id)),
        (attribute::GEN_AI_PROVIDER_NAME, Some(text(&call.provider))),
        (attribute::GEN_AI_OPERATION_NAME, word(call.operation.as_str())),
        (attribute::GEN_AI_REQUEST_MODEL, name(call.model.as_deref())),
        (attribute::GEN_AI_RESPONSE_MODEL, name(reply.model.as_deref())),
        (attribute::GEN_AI_RESPONSE_ID, name(reply.id.as_deref())),
        (attribute::GEN_AI_USAGE_INPUT_TOKENS, tokens(Counter::InputTokens).map(Fact::Count)),
        (attribute::GEN_AI_USAGE_OUTPUT_TOKENS, tokens(Counter::OutputTokens).map(Fact::Count)),
        // Said only where it is so.
        (attribute::WEIR_USAGE_ESTIMATED, usage.filter(Usage::is_estimated).map(|_| Fact::Yes(true))),
        (attribute::WEIR_COST_USD, cost),
        (attribute::WEIR_COST_LIST_USD, list),
        (attribute::WEIR_COST_PROVENANCE, record.provenance.map(Provenance::as_str).and_then(word)),
        (attribute::WEIR_COST_SAVED_USD, saved),
        (attribute::WEIR_COST_UNPRICED, unpriced.map(Unpriced::as_str).and_then(word)),
        (attribute::WEIR_CACHE, word(cache.status.as_str())),
        (attribute::WEIR_CACHE_BYPASS, bypass(cache.status).and_then(word)),
        (attribute::WEIR_CACHE_SIMILARITY, cache.similarity.map(Fact::Similarity)),
        (attribute::WEIR_SINGLEFLIGHT_ROLE, cache.role.map(Role::as_str).and_then(word)),
        (attribute::WEIR_DOWNGRADED_FROM, name(downgrade.as_ref().map(|it| &*it.from))),
        (attribute::WEIR_DOWNGRADED_BUDGET, downgrade.as_ref().map(|it| text(&it.budget))),
        (attribute::WEIR_OUTCOME, word(record.outcome.as_str())),
        (attribute::ERROR_TYPE, record.error_type.map(ErrorType::as_str).and_then(word)),
        (attribute::ERROR_MESSAGE, record.error_detail.as_deref().map(text)),
        (attribute::HTTP_RESPONSE_STATUS_CODE, record.status.map(|status| Fact::Count(status.into()))),
        (attribute::WEIR_DURATION, Some(Fact::Real(timing.total.as_secs_f64()))),
        (attribute::WEIR_UPSTREAM_DURATION, timing.upstream.map(|took| Fact::Real(took.as_secs_f64()))),
        (
            attribute::WEIR_UPSTREAM_RETRIES,
            tries.map(|it| it.retries).filter(|it| *it > 0).map(|it| Fact::Count(it.into())),
        ),
        (attribute::WEIR_UPSTREAM_FALLBACK, tries.and_then(|it| it.fallback.as_deref()).map(text)),
        (attribute::WEIR_UPSTREAM_REQUEST_ID, head.request_id.as_deref().map(text)),
        (attribute::WEIR_UPSTREAM_PROCESSING, head.processing.map(|took| Fact::Real(took.as_secs_f64()))),
        (attribute::WEIR_UPSTREAM_RETRY_AFTER, head.retry_after.map(|wait| Fact::Real(wait.as_secs_f64()))),
        (attribute::WEIR_TIME_TO_FIRST_TOKEN, timing.first_token.map(|took| Fact::Real(took.as_secs_f64()))),
        (attribute::WEIR_AGENT, name(call.caller.agent.as_deref())),
        (attribute::WEIR_LOOP_TYPE, name(call.caller.loop_type.as_deref())),
        (attribute::WEIR_RUN, name(call.caller.run.as_deref())),
        (attribute::WEIR_NAMESPACE, name(call.caller.namespace.as_deref())),
        (attribute::WEIR_WORKSPACE, name(call.caller.workspace.as_deref())),
    ];
    facts.into_iter().try_for_each(|(name, fact)| fact.map_or(Ok(()), |fact| tell(name, fact)))
}

/// What a call cost, or saved, or why that is not known.
struct Money<'r> {
    cost: Option<Fact<'r>>,
    saved: Option<Fact<'r>>,
    list: Option<Fact<'r>>,
    unpriced: Option<Unpriced>,
}

impl Money<'_> {
    fn of(record: &Record) -> Self {
        let reused = record.cache.reuse().is_some();
        let (amount, unpriced) = match record.cost {
            Cost::Known(charge) => (shown(charge.total()), None),
            Cost::Unpriced(reason) => (None, Some(reason)),
            Cost::Nothing => (None, None),
        };
        let (cost, saved) = if reused { (None, amount) } else { (amount, None) };
        let list = record.list_cost.and_then(|charge| shown(charge.total()));
        Self { cost, saved, list, unpriced: unpriced.filter(|_| !reused) }
    }
}

fn append(to: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        to.extend_from_slice(part.as_bytes());
    }
}

/// One of weir's own words.
#[expect(clippy::unnecessary_wraps, reason = "it stands among those that there may not be")]
fn word(word: &'static str) -> Option<Fact<'static>> {
    Some(Fact::Word(word))
}

/// What is kept in full, whatever is in it.
fn text(text: &str) -> Fact<'_> {
    Fact::Text(text.into())
}

/// A name from outside, kept short: an app may call a model anything.
fn name(name: Option<&str>) -> Option<Fact<'_>> {
    name.map(|name| Fact::Text(tidy(name)))
}

#[expect(clippy::unnecessary_wraps, reason = "it stands among those that there may not be")]
fn shown<'r>(value: impl Display) -> Option<Fact<'r>> {
    Some(Fact::Text(value.to_string().into()))
}

fn bypass(status: CacheStatus) -> Option<&'static str> {
    match status {
        CacheStatus::Bypass(reason) => Some(reason.as_str()),
        CacheStatus::Hit | CacheStatus::Miss | CacheStatus::Expired => None,
    }
}

/// What happened, for whoever reads nothing else.
const fn message(record: &Record) -> &'static str {
    match record.outcome {
        Outcome::Success => match record.cache.reuse() {
            Some(Reuse::Stored) => "call answered from the cache",
            Some(Reuse::Similar) => "call answered from the cache, as a similar one was",
            Some(Reuse::Coalesced) => "call answered with an equal one",
            None => "call answered",
        },
        Outcome::ClientError if record.attempt.is_none() => "call refused by weir",
        Outcome::ClientError => "call refused by the provider",
        Outcome::UpstreamError => "call failed at the provider",
        Outcome::Timeout => "call timed out",
        Outcome::InternalError => "call failed inside weir",
        Outcome::RateLimited => "call refused by a rate limit",
        Outcome::BudgetBlocked => "call refused by a budget",
        Outcome::Cancelled => "call given up by the app",
    }
}

/// How loud: what the operator should look at is a warning, what is weir's own fault an error.
pub(super) const fn level(outcome: Outcome) -> Level {
    match outcome {
        Outcome::UpstreamError | Outcome::Timeout => Level::WARN,
        Outcome::InternalError => Level::ERROR,
        Outcome::Success
        | Outcome::ClientError
        | Outcome::RateLimited
        | Outcome::BudgetBlocked
        | Outcome::Cancelled => Level::INFO,
    }
}
