//! Budget: how much money, and how many tokens, in a window of the calendar.
//!
//! What a call is expected to cost is reserved before it goes, and becomes what it did cost once that is known: however
//! many calls are decided at once, at most one of them crosses the limit. Goes by the wall clock, and never back: a window
//! that was left is not entered again. Knows nothing of prices; it is told what a call costs.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::elsewhere::{Elsewhere, FleetBudget, FleetSpend};
use crate::limits::matching::{Matching, Per};
use crate::limits::shared::lease::Lease;
use crate::limits::shared::{Footing, Link};
use crate::limits::slots::{Idle, Slot, Slots};
use crate::limits::standing::Scope;
use crate::limits::tally::Tally;
use crate::limits::window::{Period, UnixTime, Window, Zone};
use crate::limits::{Demand, Money, Now};
use crate::units::PicoUsd;

/// What the operator writes of one budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Settings {
    /// What it is called: in metrics, in refusals and in the log.
    pub name: String,
    /// Which calls count against it; without this, all of them.
    #[serde(rename = "match")]
    pub matching: Matching,
    /// Whom it holds apart: one or more of `provider`, `model`, `namespace`, `workspace`, `user`, `agent`,
    /// `credential`. Each has the whole budget. Without this, all share it.
    pub per: Per,
    /// How much may be spent in a window, in US dollars.
    pub limit_usd: Option<PicoUsd>,
    /// How many tokens may be used in a window, input and output together.
    pub limit_tokens: Option<u64>,
    /// How long that has to last: `hour`, `day`, `week` (from Monday on), `month` or `total`.
    pub window: Window,
    /// Whose calendar it is, such as `Europe/Berlin`.
    pub time_zone: Zone,
    /// Which percentages of it are worth a line in the log when they are reached.
    pub thresholds: Vec<u64>,
    /// What happens once it is spent. `alert`: nothing but that it is told. `block`: further calls are refused.
    /// `downgrade`: further calls are made with the model `downgrade_to`.
    pub enforce: Enforce,
    /// The cheaper model, with `enforce: downgrade`. It is not held to this budget.
    pub downgrade_to: Option<String>,
    /// What a call is taken to cost whose price nobody can tell, such as one to a model that is not in the price table.
    pub unpriced_usd: PicoUsd,
    /// Whether a stream is ended early that crosses the limit while it is generated, with `enforce: block`.
    pub stop_streams: bool,
    /// Whether all replicas share it, once `cache.redis` is set. Without, each has the whole of it.
    pub shared: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            matching: Matching::default(),
            per: Per::default(),
            limit_usd: None,
            limit_tokens: None,
            window: Window::Month,
            time_zone: Zone::default(),
            thresholds: vec![50, 80, 90, 100],
            enforce: Enforce::Alert,
            downgrade_to: None,
            unpriced_usd: PicoUsd::ZERO,
            stop_streams: false,
            shared: true,
        }
    }
}

impl Settings {
    /// How much it allows.
    #[must_use]
    pub const fn allowance(&self) -> Allowance {
        Allowance { usd: self.limit_usd, tokens: self.limit_tokens }
    }

    /// Whether it is of all calls of the app in a month.
    #[must_use]
    pub fn is_the_apps_month(&self) -> bool {
        self.window == Window::Month && self.per.is_everybody() && self.matching == Matching::default()
    }

    /// A budget as it may be written.
    #[must_use]
    pub fn example() -> Self {
        Self { name: "app".to_owned(), limit_usd: Some(PicoUsd::new(1000 * PicoUsd::PER_USD)), ..Self::default() }
    }
}

/// What happens once a budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforce {
    /// It is told.
    Alert,
    /// Calls are refused.
    Block,
    /// Calls are made with a cheaper model.
    Downgrade,
}

impl Enforce {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Block => "block",
            Self::Downgrade => "downgrade",
        }
    }
}

/// An amount of what a budget is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Money.
    pub usd: PicoUsd,
    /// Tokens.
    pub tokens: u64,
}

impl Amount {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            usd: PicoUsd::new(self.usd.pico().saturating_add(other.usd.pico())),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    /// The greater of both, each for itself.
    pub(super) fn max(self, other: Self) -> Self {
        Self { usd: self.usd.max(other.usd), tokens: self.tokens.max(other.tokens) }
    }

    /// What is left of it without `other`, not below zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self { usd: self.usd.less(other.usd), tokens: self.tokens.saturating_sub(other.tokens) }
    }
}

/// How much a budget allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Money, if it is about money.
    pub usd: Option<PicoUsd>,
    /// Tokens, if it is about tokens.
    pub tokens: Option<u64>,
}

impl Allowance {
    /// The part of it that a call can use up which demands this: one that costs nothing is not held up by money.
    pub(super) fn about(self, demand: &Demand) -> Self {
        let costs = !matches!(demand.money, Money::Free | Money::Expected(PicoUsd::ZERO));
        let uses_tokens = demand.tokens > 0 || demand.money == Money::Unknown;
        Self { usd: self.usd.filter(|_| costs), tokens: self.tokens.filter(|_| uses_tokens) }
    }

