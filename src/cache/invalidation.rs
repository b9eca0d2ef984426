//! Invalidation: rules by which stored responses die before their time.
//!
//! A rule holds for all that was asked before it was made, wherever the answer is kept and whenever it comes: every
//! request notes how many rules there were when it was asked, and its answer is dead once a later rule names it. So a
//! rule is there for every look-up at once, however long it takes to give the dead up. Knows what an entry is about,
//! its key and its age; not where entries are kept, and not the clock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cache::About;
use crate::cache::key::Key;
use crate::pattern::Pattern;
use crate::units::Span;

/// Most rules kept, each of which an old entry may have to be held against. Of more, the oldest become one rule by
/// which everything dies: a few misses too many, and never a dead answer.
const MAX_RULES: usize = 128;
/// The longest text of a criterion, in bytes: far more than a name is long.
pub const MAX_TEXT: usize = 1024;
/// Stands in a name for what there is none of.
const NOTHING: &str = "-";

/// Which entries die: those for which every criterion given holds. Without any, all do.
///
/// As text it goes from one weir to another. One who does not know a criterion yet leaves it out, and so lets more die,
/// never less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The provider's configured name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Box<str>>,
    /// The model asked for, as the app spelt it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Box<str>>,
    /// The caller's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Box<str>>,
    /// The age, when the rule was made, up to which entries live on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Span>,
    /// What the entry's [name](Entry::name) begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Box<str>>,
    /// What the entry's [name](Entry::name) looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// The entry's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

impl Filter {
    /// Whether every entry dies.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The narrowest criterion given, which says what kind of rule this is.
    #[must_use]
    pub const fn strategy(&self) -> Strategy {
        match self {
            Self { key: Some(_), .. } => Strategy::Key,
            Self { pattern: Some(_), .. } => Strategy::Pattern,
            Self { prefix: Some(_), .. } => Strategy::Prefix,
            Self { namespace: Some(_), .. } => Strategy::Namespace,
            Self { model: Some(_), .. } => Strategy::Model,
            Self { provider: Some(_), .. } => Strategy::Provider,
            Self { older_than: Some(_), .. } => Strategy::Age,
            _ => Strategy::All,
        }
    }

    /// Whether a rule that was made at `made` names this entry.
    fn names(&self, entry: &Entry<'_>, made: Instant) -> bool {
        let About { provider, model, namespace } = entry.about;
        let is_named = |wanted: &Option<Box<str>>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
        let age = made.saturating_duration_since(entry.since);
        is_named(&self.provider, Some(provider))
            && is_named(&self.model, model.as_deref())
            && is_named(&self.namespace, namespace.as_deref())
            && self.older_than.is_none_or(|limit| age > limit.get())
            && self.key.is_none_or(|key| key == *entry.key)
            && self.prefix.as_deref().is_none_or(|prefix| entry.name().starts_with(prefix))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&entry.name()))
    }
}

/// What kind of rule one is: the label `strategy` of `weir_cache_invalidations_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// By provider.
    Provider,
    /// By model.
    Model,
    /// By age.
    Age,
    /// By how the name begins.
    Prefix,
    /// By namespace.
    Namespace,
    /// By what the name looks like.
    Pattern,
    /// By key.
    Key,
    /// Everything.
    All,
}

impl Strategy {
    /// Every strategy, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Provider, Self::Model, Self::Age, Self::Prefix, Self::Namespace, Self::Pattern, Self::Key, Self::All];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Age => "age",
            Self::Prefix => "prefix",
            Self::Namespace => "namespace",
            Self::Pattern => "pattern",
            Self::Key => "key",
            Self::All => "all",
        }
    }
}

/// A rule, as one weir tells it to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which entries die.
    pub filter: Filter,
    /// When it was made.
    pub made_at: SystemTime,
}

impl Rule {
    /// When it was made, on this weir's own clock, whose `now` is the time of day `today`. A rule from the future is
    /// made now.
    #[must_use]
    pub fn made(&self, now: Instant, today: SystemTime) -> Instant {
        let ago = today.duration_since(self.made_at).unwrap_or_default();
        now.checked_sub(ago).unwrap_or(now)
    }
}

/// How many rules there were when something was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked(u64);

impl Asked {
    /// Before the newest of these rules.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// What a rule may go by.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The entry's key.
    pub key: &'a Key,
    /// What it is about.
    pub about: &'a About,
    /// When it was asked for.
    pub asked: Asked,
    /// Since when it is stored.
    pub since: Instant,
}

