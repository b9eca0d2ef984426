//! Tokens: what callers from elsewhere, and whoever changes something, have to show, and what each of them opens.
//!
//! Each is in a file, which is read again. Only hashes are kept, so that comparing takes as long for any two. Knows no
//! request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::secret::{self, Secret, Told};

/// The name of the token that `admin.token_file` holds.
pub const ADMIN: &str = "admin";
/// The name of the token that `admin.reader_token_file` holds.
pub const READER: &str = "reader";

/// What the operator writes of one token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub struct Settings {
    /// What the audit log calls it.
    pub name: String,
    /// The file that holds it. It is read again when it changes.
    pub file: PathBuf,
    /// What it opens: `reader` (what is below `/api/v1/` may be read), or `admin` (and changed).
    pub role: Role,
    /// The workspace whose calls a reader sees; without it, those of all.
    pub workspace: Option<String>,
    /// The user whose calls a reader sees; without it, those of all.
    pub user: Option<String>,
}

impl Settings {
    /// A token as it may be written.
    #[must_use]
    pub fn example() -> Self {
        Self {
            name: "team-a".to_owned(),
            file: "/etc/weir/team-a-token".into(),
            role: Role::Reader,
            workspace: Some("team-a".to_owned()),
            user: None,
        }
    }

    /// Whose calls it shows.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { workspace: self.workspace.as_deref().map(Into::into), user: self.user.as_deref().map(Into::into) }
    }
}

/// What a token opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reading.
    #[default]
    Reader,
    /// Reading and changing.
    Admin,
}

/// Whose calls somebody sees. Without a word on one of them, everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Those of this workspace.
    pub workspace: Option<Box<str>>,
    /// Those of this user.
    pub user: Option<Box<str>>,
}

impl Bounds {
    /// Whether these are everybody's.
    #[must_use]
    pub const fn are_none(&self) -> bool {
        self.workspace.is_none() && self.user.is_none()
    }
}

/// A token could not be read.
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
    /// Nobody could tell who shows it.
    #[error("the tokens `{0}` and `{1}` are the same: give each file a token of its own")]
    Same(Arc<str>, Arc<str>),
}

/// A token, as far as weir keeps it: its hash.
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
        secret::reread(&path, "token of the admin side", told, take).await;
    }

    fn is(&self, presented: &Digested) -> bool {
        self.current().ct_eq(presented).into()
    }

    fn current(&self) -> Digested {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token, and what it opens.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// What the audit log calls it.
    pub name: Arc<str>,
    /// What it opens.
    pub role: Role,
    /// Whose calls it shows.
    pub bounds: Bounds,
    /// What has to be shown.
    pub token: Arc<Token>,
}

/// All tokens there are; none by default.
#[derive(Debug, Default)]
pub struct Tokens(Vec<Bearer>);

impl Tokens {
    /// These.
    ///
    /// # Errors
    /// If two are the same.
    pub fn of(bearers: Vec<Bearer>) -> Result<Self, TokenError> {
        for (position, bearer) in bearers.iter().enumerate() {
            let same = bearers[..position].iter().find(|earlier| earlier.token.current() == bearer.token.current());
            if let Some(same) = same {
                return Err(TokenError::Same(Arc::clone(&same.name), Arc::clone(&bearer.name)));
            }
        }
        Ok(Self(bearers))
    }

    /// Whether there are none.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one for changes.
    #[must_use]
    pub fn can_change(&self) -> bool {
        self.0.iter().any(|bearer| bearer.role == Role::Admin)
    }

    /// Whether there is one that shows a part alone.
    pub(super) fn are_any_bound(&self) -> bool {
        self.0.iter().any(|bearer| !bearer.bounds.are_none())
    }

    /// Whose token was shown, if it is anybody's. As long for any of them.
    pub(super) fn shown_by(&self, presented: &str) -> Option<&Bearer> {
        let presented = digest(presented);
        self.0.iter().fold(None, |found, bearer| if bearer.token.is(&presented) { Some(bearer) } else { found })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file_holding(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, text).expect("a written file");
        (dir, path)
    }

    fn bearer(name: &str, text: &str) -> Bearer {
        let (_dir, path) = file_holding(text);
        let token = Arc::new(Token::from_file(&path).expect("a token"));
        Bearer { name: name.into(), role: Role::Reader, bounds: Bounds::default(), token }
    }

    #[test]
    fn a_token_is_told_from_all_others() {
        let tokens = Tokens::of(vec![bearer("one", "sesame\n"), bearer("other", "simsim")]).expect("two tokens");
        for (shown, expected) in [
            ("sesame", Some("one")),
            ("simsim", Some("other")),
            ("Sesame", None),
            ("sesam", None),
            ("sesame1", None),
            ("", None),
        ] {
            assert_eq!(tokens.shown_by(shown).map(|bearer| &*bearer.name), expected, "{shown}");
        }
        let same = Tokens::of(vec![bearer("one", "sesame"), bearer("other", " sesame ")]).expect_err("the same");
        assert_eq!(same.to_string(), "the tokens `one` and `other` are the same: give each file a token of its own");
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
        while !token.is(&digest("second")) {
            tokio::time::advance(secret::REREAD_EVERY).await;
            tokio::task::yield_now().await;
        }
        assert!(!token.is(&digest("first")));
        assert!(read(&path, Ok(Secret::new(" "))).is_err());
        watcher.abort();
        assert!(!format!("{token:?}").contains("second"));
    }
}
