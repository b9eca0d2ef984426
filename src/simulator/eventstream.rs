//! Event stream: messages framed as AWS streams them (`application/vnd.amazon.eventstream`).
//!
//! How a message is laid out is known where it is read; this knows what events and exceptions are called. Knows no API.

use bytes::Bytes;
use serde_json::Value;

use crate::frames::eventstream::encode;

/// An event.
pub(super) fn event(kind: &str, payload: &Value) -> Bytes {
    let headers = [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")];
    frame(&headers, payload.to_string().as_bytes())
}

/// An event whose payload breaks off.
pub(super) fn broken_event() -> Bytes {
    let headers = [(":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event")];
    frame(&headers, br#"{"bytes": "#)
}

/// The exception that ends a stream which has failed.
pub(super) fn exception(kind: &str, payload: &Value) -> Bytes {
    let headers = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
    frame(&headers, payload.to_string().as_bytes())
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    encode(headers, payload).expect("an event is far below 24 MiB").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_says_what_it_is() {
        let frame = event("metadata", &json!({"usage": 1}));
        let text = String::from_utf8_lossy(&frame);
        assert!(text.contains(":event-type") && text.contains("metadata") && text.contains(r#"{"usage":1}"#), "{text}");
    }
}
