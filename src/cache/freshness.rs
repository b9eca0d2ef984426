//! Freshness: may a stored response answer now? RFC 9111, sections 4.2 and 5.2.1; RFC 5861, section 3. Knows header
//! fields and the times it is given; not providers, prices, moka or the clock.

use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

/// What a request's `Cache-Control` says of stored responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive that is there or not")]
pub struct Directives {
    /// "the client prefers stored response not be used to satisfy the request without successful validation on the
    /// origin server" (section 5.2.1.4); there is no validation here, so it is not used.
    pub no_cache: bool,
    /// "a cache MUST NOT store any part of either this request or any response to it" (section 5.2.1.5).
    pub no_store: bool,
    /// "the client only wishes to obtain a stored response" (section 5.2.1.7).
    pub only_if_cached: bool,
    /// "the client prefers a response whose age is less than or equal to" this; unless `max-stale` is there too, "the
    /// client does not wish to receive a stale response" (section 5.2.1.1).
    pub max_age: Option<Duration>,
    /// The client wants a response that "will still be fresh for at least" this long (section 5.2.1.3).
    pub min_fresh: Option<Duration>,
    /// "the client will accept a response that has exceeded its freshness lifetime", "by no more than" this (section
    /// 5.2.1.2). [`Duration::MAX`] where the directive sets no limit.
    pub max_stale: Option<Duration>,
    /// "the client is asking for intermediaries to avoid transforming the content" (section 5.2.1.6): no answer in
    /// another form.
    pub no_transform: bool,
}

impl Directives {
    /// Reads the directives of a request. Unknown ones are ignored, as section 5.2.3 asks.
    ///
    /// Of a directive that is there more than once the first counts, and what cannot be read is taken for the value
    /// that lets the fewest stored responses answer: section 4.2.1 encourages caches "to consider responses that have
    /// invalid freshness information" stale.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Self {
        let mut found = Self::default();
        for value in request.get_all(CACHE_CONTROL) {
            for directive in Parts::of(value.as_bytes(), b',') {
                found.note(directive);
            }
        }
        found
    }

    fn note(&mut self, directive: &[u8]) {
        let mut parts = Parts::of(directive, b'=');
        let (name, argument) = (parts.next().unwrap_or_default(), parts.rest());
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let seconds = || argument.and_then(delta_seconds);
        if is("no-cache") {
            self.no_cache = true;
        } else if is("no-store") {
            self.no_store = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age.get_or_insert_with(|| seconds().unwrap_or(Duration::ZERO));
        } else if is("min-fresh") {
            self.min_fresh.get_or_insert_with(|| seconds().unwrap_or(Duration::MAX));
        } else if is("max-stale") {
            let unlimited = argument.is_none().then_some(Duration::MAX);
            self.max_stale.get_or_insert_with(|| unlimited.or_else(seconds).unwrap_or(Duration::ZERO));
        }
    }

    /// Whether any of them asks for a stored response, or says which one will do.
    #[must_use]
    pub const fn ask_for_stored(&self) -> bool {
        self.only_if_cached || self.max_age.is_some() || self.min_fresh.is_some() || self.max_stale.is_some()
    }
}

/// The greatest number of seconds there is: "the cache MUST consider the value to be 2147483648 (2^31)" where it is
/// greater than a cache can represent (section 1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// A delta-seconds, as a token or as a quoted string: "recipients ought to accept both forms" (section 5.2). `None` if
/// it is neither.
fn delta_seconds(argument: &[u8]) -> Option<Duration> {
    let quoted = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let digits = quoted.unwrap_or(argument);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number =
        digits.iter().fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_secs(number.min(MOST_SECONDS)))
}

/// The parts of a field value between separators; one within a quoted string separates nothing.
struct Parts<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Parts<'a> {
    fn of(value: &'a [u8], separator: u8) -> Self {
        Self { rest: Some(value), separator }
    }

    /// All that follows the parts taken, if there is any more.
    fn rest(self) -> Option<&'a [u8]> {
        self.rest.map(<[u8]>::trim_ascii)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let value = self.rest.take()?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in value.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                byte if *byte == self.separator && !quoted => {
                    self.rest = Some(&value[at + 1..]);
                    return Some(value[..at].trim_ascii());
                }
                _ => {}
            }
        }
        Some(value.trim_ascii())
    }
}

/// What a stored response is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Fresh: it answers.
    Fresh,
    /// Stale, but it answers: the request accepts it, or it may answer while a new one is fetched.
    Stale {
        /// Whether a new one is to be fetched: it is within the window of `stale-while-revalidate`.
        revalidate: bool,
    },
    /// Fresh, but not what the request wants: too old for its `max-age`, or not for long enough to come.
    Declined,
    /// Stale: it does not answer.
    Expired,
}

