//! Files: a certificate that someone else puts into a directory, such as cert-manager, and renews there.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::inject::certificates::{Certificates, Pair, Unusable};
use crate::secret::{Secret, reread};

/// The file with the certificate, then those that lead to its authority; as a Secret of type `kubernetes.io/tls` has it.
const CHAIN: &str = "tls.crt";
/// The file with its key.
const KEY: &str = "tls.key";

/// Why the files cannot be used as they are now.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{name} cannot be read: {source}")]
    Unread { name: &'static str, source: io::Error },
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// Shows what is in `directory`, whenever it changes and can be used. Runs until it is dropped.
pub async fn keep(directory: &Path, certificates: &Arc<Certificates>) {
    let telling = Arc::clone(certificates);
    let told = Box::new(move |came| telling.tell(came));
    let key = directory.join(KEY);
    let take = |chain: io::Result<Secret>| {
        let chain = chain.map_err(|source| Refused::Unread { name: CHAIN, source })?;
        // A few hundred bytes in memory, every two seconds.
        let key = std::fs::read_to_string(&key).map_err(|source| Refused::Unread { name: KEY, source })?;
        Ok::<_, Refused>(certificates.show(Pair::read(chain.expose(), &Secret::new(key), SystemTime::now())?))
    };
    reread(&directory.join(CHAIN), "certificate of the webhook", told, take).await;
}
