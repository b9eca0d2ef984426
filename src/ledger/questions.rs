//! Questions: what calls come to: all together, over time, by what they have in common, by how they failed.
//!
//! Whole days and hours are answered from their sums, the rest of a window from its calls; nobody can tell.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::{Row, Transaction, params_from_iter};

use crate::ledger::entry::Micros;
use crate::ledger::filter::{Condition, Filter};
use crate::ledger::open::totals_of;
use crate::ledger::reader::{About, Answer, Error, Kept, Reader};
use crate::ledger::sums::SUMS;
use crate::ledger::totals::Totals;
use crate::ledger::window::{Grain, Piece, Source, Step, Window, pieces};
use crate::ledger::{DAY, HOUR, MINUTE, start_of};

/// Most points of a series over time: two months of hours, a day of minutes.
pub const MAX_POINTS: u64 = 1_500;

/// What calls have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The workspace.
    Workspace,
    /// The namespace.
    Namespace,
    /// The agent.
    Agent,
    /// The provider.
    Provider,
    /// The operation.
    Operation,
    /// The model that was asked for.
    Model,
}

impl Dimension {
    /// Its name in the ledger, and what it is of.
    const fn names(self) -> &'static str {
        match self {
            Self::Workspace => "SELECT series.id, workspace FROM series JOIN scopes ON scopes.id = series.scope",
            Self::Namespace => "SELECT series.id, namespace FROM series JOIN scopes ON scopes.id = series.scope",
            Self::Agent => "SELECT series.id, agent FROM series JOIN scopes ON scopes.id = series.scope",
            Self::Provider => "SELECT id, provider FROM series",
            Self::Operation => "SELECT id, operation FROM series",
            Self::Model => "SELECT id, model FROM series",
        }
    }
}

/// Which come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Those that cost most.
    Cost,
    /// Those with the most calls.
    Calls,
}

/// Totals by what calls have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The first in the order asked for. A group without a name is of the calls that said none.
    pub first: Vec<(Option<Box<str>>, Totals)>,
    /// How many groups there are beside.
    pub others: usize,
    /// All of those together.
    pub rest: Totals,
}

/// How many calls ended so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How, in the words of outcomes.
    pub outcome: Box<str>,
    /// Why, if that is known.
    pub error_type: Option<Box<str>>,
    /// So many.
    pub calls: u64,
}

impl Reader {
    /// What all calls come to.
    ///
    /// # Errors
    /// [`Error`].
    pub fn totals(&self, window: Window, filter: &Filter) -> Result<Answer<Totals>, Error> {
        self.ask(|snapshot| {
            let mut found = Totals::default();
            let asked = Asked { window, filter, coarsest: Source::COARSEST, is_by_series: false };
            let covers = each(snapshot, &asked, |_, _, totals| found.add(totals))?;
            Ok(Answer { found, covers })
        })
    }

    /// What calls come to in each step of the window, by when the step begins. Where nothing happened, there is a zero.
    ///
    /// # Errors
    /// [`Error`]; `TooManyPoints` beyond [`MAX_POINTS`].
    pub fn over_time(
        &self,
        window: Window,
        filter: &Filter,
        step: Step,
    ) -> Result<Answer<Vec<(Micros, Totals)>>, Error> {
        let points = step.points_in(window);
        if points > MAX_POINTS {
            return Err(Error::TooManyPoints { points, most: MAX_POINTS });
        }
        let points = usize::try_from(points).unwrap_or(usize::MAX);
        self.ask(|snapshot| {
            let first = start_of(step.length(), window.from);
            let starts = (first..).step_by(usize::try_from(step.length()).unwrap_or(usize::MAX));
            let mut found: Vec<(Micros, Totals)> =
                starts.map(|start| (start, Totals::default())).take(points).collect();
            let asked = Asked { window, filter, coarsest: Source::of_step(step), is_by_series: false };
            let covers = each(snapshot, &asked, |at, _, totals| {
                let point = usize::try_from((at - first) / step.length()).unwrap_or(usize::MAX);
                if let Some((_, sum)) = found.get_mut(point) {
                    sum.add(totals);
                }
            })?;
            Ok(Answer { found, covers })
        })
    }

