//! Saved: what of the rules survives a restart: what was spent in windows that are not over, how far rates are ahead of
//! themselves, and what an operator has changed meanwhile. A rule goes on where it stopped if it still counts the same;
//! what other rules do does not matter.
//!
//! What calls in flight have reserved is not saved: after a sudden end nobody can tell whether they cost anything, and
//! whoever ends weir properly has none left. Knows nothing of files.

use serde::{Deserialize, Serialize};

use crate::limits::budget::{Allowance, Amount, Budget, Origin, Override, Terms};
use crate::limits::rate::RateLimit;
use crate::limits::window::{UnixTime, Window};
use crate::limits::{Limits, Now};
use crate::state::kept::Keep;
use crate::units::PicoUsd;

/// A rate that is ahead by less is as good as free by the time weir is there again.
const WORTH_SAVING_NANOS: u64 = 2_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// What is saved of all rules.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// When.
    at: UnixTime,
    budgets: Vec<SavedBudget>,
    limits: Vec<SavedLimit>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedBudget {
    name: String,
    counts: Counts,
    /// When the window began that this is of.
    since: UnixTime,
    /// Since when calls are counted.
    counted_since: UnixTime,
    accounts: Vec<SavedAccount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<SavedTerms>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    overridden: Option<Override>,
}

/// How a budget counts: another one's figures mean something else.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    per: String,
    window: Window,
    time_zone: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedAccount {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    subject: String,
    usd: PicoUsd,
    tokens: u64,
    /// The highest threshold that was told of.
    told_percent: u64,
}

/// What an operator says that a budget allows, whatever the configuration says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTerms {
    limit_usd: Option<PicoUsd>,
    limit_tokens: Option<u64>,
    thresholds: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedLimit {
    name: String,
    per: String,
    rates: Vec<SavedRate>,
    subjects: Vec<SavedSubject>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedRate {
    of: String,
    limit: u64,
    period_seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSubject {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    subject: String,
    /// For each rate, how long it takes until all of it is free.
    full_for_ms: Vec<u64>,
}

impl Keep for Limits {
    type State = Saved;

    const FILE: &'static str = "limits.json";
    const VERSION: u32 = 1;

    fn revision(&self) -> u64 {
        let budgets = self.budgets.iter().map(|budget| budget.changes());
        let rates = self.rates.iter().map(|rule| rule.slots.changes());
        budgets.chain(rates).sum()
    }

    fn state(&self) -> Saved {
        let now = self.now();
        Saved {
            at: now.wall,
            budgets: self.budgets().map(|budget| SavedBudget::of(budget, now)).collect(),
            limits: self
                .rates
                .iter()
                .filter(|rule| !rule.rates.is_empty())
                .map(|rule| SavedLimit::of(rule, now))
                .collect(),
        }
    }
}

impl Limits {
    /// Whether there is anything that a restart could forget.
    #[must_use]
    pub fn remember(&self) -> bool {
        self.budgets().next().is_some() || self.rates.iter().any(|rule| !rule.rates.is_empty())
    }

    /// Goes on with what was saved, as far as the rules are still the same. To be called before the first call.
    pub fn restore(&self, saved: Saved) {
        let now = self.now();
        for of_budget in saved.budgets {
            let budget = self.budgets.iter().find(|budget| *budget.name == *of_budget.name);
            let (name, says_anything) = (of_budget.name.clone(), of_budget.says_anything());
            let fate = budget.map(|budget| of_budget.restore(budget, now));
            if says_anything {
                tell("budget", &name, fate);
            }
        }
        // A second may have begun just before, and ended just after: no rate is freed by that.
        let seconds = now.wall.seconds().saturating_sub(saved.at.seconds()).saturating_sub(1);
        let passed = u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000_000_000);
        for of_limit in saved.limits.iter().filter(|of_limit| !of_limit.subjects.is_empty()) {
            let rule = self.rates.iter().find(|rule| *rule.name == *of_limit.name);
            let fate = rule.map(|rule| of_limit.restore(rule, passed, now));
            tell("limit", &of_limit.name, fate);
        }
    }
}

/// What becomes of what was saved of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    GoesOn,
    CountsOtherwise,
}

