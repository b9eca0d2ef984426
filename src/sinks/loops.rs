//! Loops: what is counted of agent loops, of the tools that models ask for, and what runs are in progress at the scrape.
//!
//! A call counts for the kind of loop that it names itself; a run, for the kind that its first call named.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter as PromCounter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::labels::{self, Limiter};
use crate::record::Record;
use crate::record::call::Caller;
use crate::record::outcome::{ErrorType, RunStatus};
use crate::record::usage::Counter;
use crate::runs::run::{Ended, Reason};
use crate::runs::{Active, Event};
use crate::semconv::label;
use crate::sinks::families::{Families, Labels, Origin, text};
use crate::sinks::money::Amount;
use crate::sinks::series::Shelf;

/// Asks for the runs in progress, by the values of the label `loop_type`.
pub type WatchRuns = Box<dyn Fn() -> Vec<(Arc<str>, Active)> + Send + Sync>;

/// What is counted of all loops.
pub(super) struct Loops {
    pub(super) types: Arc<Limiter>,
    pub(super) tools: Arc<Limiter>,
    series: Shelf<Arc<str>, Arc<LoopSeries>>,
    invocations: Shelf<[Arc<str>; 2], PromCounter>,
    runs: OnceLock<WatchRuns>,
}

/// What is counted for loops of one kind.
#[derive(Debug)]
struct LoopSeries {
    name: Arc<str>,
    calls: PromCounter,
    prompt: PromCounter,
    completion: PromCounter,
    cost: Amount,
    runaways: [PromCounter; Reason::ALL.len()],
    active: Gauge,
    most_calls: Gauge,
    /// Made with the first call of a run: until then, there is nothing to end.
    durations: OnceLock<[Histogram; RunStatus::ALL.len()]>,
}

impl LoopSeries {
    fn new(families: &Families, name: Arc<str>) -> Self {
        let labels = vec![(label::LOOP_TYPE, Arc::clone(&name))];
        let [prompt, completion] = families.loop_tokens.each(&labels, label::TOKEN_TYPE, ["prompt", "completion"]);
        Self {
            calls: families.loop_calls.with(&labels),
            prompt,
            completion,
            cost: families.loop_cost.with(&labels),
            runaways: families.loop_runaways.each(&labels, label::REASON, Reason::ALL.map(Reason::as_str)),
            active: families.active_loops.with(&labels),
            most_calls: families.loop_max_calls.with(&labels),
            durations: OnceLock::new(),
            name,
        }
    }

    fn durations(&self, families: &Families) -> &[Histogram; RunStatus::ALL.len()] {
        self.durations.get_or_init(|| {
            let has_space = is_closed(&self.name) || families.room.has_space(Origin::Outside);
            let name = if has_space { Arc::clone(&self.name) } else { labels::other() };
            let labels = vec![(label::LOOP_TYPE, name)];
            families.loop_duration.each(&labels, label::STATUS, RunStatus::ALL.map(RunStatus::as_str))
        })
    }

    fn set(&self, now: Active) {
        self.active.set(i64::try_from(now.runs).unwrap_or(i64::MAX));
        self.most_calls.set(i64::try_from(now.most_calls).unwrap_or(i64::MAX));
    }
}

impl Loops {
    pub(super) fn new(families: &Families, max_types: usize, max_tools: usize) -> Self {
        let loops = Self {
            types: Arc::new(Limiter::new(max_types)),
            tools: Arc::new(Limiter::new(max_tools)),
            series: Shelf::new(),
            invocations: Shelf::new(),
            runs: OnceLock::new(),
        };
        // At zero from the start: loops of no kind.
        loops.of(families, labels::none());
        loops
    }

    /// Has `watch` asked at each scrape. The first one stays.
    pub(super) fn watch(&self, watch: WatchRuns) {
        let _ = self.runs.set(watch);
    }

