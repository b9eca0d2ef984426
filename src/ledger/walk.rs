//! Walk: every call that is asked for, one after the other, however many there are.
//!
//! Read a page at a time, each in a short question of its own: whoever walks slowly holds up nobody.

use std::num::NonZeroUsize;
use std::vec::IntoIter;

use crate::ledger::entry::{Entry, Micros};
use crate::ledger::filter::Filter;
use crate::ledger::page::Direction;
use crate::ledger::reader::{Error, Reader};
use crate::ledger::window::Window;

/// How many calls are read at once.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(1_000).expect("more than none");

/// Calls in the order asked for. After an error there are no more.
#[derive(Debug)]
pub struct Walk<'a> {
    reader: &'a Reader,
    window: Window,
    filter: &'a Filter,
    direction: Direction,
    page: IntoIter<Entry>,
    next: Next,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    First,
    After(Micros),
    End,
}

impl Reader {
    /// Every call of the window that the filter lets through.
    #[must_use]
    pub fn walk<'a>(&'a self, window: Window, filter: &'a Filter, direction: Direction) -> Walk<'a> {
        Walk { reader: self, window, filter, direction, page: Vec::new().into_iter(), next: Next::First }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let after = match self.next {
                Next::First => None,
                Next::After(after) => Some(after),
                Next::End => return None,
            };
            match self.reader.page(self.window, self.filter, after, (self.direction, AT_ONCE)) {
                Ok(page) => {
                    self.next = page.next.map_or(Next::End, Next::After);
                    self.page = page.entries.into_iter();
                }
                Err(error) => {
                    self.next = Next::End;
                    return Some(Err(error));
                }
            }
        }
    }
}