    /// Whether so much leaves no room for anything more.
    #[must_use]
    pub fn is_used_up_by(self, amount: Amount) -> bool {
        self.usd.is_some_and(|limit| amount.usd >= limit) || self.tokens.is_some_and(|limit| amount.tokens >= limit)
    }

    /// Whether so much more fits in beside what is `used`.
    fn has_room_for(self, used: Amount, more: Amount) -> bool {
        let would_be = used.plus(more);
        !self.is_used_up_by(used)
            && self.usd.is_none_or(|limit| would_be.usd <= limit)
            && self.tokens.is_none_or(|limit| would_be.tokens <= limit)
    }

    /// Whether so much is so many percent of it, of money or of tokens: as [`Self::percent`] has it, without a division.
    fn is_used_to(self, percent: u64, amount: Amount) -> bool {
        let is_used = |part: u128, whole: u128| match whole {
            0 => percent <= 100,
            whole => part.saturating_mul(100) >= whole.saturating_mul(percent.into()),
        };
        self.usd.is_some_and(|limit| is_used(amount.usd.pico(), limit.pico()))
            || self.tokens.is_some_and(|limit| is_used(amount.tokens.into(), limit.into()))
    }

    /// How many whole percent of it so much is: of money or of tokens, whichever is more.
    fn percent(self, amount: Amount) -> u64 {
        self.used(amount, 100)
    }

    /// The same in hundredths of a percent, rounded down. Nothing is used up by anything: that is 100 %.
    #[must_use]
    pub fn percent_hundredths(self, amount: Amount) -> u64 {
        self.used(amount, 10_000)
    }

    /// How much of it so much is, where all of it is `all`.
    fn used(self, amount: Amount, all: u128) -> u64 {
        let share = |part: u128, whole: u128| {
            let share = part.saturating_mul(all).checked_div(whole).unwrap_or(all);
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let usd = self.usd.map(|limit| share(amount.usd.pico(), limit.pico()));
        let tokens = self.tokens.map(|limit| share(amount.tokens.into(), limit.into()));
        usd.max(tokens).unwrap_or_default()
    }
}

/// `10 USD and 5000 tokens`.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { usd: Some(usd), tokens: None } => write!(f, "{usd} USD"),
            Self { usd: None, tokens } => write!(f, "{} tokens", tokens.unwrap_or_default()),
            Self { usd: Some(usd), tokens: Some(tokens) } => write!(f, "{usd} USD and {tokens} tokens"),
        }
    }
}

/// What is kept of one subject.
#[derive(Debug)]
pub(super) struct Account {
    /// When the window began that `spent` is of.
    pub(super) start: UnixTime,
    /// When it ends, if it ever does.
    end: Option<UnixTime>,
    /// What was spent in it.
    pub(super) spent: Amount,
    /// What calls under way are expected to cost.
    pub(super) reserved: Amount,
    /// What streams under way have used so far, where they tell.
    running: Amount,
    /// The highest threshold that was told of, in percent.
    pub(super) told: u64,
    /// What this replica holds of it, where it is shared.
    pub(super) lease: Option<Box<Lease>>,
    /// Whether there is something to tell the other replicas.
    pub(super) is_listed: bool,
    /// How often there was nothing new to tell.
    pub(super) idle_for: u8,
}

impl Default for Account {
    fn default() -> Self {
        let nothing = Amount::default();
        Self {
            start: UnixTime::EPOCH,
            end: None,
            spent: nothing,
            reserved: nothing,
            running: nothing,
            told: 0,
            lease: None,
            is_listed: false,
            idle_for: 0,
        }
    }
}

impl Idle for Account {
    fn is_idle(&self, now: Now) -> bool {
        let is_over = self.end.is_some_and(|end| end <= now.wall);
        let has_spent = self.spent != Amount::default() || self.used_by_own() != Amount::default();
        self.reserved == Amount::default() && (is_over || !has_spent)
    }
}

impl Account {
    /// Enters a window, if it is a later one.
    pub(super) fn enter(&mut self, period: Period) {
        if self.start < period.start {
            let Self { reserved, running, is_listed, .. } = *self;
            let mut lease = self.lease.take();
            if let Some(lease) = &mut lease {
                lease.renew();
            }
            *self = Self { start: period.start, reserved, running, lease, is_listed, ..Self::default() };
        }
        // Whoever looked at the time before another one entered the next window knows an earlier end.
        if self.start == period.start {
            self.end = period.end;
        }
    }

    /// What was spent in the window that is now: by all replicas that share the budget, as far as this one knows.
    pub(super) fn used(&self) -> Amount {
        let by_all = self.lease.as_ref().and_then(|lease| lease.used_by_all());
        by_all.map_or(self.spent, |by_all| by_all.max(self.spent))
    }

    /// The same by this one, as it counts against its part.
    fn used_by_own(&self) -> Amount {
        let own = self.lease.as_ref().filter(|lease| lease.used_by_all().is_some());
        own.map_or(self.spent, |lease| lease.own())
    }

