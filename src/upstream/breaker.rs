//! Breaker: whether an upstream is asked at all. One that has failed too often is left alone for a while, and then shown a
//! few calls to see whether it is well. Knows how attempts end and the time it is given; not what is asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::units::{Share, Span};

/// What the operator writes of circuit breakers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether an upstream that fails too often is left alone for a while. Its calls then go to the provider's next
    /// fallback, or get a 503 at once.
    pub enabled: bool,
    /// How many of the attempts within `window` have to fail for the circuit to open, as a part of them. No connection, no
    /// answer in time and a 5xx are failures; a 429 and other 4xx are not.
    pub failure_rate: Share,
    /// How many attempts there have to be within `window` to judge by.
    pub min_attempts: u32,
    /// How long an attempt counts.
    pub window: Span,
    /// How long an upstream is left alone.
    pub open_for: Span,
    /// How many calls are then let through to try it, and have to go well for all to be. If one fails, it is left alone
    /// again.
    pub probes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: false,
            failure_rate: Share::percent(50),
            min_attempts: 10,
            window: Span::from_secs(30),
            open_for: Span::from_secs(30),
            probes: 3,
        }
    }
}

/// Parts of the window: what is older than it is forgotten one part at a time.
const PARTS: usize = 10;

/// In how long to come back where probes are under way: nobody can tell how long they take.
const WHILE_PROBED: Duration = Duration::from_secs(1);

/// The circuit of one upstream.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    circuit: Mutex<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    /// How often it has changed: what was let through before says nothing of now.
    era: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Instant },
    HalfOpen { under_way: u32, went_well: u32 },
}

/// That an attempt may be made. Dropped without a word, it says nothing of the upstream.
#[derive(Debug)]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    era: u64,
    is_told: bool,
}

/// How an attempt ended, as far as it says something of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was answered, and not with a 5xx.
    Well,
    /// It was not.
    Badly,
}

impl Breaker {
    /// A closed circuit; `None` if the operator wants none.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant) -> Option<Self> {
        let circuit = Mutex::new(Circuit { era: 0, state: State::Closed(Window::new(settings.window.get(), now)) });
        settings.enabled.then(|| Self { settings: settings.clone(), circuit })
    }

    /// Whether everything is let through.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.circuit().state, State::Closed(_))
    }

    /// Lets an attempt through, or not.
    ///
    /// # Errors
    /// In how long one may be let through.
    pub fn admit(&self, now: Instant) -> Result<Pass<'_>, Duration> {
        let mut circuit = self.circuit();
        match &mut circuit.state {
            State::Closed(_) => {}
            State::Open { until } if now < *until => return Err(*until - now),
            State::Open { .. } => circuit.becomes(State::HalfOpen { under_way: 1, went_well: 0 }),
            State::HalfOpen { under_way, went_well } => {
                if *under_way + *went_well >= self.settings.probes {
                    return Err(WHILE_PROBED);
                }
                *under_way += 1;
            }
        }
        Ok(Pass { breaker: self, era: circuit.era, is_told: false })
    }

    fn ended(&self, era: u64, ended: Option<Ended>, now: Instant) {
        let mut circuit = self.circuit();
        if circuit.era != era {
            return;
        }
        let opens = match &mut circuit.state {
            State::Closed(window) => {
                let Some(ended) = ended else { return };
                let (well, badly) = window.count(ended, now);
                let all = well + badly;
                ended == Ended::Badly
                    && all >= u64::from(self.settings.min_attempts)
                    && as_f64(badly) >= self.settings.failure_rate.get() * as_f64(all)
            }
            State::HalfOpen { under_way, went_well } => {
                *under_way = under_way.saturating_sub(1);
                *went_well += u32::from(ended == Some(Ended::Well));
                ended == Some(Ended::Badly)
            }
            State::Open { .. } => false,
        };
        if opens {
            circuit.becomes(State::Open { until: now + self.settings.open_for.get() });
        } else if let State::HalfOpen { went_well, .. } = circuit.state
            && went_well >= self.settings.probes
        {
            circuit.becomes(State::Closed(Window::new(self.settings.window.get(), now)));
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Circuit {
    fn becomes(&mut self, state: State) {
        self.era += 1;
        self.state = state;
    }
}

impl Pass<'_> {
    /// The attempt has ended.
    pub fn tell(mut self, ended: Ended, now: Instant) {
        self.is_told = true;
        self.breaker.ended(self.era, Some(ended), now);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            // Only a probe has a place to give back, for which the time does not matter.
            self.breaker.ended(self.era, None, Instant::now());
        }
    }
}

