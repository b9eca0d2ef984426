//! Coding: content codings (RFC 9110, section 8.4.1) undone piece by piece, so that a compressed reply can be read
//! while it is forwarded untouched.
//!
//! Knows gzip, deflate and br. Undoes what the build compressed, too. Holds at most what one piece expands to, and refuses pieces that expand too far.

use std::fmt;
use std::io::{self, Read, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::read::GzDecoder;
use flate2::write::{MultiGzDecoder, ZlibDecoder};

/// How much is decoded before it is handed on. Deflate expands at most 1,032 times (zlib's technical details), so this
/// keeps what is held at once near one mebibyte.
const STEP: usize = 1024;

/// Brotli's output buffer, in bytes.
const BROTLI_BUFFER: usize = 4096;

/// What the build compressed with gzip, whole.
///
/// # Panics
/// If it is anything else.
#[must_use]
pub fn unpacked(compressed: &'static [u8]) -> String {
    // The last four bytes are the length: a buffer that grows would take twice as much.
    let len = compressed.last_chunk().map_or(0, |len| u32::from_le_bytes(*len));
    let mut text = String::with_capacity(len as usize);
    GzDecoder::new(compressed).read_to_string(&mut text).expect("the build compressed it");
    text
}

/// Why a body could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodingError {
    /// The bytes are not in the coding that the header names.
    #[error("the body is not in the content coding it claims")]
    Corrupt(#[source] io::Error),
    /// One piece expands to more than is allowed.
    #[error("a piece of the body expands to more than is allowed")]
    TooLarge,
}

/// Undoes the content coding of one body.
pub struct Decoder {
    /// `None` where there is nothing to undo.
    compressed: Option<Compressed>,
    max_expansion: usize,
}

enum Compressed {
    Gzip(Box<MultiGzDecoder<Output>>),
    Deflate(Box<ZlibDecoder<Output>>),
    Brotli(Box<DecompressorWriter<Output>>),
}

/// What came out of a piece, and how much more may.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    room: usize,
    overflowed: bool,
}

impl Decoder {
    /// For a body with this `Content-Encoding`, each of whose pieces may expand to `max_expansion` bytes. `None` where
    /// the coding is not known, or where there are several: such a body is opaque.
    #[must_use]
    pub fn for_content_encoding(coding: Option<&str>, max_expansion: usize) -> Option<Self> {
        let compressed = match coding.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => None,
            "gzip" | "x-gzip" => Some(Compressed::Gzip(Box::new(MultiGzDecoder::new(Output::default())))),
            "deflate" => Some(Compressed::Deflate(Box::new(ZlibDecoder::new(Output::default())))),
            "br" => Some(Compressed::Brotli(Box::new(DecompressorWriter::new(Output::default(), BROTLI_BUFFER)))),
            _ => return None,
        };
        Some(Self { compressed, max_expansion })
    }

    /// Whether there is nothing to undo: then what comes out is what went in.
    #[must_use]
    pub const fn is_identity(&self) -> bool {
        self.compressed.is_none()
    }

    /// Takes the body's next piece and hands over, slice by slice, all that can be decoded with it.
    ///
    /// # Errors
    ///
    /// If the body is not what it claims to be, or expands too far. The decoder is of no use after that.
    pub fn push(&mut self, piece: &[u8], on_bytes: &mut impl FnMut(&[u8])) -> Result<(), CodingError> {
        let Some(compressed) = &mut self.compressed else {
            on_bytes(piece);
            return Ok(());
        };
        compressed.output().room = self.max_expansion;
        for step in piece.chunks(STEP) {
            // A flush brings out everything the step completes: a streamed reply is flushed event by event.
            let written = compressed.writer().write_all(step).and_then(|()| compressed.writer().flush());
            let output = compressed.output();
            if output.overflowed {
                return Err(CodingError::TooLarge);
            }
            on_bytes(&output.bytes);
            output.bytes.clear();
            written.map_err(CodingError::Corrupt)?;
        }
        Ok(())
    }
}

