//! Limits: may this call go? Rates, calls at once, and money, each told to the call before it goes and settled when it is
//! over.
//!
//! What a call needs is taken of every rule that is for it, or of none. A [`Permit`] holds it; what a permit holds is
//! settled once with what the call turned out to use, or given back when it is dropped, so that nothing stays taken for
//! ever. Rules of one kind know nothing of another. No I/O, no clock but the one given, and no lock held for longer than
//! one rule takes to decide.

pub mod budget;
pub mod elsewhere;
pub mod matching;
pub mod rate;
pub mod refusal;
pub mod running;
pub mod saved;
pub mod shared;
mod slots;
pub mod standing;
pub mod tally;
pub mod usual;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::limits::budget::{Amount, Budget, Reserved};
use crate::limits::elsewhere::{FleetBudget, FleetSpend};
use crate::limits::matching::{Asker, Subjects};
use crate::limits::rate::{Decision, Mark, RateLimit, Taken};
use crate::limits::refusal::{Refusal, Why};
use crate::limits::shared::{Party, Shared, SharingNow};
use crate::limits::slots::PARTS;
use crate::limits::standing::{BudgetNow, RateNow};
use crate::limits::tally::Deed;
use crate::limits::usual::Usual;
use crate::limits::window::UnixTime;
use crate::units::PicoUsd;

/// Most calls that wait for their turn at once; further ones are refused.
const MOST_WAITING: usize = 1024;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds by a clock that never goes back: for rates.
    pub nanos: u64,
    /// The time of day: for windows of the calendar.
    pub wall: UnixTime,
}

/// Tells [`Now`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    time_of_day: fn() -> SystemTime,
}

/// How long weir is taken to have run when it starts, so that what was taken before can be told.
const BEFORE: Duration = Duration::from_secs(400 * 24 * 3600);

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self::with(SystemTime::now)
    }

    /// A clock that starts now, and asks for the time of day there.
    fn with(time_of_day: fn() -> SystemTime) -> Self {
        Self { started: Instant::now(), time_of_day }
    }

    /// This moment.
    #[must_use]
    pub fn now(self) -> Now {
        let nanos = u64::try_from((self.started.elapsed() + BEFORE).as_nanos()).unwrap_or(u64::MAX);
        Now { nanos, wall: (self.time_of_day)().into() }
    }
}

/// What a call is expected to need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tokens, in and out.
    pub tokens: u64,
    /// Money.
    pub money: Money,
}

/// What a call is expected to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Money {
    /// Nothing: nobody bills it.
    #[default]
    Free,
    /// So much.
    Expected(PicoUsd),
    /// Something, and nobody can tell how much.
    Unknown,
}

/// What a call needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tokens, in and out; `None` if nobody can tell.
    pub tokens: Option<u64>,
    /// Money; `None` if nobody can tell.
    pub usd: Option<PicoUsd>,
}

impl Spent {
    /// It needed nothing after all.
    pub const NOTHING: Self = Self { tokens: Some(0), usd: Some(PicoUsd::ZERO) };
}

/// At which point of its way a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has come: for limits that count what the cache answers.
    Arrival,
    /// Its provider is to be asked: for all others.
    Asking,
}

/// The rules.
#[derive(Debug)]
pub struct Limits {
    rates: Box<[Arc<RateLimit>]>,
    budgets: Box<[Arc<Budget>]>,
    monthly: Arc<Budget>,
    clock: Clock,
    waiting: AtomicUsize,
    needs_credential: bool,
    shared: Option<Arc<Shared>>,
    /// By what they are held together with other replicas, once one of them is.
    sharing: Option<Arc<Shared>>,
    /// What models usually generate.
    pub usual: Arc<Usual>,
}

impl Limits {
    /// The rules that the operator wrote, with nothing taken of any.
    #[must_use]
    pub fn new(limits: &[rate::Settings], budgets: &[budget::Settings]) -> Self {
        Self::by(Clock::start(), limits, budgets)
    }

    fn by(clock: Clock, limits: &[rate::Settings], budgets: &[budget::Settings]) -> Self {
        let now = clock.now();
        let (rate, budget) = (|it: &_| Arc::new(RateLimit::new(it)), |it: &_| Arc::new(Budget::new(it, now)));
        Self::made(clock, limits, budgets, (&rate, &budget))
    }

