//! Crossing: stored answers in other forms than the one a request asks for. Which form that is, under which keys the
//! others are, and what the app gets of one of them.
//!
//! An answer is stored in the form that the provider sent it in. A stream that weir had asked for usage is stored with
//! it, so that it can be told in every form. Knows no wire format: those are the business of `provider::forms`.

use std::borrow::Cow;
use std::iter;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json_borrow::Value;
use tokio::time::Instant;

use crate::cache::{Fetched, Lookup, Reusable, Usable};
use crate::exchange::Rooms;
use crate::exchange::filter::Filter;
use crate::exchange::route::{self, Route};
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::{self, Answer, Forms, Rendered};
use crate::provider::{self, Provider};
use crate::record::call::Form;

/// What the app gets of an answer that is stored in another form.
pub(super) struct Crossed {
    pub(super) rendered: Rendered,
    /// Whether it is another one than it was: without what weir alone had asked for, it is what the app had.
    pub(super) is_another: bool,
}

/// A request without what only says the form of its answer.
pub(super) struct WithoutForm<'a> {
    pub(super) path: Cow<'a, str>,
    pub(super) query: Option<Cow<'a, str>>,
    /// What of its body does not count, in ascending order.
    pub(super) ignored: Vec<&'a str>,
}

/// The form that a request asks for, and what its answers' forms are; `None` if they cannot be turned into each other,
/// or the operator does not want that.
pub(super) fn asked(
    rooms: &Rooms,
    route: &Route,
    path: &str,
    query: Option<&str>,
    body: &Value<'_>,
) -> Option<(Form, &'static Forms)> {
    let endpoint = route.endpoint;
    let forms = endpoint.forms().filter(|_| rooms.cache.crosses_forms())?;
    let form = (forms.asked)(&provider::Request { endpoint, path, query, body })?;
    Some((as_told(form, &route.to.provider), forms))
}

/// Streams of a provider that weir does not ask for usage tell it in their own way, or not at all.
fn as_told(form: Form, provider: &Provider) -> Form {
    if form == Form::StreamWithoutUsage && !provider.ask_for_usage { Form::Stream } else { form }
}

/// What of a request does not say the form of its answer.
pub(super) fn without_form<'a>(
    forms: &Forms,
    path: &'a str,
    query: Option<&'a str>,
    ignored: &[&'a str],
) -> WithoutForm<'a> {
    let whole = |(stream, whole): (&str, &str)| Some(format!("{}{whole}", path.strip_suffix(stream)?));
    let mut ignored = [ignored, forms.members].concat();
    ignored.sort_unstable();
    WithoutForm {
        path: forms.path_ends.and_then(whole).map_or(Cow::Borrowed(path), Cow::Owned),
        query: route::part_credentials(query, forms.queries).1,
        ignored,
    }
}

/// Looks for an answer in another form that can be told in the one asked for.
pub(super) fn look_up(
    rooms: &Rooms,
    endpoint: Endpoint,
    reusable: &Reusable,
    now: Instant,
) -> Option<(Usable, Crossed)> {
    let asked = reusable.forms?.asked;
    others(endpoint, reusable).find_map(|(form, other)| {
        let is_another = (form, asked) != (Form::StreamWithUsage, Form::StreamWithoutUsage);
        if is_another && reusable.terms.directives.no_transform {
            return None;
        }
        let Lookup::Usable(usable) = rooms.cache.look_up(&other, now) else { return None };
        let reply = usable.stored.reply();
        let answer = Answer { form, headers: &reply.headers, body: &reply.body };
        let rendered = forms::render(endpoint, &answer, asked, rooms.cache.max_entry_bytes())?;
        Some((usable, Crossed { rendered, is_another }))
    })
}

/// Fetches what replicas share of an answer, in the form asked for and in others, all at once.
pub(super) async fn fetch(rooms: &Rooms, endpoint: Endpoint, reusable: &Reusable) -> Fetched {
    if reusable.forms.is_none() {
        return rooms.cache.fetch(&reusable.key).await;
    }
    let keys = iter::once(reusable.key).chain(others(endpoint, reusable).map(|(_, other)| other.key));
    let fetched = join_all(keys.map(|key| async move { rooms.cache.fetch(&key).await })).await;
    fetched.into_iter().max().unwrap_or(Fetched::Unasked)
}

/// The same request in each other form that its answers have.
fn others(endpoint: Endpoint, reusable: &Reusable) -> impl Iterator<Item = (Form, Reusable)> {
    let all = endpoint.forms().map_or(&[][..], |forms| forms.all);
    let asked = reusable.forms.map(|forms| forms.asked);
    all.iter().filter(move |form| Some(**form) != asked).filter_map(|form| Some((*form, reusable.in_form(*form)?)))
}

/// Where an answer is to be stored of which the app got `body`, and what of it: all that came, if `filter` took out of it
/// what weir alone had asked for and that may be of use to others.
pub(super) fn all_of(reusable: Reusable, body: Bytes, filter: Option<&Filter>, limit: usize) -> (Reusable, Bytes) {
    let put_back = || {
        let with_usage = reusable.in_form(Form::StreamWithUsage)?;
        let whole = filter?.put_back(&body).filter(|whole| whole.len() <= limit)?;
        Some((with_usage, whole))
    };
    put_back().unwrap_or((reusable, body))
}
