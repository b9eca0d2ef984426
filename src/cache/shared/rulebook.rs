//! Rulebook: the rules that replicas have told each other, in the one order that all of them see.
//!
//! Each weir counts the rules it knows, in the order in which it heard of them; replicas agree on the places of rules in
//! a log, which the server numbers. Here the one is turned into the other, so that no clocks are compared: an answer
//! travels with the place up to which its asker knew the log. Where it is not certain that no rule names an answer, it
//! is as good as dead. Knows neither the server nor what a rule says.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use crate::cache::invalidation::{Asked, Filter, Rule};

/// Most rules that the log keeps. What was asked before the oldest of them is dead.
pub(super) const MOST_RULES: usize = 128;

/// A place in the log, as the server numbers it: the id of an entry of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub(super) [u64; 2]);

impl Place {
    /// The place just before this one.
    const fn before(self) -> Self {
        let Self([major, minor]) = self;
        match minor.checked_sub(1) {
            Some(minor) => Self([major, minor]),
            None => Self([major.saturating_sub(1), u64::MAX]),
        }
    }

    /// The place just after this one.
    pub(super) const fn after(self) -> Self {
        let Self([major, minor]) = self;
        match minor.checked_add(1) {
            Some(minor) => Self([major, minor]),
            None => Self([major.saturating_add(1), 0]),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0[0], self.0[1])
    }
}

/// A text is no place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (major, minor) = text.split_once('-').ok_or(NoPlace)?;
        Ok(Self([major.parse().map_err(|_| NoPlace)?, minor.parse().map_err(|_| NoPlace)?]))
    }
}

/// A rule made here, on its way into the log.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// Its number here.
    pub(super) number: Asked,
    pub(super) rule: Rule,
}

/// What is known of the log.
#[derive(Debug, Default)]
pub(super) struct Rulebook {
    /// Where the log begins; `None` before it has been read.
    begins: Option<Place>,
    /// How far it has been read.
    last: Place,
    /// The rules in it, and their numbers here.
    told: VecDeque<(Place, Asked)>,
    own: VecDeque<Own>,
}

impl Rulebook {
    /// How far the log has been read.
    pub(super) const fn last(&self) -> Place {
        self.last
    }

    /// The log begins here at the earliest: with the oldest rule it still has.
    pub(super) fn begins_at(&mut self, first: Place) {
        self.begins = self.begins.max(Some(first));
        self.last = self.last.max(first);
        while self.told.front().is_some_and(|(place, _)| *place < first) {
            self.told.pop_front();
        }
    }

    /// The log was lost, and begun anew with a mark at `mark`.
    pub(super) fn begun_anew(&mut self, mark: Place) {
        self.told.clear();
        self.last = mark;
        self.begins = Some(mark);
    }

    /// It is another log than the one that was read.
    pub(super) fn forget(&mut self) {
        *self = Self { own: std::mem::take(&mut self.own), ..Self::default() };
    }

    /// The log has been read as far as `place`, where there was nothing new.
    pub(super) fn read(&mut self, place: Place) {
        self.last = self.last.max(place);
    }

    /// There is a rule at `place`, whose number here is `number`.
    pub(super) fn heard(&mut self, place: Place, number: Asked) {
        let position = self.told.partition_point(|(known, _)| *known < place);
        self.told.insert(position, (place, number));
        if self.told.len() > MOST_RULES
            && let Some((oldest, _)) = self.told.pop_front()
        {
            self.begins = self.begins.max(Some(oldest));
        }
    }

    /// Whether the rule at `place` is known.
    pub(super) fn knows(&self, place: Place) -> bool {
        self.told.binary_search_by_key(&place, |(known, _)| *known).is_ok()
    }

    /// A rule made here is to go into the log. Of more than fit, the oldest become one by which everything dies.
    pub(super) fn note_own(&mut self, own: Own) {
        self.own.push_back(own);
        if self.own.len() > MOST_RULES {
            self.own.pop_front();
            if let Some(oldest) = self.own.front_mut() {
                oldest.rule.filter = Filter::default();
            }
        }
    }

    /// The next rule that is to go into the log.
    pub(super) fn next_to_tell(&self) -> Option<Own> {
        self.own.front().cloned()
    }

    /// The rule of this number is in the log, at `place`.
    pub(super) fn told(&mut self, number: Asked, place: Place) {
        self.own.retain(|own| own.number != number);
        self.heard(place, number);
    }

    /// The place up to which somebody knew the log who asked at `asked`, to be told to others. `None` if it has not
    /// been read.
    pub(super) fn place(&self, asked: Asked) -> Option<Place> {
        self.begins?;
        let unknown = self.told.iter().find(|(_, number)| *number > asked);
        Some(unknown.map_or(self.last, |(place, _)| place.before()))
    }

