//! Memory: the prompt cache of the provider. Which beginnings of prompts were seen lately, and so cost less.
//!
//! Holds digests, never text. Bounded. Knows no wire format.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::text::join;

/// The shortest beginning that is remembered: 1,024 tokens, as both vendors say of most of their models.
const SHORTEST: u64 = 1024;
/// OpenAI counts cached tokens in steps of 128 (its guide on prompt caching).
const STEP: u64 = 128;
/// The most beginnings remembered at once.
const MOST: usize = 10_000;

/// How long a beginning is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    FiveMinutes,
    Hour,
}

impl Stay {
    const fn length(self) -> Duration {
        match self {
            Self::FiveMinutes => Duration::from_secs(300),
            Self::Hour => Duration::from_secs(3600),
        }
    }
}

/// One part of a prompt: a message, a block of one, a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Stands for its text.
    pub(super) digest: u64,
    pub(super) tokens: u64,
    /// The prompt up to the end of this piece is to be remembered.
    pub(super) keep: Option<Stay>,
}

/// What the prompt cache did for one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recalled {
    pub(super) read: u64,
    pub(super) written_short: u64,
    pub(super) written_long: u64,
}

/// The prompt cache. A clone shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    beginnings: Arc<Mutex<HashMap<u64, Kept>>>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    until: Instant,
    stay: Stay,
}

/// A beginning of the prompt: all pieces up to one of them.
struct Beginning {
    digest: u64,
    tokens: u64,
    keep: Option<Stay>,
}

impl Memory {
    /// As Anthropic does it: remembers up to each marked piece, reads the longest beginning it knows, and writes what
    /// lies between that and the last mark.
    pub(super) fn marked(&self, model: u64, pieces: &[Piece], now: Instant) -> Recalled {
        let beginnings = beginnings(model, pieces);
        let Some(last) = beginnings.iter().rposition(|beginning| beginning.keep.is_some()) else {
            return Recalled::default();
        };
        let mut known = self.beginnings.lock().unwrap_or_else(PoisonError::into_inner);
        let marked = &beginnings[..=last];
        let mut recalled = Recalled { read: longest(&mut known, marked, now), ..Recalled::default() };
        let mut covered = recalled.read;
        for beginning in marked.iter().filter(|beginning| beginning.tokens >= SHORTEST) {
            let Some(stay) = beginning.keep else { continue };
            let new = beginning.tokens.saturating_sub(covered);
            match stay {
                Stay::FiveMinutes => recalled.written_short += new,
                Stay::Hour => recalled.written_long += new,
            }
            covered = covered.max(beginning.tokens);
            keep(&mut known, beginning.digest, stay, now);
        }
        recalled
    }

    /// As OpenAI does it: remembers every prompt unasked, reads the longest beginning it knows in steps of 128 tokens,
    /// and charges nothing for remembering.
    pub(super) fn unasked(&self, model: u64, pieces: &[Piece], now: Instant) -> Recalled {
        let beginnings = beginnings(model, pieces);
        if beginnings.last().is_none_or(|whole| whole.tokens < SHORTEST) {
            return Recalled::default();
        }
        let mut known = self.beginnings.lock().unwrap_or_else(PoisonError::into_inner);
        let read = longest(&mut known, &beginnings, now) / STEP * STEP;
        for beginning in beginnings.iter().filter(|beginning| beginning.tokens >= SHORTEST) {
            keep(&mut known, beginning.digest, Stay::FiveMinutes, now);
        }
        Recalled { read, ..Recalled::default() }
    }
}

fn beginnings(model: u64, pieces: &[Piece]) -> Vec<Beginning> {
    let mut whole = Beginning { digest: model, tokens: 0, keep: None };
    let grow = |piece: &Piece| {
        whole.digest = join(whole.digest, piece.digest);
        whole.tokens += piece.tokens;
        Beginning { digest: whole.digest, tokens: whole.tokens, keep: piece.keep }
    };
    pieces.iter().map(grow).collect()
}

/// The tokens of the longest beginning that is known; it is then remembered for as long again.
fn longest(known: &mut HashMap<u64, Kept>, beginnings: &[Beginning], now: Instant) -> u64 {
    for beginning in beginnings.iter().rev() {
        if let Some(kept) = known.get_mut(&beginning.digest).filter(|kept| kept.until > now) {
            kept.until = now + kept.stay.length();
            return beginning.tokens;
        }
    }
    0
}

fn keep(known: &mut HashMap<u64, Kept>, digest: u64, stay: Stay, now: Instant) {
    if known.len() >= MOST {
        known.retain(|_, kept| kept.until > now);
    }
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(digest, Kept { until: now + stay.length(), stay });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(digest: u64, tokens: u64, keep: Option<Stay>) -> Piece {
        Piece { digest, tokens, keep }
    }

    #[test]
    fn what_is_marked_is_written_once_and_then_read() {
        let (memory, now) = (Memory::default(), Instant::now());
        let prompt = [piece(1, 2000, Some(Stay::Hour)), piece(2, 500, Some(Stay::FiveMinutes)), piece(3, 10, None)];
        let first = memory.marked(0, &prompt, now);
        assert_eq!(first, Recalled { read: 0, written_short: 500, written_long: 2000 });
        let second = memory.marked(0, &prompt, now);
        assert_eq!(second, Recalled { read: 2500, ..Recalled::default() });
        let after_ten_minutes = memory.marked(0, &prompt, now + Duration::from_secs(600));
        assert_eq!(after_ten_minutes, Recalled { read: 2000, written_short: 500, written_long: 0 });
        assert_eq!(memory.marked(1, &prompt, now).read, 0, "another model has another cache");
    }

    #[test]
    fn a_conversation_that_grows_reads_what_it_wrote_before() {
        let (memory, now) = (Memory::default(), Instant::now());
        memory.marked(0, &[piece(1, 2000, Some(Stay::FiveMinutes))], now);
        let grown = [piece(1, 2000, None), piece(2, 300, Some(Stay::FiveMinutes))];
        assert_eq!(memory.marked(0, &grown, now), Recalled { read: 2000, written_short: 300, written_long: 0 });
    }

    #[test]
    fn short_prompts_are_not_remembered() {
        let (memory, now) = (Memory::default(), Instant::now());
        let short = [piece(1, SHORTEST - 1, Some(Stay::FiveMinutes))];
        for _ in 0..2 {
            assert_eq!(memory.marked(0, &short, now), Recalled::default());
            assert_eq!(memory.unasked(0, &short, now), Recalled::default());
        }
    }

    #[test]
    fn unasked_reads_come_in_steps_of_128() {
        let (memory, now) = (Memory::default(), Instant::now());
        let prompt = [piece(1, 1500, None), piece(2, 7, None)];
        assert_eq!(memory.unasked(0, &prompt, now).read, 0);
        assert_eq!(memory.unasked(0, &prompt, now).read, 1408);
        let changed = [piece(1, 1500, None), piece(3, 900, None)];
        assert_eq!(memory.unasked(0, &changed, now).read, 1408);
    }
}
