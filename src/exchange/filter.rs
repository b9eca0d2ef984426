//! Filter: takes the usage chunk that weir asked for, and nothing else, out of a stream.
//!
//! Bytes of an event that is not complete yet are held back, since it may turn out to be that chunk; a reader could
//! not act on half an event anyway. Everything else passes at once, without a copy wherever nothing is held. What was
//! taken out is kept, and can be put back where it was.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The usage chunk is smaller than this by far; a larger event is not it, and is not held.
const MAX_HELD: usize = 64 << 10;

/// Removes marked spans from a stream.
#[derive(Debug, Default)]
pub(super) struct Filter {
    held: BytesMut,
    /// Stream offset of the first held byte.
    passed: u64,
    /// What was taken out, and how much the app had had before it.
    removed: Vec<(u64, Bytes)>,
    /// Bytes taken out.
    removed_bytes: u64,
}

impl Filter {
    /// What may go on to the app once `chunk` has come: all but the spans in `removed` and an event that began at
    /// `incomplete_from` and has not ended. Offsets count from the start of the stream.
    pub(super) fn pass(&mut self, chunk: Bytes, removed: &[Range<u64>], incomplete_from: u64) -> Bytes {
        let end = self.passed + (self.held.len() + chunk.len()) as u64;
        if self.held.is_empty() && removed.is_empty() && incomplete_from == end {
            self.passed = end;
            return chunk;
        }
        self.held.extend_from_slice(&chunk);
        let pending = end.saturating_sub(incomplete_from);
        let release_to = if pending > MAX_HELD as u64 { end } else { incomplete_from };
        self.release(release_to, removed)
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What is still held when the stream is over.
    pub(super) fn finish(&mut self) -> Bytes {
        self.passed += self.held.len() as u64;
        self.held.split().freeze()
    }

    /// What the stream was, less nothing: `passed` is all that the app got of it. `None` if nothing was taken out, or
    /// more than a usage chunk has.
    pub(super) fn put_back(&self, passed: &[u8]) -> Option<Bytes> {
        if self.removed.is_empty() || self.removed_bytes > MAX_HELD as u64 {
            return None;
        }
        let removed_bytes = usize::try_from(self.removed_bytes).ok()?;
        let mut whole = BytesMut::with_capacity(passed.len() + removed_bytes);
        let mut from = 0;
        for (had, removed) in &self.removed {
            let to = usize::try_from(*had).ok()?;
            whole.extend_from_slice(passed.get(from..to)?);
            whole.extend_from_slice(removed);
            from = to;
        }
        whole.extend_from_slice(&passed[from..]);
        Some(whole.freeze())
    }

    /// Keeps what is taken out at `offset`, unless that becomes too much.
    fn remove(&mut self, offset: u64, bytes: &[u8]) {
        let had = offset - self.removed_bytes;
        self.removed_bytes += bytes.len() as u64;
        if self.removed_bytes <= MAX_HELD as u64 {
            self.removed.push((had, Bytes::copy_from_slice(bytes)));
        }
    }

    fn release(&mut self, to: u64, removed: &[Range<u64>]) -> Bytes {
        let start = self.passed;
        let within =
            |offset: u64, limit: usize| usize::try_from(offset.saturating_sub(start)).map_or(limit, |at| at.min(limit));
        let due = within(to, self.held.len());
        let ready = self.held.split_to(due);
        self.passed += due as u64;
        if removed.is_empty() {
            return ready.freeze();
        }
        let mut kept = BytesMut::with_capacity(due);
        let mut from = 0;
        for span in removed {
            let begin = within(span.start, due).max(from);
            kept.extend_from_slice(&ready[from..begin]);
            from = within(span.end, due).max(from);
            self.remove(start + begin as u64, &ready[begin..from]);
        }
        kept.extend_from_slice(&ready[from..]);
        kept.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events end at `;`; those that begin with `u` are to be removed.
    fn filtered(stream: &str, cuts: &[usize]) -> String {
        let mut filter = Filter::default();
        let (mut out, mut seen, mut begun, mut at) = (Vec::new(), Vec::new(), 0_u64, 0);
        for &cut in cuts.iter().chain([&stream.len()]) {
            let chunk = Bytes::copy_from_slice(&stream.as_bytes()[at..cut]);
            at = cut;
            let mut removed = Vec::new();
            for &byte in &chunk {
                seen.push(byte);
                if byte == b';' {
                    let span = begun..seen.len() as u64;
                    if seen[usize::try_from(begun).expect("small")] == b'u' {
                        removed.push(span.clone());
                    }
                    begun = span.end;
                }
            }
            out.extend_from_slice(&filter.pass(chunk, &removed, begun));
        }
        out.extend_from_slice(&filter.finish());
        let whole = filter.put_back(&out);
        assert_eq!(whole.as_deref(), Some(stream.as_bytes()).filter(|whole| *whole != out), "{stream} put back");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn exactly_the_marked_events_are_gone_wherever_the_stream_is_cut() {
        for (stream, expected) in [
            ("a;b;u1;c;", "a;b;c;"),
            ("u1;", ""),
            ("u1;a;u2;u3;b", "a;b"),
            ("a;u unfinished", "a;u unfinished"),
            ("a;b;", "a;b;"),
        ] {
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    assert_eq!(filtered(stream, &[first, second]), expected, "{stream} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn what_needs_no_change_is_not_copied() {
        let chunk = Bytes::from_static(b"a;b;");
        let passed = Filter::default().pass(chunk.clone(), &[], 4);
        assert_eq!(passed.as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn an_event_too_large_to_be_the_usage_chunk_is_not_held() {
        let mut filter = Filter::default();
        let large = Bytes::from(vec![b'a'; MAX_HELD + 1]);
        assert_eq!(filter.pass(large.clone(), &[], 0), large);
        assert_eq!(filter.pass(Bytes::from_static(b";"), &[], large.len() as u64 + 1).as_ref(), b";");
    }
}
