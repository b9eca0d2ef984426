//! Freshness: may a stored response answer now? RFC 9111, sections 4.2 and 5.2.1. Knows header fields and the times
//! it is given; not providers, prices, moka or the clock.

use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

/// What a request's `Cache-Control` says of stored responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// "the client prefers stored response not be used to satisfy the request without successful validation on the
    /// origin server" (section 5.2.1.4); there is no validation here, so it is not used.
    pub no_cache: bool,
    /// "a cache MUST NOT store any part of either this request or any response to it" (section 5.2.1.5).
    pub no_store: bool,
}

impl Directives {
    /// Reads the directives of a request. Unknown ones are ignored, as section 5.2.3 asks.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Self {
        let mut found = Self::default();
        let values = request.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        for directive in values.flat_map(|value| value.split(',')) {
            match directive.split('=').next().unwrap_or_default().trim() {
                name if name.eq_ignore_ascii_case("no-cache") => found.no_cache = true,
                name if name.eq_ignore_ascii_case("no-store") => found.no_store = true,
                _ => {}
            }
        }
        found
    }
}

/// Whether a response of this age may still answer (section 4.2).
#[must_use]
pub fn is_fresh(age: Duration, lifetime: Duration) -> bool {
    age < lifetime
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_directives_are_read_whatever_their_case_and_company() {
        for (header, no_cache, no_store) in [
            ("", false, false),
            ("no-cache", true, false),
            ("No-Store", false, true),
            ("max-age=5, no-cache , no-store", true, true),
            ("max-stale, x-no-cache", false, false),
            ("no-cache=\"set-cookie\"", true, false),
        ] {
            let mut request = HeaderMap::new();
            request.insert(CACHE_CONTROL, header.parse().expect("a header value"));
            assert_eq!(Directives::of(&request), Directives { no_cache, no_store }, "{header}");
        }
    }

    #[test]
    fn a_response_is_fresh_until_its_lifetime_is_over() {
        let lifetime = Duration::from_secs(60);
        assert!(is_fresh(Duration::from_secs(59), lifetime));
        assert!(!is_fresh(lifetime, lifetime));
    }
}
