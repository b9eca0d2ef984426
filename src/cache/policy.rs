//! Policy: on which terms one request uses the cache. What is cached at all, by which rule and for how long; and what
//! the request itself asks for. Knows settings and header fields; not the stored responses, not HTTP clients, not
//! providers' APIs.

use std::time::Duration;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache::freshness::Directives;
use crate::cache::{About, Settings};
use crate::pattern::Pattern;
use crate::record::outcome::BypassReason;
use crate::units::Span;

/// The request header that says how long its answer may serve.
pub const TTL_HEADER: &str = "x-cache-ttl";

/// No answer serves for longer than this, whatever a request says: as long as the configuration may say.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// What is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All that may be.
    All,
    /// What equal requests are meant to have equal answers to: nothing is generated (embeddings, rankings, counts), or
    /// the temperature is exactly 0, or a seed is given.
    Deterministic,
    /// What a request asks for, by `X-Cache-TTL`, or by `Cache-Control` with `max-age`, `max-stale`, `min-fresh` or
    /// `only-if-cached`.
    OptIn,
    /// Nothing.
    Off,
    /// Nothing; but every answer is written into a file of `recordings`.
    Record,
    /// Nothing; the files of `recordings` answer, and no call goes to a provider.
    Replay,
}

impl Mode {
    /// Whether it is about recordings, and so for all calls alike: nothing is cached, and nothing shared.
    #[must_use]
    pub const fn is_for_tests(self) -> bool {
        matches!(self, Self::Record | Self::Replay)
    }
}

/// What holds for some requests in place of what `cache` says. A rule is for the requests that are all it names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Rule {
    /// Requests to the provider of this name.
    pub provider: Option<String>,
    /// Requests for a model whose name, as the app spells it, matches this pattern, such as `gpt-5*`.
    pub model: Option<Pattern>,
    /// Requests in a namespace that matches this pattern. Those in no namespace match none.
    pub namespace: Option<Pattern>,
    /// What of them is cached.
    pub mode: Option<Mode>,
    /// How long a stored answer to them may serve.
    pub ttl: Option<Span>,
    /// How long after that it may still serve while a new one is fetched.
    pub stale_while_revalidate: Option<Span>,
}

impl Rule {
    /// A rule as it may be written.
    pub(super) fn example() -> Self {
        Self {
            provider: Some("openai".to_owned()),
            model: "gpt-5*".parse().ok(),
            mode: Some(Mode::Deterministic),
            ttl: Some(Span::from_secs(24 * 3600)),
            stale_while_revalidate: Some(Span::from_secs(600)),
            ..Self::default()
        }
    }

    /// Whether it says anything of the requests it is for.
    #[must_use]
    pub const fn sets_anything(&self) -> bool {
        self.mode.is_some() || self.ttl.is_some() || self.stale_while_revalidate.is_some()
    }

    fn is_for(&self, about: &About) -> bool {
        let matches = |pattern: Option<&Pattern>, text: Option<&str>| {
            pattern.is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
        };
        self.provider.as_deref().is_none_or(|provider| provider == &*about.provider)
            && matches(self.model.as_ref(), about.model.as_deref())
            && matches(self.namespace.as_ref(), about.namespace.as_deref())
    }
}

/// What one request says in its header fields of its own use of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// In `Cache-Control`.
    pub directives: Directives,
    /// In `X-Cache-TTL`.
    pub lifetime: Lifetime,
}

/// How long an answer may serve, by the request that it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// It does not say.
    #[default]
    Unsaid,
    /// So long; not at all if it is zero.
    Said(Duration),
    /// It says something that is no length of time.
    Unreadable,
}

impl Preferences {
    /// Reads the head of a request.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Self {
        Self { directives: Directives::of(request), lifetime: Lifetime::of(request) }
    }

    /// Whether the request asks for the cache, as [`Mode::OptIn`] wants it.
    const fn ask_for_cache(&self) -> bool {
        !matches!(self.lifetime, Lifetime::Unsaid) || self.directives.ask_for_stored()
    }
}

impl Lifetime {
    fn of(request: &HeaderMap) -> Self {
        let mut fields = request.get_all(TTL_HEADER).iter();
        match (fields.next(), fields.next()) {
            (None, _) => Self::Unsaid,
            (Some(field), None) => field.to_str().map_or(Self::Unreadable, Self::read),
            // Which of them counts?
            (Some(_), Some(_)) => Self::Unreadable,
        }
    }

    /// A number of seconds, or a number and a unit as in the configuration.
    fn read(text: &str) -> Self {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let span = if is_number {
            Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
        } else {
            text.parse::<Span>().ok().map(Span::get)
        };
        span.map_or(Self::Unreadable, |span| Self::Said(span.min(LONGEST)))
    }
}

/// One request's terms.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What the request asks of stored responses.
    pub directives: Directives,
    /// How long an answer stored for it may serve. Zero: none is stored.
    pub lifetime: Duration,
    /// How long after its lifetime a stored answer may serve it while a new one is fetched.
    pub window: Duration,
}

