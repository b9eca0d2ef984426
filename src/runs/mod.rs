//! Runs: agent loops in progress. The calls that carry one run id are one run; what it has come to is added up while it
//! goes on, and a run that goes round in circles is told from one that gets on.
//!
//! Bounded: so many runs, each of constant size; of what is asked and answered only fingerprints are held. Knows records
//! and callers; no provider, no price, and not what becomes of a call. Without a run id there is no run.

pub mod run;
pub mod wording;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::labels::{self, Limiter};
use crate::record::Record;
use crate::record::call::{Caller, Operation};
use crate::record::fingerprint::Fingerprint;
use crate::record::outcome::{Outcome, RunStatus};
use crate::runs::run::{Ended, Reason, Run, Runaway};
use crate::semconv::attribute;
use crate::units::{PicoUsd, Span};

/// Calls of different runs rarely wait for each other.
const MOST_SHARDS: usize = 16;

/// What the operator writes of agent loops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// After so long without a call, a run is over.
    pub idle: Span,
    /// Most runs followed at once. Beyond it, the one that has been silent for longest is forgotten, which ends it.
    pub max_runs: usize,
    /// How many of a run's last 16 calls must ask the same, or be answered with the same tool calls, for it to be a
    /// runaway loop: from 2 to 16, or 0 for never.
    pub repeats: usize,
    /// Most calls of models in one run.
    pub max_calls_per_run: Option<u64>,
    /// Most tokens bought by one run, in and out.
    pub max_tokens_per_run: Option<u64>,
    /// Most US dollars spent by one run. Calls whose cost is not known do not count.
    pub max_cost_per_run: Option<PicoUsd>,
    /// How long one run may go on.
    pub max_duration_per_run: Option<Span>,
    /// What becomes of a run that repeats itself, or wants another call although it has used up one of its limits:
    /// `alert` counts it and says so in the log, once; `block` also refuses its further calls.
    pub on_runaway: OnRunaway,
}

/// What becomes of a runaway loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRunaway {
    /// It is counted, and told in the log.
    Alert,
    /// Its further calls are refused, too.
    Block,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle: Span::from_secs(300),
            max_runs: 10_000,
            repeats: 8,
            max_calls_per_run: None,
            max_tokens_per_run: None,
            max_cost_per_run: None,
            max_duration_per_run: None,
            on_runaway: OnRunaway::Alert,
        }
    }
}

/// What happens to runs, for whoever counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One is a runaway loop: its value of the label `loop_type`, and why. Once for each run.
    RanAway(Arc<str>, Reason),
    /// One is over.
    Ended(Ended),
}

/// Told what happens to runs. Must not wait.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// Runs of one kind in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// How many there are.
    pub runs: u64,
    /// The most calls that any of them has made.
    pub most_calls: u64,
}

/// A call's place in its run, from its beginning to its end.
#[derive(Debug)]
pub struct Step {
    key: u64,
    /// When the run began: tells it from an earlier one of the same id.
    began: Instant,
    /// Whether it is counted among the run's calls.
    is_counted: bool,
    /// What it asks.
    question: Option<Fingerprint>,
    refused: Option<Runaway>,
}

impl Step {
    /// What is wrong with its run, if its further calls are refused.
    #[must_use]
    pub const fn refused(&self) -> Option<&Runaway> {
        self.refused.as_ref()
    }

    /// What the call asks, for telling one that asks the same.
    pub const fn asks(&mut self, question: Option<Fingerprint>) {
        self.question = question;
    }
}

/// The runs in progress.
pub struct Runs {
    settings: Settings,
    loop_types: Arc<Limiter>,
    hasher: RandomState,
    shards: Arc<[Mutex<Shard>]>,
    most_in_shard: usize,
    on_event: Arc<dyn Fn(Event) + Send + Sync>,
}

type Shard = HashMap<u64, Box<Run>>;