    /// Whether there is room for `amount`, of what is `about` a call, where others have spent so much `elsewhere`.
    fn has_room(&self, amount: Amount, about: Allowance, footing: Footing, elsewhere: Amount) -> bool {
        let used = self.used_by_own().plus(self.reserved);
        match &self.lease {
            Some(lease) if footing.scope == Scope::App => lease.fits(self.reserved, amount, about),
            Some(lease) => {
                let part = lease.alone(about, footing);
                // Of many replicas, not each lets a call cross its part; but one call each has.
                let may_cross = footing.replicas == 1 || used == Amount::default();
                let is_spent = about.is_used_up_by(self.used().plus(self.reserved));
                part.has_room_for(used, amount) || (may_cross && !is_spent && !part.is_used_up_by(used))
            }
            None => !about.is_used_up_by(elsewhere.plus(used)),
        }
    }

    /// Whether those may have room who were not asked just now.
    fn may_ask(&self, footing: Footing, now: Now) -> bool {
        let has_no_room = self.lease.as_ref().is_none_or(|lease| lease.has_no_room(now.nanos));
        footing.scope == Scope::App && !has_no_room
    }
}

/// That an operator lets calls pass for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Until when.
    pub until: UnixTime,
    /// The limit meanwhile, in US dollars; without it, there is none.
    pub limit_usd: Option<PicoUsd>,
    /// What for, in the operator's words.
    pub reason: Box<str>,
}

/// What of a budget may change while weir runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How much it allows.
    pub allowance: Allowance,
    /// Which percentages are told of, in order.
    pub thresholds: Vec<u64>,
    /// Who says so of these two.
    pub origin: Origin,
    /// What holds for a while in place of its limit.
    pub overridden: Option<Override>,
}

impl Terms {
    /// Whether there is anything to hold calls to.
    fn is_open(&self) -> bool {
        self.allowance != Allowance::default()
    }

    /// What holds in place of its limit at this moment.
    #[must_use]
    pub fn override_at(&self, now: Now) -> Option<&Override> {
        self.overridden.as_ref().filter(|overridden| now.wall < overridden.until)
    }
}

/// Who says what a budget allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration.
    #[default]
    Config,
    /// An operator, while weir runs, until it is taken back.
    Api,
}

/// One budget, and the accounts of its subjects.
#[derive(Debug)]
pub struct Budget {
    /// Its name.
    pub name: Arc<str>,
    /// Which calls count against it.
    pub matching: Matching,
    /// Whom it holds apart.
    pub per: Per,
    pub(super) window: Window,
    /// Whose calendar its window is of.
    pub zone: Zone,
    pub(super) enforce: Enforce,
    /// The cheaper model, where that is what happens once it is spent.
    pub downgrade_to: Option<Arc<str>>,
    unpriced: PicoUsd,
    pub(super) stop_streams: bool,
    /// What the operator wrote.
    pub(super) configured: Terms,
    terms: RwLock<Terms>,
    /// Since when calls are counted against it, in seconds since 1970 began.
    counted_since: Arc<AtomicI64>,
    period: RwLock<Period>,
    /// Whether the clock shows a time before the window that is now.
    clock_is_back: AtomicBool,
    slots: Arc<Slots<Account>>,
    pub(super) tally: Arc<Tally>,
    /// What was counted against it since the start.
    charged: Arc<Mutex<Amount>>,
    elsewhere: Arc<Elsewhere>,
    pub(super) may_share: bool,
    /// How it stands with other replicas, where it is shared.
    pub(super) link: OnceLock<Arc<Link>>,
    /// The accounts that there is something to tell of.
    pub(super) listed: Arc<Mutex<Vec<Arc<Slot<Account>>>>>,
    settings: Settings,
}

/// Why a budget has no room for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// How much it allows.
    pub allowance: Allowance,
    /// What was spent.
    pub spent: Amount,
    /// Whether all of it is spent; if not, calls under way may yet leave some of it.
    pub is_spent: bool,
    /// In how long there is a new window, if there ever is.
    pub renews_in: Option<Duration>,
    /// Whether other replicas may have room: they were not asked.
    pub may_ask: bool,
}

/// What a call has reserved of a budget.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) budget: Arc<Budget>,
    pub(super) slot: Arc<Slot<Account>>,
    pub(super) amount: Amount,
}

impl Budget {
    /// The budget that `settings` describe.
    #[must_use]
    pub fn new(settings: &Settings, now: Now) -> Self {
        let mut thresholds = settings.thresholds.clone();
        thresholds.sort_unstable();
        let configured = Terms { allowance: settings.allowance(), thresholds, ..Terms::default() };
        Self {
            name: settings.name.as_str().into(),
            matching: settings.matching.clone(),
            per: settings.per.clone(),
            window: settings.window,
            zone: settings.time_zone.clone(),
            enforce: settings.enforce,
            downgrade_to: settings.downgrade_to.as_deref().map(Into::into),
            unpriced: settings.unpriced_usd,
            stop_streams: settings.stop_streams,
            terms: RwLock::new(configured.clone()),
            configured,
            counted_since: Arc::new(AtomicI64::new(now.wall.seconds())),
            period: RwLock::new(settings.window.period(&settings.time_zone, now.wall)),
            clock_is_back: AtomicBool::new(false),
            slots: Arc::new(Slots::new()),
            tally: Arc::default(),
            charged: Arc::default(),
            elsewhere: Arc::default(),
            may_share: settings.shared,
            link: OnceLock::new(),
            listed: Arc::default(),
            settings: settings.clone(),
        }
    }

