//! Plain: replies that never stream and say little of themselves: embeddings, whoever makes them, and token counts.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::gemini::usage::Metadata;
use crate::provider::lenient::{Count, Filled, List, Object};
use crate::provider::{Ending, EventKind, ReadReply, Said, sum};
use crate::record::usage::Usage;

/// Reads one reply: complete if it is a JSON object without an error.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Said,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    usage_metadata: Object<Metadata<'a>>,
    predictions: List<Prediction>,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Prediction {
    embeddings: Object<Embeddings>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Embeddings {
    statistics: Object<Statistics>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Statistics {
    token_count: Count,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.said.ending = Ending::Failed;
            return;
        }
        let Some(Object(Some(body))) = json::read::<Object<Body<'_>>>(body) else { return };
        let reported = body.usage_metadata.get().and_then(|metadata| metadata.tally().usage(true, None));
        self.said.usage = reported.or_else(|| predicted(body.predictions.items()));
        self.said.facts.service_tier = body.usage_metadata.get().and_then(Metadata::tier);
        self.said.ending = if body.error.0 { Ending::Failed } else { Ending::Complete };
    }

    fn event(&mut self, _: &Event<'_>) -> EventKind {
        EventKind::Other
    }

    fn finish(self: Box<Self>) -> Said {
        self.said
    }
}

/// The tokens of the texts that were embedded, each of which says its own.
fn predicted(predictions: &[Prediction]) -> Option<Usage> {
    let counts = predictions.iter().map(|prediction| prediction.embeddings.get()?.statistics.get()?.token_count.0);
    let input = counts.fold(None, sum)?;
    Some(Usage::cache_inside(Some(input), Some(0), &[]))
}
