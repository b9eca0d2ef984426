//! Wishes: what one pod wants, its annotations laid over what the operator set. Every mistake is found at once: a slip must
//! not become a service that nobody measures.

use serde_json::Value;

use crate::inject::family::Family;
use crate::inject::quantity::Quantity;
use crate::inject::shape::{Pod, name};
use crate::inject::{Mode, PREFIX, Resources, Settings, is_image, is_object_name};
use crate::pattern::nearest;

/// An annotation of pods.
#[derive(Debug)]
pub struct Annotation {
    /// Its name, behind [`PREFIX`].
    pub name: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

/// The annotations that are heard. Whoever adds one adds an arm to `Wishes::hear`.
pub const ANNOTATIONS: &[Annotation] = &[
    of("config", "`inject.config_map`", "the ConfigMap with `weir.yaml`, in the pod's namespace; it need not be there"),
    of("providers", "`inject.providers`", "the families of variables to set, such as `openai,anthropic`"),
    of("env", "`auto`", "`auto`: all variables of these families; `false`: none; else a list of variables"),
    of("containers", "all but known sidecars", "the containers that get variables, such as `app,worker`"),
    of("service", "see below", "what the app is called in metrics and traces (`service.name`)"),
    of("secret", "none", "a Secret with the providers' keys, such as `llm-keys` or `llm-keys:openai,anthropic`"),
    of("mode", "`inject.mode`", "`native`, or `container` for nodes without native sidecars"),
    of("await", "`inject.await`", "`true` or `false`: whether the app's containers wait until weir listens"),
    of("port", "`inject.port`", "the port for calls, where another has it"),
    of("admin-port", "`inject.admin_port`", "the port for metrics and health, where another has it"),
    of("image", "`inject.image`", "the image; only where `inject.allow_image_override` is set"),
    of("cpu-request", "`inject.resources`", "CPU that is set aside, such as `50m`"),
    of("cpu-limit", "`inject.resources`", "most CPU"),
    of("memory-request", "`inject.resources`", "memory that is set aside, such as `64Mi`"),
    of("memory-limit", "`inject.resources`", "most memory"),
    of("log-level", "the configuration", "`error`, `warn`, `info`, `debug` or `trace`"),
    of("cache", "the configuration", "`on` or `off`"),
    of("state", "`memory`", "`memory`, or `disk:1Gi` for a volume that survives a restart of the container"),
];

const fn of(name: &'static str, default: &'static str, meaning: &'static str) -> Annotation {
    Annotation { name, default, meaning }
}

/// What weir itself writes down on a pod.
pub(super) const STATUS: &str = "weir.dev/status";

/// What one pod wants.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    pub(super) config_map: Option<String>,
    pub(super) families: Vec<Family>,
    pub(super) variables: Variables,
    /// The containers named; `None` for all but known sidecars.
    pub(super) containers: Option<Vec<String>>,
    pub(super) service: Option<String>,
    pub(super) secret: Option<Secret>,
    pub(super) mode: Mode,
    pub(super) wait: bool,
    pub(super) port: u16,
    pub(super) admin_port: u16,
    pub(super) image: String,
    pub(super) resources: Resources,
    pub(super) log_level: Option<String>,
    pub(super) cache: Option<bool>,
    /// How large the volume for state is; `None` for none.
    pub(super) disk: Option<String>,
}

/// Which variables a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variables {
    /// All of the families chosen.
    All,
    /// These of any family; maybe none.
    Only(Vec<String>),
}

/// A Secret with keys of providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) name: String,
    /// Whose keys are in it.
    pub(super) families: Vec<Family>,
}

