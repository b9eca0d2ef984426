//! Wording: how amounts are written so that they can be read at a glance, and with what emphasis.
//!
//! Pure. Knows numbers and terminals; not what the numbers mean.

use std::env;
use std::time::Duration;

use tokio::time::Instant;

use crate::labels;

/// US dollars in at most seven letters: `$0.0412`, `$41.20`, `$4120`; what would read as nothing is `<$.0001`.
pub(super) fn money(usd: f64) -> String {
    match usd {
        usd if usd > 0.0 && usd < 0.000_05 => "<$.0001".to_owned(),
        usd if usd < 10.0 => format!("${usd:.4}"),
        usd if usd < 1000.0 => format!("${usd:.2}"),
        usd => format!("${usd:.0}"),
    }
}

/// A count in at most five letters: `9999`, `12.3k`, `4.1M`.
pub(super) fn count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}.{}k", count / 1000, count % 1000 / 100),
        _ => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
    }
}

/// A count in full: `1,234,567`.
pub(super) fn full_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds: `0.31 ms`, `2.4 ms`, `612 ms`, `1.31 s`; `–` where there are none.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return "–".to_owned() };
    let millis = seconds * 1000.0;
    match millis {
        millis if millis < 1.0 => format!("{millis:.2} ms"),
        millis if millis < 10.0 => format!("{millis:.1} ms"),
        millis if millis < 1000.0 => format!("{millis:.0} ms"),
        _ => format!("{seconds:.2} s"),
    }
}

/// A share in percent: `61 %`; `–` where there is nothing to share.
pub(super) fn percent(percent: Option<f64>) -> String {
    percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.0} %"))
}

/// An agent, as the label `agent` names it. A call by hand names none.
pub(super) fn agent_name(label: &str) -> &str {
    if label == labels::NONE { "you (none)" } else { label }
}

/// Time since `begun`: `4:07`.
pub(super) fn clock(begun: Instant) -> String {
    let seconds = begun.elapsed().as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A number of things in this time, per second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let count = count as f64;
    count / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Whether the user wants colours (<https://no-color.org>).
pub(super) fn wants_colours() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Emphasis, by ANSI's "select graphic rendition"; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paint {
    colours: bool,
}

impl Paint {
    /// Colours, unless the user wants none.
    pub(super) fn wanted() -> Self {
        Self { colours: wants_colours() }
    }

    pub(super) fn spent(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    pub(super) fn saved(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// The other way round: the background takes the colour of letters.
    pub(super) fn bar(self, text: &str) -> String {
        self.paint("7", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_never_look_like_nothing_when_they_are_something() {
        for (usd, expected) in [
            (0.0, "$0.0000"),
            (0.000_001, "<$.0001"),
            (0.041_23, "$0.0412"),
            (9.5, "$9.5000"),
            (41.2, "$41.20"),
            (999.99, "$999.99"),
            (4120.4, "$4120"),
        ] {
            assert_eq!(money(usd), expected);
        }
        for (number, expected) in
            [(0, "0"), (9999, "9999"), (12_345, "12.3k"), (999_999, "999.9k"), (4_150_000, "4.1M")]
        {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(full_count(number), expected);
        }
    }

    #[test]
    fn durations_are_written_in_the_unit_that_fits() {
        for (time, expected) in [
            (None, "–"),
            (Some(0.000_312), "0.31 ms"),
            (Some(0.0024), "2.4 ms"),
            (Some(0.612), "612 ms"),
            (Some(1.309), "1.31 s"),
        ] {
            assert_eq!(seconds(time), expected);
        }
    }
}
