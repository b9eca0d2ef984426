//! Certificates: the one that the webhook shows, exchanged while it serves. A connection keeps the one that it began
//! with.
//!
//! Knows what a usable pair of certificate and key is; not where one comes from, nor who connects.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::SetOnce;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::secret::{Reread, Secret, Told};

/// A certificate, those that lead from it to its authority, and its key.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    shown: Arc<CertifiedKey>,
    pub(super) expires_at: SystemTime,
}

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("there is no certificate in it, in PEM")]
    NoCertificate,
    #[error("its certificate cannot be read")]
    Unreadable,
    #[error("there is no private key with it, in PEM")]
    NoKey,
    #[error("its certificate and its key do not belong together, or the key is of a kind that is not supported")]
    Mismatched(#[source] rustls::Error),
    #[error("its certificate has expired ({})", humantime::format_rfc3339_seconds(*.0))]
    Expired(SystemTime),
}

impl Pair {
    /// The pair that is in these texts, in PEM; the certificate that is shown comes first.
    ///
    /// # Errors
    /// If nobody would accept it at `now`.
    pub(super) fn read(chain: &str, key: &Secret, now: SystemTime) -> Result<Self, Unusable> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| Unusable::Unreadable)?;
        let first = chain.first().ok_or(Unusable::NoCertificate)?;
        let (_, expires_at) = validity(first).ok_or(Unusable::Unreadable)?;
        if expires_at <= now {
            return Err(Unusable::Expired(expires_at));
        }
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| Unusable::NoKey)?;
        let shown = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(Unusable::Mismatched)?;
        Ok(Self { shown: Arc::new(shown), expires_at })
    }
}

/// From when until when a certificate is valid; `None` if it cannot be read.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let at = |seconds: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

/// The pair that is shown now, if there is one, and whether what it comes from is in order.
pub struct Certificates {
    current: RwLock<Option<Pair>>,
    first: SetOnce<()>,
    told: Told,
}

impl Certificates {
    /// None yet. `told` is told when another comes into force, or could not.
    #[must_use]
    pub fn none(told: Told) -> Self {
        Self { current: RwLock::default(), first: SetOnce::new(), told }
    }

    /// Waits until there is a certificate.
    pub async fn there_is_one(&self) {
        self.first.wait().await;
    }

    /// When the certificate expires that is shown now; `None` while there is none.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|pair| pair.expires_at)
    }

    /// Shows this one from now on. Whether that is another one.
    pub(super) fn show(&self, pair: Pair) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = current.as_ref().is_none_or(|shown| shown.shown.cert != pair.shown.cert);
        *current = Some(pair);
        drop(current);
        // Set already, but for the first one.
        let _ = self.first.set(());
        is_new
    }

    /// Says what came of looking where it comes from.
    pub(super) fn tell(&self, came: Reread) {
        (self.told)(came);
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("expires_at", &self.expires_at()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|pair| Arc::clone(&pair.shown))
    }
}
