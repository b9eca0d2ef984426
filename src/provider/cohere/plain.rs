//! Plain: replies that never stream and say little of themselves: embeddings, rerankings, classifications, token ids.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::cohere::usage::Reported;
use crate::provider::endpoint::Endpoint;
use crate::provider::lenient::{Object, Text};
use crate::provider::{Ending, EventKind, ReadReply, Said};

/// Reads one reply: complete if it is a JSON object that is not an error.
#[derive(Debug)]
pub(super) struct Reply {
    /// Whether it only counts tokens: that is no usage.
    counts_tokens: bool,
    said: Said,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    meta: Object<Reported>,
    /// What an error says.
    #[serde(borrow)]
    message: Text<'a>,
}

impl Reply {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { counts_tokens: endpoint == Endpoint::CohereTokenize, said: Said::default() }
    }
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.said.ending = Ending::Failed;
            return;
        }
        let Some(Object(Some(body))) = json::read::<Object<Body<'_>>>(body) else { return };
        body.id.keep_first(&mut self.said.facts.id);
        self.said.usage = body.meta.get().filter(|_| !self.counts_tokens).and_then(Reported::usage);
        self.said.ending = if body.message.get().is_some() { Ending::Failed } else { Ending::Complete };
    }

    fn event(&mut self, _: &Event<'_>) -> EventKind {
        EventKind::Other
    }

    fn finish(self: Box<Self>) -> Said {
        self.said
    }
}
