//! Asker: who may ask about calls, and about which: what a token is bound to, and the workspace that a request names.
//!
//! Knows no question.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};

use crate::admin::access::{Denied, Peer, WORKSPACE, reader};
use crate::admin::problem::{Fault, Problem};
use crate::admin::tokens::Bounds;
use crate::admin::{Admin, audit};
use crate::privacy::Privacy;

/// Longest name of a workspace, in bytes: as much as the ledger keeps of one.
const MAX_WORKSPACE: usize = 256;

/// Somebody who may ask about calls: the same, and whoever has a token that is bound to some of them.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    /// Whose calls they see.
    pub(super) bounds: Bounds,
    /// The name of the token they showed; none, if they are on this machine and showed none.
    pub(super) token: Option<Arc<str>>,
    /// Under which names users are kept.
    pub(super) privacy: Arc<Privacy>,
}

impl Asker {
    /// What they are called where it is noted what they took.
    pub(super) fn shown(&self) -> &str {
        self.token.as_deref().unwrap_or("this machine")
    }
}

impl FromRequestParts<Admin> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, admin).await;
        let bearer =
            reader(&admin.access, peer, &parts.headers).map_err(|denied: Denied| denied.problem(&admin.metrics))?;
        let bounds = bearer.map(|bearer| bearer.bounds.clone()).unwrap_or_default();
        let named = workspace(&parts.headers)?;
        let asker = Self {
            bounds: bounded(bounds, named, admin.access.require_workspace)?,
            token: bearer.map(|bearer| Arc::clone(&bearer.name)),
            privacy: Arc::clone(&admin.privacy),
        };
        audit::asked(peer, parts.uri.path(), asker.token.as_deref());
        Ok(asker)
    }
}

/// The workspace that a request is about, if it says so.
fn workspace(headers: &HeaderMap) -> Result<Option<Box<str>>, Problem> {
    let mut fields = headers.get_all(WORKSPACE).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let is_name = |name: &&str| !name.is_empty() && name.len() <= MAX_WORKSPACE;
    match std::str::from_utf8(field.as_bytes()).ok().filter(is_name) {
        Some(name) if fields.next().is_none() => Ok(Some(name.into())),
        _ => {
            let detail = format!("names no workspace: write one name of 1 to {MAX_WORKSPACE} bytes");
            Err(Problem::of_parameters(vec![Fault::of_header("X-Workspace-ID", detail)]))
        }
    }
}

/// Those within `bounds` that are in the workspace `named`.
fn bounded(bounds: Bounds, named: Option<Box<str>>, require_workspace: bool) -> Result<Bounds, Problem> {
    match (&bounds.workspace, named) {
        (Some(own), Some(named)) if *own != named => Err(elsewhere("the workspace that `X-Workspace-ID` names")),
        (None, None) if require_workspace => {
            let detail = "is missing, and `admin.require_workspace` wants it: name the workspace that is asked about";
            Err(Problem::of_parameters(vec![Fault::of_header("X-Workspace-ID", detail)]))
        }
        (None, Some(named)) => Ok(Bounds { workspace: Some(named), ..bounds }),
        _ => Ok(bounds),
    }
}

/// That somebody may not see `what`.
pub(super) fn elsewhere(what: &str) -> Problem {
    let detail = format!("{what} is not for this caller: the token or `X-Workspace-ID` is bound to another");
    Problem::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(field).collect()
    }

    #[test]
    fn a_workspace_narrows_what_is_seen_and_never_widens_it() {
        let of = |workspace: Option<&str>, user: Option<&str>| Bounds {
            workspace: workspace.map(Into::into),
            user: user.map(Into::into),
        };
        for (token, named, required, expected) in [
            (of(None, None), None, false, Ok(of(None, None))),
            (of(None, None), Some("a"), false, Ok(of(Some("a"), None))),
            (of(None, Some("ann")), Some("a"), false, Ok(of(Some("a"), Some("ann")))),
            (of(Some("a"), None), None, false, Ok(of(Some("a"), None))),
            (of(Some("a"), None), Some("a"), true, Ok(of(Some("a"), None))),
            (of(Some("a"), None), None, true, Ok(of(Some("a"), None))),
            (of(Some("a"), None), Some("b"), false, Err(403)),
            (of(None, None), None, true, Err(400)),
        ] {
            let found = bounded(token.clone(), named.map(Into::into), required);
            let found = found.map_err(|problem| problem.status().as_u16());
            assert_eq!(found, expected, "{token:?} and {named:?}");
        }
        assert_eq!(workspace(&headers(&[])).expect("none"), None);
        assert_eq!(workspace(&headers(&[(WORKSPACE, "a b")])).expect("one").as_deref(), Some("a b"));
        assert!(workspace(&headers(&[(WORKSPACE, "")])).is_err());
        let mut two = headers(&[(WORKSPACE, "a")]);
        two.append(WORKSPACE, HeaderValue::from_static("b"));
        assert!(workspace(&two).is_err(), "one of them would win by chance");
    }
}
