//! Asked: which calls a question is about, of which time, and how much of an answer is wanted: the parameters that all
//! questions share.
//!
//! Every fault is found before any is told. Whoever is bound to a workspace or a user gets no further.

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use crate::admin::asker::{Asker, elsewhere};
use crate::admin::problem::Problem;
use crate::admin::query::Parameters;
use crate::ledger::entry::{Micros, micros};
use crate::ledger::filter::Filter;
use crate::ledger::questions::MAX_POINTS;
use crate::ledger::window::{Step, Window};
use crate::ledger::{DAY, HOUR};

/// What is asked about if nothing is said: the last day.
const USUAL: Micros = DAY;
/// The longest time that is asked about: three years.
const LONGEST: Micros = 1_096 * DAY;
/// The longest page.
const MOST: u64 = 100;

const STEPS: [(&str, Step); 5] = [
    ("minute", Step::Minute),
    ("5m", Step::FiveMinutes),
    ("15m", Step::QuarterHour),
    ("hourly", Step::Hour),
    ("daily", Step::Day),
];

/// Which calls, of which time.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// From when to when.
    pub(super) window: Window,
    /// Which of them.
    pub(super) filter: Filter,
    /// The present.
    pub(super) now: Micros,
}

/// What every question may say.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what `Asked` reads; a test holds the two together")]
pub(super) struct Question {
    /// How long back from now: `1h`, `24h`, `7d`, `30d`, or any number of `m`, `h`, `d` or `w` up to three years. A day
    /// without this. Not together with `from`.
    #[param(pattern = "^[0-9]{1,7}[mhdw]$")]
    range: Option<String>,
    /// From when on: RFC 3339, or a date, which begins at midnight UTC.
    from: Option<String>,
    /// Until just before when, written in the same way; now without this.
    to: Option<String>,
    /// Only calls of this agent.
    agent_id: Option<String>,
    /// Only calls for this user. `user` means the same.
    user_id: Option<String>,
    /// Only calls to this provider.
    provider: Option<String>,
    /// Only calls for this model, as the app spells it.
    model: Option<String>,
    /// Only calls in this namespace.
    namespace: Option<String>,
    /// Only calls of this workspace. `workspace` means the same.
    workspace_id: Option<String>,
}

/// What only single calls know.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what `of_calls` reads; a test holds the two together")]
pub(super) struct OfCalls {
    /// Only calls that did not end well for this reason: a status such as `429`, or a word such as `timeout`.
    error_type: Option<String>,
    /// Only calls of this run of an agent loop, as `X-Run-ID` names it.
    run_id: Option<String>,
}

/// How long the points of a series are apart.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what `step` reads; a test holds the two together")]
pub(super) struct Granularity {
    /// `minute`, `5m`, `15m`, `hourly` or `daily`. As fine as suits the time asked about without this.
    #[param(pattern = "^(minute|5m|15m|hourly|daily)$")]
    granularity: Option<String>,
}

/// How much of a list is wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what `limit` reads; a test holds the two together")]
pub(super) struct Limit {
    /// So many at most.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u64>,
}

/// Where a list goes on.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what `cursor` reads; a test holds the two together")]
pub(super) struct Next {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl Asked {
    /// What the parameters say, and nothing else.
    pub(super) fn of(parameters: Parameters, caller: &Asker) -> Result<Self, Problem> {
        Ok(Self::with(parameters, caller, |_, _| ())?.0)
    }

    /// The same, and what `more` reads of them, which gets to know the window, if that could be read.
    pub(super) fn with<T>(
        mut parameters: Parameters,
        caller: &Asker,
        more: impl FnOnce(&mut Parameters, Option<Window>) -> T,
    ) -> Result<(Self, T), Problem> {
        let now = micros(SystemTime::now());
        let window = window(&mut parameters, "range", now);
        let mut filter = Filter {
            workspace: either(&mut parameters, "workspace_id", "workspace"),
            namespace: parameters.text("namespace"),
            agent: parameters.text("agent_id"),
            user: either(&mut parameters, "user_id", "user"),
            provider: parameters.text("provider"),
            model: parameters.text("model"),
            ..Filter::default()
        };
        let more = more(&mut parameters, window);
        parameters.end()?;
        bind(&mut filter, caller)?;
        let window = window.expect("what could not be read is a fault");
        Ok((Self { window, filter, now }, more))
    }

