//! WebSocket: finds the messages of one direction of a WebSocket connection (RFC 6455) as its bytes arrive, in pieces
//! cut anywhere.
//!
//! Joins fragments, steps over control frames between them, undoes masks, and bounds what it holds. Frame heads are
//! read by tungstenite. Sees bytes, never the socket; does not undo compression; knows no provider.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::frames::Event;

/// The name of the event that a text message is.
pub const TEXT: &str = "text";
/// The name of the event that a close frame is; its data are the code and the reason.
pub const CLOSE: &str = "close";

/// The longest head of a frame: two bytes, a length of eight and a mask of four (section 5.2).
const MAX_HEAD: usize = 14;
/// Room kept from one message to the next. Few are larger, and those need not hold their room for the whole session.
const USUAL_MESSAGE: usize = 16 << 10;
/// The most a control frame carries (section 5.5).
const MAX_CONTROL: u64 = 125;

/// A close frame of a server, with this code (section 7.4.1) and as much of the reason as it may carry.
#[must_use]
pub fn goodbye(code: u16, reason: &str) -> Vec<u8> {
    /// A control frame carries 125 bytes, and the code takes two.
    const MOST: u8 = 123;
    let end = (0..=usize::from(MOST)).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    let reason = &reason.as_bytes()[..end.min(reason.len())];
    let length = u8::try_from(reason.len()).unwrap_or(MOST) + 2;
    [&[0x88, length], code.to_be_bytes().as_slice(), reason].concat()
}

/// Finds the text messages and close frames of one direction. Binary messages, pings and pongs are stepped over.
///
/// What it finds does not depend on where the stream was cut. What no WebSocket may send ends the reading, since
/// nothing after it can be told apart.
#[derive(Debug)]
pub struct Decoder {
    max_message_bytes: usize,
    /// Bytes taken in so far.
    position: u64,
    head: Vec<u8>,
    frame: Option<Frame>,
    message: Option<Message>,
    /// What the current message brought so far.
    held: Vec<u8>,
    /// What the current close frame brought so far.
    closing: Vec<u8>,
    overflowed: u64,
    lost: bool,
}

/// The frame whose payload is coming.
#[derive(Clone, Copy, Debug)]
struct Frame {
    begins: u64,
    length: u64,
    left: u64,
    mask: Option<[u8; 4]>,
    role: Role,
}

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// A part of the message; whether it is the last one.
    Part {
        last: bool,
    },
    Close,
    /// A ping or a pong.
    Passing,
}

/// The message whose fragments are coming.
#[derive(Clone, Copy, Debug)]
struct Message {
    begins: u64,
    /// Whether it is text that can be read, and not too large.
    kept: bool,
}