    /// Which of the rules known here, of which the newest is `newest`, those are who knew the log up to `place`. `None`
    /// if that cannot be told: what they asked is as good as dead.
    pub(super) fn asked(&self, place: Place, newest: Asked) -> Option<Asked> {
        if place < self.begins? || place > self.last {
            return None;
        }
        let later = self.told.iter().filter(|(known, _)| *known > place).map(|(_, number)| *number);
        // Nobody else has heard of these yet.
        let untold = self.own.iter().map(|own| own.number);
        Some(later.chain(untold).map(Asked::before).fold(newest, Asked::min))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tokio::time::Instant;

    use super::*;
    use crate::cache::invalidation::Rules;

    fn own(number: Asked) -> Own {
        Own { number, rule: Rule { filter: named("x"), made_at: SystemTime::UNIX_EPOCH } }
    }

    fn named(provider: &str) -> Filter {
        Filter { provider: Some(provider.into()), ..Filter::default() }
    }

    fn at(number: u64) -> Place {
        Place([number, 0])
    }

    /// The numbers of the first so many rules.
    fn numbers(count: usize) -> Vec<Asked> {
        let rules = Rules::new(Duration::from_secs(3600));
        let now = Instant::now();
        (0..=count).map(|number| if number == 0 { rules.asked() } else { rules.make(named("x"), now, now) }).collect()
    }

    #[test]
    fn places_are_written_as_the_server_writes_them() {
        assert_eq!("1526919030474-55".parse(), Ok(Place([1_526_919_030_474, 55])));
        assert_eq!(Place([1_526_919_030_474, 55]).to_string(), "1526919030474-55");
        for no_place in ["", "1", "1-", "-1", "1-2-3", "a-b"] {
            assert_eq!(no_place.parse::<Place>(), Err(NoPlace), "{no_place}");
        }
        assert_eq!(Place([5, 0]).before(), Place([4, u64::MAX]));
        assert_eq!(Place([4, u64::MAX]).after(), Place([5, 0]));
        assert_eq!(Place([5, 7]).before().after(), Place([5, 7]));
    }

    #[test]
    fn nothing_is_certain_before_the_log_was_read() {
        let number = numbers(0);
        let book = Rulebook::default();
        assert_eq!((book.place(number[0]), book.asked(at(1), number[0])), (None, None));
    }

    #[test]
    fn whoever_did_not_know_a_rule_is_before_it_everywhere() {
        let number = numbers(3);
        let mut book = Rulebook::default();
        book.begins_at(at(10));
        // The rules came as 1, 2 and 3; the log has another order.
        book.heard(at(20), number[1]);
        book.heard(at(40), number[2]);
        book.heard(at(30), number[3]);
        book.read(at(40));
        for (asked, place) in [(0, at(20).before()), (1, at(30).before()), (2, at(30).before()), (3, at(40))] {
            assert_eq!(book.place(number[asked]), Some(place), "asked when there were {asked}");
        }
        for (place, asked) in [(at(10), 0), (at(20), 1), (at(30), 1), (at(40), 3)] {
            assert_eq!(book.asked(place, number[3]), Some(number[asked]), "{place}");
        }
    }

    #[test]
    fn an_answer_from_before_the_log_or_from_beyond_it_is_as_good_as_dead() {
        let number = numbers(1);
        let mut book = Rulebook::default();
        book.begins_at(at(10));
        book.read(at(20));
        assert_eq!(book.asked(at(9), number[0]), None, "rules from then are gone");
        assert_eq!(book.asked(at(10), number[0]), Some(number[0]));
        assert_eq!(book.asked(at(21), number[0]), None, "there are rules that are not known here");
        book.begins_at(at(15));
        assert_eq!(book.asked(at(10), number[0]), None, "the log has been cut");
        book.begins_at(at(10));
        assert_eq!(book.asked(at(10), number[0]), None, "what is lost stays lost");
        book.begun_anew(at(30));
        assert_eq!(book.asked(at(20), number[0]), None, "the log was lost");
        assert_eq!(book.place(number[0]), Some(at(30)));
        book.forget();
        assert_eq!((book.asked(at(30), number[0]), book.place(number[0]), book.last()), (None, None, at(0)));
    }

    #[test]
    fn a_rule_that_nobody_else_has_heard_of_holds_for_all_that_others_asked() {
        let number = numbers(2);
        let mut book = Rulebook::default();
        book.begins_at(at(10));
        book.note_own(own(number[2]));
        assert_eq!(book.asked(at(10), number[2]), Some(number[1]), "before the rule");
        assert_eq!(book.place(number[2]), Some(at(10)), "others will find it before the rule, to be safe");
        let next = book.next_to_tell().expect("there is one");
        book.told(next.number, at(20));
        book.read(at(20));
        assert!(book.next_to_tell().is_none() && book.knows(at(20)) && !book.knows(at(19)));
        assert_eq!(book.asked(at(20), number[2]), Some(number[2]));
        assert_eq!(book.place(number[1]), Some(at(20).before()));
    }

    #[test]
    fn neither_list_grows_without_end() {
        let number = numbers(2 * MOST_RULES);
        let mut book = Rulebook::default();
        book.begins_at(at(0));
        for (position, &number) in number.iter().enumerate().skip(1) {
            book.heard(at(position as u64), number);
            book.read(at(position as u64));
            book.note_own(own(number));
        }
        assert_eq!((book.told.len(), book.own.len()), (MOST_RULES, MOST_RULES));
        assert_eq!(book.begins, Some(at(MOST_RULES as u64)), "what was asked before is dead");
        assert!(book.next_to_tell().expect("many").rule.filter.is_everything(), "the oldest have become one");
    }
}