impl Wishes {
    /// What `pod` wants.
    ///
    /// # Errors
    /// With every mistake in its labels and annotations, each with what mends it.
    pub(super) fn read(pod: Pod<'_>, settings: &Settings) -> Result<Self, Vec<String>> {
        let mut wishes = Self::of(settings);
        let mut mistakes = Vec::new();
        if let Some(value) = pod.labels().and_then(|labels| labels.get(&format!("{PREFIX}inject")))
            && !["true", "false"].iter().any(|word| value == word)
        {
            mistakes.push(format!("label {PREFIX}inject: {} is neither: write \"true\" or \"false\"", shown(value)));
        }
        let ours = pod.annotations().into_iter().flatten();
        for (name, value) in ours.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value))) {
            let heard = match value.as_str() {
                None => Err("a text is expected: put it in quotes".to_owned()),
                Some(text) => wishes.hear(name, text.trim(), settings),
            };
            mistakes.extend(heard.err().map(|mistake| format!("{PREFIX}{name}: {mistake}")));
        }
        wishes.check(pod, &mut mistakes);
        if mistakes.is_empty() { Ok(wishes) } else { Err(mistakes) }
    }

    /// What a pod wants that says nothing.
    fn of(settings: &Settings) -> Self {
        Self {
            config_map: Some(settings.config_map.clone()).filter(|name| !name.is_empty()),
            families: settings.providers.clone(),
            variables: Variables::All,
            containers: None,
            service: None,
            secret: None,
            mode: settings.mode,
            wait: settings.wait,
            port: settings.port,
            admin_port: settings.admin_port,
            image: settings.image.clone().unwrap_or_default(),
            resources: settings.resources.clone(),
            log_level: None,
            cache: None,
            disk: None,
        }
    }

    /// Takes one annotation in; what is wrong with it otherwise.
    fn hear(&mut self, annotation: &str, text: &str, settings: &Settings) -> Result<(), String> {
        match annotation {
            "config" => self.config_map = Some(object(text, "weir")?),
            "providers" => self.families = families(text)?,
            "env" => self.variables = variables(text)?,
            "containers" => self.containers = Some(listed(text, "app,worker")?),
            "service" if text.is_empty() => return Err("is empty: write a name, or leave it out".to_owned()),
            "service" => self.service = Some(text.to_owned()),
            "secret" => self.secret = Some(secret(text)?),
            "mode" => self.mode = choice(text, &[("native", Mode::Native), ("container", Mode::Container)])?,
            "await" => self.wait = choice(text, &[("true", true), ("false", false)])?,
            "port" => self.port = port(text, 9347)?,
            "admin-port" => self.admin_port = port(text, 9348)?,
            "image" if !settings.allow_image_override => {
                return Err("is not allowed here: remove it, or set `inject.allow_image_override`".to_owned());
            }
            "image" if !is_image(text) => {
                return Err(format!("`{text}` is no image: write one such as ghcr.io/weir-dev/weir:0.1.0"));
            }
            "image" => text.clone_into(&mut self.image),
            "cpu-request" => self.resources.cpu_request = amount(text, "50m")?,
            "cpu-limit" => self.resources.cpu_limit = amount(text, "1")?,
            "memory-request" => self.resources.memory_request = amount(text, "64Mi")?,
            "memory-limit" => self.resources.memory_limit = amount(text, "256Mi")?,
            "log-level" => {
                self.log_level = Some(choice(text, &LEVELS.map(|level| (level, level)))?.to_owned());
            }
            "cache" => self.cache = Some(choice(text, &[("on", true), ("off", false)])?),
            "state" => self.disk = disk(text)?,
            // What an earlier run has written.
            "status" => {}
            "inject" => return Err("is a label, not an annotation: write it below `labels`".to_owned()),
            unknown => return Err(unknown_name(unknown)),
        }
        Ok(())
    }

    /// What the annotations say together.
    fn check(&mut self, pod: Pod<'_>, mistakes: &mut Vec<String>) {
        if self.port == self.admin_port {
            mistakes.push(format!("{PREFIX}admin-port: {} is the port for calls too: write another", self.admin_port));
        }
        let [requests, limits] = self.resources.written();
        for (resource, request) in requests {
            let limit = limits.iter().find(|(name, _)| *name == resource).map_or("", |(_, limit)| *limit);
            if Quantity::of(limit).is_some_and(|most| Quantity::of(request).is_some_and(|asked| asked > most)) {
                mistakes.push(format!(
                    "{PREFIX}{resource}-limit: {limit} is less than the request, {request}: write more, or write \
                     {PREFIX}{resource}-request too"
                ));
            }
        }
        for named in self.containers.iter().flatten().filter(|named| pod.find(named).is_none()) {
            let there = pod.all_containers().map(|(_, _, container)| name(container));
            let fix = match meant(named, there) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write the names of containers".to_owned(),
            };
            mistakes.push(format!("{PREFIX}containers: there is no container `{named}`: {fix}"));
        }
        // Without a list, the Secret has the keys of all that have one.
        if let Some(secret) = self.secret.as_mut().filter(|secret| secret.families.is_empty()) {
            secret.families = self.families.iter().copied().filter(|family| family.key().is_some()).collect();
            if secret.families.is_empty() {
                mistakes.push(format!("{PREFIX}secret: none of {PREFIX}providers has a key: remove it"));
            }
        }
    }
}

