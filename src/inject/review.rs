//! Review: the `AdmissionReview` (`admission.k8s.io/v1`) that the API server sends before a pod is made, and the answer to it.
//!
//! Whatever comes is answered. A fault of weir's own never holds a pod up: it is let in as it is, with a warning.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What the API server is told, and what of it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The `AdmissionReview` that answers, as JSON.
    pub body: Vec<u8>,
    /// What became of the pod.
    pub result: Outcome,
    /// Why.
    pub reason: Reason,
    /// Whether nothing will come of it: somebody only asks what would happen.
    pub dry_run: bool,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is changed.
    Injected,
    /// It is let in as it is, as it should be.
    Skipped,
    /// It is refused.
    Denied,
    /// It is let in as it is, because of a fault.
    Error,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Injected, Self::Skipped, Self::Denied, Self::Error];

    /// As a label says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Skipped => "skipped",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

/// Why that became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Injected: weir was put into it.
    Added,
    /// Injected: weir was in it, and a container that came later lacked its variables.
    Completed,
    /// Skipped: weir is in it, and nothing is lacking.
    AlreadyInjected,
    /// Skipped: it says `weir.dev/inject: "false"`.
    OptedOut,
    /// Skipped: it is on its node's network, where another pod may have the port.
    HostNetwork,
    /// Skipped: it is for Windows.
    Windows,
    /// Skipped: the API server's picture of a pod that a node runs by itself.
    MirrorPod,
    /// Skipped: something else than a pod.
    NotAPod,
    /// Skipped: something else is done than making a pod, such as adding an ephemeral container.
    NotCreated,
    /// Skipped or denied: an annotation is wrong.
    InvalidAnnotation,
    /// Error: what was sent is no `AdmissionReview`.
    Unreadable,
    /// Error: it is an `AdmissionReview` of another version.
    UnknownVersion,
    /// Error: there is no pod in it, or it has not the shape of one.
    NoPod,
    /// Error: no image is configured.
    NoImage,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Added,
        Self::Completed,
        Self::AlreadyInjected,
        Self::OptedOut,
        Self::HostNetwork,
        Self::Windows,
        Self::MirrorPod,
        Self::NotAPod,
        Self::NotCreated,
        Self::InvalidAnnotation,
        Self::Unreadable,
        Self::UnknownVersion,
        Self::NoPod,
        Self::NoImage,
    ];

    /// As a label says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Completed => "completed",
            Self::AlreadyInjected => "already_injected",
            Self::OptedOut => "opted_out",
            Self::HostNetwork => "host_network",
            Self::Windows => "windows",
            Self::MirrorPod => "mirror_pod",
            Self::NotAPod => "not_a_pod",
            Self::NotCreated => "not_created",
            Self::InvalidAnnotation => "invalid_annotation",
            Self::Unreadable => "unreadable",
            Self::UnknownVersion => "unknown_version",
            Self::NoPod => "no_pod",
            Self::NoImage => "no_image",
        }
    }
}

/// What is decided of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) result: Outcome,
    pub(super) reason: Reason,
    /// The operations of a JSON patch (RFC 6902); none if the pod stays as it is.
    pub(super) patch: Vec<Value>,
    /// What whoever makes the pod is told.
    pub(super) warnings: Vec<String>,
    /// Why it is refused.
    pub(super) refusal: Option<String>,
}

impl Decision {
    /// The pod stays as it is.
    pub(super) fn untouched(result: Outcome, reason: Reason) -> Self {
        Self { result, reason, patch: Vec::new(), warnings: Vec::new(), refusal: None }
    }

    /// The pod stays as it is because of a fault, which is told.
    pub(super) fn fault(reason: Reason, message: &str) -> Self {
        let warnings = vec![format!("weir is not in this pod: {message}")];
        Self { warnings, ..Self::untouched(Outcome::Error, reason) }
    }
}

/// What the API server sends, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    uid: String,
    #[serde(default)]
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) sub_resource: String,
    #[serde(default)]
    pub(super) operation: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    pub(super) object: Value,
}

/// What kind of object it is about.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Kind {
    #[serde(default)]
    pub(super) group: String,
    #[serde(default)]
    pub(super) kind: String,
}

/// What the API server is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

/// Answers `review` with what `decide` makes of the request in it.
pub(super) fn answer(review: &[u8], decide: impl FnOnce(&Request) -> Decision) -> Answer {
    let request = match read(review) {
        Ok(request) => request,
        Err(fault) => return write("", false, &fault),
    };
    write(&request.uid, request.dry_run, &decide(&request))
}

/// The request in `review`, or what is wrong with it.
fn read(review: &[u8]) -> Result<Request, Decision> {
    let unreadable = |message: &str| Decision::fault(Reason::Unreadable, message);
    let review: Review =
        serde_json::from_slice(review).map_err(|error| unreadable(&format!("this is no AdmissionReview: {error}")))?;
    if review.kind != KIND {
        return Err(unreadable("this is no AdmissionReview: its kind is another"));
    }
    if review.api_version != API_VERSION {
        let message = format!("only {API_VERSION} is understood: write it in admissionReviewVersions");
        return Err(Decision::fault(Reason::UnknownVersion, &message));
    }
    review.request.ok_or_else(|| unreadable("this AdmissionReview has no request"))
}

fn write(uid: &str, dry_run: bool, decision: &Decision) -> Answer {
    let patch = (!decision.patch.is_empty()).then(|| BASE64_STANDARD.encode(json!(decision.patch).to_string()));
    let refusal = decision.refusal.as_ref();
    let status = refusal.map(|message| json!({ "code": 422, "reason": "Invalid", "message": message }));
    let response = Response {
        uid,
        allowed: decision.result != Outcome::Denied,
        status,
        patch_type: patch.is_some().then_some("JSONPatch"),
        patch,
        warnings: &decision.warnings,
    };
    let body = json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response });
    Answer { body: body.to_string().into_bytes(), result: decision.result, reason: decision.reason, dry_run }
}
