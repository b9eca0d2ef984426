//! Window: a stretch of time that is asked about, and the whole days, hours and rest that it is made of.
//!
//! Knows time in UTC, and what the tables of whole periods are called; nothing that is in them.

use crate::ledger::entry::Micros;
use crate::ledger::{DAY, HOUR, MINUTE, start_of};

/// How long the periods are of which something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
}

impl Grain {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    /// So long, in microseconds.
    #[must_use]
    pub const fn micros(self) -> Micros {
        match self {
            Self::Hour => HOUR,
            Self::Day => DAY,
        }
    }

    /// The table of sums by series.
    pub(super) const fn sums(self) -> &'static str {
        match self {
            Self::Hour => "hours",
            Self::Day => "days",
        }
    }

    /// The table of sums by user.
    pub(super) const fn user_sums(self) -> &'static str {
        match self {
            Self::Hour => "user_hours",
            Self::Day => "user_days",
        }
    }

    /// The table of packed latencies.
    #[must_use]
    pub const fn latencies(self) -> &'static str {
        match self {
            Self::Hour => "hour_latencies",
            Self::Day => "day_latencies",
        }
    }
}

/// From one moment on, until just before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first microsecond.
    pub from: Micros,
    /// The first microsecond that is no longer in it.
    pub to: Micros,
}

impl Window {
    /// All there is.
    pub const ALL: Self = Self { from: 0, to: Micros::MAX };

    /// Whether there is no moment in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// What it has in common with `other`.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// The whole periods of this length in it.
    pub(super) fn whole(self, period: Micros) -> Self {
        Self { from: ceil(self.from, period), to: start_of(period, self.to) }
    }
}

/// The beginning of the first period of this length that does not begin before `at`.
#[must_use]
pub fn ceil(at: Micros, period: Micros) -> Micros {
    let start = start_of(period, at);
    if start == at { at } else { start.saturating_add(period) }
}

/// How long the points of a series are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A minute.
    Minute,
    /// Five minutes.
    FiveMinutes,
    /// A quarter of an hour.
    QuarterHour,
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
}

impl Step {
    /// In microseconds.
    #[must_use]
    pub const fn length(self) -> Micros {
        match self {
            Self::Minute => MINUTE,
            Self::FiveMinutes => 5 * MINUTE,
            Self::QuarterHour => 15 * MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
        }
    }

    /// How many points the window has: periods of which any part is in it.
    #[must_use]
    pub fn points_in(self, window: Window) -> u64 {
        if window.is_empty() {
            return 0;
        }
        let (first, last) = (start_of(self.length(), window.from), start_of(self.length(), window.to - 1));
        last.abs_diff(first) / self.length().unsigned_abs() + 1
    }
}

/// Where a stretch of time is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the calls themselves.
    Calls,
    /// In what is kept of whole periods.
    Periods(Grain),
}

impl Source {
    /// The coarsest.
    pub(super) const COARSEST: Self = Self::Periods(Grain::Day);

    /// The coarsest of which a point of such a series can be made.
    pub(super) const fn of_step(step: Step) -> Self {
        match step {
            Step::Day => Self::Periods(Grain::Day),
            Step::Hour => Self::Periods(Grain::Hour),
            Step::Minute | Step::FiveMinutes | Step::QuarterHour => Self::Calls,
        }
    }
}

/// The next finer source than whole periods.
pub(super) const fn finer(grain: Grain) -> Source {
    match grain {
        Grain::Day => Source::Periods(Grain::Hour),
        Grain::Hour => Source::Calls,
    }
}

/// A part of a window, and where it is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) source: Source,
    pub(super) window: Window,
}

/// The pieces that a window is made of, in the order of time: as coarse as may be, finer only where it begins or ends
/// within a period.
pub(super) fn pieces(window: Window, coarsest: Source) -> Vec<Piece> {
    let mut pieces = Vec::new();
    split(window, coarsest, &mut pieces);
    pieces
}

fn split(window: Window, source: Source, pieces: &mut Vec<Piece>) {
    if window.is_empty() {
        return;
    }
    let Source::Periods(grain) = source else {
        return pieces.push(Piece { source, window });
    };
    let whole = window.whole(grain.micros());
    if whole.is_empty() {
        return split(window, finer(grain), pieces);
    }
    split(Window { to: whole.from, ..window }, finer(grain), pieces);
    pieces.push(Piece { source, window: whole });
    split(Window { from: whole.to, ..window }, finer(grain), pieces);
}

/// From when on each of them is whole: what is older may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) calls: Micros,
    pub(super) hours: Micros,
    pub(super) days: Micros,
}

