//! Trace: the corridor's part about traces. What of a request its spans will tell, and what of the app's own context
//! goes on to the provider.
//!
//! No span is made here: they are made of the record, once the call is over. Where no traces are kept, all of this is
//! nothing.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json_borrow::Value;

use crate::exchange::entry::Entry;
use crate::exchange::route::Route;
use crate::exchange::{Destination, Rooms};
use crate::provider::endpoint::Endpoint;
use crate::provider::parameters::parameters;
use crate::record::trace::{Told, Trace};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// How often an SDK made by Stainless (OpenAI's, Anthropic's and others) has tried before.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

/// Stands for the name of a model in a path, until it is written as a parameter of the route.
const ANY_MODEL: &str = "__model__";

/// The place in traces of the request with this head, if any are kept.
pub(super) fn begin(rooms: &Rooms, head: &Parts, route: Option<&Route>) -> Option<Box<Trace>> {
    let mut trace = rooms.sinks.begin_trace(&head.headers)?;
    if trace.is_sampled {
        let resends = head.headers.get(RETRY_COUNT).and_then(|count| count.to_str().ok()?.parse().ok());
        trace.told = Told {
            method: Some(head.method.clone()),
            uri: Some(head.uri.clone()),
            route: route.and_then(|route| route_of(route, head)),
            openai_api: route.and_then(|route| openai_api(route.endpoint)),
            resends: resends.filter(|count| *count > 0),
            ..Told::default()
        };
    }
    Some(Box::new(trace))
}

/// What a request that was read asks for is told too.
pub(super) fn read(endpoint: Endpoint, body: &Value<'_>, entry: &mut Entry) {
    entry.tell(|told| told.parameters = parameters(endpoint, body));
}

/// The app's path without what differs from call to call; `None` where it may be anything.
fn route_of(route: &Route, head: &Parts) -> Option<Box<str>> {
    let path = Some(route.path(&head.uri)).filter(|_| route.endpoint.is_read())?;
    let before = &head.uri.path()[..head.uri.path().len() - path.len()];
    let any = (route.endpoint.format().with_model)(path, ANY_MODEL);
    let path = any.map_or_else(|| path.to_owned(), |path| path.replace(ANY_MODEL, "{model}"));
    Some(format!("{before}{path}").into())
}

/// `openai.api.type`.
const fn openai_api(endpoint: Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::ChatCompletions => Some("chat_completions"),
        Endpoint::Responses => Some("responses"),
        _ => None,
    }
}

/// Leaves of the app's context what may go on to the provider: nothing, for it tells of the inside of the app's house;
/// where the operator says that the provider is part of that house, all of it, with the attempt for its parent.
pub(super) fn hand_on(to: &Destination, trace: Option<&Trace>, headers: &mut HeaderMap) {
    if !to.provider.propagate_upstream {
        for name in [TRACEPARENT, TRACESTATE, BAGGAGE] {
            headers.remove(name);
        }
        return;
    }
    let Some(trace) = trace.filter(|trace| trace.is_handed_on) else { return };
    let parent = trace.context_of(trace.attempt).to_string();
    headers.insert(TRACEPARENT, HeaderValue::try_from(parent).expect("digits and dashes make a header value"));
    if trace.parent.is_none() {
        // It belongs to a context that is not this one's.
        headers.remove(TRACESTATE);
    }
}