/// What ended well and badly of late, part by part.
#[derive(Debug)]
struct Window {
    part: Duration,
    began: Instant,
    /// Which part is now, counted from `began`.
    now: u64,
    counts: [(u64, u64); PARTS],
}

impl Window {
    fn new(length: Duration, now: Instant) -> Self {
        let part = (length / u32::try_from(PARTS).expect("a handful")).max(Duration::from_millis(1));
        Self { part, began: now, now: 0, counts: [(0, 0); PARTS] }
    }

    /// Counts one that has ended; all there are of late.
    fn count(&mut self, ended: Ended, now: Instant) -> (u64, u64) {
        let part = now.saturating_duration_since(self.began).as_nanos() / self.part.as_nanos();
        let part = u64::try_from(part).unwrap_or(u64::MAX).max(self.now);
        let parts = PARTS as u64;
        for passed in 0..(part - self.now).min(parts) {
            self.counts[place(part - passed)] = (0, 0);
        }
        self.now = part;
        let (well, badly) = &mut self.counts[place(part)];
        match ended {
            Ended::Well => *well += 1,
            Ended::Badly => *badly += 1,
        }
        self.counts.iter().fold((0, 0), |(well, badly), part| (well + part.0, badly + part.1))
    }
}

fn place(part: u64) -> usize {
    usize::try_from(part % PARTS as u64).expect("a handful")
}