impl Since {
    /// Those of the pieces that are there: the latest stretch without a gap. And what they cover together.
    pub(super) fn kept(self, pieces: Vec<Piece>, window: Window) -> (Vec<Piece>, Window) {
        let mut kept: Vec<Piece> = Vec::with_capacity(pieces.len());
        let mut covered = window;
        for piece in pieces.into_iter().rev() {
            let since = match piece.source {
                Source::Calls => self.calls,
                Source::Periods(Grain::Hour) => self.hours,
                Source::Periods(Grain::Day) => self.days,
            };
            if piece.window.from >= since {
                kept.push(piece);
            } else if piece.window.to > since {
                kept.push(Piece { window: Window { from: since, ..piece.window }, ..piece });
                covered.from = since;
                break;
            } else if kept.is_empty() {
                covered.to = piece.window.from;
            } else {
                covered.from = piece.window.to;
                break;
            }
        }
        kept.reverse();
        (kept, covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: Source = Source::Calls;
    const HOURS: Source = Source::Periods(Grain::Hour);
    const DAYS: Source = Source::Periods(Grain::Day);

    /// Hours and minutes of the first days of 1970.
    const fn at(hours: i64, minutes: i64) -> Micros {
        hours * HOUR + minutes * MINUTE
    }

    const fn window(from: Micros, to: Micros) -> Window {
        Window { from, to }
    }

    const fn piece(source: Source, from: Micros, to: Micros) -> Piece {
        Piece { source, window: window(from, to) }
    }

    #[test]
    fn a_window_is_made_of_the_coarsest_pieces() {
        for (rule, asked, coarsest, expected) in [
            ("nothing", window(5, 5), DAYS, vec![]),
            ("turned round", window(at(2, 0), at(1, 0)), DAYS, vec![]),
            ("whole days", window(0, 2 * DAY), DAYS, vec![piece(DAYS, 0, 2 * DAY)]),
            ("whole days by hour", window(0, 2 * DAY), HOURS, vec![piece(HOURS, 0, 2 * DAY)]),
            ("calls only", window(0, 2 * DAY), CALLS, vec![piece(CALLS, 0, 2 * DAY)]),
            ("within an hour", window(at(1, 5), at(1, 55)), DAYS, vec![piece(CALLS, at(1, 5), at(1, 55))]),
            (
                "over a full hour, but none in it",
                window(at(1, 30), at(2, 30)),
                DAYS,
                vec![piece(CALLS, at(1, 30), at(2, 30))],
            ),
            (
                "over midnight, and no whole day",
                window(at(23, 30), at(25, 10)),
                DAYS,
                vec![
                    piece(CALLS, at(23, 30), at(24, 0)),
                    piece(HOURS, at(24, 0), at(25, 0)),
                    piece(CALLS, at(25, 0), at(25, 10)),
                ],
            ),
            (
                "ragged at both ends",
                window(at(22, 30), at(49, 15)),
                DAYS,
                vec![
                    piece(CALLS, at(22, 30), at(23, 0)),
                    piece(HOURS, at(23, 0), at(24, 0)),
                    piece(DAYS, at(24, 0), at(48, 0)),
                    piece(HOURS, at(48, 0), at(49, 0)),
                    piece(CALLS, at(49, 0), at(49, 15)),
                ],
            ),
        ] {
            assert_eq!(pieces(asked, coarsest), expected, "{rule}");
        }
    }

    #[test]
    fn what_is_gone_is_not_covered() {
        let since = Since { calls: at(30, 10), hours: at(3, 0), days: Micros::MIN };
        for (rule, asked, expected) in [
            ("all there", window(at(30, 10), at(50, 0)), window(at(30, 10), at(50, 0))),
            ("whole days are there", window(0, 2 * DAY), window(0, 2 * DAY)),
            ("the beginning is ragged and gone", window(at(1, 30), at(48, 0)), window(at(3, 0), at(48, 0))),
            ("both ends are", window(at(3, 30), at(29, 30)), window(at(4, 0), at(29, 0))),
            ("within an hour that is gone", window(at(5, 10), at(5, 20)), window(at(5, 10), at(5, 10))),
            ("calls of which some are there", window(at(30, 5), at(30, 50)), window(at(30, 10), at(30, 50))),
        ] {
            assert_eq!(since.kept(pieces(asked, DAYS), asked).1, expected, "{rule}");
        }
    }

    #[test]
    fn points_are_the_periods_that_a_window_touches() {
        for (step, asked, expected) in [
            (Step::Day, window(0, DAY), 1),
            (Step::Day, window(1, DAY + 1), 2),
            (Step::Hour, window(HOUR - 1, HOUR), 1),
            (Step::FiveMinutes, window(0, HOUR), 12),
            (Step::Minute, window(7, 7), 0),
            (Step::Minute, Window::ALL, Micros::MAX.unsigned_abs() / MINUTE.unsigned_abs() + 1),
        ] {
            assert_eq!(step.points_in(asked), expected, "{step:?} {asked:?}");
        }
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        for asked in [Window::ALL, window(Micros::MIN, Micros::MAX)] {
            let pieces = pieces(asked, DAYS);
            assert!(pieces.windows(2).all(|pair| pair[0].window.to == pair[1].window.from), "{pieces:?}");
        }
    }
}