    /// The rules that the operator writes from now on in place of these. A rule of the same name goes on where this one is,
    /// if it counts the same; so does what an operator has changed of a budget meanwhile. What calls in progress have taken
    /// is settled with the rules that go on.
    #[must_use]
    pub fn succeeded_by(&self, limits: &[rate::Settings], budgets: &[budget::Settings]) -> Self {
        let now = self.now();
        let rate = |settings: &rate::Settings| {
            let known = self.rates.iter().find(|known| *known.name == *settings.name);
            known.map_or_else(|| Arc::new(RateLimit::new(settings)), |known| known.succeeded_by(settings))
        };
        let budget = |settings: &budget::Settings| {
            let known = self.budgets.iter().find(|known| *known.name == *settings.name);
            known.map_or_else(|| Arc::new(Budget::new(settings, now)), |known| known.succeeded_by(settings, now))
        };
        let next = Self::made(self.clock, limits, budgets, (&rate, &budget));
        Self { usual: Arc::clone(&self.usual), ..next }.held_together(self.sharing.clone())
    }

    fn made(clock: Clock, limits: &[rate::Settings], budgets: &[budget::Settings], (rate, budget): Makers<'_>) -> Self {
        let rates: Box<[_]> = limits.iter().map(rate).collect();
        let month = budgets.iter().position(budget::Settings::is_the_apps_month);
        let asleep = month.is_none().then(|| asleep(budgets));
        let budgets = budgets.iter().chain(&asleep);
        let budgets: Box<[_]> = budgets.map(budget).collect();
        let monthly = Arc::clone(&budgets[month.unwrap_or(budgets.len() - 1)]);
        let matchings = rates.iter().map(|rule| (&rule.matching, &rule.per));
        let mut matchings = matchings.chain(budgets.iter().map(|budget| (&budget.matching, &budget.per)));
        let needs_credential = matchings.any(|(matching, per)| matching.needs_credential() || per.needs_credential());
        let (waiting, usual) = (AtomicUsize::new(0), Arc::default());
        Self { rates, budgets, monthly, clock, waiting, needs_credential, shared: None, sharing: None, usual }
    }

    /// Holds them together with other replicas, as far as the operator does not want them to be each instance's own.
    #[must_use]
    pub fn shared_by(self, shared: Option<Shared>) -> Self {
        self.held_together(shared.map(Arc::new))
    }

    fn held_together(mut self, sharing: Option<Arc<Shared>>) -> Self {
        let may_share = self.rates.iter().any(|rule| rule.may_share) || self.budgets.iter().any(|it| it.may_share);
        self.shared = sharing.clone().filter(|_| may_share);
        self.sharing = sharing;
        if let Some(shared) = &self.shared {
            self.rates.iter().for_each(|rule| rule.share_by(&shared.link));
            self.budgets.iter().for_each(|budget| budget.share_by(&shared.link));
        }
        self
    }

    /// This moment.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Whether there is a rule for calls at this stage.
    #[must_use]
    pub fn has_any(&self, stage: Stage) -> bool {
        let at_asking = stage == Stage::Asking && self.budgets.iter().any(|budget| budget.is_open());
        at_asking || self.rates.iter().any(|rule| rule.stage() == stage)
    }

    /// Whether it takes an estimate of a call's tokens to tell whether it may go.
    #[must_use]
    pub fn need_estimate(&self) -> bool {
        self.budgets.iter().any(|budget| budget.is_open()) || self.rates.iter().any(|rule| rule.counts_tokens())
    }

    /// Whether it takes the fingerprint of a call's credential.
    #[must_use]
    pub const fn need_credential(&self) -> bool {
        self.needs_credential
    }