    /// Whether all calls are asked about.
    pub(super) fn is_of_everything(&self) -> bool {
        self.filter == Filter::default()
    }

    /// As much time just before.
    pub(super) fn before(&self) -> Window {
        let Window { from, to } = self.window;
        Window { from: from.saturating_sub(to.saturating_sub(from)), to: from }
    }
}

/// What is asked of single calls: why they failed, and which run they are of.
pub(super) fn of_calls(parameters: &mut Parameters) -> (Option<Box<str>>, Option<Box<str>>) {
    (parameters.text("error_type"), parameters.text("run_id"))
}

/// Keeps a question to what its asker may see.
pub(super) fn bind(filter: &mut Filter, caller: &Asker) -> Result<(), Problem> {
    for (asked, bound, what) in [
        (&mut filter.workspace, &caller.bounds.workspace, "that workspace"),
        (&mut filter.user, &caller.bounds.user, "that user"),
    ] {
        match (asked.as_ref(), bound) {
            (_, None) => {}
            (None, Some(_)) => asked.clone_from(bound),
            (Some(asked), Some(bound)) if asked == bound => {}
            (Some(_), Some(_)) => return Err(elsewhere(what)),
        }
    }
    filter.user = filter.user.take().map(|user| caller.privacy.name_in_ledger(&user));
    Ok(())
}

/// One parameter of two names.
pub(super) fn either(parameters: &mut Parameters, name: &'static str, alias: &'static str) -> Option<Box<str>> {
    match (parameters.text(name), parameters.text(alias)) {
        (Some(_), Some(_)) => {
            parameters.fault(alias, format!("means the same as `{name}`, which is there too: write one of the two"));
            None
        }
        (value, other) => value.or(other),
    }
}

/// From when to when: back from now, which the parameter `range` says, or between two moments.
pub fn window(parameters: &mut Parameters, range: &'static str, now: Micros) -> Option<Window> {
    const RANGE: &str =
        "write a number of minutes, hours, days or weeks up to three years, such as `90m`, `24h`, `7d` or `4w`";
    const MOMENT: &str = "write a time such as `2026-11-01T00:00:00Z`, or a date such as `2026-11-01`";
    let given = (parameters.has(range), parameters.has("from"), parameters.has("to"));
    let back = parameters.parsed(range, RANGE, length);
    let from = parameters.parsed("from", MOMENT, moment);
    let to = parameters.parsed("to", MOMENT, moment);
    match given {
        (false, false, false) => return Some(Window { from: now - USUAL, to: now }),
        (true, false, false) => return back.map(|back| Window { from: now - back, to: now }),
        (true, _, _) => {
            parameters.fault(range, "is there beside `from` or `to`: write one or the other");
            return None;
        }
        (false, false, true) => {
            parameters.fault("from", "is missing, and needed with `to`: write when it begins");
            return None;
        }
        (false, true, _) => {}
    }
    let to = if given.2 { to? } else { now };
    let from = from?;
    if from >= to {
        parameters.fault("from", "is not before `to`, which is now where it is not written: write an earlier time");
        return None;
    }
    if to - from > LONGEST {
        parameters.fault("from", "is more than three years before `to`: write a later time");
        return None;
    }
    Some(Window { from, to })
}

/// How long `24h` is.
fn length(text: &str) -> Option<Micros> {
    const UNITS: [(char, Micros); 4] = [('m', HOUR / 60), ('h', HOUR), ('d', DAY), ('w', 7 * DAY)];
    let (unit, one) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
    let number = text.strip_suffix(unit)?;
    // No sign.
    let number: Micros = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    number.checked_mul(one).filter(|length| (1..=LONGEST).contains(length))
}

/// The moment that `text` names. In a URL a `+` that nobody encoded has become a space.
pub(super) fn moment(text: &str) -> Option<Micros> {
    let date = |text: &str| text.parse::<Date>().ok().filter(|_| text.len() == "2026-11-01".len());
    let at = match date(text) {
        Some(date) => date.to_zoned(TimeZone::UTC).ok()?.timestamp(),
        None => text.parse::<Timestamp>().or_else(|_| text.replace(' ', "+").parse()).ok()?,
    };
    Some(at.as_microsecond()).filter(|at| *at >= 0)
}

/// How long the points of a series are apart: what `granularity` says, or what suits the window.
pub fn step(parameters: &mut Parameters, window: Option<Window>) -> Step {
    let chosen = parameters.choice("granularity", &STEPS);
    let Some(window) = window else { return Step::Day };
    let suits = |step: &Step| step.points_in(window) <= MAX_POINTS;
    let Some(chosen) = chosen else {
        let length = window.to - window.from;
        return if length <= 3 * HOUR {
            Step::Minute
        } else if length <= 7 * DAY {
            Step::Hour
        } else {
            Step::Day
        };
    };
    if !suits(&chosen) {
        let fits = STEPS.iter().find(|(_, step)| suits(step)).map_or("daily", |(word, _)| *word);
        let points = chosen.points_in(window);
        let detail = format!(
            "makes {points} points, and {MAX_POINTS} are the most: write `granularity={fits}`, or ask about less time"
        );
        parameters.fault("granularity", detail);
    }
    chosen
}

/// The word for how long the points are apart.
pub(super) fn word_of(step: Step) -> &'static str {
    STEPS.iter().find(|(_, known)| *known == step).map_or("daily", |(word, _)| *word)
}