impl Entry<'_> {
    /// Its name: `<provider>/<model>/<namespace>/<key>`, the key in 64 hexadecimal digits, and `-` for no model or no
    /// namespace.
    #[must_use]
    pub fn name(&self) -> String {
        let About { provider, model, namespace } = self.about;
        let (model, namespace) = (model.as_deref().unwrap_or(NOTHING), namespace.as_deref().unwrap_or(NOTHING));
        format!("{provider}/{model}/{namespace}/{}", self.key)
    }
}

/// The rules made so far.
#[derive(Debug)]
pub struct Rules {
    /// The number of the newest rule. Written under the lock of `kept`, read without.
    newest: AtomicU64,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// No entry is kept for longer.
    entries_live: Duration,
    /// What was asked before this many rules were made is dead, whatever it is about.
    everything_before: u64,
    /// The rules after those, oldest first.
    rules: VecDeque<Numbered>,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    filter: Filter,
    /// What ages are reckoned from.
    made: Instant,
    /// Since when it holds here.
    heard: Instant,
}

impl Rules {
    /// No rules. No entry is kept for longer than `entries_live`: rules older than that are let go.
    #[must_use]
    pub fn new(entries_live: Duration) -> Self {
        Self { newest: AtomicU64::new(0), kept: RwLock::new(Kept { entries_live, ..Kept::default() }) }
    }

    /// From now on entries may be kept for so long. Those that were to be kept for longer still are.
    pub(super) fn entries_live(&self, longest: Duration) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.entries_live = kept.entries_live.max(longest);
    }

    /// To be noted by whoever asks now.
    #[must_use]
    pub fn asked(&self) -> Asked {
        Asked(self.newest.load(Ordering::Acquire))
    }

    /// From now on, what was asked before and `filter` names is dead. `made` is when the rule was made: now, or earlier
    /// where it comes from elsewhere. Tells what is noted by whoever asks from then on.
    pub fn make(&self, filter: Filter, made: Instant, now: Instant) -> Asked {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let number = self.newest.load(Ordering::Relaxed) + 1;
        kept.let_go(now);
        if filter.is_everything() {
            kept.rules.clear();
            kept.everything_before = number;
        } else {
            kept.rules.push_back(Numbered { number, filter, made, heard: now });
        }
        // Still under the lock: whoever sees the number finds the rule.
        self.newest.store(number, Ordering::Release);
        Asked(number)
    }

    /// Whether a rule made since `entry` was asked for names it. Without rules, this loads one number.
    #[must_use]
    pub fn is_dead(&self, entry: &Entry<'_>) -> bool {
        entry.asked < self.asked() && self.kept.read().unwrap_or_else(PoisonError::into_inner).is_dead(entry)
    }
}

impl Kept {
    fn is_dead(&self, entry: &Entry<'_>) -> bool {
        let Asked(asked) = entry.asked;
        let later = self.rules.iter().rev().take_while(|rule| rule.number > asked);
        asked < self.everything_before || later.into_iter().any(|rule| rule.filter.names(entry, rule.made))
    }

