//! Trust: which certificate authorities connections over TLS rely on.
//!
//! The operator's files are read at start, for their mistakes are the operator's to hear of. The system's authorities, some
//! hundred and forty, take milliseconds to read: that is done for the first connection that needs them, and never on a
//! thread that serves calls.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::spawn_blocking;

use crate::upstream::{BoxError, Settings};

/// The trust that connections to providers need. A clone shares it.
#[derive(Clone)]
pub struct Trust(Arc<Deferred>);

struct Deferred {
    /// Authorities beside the system's.
    further: Vec<CertificateDer<'static>>,
    http2: bool,
    made: OnceLock<Made>,
}

struct Made {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// Trust could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of certificate authorities cannot be used.
    #[error("{} holds no usable PEM certificate", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
}

impl Trust {
    /// The system's certificate authorities (Mozilla's where the system has none) and those of `settings`.
    ///
    /// # Errors
    /// If a file of certificate authorities cannot be read, or holds none.
    pub fn load(settings: &Settings) -> Result<Self, TrustError> {
        let further = further(&settings.ca_files)?;
        Ok(Self(Arc::new(Deferred { further, http2: settings.http2, made: OnceLock::new() })))
    }

    /// The system's authorities are read, if that has not been done. Takes milliseconds.
    fn made(&self) -> &Made {
        self.0.made.get_or_init(|| Made::of(roots(&self.0.further), self.0.http2))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("further", &self.0.further.len()).finish_non_exhaustive()
    }
}

impl Made {
    fn of(roots: RootCertStore, http2: bool) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = Arc::new(config.clone());
        if http2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Self { any: Arc::new(config), http1 }
    }
}

/// What a connection over TLS offers to speak, and whom it trusts.
#[derive(Clone)]
pub(super) struct Offer {
    trust: Trust,
    speaks: Speaks,
}

/// Which versions of HTTP a connection can be used for.
#[derive(Clone, Copy)]
pub(super) enum Speaks {
    /// Those that the operator wants.
    Any,
    /// HTTP/1.1: for what must be a connection of its own.
    Http1,
}

impl Offer {
    pub(super) fn new(trust: &Trust, speaks: Speaks) -> Self {
        Self { trust: trust.clone(), speaks }
    }

    /// What rustls needs to know. Waits, if nobody has read the system's authorities yet, until that is done. Dropping
    /// the future leaves that to go on by itself.
    pub(super) async fn config(&self) -> Arc<ClientConfig> {
        if self.trust.0.made.get().is_none() {
            let trust = self.trust.clone();
            // If the runtime is being shut down, it is done here.
            let _ = spawn_blocking(move || {
                trust.made();
            })
            .await;
        }
        let made = self.trust.made();
        Arc::clone(match self.speaks {
            Speaks::Any => &made.any,
            Speaks::Http1 => &made.http1,
        })
    }
}

/// The system's certificate authorities (Mozilla's where the system has none) and those in `files`.
///
/// # Errors
/// If a file cannot be read, or holds none.
pub fn authorities(files: &[PathBuf]) -> Result<RootCertStore, TrustError> {
    Ok(roots(&further(files)?))
}

/// `further`, each of which was found usable, beside the system's.
fn roots(further: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.add_parsable_certificates(further.iter().cloned());
    roots
}

/// The authorities in `files`, each of which rustls can use.
fn further(files: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let mut further = Vec::new();
    for path in files {
        let read = read_authorities(path).map_err(|source| TrustError::CaFile { path: path.clone(), source })?;
        further.extend(read);
    }
    Ok(further)
}

fn read_authorities(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let authorities = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    let mut usable = RootCertStore::empty();
    authorities.iter().try_for_each(|authority| usable.add(authority.clone()))?;
    if authorities.is_empty() { Err("no certificate in it".into()) } else { Ok(authorities) }
}