fn tell(kind: &'static str, name: &str, fate: Option<Fate>) {
    let why = match fate {
        Some(Fate::GoesOn) => return,
        Some(Fate::CountsOtherwise) => "it counts otherwise now",
        None => "it is not in the configuration any more",
    };
    tracing::warn!(weir.rule = name, "what a {kind} had counted before weir started is forgotten: {why}");
}

impl Counts {
    fn of(budget: &Budget) -> Self {
        Self { per: budget.per.to_string(), window: budget.window, time_zone: budget.zone.to_string() }
    }
}

impl SavedTerms {
    fn of(terms: &Terms) -> Self {
        let Allowance { usd, tokens } = terms.allowance;
        Self { limit_usd: usd, limit_tokens: tokens, thresholds: terms.thresholds.clone() }
    }
}

impl SavedBudget {
    fn of(budget: &Budget, now: Now) -> Self {
        let period = budget.period(now);
        let accounts = budget.accounts().filter_map(|slot| {
            let account = slot.lock();
            let counts = account.start >= period.start && account.spent != Amount::default();
            counts.then(|| SavedAccount {
                subject: slot.subject.to_string(),
                usd: account.spent.usd,
                tokens: account.spent.tokens,
                told_percent: account.told,
            })
        });
        let terms = budget.terms();
        Self {
            name: budget.name.to_string(),
            counts: Counts::of(budget),
            since: period.start,
            counted_since: budget.counted_since(period),
            accounts: accounts.collect(),
            changed: (terms.origin == Origin::Api).then(|| SavedTerms::of(&terms)),
            overridden: terms.overridden,
        }
    }

    fn says_anything(&self) -> bool {
        !self.accounts.is_empty() || self.changed.is_some() || self.overridden.is_some()
    }

    fn restore(self, budget: &Budget, now: Now) -> Fate {
        if self.counts != Counts::of(budget) {
            return Fate::CountsOtherwise;
        }
        if let Some(overridden) = self.overridden {
            budget.change(now, |terms| terms.overridden = Some(overridden));
        }
        if let Some(SavedTerms { limit_usd, limit_tokens, thresholds }) = self.changed {
            budget.change(now, |terms| {
                terms.allowance = Allowance { usd: limit_usd, tokens: limit_tokens };
                terms.thresholds = thresholds;
                terms.origin = Origin::Api;
            });
        }
        // If the clock has gone back meanwhile, this is the later one: that window is not left again.
        let period = budget.period(Now { wall: now.wall.max(self.since), ..now });
        if self.since < period.start {
            return Fate::GoesOn;
        }
        budget.counted_before(self.counted_since);
        for SavedAccount { subject, usd, tokens, told_percent } in self.accounts {
            budget.restore(&subject, Amount { usd, tokens }, told_percent, now);
        }
        Fate::GoesOn
    }
}

impl SavedLimit {
    fn of(rule: &RateLimit, now: Now) -> Self {
        let subjects = rule.slots.all().filter_map(|slot| {
            let ahead = slot.lock().ahead(now);
            let is_worth_it = ahead.iter().any(|nanos| *nanos >= WORTH_SAVING_NANOS);
            is_worth_it.then(|| SavedSubject {
                subject: slot.subject.to_string(),
                full_for_ms: ahead.iter().map(|nanos| nanos.div_ceil(NANOS_PER_MILLI)).collect(),
            })
        });
        Self {
            name: rule.name.to_string(),
            per: rule.per.to_string(),
            rates: rates(rule),
            subjects: subjects.collect(),
        }
    }

    fn restore(&self, rule: &RateLimit, passed: u64, now: Now) -> Fate {
        if self.per != rule.per.to_string() || self.rates != rates(rule) {
            return Fate::CountsOtherwise;
        }
        for SavedSubject { subject, full_for_ms } in &self.subjects {
            let ahead = full_for_ms.iter().map(|millis| millis.saturating_mul(NANOS_PER_MILLI).saturating_sub(passed));
            rule.restore(subject, ahead, now);
        }
        Fate::GoesOn
    }
}

fn rates(rule: &RateLimit) -> Vec<SavedRate> {
    let rates = rule.rates.iter();
    rates
        .map(|rate| SavedRate {
            of: rate.unit.as_str().to_owned(),
            limit: rate.limit,
            period_seconds: rate.period.as_secs(),
        })
        .collect()
}
