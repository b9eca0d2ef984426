//! Log: what has come of a source that several may ride, as far as it is kept. The buffer of the cache as well. Knows bytes
//! and positions; nobody who reads them.

use bytes::{Buf, Bytes, BytesMut};

use crate::allowance::Share;

/// The most that is copied for a rider at once.
const MAX_COPIED: usize = 64 << 10;

/// What has come of a source, as far as it is kept: all of it while that is within a limit. Beyond the limit, only what
/// somebody still needs.
#[derive(Debug)]
pub struct Log {
    pub(super) kept: BytesMut,
    /// What was kept, once nothing more comes.
    frozen: Bytes,
    /// Where `kept` begins.
    from: u64,
    total: u64,
    limit: usize,
    /// Whether all that came is kept.
    is_whole: bool,
    /// What accounts for what is kept, where that is bounded for all logs together.
    share: Option<Share>,
}

impl Log {
    /// An empty log that keeps all of what is no larger than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { kept: BytesMut::new(), frozen: Bytes::new(), from: 0, total: 0, limit, is_whole: true, share: None }
    }

    /// The same, and what it keeps is on account of `share`. Where there is no room, it keeps no more than it must.
    #[must_use]
    pub fn within(self, share: Option<Share>) -> Self {
        Self { share, ..self }
    }

    /// Adds a piece that nobody needs to read again.
    pub fn note(&mut self, piece: &[u8]) {
        self.push(piece, None);
    }

    /// Adds a piece. Beyond the limit, only what lies behind `needed_from` is kept.
    pub(super) fn push(&mut self, piece: &[u8], needed_from: Option<u64>) {
        self.total += piece.len() as u64;
        self.is_whole = self.is_whole && self.has_room();
        if self.is_whole {
            return self.kept.extend_from_slice(piece);
        }
        self.let_go(needed_from.unwrap_or(self.total));
        if needed_from.is_some() {
            self.kept.extend_from_slice(piece);
        } else {
            self.from = self.total;
            self.share = None;
        }
    }

    /// Whether all that has come may be kept.
    fn has_room(&mut self) -> bool {
        let Some(all) = usize::try_from(self.total).ok().filter(|all| *all <= self.limit) else { return false };
        let has_room = self.share.as_mut().is_none_or(|share| share.grow_to(all));
        if !has_room {
            // From now on the slowest may be behind by no more than what nobody accounts for.
            self.limit = self.limit.min(MAX_COPIED);
        }
        has_room
    }

    /// How much has come.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether all that came is kept.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// All that came, once nothing more comes; `None` if it was too much.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        self.is_whole().then_some(&self.frozen)
    }

    /// Nothing more comes.
    pub fn freeze(&mut self) {
        let kept = std::mem::take(&mut self.kept).freeze();
        self.frozen = match self.share.take() {
            Some(share) => share.keep(kept),
            None => kept,
        };
    }

    /// Whether no more should come before somebody has taken of what is kept.
    pub(super) fn is_full(&self) -> bool {
        !self.is_whole() && self.kept.len() >= self.limit
    }

    /// A piece from `at` on; `None` if nothing has come since.
    pub(super) fn read(&self, at: u64) -> Option<Bytes> {
        let skipped = usize::try_from(at - self.from).expect("what is kept fits into memory");
        if at >= self.total {
            None
        } else if self.frozen.is_empty() {
            let rest = &self.kept[skipped..];
            Some(Bytes::copy_from_slice(&rest[..rest.len().min(MAX_COPIED)]))
        } else {
            Some(self.frozen.slice(skipped..))
        }
    }

    pub(super) fn let_go(&mut self, before: u64) {
        let unneeded =
            usize::try_from(before.saturating_sub(self.from)).map_or(self.kept.len(), |n| n.min(self.kept.len()));
        self.from += unneeded as u64;
        if unneeded == self.kept.len() {
            // Given back, not just emptied: it may never be needed again.
            self.kept = BytesMut::new();
        } else {
            self.kept.advance(unneeded);
        }
    }
}
