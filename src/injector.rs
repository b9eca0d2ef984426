//! Injector: `weir inject` as a whole: builds it from the configuration, binds both sides, serves until told to stop, and
//! ends in order.
//!
//! The only place that knows both the webhook and its operator's side. Serves no call of an app.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::admin::health::Readiness;
use crate::admin::injector::InjectorSide;
use crate::inject::certificates::Certificates;
use crate::inject::cluster::Cluster;
use crate::inject::review::{Outcome, Reason};
use crate::inject::server::{Bounds, Reviewer};
use crate::inject::{CertificateSource, Settings, files, keeper, server};
use crate::sinks::injector::Injections;

/// weir's version, and the commit it was built from.
const ABOUT: (&str, &str) = (
    env!("CARGO_PKG_VERSION"),
    match option_env!("BUILD_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
);

/// What an injector finds around it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The cluster it is in; none is needed where certificates come from files.
    pub cluster: Option<Cluster>,
    /// How long things may take.
    pub bounds: Bounds,
    /// How often the cluster is asked whether all is in order, if not [`keeper::EVERY`].
    pub every: Option<Duration>,
}

/// An injector, built and bound, not yet serving.
#[derive(Debug)]
pub struct Injector {
    settings: Settings,
    surroundings: Surroundings,
    certificates: Arc<Certificates>,
    metrics: Arc<Injections>,
    webhook: TcpListener,
    operator: TcpListener,
}

impl Injector {
    /// Binds the webhook's side and, on `admin_listen`, the operator's.
    ///
    /// # Errors
    /// If an address cannot be had, or there is no cluster and one is needed.
    pub async fn bind(
        settings: Settings,
        admin_listen: SocketAddr,
        surroundings: Surroundings,
    ) -> anyhow::Result<Self> {
        if settings.tls.source == CertificateSource::SelfManaged && surroundings.cluster.is_none() {
            anyhow::bail!("inject.tls.source: self_managed needs a cluster: outside of one, write `files`");
        }
        let webhook = TcpListener::bind(settings.listen).await.with_context(|| {
            format!("cannot listen on {}: choose another address in `inject.listen`", settings.listen)
        })?;
        let operator = TcpListener::bind(admin_listen)
            .await
            .with_context(|| format!("cannot listen on {admin_listen}: choose another address in `admin.listen`"))?;
        let metrics = Arc::new(Injections::new(ABOUT.0, ABOUT.1, possible()));
        let watched = metrics.watched_file();
        let certificates = Arc::new(Certificates::none(Box::new(move |came| watched.reread(came))));
        let expiring = Arc::downgrade(&certificates);
        metrics.watch_expiry(Box::new(move || expiring.upgrade()?.expires_at()));
        Ok(Self { settings, surroundings, certificates, metrics, webhook, operator })
    }

    /// Where the API server asks.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn webhook_address(&self) -> std::io::Result<SocketAddr> {
        self.webhook.local_addr()
    }

    /// Where metrics and health are served.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.operator.local_addr()
    }

    /// Serves until `shutdown` resolves, and then for as long as it takes to end without a failed review. Dropping the
    /// future stops accepting.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { settings, surroundings, certificates, metrics, webhook, operator } = self;
        let Surroundings { cluster, bounds, every } = surroundings;
        let (readiness, drained) = (Readiness::starting(), CancellationToken::new());
        let side = InjectorSide { metrics: Arc::clone(&metrics), readiness: readiness.clone(), about: ABOUT };
        let operators_side = admin::injector::run(operator, side, drained.clone().cancelled_owned());
        let reviewer = Arc::new(Reviewer::new(settings.clone(), bounds, Arc::clone(&certificates), metrics));
        let keeping = async {
            match (settings.tls.source, &cluster) {
                (CertificateSource::SelfManaged, Some(cluster)) => {
                    keeper::keep(cluster, &settings.tls, every.unwrap_or(keeper::EVERY), &certificates).await;
                }
                _ => files::keep(&settings.tls.directory, &certificates).await,
            }
        };
        let becoming_ready = async {
            certificates.there_is_one().await;
            readiness.set_ready();
        };
        let serving = async {
            let told = async {
                shutdown.await;
                readiness.set_draining();
                tracing::info!("told to stop: answering for a moment more");
            };
            server::run(webhook, reviewer, told).await;
            drained.cancel();
        };
        let until_served = async {
            tokio::select! {
                () = serving => {}
                // It keeps certificates for as long as they are shown.
                ((), ()) = async { tokio::join!(keeping, becoming_ready) } => {}
            }
        };
        tokio::join!(until_served, operators_side);
    }
}

/// Every result that a review may have, with its reasons.
fn possible() -> impl Iterator<Item = (&'static str, &'static str)> {
    let results = |reason: Reason| -> &'static [Outcome] {
        match reason {
            Reason::Added | Reason::Completed => &[Outcome::Injected],
            Reason::AlreadyInjected
            | Reason::OptedOut
            | Reason::HostNetwork
            | Reason::Windows
            | Reason::MirrorPod
            | Reason::NotAPod
            | Reason::NotCreated => &[Outcome::Skipped],
            Reason::InvalidAnnotation => &[Outcome::Skipped, Outcome::Denied],
            Reason::Unreadable | Reason::UnknownVersion | Reason::NoPod | Reason::NoImage => &[Outcome::Error],
        }
    };
    Reason::ALL
        .into_iter()
        .flat_map(move |reason| results(reason).iter().map(move |result| (result.as_str(), reason.as_str())))
}
