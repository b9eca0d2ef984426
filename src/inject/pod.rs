//! Pod: what becomes of one pod.

use crate::inject::Settings;
use crate::inject::review::{Decision, Outcome, Reason, Request};

/// Decides what becomes of what `request` is about.
pub(super) fn decide(request: &Request, settings: &Settings) -> Decision {
    if request.kind.kind != "Pod" || !request.kind.group.is_empty() {
        return Decision::untouched(Outcome::Skipped, Reason::NotAPod);
    }
    if request.operation != "CREATE" || !request.sub_resource.is_empty() {
        return Decision::untouched(Outcome::Skipped, Reason::NotCreated);
    }
    if settings.image.is_none() {
        return Decision::fault(Reason::NoImage, "no image is configured: write `inject.image`");
    }
    if request.object["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        return Decision::fault(Reason::NoPod, "there is no pod in this AdmissionReview");
    }
    Decision::untouched(Outcome::Skipped, Reason::AlreadyInjected)
}
