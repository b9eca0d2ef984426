//! Lease: what of a budget, or of the places for calls at once, this replica may use without asking the others.
//!
//! Pure: what is said to the server, and what becomes of its answer. What was used up is told as the whole since the
//! beginning, so that telling it twice changes nothing; what is held is told anew each time, so that an answer which got
//! lost is made good by the next.

use crate::limits::budget::{Allowance, Amount};
use crate::limits::shared::Footing;
use crate::limits::shared::script::Answered;
use crate::units::PicoUsd;

/// For how long nobody is asked again who said that there is no room, in nanoseconds.
pub(in crate::limits) const NO_ROOM_HOLDS: u64 = 25_000_000;
/// Money on the server is in billionths of a dollar: as numbers of its scripts are exact up to 2⁵³, so is a total of nine
/// million dollars.
const PICO_PER_NANO: u128 = 1000;
/// Of a limit, a part of less than one in so many is held by nobody.
const LAST: u128 = 100;
/// What the server is told of what is larger.
const MOST: u128 = 1 << 53;

/// What this replica holds of something limited.
#[derive(Clone, Debug, Default)]
pub(in crate::limits) struct Lease {
    /// What it has used up in this life and this window.
    own: Amount,
    /// What that and what is reserved may come to.
    may_come_to: Amount,
    /// What others have used up, when the server said so last.
    others: Amount,
    /// What was used up or held by anybody then; `None` if it never said.
    taken_by_all: Option<Amount>,
    /// The largest need that waits to be asked for.
    first: Amount,
    /// All of them.
    needs: Amount,
    /// What was taken since the server was told last.
    recently: Amount,
    /// Until when there is no room, by the clock of rates.
    no_room_until: u64,
    /// Whether it was handed out in equal parts, as far as the server was heard.
    is_in_parts: bool,
}

/// What is said to the server, in its units, and what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::limits) struct Statement {
    own: Amount,
    parts: [Part; 2],
    handing: Handing,
}

/// The same of money, or of tokens or places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    used: u64,
    hold: u64,
    free: u64,
    first: u64,
    needs: u64,
    spare: u64,
    limit: Option<u64>,
}

/// Why something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::limits) enum Why {
    /// Calls wait for it.
    Asking,
    /// It is time to.
    Telling,
    /// The replica ends, and holds on to nothing.
    Leaving,
}

/// How what is left is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::limits) enum Handing {
    /// In equal parts to each of so many replicas, so that it has something at hand when it cannot ask; and half of such a
    /// part to nobody, for whoever asks first.
    InParts(u64),
    /// To those who use it: the calls of one subject may well all go through one replica.
    ByUse,
}

impl Lease {
    /// Begins a new window. What waits goes on waiting.
    pub(in crate::limits) fn renew(&mut self) {
        *self = Self { first: self.first, needs: self.needs, ..Self::default() };
    }

    /// What this replica has used up.
    pub(in crate::limits) const fn own(&self) -> Amount {
        self.own
    }

    /// What all have, as far as is known; `None` if the server never said.
    pub(in crate::limits) fn used_by_all(&self) -> Option<Amount> {
        self.taken_by_all.map(|_| self.others.plus(self.own))
    }

    /// How many places are held.
    pub(in crate::limits) const fn held(&self) -> u64 {
        self.may_come_to.tokens
    }

    /// So much is used up for good.
    pub(in crate::limits) fn use_up(&mut self, amount: Amount) {
        self.own = self.own.plus(amount);
    }

    /// So much was taken, of what is held.
    pub(in crate::limits) fn take(&mut self, amount: Amount) {
        self.recently = self.recently.plus(amount);
    }

    /// Whether `amount` more than is `reserved` can be had without asking, where `about` limits it.
    pub(in crate::limits) fn fits(&self, reserved: Amount, amount: Amount, about: Allowance) -> bool {
        let would_be = self.own.plus(reserved).plus(at_least(amount, about));
        about.usd.is_none_or(|_| would_be.usd <= self.may_come_to.usd)
            && about.tokens.is_none_or(|_| would_be.tokens <= self.may_come_to.tokens)
    }

    /// What this replica may come to by itself: what it holds, and where that is not a part already, its part of what of
    /// `limit` nobody held when the server was heard last.
    pub(in crate::limits) fn alone(&self, limit: Allowance, footing: Footing) -> Allowance {
        let (held, taken) = (self.may_come_to, self.taken_by_all.unwrap_or_default());
        // It holds its part already; others may have taken since, or be taking now, what nobody held.
        let has_its_part = self.is_in_parts && footing.replicas > 1;
        let taken = if has_its_part { all(limit).max(taken) } else { taken };
        let pico = |limit: PicoUsd| {
            let part = footing.part(limit.pico().saturating_sub(taken.usd.pico()));
            PicoUsd::new(held.usd.pico().saturating_add(part))
        };
        let tokens = |limit: u64| {
            let part = footing.part(limit.saturating_sub(taken.tokens).into());
            held.tokens.saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
        };
        Allowance { usd: limit.usd.map(pico), tokens: limit.tokens.map(tokens) }
    }

