//! TGI: what Text Generation Inference offers beside OpenAI's format: `/generate` and `/generate_stream`.
//!
//! How many tokens a prompt had is in a header of a whole reply, and in newer versions in the `details` of a stream; how
//! many were generated in either, if the request asked for `details`. Errors come as JSON, also within a stream.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::frames::Event;
use crate::json;
use crate::provider::endpoint::Endpoint;
use crate::provider::forms::Events;
use crate::provider::lenient::{Count, Filled, List, Object, Text};
use crate::provider::stop::{Stop, UsedSoFar};
use crate::provider::{Asked, Ending, EventKind, Format, ReadReply, Request, Reuse, Said, stop, tree};
use crate::record::call::Delivery;
use crate::record::usage::Usage;

/// How its requests and replies read.
pub(super) static FORMAT: Format = Format {
    asked,
    request_usage: None,
    with_model: |_, _| None,
    reader: |_| Box::<Reply>::default(),
    stop: |endpoint| (endpoint == Endpoint::TgiGenerateStream).then(|| Box::<Notes>::default() as Box<dyn Stop>),
    fail: |_, problem, out| {
        out.push("", &tree::Object::new().with("error", problem.message).with("error_type", problem.code))
    },
    key_headers: &[],
    forms: |_| None,
};

fn asked<'a>(request: &Request<'a>) -> Asked<'a> {
    // A server has one model; but some gateways in front of several take its name.
    let asked = request.asks(Reuse::Allowed(&[]));
    let always_streams = request.endpoint == Endpoint::TgiGenerateStream;
    Asked { delivery: if always_streams { Delivery::Stream } else { asked.delivery }, ..asked }
}

/// Reads one reply.
#[derive(Debug, Default)]
struct Reply {
    said: Said,
    input: Option<u64>,
    output: Option<u64>,
    arrival: Arrival,
}

/// How far the reply came.
#[derive(Debug, Default)]
enum Arrival {
    /// Not to its end.
    #[default]
    Partial,
    /// To its end.
    Whole,
    /// To an error.
    Failed,
    /// It is no reply of this server: others have an endpoint of the same name.
    Foreign,
}

/// A whole reply, or an event of a stream: the last one has the whole text.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    #[serde(borrow)]
    token: Object<Token<'a>>,
    #[serde(borrow)]
    generated_text: Option<&'a RawValue>,
    #[serde(borrow)]
    details: Object<Details<'a>>,
    error: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Token<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    special: Filled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details<'a> {
    #[serde(borrow)]
    finish_reason: Text<'a>,
    generated_tokens: Count,
    input_length: Count,
    prefill: List<Prefilled>,
}

/// A token of the prompt, of which only that it is there matters.
#[derive(Default, Deserialize)]
struct Prefilled {}

impl ReadReply for Reply {
    fn head(&mut self, headers: &HeaderMap) {
        let count = |name: &str| headers.get(name)?.to_str().ok()?.parse().ok();
        self.input = count("x-prompt-tokens");
        self.output = count("x-generated-tokens");
    }

    fn whole(&mut self, status: StatusCode, body: &[u8]) {
        if !status.is_success() {
            self.arrival = Arrival::Failed;
            return;
        }
        let Some(Object(Some(generated))) = json::read::<Object<Piece<'_>>>(body) else { return };
        self.read(&generated);
        if let Some(text) = generated.generated_text.and_then(|text| json::read::<Text<'_>>(text.get().as_bytes())) {
            text.push_to(&mut self.said.output);
        }
        if matches!(self.arrival, Arrival::Partial) {
            self.arrival = Arrival::Foreign;
        }
    }

    fn event(&mut self, event: &Event<'_>) -> EventKind {
        let Some(generated) = json::read::<Piece<'_>>(event.data) else { return EventKind::Other };
        self.read(&generated);
        let Some(token) = generated.token.get().filter(|token| !token.special.0) else { return EventKind::Other };
        if token.text.push_to(&mut self.said.output) { EventKind::Content } else { EventKind::Other }
    }

    fn generated(&self) -> u64 {
        self.said.output.bytes()
    }

    fn finish(mut self: Box<Self>) -> Said {
        if self.input.is_some() || self.output.is_some() {
            self.said.usage = Some(Usage::cache_inside(self.input, self.output, &[]));
        }
        self.said.ending = match self.arrival {
            Arrival::Partial => Ending::Unfinished,
            Arrival::Whole => Ending::Complete,
            Arrival::Failed => Ending::Failed,
            Arrival::Foreign => Ending::Unknown,
        };
        self.said
    }
}

/// What is noted of a stream: whether it has ended. An end would have to say the whole text once more.
#[derive(Default)]
struct Notes {
    done: bool,
}

impl Stop for Notes {
    fn note(&mut self, event: &Event<'_>) {
        let Some(piece) = json::read::<Piece<'_>>(event.data) else { return };
        self.done |= piece.error.0 || piece.generated_text.is_some();
    }

    fn end(&self, _: UsedSoFar, out: &mut Events) -> Option<()> {
        if self.done {
            return Some(());
        }
        out.push("", &tree::Object::new().with("error", stop::MESSAGE).with("error_type", stop::CODE))
    }
}

impl Reply {
    fn read(&mut self, generated: &Piece<'_>) {
        if generated.error.0 {
            self.arrival = Arrival::Failed;
        } else if generated.generated_text.is_some() {
            self.arrival = Arrival::Whole;
        }
        let Some(details) = generated.details.get() else { return };
        let prefilled = Some(details.prefill.items().len() as u64).filter(|count| *count > 0);
        self.input = self.input.or(details.input_length.0).or(prefilled);
        self.output = details.generated_tokens.0.or(self.output);
        if let Some(reason) = details.finish_reason.get() {
            self.said.facts.finish_reasons = vec![reason.into()];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_another_server_is_unknown_and_no_failure() {
        for (body, expected) in [
            (r#"{"generated_text":""}"#, Ending::Complete),
            (r#"{"generated_text":null,"error":"overloaded","error_type":"overloaded"}"#, Ending::Failed),
            (r#"{"text":"Hi","meta_info":{"completion_tokens":1}}"#, Ending::Unknown),
            ("[]", Ending::Unfinished),
        ] {
            let mut reply = Box::<Reply>::default();
            reply.whole(StatusCode::OK, body.as_bytes());
            assert_eq!(reply.finish().ending, expected, "{body}");
        }
    }
}