    /// Lets go of the oldest rules: those that all entries asked before have outlived, and any that are too many. An
    /// answer that is on its way for so long is dead when it comes.
    fn let_go(&mut self, now: Instant) {
        let entries_live = self.entries_live;
        let is_outlived = |rule: &Numbered| now.saturating_duration_since(rule.heard) > entries_live;
        while self.rules.len() >= MAX_RULES || self.rules.front().is_some_and(is_outlived) {
            let Some(rule) = self.rules.pop_front() else { return };
            self.everything_before = rule.number;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const LIVE: Duration = Duration::from_secs(7200);

    fn key(digit: &str) -> Key {
        digit.repeat(64).parse().expect("64 digits")
    }

    fn about(provider: &str, model: Option<&str>, namespace: Option<&str>) -> About {
        About { provider: provider.into(), model: model.map(Into::into), namespace: namespace.map(Into::into) }
    }

    fn filter(json: &str) -> Filter {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    /// Whether an entry of this age, asked for before the rule, dies by it.
    fn dies(filter: Filter, about: &About, key: &Key, age: Duration) -> bool {
        let since = Instant::now();
        let now = since + age;
        let rules = Rules::new(LIVE);
        let entry = Entry { key, about, asked: rules.asked(), since };
        rules.make(filter, now, now);
        rules.is_dead(&entry)
    }

    #[test]
    fn every_criterion_given_must_hold() {
        let about = about("openai", Some("meta/llama-3"), Some("team"));
        let age = Duration::from_secs(600);
        for (rule, json, expected) in [
            ("no criterion is everything", "{}", true),
            ("the provider is exact", r#"{"provider":"openai"}"#, true),
            ("the provider is all of it", r#"{"provider":"open"}"#, false),
            ("the model is exact", r#"{"model":"meta/llama-3"}"#, true),
            ("another model", r#"{"model":"meta/llama-3.1"}"#, false),
            ("the namespace is exact", r#"{"namespace":"team"}"#, true),
            ("another namespace", r#"{"namespace":"teams"}"#, false),
            ("none is not a namespace's name", r#"{"namespace":"-"}"#, false),
            ("older than", r#"{"older_than":"9m"}"#, true),
            ("exactly as old is not older", r#"{"older_than":"10m"}"#, false),
            ("younger", r#"{"older_than":"11m"}"#, false),
            ("the name begins so", r#"{"prefix":"openai/meta/"}"#, true),
            ("the name begins otherwise", r#"{"prefix":"meta/"}"#, false),
            ("a star takes slashes too", r#"{"pattern":"openai/*/team/*"}"#, true),
            ("a pattern is all of the name", r#"{"pattern":"openai/meta"}"#, false),
            ("one character", r#"{"pattern":"openai/meta/llama-?/*"}"#, true),
            ("a choice", r#"{"pattern":"{openai,azure}/meta/llama-[0-9]/*"}"#, true),
            ("a star that is meant", r#"{"pattern":"openai/\\*"}"#, false),
            ("two that hold", r#"{"provider":"openai","older_than":"1m"}"#, true),
            ("the first does not hold", r#"{"provider":"azure","older_than":"1m"}"#, false),
            ("the second does not hold", r#"{"provider":"openai","older_than":"1h"}"#, false),
            (
                "all that there are",
                r#"{"provider":"openai","model":"meta/llama-3","namespace":"team","older_than":"1m","prefix":"o","pattern":"*","key":"KEY"}"#,
                true,
            ),
            ("by key", r#"{"key":"KEY"}"#, true),
            ("another key", r#"{"key":"OTHER"}"#, false),
        ] {
            let json = json.replace("KEY", &"a".repeat(64)).replace("OTHER", &"b".repeat(64));
            assert_eq!(dies(filter(&json), &about, &key("a"), age), expected, "{rule}: {json}");
        }
    }

    #[test]
    fn what_there_is_none_of_is_a_dash_in_the_name_only() {
        let about = about("ollama", None, None);
        for (json, expected) in [
            (r#"{"prefix":"ollama/-/-/aaaa"}"#, true),
            (r#"{"pattern":"*/-/-/*"}"#, true),
            (r#"{"model":"-"}"#, false),
            (r#"{"namespace":""}"#, false),
        ] {
            assert_eq!(dies(filter(json), &about, &key("a"), Duration::ZERO), expected, "{json}");
        }
    }

    #[test]
    fn a_rule_holds_for_what_was_asked_before_it_and_nothing_else() {
        let rules = Rules::new(LIVE);
        let (now, key, openai, azure) =
            (Instant::now(), key("0"), about("openai", None, None), about("azure", None, None));
        let dead = |about, asked| rules.is_dead(&Entry { key: &key, about, asked, since: now });
        let first = rules.asked();
        assert!(!dead(&openai, first), "no rule yet");
        rules.make(filter(r#"{"provider":"openai"}"#), now, now);
        let second = rules.asked();
        assert!(dead(&openai, first), "asked before, whenever its answer comes");
        assert!(!dead(&azure, first), "not named");
        assert!(!dead(&openai, second), "asked after");
        rules.make(filter(r#"{"provider":"azure"}"#), now, now);
        assert!(dead(&openai, first) && dead(&azure, second), "both rules hold");
        assert!(!dead(&openai, second), "each for its own");
        rules.make(Filter::default(), now, now);
        assert!(dead(&openai, second) && dead(&azure, second), "everything");
        assert!(!dead(&openai, rules.asked()));
    }

    #[test]
    fn of_too_many_rules_the_oldest_become_one_for_everything() {
        let rules = Rules::new(LIVE);
        let (now, key, about) = (Instant::now(), key("0"), about("openai", None, None));
        let mut asked = Vec::new();
        for number in 0..=MAX_RULES {
            asked.push(rules.asked());
            let other = Filter { provider: Some(format!("other-{number}").into()), ..Filter::default() };
            rules.make(other, now, now);
        }
        let dead = asked.iter().filter(|&&asked| rules.is_dead(&Entry { key: &key, about: &about, asked, since: now }));
        assert_eq!(dead.count(), 1, "only what was asked before the oldest rule");
        assert_eq!(rules.kept.read().expect("no panic").rules.len(), MAX_RULES);
    }

    #[test]
    fn a_rule_is_let_go_once_every_entry_from_before_is_gone() {
        let rules = Rules::new(LIVE);
        let (start, key, about) = (Instant::now(), key("0"), about("openai", None, None));
        let early = rules.asked();
        rules.make(filter(r#"{"provider":"azure"}"#), start, start);
        let kept = || rules.kept.read().expect("no panic").rules.len();
        rules.make(filter(r#"{"provider":"groq"}"#), start, start + LIVE);
        assert_eq!(kept(), 2, "an entry may still be there");
        rules.make(filter(r#"{"provider":"groq"}"#), start, start + LIVE + Duration::from_secs(1));
        assert_eq!(kept(), 2, "the first is gone");
        assert!(
            rules.is_dead(&Entry { key: &key, about: &about, asked: early, since: start }),
            "nobody knows any more"
        );
    }

    #[test]
    fn whoever_sees_that_a_rule_was_made_finds_it() {
        let (now, key, about) = (Instant::now(), key("0"), about("openai", None, None));
        let rules = Rules::new(LIVE);
        for _ in 0..300 {
            let told = AtomicBool::new(false);
            let entry = Entry { key: &key, about: &about, asked: rules.asked(), since: now };
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !told.load(Ordering::Acquire) {
                            let _ = rules.is_dead(&entry);
                        }
                        assert!(rules.is_dead(&entry), "found alive after the rule was made");
                    });
                }
                rules.make(filter(r#"{"provider":"openai"}"#), now, now);
                told.store(true, Ordering::Release);
            });
        }
    }

    #[test]
    fn rules_travel_as_text() {
        let all = r#"{"provider":"openai","model":"m","namespace":"n","older_than":"1h","prefix":"o","pattern":"o*","key":"KEY"}"#;
        let all = all.replace("KEY", &"a".repeat(64));
        for json in ["{}", r#"{"older_than":"5m"}"#, &all] {
            assert_eq!(serde_json::to_string(&filter(json)).expect("plain data"), json);
        }
        let rule = Rule { filter: filter(&all), made_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567) };
        let text = serde_json::to_string(&rule).expect("plain data");
        assert_eq!(serde_json::from_str::<Rule>(&text).expect("a rule"), rule);
        assert!(filter(r#"{"flavour":"new"}"#).is_everything(), "what is not known leaves nothing alive");
        assert!(serde_json::from_str::<Filter>(r#"{"pattern":"[a"}"#).is_err());
        assert!(serde_json::from_str::<Filter>(r#"{"key":"a"}"#).is_err());
    }

    #[test]
    fn a_rule_from_elsewhere_is_as_old_as_it_is() {
        let (now, today) = (Instant::now() + LIVE, SystemTime::now());
        let made = |made_at| Rule { filter: Filter::default(), made_at }.made(now, today);
        assert_eq!(made(today - Duration::from_secs(60)), now - Duration::from_secs(60));
        assert_eq!(made(today + Duration::from_secs(60)), now, "a clock that is ahead");
    }

    #[test]
    fn the_narrowest_criterion_names_the_rule() {
        for (json, expected) in [
            ("{}", Strategy::All),
            (r#"{"older_than":"1h"}"#, Strategy::Age),
            (r#"{"older_than":"1h","provider":"p"}"#, Strategy::Provider),
            (r#"{"model":"m","provider":"p"}"#, Strategy::Model),
            (r#"{"model":"m","namespace":"n"}"#, Strategy::Namespace),
            (r#"{"prefix":"p","namespace":"n"}"#, Strategy::Prefix),
            (r#"{"prefix":"p","pattern":"n"}"#, Strategy::Pattern),
        ] {
            assert_eq!(filter(json).strategy(), expected, "{json}");
        }
    }
}
