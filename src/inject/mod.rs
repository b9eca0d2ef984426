//! Inject: puts weir beside the apps of a Kubernetes cluster. What is asked before a pod is made (an `AdmissionReview`) in,
//! what has to be changed of the pod (a JSON patch) out: a pure function, the same for the webhook and for
//! `weir inject --manifest`.
//!
//! Pods are JSON values, never types of one version of Kubernetes: a field that is not known here stays as it is. Knows no
//! cluster, no clock and no file.

pub mod family;
pub mod quantity;

#[cfg(feature = "inject")]
mod authority;
#[cfg(feature = "inject")]
pub mod certificates;
#[cfg(feature = "inject")]
pub mod cluster;
#[cfg(feature = "inject")]
pub mod files;
#[cfg(feature = "inject")]
mod identity;
#[cfg(feature = "inject")]
pub mod keeper;
#[cfg(feature = "inject")]
pub mod manifest;
#[cfg(feature = "inject")]
mod patch;
#[cfg(feature = "inject")]
mod pod;
#[cfg(feature = "inject")]
pub mod review;
#[cfg(feature = "inject")]
pub mod server;
#[cfg(feature = "inject")]
mod shape;
#[cfg(feature = "inject")]
mod sidecar;
#[cfg(feature = "inject")]
pub mod variables;
#[cfg(feature = "inject")]
pub mod wishes;
#[cfg(feature = "inject")]
mod yaml;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inject::family::Family;

/// What the labels and annotations of weir begin with.
pub const PREFIX: &str = "weir.dev/";

/// What the operator writes of sidecars in Kubernetes: read by `weir inject`, without effect elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the API server asks, over TLS: `POST /mutate`.
    pub listen: SocketAddr,
    /// The image of the sidecar, such as `ghcr.io/weir-dev/weir:0.1.0`. `weir inject` needs it.
    pub image: Option<String>,
    /// When nodes pull the image; not written where empty.
    pub image_pull_policy: PullPolicy,
    /// How the sidecar stands in the pod, unless the annotation `weir.dev/mode` says otherwise: `native`, an init
    /// container that goes on running (Kubernetes 1.29 and later); or `container`, for nodes that know no such thing.
    pub mode: Mode,
    /// The `ConfigMap` with the sidecar's `weir.yaml`, in the pod's namespace, unless the annotation `weir.dev/config` names
    /// another. It need not be there. Empty for none.
    pub config_map: String,
    /// The providers to which the apps' SDKs are led by environment variables, unless the annotation `weir.dev/providers`
    /// says otherwise (docs/inject.md lists the variables).
    pub providers: Vec<Family>,
    /// The port for the app's calls, on the pod's loopback.
    pub port: u16,
    /// The port for metrics and health, on the pod's address.
    pub admin_port: u16,
    /// What the sidecar asks for and may use.
    pub resources: Resources,
    /// The user the sidecar runs as; `null` leaves that to the cluster, as `OpenShift` wants it.
    pub run_as_user: Option<u32>,
    /// Whether the app's containers wait until weir listens.
    #[serde(rename = "await")]
    pub wait: bool,
    /// What becomes of a pod that wants weir and has a wrong annotation: `deny` refuses it, with every mistake; `skip`
    /// lets it in without weir, with a warning.
    pub on_invalid: OnInvalid,
    /// Whether the annotation `weir.dev/image` is heard.
    pub allow_image_override: bool,
    /// Variables of every sidecar: the cluster's defaults. They win over the `ConfigMap`; annotations win over them.
    #[schemars(example = example_env())]
    pub env: BTreeMap<String, String>,
    /// The certificate that the API server is shown.
    pub tls: Tls,
}

/// Variables as they may be written: shown, commented out, in the default file.
fn example_env() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([("WEIR_TELEMETRY__LOG__LEVEL", "info")])
}

/// When nodes pull an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// As Kubernetes does where nothing is said.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Each time.
    Always,
    /// If it is not there.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// How the sidecar stands in the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As an init container that goes on running.
    #[default]
    Native,
    /// As a container like the app's.
    Container,
}

