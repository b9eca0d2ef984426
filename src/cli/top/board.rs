//! Board: what has come so far, added up: the rates of the last minutes, tables of models, agents and users, the latest
//! calls. Pure, and bounded however long it goes on. Knows no terminal.

use std::collections::{HashMap, VecDeque};

use super::news::{Call, Gauges, News};
use crate::units::PicoUsd;

/// How many seconds the rates are remembered.
const SECONDS: usize = 120;
/// How many of the latest calls are remembered.
const LATEST: usize = 500;
/// How many names a table has at most; what comes later is added up as the last one.
const MOST_ROWS: usize = 500;
/// How many latencies of a row are remembered: the latest.
const LATENCIES: usize = 256;
/// Who is beyond [`MOST_ROWS`].
const OTHERS: &str = "(others)";
/// Who gives no name.
const NAMELESS: &str = "(none)";

/// How weir is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing was heard yet.
    #[default]
    Connecting,
    /// It says what goes on.
    Connected,
    /// It does not answer; in words.
    Away(String),
}

/// What has come so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    pub(super) link: Link,
    /// How weir does; `None` until it says so.
    pub(super) gauges: Option<Gauges>,
    /// Calls in each second, the latest last.
    pub(super) calls: VecDeque<u64>,
    /// Pico-dollars spent in each second, the latest last.
    pub(super) spending: VecDeque<u64>,
    /// The latest calls, the latest first.
    pub(super) latest: VecDeque<Call>,
    /// Calls that were lost on the way, since the beginning.
    pub(super) lost: u64,
    models: Table,
    agents: Table,
    users: Table,
}

impl Call {
    /// Whether it failed, or was refused; an app that hung up is neither.
    pub(super) fn has_failed(&self) -> bool {
        self.outcome != "success" && self.outcome != "cancelled"
    }
}

/// What a table is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    /// The models asked for.
    #[default]
    Model,
    /// The agents who ask.
    Agent,
    /// The users they ask for.
    User,
}

impl By {
    /// Every table there is.
    pub(super) const ALL: [Self; 3] = [Self::Model, Self::Agent, Self::User];

    /// What its rows are called.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Agent => "agents",
            Self::User => "users",
        }
    }
}

/// What a table is sorted by, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Money.
    #[default]
    Cost,
    /// How many there are.
    Calls,
    /// Tokens.
    Tokens,
    /// How long 95 in a hundred take at most.
    Slowest,
    /// How many failed.
    Failed,
}

impl Sort {
    /// Every order there is.
    pub(super) const ALL: [Self; 5] = [Self::Cost, Self::Calls, Self::Tokens, Self::Slowest, Self::Failed];

    /// The column.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Calls => "calls",
            Self::Tokens => "tokens",
            Self::Slowest => "p95",
            Self::Failed => "failed",
        }
    }
}

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) tokens: u64,
    pub(super) spent: PicoUsd,
    /// How many calls cost nobody knows what.
    pub(super) unpriced: u64,
    /// What 95 in a hundred of the latest calls took at most, in milliseconds.
    pub(super) p95_ms: Option<f64>,
}

impl Board {
    /// Adds what has come.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Connected => self.link = Link::Connected,
            News::Away(why) => {
                self.link = Link::Away(why);
                self.gauges = None;
            }
            News::Lost(calls) => self.lost = self.lost.saturating_add(calls),
            News::Gauges(gauges) => {
                let spent = gauges.last_second.cost_usd.unwrap_or_default().pico();
                push(&mut self.calls, gauges.last_second.calls, SECONDS);
                push(&mut self.spending, u64::try_from(spent).unwrap_or(u64::MAX), SECONDS);
                self.gauges = Some(*gauges);
            }
            News::Call(_, call) => {
                self.models.add(call.model.as_deref(), &call);
                self.agents.add(call.agent_id.as_deref(), &call);
                self.users.add(call.user_id.as_deref(), &call);
                self.latest.truncate(LATEST - 1);
                self.latest.push_front(*call);
            }
        }
    }

    /// The rows of a table whose names contain `filter`, the first ones first.
    pub(super) fn rows(&self, by: By, sort: Sort, filter: &str) -> Vec<Row> {
        let table = match by {
            By::Model => &self.models,
            By::Agent => &self.agents,
            By::User => &self.users,
        };
        let matching = table.0.iter().filter(|(name, _)| name.contains(filter));
        let mut rows: Vec<Row> = matching.map(|(name, tally)| tally.row(name)).collect();
        rows.sort_by(|one, other| order(sort, other, one).then_with(|| one.name.cmp(&other.name)));
        rows
    }
}

fn order(sort: Sort, one: &Row, other: &Row) -> std::cmp::Ordering {
    match sort {
        Sort::Cost => one.spent.cmp(&other.spent),
        Sort::Calls => one.calls.cmp(&other.calls),
        Sort::Tokens => one.tokens.cmp(&other.tokens),
        Sort::Slowest => one.p95_ms.unwrap_or_default().total_cmp(&other.p95_ms.unwrap_or_default()),
        Sort::Failed => one.failed.cmp(&other.failed),
    }
}

/// Adds the latest; what is too old goes.
fn push<T>(to: &mut VecDeque<T>, what: T, most: usize) {
    if to.len() == most {
        to.pop_front();
    }
    to.push_back(what);
}

/// What calls of the same name come to.
#[derive(Clone, Debug, Default)]
struct Table(HashMap<String, Tally>);