    /// The budget that `settings` describe, in place of this one. What was spent stays spent, and what an operator has
    /// changed stays changed, if it is for the same subjects and the same windows.
    pub(super) fn succeeded_by(self: &Arc<Self>, settings: &Settings, now: Now) -> Arc<Self> {
        if self.settings == *settings {
            return Arc::clone(self);
        }
        let (tally, charged) = (Arc::clone(&self.tally), Arc::clone(&self.charged));
        let next = Self { tally, charged, ..Self::new(settings, now) };
        if (&self.per, self.window, &self.zone) != (&next.per, next.window, &next.zone) {
            return Arc::new(next);
        }
        let next = Self {
            slots: Arc::clone(&self.slots),
            listed: Arc::clone(&self.listed),
            elsewhere: Arc::clone(&self.elsewhere),
            counted_since: Arc::clone(&self.counted_since),
            terms: RwLock::new(self.terms()),
            ..next
        };
        next.change(now, |terms| {
            if terms.origin == Origin::Config {
                *terms = Terms { overridden: terms.overridden.take(), ..next.configured.clone() };
            }
        });
        Arc::new(next)
    }

    /// The account of `subject`.
    pub(super) fn account(&self, subject: &str, now: Now) -> Arc<Slot<Account>> {
        // Those of a window that is over may be forgotten on the way: so that window has to be left.
        self.period(now);
        self.slots.of(subject, now)
    }

    /// The accounts of all subjects, in no order.
    pub(super) fn accounts(&self) -> impl Iterator<Item = Arc<Slot<Account>>> {
        self.slots.all()
    }

    /// How many subjects are remembered.
    pub(super) fn subjects(&self) -> usize {
        self.slots.len()
    }

    /// Forgets whoever of one part of all subjects has spent nothing in the window that is now.
    pub(super) fn forget(&self, part: usize, now: Now) {
        self.period(now);
        self.slots.forget(part, now);
    }

    /// What it allows, now.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the configuration says that it allows.
    #[must_use]
    pub const fn configured(&self) -> &Terms {
        &self.configured
    }

    /// Changes what it allows, for the very next call. One that had no limit begins with nothing spent.
    pub fn change<T>(&self, now: Now, change: impl FnOnce(&mut Terms) -> T) -> T {
        let mut terms = self.terms.write().unwrap_or_else(PoisonError::into_inner);
        let was_open = terms.is_open();
        let changed = change(&mut terms);
        let (is_open, allowance) = (terms.is_open(), terms.allowance);
        drop(terms);
        let begins = is_open && !was_open;
        if begins {
            self.counted_since.store(now.wall.seconds(), Ordering::Relaxed);
        }
        for slot in self.slots.all() {
            let mut account = slot.lock();
            if begins {
                account.spent = Amount::default();
            }
            // Of a larger limit, less is used: what was told of is worth telling again when it is reached.
            account.told = account.told.min(allowance.percent(account.used()));
        }
        self.slots.changed();
        changed
    }

    /// Ends what holds in place of its limit, once its time is up.
    pub(super) fn end_override(&self, now: Now) {
        let is_over = |terms: &Terms| terms.overridden.is_some() && terms.override_at(now).is_none();
        if is_over(&self.terms.read().unwrap_or_else(PoisonError::into_inner)) {
            let ended = self.change(now, |terms| if is_over(terms) { terms.overridden.take() } else { None });
            if let Some(Override { until, .. }) = ended {
                tracing::info!(weir.budget = %self.name, weir.budget.override_until = %until, "an override has ended");
            }
        }
    }

    /// Since when calls are counted that `spent` is of, in the window that is now.
    #[must_use]
    pub fn counted_since(&self, period: Period) -> UnixTime {
        period.start.max(UnixTime::new(self.counted_since.load(Ordering::Relaxed)))
    }

    /// How often something of it has changed that a restart should not forget.
    pub(super) fn changes(&self) -> u64 {
        self.slots.changes()
    }

    /// Goes on with what was counted since then.
    pub(super) fn counted_before(&self, since: UnixTime) {
        self.counted_since.fetch_min(since.seconds(), Ordering::Relaxed);
    }

    /// Goes on where `subject` was before a restart, in the window that is now.
    pub(super) fn restore(&self, subject: &str, spent: Amount, told: u64, now: Now) {
        let (period, slot) = (self.period(now), self.account(subject, now));
        let mut account = slot.lock();
        account.enter(period);
        account.spent = account.spent.plus(spent);
        account.told = account.told.max(told);
    }

