//! Percentiles: exact ones, of every call there was.
//!
//! Periods that are over have their latencies sorted and packed; of the rest, the calls are read. All of them are gone
//! through twice: once to count how many are about how long, once to look closely at those around each rank. So an answer
//! takes little memory, however many calls it is about.

use std::time::Duration;

use rusqlite::Transaction;
use rusqlite::types::{Type, ValueRef};

use crate::ledger::entry::Micros;
use crate::ledger::filter::Filter;
use crate::ledger::packed::unpack;
use crate::ledger::questions::{plan, rows};
use crate::ledger::reader::{About, Answer, Error, Kept, Reader};
use crate::ledger::window::{Grain, Piece, Since, Source, Window, finer, pieces};

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Request head read → last byte handed over.
    Latency,
    /// Request handed to the provider → first token of a stream. Calls without one do not count.
    FirstToken,
}

/// A rank among all calls by how long they took, in thousandths of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u16);

impl Rank {
    /// Half the calls took no longer.
    pub const P50: Self = Self(500);
    /// Nine in ten took no longer.
    pub const P90: Self = Self(900);
    /// Nineteen in twenty took no longer.
    pub const P95: Self = Self(950);
    /// All but one in a hundred took no longer.
    pub const P99: Self = Self(990);

    /// The rank of so many thousandths; of the last, if there are more than a thousand.
    #[must_use]
    pub fn thousandths(thousandths: u16) -> Self {
        Self(thousandths.min(1_000))
    }

    /// Which of so many it is, counted from one: the nearest rank, "the smallest value such that no less than so many of
    /// all are less than or equal to it".
    fn among(self, all: u64) -> u64 {
        let rank = (u128::from(all) * u128::from(self.0)).div_ceil(1_000);
        u64::try_from(rank).unwrap_or(u64::MAX).max(1)
    }
}

impl Reader {
    /// How long calls took at each of the ranks, in their order: the time of one of the calls, not one in between. `None`
    /// without calls.
    ///
    /// # Errors
    /// [`Error`].
    pub fn percentiles(
        &self,
        window: Window,
        filter: &Filter,
        of: Timing,
        ranks: &[Rank],
    ) -> Result<Answer<Option<Vec<Duration>>>, Error> {
        self.ask(|snapshot| {
            let (places, covers) = places(snapshot, window, filter)?;
            let each = |take: &mut dyn FnMut(u64)| {
                places.iter().try_for_each(|place| visit(snapshot, *place, filter, of, take))
            };
            let mut crowds = Crowds::default();
            each(&mut |took| crowds.count(took))?;
            if crowds.all == 0 {
                return Ok(Answer { found: None, covers });
            }
            let mut sought: Vec<Sought> = ranks.iter().map(|rank| crowds.seek(rank.among(crowds.all))).collect();
            let mut wanted: Vec<usize> = sought.iter().map(|it| it.crowd).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let mut looked_at: Vec<Vec<u64>> = vec![Vec::new(); wanted.len()];
            each(&mut |took| {
                if let Ok(at) = wanted.binary_search(&crowd_of(took)) {
                    looked_at[at].push(took);
                }
            })?;
            for crowd in &mut looked_at {
                crowd.sort_unstable();
            }
            let found = sought.drain(..).map(|it| {
                let crowd = wanted.binary_search(&it.crowd).ok().and_then(|at| looked_at[at].get(it.at));
                Duration::from_micros(crowd.copied().unwrap_or_default())
            });
            Ok(Answer { found: Some(found.collect()), covers })
        })
    }
}

/// Bits of a number that its crowd tells, beside how long it is: the numbers of a crowd are within a 128th of each other.
const BITS: u32 = 7;
const CROWDS: usize = (((u64::BITS - BITS) as usize) << BITS) + (1 << BITS);

/// How many numbers are about how large.
struct Crowds {
    sizes: Vec<u64>,
    all: u64,
}

impl Default for Crowds {
    fn default() -> Self {
        Self { sizes: vec![0; CROWDS], all: 0 }
    }
}

/// Where a number of a rank is found.
#[derive(Clone, Copy, Debug)]
struct Sought {
    crowd: usize,
    /// In its crowd, in order, from zero.
    at: usize,
}

impl Crowds {
    fn count(&mut self, number: u64) {
        self.sizes[crowd_of(number)] += 1;
        self.all += 1;
    }