    /// Whether nobody has to be asked whether there is room for a call that does not fit: it was said just now.
    pub(in crate::limits) const fn has_no_room(&self, nanos: u64) -> bool {
        nanos < self.no_room_until
    }

    /// A call waits for so much.
    pub(in crate::limits) fn want(&mut self, amount: Amount, about: Allowance) {
        let amount = at_least(amount, about);
        let about = |amount: Amount| Amount {
            usd: about.usd.map_or(PicoUsd::ZERO, |_| amount.usd),
            tokens: about.tokens.map_or(0, |_| amount.tokens),
        };
        self.first = self.first.max(about(amount));
        self.needs = self.needs.plus(about(amount));
    }

    /// Whether the others need to hear of it: something is held, or reserved, or was taken.
    pub(in crate::limits) fn is_in_use(&self, reserved: Amount) -> bool {
        let none = Amount::default();
        reserved != none || self.recently != none || self.may_come_to.minus(self.own) != none
    }

    /// What to say, if there is anything to ask for. What is given back may not be used from now on, whatever becomes of
    /// this.
    pub(in crate::limits) fn state(
        &mut self,
        why: Why,
        handing: Handing,
        reserved: Amount,
        limit: Allowance,
    ) -> Option<Statement> {
        if why == Why::Asking && self.first == Amount::default() {
            return None;
        }
        let committed = self.own.plus(reserved);
        let spare = match (why, handing) {
            (Why::Leaving, _) => Amount::default(),
            (Why::Asking | Why::Telling, Handing::InParts(replicas)) => self.part(reserved, limit, replicas),
            (Why::Telling, Handing::ByUse) if self.recently == Amount::default() => Amount::default(),
            (Why::Asking | Why::Telling, Handing::ByUse) => all(limit),
        };
        let free = self.may_come_to.minus(committed);
        let free = if why == Why::Asking { free } else { smaller(free, spare) };
        if why != Why::Asking {
            self.may_come_to = smaller(self.may_come_to, committed.plus(free));
            self.recently = Amount::default();
        }
        let (first, needs) = match why {
            Why::Asking => (std::mem::take(&mut self.first), std::mem::take(&mut self.needs)),
            Why::Telling | Why::Leaving => <(Amount, Amount)>::default(),
        };
        let hold = reserved.plus(free);
        let money = Part {
            used: nano(self.own.usd.pico() / PICO_PER_NANO),
            hold: nano(hold.usd.pico().div_ceil(PICO_PER_NANO)),
            free: nano(free.usd.pico() / PICO_PER_NANO),
            first: nano(first.usd.pico().div_ceil(PICO_PER_NANO)),
            needs: nano(needs.usd.pico().div_ceil(PICO_PER_NANO)),
            spare: nano(spare.usd.pico() / PICO_PER_NANO),
            limit: limit.usd.map(|usd| nano(usd.pico() / PICO_PER_NANO)),
        };
        let count = |tokens: u64| nano(tokens.into());
        let tokens = Part {
            used: count(self.own.tokens),
            hold: count(hold.tokens),
            free: count(free.tokens),
            first: count(first.tokens),
            needs: count(needs.tokens),
            spare: count(spare.tokens),
            limit: limit.tokens.map(count),
        };
        Some(Statement { own: self.own, parts: [money, tokens], handing })
    }

    /// What is to be held beyond what calls need, so that it is an equal part of what is not used up. Nothing if that were
    /// less than a hundredth of all: the last is there for whoever asks.
    fn part(&self, reserved: Amount, limit: Allowance, replicas: u64) -> Amount {
        let (halves, used) = (replicas.saturating_mul(2).saturating_add(1), self.used_by_all().unwrap_or_default());
        let (limit, left) = (all(limit), all(limit).minus(used));
        let part =
            Amount { usd: PicoUsd::new(left.usd.pico() * 2 / u128::from(halves)), tokens: left.tokens / halves * 2 };
        let taken = reserved.plus(self.needs);
        Amount {
            usd: if part.usd.pico() < limit.usd.pico() / LAST { PicoUsd::ZERO } else { part.minus(taken).usd },
            tokens: if u128::from(part.tokens) < u128::from(limit.tokens) / LAST {
                0
            } else {
                part.minus(taken).tokens
            },
        }
    }

