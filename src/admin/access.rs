//! Access: who may read and who may change what on the operator's side.
//!
//! Changes need a token, always. What is below `/api/v1/` may be read from the same machine without one, unless the
//! operator says otherwise. A handler says what it needs by what it takes: a `Reader`, an `Operator` or a `Neighbour`, or the
//! `Asker` who may see a part. Knows no resource.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::admin::attempts::Attempts;
use crate::admin::problem::Problem;
use crate::admin::tokens::{Bearer, Role, Tokens};
use crate::admin::{Admin, audit};
use crate::sinks::denials::Denial;
use crate::sinks::metrics::Metrics;

/// The header that names the workspace whose calls are asked for.
pub(super) const WORKSPACE: &str = "x-workspace-id";

/// Who may read and change, as the operator wants it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The tokens there are.
    pub tokens: Arc<Tokens>,
    /// Whether programs on this machine have to show one too.
    pub require_token: bool,
    /// Whether questions have to name a workspace.
    pub require_workspace: bool,
    /// Wrong tokens that were shown lately.
    pub attempts: Arc<Attempts>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Peer {
    fn is_this_machine(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl FromRequestParts<Admin> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Admin) -> Result<Self, Infallible> {
        Ok(*parts.extensions.get().expect("every connection says where it comes from"))
    }
}

/// Somebody who may read what is of the whole instance: anybody on this machine, others with a token that is not bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader;

impl FromRequestParts<Admin> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, admin).await;
        let denied = |denied: Denied| denied.problem(&admin.metrics);
        let bearer = reader(&admin.access, peer, &parts.headers).map_err(denied)?;
        if bearer.is_some_and(|bearer| !bearer.bounds.are_none()) || parts.headers.contains_key(WORKSPACE) {
            let detail = "this is of the whole instance, and not of one workspace or user: ask with a token that is not \
                          bound to any, and without `X-Workspace-ID`";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        Ok(Self)
    }
}

/// Somebody who may change things: whoever has a token for that.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    /// Where they are.
    pub(super) peer: Peer,
    /// The name of their token.
    pub(super) token: Arc<str>,
}

impl FromRequestParts<Admin> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, admin).await;
        match operator(&admin.access, peer, &parts.headers) {
            Ok(bearer) => Ok(Self { peer, token: Arc::clone(&bearer.name) }),
            Err(denied) => {
                // That somebody is shut out was told when it began: no line for each time they try again.
                if !matches!(denied, Denied::TooMany(_)) {
                    audit::denied(peer, parts.uri.path(), &denied);
                }
                Err(denied.problem(&admin.metrics))
            }
        }
    }
}

/// An app beside weir.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour;

impl FromRequestParts<Admin> for Neighbour {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, admin).await;
        if is_neighbour(peer, &parts.headers) {
            return Ok(Self);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this is for programs on the same machine or in the same pod: ask the weir beside the app, on 127.0.0.1 or \
             [::1]",
        ))
    }
}

/// Whether a request comes from a program on this machine. A browser here also runs what others have written, and says
/// so: pages send `Origin`, or a `Sec-Fetch-Site` other than `none`.
fn is_neighbour(peer: Peer, headers: &HeaderMap) -> bool {
    let by_a_page =
        headers.contains_key(ORIGIN) || headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() != b"none");
    peer.is_this_machine() && !by_a_page
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no token that could be shown.
    NoToken,
    /// None was shown.
    NotShown,
    /// What was shown is none.
    Wrong,
    /// Too many that are none were shown: this one is looked at after so long.
    TooMany(Duration),
    /// The token of this name is for reading.
    ReadsOnly(Arc<str>),
}