    /// The window that is now. A wall clock that goes back changes nothing.
    pub(super) fn period(&self, now: Now) -> Period {
        let period = *self.period.read().unwrap_or_else(PoisonError::into_inner);
        if period.end.is_none_or(|end| now.wall < end) {
            self.tell_of_clock(period, now);
            return period;
        }
        let mut period = self.period.write().unwrap_or_else(PoisonError::into_inner);
        if period.end.is_some_and(|end| end <= now.wall) {
            *period = self.window.period(&self.zone, now.wall);
        }
        *period
    }

    /// Tells once that the clock has gone back to before the window that is now, which goes on.
    fn tell_of_clock(&self, period: Period, now: Now) {
        /// Whoever looked at the time just before another one entered the window.
        const JUST_NOW: i64 = 1;
        let is_back = now.wall.seconds() < period.start.seconds() - JUST_NOW;
        if is_back == self.clock_is_back.load(Ordering::Relaxed) {
            return;
        }
        let was_back = self.clock_is_back.swap(is_back, Ordering::Relaxed);
        if is_back && !was_back {
            tracing::warn!(
                weir.budget = %self.name,
                weir.budget.window_start = %period.start,
                weir.budget.window_end = period.end.map(tracing::field::display),
                "the clock has gone back: a budget stays in the window that it has entered, with what was spent in it"
            );
        }
    }

    /// What a call would count as here that demands this.
    pub(super) fn amount(&self, demand: &Demand) -> Amount {
        let usd = match demand.money {
            Money::Free => PicoUsd::ZERO,
            Money::Expected(usd) => usd,
            Money::Unknown => self.unpriced,
        };
        Amount { usd, tokens: demand.tokens }
    }

    /// Whether it keeps a call for `model` from going when it is spent.
    pub(super) fn holds(&self, model: Option<&str>) -> bool {
        match self.enforce {
            Enforce::Alert => false,
            Enforce::Block => true,
            Enforce::Downgrade => self.downgrade_to.as_deref() != model,
        }
    }

    /// What it allows at this moment; `None` if everything.
    pub(super) fn allowance(&self, now: Now) -> Option<Allowance> {
        let terms = self.terms.read().unwrap_or_else(PoisonError::into_inner);
        match terms.override_at(now) {
            None => Some(terms.allowance),
            Some(Override { limit_usd: None, .. }) => None,
            Some(Override { limit_usd, .. }) => Some(Allowance { usd: *limit_usd, tokens: None }),
        }
    }

    /// Reserves what a call for `model` is expected to cost. The call that crosses the limit is the last.
    pub(super) fn reserve(
        &self,
        slot: &Arc<Slot<Account>>,
        demand: &Demand,
        model: Option<&str>,
        now: Now,
    ) -> Result<Amount, Over> {
        let (period, amount, footing) = (self.period(now), self.amount(demand), self.footing(now));
        let allowance = self.allowance(now).filter(|_| self.holds(model));
        let others = self.spent_elsewhere(period, now).unwrap_or_default();
        let mut account = slot.lock();
        self.enter(&mut account, period);
        if let Some(allowance) = allowance
            && !account.has_room(amount, allowance.about(demand), footing, others)
        {
            let spent = others.plus(account.used());
            return Err(Over {
                allowance,
                spent,
                is_spent: allowance.is_used_up_by(spent),
                renews_in: period.end.map(|end| seconds_until(end, now)),
                may_ask: account.may_ask(footing, now),
            });
        }
        account.reserved = account.reserved.plus(amount);
        if let Some(lease) = &mut account.lease {
            lease.take(amount);
        }
        self.list(slot, &mut account);
        Ok(amount)
    }

    /// Enters a window, with a lease where the budget is shared.
    fn enter(&self, account: &mut Account, period: Period) {
        account.enter(period);
        if self.link.get().is_some() {
            account.lease.get_or_insert_default();
        }
    }

    /// Whether it ends streams that use it up.
    pub(super) fn ends_streams(&self) -> bool {
        self.stop_streams && self.enforce == Enforce::Block
    }

    /// A stream that had used the one has now used the other of `used`, and had reserved so much. Whether all that is
    /// spent and used uses the budget up.
    pub(super) fn run(&self, slot: &Slot<Account>, used: [Amount; 2], reserved: Amount, now: Now) -> bool {
        let (period, allowance) = (self.period(now), self.allowance(now));
        let elsewhere = self.spent_elsewhere(period, now).unwrap_or_default();
        let [before, so_far] = used;
        let mut account = slot.lock();
        self.enter(&mut account, period);
        account.running = account.running.plus(so_far).minus(before);
        account.reserved = account.reserved.plus(so_far.minus(reserved)).minus(before.minus(reserved));
        let used = elsewhere.plus(account.used()).plus(account.running);
        allowance.is_some_and(|allowance| allowance.is_used_up_by(used))
    }

    /// A stream is over that had used so much; what it had reserved stays so.
    pub(super) fn ran(slot: &Slot<Account>, used: Amount) {
        let mut account = slot.lock();
        account.running = account.running.minus(used);
    }