/// What becomes of a pod with a wrong annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// It is refused.
    #[default]
    Deny,
    /// It goes without weir.
    Skip,
}

/// What the sidecar asks for and may use, as Kubernetes writes it; what is empty is not written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// CPU that is set aside.
    pub cpu_request: String,
    /// Memory that is set aside.
    pub memory_request: String,
    /// Disk that is set aside, for clusters whose quotas ask for it.
    pub ephemeral_storage_request: String,
    /// Most CPU. A limit makes calls wait: better none.
    pub cpu_limit: String,
    /// Most memory.
    pub memory_limit: String,
    /// Most disk.
    pub ephemeral_storage_limit: String,
}

/// The certificate of the webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Where it comes from: `self_managed`, made and renewed by the injectors themselves; or `files`, put there by
    /// someone else, such as cert-manager.
    pub source: CertificateSource,
    /// Where `tls.crt` and `tls.key` are, with `files`. They are read again when they change.
    pub directory: PathBuf,
    /// The Secret that keeps it, with `self_managed`, in the injector's own namespace.
    pub secret: String,
    /// The `MutatingWebhookConfiguration` whose `caBundle` is kept, with `self_managed`.
    pub webhook_configuration: String,
    /// The Service in front of the injectors: the certificate is for its names.
    pub service: String,
}

/// Where the certificate of the webhook comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// From the injectors themselves.
    #[default]
    SelfManaged,
    /// From files.
    Files,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9443)),
            image: None,
            image_pull_policy: PullPolicy::default(),
            mode: Mode::default(),
            config_map: "weir".to_owned(),
            providers: vec![Family::Openai, Family::Anthropic, Family::Gemini],
            // W-E-I-R on a keypad.
            port: 9347,
            admin_port: 9348,
            resources: Resources::default(),
            run_as_user: Some(65532),
            wait: true,
            on_invalid: OnInvalid::default(),
            allow_image_override: false,
            env: BTreeMap::new(),
            tls: Tls::default(),
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: "10m".to_owned(),
            memory_request: "32Mi".to_owned(),
            ephemeral_storage_request: String::new(),
            cpu_limit: String::new(),
            memory_limit: "128Mi".to_owned(),
            ephemeral_storage_limit: String::new(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            source: CertificateSource::default(),
            directory: PathBuf::from("/etc/weir/tls"),
            secret: "weir-injector-tls".to_owned(),
            webhook_configuration: "weir-injector".to_owned(),
            service: "weir-injector".to_owned(),
        }
    }
}

impl Mode {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Container => "container",
        }
    }
}

impl Resources {
    /// The requests and the limits by the name of the resource, as far as they are written.
    #[must_use]
    pub fn written(&self) -> [Vec<(&'static str, &str)>; 2] {
        let requests = [
            ("cpu", &self.cpu_request),
            ("memory", &self.memory_request),
            ("ephemeral-storage", &self.ephemeral_storage_request),
        ];
        let limits = [
            ("cpu", &self.cpu_limit),
            ("memory", &self.memory_limit),
            ("ephemeral-storage", &self.ephemeral_storage_limit),
        ];
        [requests, limits].map(|all| {
            let all = all.into_iter().map(|(name, amount)| (name, amount.as_str()));
            all.filter(|(_, amount)| !amount.is_empty()).collect()
        })
    }
}

/// Whether `text` can name an object of Kubernetes: a DNS subdomain (RFC 1123), which most objects are named by.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether `text` can be the reference of an image: nothing that a registry or a shell would stumble over.
#[must_use]
pub fn is_image(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    !text.is_empty() && text.len() <= 1024 && text.bytes().all(fits) && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// Whether `text` can name a variable of a container: what a shell can say.
#[must_use]
pub fn is_variable(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(fits) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Answers an `AdmissionReview`, whatever the bytes of it are: never panics, and never holds a pod up for a fault of its own.
#[cfg(feature = "inject")]
#[must_use]
pub fn answer(review: &[u8], settings: &Settings) -> review::Answer {
    review::answer(review, |request| pod::decide(request, settings))
}
