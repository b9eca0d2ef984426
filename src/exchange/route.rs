//! Route: which provider a request is for, what kind of request it is, and how its head reads on the way up.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use percent_encoding::{percent_decode, percent_decode_str};

use crate::exchange::{Destination, Rooms};
use crate::provider::Provider;
use crate::provider::endpoint::Endpoint;

/// Where one request goes.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) to: Arc<Destination>,
    pub(super) endpoint: Endpoint,
    pub(super) target: Uri,
    /// Where the path below the base URL begins in the app's own.
    below: usize,
}

impl Route {
    /// Finds the way: `/<provider>/<rest>` goes to that provider, bare `/v1/…` to the default one, and so does what
    /// begins with the version of its API. A credential in the query stays here where weir puts in its own.
    pub(super) fn find(rooms: &Rooms, method: &Method, uri: &Uri) -> Option<Self> {
        let path = uri.path();
        let first = path.strip_prefix('/')?.split('/').next()?;
        let (to, rest) = match rooms.destinations.get(first) {
            Some(named) => (named, &path[1 + first.len()..]),
            None if first == "v1" || (is_version(first) && first == version_of(&rooms.default_destination)) => {
                (&rooms.default_destination, path)
            }
            None => return None,
        };
        let provider = &to.provider;
        let endpoint = (provider.api.dialect().endpoint)(method, rest);
        let query = match to.credential {
            Some(_) => part_credentials(uri.query(), provider.api.dialect().credential_queries).1,
            None => uri.query().map(Cow::from),
        };
        let target = target(provider, endpoint, rest, query.as_deref())?;
        Some(Self { to: Arc::clone(to), endpoint, target, below: path.len() - rest.len() })
    }

    /// The path below the base URL, of the `uri` that was routed.
    pub(super) fn path<'a>(&self, uri: &'a Uri) -> &'a str {
        &uri.path()[self.below..]
    }
}

/// The first part of a path of the API.
fn version_of(to: &Destination) -> &'static str {
    to.provider.api.dialect().version_prefix.trim_start_matches('/')
}

/// The parameters of a query that are credentials, by these names, and the query without them: byte for byte as it was,
/// if there are none.
pub(super) fn part_credentials<'a>(
    query: Option<&'a str>,
    names: &[&str],
) -> (Vec<(&'a str, &'a str)>, Option<Cow<'a, str>>) {
    let Some(query) = query else { return (Vec::new(), None) };
    let is_credential = |pair: &&str| {
        let name = percent_decode_str(named(pair).0).decode_utf8_lossy();
        names.contains(&&*name)
    };
    let (credentials, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_credential);
    if credentials.is_empty() {
        return (Vec::new(), Some(query.into()));
    }
    (credentials.into_iter().map(named).collect(), (!rest.is_empty()).then(|| rest.join("&").into()))
}

/// The name and the value of a parameter.
fn named(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// The base URL with the rest of the path appended: what the rest repeats of the base's path is not repeated, for SDKs
/// that write all of it themselves; and the API's version is put in where an app left it out, as `/anthropic/messages`
/// does. `None` where it would lead out of what is below the base URL.
#[must_use]
pub fn target(provider: &Provider, endpoint: Endpoint, rest: &str, query: Option<&str>) -> Option<Uri> {
    if climbs(rest) {
        return None;
    }
    let base = provider.base_url.path().trim_end_matches('/');
    let below = rest.strip_prefix(base).filter(|below| below.starts_with('/')).unwrap_or(rest);
    let has_version = below.split('/').any(is_version);
    let version = if endpoint.is_versioned() && !has_version { provider.version_prefix } else { "" };
    let below = if below.is_empty() && base.is_empty() { "/" } else { below };
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    let path = [base, version, below, mark, query].concat();
    let mut parts = provider.base_url.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a path has a part that leads upwards (RFC 3986, section 5.2.4), as any server on the way may read it: encoded
/// once or twice, parted by a backslash, or with a parameter behind. What weir puts its credential to must stay below the
/// base URL.
pub(super) fn climbs(path: &str) -> bool {
    if !path.contains("..") && !path.contains('%') {
        return false;
    }
    let once: Cow<'_, [u8]> = percent_decode_str(path).into();
    let twice: Cow<'_, [u8]> = percent_decode(&once).into();
    let leads_upwards = |part: &[u8]| part.split(|byte| *byte == b';').next() == Some(b"..");
    [path.as_bytes(), &once, &twice]
        .iter()
        .any(|path| path.split(|byte| matches!(byte, b'/' | b'\\')).any(leads_upwards))
}

/// Whether a part of a path names the version of an API: `v1`, `v1beta`, `v1beta1`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
}

/// Names that belong to one connection (RFC 9110, section 7.6.1), with the proxy's own and `Expect`, which weir has
/// already met.
const HOP_BY_HOP: [HeaderName; 9] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, HOST, EXPECT];