    /// Gives back what was reserved for a call that did not go.
    pub(super) fn give_back(slot: &Slot<Account>, reserved: Amount) {
        let mut account = slot.lock();
        account.reserved = account.reserved.minus(reserved);
    }

    /// A call is over for which so much was reserved, and which cost so much. It counts in the window that is now.
    pub(super) fn settle(&self, slot: &Arc<Slot<Account>>, reserved: Amount, spent: Amount, now: Now) {
        let period = self.period(now);
        self.change_spent(slot, period, now, |account| {
            account.reserved = account.reserved.minus(reserved);
            account.spent = account.spent.plus(spent);
            if let Some(lease) = &mut account.lease {
                lease.use_up(spent);
            }
            self.list(slot, account);
            self.charge(spent);
            self.slots.changed();
        });
    }

    /// All instances together have spent so much, says somebody who adds it up.
    pub(super) fn tell(&self, fleet: &FleetSpend, now: Now) {
        let period = self.period(now);
        if !self.spans_instances() || period.start != fleet.start {
            return;
        }
        let slot = self.account("", now);
        self.change_spent(&slot, period, now, |account| {
            // What was counted here since then is theirs no more than what was spent here before.
            let all = fleet.all.plus(self.charged_so_far().minus(fleet.charged));
            self.elsewhere.tell(all.minus(account.spent), period, fleet.good_for, now);
        });
    }

    /// Has `change` change what is spent, in the window that is now, and tells of the thresholds that reaches.
    pub(super) fn change_spent(
        &self,
        slot: &Slot<Account>,
        period: Period,
        now: Now,
        change: impl FnOnce(&mut Account),
    ) {
        let reached = {
            let terms = self.terms.read().unwrap_or_else(PoisonError::into_inner);
            let mut account = slot.lock();
            self.enter(&mut account, period);
            change(&mut account);
            let spent = self.spent_elsewhere(period, now).unwrap_or_default().plus(account.used());
            let untold = terms.thresholds.iter().rev().copied().take_while(|threshold| *threshold > account.told);
            let reached = { untold }.find(|threshold| terms.allowance.is_used_to(*threshold, spent));
            account.told = reached.unwrap_or(account.told);
            reached.map(|threshold| (threshold, spent))
        };
        if let Some((threshold, spent)) = reached {
            tracing::warn!(
                weir.budget = %self.name,
                weir.budget.subject = %slot.subject,
                weir.budget.window = self.window.as_str(),
                weir.budget.threshold_percent = threshold,
                weir.budget.spent_usd = %spent.usd,
                weir.budget.spent_tokens = spent.tokens,
                "a budget has reached a threshold"
            );
        }
    }

    /// What other instances have spent in this window; `None` if nobody says.
    pub(super) fn spent_elsewhere(&self, period: Period, now: Now) -> Option<Amount> {
        if self.per.is_everybody() { self.elsewhere.spent(period, now) } else { None }
    }

    /// What it takes to add up what all instances spend, if that can count here.
    pub(super) fn of_fleet(&self, now: Now) -> Option<FleetBudget> {
        self.spans_instances().then(|| FleetBudget {
            name: Arc::clone(&self.name),
            allowance: self.terms().allowance,
            start: self.period(now).start,
            charged: self.charged_so_far(),
        })
    }

    /// Whether what all instances spend can be added up: of one subject, in a window that ends before records of it are
    /// gone, and not known already.
    fn spans_instances(&self) -> bool {
        self.per.is_everybody() && self.window != Window::Total && self.link.get().is_none()
    }

    fn charge(&self, spent: Amount) {
        let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        *charged = charged.plus(spent);
    }

    /// What was counted against it since the start, whoever spent it and in whichever window.
    pub(super) fn charged_so_far(&self) -> Amount {
        *self.charged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes an estimate of what a call costs to tell whether the call may go.
    pub(super) fn is_open(&self) -> bool {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).is_open()
    }
}

