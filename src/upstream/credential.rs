//! Credential: the key weir puts in where the operator says so. Read from a file that is watched, or from the
//! environment; never on the path of a call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderValue;

use crate::secret::{self, Secret, Told};

/// A key could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read the API key file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it, or something that cannot be a header.
    #[error("the API key in {origin} is empty or has characters that no header can carry")]
    Unusable {
        /// The file or the variable.
        origin: String,
    },
    /// The variable is not set.
    #[error("the environment variable {0}, which should hold an API key, is not set")]
    Unset(String),
}

/// A key ready to be sent.
#[derive(Debug)]
pub struct Credential {
    current: RwLock<HeaderValue>,
    prefix: &'static str,
}

impl Credential {
    /// A credential from the environment variable `name`; `prefix` precedes it in the header's value.
    ///
    /// # Errors
    /// If the variable is not set, or holds what no header can carry.
    pub fn from_environment(name: &str, prefix: &'static str) -> Result<Self, CredentialError> {
        let key = std::env::var(name).map_err(|_| CredentialError::Unset(name.to_owned()))?;
        Self::holding(&Secret::new(key), prefix, || format!("the environment variable {name}"))
    }

    /// A credential from the file at `path`; `prefix` precedes it in the header's value.
    ///
    /// # Errors
    /// If the file cannot be read, or holds what no header can carry.
    pub fn from_file(path: &Path, prefix: &'static str) -> Result<Self, CredentialError> {
        let key = std::fs::read_to_string(path)
            .map_err(|source| CredentialError::Unreadable { path: path.to_owned(), source })?;
        Self::holding(&Secret::new(key), prefix, || path.display().to_string())
    }

    /// The header value to send now.
    pub fn header_value(&self) -> HeaderValue {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file at `path` again and again; a key that cannot be used never replaces one that could. `told` is told
    /// what comes of it. Runs until it is dropped.
    pub async fn watch(self: Arc<Self>, path: PathBuf, told: Told) {
        let take = |read: io::Result<Secret>| {
            let key = read.map_err(|source| CredentialError::Unreadable { path: path.clone(), source })?;
            self.replace(&key, &path)
        };
        secret::reread(&path, "API key", told, take).await;
    }

    /// Whether the key is another one than before.
    fn replace(&self, key: &Secret, path: &Path) -> Result<bool, CredentialError> {
        let fresh = Self::holding(key, self.prefix, || path.display().to_string())?.header_value();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = *current != fresh;
        *current = fresh;
        Ok(is_new)
    }

    fn holding(key: &Secret, prefix: &'static str, origin: impl FnOnce() -> String) -> Result<Self, CredentialError> {
        let key = key.expose().trim();
        let value = (!key.is_empty()).then(|| HeaderValue::from_str(&format!("{prefix}{key}")).ok()).flatten();
        let Some(mut value) = value else { return Err(CredentialError::Unusable { origin: origin() }) };
        value.set_sensitive(true);
        Ok(Self { current: RwLock::new(value), prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_holding(key: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        std::fs::write(&path, key).expect("a written file");
        (dir, path)
    }

    #[test]
    fn a_key_file_is_trimmed_prefixed_and_hidden() {
        let (_dir, path) = file_holding("sk-live\n");
        let credential = Credential::from_file(&path, "Bearer ").expect("a credential");
        assert_eq!(credential.header_value(), "Bearer sk-live");
        assert!(!format!("{credential:?}").contains("sk-live"));
    }

    #[test]
    fn an_empty_or_missing_key_is_named() {
        let (dir, path) = file_holding(" \n");
        let empty = Credential::from_file(&path, "").expect_err("no key").to_string();
        assert!(empty.contains("is empty") && empty.contains("key"), "{empty}");
        let missing = Credential::from_file(&dir.path().join("nowhere"), "").expect_err("no file").to_string();
        assert!(missing.contains("nowhere"), "{missing}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_changes_the_key_and_a_broken_one_does_not() {
        let (_dir, path) = file_holding("first");
        let credential = Arc::new(Credential::from_file(&path, "").expect("a credential"));
        let watcher = tokio::spawn(Arc::clone(&credential).watch(path.clone(), Box::new(|_| {})));

        std::fs::write(&path, "second").expect("a written file");
        while credential.header_value() != "second" {
            tokio::time::advance(secret::REREAD_EVERY).await;
            tokio::task::yield_now().await;
        }
        let broken = credential.replace(&Secret::new(""), &path);
        assert!(broken.is_err());
        assert_eq!(credential.header_value(), "second");
        watcher.abort();
    }
}