    /// Takes what a call demands of every rule that is for it, or of none.
    ///
    /// # Errors
    /// With what keeps it from going.
    pub fn admit(&self, asker: &Asker<'_>, demand: &Demand, stage: Stage, now: Now) -> Result<Permit, Box<Refusal>> {
        let mut permit = Permit::for_rules(self.clock, self.rates.len(), self.budgets.len());
        let mut refusal = None;
        let mut subjects = Subjects::of(asker);
        for rule in self.rates.iter().filter(|rule| rule.stage() == stage && rule.matching.is_for(asker)) {
            let slot = rule.slots.of(subjects.by(&rule.per), now);
            match rule.take(&slot, demand, now) {
                Ok(mark) => {
                    let limit = Arc::clone(rule);
                    permit.taken.push(Taken { limit, slot, tokens: demand.tokens, is_call: true, mark });
                }
                Err(full) => Refusal::full(&mut refusal, rule, full),
            }
        }
        let budgets = if stage == Stage::Asking { &*self.budgets } else { &[] };
        for budget in budgets.iter().filter(|budget| budget.is_open() && budget.matching.is_for(asker)) {
            let slot = budget.account(subjects.by(&budget.per), now);
            match budget.reserve(&slot, demand, asker.model, now) {
                Ok(amount) => permit.reserved.push(Reserved { budget: Arc::clone(budget), slot, amount }),
                Err(over) => Refusal::over(&mut refusal, budget, over),
            }
        }
        // What was taken of the others is given back as the permit is dropped.
        refusal.map_or(Ok(permit), |refusal| Err(Box::new(refusal)))
    }

    /// The same, and where other replicas may have room that this one has not, asks for it first: one round trip for all
    /// rules, and all calls that wait then, within the store's deadline. Where the others cannot be asked, this
    /// replica's part decides. Dropping the future gives back what it has taken.
    ///
    /// # Errors
    /// With what keeps it from going.
    pub async fn ask(&self, asker: &Asker<'_>, demand: &Demand, stage: Stage) -> Result<Permit, Box<Refusal>> {
        let mut decided = self.admit(asker, demand, stage, self.now());
        let Some(shared) = &self.shared else { return decided };
        let mut until = None;
        while decided.as_ref().is_err_and(|refusal| refusal.may_ask) {
            let until = *until.get_or_insert_with(|| shared.deadline());
            shared.ask(self.lacking(asker, demand, stage), self.clock, until).await;
            decided = self.admit(asker, demand, stage, self.now());
        }
        decided
    }

    /// What has to be asked for before a call can go that demands this.
    fn lacking(&self, asker: &Asker<'_>, demand: &Demand, stage: Stage) -> Vec<Party> {
        let now = self.now();
        let (mut parties, mut subjects) = (Vec::new(), Subjects::of(asker));
        for rule in self.rates.iter().filter(|rule| rule.stage() == stage && rule.matching.is_for(asker)) {
            rule.want(&rule.slots.of(subjects.by(&rule.per), now), demand, now, &mut parties);
        }
        let budgets = if stage == Stage::Asking { &*self.budgets } else { &[] };
        for budget in budgets.iter().filter(|budget| budget.is_open() && budget.matching.is_for(asker)) {
            parties.extend(budget.want(&budget.account(subjects.by(&budget.per), now), demand, asker.model, now));
        }
        parties
    }