    /// What calls come to by what they have in common: the first `limit` of them, and the rest in one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn by(
        &self,
        dimension: Dimension,
        window: Window,
        filter: &Filter,
        (order, limit): (Order, usize),
    ) -> Result<Answer<Groups>, Error> {
        let groups = self.ask(|snapshot| groups(snapshot, dimension, window, filter))?;
        Ok(groups.map(|groups| {
            let mut first: Vec<_> = groups.into_iter().collect();
            // By name where they are equal: the same question has the same answer.
            first.sort_unstable_by(|(one, of_one), (other, of_other)| {
                let key = |of: &Totals| match order {
                    Order::Cost => Reverse((of.cost.pico(), of.calls)),
                    Order::Calls => Reverse((u128::from(of.calls), 0)),
                };
                key(of_one).cmp(&key(of_other)).then_with(|| one.cmp(other))
            });
            let mut rest = Totals::default();
            let others = first.split_off(limit.min(first.len()));
            for (_, totals) in &others {
                rest.add(totals);
            }
            Groups { first, others: others.len(), rest }
        }))
    }

    /// How many agents made calls.
    ///
    /// # Errors
    /// [`Error`].
    pub fn active_agents(&self, window: Window, filter: &Filter) -> Result<Answer<u64>, Error> {
        let groups = self.ask(|snapshot| groups(snapshot, Dimension::Agent, window, filter))?;
        Ok(groups.map(|groups| groups.keys().flatten().map(|_| 1).sum()))
    }

    /// How calls ended that did not end well, the most frequent first.
    ///
    /// # Errors
    /// [`Error`].
    pub fn failures(&self, window: Window, filter: &Filter) -> Result<Answer<Vec<Failures>>, Error> {
        self.ask(|snapshot| {
            let mut kinds: HashMap<(Box<str>, Box<str>), u64> = HashMap::new();
            let coarsest = if filter.is_by_series() { Source::Periods(Grain::Hour) } else { Source::Calls };
            let (kept, covers) = plan(snapshot, About::Failures, window, coarsest)?;
            for piece in kept {
                let (select, condition) = match piece.source {
                    Source::Calls => {
                        let of_calls = "SELECT outcome, ifnull(error_type, ''), 1 FROM calls \
                                        WHERE id >= ? AND id < ? AND outcome <> 'success'";
                        (of_calls, filter.of_call())
                    }
                    Source::Periods(_) => {
                        let of_hours =
                            "SELECT outcome, error_type, calls FROM hour_errors WHERE start >= ? AND start < ?";
                        (of_hours, filter.of_series())
                    }
                };
                rows(snapshot, select, piece.window, &condition, |row| {
                    let calls = kinds.entry((row.get(0)?, row.get(1)?)).or_default();
                    *calls += row.get::<_, i64>(2)?.unsigned_abs();
                    Ok(())
                })?;
            }
            let mut found: Vec<Failures> = kinds
                .into_iter()
                .map(|((outcome, error_type), calls)| Failures {
                    outcome,
                    error_type: Some(error_type).filter(|it| !it.is_empty()),
                    calls,
                })
                .collect();
            found.sort_unstable_by(|one, other| {
                let key = |it: &Failures| (Reverse(it.calls), it.outcome.clone(), it.error_type.clone());
                key(one).cmp(&key(other))
            });
            Ok(Answer { found, covers })
        })
    }
}

/// Totals by the name that calls have in common, if they have one.
type ByName = HashMap<Option<Box<str>>, Totals>;

fn groups(
    snapshot: &Transaction<'_>,
    dimension: Dimension,
    window: Window,
    filter: &Filter,
) -> Result<Answer<ByName>, Error> {
    let mut by_series: HashMap<i64, Totals> = HashMap::new();
    let asked = Asked { window, filter, coarsest: Source::COARSEST, is_by_series: true };
    let covers = each(snapshot, &asked, |_, series, totals| {
        by_series.entry(series).or_default().add(totals);
    })?;
    let mut found = ByName::new();
    let mut names = snapshot.prepare_cached(dimension.names())?;
    let mut names = names.query([])?;
    while let Some(row) = names.next()? {
        if let Some(totals) = by_series.get(&row.get(0)?) {
            found.entry(row.get(1)?).or_default().add(totals);
        }
    }
    Ok(Answer { found, covers })
}

/// What is asked for, and the coarsest sums that can tell.
struct Asked<'a> {
    window: Window,
    filter: &'a Filter,
    coarsest: Source,
    /// Whether it matters which series it is.
    is_by_series: bool,
}