    /// Counts a call that is over, and the tools it brought.
    pub(super) fn closed(&self, families: &Families, record: &Record) {
        let Caller { loop_type, run, .. } = &record.call.caller;
        let is_in_loop = loop_type.is_some() || run.is_some();
        if !record.is_of_app() || (!is_in_loop && record.reply.tools.is_empty()) {
            return;
        }
        let name = loop_type.as_deref().map_or_else(labels::none, |name| self.types.admit(name));
        for tool in &record.reply.tools {
            self.invoked(families, tool, &name).inc();
        }
        if !is_in_loop || !record.asked_a_model() {
            return;
        }
        let series = self.of(families, name);
        series.calls.inc();
        if run.is_some() {
            series.durations(families);
        }
        for (counter, tokens) in [(Counter::InputTokens, &series.prompt), (Counter::OutputTokens, &series.completion)] {
            tokens.inc_by(record.bought().and_then(|usage| usage.get(counter)).unwrap_or(0));
        }
        if let Some(amount) = record.spent().amount() {
            series.cost.inc_by(amount);
        }
    }

    /// Counts what happened to a run.
    pub(super) fn happened(&self, families: &Families, event: Event) {
        match event {
            Event::RanAway(loop_type, reason) => {
                self.of(families, loop_type).runaways[reason as usize].inc();
            }
            Event::Ended(Ended { loop_type, status, error_type, took }) => {
                let series = self.of(families, loop_type);
                series.durations(families)[status as usize].observe(took.as_secs_f64());
                if let Some(error_type) = error_type {
                    let labels = |name, error_type: ErrorType| -> Labels {
                        vec![(label::LOOP_TYPE, name), (label::ERROR_TYPE, text(error_type.as_str()))]
                    };
                    let named = labels(Arc::clone(&series.name), error_type);
                    let folded = labels(labels::other(), ErrorType::Other);
                    families.loop_errors.with_space_or(Origin::Outside, &named, &folded).inc();
                }
            }
        }
    }

    /// Asks what is in progress now; what ends by being asked is counted.
    pub(super) fn look(&self, families: &Families) {
        let Some(watch) = self.runs.get() else { return };
        let mut now = HashMap::<Arc<str>, Active>::new();
        for (loop_type, active) in watch() {
            // Kinds for which there is no space are one.
            let sum = now.entry(Arc::clone(&self.of(families, loop_type).name)).or_default();
            sum.runs += active.runs;
            sum.most_calls = sum.most_calls.max(active.most_calls);
        }
        self.series.each(|series| series.set(now.get(&series.name).copied().unwrap_or_default()));
    }

    fn of(&self, families: &Families, name: Arc<str>) -> Arc<LoopSeries> {
        if let Some(known) = self.series.find(&name) {
            return known;
        }
        let name = if is_closed(&name) || families.room.has_space(Origin::Outside) {
            name
        } else {
            self.types.refuse();
            labels::other()
        };
        let make = |name: &Arc<str>| Arc::new(LoopSeries::new(families, Arc::clone(name)));
        self.series.find(&name).unwrap_or_else(|| self.series.find_or_make(name, make))
    }

    fn invoked(&self, families: &Families, tool: &str, loop_type: &Arc<str>) -> PromCounter {
        let names = [self.tools.admit(tool), Arc::clone(loop_type)];
        self.invocations.find(&names).unwrap_or_else(|| {
            let labels = |[tool, loop_type]: &[Arc<str>; 2]| {
                vec![(label::TOOL, Arc::clone(tool)), (label::LOOP_TYPE, Arc::clone(loop_type))]
            };
            let folded = labels(&[labels::other(), labels::other()]);
            self.invocations.find_or_make(names, |names| {
                families.tool_invocations.with_space_or(Origin::Outside, &labels(names), &folded)
            })
        })
    }
}

/// Whether there is one anyway.
fn is_closed(name: &str) -> bool {
    name == labels::NONE || name == labels::OTHER
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loops").field("types", &self.types).field("tools", &self.tools).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::sinks::Settings;
    use crate::sinks::families::Room;

    #[test]
    fn a_new_kind_adds_no_more_than_is_left_free_for_it() {
        let families = Families::register(&mut Registry::default(), &Settings::default());
        let made = || families.room.made.load(Ordering::Relaxed);
        let series = LoopSeries::new(&families, text("research"));
        let counters = made();
        series.durations(&families);
        for added in [counters, made() - counters] {
            assert!((1..=Room::LARGEST_SET).contains(&added), "{added}");
        }
    }
}
