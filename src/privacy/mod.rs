//! Privacy: what weir keeps of what it sees, and of whom. Prepares what leaves a call: names, paths and errors without
//! keys and personal data, users under the name the operator wants, and what was said only where that is asked for.
//!
//! Knows records; no wire format, and not where they go.

pub mod users;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::privacy::users::{KeyError, UserIds, Users};
use crate::record::Record;
use crate::record::content::Capture;
use crate::record::trace::Trace;
use crate::redact::{Pattern, Redactor};
use crate::units::ByteSize;

/// What the operator writes of privacy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is kept of requests and answers, in the ledger: `none`, `redacted` or `full`. The most that is kept of any
    /// call: `providers.<name>.capture` and `namespaces` can only make it less.
    pub capture: Capture,
    /// The same for calls in these cache namespaces, as `name: none`.
    pub namespaces: BTreeMap<String, Capture>,
    /// The most that is kept of a request, and of an answer; what is longer is cut, and marked.
    pub max_body_bytes: ByteSize,
    /// How end users are kept in the ledger and told in metrics: `plain`, as the app calls them; `hashed`, by a keyed
    /// hash; or `off`. Limits, budgets and the cache tell them apart in any case.
    pub user_ids: UserIds,
    /// A file that holds the key of `user_ids: hashed`: what `openssl rand -hex 32` prints. With another key, the same user
    /// is somebody else.
    pub user_id_key_file: Option<PathBuf>,
    /// What is redacted beside what weir knows. A list; each has a `name` and a `regex` (docs/privacy.md).
    pub patterns: Vec<Pattern>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capture: Capture::None,
            namespaces: BTreeMap::new(),
            max_body_bytes: ByteSize::kib(64),
            user_ids: UserIds::Plain,
            user_id_key_file: None,
            patterns: Vec::new(),
        }
    }
}

/// The longest name from outside that a record keeps, in bytes. No sink shows more.
const MAX_NAME_BYTES: usize = 256;
/// The longest description of an error that a record keeps, in bytes.
const MAX_DETAIL_BYTES: usize = 2048;

/// What a path cannot have as it is.
const NOT_IN_PATHS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// What the operator wants private.
#[derive(Debug)]
pub struct Privacy {
    redactor: Arc<Redactor>,
    users: Users,
    capture: Capture,
    namespaces: BTreeMap<String, Capture>,
    max_body_bytes: usize,
}

impl Privacy {
    /// As `settings` say; `redactor` knows their patterns.
    ///
    /// # Errors
    /// If the key of users cannot be used.
    pub fn new(settings: &Settings, redactor: Arc<Redactor>) -> Result<Self, KeyError> {
        Ok(Self {
            redactor,
            users: Users::new(settings)?,
            capture: settings.capture,
            namespaces: settings.namespaces.clone(),
            max_body_bytes: settings.max_body_bytes.as_len(),
        })
    }

    /// What finds keys and personal data.
    #[must_use]
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// What is kept of a call by way of a provider for which the operator says `provider`, in this namespace: the most
    /// private of all that is said about it.
    #[must_use]
    pub fn capture(&self, provider: Option<Capture>, namespace: Option<&str>) -> Capture {
        let namespace = namespace.and_then(|namespace| self.namespaces.get(namespace)).copied();
        [provider, namespace].into_iter().flatten().fold(self.capture, Capture::min)
    }

    /// The most that is kept of a request or an answer, in bytes.
    #[must_use]
    pub const fn max_body_bytes(&self) -> usize {
        self.max_body_bytes
    }

    /// The name under which the user whom the app calls `user` is kept in the ledger and told in metrics; `None` if
    /// users are not kept.
    #[must_use]
    pub fn user(&self, user: &str) -> Option<Box<str>> {
        self.users.kept(&self.tidy_user(user))
    }

    /// Every name under which the ledger may hold `user`, whatever was configured when it was written: for whoever asks
    /// about somebody, or erases them. `user` is what the app calls them, or what the ledger does.
    #[must_use]
    pub fn names_of_user(&self, user: &str) -> Vec<Box<str>> {
        self.users.ever_kept(&self.tidy_user(user))
    }