impl Table {
    fn add(&mut self, name: Option<&str>, call: &Call) {
        let name = name.unwrap_or(NAMELESS);
        let has_place = self.0.len() < MOST_ROWS || self.0.contains_key(name);
        let name = if has_place { name } else { OTHERS };
        if let Some(tally) = self.0.get_mut(name) {
            tally.add(call);
        } else {
            self.0.entry(name.to_owned()).or_default().add(call);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Tally {
    calls: u64,
    failed: u64,
    tokens: u64,
    spent: PicoUsd,
    unpriced: u64,
    latencies: VecDeque<f64>,
}

impl Tally {
    fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.failed += u64::from(call.has_failed());
        self.tokens = self.tokens.saturating_add(call.tokens().unwrap_or_default());
        self.spent += call.cost_usd.unwrap_or_default();
        self.unpriced += u64::from(call.unpriced.is_some() && call.reuse.is_none());
        push(&mut self.latencies, call.latency_ms, LATENCIES);
    }

    fn row(&self, name: &str) -> Row {
        let Self { calls, failed, tokens, spent, unpriced, .. } = *self;
        let mut sorted: Vec<f64> = self.latencies.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank.
        let p95_ms = sorted.get((sorted.len() * 95).div_ceil(100).saturating_sub(1)).copied();
        Row { name: name.to_owned(), calls, failed, tokens, spent, unpriced, p95_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::news::Second;

    fn call(model: &str, pico: u128, ms: f64, outcome: &str) -> Call {
        Call {
            model: Some(model.to_owned()),
            cost_usd: Some(PicoUsd::new(pico)),
            latency_ms: ms,
            total_tokens: Some(10),
            outcome: outcome.to_owned(),
            ..Call::default()
        }
    }

    fn take(board: &mut Board, call: Call) {
        board.take(News::Call("".into(), Box::new(call)));
    }

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| &*row.name).collect()
    }

    #[test]
    fn rows_are_added_up_and_sorted_as_wanted() {
        let mut board = Board::default();
        for (model, pico, ms, outcome) in [
            ("dear", 9, 1.0, "success"),
            ("busy", 1, 2.0, "success"),
            ("busy", 1, 3.0, "success"),
            ("slow", 0, 99.0, "timeout"),
            ("slow", 0, 1.0, "cancelled"),
        ] {
            take(&mut board, call(model, pico, ms, outcome));
        }
        for (sort, expected) in [
            (Sort::Cost, ["dear", "busy", "slow"]),
            (Sort::Calls, ["busy", "slow", "dear"]),
            (Sort::Tokens, ["busy", "slow", "dear"]),
            (Sort::Slowest, ["slow", "busy", "dear"]),
            (Sort::Failed, ["slow", "busy", "dear"]),
        ] {
            assert_eq!(names(&board.rows(By::Model, sort, "")), expected, "{sort:?}");
        }
        assert_eq!(names(&board.rows(By::Model, Sort::Cost, "s")), ["busy", "slow"]);
        let slow = &board.rows(By::Model, Sort::Slowest, "slow")[0];
        assert_eq!((slow.calls, slow.failed, slow.tokens, slow.p95_ms), (2, 1, 20, Some(99.0)));
        assert_eq!(names(&board.rows(By::Agent, Sort::Cost, "")), ["(none)"]);
        assert_eq!(board.latest[0].outcome, "cancelled", "the latest first");
    }

    #[test]
    fn a_refused_call_has_failed_and_one_that_the_app_gave_up_has_not() {
        for (outcome, failed) in [("success", false), ("cancelled", false), ("timeout", true), ("rate_limited", true)] {
            assert_eq!(call("m", 0, 1.0, outcome).has_failed(), failed, "{outcome}");
        }
    }

    #[test]
    fn unpriced_calls_are_told_apart_and_reused_answers_used_nothing() {
        let mut board = Board::default();
        let unpriced =
            Call { cost_usd: None, unpriced: Some("unknown_model".to_owned()), ..call("m", 0, 1.0, "success") };
        take(&mut board, unpriced);
        take(&mut board, Call { reuse: Some("cache".to_owned()), ..call("m", 0, 1.0, "success") });
        let row = &board.rows(By::Model, Sort::Cost, "")[0];
        assert_eq!((row.calls, row.unpriced, row.tokens), (2, 1, 10));
    }

    #[test]
    fn however_long_it_goes_on_it_is_bounded() {
        let mut board = Board::default();
        for number in 0..2000_u32 {
            take(&mut board, call(&format!("m{number}"), 1, f64::from(number), "success"));
            let gauges = Gauges { last_second: Second { calls: 1, cost_usd: None }, ..Gauges::default() };
            board.take(News::Gauges(Box::new(gauges)));
        }
        let rows = board.rows(By::Model, Sort::Calls, "");
        assert_eq!((rows.len(), &*rows[0].name, rows[0].calls), (MOST_ROWS + 1, OTHERS, 1500));
        assert_eq!(rows.iter().map(|row| row.calls).sum::<u64>(), 2000, "nobody is left out of the sum");
        assert_eq!((board.latest.len(), board.calls.len(), board.spending.len()), (LATEST, SECONDS, SECONDS));
        assert_eq!(rows[0].p95_ms, Some(1987.0), "of the latest 256");
    }

    #[test]
    fn who_is_away_is_said_to_be_and_what_was_seen_stays() {
        let mut board = Board::default();
        assert_eq!(board.link, Link::Connecting);
        board.take(News::Connected);
        board.take(News::Gauges(Box::default()));
        take(&mut board, call("m", 1, 1.0, "success"));
        board.take(News::Lost(3));
        board.take(News::Lost(4));
        board.take(News::Away("gone".to_owned()));
        assert_eq!(
            (&board.link, &board.gauges),
            (&Link::Away("gone".to_owned()), &None),
            "old gauges say nothing of now"
        );
        assert_eq!((board.lost, board.latest.len()), (7, 1));
    }
}