/// The one of `names` that was meant, unless `word` is far too long for any: comparing it would cost more than it is worth.
fn meant<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST { None } else { nearest(word, names) }
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn unknown_name(unknown: &str) -> String {
    match meant(unknown, ANNOTATIONS.iter().map(|known| known.name)) {
        Some(meant) => format!("unknown annotation: did you mean {PREFIX}{meant}?"),
        None => "unknown annotation: remove it".to_owned(),
    }
}

fn object(text: &str, example: &str) -> Result<String, String> {
    if is_object_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no name of an object in Kubernetes: write one such as {example}"))
}

/// The items of a list; there is at least one.
fn listed(text: &str, example: &str) -> Result<Vec<String>, String> {
    let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) {
        return Err(format!("`{text}` is no list: write one such as {example}"));
    }
    Ok(items)
}

fn families(text: &str) -> Result<Vec<Family>, String> {
    let mut families = Vec::new();
    for name in listed(text, "openai,anthropic")? {
        let family = Family::of(&name).ok_or_else(|| {
            let known = Family::ALL.map(Family::as_str);
            match meant(&name, known) {
                Some(meant) => format!("there are no variables for `{name}`: did you mean `{meant}`?"),
                None => format!("there are no variables for `{name}`: write some of {}", known.join(", ")),
            }
        })?;
        if !families.contains(&family) {
            families.push(family);
        }
    }
    Ok(families)
}

fn variables(text: &str) -> Result<Variables, String> {
    match text {
        "auto" | "true" => return Ok(Variables::All),
        "false" => return Ok(Variables::Only(Vec::new())),
        _ => {}
    }
    let names = listed(text, "OPENAI_BASE_URL,ANTHROPIC_BASE_URL")?;
    let known = || Family::ALL.into_iter().flat_map(|family| family.variables().iter().copied());
    match names.iter().find(|name| !known().any(|known| known == *name)) {
        None => Ok(Variables::Only(names)),
        Some(name) => Err(match meant(name, known()) {
            Some(meant) => format!("`{name}` is none that weir sets: did you mean {meant}?"),
            None => format!("`{name}` is none that weir sets: write auto, false, or some of {}", {
                known().collect::<Vec<_>>().join(", ")
            }),
        }),
    }
}

fn secret(text: &str) -> Result<Secret, String> {
    let (name, keys) = text.split_once(':').map_or((text, None), |(name, keys)| (name, Some(keys)));
    let name = object(name.trim(), "llm-keys, or llm-keys:openai,anthropic")?;
    let families = keys.map_or(Ok(Vec::new()), families)?;
    match families.iter().find(|family| family.key().is_none()) {
        Some(family) => Err(format!("`{}` has no key that could be in a Secret: leave it out", family.as_str())),
        None => Ok(Secret { name, families }),
    }
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    let words = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("`{text}` is not one of {}: write one of them", words()))
}

fn port(text: &str, example: u16) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("`{text}` is no port: write one such as {example}"))
}

fn amount(text: &str, example: &str) -> Result<String, String> {
    match Quantity::of(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("`{text}` is no amount: write one such as {example}")),
    }
}

fn disk(text: &str) -> Result<Option<String>, String> {
    match text.split_once(':') {
        None if text == "memory" => Ok(None),
        Some(("disk", size)) => amount(size, "1Gi").map(Some),
        _ => Err(format!("`{text}` is no place: write memory, or one such as disk:1Gi")),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("`{text}`"))
}
