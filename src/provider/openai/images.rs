//! Images: replies of `/images/generations`, `/images/edits` and `/images/variations`.
//!
//! Older models count nothing. A stream's last event says what was used; the pictures on the way there are partial.

use http::StatusCode;
use serde::Deserialize;

use crate::frames::Event;
use crate::json;
use crate::provider::lenient::{Filled, Object, Text};
use crate::provider::openai::usage::{Reported, Tally};
use crate::provider::{Ending, EventKind, ReadReply, Said};

/// Reads one reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Said,
    tally: Tally,
}

/// A whole reply, or an event of a streamed one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Images<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    data: Filled,
    #[serde(borrow)]
    usage: Object<Reported<'a>>,
    #[serde(borrow)]
    svg_usage: Object<Reported<'a>>,
    error: Filled,
}

impl ReadReply for Reply {
    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.said.ending = Ending::Failed;
            return;
        }
        let Some(Object(Some(images))) = json::read::<Object<Images<'_>>>(body) else { return };
        self.read(&images);
        if images.error.0 {
            self.said.ending = Ending::Failed;
        } else if images.data.0 {
            self.said.ending = Ending::Complete;
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(images) = json::read::<Images<'_>>(event.data) else { return EventKind::Other };
        self.read(&images);
        let kind = images.kind.get().unwrap_or(event.name);
        if kind == "error" || images.error.0 {
            self.said.ending = Ending::Failed;
            return EventKind::Other;
        }
        if kind.ends_with(".completed") {
            self.said.ending = Ending::Complete;
        }
        if kind.starts_with("image_") { EventKind::Content } else { EventKind::Other }
    }

    fn finish(mut self: Box<Self>) -> Said {
        self.said.usage = self.tally.usage(&[]);
        self.said.provider_cost = self.tally.cost();
        self.said
    }
}

impl Reply {
    /// A drawing's tokens are another model's: they are the bill only where they are all of it.
    fn read(&mut self, images: &Images<'_>) {
        images.model.keep_first(&mut self.said.facts.model);
        match (images.usage.get(), images.svg_usage.get()) {
            (Some(reported), _) => self.tally.take(reported),
            (None, Some(svg)) => {
                svg.model.keep_last(&mut self.said.facts.model);
                self.tally.take(svg);
            }
            (None, None) => {}
        }
    }
}
