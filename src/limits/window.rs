//! Windows: the calendar periods that a budget is for, in a time zone.
//!
//! Pure: an instant in, the period around it out. Knows calendars and clocks that change twice a year; not budgets, and
//! not what time it is. The rules of the time zones are compiled in: every weir of one version has the same ones, and
//! needs no files of the system.
//!
//! The periods of a window tile time: each instant is in exactly one. A day, a week or a month begins with the first
//! instant at which the clock of its zone has reached it, so it may have 23 or 25 hours. An hour begins when the clock
//! shows a full one, and when it is put to another minute: the hour that a clock shows twice is two.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{self, AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant by the wall clock: whole seconds since 1970 began, UTC, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(i64);

impl UnixTime {
    /// When unix time begins.
    pub const EPOCH: Self = Self(0);

    /// So many seconds after 1970 began.
    #[must_use]
    pub const fn new(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970 began.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// The instant as jiff counts it; what is before 1970 or beyond the year 9000 is taken for the nearest that is not.
    fn stamp(self) -> Timestamp {
        const YEAR_9000: i64 = 221_845_392_000;
        Timestamp::from_second(self.0.clamp(0, YEAR_9000)).expect("jiff knows every second up to the year 9999")
    }

    fn of(stamp: Timestamp) -> Self {
        Self(stamp.as_second())
    }
}

/// RFC 3339, with any offset: `2026-11-21T18:00:00+01:00`. Parts of a second count for nothing.
impl FromStr for UnixTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let stamp: Result<Timestamp, _> = text.parse();
        stamp.map(Self::of).map_err(|_| {
            format!(
                "`{text}` is no time: write one by RFC 3339 such as 2026-11-30T18:00:00Z or 2026-11-30T18:00:00+01:00"
            )
        })
    }
}

/// The second that `time` is in; the first of all, if it is before 1970.
impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

/// RFC 3339, in UTC: `2026-11-21T17:00:00Z`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stamp())
    }
}

/// How long what a budget allows has to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday, as ISO 8601 counts weeks.
    Week,
    /// From the first of a month to the first of the next.
    Month,
    /// For ever: what is spent never comes back.
    Total,
}

/// One period of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    /// The first second that is in it.
    pub start: UnixTime,
    /// The first second that is not; none if it never ends.
    pub end: Option<UnixTime>,
}

impl Window {
    /// The value of the label `window`, and the word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    /// The period around `now`, by the clocks of `zone`.
    ///
    /// Costs about a microsecond: ask again only when a period is over.
    #[must_use]
    pub fn period(self, zone: &Zone, now: UnixTime) -> Period {
        let now = now.stamp();
        match self {
            Self::Hour => zone.hour(now),
            Self::Day => zone.period(now, |date| date, |first| first.saturating_add(1.day())),
            Self::Week => zone.period(now, monday, |first| first.saturating_add(1.week())),
            Self::Month => zone.period(now, Date::first_of_month, |first| first.saturating_add(1.month())),
            Self::Total => Period { start: UnixTime::EPOCH, end: None },
        }
    }
}

/// The Monday on or before `date`.
fn monday(date: Date) -> Date {
    date.saturating_sub(i64::from(date.weekday().to_monday_zero_offset()).days())
}