impl Decoder {
    /// For a connection whose messages larger than `max_message_bytes` are skipped.
    #[must_use]
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            position: 0,
            head: Vec::with_capacity(MAX_HEAD),
            frame: None,
            message: None,
            held: Vec::new(),
            closing: Vec::new(),
            overflowed: 0,
            lost: false,
        }
    }

    /// Takes the next piece and hands over every text message and close frame that is complete with it. A message that
    /// lies in one frame without a mask, wholly in `chunk`, is not copied.
    pub fn push(&mut self, chunk: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        let mut rest = chunk;
        while !self.lost && !rest.is_empty() {
            if self.frame.is_none() {
                rest = self.read_head(rest);
            }
            // An empty payload is complete with its head.
            if let Some(frame) = self.frame {
                rest = self.read_payload(frame, rest, on_event);
            }
        }
    }

    /// How many text messages were skipped because they were too large or compressed.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Whether something came that no WebSocket may send, so that nothing more is read.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Takes a frame's head, or as much of it as there is, from the front of `rest`; what follows it.
    fn read_head<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let known = self.head.len();
        let (more, _) = rest.split_at(rest.len().min(MAX_HEAD - known));
        self.head.extend_from_slice(more);
        let mut cursor = Cursor::new(&self.head);
        let parsed = FrameHeader::parse(&mut cursor);
        let length_of_head = cursor.position();
        match parsed {
            Ok(None) => {
                self.position += more.len() as u64;
                &rest[more.len()..]
            }
            Ok(Some((head, length))) => {
                let taken = usize::try_from(length_of_head).map_or(more.len(), |end| end - known);
                self.position += taken as u64;
                self.begin(&head, length, self.position - length_of_head);
                self.head.clear();
                &rest[taken..]
            }
            Err(_) => {
                self.lose();
                &[]
            }
        }
    }

    /// Begins the frame with this head, which stands at `begins`.
    fn begin(&mut self, head: &FrameHeader, length: u64, begins: u64) {
        let compressed = head.rsv1 || head.rsv2 || head.rsv3;
        let last = head.is_final;
        let role = match (head.opcode, self.message) {
            (OpCode::Control(_), _) if !last || length > MAX_CONTROL => return self.lose(),
            (OpCode::Control(Control::Close), _) => Role::Close,
            (OpCode::Control(_), _) => Role::Passing,
            (OpCode::Data(Data::Continue), Some(_)) => Role::Part { last },
            (OpCode::Data(Data::Text | Data::Binary), None) => {
                let is_text = head.opcode == OpCode::Data(Data::Text);
                self.overflowed += u64::from(is_text && compressed);
                self.message = Some(Message { begins, kept: is_text && !compressed });
                Role::Part { last }
            }
            (OpCode::Data(_), _) => return self.lose(),
        };
        self.frame = Some(Frame { begins, length, left: length, mask: head.mask, role });
    }

    /// Takes a frame's payload, or as much of it as there is, from the front of `rest`; what follows it.
    fn read_payload<'a>(&mut self, mut frame: Frame, rest: &'a [u8], on_event: &mut impl FnMut(Event<'_>)) -> &'a [u8] {
        let taken = usize::try_from(frame.left).map_or(rest.len(), |left| left.min(rest.len()));
        let (piece, rest) = rest.split_at(taken);
        let offset = frame.length - frame.left;
        frame.left -= taken as u64;
        self.position += taken as u64;
        self.frame = (frame.left > 0).then_some(frame);
        let in_one_piece = offset == 0 && frame.left == 0 && frame.mask.is_none() && self.held.is_empty();
        match (frame.role, self.message) {
            (Role::Part { last: true }, Some(Message { kept: true, begins })) if in_one_piece => {
                self.message = None;
                if piece.len() <= self.max_message_bytes {
                    on_event(Event { name: TEXT, data: piece, span: begins..self.position });
                } else {
                    self.overflowed += 1;
                }
            }
            (Role::Part { last }, Some(message)) => {
                self.keep_part(message, frame, offset, piece);
                if last && frame.left == 0 {
                    self.end_message(on_event);
                }
            }
            (Role::Close, _) => {
                unmask(&mut self.closing, piece, frame.mask, offset);
                if frame.left == 0 {
                    on_event(Event { name: CLOSE, data: &self.closing, span: frame.begins..self.position });
                    self.closing.clear();
                }
            }
            (Role::Part { .. }, None) | (Role::Passing, _) => {}
        }
        rest
    }

    /// Keeps a piece of the message, or lets the message go if it is too large.
    fn keep_part(&mut self, message: Message, frame: Frame, offset: u64, piece: &[u8]) {
        if !message.kept {
            return;
        }
        // What the head announces is not waited for.
        let announced = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let length = (self.held.len() + piece.len()).saturating_add(announced);
        if length > self.max_message_bytes {
            self.held = Vec::new();
            self.overflowed += 1;
            self.message = Some(Message { kept: false, ..message });
        } else {
            unmask(&mut self.held, piece, frame.mask, offset);
        }
    }

    fn end_message(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        if let Some(Message { kept: true, begins }) = self.message.take() {
            on_event(Event { name: TEXT, data: &self.held, span: begins..self.position });
        }
        self.held.clear();
        self.held.shrink_to(USUAL_MESSAGE);
    }

    fn lose(&mut self) {
        self.lost = true;
        self.frame = None;
        self.held = Vec::new();
    }
}