/// Hop-by-hop names without a constant of their own.
static HOP_BY_HOP_TOO: [HeaderName; 2] =
    [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];

/// Leaves one length of a reply's body, and none beside another framing: "a recipient … MUST replace the duplicated field
/// values with a single valid Content-Length" (RFC 9110, section 8.6), and where there is a `Transfer-Encoding` "MUST remove
/// the received Content-Length field" (RFC 9112, section 6.3). The client has seen to it that all say the same.
pub(super) fn leave_one_length(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
        return;
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return };
    if lengths.next().is_none() && first.as_bytes().iter().all(u8::is_ascii_digit) {
        return;
    }
    let one = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    match HeaderValue::from_bytes(one) {
        Ok(one) => drop(headers.insert(CONTENT_LENGTH, one)),
        Err(_) => drop(headers.remove(CONTENT_LENGTH)),
    }
}

/// Removes what belongs to one connection only: the well-known names and those that `Connection` lists.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    remove_all(headers, |name| HOP_BY_HOP.contains(name) || HOP_BY_HOP_TOO.contains(name) || listed.contains(name));
}

/// Removes every header whose name `is_one`. To look at the few that there are takes less than to ask for the many that there
/// could be.
pub(super) fn remove_all(headers: &mut HeaderMap, is_one: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_one(name)).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::provider::{Api, CredentialSource, PricedAs};

    fn provider(api: Api, base_url: &str) -> Provider {
        Provider {
            capture: None,
            name: "p".into(),
            label: "p".into(),
            settled: true,
            api,
            base_url: base_url.parse().expect("a URL"),
            version_prefix: api.dialect().version_prefix,
            models: BTreeMap::new(),
            ask_for_usage: true,
            propagate_upstream: false,
            prices: PricedAs::Unknown,
            credential: CredentialSource::App,
            fallbacks: Vec::new(),
        }
    }

    #[test]
    fn paths_without_a_version_of_their_api_get_none() {
        for (api, endpoint, rest, expected) in [
            (Api::OpenAi, Endpoint::LlamaCppCompletion, "/completion", "http://h/completion"),
            (Api::OpenAi, Endpoint::TgiGenerateStream, "/generate_stream", "http://h/generate_stream"),
            (Api::Cohere, Endpoint::CohereChat, "/v2/chat", "http://h/v2/chat"),
            (Api::Cohere, Endpoint::Embeddings, "/compatibility/v1/embeddings", "http://h/compatibility/v1/embeddings"),
            (Api::Ollama, Endpoint::OllamaChat, "/api/chat", "http://h/api/chat"),
            (Api::Ollama, Endpoint::Other, "/api/tags", "http://h/api/tags"),
            (Api::Ollama, Endpoint::ChatCompletions, "/chat/completions", "http://h/v1/chat/completions"),
        ] {
            let target = target(&provider(api, "http://h"), endpoint, rest, None).expect("a target");
            assert_eq!(target.to_string(), expected);
        }
    }

    #[test]
    fn the_rest_of_the_path_is_appended_and_a_left_out_version_put_in() {
        let openai = provider(Api::OpenAi, "https://api.openai.com");
        let anthropic = provider(Api::Anthropic, "https://api.anthropic.com");
        let gemini = provider(Api::Gemini, "https://generativelanguage.googleapis.com");
        for (provider, endpoint, rest, query, expected) in [
            (
                &openai,
                Endpoint::ChatCompletions,
                "/v1/chat/completions",
                None,
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                &openai,
                Endpoint::ChatCompletions,
                "/chat/completions",
                None,
                "https://api.openai.com/v1/chat/completions",
            ),
            (&openai, Endpoint::Other, "/v1/models", Some("a=b%20c"), "https://api.openai.com/v1/models?a=b%20c"),
            (&openai, Endpoint::Other, "", None, "https://api.openai.com/"),
            (
                &anthropic,
                Endpoint::Messages,
                "/messages",
                Some("beta=true"),
                "https://api.anthropic.com/v1/messages?beta=true",
            ),
            (&anthropic, Endpoint::Messages, "/v1/messages", None, "https://api.anthropic.com/v1/messages"),
            (
                &gemini,
                Endpoint::GenerateContent,
                "/models/m:generateContent",
                None,
                "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
            ),
            (
                &gemini,
                Endpoint::GenerateContent,
                "/v1/models/m:generateContent",
                None,
                "https://generativelanguage.googleapis.com/v1/models/m:generateContent",
            ),
        ] {
            let uri = target(provider, endpoint, rest, query).expect("a target");
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn what_a_path_repeats_of_the_base_url_is_there_once_and_a_gateways_path_is_whole() {
        let vendor = |base_url| provider(Api::OpenAi, base_url);
        let groq = || vendor("https://groq/openai");
        let gateway = || Provider { version_prefix: "", ..vendor("https://gateway/team/v1") };
        let chat = Endpoint::ChatCompletions;
        for (provider, endpoint, rest, expected) in [
            (groq(), chat, "/v1/chat/completions", "https://groq/openai/v1/chat/completions"),
            (groq(), chat, "/chat/completions", "https://groq/openai/v1/chat/completions"),
            (groq(), chat, "/openai/v1/chat/completions", "https://groq/openai/v1/chat/completions"),
            (groq(), Endpoint::Free, "/openai/v1/files", "https://groq/openai/v1/files"),
            (groq(), Endpoint::Other, "/openaix", "https://groq/openai/openaix"),
            (groq(), Endpoint::Other, "", "https://groq/openai"),
            (gateway(), chat, "/chat/completions", "https://gateway/team/v1/chat/completions"),
            (gateway(), chat, "/v1/chat/completions", "https://gateway/team/v1/v1/chat/completions"),
            (
                vendor("https://deepseek"),
                Endpoint::Messages,
                "/anthropic/v1/messages",
                "https://deepseek/anthropic/v1/messages",
            ),
        ] {
            assert_eq!(target(&provider, endpoint, rest, None).expect("a target").to_string(), expected);
        }
    }

    #[test]
    fn no_path_leads_out_of_what_is_below_the_base_url() {
        let gateway = provider(Api::OpenAi, "https://gateway/team/v1");
        for (rest, is_target) in [
            ("/../admin", false),
            ("/a/../../admin", false),
            ("/a/..", false),
            ("/%2e%2e/admin", false),
            ("/%2E./admin", false),
            ("/..%2fadmin", false),
            ("/%252e%252e/admin", false),
            ("/..;/admin", false),
            ("/..;a=b/admin", false),
            ("/a\\..\\admin", false),
            ("/a%5c..%5cadmin", false),
            ("/a..b/..c/d../...", true),
            ("/./a/%2e/b", true),
            ("//other.example/a", true),
            ("/@other.example/a", true),
            ("/files/a%2Fb%20c", true),
        ] {
            let found = target(&gateway, Endpoint::Other, rest, None).map(|uri| uri.to_string());
            assert_eq!(found, is_target.then(|| format!("https://gateway/team/v1{rest}")), "{rest}");
        }
        assert!(target(&gateway, Endpoint::Other, "/a", Some("b=../..")).is_some(), "a query is no path");
    }

    #[test]
    fn a_reply_has_one_length_and_none_beside_another_framing() {
        for (fields, expected) in [
            (&[("content-length", "5")][..], &["5"][..]),
            (&[("content-length", "5"), ("content-length", "5")], &["5"]),
            (&[("content-length", "5, 5")], &["5"]),
            (&[("content-length", "5"), ("transfer-encoding", "chunked")], &[]),
            (&[], &[]),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            leave_one_length(&mut headers);
            let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(left, expected, "{fields:?}");
        }
    }

    #[test]
    fn credentials_are_parted_from_a_query_that_is_otherwise_as_it_was() {
        let names = &["key", "access_token"];
        for (query, credentials, rest) in [
            (None, &[][..], None),
            (Some("alt=sse&&a=%20"), &[], Some("alt=sse&&a=%20")),
            (Some("key=secret"), &[("key", "secret")], None),
            (Some("key=secret&alt=sse"), &[("key", "secret")], Some("alt=sse")),
            (Some("a=b&k%65y=s=1&access_token=t"), &[("k%65y", "s=1"), ("access_token", "t")], Some("a=b")),
            (Some("key"), &[("key", "")], None),
            (Some("keys=1"), &[], Some("keys=1")),
        ] {
            let parted = part_credentials(query, names);
            assert_eq!((&*parted.0, parted.1.as_deref()), (credentials, rest), "{query:?}");
        }
    }

    #[test]
    fn connection_headers_stop_here_and_others_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop, \u{e9}, , \""),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer k"),
            ("x-stainless-lang", "python"),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            headers.insert(HeaderName::from_static(name), value);
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-stainless-lang"]);
    }
}
