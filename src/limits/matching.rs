//! Matching: which calls a rule is for, and whom it holds apart. Knows what a call says of itself; nothing of limits.

use std::fmt::{self, Write};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::pattern::Pattern;
use crate::record::call::Caller;

/// Which calls a rule is for: those that are all it names; all of them if it names nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Matching {
    /// Calls to the provider of this name.
    pub provider: Option<String>,
    /// Calls for a model whose name, as the app spells it, matches this pattern, such as `gpt-5*`.
    pub model: Option<Pattern>,
    /// Calls in a namespace that matches this pattern.
    pub namespace: Option<Pattern>,
    /// Calls in a workspace that matches this pattern.
    pub workspace: Option<Pattern>,
    /// Calls of a user whose name matches this pattern.
    pub user: Option<Pattern>,
    /// Calls of an agent whose name matches this pattern.
    pub agent: Option<Pattern>,
    /// Calls with a credential whose fingerprint matches this pattern: the first 16 hexadecimal digits of the SHA-256 of
    /// what the app sends, as `GET /api/v1/limits` shows it.
    pub credential: Option<Pattern>,
}

impl Matching {
    /// Whether this names something that only a credential's fingerprint can answer.
    pub(super) const fn needs_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// Whether a call of this one is such a call.
    pub(super) fn is_for(&self, asker: &Asker<'_>) -> bool {
        let matches = |pattern: Option<&Pattern>, part: Part| {
            pattern.is_none_or(|pattern| asker.part(part).is_some_and(|text| pattern.matches(text)))
        };
        self.provider.as_deref().is_none_or(|provider| provider == asker.provider)
            && matches(self.model.as_ref(), Part::Model)
            && matches(self.namespace.as_ref(), Part::Namespace)
            && matches(self.workspace.as_ref(), Part::Workspace)
            && matches(self.user.as_ref(), Part::User)
            && matches(self.agent.as_ref(), Part::Agent)
            && matches(self.credential.as_ref(), Part::Credential)
    }
}

/// What it names: `provider openai, model gpt-5*`. Nothing, if it is for all calls.
impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self.provider.as_ref().map(|provider| format!("provider {provider}"));
        let patterns = [
            (Part::Model, &self.model),
            (Part::Namespace, &self.namespace),
            (Part::Workspace, &self.workspace),
            (Part::User, &self.user),
            (Part::Agent, &self.agent),
            (Part::Credential, &self.credential),
        ];
        let patterns = patterns.into_iter().filter_map(|(part, pattern)| Some((part.as_str(), pattern.as_ref()?)));
        let named: Vec<String> =
            provider.into_iter().chain(patterns.map(|(part, pattern)| format!("{part} {pattern}"))).collect();
        f.write_str(&named.join(", "))
    }
}

/// Who makes a call, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The provider's configured name.
    pub provider: &'a str,
    /// The model asked for, as the app spells it.
    pub model: Option<&'a str>,
    /// Who asks, by the app's headers.
    pub caller: &'a Caller,
    /// The fingerprint of the app's credential. `None` if it sends none, or if no rule asks for it.
    pub credential: Option<&'a str>,
}

impl<'a> Asker<'a> {
    fn part(&self, part: Part) -> Option<&'a str> {
        match part {
            Part::Provider => Some(self.provider),
            Part::Model => self.model,
            Part::Namespace => self.caller.namespace.as_deref(),
            Part::Workspace => self.caller.workspace.as_deref(),
            Part::User => self.caller.user.as_deref(),
            Part::Agent => self.caller.agent.as_deref(),
            Part::Credential => self.credential,
        }
    }
}

/// What calls can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The provider's configured name.
    Provider,
    /// The model, as the app spells it.
    Model,
    /// The namespace.
    Namespace,
    /// The workspace.
    Workspace,
    /// The user.
    User,
    /// The agent.
    Agent,
    /// The credential, by its fingerprint.
    Credential,
}

impl Part {
    /// Every part, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Provider, Self::Model, Self::Namespace, Self::Workspace, Self::User, Self::Agent, Self::Credential];

    /// The word for it in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Namespace => "namespace",
            Self::Workspace => "workspace",
            Self::User => "user",
            Self::Agent => "agent",
            Self::Credential => "credential",
        }
    }
}

/// Whom a rule holds apart: each has the whole limit. Without a part, all share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Per(Box<[Part]>);

/// The longest value of a part in a subject, in bytes. Of a longer one, its beginning and a hash stand there.
const MAX_VALUE: usize = 64;

impl Per {
    /// Whether it takes a credential to tell the subjects apart.
    pub(super) fn needs_credential(&self) -> bool {
        self.0.contains(&Part::Credential)
    }

    /// Whether all calls share one limit.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes down whose limit a call of `asker` counts against: `agent=planner,user=u1`. Different subjects never read
    /// the same; calls that lack a part are one subject.
    fn write_subject(&self, asker: &Asker<'_>, subject: &mut String) {
        subject.clear();
        for part in &self.0 {
            if !subject.is_empty() {
                subject.push(',');
            }
            subject.push_str(part.as_str());
            subject.push('=');
            write_value(asker.part(*part).unwrap_or_default(), subject);
        }
    }
}

/// Whose limits a call counts against. Rules that hold apart the same, one after the other, have it written once.
#[derive(Debug)]
pub(super) struct Subjects<'a> {
    asker: &'a Asker<'a>,
    by: Option<&'a Per>,
    subject: String,
}

