//! Quote: what a request would cost, told before it is sent, and what its reply cost, told from outside of weir. For
//! whoever sends requests of their own: nothing here is on the way of an app's call.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json_borrow::Value;

use crate::exchange::bill::{self, Estimable};
use crate::exchange::route::Route;
use crate::exchange::{Destination, Rooms};
use crate::json;
use crate::provider::endpoint::Endpoint;
use crate::provider::reader::Reader;
use crate::provider::{self, Reuse, Said};
use crate::record::call::{Call, Caller};
use crate::record::usage::{Cost, Unpriced, Usage};
use crate::tokens::prompt;
use crate::tokens::{Count, Vocabulary};

/// A request, understood and not sent.
#[derive(Debug)]
pub struct Quote {
    to: Arc<Destination>,
    endpoint: Endpoint,
    call: Call,
    is_reusable: bool,
    most_output: Option<u64>,
}

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// With no output at all.
    pub least: Cost,
    /// With as much output as the request allows; `None` if it sets no limit.
    pub most: Option<Cost>,
}

impl Quote {
    /// Understands a POST to `uri`, a path as apps write it. `None` if weir has no provider for it.
    #[must_use]
    pub fn of(rooms: &Rooms, uri: &Uri, body: &Bytes) -> Option<Self> {
        let route = Route::find(rooms, &Method::POST, uri)?;
        let json = json::opened(body).unwrap_or(Value::Null);
        let endpoint = route.endpoint;
        let request = provider::Request { endpoint, path: route.path(uri), query: uri.query(), body: &json };
        let asked = (endpoint.format().asked)(&request);
        let call = Call {
            provider: Arc::clone(&route.to.provider.label),
            operation: asked.operation,
            model: asked.model.as_deref().map(Into::into),
            delivery: asked.delivery,
            caller: Caller::default(),
        };
        let is_reusable = matches!(asked.reuse, Reuse::Allowed(_));
        Some(Self { to: route.to, endpoint, call, is_reusable, most_output: prompt::most_output(&json) })
    }

    /// The provider's configured name.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.to.provider.name
    }

    /// The model asked for.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.call.model.as_deref()
    }

    /// Whether the answer may be stored at all.
    #[must_use]
    pub const fn is_reusable(&self) -> bool {
        self.is_reusable
    }

    /// What it may cost. Counts the tokens of `body`, which takes milliseconds, and 46 MiB of memory for a while.
    #[must_use]
    pub fn range(&self, rooms: &Rooms, body: &[u8]) -> Range {
        if !self.call.operation.is_billed() {
            return Range { least: Cost::Nothing, most: Some(Cost::Nothing) };
        }
        let Some(estimable) = Estimable::of(self.call.operation) else {
            return Range { least: Cost::Unpriced(Unpriced::NoUsage), most: None };
        };
        let input = self.input_tokens(body);
        let price = |output| {
            let usage = Some(Usage::default().with_estimates(Some(input), Some(output)));
            self.bill(rooms, &Said { usage, ..Said::default() })
        };
        let most = match estimable {
            Estimable::Both => self.most_output.map(price),
            Estimable::Input => Some(price(0)),
        };
        Range { least: price(0), most }
    }

    /// A reader for the reply.
    #[must_use]
    pub fn reader(&self, rooms: &Rooms, status: StatusCode, headers: &HeaderMap) -> Reader {
        Reader::open(self.endpoint, status, headers, rooms.settings.max_reply_bytes.as_len())
    }

    /// What a reply cost that said this: what the provider says it charges, else by the price table.
    #[must_use]
    pub fn bill(&self, rooms: &Rooms, said: &Said) -> Cost {
        let priced = bill::price(&rooms.prices, &self.to, &self.call, said, SystemTime::now()).cost;
        crate::record::provenance::settle(priced, said.provider_cost, said.usage.as_ref()).cost
    }

    fn input_tokens(&self, body: &[u8]) -> u64 {
        let Some(request) = json::opened(body) else { return 0 };
        let mut count = Count::new(Vocabulary::of_model(self.model().unwrap_or_default()));
        let measure = prompt::read(&request, &mut |text| count.add(text));
        count.tokens().saturating_add(measure.tokens_beside)
    }
}