impl Runs {
    /// No run in progress. `loop_types` caps the values of the label `loop_type`.
    #[must_use]
    pub fn new(settings: &Settings, loop_types: Arc<Limiter>, on_event: OnEvent) -> Self {
        let shards = settings.max_runs.clamp(1, MOST_SHARDS);
        Self {
            settings: settings.clone(),
            loop_types,
            hasher: RandomState::new(),
            shards: std::iter::repeat_with(Mutex::default).take(shards).collect(),
            most_in_shard: (settings.max_runs / shards).max(1),
            on_event: on_event.into(),
        }
    }

    /// The same runs, on other terms. How many there is room for does not change.
    #[must_use]
    pub fn on_terms(&self, settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            loop_types: Arc::clone(&self.loop_types),
            hasher: self.hasher.clone(),
            shards: Arc::clone(&self.shards),
            most_in_shard: self.most_in_shard,
            on_event: Arc::clone(&self.on_event),
        }
    }

    /// A call begins; `None` if it names no run. It is over when [`Runs::leave`] is told.
    #[must_use]
    pub fn enter(&self, caller: &Caller, operation: Operation, now: Instant) -> Option<Step> {
        let run = caller.run.as_deref()?;
        // Two teams that count their runs from one do not share them.
        let key = self.hasher.hash_one((&caller.namespace, &caller.workspace, run));
        let mut ended = Vec::new();
        let (step, judged) = {
            let mut shard = self.shard(key);
            if shard.get(&key).is_some_and(|run| self.is_idle(run, now)) {
                ended.extend(shard.remove(&key).and_then(|run| run.end(None)));
            }
            if !shard.contains_key(&key) {
                ended.extend(self.make_room(&mut shard));
            }
            let run = shard.entry(key).or_insert_with(|| Box::new(Run::begin(self.loop_type(caller), now)));
            self.step(run, key, operation, now)
        };
        self.tell_ends(ended);
        if let Some((loop_type, runaway)) = judged {
            tell(caller, &runaway);
            (self.on_event)(Event::RanAway(loop_type, runaway.reason));
        }
        Some(step)
    }

    /// A call is over, at `now`, as `record` says.
    pub fn leave(&self, step: &Step, record: &Record, now: Instant) {
        let ended = {
            let mut shard = self.shard(step.key);
            let Some(run) = shard.get_mut(&step.key).filter(|run| run.started == step.began) else { return };
            run.in_flight = run.in_flight.saturating_sub(1);
            run.last_active = run.last_active.max(now);
            let counts = record.asked_a_model();
            run.tally.calls = run.tally.calls.saturating_sub(u64::from(step.is_counted)) + u64::from(counts);
            if counts || is_refused(record) {
                run.note(record, step.question, self.settings.repeats);
            }
            let said = says_its_end(record);
            said.and_then(|status| shard.remove(&step.key)?.end(Some(status)))
        };
        self.tell_ends(ended);
    }

    /// What is going on now, by the values of the label `loop_type`. Ends the runs that have been silent for too long.
    #[must_use]
    pub fn active(&self, now: Instant) -> BTreeMap<Arc<str>, Active> {
        let mut active = BTreeMap::<Arc<str>, Active>::new();
        for shard in &*self.shards {
            let mut runs = lock(shard);
            let ended: Vec<Ended> =
                runs.extract_if(|_, run| self.is_idle(run, now)).filter_map(|(_, run)| run.end(None)).collect();
            for run in runs.values().filter(|run| run.tally.calls > 0) {
                let kind = active.entry(Arc::clone(&run.loop_type)).or_default();
                kind.runs += 1;
                kind.most_calls = kind.most_calls.max(run.tally.calls);
            }
            drop(runs);
            self.tell_ends(ended);
        }
        active
    }

    /// How many runs are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a step of `run`; with it, what is wrong with the run, if that has just come out.
    fn step(&self, run: &mut Run, key: u64, operation: Operation, now: Instant) -> (Step, Option<(Arc<str>, Runaway)>) {
        let asks_a_model = operation.is_billed();
        let judged = if asks_a_model { run.judge(&self.settings, now) } else { None };
        let refused = run.runaway(now).filter(|_| self.settings.on_runaway == OnRunaway::Block);
        let is_counted = asks_a_model && refused.is_none();
        run.in_flight += 1;
        run.last_active = run.last_active.max(now);
        run.tally.calls += u64::from(is_counted);
        let step = Step { key, began: run.started, is_counted, question: None, refused };
        (step, judged.map(|runaway| (Arc::clone(&run.loop_type), runaway)))
    }

    fn tell_ends(&self, ended: impl IntoIterator<Item = Ended>) {
        for ended in ended {
            (self.on_event)(Event::Ended(ended));
        }
    }

    fn loop_type(&self, caller: &Caller) -> Arc<str> {
        caller.loop_type.as_deref().map_or_else(labels::none, |name| self.loop_types.admit(name))
    }

    fn is_idle(&self, run: &Run, now: Instant) -> bool {
        run.in_flight == 0 && now.saturating_duration_since(run.last_active) >= self.settings.idle.get()
    }

    /// Makes room for one more: if there is none, the run that has been silent for longest goes. Only a full shard is
    /// searched, and its size is bounded.
    fn make_room(&self, shard: &mut Shard) -> Option<Ended> {
        if shard.len() < self.most_in_shard {
            return None;
        }
        let longest = shard.iter().min_by_key(|(_, run)| (run.in_flight > 0, run.last_active)).map(|(key, _)| *key);
        longest.and_then(|key| shard.remove(&key)).and_then(|run| run.end(None))
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        let shards = self.shards.len() as u64;
        let position = usize::try_from(key % shards).expect("there are few shards");
        lock(&self.shards[position])
    }
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runs").field("settings", &self.settings).field("runs", &self.len()).finish_non_exhaustive()
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the operator's limits refused the call.
const fn is_refused(record: &Record) -> bool {
    matches!(record.outcome, Outcome::RateLimited | Outcome::BudgetBlocked)
}

