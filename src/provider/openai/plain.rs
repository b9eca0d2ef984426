//! Plain: replies that never stream and say little of themselves: embeddings, moderations, token counts.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::provider::lenient::{Filled, Object, Text};
use crate::provider::openai::usage::{Reported, Tally};
use crate::provider::{Ending, EventKind, ReadReply, Said};

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
    usage: Object<Reported>,
    error: Filled,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.said.ending = Ending::Failed;
            return;
        }
        let Ok(Object(Some(body))) = serde_json::from_slice::<Object<Body<'_>>>(body) else { return };
        body.id.keep_first(&mut self.said.facts.id);
        body.model.keep_first(&mut self.said.facts.model);
        let mut tally = Tally::default();
        if let Some(reported) = body.usage.get() {
            tally.take(reported);
        }
        self.said.usage = tally.usage(&[]);
        self.said.ending = if body.error.0 { Ending::Failed } else { Ending::Complete };
    }

    fn event(&mut self, _: &Event<'_>) -> EventKind {
        EventKind::Other
    }

    fn finish(self: Box<Self>) -> Said {
        self.said
    }
}
