//! Sealing: what leaves this process for a shared store, so that whoever reads the store learns nothing and whoever
//! writes to it can make nothing up.
//!
//! Names are keyed hashes; values are encrypted and bound to their names. Both by keys derived from one secret that all
//! replicas share. Knows bytes only.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::store::naming::{Installation, Names};

/// Changes whenever the form of what is sealed does: a value of another version is not opened.
const VERSION: u8 = 1;
/// What a sealed value holds beside its content: version, nonce, tag.
pub(super) const OVERHEAD: usize = 1 + NONCE_LEN + 16;

/// Seals and opens.
pub(super) struct Seal {
    names: Names,
    values: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    /// A seal by keys derived from the secret of `installation`.
    pub(super) fn new(installation: &Installation) -> Self {
        let derived = installation.keys_for("weir shared cache");
        let values = derived.expand(&[b"values"], &AES_256_GCM).expect("32 bytes are not too long a key");
        Self {
            names: Names::new(&derived),
            values: LessSafeKey::new(UnboundKey::from(values)),
            random: SystemRandom::new(),
        }
    }

    /// The name under which `key` is stored.
    pub(super) fn name(&self, key: &[u8]) -> String {
        self.names.of(&[key])
    }

    /// `content`, sealed for the place called `name`. The nonce is random: with 96 bits, one secret may seal 2³² values
    /// before two of them are likely to share one (NIST SP 800-38D, section 8.3). `None` if the system has no
    /// randomness to give.
    pub(super) fn seal(&self, name: &[u8], mut content: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let place = Aad::from(name);
        let tag =
            self.values.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), place, &mut content).ok()?;
        let mut sealed = Vec::with_capacity(content.len() + OVERHEAD);
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&content);
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// The content of `sealed`. `None` if it was sealed by another secret or for another place, or is damaged.
    pub(super) fn open<'a>(&self, name: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (&mut version, rest) = sealed.split_first_mut()?;
        if version != VERSION {
            return None;
        }
        let (nonce, content) = rest.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        self.values.open_in_place(nonce, Aad::from(name), content).ok().map(|content| &*content)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn seal(secret: &str) -> Seal {
        Seal::new(&Installation::new(&Secret::new(secret)).expect("long enough"))
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef\n";

    #[test]
    fn what_was_sealed_opens_by_the_same_secret_in_the_same_place_only() {
        let (one, other) = (seal(SECRET), seal("fedcba9876543210fedcba9876543210"));
        let sealed = one.seal(b"place", b"an answer".to_vec()).expect("randomness");
        assert_eq!(sealed.len(), b"an answer".len() + OVERHEAD);
        assert!(!sealed.windows(6).any(|bytes| bytes == b"answer"));
        let opens = |seal: &Seal, name: &[u8]| seal.open(name, &mut sealed.clone()).map(<[u8]>::to_vec);
        assert_eq!(opens(&seal(SECRET), b"place").as_deref(), Some(&b"an answer"[..]), "another replica");
        assert_eq!(opens(&one, b"another place"), None, "moved");
        assert_eq!(opens(&other, b"place"), None, "another installation");
        let again = one.seal(b"place", b"an answer".to_vec()).expect("randomness");
        assert_ne!(sealed, again, "equal contents do not look equal");
    }

    #[test]
    fn no_damaged_byte_and_no_cut_opens() {
        let seal = seal(SECRET);
        let sealed = seal.seal(b"place", b"an answer".to_vec()).expect("randomness");
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 1;
            assert!(seal.open(b"place", &mut damaged).is_none(), "byte {position}");
            assert!(seal.open(b"place", &mut sealed[..position].to_vec()).is_none(), "cut at {position}");
        }
    }

    #[test]
    fn a_seal_does_not_print_its_secret() {
        assert!(!format!("{:?}", seal(SECRET)).contains("0123"));
    }
}