/// A time zone, by its name in the IANA time zone database: `Europe/Berlin`, `America/New_York`, `UTC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone's name, as the database spells it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The hour around `now`: shorter where the clock is put to another minute.
    fn hour(&self, now: Timestamp) -> Period {
        const SECOND: SignedDuration = SignedDuration::from_secs(1);
        const HOUR: SignedDuration = SignedDuration::from_hours(1);
        let offset = self.0.to_offset(now);
        let shown = now.as_second() + i64::from(offset.seconds());
        let full = now - SignedDuration::from_secs(shown.rem_euclid(HOUR.as_secs()));
        let is_as_now = |at: Timestamp| self.0.to_offset(at) == offset;

        let put = if is_as_now(full) { None } else { self.0.preceding(now + SECOND).next() };
        let start = put.map_or(full, |put| put.timestamp());
        let put = if is_as_now(full + HOUR) { None } else { self.0.following(now).next() };
        let end = put.map_or(full + HOUR, |put| put.timestamp());
        Period { start: UnixTime::of(start), end: Some(UnixTime::of(end)) }
    }

    /// The period around `now`, from the day that is `first` in today's period to the `next` such day.
    fn period(&self, now: Timestamp, first: impl Fn(Date) -> Date, next: impl Fn(Date) -> Date) -> Period {
        let today = self.0.to_datetime(now).date();
        let (mut from, mut to) = (first(today), next(first(today)));
        // A clock put back over midnight shows the day before again: the day that it has reached goes on.
        while self.begins(to) <= now {
            (from, to) = (to, next(to));
        }
        Period { start: UnixTime::of(self.begins(from)), end: Some(UnixTime::of(self.begins(to))) }
    }

    /// The first instant at which the zone's clock shows `date` or a later one.
    fn begins(&self, date: Date) -> Timestamp {
        let midnight = DateTime::from_parts(date, Time::midnight());
        let at = self.0.to_ambiguous_timestamp(midnight);
        let first = match at.offset() {
            // Midnight is skipped: the clock reaches the day when it is put forward.
            AmbiguousOffset::Gap { after, .. } => {
                let before_it_is_put = after.to_timestamp(midnight);
                before_it_is_put.map(|before| self.0.following(before).next().map_or(before, |put| put.timestamp()))
            }
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => at.earlier(),
        };
        first.expect("a day from 1969 to 9001 is within jiff's years")
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = tz::db().get(name).ok().filter(|zone| !zone.is_unknown());
        known.map(Self).ok_or_else(|| {
            let meant = nearest(name).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
            format!(
                "`{name}` is not a time zone: {meant}write a name of the IANA database, such as Europe/Berlin, \
                 America/New_York or UTC"
            )
        })
    }
}

