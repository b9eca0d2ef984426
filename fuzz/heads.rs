//! Heads of requests and replies, paths, and names that become labels.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use weir::cache::policy::Preferences;
use weir::config::{Config, Sources};
use weir::exchange::route::target;
use weir::exchange::{Identity, Who, form};
use weir::labels::tidy;
use weir::pattern::Pattern;
use weir::provider::endpoint::Endpoint;
use weir::provider::quotas::{Again, item, quoted, write};
use weir::provider::{Provider, headers};
use weir::record::trace::Context;
use weir::units::{ByteSize, PicoUsd, Span};

use super::{as_file, two_parts};

/// The fields of a head, one a line, as far as they are fields.
fn fields(data: &[u8]) -> HeaderMap {
    let mut found = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            found.append(name, value);
        }
    }
    found
}

/// What the head of a reply says: quotas, ids, when to try again.
pub fn reply(data: &[u8]) {
    let facts = headers::read(&fields(data), SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    assert!(facts.request_id.is_none_or(|id| id.len() <= 256), "an id is short");
    let mut own = HeaderMap::new();
    let again = facts.retry_after.map_or(Again::Soon, Again::In);
    write(&mut own, None, &[], again, SystemTime::UNIX_EPOCH);
    assert!(own.values().all(|value| value.to_str().is_ok()), "what weir writes of it can be read");
}

/// What the head of a request says: who asks, what of the cache, which form.
pub fn request(data: &[u8]) {
    let fields = fields(data);
    let who = Who::new(&Identity::default()).expect("the default names");
    let caller = who.read(&fields);
    let named = [&caller.namespace, &caller.workspace, &caller.user, &caller.agent, &caller.run];
    for name in named.into_iter().flatten() {
        assert!(!name.trim_ascii().is_empty(), "who is named has a name");
        assert!(HeaderValue::try_from(item(name)).is_ok(), "a name can be told in a header");
        assert!(HeaderValue::try_from(quoted(name)).is_ok(), "a name can be told in a header");
    }
    let _ = Preferences::of(&fields);
    let _ = form::boundary(&fields);
}

/// `traceparent`: what is read is written as it was, but for what this version does not know.
pub fn traceparent(data: &[u8]) {
    let Some(context) = Context::parse(data) else { return };
    let written = context.to_string();
    assert_eq!(Context::parse(written.as_bytes()), Some(context));
    assert!(data.starts_with(&written.as_bytes()[2..52]) || data[2..52] == written.as_bytes()[2..52]);
}

/// Where a request goes: whatever the path, to the host and below the path that the operator wrote.
pub fn route(data: &[u8]) {
    static PROVIDERS: OnceLock<Vec<Arc<Provider>>> = OnceLock::new();
    let [which, rest @ ..] = data else { return };
    let name = format!("p{}", which & 15);
    let mut providers = PROVIDERS.get_or_init(providers).iter();
    let provider = providers.find(|provider| *provider.name == *name).expect("there are sixteen");
    let Ok(uri) = <http::Uri as TryFrom<&[u8]>>::try_from(rest) else { return };
    for &endpoint in Endpoint::ALL {
        let path = uri.path();
        if !path.starts_with('/') {
            return;
        }
        let Some(to) = target(provider, endpoint, path, uri.query()) else { continue };
        assert_eq!(to.scheme(), provider.base_url.scheme());
        assert_eq!(to.authority(), provider.base_url.authority(), "no path leads to another host");
        let below = provider.base_url.path().trim_end_matches('/');
        assert!(resolved(to.path()).starts_with(below), "{to} leaves {}", provider.base_url);
    }
}

/// As an operator writes them: `p0` to `p15`.
fn providers() -> Vec<Arc<Provider>> {
    const BASES: [&str; 4] = [
        "https://api.example",
        "https://gateway.example/team/v1",
        "http://127.0.0.1:8000/",
        "https://h.example:444/openai",
    ];
    let mut yaml = "providers:\n".to_owned();
    let apis = ["openai", "anthropic", "gemini", "bedrock"];
    let all = apis.iter().flat_map(|api| BASES.iter().map(move |base| (api, base)));
    for (number, (api, base)) in all.enumerate() {
        writeln!(yaml, "  p{number}: {{ api: {api}, base_url: \"{base}\" }}").expect("memory");
    }
    as_file("weir.yaml", yaml.as_bytes(), |path| {
        let sources = Sources { file: Some(path.to_owned()), ..Sources::default() };
        Config::load(&sources).unwrap_or_else(|mistakes| panic!("{mistakes}")).providers
    })
}

/// A path as a lenient server reads it: decoded, with its dots followed (RFC 3986, section 5.2.4).
fn resolved(path: &str) -> String {
    let decoded =
        path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
    let mut parts: Vec<&str> = Vec::new();
    for part in decoded.split('/').skip(1) {
        match part.split(';').next().unwrap_or_default() {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Names from outside as labels, patterns, and amounts as people write them.
pub fn labels(data: &[u8]) {
    let (one, other) = two_parts(data);
    let (one, other) = (String::from_utf8_lossy(one), String::from_utf8_lossy(other));
    let label = tidy(&one);
    assert!(label.len() <= 256 && !label.chars().any(char::is_control), "a label is short, and one line");
    assert_eq!(tidy(&label), label, "what is tidy stays as it is");
    if let Ok(pattern) = serde_json::from_value::<Pattern>(one.clone().into()) {
        let _ = pattern.matches(&other);
    }
    let text = serde_json::Value::from(&*one);
    if let Ok(span) = serde_json::from_value::<Span>(text.clone()) {
        let written = serde_json::to_value(span).expect("a span can be written");
        assert_eq!(serde_json::from_value::<Span>(written).ok(), Some(span), "a time that is read is written as it is");
    }
    if let Ok(size) = serde_json::from_value::<ByteSize>(text) {
        let written = serde_json::to_value(size).expect("a size can be written");
        assert!(serde_json::from_value::<ByteSize>(written).is_ok(), "a size that is read can be written");
    }
    if let Some(amount) = PicoUsd::of_usd(&one) {
        assert_eq!(PicoUsd::of_usd(&amount.to_string()), Some(amount), "money is read as it is written");
    }
}