    /// The name by which to ask the ledger about `user`, which is what the app calls them, or what the ledger does.
    #[must_use]
    pub fn name_in_ledger(&self, user: &str) -> Box<str> {
        if users::is_hash(user) {
            return user.into();
        }
        self.user(user).unwrap_or_else(|| user.into())
    }

    /// A name from outside, as it may be told.
    #[must_use]
    pub fn name<'t>(&self, name: &'t str) -> Cow<'t, str> {
        self.redactor.redact(beginning(name, MAX_NAME_BYTES))
    }

    /// A user may be called by an e-mail address, but not by a key.
    fn tidy_user<'t>(&self, user: &'t str) -> Cow<'t, str> {
        self.redactor.redact_secrets(beginning(user, MAX_NAME_BYTES))
    }

    /// Prepares a record for whoever reads it: from here on nobody can tell what it must not say. Takes the time of a
    /// look at a few short texts.
    pub fn tidy(&self, record: &mut Record) {
        let user = record.call.caller.user.take();
        record.call.caller.user = user.and_then(|user| self.user(&user));
        // Nearly always there is nothing in any of them.
        let is_clean = self.redactor.is_clean(names(record).map(|name| beginning(name, MAX_NAME_BYTES)));
        for name in names(record).filter(|name| !is_clean || name.len() > MAX_NAME_BYTES) {
            self.tidy_text(name, MAX_NAME_BYTES);
        }
        if let Some(detail) = &mut record.error_detail {
            self.tidy_text(detail, MAX_DETAIL_BYTES);
        }
        if let Some(trace) = record.trace.as_deref_mut().filter(|trace| trace.is_sampled) {
            self.tidy_trace(trace);
        }
    }

    fn tidy_trace(&self, trace: &mut Trace) {
        let told = &mut trace.told;
        for uri in [&mut told.uri, &mut told.target].into_iter().flatten() {
            self.tidy_uri(uri);
        }
        if let Some(route) = &mut told.route {
            self.tidy_text(route, MAX_NAME_BYTES);
        }
        if let Some(conversation) = &mut told.parameters.conversation {
            self.tidy_text(conversation, MAX_NAME_BYTES);
        }
    }

    fn tidy_text(&self, text: &mut Box<str>, most: usize) {
        let shown = beginning(text, most);
        match self.redactor.redact(shown) {
            Cow::Owned(without) => *text = without.into(),
            Cow::Borrowed(_) if shown.len() < text.len() => *text = shown.into(),
            Cow::Borrowed(_) => {}
        }
    }

    /// A query is dropped, which is where Google takes keys; nobody shows one.
    fn tidy_uri(&self, uri: &mut Uri) {
        let plain = percent_decode_str(beginning(uri.path(), MAX_NAME_BYTES)).decode_utf8_lossy();
        let path = match self.redactor.redact(&plain) {
            Cow::Borrowed(_) if uri.query().is_none() => return,
            Cow::Borrowed(_) => Cow::Borrowed(uri.path()),
            Cow::Owned(without) => Cow::Owned(utf8_percent_encode(&without, NOT_IN_PATHS).to_string()),
        };
        let path = path.parse().unwrap_or_else(|_| http::uri::PathAndQuery::from_static("/"));
        let mut parts = std::mem::take(uri).into_parts();
        parts.path_and_query = Some(path);
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Every name in a record that comes from outside, but for the user's.
fn names(record: &mut Record) -> impl Iterator<Item = &mut Box<str>> {
    let Record { call, reply, head, downgrade, .. } = record;
    let caller = &mut call.caller;
    let names = [
        &mut call.model,
        &mut caller.namespace,
        &mut caller.workspace,
        &mut caller.agent,
        &mut caller.loop_type,
        &mut caller.run,
        &mut caller.client,
        &mut reply.model,
        &mut reply.id,
        &mut reply.service_tier,
        &mut reply.speed,
        &mut reply.inference_geo,
        &mut head.request_id,
    ];
    let names = names.into_iter().flatten().chain(&mut reply.finish_reasons).chain(&mut reply.tools);
    names.chain(downgrade.as_mut().map(|downgrade| &mut downgrade.from))
}

fn beginning(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
pub(crate) mod tests;