    /// The server has answered to that.
    pub(in crate::limits) fn hear(&mut self, said: &Statement, answer: &Answered, nanos: u64) {
        let [money, tokens] = answer.parts;
        let pico = |nano: u128| PicoUsd::new(nano.saturating_mul(PICO_PER_NANO));
        let tokens_of = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        let may = Amount { usd: pico(money.may.into()), tokens: tokens.may };
        let used = Amount { usd: pico(money.all), tokens: tokens_of(tokens.all) };
        let held = Amount { usd: pico(money.others.into()), tokens: tokens.others };
        let own_as_told = Amount { usd: pico(said.parts[0].used.into()), tokens: said.parts[1].used };
        // Within a window it only grows, whatever the server may have forgotten.
        self.others = self.others.max(used.minus(own_as_told));
        let taken = used.plus(held).plus(may);
        if !answer.is_believed {
            // Others may have taken more, and not have told it yet.
            self.taken_by_all = Some(self.taken_by_all.map_or(taken, |before| before.max(taken)));
            return;
        }
        self.taken_by_all = Some(taken);
        self.is_in_parts = said.handing != Handing::ByUse;
        self.may_come_to = said.own.plus(may);
        if answer.fits {
            self.no_room_until = 0;
        } else {
            self.no_room_until = nanos.saturating_add(NO_ROOM_HOLDS);
        }
    }
}

impl Statement {
    /// As arguments of the script.
    pub(super) fn arguments(&self) -> impl Iterator<Item = String> {
        let most = if self.handing == Handing::ByUse { "0" } else { "1" };
        let parts = self.parts.into_iter().flat_map(|part| {
            let Part { used, hold, free, first, needs, spare, limit } = part;
            let limit = limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
            [used, hold, free, first, needs, spare].map(|number| number.to_string()).into_iter().chain([limit])
        });
        parts.chain([most.to_owned()])
    }
}

/// All of it, as an amount.
fn all(limit: Allowance) -> Amount {
    Amount { usd: limit.usd.unwrap_or_default(), tokens: limit.tokens.unwrap_or_default() }
}

/// At least the smallest unit of what it is about: what is limited is not to be had for nothing.
fn at_least(amount: Amount, about: Allowance) -> Amount {
    let least = |is_limited: bool| u64::from(is_limited);
    Amount {
        usd: amount.usd.max(PicoUsd::new(least(about.usd.is_some()).into())),
        tokens: amount.tokens.max(least(about.tokens.is_some())),
    }
}

fn smaller(one: Amount, other: Amount) -> Amount {
    Amount { usd: one.usd.min(other.usd), tokens: one.tokens.min(other.tokens) }
}

