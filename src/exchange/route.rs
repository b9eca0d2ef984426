//! Route: which provider a request is for, what kind of request it is, and how its head reads on the way up.

use std::sync::Arc;

use http::header::{
    CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Uri};

use crate::exchange::{Destination, Rooms};
use crate::provider::{Endpoint, Provider};

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
    /// Finds the way: `/<provider>/<rest>` goes to that provider, bare `/v1/…` to the default one.
    pub(super) fn find(rooms: &Rooms, method: &Method, uri: &Uri) -> Option<Self> {
        let path = uri.path();
        let first = path.strip_prefix('/')?.split('/').next()?;
        let (to, rest) = match rooms.destinations.get(first) {
            Some(named) => (named, &path[1 + first.len()..]),
            None if first == "v1" => (&rooms.default_destination, path),
            None => return None,
        };
        let provider = &to.provider;
        let endpoint = (provider.api.dialect().endpoint)(method, rest);
        let target = target(provider, endpoint, rest, uri.query())?;
        Some(Self { to: Arc::clone(to), endpoint, target, below: path.len() - rest.len() })
    }

    /// The path below the base URL, of the `uri` that was routed.
    pub(super) fn path<'a>(&self, uri: &'a Uri) -> &'a str {
        &uri.path()[self.below..]
    }
}

/// The base URL with the rest of the path appended; and with the API's version put in where an app left it out, as
/// `/anthropic/messages` does.
fn target(provider: &Provider, endpoint: Endpoint, rest: &str, query: Option<&str>) -> Option<Uri> {
    let base = provider.base_url.path().trim_end_matches('/');
    let version = provider.api.dialect().version_prefix;
    let has_version = rest.strip_prefix(version).is_some_and(|after| after.starts_with('/'));
    let version = if base.is_empty() && endpoint.is_versioned() && !has_version { version } else { "" };
    let rest = if rest.is_empty() && base.is_empty() { "/" } else { rest };
    let path = match query {
        Some(query) => format!("{base}{version}{rest}?{query}"),
        None => format!("{base}{version}{rest}"),
    };
    let mut parts = provider.base_url.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Names that belong to one connection (RFC 9110, section 7.6.1), with the proxy's own and `Expect`, which weir has
/// already met.
const HOP_BY_HOP: [HeaderName; 9] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, HOST, EXPECT];

/// Hop-by-hop names without a constant of their own.
const HOP_BY_HOP_TEXT: [&str; 2] = ["keep-alive", "proxy-connection"];

/// Removes what belongs to one connection only: the well-known names and those that `Connection` lists.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_TEXT {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{Api, CredentialSource, PricedAs};

    fn provider(api: Api, base_url: &str) -> Provider {
        Provider {
            name: "p".into(),
            label: "p".into(),
            api,
            base_url: base_url.parse().expect("a URL"),
            ask_for_usage: true,
            prices: PricedAs::Unknown,
            credential: CredentialSource::App,
        }
    }

    #[test]
    fn the_rest_of_the_path_is_appended_and_a_left_out_version_put_in() {
        let openai = provider(Api::OpenAi, "https://api.openai.com");
        let groq = provider(Api::OpenAi, "https://api.groq.com/openai/");
        let anthropic = provider(Api::Anthropic, "https://api.anthropic.com");
        let cohere = provider(Api::Cohere, "https://api.cohere.com");
        let ollama = provider(Api::Ollama, "http://127.0.0.1:11434");
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
            (&openai, Endpoint::LlamaCppCompletion, "/completion", None, "https://api.openai.com/completion"),
            (&cohere, Endpoint::CohereChat, "/v2/chat", None, "https://api.cohere.com/v2/chat"),
            (
                &cohere,
                Endpoint::ChatCompletions,
                "/compatibility/v1/chat/completions",
                None,
                "https://api.cohere.com/compatibility/v1/chat/completions",
            ),
            (&ollama, Endpoint::OllamaChat, "/api/chat", None, "http://127.0.0.1:11434/api/chat"),
            (&ollama, Endpoint::Other, "/api/tags", None, "http://127.0.0.1:11434/api/tags"),
            (
                &ollama,
                Endpoint::ChatCompletions,
                "/chat/completions",
                None,
                "http://127.0.0.1:11434/v1/chat/completions",
            ),
            (&openai, Endpoint::Other, "", None, "https://api.openai.com/"),
            (
                &groq,
                Endpoint::ChatCompletions,
                "/v1/chat/completions",
                None,
                "https://api.groq.com/openai/v1/chat/completions",
            ),
            (
                &groq,
                Endpoint::ChatCompletions,
                "/chat/completions",
                None,
                "https://api.groq.com/openai/chat/completions",
            ),
            (
                &anthropic,
                Endpoint::Messages,
                "/messages",
                Some("beta=true"),
                "https://api.anthropic.com/v1/messages?beta=true",
            ),
            (&anthropic, Endpoint::Messages, "/v1/messages", None, "https://api.anthropic.com/v1/messages"),
        ] {
            let uri = target(provider, endpoint, rest, query).expect("a target");
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn connection_headers_stop_here_and_others_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer k"),
            ("x-stainless-lang", "python"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().expect("a header value"));
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-stainless-lang"]);
    }
}
