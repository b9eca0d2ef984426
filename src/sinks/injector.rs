//! Injector: the metrics of `weir inject`, which serves no calls and so has none of theirs.
//!
//! Knows names and numbers; not what a review is, nor where certificates come from.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::host::Host;
use crate::semconv::{self, Metric, label};
use crate::sinks::exposition::{Document, Exposition, Format};
use crate::sinks::host;
use crate::sinks::now::write;
use crate::sinks::reloads::{Reloads, WatchedFile};

/// Which webhook asks: the label `webhook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// The one for namespaces that opted in.
    Namespace,
    /// The one for pods that opted in.
    Object,
    /// One that does not say.
    Unnamed,
}

impl Webhook {
    const ALL: [Self; 3] = [Self::Namespace, Self::Object, Self::Unnamed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Object => "object",
            Self::Unnamed => "unnamed",
        }
    }
}

/// Says when the certificate expires that is shown now.
pub type WatchExpiry = Box<dyn Fn() -> Option<SystemTime> + Send + Sync>;

/// A label set that is known before anything is counted.
type Known = Vec<(&'static str, &'static str)>;

/// The injector's numbers.
pub struct Injections {
    registry: Registry,
    requests: Family<Known, Counter>,
    results: Family<Known, Counter>,
    duration: Histogram,
    now: Arc<Now>,
}

impl Injections {
    /// All counters at zero; `possible` are the results there may be, with their reasons.
    #[must_use]
    pub fn new(
        version: &'static str,
        revision: &'static str,
        possible: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Self {
        let mut registry = Registry::default();
        let build = Info::new(vec![(label::VERSION, version), (label::REVISION, revision)]);
        registry.register(semconv::BUILD_INFO.stem(), semconv::BUILD_INFO.help, build);
        let requests = Family::<Known, Counter>::default();
        let results = Family::<Known, Counter>::default();
        let duration = Histogram::new(semconv::INJECT_DURATION.buckets.iter().copied());
        for (metric, family) in [(&semconv::INJECT_REQUESTS, &requests), (&semconv::INJECT_RESULTS, &results)] {
            let metric: &Metric = metric;
            registry.register(metric.stem(), metric.help, family.clone());
        }
        registry.register(semconv::INJECT_DURATION.stem(), semconv::INJECT_DURATION.help, duration.clone());
        for webhook in Webhook::ALL {
            let _ = requests.get_or_create(&requested(webhook));
        }
        for (result, reason) in possible {
            let _ = results.get_or_create(&came(result, reason));
        }
        let reloads = Arc::new(Reloads::new(SystemTime::now()));
        let now = Arc::new(Now { expiry: Mutex::default(), reloads, host: Host::new() });
        registry.register_collector(Box::new(Arc::clone(&now)));
        Self { registry, requests, results, duration, now }
    }

    /// A review of `webhook` was answered, which took `took`.
    pub fn reviewed(&self, webhook: Webhook, (result, reason): (&'static str, &'static str), took: Duration) {
        self.requests.get_or_create(&requested(webhook)).inc();
        self.results.get_or_create(&came(result, reason)).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Has `watch` asked at each scrape when the certificate expires.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn watch_expiry(&self, watch: WatchExpiry) {
        *self.now.expiry.lock().expect("nobody panics with it") = Some(watch);
    }

    /// A file, or what stands for one, that has been read and is read again from now on.
    #[must_use]
    pub fn watched_file(&self) -> WatchedFile {
        WatchedFile::new(&self.now.reloads)
    }

    /// What a scraper that accepts `accept` gets.
    #[must_use]
    pub fn encode(&self, accept: Option<&str>) -> Exposition {
        let mut document = Document::new(Format::accepted(accept));
        document.add(&self.registry);
        document.finish()
    }
}

impl fmt::Debug for Injections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injections").finish_non_exhaustive()
    }
}

fn requested(webhook: Webhook) -> Known {
    vec![(label::WEBHOOK, webhook.as_str())]
}

fn came(result: &'static str, reason: &'static str) -> Known {
    vec![(label::RESULT, result), (label::REASON, reason)]
}

/// What is asked at the scrape.
struct Now {
    expiry: Mutex<Option<WatchExpiry>>,
    reloads: Arc<Reloads>,
    host: Host,
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Now").finish_non_exhaustive()
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let expires_at = self.expiry.lock().expect("nobody panics with it").as_ref().and_then(|watch| watch());
        let seconds = expires_at.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        write(encoder, &semconv::INJECT_CERT_EXPIRY, seconds.map(|at| ([], ConstGauge::new(at))))?;
        self.reloads.write_all(encoder)?;
        host::write_all(encoder, &self.host)
    }
}