fn nano(number: u128) -> u64 {
    u64::try_from(number.min(MOST)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::shared::script::AnsweredPart;

    const NANO: u128 = PICO_PER_NANO;

    fn nanos(count: u128) -> Amount {
        Amount { usd: PicoUsd::new(count * NANO), tokens: 0 }
    }

    fn limit(count: u128) -> Allowance {
        Allowance { usd: Some(PicoUsd::new(count * NANO)), tokens: None }
    }

    fn answer(may: u64, all: u128, others: u64) -> Answered {
        Answered { is_believed: true, fits: true, parts: [AnsweredPart { may, all, others }, AnsweredPart::default()] }
    }

    /// A lease of 100 billionths of 1000, of which 40 are reserved.
    fn lease() -> Lease {
        let mut lease = Lease::default();
        lease.want(nanos(40), limit(1000));
        let said = lease.state(Why::Asking, Handing::ByUse, Amount::default(), limit(1000)).expect("something to ask");
        lease.hear(&said, &answer(100, 500, 200), 0);
        lease.take(nanos(40));
        lease
    }

    fn tell(lease: &mut Lease, reserved: Amount) -> Statement {
        lease.state(Why::Telling, Handing::ByUse, reserved, limit(1000)).expect("there is always something to tell")
    }

    #[test]
    fn what_is_held_is_used_without_asking_and_no_more() {
        let mut lease = lease();
        assert!(lease.fits(nanos(40), nanos(60), limit(1000)));
        assert!(!lease.fits(nanos(40), nanos(61), limit(1000)));
        lease.use_up(nanos(70));
        assert!(lease.fits(Amount::default(), nanos(30), limit(1000)), "what was reserved cost more");
        assert!(!lease.fits(Amount::default(), nanos(31), limit(1000)));
        assert!(lease.fits(nanos(31), nanos(31), Allowance::default()), "what is not limited");
        assert_eq!(lease.used_by_all(), Some(nanos(570)));
    }

    #[test]
    fn what_is_said_again_is_the_same() {
        let mut lease = lease();
        lease.use_up(nanos(70));
        let said = tell(&mut lease, Amount::default());
        assert_eq!((said.parts[0].used, said.parts[0].hold), (70, 30), "it was in use");
        let again = tell(&mut lease, Amount::default());
        assert_eq!((again.parts[0].used, again.parts[0].hold), (70, 0), "and is idle now");
        lease.hear(&again, &answer(0, 570, 200), 0);
        assert!(!lease.fits(Amount::default(), nanos(1), limit(1000)), "what was given back is gone");
        assert!(!lease.is_in_use(Amount::default()));
    }

    #[test]
    fn what_is_less_than_a_billionth_waits_and_is_not_lost() {
        let mut lease = Lease::default();
        for _ in 0..3 {
            lease.use_up(Amount { usd: PicoUsd::new(400), tokens: 0 });
        }
        assert_eq!(tell(&mut lease, Amount::default()).parts[0].used, 1, "1.2 of them");
    }

    #[test]
    fn alone_it_has_what_it_holds_and_its_part_of_what_nobody_held() {
        let three = Footing { replicas: 3, ..Footing::OWN };
        let pico = |count| Allowance { usd: Some(PicoUsd::new(count)), tokens: None };
        let left = 1000 - 500 - 200 - 100;
        assert_eq!(lease().alone(limit(1000), three), pico(100 * NANO + left * NANO / 3));
        assert_eq!(Lease::default().alone(limit(1000), three), pico(1000 * NANO / 3), "it never heard of anybody");
        let mut spent = lease();
        for _ in 0..5 {
            // What nobody hears of gives nothing.
            spent.use_up(nanos(50));
            tell(&mut spent, Amount::default());
        }
        assert_eq!(spent.alone(limit(1000), three), pico(100 * NANO + left * NANO / 3));
    }

    #[test]
    fn what_is_not_believed_grants_nothing_but_tells_what_others_took() {
        let mut lease = lease();
        let said = tell(&mut lease, nanos(40));
        lease.hear(&said, &Answered { is_believed: false, ..answer(900, 10, 0) }, 0);
        assert_eq!(lease.used_by_all(), Some(nanos(500)), "what others spent is not unspent");
        assert!(!lease.fits(nanos(40), nanos(61), limit(1000)));
        lease.hear(&said, &Answered { is_believed: false, ..answer(100, 800, 0) }, 0);
        assert_eq!(lease.used_by_all(), Some(nanos(800)));
    }

    #[test]
    fn of_what_is_handed_out_in_parts_each_has_its_part_and_no_more() {
        let mut lease = Lease::default();
        lease.want(nanos(40), limit(1000));
        let parts = Handing::InParts(2);
        let said = lease.state(Why::Asking, parts, Amount::default(), limit(1000)).expect("something to ask");
        lease.hear(&said, &answer(300, 100, 200), 0);
        assert_eq!(lease.alone(limit(1000), Footing { replicas: 2, ..Footing::OWN }), limit(300));
        assert_eq!(lease.alone(limit(1000), Footing::OWN), limit(300 + 400), "there is nobody else");
    }

    #[test]
    fn in_parts_each_likes_an_equal_one_and_none_of_the_last() {
        let mut lease = lease();
        let mut spare = |used| {
            lease.others = nanos(used);
            let said = lease.state(Why::Telling, Handing::InParts(4), nanos(40), limit(1000));
            said.expect("something to tell").parts[0].spare
        };
        assert_eq!(spare(0), 222 - 40, "two of nine, for one is nobody's");
        assert_eq!(spare(550), 100 - 40);
        assert_eq!(spare(950), 0, "a hundredth for each, and that is reserved");
        assert_eq!(spare(990), 0);
    }

    #[test]
    fn whoever_was_told_that_there_is_no_room_does_not_ask_for_a_moment() {
        let mut lease = lease();
        lease.want(nanos(500), limit(1000));
        let said = lease.state(Why::Asking, Handing::ByUse, nanos(40), limit(1000)).expect("something to ask");
        assert_eq!((said.parts[0].first, said.parts[0].free), (500, 60));
        assert_eq!(lease.state(Why::Asking, Handing::ByUse, nanos(40), limit(1000)), None, "it is asked once");
        lease.hear(&said, &Answered { fits: false, ..answer(100, 500, 400) }, 7);
        assert!(lease.has_no_room(7 + NO_ROOM_HOLDS - 1) && !lease.has_no_room(7 + NO_ROOM_HOLDS));
        assert!(lease.fits(nanos(40), nanos(60), limit(1000)), "what it held it holds");
    }
}