impl Denied {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::NoToken => "no token is configured",
            Self::NotShown => "no token was shown",
            Self::Wrong => "another token was shown",
            Self::TooMany(_) => "too many wrong tokens were shown",
            Self::ReadsOnly(_) => "a reader's token was shown",
        }
    }

    /// The name of the token that was shown, if it has one.
    pub(super) fn token(&self) -> Option<&str> {
        match self {
            Self::ReadsOnly(name) => Some(name),
            Self::NoToken | Self::NotShown | Self::Wrong | Self::TooMany(_) => None,
        }
    }

    /// RFC 6750, section 3: a request that shows no token is not told that its token is wrong.
    pub(super) fn problem(self, metrics: &Metrics) -> Problem {
        metrics.denied(match self {
            Self::NoToken => Denial::NoToken,
            Self::NotShown => Denial::NotShown,
            Self::Wrong => Denial::Wrong,
            Self::TooMany(_) => Denial::TooMany,
            Self::ReadsOnly(_) => Denial::ReadsOnly,
        });
        match self {
            Self::NoToken => Problem::new(
                StatusCode::FORBIDDEN,
                "this needs a token, and this weir has none for it: set `admin.token_file` to a file that holds one, and \
                 send it as `Authorization: Bearer <token>`",
            ),
            Self::NotShown => Problem::unauthorized(
                r#"Bearer realm="weir""#,
                "this needs a token, such as the one that `admin.token_file` holds: send it as `Authorization: Bearer \
                 <token>`",
            ),
            Self::Wrong => Problem::unauthorized(
                r#"Bearer realm="weir", error="invalid_token""#,
                "the token is not the one that `admin.token_file` holds, nor any other of `admin`: a changed file counts after \
                 two seconds",
            ),
            Self::TooMany(wait) => Problem::too_many(
                wait,
                "too many wrong tokens came from this address, and no other is looked at for a while: show the right one \
                 once the time in `Retry-After` is over, or none where none is needed",
            ),
            Self::ReadsOnly(name) => {
                let detail = format!("the token `{name}` is for reading: changes need one with the role `admin`");
                Problem::new(StatusCode::FORBIDDEN, detail)
            }
        }
    }
}

/// Who reads: the token they showed, or nobody in particular on this machine.
pub(super) fn reader<'a>(access: &'a Access, peer: Peer, headers: &HeaderMap) -> Result<Option<&'a Bearer>, Denied> {
    let needs_none = is_neighbour(peer, headers) && !access.require_token;
    // Where none is bound, all show the same: it is for the log alone, and nothing tells a right one from a wrong one.
    if needs_none && !access.tokens.are_any_bound() {
        return Ok(authenticated(&access.tokens, headers).ok());
    }
    // A bound one says which part they want, and what they see tells that it is one: so it could be guessed.
    match looked_at(access, peer, headers).map_err(|denied| noted(access, peer, denied)) {
        Err(Denied::NotShown | Denied::Wrong) if needs_none => Ok(None),
        shown => shown.map(Some),
    }
}

/// Who changes something.
fn operator<'a>(access: &'a Access, peer: Peer, headers: &HeaderMap) -> Result<&'a Bearer, Denied> {
    let bearer = looked_at(access, peer, headers).map_err(|denied| noted(access, peer, denied))?;
    match bearer.role {
        Role::Admin => Ok(bearer),
        Role::Reader if access.tokens.can_change() => Err(Denied::ReadsOnly(Arc::clone(&bearer.name))),
        Role::Reader => Err(Denied::NoToken),
    }
}

/// Whose token the request shows, if it may be looked at.
fn looked_at<'a>(access: &'a Access, Peer(peer): Peer, headers: &HeaderMap) -> Result<&'a Bearer, Denied> {
    match access.attempts.wait(peer.ip(), Instant::now()) {
        Some(wait) if headers.contains_key(AUTHORIZATION) && !access.tokens.are_none() => Err(Denied::TooMany(wait)),
        _ => authenticated(&access.tokens, headers),
    }
}

/// Notes a wrong token.
fn noted(access: &Access, peer: Peer, denied: Denied) -> Denied {
    if denied == Denied::Wrong && access.attempts.failed(peer.0.ip(), Instant::now()) {
        audit::shut_out(peer);
    }
    denied
}

