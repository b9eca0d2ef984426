//! Plan: what the operator wrote of traces, and what the standard variables say, made whole.
//!
//! A variable goes before the knob that says the same. One that cannot be used is left out with a remark, as
//! OpenTelemetry asks ("the implementation MUST … generate a warning and gracefully ignore the setting"): variables are
//! set for whole clusters, and no app may fail to start for one. What is written for weir alone and makes no sense is a
//! mistake. Knows no exporter. Neither a remark nor a mistake shows a header.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use sysinfo::System;

use crate::host::container;
use crate::sinks::traces::sampling::Sampler;
use crate::sinks::traces::{Protocol, Settings};

/// What is done about traces.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where spans are sent: of HTTP, the very address.
    pub endpoint: Uri,
    /// How they are sent.
    pub protocol: Protocol,
    /// What is sent with them; no value prints.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Certificate authorities to trust, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether they are compressed.
    pub gzip: bool,
    /// How long the collector may take for one batch, tries included.
    pub timeout: Duration,
    /// How they wait, and for how long.
    pub batch: Batch,
    /// Which are kept.
    pub sampler: Sampler,
    /// Whether the context of apps is read, and handed on.
    pub propagates: bool,
    /// Who sends them.
    pub resource: Vec<(String, String)>,
}

/// How spans wait for being sent: OpenTelemetry's batch span processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How long the first of a batch waits for others.
    pub delay: Duration,
    /// Most spans that wait.
    pub max_queue: usize,
    /// Most spans sent at once.
    pub max_size: usize,
    /// How long sending a batch may take.
    pub timeout: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), max_queue: 2048, max_size: 512, timeout: Duration::from_secs(30) }
    }
}

/// A plan, and what was found on the way to it.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// The plan; `None` where traces are off.
    pub plan: Option<Plan>,
    /// Variables that cannot be used, and why.
    pub remarks: Vec<String>,
    /// Knobs that make no sense: their names in `telemetry.traces`, and why.
    pub mistakes: Vec<(&'static str, String)>,
}

/// Spans are a kilobyte or two each: more than this is a slip.
const MOST_QUEUED: usize = 1 << 16;

/// Makes a plan of what is written and of the environment.
#[must_use]
pub fn plan(settings: &Settings, environment: &BTreeMap<String, String>) -> Planned {
    let mut reading = Reading { environment, planned: Planned::default() };
    let (endpoint, protocol) = (reading.endpoint(settings), reading.protocol(settings));
    let headers = reading.headers(settings);
    let ca_file = reading.authorities(settings);
    let (sampler, propagates) = (reading.sampler(settings), reading.propagates());
    let is_off = reading.is("OTEL_SDK_DISABLED", "true") || reading.is("OTEL_TRACES_EXPORTER", "none");
    if let Some(endpoint) = endpoint.filter(|_| !is_off) {
        reading.planned.plan = Some(Plan {
            endpoint: endpoint.at(protocol),
            protocol,
            headers,
            ca_file,
            gzip: reading.compresses(),
            timeout: reading.milliseconds(&otlp("TIMEOUT")).unwrap_or(Duration::from_secs(10)),
            batch: reading.batch(),
            sampler,
            propagates,
            resource: reading.resource(settings),
        });
    }
    reading.planned
}

/// The names of a variable that may be set for traces alone, the more special one first.
fn otlp(what: &str) -> [String; 2] {
    [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
}

/// Where spans are sent.
struct Endpoint {
    uri: Uri,
    /// Whether that is all of it, as of an endpoint that is for traces alone.
    is_whole: bool,
}

impl Endpoint {
    /// "The endpoint … is used as-is" if it is for traces; "the base URL" to which `v1/traces` is appended otherwise
    /// (OTLP exporter specification, "Endpoint URLs for OTLP/HTTP").
    fn at(self, protocol: Protocol) -> Uri {
        if self.is_whole || protocol == Protocol::Grpc {
            return self.uri;
        }
        let mut parts = self.uri.clone().into_parts();
        let path = format!("{}/v1/traces", self.uri.path().trim_end_matches('/'));
        parts.path_and_query = PathAndQuery::try_from(path).ok();
        Uri::from_parts(parts).unwrap_or(self.uri)
    }
}

struct Reading<'a> {
    environment: &'a BTreeMap<String, String>,
    planned: Planned,
}