/// How many are wanted at most.
pub(super) fn limit(parameters: &mut Parameters, usual: usize) -> NonZeroUsize {
    let limit = parameters.number("limit", 1..=MOST).and_then(|limit| usize::try_from(limit).ok());
    NonZeroUsize::new(limit.unwrap_or(usual)).unwrap_or(NonZeroUsize::MIN)
}

/// Where a list of this `kind` goes on.
pub fn cursor(parameters: &mut Parameters, kind: &str) -> Option<i64> {
    let told = "write what `next_cursor` of the page before says, as it is";
    parameters.parsed("cursor", told, |text| read_cursor(kind, text))
}

/// How a list of this `kind` is told to go on after `last`.
#[must_use]
pub fn cursor_after(kind: &str, last: i64) -> String {
    let mut bytes = last.to_be_bytes().to_vec();
    bytes.extend(check(kind, last));
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(kind: &str, text: &str) -> Option<i64> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (last, checked) = bytes.split_first_chunk()?;
    let last = i64::from_be_bytes(*last);
    (checked == check(kind, last)).then_some(last)
}

/// What tells a cursor from any other text. It opens nothing: whoever makes one sees what they may see anyway.
fn check(kind: &str, last: i64) -> [u8; 4] {
    let digest = Sha256::new().chain_update(kind).chain_update(last.to_be_bytes()).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// As seconds, for rates.
pub(super) fn seconds(window: Window) -> f64 {
    let length = window.to.abs_diff(window.from);
    Duration::from_micros(length).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tokens::Bounds;

    const NOW: Micros = 1_800_000_000_000_000;

    fn read(query: &str) -> Result<Window, String> {
        let mut parameters = Parameters::of(query);
        let window = window(&mut parameters, "range", NOW);
        parameters.end().map_err(|problem| problem.detail().to_owned())?;
        Ok(window.expect("no fault"))
    }

    #[test]
    fn a_time_is_so_long_back_or_between_two_moments() {
        let back = |length| Window { from: NOW - length, to: NOW };
        let november = 1_793_491_200_000_000;
        for (query, expected) in [
            ("", back(DAY)),
            ("range=1h", back(HOUR)),
            ("range=24h", back(DAY)),
            ("range=90m", back(HOUR + HOUR / 2)),
            ("range=30d", back(30 * DAY)),
            ("range=4w", back(28 * DAY)),
            ("from=2026-11-01", Window { from: november, to: NOW }),
            ("from=2026-11-01&to=2026-11-02", Window { from: november, to: november + DAY }),
            ("from=2026-11-01T01:00:00%2B01:00&to=2026-11-02T00:00:00Z", Window { from: november, to: november + DAY }),
            ("from=2026-11-01T01:00:00+01:00&to=2026-11-02", Window { from: november, to: november + DAY }),
        ] {
            assert_eq!(read(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn every_fault_of_a_time_says_what_mends_it() {
        for (query, expected) in [
            ("range=soon", "`range` is `soon`: write a number of minutes"),
            ("range=0h", "`range` is `0h`: write"),
            ("range=-1h", "`range` is `-1h`: write"),
            ("range=4y", "`range` is `4y`: write"),
            ("range=99999999999999999999d", "write a number of minutes"),
            ("range=1097d", "up to three years"),
            ("range=1h&from=2026-11-01", "`range` is there beside `from` or `to`"),
            ("to=2026-11-01", "`from` is missing, and needed with `to`"),
            ("from=2026-11-02&to=2026-11-01", "`from` is not before `to`"),
            ("from=2099-01-01", "`from` is not before `to`"),
            ("from=1971-01-01&to=2026-01-01", "more than three years"),
            ("from=1900-01-01", "`from` is `1900-01-01`: write a time"),
            ("from=yesterday", "`from` is `yesterday`: write a time"),
            ("rnage=1h", "`rnage` is unknown: did you mean `range`?"),
        ] {
            let told = read(query).expect_err(query);
            assert!(told.contains(expected), "{query}: {told}");
        }
    }

    #[test]
    fn a_series_has_as_many_points_as_can_be_read() {
        let of = |query: &str, length| {
            let mut parameters = Parameters::of(query);
            let step = step(&mut parameters, Some(Window { from: NOW - length, to: NOW }));
            parameters.end().map(|()| step).map_err(|problem| problem.detail().to_owned())
        };
        for (query, length, expected) in [
            ("", HOUR, Step::Minute),
            ("", DAY, Step::Hour),
            ("", 30 * DAY, Step::Day),
            ("granularity=5m", DAY, Step::FiveMinutes),
            ("granularity=hourly", 30 * DAY, Step::Hour),
        ] {
            assert_eq!(of(query, length), Ok(expected), "{query}");
        }
        let told = of("granularity=minute", 7 * DAY).expect_err("too many");
        assert!(told.contains("1500 are the most: write `granularity=15m`, or ask about less time"), "{told}");
        let told = of("granularity=hourley", DAY).expect_err("no word");
        assert!(told.contains("did you mean `hourly`?"), "{told}");
    }

    #[test]
    fn a_cursor_leads_on_in_its_own_list_alone() {
        for last in [0, 1, -1, NOW, i64::MAX] {
            let cursor = cursor_after("logs", last);
            assert_eq!(read_cursor("logs", &cursor), Some(last));
            assert_eq!(read_cursor("audit", &cursor), None);
            assert_eq!(read_cursor("logs", &cursor[1..]), None);
        }
        for garbage in ["", "AAAA", "MTIzNDU2Nzg5MDEy", "ü", "../../etc/passwd"] {
            assert_eq!(read_cursor("logs", garbage), None, "{garbage}");
        }
    }

    #[test]
    fn nobody_gets_beyond_what_they_may_see() {
        let bounds = Bounds { workspace: Some("a".into()), user: Some("ann".into()) };
        let caller = Asker { bounds, token: Some("team-a".into()), privacy: crate::privacy::tests::plain() };
        for (query, expected) in [
            ("", None),
            ("workspace=a&user=ann", None),
            ("workspace_id=b", Some(403)),
            ("user=bob", Some(403)),
            ("workspace=A", Some(403)),
            ("workspace=a&workspace_id=a", Some(400)),
        ] {
            match (Asked::of(Parameters::of(query), &caller), expected) {
                (Ok(asked), None) => {
                    let Filter { workspace, user, .. } = asked.filter;
                    assert_eq!((workspace.as_deref(), user.as_deref()), (Some("a"), Some("ann")), "{query}");
                }
                (Err(problem), Some(status)) => assert_eq!(problem.status(), status, "{query}"),
                (found, _) => panic!("{query}: {found:?}"),
            }
        }
    }
}