/// How the app says that the run ends with this call. That it was a success can only be so if the call was one: until
/// then, the app's SDK tries again.
fn says_its_end(record: &Record) -> Option<RunStatus> {
    let is_well = record.outcome == Outcome::Success;
    record.call.caller.run_ends.filter(|status| record.is_of_app() && (is_well || *status != RunStatus::Success))
}

/// One line for each runaway loop: who it is and what it has come to, never what it says.
fn tell(caller: &Caller, runaway: &Runaway) {
    let Runaway { reason, tally, age } = runaway;
    let shown = |name: &Option<Box<str>>| name.as_deref().map(|name| labels::tidy(name).into_owned());
    tracing::event!(
        target: "weir::runs",
        tracing::Level::WARN,
        { attribute::WEIR_RUN } = shown(&caller.run).as_deref(),
        { attribute::WEIR_LOOP_TYPE } = shown(&caller.loop_type).as_deref(),
        { attribute::WEIR_AGENT } = shown(&caller.agent).as_deref(),
        { attribute::WEIR_LOOP_REASON } = reason.as_str(),
        { attribute::WEIR_LOOP_CALLS } = tally.calls,
        { attribute::WEIR_LOOP_ERRORS } = tally.errors,
        { attribute::WEIR_LOOP_TOOL_CALLS } = tally.tool_calls,
        { attribute::WEIR_LOOP_TOKENS } = tally.tokens(),
        { attribute::WEIR_LOOP_UNPRICED } = tally.unpriced,
        { attribute::WEIR_COST_USD } = tally.cost.to_string(),
        { attribute::WEIR_DURATION } = age.as_secs_f64(),
        "an agent loop runs away: {runaway} (`{}`)",
        reason.knob()
    );
}

#[cfg(test)]
mod tests;
