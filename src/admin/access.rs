//! Access: who may read and who may change what on the operator's side.
//!
//! Changes need the token, always. What is below `/api/v1/` may be read from the same machine without it. A handler
//! says what it needs by what it takes: a `Reader`, an `Operator` or a `Neighbour`. Knows no resource.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::admin::problem::Problem;
use crate::admin::{Admin, audit};
use crate::secret::{self, Secret, Told};

/// The token could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it, or something that no header can carry.
    #[error("the token in {} is empty, or has characters other than printable ASCII without spaces", .0.display())]
    Unusable(PathBuf),
}

/// The token that changes need. Only its hash is kept, so that comparing takes as long for any two.
#[derive(Debug)]
pub struct Token(RwLock<Digested>);

type Digested = [u8; 32];

impl Token {
    /// The token that the file at `path` holds.
    ///
    /// # Errors
    /// If the file cannot be read, or holds no token.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        Ok(Self(RwLock::new(read(path, std::fs::read_to_string(path).map(Secret::new))?)))
    }

    /// Reads the file at `path` again and again; what is no token never replaces one. `told` is told what comes
    /// of it. Runs until it is dropped.
    pub async fn watch(self: Arc<Self>, path: PathBuf, told: Told) {
        let take = |secret| {
            let fresh = read(&path, secret)?;
            let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let is_new = *current != fresh;
            *current = fresh;
            Ok::<_, TokenError>(is_new)
        };
        secret::reread(&path, "admin token", told, take).await;
    }

    fn is(&self, presented: &str) -> bool {
        let current = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.ct_eq(&digest(presented)).into()
    }
}

fn read(path: &Path, file: io::Result<Secret>) -> Result<Digested, TokenError> {
    let secret = file.map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
    let token = secret.expose().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Unusable(path.to_owned()));
    }
    Ok(digest(token))
}

fn digest(token: &str) -> Digested {
    Sha256::digest(token).into()
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

/// Somebody who may read what is below `/api/v1/`: anybody on this machine, others with the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader;

impl FromRequestParts<Admin> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, admin).await;
        if is_neighbour(peer, &parts.headers) {
            return Ok(Self);
        }
        authenticated(admin.token.as_deref(), &parts.headers).map(|()| Self).map_err(Denied::problem)
    }
}

/// Somebody who may change things: whoever has the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator(pub(super) Peer);

impl FromRequestParts<Admin> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, admin).await;
        match authenticated(admin.token.as_deref(), &parts.headers) {
            Ok(()) => Ok(Self(peer)),
            Err(denied) => {
                audit::denied(peer, parts.uri.path(), denied);
                Err(denied.problem())
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no token that could be shown.
    NoToken,
    /// None was shown.
    NotShown,
    /// Another one was shown.
    Wrong,
}

impl Denied {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no token is configured",
            Self::NotShown => "no token was shown",
            Self::Wrong => "another token was shown",
        }
    }

    /// RFC 6750, section 3: a request that shows no token is not told that its token is wrong.
    fn problem(self) -> Problem {
        match self {
            Self::NoToken => Problem::new(
                StatusCode::FORBIDDEN,
                "this needs a token, and this weir has none: set `admin.token_file` to a file that holds one, and send \
                 it as `Authorization: Bearer <token>`",
            ),
            Self::NotShown => Problem::unauthorized(
                r#"Bearer realm="weir""#,
                "this needs the token that `admin.token_file` holds: send it as `Authorization: Bearer <token>`",
            ),
            Self::Wrong => Problem::unauthorized(
                r#"Bearer realm="weir", error="invalid_token""#,
                "the token is not the one that `admin.token_file` holds: a changed file counts after two seconds",
            ),
        }
    }
}

/// Whether the request shows the token.
fn authenticated(token: Option<&Token>, headers: &HeaderMap) -> Result<(), Denied> {
    let token = token.ok_or(Denied::NoToken)?;
    let shown = headers.get(AUTHORIZATION).ok_or(Denied::NotShown)?;
    let (scheme, shown) = shown.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Denied::Wrong)?;
    let is_right = scheme.eq_ignore_ascii_case("bearer") && token.is(shown.trim());
    if is_right { Ok(()) } else { Err(Denied::Wrong) }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn file_holding(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, text).expect("a written file");
        (dir, path)
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(field).collect()
    }

    #[test]
    fn only_the_token_opens() {
        let (_dir, path) = file_holding("open sesame\n");
        assert!(matches!(Token::from_file(&path), Err(TokenError::Unusable(_))), "a token has no spaces");
        let (_dir, path) = file_holding("sesame\n");
        let token = Token::from_file(&path).expect("a token");
        for (shown, expected) in [
            (None, Err(Denied::NotShown)),
            (Some("Bearer sesame"), Ok(())),
            (Some("bearer  sesame"), Ok(())),
            (Some("Bearer Sesame"), Err(Denied::Wrong)),
            (Some("Bearer sesam"), Err(Denied::Wrong)),
            (Some("Bearer sesame1"), Err(Denied::Wrong)),
            (Some("Bearer "), Err(Denied::Wrong)),
            (Some("Bearer"), Err(Denied::Wrong)),
            (Some("Basic sesame"), Err(Denied::Wrong)),
            (Some("sesame"), Err(Denied::Wrong)),
        ] {
            let fields = shown.map(|shown| headers(&[("authorization", shown)])).unwrap_or_default();
            assert_eq!(authenticated(Some(&token), &fields), expected, "{shown:?}");
            assert_eq!(authenticated(None, &fields), Err(Denied::NoToken), "{shown:?}");
        }
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

    #[test]
    fn what_is_no_token_is_named_by_its_file() {
        for text in ["", " \n", "two words", "tök"] {
            let (_dir, path) = file_holding(text);
            let error = Token::from_file(&path).expect_err("no token").to_string();
            assert!(error.contains("token"), "{error}");
            assert!(text.trim().is_empty() || !error.contains(text), "a token never prints: {error}");
        }
        assert!(Token::from_file(Path::new("/nowhere")).expect_err("no file").to_string().contains("/nowhere"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_changes_the_token_and_a_broken_one_does_not() {
        let (_dir, path) = file_holding("first");
        let token = Arc::new(Token::from_file(&path).expect("a token"));
        let watcher = tokio::spawn(Arc::clone(&token).watch(path.clone(), Box::new(|_| {})));
        std::fs::write(&path, "second").expect("a written file");
        while !token.is("second") {
            tokio::time::advance(secret::REREAD_EVERY).await;
            tokio::task::yield_now().await;
        }
        assert!(!token.is("first"));
        assert!(read(&path, Ok(Secret::new(" "))).is_err());
        watcher.abort();
        assert!(!format!("{token:?}").contains("second"));
    }
}
