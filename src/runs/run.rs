//! Run: one run of an agent loop, from its first call on. Constant in size, however long it goes on. Pure: takes the
//! time it is given.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::record::Record;
use crate::record::fingerprint::Fingerprint;
use crate::record::outcome::{ErrorType, Outcome, RunStatus};
use crate::record::usage::{Cost, Counter};
use crate::runs::Settings;
use crate::units::PicoUsd;

/// How many of its last calls a run is judged by.
pub const WINDOW: usize = 16;

/// Why a run is taken for a runaway loop: the label `reason` of `weir_loop_runaways_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It asks the same again and again.
    RepeatedCalls,
    /// The model asks for the same tool calls again and again.
    RepeatedTools,
    /// It has made as many calls as it may.
    MaxCalls,
    /// It has used as many tokens as it may.
    MaxTokens,
    /// It has spent as much as it may.
    MaxCost,
    /// It has gone on for as long as it may.
    MaxDuration,
}

impl Reason {
    /// Every reason there is, for creating series at zero.
    pub const ALL: [Self; 6] =
        [Self::RepeatedCalls, Self::RepeatedTools, Self::MaxCalls, Self::MaxTokens, Self::MaxCost, Self::MaxDuration];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RepeatedCalls => "repeated_calls",
            Self::RepeatedTools => "repeated_tools",
            Self::MaxCalls => "max_calls",
            Self::MaxTokens => "max_tokens",
            Self::MaxCost => "max_cost",
            Self::MaxDuration => "max_duration",
        }
    }

    /// The knob that says how much is too much.
    #[must_use]
    pub const fn knob(self) -> &'static str {
        match self {
            Self::RepeatedCalls | Self::RepeatedTools => "loops.repeats",
            Self::MaxCalls => "loops.max_calls_per_run",
            Self::MaxTokens => "loops.max_tokens_per_run",
            Self::MaxCost => "loops.max_cost_per_run",
            Self::MaxDuration => "loops.max_duration_per_run",
        }
    }
}

/// What a run has come to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls of a model, those in flight included, but for those that were refused.
    pub calls: u64,
    /// Calls that did not end well.
    pub errors: u64,
    /// Tool calls that the model asked for.
    pub tool_calls: u64,
    /// Tokens bought that went in, as far as they are known.
    pub prompt_tokens: u64,
    /// Tokens bought that came out, as far as they are known.
    pub completion_tokens: u64,
    /// What is known to have been spent.
    pub cost: PicoUsd,
    /// Calls whose cost is not known, and not in `cost`.
    pub unpriced: u64,
}

impl Tally {
    /// Tokens bought, in and out.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

/// A run that is a runaway loop, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runaway {
    /// Why it is one.
    pub reason: Reason,
    /// What it has come to.
    pub tally: Tally,
    /// How long it has been going on.
    pub age: Duration,
}

/// In words for the app and for the operator.
impl fmt::Display for Runaway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, tally, age } = self;
        match reason {
            Reason::RepeatedCalls => f.write_str("its latest calls ask the same again and again"),
            Reason::RepeatedTools => f.write_str("the model asks for the same tool calls again and again"),
            Reason::MaxCalls => write!(f, "it has made {} model calls", tally.calls),
            Reason::MaxTokens => write!(f, "it has used {} tokens", tally.tokens()),
            Reason::MaxCost => write!(f, "it has spent {} US dollars", tally.cost),
            Reason::MaxDuration => write!(f, "it has been going on for {} seconds", age.as_secs()),
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The value of the label `loop_type`.
    pub loop_type: Arc<str>,
    /// How.
    pub status: RunStatus,
    /// Why, if it ended in error.
    pub error_type: Option<ErrorType>,
    /// From the head of its first call's request to the end of its last call.
    pub took: Duration,
}

/// A run in progress.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) loop_type: Arc<str>,
    pub(super) started: Instant,
    pub(super) last_active: Instant,
    pub(super) in_flight: usize,
    pub(super) tally: Tally,
    /// Whether it has been refused a call.
    was_refused: bool,
    /// How its last call ended, once one has.
    last: Option<Last>,
    questions: Ring,
    tool_calls: Ring,
    /// Which of the two rings said that it repeats itself.
    repeats: Option<Reason>,
    ran_away: Option<Reason>,
}

/// How a call ended, as far as it says how its run did.
#[derive(Clone, Copy, Debug)]
struct Last {
    outcome: Outcome,
    error_type: Option<ErrorType>,
    asks_for_tools: bool,
}

impl Run {
    pub(super) fn begin(loop_type: Arc<str>, now: Instant) -> Self {
        Self {
            loop_type,
            started: now,
            last_active: now,
            in_flight: 0,
            tally: Tally::default(),
            was_refused: false,
            last: None,
            questions: Ring::default(),
            tool_calls: Ring::default(),
            repeats: None,
            ran_away: None,
        }
    }

    /// Whether a further call of a model makes it a runaway loop; said once.
    pub(super) fn judge(&mut self, settings: &Settings, now: Instant) -> Option<Runaway> {
        if self.ran_away.is_some() {
            return None;
        }
        self.ran_away = self.repeats.or_else(|| self.used_up(settings, now));
        self.runaway(now)
    }