impl<'a> Reading<'a> {
    /// The value of a variable. "The SDK MUST interpret an empty value of an environment variable the same way as when
    /// the variable is unset."
    fn variable(&self, name: &str) -> Option<&'a str> {
        self.environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn is(&self, name: &str, word: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word))
    }

    /// The first of these variables that is set and that `read` can use.
    fn first<T>(&mut self, names: &[String], expected: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        names.iter().find_map(|name| {
            let value = self.variable(name)?;
            let found = read(value);
            if found.is_none() {
                self.remark(name, &format!("is ignored: it is not {expected}"));
            }
            found
        })
    }

    fn remark(&mut self, name: &str, what: &str) {
        self.planned.remarks.push(format!("{name} {what}"));
    }

    fn mistake(&mut self, knob: &'static str, what: String) {
        self.planned.mistakes.push((knob, what));
    }

    fn endpoint(&mut self, settings: &Settings) -> Option<Endpoint> {
        const EXPECTED: &str = "an http or https URL such as http://127.0.0.1:4318";
        let [special, general] = otlp("ENDPOINT");
        let whole = |text: &str| Some(Endpoint { uri: url(text)?, is_whole: true });
        let base = |text: &str| Some(Endpoint { uri: url(text)?, is_whole: false });
        let by_variable = self.first(&[special], EXPECTED, whole).or_else(|| self.first(&[general], EXPECTED, base));
        let written = settings.endpoint.as_deref().and_then(|text| {
            let found = base(text);
            if found.is_none() {
                self.mistake("endpoint", format!("is not {EXPECTED}"));
            }
            found
        });
        by_variable.or(written)
    }

    fn protocol(&mut self, settings: &Settings) -> Protocol {
        let read = |text: &str| match text {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            _ => None,
        };
        self.first(&otlp("PROTOCOL"), "one of grpc, http/protobuf", read).unwrap_or(settings.protocol)
    }

    fn headers(&mut self, settings: &Settings) -> Vec<(HeaderName, HeaderValue)> {
        let by_variable = self.first(&otlp("HEADERS"), "a list such as name=value,name=value", |text| {
            text.split(',').filter(|part| !part.trim().is_empty()).map(|part| header(part, '=')).collect()
        });
        let written = settings.headers_file.as_deref().map(headers_in).transpose();
        match written {
            Ok(written) => by_variable.or(written).unwrap_or_default(),
            Err(what) => {
                self.mistake("headers_file", what);
                Vec::new()
            }
        }
    }

    fn authorities(&mut self, settings: &Settings) -> Option<PathBuf> {
        let read = |text: &str| std::fs::read(text).is_ok().then(|| PathBuf::from(text));
        let by_variable = self.first(&otlp("CERTIFICATE"), "a file that can be read", read);
        if let Some(Err(error)) = settings.ca_file.as_ref().map(std::fs::read) {
            self.mistake("ca_file", format!("the file cannot be read: {error}"));
        }
        by_variable.or_else(|| settings.ca_file.clone())
    }

    fn compresses(&mut self) -> bool {
        let read = |text: &str| match text {
            "gzip" => Some(true),
            "none" => Some(false),
            _ => None,
        };
        self.first(&otlp("COMPRESSION"), "one of gzip, none", read).unwrap_or(false)
    }

    fn milliseconds(&mut self, names: &[String]) -> Option<Duration> {
        let read = |text: &str| text.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis);
        self.first(names, "a number of milliseconds", read)
    }

    fn count(&mut self, name: &str) -> Option<usize> {
        let read = |text: &str| text.parse().ok().filter(|count| (1..=MOST_QUEUED).contains(count));
        self.first(&[name.to_owned()], &format!("a number from 1 to {MOST_QUEUED}"), read)
    }

    fn batch(&mut self) -> Batch {
        let usual = Batch::default();
        let max_queue = self.count("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(usual.max_queue);
        let max_size = self.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(usual.max_size);
        Batch {
            delay: self.milliseconds(&["OTEL_BSP_SCHEDULE_DELAY".to_owned()]).unwrap_or(usual.delay),
            max_queue,
            // "Must be less than or equal to OTEL_BSP_MAX_QUEUE_SIZE".
            max_size: max_size.min(max_queue),
            timeout: self.milliseconds(&["OTEL_BSP_EXPORT_TIMEOUT".to_owned()]).unwrap_or(usual.timeout),
        }
    }

    fn sampler(&mut self, settings: &Settings) -> Sampler {
        let ratio = self.first(&["OTEL_TRACES_SAMPLER_ARG".to_owned()], "a number from 0 to 1", |text| {
            text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
        });
        let usual = ratio.unwrap_or_else(|| settings.sample_ratio.get());
        let known = "one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
                     parentbased_traceidratio";
        let sampler = self.first(&["OTEL_TRACES_SAMPLER".to_owned()], known, |text| {
            let (name, is_parent_based) = match text.strip_prefix("parentbased_") {
                Some(name) => (name, true),
                None => (text, false),
            };
            let sampler = Sampler::of_ratio(match name {
                "always_on" => 1.0,
                "always_off" => 0.0,
                "traceidratio" => usual,
                _ => return None,
            });
            Some(if is_parent_based { sampler.parent_based() } else { sampler })
        });
        sampler.unwrap_or_else(|| Sampler::of_ratio(usual).parent_based())
    }

    /// Whether context is read and handed on as W3C writes it: the only way weir knows.
    fn propagates(&mut self) -> bool {
        let Some(names) = self.variable("OTEL_PROPAGATORS") else { return true };
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        let is_known = names.contains(&"tracecontext");
        if !is_known && names != ["none"] {
            self.remark("OTEL_PROPAGATORS", "names none that weir knows, which is tracecontext");
        }
        is_known
    }

    /// Who sends: what Kubernetes and the system tell, over that what the operator does.
    fn resource(&mut self, settings: &Settings) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                all.insert(name.to_owned(), value.to_owned());
            }
        };
        let host = System::host_name();
        let pid = std::process::id().to_string();
        let (namespace, pod) = (self.variable("POD_NAMESPACE"), self.variable("POD_NAME"));
        let container = self.variable("CONTAINER_NAME");
        // "the recommended service.instance.id … k8s.namespace.name, k8s.pod.name and k8s.container.name joined by dots"
        let instance = match (namespace, pod, container) {
            (Some(namespace), Some(pod), container) => format!("{namespace}.{pod}.{}", container.unwrap_or("weir")),
            _ => format!("{}.{pid}", host.as_deref().unwrap_or("localhost")),
        };
        add("service.name", Some(&settings.service_name));
        add("service.version", Some(env!("CARGO_PKG_VERSION")));
        add("service.instance.id", Some(&instance));
        add("host.name", host.as_deref());
        add("container.id", container::id(Path::new("/")).as_deref());
        add("process.pid", Some(&pid));
        add("k8s.namespace.name", namespace);
        add("k8s.pod.name", pod);
        add("k8s.pod.uid", self.variable("POD_UID"));
        add("k8s.node.name", self.variable("NODE_NAME"));
        add("k8s.container.name", container);
        add("k8s.deployment.name", self.variable("DEPLOYMENT_NAME"));
        for (name, value) in self.resource_attributes() {
            add(&name, Some(&value));
        }
        add("service.name", self.variable("OTEL_SERVICE_NAME"));
        all.into_iter().collect()
    }

    /// "key1=value1,key2=value2", percent-encoded; "in case of any error … the entire environment variable value SHOULD
    /// be discarded" (resource SDK specification).
    fn resource_attributes(&mut self) -> Vec<(String, String)> {
        let names = ["OTEL_RESOURCE_ATTRIBUTES".to_owned()];
        let read = |text: &str| {
            let parts = text.split(',').filter(|part| !part.trim().is_empty());
            parts
                .map(|part| part.split_once('=').and_then(|(name, value)| Some((plain(name)?, plain(value)?))))
                .collect()
        };
        self.first(&names, "a list such as name=value,name=value", read).unwrap_or_default()
    }
}

