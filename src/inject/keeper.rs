//! Keeper: keeps the injector's own certificate in a Secret, and has the API server trust it. In rounds: look at both,
//! make anew what is due, put right what is not as it ought to be.
//!
//! All replicas do the same, with one Secret: of two that write at once the API takes one, and the other takes what that
//! one wrote. Whatever the API does, what is at hand is served. Knows neither how the API is asked nor how certificates
//! are made.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::inject::Tls;
use crate::inject::authority::{Due, Kept, NotMade};
use crate::inject::certificates::{Certificates, Unusable};
use crate::inject::cluster::{Cluster, Refused};
use crate::secret::{Reread, Secret};

/// How often both are looked at: who resets the webhook configuration to what is in a repository takes the trust away
/// with it, and pods start without a sidecar until the next round.
pub const EVERY: Duration = Duration::from_secs(30);
/// How long after a round that failed the next one begins, at first; then twice as long each time, up to [`EVERY`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The part of a life after which something is made anew; each replica adds up to [`SPREAD`], so that one of them does.
const SHARE: f64 = 2.0 / 3.0;
const SPREAD: f64 = 0.05;
/// How often one round reads again because another replica wrote meanwhile.
const ATTEMPTS: u32 = 5;

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the Secret is not there: install it empty, since a role cannot be limited to creating it")]
    NoSecret,
    #[error(transparent)]
    NotMade(#[from] NotMade),
    #[error("the certificate that was made cannot be used")]
    Unusable(#[from] Unusable),
    #[error("other replicas wrote again and again meanwhile")]
    Contended,
}

/// Keeps `certificates` current, by looking `every` so often. Runs until it is dropped.
pub async fn keep(cluster: &Cluster, names: &Tls, every: Duration, certificates: &Certificates) {
    let keeper = Keeper { cluster, names, dns: dns_names(names, cluster), share: SHARE + SPREAD * chance() };
    let mut pause = FIRST_PAUSE;
    let mut complained = false;
    loop {
        let ended = keeper.round(certificates).await;
        match &ended {
            Ok(is_new) if complained || *is_new => {
                if complained {
                    tracing::info!("the webhook's certificate and the trust in it are in order again");
                }
                certificates.tell(Reread::Taken);
            }
            Err(error) if !complained => {
                tracing::warn!(
                    error.message = %error,
                    "the webhook's certificate, or the trust in it, cannot be looked after; going on with what is there"
                );
                certificates.tell(Reread::Refused);
            }
            Ok(_) | Err(_) => {}
        }
        complained = ended.is_err();
        let wait = if complained { pause.min(every) } else { every };
        pause = if complained { (pause * 2).min(every) } else { FIRST_PAUSE };
        // Replicas that were started together need not ask together.
        sleep(wait.mul_f64(1.0 - 0.2 * chance())).await;
    }
}

/// Every name under which the Service is asked; the API server uses the last one.
fn dns_names(names: &Tls, cluster: &Cluster) -> Vec<String> {
    let (service, namespace) = (&names.service, &cluster.namespace);
    vec![service.clone(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")]
}

struct Keeper<'a> {
    cluster: &'a Cluster,
    names: &'a Tls,
    dns: Vec<String>,
    share: f64,
}

impl Keeper<'_> {
    /// Looks at both, and puts right what is not as it ought to be; whether another certificate is shown now. The trust
    /// comes before the certificate that needs it; but if the API does not take that, the certificate is shown all the same.
    async fn round(&self, certificates: &Certificates) -> Result<bool, Failed> {
        let mut is_new = false;
        for _ in 0..ATTEMPTS {
            let now = SystemTime::now();
            // Read before the Secret: if it is still the same when it is written, what the Secret says is no older.
            let webhooks = self.cluster.webhooks(&self.names.webhook_configuration).await;
            let (kept, written) = match self.kept(now).await? {
                (_, Err(Failed::Refused(Refused::Conflict { .. }))) => continue,
                (Some(kept), written) => (kept, written),
                (None, written) => return written.map(|()| is_new),
            };
            let trusted = match webhooks {
                Ok(webhooks) => self.trust(&webhooks, &kept.bundle(now)).await,
                Err(refused) => Err(refused),
            };
            let pair = kept.pair(now)?;
            let expires_at = pair.expires_at;
            if certificates.show(pair) {
                is_new = true;
                let until = humantime::format_rfc3339_seconds(expires_at);
                tracing::info!(weir.certificate.expires = %until, "the webhook shows another certificate");
            }
            match trusted {
                Err(Refused::Conflict { .. }) => {}
                trusted => return written.and(trusted.map_err(Failed::from)).map(|()| is_new),
            }
        }
        Err(Failed::Contended)
    }

    /// What the Secret holds, with what was due made anew; and if that could not be kept, what it held before, and why.
    async fn kept(&self, now: SystemTime) -> Result<(Option<Kept>, Result<(), Failed>), Failed> {
        let mut secret = match self.cluster.secret(&self.names.secret).await {
            Err(Refused::Status { status, .. }) if status == http::StatusCode::NOT_FOUND => {
                return Err(Failed::NoSecret);
            }
            secret => secret?,
        };
        let held = kept_in(&secret);
        let due = held.as_ref().map_or(Due::Authority, |held| held.due(&self.dns, self.share, now));
        let next = match (&held, due) {
            (Some(_), Due::Nothing) => return Ok((held, Ok(()))),
            (Some(held), Due::Leaf) => held.clone().with_leaf(&self.dns, now)?,
            (held, _) => Kept::made(&self.dns, held.as_ref(), now)?,
        };
        write_into(&mut secret, &next);
        if let Err(refused) = self.cluster.replace_secret(&self.names.secret, &secret).await {
            return Ok((held, Err(refused.into())));
        }
        tracing::info!(weir.certificate.due = ?due, "made a certificate for the webhook");
        Ok((Some(next), Ok(())))
    }

    /// Has every webhook trust `bundle`, unless all do.
    async fn trust(&self, webhooks: &Value, bundle: &str) -> Result<(), Refused> {
        let bundle = BASE64.encode(bundle);
        let all = webhooks["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
        if all.iter().all(|webhook| webhook["clientConfig"]["caBundle"] == *bundle) {
            return Ok(());
        }
        self.cluster.trust(&self.names.webhook_configuration, webhooks, &bundle).await?;
        tracing::info!("the API server is told to trust the webhook's authority");
        Ok(())
    }
}

const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const PREVIOUS: &str = "ca-previous.crt";
const CROSS: &str = "ca-cross.crt";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// What a Secret holds; `None` if it holds no authority yet.
fn kept_in(secret: &Value) -> Option<Kept> {
    let data = secret["data"].as_object()?;
    let held = |name: &str| {
        let decoded = BASE64.decode(data.get(name)?.as_str()?).ok()?;
        String::from_utf8(decoded).ok().filter(|text| !text.is_empty())
    };
    Some(Kept {
        authority: held(AUTHORITY)?,
        authority_key: Secret::new(held(AUTHORITY_KEY)?),
        previous: held(PREVIOUS),
        cross: held(CROSS),
        chain: held(CHAIN).unwrap_or_default(),
        key: Secret::new(held(KEY).unwrap_or_default()),
    })
}

/// Writes `kept` over what a Secret holds, and leaves the rest of it as it is.
fn write_into(secret: &mut Value, kept: &Kept) {
    let held = BTreeMap::from([
        (AUTHORITY, Some(kept.authority.as_str())),
        (AUTHORITY_KEY, Some(kept.authority_key.expose())),
        (PREVIOUS, kept.previous.as_deref()),
        (CROSS, kept.cross.as_deref()),
        (CHAIN, Some(kept.chain.as_str())),
        (KEY, Some(kept.key.expose())),
    ]);
    if !secret["data"].is_object() {
        secret["data"] = json!({});
    }
    let Some(data) = secret["data"].as_object_mut() else { return };
    for (name, text) in held {
        match text {
            Some(text) => data.insert(name.to_owned(), BASE64.encode(text).into()),
            None => data.remove(name),
        };
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut byte = [0];
    // Without chance all replicas do the same at once, and the API takes one of them.
    let _ = SystemRandom::new().fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
