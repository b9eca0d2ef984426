//! Event stream: messages framed as AWS streams them (`application/vnd.amazon.eventstream`).
//!
//! A frame is its length, the length of its headers, a checksum of the two, headers, payload, and a checksum of it
//! all; numbers are big-endian. Knows no API.

use bytes::Bytes;
use serde_json::Value;

/// Lengths and checksums around headers and payload.
const AROUND: usize = 16;
/// The type of a header's value: a text.
const TEXT: u8 = 7;

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
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(u8::try_from(name.len()).expect("the names above are short"));
        encoded.extend_from_slice(name.as_bytes());
        encoded.push(TEXT);
        encoded.extend_from_slice(&u16::try_from(value.len()).expect("the values above are short").to_be_bytes());
        encoded.extend_from_slice(value.as_bytes());
    }
    let length = |length: usize| u32::try_from(length).expect("an event is far below 4 GiB").to_be_bytes();
    let mut frame = Vec::with_capacity(AROUND + encoded.len() + payload.len());
    frame.extend_from_slice(&length(AROUND + encoded.len() + payload.len()));
    frame.extend_from_slice(&length(encoded.len()));
    seal(&mut frame);
    frame.extend_from_slice(&encoded);
    frame.extend_from_slice(payload);
    seal(&mut frame);
    frame.into()
}

/// Appends the checksum of what is there so far.
fn seal(frame: &mut Vec<u8>) {
    let sum = crc32fast::hash(frame);
    frame.extend_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Made by hand from AWS's description, with zlib's `crc32`.
    #[test]
    fn a_frame_is_laid_out_as_aws_describes_it() {
        let frame = frame(&[(":a", "b")], b"{}");
        let expected: &[u8] = &[
            0, 0, 0, 25, 0, 0, 0, 7, 0x96, 0xb6, 0xbf, 0x39, 2, b':', b'a', 7, 0, 1, b'b', b'{', b'}', 0x9e, 0x08,
            0x6d, 0x50,
        ];
        assert_eq!(&*frame, expected);
    }

    #[test]
    fn an_event_says_what_it_is() {
        let frame = event("metadata", &json!({"usage": 1}));
        let text = String::from_utf8_lossy(&frame);
        assert!(text.contains(":event-type") && text.contains("metadata") && text.contains(r#"{"usage":1}"#), "{text}");
    }
}