/// A text without its percent-encoding.
fn plain(text: &str) -> Option<String> {
    percent_decode_str(text.trim()).decode_utf8().ok().map(Into::into)
}

/// A URL that spans can be sent to: without a query, and without a credential, which belongs into a header.
fn url(text: &str) -> Option<Uri> {
    let uri: Uri = text.trim().parse().ok()?;
    let is_plain = |authority: &Authority| !authority.as_str().contains('@') && !authority.host().is_empty();
    let fits = matches!(uri.scheme(), Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    (fits && uri.authority().is_some_and(is_plain) && uri.query().is_none()).then_some(uri)
}

/// `name=value` or `name: value`; the value is a secret.
fn header(text: &str, between: char) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(between)?;
    let value = if between == '=' { plain(value)? } else { value.trim().to_owned() };
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((name.trim().to_ascii_lowercase().parse().ok()?, value))
}

fn headers_in(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read =
        |(index, line)| header(line, ':').ok_or_else(|| format!("line {} of the file is not `name: value`", index + 1));
    lines.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Share;

    fn planned(settings: &Settings, variables: &[(&str, &str)]) -> Planned {
        plan(settings, &variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn by(variables: &[(&str, &str)]) -> Plan {
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
        all.extend_from_slice(variables);
        planned(&Settings::default(), &all).plan.expect("an endpoint is set")
    }

    fn written(endpoint: &str) -> Settings {
        Settings { endpoint: Some(endpoint.to_owned()), ..Settings::default() }
    }

    #[test]
    fn traces_are_off_until_there_is_somewhere_to_send_them() {
        let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (rule, endpoint, variables, expected) in [
            ("nothing is written", None, &[][..], false),
            ("the knob", Some("http://collector:4318"), &[], true),
            ("the variable", None, &[on], true),
            ("the variable for traces", None, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/x")], true),
            ("an empty variable counts as unset", None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], false),
            ("OTEL_SDK_DISABLED", None, &[on, ("OTEL_SDK_DISABLED", "True")], false),
            ("OTEL_SDK_DISABLED is true or nothing", None, &[on, ("OTEL_SDK_DISABLED", "1")], true),
            ("OTEL_TRACES_EXPORTER", None, &[on, ("OTEL_TRACES_EXPORTER", "none")], false),
            ("OTEL_TRACES_EXPORTER", None, &[on, ("OTEL_TRACES_EXPORTER", "otlp")], true),
        ] {
            let settings = Settings { endpoint: endpoint.map(str::to_owned), ..Settings::default() };
            assert_eq!(planned(&settings, variables).plan.is_some(), expected, "{rule}");
        }
    }

    #[test]
    fn an_endpoint_for_traces_is_whole_and_any_other_is_a_base() {
        let (general, special) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        for (variables, expected) in [
            (&[(general, "http://c:4318")][..], "http://c:4318/v1/traces"),
            (&[(general, "http://c:4318/")], "http://c:4318/v1/traces"),
            (&[(general, "https://c/otlp/")], "https://c/otlp/v1/traces"),
            (&[(general, "http://c:4318"), (special, "http://d/")], "http://d/"),
            (&[(special, "http://d/mine")], "http://d/mine"),
            (&[(general, "http://c:4317"), grpc], "http://c:4317/"),
            (&[(general, "collector"), (special, "also nothing")], "http://knob:1/v1/traces"),
        ] {
            let plan = planned(&written("http://knob:1"), variables).plan.expect("an endpoint");
            assert_eq!(plan.endpoint.to_string(), expected, "{variables:?}");
        }
    }

    #[test]
    fn the_variable_for_traces_goes_before_the_general_one_and_that_before_the_knob() {
        let settings = Settings { protocol: Protocol::Grpc, ..written("http://c:4317") };
        let (general, special) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
        for (variables, expected) in [
            (&[][..], Protocol::Grpc),
            (&[(general, "http/protobuf")], Protocol::HttpProtobuf),
            (&[(general, "http/protobuf"), (special, "grpc")], Protocol::Grpc),
            (&[(general, "http/protobuf"), (special, "http/json")], Protocol::HttpProtobuf),
        ] {
            assert_eq!(planned(&settings, variables).plan.expect("on").protocol, expected, "{variables:?}");
        }
    }

    #[test]
    fn every_variable_of_the_batch_and_of_the_way_is_heeded() {
        let usual = by(&[]);
        assert_eq!((usual.batch, usual.timeout, usual.gzip), (Batch::default(), Duration::from_secs(10), false));
        let plan = by(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "128"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "200"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ]);
        let millis = Duration::from_millis;
        assert_eq!(plan.batch, Batch { delay: millis(100), max_queue: 64, max_size: 64, timeout: millis(200) });
        assert_eq!((plan.timeout, plan.gzip), (millis(300), true));
    }

    #[test]
    fn a_sampler_is_named_as_opentelemetry_names_it() {
        let (all, half) = (Sampler::of_ratio(1.0), Sampler::of_ratio(0.5));
        let arg = ("OTEL_TRACES_SAMPLER_ARG", "0.5");
        for (variables, expected) in [
            (&[][..], all.parent_based()),
            (&[("OTEL_TRACES_SAMPLER", "always_on")], all),
            (&[("OTEL_TRACES_SAMPLER", "always_off"), arg], Sampler::of_ratio(0.0)),
            (&[("OTEL_TRACES_SAMPLER", "traceidratio"), arg], half),
            (&[("OTEL_TRACES_SAMPLER", "parentbased_always_on"), arg], all.parent_based()),
            (&[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), arg], half.parent_based()),
            (&[("OTEL_TRACES_SAMPLER", "jaeger_remote"), arg], half.parent_based()),
            (&[("OTEL_TRACES_SAMPLER_ARG", "2")], all.parent_based()),
        ] {
            assert_eq!(by(variables).sampler, expected, "{variables:?}");
        }
        let settings = Settings { sample_ratio: Share::percent(50), ..written("http://c:4318") };
        assert_eq!(planned(&settings, &[]).plan.expect("on").sampler, half.parent_based());
    }

    #[test]
    fn context_is_handed_on_unless_that_is_turned_off() {
        for (names, expected) in [
            ("", true),
            ("tracecontext,baggage", true),
            ("b3, tracecontext", true),
            ("none", false),
            ("b3multi", false),
        ] {
            assert_eq!(by(&[("OTEL_PROPAGATORS", names)]).propagates, expected, "{names}");
        }
    }

    #[test]
    fn the_sender_is_named_by_the_system_and_the_operator() {
        let attribute = |plan: &Plan, name: &str| {
            plan.resource.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let own = by(&[]);
        assert_eq!(attribute(&own, "service.name").as_deref(), Some("weir"));
        assert_eq!(attribute(&own, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(attribute(&own, "process.pid"), Some(std::process::id().to_string()));
        assert!(attribute(&own, "k8s.pod.name").is_none());

        let plan = by(&[
            ("POD_NAMESPACE", "shop"),
            ("POD_NAME", "cart-1"),
            ("POD_UID", "u-1"),
            ("NODE_NAME", "n-1"),
            ("CONTAINER_NAME", "sidecar"),
            ("DEPLOYMENT_NAME", "cart"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,service.namespace=shop,team=a%2Cb,k8s.node.name=n-2"),
            ("OTEL_SERVICE_NAME", "cart"),
        ]);
        for (name, expected) in [
            ("service.name", "cart"),
            ("service.namespace", "shop"),
            ("service.instance.id", "shop.cart-1.sidecar"),
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "cart-1"),
            ("k8s.pod.uid", "u-1"),
            ("k8s.node.name", "n-2"),
            ("k8s.container.name", "sidecar"),
            ("k8s.deployment.name", "cart"),
            ("team", "a,b"),
        ] {
            assert_eq!(attribute(&plan, name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let plan = by(&[("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20c2VjcmV0,x-tenant=a=b")]);
        let values: Vec<_> = plan.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(values, [("authorization", &b"Basic c2VjcmV0"[..]), ("x-tenant", b"a=b")]);
        assert!(!format!("{plan:?}").contains("c2VjcmV0"));

        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("headers");
        std::fs::write(&path, "Authorization: Bearer sesame\n\nx-tenant: a: b\n").expect("written");
        let settings = Settings { headers_file: Some(path.clone()), ..written("http://c:4318") };
        let plan = planned(&settings, &[]).plan.expect("on");
        let values: Vec<_> = plan.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(values, [("authorization", &b"Bearer sesame"[..]), ("x-tenant", b"a: b")]);

        std::fs::write(&path, "x-tenant: a\nsesame\n").expect("written");
        let planned = planned(&settings, &[]);
        assert_eq!(planned.mistakes, [("headers_file", "line 2 of the file is not `name: value`".to_owned())]);
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_ignored_with_a_remark() {
        for (name, value, expected) in [
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "collector:4318",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is ignored: it is not an http or https URL such as \
                 http://127.0.0.1:4318",
            ),
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "http/json",
                "OTEL_EXPORTER_OTLP_PROTOCOL is ignored: it is not one of grpc, http/protobuf",
            ),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "sesame",
                "OTEL_EXPORTER_OTLP_HEADERS is ignored: it is not a list such as name=value,name=value",
            ),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "OTEL_BSP_MAX_QUEUE_SIZE is ignored: it is not a number from 1 to 65536"),
            (
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                "/absent",
                "OTEL_EXPORTER_OTLP_CERTIFICATE is ignored: it is not a file that can be read",
            ),
            ("OTEL_PROPAGATORS", "b3", "OTEL_PROPAGATORS names none that weir knows, which is tracecontext"),
        ] {
            let planned = planned(&written("http://c:4318"), &[(name, value)]);
            assert_eq!((planned.remarks, planned.plan.is_some()), (vec![expected.to_owned()], true), "{name}");
        }
    }

    #[test]
    fn a_knob_that_makes_no_sense_is_a_mistake() {
        let endpoints = ["collector:4318", "ftp://c", "http://user:sesame@c:4318", "http://c:4318?x=1", "http://"];
        for endpoint in endpoints {
            let planned = planned(&written(endpoint), &[]);
            let expected = "is not an http or https URL such as http://127.0.0.1:4318".to_owned();
            assert_eq!(planned.mistakes, [("endpoint", expected)], "{endpoint}");
        }
        let settings = Settings { ca_file: Some("/absent".into()), ..written("http://c:4318") };
        assert_eq!(planned(&settings, &[]).mistakes[0].0, "ca_file");
    }
}
