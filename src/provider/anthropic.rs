//! Anthropic.

use http::header::AUTHORIZATION;

use crate::provider::{Asked, Dialect, Endpoint, EventKind, ReadReply, Reuse, Said, UsageRequest};
use crate::record::call::Delivery;

/// How the Anthropic API is read.
pub static DIALECT: Dialect = Dialect {
    version_prefix: "/v1",
    endpoint: |_, _| Endpoint::Other,
    asked: |_, _| Asked {
        model: None,
        delivery: Delivery::Whole,
        user: None,
        usage: UsageRequest::Unneeded,
        reuse: Reuse::Never,
    },
    reader: |_| Box::new(Reply),
    error: |_| Vec::new(),
    key_headers: &[],
    credential: (AUTHORIZATION, "Bearer "),
    credential_headers: &[AUTHORIZATION],
};

struct Reply;

impl ReadReply for Reply {
    fn whole(&mut self, _: http::StatusCode, _: &[u8]) {}

    fn event(&mut self, _: &crate::sse::Event<'_>) -> EventKind {
        EventKind::Other
    }

    fn finish(self: Box<Self>) -> Said {
        Said::default()
    }
}