impl Compressed {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(decoder) => decoder,
            Self::Deflate(decoder) => decoder,
            Self::Brotli(decoder) => decoder,
        }
    }

    fn output(&mut self) -> &mut Output {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("is_identity", &self.is_identity()).finish_non_exhaustive()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(room) = self.room.checked_sub(bytes.len()) else {
            self.overflowed = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        self.room = room;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = b"data: {\"a\": 1}\n\ndata: {\"b\": 2}\n\ndata: [DONE]\n\n";
    /// Where the encoders of these tests flush: after each event.
    const EVENTS: [&[u8]; 3] = [b"data: {\"a\": 1}\n\n", b"data: {\"b\": 2}\n\n", b"data: [DONE]\n\n"];

    fn gzip() -> Vec<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        flushed(|event| {
            encoder.write_all(event).unwrap();
            encoder.flush().unwrap();
            std::mem::take(encoder.get_mut())
        })
    }

    fn deflate() -> Vec<Vec<u8>> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        flushed(|event| {
            encoder.write_all(event).unwrap();
            encoder.flush().unwrap();
            std::mem::take(encoder.get_mut())
        })
    }

    /// Made with the zlib module of Node.js: `createBrotliCompress`, each event written and flushed.
    fn brotli() -> Vec<Vec<u8>> {
        [
            b"\x8b\x07\x80\x64\x61\x74\x61\x3a\x20\x7b\x22\x61\x22\x3a\x20\x31\x7d\x0a\x0a".as_slice(),
            b"\x78\x00\x80\x5f\x5a\x41\x46\xac\x4f\x26\x60\x88\x28\x31\x40\xda\xc1\x00".as_slice(),
            b"\x68\x00\x80\x5f\x52\x61\xab\x2b\x09\x50\x44\x93\x60\x49\x39\xf8\x31\x00\x03".as_slice(),
        ]
        .map(<[u8]>::to_vec)
        .to_vec()
    }

    fn flushed(encode: impl FnMut(&[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
        EVENTS.into_iter().map(encode).collect()
    }

    fn decode<'a>(coding: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, CodingError> {
        let mut decoder = Decoder::for_content_encoding(Some(coding), 1000).expect("a known coding");
        let mut text = Vec::new();
        for piece in pieces {
            decoder.push(piece, &mut |bytes| text.extend_from_slice(bytes))?;
        }
        Ok(text)
    }

    #[test]
    fn what_was_flushed_comes_out_at_once() {
        for (coding, pieces) in [("gzip", gzip()), ("X-GZIP", gzip()), ("deflate", deflate()), ("br", brotli())] {
            let mut decoder = Decoder::for_content_encoding(Some(coding), 1000).expect("a known coding");
            for (piece, event) in pieces.iter().zip(EVENTS) {
                let mut text = Vec::new();
                decoder.push(piece, &mut |bytes| text.extend_from_slice(bytes)).expect("well coded");
                assert_eq!(text, event, "{coding}");
            }
        }
    }

    #[test]
    fn where_a_body_is_cut_changes_nothing() {
        for (coding, pieces) in [("gzip", gzip()), ("deflate", deflate()), ("br", brotli())] {
            let body = pieces.concat();
            for cut in 0..=body.len() {
                let text = decode(coding, [&body[..cut], &body[cut..]]).expect("well coded");
                assert_eq!(text, TEXT, "{coding} cut at {cut}");
            }
            assert_eq!(decode(coding, body.chunks(1)).expect("well coded"), TEXT, "{coding} byte by byte");
        }
    }

    #[test]
    fn a_body_that_is_not_coded_is_handed_over_as_it_is() {
        for coding in [None, Some("identity"), Some(" Identity "), Some("")] {
            let mut decoder = Decoder::for_content_encoding(coding, 1).expect("nothing to undo");
            assert!(decoder.is_identity());
            let body = TEXT.to_vec();
            let mut same = false;
            decoder.push(&body, &mut |bytes| same = std::ptr::eq(bytes, body.as_slice())).expect("nothing to fail");
            assert!(same, "not a copy");
        }
    }

    #[test]
    fn unknown_and_several_codings_are_opaque() {
        for coding in ["zstd", "gzip, br", "compress", "aes128gcm"] {
            assert!(Decoder::for_content_encoding(Some(coding), 1000).is_none(), "{coding}");
        }
    }

    #[test]
    fn a_piece_that_expands_too_far_is_refused() {
        for large in [1001, 1 << 20] {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&vec![b'x'; large]).unwrap();
            let body = encoder.finish().unwrap();
            assert!(matches!(decode("gzip", [&body[..]]), Err(CodingError::TooLarge)), "{large}");
        }
    }

    #[test]
    fn what_is_not_coded_as_claimed_is_an_error() {
        for coding in ["gzip", "deflate", "br"] {
            assert!(matches!(decode(coding, [TEXT]), Err(CodingError::Corrupt(_))), "{coding}");
        }
    }

    #[test]
    fn a_second_gzip_member_is_read_on() {
        let member = |text: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let body = [member(b"one "), member(b"two")].concat();
        for cut in 0..=body.len() {
            assert_eq!(decode("gzip", [&body[..cut], &body[cut..]]).expect("well coded"), b"one two", "cut at {cut}");
        }
    }
}