fn seconds_until(end: UnixTime, now: Now) -> Duration {
    Duration::from_secs(u64::try_from(end.seconds().saturating_sub(now.wall.seconds())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::slots::PARTS;

    const DAY: i64 = 24 * 3600;

    fn at(seconds: i64) -> Now {
        Now { nanos: 0, wall: UnixTime::new(1_000 * DAY + seconds) }
    }

    fn usd(dollars: u128) -> PicoUsd {
        PicoUsd::new(dollars * PicoUsd::PER_USD)
    }

    fn budget(settings: Settings) -> (Budget, Arc<Slot<Account>>) {
        let settings = Settings { window: Window::Day, enforce: Enforce::Block, ..settings };
        let budget = Budget::new(&settings, at(0));
        let slot = budget.account("", at(0));
        (budget, slot)
    }

    fn dollars(limit: u128) -> (Budget, Arc<Slot<Account>>) {
        budget(Settings { limit_usd: Some(usd(limit)), ..Settings::default() })
    }

    fn costs(dollars: u128) -> Demand {
        Demand { tokens: 0, money: Money::Expected(usd(dollars)) }
    }

    fn spent(dollars: u128) -> Amount {
        Amount { usd: usd(dollars), tokens: 0 }
    }

    #[test]
    fn the_call_that_crosses_the_limit_is_the_last() {
        let (budget, slot) = dollars(10);
        for _ in 0..4 {
            budget.reserve(&slot, &costs(3), None, at(0)).expect("room");
        }
        let over = budget.reserve(&slot, &costs(3), None, at(0)).expect_err("12 of 10 are reserved");
        assert_eq!((over.is_spent, over.renews_in), (false, Some(Duration::from_secs(86_400))));
        budget.settle(&slot, spent(3), spent(0), at(0));
        budget.reserve(&slot, &costs(3), None, at(0)).expect("one of them cost nothing");
        for _ in 0..4 {
            budget.settle(&slot, spent(3), spent(3), at(0));
        }
        let over = budget.reserve(&slot, &costs(0), None, at(0));
        assert!(over.is_ok(), "what costs nothing is not held up by money");
        assert!(budget.reserve(&slot, &costs(1), None, at(0)).expect_err("spent").is_spent);
    }

    #[test]
    fn a_new_window_begins_with_nothing_spent_and_what_is_under_way_reserved() {
        let (budget, slot) = dollars(10);
        budget.reserve(&slot, &costs(8), None, at(0)).expect("room");
        budget.settle(&slot, spent(8), spent(12), at(0));
        budget.reserve(&slot, &costs(1), None, at(DAY - 1)).expect_err("it is still the day");
        budget.reserve(&slot, &costs(9), None, at(DAY)).expect("another day");
        let over = budget.reserve(&slot, &costs(9), None, at(DAY)).map(|_| ());
        assert!(over.is_ok(), "9 of 10 are reserved, and nothing is spent");
        budget.reserve(&slot, &costs(1), None, at(DAY)).expect_err("18 of 10 are reserved");
    }

    #[test]
    fn a_clock_that_goes_back_opens_no_window_again() {
        let (budget, slot) = dollars(10);
        budget.reserve(&slot, &costs(10), None, at(DAY)).expect("room");
        budget.settle(&slot, spent(10), spent(10), at(DAY));
        for back in [DAY - 1, 0, -30 * DAY] {
            budget.reserve(&slot, &costs(1), None, at(back)).expect_err("yesterday's budget is gone");
        }
        budget.reserve(&slot, &costs(1), None, at(2 * DAY)).expect("tomorrow there is a new one");
    }

    #[test]
    fn a_clock_that_goes_forward_and_back_opens_one_window_only() {
        let settings =
            Settings { per: "agent".parse().expect("a part"), limit_usd: Some(usd(10)), ..Settings::default() };
        let (budget, _) = budget(settings);
        let spend = |now| budget.settle(&budget.account("agent=a", now), Amount::default(), spent(10), now);
        spend(at(0));
        (0..PARTS).for_each(|part| budget.forget(part, at(DAY)));
        spend(at(0));
        for later in [0, DAY - 1, DAY, 2 * DAY - 1] {
            let slot = budget.account("agent=a", at(later));
            budget.reserve(&slot, &costs(1), None, at(later)).expect_err("tomorrow's budget is spent as well");
        }
        let slot = budget.account("agent=a", at(2 * DAY));
        budget.reserve(&slot, &costs(1), None, at(2 * DAY)).expect("the day after there is a new one");
    }

    #[test]
    fn an_account_ends_with_the_window_it_is_in() {
        let day =
            |number: i64| Period { start: UnixTime::new(number * DAY), end: Some(UnixTime::new((number + 1) * DAY)) };
        let mut account = Account::default();
        account.enter(day(1001));
        account.spent = spent(1);
        account.enter(day(1000));
        assert!(!account.is_idle(at(DAY)), "it has spent something today");
        assert!(account.is_idle(at(2 * DAY)));
    }

    #[test]
    fn tokens_are_a_budget_as_well() {
        let (budget, slot) = budget(Settings { limit_tokens: Some(100), ..Settings::default() });
        let demand = Demand { tokens: 60, money: Money::Expected(PicoUsd::ZERO) };
        budget.reserve(&slot, &demand, None, at(0)).expect("room");
        budget.reserve(&slot, &demand, None, at(0)).expect("the one that crosses");
        let over = budget.reserve(&slot, &demand, None, at(0)).expect_err("120 of 100 are reserved");
        assert_eq!(over.allowance, Allowance { usd: None, tokens: Some(100) });
    }

    #[test]
    fn what_nobody_can_price_counts_as_the_operator_says() {
        let settings = Settings { limit_usd: Some(usd(1)), unpriced_usd: usd(1), ..Settings::default() };
        let (budget, slot) = budget(settings);
        let unknown = Demand { tokens: 0, money: Money::Unknown };
        assert_eq!(budget.reserve(&slot, &unknown, None, at(0)).expect("room").usd, usd(1));
        budget.reserve(&slot, &unknown, None, at(0)).expect_err("it is reserved");
    }

    #[test]
    fn an_override_holds_until_its_time() {
        let (budget, slot) = dollars(1);
        budget.settle(&slot, Amount::default(), spent(5), at(0));
        let until = at(3600).wall;
        for (limit_usd, is_room) in [(None, true), (Some(usd(6)), true), (Some(usd(5)), false)] {
            let overridden = Override { until, limit_usd, reason: "launch".into() };
            budget.change(at(0), |terms| terms.overridden = Some(overridden));
            let reserved = budget.reserve(&slot, &costs(1), None, at(3599));
            assert_eq!(reserved.is_ok(), is_room, "{limit_usd:?}");
            if let Ok(amount) = reserved {
                Budget::give_back(&slot, amount);
            }
            budget.reserve(&slot, &costs(1), None, at(3600)).expect_err("its time is up");
        }
    }

    #[test]
    fn an_override_is_taken_away_when_its_time_is_up_and_not_before() {
        let (budget, _) = dollars(1);
        let overridden = Override { until: at(60).wall, limit_usd: None, reason: "launch".into() };
        budget.change(at(0), |terms| terms.overridden = Some(overridden.clone()));
        budget.end_override(at(59));
        assert_eq!(budget.terms().overridden, Some(overridden));
        budget.end_override(at(60));
        assert_eq!(budget.terms().overridden, None);
    }

    #[test]
    fn a_changed_limit_holds_at_once_and_what_was_told_is_told_again() {
        let (budget, slot) = dollars(10);
        let told = || slot.lock().told;
        budget.settle(&slot, Amount::default(), spent(10), at(0));
        assert_eq!(told(), 100);
        let limit = |dollars| budget.change(at(0), |terms| terms.allowance.usd = Some(usd(dollars)));
        limit(20);
        budget.reserve(&slot, &costs(0), None, at(0)).expect("room");
        assert_eq!(told(), 50, "80 % are still to come");
        budget.settle(&slot, Amount::default(), spent(6), at(0));
        assert_eq!(told(), 80);
        limit(15);
        budget.reserve(&slot, &costs(1), None, at(0)).expect_err("16 of 15 are spent");
    }

    #[test]
    fn a_budget_that_had_no_limit_begins_with_nothing_spent() {
        let (budget, slot) = budget(Settings::default());
        budget.settle(&slot, Amount::default(), spent(3), at(0));
        assert!(!budget.is_open());
        budget.change(at(60), |terms| terms.allowance.usd = Some(usd(1)));
        assert!(budget.is_open());
        assert_eq!((slot.lock().spent, budget.counted_since(budget.period(at(60)))), (Amount::default(), at(60).wall));
        let tomorrow = budget.period(at(DAY));
        assert_eq!(budget.counted_since(tomorrow), tomorrow.start, "all of it");
    }

    /// Money and tokens allowed; those spent; how many hundredths of a percent.
    #[test]
    fn how_much_is_used_is_a_number_whatever_is_allowed() {
        let all = PicoUsd::new(u128::MAX);
        for (allowed, tokens, amount, expected) in [
            (Some(usd(3)), None, spent(1), 3_333),
            (Some(usd(3)), Some(10), Amount { usd: usd(1), tokens: 9 }, 9_000),
            (Some(usd(1)), None, spent(2), 20_000),
            (Some(PicoUsd::ZERO), None, spent(0), 10_000),
            (Some(PicoUsd::ZERO), None, spent(7), 10_000),
            (None, Some(0), Amount { usd: usd(1), tokens: 0 }, 10_000),
            (None, None, spent(7), 0),
            (Some(PicoUsd::new(1)), None, Amount { usd: all, tokens: 0 }, u64::MAX),
        ] {
            let allowance = Allowance { usd: allowed, tokens };
            assert_eq!(allowance.percent_hundredths(amount), expected, "{allowance:?}: {amount:?}");
        }
    }

    #[test]
    fn a_cheaper_model_is_not_held_to_the_budget_that_wants_it() {
        let settings = Settings { limit_usd: Some(usd(1)), downgrade_to: Some("small".into()), ..Settings::default() };
        let budget = Budget::new(&Settings { enforce: Enforce::Downgrade, ..settings }, at(0));
        let slot = budget.account("", at(0));
        budget.settle(&slot, Amount::default(), spent(1), at(0));
        budget.reserve(&slot, &costs(1), Some("large"), at(0)).expect_err("spent");
        budget.reserve(&slot, &costs(1), Some("small"), at(0)).expect("that is what is wanted");
    }

    #[test]
    fn a_threshold_is_reached_at_as_many_percent() {
        for limit in [0_u128, 1, 3, 7, 100, 999] {
            for spent in [0_u128, 1, 2, 3, 5, 50, 99, 100, 999, 5000] {
                for percent in [1, 33, 50, 99, 100, 101, 1000] {
                    let money = Allowance { usd: Some(PicoUsd::new(limit)), tokens: None };
                    let amount = Amount { usd: PicoUsd::new(spent), tokens: 0 };
                    let reached = money.percent(amount) >= percent;
                    assert_eq!(money.is_used_to(percent, amount), reached, "{spent} of {limit}, {percent} %");
                }
            }
        }
    }
}