impl<'a> Subjects<'a> {
    /// Those of a call of `asker`.
    pub(super) fn of(asker: &'a Asker<'a>) -> Self {
        Self { asker, by: None, subject: String::new() }
    }

    /// The one by what `per` holds apart.
    pub(super) fn by(&mut self, per: &'a Per) -> &str {
        if self.by != Some(per) {
            per.write_subject(self.asker, &mut self.subject);
            self.by = Some(per);
        }
        &self.subject
    }
}

/// A value with what separates values escaped, cut to a length that suits a key.
fn write_value(value: &str, subject: &mut String) {
    let end = value.floor_char_boundary(MAX_VALUE);
    let separates = |byte: u8| matches!(byte, b',' | b'=' | b'\\' | b'#');
    if value[..end].bytes().any(separates) {
        for character in value[..end].chars() {
            if u8::try_from(character).is_ok_and(separates) {
                subject.push('\\');
            }
            subject.push(character);
        }
    } else {
        subject.push_str(&value[..end]);
    }
    if end < value.len() {
        // What was cut is told apart by its hash; an escaped `#` cannot be taken for this one.
        let digest = <sha2::Sha256 as sha2::Digest>::digest(value);
        subject.push('#');
        for byte in &digest[..8] {
            let _ = write!(subject, "{byte:02x}");
        }
    }
}

impl FromStr for Per {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let part = Part::ALL.into_iter().find(|part| part.as_str() == word).ok_or_else(|| {
                let known = Part::ALL.map(Part::as_str).join(", ");
                format!("`{word}` is nothing that calls are told apart by: write one or more of {known}")
            })?;
            if parts.contains(&part) {
                return Err(format!("`{word}` is named twice: remove one of them"));
            }
            parts.push(part);
        }
        Ok(Self(parts.into()))
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|part| part.as_str()).collect();
        f.write_str(&words.join(", "))
    }
}

impl Serialize for Per {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Per {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Per {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Per".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "what calls are told apart by, such as agent, or agent, user" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per(text: &str) -> Per {
        text.parse().expect("parts")
    }

    fn caller(agent: Option<&str>, user: Option<&str>) -> Caller {
        Caller { agent: agent.map(Into::into), user: user.map(Into::into), ..Caller::default() }
    }

    fn asker(caller: &Caller) -> Asker<'_> {
        Asker { provider: "openai", model: Some("gpt-5-mini"), caller, credential: None }
    }

    fn subject(per: &Per, caller: &Caller) -> String {
        let mut subject = String::new();
        per.write_subject(&asker(caller), &mut subject);
        subject
    }

    #[test]
    fn different_subjects_never_read_the_same() {
        let per = per("agent, user");
        let long = "x".repeat(80);
        let longer = "x".repeat(81);
        let callers = [
            caller(None, None),
            caller(Some("a"), None),
            caller(None, Some("a")),
            caller(Some("a,user=b"), None),
            caller(Some("a"), Some("b")),
            caller(Some("a\\"), Some("b")),
            caller(Some("a\\,user=b"), None),
            caller(Some(&long), None),
            caller(Some(&longer), None),
            caller(Some(&long[..64]), None),
            caller(Some(&subject(&per, &caller(Some(&long), None))["agent=".len()..]), None),
        ];
        let subjects: std::collections::BTreeSet<String> = callers.iter().map(|caller| subject(&per, caller)).collect();
        assert_eq!(subjects.len(), callers.len(), "{subjects:#?}");
        assert!(subjects.iter().all(|subject| subject.len() < 200), "a subject is bounded: {subjects:#?}");
    }

    #[test]
    fn a_rule_is_for_calls_that_are_all_it_names() {
        let planner = caller(Some("planner"), Some("u1"));
        let nobody = caller(None, None);
        let pattern = |text: &str| text.parse().ok();
        for (rule, is_for_planner, is_for_nobody) in [
            (Matching::default(), true, true),
            (Matching { provider: Some("openai".into()), ..Matching::default() }, true, true),
            (Matching { provider: Some("anthropic".into()), ..Matching::default() }, false, false),
            (Matching { model: pattern("gpt-5*"), ..Matching::default() }, true, true),
            (Matching { agent: pattern("plan*"), user: pattern("u?"), ..Matching::default() }, true, false),
            (Matching { agent: pattern("plan*"), user: pattern("v?"), ..Matching::default() }, false, false),
            (Matching { namespace: pattern("*"), ..Matching::default() }, false, false),
            (Matching { credential: pattern("*"), ..Matching::default() }, false, false),
        ] {
            assert_eq!(rule.is_for(&asker(&planner)), is_for_planner, "{rule:?}");
            assert_eq!(rule.is_for(&asker(&nobody)), is_for_nobody, "{rule:?}");
        }
    }

    #[test]
    fn a_rule_says_which_calls_it_is_for() {
        let named = Matching { provider: Some("openai".into()), agent: "plan*".parse().ok(), ..Matching::default() };
        assert_eq!(named.to_string(), "provider openai, agent plan*");
        assert_eq!(Matching::default().to_string(), "");
    }

    #[test]
    fn what_calls_are_told_apart_by_is_read_or_named() {
        assert_eq!(per("agent,user").to_string(), "agent, user");
        assert!(per("").is_everybody());
        for (text, fault) in [("agents", "`agents` is nothing that calls"), ("user, user", "`user` is named twice")] {
            let error = text.parse::<Per>().expect_err("a mistake");
            assert!(error.starts_with(fault), "{error}");
        }
    }
}
