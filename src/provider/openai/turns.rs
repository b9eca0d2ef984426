//! Turns: sessions at `/responses`, which carry the events that a streamed reply does, one response after the other.
//!
//! An app may run several lanes in one session, each event naming its own; a lane has one response at a time.

use http::StatusCode;

use crate::json;
use crate::provider::openai::responses::{Reply, StreamEvent};
use crate::provider::session::{News, Open, ReadSession, Told};
use crate::provider::{Ending, EventKind, ReadReply, Said};

/// Reads one session.
#[derive(Debug, Default)]
pub(in crate::provider) struct Turns {
    open: Open<Box<Reply>>,
}

impl ReadSession for Turns {
    fn message(&mut self, text: &[u8], tell: &mut dyn FnMut(News)) {
        let Some(event) = json::read::<StreamEvent<'_>>(text) else { return };
        let lane = event.stream_id.get().unwrap_or_default();
        match event.kind.get().unwrap_or_default() {
            "response.created" => {
                let (turn, ended) = self.open.begin(lane, Box::default());
                if let Some((ended, reply)) = ended {
                    tell(News::Ended(ended, told(reply)));
                }
                tell(News::Began(turn));
            }
            "response.completed" | "response.incomplete" | "response.failed" => return self.end(&event, lane, tell),
            "error" => return self.fail(&event, lane, tell),
            _ => {}
        }
        if let Some((turn, reply)) = self.open.find(lane)
            && reply.take(&event, "") == EventKind::Content
        {
            tell(News::Content(turn));
        }
    }

    fn finish(self: Box<Self>, tell: &mut dyn FnMut(News)) {
        for (turn, reply) in self.open.end_all() {
            tell(News::Ended(turn, told(reply)));
        }
    }
}

impl Turns {
    fn end(&mut self, event: &StreamEvent<'_>, lane: &str, tell: &mut dyn FnMut(News)) {
        let (turn, mut reply) = self.open.end(lane).unwrap_or_else(|| {
            // Its beginning was not seen; what it used counts all the same.
            let turn = self.open.number();
            tell(News::Began(turn));
            (turn, Box::default())
        });
        reply.take(event, "");
        tell(News::Ended(turn, told(reply)));
    }

    /// Ends what the lane is at, or what it was asked and never began.
    fn fail(&mut self, event: &StreamEvent<'_>, lane: &str, tell: &mut dyn FnMut(News)) {
        let status = event.status.0.and_then(|status| StatusCode::from_u16(status.try_into().ok()?).ok());
        let Some((turn, reply)) = self.open.end(lane) else {
            let turn = self.open.number();
            tell(News::Began(turn));
            let said = Said { ending: Ending::Failed, ..Said::default() };
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return tell(News::Ended(turn, Told { status, said }));
        };
        let said = Said { ending: Ending::Failed, ..reply.finish() };
        tell(News::Ended(turn, Told { status: status.unwrap_or(StatusCode::OK), said }));
    }
}

fn told(reply: Box<Reply>) -> Told {
    Told { status: StatusCode::OK, said: reply.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: &[&str]) -> Vec<News> {
        let mut session = Box::<Turns>::default();
        let mut news = Vec::new();
        for message in messages {
            session.message(message.as_bytes(), &mut |told| news.push(told));
        }
        session.finish(&mut |told| news.push(told));
        news
    }

    #[test]
    fn each_response_of_a_lane_is_a_call() {
        let news = read(&[
            r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt-5-mini-2025-08-07","usage":null}}"#,
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            r#"{"type":"response.created","stream_id":"b","response":{"id":"resp_2","model":"gpt-5"}}"#,
            r#"{"type":"response.incomplete","response":{"id":"resp_1","status":"incomplete",
                "incomplete_details":{"reason":"steered"},"usage":{"input_tokens":9,"output_tokens":1}}}"#,
            r#"{"type":"response.created","response":{"id":"resp_3"}}"#,
            r#"{"type":"response.completed","response":{"id":"resp_3","model":"gpt-5-mini-2025-08-07",
                "status":"completed","usage":{"input_tokens":10,"output_tokens":5}}}"#,
        ]);
        let [a, content, b, News::Ended(0, steered), c, News::Ended(2, done), News::Ended(1, cut)] = &news[..] else {
            unreachable!("{news:?}")
        };
        assert_eq!([a, content, b, c], [&News::Began(0), &News::Content(0), &News::Began(1), &News::Began(2)]);
        assert_eq!(steered.said.facts.finish_reasons, [Box::from("steered")]);
        assert_eq!(steered.said.usage.map(|usage| usage.total_tokens()), Some(10));
        assert_eq!(done.said.facts.id.as_deref(), Some("resp_3"));
        assert_eq!((done.said.ending, done.said.usage.map(|usage| usage.total_tokens())), (Ending::Complete, Some(15)));
        assert_eq!((cut.said.ending, cut.said.usage), (Ending::Unfinished, None));
        assert_eq!(cut.said.facts.model.as_deref(), Some("gpt-5"));
    }

    #[test]
    fn an_error_ends_what_its_lane_is_at() {
        let error = r#"{"type":"error","status":400,"error":{"type":"invalid_request_error","message":"no"}}"#;
        let begun = r#"{"type":"response.created","response":{"id":"resp_1"}}"#;
        let bare = r#"{"type":"error","code":"server_error","message":"no"}"#;
        for (rule, messages, status) in [
            ("a request that was refused", &[error][..], 400),
            ("a response that broke", &[begun, error], 400),
            ("a response that broke, as in a stream", &[begun, bare], 200),
            ("nobody knows why", &[bare], 500),
        ] {
            let news = read(messages);
            let [News::Began(0), News::Ended(0, told)] = &news[..] else { unreachable!("{rule}: {news:?}") };
            assert_eq!((told.said.ending, told.status.as_u16()), (Ending::Failed, status), "{rule}");
        }
    }
}