impl Terms {
    /// Whether a stored response may answer.
    #[must_use]
    pub const fn may_answer(&self) -> bool {
        !self.directives.no_cache && !self.directives.no_store
    }

    /// Whether the answer may be stored; with `no-cache` alone, it may take the place of the stored one.
    #[must_use]
    pub const fn may_store(&self) -> bool {
        !self.directives.no_store && !self.lifetime.is_zero()
    }

    /// How long a response stored on these terms is worth keeping.
    #[must_use]
    pub const fn keep_for(&self) -> Duration {
        keep_for(self.lifetime, self.window)
    }
}

/// What the operator set.
#[derive(Clone, Debug)]
pub struct Policy {
    otherwise: Ruling,
    rules: Vec<Rule>,
}

/// What holds for some requests.
#[derive(Clone, Copy, Debug)]
struct Ruling {
    mode: Mode,
    lifetime: Duration,
    window: Duration,
}

impl Policy {
    /// The policy of `settings`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let otherwise =
            Ruling { mode: settings.mode, lifetime: settings.ttl.get(), window: settings.stale_while_revalidate.get() };
        let rules = if settings.mode.is_for_tests() { Vec::new() } else { settings.rules.clone() };
        Self { otherwise, rules }
    }

    /// The terms of a request about this that has these `preferences`, and whose answer is drawn by chance or not.
    ///
    /// # Errors
    /// With the reason, if it has no use of the cache.
    pub fn terms(&self, about: &About, preferences: &Preferences, is_sampled: bool) -> Result<Terms, BypassReason> {
        let Ruling { mode, lifetime, window } = self.ruling(about);
        match mode {
            Mode::Off | Mode::Record | Mode::Replay => return Err(BypassReason::Off),
            Mode::Deterministic if is_sampled => return Err(BypassReason::Sampled),
            Mode::OptIn if !preferences.ask_for_cache() => return Err(BypassReason::NotAskedFor),
            Mode::All | Mode::Deterministic | Mode::OptIn => {}
        }
        let lifetime = match preferences.lifetime {
            Lifetime::Unsaid => lifetime,
            Lifetime::Said(lifetime) => lifetime,
            Lifetime::Unreadable => return Err(BypassReason::UnreadableTtl),
        };
        Ok(Terms { directives: preferences.directives, lifetime, window })
    }

    /// How long a response stored on any of the operator's terms is worth keeping; a request may ask for longer.
    #[must_use]
    pub fn longest_kept(&self) -> Duration {
        let rulings = self.rules.iter().map(|rule| self.ruled_by(rule)).chain([self.otherwise]);
        rulings.map(|Ruling { lifetime, window, .. }| keep_for(lifetime, window)).max().unwrap_or_default()
    }

    /// The first rule that is for such requests, and what `cache` says where it says nothing.
    fn ruling(&self, about: &About) -> Ruling {
        let rule = self.rules.iter().find(|rule| rule.is_for(about));
        rule.map_or(self.otherwise, |rule| self.ruled_by(rule))
    }

    fn ruled_by(&self, rule: &Rule) -> Ruling {
        Ruling {
            mode: rule.mode.unwrap_or(self.otherwise.mode),
            lifetime: rule.ttl.map_or(self.otherwise.lifetime, Span::get),
            window: rule.stale_while_revalidate.map_or(self.otherwise.window, Span::get),
        }
    }
}