/// Whose token the request shows.
fn authenticated<'a>(tokens: &'a Tokens, headers: &HeaderMap) -> Result<&'a Bearer, Denied> {
    if tokens.are_none() {
        return Err(Denied::NoToken);
    }
    let shown = headers.get(AUTHORIZATION).ok_or(Denied::NotShown)?;
    let (scheme, shown) = shown.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Denied::Wrong)?;
    let bearer = if scheme.eq_ignore_ascii_case("bearer") { tokens.shown_by(shown.trim()) } else { None };
    bearer.ok_or(Denied::Wrong)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;
    use crate::admin::tokens::{Bounds, Token};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(field).collect()
    }

    fn bearer(name: &str, token: &str, role: Role, bounds: Bounds) -> Bearer {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), token).expect("a written file");
        let token = Arc::new(Token::from_file(file.path()).expect("a token"));
        Bearer { name: name.into(), role, bounds, token }
    }

    /// An administrator's, a reader's, and one of a reader who sees one workspace.
    fn access(require_token: bool) -> Access {
        let bounds = Bounds { workspace: Some("a".into()), user: None };
        let bearers = vec![
            bearer("admin", "sesame", Role::Admin, Bounds::default()),
            bearer("reader", "look", Role::Reader, Bounds::default()),
            bearer("team-a", "mine", Role::Reader, bounds),
        ];
        Access { tokens: Arc::new(Tokens::of(bearers).expect("tokens")), require_token, ..Access::default() }
    }

    #[test]
    fn only_a_token_opens() {
        let access = access(false);
        for (shown, expected) in [
            (None, Err(Denied::NotShown)),
            (Some("Bearer sesame"), Ok("admin")),
            (Some("bearer  sesame"), Ok("admin")),
            (Some("Bearer look"), Ok("reader")),
            (Some("Bearer Sesame"), Err(Denied::Wrong)),
            (Some("Bearer sesam"), Err(Denied::Wrong)),
            (Some("Bearer sesame1"), Err(Denied::Wrong)),
            (Some("Bearer "), Err(Denied::Wrong)),
            (Some("Bearer"), Err(Denied::Wrong)),
            (Some("Basic sesame"), Err(Denied::Wrong)),
            (Some("sesame"), Err(Denied::Wrong)),
        ] {
            let fields = shown.map(|shown| headers(&[("authorization", shown)])).unwrap_or_default();
            let name = |bearer: &'_ Bearer| bearer.name.to_string();
            let found = authenticated(&access.tokens, &fields).map(name);
            assert_eq!(found, expected.map(str::to_owned), "{shown:?}");
            let none = authenticated(&Tokens::default(), &fields).map(name);
            assert_eq!(none, Err(Denied::NoToken), "{shown:?}");
        }
    }

    #[test]
    fn who_reads_and_who_changes() {
        let reads_only = |name: &str| Err(Denied::ReadsOnly(name.into()));
        for (peer, shown, require_token, reads, changes) in [
            ("127.0.0.1:1", None, false, Ok(None), Err(Denied::NotShown)),
            ("127.0.0.1:1", Some("Bearer of-the-provider"), false, Ok(None), Err(Denied::Wrong)),
            ("127.0.0.1:1", Some("Bearer mine"), false, Ok(Some("team-a")), reads_only("team-a")),
            ("127.0.0.1:1", Some("Bearer look"), false, Ok(Some("reader")), reads_only("reader")),
            ("127.0.0.1:1", None, true, Err(Denied::NotShown), Err(Denied::NotShown)),
            ("127.0.0.1:1", Some("Bearer wrong"), true, Err(Denied::Wrong), Err(Denied::Wrong)),
            ("127.0.0.1:1", Some("Bearer sesame"), true, Ok(Some("admin")), Ok("admin")),
            ("10.0.0.1:1", None, false, Err(Denied::NotShown), Err(Denied::NotShown)),
            ("10.0.0.1:1", Some("Bearer mine"), false, Ok(Some("team-a")), reads_only("team-a")),
            ("10.0.0.1:1", Some("Bearer sesame"), false, Ok(Some("admin")), Ok("admin")),
        ] {
            let access = access(require_token);
            let fields = shown.map(|shown| headers(&[("authorization", shown)])).unwrap_or_default();
            let at = Peer(peer.parse().expect("an address"));
            let found = reader(&access, at, &fields).map(|bearer| bearer.map(|bearer| &*bearer.name));
            assert_eq!(found, reads, "{peer} reads with {shown:?}");
            let found = operator(&access, at, &fields).map(|bearer| &*bearer.name);
            assert_eq!(found, changes, "{peer} changes with {shown:?}");
        }
        let readers = vec![bearer("reader", "look", Role::Reader, Bounds::default())];
        let access = Access { tokens: Arc::new(Tokens::of(readers).expect("tokens")), ..Access::default() };
        let at = Peer("10.0.0.1:1".parse().expect("an address"));
        let denied = operator(&access, at, &headers(&[("authorization", "Bearer look")])).map(|bearer| &bearer.name);
        assert_eq!(denied, Err(Denied::NoToken), "there is none for changes");
    }

    /// The name of the token that reads, as far as one was shown and looked at.
    fn reads<'a>(access: &'a Access, peer: &str, shown: Option<&'static str>) -> Result<Option<&'a str>, Denied> {
        let fields = shown.map(|shown| headers(&[("authorization", shown)])).unwrap_or_default();
        let at = Peer(peer.parse().expect("an address"));
        reader(access, at, &fields).map(|bearer| bearer.map(|bearer| &*bearer.name))
    }

    fn is_shut_out<T>(found: &Result<T, Denied>) -> bool {
        matches!(found, Err(Denied::TooMany(_)))
    }

    #[test]
    fn a_bound_token_is_not_guessed_on_this_machine_either() {
        let access = access(false);
        for _ in 0..10 {
            let found = reads(&access, "127.0.0.1:1", Some("Bearer of-the-provider"));
            assert_eq!(found, Ok(None), "who needs none reads, whatever is shown");
        }
        for peer in ["127.0.0.1:2", "127.0.0.2:1", "[::1]:1"] {
            for shown in ["Bearer mine", "Bearer sesame", "Bearer guess"] {
                assert!(
                    is_shut_out(&reads(&access, peer, Some(shown))),
                    "{peer}, {shown}: rather nothing than everything"
                );
            }
            assert_eq!(reads(&access, peer, None), Ok(None), "{peer}: who shows none reads on");
        }
        let at = Peer("127.0.0.1:1".parse().expect("an address"));
        assert!(is_shut_out(&operator(&access, at, &headers(&[("authorization", "Bearer sesame")]))));
        assert_eq!(reads(&access, "10.0.0.1:1", Some("Bearer mine")), Ok(Some("team-a")), "somebody else");
    }

    #[test]
    fn where_no_token_is_bound_what_is_shown_to_read_on_this_machine_tells_nothing_and_counts_for_nothing() {
        let unbound = || Access {
            tokens: Arc::new(Tokens::of(vec![bearer("admin", "sesame", Role::Admin, Bounds::default())]).expect("one")),
            ..Access::default()
        };
        let access = unbound();
        for _ in 0..30 {
            assert_eq!(reads(&access, "127.0.0.1:1", Some("Bearer of-the-provider")), Ok(None));
        }
        assert_eq!(reads(&access, "127.0.0.1:1", Some("Bearer sesame")), Ok(Some("admin")));

        let access = Access { require_token: true, ..unbound() };
        for _ in 0..10 {
            assert_eq!(reads(&access, "127.0.0.1:1", Some("Bearer guess")), Err(Denied::Wrong));
        }
        assert!(is_shut_out(&reads(&access, "127.0.0.1:1", Some("Bearer sesame"))), "where one is needed, it opens");
    }

    #[test]
    fn a_program_on_this_machine_is_a_neighbour_and_a_page_in_a_browser_is_not() {
        for (peer, fields, expected) in [
            ("127.0.0.1:1", &[][..], true),
            ("127.9.9.9:1", &[], true),
            ("[::1]:1", &[], true),
            ("[::ffff:127.0.0.1]:1", &[], true),
            ("10.0.0.1:1", &[], false),
            ("[::ffff:10.0.0.1]:1", &[], false),
            ("127.0.0.1:1", &[("sec-fetch-site", "none")], true),
            ("127.0.0.1:1", &[("sec-fetch-site", "same-origin")], false),
            ("127.0.0.1:1", &[("sec-fetch-site", "cross-site")], false),
            ("127.0.0.1:1", &[("origin", "http://page.example")], false),
        ] {
            let peer_address = Peer(peer.parse().expect("an address"));
            assert_eq!(is_neighbour(peer_address, &headers(fields)), expected, "{peer} {fields:?}");
        }
    }
}