/// The zone whose name, or the city in whose name, `word` most likely means.
fn nearest(word: &str) -> Option<String> {
    let word = word.to_lowercase().replace(' ', "_");
    let allowed = word.chars().count() / 4;
    let names = tz::db().available();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        let city = name.rsplit('/').next().unwrap_or(&name);
        strsim::damerau_levenshtein(&word, &name).min(strsim::damerau_levenshtein(&word, city))
    };
    let (distance, name) = names.map(|name| (distance(name.as_str()), name)).min_by_key(|(distance, _)| *distance)?;
    (distance <= allowed).then(|| name.to_string())
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "a time zone of the IANA database such as Europe/Berlin",
            "examples": ["Europe/Berlin", "America/New_York", "UTC"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> Zone {
        name.parse().expect("a time zone")
    }

    fn time(text: &str) -> UnixTime {
        UnixTime::of(text.parse().expect("a time by RFC 3339"))
    }

    /// The window, its zone, an instant; when its period begins and ends; the rule.
    const CALENDAR: &str = "
    hour  UTC                 2026-11-21T17:59:59Z   2026-11-21T17:00Z      2026-11-21T18:00Z      an hour
    hour  UTC                 2026-11-21T17:00Z      2026-11-21T17:00Z      2026-11-21T18:00Z      its first second
    hour  Asia/Kolkata        2026-11-21T17:10Z      2026-11-21T16:30Z      2026-11-21T17:30Z      half-hour zone
    hour  Asia/Kathmandu      2026-11-21T17:10Z      2026-11-21T16:15Z      2026-11-21T17:15Z      quarter-hour zone
    hour  Europe/Berlin       2026-03-29T01:30+01:00 2026-03-29T01:00+01:00 2026-03-29T03:00+02:00 before a gap
    hour  Europe/Berlin       2026-03-29T03:30+02:00 2026-03-29T03:00+02:00 2026-03-29T04:00+02:00 after a gap
    hour  Europe/Berlin       2026-10-25T02:30+02:00 2026-10-25T02:00+02:00 2026-10-25T02:00+01:00 a fold, first
    hour  Europe/Berlin       2026-10-25T02:30+01:00 2026-10-25T02:00+01:00 2026-10-25T03:00+01:00 a fold, again
    hour  Australia/Lord_Howe 2026-10-04T02:31+11:00 2026-10-04T02:30+11:00 2026-10-04T03:00+11:00 half an hour skipped
    hour  Australia/Lord_Howe 2026-04-05T01:45+10:30 2026-04-05T01:30+10:30 2026-04-05T02:00+10:30 half an hour again
    day   UTC                 2026-11-21T17:59:59Z   2026-11-21T00:00Z      2026-11-22T00:00Z      a day
    day   America/New_York    2026-11-22T03:00Z      2026-11-21T00:00-05:00 2026-11-22T00:00-05:00 a day elsewhere
    day   Europe/Berlin       2026-03-29T12:00Z      2026-03-29T00:00+01:00 2026-03-30T00:00+02:00 23 hours
    day   Europe/Berlin       2026-10-25T12:00Z      2026-10-25T00:00+02:00 2026-10-26T00:00+01:00 25 hours
    day   America/Sao_Paulo   2018-11-04T12:00Z      2018-11-04T01:00-02:00 2018-11-05T00:00-02:00 midnight skipped
    day   America/Havana      2026-11-01T12:00Z      2026-11-01T00:00-04:00 2026-11-02T00:00-05:00 midnight twice
    day   America/St_Johns    2010-11-06T23:30-03:30 2010-11-07T00:00-02:30 2010-11-08T00:00-03:30 back over midnight
    day   Pacific/Apia        2011-12-29T12:00-10:00 2011-12-29T00:00-10:00 2011-12-31T00:00+14:00 before a skipped day
    day   Pacific/Apia        2011-12-31T12:00+14:00 2011-12-31T00:00+14:00 2012-01-01T00:00+14:00 after a skipped day
    day   UTC                 2028-02-29T12:00Z      2028-02-29T00:00Z      2028-03-01T00:00Z      leap day
    week  UTC                 2026-11-16T00:00Z      2026-11-16T00:00Z      2026-11-23T00:00Z      begins on Monday
    week  UTC                 2026-11-22T23:59:59Z   2026-11-16T00:00Z      2026-11-23T00:00Z      ends with Sunday
    week  Europe/Berlin       2027-01-01T12:00Z      2026-12-28T00:00+01:00 2027-01-04T00:00+01:00 over the year's end
    week  Europe/Berlin       2026-10-20T12:00Z      2026-10-19T00:00+02:00 2026-10-26T00:00+01:00 a week with a fold
    month UTC                 2026-11-21T17:00Z      2026-11-01T00:00Z      2026-12-01T00:00Z      a month
    month UTC                 2028-02-29T23:59:59Z   2028-02-01T00:00Z      2028-03-01T00:00Z      29 days
    month UTC                 2100-02-28T23:59:59Z   2100-02-01T00:00Z      2100-03-01T00:00Z      no leap year in 2100
    month Europe/Berlin       2026-12-31T22:59:59Z   2026-12-01T00:00+01:00 2027-01-01T00:00+01:00 the year's end
    month Europe/Berlin       2026-12-31T23:00Z      2027-01-01T00:00+01:00 2027-02-01T00:00+01:00 the next year
    month Europe/Berlin       2026-03-15T12:00Z      2026-03-01T00:00+01:00 2026-04-01T00:00+02:00 a month with a gap
    ";

    #[test]
    fn a_period_is_what_the_calendar_of_its_zone_says() {
        for row in CALENDAR.lines().filter(|row| !row.trim().is_empty()) {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let [window, name, now, start, end, ..] = columns[..] else { panic!("not a row: {row}") };
            let window: Window = serde_json::from_value(window.into()).expect("a window");
            let expected = Period { start: time(start), end: Some(time(end)) };
            assert_eq!(window.period(&zone(name), time(now)), expected, "{row}");
        }
    }

    #[test]
    fn a_total_never_ends() {
        let total = Period { start: UnixTime::EPOCH, end: None };
        assert_eq!(Window::Total.period(&zone("Europe/Berlin"), time("2026-11-21T17:00:00Z")), total);
    }

    #[test]
    fn no_instant_is_out_of_reach() {
        for seconds in [i64::MIN, -1, 0, 1, 253_402_300_799, i64::MAX] {
            for window in [Window::Hour, Window::Day, Window::Week, Window::Month] {
                for name in ["Etc/GMT+12", "Pacific/Kiritimati", "UTC"] {
                    let period = window.period(&zone(name), UnixTime::new(seconds));
                    assert!(period.end.is_some_and(|end| period.start < end), "{window:?} {seconds} {name}");
                }
            }
        }
    }

    /// Zones that change in every way there is: by an hour, by half of one, at midnight, over midnight, over a day.
    const ZONES: [&str; 14] = [
        "UTC",
        "Europe/Berlin",
        "Europe/Dublin",
        "America/New_York",
        "America/St_Johns",
        "America/Sao_Paulo",
        "America/Havana",
        "America/Nuuk",
        "Africa/Casablanca",
        "Africa/Cairo",
        "Asia/Kolkata",
        "Asia/Gaza",
        "Australia/Lord_Howe",
        "Pacific/Apia",
    ];

    /// From 2006 to 2016 clocks were put back over midnight in Newfoundland, and Samoa skipped a day; from 2026 on the
    /// rules are those of today.
    #[test]
    fn periods_tile_ten_years_without_gap_or_overlap() {
        for name in ZONES {
            for window in [Window::Day, Window::Week, Window::Month] {
                tiles(window, &zone(name), time("2006-01-01T00:00:00Z"), time("2016-01-01T00:00:00Z"));
                tiles(window, &zone(name), time("2026-01-01T00:00:00Z"), time("2036-01-01T00:00:00Z"));
            }
        }
        for name in ["Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Australia/Lord_Howe"] {
            tiles(Window::Hour, &zone(name), time("2006-01-01T00:00:00Z"), time("2016-01-01T00:00:00Z"));
        }
    }

    /// Goes from one period to the next: whoever asks at its first, its last or a second in between gets the same one.
    fn tiles(window: Window, zone: &Zone, from: UnixTime, to: UnixTime) {
        let longest = match window {
            Window::Hour => 3600,
            Window::Day => 25 * 3600,
            Window::Week => (7 * 24 + 1) * 3600,
            Window::Month | Window::Total => (31 * 24 + 1) * 3600,
        };
        let mut period = window.period(zone, from);
        while period.start < to {
            let end = period.end.expect("only a total has none");
            let length = end.0 - period.start.0;
            assert!(0 < length && length <= longest, "{window:?} in {zone}: {period:?}");
            for inside in [period.start.0 + length / 2, end.0 - 1] {
                assert_eq!(
                    window.period(zone, UnixTime(inside)),
                    period,
                    "{window:?} in {zone} at {}",
                    UnixTime(inside)
                );
            }
            let next = window.period(zone, end);
            assert_eq!(next.start, end, "{window:?} in {zone} after {end}");
            period = next;
        }
    }

    #[test]
    fn a_zone_is_read_by_its_name_and_shown_as_the_database_spells_it() {
        for (written, shown) in [("UTC", "UTC"), ("europe/berlin", "Europe/Berlin"), ("Asia/Calcutta", "Asia/Calcutta")]
        {
            let read: Zone = serde_json::from_value(written.into()).expect("a zone");
            assert_eq!(serde_json::to_value(&read).expect("a text"), shown);
        }
        assert_eq!(Zone::default().to_string(), "UTC");
    }

    #[test]
    fn what_is_no_zone_is_refused_with_one_that_is() {
        for (written, fix) in [
            ("Europe/Berln", "did you mean Europe/Berlin?"),
            ("berlin", "did you mean Europe/Berlin?"),
            ("New York", "did you mean America/New_York?"),
            ("local", "such as Europe/Berlin"),
            ("+02:00", "such as Europe/Berlin"),
            ("", "such as Europe/Berlin"),
            ("Etc/Unknown", "such as Europe/Berlin"),
            ("../../etc/passwd", "such as Europe/Berlin"),
        ] {
            let error = written.parse::<Zone>().expect_err("no zone");
            assert!(error.starts_with(&format!("`{written}` is not a time zone: ")) && error.contains(fix), "{error}");
        }
    }

    #[test]
    fn a_time_is_whole_seconds_and_never_before_the_first() {
        let (second, early) = (std::time::Duration::from_millis(1999), std::time::Duration::from_secs(7));
        assert_eq!(UnixTime::from(UNIX_EPOCH + second), UnixTime::new(1));
        assert_eq!(UnixTime::from(UNIX_EPOCH - early), UnixTime::EPOCH);
        let at = UnixTime::new(1_795_280_400);
        assert_eq!(at.to_string(), "2026-11-21T17:00:00Z");
        for text in ["2026-11-21T17:00:00Z", "2026-11-21 18:00:00.9+01:00", "2026-11-21T17:00:00+00:00"] {
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
        for text in ["", "tomorrow", "2026-11-21", "2026-11-21T17:00:00", "2026-13-01T00:00:00Z", "1795280400"] {
            assert!(text.parse::<UnixTime>().is_err_and(|error| error.contains("such as")), "{text}");
        }
    }
}