    /// Tells other replicas what was used here of the rules that `current` tells, and hears what they used. Runs until it
    /// is dropped.
    pub async fn share(current: impl Fn() -> Arc<Self>) {
        /// Rules that are shared may come later.
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let limits = loop {
            let limits = current();
            if limits.shared.is_some() || limits.sharing.is_none() {
                break limits;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        if let Some(shared) = &limits.shared {
            shared.work(limits.clock, |now| current().in_use(now)).await;
        }
    }

    /// Resolves when others were heard of for the first time; at once where nothing is shared.
    pub async fn first_word(&self) {
        if let Some(shared) = &self.shared {
            shared.first_word().await;
        }
    }

    /// Tells them for the last time, once nothing else does: they need not wait for what is held here.
    pub async fn leave(&self) {
        if let Some(shared) = &self.shared {
            shared.leave(self.clock, self.in_use(self.now())).await;
        }
    }

    fn in_use(&self, now: Now) -> Vec<Party> {
        let rates = self.rates.iter().flat_map(RateLimit::in_use);
        rates.chain(self.budgets.iter().flat_map(|budget| budget.in_use(now))).collect()
    }

    /// How the sharing with other replicas stands, if there is any.
    #[must_use]
    pub fn sharing_now(&self) -> Option<SharingNow> {
        self.shared.as_ref().map(|shared| shared.now(self.now()))
    }

    /// What a call will be charged to that goes without being asked: a response within a session. Nothing is taken.
    #[must_use]
    pub fn charge_to(&self, asker: &Asker<'_>) -> Permit {
        let now = self.now();
        let mut permit = Permit::for_rules(self.clock, self.rates.len(), self.budgets.len());
        let mut subjects = Subjects::of(asker);
        for budget in self.budgets.iter().filter(|budget| budget.is_open() && budget.matching.is_for(asker)) {
            let (slot, amount) = (budget.account(subjects.by(&budget.per), now), Amount::default());
            permit.reserved.push(Reserved { budget: Arc::clone(budget), slot, amount });
        }
        for rule in self.rates.iter().filter(|rule| rule.counts_tokens() && rule.matching.is_for(asker)) {
            let slot = rule.slots.of(subjects.by(&rule.per), now);
            let mark = Mark::of_nothing(rule.footing(now).scope);
            permit.taken.push(Taken { limit: Arc::clone(rule), slot, tokens: 0, is_call: false, mark });
        }
        permit
    }

    /// Why a session may not go on that was admitted: a budget is spent that would keep it from beginning.
    #[must_use]
    pub fn spent(&self, asker: &Asker<'_>) -> Option<Box<Refusal>> {
        let now = self.now();
        let demand = Demand { tokens: 0, money: Money::Unknown };
        let mut refusal = None;
        let mut subjects = Subjects::of(asker);
        for budget in self.budgets.iter().filter(|budget| budget.is_open() && budget.matching.is_for(asker)) {
            let slot = budget.account(subjects.by(&budget.per), now);
            match budget.reserve(&slot, &demand, asker.model, now) {
                Ok(amount) => Budget::give_back(&slot, amount),
                // What is only reserved may yet be given back.
                Err(over) if over.is_spent => Refusal::over(&mut refusal, budget, over),
                Err(_) => {}
            }
        }
        refusal.map(Box::new)
    }

    /// A place to wait for one's turn, if there is one left.
    #[must_use]
    pub fn wait(&self) -> Option<Waiting<'_>> {
        let place = Waiting(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(place)
    }

    /// Resolves when it may be worth trying again: after `wait`, or when a call of the rule of this name has ended.
    pub async fn turn(&self, rule: &str, wait: Duration) {
        let rule = self.rates.iter().find(|known| *known.name == *rule);
        let released = async {
            match rule {
                Some(rule) => rule.released.notified().await,
                None => std::future::pending().await,
            }
        };
        // Either will do.
        let _ = tokio::time::timeout(wait, released).await;
    }

    /// Counts what was decided in the end of a call that these rules were asked about.
    pub fn decided(&self, asker: &Asker<'_>, stage: Stage, outcome: Result<Decision, &Refusal>) {
        for rule in self.rates.iter().filter(|rule| rule.stage() == stage && rule.matching.is_for(asker)) {
            match outcome {
                Ok(decision) => rule.decided(decision),
                // Those that had room were not what kept it from going.
                Err(refusal) if refusal.full.iter().any(|(name, _)| *name == rule.name) => {
                    rule.decided(Decision::Rejected);
                }
                Err(_) => {}
            }
        }
    }

    /// Counts that a call was refused that a budget keeps from going.
    pub fn blocked(&self, refusal: &Refusal) {
        if let Refusal { rule, why: Why::Over(_), .. } = refusal {
            self.did(rule, Deed::Blocked);
        }
    }

    /// Counts that the budget of this name did this to a call.
    pub fn did(&self, budget: &str, deed: Deed) {
        if let Some(budget) = self.budgets.iter().find(|known| *known.name == *budget) {
            budget.tally.count(deed);
        }
    }

    /// Forgets whoever has nothing taken of anything. Runs until it is dropped.
    pub async fn forget_idle(self: Arc<Self>) {
        /// All of them every ten seconds.
        const EVERY: Duration = Duration::from_millis(10_000 / PARTS as u64);
        loop {
            for part in 0..PARTS {
                tokio::time::sleep(EVERY).await;
                self.forget(part);
            }
        }
    }

    /// Does so in one part of all subjects, so that no call waits for more than that.
    fn forget(&self, part: usize) {
        let now = self.now();
        self.rates.iter().for_each(|rule| rule.slots.forget(part, now));
        self.budgets.iter().for_each(|budget| budget.forget(part, now));
    }

    /// Ends overrides whose time is up. Runs until it is dropped.
    pub async fn end_overrides(self: Arc<Self>) {
        const EVERY: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(EVERY).await;
            let now = self.now();
            self.budgets.iter().for_each(|budget| budget.end_override(now));
        }
    }

    /// The limits of rate.
    #[must_use]
    pub fn rates(&self) -> &[Arc<RateLimit>] {
        &self.rates
    }

    /// The budgets that allow less than everything.
    pub fn budgets(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.budgets.iter().filter(|budget| budget.is_open())
    }

    /// The app's budget for a month: the first one of all calls that is configured, else one without a limit, until it
    /// is given one.
    #[must_use]
    pub fn monthly(&self) -> &Arc<Budget> {
        &self.monthly
    }

    /// The budgets that count what all instances spend, once somebody says what that is.
    #[must_use]
    pub fn fleet_budgets(&self) -> Vec<FleetBudget> {
        let now = self.now();
        self.budgets.iter().filter(|budget| budget.is_open()).filter_map(|budget| budget.of_fleet(now)).collect()
    }

    /// All instances together have spent so much of the budget of this name, says somebody who adds it up.
    pub fn tell(&self, name: &str, fleet: &FleetSpend) {
        if let Some(budget) = self.budgets.iter().find(|budget| &*budget.name == name) {
            budget.tell(fleet, self.now());
        }
    }

    /// How every limit of rate stands.
    #[must_use]
    pub fn rates_now(&self) -> Vec<RateNow> {
        let now = self.now();
        self.rates.iter().map(|rule| RateNow::of(rule, now)).collect()
    }

    /// How every budget stands.
    #[must_use]
    pub fn budgets_now(&self) -> Vec<BudgetNow> {
        let now = self.now();
        self.budgets().map(|budget| BudgetNow::of(budget, now)).collect()
    }
}

/// What makes a limit, and what makes a budget.
type Makers<'a> = (&'a dyn Fn(&rate::Settings) -> Arc<RateLimit>, &'a dyn Fn(&budget::Settings) -> Arc<Budget>);

/// The app's budget for a month where none is configured: it allows everything, until somebody gives it a limit.
fn asleep(configured: &[budget::Settings]) -> budget::Settings {
    let mut name = "monthly".to_owned();
    while configured.iter().any(|budget| budget.name == name) {
        name.insert_str(0, "app-");
    }
    budget::Settings { name, shared: false, ..budget::Settings::default() }
}

/// A place to wait, until it is dropped.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one call has taken of the rules. Dropped, it is given back.
#[derive(Debug)]
pub struct Permit {
    clock: Clock,
    taken: Vec<Taken>,
    reserved: Vec<Reserved>,
}

impl Permit {
    /// One with room for what is taken of so many rules.
    fn for_rules(clock: Clock, rates: usize, budgets: usize) -> Self {
        Self { clock, taken: Vec::with_capacity(rates), reserved: Vec::with_capacity(budgets) }
    }

    /// Holds what `other` holds as well.
    pub fn join(&mut self, mut other: Self) {
        self.taken.append(&mut other.taken);
        self.reserved.append(&mut other.reserved);
    }

    /// The call is over, and needed this. What nobody can tell is taken to be what was expected.
    pub fn settle(mut self, spent: Spent) {
        let now = self.clock.now();
        for taken in self.taken.drain(..) {
            taken.limit.settle(&taken, spent.tokens.unwrap_or(taken.tokens), now);
        }
        for Reserved { budget, slot, amount } in self.reserved.drain(..) {
            let actual = Amount { usd: spent.usd.unwrap_or(amount.usd), tokens: spent.tokens.unwrap_or(amount.tokens) };
            budget.settle(&slot, amount, actual, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.clock.now();
        for taken in self.taken.drain(..) {
            taken.limit.give_back(&taken, now);
        }
        for Reserved { slot, amount, .. } in self.reserved.drain(..) {
            Budget::give_back(&slot, amount);
        }
    }
}

#[cfg(test)]
mod tests;
