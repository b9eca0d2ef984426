//! Plain: replies that never stream and say little of themselves: embeddings, moderations, token counts,
//! decisions, documents read.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::lenient::{Count, Filled, Object, Text};
use crate::provider::openai::usage::{Reported, Tally};
use crate::provider::{Ending, EventKind, ReadReply, Said};
use crate::record::usage::{Counter, Usage};

/// Reads one reply: complete if it is a JSON object without an error.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Said,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    usage_info: Object<PagesRead>,
    document_annotation: Filled,
    error: Filled,
}

/// What Mistral counts when it reads documents.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PagesRead {
    pages_processed: Count,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.said.ending = Ending::Failed;
            return;
        }
        let Some(Object(Some(body))) = json::read::<Object<Body<'_>>>(body) else { return };
        body.id.keep_first(&mut self.said.facts.id);
        body.model.keep_first(&mut self.said.facts.model);
        let mut tally = Tally::default();
        if let Some(reported) = body.usage.get() {
            tally.take(reported);
            tally.take_total_for_input();
        }
        self.said.provider_cost = tally.cost();
        let pages = body.usage_info.get().and_then(|read| read.pages_processed.0);
        self.said.usage = match pages {
            None => tally.usage(&[]),
            pages => Some(Usage::cache_inside(
                None,
                None,
                &[
                    (Counter::InputDocumentPages, pages),
                    (Counter::InputAnnotatedDocumentPages, pages.filter(|_| body.document_annotation.0)),
                ],
            )),
        };
        self.said.ending = if body.error.0 { Ending::Failed } else { Ending::Complete };
    }

    fn event(&mut self, _: &Event<'_>) -> EventKind {
        EventKind::Other
    }

    fn finish(self: Box<Self>) -> Said {
        self.said
    }
}