/// Judges a response of this `age` that has this `lifetime` (section 4.2), and may answer while it is revalidated for a
/// `window` after that (RFC 5861, section 3). What the request says of stale responses goes before the window.
#[must_use]
pub fn judge(age: Duration, lifetime: Duration, window: Duration, request: &Directives) -> Verdict {
    let is_wanted = request.max_age.is_none_or(|most| age <= most)
        && request.min_fresh.is_none_or(|least| age.saturating_add(least) <= lifetime);
    if age < lifetime {
        return if is_wanted { Verdict::Fresh } else { Verdict::Declined };
    }
    let staleness = age.saturating_sub(lifetime);
    let in_window = staleness < window;
    let accepts = match request {
        Directives { max_stale: Some(most), .. } => staleness <= *most,
        Directives { max_age: Some(_), .. } | Directives { min_fresh: Some(_), .. } => false,
        _ => in_window,
    };
    if accepts && is_wanted { Verdict::Stale { revalidate: in_window } } else { Verdict::Expired }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn directives(header: &str) -> Directives {
        let mut request = HeaderMap::new();
        request.insert(CACHE_CONTROL, header.parse().expect("a header value"));
        Directives::of(&request)
    }

    #[test]
    fn request_directives_are_read_whatever_their_case_and_company() {
        let none = Directives::default();
        let (no_cache, no_store) = (Directives { no_cache: true, ..none }, Directives { no_store: true, ..none });
        let max_age = |seconds| Directives { max_age: Some(secs(seconds)), ..none };
        let max_stale = |most| Directives { max_stale: Some(most), ..none };
        let min_fresh = |least| Directives { min_fresh: Some(least), ..none };
        for (rule, header, expected) in [
            ("nothing", "", none),
            ("a name", "no-cache", no_cache),
            ("names have no case", "No-Store", no_store),
            ("unknown ones are ignored", "x-no-cache, no-store-at-all", none),
            ("a list", ",, max-age=5 ,no-cache", Directives { no_cache: true, ..max_age(5) }),
            ("only-if-cached", "only-if-cached", Directives { only_if_cached: true, ..none }),
            ("an argument nobody defined", "no-cache=\"set-cookie\"", no_cache),
            ("a token", "max-age=60", max_age(60)),
            ("a quoted string", "max-age=\"60\"", max_age(60)),
            ("zero", "max-age=0", max_age(0)),
            ("leading zeros", "max-age=007", max_age(7)),
            ("2^31 at most", "max-age=99999999999999999999999999", max_age(1 << 31)),
            ("the first counts", "max-age=5, max-age=50", max_age(5)),
            ("no number: as old as can be is too old", "max-age=soon", max_age(0)),
            ("negative", "max-age=-1", max_age(0)),
            ("a fraction", "max-age=1.5", max_age(0)),
            ("no argument", "max-age", max_age(0)),
            ("an empty argument", "max-age=", max_age(0)),
            ("min-fresh", "min-fresh=20", min_fresh(secs(20))),
            ("no number: nothing is fresh for so long", "min-fresh=x", min_fresh(Duration::MAX)),
            ("max-stale", "max-stale=20", max_stale(secs(20))),
            ("any staleness", "max-stale", max_stale(Duration::MAX)),
            ("no number: none", "max-stale=x", max_stale(Duration::ZERO)),
            ("a quoted string is one argument", "x=\"a, no-store\", no-cache", no_cache),
            ("an escaped quote ends nothing", r#"x="\", no-store", no-cache"#, no_cache),
            ("a quoted string without an end", "x=\"a, no-store", none),
        ] {
            assert_eq!(directives(header), expected, "{rule}: {header}");
        }
    }

    #[test]
    fn directives_are_one_list_over_several_fields_whatever_bytes_stand_beside_them() {
        let mut request = HeaderMap::new();
        for value in [b"max-age=5".as_slice(), b"x=\xe9, no-store"] {
            request.append(CACHE_CONTROL, http::HeaderValue::from_bytes(value).expect("a header value"));
        }
        let expected = Directives { max_age: Some(secs(5)), no_store: true, ..Directives::default() };
        assert_eq!(Directives::of(&request), expected);
    }

    #[test]
    fn a_stored_response_answers_as_its_age_and_the_request_allow() {
        use Verdict::{Declined, Expired, Fresh, Stale};
        let (answers, refreshed) = (Stale { revalidate: false }, Stale { revalidate: true });
        // Stored for 60 seconds.
        for (rule, age, window, header, expected) in [
            ("fresh", 59, 0, "", Fresh),
            ("stale at the end of its lifetime", 60, 0, "", Expired),
            ("max-age: not older", 10, 0, "max-age=10", Fresh),
            ("max-age: older", 11, 0, "max-age=10", Declined),
            ("max-age beyond the lifetime keeps nothing alive", 60, 0, "max-age=100", Expired),
            ("max-age wants no stale response", 61, 30, "max-age=100", Expired),
            ("max-age with max-stale takes one", 61, 0, "max-age=100, max-stale=5", answers),
            ("though none that is older", 61, 0, "max-age=60, max-stale=5", Expired),
            ("min-fresh: still long enough", 40, 0, "min-fresh=20", Fresh),
            ("min-fresh: not long enough", 41, 0, "min-fresh=20", Declined),
            ("min-fresh wants no stale response", 61, 30, "min-fresh=0", Expired),
            ("max-stale: as stale", 70, 0, "max-stale=10", answers),
            ("max-stale: more", 71, 0, "max-stale=10", Expired),
            ("max-stale: without limit", 10_000, 0, "max-stale", answers),
            ("within the window", 60, 30, "", refreshed),
            ("to its end", 89, 30, "", refreshed),
            ("after it", 90, 30, "", Expired),
            ("max-stale goes before the window: less", 75, 30, "max-stale=10", Expired),
            ("max-stale goes before the window: more", 95, 30, "max-stale=100", answers),
            ("within both", 65, 30, "max-stale=10", refreshed),
        ] {
            let verdict = judge(secs(age), secs(60), secs(window), &directives(header));
            assert_eq!(verdict, expected, "{rule}: {header} at {age}");
        }
    }

    #[test]
    fn no_sum_of_times_overflows() {
        let request = directives("min-fresh=x, max-stale");
        assert_eq!(judge(Duration::MAX, secs(60), Duration::MAX, &request), Verdict::Expired);
        assert_eq!(
            judge(Duration::MAX, secs(60), Duration::MAX, &directives("max-stale")),
            Verdict::Stale { revalidate: true }
        );
        assert_eq!(judge(secs(1), secs(60), Duration::ZERO, &request), Verdict::Declined);
    }
}