    /// What it is as a runaway loop, if it is one.
    pub(super) fn runaway(&self, now: Instant) -> Option<Runaway> {
        let age = now.saturating_duration_since(self.started);
        self.ran_away.map(|reason| Runaway { reason, tally: self.tally, age })
    }

    /// Which of its limits it has used up. They hold for what is known: what calls in flight will have used is not.
    fn used_up(&self, settings: &Settings, now: Instant) -> Option<Reason> {
        let Self { tally, started, .. } = self;
        let age = now.saturating_duration_since(*started);
        let limits = [
            (Reason::MaxCalls, settings.max_calls_per_run.is_some_and(|most| tally.calls >= most)),
            (Reason::MaxTokens, settings.max_tokens_per_run.is_some_and(|most| tally.tokens() >= most)),
            (Reason::MaxCost, settings.max_cost_per_run.is_some_and(|most| tally.cost >= most)),
            (Reason::MaxDuration, settings.max_duration_per_run.is_some_and(|most| age >= most.get())),
        ];
        limits.into_iter().find_map(|(reason, is_over)| is_over.then_some(reason))
    }

    /// A call of it has ended that asked a model, or was refused.
    pub(super) fn note(&mut self, record: &Record, question: Option<Fingerprint>, repeats: usize) {
        let asks_for_tools = record.reply.calls.is_some();
        self.last = Some(Last { outcome: record.outcome, error_type: record.error_type, asks_for_tools });
        self.tally.errors += u64::from(record.outcome != Outcome::Success);
        if !record.asked_a_model() {
            self.was_refused = true;
            return;
        }
        self.tally.tool_calls += record.reply.tools.len() as u64;
        if let Some(usage) = record.bought() {
            let count = |counter| usage.get(counter).unwrap_or(0);
            self.tally.prompt_tokens += count(Counter::InputTokens);
            self.tally.completion_tokens += count(Counter::OutputTokens);
        }
        match record.spent() {
            Cost::Known(charge) => self.tally.cost += charge.total(),
            Cost::Unpriced(_) => self.tally.unpriced += 1,
            Cost::Nothing => {}
        }
        if !is_worth_another_try(record) {
            self.compare(question, record.reply.calls, repeats);
        }
    }

    /// Compares a call with those before it.
    fn compare(&mut self, question: Option<Fingerprint>, calls: Option<Fingerprint>, repeats: usize) {
        for (reason, ring, print) in [
            (Reason::RepeatedCalls, &mut self.questions, question),
            (Reason::RepeatedTools, &mut self.tool_calls, calls),
        ] {
            let equal = print.map_or(0, |print| ring.note(print));
            if repeats > 0 && equal >= repeats {
                self.repeats.get_or_insert(reason);
            }
        }
    }

    /// The run is over; `said` by the app, if it is. `None` if nothing of it ever came to a model.
    ///
    /// Without the app's word, its last call tells: a run whose last answer asks for tools that were never answered has
    /// been left in the middle, and so has one none of whose calls has ended.
    pub(super) fn end(self, said: Option<RunStatus>) -> Option<Ended> {
        if self.tally.calls == 0 && !self.was_refused {
            return None;
        }
        let told = match self.last {
            None => RunStatus::Timeout,
            Some(last) => match last.outcome {
                Outcome::Success if last.asks_for_tools => RunStatus::Timeout,
                Outcome::Success => RunStatus::Success,
                Outcome::Timeout => RunStatus::Timeout,
                Outcome::Cancelled => RunStatus::Cancelled,
                Outcome::ClientError
                | Outcome::UpstreamError
                | Outcome::InternalError
                | Outcome::RateLimited
                | Outcome::BudgetBlocked => RunStatus::Error,
            },
        };
        let status = said.unwrap_or(told);
        let why = || self.last.and_then(|last| last.error_type).unwrap_or(ErrorType::Other);
        Some(Ended {
            error_type: (status == RunStatus::Error).then(why),
            loop_type: self.loop_type,
            status,
            took: self.last_active.saturating_duration_since(self.started),
        })
    }
}

/// Whether an equal call is what a client should make next: SDKs try again after these, and that is no loop.
fn is_worth_another_try(record: &Record) -> bool {
    match record.outcome {
        Outcome::UpstreamError | Outcome::Timeout | Outcome::Cancelled | Outcome::InternalError => true,
        Outcome::ClientError => matches!(record.error_type, Some(ErrorType::Status(408 | 409 | 429))),
        Outcome::Success | Outcome::RateLimited | Outcome::BudgetBlocked => false,
    }
}

/// The fingerprints of the last calls.
#[derive(Debug, Default)]
struct Ring {
    prints: [Fingerprint; WINDOW],
    noted: usize,
}

impl Ring {
    /// Takes in one more; how many of the last ones are equal to it, itself included.
    fn note(&mut self, print: Fingerprint) -> usize {
        self.prints[self.noted % WINDOW] = print;
        self.noted = self.noted.wrapping_add(1);
        let held = &self.prints[..self.noted.min(WINDOW)];
        held.iter().filter(|known| **known == print).count()
    }
}
