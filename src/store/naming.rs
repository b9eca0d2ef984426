//! Naming: what things are called on a shared server, so that whoever reads it learns nothing of what they are about.
//!
//! Names are keyed hashes; the keys are derived from one secret that all replicas have, each purpose from its own. Knows
//! bytes only.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::hmac;

use crate::secret::Secret;
use crate::store::Settings;

/// The shortest secret taken, in bytes: 16 random ones in hexadecimal.
const SHORTEST: usize = 32;

/// There is no usable secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is none.
    #[error("cache.redis.secret_file: is missing: name a file with a secret; make one with `openssl rand -hex 32`")]
    Missing,
    /// It cannot be read.
    #[error("cache.redis.secret_file: cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too short to keep anything secret.
    #[error("cache.redis.secret_file: holds fewer than {SHORTEST} characters: make one with `openssl rand -hex 32`")]
    TooShort,
}

/// This installation's secret.
#[derive(Clone, Debug)]
pub struct Installation(Secret);

impl Installation {
    /// The one that `settings` name.
    ///
    /// # Errors
    /// If there is none, or none that is of use.
    pub fn read(settings: &Settings) -> Result<Self, SecretError> {
        let path = settings.secret_file.clone().ok_or(SecretError::Missing)?;
        let secret = fs::read_to_string(&path).map_err(|source| SecretError::Unreadable { path, source })?;
        Self::new(&Secret::new(secret))
    }

    /// The one with this secret; white space around it does not count.
    ///
    /// # Errors
    /// If it is too short.
    pub fn new(secret: &Secret) -> Result<Self, SecretError> {
        let secret = secret.expose().trim();
        if secret.len() < SHORTEST { Err(SecretError::TooShort) } else { Ok(Self(Secret::new(secret))) }
    }

    /// What keys for one purpose are derived from (RFC 5869): those for another tell nothing about them.
    #[must_use]
    pub fn keys_for(&self, purpose: &str) -> Prk {
        Salt::new(HKDF_SHA256, purpose.as_bytes()).extract(self.0.expose().as_bytes())
    }
}

/// Makes names.
pub struct Names(hmac::Key);

impl Names {
    /// Names by a key derived from `keys`.
    ///
    /// # Panics
    /// Never: one hash is not too long a key.
    #[must_use]
    pub fn new(keys: &Prk) -> Self {
        let key = keys.expand(&[b"names"], hmac::HMAC_SHA256).expect("one hash is not too long a key");
        Self(hmac::Key::from(key))
    }

    /// The name of what `parts` make up: 43 letters, digits, `-` and `_`.
    #[must_use]
    pub fn of(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        URL_SAFE_NO_PAD.encode(context.sign())
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(secret: &str, purpose: &str) -> Names {
        let installation = Installation::new(&Secret::new(secret)).expect("long enough");
        Names::new(&installation.keys_for(purpose))
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef\n";

    #[test]
    fn names_tell_nothing_and_differ_by_secret_and_purpose() {
        let (one, other) = (names(SECRET, "a"), names("fedcba9876543210fedcba9876543210", "a"));
        assert_eq!(one.of(&[b"key"]), names(SECRET.trim(), "a").of(&[b"k", b"ey"]));
        assert_ne!(one.of(&[b"key"]), one.of(&[b"kez"]));
        assert_ne!(one.of(&[b"key"]), other.of(&[b"key"]));
        assert_ne!(one.of(&[b"key"]), names(SECRET, "b").of(&[b"key"]));
        assert_eq!(one.of(&[b"key"]).len(), 43);
    }

    #[test]
    fn a_short_secret_is_none() {
        let short = Installation::new(&Secret::new(format!("{}   ", "x".repeat(31))));
        assert!(matches!(short, Err(SecretError::TooShort)));
        let long = Installation::new(&Secret::new(SECRET)).expect("long enough");
        assert!(!format!("{long:?} {:?}", names(SECRET, "a")).contains("0123"));
    }
}