#[expect(clippy::cast_precision_loss, reason = "a ratio is a float; counts stay far below 2⁵³")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { enabled: true, min_attempts: 4, probes: 2, window: Span::from_secs(10), ..Settings::default() }
    }

    fn breaker(now: Instant) -> Breaker {
        Breaker::new(&settings(), now).expect("it is enabled")
    }

    fn attempts(breaker: &Breaker, ends: &[Ended], now: Instant) {
        for end in ends {
            breaker.admit(now).expect("it is let through").tell(*end, now);
        }
    }

    use Ended::{Badly, Well};

    #[test]
    fn it_opens_when_enough_have_failed() {
        let now = Instant::now();
        for (rule, ends, is_closed) in [
            ("too few to judge by", &[Badly, Badly, Badly][..], true),
            ("all", &[Badly, Badly, Badly, Badly], false),
            ("half", &[Well, Badly, Well, Badly], false),
            ("fewer than half", &[Well, Well, Well, Badly, Badly], true),
            ("a success opens nothing", &[Badly, Badly, Badly, Well], true),
        ] {
            let breaker = breaker(now);
            attempts(&breaker, ends, now);
            assert_eq!(breaker.is_closed(), is_closed, "{rule}");
        }
        assert!(Breaker::new(&Settings::default(), now).is_none(), "off by default");
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let now = Instant::now();
        let breaker = breaker(now);
        attempts(&breaker, &[Badly, Badly, Badly], now);
        attempts(&breaker, &[Badly], now + Duration::from_secs(10));
        assert!(breaker.is_closed());
    }

    #[test]
    fn it_lets_probes_through_after_a_while_and_closes_when_they_go_well() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let breaker = breaker(now);
        attempts(&breaker, &[Badly; 4], now);
        assert_eq!(breaker.admit(later(29)).expect_err("it is open"), Duration::from_secs(1));

        let first = breaker.admit(later(30)).expect("a probe");
        let second = breaker.admit(later(30)).expect("another");
        assert_eq!(breaker.admit(later(30)).expect_err("enough"), WHILE_PROBED);
        drop(second);
        let second = breaker.admit(later(31)).expect("the place of one that was given up");
        first.tell(Well, later(32));
        assert!(!breaker.is_closed());
        second.tell(Well, later(32));
        assert!(breaker.is_closed());
        attempts(&breaker, &[Badly; 3], later(32));
        assert!(breaker.is_closed(), "what failed before is forgotten");
    }

    #[test]
    fn a_probe_that_fails_opens_it_again_and_late_news_change_nothing() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let breaker = breaker(now);
        let late = breaker.admit(now).expect("it is closed");
        attempts(&breaker, &[Badly; 4], now);
        let (bad, good) = (breaker.admit(later(30)).expect("one"), breaker.admit(later(30)).expect("two"));
        bad.tell(Badly, later(31));
        assert_eq!(breaker.admit(later(31)).expect_err("open again"), Duration::from_secs(30));
        good.tell(Well, later(31));
        late.tell(Well, later(31));
        assert!(breaker.admit(later(60)).is_err() && !breaker.is_closed());
    }

    /// What the breaker should do, told as plainly as can be: it keeps every attempt there was.
    struct Naive {
        settings: Settings,
        counted_from: Instant,
        attempts: Vec<(Instant, Ended)>,
        open_until: Option<Instant>,
        /// Those of the half-open circuit: under way, and well.
        probes: Option<(u32, u32)>,
        era: u32,
    }

    impl Naive {
        fn admits(&mut self, now: Instant) -> bool {
            if let Some(until) = self.open_until {
                if now < until {
                    return false;
                }
                (self.open_until, self.probes) = (None, Some((0, 0)));
                self.era += 1;
            }
            let Some((under_way, well)) = &mut self.probes else { return true };
            let may = *under_way + *well < self.settings.probes;
            *under_way += u32::from(may);
            may
        }

        fn ended(&mut self, era: u32, ended: Option<Ended>, now: Instant) {
            if era != self.era || self.open_until.is_some() {
                return;
            }
            let opens = if let Some((under_way, well)) = &mut self.probes {
                *under_way -= 1;
                *well += u32::from(ended == Some(Well));
                if *well == self.settings.probes {
                    (self.probes, self.counted_from) = (None, now);
                    self.attempts.clear();
                    self.era += 1;
                }
                ended == Some(Badly)
            } else {
                let Some(ended) = ended else { return };
                self.attempts.push((now, ended));
                let part = |at: Instant| at.duration_since(self.counted_from).as_secs();
                let recent = |at: &Instant| part(*at) + 10 > part(now);
                let of_late: Vec<_> = self.attempts.iter().filter(|(at, _)| recent(at)).map(|it| it.1).collect();
                let badly = of_late.iter().filter(|it| **it == Badly).count();
                ended == Badly && of_late.len() >= 4 && 2 * badly >= of_late.len()
            };
            if opens {
                (self.open_until, self.probes) = (Some(now + self.settings.open_for.get()), None);
                self.era += 1;
            }
        }
    }

    #[test]
    fn whatever_comes_in_whatever_order_it_does_what_a_naive_one_does() {
        let mut seed = 42_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut opened = 0;
        for _ in 0..200 {
            let mut now = Instant::now();
            let breaker = breaker(now);
            let mut naive = Naive {
                settings: settings(),
                counted_from: now,
                attempts: Vec::new(),
                open_until: None,
                probes: None,
                era: 0,
            };
            let mut under_way = Vec::new();
            let sick = random(100);
            for step in 0..300 {
                match random(4) {
                    0 => now += Duration::from_millis(random(4000)),
                    1 | 2 => {
                        let pass = breaker.admit(now);
                        assert_eq!(pass.is_ok(), naive.admits(now), "step {step}");
                        under_way.extend(pass.ok().map(|pass| (pass, naive.era)));
                    }
                    _ if under_way.is_empty() => {}
                    _ => {
                        let which = usize::try_from(random(under_way.len() as u64)).expect("few");
                        let (pass, era) = under_way.swap_remove(which);
                        let ended = match random(100) {
                            0..5 => None,
                            it if it < sick => Some(Badly),
                            _ => Some(Well),
                        };
                        match ended {
                            Some(ended) => pass.tell(ended, now),
                            None => drop(pass),
                        }
                        naive.ended(era, ended, now);
                    }
                }
                let is_closed = naive.open_until.is_none() && naive.probes.is_none();
                assert_eq!(breaker.is_closed(), is_closed, "step {step}");
                opened += u32::from(!is_closed);
            }
        }
        assert!(opened > 1000, "the schedules open it often enough to say something: {opened}");
    }
}
