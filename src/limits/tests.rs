//! What holds whatever happens: random schedules of calls, restarts and clocks that jump, beside books kept by hand.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::*;
use crate::limits::budget::Enforce;
use crate::limits::running::Running;
use crate::limits::saved::Saved;
use crate::limits::window::{Period, Window, Zone};
use crate::record::call::Caller;
use crate::state::kept::Keep;

thread_local! {
    /// The time of day, which is what a test says it is.
    static TIME_OF_DAY: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// An hour before midnight in Berlin, at the end of a month.
const BEGINNING: Duration = Duration::from_secs(1_793_484_000);

fn time_of_day() -> SystemTime {
    UNIX_EPOCH + TIME_OF_DAY.get()
}

/// Both clocks go on.
async fn pass(time: Duration) {
    TIME_OF_DAY.set(TIME_OF_DAY.get() + time);
    tokio::time::advance(time).await;
}

/// Somebody sets the clock.
fn set_clock(seconds: i64) {
    let seconds = TIME_OF_DAY.get().as_secs().saturating_add_signed(seconds);
    TIME_OF_DAY.set(Duration::from_secs(seconds));
}

/// Rules that begin now, with nothing taken of them.
fn rules(limits: &[rate::Settings], budgets: &[budget::Settings]) -> Limits {
    Limits::by(Clock::with(time_of_day), limits, budgets)
}

/// What a new process reads of what this one has saved.
fn saved(limits: &Limits) -> Saved {
    let text = serde_json::to_string(&limits.state()).expect("JSON");
    serde_json::from_str(&text).expect("what was written")
}

fn caller(agent: &str) -> Caller {
    Caller { agent: Some(agent.into()), ..Caller::default() }
}

fn asker(caller: &Caller) -> Asker<'_> {
    Asker { provider: "openai", model: Some("gpt-5"), caller, credential: None }
}

fn costs(usd: u128, tokens: u64) -> Demand {
    Demand { tokens, money: Money::Expected(PicoUsd::new(usd)) }
}

fn admit(limits: &Limits, agent: &str, demand: &Demand) -> Result<Permit, Box<Refusal>> {
    limits.admit(&asker(&caller(agent)), demand, Stage::Asking, limits.now())
}

/// A call that costs what was expected.
fn spend(limits: &Limits, agent: &str, usd: u128, tokens: u64) {
    let permit = admit(limits, agent, &costs(usd, tokens)).expect("room");
    permit.settle(Spent { tokens: Some(tokens), usd: Some(PicoUsd::new(usd)) });
}

fn budget(name: &str) -> budget::Settings {
    budget::Settings {
        name: name.to_owned(),
        limit_usd: Some(PicoUsd::new(100)),
        window: Window::Day,
        time_zone: berlin(),
        enforce: Enforce::Block,
        ..budget::Settings::default()
    }
}

fn berlin() -> Zone {
    "Europe/Berlin".parse().expect("a zone")
}

/// What every subject of every budget has spent and reserved.
fn accounts(limits: &Limits) -> BTreeMap<(String, String), (Amount, Amount)> {
    let now = limits.now();
    let of_budget = |budget: &Arc<Budget>| {
        let (name, period) = (budget.name.to_string(), budget.period(now));
        let accounts = budget.accounts().map(move |slot| {
            let mut account = slot.lock();
            account.enter(period);
            ((name.clone(), slot.subject.to_string()), (account.spent, account.reserved))
        });
        accounts.collect::<Vec<_>>()
    };
    let nothing = (Amount::default(), Amount::default());
    limits.budgets.iter().flat_map(of_budget).filter(|(_, amounts)| *amounts != nothing).collect()
}

fn spent_of(limits: &Limits, name: &str, subject: &str) -> u128 {
    let accounts = accounts(limits);
    accounts.get(&(name.to_owned(), subject.to_owned())).map_or(0, |(spent, _)| spent.usd.pico())
}