    fn seek(&self, rank: u64) -> Sought {
        let mut before = 0;
        for (crowd, size) in self.sizes.iter().enumerate() {
            if before + size >= rank {
                return Sought { crowd, at: usize::try_from(rank - before - 1).unwrap_or(usize::MAX) };
            }
            before += size;
        }
        Sought { crowd: 0, at: 0 }
    }
}

/// Which crowd a number is in: the larger the number, the later.
fn crowd_of(number: u64) -> usize {
    let excess = (u64::BITS - number.leading_zeros()).saturating_sub(BITS + 1);
    // Below 2^(BITS+1), which fits.
    let leading = usize::try_from(number >> excess).unwrap_or(usize::MAX);
    ((excess as usize) << BITS) + leading
}

/// Where the latencies are looked up: packed, where that has been done, else the calls. And the part of the window that
/// this covers.
fn places(snapshot: &Transaction<'_>, window: Window, filter: &Filter) -> Result<(Vec<Piece>, Window), Error> {
    if !filter.is_by_series() {
        return plan(snapshot, About::Series, window, Source::Calls);
    }
    let kept = Kept::of(snapshot, About::Series)?;
    let wide = kept.widened(window);
    let mut places = Vec::new();
    if let Some((first, last)) = kept.days {
        let known = Window { from: first, to: last.saturating_add(Grain::Day.micros()) };
        for piece in pieces(wide.within(known), Source::COARSEST) {
            settle(snapshot, kept.since, piece, &mut places)?;
        }
    }
    // What is packed is there, however old.
    let (kept, covers) = Since { hours: Micros::MIN, ..kept.since }.kept(places, wide);
    Ok((kept, covers.within(window)))
}

/// Splits a piece until each is packed, or of calls.
fn settle(snapshot: &Transaction<'_>, since: Since, piece: Piece, places: &mut Vec<Piece>) -> Result<(), Error> {
    let Source::Periods(grain) = piece.source else {
        push(places, piece);
        return Ok(());
    };
    let mut start = piece.window.from;
    while start < piece.window.to {
        let window = Window { from: start, to: start.saturating_add(grain.micros()) };
        if is_packed(snapshot, since, grain, start)? {
            push(places, Piece { window, ..piece });
        } else {
            for finer in pieces(window, finer(grain)) {
                settle(snapshot, since, finer, places)?;
            }
        }
        start = window.to;
    }
    Ok(())
}

/// Adds a piece to the one before, if it goes on with the same.
fn push(places: &mut Vec<Piece>, piece: Piece) {
    match places.last_mut() {
        Some(last) if last.source == piece.source && last.window.to == piece.window.from => {
            last.window.to = piece.window.to;
        }
        _ => places.push(piece),
    }
}

/// Whether all latencies of the period are packed, as those of a period without calls are.
fn is_packed(snapshot: &Transaction<'_>, since: Since, grain: Grain, start: Micros) -> Result<bool, Error> {
    let (packed, sums, sums_since) = match grain {
        Grain::Hour => (
            "SELECT EXISTS (SELECT 1 FROM hour_latencies WHERE start = ?)",
            "SELECT EXISTS (SELECT 1 FROM hours WHERE start = ?)",
            since.hours,
        ),
        Grain::Day => (
            "SELECT EXISTS (SELECT 1 FROM day_latencies WHERE start = ?)",
            "SELECT EXISTS (SELECT 1 FROM days WHERE start = ?)",
            since.days,
        ),
    };
    let is_there = |sql| Ok::<bool, Error>(snapshot.prepare_cached(sql)?.query_row([start], |row| row.get(0))?);
    Ok(is_there(packed)? || (start >= sums_since && !is_there(sums)?))
}

/// Hands over every time that is asked about in this place.
fn visit(
    snapshot: &Transaction<'_>,
    place: Piece,
    filter: &Filter,
    of: Timing,
    take: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let column = match of {
        Timing::Latency => "latency",
        Timing::FirstToken => "first_token",
    };
    let (select, condition) = match place.source {
        Source::Calls => {
            let select = format!("SELECT {column} FROM calls WHERE id >= ? AND id < ? AND {column} IS NOT NULL");
            (select, filter.of_call())
        }
        Source::Periods(grain) => {
            let select = format!("SELECT {column} FROM {} WHERE start >= ? AND start < ?", grain.latencies());
            (select, filter.of_series())
        }
    };
    rows(snapshot, &select, place.window, &condition, |row| match row.get_ref(0)? {
        ValueRef::Blob(packed) => unpack(packed, &mut *take).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, "packed latencies are damaged".into())
        }),
        value => {
            take(u64::try_from(value.as_i64()?).unwrap_or(0));
            Ok(())
        }
    })
}