/// Adds `piece`, which stood `offset` bytes into its payload, to `plain`, without its mask (section 5.3).
fn unmask(plain: &mut Vec<u8>, piece: &[u8], mask: Option<[u8; 4]>, offset: u64) {
    let Some(mask) = mask else { return plain.extend_from_slice(piece) };
    let turn = usize::try_from(offset % 4).unwrap_or_default();
    plain.extend(piece.iter().zip(mask.iter().cycle().skip(turn)).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIN: u8 = 0x80;
    const MORE: u8 = 0;
    const MASK: [u8; 4] = [1, 2, 3, 250];

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            short @ ..126 => bytes.push(masked | u8::try_from(short).expect("short")),
            length @ ..0x1_0000 => {
                bytes.push(masked | 0x7e);
                bytes.extend(u16::try_from(length).expect("short").to_be_bytes());
            }
            length => {
                bytes.push(masked | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.iter().flatten());
        unmask(&mut bytes, payload, mask, 0);
        bytes
    }

    fn text(payload: &str) -> Vec<u8> {
        frame(FIN | 1, None, payload.as_bytes())
    }

    type Found = (String, Vec<u8>, std::ops::Range<u64>);

    fn decode<'a>(max: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Found>, u64, bool) {
        let (mut decoder, mut found) = (Decoder::new(max), Vec::new());
        for piece in pieces {
            decoder.push(piece, &mut |event| found.push((event.name.to_owned(), event.data.to_vec(), event.span)));
        }
        (found, decoder.overflowed(), decoder.is_lost())
    }

    fn names(found: &[Found]) -> Vec<String> {
        found.iter().map(|(name, data, _)| format!("{name}:{}", String::from_utf8_lossy(data))).collect()
    }

    #[test]
    fn messages_are_found_however_they_are_framed() {
        let long = "x".repeat(70_000);
        for (rule, stream, expected) in [
            ("one frame, one message", [text("a"), text("bc")].concat(), vec!["text:a".to_owned(), "text:bc".into()]),
            ("an empty message is one", [text(""), text("a")].concat(), vec!["text:".into(), "text:a".into()]),
            (
                "fragments are joined",
                [frame(MORE | 1, None, b"a"), frame(MORE, None, b""), frame(FIN, None, b"bc")].concat(),
                vec!["text:abc".into()],
            ),
            (
                "control frames come between fragments",
                [
                    frame(MORE | 1, None, b"a"),
                    frame(FIN | 9, None, b"ping"),
                    frame(FIN | 0xa, None, b""),
                    frame(FIN, None, b"b"),
                ]
                .concat(),
                vec!["text:ab".into()],
            ),
            (
                "masks are undone, in each fragment from its beginning",
                [frame(MORE | 1, Some(MASK), b"hello"), frame(FIN, Some(MASK), b" there")].concat(),
                vec!["text:hello there".into()],
            ),
            (
                "binary messages are stepped over",
                [frame(MORE | 2, None, b"a"), frame(FIN, None, b"b"), text("c")].concat(),
                vec!["text:c".into()],
            ),
            ("a length of sixteen bits", text(&long[..300]), vec![format!("text:{}", &long[..300])]),
            ("a length of sixty-four bits", text(&long), vec![format!("text:{long}")]),
            (
                "a close frame is told",
                [text("a"), frame(FIN | 8, Some(MASK), b"\x03\xe8bye")].concat(),
                vec!["text:a".into(), format!("close:{}", String::from_utf8_lossy(b"\x03\xe8bye"))],
            ),
            ("a close frame may be empty", frame(FIN | 8, None, b""), vec!["close:".into()]),
        ] {
            let (found, overflowed, lost) = decode(1 << 20, [&stream[..]]);
            assert_eq!((names(&found), overflowed, lost), (expected, 0, false), "{rule}");
            assert_eq!(found.last().expect("found").2.end, stream.len() as u64, "{rule}: where it ends");
            let cuts = if stream.len() > 1000 { 0..=20 } else { 0..=stream.len() };
            for cut in cuts {
                let (head, tail) = stream.split_at(cut);
                assert_eq!(decode(1 << 20, [head, tail]).0, found, "{rule}, cut at {cut}");
            }
            assert_eq!(decode(1 << 20, stream.chunks(1)).0, found, "{rule}, byte by byte");
        }
    }

    #[test]
    fn what_is_too_large_or_compressed_is_skipped_and_the_next_message_is_read() {
        let fragmented = [frame(MORE | 1, None, b"abc"), frame(FIN, None, b"defgh")].concat();
        for (rule, skipped) in [
            ("in one frame", text("abcdef")),
            ("in fragments", fragmented),
            ("masked", frame(FIN | 1, Some(MASK), b"abcdef")),
            ("compressed", frame(FIN | 0x40 | 1, None, b"abc")),
        ] {
            let stream = [skipped, text("ok")].concat();
            for size in [1, 2, 3, 100] {
                let (found, overflowed, lost) = decode(5, stream.chunks(size));
                assert_eq!((names(&found), overflowed, lost), (vec!["text:ok".into()], 1, false), "{rule}");
            }
        }
    }

    #[test]
    fn a_huge_announcement_holds_nothing() {
        let mut decoder = Decoder::new(1000);
        let head = [&[FIN | 1, 127][..], &(u64::MAX >> 1).to_be_bytes()].concat();
        decoder.push(&head, &mut |_| {});
        decoder.push(&[b'x'; 5000], &mut |_| {});
        assert_eq!((decoder.held.capacity(), decoder.overflowed()), (0, 1));
    }

    #[test]
    fn what_no_websocket_sends_ends_the_reading() {
        for (rule, stream) in [
            ("a reserved opcode", frame(FIN | 3, None, b"a")),
            ("a continuation of nothing", frame(FIN, None, b"a")),
            ("a message inside a message", [frame(MORE | 1, None, b"a"), text("b")].concat()),
            ("a control frame in fragments", frame(9, None, b"a")),
            ("a control frame that is too long", frame(FIN | 9, None, &[0; 126])),
            ("another protocol", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        ] {
            let (found, _, lost) = decode(1000, [&stream[..], &text("later")]);
            assert_eq!((names(&found), lost), (Vec::new(), true), "{rule}");
        }
    }

    #[test]
    fn a_message_in_one_piece_is_not_copied() {
        let stream = text("abc");
        let mut decoder = Decoder::new(1000);
        let mut seen = false;
        decoder.push(&stream, &mut |event| seen = std::ptr::eq(event.data, &raw const stream[2..]));
        assert!(seen && decoder.held.capacity() == 0);
    }

    #[test]
    fn a_goodbye_says_as_much_as_fits_into_its_frame() {
        for (reason, said) in [("spent", "spent".to_owned()), ("", String::new()), (&"ü".repeat(80), "ü".repeat(61))]
        {
            let frame = goodbye(1008, reason);
            let mut found = Vec::new();
            Decoder::new(0).push(&frame, &mut |event| found.push((event.name.to_owned(), event.data.to_vec())));
            let expected = [&1008_u16.to_be_bytes()[..], said.as_bytes()].concat();
            assert_eq!(found, [(CLOSE.to_owned(), expected)], "{reason}");
        }
    }
}