/// A restart: what this one has saved, in another one with these rules.
fn restarted(limits: &Limits, rates: &[rate::Settings], budgets: &[budget::Settings]) -> Limits {
    let saved = saved(limits);
    let next = rules(rates, budgets);
    next.restore(saved);
    next
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_is_known_after_a_restart_to_the_last_pico_dollar() {
    TIME_OF_DAY.set(BEGINNING);
    let per_agent = budget::Settings {
        per: "agent".parse().expect("a part"),
        limit_usd: Some(PicoUsd::new(u128::MAX)),
        ..budget("agents")
    };
    let settings = [budget("app"), per_agent];
    let before = rules(&[], &settings);
    assert_eq!(before.revision(), 0, "there is nothing to save yet");
    spend(&before, "a, \"b\"=\\ü", 7, 3);
    spend(&before, "c", 92, u64::MAX);
    let in_flight = admit(&before, "c", &costs(1, 0)).expect("room");
    assert_ne!(before.revision(), 0);
    pass(Duration::from_secs(60)).await;
    let after = restarted(&before, &[], &settings);
    let counted_since = |limits: &Limits| limits.budgets[0].counted_since(limits.budgets[0].period(limits.now()));
    assert_eq!(counted_since(&after), UnixTime::from(time_of_day() - Duration::from_secs(60)));
    let app = (String::from("app"), String::new());
    assert_eq!(accounts(&after)[&app], (Amount { usd: PicoUsd::new(99), tokens: u64::MAX }, Amount::default()));
    assert_eq!(spent_of(&after, "agents", "agent=a\\, \"b\"\\=\\\\ü"), 7);
    assert_eq!(spent_of(&after, "agents", "agent=c"), 92);
    spend(&after, "c", 1, 0);
    assert!(admit(&after, "c", &costs(1, 0)).is_err(), "100 of 100 are spent");
    drop(in_flight);
    let rich = rules(&[], &settings[1..]);
    spend(&rich, "d", u128::MAX - 1, 0);
    assert_eq!(spent_of(&restarted(&rich, &[], &settings[1..]), "agents", "agent=d"), u128::MAX - 1);
}

#[tokio::test(start_paused = true)]
async fn a_rule_goes_on_if_it_counts_the_same_whatever_others_do() {
    TIME_OF_DAY.set(BEGINNING);
    let settings = [budget("one"), budget("two")];
    let before = rules(&[], &settings);
    spend(&before, "a", 60, 0);
    let per = "agent".parse().expect("a part");
    for (change, one, goes_on) in [
        ("nothing", budget("one"), true),
        ("its limit", budget::Settings { limit_usd: Some(PicoUsd::new(61)), ..budget("one") }, true),
        ("what it does", budget::Settings { enforce: Enforce::Alert, ..budget("one") }, true),
        ("its window", budget::Settings { window: Window::Week, ..budget("one") }, false),
        ("its calendar", budget::Settings { time_zone: Zone::default(), ..budget("one") }, false),
        ("whom it holds apart", budget::Settings { per, ..budget("one") }, false),
        ("its name", budget("uno"), false),
    ] {
        let name = one.name.clone();
        let after = restarted(&before, &[], &[budget("new"), one, budget("two")]);
        let spent = accounts(&after);
        let of =
            |name: &str| spent.iter().find(|((of, _), _)| of == name).map_or(0, |(_, (spent, _))| spent.usd.pico());
        assert_eq!(of(&name), if goes_on { 60 } else { 0 }, "{change} is another");
        assert_eq!((of("two"), of("new")), (60, 0), "{change} of another rule is another");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_has_changed_holds_whatever_the_configuration_says() {
    TIME_OF_DAY.set(BEGINNING);
    let before = rules(&[], &[budget("one")]);
    spend(&before, "a", 100, 0);
    let until = UnixTime::from(time_of_day() + Duration::from_secs(600));
    let raised = |terms: &mut budget::Terms| {
        terms.allowance.usd = Some(PicoUsd::new(200));
        terms.thresholds = vec![10];
        terms.origin = budget::Origin::Api;
    };
    before.budgets[0].change(before.now(), raised);
    assert_ne!(before.revision(), 0);
    let terms = |limits: &Limits| limits.budgets[0].terms();
    let after = restarted(&before, &[], &[budget("one")]);
    assert_eq!(terms(&after), terms(&before));
    assert!(admit(&after, "a", &costs(1, 0)).is_ok());
    let edited = budget::Settings { limit_usd: Some(PicoUsd::new(99)), ..budget("one") };
    let after = restarted(&before, &[], &[edited]);
    assert_eq!(terms(&after), terms(&before), "until it is taken back");

    let before = rules(&[], &[budget("one")]);
    spend(&before, "a", 100, 0);
    let lets_pass = budget::Override { until, limit_usd: None, reason: "a launch".into() };
    before.budgets[0].change(before.now(), |terms| terms.overridden = Some(lets_pass));
    let after = restarted(&before, &[], &[budget("one")]);
    assert!(admit(&after, "a", &costs(1, 0)).is_ok());
    pass(Duration::from_secs(600)).await;
    assert!(admit(&after, "a", &costs(1, 0)).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_month_that_was_given_a_limit_goes_on_and_one_that_was_not_sleeps_on() {
    TIME_OF_DAY.set(BEGINNING);
    let before = rules(&[], &[]);
    assert!(!before.remember() && before.budgets_now().is_empty(), "nothing is saved of a budget without a limit");
    assert!(!restarted(&before, &[], &[]).monthly().is_open());
    pass(Duration::from_secs(60)).await;
    let woken = time_of_day().into();
    before.monthly().change(before.now(), |terms| {
        terms.allowance.usd = Some(PicoUsd::new(100));
        terms.origin = budget::Origin::Api;
    });
    spend(&before, "a", 60, 0);
    pass(Duration::from_secs(60)).await;
    let after = restarted(&before, &[], &[]);
    let month = after.monthly();
    assert_eq!((month.terms(), spent_of(&after, "monthly", "")), (before.monthly().terms(), 60));
    assert_eq!(month.counted_since(month.period(after.now())), woken, "weir was not asked meanwhile");

    month.change(after.now(), |terms| *terms = month.configured().clone());
    assert_ne!(after.revision(), 0);
    let again = restarted(&after, &[], &[]);
    assert!(!again.monthly().is_open(), "it was taken back");
    let configured = budget::Settings { window: Window::Month, time_zone: Zone::default(), ..budget("monthly") };
    let again = restarted(&after, &[], &[configured]);
    assert_eq!(spent_of(&again, "monthly", ""), 0, "nothing was counted");
}

#[tokio::test(start_paused = true)]
async fn a_threshold_is_told_of_once() {
    TIME_OF_DAY.set(BEGINNING);
    let before = rules(&[], &[budget("one")]);
    spend(&before, "a", 80, 0);
    let after = restarted(&before, &[], &[budget("one")]);
    assert_eq!(after.budgets[0].account("", after.now()).lock().told, 80);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_in_the_window_that_is_then_or_was_before() {
    const DAY: i64 = 24 * 3600;
    for (clock, step, spent) in [
        ("goes on", 600, 60),
        ("is at the end of the window", 3599, 60),
        ("enters the next window", 3600, 0),
        ("enters a later window", 40 * DAY, 0),
        ("goes back in the window", -600, 60),
        ("goes back to an earlier window", -DAY, 60),
        ("goes back a year", -365 * DAY, 60),
    ] {
        TIME_OF_DAY.set(BEGINNING);
        let before = rules(&[], &[budget("one")]);
        spend(&before, "a", 60, 0);
        set_clock(step);
        let after = restarted(&before, &[], &[budget("one")]);
        assert_eq!(spent_of(&after, "one", ""), spent, "the clock {clock}");
        if step < 0 {
            spend(&after, "a", 40, 0);
            assert!(admit(&after, "a", &costs(1, 0)).is_err());
            set_clock(-step);
            assert!(admit(&after, "a", &costs(1, 0)).is_err(), "the window that was left is not a new one");
            let again = restarted(&after, &[], &[budget("one")]);
            assert_eq!(spent_of(&again, "one", ""), 100);
            set_clock(3600);
            assert!(admit(&again, "a", &costs(1, 0)).is_ok(), "the next window is");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_as_far_ahead_as_it_was_less_the_time_that_passed() {
    let limit = rate::Settings {
        name: "agents".to_owned(),
        per: "agent".parse().expect("a part"),
        requests_per_minute: Some(60),
        tokens_per_hour: Some(3600),
        ..rate::Settings::default()
    };
    let other = rate::Settings { requests_per_minute: Some(61), ..limit.clone() };
    for (what, step, settings, free) in [
        ("at once", 0, &limit, 10),
        ("within the second in which it was saved", 1, &limit, 10),
        ("later", 11, &limit, 20),
        ("much later", 3600, &limit, 60),
        ("by a clock that went back", -3600, &limit, 10),
        ("with another limit", 0, &other, 61),
    ] {
        TIME_OF_DAY.set(BEGINNING);
        let before = rules(std::slice::from_ref(&limit), &[]);
        for _ in 0..50 {
            spend(&before, "a", 0, 1);
        }
        for _ in 0..2 {
            spend(&before, "b", 0, 1);
        }
        let saved = saved(&before);
        set_clock(step);
        let after = rules(std::slice::from_ref(settings), &[]);
        after.restore(saved);
        let free_to = |agent: &str| {
            let slot = after.rates[0].slots.of(&format!("agent={agent}"), after.now());
            after.rates[0].quotas(&slot.lock(), after.now())[0].remaining
        };
        assert_eq!(free_to("a"), free, "{what}");
        assert!(free_to("b") >= 58, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_take_nothing_of_a_weir_that_starts() {
    TIME_OF_DAY.set(BEGINNING);
    let limit = rate::Settings { name: "few".to_owned(), concurrent_calls: Some(1), ..rate::Settings::default() };
    let before = rules(std::slice::from_ref(&limit), &[budget("one")]);
    let in_flight = admit(&before, "a", &costs(100, 0)).expect("room");
    assert!(admit(&before, "a", &costs(1, 0)).is_err());
    let after = restarted(&before, std::slice::from_ref(&limit), &[budget("one")]);
    assert!(admit(&after, "a", &costs(100, 0)).is_ok());
    drop(in_flight);
}

/// A budget and a subject, and what they have.
type Books = BTreeMap<(usize, String), (Amount, Amount)>;

/// The books of all budgets, kept by hand: the windows they are in, and what every subject has spent and reserved.
#[derive(Clone, Debug)]
struct Model {
    settings: Vec<budget::Settings>,
    periods: Vec<Period>,
    books: Books,
}

/// A call under way.
struct Call {
    permit: Permit,
    running: Option<Running>,
    used: Amount,
    agent: &'static str,
    amounts: Vec<Amount>,
}

impl Model {
    fn new(settings: &[budget::Settings]) -> Self {
        let now = UnixTime::from(time_of_day());
        let periods = settings.iter().map(|one| one.window.period(&one.time_zone, now)).collect();
        Self { settings: settings.to_vec(), periods, books: Books::new() }
    }

    /// Somebody looks at the clock.
    fn look(&mut self) {
        let now = UnixTime::from(time_of_day());
        for (place, settings) in self.settings.iter().enumerate() {
            if self.periods[place].end.is_some_and(|end| end <= now) {
                self.periods[place] = settings.window.period(&settings.time_zone, now);
                let here = self.books.iter_mut().filter(|((of, _), _)| *of == place);
                here.for_each(|(_, (spent, _))| *spent = Amount::default());
            }
        }
    }

    fn of(&mut self, place: usize, agent: &str) -> &mut (Amount, Amount) {
        let subject = if self.settings[place].per.is_everybody() { String::new() } else { format!("agent={agent}") };
        self.books.entry((place, subject)).or_default()
    }

    /// What a call reserves, if every budget has room.
    fn admit(&mut self, agent: &str, demand: &Demand) -> Option<Vec<Amount>> {
        self.look();
        let mut amounts = Vec::new();
        for place in 0..self.settings.len() {
            let settings = self.settings[place].clone();
            let usd = match demand.money {
                Money::Free => PicoUsd::ZERO,
                Money::Expected(usd) => usd,
                Money::Unknown => settings.unpriced_usd,
            };
            let (spent, reserved) = *self.of(place, agent);
            let (used_usd, used_tokens) = (spent.usd + reserved.usd, spent.tokens + reserved.tokens);
            let costs = demand.money == Money::Unknown || usd > PicoUsd::ZERO;
            let counts = demand.money == Money::Unknown || demand.tokens > 0;
            let is_spent = costs && settings.limit_usd.is_some_and(|limit| limit <= used_usd);
            let is_used_up = counts && settings.limit_tokens.is_some_and(|limit| limit <= used_tokens);
            amounts.push(Amount { usd, tokens: demand.tokens });
            if is_spent || is_used_up {
                return None;
            }
        }
        for (place, amount) in amounts.iter().enumerate() {
            let (_, reserved) = self.of(place, agent);
            *reserved = reserved.plus(*amount);
        }
        Some(amounts)
    }

    /// A call has used so much so far: what outgrows its reservation is reserved.
    fn run(&mut self, call: &mut Call) {
        self.look();
        for (place, amount) in call.amounts.iter_mut().enumerate() {
            let (_, reserved) = self.of(place, call.agent);
            *reserved = reserved.plus(call.used.minus(*amount));
            *amount = amount.plus(call.used.minus(*amount));
        }
    }

    /// A call is over: it has spent this, or nothing was asked of anybody.
    fn close(&mut self, agent: &str, amounts: &[Amount], spent: Option<Spent>) {
        if spent.is_some() {
            self.look();
        }
        for (place, amount) in amounts.iter().enumerate() {
            let (so_far, reserved) = self.of(place, agent);
            reserved.usd = PicoUsd::new(reserved.usd.pico() - amount.usd.pico());
            reserved.tokens -= amount.tokens;
            if let Some(Spent { tokens, usd }) = spent {
                let actual = Amount { usd: usd.unwrap_or(amount.usd), tokens: tokens.unwrap_or(amount.tokens) };
                *so_far = so_far.plus(actual);
            }
        }
    }

    /// What a weir finds that starts from this, when the clock shows what it shows now.
    fn restart(&self) -> Self {
        let mut next = self.clone();
        next.books.values_mut().for_each(|(_, reserved)| *reserved = Amount::default());
        next.look();
        next
    }

    /// The same as [`accounts`] tells of the rules.
    fn accounts(&mut self) -> BTreeMap<(String, String), (Amount, Amount)> {
        self.look();
        let nothing = (Amount::default(), Amount::default());
        let books = self.books.iter().filter(|(_, amounts)| **amounts != nothing);
        books
            .map(|((place, subject), amounts)| ((self.settings[*place].name.clone(), subject.clone()), *amounts))
            .collect()
    }
}

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = self.below(choices.len() as u64);
        choices[usize::try_from(place).expect("below a length")]
    }

    fn usd(&mut self) -> PicoUsd {
        PicoUsd::new(self.below(30).into())
    }

    fn demand(&mut self) -> Demand {
        let money = match self.below(8) {
            0 => Money::Free,
            1 => Money::Unknown,
            _ => Money::Expected(self.usd()),
        };
        Demand { tokens: self.below(20), money }
    }

    /// Not more than was expected, less, or nothing; told, or not.
    fn spent(&mut self) -> Spent {
        let tokens = (self.below(4) > 0).then(|| self.below(40));
        let usd = (self.below(4) > 0).then(|| self.usd());
        if self.below(5) == 0 { Spent::NOTHING } else { Spent { tokens, usd } }
    }
}

/// One schedule under way.
struct World {
    seed: u64,
    chance: Chance,
    rates: Vec<rate::Settings>,
    budgets: Vec<budget::Settings>,
    limits: Limits,
    model: Model,
    calls: Vec<Call>,
    on_disk: Option<(Saved, Model)>,
    /// Whether no call costs more than was expected of it.
    is_foreseen: bool,
    /// The most that was expected of one.
    largest: Amount,
}

impl World {
    fn begin(seed: u64) -> Self {
        TIME_OF_DAY.set(BEGINNING);
        let mut chance = Chance(seed);
        let per = || "agent".parse().expect("a part");
        let window = chance.one_of(&[Window::Hour, Window::Day, Window::Week, Window::Month, Window::Total]);
        let unpriced_usd = chance.usd();
        let budgets = vec![
            budget::Settings { per: per(), unpriced_usd, ..budget("agents") },
            budget::Settings { limit_usd: Some(PicoUsd::new(300)), window, unpriced_usd, ..budget("app") },
            budget::Settings { limit_usd: None, limit_tokens: Some(200), window: Window::Hour, ..budget("tokens") },
        ];
        let ends_streams = |budget| budget::Settings { stop_streams: true, ..budget };
        let budgets: Vec<_> = budgets.into_iter().map(ends_streams).collect();
        let few = rate::Settings {
            name: "few".to_owned(),
            per: per(),
            requests_per_minute: Some(5),
            concurrent_calls: Some(6),
            ..rate::Settings::default()
        };
        let rates = if seed.is_multiple_of(3) { vec![few] } else { Vec::new() };
        let (limits, model) = (rules(&rates, &budgets), Model::new(&budgets));
        let (is_foreseen, largest) = (chance.below(2) == 0, Amount::default());
        Self { seed, chance, rates, budgets, limits, model, calls: Vec::new(), on_disk: None, is_foreseen, largest }
    }

    async fn step(&mut self) {
        const DAY: i64 = 24 * 3600;
        match self.chance.below(20) {
            0..8 => self.call(),
            8..13 => self.end(),
            13 if !self.is_foreseen => self.go_on(),
            14 | 15 => pass(Duration::from_millis(self.chance.one_of(&[1, 900, 20_000, 3_600_000]))).await,
            16 => set_clock(self.chance.one_of(&[-40 * DAY, -DAY, -3700, -2, 2, 3700, DAY, 40 * DAY])),
            17 => {
                let wrong = self.chance.one_of(&[0, 0, DAY]);
                self.forget(wrong);
            }
            18 => self.save(),
            _ => self.restart(),
        }
    }

    fn call(&mut self) {
        let (agent, demand) = (self.chance.one_of(&["a", "b", "c"]), self.chance.demand());
        let expected = self.model.admit(agent, &demand);
        match (admit(&self.limits, agent, &demand), expected) {
            (Ok(permit), Some(amounts)) => {
                for amount in &amounts {
                    self.largest.usd = self.largest.usd.max(amount.usd);
                    self.largest.tokens = self.largest.tokens.max(amount.tokens);
                }
                let running = permit.running();
                self.calls.push(Call { permit, running, used: Amount::default(), agent, amounts });
            }
            (Err(_), None) => {}
            // A limit of rate has no books here.
            (Err(refusal), Some(amounts)) if !refusal.full.is_empty() => self.model.close(agent, &amounts, None),
            (admitted, expected) => {
                let demand = (agent, demand);
                panic!("seed {}: {demand:?} was admitted: {}, not {}", self.seed, admitted.is_ok(), expected.is_some())
            }
        }
    }

    /// A call ends well, or badly, or is given up before it went.
    fn end(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let place = usize::try_from(self.chance.below(self.calls.len() as u64)).expect("below a length");
        let Call { mut permit, running, agent, amounts, .. } = self.calls.swap_remove(place);
        let mut spent = (self.chance.below(4) > 0).then(|| self.chance.spent());
        if let Some(spent) = spent.as_mut().filter(|_| self.is_foreseen) {
            // What is unknown is priced by each budget, so the least of them is what none is surprised by.
            let least = amounts.iter().map(|amount| amount.usd).min().unwrap_or_default();
            spent.usd = spent.usd.map(|usd| usd.min(least));
            spent.tokens = spent.tokens.map(|tokens| tokens.min(amounts[0].tokens));
        }
        self.model.close(agent, &amounts, spent);
        match spent {
            Some(spent) => {
                permit.outgrown(running.expect("every budget ends streams"));
                permit.settle(spent);
            }
            None => drop((permit, running)),
        }
    }

    /// The idle are forgotten, and the clock is wrong meanwhile.
    fn forget(&mut self, wrong: i64) {
        set_clock(wrong);
        self.model.look();
        (0..PARTS).for_each(|part| self.limits.forget(part));
        set_clock(-wrong);
    }

    /// A call goes on for longer than was expected.
    fn go_on(&mut self) {
        let (tokens, usd) = (self.chance.below(5), self.chance.usd());
        if let Some(call) = self.calls.last_mut() {
            call.used = call.used.plus(Amount { usd, tokens });
            call.running.as_mut().expect("every budget ends streams").used(call.used);
            self.model.run(call);
        }
    }

    fn save(&mut self) {
        self.model.look();
        self.on_disk = Some((saved(&self.limits), self.model.clone()));
    }

    /// Ends, suddenly or after a last save, and starts with what was saved last.
    fn restart(&mut self) {
        if self.chance.below(2) == 0 {
            self.save();
        }
        // What the calls of the one before do now is nothing to the one after.
        self.calls.clear();
        let next = rules(&self.rates, &self.budgets);
        self.model = Model::new(&self.budgets);
        if let Some((_, model)) = &self.on_disk {
            self.model = model.restart();
        }
        if let Some((saved, _)) = self.on_disk.take() {
            next.restore(saved);
        }
        self.limits = next;
        self.save();
    }

    fn check(&mut self) {
        let (accounts, expected) = (accounts(&self.limits), self.model.accounts());
        assert_eq!(accounts, expected, "seed {}: spent and reserved", self.seed);
        for ((name, subject), (spent, reserved)) in accounts.iter().filter(|_| self.is_foreseen) {
            let settings = self.budgets.iter().find(|settings| settings.name == *name).expect("one of these");
            let used = spent.plus(*reserved);
            let most_usd = settings.limit_usd.map(|limit| limit + self.largest.usd);
            let most_tokens = settings.limit_tokens.map(|limit| limit + self.largest.tokens);
            let is_within =
                most_usd.is_none_or(|most| used.usd < most) && most_tokens.is_none_or(|most| used.tokens < most);
            assert!(is_within, "seed {}: {name} {subject}: {used:?} is more than one call too much", self.seed);
        }
    }

    /// Every call ends: then nothing is held any more.
    fn finish(mut self) {
        while !self.calls.is_empty() {
            self.end();
        }
        self.check();
        let held = accounts(&self.limits).into_values().map(|(_, reserved)| reserved).max_by_key(|amount| amount.usd);
        assert_eq!(held.unwrap_or_default(), Amount::default(), "seed {}: something stays reserved", self.seed);
        let now = self.limits.now();
        for rule in &self.limits.rates {
            for slot in rule.slots.all() {
                let calls = rule.quotas(&slot.lock(), now).pop().expect("it limits calls in progress");
                assert_eq!(calls.remaining, calls.limit, "seed {}: a call is in progress for ever", self.seed);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_no_schedule_is_more_admitted_than_one_call_too_much_and_nothing_is_lost() {
    for seed in 0..3000 {
        let mut world = World::begin(seed);
        for _ in 0..40 {
            world.step().await;
            // Not always: whoever looks lets the rules look at the clock.
            if world.chance.below(4) == 0 {
                world.check();
            }
        }
        world.finish();
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_goes_on_with_other_terms_if_it_counts_the_same() {
    TIME_OF_DAY.set(BEGINNING);
    for (rule, next, spent, has_room) in [
        ("nothing has changed", budget("app"), 60, false),
        ("a larger limit", budget::Settings { limit_usd: Some(PicoUsd::new(200)), ..budget("app") }, 60, true),
        ("a smaller one", budget::Settings { limit_usd: Some(PicoUsd::new(50)), ..budget("app") }, 60, false),
        ("another consequence", budget::Settings { enforce: Enforce::Alert, ..budget("app") }, 60, true),
        ("another window", budget::Settings { window: Window::Total, ..budget("app") }, 0, true),
        ("other subjects", budget::Settings { per: "agent".parse().expect("a part"), ..budget("app") }, 0, true),
        ("another name", budget("other"), 0, true),
    ] {
        let before = rules(&[], &[budget("app")]);
        spend(&before, "a", 60, 0);
        let in_flight = admit(&before, "a", &costs(40, 0)).expect("room");
        let after = before.succeeded_by(&[], std::slice::from_ref(&next));
        assert_eq!(spent_of(&after, &next.name, ""), spent, "{rule}");
        assert_eq!(admit(&after, "a", &costs(1, 0)).is_ok(), has_room, "{rule}");
        in_flight.settle(Spent { tokens: Some(0), usd: Some(PicoUsd::new(40)) });
        let all = if spent == 0 { 0 } else { 100 };
        assert_eq!(spent_of(&after, &next.name, ""), all, "{rule}: what was in flight is counted where it goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_has_changed_stays_changed() {
    TIME_OF_DAY.set(BEGINNING);
    let before = rules(&[], &[budget("app")]);
    before.budgets[0].change(before.now(), |terms| {
        terms.allowance.usd = Some(PicoUsd::new(7));
        terms.origin = budget::Origin::Api;
    });
    let next = budget::Settings { limit_usd: Some(PicoUsd::new(200)), ..budget("app") };
    let after = before.succeeded_by(&[], &[next]);
    let budget = &after.budgets[0];
    assert_eq!(budget.terms().allowance.usd, Some(PicoUsd::new(7)));
    assert_eq!(budget.configured().allowance.usd, Some(PicoUsd::new(200)), "which it goes back to");
}

#[tokio::test(start_paused = true)]
async fn a_rate_goes_on_with_another_limit_if_it_counts_the_same() {
    TIME_OF_DAY.set(BEGINNING);
    let limit = |per_minute| rate::Settings {
        name: "all".to_owned(),
        requests_per_minute: Some(per_minute),
        concurrent_calls: Some(50),
        ..rate::Settings::default()
    };
    let hourly = rate::Settings { requests_per_hour: Some(10), requests_per_minute: None, ..limit(1) };
    for (rule, next, left) in [
        ("nothing has changed", limit(10), 5),
        ("twice as many: half of them are taken", limit(20), 10),
        ("other periods: it begins anew", hourly, 10),
    ] {
        let before = rules(&[limit(10)], &[]);
        let mut in_flight: Vec<_> = (0..5).map(|_| admit(&before, "a", &costs(0, 0)).expect("room")).collect();
        let after = before.succeeded_by(std::slice::from_ref(&next), &[]);
        in_flight.extend((0..left).map(|_| admit(&after, "a", &costs(0, 0)).expect(rule)));
        assert!(admit(&after, "a", &costs(0, 0)).is_err(), "{rule}");
    }
}