/// How long a response that has this lifetime, and this window after it, is worth keeping: for both, and for as long
/// again as it was fresh, for requests that accept a stale one, and so that one that has expired can be told from one
/// never seen.
const fn keep_for(lifetime: Duration, window: Duration) -> Duration {
    lifetime.saturating_mul(2).saturating_add(window)
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;

    use super::*;

    fn about(provider: &str, model: Option<&str>, namespace: Option<&str>) -> About {
        About { provider: provider.into(), model: model.map(Into::into), namespace: namespace.map(Into::into) }
    }

    fn preferences(header: &'static str, value: &str) -> Preferences {
        let mut request = HeaderMap::new();
        request.insert(header, value.parse().expect("a header value"));
        Preferences::of(&request)
    }

    fn policy(mode: Mode, rules: Vec<Rule>) -> Policy {
        Policy::new(&Settings { mode, ttl: Span::from_secs(60), rules, ..Settings::default() })
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn a_ttl_is_a_number_of_seconds_or_a_span() {
        let said = |seconds| Lifetime::Said(Duration::from_secs(seconds));
        for (value, expected) in [
            ("300", said(300)),
            (" 300 ", said(300)),
            ("0", said(0)),
            ("5m", said(300)),
            ("1h 30m", said(5400)),
            ("0s", said(0)),
            ("250ms", Lifetime::Said(Duration::from_millis(250))),
            ("99999999999999999999999999", Lifetime::Said(LONGEST)),
            ("1000years", Lifetime::Said(LONGEST)),
            ("", Lifetime::Unreadable),
            ("soon", Lifetime::Unreadable),
            ("-5", Lifetime::Unreadable),
            ("1.5", Lifetime::Unreadable),
            ("5 m 3", Lifetime::Unreadable),
            ("300, 300", Lifetime::Unreadable),
        ] {
            assert_eq!(preferences(TTL_HEADER, value).lifetime, expected, "{value}");
        }
        assert_eq!(Preferences::of(&HeaderMap::new()).lifetime, Lifetime::Unsaid);
        let mut twice = HeaderMap::new();
        twice.append(TTL_HEADER, "300".parse().expect("a header value"));
        twice.append(TTL_HEADER, "300".parse().expect("a header value"));
        assert_eq!(Preferences::of(&twice).lifetime, Lifetime::Unreadable);
    }

    #[test]
    fn a_mode_says_which_requests_have_a_use_of_the_cache() {
        let (none, ttl) = (Preferences::default(), preferences(TTL_HEADER, "300"));
        let control = |value| preferences(CACHE_CONTROL.as_str(), value);
        for (mode, preferences, is_sampled, expected) in [
            (Mode::All, none, true, Ok(60)),
            (Mode::All, ttl, true, Ok(300)),
            (Mode::All, preferences(TTL_HEADER, "soon"), true, Err(BypassReason::UnreadableTtl)),
            (Mode::Off, ttl, false, Err(BypassReason::Off)),
            (Mode::Deterministic, none, true, Err(BypassReason::Sampled)),
            (Mode::Deterministic, ttl, true, Err(BypassReason::Sampled)),
            (Mode::Deterministic, none, false, Ok(60)),
            (Mode::OptIn, none, false, Err(BypassReason::NotAskedFor)),
            (Mode::OptIn, ttl, true, Ok(300)),
            (Mode::OptIn, preferences(TTL_HEADER, "0"), true, Ok(0)),
            (Mode::OptIn, preferences(TTL_HEADER, "soon"), true, Err(BypassReason::UnreadableTtl)),
            (Mode::OptIn, control("max-age=5"), true, Ok(60)),
            (Mode::OptIn, control("max-stale"), true, Ok(60)),
            (Mode::OptIn, control("min-fresh=5"), true, Ok(60)),
            (Mode::OptIn, control("only-if-cached"), true, Ok(60)),
            (Mode::OptIn, control("no-cache"), true, Err(BypassReason::NotAskedFor)),
            (Mode::OptIn, control("no-store, no-transform"), true, Err(BypassReason::NotAskedFor)),
        ] {
            let terms = policy(mode, Vec::new()).terms(&about("openai", None, None), &preferences, is_sampled);
            let lifetime = terms.map(|terms| terms.lifetime.as_secs());
            assert_eq!(lifetime, expected, "{mode:?} {preferences:?} {is_sampled}");
        }
    }

    #[test]
    fn the_first_rule_that_is_for_a_request_wins_and_what_it_leaves_out_is_as_in_cache() {
        let rules = vec![
            Rule {
                provider: Some("openai".into()),
                model: Some(pattern("gpt-5*")),
                mode: Some(Mode::Off),
                ..Rule::default()
            },
            Rule { namespace: Some(pattern("{team,batch}-?")), ttl: Some(Span::from_secs(5)), ..Rule::default() },
            Rule {
                model: Some(pattern("meta-llama/*")),
                stale_while_revalidate: Some(Span::from_secs(9)),
                ..Rule::default()
            },
            Rule { provider: Some("openai".into()), ttl: Some(Span::from_secs(7)), ..Rule::default() },
        ];
        let policy = policy(Mode::All, rules);
        for (rule, about, mode, ttl, window) in [
            ("all that it names", about("openai", Some("gpt-5-mini"), None), Mode::Off, 60, 0),
            ("the first", about("openai", Some("gpt-5"), Some("team-a")), Mode::Off, 60, 0),
            ("another provider", about("azure", Some("gpt-5"), None), Mode::All, 60, 0),
            ("another model", about("openai", Some("gpt-4o"), None), Mode::All, 7, 0),
            ("names have case", about("openai", Some("GPT-5"), None), Mode::All, 7, 0),
            ("no model", about("openai", None, None), Mode::All, 7, 0),
            ("a namespace", about("openai", None, Some("team-a")), Mode::All, 5, 0),
            ("all of its name", about("azure", None, Some("team-ab")), Mode::All, 60, 0),
            ("a slash is a character", about("together", Some("meta-llama/Llama-3/8b"), None), Mode::All, 60, 9),
        ] {
            let ruling = policy.ruling(&about);
            assert_eq!(
                (ruling.mode, ruling.lifetime.as_secs(), ruling.window.as_secs()),
                (mode, ttl, window),
                "{rule}: {about:?}"
            );
        }
    }

    #[test]
    fn a_response_is_kept_for_its_lifetime_its_window_and_those_that_accept_a_stale_one() {
        let secs = Duration::from_secs;
        assert_eq!(keep_for(secs(60), secs(0)), secs(120));
        assert_eq!(keep_for(secs(60), secs(300)), secs(420));
        assert_eq!(keep_for(Duration::MAX, secs(1)), Duration::MAX);
        let day = Rule { ttl: Some(Span::from_secs(24 * 3600)), ..Rule::default() };
        assert_eq!(policy(Mode::All, vec![day]).longest_kept(), secs(2 * 24 * 3600));
    }
}
