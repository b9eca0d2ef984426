//! Framings of streams, and content codings.

use std::ops::Range;

use weir::coding;
use weir::frames::{
    Event, array as arrays, eventstream as messages, lines as of_lines, sse as events, websocket as ws,
};

use super::pieces;

/// Small, so that inputs reach the bound.
const MAX_BYTES: usize = 256;

/// What a decoder brought out.
#[derive(Debug, Default, PartialEq)]
struct Found(Vec<(String, Vec<u8>, Range<u64>)>);

impl Found {
    fn note(&mut self, event: &Event<'_>) {
        assert!(event.data.len() <= MAX_BYTES, "what is handed over is bounded");
        assert!(event.span.start <= event.span.end, "a span goes forward");
        self.0.push((event.name.to_owned(), event.data.to_vec(), event.span.clone()));
    }
}

/// Reads the pieces of `data`, and all of them at once: both find the same, in order and inside what came.
fn same_however_cut(data: &[u8], mut read: impl FnMut(&[&[u8]], &mut Found)) {
    let cut: Vec<_> = pieces(data).collect();
    let whole = cut.concat();
    let (mut by_pieces, mut at_once) = (Found::default(), Found::default());
    read(&cut, &mut by_pieces);
    read(&[&whole], &mut at_once);
    assert_eq!(by_pieces, at_once, "what is found does not depend on where it is cut");
    let mut last = 0;
    for (_, _, span) in &at_once.0 {
        assert!(last <= span.end && span.end <= whole.len() as u64, "events follow each other, inside what came");
        last = span.end;
    }
}

/// Server-sent events.
pub fn sse(data: &[u8]) {
    same_however_cut(data, |pieces, found| {
        let mut decoder = events::Decoder::new(MAX_BYTES);
        for piece in pieces {
            decoder.push(piece, &mut |event| found.note(&event));
        }
        decoder.finish(&mut |event| found.note(&event));
    });
}

/// One object a line.
pub fn lines(data: &[u8]) {
    same_however_cut(data, |pieces, found| {
        let mut decoder = of_lines::Decoder::new(MAX_BYTES);
        for piece in pieces {
            decoder.push(piece, &mut |event| found.note(&event));
        }
        decoder.finish(&mut |event| found.note(&event));
    });
}

/// The elements of a JSON array.
pub fn array(data: &[u8]) {
    same_however_cut(data, |pieces, found| {
        let mut decoder = arrays::Decoder::new(MAX_BYTES);
        for piece in pieces {
            decoder.push(piece, &mut |event| found.note(&event));
        }
        decoder.finish();
    });
}

/// AWS event streams: the bytes as they are, and as the payloads of sound messages, for no mutation finds a checksum.
pub fn eventstream(data: &[u8]) {
    for stream in [data.to_vec(), event_stream(data)] {
        same_however_cut(&stream, |pieces, found| {
            let mut decoder = messages::Decoder::new(MAX_BYTES);
            for piece in pieces {
                decoder.push(piece, &mut |event| found.note(&event));
            }
            decoder.finish();
        });
    }
    // A message is bounded as a whole.
    let payload = data.get(..MAX_BYTES / 2).unwrap_or(data);
    if let Some(encoded) = messages::encode(&[(":message-type", "event"), (":event-type", "e")], payload) {
        let (mut decoder, mut found) = (messages::Decoder::new(MAX_BYTES), Found::default());
        decoder.push(&encoded, &mut |event| found.note(&event));
        assert_eq!(found.0.len(), 1, "what is encoded is decoded");
        assert_eq!(found.0[0].1, payload);
    }
}

/// WebSocket messages. A close frame may stand between the fragments of a message: only ends are in order.
pub fn websocket(data: &[u8]) {
    same_however_cut(data, |pieces, found| {
        let mut decoder = ws::Decoder::new(MAX_BYTES);
        for piece in pieces {
            decoder.push(piece, &mut |event| found.note(&event));
        }
    });
    let [code, reason @ ..] = data else { return };
    let goodbye = ws::goodbye(1000 + u16::from(*code), &String::from_utf8_lossy(reason));
    assert!(goodbye.len() <= 127 && usize::from(goodbye[1]) == goodbye.len() - 2, "a close frame is a control frame");
}

/// Content codings: the first byte says which. Whatever is in a body, what comes out of a piece is bounded.
pub fn coding(data: &[u8]) {
    const CODINGS: [Option<&str>; 6] =
        [None, Some("gzip"), Some("X-GZIP "), Some("deflate"), Some("br"), Some("gzip, br")];
    const MOST: usize = 64 << 10;
    let [which, data @ ..] = data else { return };
    let Some(mut decoder) = coding::Decoder::for_content_encoding(CODINGS[usize::from(*which) % CODINGS.len()], MOST)
    else {
        return;
    };
    for piece in pieces(data) {
        let mut came = 0;
        let taken = decoder.push(piece, &mut |bytes| came += bytes.len());
        assert!(came <= MOST.max(piece.len()), "a piece expands to {came}");
        if taken.is_err() {
            return;
        }
    }
}

/// An AWS event stream of sound messages with the pieces of `data` as payloads, cut into pieces in turn.
pub fn event_stream(data: &[u8]) -> Vec<u8> {
    const NAMES: [&str; 6] =
        ["chunk", "messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata"];
    let mut stream = Vec::new();
    for (number, payload) in pieces(data).enumerate() {
        let name = NAMES[payload.first().map_or(number, |first| usize::from(*first)) % NAMES.len()];
        let payload = payload.get(1..).unwrap_or_default();
        let headers = [(":message-type", "event"), (":event-type", name)];
        let message = messages::encode(&headers, payload).expect("short enough");
        for piece in message.chunks(100) {
            stream.push(u8::try_from(piece.len()).expect("at most 100"));
            stream.extend_from_slice(piece);
        }
    }
    stream
}
