//! Inject: does what was written of sidecars in Kubernetes make sense? Notes every mistake there is.

use crate::config::checks::{Checks, overlap};
use crate::config::file::File;
use crate::config::mistake::{Path, shown};
#[cfg(feature = "inject")]
use crate::inject::CertificateSource;
use crate::inject::quantity::Quantity;
use crate::inject::{Settings, is_image, is_object_name, is_variable};

/// Checks all of it.
pub(super) fn check(file: &File, checks: &mut Checks<'_>) {
    let settings = &file.inject;
    let knob = |name| Path::of(["inject", name]);
    if overlap(settings.listen, file.admin.listen) {
        let message = format!("{} is taken by `admin.listen`: write another port", settings.listen);
        checks.note(knob("listen"), message);
    }
    if let Some(image) = settings.image.as_deref().filter(|image| !is_image(image)) {
        let message = format!("{} is no image: write one such as ghcr.io/weir-dev/weir:0.1.0", shown(image));
        checks.note(knob("image"), message);
    }
    if settings.port == settings.admin_port {
        checks.note(knob("admin_port"), format!("{} is `inject.port` as well: write another", settings.admin_port));
    }
    for (position, family) in settings.providers.iter().enumerate() {
        if settings.providers[..position].contains(family) {
            let path = knob("providers").position(position);
            checks.note(path, format!("`{}` is there twice: remove one of them", family.as_str()));
        }
    }
    for name in settings.env.keys().filter(|name| !is_variable(name)) {
        let message = "is no name of a variable: write letters, digits and `_`, such as WEIR_CACHE__MODE";
        checks.note(knob("env").name(name), message);
    }
    names(settings, checks);
    resources(settings, checks);
}

/// Checks what only an injector needs that serves.
#[cfg(feature = "inject")]
pub(super) fn check_serving(file: &File, checks: &mut Checks<'_>) {
    let Settings { image, tls, .. } = &file.inject;
    if image.is_none() {
        let message = "is missing: write the image of the sidecar, such as ghcr.io/weir-dev/weir:0.1.0";
        checks.note(Path::of(["inject", "image"]), message);
    }
    let is_in_cluster = checks.variable("KUBERNETES_SERVICE_HOST").is_some();
    if tls.source == CertificateSource::SelfManaged && !is_in_cluster {
        let message = "self_managed keeps its certificate in a cluster, and KUBERNETES_SERVICE_HOST does not say where \
                       its API is: run in a pod, or write `files`";
        checks.note(Path::of(["inject", "tls", "source"]), message);
    }
}

/// The names of objects in the cluster.
fn names(settings: &Settings, checks: &mut Checks<'_>) {
    let tls = &settings.tls;
    let is_none = settings.config_map.is_empty();
    let named = [
        (Path::of(["inject", "config_map"]), &settings.config_map, is_none),
        (Path::of(["inject", "tls", "secret"]), &tls.secret, false),
        (Path::of(["inject", "tls", "webhook_configuration"]), &tls.webhook_configuration, false),
        (Path::of(["inject", "tls", "service"]), &tls.service, false),
    ];
    for (path, name, _) in named.into_iter().filter(|(_, name, is_none)| !is_none && !is_object_name(name)) {
        let message = format!(
            "{} is no name of an object in Kubernetes: write lower-case letters, digits, `-` and `.`, such as \
             weir-injector",
            shown(name)
        );
        checks.note(path, message);
    }
    if tls.directory.as_os_str().is_empty() {
        checks.note(Path::of(["inject", "tls", "directory"]), "is empty: write the directory of tls.crt and tls.key");
    }
}

/// Amounts that Kubernetes would take, none of them asking for more than is allowed.
fn resources(settings: &Settings, checks: &mut Checks<'_>) {
    let path = Path::of(["inject", "resources"]);
    let knob = |resource: &str, end: &str| format!("{}_{end}", resource.replace('-', "_"));
    let [requests, limits] = settings.resources.written();
    for (end, amounts) in [("request", &requests), ("limit", &limits)] {
        for (resource, amount) in amounts.iter().filter(|(_, amount)| Quantity::of(amount).is_none()) {
            let example = if *resource == "cpu" { "100m" } else { "128Mi" };
            let message = format!("{} is no amount: write one such as {example}, or nothing", shown(amount));
            checks.note(path.name(&knob(resource, end)), message);
        }
    }
    for (resource, request) in &requests {
        let limit = limits.iter().find(|(name, _)| name == resource).map(|(_, limit)| *limit);
        if let (Some(most), Some(asked)) = (limit.and_then(Quantity::of), Quantity::of(request))
            && asked > most
        {
            let limit_knob = knob(resource, "limit");
            let message = format!("{request} is more than `{limit_knob}`, {}: write less", limit.unwrap_or_default());
            checks.note(path.name(&knob(resource, "request")), message);
        }
    }
}