/// Goes through all that is asked for, in the order of time: when, which series (if that matters), and what it comes to.
/// The part of the window that it covers.
fn each(
    snapshot: &Transaction<'_>,
    asked: &Asked<'_>,
    mut take: impl FnMut(Micros, i64, &Totals),
) -> Result<Window, Error> {
    let coarsest = if asked.filter.is_by_series() { asked.coarsest } else { Source::Calls };
    let (kept, covers) = plan(snapshot, About::Series, asked.window, coarsest)?;
    let (of_series, of_call) = (asked.filter.of_series(), asked.filter.of_call());
    let is_of_all = !asked.is_by_series && *asked.filter == Filter::default();
    for (table, window) in kept.into_iter().flat_map(|piece| tables(piece, is_of_all)) {
        let (select, condition): (&str, _) = match table {
            Table::Calls => (&OF_CALLS, &of_call),
            Table::Series(grain) => (of_periods(grain), &of_series),
            Table::All(select) => (select, &of_series),
        };
        rows(snapshot, select, window, condition, |row| {
            take(row.get(0)?, row.get(1)?, &Totals::of_row(row, 2)?);
            Ok(())
        })?;
    }
    Ok(covers)
}

/// Where a stretch of time is read.
enum Table {
    Calls,
    /// The sums of periods by series.
    Series(Grain),
    /// The sums of periods of all calls, by what is selected from them.
    All(&'static str),
}

/// Where a piece is read. Of all calls there are sums by the minute wherever there are calls.
fn tables(piece: Piece, is_of_all: bool) -> Vec<(Table, Window)> {
    let window = piece.window;
    match piece.source {
        Source::Periods(grain) if is_of_all => vec![(Table::All(of_all(grain.micros())), window)],
        Source::Periods(grain) => vec![(Table::Series(grain), window)],
        Source::Calls => {
            let minutes = window.whole(MINUTE);
            if !is_of_all || minutes.is_empty() {
                return vec![(Table::Calls, window)];
            }
            vec![
                (Table::Calls, Window { to: minutes.from, ..window }),
                (Table::All(of_all(MINUTE)), minutes),
                (Table::Calls, Window { from: minutes.to, ..window }),
            ]
        }
    }
}

static OF_CALLS: LazyLock<String> = LazyLock::new(|| {
    let columns = SUMS.map(|sum| sum.sql).join(", ");
    format!(
        "SELECT calls.id, calls.series, {columns} FROM calls CROSS JOIN series ON series.id = calls.series \
         WHERE calls.id >= ? AND calls.id < ?"
    )
});

fn of_periods(grain: Grain) -> &'static str {
    static SELECTS: LazyLock<[String; 2]> = LazyLock::new(|| {
        Grain::ALL.map(|grain| {
            let columns = SUMS.map(|sum| sum.name).join(", ");
            format!("SELECT start, series, {columns} FROM {} WHERE start >= ? AND start < ?", grain.sums())
        })
    });
    &SELECTS[grain as usize]
}

/// Series 0 is every one.
fn of_all(grain: Micros) -> &'static str {
    static SELECTS: LazyLock<[(Micros, String); 3]> = LazyLock::new(|| {
        [MINUTE, HOUR, DAY].map(|grain| {
            let columns = SUMS.map(|sum| sum.name).join(", ");
            (grain, format!("SELECT start, 0, {columns} FROM {} WHERE start >= ? AND start < ?", totals_of(grain)))
        })
    });
    SELECTS.iter().find_map(|(of, select)| (*of == grain).then_some(&**select)).expect("sums of all calls are by these")
}

/// Where what is known of a window is looked up, and which part of it that covers.
pub(super) fn plan(
    snapshot: &Transaction<'_>,
    about: About,
    window: Window,
    coarsest: Source,
) -> Result<(Vec<Piece>, Window), Error> {
    if window.is_empty() {
        return Ok((Vec::new(), window));
    }
    let kept = Kept::of(snapshot, about)?;
    let wide = kept.widened(window);
    let (pieces, covers) = kept.since.kept(pieces(wide, coarsest), wide);
    Ok((pieces, covers.within(window)))
}

/// Every row of what is selected in a window, as far as it meets the condition.
pub(super) fn rows(
    snapshot: &Transaction<'_>,
    select: &str,
    window: Window,
    condition: &Condition,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> Result<(), Error> {
    let mut select = snapshot.prepare_cached(&format!("{select}{}", condition.sql))?;
    let ends = [window.from.into(), window.to.into()];
    let mut rows = select.query(params_from_iter(ends.iter().chain(&condition.values)))?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}
