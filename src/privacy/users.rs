//! Users: under which name an end user is kept, if at all. Inside weir, limits, budgets and the cache go by the real one.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::privacy::Settings;
use crate::secret::Secret;
use crate::store::naming::{Installation, Names};

/// How users are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserIds {
    /// As the app calls them.
    #[default]
    Plain,
    /// By a keyed hash of that (HMAC-SHA256): one user is told from another, and nobody says who they are without the key.
    Hashed,
    /// Not at all.
    Off,
}

/// What every hashed name begins with.
const MARK: &str = "h-";
/// How many characters of a hash stand for a user: 132 bits.
const SHOWN: usize = 22;

/// Whether `name` is such a hash, not what an app calls somebody.
pub(super) fn is_hash(name: &str) -> bool {
    let hash = name.strip_prefix(MARK);
    hash.is_some_and(|hash| {
        hash.len() == SHOWN && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    })
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error(
        "is missing, and needed with `user_ids: hashed`: name a file that holds what `openssl rand -hex 32` prints"
    )]
    Missing,
    /// It cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It can be guessed.
    #[error("holds fewer than 32 characters: make one with `openssl rand -hex 32`")]
    TooShort,
}

/// Names users.
#[derive(Debug)]
pub struct Users {
    keep: UserIds,
    names: Option<Names>,
}

impl Users {
    /// As `settings` say.
    ///
    /// # Errors
    /// If a key is needed, or named, and cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, KeyError> {
        let names = settings.user_id_key_file.as_ref().map(|path| {
            let unreadable = |source| KeyError::Unreadable { path: path.clone(), source };
            let key = Secret::new(std::fs::read_to_string(path).map_err(unreadable)?);
            let key = Installation::new(&key).map_err(|_| KeyError::TooShort)?;
            Ok(Names::new(&key.keys_for("user ids")))
        });
        let names = names.transpose()?;
        if settings.user_ids == UserIds::Hashed && names.is_none() {
            return Err(KeyError::Missing);
        }
        Ok(Self { keep: settings.user_ids, names })
    }

    /// The name under which `user` is kept; `None` if users are not.
    pub(super) fn kept(&self, user: &str) -> Option<Box<str>> {
        match self.keep {
            UserIds::Plain => Some(user.into()),
            UserIds::Hashed => self.hashed(user),
            UserIds::Off => None,
        }
    }

    /// Every name under which `user` may have been kept, whatever was configured then; `user` may be such a name itself.
    pub(super) fn ever_kept(&self, user: &str) -> Vec<Box<str>> {
        std::iter::once(user.into()).chain(self.hashed(user)).collect()
    }

    fn hashed(&self, user: &str) -> Option<Box<str>> {
        let name = self.names.as_ref()?.of(&[user.as_bytes()]);
        Some(format!("{MARK}{}", &name[..SHOWN]).into())
    }
}
